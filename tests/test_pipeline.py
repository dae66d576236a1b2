"""What holds for whole runs: the same packets give the same answer, and nothing is lost or breaks."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.alerts.formats import alert_json, alert_schema
from sensor.capture.merge import open_captures
from sensor.config import Config, Network, Tables
from sensor.jit import JIT_DISABLED
from sensor.pipeline import Pipeline
from tests import builders as build
from tests import builders_capture as files
from tests.builders_capture import Frame, read_frames
from tests.captures import CAPTURES
from tests.worlds import (
    CAMERA,
    DAY,
    LAPTOP,
    MX,
    PRINTER,
    TXT,
    A,
    Fate,
    Host,
    Record,
    Run,
    World,
    batches,
    outside4,
    run,
    run_world,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sensor.alerts.record import Alert
    from sensor.errors import CaptureError

ROOT = Path(__file__).parents[1]
PCAPS = ROOT / "pcaps"
PROGRAM = [sys.executable, "-m", "sensor"]
#: Seconds for one shared capture: a hang is a failure. The largest takes a fiftieth of it.
MAX_SECONDS = 60.0 if JIT_DISABLED else 10.0

every_mode = [pytest.mark.kernel, pytest.mark.invariant]


# The same packets, the same answer.


class Answer(NamedTuple):
    """All that a run says, as text: NaN equals NaN there."""

    events: str
    alerts: str
    windows: str
    devices: str
    stats: str


def answer_of(outcome: Run) -> Answer:
    return Answer(
        outcome.events.decode(),
        "\n".join(alert_json(alert).decode() for alert in outcome.alerts),
        "\n".join(map(repr, outcome.windows)),
        "\n".join(map(repr, outcome.devices)),
        repr(outcome.stats),
    )


def assert_same(found: Answer, expected: Answer) -> None:
    """Compare line by line, so that the first difference is seen and not two files."""
    for part, ours, theirs in zip(Answer._fields, found, expected, strict=True):
        for number, (our_line, their_line) in enumerate(
            zip(ours.split("\n"), theirs.split("\n"), strict=False), 1
        ):
            assert our_line == their_line, f"{part}, line {number}"
        assert len(ours) == len(theirs), part


def read_capture(*paths: Path) -> list[Frame]:
    problems: list[CaptureError] = []
    with open_captures(paths, on_problem=problems.append) as frames:
        found = read_frames(frames)
    assert problems == []
    return found


def answer_to_files(*paths: Path) -> Answer:
    problems: list[CaptureError] = []
    with open_captures(paths, on_problem=problems.append) as frames:
        answer = answer_of(run(frames, with_events=True))
    assert problems == []
    return answer


def answer_to(frames: Sequence[Frame], sizes: Iterable[int] | None = None) -> Answer:
    return answer_of(run(batches(frames, sizes), with_events=True))


def small_world() -> list[Frame]:
    """A little of everything: a flood, DNS, DHCP, TLS, refusals, clocks that run backwards, and rubbish."""
    rng = random.Random(3)
    world = World()
    for n, host in enumerate((CAMERA, PRINTER, LAPTOP)):
        world.join(host, 0.1 * n)
    fates = tuple(Fate)
    for n in range(24):
        t = 3.0 + n * 0.8
        world.resolve_mx(t, CAMERA, f"domain-{n % 12}.example", outside4(n % 12))
        world.mail(t + 0.1, CAMERA, outside4(n % 12), fate=fates[n % len(fates)], recipients=1 + n % 3)
    for n in range(6):
        world.mail(4.0 + 100.0 * n, LAPTOP, outside4(300), port=587, fate=Fate.TLS)
        world.mail(5.0 + 100.0 * n, PRINTER, outside4(301), port=465, fate=Fate.TLS)
    world.lookup(700.0, LAPTOP, b"www.example", A, [Record(A, "203.0.113.80")])
    for _ in range(40):
        world.add(rng.uniform(0, 30), rng.randbytes(rng.randrange(0, 90)))
    frames = world.in_order()
    for _ in range(10):
        at = rng.randrange(len(frames))
        frames[at] = replace(frames[at], ts_ns=frames[at].ts_ns - 500_000_000)
    return frames


@cache
def small_frames() -> tuple[Frame, ...]:
    return tuple(small_world())


@cache
def small_answer() -> Answer:
    return answer_to(small_frames())


SMALL = [
    CAPTURES / "smtp" / "zeek__smtp.pcap",
    CAPTURES / "smtp" / "zeek__smtp-one-side-only.pcap",
    CAPTURES / "smtp" / "suricata-verify__smtp-errors__smtperr.pcap",
    CAPTURES / "smtp" / "zeek__smtp-bdat-pipeline-8bitmime.pcap",
    CAPTURES / "dns" / "arkime__dns-tcp.pcap",
    CAPTURES / "benign" / "zeek__dhcp_flood.pcap",
]
LAB = [PCAPS / "flood-camera.pcap", PCAPS / "relay-nas.pcap", PCAPS / "logins-nas.pcap"]
compared = pytest.mark.parametrize("path", SMALL + LAB, ids=lambda path: path.name)


@pytest.mark.kernel
@pytest.mark.invariant
def test_the_small_world_has_a_little_of_everything() -> None:
    answer = small_answer()
    kinds = Counter(json.loads(line)["event_type"] for line in answer.events.splitlines())
    assert set(kinds) == {
        "conn_open",
        "conn_close",
        "smtp_command",
        "smtp_reply",
        "smtp_message",
        "dns_query",
        "dns_answer",
        "dns_response",
        "arp",
        "dhcp",
    }
    assert '"event_type":"alert"' in answer.alerts
    assert answer.windows
    assert "timestamp_backwards" in answer.stats


@pytest.mark.kernel
@pytest.mark.invariant
@settings(max_examples=3 if JIT_DISABLED else 40)
@given(sizes=st.lists(st.integers(1, 120) | st.just(1), max_size=60))
def test_batch_size_makes_no_difference(sizes: list[int]) -> None:
    assert_same(answer_to(small_frames(), sizes), small_answer())


@pytest.mark.parametrize(
    "path",
    [*(pytest.param(path, marks=every_mode) for path in SMALL), *LAB],
    ids=lambda path: path.name,
)
def test_batch_size_makes_no_difference_to_captures(path: Path) -> None:
    frames = read_capture(path)
    whole = answer_to(frames)
    rng = random.Random(str(path.name))
    assert_same(answer_to(frames, [1] * len(frames)), whole)
    assert_same(answer_to(frames, [rng.randrange(1, 50) for _ in frames]), whole)
    assert_same(answer_to_files(path), whole)


EVE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000")
ALERT_ID = re.compile(r'"alert_id":"([0-9a-f]{16})"')


def test_time_may_go_on_without_packets() -> None:
    """As live capture does it: the clock's time, up to just before the next packet, changes nothing."""
    frames = read_capture(PCAPS / "flood-camera.pcap")
    plain: list[bytes] = []
    ticking: list[bytes] = []
    for alerts in (plain, ticking):
        pipeline = Pipeline(Config(), on_alert=lambda alert, to=alerts: to.append(alert_json(alert)))
        last_ns = 0
        for batch in batches(frames, [16] * len(frames)):
            first_ns = int(batch.frames["ts_ns"][0])
            if alerts is ticking:
                for now_ns in range(last_ns + 10**9, first_ns, 10**9) if last_ns else ():
                    pipeline.advance(now_ns)
            pipeline.feed(batch)
            last_ns = int(batch.frames["ts_ns"][-1])
        pipeline.finish()
    assert len(plain) >= 2
    assert ticking == plain


