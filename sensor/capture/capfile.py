"""Capture files: pcap and pcapng of any byte order and resolution.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; blocks and fields are called as they are there.

A kernel walks the records in the buffer and notes where each frame lies; frames are not copied. What occurs
once per file, section or interface is read in Python. A further format is one more entry in ``_FORMATS``.
"""

from __future__ import annotations

import string
import struct
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from sensor.capture.bytesource import BUFFER_BYTES, HEAD_BYTES, ByteSource
from sensor.capture.frames import FRAME_DTYPE, FrameBatch
from sensor.errors import CaptureFormatError
from sensor.jit import inner, kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

    def _int64(value: Any) -> int: ...  # what NumPy's int64 is to the rest of the program

else:
    _int64 = np.int64

#: Frames of one batch, at most.
MAX_BATCH_FRAMES: Final = 8192
#: Longest frame: what tcpdump and Wireshark allow on networks, four times the largest IP packet. A length
#: beyond it is a damaged record; to follow it would lead into the middle of other records.
MAX_FRAME_BYTES: Final = 256 << 10
#: Longest pcapng block that is held in memory at once; Wireshark's bound.
MAX_BLOCK_BYTES: Final = 16 << 20
#: Interfaces of one pcapng section. Interface numbers of the obsolete packet block have 16 bits.
MAX_INTERFACES: Final = 1 << 16
#: Latest time that is told apart (year 2116): it leaves room to add to any timestamp without overflow.
MAX_TS_NS: Final = (1 << 62) - 1

_NS_PER_S: Final = 1_000_000_000
_MAX_SECONDS: Final = MAX_TS_NS // _NS_PER_S


class NotACaptureError(CaptureFormatError):
    """The file begins like no capture format that we know, not even like one that we cannot read."""


class IndexStatus(IntEnum):
    """Why an index kernel stopped."""

    FULL = 0  # no row is left
    NEED_BYTES = 1  # the next record is not there, or not there completely
    SECTION = 2  # a section header, complete or not
    INTERFACE = 3  # a complete interface description
    FRAME_TOO_LONG = 4  # the captured length is beyond MAX_FRAME_BYTES
    BLOCK_LENGTH = 5  # a block is too short for its type, no multiple of 4 bytes, or beyond MAX_BLOCK_BYTES
    BLOCK_TRAILER = 6  # a block's two lengths differ
    FRAME_BEYOND_BLOCK = 7  # the captured length is larger than the block
    NO_INTERFACE = 8  # a frame of an interface that was not described


_REASONS: Final = {
    IndexStatus.FRAME_TOO_LONG: f"a frame of more than {MAX_FRAME_BYTES} bytes: the record is damaged",
    IndexStatus.BLOCK_LENGTH: "a block of impossible length",
    IndexStatus.BLOCK_TRAILER: "the length of a block and its repetition at its end differ",
    IndexStatus.FRAME_BEYOND_BLOCK: "a frame longer than the block that holds it",
    IndexStatus.NO_INTERFACE: "a frame of an interface that is not described before it",
}

# --- reading integers ---------------------------------------------------------------------------------------
# The discipline of decode/wire.py, a layer above: the caller's own end, -1 for "not there", int64 throughout.


@inner
def _read_u32(data: Bytes, pos: int, end: int, big_endian: bool) -> int:
    """Read 32 bits in the file's byte order, or -1."""
    if pos < 0 or end - pos < 4:
        return _int64(-1)
    a, b = _int64(data[pos]), _int64(data[pos + 1])
    c, d = _int64(data[pos + 2]), _int64(data[pos + 3])
    if big_endian:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@inner
def _read_u16(data: Bytes, pos: int, end: int, big_endian: bool) -> int:
    """Read 16 bits in the file's byte order, or -1."""
    if pos < 0 or end - pos < 2:
        return _int64(-1)
    a, b = _int64(data[pos]), _int64(data[pos + 1])
    if big_endian:
        return (a << 8) | b
    return (b << 8) | a


