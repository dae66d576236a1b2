"""pcapng files: any number of sections and interfaces, of any byte order and resolution.

Source: draft-ietf-opsawg-pcapng; blocks and fields are called as they are there. Blocks that hold no frame
(names, statistics, secrets, journals, custom and unknown ones) are passed over wherever they stand.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.capture.records import (
    DAMAGE,
    MAX_FRAME_BYTES,
    MAX_TS_NS,
    NS_PER_S,
    Indexed,
    IndexStatus,
    put_frame,
    read_u16,
    read_u32,
)
from sensor.jit import i64, inner, kernel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from sensor.capture.bytesource import ByteSource
    from sensor.capture.records import Bytes

#: Longest block that is held in memory at once; Wireshark's bound.
MAX_BLOCK_BYTES: Final = 16 << 20
#: Longest block by which a damaged file is found to go on: the longest frame, with room for its options.
MAX_SYNC_BLOCK_BYTES: Final = MAX_FRAME_BYTES + (64 << 10)
#: Interfaces of one section. Interface numbers of the obsolete packet block have 16 bits.
MAX_INTERFACES: Final = 1 << 16

_MAX_SECONDS: Final = MAX_TS_NS // NS_PER_S

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
_BLOCK_LAST_STANDARD: Final = 10  # decryption secrets; before it names, statistics, journal entries
_BLOCK_CUSTOM: Final = 0x0BAD
_BLOCK_CUSTOM_NOT_COPIED: Final = 0x40000BAD

_BLOCK_BYTES: Final = 12  # type, length, and the length again
_SECTION_BYTES: Final = 28  # without options
_INTERFACE_BYTES: Final = 20  # without options
_PACKET_BYTES: Final = 32  # the enhanced block and the obsolete one, without frame and options
_SIMPLE_PACKET_BYTES: Final = 16  # without the frame

_NO_LINK_TYPE: Final = -1  # of an interface whose description cannot be read: it has its number all the same
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
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
            return i64(MAX_TS_NS)
        seconds = (high << (32 - shift)) | (low >> shift)
        fraction_ns = ((low & ((1 << shift) - 1)) * NS_PER_S) >> shift
    else:
        seconds = high >> (shift - 32)
        fraction_high = high & ((1 << (shift - 32)) - 1)
        fraction_ns = (fraction_high * NS_PER_S + ((low * NS_PER_S) >> 32)) >> (shift - 32)
    if seconds > _MAX_SECONDS:
        return i64(MAX_TS_NS)
    return min(seconds * NS_PER_S + fraction_ns, MAX_TS_NS)


@inner
def _timestamp_ns(high: int, low: int, interface: Any) -> int:
    """Return ns since the epoch for a timestamp's two halves, between +-MAX_TS_NS."""
    multiply = i64(interface["multiply"])
    if interface["shift"] >= 0:
        ts_ns = _shifted(high, low, interface["shift"])
    elif interface["divide"] > 1:
        ts_ns = _divided(high, low, interface["divide"])
    elif high > 0x7FFFFFFF or ((high << 32) | low) > MAX_TS_NS // multiply:
        ts_ns = i64(MAX_TS_NS)
    else:
        ts_ns = ((high << 32) | low) * multiply
    return min(ts_ns + i64(interface["offset_ns"]), MAX_TS_NS)


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
        block_type = read_u32(data, pos, end, big_endian)
        if block_type == _BLOCK_SECTION:
            return row, pos, IndexStatus.SECTION, 0, last_ts_ns
        length = read_u32(data, pos + 4, end, big_endian)
        if length < _BLOCK_BYTES or length > MAX_BLOCK_BYTES or length % 4 != 0:
            return row, pos, IndexStatus.BLOCK_LENGTH, 0, last_ts_ns
        if length > end - pos:
            return row, pos, IndexStatus.NEED_BYTES, length, last_ts_ns
        block_end = pos + length
        if read_u32(data, block_end - 4, block_end, big_endian) != length:
            return row, pos, IndexStatus.BLOCK_TRAILER, 0, last_ts_ns
        if block_type == _BLOCK_INTERFACE:
            return row, pos, IndexStatus.INTERFACE, 0, last_ts_ns
        if block_type in (_BLOCK_ENHANCED_PACKET, _BLOCK_PACKET):
            if length < _PACKET_BYTES:
                return row, pos, IndexStatus.BLOCK_TOO_SHORT, 0, last_ts_ns
            if block_type == _BLOCK_PACKET:
                interface_id = read_u16(data, pos + 8, block_end, big_endian)
            else:
                interface_id = read_u32(data, pos + 8, block_end, big_endian)
            if interface_id >= interfaces.size or interfaces[interface_id]["link_type"] == _NO_LINK_TYPE:
                return row, pos, IndexStatus.NO_INTERFACE, 0, last_ts_ns
            captured_len = read_u32(data, pos + 20, block_end, big_endian)
            if captured_len > MAX_FRAME_BYTES:
                return row, pos, IndexStatus.FRAME_TOO_LONG, 0, last_ts_ns
            if captured_len > length - _PACKET_BYTES:
                return row, pos, IndexStatus.FRAME_BEYOND_BLOCK, 0, last_ts_ns
            interface = interfaces[interface_id]
            high = read_u32(data, pos + 12, block_end, big_endian)
            low = read_u32(data, pos + 16, block_end, big_endian)
            wire_len = read_u32(data, pos + 24, block_end, big_endian)
            last_ts_ns = _timestamp_ns(high, low, interface)
            put_frame(frames[row], pos + 28, last_ts_ns, captured_len, wire_len, interface["link_type"])
            row += 1
        elif block_type == _BLOCK_SIMPLE_PACKET:
            if length < _SIMPLE_PACKET_BYTES:
                return row, pos, IndexStatus.BLOCK_TOO_SHORT, 0, last_ts_ns
            if interfaces.size == 0 or interfaces[0]["link_type"] == _NO_LINK_TYPE:
                return row, pos, IndexStatus.NO_INTERFACE, 0, last_ts_ns
            interface = interfaces[0]
            wire_len = read_u32(data, pos + 8, block_end, big_endian)
            captured_len = min(wire_len, length - _SIMPLE_PACKET_BYTES)
            if interface["snaplen"] > 0:
                captured_len = min(captured_len, interface["snaplen"])
            if captured_len > MAX_FRAME_BYTES:
                return row, pos, IndexStatus.FRAME_TOO_LONG, 0, last_ts_ns
            put_frame(frames[row], pos + 12, last_ts_ns, captured_len, wire_len, interface["link_type"])
            row += 1
        pos = block_end
    return row, pos, IndexStatus.FULL, 0, last_ts_ns