def test_an_alert_ends_by_the_clock_when_traffic_stops() -> None:
    alerts: list[Alert] = []
    windows: list[dict[str, list[Any]]] = []
    pipeline = Pipeline(Config(), on_alert=alerts.append, on_window=windows.append)
    pipeline.advance(10**18)  # before the first packet there is no time
    frames = read_capture(PCAPS / "flood-camera.pcap")
    for batch in batches(frames):
        pipeline.feed(batch)
    n_windows = len(windows)
    assert alerts[-1].state != "ended"
    for seconds in (300, 25 * 3600):
        pipeline.advance(frames[-1].ts_ns + seconds * 10**9)
    assert len(windows) > n_windows
    assert (alerts[-1].event_type, alerts[-1].state) == ("alert", "ended")
    n_alerts = len(alerts)
    pipeline.finish()
    assert len(alerts) == n_alerts


def shifted(answer: Answer, days: int) -> Answer:
    """Shift the times in an answer; number the alerts' identifiers, which are made from times."""
    numbers: dict[str, int] = {}

    def shift(found: re.Match[str]) -> str:
        moment = datetime.fromisoformat(found[0]) + timedelta(days=days)
        return f"{moment:%Y-%m-%dT%H:%M:%S.%f}+0000"

    def number(found: re.Match[str]) -> str:
        return f'"alert_id":{numbers.setdefault(found[1], len(numbers))}'

    return Answer(*(ALERT_ID.sub(number, EVE_TIME.sub(shift, part)) for part in answer))


