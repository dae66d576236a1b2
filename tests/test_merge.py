from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.capture import merge, pcap, pcapng
from sensor.capture.merge import open_captures
from sensor.jit import JIT_DISABLED
from tests import builders_capture as build
from tests.builders_capture import Frame, read_frames

if TYPE_CHECKING:
    from sensor.errors import CaptureError

PCAP = build.pcap([Frame(5_000_000_000, b"one frame", 9)])


def read_all(*paths: str | Path) -> tuple[list[Frame], list[str]]:
    """Read as one run; return its frames, and each complaint."""
    problems: list[CaptureError] = []
    with open_captures(paths, on_problem=problems.append) as run:
        frames = read_frames(run)
        assert run.bytes_total is None or run.bytes_read == run.bytes_total
    assert all("\n" not in str(problem) for problem in problems)
    return frames, [str(problem) for problem in problems]


def read_well(*paths: str | Path) -> list[Frame]:
    frames, problems = read_all(*paths)
    assert problems == []
    return frames


def open_files() -> list[str]:
    return [path.name for path in Path("/proc/self/fd").iterdir()]


def numbered(times: list[int], source: int) -> list[Frame]:
    """Frames of these times, each with other bytes."""
    return [Frame(ts_ns, f"{source}:{i}".encode() * (i % 4), 1500) for i, ts_ns in enumerate(times)]


def merged(sources: list[list[Frame]]) -> list[Frame]:
    """The specification: sort by the latest time so far of the frame's file, then by file; stable."""
    keyed = [
        (latest, source, frame)
        for source, frames in enumerate(sources)
        for latest, frame in zip(accumulate((frame.ts_ns for frame in frames), max), frames, strict=True)
    ]
    return [frame for _, _, frame in sorted(keyed, key=lambda entry: entry[:2])]


# Few different times make ties; blocks far from each other make files that do not overlap.
TIMES = st.builds(
    lambda base, steps: [base + step for step in steps],
    st.sampled_from([0, 0, 100, 200]),
    st.lists(st.integers(0, 30), max_size=25),
)
SMALL_LIMITS = st.fixed_dictionaries(
    {
        "MAX_BATCH_FRAMES": st.sampled_from([1, 2, 5, 8192]),
        "MIN_BATCH_FRAMES": st.sampled_from([1, 3]),
        "BUFFER_BYTES": st.sampled_from([32, 100, 4 << 20]),
        "MIN_BUFFER_BYTES": st.sampled_from([1, 64]),
    }
)


@given(
    st.lists(TIMES, min_size=1, max_size=6), SMALL_LIMITS, st.randoms(use_true_random=False), st.booleans()
)
def test_a_run_is_the_sorted_whole(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[list[int]],
    limits: dict[str, int],
    shuffled: random.Random,
    packed: bool,
) -> None:
    scratch = tmp_path_factory.mktemp("merge")
    sources = [numbered(source_times, i) for i, source_times in enumerate(times)]
    paths = [scratch / f"{i}.pcap" for i in range(len(sources))]
    for path, frames in zip(paths, sources, strict=True):
        content = build.pcap(frames, nano=True)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    shuffled.shuffle(paths)
    with mock.patch.multiple(merge, **limits):
        assert read_well(*paths) == merged(sources)


def test_thousands_of_frames_of_many_files(tmp_path: Path) -> None:
    chance = random.Random(7)
    sources = []
    for i in range(20):
        times = sorted(chance.randrange(10**9) for _ in range(3000))
        sources.append(numbered(times, i))
        (tmp_path / f"{i:02}.pcap").write_bytes(build.pcap(sources[-1], nano=True))
    assert read_well(tmp_path) == merged(sources)


def test_files_that_follow_upon_each_other_are_not_copied_and_open_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [numbered(list(range(i * 100, i * 100 + 50)), i) for i in range(300)]
    chance = random.Random(3)
    for frames, name in zip(sources, chance.sample(range(1000), len(sources)), strict=True):
        (tmp_path / f"{name}.pcap").write_bytes(build.pcap(frames, nano=True))
    monkeypatch.delattr(merge, "gather_frames")
    n_before = len(open_files())
    frames, n_most = [], 0
    with open_captures([tmp_path], on_problem=pytest.fail) as run:
        for batch in run:
            frames += read_frames([batch])
            n_most = max(n_most, len(open_files()) - n_before)
    assert frames == [frame for source in sources for frame in source]
    assert n_most == 1


def test_more_overlapping_files_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "MAX_OPEN_CAPTURES", 3)
    sources = [numbered([i, 1000 + i], i) for i in range(5)]
    for i, frames in enumerate(sources):
        (tmp_path / f"{i}.pcap").write_bytes(build.pcap(frames, nano=True))
    frames, problems = read_all(tmp_path)
    assert frames == merged(sources[:3])
    reason = "not read: 3 other captures are open at its first timestamp"
    assert problems == [f"{tmp_path}/{i}.pcap: {reason}" for i in (3, 4)]


