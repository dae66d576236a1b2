"""Evidence over time: what a verdict says now, and what the verdicts before it have added up to.

evidence = carried + clip(logit - SLACK, -MOST_AGAINST, MOST_FOR). What is carried grows with the time for which a
verdict held, until the next one, however many steps there are in it (a CUSUM, Page 1954, over time instead of steps):
features look back over hours, so steps that are minutes apart tell nearly the same thing again, and a busy harmless
device, which makes hundreds of them a day, would add up what is one observation. MEMORY_NS of it count in full. Of a
device that has been watched for less, what is known is as new as its age, so that a flood is not slowed down.

One step raises it by MOST_RISE at most: at the thresholds of small budgets no single connection accuses anybody.

A device steps once per bucket of five minutes, and within one whenever so much has come that waiting would be too
late (devices/activity.py). All of it fades with time, what the last verdict said included. The threshold follows from
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

#: Log-odds that a verdict must have to add anything.
SLACK = 1.0
#: What one verdict says at most, either way.
MOST_FOR = 12.0
MOST_AGAINST = 6.0
#: What one step adds to the evidence at most. On simulated devices lower values cost recall, higher ones gain little.
MOST_RISE = 3.0
CAP = 60.0
#: How long a verdict must have held to be carried in full: as long as features look back. For younger devices, as long
#: as they are watched ...
MEMORY_NS = DAY_NS
#: ... and this at least: within it, connections are one event.
MIN_MEMORY_NS = RECENT_SLOT_NS
#: What is known is worth half after this long.
HALF_LIFE_NS = 3 * DAY_NS
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
        ("carried", np.float64),  # below zero only where an alert has been ended
        ("said", np.float64),  # what the last verdict said
        ("peak", np.float64),  # the most evidence since it was asked for last
        ("serial", np.int64),  # of the device whose evidence it is
        ("onset_ns", np.int64),  # when it last rose from zero, -1 never
        ("bucket", np.int64),  # the five minutes in which it stepped last, -1 never
        ("updated_ns", np.int64),  # ... and the packet time, -1 never
        ("first_ns", np.int64),  # of its first step, -1 never
    ]
)


def alarm_threshold(false_alarms_per_device_year: float) -> float:
    """Return the evidence at which an alarm is raised, for a budget in false alarms per device-year (> 0)."""
    return max(THRESHOLD_AT_ONE - math.log(false_alarms_per_device_year), MIN_THRESHOLD)


@inner
def says(logit: float) -> float:
    """Return what one verdict says, for (positive) or against (negative) a compromised device."""
    return min(max(logit - SLACK, -MOST_AGAINST), MOST_FOR)


@inner
def fade(evidence: float, idle_ns: int) -> float:
    """Return what evidence is worth after ``idle_ns``."""
    worth: float = evidence * 0.5 ** (idle_ns / HALF_LIFE_NS)
    return worth


@inner
def carry(before: float, idle_ns: int, age_ns: int, said: float) -> float:
    """Return what is carried when a verdict that ``said`` so much has held for ``idle_ns``.

    ``before``: what was carried; ``age_ns``: since the device's first step.
    """
    memory_ns = min(max(age_ns, MIN_MEMORY_NS), MEMORY_NS)
    after = fade(before + said * (1.0 - math.exp(-idle_ns / memory_ns)), idle_ns)
    # Harmless verdicts make nobody safe from what comes later.
    carried: float = min(max(after, min(fade(before, idle_ns), 0.0)), CAP)
    return carried


@inner
def sum_up(before: float, carried: float, said: float, has_rule: bool) -> float:
    """Return the evidence after a step; ``before``: what was left of it until then."""
    evidence = min(max(carried + said, 0.0), before + MOST_RISE, CAP)
    return max(evidence, RULE_EVIDENCE) if has_rule else evidence


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
            entry["carried"] = 0.0
            entry["said"] = 0.0
            entry["peak"] = 0.0
            entry["onset_ns"] = -1
            entry["bucket"] = -1
            entry["updated_ns"] = -1
            entry["first_ns"] = -1
        has_stepped[i] = entry["bucket"] != bucket or is_forced[i] or rules[i] >= 0
        if not has_stepped[i]:
            continue
        said = says(logit[i])
        before = 0.0
        if entry["updated_ns"] < 0:
            entry["first_ns"] = now_ns
        else:
            idle_ns = now_ns - entry["updated_ns"]
            entry["carried"] = carry(entry["carried"], idle_ns, now_ns - entry["first_ns"], entry["said"])
            before = fade(entry["evidence"], idle_ns)
        after = sum_up(before, entry["carried"], said, rules[i] >= 0)
        if before == 0.0 and after > 0.0:
            entry["onset_ns"] = now_ns
        entry["evidence"] = after
        entry["peak"] = max(entry["peak"], after)
        entry["said"] = said
        entry["bucket"] = bucket
        entry["updated_ns"] = now_ns


@kernel
def walk_evidence(ts_ns: Ints, logit: NDArray[np.float64], rules: Ints, out: NDArray[np.float64]) -> None:
    """Fill ``out``, f8[n], with the evidence against one device after each of its n steps, in the order of time."""
    carried = 0.0
    said = 0.0
    evidence = 0.0
    for i in range(out.size):
        if i > 0:
            idle_ns = ts_ns[i] - ts_ns[i - 1]
            carried = carry(carried, idle_ns, ts_ns[i] - ts_ns[0], said)
            evidence = fade(evidence, idle_ns)
        said = says(logit[i])
        evidence = sum_up(evidence, carried, said, rules[i] >= 0)
        out[i] = evidence


class EvidenceTable:
    """The accumulators of all devices, by the row of the device table."""

    def __init__(self, n_devices: int) -> None:
        self.table = np.zeros(n_devices, dtype=EVIDENCE_DTYPE)
        self.table["serial"] = -1  # a row that no device has had: its first step clears the rest
        self.evidence: NDArray[np.float64] = self.table["evidence"]
        self.onset_ns: Ints = self.table["onset_ns"]

    def step(
        self, rows: Ints, serials: Ints, verdicts: Verdicts, is_forced: NDArray[np.bool_], now_ns: int
    ) -> NDArray[np.bool_]:
        """Take the verdicts on ``rows``, i8[n], whose devices are ``serials``; return which of them made a step.

        A row steps in a new bucket of five minutes, and if ``is_forced``. A row with another device than
        before starts at zero.
        """
        has_stepped = np.empty(len(rows), dtype=np.bool_)
        step_rows(self.table, rows, serials, verdicts.logit, verdicts.rules, is_forced, now_ns, has_stepped)
        return has_stepped

    def save(self) -> tuple[Ints, NDArray[Any]]:
        """Return the rows that a device has had, i8[n], and copies of what is in them, EVIDENCE_DTYPE[n]."""
        rows = np.flatnonzero(self.table["serial"] >= 0)
        return rows, self.table[rows]

    def load(self, rows: Ints, saved: NDArray[Any]) -> None:
        """Put back what ``save`` returned; ValueError if it does not fit."""
        if len(rows) != len(saved) or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self.table)):
            raise ValueError("evidence: rows that are not there")
        self.table[rows] = saved

    def take_peaks(self, rows: Ints, serials: Ints) -> NDArray[np.float64]:
        """Return the most evidence against the devices ``serials`` in ``rows`` since the last call, f8[n]."""
        peaks = np.where(self.table["serial"][rows] == serials, self.table["peak"][rows], 0.0)
        self.table["peak"][rows] = 0.0
        return peaks

    def release(self, row: int, most: float) -> None:
        """Leave no more than ``most`` of the evidence against a device: only what is new can add to it."""
        entry = self.table[row]
        if float(entry["evidence"]) > most:
            # What a step was not allowed to add is no news either; what a rule has lent was never carried.
            entry["carried"] -= max(float(entry["carried"] + entry["said"]) - most, 0.0)
            entry["evidence"] = most
