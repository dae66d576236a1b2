"""State across restarts: checkpoints, the database beside them, and the sensor that is killed and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from click.testing import CliRunner, Result
from device_events import (
    CAMERA,
    CAMERA_MAC,
    GATEWAY_MAC,
    OUTSIDE,
    PRINTER,
    PRINTER_MAC,
    RESOLVER,
    START_NS,
    EventLog,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from receivers import wait_until
from test_artifact import MODEL
from test_features import STEPS, add
from test_lifecycle import spam
from test_watch import FLOOD, Net, net, refusal, shared_directory, unprivileged_threads, watching  # noqa: F401 - fixtures

from sensor.alerts.destinations import Sinks, Stdout
from sensor.alerts.formats import alert_json, alert_text
from sensor.capture.frames import FrameBatch
from sensor.capture.merge import open_captures
from sensor.cli import main
from sensor.config import Config, ExceptionRule, Instant, Mac, Network, Output, Tables
from sensor.devices.features import N_FEATURES, compute_features, schema_digest
from sensor.devices.saved import NOT_SAVED, saved_fields
from sensor.devices.table import DAY_NS, SECOND_NS, DeviceTables
from sensor.errors import ConfigError, StateError
from sensor.notation import eve_time
from sensor.pipeline import Pipeline
from sensor.state.checkpoint import MAGIC, Snapshot, decode, encode
from sensor.state.database import (
    KEPT_DAYS,
    VERSION,
    Database,
    ForeignError,
    open_for_command,
    open_for_sensor,
)
from sensor.state.files import CHECKPOINT, DATABASE, DirectoryLock, make_directory, replace_file
from sensor.state.keeper import PAUSE_S, Keeper
from sensor.state.listing import changed_text
from sensor.state.weeks import Peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sensor.alerts.record import Alert
    from sensor.model.artifact import Artifact
    from sensor.state.weeks import Example

SMALL = Config(tables=Tables(devices=256, dns_answers=256))
CAMERA_KEY = "44:19:b6:0a:0b:0c"


class Run:
    """A pipeline that is fed events, and all that it says."""

    def __init__(self, config: Config = SMALL, *, has_windows: bool = True) -> None:
        self.alerts: list[bytes] = []
        self.windows: list[Any] = []
        self._options: dict[str, Any] = {"on_window": self.windows.append} if has_windows else {}
        self._config = config
        self.pipeline = self.new_pipeline()

    def new_pipeline(self) -> Pipeline:
        return Pipeline(
            self._config, on_alert=lambda alert: self.alerts.append(alert_json(alert)), **self._options
        )

    def restart(self) -> None:
        content = encoded(self.pipeline)
        self.pipeline = self.new_pipeline()
        self.pipeline.restore(decode(content, self.pipeline.snapshot()))

    def take(self, log: EventLog, first: int = 0, end: int | None = None) -> Run:
        events, text = log.arrays()
        self.pipeline.observe(events[first:end], text)
        return self

    def outcome(self) -> tuple[Any, ...]:
        self.pipeline.finish()
        # As text: what is not known is NaN, which is like nothing.
        return self.alerts, [repr(window) for window in self.windows], self.pipeline.device_table()


def encoded(pipeline: Pipeline) -> bytes:
    return b"".join(encode(pipeline.snapshot()))


# A checkpoint holds all that was learned.


@st.composite
def histories(draw: st.DrawFn) -> EventLog:
    """Events of a camera, of what the LAN says, and of a device that may be a spammer, over minutes or days."""
    log = EventLog()
    now_s = 0.0
    for step, pause_s in draw(st.lists(st.tuples(STEPS, st.floats(0, 1)), min_size=1, max_size=60)):
        now_s += pause_s**6 * 90_000
        what, host, detail = step
        if detail == 7:
            bad = spam(8 + host, now_s, PRINTER_MAC, PRINTER)
            start = len(log.text)
            log.rows += [row | {"text_start": row["text_start"] + start} for row in bad.rows]
            log.text += bad.text
            now_s += 20.0
        else:
            add(log, now_s, what, host, detail)
    return log


@settings(max_examples=60)
@given(histories(), st.lists(st.floats(0, 1), min_size=1, max_size=3), st.booleans())
def test_restarts_change_nothing(log: EventLog, cuts: list[float], has_windows: bool) -> None:
    whole = Run(has_windows=has_windows).take(log)
    run = Run(has_windows=has_windows)
    first = 0
    for cut in sorted(round(cut * len(log.rows)) for cut in cuts):
        run.take(log, first, cut).restart()
        first = cut
    assert run.take(log, first).outcome() == whole.outcome()
    learned, expected = run.pipeline.snapshot().arrays, whole.pipeline.snapshot().arrays
    for total in ("excepted", "called", "answered"):  # of a run
        learned["clock"][total] = expected["clock"][total]
    for name, array in learned.items():
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_restart_between_packets_loses_no_device(share: float) -> None:
    """Connections that are open are not kept: what is said of the same devices may differ by that."""
    with open_captures([FLOOD], on_problem=pytest.fail) as batches:
        whole, run = Run(), Run()
        for batch in batches:
            whole.pipeline.feed(batch)
            cut = round(share * len(batch.frames))
            run.pipeline.feed(FrameBatch(batch.data, batch.frames[:cut]))
            run.restart()
            run.pipeline.feed(FrameBatch(batch.data, batch.frames[cut:]))
    expected, outcome = whole.outcome(), run.outcome()
    assert outcome[2]["device"] == expected[2]["device"]
    assert outcome[2]["hostname"] == expected[2]["hostname"]
    assert accused(outcome[0]) == accused(expected[0]) != set()


def accused(alerts: list[bytes]) -> set[str]:
    return {alert["device"]["key"] for alert in map(json.loads, alerts) if alert["event_type"] == "alert"}


def test_an_alert_goes_on_after_a_restart() -> None:
    run = Run().take(spam(40))
    (started,) = [record for alert in run.alerts if (record := json.loads(alert))["event_type"] == "alert"]
    run.restart()
    run.alerts.clear()
    run.pipeline.advance(START_NS + 2 * DAY_NS)
    (ended,) = map(json.loads, run.alerts)
    assert (ended["state"], ended["alert_id"]) == ("ended", started["alert_id"])


def test_every_table_is_saved_or_known_not_to_be() -> None:
    assert sorted([*saved_fields(), *NOT_SAVED]) == sorted(DeviceTables._fields)


def test_rows_that_are_not_in_use_are_not_written() -> None:
    config = Config(tables=Tables(devices=1 << 14, dns_answers=1 << 14))
    assert len(encoded(Run(config).take(spam(40)).pipeline)) < 300_000


def test_a_full_table_is_restored() -> None:
    log = EventLog()
    for n in range(600):
        log.connect(float(n), resp=OUTSIDE, mac=CAMERA_MAC + n, orig=f"192.168.{n // 200}.{n % 200 + 1}")
    run = Run().take(log)
    before = run.pipeline.device_table()
    assert len(before["device"]) > 200
    run.restart()
    assert run.pipeline.device_table() == before


def test_an_earlier_packet_counts_as_of_the_checkpoint() -> None:
    run = Run().take(spam(40, at_s=3600.0))
    run.restart()
    now_ns = run.pipeline.snapshot().now_ns
    run.take(spam(1, at_s=0.0))
    assert run.pipeline.snapshot().now_ns == now_ns
    assert set(run.pipeline.device_table()["last_seen"]) == {eve_time(now_ns)}


def test_known_servers_are_those_of_the_configuration_of_now() -> None:
    content = encoded(Run().take(spam(40)).pipeline)
    for address, is_known in ((CAMERA, True), (PRINTER, False)):
        config = msgspec.convert({"tables": {"devices": 256, "dns_answers": 256}}, Config)
        config = msgspec.structs.replace(config, mail_servers=(network(address),))
        pipeline = Run(config).pipeline
        pipeline.restore(decode(content, pipeline.snapshot()))
        row = pipeline.device_rows()[0]
        assert bool(pipeline._devices.devices[row]["is_known_server"]) is is_known


def test_routers_are_learnt_anew_with_other_home_networks() -> None:
    log = spam(3)
    log.connect(2.0, orig=OUTSIDE, mac=GATEWAY_MAC, resp=CAMERA, resp_mac=CAMERA_MAC)
    content = encoded(Run().take(log).pipeline)
    for networks, is_kept in ((SMALL.home_nets, True), ((network("192.168.0.0/16"),), False)):
        pipeline = Run(msgspec.structs.replace(SMALL, home_nets=networks)).pipeline
        pipeline.restore(decode(content, pipeline.snapshot()))
        assert bool(pipeline._devices.routers["mac"].any()) is is_kept


def test_labels_outlast_a_reload() -> None:
    run = Run()
    rule = ExceptionRule(device=Mac(CAMERA_KEY), reason="known", expires=Instant(date(2100, 1, 1)))
    run.pipeline.accept([rule])
    run.pipeline.reconfigure(SMALL, None)
    run.take(spam(5))
    assert run.pipeline.stats()["excepted_connections"] == 5
    run.pipeline.accept([])
    run.take(spam(5, at_s=60.0))
    assert run.pipeline.stats()["excepted_connections"] == 5


def network(text: str) -> Any:
    return Network(text)


# What is no checkpoint is refused.


@pytest.fixture(scope="module")
def spam_content() -> bytes:
    return encoded(Run().take(spam(40)).pipeline)


def is_refused(content: bytes, like: Snapshot) -> bool:
    try:
        decode(content, like)
    except StateError:
        return True
    return False


def test_every_truncation_is_refused(spam_content: bytes) -> None:
    like = Run().pipeline.snapshot()
    near_an_end = {*range(600), *range(len(spam_content) - 600, len(spam_content))}
    for length in sorted(near_an_end | set(range(0, len(spam_content), 97))):
        assert is_refused(spam_content[:length], like)
    assert is_refused(spam_content + b"\0", like)


def test_every_changed_byte_is_refused(spam_content: bytes) -> None:
    like = Run().pipeline.snapshot()
    changed = bytearray(spam_content)
    for place in [*range(12_000), *range(12_000, len(spam_content), 31), len(spam_content) - 1]:
        changed[place] ^= 1 << place % 8
        assert is_refused(bytes(changed), like), place
        changed[place] ^= 1 << place % 8


@given(st.binary(max_size=400), st.booleans())
def test_anything_else_is_refused(content: bytes, has_magic: bool) -> None:
    assert is_refused(MAGIC * has_magic + content, LIKE)


LIKE = Run().pipeline.snapshot()


def forged(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A checkpoint with another manifest, and the digest to it."""
    import hashlib  # noqa: PLC0415

    length, arrays = (int.from_bytes(content[at : at + 8], "little") for at in (8, 16))
    manifest = json.loads(content[24 : 24 + length])
    change(manifest)
    text = json.dumps(manifest).encode()
    whole = (
        MAGIC
        + len(text).to_bytes(8, "little")
        + arrays.to_bytes(8, "little")
        + text
        + content[24 + length : -32]
    )
    return whole + hashlib.sha256(whole).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "was written by version"),
        (lambda m: m.update(schema="0" * 64), "was written by version"),
        (lambda m: m.pop("cases"), "cannot be read"),
        (lambda m: m.update(cases=[{"row": 1}]), "cannot be read"),
        (lambda m: m["arrays"].update(devices=1 << 40), "longer arrays"),
        (lambda m: m["arrays"].update(devices=-1), "not known"),
        (lambda m: m["arrays"].update(unheard=1), "not known"),
        (lambda m: m["arrays"].pop("evidence.index.values"), "other arrays"),
        (lambda m: m["arrays"].update(addresses=m["arrays"].pop("addresses")), None),
    ],
)
def test_a_forged_manifest_is_refused(spam_content: bytes, change: Any, message: str | None) -> None:
    assert not is_refused(forged(spam_content, lambda _: None), LIKE)
    if message is None:  # another order: rows of one kind in the place of another
        run = Run().pipeline
        with pytest.raises((StateError, ValueError)):
            run.restore(decode(forged(spam_content, change), LIKE))
    else:
        with pytest.raises(StateError, match=message):
            decode(forged(spam_content, change), LIKE)


