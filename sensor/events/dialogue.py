"""The SMTP dialogue of one flow: from bytes in order, on either side, to commands, replies and messages.

Rules of this module. (1) The client's bytes mean what the server's replies make of them: a line after DATA is
content only until the server refuses DATA, a line after AUTH is a credential only until a reply ends AUTH. So
replies are matched with the commands that wait for them, in order (RFC 2920), and each reply may put the
client's mode right. (2) Where bytes are missing, the client's side waits for the server's next reply. (3)
Nothing of content, credentials or local parts is copied anywhere; a broken line waits in a buffer until its
end arrives and is then overwritten.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.smtp import (
    EOD_INSIDE_LINE,
    EOD_LINE_START,
    MAX_LINE_BYTES,
    VERB_AUTH,
    VERB_BDAT,
    VERB_DATA,
    VERB_EHLO,
    VERB_HELO,
    VERB_LHLO,
    VERB_MAIL,
    VERB_NONE,
    VERB_OTHER,
    VERB_RCPT,
    VERB_RSET,
    find_end_of_data,
    find_greeting_domain,
    find_host_name,
    find_line,
    find_path_domain,
    looks_like_tls,
    names_blocklist,
    parse_bdat,
    parse_enhanced_code,
    parse_reply_line,
    parse_verb,
    tls_record_bytes,
)
from sensor.decode.status import Weird
from sensor.decode.tls import find_server_name
from sensor.decode.wire import copy_bytes, read_u8
from sensor.events.emit import append_event, append_lower_text, append_text, fill_flow_columns
from sensor.events.tables import MAX_PENDING, EventTables, Total
from sensor.events.tls_records import read_client_records, skip_client_records
from sensor.events.types import EventColumns, EventFlag, EventKind
from sensor.hashing import mix
from sensor.jit import i64, inner, spliced

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes


class ClientMode(IntEnum):
    """What the client's next bytes are."""

    COMMANDS = 0
    DATA_PENDING = 1  # DATA was sent, its reply is not here yet
    DATA = 2  # content, until the end mark
    CHUNK = 3  # content, a counted number of bytes (BDAT)
    AUTH = 4  # credentials, until AUTH's final reply
    RESYNC = 5  # bytes are missing: wait for the server's next reply
    TLS = 6
    OPAQUE = 7  # no SMTP


class ServerMode(IntEnum):
    """What the server's next bytes are."""

    REPLIES = 0
    TLS = 1
    OPAQUE = 2


# IntEnum members as plain numbers, for the kernels.
_COMMANDS, _DATA_PENDING, _DATA, _CHUNK, _AUTH, _RESYNC, _CLIENT_TLS, _CLIENT_OPAQUE = (
    int(mode) for mode in ClientMode
)
_REPLIES, _SERVER_TLS, _SERVER_OPAQUE = (int(mode) for mode in ServerMode)
_KIND_COMMAND = int(EventKind.SMTP_COMMAND)
_KIND_REPLY = int(EventKind.SMTP_REPLY)
_KIND_MESSAGE = int(EventKind.SMTP_MESSAGE)
_KIND_TLS_HELLO = int(EventKind.TLS_HELLO)
_FLAG_TLS = int(EventFlag.TLS)
_FLAG_BLOCKLISTED = int(EventFlag.BLOCKLISTED)
_FLAG_AUTHENTICATED = int(EventFlag.AUTHENTICATED)
_FLAG_GAP = int(EventFlag.GAP)
_TOTAL_COMMANDS = int(Total.SMTP_COMMANDS)
_TOTAL_REPLIES = int(Total.SMTP_REPLIES)
_LINE_TOO_LONG = int(Weird.SMTP_LINE_TOO_LONG)
_LINE_BUFFERS_FULL = int(Weird.SMTP_LINE_BUFFERS_FULL)
_NOT_SMTP = int(Weird.SMTP_NOT_SMTP)
_REPLY_MALFORMED = int(Weird.SMTP_REPLY_MALFORMED)
_BARE_LF = int(Weird.SMTP_BARE_LF)