@inner
def _is_sync_block(data: Bytes, pos: int, end: int, big_endian: bool) -> int:
    """Tell whether a block begins at ``pos`` by which a damaged file goes on: 1 yes, 0 no, else -bytes needed.

    It is of a known type, and its length stands at both of its ends; a section header may be of either byte
    order.
    """
    if end - pos < _BLOCK_BYTES:
        return -_BLOCK_BYTES
    block_type = read_u32(data, pos, end, big_endian)
    if block_type == _BLOCK_SECTION:
        big_endian = read_u32(data, pos + 8, end, True) == _BYTE_ORDER_MAGIC
        if not big_endian and read_u32(data, pos + 8, end, False) != _BYTE_ORDER_MAGIC:
            return 0
    elif (block_type < 1 or block_type > _BLOCK_LAST_STANDARD) and block_type not in (
        _BLOCK_CUSTOM,
        _BLOCK_CUSTOM_NOT_COPIED,
    ):
        return 0
    length = read_u32(data, pos + 4, end, big_endian)
    if length < _BLOCK_BYTES or length > MAX_SYNC_BLOCK_BYTES or length % 4 != 0:
        return 0
    if length > end - pos:
        return -length
    return 1 if read_u32(data, pos + length - 4, end, big_endian) == length else 0


@kernel
def search_pcapng(data: Bytes, start: int, end: int, big_endian: bool, is_end: bool) -> tuple[int, bool, int]:
    """Search ``data[start:end]`` for a block by which the file goes on; ``is_end``: nothing follows.

    What may become one with more bytes does not hide one behind it: see ``search_pcap``.
    Returns (position of the block, or of the first byte that is not searched; whether it was found; bytes
    needed there to tell).
    """
    open_pos, n_needed = end, _BLOCK_BYTES
    for pos in range(start, end):
        found = _is_sync_block(data, pos, end, big_endian)
        if found == 1:
            return pos, True, 0
        if found < 0 and not is_end and open_pos == end:
            open_pos, n_needed = pos, -found
    return open_pos, False, n_needed


