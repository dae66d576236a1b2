from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import hashing
from sensor.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

pytestmark = pytest.mark.kernel

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_HALVES, _TEXT = hashing.hash_halves, hashing.hash_text


def uncompiled(function: Any) -> Callable[..., int]:
    """The plain Python behind a compiled function; those that it calls may be compiled."""
    plain: Callable[..., int] = getattr(function, "py_func", function)
    return plain


@kernel
def hash_rows(
    hi: NDArray[np.int64],
    lo: NDArray[np.int64],
    text: NDArray[np.uint8],
    ends: NDArray[np.int64],
    by_address: NDArray[np.int64],
    by_text: NDArray[np.int64],
) -> None:
    """Hash addresses and texts, i8[n] each; ``ends``, i8[n]: where the text of a row ends and the next begins."""
    start = 0
    for i in range(hi.size):
        by_address[i] = _HALVES(hi[i], lo[i])
        by_text[i] = _TEXT(text, start, ends[i])
        start = ends[i]


def hashed(
    addresses: list[tuple[int, int]], texts: list[bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hashes of addresses (halves) and of as many texts, by a kernel."""
    hi, lo = (np.array([address[i] for address in addresses], dtype=np.int64) for i in (0, 1))
    text = np.frombuffer(b"".join(texts) + b"\0", dtype=np.uint8).copy()
    ends = np.cumsum([len(one) for one in texts]).astype(np.int64)
    out = np.zeros((2, len(addresses)), dtype=np.int64)
    hash_rows(hi, lo, text, ends, out[0], out[1])
    return out[0], out[1]


@given(st.lists(st.tuples(INT64, INT64, st.binary(max_size=40)), min_size=1, max_size=30))
def test_compiled_and_plain_hashes_are_the_same(rows):
    by_address, by_text = hashed([(hi, lo) for hi, lo, _ in rows], [text for *_, text in rows])
    for i, (hi, lo, text) in enumerate(rows):
        assert uncompiled(_HALVES)(hi, lo) == by_address[i]
        array = np.frombuffer(text + b"\0", dtype=np.uint8)
        assert uncompiled(_TEXT)(array, 0, len(text)) == by_text[i]


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_texts_hashed_together_are_hashed_as_by_a_kernel(texts):
    together = hashing.hash_texts(texts)
    assert together.dtype == np.int64
    assert together.tolist() == (hashed([(0, 0)] * len(texts), texts)[1].tolist() if texts else [])


@given(st.integers(0, (1 << 31) - 1))
def test_mixing_stays_within_31_bits_and_without_overflow(value):
    """With unbounded integers, as with int64: nothing in between exceeds 62 bits."""
    mask = (1 << 31) - 1
    mixed = uncompiled(hashing.mix)(value)
    assert 0 <= mixed <= mask
    for factor in (0x2C1B3C6D, 0x297A2D39, 0x01000193):
        assert mask * factor < 1 << 62


@given(st.lists(st.tuples(INT64, INT64), min_size=1, max_size=20))
def test_hashes_have_31_bits(addresses):
    by_address, by_text = hashed(addresses, [b"x"] * len(addresses))
    for values in (by_address, by_text):
        assert ((values >= 0) & (values < 1 << 31)).all()


def unmix(value: int) -> int:
    """The number that was mixed: each step undone, last one first."""
    modulus = 1 << 31
    value ^= value >> 15 ^ value >> 30
    value = value * pow(0x297A2D39, -1, modulus) % modulus
    value ^= value >> 12 ^ value >> 24
    value = value * pow(0x2C1B3C6D, -1, modulus) % modulus
    return value ^ value >> 15 ^ value >> 30


@given(st.integers(0, (1 << 31) - 1))
def test_mixing_loses_nothing(value):
    assert unmix(uncompiled(hashing.mix)(value)) == value


IPV4 = 0xFFFF << 32


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("neighbours", [(0, IPV4 | 0xC0A80100 + i) for i in range(4096)]),
        ("every /24", [(0, IPV4 | 0x0A000001 + (i << 8)) for i in range(4096)]),
        ("every /64", [(0x20010DB800000000 + i, 1) for i in range(4096)]),
        ("MACs of a vendor", [(0, 0x4419B6000000 + i) for i in range(4096)]),
        ("last MAC byte in the middle", [(0, 0x4419B6000000 + (i << 16)) for i in range(4096)]),
    ],
)
def test_addresses_spread_evenly(name, addresses):
    """Chi-squared over 64 buckets, by the lowest bits and by the bits above them: five standard deviations."""
    by_address, _ = hashed(addresses, [b""] * len(addresses))
    for bits in (by_address % 64, by_address // 64 % 64):
        counts = np.bincount(bits, minlength=64)
        expected = len(addresses) / 64
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        assert chi_squared < 63 + 5 * np.sqrt(2 * 63), name


def test_names_spread_evenly():
    texts = [b"mx%d.example%d.com" % (i % 7, i) for i in range(4096)]
    _, by_text = hashed([(0, 0)] * len(texts), texts)
    counts = np.bincount(by_text % 64, minlength=64)
    assert ((counts - 64) ** 2 / 64).sum() < 63 + 5 * np.sqrt(2 * 63)
    assert len(set(by_text.tolist())) > len(texts) - 3
