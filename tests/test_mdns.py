from __future__ import annotations

import struct
from itertools import pairwise

import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.dns import MAX_NAME_STEPS
from sensor.decode.facts import FactKind
from sensor.decode.lan import LanStatus
from sensor.decode.mdns import MAX_MDNS_RECORDS, MAX_MODELS, MAX_SERVICES, MAX_TXT_STRINGS, decode_mdns
from tests.announced import BROKEN, Said, check_cuts, damaged, printable, run, run_anywhere, text
from tests.captures import CAPTURES
from tests.payloads import udp_payloads
from tests.reference_dns import WrongError, read_labels, skip_name

pytestmark = pytest.mark.kernel

HOST_NAME, SERVICE, MODEL = FactKind.HOST_NAME, FactKind.SERVICE, FactKind.MODEL
MODEL_KEYS = {b"ty", b"md", b"model", b"product", b"usb_mdl", b"manufacturer"}
RESPONSE = 0x8400


class DamageError(Exception):
    """The reference stops here."""


def service_of(labels: list[bytes]) -> tuple[bytes, bytes] | None:
    pairs = [
        (kind.lower(), protocol.lower())
        for kind, protocol in pairwise(labels)
        if kind[:1] == b"_" and protocol.lower() in {b"_tcp", b"_udp"}
    ]
    return pairs[-1] if pairs else None


class Reference:
    def __init__(self, message: bytes) -> None:
        self.message = message
        self.said: Said = []
        try:
            self.status = self.decode()
        except (DamageError, WrongError):
            self.status = None  # truncated or malformed

    def labels(self, pos: int, end: int) -> list[bytes]:
        return read_labels(self.message[:end], pos)[0]

    def add(self, kind: FactKind, what: str, limit: int) -> None:
        if what and (kind, what) not in self.said and sum(k is kind for k, _ in self.said) < limit:
            self.said.append((kind, what))

    def decode(self) -> LanStatus:
        if len(self.message) < 12:
            raise DamageError
        _, flags, n_questions, n_answers, n_authority, n_additional = struct.unpack_from("!6H", self.message)
        if not flags & 0x8000:
            return LanStatus.OK
        if flags & 0x780F:
            return LanStatus.UNSUPPORTED
        if n_questions > 16:
            raise DamageError
        pos = 12
        for _ in range(n_questions):
            pos = skip_name(self.message, pos) + 4
            if pos > len(self.message):
                raise DamageError
        for i in range(min(n_answers + n_authority + n_additional, MAX_MDNS_RECORDS)):
            owner, pos = pos, skip_name(self.message, pos)
            if pos + 10 > len(self.message):
                raise DamageError
            rtype, rclass, _, size = struct.unpack_from("!HHIH", self.message, pos)
            rdata, pos = pos + 10, pos + 10 + size
            if pos > len(self.message):
                raise DamageError
            if rclass & 0x7FFF == 1 and not n_answers <= i < n_answers + n_authority:
                self.record(rtype, owner, rdata, pos)
        return LanStatus.OK

    def record(self, rtype: int, owner: int, rdata: int, end: int) -> None:
        if rtype in {1, 28}:
            if end - rdata != {1: 4, 28: 16}[rtype]:
                raise DamageError
            if not any(kind is HOST_NAME for kind, _ in self.said):
                labels = self.labels(owner, end)
                if len(labels) > 1 and labels[-1].lower() == b"local":
                    self.add(HOST_NAME, text(labels[0]), 1)
        elif rtype in {12, 33}:
            service = service_of(self.labels(owner, end))
            if service and service[0] == b"_dns-sd":
                service = service_of(self.labels(rdata, end))
            if service:
                self.add(SERVICE, printable(b".".join(service)), MAX_SERVICES)
        elif rtype == 16:
            self.txt(self.message[rdata:end])

    def txt(self, strings: bytes) -> None:
        for _ in range(MAX_TXT_STRINGS):
            if not strings:
                return
            string, rest = strings[1 : 1 + strings[0]], strings[1 + strings[0] :]
            if len(string) < strings[0]:
                raise DamageError
            key, equals, value = string.partition(b"=")
            if equals and key.lower() in MODEL_KEYS:
                self.add(MODEL, printable(value), MAX_MODELS)
            strings = rest


