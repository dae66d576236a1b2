"""NetBIOS over UDP (RFC 1002): the name that a Windows machine, or what behaves like one, gives itself.

Sans-io. Only what is said of the sender counts: the name that it registers or refreshes, its answer to a node
status request, the source of its datagrams. Names of groups, and of roles (the 16th byte), are not its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import count_broken
from sensor.decode.dns import HEADER_BYTES, DnsStatus, skip_name
from sensor.decode.facts import FactKind, close_fact, open_fact, put_byte
from sensor.decode.lan import LanStatus
from sensor.decode.wire import has, read_u8, read_u16
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_DNS_TRUNCATED = int(DnsStatus.TRUNCATED)
_HOST_NAME = int(FactKind.HOST_NAME)

# Operations (section 4.2.1.1). A refresh is 8 in the list and 9 in the pictures of it, and both are in use; 15 is
# a registration by a host with several addresses, as Windows sends it (MS-NBTE section 2.2.2).
_QUERY, _REGISTRATION, _REFRESH, _REFRESH_TOO, _MULTIHOMED = 0, 5, 8, 9, 15
_TYPE_NB, _TYPE_NBSTAT = 0x20, 0x21  # section 4.2.1.3
_GROUP = 0x8000  # in NB_FLAGS and NAME_FLAGS
#: The 16th byte of names that are a machine's own: its workstation and its file server.
_WORKSTATION, _SERVER = 0x00, 0x20

_NAME_BYTES = 15
_ENCODED_BYTES = 32  # of a name with its 16th byte (RFC 1001 section 14.1)
_LETTER_A, _LETTER_P = 0x41, 0x50
_STATUS_ENTRY_BYTES = 18
_RECORD_FIXED_BYTES = 10
_RDATA_NB_BYTES = 6

_DIRECT_UNIQUE, _BROADCAST = 0x10, 0x12  # section 4.4.1; between them DIRECT_GROUP
_DATAGRAM_HEADER_BYTES = 14
_SPACE, _DELETE = 0x20, 0x7F


@inner
def decode_netbios_name(data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]) -> int:
    """Add the HOST_NAME that a message of the name service tells (section 4.2); return its LanStatus.

    data: u8[n_bytes], in; the message is ``data[start:end]``. facts: in/out. weirds: i64[N_WEIRDS],
    LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_name_service(data, start, end, facts), weirds)


@inner
def decode_netbios_datagram(
    data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]
) -> int:
    """Add the HOST_NAME that a message of the datagram service comes from (section 4.4.2); return its LanStatus.

    data: u8[n_bytes], in; the message is ``data[start:end]``. facts: in/out. weirds: i64[N_WEIRDS],
    LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_datagram(data, start, end, facts), weirds)


@inner
def _decode_name_service(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Decode the header (section 4.2.1.1), and what its operation says of the sender."""
    if not has(start, end, HEADER_BYTES):
        return _TRUNCATED
    flags = read_u16(data, start + 2, end)
    is_response, opcode, rcode = flags >> 15, (flags >> 11) & 0x0F, flags & 0x0F
    if is_response == 0 and opcode in (_REGISTRATION, _REFRESH, _REFRESH_TOO, _MULTIHOMED):
        return _decode_registration(data, start, end, facts)
    if is_response == 1 and opcode == _QUERY and rcode == 0:
        return _decode_node_status(data, start, end, facts)
    return _UNSUPPORTED


