"""Slow, obvious decoders: what the kernels must compute.

They see one frame as ``bytes``, so they cannot read a neighbour, and they stop by raising, so no status can
get lost on the way. Nothing is shared with sensor.decode but the names of the results.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.status import FrameStatus
from sensor.decode.watch import REQUEST_NS, WATCH_NS, place_of

if TYPE_CHECKING:
    from collections.abc import Collection

MAIL_PORTS = (25, 465, 587, 2525)
LAN_PORTS = {67, 68, 137, 138, 546, 547, 1900, 5353}
HTTP_PORTS = {80, 8080}


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
    session: int = -1
    ip_id: int = 0
    syn: tuple[Any, ...] | None = None  # what the fingerprint of a SYN is made of


@dataclass
class Watch:
    """Who mailed when: by its place, the lower half of an address and the time."""

    mailed: dict[int, tuple[int, int]] = field(default_factory=dict)
    #: When a request was looked at, by the place of whoever sent it.
    requests: dict[int, int] = field(default_factory=dict)

    def note(self, lo: int, ts_ns: int) -> None:
        self.mailed[place_of(lo)] = lo, ts_ns

    def wants_request(self, lo: int, ts_ns: int) -> bool:
        if abs(ts_ns - self.requests.get(place_of(lo), -REQUEST_NS)) < REQUEST_NS:
            return False
        self.requests[place_of(lo)] = ts_ns
        return True

    def has(self, lo: int, ts_ns: int) -> bool:
        who, when = self.mailed.get(place_of(lo), (0, 0))
        return who == lo and ts_ns - when < WATCH_NS and place_of(lo) in self.mailed


@dataclass(frozen=True)
class Decoded:
    status: FrameStatus
    packet: Packet | None = None
    impossible_lengths: int = 0
    peeled: tuple[Layer, ...] = ()


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

    def datagram_head(self, n: int) -> bytes:
        """The first ``n`` bytes of a tunnel's datagram; one that has no room for them is no tunnel's."""
        if n > self.wire_len:
            raise Stopped(FrameStatus.OTHER)
        return self.announced(n)

    def first(self, n: int) -> Region:
        return Region(self.offset, self.captured[:n], n)


@dataclass
class Inside:
    """What the layers peeled so far announce: the next one, where it lies, and the columns known by now."""

    layer: Layer
    region: Region
    columns: dict[str, int] = field(default_factory=dict)
    #: Addresses and ports of the innermost TCP or UDP header, whatever becomes of it.
    ends: dict[str, int] | None = None

    def forget_stations(self) -> None:
        self.columns |= {"src_mac": -1, "dst_mac": -1, "vlan": -1}

    def note_session(self, layer: Layer, number: int) -> None:
        self.columns["session"] = layer << 32 | number


ETHERNET, SLL, SLL2 = 1, 113, 276
LOOPBACK_LINKS, INET6_FAMILIES = (0, 108), (10, 24, 28, 30)
RAW_LINKS, IPV4_LINK, IPV6_LINK = (12, 14, 101), 228, 229
OTHER_LINKS = {
    9: Layer.PPP,
    50: Layer.PPP,
    51: Layer.PPPOE,
    104: Layer.CHDLC,
    105: Layer.WIFI,
    127: Layer.RADIOTAP,
    239: Layer.NFLOG,
}
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
CDP = 0x12000
TAGS = (0x8100, 0x88A8, 0x9100)
MAX_TAGS = 8
MAX_LAYERS = 16
ETHERTYPES = {
    IPV4: Layer.IPV4,
    IPV6: Layer.IPV6,
    ARP: Layer.ARP,
    0x6558: Layer.ETHERNET,
    0x8847: Layer.MPLS,
    0x8848: Layer.MPLS,
    0x8864: Layer.PPPOE,
    0x880B: Layer.PPP,
    0x88E7: Layer.PBB,
    0x8903: Layer.FABRICPATH,
    0x8926: Layer.VNTAG,
    0x893F: Layer.ETAG,
    0x894F: Layer.NSH,
    0x88CC: Layer.LLDP,
}
ETHER_TUNNELS = {0x22EB, 0x22F3, 0x88BE, 0x88E5, 0x8909, 0x892F, 0x9200, 0x9300, *TAGS}
PROTOCOLS = {
    4: Layer.IPV4_IN_IP,
    41: Layer.IPV6_IN_IP,
    47: Layer.GRE,
    97: Layer.ETHERIP,
    115: Layer.L2TPV3,
    137: Layer.MPLS,
    143: Layer.ETHERNET,
    145: Layer.NSH,
}
IP_TUNNELS = {55, 94, 98, 108, 142}
IPV6_EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
MAX_EXTENSIONS = 8


def decode(
    frame: bytes,
    *,
    wire_len: int | None = None,
    link_type: int = ETHERNET,
    mail_ports: Collection[int] = MAIL_PORTS,
    watch: Watch | None = None,
    ts_ns: int = 0,
) -> Decoded:
    """Decode one frame of which ``frame`` was captured; ``watch`` learns who mails."""
    whole = Region(0, frame, max(len(frame), len(frame) if wire_len is None else wire_len))
    peeled: list[Layer] = []
    try:
        packet = decode_layers(decode_link(whole, link_type), mail_ports, peeled)
        packet = watched(packet, frame, mail_ports, Watch() if watch is None else watch, ts_ns)
    except Stopped as stop:
        return replace(stop.decoded, peeled=tuple(sorted(peeled)))
    return Decoded(packet.status, packet, peeled=tuple(sorted(peeled)))


def watched(packet: Packet, frame: bytes, mail_ports: Collection[int], watch: Watch, ts_ns: int) -> Packet:
    """Note who mails; of what is nothing else, keep a request now and then, and what those who mailed say."""
    if packet.status == FrameStatus.MAIL and packet.dst_port in mail_ports:
        watch.note(packet.src_lo, ts_ns)
    if packet.status != FrameStatus.OTHER:
        return packet
    payload = frame[packet.payload_start : packet.payload_end]
    is_request = payload[:4] in {b"GET ", b"POST", b"HEAD"} and packet.dst_port in HTTP_PORTS
    if packet.proto == 6 and is_request and watch.wants_request(packet.src_lo, ts_ns):
        return replace(packet, status=FrameStatus.LAN)
    is_peer = watch.has(packet.src_lo, ts_ns) or watch.has(packet.dst_lo, ts_ns)
    is_syn = packet.tcp_flags & 0x12 == 0x02
    if is_peer and (packet.payload_len > 0 or is_syn):
        return replace(packet, status=FrameStatus.PEER)
    raise Stopped(FrameStatus.OTHER)


def innermost_ends(frame: bytes, *, wire_len: int, link_type: int) -> dict[str, int] | None:
    """Return the addresses and ports of the innermost TCP or UDP header, of interest or not."""
    whole = Region(0, frame, max(len(frame), wire_len))
    inside = Inside(Layer.NONE, whole)
    try:
        inside = decode_link(whole, link_type)
        decode_layers(inside, MAIL_PORTS, [])
    except Stopped:
        pass
    return inside.ends


def decode_layers(inside: Inside, mail_ports: Collection[int], peeled: list[Layer]) -> Packet:
    """Decode the innermost packet; the frame's own network header is not among the layers that are counted."""
    if inside.layer in NETWORKS:
        packet = decode_network(inside, mail_ports)
        if packet:
            return replace(packet, **inside.columns)
    for _ in range(MAX_LAYERS):
        if inside.layer in NETWORKS:
            packet = decode_network(inside, mail_ports)
            if packet:
                return replace(packet, **inside.columns)
        else:
            peeled.append(inside.layer)
            reference_tunnels.PEEL[inside.layer](inside)
    raise Stopped(FrameStatus.TOO_DEEP)


