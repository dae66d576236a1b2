from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema
import msgspec
import numpy as np
import pytest
from device_events import (
    CAMERA,
    CAMERA_MAC,
    PRINTER_MAC,
    START_NS,
    EventLog,
    features_of,
    new_tables,
    observe,
    row_of,
)
from hypothesis import given
from hypothesis import strategies as st

from sensor.alerts.explain import MAX_REASONS
from sensor.alerts.formats import alert_schema
from sensor.alerts.lifecycle import CRITICAL_PER_HOUR, HIGH_PER_HOUR, QUIET_NS, UPDATE_NS, Lifecycle
from sensor.devices.features import FEATURES, N_FEATURES, Feature
from sensor.devices.table import DAY_NS, MAX_PROBES, NEVER_NS, SECOND_NS, DeviceTables
from sensor.events.types import EventKind, Fate, QType
from sensor.model.channel import Channel
from sensor.model.evidence import REVIEW_SHARE, EvidenceTable
from sensor.model.score import MonotoneIndex, Verdicts
from sensor.notation import eve_time

if TYPE_CHECKING:
    from sensor.alerts.record import Alert

pytestmark = pytest.mark.kernel

THRESHOLD = 8.0
MODEL = MonotoneIndex()
VALIDATOR = jsonschema.Draft202012Validator(alert_schema())


def spam(n: int, at_s: float = 0.0, mac: int = CAMERA_MAC, orig: str = CAMERA) -> EventLog:
    """A device that looks up and contacts many servers, most of which refuse its mail."""
    log = EventLog()
    for i in range(n):
        now_s, resp = at_s + i * 0.5, f"198.51.{i % 100}.25"
        who = {"mac": mac, "orig": orig}
        log.query(now_s, b"example%d.com" % i, QType.MX, **who)
        flow = log.connect(now_s, resp=resp, **who)
        log.greet(now_s, b"localhost", resp=resp, **who)
        log.mail(now_s, resp=resp, **who)
        log.reply(now_s, 550, resp=resp, **who)
        log.close(now_s + 0.2, resp=resp, fate=Fate.REJECTED, flow_id=flow, resp_bytes=90, **who)
    return log


class Run:
    """A lifecycle whose evidence the test sets; packet time in seconds after START_NS."""

    def __init__(self, tables: DeviceTables | None = None, n_spam: int = 40) -> None:
        self.tables = new_tables() if tables is None else tables
        self.evidence = EvidenceTable(self.tables.devices.size)
        self.alerts: list[Alert] = []
        self.lifecycle = Lifecycle(
            self.tables, [Channel("index", MODEL, self.evidence, THRESHOLD, THRESHOLD)], self.alerts.append
        )
        if tables is None:
            observe(self.tables, spam(n_spam))

    def judge(
        self,
        evidence: float,
        at_s: float,
        *,
        mac: int = CAMERA_MAC,
        rule: int | None = None,
        **changed: float,
    ) -> list[Alert]:
        """Judge one device with this much evidence; returns what came of it."""
        row = row_of(self.tables, mac)
        now_ns = START_NS + round(at_s * SECOND_NS)
        features = features_of(self.tables, row)[None]
        for name, value in changed.items():
            features[0, Feature[name]] = value
        verdicts = MODEL.judge(features)
        if rule is not None:
            verdicts.rules[:] = rule
        self.evidence.evidence[row] = evidence
        self.evidence.onset_ns[row] = START_NS
        before = len(self.alerts)
        self.lifecycle.take(np.array([row]), features, [verdicts], now_ns)
        return self.alerts[before:]

    def end_quiet(self, at_s: float) -> list[Alert]:
        before = len(self.alerts)
        self.lifecycle.end_quiet(START_NS + round(at_s * SECOND_NS))
        return self.alerts[before:]


DAY_S = DAY_NS / SECOND_NS


def states(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.event_type, alert.state) for alert in alerts]


