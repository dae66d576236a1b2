from __future__ import annotations

import ipaddress
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from device_events import (
    CAMERA,
    CAMERA_MAC,
    GATEWAY_MAC,
    OUTSIDE,
    OUTSIDE_RESOLVER,
    PRINTER,
    PRINTER_MAC,
    RESOLVER,
    SERVER,
    SERVER_MAC,
    START_NS,
    EventLog,
    features_of,
    halves,
    new_tables,
    observe,
    row_of,
    rows_of,
)
from hypothesis import given
from hypothesis import strategies as st

from sensor.config import Config, ExceptionRule, HostName, Instant, Mac, Network
from sensor.decode.status import Eviction
from sensor.devices.activity import EVIDENCE_STEP, EVIDENCE_STEP_SHARE
from sensor.devices.features import Feature
from sensor.devices.site import describe_site, network_row
from sensor.devices.table import (
    DAY_NS,
    MAX_NAME_BYTES,
    MAX_PROBES,
    N_FLOW_EXAMPLES,
    SECOND_NS,
    SITE_SERIAL,
    Count,
    DeviceTables,
)
from sensor.devices.view import (
    addresses,
    flow_examples,
    host_name,
    key_text,
    share_of,
    total,
    vendor_of,
)
from sensor.events.types import EventFlag, EventKind, Fate, QType, Verb

pytestmark = pytest.mark.kernel

HOUR_S = 3600.0


def keys(tables: DeviceTables) -> list[str]:
    return [key_text(tables, row) for row in rows_of(tables)]


def watch(log: EventLog, **site: Any) -> DeviceTables:
    tables = new_tables(Config(**site))
    observe(tables, log)
    return tables


def is_known_router(tables: DeviceTables, mac: int) -> bool:
    return bool((tables.routers["is_sure"][tables.routers["mac"] == mac] != 0).any())


# --- which addresses are at home (site.py, identity.py) -----------------------------------------------------

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
NETWORKS = st.tuples(ADDRESSES, st.integers(0, 128)).map(
    lambda pair: ipaddress.ip_network((pair[0], min(pair[1], pair[0].max_prefixlen)), strict=False)
)


def contains(row: tuple[int, ...], hi: int, lo: int) -> bool:
    """What is_in_networks computes."""
    return hi & row[2] == row[0] and lo & row[3] == row[1]


@given(NETWORKS, ADDRESSES)
def test_a_network_row_holds_the_addresses_of_its_network(network, address):
    row = network_row(Network(str(network)))
    assert all(-(1 << 63) <= value < 1 << 63 for value in row)
    for inside in (network.network_address, network.broadcast_address):
        assert contains(row, *halves(str(inside)))
    as_ipv4 = getattr(address, "ipv4_mapped", None) or address  # ::ffff:a.b.c.d is a.b.c.d to the columns
    is_inside = as_ipv4.version == network.version and as_ipv4 in network
    if network.version == 4 or as_ipv4.version == 6:
        assert contains(row, *halves(str(address))) == is_inside


def test_a_site_without_extras_has_empty_tables():
    site = describe_site(Config())
    assert site.home_nets.shape == (7, 4)
    assert site.known_servers.shape == site.resolvers.shape == (0, 4)
    assert site.exceptions.shape == (0,)


