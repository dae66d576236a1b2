"""From decoded packets to events: the flow table, TCP's byte order, DNS and LAN messages.

One kernel walks the packet columns in order. All tables are fixed (events/tables.py); time is packet time.
Rows of the flow table are found by hashing into a neighbourhood of MAX_PROBES rows; when all are taken, the
one that can best be spared makes room, so that neither a full table nor a hostile choice of ports costs more
than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.packets import PortClass
from sensor.decode.smtp import MAX_LINE_BYTES
from sensor.decode.status import Eviction, FrameStatus, Weird
from sensor.decode.wire import copy_bytes, read_u16, seq_diff
from sensor.events.dialogue import (
    NO_SLOT,
    ORIG,
    RESP,
    SKIP_LINE,
    ClientMode,
    count_unread,
    end_content,
    end_message,
    keep_line,
    lose_bytes,
    lose_replies,
    lose_rest,
    read_client,
    read_server,
    release_line,
)
from sensor.events.duplicates import is_duplicate
from sensor.events.emit import append_event, begin_frame, fill_flow_columns
from sensor.events.lan import emit_lan
from sensor.events.messages import emit_datagram, emit_dns
from sensor.events.tables import (
    MAX_HELD_BYTES,
    MAX_HELD_PER_SIDE,
    NO_DEADLINE,
    EventTables,
    FlowState,
    Total,
)
from sensor.events.tls_records import has_only_greeted
from sensor.events.transfers import begin_slot, note_mail_bytes, note_peer, report_slot
from sensor.events.types import EventColumns, EventFlag, EventKind, Fate
from sensor.hashing import hash_halves, mix
from sensor.jit import i64, inner, kernel, spliced
from sensor.native import prefetch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: Rows of the flow table that are searched for a flow, and for a place for a new one.
MAX_PROBES = 16
#: A packet's flow is asked for this many packets ahead: long enough for main memory, short enough to stay in the cache.
PACKETS_AHEAD = 8
#: The table is swept for idle flows a slice at a time, one slice per second of packet time.
SWEEP_SLICES = 8
_SECOND_NS = 1_000_000_000
#: A reported flow's row stays this long, so that its last segments do not look like a new flow.
LINGER_NS = 15 * _SECOND_NS
#: Client bytes under TLS, after the ClientHello, from which on a message is inferred (Schatzmann 2009: outcome
#: from flow sizes). Key exchange, EHLO, three attempts to log in and QUIT make up to 450; those, MAIL, RCPT, DATA
#: and the few lines of a device's notice make 650 and more.
TLS_MESSAGE_BYTES = 600
#: A leap of packet time worth counting: the mirror was off, or the capture was stopped.
PAUSE_NS = 3600 * _SECOND_NS
#: How far ahead of the expected byte a segment may lie and still be held: more is a lost part of the capture.
MAX_AHEAD_BYTES = 1 << 20

_RESYNC = int(ClientMode.RESYNC)
#: No sequence number.
NEVER = -1
# What becomes of a segment (place_segment).
WAIT, READ, SKIP = range(3)

_FREE, _ATTEMPT, _OPEN, _CLOSED = (int(state) for state in FlowState)
_MAIL, _DNS, _LAN = int(FrameStatus.MAIL), int(FrameStatus.DNS), int(FrameStatus.LAN)
_PEER = int(FrameStatus.PEER)
_PORT_MAIL, _PORT_DNS = int(PortClass.MAIL), int(PortClass.DNS)
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP = 6
_KIND_OPEN, _KIND_CLOSE = int(EventKind.CONN_OPEN), int(EventKind.CONN_CLOSE)
_FLAG_NO_RESP, _FLAG_NO_ORIG = int(EventFlag.NO_RESP), int(EventFlag.NO_ORIG)
_FLAG_MIDSTREAM, _FLAG_INFERRED = int(EventFlag.MIDSTREAM), int(EventFlag.INFERRED)
_FLAG_TLS, _FLAG_TCP, _FLAG_GAP = int(EventFlag.TLS), int(EventFlag.TCP), int(EventFlag.GAP)
_FLAG_IDLE = int(EventFlag.TLS_IDLE)
_FATE_UNANSWERED, _FATE_REFUSED, _FATE_NO_BANNER = (
    int(Fate.UNANSWERED),
    int(Fate.REFUSED),
    int(Fate.NO_BANNER),
)
_FATE_BANNER_ONLY, _FATE_NO_MESSAGE, _FATE_REJECTED = (
    int(Fate.BANNER_ONLY),
    int(Fate.NO_MESSAGE),
    int(Fate.REJECTED),
)
_FATE_ACCEPTED, _FATE_TLS, _FATE_UNKNOWN = int(Fate.ACCEPTED), int(Fate.TLS), int(Fate.UNKNOWN)
_MAIL_SYNS, _SMTP_FLOWS = int(Total.MAIL_SYNS), int(Total.SMTP_FLOWS)
_EVICTED_FLOW = int(Eviction.FLOW)
_RETRANSMISSION, _OUT_OF_ORDER = int(Weird.TCP_RETRANSMISSION), int(Weird.TCP_OUT_OF_ORDER)
_GAP, _HELD_FULL = int(Weird.TCP_GAP), int(Weird.TCP_HELD_SEGMENTS_FULL)
_OVERLAP, _CUT = int(Weird.TCP_OVERLAP), int(Weird.SNAPLEN_CUT_PAYLOAD)
_MIDSTREAM, _BACKWARDS = int(Weird.FLOW_MIDSTREAM), int(Weird.TIMESTAMP_BACKWARDS)
_DUPLICATE, _ONE_SIDED, _PAUSE = (
    int(Weird.PACKET_DUPLICATE),
    int(Weird.FLOW_ONE_SIDED),
    int(Weird.CAPTURE_PAUSE),
)


@spliced
def hash_flow(packet: Any) -> int:
    """Hash a five-tuple so that both directions agree."""
    src = mix(hash_halves(packet["src_hi"], packet["src_lo"]) ^ i64(packet["src_port"]))
    dst = mix(hash_halves(packet["dst_hi"], packet["dst_lo"]) ^ i64(packet["dst_port"]))
    return mix((src + dst) & 0x7FFFFFFF)


@spliced
def match_direction(flow: Any, packet: Any) -> int:
    """Return ORIG or RESP if the packet belongs to the flow, else -1. The VLAN is no part of the identity.

    A port that is mirrored on both sides of a router shows each packet under two VLANs; as one flow, the
    second copy is a retransmission, and nothing is counted twice.
    """
    if (
        flow["orig_lo"] == packet["src_lo"]
        and flow["resp_lo"] == packet["dst_lo"]
        and flow["orig_port"] == packet["src_port"]
        and flow["resp_port"] == packet["dst_port"]
        and flow["orig_hi"] == packet["src_hi"]
        and flow["resp_hi"] == packet["dst_hi"]
    ):
        return ORIG
    if (
        flow["orig_lo"] == packet["dst_lo"]
        and flow["resp_lo"] == packet["src_lo"]
        and flow["orig_port"] == packet["dst_port"]
        and flow["resp_port"] == packet["src_port"]
        and flow["orig_hi"] == packet["dst_hi"]
        and flow["resp_hi"] == packet["src_hi"]
    ):
        return RESP
    return -1


@spliced
def find_flow(tables: EventTables, packet: Any, first: int) -> tuple[int, int]:
    """Return the flow's row and the packet's direction in it, or (-1, -1)."""
    mask = tables.flows.size - 1
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        flow = tables.flows[row]
        if flow["state"] != _FREE:
            direction = match_direction(flow, packet)
            if direction >= 0:
                return row, direction
    return -1, -1


@spliced
def prefetch_flow(tables: EventTables, packet: Any) -> None:
    """Ask for the rows that a packet's flow most likely has: the first of its neighbourhood."""
    if packet["proto"] == _TCP:
        row = hash_flow(packet) & (tables.flows.size - 1)
        prefetch(tables.flows, row)
        prefetch(tables.sides, 2 * row)
        prefetch(tables.sides, 2 * row + 1)


