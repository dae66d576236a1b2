from __future__ import annotations

import ipaddress
import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensor.decode.dns import (
    DNS_MESSAGE_DTYPE,
    DNS_RECORD_DTYPE,
    MAX_NAME_TEXT_BYTES,
    MAX_NAMES_BYTES,
    MAX_RECORDS,
    DnsSection,
    DnsStatus,
    decode_dns,
)
from sensor.decode.dnsbl import DNSBL_ZONES, is_dnsbl_name
from sensor.decode.status import N_WEIRDS, Weird
from tests import reference_dns as reference
from tests.captures import CAPTURES, is_pcap, read_pcap
from tests.payloads import udp_payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 41
QUERY, RESPONSE, TRUNCATED_RESPONSE = 0x0100, 0x8180, 0x8380

WEIRDS = {
    DnsStatus.NOT_DNS: Weird.DNS_MALFORMED,
    DnsStatus.TRUNCATED: Weird.DNS_TRUNCATED,
    DnsStatus.MALFORMED: Weird.DNS_MALFORMED,
    DnsStatus.POINTER_LOOP: Weird.DNS_POINTER_LOOP,
    DnsStatus.RECORD_LIMIT: Weird.EVENT_LIMIT,
}


def decode(wire: bytes, *, before: bytes = b"", after: bytes = b"") -> reference.Message:
    """Decode a message that lies between others, with output arrays full of rubbish."""
    data = np.frombuffer(before + wire + after, dtype=np.uint8).copy()
    message = np.full(1, 77, dtype=DNS_MESSAGE_DTYPE)
    records = np.full(MAX_RECORDS, 77, dtype=DNS_RECORD_DTYPE)
    names = np.full(MAX_NAMES_BYTES, 77, dtype=np.uint8)
    weirds = np.zeros(N_WEIRDS, dtype=np.int64)
    status = DnsStatus(
        decode_dns(data, len(before), len(before) + len(wire), message, records, names, weirds)
    )
    assert status == message["status"][0]
    assert np.flatnonzero(weirds).tolist() == ([WEIRDS[status]] if status else [])
    assert weirds.sum() <= 1

    row = {field: int(message[field][0]) for field in DNS_MESSAGE_DTYPE.names}
    used = bytes(names[: row["names_len"]]).decode("ascii")

    def text(start: int, length: int) -> str:
        assert 0 <= start <= start + length <= len(used)
        return used[start : start + length]

    return reference.Message(
        status=status,
        is_response=bool(row["is_response"]),
        opcode=row["opcode"],
        rcode=row["rcode"],
        is_truncated=bool(row["is_truncated"]),
        counts=(row["qdcount"], row["ancount"], row["nscount"], row["arcount"]),
        has_question=bool(row["has_question"]),
        qtype=row["qtype"],
        qclass=row["qclass"],
        qname=text(0, row["qname_len"]),
        canonical=text(row["canonical_start"], row["canonical_len"]),
        records=[
            reference.Record(
                rtype=int(record["rtype"]),
                ttl_s=int(record["ttl_s"]),
                name=text(int(record["name_start"]), int(record["name_len"])),
                address=None
                if record["rtype"] == MX
                else struct.pack("!qq", record["address_hi"], record["address_lo"]),
                preference=int(record["preference"]),
                section=DnsSection(record["section"]),
                answers_question=bool(record["answers_question"]),
            )
            for record in records[: row["n_records"]]
        ],
    )


def header(flags: int, qdcount: int, ancount: int = 0, nscount: int = 0, arcount: int = 0) -> bytes:
    return struct.pack("!6H", 0x1234, flags, qdcount, ancount, nscount, arcount)


def name(text: str) -> bytes:
    labels = text.encode("latin-1").split(b".") if text else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(text: str, qtype: int = A) -> bytes:
    return name(text) + struct.pack("!HH", qtype, 1)