@pytest.mark.parametrize(
    "sizes", [{"devices": 512, "dns_answers": 256}, {"devices": 256, "dns_answers": 512}]
)
def test_tables_of_other_sizes_are_refused(spam_content: bytes, sizes: dict[str, int]) -> None:
    like = Run(Config(tables=Tables(**sizes))).pipeline.snapshot()
    with pytest.raises(StateError, match="of other sizes"):
        decode(spam_content, like)


@pytest.mark.parametrize(
    ("name", "value"), [("rows.devices", 256), ("rows.answers", -1), ("dirty", 1 << 40), ("window", -5)]
)
def test_rows_that_are_not_there_are_refused(name: str, value: int) -> None:
    log = spam(3)
    log.answer(2.0, b"example.com", OUTSIDE)
    snapshot = Run().take(log).pipeline.snapshot()
    if name == "dirty":
        snapshot.arrays["dirty"] = np.array([0])
        snapshot.arrays["clock"]["n_dirty"] = 1
    snapshot.arrays[name][-1] = value
    pipeline = Run().pipeline
    with pytest.raises(ValueError, match="not there"):
        pipeline.restore(snapshot)
    assert len(pipeline.device_rows()) == 0


def test_evidence_of_another_model_is_left_out(spam_content: bytes) -> None:
    pipeline = Run().pipeline
    content = forged(spam_content, lambda m: m["models"].update(index="another"))
    snapshot = decode(content, pipeline.snapshot())
    assert not [name for name in snapshot.arrays if name.startswith("evidence.")]
    pipeline.restore(snapshot)
    assert set(pipeline.device_table()["evidence"]) == {0.0}


