"""Interfaces as one run of frames, for as long as they last: which there are, how they do, what the kernel lost."""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from sensor.capture.bpf import filter_program
from sensor.capture.frames import FRAME_DTYPE, FrameBatch
from sensor.capture.ring import Ring
from sensor.capture.run import FrameRun
from sensor.errors import ConfigError
from sensor.notation import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from sensor.capture.bpf import KeptPorts
    from sensor.config import Capture

FilterMode = Literal["all", "mail", "auto"]

#: Time without a packet after which an empty batch says so.
IDLE_S: Final = 0.25
#: Between two looks at the interfaces and at what the kernel lost.
LOOK_S: Final = 1.0
#: How long the mail filter stays, in ``auto``, before everything is tried again; doubled each time that fails.
MAIL_ONLY_S: Final = 60.0
MAX_MAIL_ONLY_S: Final = 3600.0

# linux/sockios.h, linux/if.h, linux/if_arp.h
_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8927, 0x8933
_NAME_BYTES: Final = 16
_REQUEST_BYTES: Final = 40  # struct ifreq
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_ETHERNET_HARDWARE: Final = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK

_NS_PER_MS: Final = 1_000_000


@dataclass(slots=True)
class _Interface:
    """An interface as it was last: its name and index, None while it is gone."""

    name: str
    index: int | None = None
    state: str = "up"


