"""The mail operator behind a destination: who runs it, as far as its name or address tells.

The name is the one under which the device had resolved the address: of an MX look-up, the exchange's. Its
operator is the registrable domain, by the Public Suffix List (sensor/devices/suffixes.py): one label more than a
suffix below which anybody can register. Without a name it is the /24 of an IPv4 address, the /48 of an IPv6 address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.devices.suffixes import EXACT, EXCEPTION, MAX_RULE_LABELS, RULE_BITS, WILDCARD
from sensor.hashing import hash_halves, hash_text, hash_texts
from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DOT = 46
#: Last labels of names that many servers have, those that nobody configured (RFC 6762 appendix G, RFC 8375).
_LOCAL_LABELS: Final = hash_texts(
    [
        b"local",
        b"localdomain",
        b"localhost",
        b"internal",
        b"intranet",
        b"private",
        b"lan",
        b"home",
        b"corp",
        b"arpa",
    ]
)
#: Operators known by name and by network never share a number.
_BY_NETWORK = 1 << 32


@inner
def find_rule(rules: NDArray[np.int64], text: NDArray[np.uint8], start: int, end: int) -> int:
    """Return what the rules say of the name ``text[start:end]``: bits of EXACT, WILDCARD, EXCEPTION; 0 nothing."""
    key = hash_text(text, start, end) << RULE_BITS
    low = i64(0)
    high = i64(rules.size)
    while low < high:
        middle = (low + high) >> 1
        if rules[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low < rules.size and rules[low] >> RULE_BITS == key >> RULE_BITS:
        return i64(rules[low] - key)
    return 0


@inner
def start_of_label(text: NDArray[np.uint8], start: int, end: int) -> int:
    """Return where the last label of ``text[start:end]`` begins."""
    for i in range(end - 1, start - 1, -1):
        if text[i] == _DOT:
            return i64(i + 1)
    return i64(start)


@inner
def start_of_domain(text: NDArray[np.uint8], start: int, end: int, rules: NDArray[np.int64]) -> int:
    """Return where the registrable domain of the host name ``text[start:end]`` begins.

    The longest rule wins, an exception over its wildcard; without a rule the last label is a suffix. What is above
    a wildcard is a suffix, too, as the list's tests have it. A suffix itself is returned whole.
    """
    suffix = start_of_label(text, start, end)
    at = suffix  # the label that is looked at
    before = i64(end)  # the one to its right
    is_below_wildcard = False
    for _ in range(MAX_RULE_LABELS):
        said = find_rule(rules, text, at, end)
        if is_below_wildcard or said & (EXACT | WILDCARD) != 0:
            suffix = at
        is_below_wildcard = said & WILDCARD != 0
        if said & EXCEPTION != 0:
            suffix = before
            is_below_wildcard = False
        if at <= start:
            break
        before = at
        at = start_of_label(text, start, at - 1)
    return start_of_label(text, start, suffix - 1) if suffix > start else i64(start)


@inner
def is_local_name(text: NDArray[np.uint8], start: int, end: int) -> bool:
    """Tell whether a server's own name, ``text[start:end]`` in lower case, is one that many have."""
    label = hash_text(text, start_of_label(text, start, end), end)
    for i in range(_LOCAL_LABELS.size):  # noqa: SIM110 - numba knows no generators
        if _LOCAL_LABELS[i] == label:
            return True
    return False


@inner
def operator_of_name(text: NDArray[np.uint8], start: int, end: int, rules: NDArray[np.int64]) -> int:
    """Return the operator of a host name, ``text[start:end]`` in lower case; ``rules`` as of suffixes.py."""
    return hash_text(text, start_of_domain(text, start, end, rules), end)


@inner
def operator_of_address(hi: int, lo: int) -> int:
    """Return the operator of an address that has no name: its network's number."""
    if hi == 0:
        return _BY_NETWORK | hash_halves(0, lo >> 8)
    return _BY_NETWORK | hash_halves(0, hi >> 16)
