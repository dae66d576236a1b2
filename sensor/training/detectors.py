"""What is measured side by side: ours, ours with a part taken away, and what is in use elsewhere.

Each is a score for every step of a device, and the setting from which on it accuses. Where a published rule counts
over minutes, ours is the last hour, the shortest that the features keep: it sees at least as much.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.devices.features import FEATURES, Feature, Needs
from sensor.model.channel import START_NS
from sensor.model.evidence import SLACK, alarm_threshold
from sensor.model.score import MonotoneIndex
from sensor.training.fit import evidence_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sensor.model.artifact import Artifact
    from sensor.model.score import Model, Verdicts
    from sensor.training.traces import DeviceTrace

    Floats = NDArray[np.float64]

OURS: Final = "index, rules and model"
INDEX_ALONE: Final = "index and rules, no model"

#: ntopng's "SMTP Server Contacts": more servers than this, by a host that is none itself.
NTOPNG_CONTACTS: Final = 5
#: BotFlex as it is shipped: any look-up of an exchange, or this many connections (in 15 minutes).
BOTFLEX_CONNECTIONS: Final = 15
#: NEMEA's smtp_spam_detector: servers, share of inbound to outbound flows, and the confidence from which it reports.
NEMEA_SERVERS: Final = 10
NEMEA_INBOUND: Final = 1.2
NEMEA_CONFIDENCE: Final = 0.9
#: Flowmon ADS compares with stations that send at least so much an hour; its shipped multiplier is not published.
FLOWMON_LIMIT: Final = 10
#: Rows that novelty is learned from.
MAX_NOVELTY_ROWS: Final = 50_000
#: Of the components of harmless behaviour, those that explain this share of its variance are kept.
KEPT_VARIANCE: Final = 0.9

_DNS = [k for k, info in enumerate(FEATURES) if info.needs is Needs.DNS]
#: What makes a device a mail server.
_ROLE = [Feature.INBOUND_24H, Feature.INBOUND_MESSAGES, Feature.INBOUND_LOCAL_24H, Feature.KNOWN_SERVER]


class Detector(NamedTuple):
    """``score``: of each step of a device, f8[m]; ``setting``: it accuses from there on, NaN if none is published."""

    name: str
    score: Callable[[Judged], Floats]
    setting: float


class Judged:
    """What index, rules and model say of each step of a device, as far as it is asked for."""

    def __init__(self, trace: DeviceTrace, model: Model) -> None:
        self.trace = trace
        self.features = trace.features
        self._model = model

    def _paths(self, features: Floats) -> tuple[Floats, Floats]:
        """Return the evidence of index (with rules) and model: f8[m] each."""
        return evidence_path(self.trace, MonotoneIndex().judge(features)), evidence_path(
            self.trace, self._model.judge(features)
        )

    @cached_property
    def of_index(self) -> Verdicts:
        """What the index and the rules say."""
        return MonotoneIndex().judge(self.features)

    @cached_property
    def of_model(self) -> Verdicts:
        """What the model says."""
        return self._model.judge(self.features)

    @cached_property
    def index(self) -> Floats:
        """Evidence of the index, f8[m]."""
        return evidence_path(self.trace, self.of_index)

    @cached_property
    def model(self) -> Floats:
        """Evidence of the model, f8[m]."""
        return evidence_path(self.trace, self.of_model)

    def without(self, columns: Sequence[int], value: float) -> tuple[Floats, Floats]:
        """Return the evidence of index and model if some features were always ``value``."""
        features = self.features.copy()
        features[:, columns] = value
        return self._paths(features)


def _thresholds(artifact: Artifact, budget: float) -> Callable[[DeviceTrace], tuple[Floats, Floats]]:
    """Return what tells the evidence at which index and model accuse a device at each of its steps: f8[m] each."""
    whole, start = artifact.thresholds(budget), artifact.start_thresholds(budget)

    def at(trace: DeviceTrace) -> tuple[Floats, Floats]:
        is_start = trace.ts_ns - trace.watched_from_ns < START_NS
        index_at, model_at = (np.where(is_start, *pair) for pair in zip(start, whole, strict=True))
        return index_at, model_at

    return at


def ours(artifact: Artifact, budget: float, name: str = OURS) -> Detector:
    """Return the detector as it runs at a budget; 1 accuses."""
    at = _thresholds(artifact, budget)

    def score(judged: Judged) -> Floats:
        index_at, model_at = at(judged.trace)
        louder: Floats = np.maximum(judged.index / index_at, judged.model / model_at)
        return louder

    return Detector(name, score, 1.0)


def parts_of_ours(artifact: Artifact, budget: float) -> list[Detector]:
    """Return ours with one part taken away at a time."""
    at = _thresholds(artifact, budget)

    def rules_or(judged: Judged, score: Floats) -> Floats:
        return np.where(judged.of_index.rules >= 0, np.inf, score)

    def both(trace: DeviceTrace, paths: tuple[Floats, Floats]) -> Floats:
        index_at, model_at = at(trace)
        louder: Floats = np.maximum(paths[0] / index_at, paths[1] / model_at)
        return louder

    def now(verdicts: Verdicts) -> Floats:
        return np.maximum(verdicts.logit - SLACK, 0.0)

    return [
        Detector("no index", lambda judged: rules_or(judged, judged.model / at(judged.trace)[1]), 1.0),
        Detector(INDEX_ALONE, lambda judged: judged.index, alarm_threshold(budget)),
        Detector("rules alone", lambda judged: (judged.of_index.rules >= 0).astype(np.float64), 1.0),
        Detector("no DNS features", lambda judged: both(judged.trace, judged.without(_DNS, np.nan)), 1.0),
        Detector("no roles", lambda judged: both(judged.trace, judged.without(_ROLE, 0.0)), 1.0),
        Detector(
            "no accumulator",
            lambda judged: rules_or(judged, both(judged.trace, (now(judged.of_index), now(judged.of_model)))),
            1.0,
        ),
    ]


# In use elsewhere.


def any_mx(judged: Judged) -> Floats:
    """Take any look-up of a mail exchange (Whyte, van Oorschot, Kranakis, ACSAC 2006)."""
    return np.nan_to_num(judged.features[:, Feature.MX_24H])


def server_contacts(judged: Judged) -> Floats:
    """Count as ntopng's "SMTP Server Contacts", of the last day: its own counter is never reset."""
    f = judged.features
    is_server = f[:, Feature.INBOUND_24H] + f[:, Feature.INBOUND_LOCAL_24H] > 0
    return np.where(is_server, 0.0, f[:, Feature.DESTINATIONS_24H])


