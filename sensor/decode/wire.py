"""The only reader of packet bytes.

A packet is ``data[start:end]`` inside a batch of many packets. Reading past ``end`` would read the neighbour,
which NumPy's bounds check cannot see: hence every access goes through these functions, each of which takes
the packet's own ``end`` and answers -1 ("not there") outside of it. -1 is no value that a reader below can
return otherwise, so a chain of reads needs one check at its end. ``tests/test_architecture.py`` holds all
other modules to it.

All values are int64, widened at the load: numba widens small integers and plain Python does not, so anything
else would compute differently with the JIT off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.jit import i64, inner, unchecked
from sensor.native import BLOCK, first_in_block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]


@inner
def has(pos: int, end: int, n: int) -> bool:
    """Tell whether ``n`` bytes are left at ``pos``; by remaining, not by sum, so that nothing can overflow."""
    return pos >= 0 and n <= end - pos


@inner
def read_u8(data: Bytes, pos: int, end: int) -> int:
    """Read one byte, or -1."""
    if pos < 0 or pos >= end:
        return i64(-1)
    return i64(data[pos])


@inner
def read_u16(data: Bytes, pos: int, end: int) -> int:
    """Read a 16-bit integer in network order, or -1."""
    if not has(pos, end, 2):
        return i64(-1)
    return (i64(data[pos]) << 8) | i64(data[pos + 1])


@inner
def read_u24(data: Bytes, pos: int, end: int) -> int:
    """Read a 24-bit integer in network order, or -1."""
    if not has(pos, end, 3):
        return i64(-1)
    return (i64(data[pos]) << 16) | (i64(data[pos + 1]) << 8) | i64(data[pos + 2])


@inner
def read_u32(data: Bytes, pos: int, end: int) -> int:
    """Read a 32-bit integer in network order, or -1."""
    if not has(pos, end, 4):
        return i64(-1)
    return (
        (i64(data[pos]) << 24) | (i64(data[pos + 1]) << 16) | (i64(data[pos + 2]) << 8) | i64(data[pos + 3])
    )


@inner
def read_u16_le(data: Bytes, pos: int, end: int) -> int:
    """Read a 16-bit little-endian integer, or -1."""
    if not has(pos, end, 2):
        return i64(-1)
    return i64(data[pos]) | (i64(data[pos + 1]) << 8)


@inner
def read_u32_le(data: Bytes, pos: int, end: int) -> int:
    """Read a 32-bit little-endian integer, or -1."""
    if not has(pos, end, 4):
        return i64(-1)
    return (
        i64(data[pos]) | (i64(data[pos + 1]) << 8) | (i64(data[pos + 2]) << 16) | (i64(data[pos + 3]) << 24)
    )


@inner
def read_mac(data: Bytes, pos: int, end: int) -> int:
    """Read a 48-bit MAC address, or -1."""
    if not has(pos, end, 6):
        return i64(-1)
    return (read_u16(data, pos, end) << 32) | read_u32(data, pos + 2, end)


@inner
def read_address_half(data: Bytes, pos: int, end: int) -> int:
    """Read 64 bits of an IPv6 address as a signed int64; the caller has checked ``has(pos, end, 8)``.

    The one reader whose every value is possible: 0 where the bytes are not there.
    """
    if not has(pos, end, 8):
        return i64(0)
    return (read_u32(data, pos, end) << 32) | read_u32(data, pos + 4, end)


@unchecked
def find_byte(data: Bytes, pos: int, end: int, value: int) -> int:
    """Return the position of the first ``value`` in ``data[pos:end]``, or -1.

    Block by block: what a block holds beyond ``end`` belongs to the neighbour, and does not count.
    """
    if pos < 0 or end > data.size:
        return i64(-1)
    pos = i64(pos)
    while pos < end and pos + BLOCK <= data.size:
        first = first_in_block(data, pos, value)
        pos += first
        if first < BLOCK:
            return pos if pos < end else i64(-1)
    for i in range(pos, end):
        if data[i] == value:
            return i64(i)
    return i64(-1)


@inner
def copy_bytes(data: Bytes, pos: int, end: int, target: Bytes, at: int, limit: int) -> int:
    """Copy ``data[pos:end]`` to ``target[at:limit]``; return how many bytes fitted."""
    if pos < 0 or at < 0:
        return i64(0)
    n = min(end - pos, limit - at)
    for i in range(n):
        target[at + i] = data[pos + i]
    return i64(max(n, 0))


@inner
def lower(byte: int) -> int:
    """Return an ASCII letter in lower case, any other byte as it is."""
    if 65 <= byte <= 90:
        return byte + 32
    return byte


@inner
def seq_diff(a: int, b: int) -> int:
    """Return ``a - b`` for TCP sequence numbers, modulo 2**32 and centred on zero (RFC 9293 section 3.4)."""
    d = (a - b) & 0xFFFFFFFF
    if d >= 0x80000000:
        d -= 0x100000000
    return d