class Pcapng:
    """A pcapng file; see Format."""

    def __init__(self, source: ByteSource) -> None:
        """Read the first section header. Raises CaptureFormatError if there is none that can be read."""
        source.demand(_BLOCK_BYTES)
        self._layout = "<"
        self._last_ts_ns = 0
        self._n_interfaces = 0
        self._interfaces = np.zeros(8, INTERFACE_DTYPE)
        self._link_types: set[int] = set()
        n_needed, damage = self._read_section(source)
        if damage:
            raise source.format_error(damage)
        source.demand(n_needed)
        if n_needed > 0:
            _, damage = self._read_section(source)
            if damage:
                raise source.format_error(damage)

    @property
    def link_types(self) -> Collection[int]:
        """See Format."""
        return self._link_types

    def index(self, source: ByteSource, frames: NDArray[Any]) -> Indexed:
        """See Format."""
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
            damage = DAMAGE.get(status, "")
            if n_rows == 0 and status == IndexStatus.SECTION:
                n_needed, damage = self._read_section(source)
            elif n_rows == 0 and status == IndexStatus.INTERFACE:
                n_needed, damage = 0, self._read_interface(source)
            if n_rows > 0 or n_needed > 0 or damage:
                return Indexed(n_rows, n_needed, "" if n_rows else damage)

    def leave_damage(self, source: ByteSource) -> None:
        """See Format. A block that is whole is passed over as a whole."""
        head = source.head(_BLOCK_BYTES)
        if len(head) == _BLOCK_BYTES:
            block_type, length = struct.unpack_from(f"{self._layout}II", head)
            if block_type == _BLOCK_INTERFACE:
                self._add_interface((_NO_LINK_TYPE, 0, 1, 1, -1, 0))
            is_possible = _BLOCK_BYTES <= length <= source.unread and length % 4 == 0
            if is_possible and source.head(length)[-4:] == head[4:8]:
                source.start += length
                return
        source.start += 1

    def search(self, source: ByteSource, *, is_end: bool) -> tuple[bool, int]:
        """See Format."""
        source.start, is_found, n_needed = search_pcapng(
            source.data, source.start, source.end, self._layout == ">", is_end
        )
        return is_found, n_needed

    def _read_section(self, source: ByteSource) -> tuple[int, str]:
        """Read a section header, of which at least 12 bytes are there; the section before is over.

        Returns (bytes needed if it is not there as a whole, what is wrong with it).
        """
        magic = source.head(_BLOCK_BYTES)[8:]
        self._last_ts_ns = 0
        self._n_interfaces = 0
        if magic not in _BYTE_ORDERS:
            return 0, f"a section header with the byte-order magic {magic.hex()}"
        self._layout = _BYTE_ORDERS[magic]
        (length,) = struct.unpack_from(f"{self._layout}I", source.head(_BLOCK_BYTES), 4)
        if length < _SECTION_BYTES or length > MAX_BLOCK_BYTES or length % 4 != 0:
            return 0, DAMAGE[IndexStatus.BLOCK_LENGTH]
        if length > source.unread:
            return length, ""
        header = source.head(length)
        if struct.unpack_from(f"{self._layout}I", header, length - 4) != (length,):
            return 0, DAMAGE[IndexStatus.BLOCK_TRAILER]
        major, minor = struct.unpack_from(f"{self._layout}HH", header, 12)
        if major != 1:
            return 0, f"pcapng of version {major}.{minor} is not read, only 1.x"
        source.start += length
        return 0, ""

    def _read_interface(self, source: ByteSource) -> str:
        """Read an interface description, which is there as a whole; return what is wrong with it."""
        (length,) = struct.unpack_from(f"{self._layout}I", source.head(_BLOCK_BYTES), 4)
        if length < _INTERFACE_BYTES:
            return DAMAGE[IndexStatus.BLOCK_TOO_SHORT]
        if self._n_interfaces == MAX_INTERFACES:
            return f"more than {MAX_INTERFACES} interfaces in one section"
        try:
            row = _interface_row(source.head(length), self._layout)
        except ValueError as reason:
            return str(reason)
        self._add_interface(row)
        self._link_types.add(row[0])
        source.start += length
        return ""

    def _add_interface(self, row: tuple[int, ...]) -> None:
        if self._n_interfaces == MAX_INTERFACES:
            return
        if self._n_interfaces == self._interfaces.size:
            self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
        self._interfaces[self._n_interfaces] = row
        self._n_interfaces += 1


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
            offset_ns = max(-MAX_TS_NS, min(seconds * NS_PER_S, MAX_TS_NS))
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
