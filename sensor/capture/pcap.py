"""pcap files: any byte order and resolution, and the variants that other programs made of the format.

Sources: draft-ietf-opsawg-pcap; for the variants, libpcap (sf-pcap.c) and Wireshark (wiretap/libpcap.c). The
records of all of them begin alike; they differ in what follows before the frame. Two of them have a magic
number for themselves; others share one, and are told apart by which makes sense of the first records.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sensor.capture.records import (
    DAMAGE,
    MAX_FRAME_BYTES,
    MAX_TS_NS,
    NS_PER_S,
    Indexed,
    IndexStatus,
    put_frame,
    read_u32,
)
from sensor.jit import inner, kernel

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from sensor.capture.bytesource import ByteSource
    from sensor.capture.records import Bytes

#: Records that have to make sense, one behind the other, where a damaged file goes on, and in the beginning of
#: a file whose variant is not known. Wireshark looks at as many.
CHAINED_RECORDS: Final = 3
#: Longest packet that a plausible record claims to have come from: Wireshark's bound.
MAX_PLAUSIBLE_WIRE_LEN: Final = 128 << 20
#: How far the times of two records that follow upon each other may lie apart where a damaged file goes on.
MAX_PLAUSIBLE_STEP_S: Final = 86_400

_HEADER_BYTES: Final = 24
_IXIA_HEADER_BYTES: Final = 28  # the size of all records follows
_RECORD_BYTES: Final = 16  # without the frame
_MODIFIED_RECORD_BYTES: Final = 24  # interface, protocol and kind of packet follow (Kuznetzov's patches)
_LONG_MODIFIED_RECORD_BYTES: Final = 28  # and two processor numbers (his patch of 1999-09-15)
_NOKIA_RECORD_BYTES: Final = 20


class PcapLayout(NamedTuple):
    """How to read the records of a file.

    ``ns_per_fraction``: unit of the timestamps' second half, in ns. ``record_bytes``: what precedes the frame.
    ``are_swapped``: the wire length comes before the captured one, as it did before version 2.3;
    ``may_be_swapped``: perhaps, although the file is of version 2.3.
    """

    big_endian: bool
    ns_per_fraction: int
    link_type: int
    record_bytes: int
    are_swapped: bool
    may_be_swapped: bool


@inner
def _read_lengths(data: Bytes, pos: int, end: int, layout: PcapLayout) -> tuple[int, int]:
    """Return a record's captured length and wire length."""
    captured_len = read_u32(data, pos + 8, end, layout.big_endian)
    wire_len = read_u32(data, pos + 12, end, layout.big_endian)
    if layout.are_swapped or (layout.may_be_swapped and captured_len > wire_len):
        return wire_len, captured_len
    return captured_len, wire_len


@kernel
def index_pcap(
    data: Bytes, start: int, end: int, layout: PcapLayout, frames: NDArray[Any]
) -> tuple[int, int, IndexStatus, int]:
    """Index the records of ``data[start:end]``.

    ``frames``: FRAME_DTYPE[n], out.
    Returns (rows filled, position of the first record that is not indexed, IndexStatus, bytes needed there).
    """
    pos, row = start, 0
    big_endian = layout.big_endian
    # A loop without the rare order of lengths is twice as fast.
    is_usual = not (layout.are_swapped or layout.may_be_swapped)
    while row < frames.size:
        if end - pos < _RECORD_BYTES or end - pos < layout.record_bytes:
            return row, pos, IndexStatus.NEED_BYTES, layout.record_bytes
        captured_len = read_u32(data, pos + 8, end, big_endian)
        wire_len = read_u32(data, pos + 12, end, big_endian)
        if not is_usual:
            captured_len, wire_len = _read_lengths(data, pos, end, layout)
        if captured_len > MAX_FRAME_BYTES:
            return row, pos, IndexStatus.FRAME_TOO_LONG, 0
        if captured_len > end - pos - layout.record_bytes:
            return row, pos, IndexStatus.NEED_BYTES, layout.record_bytes + captured_len
        seconds = read_u32(data, pos, end, big_endian)
        fraction = read_u32(data, pos + 4, end, big_endian)
        pos += layout.record_bytes
        ts_ns = min(seconds * NS_PER_S + fraction * layout.ns_per_fraction, MAX_TS_NS)
        put_frame(frames[row], pos, ts_ns, captured_len, wire_len, layout.link_type)
        pos += captured_len
        row += 1
    return row, pos, IndexStatus.FULL, 0