# What waits for a reply besides commands: the end of the data, and the last chunk. Only ever in the ring of
# pending verbs; an event's verb is then DATA or BDAT.
_PENDING_MESSAGE = 30
_PENDING_LAST_CHUNK = 31

_NOWHERE, _IN_SEGMENT, _IN_BUFFER = range(3)
_CR = 13

NO_SLOT = -1
SKIP_LINE = -2  # the rest of the current line is not wanted

ORIG, RESP = 0, 1


@spliced
def push_pending(tables: EventTables, row: int, verb: int) -> None:
    """Note that a command waits for its reply."""
    flow = tables.flows[row]
    count = i64(flow["pending_count"])
    if count < MAX_PENDING:
        tables.pending[row, (flow["pending_head"] + count) % MAX_PENDING] = verb
        flow["pending_count"] = count + 1


@inner
def push_pending_front(tables: EventTables, row: int, verb: int) -> None:
    """Note what waits for the very next reply."""
    flow = tables.flows[row]
    head = (flow["pending_head"] + MAX_PENDING - 1) % MAX_PENDING
    tables.pending[row, head] = verb
    flow["pending_head"] = head
    flow["pending_count"] = min(i64(flow["pending_count"]) + 1, MAX_PENDING)


@spliced
def pop_pending(tables: EventTables, row: int) -> int:
    """Return what the reply at hand answers; VERB_NONE for the greeting, and where it cannot be told."""
    flow = tables.flows[row]
    if flow["pending_count"] == 0:
        return i64(VERB_NONE)
    verb = i64(tables.pending[row, flow["pending_head"]])
    flow["pending_head"] = (flow["pending_head"] + 1) % MAX_PENDING
    flow["pending_count"] = flow["pending_count"] - 1
    return verb


@inner
def release_line(tables: EventTables, side: Any) -> None:
    """Give a broken line's buffer back."""
    if side["line_slot"] >= 0:
        state = tables.state[0]
        tables.line_stack[state["line_free"]] = side["line_slot"]
        state["line_free"] = state["line_free"] + 1
    side["line_slot"] = NO_SLOT
    side["line_len"] = 0


@inner
def keep_line(tables: EventTables, side: Any, data: Bytes, pos: int, end: int) -> None:
    """Keep the beginning, or the next part, of a line whose end has not come yet."""
    if side["line_slot"] == SKIP_LINE or pos >= end:
        return
    if side["line_slot"] == NO_SLOT:
        state = tables.state[0]
        free = i64(state["line_free"])
        if free == 0:
            tables.weirds[_LINE_BUFFERS_FULL] += 1
            side["line_slot"] = SKIP_LINE
            return
        state["line_free"] = free - 1
        side["line_slot"] = tables.line_stack[free - 1]
        side["line_len"] = 0
    base = i64(side["line_slot"]) * MAX_LINE_BYTES
    length = i64(side["line_len"])
    kept = copy_bytes(data, pos, end, tables.lines, base + length, base + MAX_LINE_BYTES)
    if length < MAX_LINE_BYTES and length + kept == MAX_LINE_BYTES:
        tables.weirds[_LINE_TOO_LONG] += 1
    side["line_len"] = length + kept


@inner
def join_line(tables: EventTables, side: Any, data: Bytes, pos: int, stop: int) -> tuple[int, int, int]:
    """Join a broken line's last part, ``data[pos:stop]``, to what was kept of it. Returns as complete_line.

    The buffer is given back at once: it keeps its bytes until the next broken line.
    """
    if side["line_slot"] == SKIP_LINE:
        release_line(tables, side)
        return _NOWHERE, 0, 0
    keep_line(tables, side, data, pos, stop)
    start = i64(side["line_slot"]) * MAX_LINE_BYTES
    end = start + i64(side["line_len"])
    while end > start and read_u8(tables.lines, end - 1, end) == _CR:
        end -= 1
    release_line(tables, side)
    return _IN_BUFFER, start, end


