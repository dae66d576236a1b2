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
    IDLE_HALF_LIFE_NS,
    MAX_STEP_DOWN,
    MAX_STEP_UP,
    MIN_THRESHOLD,
    RULE_EVIDENCE,
    SLACK,
    EvidenceTable,
    alarm_threshold,
)
from sensor.model.score import Verdicts

pytestmark = pytest.mark.kernel

START_NS = 1_795_478_400_000_000_000
N_ROWS = 4


@dataclass
class ReferenceCusum:
    """One device's accumulator, in scalars."""

    serial: int
    evidence: float = 0.0
    onset_ns: int = -1
    bucket: int = -1
    updated_ns: int = -1

    def step(self, logit: float, now_ns: int, *, is_forced: bool, has_rule: bool) -> bool:
        bucket = now_ns // (300 * 10**9)
        if bucket == self.bucket and not is_forced and not has_rule:
            return False
        before = self.evidence
        idle_days = (now_ns - self.updated_ns) / (86400 * 10**9) if self.updated_ns >= 0 else 0.0
        faded = before * math.exp2(-idle_days / 3)
        self.evidence = min(max(0.0, faded + min(max(logit - 1.0, -6.0), 3.0)), 60.0)
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
        terms=np.zeros((n, 1)),
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
def test_evidence_is_a_cusum(steps):
    table = EvidenceTable(N_ROWS)
    expected: dict[int, ReferenceCusum] = {}
    now_ns, next_serial = START_NS, 1
    for pause_s, news in steps:
        now_ns += pause_s * 10**9
        rows = list(news)
        for row in rows:
            if row not in expected or news[row][3]:
                expected[row] = ReferenceCusum(next_serial)
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
    assert table.evidence[0] == pytest.approx(3 * (3.0 - SLACK), rel=1e-2)


def test_a_step_is_bounded_both_ways():
    table = EvidenceTable(1)
    step(table, 1e6, START_NS)
    assert table.evidence[0] == MAX_STEP_UP
    for i in range(3):
        step(table, 1e6, START_NS, is_forced=True)
        assert table.evidence[0] == (i + 2) * MAX_STEP_UP
    step(table, -1e6, START_NS, is_forced=True)
    assert table.evidence[0] == 4 * MAX_STEP_UP - MAX_STEP_DOWN
    for _ in range(3):
        step(table, -1e6, START_NS, is_forced=True)
    assert table.evidence[0] == 0.0


def test_a_row_that_is_used_again_starts_at_zero():
    table = EvidenceTable(1)
    for _ in range(5):
        step(table, 4.0, START_NS, is_forced=True)
    step(table, 2.0, START_NS + 1, serial=2)
    assert table.evidence[0] == 2.0 - SLACK
    assert table.onset_ns[0] == START_NS + 1


def test_evidence_fades_over_idle_days():
    table = EvidenceTable(1)
    step(table, 4.0, START_NS)
    step(table, SLACK, START_NS + IDLE_HALF_LIFE_NS)
    assert table.evidence[0] == pytest.approx(1.5)
    step(table, SLACK, START_NS + IDLE_HALF_LIFE_NS + 30 * DAY_NS)
    assert table.evidence[0] < 0.01


def test_a_rule_alone_raises_an_alarm_whatever_the_budget():
    table = EvidenceTable(1)
    step(table, -10.0, START_NS, rule=2)
    assert table.evidence[0] == RULE_EVIDENCE > alarm_threshold(0.001)


def test_an_alert_that_ended_needs_new_evidence():
    table = EvidenceTable(1)
    step(table, 0.0, START_NS, rule=0)
    table.release(0, 4.0)
    assert table.evidence[0] == 4.0
    table.release(0, 80.0)
    assert table.evidence[0] == 4.0  # never more than before


@given(st.floats(0.001, 10), st.floats(0.001, 10))
def test_a_smaller_budget_is_a_higher_threshold(one, other):
    low, high = sorted((one, other))
    assert alarm_threshold(low) >= alarm_threshold(high) >= MIN_THRESHOLD


def test_a_factor_e_is_one_nat():
    assert alarm_threshold(0.05 / math.e) - alarm_threshold(0.05) == pytest.approx(1.0)
