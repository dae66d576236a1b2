"""A channel: one model, the evidence that its verdicts add up to, and how much of it is enough.

The hand-written index with its rules is one, and accuses at its own threshold; the trained model beside it, if there
is one, at a calibrated threshold. Half of a threshold is enough for review.

In the first hours of watching, all that is seen is new, and a device has had few chances to be accused wrongly: other,
lower thresholds hold then, calibrated for captures instead of device-years.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.devices.table import SECOND_NS
from sensor.jit import inner, kernel
from sensor.model.evidence import REVIEW_SHARE, EvidenceTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sensor.model.score import Model, Verdicts

    Floats = NDArray[np.float64]


#: How long watching has just begun, in packet time: the longest capture that the thresholds for it are calibrated on.
START_NS: Final = 6 * 3600 * SECOND_NS


class Channel(NamedTuple):
    """``threshold``: the evidence at which the model accuses; ``start_threshold``: when watching has just begun."""

    name: str
    model: Model
    evidence: EvidenceTable
    threshold: float
    start_threshold: float

    def accuses_at(self, *, is_start: bool) -> float:
        """Return the evidence at which it accuses."""
        return self.start_threshold if is_start else self.threshold

    def release(self, row: int) -> None:
        """Let an alert that has ended need new evidence before it starts again."""
        self.evidence.release(row, REVIEW_SHARE * min(self.threshold, self.start_threshold))


def weigh(
    channels: Sequence[Channel],
    rows: NDArray[np.int64],
    verdicts: Sequence[Verdicts],
    *,
    is_start: bool = False,
) -> tuple[NDArray[np.int64], Floats]:
    """Return which channel speaks loudest of ``rows``, i8[n], and how loud, f8[n]: its evidence over its threshold.

    1 accuses, REVIEW_SHARE is for review; for that the usual threshold counts, also in the first hours.
    ``channels``: the index, and the trained model if there is one.
    """
    index, model = channels[0], channels[-1]
    thresholds = np.full((2, 2), np.inf)  # of each channel: the usual one, and the one that accuses now
    for i, channel in enumerate(channels):
        thresholds[i] = channel.threshold, channel.accuses_at(is_start=is_start)
    loudest, ratio = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    weigh_rows(
        index.evidence.table, model.evidence.table, thresholds, rows, verdicts[0].rules, loudest, ratio
    )
    return loudest, ratio


@inner
def loudness(evidence: float, threshold: float, accuses_at: float) -> float:
    """Return evidence over the threshold that it has reached, or has still to reach."""
    return evidence / accuses_at if evidence >= accuses_at else evidence / threshold


@kernel
def weigh_rows(
    index: NDArray[Any],
    model: NDArray[Any],
    thresholds: Floats,
    rows: NDArray[np.int64],
    rules: NDArray[np.int64],
    loudest: NDArray[np.int64],
    ratio: Floats,
) -> None:
    """Fill ``loudest``, i8[n], and ``ratio``, f8[n], for ``rows`` of two tables, EVIDENCE_DTYPE; see ``weigh``."""
    for i in range(rows.size):
        of_index = loudness(index[rows[i]]["evidence"], thresholds[0, 0], thresholds[0, 1])
        of_model = loudness(model[rows[i]]["evidence"], thresholds[1, 0], thresholds[1, 1])
        # Where a hard rule holds, it is named: whatever the model thinks.
        if rules[i] >= 0 or of_index >= of_model:
            loudest[i] = 0
            ratio[i] = of_index
        else:
            loudest[i] = 1
            ratio[i] = of_model