def resource(owner: bytes, rtype: int, rdata: bytes, ttl: int = 300, rclass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


QNAME = b"\xc0\x0c"
ADDRESS = bytes([192, 0, 2, 1])


# Messages: of the right form, and then damaged.


class Writer:
    """Writes messages the way that the drawn choices say, compression included."""

    def __init__(self, draw: Callable[[st.SearchStrategy], object]) -> None:
        self.draw = draw
        self.wire = bytearray(12)
        self.known: dict[tuple[bytes, ...], int] = {}
        label = st.one_of(
            st.sampled_from([b"mx", b"Mail", b"example", b"com", b"a.b", b"\\", b"\xff\0", b"x" * 63]),
            st.binary(min_size=1, max_size=63),
        )
        self.names = draw(st.lists(st.lists(label, max_size=5).map(tuple), min_size=1, max_size=4))

    def choose(self, *values: int) -> int:
        return self.draw(st.sampled_from(values))

    def name(self) -> None:
        labels = self.draw(st.sampled_from(self.names))
        compress = self.choose(True, True, False)
        for i in range(len(labels)):
            if compress and labels[i:] in self.known:
                self.wire += struct.pack("!H", 0xC000 | self.known[labels[i:]])
                return
            if len(self.wire) < 0x4000:
                self.known.setdefault(labels[i:], len(self.wire))
            self.wire += bytes([len(labels[i])]) + labels[i]
        self.wire.append(0)

    def question(self) -> None:
        self.name()
        self.wire += struct.pack("!HH", self.choose(A, A, MX, AAAA, PTR, 255), self.choose(1, 1, 1, 3))

    def resource(self) -> None:
        self.name()
        rtype = self.choose(A, A, AAAA, MX, CNAME, CNAME, NS, TXT, OPT)
        rclass = self.choose(1, 1, 1, 1, 3, 4096)
        self.wire += struct.pack(
            "!HHI", rtype, rclass, self.choose(0, 300, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
        )
        at = len(self.wire)
        self.wire += b"\0\0"
        if rtype in {A, AAAA}:
            self.wire += bytes(range(1, 1 + self.choose(4, 4, 4, 16, 16, 3)))
        elif rtype in {MX, CNAME, NS}:
            self.wire += b"\0\x0a" if rtype == MX else b""
            self.name()
        else:
            self.wire += self.draw(st.binary(max_size=8))
        size = max(len(self.wire) - at - 2 + self.choose(0, 0, 0, 0, 0, 1, -1), 0)
        self.wire[at : at + 2] = struct.pack("!H", size)


@st.composite
def messages(draw: Callable[[st.SearchStrategy], object]) -> bytes:
    writer = Writer(draw)
    counts = [writer.choose(1, 1, 1, 0, 2), *(writer.choose(0, 1, 2, 3) for _ in range(3))]
    for _ in range(counts[0]):
        writer.question()
    for _ in range(sum(counts[1:])):
        writer.resource()
    flags = writer.choose(RESPONSE, RESPONSE, RESPONSE, TRUNCATED_RESPONSE, QUERY, 0x2400, 0x8183, 0xA400)
    counts[writer.choose(0, 1, 2, 3)] += writer.choose(0, 0, 0, 1, 300)
    writer.wire[:12] = header(flags, *counts)
    return bytes(writer.wire)


@st.composite
def damaged(draw: Callable[[st.SearchStrategy], object], valid: st.SearchStrategy[bytes]) -> bytes:
    """Flip, cut and splice."""
    wire = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 4))):
        if wire:
            at = draw(st.integers(0, len(wire) - 1))
            wire[at] = draw(st.sampled_from([0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xC1, 0xFF]) | st.integers(0, 255))
    if draw(st.booleans()):
        other = draw(valid)
        wire = wire[: draw(st.integers(0, len(wire)))] + other[draw(st.integers(0, len(other))) :]
    return bytes(wire[: draw(st.integers(0, len(wire)))]) if draw(st.booleans()) else bytes(wire)


@given(st.one_of(messages(), damaged(messages()), st.binary(max_size=600)))
@settings(max_examples=800)
def test_decodes_what_the_reference_decodes(wire: bytes) -> None:
    assert decode(wire) == reference.decode(wire)