def port_25_rate(judged: Judged) -> Floats:
    """Count connections to port 25 in the last hour: plain limits of providers, and iungo's sensor."""
    rate: Floats = judged.features[:, Feature.SMTP25_1H]
    return rate


def botflex(judged: Judged) -> Floats:
    """Do as BotFlex (Bro scripts, 2013) in its shipped configuration: exchanges looked up, or connections."""
    f = judged.features
    louder: Floats = np.maximum(
        np.nan_to_num(f[:, Feature.MX_1H]), f[:, Feature.SMTP25_1H] / BOTFLEX_CONNECTIONS
    )
    return louder


def nemea(judged: Judged) -> Floats:
    """Score as NEMEA's smtp_spam_detector: ln(flows) if none comes in, one more or less for servers and for the ratio.

    Without its mean score of reply codes, whose weights are not in its description.
    """
    f = judged.features
    outbound, inbound = f[:, Feature.SMTP25_1H], f[:, Feature.INBOUND_24H]
    flows = np.where(inbound == 0, np.log(np.maximum(outbound, 1.0)), 0.0)
    servers = np.where(f[:, Feature.DESTINATIONS_24H] > NEMEA_SERVERS, 1.0, -1.0)
    ratio = np.where(inbound > NEMEA_INBOUND * f[:, Feature.SMTP25_24H], 1.0, -1.0)
    score: Floats = flows + servers + ratio
    return score