@spliced
def claim_row(tables: EventTables, first: int, ts_ns: int, out: EventColumns) -> int:
    """Return a free row of the neighbourhood; if there is none, reported flows go first, then the longest idle."""
    mask = tables.flows.size - 1
    best = first & mask
    best_rank = i64(-1)
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        flow = tables.flows[row]
        if flow["state"] == _FREE:
            return row
        rank = max(ts_ns - flow["last_ns"], 0)
        if flow["state"] == _CLOSED:
            rank += 1 << 60
        if rank > best_rank:
            best_rank = i64(rank)
            best = row
    if tables.flows[best]["state"] != _CLOSED:
        tables.evictions[_EVICTED_FLOW] += 1
        close_flow(tables, best, ts_ns, out)
    free_flow(tables, best)
    return best


@inner
def reset_side(side: Any) -> None:
    """Clear one direction of a new flow."""
    side["next_seq"] = -1
    side["acked"] = -1
    side["payload_bytes"] = 0
    side["packets"] = 0
    side["message_seen"] = 0
    side["line_slot"] = NO_SLOT
    side["line_len"] = 0
    side["held_head"] = -1
    side["held_count"] = 0
    side["fin"] = 0
    side["fin_seq"] = 0


@inner
def start_flow(
    tables: EventTables, row: int, packet: Any, direction: int, ts_ns: int, out: EventColumns
) -> None:
    """Fill a free row for the flow of this packet, which goes in ``direction``, and report a mail connection."""
    flow = tables.flows[row]
    state = tables.state[0]
    flow["flow_id"] = state["next_flow_id"]
    state["next_flow_id"] = state["next_flow_id"] + 1
    if direction == ORIG:
        flow["orig_hi"], flow["orig_lo"], flow["orig_port"] = (
            packet["src_hi"],
            packet["src_lo"],
            packet["src_port"],
        )
        flow["resp_hi"], flow["resp_lo"], flow["resp_port"] = (
            packet["dst_hi"],
            packet["dst_lo"],
            packet["dst_port"],
        )
        flow["orig_mac"], flow["resp_mac"] = packet["src_mac"], packet["dst_mac"]
    else:
        flow["orig_hi"], flow["orig_lo"], flow["orig_port"] = (
            packet["dst_hi"],
            packet["dst_lo"],
            packet["dst_port"],
        )
        flow["resp_hi"], flow["resp_lo"], flow["resp_port"] = (
            packet["src_hi"],
            packet["src_lo"],
            packet["src_port"],
        )
        flow["orig_mac"], flow["resp_mac"] = packet["dst_mac"], packet["src_mac"]
    flow["first_ns"] = ts_ns
    flow["last_ns"] = ts_ns
    flow["syn_seq"] = -1
    flow["bdat_left"] = 0
    flow["message_bytes"] = 0
    flow["message_size"] = 0
    flow["tls_orig_bytes"] = 0
    flow["tls_resp_bytes"] = 0
    flow["tls_left"] = 0
    flow["tls_handshakes"] = 0
    flow["tls_records"] = 0
    flow["tls_asks"] = 0
    flow["vlan"] = packet["vlan"]
    flow["session"] = packet["session"]
    flow["state"] = _ATTEMPT
    flow["service"] = packet["status"]
    flow["flags"] = 0
    flow["syns"] = 0
    flow["syn_ack"] = 0
    flow["refused"] = 0
    flow["client_mode"] = 0
    flow["server_mode"] = 0
    flow["eod_state"] = 0
    flow["cut_verb"] = 0
    flow["pending_head"] = 0
    flow["pending_count"] = 0
    flow["reply_flags"] = 0
    flow["reply_enhanced"] = 0
    flow["reply_lines"] = 0
    flow["reply_code"] = 0
    flow["has_cut_commands"] = 0
    flow["commands"] = 0
    flow["replies"] = 0
    flow["transactions"] = 0
    flow["rcpt_commands"] = 0
    flow["rcpt_accepted"] = 0
    flow["messages"] = 0
    flow["messages_accepted"] = 0
    flow["message_open"] = 0
    flow["dialect"] = 0
    reset_side(tables.sides[2 * row + ORIG])
    reset_side(tables.sides[2 * row + RESP])
    if packet["tcp_flags"] & _SYN == 0:
        flow["flags"] = _FLAG_MIDSTREAM
        flow["client_mode"] = _RESYNC  # this may be the middle of a message
        flow["state"] = _OPEN
        tables.weirds[_MIDSTREAM] += 1
    if flow["service"] == _MAIL:
        tables.totals[_SMTP_FLOWS] += 1
        event = append_event(out, tables.weirds, ts_ns, _KIND_OPEN)
        fill_flow_columns(event, flow)
        event["aux_lo"] = packet["fingerprint"]


