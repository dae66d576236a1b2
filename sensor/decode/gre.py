"""GRE, and what mirrors put into it: ERSPAN.

Each function peels one header at ``pos`` and returns (status, Layer, its position); see decode/peel.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.link import EtherType, ethertype_layer, version_layer
from sensor.decode.shims import note_session
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_u8, read_u16, read_u32
from sensor.jit import inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: Source route entries (RFC 1701); nobody is known to send any.
MAX_ROUTE_ENTRIES = 8

_GRE_BYTES, _FIELD_BYTES = 4, 4
_CHECKSUM, _ROUTING, _KEY, _SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000
_ACKNOWLEDGEMENT = 0x0080  # version 1
_VERSION, _VERSION_PPTP = 0x0007, 1

_ARUBA_WIFI = 0x82  # Aruba's access points: 0x82 and a queue number, and a frame of IEEE 802.11

_ERSPAN_II_BYTES, _ERSPAN_III_BYTES, _ERSPAN_SUBHEADER_BYTES = 8, 12, 8
_ERSPAN_IP_FRAME = 2  # of the frame types; 0 is Ethernet


@spliced
def peel_gre(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a GRE header: RFC 2784, with the key and sequence number of RFC 2890 and the routing of RFC 1701."""
    if not has(pos, end, _GRE_BYTES):
        return status_of_lack(pos, _GRE_BYTES, wire_end, weirds), Layer.NONE, pos
    flags, ethertype = read_u16(data, pos, end), read_u16(data, pos + 2, end)
    version = flags & _VERSION
    if version == _VERSION_PPTP and ethertype == EtherType.PPP:
        return peel_pptp(data, pos, end, wire_end, flags, packet, weirds)
    if version != 0:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    length = _GRE_BYTES
    if flags & (_CHECKSUM | _ROUTING):
        length += _FIELD_BYTES
    key = pos + length
    if flags & _KEY:
        length += _FIELD_BYTES
    if flags & _SEQUENCE:
        length += _FIELD_BYTES
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    if flags & _KEY:
        note_session(packet, Layer.GRE, read_u32(data, key, end))
    pos += length
    if flags & _ROUTING:
        status, pos = skip_route(data, pos, end, wire_end, weirds)
        if status != UNDECIDED:
            return status, Layer.NONE, pos
    if ethertype == EtherType.ERSPAN:
        # Type I has no header, and its GRE no sequence number: that is what tells it from type II.
        return UNDECIDED, (Layer.ERSPAN_II if flags & _SEQUENCE else Layer.ERSPAN_I), pos
    if ethertype == EtherType.ERSPAN_III:
        return UNDECIDED, Layer.ERSPAN_III, pos
    if ethertype >> 8 == _ARUBA_WIFI:
        return UNDECIDED, Layer.WIFI, pos
    status, layer = ethertype_layer(ethertype)
    return status, layer, pos


@spliced
def skip_route(data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]) -> tuple[int, int]:
    """Skip the source route entries (RFC 1701): (UNDECIDED, the position behind), or (status, nothing)."""
    for _ in range(MAX_ROUTE_ENTRIES):
        if not has(pos, end, _FIELD_BYTES):
            return status_of_lack(pos, _FIELD_BYTES, wire_end, weirds), pos
        family, length = read_u16(data, pos, end), read_u8(data, pos + 3, end)
        pos += _FIELD_BYTES
        if family == 0 and length == 0:
            return UNDECIDED, pos
        if not has(pos, end, length):
            return status_of_lack(pos, length, wire_end, weirds), pos
        pos += length
    return FrameStatus.TOO_DEEP, pos


@spliced
def peel_pptp(
    data: Bytes, pos: int, end: int, wire_end: int, flags: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel PPTP's GRE header (RFC 2637 section 4.1): the key is a payload length and a call id.

    Without a sequence number it carries nothing but an acknowledgement.
    """
    length = _GRE_BYTES + _FIELD_BYTES
    if flags & _SEQUENCE:
        length += _FIELD_BYTES
    if flags & _ACKNOWLEDGEMENT:
        length += _FIELD_BYTES
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    if flags & _SEQUENCE == 0:
        return FrameStatus.OTHER, Layer.NONE, pos
    note_session(packet, Layer.GRE, read_u16(data, pos + 6, end))
    return UNDECIDED, Layer.PPP, pos + length


@spliced
def peel_erspan_ii(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel an ERSPAN type II header (draft-foschiano-erspan-03 section 4.2): version 1, the frame's VLAN, a session."""
    if not has(pos, end, _ERSPAN_II_BYTES):
        return status_of_lack(pos, _ERSPAN_II_BYTES, wire_end, weirds), Layer.NONE, pos
    if read_u8(data, pos, end) >> 4 != 1:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    note_mirror(data, pos, end, Layer.ERSPAN_II, packet)
    return UNDECIDED, Layer.ETHERNET, pos + _ERSPAN_II_BYTES


@spliced
def peel_erspan_iii(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel an ERSPAN type III header (draft-foschiano-erspan-03 section 4.3), the platform's sub-header included."""
    if not has(pos, end, _ERSPAN_III_BYTES):
        return status_of_lack(pos, _ERSPAN_III_BYTES, wire_end, weirds), Layer.NONE, pos
    if read_u8(data, pos, end) >> 4 != 2:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    last = read_u16(data, pos + 10, end)
    length = _ERSPAN_III_BYTES + (_ERSPAN_SUBHEADER_BYTES if last & 1 else 0)
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    note_mirror(data, pos, end, Layer.ERSPAN_III, packet)
    pos += length
    frame_type = (last >> 10) & 0x1F
    if frame_type == 0:
        return UNDECIDED, Layer.ETHERNET, pos
    if frame_type != _ERSPAN_IP_FRAME:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    first = read_u8(data, pos, end)
    if first == -1:
        return status_of_lack(pos, 1, wire_end, weirds), Layer.NONE, pos
    layer = version_layer(first)
    return (UNDECIDED if layer != Layer.NONE else FrameStatus.MALFORMED), layer, pos


@inner
def note_mirror(data: Bytes, pos: int, end: int, layer: int, packet: Any) -> None:
    """Store what an ERSPAN header says of the mirrored frame: its VLAN (0 none) and the mirror session."""
    vlan = read_u16(data, pos, end) & 0x0FFF
    packet["vlan"] = vlan if vlan > 0 else -1
    note_session(packet, layer, read_u16(data, pos + 2, end) & 0x03FF)
