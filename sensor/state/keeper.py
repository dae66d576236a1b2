"""Keeps a run's state while it goes on: capture hands over copies, and a thread writes them.

Nothing that the disk does holds up capture: what the thread has not written yet is replaced by what is newer. The
thread alone uses the database once it runs.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sensor.config import ExceptionRule, Instant, Mac, Network
from sensor.errors import StateError
from sensor.notation import counted, duration_text, visible
from sensor.state.checkpoint import decode, encode, most_bytes
from sensor.state.database import Database, ForeignError, open_for_sensor
from sensor.state.files import CHECKPOINT, DATABASE, DirectoryLock, replace_file, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sensor.alerts.record import Alert
    from sensor.pipeline import Pipeline
    from sensor.state.checkpoint import Snapshot
    from sensor.state.database import Label
    from sensor.state.weeks import Peaks

    Columns = Mapping[str, Sequence[Any]]

#: Between two checkpoints, two rounds of the device table, and two looks at what the operator says.
EVERY_S: Final = 60.0
#: A new alert does not wait for that, but so long after the snapshot before, and so many times as long as that took.
PAUSE_S: Final = 1.0
PAUSE_TIMES: Final = 20
#: Of each turn of the capture loop, this much may go to the device table.
TURN_S: Final = 0.01
#: Devices described in one go.
_SOME_ROWS: Final = 8
#: Alerts that wait for the database; more than that, the oldest is not in it.
_MAX_ALERTS: Final = 4096
#: ... and so many lists of what devices were like for a minute, of _SOME_ROWS devices each.
_MAX_PEAKS: Final = 1 << 14
#: How long the end of a run waits for the disk.
FLUSH_S: Final = 15.0
#: A checkpoint further ahead of the clock would make time stand still for longer: the clock was wrong then.
MAX_AHEAD_NS: Final = 300 * 1_000_000_000
#: Labels that are exceptions at the same time: each mail event is compared with all of them.
MAX_LABELS: Final = 1024


class _Decisions(NamedTuple):
    """What the operator has said, as far as the sensor acts on it."""

    benign: list[Label]
    closed: set[str]


class Keeper:
    """The state directory of one run; ``resume``, then ``look_after`` every turn of the capture loop.

    ``on_news`` gets lines for people, ``on_problem`` those about what could not be written. Privileges are dropped
    before; the thread starts in ``resume``. ConfigError for a directory that cannot be used, StateError for one
    that another sensor uses.
    """

    def __init__(
        self, directory: Path, *, on_news: Callable[[str], None], on_problem: Callable[[str], None]
    ) -> None:
        self._checkpoint: Final = directory / CHECKPOINT
        self._on_news: Final = on_news
        self._on_problem: Final = on_problem
        self._lock: Final = DirectoryLock(directory)
        self._database: Final = self._open_database(directory / DATABASE)
        # Of the capture loop.
        self._next_s = time.monotonic() + EVERY_S
        self._urgent_s = float("inf")
        self._may_hurry_s = float("-inf")
        self._rows: NDArray[np.int64] | None = None  # of the round that goes on
        self._described: list[Columns] = []
        self._peaks_so_far: list[Peaks] = []
        self._acted_on: _Decisions | None = None
        # Shared with the thread, under the lock of _changed.
        self._changed = threading.Condition()
        self._alerts: deque[Alert] = deque(maxlen=_MAX_ALERTS)
        self._devices: list[Columns] = []
        self._peaks: list[Peaks] = []
        self._snapshot: Snapshot | None = None
        self._must_read = False
        self._is_ending = False
        self._decisions: _Decisions | None = None
        self._written_s: float | None = None  # when the latest checkpoint was, by time.monotonic
        self._problems: deque[str] = deque(maxlen=16)
        self._thread = threading.Thread(target=self._work, name="state", daemon=True)
        # Of the thread: what failed last, so that it is said once; what the database has not taken yet.
        self._failed: dict[str, str] = {}
        self._untaken: list[Alert] = []
        self._untaken_peaks: list[Peaks] = []

    def _open_database(self, path: Path) -> Database:
        try:
            return open_for_sensor(path)
        except ForeignError as reason:
            journals = [path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm")]
            name = set_aside(path, time.time_ns(), journals)
            self._on_news(f"{reason}; it is called {name} now, and a new one begun")
            return open_for_sensor(path)

    def resume(self, new_pipeline: Callable[[], Pipeline]) -> tuple[Pipeline, list[Alert]]:
        """Return a pipeline that goes on from the checkpoint, or begins anew, and the alerts that are open in it."""
        now_ns = time.time_ns()
        pipeline = new_pipeline()
        alerts: list[Alert] = []
        try:
            snapshot = self._read_checkpoint(pipeline, now_ns)
            if snapshot is not None:
                pipeline.restore(snapshot)
                alerts = [case.last for case in snapshot.cases]
                self._say_resumed(snapshot, pipeline.snapshot().models, now_ns)
        except (StateError, ValueError) as reason:
            name = set_aside(self._checkpoint, now_ns)
            self._on_news(
                f"{visible(str(self._checkpoint))} {reason}; it is called {name} now, and the sensor begins anew"
            )
            pipeline = new_pipeline()
        try:
            n_lost = self._database.lose_all_but(alert.alert_id for alert in alerts)
            self._decisions = self._read_decisions()
        except sqlite3.Error as error:
            self._fail(DATABASE, f"cannot be used: {error}")
        else:
            if n_lost:
                self._on_news(
                    f"{counted(n_lost, 'open alert')} of the database not in the checkpoint: marked lost"
                )
        self._alerts.extend(alerts)  # the database may be a new one
        self._thread.start()
        return pipeline, alerts

    def _read_checkpoint(self, pipeline: Pipeline, now_ns: int) -> Snapshot | None:
        like = pipeline.snapshot()
        try:
            if self._checkpoint.stat().st_size > most_bytes(like):
                raise StateError("is larger than any checkpoint")
            content = self._checkpoint.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}") from None
        snapshot = decode(content, like)
        ahead_ns = snapshot.now_ns - now_ns
        if ahead_ns > MAX_AHEAD_NS:
            raise StateError(f"is {duration_text(ahead_ns / 1e9)} ahead of the clock")
        return snapshot

    def _say_resumed(self, snapshot: Snapshot, models: dict[str, str], now_ns: int) -> None:
        parts = [
            f"resumed from a checkpoint of {duration_text(max(now_ns - snapshot.now_ns, 0) / 1e9)} ago",
            counted(len(snapshot.arrays["devices"]), "device"),
            counted(len(snapshot.cases), "open alert"),
        ]
        if snapshot.models != models:
            parts.append("the evidence of another model is left out")
        self._on_news(", ".join(parts))

    def take(self, alert: Alert) -> None:
        """Keep an alert, and have a checkpoint soon: what was said should not be forgotten. Reviews can wait."""
        if alert.event_type == "alert":
            self._urgent_s = self._may_hurry_s
        with self._changed:
            self._alerts.append(alert)
            self._changed.notify_all()

    def look_after(self, pipeline: Pipeline) -> None:
        """Do what is due, in little time: between batches."""
        now_s = time.monotonic()
        is_due = now_s >= self._next_s
        if is_due:
            self._next_s = now_s + EVERY_S
            if self._rows is None:
                self._rows = pipeline.device_rows()
        if is_due or now_s >= self._urgent_s:
            self._urgent_s = float("inf")
            self._hand_over(pipeline.snapshot(), must_read=is_due)
            end_s = time.monotonic()
            self._may_hurry_s = end_s + max(PAUSE_S, PAUSE_TIMES * (end_s - now_s))
        if self._rows is not None:
            self._describe(pipeline, now_s + TURN_S)
        self._act(pipeline)
        while self._problems:
            self._on_problem(self._problems.popleft())

    def _hand_over(self, snapshot: Snapshot, *, must_read: bool) -> None:
        with self._changed:
            if snapshot.now_ns >= 0:
                self._snapshot = snapshot
            self._must_read = self._must_read or must_read
            self._changed.notify_all()

    def _describe(self, pipeline: Pipeline, until_s: float) -> None:
        """Describe some of the devices, which takes a while each; hand all over when the round is complete."""
        assert self._rows is not None  # noqa: S101 - for the type checker
        while len(self._rows) > 0:
            rows, self._rows = self._rows[:_SOME_ROWS], self._rows[_SOME_ROWS:]
            self._described.append(pipeline.device_table(rows))
            self._peaks_so_far.append(pipeline.take_peaks(rows))
            if time.monotonic() >= until_s:
                return
        described, self._rows, self._described = self._described, None, []
        peaks, self._peaks_so_far = self._peaks_so_far, []
        with self._changed:
            self._devices = described
            self._peaks = [*self._peaks, *peaks][-_MAX_PEAKS:]
            self._changed.notify_all()

    def _act(self, pipeline: Pipeline) -> None:
        """Act on what the operator has said since."""
        with self._changed:
            decisions, self._decisions = self._decisions, None
        if decisions is None:
            return
        before, self._acted_on = self._acted_on, decisions
        if before is None or before.benign != decisions.benign:
            pipeline.accept([rule for label in decisions.benign if (rule := exception_of(label)) is not None])
        if decisions.closed:
            pipeline.close_alerts(decisions.closed)

    def stats(self) -> dict[str, float | None]:
        """Return what ``--stats`` says of the state: the checkpoint's age, None before the first of this run."""
        written_s = self._written_s
        return {
            "checkpoint_age_seconds": None if written_s is None else round(time.monotonic() - written_s, 3)
        }

    def finish(self, pipeline: Pipeline) -> None:
        """Keep how the run ended, all of it; return when it is on the disk, or FLUSH_S is over."""
        self._rows, self._described = pipeline.device_rows(), []
        self._describe(pipeline, float("inf"))
        self._hand_over(pipeline.snapshot(), must_read=False)
        self.close()

    def close(self) -> None:
        """Have written what was handed over, and let the directory go; to be called more than once, too."""
        with self._changed:
            was_ending, self._is_ending = self._is_ending, True
            self._changed.notify_all()
        if was_ending:
            return
        if self._thread.ident is not None:
            self._thread.join(FLUSH_S)
            if self._thread.is_alive():
                self._on_problem(
                    f"{visible(str(self._checkpoint.parent))}: not all state could be written in time"
                )
                return
        self._database.close()
        self._lock.release()
        while self._problems:
            self._on_problem(self._problems.popleft())

    # What follows runs in the thread, but for exception_of.

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._has_work or self._is_ending):
                    self._changed.wait()
                if not self._has_work:
                    return
                alerts, devices, peaks = list(self._alerts), self._devices, self._peaks
                snapshot, must_read = self._snapshot, self._must_read
                self._alerts.clear()
                self._devices, self._peaks, self._snapshot, self._must_read = [], [], None, False
            self._untaken = [*self._untaken, *alerts][-_MAX_ALERTS:]
            self._untaken_peaks = [*self._untaken_peaks, *peaks][-_MAX_PEAKS:]
            self._write(devices, snapshot, must_read=must_read)

    @property
    def _has_work(self) -> bool:
        return bool(self._alerts or self._devices or self._snapshot is not None or self._must_read)

    def _write(self, devices: list[Columns], snapshot: Snapshot | None, *, must_read: bool) -> None:
        if snapshot is not None:
            try:
                replace_file(self._checkpoint, encode(snapshot))
                self._written_s = time.monotonic()
                self._failed.pop(CHECKPOINT, None)
            except OSError as error:
                self._fail(CHECKPOINT, f"cannot be written: {error.strerror}")
        try:
            if self._untaken or devices:
                self._database.write(self._untaken, devices, time.time_ns(), self._untaken_peaks)
                self._untaken, self._untaken_peaks = [], []
            if must_read:
                decisions = self._read_decisions()
                with self._changed:
                    self._decisions = decisions
            self._failed.pop(DATABASE, None)
        except sqlite3.Error as error:
            self._fail(DATABASE, f"cannot be written: {error}")

    def _read_decisions(self) -> _Decisions:
        return _Decisions(
            self._database.benign_labels(time.time_ns(), MAX_LABELS), self._database.closed_alerts()
        )

    def _fail(self, name: str, reason: str) -> None:
        if self._failed.get(name) != reason:
            self._failed[name] = reason
            self._problems.append(f"{visible(str(self._checkpoint.with_name(name)))} {visible(reason)}")


def exception_of(label: Label) -> ExceptionRule | None:
    """Return the exception that a label of a harmless device is; None if there is no way to say it.

    A device that is known as an address in a VLAN is none: an exception would hold for that address in all VLANs.
    """
    expires = Instant(datetime.fromtimestamp(label.expires_ns // 1_000_000_000, UTC))
    kinds: tuple[type[Mac | Network], ...] = (Mac, Network)
    for kind in kinds:
        try:
            device = kind(label.device)
        except ValueError:
            continue
        return ExceptionRule(device=device, reason=label.reason, expires=expires)
    return None
