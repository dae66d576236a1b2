"""Scores of boosted trees by QuickScorer (Lucchese et al. 2015): no walk from root to leaf, whose every turn waits.

A tree's leaves are numbered from left to right, one bit each. Whoever goes right at a node cannot reach the leaves of
its left side; of all leaves that no such node rules out, the first is the one that a walk ends in. So a row is scored
feature by feature: the nodes of a feature lie in the order of their thresholds, and those below the row's value are the
ones where it goes right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor.jit import inner, kernel
from sensor.model.trees import LEAF, Trees, number_trees, walk_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE = np.uint64(1)
#: The powers of two up to 2 ** 63 leave 64 different remainders.
_PRIME = np.uint64(67)


class Cuts(NamedTuple):
    """Trees by feature: of each, its nodes in the order of their thresholds, and what going right rules out.

    ``first``: i8[n_features + 1], where a feature's nodes begin; ``threshold``: f8[n]; ``tree``: i4[n]; ``keeps``:
    u8[n], bits of the leaves that are left when a row goes right. ``unknown_first``, ``unknown_tree``,
    ``unknown_keeps``: likewise of the nodes where a row without the feature goes right. ``baseline``: f8[1];
    ``leaves``: i4[n_trees], where a tree's leaves begin in ``value``, f8[m]; ``place``: i8[67], see ``lowest_bit``.
    """

    first: Ints
    threshold: Floats
    tree: NDArray[np.int32]
    keeps: NDArray[np.uint64]
    unknown_first: Ints
    unknown_tree: NDArray[np.int32]
    unknown_keeps: NDArray[np.uint64]
    baseline: Floats
    leaves: NDArray[np.int32]
    value: Floats
    place: Ints


def cut(trees: Trees, n_features: int) -> Cuts:
    """Return trees by feature; they have no fault (``find_fault``)."""
    is_leaf = trees.feature == LEAF
    tree, levels = number_trees(trees), walk_levels(trees)
    n_below = is_leaf.astype(np.int64)  # leaves, itself included
    for level in reversed(levels):
        nodes = level[~is_leaf[level]]
        n_below[nodes] = n_below[trees.left[nodes]] + n_below[trees.right[nodes]]
    number = np.zeros_like(n_below)  # of a node's first leaf
    for level in levels:
        nodes = level[~is_leaf[level]]
        number[trees.left[nodes]] = number[nodes]
        number[trees.right[nodes]] = number[nodes] + n_below[trees.left[nodes]]

    nodes = np.lexsort((trees.threshold, trees.feature))
    nodes = nodes[~is_leaf[nodes]]
    unknown = nodes[trees.unknown_left[nodes] == 0]
    left = trees.left[nodes]
    ones = (
        _ONE << n_below[left].astype(np.uint64)
    ) - _ONE  # a tree has 64 leaves at most, and a left side fewer
    keeps = np.zeros(len(is_leaf), dtype=np.uint64)
    keeps[nodes] = ~(ones << number[left].astype(np.uint64))
    leaves = np.flatnonzero(is_leaf)
    leaves = leaves[np.lexsort((number[leaves], tree[leaves]))]
    place = np.zeros(int(_PRIME), dtype=np.int64)
    place[(_ONE << np.arange(64, dtype=np.uint64)) % _PRIME] = np.arange(64)
    features = np.arange(n_features + 1)
    return Cuts(
        first=np.searchsorted(trees.feature[nodes], features),
        threshold=trees.threshold[nodes],
        tree=tree[nodes].astype(np.int32),
        keeps=keeps[nodes],
        unknown_first=np.searchsorted(trees.feature[unknown], features),
        unknown_tree=tree[unknown].astype(np.int32),
        unknown_keeps=keeps[unknown],
        baseline=trees.baseline,
        leaves=np.searchsorted(tree[leaves], np.arange(len(trees.roots))).astype(np.int32),
        value=trees.value[leaves],
        place=place,
    )


@inner
def lowest_bit(bits: np.uint64, place: Ints) -> int:
    """Return the place of the lowest bit that is set; there is one."""
    found: int = place[(bits & (~bits + _ONE)) % _PRIME]
    return found


@kernel
def score_rows(cuts: Cuts, features: Floats, left: NDArray[np.uint64], score: Floats) -> None:
    """Fill ``score``, f8[n], for ``features``, f8[n, n_features]; ``left``, u8[n_trees], is room to work in."""
    for i in range(score.size):
        for t in range(left.size):
            left[t] = _ALL
        for f in range(features.shape[1]):
            x = features[i, f]
            if np.isnan(x):
                for k in range(cuts.unknown_first[f], cuts.unknown_first[f + 1]):
                    left[cuts.unknown_tree[k]] &= cuts.unknown_keeps[k]
                continue
            for k in range(cuts.first[f], cuts.first[f + 1]):
                if x <= cuts.threshold[k]:
                    break
                left[cuts.tree[k]] &= cuts.keeps[k]
        total = cuts.baseline[0]
        for t in range(left.size):
            total += cuts.value[cuts.leaves[t] + lowest_bit(left[t], cuts.place)]
        score[i] = total
