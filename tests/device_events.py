"""Event rows made by hand, and the device tables that take them: devices are tested without packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.config import Config
from sensor.devices.activity import has_new_evidence, note_judged, observe_events
from sensor.devices.features import N_FEATURES, compute_features
from sensor.devices.site import describe_site
from sensor.devices.table import KEY_FREE, RECENT_SLOT_NS, SECOND_NS, DeviceTables, new_device_tables
from sensor.events.transfers import SLOT_NS as TRANSFER_SLOT_NS
from sensor.events.types import EVENT_DTYPE, EventKind, Fate, QType, Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sensor.decode.status import FrameStatus

#: A Tuesday, 00:00 UTC: the beginning of a day, of a slot of two hours and of one of five minutes.
START_NS = 1_795_478_400 * SECOND_NS
CAMERA_MAC, PRINTER_MAC, SERVER_MAC = 0x4419B60A0B0C, 0x3CD92B000001, 0x0025904A100A
GATEWAY_MAC = 0x4C5E0C7A0101
CAMERA, PRINTER, SERVER, RESOLVER = "192.168.1.23", "192.168.1.30", "192.168.1.10", "192.168.1.1"
#: Events of one end.
LAN_KINDS = (EventKind.ARP, EventKind.DHCP, EventKind.ND, EventKind.DHCPV6, EventKind.FACT)
OUTSIDE = "203.0.113.5"
OUTSIDE_RESOLVER = "203.0.113.53"


def halves(address: str) -> tuple[int, int]:
    """An address as two int64 halves, IPv4 as IPv4-mapped IPv6."""
    parsed = ip_address(address)
    number = int(parsed) if isinstance(parsed, IPv6Address) else int(parsed) | 0xFFFF << 32
    return _signed(number >> 64), _signed(number & ((1 << 64) - 1))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@dataclass
class EventLog:
    """Events in the order in which they are added; times in seconds after START_NS."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)
    n_flows: int = 0

    def add(
        self,
        kind: EventKind,
        at_s: float,
        *,
        orig: str = CAMERA,
        resp: str = OUTSIDE,
        mac: int = CAMERA_MAC,
        resp_mac: int | None = None,
        text: bytes = b"",
        aux: str | None = None,
        **columns: int,
    ) -> None:
        (orig_hi, orig_lo), (resp_hi, resp_lo) = halves(orig), halves(resp)
        aux_hi, aux_lo = halves(aux) if aux else (0, 0)
        row = {
            "ts_ns": START_NS + round(at_s * SECOND_NS),
            "flow_id": -1,
            "kind": int(kind),
            "orig_hi": orig_hi,
            "orig_lo": orig_lo,
            "resp_hi": resp_hi,
            "resp_lo": resp_lo,
            "orig_mac": mac,
            "resp_mac": resp_mac if resp_mac is not None else -1 if kind in LAN_KINDS else GATEWAY_MAC,
            "aux_hi": aux_hi,
            "aux_lo": aux_lo,
            "orig_port": 40000,
            "resp_port": 25,
            "vlan": -1,
            "session": -1,
            "text_start": len(self.text),
            "text_len": len(text),
        }
        self.text += text
        self.rows.append(row | columns)

    def connect(self, at_s: float, resp: str = OUTSIDE, port: int = 25, **columns: Any) -> int:
        """A mail connection's first packet; returns its flow_id."""
        self.n_flows += 1
        self.add(EventKind.CONN_OPEN, at_s, resp=resp, resp_port=port, flow_id=self.n_flows, **columns)
        return self.n_flows

    def close(self, at_s: float, resp: str = OUTSIDE, fate: Fate = Fate.ACCEPTED, **columns: Any) -> None:
        self.add(EventKind.CONN_CLOSE, at_s, resp=resp, code=int(fate), **columns)

    def reply(
        self, at_s: float, code: int, verb: Verb = Verb.RCPT, resp: str = OUTSIDE, **columns: Any
    ) -> None:
        self.add(EventKind.SMTP_REPLY, at_s, resp=resp, code=code, verb=int(verb), **columns)

    def greet(self, at_s: float, name: bytes, **columns: Any) -> None:
        self.add(EventKind.SMTP_COMMAND, at_s, code=int(Verb.EHLO), text=name, **columns)

    def mail(self, at_s: float, **columns: Any) -> None:
        """The beginning of a mail transaction."""
        self.add(EventKind.SMTP_COMMAND, at_s, code=int(Verb.MAIL), **columns)

    def message(self, at_s: float, code: int = 250, recipients: int = 1, **columns: Any) -> None:
        self.add(EventKind.SMTP_MESSAGE, at_s, code=code, count=recipients, **columns)

    def transfer(
        self, at_s: float, resp: str, sent: int, received: int, of: FrameStatus, **columns: Any
    ) -> None:
        """What passed between two addresses in the slot that is just over."""
        slot = (START_NS + round(at_s * SECOND_NS)) // TRANSFER_SLOT_NS
        columns |= {"orig_bytes": sent, "resp_bytes": received, "aux_lo": slot, "code": int(of)}
        self.add(EventKind.TRANSFER, at_s, resp=resp, **columns)

    def call(self, at_s: float, orig: str, resp: str, fingerprint: int = 0) -> None:
        """``orig`` speaks first, and not of mail."""
        macs = (CAMERA_MAC, GATEWAY_MAC) if orig == CAMERA else (GATEWAY_MAC, CAMERA_MAC)
        columns = {"mac": macs[0], "resp_mac": macs[1], "aux_lo": fingerprint}
        self.add(EventKind.PEER_CALL, at_s, orig=orig, resp=resp, **columns)

    def query(
        self, at_s: float, name: bytes = b"example.com", qtype: QType = QType.A, **columns: Any
    ) -> None:
        columns.setdefault("resp", RESOLVER)
        self.add(EventKind.DNS_QUERY, at_s, text=name, code=int(qtype), resp_port=53, **columns)

    def answer(self, at_s: float, name: bytes, address: str, ttl_s: int = 300, **columns: Any) -> None:
        """A resolver told a device the address of a name."""
        columns.setdefault("resp", RESOLVER)
        qtype = QType.AAAA if ":" in address else QType.A
        self.add(EventKind.DNS_ANSWER, at_s, text=name, code=int(qtype), aux=address, ttl_s=ttl_s, **columns)

    def respond(self, at_s: float, name: bytes = b"example.com", rcode: int = 0, **columns: Any) -> None:
        """The end of a DNS response."""
        columns.setdefault("resp", RESOLVER)
        self.add(EventKind.DNS_RESPONSE, at_s, text=name, code=int(QType.A), enhanced=rcode, **columns)

    def arrays(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """EVENT_DTYPE[n] and their text."""
        events = np.zeros(len(self.rows), dtype=EVENT_DTYPE)
        for name in EVENT_DTYPE.names or ():
            events[name] = [row.get(name, 0) for row in self.rows]
        text = np.frombuffer(bytes(self.text) + b"\0", dtype=np.uint8).copy()
        return events, text


def new_tables(config: Config | None = None, n_devices: int = 256, n_answers: int = 1024) -> DeviceTables:
    return new_device_tables(n_devices, n_answers, describe_site(config or Config()))


def observe(
    tables: DeviceTables,
    log: EventLog,
    on_due: Callable[[int], None] = lambda _: None,
    *,
    batch: int = 1 << 30,
    ends_windows: bool = True,
) -> None:
    """Hand a log to the device table as the pipeline does, ``batch`` events at a time.

    ``on_due`` gets the packet time of verdicts. ``ends_windows``: the list of the window is emptied, as it is
    with --features.
    """
    events, text = log.arrays()
    for start in range(0, len(events), batch):
        first, end = start, min(start + batch, len(events))
        while first < end:
            first = observe_events(events, first, end, text, tables)
            if tables.clock[0]["is_due"]:
                on_due(int(tables.clock[0]["now_ns"]))
                settle(tables, ends_windows=ends_windows)


def settle(tables: DeviceTables, *, ends_windows: bool = True) -> None:
    """Do what the pipeline does when it has judged all rows with news."""
    clock, devices = tables.clock[0], tables.devices
    now_ns = int(clock["now_ns"])
    rows = tables.dirty[: clock["n_dirty"]]
    is_new = devices["step_bucket"][rows] != now_ns // RECENT_SLOT_NS
    note_judged(devices, rows[has_new_evidence(devices, rows) | is_new], now_ns)
    devices["is_dirty"][rows] = 0
    clock["n_dirty"] = clock["is_due"] = 0
    if ends_windows:
        devices["in_window"][tables.window[: clock["n_window"]]] = 0
        clock["n_window"] = 0


def rows_of(tables: DeviceTables) -> list[int]:
    """The rows in use, in the order in which their devices were first seen."""
    used = np.flatnonzero(tables.devices["key_kind"] != KEY_FREE)
    return [int(row) for row in used[np.argsort(tables.devices["serial"][used])]]


def row_of(tables: DeviceTables, mac: int = CAMERA_MAC) -> int:
    """The one row of a MAC address."""
    (row,) = (row for row in rows_of(tables) if tables.devices[row]["mac"] == mac)
    return row


def features_of(tables: DeviceTables, row: int, now_ns: int | None = None) -> NDArray[np.float64]:
    """f8[N_FEATURES] of the device in a row, at the tables' time unless another is given."""
    now_ns = int(tables.clock[0]["now_ns"]) if now_ns is None else now_ns
    out = np.zeros((1, N_FEATURES))
    compute_features(tables, np.array([row], dtype=np.int64), 1, now_ns, out)
    return out[0]
