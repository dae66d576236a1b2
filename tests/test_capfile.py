from __future__ import annotations

import contextlib
import gzip
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.capture import bytesource, capfile, pcapng
from sensor.capture.capfile import CaptureReader
from sensor.capture.records import MAX_TS_NS
from sensor.errors import CaptureError, CaptureFormatError
from tests import builders_capture as build
from tests.builders_capture import Frame, read_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CAPTURES = Path(__file__).parents[1].parent / "shared" / "captures"

LAYOUTS = st.sampled_from("<>")
FRAMES = st.builds(
    lambda ts_ns, data, cut_off, link_type: Frame(ts_ns, data, len(data) + cut_off, link_type),
    st.integers(0, (1 << 32) * 10**9 - 1),
    st.binary(max_size=70),
    st.sampled_from([0, 0, 1, 1500]),
    st.sampled_from([1, 101, 113, 147, 276]),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captures")


def read_bytes(scratch: Path, content: bytes, **limits: int) -> tuple[list[Frame], CaptureError | None]:
    """Read content as a file; return what it delivered and what it complained about."""
    path = scratch / "under-test"
    path.write_bytes(content)
    return read_file(path, **limits)


def read_file(path: Path, **limits: int) -> tuple[list[Frame], CaptureError | None]:
    """Return a file's frames and the first complaint, but for those about link types."""
    frames: list[Frame] = []
    problems: list[CaptureError] = []
    try:
        with CaptureReader(str(path), on_problem=problems.append, **limits) as reader:
            for batch in reader:
                frames += read_frames([batch])
    except CaptureError as error:
        problems.append(error)
    problems = [problem for problem in problems if "of link type" not in str(problem)]
    for problem in problems:
        assert str(problem).startswith(f"{path}: byte ")
        assert "\n" not in str(problem)
    return frames, problems[0] if problems else None


def read_well(scratch: Path, content: bytes, **limits: int) -> list[Frame]:
    frames, problem = read_bytes(scratch, content, **limits)
    assert problem is None
    return frames


# --- round trips --------------------------------------------------------------------------------------------

BUFFERS = st.sampled_from([0, 64, 100, 4096, bytesource.BUFFER_BYTES])
BATCHES = st.sampled_from([1, 2, 3, capfile.MAX_BATCH_FRAMES])


@given(st.lists(FRAMES, max_size=12), LAYOUTS, st.booleans(), st.booleans(), BUFFERS, BATCHES)
def test_pcap_comes_back(
    scratch: Path, frames: list[Frame], layout: str, nano: bool, packed: bool, buffer_bytes: int, batch: int
) -> None:
    content = build.pcap(frames, layout, nano=nano)
    content = gzip.compress(content) if packed else content
    expected = [build.as_pcap(frame, frames[0].link_type, nano=nano) for frame in frames]
    assert read_well(scratch, content, buffer_bytes=buffer_bytes, max_batch_frames=batch) == expected


RESOLUTIONS = st.one_of(st.integers(0, 18), st.integers(0x80, 0x80 + 63))
OFFSETS = st.one_of(st.none(), st.integers(-(10**9), 10**9), st.integers(-(1 << 63), (1 << 63) - 1))


def expected_ts_ns(units: int, tsresol: int | None, tsoffset: int | None) -> int:
    tsresol = 6 if tsresol is None else tsresol
    per_second = 1 << (tsresol & 0x7F) if tsresol & 0x80 else 10**tsresol
    offset_ns = max(-MAX_TS_NS, min((tsoffset or 0) * 10**9, MAX_TS_NS))
    return min(min(units * 10**9 // per_second, MAX_TS_NS) + offset_ns, MAX_TS_NS)


@st.composite
def sections(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """Any section of a pcapng file, and the frames that are in it."""
    layout = draw(LAYOUTS)
    content = build.section(layout)
    frames: list[Frame] = []
    interfaces: list[tuple[int, int, int | None, int | None]] = []
    last_ts_ns = 0
    for kind in draw(st.lists(st.sampled_from("IIIEEEEOSU"), max_size=14)):
        if kind == "I":
            link_type, snaplen = draw(st.sampled_from([1, 101, 147])), draw(st.sampled_from([0, 5, 65535]))
            tsresol, tsoffset = draw(st.one_of(st.none(), RESOLUTIONS)), draw(OFFSETS)
            interfaces.append((link_type, snaplen, tsresol, tsoffset))
            content += build.interface(
                layout, link_type=link_type, snaplen=snaplen, tsresol=tsresol, tsoffset=tsoffset
            )
        elif kind == "U":
            content += build.unknown_block(layout, draw(st.integers(0, 40)))
        elif interfaces:
            data = draw(st.binary(max_size=40))
            if kind == "S":
                link_type, snaplen, _, _ = interfaces[0]
                data = data[: snaplen or None]
                wire_len = draw(st.sampled_from([len(data), 2000])) if len(data) == snaplen else len(data)
                content += build.simple_packet(layout, data, wire_len)
            else:
                i = draw(st.integers(0, len(interfaces) - 1))
                link_type, _, tsresol, tsoffset = interfaces[i]
                units = draw(st.integers(0, (1 << 64) - 1))
                wire_len = len(data) + draw(st.sampled_from([0, 100]))
                last_ts_ns = expected_ts_ns(units, tsresol, tsoffset)
                if kind == "E":
                    comment = draw(st.sampled_from([b"", build.option(layout, 1, b"why") + bytes(4)]))
                    content += build.enhanced_packet(layout, i, units, data, wire_len, comment)
                else:
                    content += build.obsolete_packet(layout, i, units, data, wire_len)
            frames.append(Frame(last_ts_ns, data, wire_len, link_type))
    return content, frames


@given(st.lists(sections(), min_size=1, max_size=3), st.booleans(), BUFFERS, BATCHES)
def test_pcapng_comes_back(
    scratch: Path, parts: list[tuple[bytes, list[Frame]]], packed: bool, buffer_bytes: int, batch: int
) -> None:
    content = b"".join(content for content, _ in parts)
    content = gzip.compress(content) if packed else content
    expected = [frame for _, frames in parts for frame in frames]
    assert read_well(scratch, content, buffer_bytes=buffer_bytes, max_batch_frames=batch) == expected


@pytest.mark.parametrize("tsresol", [*range(19), *range(0x80, 0x80 + 64)])
@given(st.integers(0, (1 << 64) - 1), OFFSETS)
@settings(max_examples=20)
def test_every_resolution_is_exact(scratch: Path, tsresol: int, units: int, tsoffset: int | None) -> None:
    per_second = (1 << (tsresol & 0x7F)) if tsresol & 0x80 else 10**tsresol
    latest = [(MAX_TS_NS // 10**9 + i) * per_second for i in (0, 1)]  # on both sides of MAX_TS_NS
    edges = [0, 1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    edges += [several for several in latest if several < 1 << 64]
    content = build.section() + build.interface(tsresol=tsresol, tsoffset=tsoffset)
    for several in (units, *edges):
        content += build.enhanced_packet("<", 0, several, b"", 0)
    times = [frame.ts_ns for frame in read_well(scratch, content)]
    assert times == [expected_ts_ns(several, tsresol, tsoffset) for several in (units, *edges)]


def test_a_frame_without_a_timestamp_takes_the_last_one_of_its_section(scratch: Path) -> None:
    untimed = build.simple_packet("<", b"abcd", 4)
    part = build.section() + build.interface(tsresol=9) + untimed
    part += build.enhanced_packet("<", 0, 77, b"", 0) + untimed + untimed
    assert [frame.ts_ns for frame in read_well(scratch, part + part)] == [0, 77, 77, 77] * 2


def test_the_obvious_timestamps(scratch: Path) -> None:
    # 2023-11-14 22:13:20.25 UTC in several units: values worked out by hand, not by the rule of the reader.
    for tsresol, tsoffset, units in (
        (None, None, 1_700_000_000_250_000),
        (6, 1_600_000_000, 100_000_000_250_000),
        (9, None, 1_700_000_000_250_000_000),
        (0x80 | 2, None, 1_700_000_000 * 4 + 1),
        (0x80 | 32, None, (1_700_000_000 << 32) | 0x40000000),
    ):
        content = build.section(">") + build.interface(">", tsresol=tsresol, tsoffset=tsoffset)
        (frame,) = read_well(scratch, content + build.enhanced_packet(">", 0, units, b"abc", 3))
        assert frame.ts_ns == 1_700_000_000_250_000_000


# --- cut and damaged files ----------------------------------------------------------------------------------

SOME_FRAMES = [Frame(10**18 + i, bytes([i]) * (3 * i), 3 * i + i % 2) for i in range(4)]


def some_pcapng() -> list[bytes]:
    packets = [build.enhanced_packet("<", 0, f.ts_ns, f.data, f.wire_len) for f in SOME_FRAMES]
    return [build.section(), build.interface(tsresol=9), *packets, build.unknown_block("<")]


def some_pcap() -> list[bytes]:
    return [build.pcap_header(nano=True), *(build.pcap_record(f, nano=True) for f in SOME_FRAMES)]


@pytest.mark.parametrize("records", [some_pcap(), some_pcapng()], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("buffer_bytes", [0, 4096])
def test_cut_at_every_byte(scratch: Path, records: list[bytes], buffer_bytes: int) -> None:
    content = b"".join(records)
    boundaries = {sum(map(len, records[:n])) for n in range(1, len(records) + 1)}
    for cut in range(len(content) + 1):
        frames, problem = read_bytes(scratch, content[:cut], buffer_bytes=buffer_bytes)
        assert frames == SOME_FRAMES[: len(frames)]
        assert (problem is None) == (cut in boundaries)
        if cut == len(content):
            assert frames == SOME_FRAMES


def test_the_message_of_a_cut_file_names_file_offset_and_reason(scratch: Path) -> None:
    content = b"".join(some_pcap())
    frames, problem = read_bytes(scratch, content[:-1])
    last = len(content) - 16 - len(SOME_FRAMES[-1].data)
    assert frames == SOME_FRAMES[:-1]
    assert (
        str(problem) == f"{scratch}/under-test: byte {last}: the capture ends here: 24 of 25 bytes are there"
    )


@pytest.mark.parametrize("records", [some_pcap(), some_pcapng()], ids=["pcap", "pcapng"])
def test_gzip_cut_at_every_byte(scratch: Path, records: list[bytes]) -> None:
    plain = b"".join(records)
    content = gzip.compress(plain)
    most = []
    for cut in range(len(content)):
        frames, problem = read_bytes(scratch, content[:cut])
        assert frames == SOME_FRAMES[: len(frames)]
        assert isinstance(problem, CaptureFormatError)
        most.append(len(frames))
    assert most == sorted(most)
    assert most[-1] == len(SOME_FRAMES), "the check sum alone is missing: all frames are there"


@given(st.data())
def test_damaged_gzip_delivers_what_precedes_the_damage(scratch: Path, data: st.DataObject) -> None:
    noise = random.Random(1)
    frames = [Frame(i * 1000, noise.randbytes(50), 50) for i in range(40)]
    content = bytearray(gzip.compress(build.pcap(frames)))
    at = data.draw(st.integers(10, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    delivered, problem = read_bytes(scratch, bytes(content))
    assert problem is not None
    n_good = max(0, (at - 300) // 66)  # random bytes are stored nearly as they are
    assert delivered[:n_good] == frames[:n_good]


def test_damage_far_into_a_gzip_file_costs_only_what_follows(scratch: Path) -> None:
    frames = [Frame(i * 1000, bytes([i % 7]) * 900, 900) for i in range(3000)]
    content = bytearray(gzip.compress(build.pcap(frames)))
    content[-8] ^= 1  # the check sum: all data are good
    delivered, problem = read_bytes(scratch, bytes(content))
    assert delivered == frames
    assert str(problem).endswith("damaged gzip data: incorrect data check")


def test_gzip_members_follow_upon_each_other(scratch: Path) -> None:
    content = b"".join(some_pcap())
    members = gzip.compress(content[:50]) + gzip.compress(content[50:]) + bytes(100)
    assert read_well(scratch, members) == SOME_FRAMES
    frames, problem = read_bytes(scratch, members + b"junk")
    assert frames == SOME_FRAMES
    assert str(problem).endswith(f"byte {len(members) + 1}: damaged gzip data: incorrect header check")


@given(st.sampled_from([b"".join(some_pcap()), b"".join(some_pcapng())]), st.data())
def test_any_bytes_give_frames_and_at_most_one_problem(
    scratch: Path, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, damaged[at] ^ 1]))
    read_bytes(scratch, bytes(damaged), buffer_bytes=data.draw(BUFFERS))


@given(st.sampled_from([build.pcap_header(), build.section() + build.interface()]), st.binary(max_size=200))
def test_noise_behind_a_header(scratch: Path, header: bytes, noise: bytes) -> None:
    read_bytes(scratch, header + noise)


ERF_RECORD = struct.pack("<IIBB", 0, 1_700_000_000, 2, 4) + struct.pack(">HHH", 16 + 60, 0, 60) + bytes(60)
LANALYZER = struct.pack("<HH", 0x1001, 2) + bytes(2) + struct.pack("<HH", 0x1007, 2) + bytes(40)
SECTION = build.section() + build.interface()
PACKET = build.enhanced_packet("<", 0, 0, b"abcd", 4)


@pytest.mark.parametrize(
    ("content", "byte", "reason"),
    [
        (b"", 0, "the file is empty"),
        (gzip.compress(b"", mtime=0), 0, "there is nothing in it"),
        (b"\xd4", 0, "neither pcap nor pcapng: it begins with d4"),
        (b"hello, world\n", 0, "neither pcap nor pcapng: it is plain text"),
        (bytes(40), 0, "neither pcap nor pcapng: it begins with 00000000000000000000000000000000"),
        (b"snoop\0\0\0" + bytes(40), 0, "snoop is not read: convert it with editcap -F pcap"),
        (b"btsnoop\0" + bytes(40), 0, "btsnoop is not read: convert it with editcap -F pcap"),
        (b"GMBU" + bytes(40), 0, "Microsoft Network Monitor 2 is not read: convert it"),
        (b"\x0c\xa5" + bytes(40), 0, "nfdump is not read: it holds no packets"),
        (ERF_RECORD * 2, 0, "ERF (Endace) is not read: convert it"),
        (LANALYZER, 0, "LANalyzer is not read: convert it"),
        (bytes.fromhex("04224d18") + bytes(40), 0, "lz4 is not read: unpack it first"),
        (
            gzip.compress(gzip.compress(b"", mtime=0), mtime=0),
            0,
            "gzip within another compression is not read: unpack it first",
        ),
        (gzip.compress(b"{}", mtime=0), 0, "neither pcap nor pcapng: it is plain text"),
        (build.pcap_header(version=(1, 4)), 0, "pcap of version 1.4 is not read"),
        (
            build.pcap_header() + struct.pack("<IIII", 0, 0, 262145, 262145),
            24,
            "a frame of more than 262144 bytes",
        ),
        (
            build.pcap_header() + struct.pack("<IIII", 0, 0, 1 << 31, 9),
            24,
            "a frame of more than 262144 bytes",
        ),
        (build.section(version=(2, 0)), 0, "pcapng of version 2.0 is not read"),
        (bytes.fromhex("0a0d0d0a") + bytes(24), 0, "a section header with the byte-order magic 00000000"),
        (bytes.fromhex("0a0d0d0a 18000000 4d3c2b1a") + bytes(16), 0, "a block of impossible length"),
        (SECTION + build.block("<", 6, bytes(12)), len(SECTION), "a block of impossible length"),
        (SECTION + build.block("<", 2, bytes(12)), len(SECTION), "a block of impossible length"),
        (SECTION + build.block("<", 3, b""), len(SECTION), "a block of impossible length"),
        (SECTION + struct.pack("<III", 99, 8, 8), len(SECTION), "a block of impossible length"),
        (SECTION + struct.pack("<III", 99, 0x7FFFFFFC, 0), len(SECTION), "a block of impossible length"),
        (SECTION + struct.pack("<IIII", 99, 14, 0, 0), len(SECTION), "a block of impossible length"),
        (
            SECTION + PACKET + PACKET[:-4] + bytes(4),
            len(SECTION + PACKET),
            "the length of a block and its repetition",
        ),
        (build.section() + PACKET, 28, "a frame of an interface that is not described"),
        (
            build.section() + build.simple_packet("<", b"", 0),
            28,
            "a frame of an interface that is not described",
        ),
        (build.section() + build.interface()[:-4] + bytes(4), 28, "the length of a block and its repetition"),
        (build.section() + build.block("<", 1, bytes(4)), 28, "a block of impossible length"),
        (build.section() + build.interface(tsresol=19), 28, "timestamps in units of 10**-19 s"),
        (build.section() + build.interface(tsresol=0x80 | 64), 28, "timestamps in units of 2**-64 s"),
        (
            build.section() + build.block("<", 1, bytes(8) + struct.pack("<HH", 2, 40)),
            28,
            "option 2 of an interface is longer than its block",
        ),
        (
            SECTION + build.block("<", 6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + bytes(4)),
            len(SECTION),
            "a frame longer than the block that holds it",
        ),
        (
            SECTION + build.block("<", 6, struct.pack("<IIIII", 0, 0, 0, 300_000, 5) + bytes(300_000)),
            len(SECTION),
            "a frame of more than 262144 bytes",
        ),
        (
            SECTION + build.simple_packet("<", bytes(300_000), 300_000),
            len(SECTION),
            "a frame of more than 262144",
        ),
    ],
)
def test_what_is_wrong_is_named(scratch: Path, content: bytes, byte: int, reason: str) -> None:
    frames, problem = read_bytes(scratch, content)
    packed_note = " after unpacking" if content[:2] == b"\x1f\x8b" else ""
    assert isinstance(problem, CaptureFormatError)
    assert str(problem).startswith(f"{scratch}/under-test: byte {byte}{packed_note}: {reason}")
    assert len(frames) == (byte > len(SECTION))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(
        CaptureError, match=r"^/nowhere/x\.pcap: cannot be opened: No such file or directory$"
    ):
        CaptureReader("/nowhere/x.pcap", on_problem=pytest.fail)


def test_a_directory_cannot_be_read(scratch: Path) -> None:
    with pytest.raises(CaptureError, match=r"byte 0: cannot be read: Is a directory$"):
        CaptureReader(str(scratch), on_problem=pytest.fail)


def test_names_are_printable() -> None:
    assert capfile.capture_name("ä b.pcap") == "ä b.pcap"
    assert capfile.capture_name("a\x1b[31m\n.pcap") == r"'a\x1b[31m\n.pcap'"
    assert capfile.capture_name("-") == "standard input"


# --- oddities that are no errors ----------------------------------------------------------------------------


def test_a_captured_length_beyond_the_wire_length_is_believed(scratch: Path) -> None:
    content = build.pcap_header() + struct.pack("<IIII", 1, 2, 4, 0) + b"abcd"
    assert read_well(scratch, content) == [Frame(1_000_002_000, b"abcd", 4)]


def test_a_wire_length_beyond_31_bits_is_capped(scratch: Path) -> None:
    content = build.pcap_header() + struct.pack("<IIII", 1, 2, 0, 0xFFFFFFFF)
    assert read_well(scratch, content) == [Frame(1_000_002_000, b"", 0x7FFFFFFF)]


def test_the_link_type_is_freed_from_the_fcs_length(scratch: Path) -> None:
    content = build.pcap_header(link_field=0x44000000 | 276) + build.pcap_record(SOME_FRAMES[0])
    assert [frame.link_type for frame in read_well(scratch, content)] == [276]


def test_the_longest_frame_and_a_block_larger_than_the_buffer(scratch: Path) -> None:
    longest = Frame(0, bytes(range(256)) * 1024, 262144)
    for buffer_bytes in (0, 4096):
        assert read_well(scratch, build.pcap([longest, longest]), buffer_bytes=buffer_bytes) == [longest] * 2
        content = SECTION + build.unknown_block("<", 6 << 20) + PACKET
        assert [f.data for f in read_well(scratch, content, buffer_bytes=buffer_bytes)] == [b"abcd"]


def test_many_interfaces(scratch: Path) -> None:
    n = 300
    content = build.section() + b"".join(build.interface(link_type=i) for i in range(n))
    content += b"".join(build.enhanced_packet("<", i, 0, b"", 0) for i in range(n))
    assert [frame.link_type for frame in read_well(scratch, content)] == list(range(n))


def test_too_many_interfaces(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcapng, "MAX_INTERFACES", 3)
    _, problem = read_bytes(scratch, build.section() + build.interface() * 4)
    assert "more than 3 interfaces in one section" in str(problem)


def test_a_read_error_is_reported_behind_what_was_read(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_readv, calls = os.readv, Counter[str]()

    def failing_readv(fd: int, buffers: list[memoryview]) -> int:
        calls["readv"] += 1
        if calls["readv"] == 3:
            raise OSError(5, "Input/output error")
        return real_readv(fd, [buffers[0][:50]])

    monkeypatch.setattr(os, "readv", failing_readv)
    frames, problem = read_bytes(scratch, b"".join(some_pcap()))
    assert frames == SOME_FRAMES[:2]
    assert str(problem).endswith("byte 66: cannot be read: Input/output error")


# --- pipes --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def standard_input(fd: int) -> Iterator[None]:
    saved = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_byte_by_byte(pack: Callable[[bytes], bytes]) -> None:
    content = pack(b"".join(some_pcapng()))
    script = "import os\nwhile b := os.read(0, 1): os.write(1, b)"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as trickle:
        assert trickle.stdin is not None
        assert trickle.stdout is not None
        trickle.stdin.write(content)
        trickle.stdin.close()
        with standard_input(trickle.stdout.fileno()), CaptureReader("-", on_problem=pytest.fail) as reader:
            assert read_frames(reader) == SOME_FRAMES
            assert reader.bytes_read == len(content)


def test_frames_of_a_pipe_are_handed_out_as_they_come() -> None:
    readable, writable = os.pipe()
    with standard_input(readable):
        os.close(readable)
        os.write(writable, b"".join(some_pcap()[:2]))
        with CaptureReader("-", on_problem=pytest.fail) as reader:
            batches = iter(reader)
            assert read_frames([next(batches)]) == SOME_FRAMES[:1]
            os.write(writable, b"".join(some_pcap()[2:4]))
            assert read_frames([next(batches)]) == SOME_FRAMES[1:3]
            os.close(writable)
            assert next(batches, None) is None


# --- real files ---------------------------------------------------------------------------------------------


def shared(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (CAPTURES / folder).glob("*") if path.is_file())


@pytest.mark.skipif(
    not CAPTURES.is_dir() and "CI" not in os.environ, reason="the shared captures are not here"
)
def test_no_shared_capture_raises_or_takes_long() -> None:
    problems = []
    for path in shared("malformed", "formats", "encapsulated", "benign"):
        begin = time.monotonic()
        problems.append(read_file(path)[1])
        assert time.monotonic() - begin < 5, path
    assert any(problems)


def tshark_frames(path: Path) -> tuple[list[tuple[int | None, int, int]], str]:
    """(timestamp in ns or None, length, captured length) of each frame, and tshark's complaint."""
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.encap_type"]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields"]
    command += [argument for field in fields for argument in ("-e", field)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    rows = []
    for line in result.stdout.splitlines():
        time_epoch, length, captured_len, encapsulation = line.split("\t")
        if encapsulation:  # else a block of pcapng that is no packet
            ts_ns = int(Decimal(time_epoch).scaleb(9)) if time_epoch else None
            rows.append((ts_ns, int(length), int(captured_len)))
    return rows, "\n".join(line for line in result.stderr.splitlines() if "Running as user" not in line)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "path",
    [
        # tshark ends where we read on: capture_known.tsv
        *(p for p in shared("formats") if p.suffix != ".snoop" and "test901" not in p.name),
        *shared("smtp")[::8],
        *shared("dns")[::4],
        *shared("malformed")[::12],
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_tshark_sees_the_same_frames(path: Path) -> None:
    if shutil.which("tshark") is None and "CI" not in os.environ:
        pytest.skip("tshark is not installed")
    theirs, complaint = tshark_frames(path)
    frames, problem = read_file(path)
    assert len(frames) == len(theirs)
    for frame, (ts_ns, length, captured_len) in zip(frames, theirs, strict=True):
        assert (frame.wire_len, len(frame.data)) == (max(length, captured_len), captured_len)
        if ts_ns is not None:  # a frame without a timestamp: see test_pcapng_comes_back
            assert frame.ts_ns == min(ts_ns, MAX_TS_NS)
    assert (problem is None) == (complaint == ""), f"we say {problem}, tshark says {complaint}"
