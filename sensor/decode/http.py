"""Plain HTTP/1.x (RFC 9112): the User-Agent of a request, and nothing else of it.

Sans-io, over what one segment holds: no path, no host, no other header field is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import NO_FIELD, OTHER_FIELD, find_field, find_word, word_table
from sensor.decode.facts import FactKind, add_fact
from sensor.decode.lan import LanStatus
from sensor.decode.smtp import find_line, matches_letters
from sensor.decode.wire import find_byte
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

#: Bytes of a segment that are looked at: cookies and long paths may push the field further back, browsers do not.
MAX_HTTP_HEAD_BYTES = 2048
#: Header fields looked at in one request.
MAX_HTTP_FIELDS = 64

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_USER_AGENT = int(FactKind.USER_AGENT)

_METHODS = word_table("GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT")
_FIELDS = word_table("User-Agent")
_VERSION = word_table(" HTTP/1.")
_VERSION_BYTES = 8  # without the digit behind it
_SPACE = 0x20


@inner
def decode_http(data: Bytes, start: int, end: int, facts: Facts, _weirds: NDArray[np.int64]) -> int:
    """Add the USER_AGENT of the request that a segment begins with; return OK, or UNSUPPORTED if it is none.

    A value that does not end within the segment is not taken. Nothing is a weird: the rest of a request, a
    response and other protocols come this way as well.

    data: u8[n_bytes], in; the payload is ``data[start:end]``. facts: in/out.
    """
    end = min(end, start + MAX_HTTP_HEAD_BYTES)
    space = find_byte(data, start, min(end, start + _METHODS.shape[1]), _SPACE)
    if find_word(data, start, space, _METHODS) < 0:
        return _UNSUPPORTED
    stop, pos = find_line(data, start, end)
    version = stop - _VERSION_BYTES - 1
    if version < space or not matches_letters(data, version, stop, _VERSION, 0, _VERSION_BYTES):
        return _UNSUPPORTED
    for _ in range(MAX_HTTP_FIELDS):
        line = pos
        stop, pos = find_line(data, line, end)
        if stop <= line:  # the end of the head, or of what is here of it
            return _OK
        field, value, value_end = find_field(data, line, stop, _FIELDS)
        if field not in (NO_FIELD, OTHER_FIELD):
            add_fact(facts, _USER_AGENT, data, value, value_end)
            return _OK
    return _OK