LAN_TYPES = {Layer.ARP: 0x0806, Layer.LLDP: 0x88CC, Layer.CDP: 0x12000}
NETWORKS = (Layer.IPV4, Layer.IPV6, *LAN_TYPES)


def decode_network(inside: Inside, mail_ports: Collection[int]) -> Packet | None:
    """Return the packet, or None if it carries another: ``inside`` is that one then."""
    if inside.layer in LAN_TYPES:
        return decode_lan(inside.region, LAN_TYPES[inside.layer])
    network = inside.region
    inside.ends = None
    proto, segment, addresses = (decode_ipv4 if inside.layer == Layer.IPV4 else decode_ipv6)(network)
    if proto in (6, 17) and len(segment.captured) >= 4:
        src_port, dst_port = struct.unpack(">HH", segment.captured[:4])
        inside.ends = {**addresses, "src_port": src_port, "dst_port": dst_port}
    if proto == 6:
        packet = replace(decode_tcp(segment, mail_ports), **addresses)
        if packet.syn is None:
            return packet
        ttl = network.captured[8 if inside.layer == Layer.IPV4 else 7]
        return replace(
            packet, syn=(inside.layer, min(t for t in (32, 64, 128, 255) if ttl <= t), *packet.syn)
        )
    is_on_link = inside.layer == Layer.IPV6 and network.captured[7] == 255
    if proto == 58 and is_on_link and segment.captured[:1] in {b"\x85", b"\x86", b"\x87", b"\x88"}:
        end = segment.offset + len(segment.captured)
        return Packet(FrameStatus.LAN, 58, segment.offset, end, segment.wire_len, **addresses)
    if proto == 17:
        packet, payload = decode_udp(segment)
        if packet.status != FrameStatus.OTHER:
            return replace(packet, **addresses)
        try:
            inside.layer = reference_tunnels.tunnel_of_ports(packet.src_port, packet.dst_port)
        except Stopped:
            return replace(packet, **addresses)
        inside.region = payload
    elif proto in PROTOCOLS:
        inside.layer, inside.region = PROTOCOLS[proto], segment
    else:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL if proto in IP_TUNNELS else FrameStatus.OTHER)
    inside.forget_stations()
    return None