@spliced
def complete_line(tables: EventTables, side: Any, data: Bytes, pos: int, stop: int) -> tuple[int, int, int]:
    """Return where the line that ends at ``stop`` is, with its start and end without CR.

    _IN_SEGMENT: in ``data``, _IN_BUFFER: in ``tables.lines``, _NOWHERE: it is not wanted.
    """
    where, first, last = _IN_SEGMENT, i64(pos), i64(stop)
    if side["line_slot"] != NO_SLOT:
        where, first, last = join_line(tables, side, data, pos, stop)
    elif stop - pos >= MAX_LINE_BYTES:
        tables.weirds[_LINE_TOO_LONG] += 1
        last = i64(pos + MAX_LINE_BYTES)
    return where, first, last


@inner
def end_content(flow: Any) -> None:
    """Note that a message's content is whole and waits for the server's answer."""
    flow["message_size"] = flow["message_bytes"]
    flow["message_bytes"] = 0
    flow["message_open"] = 1


@inner
def end_message(tables: EventTables, row: int, ts_ns: int, code: int, out: EventColumns) -> None:
    """Report a message whose end was seen or told; ``code`` is the server's answer to it, 0 if none was seen."""
    flow = tables.flows[row]
    event = append_event(out, tables.weirds, ts_ns, _KIND_MESSAGE)
    fill_flow_columns(event, flow)
    event["code"] = code
    # Without a server's side, what the client asked for is all there is to count.
    event["count"] = (
        flow["rcpt_accepted"] if tables.sides[2 * row + RESP]["packets"] > 0 else flow["rcpt_commands"]
    )
    event["orig_bytes"] = flow["message_size"]
    flow["messages"] = flow["messages"] + 1
    if 200 <= code < 300:
        flow["messages_accepted"] = flow["messages_accepted"] + 1
    flow["message_open"] = 0
    flow["message_size"] = 0
    flow["rcpt_accepted"] = 0


@spliced
def on_command(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, start: int, end: int, out: EventColumns
) -> None:
    """Take one complete client line in command or AUTH mode."""
    flow = tables.flows[row]
    verb, argument = parse_verb(data, start, end)
    if flow["client_mode"] == _AUTH:
        if verb in (VERB_OTHER, VERB_NONE):
            return  # a credential: not looked at
        flow["client_mode"] = (
            _COMMANDS  # no answer to a challenge: the AUTH exchange is over, or was not seen whole
        )
    if verb == VERB_NONE:
        return
    if verb == VERB_OTHER and looks_like_tls(data, start, end):
        flow["client_mode"] = _CLIENT_TLS  # a record whose first bytes came alone
        flow["flags"] = flow["flags"] | _FLAG_TLS
        return
    flow["commands"] = flow["commands"] + 1
    tables.totals[_TOTAL_COMMANDS] += 1
    pending = verb
    if flow["transactions"] == 0:  # what follows depends on the server's replies
        flow["dialect"] = mix((i64(flow["dialect"]) + verb) & 0x7FFFFFFF) | 1
    if verb == VERB_MAIL:
        flow["transactions"] = flow["transactions"] + 1
        flow["rcpt_commands"] = 0
        flow["message_bytes"] = 0
    elif verb == VERB_RCPT:
        flow["rcpt_commands"] = flow["rcpt_commands"] + 1
    elif verb == VERB_RSET:
        flow["rcpt_commands"] = 0
        flow["message_bytes"] = 0
    elif verb == VERB_DATA:
        flow["client_mode"] = _DATA_PENDING
        flow["eod_state"] = EOD_LINE_START
        flow["message_bytes"] = 0
    elif verb == VERB_BDAT:
        size, last = parse_bdat(data, argument, end)
        flow["bdat_left"] = size
        if size > 0:
            flow["client_mode"] = _CHUNK
        flow["message_bytes"] = flow["message_bytes"] + size
        if last:
            pending = _PENDING_LAST_CHUNK
            end_content(flow)
    elif verb == VERB_AUTH:
        flow["client_mode"] = _AUTH
    # Of a line that ends in the middle of its verb, or of a chunk's size, nothing that follows can be trusted.
    flow["cut_verb"] = 1 if verb in (VERB_OTHER, VERB_BDAT) else 0
    flow["has_cut_commands"] = 0
    push_pending(tables, row, pending)

    event = append_event(out, tables.weirds, ts_ns, _KIND_COMMAND)
    fill_flow_columns(event, flow)
    event["code"] = verb
    if verb in (VERB_HELO, VERB_EHLO, VERB_LHLO):
        first, last_byte = find_greeting_domain(data, argument, end)
        append_text(out, event, data, first, last_byte)
    elif verb in (VERB_MAIL, VERB_RCPT):
        first, last_byte = find_path_domain(data, argument, end)
        append_text(out, event, data, first, last_byte)


