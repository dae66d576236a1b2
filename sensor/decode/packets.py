"""Packet columns: the decoded headers of the frames that matter; all else is counted and passed over."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.fingerprint import syn_fingerprint
from sensor.decode.ip import IpProtocol, decode_ip, protocol_layer, read_ip_addresses
from sensor.decode.layers import LAN_LAYERS, NETWORK_LAYERS, Layer
from sensor.decode.link import EtherType, decode_link, read_stations
from sensor.decode.peel import MAX_LAYERS, peel_layer
from sensor.decode.shims import forget_stations
from sensor.decode.status import UNDECIDED, FrameStatus
from sensor.decode.transport import TcpFlag, decode_tcp, decode_udp
from sensor.decode.udp_tunnels import TUNNEL_PORTS, udp_layer
from sensor.decode.watch import is_request_due, is_watched, note_mail
from sensor.decode.wire import read_u8, read_u16, read_u32
from sensor.jit import inlined, inner, kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

PACKET_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),
        ("src_hi", np.int64),
        ("src_lo", np.int64),
        ("dst_hi", np.int64),
        ("dst_lo", np.int64),
        ("src_mac", np.int64),  # of the innermost Ethernet or 802.11 frame; -1 not known
        ("dst_mac", np.int64),
        ("payload_start", np.int64),  # layer-4 payload in the batch's data
        ("payload_end", np.int64),  # end of what was captured of it
        ("payload_len", np.int64),  # its length on the wire
        ("seq", np.int64),
        ("ack", np.int64),
        ("frame", np.int64),  # row of the frame in its batch
        ("fingerprint", np.int64),  # of a SYN without ACK (decode/fingerprint.py), else 0
        (
            "session",
            np.int64,
        ),  # of the innermost tunnel that numbers its sessions: Layer << 32 | number; -1 none
        ("vlan", np.int32),  # of the innermost frame, by its tag or as a mirror reports it; -1 none
        ("src_port", np.int32),
        ("dst_port", np.int32),
        ("tcp_flags", np.int32),
        ("status", np.int32),  # FrameStatus: MAIL, DNS, LAN or PEER
        ("proto", np.int32),  # IANA protocol number; where there is no IP, the EtherType
        ("ip_id", np.int32),  # IPv4 identification; 0 where there is no IPv4
    ]
)

N_PORTS = 65536
_DNS_PORT = 53  # RFC 1035 section 4.2
#: UDP ports on which devices say who they are.
NETBIOS_NAME_PORT, NETBIOS_DATAGRAM_PORT = 137, 138  # RFC 1001 section 6
MDNS_PORT = 5353  # RFC 6762 section 3
SSDP_PORT = 1900  # UPnP Device Architecture 1.1 section 1
DHCP_PORTS = (67, 68)  # RFC 2131 section 4.1
DHCPV6_PORTS = (546, 547)  # RFC 8415 section 7.2
_LAN_PORTS = (*DHCP_PORTS, *DHCPV6_PORTS, MDNS_PORT, SSDP_PORT, NETBIOS_NAME_PORT, NETBIOS_DATAGRAM_PORT)
_HTTP_PORTS = (80, 8080)
_REQUESTS = (0x47455420, 0x504F5354, 0x48454144)  # "GET ", "POST", "HEAD" (RFC 9110 section 9.3)
_ND_FIRST, _ND_LAST = 133, 136  # ICMPv6 types of neighbour discovery (RFC 4861 section 4)
_ON_LINK = (
    255  # the hop limit that neighbour discovery demands: no router has passed it on (RFC 4861 section 3.1)
)
_SYN, _ACK = int(TcpFlag.SYN), int(TcpFlag.ACK)


class PortClass(IntEnum):
    """What a port number makes of a packet; mail and HTTP are TCP only, LAN and tunnels are UDP only."""

    OTHER = 0
    MAIL = 1
    DNS = 2
    LAN = 3
    TUNNEL = 4  # of UDP, unless the other port is of DNS or LAN
    HTTP = 5


def port_classes(mail_ports: Iterable[int]) -> NDArray[np.uint8]:
    """Return the table that ``decode_batch`` looks ports up in: PortClass, u8[65536].

    Raises ValueError for a mail port that is no port, or that DNS, a protocol of the LAN or a tunnel has.
    """
    table = np.zeros(N_PORTS, dtype=np.uint8)
    table[_DNS_PORT] = PortClass.DNS
    table[list(_LAN_PORTS)] = PortClass.LAN
    table[list(_HTTP_PORTS)] = PortClass.HTTP
    table[list(TUNNEL_PORTS)] = PortClass.TUNNEL
    for port in mail_ports:
        if not 0 < port < N_PORTS or table[port] not in (PortClass.OTHER, PortClass.MAIL, PortClass.HTTP):
            raise ValueError(f"port {port} cannot be a mail port")
        table[port] = PortClass.MAIL
    return table


@inlined
def tcp_status(a: int, b: int) -> int:
    """Return the status of a TCP segment between ports of the classes ``a`` and ``b``."""
    if PortClass.MAIL in (a, b):
        return FrameStatus.MAIL
    if PortClass.DNS in (a, b):
        return FrameStatus.DNS
    return FrameStatus.OTHER


@inlined
def udp_status(a: int, b: int) -> int:
    """Return the status of a UDP datagram between ports of the classes ``a`` and ``b``; UNDECIDED: maybe a tunnel."""
    if PortClass.DNS in (a, b):
        return FrameStatus.DNS
    if PortClass.LAN in (a, b):
        return FrameStatus.LAN
    if PortClass.TUNNEL in (a, b):
        return UNDECIDED
    return FrameStatus.OTHER


@inlined
def is_row(status: int) -> bool:
    """Tell whether a frame of this status becomes a row."""
    return status in (FrameStatus.MAIL, FrameStatus.DNS, FrameStatus.LAN, FrameStatus.PEER)


@inlined
def fill_payload(packet: Any, pos: int, end: int, payload_len: int) -> None:
    """Store a payload's place: ``payload_len`` bytes on the wire, captured up to ``end`` at most."""
    packet["payload_start"] = min(pos, end)
    packet["payload_end"] = min(end, pos + payload_len)
    packet["payload_len"] = payload_len


