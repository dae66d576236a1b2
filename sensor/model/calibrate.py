"""Thresholds for one site: as high as its own harmless devices need, by their most evidence week by week.

The thresholds that a model comes with keep their budget on simulated devices. Where a site has enough device-weeks of
its own for a budget, those of index and model are raised or lowered by one factor, so that the budget is kept there: of
n device-weeks the k-th largest peak is reached by a new one with probability k / (n + 1) at most (Vovk et al. 2005).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from sensor.errors import ModelError
from sensor.model.artifact import Artifact, Calibration
from sensor.model.evidence import CAP, MOST_RISE, REVIEW_SHARE, RULE_EVIDENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.model.artifact import Threshold

    Floats = NDArray[np.float64]

WEEKS_PER_YEAR: Final = 365 / 7
#: A quiet site accuses where others have a review, and no earlier: it may have been quiet by chance.
LEAST_FACTOR: Final = REVIEW_SHARE


class Calibrated(NamedTuple):
    """What became of one budget.

    ``n_over``: device-weeks that reached the threshold as it was, of which ``n_allowed`` may; ``factor``: by which it
    was changed, None if there are too few device-weeks for that.
    """

    budget: float
    n_allowed: int
    n_over: int
    factor: float | None


def calibrate(
    artifact: Artifact, peaks: Floats, until: str, *, may_lower: bool = True
) -> tuple[Artifact, list[Calibrated]]:
    """Return the model with a site's thresholds, and what became of each budget, the largest first.

    ``peaks``: f8[n, 2], the most evidence of index and model in each device-week; ``until``: when the last one ended.
    ``may_lower``: not if weeks are left out for what they reached: those that are left tell nothing of how many do.
    ModelError if they are too few for any budget, or the model was calibrated before.
    """
    if artifact.manifest.calibration is not None:
        raise ModelError("the model is calibrated already: name the one that it was made from")
    thresholds, found = [], []
    factor = LEAST_FACTOR if may_lower else 1.0
    for threshold in sorted(artifact.manifest.thresholds, key=lambda t: -t.budget):
        ratios = np.sort(_ratios(peaks, threshold))[::-1]
        n_allowed = int((len(peaks) + 1) * threshold.budget / WEEKS_PER_YEAR)
        n_over = int((ratios >= 1).sum())
        if n_allowed < 1:
            # Not less than a larger budget needs, nor less than what the model came with.
            raised = _scaled(threshold, max(factor, 1.0))
            found.append(Calibrated(threshold.budget, 0, n_over, None))
        else:
            reached = ratios[n_allowed - 1] if len(ratios) >= n_allowed else 0.0
            factor = max(factor, float(np.nextafter(reached, np.inf)))
            raised = msgspec.structs.replace(_scaled(threshold, factor), device_weeks=len(peaks))
            found.append(Calibrated(threshold.budget, n_allowed, n_over, factor))
        thresholds.append(raised)
    if all(of.factor is None for of in found):
        needed = int(np.ceil(WEEKS_PER_YEAR / max(t.budget for t in thresholds))) - 1
        raise ModelError(f"{len(peaks)} harmless device-weeks are too few: the largest budget needs {needed}")
    manifest = msgspec.structs.replace(
        artifact.manifest,
        thresholds=thresholds,
        calibration=Calibration(device_weeks=len(peaks), until=until),
    )
    return Artifact(manifest, artifact.trees), found


def _ratios(peaks: Floats, threshold: Threshold) -> Floats:
    """Return how near each device-week came to being accused by evidence: 1 was. A rule accuses whatever the budget."""
    index = np.where(peaks[:, 0] >= RULE_EVIDENCE, 0.0, peaks[:, 0])
    louder: Floats = np.maximum(index / threshold.index_evidence, peaks[:, 1] / threshold.evidence)
    return louder


def _scaled(threshold: Threshold, factor: float) -> Threshold:
    """Scale thresholds: above CAP, which none reaches, the model is silent; below MOST_RISE one connection would do."""
    least = min(threshold.evidence, float(np.nextafter(MOST_RISE, np.inf)))
    return msgspec.structs.replace(
        threshold,
        evidence=min(max(threshold.evidence * factor, least), float(np.nextafter(CAP, np.inf))),
        index_evidence=min(threshold.index_evidence * factor, RULE_EVIDENCE),
    )
