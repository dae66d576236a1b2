"""Captures that are still being written: grown by a writer of the test's, and by tcpdump in a namespace of its own."""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sensor.capture import follow
from sensor.capture.follow import follow_captures
from tests import builders_capture as build
from tests.builders_capture import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PCAPS = ROOT / "pcaps"
START_NS = 1_700_000_000 * 10**9


def frames_at(*seconds: float) -> list[Frame]:
    return [Frame(START_NS + int(s * 10**9), f"frame {s}".encode(), 100) for s in seconds]


class Following:
    """A run over growing files, with a step of the test's instead of each wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *paths: Path | str) -> None:
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self._paths = paths
        self._steps: Iterator[None] = iter(())
        self._is_ended = False
        monkeypatch.setattr(follow.time, "sleep", self._next_step)

    def _next_step(self, _seconds: float) -> None:
        self._is_ended = next(self._steps, "end") == "end"

    def run(self, *steps: Callable[[], object]) -> list[Frame]:
        self._steps = (step() and None for step in steps)
        run = follow_captures(
            self._paths,
            on_problem=lambda problem: self.problems.append(str(problem)),
            is_ended=lambda: self._is_ended,
        )
        with run:
            for batch in run:
                if len(batch.frames):
                    self.frames += build.read_frames([batch])
            self.counts = run.counts
        return self.frames


def append(path: Path, content: bytes) -> Callable[[], None]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(content)

    return step


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_file_that_grows_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    frames = frames_at(1, 2, 3)
    content = build.pcap(frames)
    if kind == "pcapng":
        packets = (build.enhanced_packet("<", 0, f.ts_ns, f.data, f.wire_len) for f in frames)
        content = build.section() + build.interface(tsresol=9) + b"".join(packets)
        content += build.section(">") + build.interface(">") + build.unknown_block(">")
    path = tmp_path / "growing"
    following = Following(monkeypatch, path)
    assert following.run(*(append(path, content[i : i + 1]) for i in range(len(content)))) == frames
    assert following.problems == []


def test_a_record_is_handed_out_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pcap"
    frames = frames_at(1, 2)
    content = build.pcap(frames)
    following = Following(monkeypatch, path)
    seen: list[int] = []
    following.run(
        append(path, content[:-5]),
        lambda: seen.append(len(following.frames)),
        append(path, content[-5:]),
        lambda: seen.append(len(following.frames)),
        append(path, content[24:40]),  # a partial record at the end is no problem
    )
    assert seen == [1, 2]
    assert following.problems == []


def test_rotation_in_a_directory_and_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_at(*range(8))
    steps = []
    for i in range(4):  # tcpdump -C: a.pcap, a.pcap1, ...
        path = tmp_path / f"a.pcap{i or ''}"
        steps += [
            append(path, build.pcap(frames[2 * i : 2 * i + 1])),
            append(path, build.pcap_record(frames[2 * i + 1])),
        ]
    (tmp_path / "notes.txt").write_text("no capture")
    following = Following(monkeypatch, tmp_path, str(tmp_path / "a.pcap*"))
    assert following.run(*steps) == frames
    assert following.problems == []


def test_a_ring_of_files_is_read_round_after_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_at(*range(9))
    following = Following(monkeypatch, tmp_path)
    # tcpdump -W truncates the file and writes it anew: each is longer than the one that it replaces.
    rounds = [(tmp_path / f"r{i % 3}", build.pcap(frames[i : i + 1]) + bytes(i // 3)) for i in range(9)]
    steps = [functools.partial(path.write_bytes, content) for path, content in rounds]
    assert following.run(*steps) == frames
    assert following.problems == []


def test_a_file_that_is_replaced_truncated_renamed_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "a.pcap", tmp_path / "new"
    frames = frames_at(*range(7))
    following = Following(monkeypatch, path)

    def replace() -> None:
        new.write_bytes(build.pcap(frames[1:2]))
        new.replace(path)

    def log_rotate() -> None:
        append(path, build.pcap_record(frames[3]))()
        path.rename(tmp_path / "a.pcap.1")
        path.write_bytes(build.pcap(frames[4:5]))

    def remove() -> None:
        append(path, build.pcap_record(frames[5]))()
        path.unlink()

    following.run(
        lambda: path.write_bytes(build.pcap(frames[:1])),
        replace,
        lambda: path.write_bytes(build.pcap(frames[2:3])),
        log_rotate,
        remove,
        lambda: path.write_bytes(build.pcap(frames[6:7])),
    )
    assert following.frames == frames
    assert following.problems == []


def test_several_files_are_merged_as_far_as_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_at(*range(8))
    for name, part in (("a", frames[0:6:2]), ("b", frames[1:6:2])):
        (tmp_path / name).write_bytes(build.pcap(part))
    following = Following(monkeypatch, tmp_path / "b", tmp_path / "a")
    late = append(tmp_path / "a", build.pcap_record(frames[6]))
    assert following.run(append(tmp_path / "b", build.pcap_record(frames[7])), late) == [
        *frames[:6],
        frames[7],
        frames[6],
    ]


def test_damage_is_passed_over_as_the_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pcap"
    frames = frames_at(*range(8))
    following = Following(monkeypatch, path)
    following.run(
        lambda: path.write_bytes(build.pcap(frames[:2]) + b"\xff" * 77),
        *(append(path, build.pcap_record(frame)) for frame in frames[2:]),
    )
    assert following.frames == frames
    assert (following.counts.damaged, following.counts.skipped_bytes) == (1, 77)
    assert len(following.problems) == 1


def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pcap.gz").write_bytes(gzip.compress(build.pcap(frames_at(1))))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.snoop").write_bytes(b"snoop\0\0\0" + bytes(20))
    paths = [tmp_path / name for name in ("a.pcap.gz", "pipe", "x.snoop")]
    following = Following(monkeypatch, *paths)
    assert following.run() == []
    assert following.problems == [
        f"{paths[0]}: a compressed capture cannot be followed: read it without --follow",
        f"{paths[1]}: only files can be followed; a pipe is read as it is, without --follow",
        f"{paths[2]}: byte 0: snoop is not read: convert it with editcap -F pcap, which comes with Wireshark",
    ]


def test_complete_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MAX_FOLLOWED", 3)
    frames = frames_at(*range(40))
    for i, frame in enumerate(frames):
        (tmp_path / f"{i:02}").write_bytes(build.pcap([frame]))
        os.utime(tmp_path / f"{i:02}", (1000 + i, 1000 + i))
    following = Following(monkeypatch, tmp_path)
    assert following.run(*[lambda: None] * 40) == frames
    assert following.problems == [f"{tmp_path}/03: not read yet: 3 other captures are being followed"]


# --- the command --------------------------------------------------------------------------------------------


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sensor", "replay", "--follow", "--no-progress", *map(str, arguments)]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)
    return time.monotonic() - begin


def records_of(path: Path) -> tuple[bytes, list[bytes]]:
    content = path.read_bytes()
    records, pos = [], 24
    while pos < len(content):
        size = 16 + int.from_bytes(content[pos + 8 : pos + 12], "little")
        records.append(content[pos : pos + size])
        pos += size
    return content[:24], records


def test_alerts_come_while_the_capture_grows_and_a_signal_ends_the_run(tmp_path: Path) -> None:
    header, records = records_of(PCAPS / "flood-camera.pcap")
    capture, out, events, stats = (
        tmp_path / name for name in ("a.pcap", "out", "events.jsonl", "stats.json")
    )
    capture.write_bytes(header)
    command = program("--format", "json", "--events", events, "--stats", stats, capture)
    with (
        out.open("wb") as stdout,
        subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT) as process,
    ):
        try:
            append(capture, b"".join(records[:20]))()
            wait_for(lambda: events.exists() and events.stat().st_size > 0, 200)  # perhaps it has to compile
            append(capture, b"".join(records[20:]) + records[0][:7])()
            seconds = wait_for(lambda: b'"alert"' in out.read_bytes())
            process.send_signal(signal.SIGTERM)
            stderr = process.communicate(timeout=30)[1].decode()
        finally:
            process.kill()
    assert process.returncode == 0
    assert seconds < 5, "a second, on a machine that is not busy"
    ended = f"spamsensor: ended by SIGTERM after {len(records):,} packets: what was read is judged"
    assert stderr.splitlines()[-1] == ended
    totals = json.loads(stats.read_text())
    assert totals["packets"] == len(records)
    assert totals["captures"] == {"damaged": 0, "skipped_bytes": 0, "undecoded_link_types": {}}
    whole = subprocess.run(
        [sys.executable, "-m", "sensor", "replay", "--format", "json", str(PCAPS / "flood-camera.pcap")],
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert out.read_bytes() == whole.stdout


@pytest.mark.skipif(
    (os.geteuid() != 0 or shutil.which("tcpdump") is None) and "CI" not in os.environ,
    reason="needs root for a network namespace, and tcpdump",
)
@pytest.mark.parametrize("options", [["-U"], ["-U", "-C", "1"], ["-G", "1", "-U"]], ids="".join)
def test_what_tcpdump_writes_is_read_as_it_comes(tmp_path: Path, options: list[str]) -> None:
    captures, events, stats = tmp_path / "captures", tmp_path / "events.jsonl", tmp_path / "stats.json"
    captures.mkdir(mode=0o777)
    captures.chmod(0o777)
    name = "a-%s.pcap" if "-G" in options else "a.pcap"
    script = f"""
        ip link set lo up
        tcpdump -i lo -n -Z root {" ".join(options)} -w {captures}/{name} udp port 53 2>{tmp_path}/tcpdump.err &
        until grep -q listening {tmp_path}/tcpdump.err; do sleep 0.05; done
        {sys.executable} {Path(__file__).with_name("send_dns.py")} {"2500" if "-C" in options else "300"}
        sleep 0.5; kill -INT $!; wait
    """
    command = program("--home-net", "127.0.0.0/8", "--events", events, "--stats", stats, captures)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT) as process:
        try:
            wait_for(events.exists)
            result = subprocess.run(
                ["unshare", "--net", "sh", "-c", script],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if "Operation not permitted" in result.stderr:
                pytest.skip("no network namespaces here")
            wait_for(
                lambda: events.read_bytes().count(b'"dns_query"') >= 300, 200
            )  # perhaps it has to compile
            process.send_signal(signal.SIGINT)
            stderr = process.communicate(timeout=30)[1].decode()
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    written = sum(len(records_of(path)[1]) for path in captures.iterdir())
    assert len(list(captures.iterdir())) > (1 if len(options) > 1 else 0)
    assert json.loads(stats.read_text())["packets"] == written >= 300
