"""How well a family is found that the model has never seen: it is fitted anew without each of them in turn.

The thresholds stay those of the whole model, so the harmless devices are judged again, too: a model that had seen
less could else accuse more of them and seem better.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from sensor.model.artifact import Artifact
from sensor.training.detectors import Judged, ours
from sensor.training.evaluate import found_by, hear, rate
from sensor.training.fit import fit_trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sensor.model.trees import Trees
    from sensor.training.evaluate import Heard
    from sensor.training.traces import DeviceTrace

#: Of the sites, one in so many has its harmless devices judged by each of the models.
HARMLESS_EVERY: Final = 4


def leave_out_each(
    learned_from: Sequence[DeviceTrace],
    held_out: Sequence[DeviceTrace],
    artifact: Artifact,
    budget: float,
    n_threads: int = 1,
) -> dict[str, Any]:
    """Return what was measured on ``held_out``, as JSON can hold it; cold captures are left aside."""
    warm = [trace for trace in held_out if not trace.is_cold]
    families = sorted({trace.family for trace in warm if trace.family})

    def fit(family: str) -> Trees:
        return fit_trees([t for t in learned_from if t.family != family], artifact.manifest.seed)

    with ThreadPoolExecutor(n_threads) as pool:  # fitting does not hold the interpreter's lock
        fitted = list(pool.map(fit, families))
    by_family, unseen = {}, []
    for family, trees in zip(families, fitted, strict=True):
        judge = Artifact(artifact.manifest, trees)
        infected = _heard(judge, budget, [t for t in warm if t.family == family and len(t.spam_ns)])
        harmless = _heard(judge, budget, [t for t in warm if not t.family and t.site % HARMLESS_EVERY == 0])
        unseen += infected
        by_family[family] = {
            **found_by(infected),
            "false_alarms": rate(sum(h.is_accused for h in harmless), sum(h.trace.years for h in harmless)),
        }
    return {
        "budget": budget,
        "families": by_family,
        "overall": {
            "much": found_by([h for h in unseen if h.sends_much]),
            "little": found_by([h for h in unseen if h.sends_little]),
        },
    }


def _heard(artifact: Artifact, budget: float, traces: Sequence[DeviceTrace]) -> list[Heard]:
    detector = ours(artifact, budget)
    return [hear(detector, Judged(trace, artifact.model)) for trace in traces]
