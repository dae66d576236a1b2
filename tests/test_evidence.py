from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.devices.table import DAY_NS, RECENT_SLOT_NS
from sensor.model.evidence import (
    CAP,
    HALF_LIFE_NS,
    MEMORY_NS,
    MIN_THRESHOLD,
    MOST_AGAINST,
    MOST_FOR,
    MOST_RISE,
    RULE_EVIDENCE,
    SLACK,
    EvidenceTable,
    alarm_threshold,
    walk_evidence,
)
from sensor.model.score import Verdicts

pytestmark = pytest.mark.kernel

START_NS = 1_795_478_400_000_000_000
N_ROWS = 4


@dataclass
class ReferenceEvidence:
    """One device's accumulator, in scalars."""

    serial: int
    evidence: float = 0.0
    carried: float = 0.0
    said: float = 0.0
    onset_ns: int = -1
    bucket: int = -1
    updated_ns: int = -1
    first_ns: int = -1

    def step(self, logit: float, now_ns: int, *, is_forced: bool, has_rule: bool) -> bool:
        bucket = now_ns // (300 * 10**9)
        if bucket == self.bucket and not is_forced and not has_rule:
            return False
        said = min(max(logit - 1.0, -6.0), 12.0)
        before = 0.0
        if self.first_ns < 0:
            self.first_ns = now_ns
        else:
            idle_s, age_s = (now_ns - self.updated_ns) / 1e9, (now_ns - self.first_ns) / 1e9
            worth = math.exp2(-idle_s / (3 * 86400))
            is_new = -math.expm1(-idle_s / min(max(age_s, 300.0), 86400.0))
            after = min((self.carried + self.said * is_new) * worth, 60.0)
            self.carried = max(after, min(self.carried * worth, 0.0))
            before = self.evidence * worth
        self.said = said
        self.evidence = min(max(0.0, self.carried + said), before + 3.0, 60.0)
        if has_rule:
            self.evidence = max(self.evidence, 30.0)
        if before == 0.0 and self.evidence > 0.0:
            self.onset_ns = now_ns
        self.bucket, self.updated_ns = bucket, now_ns
        return True


def verdicts(logits: list[float], rules: list[int] | None = None) -> Verdicts:
    n = len(logits)
    return Verdicts(
        logit=np.array(logits, dtype=float),
        rules=np.array(rules or [-1] * n, dtype=np.int64),
        roles=np.zeros(n, dtype=np.int64),
    )


def step(
    table: EvidenceTable,
    logit: float,
    now_ns: int,
    *,
    serial: int = 1,
    rule: int = -1,
    is_forced: bool = False,
) -> bool:
    """Step row 0."""
    row, serials = np.array([0]), np.array([serial])
    return bool(table.step(row, serials, verdicts([logit], [rule]), np.array([is_forced]), now_ns)[0])


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 400), st.integers(0, 10 * 86400)),  # seconds since the step before
        st.dictionaries(  # row -> (logit, is_forced, has_rule, another device took the row)
            st.integers(0, N_ROWS - 1),
            st.tuples(
                st.floats(-20, 20), st.booleans(), st.sampled_from([False, False, True]), st.booleans()
            ),
            min_size=1,
        ),
    ),
    max_size=40,
)


@given(STEPS)
def test_evidence_is_as_documented(steps):
    table = EvidenceTable(N_ROWS)
    expected: dict[int, ReferenceEvidence] = {}
    now_ns, next_serial = START_NS, 1
    for pause_s, news in steps:
        now_ns += pause_s * 10**9
        rows = list(news)
        for row in rows:
            if row not in expected or news[row][3]:
                expected[row] = ReferenceEvidence(next_serial)
                next_serial += 1
        stepped = table.step(
            np.array(rows),
            np.array([expected[row].serial for row in rows]),
            verdicts([news[row][0] for row in rows], [0 if news[row][2] else -1 for row in rows]),
            np.array([news[row][1] for row in rows]),
            now_ns,
        )
        for row, has_stepped in zip(rows, stepped, strict=True):
            logit, is_forced, has_rule, _ = news[row]
            assert has_stepped == expected[row].step(logit, now_ns, is_forced=is_forced, has_rule=has_rule)
        for row, reference in expected.items():
            assert table.evidence[row] == pytest.approx(reference.evidence, rel=1e-9, abs=1e-12)
            assert table.onset_ns[row] == reference.onset_ns
    assert ((table.evidence >= 0) & (table.evidence <= CAP)).all()


def test_one_step_a_bucket_unless_forced():
    table = EvidenceTable(1)
    assert step(table, 3.0, START_NS)
    assert not step(table, 3.0, START_NS + RECENT_SLOT_NS - 1)
    assert table.evidence[0] == 3.0 - SLACK
    assert step(table, 3.0, START_NS + RECENT_SLOT_NS - 1, is_forced=True)
    assert step(table, 3.0, START_NS + RECENT_SLOT_NS)
    assert step(table, 3.0, START_NS + RECENT_SLOT_NS, is_forced=True)
    assert not step(table, 3.0, START_NS + RECENT_SLOT_NS)


def test_one_verdict_is_bounded_both_ways():
    n = int(MOST_FOR / MOST_RISE)  # steps at once, until it is all said
    times = np.concatenate([np.zeros(n, dtype=np.int64), np.arange(1, n + 1) * MEMORY_NS])
    logits = np.full(2 * n, 1e6)
    logits[-1] = -1e6
    walked = np.zeros(2 * n)
    walk_evidence(START_NS + times, logits, np.full(2 * n, -1), walked)
    assert walked[:n] == pytest.approx(np.arange(1, n + 1) * MOST_RISE)
    whole, fades = 1 - math.exp(-1), 0.5 ** (MEMORY_NS / HALF_LIFE_NS)
    carried = MOST_FOR * whole * sum(fades**k for k in range(1, n + 1))
    assert walked[-1] == pytest.approx(min(carried, CAP) - MOST_AGAINST)