def agrees(message: bytes) -> Said:
    """Decode with both."""
    expected = Reference(message)
    status, said = run_anywhere(decode_mdns, message)
    assert said == expected.said
    assert status is expected.status or (expected.status is None and status in BROKEN)
    return said


# Messages, written by dnspython.


def response(*records: str, additional: tuple[str, ...] = (), flush: bool = False) -> bytes:
    """A response of records in the form of a zone file: ``name type data``."""
    message = dns.message.Message(id=0)
    message.flags = RESPONSE
    for section, lines in ((message.answer, records), (message.additional, additional)):
        for line in lines:
            owner, rtype, data = line.split(" ", 2)
            section.append(dns.rrset.from_text(owner, 120, "IN", rtype, data))
    raw = message.to_wire()
    return raw.replace(b"\0\1\0\0\0\x78", b"\x80\1\0\0\0\x78") if flush else raw


labels = st.sampled_from(
    [
        "_ipp",
        "_tcp",
        "_UDP",
        "_Http",
        "_services",
        "_dns-sd",
        "_sub",
        "local",
        "Printer",
        "a\\032b\\200",
        "x" * 45,
    ]
)
owners = st.one_of(
    st.lists(labels, min_size=1, max_size=5).map(lambda parts: ".".join(parts) + "."),
    st.builds(
        "{}.{}.local.".format, labels, st.sampled_from(["_ipp._tcp", "_hap._udp", "_services._dns-sd._udp"])
    ),
    st.builds("{}.local.".format, labels),
)
strings = st.builds(
    lambda key, value: f'"{key}={value}"',
    st.sampled_from(["ty", "TY", "md", "model", "product", "usb_MDL", "manufacturer", "note", "types", ""]),
    st.sampled_from(["HP LaserJet", "(HP LaserJet)", "", "  ", "b=c", "\\200\\000\\007", "y" * 200]),
)
records = st.one_of(
    st.builds("{} A 192.0.2.7".format, owners),
    st.builds("{} AAAA fe80::1".format, owners),
    st.builds("{} PTR {}".format, owners, owners),
    st.builds("{} SRV 0 0 631 {}".format, owners, owners),
    st.builds("{} TXT {}".format, owners, st.lists(strings, min_size=1, max_size=5).map(" ".join)),
)
messages = st.builds(
    lambda answers, additional, flush: response(*answers, additional=tuple(additional), flush=flush),
    st.lists(records, max_size=12),
    st.lists(records, max_size=4),
    st.booleans(),
)


