"""The database beside a running sensor: devices and alerts to look at, and what the operator says of them.

SQLite in WAL mode: who reads does not hold up the sensor, nor the other way round. The sensor writes devices and
alerts; labels, and that an alert is closed, are written by the commands and read by the sensor.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import msgspec

from sensor.alerts.formats import alert_json
from sensor.alerts.record import Alert
from sensor.errors import StateError
from sensor.notation import eve_time, visible
from sensor.state.weeks import DAY_NS, WEEK_NS, DeviceWeek, Example

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sensor.state.weeks import Peaks

VERSION: Final = 1
#: "spam", so that a database of another program is told apart.
APPLICATION_ID: Final = 0x7370616D
BUSY_S: Final = 5.0
#: Devices that were not seen for so long, and alerts not heard of, are forgotten; so are the oldest of too many.
KEPT_DAYS: Final = 400
MAX_DEVICES: Final = 1 << 16
MAX_ALERTS: Final = 1 << 15
#: What devices were like is of no use longer: a year is what most budgets are about.
KEPT_WEEKS: Final = 57
MAX_WEEKS: Final = 1 << 18
#: Days of devices with something against them: some 400 bytes each.
MAX_EXAMPLES: Final = 1 << 15

Verdict = Literal["benign", "infected"]

#: What is no fault of the file: SQLite's primary result codes.
_PASSING: Final = (
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
)

#: To a database that an earlier version made, these are added.
ADDED_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS weeks (  -- what devices were like, for calibration
    device TEXT NOT NULL,           -- its key
    week INTEGER NOT NULL,          -- weeks since the Unix epoch
    model TEXT NOT NULL,            -- whose evidence it is
    minutes INTEGER NOT NULL,       -- for so many it was known
    index_peak REAL NOT NULL,       -- the most evidence
    model_peak REAL NOT NULL,
    PRIMARY KEY (device, week, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (  -- what devices were like at their worst, to learn from if they are labelled
    device TEXT NOT NULL,
    day INTEGER NOT NULL,           -- days since the Unix epoch
    evidence REAL NOT NULL,         -- the most of any channel
    schema TEXT NOT NULL,           -- digest of what the features mean
    features BLOB NOT NULL,         -- little-endian float64 each
    PRIMARY KEY (device, day)
);
"""
_SCHEMA: Final = f"""
CREATE TABLE devices (
    key TEXT PRIMARY KEY,
    last_seen TEXT NOT NULL,
    record TEXT NOT NULL            -- JSON: a row of the table of --devices
) WITHOUT ROWID;
CREATE INDEX devices_by_time ON devices (last_seen);
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    event_type TEXT NOT NULL,
    state TEXT NOT NULL,            -- of the latest record, or lost: no sensor goes on with it
    device TEXT NOT NULL,           -- its key
    first_time TEXT NOT NULL,
    last_time TEXT NOT NULL,
    record TEXT NOT NULL,           -- JSON: the latest record
    revision INTEGER NOT NULL,      -- grows with each change of any alert
    closed_time TEXT,               -- by the operator
    closed_by TEXT
) WITHOUT ROWID;
CREATE INDEX alerts_by_revision ON alerts (revision);
CREATE INDEX alerts_by_time ON alerts (last_time);
CREATE TABLE labels (               -- the latest of a device counts
    label_id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    alert_id TEXT NOT NULL,         -- the alert that it was said of; empty: of the device
    verdict TEXT NOT NULL CHECK (verdict IN ('benign', 'infected')),
    reason TEXT NOT NULL,
    said_by TEXT NOT NULL,
    said_time TEXT NOT NULL,
    expires_ns INTEGER NOT NULL     -- nanoseconds since the Unix epoch
);
CREATE INDEX labels_by_device ON labels (device);
{ADDED_SCHEMA}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
_NEXT_REVISION: Final = "(SELECT coalesce(max(revision), 0) + 1 FROM alerts)"
_LATEST: Final = "label_id IN (SELECT max(label_id) FROM labels GROUP BY device)"


class ForeignError(StateError):
    """A database is damaged, or not one of this version of the program."""


class Label(NamedTuple):
    """What the operator says of a device."""

    device: str
    verdict: Verdict
    reason: str
    said_by: str
    said_time: str
    expires_ns: int


class KeptDevice(NamedTuple):
    """A device as it was last, its columns by name."""

    record: dict[str, Any]
    label: Label | None


class KeptAlert(NamedTuple):
    """An alert as it was last. ``state``: of the record, or lost; ``closed``: when and by whom, None if it is not."""

    alert: Alert
    state: str
    first_time: str
    last_time: str
    revision: int
    closed: tuple[str, str] | None
    label: Label | None

    @property
    def is_open(self) -> bool:
        """Tell whether there is something to be done about it: reviews never are open."""
        is_going_on = self.alert.event_type == "alert" and self.state in ("started", "updated")
        return is_going_on and self.closed is None


class Database:
    """An open database; a context manager. Use ``open_for_sensor`` and ``open_for_command``.

    Every method but those of the sensor raises StateError where the database does.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def close(self) -> None:
        """Close it; the last one to do so brings all into the one file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise _refused(self._path, error) from None

    # What the sensor does; sqlite3.Error where it fails.

    def write(
        self,
        alerts: Iterable[Alert],
        devices: Iterable[Mapping[str, Sequence[Any]]],
        now_ns: int,
        peaks: Iterable[Peaks] = (),
    ) -> None:
        """Keep alert records, devices as columns of Pipeline.device_table, and peaks; forget what is too old."""
        oldest = eve_time(now_ns - KEPT_DAYS * 86_400_000_000_000)
        with self._transaction() as run:
            for alert in alerts:
                run(
                    "INSERT INTO alerts"  # noqa: S608 - a constant of ours
                    " (alert_id, event_type, state, device, first_time, last_time, record, revision)"
                    f" VALUES (?, ?, ?, ?, ?, ?, ?, {_NEXT_REVISION})"
                    " ON CONFLICT (alert_id) DO UPDATE SET state = excluded.state, last_time = excluded.last_time,"
                    " record = excluded.record, revision = excluded.revision",
                    (
                        *(alert.alert_id, alert.event_type, alert.state, alert.device.key),
                        *(alert.timestamp, alert.timestamp, alert_json(alert).decode()),
                    ),
                )
            for columns in devices:
                for row in zip(*columns.values(), strict=True):
                    record = dict(zip(columns, row, strict=True))
                    run(
                        "INSERT OR REPLACE INTO devices (key, last_seen, record) VALUES (?, ?, ?)",
                        (record["device"], record["last_seen"], msgspec.json.encode(record).decode()),
                    )
            for some in peaks:
                _write_peaks(run, some)
            run("DELETE FROM weeks WHERE week < ?", (now_ns // WEEK_NS - KEPT_WEEKS,))
            (n_weeks,) = run("SELECT count(*) FROM weeks").fetchone()
            if n_weeks > MAX_WEEKS:  # those of devices that were hardly there first
                run(
                    "DELETE FROM weeks WHERE (device, week, model) IN"
                    " (SELECT device, week, model FROM weeks ORDER BY minutes, week LIMIT ?)",
                    (n_weeks - MAX_WEEKS,),
                )
            run("DELETE FROM examples WHERE day < ?", (now_ns // DAY_NS - KEPT_DAYS,))
            run(
                "DELETE FROM examples WHERE rowid IN"
                " (SELECT rowid FROM examples ORDER BY day DESC LIMIT -1 OFFSET ?)",
                (MAX_EXAMPLES,),
            )
            run("DELETE FROM devices WHERE last_seen < ?", (oldest,))
            run("DELETE FROM alerts WHERE last_time < ?", (oldest,))
            for table, key, time, most in (
                ("devices", "key", "last_seen", MAX_DEVICES),
                ("alerts", "alert_id", "last_time", MAX_ALERTS),
            ):
                run(
                    f"DELETE FROM {table} WHERE {key} IN"  # noqa: S608 - names of ours
                    f" (SELECT {key} FROM {table} ORDER BY {time} DESC LIMIT -1 OFFSET {most})"
                )

    def lose_all_but(self, alert_ids: Iterable[str]) -> int:
        """Note that alerts that are open, and none of these, are lost: no sensor knows of them; return how many."""
        kept = set(alert_ids)
        with self._transaction() as run:
            going_on = run(
                "SELECT alert_id FROM alerts WHERE event_type = 'alert' AND state IN ('started', 'updated')"
            )
            lost = [alert_id for (alert_id,) in going_on.fetchall() if alert_id not in kept]
            for alert_id in lost:
                run(
                    f"UPDATE alerts SET state = 'lost', revision = {_NEXT_REVISION} WHERE alert_id = ?",  # noqa: S608
                    (alert_id,),
                )
        return len(lost)

    def benign_labels(self, now_ns: int, most: int) -> list[Label]:
        """Return the benign labels that have not expired, the latest ``most`` of them, oldest first."""
        found = self._connection.execute(
            f"SELECT device, verdict, reason, said_by, said_time, expires_ns FROM labels WHERE {_LATEST}"  # noqa: S608
            " AND verdict = 'benign' AND expires_ns > ? ORDER BY label_id DESC LIMIT ?",
            (now_ns, most),
        )
        return [Label(*row) for row in found.fetchall()][::-1]

    def closed_alerts(self) -> set[str]:
        """Return the ids of alerts that the operator has closed and the sensor has not ended yet."""
        found = self._connection.execute(
            "SELECT alert_id FROM alerts WHERE closed_time IS NOT NULL AND state IN ('started', 'updated')"
        )
        return {alert_id for (alert_id,) in found.fetchall()}

    # What the commands do.

    def weeks(self, model_id: str) -> list[DeviceWeek]:
        """Return what is known of devices by week, of those that are over, with the evidence of one model."""
        with self._explained() as connection:
            labels = self._labels()
            (latest,) = connection.execute("SELECT max(week) FROM weeks").fetchone()
            rows = connection.execute(
                "SELECT device, week, minutes, index_peak, model_peak FROM weeks WHERE model = ? AND week < ?"
                " ORDER BY week, device",
                (model_id, latest),
            ).fetchall()
            alerts = connection.execute(
                "SELECT device, first_time, last_time, state IN ('started', 'updated') AND closed_time IS NULL"
                " FROM alerts WHERE event_type = 'alert'"
            ).fetchall()
        accused: dict[str, list[tuple[str, str]]] = {}
        for device, first, last, is_open in alerts:
            accused.setdefault(device, []).append((first, "9" if is_open else last))
        return [
            DeviceWeek(
                *(device, week, minutes, of_index, of_model),
                label=_verdict_then(labels.get(device), week),
                is_accused=any(
                    first < eve_time((week + 1) * WEEK_NS) and last >= eve_time(week * WEEK_NS)
                    for first, last in accused.get(device, ())
                ),
            )
            for device, week, minutes, of_index, of_model in rows
        ]

    def examples(self, schema: str) -> list[Example]:
        """Return the days of labelled devices on which something spoke against them, in the order of time.

        A label says what a device is, before it was said and until it expires. Days whose features mean something else
        than those of ``schema``, of another version of this program, are left out.
        """
        with self._explained() as connection:
            labels = self._labels()
            rows = connection.execute(
                "SELECT device, day, evidence, features FROM examples WHERE schema = ? ORDER BY day, device",
                (schema,),
            ).fetchall()
        return [
            Example(device, day, label.verdict, evidence, features)
            for device, day, evidence, features in rows
            if (label := labels.get(device)) is not None and day * DAY_NS < label.expires_ns
        ]

    def devices(self) -> list[KeptDevice]:
        """Return the devices, the one seen last first."""
        with self._explained() as connection:
            labels = self._labels()
            rows = connection.execute("SELECT key, record FROM devices ORDER BY last_seen DESC, key")
            return [KeptDevice(msgspec.json.decode(record), labels.get(key)) for key, record in rows]

    def alerts(self, after: int = 0) -> list[KeptAlert]:
        """Return the alerts and reviews that have changed since a revision, in the order of that.

        Those of a version of this program whose records had other keys are left out.
        """
        with self._explained() as connection:
            labels = self._labels()
            rows = connection.execute(
                "SELECT record, state, first_time, last_time, revision, closed_time, closed_by, device"
                " FROM alerts WHERE revision > ? ORDER BY revision",
                (after,),
            )
            return [kept for row in rows if (kept := _kept_alert(labels, *row)) is not None]

    def _labels(self) -> dict[str, Label]:
        found = self._connection.execute(
            f"SELECT device, verdict, reason, said_by, said_time, expires_ns FROM labels WHERE {_LATEST}"  # noqa: S608
        )
        return {row[0]: Label(*row) for row in found}

    def close_alert(self, alert_id: str, by: str, now_ns: int) -> None:
        """Note that an alert is dealt with; StateError if there is none, or it is over."""
        with self._explained(), self._transaction() as run:
            self._find(run, alert_id)
            changed = run(
                f"UPDATE alerts SET closed_time = ?, closed_by = ?, revision = {_NEXT_REVISION}"  # noqa: S608
                " WHERE alert_id = ? AND event_type = 'alert' AND state IN ('started', 'updated')"
                " AND closed_time IS NULL",
                (eve_time(now_ns), by, alert_id),
            )
            if changed.rowcount == 0:
                raise StateError(f"{visible(alert_id)}: is not open")

    def add_label(
        self, alert_id: str, verdict: Verdict, reason: str, by: str, now_ns: int, expires_ns: int
    ) -> str:
        """Note what the device of an alert is, and return its key; StateError if there is no such alert."""
        with self._explained(), self._transaction() as run:
            device = self._find(run, alert_id)
            _insert_label(run, device, alert_id, verdict, reason, by, now_ns, expires_ns)
        return device

    def label_device(
        self, name: str, verdict: Verdict, reason: str, by: str, now_ns: int, expires_ns: int
    ) -> str:
        """Note what a device is, and return its key; ``name``: that, or one of its addresses.

        StateError if there is no such device, or more than one.
        """
        wanted = name.lower()
        keys = []
        for device in self.devices():
            key = str(device.record["device"])
            if key == wanted:
                keys = [key]
                break
            if wanted in str(device.record.get("ips") or "").split():
                keys.append(key)
        if len(keys) != 1:
            what = f"is an address of {', '.join(keys)}: name one" if keys else "there is no such device"
            raise StateError(f"{visible(name)}: {what}; spamsensor devices lists them")
        with self._explained(), self._transaction() as run:
            _insert_label(run, keys[0], "", verdict, reason, by, now_ns, expires_ns)
        return keys[0]

    def _find(self, run: Callable[..., sqlite3.Cursor], alert_id: str) -> str:
        found = run("SELECT device FROM alerts WHERE alert_id = ?", (alert_id,)).fetchone()
        if found is None:
            raise StateError(
                f"{visible(alert_id)}: there is no alert of that id: spamsensor alerts lists them"
            )
        return str(found[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _write_peaks(run: Callable[..., sqlite3.Cursor], peaks: Peaks) -> None:
    week, day = peaks.now_ns // WEEK_NS, peaks.now_ns // DAY_NS
    columns = zip(peaks.devices, peaks.of_index, peaks.of_model, peaks.features, strict=True)
    for device, index, model, features in columns:
        if peaks.model_id is not None:
            run(
                "INSERT INTO weeks VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT (device, week, model) DO UPDATE SET"
                " minutes = minutes + 1, index_peak = max(index_peak, excluded.index_peak),"
                " model_peak = max(model_peak, excluded.model_peak)",
                (device, week, peaks.model_id, index, model),
            )
        if features is not None:
            run(
                "INSERT INTO examples VALUES (?, ?, ?, ?, ?) ON CONFLICT (device, day) DO UPDATE SET"
                " evidence = excluded.evidence, schema = excluded.schema, features = excluded.features"
                " WHERE excluded.evidence >= evidence OR excluded.schema != schema",
                (device, day, max(index, model), peaks.schema, features),
            )


def _verdict_then(label: Label | None, week: int) -> Verdict | None:
    """Return what a label says of a device in a week; it says nothing of those that begin after its end."""
    return None if label is None or label.expires_ns <= week * WEEK_NS else label.verdict


def _insert_label(
    run: Callable[..., sqlite3.Cursor],
    device: str,
    alert_id: str,
    verdict: Verdict,
    reason: str,
    by: str,
    now_ns: int,
    expires_ns: int,
) -> None:
    run(
        "INSERT INTO labels (device, alert_id, verdict, reason, said_by, said_time, expires_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (device, alert_id, verdict, reason, by, eve_time(now_ns), expires_ns),
    )


def _kept_alert(
    labels: Mapping[str, Label],
    record: str,
    state: str,
    first_time: str,
    last_time: str,
    revision: int,
    closed_time: str | None,
    closed_by: str,
    device: str,
) -> KeptAlert | None:
    try:
        alert = msgspec.json.decode(record, type=Alert)
    except msgspec.DecodeError:
        return None
    closed = None if closed_time is None else (closed_time, closed_by)
    return KeptAlert(alert, state, first_time, last_time, revision, closed, labels.get(device))


def open_for_sensor(path: Path) -> Database:
    """Open the database to write to, a new one if there is none.

    ForeignError: what is there can never be used; StateError: it cannot be used now. Another thread than this
    one may use it later, in its stead.
    """
    try:
        # SQLite gives its journals the mode of the file, and new files that of any other.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except OSError as error:
        raise StateError(f"{visible(str(path))}: cannot be opened: {error.strerror}") from None
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _refused(path, error) from None
    return Database(path, connection)


def _prepare(connection: sqlite3.Connection) -> None:
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if is_new:
        # Without waiting for the disk at each commit: what is lost when the power fails is a minute at most.
        connection.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {_SCHEMA} COMMIT;")
    _check_version(connection)
    connection.executescript(ADDED_SCHEMA)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise sqlite3.DatabaseError(str(fault).splitlines()[0])


def _check_version(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise sqlite3.DatabaseError("is a database of another program")
    if version != VERSION:
        raise sqlite3.DatabaseError(f"is of version {version}, and this program reads {VERSION}")


def open_for_command(path: Path, *, may_write: bool = False) -> Database:
    """Open the database of a sensor that may be running; StateError if there is none, or it cannot be read."""
    try:
        is_there = path.is_file()
    except OSError as error:
        raise StateError(f"{visible(str(path))}: cannot be read: {error.strerror}") from None
    if not is_there:
        raise StateError(f"{visible(str(path))}: is not there: does a sensor run with --state {path.parent}?")
    mode = "rw" if may_write else "ro"
    if not may_write and not _journal(path).exists() and not os.access(path.parent, os.W_OK):
        mode += "&immutable=1"  # nobody writes to it, and SQLite cannot make the files that tell those who do
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None
        )
        try:
            _check_version(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _refused(path, error) from None
    return Database(path, connection)


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _refused(path: Path, error: Exception) -> StateError:
    code = getattr(error, "sqlite_errorcode", None)
    is_passing = code is not None and code & 0xFF in _PASSING
    return (StateError if is_passing else ForeignError)(f"{visible(str(path))}: {visible(str(error))}")
