"""Which servers a device has met before: two Bloom filters, of these thirty days and of those before.

A server counts as known for at least thirty days after it was met, and for sixty at most. A filter errs to one
side: it may take a new server for a known one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.devices.table import BLOOM_BITS, BLOOM_HASHES, ERA_NS, DeviceTables
from sensor.hashing import hash_halves, mix
from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@inner
def begin_era(t: DeviceTables, row: int, ts_ns: int) -> None:
    """Clear the filters that are too old."""
    device = t.devices[row]
    era = ts_ns // ERA_NS
    passed = era - i64(device["era"])
    if passed >= 1:
        t.blooms[row, era % 2] = 0
    if passed >= 2:
        t.blooms[row, (era + 1) % 2] = 0
    if passed >= 1:
        device["era"] = era


@inner
def has_and_add(bloom: NDArray[np.uint8], hashed: int, is_added: bool) -> bool:
    """Tell whether a hash is in a filter, u8[BLOOM_BITS / 8], and put it there if ``is_added``."""
    is_there = True
    for _ in range(BLOOM_HASHES):
        hashed = mix(hashed)
        bit = hashed % BLOOM_BITS
        mask = 1 << (bit & 7)
        value = i64(bloom[bit >> 3])
        is_there = is_there and value & mask != 0
        if is_added:
            bloom[bit >> 3] = value | mask
    return is_there


@inner
def meet_server(t: DeviceTables, row: int, hi: int, lo: int, port: int, ts_ns: int) -> bool:
    """Note that a device meets a server; tell whether it is new to it."""
    begin_era(t, row, ts_ns)
    era = ts_ns // ERA_NS
    hashed = mix(hash_halves(hi, lo) ^ port)
    is_old = has_and_add(t.blooms[row, (era + 1) % 2], hashed, False)
    is_recent = has_and_add(t.blooms[row, era % 2], hashed, True)
    return not is_old and not is_recent