def test_no_single_connection_accuses_anybody():
    table = EvidenceTable(1)
    for k in range(1, 4):
        step(table, 1e6, START_NS + k, is_forced=True)
        assert table.evidence[0] == pytest.approx(k * MOST_RISE)


@given(st.floats(-5, 12), st.integers(10, 400))
def test_how_many_steps_say_it_matters_little(logit, n):
    """Steps of one verdict over an hour carry what ten of them carry: time counts, not what a busy device does."""
    few, many = np.zeros(10), np.zeros(n)
    for out in (few, many):
        ts_ns = START_NS + DAY_NS + np.linspace(0, 3600e9, len(out)).astype(np.int64)
        ts_ns[0] = START_NS  # watched for a day before
        walk_evidence(ts_ns, np.full(len(out), logit), np.full(len(out), -1), out)
    said = max(logit - SLACK, 0.0)
    assert abs(many[-1] - few[-1]) <= 0.6 * said + 1e-9


def test_a_flood_needs_no_memory():
    """Of a device that is minutes old all is new: what is carried doubles what one verdict says within minutes."""
    table = EvidenceTable(1)
    for minute in range(12):
        step(table, 4.0, START_NS + minute * 60 * 10**9, is_forced=True)
    assert table.evidence[0] > 2 * (4.0 - SLACK)


def test_a_row_that_is_used_again_starts_at_zero():
    table = EvidenceTable(1)
    for k in range(5):
        step(table, 4.0, START_NS + k, is_forced=True)
    step(table, 2.0, START_NS + 10, serial=2)
    assert table.evidence[0] == 2.0 - SLACK
    assert table.onset_ns[0] == START_NS + 10


def test_evidence_fades_over_idle_days():
    table = EvidenceTable(1)
    step(table, 4.0, START_NS)
    step(table, SLACK, START_NS + DAY_NS)
    carried = table.evidence[0]
    worth = 0.5 ** (DAY_NS / HALF_LIFE_NS)
    held = 1 - math.exp(-DAY_NS / MEMORY_NS)
    assert carried == pytest.approx((4.0 - SLACK) * held * worth)
    step(table, SLACK, START_NS + DAY_NS + HALF_LIFE_NS)
    assert table.evidence[0] == pytest.approx(carried / 2)
    step(table, SLACK, START_NS + HALF_LIFE_NS + 31 * DAY_NS)
    assert table.evidence[0] < 0.01


@given(st.floats(SLACK, 40), st.integers(1, 20))
def test_after_a_month_of_silence_a_device_is_as_good_as_new(logit, n):
    table, fresh = EvidenceTable(1), EvidenceTable(1)
    for k in range(n):
        step(table, logit, START_NS + k, is_forced=True)
    step(table, logit, START_NS + n + 30 * DAY_NS)
    step(fresh, logit, START_NS)
    assert table.evidence[0] == pytest.approx(fresh.evidence[0], abs=0.02 * MOST_FOR)


def test_harmless_days_make_nobody_safe():
    table = EvidenceTable(1)
    for day in range(30):
        step(table, -6.0, START_NS + day * DAY_NS)
    step(table, 4.0, START_NS + 30 * DAY_NS)
    assert table.evidence[0] == 4.0 - SLACK


def test_a_rule_alone_raises_an_alarm_whatever_the_budget():
    table = EvidenceTable(1)
    step(table, -10.0, START_NS, rule=2)
    assert table.evidence[0] == RULE_EVIDENCE > alarm_threshold(0.001)


def test_an_alert_that_ended_needs_new_evidence():
    table = EvidenceTable(1)
    for k in range(3):
        step(table, 11.0, START_NS + k, is_forced=True)
    assert table.evidence[0] == pytest.approx(3 * MOST_RISE)  # of 10
    table.release(0, 4.0)
    assert table.evidence[0] == 4.0
    table.release(0, 80.0)
    assert table.evidence[0] == 4.0  # never more than before
    step(table, 11.0, START_NS + 3, is_forced=True)
    assert table.evidence[0] == pytest.approx(4.0)  # the same again is nothing new
    step(table, 13.0, START_NS + 4, is_forced=True)
    assert table.evidence[0] == pytest.approx(6.0)
    for k in range(3):
        step(table, 11.0, START_NS + DAY_NS + k, is_forced=True)
    assert table.evidence[0] > 8.0  # ... but a day of it is


def test_what_a_rule_lent_is_not_taken_from_what_comes_after():
    table = EvidenceTable(1)
    step(table, 2.0, START_NS, rule=1)
    table.release(0, 9.0)
    for k in range(1, 9):
        step(table, 4.0, START_NS + k * RECENT_SLOT_NS)
    assert table.evidence[0] > 0.0


@given(st.floats(0.001, 10), st.floats(0.001, 10))
def test_a_smaller_budget_is_a_higher_threshold(one, other):
    low, high = sorted((one, other))
    assert alarm_threshold(low) >= alarm_threshold(high) >= MIN_THRESHOLD


def test_a_factor_e_is_one_nat():
    assert alarm_threshold(0.05 / math.e) - alarm_threshold(0.05) == pytest.approx(1.0)