class LiveCapture(FrameRun):
    """Interfaces, iterated over once as FrameBatches; a context manager.

    Packets of all ``names`` come in one order, that of their arrival. An empty batch says that none came for
    IDLE_S. What happens to interfaces goes to ``on_status``, a line each; one that vanishes is looked for each
    LOOK_S. The run ends when ``is_ended`` says so, with what had come until then.

    Raises ConfigError for an interface that is not there, or not of Ethernet, CaptureError if the kernel does
    not let us capture. ``ports``: of the packets that the mail filter keeps.
    """

    bytes_total = None

    def __init__(
        self,
        names: Sequence[str],
        settings: Capture,
        *,
        filter_mode: FilterMode,
        ports: KeptPorts,
        on_status: Callable[[str], None],
        is_ended: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._on_status = on_status
        self._is_ended = is_ended
        self._is_auto = filter_mode == "auto"
        self._is_mail_only = filter_mode == "mail"
        self._mail_only_s = MAIL_ONLY_S
        self._mail_only_until = 0.0
        self._n_dropped = 0
        self._n_switches = 0
        self._is_time_refused = False
        self.bytes_read = 0
        self._ring = Ring(
            settings.ring_mib << 20, settings.block_timeout_ms, ignore_outgoing=settings.ignore_outgoing
        )
        try:
            self._interfaces = [_Interface(name) for name in dict.fromkeys(names)]
            for interface in self._interfaces:
                interface.index = self._required_index(interface.name)
                self._ring.listen_to_all(interface.index)
            self._attach()
            self._ring.use_hardware_time(is_used=settings.hardware_timestamps)
            self._ring.start()
        except BaseException:
            self._ring.close()
            raise
        super().__init__(self._capture())

    def stats(self) -> dict[str, Any]:
        """Return what ``--stats`` says of the capture."""
        counts = self._ring.counts()
        return {
            "kernel_packets": counts.packets,
            "kernel_drops": counts.drops,
            "ring_freezes": counts.freezes,
            "ring_use": round(self._ring.use(), 3),
            "filter_state": "mail" if self._is_mail_only else "all",
            "filter_switches": self._n_switches,
            "interfaces": {interface.name: interface.state for interface in self._interfaces},
        }

    def settled_ns(self) -> int:
        """Return the time up to which all packets have been handed over, if none is waiting now."""
        return time.time_ns() - 3 * self._settings.block_timeout_ms * _NS_PER_MS

    def close(self) -> None:
        """Close the socket; interfaces leave promiscuous mode."""
        super().close()
        self._ring.close()

    def _capture(self) -> Generator[FrameBatch, None, None]:
        nothing = FrameBatch(np.zeros(1, np.uint8), np.zeros(0, FRAME_DTYPE))
        next_look = 0.0
        end_at: float | None = None
        while True:
            now = time.monotonic()
            if now >= next_look:
                self._look(now)
                next_look = now + LOOK_S
            if end_at is None and self._is_ended():
                end_at = (
                    now + 3 * self._settings.block_timeout_ms / 1000
                )  # what has come is handed over by then
            if end_at is not None and now >= end_at:
                return
            batch = self._ring.take(IDLE_S if end_at is None else end_at - now)
            if batch is None:
                yield nothing
                continue
            self.bytes_read += int(batch.frames["captured_len"].sum())
            yield batch
            self._ring.give_back()

    def _look(self, now: float) -> None:
        """See to the interfaces, and to the filter."""
        for interface in self._interfaces:
            self._look_at(interface)
        if self._ring.n_untimely > 0 and not self._is_time_refused:
            self._is_time_refused = True
            self._ring.use_hardware_time(is_used=False)
            self._on_status("a network card's clock is not the system's: its time stamps are not used")
        n_dropped = self._ring.counts().drops
        is_dropping = n_dropped > self._n_dropped
        if is_dropping and not self._is_mail_only:
            lost = counted(n_dropped - self._n_dropped, "packet")
            self._on_status(f"the kernel dropped {lost}: packets come faster than they are read")
        self._n_dropped = n_dropped
        if not self._is_auto:
            return
        if is_dropping and not self._is_mail_only:
            # Dropping soon after the filter was taken off: there is no room for everything yet.
            came_back = now < self._mail_only_until + MAIL_ONLY_S
            self._mail_only_s = min(2 * self._mail_only_s, MAX_MAIL_ONLY_S) if came_back else MAIL_ONLY_S
            self._mail_only_until = now + self._mail_only_s
            self._switch(is_mail_only=True)
        elif self._is_mail_only and is_dropping:
            self._mail_only_until = now + self._mail_only_s
        elif self._is_mail_only and now >= self._mail_only_until:
            self._switch(is_mail_only=False)

    def _switch(self, *, is_mail_only: bool) -> None:
        self._is_mail_only = is_mail_only
        self._n_switches += 1
        self._attach()
        what = "only mail, DNS, identity traffic and tunnels are" if is_mail_only else "everything is"
        self._on_status(f"{what} captured from now on")

    def _attach(self) -> None:
        indexes = [interface.index for interface in self._interfaces if interface.index is not None]
        ports = self._ports if self._is_mail_only else None
        self._ring.attach(filter_program(indexes, ports, self._settings.snaplen))

    def _look_at(self, interface: _Interface) -> None:
        shown = visible(interface.name)
        if interface.index is None:
            index = self._index_of(interface.name)
            if index is None or not self._is_ethernet(interface.name):
                return
            interface.index = index
            self._ring.listen_to_all(index)
            self._attach()
            self._set_state(interface, "up", f"{shown} is back")
        name = self._name_of(interface.index)
        if name is None:
            interface.index = None
            self._attach()
            self._set_state(interface, "gone", f"{shown} has vanished: it is looked for every second")
            return
        if name != interface.name:
            interface.name = name
            self._on_status(f"{shown} is called {visible(name)} now")
            shown = visible(name)
        flags = self._ask(_SIOCGIFFLAGS, name)
        if flags is None:
            return  # it has just vanished: the next look finds that out
        is_up = bool(struct.unpack_from("H", flags, _NAME_BYTES)[0] & _IFF_UP)
        is_running = bool(struct.unpack_from("H", flags, _NAME_BYTES)[0] & _IFF_RUNNING)
        if not is_up:
            self._set_state(interface, "down", f"{shown} is down: nothing comes until it is up")
        elif not is_running:
            self._set_state(interface, "no carrier", f"{shown} has no carrier: is the cable plugged in?")
        else:
            self._set_state(interface, "up", f"{shown} is up again")

    def _set_state(self, interface: _Interface, state: str, status: str) -> None:
        if interface.state != state:
            interface.state = state
            self._on_status(status)

    def _required_index(self, name: str) -> int:
        index = self._index_of(name)
        if index is None:
            there = ", ".join(visible(found) for _, found in socket.if_nameindex()) or "none"
            raise ConfigError(f"there is no interface {visible(name)}; there are: {there}")
        if not self._is_ethernet(name):
            raise ConfigError(f"{visible(name)} is no Ethernet interface: only those can be watched")
        return index

    def _is_ethernet(self, name: str) -> bool:
        answer = self._ask(_SIOCGIFHWADDR, name)
        return answer is not None and struct.unpack_from("H", answer, _NAME_BYTES)[0] in _ETHERNET_HARDWARE

    def _index_of(self, name: str) -> int | None:
        answer = self._ask(_SIOCGIFINDEX, name)
        return None if answer is None else int(struct.unpack_from("i", answer, _NAME_BYTES)[0])

    def _name_of(self, index: int) -> str | None:
        request = struct.pack(f"{_NAME_BYTES}si", b"", index).ljust(_REQUEST_BYTES, b"\0")
        try:
            answer = fcntl.ioctl(self._ring.socket, _SIOCGIFNAME, request)
        except OSError:
            return None
        return answer[:_NAME_BYTES].partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def _ask(self, what: int, name: str) -> bytes | None:
        """Ask the kernel about an interface: struct ifreq, or None if there is none of that name."""
        encoded = name.encode("utf-8", "surrogateescape")
        if not 0 < len(encoded) < _NAME_BYTES:
            return None
        try:
            return fcntl.ioctl(self._ring.socket, what, encoded.ljust(_REQUEST_BYTES, b"\0"))
        except OSError:
            return None