def decode_link(whole: Region, link_type: int) -> Inside:
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
        return Inside(Layer.IPV4 if family == 2 else Layer.IPV6, whole.after(4))
    if link_type == IPV4_LINK:
        return Inside(Layer.IPV4, whole)
    if link_type == IPV6_LINK:
        return Inside(Layer.IPV6, whole)
    if link_type in RAW_LINKS:
        version = whole.announced(1)[0] >> 4
        if version not in (4, 6):
            raise Stopped(FrameStatus.MALFORMED)
        return Inside(Layer.IPV4 if version == 4 else Layer.IPV6, whole)
    if link_type in OTHER_LINKS:
        return Inside(OTHER_LINKS[link_type], whole)
    raise Stopped(FrameStatus.UNKNOWN_LINK_TYPE)


def decode_cooked(protocol: int, hardware: int, length: int, address: bytes, rest: Region) -> Inside:
    if hardware == 770:
        raise Stopped(FrameStatus.UNKNOWN_LINK_TYPE)
    if hardware in (801, 803):
        return Inside(Layer.WIFI if hardware == 801 else Layer.RADIOTAP, rest)
    if hardware == 824 or (protocol < 0x600 and protocol != 4):
        raise Stopped(FrameStatus.NOT_IP)
    is_mac = hardware == 1 and length == 6
    return decode_ether(protocol, rest, {"src_mac": int.from_bytes(address[:6], "big")} if is_mac else {})


def decode_ether(ethertype: int, rest: Region, columns: dict[str, int]) -> Inside:
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
    return Inside(layer_of(ethertype), rest, columns)


