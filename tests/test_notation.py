from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.notation import (
    address_bytes,
    address_text,
    counted,
    duration_text,
    eve_time,
    mac_text,
    printable,
    printable_bytes,
    visible,
)

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64)
def test_eve_time_is_the_moment_cut_to_microseconds(ts_ns: int) -> None:
    text = eve_time(ts_ns)
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == ts_ns // 1000
    assert len(text) == 31
    assert text.endswith("+0000")


def test_eve_time_of_a_known_moment() -> None:
    assert eve_time(1_795_445_422_123_456_789) == "2026-11-23T14:50:22.123456+0000"
    assert eve_time(-1) == "1969-12-31T23:59:59.999999+0000"


@given(st.ip_addresses())
def test_an_address_reads_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    number = int(address) if address.version == 6 else 0xFFFF << 32 | int(address)
    hi, lo = np.array([number >> 64, number & (2**64 - 1)], np.uint64).astype(np.int64).tolist()
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert ipaddress.ip_address(address_text(hi, lo)) == (mapped or address)
    assert address_bytes(hi, lo) == (mapped or address).packed


def test_mac_text() -> None:
    assert mac_text(0x4419B60A0B0C) == "44:19:b6:0a:0b:0c"
    assert mac_text(0) == "00:00:00:00:00:00"
    assert mac_text(-1) is None


@given(st.binary())
def test_printable_bytes_is_printable_ascii_and_loses_nothing(raw: bytes) -> None:
    text = printable_bytes(raw)
    assert text.isascii()
    assert text.isprintable()
    assert text.encode("ascii").decode("unicode_escape").encode("latin-1") == raw


@given(st.text(st.characters(exclude_categories=())))
def test_printable_is_printable_ascii_and_escapes_once(text: str) -> None:
    once = printable(text)
    assert once.isascii()
    assert once.isprintable()
    assert printable(once) == once


@given(st.text(st.characters(exclude_categories=())))
def test_visible_keeps_letters_and_shows_the_rest(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    shown.encode()  # surrogates of undecodable file names could not be written
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0 s"),
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (192.0, "3 min 12 s"),
        (3612.0, "1 h"),
        (3660.0, "1 h 1 min"),
        (2 * 86400 + 4 * 3600 + 59, "2 d 4 h"),
    ],
)
def test_duration_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counted() -> None:
    assert [counted(n, "alert") for n in (0, 1, 2000)] == ["0 alerts", "1 alert", "2,000 alerts"]
