"""The bytes of a capture, in order, in one reused u8 buffer; compressed files are unpacked on the way.

Files are read, not mapped. The records of a capture are a chain, each says where the next begins: in mapped
memory every step of it waits for main memory, while the copy into a buffer that stays in the cache streams
(``bench/capture_reading.py`` measures both). And to touch a mapped file that was cut kills the process.

One more compression is one more entry in ``_UNPACKERS``. However much a packed file claims to hold, no more of it
is unpacked at a time than CHUNK_BYTES, and no decoder gets more memory than MAX_DECODER_BYTES.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Final, Protocol

import numpy as np

from sensor.errors import CaptureError, CaptureFormatError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Size of the buffer, unless a record needs more: holds thousands of frames, and stays in the cache.
BUFFER_BYTES: Final = 4 << 20
#: The most that is unpacked at a time; also what Linux lets anyone enlarge a pipe to.
CHUNK_BYTES: Final = 1 << 20
#: What is fed to a decompressor at a time: little, because its state is saved before each time.
PACKED_CHUNK_BYTES: Final = 64 << 10
#: The same where the state cannot be saved: what it holds is lost where the data are damaged.
MEMBER_CHUNK_BYTES: Final = 4 << 10
#: What a decoder may take to unpack a file, for its window most of all: xz -9 needs 65 MiB, zstd --ultra 128.
MAX_DECODER_BYTES: Final = 128 << 20
_MAX_WINDOW_LOG: Final = MAX_DECODER_BYTES.bit_length() - 1
#: Enough of a file to tell its format.
HEAD_BYTES: Final = 16

#: From chunks of a file as it is stored to chunks of what it holds; raises CaptureFormatError after the last
#: byte that can be had. The string is the file's name for that message.
Unpacker = Callable[[str, Iterator[bytes]], Iterator[bytes]]


class CutOffError(CaptureFormatError):
    """A capture ends inside its header or a record: what is missing may be written yet."""


class ByteSource:
    """A part of a capture's bytes, and the way to the next part.

    ``data[start:end]``, u8, is there and unread; ``base`` is the offset of ``data[0]`` in the (unpacked)
    capture. Whoever reads moves ``start``; all else is changed by ``refill`` alone. ``is_packed``: the file is
    compressed.

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
                raise CutOffError(f"{name}: byte 0: the file is empty")
            unpacker = next((unpack for magic, unpack in _UNPACKERS.items() if head.startswith(magic)), None)
            self.is_packed = unpacker is not None
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
    def offset(self) -> int:
        """Where the first unread byte lies in the (unpacked) capture."""
        return self.base + self.start

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

    def demand(self, n_bytes: int) -> None:
        """Have at least ``n_bytes`` unread bytes at hand. Raises CutOffError if the capture ends before."""
        if not self.refill(n_bytes):
            raise self.cut_error(n_bytes)

    def prefetch(self, n_bytes: int) -> None:
        """Have ``n_bytes`` at hand if the capture has them; nothing is waited for if it is a pipe.

        What cannot be read is complained of when it is its turn.
        """
        if self._file.is_regular:
            with contextlib.suppress(CaptureError):
                self.refill(n_bytes)

    def head(self, n_bytes: int) -> bytes:
        """Return a copy of the first ``n_bytes`` unread bytes, or of what is there of them."""
        return self.data[self.start : min(self.start + n_bytes, self.end)].tobytes()

    def format_error(self, reason: str) -> CaptureFormatError:
        """Return the error that names this capture, the offset of the first unread byte, and the reason."""
        return CaptureFormatError(f"{self.name}: byte {self.offset}{self._offset_note}: {reason}")

    def file_status(self) -> os.stat_result:
        """Return what the system knows of the file now."""
        return self._file.status()

    def first_bytes(self, n_bytes: int) -> bytes:
        """Return the stored file's first bytes, as they are now; it must not be a pipe."""
        return self._file.first_bytes(n_bytes)

    def cut_error(self, n_needed: int) -> CutOffError:
        """Return the error that says that ``n_needed`` bytes should follow and do not."""
        reason = f"the capture ends here: {self.unread} of {n_needed} bytes are there"
        return CutOffError(str(self.format_error(reason)))

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
    """An open file's bytes as they are stored; ``n_bytes`` of them have been read so far.

    ``is_regular``: it is neither a pipe nor a device.
    """

    def __init__(self, path: str, name: str) -> None:
        self.n_bytes = 0
        self._name = name
        self._head = b""
        try:
            self._fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as reason:
            raise CaptureError(f"{name}: cannot be opened: {reason.strerror}") from reason
        self.is_regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
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

    def status(self) -> os.stat_result:
        """Return what the system knows of the file now."""
        return os.fstat(self._fd)

    def first_bytes(self, n_bytes: int) -> bytes:
        """Return the first bytes, as they are now; it must not be a pipe."""
        return os.pread(self._fd, n_bytes, 0)

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


class _Member(Protocol):
    """One of the packed parts that a file consists of; what the standard library's decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _new_xz_member() -> _Member:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_DECODER_BYTES)


def _new_zstd_member() -> _Member:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})


#: What the decompressors raise; bz2's OSError has no class of its own.
_MEMBER_ERRORS: Final = (lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError, MemoryError)
#: How they say that a file asks for more memory than it gets.
_MEMORY_COMPLAINTS: Final = ("Memory usage limit exceeded", "too much memory")


def _unpack_members(
    kind: str, new_member: Callable[[], _Member], name: str, stored: Iterator[bytes]
) -> Iterator[bytes]:
    """Unpack any number of members, zeros between; at most CHUNK_BYTES at a time."""
    n_bytes = 0
    member: _Member | None = None
    for chunk in stored:
        for at in range(0, len(chunk), MEMBER_CHUNK_BYTES):
            rest = chunk[at : at + MEMBER_CHUNK_BYTES]
            while rest or (member is not None and not member.needs_input):
                if member is None:
                    rest = rest.lstrip(b"\0")
                    member = new_member() if rest else None
                    continue
                try:
                    unpacked = member.decompress(rest, CHUNK_BYTES)
                except _MEMBER_ERRORS as reason:
                    raise CaptureFormatError(f"{name}: {_complaint(kind, n_bytes + at, reason)}") from reason
                yield unpacked
                rest = member.unused_data if member.eof else b""
                if member.eof:
                    member = None
        n_bytes += len(chunk)
    if member is not None:
        raise CaptureFormatError(f"{name}: byte {n_bytes}: the file ends inside its {kind} data")


def _complaint(kind: str, at: int, reason: Exception) -> str:
    if any(words in str(reason) for words in _MEMORY_COMPLAINTS):
        limit = f"{MAX_DECODER_BYTES >> 20} MiB"
        return f"byte {at}: {kind} data that take more than {limit} to unpack are not read: unpack the file first"
    return f"byte {at}: damaged {kind} data: {str(reason).rpartition(': ')[2].rstrip('.')}"


_UNPACKERS: Final[dict[bytes, Unpacker]] = {
    b"\x1f\x8b": unpack_gzip,
    b"\xfd7zXZ\0": partial(_unpack_members, "xz", _new_xz_member),
    b"\x28\xb5\x2f\xfd": partial(_unpack_members, "zstd", _new_zstd_member),
    b"BZh": partial(_unpack_members, "bzip2", bz2.BZ2Decompressor),
}