def layer_of(ethertype: int) -> Layer:
    if ethertype == CDP:
        return Layer.CDP
    if ethertype in ETHERTYPES:
        return ETHERTYPES[ethertype]
    raise Stopped(FrameStatus.UNKNOWN_TUNNEL if ethertype in ETHER_TUNNELS else FrameStatus.NOT_IP)


def decode_llc(rest: Region) -> tuple[int, Region]:
    if rest.announced(2) != b"\xaa\xaa":
        raise Stopped(FrameStatus.NOT_IP)
    if rest.captured[2:8] == bytes.fromhex("0300000c2000"):
        return CDP, rest.after(8)
    if rest.announced(6)[2:] not in (b"\x03\x00\x00\x00", b"\x03\x00\x00\xf8"):
        raise Stopped(FrameStatus.NOT_IP)
    return int.from_bytes(rest.announced(8)[6:], "big"), rest.after(8)


def decode_lan(body: Region, proto: int) -> Packet:
    return Packet(FrameStatus.LAN, proto, body.offset, body.offset + len(body.captured), body.wire_len)


def decode_ipv4(network: Region) -> tuple[int, Region, dict[str, int]]:
    first, _, total_len, ip_id, fragment, _, proto, _, src, dst = struct.unpack(
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
    return proto, packet.after(header_len), {"src_lo": mapped + src, "dst_lo": mapped + dst, "ip_id": ip_id}


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
    if header_len > segment.wire_len:
        raise Stopped(FrameStatus.MALFORMED, impossible_length=True)
    ports = {src_port, dst_port}
    if ports & set(mail_ports):
        status = FrameStatus.MAIL
    elif 53 in ports:
        status = FrameStatus.DNS
    else:
        status = FrameStatus.OTHER
    payload = segment.after(header_len)
    end = segment.offset + len(segment.captured)
    packet = Packet(status, 6, min(payload.offset, end), end, payload.wire_len)
    if flags & 0x12 == 0x02 and header_len <= len(segment.captured):
        window = int.from_bytes(segment.captured[14:16], "big")
        packet = replace(packet, syn=(window, *tcp_options(segment.captured[20:header_len])))
    return replace(packet, src_port=src_port, dst_port=dst_port, seq=seq, ack=ack, tcp_flags=flags)


def tcp_options(options: bytes) -> list[tuple[int, bytes]]:
    """The kinds of TCP's options in their order, with the values of those that a stack chooses."""
    found = []
    while options:
        kind = options[0]
        size = 1 if kind in (0, 1) else max(options[1], 2) if len(options) > 1 else 2
        value = {2: options[2:4].ljust(2, b"\xff"), 3: options[2:3] or b"\xff"}.get(kind, b"")
        if kind == 2 and len(options) < 4:
            value = b"\xff\xff"
        found.append((kind, value))
        if kind == 0:
            break
        options = options[size:]
    return found


def decode_udp(datagram: Region) -> tuple[Packet, Region]:
    src_port, dst_port, length = struct.unpack(">HHH", datagram.head(8)[:6])
    if length == 0 and datagram.wire_len > 65535:
        length = datagram.wire_len
    if length < 8:
        raise Stopped(FrameStatus.MALFORMED, impossible_length=True)
    ports = {src_port, dst_port}
    if 53 in ports:
        status = FrameStatus.DNS
    elif ports & LAN_PORTS:
        status = FrameStatus.LAN
    else:
        status = FrameStatus.OTHER
    payload = datagram.after(8)
    if length - 8 < payload.wire_len:
        payload = payload.first(length - 8)
    end = payload.offset + len(payload.captured)
    packet = Packet(status, 17, payload.offset, end, payload.wire_len, src_port=src_port, dst_port=dst_port)
    return packet, payload


from tests import reference_tunnels  # noqa: E402 - the two know each other: layers nest