@given(st.one_of(messages(), damaged(messages())), st.sampled_from([b"\0", b"\xff", b"\xc0\x0c", b"\x01a\0"]))
def test_neighbours_are_never_read(wire: bytes, poison: bytes) -> None:
    assert decode(wire, before=poison * 40, after=poison * 400) == reference.decode(wire)


@given(messages())
def test_a_cut_message_keeps_what_came_before_the_cut(wire: bytes) -> None:
    whole = decode(wire)
    for cut in range(len(wire)):
        part = decode(wire[:cut])
        assert part == reference.decode(wire[:cut])
        assert part.records == whole.records[: len(part.records)]
        assert part.qname in {"", whole.qname}
        assert (part.qtype, part.qclass) in {(-1, -1), (whole.qtype, whole.qclass)}
        assert part.counts == whole.counts or cut < 12
        if cut < 12:
            assert part == reference.Message(status=DnsStatus.TRUNCATED)


@given(messages())
def test_what_dnspython_accepts_is_decoded_alike(wire: bytes) -> None:
    expected = judge(wire)
    if expected is not None:
        assert view(decode(wire)) == expected


def judge(wire: bytes) -> dict[str, object] | None:
    """Return dnspython's view of a message, None if it refuses it."""
    try:
        message = dns.message.from_wire(wire, keyring=False, ignore_trailing=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError):
        return None
    records = []
    if message.opcode() == 0 and message.flags & dns.flags.QR:
        for section, rrsets in (
            (DnsSection.ANSWER, message.answer),
            (DnsSection.ADDITIONAL, message.additional),
        ):
            for rrset in rrsets:
                if rrset.rdclass != dns.rdataclass.IN:
                    continue
                for rdata in rrset:
                    if rrset.rdtype in {A, AAAA}:
                        address = int(ipaddress.ip_address(rdata.address))
                        mapped = address | 0xFFFF << 32 if rrset.rdtype == A else address
                        records.append((section, rrset.rdtype, rrset.ttl, rrset.name, mapped, -1))
                    elif rrset.rdtype == MX:
                        records.append((section, MX, rrset.ttl, rdata.exchange, None, rdata.preference))
    asked = message.question[0] if message.question else None
    return {
        "is_response": bool(message.flags & dns.flags.QR),
        "opcode": message.opcode(),
        "rcode": message.rcode() if message.flags & dns.flags.QR else message.flags & 15,
        "qname": asked.name if asked is not None else dns.name.root,
        "qtype": asked.rdtype if asked is not None else -1,
        "records": records,
    }


def view(message: reference.Message) -> dict[str, object]:
    """Return our view of a message, with the names as dnspython reads their text."""
    assert message.status is DnsStatus.OK
    return {
        "is_response": message.is_response,
        "opcode": message.opcode,
        "rcode": message.rcode,
        "qname": parsed(message.qname),
        "qtype": message.qtype,
        "records": [
            (
                record.section,
                record.rtype,
                record.ttl_s,
                parsed(record.name),
                None if record.address is None else int.from_bytes(record.address, "big"),
                record.preference,
            )
            for record in message.records
        ],
    }


def parsed(text: str) -> dns.name.Name:
    # "@" alone is the origin in a master file; we mean the label.
    return dns.name.from_text(text if text != "@" else "\\064")


# Real captures.

DNS_CAPTURES = sorted((CAPTURES / "dns").iterdir())

#: Messages that dnspython refuses as a whole and we decode: how many there are, and what we do not look at.
#: There is none that both decode and decode differently.
DISAGREEMENTS = {
    "arkime__dns-update.pcap": (1, "records of an update"),
    "ndpi__dns-exf.pcap": (1, "an OPT record in the answer section"),
    "ndpi__dns_invert_query.pcapng": (1, "the answer that an inverse query carries"),
    "zeek__dns-edns-bad-length.pcap": (1, "EDNS options"),
    "zeek__dns-edns-ecs-weirds.pcap": (5, "EDNS options"),
    "zeek__dns-svcb-rdlength-mismatch.pcap": (1, "data of an SVCB record"),
    "zeek__loc-invalid-length.pcap": (1, "data of a LOC record"),
    "zeek__svcb-alpn-malformed-len-too-long.pcap": (1, "data of an SVCB record"),
    "zeek__svcb-alpn-malformed-len-too-short.pcap": (1, "data of an SVCB record"),
    "zeek__svcb-port-malformed.pcap": (1, "data of an SVCB record"),
}


