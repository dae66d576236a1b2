from __future__ import annotations

import ipaddress
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sensor.decode.facts import FactKind, FactSource
from sensor.decode.layers import Layer
from sensor.decode.status import FrameStatus
from sensor.events.jsonl import event_lines
from sensor.events.types import EVENT_DTYPE, EventFlag, EventKind, Fate, QType, Verb

NO_TEXT = np.zeros(0, np.uint8)
SHARED = {
    "timestamp": "2026-11-23T14:50:22.123456+0000",
    "vlan": 20,
    "session": "vxlan 42",
    "src_mac": "44:19:b6:0a:0b:0c",
    "src_ip": "192.168.1.23",
    "src_port": 40123,
    "dest_mac": None,
    "dest_ip": "2001:db8::25",
    "dest_port": 25,
    "flow_id": 7,
}


def halves(address: str) -> tuple[int, int]:
    parsed = ipaddress.ip_address(address)
    number = int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)
    hi, lo = np.array([number >> 64, number & (2**64 - 1)], np.uint64).astype(np.int64).tolist()
    return hi, lo


def one_event(kind: EventKind, text: bytes = b"", **columns: Any) -> dict[str, Any]:
    events = np.zeros(1, EVENT_DTYPE)
    event = events[0]
    event["kind"] = kind
    event["ts_ns"] = 1_795_445_422_123_456_789
    event["orig_hi"], event["orig_lo"] = halves("192.168.1.23")
    event["resp_hi"], event["resp_lo"] = halves("2001:db8::25")
    event["orig_mac"], event["resp_mac"] = 0x4419B60A0B0C, -1
    event["orig_port"], event["resp_port"] = 40123, 25
    event["vlan"], event["flow_id"] = 20, 7
    event["session"] = Layer.VXLAN << 32 | 42
    event["text_start"], event["text_len"] = 3, len(text)
    for name, value in columns.items():
        event[name] = value
    arena = np.frombuffer(b"..." + text + b"...", np.uint8)
    (line,) = event_lines(events, arena).splitlines()
    decoded: dict[str, Any] = json.loads(line)
    return decoded


@pytest.mark.parametrize(
    ("kind", "text", "columns", "own"),
    [
        (
            EventKind.CONN_OPEN,
            b"",
            {"flags": EventFlag.MIDSTREAM, "aux_lo": 1234},
            {"event_type": "conn_open", "flags": ["midstream"], "syn_fingerprint": 1234},
        ),
        (
            EventKind.TRANSFER,
            b"",
            {"code": FrameStatus.PEER, "aux_lo": 340_000_000, "orig_bytes": 12, "resp_bytes": 34},
            {
                "event_type": "transfer",
                "of": "other",
                "slot": "2023-11-14T22:13:20.000000+0000",
                "bytes_toserver": 12,
                "bytes_toclient": 34,
            },
        ),
        (EventKind.PEER_CALL, b"", {"aux_lo": 0}, {"event_type": "peer_call", "syn_fingerprint": None}),
        (
            EventKind.CONN_CLOSE,
            b"",
            {
                "code": Fate.NO_BANNER,
                "orig_bytes": 5,
                "resp_bytes": 6,
                "duration_ns": 1_500_000_000,
                "syns": 4,
                "aux_lo": 9,
                "count": 2,
                "enhanced": 7,
                "flags": EventFlag.TLS | EventFlag.GAP,
            },
            {
                "event_type": "conn_close",
                "fate": "no_banner",
                "bytes_toserver": 5,
                "bytes_toclient": 6,
                "duration_s": 1.5,
                "syns": 4,
                "messages_accepted": 2,
                "transactions_unseen": 7,
                "dialect": 9,
                "flags": ["tls", "gap"],
            },
        ),
        (
            EventKind.SMTP_COMMAND,
            b"example.com",
            {"code": Verb.EHLO},
            {"event_type": "smtp_command", "verb": "EHLO", "domain": "example.com"},
        ),
        (
            EventKind.SMTP_COMMAND,
            b"",
            {"code": Verb.DATA},
            {"event_type": "smtp_command", "verb": "DATA", "domain": None},
        ),
        (
            EventKind.SMTP_REPLY,
            b"",
            {"code": 550, "enhanced": 5_001_001, "verb": Verb.RCPT, "flags": EventFlag.BLOCKLISTED},
            {
                "event_type": "smtp_reply",
                "code": 550,
                "enhanced": "5.1.1",
                "answers": "RCPT",
                "server": None,
                "flags": ["blocklisted"],
            },
        ),
        (
            EventKind.SMTP_REPLY,
            b"",
            {"code": 220},
            {
                "event_type": "smtp_reply",
                "code": 220,
                "enhanced": None,
                "answers": None,
                "server": None,
                "flags": [],
            },
        ),
        (
            EventKind.SMTP_MESSAGE,
            b"",
            {"code": 250, "count": 3, "orig_bytes": 900},
            {"event_type": "smtp_message", "code": 250, "recipients": 3, "size": 900},
        ),
        (
            EventKind.DNS_QUERY,
            b"example.com",
            {"code": QType.MX, "flags": EventFlag.TCP},
            {"event_type": "dns_query", "rrtype": "MX", "rrname": "example.com", "flags": ["tcp"]},
        ),
        (
            EventKind.DNS_ANSWER,
            b"mx.example.com",
            {"code": QType.A, "ttl_s": 300, "aux_hi": 0, "aux_lo": halves("203.0.113.5")[1]},
            {
                "event_type": "dns_answer",
                "rrtype": "A",
                "ttl": 300,
                "rrname": "mx.example.com",
                "rdata": "203.0.113.5",
            },
        ),
        (
            EventKind.DNS_ANSWER,
            b"mx.example.com",
            {"code": QType.MX, "ttl_s": 300},
            {"event_type": "dns_answer", "rrtype": "MX", "ttl": 300, "rdata": "mx.example.com"},
        ),
        (
            EventKind.DNS_RESPONSE,
            b"example.com",
            {"code": 65, "enhanced": 3, "count": 0},
            {
                "event_type": "dns_response",
                "rrtype": "TYPE65",
                "rrname": "example.com",
                "rcode": 3,
                "answers": 0,
                "flags": [],
            },
        ),
    ],
)
def test_keys_of_each_kind(
    kind: EventKind, text: bytes, columns: dict[str, Any], own: dict[str, Any]
) -> None:
    assert one_event(kind, text, **columns) == SHARED | own


