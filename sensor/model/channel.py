"""A channel: one model, the evidence that its verdicts add up to, and how much of it is enough.

The hand-written index with its rules is one, and accuses at its own threshold; the trained model beside it, if there
is one, at a calibrated threshold. Half of a threshold is enough for review.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor.model.evidence import REVIEW_SHARE, EvidenceTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sensor.model.score import Model, Verdicts

    Floats = NDArray[np.float64]


class Channel(NamedTuple):
    """``threshold``: the evidence at which the channel's model accuses."""

    name: str
    model: Model
    evidence: EvidenceTable
    threshold: float

    def ratio(self, rows: NDArray[np.int64]) -> Floats:
        """Return the evidence against ``rows``, i8[n], over the threshold: f8[n]."""
        ratio: Floats = self.evidence.evidence[rows] / self.threshold
        return ratio

    def release(self, row: int) -> None:
        """Let an alert that has ended need new evidence before it starts again."""
        self.evidence.release(row, REVIEW_SHARE * self.threshold)


def weigh(
    channels: Sequence[Channel], rows: NDArray[np.int64], verdicts: Sequence[Verdicts]
) -> tuple[NDArray[np.int64], Floats]:
    """Return which channel speaks loudest of ``rows``, i8[n], and how loud, f8[n].

    1 accuses, REVIEW_SHARE is for review. ``channels``: the index, and the trained model if there is one.
    """
    ratios = np.stack([channel.ratio(rows) for channel in channels])
    # Where a hard rule holds, it is named: whatever the model thinks.
    loudest = np.where(verdicts[0].rules >= 0, 0, ratios.argmax(axis=0))
    return loudest, ratios[loudest, np.arange(len(rows))]
