"""Multicast DNS and DNS-SD (RFC 6762, RFC 6763): what a device calls itself, what it offers, what it is.

Sans-io. Only responses are looked into, since a query says nothing of who sends it, and of them the answers and
additional records. Goodbyes (TTL 0, RFC 6762 section 10.1) count: what was offered a moment ago tells as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import close_new_fact, count_broken, find_word, word_table
from sensor.decode.dns import (
    CLASS_IN,
    HEADER_BYTES,
    MAX_LABEL_BYTES,
    MAX_NAME_BYTES,
    MAX_NAME_STEPS,
    MAX_QUESTIONS,
    OPCODE_QUERY,
    POINTER,
    TYPE_A,
    TYPE_AAAA,
    DnsStatus,
    follow_pointer,
    skip_name,
)
from sensor.decode.facts import N_ROWS, FactKind, add_fact, open_fact, put_byte, put_bytes
from sensor.decode.lan import LanStatus
from sensor.decode.wire import find_byte, has, lower, read_u8, read_u16
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

TYPE_PTR, TYPE_TXT, TYPE_SRV = 12, 16, 33

#: Records looked at in one message; the others are passed over. Devices send some 40 at most.
MAX_MDNS_RECORDS = 128
#: Strings of a TXT record looked at (RFC 6763 section 6.1: all of them within some hundred bytes).
MAX_TXT_STRINGS = 64
#: Facts of one kind that are taken from one message.
MAX_SERVICES = 8
MAX_MODELS = 8

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_DNS_TRUNCATED = int(DnsStatus.TRUNCATED)
_DNS_MALFORMED = int(DnsStatus.MALFORMED)
_HOST_NAME, _SERVICE, _MODEL = int(FactKind.HOST_NAME), int(FactKind.SERVICE), int(FactKind.MODEL)

_CACHE_FLUSH = 0x8000  # the top bit of a class (RFC 6762 section 10.2)
_LOCAL = word_table("local")
_PROTOCOLS = word_table("_tcp", "_udp")
#: "_services._dns-sd._udp" lists the types of services (RFC 6763 section 9).
_LISTS_TYPES = word_table("_dns-sd")
#: Keys of TXT records that tell what a device is: printers, Chromecast and HomeKit, Apple's _device-info.
_MODEL_KEYS = word_table("ty", "md", "model", "product", "usb_mdl", "manufacturer")
_UNDERSCORE, _EQUALS, _DOT = 0x5F, 0x3D, 0x2E


@inner
def decode_mdns(data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]) -> int:
    """Add the facts of one message; return its LanStatus.

    HOST_NAME: of the first address record below "local". SERVICE: each type of service, in lower case,
    MAX_SERVICES at most. MODEL: each value of a TXT key that tells it, MAX_MODELS at most.

    data: u8[n_bytes], in; the message is ``data[start:end]``. facts: in/out. weirds: i64[N_WEIRDS],
    LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_message(data, start, end, facts), weirds)


@inner
def _decode_message(data: Bytes, start: int, end: int, facts: Facts) -> int:
    if not has(start, end, HEADER_BYTES):
        return _TRUNCATED
    flags = read_u16(data, start + 2, end)
    if flags >> 15 == 0:
        return _OK
    if (flags >> 11) & 0x0F != OPCODE_QUERY or flags & 0x0F != 0:
        return _UNSUPPORTED  # to be ignored (RFC 6762 sections 18.3 and 18.11)
    pos = _skip_questions(data, start, end)
    return _decode_records(data, start, pos, end, facts) if pos >= 0 else _status_of(pos)


@inner
def _skip_questions(data: Bytes, start: int, end: int) -> int:
    """Return the position behind the questions, which only answers to legacy resolvers repeat, or -DnsStatus."""
    n_questions = read_u16(data, start + 4, end)
    if n_questions > MAX_QUESTIONS:
        return -_DNS_MALFORMED
    pos = start + HEADER_BYTES
    for _ in range(n_questions):
        pos = skip_name(data, pos, end)
        if pos < 0:
            return pos
        if not has(pos, end, 4):
            return -_DNS_TRUNCATED
        pos += 4
    return pos


@inner
def _decode_records(data: Bytes, start: int, pos: int, end: int, facts: Facts) -> int:
    """Walk the resource records (RFC 1035 section 4.1.3)."""
    n_answers = read_u16(data, start + 6, end)
    n_authority = n_answers + read_u16(data, start + 8, end)
    n_all = n_authority + read_u16(data, start + 10, end)
    for i in range(min(n_all, MAX_MDNS_RECORDS)):
        owner = pos
        pos = skip_name(data, owner, end)
        if pos < 0:
            return _status_of(pos)
        rdata_len = read_u16(data, pos + 8, end)
        rdata = pos + 10
        if rdata_len < 0 or not has(rdata, end, rdata_len):
            return _TRUNCATED
        rtype = read_u16(data, pos, end)
        rclass = read_u16(data, pos + 2, end)
        pos = rdata + rdata_len
        if n_answers <= i < n_authority or rclass & ~_CACHE_FLUSH != CLASS_IN:
            continue
        status = _decode_record(data, start, owner, rdata, pos, rtype, facts)
        if status != _OK:
            return status
    return _OK