@given(
    st.one_of(messages, damaged(messages), st.binary(max_size=80).map(lambda raw: b"\0\0\x84\0\0\0" + raw))
)
@settings(max_examples=800)
def test_responses_are_decoded_as_the_reference_decodes_them(message: bytes) -> None:
    agrees(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_as_the_reference_decodes_them(message: bytes) -> None:
    agrees(message)


@given(messages)
@settings(max_examples=10)
def test_a_cut_response_keeps_what_came_before_the_cut(message: bytes) -> None:
    check_cuts(decode_mdns, message, (HOST_NAME, SERVICE, MODEL))


# Real captures, with what tshark shows of them.


@pytest.mark.parametrize(
    ("capture", "names"),
    [
        ("dns/zeek__mdns.pcap", {"johanna-QEMU-Virtual-Machine"}),
        ("dns/zeek__mdns-no-assoc.pcap", {"unrelated-reply-a", "unrelated-reply-aaaa", "v6-unrelated"}),
        ("malformed/pcapsql__fuzz_pcap_reader_v6-http.cap", {"linux"}),
        ("dns/ndpi__dnscrypt-v2.pcap", set()),
    ],
)
def test_captured_responses_tell_the_names_that_tshark_shows(capture: str, names: set[str]) -> None:
    said = [fact for message in udp_payloads(CAPTURES / capture, {5353}) for fact in agrees(message)]
    assert {what for kind, what in said if kind is HOST_NAME} == names


# Single rules.


def test_a_printer_tells_its_name_its_services_and_its_model() -> None:
    message = response(
        "_ipp._tcp.local. PTR HP\\032LaserJet._ipp._tcp.local.",
        "_universal._sub._ipp._tcp.local. PTR HP\\032LaserJet._ipp._tcp.local.",
        "_services._dns-sd._udp.local. PTR _PDL-datastream._tcp.local.",
        additional=(
            "HP\\032LaserJet._ipp._tcp.local. SRV 0 0 631 NPI7.local.",
            'HP\\032LaserJet._ipp._tcp.local. TXT "txtvers=1" "TY=HP LaserJet 400" "product=(HP LaserJet 400)"',
            "NPI7.local. A 192.0.2.9",
            "NPI7.local. AAAA fe80::9",
        ),
        flush=True,
    )
    assert run(decode_mdns, message) == (
        LanStatus.OK,
        [
            (SERVICE, "_ipp._tcp"),
            (SERVICE, "_pdl-datastream._tcp"),
            (MODEL, "HP LaserJet 400"),
            (MODEL, "(HP LaserJet 400)"),
            (HOST_NAME, "NPI7"),
        ],
    )


def test_a_query_tells_nothing() -> None:
    message = bytearray(response("a.local. A 192.0.2.9"))
    message[2] = 0
    assert run(decode_mdns, bytes(message)) == (LanStatus.OK, [])


def test_the_authority_section_tells_nothing() -> None:
    message = bytearray(response("a.local. A 192.0.2.9"))
    message[6:10] = b"\0\0\0\1"
    assert run(decode_mdns, bytes(message)) == (LanStatus.OK, [])


def test_services_and_models_are_bounded() -> None:
    message = response(
        *(f"_s{i}._tcp.local. PTR a.local." for i in range(20)),
        *(f'a.local. TXT "ty={i}" "ty=0"' for i in range(20)),
    )
    _, said = run(decode_mdns, message)
    assert [what for kind, what in said if kind is SERVICE] == [f"_s{i}._tcp" for i in range(MAX_SERVICES)]
    assert len([what for kind, what in said if kind is MODEL]) == MAX_MODELS


def raw_response(records: bytes, n_records: int = 1, questions: bytes = b"", n_questions: int = 0) -> bytes:
    return struct.pack("!6H", 0, RESPONSE, n_questions, n_records, 0, 0) + questions + records


def raw_record(owner: bytes, rtype: int, rdata: bytes) -> bytes:
    return owner + struct.pack("!HHIH", rtype, 1, 120, len(rdata)) + rdata


LOCAL = b"\5local\0"
ADDRESS = raw_record(b"\1a" + LOCAL, 1, bytes(4))


def test_questions_of_a_legacy_resolver_are_stepped_over() -> None:
    question = b"\1q" + LOCAL + b"\0\1\0\1"
    for n, status, said in (
        (1, LanStatus.OK, [(HOST_NAME, "a")]),
        (16, LanStatus.OK, [(HOST_NAME, "a")]),
        (17, LanStatus.MALFORMED, []),
    ):
        message = raw_response(ADDRESS, questions=question * n, n_questions=n)
        assert agrees(message) == said
        assert run(decode_mdns, message) == (status, said)
    for cut in range(len(question)):
        message = raw_response(b"", questions=question[:cut], n_questions=1)
        assert run(decode_mdns, message) == (LanStatus.TRUNCATED, [])
    assert run(decode_mdns, raw_response(b"", questions=b"\x40", n_questions=1)) == (LanStatus.MALFORMED, [])


@pytest.mark.parametrize("rtype", [1, 12, 28, 33])
@pytest.mark.parametrize(
    "owner",
    [
        b"\xc0\x0c",  # at itself
        b"\1a\xc0\x0c",
        b"\xc0\xff",  # behind itself
        b"\xc0\0",  # into the header
        (b"\x3f" + b"x" * 63) * 4 + b"\0",  # 257 bytes
    ],
)
def test_an_owner_that_is_no_name_is_malformed(rtype: int, owner: bytes) -> None:
    message = raw_response(raw_record(owner, rtype, bytes(16 if rtype == 28 else 4)))
    assert agrees(message) == []
    assert run(decode_mdns, message) == (LanStatus.MALFORMED, [])


def test_a_name_of_more_pointers_than_are_followed_is_malformed() -> None:
    chain = b"\0" + b"".join(
        struct.pack("!H", 0xC000 | at) for at in (23, *range(24, 24 + 2 * MAX_NAME_STEPS, 2))
    )
    for n, status in ((MAX_NAME_STEPS - 2, LanStatus.OK), (MAX_NAME_STEPS - 1, LanStatus.MALFORMED)):
        last = struct.pack("!H", 0xC000 | (24 + 2 * (n - 1)))
        message = raw_response(raw_record(b"\0", 47, chain) + raw_record(last, 1, bytes(4)), 2)
        assert run(decode_mdns, message) == (status, [])
        assert agrees(message) == []


def test_what_a_list_of_types_points_to_is_a_name() -> None:
    services = b"\x09_services\7_dns-sd\4_udp" + LOCAL
    assert agrees(raw_response(raw_record(services, 12, b"\4_ipp\4_tcp" + LOCAL))) == [(SERVICE, "_ipp._tcp")]
    assert agrees(raw_response(raw_record(services, 12, b"\4_ipp\4_tcp"))) == []


def test_a_host_is_named_by_what_lies_below_local() -> None:
    for owner in (b"\0", LOCAL, b"\1a\7example\0", b"\5local\1a\0"):
        assert agrees(raw_response(raw_record(owner, 1, bytes(4)))) == []
    pointed = raw_record(LOCAL, 16, b"\0") + raw_record(b"\1a\xc0\x0c", 1, bytes(4))
    assert agrees(raw_response(pointed, 2)) == [(HOST_NAME, "a")]


def test_strings_of_a_txt_record_are_bounded() -> None:
    model = b"\x04ty=x"
    assert agrees(raw_response(raw_record(LOCAL, 16, b"\0" * (MAX_TXT_STRINGS - 1) + model))) == [
        (MODEL, "x")
    ]
    assert agrees(raw_response(raw_record(LOCAL, 16, b"\0" * MAX_TXT_STRINGS + model))) == []
    assert run(decode_mdns, raw_response(raw_record(LOCAL, 16, b"\5ty=x"))) == (LanStatus.MALFORMED, [])


@pytest.mark.parametrize("flags", [0x8401, 0x8C00])
def test_errors_and_other_operations_are_ignored(flags: int) -> None:
    message = raw_response(ADDRESS)
    message = message[:2] + struct.pack("!H", flags) + message[4:]
    assert run(decode_mdns, message) == (LanStatus.UNSUPPORTED, [])


@pytest.mark.parametrize("size", [0, 3, 5])
def test_an_address_of_another_length_is_malformed(size: int) -> None:
    message = raw_response(raw_record(b"\1a" + LOCAL, 1, bytes(size)))
    assert run(decode_mdns, message) == (LanStatus.MALFORMED, [])


def test_a_message_with_more_records_than_are_looked_at_is_not_read_on() -> None:
    record = raw_record(b"\0", 47, b"")
    n = MAX_MDNS_RECORDS
    assert agrees(raw_response(record * n + ADDRESS, n + 1)) == []
    assert agrees(raw_response(record * (n - 1) + ADDRESS, n)) == [(HOST_NAME, "a")]
