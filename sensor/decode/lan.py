"""ARP and DHCPv4: which device has which address, and what it says of itself.

Sans-io. An IPv4 address comes out as the low half of its IPv4-mapped IPv6 address (the high half is 0), and
as 0 where the packet says 0.0.0.0, which means "none" in both protocols.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.facts import (
    N_ROWS,
    FactKind,
    Facts,
    add_fact,
    close_fact,
    open_fact,
    put_byte,
    put_bytes,
    put_hex,
    put_number,
)
from sensor.decode.status import Weird
from sensor.decode.wire import has, read_mac, read_u8, read_u16, read_u32
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes


class LanStatus(IntEnum):
    """How the decoding of one packet ended; whatever was read before is kept in any case."""

    OK = 0
    UNSUPPORTED = 1  # not wrong, but not about IPv4 over Ethernet: other ARP, BOOTP without DHCP
    TRUNCATED = 2  # the packet ends too early
    MALFORMED = 3  # fields contradict each other or the RFC


class ArpOp(IntEnum):
    """Operations that are decoded (IANA ARP parameters)."""

    REQUEST = 1
    REPLY = 2


class DhcpMessageType(IntEnum):
    """Messages between client and server (RFC 2132 section 9.6); others go up to MAX_MESSAGE_TYPE."""

    NONE = 0  # the option was not there
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


#: A field that was not reached is 0, a MAC address -1.
ARP_DTYPE = np.dtype(
    [
        ("status", np.int64),  # LanStatus
        ("op", np.int64),  # ArpOp, or the number of another operation if UNSUPPORTED
        ("sender_mac", np.int64),
        ("sender_lo", np.int64),
        ("target_lo", np.int64),
        ("is_gratuitous", np.int64),  # 1: about its own address, an announcement (RFC 5227 section 1.1)
        ("is_probe", np.int64),  # 1: sender 0.0.0.0, asks whether target_lo is taken (RFC 5227 section 1.1)
    ]
)

#: A field that was not reached, or whose option is not there, is 0; chaddr and lease_s are -1. Texts are facts.
DHCP_DTYPE = np.dtype(
    [
        ("status", np.int64),  # LanStatus
        ("op", np.int64),  # 1 from a client, 2 from a server
        ("message_type", np.int64),  # DhcpMessageType
        ("chaddr", np.int64),  # MAC address of the client, -1 if it is none of a single Ethernet device
        ("ciaddr_lo", np.int64),  # the client's address, if it has one already
        ("yiaddr_lo", np.int64),  # the address that the server gives
        ("requested_lo", np.int64),  # the address that the client asks for (option 50)
        ("lease_s", np.int64),  # option 51; 4294967295 means for ever
        ("giaddr_lo", np.int64),  # the relay's address, if it came through one
    ]
)

#: Options and pad bytes walked over in one field of a message: more than fit into an Ethernet frame.
MAX_DHCP_OPTIONS = 2048
MAX_MESSAGE_TYPE = 18  # IANA "DHCP Message Type 53 Values"
#: Labels of a fully qualified name (RFC 1035: 255 bytes, two for each label at least).
MAX_FQDN_LABELS = 127
#: Options asked for that are kept: clients that differ do so early.
MAX_PARAMETERS = 32

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_ARP_MALFORMED = int(Weird.ARP_MALFORMED)
_DHCP_MALFORMED = int(Weird.DHCP_MALFORMED)
_REQUEST, _REPLY = int(ArpOp.REQUEST), int(ArpOp.REPLY)

_HARDWARE_ETHERNET = 1  # IANA ARP hardware types
_HARDWARE_IEEE_802 = 6
_ETHERTYPE_IPV4 = 0x0800
_MAC_BYTES, _IPV4_BYTES = 6, 4
_GROUP_BIT = 1 << 40  # of a MAC address: multicast or broadcast
_IPV4_MAPPED = 0xFFFF << 32  # RFC 4291 section 2.5.5.2

_ARP_FIXED_BYTES = 8
_ARP_BYTES = 28

# Fields of a DHCP message (RFC 2131 section 2), by their distance from its start.
_HTYPE, _HLEN, _CIADDR, _YIADDR, _GIADDR, _CHADDR, _SNAME, _FILE, _COOKIE, _OPTIONS = (
    1,
    2,
    12,
    16,
    24,
    28,
    44,
    108,
    236,
    240,
)
_MAGIC_COOKIE = 0x63825363
_PAD, _END = 0, 255
_HOST_NAME, _REQUESTED_ADDRESS, _LEASE_TIME, _OVERLOAD, _MESSAGE_TYPE = 12, 50, 51, 52, 53
_PARAMETERS, _VENDOR_CLASS, _CLIENT_ID, _CLIENT_FQDN = 55, 60, 61, 81
#: A client identifier that is made of an interface's number, 4 bytes, and a DUID (RFC 4361 section 6.1).
_DUID_TYPE, _IAID_BYTES = 255, 4
#: No option's code: a search for it reads a field to its end.
_NO_CODE = -1
_ABSENT, _BROKEN = -1, -2
_FQDN_FIXED_BYTES = 3
_FQDN_IS_WIRE_FORMAT = 0x04

_DOT, _COMMA = 0x2E, 0x2C
_HOST_NAME_FACT, _VENDOR_CLASS_FACT = int(FactKind.HOST_NAME), int(FactKind.VENDOR_CLASS)
_PARAMETERS_FACT, _CLIENT_ID_FACT = int(FactKind.PARAMETERS), int(FactKind.CLIENT_ID)


@inner
def decode_arp(data: Bytes, start: int, end: int, arp: NDArray[Any], weirds: NDArray[np.int64]) -> int:
    """Decode one ARP packet (RFC 826) and return its LanStatus.

    data: u8[n_bytes], in; the packet, behind the EtherType, is ``data[start:end]``, padding allowed. arp:
    ARP_DTYPE[1], out. weirds: i64[N_WEIRDS], ARP_MALFORMED counted up if truncated or malformed.
    """
    row = arp[0]
    status = _decode_arp(data, start, end, row)
    row["status"] = status
    if status in (_TRUNCATED, _MALFORMED):
        weirds[_ARP_MALFORMED] += 1
    return status


@inner
def _decode_arp(data: Bytes, start: int, end: int, row: Any) -> int:
    row["op"] = 0
    row["sender_mac"] = -1
    row["sender_lo"] = 0
    row["target_lo"] = 0
    row["is_gratuitous"] = 0
    row["is_probe"] = 0
    if not has(start, end, _ARP_FIXED_BYTES):
        return _TRUNCATED
    op = read_u16(data, start + 6, end)
    row["op"] = op
    if read_u16(data, start, end) != _HARDWARE_ETHERNET or read_u16(data, start + 2, end) != _ETHERTYPE_IPV4:
        return _UNSUPPORTED
    if read_u8(data, start + 4, end) != _MAC_BYTES or read_u8(data, start + 5, end) != _IPV4_BYTES:
        return _MALFORMED
    if op not in (_REQUEST, _REPLY):
        return _UNSUPPORTED
    if not has(start, end, _ARP_BYTES):
        return _TRUNCATED
    sender_mac = device_mac(read_mac(data, start + 8, end))
    if sender_mac < 0:
        return _MALFORMED  # RFC 1812 section 3.3.2: such a claim must not be believed
    sender = _address_lo(data, start + 14, end)
    target = _address_lo(data, start + 24, end)
    row["sender_mac"] = sender_mac
    row["sender_lo"] = sender
    row["target_lo"] = target
    row["is_gratuitous"] = 1 if sender == target and sender != 0 else 0
    row["is_probe"] = 1 if sender == 0 else 0
    return _OK


@inner
def decode_dhcp(
    data: Bytes,
    start: int,
    end: int,
    dhcp: NDArray[Any],
    facts: Facts,
    weirds: NDArray[np.int64],
) -> int:
    """Decode one DHCPv4 message (RFC 2131, RFC 2132) and return its LanStatus.

    The facts are the client's: its host name first, if it has one, then the others. Of an option that comes twice
    the first is taken. Options that overflowed into the fields file and sname are read there (option 52).

    data: u8[n_bytes], in; the message is ``data[start:end]``. dhcp: DHCP_DTYPE[1], out. facts: in/out, added
    to. weirds: i64[N_WEIRDS], DHCP_MALFORMED counted up if truncated or malformed.
    """
    row = dhcp[0]
    status = _decode_dhcp(data, start, end, row, facts)
    row["status"] = status
    if status in (_TRUNCATED, _MALFORMED):
        weirds[_DHCP_MALFORMED] += 1
    return status


@inner
def _decode_dhcp(data: Bytes, start: int, end: int, row: Any, facts: Facts) -> int:
    _clear_dhcp(row)
    status = _decode_bootp(data, start, end, row)
    if status != _OK:
        return status
    overload = _int_option(data, start, end, 0, _OVERLOAD, 1)
    if overload > 3:
        overload = _BROKEN
    fields = max(overload, 0)
    message_type = _int_option(data, start, end, fields, _MESSAGE_TYPE, 1)
    if message_type == 0 or message_type > MAX_MESSAGE_TYPE:
        message_type = _BROKEN
    requested = _int_option(data, start, end, fields, _REQUESTED_ADDRESS, 4)
    lease_s = _int_option(data, start, end, fields, _LEASE_TIME, 4)
    row["message_type"] = max(message_type, 0)
    row["requested_lo"] = _IPV4_MAPPED | requested if requested > 0 else 0
    row["lease_s"] = max(lease_s, -1)
    status = _decode_host_name(data, start, end, fields, facts)
    if row["op"] == 1:
        _decode_client(data, start, end, fields, facts)
    if min(overload, message_type, requested, lease_s) == _BROKEN:
        return _MALFORMED
    return status if status != _OK else _check_fields(data, start, end, fields)


@inner
def _clear_dhcp(row: Any) -> None:
    """Set every field to what it holds when the message ends before it."""
    row["op"] = 0
    row["message_type"] = 0
    row["chaddr"] = -1
    row["ciaddr_lo"] = 0
    row["yiaddr_lo"] = 0
    row["requested_lo"] = 0
    row["lease_s"] = -1
    row["giaddr_lo"] = 0


@inner
def _decode_bootp(data: Bytes, start: int, end: int, row: Any) -> int:
    """Decode the fields at fixed places (RFC 2131 section 2)."""
    if not has(start, end, _SNAME):
        return _TRUNCATED
    op = read_u8(data, start, end)
    if op not in (1, 2):
        return _MALFORMED
    row["op"] = op
    row["ciaddr_lo"] = _address_lo(data, start + _CIADDR, end)
    row["yiaddr_lo"] = _address_lo(data, start + _YIADDR, end)
    row["giaddr_lo"] = _address_lo(data, start + _GIADDR, end)
    htype = read_u8(data, start + _HTYPE, end)
    if htype in (_HARDWARE_ETHERNET, _HARDWARE_IEEE_802) and read_u8(data, start + _HLEN, end) == _MAC_BYTES:
        row["chaddr"] = device_mac(read_mac(data, start + _CHADDR, end))
    cookie = read_u32(data, start + _COOKIE, end)
    if cookie < 0:
        return _TRUNCATED
    return _OK if cookie == _MAGIC_COOKIE else _UNSUPPORTED


@inner
def _decode_host_name(data: Bytes, start: int, end: int, fields: int, facts: Facts) -> int:
    """Add the host name (RFC 2132 section 3.14) or, without one, the FQDN (RFC 4702); return a LanStatus."""
    known = facts.used[N_ROWS]
    at = _find_option(data, start, end, fields, _HOST_NAME)
    if at >= 0:
        add_fact(facts, _HOST_NAME_FACT, data, at + 1, at + 1 + read_u8(data, at, end))
    if facts.used[N_ROWS] > known:
        return _OK
    at = _find_option(data, start, end, fields, _CLIENT_FQDN)
    return _OK if at < 0 else _add_fqdn(data, at + 1, at + 1 + read_u8(data, at, end), facts)


@inner
def _decode_client(data: Bytes, start: int, end: int, fields: int, facts: Facts) -> None:
    """Add what else a client says of itself: RFC 2132 sections 9.13, 9.8 and 9.14."""
    at = _find_option(data, start, end, fields, _VENDOR_CLASS)
    if at >= 0:
        add_fact(facts, _VENDOR_CLASS_FACT, data, at + 1, at + 1 + read_u8(data, at, end))
    at = _find_option(data, start, end, fields, _PARAMETERS)
    if at >= 0:
        open_fact(facts, _PARAMETERS_FACT)
        for i in range(min(read_u8(data, at, end), MAX_PARAMETERS)):
            if i > 0:
                put_byte(facts, _COMMA)
            put_number(facts, read_u8(data, at + 1 + i, end))
        close_fact(facts)
    at = _find_option(data, start, end, fields, _CLIENT_ID)
    if at >= 0:
        first, last = at + 1, at + 1 + read_u8(data, at, end)
        hardware = read_u8(data, first, last)
        if hardware == _DUID_TYPE:
            first += 1 + _IAID_BYTES
        if (
            hardware != _HARDWARE_ETHERNET or last - first != 1 + _MAC_BYTES
        ):  # else it is no more than the MAC
            open_fact(facts, _CLIENT_ID_FACT)
            put_hex(facts, data, first, last)
            close_fact(facts)


@inner
def _int_option(data: Bytes, start: int, end: int, fields: int, code: int, size: int) -> int:
    """Return the value of an option of 1 or 4 bytes, _ABSENT, or _BROKEN if its length is another."""
    at = _find_option(data, start, end, fields, code)
    if at < 0:
        return _ABSENT
    if read_u8(data, at, end) != size:
        return _BROKEN
    return read_u8(data, at + 1, end) if size == 1 else read_u32(data, at + 1, end)


@inner
def _find_option(data: Bytes, start: int, end: int, fields: int, code: int) -> int:
    """Return the position of an option's length byte in the options or the overloaded fields, or _ABSENT."""
    at = _ABSENT
    for field in range(3):
        if at < 0 and (field == 0 or fields & field):
            at = _find_in_field(data, _field_start(start, field), _field_end(start, end, field), code)
    return max(at, _ABSENT)


