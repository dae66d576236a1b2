"""Boosted trees as arrays: scikit-learn's HistGradientBoosting, evaluated without scikit-learn.

A row goes left where its feature is at most the threshold, and where it is not known (NaN) the way that the
node says. What a row adds up to equals scikit-learn's ``decision_function`` (tests/test_trees.py). Each step
from a node to a child moves the expectation; that movement is the share of the node's feature, so the shares
of all features and the expectation at the roots add up to the score, exactly (Saabas 2014). Where only the score
is wanted, model/quickscorer.py is faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAF = -1
#: One bit of a word for each (model/quickscorer.py).
MAX_LEAVES = 64


class Trees(NamedTuple):
    """``baseline``: f8[1]; ``roots``: i4[n_trees]; the rest are columns of n nodes, children behind their parents.

    ``feature``: i4, LEAF for a leaf; ``threshold``: f8; ``unknown_left``: u1; ``left``, ``right``: i4; ``value``:
    f8, of a leaf what it adds, of others the mean of what is below, by training rows.
    """

    baseline: Floats
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: Floats
    unknown_left: NDArray[np.uint8]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: Floats

    @property
    def expected(self) -> float:
        """The score before anything is known."""
        return float(self.baseline[0] + self.value[self.roots].sum())


_DTYPES = {
    name: np.dtype(kind)
    for name, kind in zip(Trees._fields, ("f8", "i4", "i4", "f8", "u1", "i4", "i4", "f8"), strict=True)
}


def find_fault(trees: Trees, n_features: int) -> str | None:
    """Return what is wrong with arrays that claim to be trees, None if they are safe to evaluate."""
    for name, dtype in _DTYPES.items():
        array = getattr(trees, name)
        if array.dtype != dtype or array.ndim != 1:
            return f"{name} is {array.dtype}[{array.ndim} dimensions] and not {dtype}[n]"
    n = len(trees.feature)
    if len(trees.baseline) != 1:
        return f"baseline has {len(trees.baseline)} numbers and not one"
    if len(trees.roots) == 0 or n == 0:
        return "there are no trees"
    for name in Trees._fields[3:]:
        if len(getattr(trees, name)) != n:
            return f"{name} has {len(getattr(trees, name))} rows and feature {n}"
    if (trees.roots < 0).any() or (trees.roots >= n).any():
        return "a root is no node"
    if (trees.feature < LEAF).any() or (trees.feature >= n_features).any():
        return "a node asks for a feature that there is not"
    is_inner = trees.feature != LEAF
    for name in ("left", "right"):
        child = getattr(trees, name)[is_inner]
        # Behind its parent: so every way down comes to an end.
        if (child <= is_inner.nonzero()[0]).any() or (child >= n).any():
            return f"a {name} child does not lie behind its parent"
    inner = is_inner.nonzero()[0]
    times = np.bincount(np.concatenate([trees.roots, trees.left[inner], trees.right[inner]]), minlength=n)
    if (times != 1).any():
        return "a node is in no tree, or in several places"
    most = int(np.bincount(number_trees(trees)[~is_inner]).max())
    if most > MAX_LEAVES:
        return f"a tree has {most} leaves, and {MAX_LEAVES} are the most"
    if np.isnan(trees.threshold[is_inner]).any():
        return "a threshold is not a number"
    if not (np.isfinite(trees.value).all() and np.isfinite(trees.baseline).all()):
        return "a value is not finite"
    return None


def walk_levels(trees: Trees) -> list[NDArray[np.int64]]:
    """Return the nodes by depth, the roots first."""
    levels = []
    nodes = trees.roots.astype(np.int64)
    while len(nodes):
        levels.append(nodes)
        inner = nodes[trees.feature[nodes] != LEAF]
        nodes = np.concatenate([trees.left[inner], trees.right[inner]]).astype(np.int64)
    return levels


def number_trees(trees: Trees) -> NDArray[np.int64]:
    """Return the number of the tree that each node belongs to, i8[n]."""
    tree = np.zeros(len(trees.feature), dtype=np.int64)
    tree[trees.roots] = np.arange(len(trees.roots))
    for nodes in walk_levels(trees):
        inner = nodes[trees.feature[nodes] != LEAF]
        tree[trees.left[inner]] = tree[trees.right[inner]] = tree[inner]
    return tree


@kernel
def share_out(trees: Trees, features: Floats, shares: Floats) -> float:
    """Return the score of ``features``, f8[n_features], and fill ``shares``, alike, with what each moves it by."""
    shares[:] = 0.0
    total: float = trees.baseline[0]
    for r in range(trees.roots.size):
        node = trees.roots[r]
        while trees.feature[node] != LEAF:  # children lie behind their parents
            feature = trees.feature[node]
            x = features[feature]
            goes_left = trees.unknown_left[node] != 0 if np.isnan(x) else x <= trees.threshold[node]
            child = trees.left[node] if goes_left else trees.right[node]
            shares[feature] += trees.value[child] - trees.value[node]
            node = child
        total += trees.value[node]
    return total