@inlined
def fill_lan(packet: Any, layer: int, pos: int, end: int, wire_end: int) -> None:
    """Store the columns of a frame without IP; its payload is all that follows, padding included."""
    packet["src_hi"] = packet["src_lo"] = packet["dst_hi"] = packet["dst_lo"] = 0
    packet["src_port"] = packet["dst_port"] = 0
    packet["seq"] = packet["ack"] = packet["tcp_flags"] = packet["fingerprint"] = 0
    if layer == Layer.ARP:
        packet["proto"] = EtherType.ARP
    else:
        packet["proto"] = EtherType.LLDP if layer == Layer.LLDP else EtherType.CDP
    packet["ip_id"] = 0
    fill_payload(packet, pos, end, wire_end - pos)


@inlined
def fill_link(data: Bytes, frame: Any, vlan: int, packet: Any) -> None:
    """Store the columns of the frame's link header."""
    start = frame["offset"]
    src_mac, dst_mac = read_stations(data, start, start + frame["captured_len"], frame["link_type"])
    packet["src_mac"] = src_mac
    packet["dst_mac"] = dst_mac
    packet["vlan"] = vlan
    packet["session"] = -1


@inlined
def fill_ip(data: Bytes, packet: Any, network: int, end: int, layer: int, proto: int) -> None:
    """Store the columns of an IP header at ``network``."""
    src_hi, src_lo, dst_hi, dst_lo = read_ip_addresses(data, network, end, layer)
    packet["src_hi"] = src_hi
    packet["src_lo"] = src_lo
    packet["dst_hi"] = dst_hi
    packet["dst_lo"] = dst_lo
    packet["proto"] = proto
    packet["ip_id"] = read_u16(data, network + 4, end) if layer == Layer.IPV4 else 0


@inlined
def fill_tcp(data: Bytes, packet: Any, network: int, segment: int, end: int, layer: int) -> None:
    """Store the columns that TCP alone has (RFC 9293 section 3.1)."""
    flags = read_u8(data, segment + 13, end)
    packet["seq"] = read_u32(data, segment + 4, end)
    packet["ack"] = read_u32(data, segment + 8, end)
    packet["tcp_flags"] = flags
    packet["fingerprint"] = 0
    if flags & (_SYN | _ACK) == _SYN:
        packet["fingerprint"] = syn_fingerprint(data, network, segment, end, layer)


@inlined
def says_something(data: Bytes, segment: int, end: int, proto: int, payload_len: int) -> bool:
    """Tell whether a packet brings bytes or opens a connection: bare acknowledgements do neither."""
    if payload_len > 0:
        return True
    return proto == IpProtocol.TCP and read_u8(data, segment + 13, end) & (_SYN | _ACK) == _SYN


