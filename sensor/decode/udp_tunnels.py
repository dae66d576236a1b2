"""Tunnels over UDP: told by their port and, because anybody may use a port, by a header that makes sense.

Each function peels one header at ``pos``, the datagram's payload, and returns (status, Layer, its position);
see decode/peel.py. ``end`` and ``wire_end`` are the datagram's. What makes no sense is no tunnel: OTHER, as
any datagram of no interest, and never MALFORMED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.link import ethertype_layer, looks_like_ethernet, version_layer
from sensor.decode.shims import next_protocol_layer, note_session
from sensor.decode.status import UNDECIDED, FrameStatus
from sensor.decode.wire import has, read_u8, read_u16, read_u24, read_u32
from sensor.jit import inlined, inner, spliced

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

#: Extension headers of GTP-U, tags of TZSP: senders put one or two.
MAX_GTP_EXTENSIONS = 8
MAX_TZSP_TAGS = 32

# Ports (IANA "Service Name and Transport Protocol Port Number Registry", but for 8472 and 37008).
_L2TP_PORT, _GTP_U_PORT, _TEREDO_PORT, _VXLAN_PORT, _GRE_PORT = 1701, 2152, 3544, 4789, 4754
_VXLAN_GPE_PORT, _CAPWAP_PORT, _GENEVE_PORT = 4790, 5247, 6081
_VXLAN_LINUX_PORT = 8472  # Linux' default, from before IANA assigned one
_TZSP_PORT = 37008

#: Every port that a tunnel has.
TUNNEL_PORTS = (
    *(_L2TP_PORT, _GTP_U_PORT, _TEREDO_PORT, _GRE_PORT, _VXLAN_PORT, _VXLAN_GPE_PORT, _CAPWAP_PORT),
    *(_GENEVE_PORT, _VXLAN_LINUX_PORT, _TZSP_PORT),
)

_VXLAN_BYTES, _GENEVE_BYTES = 8, 8
_VXLAN_HAS_VNI, _VXLAN_HAS_NEXT, _VXLAN_OAM, _VXLAN_VERSION = 0x08, 0x04, 0x01, 0x30

_GTP_BYTES, _GTP_OPTIONAL_BYTES = 8, 4
_GTP_VERSION_AND_TYPE, _GTP_USER_DATA = 3, 255  # version 1, and not GTP'
_GTP_OPTIONAL = 0x07  # E, S, PN: any of them brings all four optional bytes
_GTP_EXTENSIONS = 0x04

_TEREDO_ORIGIN, _TEREDO_AUTHENTICATION = 0, 1
_TEREDO_ORIGIN_BYTES, _TEREDO_AUTHENTICATION_BYTES = 8, 13
_IPV6_BYTES = 40

_L2TP_CONTROL, _L2TP_LENGTH, _L2TP_SEQUENCE, _L2TP_OFFSET = 0x8000, 0x4000, 0x0800, 0x0200
_L2TP_ZERO_BITS = 0x34F0  # reserved, sent as zero
_L2TPV3_ZERO_BITS = 0x7FF0
_SESSION_BYTES = 4
_PSEUDO_WIRE_OFFSETS = (0, 4, 8, 12)  # of cookie (0, 4, 8 bytes) and sublayer (0, 4) together
_PSEUDO_WIRE_LOOK_BYTES = 12 + 16

_CAPWAP_BYTES = 8
_CAPWAP_T, _CAPWAP_F, _CAPWAP_K = 0x000100, 0x000080, 0x000008  # of the first three bytes
_CAPWAP_WIFI = 1  # wireless binding

_TZSP_BYTES = 4
_TZSP_PADDING, _TZSP_END = 0, 1
_TZSP_ETHERNET, _TZSP_WIFI = 1, 18

_GRE_IN_UDP_FLAGS = 0x4FFF  # routing, reserved bits, version: zero (RFC 8086 section 3)


@inner
def udp_layer(src_port: int, dst_port: int) -> tuple[int, int]:
    """Return (UNDECIDED, the Layer that a datagram between these ports may be), or (OTHER, nothing).

    VXLAN, GENEVE, GRE and TZSP are sent to their port from any; the others answer from it as well.
    """
    for port in (dst_port, src_port):
        if port == _GTP_U_PORT:
            return UNDECIDED, Layer.GTP_U
        if port == _TEREDO_PORT:
            return UNDECIDED, Layer.TEREDO
        if port == _L2TP_PORT:
            return UNDECIDED, Layer.L2TP
        if port == _CAPWAP_PORT:
            return UNDECIDED, Layer.CAPWAP
        if port == dst_port:
            if port in (_VXLAN_PORT, _VXLAN_LINUX_PORT, _VXLAN_GPE_PORT):
                return UNDECIDED, Layer.VXLAN
            if port == _GENEVE_PORT:
                return UNDECIDED, Layer.GENEVE
            if port == _TZSP_PORT:
                return UNDECIDED, Layer.TZSP
            if port == _GRE_PORT:
                return UNDECIDED, Layer.GRE_IN_UDP
    return FrameStatus.OTHER, Layer.NONE


@inlined
def lack(pos: int, n: int, wire_end: int) -> int:
    """Tell what to make of ``n`` bytes that are not there: OTHER if the datagram has no room, else TRUNCATED."""
    return FrameStatus.OTHER if n > wire_end - pos else FrameStatus.TRUNCATED


@spliced
def peel_vxlan(data: Bytes, pos: int, end: int, wire_end: int, packet: Any) -> tuple[int, int, int]:
    """Peel VXLAN (RFC 7348 section 5) and its Generic Protocol Extension (draft-ietf-nvo3-vxlan-gpe section 3).

    Group policy (draft-smith-vxlan-group-policy) lies in the reserved bits, so only the last byte must be zero.
    """
    if not has(pos, end, _VXLAN_BYTES):
        return lack(pos, _VXLAN_BYTES, wire_end), Layer.NONE, pos
    flags = read_u8(data, pos, end)
    if flags & _VXLAN_HAS_VNI == 0 or flags & _VXLAN_VERSION or read_u8(data, pos + 7, end) != 0:
        return FrameStatus.OTHER, Layer.NONE, pos
    has_next = flags & _VXLAN_HAS_NEXT != 0
    layer = next_protocol_layer(read_u8(data, pos + 3, end)) if has_next else Layer.ETHERNET
    if layer == Layer.NONE or (has_next and flags & _VXLAN_OAM):
        return FrameStatus.OTHER, Layer.NONE, pos
    note_session(packet, Layer.VXLAN, read_u24(data, pos + 4, end))
    return UNDECIDED, layer, pos + _VXLAN_BYTES


@spliced
def peel_geneve(data: Bytes, pos: int, end: int, wire_end: int, packet: Any) -> tuple[int, int, int]:
    """Peel GENEVE (RFC 8926 section 3.4), whose option length counts 4-byte words."""
    if not has(pos, end, _GENEVE_BYTES):
        return lack(pos, _GENEVE_BYTES, wire_end), Layer.NONE, pos
    first, second = read_u8(data, pos, end), read_u8(data, pos + 1, end)
    if first >> 6 != 0 or second & 0x3F != 0 or read_u8(data, pos + 7, end) != 0:
        return FrameStatus.OTHER, Layer.NONE, pos
    length = _GENEVE_BYTES + (first & 0x3F) * 4
    if not has(pos, end, length):
        return lack(pos, length, wire_end), Layer.NONE, pos
    status, layer = ethertype_layer(read_u16(data, pos + 2, end))
    if status != UNDECIDED:
        return FrameStatus.OTHER, Layer.NONE, pos
    note_session(packet, Layer.GENEVE, read_u24(data, pos + 4, end))
    return UNDECIDED, layer, pos + length


@spliced
def peel_gtp_u(data: Bytes, pos: int, end: int, wire_end: int, packet: Any) -> tuple[int, int, int]:
    """Peel GTP-U version 1 (3GPP TS 29.281 section 5) with its extension headers; user data is an IP packet."""
    if not has(pos, end, _GTP_BYTES):
        return lack(pos, _GTP_BYTES, wire_end), Layer.NONE, pos
    first = read_u8(data, pos, end)
    if first >> 4 != _GTP_VERSION_AND_TYPE or read_u8(data, pos + 1, end) != _GTP_USER_DATA:
        return FrameStatus.OTHER, Layer.NONE, pos
    note_session(packet, Layer.GTP_U, read_u32(data, pos + 4, end))
    pos += _GTP_BYTES
    kind = 0
    if first & _GTP_OPTIONAL:
        if not has(pos, end, _GTP_OPTIONAL_BYTES):
            return lack(pos, _GTP_OPTIONAL_BYTES, wire_end), Layer.NONE, pos
        if first & _GTP_EXTENSIONS:
            kind = read_u8(data, pos + 3, end)
        pos += _GTP_OPTIONAL_BYTES
    for _ in range(MAX_GTP_EXTENSIONS):
        if kind == 0:
            break
        length = read_u8(data, pos, end) * 4
        if length < 0:
            return lack(pos, 1, wire_end), Layer.NONE, pos
        if length == 0:
            return FrameStatus.OTHER, Layer.NONE, pos
        if not has(pos, end, length):
            return lack(pos, length, wire_end), Layer.NONE, pos
        kind = read_u8(data, pos + length - 1, end)
        pos += length
    if kind != 0:
        return FrameStatus.TOO_DEEP, Layer.NONE, pos
    first = read_u8(data, pos, end)
    if first == -1:
        return lack(pos, 1, wire_end), Layer.NONE, pos
    layer = version_layer(first)
    return (UNDECIDED if layer != Layer.NONE else FrameStatus.OTHER), layer, pos


@spliced
def peel_teredo(data: Bytes, pos: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Peel Teredo (RFC 4380 section 5.1.1): an authentication and an origin indication or none, then IPv6."""
    if not has(pos, end, 2):
        return lack(pos, 2, wire_end), Layer.NONE, pos
    if read_u16(data, pos, end) == _TEREDO_AUTHENTICATION:
        if not has(pos, end, 4):
            return lack(pos, 4, wire_end), Layer.NONE, pos
        sizes = read_u8(data, pos + 2, end) + read_u8(data, pos + 3, end)
        if not has(pos, end, _TEREDO_AUTHENTICATION_BYTES + sizes):
            return lack(pos, _TEREDO_AUTHENTICATION_BYTES + sizes, wire_end), Layer.NONE, pos
        pos += _TEREDO_AUTHENTICATION_BYTES + sizes
        if not has(pos, end, 2):
            return lack(pos, 2, wire_end), Layer.NONE, pos
    if read_u16(data, pos, end) == _TEREDO_ORIGIN:
        if not has(pos, end, _TEREDO_ORIGIN_BYTES):
            return lack(pos, _TEREDO_ORIGIN_BYTES, wire_end), Layer.NONE, pos
        pos += _TEREDO_ORIGIN_BYTES
    if not has(pos, end, _IPV6_BYTES):
        return lack(pos, _IPV6_BYTES, wire_end), Layer.NONE, pos
    fits = read_u16(data, pos + 4, end) <= wire_end - pos - _IPV6_BYTES
    if read_u8(data, pos, end) >> 4 != 6 or not fits:
        return FrameStatus.OTHER, Layer.NONE, pos
    return UNDECIDED, Layer.IPV6, pos