@inner
def _put_frame(frame: Any, offset: int, ts_ns: int, captured_len: int, wire_len: int, link_type: int) -> None:
    """Fill a row of FRAME_DTYPE. A wire length below the captured one (some write 0) is lifted to it."""
    frame["offset"] = offset
    frame["ts_ns"] = ts_ns
    frame["captured_len"] = captured_len
    frame["wire_len"] = min(max(wire_len, captured_len), 0x7FFFFFFF)
    frame["link_type"] = link_type
    frame["reserved"] = 0


# --- pcap ---------------------------------------------------------------------------------------------------

_PCAP_HEADER_BYTES: Final = 24
_PCAP_RECORD_BYTES: Final = 16  # without the frame


@kernel
def index_pcap(
    data: Bytes,
    start: int,
    end: int,
    big_endian: bool,
    ns_per_fraction: int,
    link_type: int,
    frames: NDArray[Any],
) -> tuple[int, int, IndexStatus, int]:
    """Index the records of ``data[start:end]``.

    ``frames``: FRAME_DTYPE[n], out. ``ns_per_fraction``: unit of the timestamps' second half, in ns.
    Returns (rows filled, position of the first record that is not indexed, IndexStatus, bytes needed there).
    """
    pos, row = start, 0
    while row < frames.size:
        if end - pos < _PCAP_RECORD_BYTES:
            return row, pos, IndexStatus.NEED_BYTES, _PCAP_RECORD_BYTES
        captured_len = _read_u32(data, pos + 8, end, big_endian)
        if captured_len > MAX_FRAME_BYTES:
            return row, pos, IndexStatus.FRAME_TOO_LONG, 0
        if captured_len > end - pos - _PCAP_RECORD_BYTES:
            return row, pos, IndexStatus.NEED_BYTES, _PCAP_RECORD_BYTES + captured_len
        seconds = _read_u32(data, pos, end, big_endian)
        fraction = _read_u32(data, pos + 4, end, big_endian)
        wire_len = _read_u32(data, pos + 12, end, big_endian)
        pos += _PCAP_RECORD_BYTES
        ts_ns = min(seconds * _NS_PER_S + fraction * ns_per_fraction, MAX_TS_NS)
        _put_frame(frames[row], pos, ts_ns, captured_len, wire_len, link_type)
        pos += captured_len
        row += 1
    return row, pos, IndexStatus.FULL, 0


# --- pcapng -------------------------------------------------------------------------------------------------

#: What the kernel knows of an interface. A timestamp counts units of ``multiply`` ns, or of 1/``divide`` ns,
#: or, where ``shift`` >= 0, of 2**-shift s; ``offset_ns`` is added. ``snaplen``: bytes; 0 is no limit.
INTERFACE_DTYPE: Final = np.dtype(
    [
        ("link_type", np.int64),
        ("snaplen", np.int64),
        ("multiply", np.int64),
        ("divide", np.int64),
        ("shift", np.int64),
        ("offset_ns", np.int64),
    ]
)

_BLOCK_SECTION: Final = 0x0A0D0D0A  # reads the same in both byte orders
_BLOCK_INTERFACE: Final = 1
_BLOCK_PACKET: Final = 2  # obsolete
_BLOCK_SIMPLE_PACKET: Final = 3
_BLOCK_ENHANCED_PACKET: Final = 6

_BLOCK_BYTES: Final = 12  # type, length, and the length again
_SECTION_BYTES: Final = 28  # without options
_INTERFACE_BYTES: Final = 20  # without options
_PACKET_BYTES: Final = 32  # the enhanced block and the obsolete one, without frame and options
_SIMPLE_PACKET_BYTES: Final = 16  # without the frame

_BYTE_ORDERS: Final = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
_OPTION_END: Final = 0
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14
_MAX_DECIMAL_RESOLUTION: Final = 18
_MAX_BINARY_RESOLUTION: Final = 63


