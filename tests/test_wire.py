"""The one reader of packet bytes: right values inside the packet, -1 outside, nothing of the neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.decode import wire

READERS = [
    (wire.read_u8, 1, "big"),
    (wire.read_u16, 2, "big"),
    (wire.read_u24, 3, "big"),
    (wire.read_u32, 4, "big"),
    (wire.read_u16_le, 2, "little"),
    (wire.read_u32_le, 4, "little"),
    (wire.read_mac, 6, "big"),
]
PACKET = bytes.fromhex("80ff01fe7f00ffffffffffffffff80")
PACKETS = st.binary(max_size=24)
U32 = st.integers(0, 2**32 - 1)


def array(content: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(content), dtype=np.uint8)


@pytest.mark.parametrize(("reader", "n", "order"), READERS)
def test_reader_answers_each_position_of_a_packet_between_neighbours(reader, n, order):
    data = array(b"\xaa" * 8 + PACKET + b"\xaa" * 8)
    start, end = 8, 8 + len(PACKET)
    for pos in range(start, end + 8):
        whole = PACKET[pos - start : pos - start + n]
        expected = int.from_bytes(whole, order) if len(whole) == n else -1
        assert reader(data, pos, end) == expected


@pytest.mark.parametrize(("reader", "n", "order"), READERS)
@given(packet=PACKETS, pos=st.integers(-3, 30), cut=st.integers(0, 24))
def test_reader_equals_slice(reader, n, order, packet, pos, cut):
    end = min(cut, len(packet))
    whole = packet[pos : pos + n] if pos >= 0 and pos + n <= end else b""
    assert reader(array(packet), pos, end) == (int.from_bytes(whole, order) if whole else -1)


@pytest.mark.parametrize(("reader", "n", "order"), READERS)
def test_reader_refuses_positions_that_would_wrap_or_overflow(reader, n, order):
    data = array(PACKET)
    for pos in (-1, -len(PACKET), -(2**62), 2**62):
        assert reader(data, pos, len(PACKET)) == -1, (n, order)


@given(packet=PACKETS, pos=st.integers(-3, 30))
def test_address_half_is_a_signed_64_bit_number_or_zero(packet, pos):
    inside = 0 <= pos <= len(packet) - 8
    expected = int.from_bytes(packet[pos : pos + 8], "big", signed=True) if inside else 0
    assert wire.read_address_half(array(packet), pos, len(packet)) == expected


@given(pos=st.integers(-5, 40), end=st.integers(0, 40), n=st.integers(0, 40))
def test_has_counts_what_remains(pos, end, n):
    assert wire.has(pos, end, n) == (pos >= 0 and len(range(pos, end)) >= n and (n > 0 or pos <= end))


@given(packet=PACKETS, pos=st.integers(-3, 30), cut=st.integers(0, 24), value=st.integers(0, 255))
def test_find_byte_equals_bytes_find(packet, pos, cut, value):
    end = min(cut, len(packet))
    expected = packet.find(bytes([value]), pos, end) if pos >= 0 else -1
    assert wire.find_byte(array(packet), pos, end, value) == expected


@given(
    packet=PACKETS,
    pos=st.integers(-3, 24),
    end=st.integers(0, 24),
    at=st.integers(-3, 12),
    limit=st.integers(0, 12),
)
def test_copy_bytes_fills_its_window_and_nothing_else(packet, pos, end, at, limit):
    end = min(end, len(packet))
    before = bytes(range(100, 112))
    target = array(before)
    copied = wire.copy_bytes(array(packet), pos, end, target, at, limit)
    fits = packet[pos:end][: max(limit - at, 0)] if pos >= 0 and at >= 0 else b""
    assert copied == len(fits)
    at = max(at, 0)
    assert target.tobytes() == before[:at] + fits + before[at + len(fits) :]


def test_lower_is_that_of_ascii():
    assert [wire.lower(byte) for byte in range(256)] == [bytes([byte]).lower()[0] for byte in range(256)]


@given(a=U32, step=st.integers(-(2**31), 2**31 - 1))
def test_seq_diff_is_the_step_between_sequence_numbers(a, step):
    assert wire.seq_diff((a + step) % 2**32, a) == step
