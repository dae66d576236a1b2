from __future__ import annotations

import ipaddress
import random
import struct
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
)
from scapy.layers.l2 import ARP

from sensor.decode.dhcpv6 import DHCPV6_DTYPE, decode_dhcpv6
from sensor.decode.facts import MAX_FACT_BYTES, MAX_FACTS, FactKind, new_facts
from sensor.decode.lan import (
    ARP_DTYPE,
    DHCP_DTYPE,
    MAX_DHCP_OPTIONS,
    DhcpMessageType,
    LanStatus,
    decode_arp,
    decode_dhcp,
)
from sensor.decode.nd import ND_DTYPE, decode_nd
from sensor.decode.status import N_WEIRDS, Weird
from tests import reference_lan as reference
from tests.announced import told
from tests.captures import CAPTURES, is_pcap, read_pcap
from tests.payloads import arp_packets, discovery_packets, udp_payloads
from tests.reference_lan import (
    CLIENT_ID,
    END,
    FQDN,
    HOST_NAME,
    LEASE,
    MESSAGE_TYPE,
    OVERLOAD,
    PAD,
    PARAMETERS,
    REQUESTED,
    VENDOR_CLASS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAC = bytes.fromhex("02a0b1c2d3e4")
ADDRESS, OTHER = bytes([192, 0, 2, 7]), bytes([192, 0, 2, 1])
COOKIE = bytes([99, 130, 83, 99])
BROKEN = {LanStatus.TRUNCATED, LanStatus.MALFORMED}


LAN_CAPTURES = sorted(
    path for folder in ("benign", "dns", "encapsulated") for path in (CAPTURES / folder).iterdir()
)


def ipv4(address_lo: int) -> bytes:
    """Undo the IPv4-mapped half; 0 is none."""
    assert address_lo == 0 or address_lo >> 32 == 0xFFFF
    return (address_lo & 0xFFFFFFFF).to_bytes(4, "big") if address_lo else b""


def placed(packet: bytes, before: bytes, after: bytes) -> tuple[np.ndarray, int, int]:
    data = np.frombuffer(before + packet + after, dtype=np.uint8).copy()
    return data, len(before), len(before) + len(packet)


def run_arp(packet: bytes, *, before: bytes = b"", after: bytes = b"") -> reference.Arp:
    arp = np.full(1, 77, dtype=ARP_DTYPE)
    weirds = np.zeros(N_WEIRDS, dtype=np.int64)
    status = LanStatus(decode_arp(*placed(packet, before, after), arp, weirds))
    assert weirds[Weird.ARP_MALFORMED] == weirds.sum() == (status in BROKEN)
    row = {field: int(arp[field][0]) for field in ARP_DTYPE.names}
    assert row["status"] == status
    return reference.Arp(
        status=status,
        op=row["op"],
        sender_mac=row["sender_mac"],
        sender=ipv4(row["sender_lo"]),
        target=ipv4(row["target_lo"]),
        is_gratuitous=bool(row["is_gratuitous"]),
        is_probe=bool(row["is_probe"]),
    )


def run_dhcp(message: bytes, *, before: bytes = b"", after: bytes = b"") -> reference.Dhcp:
    dhcp = np.full(1, 77, dtype=DHCP_DTYPE)
    facts = new_facts()
    weirds = np.zeros(N_WEIRDS, dtype=np.int64)
    status = LanStatus(decode_dhcp(*placed(message, before, after), dhcp, facts, weirds))
    assert weirds[Weird.DHCP_MALFORMED] == weirds.sum() == (status in BROKEN)
    row = {field: int(dhcp[field][0]) for field in DHCP_DTYPE.names}
    assert row["status"] == status

    known = told(facts)
    said = dict(known)
    assert len(said) == len(known)

    return reference.Dhcp(
        status=status,
        op=row["op"],
        message_type=row["message_type"],
        chaddr=row["chaddr"],
        ciaddr=ipv4(row["ciaddr_lo"]),
        yiaddr=ipv4(row["yiaddr_lo"]),
        requested=ipv4(row["requested_lo"]),
        giaddr=ipv4(row["giaddr_lo"]),
        lease_s=row["lease_s"],
        host_name=said.get(FactKind.HOST_NAME, ""),
        vendor_class=said.get(FactKind.VENDOR_CLASS, ""),
        parameters=said.get(FactKind.PARAMETERS, ""),
        client_id=said.get(FactKind.CLIENT_ID, ""),
    )


def arp_packet(
    op: int = 1, mac: bytes = MAC, sender: bytes = ADDRESS, target: bytes = OTHER, fixed: bytes = b""
) -> bytes:
    return (fixed or b"\0\1\x08\0\6\4") + struct.pack("!H", op) + mac + sender + bytes(6) + target


def option(code: int, data: bytes) -> bytes:
    return bytes([code, len(data)]) + data


def dhcp_message(
    options: bytes = bytes([END]),
    op: int = 1,
    hardware: bytes = b"\1\6",
    ciaddr: bytes = bytes(4),
    yiaddr: bytes = bytes(4),
    chaddr: bytes = MAC,
    sname: bytes = b"",
    file: bytes = b"",
    cookie: bytes = COOKIE,
) -> bytes:
    fixed = bytes([op]) + hardware + b"\0" + b"\1\2\3\4" + bytes(4) + ciaddr + yiaddr + bytes(8)
    return (
        fixed + chaddr.ljust(16, b"\0") + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + cookie + options
    )


# Properties.

codes = st.sampled_from(
    [
        HOST_NAME,
        REQUESTED,
        LEASE,
        OVERLOAD,
        MESSAGE_TYPE,
        VENDOR_CLASS,
        FQDN,
        PARAMETERS,
        CLIENT_ID,
        1,
        255,
        0,
    ]
)
values = st.one_of(
    st.integers(0, 20).map(lambda value: bytes([value])),
    st.binary(min_size=4, max_size=4),
    st.sampled_from([b"\4\0\0\x03cam\x05local\0", b"\4\0\0\x03cam\x05loc", b"\0\0\0cam.local", b"\0\0"]),
    st.binary(max_size=12),
    st.sampled_from(
        [b"cam\0", b" ", b"x" * 255, b"a\0b ", bytes(range(40)), b"\1" + MAC, b"\xff1234\0\1duid"]
    ),
)
options = st.lists(st.builds(option, codes, values), max_size=7).map(b"".join)
fields = st.builds(lambda field, end: (field + end)[:64], options, st.sampled_from([b"\xff", b"\0\xff", b""]))
dhcp_messages = st.builds(
    dhcp_message,
    options=st.builds(
        lambda overload, field, end: overload + field + end,
        st.sampled_from([b"", *(option(OVERLOAD, bytes([bits])) for bits in range(5))]),
        options,
        st.sampled_from([b"\xff", b"\xff\0\0\0", b""]),
    ),
    op=st.sampled_from([1, 2, 2, 3]),
    hardware=st.sampled_from([b"\1\6", b"\1\6", b"\6\6", b"\0\6", b"\1\x10"]),
    ciaddr=st.sampled_from([bytes(4), ADDRESS]),
    yiaddr=st.sampled_from([bytes(4), OTHER, b"\xff\xff\xff\xff"]),
    chaddr=st.sampled_from([MAC, bytes(6), b"\1" + MAC[1:]]),
    sname=fields,
    file=fields,
    cookie=st.sampled_from([COOKIE, COOKIE, COOKIE, bytes(4)]),
)
arp_packets_drawn = st.builds(
    arp_packet,
    op=st.sampled_from([0, 1, 2, 3, 9, 65535]),
    mac=st.sampled_from([MAC, bytes(6), b"\xff" * 6]) | st.binary(min_size=6, max_size=6),
    sender=st.sampled_from([ADDRESS, bytes(4)]) | st.binary(min_size=4, max_size=4),
    target=st.sampled_from([ADDRESS, OTHER, bytes(4)]),
    fixed=st.sampled_from(
        [b"", b"", b"\0\6\x08\0\6\4", b"\0\1\x86\xdd\6\4", b"\0\1\x08\0\x08\4", b"\0\1\x08\0\6\0"]
    ),
)


@st.composite
def damaged(
    draw: Callable[[st.SearchStrategy], object], valid: st.SearchStrategy[bytes], start: int
) -> bytes:
    packet = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 4))):
        if len(packet) > start:
            packet[draw(st.integers(start, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))]) if draw(st.booleans()) else bytes(packet)


