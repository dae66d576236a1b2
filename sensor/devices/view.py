"""Reading the device table from Python: the records behind alerts and the device list."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from sensor.decode.facts import FactKind, FactSource
from sensor.devices.kinds import ONE_SERVER_KINDS, SURE_SOURCES, Guess, Hint, guess_kind
from sensor.devices.table import (
    FLOW_EXAMPLE_DTYPE,
    KEY_MAC,
    N_ADDRESSES,
    N_FLOW_EXAMPLES,
    N_HINTS,
    Count,
    DeviceTables,
)
from sensor.notation import address_text, mac_text, printable_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_LOCALLY_ADMINISTERED = (
    1 << 41
)  # of a MAC address: chosen by software, so it has no vendor (IEEE 802-2014 section 8.4)


@lru_cache(maxsize=4096)
def vendor_of(mac: int) -> str | None:
    """Return the organisation to which the IEEE assigned a MAC's block, None for unknown and random ones."""
    if mac < 0 or mac & _LOCALLY_ADMINISTERED:
        return None
    import netaddr  # noqa: PLC0415 - reads its whole index as it is imported: only when a vendor is asked for

    try:
        return str(netaddr.EUI(mac, version=48).oui.registration().org)
    except netaddr.NotRegisteredError:
        return None


def key_text(t: DeviceTables, row: int) -> str:
    """Return a device's key: its MAC, or its address with the VLAN if there is one."""
    device = t.devices[row]
    if device["key_kind"] == KEY_MAC:
        return mac_text(int(device["key_lo"])) or ""
    address = address_text(int(device["key_hi"]), int(device["key_lo"]))
    return address if device["key_vlan"] < 0 else f"{address}@{device['key_vlan']}"


def key_kind(t: DeviceTables, row: int) -> Literal["mac", "address"]:
    """Return what a device is known by: its MAC address or, behind a router, its address."""
    return "mac" if t.devices[row]["key_kind"] == KEY_MAC else "address"


def host_name(t: DeviceTables, row: int) -> str | None:
    """Return the host name that a device gave itself in DHCP, escaped."""
    length = int(t.devices[row]["host_name_len"])
    return printable_bytes(t.host_names[row, :length].tobytes()) if length else None


def guess(t: DeviceTables, row: int) -> Guess:
    """Return what a device seems to be, by what it says of itself."""
    name = host_name(t, row)
    by_dhcp = [Hint("dhcp", FactKind.HOST_NAME, name)] if name else []
    return guess_kind([*by_dhcp, *hints(t, row)], vendor_of(int(t.devices[row]["mac"])))


def look_at_kinds(t: DeviceTables, rows: NDArray[np.int64]) -> None:
    """Note which of the devices in ``rows``, i8[n], are things with one mail server, where they said more since."""
    devices = t.devices
    for row in rows[devices["is_kind_known"][rows] == 0]:
        # Behind an address there may be a whole household.
        who = guess(t, int(row)) if devices["key_kind"][row] == KEY_MAC else None
        is_one = who is not None and who.kind in ONE_SERVER_KINDS and who.sources >= SURE_SOURCES
        devices["is_appliance"][row] = is_one
        devices["is_kind_known"][row] = 1


def hints(t: DeviceTables, row: int) -> Iterator[Hint]:
    """Yield what a device said of itself, escaped."""
    for i in range(N_HINTS):
        hint = t.hints[row, i]
        if hint["what"] == 0:
            return
        text = printable_bytes(t.hint_texts[row, i, : hint["length"]].tobytes())
        yield Hint(FactSource(int(hint["source"])).name.lower(), FactKind(int(hint["what"])), text)


def addresses(t: DeviceTables, row: int) -> tuple[str, ...]:
    """Return a device's latest addresses, the one seen last first."""
    known = [a for a in t.addresses[row, :N_ADDRESSES] if a["last_ns"] != 0]
    known.sort(key=lambda a: -int(a["last_ns"]))
    return tuple(address_text(int(a["hi"]), int(a["lo"])) for a in known)


def flow_examples(t: DeviceTables, row: int) -> Iterator[tuple[dict[str, int], str | None]]:
    """Yield the flows kept as examples, by FLOW_EXAMPLE_DTYPE's names, with the name of their destination."""
    n = min(int(t.devices[row]["n_examples"]), N_FLOW_EXAMPLES)
    for i, values in enumerate(t.examples[row, :n].tolist()):
        example = dict(zip(FLOW_EXAMPLE_DTYPE.names or (), values, strict=True))
        length = example["name_len"]
        name = printable_bytes(t.example_names[row, i, :length].tobytes()) if length else None
        yield example, name


def total(t: DeviceTables, row: int, *what: Count) -> int:
    """Return a sum of a device's totals."""
    return sum(int(t.totals[row, count]) for count in what)


def share_of(part: int, whole: int) -> float | None:
    """Return a share, None if there is nothing to take one of."""
    return min(part / whole, 1.0) if whole else None
