"""One device under several MAC addresses: phones and PCs that draw a new one now and then are known by their DHCP.

Only among locally administered addresses (IEEE 802-2014 section 8.4), those that software draws, and only where the one
before has fallen silent: identifiers of cheap firmware are copied from device to device, and nobody is two at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.devices.table import KEY_MAC, MAX_PROBES, SECOND_NS, DeviceTables
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
    first = first_mac(t.aliases, known["mac"])
    if first != first_mac(t.aliases, mac):
        row = row_of_mac(t.devices, first)
        is_silent = row >= 0 and t.devices[max(row, 0)]["last_ns"] <= ts_ns - SILENT_NS
        if is_silent and row_of_mac(t.devices, mac) < 0:
            note_alias(t.aliases, mac, first)
    known["mac"] = mac
