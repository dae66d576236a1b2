"""What decode_arp and decode_dhcp must answer, written to be obviously right."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sensor.decode.lan import LanStatus

PAD, END = 0, 255
HOST_NAME, REQUESTED, LEASE, OVERLOAD, MESSAGE_TYPE, VENDOR_CLASS, FQDN = 12, 50, 51, 52, 53, 60, 81


@dataclass
class Arp:
    status: LanStatus = LanStatus.OK
    op: int = 0
    sender_mac: int = -1
    sender: bytes = b""  # IPv4; empty: none
    target: bytes = b""
    is_gratuitous: bool = False
    is_probe: bool = False


@dataclass
class Dhcp:
    status: LanStatus = LanStatus.OK
    op: int = 0
    message_type: int = 0
    chaddr: int = -1
    ciaddr: bytes = b""
    yiaddr: bytes = b""
    requested: bytes = b""
    lease_s: int = -1
    host_name: str = ""
    vendor_class: str = ""


def some_address(octets: bytes) -> bytes:
    return b"" if octets == bytes(4) else octets


def device_mac(octets: bytes) -> int:
    return -1 if octets[0] & 1 or octets == bytes(6) else int.from_bytes(octets, "big")


def decode_arp(packet: bytes) -> Arp:
    arp = Arp(status=LanStatus.TRUNCATED)
    if len(packet) < 8:
        return arp
    hardware, protocol, hardware_len, protocol_len, arp.op = struct.unpack_from("!HHBBH", packet)
    if (hardware, protocol) != (1, 0x0800):
        arp.status = LanStatus.UNSUPPORTED
    elif (hardware_len, protocol_len) != (6, 4):
        arp.status = LanStatus.MALFORMED
    elif arp.op not in {1, 2}:
        arp.status = LanStatus.UNSUPPORTED
    elif len(packet) >= 28:
        sender_mac, sender, _, target = struct.unpack_from("!6s4s6s4s", packet, 8)
        if device_mac(sender_mac) < 0:
            arp.status = LanStatus.MALFORMED
            return arp
        arp.status = LanStatus.OK
        arp.sender_mac = device_mac(sender_mac)
        arp.sender = some_address(sender)
        arp.target = some_address(target)
        arp.is_probe = not arp.sender
        arp.is_gratuitous = sender == target and not arp.is_probe
    return arp


def read_options(field: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Return the options of a field, and whether their end was marked."""
    options = []
    while field and field[0] != END:
        if field[0] == PAD:
            field = field[1:]
            continue
        if len(field) < 2 or len(field) < 2 + field[1]:
            return options, False
        options.append((field[0], field[2 : 2 + field[1]]))
        field = field[2 + field[1] :]
    return options, bool(field)


def printable(octets: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet <= 0x7E else "?" for octet in octets.rstrip(b"\0 "))


def fqdn(data: bytes) -> str | None:
    if len(data) < 3:
        return None
    flags, labels = data[0], data[3:]
    if not flags & 4:
        return printable(labels)
    parts = []
    while labels and labels[0]:
        if len(labels) < 1 + labels[0]:
            return None
        parts.append(printable(labels[1 : 1 + labels[0]]))
        labels = labels[1 + labels[0] :]
    return ".".join(parts)


def decode_dhcp(message: bytes) -> Dhcp:
    dhcp = Dhcp(status=LanStatus.TRUNCATED)
    if len(message) < 44:
        return dhcp
    op, htype, hlen = message[:3]
    if op not in {1, 2}:
        dhcp.status = LanStatus.MALFORMED
        return dhcp
    dhcp.op = op
    dhcp.ciaddr = some_address(message[12:16])
    dhcp.yiaddr = some_address(message[16:20])
    if htype in {1, 6} and hlen == 6:
        dhcp.chaddr = device_mac(message[28:34])
    if len(message) < 240:
        return dhcp
    if message[236:240] != bytes([99, 130, 83, 99]):
        dhcp.status = LanStatus.UNSUPPORTED
        return dhcp

    options, ended = read_options(message[240:])
    problems = [] if ended else [LanStatus.TRUNCATED]
    overload = next((data for code, data in options if code == OVERLOAD), b"\0")
    if overload not in {b"\0", b"\1", b"\2", b"\3"}:
        problems.insert(0, LanStatus.MALFORMED)
        overload = b"\0"
    for bit, field in ((1, message[108:236]), (2, message[44:108])):
        if overload[0] & bit:
            more, ended = read_options(field)
            options += more
            problems += [] if ended else [LanStatus.MALFORMED]

    def first(code: int, size: int | None = None) -> bytes:
        data = next((data for known, data in options if known == code), None)
        if data is None or (size is not None and len(data) != size):
            if data is not None:
                problems.insert(0, LanStatus.MALFORMED)
            return b""
        return data

    dhcp.message_type = int.from_bytes(first(MESSAGE_TYPE, 1), "big")
    if (dhcp.message_type == 0 and first(MESSAGE_TYPE)) or dhcp.message_type > 18:
        problems.insert(0, LanStatus.MALFORMED)
        dhcp.message_type = 0
    dhcp.requested = some_address(first(REQUESTED, 4))
    dhcp.lease_s = int.from_bytes(first(LEASE, 4), "big") if first(LEASE, 4) else -1
    dhcp.vendor_class = printable(first(VENDOR_CLASS))
    dhcp.host_name = printable(first(HOST_NAME))
    if not dhcp.host_name and any(code == FQDN for code, _ in options):
        name = fqdn(first(FQDN))
        if name is None:
            problems.insert(0, LanStatus.MALFORMED)
        dhcp.host_name = name or ""
    dhcp.status = problems[0] if problems else LanStatus.OK
    return dhcp
