"""Measure how long damaged captures take to read, per megabyte: the worst that we could think of.

    python bench/malformed_reading.py

Prints CPU seconds per MB (median of three) of made captures that are nothing but damage, and of all files in
../shared/captures/malformed together if they are there.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import struct
import tempfile
import time
from pathlib import Path

from sensor.capture.capfile import CaptureReader
from sensor.errors import CaptureError

MB = 1_000_000
PCAP = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
PCAPNG = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack(
    "<IIHHII", 1, 20, 1, 0, 0, 20
)
RECORD = struct.pack("<IIII", 1, 1, 3, 3) + b"abc"
BROKEN = struct.pack("<IIII", 1, 1, 1 << 30, 1)
CASES = {
    "pcap: noise": PCAP + random.Random(1).randbytes(MB),
    "pcap: 0xff": PCAP + b"\xff" * MB,
    "pcap: three records, then damage, and so on": PCAP + (BROKEN + RECORD * 3) * (MB // 73),
    "pcap: records that might be": PCAP
    + b"\xff" * 16
    + struct.pack("<IIII", 1, 1, 262144, 262144) * (MB // 16),
    "pcapng: noise": PCAPNG + random.Random(2).randbytes(MB),
    "pcapng: frames of no interface": PCAPNG
    + struct.pack("<IIIIIIII", 6, 32, 9, 0, 0, 0, 0, 32) * (MB // 32),
    "pcapng: blocks with two lengths": PCAPNG + struct.pack("<III", 6, 327_680, 0) * (MB // 12),
}
SHARED = Path(__file__).parents[2] / "shared" / "captures" / "malformed"


def read(path: Path) -> None:
    with contextlib.suppress(CaptureError), CaptureReader(str(path), on_problem=lambda _: None) as reader:
        for _ in reader:
            pass


def cpu_seconds(paths: list[Path]) -> float:
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        for path in paths:
            read(path)
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "damaged")
        for name, content in CASES.items():
            path.write_bytes(content[:2000])
            read(path)  # compiles
            path.write_bytes(content)
            print(f"{cpu_seconds([path]) / len(content) * MB:6.3f} s/MB  {name}")
    paths = sorted(SHARED.glob("*"))
    if paths:
        n_bytes = sum(path.stat().st_size for path in paths)
        print(
            f"{cpu_seconds(paths) / n_bytes * MB:6.3f} s/MB  {len(paths)} shared files, {n_bytes / MB:.1f} MB"
        )


if __name__ == "__main__":
    main()