@spliced
def judge_fate(tables: EventTables, row: int) -> int:
    """Return the Fate of a mail connection that ends now."""
    flow = tables.flows[row]
    orig, resp = tables.sides[2 * row + ORIG], tables.sides[2 * row + RESP]
    if flow["refused"] != 0:
        return _FATE_REFUSED
    # Whoever sends more than SYNs had an answer, seen or not.
    if resp["packets"] == 0 and 0 < flow["syns"] == orig["packets"]:
        return _FATE_UNANSWERED
    if flow["messages_accepted"] > 0:
        return _FATE_ACCEPTED
    if flow["flags"] & _FLAG_TLS != 0:
        return _FATE_TLS
    if resp["packets"] == 0 or flow["flags"] & _FLAG_MIDSTREAM != 0:
        return _FATE_UNKNOWN
    if flow["transactions"] > 0:
        return _FATE_REJECTED
    if flow["commands"] > 0:
        return _FATE_NO_MESSAGE
    if resp["payload_bytes"] > 0:
        return _FATE_BANNER_ONLY
    return _FATE_NO_BANNER


@inner
def close_flow(tables: EventTables, row: int, ts_ns: int, out: EventColumns) -> None:
    """Report the end of a flow, once, and let its row linger."""
    flow = tables.flows[row]
    if flow["state"] == _CLOSED:
        return
    drop_held(tables, tables.sides[2 * row + ORIG])
    drop_held(tables, tables.sides[2 * row + RESP])
    flow["state"] = _CLOSED
    if flow["service"] != _MAIL:
        return
    if flow["message_open"] == 0 and flow["message_bytes"] > 0:
        end_content(flow)
    if flow["message_open"] != 0:
        end_message(tables, row, ts_ns, 0, out)
    orig, resp = tables.sides[2 * row + ORIG], tables.sides[2 * row + RESP]
    event = append_event(out, tables.weirds, ts_ns, _KIND_CLOSE)
    fill_flow_columns(event, flow)
    fate = judge_fate(tables, row)
    event["code"] = fate
    event["count"] = flow["messages_accepted"]
    if flow["transactions"] > 0:
        event["aux_lo"] = flow["dialect"]
    if fate == _FATE_TLS:
        event["flags"] = event["flags"] | _FLAG_INFERRED
        if flow["tls_orig_bytes"] >= TLS_MESSAGE_BYTES:
            event["count"] = 1
        elif (
            event["flags"] & (_FLAG_GAP | _FLAG_MIDSTREAM) == 0
            and misses_nothing(orig)
            and has_only_greeted(flow)
        ):
            event["flags"] = event["flags"] | _FLAG_IDLE
    if resp["packets"] == 0:
        event["flags"] = event["flags"] | _FLAG_NO_RESP
    if orig["packets"] == 0:
        event["flags"] = event["flags"] | _FLAG_NO_ORIG
    if event["flags"] & (_FLAG_NO_RESP | _FLAG_NO_ORIG) != 0 and fate != _FATE_UNANSWERED:
        tables.weirds[_ONE_SIDED] += 1
    if event["flags"] & (_FLAG_NO_RESP | _FLAG_NO_ORIG | _FLAG_GAP) != 0:
        event["enhanced"] = max(flow["transactions"] - flow["messages"], 0)
    event["orig_bytes"] = orig["payload_bytes"]
    event["resp_bytes"] = resp["payload_bytes"]
    event["duration_ns"] = max(flow["last_ns"] - flow["first_ns"], 0)
    event["syns"] = flow["syns"]