# Files.


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    replace_file(path, [b"one", b"two"])

    def breaking() -> Iterator[bytes]:
        yield b"three"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_file(path, breaking())
    assert path.read_bytes() == b"onetwo"


def test_two_sensors_cannot_share_a_directory(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(StateError, match="another sensor"):
        DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()


def test_a_directory_is_made_for_the_user(tmp_path: Path) -> None:
    user = pwd.getpwuid(65534 if os.geteuid() == 0 else os.geteuid())
    made = tmp_path / "state"
    make_directory(made, user)
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (user.pw_uid, 0o750)
    make_directory(made, user)
    for bad in (tmp_path / "no" / "such", tmp_path / "file" / "state"):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=r"--state .*: cannot be used: "):
            make_directory(bad, user)
    with pytest.raises(ConfigError, match="not a directory"):
        DirectoryLock(tmp_path / "file")


# The keeper.


class Kept:
    """A run that keeps its state in a directory; what it says is in ``news`` and ``problems``."""

    def __init__(self, directory: Path, artifact: Artifact | None = None) -> None:
        self.news: list[str] = []
        self.problems: list[str] = []
        self.alerts: list[Alert] = []
        self.keeper = Keeper(directory, on_news=self.news.append, on_problem=self.problems.append)
        self.pipeline, self.reminded = self.keeper.resume(
            lambda: Pipeline(SMALL, on_alert=self._on_alert, artifact=artifact)
        )
        self.keeper.look_after(self.pipeline)

    def _on_alert(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.keeper.take(alert)

    def take(self, log: EventLog) -> None:
        self.pipeline.observe(*log.arrays())
        self.keeper.look_after(self.pipeline)

    def next_minute(self) -> None:
        self.keeper._next_s = 0.0
        self.keeper.look_after(self.pipeline)


def recent_spam(n: int = 40) -> EventLog:
    """Spam of a minute ago, by the clock."""
    return spam(n, at_s=time.time() - 60 - START_NS / SECOND_NS)


def test_a_run_goes_on_from_the_one_before(tmp_path: Path) -> None:
    before = Kept(tmp_path)
    before.take(recent_spam())
    before.keeper.finish(before.pipeline)
    table = before.pipeline.device_table()
    after = Kept(tmp_path)
    (line,) = after.news
    assert line.startswith("resumed from a checkpoint of ")
    assert line.endswith(" ago, 2 devices, 1 open alert")
    assert [alert.alert_id for alert in after.reminded] == [
        alert.alert_id for alert in before.alerts if alert.event_type == "alert"
    ]
    assert after.pipeline.device_table() == table
    after.keeper.close()
    assert before.problems == after.problems == []


def test_what_a_device_was_like_in_a_week_is_kept(tmp_path: Path) -> None:
    before = Kept(tmp_path, MODEL)
    before.take(recent_spam())
    before.keeper.finish(before.pipeline)
    assert weeks_of(tmp_path) == []  # of the first hours, in which other thresholds hold
    (tmp_path / "long ago").mkdir()
    run = Kept(tmp_path / "long ago", MODEL)
    run.pipeline.started_ns = -START_NS
    run.take(recent_spam())
    most = [float(channel.evidence.evidence.max()) for channel in run.pipeline._channels]
    run.next_minute()
    run.keeper.finish(run.pipeline)
    rows = weeks_of(tmp_path / "long ago")
    assert {row[0] for row in rows} == set(run.pipeline.device_table()["device"])
    assert {row[1] for row in rows} == {run.pipeline.snapshot().models["model"]}
    assert all(row[2] >= 2 for row in rows)
    assert max(row[3] for row in rows) >= most[0] > 0
    assert max(row[4] for row in rows) >= most[1] > 0


def weeks_of(directory: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(directory / DATABASE)) as connection:
        return connection.execute(
            "SELECT device, model, minutes, index_peak, model_peak FROM weeks"
        ).fetchall()


def test_what_a_labelled_device_was_like_is_kept_to_learn_from(tmp_path: Path) -> None:
    run = Kept(tmp_path)  # in the first hours, too, and without a model
    run.take(recent_spam())
    run.next_minute()
    features = dict(zip(run.pipeline.device_table()["device"], features_of(run.pipeline), strict=True))
    run.keeper.finish(run.pipeline)
    assert examples_of(tmp_path) == []  # nobody has said what it is
    command(tmp_path, "label", CAMERA_KEY, "infected")
    command(tmp_path, "label", RESOLVER, "benign")  # against which nothing speaks
    (example,) = examples_of(tmp_path)
    assert (example.device, example.verdict) == (CAMERA_KEY, "infected")
    assert example.evidence > 0
    assert np.frombuffer(example.features) == pytest.approx(features[CAMERA_KEY], nan_ok=True)
    command(tmp_path, "label", CAMERA_KEY, "benign")
    assert [example.verdict for example in examples_of(tmp_path)] == ["benign"]


def features_of(pipeline: Pipeline) -> NDArray[np.float64]:
    rows, t = pipeline.device_rows(), pipeline._devices
    features = np.zeros((len(rows), N_FEATURES))
    compute_features(t, rows, len(rows), int(t.clock[0]["now_ns"]), features)
    return features


def examples_of(directory: Path, schema: str | None = None) -> list[Example]:
    with open_for_command(directory / DATABASE) as database:
        return database.examples(schema_digest() if schema is None else schema)


def test_of_each_day_the_worst_moment_is_kept(tmp_path: Path, database: Database) -> None:
    def write(day: int, evidence: float, said: bytes, schema: str = "now") -> None:
        peaks = Peaks(day * DAY_NS, None, ["a"], [evidence], [0.0], [said], schema)
        database.write([], [], DAY_NS, [peaks])

    database.write([], [{"device": ["a"], "last_seen": [CAMERA_ALERT.timestamp]}], NOW_NS)
    database.label_device("a", "benign", "", "me", NOW_NS, expires_ns=4 * DAY_NS)
    for evidence, said in ((2.0, b"two"), (3.0, b"three"), (1.0, b"one")):
        write(2, evidence, said)
    write(3, 9.0, b"before the update", "before")
    write(3, 1.0, b"after it")
    write(4, 1.0, b"when the label has expired")
    kept = [(example.day, example.features) for example in examples_of(tmp_path, "now")]
    assert kept == [(2, b"three"), (3, b"after it")]
    database.write([], [], 3 * DAY_NS + KEPT_DAYS * DAY_NS)
    assert [example.day for example in examples_of(tmp_path, "now")] == [3]


def test_a_database_without_weeks_gets_them(tmp_path: Path) -> None:
    Kept(tmp_path).keeper.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("DROP TABLE weeks")
        connection.execute("DROP TABLE examples")
    run = Kept(tmp_path)
    run.keeper.close()
    assert run.news == run.problems == []
    assert weeks_of(tmp_path) == []
    assert examples_of(tmp_path) == []


def test_an_alert_is_in_a_checkpoint_and_the_database_soon(tmp_path: Path) -> None:
    run = Kept(tmp_path)
    run.take(recent_spam())
    (alert,) = [alert for alert in run.alerts if alert.event_type == "alert"]
    wait_until((tmp_path / CHECKPOINT).exists)
    wait_until(lambda: listed(tmp_path))
    assert [kept.alert.alert_id for kept in listed(tmp_path)] == [alert.alert_id]
    run.keeper.close()


def listed(directory: Path) -> list[Any]:
    with open_for_command(directory / DATABASE) as database:
        return [kept for kept in database.alerts() if kept.is_open]


def test_a_new_database_gets_the_open_alerts(tmp_path: Path) -> None:
    before = Kept(tmp_path)
    before.take(recent_spam())
    before.keeper.finish(before.pipeline)
    (tmp_path / DATABASE).unlink()
    after = Kept(tmp_path)
    wait_until(lambda: listed(tmp_path))
    assert [kept.alert for kept in listed(tmp_path)] == after.reminded
    assert after.pipeline.stats()["alerts"] == 0
    assert after.keeper.stats() == {"checkpoint_age_seconds": None}
    after.next_minute()
    wait_until(lambda: after.keeper.stats()["checkpoint_age_seconds"] is not None)
    after.keeper.close()


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / CHECKPOINT).open("wb") as file:
        file.truncate(1 << 40)
    run = Kept(tmp_path)
    assert "is larger than any checkpoint" in run.news[0]
    run.keeper.close()


