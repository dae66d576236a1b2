"""What a client asks for under TLS, by its records: the kernel against a plain reading of the same bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.events.tables import FLOW_DTYPE
from sensor.events.tls_records import (
    ALERT_BYTES,
    QUIT_BYTES,
    has_only_greeted,
    read_client_records,
    skip_client_records,
)

pytestmark = pytest.mark.kernel

HELLO, KEYS, FINISHED = (22, 500), (22, 66), (22, 40)  # of TLS 1.2
CCS = (20, 1)
FINISHED_13 = (23, 53)
EHLO, AUTH, QUIT, QUIT_13 = (23, 49), (23, 60), (23, 30), (23, 23)
CLOSE_NOTIFY, CLOSE_NOTIFY_13 = (21, 26), (23, ALERT_BYTES)


def on_the_wire(records: list[tuple[int, int]]) -> bytes:
    return b"".join(
        bytes([kind, 3, 3, *length.to_bytes(2, "big")]) + bytes(length) for kind, length in records
    )


def asks(stream: bytes, cuts: list[int] | None = None) -> bool:
    flow = np.zeros(1, dtype=FLOW_DTYPE)[0]
    data = np.frombuffer(stream, dtype=np.uint8)
    places = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(places):
        read_client_records(flow, data, start, end)
    return not has_only_greeted(flow)


def asks_plainly(records: list[tuple[int, int]]) -> bool:
    """As ``asks``, of records and not of bytes."""
    n_handshakes, said = 0, []
    for kind, length in records:
        n_handshakes += kind == 22
        if kind == 23 and not (n_handshakes == 1 and length == ALERT_BYTES):
            said.append((length, n_handshakes == 1))
            nth = len(said) - (n_handshakes == 1)
            if nth > 2 or (nth == 2 and length > QUIT_BYTES):
                return True
    return n_handshakes < 2 and not said


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([HELLO, KEYS, CCS, FINISHED, EHLO, QUIT], False),
        ([HELLO, KEYS, CCS, FINISHED, EHLO, QUIT, CLOSE_NOTIFY], False),
        ([HELLO, CCS, FINISHED_13, EHLO, QUIT_13], False),
        ([HELLO, CCS, FINISHED_13, EHLO, QUIT_13, CLOSE_NOTIFY_13], False),
        ([HELLO, CCS, FINISHED_13, CLOSE_NOTIFY_13], False),
        ([HELLO], True),
        ([HELLO, KEYS, CCS, FINISHED, EHLO, AUTH], True),
        ([HELLO, KEYS, CCS, FINISHED, EHLO, AUTH, QUIT], True),
        ([HELLO, CCS, FINISHED_13, EHLO, AUTH], True),
        ([HELLO, CCS, FINISHED_13, EHLO, (23, 29), (23, 41), (23, 37)], True),  # AUTH LOGIN
    ],
)
def test_logins_are_told_from_greetings(records, expected):
    assert asks(on_the_wire(records)) is expected


RECORDS = st.lists(
    st.tuples(
        st.sampled_from([20, 21, 22, 23]), st.sampled_from([1, ALERT_BYTES, 23, QUIT_BYTES, 33, 60, 400])
    ),
    max_size=9,
)


@given(RECORDS)
def test_as_a_plain_reading(records):
    assert asks(on_the_wire(records)) == asks_plainly(records)


@given(RECORDS, st.data())
def test_cut_anywhere_it_asks_no_less(records, data):
    """Inside a record's header, where nobody knows what follows, it counts as asking."""
    stream = on_the_wire(records)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))
    headers, at = set(), 0
    for _, length in records:
        headers |= set(range(at + 1, at + 5))
        at += 5 + length
    if headers & set(cuts):
        assert asks(stream, cuts)
    else:
        assert asks(stream, cuts) == asks_plainly(records)


def test_bytes_that_were_not_captured_are_of_the_record_at_hand():
    flow = np.zeros(1, dtype=FLOW_DTYPE)[0]
    data = np.frombuffer(on_the_wire([HELLO]), dtype=np.uint8)
    read_client_records(flow, data, 0, 100)
    skip_client_records(flow, len(data) - 100)
    read_client_records(flow, np.frombuffer(on_the_wire([KEYS]), dtype=np.uint8), 0, 71)
    assert has_only_greeted(flow)
    skip_client_records(flow, 1)
    assert not has_only_greeted(flow)
