"""Hashing inside kernels, the same with and without the JIT.

Products stay below 2**62, so that int64 does not overflow and plain Python computes the same numbers. The
hashes only place rows in fixed tables whose search is bounded: whoever finds collisions gains no more than a
table of that size can lose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MASK = 0x7FFFFFFF


@inner
def mix(value: int) -> int:
    """Spread the bits of a number below 2**31 over 31 bits."""
    value = (value ^ (value >> 15)) & _MASK
    value = (value * 0x2C1B3C6D) & _MASK
    value = value ^ (value >> 12)
    value = (value * 0x297A2D39) & _MASK
    return value ^ (value >> 15)


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
    value = i64(0x11C9DC5)
    for i in range(start, end):
        value = ((value ^ i64(text[i])) * 0x01000193) & _MASK
    return mix(value)
