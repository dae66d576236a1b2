"""From events to what each device did: the one kernel that writes the device table.

It stops where a verdict is due: at a tick of packet time (TICK_NS) if a device has news, and as soon as a
device has so much new evidence that waiting for the tick would be too late. Where it stops depends on the
events alone, not on how they were batched.
"""

from __future__ import annotations

import math
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from sensor.decode.dns import TYPE_A, TYPE_AAAA, TYPE_MX
from sensor.decode.smtp import (
    VERB_BDAT,
    VERB_DATA,
    VERB_EHLO,
    VERB_HELO,
    VERB_LHLO,
    VERB_MAIL,
    VERB_NONE,
    VERB_RCPT,
)
from sensor.decode.status import FrameStatus
from sensor.decode.watch import WATCH_NS
from sensor.decode.wire import copy_bytes
from sensor.devices.acquaintance import meet_server
from sensor.devices.clients import recognise
from sensor.devices.exceptions import is_excepted
from sensor.devices.hints import note_hint
from sensor.devices.identity import (
    find_home_device,
    is_global,
    is_home,
    is_in_networks,
    is_unicast,
    note_claim,
)
from sensor.devices.operators import is_local_name, operator_of_address
from sensor.devices.relay import on_mail_transfer, on_peer_transfer
from sensor.devices.resolution import find_answer, remember_answer
from sensor.devices.routers import is_router, note_outside_sender, note_router
from sensor.devices.table import (
    DAY_NS,
    HLL_REGISTERS,
    MAX_COUNT,
    MAX_NAME_BYTES,
    N_COUNTS,
    N_DESTINATIONS,
    N_DIALECTS,
    N_FINGERPRINTS,
    N_FLOW_EXAMPLES,
    N_HELO,
    N_OPERATORS,
    N_PAUSES,
    N_RECENT,
    N_RETRIES,
    N_SIZES,
    NEVER_NS,
    RECENT_SLOT_NS,
    RECENT_SLOTS,
    SECOND_NS,
    SERVER_SERIAL,
    SITE_SERIAL,
    SLOT_NS,
    SLOTS,
    Count,
    DeviceTables,
    Recent,
)
from sensor.events.types import EventFlag, EventKind, Fate
from sensor.hashing import hash_halves, hash_text
from sensor.jit import i64, inlined, inner, kernel, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TICK_NS = 5 * SECOND_NS
#: A burst of connections fades with this time constant: it tells a flood from a busy hour.
BURST_S = 15.0
#: New evidence that makes a verdict due at once: this much, and this share of all before. So a flood is
#: judged within a few connections, and a device that goes on and on not for each of them.
EVIDENCE_STEP = 4
EVIDENCE_STEP_SHARE = 0.1
#: An event that changes nothing about a verdict.
NO_NEWS = -1
#: What ``clock["is_due"]`` says is due: nothing, verdicts, or what the caller wanted to be woken for.
DUE_NOTHING, DUE_VERDICTS, DUE_WAKE = range(3)
#: In a burst of this many connections, fading over BURST_S, new evidence does not wait for the tick.
URGENT_BURST = 3.0
#: A greylisting server is tried again within the hour by any real mail server (Postfix: after five minutes).
RETRY_NS = 3600 * SECOND_NS
#: Of a device whose DNS passes the mirror in both directions, at least so many queries are seen to be answered.
ANSWERED_SHARE = 0.8
#: How long a server is believed to go under the name that it greeted with.
SERVER_NAME_S = 3600
#: A proxy connects as soon as it is told to.
CALL_NS = 2 * SECOND_NS
_HOUR_NS = 3600 * SECOND_NS
_MS_NS = 1_000_000
_MAX_INT32 = (1 << 31) - 1
#: Whole days with mail that make a past to compare with.
USUAL_DAYS = 3
#: Weight of a finished day in what is usual.
USUAL_WEIGHT = 0.2


class HeloKind(IntFlag):
    """Forms of the name in HELO and EHLO that were seen (RFC 5321 section 4.1.4 wants a domain name or a literal)."""

    DOMAIN = 1
    LITERAL = 2
    BARE = 4  # no dot: "localhost", a PC's name, a random word


