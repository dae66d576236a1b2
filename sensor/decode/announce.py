"""What the decoders of announcements share: words, header fields, and the ways in which a fact is added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.decode.facts import N_BYTES, N_ROWS, add_fact, close_fact
from sensor.decode.lan import LanStatus
from sensor.decode.smtp import matches_letters
from sensor.decode.status import Weird
from sensor.decode.wire import find_byte, read_u8
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

#: Rows that ``find_field`` answers if the name is another, or if the line is no header field.
OTHER_FIELD, NO_FIELD = -1, -2

_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_LAN_MALFORMED = int(Weird.LAN_MALFORMED)
_TAB, _LF, _CR, _SPACE, _COLON = 0x09, 0x0A, 0x0D, 0x20, 0x3A


def word_table(*words: str) -> NDArray[np.uint8]:
    """Return words as u8[n_words, longest + 1]: a row each, in lower case, with at least one zero at its end."""
    table = np.zeros((len(words), max(map(len, words)) + 1), dtype=np.uint8)
    for row, word in enumerate(words):
        table[row, : len(word)] = np.frombuffer(word.lower().encode(), dtype=np.uint8)
    return table


@inner
def find_word(data: Bytes, pos: int, end: int, words: NDArray[np.uint8]) -> int:
    """Return the row of the word of a ``word_table`` that ``data[pos:end]`` is, in any case, or -1."""
    length = end - pos
    if length <= 0 or length >= words.shape[1]:
        return -1
    for row in range(words.shape[0]):
        is_as_long = words[row, length - 1] != 0 and words[row, length] == 0
        if is_as_long and matches_letters(data, pos, end, words, row, length):
            return row
    return -1


@inner
def find_field(data: Bytes, pos: int, end: int, names: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return the row of a header field's name, and where its value lies (RFC 9110 section 5.1, 5.5).

    ``data[pos:end]`` is the line without its end of line, ``names`` a ``word_table``.
    """
    colon = find_byte(data, pos, end, _COLON)
    if colon <= pos:
        return NO_FIELD, -1, -1
    start = colon + 1
    while read_u8(data, start, end) in (_SPACE, _TAB):
        start += 1
    stop = end
    while stop > start and read_u8(data, stop - 1, end) in (_SPACE, _TAB):
        stop -= 1
    return find_word(data, pos, colon, names), start, stop


@inner
def add_first_line(facts: Facts, kind: int, data: Bytes, start: int, end: int) -> None:
    """Add the first line of a text, as ``add_fact`` does: descriptions go on with copyright notices."""
    stop = start
    while stop < end and read_u8(data, stop, end) not in (_LF, _CR):
        stop += 1
    add_fact(facts, kind, data, start, stop)


@inner
def close_new_fact(facts: Facts) -> None:
    """Keep the open fact as ``close_fact`` does, unless the packet has said the same before."""
    last = facts.used[N_ROWS]
    close_fact(facts)
    if facts.used[N_ROWS] == last:
        return
    for row in range(last):
        if _is_same_fact(facts, row, last):
            facts.used[N_ROWS] = last
            facts.used[N_BYTES] = facts.rows[last]["start"]
            return


@inner
def _is_same_fact(facts: Facts, a: int, b: int) -> bool:
    """Compare kind and text of two rows."""
    one, other = facts.rows[a], facts.rows[b]
    length = i64(one["length"])
    if one["kind"] != other["kind"] or length != other["length"]:
        return False
    for i in range(length):  # noqa: SIM110  # numba knows no generators
        if facts.text[one["start"] + i] != facts.text[other["start"] + i]:
            return False
    return True


@inner
def count_broken(status: int, weirds: NDArray[np.int64]) -> int:
    """Count a message that is truncated or malformed; return its LanStatus."""
    if status in (_TRUNCATED, _MALFORMED):
        weirds[_LAN_MALFORMED] += 1
    return status
