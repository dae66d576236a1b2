"""Appending rows to the event columns, for the kernels that see things happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.status import Weird
from sensor.decode.wire import copy_bytes, lower
from sensor.events.types import (
    MAX_EVENTS_PER_FRAME,
    MAX_TEXT_PER_FRAME,
    ROW_LIMIT,
    ROWS,
    TEXT,
    TEXT_LIMIT,
    EventColumns,
)
from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

_EVENT_LIMIT = int(Weird.EVENT_LIMIT)


@inner
def begin_frame(out: EventColumns) -> bool:
    """Give the next frame its share of the columns; False if too little is left and they must be drained first."""
    rows, text = out.used[ROWS], out.used[TEXT]
    if out.events.size - 1 - rows < MAX_EVENTS_PER_FRAME or out.text.size - text < MAX_TEXT_PER_FRAME:
        return False
    out.used[ROW_LIMIT] = rows + MAX_EVENTS_PER_FRAME
    out.used[TEXT_LIMIT] = text + MAX_TEXT_PER_FRAME
    return True


@inner
def append_event(out: EventColumns, weirds: NDArray[np.int64], ts_ns: int, kind: int) -> Any:
    """Return a cleared row for a new event; beyond the frame's share, the spare row that nobody reads."""
    row = out.used[ROWS]
    if row < out.used[ROW_LIMIT]:
        out.used[ROWS] = row + 1
    else:
        row = out.events.size - 1
        weirds[_EVENT_LIMIT] += 1
    event = out.events[row]
    # Column by column: assigning a whole record moves it byte by byte.
    event["ts_ns"] = ts_ns
    event["kind"] = kind
    event["flow_id"] = -1
    event["orig_hi"] = 0
    event["orig_lo"] = 0
    event["resp_hi"] = 0
    event["resp_lo"] = 0
    event["orig_mac"] = -1
    event["resp_mac"] = -1
    event["aux_hi"] = 0
    event["aux_lo"] = 0
    event["orig_bytes"] = 0
    event["resp_bytes"] = 0
    event["duration_ns"] = 0
    event["text_start"] = out.used[TEXT]
    event["text_len"] = 0
    event["code"] = 0
    event["enhanced"] = 0
    event["verb"] = 0
    event["flags"] = 0
    event["count"] = 0
    event["ttl_s"] = 0
    event["orig_port"] = 0
    event["resp_port"] = 0
    event["vlan"] = -1
    event["session"] = -1
    event["syns"] = 0
    return event


@inner
def append_text(out: EventColumns, event: Any, data: Bytes, start: int, end: int) -> None:
    """Give an event the text ``data[start:end]``; what exceeds the frame's share is cut."""
    at = out.used[TEXT]
    n = copy_bytes(data, start, end, out.text, at, out.used[TEXT_LIMIT])
    event["text_start"] = at
    event["text_len"] = n
    out.used[TEXT] = at + n


@inner
def append_lower_text(out: EventColumns, event: Any, data: Bytes, start: int, end: int) -> None:
    """Give an event the text ``data[start:end]`` in lower case: a domain name means the same (RFC 4343)."""
    append_text(out, event, data, start, end)
    for i in range(event["text_start"], event["text_start"] + event["text_len"]):
        out.text[i] = lower(i64(out.text[i]))


@inner
def fill_flow_columns(event: Any, flow: Any) -> None:
    """Copy the flow's identity into an event."""
    event["flow_id"] = flow["flow_id"]
    event["orig_hi"] = flow["orig_hi"]
    event["orig_lo"] = flow["orig_lo"]
    event["resp_hi"] = flow["resp_hi"]
    event["resp_lo"] = flow["resp_lo"]
    event["orig_mac"] = flow["orig_mac"]
    event["resp_mac"] = flow["resp_mac"]
    event["orig_port"] = flow["orig_port"]
    event["resp_port"] = flow["resp_port"]
    event["vlan"] = flow["vlan"]
    event["session"] = flow["session"]
    event["flags"] = flow["flags"]
