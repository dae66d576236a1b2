"""What decode_dns must answer, written to be obviously right: bytes, lists and exceptions."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from sensor.decode.dns import MAX_NAMES_BYTES, MAX_RECORDS, DnsSection, DnsStatus

A, CNAME, MX, AAAA, OPT = 1, 5, 15, 28, 41
ASSIGNED_OPCODES = {0, 1, 2, 4, 5, 6}


class WrongError(Exception):
    def __init__(self, status: DnsStatus) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Record:
    rtype: int
    ttl_s: int
    name: str
    address: bytes | None  # 16 bytes
    preference: int
    section: DnsSection
    answers_question: bool


@dataclass
class Message:
    status: DnsStatus = DnsStatus.OK
    is_response: bool = False
    opcode: int = 0
    rcode: int = 0
    is_truncated: bool = False
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    has_question: bool = False
    qtype: int = -1
    qclass: int = -1
    qname: str = ""
    canonical: str = ""
    records: list[Record] = field(default_factory=list)


def escape(label: bytes) -> str:
    return "".join(
        chr(byte).lower() if 0x21 <= byte <= 0x7E and chr(byte) not in ".\\" else f"\\{byte:03d}"
        for byte in label
    )


def skip_name(wire: bytes, pos: int) -> int:
    steps = 0
    while True:
        steps += 1
        if pos >= len(wire):
            raise WrongError(DnsStatus.TRUNCATED)
        size = wire[pos]
        if size >= 0xC0:
            if pos + 2 > len(wire):
                raise WrongError(DnsStatus.TRUNCATED)
            return pos + 2
        if size > 63 or steps > 255:
            raise WrongError(DnsStatus.MALFORMED)
        pos += 1 + size
        if size == 0:
            return pos


def read_name(wire: bytes, pos: int) -> tuple[str, int]:
    """Return a name as text, and the position behind it."""
    labels, behind = read_labels(wire, pos)
    return ".".join(escape(label) for label in labels), behind


def read_labels(wire: bytes, pos: int) -> tuple[list[bytes], int]:
    """Return the labels of a name and the position behind it; ``wire`` ends where the name must have ended."""
    labels: list[bytes] = []
    behind = None
    earliest = pos
    jumps = 0
    while True:
        if pos >= len(wire):
            raise WrongError(DnsStatus.TRUNCATED)
        size = wire[pos]
        if size >= 0xC0:
            if pos + 2 > len(wire):
                raise WrongError(DnsStatus.TRUNCATED)
            if behind is None:
                behind = pos + 2
            pos = struct.unpack_from("!H", wire, pos)[0] & 0x3FFF
            if pos >= earliest:
                raise WrongError(DnsStatus.POINTER_LOOP)
            if pos < 12:
                raise WrongError(DnsStatus.MALFORMED)
            earliest = pos
            jumps += 1
        elif size == 0:
            return labels, pos + 1 if behind is None else behind
        else:
            label = wire[pos + 1 : pos + 1 + size]
            if size > 63 or sum(len(known) + 1 for known in labels) + size + 2 > 255:
                raise WrongError(DnsStatus.MALFORMED)
            if len(label) < size:
                raise WrongError(DnsStatus.TRUNCATED)
            labels.append(label)
            pos += 1 + size
        if jumps + len(labels) >= 256:
            raise WrongError(DnsStatus.MALFORMED)


def decode(wire: bytes) -> Message:
    message = Message()
    try:
        walk(wire, message)
    except WrongError as wrong:
        message.status = wrong.status
    return message


def walk(wire: bytes, message: Message) -> None:
    if len(wire) < 12:
        raise WrongError(DnsStatus.TRUNCATED)
    _, flags, *counts = struct.unpack_from("!6H", wire)
    opcode = flags >> 11 & 15
    if opcode not in ASSIGNED_OPCODES or counts[0] > 16 or max(counts) > (65535 - 12) // 11:
        raise WrongError(DnsStatus.NOT_DNS)
    if not flags & 0x8000 and opcode == 0 and not any(counts):
        raise WrongError(DnsStatus.NOT_DNS)
    message.is_response = bool(flags & 0x8000)
    message.opcode = opcode
    message.rcode = flags & 15
    message.is_truncated = bool(flags & 0x0200)
    message.counts = (counts[0], counts[1], counts[2], counts[3])
    pos = 12
    for i in range(counts[0]):
        if i == 0:
            message.qname, pos = read_name(wire, pos)
            message.canonical = message.qname
        else:
            pos = skip_name(wire, pos)
        if pos + 4 > len(wire):
            raise WrongError(DnsStatus.TRUNCATED)
        if i == 0:
            message.qtype, message.qclass = struct.unpack_from("!HH", wire, pos)
            message.has_question = True
        pos += 4
    if message.is_response and opcode == 0:
        walk_records(wire, pos, message)


def walk_records(wire: bytes, pos: int, message: Message) -> None:
    sections = [
        section
        for section, count in zip(
            (DnsSection.ANSWER, None, DnsSection.ADDITIONAL), message.counts[1:], strict=True
        )
        for _ in range(count)
    ]
    text_bytes = len(message.qname)
    for section in sections[:1024]:
        owner = pos
        pos = skip_name(wire, owner)
        if pos + 10 > len(wire):
            raise WrongError(DnsStatus.TRUNCATED)
        rtype, rclass, ttl, size = struct.unpack_from("!HHIH", wire, pos)
        rdata = pos + 10
        pos = rdata + size
        if pos > len(wire):
            raise WrongError(DnsStatus.TRUNCATED)
        if section is None:
            continue
        if rtype == OPT:
            if section is DnsSection.ADDITIONAL:
                message.rcode = ttl >> 24 << 4 | message.rcode & 15
        elif rclass == 1 and (rtype in {A, AAAA, MX} or (rtype == CNAME and section is DnsSection.ANSWER)):
            if MAX_NAMES_BYTES - text_bytes < 2006 or (
                rtype != CNAME and len(message.records) == MAX_RECORDS
            ):
                raise WrongError(DnsStatus.RECORD_LIMIT)
            ttl = 0 if ttl >= 1 << 31 else ttl
            try:
                text_bytes += read_record(wire[:pos], owner, rdata, rtype, ttl, section, message)
            except WrongError as wrong:
                # The record is there to its end: nothing in it can have been cut off.
                raise WrongError(
                    DnsStatus.MALFORMED if wrong.status is DnsStatus.TRUNCATED else wrong.status
                ) from None
    if len(sections) > 1024:
        raise WrongError(DnsStatus.RECORD_LIMIT)


def read_record(
    wire: bytes, owner: int, rdata: int, rtype: int, ttl: int, section: DnsSection, message: Message
) -> int:
    """Add a record to the message; return how many bytes of text it brought that were not there before."""
    name, _ = read_name(wire, owner)
    known = name in {message.qname, message.canonical}
    answers = section is DnsSection.ANSWER and message.has_question and known
    record = Record(rtype, ttl, name, None, -1, section, answers)
    if rtype in {A, AAAA}:
        address = wire[rdata:]
        if len(address) != {A: 4, AAAA: 16}[rtype]:
            raise WrongError(DnsStatus.MALFORMED)
        mapped = address if rtype == AAAA else bytes(10) + b"\xff\xff" + address
        message.records.append(replace(record, address=mapped))
        return 0 if known else len(name)
    if rtype == CNAME and not answers:
        return 0
    name, behind = read_name(wire, rdata if rtype == CNAME else rdata + 2)
    if behind != len(wire):
        raise WrongError(DnsStatus.MALFORMED)
    if rtype == CNAME:
        message.canonical = name
    else:
        (preference,) = struct.unpack_from("!H", wire, rdata)
        message.records.append(replace(record, name=name, preference=preference))
    return len(name)
