"""Fitting: boosted trees that can only rise with what is suspicious, and thresholds that keep a budget."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor import __version__
from sensor.devices.features import FEATURES, N_FEATURES, Feature, Needs, schema_digest
from sensor.errors import DataError
from sensor.model.artifact import FORMAT, Artifact, Manifest, StartThreshold, Threshold
from sensor.model.boosted import BoostedTrees
from sensor.model.calibrate import WEEKS_PER_YEAR
from sensor.model.channel import START_NS
from sensor.model.evidence import CAP, MOST_RISE, RULE_EVIDENCE, alarm_threshold, walk_evidence
from sensor.model.score import MonotoneIndex
from sensor.model.trees import LEAF, Trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sensor.model.artifact import Labelled
    from sensor.model.score import Model, Verdicts
    from sensor.training.traces import DeviceTrace

    Floats = NDArray[np.float64]

PARAMETERS: Final[dict[str, Any]] = {
    "max_iter": 300,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 60,
    "l2_regularization": 1.0,
    "early_stopping": False,
}
#: What is learned from: where no direction is known beforehand, trees would learn the simulator's own habits. So they
#: would from the sizes of mails, for which it has no source: with them, the lab's mail server was taken for a relay.
LEARNED: Final = tuple(
    k for k, info in enumerate(FEATURES) if info.direction and k != Feature.SAME_SIZE_SHARE
)
#: Steps of one device that are learned from, spread over its time: the next step is much like the last.
MAX_STEPS: Final = 80
#: Of the rows, those whose DNS, whose clear text, and whose other traffic is masked: such sites exist.
MASKED: Final = 0.2
#: Steps of harmless devices that look infected, at these log-odds and more, to a first fit that has seen them, weigh so
#: much more in the second: what counts is who is accused falsely once in many years, and not the mean device. The first
#: has fewer trees: with all of them, no more of the infected were found.
FIRST_TREES: Final = 100
HARD_LOGIT: Final = -1.0
HARD_WEIGHT: Final = 5.0
#: The infected all together weigh so much more than the harmless, or the hard ones would pull all log-odds down. The
#: more it is, the more of what is doubtful adds up, and thresholds rise.
INFECTED_WEIGHT: Final = 3.0
N_FOLDS: Final = 4
#: Budgets that are calibrated, in false alarms a device-year, as far as the data suffice.
BUDGETS: Final = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
#: Of the captures of the first hours of watching, one in so many may accuse a harmless device.
ONE_IN: Final = 200
#: In those hours the model's threshold is as high as it can be at a loss of this share of the infected devices that the
#: lowest would find: hours are few to be wrong in, and simulated devices vary less than real ones.
SPARE: Final = 0.01
#: Evidence at which the index may be made to accuse: from its factory value for the largest budget up to what a hard
#: rule is worth, since rules accuse whatever the budget.
INDEX_THRESHOLDS: Final = np.arange(alarm_threshold(max(BUDGETS)), RULE_EVIDENCE + 0.5, 0.5)
#: Its harmless devices fail twice as often, by construction: it teaches and tests, and no budget is kept on it.
STRESS_WORLD: Final = "hostile"
#: A device-week is at least this share of a week.
MIN_WEEK_SHARE: Final = 0.5


def train(
    traces: Sequence[DeviceTrace],
    name: str,
    seed: int,
    data: list[dict[str, Any]],
    labels: tuple[Sequence[DeviceTrace], Labelled] | None = None,
    n_threads: int = 1,
) -> Artifact:
    """Fit a model to traces and calibrate it on sites that were held out; DataError without both classes.

    ``data``: what the traces are of; ``labels``: real devices, to be learned from beside. What comes out does not
    depend on ``n_threads``.
    """
    folds = _folds(traces)
    real, labelled = labels or ((), None)

    def fit(fold: int) -> Trees:
        return fit_trees([*(t for t, of in zip(traces, folds, strict=True) if of != fold), *real], seed)

    with ThreadPoolExecutor(n_threads) as pool:  # fitting does not hold the interpreter's lock
        # Of the fold that there is not, all are the rest.
        *of_folds, whole = pool.map(fit, range(N_FOLDS + 1))
    models = [BoostedTrees(name, trees) for trees in of_folds]
    held_out: list[tuple[DeviceTrace, Model]] = [
        (trace, models[fold]) for trace, fold in zip(traces, folds, strict=True)
    ]
    manifest = Manifest(
        format=FORMAT,
        name=name,
        features=[info.name for info in FEATURES],
        schema_sha256=schema_digest(),
        arrays_sha256="",
        versions=_versions(),
        seed=seed,
        training_data=data,
        parameters={
            **PARAMETERS,
            "max_steps": MAX_STEPS,
            "masked": MASKED,
            "first_trees": FIRST_TREES,
            "hard_logit": HARD_LOGIT,
            "hard_weight": HARD_WEIGHT,
            "infected_weight": INFECTED_WEIGHT,
            "folds": N_FOLDS,
        },
        thresholds=calibrate(held_out),
        start=calibrate_start(held_out),
        labelled=labelled,
    )
    return Artifact(manifest, whole)


def _folds(traces: Sequence[DeviceTrace]) -> list[int]:
    """Return each trace's fold: whole sites, dealt out in turn."""
    sites = {site: number for number, site in enumerate(dict.fromkeys((t.world, t.site) for t in traces))}
    return [sites[t.world, t.site] % N_FOLDS for t in traces]