@pytest.mark.parametrize(
    ("address", "is_home"),
    [
        (CAMERA, True),
        ("10.255.0.1", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("fe80::1", True),
        ("fd00:1::5", True),
        ("2001:db8::5", False),
    ],
)
def test_a_device_is_who_has_an_address_at_home(address, is_home):
    log = EventLog()
    log.connect(0, orig=address)
    tables = watch(log)
    assert len(rows_of(tables)) == is_home
    assert tables.clock[0]["home_seen"] == is_home


def test_home_networks_are_configuration():
    log = EventLog()
    log.connect(0, orig="198.51.100.7")
    log.connect(1, orig=CAMERA)
    tables = watch(log, home_nets=(Network("198.51.100.0/24"),))
    assert keys(tables) == ["44:19:b6:0a:0b:0c"]
    assert addresses(tables, rows_of(tables)[0]) == ("198.51.100.7",)


# --- who is a device (identity.py) --------------------------------------------------------------------------


def test_a_device_is_its_mac_with_all_its_addresses():
    log = EventLog()
    log.connect(0, orig=CAMERA)
    log.connect(1, orig="fd00::23")
    log.connect(2, orig="192.168.1.99", vlan=7)
    tables = watch(log)
    (row,) = rows_of(tables)
    assert key_text(tables, row) == "44:19:b6:0a:0b:0c"
    assert addresses(tables, row) == ("192.168.1.99", "fd00::23", CAMERA)
    assert total(tables, row, Count.SMTP25) == 3


def test_the_latest_addresses_are_kept():
    log = EventLog()
    for i in range(10):
        log.connect(600.0 * i, orig=f"192.168.1.{i + 1}")
    tables = watch(log)
    assert addresses(tables, row_of(tables)) == tuple(f"192.168.1.{i}" for i in range(10, 2, -1))


@pytest.mark.parametrize(
    ("n_addresses", "every_s", "is_router"),
    [(4, 1.0, False), (5, 1.0, True), (8, 1.0, True), (8, 301.0, False)],
)
def test_a_mac_with_more_addresses_than_a_host_has_is_a_router(n_addresses, every_s, is_router):
    log = EventLog()
    for i in range(n_addresses):
        log.connect(every_s * i, orig=f"192.168.1.{i + 1}")
    log.connect(every_s * n_addresses, orig="192.168.1.1")
    tables = watch(log)
    assert ("192.168.1.1" in keys(tables)) == is_router
    assert is_known_router(tables, CAMERA_MAC) == is_router


def test_many_ipv6_addresses_are_one_host():
    log = EventLog()
    for i in range(20):
        log.connect(i, orig=f"fd00::{i + 1:x}")
    assert keys(watch(log)) == ["44:19:b6:0a:0b:0c"]


def test_behind_a_router_the_key_is_the_address_and_vlan():
    log = EventLog()
    log.connect(0, mac=PRINTER_MAC, resp_mac=GATEWAY_MAC)  # the gateway carries outside addresses
    log.connect(1, orig="192.168.2.5", mac=GATEWAY_MAC)
    log.connect(2, orig="192.168.2.5", mac=GATEWAY_MAC, vlan=30)
    log.connect(3, orig="192.168.2.6", mac=GATEWAY_MAC)
    log.connect(4, orig="192.168.2.5", mac=GATEWAY_MAC)
    tables = watch(log)
    assert keys(tables) == ["3c:d9:2b:00:00:01", "192.168.2.5", "192.168.2.5@30", "192.168.2.6"]
    assert [total(tables, row, Count.SMTP25) for row in rows_of(tables)] == [1, 2, 1, 1]


def test_behind_a_router_the_mac_is_not_known():
    log = EventLog()
    log.connect(0)
    log.connect(1, orig="192.168.2.5", mac=GATEWAY_MAC)
    tables = watch(log)
    assert tables.devices[rows_of(tables)[1]]["mac"] == -1


@pytest.mark.parametrize("mac", [-1, 0, 0xFFFFFFFFFFFF, 0x01005E000001])
def test_without_a_mac_of_one_host_the_key_is_the_address(mac):
    log = EventLog()
    log.connect(0, mac=mac, resp_mac=-1)
    tables = watch(log)
    assert keys(tables) == [CAMERA]
    assert not tables.routers["mac"].any()


@pytest.mark.parametrize(
    "address", ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "ff02::1"]
)
def test_only_unicast_addresses_are_noted(address):
    log = EventLog()
    log.connect(0, orig=address)
    tables = watch(log, home_nets=(Network("0.0.0.0/0"), Network("::/0")))
    assert addresses(tables, row_of(tables)) == ()


def test_a_device_names_itself_in_dhcp():
    log = EventLog()
    log.add(EventKind.DHCP, 0, orig=CAMERA, text=b"cam\x07garage")
    log.add(EventKind.ARP, 1, orig="192.168.1.24")
    tables = watch(log)
    row = row_of(tables)
    assert host_name(tables, row) == "cam\\x07garage"
    assert addresses(tables, row) == ("192.168.1.24", CAMERA)
    assert not tables.devices[row]["has_mail"]


def test_a_name_comes_before_the_address():
    log = EventLog()
    log.add(EventKind.DHCP, 0, orig="::", text=b"cam")
    tables = watch(log)
    assert host_name(tables, row_of(tables)) == "cam"
    assert addresses(tables, row_of(tables)) == ()


@pytest.mark.parametrize("orig", ["::", "203.0.113.9", "224.0.0.251"])
def test_a_claim_to_no_home_address_is_no_device(orig):
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=orig)
    assert rows_of(watch(log)) == []


def test_a_long_name_is_cut():
    log = EventLog()
    log.add(EventKind.DHCP, 0, text=b"x" * 200)
    tables = watch(log)
    assert host_name(tables, row_of(tables)) == "x" * MAX_NAME_BYTES


