"""IPv4 and IPv6 headers: which transport segment the packet carries, and where it lies.

Two ends go along with every position: ``end``, where the captured bytes of the packet stop, and ``wire_end``,
where the packet stopped on the wire by its own length fields. Link-layer padding lies behind both; a snap
length moves ``end`` alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sensor.decode.layers import Layer
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_address_half, read_u8, read_u16, read_u32
from sensor.jit import inlined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: RFC 8200 section 4.1 foresees six kinds, one of them twice; more is somebody's experiment or evasion.
MAX_IPV6_EXTENSIONS = 8


class IpProtocol(IntEnum):
    """Protocol numbers that are decoded (IANA "Protocol Numbers", "IPv6 Extension Header Types")."""

    HOPOPT = 0
    IPV4 = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    IPV6_ROUTE = 43
    IPV6_FRAG = 44
    GRE = 47
    AH = 51
    ICMPV6 = 58
    IPV6_OPTS = 60
    ETHERIP = 97
    L2TP = 115  # version 3
    MOBILITY = 135
    MPLS = 137
    HIP = 139
    SHIM6 = 140
    ETHERNET = 143
    NSH = 145


# Protocols that wrap a further frame or packet, and are not decoded.
_ENCAPSULATIONS = (
    55,  # minimal encapsulation (RFC 2004)
    94,  # IPIP
    98,  # ENCAP
    108,  # IPComp
    142,  # ROHC
)

_IPV4_BYTES, _IPV6_BYTES = 20, 40
_MIN_EXTENSION_BYTES = 8
_IPV4_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96 (RFC 4291 section 2.5.5.2), lower half


@inlined
def protocol_layer(proto: int) -> tuple[int, int]:
    """Return (UNDECIDED, the Layer that a protocol number announces), or (the frame's FrameStatus, nothing)."""
    if proto == IpProtocol.IPV4:
        return UNDECIDED, Layer.IPV4_IN_IP
    if proto == IpProtocol.IPV6:
        return UNDECIDED, Layer.IPV6_IN_IP
    if proto == IpProtocol.GRE:
        return UNDECIDED, Layer.GRE
    if proto == IpProtocol.ETHERIP:
        return UNDECIDED, Layer.ETHERIP
    if proto == IpProtocol.L2TP:
        return UNDECIDED, Layer.L2TPV3
    if proto == IpProtocol.MPLS:
        return UNDECIDED, Layer.MPLS
    if proto == IpProtocol.ETHERNET:
        return UNDECIDED, Layer.ETHERNET
    if proto == IpProtocol.NSH:
        return UNDECIDED, Layer.NSH
    if proto in _ENCAPSULATIONS:
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE
    return FrameStatus.OTHER, Layer.NONE


@inlined
def decode_ipv4(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int, int, int]:
    """Decode an IPv4 header (RFC 791 section 3.1). Returns as ``decode_ip``.

    Total length 0 is what a capture shows of a packet that the network card was to cut into segments: such a
    packet is as long as its frame.
    """
    if not has(pos, end, _IPV4_BYTES):
        return FrameStatus.TRUNCATED, -1, pos, end, wire_end
    first = read_u8(data, pos, end)
    header_len = (first & 0x0F) * 4
    if first >> 4 != 4 or header_len < _IPV4_BYTES:
        return FrameStatus.MALFORMED, -1, pos, end, wire_end
    total_len = read_u16(data, pos + 2, end)
    if total_len > 0:
        wire_end = pos + total_len
        end = min(end, wire_end)
    if not has(pos, end, header_len):
        return status_of_lack(pos, header_len, wire_end, weirds), -1, pos, end, wire_end
    if read_u16(data, pos + 6, end) & 0x1FFF:
        return FrameStatus.FRAGMENT, -1, pos, end, wire_end
    proto = read_u8(data, pos + 9, end)
    return UNDECIDED, proto, pos + header_len, end, wire_end


@inlined
def is_extension(proto: int) -> bool:
    """Tell whether an extension header follows whose length can be read (RFC 7045 section 4)."""
    return proto in (
        IpProtocol.HOPOPT,
        IpProtocol.IPV6_ROUTE,
        IpProtocol.IPV6_FRAG,
        IpProtocol.AH,
        IpProtocol.IPV6_OPTS,
        IpProtocol.MOBILITY,
        IpProtocol.HIP,
        IpProtocol.SHIM6,
    )


@inlined
def extension_len(data: Bytes, pos: int, end: int, proto: int) -> int:
    """Return an extension header's length in bytes; the least possible where its length field is cut off.

    The field counts 8-byte units less one (RFC 6564 section 4), in AH 4-byte units less two (RFC 4302 section
    2.2); the fragment header has none (RFC 8200 section 4.5).
    """
    field = read_u8(data, pos + 1, end)
    if field == -1 or proto == IpProtocol.IPV6_FRAG:
        return _MIN_EXTENSION_BYTES
    if proto == IpProtocol.AH:
        return (field + 2) * 4
    return (field + 1) * 8


@inlined
def skip_extensions(
    data: Bytes, pos: int, end: int, wire_end: int, proto: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int, int, int]:
    """Walk the IPv6 extension headers (RFC 8200 section 4) from ``pos``. Returns as ``decode_ip``."""
    for _ in range(MAX_IPV6_EXTENSIONS):
        if not is_extension(proto):
            break
        length = extension_len(data, pos, end, proto)
        if not has(pos, end, length):
            return status_of_lack(pos, length, wire_end, weirds), -1, pos, end, wire_end
        if proto == IpProtocol.IPV6_FRAG and read_u16(data, pos + 2, end) >> 3:
            return FrameStatus.FRAGMENT, -1, pos, end, wire_end
        proto = read_u8(data, pos, end)
        pos += length
    if is_extension(proto):
        return FrameStatus.TOO_DEEP, -1, pos, end, wire_end
    return UNDECIDED, proto, pos, end, wire_end


@inlined
def decode_ipv6(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int, int, int]:
    """Decode an IPv6 header (RFC 8200 section 3) and its extensions. Returns as ``decode_ip``.

    Payload length 0 is a jumbogram (RFC 2675 section 3) or a packet that the network card was to cut into
    segments: such a packet is as long as its frame.
    """
    if not has(pos, end, _IPV6_BYTES):
        return FrameStatus.TRUNCATED, -1, pos, end, wire_end
    if read_u8(data, pos, end) >> 4 != 6:
        return FrameStatus.MALFORMED, -1, pos, end, wire_end
    payload_len = read_u16(data, pos + 4, end)
    proto = read_u8(data, pos + 6, end)
    pos += _IPV6_BYTES
    if payload_len > 0:
        wire_end = pos + payload_len
        end = min(end, wire_end)
    return skip_extensions(data, pos, end, wire_end, proto, weirds)


@inlined
def decode_ip(
    data: Bytes, pos: int, end: int, wire_end: int, layer: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int, int, int]:
    """Find the segment of an IP packet: (status, protocol, its position, its end, its end on the wire).

    ``pos``: the IP header; ``end``, ``wire_end``: of the frame; ``weirds``: i64[N_WEIRDS], in/out. Status is
    UNDECIDED if the header is whole; anything else is the frame's FrameStatus, and the other values mean nothing.
    """
    if layer == Layer.IPV4:
        return decode_ipv4(data, pos, end, wire_end, weirds)
    return decode_ipv6(data, pos, end, wire_end, weirds)


@inlined
def read_ipv4_address(data: Bytes, pos: int, end: int) -> int:
    """Return the lower half of an IPv4 address as IPv4-mapped IPv6; the upper half is 0."""
    return _IPV4_MAPPED | read_u32(data, pos, end)


@inlined
def read_ip_addresses(data: Bytes, pos: int, end: int, layer: int) -> tuple[int, int, int, int]:
    """Return (source high, low, destination high, low) of an IP header that ``decode_ip`` accepted."""
    if layer == Layer.IPV4:
        return 0, read_ipv4_address(data, pos + 12, end), 0, read_ipv4_address(data, pos + 16, end)
    return (
        read_address_half(data, pos + 8, end),
        read_address_half(data, pos + 16, end),
        read_address_half(data, pos + 24, end),
        read_address_half(data, pos + 32, end),
    )