@inlined
def fill_udp(packet: Any) -> None:
    """Clear the columns that TCP alone has."""
    packet["seq"] = packet["ack"] = packet["tcp_flags"] = packet["fingerprint"] = 0


@inlined
def decode_segment(
    data: Bytes,
    network: int,
    pos: int,
    end: int,
    wire_end: int,
    layer: int,
    proto: int,
    ts_ns: int,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packet: Any,
    weirds: NDArray[np.int64],
) -> int:
    """Decode the TCP or UDP header at ``pos`` and return the frame's status.

    The ports decide it and, where they say nothing, whether one of the ends has mailed lately. UNDECIDED if they
    are a tunnel's: then ``packet`` has the ports, and where the payload lies.
    """
    if proto == IpProtocol.TCP:
        status, payload, payload_len = decode_tcp(data, pos, end, wire_end, weirds)
    else:
        status, payload, payload_len = decode_udp(data, pos, end, wire_end, weirds)
    if status != UNDECIDED:
        return status
    src_port, dst_port = read_u16(data, pos, end), read_u16(data, pos + 2, end)
    src_class, dst_class = int(port_class[src_port]), int(port_class[dst_port])
    _, src_lo, _, dst_lo = read_ip_addresses(data, network, end, layer)
    is_tcp = proto == IpProtocol.TCP
    status = tcp_status(src_class, dst_class) if is_tcp else udp_status(src_class, dst_class)
    if status == FrameStatus.MAIL and dst_class == PortClass.MAIL:
        note_mail(watch, src_lo, ts_ns)
    is_to_web = status == FrameStatus.OTHER and is_tcp and dst_class == PortClass.HTTP
    if is_to_web and read_u32(data, payload, end) in _REQUESTS and is_request_due(watch, src_lo, ts_ns):
        status = FrameStatus.LAN
    if status == FrameStatus.OTHER:
        is_peer = is_watched(watch, src_lo, ts_ns) or is_watched(watch, dst_lo, ts_ns)
        if not is_peer or not says_something(data, pos, end, proto, payload_len):
            return status
        status = FrameStatus.PEER
    if is_tcp:
        fill_tcp(data, packet, network, pos, end, layer)
    else:
        fill_udp(packet)
    packet["src_port"] = src_port
    packet["dst_port"] = dst_port
    fill_payload(packet, payload, end, payload_len)
    return status


@inlined
def is_discovery(data: Bytes, network: int, segment: int, end: int, layer: int) -> bool:
    """Tell whether an ICMPv6 message is of neighbour discovery, and from a neighbour."""
    if layer != Layer.IPV6 or read_u8(data, network + 7, end) != _ON_LINK:
        return False
    return _ND_FIRST <= read_u8(data, segment, end) <= _ND_LAST


@inlined
def decode_ip_packet(
    data: Bytes,
    network: int,
    end: int,
    wire_end: int,
    layer: int,
    ts_ns: int,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packet: Any,
    weirds: NDArray[np.int64],
) -> tuple[int, int, int, int, int]:
    """Decode the IP packet at ``network``. Returns as ``decode_network``."""
    status, proto, segment, end, wire_end = decode_ip(data, network, end, wire_end, layer, weirds)
    if status != UNDECIDED:
        return status, Layer.NONE, segment, end, wire_end
    if proto == IpProtocol.ICMPV6 and is_discovery(data, network, segment, end, layer):
        fill_udp(packet)
        packet["src_port"] = packet["dst_port"] = 0
        fill_payload(packet, segment, end, wire_end - segment)
        fill_ip(data, packet, network, end, layer, proto)
        return FrameStatus.LAN, Layer.NONE, segment, end, wire_end
    if proto not in (IpProtocol.TCP, IpProtocol.UDP):
        status, inside = protocol_layer(proto)
        return status, inside, segment, end, wire_end
    status = decode_segment(
        data, network, segment, end, wire_end, layer, proto, ts_ns, port_class, watch, packet, weirds
    )
    if status == UNDECIDED:
        payload = packet["payload_start"]
        status, inside = udp_layer(packet["src_port"], packet["dst_port"])
        return status, inside, payload, packet["payload_end"], payload + packet["payload_len"]
    if is_row(status):
        fill_ip(data, packet, network, end, layer, proto)
    return status, Layer.NONE, segment, end, wire_end


