"""Files that a run leaves behind: complete, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from sensor.errors import ConfigError, SensorError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names of standard output. The second one, opened as a file, would overwrite what is in a redirected output.
STANDARD_OUTPUT: Final = ("-", "/dev/stdout")


class OutputError(SensorError):
    """An output could not be written to the end: names the file and the reason."""


def is_special(path: str) -> bool:
    """Tell whether a path is standard output, a pipe or a device: it can be written but not replaced."""
    if path in STANDARD_OUTPUT:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class OutputFile:
    """A binary file, written beside its destination, that takes its name when it is complete.

    ``-`` is standard output; that, pipes and devices are written directly, and so is any file with
    ``as_it_comes``. The constructor raises ConfigError for a path that cannot be written, so that it shows
    before the work begins. As a context manager it commits, or discards on an exception.
    """

    stream: IO[bytes]

    def __init__(self, path: str, *, as_it_comes: bool = False) -> None:
        self._name: Final = visible(path)
        self._is_standard: Final = path in STANDARD_OUTPUT
        self._path: Final = Path(os.path.realpath(path))  # the target of a symbolic link, which stays one
        self._partial: Path | None = None
        try:
            if self._is_standard:
                self.stream = sys.stdout.buffer
            elif as_it_comes or is_special(path):
                self.stream = open(path, "wb")  # noqa: PTH123, SIM115 - held open for the run
            elif self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            else:
                partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
                self.stream = partial.open("xb")
                self._partial = partial
        except OSError as error:
            raise ConfigError(f"{self._name}: cannot be written: {error.strerror}") from None

    def commit(self) -> None:
        """Finish the file and give it its name; OutputError if that fails, BrokenPipeError of a pipe."""
        try:
            with self.writing():
                self._finish()
                if self._partial is not None:
                    self._partial.replace(self._path)
        except OutputError:
            self.discard()
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a failed write into OutputError, but for BrokenPipeError: nobody reads any more."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: cannot be written: {error.strerror}") from None

    def discard(self) -> None:
        """Drop what was written, as far as it can be taken back."""
        with contextlib.suppress(OSError):
            self._finish()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._is_standard:
            self.stream.flush()
        else:
            self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


class RewrittenFile:
    """A small file that is replaced as a whole whenever its content is new, so that it can be read at any time.

    What cannot be replaced (standard output, pipes, devices) gets the last content only, when the context ends
    without an exception. The constructor raises ConfigError for a path that cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._last: OutputFile | None = OutputFile(path)
        self._content = b""
        if not is_special(path):
            self._last.discard()
            self._last = None

    def write(self, content: bytes) -> None:
        """Make this the content; OutputError if that fails."""
        self._content = content
        if self._last is None:
            with OutputFile(self._path) as output, output.writing():
                output.stream.write(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._last is not None:
            with self._last as output:
                if kind is None:
                    with output.writing():
                        output.stream.write(self._content)
