"""DHCPv6 (RFC 8415): the address that a device gets, and what it says of itself. Sans-io."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.announce import count_broken
from sensor.decode.facts import (
    FactKind,
    Facts,
    add_fact,
    close_fact,
    open_fact,
    put_byte,
    put_hex,
    put_number,
)
from sensor.decode.lan import MAX_PARAMETERS, LanStatus, add_wire_name
from sensor.decode.wire import has, read_address_half, read_u8, read_u16, read_u32
from sensor.jit import inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

DHCPV6_DTYPE = np.dtype(
    [
        ("status", np.int64),  # LanStatus
        ("message_type", np.int64),  # -1 if it was not reached
        ("is_from_client", np.int64),
        ("address_hi", np.int64),  # the first address that a server gives, 0 none
        ("address_lo", np.int64),
    ]
)

#: Options walked over in a message, and in an identity association: more than fit into an Ethernet frame.
MAX_OPTIONS = 384

# RFC 8415 section 7.3.
_ADVERTISE, _REPLY, _RECONFIGURE, _INFORMATION_REQUEST = 2, 7, 10, 11
_CLIENT_ID, _IA_NA, _IA_ADDRESS, _OPTION_REQUEST, _VENDOR_CLASS = 1, 3, 5, 6, 16
_CLIENT_FQDN = 39  # RFC 4704
_HEADER_BYTES, _OPTION_BYTES = 4, 4
_IA_NA_BYTES, _IA_ADDRESS_BYTES, _VENDOR_BYTES = 12, 24, 6
_COMMA = 0x2C

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_VENDOR_CLASS_FACT = int(FactKind.VENDOR_CLASS)
_PARAMETERS_FACT, _CLIENT_ID_FACT = int(FactKind.PARAMETERS), int(FactKind.CLIENT_ID)


@inner
def decode_dhcpv6(
    data: Bytes, start: int, end: int, dhcp: NDArray[Any], facts: Facts, weirds: NDArray[np.int64]
) -> int:
    """Decode one DHCPv6 message between client and server (RFC 8415 section 8) and return its LanStatus.

    The facts are the client's. Messages between relays and servers are UNSUPPORTED.

    data: u8[n_bytes], in; the message is ``data[start:end]``. dhcp: DHCPV6_DTYPE[1], out. facts: in/out, added to.
    weirds: i64[N_WEIRDS], LAN_MALFORMED counted up if truncated or malformed.
    """
    row = dhcp[0]
    status = _decode_message(data, start, end, row, facts)
    row["status"] = status
    return count_broken(status, weirds)


@inner
def _decode_message(data: Bytes, start: int, end: int, row: Any, facts: Facts) -> int:
    kind = read_u8(data, start, end)
    row["message_type"] = kind
    row["is_from_client"] = 1 if kind not in (-1, _ADVERTISE, _REPLY, _RECONFIGURE) else 0
    row["address_hi"] = 0
    row["address_lo"] = 0
    if not has(start, end, _HEADER_BYTES):
        return _TRUNCATED
    if kind == 0 or kind > _INFORMATION_REQUEST:
        return _UNSUPPORTED
    pos = start + _HEADER_BYTES
    for _ in range(MAX_OPTIONS):
        if pos >= end:
            return _OK
        code, size = read_u16(data, pos, end), read_u16(data, pos + 2, end)
        pos += _OPTION_BYTES
        if size < 0 or not has(pos, end, size):
            return _TRUNCATED
        if code == _IA_NA and kind == _REPLY:
            status = _take_address(data, pos + _IA_NA_BYTES, pos + size, row)
        else:
            status = _take_option(data, code, pos, pos + size, row, facts)
        if status != _OK:
            return status
        pos += size
    return _MALFORMED


@inner
def _take_option(data: Bytes, code: int, pos: int, end: int, row: Any, facts: Facts) -> int:
    """Add the fact in an option of the client's; return a LanStatus."""
    if code == _CLIENT_ID:  # RFC 8415 section 21.2; servers repeat it
        open_fact(facts, _CLIENT_ID_FACT)
        put_hex(facts, data, pos, end)
        close_fact(facts)
    if row["is_from_client"] == 0:
        return _OK
    if code == _OPTION_REQUEST:  # section 21.7
        open_fact(facts, _PARAMETERS_FACT)
        for i in range(min((end - pos) // 2, MAX_PARAMETERS)):
            if i > 0:
                put_byte(facts, _COMMA)
            put_number(facts, read_u16(data, pos + 2 * i, end))
        close_fact(facts)
    elif code == _VENDOR_CLASS and has(pos, end, _VENDOR_BYTES):  # section 21.16: the first of its texts
        length = read_u16(data, pos + 4, end)
        if not has(pos + _VENDOR_BYTES, end, length):
            return _MALFORMED
        add_fact(facts, _VENDOR_CLASS_FACT, data, pos + _VENDOR_BYTES, pos + _VENDOR_BYTES + length)
    elif code == _CLIENT_FQDN:
        return add_wire_name(data, pos + 1, end, facts)
    return _OK


@inner
def _take_address(data: Bytes, pos: int, end: int, row: Any) -> int:
    """Take the first address of an identity association that is valid for some time; return a LanStatus."""
    for _ in range(MAX_OPTIONS):
        if pos >= end:
            return _OK
        code, size = read_u16(data, pos, end), read_u16(data, pos + 2, end)
        pos += _OPTION_BYTES
        if size < 0 or not has(pos, end, size):
            return _MALFORMED
        is_address = code == _IA_ADDRESS and size >= _IA_ADDRESS_BYTES
        if is_address and row["address_lo"] == 0 and read_u32(data, pos + 20, end) > 0:
            row["address_hi"] = read_address_half(data, pos, end)
            row["address_lo"] = read_address_half(data, pos + 8, end)
        pos += size
    return _MALFORMED
