"""The mail operator behind a destination: who runs it, as far as its name or address tells.

The name is the one under which the device had resolved the address: of an MX look-up, the exchange's. Its
operator is the registrable domain, approximated: two labels, three below a country's category ("co.uk").
Without a name it is the /24 of an IPv4 address, the /48 of an IPv6 address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.hashing import hash_halves, hash_text
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DOT = 46
#: Operators known by name and by network never share a number.
_BY_NETWORK = 1 << 32


def _pack(word: str) -> int:
    return int.from_bytes(word.encode(), "big")


#: Labels that country registries use for categories, below which names are registered.
_CATEGORY_WORDS = "ac co com edu gob gov gv mil ne net nom or org go gen ltd plc sch".split()  # noqa: SIM905
_CATEGORIES = np.array([_pack(word) for word in _CATEGORY_WORDS], dtype=np.int64)


@inner
def is_category(text: NDArray[np.uint8], start: int, end: int) -> bool:
    """Tell whether the label ``text[start:end]`` is a registry's category."""
    if end - start > 3:
        return False
    packed = i64(0)
    for i in range(start, end):
        packed = (packed << 8) | i64(text[i])
    for k in range(_CATEGORIES.size):  # noqa: SIM110 - numba knows no generators
        if _CATEGORIES[k] == packed:
            return True
    return False


@inner
def operator_of_name(text: NDArray[np.uint8], start: int, end: int) -> int:
    """Return the operator of a host name, ``text[start:end]`` in lower case."""
    last = i64(-1)
    second = i64(-1)
    third = i64(-1)
    for i in range(end - 1, start - 1, -1):
        if text[i] != _DOT:
            continue
        if last < 0:
            last = i64(i)
        elif second < 0:
            second = i64(i)
        else:
            third = i64(i)
            break
    first = second + 1 if second >= 0 else i64(start)
    if second >= 0 and end - last - 1 == 2 and is_category(text, second + 1, last):
        first = third + 1 if third >= 0 else i64(start)
    return hash_text(text, first, end)


@inner
def operator_of_address(hi: int, lo: int) -> int:
    """Return the operator of an address that has no name: its network's number."""
    if hi == 0:
        return _BY_NETWORK | hash_halves(0, lo >> 8)
    return _BY_NETWORK | hash_halves(0, hi >> 16)