@given(st.one_of(arp_packets_drawn, damaged(arp_packets_drawn, 0), st.binary(max_size=64)))
@settings(max_examples=400)
def test_arp_is_decoded_as_the_reference_decodes_it(packet: bytes) -> None:
    expected = reference.decode_arp(packet)
    assert run_arp(packet) == expected
    assert run_arp(packet, before=b"\1" * 40, after=b"\2" * 40) == expected


@given(
    st.one_of(dhcp_messages, damaged(dhcp_messages, 236), damaged(dhcp_messages, 0), st.binary(max_size=600))
)
@settings(max_examples=1000)
def test_dhcp_is_decoded_as_the_reference_decodes_it(message: bytes) -> None:
    expected = reference.decode_dhcp(message)
    assert run_dhcp(message) == expected
    assert run_dhcp(message, before=b"\xff" * 300, after=b"\x0c\x04evil\xff" * 50) == expected


@given(dhcp_messages)
@settings(max_examples=15)
def test_a_cut_dhcp_message_keeps_what_came_before_the_cut(message: bytes) -> None:
    whole = run_dhcp(message)
    for cut in range(len(message)):
        part = run_dhcp(message[:cut])
        assert part == reference.decode_dhcp(message[:cut])
        assert part.op in {0, whole.op}
        assert part.chaddr in {-1, whole.chaddr}
        assert part.yiaddr in {b"", whole.yiaddr}
        assert part.message_type in {0, whole.message_type}
        if cut < 44:
            assert part == reference.Dhcp(status=LanStatus.TRUNCATED)


