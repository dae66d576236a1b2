"""Measure how fast a pcap file (little-endian, microseconds) is indexed: mapped, and read into a buffer.

    python bench/capture_reading.py build/bench/mix.pcap build/bench/dense.pcap

Prints ns per frame, the median of five runs with the file in the page cache: the index kernel over a mapping,
the same over a buffer (what the sensor does), and the whole of open_captures.
"""

from __future__ import annotations

import mmap
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from sensor.capture.capfile import MAX_BATCH_FRAMES, CaptureReader
from sensor.capture.frames import FRAME_DTYPE
from sensor.capture.merge import open_captures
from sensor.capture.pcap import PcapLayout, index_pcap

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES = 24
REPEAT = 5


def index_mapped(path: str) -> int:
    frames = np.zeros(MAX_BATCH_FRAMES, FRAME_DTYPE)
    with open(path, "rb") as file:  # noqa: PTH123 - its descriptor is wanted
        mapping = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, access=mmap.ACCESS_COPY)
    mapping.madvise(mmap.MADV_SEQUENTIAL)
    data = np.frombuffer(mapping, np.uint8)
    layout = PcapLayout(False, 1000, 1, 16, False, False)
    n_frames, pos, n = 0, HEADER_BYTES, 1
    while n > 0:
        n, pos, _, _ = index_pcap(data, pos, data.size, layout, frames)
        n_frames += n
    return n_frames


def index_buffered(path: str) -> int:
    with CaptureReader(path, on_problem=lambda problem: sys.exit(str(problem))) as reader:
        return sum(len(batch.frames) for batch in reader)


def index_run(path: str) -> int:
    with open_captures([path], on_problem=lambda problem: sys.exit(str(problem))) as run:
        return sum(len(batch.frames) for batch in run)


def ns_per_frame(index: Callable[[str], int], path: str) -> float:
    index(path)
    seconds = []
    for _ in range(REPEAT):
        begin = time.perf_counter()
        n_frames = index(path)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) / n_frames * 1e9


def main() -> None:
    for path in sys.argv[1:]:
        figures = {name: ns_per_frame(index, path) for name, index in CONTESTANTS.items()}
        print(path, *(f"{name} {figure:.1f} ns" for name, figure in figures.items()), sep="  ")


CONTESTANTS = {"mapped": index_mapped, "buffer": index_buffered, "open_captures": index_run}

if __name__ == "__main__":
    main()
