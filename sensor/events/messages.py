"""Events of single DNS messages: queries, responses, and the addresses and exchanges in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.dns import OPCODE_QUERY, TYPE_A, TYPE_AAAA, TYPE_MX, DnsStatus, decode_dns
from sensor.decode.dnsbl import is_dnsbl_name
from sensor.events.emit import append_event, append_text, fill_flow_columns
from sensor.events.tables import EventTables, Total
from sensor.events.types import EventColumns, EventFlag, EventKind
from sensor.jit import i64, inner, spliced

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

_KIND_QUERY, _KIND_RESPONSE, _KIND_ANSWER = (
    int(EventKind.DNS_QUERY),
    int(EventKind.DNS_RESPONSE),
    int(EventKind.DNS_ANSWER),
)
_FLAG_TCP, _FLAG_DNSBL, _FLAG_GAP = int(EventFlag.TCP), int(EventFlag.DNSBL), int(EventFlag.GAP)
_QUERIES, _MX_QUERIES, _RESPONSES = int(Total.DNS_QUERIES), int(Total.MX_QUERIES), int(Total.DNS_RESPONSES)
_NOT_DNS, _DNS_TRUNCATED = int(DnsStatus.NOT_DNS), int(DnsStatus.TRUNCATED)


@spliced
def fill_packet_columns(event: Any, packet: Any, reverse: bool) -> None:
    """Copy a datagram's ends into an event; ``reverse`` if its sender is the responder."""
    if reverse:
        event["orig_hi"] = packet["dst_hi"]
        event["orig_lo"] = packet["dst_lo"]
        event["orig_port"] = packet["dst_port"]
        event["orig_mac"] = packet["dst_mac"]
        event["resp_hi"] = packet["src_hi"]
        event["resp_lo"] = packet["src_lo"]
        event["resp_port"] = packet["src_port"]
        event["resp_mac"] = packet["src_mac"]
    else:
        event["orig_hi"] = packet["src_hi"]
        event["orig_lo"] = packet["src_lo"]
        event["orig_port"] = packet["src_port"]
        event["orig_mac"] = packet["src_mac"]
        event["resp_hi"] = packet["dst_hi"]
        event["resp_lo"] = packet["dst_lo"]
        event["resp_port"] = packet["dst_port"]
        event["resp_mac"] = packet["dst_mac"]
    event["vlan"] = packet["vlan"]
    event["session"] = packet["session"]


@spliced
def copy_ends(event: Any, other: Any) -> None:
    """Copy the ends of one event into another."""
    event["flow_id"] = other["flow_id"]
    event["orig_hi"] = other["orig_hi"]
    event["orig_lo"] = other["orig_lo"]
    event["orig_port"] = other["orig_port"]
    event["orig_mac"] = other["orig_mac"]
    event["resp_hi"] = other["resp_hi"]
    event["resp_lo"] = other["resp_lo"]
    event["resp_port"] = other["resp_port"]
    event["resp_mac"] = other["resp_mac"]
    event["vlan"] = other["vlan"]
    event["session"] = other["session"]
    event["flags"] = other["flags"]


@spliced
def emit_datagram(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report the DNS message of a datagram."""
    start, end = i64(packet["payload_start"]), i64(packet["payload_end"])
    if not decode_message(tables, data, start, end):
        return
    is_response = tables.dns_message[0]["is_response"] != 0
    event = append_event(out, tables.weirds, ts_ns, _KIND_RESPONSE if is_response else _KIND_QUERY)
    fill_packet_columns(event, packet, is_response)
    fill_message(tables, event, ts_ns, out)


@inner
def emit_dns(
    tables: EventTables,
    flow: Any,
    ts_ns: int,
    data: Bytes,
    start: int,
    end: int,
    out: EventColumns,
) -> None:
    """Report one DNS message of a TCP flow."""
    if not decode_message(tables, data, start, end):
        return
    is_response = tables.dns_message[0]["is_response"] != 0
    event = append_event(out, tables.weirds, ts_ns, _KIND_RESPONSE if is_response else _KIND_QUERY)
    fill_flow_columns(event, flow)
    event["flags"] = event["flags"] | _FLAG_TCP
    fill_message(tables, event, ts_ns, out)


@spliced
def decode_message(tables: EventTables, data: Bytes, start: int, end: int) -> bool:
    """Decode into the tables' scratch rows; False if there is nothing to report."""
    status = decode_dns(
        data, start, end, tables.dns_message, tables.dns_records, tables.dns_names, tables.weirds
    )
    message = tables.dns_message[0]
    return bool(status != _NOT_DNS and message["has_question"] != 0 and message["opcode"] == OPCODE_QUERY)


@spliced
def fill_message(tables: EventTables, event: Any, ts_ns: int, out: EventColumns) -> None:
    """Fill the event of a decoded message, and report each address and mail exchange of a response."""
    message = tables.dns_message[0]
    event["code"] = message["qtype"]
    append_text(out, event, tables.dns_names, 0, message["qname_len"])
    if message["is_response"] == 0:
        tables.totals[_QUERIES] += 1
        if message["qtype"] == TYPE_MX:
            tables.totals[_MX_QUERIES] += 1
        if is_dnsbl_name(tables.dns_names, 0, message["qname_len"]):
            event["flags"] = event["flags"] | _FLAG_DNSBL
        return
    tables.totals[_RESPONSES] += 1
    if message["status"] == _DNS_TRUNCATED:
        event["flags"] = event["flags"] | _FLAG_GAP
    event["enhanced"] = message["rcode"]
    event["count"] = message["ancount"]
    for i in range(message["n_records"]):
        record = tables.dns_records[i]
        if record["rtype"] not in (TYPE_A, TYPE_AAAA, TYPE_MX):
            continue
        answer = append_event(out, tables.weirds, ts_ns, _KIND_ANSWER)
        copy_ends(answer, event)
        answer["code"] = record["rtype"]
        answer["ttl_s"] = min(record["ttl_s"], 0x7FFFFFFF)
        answer["aux_hi"] = record["address_hi"]
        answer["aux_lo"] = record["address_lo"]
        if record["rtype"] != TYPE_MX and record["answers_question"] != 0:
            # The name that was asked for, not the end of a chain of aliases: the device knows it by that.
            answer["text_start"] = event["text_start"]
            answer["text_len"] = event["text_len"]
        else:
            start = record["name_start"]
            append_text(out, answer, tables.dns_names, start, start + record["name_len"])
