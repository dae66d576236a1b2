from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from sensor.model.quickscorer import cut, score_rows
from sensor.model.trees import LEAF, MAX_LEAVES, Trees, find_fault, share_out
from sensor.training.fit import export_trees

pytestmark = pytest.mark.kernel

N_FEATURES = 6


def fitted(seed: int) -> tuple[HistGradientBoostingClassifier, np.ndarray]:
    """A classifier of random data, much of which is not known, and the data."""
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(size=(600, N_FEATURES)), int(rng.integers(0, 4)))
    score = rows @ rng.normal(size=N_FEATURES) + rng.normal(size=600)
    rows[rng.random(rows.shape) < rng.uniform(0, 0.5)] = np.nan
    classifier = HistGradientBoostingClassifier(
        max_iter=12,
        max_leaf_nodes=int(rng.choice([2, 5, 16, 33, 64])),
        min_samples_leaf=2,
        monotonic_cst=rng.integers(-1, 2, N_FEATURES).tolist(),
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(limits=1, user_api="openmp"):
        classifier.fit(rows, score > np.median(score), sample_weight=rng.uniform(0.1, 3, 600))
    return classifier, rows


def evaluated(trees: Trees, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores of rows, found both ways, and the features' shares of them."""
    score, shares = np.empty(len(rows)), np.empty(rows.shape)
    score_rows(cut(trees, rows.shape[1]), rows, np.empty(len(trees.roots), dtype=np.uint64), score)
    assert [share_out(trees, row, out) for row, out in zip(rows, shares, strict=True)] == score.tolist()
    return score, shares


def reference(trees: Trees, row: np.ndarray) -> tuple[float, np.ndarray]:
    """One row, in scalars: the leaves' sum, and the moves of the expectation by feature."""
    total, shares = float(trees.baseline[0]), np.zeros(len(row))
    for root in trees.roots.tolist():
        at = root
        while trees.feature[at] != LEAF:
            feature, x = int(trees.feature[at]), float(row[trees.feature[at]])
            goes_left = bool(trees.unknown_left[at]) if np.isnan(x) else x <= trees.threshold[at]
            child = int(trees.left[at] if goes_left else trees.right[at])
            shares[feature] += trees.value[child] - trees.value[at]
            at = child
        total += float(trees.value[at])
    return total, shares


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_trees_are_what_scikit_learn_fitted(seed):
    classifier, seen = fitted(seed)
    trees = export_trees(classifier, np.arange(N_FEATURES))
    assert find_fault(trees, N_FEATURES) is None
    rng = np.random.default_rng(seed)
    others = rng.normal(scale=3, size=(300, N_FEATURES))
    others[rng.random(others.shape) < 0.3] = np.nan
    extremes = np.array([[x] * N_FEATURES for x in (np.nan, np.inf, -np.inf, 0.0, 1e300)])
    for rows in (seen, others, extremes):
        score, shares = evaluated(trees, rows)
        finite = rows if np.isfinite(rows[~np.isnan(rows)]).all() else np.nan_to_num(rows, nan=np.nan)
        np.testing.assert_allclose(score, classifier.decision_function(finite), rtol=0, atol=1e-9)
        np.testing.assert_allclose(trees.expected + shares.sum(axis=1), score, rtol=0, atol=1e-9)
        for i in range(0, len(rows), 50):
            expected, of_each = reference(trees, rows[i])
            assert score[i] == pytest.approx(expected, abs=1e-12)
            np.testing.assert_allclose(shares[i], of_each, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_feature_that_was_left_out_has_no_share(seed):
    classifier, rows = fitted(seed)
    seen = np.array([0, 2, 3, 5, 7, 8])
    wide = np.full((len(rows), 10), 1e6)
    wide[:, seen] = rows
    score, shares = evaluated(export_trees(classifier, seen), wide)
    np.testing.assert_allclose(score, classifier.decision_function(rows), rtol=0, atol=1e-9)
    assert (shares[:, [1, 4, 6, 9]] == 0).all()


# --- arrays that claim to be trees ---


STUMP = Trees(
    baseline=np.array([0.5]),
    roots=np.array([0], dtype=np.int32),
    feature=np.array([1, LEAF, LEAF], dtype=np.int32),
    threshold=np.array([0.0, 0.0, 0.0]),
    unknown_left=np.array([1, 0, 0], dtype=np.uint8),
    left=np.array([1, 0, 0], dtype=np.int32),
    right=np.array([2, 0, 0], dtype=np.int32),
    value=np.array([0.0, -1.0, 1.0]),
)


def test_a_stump_is_sound():
    assert find_fault(STUMP, 2) is None
    assert evaluated(STUMP, np.array([[0.0, 1.0], [0.0, np.nan]]))[0].tolist() == [1.5, -0.5]


@pytest.mark.parametrize(
    ("field", "values", "fault"),
    [
        ("feature", [2, LEAF, LEAF], "a feature that there is not"),
        ("feature", [-2, LEAF, LEAF], "a feature that there is not"),
        ("left", [0, 0, 0], "a left child"),
        ("right", [3, 0, 0], "a right child"),
        ("right", [-1, 0, 0], "a right child"),
        ("right", [1, 0, 0], "in no tree, or in several places"),
        ("roots", [0, 0], "in no tree, or in several places"),
        ("roots", [1], "in no tree, or in several places"),
        ("roots", [3], "a root is no node"),
        ("roots", [-1], "a root is no node"),
        ("roots", [], "no trees"),
        ("threshold", [np.nan, 0, 0], "a threshold is not a number"),
        ("value", [0, np.inf, 0], "a value is not finite"),
        ("baseline", [np.nan], "a value is not finite"),
        ("baseline", [0.0, 0.0], "baseline has 2"),
        ("value", [0.0, 1.0], "value has 2 rows"),
    ],
)
def test_what_could_run_away_is_found(field, values, fault):
    changed = np.array(values, dtype=getattr(STUMP, field).dtype)
    assert fault in (find_fault(STUMP._replace(**{field: changed}), 2) or "")


def comb(n_leaves: int) -> Trees:
    """A tree each of whose nodes has a leaf on its left side, for values up to its number."""
    inner = np.arange(n_leaves - 1)
    n = 2 * n_leaves - 1
    columns = {name: np.zeros(n, dtype=getattr(STUMP, name).dtype) for name in Trees._fields[2:]}
    columns["feature"][1::2] = columns["feature"][-1] = LEAF
    columns["threshold"][0:-1:2] = inner
    columns["left"][0:-1:2] = 2 * inner + 1
    columns["right"][0:-1:2] = 2 * inner + 2
    columns["value"][1::2] = inner
    columns["value"][-1] = n_leaves - 1
    return STUMP._replace(**columns)


def test_a_tree_has_as_many_leaves_as_a_word_has_bits():
    assert find_fault(comb(MAX_LEAVES), 1) is None
    assert find_fault(comb(MAX_LEAVES + 1), 1) == "a tree has 65 leaves, and 64 are the most"
    rows = np.arange(MAX_LEAVES, dtype=float).reshape(-1, 1)
    assert evaluated(comb(MAX_LEAVES), rows)[0].tolist() == [0.5 + k for k in range(MAX_LEAVES)]


@pytest.mark.parametrize("field", Trees._fields)
def test_another_dtype_or_shape_is_found(field):
    array = getattr(STUMP, field)
    for wrong in (array.astype(np.float32), array.reshape(1, -1), array.astype(">f8")):
        assert field in (find_fault(STUMP._replace(**{field: wrong}), 2) or "")