@inner
def _check_fields(data: Bytes, start: int, end: int, fields: int) -> int:
    """Tell whether every field that holds options has its end option (RFC 2131 section 4.1)."""
    for field in range(3):
        if field == 0 or fields & field:
            at = _find_in_field(data, _field_start(start, field), _field_end(start, end, field), _NO_CODE)
            if at == _BROKEN:
                return _TRUNCATED if field == 0 else _MALFORMED
    return _OK


@inner
def _field_start(start: int, field: int) -> int:
    """Return where options lie: 0 the options field; by their bit of option 52, 1 file and 2 sname."""
    if field == 0:
        return start + _OPTIONS
    return start + _FILE if field == 1 else start + _SNAME


@inner
def _field_end(start: int, end: int, field: int) -> int:
    """Return where that field ends."""
    if field == 0:
        return end
    return start + _COOKIE if field == 1 else start + _FILE


@inner
def _find_in_field(data: Bytes, pos: int, end: int, code: int) -> int:
    """Return the position of an option's length byte; _ABSENT at the end option, _BROKEN if there is none."""
    for _ in range(MAX_DHCP_OPTIONS):
        found = read_u8(data, pos, end)
        if found == _END:
            return _ABSENT
        if found == _PAD:
            pos += 1
            continue
        size = read_u8(data, pos + 1, end)
        if size < 0 or not has(pos + 2, end, size):
            return _BROKEN
        if found == code:
            return pos + 1
        pos += 2 + size
    return _BROKEN