@spliced
def peel_l2tp(data: Bytes, pos: int, end: int, wire_end: int, packet: Any) -> tuple[int, int, int]:
    """Peel an L2TP data message: version 2 (RFC 2661 section 3.1) carries PPP, version 3 (RFC 3931) has no type."""
    if not has(pos, end, 2):
        return lack(pos, 2, wire_end), Layer.NONE, pos
    flags = read_u16(data, pos, end)
    if flags & _L2TP_CONTROL:
        return FrameStatus.OTHER, Layer.NONE, pos
    if flags & 0x0F == 3 and flags & _L2TPV3_ZERO_BITS == 0:
        return peel_l2tpv3(data, pos + 4, end, wire_end, packet)
    if flags & 0x0F != 2 or flags & _L2TP_ZERO_BITS:
        return FrameStatus.OTHER, Layer.NONE, pos
    ids = pos + (4 if flags & _L2TP_LENGTH else 2)
    length = ids + 4 - pos
    if flags & _L2TP_SEQUENCE:
        length += 4
    if flags & _L2TP_OFFSET:
        if not has(pos, end, length + 2):
            return lack(pos, length + 2, wire_end), Layer.NONE, pos
        length += 2 + read_u16(data, pos + length, end)
    if not has(pos, end, length):
        return lack(pos, length, wire_end), Layer.NONE, pos
    note_session(packet, Layer.L2TP, read_u32(data, ids, end))
    return UNDECIDED, Layer.PPP, pos + length


