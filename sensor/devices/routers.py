"""Which MAC addresses carry other hosts' traffic: behind them a device is its address.

Known by what they do: they send packets of addresses outside, advertise themselves (RFC 4861), relay DHCP, or have more
IPv4 addresses than one device has; or by their MAC address, where a group of routers shares it. A device that pretends
to be one gains nothing: it is accused under its address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.devices.clients import row_of_mac
from sensor.devices.table import KEY_FREE, MAX_PROBES, N_ROUTERS
from sensor.hashing import mix
from sensor.jit import inner, spliced

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Networks of which one device has addresses: of two providers, before and after they change them.
N_OWN_NETWORKS = 4
_GROUP_BIT = 1 << 40  # of a MAC address: multicast and broadcast


@inner
def is_virtual(mac: int) -> bool:
    """Tell whether a MAC address is one that routers share.

    VRRP (RFC 9568 section 7.3), HSRP and HSRP version 2 for IPv4 and IPv6 (RFC 2281 section 5.3; Cisco's registered
    blocks), GLBP.
    """
    block = mac >> 8
    if block in (0x00005E0001, 0x00005E0002, 0x00000C07AC):
        return True
    return mac >> 12 in (0x00000C9FF, 0x000573A00) or mac >> 16 == 0x0007B400


@spliced
def is_router(routers: NDArray[Any], mac: int) -> bool:
    """Tell whether a MAC is known to carry other hosts' traffic."""
    for probe in range(MAX_PROBES):
        known = routers[(mix(mac & 0x7FFFFFFF) + probe) % N_ROUTERS]
        if known["mac"] == mac:
            return bool(known["is_sure"] != 0) or is_virtual(mac)
        if known["mac"] == 0:
            break
    return is_virtual(mac)


@inner
def find_router(routers: NDArray[Any], mac: int) -> int:
    """Return the place of a MAC in the table, a new one if need be; -1 if it can be no router, or there is no room.

    A MAC that is only suspected makes room.
    """
    if mac <= 0 or mac & _GROUP_BIT != 0:
        return -1
    free = -1
    for probe in range(MAX_PROBES):
        place = (mix(mac & 0x7FFFFFFF) + probe) % N_ROUTERS
        known = routers[place]
        if known["mac"] == mac:
            return place
        if free < 0 and known["is_sure"] == 0:
            free = place
        if known["mac"] == 0:
            break
    if free >= 0:
        routers[free]["mac"] = mac
        routers[free]["network"] = 0
        routers[free]["n_networks"] = 0
    return free


@inner
def note_router(routers: NDArray[Any], devices: NDArray[Any], mac: int) -> None:
    """Note that a MAC carries other hosts' traffic. When the table is full, it is not noted."""
    place = find_router(routers, mac)
    if place >= 0 and routers[place]["is_sure"] == 0:
        routers[place]["is_sure"] = 1
        forget_device(devices, mac)


@inner
def note_outside_sender(routers: NDArray[Any], devices: NDArray[Any], mac: int, hi: int) -> None:
    """Note that a MAC sent a packet of an address outside, of which ``hi`` is the upper half.

    An IPv6 address "outside" may be the device's own, given by a provider (RFC 4862), who may change it: not so of
    N_OWN_NETWORKS and one more in between.
    """
    place = find_router(routers, mac)
    if place < 0 or routers[place]["is_sure"] != 0:
        return
    known = routers[place]
    if hi != known["network"]:
        known["network"] = hi
        known["n_networks"] = known["n_networks"] + 1
    if hi == 0 or known["n_networks"] > N_OWN_NETWORKS:
        note_router(routers, devices, mac)


@inner
def trust_network(routers: NDArray[Any], mac: int) -> None:
    """Forget what a MAC was suspected of: the networks were its own, since it has said so on the link."""
    for probe in range(MAX_PROBES):
        known = routers[(mix(mac & 0x7FFFFFFF) + probe) % N_ROUTERS]
        if known["mac"] == mac:
            known["n_networks"] = 0
        if known["mac"] in (0, mac):
            return


@inner
def forget_device(devices: NDArray[Any], mac: int) -> None:
    """Free the row that a router's MAC has as a device, unless it has mailed: its key is an address from now on."""
    row = row_of_mac(devices, mac)
    if row >= 0 and devices[max(row, 0)]["has_mail"] == 0:
        devices[row]["key_kind"] = KEY_FREE
