"""What decode_arp, decode_dhcp, decode_nd and decode_dhcpv6 must answer, written to be obviously right."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sensor.decode.facts import FactKind
from sensor.decode.lan import LanStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

PAD, END = 0, 255
HOST_NAME, REQUESTED, LEASE, OVERLOAD, MESSAGE_TYPE, VENDOR_CLASS, FQDN = 12, 50, 51, 52, 53, 60, 81
PARAMETERS, CLIENT_ID = 55, 61
MAX_TEXT = 128


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
    giaddr: bytes = b""
    lease_s: int = -1
    host_name: str = ""
    vendor_class: str = ""
    parameters: str = ""
    client_id: str = ""


@dataclass
class Nd:
    status: LanStatus = LanStatus.OK
    type: int = -1
    address: bytes = bytes(16)
    mac: int = -1
    is_router: bool = False


@dataclass
class Dhcpv6:
    status: LanStatus = LanStatus.OK
    message_type: int = -1
    address: bytes = bytes(16)
    facts: list[tuple[FactKind, str]] = field(default_factory=list)


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
    return "".join(chr(octet) if 0x20 <= octet <= 0x7E else "?" for octet in octets)


def text(octets: bytes) -> str:
    return printable(octets.split(b"\0")[0][:MAX_TEXT]).rstrip(" ")


def hexadecimal(octets: bytes) -> str:
    return octets.hex()[:MAX_TEXT]


def numbers(values: Sequence[int]) -> str:
    return ",".join(map(str, values[:32]))[:MAX_TEXT]


def fqdn(data: bytes) -> str | None:
    if len(data) < 3:
        return None
    flags, labels = data[0], data[3:]
    return wire_name(labels) if flags & 4 else text(labels)


def wire_name(labels: bytes) -> str | None:
    parts = []
    while labels and labels[0]:
        if len(labels) < 1 + labels[0]:
            return None
        parts.append(printable(labels[1 : 1 + labels[0]]))
        labels = labels[1 + labels[0] :]
    return ".".join(parts)[:MAX_TEXT].rstrip(" ")


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
    dhcp.giaddr = some_address(message[24:28])
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
    for bit, place in ((1, message[108:236]), (2, message[44:108])):
        if overload[0] & bit:
            more, ended = read_options(place)
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
    dhcp.host_name = text(first(HOST_NAME))
    if dhcp.op == 1:
        dhcp.vendor_class = text(first(VENDOR_CLASS))
        dhcp.parameters = numbers(first(PARAMETERS))
        identifier = first(CLIENT_ID)
        if identifier[:1] == b"\xff":
            dhcp.client_id = hexadecimal(identifier[5:])
        elif len(identifier) != 7 or identifier[0] != 1:
            dhcp.client_id = hexadecimal(identifier)
    if not dhcp.host_name and any(code == FQDN for code, _ in options):
        name = fqdn(first(FQDN))
        if name is None:
            problems.insert(0, LanStatus.MALFORMED)
        dhcp.host_name = name or ""
    dhcp.status = problems[0] if problems else LanStatus.OK
    return dhcp


def decode_nd(message: bytes, source: bytes) -> Nd:
    nd = Nd(status=LanStatus.TRUNCATED)
    if message:
        nd.type = message[0]
    if len(message) < 8:
        return nd
    fixed = {133: 8, 134: 16, 135: 24, 136: 24}.get(nd.type)
    if fixed is None:
        nd.status = LanStatus.UNSUPPORTED
        return nd
    if len(message) < fixed:
        return nd
    asks_for_itself = nd.type == 135 and source == bytes(16)
    nd.address = message[8:24] if nd.type == 136 or asks_for_itself else source
    nd.is_router = nd.type == 134 and message[6:8] != bytes(2)
    rest = message[fixed:]
    while rest:
        if len(rest) >= 2 and rest[1] == 0:
            nd.status = LanStatus.MALFORMED
            return nd
        if len(rest) < 2 or len(rest) < 8 * rest[1]:
            return nd
        if rest[0] == (2 if nd.type == 136 else 1) and rest[1] == 1:
            if device_mac(rest[2:8]) < 0:
                nd.status = LanStatus.MALFORMED
                return nd
            nd.mac = device_mac(rest[2:8])
        rest = rest[8 * rest[1] :]
    nd.status = LanStatus.OK
    return nd


def read_long_options(field: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Return the options of a DHCPv6 message, and whether the last is whole."""
    options = []
    while field:
        if len(field) < 4 or len(field) < 4 + int.from_bytes(field[2:4], "big"):
            return options, False
        code, size = struct.unpack_from("!HH", field)
        options.append((code, field[4 : 4 + size]))
        field = field[4 + size :]
    return options, True


def decode_dhcpv6(message: bytes) -> Dhcpv6:
    dhcp = Dhcpv6(status=LanStatus.TRUNCATED)
    if message:
        dhcp.message_type = message[0]
    if len(message) < 4:
        return dhcp
    if not 1 <= dhcp.message_type <= 11:
        dhcp.status = LanStatus.UNSUPPORTED
        return dhcp
    is_from_client = dhcp.message_type not in {2, 7, 10}
    options, is_whole = read_long_options(message[4:])
    for code, data in options:
        is_broken = False
        if code == 1:
            add(dhcp, FactKind.CLIENT_ID, hexadecimal(data))
        if code == 3 and dhcp.message_type == 7:
            inside, ended = read_long_options(data[12:])
            for inner_code, inner in inside:
                if (
                    inner_code == 5
                    and len(inner) >= 24
                    and inner[20:24] != bytes(4)
                    and dhcp.address[8:] == bytes(8)
                ):
                    dhcp.address = inner[:16]
            is_broken = not ended
        elif is_from_client and code == 6:
            add(
                dhcp,
                FactKind.PARAMETERS,
                numbers(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])),
            )
        elif is_from_client and code == 16 and len(data) >= 6:
            size = int.from_bytes(data[4:6], "big")
            is_broken = len(data) < 6 + size
            if not is_broken:
                add(dhcp, FactKind.VENDOR_CLASS, text(data[6 : 6 + size]))
        elif is_from_client and code == 39:
            name = wire_name(data[1:])
            is_broken = name is None
            add(dhcp, FactKind.HOST_NAME, name or "")
        if is_broken:
            dhcp.status = LanStatus.MALFORMED
            return dhcp
    if is_whole:
        dhcp.status = LanStatus.OK
    return dhcp


def add(dhcp: Dhcpv6, kind: FactKind, said: str) -> None:
    if said:
        dhcp.facts.append((kind, said))
