"""What a model is worth on worlds that it has not seen: recall and delay by family, false alarms by kind.

Beside it, over the same steps, the detectors of training/detectors.py: each at its own setting, and at the one at
which it accuses no more harmless devices than ours does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.model.channel import START_NS
from sensor.training.detectors import OURS, Judged, elsewhere, ours, parts_of_ours
from sensor.training.fit import first_spam_ns
from sensor.training.traces import CIRCUMSTANCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from sensor.model.artifact import Artifact
    from sensor.training.detectors import Detector
    from sensor.training.traces import DeviceTrace

    Floats = NDArray[np.float64]

#: An infected device of a cold capture counts if it attempts so many mails in it.
COLD_MAILS: Final = 30
#: Attempts a day from which on a device sends much, and up to which little.
MUCH_A_DAY: Final = 50
LITTLE_A_DAY: Final = (1, 60)
#: Shares of the sorted delays that are reported.
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a detector made of one device: its most, and the first step that accuses, -1 none.

    Of an infected one from its first spam on; of a harmless one after the first hours of watching, or in cold captures.
    """

    trace: DeviceTrace
    most: float
    step: int
    is_accused_at_start: bool

    @property
    def is_accused(self) -> bool:
        """Whether it is accused at the detector's own setting."""
        return self.step >= 0

    @property
    def sends_much(self) -> bool:
        """Whether it belongs to those who send much ..."""
        return self.trace.spam_per_day >= MUCH_A_DAY

    @property
    def sends_little(self) -> bool:
        """... or little; the classes overlap."""
        return LITTLE_A_DAY[0] <= self.trace.spam_per_day <= LITTLE_A_DAY[1]

    @property
    def messages(self) -> float:
        """How many messages it had attempted when it was accused; infinite if it never was."""
        if not self.is_accused:
            return np.inf
        return float((self.trace.spam_ns <= self.trace.ts_ns[self.step]).sum())

    @property
    def minutes(self) -> float:
        """How long after its first spam it was accused; infinite if it never was."""
        if not self.is_accused:
            return np.inf
        return float(self.trace.ts_ns[self.step] - self.trace.spam_ns[0]) / 60e9


def evaluate(
    traces: Sequence[DeviceTrace],
    artifact: Artifact,
    budgets: Sequence[float],
    novel: Sequence[Detector] = (),
) -> dict[str, Any]:
    """Return what was measured, as JSON can hold it.

    ``traces``: of one kind of world; ``budgets``: the first is compared with other detectors, ``novel`` among them.
    """
    at = [ours(artifact, budget, f"{OURS}, {budget:g}") for budget in budgets]
    others = [*parts_of_ours(artifact, budgets[0]), *elsewhere(traces), *novel]
    heard: dict[str, list[Heard]] = {detector.name: [] for detector in (*at, *others)}
    for trace in traces:
        judged = Judged(trace, artifact.model)
        for detector in (*at, *others):
            heard[detector.name].append(hear(detector, judged))
    first = heard[at[0].name]
    n_accused = sum(h.is_accused for h in _warm(first) if not h.trace.family)
    return {
        "model": artifact.manifest.name,
        "worlds": sorted({trace.world + (" cold" if trace.is_cold else "") for trace in traces}),
        "at": [
            {
                "budget": budget,
                "promised": artifact.attained(budget),
                "index_threshold": artifact.thresholds(budget)[0],
                "threshold": artifact.thresholds(budget)[1],
                **_measured(heard[detector.name]),
            }
            for budget, detector in zip(budgets, at, strict=True)
        ],
        "curve": _curve(first),
        "detectors": {
            OURS: _compared(first, n_accused),
            **{detector.name: _compared(heard[detector.name], n_accused) for detector in others},
        },
    }


def hear(detector: Detector, judged: Judged) -> Heard:
    """Let a detector judge a device."""
    trace = judged.trace
    started_ns = 0 if trace.is_cold else trace.watched_from_ns + START_NS
    since = int(np.searchsorted(trace.ts_ns, first_spam_ns(trace) if trace.family else started_ns))
    score = detector.score(judged)
    mask = score >= detector.setting
    step = since + int(mask[since:].argmax()) if mask[since:].any() else -1
    most = float(np.max(score[since:], initial=-np.inf))
    return Heard(trace, most, step, bool(mask[:since].any()))


def _warm(heard: Iterable[Heard]) -> list[Heard]:
    return [h for h in heard if not h.trace.is_cold]


def _infected(heard: Iterable[Heard]) -> list[Heard]:
    return [h for h in heard if h.trace.family and len(h.trace.spam_ns)]


def _measured(heard: Sequence[Heard]) -> dict[str, Any]:
    warm, infected = _warm(heard), _infected(_warm(heard))
    much = [h for h in infected if h.sends_much]
    little = [h for h in infected if h.sends_little]
    return {
        "false_alarms": _false_alarms(warm),
        "families": {family: found_by(of) for family, of in _by(infected, lambda h: h.trace.family).items()},
        "much": found_by(much),
        "little": found_by(little),
        "circumstances": {
            name: {
                "all": found_by([h for h in infected if name in h.trace.circumstances]),
                "much": found_by([h for h in much if name in h.trace.circumstances]),
            }
            for name in CIRCUMSTANCES
        },
        "clean": found_by([h for h in infected if not h.trace.circumstances]),
        "start": _start(warm),
        "cold": _cold([h for h in heard if h.trace.is_cold]),
    }


