"""IPv4 and IPv6 headers: which transport segment the packet carries, and where it lies.

Two ends go along with every position: ``end``, where the captured bytes of the packet stop, and ``wire_end``,
where the packet stopped on the wire by its own length fields. Link-layer padding lies behind both; a snap
length moves ``end`` alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sensor.decode.link import EtherType
from sensor.decode.status import UNDECIDED, FrameStatus, Weird
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
    TCP = 6
    UDP = 17
    IPV6_ROUTE = 43
    IPV6_FRAG = 44
    AH = 51
    IPV6_OPTS = 60
    MOBILITY = 135
    HIP = 139
    SHIM6 = 140


# Protocols that wrap a further frame or packet.
_ENCAPSULATIONS = (
    4,  # IPv4
    41,  # IPv6
    47,  # GRE
    55,  # minimal encapsulation (RFC 2004)
    94,  # IPIP
    97,  # EtherIP
    98,  # ENCAP
    108,  # IPComp
    115,  # L2TP
    137,  # MPLS
    142,  # ROHC
    143,  # Ethernet
    145,  # NSH
)

_IPV4_BYTES, _IPV6_BYTES = 20, 40
_MIN_EXTENSION_BYTES = 8
_IPV4_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96 (RFC 4291 section 2.5.5.2), lower half


@inlined
def status_of_lack(pos: int, n: int, wire_end: int, weirds: NDArray[np.int64]) -> int:
    """Tell why ``n`` bytes are not there: MALFORMED if the packet's length has no room, else TRUNCATED."""
    if n > wire_end - pos:
        weirds[Weird.IP_CHECKSUM_IMPOSSIBLE_LENGTH] += 1
        return FrameStatus.MALFORMED
    return FrameStatus.TRUNCATED


@inlined
def protocol_status(proto: int) -> int:
    """Return UNDECIDED for what is decoded further (TCP, UDP), else the frame's status."""
    if proto in (IpProtocol.TCP, IpProtocol.UDP):
        return UNDECIDED
    if proto in _ENCAPSULATIONS:
        return FrameStatus.UNKNOWN_TUNNEL
    return FrameStatus.OTHER


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
    return protocol_status(proto), proto, pos + header_len, end, wire_end


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
    return protocol_status(proto), proto, pos, end, wire_end


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
    data: Bytes, pos: int, end: int, wire_end: int, ethertype: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int, int, int]:
    """Find the segment of an IP packet: (status, protocol, its position, its end, its end on the wire).

    ``pos``: the IP header; ``end``, ``wire_end``: of the frame; ``weirds``: i64[N_WEIRDS], in/out. Status is
    UNDECIDED for TCP and UDP; anything else is the frame's FrameStatus, and the other values mean nothing.
    """
    if ethertype == EtherType.IPV4:
        return decode_ipv4(data, pos, end, wire_end, weirds)
    return decode_ipv6(data, pos, end, wire_end, weirds)


@inlined
def read_ipv4_address(data: Bytes, pos: int, end: int) -> int:
    """Return the lower half of an IPv4 address as IPv4-mapped IPv6; the upper half is 0."""
    return _IPV4_MAPPED | read_u32(data, pos, end)


@inlined
def read_ip_addresses(data: Bytes, pos: int, end: int, ethertype: int) -> tuple[int, int, int, int]:
    """Return (source high, low, destination high, low) of an IP header that ``decode_ip`` accepted."""
    if ethertype == EtherType.IPV4:
        return 0, read_ipv4_address(data, pos + 12, end), 0, read_ipv4_address(data, pos + 16, end)
    return (
        read_address_half(data, pos + 8, end),
        read_address_half(data, pos + 16, end),
        read_address_half(data, pos + 24, end),
        read_address_half(data, pos + 32, end),
    )
