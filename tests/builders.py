"""Frames built byte by byte, header inside header: ``ether(IPV4, ipv4(TCP, tcp(b"QUIT", dst_port=25)))``.

The fields that a decoder looks at can be set, to wrong values too; the rest is as in a healthy packet.
Addresses are from RFC 5737 and RFC 3849. Checksums of TCP and UDP are left zero.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np

from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType

if TYPE_CHECKING:
    from collections.abc import Sequence

IPV4, ARP, VLAN, IPV6, QINQ, QINQ_OLD = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88A8, 0x9100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOPOPT, IPV6_ROUTE, IPV6_FRAG, AH, IPV6_OPTS, MOBILITY = 0, 43, 44, 51, 60, 135
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

SRC_MAC, DST_MAC = 0x020000000001, 0x020000000002
SRC4, DST4 = "192.0.2.1", "198.51.100.2"
SRC6, DST6 = "2001:db8::1", "2001:db8:ffff::2"


def mac_bytes(mac: int) -> bytes:
    return mac.to_bytes(6, "big")


def ether(ethertype: int, payload: bytes, *, src: int = SRC_MAC, dst: int = DST_MAC) -> bytes:
    return mac_bytes(dst) + mac_bytes(src) + struct.pack(">H", ethertype) + payload


def tagged(ethertype: int, payload: bytes, vlan: int, *, priority: int = 0) -> bytes:
    """What follows an EtherType of VLAN, QINQ or QINQ_OLD."""
    return struct.pack(">HH", priority << 13 | vlan, ethertype) + payload


def snap(ethertype: int, payload: bytes, *, organisation: int = 0) -> bytes:
    """What follows an IEEE 802.3 length field."""
    return b"\xaa\xaa\x03" + organisation.to_bytes(3, "big") + struct.pack(">H", ethertype) + payload


def sll(
    protocol: int,
    payload: bytes,
    *,
    src: int = SRC_MAC,
    address_len: int = 6,
    hardware: int = 1,
    kind: int = 0,
) -> bytes:
    header = struct.pack(">HHH", kind, hardware, address_len) + mac_bytes(src) + b"\0\0"
    return header + struct.pack(">H", protocol) + payload


def sll2(
    protocol: int,
    payload: bytes,
    *,
    src: int = SRC_MAC,
    address_len: int = 6,
    hardware: int = 1,
    kind: int = 0,
) -> bytes:
    header = struct.pack(">HHIHBB", protocol, 0, 3, hardware, kind, address_len)
    return header + mac_bytes(src) + b"\0\0" + payload


def arp(
    *, operation: int = 1, src: int = SRC_MAC, src_ip: str = SRC4, dst: int = 0, dst_ip: str = DST4
) -> bytes:
    header = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    sender, target = mac_bytes(src) + ip_address(src_ip).packed, mac_bytes(dst) + ip_address(dst_ip).packed
    return header + sender + target


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    proto: int,
    payload: bytes,
    *,
    src: str = SRC4,
    dst: str = DST4,
    options: bytes = b"",
    version: int = 4,
    ihl: int | None = None,
    total_len: int | None = None,
    more_fragments: bool = False,
    fragment_offset: int = 0,
    identification: int = 1,
) -> bytes:
    """``options``: a multiple of 4 bytes; ``ihl``: 32-bit words; ``fragment_offset``: 8-byte units."""
    header_len = 20 + len(options)
    header = struct.pack(
        ">BBHHHBBH4s4s",
        version << 4 | (header_len // 4 if ihl is None else ihl),
        0,
        (header_len + len(payload) if total_len is None else total_len) & 0xFFFF,
        identification & 0xFFFF,
        more_fragments << 13 | fragment_offset,
        64,
        proto,
        0,
        ip_address(src).packed,
        ip_address(dst).packed,
    )
    header += options
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + payload


def ipv6(
    proto: int,
    payload: bytes,
    *,
    src: str = SRC6,
    dst: str = DST6,
    version: int = 6,
    payload_len: int | None = None,
    hop_limit: int = 64,
) -> bytes:
    length = (len(payload) if payload_len is None else payload_len) & 0xFFFF
    header = struct.pack(">IHBB", version << 28, length, proto, hop_limit)
    return header + ip_address(src).packed + ip_address(dst).packed + payload


def extension(proto: int, payload: bytes, *, units: int = 0) -> bytes:
    """An extension header of 8 + 8 * ``units`` bytes that is followed by ``proto``."""
    return struct.pack(">BB", proto, units) + bytes(6 + 8 * units) + payload


def auth_header(proto: int, payload: bytes, *, words: int = 4) -> bytes:
    """An AH of 8 + 4 * ``words`` bytes that is followed by ``proto``."""
    return struct.pack(">BB", proto, words) + bytes(6 + 4 * words) + payload


def fragment(proto: int, payload: bytes, *, offset: int = 0, more: bool = True) -> bytes:
    """A fragment header; ``offset`` in 8-byte units."""
    return struct.pack(">BBHI", proto, 0, offset << 3 | more, 7) + payload


def tcp(
    payload: bytes = b"",
    *,
    src_port: int = 40000,
    dst_port: int = 25,
    seq: int = 1000,
    ack: int = 2000,
    flags: int = ACK,
    options: bytes = b"",
    data_offset: int | None = None,
) -> bytes:
    """``options``: a multiple of 4 bytes; ``data_offset``: 32-bit words."""
    words = (20 + len(options)) // 4 if data_offset is None else data_offset
    header = struct.pack(">HHIIBBHHH", src_port, dst_port, seq, ack, words << 4, flags, 65535, 0, 0)
    return header + options + payload


def udp(
    payload: bytes = b"", *, src_port: int = 40000, dst_port: int = 53, length: int | None = None
) -> bytes:
    length = 8 + len(payload) if length is None else length
    return struct.pack(">HHHH", src_port, dst_port, length & 0xFFFF, 0) + payload


def batch(
    frames: Sequence[bytes],
    *,
    link_type: int | Sequence[int] = LinkType.ETHERNET,
    wire_lens: Sequence[int] | None = None,
    ts_ns: Sequence[int] | None = None,
    gap: bytes = b"",
) -> FrameBatch:
    """Lay frames out as a capture source would, ``gap`` before each and behind the last."""
    data = bytearray(gap)
    rows = np.zeros(len(frames), dtype=FRAME_DTYPE)
    for row, frame in zip(rows, frames, strict=True):
        row["offset"], row["captured_len"] = len(data), len(frame)
        data += frame + gap
    rows["link_type"] = link_type
    rows["wire_len"] = rows["captured_len"] if wire_lens is None else wire_lens
    rows["ts_ns"] = np.arange(len(frames)) * 1_000_000 if ts_ns is None else ts_ns
    return FrameBatch(np.frombuffer(data, dtype=np.uint8), rows)