@spliced
def on_reply(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, start: int, end: int, code: int, out: EventColumns
) -> None:
    """Take one complete reply, whose lines have been gathered in the flow; ``data[start:end]`` is the last if whole."""
    flow = tables.flows[row]
    verb = pop_pending(tables, row)
    if verb == VERB_NONE and code != 354 and flow["client_mode"] == _DATA and flow["replies"] > 0:
        # All that content can be answered with: the replies before it were not captured.
        verb = i64(_PENDING_MESSAGE)
    flow["replies"] = flow["replies"] + 1
    tables.totals[_TOTAL_REPLIES] += 1
    if verb == VERB_AUTH and code == 235:
        flow["flags"] = flow["flags"] | _FLAG_AUTHENTICATED
    event = append_event(out, tables.weirds, ts_ns, _KIND_REPLY)
    fill_flow_columns(event, flow)
    event["code"] = code
    event["enhanced"] = flow["reply_enhanced"]
    event["count"] = flow["replies"]
    event["flags"] = event["flags"] | flow["reply_flags"]
    event["verb"] = (
        VERB_DATA if verb == _PENDING_MESSAGE else VERB_BDAT if verb == _PENDING_LAST_CHUNK else verb
    )
    flow["reply_enhanced"] = 0
    flow["reply_flags"] = 0
    if flow["replies"] == 1 and code == 220 and verb == VERB_NONE:
        first, last = find_host_name(data, start, end)
        append_lower_text(out, event, data, first, last)

    mode = flow["client_mode"]
    if mode == _RESYNC:
        # The reply tells that the server has read everything before it: the client's next bytes are a line's
        # beginning.
        flow["pending_count"] = 0
        mode = np.int32(_COMMANDS)
        verb = i64(VERB_NONE)
    if code == 354:
        if verb not in (VERB_DATA, VERB_NONE):
            flow["pending_count"] = 0  # nothing but DATA is answered so: replies were missed
        # Content that was captured ahead of its 354 has moved the mode on already.
        if mode in (_COMMANDS, _DATA_PENDING) and (mode == _DATA_PENDING or verb != VERB_DATA):
            mode = np.int32(_DATA)
            flow["eod_state"] = EOD_LINE_START
        push_pending_front(tables, row, _PENDING_MESSAGE)
    elif code == 334:
        if verb in (VERB_AUTH, VERB_NONE):
            push_pending_front(tables, row, VERB_AUTH)
            mode = np.int32(_AUTH)
    elif verb in (_PENDING_MESSAGE, _PENDING_LAST_CHUNK):
        if flow["message_open"] == 0:
            end_content(flow)  # its end mark was not captured
        end_message(tables, row, ts_ns, code, out)
        if verb == _PENDING_MESSAGE and mode == _DATA:
            mode = np.int32(_COMMANDS)
    elif verb == VERB_DATA:
        if 200 <= code < 300:  # the 354 was not captured, this is the answer to the content
            if flow["message_open"] == 0:
                end_content(flow)
            end_message(tables, row, ts_ns, code, out)
        flow["message_open"] = 0
        flow["message_bytes"] = 0
        if mode in (_DATA_PENDING, _DATA):
            mode = np.int32(_COMMANDS)
    elif verb == VERB_RCPT and 200 <= code < 300:
        flow["rcpt_accepted"] = flow["rcpt_accepted"] + 1
    elif verb in (VERB_MAIL, VERB_RSET, VERB_HELO, VERB_EHLO, VERB_LHLO) and 200 <= code < 300:
        flow["rcpt_accepted"] = 0
    elif verb == VERB_AUTH and mode == _AUTH:
        mode = np.int32(_COMMANDS)
    if mode != flow["client_mode"]:
        flow["client_mode"] = mode
        release_line(tables, tables.sides[2 * row + ORIG])  # begun under other rules