@inner
def misses_nothing(side: Any) -> bool:
    """Tell whether all that a side has sent was read: nothing lies between that and its FIN, or was acknowledged."""
    read = side["next_seq"]
    if read < 0:
        return False
    has_end = side["fin"] == 0 or seq_diff(read, side["fin_seq"]) >= 0
    # A FIN counts as a byte (RFC 9293 section 3.4).
    return bool(has_end and (side["acked"] < 0 or seq_diff(side["acked"], read) <= 1))


@inner
def free_flow(tables: EventTables, row: int) -> None:
    """Give back all that a row holds."""
    for direction in range(2):
        side = tables.sides[2 * row + direction]
        drop_held(tables, side)
        release_line(tables, side)
    tables.flows[row]["state"] = _FREE
    tables.deadline_ns[row] = NO_DEADLINE


@inner
def drop_held(tables: EventTables, side: Any) -> None:
    """Give back the early segments of one side."""
    state = tables.state[0]
    for _ in range(MAX_HELD_PER_SIDE):
        held = i64(side["held_head"])
        if held < 0:
            break
        side["held_head"] = tables.held[held]["next"]
        tables.held_stack[state["held_free"]] = held
        state["held_free"] = state["held_free"] + 1
    side["held_count"] = 0


@inner
def hold_segment(tables: EventTables, side: Any, data: Bytes, start: int, end: int, seq: int) -> bool:
    """Keep an early segment until the bytes before it arrive; False if there is no room for it.

    The list is in the order of sequence numbers. A segment that begins where a held one does is a repetition.
    """
    state = tables.state[0]
    free = i64(state["held_free"])
    if free == 0 or side["held_count"] >= MAX_HELD_PER_SIDE or end - start > MAX_HELD_BYTES:
        tables.weirds[_HELD_FULL] += 1
        return False
    before = i64(-1)
    after = i64(side["held_head"])
    for _ in range(MAX_HELD_PER_SIDE):
        if after < 0 or seq_diff(tables.held[after]["seq"], seq) >= 0:
            break
        before = after
        after = i64(tables.held[after]["next"])
    if after >= 0 and tables.held[after]["seq"] == seq and tables.held[after]["length"] >= end - start:
        tables.weirds[_RETRANSMISSION] += 1
        return True
    tables.weirds[_OUT_OF_ORDER] += 1
    state["held_free"] = free - 1
    held = i64(tables.held_stack[free - 1])
    row = tables.held[held]
    row["seq"] = seq
    row["length"] = end - start
    row["next"] = after
    copy_bytes(data, start, end, tables.held_bytes, held * MAX_HELD_BYTES, (held + 1) * MAX_HELD_BYTES)
    if before < 0:
        side["held_head"] = held
    else:
        tables.held[before]["next"] = held
    side["held_count"] = side["held_count"] + 1
    return True