def later(frames: Sequence[Frame], days: int) -> list[Frame]:
    return [replace(frame, ts_ns=frame.ts_ns + days * round(DAY) * 10**9) for frame in frames]


# A shift is a whole number of days. Windows, slots of counters and what is usual are cut by the clock, at
# multiples of 5 s, 5 min, 2 h and a day since 1970: another shift cuts the same traffic elsewhere.


@pytest.mark.kernel
@pytest.mark.invariant
@pytest.mark.parametrize("days", [-20_000, 70_000])
def test_a_time_shift_shifts_times_and_nothing_else(days: int) -> None:
    assert_same(shifted(answer_to(later(small_frames(), days)), -days), shifted(small_answer(), 0))


@compared
def test_a_time_shift_shifts_times_of_captures_and_nothing_else(path: Path) -> None:
    frames = read_capture(path)
    assert_same(shifted(answer_to(later(frames, 365)), -365), shifted(answer_to(frames), 0))


def as_pcapng(frames: Sequence[Frame], layout: str, units_per_s: int) -> bytes:
    """One interface for each link type; the last digit of the resolution is a power of ten (if_tsresol)."""
    link_types = sorted({frame.link_type for frame in frames})
    tsresol = {10**6: None, 10**9: 9}[units_per_s]
    blocks = [files.section(layout), files.unknown_block(layout)]
    blocks += [files.interface(layout, link_type=link_type, tsresol=tsresol) for link_type in link_types]
    blocks += [
        files.enhanced_packet(
            layout,
            link_types.index(frame.link_type),
            frame.ts_ns * units_per_s // 10**9,
            frame.data,
            frame.wire_len,
        )
        for frame in frames
    ]
    return b"".join(blocks)


def all_formats(frames: Sequence[Frame]) -> dict[str, bytes]:
    plain = {
        "le.pcap": files.pcap(frames, "<"),
        "be.pcap": files.pcap(frames, ">"),
        "le-nano.pcap": files.pcap(frames, "<", nano=True),
        "be-nano.pcap": files.pcap(frames, ">", nano=True),
        "le.pcapng": as_pcapng(frames, "<", 10**6),
        "be.pcapng": as_pcapng(frames, ">", 10**6),
        "le-nano.pcapng": as_pcapng(frames, "<", 10**9),
    }
    half = len(plain["le.pcap"]) // 2
    members = gzip.compress(plain["le.pcap"][:half]) + gzip.compress(plain["le.pcap"][half:])
    return {
        **plain,
        **{f"{name}.gz": gzip.compress(data, mtime=0) for name, data in plain.items()},
        "members.pcap.gz": members,
    }