def _versions() -> dict[str, str]:
    import sklearn  # noqa: PLC0415 - only training has it

    return {
        "spamsensor": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def fit_trees(traces: Sequence[DeviceTrace], seed: int) -> Trees:
    """Fit trees to devices, each with the same weight within its class; DataError without both classes.

    Twice: what the first fit finds hard weighs more in the second.
    """
    features, is_spam, weight = _rows(traces)
    if is_spam.all() or not is_spam.any():
        raise DataError("the training data has one class only: it needs harmless and infected devices")
    rng = np.random.default_rng([seed, 1])
    masked = features.copy()
    for needs in (Needs.DNS, Needs.CLEARTEXT, Needs.PEERS):
        is_masked = rng.random(len(features)) < MASKED
        for column in (k for k, info in enumerate(FEATURES) if info.needs is needs):
            masked[is_masked, column] = np.nan
    first = _fit(masked, is_spam, _balanced(weight, is_spam), seed, FIRST_TREES)
    is_hard = ~is_spam & (BoostedTrees("first", first).judge(features).logit > HARD_LOGIT)
    weight = _balanced(np.where(is_hard, HARD_WEIGHT * weight, weight), is_spam)
    weight = np.where(is_spam, INFECTED_WEIGHT * weight, weight)
    return _fit(masked, is_spam, weight, seed, PARAMETERS["max_iter"])


def _fit(features: Floats, is_spam: NDArray[np.bool_], weight: Floats, seed: int, n_trees: int) -> Trees:
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - only training has it
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    # A feature that the data never shows cannot be learned from, and scikit-learn 1.9 fails on it.
    seen = np.array([k for k in LEARNED if not np.isnan(features[:, k]).all()])
    classifier = HistGradientBoostingClassifier(
        **PARAMETERS | {"max_iter": n_trees},
        monotonic_cst=[FEATURES[k].direction for k in seen],
        random_state=seed,
    )
    # One thread: sums in one order, and none that spins while others work.
    with threadpool_limits(limits=1, user_api="openmp"):
        classifier.fit(features[:, seen], is_spam, sample_weight=weight)
    return export_trees(classifier, seen)


def _balanced(weight: Floats, is_spam: NDArray[np.bool_]) -> Floats:
    """Return weights with which both classes weigh alike, and a row 1 in the mean."""
    balanced = weight.copy()
    for of in (is_spam, ~is_spam):
        balanced[of] *= 0.5 * len(weight) / weight[of].sum()
    return balanced


def _rows(traces: Sequence[DeviceTrace]) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Return the steps to learn from: features, whether the device has sent spam by then, and its share of a device."""
    features, is_spam, weight = [np.zeros((0, N_FEATURES))], [np.zeros(0, dtype=np.bool_)], [np.zeros(0)]
    for trace in traces:
        n = len(trace.ts_ns)
        if n == 0 or (trace.family and len(trace.spam_ns) == 0):
            continue
        chosen = np.unique(np.linspace(0, n - 1, MAX_STEPS).round().astype(np.int64))
        features.append(trace.features[chosen])
        first_ns = trace.spam_ns[0] if trace.family else np.iinfo(np.int64).max
        is_spam.append(trace.ts_ns[chosen] >= first_ns)
        weight.append(np.full(len(chosen), trace.counts_as / len(chosen)))
    return np.concatenate(features), np.concatenate(is_spam), np.concatenate(weight)


def export_trees(classifier: Any, seen: NDArray[np.int64]) -> Trees:
    """Return the trees of a fitted HistGradientBoostingClassifier; ``seen``: the features that its columns are."""
    predictors = [tree for (tree,) in classifier._predictors]
    columns: dict[str, list[NDArray[Any]]] = {field: [] for field in Trees._fields[2:]}
    roots, n = [], 0
    for predictor in predictors:
        nodes = predictor.nodes
        is_leaf = nodes["is_leaf"] != 0
        roots.append(n)
        columns["feature"].append(np.where(is_leaf, LEAF, seen[np.where(is_leaf, 0, nodes["feature_idx"])]))
        columns["threshold"].append(np.where(is_leaf, 0.0, nodes["num_threshold"]))
        columns["unknown_left"].append(np.where(is_leaf, 0, nodes["missing_go_to_left"]))
        for side in ("left", "right"):
            columns[side].append(np.where(is_leaf, 0, nodes[side].astype(np.int64) + n))
        columns["value"].append(_means(nodes))
        n += len(nodes)
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Trees(
        baseline=np.asarray(classifier._baseline_prediction, dtype=np.float64).reshape(1),
        roots=np.array(roots, dtype=np.int32),
        feature=arrays["feature"].astype(np.int32),
        threshold=arrays["threshold"].astype(np.float64),
        unknown_left=arrays["unknown_left"].astype(np.uint8),
        left=arrays["left"].astype(np.int32),
        right=arrays["right"].astype(np.int32),
        value=arrays["value"].astype(np.float64),
    )


def _means(nodes: NDArray[Any]) -> Floats:
    """Return what leaves add, and of other nodes the mean of what is below by training rows."""
    value = nodes["value"].astype(np.float64)
    for i in range(len(nodes) - 1, -1, -1):  # children lie behind their parents
        if not nodes["is_leaf"][i]:
            sides = [int(nodes["left"][i]), int(nodes["right"][i])]
            value[i] = np.average(value[sides], weights=nodes["count"][sides])
    return value


def evidence_path(trace: DeviceTrace, verdicts: Verdicts) -> Floats:
    """Return the evidence after each step of a device, f8[m], by what a model says of each."""
    evidence = np.zeros(len(trace.ts_ns))
    for serial in np.unique(trace.serials):
        of = trace.serials == serial
        path = np.zeros(int(of.sum()))
        walk_evidence(trace.ts_ns[of], verdicts.logit[of], verdicts.rules[of], path)
        evidence[of] = path
    return evidence


def calibrate(held_out: Sequence[tuple[DeviceTrace, Model]]) -> list[Threshold]:
    """Return thresholds by budget: quantiles of the peak of a harmless device's week, split-conformal.

    Of n device-weeks the k-th largest peak is reached by a new one with probability k / (n + 1) at most
    (Vovk et al. 2005), so a budget of B a year needs n + 1 >= 365 / 7 / B. It is one for index and model together: each
    threshold of the index leaves the model its own, and the pair that finds most infected devices is taken, the lowest
    of the index among equals. Each device is judged by a model that has not seen its site. Cold captures are no
    device-weeks, and STRESS_WORLD is left out; so are the first hours of watching, which have thresholds of their own.
    """
    harmless, infected = [], []
    for trace, model in held_out:
        if trace.is_cold or trace.world.startswith(STRESS_WORLD):
            continue
        if trace.family:
            infected.append(_peaks(trace, model, first_spam_ns(trace)))
        elif trace.years * WEEKS_PER_YEAR >= MIN_WEEK_SHARE:
            harmless.append(_peaks(trace, model, trace.watched_from_ns + START_NS))
    of_harmless, of_infected = (np.array(peaks).reshape(-1, 2) for peaks in (harmless, infected))
    found = []
    for budget in BUDGETS:
        rank = int(np.floor((len(of_harmless) + 1) * budget / WEEKS_PER_YEAR))
        pair = _best_pair(of_harmless, of_infected, rank - 1) if rank >= 1 else None
        if pair:
            found.append(
                Threshold(
                    budget=budget, index_evidence=pair[0], evidence=pair[1], device_weeks=len(of_harmless)
                )
            )
    if not found:
        raise DataError(
            f"{len(of_harmless)} harmless device-weeks are too few, or too much like spam, to keep any budget: "
            "simulate more"
        )
    return found


def calibrate_start(held_out: Sequence[tuple[DeviceTrace, Model]]) -> StartThreshold | None:
    """Return thresholds for the first hours of watching, which one in ONE_IN cold captures reaches falsely at most.

    As ``calibrate``, with captures in place of device-weeks: of each counts the harmless device with most evidence;
    and raised as far as SPARE allows. None if there are too few captures.
    """
    captures: dict[tuple[str, int], tuple[float, float]] = {}
    infected = []
    for trace, model in held_out:
        if not trace.is_cold or trace.world.startswith(STRESS_WORLD):
            continue
        if trace.family:
            infected.append(_peaks(trace, model, first_spam_ns(trace)))
            continue
        index, trees = captures.get((trace.world, trace.site), (0.0, 0.0))
        own_index, own_trees = _peaks(trace, model, 0)
        captures[trace.world, trace.site] = max(index, own_index), max(trees, own_trees)
    rank = (len(captures) + 1) // ONE_IN
    of_captures, of_infected = (
        np.array(peaks).reshape(-1, 2) for peaks in (list(captures.values()), infected)
    )
    pair = _best_pair(of_captures, of_infected, rank - 1) if rank >= 1 else None
    if pair is None:
        return None
    index_evidence, evidence = _raised(of_infected, pair)
    return StartThreshold(
        one_in=ONE_IN, index_evidence=index_evidence, evidence=evidence, captures=len(captures)
    )


def first_spam_ns(trace: DeviceTrace) -> int:
    """Return when a device attempted spam first, 0 never."""
    return int(trace.spam_ns[0]) if len(trace.spam_ns) else 0


def _peaks(trace: DeviceTrace, model: Model, since_ns: int) -> tuple[float, float]:
    """Return the most evidence of the index and of the model against a device, from a time on."""
    of = trace.ts_ns >= since_ns
    index, trees = (
        evidence_path(trace, judge.judge(trace.features))[of] for judge in (MonotoneIndex(), model)
    )
    return float(np.max(index, initial=0.0)), float(np.max(trees, initial=0.0))


def _raised(infected: Floats, pair: tuple[float, float]) -> tuple[float, float]:
    """Return thresholds, the model's as high as finds all but SPARE of the ``infected``, f8[n, 2], that ``pair`` finds.

    The index has learned nothing from simulated devices, and stays where it is.
    """

    def n_found(of_model: float) -> int:
        return int(((infected[:, 0] >= of_index) | (infected[:, 1] >= of_model)).sum())

    of_index, of_model = pair
    enough = (1 - SPARE) * n_found(of_model)
    if enough == 0.0:
        return pair
    higher = (peak for peak in np.arange(np.ceil(of_model), CAP) if n_found(peak) >= enough)
    return of_index, float(max(higher, default=of_model))


def _best_pair(harmless: Floats, infected: Floats, n_allowed: int) -> tuple[float, float] | None:
    """Return thresholds of index and model that at most ``n_allowed`` of the ``harmless`` reach, None without any.

    ``harmless``, ``infected``: f8[n, 2], peaks of index and model.
    """
    best, best_found = None, -1
    for of_index in INDEX_THRESHOLDS:
        is_over = harmless[:, 0] >= of_index
        n_left = n_allowed - int(is_over.sum())
        if n_left < 0:
            continue
        rest = np.sort(harmless[~is_over, 1])
        # Just above what too many would reach, and what one step can say: evidence that is at its cap cannot be told
        # apart any more.
        of_model = float(
            np.nextafter(max(rest[-1 - n_left] if n_left < len(rest) else 0.0, MOST_RISE), np.inf)
        )
        if of_model > CAP:
            continue
        n_found = int(((infected[:, 0] >= of_index) | (infected[:, 1] >= of_model)).sum())
        if n_found > best_found:
            best, best_found = (float(of_index), of_model), n_found
    return best
