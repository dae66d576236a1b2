"""The trained model: boosted trees behind the interface that the hand-written index has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.devices.features import N_FEATURES, Feature
from sensor.devices.roles import infer_roles
from sensor.model.score import Verdicts
from sensor.model.trees import Trees, evaluate_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BoostedTrees:
    """Trees over all features: the terms of a verdict are the features' shares of it."""

    term_features: tuple[Feature, ...] = tuple(Feature)
    rules: tuple[str, ...] = ()

    def __init__(self, name: str, trees: Trees) -> None:
        self.name = name
        self.trees = trees

    def judge(self, features: NDArray[np.float64]) -> Verdicts:
        """Judge ``features``, f8[n, N_FEATURES]."""
        if features.ndim != 2 or features.shape[1] != N_FEATURES:
            raise ValueError(f"expected {N_FEATURES} features, not an array of shape {features.shape}")
        n = len(features)
        verdicts = Verdicts(
            logit=np.empty(n),
            terms=np.empty((n, N_FEATURES)),
            rules=np.full(n, -1, dtype=np.int64),
            roles=np.empty(n, dtype=np.int64),
        )
        evaluate_trees(self.trees, features, verdicts.logit, verdicts.terms)
        infer_roles(features, verdicts.roles)
        return verdicts
