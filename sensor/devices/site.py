"""The site as the configuration describes it, turned into the arrays that kernels look things up in."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import numpy as np

from sensor.config import HostName, Mac, Network
from sensor.devices.suffixes import public_suffix_rules
from sensor.devices.table import (
    EXCEPTION_DTYPE,
    KEY_FREE,
    MAX_DOMAIN_BYTES,
    NEVER_NS,
    DeviceTables,
    Site,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sensor.config import Config

_IPV4_MAPPED = 0xFFFF << 32
_LOW = (1 << 64) - 1


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def network_row(network: Network) -> tuple[int, int, int, int]:
    """Return a network as network and mask, upper and lower half each, int64; IPv4 as IPv4-mapped IPv6."""
    cidr = network.cidr
    address, mask = int(cidr.network_address), int(cidr.netmask)
    if isinstance(cidr, IPv4Network):
        address |= _IPV4_MAPPED
        mask |= ((1 << 128) - 1) ^ 0xFFFFFFFF
    return _signed(address >> 64), _signed(address & _LOW), _signed(mask >> 64), _signed(mask & _LOW)


def network_rows(networks: Iterable[object]) -> NDArray[np.int64]:
    """Return the networks among ``networks`` as rows, i8[k, 4]."""
    rows = [network_row(network) for network in networks if isinstance(network, Network)]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def mark_known_servers(t: DeviceTables) -> None:
    """Note anew which of the devices in the table are mail servers of the site, after these were named anew."""
    rows = np.flatnonzero(t.devices["key_kind"] != KEY_FREE)
    addresses = t.addresses[rows]
    is_used = addresses["last_ns"] != 0
    is_known = np.isin(t.devices["mac"][rows], t.known_server_macs)
    for net_hi, net_lo, mask_hi, mask_lo in t.known_servers:
        is_inside = (addresses["hi"] & mask_hi == net_hi) & (addresses["lo"] & mask_lo == net_lo)
        is_known |= (is_inside & is_used).any(axis=1)
    t.devices["is_known_server"][rows] = is_known


def describe_site(config: Config) -> Site:
    """Return the arrays of a site."""
    n = len(config.exceptions)
    exceptions = np.zeros(n, dtype=EXCEPTION_DTYPE)
    nets = np.zeros((2 * n, 4), dtype=np.int64)
    names = np.zeros((2 * n, MAX_DOMAIN_BYTES), dtype=np.uint8)
    for e, rule in enumerate(config.exceptions):
        row = exceptions[e]
        row["expires_ns"] = min(rule.expires.ns, NEVER_NS)
        row["device_mac"] = rule.device.number if isinstance(rule.device, Mac) else -1
        for place, value, has_net, length in (
            (2 * e, rule.device, "has_device_net", "device_name_len"),
            (2 * e + 1, rule.destination, "has_destination_net", "domain_len"),
        ):
            if isinstance(value, Network):
                row[has_net] = 1
                nets[place] = network_row(value)
            elif isinstance(value, HostName):
                raw = str(value).encode("ascii")
                row[length] = len(raw)
                names[place, : len(raw)] = np.frombuffer(raw, dtype=np.uint8)
    return Site(
        home_nets=network_rows(config.home_nets),
        known_servers=network_rows(config.mail_servers),
        known_server_macs=np.array(
            [m.number for m in config.mail_servers if isinstance(m, Mac)], dtype=np.int64
        ),
        resolvers=network_rows(config.resolvers),
        exceptions=exceptions,
        exception_nets=nets,
        exception_names=names,
        suffix_rules=public_suffix_rules(),
    )
