"""Captures that are damaged in the middle, packed in several ways, or made by variants of the format."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.capture import bytesource
from sensor.capture.capfile import CaptureCounts, CaptureReader
from sensor.capture.linktypes import link_type_text
from sensor.errors import CaptureError
from tests import builders_capture as build
from tests.builders_capture import Frame, read_frames
from tests.captures import CAPTURES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START_NS = 1_700_000_000 * 10**9
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


class Read:
    """What a reader made of some bytes."""

    def __init__(self, scratch: Path, content: bytes, **limits: int) -> None:
        path = scratch / "under-test"
        path.write_bytes(content)
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self.counts = CaptureCounts()
        try:
            with CaptureReader(
                str(path), on_problem=lambda problem: self.problems.append(str(problem)), **limits
            ) as reader:
                self.counts = reader.counts
                for batch in reader:
                    self.frames += read_frames([batch])
        except CaptureError as error:
            self.problems.append(str(error))


def some_frames(n: int, seed: int = 1) -> list[Frame]:
    noise = random.Random(seed)
    return [
        Frame(START_NS + i * 10**6, data := noise.randbytes(noise.randrange(20, 200)), len(data))
        for i in range(n)
    ]


def as_pcap(frames: list[Frame], layout: str) -> list[bytes]:
    return [build.pcap_header(layout), *(build.pcap_record(frame, layout) for frame in frames)]


def as_pcapng(frames: list[Frame], layout: str) -> list[bytes]:
    return [
        build.section(layout) + build.interface(layout, tsresol=9),
        *(build.enhanced_packet(layout, 0, frame.ts_ns, frame.data, frame.wire_len) for frame in frames),
    ]


FORMATS = pytest.mark.parametrize("write", [as_pcap, as_pcapng])
LAYOUTS = pytest.mark.parametrize("layout", ["<", ">"])


# --- the same packets in every form -------------------------------------------------------------------------


@FORMATS
@LAYOUTS
@pytest.mark.parametrize("packer", PACKERS)
def test_the_same_frames_in_every_form(scratch: Path, write: Callable, layout: str, packer: str) -> None:
    frames = some_frames(300)
    read = Read(scratch, PACKERS[packer](b"".join(write(frames, layout))))
    assert (read.frames, read.problems) == (frames, [])


@pytest.mark.parametrize("packer", ["xz", "zstd", "bzip2"])
def test_members_follow_upon_each_other(scratch: Path, packer: str) -> None:
    frames = some_frames(50)
    content = b"".join(as_pcap(frames, "<"))
    pack = PACKERS[packer]
    read = Read(scratch, pack(content[:1000]) + pack(b"") + pack(content[1000:]))
    assert (read.frames, read.problems) == (frames, [])


@pytest.mark.parametrize("packer", ["xz", "zstd", "bzip2"])
def test_packed_data_cut_anywhere(scratch: Path, packer: str) -> None:
    frames = some_frames(12)
    content = PACKERS[packer](b"".join(as_pcap(frames, "<")))
    for cut in range(1, len(content), 3):
        read = Read(scratch, content[:cut], buffer_bytes=4096)
        assert read.frames == frames[: len(read.frames)]
        assert len(read.problems) == 1
    assert packer == "zstd" or len(Read(scratch, content[:-1]).frames) == len(frames), (
        "zstd gives whole blocks"
    )


@pytest.mark.parametrize("packer", ["xz", "zstd", "bzip2"])
@given(st.data())
@settings(max_examples=40)
def test_packed_data_with_a_damaged_byte(scratch: Path, packer: str, data: st.DataObject) -> None:
    frames = some_frames(40)
    content = bytearray(PACKERS[packer](b"".join(as_pcap(frames, "<"))))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    Read(scratch, bytes(content))


def test_a_window_beyond_the_limit_is_refused_by_name(scratch: Path) -> None:
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.checksum_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    read = Read(scratch, packer.compress(b"".join(as_pcap(some_frames(9), "<"))) + packer.flush())
    assert len(read.problems) == 1
    assert (
        "zstd data that take more than 128 MiB to unpack are not read: unpack the file first"
        in read.problems[0]
    )
    read = Read(scratch, huge_xz_dictionary(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2}])))
    assert "xz data that take more than 128 MiB to unpack are not read" in read.problems[0]


def huge_xz_dictionary(content: bytes) -> bytes:
    """Let a block header of xz claim a dictionary of 4 GiB (The .xz File Format, section 5.3.1)."""
    size = (content[12] + 1) * 4
    header = bytearray(content[12 : 12 + size])
    header[4] = 40
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    return content[:12] + bytes(header) + content[12 + size :]


BOMB = """
import sys, re
from sensor.capture.capfile import CaptureReader
reader = CaptureReader(sys.argv[1], on_problem=print)
n = sum(len(batch.frames) for batch in reader)
print(n, int(re.search("VmHWM:\\\\s*([0-9]+) kB", open("/proc/self/status").read())[1]) >> 10)
"""


@pytest.mark.parametrize("packer", ["xz", "zstd"])
def test_a_bomb_takes_no_memory(tmp_path: Path, packer: str) -> None:
    peaks = []
    for n_blocks in (1, 20):
        content = build.section() + build.interface() + build.unknown_block("<", 4 << 20) * n_blocks
        (tmp_path / "bomb").write_bytes(PACKERS[packer](content))
        result = subprocess.run(
            [sys.executable, "-c", BOMB, str(tmp_path / "bomb")], capture_output=True, text=True, check=True
        )
        peaks.append(int(result.stdout.split()[1]))
    assert peaks[1] - peaks[0] < 24, "MiB, of 76 that are unpacked"


# --- damage in the middle -----------------------------------------------------------------------------------


@FORMATS
@LAYOUTS
@pytest.mark.parametrize("buffer_bytes", [0, bytesource.BUFFER_BYTES])
def test_noise_between_records_is_passed_over(
    scratch: Path, write: Callable, layout: str, buffer_bytes: int
) -> None:
    frames = some_frames(40)
    records = write(frames, layout)
    noise = b"\xff" * 37 + random.Random(3).randbytes(500) + b"\xff" * 40
    content = b"".join([*records[:11], noise, *records[11:31], noise, *records[31:]])
    read = Read(scratch, content, buffer_bytes=buffer_bytes)
    assert read.frames == frames
    assert (read.counts.damaged, read.counts.skipped_bytes) == (2, 2 * len(noise))
    at = len(b"".join(records[:11]))
    (problem,) = read.problems
    assert problem.startswith(f"{scratch}/under-test: byte {at}: ")
    assert problem.endswith(f"; read on at byte {at + len(noise)}")


@FORMATS
@LAYOUTS
def test_one_damaged_length_costs_its_record_alone(scratch: Path, write: Callable, layout: str) -> None:
    frames = some_frames(20)
    records = write(frames, layout)
    lengths = 8 if write is as_pcap else 4
    for which in range(1, 21):
        damaged = list(records)
        record = bytearray(damaged[which])
        record[lengths : lengths + 4] = b"\xff" * 4
        damaged[which] = bytes(record)
        read = Read(scratch, b"".join(damaged))
        # Of a damaged pcap record before the last but one nothing is lost but itself.
        assert read.frames == frames[: which - 1] + frames[which:]
        assert read.counts.damaged == 1
        assert read.counts.skipped_bytes == len(record)


@FORMATS
def test_a_record_that_swallows_the_rest_is_found_out(scratch: Path, write: Callable) -> None:
    frames = some_frames(20)
    records = write(frames, "<")
    record = bytearray(records[5])
    at = 8 if write is as_pcap else 4
    record[at : at + 4] = struct.pack("<I", 200_000)
    records[5] = bytes(record)
    read = Read(scratch, b"".join(records))
    assert read.frames == frames[:4] + frames[5:]
    assert read.counts.damaged == 1
    (problem,) = read.problems
    assert "a record that claims more bytes than are left; read on at byte" in problem


@FORMATS
@LAYOUTS
@given(st.data())
@settings(max_examples=60)
def test_only_what_is_damaged_is_lost(
    scratch: Path, write: Callable, layout: str, data: st.DataObject
) -> None:
    frames = some_frames(60)
    content = bytearray(b"".join(write(frames, layout)))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    at = data.draw(st.integers(len(write([], layout)[0]), len(content) - 1))
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at : at + data.draw(st.integers(1, 300))]
    else:
        content[at:at] = data.draw(st.binary(min_size=1, max_size=300))
    read = Read(scratch, bytes(content))
    # What is lost was damaged, passed over, or swallowed by a record whose length was wrong; and where a pcap file
    # goes on, the last two records of it are not enough to tell. A record that is swallowed takes 16 bytes more than
    # its data in a pcap file, 32 in a pcapng file, so they are left out.
    lost = sum(len(frame.data) for frame in frames if frame not in read.frames)
    strange = sum(len(frame.data) + 32 for frame in read.frames if frame not in frames)
    assert lost <= strange + read.counts.skipped_bytes + 3 * 240
    assert len(read.problems) <= 2


@given(st.sampled_from([as_pcap, as_pcapng]), st.data())
@settings(max_examples=150)
def test_frames_and_passed_over_bytes_never_exceed_the_file(
    scratch: Path, write: Callable, data: st.DataObject
) -> None:
    content = bytearray(b"".join(write(some_frames(12), "<")))
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(28, len(content) - 1))] = data.draw(st.integers(0, 255))
    read = Read(scratch, bytes(content), buffer_bytes=data.draw(st.sampled_from([0, 300, 1 << 20])))
    assert sum(len(frame.data) for frame in read.frames) + read.counts.skipped_bytes <= len(content)
    assert sum("read on" in problem or "nothing behind" in problem for problem in read.problems) <= 1
    assert (read.counts.damaged > 0) == any("read on" in p or "nothing behind" in p for p in read.problems)


def test_an_interface_that_cannot_be_read_keeps_its_number(scratch: Path) -> None:
    bad = build.interface(tsresol=19)
    content = build.section() + bad + build.interface(link_type=101)
    content += build.enhanced_packet("<", 0, 5, b"lost", 4) + build.enhanced_packet("<", 1, 6, b"kept", 4)
    read = Read(scratch, content)
    assert [(frame.data, frame.link_type) for frame in read.frames] == [(b"kept", 101)]
    assert read.counts.damaged == 2
    assert len(read.problems) == 1


def test_a_section_of_another_version_is_passed_over(scratch: Path) -> None:
    frames = some_frames(3)
    part = b"".join(as_pcapng(frames, ">"))
    read = Read(scratch, part + build.section("<", version=(9, 0)) + part)
    assert read.frames == frames * 2
    assert read.counts.damaged == 1


@pytest.mark.parametrize(
    "content",
    [
        bytes(1 << 20),
        b"\xff" * (1 << 20),
        random.Random(5).randbytes(1 << 20),
        struct.pack("<IIII", 1, 1, 1 << 30, 1) * (1 << 16),
        struct.pack("<IIII", 1, 1, 262144, 262144) * (1 << 16),
        (struct.pack("<IIII", 1, 1, 1 << 30, 1) + build.pcap_record(Frame(START_NS, b"abc", 3)) * 3) * 14_000,
        build.enhanced_packet("<", 9, 0, b"", 0) * (1 << 15),
        struct.pack("<III", 6, 327_680, 0) * (1 << 16),
        struct.pack("<II", 1, 12) * (1 << 17),
    ],
    ids=lambda content: content[:16].hex(),
)
@pytest.mark.parametrize("header", [build.pcap_header(), build.section() + build.interface()])
def test_a_megabyte_of_rubbish_takes_no_time(scratch: Path, header: bytes, content: bytes) -> None:
    Read(scratch, header + content[:100])  # compiles
    path = scratch / "rubbish"
    path.write_bytes(header + content)
    begin = time.process_time()
    with CaptureReader(str(path), on_problem=lambda _: None) as reader:
        try:
            for _ in reader:
                pass
        except CaptureError:
            pass
    assert time.process_time() - begin < 5, "docs/captures.md has what was measured"


# --- variants of pcap ---------------------------------------------------------------------------------------

MODIFIED = struct.pack("<IHBB", 2, 0x0800, 4, 0)
VARIANTS = {
    "ss990417": (0xA1B2C3D4, MODIFIED),
    "ss991029": (0xA1B2CD34, MODIFIED),
    "ss990915": (0xA1B2CD34, MODIFIED + bytes(4)),
    "nokia": (0xA1B2C3D4, struct.pack("<I", 0x9FBFB601)),
}


@pytest.mark.parametrize("n_frames", [1, 2, 3, 30])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_told_apart(scratch: Path, variant: str, n_frames: int) -> None:
    frames = some_frames(n_frames)
    magic, extra = VARIANTS[variant]
    content = build.modified_pcap(frames, magic=magic, extra=extra)
    assert Read(scratch, content).frames == frames


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["modpcap", "rh6_1pcap", "suse6_3pcap", "nokiapcap", "nsecpcap", "pcapng"])
@pytest.mark.parametrize("n_frames", [1, 3, 40])
def test_what_editcap_writes_is_read(scratch: Path, kind: str, n_frames: int) -> None:
    frames = some_frames(n_frames)
    plain, converted = scratch / "plain.pcap", scratch / "converted"
    plain.write_bytes(build.pcap(frames))
    if shutil.which("editcap") is None and "CI" not in os.environ:
        pytest.skip("editcap is not installed")
    subprocess.run(["editcap", "-F", kind, plain, converted], check=True, capture_output=True)
    assert Read(scratch, converted.read_bytes()).frames == frames


@LAYOUTS
@pytest.mark.parametrize(("magic", "unit"), [(0x1C0001AC, 1), (0x1C0001AB, 1000)])
def test_ixia_files(scratch: Path, layout: str, magic: int, unit: int) -> None:
    header = struct.pack(f"{layout}IHHIIIII", magic, 2, 4, 0, 0, 262144, 1, 0)
    content = header + struct.pack(f"{layout}IIII", 5, 7, 3, 3) + b"abc"
    assert Read(scratch, content).frames == [Frame(5 * 10**9 + 7 * unit, b"abc", 3)]


@pytest.mark.parametrize("version", [(2, 0), (2, 2), (543, 0), (2, 3)])
def test_old_versions_have_their_lengths_the_other_way_round(scratch: Path, version: tuple[int, int]) -> None:
    content = build.pcap_header(version=version) + struct.pack("<IIII", 5, 7, 60, 3) + b"abc"
    assert Read(scratch, content * 1).frames == [Frame(5_000_007_000, b"abc", 60)]


def test_aix_files_have_other_link_types_and_nanoseconds(scratch: Path) -> None:
    content = build.pcap_header(version=(2, 2), link_field=6) + struct.pack("<IIII", 5, 7, 60, 3) + b"abc"
    assert Read(scratch, content).frames == [Frame(5_000_000_007, b"abc", 60, 1)]


# --- link types that are not decoded ------------------------------------------------------------------------


def test_link_types_have_names() -> None:
    assert link_type_text(195) == "IEEE802_15_4_WITHFCS (195)"
    assert link_type_text(147) == "USER0 (147)"
    assert link_type_text(60_000) == "unassigned (60000)"


def test_frames_that_are_not_decoded_are_counted_by_name(scratch: Path) -> None:
    content = (
        build.section() + build.interface(link_type=195) + build.interface() + build.interface(link_type=147)
    )
    for i in (0, 1, 0, 2, 0, 1):
        content += build.enhanced_packet("<", i, 5, b"abcd", 4)
    read = Read(scratch, content, max_batch_frames=2)
    assert len(read.frames) == 6
    assert read.counts.as_stats()["undecoded_link_types"] == {
        "USER0 (147)": 1,
        "IEEE802_15_4_WITHFCS (195)": 3,
    }
    what = "which is not decoded: counted, not judged"
    assert read.problems == [
        f"{scratch}/under-test: frames of link type {name}, {what}"
        for name in ("IEEE802_15_4_WITHFCS (195)", "USER0 (147)")
    ]


@pytest.mark.skipif(
    not CAPTURES.is_dir() and "CI" not in os.environ, reason="the shared captures are not here"
)
def test_the_shared_snoop_capture_is_refused_with_advice() -> None:
    path = CAPTURES / "formats" / "pcapplusplus__solaris.snoop"
    with pytest.raises(CaptureError, match="snoop is not read: convert it with editcap -F pcap"):
        CaptureReader(str(path), on_problem=pytest.fail)
