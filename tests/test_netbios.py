from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.netbios import (
    NBNSHeader,
    NBNSNodeStatusResponse,
    NBNSNodeStatusResponseService,
    NBNSQueryRequest,
    NBNSQueryResponse,
    NBNSRegistrationRequest,
    NBTDatagram,
)

from sensor.decode.facts import FactKind
from sensor.decode.lan import LanStatus
from sensor.decode.netbios import decode_netbios_datagram, decode_netbios_name
from tests.announced import BROKEN, Said, check_cuts, damaged, printable, run, run_anywhere
from tests.captures import CAPTURES
from tests.payloads import udp_payloads

pytestmark = pytest.mark.kernel

HOST_NAME = FactKind.HOST_NAME


class DamageError(Exception):
    """The reference stops here."""


# The reference.


def take(message: bytes, pos: int, form: str) -> tuple[int, ...]:
    if pos + struct.calcsize(form) > len(message):
        raise DamageError
    return struct.unpack_from(form, message, pos)


def skip(message: bytes, pos: int) -> int:
    for _ in range(255):
        (size,) = take(message, pos, "!B")
        if size == 0:
            return pos + 1
        if size >= 0xC0:
            take(message, pos, "!H")
            return pos + 2
        if size > 63:
            raise DamageError
        pos += size + 1
    raise DamageError


def own_name(name: bytes, is_group: bool) -> list[str]:
    """The name of a machine in 16 bytes, if it is one."""
    if is_group or name[15] not in {0x00, 0x20} or any(byte < 0x20 or byte == 0x7F for byte in name[:15]):
        return []
    return [printable(name[:15])]


def first_level(message: bytes, pos: int) -> bytes:
    (letters,) = take(message, pos + 1, "!32s") if take(message, pos, "!B") == (32,) else (b"",)
    if len(letters) != 32 or not all(0x41 <= letter <= 0x50 for letter in letters):
        raise DamageError
    return bytes.fromhex("".join(f"{letter - 0x41:x}" for letter in letters))


def read_name_service(message: bytes) -> tuple[LanStatus, list[str]]:
    _, flags, n_questions, n_answers, _, n_additional = take(message, 0, "!6H")
    is_response, opcode, rcode = flags >> 15, (flags >> 11) & 15, flags & 15
    if not is_response and opcode in {5, 8, 9, 15}:
        if (n_questions, n_additional) != (1, 1):
            raise DamageError
        name = first_level(message, 12)
        rtype, _, _, size, nb_flags, _ = take(message, skip(message, skip(message, 12) + 4), "!HHIHHI")
        if (rtype, size) != (0x20, 6):
            raise DamageError
        return LanStatus.OK, own_name(name, bool(nb_flags & 0x8000))
    if not is_response or opcode or rcode:
        return LanStatus.UNSUPPORTED, []
    if (n_questions, n_answers) != (0, 1):
        raise DamageError
    pos = skip(message, 12)
    rtype, _, _, size, n_names = take(message, pos, "!HHIHB")
    if rtype != 0x21:
        return LanStatus.UNSUPPORTED, []
    if 1 + 18 * n_names > size:
        raise DamageError
    for i in range(n_names):
        name, name_flags = take(message, pos + 11 + 18 * i, "!16sH")
        if found := own_name(name, bool(name_flags & 0x8000)):
            return LanStatus.OK, found
    return LanStatus.OK, []


def read_datagram(message: bytes) -> tuple[LanStatus, list[str]]:
    if not 0x10 <= take(message, 0, "!B")[0] <= 0x12:
        return LanStatus.UNSUPPORTED, []
    return LanStatus.OK, own_name(first_level(message, 14), is_group=False)


def agrees(message: bytes) -> tuple[Said, Said]:
    """Decode with both, as either service."""
    answers = []
    for decode, read in ((decode_netbios_name, read_name_service), (decode_netbios_datagram, read_datagram)):
        status, said = run_anywhere(decode, message)
        try:
            expected, names = read(message)
        except DamageError:
            expected, names = status if status in BROKEN else None, []
        assert status is expected
        assert said == [(HOST_NAME, name) for name in names if name]
        answers.append(said)
    return answers[0], answers[1]


# Messages, written by scapy.


def registration(name: bytes, suffix: int = 0, group: int = 0, opcode: int = 5) -> bytes:
    header = NBNSHeader(OPCODE=opcode, NM_FLAGS=0x11, QDCOUNT=1, ARCOUNT=1)
    request = NBNSRegistrationRequest(
        QUESTION_NAME=name, SUFFIX=0x4141 + (suffix >> 4 << 8) + (suffix & 15), G=group
    )
    return bytes(header / request)


def node_status(*names: tuple[bytes, int, int]) -> bytes:
    services = [
        NBNSNodeStatusResponseService(NETBIOS_NAME=name.ljust(15), SUFFIX=suffix, NAME_FLAGS=flags >> 8)
        for name, suffix, flags in names
    ]
    header = NBNSHeader(RESPONSE=1, OPCODE=0, NM_FLAGS=0x40, ANCOUNT=1)
    answer = NBNSNodeStatusResponse(RR_NAME=b"*", NODE_NAME=services, RDLENGTH=1 + 18 * len(names) + 46)
    return bytes(header / answer)