@pytest.mark.parametrize("path", DNS_CAPTURES, ids=lambda path: path.name)
def test_captures_are_decoded_as_dnspython_decodes_them(path: Path) -> None:
    refused = 0
    for wire in udp_payloads(path, {53}):
        message = decode(wire)
        assert message == reference.decode(wire)
        expected = judge(wire)
        if expected is not None:
            assert view(message) == expected
        elif message.status is DnsStatus.OK:
            refused += 1
    assert refused == DISAGREEMENTS.get(path.name, (0, ""))[0]


def mutations(wires: list[bytes], n: int) -> Iterator[bytes]:
    source = random.Random(53)
    for _ in range(n):
        wire = bytearray(source.choice(wires))
        for _ in range(source.randint(1, 3)):
            wire[source.randrange(len(wire))] = source.choice((0, 0x3F, 0xC0, 0xFF, source.randrange(256)))
        yield bytes(wire[: source.randint(0, len(wire))] if source.random() < 0.3 else wire)


def test_mutated_captures_are_decoded_as_the_reference_decodes_them() -> None:
    wires = [wire for path in DNS_CAPTURES for wire in udp_payloads(path, {53}) if wire]
    assert len(wires) > 1000
    seen = set()
    for wire in mutations(wires, 4000):
        message = decode(wire, after=b"\xc0\x0c" * 40)
        assert message == reference.decode(wire)
        seen.add(message.status)
    assert seen >= set(DnsStatus) - {DnsStatus.RECORD_LIMIT}


def test_rubbish_is_decoded_as_the_reference_decodes_it() -> None:
    for path in sorted((CAPTURES / "malformed").iterdir()):
        if is_pcap(path):
            for frame in read_pcap(path)[:20]:
                for wire in (frame.data, frame.data[42:]):
                    assert decode(wire) == reference.decode(wire)


# Single rules.


def test_a_query_gives_its_question() -> None:
    message = decode(header(QUERY, 1) + question("MX1.Example.COM", MX))
    assert message == reference.Message(
        counts=(1, 0, 0, 0),
        has_question=True,
        qtype=MX,
        qclass=1,
        qname="mx1.example.com",
        canonical="mx1.example.com",
    )


def test_exchanges_and_their_addresses_are_told_apart() -> None:
    wire = (
        header(RESPONSE, 1, 2, 1, 2)
        + question("example.com", MX)
        + resource(QNAME, MX, b"\0\x0a" + name("mx.example.com"), ttl=60)
        + resource(QNAME, MX, b"\0\x14\0", ttl=0x80000000)
        + resource(QNAME, NS, name("ns.example.com"))
        + resource(name("mx.example.com"), A, ADDRESS)
        + resource(name("mx.example.com"), AAAA, bytes(range(16)))
    )
    base = reference.Record(MX, 60, "mx.example.com", None, 10, DnsSection.ANSWER, True)
    extra = replace(base, ttl_s=300, preference=-1, section=DnsSection.ADDITIONAL, answers_question=False)
    mapped = bytes(10) + b"\xff\xff" + ADDRESS
    assert decode(wire).records == [
        base,
        replace(base, ttl_s=0, name="", preference=20),  # RFC 2181 section 8; RFC 7505
        replace(extra, rtype=A, address=mapped),
        replace(extra, rtype=AAAA, address=bytes(range(16))),
    ]