@inlined
def decode_network(
    data: Bytes,
    layer: int,
    network: int,
    end: int,
    wire_end: int,
    ts_ns: int,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packet: Any,
    weirds: NDArray[np.int64],
) -> tuple[int, int, int, int, int]:
    """Decode what begins with a network header: (status, Layer inside, its position, its end, its end on the wire).

    Status is UNDECIDED if the packet carries another; else the other values mean nothing.
    """
    if layer in LAN_LAYERS:
        fill_lan(packet, layer, network, end, wire_end)
        return FrameStatus.LAN, Layer.NONE, network, end, wire_end
    return decode_ip_packet(data, network, end, wire_end, layer, ts_ns, port_class, watch, packet, weirds)


@inner
def decode_inside(
    data: Bytes,
    layer: int,
    pos: int,
    end: int,
    wire_end: int,
    ts_ns: int,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packet: Any,
    peeled: NDArray[np.int64],
    weirds: NDArray[np.int64],
) -> int:
    """Peel the layers from ``pos`` on, decode the innermost packet, and return the frame's status.

    A function of its own, so that frames without a tunnel do not pay for its registers.
    """
    for _ in range(MAX_LAYERS):
        if layer in NETWORK_LAYERS:
            status, layer, pos, end, wire_end = decode_network(
                data, layer, pos, end, wire_end, ts_ns, port_class, watch, packet, weirds
            )
            if status == UNDECIDED:
                forget_stations(packet)
        else:
            peeled[layer] += 1
            status, layer, pos = peel_layer(data, layer, pos, end, wire_end, packet, weirds)
        if status != UNDECIDED:
            return status
    return FrameStatus.TOO_DEEP


@inlined
def decode_frame(
    data: Bytes,
    frame: Any,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packet: Any,
    peeled: NDArray[np.int64],
    weirds: NDArray[np.int64],
) -> int:
    """Decode one frame (a FRAME_DTYPE record) and return its status.

    ``packet``, a PACKET_DTYPE record, is whole but for its ``frame`` column if the status is one that becomes
    a row; else it is unspecified.
    """
    start, link_type = frame["offset"], frame["link_type"]
    end = start + frame["captured_len"]
    wire_end = max(end, start + frame["wire_len"])
    status, layer, pos, vlan = decode_link(data, start, end, link_type)
    if status != UNDECIDED:
        return status
    is_network = layer in NETWORK_LAYERS
    if is_network:
        status, layer, pos, end, wire_end = decode_network(
            data, layer, pos, end, wire_end, frame["ts_ns"], port_class, watch, packet, weirds
        )
    if status == UNDECIDED or is_row(status):
        fill_link(data, frame, vlan, packet)
    if status == UNDECIDED:
        if is_network:
            forget_stations(packet)
        status = decode_inside(
            data, layer, pos, end, wire_end, frame["ts_ns"], port_class, watch, packet, peeled, weirds
        )
    if is_row(status):
        packet["ts_ns"] = frame["ts_ns"]
        packet["status"] = status
    return status


@kernel
def decode_batch(
    data: Bytes,
    frames: NDArray[Any],
    first: int,
    port_class: NDArray[np.uint8],
    watch: NDArray[Any],
    packets: NDArray[Any],
    status_counts: NDArray[np.int64],
    peeled: NDArray[np.int64],
    weirds: NDArray[np.int64],
) -> tuple[int, int]:
    """Decode the headers of ``frames[first:]`` and return (packets written, frame to resume at).

    ``data``: u8[n_bytes], the batch's bytes; ``frames``: FRAME_DTYPE[n_frames], each within ``data``;
    ``port_class``: u8[65536], ``port_classes``; ``watch``: in/out, ``new_watch``; ``packets``:
    PACKET_DTYPE[n_out], n_out > 0, out, one row per frame whose status is MAIL, DNS, LAN or PEER, and
    unspecified behind those; ``status_counts``: i64[N_FRAME_STATUSES], ``peeled``: i64[N_LAYERS] and
    ``weirds``: i64[N_WEIRDS], in/out, counted up.

    The frame to resume at is ``len(frames)`` when all were decoded; else ``packets`` was full. Exactly one
    status is counted for each frame before it.
    """
    n_packets = 0
    for row in range(first, len(frames)):
        if n_packets == len(packets):
            return n_packets, row
        packet = packets[n_packets]
        status = decode_frame(data, frames[row], port_class, watch, packet, peeled, weirds)
        status_counts[status] += 1
        if is_row(status):
            packet["frame"] = row
            n_packets += 1
    return n_packets, len(frames)