def datagram(name: bytes, suffix: int = 0, kind: int = 0x11) -> bytes:
    return bytes(
        NBTDatagram(
            Type=kind,
            SourceName=name,
            SUFFIX1=0x4141 + (suffix >> 4 << 8) + (suffix & 15),
            DestinationName=b"WORKGROUP",
        )
    )


names = st.sampled_from([b"CAMERA-7", b"a b", b"", b"\1\2__MSBROWSE__\2", b"M\x9aLLER", b"FIFTEEN-LETTERS"])
suffixes = st.sampled_from([0x00, 0x20, 0x20, 0x1D, 0x1E, 0x03])
messages = st.one_of(
    st.builds(
        registration, names, suffixes, st.sampled_from([0, 0, 1]), st.sampled_from([0, 5, 6, 8, 9, 15])
    ),
    st.lists(st.tuples(names, suffixes, st.sampled_from([0x0400, 0x8400])), max_size=6).map(
        lambda entries: node_status(*entries)
    ),
    st.builds(datagram, names, suffixes, st.integers(0x0F, 0x13)),
    st.just(bytes(NBNSHeader(QDCOUNT=1) / NBNSQueryRequest(QUESTION_NAME=b"OTHER"))),
    st.just(bytes(NBNSHeader(RESPONSE=1, ANCOUNT=1) / NBNSQueryResponse(RR_NAME=b"OTHER"))),
)


@given(st.one_of(messages, damaged(messages), st.binary(max_size=80)))
@settings(max_examples=800)
def test_messages_are_decoded_as_the_reference_decodes_them(message: bytes) -> None:
    agrees(message)


@given(messages)
@settings(max_examples=10)
def test_a_cut_message_keeps_what_came_before_the_cut(message: bytes) -> None:
    check_cuts(decode_netbios_name, message, [HOST_NAME])
    check_cuts(decode_netbios_datagram, message, [HOST_NAME])


# Real captures, with what tshark shows of them.


@pytest.mark.parametrize(
    ("capture", "by_name_service", "by_datagram"),
    [
        ("benign/ndpi__netbios.pcap", {"GUNNAR"}, {"BOWIE", "NVR9"}),
        ("benign/gopacket__cip.pcap", {"OICU812-XP"}, {"OICU812-XP"}),
        ("malformed/tcpdump__eapon1.pcap", {"DJP95S0J"}, {"DJP95S0J"}),
        ("encapsulated/zeek__Teredo.pcap", set(), {"ESURNIR-LAPTOP"}),
        ("malformed/ndpi__fuzz-2006-06-26-2594.pcap", set(), {"LAB111"}),
    ],
)
def test_captured_messages_tell_the_names_that_tshark_shows(
    capture: str, by_name_service: set[str], by_datagram: set[str]
) -> None:
    for which, port, expected in ((0, 137, by_name_service), (1, 138, by_datagram)):
        said = [
            fact for message in udp_payloads(CAPTURES / capture, {port}) for fact in agrees(message)[which]
        ]
        assert {name for _, name in said} == expected


# Single rules.


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (registration(b"CAMERA-7"), ["CAMERA-7"]),
        (registration(b"CAMERA-7", 0x20, opcode=8), ["CAMERA-7"]),
        (registration(b"CAMERA-7", 0x1D), []),
        (registration(b"WORKGROUP", group=1), []),
        (registration(b"CAMERA-7", opcode=6), []),  # a release
        (
            node_status((b"WORKGROUP", 0, 0x8400), (b"CAMERA-7", 0x20, 0x0400), (b"CAMERA-8", 0, 0x0400)),
            ["CAMERA-7"],
        ),
        (node_status((b"\1\2__MSBROWSE__\2", 0, 0x0400)), []),
        (node_status(), []),
    ],
)
def test_a_machine_tells_its_own_name_alone(message: bytes, expected: list[str]) -> None:
    _, said = run(decode_netbios_name, message)
    assert said == [(HOST_NAME, name) for name in expected]


def test_a_datagram_tells_its_source() -> None:
    assert run(decode_netbios_datagram, datagram(b"CAMERA-7", 0x20)) == (
        LanStatus.OK,
        [(HOST_NAME, "CAMERA-7")],
    )
    assert run(decode_netbios_datagram, datagram(b"CAMERA-7", 0x1D)) == (LanStatus.OK, [])
    assert run(decode_netbios_datagram, datagram(b"CAMERA-7", kind=0x14)) == (LanStatus.UNSUPPORTED, [])


def test_records_of_another_kind_are_malformed() -> None:
    message = registration(b"CAMERA-7")
    for at, byte in ((50 + 3, 0x21), (50 + 11, 7), (5, 2), (11, 2)):
        wrong = message[:at] + bytes([byte]) + message[at + 1 :]
        assert run(decode_netbios_name, wrong) == (LanStatus.MALFORMED, [])


def test_more_names_than_the_record_has_room_for_are_malformed() -> None:
    message = bytearray(node_status((b"CAMERA-7", 0, 0x0400)))
    message[56] = 5
    assert run(decode_netbios_name, bytes(message)) == (LanStatus.MALFORMED, [])


def test_an_answer_to_a_name_query_tells_nothing() -> None:
    message = bytes(NBNSHeader(RESPONSE=1, ANCOUNT=1) / NBNSQueryResponse(RR_NAME=b"CAMERA-7"))
    assert run(decode_netbios_name, message) == (LanStatus.UNSUPPORTED, [])