def test_alerts_have_checkpoints_soon_but_not_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over: list[float] = []
    run = Kept(tmp_path)
    run.take(recent_spam())
    monkeypatch.setattr(run.keeper, "_hand_over", lambda *_, **__: handed_over.append(time.monotonic()))
    begin = time.monotonic()
    while time.monotonic() - begin < 2.5 * PAUSE_S:
        run.keeper.take(CAMERA_ALERT)
        run.keeper.take(make_alert(event_type="review"))
        run.keeper.look_after(run.pipeline)
        time.sleep(0.01)
    assert len(handed_over) in (2, 3)
    run.keeper._urgent_s = float("inf")
    run.keeper.take(make_alert(event_type="review"))
    assert run.keeper._urgent_s == float("inf")
    run.keeper.close()


@pytest.mark.parametrize("content", [b"", b"nonsense", MAGIC + bytes(100)])
def test_what_is_no_checkpoint_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    run = Kept(tmp_path)
    (line,) = run.news
    assert "it is called checkpoint.unusable-" in line
    assert "the sensor begins anew" in line
    (aside,) = tmp_path.glob("checkpoint.unusable-*")
    assert aside.read_bytes() == content
    run.keeper.close()


def test_a_checkpoint_ahead_of_the_clock_is_set_aside(tmp_path: Path) -> None:
    before = Kept(tmp_path)
    before.take(spam(40, at_s=time.time() + 3600 - START_NS / SECOND_NS))
    before.keeper.finish(before.pipeline)
    after = Kept(tmp_path)
    assert "ahead of the clock" in after.news[0]
    assert "1 open alert of the database not in the checkpoint: marked lost" in after.news[1]
    assert len(after.pipeline.device_rows()) == 0
    assert listed(tmp_path) == []
    after.keeper.close()


