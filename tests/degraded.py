"""What a mirror port does to traffic: from the frames of a healthy capture to what is left of them.

The captures are Ethernet and IPv4 behind one gateway, as those of pcaps/ are. Randomness is seeded: a degraded
capture is the same each time.

    python -m tests.degraded

replays the captures of the lab degraded in each way and writes the table of docs/mirrors.md; ``make docs`` calls it.
"""

from __future__ import annotations

import csv
import random
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.capture.merge import open_captures
from sensor.model.artifact import default_directory, read_artifact
from tests.builders_capture import read_frames
from tests.worlds import batches, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.builders_capture import Frame

    Frames = list[Frame]

SECOND_NS = 10**9
#: Between the two copies of a frame that is mirrored where it enters and where it leaves the switch.
COPY_NS = 20_000
#: The routed copy of a frame: the gateway's other interface, its next hop, and the VLAN between them.
ROUTED_SRC, ROUTED_DST, ROUTED_VLAN = bytes.fromhex("4c5e0c7a0102"), bytes.fromhex("001b17000101"), 900
_IPV4, _TCP = 0x0800, 6
_ETHER_BYTES, _TCP_BYTES = 14, 20
_FIN_SYN_RST, _PSH = 0x07, 0x08


_DIRECTORY = default_directory()
#: Verdicts are those of the program as it comes.
MODEL = read_artifact(_DIRECTORY) if _DIRECTORY else None


def _is_ipv4(data: bytes) -> bool:
    return data[12:14] == b"\x08\x00"


def _passes(data: bytes, gateway: bytes) -> bool:
    return gateway in (data[:6], data[6:12])


def outbound_only(frames: Frames, gateway: bytes) -> Frames:
    """Only what enters the gateway's port: nothing that it sends."""
    return [frame for frame in frames if frame.data[6:12] != gateway]


def inbound_only(frames: Frames, gateway: bytes) -> Frames:
    """Only what leaves the gateway's port: nothing that it is sent."""
    return [frame for frame in frames if frame.data[:6] != gateway]


def mirrored_twice(frames: Frames, _: bytes) -> Frames:
    """Both ports of each frame's way are mirrored: a copy of it follows at once."""
    copies = [replace(frame, ts_ns=frame.ts_ns + COPY_NS) for frame in frames]
    return sorted(frames + copies, key=lambda frame: frame.ts_ns)


def _routed(frame: Frame) -> Frame:
    data = bytearray(frame.data)
    data[22] -= 1  # time to live
    tagged = ROUTED_DST + ROUTED_SRC + struct.pack(">HH", 0x8100, ROUTED_VLAN) + bytes(data[12:])
    return replace(frame, ts_ns=frame.ts_ns + COPY_NS, data=tagged, wire_len=frame.wire_len + 4)


def mirrored_before_and_behind_the_gateway(frames: Frames, gateway: bytes) -> Frames:
    """Routed frames come a second time, in another VLAN, between other stations, their time to live one less."""
    copies = [_routed(f) for f in frames if _is_ipv4(f.data) and _passes(f.data, gateway) and f.data[22] > 1]
    return sorted(frames + copies, key=lambda frame: frame.ts_ns)


def lossy(share: float) -> Callable[[Frames, bytes], Frames]:
    """Frames are lost at random."""

    def degrade(frames: Frames, _: bytes) -> Frames:
        rng = random.Random(f"loss {share}")
        return [frame for frame in frames if rng.random() >= share]

    return degrade


def reordered(frames: Frames, _: bytes) -> Frames:
    """One frame in ten arrives up to three places late; time stamps are those of arrival."""
    rng = random.Random("order")
    order = sorted(range(len(frames)), key=lambda i: i + (3.5 * rng.random() if rng.random() < 0.1 else 0.0))
    return [replace(frames[i], ts_ns=frames[place].ts_ns) for place, i in enumerate(order)]


