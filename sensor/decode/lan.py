"""ARP and DHCPv4: which device has which address, and what it calls itself.

Sans-io. An IPv4 address comes out as the low half of its IPv4-mapped IPv6 address (the high half is 0), and
as 0 where the packet says 0.0.0.0, which means "none" in both protocols.

Texts from the network are made harmless: what is not printable ASCII becomes a question mark.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.status import Weird
from sensor.decode.wire import has, read_mac, read_u8, read_u16, read_u32
from sensor.jit import inner

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

#: A field that was not reached, or whose option is not there, is 0; chaddr and lease_s are -1.
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
        ("host_name_start", np.int64),  # option 12, else 81: names[host_name_start : ... + host_name_len]
        ("host_name_len", np.int64),
        ("vendor_class_start", np.int64),  # option 60: names[vendor_class_start : ... + vendor_class_len]
        ("vendor_class_len", np.int64),
    ]
)

#: Bytes that a caller provides for the two texts of a DHCP message: an option holds at most 255 bytes.
MAX_DHCP_NAMES_BYTES = 2 * 255
#: Options and pad bytes walked over in one field of a message: more than fit into an Ethernet frame.
MAX_DHCP_OPTIONS = 2048
MAX_MESSAGE_TYPE = 18  # IANA "DHCP Message Type 53 Values"
#: Labels of a fully qualified name (RFC 1035: 255 bytes, two for each label at least).
MAX_FQDN_LABELS = 127

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
_HTYPE, _HLEN, _CIADDR, _YIADDR, _CHADDR, _SNAME, _FILE, _COOKIE, _OPTIONS = (
    1,
    2,
    12,
    16,
    28,
    44,
    108,
    236,
    240,
)
_MAGIC_COOKIE = 0x63825363
_PAD, _END = 0, 255
_HOST_NAME, _REQUESTED_ADDRESS, _LEASE_TIME, _OVERLOAD, _MESSAGE_TYPE, _VENDOR_CLASS, _CLIENT_FQDN = (
    12,
    50,
    51,
    52,
    53,
    60,
    81,
)
#: No option's code: a search for it reads a field to its end.
_NO_CODE = -1
_ABSENT, _BROKEN = -1, -2
_FQDN_FIXED_BYTES = 3
_FQDN_IS_WIRE_FORMAT = 0x04

_QUESTION_MARK, _DOT, _SPACE, _TILDE = 0x3F, 0x2E, 0x20, 0x7E


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
    sender_mac = _device_mac(read_mac(data, start + 8, end))
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
    names: NDArray[np.uint8],
    weirds: NDArray[np.int64],
) -> int:
    """Decode one DHCPv4 message (RFC 2131, RFC 2132) and return its LanStatus.

    Of an option that comes twice the first is taken. Options that overflowed into the fields file and sname
    are read there (option 52).

    data: u8[n_bytes], in; the message is ``data[start:end]``. dhcp: DHCP_DTYPE[1], out. names:
    u8[MAX_DHCP_NAMES_BYTES], out. weirds: i64[N_WEIRDS], DHCP_MALFORMED counted up if truncated or malformed.
    """
    row = dhcp[0]
    status = _decode_dhcp(data, start, end, row, names)
    row["status"] = status
    if status in (_TRUNCATED, _MALFORMED):
        weirds[_DHCP_MALFORMED] += 1
    return status


@inner
def _decode_dhcp(data: Bytes, start: int, end: int, row: Any, names: NDArray[np.uint8]) -> int:
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
    status = _decode_texts(data, start, end, fields, row, names)
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
    row["host_name_start"] = 0
    row["host_name_len"] = 0
    row["vendor_class_start"] = 0
    row["vendor_class_len"] = 0


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
    htype = read_u8(data, start + _HTYPE, end)
    if htype in (_HARDWARE_ETHERNET, _HARDWARE_IEEE_802) and read_u8(data, start + _HLEN, end) == _MAC_BYTES:
        row["chaddr"] = _device_mac(read_mac(data, start + _CHADDR, end))
    cookie = read_u32(data, start + _COOKIE, end)
    if cookie < 0:
        return _TRUNCATED
    return _OK if cookie == _MAGIC_COOKIE else _UNSUPPORTED


@inner
def _decode_texts(data: Bytes, start: int, end: int, fields: int, row: Any, names: NDArray[np.uint8]) -> int:
    """Copy host name (RFC 2132 section 3.14) or FQDN (RFC 4702), and vendor class (section 9.13)."""
    status = _OK
    length = 0
    at = _find_option(data, start, end, fields, _HOST_NAME)
    if at >= 0:
        length = _copy_text(data, at + 1, at + 1 + read_u8(data, at, end), names, 0)
    if length == 0:
        at = _find_option(data, start, end, fields, _CLIENT_FQDN)
        if at >= 0:
            length = _copy_fqdn(data, at + 1, at + 1 + read_u8(data, at, end), names, 0)
            if length < 0:
                status = _MALFORMED
                length = 0
    row["host_name_len"] = length
    row["vendor_class_start"] = length
    at = _find_option(data, start, end, fields, _VENDOR_CLASS)
    if at >= 0:
        row["vendor_class_len"] = _copy_text(data, at + 1, at + 1 + read_u8(data, at, end), names, length)
    return status


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
def _copy_text(data: Bytes, pos: int, end: int, names: NDArray[np.uint8], at: int) -> int:
    """Copy printable text to ``names[at:]``, without NUL bytes and spaces at its end; return its length."""
    length = 0
    for i in range(pos, end):  # the length of an option: at most 255
        byte = read_u8(data, i, end)
        names[at + i - pos] = byte if _SPACE <= byte <= _TILDE else _QUESTION_MARK
        if byte not in (0, _SPACE):
            length = i + 1 - pos
    return length


@inner
def _copy_fqdn(data: Bytes, pos: int, end: int, names: NDArray[np.uint8], at: int) -> int:
    """Copy the name of a client FQDN option (RFC 4702 section 2); return its length or _BROKEN."""
    flags = read_u8(data, pos, end)
    if not has(pos, end, _FQDN_FIXED_BYTES):
        return _BROKEN
    pos += _FQDN_FIXED_BYTES
    if not flags & _FQDN_IS_WIRE_FORMAT:
        return _copy_text(data, pos, end, names, at)
    length = 0
    for _ in range(MAX_FQDN_LABELS + 1):
        size = read_u8(data, pos, end)
        if size <= 0:  # the root, or the end of a name that is not fully qualified
            return length
        if not has(pos + 1, end, size):
            return _BROKEN
        if length > 0:
            names[at + length] = _DOT
            length += 1
        length += _copy_text(data, pos + 1, pos + 1 + size, names, at + length)
        pos += 1 + size
    return _BROKEN


@inner
def _address_lo(data: Bytes, pos: int, end: int) -> int:
    """Read an IPv4 address that is there as the low half of its IPv4-mapped address; 0 for 0.0.0.0."""
    address = read_u32(data, pos, end)
    return _IPV4_MAPPED | address if address > 0 else 0


@inner
def _device_mac(mac: int) -> int:
    """Return a MAC address that one device can have, or -1."""
    return -1 if mac <= 0 or mac & _GROUP_BIT else mac
