"""Which addresses have mailed lately: of them alone, packets that are no mail are worth a row.

And which have asked a web server lately: of them one request in a while is, for the program that it names.

A table of the last mail of each address, hashed, one entry a place: who mails later takes the place of another
for as long as that one does not mail again. It is kept where packets are decoded, in their order, so that
where the work is cut into batches makes no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.jit import i64, inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How long after its last mail packet an address is watched: a proxy's mails come minutes apart.
WATCH_NS = 900 * 1_000_000_000
N_WATCHED = 4096
_MASK = N_WATCHED - 1

#: How often a request of an address is looked at: a device's programs are few, and its requests many.
REQUEST_NS = 5 * 1_000_000_000

WATCH_DTYPE = np.dtype(
    [
        ("lo", np.int64),
        ("last_ns", np.int64),
        ("request_ns", np.int64),  # the last request looked at, of whichever address has this place
    ]
)


def new_watch() -> NDArray[Any]:
    """Return the table for ``decode_batch``, WATCH_DTYPE[N_WATCHED]; nobody has mailed."""
    watch = np.zeros(N_WATCHED, dtype=WATCH_DTYPE)
    watch["last_ns"] = -WATCH_NS
    watch["request_ns"] = -REQUEST_NS
    return watch


@inlined
def place_of(lo: int) -> int:
    """Return the place of an address by its lower half: the host's part of IPv6, all of IPv4."""
    low = lo & 0x7FFFFFFF
    return ((low * 0x2C1B3C6D) >> 16) & _MASK


@inlined
def note_mail(watch: NDArray[Any], lo: int, ts_ns: int) -> None:
    """Note that the address with the lower half ``lo`` has sent a mail packet."""
    entry = watch[place_of(lo)]
    entry["lo"] = lo
    entry["last_ns"] = ts_ns


@inlined
def is_watched(watch: NDArray[Any], lo: int, ts_ns: int) -> bool:
    """Tell whether an address has mailed lately."""
    entry = watch[place_of(lo)]
    return bool(entry["lo"] == lo and ts_ns - i64(entry["last_ns"]) < WATCH_NS)


@inlined
def is_request_due(watch: NDArray[Any], lo: int, ts_ns: int) -> bool:
    """Tell whether a request of an address is to be looked at, and note that it is."""
    entry = watch[place_of(lo)]
    is_due = abs(ts_ns - i64(entry["request_ns"])) >= REQUEST_NS
    if is_due:
        entry["request_ns"] = ts_ns
    return bool(is_due)