def test_a_cut_arp_packet_is_truncated() -> None:
    for cut in range(28):
        part = run_arp(arp_packet()[:cut], after=arp_packet())
        assert part == reference.Arp(status=LanStatus.TRUNCATED, op=1 if cut >= 8 else 0)


# IPv6: neighbour discovery and DHCPv6.

SOURCE = bytes.fromhex("fe80000000000000000000fffe000001")


def run_nd(
    message: bytes, source: bytes = SOURCE, *, before: bytes = b"", after: bytes = b""
) -> reference.Nd:
    nd = np.full(1, 77, dtype=ND_DTYPE)
    weirds = np.zeros(N_WEIRDS, dtype=np.int64)
    halves = np.frombuffer(source, ">i8").tolist()
    status = LanStatus(decode_nd(*placed(message, before, after), *halves, nd, weirds))
    assert weirds[Weird.LAN_MALFORMED] == weirds.sum() == (status in BROKEN)
    row = nd[0]
    assert row["status"] == status
    return reference.Nd(
        status, int(row["type"]), ipv6(row, "address"), int(row["mac"]), bool(row["is_router"])
    )


def run_dhcpv6(message: bytes, *, before: bytes = b"", after: bytes = b"") -> reference.Dhcpv6:
    dhcp = np.full(1, 77, dtype=DHCPV6_DTYPE)
    weirds = np.zeros(N_WEIRDS, dtype=np.int64)
    facts = new_facts()
    status = LanStatus(decode_dhcpv6(*placed(message, before, after), dhcp, facts, weirds))
    assert weirds[Weird.LAN_MALFORMED] == weirds.sum() == (status in BROKEN)
    assert dhcp["status"][0] == status
    return reference.Dhcpv6(
        status, int(dhcp["message_type"][0]), ipv6(dhcp[0], "address"), told(facts)[:MAX_FACTS]
    )