def cut(snaplen: int) -> Callable[[Frames, bytes], Frames]:
    """Frames are captured up to the snap length."""

    def degrade(frames: Frames, _: bytes) -> Frames:
        return [replace(frame, data=frame.data[:snaplen]) for frame in frames]

    return degrade


def checksums_left_to_hardware(frames: Frames, _: bytes) -> Frames:
    """Captured on the sending machine: its network card has yet to compute the checksums of IP, TCP and UDP."""

    def without(data: bytes) -> bytes:
        if not _is_ipv4(data):
            return data
        cleared = bytearray(data)
        cleared[24:26] = b"\0\0"
        transport = _ETHER_BYTES + 4 * (data[14] & 15)
        field = transport + (16 if data[23] == _TCP else 6)
        cleared[field : field + 2] = b"\0\0"
        return bytes(cleared)

    return [replace(frame, data=without(frame.data)) for frame in frames]


def clock_steps_back(frames: Frames, _: bytes) -> Frames:
    """The clock is set back by three seconds a tenth of the way in, and again nine times."""
    step = max(len(frames) // 10, 1)
    return [replace(frame, ts_ns=frame.ts_ns - 3 * SECOND_NS * (i // step)) for i, frame in enumerate(frames)]


def clock_jitters(frames: Frames, _: bytes) -> Frames:
    """Time stamps stray by up to five milliseconds: several capture queues, each with a delay of its own."""
    rng = random.Random("jitter")
    return [replace(frame, ts_ns=frame.ts_ns + rng.randrange(5_000_000)) for frame in frames]


def silent_for_hours(frames: Frames, _: bytes) -> Frames:
    """The mirror is off for six hours before the last tenth of the frames."""
    pause = len(frames) * 9 // 10
    return [
        frame if i < pause else replace(frame, ts_ns=frame.ts_ns + 6 * 3600 * SECOND_NS)
        for i, frame in enumerate(frames)
    ]


@dataclass
class _Segment:
    """An IPv4 TCP segment inside an Ethernet frame."""

    head: bytes
    payload: bytes
    flow: bytes
    seq: int
    flags: int


def _segment(frame: Frame) -> _Segment | None:
    data = frame.data
    if not _is_ipv4(data) or data[23] != _TCP or len(data) < frame.wire_len:
        return None
    transport = _ETHER_BYTES + 4 * (data[14] & 15)
    end = _ETHER_BYTES + int.from_bytes(data[16:18], "big")
    payload = transport + 4 * (data[transport + 12] >> 4)
    return _Segment(
        data[:payload],
        data[payload:end],
        data[26:34] + data[transport : transport + 4],
        int.from_bytes(data[transport + 4 : transport + 8], "big"),
        data[transport + 13],
    )


def merged_by_offload(frames: Frames, _: bytes) -> Frames:
    """Receive offload joins segments that follow each other into super-frames, larger than any MTU."""
    return list(_merge(frames))


def _merge(frames: Frames) -> Iterator[Frame]:
    held: Frame | None = None
    for frame in frames:
        before, segment = (None if held is None else _segment(held)), _segment(frame)
        if (
            held is not None
            and before is not None
            and segment is not None
            and segment.payload
            and before.payload
            and segment.flow == before.flow
            and segment.seq == (before.seq + len(before.payload)) % 2**32
            and (before.flags | segment.flags) & _FIN_SYN_RST == 0
        ):
            data = bytearray(before.head + before.payload + segment.payload)
            data[16:18] = (len(data) - _ETHER_BYTES).to_bytes(2, "big")
            held = replace(held, data=bytes(data), wire_len=len(data))
            continue
        if held is not None:
            yield held
        held = frame
    if held is not None:
        yield held


#: What a mirror can do, by the words that stand in docs/mirrors.md; each takes frames and the gateway's MAC.
DEGRADATIONS: dict[str, Callable[[Frames, bytes], Frames]] = {
    "nothing": lambda frames, _: frames,
    "only what goes out": outbound_only,
    "only what comes in": inbound_only,
    "every frame twice": mirrored_twice,
    "before and behind the gateway": mirrored_before_and_behind_the_gateway,
    "1 % of the frames lost": lossy(0.01),
    "5 % of the frames lost": lossy(0.05),
    "out of order": reordered,
    "cut to 128 bytes": cut(128),
    "cut to 96 bytes": cut(96),
    "cut to 64 bytes": cut(64),
    "checksums left to hardware": checksums_left_to_hardware,
    "segments joined by offload": merged_by_offload,
    "clock set back, ten times": clock_steps_back,
    "time stamps astray by 5 ms": clock_jitters,
    "six hours without a frame": silent_for_hours,
}


# The table of docs/mirrors.md.

PCAPS = Path(__file__).parents[1] / "pcaps"
PAGE = PCAPS.parent / "docs" / "mirrors.md"
BEGIN, END = "<!-- begin: mirrors (generated by `make docs`) -->\n", "<!-- end: mirrors -->"
#: There, who is named hangs on DHCP that is seen whole: without it, an address or the router is.
LEFT_OUT = "moved-behind.pcap"
HEADER = (
    "| the mirror shows | mail connections | commands | replies | MX look-ups | named | wrongly named | weirds |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass
class Outcome:
    """What is said of the captures of the lab, all of them degraded alike."""

    infected: int = 0
    named: int = 0  # of the infected
    named_otherwise: int = 0  # ... with another cause than their label's
    wrongly_named: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    weirds: Counter[str] = field(default_factory=Counter)


@cache
def lab_frames(capture: str) -> tuple[Frame, ...]:
    """The frames of a capture of the lab."""
    with open_captures([PCAPS / capture], on_problem=_fail) as frames:
        return tuple(read_frames(frames))


def _fail(problem: Exception) -> None:
    raise problem


def lab_labels() -> list[dict[str, str]]:
    """The rows of pcaps/labels.tsv."""
    with (PCAPS / "labels.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def judge(name: str) -> Outcome:
    """Replay all captures of the lab, degraded by the name in DEGRADATIONS."""
    outcome = Outcome()
    labels = lab_labels()
    for capture in sorted({row["capture"] for row in labels} - {LEFT_OUT}):
        mine = [row for row in labels if row["capture"] == capture]
        gateway = next(row["device_mac"] for row in mine if row["device_name"] == "gateway")
        infected = {row["device_mac"]: row["cause"] for row in mine if row["label"] == "infected"}
        frames = DEGRADATIONS[name](list(lab_frames(capture)), bytes.fromhex(gateway.replace(":", "")))
        result = run(batches(frames), artifact=MODEL)
        accused = {key: alert.cause for key, alert in result.started().items()}
        outcome.infected += len(infected)
        outcome.named += len(accused.keys() & infected.keys())
        outcome.named_otherwise += sum(accused.get(key, cause) != cause for key, cause in infected.items())
        outcome.wrongly_named += len(accused.keys() - infected.keys())
        outcome.totals.update({k: v for k, v in result.stats.items() if isinstance(v, int)})
        outcome.weirds.update(result.stats["weirds"])
    return outcome


def table_row(name: str, outcome: Outcome) -> str:
    """One row of the table."""
    totals = outcome.totals
    otherwise = f", {outcome.named_otherwise} with another cause" if outcome.named_otherwise else ""
    weirds = ", ".join(f"{n} {weird}" for weird, n in sorted(outcome.weirds.items()))
    numbers = [totals[key] for key in ("smtp_flows", "smtp_commands", "smtp_replies", "mx_queries")]
    named = f"{outcome.named} of {outcome.infected}{otherwise}"
    cells = [name, *map(str, numbers), named, str(outcome.wrongly_named), weirds or "-"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the table of docs/mirrors.md anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    rows = [table_row(name, judge(name)) for name in DEGRADATIONS]
    PAGE.write_text("\n".join([before + BEGIN, HEADER, *rows, "", END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