def test_an_alert_starts_at_the_threshold():
    run = Run()
    assert states(run.judge(THRESHOLD - 0.01, 30)) == [("review", "started")]
    assert states(run.judge(THRESHOLD, 31)) == [("alert", "started")]
    assert (run.lifecycle.n_alerts, run.lifecycle.n_reviews) == (1, 1)


def test_below_the_review_share_nothing_is_said():
    run = Run()
    assert run.judge(REVIEW_SHARE * THRESHOLD - 0.01, 30) == []
    assert states(run.judge(REVIEW_SHARE * THRESHOLD, 31)) == [("review", "started")]


def test_a_device_is_reviewed_once():
    run = Run()
    run.judge(5.0, 30)
    for evidence in (3.0, 5.0, 7.9):
        assert run.judge(evidence, 10_000) == []
    assert run.lifecycle.n_reviews == 1


def test_while_an_alert_is_open_there_is_no_review():
    run = Run()
    run.judge(9.0, 30)
    assert run.judge(5.0, 40) == []


def test_what_goes_on_is_said_when_it_has_doubled_and_an_hour_has_passed():
    run = Run(n_spam=20)
    run.judge(9.0, 30, SMTP25_1H=20)
    assert run.judge(12.0, 30 + UPDATE_NS / SECOND_NS, SMTP25_1H=20) == []  # not doubled
    observe(run.tables, spam(20, at_s=60))
    assert run.judge(12.0, UPDATE_NS / SECOND_NS, SMTP25_1H=20) == []  # less than an hour
    (alert,) = run.judge(12.0, 30 + UPDATE_NS / SECOND_NS, SMTP25_1H=20)
    assert alert.state == "updated"
    assert alert.counts.smtp_connections == 40


@pytest.mark.parametrize(
    ("before", "now", "is_said"),
    [
        (1, HIGH_PER_HOUR, True),
        (HIGH_PER_HOUR, CRITICAL_PER_HOUR, True),
        (HIGH_PER_HOUR, HIGH_PER_HOUR + 1, False),
        (CRITICAL_PER_HOUR, 1, False),
    ],
)
def test_what_gets_worse_is_said_at_once(before, now, is_said):
    run = Run()
    run.judge(9.0, 30, SMTP25_1H=before, BLOCKLISTED_24H=0)
    assert bool(run.judge(9.5, 31, SMTP25_1H=now, BLOCKLISTED_24H=0)) == is_said


@pytest.mark.parametrize(
    ("per_hour", "listed", "severity"),
    [
        (1, 0, "medium"),
        (1, 1, "high"),
        (59, 0, "medium"),
        (60, 0, "high"),
        (999, 9, "high"),
        (1000, 0, "critical"),
    ],
)
def test_severity(per_hour, listed, severity):
    (alert,) = Run().judge(9.0, 30, SMTP25_1H=per_hour, SUBMISSION_1H=0, BLOCKLISTED_24H=listed)
    assert alert.severity == severity


def test_a_review_is_never_severe():
    (review,) = Run().judge(5.0, 30, SMTP25_1H=5000, BLOCKLISTED_24H=5)
    assert review.severity == "low"


def test_an_alert_ends_after_a_quiet_day():
    run = Run()
    (started,) = run.judge(40.0, 30)
    run.judge(50.0, 100)  # evidence, though nothing that is said
    assert run.lifecycle.next_end_ns <= START_NS + 100 * SECOND_NS + QUIET_NS
    assert run.end_quiet(99 + DAY_S) == []
    assert run.lifecycle.next_end_ns == START_NS + 100 * SECOND_NS + QUIET_NS
    (ended,) = run.end_quiet(100 + DAY_S)
    assert (ended.state, ended.alert_id) == ("ended", started.alert_id)
    assert ended.timestamp == eve_time(START_NS + 100 * SECOND_NS + QUIET_NS)
    assert run.end_quiet(100 + 2 * DAY_S) == []
    assert run.lifecycle.next_end_ns == NEVER_NS
    assert run.evidence.evidence[row_of(run.tables)] == REVIEW_SHARE * THRESHOLD