def ipv6(row: np.void, name: str) -> bytes:
    return struct.pack("!qq", row[f"{name}_hi"], row[f"{name}_lo"])


def long_option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data


link_layer = st.builds(
    lambda kind, mac: bytes([kind, 1]) + mac,
    st.integers(0, 4),
    st.sampled_from([MAC, bytes(6), b"\1" + MAC[1:]]),
)
nd_options = st.lists(
    st.one_of(
        link_layer, st.binary(min_size=8, max_size=8), st.just(bytes([14, 2]) + bytes(14)), st.just(b"\5\0")
    ),
    max_size=4,
).map(b"".join)
nd_messages = st.builds(
    lambda kind, flags, target, rest: (
        bytes([kind, 0, 0, 0, flags, 0, 0, 0]) + {133: b"", 134: bytes(8)}.get(kind, target) + rest
    ),
    st.integers(132, 138),
    st.sampled_from([0, 0x80, 0x60, 0xE0]),
    st.sampled_from([SOURCE, bytes(16)]) | st.binary(min_size=16, max_size=16),
    nd_options,
)
ia_addresses = st.builds(
    lambda address, valid, rest: long_option(5, address + bytes(4) + valid + rest),
    st.sampled_from([SOURCE, bytes(16)]) | st.binary(min_size=16, max_size=16),
    st.sampled_from([bytes(4), b"\0\0\x0e\x10", b"\xff" * 4]),
    st.sampled_from([b"", long_option(13, b"\0\0")]),
)
long_options = st.lists(
    st.one_of(
        st.builds(long_option, st.sampled_from([1, 2, 3, 6, 16, 39]), st.binary(max_size=40)),
        st.builds(
            lambda inside: long_option(3, bytes(12) + b"".join(inside)), st.lists(ia_addresses, max_size=2)
        ),
        st.sampled_from(
            [
                long_option(39, b"\0\3cam\5local\0"),
                long_option(16, b"\0\0\1\x37\0\x08MSFT 5.0"),
                long_option(16, b"\0\0\1\x37\0\x09MSFT 5.0"),
                long_option(6, bytes(range(80))),
                b"\0\6\xff",
            ]
        ),
    ),
    max_size=5,
).map(b"".join)
dhcpv6_messages = st.builds(
    lambda kind, rest: bytes([kind, 1, 2, 3]) + rest, st.integers(0, 13) | st.just(7), long_options
)


@given(
    st.one_of(nd_messages, damaged(nd_messages, 0), st.binary(max_size=64)),
    st.sampled_from([SOURCE, bytes(16)]),
)
@settings(max_examples=400)
def test_neighbour_discovery_is_decoded_as_the_reference_decodes_it(message: bytes, source: bytes) -> None:
    expected = reference.decode_nd(message, source)
    assert run_nd(message, source) == expected
    neighbour = b"\1\1" + MAC + b"\2\1" + MAC
    assert run_nd(message, source, before=b"\xff" * 40, after=neighbour) == expected


@given(st.one_of(dhcpv6_messages, damaged(dhcpv6_messages, 0), st.binary(max_size=200)))
@settings(max_examples=600)
def test_dhcpv6_is_decoded_as_the_reference_decodes_it(message: bytes) -> None:
    expected = reference.decode_dhcpv6(message)
    assert run_dhcpv6(message) == expected
    assert run_dhcpv6(message, before=b"\xff" * 40, after=b"\0\1\0\4evil" * 20) == expected