def test_addresses_at_the_end_of_a_cname_chain_answer_the_question() -> None:
    wire = (
        header(RESPONSE, 1, 5, 0, 1)
        + question("www.example.com")
        + resource(QNAME, CNAME, name("a.example.net"))
        + resource(name("A.example.net"), CNAME, name("b.example.net"))
        + resource(name("b.example.net"), A, ADDRESS)
        + resource(name("else.example.org"), CNAME, name("not.followed"))
        + resource(name("else.example.org"), A, ADDRESS)
        + resource(name("b.example.net"), A, ADDRESS)
    )
    message = decode(wire)
    assert message.canonical == "b.example.net"
    assert [(record.name, record.section, record.answers_question) for record in message.records] == [
        ("b.example.net", DnsSection.ANSWER, True),
        ("else.example.org", DnsSection.ANSWER, False),
        ("b.example.net", DnsSection.ADDITIONAL, False),
    ]


def test_an_edns_record_extends_the_rcode() -> None:
    wire = (
        header(RESPONSE | 6, 1, 0, 0, 1)
        + question("a")
        + resource(b"\0", OPT, b"", ttl=0x01008000, rclass=1232)
    )
    assert decode(wire).rcode == 0x16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a b", "a\\032b"),
        ("A\x7f\x80\xff\0", "a\\127\\128\\255\\000"),
        ("a\\b", "a\\092b"),
        ("[x]@^_`{|}~!", "[x]@^_`{|}~!"),
    ],
)
def test_names_are_written_in_text(text: str, expected: str) -> None:
    assert decode(header(QUERY, 1) + question(text)).qname == expected


def test_a_dot_inside_a_label_is_escaped() -> None:
    assert decode(header(QUERY, 1) + b"\x03a.b\x01c\0" + bytes([0, 1, 0, 1])).qname == "a\\046b.c"


def test_the_longest_name_fits() -> None:
    longest = b"".join(bytes([size]) + b"\0" * size for size in (63, 63, 63, 61)) + b"\0"
    assert len(longest) == 255
    message = decode(header(QUERY, 1) + longest + bytes([0, 1, 0, 1]))
    assert message.status is DnsStatus.OK
    assert len(message.qname) == MAX_NAME_TEXT_BYTES


@pytest.mark.parametrize(
    ("wire_name", "status"),
    [
        (b"\x3f" + b"a" * 63 + b"\0", DnsStatus.OK),
        (b"\x40" + b"a" * 64 + b"\0", DnsStatus.MALFORMED),
        (b"\x80" + b"a" * 128 + b"\0", DnsStatus.MALFORMED),
        (b"\x01a" * 127 + b"\0", DnsStatus.OK),  # 255 bytes
        (b"\x01a" * 126 + b"\x02ab\0", DnsStatus.MALFORMED),  # 256 bytes
        (b"\xc0\x0c", DnsStatus.POINTER_LOOP),  # itself
        (b"\x01a\xc0\x0c", DnsStatus.POINTER_LOOP),  # its own beginning
        (b"\xc0\x0e\0", DnsStatus.POINTER_LOOP),  # forwards
        (b"\xff\xff", DnsStatus.POINTER_LOOP),
        (b"\xc0\x04", DnsStatus.MALFORMED),  # into the header
        (b"\xc0", DnsStatus.TRUNCATED),
        (b"\x02a", DnsStatus.TRUNCATED),
        (b"\x01a", DnsStatus.TRUNCATED),
    ],
)
def test_names_have_bounds(wire_name: bytes, status: DnsStatus) -> None:
    tail = b"" if status is DnsStatus.TRUNCATED else bytes([0, 1, 0, 1])
    assert decode(header(QUERY, 1) + wire_name + tail).status is status


def test_pointers_must_go_strictly_backwards_at_every_step() -> None:
    start = 12 + len(question("a"))
    # The owner of the first record points at itself; that of the second at the first, which is fine.
    loop = struct.pack("!H", 0xC000 | start)
    wire = header(RESPONSE, 1, 1) + question("a") + resource(loop, A, ADDRESS)
    assert decode(wire).status is DnsStatus.POINTER_LOOP
    wire = header(RESPONSE, 1, 2) + question("a") + resource(QNAME, A, ADDRESS) + resource(loop, A, ADDRESS)
    message = decode(wire)
    assert message.status is DnsStatus.OK
    assert [record.name for record in message.records] == ["a", "a"]


