"""A sink behind a queue and a thread of its own: nothing that a receiver does, or leaves undone, blocks capture."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sensor.alerts.sinks import SinkStats
from sensor.errors import SensorError
from sensor.notation import counted, duration_text, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.alerts.record import Alert

#: Open alerts that are remembered, to be said again.
MAX_OPEN: Final = 1024
#: Time at the end in which what waits is still delivered.
FLUSH_S: Final = 5.0


class Timing(NamedTuple):
    """How long a sink waits, in seconds: between looks at an idle receiver, and after failures, doubling.

    Only a receiver that stays for ``longest_pause_s`` starts with the first pause again.
    """

    idle_s: float = 1.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0


USUAL_TIMING: Final = Timing()


class RefusedError(Exception):
    """The receiver is there and will never take this alert: the reason, in words."""


class Transport(Protocol):
    """How alerts get to a receiver. All methods are called by one thread; OSError: it is not there, or gone."""

    @property
    def name(self) -> str:
        """Kind and place of the receiver, for people."""

    def connect(self) -> None:
        """Find the receiver."""

    def check(self) -> None:
        """Raise OSError if the receiver has gone."""

    def send(self, alert: Alert, *, is_repeated: bool) -> None:
        """Deliver one alert; RefusedError if that is of no use, now or later."""

    def disconnect(self, *, is_failed: bool) -> None:
        """Let go of the receiver: at once if it failed, else so that it gets all that was sent."""


class QueuedSink:
    """Hands alerts to a thread, which delivers them in their order, reconnects, and says again what is open.

    At most ``capacity`` alerts wait; then the oldest is lost, and counted; the latest record of an alert that is open
    is said nevertheless, once there is time. Once a receiver is back, it first gets the latest record of each open
    alert that is not waiting anyway: it may have lost, or never had, it.
    ``may_wait``: a full queue makes ``emit`` wait for as long as the receiver takes alerts: for a replay.
    ``on_news`` gets one line when the receiver goes or comes back; in the thread.

    The thread starts here: capabilities and the user are those of this moment.
    """

    def __init__(
        self,
        transport: Transport,
        capacity: int,
        on_news: Callable[[str], None],
        *,
        may_wait: bool = False,
        timing: Timing = USUAL_TIMING,
    ) -> None:
        self._transport: Final = transport
        self._capacity: Final = capacity
        self._on_news: Final = on_news
        self._may_wait: Final = may_wait
        self._timing: Final = timing
        # Shared by both threads, under the lock of _changed.
        self._changed = threading.Condition()
        self._queue: deque[Alert] = deque()
        self._current: Alert | None = None  # on its way
        self._open: dict[str, Alert] = {}  # alert id -> latest record
        self._owed: dict[str, None] = {}  # ids of open alerts whose latest record was lost here
        self._n_sent = 0
        self._n_lost = 0
        self._n_reconnects = 0
        self._is_up = True
        self._reason = "not delivered in time"
        self._end_s: float | None = None  # when to end at the latest, by time.monotonic
        # Of the thread alone.
        self._is_connected = False
        self._repeats: deque[Alert] = deque()
        self._n_repeated = 0  # or to be repeated
        # Since when it has been there, or not, by time.monotonic.
        self._up_s = float("-inf")
        self._failed_s: float | None = None
        self._pause_s = timing.first_pause_s
        self._has_said_refusal = False
        self._thread = threading.Thread(target=self._work, name=transport.name, daemon=True)
        self._thread.start()

    def emit(self, alert: Alert) -> None:
        """Queue one alert."""
        with self._changed:
            self._remember(alert)
            while self._may_wait and self._is_full and self._is_up and self._thread.is_alive():
                self._changed.wait(1.0)
            if self._is_full:
                self._lose_oldest()
            self._queue.append(alert)
            self._changed.notify_all()

    def remind(self, alert: Alert) -> None:
        """Say an open alert once more, marked as repeated, when there is time: the receiver may know of it."""
        with self._changed:
            self._remember(alert)
            self._owed[alert.alert_id] = None
            self._changed.notify_all()

    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= self._capacity

    def _remember(self, alert: Alert) -> None:
        if alert.event_type != "alert":
            return  # reviews are said once and never end
        self._open.pop(alert.alert_id, None)
        self._owed.pop(alert.alert_id, None)
        if alert.state != "ended":
            self._open[alert.alert_id] = alert
        if len(self._open) > MAX_OPEN:
            forgotten = next(iter(self._open))
            del self._open[forgotten]
            self._owed.pop(forgotten, None)

    def _lose_oldest(self) -> None:
        lost = self._queue.popleft()
        self._n_lost += 1
        if self._open.get(lost.alert_id) is lost:
            self._owed[lost.alert_id] = None

    def stats(self) -> SinkStats:
        """Return what became of the alerts so far."""
        with self._changed:
            queued = len(self._queue) + (self._current is not None)
            return SinkStats(
                self._transport.name, self._n_sent, self._n_lost, queued, self._n_reconnects, self._is_up
            )

    def begin_close(self, flush_s: float) -> None:
        """Take no more alerts, and end when all are delivered, or after ``flush_s`` seconds at the latest."""
        with self._changed:
            self._end_s = time.monotonic() + flush_s
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the end; SensorError names how many alerts were lost in all, and why."""
        if self._end_s is None:
            self.begin_close(FLUSH_S)
        assert self._end_s is not None  # noqa: S101 - for the type checker
        self._thread.join(max(0.0, self._end_s - time.monotonic()))
        with self._changed:
            self._n_lost += len(self._queue) + (self._current is not None)
            self._queue.clear()
            self._current = None
            if self._n_lost:
                n_lost = counted(self._n_lost, "alert")
                raise SensorError(f"{self._transport.name}: {n_lost} lost: {self._reason}")

    # What follows runs in the thread.

    def _work(self) -> None:
        while self._wait_for_work():
            try:
                self._advance()
            except OSError as error:
                self._fail(reason_of(error))
        if self._is_connected:
            self._transport.disconnect(is_failed=False)

    def _wait_for_work(self) -> bool:
        """Wait for something to do, or for the time to look after the receiver; False: it is time to end."""
        with self._changed:
            if self._is_connected and not self._has_work and self._end_s is None:
                self._changed.wait(self._timing.idle_s)
            if self._end_s is None:
                return True
            return self._has_work and time.monotonic() < self._end_s

    @property
    def _has_work(self) -> bool:
        return bool(self._queue or self._repeats or self._owed)

    def _advance(self) -> None:
        """Connect if need be, and deliver one alert if there is one."""
        if not self._is_connected:
            self._transport.connect()
            self._is_connected = True
            if self._failed_s is not None:
                self._repeat_open()
        with self._changed:
            if not self._repeats and self._queue:
                self._current = self._queue.popleft()
                self._changed.notify_all()
            elif not self._repeats and self._owed:
                self._repeats = deque(self._open[alert_id] for alert_id in self._owed)
                self._owed.clear()
        is_repeated = bool(self._repeats)
        alert = self._repeats[0] if is_repeated else self._current
        if alert is None:
            self._transport.check()
        else:
            self._deliver(alert, is_repeated=is_repeated)
        self._succeed()

    def _repeat_open(self) -> None:
        with self._changed:
            waiting = {alert.alert_id for alert in self._queue}
            self._repeats = deque(alert for alert_id, alert in self._open.items() if alert_id not in waiting)
            self._owed.clear()
        self._n_repeated = len(self._repeats)

    def _deliver(self, alert: Alert, *, is_repeated: bool) -> None:
        refusal: str | None = None
        try:
            self._transport.send(alert, is_repeated=is_repeated)
        except RefusedError as error:
            refusal = str(error)
        if is_repeated:
            self._repeats.popleft()
        else:
            self._settle(refusal)
        if refusal is not None and not self._has_said_refusal:
            self._on_news(f"{self._transport.name}: an alert was refused: {refusal}")
        self._has_said_refusal = refusal is not None

    def _settle(self, refusal: str | None) -> None:
        with self._changed:
            if self._current is None:
                return  # given up meanwhile, and counted
            self._current = None
            if refusal is None:
                self._n_sent += 1
            else:
                self._n_lost += 1
                self._reason = refusal

    def _succeed(self) -> None:
        if self._failed_s is None or self._repeats:
            return
        self._up_s = time.monotonic()
        seconds = self._up_s - self._failed_s
        self._failed_s = None
        with self._changed:
            self._is_up = True
            self._n_reconnects += 1
            n_lost = self._n_lost
        parts = [f"{self._transport.name}: back after {duration_text(seconds)}"]
        if self._n_repeated:
            parts.append(f"{counted(self._n_repeated, 'open alert')} said again")
        if n_lost:
            parts.append(f"{counted(n_lost, 'alert')} lost so far")
        self._on_news(", ".join(parts))

    def _fail(self, reason: str) -> None:
        """Note that the receiver is not there, and wait before the next attempt."""
        self._transport.disconnect(is_failed=True)
        self._is_connected = False
        self._repeats.clear()
        with self._changed:
            if self._current is not None:
                self._queue.appendleft(self._current)
                self._current = None
                if len(self._queue) > self._capacity:
                    self._lose_oldest()
            self._is_up = False
            self._reason = reason
            self._changed.notify_all()
        if self._failed_s is None:
            self._failed_s = time.monotonic()
            if self._failed_s - self._up_s >= self._timing.longest_pause_s:
                self._pause_s = self._timing.first_pause_s
            self._on_news(
                f"{self._transport.name}: {reason}; up to {counted(self._capacity, 'alert')} wait until it is back"
            )
        self._pause()

    def _pause(self) -> None:
        with self._changed:
            was_closing = self._end_s is not None
            pause_s = self._timing.first_pause_s if was_closing else self._pause_s
            self._pause_s = min(2 * self._pause_s, self._timing.longest_pause_s)
            # Half of it at random: many sensors do not come back at once. No secret hangs on it.
            next_s = time.monotonic() + pause_s * random.uniform(0.5, 1.0)  # noqa: S311
            while (left_s := next_s - time.monotonic()) > 0:
                if self._end_s is not None:
                    if not was_closing:
                        return  # one more attempt, now
                    left_s = min(left_s, self._end_s - time.monotonic())
                    if left_s <= 0:
                        return
                self._changed.wait(left_s)


def reason_of(error: OSError) -> str:
    """Say in words why a receiver cannot be reached; OpenSSL's errors as it names them."""
    if verdict := getattr(error, "verify_message", None):
        return f"its certificate is refused: {visible(str(verdict))}"
    if name := getattr(error, "reason", None):
        return f"TLS: {visible(str(name)).replace('_', ' ').lower()}"
    return visible(error.strerror or str(error) or type(error).__name__)
