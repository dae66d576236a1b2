"""What a model is worth on worlds that it has not seen: recall and delay by family, false alarms by kind.

Beside it, over the same steps: the index and the rules without a model, and what is in use elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.model.evidence import alarm_threshold
from sensor.model.score import MonotoneIndex
from sensor.training.baselines import BASELINES
from sensor.training.fit import evidence_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sensor.model.artifact import Artifact
    from sensor.training.traces import DeviceTrace

#: An infected device of a cold capture counts if it attempts so many mails in it.
COLD_MAILS: Final = 30
OURS = "index, rules and model"
MODEL_ALONE, INDEX_ALONE, RULES_ALONE = "model alone", "index and rules, no model", "rules alone"


def evaluate(traces: Sequence[DeviceTrace], artifact: Artifact, budget: float) -> dict[str, Any]:
    """Return what was measured, as JSON can hold it."""
    warm = [trace for trace in traces if not trace.is_cold]
    cold = [trace for trace in traces if trace.is_cold]
    first = {id(trace): _first_accused(trace, artifact, budget) for trace in traces}
    names = (OURS, MODEL_ALONE, INDEX_ALONE, RULES_ALONE, *BASELINES)
    return {
        "model": artifact.manifest.name,
        "budget": budget,
        "promised": artifact.attained(budget),
        "threshold": artifact.thresholds(budget)[1],
        "index_threshold": artifact.thresholds(budget)[0],
        "worlds": sorted({trace.world + (" cold" if trace.is_cold else "") for trace in traces}),
        "detectors": {
            name: {
                "false_alarms": _false_alarms(warm, first, name),
                "families": _families(warm, first, name),
                "cold": _cold(cold, first, name),
            }
            for name in names
        },
    }


def _first_accused(trace: DeviceTrace, artifact: Artifact, budget: float) -> dict[str, int]:
    """Return the step at which each detector accuses a device, from its first spam on; -1 never."""
    index, rules = evidence_paths(trace, MonotoneIndex())
    model, _ = evidence_paths(trace, artifact.model)
    of_index, of_model = artifact.thresholds(budget)
    accused = {
        OURS: (index >= of_index) | (model >= of_model),
        MODEL_ALONE: model >= of_model,
        INDEX_ALONE: index >= alarm_threshold(budget),
        RULES_ALONE: rules >= 0,
        **{name: detect(trace.features) for name, detect in BASELINES.items()},
    }
    begun = trace.spam_ns[0] if len(trace.spam_ns) else 0
    return {name: _first(mask & (trace.ts_ns >= begun)) for name, mask in accused.items()}


def _first(mask: NDArray[np.bool_]) -> int:
    return int(mask.argmax()) if mask.any() else -1


def _false_alarms(
    traces: Sequence[DeviceTrace], first: dict[int, dict[str, int]], name: str
) -> dict[str, Any]:
    kinds: dict[str, list[Any]] = defaultdict(lambda: [0, 0.0])
    for trace in traces:
        if not trace.family:
            kinds[trace.kind][0] += first[id(trace)][name] >= 0
            kinds[trace.kind][1] += trace.years
    n, years = sum(k[0] for k in kinds.values()), sum(k[1] for k in kinds.values())
    return {
        **_rate(n, years),
        "by_kind": {kind: _rate(*kinds[kind]) for kind in sorted(kinds)},
    }


def _rate(n: int, years: float) -> dict[str, Any]:
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


def _families(traces: Sequence[DeviceTrace], first: dict[int, dict[str, int]], name: str) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for trace in traces:
        if not trace.family or len(trace.spam_ns) == 0:
            continue
        step = first[id(trace)][name]
        if step < 0:
            found[trace.family].append((np.inf, np.inf))
            continue
        at_ns = trace.ts_ns[step]
        n = int((trace.spam_ns <= at_ns).sum())
        found[trace.family].append((float(n), float(at_ns - trace.spam_ns[0]) / 60e9))
    return {
        family: {
            "devices": len(of),
            "recall": round(float(np.mean([np.isfinite(messages) for messages, _ in of])), 4),
            # Of all devices; one that is missed counts as never.
            "median_messages": _finite(np.median([messages for messages, _ in of])),
            "median_minutes": _finite(np.median([minutes for _, minutes in of])),
        }
        for family, of in sorted(found.items())
    }


def _finite(value: Any) -> float | None:
    return round(float(value), 1) if np.isfinite(value) else None


def _cold(traces: Sequence[DeviceTrace], first: dict[int, dict[str, int]], name: str) -> dict[str, Any]:
    captures: dict[tuple[str, int], bool] = {}
    n_infected = n_found = 0
    for trace in traces:
        is_accused = first[id(trace)][name] >= 0
        capture = (trace.world, trace.site)
        captures.setdefault(capture, False)
        if not trace.family:
            captures[capture] |= is_accused
        elif len(trace.spam_ns) >= COLD_MAILS:
            n_infected += 1
            n_found += is_accused
    return {
        "captures": len(captures),
        "with_false_alarm": sum(captures.values()),
        "infected": n_infected,
        "found": n_found,
    }


# In words.


def report_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown report."""
    ours = result["detectors"][OURS]
    alarms = ours["false_alarms"]
    yield f"Calibrated for {result['promised']:g} a device-year: evidence {result['threshold']:.2f} of the model,"
    yield f"{result['index_threshold']:.2f} of the index.\n"
    yield f"Measured: {_rate_shown(alarms)};"
    yield f"{alarms['devices']} harmless devices in {alarms['device_years']:g} device-years.\n"
    yield "| family | devices | recall | without the model | messages | minutes |\n|---|---|---|---|---|---|"
    before = result["detectors"][INDEX_ALONE]["families"]
    for family, found in ours["families"].items():
        yield (
            f"| `{family}` | {found['devices']} | {found['recall']:.2f} | {before[family]['recall']:.2f} | "
            f"{_shown(found['median_messages'])} | {_shown(found['median_minutes'])} |"
        )
    yield "\nMessages and minutes: medians over all devices of the family, from the first spam to the alert.\n"
    yield "| harmless kind | device-years | accused | a device-year |\n|---|---|---|---|"
    for kind, rate in alarms["by_kind"].items():
        yield (
            f"| `{kind}` | {rate['device_years']:.2f} | {rate['devices']} | {_shown(rate['per_device_year'])} |"
        )
    yield "\n| detector | false alarms | recall | cold: captures with a false alarm | cold: found |"
    yield "|---|---|---|---|---|"
    for name, found in result["detectors"].items():
        families = found["families"].values()
        n = sum(family["devices"] for family in families)
        recall = sum(family["devices"] * family["recall"] for family in families) / n if n else float("nan")
        cold = found["cold"]
        yield (
            f"| {name} | {_rate_shown(found['false_alarms'])} | {recall:.2f} | "
            f"{cold['with_false_alarm']} of {cold['captures']} | {cold['found']} of {cold['infected']} |"
        )


def _rate_shown(rate: dict[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{_shown(rate['per_device_year'])} a device-year ({_shown(low)} to {_shown(high)} with 95 %)"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
