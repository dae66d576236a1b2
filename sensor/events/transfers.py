"""How many bytes pass between two addresses, in slots of a few seconds, and which of them speaks first.

By this a proxy shows: what it sends as mail it was sent just before by somebody else, and the replies go back
the same way, whatever is encrypted (devices/relay.py compares them). Of a device that mails, the table has a
row for each outside address, and another one for its mail there; when a slot of packet time is over, all rows
with bytes are reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.packets import PortClass
from sensor.decode.status import Eviction, FrameStatus
from sensor.decode.watch import WATCH_NS
from sensor.events.emit import append_event
from sensor.events.types import EventColumns, EventKind
from sensor.hashing import hash_halves, mix
from sensor.jit import i64, inner, spliced

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes
    from sensor.events.tables import EventTables

SLOT_NS = 5 * 1_000_000_000
#: Who sends bytes after two addresses were silent for so long has spoken first.
SILENCE_NS = 10 * 1_000_000_000
#: Peers are remembered for a day (devices/relay.py).
MEMORY_NS = 24 * 3600 * 1_000_000_000
MAX_PROBES = 16

_TRANSFER, _PEER_CALL = int(EventKind.TRANSFER), int(EventKind.PEER_CALL)
_MAIL, _PEER = int(FrameStatus.MAIL), int(FrameStatus.PEER)
_PORT_MAIL = int(PortClass.MAIL)
_EVICTED = int(Eviction.PEER)


@inner
def report_pair(tables: EventTables, row: int, ts_ns: int, out: EventColumns) -> None:
    """Report what passed between two addresses in the slot, if anything, and begin anew."""
    pair = tables.pairs[row]
    if pair["orig_bytes"] == 0 and pair["resp_bytes"] == 0:
        return
    event = append_event(out, tables.weirds, ts_ns, _TRANSFER)
    event["orig_hi"] = pair["orig_hi"]
    event["orig_lo"] = pair["orig_lo"]
    event["resp_hi"] = pair["resp_hi"]
    event["resp_lo"] = pair["resp_lo"]
    event["orig_mac"] = pair["orig_mac"]
    event["resp_mac"] = pair["resp_mac"]
    event["vlan"] = pair["vlan"]
    event["code"] = pair["service"]
    event["aux_lo"] = tables.state[0]["slot"]
    event["orig_bytes"] = pair["orig_bytes"]
    event["resp_bytes"] = pair["resp_bytes"]
    pair["orig_bytes"] = 0
    pair["resp_bytes"] = 0


@inner
def report_slot(tables: EventTables, ts_ns: int, out: EventColumns) -> None:
    """Report all that passed in the slot that is over: mail first, so that the rest can be compared with it."""
    state = tables.state[0]
    for turn in range(2):
        for i in range(state["n_pairs"]):
            row = i64(tables.pairs_in_slot[i])
            if (tables.pairs[row]["service"] == _MAIL) == (turn == 0):
                report_pair(tables, row, ts_ns, out)
    state["n_pairs"] = 0
    state["slot"] = ts_ns // SLOT_NS


@spliced
def begin_slot(tables: EventTables, ts_ns: int, out: EventColumns) -> None:
    """Report the slot before, if ``ts_ns`` begins a new one."""
    if ts_ns // SLOT_NS != tables.state[0]["slot"]:
        report_slot(tables, ts_ns, out)


@inner
def report_call(tables: EventTables, packet: Any, ts_ns: int, out: EventColumns) -> None:
    """Report that the sender of a packet speaks first."""
    event = append_event(out, tables.weirds, ts_ns, _PEER_CALL)
    event["orig_hi"] = packet["src_hi"]
    event["orig_lo"] = packet["src_lo"]
    event["resp_hi"] = packet["dst_hi"]
    event["resp_lo"] = packet["dst_lo"]
    event["orig_mac"] = packet["src_mac"]
    event["resp_mac"] = packet["dst_mac"]
    event["orig_port"] = packet["src_port"]
    event["resp_port"] = packet["dst_port"]
    event["vlan"] = packet["vlan"]
    event["aux_lo"] = packet["fingerprint"]


@inner
def is_from_orig(pair: Any, packet: Any) -> bool:
    """Tell whether a packet between the two addresses of ``pair`` goes from its first to its second."""
    return bool(
        pair["orig_lo"] == packet["src_lo"]
        and pair["resp_lo"] == packet["dst_lo"]
        and pair["orig_hi"] == packet["src_hi"]
        and pair["resp_hi"] == packet["dst_hi"]
    )


@inner
def is_from_resp(pair: Any, packet: Any) -> bool:
    """Tell whether a packet goes the other way."""
    return bool(
        pair["orig_lo"] == packet["dst_lo"]
        and pair["resp_lo"] == packet["src_lo"]
        and pair["orig_hi"] == packet["dst_hi"]
        and pair["resp_hi"] == packet["src_hi"]
    )


@inner
def find_pair(
    tables: EventTables, packet: Any, service: int, src_is_orig: bool, ts_ns: int, out: EventColumns
) -> int:
    """Return the row of a packet's addresses; in a full neighbourhood the pair that was silent longest makes room."""
    src = hash_halves(packet["src_hi"], packet["src_lo"])
    dst = hash_halves(packet["dst_hi"], packet["dst_lo"])
    first = mix((src + dst + service) & 0x7FFFFFFF)
    mask = tables.pairs.size - 1
    oldest = i64(first & mask)
    for probe in range(MAX_PROBES):
        row = i64((first + probe) & mask)
        pair = tables.pairs[row]
        if pair["spoke_ns"] < 0:
            oldest = row
            break
        if pair["service"] == service and (is_from_orig(pair, packet) or is_from_resp(pair, packet)):
            return row
        if pair["spoke_ns"] < tables.pairs[oldest]["spoke_ns"]:
            oldest = row
    pair = tables.pairs[oldest]
    if pair["spoke_ns"] >= 0:
        report_pair(tables, oldest, ts_ns, out)
        if ts_ns - pair["spoke_ns"] < WATCH_NS:
            tables.evictions[_EVICTED] += 1
    start_pair(pair, packet, src_is_orig, service, ts_ns)
    return oldest


