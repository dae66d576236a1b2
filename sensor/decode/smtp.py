"""SMTP lines: what one command or one reply line says (RFC 5321), without keeping any of it.

Sans-io: these functions see one line, ``data[start:end]`` without its end of line, and return numbers and
positions. The order of lines, and what a line means in its dialogue, is the business of events/dialogue.py.

Of a command only its verb and the domain of its argument are reported: never a local part, never a
credential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.decode.wire import find_byte, has, lower, read_u8, read_u16
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: A line that continues in the next segment is kept up to here; the rest of it is passed over. RFC 5321
#: section 4.5.3.1 asks for 512 octets, extensions for more; nothing that is reported stands further back than
#: this.
MAX_LINE_BYTES = 1024
#: A host name is at most 255 octets (RFC 1035 section 2.3.4); an EHLO argument that is longer is cut.
MAX_DOMAIN_BYTES = 255

# Verbs, as numbers that events/types.Verb names. The order is that of the packed words below.
_WORDS = [
    "HELO",
    "EHLO",
    "MAIL",
    "RCPT",
    "DATA",
    "BDAT",
    "RSET",
    "NOOP",
    "QUIT",
    "VRFY",
    "EXPN",
    "HELP",
    "STARTTLS",
    "AUTH",
    "XCLIENT",
    "XFORWARD",
    "ETRN",
    "TURN",
    "SEND",
    "SOML",
    "SAML",
    "LHLO",
    "BURL",
]
VERB_NONE = 0
VERB_HELO, VERB_EHLO, VERB_MAIL, VERB_RCPT, VERB_DATA, VERB_BDAT, VERB_RSET, VERB_NOOP, VERB_QUIT = range(
    1, 10
)
VERB_STARTTLS, VERB_AUTH = 13, 14
VERB_LHLO = 22
VERB_OTHER = 24

_MAX_WORD = 8
_VERB_LETTERS = np.zeros((len(_WORDS), _MAX_WORD), dtype=np.uint8)
for _row, _word in enumerate(_WORDS):
    _VERB_LETTERS[_row, : len(_word)] = np.frombuffer(_word.lower().encode(), dtype=np.uint8)
_VERB_LENGTHS = np.array([len(word) for word in _WORDS], dtype=np.int64)

#: Words by which a refusing server says that the sender's address is on a block list. From Zeek's
#: policy/protocols/smtp/blocklists.zeek (as an idea: lists that are gone are left out) and the documented
#: refusal texts of the large mail operators. Lower case; searched for only in 4yz and 5yz replies.
BLOCKLIST_WORDS = (
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "sorbs.net",
    "uceprotect",
    "abuseat.org",
    "psbl.",
    "mailspike",
    "senderscore",
    "spamrats",
    "dnsbl",
    "rbl.",
    "blacklist",
    "blocklist",
    "block list",
    "black list",
    "blocked using",
    "poor reputation",
    "bad reputation",
    "low reputation",
)
_MAX_BLOCKLIST_WORD = max(len(word) for word in BLOCKLIST_WORDS)
_BLOCKLIST_LETTERS = np.zeros((len(BLOCKLIST_WORDS), _MAX_BLOCKLIST_WORD), dtype=np.uint8)
for _row, _word in enumerate(BLOCKLIST_WORDS):
    _BLOCKLIST_LETTERS[_row, : len(_word)] = np.frombuffer(_word.encode(), dtype=np.uint8)
_BLOCKLIST_LENGTHS = np.array([len(word) for word in BLOCKLIST_WORDS], dtype=np.int64)
#: Which words begin with a byte: most positions of a reply are dismissed by one look-up.
_BLOCKLIST_STARTS = np.zeros(256, dtype=np.uint8)
for _word in BLOCKLIST_WORDS:
    _BLOCKLIST_STARTS[ord(_word[0])] = 1
    _BLOCKLIST_STARTS[ord(_word[0].upper())] = 1

_LAST = np.frombuffer(b"last", dtype=np.uint8).reshape(1, 4).copy()
_MAX_CHUNK_DIGITS = 12  # a chunk of a terabyte; more digits are nonsense

_SPACE, _TAB, _CR, _LF = 32, 9, 13, 10
_LETTER_A, _LETTER_Z, _ZERO, _NINE = 97, 122, 48, 57
_REPLY_CODE_BYTES = 4  # with the space behind it
_GT, _AT, _HYPHEN, _DOT, _QUOTE, _BACKSLASH = 62, 64, 45, 46, 34, 92
_COLON, _COMMA, _LEFT_BRACKET, _RIGHT_BRACKET = 58, 44, 91, 93


@inner
def matches_letters(
    data: Bytes, pos: int, end: int, letters: NDArray[np.uint8], row: int, length: int
) -> bool:
    """Tell whether ``data[pos:]`` begins with the lower-case word in ``letters[row, :length]``, in any case."""
    if not has(pos, end, length):
        return False
    for i in range(length):  # noqa: SIM110 - all() does not compile
        if lower(read_u8(data, pos + i, end)) != letters[row, i]:
            return False
    return True


@inner
def parse_verb(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return a command line's verb and the position of its argument (RFC 5321 section 4.1.1).

    The verb is the first word, in any case; VERB_OTHER is any other word, VERB_NONE an empty line.
    """
    pos = start
    while pos < end:
        byte = read_u8(data, pos, end)
        if byte in (_SPACE, _TAB):
            break
        pos += 1
    length = pos - start
    argument = pos
    while read_u8(data, argument, end) in (_SPACE, _TAB):
        argument += 1
    if length == 0:
        return VERB_NONE, argument
    for row in range(_VERB_LENGTHS.size):
        if _VERB_LENGTHS[row] == length and matches_letters(data, start, end, _VERB_LETTERS, row, length):
            return row + 1, argument
    return VERB_OTHER, argument


