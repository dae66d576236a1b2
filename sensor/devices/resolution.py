"""Which device was told which address by DNS: mail to an address that nobody asked for is a proxy's.

One table for all devices, fixed in size; the entry that expires first makes room. An answer counts for as
long as its TTL says, and GRACE_NS longer, since programs keep addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.status import Eviction
from sensor.decode.wire import copy_bytes
from sensor.devices.operators import operator_of_name
from sensor.devices.table import MAX_NAME_BYTES, MAX_PROBES, SECOND_NS, DeviceTables
from sensor.hashing import hash_halves, mix
from sensor.jit import i64, inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRACE_NS = 3600 * SECOND_NS
_EVICTED = int(Eviction.DNS_ANSWER)


@spliced
def remember_answer(
    t: DeviceTables,
    serial: int,
    hi: int,
    lo: int,
    ttl_s: int,
    text: NDArray[np.uint8],
    start: int,
    end: int,
    ts_ns: int,
) -> None:
    """Note that a device was told an address for the name ``text[start:end]``."""
    first = mix(hash_halves(hi, lo) ^ (serial & 0x7FFFFFFF))
    mask = t.answers.size - 1
    place = i64(-1)
    earliest = i64(0)
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        answer = t.answers[row]
        if answer["serial"] == serial and answer["lo"] == lo and answer["hi"] == hi:
            place = i64(row)
            break
        expires = i64(-1) if answer["serial"] < 0 else i64(answer["expires_ns"])
        if place < 0 or expires < earliest:
            place = i64(row)
            earliest = expires
    answer = t.answers[place]
    is_same = answer["serial"] == serial and answer["lo"] == lo and answer["hi"] == hi
    if not is_same and answer["serial"] >= 0 and answer["expires_ns"] > ts_ns:
        t.evictions[_EVICTED] += 1
    answer["serial"] = serial
    answer["hi"] = hi
    answer["lo"] = lo
    answer["expires_ns"] = ts_ns + i64(ttl_s) * SECOND_NS + GRACE_NS
    answer["operator"] = operator_of_name(text, start, end, t.suffix_rules)
    answer["name_len"] = copy_bytes(text, start, end, t.answer_names[place], 0, MAX_NAME_BYTES)


@inner
def find_answer(answers: NDArray[Any], serial: int, hi: int, lo: int, ts_ns: int) -> int:
    """Return the row of the answer by which a device knows an address, or -1."""
    first = mix(hash_halves(hi, lo) ^ (serial & 0x7FFFFFFF))
    mask = answers.size - 1
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        answer = answers[row]
        if answer["serial"] == serial and answer["lo"] == lo and answer["hi"] == hi:
            return row if answer["expires_ns"] >= ts_ns else -1
    return -1