@spliced
def on_reply_line(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, start: int, end: int, cut: bool, out: EventColumns
) -> None:
    """Take one server line; ``cut`` if the snap length cut it, so that its reply ends here as far as can be told."""
    flow = tables.flows[row]
    code, more = parse_reply_line(data, start, end)
    if code < 0 and cut:
        if flow["reply_lines"] == 0:
            return  # a reply of which nothing can be told
        code = i64(flow["reply_code"])
    if code < 0:
        if looks_like_tls(data, start, end):
            flow["server_mode"] = _SERVER_TLS  # a record whose first bytes came alone
            flow["flags"] = flow["flags"] | _FLAG_TLS
            return
        if flow["client_mode"] == _CLIENT_TLS or (flow["replies"] == 0 and flow["reply_lines"] == 0):
            # Not one reply yet, or the client speaks TLS already: these are no reply lines.
            flow["server_mode"] = _SERVER_TLS if flow["client_mode"] == _CLIENT_TLS else _SERVER_OPAQUE
            if flow["server_mode"] == _SERVER_OPAQUE:
                flow["client_mode"] = _CLIENT_OPAQUE
                tables.weirds[_NOT_SMTP] += 1
            return
        tables.weirds[_REPLY_MALFORMED] += 1
        return
    if flow["reply_enhanced"] == 0:
        flow["reply_enhanced"] = parse_enhanced_code(data, start, end)
    if code >= 400 and names_blocklist(data, start, end):
        flow["reply_flags"] = flow["reply_flags"] | _FLAG_BLOCKLISTED
    if more and not cut:
        flow["reply_lines"] = flow["reply_lines"] + 1
        flow["reply_code"] = code
        return
    flow["reply_lines"] = 0
    on_reply(tables, row, ts_ns, data, start, start if cut else end, code, out)


@inner
def emit_server_name(
    tables: EventTables, flow: Any, ts_ns: int, data: Bytes, pos: int, end: int, out: EventColumns
) -> None:
    """Report the server's name that a ClientHello asks for (RFC 6066 section 3), if it is whole and does."""
    first, last = find_server_name(data, pos, end)
    if first >= 0:
        event = append_event(out, tables.weirds, ts_ns, _KIND_TLS_HELLO)
        fill_flow_columns(event, flow)
        append_lower_text(out, event, data, first, last)


@inner
def counts_under_tls(tables: EventTables, row: int) -> bool:
    """Tell whether what the client sends under TLS now can be mail.

    The first flight is the ClientHello, which says nothing about mail and is large in recent stacks. Where the server
    is not seen to answer it, its length was taken off beforehand.
    """
    return bool(tables.flows[row]["tls_resp_bytes"] > 0 or tables.sides[2 * row + RESP]["packets"] == 0)


