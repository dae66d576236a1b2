"""What a device says of itself in words, kept as it was said; devices/kinds.py makes a guess of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.facts import FactKind
from sensor.decode.wire import copy_bytes
from sensor.devices.table import MAX_HINT_BYTES, N_HINTS, DeviceTables
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Of these a device has several; of any other fact the latest counts.
_SERVICE, _MODEL, _USER_AGENT = int(FactKind.SERVICE), int(FactKind.MODEL), int(FactKind.USER_AGENT)


@inner
def note_hint(t: DeviceTables, row: int, event: Any, text: NDArray[np.uint8]) -> None:
    """Keep the fact of an event, if it is news and there is room; what is longer than MAX_HINT_BYTES is cut."""
    start = event["text_start"]
    length = min(event["text_len"], MAX_HINT_BYTES)
    place = find_place(t, row, event["code"], event["enhanced"], text, start, length)
    if place < N_HINTS:
        hint = t.hints[row, place]
        if hint["what"] == 0 or not is_text(t, row, place, text, start, length):
            t.devices[row]["is_kind_known"] = 0
        hint["what"] = event["code"]
        hint["source"] = event["enhanced"]
        hint["length"] = copy_bytes(text, start, start + length, t.hint_texts[row, place], 0, MAX_HINT_BYTES)


@inner
def find_place(
    t: DeviceTables, row: int, what: int, source: int, text: NDArray[np.uint8], start: int, length: int
) -> int:
    """Return where a fact belongs: in place of the one that it renews, or behind all others; N_HINTS for no room."""
    for i in range(N_HINTS):
        hint = t.hints[row, i]
        if hint["what"] == 0:
            return i
        if hint["what"] == what and hint["source"] == source:
            has_several = what in (_SERVICE, _MODEL, _USER_AGENT)
            if not has_several or is_text(t, row, i, text, start, length):
                return i
    return N_HINTS


@inner
def is_text(t: DeviceTables, row: int, i: int, text: NDArray[np.uint8], start: int, length: int) -> bool:
    """Tell whether hint ``i`` has this text."""
    if t.hints[row, i]["length"] != length:
        return False
    for k in range(length):  # noqa: SIM110 - numba knows no generators
        if t.hint_texts[row, i, k] != text[start + k]:
            return False
    return True