@inner
def peel_l2tpv3(data: Bytes, pos: int, end: int, wire_end: int, packet: Any) -> tuple[int, int, int]:
    """Peel an L2TPv3 session header (RFC 3931 section 4.1.1 over IP, behind 4 bytes over UDP: 4.1.2.1).

    How long its cookie is, whether a sublayer follows, and what is carried, was agreed on at set-up; so the
    first place is taken where an Ethernet frame fits. Session 0 is control.
    """
    if not has(pos, end, _SESSION_BYTES):
        return lack(pos, _SESSION_BYTES, wire_end), Layer.NONE, pos
    session = read_u32(data, pos, end)
    if session == 0:
        return FrameStatus.OTHER, Layer.NONE, pos
    pos += _SESSION_BYTES
    if not has(pos, end, min(_PSEUDO_WIRE_LOOK_BYTES, wire_end - pos)):
        return FrameStatus.TRUNCATED, Layer.NONE, pos
    note_session(packet, Layer.L2TPV3, session)
    for offset in _PSEUDO_WIRE_OFFSETS:
        if looks_like_ethernet(data, pos + offset, end):
            return UNDECIDED, Layer.ETHERNET, pos + offset
    return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos


@spliced
def peel_capwap(data: Bytes, pos: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Peel a CAPWAP data message (RFC 5415 section 4.3): a frame of Ethernet, or of the wireless binding's kind.

    Its fragments are not put together, and counted as such. Control has a port of its own.
    """
    if not has(pos, end, 1):
        return lack(pos, 1, wire_end), Layer.NONE, pos
    preamble = read_u8(data, pos, end)
    if preamble != 0:  # 1: DTLS
        status = FrameStatus.UNKNOWN_TUNNEL if preamble == 1 else FrameStatus.OTHER
        return status, Layer.NONE, pos
    if not has(pos, end, _CAPWAP_BYTES):
        return lack(pos, _CAPWAP_BYTES, wire_end), Layer.NONE, pos
    bits = read_u24(data, pos + 1, end)
    length, binding = (bits >> 19) * 4, (bits >> 9) & 0x1F
    if length < _CAPWAP_BYTES or bits & _CAPWAP_K:
        return FrameStatus.OTHER, Layer.NONE, pos
    if bits & _CAPWAP_F:
        return FrameStatus.FRAGMENT, Layer.NONE, pos
    if not has(pos, end, length):
        return lack(pos, length, wire_end), Layer.NONE, pos
    pos += length
    if bits & _CAPWAP_T == 0:
        return UNDECIDED, Layer.ETHERNET, pos
    if binding != _CAPWAP_WIFI:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE, pos
    return UNDECIDED, Layer.WIFI, pos


@spliced
def peel_tzsp(data: Bytes, pos: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Peel TZSP, which access points and routers mirror with: version, type, protocol, tagged fields.

    It has no specification; this is what Wireshark's dissector and RouterOS agree on. Types 0 and 1 carry
    a frame.
    """
    if not has(pos, end, _TZSP_BYTES):
        return lack(pos, _TZSP_BYTES, wire_end), Layer.NONE, pos
    protocol = read_u16(data, pos + 2, end)
    if read_u8(data, pos, end) != 1 or read_u8(data, pos + 1, end) > 1:
        return FrameStatus.OTHER, Layer.NONE, pos
    if protocol not in (_TZSP_ETHERNET, _TZSP_WIFI):
        return FrameStatus.OTHER, Layer.NONE, pos
    pos += _TZSP_BYTES
    for _ in range(MAX_TZSP_TAGS):
        tag = read_u8(data, pos, end)
        if tag == -1:
            return lack(pos, 1, wire_end), Layer.NONE, pos
        pos += 1
        if tag == _TZSP_END:
            return UNDECIDED, (Layer.ETHERNET if protocol == _TZSP_ETHERNET else Layer.WIFI), pos
        if tag != _TZSP_PADDING:
            length = read_u8(data, pos, end)
            if length == -1:
                return lack(pos, 1, wire_end), Layer.NONE, pos
            if not has(pos, end, 1 + length):
                return lack(pos, 1 + length, wire_end), Layer.NONE, pos
            pos += 1 + length
    return FrameStatus.TOO_DEEP, Layer.NONE, pos


@spliced
def peel_gre_in_udp(data: Bytes, pos: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Tell whether a datagram is GRE in UDP (RFC 8086); the GRE header itself is a layer."""
    if not has(pos, end, 4):
        return lack(pos, 4, wire_end), Layer.NONE, pos
    if read_u16(data, pos, end) & _GRE_IN_UDP_FLAGS:
        return FrameStatus.OTHER, Layer.NONE, pos
    return UNDECIDED, Layer.GRE, pos
