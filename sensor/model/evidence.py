"""Evidence over time: a device is accused when its verdicts keep pointing one way, not when one of them does.

One accumulator per device, a CUSUM (Page 1954): S = max(0, S + clip(logit - SLACK, -MAX_STEP_DOWN,
MAX_STEP_UP)). It steps on new evidence: once per bucket of five minutes, and within one whenever so much has
come that waiting would be too late (devices/activity.py). It fades over idle days. The threshold follows from
the operator's budget.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.devices.table import DAY_NS, RECENT_SLOT_NS
from sensor.jit import inner, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.model.score import Verdicts

    Ints = NDArray[np.int64]

SLACK = 1.0
MAX_STEP_UP = 3.0
MAX_STEP_DOWN = 6.0
CAP = 60.0
#: Evidence is worth half after this long without any.
IDLE_HALF_LIFE_NS = 3 * DAY_NS
#: What a hard rule is worth by itself: more than any threshold that can be configured.
RULE_EVIDENCE = 30.0
#: What has reached this share of the threshold goes to the review list; an alert that ended falls back to it.
REVIEW_SHARE = 0.5

#: The threshold for one false alarm per device-year. For a factor e less it rises by one nat, as it would if
#: evidence were a likelihood ratio. Factory values, set by hand: they are not calibrated on benign
#: device-weeks, so no rate is promised.
THRESHOLD_AT_ONE = 5.0
MIN_THRESHOLD = 2.0

EVIDENCE_DTYPE = np.dtype(
    [
        ("evidence", np.float64),
        ("serial", np.int64),  # of the device whose evidence it is
        ("onset_ns", np.int64),  # when it last rose from zero, -1 never
        ("bucket", np.int64),  # the five minutes in which it stepped last, -1 never
        ("updated_ns", np.int64),  # ... and the packet time, -1 never
    ]
)


def alarm_threshold(false_alarms_per_device_year: float) -> float:
    """Return the evidence at which an alarm is raised, for a budget in false alarms per device-year (> 0)."""
    return max(THRESHOLD_AT_ONE - math.log(false_alarms_per_device_year), MIN_THRESHOLD)


@inner
def next_evidence(before: float, idle_ns: int, logit: float, has_rule: bool) -> float:
    """Return the evidence after a step: ``before`` fades over ``idle_ns``, and the verdict is added."""
    change = min(max(logit - SLACK, -MAX_STEP_DOWN), MAX_STEP_UP)
    after: float = min(max(before * 0.5 ** (idle_ns / IDLE_HALF_LIFE_NS) + change, 0.0), CAP)
    return max(after, RULE_EVIDENCE) if has_rule else after


@kernel
def step_rows(
    table: NDArray[Any],
    rows: Ints,
    serials: Ints,
    logit: NDArray[np.float64],
    rules: Ints,
    is_forced: NDArray[np.bool_],
    now_ns: int,
    has_stepped: NDArray[np.bool_],
) -> None:
    """Step the ``rows``, i8[n], of ``table``, EVIDENCE_DTYPE; see EvidenceTable.step. Fills ``has_stepped``."""
    bucket = now_ns // RECENT_SLOT_NS
    for i in range(rows.size):
        entry = table[rows[i]]
        if entry["serial"] != serials[i]:
            entry["serial"] = serials[i]
            entry["evidence"] = 0.0
            entry["onset_ns"] = -1
            entry["bucket"] = -1
            entry["updated_ns"] = -1
        has_stepped[i] = entry["bucket"] != bucket or is_forced[i] or rules[i] >= 0
        if not has_stepped[i]:
            continue
        before = entry["evidence"]
        idle_ns = now_ns - entry["updated_ns"] if entry["updated_ns"] >= 0 else 0
        after = next_evidence(before, idle_ns, logit[i], rules[i] >= 0)
        if before == 0.0 and after > 0.0:
            entry["onset_ns"] = now_ns
        entry["evidence"] = after
        entry["bucket"] = bucket
        entry["updated_ns"] = now_ns


@kernel
def walk_evidence(ts_ns: Ints, logit: NDArray[np.float64], rules: Ints, out: NDArray[np.float64]) -> None:
    """Fill ``out``, f8[n], with the evidence against one device after each of its n steps, in the order of time."""
    evidence = 0.0
    for i in range(out.size):
        idle_ns = ts_ns[i] - ts_ns[i - 1] if i > 0 else 0
        evidence = next_evidence(evidence, idle_ns, logit[i], rules[i] >= 0)
        out[i] = evidence


class EvidenceTable:
    """The accumulators of all devices, by the row of the device table."""

    def __init__(self, n_devices: int) -> None:
        self._rows = np.zeros(n_devices, dtype=EVIDENCE_DTYPE)
        self._rows["serial"] = -1  # a row that no device has had: its first step clears the rest
        self.evidence: NDArray[np.float64] = self._rows["evidence"]
        self.onset_ns: Ints = self._rows["onset_ns"]

    def step(
        self, rows: Ints, serials: Ints, verdicts: Verdicts, is_forced: NDArray[np.bool_], now_ns: int
    ) -> NDArray[np.bool_]:
        """Take the verdicts on ``rows``, i8[n], whose devices are ``serials``; return which of them made a step.

        A row steps in a new bucket of five minutes, and if ``is_forced``. A row with another device than
        before starts at zero.
        """
        has_stepped = np.empty(len(rows), dtype=np.bool_)
        step_rows(self._rows, rows, serials, verdicts.logit, verdicts.rules, is_forced, now_ns, has_stepped)
        return has_stepped

    def save(self) -> tuple[Ints, NDArray[Any]]:
        """Return the rows that a device has had, i8[n], and copies of what is in them, EVIDENCE_DTYPE[n]."""
        rows = np.flatnonzero(self._rows["serial"] >= 0)
        return rows, self._rows[rows]

    def load(self, rows: Ints, saved: NDArray[Any]) -> None:
        """Put back what ``save`` returned; ValueError if it does not fit."""
        if len(rows) != len(saved) or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self._rows)):
            raise ValueError("evidence: rows that are not there")
        self._rows[rows] = saved

    def release(self, row: int, most: float) -> None:
        """Leave no more than ``most`` of the evidence against a device."""
        self.evidence[row] = min(float(self.evidence[row]), most)