def test_what_a_device_says_of_itself_has_no_other_side() -> None:
    shared = {key: SHARED[key] for key in ("timestamp", "vlan", "session", "src_mac", "src_ip")}
    assert one_event(EventKind.ARP) == shared | {"event_type": "arp"}
    dhcp = {"event_type": "dhcp", "type": 3, "hostname": "cam", "relay_mac": None}
    assert one_event(EventKind.DHCP, b"cam", code=3) == shared | dhcp
    relay = {"relay_mac": "44:19:b6:0a:0b:0d"}
    assert one_event(EventKind.DHCP, b"cam", code=3, resp_mac=0x4419B60A0B0D) == shared | dhcp | relay
    dhcpv6 = {"event_type": "dhcpv6", "type": 7, "hostname": None}
    assert one_event(EventKind.DHCPV6, code=7) == shared | dhcpv6
    nd = {"event_type": "nd", "icmpv6_type": 136, "router": True}
    assert one_event(EventKind.ND, code=136, count=1) == shared | nd
    fact = {"event_type": "fact", "source": "mdns", "what": "service", "text": "_ipp._tcp"}
    columns = {"code": FactKind.SERVICE, "enhanced": FactSource.MDNS}
    assert one_event(EventKind.FACT, b"_ipp._tcp", **columns) == shared | fact


def test_what_is_not_known_is_null() -> None:
    event = one_event(EventKind.DNS_QUERY, orig_mac=-1, vlan=-1, session=-1, flow_id=-1, code=QType.A)
    assert (event["src_mac"], event["vlan"], event["flow_id"]) == (None, None, None)
    assert "session" not in event


def test_hostile_names_are_escaped() -> None:
    assert one_event(EventKind.DHCP, b'\x1b[2J"\xff\\x')["hostname"] == '\\x1b[2J"\\xff\\\\x'


@given(npst.arrays(EVENT_DTYPE, st.integers(0, 5)), st.binary(max_size=30))
def test_any_columns_give_one_ascii_line_each(events: np.ndarray[Any, Any], text: bytes) -> None:
    """The columns are what a kernel can write; their combination is not."""
    events = events.copy()
    events["kind"] = 1 + np.abs(events["kind"]) % len(EventKind)
    codes = {
        EventKind.CONN_CLOSE: len(Fate),
        EventKind.SMTP_COMMAND: len(Verb),
        EventKind.FACT: len(FactKind),
    }
    for kind, n_codes in codes.items():
        of_kind = events["kind"] == kind
        events["code"][of_kind] = np.abs(events["code"][of_kind] % n_codes)
    is_transfer = events["kind"] == EventKind.TRANSFER
    events["aux_lo"][is_transfer] %= 1 << 31  # a slot's number
    is_fact = events["kind"] == EventKind.FACT
    events["enhanced"][is_fact] = np.abs(events["enhanced"][is_fact] % len(FactSource))
    events["session"] %= len(Layer) << 32
    events["verb"] = np.abs(events["verb"] % len(Verb))
    for name in ("orig_mac", "resp_mac"):
        events[name] = np.maximum(-1, events[name] >> 16)
    events["text_start"] = 0
    events["text_len"] = len(text)
    lines = event_lines(events, np.frombuffer(text, np.uint8)).decode("ascii").splitlines()
    assert len(lines) == len(events)
    for line in lines:
        assert line.isprintable()
        json.loads(line)


def test_no_events_are_no_lines() -> None:
    assert event_lines(np.zeros(0, EVENT_DTYPE), NO_TEXT) == b""