@given(st.lists(st.tuples(st.integers(0, 39), st.booleans()), min_size=1, max_size=60))
def test_rows_and_devices_match_as_long_as_there_is_room(seen):
    """Against a dictionary: every MAC has one row, its totals and its first and last time are right."""
    expected: dict[int, list[int]] = {}
    log = EventLog()
    for i, (device, mails) in enumerate(seen):
        mac = CAMERA_MAC + device
        if mails:
            log.connect(i, orig=f"10.0.0.{device + 1}", mac=mac)
        else:
            log.add(EventKind.ARP, i, orig=f"10.0.0.{device + 1}", mac=mac)
        expected.setdefault(mac, [i, i, 0])
        expected[mac][1] = i
        expected[mac][2] += mails
    tables = watch(log)
    found = {
        int(tables.devices[row]["mac"]): [
            (int(tables.devices[row]["first_ns"]) - START_NS) // SECOND_NS,
            (int(tables.devices[row]["last_ns"]) - START_NS) // SECOND_NS,
            total(tables, row, Count.SMTP25),
        ]
        for row in rows_of(tables)
    }
    assert found == expected
    assert tables.evictions.sum() == 0


# --- a full table -------------------------------------------------------------------------------------------


def full_of(n_rows: int, *, mails: bool) -> tuple[EventLog, DeviceTables]:
    """Devices, six seconds apart, that fill a table of MAX_PROBES rows."""
    log = EventLog()
    for i in range(n_rows):
        orig, mac = f"10.0.0.{i + 1}", CAMERA_MAC + i
        if mails:
            log.connect(6 * i, orig=orig, mac=mac)
        else:
            log.add(EventKind.ARP, 6 * i, orig=orig, mac=mac)
    return log, new_tables(n_devices=MAX_PROBES)


def test_when_full_the_one_not_seen_for_longest_makes_room():
    log, tables = full_of(MAX_PROBES + 3, mails=True)
    observe(tables, log)
    assert {int(tables.devices[row]["mac"]) for row in rows_of(tables)} == {
        CAMERA_MAC + i for i in range(3, MAX_PROBES + 3)
    }
    assert tables.evictions[Eviction.DEVICE] == 3
    assert len(set(tables.devices["serial"].tolist())) == MAX_PROBES


def test_when_full_those_without_mail_make_room_first():
    log, tables = full_of(MAX_PROBES - 1, mails=True)
    log.add(EventKind.ARP, 1000, orig="10.0.1.1", mac=PRINTER_MAC)  # seen last, but silent
    log.connect(1001, orig="10.0.1.2", mac=SERVER_MAC)
    observe(tables, log)
    macs = set(tables.devices["mac"].tolist())
    assert PRINTER_MAC not in macs
    assert {SERVER_MAC, CAMERA_MAC} <= macs


def test_a_row_that_is_used_again_remembers_nothing():
    log, tables = full_of(MAX_PROBES, mails=True)
    at_s = 10_000.0
    for i in range(40):  # all kinds of news about the device that will have to go
        log.query(at_s + i, qtype=QType.MX)
        flow = log.connect(at_s + i, resp=f"203.0.113.{i}", port=25)
        log.greet(at_s + i, b"name%d" % i)
        log.reply(at_s + i, 450, resp=f"203.0.113.{i}")
        log.reply(at_s + i, 550, flags=int(EventFlag.BLOCKLISTED))
        log.message(at_s + i)
        log.close(at_s + i, fate=Fate.UNANSWERED, flow_id=flow)
    for i in range(1, MAX_PROBES):
        log.connect(at_s + 100 + i, orig=f"10.0.0.{i + 1}", mac=CAMERA_MAC + i)
    log.connect(at_s + 200, orig=PRINTER, mac=PRINTER_MAC)
    observe(tables, log)
    row = row_of(tables, PRINTER_MAC)
    assert CAMERA_MAC not in tables.devices["mac"]

    alone = EventLog()
    alone.connect(at_s + 200, orig=PRINTER, mac=PRINTER_MAC)
    expected = watch(alone)
    np.testing.assert_array_equal(
        features_of(tables, row), features_of(expected, row_of(expected, PRINTER_MAC))
    )
    assert {Count(k) for k in np.flatnonzero(tables.totals[row])} == {Count.SMTP25, Count.NEW_25}
    assert len(list(flow_examples(tables, row))) == 1
    assert addresses(tables, row) == (PRINTER,)