def test_captured_ipv6_is_decoded_as_scapy_and_the_reference_decode_it() -> None:
    seen: Counter[str] = Counter()
    for path in LAN_CAPTURES:
        for packet in discovery_packets(path):
            nd = run_nd(packet)
            assert nd == reference.decode_nd(packet, SOURCE)
            if nd.status is not LanStatus.OK:
                continue
            theirs = {133: ICMPv6ND_RS, 134: ICMPv6ND_RA, 135: ICMPv6ND_NS, 136: ICMPv6ND_NA}[nd.type](packet)
            wanted = ICMPv6NDOptDstLLAddr if nd.type == 136 else ICMPv6NDOptSrcLLAddr
            if wanted in theirs:
                assert int(theirs[wanted].lladdr.replace(":", ""), 16) == nd.mac
            if nd.type == 136:
                assert ipaddress.ip_address(theirs.tgt).packed == nd.address
            seen["nd"] += 1
        for message in udp_payloads(path, {546, 547}):
            dhcp = run_dhcpv6(message)
            assert dhcp == reference.decode_dhcpv6(message)
            seen["dhcpv6"] += dhcp.status is LanStatus.OK
    assert seen["nd"] > 10
    assert seen["dhcpv6"] > 5


# Real captures.


@cache
def dhcp_payloads() -> list[bytes]:
    return [message for path in LAN_CAPTURES for message in udp_payloads(path, {67, 68})]


def test_captured_dhcp_is_decoded_as_scapy_and_the_reference_decode_it() -> None:
    messages = dhcp_payloads()
    with_name = 0
    for message in messages:
        dhcp = run_dhcp(message)
        assert dhcp == reference.decode_dhcp(message)
        if dhcp.status is not LanStatus.OK:
            continue
        bootp = BOOTP(message)
        assert (bootp.op, bootp.ciaddr, bootp.yiaddr) == (dhcp.op, dotted(dhcp.ciaddr), dotted(dhcp.yiaddr))
        known = {entry[0]: entry[1] for entry in reversed(bootp[DHCP].options) if isinstance(entry, tuple)}
        assert known.get("message-type", 0) == dhcp.message_type
        assert known.get("requested_addr", "0.0.0.0") == dotted(dhcp.requested)  # noqa: S104
        assert known.get("lease_time", -1) == dhcp.lease_s
        if "hostname" in known:
            with_name += 1
            assert known["hostname"].rstrip(b"\0 ").decode("latin-1") == dhcp.host_name
    assert len(messages) > 100
    assert with_name > 10


def dotted(address: bytes) -> str:
    return ".".join(map(str, address or bytes(4)))


def test_captured_arp_is_decoded_as_scapy_and_the_reference_decode_it() -> None:
    n_decoded = 0
    for path in LAN_CAPTURES:
        for packet in arp_packets(path):
            arp = run_arp(packet)
            assert arp == reference.decode_arp(packet)
            if arp.status is LanStatus.OK:
                n_decoded += 1
                theirs = ARP(packet)
                assert (theirs.op, theirs.psrc, theirs.pdst) == (
                    arp.op,
                    dotted(arp.sender),
                    dotted(arp.target),
                )
                assert int(theirs.hwsrc.replace(":", ""), 16) == arp.sender_mac
    assert n_decoded > 10


def test_mutated_captures_are_decoded_as_the_reference_decodes_them() -> None:
    source = random.Random(67)
    messages = dhcp_payloads()
    seen = set()
    for _ in range(3000):
        message = bytearray(source.choice(messages))
        for _ in range(source.randint(1, 4)):
            message[source.randrange(source.choice((0, 236)), len(message))] = source.choice((0, 1, 52, 255))
        if source.random() < 0.3:
            message = message[: source.randint(0, len(message))]
        dhcp = run_dhcp(bytes(message), after=b"\x0c\x04evil\xff")
        assert dhcp == reference.decode_dhcp(bytes(message))
        seen.add(dhcp.status)
    assert seen == set(LanStatus)


def test_rubbish_is_decoded_as_the_reference_decodes_it() -> None:
    for path in sorted((CAPTURES / "malformed").iterdir()):
        if is_pcap(path):
            for frame in read_pcap(path)[:20]:
                for packet in (frame.data, frame.data[14:], frame.data[42:]):
                    assert run_arp(packet) == reference.decode_arp(packet)
                    assert run_dhcp(packet) == reference.decode_dhcp(packet)


# Single rules.


