"""Events of many devices that mail, for the benchmarks that need no packets."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.events.types import EVENT_DTYPE, EventKind

HOME, OUTSIDE = 0xFFFF << 32 | 0x0A000000, 0xFFFF << 32 | 0xCB007100  # 10.0.0.0 and 203.0.113.0, in IPv6
N_SERVERS = 200


def mail_connections(device: Any, ts_ns: Any) -> Any:
    """Connections, EVENT_DTYPE[n], that the devices with these numbers, i8[n], open at these times, i8[n] or one."""
    events = np.zeros(len(device), dtype=EVENT_DTYPE)
    events["ts_ns"] = ts_ns
    events["kind"] = EventKind.CONN_OPEN
    events["flow_id"] = np.arange(len(device))
    events["orig_lo"] = HOME + 1 + device
    events["orig_mac"] = 0x4419B6000000 + device
    events["resp_lo"] = OUTSIDE + np.arange(len(device)) % N_SERVERS
    events["resp_mac"] = 0x4C5E0C7A0101
    events["orig_port"], events["resp_port"] = 40000, 25
    events["vlan"] = events["session"] = -1
    return events