def test_names_of_a_connection_that_was_open_already_are_forgotten_too():
    log = EventLog()
    log.greet(0, b"a.example")
    log.greet(1, b"b.example")
    tables = new_tables(n_devices=MAX_PROBES)
    for i in range(MAX_PROBES):
        log.connect(10 + i, orig=f"10.0.0.{i + 1}", mac=PRINTER_MAC + i)
    observe(tables, log)
    assert CAMERA_MAC not in tables.devices["mac"]
    assert not tables.helo.any()


@pytest.mark.parametrize("every_s", [0.01, 6.0])
def test_more_devices_than_rows_do_no_harm(every_s):
    """In one tick, and one after the other: the lists of rows with news stay as long as the table at most."""
    log = EventLog()
    for i in range(3 * MAX_PROBES):
        log.connect(every_s * i, orig=f"10.0.0.{i + 1}", mac=CAMERA_MAC + i)
    tables = new_tables(n_devices=MAX_PROBES)
    observe(tables, log, ends_windows=False)
    assert tables.clock[0]["n_window"] <= MAX_PROBES
    assert len(set(tables.window[: tables.clock[0]["n_window"]].tolist())) == tables.clock[0]["n_window"]


# --- known servers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [Network("192.168.1.10"), Network("192.168.1.0/28"), Mac("00:25:90:4a:10:0a")]
)
def test_known_servers_are_known_by_address_or_mac(name):
    log = EventLog()
    log.connect(0, orig=SERVER, mac=SERVER_MAC)
    log.connect(1, orig=CAMERA)
    tables = watch(log, mail_servers=(name,))
    assert [bool(tables.devices[row]["is_known_server"]) for row in rows_of(tables)] == [True, False]
    assert features_of(tables, row_of(tables, SERVER_MAC))[Feature.KNOWN_SERVER] == 1


# --- who was told which address (resolution.py), through the share of unresolved connections ----------------


def unresolved(log: EventLog, mac: int = CAMERA_MAC, **site: Any) -> tuple[int, int]:
    """(connections to addresses that it never looked up, connections at which its DNS was visible)."""
    tables = watch(log, **site)
    row = row_of(tables, mac)
    return total(tables, row, Count.UNRESOLVED), total(tables, row, Count.RESOLVABLE)


def test_without_visible_dns_nothing_is_known():
    log = EventLog()
    log.connect(0)
    assert unresolved(log) == (0, 0)
    tables = watch(log)
    assert np.isnan(features_of(tables, row_of(tables))[Feature.UNRESOLVED_SHARE])


@pytest.mark.parametrize(
    ("ttl_s", "after_s", "is_known"),
    [
        (300, 1, True),
        (300, 300 + HOUR_S, True),
        (300, 301 + HOUR_S, False),
        (0, HOUR_S, True),
        (86400, 80000, True),
    ],
)
def test_an_answer_counts_for_its_ttl_and_an_hour(ttl_s, after_s, is_known):
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.answer(0, b"mx.example.com", OUTSIDE, ttl_s=ttl_s)
    log.connect(after_s)
    assert unresolved(log) == (0 if is_known else 1, 1)


def test_an_answer_is_for_the_device_that_asked():
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.query(0, orig=PRINTER, mac=PRINTER_MAC)
    log.respond(0, orig=PRINTER, mac=PRINTER_MAC)
    log.answer(1, b"mx.example.com", OUTSIDE, orig=PRINTER, mac=PRINTER_MAC)
    log.connect(2)
    log.connect(2, orig=PRINTER, mac=PRINTER_MAC)
    assert unresolved(log) == (1, 1)
    assert unresolved(log, PRINTER_MAC) == (0, 1)


def test_an_answer_follows_the_device_to_its_other_address():
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.answer(0, b"mx.example.com", "2001:db8::25")
    log.connect(1, orig="fd00::23", resp="2001:db8::25")
    assert unresolved(log) == (0, 1)


def test_what_the_sites_resolver_was_told_all_may_know():
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.respond(0, resp_mac=SERVER_MAC)  # the server answers others, so it is a resolver
    log.answer(1, b"mx.example.com", OUTSIDE, orig=RESOLVER, mac=SERVER_MAC, resp=OUTSIDE_RESOLVER)
    log.connect(2)
    assert unresolved(log) == (0, 1)


