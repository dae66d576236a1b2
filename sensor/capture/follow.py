"""Captures that are still being written, as one run: read on as they grow, and as they rotate.

The files are polled. Notices of changes (inotify) would not come from a network file system, and would have to
be backed by polling all the same; a look at some files four times a second costs nothing that can be measured.

A file is told by its device and inode, so that a renamed one is still the same. One that is truncated, or
whose first bytes change, was begun anew. Once a file of a directory or a pattern has not changed for
QUIET_S while a newer one is there, it is complete; so is one that no path leads to any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from sensor.capture.bytesource import HEAD_BYTES, CutOffError
from sensor.capture.capfile import CaptureCounts, CaptureReader, capture_name
from sensor.capture.discover import CaptureFile
from sensor.capture.foreign import NotACaptureError
from sensor.capture.frames import FRAME_DTYPE, FrameBatch
from sensor.capture.merge import MIN_BATCH_FRAMES, MIN_BUFFER_BYTES, Merger, OpenCapture
from sensor.capture.run import FrameRun
from sensor.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

#: Time between two looks at the files.
POLL_S: Final = 0.25
#: A rotated file that was not written to for so long will not be any more.
QUIET_S: Final = 60
#: Files that are open at a time; further ones wait until one of these is complete.
MAX_FOLLOWED: Final = 256
#: The first bytes of a file, by which one that was begun anew is told: the header and the first record's time.
MARK_BYTES: Final = 64

_Key = tuple[int, int]


@dataclass(slots=True)
class _Followed:
    """A file that is read as it grows.

    ``mark``: its first bytes, as many as there are of MARK_BYTES. ``is_over``: it will not grow any more.
    """

    capture: OpenCapture
    mark: bytes
    is_over: bool = False


class _Done(NamedTuple):
    """A file that is not read any more, as it was last: size, time of its last change, and mark."""

    size: int
    mtime_ns: int
    mark: bytes


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that a path of the user's means. ``is_named``: by its own name, not by a directory or pattern."""

    path: str
    status: os.stat_result
    is_named: bool

    @property
    def key(self) -> _Key:
        """What stays the same when a file is renamed."""
        return self.status.st_dev, self.status.st_ino