def test_an_arp_request_tells_who_asks() -> None:
    assert run_arp(arp_packet() + bytes(18)) == reference.Arp(
        op=1, sender_mac=int.from_bytes(MAC, "big"), sender=ADDRESS, target=OTHER
    )


def test_an_announcement_is_gratuitous_and_a_probe_claims_nothing() -> None:
    arp = run_arp(arp_packet(target=ADDRESS))
    assert (arp.is_gratuitous, arp.is_probe) == (True, False)
    arp = run_arp(arp_packet(sender=bytes(4)))
    assert (arp.is_gratuitous, arp.is_probe, arp.sender, arp.target) == (False, True, b"", OTHER)
    arp = run_arp(arp_packet(sender=bytes(4), target=bytes(4)))
    assert (arp.is_gratuitous, arp.is_probe) == (False, True)


@pytest.mark.parametrize("mac", [bytes(6), b"\xff" * 6, b"\1" + MAC[1:]])
def test_a_sender_that_is_no_single_device_is_malformed(mac: bytes) -> None:
    assert run_arp(arp_packet(mac=mac)).status is LanStatus.MALFORMED


def test_a_dhcp_ack_gives_the_lease() -> None:
    content = option(MESSAGE_TYPE, b"\5") + option(LEASE, b"\0\1\x51\x80") + b"\xff"
    dhcp = run_dhcp(dhcp_message(content, op=2, yiaddr=ADDRESS))
    assert dhcp == reference.Dhcp(
        op=2,
        message_type=DhcpMessageType.ACK,
        chaddr=int.from_bytes(MAC, "big"),
        yiaddr=ADDRESS,
        lease_s=86400,
    )


def test_a_dhcp_request_gives_the_address_asked_for_and_the_names() -> None:
    content = (
        option(MESSAGE_TYPE, b"\3")
        + bytes([PAD, PAD])
        + option(REQUESTED, ADDRESS)
        + option(VENDOR_CLASS, b"udhcp 1.33.1")
        + option(FQDN, b"\0\0\0other")
        + option(HOST_NAME, b"Camera-7\0")
        + b"\xff"
    )
    dhcp = run_dhcp(dhcp_message(content))
    assert (dhcp.message_type, dhcp.requested) == (DhcpMessageType.REQUEST, ADDRESS)
    assert (dhcp.host_name, dhcp.vendor_class) == ("Camera-7", "udhcp 1.33.1")


