"""Which device an address belongs to, and which addresses are at home.

A device is its MAC address: the frame's or, behind a router, the one that said on the LAN that it has the address.
Where nobody said so the key is the address and the VLAN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.status import Eviction
from sensor.devices.clients import first_mac, part, row_of_mac
from sensor.devices.neighbours import find_neighbour, is_on_link, note_neighbour
from sensor.devices.routers import is_router, note_router, trust_network
from sensor.devices.table import (
    DAY_NS,
    ERA_NS,
    KEY_ADDRESS,
    KEY_FREE,
    KEY_MAC,
    MAX_PROBES,
    N_ADDRESSES,
    N_HINTS,
    N_HOST_ADDRESSES,
    RECENT_SLOT_NS,
    SLOT_NS,
    DeviceTables,
)
from sensor.hashing import hash_halves
from sensor.jit import i64, inlined, inner, spliced

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EVICTED = int(Eviction.DEVICE)
_GROUP_BIT = 1 << 40  # of a MAC address: multicast and broadcast
_IPV4_MAPPED = 0xFFFF << 32


@inner
def is_in_networks(networks: NDArray[np.int64], hi: int, lo: int) -> bool:
    """Tell whether an address lies in one of the networks, i8[k, 4]: network and mask, upper and lower half each."""
    for i in range(networks.shape[0]):
        if (hi & networks[i, 2]) == networks[i, 0] and (lo & networks[i, 3]) == networks[i, 1]:
            return True
    return False


@inner
def is_unicast(hi: int, lo: int) -> bool:
    """Tell whether an address can be one host's: no multicast, broadcast or unspecified address (RFC 6890)."""
    if hi == 0:
        if (lo >> 32) != 0xFFFF:
            return False  # ::, ::1 and the deprecated forms
        first = (lo >> 24) & 0xFF
        return first not in (0, 127) and first < 224
    return ((hi >> 56) & 0xFF) != 0xFF


@inner
def find_owner(t: DeviceTables, hi: int, lo: int, vlan: int) -> int:
    """Return the MAC address of the device that has an address, as the LAN says, or -1.

    Of an address that a router says it has, the client that was given it: a repeater answers for those behind it.
    """
    found = find_neighbour(t.neighbours, hi, lo, vlan)
    if found < 0:
        return i64(-1)
    mac, lease_mac = i64(t.neighbours[found]["mac"]), i64(t.neighbours[found]["lease_mac"])
    if not is_router(t.routers, mac):
        return mac
    return lease_mac if lease_mac > 0 and not is_router(t.routers, lease_mac) else i64(-1)


@inner
def names_device(t: DeviceTables, mac: int) -> bool:
    """Tell whether a frame's MAC address is one device's own: known, no group's, and no router's."""
    return mac > 0 and mac & _GROUP_BIT == 0 and not is_router(t.routers, mac)


@inner
def find_device(t: DeviceTables, mac: int, hi: int, lo: int, vlan: int, may_be_new: bool, ts_ns: int) -> int:
    """Return the row of the device with this MAC and address: a new one if need be, or -1 if that may not be.

    ``hi``, ``lo``: 0 where a device says something of itself without its address.
    """
    kind, key_hi, key_lo, key_vlan = i64(KEY_MAC), i64(0), i64(mac), i64(-1)
    if not names_device(t, mac):
        mac = find_owner(t, hi, lo, vlan)
        if mac < 0:
            kind, key_hi, key_lo, key_vlan = i64(KEY_ADDRESS), i64(hi), i64(lo), i64(vlan)
    if kind == KEY_MAC:
        mac = first_mac(t.aliases, mac)
        key_lo = i64(mac)
    elif hi == 0 and lo == 0:
        return i64(-1)  # a router that says something of itself, and not by which address it is known
    first = hash_halves(key_hi, key_lo)
    mask = t.devices.size - 1
    best = i64(-1)
    best_rank = i64(-1)
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        device = t.devices[row]
        if device["key_kind"] == KEY_FREE:
            rank = i64(1 << 62)
        elif (
            device["key_lo"] == key_lo
            and device["key_hi"] == key_hi
            and device["key_kind"] == kind
            and device["key_vlan"] == key_vlan
        ):
            return row
        else:
            rank = max(ts_ns - device["last_ns"], 0)
            if device["has_mail"] == 0:
                rank += 1 << 60
        if rank > best_rank:
            best_rank = i64(rank)
            best = i64(row)
    if not may_be_new:
        return i64(-1)
    device = t.devices[best]
    if device["key_kind"] != KEY_FREE:
        t.evictions[_EVICTED] += 1
    reset_device(t, best, ts_ns)
    device["key_kind"] = kind
    device["key_hi"] = key_hi
    device["key_lo"] = key_lo
    device["key_vlan"] = key_vlan
    device["mac"] = mac if kind == KEY_MAC else -1  # behind a router it would be the router's
    return best