def make_foreign(path: Path, kind: str) -> None:
    if kind == "nonsense":
        path.write_bytes(b"no database at all " * 100)
        return
    if kind == "newer":
        open_for_sensor(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE another (x)")
        if kind == "newer":
            connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.commit()


@pytest.mark.parametrize("kind", ["nonsense", "foreign", "newer"])
def test_a_foreign_database_is_set_aside(tmp_path: Path, kind: str) -> None:
    make_foreign(tmp_path / DATABASE, kind)
    with pytest.raises(ForeignError):
        open_for_sensor(tmp_path / DATABASE)
    run = Kept(tmp_path)
    assert "it is called state.db.unusable-" in run.news[0]
    assert len(list(tmp_path.glob("state.db.unusable-*"))) == 1
    run.take(recent_spam())
    run.keeper.finish(run.pipeline)
    assert len(listed(tmp_path)) == 1
    assert run.problems == []


def test_a_full_disk_is_said_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run = Kept(tmp_path)
    monkeypatch.setattr("sensor.state.keeper.replace_file", full)
    run.take(recent_spam())
    run.next_minute()
    run.next_minute()
    run.keeper.finish(run.pipeline)
    assert run.problems == [f"{tmp_path / CHECKPOINT} cannot be written: No space left on device"]


def test_what_the_database_did_not_take_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Kept(tmp_path)

    def busy(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(run.keeper._database, "write", busy)
        run.take(recent_spam())
        wait_until(lambda: run.keeper._problems or run.problems)
    run.next_minute()
    assert run.problems == [f"{tmp_path / DATABASE} cannot be written: database is locked"]
    wait_until(lambda: listed(tmp_path))
    run.keeper.close()


def test_what_can_neither_be_used_nor_set_aside_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / CHECKPOINT).write_bytes(b"nonsense")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StateError, match="cannot be used, nor be renamed: Permission denied"):
        Kept(tmp_path)


