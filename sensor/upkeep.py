"""What a live run does beside judging: it looks after its mirror, and tells systemd and Prometheus how it is."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from sensor.console import status_line
from sensor.metrics import Snapshot
from sensor.mirror import MirrorHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sensor.metrics import MetricsServer
    from sensor.notify import Notifier

#: Between two looks at the totals, and between two states that systemd is told.
LOOK_S: Final = 1.0
STATUS_S: Final = 10.0


class Upkeep:
    """``turn`` it in each turn of the run's loop, between ``begin`` and ``end``, by the thread of that loop.

    ``greeting``: what systemd is told at first; ``server``: None if nobody wants metrics; ``say`` gets what there is
    to say of the mirror, a line each.
    """

    def __init__(
        self, greeting: str, notifier: Notifier, server: MetricsServer | None, say: Callable[[str], None]
    ) -> None:
        self._greeting = greeting
        self._notifier = notifier
        self._server = server
        self._say = say
        self._reloads = {"ok": 0, "refused": 0}
        self._last_packet_s: float | None = None
        self._started_s = self._next_look_s = self._next_status_s = time.monotonic()
        self._mirror = MirrorHealth(self._started_s)

    def begin(self) -> None:
        """Say that the run listens. Starts a thread: privileges have to be dropped before."""
        self._started_s = self._next_look_s = time.monotonic()
        self._next_status_s = self._started_s + STATUS_S
        self._mirror = MirrorHealth(self._started_s)
        if self._server is not None:
            self._server.start()
        self._notifier.ready(self._greeting)

    def turn(self, n_packets: int, totals: Callable[[], Mapping[str, Any]]) -> None:
        """Do what is due. ``n_packets`` came since the last turn; ``totals``: makes those of ``--stats``."""
        now_s = time.monotonic()
        if n_packets:
            self._last_packet_s = now_s
        self._notifier.alive()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        current = totals()
        for line in self._mirror.look(now_s, current):
            self._say(line)
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_S
            self._notifier.status(status_line(current))
        if self._server is not None:
            self._server.publish(
                Snapshot(
                    totals=current,
                    faults=self._mirror.faults(),
                    reloads=dict(self._reloads),
                    published_s=now_s,
                    started_s=self._started_s,
                    last_packet_s=self._last_packet_s,
                )
            )

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is read anew; an exception is a refusal, and passes through."""
        result = "refused"
        try:
            with self._notifier.reloading():
                yield
            result = "ok"
        finally:
            self._reloads[result] += 1

    def end(self) -> None:
        """Say that the run ends."""
        self._notifier.stopping()

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
        self._notifier.close()
