"""The Public Suffix List, as an array that a kernel looks names up in.

Below a public suffix ("com", "co.uk", "*.ck") anybody can register a name: what is registered is one label longer. The
list (publicsuffix.org) comes along in the package ``publicsuffixlist``, of which nothing but that file is used.

Both sections count. The private one names the zones in which companies give names to their customers: a mail host
below "dyndns.org" or "compute.amazonaws.com" is run by the customer, and mail to ten of those goes to ten operators.
No large mail operator's exchanges lie below such a zone, but for Amazon's: "inbound-smtp.us-east-1.amazonaws.com" is
an operator beside "amazonaws.com".

Rules are found by a 31-bit hash. That one label of a name meets one of 10,000 rules by accident happens in one
of 200,000 look-ups; its operator is then a label longer or shorter.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from publicsuffixlist import PSLFILE

from sensor.hashing import hash_texts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: What a rule says of its name, bits: it is a suffix; all names one label longer are; it is none, whatever others say.
EXACT, WILDCARD, EXCEPTION = 1, 2, 4
RULE_BITS = 3
#: Labels of a name that are looked up, from the right: the list's longest rule has seven.
MAX_RULE_LABELS = 8


@cache
def public_suffix_rules() -> NDArray[np.int64]:
    """Return the rules of the whole list, as ``encode_rules`` does."""
    return encode_rules(Path(PSLFILE).read_text("utf-8").split("\n"))


def encode_rules(lines: Iterable[str]) -> NDArray[np.int64]:
    """Return the rules among the lines of a list, i8[k], sorted: the name's hash, then RULE_BITS bits of what it says.

    Names are as DNS has them: lower case, in punycode. A name has one entry, whatever its rules.
    """
    kinds: dict[bytes, int] = {}
    for line in lines:
        name, _, _ = line.partition(" ")
        if not name or name.startswith("//"):
            continue
        kind = EXACT
        if name.startswith("*."):
            kind, name = WILDCARD, name[2:]
        elif name.startswith("!"):
            kind, name = EXCEPTION, name[1:]
        # The codec is slow, and the list is lower case.
        raw = name.encode() if name.isascii() else name.encode("idna")
        kinds[raw] = kinds.get(raw, 0) | kind
    said = np.fromiter(kinds.values(), dtype=np.int64, count=len(kinds))
    return np.sort(hash_texts(list(kinds)) << RULE_BITS | said)