def _start(heard: Sequence[Heard]) -> dict[str, int]:
    """Return at how many sites a harmless device is accused in the first hours of watching."""
    sites = _by(heard, _site)
    accused = sum(any(h.is_accused_at_start for h in of if not h.trace.family) for of in sites.values())
    return {"sites": len(sites), "with_false_alarm": accused}


def _site(heard: Heard) -> str:
    return f"{heard.trace.world} {heard.trace.site:06d}"


def _compared(heard: Sequence[Heard], n_accused: int) -> dict[str, Any]:
    """Return what a detector is worth at its own setting, and where it accuses ``n_accused`` harmless devices."""
    warm = _warm(heard)
    infected = _infected(warm)
    harmless = np.sort([h.most for h in warm if not h.trace.family])[::-1]
    beyond = harmless[n_accused] if n_accused < len(harmless) else -np.inf
    as_few = np.array([h.most > beyond for h in infected])
    return {
        "false_alarms": _false_alarms(warm),
        "recall": _share([h.is_accused for h in infected]),
        "recall_at_as_few": _share(as_few.tolist()),
        "cold": _cold([h for h in heard if h.trace.is_cold]),
    }


def _share(of: Sequence[bool]) -> float | None:
    return round(float(np.mean(of)), 4) if len(of) else None


def _by(heard: Iterable[Heard], key: Callable[[Heard], str]) -> dict[str, list[Heard]]:
    groups: dict[str, list[Heard]] = defaultdict(list)
    for h in heard:
        groups[key(h)].append(h)
    return dict(sorted(groups.items()))


def _false_alarms(heard: Sequence[Heard]) -> dict[str, Any]:
    harmless = [h for h in heard if not h.trace.family]
    return {
        **rate(sum(h.is_accused for h in harmless), sum(h.trace.years for h in harmless)),
        "by_kind": {
            kind: rate(sum(h.is_accused for h in of), sum(h.trace.years for h in of))
            for kind, of in _by(harmless, lambda h: h.trace.kind).items()
        },
    }


def rate(n: int, years: float) -> dict[str, Any]:
    """Return a rate with its 95 % interval (Garwood 1936: exact for Poisson counts)."""
    from scipy.stats import chi2  # noqa: PLC0415 - comes with scikit-learn, which only training has

    low = float(chi2.ppf(0.025, 2 * n)) / 2 if n else 0.0
    high = float(chi2.ppf(0.975, 2 * n + 2)) / 2
    per_year = [round(value / years, 4) if years > 0 else None for value in (n, low, high)]
    return {
        "devices": n,
        "device_years": round(years, 2),
        "per_device_year": per_year[0],
        "interval": per_year[1:],
    }


def found_by(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return recall and delays of infected devices; in the quantiles one that is missed counts as never."""
    messages, minutes = [h.messages for h in heard], [h.minutes for h in heard]
    return {
        "devices": len(heard),
        "recall": _share([h.is_accused for h in heard]),
        "median_messages": _quantile(messages, 0.5),
        "median_minutes": _quantile(minutes, 0.5),
        "minutes": [_quantile(minutes, q) for q in QUANTILES],
    }


def _quantile(values: Sequence[float], q: float) -> float | None:
    """Return a quantile, None if it is never reached, or of nothing."""
    if not values:
        return None
    value = float(np.quantile(values, q, method="higher"))
    return round(value, 1) if np.isfinite(value) else None


def _cold(heard: Sequence[Heard]) -> dict[str, Any]:
    captures = _by(heard, _site)
    big = [h for h in _infected(heard) if len(h.trace.spam_ns) >= COLD_MAILS]
    return {
        "captures": len(captures),
        "with_false_alarm": sum(
            any(h.is_accused for h in of if not h.trace.family) for of in captures.values()
        ),
        "infected": len(big),
        "found": sum(h.is_accused for h in big),
    }


def _curve(heard: Sequence[Heard]) -> dict[str, list[float]]:
    """Return recall against false alarms a device-year as thresholds go up and down together."""
    warm = _warm(heard)
    harmless = [h for h in warm if not h.trace.family]
    peaks = np.sort([h.most for h in harmless])[::-1]
    infected = np.array([h.most for h in _infected(warm)])
    years = sum(h.trace.years for h in harmless)
    if not len(infected) or years == 0:
        return {"false_alarms": [], "recall": []}
    counts = np.unique(np.geomspace(1, max(years, 1), 40).astype(np.int64))
    counts = counts[counts < len(peaks)]
    return {
        "false_alarms": [round(float(n / years), 4) for n in counts],
        "recall": [round(float((infected > peaks[n]).mean()), 4) for n in counts],
    }
