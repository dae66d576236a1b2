"""Slow, obvious decoders: what the kernels must compute.

They see one frame as ``bytes``, so they cannot read a neighbour, and they stop by raising, so no status can
get lost on the way. Nothing is shared with sensor.decode but the names of the results.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sensor.decode.status import FrameStatus

if TYPE_CHECKING:
    from collections.abc import Collection

MAIL_PORTS = (25, 465, 587, 2525)


@dataclass(frozen=True)
class Packet:
    """A row of PACKET_DTYPE; payload positions count from the frame's first byte."""

    status: FrameStatus
    proto: int
    payload_start: int
    payload_end: int
    payload_len: int
    src_hi: int = 0
    src_lo: int = 0
    dst_hi: int = 0
    dst_lo: int = 0
    src_mac: int = -1
    dst_mac: int = -1
    vlan: int = -1
    src_port: int = 0
    dst_port: int = 0
    seq: int = 0
    ack: int = 0
    tcp_flags: int = 0


@dataclass(frozen=True)
class Decoded:
    status: FrameStatus
    packet: Packet | None = None
    impossible_lengths: int = 0


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The frame's fate is decided and it becomes no row."""

    def __init__(self, status: FrameStatus, *, impossible_length: bool = False) -> None:
        super().__init__(status)
        self.decoded = Decoded(status, None, int(impossible_length))


@dataclass(frozen=True)
class Region:
    """A header and all behind it: its place in the frame, what was captured, how long it was on the wire."""

    offset: int
    captured: bytes
    wire_len: int

    def announced(self, n: int) -> bytes:
        """The first ``n`` bytes, which the header below announced without saying how long they are."""
        if len(self.captured) < n:
            raise Stopped(FrameStatus.TRUNCATED)
        return self.captured[:n]

    def head(self, n: int) -> bytes:
        """The first ``n`` bytes, for which the IP packet must have room."""
        if n > self.wire_len:
            raise Stopped(FrameStatus.MALFORMED, impossible_length=True)
        return self.announced(n)

    def after(self, n: int) -> Region:
        return Region(self.offset + n, self.captured[n:], self.wire_len - n)

    def first(self, n: int) -> Region:
        return Region(self.offset, self.captured[:n], n)


ETHERNET, SLL, SLL2 = 1, 113, 276
LOOPBACK_LINKS, INET6_FAMILIES = (0, 108), (10, 24, 28, 30)
RAW_LINKS, IPV4_LINK, IPV6_LINK = (12, 14, 101), 228, 229
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
TAGS = (0x8100, 0x88A8, 0x9100)
MAX_TAGS = 8
ETHER_TUNNELS = {
    *(0x8847, 0x8848, 0x8864, 0x880B, 0x88BE, 0x22EB, 0x6558, 0x22F3, 0x88E7, 0x8903, 0x8909, 0x8926, 0x893F),
    *(0x894F, 0x88E5, 0x892F, 0x9200, 0x9300),
    *TAGS,
}
IP_TUNNELS = {4, 41, 47, 55, 94, 97, 98, 108, 115, 137, 142, 143, 145}
IPV6_EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
MAX_EXTENSIONS = 8


def decode(
    frame: bytes,
    *,
    wire_len: int | None = None,
    link_type: int = ETHERNET,
    mail_ports: Collection[int] = MAIL_PORTS,
) -> Decoded:
    """Decode one frame of which ``frame`` was captured."""
    whole = Region(0, frame, max(len(frame), len(frame) if wire_len is None else wire_len))
    try:
        ethertype, network, stations = decode_link(whole, link_type)
        packet = decode_arp(network) if ethertype == ARP else decode_ip(network, ethertype, mail_ports)
    except Stopped as stop:
        return stop.decoded
    return Decoded(packet.status, replace(packet, **stations))


