"""DNS block lists: which queries ask one whether an address or a domain is known for spam (RFC 5782)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.jit import inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Zones below which every name is a block list query, chosen from the rules that Apache SpamAssassin brings
#: (rules/20_dnsbl_tests.cf, 20_mailspike.cf, 25_uribl.cf) and from what the lists' operators document. They
#: are the zones that are queried, not the operators' sites: looking at www.spamhaus.org is no query. Lists
#: that have closed stay in as long as old software asks them. What is missing is still known by its form.
DNSBL_ZONES = (
    # by address
    "zen.spamhaus.org",
    "sbl.spamhaus.org",
    "xbl.spamhaus.org",
    "pbl.spamhaus.org",
    "sbl-xbl.spamhaus.org",
    "dq.spamhaus.net",
    "bl.spamcop.net",
    "dnsbl.sorbs.net",
    "b.barracudacentral.org",
    "bb.barracudacentral.org",
    "cbl.abuseat.org",
    "dnsbl-1.uceprotect.net",
    "dnsbl-2.uceprotect.net",
    "dnsbl-3.uceprotect.net",
    "psbl.surriel.com",
    "bl.mailspike.net",
    "rep.mailspike.net",
    "wl.mailspike.net",
    "bl.score.senderscore.com",
    "dnsbl.dronebl.org",
    "ix.dnsbl.manitu.net",
    "hostkarma.junkemailfilter.com",
    "truncate.gbudb.net",
    "r.mail-abuse.com",
    "list.dnswl.org",
    # by domain
    "dbl.spamhaus.org",
    "dwl.spamhaus.org",
    "multi.surbl.org",
    "multi.uribl.com",
    "black.uribl.com",
    "rhsbl.sorbs.net",
    "uribl.spameatingmonkey.net",
)
#: Of the same form, and no block lists: reverse look-ups (RFC 1035 section 3.5, RFC 3596 section 2.5).
_REVERSE_ZONES = ("in-addr.arpa", "ip6.arpa")

_MAX_ZONE_BYTES = max(len(zone) for zone in DNSBL_ZONES + _REVERSE_ZONES)


def _letters(zones: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the zones backwards, one per row, padded with zeros: names are compared from their ends."""
    letters = np.zeros((len(zones), _MAX_ZONE_BYTES), dtype=np.uint8)
    for row, zone in enumerate(zones):
        letters[row, : len(zone)] = np.frombuffer(zone[::-1].encode(), dtype=np.uint8)
    return letters


_DNSBL_LETTERS = _letters(DNSBL_ZONES)
_REVERSE_LETTERS = _letters(_REVERSE_ZONES)

_DOT = 0x2E
_IPV4_OCTETS = 4
_IPV6_NIBBLES = 32


@inner
def is_dnsbl_name(names: NDArray[np.uint8], start: int, end: int) -> bool:
    """Tell whether ``names[start:end]``, as decode_dns writes it, is a query to a DNS block list.

    That is: a name below a zone of DNSBL_ZONES; or a reversed IPv4 address, or the 32 nibbles of a reversed
    IPv6 address, below a zone of at least two labels (RFC 5782 sections 2.1 and 2.4) other than the zones of
    reverse look-ups.
    """
    if _is_below(names, start, end, _DNSBL_LETTERS):
        return True
    zone = _skip_octets(names, start, end)
    if zone < 0:
        zone = _skip_nibbles(names, start, end)
    if zone < 0 or not _has_dot(names, zone, end):
        return False
    return not _is_below(names, start, end, _REVERSE_LETTERS)


@inner
def _is_below(names: NDArray[np.uint8], start: int, end: int, zones: NDArray[np.uint8]) -> bool:
    """Tell whether a name lies below one of the zones (not at it)."""
    for row in range(zones.shape[0]):
        for i in range(_MAX_ZONE_BYTES + 1):
            letter = zones[row, i] if i < _MAX_ZONE_BYTES else 0
            pos = end - 1 - i
            if letter == 0:
                if pos > start and names[pos] == _DOT:
                    return True
                break
            if pos < start or names[pos] != letter:
                break
    return False


@inner
def _skip_octets(names: NDArray[np.uint8], start: int, end: int) -> int:
    """Return the position behind four labels that are decimal octets without leading zeros, or -1."""
    pos = start
    for _ in range(_IPV4_OCTETS):
        value = 0
        digits = 0
        while digits < 3 and pos < end and 0x30 <= names[pos] <= 0x39:
            if digits > 0 and value == 0:
                return -1
            value = value * 10 + int(names[pos]) - 0x30
            digits += 1
            pos += 1
        if digits == 0 or value > 255 or pos >= end or names[pos] != _DOT:
            return -1
        pos += 1
    return pos


@inner
def _skip_nibbles(names: NDArray[np.uint8], start: int, end: int) -> int:
    """Return the position behind 32 labels that are one hexadecimal digit each, or -1."""
    pos = start + 2 * _IPV6_NIBBLES
    if pos > end:
        return -1
    for i in range(start, pos, 2):
        digit = names[i]
        if not (0x30 <= digit <= 0x39 or 0x61 <= digit <= 0x66) or names[i + 1] != _DOT:
            return -1
    return pos


@inner
def _has_dot(names: NDArray[np.uint8], start: int, end: int) -> bool:
    """Tell whether a name has at least two labels."""
    for i in range(start + 1, end - 1):  # noqa: SIM110  # numba knows no generators
        if names[i] == _DOT:
            return True
    return False
