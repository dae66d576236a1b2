"""Interfaces through scapy's sniffer, for systems without AF_PACKET (BSD, macOS): slower by far.

Scapy is optional and under the GPL: only whoever installs it beside the sensor has it, and it only fetches packets. It
is kept from dissecting them, which is slow, and more code that reads hostile bytes.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType
from sensor.capture.run import FrameRun
from sensor.errors import CaptureError, ConfigError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from sensor.config import Capture

#: Packets that wait at most: some seconds at the rates that scapy manages.
_MAX_WAITING: Final = 20_000
_MAX_BATCH: Final = 1024
#: Time without a packet after which an empty batch says so, and between two looks at the interfaces.
_IDLE_S: Final = 0.25
_LOOK_S: Final = 1.0
#: How long a packet may be on its way from the system to us.
_LATE_NS: Final = 1_000_000_000
_NS_PER_S: Final = 1_000_000_000

_HOW_TO_INSTALL: Final = (
    "capturing here needs scapy, since the system has no AF_PACKET: pip install 'spamsensor[sniff]'"
)


@dataclass(slots=True)
class _Port:
    """An interface; ``sniffer``: None while it is gone."""

    name: str
    socket: Any = None
    sniffer: Any = None
    state: str = "up"


class SnifferCapture(FrameRun):
    """Interfaces, iterated over once as FrameBatches: as LiveCapture, but without a filter.

    Raises ConfigError without scapy, or for an interface that is not there; CaptureError if the system does not
    let us capture. Where packets come faster than they are fetched, the newest are lost and counted.
    """

    bytes_total = None

    def __init__(
        self,
        names: Sequence[str],
        settings: Capture,
        *,
        on_status: Callable[[str], None],
        is_ended: Callable[[], bool],
    ) -> None:
        try:
            # Optional, and it takes a second. It knows interfaces and link types when these are loaded.
            import scapy.arch  # noqa: PLC0415
            import scapy.layers.l2  # noqa: F401, PLC0415
            from scapy.config import conf  # noqa: PLC0415
            from scapy.interfaces import get_if_list  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(_HOW_TO_INSTALL) from error
        # What it says of interfaces we say ourselves.
        logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
        if not conf.layers.filtered:
            conf.layers.filter([])
        self._conf = conf
        self._settings = settings
        self._on_status = on_status
        self._is_ended = is_ended
        self._waiting: queue.Queue[tuple[int, bytes, int, int]] = queue.Queue(_MAX_WAITING)
        self._n_packets = 0
        self._n_dropped = 0
        self.bytes_read = 0
        self._ports = [_Port(name) for name in dict.fromkeys(names)]
        try:
            for port in self._ports:
                there = get_if_list()
                if port.name not in there:
                    listed = ", ".join(map(visible, there)) or "none"
                    raise ConfigError(f"there is no interface {visible(port.name)}; there are: {listed}")
                port.socket = self._open(port.name)
        except BaseException:
            self._close_sockets()
            raise
        super().__init__(self._capture())

    def stats(self) -> dict[str, Any]:
        """Return what ``--stats`` says of the capture."""
        return {
            "kernel_packets": self._n_packets,
            "kernel_drops": self._n_dropped,
            "ring_freezes": 0,
            "ring_use": round(self._waiting.qsize() / _MAX_WAITING, 3),
            "filter_state": "all",
            "filter_switches": 0,
            "interfaces": {port.name: port.state for port in self._ports},
        }

    def settled_ns(self) -> int:
        """Return the time up to which all packets have been handed over, if none is waiting now."""
        return time.time_ns() - _LATE_NS

    def close(self) -> None:
        """Stop the sniffers and close their sockets."""
        super().close()
        for port in self._ports:
            if port.sniffer is not None and port.sniffer.running:
                # It may end between the two.
                with contextlib.suppress(Exception):
                    port.sniffer.stop()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for port in self._ports:
            if port.socket is not None:
                port.socket.close()

    def _open(self, name: str) -> Any:
        try:
            return self._conf.L2listen(iface=name, promisc=True)
        except PermissionError as error:
            raise CaptureError(f"{visible(name)} cannot be captured from: run as root") from error
        except Exception as error:  # scapy has its own, and each system others: all mean that it cannot be
            raise CaptureError(f"{visible(name)} cannot be captured from: {visible(str(error))}") from error

    def _start(self, port: _Port) -> None:
        from scapy.sendrecv import AsyncSniffer  # noqa: PLC0415 - optional, as above

        port.sniffer = AsyncSniffer(opened_socket=port.socket, store=False, prn=self._take)
        port.sniffer.start()

    def _take(self, packet: Any) -> None:
        """Queue a packet; in the sniffer's thread."""
        self._n_packets += 1
        data = bytes(packet.original)
        link_type = self._conf.l2types.layer2num.get(type(packet), LinkType.ETHERNET)
        wire_len = packet.wirelen or len(data)
        try:
            self._waiting.put_nowait((int(packet.time * _NS_PER_S), data, wire_len, int(link_type)))
        except queue.Full:
            self._n_dropped += 1

    def _capture(self) -> Generator[FrameBatch, None, None]:
        # Not before: threads would keep the privileges that are dropped after opening.
        for port in self._ports:
            self._start(port)
        next_look, end_at = time.monotonic() + _LOOK_S, None
        while True:
            now = time.monotonic()
            if now >= next_look:
                for port in self._ports:
                    self._look_at(port)
                next_look = now + _LOOK_S
            if end_at is None and self._is_ended():
                end_at = now + _LATE_NS / _NS_PER_S  # what has come is handed over by then
            if end_at is not None and now >= end_at:
                return
            yield self._batch()

    def _batch(self) -> FrameBatch:
        """Return what waits, in the order of arrival; empty if nothing came for _IDLE_S."""
        packets = []
        try:
            packets.append(self._waiting.get(timeout=_IDLE_S))
            while len(packets) < _MAX_BATCH:
                packets.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        frames = np.zeros(len(packets), FRAME_DTYPE)
        kept = bytearray()
        for frame, (ts_ns, data, wire_len, link_type) in zip(frames, packets, strict=True):
            part = data[: self._settings.snaplen]
            frame["offset"], frame["ts_ns"] = len(kept), ts_ns
            frame["captured_len"], frame["wire_len"], frame["link_type"] = len(part), wire_len, link_type
            kept += part
        self.bytes_read += len(kept)
        return FrameBatch(np.frombuffer(kept or bytearray(1), np.uint8), frames)

    def _look_at(self, port: _Port) -> None:
        """Notice a sniffer that has ended, as it does when its interface is gone, and try to start it again."""
        shown = visible(port.name)
        if port.sniffer is not None:
            if port.sniffer.thread.is_alive():
                return
            port.sniffer = None
            port.state = "gone"
            self._on_status(f"{shown} gives no packets any more: it is tried again every second")
        try:
            port.socket = self._open(port.name)
        except CaptureError as reason:
            # Privileges are dropped by now, and some systems want them for this.
            if port.state != "lost":
                port.state = "lost"
                self._on_status(f"{reason}: it is tried on, but may take a restart of the sensor")
            return
        self._start(port)
        port.state = "up"
        self._on_status(f"{shown} is back")