class FollowRun(FrameRun):
    """Growing captures as one run: iterate once for FrameBatches; a context manager.

    Frames come as soon as their records are complete, of several files in the order of time as far as they are
    there at the same look. An empty batch says that there is nothing more for now. The run ends, after what is
    complete was read, when ``is_ended`` says so, or if no file can be followed. Problems go to ``on_problem``;
    a file, a directory or a pattern need not be there yet.
    """

    bytes_total = None

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        on_problem: Callable[[CaptureError], None],
        is_ended: Callable[[], bool],
    ) -> None:
        self._paths = sorted(map(str, paths))
        self._on_problem = on_problem
        self._is_ended = is_ended
        self._followed: dict[_Key, _Followed] = {}
        #: Files that are not read any more.
        self._done: dict[_Key, _Done] = {}
        self._refused: set[str] = set()
        self._n_opened = 0
        self._has_too_many = False
        self._counts = CaptureCounts()
        self._finished_bytes = 0
        self._merger = Merger()
        super().__init__(self._follow())

    @property
    def bytes_read(self) -> int:
        """How much of all files has been read."""
        return self._finished_bytes + sum(f.capture.reader.bytes_read for f in self._followed.values())

    @property
    def counts(self) -> CaptureCounts:
        """What was wrong with the files, as far as they were read."""
        counts = CaptureCounts()
        for part in (self._counts, *(f.capture.reader.counts for f in self._followed.values())):
            counts.add(part)
        return counts

    def close(self) -> None:
        """Close all files."""
        super().close()
        for key in list(self._followed):
            self._leave(key)

    def _follow(self) -> Generator[FrameBatch, None, None]:
        nothing = FrameBatch(np.zeros(1, np.uint8), np.zeros(0, FRAME_DTYPE))
        while True:
            is_last_look = self._is_ended()
            self._look()
            ready = [key for key in list(self._followed) if self._advance(key)]
            while ready:
                captures = [self._followed[key].capture for key in ready]
                yield from self._merger.merge(captures, min(capture.last for capture in captures))
                ready = [key for key in ready if self._has_frames(key) or self._advance(key)]
            if is_last_look or self._refused.issuperset(self._paths):
                return
            yield nothing
            time.sleep(POLL_S)

    def _has_frames(self, key: _Key) -> bool:
        return not self._followed[key].capture.is_drained

    def _advance(self, key: _Key) -> bool:
        """Take a file's next batch; False if there is none for now, or ever."""
        followed = self._followed[key]
        try:
            if followed.capture.next_batch(is_growing=not followed.is_over):
                return True
        except CaptureError as problem:
            self._on_problem(problem)
            followed.is_over = True
        if followed.is_over:
            self._leave(key)
        return False

    def _leave(self, key: _Key) -> None:
        """Close a file, and remember it as done with."""
        followed = self._followed.pop(key)
        reader = followed.capture.reader
        self._done[key] = _Done(reader.bytes_read, reader.file_status().st_mtime_ns, followed.mark)
        self._counts.add(reader.counts)
        self._finished_bytes += reader.bytes_read
        reader.close()

    def _look(self) -> None:
        """Open what is new; note what will not grow any more."""
        found = {file.key: file for path in self._paths for file in _files(path)}
        self._done = {key: done for key, done in self._done.items() if key in found}
        for key in list(self._followed):
            if key not in found:
                self._followed[key].is_over = True
            elif self._is_begun_anew(self._followed[key]):
                self._leave(key)  # what it held is gone, but for what was read
                del self._done[key]
        by_age = sorted(found.values(), key=lambda file: (file.status.st_mtime_ns, file.path))
        quiet_since = time.time() - QUIET_S
        for file in by_age:
            if file.key in self._done and not self._is_changed(file):
                continue
            if file.key not in self._followed:
                self._open(file)
            if file.key in self._followed and file is not by_age[-1] and not file.is_named:
                self._followed[file.key].is_over |= file.status.st_mtime < quiet_since

    def _is_begun_anew(self, followed: _Followed) -> bool:
        reader = followed.capture.reader
        mark = reader.first_bytes(MARK_BYTES)
        if reader.file_status().st_size < reader.bytes_read or not mark.startswith(followed.mark):
            return True
        followed.mark = mark
        return False

    def _is_changed(self, file: _Found) -> bool:
        """Tell whether a file that is done with holds another capture now; complain if it goes on."""
        done, now = self._done[file.key], file.status
        if (now.st_size, now.st_mtime_ns) == (done.size, done.mtime_ns):
            return False
        with contextlib.suppress(OSError), open(file.path, "rb") as stream:  # noqa: PTH123 - a file of any name
            if now.st_size < done.size or not stream.read(MARK_BYTES).startswith(done.mark):
                del self._done[file.key]
                return True
        if done.mark and now.st_size > done.size:
            self._refuse(file, "grew after it was taken for complete: the rest is not read")
        return False

    def _open(self, file: _Found) -> None:
        if not stat.S_ISREG(file.status.st_mode):
            if file.is_named:
                self._refuse(file, "only files can be followed; a pipe is read as it is, without --follow")
            return
        if file.status.st_size < HEAD_BYTES:
            return  # its format does not show yet
        if len(self._followed) == MAX_FOLLOWED:
            if not self._has_too_many:
                self._has_too_many = True
                reason = f"not read yet: {MAX_FOLLOWED} other captures are being followed"
                self._on_problem(CaptureError(f"{capture_name(file.path)}: {reason}"))
            return
        try:
            reader = CaptureReader(
                file.path,
                on_problem=self._on_problem,
                max_batch_frames=MIN_BATCH_FRAMES,
                buffer_bytes=MIN_BUFFER_BYTES,
            )
        except CutOffError:
            return  # the rest of its header is not there yet
        except NotACaptureError as problem:
            self._give_up(file, problem if file.is_named else None)
            return
        except CaptureError as problem:
            self._give_up(file, problem)
            return
        if reader.is_packed:
            reader.close()
            self._refuse(file, "a compressed capture cannot be followed: read it without --follow")
            return
        status = reader.file_status()
        capture_file = CaptureFile(file.path, None)
        capture = OpenCapture(capture_file, self._n_opened, reader, self._on_problem)
        self._n_opened += 1
        self._followed[status.st_dev, status.st_ino] = _Followed(capture, reader.first_bytes(MARK_BYTES))

    def _refuse(self, file: _Found, reason: str) -> None:
        self._give_up(file, CaptureError(f"{capture_name(file.path)}: {reason}"))

    def _give_up(self, file: _Found, problem: CaptureError | None) -> None:
        """Do not try a file again as it is; say so once."""
        if problem is not None and file.path not in self._refused:
            self._on_problem(problem)
        self._refused.add(file.path)
        self._done[file.key] = _Done(file.status.st_size, file.status.st_mtime_ns, b"")


def _files(path: str) -> Iterator[_Found]:
    """Yield the files that a path means now: itself, those in a directory, or those that match a pattern."""
    is_pattern = not os.path.lexists(path) and not set("*?[").isdisjoint(path)
    for match in glob.glob(path, recursive=True) if is_pattern else [path]:  # noqa: PTH207 - may be absolute
        is_named = not is_pattern
        names = [match]
        if os.path.isdir(match):  # noqa: PTH112 - a directory that vanishes is none
            is_named = False
            names = [
                os.path.join(directory, name)  # noqa: PTH118 - keeps a leading ./ as the user wrote it
                for directory, _, found in os.walk(match)
                for name in found
            ]
        for name in names:
            with contextlib.suppress(OSError):  # not there yet, or any more
                yield _Found(name, Path(name).stat(), is_named)


def follow_captures(
    paths: Sequence[str | Path],
    *,
    on_problem: Callable[[CaptureError], None],
    is_ended: Callable[[], bool],
) -> FollowRun:
    """Follow files, directories and patterns as one run; see FollowRun."""
    return FollowRun(paths, on_problem=on_problem, is_ended=is_ended)