@spliced
def read_dns_stream(
    tables: EventTables,
    row: int,
    direction: int,
    ts_ns: int,
    data: Bytes,
    pos: int,
    end: int,
    out: EventColumns,
) -> None:
    """Take DNS messages, each behind its length in two octets (RFC 1035 section 4.2.2).

    A message that is spread over segments is gathered in a line buffer; one that is larger is decoded as far
    as it fits.
    """
    side = tables.sides[2 * row + direction]
    flow = tables.flows[row]
    while pos < end:
        if side["line_slot"] == SKIP_LINE:
            return  # bytes were lost: there is no way to find the next message's beginning
        if side["message_seen"] == 0:
            length = read_u16(data, pos, end)
            if length >= 0 and end - pos - 2 >= length:
                emit_dns(tables, flow, ts_ns, data, pos + 2, pos + 2 + length, out)
                pos += 2 + length
                continue
        # The length itself may be broken between segments.
        if side["message_seen"] == 0 or side["line_slot"] == NO_SLOT:
            keep_line(tables, side, data, pos, pos + 1)
            side["message_seen"] = 1
            pos += 1
            continue
        base = i64(side["line_slot"]) * MAX_LINE_BYTES
        seen = i64(side["message_seen"])
        if seen == 1:
            keep_line(tables, side, data, pos, pos + 1)
            side["message_seen"] = 2
            pos += 1
            seen = i64(2)
        total = 2 + read_u16(tables.lines, base, base + 2)
        part = min(total - seen, end - pos)
        if i64(side["line_len"]) < MAX_LINE_BYTES:
            keep_line(tables, side, data, pos, pos + part)
        side["message_seen"] = seen + part
        pos += part
        if seen + part >= total:
            emit_dns(tables, flow, ts_ns, tables.lines, base + 2, base + i64(side["line_len"]), out)
            release_line(tables, side)
            side["message_seen"] = 0


@inner
def lose_stream(
    tables: EventTables, row: int, direction: int, seq: int, data: Bytes, pos: int, end: int
) -> None:
    """Give up on the bytes before ``seq``, where ``data[pos:end]`` continues."""
    tables.weirds[_GAP] += 1
    side = tables.sides[2 * row + direction]
    n_lost = seq_diff(seq, side["next_seq"])
    side["next_seq"] = seq
    if tables.flows[row]["service"] == _DNS:
        release_line(tables, side)
        side["line_slot"] = SKIP_LINE
    else:
        if direction == ORIG and n_lost <= MAX_AHEAD_BYTES:  # a greater leap may be a stray segment's
            count_unread(tables, row, n_lost)
        lose_bytes(tables, row, direction, n_lost, data, pos, end)


@spliced
def place_segment(tables: EventTables, row: int, direction: int, packet: Any, data: Bytes) -> int:
    """Find a segment's place in the stream (RFC 9293 section 3.4).

    Returns WAIT if it has nothing to read now (no bytes, all known, or held back), READ if its bytes are
    next, maybe after some that are known already, SKIP if bytes before it are missing for good.
    """
    side = tables.sides[2 * row + direction]
    seq = first_byte_seq(packet)
    if side["next_seq"] < 0:
        side["next_seq"] = seq
    length = i64(packet["payload_len"])
    if length <= 0:
        return WAIT
    ahead = seq_diff(seq, side["next_seq"])
    if ahead > 0:
        # What the receiver has acknowledged was on the wire: if it is not here by now, the capture missed it.
        missed = side["acked"] >= 0 and seq_diff(side["acked"], seq) >= 0
        start, end = i64(packet["payload_start"]), i64(packet["payload_end"])
        is_cut = end - start < length
        if (
            missed
            or is_cut
            or ahead > MAX_AHEAD_BYTES
            or not hold_segment(tables, side, data, start, end, seq)
        ):
            return SKIP
        return WAIT
    if -ahead >= length:
        tables.weirds[_RETRANSMISSION] += 1
        return WAIT
    if ahead < 0:
        tables.weirds[_OVERLAP] += 1
    return READ


@inner
def first_byte_seq(packet: Any) -> int:
    """Return the sequence number of a segment's first byte of payload: a SYN takes one itself."""
    seq = i64(packet["seq"])
    return (seq + 1) & 0xFFFFFFFF if packet["tcp_flags"] & _SYN != 0 else seq