def test_a_pointer_back_into_the_labels_just_read_is_a_loop() -> None:
    data = 12 + len(question("a")) + 11
    pointer = struct.pack("!H", 0xC000 | data)
    wire = header(RESPONSE, 1, 2) + question("a") + resource(b"\0", TXT, b"\1a" + pointer)
    assert decode(wire + resource(pointer, A, ADDRESS)).status is DnsStatus.POINTER_LOOP


def test_a_long_chain_of_pointers_is_refused() -> None:
    # Each pointer of an unused record's data points at the one before it.
    begin = 12 + len(question("a")) + 11
    chain = b"".join(
        struct.pack("!H", 0xC00C if i == 0 else 0xC000 | begin + 2 * (i - 1)) for i in range(300)
    )
    for steps, status in ((200, DnsStatus.OK), (300, DnsStatus.MALFORMED)):
        wire = header(RESPONSE, 1, 2) + question("a") + resource(b"\0", TXT, chain)
        wire += resource(struct.pack("!H", 0xC000 | begin + 2 * (steps - 1)), A, ADDRESS)
        assert decode(wire).status is status


@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO mail.example.com\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        b"\xff" * 64,
        header(QUERY | 0x7800, 1) + question("a"),  # opcode 15
        header(QUERY, 17) + question("a") * 17,
        header(RESPONSE, 1, 6000) + question("a"),
    ],
)
def test_rubbish_on_the_port_is_not_dns(wire: bytes) -> None:
    assert decode(wire) == reference.Message(status=DnsStatus.NOT_DNS)


def test_few_random_datagrams_pass_for_dns() -> None:
    source = random.Random(1)
    assert all(decode(source.randbytes(80)).status is DnsStatus.NOT_DNS for _ in range(2000))


def test_a_response_without_a_question_is_taken() -> None:
    message = decode(header(RESPONSE | 1, 0))
    assert (message.status, message.rcode, message.has_question) == (DnsStatus.OK, 1, False)
    message = decode(header(RESPONSE, 0, 1) + resource(b"\0", A, ADDRESS))
    assert [(record.name, record.answers_question) for record in message.records] == [("", False)]


def test_the_first_of_several_questions_is_taken() -> None:
    wire = (
        header(RESPONSE, 2, 1)
        + question("a.example", MX)
        + question("b.example")
        + resource(QNAME, A, ADDRESS)
    )
    message = decode(wire)
    assert (message.status, message.qname, message.qtype) == (DnsStatus.OK, "a.example", MX)
    assert [record.name for record in message.records] == ["a.example"]


@pytest.mark.parametrize(
    ("rtype", "rdata"),
    [
        *((A, rdata) for rdata in (b"", b"abc", b"abcde")),
        (AAAA, ADDRESS),
        *((MX, rdata) for rdata in (b"\0", b"\0\1", b"\0\1\0\0", b"\0\1\5a")),
        *((CNAME, rdata) for rdata in (b"", b"\0\0", b"\1", b"\5a")),
    ],
)
def test_records_whose_length_contradicts_their_type_are_malformed(rtype: int, rdata: bytes) -> None:
    good = resource(QNAME, A, ADDRESS)
    message = decode(header(RESPONSE, 1, 2) + question("a") + good + resource(QNAME, rtype, rdata) + good)
    assert message.status is DnsStatus.MALFORMED
    assert len(message.records) == 1


def test_records_of_other_classes_are_passed_over() -> None:
    wire = header(RESPONSE, 1, 2) + question("a") + resource(QNAME, A, ADDRESS + b"\0", rclass=3)
    message = decode(wire + resource(QNAME, A, ADDRESS))
    assert (message.status, len(message.records)) == (DnsStatus.OK, 1)


def test_more_records_than_there_is_room_for_are_a_status_of_their_own() -> None:
    for n, status in ((MAX_RECORDS, DnsStatus.OK), (MAX_RECORDS + 1, DnsStatus.RECORD_LIMIT)):
        message = decode(header(RESPONSE, 1, n) + question("a") + resource(QNAME, A, ADDRESS) * n)
        assert (message.status, len(message.records)) == (status, MAX_RECORDS)