# What the operator says.


def command(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--state", str(directory)], prog_name="spamsensor")


def test_a_closed_alert_ends(tmp_path: Path) -> None:
    run = Kept(tmp_path)
    run.take(recent_spam())
    wait_until(lambda: listed(tmp_path))
    (kept,) = listed(tmp_path)
    assert command(tmp_path, "alerts", "close", kept.alert.alert_id).exit_code == 0
    assert listed(tmp_path) == []
    again = command(tmp_path, "alerts", "close", kept.alert.alert_id)
    assert (again.exit_code, "is not open" in again.stderr) == (1, True)
    run.next_minute()
    wait_until(lambda: run.keeper._decisions is not None)
    run.keeper.look_after(run.pipeline)
    assert [(alert.alert_id, alert.state) for alert in run.alerts][-1] == (kept.alert.alert_id, "ended")
    run.keeper.close()
    closed = [row for row in records(tmp_path, "alerts", "--all") if row["closed"]]
    assert [(row["state"], row["alert_id"]) for row in closed] == [("ended", kept.alert.alert_id)]


def records(directory: Path, *arguments: str) -> list[Any]:
    result = command(directory, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_benign_label_is_an_exception_until_it_is_taken_back(tmp_path: Path) -> None:
    run = Kept(tmp_path)
    run.take(recent_spam())
    wait_until(lambda: listed(tmp_path))
    alert_id = listed(tmp_path)[0].alert.alert_id

    def excepted_after(verdict: str) -> int:
        result = command(tmp_path, "alerts", "label", alert_id, verdict, "--reason", "because")
        assert result.exit_code == 0, result.output
        run.next_minute()
        wait_until(lambda: run.keeper._decisions is not None)
        run.keeper.look_after(run.pipeline)
        before = run.pipeline.stats()["excepted_connections"]
        run.take(recent_spam(5))
        return int(run.pipeline.stats()["excepted_connections"]) - before

    assert excepted_after("benign") == 5
    assert excepted_after("infected") == 0
    assert excepted_after("benign") == 5
    run.keeper.close()
    again = Kept(tmp_path)
    again.take(recent_spam(5))
    assert again.pipeline.stats()["excepted_connections"] == 5
    again.keeper.close()
    labelled = {
        row["device"]: row["label"] and row["label"]["verdict"] for row in records(tmp_path, "devices")
    }
    assert labelled == {CAMERA_KEY: "benign", RESOLVER: None}
    assert records(tmp_path, "alerts")[0]["label"]["verdict"] == "benign"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_for_sensor(tmp_path / DATABASE) as database:
        yield database


NOW_NS = START_NS


def test_an_alert_is_one_row(tmp_path: Path, database: Database) -> None:
    records_ = [CAMERA_ALERT, make_alert(state="updated"), make_alert(state="ended")]
    for alert in records_:
        database.write([alert], [], NOW_NS)
        with open_for_command(tmp_path / DATABASE) as reader:
            (kept,) = reader.alerts()
        assert (kept.alert, kept.state, kept.is_open) == (alert, alert.state, alert.state != "ended")
        assert kept.first_time == CAMERA_ALERT.timestamp
    assert kept.revision == 3


def test_what_a_sensor_left_can_be_read_where_nobody_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_for_sensor(tmp_path / DATABASE) as database:
        database.write([CAMERA_ALERT], [], NOW_NS)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("os.access", lambda *_: False)
    with open_for_command(tmp_path / DATABASE) as reader:
        assert len(reader.alerts()) == 1
        assert sorted(tmp_path.iterdir()) == before == [tmp_path / DATABASE]


def test_rows_of_older_versions_do_no_harm(tmp_path: Path, database: Database) -> None:
    database.write([CAMERA_ALERT], [{"device": ["x"], "last_seen": [CAMERA_ALERT.timestamp]}], NOW_NS)
    database._connection.execute("UPDATE alerts SET record = '{}'")
    assert records(tmp_path, "alerts") == []
    assert "x" in command(tmp_path, "devices").stdout.splitlines()[1].split()


def test_old_rows_are_forgotten(tmp_path: Path, database: Database) -> None:
    database.write([CAMERA_ALERT], [{"device": ["x"], "last_seen": [CAMERA_ALERT.timestamp]}], NOW_NS)
    with open_for_command(tmp_path / DATABASE) as reader:
        assert len(reader.alerts()) == len(reader.devices()) == 1
        database.write([], [], NOW_NS + (KEPT_DAYS + 1) * DAY_NS)
        assert len(reader.alerts()) == len(reader.devices()) == 0


def test_labels_expire_and_addresses_in_vlans_are_no_exceptions(database: Database) -> None:
    from sensor.state.keeper import exception_of  # noqa: PLC0415

    for n, key in enumerate((CAMERA_KEY, "10.0.0.5", "10.0.0.5@20", "fe80::1")):
        alert = make_alert(alert_id=f"{n}", device=msgspec.structs.replace(CAMERA_ALERT.device, key=key))
        database.write([alert], [], NOW_NS)
        assert database.add_label(f"{n}", "benign", "", "me", NOW_NS, NOW_NS + 100 + n) == key
    labels = database.benign_labels(NOW_NS, 10)
    assert [str(rule.device) if (rule := exception_of(label)) else None for label in labels] == [
        *(CAMERA_KEY, "10.0.0.5", None, "fe80::1")
    ]
    assert len(database.benign_labels(NOW_NS, 2)) == 2
    assert len(database.benign_labels(NOW_NS + 101, 10)) == 2


def test_a_device_is_labelled_by_its_key_or_an_address(tmp_path: Path, database: Database) -> None:
    seen = [CAMERA_ALERT.timestamp] * 2
    ips = ["10.0.0.5 10.0.0.9", "10.0.0.9 fe80::1"]
    database.write([], [{"device": [CAMERA_KEY, "02:00:00:00:00:02"], "last_seen": seen, "ips": ips}], NOW_NS)
    state = ("--state", str(tmp_path))
    for name, key in (
        (CAMERA_KEY.upper(), CAMERA_KEY),
        ("10.0.0.5", CAMERA_KEY),
        ("FE80::1", "02:00:00:00:00:02"),
    ):
        done = CliRunner().invoke(main, ["label", name, "benign", "--reason", "ours", *state])
        assert (done.exit_code, done.stderr.startswith(f"spamsensor: {key}: labelled benign until ")) == (
            0,
            True,
        )
    assert {label.device for label in database.benign_labels(NOW_NS, 10)} == {CAMERA_KEY, "02:00:00:00:00:02"}
    for name, why in (
        ("10.0.0.9", f"is an address of 02:00:00:00:00:02, {CAMERA_KEY}: name one"),
        ("printer\x1b[m", "printer\\x1b[m: there is no such device; spamsensor devices lists them"),
    ):
        done = CliRunner().invoke(main, ["label", name, "infected", *state])
        assert done.exit_code == 1
        assert why in done.stderr.replace("\n", "")
    CliRunner().invoke(main, ["label", CAMERA_KEY, "infected", *state])
    assert [label.device for label in database.benign_labels(NOW_NS, 10)] == ["02:00:00:00:00:02"]


def test_readers_see_whole_states_while_the_sensor_writes(tmp_path: Path, database: Database) -> None:
    alerts = [make_alert(alert_id=f"{n:03}") for n in range(20)]
    stop = threading.Event()
    seen: list[set[str]] = []
    failed: list[Exception] = []

    def read() -> None:
        try:
            with open_for_command(tmp_path / DATABASE) as reader:
                while not stop.is_set():
                    seen.append({kept.alert.timestamp for kept in reader.alerts()})
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    longest_s = 0.0
    for n in range(100):
        stamp = f"2026-11-23T14:50:22.{n:06}+0000"
        before = time.perf_counter()
        database.write([msgspec.structs.replace(alert, timestamp=stamp) for alert in alerts], [], NOW_NS)
        longest_s = max(longest_s, time.perf_counter() - before)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(seen) > 2
    assert all(len(stamps) <= 1 for stamps in seen)
    assert longest_s < 2.0


# The commands.


HOSTILE = "\x1b[31m[bold]evil[/bold]\u202e"


def test_tables_of_hostile_names_are_harmless(tmp_path: Path, database: Database) -> None:
    device = msgspec.structs.replace(CAMERA_ALERT.device, hostname=HOSTILE, type="[red]x")
    database.write([make_alert(device=device)], [], NOW_NS)
    table = Run().take(spam(3)).pipeline.device_table()
    table["hostname"] = [HOSTILE] * len(table["hostname"])
    database.write([], [table], NOW_NS)
    for name in ("alerts", "devices"):
        result = command(tmp_path, name)
        assert result.exit_code == 0, result.output
        assert result.stdout.isascii()
        assert result.stdout.replace("\n", "").isprintable()
        assert "\\x1b[31m[bold]evil[/bold]\\u202e" in result.stdout
        json_text = command(tmp_path, name, "--format", "json").stdout
        assert all(json.loads(line) for line in json_text.splitlines())


def test_open_alerts_are_listed_and_all_on_request(tmp_path: Path, database: Database) -> None:
    review = make_alert(alert_id="r", event_type="review")
    assert "no open alerts" in command(tmp_path, "alerts").stderr
    assert "no devices yet" in command(tmp_path, "devices").stderr
    database.write([CAMERA_ALERT, review, make_alert(alert_id="e", state="ended")], [], NOW_NS)
    assert [row["alert_id"] for row in records(tmp_path, "alerts")] == [CAMERA_ALERT.alert_id]
    assert {row["alert_id"] for row in records(tmp_path, "alerts", "--all")} == {
        CAMERA_ALERT.alert_id,
        "r",
        "e",
    }
    assert database.lose_all_but([]) == 1
    assert records(tmp_path, "alerts") == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["devices"], 2, "no directory given: name the one of watch with --state"),
        (["alerts"], 2, "no directory given: name the one of watch with --state"),
        (
            ["devices", "--state", "/nowhere"],
            1,
            "/nowhere/state.db: is not there: does a sensor run with --state",
        ),
        (["alerts", "close", "nosuch", "--state", "DIR"], 1, "nosuch: there is no alert of that id"),
        (
            ["alerts", "label", "nosuch", "benign", "--state", "DIR"],
            1,
            "nosuch: there is no alert of that id",
        ),
        (
            ["alerts", "label", "x", "benign", "--state", "DIR", "--expires", "soon"],
            2,
            "--expires soon: expected a",
        ),
        (["alerts", "label", "x", "benign", "--state", "DIR", "--expires", "2001-01-01"], 2, "is over"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, database: Database, arguments: list[str], status: int, message: str
) -> None:
    del database  # is there
    result = CliRunner().invoke(
        main, [str(tmp_path) if word == "DIR" else word for word in arguments], prog_name="spamsensor"
    )
    assert (result.exit_code, result.stderr.count("\n")) == (status, 1)
    assert message in result.stderr


def test_a_damaged_database_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"nonsense" * 200)
    result = command(tmp_path, "alerts")
    assert (result.exit_code, result.stderr) == (
        1,
        f"spamsensor: {tmp_path / DATABASE}: file is not a database\n",
    )


