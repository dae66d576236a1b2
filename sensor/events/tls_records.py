"""Whether a client asks for anything under TLS, by the records that it sends: a program sends each command in one.

A client that greets and hangs up sends EHLO and QUIT (RFC 5321 section 4.1.1), or reads the certificate and sends
nothing. One that logs in or mails sends more records, or a second one that is longer than QUIT. Whatever is not
understood counts as asking: records that do not begin where they should, client certificates, a second ClientHello.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.wire import read_u8, read_u16
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

_FIRST_KIND, _HANDSHAKE, _APPLICATION_DATA = 20, 22, 23  # RFC 8446 section 5.1
_HEADER_BYTES = 5
#: A record with QUIT and its line's end: six bytes, 16 of a tag, and 8 of a nonce in TLS 1.2 (RFC 5288) or one of a
#: type in TLS 1.3 (RFC 8446 section 5.2). Suites that pad make longer ones, and count as asking.
QUIT_BYTES = 32
#: close_notify in TLS 1.3, where alerts look like application data: two bytes, a type and a tag.
ALERT_BYTES = 19
#: No header follows: nobody knows where records begin.
_LOST = 1 << 30


@inner
def read_client_records(flow: Any, data: Bytes, pos: int, end: int) -> None:
    """Take the client's next bytes under TLS in order, ``data[pos:end]``, from the ClientHello on."""
    while pos < end:
        left = i64(flow["tls_left"])
        if left > 0:
            n = min(left, end - pos)
            flow["tls_left"] = left - n
            pos += n
            continue
        kind, length = read_u8(data, pos, end), read_u16(data, pos + 3, end)
        if length < 0 or not _FIRST_KIND <= kind <= _APPLICATION_DATA:
            lose_records(flow)
            return
        note_record(flow, kind, length)
        flow["tls_left"] = length
        pos += _HEADER_BYTES


@inner
def note_record(flow: Any, kind: int, length: int) -> None:
    """Count a record of the client with ``length`` bytes behind its header."""
    if kind == _HANDSHAKE:
        flow["tls_handshakes"] = flow["tls_handshakes"] + 1
    elif kind == _APPLICATION_DATA:
        # Of TLS 1.2 the key exchange is in the clear. In 1.3 the first record of this kind ends the handshake.
        is_latest = flow["tls_handshakes"] == 1
        if is_latest and length == ALERT_BYTES:
            return
        flow["tls_records"] = flow["tls_records"] + 1
        nth = flow["tls_records"] - (1 if is_latest else 0)
        if nth > 2 or (nth == 2 and length > QUIT_BYTES):
            flow["tls_asks"] = 1


@inner
def has_only_greeted(flow: Any) -> bool:
    """Tell whether a client went through the handshake and asked for nothing after it."""
    is_through = flow["tls_handshakes"] > 1 or flow["tls_records"] > 0
    return bool(is_through and flow["tls_asks"] == 0)


@inner
def skip_client_records(flow: Any, n: int) -> None:
    """Account for ``n`` bytes of the client that were not captured."""
    if n <= flow["tls_left"]:
        flow["tls_left"] = flow["tls_left"] - n
    else:
        lose_records(flow)


@inner
def lose_records(flow: Any) -> None:
    """Give up: what comes may be anything."""
    flow["tls_asks"] = 1
    flow["tls_left"] = _LOST