@inner
def _is_chain(data: Bytes, start: int, end: int, layout: PcapLayout, is_end: bool) -> int:
    """Tell whether ``CHAINED_RECORDS`` plausible records begin at ``start``: 1 yes, 0 no, else -bytes needed.

    At the end of the file fewer will do: one that ends with it, or two of which the second may be cut off.
    """
    pos, before_s = start, -1
    for n_records in range(CHAINED_RECORDS):
        if end - pos < layout.record_bytes:
            if not is_end:
                return start - pos - layout.record_bytes
            return 1 if n_records > 1 or (n_records == 1 and pos == end) else 0
        seconds = read_u32(data, pos, end, layout.big_endian)
        captured_len, wire_len = _read_lengths(data, pos, end, layout)
        if captured_len < 1 or captured_len > min(MAX_FRAME_BYTES, wire_len):
            return 0
        if wire_len > MAX_PLAUSIBLE_WIRE_LEN:
            return 0
        if read_u32(data, pos + 4, end, layout.big_endian) * layout.ns_per_fraction >= NS_PER_S:
            return 0
        if before_s >= 0 and abs(seconds - before_s) > MAX_PLAUSIBLE_STEP_S:
            return 0
        if captured_len > end - pos - layout.record_bytes and is_end:
            return 1 if n_records > 0 else 0
        before_s = seconds
        pos += layout.record_bytes + captured_len
    return 1


@kernel
def search_pcap(data: Bytes, start: int, end: int, layout: PcapLayout, is_end: bool) -> tuple[int, bool, int]:
    """Search ``data[start:end]`` for a chain of records; ``is_end``: nothing follows.

    What may become a chain with more bytes does not hide one that is complete behind it: a length that only
    looks like one can ask for more than will ever come.
    Returns (position of the first record, or of the first byte that is not searched; whether it was found;
    bytes needed there to tell).
    """
    open_pos, n_needed = end, layout.record_bytes
    for pos in range(start, end):
        found = _is_chain(data, pos, end, layout, is_end)
        if found == 1:
            return pos, True, 0
        if found < 0 and open_pos == end:
            open_pos, n_needed = pos, -found
    return open_pos, False, n_needed


@dataclass(frozen=True)
class _Magic:
    """What a magic number says: the byte order, the unit of time, and which records may follow the header."""

    order: str
    ns_per_fraction: int = 1000
    header_bytes: int = _HEADER_BYTES
    record_bytes: tuple[int, ...] = (_RECORD_BYTES,)


#: The likeliest variant first: it is taken where several make sense.
_STANDARD: Final = (_RECORD_BYTES, _MODIFIED_RECORD_BYTES, _NOKIA_RECORD_BYTES)
_MODIFIED: Final = (_MODIFIED_RECORD_BYTES, _LONG_MODIFIED_RECORD_BYTES)
PCAP_MAGICS: Final = {
    bytes.fromhex("d4c3b2a1"): _Magic("<", record_bytes=_STANDARD),
    bytes.fromhex("a1b2c3d4"): _Magic(">", record_bytes=_STANDARD),
    bytes.fromhex("4d3cb2a1"): _Magic("<", 1),
    bytes.fromhex("a1b23c4d"): _Magic(">", 1),
    bytes.fromhex("34cdb2a1"): _Magic("<", record_bytes=_MODIFIED),
    bytes.fromhex("a1b2cd34"): _Magic(">", record_bytes=_MODIFIED),
    bytes.fromhex("ac01001c"): _Magic("<", 1, _IXIA_HEADER_BYTES),
    bytes.fromhex("1c0001ac"): _Magic(">", 1, _IXIA_HEADER_BYTES),
    bytes.fromhex("ab01001c"): _Magic("<", 1000, _IXIA_HEADER_BYTES),
    bytes.fromhex("1c0001ab"): _Magic(">", 1000, _IXIA_HEADER_BYTES),
}

#: What is looked at to tell the variants apart.
_FIRST_BYTES: Final = 64 << 10
#: Linux's own numbers among the EtherTypes of a modified record, beside 0 to 0x17.
_ETH_P_INTERNAL: Final = (0x0060, 0x0200, 0x0400)
_DGUX_VERSION: Final = 543
#: AIX writes version 2.2 with the ifType (RFC 1573) in the link type's place, and nanoseconds.
_AIX_LINK_TYPES: Final = {6: 1, 9: 6, 15: 10, 24: 0}


