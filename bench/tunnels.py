"""Measure what decoding costs, for frames without a tunnel and for each layer that is peeled.

    python bench/tunnels.py                    # ns a frame for each layer, beside the packet without it
    python bench/tunnels.py --against ../base  # frames without a tunnel, beside another checkout's decoder

The frames are made in memory, 20,000 of a kind, and decoded in batches like a capture's. All contestants take
turns on one core, A B C A B C, and the median of the CPU time is reported, so that a disturbance hits all alike.
``--against`` also prints the median of the differences within each turn.
"""

from __future__ import annotations

import argparse
import inspect
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
N_FRAMES = 20_000
PASSES = 10  # over the frames, for one measurement

if TYPE_CHECKING:
    from collections.abc import Callable


def plain_frames() -> dict[str, list[bytes]]:
    """Frames without a tunnel, by what becomes of them, and a mix of all."""
    from tests import builders as b

    kinds = {
        "TCP of no interest": b.ether(b.IPV4, b.ipv4(b.TCP, b.tcp(bytes(100), dst_port=443))),
        "TCP over IPv6, of no interest": b.ether(b.IPV6, b.ipv6(b.TCP, b.tcp(bytes(100), dst_port=443))),
        "UDP of no interest": b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(bytes(100), dst_port=443))),
        "VLAN, TCP of no interest": b.ether(
            b.VLAN, b.tagged(b.IPV4, b.ipv4(b.TCP, b.tcp(bytes(100), dst_port=443)), 9)
        ),
        "mail": b.ether(b.IPV4, b.ipv4(b.TCP, b.tcp(b"QUIT\r\n"))),
        "DNS": b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(bytes(30)))),
        "no IP": b.ether(0x88CC, bytes(50)),
    }
    frames = {name: [frame] * N_FRAMES for name, frame in kinds.items()}
    several = list(kinds.values())
    frames["all of these in turn"] = [several[(n * 5) % 7] for n in range(N_FRAMES)]
    return frames


def decoder(frames: list[bytes], link_type: int = 1) -> Callable[[], float]:
    """Return a function that decodes the frames and returns CPU ns a frame; of whichever checkout is imported."""
    import numpy as np

    from sensor.decode import packets as p
    from sensor.decode.status import N_FRAME_STATUSES, N_WEIRDS
    from tests import builders as b

    batch = b.batch(frames, link_type=link_type)
    counters = {
        "status_counts": np.zeros(N_FRAME_STATUSES, np.int64),
        "peeled": np.zeros(64, np.int64),
        "weirds": np.zeros(N_WEIRDS, np.int64),
    }
    arguments: dict[str, Any] = {
        "data": batch.data,
        "frames": batch.frames,
        "port_class": p.port_classes([25]),
        "packets": np.zeros(2048, p.PACKET_DTYPE),
        **counters,
    }
    wanted = list(inspect.signature(p.decode_batch).parameters)
    if "watch" in wanted:
        from sensor.decode.watch import new_watch

        arguments["watch"] = new_watch()

    def run() -> float:
        begin = time.process_time_ns()
        for _ in range(PASSES):
            first = 0
            while first < len(frames):
                arguments["first"] = first
                _, first = p.decode_batch(*(arguments[name] for name in wanted))
        return (time.process_time_ns() - begin) / PASSES / len(frames)

    run()  # compiles
    return run


def median_of_turns(contestants: dict[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeat):
        for name, run in contestants.items():
            times[name].append(run())
    return times


def measure_layers(repeat: int) -> None:
    from tests import builders as b
    from tests.builders_tunnels import STACKS

    packet = b.ipv4(b.TCP, b.tcp(b"QUIT\r\n"))
    contestants = {"(no tunnel)": decoder([b.ether(b.IPV4, packet)] * N_FRAMES)}
    for name, wrap in STACKS.items():
        link_type, frame = wrap(packet)
        contestants[name] = decoder([frame] * N_FRAMES, link_type)
    times = median_of_turns(contestants, repeat)
    plain = statistics.median(times["(no tunnel)"])
    print(f"{'a mail packet in':40}  ns a frame   more")
    for name, measured in times.items():
        middle = statistics.median(measured)
        print(f"{name:40}  {middle:10.1f}  {middle - plain:+5.1f}")


class Worker:
    """A process that measures one checkout's decoder when told to."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str) -> float:
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:
            raise RuntimeError("no pipes to the worker")
        to.write(name + "\n")
        to.flush()
        return float(back.readline())

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    runs = {name: decoder(frames) for name, frames in plain_frames().items()}
    for line in sys.stdin:
        print(runs[line.strip()](), flush=True)


def measure_against(other: Path, repeat: int) -> None:
    ours, theirs = Worker(ROOT), Worker(other.resolve())
    print(f"{'frames':32}  ns a frame: ours   theirs   difference")
    for name in plain_frames():
        a, b = [], []
        for turn in range(repeat):
            pair = (a, ours), (b, theirs)
            for times, worker in pair if turn % 2 else reversed(pair):
                times.append(worker.run(name))
        difference = statistics.median(x - y for x, y in zip(a, b, strict=True))
        print(f"{name:32}  {statistics.median(a):16.2f}  {statistics.median(b):7.2f}  {difference:+11.2f}")
    ours.close()
    theirs.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--repeat", type=int, default=21)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.worker:
        serve()
        return
    sys.path.insert(0, str(ROOT))
    if options.against:
        measure_against(options.against, options.repeat)
    else:
        measure_layers(options.repeat)


if __name__ == "__main__":
    main()
