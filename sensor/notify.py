"""Telling systemd how it is: sd_notify(3), without its library.

Datagrams of ``NAME=value`` lines to the socket that NOTIFY_SOCKET names. Nothing here can fail the run: whoever is not
there to listen is not told.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from sensor.notation import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_STATUS_CHARS: Final = 400
#: A manager that does not read holds us up for no longer; the capture ring has room for that.
_SEND_S: Final = 0.5


class Notifier:
    """Sends to ``address``, a path or ``@`` and an abstract name; to nobody if it is None.

    ``watchdog_s``: the time after which we count as hung unless ``alive`` is called, None if nobody watches.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._socket: socket.socket | None = None
        self._address = ""
        if address is not None and address[:1] in ("/", "@"):
            self._address = f"\0{address[1:]}" if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(_SEND_S)
        self._every_s = float("inf") if watchdog_s is None else watchdog_s / 2
        self._next_s = 0.0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Take the socket that the environment names, and the watchdog's time if it is meant for this process."""
        watchdog_s = None
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with contextlib.suppress(ValueError):
                watchdog_us = int(environment.get("WATCHDOG_USEC", ""))
                watchdog_s = watchdog_us / 1e6 if watchdog_us > 0 else None
        return cls(environment.get("NOTIFY_SOCKET"), watchdog_s)

    def ready(self, status: str) -> None:
        """Say that the start is over."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Say in words how it goes."""
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """Tell the watchdog that we are not hung, if it is time to."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            if self._every_s != float("inf"):
                self._send("WATCHDOG=1")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that a reload begins, and that it is over."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._send("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _line(text: str) -> str:
    return printable(text)[:_MAX_STATUS_CHARS]