class Pcap:
    """A pcap file; see Format."""

    def __init__(self, source: ByteSource) -> None:
        """Read the header. Raises CaptureFormatError for a version that is not read or a header cut off."""
        magic = PCAP_MAGICS[source.head(4)]
        source.demand(magic.header_bytes)
        _, major, minor, _, _, snaplen, link_field = struct.unpack(
            f"{magic.order}IHHIIII", source.head(_HEADER_BYTES)
        )
        if major not in (2, _DGUX_VERSION):
            raise source.format_error(f"pcap of version {major}.{minor} is not read, only 2.0 to 2.4")
        source.start += magic.header_bytes
        is_old = major == _DGUX_VERSION or minor < 3  # the two lengths stand in the other order
        is_aix = (major, minor) == (2, 2) and link_field in _AIX_LINK_TYPES
        if is_aix:
            link_field = _AIX_LINK_TYPES[link_field]
        layout = PcapLayout(
            big_endian=magic.order == ">",
            ns_per_fraction=1 if is_aix else magic.ns_per_fraction,
            link_type=link_field & 0x03FFFFFF,  # above are the length of the FCS and its flag
            record_bytes=magic.record_bytes[0],
            are_swapped=is_old,
            may_be_swapped=(major, minor) == (2, 3),
        )
        if len(magic.record_bytes) > 1 and major == 2 and minor >= 4:
            variants = [layout._replace(record_bytes=n_bytes) for n_bytes in magic.record_bytes]
            source.prefetch(_FIRST_BYTES)
            # Stricter than Wireshark, which takes the least odd: damage must not make another variant of a file.
            layout = next((other for other in variants if _oddities(source, other, snaplen) == 0), layout)
        self._layout = layout

    @property
    def link_types(self) -> Collection[int]:
        """See Format."""
        return (self._layout.link_type,)

    def index(self, source: ByteSource, frames: NDArray[Any]) -> Indexed:
        """See Format."""
        n_rows, source.start, status, n_needed = index_pcap(
            source.data, source.start, source.end, self._layout, frames
        )
        return Indexed(n_rows, n_needed, "" if n_rows else DAMAGE.get(status, ""))

    def leave_damage(self, source: ByteSource) -> None:
        """See Format."""
        source.start += 1

    def search(self, source: ByteSource, *, is_end: bool) -> tuple[bool, int]:
        """See Format."""
        source.start, is_found, n_needed = search_pcap(
            source.data, source.start, source.end, self._layout, is_end
        )
        return is_found, n_needed


def _oddities(source: ByteSource, layout: PcapLayout, snaplen: int) -> int:
    """Count what is odd about the first records, read with a layout; after wiretap's libpcap_try_record."""
    content = source.head(_FIRST_BYTES)
    is_whole = len(content) < _FIRST_BYTES
    order = ">" if layout.big_endian else "<"
    pos = 0
    n_odd: int = 0
    for _ in range(CHAINED_RECORDS):
        if pos == len(content):
            break
        if len(content) - pos < _RECORD_BYTES:
            return n_odd + is_whole
        _, fraction, captured_len, wire_len = struct.unpack_from(f"{order}IIII", content, pos)
        n_odd += fraction >= 1_000_000
        n_odd += captured_len > MAX_FRAME_BYTES
        n_odd += captured_len > snaplen
        n_odd += wire_len > MAX_PLAUSIBLE_WIRE_LEN
        n_odd += captured_len > wire_len
        if len(content) - pos < layout.record_bytes:
            return n_odd + is_whole
        if layout.record_bytes in _MODIFIED:
            interface, protocol, kind = struct.unpack_from(f"{order}IHB", content, pos + _RECORD_BYTES)
            n_odd += interface > 10_000
            n_odd += 0x17 < protocol < 0x0600 and protocol not in _ETH_P_INTERNAL
            n_odd += kind > 4  # the last of Linux's PACKET_ constants of 1999
        elif layout.record_bytes == _NOKIA_RECORD_BYTES:
            (mark,) = struct.unpack_from(f"{order}I", content, pos + _RECORD_BYTES)
            n_odd += not _is_nokia_mark(mark)
        if captured_len > MAX_FRAME_BYTES:
            break
        pos += layout.record_bytes + captured_len
        if pos > len(content):
            return n_odd + is_whole
    return n_odd


def _is_nokia_mark(mark: int) -> bool:
    """Tell whether a Nokia record's last four bytes are as Wireshark's authors have seen them, or editcap writes."""
    return mark == 0 or (
        mark & 0x0FFF00F0 == 0x0FBF0000
        and mark >> 28 in (0x9, 0xB)
        and mark >> 12 & 0xF in (0xB, 0xD)
        and mark >> 8 & 0xF in (0x6, 0x9)
        and mark & 0xF in (1, 2)
    )
