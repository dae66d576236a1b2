"""Hashing inside kernels, the same with and without the JIT.

Products stay below 2**62, so that int64 does not overflow and plain Python computes the same numbers. The
hashes only place rows in fixed tables whose search is bounded: whoever finds collisions gains no more than a
table of that size can lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.jit import i64, inner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_MASK = 0x7FFFFFFF
_BASIS, _PRIME = 0x11C9DC5, 0x01000193


def _mix(value: Any) -> Any:
    """Spread the bits of a number below 2**31, or of each in an array of int64, over 31 bits."""
    value = (value ^ (value >> 15)) & _MASK
    value = (value * 0x2C1B3C6D) & _MASK
    value = value ^ (value >> 12)
    value = (value * 0x297A2D39) & _MASK
    return value ^ (value >> 15)


mix: Callable[[int], int] = inner(_mix)


@inner
def hash_halves(hi: int, lo: int) -> int:
    """Hash an address, two int64 halves, to 31 bits."""
    value = mix(lo & _MASK)
    value = mix(value ^ ((lo >> 31) & _MASK))
    if hi == 0:
        return value
    value = mix(value ^ (hi & _MASK))
    return mix(value ^ ((hi >> 31) & _MASK))


@inner
def hash_text(text: NDArray[np.uint8], start: int, end: int) -> int:
    """Hash ``text[start:end]`` to 31 bits (FNV-1a's scheme)."""
    value = i64(_BASIS)
    for i in range(start, end):
        value = ((value ^ i64(text[i])) * _PRIME) & _MASK
    return mix(value)


def hash_texts(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """Return what ``hash_text`` makes of each text, i8[n]: column by column, so that a start waits for no kernel."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    text = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64)
    order = np.argsort(-lengths)  # longest first: the texts that have a byte i are the first n
    starts, lengths = starts[order], lengths[order]
    values = np.full(len(texts), _BASIS, dtype=np.int64)
    for i in range(lengths.max(initial=0)):
        n = np.searchsorted(-lengths, -i)
        values[:n] = ((values[:n] ^ text[starts[:n] + i]) * _PRIME) & _MASK
    hashed = np.empty_like(values)
    hashed[order] = _mix(values)
    return hashed