def test_a_device_that_answers_nobody_is_no_resolver():
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.respond(0, resp_mac=SERVER_MAC, rcode=5)  # it refused
    log.answer(1, b"mx.example.com", OUTSIDE, orig=RESOLVER, mac=SERVER_MAC, resp=OUTSIDE_RESOLVER)
    log.connect(2)
    assert unresolved(log) == (1, 1)


def test_answers_of_other_kinds_tell_no_address():
    log = EventLog()
    log.query(0)
    log.respond(0)
    log.add(EventKind.DNS_ANSWER, 0, text=b"mx.example.com", code=int(QType.MX), aux=OUTSIDE, ttl_s=300)
    log.connect(1)
    assert unresolved(log) == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 7200), st.booleans()), max_size=60))
def test_answers_against_a_dictionary(steps):
    """Ask for an address or connect to it, at any time, in a table with room for all."""
    expires: dict[int, float] = {}
    log = EventLog()
    log.query(0)
    log.respond(0)
    at_s, n_unresolved, n_connections = 0.0, 0, 0
    for number, value, asks in steps:
        address = f"203.0.113.{number}"
        if asks:
            log.answer(at_s, b"mx%d.example.com" % number, address, ttl_s=value)
            expires[number] = at_s + value + HOUR_S
        else:
            at_s += value
            log.connect(at_s, resp=address)
            n_connections += 1
            n_unresolved += expires.get(number, -1) < at_s
    assert unresolved(log) == (n_unresolved, n_connections)


def test_a_full_table_loses_what_expires_first_and_counts_it():
    tables = new_tables(n_answers=MAX_PROBES)
    log = EventLog()
    log.query(0)
    log.respond(0)
    for i in range(MAX_PROBES + 2):
        log.answer(1, b"mx.example.com", f"203.0.113.{i}", ttl_s=1000 - i)
    observe(tables, log)
    assert tables.evictions[Eviction.DNS_ANSWER] == 2
    kept = {int(lo) & 0xFF for lo in tables.answers["lo"]}
    # The last came when all rows were taken: of those that were there, the two that expire first are gone.
    assert kept == set(range(MAX_PROBES + 2)) - {MAX_PROBES - 1, MAX_PROBES}


def test_what_has_expired_is_no_loss():
    tables = new_tables(n_answers=MAX_PROBES)
    log = EventLog()
    for i in range(MAX_PROBES):
        log.answer(0, b"old.example", f"203.0.113.{i}", ttl_s=1)
    for i in range(MAX_PROBES):
        log.answer(2 * HOUR_S, b"new.example", f"198.51.100.{i}")
    observe(tables, log)
    assert tables.evictions[Eviction.DNS_ANSWER] == 0
    assert all(bytes(name[:11]) == b"new.example" for name in tables.answer_names)


def test_names_are_kept_with_the_answer():
    log = EventLog()
    log.answer(0, b"mx1.example.com", OUTSIDE)
    log.connect(1)
    tables = watch(log)
    ((_, name),) = flow_examples(tables, row_of(tables))
    assert name == "mx1.example.com"
    assert set(tables.answers["serial"].tolist()) == {-1, int(tables.devices[row_of(tables)]["serial"])}
    assert SITE_SERIAL not in tables.answers["serial"]


# --- operators (operators.py), through the number of distinct ones ------------------------------------------


def n_operators(names: list[bytes | None], addresses_: list[str]) -> int:
    log = EventLog()
    for name, address in zip(names, addresses_, strict=True):
        if name is not None:
            log.answer(0, name, address)
        log.connect(1, resp=address)
    tables = watch(log)
    return int(features_of(tables, row_of(tables))[Feature.OPERATORS25_24H])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([b"mx1.example.com", b"mx2.example.com"], 1),
        ([b"example.com", b"a.b.c.example.com"], 1),
        ([b"mx.example.com", b"mx.example.net"], 2),
        ([b"mx.notexample.com", b"mx.example.com"], 2),
        ([b"mx1.firm.co.uk", b"mx2.firm.co.uk"], 1),
        ([b"mx.firm.co.uk", b"mx.other.co.uk"], 2),
        ([b"mx.firm.com.br", b"mx.other.com.br"], 2),
        ([b"mx1.provider.de", b"mx2.provider.de"], 1),
        ([b"mx.one.dyndns.org", b"mx.two.dyndns.org"], 2),
        ([b"mx.xn--85x722f.xn--55qx5d.cn", b"mx.other.xn--55qx5d.cn"], 2),
        ([b"localhost", b"elsewhere"], 2),
        ([b"localhost", b"localhost"], 1),
        ([b"mx.example.com", None], 2),
    ],
)
def test_an_operator_is_a_registrable_domain(names, expected):
    assert n_operators(names, ["203.0.113.1", "203.0.113.2"]) == expected