@inner
def _decode_record(
    data: Bytes, start: int, owner: int, rdata: int, end: int, rtype: int, facts: Facts
) -> int:
    """Add what one record tells; ``data[owner:end]`` is all of it."""
    if rtype in (TYPE_A, TYPE_AAAA):
        if end - rdata != (4 if rtype == TYPE_A else 16):
            return _MALFORMED
        return _add_host_name(data, start, owner, end, facts)
    if rtype in (TYPE_PTR, TYPE_SRV):
        return _add_service(data, start, owner, rdata, end, facts)
    return _add_models(data, rdata, end, facts) if rtype == TYPE_TXT else _OK


@inner
def _add_host_name(data: Bytes, start: int, owner: int, end: int, facts: Facts) -> int:
    """Add the first label of a name below "local" (RFC 6762 section 3), unless there is a name already."""
    if _count(facts, _HOST_NAME) > 0:
        return _OK
    first, last, _, _ = _read_name(data, start, owner, end)
    if first < 0:
        return _MALFORMED
    if (
        last not in (-1, first)
        and find_word(data, last + 1, last + 1 + read_u8(data, last, end), _LOCAL) == 0
    ):
        add_fact(facts, _HOST_NAME, data, first + 1, first + 1 + read_u8(data, first, end))
    return _OK


@inner
def _add_service(data: Bytes, start: int, owner: int, rdata: int, end: int, facts: Facts) -> int:
    """Add the type of service in a record's owner, or in what a list of types points to (RFC 6763 section 9)."""
    first, _, service, protocol = _read_name(data, start, owner, end)
    if first >= 0 and service >= 0:
        size = read_u8(data, service, end)
        if find_word(data, service + 1, service + 1 + size, _LISTS_TYPES) == 0:
            first, _, service, protocol = _read_name(data, start, rdata, end)
    if first < 0:
        return _MALFORMED
    if service < 0 or _count(facts, _SERVICE) >= MAX_SERVICES:
        return _OK
    open_fact(facts, _SERVICE)
    for i in range(service + 1, service + 1 + read_u8(data, service, end)):  # at most MAX_LABEL_BYTES
        put_byte(facts, lower(read_u8(data, i, end)))
    put_byte(facts, _DOT)
    for i in range(protocol + 1, protocol + 1 + read_u8(data, protocol, end)):
        put_byte(facts, lower(read_u8(data, i, end)))
    close_new_fact(facts)
    return _OK


@inner
def _add_models(data: Bytes, pos: int, end: int, facts: Facts) -> int:
    """Add the values of the keys that tell what a device is (RFC 6763 section 6.3 to 6.5)."""
    for _ in range(MAX_TXT_STRINGS):
        size = read_u8(data, pos, end)
        if size < 0:
            return _OK
        pos += 1
        if not has(pos, end, size):
            return _MALFORMED
        stop = pos + size
        equals = find_byte(data, pos, stop, _EQUALS)
        if equals > pos and find_word(data, pos, equals, _MODEL_KEYS) >= 0:
            if _count(facts, _MODEL) >= MAX_MODELS:
                return _OK
            open_fact(facts, _MODEL)
            put_bytes(facts, data, equals + 1, stop)
            close_new_fact(facts)
        pos = stop
    return _OK


@inner
def _read_name(data: Bytes, start: int, pos: int, end: int) -> tuple[int, int, int, int]:
    """Return the places of four labels of a name: first, last, and the two of the type of service it ends in.

    A label's place is that of its length byte. The type is -1, -1 if there is none ("_ipp._tcp", RFC 6763
    section 7); the first is -1 if the name is broken, and the root's if it has no labels.
    """
    earliest = pos
    wire_len = 1
    first = last = service = protocol = -1
    for _ in range(MAX_NAME_STEPS):
        size = read_u8(data, pos, end)
        if size >= POINTER:
            pos = follow_pointer(data, start, pos, end, earliest)
            if pos < 0:
                return -1, -1, -1, -1
            earliest = pos
            continue
        wire_len += size + 1
        if size < 0 or size > MAX_LABEL_BYTES or wire_len > MAX_NAME_BYTES or not has(pos + 1, end, size):
            return -1, -1, -1, -1
        if first < 0:
            first = pos
        if size == 0:
            return first, last, service, protocol
        if (
            last >= 0
            and read_u8(data, last + 1, end) == _UNDERSCORE
            and find_word(data, pos + 1, pos + 1 + size, _PROTOCOLS) >= 0
        ):
            service, protocol = last, pos
        last = pos
        pos += size + 1
    return -1, -1, -1, -1


@inner
def _count(facts: Facts, kind: int) -> int:
    """Return how many facts of a kind there are."""
    n = 0
    for row in range(facts.used[N_ROWS]):
        if facts.rows[row]["kind"] == kind:
            n += 1
    return n


@inner
def _status_of(position: int) -> int:
    """Return the status of a name that ``skip_name`` could not step over."""
    return _TRUNCATED if position == -_DNS_TRUNCATED else _MALFORMED