@inner
def find_path_domain(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the domain of a reverse- or forward-path lies, (0, 0) if it has none (RFC 5321 section 4.1.2).

    ``data[start:end]`` is the argument, "FROM:<local-part@domain> ...". The local part is passed over: quoted
    strings may hold "@" and ">", so the domain begins after the last "@" before the closing ">".
    """
    at = i64(-1)
    stop = i64(-1)  # where the domain after the last "@" ends
    in_quotes = False
    in_literal = False
    pos = start
    while pos < end:
        byte = read_u8(data, pos, end)
        if in_quotes:
            if byte == _BACKSLASH:
                pos += 1
            elif byte == _QUOTE:
                in_quotes = False
        elif byte == _QUOTE:
            in_quotes = True
        elif byte == _AT:
            at = i64(pos)
            stop = i64(-1)
            in_literal = read_u8(data, pos + 1, end) == _LEFT_BRACKET
        elif byte == _GT:
            break
        elif at >= 0 and stop < 0:
            if byte == _RIGHT_BRACKET:
                in_literal = False
            elif byte == _SPACE or (byte in (_COLON, _COMMA) and not in_literal):
                stop = i64(pos)  # a source route (RFC 5321 section 4.1.2): the mailbox follows
                if byte == _SPACE:
                    break
        pos += 1
    if at < 0 or in_quotes:
        return 0, 0
    if stop < 0:
        stop = i64(min(pos, end))
    return at + 1, min(stop, at + 1 + MAX_DOMAIN_BYTES)


@inner
def find_greeting_domain(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the domain or address literal of HELO, EHLO or LHLO lies (RFC 5321 section 4.1.1.1)."""
    stop = start
    while stop < end and stop - start < MAX_DOMAIN_BYTES:
        byte = read_u8(data, stop, end)
        if byte in (_SPACE, _TAB):
            break
        stop += 1
    return start, stop


@inner
def find_host_name(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the name lies that a server greets with (RFC 5321 section 4.2): an empty place if it is none.

    The first word behind the reply's code, if it can be a host's full name: letters, digits, hyphens and dots.
    """
    first = start + _REPLY_CODE_BYTES
    first, stop = find_greeting_domain(data, first, end)
    n_dots = 0
    for i in range(first, stop):
        byte = lower(read_u8(data, i, end))
        if byte == _DOT and i > first and i < stop - 1:
            n_dots += 1
        elif byte != _HYPHEN and not _LETTER_A <= byte <= _LETTER_Z and not _ZERO <= byte <= _NINE:
            return first, first
    return first, (stop if n_dots > 0 else first)


@inner
def parse_bdat(data: Bytes, start: int, end: int) -> tuple[int, bool]:
    """Return the chunk size of BDAT and whether it is the last chunk (RFC 3030 section 2).

    An argument that is not ``1*DIGIT [SP "LAST"]`` is refused by servers and brings no chunk: size 0, not the
    last.
    """
    size = i64(0)
    pos = start
    while pos < end and pos - start < _MAX_CHUNK_DIGITS:
        digit = read_u8(data, pos, end) - 48
        if digit < 0 or digit > 9:
            break
        size = size * 10 + digit
        pos += 1
    if pos == start:
        return i64(0), False
    stop = end
    while stop > pos and read_u8(data, stop - 1, end) == _SPACE:
        stop -= 1
    if stop == pos:
        return size, False
    if (
        read_u8(data, pos, end) == _SPACE
        and stop - pos == 5
        and matches_letters(data, pos + 1, end, _LAST, 0, 4)
    ):
        return size, True
    return i64(0), False


@inner
def parse_reply_line(data: Bytes, start: int, end: int) -> tuple[int, bool]:
    """Return a reply line's code and whether more lines follow; code -1 if it is no reply (RFC 5321 section 4.2).

    ``code = ("2".."5") ("0".."5") digit``; real servers stray, so any three digits from 100 to 599 are taken.
    """
    if end - start < 3:
        return -1, False
    code = i64(0)
    for i in range(3):
        digit = read_u8(data, start + i, end) - 48
        if digit < 0 or digit > 9:
            return -1, False
        code = code * 10 + digit
    separator = read_u8(data, start + 3, end)
    if code < 100 or code > 599 or separator not in (-1, _SPACE, _HYPHEN, _TAB):
        return -1, False
    return code, separator == _HYPHEN


@inner
def parse_enhanced_code(data: Bytes, start: int, end: int) -> int:
    """Return a reply's enhanced status code as class*1_000_000 + subject*1_000 + detail, or 0 (RFC 3463)."""
    value = i64(0)
    pos = start + 4
    for part in range(3):
        number = i64(0)
        digits = 0
        while digits < 3:
            digit = read_u8(data, pos, end) - 48
            if digit < 0 or digit > 9:
                break
            number = number * 10 + digit
            digits += 1
            pos += 1
        if digits == 0 or (part == 0 and number not in (2, 4, 5)):
            return i64(0)
        value = value * 1000 + number
        if part < 2:
            if read_u8(data, pos, end) != _DOT:
                return i64(0)
            pos += 1
    if read_u8(data, pos, end) not in (-1, _SPACE):
        return i64(0)
    return value


@inner
def names_blocklist(data: Bytes, start: int, end: int) -> bool:
    """Tell whether the text of a refusing reply line names a block list (BLOCKLIST_WORDS)."""
    for pos in range(start + 4, end):
        if _BLOCKLIST_STARTS[read_u8(data, pos, end)] == 0:
            continue
        for row in range(_BLOCKLIST_LENGTHS.size):
            if matches_letters(data, pos, end, _BLOCKLIST_LETTERS, row, _BLOCKLIST_LENGTHS[row]):
                return True
    return False


@inner
def find_line(data: Bytes, pos: int, end: int) -> tuple[int, int]:
    """Return where the line at ``pos`` ends and where the next one begins; (-1, -1) if its end is not here.

    Lines end in CRLF; a bare LF is taken for one, as receiving servers do.
    """
    newline = find_byte(data, pos, end, _LF)
    if newline < 0:
        return -1, -1
    stop = newline
    while stop > pos and read_u8(data, stop - 1, end) == _CR:
        stop -= 1
    return stop, newline + 1


# Where the search for the end of the data stands between two segments.
EOD_INSIDE_LINE = 0
EOD_LINE_START = 1
EOD_DOT = 2
EOD_DOT_CR = 3


@inner
def find_end_of_data(data: Bytes, pos: int, end: int, state: int) -> tuple[int, int]:
    """Look for the line that holds only a dot (RFC 5321 section 4.1.1.4); all other bytes are skipped unread.

    Returns (position after the end mark or -1, search state to continue with in the next segment). Bare LF is
    tolerated, as find_line does: if the server disagrees, its next reply puts the dialogue right.
    """
    while pos < end:
        if state == EOD_INSIDE_LINE:
            newline = find_byte(data, pos, end, _LF)
            if newline < 0:
                return -1, EOD_INSIDE_LINE
            pos = newline + 1
            state = EOD_LINE_START
            continue
        byte = read_u8(data, pos, end)
        pos += 1
        if byte == _LF:
            if state != EOD_LINE_START:
                return pos, EOD_INSIDE_LINE
        elif state == EOD_LINE_START and byte == _DOT:
            state = EOD_DOT
        elif state == EOD_DOT and byte == _CR:
            state = EOD_DOT_CR
        else:
            state = EOD_INSIDE_LINE
    return -1, state


@inner
def looks_like_tls(data: Bytes, pos: int, end: int) -> bool:
    """Tell whether bytes begin a TLS record: handshake or alert, version 3.x (RFC 8446 section 5.1)."""
    return read_u8(data, pos, end) in (21, 22) and read_u8(data, pos + 1, end) == 3


@inner
def tls_record_bytes(data: Bytes, pos: int, end: int) -> int:
    """Return the length of the TLS record at ``pos`` with its header (RFC 8446 section 5.1); 0 if that is cut off."""
    length = read_u16(data, pos + 3, end)
    return length + 5 if length >= 0 else i64(0)