def test_a_clock_that_runs_backwards_keeps_the_order_of_its_file(tmp_path: Path) -> None:
    back, other = numbered([50, 10, 60], 0), numbered([20, 55], 1)
    (tmp_path / "a.pcap").write_bytes(build.pcap(back, nano=True))
    (tmp_path / "b.pcap").write_bytes(build.pcap(other, nano=True))
    assert read_well(tmp_path) == [other[0], back[0], back[1], other[1], back[2]]


# --- what paths mean ----------------------------------------------------------------------------------------


def test_directories_patterns_and_names(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(["b.pcap", "a", "deep/no-ending", "deep/er/x.pcap.gz"]):
        content = build.pcap(numbered([i], i)[:1], nano=True)
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    (tmp_path / "deep" / "notes.pcap").write_text("these are notes")
    (tmp_path / "deep" / "empty.pcap").write_bytes(b"")
    (tmp_path / "deep" / "logs.gz").write_bytes(gzip.compress(b"log", mtime=0))
    os.mkfifo(tmp_path / "deep" / "pipe")
    assert [frame.ts_ns for frame in read_well(tmp_path)] == [0, 1, 2, 3]
    assert [frame.ts_ns for frame in read_well(tmp_path / "*.pcap")] == [0]
    assert [frame.ts_ns for frame in read_well(f"{tmp_path}/**/x*.gz", tmp_path / "a")] == [1, 3]
    assert [frame.ts_ns for frame in read_well(tmp_path / "d*", tmp_path / "a")] == [1, 2, 3]


def test_a_pattern_is_a_name_where_a_file_has_it(tmp_path: Path) -> None:
    (tmp_path / "a[1].pcap").write_bytes(PCAP)
    assert len(read_well(tmp_path / "a[1].pcap")) == 1


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(PCAP)
    (tmp_path / "latest.pcap").symlink_to("a.pcap")
    assert len(read_well(path, tmp_path, path, tmp_path / "*", tmp_path / "latest.pcap")) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.pcap", None, "cannot be opened: No such file or directory"),
        ("empty.pcap", b"", "byte 0: the file is empty"),
        ("text.pcap", b"text", "byte 0: neither pcap nor pcapng: it is plain text"),
        ("header.pcap", PCAP[:20], "byte 0: the capture ends here: 20 of 24 bytes are there"),
        (
            "x.snoop",
            b"snoop\0\0\0" + bytes(9),
            "byte 0: snoop is not read: convert it with editcap -F pcap, which comes with Wireshark",
        ),
        (
            "cut.pcap",
            PCAP + PCAP[24:-3],
            f"byte {len(PCAP)}: the capture ends here: 22 of 25 bytes are there",
        ),
        (
            "cut.gz",
            gzip.compress(PCAP, mtime=0)[:-2],
            f"byte {len(gzip.compress(PCAP, mtime=0)) - 2}: the file ends inside its gzip data",
        ),
        ("*.cap", None, "no file matches"),
    ],
)
def test_one_line_for_each_thing_that_is_wrong_and_the_others_run(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    good = tmp_path / "good.pcap"
    good.write_bytes(build.pcap([Frame(1000, b"good", 4)]))
    bad = tmp_path / name
    if content is not None:
        bad.write_bytes(content)
    frames, problems = read_all(bad, good)
    assert problems == [f"{bad}: {reason}"]
    assert frames[0].data == b"good"
    assert len(frames) == 1 + name.startswith("cut")


def test_a_directory_reports_what_it_cannot_read_and_skips_what_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    frames, problems = read_all(tmp_path)
    assert (frames, problems) == ([], [f"{tmp_path}: a directory without captures"])
    (tmp_path / "broken.pcap").symlink_to("gone")
    (tmp_path / "old.pcap").write_bytes(PCAP[:10])
    (tmp_path / "x.pcap.zst").write_bytes(bytes.fromhex("28b52ffd") + bytes(20))
    _, problems = read_all(tmp_path)
    assert problems == [
        f"{tmp_path}/broken.pcap: cannot be read: No such file or directory",
        f"{tmp_path}/old.pcap: byte 0: the capture ends here: 10 of 24 bytes are there",
        f"{tmp_path}/x.pcap.zst: byte 24: the file ends inside its zstd data",
    ]


def test_a_capture_without_frames_is_no_problem(tmp_path: Path) -> None:
    for name, content in (
        ("a", build.pcap([])),
        ("b", build.section()),
        ("c", build.section() + build.interface()),
    ):
        (tmp_path / name).write_bytes(content)
    assert read_well(tmp_path) == []


def test_a_file_that_vanishes_between_its_first_look_and_its_turn(tmp_path: Path) -> None:
    for name, ts_ns in (("a", 0), ("b", 1000)):
        (tmp_path / name).write_bytes(build.pcap([Frame(ts_ns, name.encode(), 1)] * 2))
    problems: list[str] = []
    with open_captures([tmp_path], on_problem=lambda problem: problems.append(str(problem))) as run:
        batch = next(run)
        assert len(batch.frames) == 2
        (tmp_path / "b").unlink()
        assert list(run) == []
        assert run.bytes_read == run.bytes_total
    assert problems == [f"{tmp_path}/b: cannot be opened: No such file or directory"]


# --- pipes, progress, closing -------------------------------------------------------------------------------


def test_standard_input_is_merged_with_files(tmp_path: Path) -> None:
    sources = [numbered([1, 5, 9], 0), numbered([2, 3, 10], 1)]
    (tmp_path / "a.pcap").write_bytes(build.pcap(sources[1], nano=True))
    readable, writable = os.pipe()
    os.write(writable, build.pcap(sources[0], nano=True))
    os.close(writable)
    saved = os.dup(0)
    os.dup2(readable, 0)
    try:
        with open_captures([tmp_path, "-", "-"], on_problem=pytest.fail) as run:
            assert run.bytes_total is None
            assert read_frames(run) == merged(sources)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(readable)


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    content = build.pcap(numbered(list(range(20_000)), 0), nano=True)
    (tmp_path / "a.pcap").write_bytes(content)
    (tmp_path / "b.pcap.gz").write_bytes(gzip.compress(content, mtime=0))
    with open_captures([tmp_path], on_problem=pytest.fail) as run:
        assert run.bytes_total == sum(path.stat().st_size for path in tmp_path.iterdir())
        seen = [run.bytes_read for _ in run]
        assert seen == sorted(seen)
        assert 0 < seen[0] < run.bytes_total
        assert run.bytes_read == run.bytes_total


def test_closing_in_the_middle_closes_all_files(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.pcap").write_bytes(build.pcap(numbered(list(range(20)), i)))
    before = open_files()
    with open_captures([tmp_path], on_problem=pytest.fail) as run:
        next(run)
        assert len(open_files()) > len(before)
    assert open_files() == before
    assert list(run) == []


@pytest.mark.skipif(JIT_DISABLED, reason="kernels are not compiled")
def test_each_kernel_is_compiled_once_for_all_sources(tmp_path: Path) -> None:
    frames = numbered(list(range(30)), 0)
    packets = b"".join(build.enhanced_packet(">", 0, f.ts_ns, f.data, f.wire_len) for f in frames)
    for i, content in enumerate(
        [
            build.pcap(frames, nano=True),
            build.pcap(frames, ">"),
            build.section(">") + build.interface(">", tsresol=9) + packets,
        ]
    ):
        (tmp_path / f"{i}").write_bytes(content)
        (tmp_path / f"{i}.gz").write_bytes(gzip.compress(content, mtime=0))
    assert len(read_well(tmp_path)) == 180
    for kernel in (pcap.index_pcap, pcapng.index_pcapng, merge.gather_frames):
        assert len(kernel.signatures) == 1, kernel  # type: ignore[attr-defined]


# --- memory -------------------------------------------------------------------------------------------------

# Not ru_maxrss, which a process inherits from the one that started it.
PEAK_MEMORY = """
import re, sys
from sensor.capture.merge import open_captures
with open_captures(sys.argv[1:], on_problem=lambda problem: sys.exit(str(problem))) as run:
    print(sum(len(batch.frames) for batch in run))
print(int(re.search("VmHWM: *([0-9]+) kB", open("/proc/self/status").read().replace("\\t", " "))[1]) << 10)
"""


def peak_bytes(*paths: Path) -> tuple[int, int]:
    """Frames, and the largest resident size of a process that reads these captures."""
    command = [sys.executable, "-c", PEAK_MEMORY, *map(str, paths)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    n_frames, n_bytes = map(int, result.stdout.split())
    return n_frames, n_bytes


@pytest.mark.skipif(JIT_DISABLED, reason="takes minutes without compiled kernels")
@pytest.mark.parametrize("kind", ["pcap", "gzip", "overlapping"])
def test_memory_does_not_grow_with_the_captures(tmp_path: Path, kind: str) -> None:
    some_records = build.pcap_record(Frame(10**18, bytes(1500), 1500)) * 1000
    peaks = []
    for n_thousand in (20, 200):
        paths = [tmp_path / f"{i}.pcap" for i in range(3 if kind == "overlapping" else 1)]
        for path in paths:
            with gzip.open(path, "wb", 1) if kind == "gzip" else path.open("wb") as file:
                file.write(build.pcap_header())
                for _ in range(n_thousand):
                    file.write(some_records)
        peak_bytes(*paths)  # compiles the kernels, which takes more memory than reading
        n_read, peak = peak_bytes(*paths)
        assert n_read == n_thousand * 1000 * len(paths)
        peaks.append(peak)
        for path in paths:
            path.unlink()
    assert peaks[1] - peaks[0] < 4 << 20