def test_what_begins_again_is_a_new_alert():
    run = Run()
    (first,) = run.judge(9.0, 30)
    run.end_quiet(30 + DAY_S)
    (second,) = run.judge(9.0, 40 + DAY_S)
    assert second.state == "started"
    assert second.alert_id != first.alert_id


def test_records_of_one_alert_agree():
    run = Run()
    (started,) = run.judge(9.0, 30, SMTP25_1H=1, BLOCKLISTED_24H=0)
    (updated,) = run.judge(12.0, 31, SMTP25_1H=HIGH_PER_HOUR, BLOCKLISTED_24H=0)
    (ended,) = run.end_quiet(31 + DAY_S)
    assert {a.alert_id for a in (started, updated, ended)} == {started.alert_id}
    assert {a.onset for a in (started, updated, ended)} == {started.onset}
    assert ended == msgspec.structs.replace(updated, state="ended", timestamp=ended.timestamp)


# --- another device in the row --------------------------------------------------------------------------------


def full_run() -> tuple[Run, EventLog]:
    """An alert about the camera, and events with which MAX_PROBES others drive it out of the table."""
    run = Run(new_tables(n_devices=MAX_PROBES))
    observe(run.tables, spam(40))
    run.judge(9.0, 30)
    others = EventLog()
    for i in range(MAX_PROBES):
        others.connect(100 + i, orig=f"10.0.0.{i + 1}", mac=PRINTER_MAC + i)
    return run, others


def mac_in(run: Run, row: int) -> int:
    return int(run.tables.devices[row]["mac"])


def test_the_alert_of_a_device_that_had_to_go_ends():
    run, others = full_run()
    row = row_of(run.tables)
    observe(run.tables, others)
    newcomer = mac_in(run, row)
    assert newcomer != CAMERA_MAC
    assert states(run.judge(9.0, 200, mac=newcomer)) == [("alert", "ended"), ("alert", "started")]
    old, ended, new = run.alerts[-3:]
    assert ended.alert_id == old.alert_id != new.alert_id
    assert ended.device == old.device
    assert new.device.key != old.device.key


def test_it_ends_after_a_day_if_the_newcomer_is_quiet():
    run, others = full_run()
    observe(run.tables, others)
    (ended,) = run.end_quiet(30 + DAY_S)
    assert ended.state == "ended"
    assert ended.device.mac == "44:19:b6:0a:0b:0c"


def test_a_newcomer_is_reviewed_too():
    run = Run(new_tables(n_devices=MAX_PROBES))
    observe(run.tables, spam(10))
    row = row_of(run.tables)
    run.judge(5.0, 30)
    others = EventLog()
    for i in range(MAX_PROBES):
        others.connect(100 + i, orig=f"10.0.0.{i + 1}", mac=PRINTER_MAC + i)
    observe(run.tables, others)
    assert states(run.judge(5.0, 200, mac=mac_in(run, row))) == [("review", "started")]


# --- what an alert says ---------------------------------------------------------------------------------------


@given(
    st.floats(THRESHOLD * REVIEW_SHARE, 60),
    st.booleans(),
    st.integers(-1, len(MODEL.rules) - 1),
    st.integers(0, 2**32 - 1),
)
def test_records_are_valid_whatever_is_judged(evidence, has_dns, rule, seed):
    """Any features, known or not: the record follows the schema, has bounds, and a rule always has reasons."""
    rng = np.random.default_rng(seed)
    log = spam(3) if has_dns else EventLog()
    log.connect(10)
    tables = new_tables()
    observe(tables, log)
    run = Run(tables)
    row = row_of(tables)
    features = np.where(rng.random((1, N_FEATURES)) < 0.3, 0.0, 2.0 ** rng.uniform(-3, 12, (1, N_FEATURES)))
    for feature in Feature:
        if FEATURES[feature].unit == "share":
            features[0, feature] = rng.choice([np.nan, rng.random()])
    verdicts = MODEL.judge(features)
    verdicts.rules[:] = rule
    run.evidence.evidence[row] = evidence
    run.evidence.onset_ns[row] = START_NS
    run.lifecycle.take(np.array([row]), features, [verdicts], START_NS + 20 * SECOND_NS)
    (alert,) = run.alerts
    VALIDATOR.validate(msgspec.json.decode(msgspec.json.encode(alert)))
    assert (alert.event_type == "alert") == (evidence >= THRESHOLD)
    assert 0.0 <= alert.confidence <= 1.0
    assert len(alert.reasons) <= MAX_REASONS
    assert alert.completeness.dns_seen == has_dns
    assert len({reason.feature for reason in alert.reasons}) == len(alert.reasons)
    if rule >= 0 or verdicts.logit[0] > 1.0:
        assert alert.reasons