def test_an_alias_needs_no_room_among_the_records() -> None:
    records = resource(QNAME, A, ADDRESS) * MAX_RECORDS + resource(QNAME, CNAME, name("b"))
    message = decode(header(RESPONSE, 1, MAX_RECORDS + 1) + question("a") + records)
    assert (message.status, message.canonical) == (DnsStatus.OK, "b")


def test_longer_names_than_there_is_room_for_are_a_status_of_their_own() -> None:
    records = b"".join(
        resource(b"".join(bytes([60, 65 + i]) + b"\0" * 59 for _ in range(4)) + b"\0", A, ADDRESS)
        for i in range(20)
    )
    wire = header(RESPONSE, 1, 20) + question("a") + records
    message = decode(wire)
    assert message == reference.decode(wire)
    assert message.status is DnsStatus.RECORD_LIMIT
    assert 10 < len(message.records) < 20


def test_more_resources_than_are_looked_at_are_a_status_of_their_own() -> None:
    for n, status in ((1024, DnsStatus.OK), (1025, DnsStatus.RECORD_LIMIT)):
        wire = header(RESPONSE, 1, n) + question("a") + resource(QNAME, NS, b"\0") * n
        assert decode(wire).status is status


def test_updates_and_notifications_give_their_question_alone() -> None:
    for opcode in (4, 5):
        wire = header(0x8000 | opcode << 11, 1, 1) + question("example.com", SOA) + resource(QNAME, A, b"")
        message = decode(wire)
        assert (message.status, message.qname, message.records) == (DnsStatus.OK, "example.com", [])


# Block list queries.


def is_dnsbl(text: str) -> bool:
    # What lies around the name must not matter.
    names = np.frombuffer(f"9.{text}.org".encode(), dtype=np.uint8).copy()
    return bool(is_dnsbl_name(names, 2, len(names) - 4))


@pytest.mark.parametrize(
    "text",
    [f"x.{zone}" for zone in DNSBL_ZONES]
    + [
        "2.0.0.127.dnsbl.example.org",
        "255.1.99.10.bl.example",
        ".".join("0123456789abcdef" * 2) + ".bl.example.org",
        "4.3.2.1.key.zen.dq.spamhaus.net",
        "spammer.example.com.dbl.spamhaus.org",
    ],
)
def test_block_list_queries_are_known(text: str) -> None:
    assert is_dnsbl(text)


@pytest.mark.parametrize(
    "text",
    [
        *list(DNSBL_ZONES),
        "",
        "a",
        "www.spamhaus.org",
        "notzen.spamhaus.org",
        "x.zen.spamhaus.org.evil.example",
        "4.3.2.1.in-addr.arpa",
        ".".join("0123456789abcdef" * 2) + ".ip6.arpa",
        ".".join("fedcba9876543210" * 2)[:-2] + ".bl.example.org",
        "4.3.2.1",
        "4.3.2.1.",
        "4.3.2.1.bl",
        "4.3.2.256.bl.example.org",
        "4.3.2.01.bl.example.org",
        "4.3.2.1000.bl.example.org",
        "4.3..1.bl.example.org",
        "4.3.2.bl.example.org",
        "4-3-2-1.dyn.example.org",
        "host4.3.2.1.dyn.example.org",
    ],
)
def test_other_names_are_no_block_list_queries(text: str) -> None:
    assert not is_dnsbl(text)


@given(st.text(st.sampled_from("01259af.-xbl"), max_size=80))
@example("1.2.3.4.x.y")
def test_block_list_names_are_judged_as_their_labels_say(text: str) -> None:
    labels = text.split(".")
    octets = len(labels) >= 4 and all(
        label.isdigit() and len(label) <= 3 and int(label) < 256 and str(int(label)) == label
        for label in labels[:4]
    )
    nibbles = len(labels) >= 32 and all(len(x) == 1 and x in "0123456789abcdef" for x in labels[:32])
    zone = ".".join(labels[4:] if octets else labels[32:])
    assert is_dnsbl(text) == ((octets or nibbles) and "." in zone[1:-1])
