"""LLDP and CDP, which are alike: TLVs of what a neighbour is."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.config import conf
from scapy.contrib.cdp import (
    CDPMsgCapabilities,
    CDPMsgDeviceID,
    CDPMsgPlatform,
    CDPMsgPortID,
    CDPMsgSoftwareVersion,
    CDPv2_HDR,
)
from scapy.contrib.lldp import (
    LLDPDUChassisID,
    LLDPDUEndOfLLDPDU,
    LLDPDUGenericOrganisationSpecific,
    LLDPDUPortID,
    LLDPDUSystemCapabilities,
    LLDPDUSystemDescription,
    LLDPDUSystemName,
    LLDPDUTimeToLive,
)

from sensor.decode.cdp import MAX_CDP_TLVS, decode_cdp
from sensor.decode.facts import FactKind
from sensor.decode.lan import LanStatus
from sensor.decode.lldp import CAPABILITIES, MAX_LLDP_TLVS, decode_lldp
from tests.announced import BROKEN, Said, check_cuts, damaged, printable, run, run_anywhere, text
from tests.captures import CAPTURES, read_pcap

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

HOST_NAME, SYSTEM = FactKind.HOST_NAME, FactKind.SYSTEM
MODEL, WORDS = FactKind.MODEL, FactKind.CAPABILITIES
conf.contribs["LLDP"].strict_mode_disable()  # TLVs one by one, without a frame around them
KINDS = (HOST_NAME, SYSTEM, MODEL, WORDS)


class DamageError(Exception):
    """The reference stops here."""


# The references.


def first_line(raw: bytes) -> str:
    return text(raw.replace(b"\r", b"\n").split(b"\n")[0])


def lldp_tlvs(message: bytes) -> Iterator[tuple[int, bytes]]:
    for _ in range(MAX_LLDP_TLVS):
        if not message:
            return
        if len(message) < 2:
            raise DamageError
        kind, size = message[0] >> 1, (message[0] & 1) << 8 | message[1]
        if len(message) < 2 + size:
            raise DamageError
        if kind == 0:
            return
        yield kind, message[2 : 2 + size]
        message = message[2 + size :]


def lldp_facts(message: bytes) -> Iterator[tuple[FactKind, str]]:
    maker = b""
    for kind, value in lldp_tlvs(message):
        if kind == 5:
            yield HOST_NAME, text(value)
        elif kind == 6:
            yield SYSTEM, first_line(value)
        elif kind == 7:
            if len(value) != 4:
                raise DamageError
            yield WORDS, ",".join(word for bit, word in enumerate(CAPABILITIES) if value[3] >> bit & 1)
        elif kind == 127 and value[:4] == b"\0\x12\xbb\x09":
            maker = value[4:]
        elif kind == 127 and value[:4] == b"\0\x12\xbb\x0a":
            yield MODEL, printable((maker[:128] + b" " if maker else b"") + value[4:])


def cdp_facts(message: bytes) -> Iterator[tuple[FactKind, str]]:
    if len(message) < 4:
        raise DamageError
    message = message[4:]
    for _ in range(MAX_CDP_TLVS):
        if not message or message[:2] == b"\0\0":
            return
        if len(message) < 4:
            raise DamageError
        kind, size = struct.unpack_from("!HH", message)
        if size < 4 or size > len(message) or (kind == 4 and size != 8):
            raise DamageError
        value, message = message[4:size], message[size:]
        if kind == 1:
            yield HOST_NAME, text(value)
        elif kind == 4:
            bits = {"router": 0x01, "bridge": 0x0E, "station-only": 0x10, "repeater": 0x40, "telephone": 0x80}
            yield WORDS, ",".join(word for word in CAPABILITIES if value[3] & bits.get(word, 0))
        elif kind == 5:
            yield SYSTEM, first_line(value)
        elif kind == 6:
            yield MODEL, text(value)


def agrees(message: bytes) -> tuple[Said, Said]:
    """Decode with both, as either protocol."""
    answers = []
    for decode, reference in ((decode_lldp, lldp_facts), (decode_cdp, cdp_facts)):
        status, said = run_anywhere(decode, message)
        expected: dict[FactKind, str] = {}  # of each kind the first, even if it is empty
        try:
            if decode is decode_cdp and len(message) >= 4 and message[0] not in {1, 2}:
                assert (status, said) == (LanStatus.UNSUPPORTED, [])
                answers.append(said)
                continue
            for kind, what in reference(message):
                expected.setdefault(kind, what)
        except DamageError:
            assert status in BROKEN
        else:
            assert status is LanStatus.OK
        assert said == [(kind, what) for kind, what in expected.items() if what]
        answers.append(said)
    return answers[0], answers[1]


# Messages, written by scapy.


def lldp_tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value


texts = st.sampled_from(
    [b"sw1.example.com", b"", b"a\0b", b"Cisco IOS\r\nCopyright", b"\nx", b"\xc3\xa9 ", b"y" * 200]
)
lldp_parts = st.one_of(
    st.builds(lldp_tlv, st.integers(5, 12), st.sampled_from([b"name", b"\0\x12\xbb\x0ano model", bytes(3)])),
    st.builds(lambda raw: LLDPDUSystemName(system_name=raw), texts),
    st.builds(lambda raw: LLDPDUSystemDescription(description=raw), texts),
    st.builds(
        lambda subtype, raw: LLDPDUGenericOrganisationSpecific(org_code=0x0012BB, subtype=subtype, data=raw),
        st.sampled_from([8, 9, 9, 10, 10]),
        texts,
    ),
    st.integers(0, 255).map(
        lambda bits: LLDPDUSystemCapabilities(struct.pack("!HHH", 7 << 9 | 4, 0xFFFF, bits))
    ),
)
lldp_messages = st.builds(
    lambda parts, end: (
        bytes(LLDPDUChassisID(subtype=7, id=b"x"))
        + bytes(LLDPDUPortID(subtype=7, id=b"y"))
        + bytes(LLDPDUTimeToLive(ttl=120))
        + b"".join(map(bytes, parts))
        + end
    ),
    st.lists(lldp_parts, max_size=8),
    st.sampled_from([bytes(LLDPDUEndOfLLDPDU()), b"", bytes(LLDPDUEndOfLLDPDU()) + b"padding"]),
)
cdp_parts = st.one_of(
    st.builds(lambda raw: CDPMsgDeviceID(val=raw), texts),
    st.builds(lambda raw: CDPMsgPortID(iface=raw), texts),
    st.builds(lambda raw: CDPMsgSoftwareVersion(val=raw), texts),
    st.builds(lambda raw: CDPMsgPlatform(val=raw), texts),
    st.builds(lambda bits: CDPMsgCapabilities(cap=bits), st.integers(0, 0x7FF)),
    st.builds(lambda kind: CDPMsgPortID(type=kind, iface=b"other"), st.sampled_from([2, 7, 0x1001])),
)
cdp_messages = st.builds(
    lambda parts, end: bytes(CDPv2_HDR(msg=parts)) + end,
    st.lists(cdp_parts, max_size=8),
    st.sampled_from([b"", bytes(10), b"\0"]),
)
messages = st.one_of(lldp_messages, cdp_messages)


@given(st.one_of(messages, damaged(messages), st.binary(max_size=80)))
@settings(max_examples=800)
def test_messages_are_decoded_as_the_references_decode_them(message: bytes) -> None:
    agrees(message)


@given(lldp_messages, cdp_messages)
@settings(max_examples=8)
def test_a_cut_message_keeps_what_came_before_the_cut(lldp: bytes, cdp: bytes) -> None:
    check_cuts(decode_lldp, lldp, KINDS)
    check_cuts(decode_cdp, cdp, KINDS)


# Real captures, with what tshark shows of them.

C3560 = (
    "Cisco IOS Software, C3560 Software (C3560-ADVIPSERVICESK9-M), Version 12.2(44)SE, RELEASE SOFTWARE (fc1)"
)


def neighbours(capture: str, header: bytes) -> list[bytes]:
    """What lies behind an EtherType, or behind LLC and SNAP of a frame of 802.3."""
    found = []
    for frame in read_pcap(CAPTURES / capture):
        raw = frame.data
        if len(header) > 2:  # the length of 802.3 leaves the padding out
            raw = raw[: 14 + int.from_bytes(raw[12:14], "big")]
        at = 12 if len(header) == 2 else 14
        if raw[at : at + len(header)] == header:
            found.append(raw[at + len(header) :])
    return found


@pytest.mark.parametrize(
    ("capture", "facts"),
    [
        (
            "benign/zeek__lldp.pcap",
            {
                (HOST_NAME, "SMCGS8P-Smart"),
                (SYSTEM, "SMCGS8P-Smart - SMCGS8P-Smart v3.20"),
                (WORDS, "bridge"),
            },
        ),
        (
            "malformed/tcpdump__LLDP_and_CDP.pcap",
            {(HOST_NAME, "S1.cisco.com"), (HOST_NAME, "S2.cisco.com"), (SYSTEM, C3560), (WORDS, "bridge")},
        ),
        (
            "malformed/tcpdump__lldp_mudurl.pcap",
            {
                (HOST_NAME, "upstairs.ofcourseimright.com"),
                (
                    SYSTEM,
                    "Ubuntu 14.04.5 LTS Linux 3.13.0-106-generic #153-Ubuntu SMP Tue Dec 6 15:45:13 UTC 2016 i686",
                ),
                (WORDS, "wlan-access-point"),
            },
        ),
    ],
)
def test_captured_lldp_tells_what_tshark_shows(capture: str, facts: set[tuple[FactKind, str]]) -> None:
    messages = neighbours(capture, b"\x88\xcc")
    assert {fact for message in messages for fact in agrees(message)[0]} == facts


@pytest.mark.parametrize(
    ("capture", "facts"),
    [
        (
            "benign/zeek__cdp-v1.pcap",
            {
                (HOST_NAME, "R1"),
                (MODEL, "cisco 1601"),
                (SYSTEM, "Cisco Internetwork Operating System Software"),
                (WORDS, "router"),
            },
        ),
        (
            "malformed/tcpdump__LLDP_and_CDP.pcap",
            {
                (HOST_NAME, "S1"),
                (HOST_NAME, "S2"),
                (MODEL, "cisco WS-C3560-24TS"),
                (MODEL, "cisco WS-C3560G-24PS"),
                (SYSTEM, C3560),
                (WORDS, "bridge"),
            },
        ),
    ],
)
def test_captured_cdp_tells_what_tshark_shows(capture: str, facts: set[tuple[FactKind, str]]) -> None:
    messages = neighbours(capture, b"\xaa\xaa\3\0\0\x0c\x20\0")
    assert {fact for message in messages for fact in agrees(message)[1]} == facts


def test_hostile_captures_are_decoded_as_the_references_decode_them() -> None:
    paths = sorted(
        path for part in ("*lldp*", "*dcb*", "*evb*") for path in (CAPTURES / "malformed").glob(part)
    )
    assert paths
    for path in paths:
        for message in neighbours(f"malformed/{path.name}", b"\x88\xcc"):
            agrees(message)


# Single rules.


def test_only_enabled_capabilities_count() -> None:
    message = lldp_tlv(7, struct.pack("!HH", 0xFF, 0x24)) + bytes(2)
    assert run(decode_lldp, message) == (LanStatus.OK, [(WORDS, "bridge,telephone")])


def test_the_inventory_of_lldp_med_is_the_model() -> None:
    maker, model = b"\0\x12\xbb\x09Example", b"\0\x12\xbb\x0aPhone 7"
    message = lldp_tlv(127, maker) + lldp_tlv(127, model)
    assert run(decode_lldp, message) == (LanStatus.OK, [(MODEL, "Example Phone 7")])
    assert run(decode_lldp, lldp_tlv(127, model)) == (LanStatus.OK, [(MODEL, "Phone 7")])
    assert run(decode_lldp, lldp_tlv(127, b"\0\x12\xbc\x0aPhone 7")) == (LanStatus.OK, [])


def test_a_telephone_with_a_port_for_a_computer_is_both() -> None:
    assert run(decode_cdp, bytes(CDPv2_HDR(msg=[CDPMsgCapabilities(cap=0x490)]))) == (
        LanStatus.OK,
        [(WORDS, "telephone,station-only")],
    )


@pytest.mark.parametrize("size", [0, 3, 7, 9])
def test_a_tlv_of_cdp_with_a_wrong_length_is_malformed(size: int) -> None:
    message = b"\2\xb4\0\0" + struct.pack("!HH", 4, size) + bytes(20)
    assert run(decode_cdp, message) == (LanStatus.MALFORMED, [])


@pytest.mark.parametrize("size", [0, 3, 5])
def test_capabilities_of_lldp_with_a_wrong_length_are_malformed(size: int) -> None:
    message = lldp_tlv(5, b"sw1") + lldp_tlv(7, bytes(size)) + lldp_tlv(6, b"x")
    assert run(decode_lldp, message) == (LanStatus.MALFORMED, [(HOST_NAME, "sw1")])


def test_more_tlvs_than_are_looked_at_are_passed_over() -> None:
    for decode, head, other, name, n in (
        (decode_lldp, b"", lldp_tlv(8, b""), lldp_tlv(5, b"sw1"), MAX_LLDP_TLVS),
        (decode_cdp, b"\2\xb4\0\0", b"\0\3\0\4", b"\0\1\0\7sw1", MAX_CDP_TLVS),
    ):
        assert run(decode, head + other * n + name) == (LanStatus.OK, [])
        assert run(decode, head + other * (n - 1) + name) == (LanStatus.OK, [(HOST_NAME, "sw1")])