_HELO_DOMAIN, _HELO_LITERAL, _HELO_BARE = int(HeloKind.DOMAIN), int(HeloKind.LITERAL), int(HeloKind.BARE)
_OPEN, _CLOSE = int(EventKind.CONN_OPEN), int(EventKind.CONN_CLOSE)
_COMMAND, _REPLY, _MESSAGE = (
    int(EventKind.SMTP_COMMAND),
    int(EventKind.SMTP_REPLY),
    int(EventKind.SMTP_MESSAGE),
)
_QUERY, _ANSWER, _RESPONSE = int(EventKind.DNS_QUERY), int(EventKind.DNS_ANSWER), int(EventKind.DNS_RESPONSE)
_ARP, _DHCP, _DHCPV6 = int(EventKind.ARP), int(EventKind.DHCP), int(EventKind.DHCPV6)
_ND, _FACT, _TLS_HELLO = int(EventKind.ND), int(EventKind.FACT), int(EventKind.TLS_HELLO)
_TRANSFER, _PEER_CALL = int(EventKind.TRANSFER), int(EventKind.PEER_CALL)
_OF_MAIL = int(FrameStatus.MAIL)
_OTHER_SYNS, _MAIL_SYNS = range(2)
_FLAG_TLS, _FLAG_GAP, _FLAG_MIDSTREAM = int(EventFlag.TLS), int(EventFlag.GAP), int(EventFlag.MIDSTREAM)
_ADDRESS_VALID = 2_001_005
_FLAG_NO_RESP, _FLAG_NO_ORIG = int(EventFlag.NO_RESP), int(EventFlag.NO_ORIG)
_NOT_WHOLE = _FLAG_NO_RESP | _FLAG_NO_ORIG | _FLAG_GAP | _FLAG_MIDSTREAM
_FLAG_BLOCKLISTED, _FLAG_DNSBL = int(EventFlag.BLOCKLISTED), int(EventFlag.DNSBL)
_FLAG_IDLE = int(EventFlag.TLS_IDLE)
_FATE_UNANSWERED, _FATE_REFUSED, _FATE_TLS = int(Fate.UNANSWERED), int(Fate.REFUSED), int(Fate.TLS)
_FATE_NO_BANNER, _FATE_BANNER_ONLY, _FATE_NO_MESSAGE = (
    int(Fate.NO_BANNER),
    int(Fate.BANNER_ONLY),
    int(Fate.NO_MESSAGE),
)
_SMTP25, _SUBMISSION, _LOCAL = int(Count.SMTP25), int(Count.SUBMISSION), int(Count.LOCAL)
_INBOUND, _INBOUND_LOCAL = int(Count.INBOUND), int(Count.INBOUND_LOCAL)
_INBOUND_GREETED, _INBOUND_MESSAGES = int(Count.INBOUND_GREETED), int(Count.INBOUND_MESSAGES)
_CLOSED, _UNANSWERED, _REFUSED = int(Count.CLOSED), int(Count.UNANSWERED), int(Count.REFUSED)
_IDLE, _REFUSALS, _TLS, _CLEARTEXT = (
    int(Count.IDLE),
    int(Count.REFUSALS),
    int(Count.TLS),
    int(Count.CLEARTEXT),
)
_ONE_SIDED, _GAPS, _MESSAGES = int(Count.ONE_SIDED), int(Count.GAPS), int(Count.MESSAGES)
_ACCEPTED, _RECIPIENTS, _REPLIES = int(Count.ACCEPTED), int(Count.RECIPIENTS), int(Count.REPLIES)
_REJECTED_4XX, _REJECTED_5XX = int(Count.REJECTED_4XX), int(Count.REJECTED_5XX)
_BLOCKLISTED, _AUTH_OK, _AUTH_FAILED = int(Count.BLOCKLISTED), int(Count.AUTH_OK), int(Count.AUTH_FAILED)
_RESOLVABLE, _UNRESOLVED = int(Count.RESOLVABLE), int(Count.UNRESOLVED)
_DNS, _DNS_OUTSIDE, _MX, _DNSBL = int(Count.DNS), int(Count.DNS_OUTSIDE), int(Count.MX), int(Count.DNSBL)
_TLS_EMPTY, _INFERRED, _ANSWERED = int(Count.TLS_EMPTY), int(Count.INFERRED), int(Count.ANSWERED)
_DNS_ANSWERED, _UNSEEN = int(Count.DNS_ANSWERED), int(Count.UNSEEN)
_CALLABLE, _CALLED = int(Count.CALLABLE), int(Count.CALLED)
_NEW_25, _NEW_SUBMISSION = int(Count.NEW_25), int(Count.NEW_SUBMISSION)
_TIMED, _ODD_HOUR = int(Count.TIMED), int(Count.ODD_HOUR)
_R_SMTP25, _R_SUBMISSION = int(Recent.SMTP25), int(Recent.SUBMISSION)
_R_MX, _R_UNANSWERED = int(Recent.MX), int(Recent.UNANSWERED)
_VERB_AUTH = 14
_SMTP_PORT = 25


@spliced
def advance_slots(t: DeviceTables, row: int, ts_ns: int) -> None:
    """Clear the slots that have slid out of the windows, and close the days that are over."""
    device = t.devices[row]
    recent_slot = ts_ns // RECENT_SLOT_NS
    if recent_slot <= device["recent_slot"]:
        return  # the longer slots, and the days, end when a short one does
    for i in range(min(recent_slot - device["recent_slot"], RECENT_SLOTS)):
        for k in range(N_RECENT):
            t.recent[row, (recent_slot - i) % RECENT_SLOTS, k] = 0
    device["recent_slot"] = recent_slot
    slot = ts_ns // SLOT_NS
    for i in range(min(slot - device["slot"], SLOTS)):
        place = (slot - i) % SLOTS
        for k in range(N_COUNTS):
            t.counts[row, place, k] = 0
        for k in range(HLL_REGISTERS):
            t.registers[row, place, k] = 0
    device["slot"] = slot
    day = ts_ns // DAY_NS
    if day > device["active_day"]:
        close_day(device)
        device["active_days"] = (device["active_days"] << min(day - device["active_day"], 62)) & 0x3FFF
        device["active_day"] = day


@spliced
def close_day(device: Any) -> None:
    """Take a finished day with mail into what is usual; days without mail say nothing about how a device mails."""
    if device["day_connections"] == 0:
        return
    connections = float(device["day_connections"])
    if device["usual_days"] == 0:
        device["usual_day"] = connections
    else:
        device["usual_day"] = device["usual_day"] + USUAL_WEIGHT * (connections - device["usual_day"])
    if device["day_replies"] > 0:
        share = float(device["day_rejected"]) / float(device["day_replies"])
        if math.isnan(device["usual_reject"]):
            device["usual_reject"] = share
        else:
            device["usual_reject"] = device["usual_reject"] + USUAL_WEIGHT * (share - device["usual_reject"])
    device["usual_days"] = device["usual_days"] + 1
    device["usual_hours"] = device["usual_hours"] | device["day_hours"]
    device["day_hours"] = 0
    device["day_connections"] = 0
    device["day_replies"] = 0
    device["day_rejected"] = 0


