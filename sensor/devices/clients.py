"""One device under several MAC addresses: phones and PCs that draw a new one now and then are known by their DHCP.

Only among locally administered addresses (IEEE 802-2014 section 8.4), those that software draws, and only where the one
before has fallen silent: identifiers of firmware and of virtual machines are copied, and nobody is two at once. When
the one before is met again under its own MAC address, they part, and that identifier joins nobody any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.devices.table import KEY_FREE, KEY_MAC, MAX_PROBES, SECOND_NS, DeviceTables
from sensor.hashing import hash_halves, mix
from sensor.jit import i64, inner, spliced

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A device that has a new address does not use the old one any more. Both are seen only when packets are late.
SILENT_NS = 60 * SECOND_NS
_LOCALLY_ADMINISTERED = 1 << 41


@spliced
def first_mac(aliases: NDArray[Any], mac: int) -> int:
    """Return the MAC address under which a device was met first."""
    if mac & _LOCALLY_ADMINISTERED == 0 or mac < 0:
        return i64(mac)
    return find_alias(aliases, mac)


@inner
def find_alias(aliases: NDArray[Any], mac: int) -> int:
    """Look a drawn MAC address up: the first one of its device, or itself."""
    for probe in range(MAX_PROBES):
        alias = aliases[(mix(mac & 0x7FFFFFFF) + probe) & (aliases.size - 1)]
        if alias["mac"] == mac:
            return i64(alias["first_mac"])
        if alias["mac"] == 0:
            break
    return i64(mac)


@inner
def note_alias(aliases: NDArray[Any], mac: int, first: int) -> None:
    """Note the first MAC address of a device that has a new one; without room, one of the neighbourhood is replaced."""
    start = mix(mac & 0x7FFFFFFF)
    place = start & (aliases.size - 1)
    for probe in range(MAX_PROBES):
        alias = aliases[(start + probe) & (aliases.size - 1)]
        if alias["mac"] in (0, mac):
            place = (start + probe) & (aliases.size - 1)
            break
    aliases[place]["mac"] = mac
    aliases[place]["first_mac"] = first


@inner
def row_of_mac(devices: NDArray[Any], mac: int) -> int:
    """Return the row of the device whose key is a MAC address, or -1."""
    first = hash_halves(0, mac)
    for probe in range(MAX_PROBES):
        row = (first + probe) & (devices.size - 1)
        if devices[row]["key_kind"] == KEY_MAC and devices[row]["key_lo"] == mac:
            return i64(row)
    return i64(-1)


@inner
def recognise(t: DeviceTables, mac: int, identity: int, ts_ns: int) -> None:
    """Take what a DHCP client is told from others by: if that is another MAC address's, now silent, they are one.

    ``identity``: the event's hash, 0 if there is none.
    """
    if identity == 0 or mac & _LOCALLY_ADMINISTERED == 0:
        return
    known = t.identities[identity & (t.identities.size - 1)]
    if known["identity"] != identity:
        known["identity"] = identity
        known["mac"] = mac
        return
    if known["mac"] < 0:
        return
    first = first_mac(t.aliases, known["mac"])
    if first != first_mac(t.aliases, mac):
        if not is_gone(t, first, ts_ns) or not is_new(t, mac, ts_ns):
            known["mac"] = -1
            return
        note_alias(t.aliases, mac, first)
        t.devices[row_of_mac(t.devices, first)]["has_aliases"] = 1
    known["mac"] = mac


@inner
def is_gone(t: DeviceTables, mac: int, ts_ns: int) -> bool:
    """Tell whether the device with a MAC address is known, and has fallen silent."""
    row = row_of_mac(t.devices, mac)
    return bool(row >= 0 and t.devices[max(row, 0)]["last_ns"] <= ts_ns - SILENT_NS)


@inner
def is_new(t: DeviceTables, mac: int, ts_ns: int) -> bool:
    """Tell whether a MAC address was never met or only just, without mail; its row is free then."""
    row = row_of_mac(t.devices, mac)
    if row < 0:
        return True
    device = t.devices[row]
    if device["has_mail"] != 0 or device["first_ns"] < ts_ns - SILENT_NS:
        return False
    device["key_kind"] = KEY_FREE
    return True


@inner
def part(t: DeviceTables, mac: int) -> None:
    """Take back that a device has other MAC addresses: it and one of them have been met at once."""
    for i in range(t.identities.size):
        if first_mac(t.aliases, t.identities[i]["mac"]) == mac:
            t.identities[i]["mac"] = -1
    for i in range(t.aliases.size):
        if t.aliases[i]["first_mac"] == mac:
            t.aliases[i]["first_mac"] = t.aliases[i]["mac"]