@compared
def test_the_format_of_the_file_makes_no_difference(path: Path, tmp_path: Path) -> None:
    frames = [replace(frame, ts_ns=frame.ts_ns // 1000 * 1000) for frame in read_capture(path)]
    expected = answer_to(frames)
    for name, content in all_formats(frames).items():
        (tmp_path / name).write_bytes(content)
        assert_same(answer_to_files(tmp_path / name), expected)


@compared
def test_a_rotated_capture_in_any_order_is_the_whole(path: Path, tmp_path: Path) -> None:
    frames = read_capture(path)
    rng = random.Random(path.name)
    # Cut where time goes on: of frames with equal times in two files, the names of the files decide.
    latest = max(frames[0].ts_ns, 0)
    cuts = []
    for number, frame in enumerate(frames):
        if frame.ts_ns > latest and min(f.ts_ns for f in frames[number : number + 20]) > latest:
            cuts.append(number)
        latest = max(latest, frame.ts_ns)
    chosen = [0, *sorted(rng.sample(cuts, min(4, len(cuts)))), len(frames)]
    paths = []
    for number, (begin, end) in enumerate(pairwise(chosen)):
        paths.append(tmp_path / f"{rng.randrange(10**6)}-{number}.pcap")
        paths[-1].write_bytes(files.pcap(frames[begin:end], nano=True))
    assert len(paths) >= 2
    expected = answer_to(frames)
    assert_same(answer_to_files(tmp_path), expected)
    for _ in range(3):
        rng.shuffle(paths)
        assert_same(answer_to_files(*paths), expected)


# Through the program.

COSTS = {"wall_seconds", "cpu_seconds", "packets_per_second", "peak_rss_bytes"}


def spamsensor(*arguments: object, seed: int = 0) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return subprocess.run(
        [*PROGRAM, "replay", "--no-progress", *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )


def replayed(captures: Sequence[Path], out: Path, *options: str, seed: int) -> dict[str, Any]:
    """Everything that a replay leaves behind, but for what it cost."""
    out.mkdir()
    outputs = {
        "--devices": "d.csv",
        "--features": "f.csv",
        "--events": "e.jsonl",
        "--stats": "s.json",
    }
    named = [part for option, name in outputs.items() for part in (option, str(out / name))]
    done = spamsensor(*options, *named, *captures, seed=seed)
    found: dict[str, Any] = {name: (out / name).read_bytes() for name in outputs.values()}
    stats = json.loads(found.pop("s.json"))
    assert set(stats) >= COSTS
    return {
        **found,
        "stats": {key: value for key, value in stats.items() if key not in COSTS},
        "stdout": done.stdout,
        "status": done.returncode,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_two_replays_are_byte_identical(form: str, tmp_path: Path) -> None:
    captures = [PCAPS / "flood-camera.pcap", PCAPS / "blocked-dvr.pcap"]
    first = replayed(captures, tmp_path / "1", "--format", form, seed=1)
    second = replayed(captures[::-1], tmp_path / "2", "--format", form, seed=2)
    assert first["stdout"]
    assert first == second


# Conservation.


def check_conservation(outcome: Run, n_frames: int | None = None) -> None:
    """What was counted in one place was counted in the others."""
    stats = outcome.stats
    assert sum(stats["frames"].values()) == stats["packets"]
    assert n_frames is None or stats["packets"] == n_frames
    events = [json.loads(line) for line in outcome.events.splitlines()]
    kinds = Counter(event["event_type"] for event in events)
    assert kinds["conn_open"] == kinds["conn_close"] == stats["smtp_flows"]
    assert kinds["smtp_command"] == stats["smtp_commands"]
    assert kinds["smtp_reply"] == stats["smtp_replies"]
    assert kinds["dns_query"] == stats["dns_queries"]
    assert kinds["dns_response"] == stats["dns_responses"]
    assert sum(event["syns"] for event in events if event["event_type"] == "conn_close") <= stats["mail_syns"]
    mx = [event for event in events if event["event_type"] == "dns_query" and event["rrtype"] == "MX"]
    assert len(mx) == stats["mx_queries"]
    ids = Counter(event["flow_id"] for event in events if event["event_type"] == "conn_close")
    assert set(ids.values()) <= {1}
    started = Counter(alert.event_type for alert in outcome.alerts if alert.state == "started")
    assert (started["alert"], started["review"]) == (stats["alerts"], stats["reviews"])


@pytest.mark.kernel
@pytest.mark.invariant
def test_nothing_is_lost_or_counted_twice() -> None:
    check_conservation(run(batches(small_frames()), with_events=True), len(small_frames()))


@pytest.mark.parametrize("path", sorted(PCAPS.glob("*.pcap")), ids=lambda path: path.name)
def test_nothing_of_a_lab_capture_is_lost(path: Path) -> None:
    frames = read_capture(path)
    outcome = run(batches(frames), with_events=True)
    check_conservation(outcome, len(frames))
    assert outcome.stats["bytes"] == sum(frame.wire_len for frame in frames)
    assert set(outcome.stats["evictions"].values()) == {0}


# Limits.

TINY = Tables(flows=256, devices=256, dns_answers=256, line_buffers=64, held_segments=64)


def crowded_world() -> World:
    """More devices, connections, half lines, early segments and DNS answers than tiny tables hold."""
    world = World()
    for n in range(700):
        host = Host(0x020000010000 + n, f"10.1.{n // 200}.{1 + n % 200}", f"device-{n}")
        t = 0.01 * n
        world.join(host, t)
        world.resolve(t + 0.1, host, f"host-{n}.example", outside4(n))
        flow = {"src_port": 20000 + n, "dst_port": 25}
        back = {"src_port": 25, "dst_port": 20000 + n}
        world.packet(t + 0.2, host.ip, outside4(n), build.TCP, build.tcp(flags=build.SYN, seq=99, **flow))
        answer = build.tcp(flags=build.SYN | build.ACK, seq=499, ack=100, **back)
        world.packet(t + 0.3, outside4(n), host.ip, build.TCP, answer)
        half = build.tcp(b"220 mx.exam", seq=500, ack=100, **back)
        world.packet(t + 0.4, outside4(n), host.ip, build.TCP, half)
        early = build.tcp(b"MAIL FROM:<a@example>\r\n", seq=100 + 500, ack=511, **flow)
        world.packet(t + 0.5, host.ip, outside4(n), build.TCP, early)
    return world


@pytest.mark.kernel
@pytest.mark.invariant
def test_tiny_tables_evict_and_count() -> None:
    frames = crowded_world().in_order()
    tiny = run(batches(frames), Config(tables=TINY), with_events=True)
    check_conservation(tiny, len(frames))
    assert tiny.stats["devices"] <= TINY.devices
    evictions, weirds = tiny.stats["evictions"], tiny.stats["weirds"]
    assert evictions["device"] >= 700 - TINY.devices
    assert evictions["flow"] >= 700 - TINY.flows
    assert evictions["dns_answer"] > 0
    assert weirds["smtp_line_buffers_full"] > 0
    assert weirds["tcp_held_segments_full"] > 0
    roomy = run(batches(frames), with_events=True).stats
    assert roomy["devices"] >= 700
    assert {name: roomy["evictions"][name] for name in ("device", "flow", "dns_answer")} == {
        "device": 0,
        "flow": 0,
        "dns_answer": 0,
    }


def test_tiny_tables_give_the_same_answer_whatever_the_batches() -> None:
    frames = crowded_world().in_order()
    config = Config(tables=TINY)
    rng = random.Random(9)
    sizes = [rng.randrange(1, 40) for _ in frames]
    whole = answer_of(run(batches(frames), config, with_events=True))
    assert_same(answer_of(run(batches(frames, sizes), config, with_events=True)), whole)


def test_a_flood_is_seen_in_a_crowd_that_fits_no_table() -> None:
    world = crowded_world()
    for n in range(60):
        world.mail(1.0 + n / 10, CAMERA, outside4(n % 20), fate=Fate.REJECTED)
    assert CAMERA.key in run_world(world, Config(tables=TINY)).started()


# Memory.

PEAK = """
import runpy, sys
sys.argv = ["spamsensor", *sys.argv[1:]]
try:
    runpy.run_module("sensor", run_name="__main__")
finally:
    with open("/proc/self/status") as status:  # the peak of this process; ru_maxrss begins with its parent's
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""
#: What ten times the packets may cost: far less than the capture, far more than noise.
MAX_GROWTH_KB = 12_000


def write_long_capture(path: Path, n_mails: int) -> Path:
    """Distinct connections, look-ups and names of a site with 50 devices; about 9 kB each."""
    world = World()
    for n in range(n_mails):
        host = Host(0x020000020000 + n % 50, f"10.2.0.{1 + n % 50}", f"device-{n % 50}")
        world.resolve_mx(0.5 * n, host, f"domain-{n}.example", outside4(n % 700))
        world.mail(
            0.5 * n + 0.1, host, outside4(n % 700), fate=tuple(Fate)[n % 3], helo=b"name-%d.example" % n
        )
        for piece in range(5):
            world.packet(
                0.5 * n + 0.2 + piece / 100, host.ip, outside4(n % 700), build.UDP, build.udp(bytes(1400))
            )
    return world.write(path)


def peak_kb(capture: Path, out: Path) -> int:
    outputs = ["--events", os.devnull, "--devices", str(out / "d.csv"), "--features", str(out / "f.csv")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "replay", "--no-progress", *outputs, str(capture)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        timeout=300,
    )
    return int(done.stderr.split()[-1])


def test_memory_is_flat(tmp_path: Path) -> None:
    short = write_long_capture(tmp_path / "short.pcap", 400)
    long = write_long_capture(tmp_path / "long.pcap", 4000)
    assert long.stat().st_size - short.stat().st_size > 2 * 1024 * MAX_GROWTH_KB
    peak_kb(short, tmp_path)  # whatever has to be compiled is compiled
    growth = peak_kb(long, tmp_path) - peak_kb(short, tmp_path)
    assert growth < MAX_GROWTH_KB


# Whatever is in a capture.

SHARED = {
    name: sorted((CAPTURES / name).iterdir())
    for name in ("smtp", "dns", "benign", "formats", "encapsulated", "malformed")
}
#: Of these the captures cannot be read to their end; the line names the byte.
DAMAGED = {
    "smtp": {"suricata-verify__smtp-to-comma__10.7.29.101_49898-178.63.41.150_25.pcap"},
    "formats": {"pcapplusplus__solaris.snoop", "gopacket__be_test901.pcapng", "gopacket__le_test901.pcapng"},
    "malformed": {"ndpi__fuzz-2021-10-13.pcap", "suricata-verify__bug-6875-01_fuzz.pcap"},
}
#: What is said of a damaged capture, and of one with frames that are not decoded at all.
DAMAGE = r"byte \d+: [^\n]+"
UNDECODED = r"frames of link type [A-Z0-9_]+ \(\d+\), which is not decoded: counted, not judged"
#: Half of all addresses at home: so that captures from anywhere have devices, and mail in all directions.
HALF_AT_HOME = Config(home_nets=(Network("128.0.0.0/1"), Network("10.0.0.0/8"), Network("8000::/1")))


def try_capture(path: Path, config: Config) -> tuple[Run, list[str]]:
    problems: list[CaptureError] = []
    begin = time.monotonic()
    with open_captures([path], on_problem=problems.append) as frames:
        outcome = run(frames, config, with_events=True)
    assert time.monotonic() - begin < MAX_SECONDS, path.name
    check_conservation(outcome)
    return outcome, [str(problem) for problem in problems]


@pytest.mark.invariant
@pytest.mark.parametrize("part", SHARED)
@pytest.mark.parametrize("config", [Config(), HALF_AT_HOME], ids=["private at home", "half at home"])
def test_nothing_in_a_shared_capture_raises_or_hangs(part: str, config: Config) -> None:
    assert SHARED[part]
    damaged = set()
    for path in SHARED[part]:
        _, problems = try_capture(path, config)
        for problem in problems:
            assert re.fullmatch(rf".*/{re.escape(path.name)}: ({DAMAGE}|{UNDECODED})", problem)
            if not re.search(UNDECODED, problem):
                damaged.add(path.name)
    assert damaged == DAMAGED.get(part, set())


@pytest.mark.kernel
@pytest.mark.parametrize("part", SHARED)
def test_nothing_in_a_shared_capture_raises_or_hangs_interpreted(part: str) -> None:
    """A few of each: plain Python raises where compiled code would wrap or read elsewhere."""
    small = [path for path in SHARED[part] if path.stat().st_size < 20_000]
    for path in random.Random(part).sample(small, min(15, len(small))):
        try_capture(path, HALF_AT_HOME)


@pytest.mark.parametrize("part", ["benign", "dns"])
def test_ordinary_captures_raise_no_alert(part: str) -> None:
    for path in SHARED[part]:
        outcome, _ = try_capture(path, Config())
        assert not [alert for alert in outcome.alerts if alert.event_type == "alert"], path.name


@pytest.fixture(scope="module")
def _compiled() -> None:
    """Compile what the program has to compile, which takes a minute."""
    spamsensor(PCAPS / "flood-camera.pcap")


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize("part", SHARED)
def test_the_program_reads_a_directory_of_anything(part: str) -> None:
    begin = time.monotonic()
    done = spamsensor("--format", "json", CAPTURES / part)
    assert time.monotonic() - begin < 60
    lines = done.stderr.decode().splitlines()
    assert done.returncode == (1 if lines else 0)
    assert all(re.fullmatch(rf"spamsensor: \S+: ({DAMAGE}|{UNDECODED})", line) for line in lines)
    damaged = [line for line in lines if not re.search(UNDECODED, line)]
    assert {line.split(": ")[1].rpartition("/")[2] for line in damaged} == DAMAGED.get(part, set())
    # What is worth a look may be among them: some are recordings of infected machines.
    assert {json.loads(line)["event_type"] for line in done.stdout.splitlines()} <= {"review"}


# Names that want to harm whoever reads them.

HOSTILE = {
    "escape": b"\x1b[2J\x1b]0;owned\x07\x1b[31mX",
    "lines": b"a\r\nALERT  all is well\nspamsensor: x",
    "json": b'","x":{"y":[1]},"z":"\\u0000',
    "csv": b'a",b\n"c,=1+1',
    "formula": b"=HYPERLINK(1)",
    "utf-8": b"\xff\xfe\xc3\x28\xe2\x80\xae\xf0\x9f\x92\xa9",
    "nul": b"cam\x01\x02era\x00",
    "c1": b"\x9b31m\xc2\x9b31m\x85",
    "format": b"%s%n{0}{alert.__class__}",
    "long": b"x" * 250,
}


def hostile_world() -> tuple[World, dict[str, Host]]:
    """A flood by a device for each name: the name of the device, of its servers, and in its greeting."""
    world = World()
    hosts = {label: Host(0x020000030000 + n, f"10.3.0.{1 + n}", label) for n, label in enumerate(HOSTILE)}
    for label, host in hosts.items():
        name = HOSTILE[label]
        world.join(host, 0.0, host_name=name)
        in_labels = name[:60].replace(b".", b"-") + b".example"
        for n in range(30):
            server = outside4(n % 12)
            world.lookup(1.0 + n, host, in_labels, MX, [Record(MX, in_labels.decode("latin-1"))])
            world.lookup(1.01 + n, host, in_labels, TXT)
            world.lookup(1.02 + n, host, b"x.example", A, [Record(A, server, owner=in_labels)])
            world.mail(1.1 + n, host, server, fate=Fate.REJECTED, helo=name.replace(b"\n", b""))
    return world, hosts


PRINTABLE = frozenset(range(0x20, 0x7F)) | {0x0A}


def check_printable(content: bytes) -> None:
    assert content
    assert set(content) <= PRINTABLE, set(content) - PRINTABLE


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("hostile")
    capture = hostile_world()[0].write(directory / "hostile.pcap")
    return {
        form: replayed([capture], directory / form, "--format", form, seed=0) for form in ("text", "json")
    }


def test_hostile_names_are_harmless_in_text(hostile: dict[str, dict[str, Any]]) -> None:
    text = hostile["text"]["stdout"]
    check_printable(text)
    lines = text.decode().splitlines()
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert all(re.match(r"(ALERT|REVIEW)\b.*\d% sure$", line) for line in headings)
    assert sum("ALERT  20" in line for line in headings) == len(HOSTILE)
    assert max(map(len, lines)) <= 100 + 64  # a word that is too long stays whole


def test_hostile_names_are_harmless_in_json(hostile: dict[str, dict[str, Any]]) -> None:
    validator = jsonschema.Draft202012Validator(alert_schema())
    content = hostile["json"]["stdout"]
    check_printable(content)
    alerts = [json.loads(line) for line in content.splitlines()]
    for alert in alerts:
        validator.validate(alert)
    hosts = hostile_world()[1]
    accused = {alert["device"]["key"]: alert["device"]["hostname"] for alert in alerts}
    assert set(accused) == {host.key for host in hosts.values()}
    for label, host in hosts.items():
        assert accused[host.key] == shown(HOSTILE[label])


def shown(name: bytes) -> str:
    """How a host name is written: as far as a NUL byte and 64 others, printable ASCII, a question mark for the rest."""
    cut = name.split(b"\0")[0].rstrip(b" ")[:64]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in cut).replace("\\", "\\\\")


def test_hostile_names_are_harmless_in_tables(hostile: dict[str, dict[str, Any]]) -> None:
    for name in ("d.csv", "f.csv"):
        content = hostile["text"][name]
        check_printable(content)
        header, *rows = csv.reader(io.StringIO(content.decode()))
        assert rows
        assert {len(row) for row in rows} == {len(header)}
        assert content.count(b"\n") == len(rows) + 1
        assert not [field for row in rows for field in row if field[:1] in ("=", "+", "@")]


def test_hostile_names_are_harmless_in_events(hostile: dict[str, dict[str, Any]]) -> None:
    content = hostile["text"]["e.jsonl"]
    check_printable(content)
    kinds = Counter(json.loads(line)["event_type"] for line in content.splitlines())
    assert kinds["dhcp"] == len(HOSTILE)
    assert {"smtp_command", "dns_query", "dns_answer"} <= set(kinds)


def test_hostile_names_do_not_show_what_is_private(hostile: dict[str, dict[str, Any]]) -> None:
    """Local parts, passwords and content never leave the sensor."""
    for outputs in hostile.values():
        for content in outputs.values():
            if isinstance(content, bytes):
                for secret in (b"someone", b"user0", b"AHgAeA", b"Subject"):
                    assert secret not in content


def test_the_clock_of_the_tests_is_not_that_of_the_sensor() -> None:
    """Packets from 1970 and from 2200 are judged alike: nothing asks what time it is."""
    early, late = (answer_to(later(small_frames(), days)) for days in (-20_780, 63_000))
    assert_same(shifted(late, -83_780), shifted(early, 0))
    assert datetime.now(tz=UTC).strftime("%Y-%m-%d") not in early.alerts


@pytest.mark.parametrize("path", sorted(PCAPS.glob("*.pcap")), ids=lambda path: path.name)
def test_looking_at_windows_and_events_changes_no_verdict(path: Path) -> None:
    def alerts(**callbacks: Any) -> list[bytes]:
        said: list[bytes] = []
        pipeline = Pipeline(Config(), on_alert=lambda alert: said.append(alert_json(alert)), **callbacks)
        with open_captures([path], on_problem=pytest.fail) as batches:
            for batch in batches:
                pipeline.feed(batch)
        pipeline.finish()
        return said

    windows: list[Any] = []
    assert alerts(on_window=windows.append, on_events=lambda *_: None) == alerts()
    assert windows
