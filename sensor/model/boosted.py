"""The trained model: boosted trees behind the interface that the hand-written index has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.devices.features import N_FEATURES, Feature
from sensor.devices.roles import infer_roles
from sensor.model.quickscorer import cut, score_rows
from sensor.model.score import Verdicts
from sensor.model.trees import Trees, share_out

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BoostedTrees:
    """Trees over all features: the terms of a score are the features' shares of it."""

    term_features: tuple[Feature, ...] = tuple(Feature)
    rules: tuple[str, ...] = ()

    def __init__(self, name: str, trees: Trees) -> None:
        self.name = name
        self.trees = trees
        self._cuts = cut(trees, N_FEATURES)
        self._left = np.empty(len(trees.roots), dtype=np.uint64)

    def judge(self, features: NDArray[np.float64]) -> Verdicts:
        """Judge ``features``, f8[n, N_FEATURES]."""
        if features.ndim != 2 or features.shape[1] != N_FEATURES:
            raise ValueError(f"expected {N_FEATURES} features, not an array of shape {features.shape}")
        verdicts = Verdicts.empty(len(features))
        score_rows(self._cuts, features, self._left, verdicts.logit)
        infer_roles(features, verdicts.roles)
        return verdicts

    def explain(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each feature's share of the score of one device's ``features``, both f8[N_FEATURES]."""
        shares = np.empty(N_FEATURES)
        share_out(self.trees, features, shares)
        return shares