@inner
def take_held(tables: EventTables, row: int, direction: int, give_up_before: int) -> tuple[int, int]:
    """Take the first early segment off the list if its turn has come: its place in ``held_bytes``, or (-1, -1).

    Bytes that are missing before ``give_up_before`` (a sequence number, or NEVER) are waited for no longer.
    The place is empty for a segment that has been overtaken. Its row is given back at once: nothing is held
    before it is read.
    """
    side = tables.sides[2 * row + direction]
    held = i64(side["held_head"])
    if held < 0:
        return -1, -1
    segment = tables.held[held]
    seq = i64(segment["seq"])
    start = held * MAX_HELD_BYTES
    end = start + i64(segment["length"])
    ahead = seq_diff(seq, side["next_seq"])
    if ahead > 0:
        if give_up_before == NEVER or seq_diff(seq, give_up_before) >= 0:
            return -1, -1
        lose_stream(tables, row, direction, seq, tables.held_bytes, start, end)
        ahead = i64(0)
    state = tables.state[0]
    side["held_head"] = segment["next"]
    side["held_count"] = side["held_count"] - 1
    tables.held_stack[state["held_free"]] = held
    state["held_free"] = state["held_free"] + 1
    return min(start - ahead, end), end


@spliced
def read_ready(
    tables: EventTables,
    row: int,
    direction: int,
    ts_ns: int,
    data: Bytes,
    packet: Any,
    has_segment: bool,
    give_up_before: int,
    out: EventColumns,
) -> None:
    """Read, in order, what is ready of one side: early segments whose turn has come, and the packet's own segment.

    ``has_segment``: the packet's bytes belong to this side and are to be read; what is missing before them is
    given up. ``give_up_before``: see take_held.
    """
    side = tables.sides[2 * row + direction]
    flow = tables.flows[row]
    for _ in range(MAX_HELD_PER_SIDE + 2):
        limit = first_byte_seq(packet) if has_segment else give_up_before
        start, end = i64(-1), i64(-1)
        if side["held_head"] >= 0:
            start, end = take_held(tables, row, direction, limit)
        buffer = tables.held_bytes
        length = end - start
        is_cut = False
        if start < 0:
            if not has_segment:
                break
            has_segment = False
            seq = first_byte_seq(packet)
            start, end = i64(packet["payload_start"]), i64(packet["payload_end"])
            buffer = data
            length = i64(packet["payload_len"])
            is_cut = end - start < length
            if seq_diff(seq, side["next_seq"]) > 0:
                lose_stream(tables, row, direction, seq, data, start, end)
            known = -seq_diff(seq, side["next_seq"])
            start += known
            length -= known
            if is_cut and length > 0:
                tables.weirds[_CUT] += 1
        if length <= 0:
            continue
        side["next_seq"] = (side["next_seq"] + length) & 0xFFFFFFFF
        side["payload_bytes"] = side["payload_bytes"] + length
        n_unseen = length - max(end - start, 0)
        if start >= end:
            pass
        elif flow["service"] == _DNS:
            read_dns_stream(tables, row, direction, ts_ns, buffer, start, end, out)
        elif direction == ORIG:
            read_client(tables, row, ts_ns, buffer, start, end, is_cut, out)
        else:
            read_server(tables, row, ts_ns, buffer, start, end, is_cut, out)
        if n_unseen > 0:
            release_line(tables, side)  # its end may be in what was not captured
            flow["flags"] = flow["flags"] | _FLAG_GAP
            if flow["service"] == _DNS:
                side["line_slot"] = SKIP_LINE
            elif direction == ORIG:
                lose_rest(tables, row, n_unseen, start < end)
            else:
                lose_replies(flow)


@spliced
def take_ack(tables: EventTables, row: int, direction: int, packet: Any) -> bool:
    """Note what this packet acknowledges; True if it acknowledges early segments of the other side.

    The receiver then has the bytes before them, too: the capture missed those.
    """
    if packet["tcp_flags"] & _ACK == 0:
        return False
    other = tables.sides[2 * row + 1 - direction]
    ack = i64(packet["ack"])
    if other["acked"] < 0 or seq_diff(ack, other["acked"]) > 0:
        other["acked"] = ack
    held = i64(other["held_head"])
    return bool(held >= 0 and seq_diff(ack, tables.held[held]["seq"]) > 0)


@inner
def end_flow(tables: EventTables, row: int, ts_ns: int, out: EventColumns) -> None:
    """Read what is held of a flow, for what is missing will not come any more, and report its end."""
    for direction in range(2):
        side = tables.sides[2 * row + direction]
        if side["held_head"] >= 0:
            beyond = (side["next_seq"] + 0x7FFFFFFF) & 0xFFFFFFFF
            read_ready(
                tables, row, direction, ts_ns, tables.held_bytes, tables.no_packet[0], False, beyond, out
            )
    close_flow(tables, row, ts_ns, out)