@inner
def _decode_registration(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Decode a request to register or refresh a name (section 4.2.2 and 4.2.4)."""
    if read_u16(data, start + 4, end) != 1 or read_u16(data, start + 10, end) != 1:
        return _MALFORMED
    name = start + HEADER_BYTES
    status = _check_encoded(data, name, end)
    if status != _OK:
        return status
    pos = skip_name(data, name, end)
    if pos >= 0:
        pos = skip_name(data, pos + 4, end)  # the owner of the additional record
    if pos < 0:
        return _status_of(pos)
    rdata = pos + _RECORD_FIXED_BYTES
    if not has(pos, end, _RECORD_FIXED_BYTES + _RDATA_NB_BYTES):
        return _TRUNCATED
    if read_u16(data, pos, end) != _TYPE_NB or read_u16(data, rdata - 2, end) != _RDATA_NB_BYTES:
        return _MALFORMED
    if read_u16(data, rdata, end) & _GROUP == 0:
        _add_name(data, name + 1, end, 2, facts)
    return _OK


@inner
def _decode_node_status(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Decode the names in a node status response (section 4.2.18) until one is the machine's own."""
    if read_u16(data, start + 4, end) != 0 or read_u16(data, start + 6, end) != 1:
        return _MALFORMED
    pos = skip_name(data, start + HEADER_BYTES, end)
    if pos < 0:
        return _status_of(pos)
    if not has(pos, end, _RECORD_FIXED_BYTES + 1):
        return _TRUNCATED
    if read_u16(data, pos, end) != _TYPE_NBSTAT:
        return _UNSUPPORTED
    n_names = read_u8(data, pos + _RECORD_FIXED_BYTES, end)
    if 1 + n_names * _STATUS_ENTRY_BYTES > read_u16(data, pos + 8, end):
        return _MALFORMED
    pos += _RECORD_FIXED_BYTES + 1
    for _ in range(n_names):  # one byte: at most 255
        if not has(pos, end, _STATUS_ENTRY_BYTES):
            return _TRUNCATED
        is_group = read_u16(data, pos + _NAME_BYTES + 1, end) & _GROUP != 0
        if not is_group and _add_name(data, pos, end, 1, facts):
            return _OK
        pos += _STATUS_ENTRY_BYTES
    return _OK


@inner
def _decode_datagram(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Decode the header and the source name of a datagram (section 4.4.2)."""
    kind = read_u8(data, start, end)
    if kind >= 0 and not _DIRECT_UNIQUE <= kind <= _BROADCAST:
        return _UNSUPPORTED
    name = start + _DATAGRAM_HEADER_BYTES
    status = _check_encoded(data, name, end)
    if status == _OK:
        _add_name(data, name + 1, end, 2, facts)
    return status


@inner
def _check_encoded(data: Bytes, pos: int, end: int) -> int:
    """Tell whether a name's first label is 16 bytes in first-level encoding (RFC 1001 section 14.1)."""
    size = read_u8(data, pos, end)
    if size < 0:
        return _TRUNCATED
    if size != _ENCODED_BYTES:
        return _MALFORMED
    if not has(pos + 1, end, _ENCODED_BYTES):
        return _TRUNCATED
    for i in range(pos + 1, pos + 1 + _ENCODED_BYTES):
        if not _LETTER_A <= read_u8(data, i, end) <= _LETTER_P:
            return _MALFORMED
    return _OK


@inner
def _add_name(data: Bytes, pos: int, end: int, step: int, facts: Facts) -> bool:
    """Add a name of 16 bytes if it is a machine's own; ``step``: wire bytes for each of them, 2 if encoded."""
    if _name_byte(data, pos, end, step, _NAME_BYTES) not in (_WORKSTATION, _SERVER):
        return False
    for i in range(_NAME_BYTES):
        byte = _name_byte(data, pos, end, step, i)
        if byte < _SPACE or byte == _DELETE:
            return False
    open_fact(facts, _HOST_NAME)
    for i in range(_NAME_BYTES):
        put_byte(facts, _name_byte(data, pos, end, step, i))
    close_fact(facts)
    return True


@inner
def _name_byte(data: Bytes, pos: int, end: int, step: int, i: int) -> int:
    """Return a byte of a name; the caller has checked that it is there, and its letters."""
    if step == 1:
        return read_u8(data, pos + i, end)
    upper = read_u8(data, pos + 2 * i, end) - _LETTER_A
    return (upper << 4) | (read_u8(data, pos + 2 * i + 1, end) - _LETTER_A)


@inner
def _status_of(position: int) -> int:
    """Return the status of a name that ``skip_name`` could not step over."""
    return _TRUNCATED if position == -_DNS_TRUNCATED else _MALFORMED
