"""Evidence over time: a device is accused when its verdicts keep pointing one way, not when one of them does.

One accumulator per device, a CUSUM (Page 1954): S = max(0, S + clip(logit - SLACK, -MAX_STEP_DOWN,
MAX_STEP_UP)). It steps on new evidence: once per bucket of five minutes, and within one whenever so much has
come that waiting would be too late (devices/activity.py). It fades over idle days. The threshold follows from
the operator's budget.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sensor.devices.table import DAY_NS, RECENT_SLOT_NS

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


def alarm_threshold(false_alarms_per_device_year: float) -> float:
    """Return the evidence at which an alarm is raised, for a budget in false alarms per device-year (> 0)."""
    return max(THRESHOLD_AT_ONE - math.log(false_alarms_per_device_year), MIN_THRESHOLD)


class EvidenceTable:
    """The accumulators of all devices, by the row of the device table. Times are packet time in ns, -1 never."""

    def __init__(self, n_devices: int) -> None:
        self.evidence = np.zeros(n_devices)
        self.onset_ns = np.full(n_devices, -1, dtype=np.int64)  # when it last rose from zero
        self._serial = np.full(n_devices, -1, dtype=np.int64)
        self._bucket = np.full(n_devices, -1, dtype=np.int64)
        self._updated_ns = np.full(n_devices, -1, dtype=np.int64)

    def step(
        self, rows: Ints, serials: Ints, verdicts: Verdicts, is_forced: NDArray[np.bool_], now_ns: int
    ) -> NDArray[np.bool_]:
        """Take the verdicts on ``rows``, i8[n], whose devices are ``serials``; return which of them made a step.

        A row steps in a new bucket of five minutes, and if ``is_forced``. A row with another device than
        before starts at zero.
        """
        fresh = rows[self._serial[rows] != serials]
        self._serial[rows] = serials
        self.evidence[fresh] = 0.0
        self.onset_ns[fresh] = self._bucket[fresh] = self._updated_ns[fresh] = -1

        bucket = now_ns // RECENT_SLOT_NS
        steps: NDArray[np.bool_] = (self._bucket[rows] != bucket) | is_forced | (verdicts.rules >= 0)
        chosen = rows[steps]
        before = self.evidence[chosen]
        idle_ns = np.where(self._updated_ns[chosen] < 0, 0, now_ns - self._updated_ns[chosen])
        change = np.clip(verdicts.logit[steps] - SLACK, -MAX_STEP_DOWN, MAX_STEP_UP)
        after = np.clip(before * 0.5 ** (idle_ns / IDLE_HALF_LIFE_NS) + change, 0.0, CAP)
        after = np.where(verdicts.rules[steps] >= 0, np.maximum(after, RULE_EVIDENCE), after)
        self.evidence[chosen] = after
        self.onset_ns[chosen] = np.where((before == 0.0) & (after > 0.0), now_ns, self.onset_ns[chosen])
        self._bucket[chosen] = bucket
        self._updated_ns[chosen] = now_ns
        return steps

    def release(self, row: int, threshold: float) -> None:
        """Let an alert that has ended need new evidence before it starts again."""
        self.evidence[row] = min(float(self.evidence[row]), REVIEW_SHARE * threshold)
