"""IEEE 802.11 data frames, bare or behind radiotap.

Each function peels one header at ``pos`` and returns (status, Layer, its position); see decode/peel.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.link import ethertype_layer, read_snap_ethertype
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_mac, read_u8, read_u16_le, read_u32_le
from sensor.jit import inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: Words of the radiotap "present" field; each announces the next.
MAX_PRESENT_WORDS = 8

_RADIOTAP_BYTES = 8
_HAS_TSFT, _HAS_FLAGS, _HAS_MORE_WORDS = 1 << 0, 1 << 1, 1 << 31
_FLAG_DATA_PAD = 0x20  # the 802.11 header is padded to 4 bytes

_MIN_BYTES = 24
_SNAP_BYTES = 8
_TYPE_DATA = 2
_TO_DS, _FROM_DS, _PROTECTED, _ORDER = 0x01, 0x02, 0x40, 0x80
_SUBTYPE_NO_DATA, _SUBTYPE_QOS = 0x40, 0x80
_QOS_AMSDU = 0x80


@spliced
def peel_radiotap(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a radiotap header (radiotap.org) and the 802.11 header behind it."""
    if not has(pos, end, _RADIOTAP_BYTES):
        return status_of_lack(pos, _RADIOTAP_BYTES, wire_end, weirds), Layer.NONE, pos
    length = read_u16_le(data, pos + 2, end)
    if read_u8(data, pos, end) != 0 or length < _RADIOTAP_BYTES:
        return FrameStatus.MALFORMED, Layer.NONE, pos
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    flags = radiotap_flags(data, pos, pos + length)
    is_padded = flags != -1 and flags & _FLAG_DATA_PAD != 0
    return peel_wifi(data, pos + length, end, wire_end, is_padded, packet, weirds)


@spliced
def radiotap_flags(data: Bytes, pos: int, end: int) -> int:
    """Return the Flags field of the radiotap header ``data[pos:end]``, or -1; a timestamp before it is aligned."""
    present = read_u32_le(data, pos + 4, end)
    if present & _HAS_FLAGS == 0:
        return -1
    field = pos + 4
    for _ in range(MAX_PRESENT_WORDS):
        word = read_u32_le(data, field, end)
        field += 4
        if word == -1 or word & _HAS_MORE_WORDS == 0:
            break
    if present & _HAS_TSFT:
        field = pos + ((field - pos + 7) & ~7) + 8
    return read_u8(data, field, end)


@inner
def peel_wifi(
    data: Bytes,
    pos: int,
    end: int,
    wire_end: int,
    is_padded: bool,
    packet: Any,
    weirds: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Peel the header of an IEEE 802.11 data frame (clause 9.3.2.1) and LLC/SNAP; others carry no packets.

    Some controllers put the two bytes of the frame control field into CAPWAP in the wrong order; it shows,
    because the first two bits are a version, always 0, and a data frame under way has a DS bit set in their place.
    """
    if not has(pos, end, 2):
        return status_of_lack(pos, 2, wire_end, weirds), Layer.NONE, pos
    kind, flags = read_u8(data, pos, end), read_u8(data, pos + 1, end)
    if kind & 3 != 0:
        kind, flags = flags, kind
    if kind & 3 != 0:
        return FrameStatus.MALFORMED, Layer.NONE, pos
    if (kind >> 2) & 3 != _TYPE_DATA or kind & _SUBTYPE_NO_DATA:
        return FrameStatus.NOT_IP, Layer.NONE, pos
    if flags & _PROTECTED:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    has_four_addresses = flags & _TO_DS != 0 and flags & _FROM_DS != 0
    is_qos = kind & _SUBTYPE_QOS != 0
    qos = pos + _MIN_BYTES + (6 if has_four_addresses else 0)
    length = qos - pos
    if is_qos:
        length += 6 if flags & _ORDER else 2  # with or without HT Control
    if is_padded:
        length = (length + 3) & ~3
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    if read_u16_le(data, pos + 22, end) & 0x0F:
        return FrameStatus.FRAGMENT, Layer.NONE, pos
    note_wifi_stations(data, pos, end, flags, packet)
    if is_qos and read_u8(data, qos, end) & _QOS_AMSDU:
        return UNDECIDED, Layer.AMSDU, pos + length
    status, layer = ethertype_layer(read_snap_ethertype(data, pos + length, end))
    return status, layer, pos + length + _SNAP_BYTES


@spliced
def note_wifi_stations(data: Bytes, pos: int, end: int, flags: int, packet: Any) -> None:
    """Store a data frame's source and destination address (IEEE 802.11 table 9-30)."""
    to_ds, from_ds = flags & _TO_DS != 0, flags & _FROM_DS != 0
    packet["dst_mac"] = read_mac(data, pos + (16 if to_ds else 4), end)
    source = 10
    if from_ds:
        source = 24 if to_ds else 16
    packet["src_mac"] = read_mac(data, pos + source, end)
