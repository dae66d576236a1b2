"""SSDP (UPnP Device Architecture 1.1, section 1): what a device runs and offers.

Sans-io. Of a search only its USER-AGENT is taken: the rest is about others. LOCATION and all other header
fields are stepped over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import NO_FIELD, count_broken, find_field, find_word, word_table
from sensor.decode.facts import FactKind, add_fact
from sensor.decode.lan import LanStatus
from sensor.decode.smtp import find_line, matches_letters
from sensor.decode.wire import find_byte, read_u8
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

#: Header fields looked at in one message; those that devices send have some 10.
MAX_SSDP_FIELDS = 32

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_SYSTEM, _SERVICE, _USER_AGENT = int(FactKind.SYSTEM), int(FactKind.SERVICE), int(FactKind.USER_AGENT)

#: What a message begins with (sections 1.2.2, 1.3.2, 1.3.3); the last two are responses.
_STARTS = word_table("NOTIFY", "M-SEARCH", "HTTP/1.1", "HTTP/1.0")
_M_SEARCH, _FIRST_RESPONSE = 1, 2
_SUCCESS = word_table("200")
_FIELDS = word_table("USER-AGENT", "SERVER", "NT", "ST")
_FIELD_USER_AGENT, _FIELD_SERVER = 0, 1
_URN = word_table("urn:")
_URN_BYTES = 4
_SPACE, _TAB = 0x20, 0x09


@inner
def decode_ssdp(data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]) -> int:
    """Add the facts of one message; return its LanStatus.

    SYSTEM: SERVER. SERVICE: NT or ST, if it is a URN and not a UUID. USER_AGENT. Of a field that comes twice
    the first is taken.

    data: u8[n_bytes], in; the message is ``data[start:end]``. facts: in/out. weirds: i64[N_WEIRDS],
    LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_message(data, start, end, facts), weirds)


@inner
def _decode_message(data: Bytes, start: int, end: int, facts: Facts) -> int:
    stop, pos = find_line(data, start, end)
    if stop < 0:
        stop = end
    kind = _read_start_line(data, start, stop)
    if kind < 0:
        return _UNSUPPORTED
    if pos < 0:
        return _TRUNCATED
    status = _OK
    seen = 0
    for _ in range(MAX_SSDP_FIELDS):
        if pos == end:
            return status  # some devices leave the empty line out
        line = pos
        stop, pos = find_line(data, line, end)
        if stop < 0:
            return _TRUNCATED
        if stop == line:
            return status
        if read_u8(data, line, stop) in (_SPACE, _TAB):
            continue  # the rest of the field before (RFC 9112 section 5.2)
        field, value, value_end = find_field(data, line, stop, _FIELDS)
        if field == NO_FIELD:
            status = _MALFORMED
        elif field >= 0 and seen & (1 << field) == 0 and (kind != _M_SEARCH or field == _FIELD_USER_AGENT):
            seen |= 1 << field
            _add_field(data, value, value_end, field, facts)
    return status


@inner
def _read_start_line(data: Bytes, start: int, end: int) -> int:
    """Return the row of _STARTS that a message begins with, -1 if it is none or a response that is no success."""
    space = find_byte(data, start, min(end, start + _STARTS.shape[1]), _SPACE)
    kind = find_word(data, start, space, _STARTS)
    if kind >= _FIRST_RESPONSE and find_word(data, space + 1, min(space + 4, end), _SUCCESS) < 0:
        return -1
    return kind


@inner
def _add_field(data: Bytes, start: int, end: int, field: int, facts: Facts) -> None:
    """Add the value of a row of _FIELDS."""
    if field == _FIELD_USER_AGENT:
        add_fact(facts, _USER_AGENT, data, start, end)
    elif field == _FIELD_SERVER:
        add_fact(facts, _SYSTEM, data, start, end)
    elif matches_letters(data, start, end, _URN, 0, _URN_BYTES):
        add_fact(facts, _SERVICE, data, start, end)
