r"""DNS messages (RFC 1035): the question, the addresses and mail exchanges of a response, and nothing else.

Sans-io and selective: one message is ``data[start:end]`` (over TCP without its two length bytes), and only
what mail needs is decoded. Records of a query, the authority section, and names of records that are of no
interest are stepped over without a look inside.

A name comes out in text: lower-case ASCII, labels joined by dots, no dot at the end (the root is the empty
text). Every byte that is no visible ASCII, and a dot or a backslash inside a label, is written ``\DDD`` (RFC
1035 section 5.1): so two names are equal when their texts are, and no text can do harm to a terminal.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.status import Weird
from sensor.decode.wire import has, read_address_half, read_u8, read_u16, read_u32
from sensor.jit import inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes


class DnsStatus(IntEnum):
    """How the decoding of one message ended; whatever came before the end is kept in any case."""

    OK = 0
    NOT_DNS = 1  # the header is none: something else on port 53
    TRUNCATED = 2  # the message ends before its counts say so
    MALFORMED = 3  # fields contradict each other
    POINTER_LOOP = 4  # a compression pointer that does not point strictly backwards
    RECORD_LIMIT = 5  # more records, or longer names, than there is room for: the rest was passed over


class DnsSection(IntEnum):
    """Sections of a message (RFC 1035 section 4.1) whose records are reported."""

    ANSWER = 1
    ADDITIONAL = 3


#: The message's header and question. Counts are as claimed by the header. A field that was not reached is 0,
#: or -1 where 0 has a meaning of its own (qtype, qclass). The canonical name is the qname, or what the CNAME
#: records of the answer section make of it: names[canonical_start : canonical_start + canonical_len].
DNS_MESSAGE_DTYPE = np.dtype(
    [
        ("status", np.int64),  # DnsStatus
        ("is_response", np.int64),
        ("opcode", np.int64),  # IANA DNS OpCodes: 0 query, 4 notify, 5 update
        ("rcode", np.int64),  # with the upper bits of EDNS (RFC 6891 section 6.1.3)
        ("is_truncated", np.int64),  # TC: the responder says that the rest did not fit
        ("qdcount", np.int64),
        ("ancount", np.int64),
        ("nscount", np.int64),
        ("arcount", np.int64),
        ("has_question", np.int64),  # 1: the first question was read to its end
        ("qtype", np.int64),
        ("qclass", np.int64),
        ("qname_len", np.int64),  # the qname is names[0 : qname_len]
        ("canonical_start", np.int64),
        ("canonical_len", np.int64),
        ("n_records", np.int64),  # rows written to ``records``
        ("names_len", np.int64),  # bytes written to ``names``
    ]
)

#: One A, AAAA or MX record of class IN, from the answer or the additional section. Its name is the owner of
#: an address, or the exchange of an MX ("" is the null MX of RFC 7505):
#: names[name_start : name_start + name_len].
DNS_RECORD_DTYPE = np.dtype(
    [
        ("address_hi", np.int64),  # A and AAAA: the address, IPv4 as IPv4-mapped IPv6; MX: 0
        ("address_lo", np.int64),
        ("rtype", np.int64),
        ("ttl_s", np.int64),
        ("name_start", np.int64),
        ("name_len", np.int64),
        ("preference", np.int64),  # MX only, else -1
        ("section", np.int64),  # DnsSection
        ("answers_question", np.int64),  # 1: in the answer section, owned by the qname or its canonical name
    ]
)

TYPE_A, TYPE_CNAME, TYPE_MX, TYPE_AAAA, TYPE_OPT = 1, 5, 15, 28, 41
CLASS_IN = 1
OPCODE_QUERY = 0

HEADER_BYTES = 12
MAX_LABEL_BYTES = 63  # RFC 1035 section 2.3.4
MAX_NAME_BYTES = 255  # on the wire, with length bytes and the root
#: The longest text: four labels (three cannot fill 255 bytes) of 250 bytes, each ``\DDD``, and three dots.
MAX_NAME_TEXT_BYTES = 4 * 250 + 3
#: Labels (at most 127) and pointers of one name; pointers may point at pointers, but hardly this often.
MAX_NAME_STEPS = 256
#: RFC 9619: one. More have been seen to be probes or other protocols.
MAX_QUESTIONS = 16
#: No message holds more records: 64 KiB of the smallest, a root owner and no data.
MAX_COUNT = (65535 - HEADER_BYTES) // 11
#: Records looked at in one message; only zone transfers have more.
MAX_RESOURCES = 1024
#: Rows that a caller provides for one message.
MAX_RECORDS = 128
#: Bytes that a caller provides for the names of one message: 128 names of usual length, or 14 of the longest.
MAX_NAMES_BYTES = 16384

_OK = int(DnsStatus.OK)
_NOT_DNS = int(DnsStatus.NOT_DNS)
_TRUNCATED = int(DnsStatus.TRUNCATED)
_MALFORMED = int(DnsStatus.MALFORMED)
_POINTER_LOOP = int(DnsStatus.POINTER_LOOP)
_RECORD_LIMIT = int(DnsStatus.RECORD_LIMIT)
_ANSWER = int(DnsSection.ANSWER)
_AUTHORITY = 2
_ADDITIONAL = int(DnsSection.ADDITIONAL)

#: By DnsStatus; OK is never looked up.
_WEIRDS = np.array(
    [
        -1,
        Weird.DNS_MALFORMED,
        Weird.DNS_TRUNCATED,
        Weird.DNS_MALFORMED,
        Weird.DNS_POINTER_LOOP,
        Weird.EVENT_LIMIT,
    ],
    dtype=np.int64,
)

#: The first two bits of a length byte: a pointer, not a label (RFC 1035 section 4.1.4).
POINTER = 0xC0
_POINTER_TO_QNAME = 0xC00C  # the first question begins right behind the header
_DOT, _BACKSLASH = 0x2E, 0x5C
_IPV4_MAPPED = 0xFFFF << 32  # RFC 4291 section 2.5.5.2
#: How each byte of a label is written: in lower case; 0 if escaped.
_LETTERS = np.array(
    [
        ord(chr(byte).lower()) if 0x21 <= byte <= 0x7E and byte not in (_DOT, _BACKSLASH) else 0
        for byte in range(256)
    ],
    dtype=np.uint8,
)
#: Assigned in the IANA registry "DNS OpCodes"; 3 and 7 to 15 are not.
_OPCODES = np.array([1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=np.int64)


@inner
def decode_dns(
    data: Bytes,
    start: int,
    end: int,
    message: NDArray[Any],
    records: NDArray[Any],
    names: NDArray[np.uint8],
    weirds: NDArray[np.int64],
) -> int:
    """Decode one message and return its DnsStatus.

    data: u8[n_bytes], in; the message is ``data[start:end]``. message: DNS_MESSAGE_DTYPE[1], out. records:
    DNS_RECORD_DTYPE[MAX_RECORDS], out; the first ``n_records`` rows are valid. names: u8[MAX_NAMES_BYTES],
    out; the first ``names_len`` bytes are valid. weirds: i64[N_WEIRDS], one counted up if the status is not
    OK.
    """
    row = message[0]
    status = _decode_message(data, start, end, row, records, names)
    row["status"] = status
    if status != _OK:
        weirds[_WEIRDS[status]] += 1
    return status


@inner
def _decode_message(
    data: Bytes, start: int, end: int, row: Any, records: NDArray[Any], names: NDArray[np.uint8]
) -> int:
    """Decode header, question and records, in the order of RFC 1035 section 4.1."""
    _clear(row)
    status = _decode_header(data, start, end, row)
    if status != _OK:
        return status
    pos = _decode_questions(data, start, end, row, names)
    if pos < 0:
        return -pos
    if row["is_response"] == 1 and row["opcode"] == OPCODE_QUERY:
        return _decode_resources(data, start, pos, end, row, records, names)
    return _OK


@inner
def _clear(row: Any) -> None:
    """Set every field to what it holds when the message ends before it."""
    row["is_response"] = 0
    row["opcode"] = 0
    row["rcode"] = 0
    row["is_truncated"] = 0
    row["qdcount"] = 0
    row["ancount"] = 0
    row["nscount"] = 0
    row["arcount"] = 0
    row["has_question"] = 0
    row["qtype"] = -1
    row["qclass"] = -1
    row["qname_len"] = 0
    row["canonical_start"] = 0
    row["canonical_len"] = 0
    row["n_records"] = 0
    row["names_len"] = 0


@inner
def _decode_header(data: Bytes, start: int, end: int, row: Any) -> int:
    """Decode the header (RFC 1035 section 4.1.1), unless no DNS software would have written it."""
    if not has(start, end, HEADER_BYTES):
        return _TRUNCATED
    flags = read_u16(data, start + 2, end)
    qdcount = read_u16(data, start + 4, end)
    ancount = read_u16(data, start + 6, end)
    nscount = read_u16(data, start + 8, end)
    arcount = read_u16(data, start + 10, end)
    opcode = (flags >> 11) & 0x0F
    if _OPCODES[opcode] == 0 or qdcount > MAX_QUESTIONS or max(ancount, nscount, arcount) > MAX_COUNT:
        return _NOT_DNS
    # A query that asks nothing and brings nothing: padding, not DNS.
    if flags >> 11 == OPCODE_QUERY and qdcount + ancount + nscount + arcount == 0:
        return _NOT_DNS
    row["is_response"] = flags >> 15
    row["opcode"] = opcode
    row["rcode"] = flags & 0x0F
    row["is_truncated"] = (flags >> 9) & 1
    row["qdcount"] = qdcount
    row["ancount"] = ancount
    row["nscount"] = nscount
    row["arcount"] = arcount
    return _OK


@inner
def _decode_questions(data: Bytes, start: int, end: int, row: Any, names: NDArray[np.uint8]) -> int:
    """Decode the first question (section 4.1.2), skip others; return the position behind or -DnsStatus."""
    pos = start + HEADER_BYTES
    for i in range(row["qdcount"]):
        if i == 0:
            pos, length = _decode_name(data, start, pos, end, names, 0)
        else:
            pos = skip_name(data, pos, end)
        if pos < 0:
            return pos
        if i == 0:
            row["qname_len"] = length
            row["canonical_len"] = length
            row["names_len"] = length
        if not has(pos, end, 4):
            return -_TRUNCATED
        if i == 0:
            row["qtype"] = read_u16(data, pos, end)
            row["qclass"] = read_u16(data, pos + 2, end)
            row["has_question"] = 1
        pos += 4
    return pos


@inner
def _decode_resources(
    data: Bytes, start: int, pos: int, end: int, row: Any, records: NDArray[Any], names: NDArray[np.uint8]
) -> int:
    """Walk the resource records (section 4.1.3) and decode those that matter."""
    n_answers = row["ancount"]
    n_authority = n_answers + row["nscount"]
    n_all = n_authority + row["arcount"]
    for i in range(min(n_all, MAX_RESOURCES)):
        owner = pos
        pos = skip_name(data, owner, end)
        if pos < 0:
            return -pos
        if not has(pos, end, 10):
            return _TRUNCATED
        rtype = read_u16(data, pos, end)
        rclass = read_u16(data, pos + 2, end)
        ttl_s = read_u32(data, pos + 4, end)
        rdata = pos + 10
        rdata_len = read_u16(data, pos + 8, end)
        if not has(rdata, end, rdata_len):
            return _TRUNCATED
        pos = rdata + rdata_len
        section = _ANSWER if i < n_answers else (_AUTHORITY if i < n_authority else _ADDITIONAL)
        if section == _AUTHORITY:
            continue
        if rtype == TYPE_OPT:
            if section == _ADDITIONAL:
                row["rcode"] = ((ttl_s >> 24) << 4) | (row["rcode"] & 0x0F)
        elif rclass == CLASS_IN:
            status = _decode_resource(data, start, owner, rdata, pos, section, row, records, names)
            if status != _OK:
                return status
    return _OK if n_all <= MAX_RESOURCES else _RECORD_LIMIT


@inner
def _decode_resource(
    data: Bytes,
    start: int,
    owner: int,
    rdata: int,
    end: int,
    section: int,
    row: Any,
    records: NDArray[Any],
    names: NDArray[np.uint8],
) -> int:
    """Decode the record ``data[owner:end]`` if its type matters: A, AAAA and MX make a row."""
    rtype = read_u16(data, rdata - 10, end)
    is_alias = rtype == TYPE_CNAME and section == _ANSWER
    if not is_alias and rtype not in (TYPE_A, TYPE_AAAA, TYPE_MX):
        return _OK
    at = row["names_len"]
    n = row["n_records"]
    # Room for an owner and an exchange or a target: the writer of names need not look.
    if names.size - at < 2 * MAX_NAME_TEXT_BYTES or (n == records.size and not is_alias):
        return _RECORD_LIMIT
    name_start, name_len = _find_owner(data, start, owner, end, row, names, at)
    if name_start < 0:
        return _status_in_record(name_start)
    answers = section == _ANSWER and _is_asked(row, name_start, name_len)
    if is_alias:
        return _follow_alias(data, start, rdata, end, row, names) if answers else _OK

    record = records[n]
    if rtype == TYPE_MX:
        # The exchange takes the place of the owner, which nobody will ask for.
        status = _decode_exchange(data, start, rdata, end, names, at, record)
    else:
        record["name_start"] = name_start
        record["name_len"] = name_len
        status = _decode_address(data, rdata, end, rtype, record)
    if status != _OK:
        return status
    ttl_s = read_u32(data, rdata - 6, end)
    record["rtype"] = rtype
    record["ttl_s"] = ttl_s if ttl_s < 0x80000000 else 0  # RFC 2181 section 8
    record["section"] = section
    record["answers_question"] = 1 if answers else 0
    row["n_records"] = n + 1
    if record["name_start"] == at:
        row["names_len"] = at + record["name_len"]
    return _OK


@inner
def _decode_address(data: Bytes, rdata: int, end: int, rtype: int, record: Any) -> int:
    """Decode the data of an A (RFC 1035 section 3.4.1) or AAAA record (RFC 3596 section 2.2)."""
    if end - rdata != (4 if rtype == TYPE_A else 16):
        return _MALFORMED
    if rtype == TYPE_A:
        record["address_hi"] = 0
        record["address_lo"] = _IPV4_MAPPED | read_u32(data, rdata, end)
    else:
        record["address_hi"] = read_address_half(data, rdata, end)
        record["address_lo"] = read_address_half(data, rdata + 8, end)
    record["preference"] = -1
    return _OK


@inner
def _decode_exchange(
    data: Bytes, start: int, rdata: int, end: int, names: NDArray[np.uint8], at: int, record: Any
) -> int:
    """Decode the data of an MX record (RFC 1035 section 3.3.9)."""
    behind, length = _decode_name(data, start, rdata + 2, end, names, at)
    if behind != end:
        return _status_in_record(behind)
    record["address_hi"] = 0
    record["address_lo"] = 0
    record["preference"] = read_u16(data, rdata, end)
    record["name_start"] = at
    record["name_len"] = length
    return _OK


@inner
def _follow_alias(data: Bytes, start: int, rdata: int, end: int, row: Any, names: NDArray[np.uint8]) -> int:
    """Decode the target of a CNAME record (RFC 1035 section 3.3.1): from now on it is the canonical name."""
    at = row["names_len"]
    behind, length = _decode_name(data, start, rdata, end, names, at)
    if behind != end:
        return _status_in_record(behind)
    row["canonical_start"] = at
    row["canonical_len"] = length
    row["names_len"] = at + length
    return _OK


@inner
def _status_in_record(position: int) -> int:
    """Return the status of a name that is broken in a record that is all there: it was not cut off."""
    return _POINTER_LOOP if position == -_POINTER_LOOP else _MALFORMED


@inner
def _find_owner(
    data: Bytes, start: int, pos: int, end: int, row: Any, names: NDArray[np.uint8], at: int
) -> tuple[int, int]:
    """Return start and length of a record's owner in ``names``, or (-DnsStatus, 0).

    It is written at ``at``, unless it is the qname or the canonical name, which are there already.
    """
    qname_len = row["qname_len"]
    if row["has_question"] == 1 and read_u16(data, pos, end) == _POINTER_TO_QNAME:
        return 0, qname_len
    behind, length = _decode_name(data, start, pos, end, names, at)
    if behind < 0:
        return behind, 0
    if _is_same_text(names, at, length, 0, qname_len):
        return 0, length
    canonical_start = row["canonical_start"]
    if _is_same_text(names, at, length, canonical_start, row["canonical_len"]):
        return canonical_start, length
    return at, length


@inner
def _is_asked(row: Any, name_start: int, name_len: int) -> bool:
    """Tell whether an owner is the qname or, so far, its canonical name (RFC 1034 section 3.6.2)."""
    if row["has_question"] == 0:
        return False
    if name_start == 0 and name_len == row["qname_len"]:
        return True
    return bool(name_start == row["canonical_start"] and name_len == row["canonical_len"])


@inner
def _is_same_text(names: NDArray[np.uint8], a: int, a_len: int, b: int, b_len: int) -> bool:
    """Compare two names."""
    if a_len != b_len:
        return False
    for i in range(a_len):  # noqa: SIM110  # numba knows no generators
        if names[a + i] != names[b + i]:
            return False
    return True


@inner
def skip_name(data: Bytes, pos: int, end: int) -> int:
    """Step over a name, whatever its pointer points at; return the position behind it, or -DnsStatus."""
    for _ in range(MAX_NAME_BYTES):
        size = read_u8(data, pos, end)
        if size < 0:
            return -_TRUNCATED
        if size == 0:
            return pos + 1
        if size >= POINTER:
            return pos + 2 if has(pos, end, 2) else -_TRUNCATED
        if size > MAX_LABEL_BYTES:
            return -_MALFORMED
        pos += size + 1
    return -_MALFORMED


@inner
def follow_pointer(data: Bytes, start: int, pos: int, end: int, earliest: int) -> int:
    """Return where the pointer at ``pos`` points to (RFC 1035 section 4.1.4), or -DnsStatus.

    It must be a place before ``earliest``: the name's begin, then where its last pointer led. So there are no
    loops.
    """
    offset = read_u16(data, pos, end)
    if offset < 0:
        return -_TRUNCATED
    target = start + (offset & 0x3FFF)
    if target >= earliest:
        return -_POINTER_LOOP
    return target if target >= start + HEADER_BYTES else -_MALFORMED


@inner
def _decode_name(
    data: Bytes, start: int, pos: int, end: int, names: NDArray[np.uint8], at: int
) -> tuple[int, int]:
    """Write a name to ``names[at:]``; return the position behind it and its length, or (-DnsStatus, 0).

    The caller has made sure that MAX_NAME_TEXT_BYTES are free.
    """
    behind = -1
    earliest = pos
    wire_len = 1
    length = 0
    for _ in range(MAX_NAME_STEPS):
        size = read_u8(data, pos, end)
        if size == 0:
            return (pos + 1 if behind < 0 else behind), length
        if size < 0:
            return -_TRUNCATED, 0
        if size >= POINTER:
            if behind < 0:
                behind = pos + 2
            pos = follow_pointer(data, start, pos, end, earliest)
            if pos < 0:
                return pos, 0
            earliest = pos
            continue
        wire_len += size + 1
        if size > MAX_LABEL_BYTES or wire_len > MAX_NAME_BYTES:
            return -_MALFORMED, 0
        if not has(pos + 1, end, size):
            return -_TRUNCATED, 0
        if length > 0:
            names[at + length] = _DOT
            length += 1
        for i in range(pos + 1, pos + 1 + size):
            byte = read_u8(data, i, end)
            letter = _LETTERS[byte]
            if letter > 0:
                names[at + length] = letter
                length += 1
            else:
                length += _write_escaped(names, at + length, byte)
        pos += size + 1
    return -_MALFORMED, 0


@inner
def _write_escaped(names: NDArray[np.uint8], at: int, byte: int) -> int:
    r"""Write one byte of a label as ``\DDD`` (RFC 1035 section 5.1); return how many bytes that took."""
    names[at] = _BACKSLASH
    names[at + 1] = 0x30 + byte // 100
    names[at + 2] = 0x30 + byte // 10 % 10
    names[at + 3] = 0x30 + byte % 10
    return 4