@inner
def reset_device(t: DeviceTables, row: int, ts_ns: int) -> None:
    """Make a row ready for a new device; ``is_dirty`` and ``in_window`` belong to the row on its lists."""
    device = t.devices[row]
    clock = t.clock[0]
    if device["has_mail"] != 0:
        t.counts[row] = 0
        t.totals[row] = 0
        t.recent[row] = 0
        t.registers[row] = 0
        t.helo[row] = 0
        t.retry_counts[row] = 0
        t.relay[row] = 0
        t.fingerprints[row] = 0
        t.blooms[row] = 0
        t.dialects[row] = 0
        for i in range(t.peers.shape[1]):
            t.peers[row, i]["last_ns"] = 0
        for i in range(t.destinations.shape[1]):
            t.destinations[row, i]["last_ns"] = 0
        for i in range(t.operators.shape[1]):
            t.operators[row, i]["last_25_ns"] = 0
            t.operators[row, i]["last_submission_ns"] = 0
            t.operators[row, i]["last_auth_failed_ns"] = 0
        for i in range(t.retries.shape[1]):
            t.retries[row, i]["since_ns"] = 0
    for i in range(N_ADDRESSES):
        t.addresses[row, i]["last_ns"] = 0
    for i in range(N_HINTS):
        t.hints[row, i]["what"] = 0
    device["serial"] = clock["next_serial"]
    clock["next_serial"] = clock["next_serial"] + 1
    device["first_ns"] = ts_ns
    device["last_ns"] = ts_ns
    device["mail_first_ns"] = -1
    device["mail_last_ns"] = -1
    device["slot"] = ts_ns // SLOT_NS
    device["recent_slot"] = ts_ns // RECENT_SLOT_NS
    device["active_days"] = 0
    device["active_day"] = ts_ns // DAY_NS
    device["burst"] = 0.0
    device["burst_ns"] = ts_ns
    device["step_bucket"] = -1
    device["connections"] = 0
    device["evidence"] = 0
    device["evidence_at_step"] = 0
    device["usual_day"] = np.nan
    device["usual_reject"] = np.nan
    device["usual_days"] = 0
    device["day_connections"] = 0
    device["day_replies"] = 0
    device["day_rejected"] = 0
    device["called_ns"] = -1
    device["relay_slot"] = 0
    device["has_mail"] = 0
    device["has_aliases"] = 0
    device["is_known_server"] = 0
    device["is_appliance"] = 0
    device["is_kind_known"] = 0
    device["is_accused"] = 0
    device["is_resolver"] = 0
    device["helo_kinds"] = 0
    device["host_name_len"] = 0
    device["destinations_lost"] = 0
    device["n_examples"] = 0
    device["era"] = ts_ns // ERA_NS
    device["day_hours"] = 0
    device["usual_hours"] = 0
    device["n_sizes"] = 0
    device["n_pauses"] = 0


@inner
def is_home(t: DeviceTables, hi: int, lo: int) -> bool:
    """Tell whether an address is at home: in the home networks, or an IPv6 address that somebody has on this link.

    Of IPv6 a home has global addresses (RFC 4291 section 2.5.4), which a provider gives and may change.
    """
    if is_in_networks(t.home_nets, hi, lo):
        return True
    return is_global(hi) and is_on_link(t.neighbours, hi, lo)


@inlined
def is_global(hi: int) -> bool:
    """Tell whether an IPv6 address is of 2000::/3, by its upper half; IPv4 is none."""
    return bool(hi >> 61 == 1)


@spliced
def note_address(t: DeviceTables, row: int, hi: int, lo: int, ts_ns: int) -> None:
    """Note that a device uses an address; a MAC with many IPv4 addresses within five minutes is a router's."""
    if not is_unicast(hi, lo):
        return
    oldest = 0
    for i in range(N_ADDRESSES):
        address = t.addresses[row, i]
        if address["last_ns"] != 0 and address["hi"] == hi and address["lo"] == lo:
            address["last_ns"] = ts_ns
            return
        if address["last_ns"] < t.addresses[row, oldest]["last_ns"]:
            oldest = i
    add_address(t, row, oldest, hi, lo, ts_ns)


@inner
def add_address(t: DeviceTables, row: int, place: int, hi: int, lo: int, ts_ns: int) -> None:
    """Note a new address of a device, in place of the one at ``place``."""
    device = t.devices[row]
    if hi == 0 and device["key_kind"] == KEY_MAC:
        n_others = 0
        for i in range(N_ADDRESSES):
            known = t.addresses[row, i]
            if known["last_ns"] == 0 or known["hi"] != 0 or ts_ns - known["last_ns"] >= RECENT_SLOT_NS:
                continue
            if not is_own(t, device, known["lo"]):
                n_others += 1
        if n_others >= N_HOST_ADDRESSES:
            note_router(t.routers, t.devices, device["mac"])
    address = t.addresses[row, place]
    address["hi"] = hi
    address["lo"] = lo
    address["last_ns"] = ts_ns
    if is_in_networks(t.known_servers, hi, lo):
        device["is_known_server"] = 1
    if is_known_mac(t.known_server_macs, device["mac"]):
        device["is_known_server"] = 1