def test_a_short_domain_is_one_operator():
    assert n_operators([b"mx-ha02.web.de", b"mx-ha03.web.de"], ["203.0.113.1", "203.0.113.2"]) == 1


@pytest.mark.parametrize(
    ("addresses_", "expected"),
    [
        (["203.0.113.1", "203.0.113.254"], 1),
        (["203.0.113.1", "203.0.112.1"], 2),
        (["2001:db8:1::1", "2001:db8:1:ffff::1"], 1),
        (["2001:db8:1::1", "2001:db8:2::1"], 2),
        (["fec0:1:2::1", "fec0:1:2:3::1"], 1),
        (["203.0.113.1", "2001:db8:1::1"], 2),
    ],
)
def test_without_a_name_the_network_is_the_operator(addresses_, expected):
    assert n_operators([None] * len(addresses_), addresses_) == expected


@given(st.sets(st.integers(0, 250), min_size=1, max_size=16))
def test_operators_are_counted_exactly_while_there_is_room(networks):
    assert n_operators([None] * len(networks), [f"198.51.{number}.1" for number in networks]) == len(networks)


# --- exceptions (exceptions.py) -----------------------------------------------------------------------------

EXPIRES = Instant(datetime(2026, 11, 24, 12, tzinfo=UTC))  # noon of the day that starts at START_NS
NOON_S = 12 * HOUR_S


def rule(**names: Any) -> ExceptionRule:
    return ExceptionRule(reason="known", expires=EXPIRES, **names)


def excepted(rule_: ExceptionRule, *, at_s: float = 10.0, resp: str = OUTSIDE) -> bool:
    """Whether the mail of a camera is passed over: "CAM-Garage", which knows OUTSIDE as mx.example.com."""
    log = EventLog()
    log.add(EventKind.DHCP, at_s - 3, text=b"CAM-Garage")
    log.query(at_s - 2)
    log.answer(at_s - 2, b"mx.example.com", OUTSIDE)
    flow = log.connect(at_s, resp=resp)
    log.greet(at_s, b"cam", resp=resp)
    log.reply(at_s, 550, resp=resp)
    log.message(at_s, resp=resp)
    log.close(at_s, resp=resp, flow_id=flow)
    tables = watch(log, exceptions=(rule_,))
    mail = tables.totals[row_of(tables)].sum() - total(tables, row_of(tables), Count.DNS)
    assert (mail == 0) == (tables.clock[0]["excepted"] == 1)
    return bool(mail == 0)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Mac("44:19:b6:0a:0b:0c"), True),
        (Mac("44:19:b6:0a:0b:0d"), False),
        (Network(CAMERA), True),
        (Network("192.168.1.0/24"), True),
        (Network("192.168.2.0/24"), False),
        (HostName("cam-garage"), True),
        (HostName("cam-garag"), False),
        (HostName("cam-garages"), False),
        (HostName("garage"), False),
    ],
)
def test_an_exception_by_device(device, expected):
    assert excepted(rule(device=device)) == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Network(OUTSIDE), True),
        (Network("203.0.113.0/24"), True),
        (Network("198.51.100.0/24"), False),
        (Network("2001:db8::/32"), False),
        (HostName("mx.example.com"), True),
        (HostName("example.com"), True),
        (HostName("com"), True),
        (HostName("x.example.com"), False),
        (HostName("ample.com"), False),
        (HostName("mx.example.com.net"), False),
    ],
)
def test_an_exception_by_destination(destination, expected):
    assert excepted(rule(destination=destination)) == expected


@pytest.mark.parametrize("device", [CAMERA, PRINTER])
@pytest.mark.parametrize("destination", ["example.com", "example.net"])
def test_an_exception_of_a_pair_needs_both(device, destination):
    pair = rule(device=Network(device), destination=HostName(destination))
    assert excepted(pair) == (device == CAMERA and destination == "example.com")


def test_a_name_that_the_device_never_looked_up_excepts_nothing():
    assert not excepted(rule(destination=HostName("example.com")), resp="203.0.113.6")


def test_an_exception_by_domain_holds_for_what_the_sites_resolver_was_told():
    log = EventLog()
    log.respond(0, resp_mac=SERVER_MAC)
    log.answer(1, b"mx.example.com", OUTSIDE, orig=RESOLVER, mac=SERVER_MAC, resp=OUTSIDE_RESOLVER)
    log.connect(2)
    assert watch(log, exceptions=(rule(destination=HostName("example.com")),)).clock[0]["excepted"] == 1


