"""Events of what devices say of themselves: which address they have, and facts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.cdp import decode_cdp
from sensor.decode.dhcpv6 import decode_dhcpv6
from sensor.decode.facts import N_ROWS, FactKind, FactSource, clear_facts
from sensor.decode.http import decode_http
from sensor.decode.ip import IpProtocol
from sensor.decode.lan import DhcpMessageType, LanStatus, decode_arp, decode_dhcp
from sensor.decode.link import EtherType
from sensor.decode.lldp import decode_lldp
from sensor.decode.mdns import decode_mdns
from sensor.decode.nd import decode_nd
from sensor.decode.netbios import decode_netbios_datagram, decode_netbios_name
from sensor.decode.packets import (
    DHCP_PORTS,
    DHCPV6_PORTS,
    MDNS_PORT,
    NETBIOS_DATAGRAM_PORT,
    NETBIOS_NAME_PORT,
    SSDP_PORT,
)
from sensor.decode.ssdp import decode_ssdp
from sensor.events.emit import append_event, append_text
from sensor.events.types import EventKind
from sensor.hashing import hash_text
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes
    from sensor.events.tables import EventTables
    from sensor.events.types import EventColumns

_KIND_ARP, _KIND_ND, _KIND_FACT = int(EventKind.ARP), int(EventKind.ND), int(EventKind.FACT)
_KIND_DHCP, _KIND_DHCPV6 = int(EventKind.DHCP), int(EventKind.DHCPV6)
_OK, _DHCP_ACK = int(LanStatus.OK), int(DhcpMessageType.ACK)
_ARP, _LLDP, _CDP = int(EtherType.ARP), int(EtherType.LLDP), int(EtherType.CDP)
_ICMPV6, _TCP = int(IpProtocol.ICMPV6), int(IpProtocol.TCP)
_FROM_DHCP, _FROM_DHCPV6 = int(FactSource.DHCP), int(FactSource.DHCPV6)
_FROM_MDNS, _FROM_SSDP = int(FactSource.MDNS), int(FactSource.SSDP)
_FROM_NETBIOS, _FROM_HTTP = int(FactSource.NETBIOS), int(FactSource.HTTP)
_FROM_LLDP, _FROM_CDP = int(FactSource.LLDP), int(FactSource.CDP)
_HOST_NAME, _CLIENT_ID = int(FactKind.HOST_NAME), int(FactKind.CLIENT_ID)
_REPLY, _SERVER_PORT = 2, 67  # RFC 2131 sections 2 and 4.1
_GROUP_BIT = 1 << 40  # of a MAC address


@inner
def emit_lan(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report what a packet of status LAN says of a device."""
    proto = packet["proto"]
    clear_facts(tables.facts)
    if proto == _ARP:
        emit_arp(tables, packet, ts_ns, data, out)
    elif proto == _ICMPV6:
        emit_discovery(tables, packet, ts_ns, data, out)
    elif packet["src_port"] in DHCP_PORTS or packet["dst_port"] in DHCP_PORTS:
        emit_dhcp(tables, packet, ts_ns, data, out)
    elif packet["src_port"] in DHCPV6_PORTS or packet["dst_port"] in DHCPV6_PORTS:
        emit_dhcpv6(tables, packet, ts_ns, data, out)
    else:
        source = decode_words(tables, packet, data)
        emit_facts(
            tables, packet, ts_ns, source, packet["src_mac"], packet["src_hi"], packet["src_lo"], -1, out
        )


@inner
def decode_words(tables: EventTables, packet: Any, data: Bytes) -> int:
    """Decode a packet that says who its sender is in words alone; return its FactSource."""
    start, end = i64(packet["payload_start"]), i64(packet["payload_end"])
    if packet["proto"] == _LLDP:
        decode_lldp(data, start, end, tables.facts, tables.weirds)
        return _FROM_LLDP
    if packet["proto"] == _CDP:
        decode_cdp(data, start, end, tables.facts, tables.weirds)
        return _FROM_CDP
    if packet["proto"] == _TCP:
        decode_http(data, start, end, tables.facts, tables.weirds)
        return _FROM_HTTP
    ports = (i64(packet["src_port"]), i64(packet["dst_port"]))
    if MDNS_PORT in ports:
        decode_mdns(data, start, end, tables.facts, tables.weirds)
        return _FROM_MDNS
    if SSDP_PORT in ports:
        decode_ssdp(data, start, end, tables.facts, tables.weirds)
        return _FROM_SSDP
    if NETBIOS_NAME_PORT in ports:
        decode_netbios_name(data, start, end, tables.facts, tables.weirds)
    elif NETBIOS_DATAGRAM_PORT in ports:
        decode_netbios_datagram(data, start, end, tables.facts, tables.weirds)
    return _FROM_NETBIOS


@inner
def append_claim(
    tables: EventTables,
    packet: Any,
    ts_ns: int,
    kind: int,
    code: int,
    mac: int,
    hi: int,
    lo: int,
    out: EventColumns,
) -> Any:
    """Report that the device with a MAC address has an address, 0 none, and return the event."""
    event = append_event(out, tables.weirds, ts_ns, kind)
    event["orig_mac"] = mac
    event["orig_hi"] = hi
    event["orig_lo"] = lo
    event["vlan"] = packet["vlan"]
    event["session"] = packet["session"]
    event["code"] = code
    return event


