"""Which address belongs to which MAC address, by what was said on the LAN: ARP, neighbour discovery and DHCP.

Where packets were captured behind a router, or without a link layer, this is what joins them with their device. One
table, fixed in size; the entry that was not confirmed for longest makes room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.devices.table import MAX_PROBES, NEVER_NS
from sensor.hashing import hash_halves
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray


@inner
def note_neighbour(
    neighbours: NDArray[Any],
    mac: int,
    hi: int,
    lo: int,
    vlan: int,
    is_lease: bool,
    is_on_link: bool,
    ts_ns: int,
) -> int:
    """Note that a MAC address has an address; return the MAC address that had it before, -1 for none or the same.

    ``is_lease``: a server gave it. ``is_on_link``: it was said on this very link, which makes an address outside the
    home networks one of the site's.
    """
    first = hash_halves(hi, lo)
    mask = neighbours.size - 1
    place = i64(-1)
    oldest_ns = i64(NEVER_NS)
    for probe in range(MAX_PROBES):
        row = (first + probe) & mask
        entry = neighbours[row]
        if entry["mac"] > 0 and entry["lo"] == lo and entry["hi"] == hi and entry["vlan"] == vlan:
            before = i64(entry["mac"]) if entry["mac"] != mac else i64(-1)
            entry["mac"] = mac
            entry["last_ns"] = ts_ns
            if is_lease:
                entry["lease_mac"] = mac
            if is_on_link:
                entry["is_on_link"] = 1
            return before
        seen_ns = i64(-1) if entry["mac"] == 0 else i64(entry["last_ns"])
        if seen_ns < oldest_ns:
            place = i64(row)
            oldest_ns = seen_ns
    entry = neighbours[place]
    entry["mac"] = mac
    entry["hi"] = hi
    entry["lo"] = lo
    entry["vlan"] = vlan
    entry["last_ns"] = ts_ns
    entry["lease_mac"] = mac if is_lease else 0
    entry["is_on_link"] = 1 if is_on_link else 0
    return i64(-1)


@inner
def find_neighbour(neighbours: NDArray[Any], hi: int, lo: int, vlan: int) -> int:
    """Return the row of who has an address, or -1.

    On the way to a mirror behind a router the VLAN changes: the only one that is known to have the address is it,
    but not one of several, of VLANs with the same addresses.
    """
    first = hash_halves(hi, lo)
    mask = neighbours.size - 1
    found = i64(-1)
    n_found = 0
    for probe in range(MAX_PROBES):
        entry = neighbours[(first + probe) & mask]
        if entry["mac"] <= 0 or entry["lo"] != lo or entry["hi"] != hi:
            continue
        if entry["vlan"] == vlan:
            return i64((first + probe) & mask)
        if found < 0 or entry["mac"] != neighbours[found]["mac"]:
            n_found += 1
            found = i64((first + probe) & mask)
    return found if n_found == 1 else i64(-1)


@inner
def is_on_link(neighbours: NDArray[Any], hi: int, lo: int) -> bool:
    """Tell whether somebody said on this link that it has an address, or was given it here."""
    first = hash_halves(hi, lo)
    mask = neighbours.size - 1
    for probe in range(MAX_PROBES):
        entry = neighbours[(first + probe) & mask]
        if entry["mac"] > 0 and entry["lo"] == lo and entry["hi"] == hi and entry["is_on_link"] != 0:
            return True
    return False
