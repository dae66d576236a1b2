"""One device is one row, whatever it is called: addresses, leases, routers and MAC addresses that change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from device_events import (
    CAMERA,
    CAMERA_MAC,
    GATEWAY_MAC,
    OUTSIDE,
    PRINTER,
    PRINTER_MAC,
    SERVER_MAC,
    EventLog,
    new_tables,
    observe,
    row_of,
    rows_of,
)

from sensor.config import Config, Network
from sensor.decode.facts import FactKind, FactSource
from sensor.decode.nd import NEIGHBOUR_ADVERTISEMENT, ROUTER_ADVERTISEMENT
from sensor.devices.clients import SILENT_NS
from sensor.devices.routers import N_OWN_NETWORKS
from sensor.devices.table import MAX_HINT_BYTES, N_HINTS, SECOND_NS, Count, DeviceTables
from sensor.devices.view import addresses, hints, host_name, key_text, look_at_kinds, total
from sensor.events.types import EventKind, Fate, Verb
from sensor.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sensor.devices.kinds import Hint

pytestmark = pytest.mark.kernel

GLOBAL, OTHER_GLOBAL, OUTSIDE_V6 = "2001:db8:1::23", "2001:db8:1:0:a::1", "2001:db8:ffff::25"
LINK_LOCAL = "fe80::1"
PHONE_MACS = (0x0A0000000001, 0x0E0000000002, 0x060000000003)


def watch(log: EventLog, **site: Any) -> DeviceTables:
    tables = new_tables(Config(**site))
    observe(tables, log)
    return tables


def mailed(tables: DeviceTables) -> dict[str, int]:
    """Mail connections of each device that has any, by its key."""
    counted = {key_text(tables, row): total(tables, row, Count.SMTP25) for row in rows_of(tables)}
    return {key: n for key, n in counted.items() if n}


def mac_key(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


def told(tables: DeviceTables, mac: int = CAMERA_MAC) -> list[Hint]:
    return list(hints(tables, row_of(tables, mac)))


# --- the address and the MAC address ------------------------------------------------------------------------


def test_a_device_is_known_behind_a_router_by_what_the_lan_says():
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=CAMERA)
    log.connect(1)
    log.connect(2, mac=GATEWAY_MAC, vlan=99)  # behind the router, in another VLAN
    log.connect(3, mac=-1)  # without a link layer
    assert mailed(watch(log)) == {mac_key(CAMERA_MAC): 3}


def test_of_two_vlans_with_the_same_addresses_nobody_is_taken_for_the_other():
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=CAMERA, vlan=10)
    log.add(EventKind.ARP, 0, orig=CAMERA, mac=PRINTER_MAC, vlan=20)
    log.connect(1, mac=-1, vlan=10)
    log.connect(2, mac=-1, vlan=20)
    log.connect(3, mac=-1, vlan=30)
    keys = {mac_key(CAMERA_MAC): 1, mac_key(PRINTER_MAC): 1, f"{CAMERA}@30": 1}
    assert mailed(watch(log)) == keys


def test_a_connection_that_ends_late_gives_no_address_back():
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=CAMERA)
    log.connect(1)
    log.add(EventKind.ARP, 10, orig=CAMERA, mac=PRINTER_MAC)
    log.close(90)  # by its time-out
    tables = watch(log)
    assert addresses(tables, row_of(tables)) == ()
    assert addresses(tables, row_of(tables, PRINTER_MAC)) == (CAMERA,)


def test_what_was_begun_before_a_lease_moved_is_its_first_holders():
    log = EventLog()
    log.add(EventKind.DHCP, 0, orig=CAMERA)
    flows = [log.connect(1 + i, mac=-1) for i in range(5)]
    log.add(EventKind.DHCP, 20, orig=CAMERA, mac=PRINTER_MAC)
    for flow in flows:
        log.reply(30, 550, mac=-1, flow_id=flow)
        log.close(90, mac=-1, flow_id=flow, fate=Fate.UNANSWERED)
    log.connect(100, mac=-1)
    tables = watch(log)
    counted = [
        [
            total(tables, row_of(tables, mac), what)
            for what in (Count.SMTP25, Count.REJECTED_5XX, Count.UNANSWERED)
        ]
        for mac in (CAMERA_MAC, PRINTER_MAC)
    ]
    assert counted == [[5, 5, 5], [1, 0, 0]]


@pytest.mark.parametrize("kind", [EventKind.ARP, EventKind.DHCP])
def test_a_lease_that_moves_takes_no_blame_along(kind):
    log = EventLog()
    log.add(kind, 0, orig=CAMERA)
    for i in range(5):
        log.connect(i, mac=-1)  # only the address is seen of it
    log.add(kind, 100, orig=CAMERA, mac=PRINTER_MAC)  # the printer gets the camera's address
    log.add(kind, 101, orig=PRINTER)
    log.connect(102, mac=-1)
    tables = watch(log)
    assert mailed(tables) == {mac_key(CAMERA_MAC): 5, mac_key(PRINTER_MAC): 1}
    assert addresses(tables, row_of(tables)) == (PRINTER,)
    assert addresses(tables, row_of(tables, PRINTER_MAC)) == (CAMERA,)


def test_a_relayed_lease_names_the_device_and_the_relay_is_a_router():
    log = EventLog()
    log.add(EventKind.DHCP, 0, orig="192.168.7.5", mac=CAMERA_MAC, resp_mac=SERVER_MAC)
    log.connect(1, orig="192.168.7.5", mac=SERVER_MAC)
    log.connect(2, orig="192.168.7.6", mac=SERVER_MAC)
    assert mailed(watch(log)) == {mac_key(CAMERA_MAC): 1, "192.168.7.6": 1}


# --- IPv6 ---------------------------------------------------------------------------------------------------


def test_all_addresses_of_a_device_are_one_device():
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=CAMERA)
    for address in (LINK_LOCAL, GLOBAL, OTHER_GLOBAL, "fd00::5"):
        log.add(EventKind.ND, 1, orig=address, code=NEIGHBOUR_ADVERTISEMENT)
    log.connect(2)
    for address in (GLOBAL, OTHER_GLOBAL, "fd00::5"):
        log.connect(3, orig=address, resp=OUTSIDE_V6)
    tables = watch(log)
    assert mailed(tables) == {mac_key(CAMERA_MAC): 4}
    assert set(addresses(tables, row_of(tables))) == {CAMERA, LINK_LOCAL, GLOBAL, OTHER_GLOBAL, "fd00::5"}


def test_mail_to_a_global_address_of_the_site_is_inbound():
    log = EventLog()
    log.add(EventKind.ND, 0, orig=GLOBAL, code=NEIGHBOUR_ADVERTISEMENT)
    log.connect(1, orig=OUTSIDE_V6, mac=GATEWAY_MAC, resp=GLOBAL, resp_mac=CAMERA_MAC)
    tables = watch(log)
    assert mailed(tables) == {}
    assert total(tables, row_of(tables), Count.INBOUND) == 1


def test_an_address_of_a_provider_makes_no_router_of_a_device():
    log = EventLog()
    for i in range(3):
        log.connect(i, orig=GLOBAL, resp=OUTSIDE_V6)  # nobody has said whose it is
    log.connect(5)
    assert mailed(watch(log)) == {mac_key(CAMERA_MAC): 1}


@pytest.mark.parametrize(("n", "is_router"), [(N_OWN_NETWORKS, False), (N_OWN_NETWORKS + 1, True)])
def test_addresses_of_many_networks_outside_make_a_router(n, is_router):
    log = EventLog()
    for i in range(n):
        log.connect(i, orig=f"2001:db8:{i}::1", resp=OUTSIDE_V6)
    log.connect(n)
    assert mailed(watch(log)) == {CAMERA if is_router else mac_key(CAMERA_MAC): 1}


def test_a_provider_may_change_its_network_each_day():
    log = EventLog()
    for day in range(20):
        log.connect(
            86_400 * day, orig=f"2001:db8:{day}::1", resp=OUTSIDE_V6
        )  # before it was said whose it is
        log.add(EventKind.ND, 86_400 * day + 1, orig=f"2001:db8:{day}::1", code=NEIGHBOUR_ADVERTISEMENT)
        log.connect(86_400 * day + 2, orig=f"2001:db8:{day}::1", resp=OUTSIDE_V6)
    assert mailed(watch(log)) == {mac_key(CAMERA_MAC): 20}


@pytest.mark.parametrize("trick", ["advertisement", "relay", "outside"])
def test_who_pretends_to_be_a_router_is_accused_under_its_address(trick):
    log = EventLog()
    log.add(EventKind.ND, 0, orig=GLOBAL, code=NEIGHBOUR_ADVERTISEMENT)
    if trick == "advertisement":
        log.add(EventKind.ND, 1, orig=LINK_LOCAL, code=ROUTER_ADVERTISEMENT, count=1)
    elif trick == "relay":
        log.add(EventKind.DHCP, 1, orig="192.168.7.5", mac=PRINTER_MAC, resp_mac=CAMERA_MAC)
    else:
        log.connect(1, orig=OUTSIDE)
    for i in range(3):
        log.connect(2 + i, orig=GLOBAL, resp=OUTSIDE_V6)
        log.connect(2 + i)
    assert mailed(watch(log)) == {GLOBAL: 3, CAMERA: 3}


def test_whoever_advertises_itself_as_a_router_is_one():
    log = EventLog()
    log.add(EventKind.ND, 0, orig=LINK_LOCAL, mac=SERVER_MAC, code=ROUTER_ADVERTISEMENT, count=1)
    log.connect(1, mac=SERVER_MAC)
    log.connect(2, orig=PRINTER, mac=SERVER_MAC)
    assert mailed(watch(log)) == {CAMERA: 1, PRINTER: 1}


@pytest.mark.parametrize(
    ("mac", "is_shared"),
    [
        (0x00005E000101, True),  # VRRP
        (0x00005E000201, True),
        (0x00000C07AC01, True),  # HSRP
        (0x00000C9FF123, True),
        (0x0005_73A0_0123, True),
        (0x0007B4001234, True),  # GLBP
        (0x00005E000301, False),
        (0x00000C07AD01, False),
        (0x0007B4010101, False),
    ],
)
def test_a_mac_that_routers_share_is_no_device(mac, is_shared):
    log = EventLog()
    log.connect(0, mac=mac)
    log.connect(1, orig=PRINTER, mac=mac)
    expected = {CAMERA: 1, PRINTER: 1} if is_shared else {mac_key(mac): 2}
    assert mailed(watch(log)) == expected


def test_a_host_may_have_as_many_addresses_as_it_says():
    log = EventLog()
    for i in range(8):
        log.add(EventKind.ARP, i, orig=f"192.168.1.{i + 1}")
    for i in range(8):
        log.connect(10 + i, orig=f"192.168.1.{i + 1}")
    assert mailed(watch(log)) == {mac_key(CAMERA_MAC): 8}


# --- MAC addresses that change (RFC 8415, RFC 2132 section 9.14) --------------------------------------------


def phone(macs: Sequence[int], every_s: float, identity: int = 77, address: str = CAMERA) -> EventLog:
    log = EventLog()
    for i, mac in enumerate(macs):
        at_s = i * every_s
        log.add(EventKind.DHCP, at_s, orig="::", mac=mac, text=b"phone", aux_lo=identity)
        log.add(EventKind.DHCP, at_s + 1, orig=address, mac=mac)
        log.connect(at_s + 2, mac=mac)
    return log


def test_a_phone_that_draws_a_new_mac_stays_one_device():
    tables = watch(phone(PHONE_MACS, 86_400))
    assert mailed(tables) == {mac_key(PHONE_MACS[0]): 3}
    assert len(rows_of(tables)) == 1


def test_two_at_once_are_two():
    every_s = SILENT_NS / SECOND_NS / 2
    assert len(mailed(watch(phone(PHONE_MACS[:2], every_s)))) == 2


def test_identifiers_of_firmware_join_nobody():
    assert len(mailed(watch(phone((CAMERA_MAC, PRINTER_MAC), 86_400)))) == 2  # MAC addresses of a factory
    assert len(mailed(watch(phone(PHONE_MACS, 86_400, identity=0)))) == 3


def test_a_device_that_has_been_seen_is_not_another():
    log = EventLog()
    log.connect(0, mac=PHONE_MACS[1])
    log.connect(1, mac=PHONE_MACS[0])
    log.add(EventKind.DHCP, 2, orig="::", mac=PHONE_MACS[0], aux_lo=77)
    log.add(EventKind.DHCP, 1000, orig="::", mac=PHONE_MACS[1], aux_lo=77)
    log.connect(1001, mac=PHONE_MACS[1])
    assert mailed(watch(log)) == {mac_key(PHONE_MACS[0]): 1, mac_key(PHONE_MACS[1]): 2}


def test_who_is_met_twice_at_once_was_two():
    log = phone(PHONE_MACS[:2], 86_400)
    for i in range(3):
        log.connect(90_000 + i, mac=PHONE_MACS[0])  # the first is there again
        log.connect(90_000 + i, mac=PHONE_MACS[1])
    log.add(EventKind.DHCP, 99_999, orig="::", mac=PHONE_MACS[2], aux_lo=77)
    log.connect(100_000, mac=PHONE_MACS[2])  # and nobody is joined by that identifier any more
    assert mailed(watch(log)) == {
        mac_key(PHONE_MACS[0]): 2 + 3,  # both of before they parted
        mac_key(PHONE_MACS[1]): 3,
        mac_key(PHONE_MACS[2]): 1,
    }


def test_a_client_is_known_again_without_a_name_and_after_its_first_words():
    log = EventLog()
    for i, mac in enumerate(PHONE_MACS):
        at_s = 86_400 * i
        log.add(EventKind.ND, at_s, orig=f"fe80::{i + 1}", mac=mac)
        log.add(EventKind.DHCP, at_s + 1, orig="::", mac=mac, aux_lo=77)
        log.add(EventKind.DHCP, at_s + 2, orig=CAMERA, mac=mac)
        log.connect(at_s + 3, mac=mac)
    tables = watch(log)
    assert mailed(tables) == {mac_key(PHONE_MACS[0]): 3}
    (row,) = rows_of(tables)
    assert tables.devices[row]["mac"] == PHONE_MACS[2]  # the one by which it is found today


def test_the_number_of_devices_follows_those_that_are_joined():
    pipeline = Pipeline(Config(), on_alert=lambda _: None)
    log = EventLog()
    log.add(EventKind.DHCP, 0, orig="::", mac=PHONE_MACS[0], text=b"phone", aux_lo=77)
    log.add(EventKind.ND, 86_400, orig="fe80::2", mac=PHONE_MACS[1])
    later = EventLog()
    later.add(EventKind.DHCP, 86_401, orig="::", mac=PHONE_MACS[1], text=b"phone", aux_lo=77)
    counted = []
    for part in (log, later):
        pipeline.observe(*part.arrays())
        counted.append(pipeline.stats()["devices"])
    assert counted == [2, 1]


def test_a_group_address_is_no_devices_own():
    log = EventLog()
    log.add(EventKind.ARP, 0, orig=CAMERA)
    log.connect(1, mac=0x01005E000001)
    tables = watch(log)
    assert tables.devices[row_of(tables)]["mac"] == CAMERA_MAC


def test_a_repeater_is_not_those_behind_it():
    """Frames and ARP come from the repeater; DHCP knows its clients."""
    log = EventLog()
    for i in range(8):
        log.add(EventKind.DHCP, i, orig=f"192.168.1.{i + 1}", mac=PRINTER_MAC + i)
        log.add(EventKind.ARP, i, orig=f"192.168.1.{i + 1}", mac=GATEWAY_MAC)
    for turn in range(2):
        for i in range(8):
            log.connect(10 + 10 * turn + i, orig=f"192.168.1.{i + 1}", mac=GATEWAY_MAC, resp_mac=SERVER_MAC)
    found = mailed(watch(log))
    assert found.pop(mac_key(GATEWAY_MAC), 0) <= 5  # until it was known for one
    assert set(found) == {mac_key(PRINTER_MAC + i) for i in range(8)}


# --- what a device says of itself ---------------------------------------------------------------------------


def say(
    log: EventLog, what: FactKind, text: bytes, source: FactSource = FactSource.MDNS, **ends: Any
) -> None:
    log.add(EventKind.FACT, len(log.rows), text=text, code=int(what), enhanced=int(source), **ends)


def test_facts_are_kept_the_latest_of_each_kind():
    log = EventLog()
    say(log, FactKind.HOST_NAME, b"old")
    say(log, FactKind.SERVICE, b"_ipp._tcp")
    say(log, FactKind.SERVICE, b"_http._tcp")
    say(log, FactKind.SERVICE, b"_ipp._tcp")
    say(log, FactKind.HOST_NAME, b"new")
    say(log, FactKind.HOST_NAME, b"NEW", FactSource.NETBIOS)
    assert told(watch(log)) == [
        ("mdns", FactKind.HOST_NAME, "new"),
        ("mdns", FactKind.SERVICE, "_ipp._tcp"),
        ("mdns", FactKind.SERVICE, "_http._tcp"),
        ("netbios", FactKind.HOST_NAME, "NEW"),
    ]


def test_facts_have_their_room():
    log = EventLog()
    for i in range(N_HINTS + 5):
        say(log, FactKind.SERVICE, b"%d-" % i + b"x" * 200)
    kept = told(watch(log))
    assert len(kept) == N_HINTS
    assert {len(text) for _, _, text in kept} == {MAX_HINT_BYTES}


@pytest.mark.parametrize(
    ("more", "is_known"), [(b"_ipp._tcp", True), (b"_http._tcp", False), (None, True)], ids=str
)
def test_what_is_news_of_a_device_is_looked_at_again(more, is_known):
    log = EventLog()
    say(log, FactKind.SERVICE, b"_ipp._tcp")
    tables = watch(log)
    row = row_of(tables)
    look_at_kinds(tables, np.array([row]))
    assert tables.devices["is_kind_known"][row] == 1
    if more is not None:
        again = EventLog()
        say(again, FactKind.SERVICE, more)
        observe(tables, again)
    assert bool(tables.devices["is_kind_known"][row]) is is_known


@pytest.mark.parametrize(
    ("mac", "said", "expected"),
    [
        (CAMERA_MAC, b"door-camera", True),
        (CAMERA_MAC, b"office-pc", False),  # its vendor may make other things, too
        (SERVER_MAC, b"ipcam", False),
    ],
)
def test_two_sources_make_an_appliance(mac, said, expected):
    log = EventLog()
    say(log, FactKind.HOST_NAME, said, mac=mac)
    tables = watch(log)
    row = row_of(tables, mac)
    look_at_kinds(tables, np.array([row]))
    assert bool(tables.devices["is_appliance"][row]) is expected


def test_a_switch_says_who_it_is_without_an_address():
    log = EventLog()
    say(log, FactKind.CAPABILITIES, b"bridge", FactSource.LLDP, orig="::", mac=PRINTER_MAC)
    tables = watch(log)
    assert told(tables, PRINTER_MAC) == [("lldp", FactKind.CAPABILITIES, "bridge")]
    assert addresses(tables, row_of(tables, PRINTER_MAC)) == ()


def test_a_router_that_says_who_it_is_is_no_device():
    log = EventLog()
    log.connect(0)  # the gateway carries addresses outside
    say(log, FactKind.CAPABILITIES, b"router", FactSource.LLDP, orig="::", mac=GATEWAY_MAC)
    assert len(rows_of(watch(log))) == 1


def test_what_outsiders_say_of_themselves_is_nothing():
    log = EventLog()
    say(log, FactKind.USER_AGENT, b"curl", FactSource.HTTP, orig=OUTSIDE, mac=GATEWAY_MAC)
    assert rows_of(watch(log)) == []


def test_a_host_name_is_that_of_dhcp():
    log = EventLog()
    log.add(EventKind.DHCPV6, 0, orig="::", text=b"cam-6")
    say(log, FactKind.HOST_NAME, b"other")
    tables = watch(log)
    assert host_name(tables, row_of(tables)) == "cam-6"


# --- whose mail server it is --------------------------------------------------------------------------------


def operators(tables: DeviceTables) -> int:
    """Mail operators of the camera."""
    used = tables.operators[row_of(tables)]
    return int(((used["last_25_ns"] != 0) | (used["last_submission_ns"] != 0)).sum())


@pytest.mark.parametrize("kind", [EventKind.SMTP_REPLY, EventKind.TLS_HELLO])
def test_servers_of_one_operator_are_one_by_their_own_names(kind):
    log = EventLog()
    for i in range(6):
        resp = f"198.51.{i}.25"
        log.connect(10 * i, resp=resp)
        columns = {"code": 220, "verb": int(Verb.NONE)} if kind is EventKind.SMTP_REPLY else {}
        log.add(kind, 10 * i + 1, resp=resp, text=b"mx%d.mail.example.com" % i, **columns)
    log.connect(100, resp="198.51.3.25")
    assert operators(watch(log)) == 1


def test_a_server_cannot_take_the_names_of_others():
    log = EventLog()
    for i in range(8):
        log.connect(10 * i, resp=f"198.51.{i}.25")
        log.reply(10 * i + 1, 220, Verb.NONE, resp=f"198.51.{i}.25", text=b"mx.host-%d.example" % i)
    for i in range(8):
        log.connect(100 + 10 * i, resp=OUTSIDE)
        log.reply(101 + 10 * i, 220, Verb.NONE, resp=OUTSIDE, text=b"mx.host-%d.example" % i)
        log.reply(102 + 10 * i, 220, Verb.NONE, resp=OUTSIDE, text=b"mx.evil.example")
    assert operators(watch(log)) == 8


@pytest.mark.parametrize("name", [b"localhost.localdomain", b"ip-10-0-0-1.ec2.internal", b"mail.local"])
def test_names_that_nobody_configured_join_no_servers(name):
    log = EventLog()
    for i in range(6):
        log.connect(10 * i, resp=f"198.51.{i}.25")
        log.reply(10 * i + 1, 220, Verb.NONE, resp=f"198.51.{i}.25", text=name)
    assert operators(watch(log)) == 6


def test_dns_counts_more_than_a_greeting_and_a_greeting_more_than_a_wish():
    log = EventLog()
    log.answer(0, b"mx.dns.example", "198.51.1.25")
    for i, greeting in enumerate((b"mx.one.example", b"mx.two.example")):
        resp = f"198.51.{i + 1}.25"
        log.connect(10 * i + 1, resp=resp)
        log.add(EventKind.SMTP_REPLY, 10 * i + 2, resp=resp, text=greeting, code=220, verb=int(Verb.NONE))
        log.add(EventKind.TLS_HELLO, 10 * i + 3, resp=resp, text=b"same.example.org")
    assert operators(watch(log)) == 2


def test_public_addresses_are_at_home_if_the_site_says_so():
    log = EventLog()
    log.connect(0, orig="203.0.114.7")
    log.connect(1, orig=OUTSIDE, mac=GATEWAY_MAC, resp="203.0.114.7", resp_mac=CAMERA_MAC)
    assert mailed(watch(log)) == {}
    tables = watch(log, home_nets=(Network("203.0.114.0/24"),))
    assert mailed(tables) == {mac_key(CAMERA_MAC): 1}
    assert total(tables, row_of(tables), Count.INBOUND) == 1