@pytest.mark.parametrize(("at_s", "holds"), [(NOON_S - 0.001, True), (NOON_S, False)])
def test_an_exception_expires_by_packet_time(at_s, holds):
    assert excepted(rule(device=Network(CAMERA)), at_s=at_s) == holds


def test_one_of_several_exceptions_is_enough():
    log = EventLog()
    log.connect(0)
    others = (rule(device=Network(PRINTER)), rule(destination=HostName("example.org")))
    assert watch(log, exceptions=(*others, rule(device=Network(CAMERA)))).clock[0]["excepted"] == 1
    assert watch(log, exceptions=others).clock[0]["excepted"] == 0


def test_an_exception_may_be_for_ever():
    for_ever = ExceptionRule(device=Network(CAMERA), reason="known", expires=Instant(date(9999, 12, 30)))
    describe_site(Config(exceptions=(for_ever,)))


# --- which end of a connection (activity.py) ----------------------------------------------------------------


def test_both_ends_of_a_local_connection_are_devices():
    log = EventLog()
    flow = log.connect(0, resp=SERVER, resp_mac=SERVER_MAC)
    log.reply(1, 220, Verb.NONE, resp=SERVER, resp_mac=SERVER_MAC)
    log.message(2, resp=SERVER, resp_mac=SERVER_MAC)
    log.close(3, resp=SERVER, resp_mac=SERVER_MAC, flow_id=flow)
    tables = watch(log)
    camera, server = row_of(tables), row_of(tables, SERVER_MAC)
    assert {Count(k): int(n) for k, n in enumerate(tables.totals[camera]) if n} == {Count.LOCAL: 1}
    assert {Count(k): int(n) for k, n in enumerate(tables.totals[server]) if n} == {
        Count.INBOUND_LOCAL: 1,
        Count.INBOUND_GREETED: 1,
        Count.INBOUND_MESSAGES: 1,
    }
    assert tables.clock[0]["n_dirty"] == 0  # what stays inside is nothing to judge


@pytest.mark.parametrize("n", [0, 1, 3])
def test_mail_that_a_device_takes_in_under_tls_is_inferred(n):
    log = EventLog()
    outside = {"orig": OUTSIDE, "mac": GATEWAY_MAC, "resp": SERVER, "resp_mac": SERVER_MAC}
    flow = log.connect(0, **outside)
    log.close(1, fate=Fate.TLS, count=n, flags=EventFlag.TLS | EventFlag.INFERRED, flow_id=flow, **outside)
    tables = watch(log)
    assert tables.totals[row_of(tables, SERVER_MAC), Count.INBOUND_MESSAGES] == n


def test_mail_from_outside_counts_for_the_server_alone():
    log = EventLog()
    log.connect(0, orig=OUTSIDE, mac=GATEWAY_MAC, resp=SERVER, resp_mac=SERVER_MAC)
    log.message(1, 550, orig=OUTSIDE, mac=GATEWAY_MAC, resp=SERVER, resp_mac=SERVER_MAC)
    tables = watch(log)
    (row,) = rows_of(tables)
    assert {Count(k): int(n) for k, n in enumerate(tables.totals[row]) if n} == {Count.INBOUND: 1}
    assert is_known_router(tables, GATEWAY_MAC)


def test_mail_between_strangers_is_nobodys():
    log = EventLog()
    log.connect(0, orig=OUTSIDE, mac=GATEWAY_MAC, resp="198.51.100.1")
    assert rows_of(watch(log)) == []


# --- when a verdict is due ----------------------------------------------------------------------------------


def due_times(log: EventLog, batch: int = 1 << 30) -> list[float]:
    times: list[float] = []
    observe(new_tables(), log, lambda now_ns: times.append((now_ns - START_NS) / SECOND_NS), batch=batch)
    return times


def test_a_verdict_is_due_at_the_next_tick():
    log = EventLog()
    log.connect(1)
    log.add(EventKind.ARP, 4.999)
    assert due_times(log) == []
    log.add(EventKind.ARP, 7)
    assert due_times(log) == [5.0]


def test_without_news_no_tick_is_due():
    log = EventLog()
    for i in range(100):
        log.add(EventKind.ARP, i)
    assert due_times(log) == []


def test_much_evidence_is_due_at_once():
    log = EventLog()
    for i in range(EVIDENCE_STEP + 1):
        log.connect(1 + i / 10, resp=f"203.0.113.{i}")
    assert due_times(log) == pytest.approx([1 + (EVIDENCE_STEP - 1) / 10])