def decode_link(whole: Region, link_type: int) -> tuple[int, Region, dict[str, int]]:
    """Return EtherType (IPv4, IPv6 or ARP), what it announces, and the link-layer columns."""
    if link_type == ETHERNET:
        header = whole.announced(14)
        columns = {
            "dst_mac": int.from_bytes(header[:6], "big"),
            "src_mac": int.from_bytes(header[6:12], "big"),
        }
        return decode_ether(int.from_bytes(header[12:], "big"), whole.after(14), columns)
    if link_type == SLL:
        _, hardware, length, address, protocol = struct.unpack(">HHH8sH", whole.announced(16))
        return decode_cooked(protocol, hardware, length, address, whole.after(16))
    if link_type == SLL2:
        protocol, _, _, hardware, _, length, address = struct.unpack(">HHIHBB8s", whole.announced(20))
        return decode_cooked(protocol, hardware, length, address, whole.after(20))
    if link_type in LOOPBACK_LINKS:
        header = whole.announced(4)
        families = {int.from_bytes(header, "big"), int.from_bytes(header, "little")}
        family = min(families)  # a small number, in either byte order
        if family != 2 and family not in INET6_FAMILIES:
            raise Stopped(FrameStatus.NOT_IP)
        return (IPV4 if family == 2 else IPV6), whole.after(4), {}
    if link_type == IPV4_LINK:
        return IPV4, whole, {}
    if link_type == IPV6_LINK:
        return IPV6, whole, {}
    if link_type in RAW_LINKS:
        version = whole.announced(1)[0] >> 4
        if version not in (4, 6):
            raise Stopped(FrameStatus.MALFORMED)
        return (IPV4 if version == 4 else IPV6), whole, {}
    raise Stopped(FrameStatus.UNKNOWN_LINK_TYPE)


def decode_cooked(
    protocol: int, hardware: int, length: int, address: bytes, rest: Region
) -> tuple[int, Region, dict[str, int]]:
    if hardware in (770, 803):
        raise Stopped(FrameStatus.UNKNOWN_LINK_TYPE)
    if hardware == 824 or (protocol < 0x600 and protocol != 4):
        raise Stopped(FrameStatus.NOT_IP)
    is_mac = hardware == 1 and length == 6
    return decode_ether(protocol, rest, {"src_mac": int.from_bytes(address[:6], "big")} if is_mac else {})


def decode_ether(ethertype: int, rest: Region, columns: dict[str, int]) -> tuple[int, Region, dict[str, int]]:
    n_tags = 0
    while ethertype in TAGS:
        if n_tags == MAX_TAGS:
            raise Stopped(FrameStatus.TOO_DEEP)
        control, ethertype = struct.unpack(">HH", rest.announced(4))
        if control & 0xFFF:
            columns = {**columns, "vlan": control & 0xFFF}
        rest = rest.after(4)
        n_tags += 1
    if ethertype <= 1500:
        ethertype, rest = decode_llc(rest)
    if ethertype in ETHER_TUNNELS:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    if ethertype not in (IPV4, IPV6, ARP):
        raise Stopped(FrameStatus.NOT_IP)
    return ethertype, rest, columns


def decode_llc(rest: Region) -> tuple[int, Region]:
    if rest.announced(2) != b"\xaa\xaa":
        raise Stopped(FrameStatus.NOT_IP)
    if rest.announced(6)[2:] not in (b"\x03\x00\x00\x00", b"\x03\x00\x00\xf8"):
        raise Stopped(FrameStatus.NOT_IP)
    return int.from_bytes(rest.announced(8)[6:], "big"), rest.after(8)


def decode_arp(body: Region) -> Packet:
    return Packet(FrameStatus.LAN, ARP, body.offset, body.offset + len(body.captured), body.wire_len)


def decode_ip(network: Region, ethertype: int, mail_ports: Collection[int]) -> Packet:
    proto, segment, addresses = decode_ipv4(network) if ethertype == IPV4 else decode_ipv6(network)
    if proto in IP_TUNNELS:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    if proto == 6:
        packet = decode_tcp(segment, mail_ports)
    elif proto == 17:
        packet = decode_udp(segment)
    else:
        raise Stopped(FrameStatus.OTHER)
    return replace(packet, **addresses)