@spliced
def set_deadline(tables: EventTables, row: int, ts_ns: int) -> None:
    """Say until when a flow may be silent."""
    state = tables.state[0]
    flow_state = tables.flows[row]["state"]
    if flow_state == _CLOSED:
        tables.deadline_ns[row] = ts_ns + LINGER_NS
    elif flow_state == _ATTEMPT:
        tables.deadline_ns[row] = ts_ns + state["attempt_ns"]
    else:
        tables.deadline_ns[row] = ts_ns + state["idle_ns"]


@spliced
def admit_segment(
    tables: EventTables,
    packet: Any,
    ts_ns: int,
    port_class: Bytes,
    out: EventColumns,
) -> tuple[int, int]:
    """Find or open the flow of a TCP segment; returns its row and the segment's direction, or (-1, -1)."""
    flags = i64(packet["tcp_flags"])
    is_syn = flags & _SYN != 0 and flags & _ACK == 0
    if is_syn and port_class[packet["dst_port"]] == _PORT_MAIL:
        tables.totals[_MAIL_SYNS] += 1
    first = hash_flow(packet)
    row, direction = find_flow(tables, packet, first)
    if row >= 0 and is_syn:
        flow = tables.flows[row]
        is_other_isn = flow["syn_seq"] >= 0 and flow["syn_seq"] != packet["seq"]
        if flow["state"] == _CLOSED or direction == RESP or is_other_isn:
            close_flow(tables, row, ts_ns, out)
            free_flow(tables, row)
            start_flow(tables, row, packet, ORIG, ts_ns, out)
            direction = ORIG
    if row < 0:
        if flags & _SYN == 0 and (packet["payload_len"] == 0 or flags & _RST != 0):
            return -1, -1  # the tail of a flow that is over, or was never seen: nothing to learn
        to_service = port_class[packet["dst_port"]] in (_PORT_MAIL, _PORT_DNS)
        is_syn_ack = flags & _SYN != 0 and not is_syn
        direction = ORIG if is_syn or (to_service and not is_syn_ack) else RESP
        row = claim_row(tables, first, ts_ns, out)
        start_flow(tables, row, packet, direction, ts_ns, out)
    note_flags(tables, row, direction, packet, ts_ns)
    return row, direction


@spliced
def note_flags(tables: EventTables, row: int, direction: int, packet: Any, ts_ns: int) -> None:
    """Note what a segment's flags say about the connection."""
    flow = tables.flows[row]
    side = tables.sides[2 * row + direction]
    flags = i64(packet["tcp_flags"])
    flow["last_ns"] = max(flow["last_ns"], ts_ns)
    side["packets"] = side["packets"] + 1
    if direction == ORIG and flags & _SYN != 0:
        flow["syns"] = flow["syns"] + 1
        flow["syn_seq"] = packet["seq"]
    elif direction == RESP:
        if flags & _SYN != 0:
            flow["syn_ack"] = 1
        elif flags & _RST != 0 and flow["state"] == _ATTEMPT and flow["syn_ack"] == 0:
            flow["refused"] = 1
    if flow["state"] == _ATTEMPT and (flags & _SYN == 0 or direction == RESP):
        flow["state"] = _OPEN
    if flags & _FIN != 0:
        side["fin"] = 1
        side["fin_seq"] = (first_byte_seq(packet) + i64(packet["payload_len"])) & 0xFFFFFFFF


@spliced
def has_ended(tables: EventTables, row: int, packet: Any) -> bool:
    """Tell whether a flow is over: reset, or closed from both sides with nothing missing."""
    if packet["tcp_flags"] & _RST != 0:
        return True
    return is_finished(tables.sides[2 * row + ORIG]) and is_finished(tables.sides[2 * row + RESP])


@inner
def is_finished(side: Any) -> bool:
    """Tell whether a side has sent its FIN and all before it is read, or is acknowledged and so was missed."""
    if side["fin"] == 0 or side["held_head"] >= 0:
        return False
    is_read = side["next_seq"] < 0 or seq_diff(side["next_seq"], side["fin_seq"]) >= 0
    return bool(is_read or (side["acked"] >= 0 and seq_diff(side["acked"], side["fin_seq"]) > 0))


