"""The state directory: made for the user that we become, held by one sensor, its files replaced as wholes."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sensor.errors import ConfigError, StateError
from sensor.notation import visible

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterable
    from pathlib import Path

CHECKPOINT: Final = "checkpoint"
DATABASE: Final = "state.db"
_LOCK: Final = "lock"


def make_directory(path: Path, user: pwd.struct_passwd) -> None:
    """Make the directory if there is none; as root, for ``user``. ConfigError if that fails."""
    try:
        path.mkdir(mode=0o750)
    except FileExistsError:
        return
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)


class DirectoryLock:
    """Holds a directory for as long as this process has it, whatever ends the process.

    ConfigError if we may not write there, StateError if another sensor holds it.
    """

    def __init__(self, directory: Path) -> None:
        try:
            is_directory = directory.is_dir()
        except OSError as error:
            raise _unusable(directory, error.strerror) from None
        if not is_directory:
            raise _unusable(directory, "not a directory")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(directory, f"user {os.geteuid()} may not write there")
        try:
            self._fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _unusable(directory, error.strerror) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise StateError(f"{visible(str(directory))}: another sensor keeps its state there") from None

    def release(self) -> None:
        """Let others have the directory."""
        os.close(self._fd)


def _unusable(directory: Path, reason: str | None) -> ConfigError:
    return ConfigError(f"--state {visible(str(directory))}: cannot be used: {reason}")


def replace_file(path: Path, chunks: Iterable[Any]) -> None:
    """Make ``chunks`` of bytes the content of a file: all of them, or what was there before. OSError if that fails.

    When this returns, the content is on the disk. Only one process may do so at a time.
    """
    partial = path.with_name(f".{path.name}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: Path, now_ns: int, also: Iterable[Path] = ()) -> str:
    """Rename a file that cannot be used, and those that belong to it, by the time; return what it is called now."""
    suffix = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime(".unusable-%Y%m%dT%H%M%SZ")
    try:
        for file in (path, *also):
            if file.exists():
                file.rename(file.with_name(file.name + suffix))
    except OSError as error:
        raise StateError(f"{visible(str(path))}: cannot be used, nor be renamed: {error.strerror}") from None
    return path.name + suffix