def decode_ipv4(network: Region) -> tuple[int, Region, dict[str, int]]:
    first, _, total_len, _, fragment, _, proto, _, src, dst = struct.unpack(
        ">BBHHHBBHII", network.announced(20)
    )
    header_len = (first & 15) * 4
    if first >> 4 != 4 or header_len < 20:
        raise Stopped(FrameStatus.MALFORMED)
    packet = network.first(total_len) if total_len else network
    packet.head(header_len)
    if fragment & 0x1FFF:
        raise Stopped(FrameStatus.FRAGMENT)
    mapped = 0xFFFF00000000
    return proto, packet.after(header_len), {"src_lo": mapped + src, "dst_lo": mapped + dst}


def decode_ipv6(network: Region) -> tuple[int, Region, dict[str, int]]:
    first, payload_len, proto, _, *halves = struct.unpack(">IHBBqqqq", network.announced(40))
    if first >> 28 != 6:
        raise Stopped(FrameStatus.MALFORMED)
    rest = network.after(40)
    if payload_len:
        rest = rest.first(payload_len)
    n_extensions = 0
    while proto in IPV6_EXTENSIONS:
        if n_extensions == MAX_EXTENSIONS:
            raise Stopped(FrameStatus.TOO_DEEP)
        proto, rest = skip_extension(proto, rest)
        n_extensions += 1
    return proto, rest, dict(zip(("src_hi", "src_lo", "dst_hi", "dst_lo"), halves, strict=True))


def skip_extension(proto: int, rest: Region) -> tuple[int, Region]:
    if len(rest.captured) < 2:
        rest.head(8)  # no extension header is shorter
    following, field = rest.head(2)
    if proto == 44:
        if struct.unpack(">H", rest.head(8)[2:4])[0] >> 3:
            raise Stopped(FrameStatus.FRAGMENT)
        return following, rest.after(8)
    length = (field + 2) * 4 if proto == 51 else (field + 1) * 8
    rest.head(length)
    return following, rest.after(length)


def decode_tcp(segment: Region, mail_ports: Collection[int]) -> Packet:
    src_port, dst_port, seq, ack, offset, flags = struct.unpack(">HHIIBB", segment.head(20)[:14])
    header_len = (offset >> 4) * 4
    if header_len < 20:
        raise Stopped(FrameStatus.MALFORMED)
    segment.head(header_len)
    ports = {src_port, dst_port}
    if ports & set(mail_ports):
        status = FrameStatus.MAIL
    elif 53 in ports:
        status = FrameStatus.DNS
    else:
        raise Stopped(FrameStatus.OTHER)
    payload = segment.after(header_len)
    end = payload.offset + len(payload.captured)
    packet = Packet(status, 6, payload.offset, end, payload.wire_len)
    return replace(packet, src_port=src_port, dst_port=dst_port, seq=seq, ack=ack, tcp_flags=flags)


def decode_udp(datagram: Region) -> Packet:
    src_port, dst_port, length = struct.unpack(">HHH", datagram.head(8)[:6])
    if length == 0 and datagram.wire_len > 65535:
        length = datagram.wire_len
    if length < 8:
        raise Stopped(FrameStatus.MALFORMED, impossible_length=True)
    ports = {src_port, dst_port}
    if 53 in ports:
        status = FrameStatus.DNS
    elif ports & {67, 68}:
        status = FrameStatus.LAN
    else:
        raise Stopped(FrameStatus.OTHER)
    payload = datagram.after(8)
    if length - 8 < payload.wire_len:
        payload = payload.first(length - 8)
    end = payload.offset + len(payload.captured)
    return Packet(status, 17, payload.offset, end, payload.wire_len, src_port=src_port, dst_port=dst_port)