@spliced
def read_client(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, pos: int, end: int, cut: bool, out: EventColumns
) -> None:
    """Take the client's next bytes in order, ``data[pos:end]``; ``cut`` if the snap length cut them at ``end``."""
    flow = tables.flows[row]
    side = tables.sides[2 * row + ORIG]
    while pos < end:
        mode = flow["client_mode"]
        if mode in (_COMMANDS, _AUTH, _RESYNC) and side["line_len"] == 0 and looks_like_tls(data, pos, end):
            mode = np.int32(_CLIENT_TLS)
            flow["client_mode"] = mode
            if tables.sides[2 * row + RESP]["packets"] == 0:
                flow["tls_orig_bytes"] = -tls_record_bytes(data, pos, end)
            flow["flags"] = flow["flags"] | _FLAG_TLS
            emit_server_name(tables, flow, ts_ns, data, pos, end, out)
        if mode == _CLIENT_TLS:
            read_client_records(flow, data, pos, end)
            if counts_under_tls(tables, row):
                flow["tls_orig_bytes"] = flow["tls_orig_bytes"] + (end - pos)
            return
        if mode == _CLIENT_OPAQUE:
            return
        if mode in (_DATA_PENDING, _DATA):
            flow["client_mode"] = _DATA
            stop, eod_state = find_end_of_data(data, pos, end, flow["eod_state"])
            flow["eod_state"] = eod_state
            if stop < 0:
                flow["message_bytes"] = flow["message_bytes"] + (end - pos)
                return
            flow["message_bytes"] = flow["message_bytes"] + (stop - pos)
            pos = stop
            flow["client_mode"] = _COMMANDS
            end_content(flow)
            if tables.sides[2 * row + RESP]["packets"] == 0:
                end_message(tables, row, ts_ns, 0, out)  # one-sided: no reply will ever come
                flow["pending_count"] = 0
            continue
        if mode == _CHUNK:
            n = min(i64(flow["bdat_left"]), end - pos)
            pos += n
            flow["bdat_left"] = flow["bdat_left"] - n
            if flow["bdat_left"] <= 0:
                flow["client_mode"] = _COMMANDS
            continue
        pos = read_client_line(tables, row, ts_ns, data, pos, end, cut, out)


@spliced
def read_client_line(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, pos: int, end: int, cut: bool, out: EventColumns
) -> int:
    """Take one line, or the part of one that is here; return the position after it."""
    flow = tables.flows[row]
    side = tables.sides[2 * row + ORIG]
    stop, following = find_line(data, pos, end)
    if stop < 0:
        if not cut:
            keep_line(tables, side, data, pos, end)
            return end
        stop, following = end, end
    if stop == following - 1 and (stop > pos or side["line_slot"] == NO_SLOT):
        tables.weirds[_BARE_LF] += 1
    where, first, last = complete_line(tables, side, data, pos, stop)
    if where == _NOWHERE:
        return following
    line = data if where == _IN_SEGMENT else tables.lines
    if flow["client_mode"] == _RESYNC:
        # With the server's side in view its next reply ends this; without, the first known verb does.
        verb, _ = parse_verb(line, first, last)
        if tables.sides[2 * row + RESP]["payload_bytes"] > 0 or verb in (VERB_NONE, VERB_OTHER):
            return following
        flow["client_mode"] = _COMMANDS
    on_command(tables, row, ts_ns, line, first, last, out)
    return following


@spliced
def read_server(
    tables: EventTables, row: int, ts_ns: int, data: Bytes, pos: int, end: int, cut: bool, out: EventColumns
) -> None:
    """Take the server's next bytes in order; arguments as for read_client."""
    flow = tables.flows[row]
    side = tables.sides[2 * row + RESP]
    if flow["server_mode"] == _REPLIES and side["line_len"] == 0 and looks_like_tls(data, pos, end):
        flow["server_mode"] = _SERVER_TLS
        flow["flags"] = flow["flags"] | _FLAG_TLS
    while pos < end:
        if flow["server_mode"] != _REPLIES:
            if flow["server_mode"] == _SERVER_TLS:
                flow["tls_resp_bytes"] = flow["tls_resp_bytes"] + (end - pos)
            return
        stop, following = find_line(data, pos, end)
        is_whole = stop >= 0
        if not is_whole:
            if not cut:
                keep_line(tables, side, data, pos, end)
                return
            stop, following = end, end
        where, first, last = complete_line(tables, side, data, pos, stop)
        if where != _NOWHERE:
            line = data if where == _IN_SEGMENT else tables.lines
            on_reply_line(tables, row, ts_ns, line, first, last, not is_whole, out)
        pos = following