@inner
def _divided(high: int, low: int, divide: int) -> int:
    """Return the unsigned 64-bit ``high:low`` divided by ``divide``, 10 to 10**9: less than MAX_TS_NS."""
    return ((high // divide) << 32) + (((high % divide) << 32) | low) // divide


@inner
def _shifted(high: int, low: int, shift: int) -> int:
    """Return the unsigned 64-bit ``high:low``, in units of 2**-shift s, in whole ns; at most MAX_TS_NS."""
    if shift <= 32:
        if high > _MAX_SECONDS >> (32 - shift):
            return _int64(MAX_TS_NS)
        seconds = (high << (32 - shift)) | (low >> shift)
        fraction_ns = ((low & ((1 << shift) - 1)) * _NS_PER_S) >> shift
    else:
        seconds = high >> (shift - 32)
        fraction_high = high & ((1 << (shift - 32)) - 1)
        fraction_ns = (fraction_high * _NS_PER_S + ((low * _NS_PER_S) >> 32)) >> (shift - 32)
    if seconds > _MAX_SECONDS:
        return _int64(MAX_TS_NS)
    return min(seconds * _NS_PER_S + fraction_ns, MAX_TS_NS)


@inner
def _timestamp_ns(high: int, low: int, interface: Any) -> int:
    """Return ns since the epoch for a timestamp's two halves, between +-MAX_TS_NS."""
    multiply = _int64(interface["multiply"])
    if interface["shift"] >= 0:
        ts_ns = _shifted(high, low, interface["shift"])
    elif interface["divide"] > 1:
        ts_ns = _divided(high, low, interface["divide"])
    elif high > 0x7FFFFFFF or ((high << 32) | low) > MAX_TS_NS // multiply:
        ts_ns = _int64(MAX_TS_NS)
    else:
        ts_ns = ((high << 32) | low) * multiply
    return min(ts_ns + _int64(interface["offset_ns"]), MAX_TS_NS)


@kernel
def index_pcapng(
    data: Bytes,
    start: int,
    end: int,
    big_endian: bool,
    interfaces: NDArray[Any],
    last_ts_ns: int,
    frames: NDArray[Any],
) -> tuple[int, int, IndexStatus, int, int]:
    """Index the blocks of ``data[start:end]`` up to the next section header or interface description.

    ``interfaces``: INTERFACE_DTYPE[n], those described so far; ``last_ts_ns``: timestamp of the section's
    last frame, which a frame without one takes over; ``frames``: FRAME_DTYPE[n], out.
    Returns (rows filled, position of the first block that is not indexed, IndexStatus, bytes needed there,
    last_ts_ns).
    """
    pos, row = start, 0
    while row < frames.size:
        if end - pos < _BLOCK_BYTES:
            return row, pos, IndexStatus.NEED_BYTES, _BLOCK_BYTES, last_ts_ns
        block_type = _read_u32(data, pos, end, big_endian)
        if block_type == _BLOCK_SECTION:
            return row, pos, IndexStatus.SECTION, 0, last_ts_ns
        length = _read_u32(data, pos + 4, end, big_endian)
        if length < _BLOCK_BYTES or length > MAX_BLOCK_BYTES or length % 4 != 0:
            return row, pos, IndexStatus.BLOCK_LENGTH, 0, last_ts_ns
        if length > end - pos:
            return row, pos, IndexStatus.NEED_BYTES, length, last_ts_ns
        block_end = pos + length
        if _read_u32(data, block_end - 4, block_end, big_endian) != length:
            return row, pos, IndexStatus.BLOCK_TRAILER, 0, last_ts_ns
        if block_type == _BLOCK_INTERFACE:
            return row, pos, IndexStatus.INTERFACE, 0, last_ts_ns
        if block_type in (_BLOCK_ENHANCED_PACKET, _BLOCK_PACKET):
            if length < _PACKET_BYTES:
                return row, pos, IndexStatus.BLOCK_LENGTH, 0, last_ts_ns
            if block_type == _BLOCK_PACKET:
                interface_id = _read_u16(data, pos + 8, block_end, big_endian)
            else:
                interface_id = _read_u32(data, pos + 8, block_end, big_endian)
            if interface_id >= interfaces.size:
                return row, pos, IndexStatus.NO_INTERFACE, 0, last_ts_ns
            captured_len = _read_u32(data, pos + 20, block_end, big_endian)
            if captured_len > MAX_FRAME_BYTES:
                return row, pos, IndexStatus.FRAME_TOO_LONG, 0, last_ts_ns
            if captured_len > length - _PACKET_BYTES:
                return row, pos, IndexStatus.FRAME_BEYOND_BLOCK, 0, last_ts_ns
            interface = interfaces[interface_id]
            high = _read_u32(data, pos + 12, block_end, big_endian)
            low = _read_u32(data, pos + 16, block_end, big_endian)
            wire_len = _read_u32(data, pos + 24, block_end, big_endian)
            last_ts_ns = _timestamp_ns(high, low, interface)
            _put_frame(frames[row], pos + 28, last_ts_ns, captured_len, wire_len, interface["link_type"])
            row += 1
        elif block_type == _BLOCK_SIMPLE_PACKET:
            if length < _SIMPLE_PACKET_BYTES:
                return row, pos, IndexStatus.BLOCK_LENGTH, 0, last_ts_ns
            if interfaces.size == 0:
                return row, pos, IndexStatus.NO_INTERFACE, 0, last_ts_ns
            interface = interfaces[0]
            wire_len = _read_u32(data, pos + 8, block_end, big_endian)
            captured_len = min(wire_len, length - _SIMPLE_PACKET_BYTES)
            if interface["snaplen"] > 0:
                captured_len = min(captured_len, interface["snaplen"])
            if captured_len > MAX_FRAME_BYTES:
                return row, pos, IndexStatus.FRAME_TOO_LONG, 0, last_ts_ns
            _put_frame(frames[row], pos + 12, last_ts_ns, captured_len, wire_len, interface["link_type"])
            row += 1
        pos = block_end
    return row, pos, IndexStatus.FULL, 0, last_ts_ns


# --- the formats, seen from Python --------------------------------------------------------------------------


class _Format(Protocol):
    """Has read a format's header, and has a kernel index its records."""

    def index(self, source: ByteSource, frames: NDArray[Any]) -> tuple[int, int]:
        """Index unread bytes into ``frames``, pass over them; return (rows filled, bytes needed to go on).

        Raises CaptureFormatError only if it has filled no row: what precedes a damage is handed out first.
        """


class _Pcap:
    def __init__(self, source: ByteSource, *, layout: str, ns_per_fraction: int) -> None:
        if not source.refill(_PCAP_HEADER_BYTES):
            raise _cut_error(source, _PCAP_HEADER_BYTES)
        header = source.head(_PCAP_HEADER_BYTES)
        _, major, minor, _, _, _, link_field = struct.unpack(f"{layout}IHHIIII", header)
        if major != 2 or minor < 3:  # before 2.3 the two lengths of a record stood in the other order
            raise source.format_error(f"pcap of version {major}.{minor} is not read, only 2.3 and 2.4")
        self._big_endian = layout == ">"
        self._ns_per_fraction = ns_per_fraction
        self._link_type = link_field & 0x03FFFFFF  # above are the length of the FCS and its flag
        source.start += len(header)

    def index(self, source: ByteSource, frames: NDArray[Any]) -> tuple[int, int]:
        """See _Format."""
        n_rows, source.start, status, n_needed = index_pcap(
            source.data,
            source.start,
            source.end,
            self._big_endian,
            self._ns_per_fraction,
            self._link_type,
            frames,
        )
        if n_rows == 0 and status in _REASONS:
            raise source.format_error(_REASONS[status])
        return n_rows, n_needed


class _Pcapng:
    def __init__(self, source: ByteSource) -> None:
        if not source.refill(_BLOCK_BYTES):
            raise _cut_error(source, _BLOCK_BYTES)
        self._layout = "<"
        self._last_ts_ns = 0
        self._n_interfaces = 0
        self._interfaces = np.zeros(8, INTERFACE_DTYPE)
        self._read_section(source)

    def index(self, source: ByteSource, frames: NDArray[Any]) -> tuple[int, int]:
        """See _Format."""
        while True:
            n_rows, source.start, status, n_needed, self._last_ts_ns = index_pcapng(
                source.data,
                source.start,
                source.end,
                self._layout == ">",
                self._interfaces[: self._n_interfaces],
                self._last_ts_ns,
                frames,
            )
            if n_rows > 0 or status == IndexStatus.NEED_BYTES:
                return n_rows, n_needed
            if status == IndexStatus.SECTION:
                self._read_section(source)
            elif status == IndexStatus.INTERFACE:
                self._read_interface(source)
            else:
                raise source.format_error(_REASONS[status])

    def _read_section(self, source: ByteSource) -> None:
        """Read a section header, of which at least 12 bytes are there; the section before is over."""
        magic = source.head(_BLOCK_BYTES)[8:]
        if magic not in _BYTE_ORDERS:
            raise source.format_error(f"a section header with the byte-order magic {magic.hex()}")
        self._layout = _BYTE_ORDERS[magic]
        self._last_ts_ns = 0
        self._n_interfaces = 0
        header = self._next_block(source, _SECTION_BYTES)
        major, minor = struct.unpack_from(f"{self._layout}HH", header, 12)
        if major != 1:
            raise source.format_error(f"pcapng of version {major}.{minor} is not read, only 1.x")
        source.start += len(header)

    def _read_interface(self, source: ByteSource) -> None:
        """Read an interface description, which is there as a whole."""
        block = self._next_block(source, _INTERFACE_BYTES)
        if self._n_interfaces == MAX_INTERFACES:
            raise source.format_error(f"more than {MAX_INTERFACES} interfaces in one section")
        if self._n_interfaces == self._interfaces.size:
            self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
        try:
            self._interfaces[self._n_interfaces] = _interface_row(block, self._layout)
        except ValueError as reason:
            raise source.format_error(str(reason)) from reason
        self._n_interfaces += 1
        source.start += len(block)

    def _next_block(self, source: ByteSource, min_bytes: int) -> bytes:
        """Return the next block, whole and checked, but do not pass over it; at least 12 bytes are there."""
        (length,) = struct.unpack_from(f"{self._layout}I", source.head(_BLOCK_BYTES), 4)
        if length < min_bytes or length > MAX_BLOCK_BYTES or length % 4 != 0:
            raise source.format_error(_REASONS[IndexStatus.BLOCK_LENGTH])
        if not source.refill(length):
            raise _cut_error(source, length)
        block = source.head(length)
        if struct.unpack_from(f"{self._layout}I", block, length - 4) != (length,):
            raise source.format_error(_REASONS[IndexStatus.BLOCK_TRAILER])
        return block


def _interface_row(block: bytes, layout: str) -> tuple[int, ...]:
    """Return an interface description as a row of INTERFACE_DTYPE; ValueError says what is wrong with it."""
    link_type, _, snaplen = struct.unpack_from(f"{layout}HHI", block, 8)
    units = _timestamp_units(6)
    offset_ns = 0
    for code, value in _options(block[16:-4], layout):
        if code == _OPTION_TSRESOL and len(value) == 1:
            units = _timestamp_units(value[0])
        elif code == _OPTION_TSOFFSET and len(value) == 8:
            (seconds,) = struct.unpack(f"{layout}q", value)
            offset_ns = max(-MAX_TS_NS, min(seconds * _NS_PER_S, MAX_TS_NS))
    return link_type, snaplen, *units, offset_ns


def _options(options: bytes, layout: str) -> Iterator[tuple[int, bytes]]:
    """Yield (code, value) of a block's options up to the end mark."""
    pos = 0
    while len(options) - pos >= 4:
        code, length = struct.unpack_from(f"{layout}HH", options, pos)
        pos += 4
        if code == _OPTION_END:
            return
        if length > len(options) - pos:
            raise ValueError(f"option {code} of an interface is longer than its block")
        yield code, options[pos : pos + length]
        pos += length + -length % 4


def _timestamp_units(if_tsresol: int) -> tuple[int, int, int]:
    """Return INTERFACE_DTYPE's multiply, divide, shift for units of 10**-n s or, with the top bit, 2**-n s.

    ValueError for units so fine that 64 bits of them end within seconds of 1970.
    """
    exponent = if_tsresol & 0x7F
    if if_tsresol & 0x80:
        if exponent > _MAX_BINARY_RESOLUTION:
            raise ValueError(f"timestamps in units of 2**-{exponent} s, of which 64 bits make no date")
        return 1, 1, exponent
    if exponent > _MAX_DECIMAL_RESOLUTION:
        raise ValueError(f"timestamps in units of 10**-{exponent} s, of which 64 bits make no date")
    return 10 ** max(9 - exponent, 0), 10 ** max(exponent - 9, 0), -1


_FORMATS: Final[dict[bytes, Callable[[ByteSource], _Format]]] = {
    bytes.fromhex("d4c3b2a1"): partial(_Pcap, layout="<", ns_per_fraction=1000),
    bytes.fromhex("a1b2c3d4"): partial(_Pcap, layout=">", ns_per_fraction=1000),
    bytes.fromhex("4d3cb2a1"): partial(_Pcap, layout="<", ns_per_fraction=1),
    bytes.fromhex("a1b23c4d"): partial(_Pcap, layout=">", ns_per_fraction=1),
    bytes.fromhex("0a0d0d0a"): _Pcapng,
}

#: What people may take for a capture that we read, by how it begins.
_UNREAD_FORMATS: Final = {
    bytes.fromhex("34cdb2a1"): "modified pcap (Kuznetzov)",
    bytes.fromhex("a1b2cd34"): "modified pcap (Kuznetzov)",
    bytes.fromhex("4d3c2ba1"): "modified pcap (Navtel)",
    bytes.fromhex("a12b3c4d"): "modified pcap (Navtel)",
    bytes.fromhex("ac01001c"): "modified pcap (IXIA)",
    bytes.fromhex("1c0001ac"): "modified pcap (IXIA)",
    bytes.fromhex("ab01001c"): "modified pcap (IXIA)",
    bytes.fromhex("1c0001ab"): "modified pcap (IXIA)",
    b"snoop\0\0\0": "snoop",
    b"btsnoop\0": "btsnoop",
    b"iptrace ": "AIX iptrace",
    b"GMBU": "Microsoft Network Monitor",
    b"RTSS": "Microsoft Network Monitor",
    b"XCP\0": "NetXray",
    b"TRSNIFF data": "Sniffer",
    bytes.fromhex("1f8b"): "gzip within gzip",
    bytes.fromhex("28b52ffd"): "zstd",
    bytes.fromhex("fd377a585a00"): "xz",
    b"BZh": "bzip2",
    bytes.fromhex("04224d18"): "lz4",
    b"PK\x03\x04": "zip",
}


def _format_of(source: ByteSource) -> _Format:
    """Recognise the format by how the file begins, and read its header."""
    source.refill(HEAD_BYTES)
    head = source.head(HEAD_BYTES)
    if not head:
        raise source.format_error("there is nothing in it")
    for magic, open_format in _FORMATS.items():
        if head.startswith(magic):
            return open_format(source)
    for magic, name in _UNREAD_FORMATS.items():
        if head.startswith(magic):
            raise source.format_error(f"{name} is not read, only pcap and pcapng, as they are or in gzip")
    is_text = not head.translate(None, string.printable.encode())
    what = "it is plain text" if is_text else f"it begins with {head.hex()}"
    raise NotACaptureError(str(source.format_error(f"neither pcap nor pcapng: {what}")))


def _cut_error(source: ByteSource, n_needed: int) -> CaptureFormatError:
    return source.format_error(f"the capture ends here: {source.unread} of {n_needed} bytes are there")


class CaptureReader:
    """One capture file, opened; iterate once for its FrameBatches, in the order of the file.

    ``path``: a file, or ``-`` for standard input. Raises CaptureError if it cannot be opened,
    CaptureFormatError if it is no capture that we read. The iteration raises them after the last whole
    record: what could be read was handed out by then. Batches are borrowed until the next is asked for.
    """

    def __init__(
        self, path: str, *, max_batch_frames: int = MAX_BATCH_FRAMES, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._source = ByteSource(path, capture_name(path), buffer_bytes)
        self._max_batch_frames = max_batch_frames
        try:
            self._format = _format_of(self._source)
        except BaseException:
            self._source.close()
            raise

    def __iter__(self) -> Iterator[FrameBatch]:
        source = self._source
        frames = np.zeros(self._max_batch_frames, FRAME_DTYPE)
        while True:
            n_frames, n_needed = self._format.index(source, frames)
            if n_frames > 0:
                yield FrameBatch(source.data, frames[:n_frames])
            elif not source.refill(n_needed):
                break
        if source.unread > 0:
            raise _cut_error(source, n_needed)

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read, in bytes as they are stored."""
        return self._source.bytes_read

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def capture_name(path: str) -> str:
    """Return what messages call a capture: its path, made printable, or ``standard input``."""
    if path == "-":
        return "standard input"
    return path if path.isprintable() else ascii(path)
