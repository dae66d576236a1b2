from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.facts import FactKind
from sensor.decode.http import MAX_HTTP_FIELDS, MAX_HTTP_HEAD_BYTES, decode_http
from sensor.decode.lan import LanStatus
from tests.announced import Said, check_cuts, damaged, run, run_anywhere, text
from tests.captures import CAPTURES
from tests.payloads import tcp_payloads

pytestmark = pytest.mark.kernel

USER_AGENT = FactKind.USER_AGENT


def reference(segment: bytes) -> tuple[LanStatus, Said]:
    request, newline, head = segment[:MAX_HTTP_HEAD_BYTES].partition(b"\n")
    form = rb"(?is)(GET|POST|HEAD|PUT|OPTIONS|CONNECT) (.* |)?HTTP/1\.."
    is_request = re.fullmatch(form, request.rstrip(b"\r"))
    if not newline or not is_request:
        return LanStatus.UNSUPPORTED, []
    *lines, _ = head.split(b"\n")
    for line in [line.rstrip(b"\r") for line in lines[:MAX_HTTP_FIELDS]]:
        if not line:
            break
        name, colon, value = line.partition(b":")
        if colon and name.lower() == b"user-agent":
            value = text(value.strip(b" \t"))
            return LanStatus.OK, ([(USER_AGENT, value)] if value else [])
    return LanStatus.OK, []


request_lines = st.builds(
    lambda method, path, version, end: method + b" " + path + version + end,
    st.sampled_from(
        [b"GET"] * 9 + [b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"get", b"DELETE", b"GETS", b""]
    ),
    st.sampled_from([b"/", b"/a b", b"", b"x" * 1990, b"/index.html?q=HTTP/1.1", b"192.0.2.7:80"]),
    st.sampled_from([b" HTTP/1.1"] * 9 + [b" HTTP/1.0", b" RTSP/1.0", b"HTTP/1.1", b"", b" HTTP/2.0"]),
    st.sampled_from([b"\r\n"] * 5 + [b"\n", b""]),
)
fields = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(
        [
            b"Host",
            b"User-Agent",
            b"User-Agent",
            b"USER-AGENT",
            b"X-User-Agent",
            b"User-Agent ",
            b"",
            b"Cookie",
        ]
    ),
    st.sampled_from([b": ", b":", b":\t", b""]),
    st.sampled_from([b"curl/7.88.1", b"", b"a\0b", b" \xff ", b"Mozilla/5.0 (X11; U; ) : x", b"y" * 300]),
    st.sampled_from([b"\r\n", b"\n"]),
)
segments = st.builds(
    lambda request, lines, end: request + b"".join(lines) + end,
    request_lines,
    st.lists(fields, max_size=8) | st.lists(st.just(b"A: b\r\n"), min_size=60, max_size=66),
    st.sampled_from([b"\r\n", b"", b"\r\nUser-Agent: behind\r\n", b"User-Agent: last\r\n\r\n"]),
)


@given(st.one_of(segments, damaged(segments), st.binary(max_size=60)))
@settings(max_examples=800)
def test_segments_are_decoded_as_the_reference_decodes_them(segment: bytes) -> None:
    assert run_anywhere(decode_http, segment) == reference(segment)


@given(segments)
@settings(max_examples=8)
def test_a_cut_segment_keeps_what_came_before_the_cut(segment: bytes) -> None:
    check_cuts(decode_http, segment[:500], [USER_AGENT])


# Real captures, with what tshark shows of them.


@pytest.mark.parametrize(
    ("capture", "agents"),
    [
        ("benign/ndpi__ipp.pcap", {"CUPS/1.3.4"}),
        (
            "benign/ndpi__socks.pcap",
            {
                "Mozilla/5.0 (Windows NT 5.1; rv:25.0) Gecko/20100101 Firefox/25.0",
                "curl/7.24.0 (x86_64-apple-darwin12.0) libcurl/7.24.0 OpenSSL/0.9.8y zlib/1.2.5",
            },
        ),
        ("encapsulated/arkime__twovlan.pcap", {"Wget/1.15 (linux-gnu)"}),
        ("formats/pcapplusplus__sll.pcap", {"Wget/1.13.4 (linux-gnu)"}),
        (
            "formats/pcapplusplus__raw_ip.pcap",
            {
                "Microsoft-CryptoAPI/10.0",
                "Mozilla/5.0 (Windows NT 10.0; rv:51.0) Gecko/20100101 Firefox/51.0",
                "Mozilla/5.0 (compatible; Konqueror/3.5; Linux) KHTML/3.5.2 (like Gecko) Kubuntu 6.06 Dapper",
            },
        ),
    ],
)
def test_captured_requests_tell_the_user_agents_that_tshark_shows(capture: str, agents: set[str]) -> None:
    segments = tcp_payloads(CAPTURES / capture)
    said = [run_anywhere(decode_http, segment) for segment in segments]
    assert said == [reference(segment) for segment in segments]
    assert {what for _, facts in said for _, what in facts} == agents


# Single rules.


def test_a_request_tells_its_user_agent_and_nothing_else() -> None:
    segment = b"GET /secret HTTP/1.1\r\nHost: example.com\r\nuser-agent:\tcurl/7.88.1 \r\nServer: x\r\n\r\n"
    assert run(decode_http, segment) == (LanStatus.OK, [(USER_AGENT, "curl/7.88.1")])


@pytest.mark.parametrize(
    "segment",
    [
        b"HTTP/1.1 200 OK\r\nUser-Agent: x\r\n\r\n",
        b"OPTIONS rtsp://192.0.2.7/ RTSP/1.0\r\nUser-Agent: x\r\n\r\n",
        b"GET / HTTP/1.1",
        b"GET HTTP/1.1\r\nUser-Agent: x\r\n\r\n"[3:],
        b"",
    ],
)
def test_what_is_no_request_is_no_weird(segment: bytes) -> None:
    assert run(decode_http, segment) == (LanStatus.UNSUPPORTED, [])


def test_only_the_beginning_of_a_segment_is_looked_at() -> None:
    start, field = b"GET / HTTP/1.1\r\nCookie: ", b"\r\nUser-Agent: x\r\n"
    fits = MAX_HTTP_HEAD_BYTES - len(start) - len(field)
    assert run(decode_http, start + b"c" * fits + field)[1] == [(USER_AGENT, "x")]
    assert run(decode_http, start + b"c" * (fits + 1) + field) == (LanStatus.OK, [])
