"""TLS ClientHello (RFC 8446 section 4.1.2): where the name of the server lies that a client asks for.

Sans-io, over what one segment holds; the hello may be cut off behind the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.wire import has, lower, read_u8, read_u16, read_u24
from sensor.jit import inner

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

#: Extensions walked over in one hello; clients send some 20.
MAX_EXTENSIONS = 64
#: A host name is at most 255 octets (RFC 1035 section 2.3.4).
MAX_SERVER_NAME_BYTES = 255

_HANDSHAKE, _TLS_MAJOR, _CLIENT_HELLO = 22, 3, 1
_RECORD_HEADER_BYTES, _MESSAGE_HEADER_BYTES = 5, 4
_VERSION_AND_RANDOM_BYTES = 34
_MAX_SESSION_ID_BYTES = 32
_SERVER_NAME, _HOST_NAME = 0, 0  # the extension, and the type of name in it (RFC 6066 section 3)

_LETTER_A, _LETTER_Z, _DIGIT_0, _DIGIT_9 = 0x61, 0x7A, 0x30, 0x39
_HYPHEN, _DOT, _UNDERSCORE = 0x2D, 0x2E, 0x5F


@inner
def find_server_name(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return start and end of the host name that a ClientHello asks for (RFC 6066 section 3), or (-1, -1).

    A name is refused that is longer than MAX_SERVER_NAME_BYTES or holds other bytes than letters, digits, "-", "."
    and "_"; so is one whose lengths contradict those around it.

    data: u8[n_bytes], in; a TLS record begins at ``start``, and what is there of it is ``data[start:end]``.
    """
    if read_u8(data, start, end) != _HANDSHAKE or read_u8(data, start + 1, end) != _TLS_MAJOR:
        return -1, -1
    message = start + _RECORD_HEADER_BYTES
    record_len = read_u16(data, start + 3, end)
    message_len = read_u24(data, message + 1, end)
    if read_u8(data, message, end) != _CLIENT_HELLO or message_len < 0:
        return -1, -1
    hello = message + _MESSAGE_HEADER_BYTES
    # What the record holds of the hello: the next record goes on with it.
    end = min(end, message + record_len)
    return _find_in_hello(data, hello, min(end, hello + message_len), hello + message_len)


@inner
def _find_in_hello(data: Bytes, pos: int, end: int, hello_end: int) -> tuple[int, int]:
    """Walk the fields of a hello up to its extensions; ``hello_end`` is where it says that it ends."""
    pos += _VERSION_AND_RANDOM_BYTES
    session_id_len = read_u8(data, pos, end)
    if session_id_len < 0 or session_id_len > _MAX_SESSION_ID_BYTES:
        return -1, -1
    pos += 1 + session_id_len
    suites_len = read_u16(data, pos, end)
    if suites_len < 0:
        return -1, -1
    pos += 2 + suites_len
    compressions_len = read_u8(data, pos, end)
    if compressions_len < 0:
        return -1, -1
    pos += 1 + compressions_len
    extensions_len = read_u16(data, pos, end)
    pos += 2
    if extensions_len < 0 or extensions_len > hello_end - pos:
        return -1, -1
    return _find_in_extensions(data, pos, end, pos + extensions_len)


@inner
def _find_in_extensions(data: Bytes, pos: int, end: int, extensions_end: int) -> tuple[int, int]:
    """Walk the extensions (RFC 8446 section 4.2) to that of the server's name."""
    for _ in range(MAX_EXTENSIONS):
        kind = read_u16(data, pos, min(end, extensions_end))
        size = read_u16(data, pos + 2, min(end, extensions_end))
        pos += 4
        if size < 0 or size > extensions_end - pos:
            return -1, -1
        if kind == _SERVER_NAME:
            return _find_in_list(data, pos, end, pos + size)
        pos += size
    return -1, -1


@inner
def _find_in_list(data: Bytes, pos: int, end: int, extension_end: int) -> tuple[int, int]:
    """Take the first name of the list, which no client makes longer (RFC 6066 section 3)."""
    list_len = read_u16(data, pos, end)
    kind = read_u8(data, pos + 2, end)
    size = read_u16(data, pos + 3, end)
    name = pos + 5
    if kind != _HOST_NAME or not 0 < size <= MAX_SERVER_NAME_BYTES or not has(name, end, size):
        return -1, -1
    if list_len > extension_end - pos - 2 or 3 + size > list_len:
        return -1, -1
    for i in range(name, name + size):
        if not _is_name_byte(lower(read_u8(data, i, end))):
            return -1, -1
    return name, name + size


@inner
def _is_name_byte(byte: int) -> bool:
    """Tell whether a byte, in lower case, may stand in a host name."""
    if _LETTER_A <= byte <= _LETTER_Z or _DIGIT_0 <= byte <= _DIGIT_9:
        return True
    return byte in (_HYPHEN, _DOT, _UNDERSCORE)