def test_following_shows_what_changes(tmp_path: Path, database: Database) -> None:
    database.write([CAMERA_ALERT], [], NOW_NS)
    arguments = ["-m", "sensor", "alerts", "--follow", "--state", str(tmp_path), "--format", "json"]
    # A shell starts what runs in its background with SIGINT ignored, and that is handed down.
    ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    signal.signal(signal.SIGINT, ignored)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "started"
        database.write([make_alert(state="ended")], [], NOW_NS)
        assert json.loads(process.stdout.readline())["state"] == "ended"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.communicate()


def test_what_changed_is_told_with_what_the_operator_said(tmp_path: Path, database: Database) -> None:
    database.write([CAMERA_ALERT], [], NOW_NS)
    (kept,) = listed(tmp_path)
    assert changed_text(kept) == f"{alert_text(CAMERA_ALERT)}\n"
    database.close_alert(kept.alert.alert_id, "me", NOW_NS)
    database.add_label(kept.alert.alert_id, "benign", HOSTILE, "me", NOW_NS, NOW_NS + DAY_NS)
    database.lose_all_but([])
    with open_for_command(tmp_path / DATABASE) as reader:
        (kept,) = reader.alerts()
    *_, lost, closed, label, _ = changed_text(kept).split("\n")
    assert lost.startswith("  lost      the sensor that said so ended")
    assert closed == "  closed    2026-11-24 00:00:00 UTC by me"
    assert label.startswith("  label     benign until 2026-11-25, by me: \\x1b[31m[bold]evil")