@spliced
def advance_clock(tables: EventTables, ts_ns: int) -> None:
    """Move packet time forward and note how many rows of the flow table are due to be swept.

    One slice of the table per second of packet time; after a longer silence, one round of the table is
    enough.
    """
    state = tables.state[0]
    n = tables.flows.size
    if ts_ns > state["now_ns"]:
        if state["now_ns"] >= 0:
            if ts_ns - state["now_ns"] > PAUSE_NS:
                tables.weirds[_PAUSE] += 1
            seconds = min(ts_ns // _SECOND_NS - state["now_ns"] // _SECOND_NS, SWEEP_SLICES)
            state["sweep_left"] = min(state["sweep_left"] + seconds * (n // SWEEP_SLICES), n)
        state["now_ns"] = ts_ns


@spliced
def sweep_flows(tables: EventTables, out: EventColumns) -> bool:
    """Close flows that have been silent too long, free rows that have lingered; False if the columns are full."""
    state = tables.state[0]
    while state["sweep_left"] > 0:
        row = i64(state["sweep_row"])
        if tables.deadline_ns[row] < state["now_ns"]:
            if not begin_frame(out):
                return False
            if tables.flows[row]["state"] == _CLOSED:
                free_flow(tables, row)
            else:
                end_flow(tables, row, state["now_ns"], out)
                if state["is_over"] != 0:
                    free_flow(tables, row)
                else:
                    set_deadline(tables, row, state["now_ns"])
        state["sweep_row"] = (row + 1) & (tables.flows.size - 1)
        state["sweep_left"] = state["sweep_left"] - 1
    return True


@kernel
def track_packets(
    data: Bytes,
    packets: NDArray[Any],
    first: int,
    n_packets: int,
    port_class: Bytes,
    tables: EventTables,
    out: EventColumns,
) -> int:
    """Turn ``packets[first:n_packets]`` into events.

    ``data``: u8, the batch's bytes; ``packets``: PACKET_DTYPE, in capture order; ``port_class``: u8[65536],
    PortClass; ``tables``: in/out; ``out``: in/out, appended to. Returns the packet to resume at:
    ``n_packets`` when all are done, less when the columns are full and must be drained. What is emitted does
    not depend on where it stopped.

    To end a run, call ``end_run`` and then this with no packets (``first == n_packets``) until
    ``has_open_flows`` says no.
    """
    if first == n_packets:
        if begin_frame(out):
            report_slot(tables, tables.state[0]["now_ns"], out)
        sweep_flows(tables, out)
        return n_packets
    for i in range(first, n_packets):
        if i + PACKETS_AHEAD < n_packets:
            prefetch_flow(tables, packets[i + PACKETS_AHEAD])
        packet = packets[i]
        advance_clock(tables, packet["ts_ns"])
        if not sweep_flows(tables, out) or not begin_frame(out):
            return i
        ts_ns = i64(tables.state[0]["now_ns"])
        if packet["ts_ns"] < ts_ns:
            tables.weirds[_BACKWARDS] += 1
        begin_slot(tables, ts_ns, out)
        if packet["status"] != _LAN and is_duplicate(
            tables.duplicate_hashes, tables.duplicate_ns, packet, data, ts_ns
        ):
            tables.weirds[_DUPLICATE] += 1
            continue
        if packet["status"] == _PEER:
            note_peer(tables, packet, ts_ns, out)
            continue
        if packet["status"] == _LAN:
            emit_lan(tables, packet, ts_ns, data, out)
            continue
        if packet["proto"] != _TCP:
            emit_datagram(tables, packet, ts_ns, data, out)
            continue
        if packet["status"] == _MAIL:
            note_mail_bytes(tables, packet, port_class, ts_ns, out)
        row, direction = admit_segment(tables, packet, ts_ns, port_class, out)
        if row < 0:
            continue
        if tables.flows[row]["state"] == _CLOSED:
            continue  # the tail of a flow that has been reported
        has_missed = take_ack(tables, row, direction, packet)
        has_segment = place_segment(tables, row, direction, packet, data) != WAIT
        for turn in range(2):
            # What the packet acknowledges on the other side first, then what it brings.
            is_own = turn == 1
            if has_segment if is_own else has_missed:
                side = direction if is_own else 1 - direction
                limit = NEVER if is_own else i64(packet["ack"])
                read_ready(tables, row, side, ts_ns, data, packet, is_own, limit, out)
        if has_ended(tables, row, packet):
            end_flow(tables, row, ts_ns, out)
        set_deadline(tables, row, ts_ns)
    return n_packets


@kernel
def pass_time(now_ns: int, tables: EventTables, out: EventColumns) -> bool:
    """Let packet time go on to ``now_ns`` without a packet: what is due by then is closed and reported.

    ``tables``: in/out; ``out``: in/out, appended to. False: the columns are full and must be drained, then again.
    """
    advance_clock(tables, now_ns)
    if not sweep_flows(tables, out) or not begin_frame(out):
        return False
    begin_slot(tables, tables.state[0]["now_ns"], out)
    return True


def end_run(tables: EventTables) -> None:
    """Make every flow due, so that the next sweeps report them all."""
    tables.deadline_ns[
        tables.flows["state"] != _FREE
    ] = -2  # before any packet time, and before "no packet yet"
    tables.state["is_over"] = 1
    tables.state["sweep_row"] = 0
    tables.state["sweep_left"] = tables.flows.size


def has_open_flows(tables: EventTables) -> bool:
    """Tell whether sweeps are due."""
    return bool(tables.state["sweep_left"][0] > 0)
