"""What real captures hold above IP, cut out by scapy: payloads for decoders that see one message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scapy.layers.l2  # noqa: F401  # registers what a capture's frames begin with
from scapy.config import conf
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.utils import PcapReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from scapy.packet import Packet


def udp_payloads(path: Path, ports: Collection[int]) -> list[bytes]:
    """Return the payloads of all datagrams to or from one of the ports, as far as they were captured."""
    return [
        bytes(packet[UDP].payload.original)
        for packet in _packets(path)
        if UDP in packet and not {packet[UDP].sport, packet[UDP].dport}.isdisjoint(ports)
    ]


def tcp_payloads(path: Path) -> list[bytes]:
    """Return the payloads of all segments that have one, as far as they were captured."""
    segments = [bytes(packet[TCP].payload.original) for packet in _packets(path) if TCP in packet]
    return [segment for segment in segments if segment]


def arp_packets(path: Path) -> list[bytes]:
    """Return the ARP packets, from the hardware type on, with their padding."""
    return [bytes(packet[ARP].original) for packet in _packets(path) if ARP in packet]


def discovery_packets(path: Path) -> list[bytes]:
    """Return the messages of IPv6 neighbour discovery, from the ICMPv6 type on."""
    found = []
    for packet in _packets(path):
        if IPv6 in packet and packet[IPv6].nh == 58 and packet[IPv6].payload.original:
            message = bytes(packet[IPv6].payload.original)[: packet[IPv6].plen]
            if message and 133 <= message[0] <= 136:
                found.append(message)
    return found


def _packets(path: Path) -> Iterator[Packet]:
    # Scapy would look into the payloads too, and it warns of what it finds there.
    level, conf.logLevel = conf.logLevel, 50
    try:
        with PcapReader(str(path)) as reader:
            yield from reader
    finally:
        conf.logLevel = level