# Open alerts are said again.


def test_open_alerts_are_said_again_but_not_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alerts.jsonl"
    sinks = Sinks(Stdout(sys.stdout, "json", False), Output(file=str(path)), [], may_wait=False)
    sinks.remind(CAMERA_ALERT)
    assert sinks.close() == []
    assert capsys.readouterr().out == alert_json(CAMERA_ALERT).decode() + "\n"
    assert path.read_text() == ""


# The sensor itself.


def test_a_killed_sensor_goes_on_with_its_open_alert(
    net: Net,  # noqa: F811 - the fixture
    tmp_path: Path,
    shared_directory: Path,  # noqa: F811
) -> None:
    state = shared_directory / "state"
    options = ("--format", "json", "--state", state)
    with watching(net, tmp_path, *options) as watch:
        net.send(FLOOD)
        wait_until(lambda: '"alert"' in watch.output)
        said = [json.loads(line) for line in watch.output.splitlines()]
        (started,) = [alert for alert in said if alert["event_type"] == "alert"]
        wait_until((state / CHECKPOINT).exists)
        wait_until(lambda: started["alert_id"].encode() in (state / CHECKPOINT).read_bytes())
        watch.process.send_signal(signal.SIGKILL)
        watch.process.wait()
    assert [row["alert"]["alert_id"] for row in records(state, "alerts")] == [started["alert_id"]]
    again = tmp_path / "again"
    again.mkdir()
    with watching(net, again, *options) as watch:
        watch.wait_for("resumed from a checkpoint of ")
        assert watch.errors.rstrip().endswith(", 1 open alert")
        wait_until(lambda: bool(watch.output))
        assert json.loads(watch.output.splitlines()[0]) == started
        assert len(unprivileged_threads(watch)) == 2
        second = subprocess.run(
            net.command(sys.executable, "-m", "sensor", "watch", "-i", "span", *map(str, options)),
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
        )
        assert second.returncode == 1
        assert second.stderr.endswith("state: another sensor keeps its state there\n")
        assert watch.end() == 0
    (device,) = [row for row in records(state, "devices") if row["device"] == started["device"]["key"]]
    assert device["smtp25_connections"] > 0
    assert {path.stat().st_uid for path in state.iterdir()} == {65534}


def test_a_directory_of_somebody_else_is_refused(
    net: Net,  # noqa: F811
    tmp_path: Path,
    shared_directory: Path,  # noqa: F811
) -> None:
    closed = shared_directory / "state"
    closed.mkdir()
    for directory, reason in ((tmp_path, "Permission denied"), (closed, "user 65534 may not write there")):
        status, line = refusal(net, "-i", "span", "--state", directory)
        assert (status, line) == (2, f"spamsensor: --state {directory}: cannot be used: {reason}")
