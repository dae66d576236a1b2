"""Who may say what on the LAN: from frames to events, and which of them are believed."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import builders as b
import pytest

from tests.worlds import CAMERA, PRINTER, World, run_world

if TYPE_CHECKING:
    from collections.abc import Iterable

GLOBAL = "2001:db8:1::23"
COOKIE = bytes.fromhex("63825363")


def claims(frames: Iterable[bytes]) -> list[tuple[str, str, str]]:
    """Kind, MAC address and address of each event that gives a device one."""
    world = World()
    for number, frame in enumerate(frames):
        world.add(float(number), frame)
    events: list[dict[str, Any]] = [
        json.loads(line) for line in run_world(world, with_events=True).events.splitlines()
    ]
    return [
        (event["event_type"], event["src_mac"], event["src_ip"])
        for event in events
        if event["src_ip"] != "::"
    ]


def key(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


def link_layer(kind: int, mac: int) -> bytes:
    return bytes([kind, 1]) + mac.to_bytes(6, "big")


def advertisement(mac: int, option: bytes, src: str = GLOBAL) -> bytes:
    message = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + ip_address(GLOBAL).packed + option
    return b.ether(b.IPV6, b.ipv6(b.ICMPV6, message, src=src, hop_limit=255), src=mac)


def dhcp_answer(mac: int, src_port: int, op: int = 2) -> bytes:
    """A DHCPACK that gives the printer the camera's address."""
    fixed = struct.pack(">BBBBIHH", op, 1, 6, 0, 7, 0, 0) + bytes(4) + ip_address(CAMERA.ip).packed + bytes(8)
    hardware = PRINTER.mac.to_bytes(6, "big").ljust(16, b"\0") + bytes(192)
    message = fixed + hardware + COOKIE + b"\x35\x01\x05\xff"
    return b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(message, src_port=src_port, dst_port=68)), src=mac)


@pytest.mark.parametrize("liar", [CAMERA, PRINTER])
def test_an_arp_packet_speaks_for_its_sender(liar) -> None:
    frame = b.ether(b.ARP, b.arp(operation=2, src=PRINTER.mac, src_ip=CAMERA.ip), src=liar.mac)
    assert claims([frame]) == ([("arp", key(PRINTER.mac), CAMERA.ip)] if liar is PRINTER else [])


@pytest.mark.parametrize(
    ("option", "believed"),
    [(link_layer(2, CAMERA.mac), True), (b"", True), (link_layer(2, PRINTER.mac), False)],
)
def test_neighbour_discovery_speaks_for_its_sender(option, believed) -> None:
    assert claims([advertisement(CAMERA.mac, option)]) == (
        [("nd", key(CAMERA.mac), GLOBAL)] if believed else []
    )


def test_an_address_that_is_about_to_be_used_is_claimed() -> None:
    message = struct.pack(">BBHI", 135, 0, 0, 0) + ip_address(GLOBAL).packed
    frame = b.ether(b.IPV6, b.ipv6(b.ICMPV6, message, src="::", hop_limit=255), src=CAMERA.mac)
    assert claims([frame]) == [("nd", key(CAMERA.mac), GLOBAL)]


@pytest.mark.parametrize(("src_port", "op", "believed"), [(67, 2, True), (68, 2, False), (67, 1, False)])
def test_only_a_server_gives_leases(src_port, op, believed) -> None:
    frame = dhcp_answer(CAMERA.mac, src_port, op)
    assert claims([frame]) == ([("dhcp", key(PRINTER.mac), CAMERA.ip)] if believed else [])


@pytest.mark.parametrize("lifetime", [0, 1800])
def test_a_router_advertisement_without_a_lifetime_makes_no_router(lifetime) -> None:
    message = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0) + link_layer(1, CAMERA.mac)
    frame = b.ether(b.IPV6, b.ipv6(b.ICMPV6, message, src="fe80::1", hop_limit=255), src=CAMERA.mac)
    world = World()
    world.add(0.0, frame)
    (line,) = run_world(world, with_events=True).events.splitlines()
    assert json.loads(line)["router"] is (lifetime > 0)


def test_what_looks_like_a_router_is_accused_all_the_same() -> None:
    """One router advertisement, then a flood from an IPv6 address that it has claimed before."""
    world = World()
    world.add(0.0, advertisement(CAMERA.mac, b""))
    message = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    world.add(1.0, b.ether(b.IPV6, b.ipv6(b.ICMPV6, message, src="fe80::1", hop_limit=255), src=CAMERA.mac))
    for n in range(60):
        syn = b.tcp(b"", src_port=40_000 + n, dst_port=25, flags=2, seq=n)
        world.add(
            2.0 + n / 2,
            b.ether(b.IPV6, b.ipv6(b.TCP, syn, src=GLOBAL, dst=f"2001:db8:f:{n % 12}::25"), src=CAMERA.mac),
        )
    assert set(run_world(world).started()) == {GLOBAL}
