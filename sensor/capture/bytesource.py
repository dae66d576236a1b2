"""The bytes of a capture, in order, in one reused u8 buffer; compressed files are unpacked on the way.

Files are read, not mapped. The records of a capture are a chain, each says where the next begins: in mapped
memory every step of it waits for main memory, while the copy into a buffer that stays in the cache streams
(``bench/capture_reading.py`` measures both). And to touch a mapped file that was cut kills the process.

One more compression is one more function, named in ``_UNPACKERS``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

import numpy as np

from sensor.errors import CaptureError, CaptureFormatError

#: Size of the buffer, unless a record needs more: holds thousands of frames, and stays in the cache.
BUFFER_BYTES: Final = 4 << 20
#: The most that is unpacked at a time; also what Linux lets anyone enlarge a pipe to.
CHUNK_BYTES: Final = 1 << 20
#: What is fed to a decompressor at a time: little, because its state is saved before each time.
PACKED_CHUNK_BYTES: Final = 64 << 10
#: Enough of a file to tell its format.
HEAD_BYTES: Final = 16

#: From chunks of a file as it is stored to chunks of what it holds; raises CaptureFormatError after the last
#: byte that can be had. The string is the file's name for that message.
Unpacker = Callable[[str, Iterator[bytes]], Iterator[bytes]]


class ByteSource:
    """A part of a capture's bytes, and the way to the next part.

    ``data[start:end]``, u8, is there and unread; ``base`` is the offset of ``data[0]`` in the (unpacked)
    capture. Whoever reads moves ``start``; all else is changed by ``refill`` alone.

    ``path``: a file, or ``-`` for standard input; ``name``: what messages call it. Raises CaptureError if it
    cannot be opened or is empty.
    """

    def __init__(self, path: str, name: str, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.name = name
        self.data = np.empty(max(buffer_bytes, HEAD_BYTES), np.uint8)
        self.start = 0
        self.end = 0
        self.base = 0
        self._file = _StoredFile(path, name)
        self._offset_note = ""
        self._readinto: Callable[[memoryview], int] = self._file.readinto
        try:
            head = self._file.head()
            if not head:
                raise CaptureFormatError(f"{name}: byte 0: the file is empty")
            unpacker = next((unpack for magic, unpack in _UNPACKERS.items() if head.startswith(magic)), None)
            if unpacker is not None:
                self._offset_note = " after unpacking"
                self._readinto = _Unpacked(unpacker(name, self._file.chunks())).readinto
        except BaseException:
            self._file.close()
            raise

    @property
    def unread(self) -> int:
        """Number of bytes in ``data[start:end]``."""
        return self.end - self.start

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read, in bytes as they are stored."""
        return self._file.n_bytes

    def refill(self, n_bytes: int) -> bool:
        """Have at least ``n_bytes`` unread bytes at hand; False if the capture ends before.

        Raises CaptureError where bytes are missing because they could not be read or unpacked.
        """
        if n_bytes <= self.unread:
            return True
        self._move_to_front(max(n_bytes, self.data.size))
        view = self.data.data
        while self.unread < n_bytes and (n := self._readinto(view[self.end :])) > 0:
            self.end += n
        return n_bytes <= self.unread

    def head(self, n_bytes: int) -> bytes:
        """Return a copy of the first ``n_bytes`` unread bytes, or of what is there of them."""
        return self.data[self.start : min(self.start + n_bytes, self.end)].tobytes()

    def format_error(self, reason: str) -> CaptureFormatError:
        """Return the error that names this capture, the offset of the first unread byte, and the reason."""
        return CaptureFormatError(f"{self.name}: byte {self.base + self.start}{self._offset_note}: {reason}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _move_to_front(self, buffer_bytes: int) -> None:
        unread = self.data[self.start : self.end]
        if buffer_bytes > self.data.size:
            self.data = np.empty(buffer_bytes, np.uint8)
        self.data[: unread.size] = unread  # NumPy looks after the overlap
        self.base += self.start
        self.start, self.end = 0, unread.size


class _StoredFile:
    """An open file's bytes as they are stored; ``n_bytes`` of them have been read so far."""

    def __init__(self, path: str, name: str) -> None:
        self.n_bytes = 0
        self._name = name
        self._head = b""
        try:
            self._fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as reason:
            raise CaptureError(f"{name}: cannot be opened: {reason.strerror}") from reason
        with contextlib.suppress(OSError):  # a pipe cannot
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        with contextlib.suppress(OSError):  # a file cannot; a larger pipe makes fewer and larger batches
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def head(self) -> bytes:
        """Return the first HEAD_BYTES, fewer if there are no more; they will be read again."""
        head = bytearray(HEAD_BYTES)
        n_head = 0
        while n_head < HEAD_BYTES and (n := self.readinto(memoryview(head)[n_head:])) > 0:
            n_head += n
        self._head = bytes(head[:n_head])
        return self._head

    def readinto(self, view: memoryview) -> int:
        """Read what is there, at most ``view`` (of HEAD_BYTES or more after ``head``); 0 at the end."""
        if self._head:
            n = len(self._head)
            view[:n] = self._head
            self._head = b""
            return n
        try:
            n = os.readv(self._fd, [view])
        except OSError as reason:
            raise CaptureError(
                f"{self._name}: byte {self.n_bytes}: cannot be read: {reason.strerror}"
            ) from reason
        self.n_bytes += n
        return n

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes, in pieces fit for an unpacker."""
        buffer = bytearray(PACKED_CHUNK_BYTES)
        while n := self.readinto(memoryview(buffer)):
            yield bytes(buffer[:n])

    def close(self) -> None:
        os.close(self._fd)


class _Unpacked:
    """Chunks, read like a file. What precedes a failure is read before the failure is raised."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._failure: CaptureError | None = None

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, but for the last time; return the number of bytes, 0 at the end."""
        n = 0
        while n < len(view) and (self._chunk or self._next_chunk()):
            taken = self._chunk[: len(view) - n]
            view[n : n + len(taken)] = taken
            self._chunk = self._chunk[len(taken) :]
            n += len(taken)
        if n == 0 and self._failure is not None:
            raise self._failure
        return n

    def _next_chunk(self) -> bool:
        if self._failure is None:
            try:
                for chunk in self._chunks:
                    if chunk:
                        self._chunk = memoryview(chunk)
                        return True
            except CaptureError as failure:
                self._failure = failure
        return False


def unpack_gzip(name: str, stored: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip (RFC 1952): any number of members, zeros between; at most CHUNK_BYTES at a time."""
    n_bytes = 0
    member = None
    for chunk in stored:
        n_bytes += len(chunk)
        rest = chunk
        while rest:
            if member is None:
                rest = rest.lstrip(b"\0")
                member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if rest else None
                continue
            before = member.copy()
            try:
                unpacked = member.decompress(rest, CHUNK_BYTES)
            except zlib.error as reason:
                n_good = yield from _unpack_bytewise(before, rest)
                at = n_bytes - len(rest) + n_good
                detail = str(reason).rpartition(": ")[2]
                raise CaptureFormatError(f"{name}: byte {at}: damaged gzip data: {detail}") from reason
            yield unpacked
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member = None
    if member is not None:
        raise CaptureFormatError(f"{name}: byte {n_bytes}: the file ends inside its gzip data")


def _unpack_bytewise(member: zlib._Decompress, rest: bytes) -> Generator[bytes, None, int]:
    """Unpack what precedes the damaged byte, and return its position: a call that fails keeps its output."""
    at = 0
    with contextlib.suppress(zlib.error):
        for at in range(len(rest)):
            yield member.decompress(rest[at : at + 1])
    return at


_UNPACKERS: Final[dict[bytes, Unpacker]] = {b"\x1f\x8b": unpack_gzip}
