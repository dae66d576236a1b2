"""How times, addresses and other people's text are written, for every output alike.

Host names, EHLO names and DNS labels are chosen by whoever sends them. They are written in printable ASCII
only, with everything else as a backslash escape, so that no output can move a terminal's cursor, hide a
character or turn text around.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S: Final = 1_000_000_000
_U64: Final = (1 << 64) - 1
_IPV4_MAPPED: Final = 0xFFFF  # RFC 4291 section 2.5.5.2: ::ffff:0:0/96

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))}


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return (_UNIX_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]  # quicker than strftime


def eve_time(ts_ns: int) -> str:
    """Write nanoseconds since the Unix epoch in EVE's form, UTC: ``2026-11-23T14:50:22.123456+0000``.

    Nanoseconds are cut to microseconds, towards the past. Every int64 has such a form (years 1677 to 2262).
    """
    seconds, rest = divmod(ts_ns, _NS_PER_S)
    return f"{_second_text(seconds)}.{rest // 1000:06d}+0000"


def day_and_second(eve_time: str) -> str:
    """Rewrite a time in EVE's form for a person: ``2026-11-23 14:50:22 UTC``."""
    return f"{eve_time[:10]} {eve_time[11:19]} UTC"


def duration_text(seconds: float) -> str:
    """Write a duration in its largest unit and the next one below: ``3 min 12 s``, ``2 d``."""
    rest = max(0, round(seconds))
    for (unit, size), (next_unit, next_size) in pairwise(_UNITS):
        if rest >= size:
            n, rest = divmod(rest, size)
            below = rest // next_size
            return f"{n} {unit} {below} {next_unit}" if below else f"{n} {unit}"
    return f"{rest} s"


def counted(n: int, noun: str) -> str:
    """Write a number of things: ``1 alert``, ``2,000 alerts``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


@lru_cache(maxsize=4096)
def address_text(hi: int, lo: int) -> str:
    """Write an address of the event and packet columns: two int64 halves, IPv4 as IPv4-mapped IPv6."""
    hi, lo = hi & _U64, lo & _U64
    if hi == 0 and lo >> 32 == _IPV4_MAPPED:
        return str(ipaddress.IPv4Address(lo & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(hi << 64 | lo))


def address_bytes(hi: int, lo: int) -> bytes:
    """Return an address of the event and packet columns in network order: 4 bytes of IPv4, 16 of IPv6."""
    if hi == 0 and (lo & _U64) >> 32 == _IPV4_MAPPED:
        return (lo & 0xFFFFFFFF).to_bytes(4, "big")
    return ((hi & _U64) << 64 | lo & _U64).to_bytes(16, "big")


def endpoint_text(address: str, port: int) -> str:
    """Write an address and a port: ``192.0.2.1:25``, ``[2001:db8::1]:25`` (RFC 3986 section 3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@lru_cache(maxsize=4096)
def mac_text(mac: int) -> str | None:
    """Write a 48-bit MAC address as ``44:19:b6:0a:0b:0c``; None for -1, not known."""
    return None if mac < 0 else mac.to_bytes(6, "big").hex(":")


def visible(text: str) -> str:
    """Escape what cannot be seen or moves the cursor, whatever the alphabet: for file names and such."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable(text: str) -> str:
    r"""Write in printable ASCII: ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN`` for the rest.

    A text that is printable already stays as it is, backslashes too, so that escaping twice does no harm.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")


def printable_bytes(raw: bytes) -> str:
    r"""Write bytes of any encoding in printable ASCII: ``\xNN`` for the rest, ``\\`` for a backslash.

    Different bytes stay different.
    """
    return printable(raw.replace(b"\\", b"\\\\").decode("latin-1"))