@inner
def _add_fqdn(data: Bytes, pos: int, end: int, facts: Facts) -> int:
    """Add the name of a client FQDN option (RFC 4702 section 2); return a LanStatus."""
    flags = read_u8(data, pos, end)
    if not has(pos, end, _FQDN_FIXED_BYTES):
        return _MALFORMED
    pos += _FQDN_FIXED_BYTES
    if flags & _FQDN_IS_WIRE_FORMAT:
        return add_wire_name(data, pos, end, facts)
    add_fact(facts, _HOST_NAME_FACT, data, pos, end)
    return _OK


@inner
def add_wire_name(data: Bytes, pos: int, end: int, facts: Facts) -> int:
    """Add the host name that lies at ``pos`` as labels, uncompressed (RFC 1035 section 3.1); return a LanStatus.

    It may end without the root: then it is not fully qualified. Nothing is added of one that is broken.
    """
    open_fact(facts, _HOST_NAME_FACT)
    first = i64(pos)
    for _ in range(MAX_FQDN_LABELS + 1):
        size = read_u8(data, pos, end)
        if size <= 0:
            close_fact(facts)
            return _OK
        if not has(pos + 1, end, size):
            return _MALFORMED
        if pos > first:
            put_byte(facts, _DOT)
        put_bytes(facts, data, pos + 1, pos + 1 + size)
        pos += 1 + size
    return _MALFORMED


@inner
def _address_lo(data: Bytes, pos: int, end: int) -> int:
    """Read an IPv4 address that is there as the low half of its IPv4-mapped address; 0 for 0.0.0.0."""
    address = read_u32(data, pos, end)
    return _IPV4_MAPPED | address if address > 0 else 0


@inner
def device_mac(mac: int) -> int:
    """Return a MAC address that one device can have, or -1."""
    return -1 if mac <= 0 or mac & _GROUP_BIT else mac