@given(st.lists(st.floats(0, 60), min_size=2, max_size=10))
def test_more_evidence_is_more_confidence(evidences):
    found = []
    for evidence in sorted(evidences):
        run = Run(n_spam=3)
        found += [(evidence, a.confidence) for a in run.judge(evidence, 30)]
    assert [c for _, c in found] == sorted(c for _, c in found)
    for evidence, confidence in found:
        assert (confidence >= 0.8) == (evidence >= THRESHOLD) or abs(evidence - THRESHOLD) < 0.1


def test_less_of_the_picture_is_less_confidence():
    def confidence(log: EventLog) -> float:
        tables = new_tables()
        observe(tables, log)
        (alert,) = Run(tables).judge(20.0, 30)
        return alert.confidence

    whole, no_dns, one_sided = spam(5), spam(5), spam(5)
    no_dns.rows = [row for row in no_dns.rows if row["kind"] != EventKind.DNS_QUERY]
    for row in one_sided.rows:
        if row["kind"] == EventKind.CONN_CLOSE:
            row["flags"] = 2  # not one packet of the responder was seen
    assert confidence(whole) > confidence(no_dns)
    assert confidence(whole) > confidence(one_sided)


def test_reasons_are_those_terms_that_added_most():
    run = Run()
    terms = MODEL.explain(features_of(run.tables, row_of(run.tables), START_NS + 30 * SECOND_NS))
    (alert,) = run.judge(9.0, 30, rule=-1)
    added = {FEATURES[f].name: term for f, term in zip(MODEL.term_features, terms, strict=True)}
    shown = [added[reason.feature] for reason in alert.reasons]
    assert alert.channel == "index"
    assert len(shown) == MAX_REASONS
    assert shown == sorted(added.values(), reverse=True)[:MAX_REASONS]


@pytest.mark.parametrize("rule", range(len(MODEL.rules)))
def test_a_rule_is_named_and_speaks_first(rule):
    (alert,) = Run().judge(30.0, 30, rule=rule)
    assert alert.channel == f"rule:{MODEL.rules[rule]}"
    assert alert.reasons


def test_two_runs_agree_on_every_record():
    def records() -> list[Alert]:
        run = Run()
        run.judge(5.0, 30)
        run.judge(9.0, 31)
        run.end_quiet(31 + DAY_S)
        return run.alerts

    assert records() == records()
    assert len({alert.alert_id for alert in records()}) == 2  # the review's and the alert's


def test_alerts_of_two_devices_at_one_moment_differ():
    run = Run()
    observe(run.tables, spam(5, at_s=30, mac=PRINTER_MAC, orig="192.168.1.30"))
    (one,), (other,) = run.judge(9.0, 60), run.judge(9.0, 60, mac=PRINTER_MAC)
    assert one.alert_id != other.alert_id


def test_verdicts_on_nothing_say_nothing():
    run = Run()
    nothing = np.zeros(0, dtype=np.int64)
    empty = Verdicts.empty(0)
    run.lifecycle.take(nothing, np.zeros((0, N_FEATURES)), [empty], START_NS)
    assert run.alerts == []