@inner
def start_pair(pair: Any, packet: Any, src_is_orig: bool, service: int, ts_ns: int) -> None:
    """Fill a row for the addresses of a packet."""
    if src_is_orig:
        pair["orig_hi"], pair["orig_lo"], pair["orig_mac"] = (
            packet["src_hi"],
            packet["src_lo"],
            packet["src_mac"],
        )
        pair["resp_hi"], pair["resp_lo"], pair["resp_mac"] = (
            packet["dst_hi"],
            packet["dst_lo"],
            packet["dst_mac"],
        )
    else:
        pair["orig_hi"], pair["orig_lo"], pair["orig_mac"] = (
            packet["dst_hi"],
            packet["dst_lo"],
            packet["dst_mac"],
        )
        pair["resp_hi"], pair["resp_lo"], pair["resp_mac"] = (
            packet["src_hi"],
            packet["src_lo"],
            packet["src_mac"],
        )
    pair["orig_bytes"] = 0
    pair["resp_bytes"] = 0
    pair["spoke_ns"] = ts_ns
    pair["vlan"] = packet["vlan"]
    pair["service"] = service


@inner
def note_bytes(
    tables: EventTables, packet: Any, service: int, src_is_orig: bool, ts_ns: int, out: EventColumns
) -> None:
    """Count a packet's payload; report who speaks first after a silence."""
    state = tables.state[0]
    row = find_pair(tables, packet, service, src_is_orig, ts_ns, out)
    pair = tables.pairs[row]
    if pair["orig_bytes"] == 0 and pair["resp_bytes"] == 0:
        if state["n_pairs"] == tables.pairs_in_slot.size:  # rows were used again within the slot
            report_slot(tables, ts_ns, out)
        tables.pairs_in_slot[state["n_pairs"]] = row
        state["n_pairs"] = state["n_pairs"] + 1
    if service == _PEER and ts_ns - pair["spoke_ns"] >= SILENCE_NS:
        report_call(tables, packet, ts_ns, out)
    pair["spoke_ns"] = ts_ns
    if is_from_orig(pair, packet):
        pair["orig_bytes"] = pair["orig_bytes"] + i64(packet["payload_len"])
    else:
        pair["resp_bytes"] = pair["resp_bytes"] + i64(packet["payload_len"])


@spliced
def note_peer(tables: EventTables, packet: Any, ts_ns: int, out: EventColumns) -> None:
    """Take a packet that is no mail, of an address that has mailed lately."""
    tables.state[0]["peer_ns"] = ts_ns
    if packet["fingerprint"] != 0:
        report_call(tables, packet, ts_ns, out)
    if packet["payload_len"] > 0:
        note_bytes(tables, packet, _PEER, True, ts_ns, out)


@spliced
def note_mail_bytes(
    tables: EventTables, packet: Any, port_class: Bytes, ts_ns: int, out: EventColumns
) -> None:
    """Take a mail packet. Where nobody who mails does anything else, there is nothing to compare it with."""
    if packet["payload_len"] > 0 and ts_ns - tables.state[0]["peer_ns"] < MEMORY_NS:
        note_bytes(tables, packet, _MAIL, port_class[packet["dst_port"]] == _PORT_MAIL, ts_ns, out)