@inner
def emit_facts(
    tables: EventTables,
    packet: Any,
    ts_ns: int,
    source: int,
    mac: int,
    hi: int,
    lo: int,
    left_out: int,
    out: EventColumns,
) -> None:
    """Report what a device says of itself in words, but for the kind that is ``left_out``."""
    for i in range(tables.facts.used[N_ROWS]):
        fact = tables.facts.rows[i]
        if fact["kind"] == left_out:
            continue
        event = append_claim(tables, packet, ts_ns, _KIND_FACT, fact["kind"], mac, hi, lo, out)
        event["enhanced"] = source
        append_text(out, event, tables.facts.text, fact["start"], fact["start"] + fact["length"])


@inner
def find_fact(tables: EventTables, kind: int) -> int:
    """Return the row of the first fact of a kind, or -1."""
    for i in range(tables.facts.used[N_ROWS]):
        if tables.facts.rows[i]["kind"] == kind:
            return i64(i)
    return i64(-1)


@inner
def fill_client(tables: EventTables, event: Any, out: EventColumns) -> None:
    """Give the event of a DHCP client its host name, and the hash of its identifier, which tells it from others."""
    facts = tables.facts
    name = find_fact(tables, _HOST_NAME)
    if name >= 0:
        fact = facts.rows[name]
        append_text(out, event, facts.text, fact["start"], fact["start"] + fact["length"])
    identifier = find_fact(tables, _CLIENT_ID)
    if identifier >= 0:
        fact = facts.rows[identifier]
        event["aux_lo"] = hash_text(facts.text, fact["start"], fact["start"] + fact["length"]) | 1


@inner
def is_sender(packet: Any, mac: int) -> bool:
    """Tell whether a MAC address is that of the frame's sender, as far as that is known."""
    return bool(mac >= 0 and packet["src_mac"] in (-1, mac))


@inner
def emit_arp(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report the address that the sender of an ARP packet claims; what it says of others' is not believed."""
    decode_arp(data, packet["payload_start"], packet["payload_end"], tables.arp, tables.weirds)
    arp = tables.arp[0]
    if arp["status"] == _OK and is_sender(packet, arp["sender_mac"]) and arp["sender_lo"] != 0:
        append_claim(tables, packet, ts_ns, _KIND_ARP, arp["op"], arp["sender_mac"], 0, arp["sender_lo"], out)


@inner
def emit_discovery(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report the address that the sender of a neighbour discovery message claims, and whether it is a router.

    What it says of others' is not believed.
    """
    decode_nd(
        data,
        packet["payload_start"],
        packet["payload_end"],
        packet["src_hi"],
        packet["src_lo"],
        tables.nd,
        tables.weirds,
    )
    nd = tables.nd[0]
    # Without the option the frame says from whom it is (RFC 4861 section 4.4: it may be left out).
    mac = i64(nd["mac"]) if nd["mac"] >= 0 else i64(packet["src_mac"])
    if (
        nd["status"] == _OK
        and mac >= 0
        and is_sender(packet, mac)
        and (nd["address_lo"] != 0 or nd["address_hi"] != 0)
    ):
        event = append_claim(
            tables, packet, ts_ns, _KIND_ND, nd["type"], mac, nd["address_hi"], nd["address_lo"], out
        )
        event["count"] = nd["is_router"]


@inner
def emit_dhcp(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report which address a DHCP server confirms, and what a client says of itself."""
    decode_dhcp(
        data, packet["payload_start"], packet["payload_end"], tables.dhcp, tables.facts, tables.weirds
    )
    dhcp = tables.dhcp[0]
    if dhcp["status"] != _OK or dhcp["chaddr"] < 0:
        return
    mac, lo = i64(dhcp["chaddr"]), i64(0)
    if dhcp["message_type"] == _DHCP_ACK and dhcp["op"] == _REPLY and packet["src_port"] == _SERVER_PORT:
        # An answer to INFORM carries no address of the server's giving (RFC 2131 section 4.3.5).
        lo = i64(dhcp["yiaddr_lo"]) if dhcp["yiaddr_lo"] != 0 else i64(dhcp["ciaddr_lo"])
    event = append_claim(tables, packet, ts_ns, _KIND_DHCP, dhcp["message_type"], mac, 0, lo, out)
    if dhcp["op"] != _REPLY:
        if dhcp["giaddr_lo"] != 0:  # from a relay to the server (RFC 2131 section 4.1)
            event["resp_mac"] = packet["src_mac"]
        fill_client(tables, event, out)
        emit_facts(tables, packet, ts_ns, _FROM_DHCP, mac, 0, 0, _HOST_NAME, out)


@inner
def emit_dhcpv6(tables: EventTables, packet: Any, ts_ns: int, data: Bytes, out: EventColumns) -> None:
    """Report which address a DHCPv6 server gives, and what a client says of itself."""
    decode_dhcpv6(
        data, packet["payload_start"], packet["payload_end"], tables.dhcpv6, tables.facts, tables.weirds
    )
    dhcp = tables.dhcpv6[0]
    if dhcp["status"] != _OK:
        return
    mac = i64(packet["src_mac"]) if dhcp["is_from_client"] != 0 else i64(packet["dst_mac"])
    if mac < 0 or mac & _GROUP_BIT != 0:
        return
    event = append_claim(
        tables,
        packet,
        ts_ns,
        _KIND_DHCPV6,
        dhcp["message_type"],
        mac,
        dhcp["address_hi"],
        dhcp["address_lo"],
        out,
    )
    if dhcp["is_from_client"] != 0:
        fill_client(tables, event, out)
        emit_facts(tables, packet, ts_ns, _FROM_DHCPV6, mac, 0, 0, _HOST_NAME, out)
