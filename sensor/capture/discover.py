"""From what a user names (files, directories, patterns, standard input) to the capture files meant by it."""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.capture.capfile import CaptureReader, capture_name
from sensor.capture.foreign import NotACaptureError
from sensor.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """One file to read. ``size``: bytes; None for a pipe, which can be read only once."""

    path: str
    size: int | None


def find_captures(
    paths: Sequence[str | Path], *, on_problem: Callable[[CaptureError], None]
) -> list[CaptureFile]:
    """Return the files that ``paths`` mean, by path, so that the order of the arguments does not matter.

    A directory means all captures below it, told by their content; symbolic links to directories are not
    followed. A path that does not exist and holds ``*``, ``?`` or ``[`` is a pattern (``**``: any depth).
    A file that is named twice, by whatever path, is meant once.
    """
    found: dict[tuple[int, int], CaptureFile] = {}
    for path in sorted(map(str, paths)):
        try:
            for file_path, status in _expand(path, on_problem):
                is_regular = stat.S_ISREG(status.st_mode) and file_path != "-"
                file = CaptureFile(file_path, status.st_size if is_regular else None)
                found.setdefault((status.st_dev, status.st_ino), file)
        except OSError as reason:
            on_problem(CaptureError(f"{capture_name(path)}: cannot be opened: {reason.strerror}"))
    return sorted(found.values(), key=lambda file: file.path)


def _expand(path: str, on_problem: Callable[[CaptureError], None]) -> Iterator[tuple[str, os.stat_result]]:
    if path == "-":
        yield path, os.fstat(0)
        return
    if not os.path.lexists(path) and not set("*?[").isdisjoint(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not matches:
            on_problem(CaptureError(f"{capture_name(path)}: no file matches"))
        for match in matches:
            yield from _walk(match, on_problem)
    else:
        yield from _walk(path, on_problem)


def _walk(path: str, on_problem: Callable[[CaptureError], None]) -> Iterator[tuple[str, os.stat_result]]:
    status = Path(path).stat()
    if not stat.S_ISDIR(status.st_mode):
        yield path, status
        return

    def report(reason: OSError) -> None:
        on_problem(CaptureError(f"{capture_name(str(reason.filename))}: cannot be read: {reason.strerror}"))

    n_captures = 0
    for directory, subdirectories, names in os.walk(path, onerror=report):
        subdirectories.sort()
        for name in sorted(names):
            file_path = os.path.join(directory, name)  # noqa: PTH118 - keeps a leading ./ as the user wrote it
            try:
                status = Path(file_path).stat()
            except OSError as reason:
                report(reason)
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size > 0 and _may_be_capture(file_path):
                n_captures += 1
                yield file_path, status
    if n_captures == 0:
        on_problem(CaptureError(f"{capture_name(path)}: a directory without captures"))


def _may_be_capture(path: str) -> bool:
    """Tell whether a file is a capture, or something that has to be reported as one."""
    try:
        CaptureReader(path, on_problem=lambda _: None, max_batch_frames=1, buffer_bytes=0).close()
    except NotACaptureError:
        return False
    except CaptureError:
        return True
    return True