@inner
def skip_chunk_bytes(flow: Any, n: int) -> bool:
    """Account for ``n`` bytes of the client that were not captured; True if all of them belong to the chunk at hand."""
    if flow["client_mode"] != _CHUNK or n > flow["bdat_left"]:
        return False
    flow["bdat_left"] = flow["bdat_left"] - n
    if flow["bdat_left"] == 0:
        flow["client_mode"] = _COMMANDS
    return True


@inner
def count_unread(tables: EventTables, row: int, n: int) -> None:
    """Count ``n`` bytes of the client that were not captured to what they are part of: TCP's numbers tell how many."""
    flow = tables.flows[row]
    if flow["client_mode"] == _CLIENT_TLS:
        skip_client_records(flow, n)
        if counts_under_tls(tables, row):
            flow["tls_orig_bytes"] = flow["tls_orig_bytes"] + n
    elif flow["client_mode"] == _DATA:
        flow["message_bytes"] = flow["message_bytes"] + n


@inner
def lose_rest(tables: EventTables, row: int, n: int, has_some: bool) -> None:
    """Account for ``n`` bytes that the snap length cut off the client's segment; ``has_some`` of it was captured.

    Of lines in lock-step, each in its segment, the part that is here tells enough. A chunk may begin in what is not.
    """
    flow = tables.flows[row]
    count_unread(tables, row, n)
    if skip_chunk_bytes(flow, n):
        return
    if flow["client_mode"] == _CHUNK or (
        flow["client_mode"] == _COMMANDS and (not has_some or flow["cut_verb"] != 0)
    ):
        flow["client_mode"] = _RESYNC
    flow["cut_verb"] = 0
    flow["has_cut_commands"] = 1 if flow["client_mode"] == _COMMANDS else 0


@inner
def lose_replies(flow: Any) -> None:
    """Note that the snap length cut the server's segment: it may have answered all that waits for a reply.

    If the client's commands were cut as well, DATA and its 354 may both be in what was not captured, and content
    follow.
    """
    if flow["client_mode"] not in (_DATA, _AUTH):
        flow["pending_count"] = 0
    flow["reply_lines"] = 0
    if flow["client_mode"] == _COMMANDS and flow["has_cut_commands"] != 0:
        flow["client_mode"] = _RESYNC


@inner
def lose_bytes(
    tables: EventTables, row: int, direction: int, n: int, data: Bytes, pos: int, end: int
) -> None:
    """Note that ``n`` bytes before ``data[pos:end]`` are missing on one side: that side has to find its place again."""
    flow = tables.flows[row]
    side = tables.sides[2 * row + direction]
    release_line(tables, side)
    flow["flags"] = flow["flags"] | _FLAG_GAP
    if direction == ORIG:
        if skip_chunk_bytes(flow, n):
            return
        if flow["client_mode"] in (_DATA_PENDING, _DATA):
            flow["eod_state"] = EOD_INSIDE_LINE
        elif flow["client_mode"] in (_COMMANDS, _AUTH, _CHUNK):
            flow["client_mode"] = _RESYNC
    elif flow["server_mode"] == _REPLIES:
        flow["pending_count"] = 0
        flow["reply_lines"] = 0
        flow["reply_flags"] = 0
        flow["reply_enhanced"] = 0
        code, _ = parse_reply_line(data, pos, min(end, pos + 4))
        if code < 0:
            side["line_slot"] = SKIP_LINE