def flowmon(traces: Sequence[DeviceTrace]) -> Callable[[Judged], Floats]:
    """Score as Flowmon ADS' SPAMCounter: mail of the hour over the mean of the site's other stations that send some."""
    busy: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))

    def by_hour(trace: DeviceTrace) -> tuple[NDArray[np.int64], Floats]:
        sent: Floats = trace.features[:, Feature.SMTP25_1H] + trace.features[:, Feature.SUBMISSION_1H]
        return trace.ts_ns // (3600 * 10**9), sent

    def most(trace: DeviceTrace) -> dict[int, float]:
        found: dict[int, float] = {}
        for hour, sent in zip(*(column.tolist() for column in by_hour(trace)), strict=True):
            if sent >= FLOWMON_LIMIT:
                found[hour] = max(found.get(hour, 0.0), sent)
        return found

    for trace in traces:
        for hour, sent in most(trace).items():
            entry = busy[trace.world, trace.site][hour]
            entry[0] += sent
            entry[1] += 1

    def score(judged: Judged) -> Floats:
        hours, sent = by_hour(judged.trace)
        mine, site = most(judged.trace), busy[judged.trace.world, judged.trace.site]
        means = {
            hour: (site[hour][0] - of) / (site[hour][1] - 1) if site[hour][1] > 1 else FLOWMON_LIMIT
            for hour, of in mine.items()
        }
        times: Floats = sent / np.array([means.get(hour, math.inf) for hour in hours.tolist()])
        return times

    return score


def elsewhere(traces: Sequence[DeviceTrace]) -> list[Detector]:
    """Return the rules of other systems, at their shipped settings; ``traces``: all that are judged."""
    return [
        Detector("any MX look-up (Whyte)", any_mx, 1.0),
        Detector("more than 5 servers (ntopng)", server_contacts, NTOPNG_CONTACTS + 1.0),
        Detector("20 connections an hour", port_25_rate, 20.0),
        Detector("MX look-up or 15 connections (BotFlex)", botflex, 1.0),
        Detector("score of flows (NEMEA)", nemea, 2 * math.log(NEMEA_CONFIDENCE / (1 - NEMEA_CONFIDENCE))),
        Detector("times the others' mean (Flowmon)", flowmon(traces), math.nan),
    ]


def novelty(traces: Sequence[DeviceTrace], seed: int) -> list[Detector]:
    """Return detectors of what is unlike harmless devices, fitted to those among ``traces``.

    An isolation forest (Liu et al. 2008) as scikit-learn ships it, and the error of an autoencoder, as Kitsune has it
    (Mirsky et al. 2018), here a linear one, accusing beyond the largest error of its training. Both look once an hour.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - only training has it
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - likewise

    rng = np.random.default_rng([seed, 7])
    rows = np.concatenate([trace.features for trace in traces if not trace.family])
    rows = rows[rng.permutation(len(rows))[:MAX_NOVELTY_ROWS]]
    known = ~np.isnan(rows)
    n_known = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0.0).sum(axis=0) / n_known
    spread = np.sqrt((np.where(known, rows - mean, 0.0) ** 2).sum(axis=0) / n_known)
    spread[spread == 0] = 1.0

    def scaled(features: Floats) -> Floats:
        plain: Floats = np.nan_to_num((features - mean) / spread)
        return plain

    forest: Any = IsolationForest(random_state=seed).fit(scaled(rows))
    linear: Any = PCA(KEPT_VARIANCE, svd_solver="full").fit(scaled(rows))

    def error(features: Floats) -> Floats:
        given = scaled(features)
        off: Floats = given - linear.inverse_transform(linear.transform(given))
        rms: Floats = np.sqrt((off**2).mean(axis=1))
        return rms

    def isolation(features: Floats) -> Floats:
        score: Floats = -forest.decision_function(scaled(features))
        return score

    def once_an_hour(novel: Callable[[Floats], Floats], judged: Judged) -> Floats:
        score = np.full(len(judged.features), -np.inf)
        if len(score):
            _, first = np.unique(judged.trace.ts_ns // (3600 * 10**9), return_index=True)
            score[first] = novel(judged.features[first])
        return score

    return [
        Detector("isolation forest", partial(once_an_hour, isolation), 0.0),
        Detector("autoencoder, linear (Kitsune)", partial(once_an_hour, error), float(error(rows).max())),
    ]
