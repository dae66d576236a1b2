"""Several captures as one run, merged by time.

Inside a file the order is kept as it is, even where its clock runs backwards: a frame is placed by the latest
timestamp of its file so far. Frames of the same time come in the order of their files' paths, so that the
order of the arguments does not matter.

A file is opened when its first frame is due and closed after its last: any number of files that follow upon
each other, like a rotated capture, need one descriptor and are not copied. Only where files overlap in time
are their frames gathered into a buffer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.capture.bytesource import BUFFER_BYTES
from sensor.capture.capfile import MAX_BATCH_FRAMES, CaptureCounts, CaptureReader, capture_name
from sensor.capture.discover import CaptureFile, find_captures
from sensor.capture.frames import FRAME_DTYPE, FrameBatch
from sensor.capture.run import FrameRun
from sensor.errors import CaptureError
from sensor.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Captures that may overlap in time; each needs a descriptor (1024 is the usual limit) and buffers.
MAX_OPEN_CAPTURES: Final = 512
#: What one of many overlapping captures gets of BUFFER_BYTES and MAX_BATCH_FRAMES at least.
MIN_BUFFER_BYTES: Final = 256 << 10
MIN_BATCH_FRAMES: Final = 512


@kernel
def gather_frames(
    data: NDArray[np.uint8],
    frames: NDArray[Any],
    rows: NDArray[np.int64],
    out_data: NDArray[np.uint8],
    out_frames: NDArray[Any],
) -> None:
    """Copy ``frames`` and their bytes in ``data`` to ``out_frames[rows]``, whose ``offset`` is set already.

    ``data``: u8[n_in]; ``frames``: FRAME_DTYPE[n]; ``rows``: i64[n]; ``out_data``: u8[n_out], out;
    ``out_frames``: FRAME_DTYPE[m], out.
    """
    for i in range(frames.size):
        source = frames[i]
        target = out_frames[rows[i]]
        start, length, at = source["offset"], source["captured_len"], target["offset"]
        # This becomes wide loads and stores, which assigning a slice does not, nor a loop over indices.
        copy = out_data[at : at + length]
        for k, byte in enumerate(data[start : start + length]):
            copy[k] = byte
        target["ts_ns"] = source["ts_ns"]
        target["captured_len"] = source["captured_len"]
        target["wire_len"] = source["wire_len"]
        target["link_type"] = source["link_type"]
        target["reserved"] = source["reserved"]


class OpenCapture:
    """A capture that is being merged: its batch at hand, of which ``frames[pos:]`` are still to be taken.

    ``keys``: i64[n_frames], latest timestamp of the batch up to each frame, so that they ascend. The batches
    before need not be remembered: no frame at hand belongs before their last. ``order``: rank among the files
    of the run, which decides between frames of the same time.
    """

    def __init__(
        self,
        file: CaptureFile,
        order: int,
        reader: CaptureReader,
        on_problem: Callable[[CaptureError], None],
    ) -> None:
        self.file = file
        self.order = order
        self.reader = reader
        self.on_problem = on_problem
        self.keys = np.empty(0, np.int64)
        self.pos = 0

    def next_batch(self, *, is_growing: bool = False) -> bool:
        """Take the next batch; False at the end, which it may be for now. Raises CaptureError, an end, too."""
        batch = self.reader.next_batch(is_growing=is_growing)
        if batch is None:
            return False
        self.batch = batch
        self.pos = 0
        self.keys = np.maximum.accumulate(batch.frames["ts_ns"])
        return True

    @property
    def first(self) -> tuple[int, int]:
        """Where in the run the next frame belongs."""
        return int(self.keys[self.pos]), self.order

    @property
    def last(self) -> tuple[int, int]:
        """Where in the run the last frame of this batch belongs."""
        return int(self.keys[-1]), self.order

    def stop_at(self, bound: tuple[int, int]) -> int:
        """Return the position behind the last frame that belongs at or before ``bound``."""
        key, order = bound
        return int(np.searchsorted(self.keys, key, side="right" if self.order <= order else "left"))

    def take(self, stop: int) -> FrameBatch:
        """Hand out the frames up to a position, where they are."""
        frames = self.batch.frames[self.pos : stop]
        self.pos = stop
        return FrameBatch(self.batch.data, frames)

    @property
    def is_drained(self) -> bool:
        """Whether all frames of the batch have been handed out."""
        return self.pos == self.keys.size


class Merger:
    """Puts the frames of several captures in the order of time, into a buffer that is used again and again."""

    def __init__(self) -> None:
        # Untouched, and so no memory, unless captures overlap.
        self._gathered = FrameBatch(np.empty(BUFFER_BYTES, np.uint8), np.empty(MAX_BATCH_FRAMES, FRAME_DTYPE))

    def merge(self, captures: Sequence[OpenCapture], bound: tuple[int, int]) -> Iterator[FrameBatch]:
        """Yield the frames at hand that belong at or before ``bound``, of captures in their order."""
        stops = [(capture, capture.stop_at(bound)) for capture in captures]
        parts = [(capture, stop) for capture, stop in stops if stop > capture.pos]
        if len(parts) == 1:
            capture, stop = parts[0]
            yield capture.take(stop)
        else:
            yield from self._gather(parts)

    def _gather(self, parts: Sequence[tuple[OpenCapture, int]]) -> Iterator[FrameBatch]:
        """Yield the frames of several captures, of each up to the position given, in the order of time.

        ``parts`` are in the order of the captures, which decides between equal keys: the sort is stable.
        """
        slices = [(capture, slice(capture.pos, stop)) for capture, stop in parts]
        keys = np.concatenate([capture.keys[part] for capture, part in slices])
        lengths = np.concatenate([capture.batch.frames["captured_len"][part] for capture, part in slices])
        owners = np.repeat(np.arange(len(parts)), [part.stop - part.start for _, part in slices])
        in_time = np.argsort(keys, kind="stable")
        owners, lengths = owners[in_time], lengths[in_time]
        ends = np.cumsum(lengths, dtype=np.int64)
        starts = ends - lengths
        begin = 0
        while begin < keys.size:
            fitting = int(np.searchsorted(ends, starts[begin] + self._gathered.data.size, side="right"))
            end = min(begin + self._gathered.frames.size, fitting)
            batch = FrameBatch(self._gathered.data, self._gathered.frames[: end - begin])
            batch.frames["offset"] = starts[begin:end] - starts[begin]
            rows_by_owner = np.argsort(owners[begin:end], kind="stable")
            splits = np.cumsum(np.bincount(owners[begin:end], minlength=len(parts)))
            for (capture, _), rows in zip(parts, np.split(rows_by_owner, splits[:-1]), strict=True):
                taken = capture.take(capture.pos + rows.size)
                gather_frames(taken.data, taken.frames, rows, batch.data, batch.frames)
            yield batch
            begin = end


class _Waiting(NamedTuple):
    """A capture whose turn has not come. Only a pipe stays open until then: it cannot be read again."""

    first: tuple[int, int]
    file: CaptureFile
    capture: OpenCapture | None


class CaptureRun(FrameRun):
    """All captures of a run as one: iterate once for FrameBatches in the order of time; a context manager.

    Batches are borrowed until the next is asked for. ``bytes_total``: size of all files as they are stored,
    None if one of them is a pipe. What is wrong with a file is handed to ``on_problem``; the others go on.
    """

    def __init__(self, files: Sequence[CaptureFile], *, on_problem: Callable[[CaptureError], None]) -> None:
        sizes = [file.size for file in files if file.size is not None]
        self.bytes_total = sum(sizes) if len(sizes) == len(files) else None
        self._files = files
        self._counts = CaptureCounts()
        self._on_problem = on_problem
        self._waiting: deque[_Waiting] = deque()
        self._open: list[OpenCapture] = []
        self._finished_bytes = 0
        self._merger = Merger()
        super().__init__(self._merge())

    @property
    def bytes_read(self) -> int:
        """How much of the files has been read or given up, in bytes as they are stored."""
        return self._finished_bytes + sum(capture.reader.bytes_read for capture in self._open)

    @property
    def counts(self) -> CaptureCounts:
        """What was wrong with the files, as far as they were read."""
        counts = CaptureCounts()
        for part in (self._counts, *(capture.reader.counts for capture in self._open)):
            counts.add(part)
        return counts

    def close(self) -> None:
        """Close all files."""
        super().close()
        for capture in [*self._open, *(waiting.capture for waiting in self._waiting)]:
            if capture is not None:
                capture.reader.close()
        self._open.clear()
        self._waiting.clear()

    def _merge(self) -> Generator[FrameBatch, None, None]:
        self._look_at_all()
        while self._open or self._waiting:
            self._open_due()
            if not self._open:
                continue
            # What belongs behind this bound may have to wait for frames that are not known yet.
            bound = min(capture.last for capture in self._open)
            if self._waiting:
                bound = min(bound, self._waiting[0].first)
            yield from self._merger.merge(self._open, bound)
            for capture in [capture for capture in self._open if capture.is_drained]:
                if not self._advance(capture):
                    self._open.remove(capture)

    def _look_at_all(self) -> None:
        """Sort the files by the time of their first frame; a file without frames is done with."""
        waiting = []
        for order, file in enumerate(self._files):
            if file.size is None:
                capture = self._start(file, order)
                if capture is not None:
                    waiting.append(_Waiting(capture.first, file, capture))
            else:
                problems: list[CaptureError] = []
                capture = self._start(
                    file, order, on_problem=problems.append, max_batch_frames=1, buffer_bytes=0
                )
                if capture is not None:  # its problems are met again
                    waiting.append(_Waiting(capture.first, file, None))
                    capture.reader.close()
                    continue
                for problem in problems:
                    self._on_problem(problem)
        self._waiting.extend(sorted(waiting, key=lambda capture: capture.first))

    def _open_due(self) -> None:
        """Open every file whose first frame comes before the frames at hand."""
        while self._waiting and (
            not self._open or self._waiting[0].first < min(capture.first for capture in self._open)
        ):
            (_, order), file, capture = self._waiting.popleft()
            if len(self._open) == MAX_OPEN_CAPTURES:
                reason = f"not read: {MAX_OPEN_CAPTURES} other captures are open at its first timestamp"
                self._on_problem(CaptureError(f"{capture_name(file.path)}: {reason}"))
                self._finished_bytes += file.size or 0
                continue
            share = len(self._open) + 1
            capture = capture or self._start(
                file,
                order,
                max_batch_frames=max(MAX_BATCH_FRAMES // share, MIN_BATCH_FRAMES),
                buffer_bytes=max(BUFFER_BYTES // share, MIN_BUFFER_BYTES),
            )
            if capture is not None:
                self._open.append(capture)
        self._open.sort(key=lambda capture: capture.order)

    def _start(
        self,
        file: CaptureFile,
        order: int,
        *,
        on_problem: Callable[[CaptureError], None] | None = None,
        max_batch_frames: int = MAX_BATCH_FRAMES,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> OpenCapture | None:
        """Open a file and take its first batch; None, and the file is done with, if it has none."""
        on_problem = on_problem or self._on_problem
        try:
            reader = CaptureReader(
                file.path,
                on_problem=on_problem,
                max_batch_frames=max_batch_frames,
                buffer_bytes=buffer_bytes,
            )
        except CaptureError as problem:
            on_problem(problem)
            self._finished_bytes += file.size or 0
            return None
        capture = OpenCapture(file, order, reader, on_problem)
        return capture if self._advance(capture) else None

    def _advance(self, capture: OpenCapture) -> bool:
        """Take a capture's next batch; False, and the file is done with, if there is none."""
        try:
            if capture.next_batch():
                return True
        except CaptureError as problem:
            capture.on_problem(problem)
        self._counts.add(capture.reader.counts)
        size = capture.file.size
        self._finished_bytes += capture.reader.bytes_read if size is None else size
        capture.reader.close()
        return False


def open_captures(paths: Sequence[str | Path], *, on_problem: Callable[[CaptureError], None]) -> CaptureRun:
    """Open files, directories, patterns and ``-`` (standard input) as one run; see find_captures, CaptureRun.

    ``on_problem`` gets one error for each thing that is wrong, now and while the run goes on.
    """
    return CaptureRun(find_captures(paths, on_problem=on_problem), on_problem=on_problem)