def test_a_dhcp_client_is_known_by_what_it_asks_for_and_its_identifier() -> None:
    duid = bytes.fromhex("00010001c792bc9a02a0b1c2d3e4")
    asked = option(PARAMETERS, b"\1\3\6\x0f")
    for identifier, known in (
        (b"\xff\0\0\0\1" + duid, duid.hex()),  # RFC 4361: the same as in DHCPv6
        (b"\0cam", "0063616d"),
        (b"\1" + MAC, ""),  # no more than the MAC address
    ):
        dhcp = run_dhcp(dhcp_message(asked + option(CLIENT_ID, identifier) + b"\xff"))
        assert (dhcp.parameters, dhcp.client_id) == ("1,3,6,15", known)
    dhcp = run_dhcp(dhcp_message(asked + option(VENDOR_CLASS, b"MSFT 5.0") + b"\xff", op=2))
    assert (dhcp.parameters, dhcp.vendor_class) == ("", "")  # a server's words are not the client's


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (option(HOST_NAME, b"a\x1b[31m\xffb"), "a?[31m?b"),
        (option(HOST_NAME, b"x" * 255), "x" * MAX_FACT_BYTES),
        (option(HOST_NAME, b"first") + option(HOST_NAME, b"second"), "first"),
        (option(HOST_NAME, b"\0") + option(FQDN, b"\0\0\0cam.local"), "cam.local"),
        (option(FQDN, b"\4\0\0\3cam\5local\0"), "cam.local"),
        (option(FQDN, b"\4\0\0\3cam"), "cam"),
        (option(FQDN, b"\4\0\0"), ""),
    ],
)
def test_host_names_are_made_harmless(content: bytes, expected: str) -> None:
    dhcp = run_dhcp(dhcp_message(content + b"\xff"))
    assert (dhcp.status, dhcp.host_name) == (LanStatus.OK, expected)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (option(MESSAGE_TYPE, b"\1\1") + b"\xff", LanStatus.MALFORMED),
        (option(MESSAGE_TYPE, b"\0") + b"\xff", LanStatus.MALFORMED),
        (option(MESSAGE_TYPE, b"\x13") + b"\xff", LanStatus.MALFORMED),
        (option(LEASE, b"\1") + b"\xff", LanStatus.MALFORMED),
        (option(REQUESTED, b"\1\2\3\4\5") + b"\xff", LanStatus.MALFORMED),
        (option(OVERLOAD, b"\4") + b"\xff", LanStatus.MALFORMED),
        (option(FQDN, b"\4\0\0\5cam") + b"\xff", LanStatus.MALFORMED),
        (option(FQDN, b"\4\0") + b"\xff", LanStatus.MALFORMED),
        (option(OVERLOAD, b"\1") + b"\xff", LanStatus.MALFORMED),  # file holds no end option
        (option(MESSAGE_TYPE, b"\1"), LanStatus.TRUNCATED),
        (b"\x0c\x05host", LanStatus.TRUNCATED),
        (b"\x0c", LanStatus.TRUNCATED),
        (b"", LanStatus.TRUNCATED),
        (bytes(MAX_DHCP_OPTIONS) + b"\xff", LanStatus.TRUNCATED),
    ],
)
def test_options_that_contradict_themselves(content: bytes, status: LanStatus) -> None:
    assert run_dhcp(dhcp_message(content), after=b"\xff" * 300).status is status


def test_options_that_overflow_are_found_in_file_and_sname() -> None:
    file, sname = option(HOST_NAME, b"in-file") + b"\xff", option(VENDOR_CLASS, b"in-sname") + b"\xff"
    for bits, host_name, vendor_class in (
        (1, "in-file", ""),
        (2, "", "in-sname"),
        (3, "in-file", "in-sname"),
    ):
        dhcp = run_dhcp(dhcp_message(option(OVERLOAD, bytes([bits])) + b"\xff", file=file, sname=sname))
        assert (dhcp.status, dhcp.host_name, dhcp.vendor_class) == (LanStatus.OK, host_name, vendor_class)
    dhcp = run_dhcp(dhcp_message(file=file, sname=sname))
    assert (dhcp.host_name, dhcp.vendor_class) == ("", "")


def test_options_do_not_run_out_of_file_and_sname() -> None:
    cut = bytes([HOST_NAME, 5]) + b"a"
    for bits, fields in ((1, {"file": bytes(125) + cut}), (2, {"sname": bytes(61) + cut})):
        dhcp = run_dhcp(dhcp_message(option(OVERLOAD, bytes([bits])) + b"\xff", **fields))
        assert (dhcp.status, dhcp.host_name) == (LanStatus.MALFORMED, "")


def test_bootp_without_dhcp_gives_its_addresses_alone() -> None:
    dhcp = run_dhcp(dhcp_message(option(HOST_NAME, b"a") + b"\xff", yiaddr=ADDRESS, cookie=bytes(4)))
    assert (dhcp.status, dhcp.yiaddr, dhcp.host_name) == (LanStatus.UNSUPPORTED, ADDRESS, "")


@pytest.mark.parametrize(
    ("hardware", "chaddr"), [(b"\1\0", MAC), (b"\x20\0", MAC), (b"\1\6", bytes(6)), (b"\1\6", b"\xff" * 6)]
)
def test_a_client_that_is_no_single_ethernet_device_has_no_mac(hardware: bytes, chaddr: bytes) -> None:
    assert run_dhcp(dhcp_message(hardware=hardware, chaddr=chaddr)).chaddr == -1
