"""Headers between the link and the network header: what providers and switches push in front of a frame or packet.

Each function peels one header at ``pos`` and returns (status, Layer, its position); see decode/peel.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.link import looks_like_ethernet, peel_ethertype, version_layer
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_u8, read_u16, read_u24, read_u32
from sensor.jit import inlined, inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: Networks stack three or four labels; a deeper stack is a loop or an attack.
MAX_MPLS_LABELS = 16

_LABEL_BYTES = 4
_IPV4_EXPLICIT_NULL, _IPV6_EXPLICIT_NULL = 0, 2  # RFC 3032 section 2.1
_CONTROL_WORD_BYTES = 4
_LOOK_BYTES = 16  # the control word, two addresses: enough to see a frame's EtherType behind either
_VNTAG_BYTES, _ETAG_BYTES, _PBB_BYTES, _FABRICPATH_BYTES = 4, 6, 4, 2
_ETHERTYPE_BYTES = 2
_NSH_BYTES = 8


@inlined
def forget_stations(packet: Any) -> None:
    """Forget the MAC addresses and the VLAN found so far: they are those of whoever carries what is inside."""
    packet["src_mac"] = -1
    packet["dst_mac"] = -1
    packet["vlan"] = -1


@inlined
def note_session(packet: Any, layer: int, number: int) -> None:
    """Note the number, up to 32 bits, that a layer gives its session, tenant or tunnel; the innermost stays."""
    packet["session"] = layer << 32 | number


@spliced
def peel_mpls(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a label stack (RFC 3032 section 2.1) and, in front of a frame, the control word (RFC 4448 section 4.6)."""
    forget_stations(packet)
    for _ in range(MAX_MPLS_LABELS):
        entry = read_u32(data, pos, end)
        if entry == -1:
            return status_of_lack(pos, _LABEL_BYTES, wire_end, weirds), Layer.NONE, pos
        pos += _LABEL_BYTES
        if entry >> 8 & 1:
            return peel_label_payload(data, pos, end, wire_end, entry >> 12, weirds)
    return FrameStatus.TOO_DEEP, Layer.NONE, pos


@spliced
def peel_label_payload(
    data: Bytes, pos: int, end: int, wire_end: int, label: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Tell what lies behind the bottom label: its number says so, or the first four bits must (RFC 4385 section 3).

    A pseudo-wire may go without a control word, and then a frame's first address is what one sees: of 0x4_
    to 0x6_ that are not IP, and of all else, the EtherType decides.
    """
    if label == _IPV4_EXPLICIT_NULL:
        return UNDECIDED, Layer.IPV4, pos
    if label == _IPV6_EXPLICIT_NULL:
        return UNDECIDED, Layer.IPV6, pos
    first = read_u8(data, pos, end)
    if first == -1:
        return status_of_lack(pos, 1, wire_end, weirds), Layer.NONE, pos
    if first >> 4 == 6 or (first >> 4 == 4 and first & 0x0F >= 5):
        return UNDECIDED, version_layer(first), pos
    if not has(pos, end, min(_CONTROL_WORD_BYTES + _LOOK_BYTES, wire_end - pos)):
        return FrameStatus.TRUNCATED, Layer.NONE, pos
    if first >> 4 == 0 and looks_like_ethernet(data, pos + _CONTROL_WORD_BYTES, end):
        return UNDECIDED, Layer.ETHERNET, pos + _CONTROL_WORD_BYTES
    if looks_like_ethernet(data, pos, end):
        return UNDECIDED, Layer.ETHERNET, pos
    return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos


@inner
def peel_tag(
    data: Bytes, pos: int, end: int, wire_end: int, n: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a tag of ``n`` bytes and the EtherType behind it: VN-Tag (4 bytes), IEEE 802.1BR E-tag (6 bytes)."""
    if not has(pos, end, n + _ETHERTYPE_BYTES):
        return status_of_lack(pos, n + _ETHERTYPE_BYTES, wire_end, weirds), Layer.NONE, pos
    return peel_ethertype(data, pos + n + _ETHERTYPE_BYTES, end, read_u16(data, pos + n, end), packet)


@spliced
def peel_vntag(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel Cisco's VN-Tag, which names the virtual interfaces that a frame goes between."""
    return peel_tag(data, pos, end, wire_end, _VNTAG_BYTES, packet, weirds)


@spliced
def peel_etag(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel an E-tag (IEEE 802.1BR clause 7.5), which names the ports of a bridge's extenders."""
    return peel_tag(data, pos, end, wire_end, _ETAG_BYTES, packet, weirds)


@spliced
def peel_pbb(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel an I-tag (IEEE 802.1Q clause 9.7; 802.1ah): flags and a service id in front of the customer's frame."""
    if not has(pos, end, _PBB_BYTES):
        return status_of_lack(pos, _PBB_BYTES, wire_end, weirds), Layer.NONE, pos
    forget_stations(packet)
    note_session(packet, Layer.PBB, read_u24(data, pos + 1, end))
    return UNDECIDED, Layer.ETHERNET, pos + _PBB_BYTES


@spliced
def peel_fabricpath(
    _data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel Cisco FabricPath's tag: a forwarding tag and a time to live in front of the frame."""
    if not has(pos, end, _FABRICPATH_BYTES):
        return status_of_lack(pos, _FABRICPATH_BYTES, wire_end, weirds), Layer.NONE, pos
    forget_stations(packet)
    return UNDECIDED, Layer.ETHERNET, pos + _FABRICPATH_BYTES


@inlined
def next_protocol_layer(number: int) -> int:
    """Return the Layer of a Next Protocol of NSH and VXLAN-GPE (RFC 8300 section 2.2); NONE for any other."""
    if number == 1:
        return Layer.IPV4
    if number == 2:
        return Layer.IPV6
    if number == 3:
        return Layer.ETHERNET
    if number == 4:
        return Layer.NSH
    return Layer.MPLS if number == 5 else Layer.NONE


@spliced
def peel_nsh(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a Network Service Header (RFC 8300 section 2), whose length counts 4-byte words."""
    if not has(pos, end, _NSH_BYTES):
        return status_of_lack(pos, _NSH_BYTES, wire_end, weirds), Layer.NONE, pos
    first, length = read_u8(data, pos, end), (read_u8(data, pos + 1, end) & 0x3F) * 4
    if first >> 6 != 0 or length < _NSH_BYTES:
        return FrameStatus.MALFORMED, Layer.NONE, pos
    if not has(pos, end, length):
        return status_of_lack(pos, length, wire_end, weirds), Layer.NONE, pos
    forget_stations(packet)
    layer = next_protocol_layer(read_u8(data, pos + 3, end))
    status = UNDECIDED if layer != Layer.NONE else FrameStatus.UNKNOWN_TUNNEL
    return status, layer, pos + length