@spliced
def count(t: DeviceTables, row: int, what: int, n: int) -> None:
    """Count something that a device did, in its current slot and in total."""
    t.devices[row]["has_mail"] = 1
    slot = t.devices[row]["slot"] % SLOTS
    t.counts[row, slot, what] = min(i64(t.counts[row, slot, what]) + n, MAX_COUNT)
    t.totals[row, what] += n


@spliced
def count_recent(t: DeviceTables, row: int, what: int) -> None:
    """Count something that matters within the hour."""
    t.recent[row, t.devices[row]["recent_slot"] % RECENT_SLOTS, what] += 1


@spliced
def mark_dirty(t: DeviceTables, row: int, evidence: int) -> bool:
    """Note that a device has news; True if its verdict is due at once.

    A device is judged once in five minutes, and again when it has much new evidence and is not accused already;
    news that would change nothing is left for then.
    """
    device = t.devices[row]
    clock = t.clock[0]
    device["evidence"] = device["evidence"] + evidence
    if device["in_window"] == 0:
        device["in_window"] = 1
        t.window[clock["n_window"]] = row
        clock["n_window"] = clock["n_window"] + 1
    new = device["evidence"] - device["evidence_at_step"]
    has_much = (
        device["is_accused"] == 0
        and new >= EVIDENCE_STEP
        and new >= EVIDENCE_STEP_SHARE * device["evidence_at_step"]
    )
    if device["is_dirty"] == 0 and (has_much or device["step_bucket"] != clock["now_ns"] // RECENT_SLOT_NS):
        device["is_dirty"] = 1
        t.dirty[clock["n_dirty"]] = row
        clock["n_dirty"] = clock["n_dirty"] + 1
    return bool(has_much and device["burst"] >= URGENT_BURST)


def has_new_evidence(devices: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for ``rows``, i8[n], of the device table whether they have much new evidence since judged; bool[n]."""
    at_step = devices["evidence_at_step"][rows]
    new = devices["evidence"][rows] - at_step
    is_much: NDArray[np.bool_] = (new >= EVIDENCE_STEP) & (new >= EVIDENCE_STEP_SHARE * at_step)
    return is_much


def note_judged(devices: NDArray[Any], rows: NDArray[np.int64], now_ns: int) -> None:
    """Note that ``rows``, i8[n], of the device table were judged; evidence is measured in each five minutes anew."""
    bucket = now_ns // RECENT_SLOT_NS
    devices["evidence"][rows[devices["step_bucket"][rows] != bucket]] = 0
    devices["evidence_at_step"][rows] = devices["evidence"][rows]
    devices["step_bucket"][rows] = bucket


def make_all_due(t: DeviceTables) -> None:
    """Make every device with news due, at the end of a run, however little the news are."""
    clock = t.clock[0]
    window = t.window[: clock["n_window"]]
    rows = window[t.devices["is_dirty"][window] == 0]
    rows = rows[t.devices["evidence"][rows] > t.devices["evidence_at_step"][rows]]
    t.devices["is_dirty"][rows] = 1
    t.devices["evidence_at_step"][rows] = -EVIDENCE_STEP  # so that they make a step
    t.dirty[clock["n_dirty"] : clock["n_dirty"] + len(rows)] = rows
    clock["n_dirty"] += len(rows)


@spliced
def note_destination(t: DeviceTables, row: int, event: Any, ts_ns: int) -> None:
    """Note the server of an outbound connection: one by one as long as there is room, and in the estimate."""
    hi, lo, port = event["resp_hi"], event["resp_lo"], event["resp_port"]
    hashed = hash_halves(hi, lo)
    slot = t.devices[row]["slot"] % SLOTS
    register = hashed % HLL_REGISTERS
    rest = hashed // HLL_REGISTERS
    rank = i64(1)
    while rank < 25 and rest & 1 == 0:
        rest >>= 1
        rank += 1
    t.registers[row, slot, register] = max(t.registers[row, slot, register], rank)
    oldest = 0
    for i in range(N_DESTINATIONS):
        destination = t.destinations[row, i]
        if (
            destination["last_ns"] != 0
            and destination["lo"] == lo
            and destination["hi"] == hi
            and destination["port"] == port
        ):
            destination["last_ns"] = ts_ns
            day = ts_ns // DAY_NS
            if destination["day"] != day:
                destination["count_before"] = destination["count"] if destination["day"] == day - 1 else 0
                destination["count"] = 0
                destination["day"] = day
            destination["count"] = destination["count"] + 1
            return
        if destination["last_ns"] < t.destinations[row, oldest]["last_ns"]:
            oldest = i
    destination = t.destinations[row, oldest]
    if destination["last_ns"] != 0 and ts_ns - destination["last_ns"] < DAY_NS:
        t.devices[row]["destinations_lost"] = 1
    destination["hi"] = hi
    destination["lo"] = lo
    destination["port"] = port
    destination["last_ns"] = ts_ns
    destination["day"] = ts_ns // DAY_NS
    destination["count"] = 1
    destination["count_before"] = 0


@inner
def operator_of(t: DeviceTables, serial: int, hi: int, lo: int, ts_ns: int) -> tuple[int, int]:
    """Return the operator of an address, and the row of the answer by which the device knows its name, or -1.

    Without an answer it is the name under which the server itself goes that tells, then the network.
    """
    answer = find_answer(t.answers, serial, hi, lo, ts_ns)
    if answer < 0:
        answer = find_answer(t.answers, SITE_SERIAL, hi, lo, ts_ns)
    if answer >= 0:
        return i64(t.answers[answer]["operator"]), answer
    named = find_answer(t.answers, SERVER_SERIAL, hi, lo, ts_ns)
    if named >= 0:
        return i64(t.answers[named]["operator"]), answer
    return operator_of_address(hi, lo), answer


@inner
def find_operator(operators: NDArray[Any], row: int, operator: int) -> Any:
    """Return the entry of an operator of the device in ``row``; the one that was not met for longest makes room."""
    oldest = 0
    oldest_ns = i64(NEVER_NS)
    for i in range(N_OPERATORS):
        entry = operators[row, i]
        last_ns = max(entry["last_25_ns"], entry["last_submission_ns"])
        if last_ns != 0 and entry["operator"] == operator:
            return entry
        if last_ns < oldest_ns:
            oldest = i
            oldest_ns = i64(last_ns)
    entry = operators[row, oldest]
    entry["operator"] = operator
    entry["last_25_ns"] = 0
    entry["last_submission_ns"] = 0
    entry["last_auth_failed_ns"] = 0
    return entry


@inner
def name_server(t: DeviceTables, row: int, event: Any, text: NDArray[np.uint8], ts_ns: int) -> None:
    """Take the name of a server, by its greeting or by what TLS asks it for: it tells the operator.

    What DNS said counts more; and the first name that it goes by, so that it cannot take those of others one by one.
    """
    hi, lo = event["resp_hi"], event["resp_lo"]
    start, end = event["text_start"], event["text_start"] + event["text_len"]
    if start == end or is_local_name(text, start, end):
        return
    known, _ = operator_of(t, t.devices[row]["serial"], hi, lo, ts_ns)
    if known != operator_of_address(hi, lo):
        return
    remember_answer(t, SERVER_SERIAL, hi, lo, SERVER_NAME_S, text, start, end, ts_ns)
    operator, _ = operator_of(t, t.devices[row]["serial"], hi, lo, ts_ns)
    if operator != known:
        join_operators(t.operators, row, known, operator)


@inner
def join_operators(operators: NDArray[Any], row: int, known: int, operator: int) -> None:
    """Count what a device did at one operator as done at another: they are the same."""
    for i in range(N_OPERATORS):
        entry = operators[row, i]
        if entry["operator"] == known and max(entry["last_25_ns"], entry["last_submission_ns"]) != 0:
            last_25_ns, last_submission_ns = entry["last_25_ns"], entry["last_submission_ns"]
            last_auth_failed_ns = entry["last_auth_failed_ns"]
            entry["last_25_ns"] = 0
            entry["last_submission_ns"] = 0
            other = find_operator(operators, row, operator)
            other["last_25_ns"] = max(other["last_25_ns"], last_25_ns)
            other["last_submission_ns"] = max(other["last_submission_ns"], last_submission_ns)
            other["last_auth_failed_ns"] = max(other["last_auth_failed_ns"], last_auth_failed_ns)
            return


@spliced
def note_example(t: DeviceTables, row: int, event: Any, answer: int) -> None:
    """Keep the first flow, and the latest, as examples."""
    device = t.devices[row]
    n = device["n_examples"]
    place = n if n < N_FLOW_EXAMPLES else 1 + (n - N_FLOW_EXAMPLES) % (N_FLOW_EXAMPLES - 1)
    device["n_examples"] = n + 1
    example = t.examples[row, place]
    example["flow_id"] = event["flow_id"]
    example["ts_ns"] = event["ts_ns"]
    example["orig_hi"] = event["orig_hi"]
    example["orig_lo"] = event["orig_lo"]
    example["resp_hi"] = event["resp_hi"]
    example["resp_lo"] = event["resp_lo"]
    example["orig_port"] = event["orig_port"]
    example["resp_port"] = event["resp_port"]
    example["fate"] = -1
    example["name_len"] = 0
    if answer >= 0:
        known = t.answers[answer]["name_len"]
        example["name_len"] = copy_bytes(
            t.answer_names[answer], 0, known, t.example_names[row, place], 0, MAX_NAME_BYTES
        )


@inner
def sees_lookups(t: DeviceTables, row: int) -> bool:
    """Tell whether a device's look-ups pass the mirror, and the answers whole: else a missing one means nothing."""
    answered = t.totals[row, _DNS_ANSWERED]
    return bool(answered > 0 and answered >= ANSWERED_SHARE * t.totals[row, _DNS])


@inner
def note_fingerprint(t: DeviceTables, row: int, of: int, fingerprint: int) -> None:
    """Note the TCP fingerprint of a SYN that a device sent, 0 if none was seen; the first N_FINGERPRINTS are kept."""
    if fingerprint == 0:
        return
    for i in range(N_FINGERPRINTS):
        if t.fingerprints[row, of, i] == fingerprint:
            return
        if t.fingerprints[row, of, i] == 0:
            t.fingerprints[row, of, i] = fingerprint
            return


@inner
def note_hour(t: DeviceTables, row: int, ts_ns: int) -> None:
    """Note the hour of the day at which a device mails, and whether it is one of its usual ones."""
    device = t.devices[row]
    hour = 1 << ((ts_ns % DAY_NS) // _HOUR_NS)
    if device["usual_days"] >= USUAL_DAYS:
        count(t, row, _TIMED, 1)
        if device["usual_hours"] & hour == 0:
            count(t, row, _ODD_HOUR, 1)
    device["day_hours"] = device["day_hours"] | hour


@inner
def note_size(t: DeviceTables, row: int, n_bytes: int) -> None:
    """Note the size of a message that a device sent."""
    device = t.devices[row]
    t.sizes[row, device["n_sizes"] % N_SIZES] = min(n_bytes, _MAX_INT32)
    device["n_sizes"] = device["n_sizes"] + 1


@spliced
def on_outbound(t: DeviceTables, row: int, event: Any, ts_ns: int) -> int:
    """Take a mail connection that a device opened to a server outside; return how much evidence it is."""
    device = t.devices[row]
    is_25 = event["resp_port"] == _SMTP_PORT
    count(t, row, _SMTP25 if is_25 else _SUBMISSION, 1)
    count_recent(t, row, _R_SMTP25 if is_25 else _R_SUBMISSION)
    note_hour(t, row, ts_ns)
    if meet_server(t, row, event["resp_hi"], event["resp_lo"], event["resp_port"], ts_ns):
        count(t, row, _NEW_25 if is_25 else _NEW_SUBMISSION, 1)
    if device["mail_first_ns"] >= 0:
        pause_ms = min((ts_ns - device["mail_last_ns"]) // _MS_NS, _MAX_INT32)
        t.pauses[row, device["n_pauses"] % N_PAUSES] = pause_ms
        device["n_pauses"] = device["n_pauses"] + 1
    if device["mail_first_ns"] < 0:
        device["mail_first_ns"] = ts_ns
    elif ts_ns - device["mail_last_ns"] < WATCH_NS:
        count(t, row, _CALLABLE, 1)
        if device["called_ns"] >= 0 and ts_ns - device["called_ns"] <= CALL_NS:
            count(t, row, _CALLED, 1)
    note_fingerprint(t, row, _MAIL_SYNS, event["aux_lo"])
    device["mail_last_ns"] = ts_ns
    device["active_days"] = device["active_days"] | 1
    device["connections"] = device["connections"] + 1
    device["day_connections"] = device["day_connections"] + 1
    elapsed_s = max(ts_ns - device["burst_ns"], 0) / SECOND_NS
    left = device["burst"] * math.exp(-elapsed_s / BURST_S)
    if left < 1.0:
        device["burst_since_ns"] = ts_ns
    device["burst"] = left + 1.0
    device["burst_ns"] = ts_ns

    operator, answer = operator_of(t, device["serial"], event["resp_hi"], event["resp_lo"], ts_ns)
    if sees_lookups(t, row):
        count(t, row, _RESOLVABLE, 1)
        if answer < 0:
            count(t, row, _UNRESOLVED, 1)
    entry = find_operator(t.operators, row, operator)
    if is_25:
        entry["last_25_ns"] = ts_ns
    else:
        entry["last_submission_ns"] = ts_ns
    note_destination(t, row, event, ts_ns)
    note_example(t, row, event, answer)
    settle_retry(t, row, event, ts_ns)
    return 1


@spliced
def settle_retry(t: DeviceTables, row: int, event: Any, ts_ns: int) -> None:
    """Close the waits for another try: this one is it, or it never came."""
    for i in range(N_RETRIES):
        wait = t.retries[row, i]
        if wait["since_ns"] == 0:
            continue
        if (
            wait["lo"] == event["resp_lo"]
            and wait["hi"] == event["resp_hi"]
            and ts_ns - wait["since_ns"] > 30 * SECOND_NS
        ):
            t.retry_counts[row, 0] += 1
            wait["since_ns"] = 0
        elif ts_ns - wait["since_ns"] > RETRY_NS:
            t.retry_counts[row, 1] += 1
            wait["since_ns"] = 0


@spliced
def await_retry(t: DeviceTables, row: int, event: Any, ts_ns: int) -> None:
    """Note that a server asked to try again later."""
    place = 0
    for i in range(N_RETRIES):
        wait = t.retries[row, i]
        if wait["since_ns"] != 0 and wait["lo"] == event["resp_lo"] and wait["hi"] == event["resp_hi"]:
            return
        if wait["since_ns"] == 0:
            place = i
    wait = t.retries[row, place]
    wait["hi"] = event["resp_hi"]
    wait["lo"] = event["resp_lo"]
    wait["since_ns"] = ts_ns


@inner
def note_dialect(t: DeviceTables, row: int, dialect: int) -> None:
    """Note the order of a connection's commands, 0 if none was read; the first N_DIALECTS are told apart."""
    for i in range(N_DIALECTS):
        if dialect == 0 or t.dialects[row, i] == dialect:
            return
        if t.dialects[row, i] == 0:
            t.dialects[row, i] = dialect
            return


@spliced
def on_close(t: DeviceTables, row: int, event: Any) -> int:
    """Take the end of an outbound connection; return how much evidence it is."""
    fate = event["code"]
    flags = event["flags"]
    count(t, row, _CLOSED, 1)
    note_dialect(t, row, event["aux_lo"])
    evidence = 0
    if fate == _FATE_UNANSWERED:
        count(t, row, _UNANSWERED, 1)
        count_recent(t, row, _R_UNANSWERED)
        evidence = 1
    elif fate == _FATE_REFUSED:
        count(t, row, _REFUSED, 1)
        evidence = 1
    elif fate in (_FATE_BANNER_ONLY, _FATE_NO_BANNER, _FATE_NO_MESSAGE) and flags & _NOT_WHOLE == 0:
        count(t, row, _IDLE, 1)
    if flags & _FLAG_TLS != 0:
        count(t, row, _TLS, 1)
        if fate == _FATE_TLS:
            if event["count"] > 0:
                count(t, row, _INFERRED, event["count"])
                note_size(t, row, event["orig_bytes"])
            elif flags & _FLAG_IDLE != 0:
                count(t, row, _IDLE, 1)
            elif flags & _FLAG_NO_ORIG == 0:
                count(t, row, _TLS_EMPTY, 1)
    elif event["resp_bytes"] > 0 or event["orig_bytes"] > 0:
        count(t, row, _CLEARTEXT, 1)
    if flags & (_FLAG_NO_RESP | _FLAG_NO_ORIG) != 0 and fate != _FATE_UNANSWERED:
        count(t, row, _ONE_SIDED, 1)
    if flags & _FLAG_GAP != 0:
        count(t, row, _GAPS, 1)
    if event["enhanced"] > 0:
        count(t, row, _UNSEEN, event["enhanced"])
    for i in range(N_FLOW_EXAMPLES):
        example = t.examples[row, i]
        if example["flow_id"] == event["flow_id"] and i < t.devices[row]["n_examples"]:
            example["fate"] = fate
    return evidence


@inner
def decides_on_mail(event: Any) -> bool:
    """Tell whether a reply says if mail is wanted: any to RCPT, and a refusal of greeting, MAIL or message.

    Where the command was not captured the enhanced code tells: X.1.5 is "destination address valid" (RFC 3463).
    To count refusals and not their counterpart would make a share of what is seen best.
    """
    code, verb = event["code"], event["verb"]
    if verb != VERB_NONE:
        return bool(verb == VERB_RCPT or (code >= 400 and verb in (VERB_MAIL, VERB_DATA, VERB_BDAT)))
    if event["count"] == 1 and event["flags"] & (_FLAG_GAP | _FLAG_MIDSTREAM) == 0:
        return bool(code >= 400)  # the greeting
    return bool(event["enhanced"] == _ADDRESS_VALID or (code >= 400 and event["enhanced"] != 0))


@spliced
def on_reply(t: DeviceTables, row: int, event: Any, ts_ns: int) -> int:
    """Take a server's reply to a device; return how much evidence it is."""
    code, verb = event["code"], event["verb"]
    evidence = 0
    count(t, row, _ANSWERED, 1)
    if code >= 400:
        count(t, row, _REFUSALS, 1)
    if verb == _VERB_AUTH:
        if code == 235:
            count(t, row, _AUTH_OK, 1)
        elif code in (535, 454, 534, 538):
            count(t, row, _AUTH_FAILED, 1)
            evidence = 1
            operator, _ = operator_of(t, t.devices[row]["serial"], event["resp_hi"], event["resp_lo"], ts_ns)
            find_operator(t.operators, row, operator)["last_auth_failed_ns"] = ts_ns
    elif decides_on_mail(event):
        device = t.devices[row]
        count(t, row, _REPLIES, 1)
        device["day_replies"] = device["day_replies"] + 1
        if code >= 500:
            count(t, row, _REJECTED_5XX, 1)
            device["day_rejected"] = device["day_rejected"] + 1
            evidence = 1
        elif code >= 400:
            count(t, row, _REJECTED_4XX, 1)
            await_retry(t, row, event, ts_ns)
    if event["flags"] & _FLAG_BLOCKLISTED != 0:
        count(t, row, _BLOCKLISTED, 1)
        evidence += 1
    return evidence


@spliced
def on_greeting(t: DeviceTables, row: int, event: Any, text: NDArray[np.uint8]) -> None:
    """Take the name that a device gives itself in HELO or EHLO: its form and whether it is a new one, not the name."""
    start, end = event["text_start"], event["text_start"] + event["text_len"]
    if start == end:
        return
    kind = _HELO_BARE
    if text[start] == 91:  # "["
        kind = _HELO_LITERAL
    else:
        for i in range(start, end):
            if text[i] == 46:
                kind = _HELO_DOMAIN
                break
    t.devices[row]["has_mail"] = 1
    t.devices[row]["helo_kinds"] = t.devices[row]["helo_kinds"] | kind
    hashed = hash_text(text, start, end) + 1
    for i in range(N_HELO):
        if t.helo[row, i] == hashed:
            return
        if t.helo[row, i] == 0:
            t.helo[row, i] = hashed
            return


@spliced
def on_inbound(t: DeviceTables, row: int, event: Any, orig_home: bool) -> None:
    """Take an event of a mail connection to a device at home, which is the server here."""
    kind = event["kind"]
    if kind == _OPEN:
        count(t, row, _INBOUND_LOCAL if orig_home else _INBOUND, 1)
    elif kind == _REPLY and event["verb"] == VERB_NONE and event["code"] == 220:
        count(t, row, _INBOUND_GREETED, 1)
    elif kind == _MESSAGE and 200 <= event["code"] < 300:
        count(t, row, _INBOUND_MESSAGES, 1)
    elif kind == _CLOSE and event["code"] == _FATE_TLS and event["count"] > 0:
        count(t, row, _INBOUND_MESSAGES, event["count"])  # inferred from the size, as for mail that is sent


@inlined
def is_answer(event: Any) -> bool:
    """Tell whether an event of a mail connection shows that a packet of the server was captured."""
    kind = event["kind"]
    if kind == _CLOSE:
        return bool(event["flags"] & _FLAG_NO_RESP == 0)
    return bool(kind == _REPLY or (kind == _TRANSFER and event["resp_bytes"] > 0))


@spliced
def on_mail_event(t: DeviceTables, row: int, event: Any, text: NDArray[np.uint8], ts_ns: int) -> int:
    """Take an event of a mail connection to a server outside; return how much evidence it is, NO_NEWS for none."""
    kind = event["kind"]
    evidence = NO_NEWS
    if kind == _OPEN:
        t.clock[0]["called"] += 1
    elif is_answer(event):
        t.clock[0]["answered"] += 1
    if t.exceptions.size > 0 and is_excepted(t, row, event["resp_hi"], event["resp_lo"], ts_ns):
        if kind == _OPEN:
            t.clock[0]["excepted"] += 1
    elif kind == _OPEN:
        evidence = on_outbound(t, row, event, ts_ns)
    elif kind == _CLOSE:
        evidence = on_close(t, row, event)
    elif kind == _REPLY:
        evidence = on_reply(t, row, event, ts_ns)
        name_server(t, row, event, text, ts_ns)
    elif kind == _TLS_HELLO:
        name_server(t, row, event, text, ts_ns)
    elif kind == _TRANSFER:
        if t.devices[row]["mail_first_ns"] >= 0:
            on_mail_transfer(t, row, event["aux_lo"], event["orig_bytes"], event["resp_bytes"])
    elif kind == _COMMAND:
        if event["code"] in (VERB_HELO, VERB_EHLO, VERB_LHLO):
            on_greeting(t, row, event, text)
        elif event["code"] == VERB_MAIL:
            count(t, row, _MESSAGES, 1)
    elif kind == _MESSAGE:
        count(t, row, _RECIPIENTS, event["count"])
        if event["orig_bytes"] > 0:
            note_size(t, row, event["orig_bytes"])
        if 200 <= event["code"] < 300:
            count(t, row, _ACCEPTED, 1)
        elif event["code"] == 0:
            count(t, row, _UNSEEN, 1)
    return evidence


@spliced
def on_dns_event(
    t: DeviceTables, row: int, server: int, event: Any, text: NDArray[np.uint8], ts_ns: int
) -> int:
    """Take a DNS message of the device in ``row``; return how much evidence it is, NO_NEWS for none.

    ``server``: the row of the resolver, -1 if it is outside.
    """
    kind = event["kind"]
    device = t.devices[row]
    if kind == _ANSWER:
        if event["code"] in (TYPE_A, TYPE_AAAA):
            serial = SITE_SERIAL if device["is_resolver"] != 0 else device["serial"]
            start = event["text_start"]
            remember_answer(
                t,
                serial,
                event["aux_hi"],
                event["aux_lo"],
                event["ttl_s"],
                text,
                start,
                start + event["text_len"],
                ts_ns,
            )
        return NO_NEWS
    if kind == _RESPONSE:
        if server < 0:
            t.clock[0]["answered"] += 1
        if server >= 0 and event["enhanced"] == 0:
            t.devices[server]["is_resolver"] = 1
        if event["flags"] & _FLAG_GAP == 0:
            count(t, row, _DNS_ANSWERED, 1)
        return NO_NEWS
    count(t, row, _DNS, 1)
    if server < 0 and not is_in_networks(t.resolvers, event["resp_hi"], event["resp_lo"]):
        count(t, row, _DNS_OUTSIDE, 1)
    if event["flags"] & _FLAG_DNSBL != 0:
        count(t, row, _DNSBL, 1)
    if event["code"] != TYPE_MX:
        return NO_NEWS
    count(t, row, _MX, 1)
    count_recent(t, row, _R_MX)
    return 1


@spliced
def on_peer_event(t: DeviceTables, row: int, event: Any, is_orig: bool, ts_ns: int) -> None:
    """Take what a device that has mailed exchanges with an outside peer beside mail; ``is_orig``: it spoke first."""
    if event["kind"] == _TRANSFER and (event["resp_bytes"] if is_orig else event["orig_bytes"]) > 0:
        t.clock[0]["answered"] += 1
    if t.devices[row]["mail_first_ns"] < 0:
        return
    hi = event["resp_hi"] if is_orig else event["orig_hi"]
    lo = event["resp_lo"] if is_orig else event["orig_lo"]
    if event["kind"] == _TRANSFER:
        sent = event["orig_bytes"] if is_orig else event["resp_bytes"]
        received = event["resp_bytes"] if is_orig else event["orig_bytes"]
        on_peer_transfer(t, row, event["aux_lo"], hi, lo, sent, received, ts_ns)
    elif not is_orig:
        t.devices[row]["called_ns"] = ts_ns
    else:
        note_fingerprint(t, row, _OTHER_SYNS, event["aux_lo"])


@inner
def on_lan_event(t: DeviceTables, event: Any, text: NDArray[np.uint8], ts_ns: int) -> None:
    """Take what a device says of itself: its address, its name, what it is."""
    kind, mac = event["kind"], event["orig_mac"]
    hi, lo = event["orig_hi"], event["orig_lo"]
    if event["resp_mac"] >= 0:  # a relay between client and server
        note_router(t.routers, t.devices, event["resp_mac"])
    if kind == _ND and event["count"] != 0:
        note_router(t.routers, t.devices, mac)
    is_dhcp = kind in (_DHCP, _DHCPV6)
    if is_dhcp:
        recognise(t, mac, event["aux_lo"], ts_ns)
    if not is_home_claim(t, event):
        return
    if kind != _FACT and (hi != 0 or lo != 0):
        note_claim(t, mac, hi, lo, event["vlan"], is_dhcp, kind in (_ND, _DHCPV6), ts_ns)
    # What a router says of itself makes it no device.
    row = find_home_device(t, mac, hi, lo, event["vlan"], -1, not is_router(t.routers, mac), False, ts_ns)
    if row < 0:
        return
    advance_slots(t, row, ts_ns)
    if kind == _FACT:
        note_hint(t, row, event, text)
    elif event["text_len"] > 0:
        start = event["text_start"]
        n = copy_bytes(text, start, start + event["text_len"], t.host_names[row], 0, MAX_NAME_BYTES)
        t.devices[row]["host_name_len"] = n
        t.devices[row]["is_kind_known"] = 0


@inner
def is_home_claim(t: DeviceTables, event: Any) -> bool:
    """Tell whether an event of the LAN says something of a device at home: its address there, or something in words."""
    hi, lo = event["orig_hi"], event["orig_lo"]
    if hi == 0 and lo == 0:
        return bool(event["text_len"] > 0)
    if not is_unicast(hi, lo):
        return False
    return is_home(t, hi, lo) or (event["kind"] in (_ND, _DHCPV6) and is_global(hi))


@inner
def note_stranger(t: DeviceTables, hi: int, lo: int) -> None:
    """Note a mail connection between addresses outside: the home networks may not be those of this site."""
    clock = t.clock[0]
    clock["elsewhere"] += 1
    if clock["stranger_lead"] == 0:
        clock["stranger_hi"] = hi
        clock["stranger_lo"] = lo
    is_same = clock["stranger_hi"] == hi and clock["stranger_lo"] == lo
    clock["stranger_lead"] += 1 if is_same else -1


@spliced
def observe_event(t: DeviceTables, event: Any, text: NDArray[np.uint8], ts_ns: int) -> bool:
    """Take one event; True if a verdict is due at once."""
    kind = event["kind"]
    if kind in (_ARP, _DHCP, _ND, _DHCPV6, _FACT):
        on_lan_event(t, event, text, ts_ns)
        return False
    orig_home = is_home(t, event["orig_hi"], event["orig_lo"])
    resp_home = is_home(t, event["resp_hi"], event["resp_lo"])
    if kind == _OPEN and not orig_home and not resp_home:
        note_stranger(t, event["orig_hi"], event["orig_lo"])
    # Whoever carries packets of addresses outside is a router.
    if not orig_home:
        note_outside_sender(t.routers, t.devices, event["orig_mac"], event["orig_hi"])
    if not resp_home:
        note_outside_sender(t.routers, t.devices, event["resp_mac"], event["resp_hi"])
    # Of a device that mails, what else it exchanges; nobody becomes a device by that.
    is_beside_mail = kind in (_TRANSFER, _PEER_CALL)
    is_late = kind in (_TRANSFER, _CLOSE)
    row = i64(-1)
    server = i64(-1)
    for end in range(2):
        if end == 0 and orig_home:
            mac, hi, lo = event["orig_mac"], event["orig_hi"], event["orig_lo"]
        elif end == 1 and resp_home:
            mac, hi, lo = event["resp_mac"], event["resp_hi"], event["resp_lo"]
        else:
            continue
        flow = 2 * event["flow_id"] + end if event["flow_id"] >= 0 else -1
        found = find_home_device(t, mac, hi, lo, event["vlan"], flow, not is_beside_mail, is_late, ts_ns)
        if found < 0:
            continue
        advance_slots(t, found, ts_ns)
        if end == 0:
            row = i64(found)
        else:
            server = i64(found)
    if is_beside_mail and ((orig_home and row < 0) or (resp_home and server < 0)):
        return False
    if kind == _PEER_CALL or (kind == _TRANSFER and event["code"] != _OF_MAIL):
        if (row >= 0) != (server >= 0):
            on_peer_event(t, max(row, server), event, row >= 0, ts_ns)
        return False
    is_dns = kind in (_QUERY, _ANSWER, _RESPONSE)
    if server >= 0 and not is_dns:
        on_inbound(t, server, event, orig_home)
    if row < 0:
        return False
    evidence = i64(NO_NEWS)
    if is_dns:
        evidence = i64(on_dns_event(t, row, server, event, text, ts_ns))
    elif server >= 0:
        if kind == _OPEN:
            count(t, row, _LOCAL, 1)
    else:
        evidence = i64(on_mail_event(t, row, event, text, ts_ns))
    return evidence != NO_NEWS and mark_dirty(t, row, evidence)


@inlined
def reach(t: DeviceTables, ts_ns: int) -> bool:
    """Let packet time go on to ``ts_ns``; False if something is due before: ``is_due`` says what, ``now_ns`` when."""
    clock = t.clock[0]
    if ts_ns >= clock["wake_ns"]:
        clock["now_ns"] = max(clock["now_ns"], clock["wake_ns"])
        clock["is_due"] = DUE_WAKE
        return False
    if ts_ns >= clock["next_tick_ns"]:
        clock["now_ns"] = max(clock["now_ns"], min(ts_ns, clock["next_tick_ns"]))
        clock["next_tick_ns"] = (ts_ns // TICK_NS + 1) * TICK_NS
        if clock["n_dirty"] > 0:
            clock["is_due"] = DUE_VERDICTS
            return False
    clock["now_ns"] = ts_ns
    return True


@kernel
def observe_time(now_ns: int, t: DeviceTables) -> bool:
    """Let packet time go on to ``now_ns`` without an event; see ``observe_events`` for what False asks of the caller.

    ``t``: in/out.
    """
    return reach(t, max(i64(now_ns), i64(t.clock[0]["now_ns"])))


@kernel
def observe_events(
    events: NDArray[Any], first: int, n_events: int, text: NDArray[np.uint8], t: DeviceTables
) -> int:
    """Take ``events[first:n_events]`` into the device table.

    ``events``: EVENT_DTYPE, in the order of packet time; ``text``: u8, their text; ``t``: in/out. Returns the
    event to resume at. With ``t.clock["is_due"]`` set, verdicts are due before: ``t.dirty`` holds the rows
    with news, ``t.clock["now_ns"]`` the time; the caller clears it, and moves ``wake_ns`` past that time.
    """
    clock = t.clock[0]
    for i in range(first, n_events):
        event = events[i]
        ts_ns = max(i64(event["ts_ns"]), i64(clock["now_ns"]))
        if not reach(t, ts_ns):
            return i
        is_due = observe_event(t, event, text, ts_ns)
        if is_due:
            clock["is_due"] = DUE_VERDICTS
            return i + 1
    return n_events
