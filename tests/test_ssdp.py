from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.facts import FactKind
from sensor.decode.lan import LanStatus
from sensor.decode.ssdp import MAX_SSDP_FIELDS, decode_ssdp
from tests.announced import Said, check_cuts, damaged, run, run_anywhere, text
from tests.captures import CAPTURES
from tests.payloads import udp_payloads

pytestmark = pytest.mark.kernel

SYSTEM, SERVICE, USER_AGENT = FactKind.SYSTEM, FactKind.SERVICE, FactKind.USER_AGENT
RENDERER = "urn:schemas-upnp-org:device:MediaRenderer:1"
KINDS = {b"USER-AGENT": USER_AGENT, b"SERVER": SYSTEM, b"NT": SERVICE, b"ST": SERVICE}


def reference(message: bytes) -> tuple[LanStatus, Said]:
    *lines, rest = message.split(b"\n")
    start_line = (lines[0].rstrip(b"\r") if lines else rest).upper()
    if not re.match(rb"(NOTIFY|M-SEARCH) |HTTP/1\.[01] 200", start_line):
        return LanStatus.UNSUPPORTED, []
    if not lines:
        return LanStatus.TRUNCATED, []
    said: Said = []
    seen = set()
    status = LanStatus.OK
    for line in [line.rstrip(b"\r") for line in lines[1 : 1 + MAX_SSDP_FIELDS]]:
        if not line:
            return status, said
        if line[:1] in {b" ", b"\t"}:
            continue
        name, colon, value = line.partition(b":")
        name, value = name.upper(), value.strip(b" \t")
        if not colon or not name:
            status = LanStatus.MALFORMED
        elif (
            name in KINDS
            and name not in seen
            and (name == b"USER-AGENT" or not start_line.startswith(b"M-S"))
        ):
            seen.add(name)
            kind = KINDS[name]
            if text(value) and (kind is not SERVICE or value[:4].lower() == b"urn:"):
                said.append((kind, text(value)))
    return (LanStatus.TRUNCATED if rest and len(lines) <= MAX_SSDP_FIELDS else status), said


start_lines = st.sampled_from(
    [
        b"NOTIFY * HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"http/1.0 200",
        b"HTTP/1.1 404 No",
        b"GET / H",
    ]
)
names = st.sampled_from(
    [
        b"SERVER",
        b"Server",
        b"NT",
        b"ST",
        b"USN",
        b"USER-AGENT",
        b"X-User-Agent",
        b"LOCATION",
        b"",
        b" NT",
        b"ST ",
    ]
)
values = st.one_of(
    st.sampled_from(
        [RENDERER.encode(), b"uuid:1", b"Linux/3.10 UPnP/1.0", b"a\0b", b" x \t", b"", b"\xff" * 200]
    ),
    st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")),
)
fields = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    names,
    st.sampled_from([b":", b": ", b":\t ", b": ", b""]),
    values,
    st.sampled_from([b"\r\n", b"\n"]),
)
messages = st.builds(
    lambda start, lines, end: start + b"\r\n" + b"".join(lines) + end,
    start_lines,
    st.lists(fields, max_size=10) | st.lists(fields, min_size=30, max_size=36),
    st.sampled_from([b"\r\n", b"", b"\r\nNT: urn:behind\r\n"]),
)


@given(st.one_of(messages, damaged(messages), st.binary(max_size=60)))
@settings(max_examples=800)
def test_messages_are_decoded_as_the_reference_decodes_them(message: bytes) -> None:
    assert run_anywhere(decode_ssdp, message) == reference(message)


@given(messages)
@settings(max_examples=10)
def test_a_cut_message_keeps_what_came_before_the_cut(message: bytes) -> None:
    check_cuts(decode_ssdp, message, (SYSTEM, SERVICE, USER_AGENT))


# Real captures, with what tshark shows of them.


@pytest.mark.parametrize(
    ("capture", "facts"),
    [
        ("benign/ndpi__ssdp-m-search-ua.pcap", {(USER_AGENT, "Google Chrome/99.0.4844.74 Mac OS X")}),
        (
            "encapsulated/zeek__raw_packets.pcap",
            {
                (SYSTEM, "ipos/7.0 UPnP/1.0 TL-WDR3600/1.0"),
                (SERVICE, "urn:schemas-wifialliance-org:device:WFADevice:1"),
                (SERVICE, "urn:schemas-wifialliance-org:service:WFAWLANConfig:1"),
                (SERVICE, "urn:schemas-upnp-org:device:InternetGatewayDevice:1"),
                (SERVICE, "urn:schemas-upnp-org:device:WANConnectionDevice:1"),
                (SERVICE, "urn:schemas-upnp-org:device:WANDevice:1"),
                (SERVICE, "urn:schemas-upnp-org:service:Layer3Forwarding:1"),
                (SERVICE, "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"),
                (SERVICE, "urn:schemas-upnp-org:service:WANIPConnection:1"),
            },
        ),
        ("malformed/tcpdump__eapon1.pcap", set()),
    ],
)
def test_captured_messages_tell_what_tshark_shows(capture: str, facts: set[tuple[FactKind, str]]) -> None:
    messages = udp_payloads(CAPTURES / capture, {1900})
    assert messages
    said = [run_anywhere(decode_ssdp, message) for message in messages]
    assert said == [reference(message) for message in messages]
    assert {status for status, _ in said} == {LanStatus.OK}
    assert {fact for _, facts in said for fact in facts} == facts


# Single rules.


def message(start_line: str, *lines: str) -> bytes:
    return "\r\n".join([start_line, *lines, "", ""]).encode()


def test_a_notification_tells_system_and_service() -> None:
    raw = message(
        "NOTIFY * HTTP/1.1",
        "HOST: 239.255.255.250:1900",
        "LOCATION: http://192.0.2.7/description.xml",
        "Server:Linux/3.10 UPnP/1.0 IpCam/2.1",
        f"NT: {RENDERER}",
        f"NT: {RENDERER}2",
    )
    assert run(decode_ssdp, raw) == (
        LanStatus.OK,
        [(SYSTEM, "Linux/3.10 UPnP/1.0 IpCam/2.1"), (SERVICE, RENDERER)],
    )


def test_a_search_tells_its_user_agent_alone() -> None:
    raw = message(
        "M-SEARCH * HTTP/1.1", f"ST: {RENDERER}", "SERVER: x", "X-User-Agent: no", "USER-AGENT: yes"
    )
    assert run(decode_ssdp, raw) == (LanStatus.OK, [(USER_AGENT, "yes")])


def test_a_response_that_is_no_success_tells_nothing() -> None:
    assert run(decode_ssdp, message("HTTP/1.1 404 Not Found", "SERVER: x")) == (LanStatus.UNSUPPORTED, [])


def test_a_value_that_is_cut_off_is_not_taken() -> None:
    assert run(decode_ssdp, b"HTTP/1.1 200 OK\r\nSERVER: Linux") == (LanStatus.TRUNCATED, [])