@inner
def is_known_mac(macs: NDArray[np.int64], mac: int) -> bool:
    """Tell whether the configuration names a MAC address as a mail server's: ``macs``, i8[k]."""
    for i in range(macs.size):  # noqa: SIM110 - numba knows no generators
        if macs[i] == mac:
            return True
    return False


@inner
def is_own(t: DeviceTables, device: Any, lo: int) -> bool:
    """Tell whether an IPv4 address is a device's own: it said so, and no server gave it to another."""
    found = find_neighbour(t.neighbours, 0, lo, device["vlan"])
    if found < 0:
        return False
    neighbour = t.neighbours[found]
    if neighbour["lease_mac"] > 0 and first_mac(t.aliases, neighbour["lease_mac"]) != device["key_lo"]:
        return False
    return bool(first_mac(t.aliases, neighbour["mac"]) == device["key_lo"])


@inner
def forget_address(t: DeviceTables, mac: int, hi: int, lo: int) -> None:
    """Take an address from the device that had it, and what the configuration says of it: somebody else has it now."""
    row = row_of_mac(t.devices, first_mac(t.aliases, mac))
    if row < 0:
        return
    is_known = is_known_mac(t.known_server_macs, t.devices[row]["mac"])
    for i in range(N_ADDRESSES):
        address = t.addresses[row, i]
        if address["hi"] == hi and address["lo"] == lo:
            address["last_ns"] = 0
        elif address["last_ns"] != 0:
            is_known = is_known or is_in_networks(t.known_servers, address["hi"], address["lo"])
    t.devices[row]["is_known_server"] = 1 if is_known else 0


@inner
def note_claim(
    t: DeviceTables, mac: int, hi: int, lo: int, vlan: int, is_lease: bool, is_of_link: bool, ts_ns: int
) -> None:
    """Take what the LAN says of who has an address."""
    before = note_neighbour(t.neighbours, mac, hi, lo, vlan, is_lease, is_of_link, ts_ns)
    if before > 0:
        forget_address(t, before, hi, lo)
    if is_of_link and is_global(hi):
        trust_network(t.routers, mac)


@inner
def recall_flow(t: DeviceTables, flow: int) -> int:
    """Return the row of the device to which a flow belonged when it began, -1 if that is not known any more."""
    owner = t.flow_owners[flow & (t.flow_owners.size - 1)]
    if owner["flow"] != flow + 1 or t.devices[owner["row"]]["serial"] != owner["serial"]:
        return i64(-1)
    return i64(owner["row"]) if t.devices[owner["row"]]["key_kind"] != KEY_FREE else i64(-1)


@inner
def remember_flow(t: DeviceTables, flow: int, row: int) -> None:
    """Note to which device a flow belongs."""
    owner = t.flow_owners[flow & (t.flow_owners.size - 1)]
    owner["flow"] = flow + 1
    owner["row"] = row
    owner["serial"] = t.devices[row]["serial"]


@inner
def find_by_flow(
    t: DeviceTables, mac: int, hi: int, lo: int, vlan: int, flow: int, may_be_new: bool, ts_ns: int
) -> int:
    """Return as ``find_device``; of a flow whose frames do not name a device, the one to which it belonged at first.

    Its address may belong to another by now. ``flow``: twice its number, and one more for the responder's end; negative
    for a datagram.
    """
    if flow < 0 or names_device(t, mac):
        return find_device(t, mac, hi, lo, vlan, may_be_new, ts_ns)
    row = recall_flow(t, flow)
    if row < 0:
        row = find_device(t, mac, hi, lo, vlan, may_be_new, ts_ns)
        if row >= 0:
            remember_flow(t, flow, row)
    return row


@inner
def find_home_device(
    t: DeviceTables,
    mac: int,
    hi: int,
    lo: int,
    vlan: int,
    flow: int,
    may_be_new: bool,
    is_late: bool,
    ts_ns: int,
) -> int:
    """Return the row of a home address's device and note that it was seen; -1 as ``find_device``.

    ``flow``: see ``find_by_flow``. ``is_late``: what happened may have been a while ago, when the address was still
    this device's.
    """
    row = find_by_flow(t, mac, hi, lo, vlan, flow, may_be_new, ts_ns)
    if row < 0 or is_late:
        return row
    device = t.devices[row]
    if device["key_kind"] == KEY_MAC and names_device(t, mac):
        if device["has_aliases"] != 0 and mac == device["key_lo"]:
            part(t, mac)
            device["has_aliases"] = 0
        device["mac"] = mac
    device["last_ns"] = ts_ns
    device["vlan"] = vlan
    t.clock[0]["home_seen"] = 1
    note_address(t, row, hi, lo, ts_ns)
    if device["key_kind"] == KEY_FREE:  # it has turned out to be a router
        row = find_device(t, mac, hi, lo, vlan, may_be_new, ts_ns)
    return row