def test_the_more_there_was_the_more_it_takes():
    log = EventLog()
    for i in range(200):
        log.connect(1 + i / 100, resp=f"203.0.113.{i}")
    steps = np.rint((np.array([0.99, *due_times(log)]) - 0.99) * 100)  # connections seen at each verdict
    gaps = np.diff(steps)
    assert len(gaps) > 5
    assert (gaps >= EVIDENCE_STEP).all()
    since_first = np.maximum(steps[:-1] - steps[1], 0)  # each five minutes begin at the first verdict in them
    assert (gaps >= EVIDENCE_STEP_SHARE * since_first).all()


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_where_batches_end_makes_no_difference(steps, batch):
    log = EventLog()
    at_s = 0.0
    for pause_s, device, what in steps:
        at_s += pause_s
        who: dict[str, Any] = {"orig": f"192.168.1.{device + 2}", "mac": CAMERA_MAC + device}
        if what == 0:
            log.query(at_s, qtype=QType.MX, **who)
        elif what == 1:
            log.reply(at_s, 550, **who)
        elif what == 2:
            log.add(EventKind.ARP, at_s, **who)
        else:
            log.connect(at_s, resp=f"203.0.113.{what}", **who)
    assert due_times(log) == due_times(log, batch)
    whole, pieces = new_tables(), new_tables()
    observe(whole, log)
    observe(pieces, log, batch=batch)
    for name, left, right in zip(whole._fields, whole, pieces, strict=True):
        assert left.tobytes() == right.tobytes(), name


def test_time_never_runs_backwards():
    log = EventLog()
    log.connect(100)
    log.connect(50)
    tables = watch(log)
    assert tables.clock[0]["now_ns"] == START_NS + 100 * SECOND_NS
    assert tables.devices[row_of(tables)]["last_ns"] == START_NS + 100 * SECOND_NS


# --- reading the table (view.py) ----------------------------------------------------------------------------


def test_flow_examples_are_the_first_and_the_latest():
    log = EventLog()
    flows = [log.connect(i, resp=f"203.0.113.{i}", orig_port=4000 + i) for i in range(10)]
    for i, flow in enumerate(flows[:-1]):
        log.close(20 + i, resp=f"203.0.113.{i}", fate=Fate.REJECTED, flow_id=flow)
    tables = watch(log)
    examples = [example for example, _ in flow_examples(tables, row_of(tables))]
    assert len(examples) == N_FLOW_EXAMPLES
    assert examples[0]["orig_port"] == 4000
    assert {int(e["orig_port"]) for e in examples[1:]} == {4008, 4009}
    assert {int(e["orig_port"]): int(e["fate"]) for e in examples} == {
        4000: Fate.REJECTED,
        4008: Fate.REJECTED,
        4009: -1,  # open still
    }


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_flows_are_fewer_examples(n):
    log = EventLog()
    log.add(EventKind.ARP, 0)
    for i in range(n):
        log.connect(i)
    tables = watch(log)
    assert len(list(flow_examples(tables, row_of(tables)))) == n


@pytest.mark.parametrize(
    ("mac", "vendor"),
    [
        (-1, None),
        (0x0025904A100A, "Super Micro Computer, Inc."),
        (0x02608C000001, None),  # locally administered, though 3Com had this block once
        (0xFCFFFFFFFFFF, None),
    ],
)
def test_vendors_are_those_of_assigned_macs(mac, vendor):
    assert vendor_of(mac) == vendor


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(0, 0, None), (0, 4, 0.0), (1, 4, 0.25), (5, 4, 1.0)]
)
def test_shares(part, whole, expected):
    assert share_of(part, whole) == expected


def test_retention_is_a_day():
    """The slots of a day and the days of a past slide while the device is silent, too."""
    log = EventLog()
    log.connect(0)
    tables = watch(log)
    row = row_of(tables)
    assert features_of(tables, row, START_NS + DAY_NS - 1)[Feature.SMTP25_24H] == 1
    assert features_of(tables, row, START_NS + DAY_NS)[Feature.SMTP25_24H] == 0
    assert features_of(tables, row, START_NS + 13 * DAY_NS)[Feature.ACTIVE_DAYS_14] == 1
    assert features_of(tables, row, START_NS + 14 * DAY_NS)[Feature.ACTIVE_DAYS_14] == 0
    assert total(tables, row, Count.SMTP25) == 1
