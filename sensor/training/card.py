"""The card of a model: what it is, what it learned from, what it was measured to be worth, what it cannot see."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sensor.model.trees import LEAF
from sensor.outputs import OutputFile
from sensor.training.plots import DELAY, RECALL, draw
from sensor.training.targets import shown, targets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.model.artifact import Artifact

EVALUATION: Final = "evaluation.json"
CARD: Final = "MODEL_CARD.md"
#: The kind of world that targets and pictures are about.
MAIN_WORLD: Final = "realistic"

_LIMITS: Final = """\
## What it cannot see, and what these numbers are not

- All of it is simulation. Which devices there are, how they mail and how attackers hide are assumptions, many
  without a published source (docs/simulation.md). On a real network the rates will differ; none was measured there.
- A tenth of the simulated devices is infected. Precision on a real network follows from the rates above.
- The budget is one for the whole fleet, calibrated on whole device-weeks of all kinds together: no single role has
  enough of them. Kinds with a high rate in the tables spend most of it.
- The families of the tables were in the training data, with other seeds, but for those measured as left out.
- The hard rules accuse whatever the budget is: a part of it is theirs.
- In the hostile world harmless devices fail twice as often and attackers hide: a stress test, for which no budget is
  promised. It was learned from, and left out of the calibration.
- Cold captures, and the first six hours of watching, are not device-weeks: no budget is promised for them. A sensor
  that goes on from its saved state does not begin anew.
- There is no novelty detector among ours. Features that no tree asks for, since they have no direction, or no simulated
  event shows them, or they told nothing more: {unseen}.
"""


def write_card(directory: Path, artifact: Artifact, result: dict[str, Any]) -> None:
    """Write evaluation.json, MODEL_CARD.md and the pictures; equal results give equal files."""
    files = {
        EVALUATION: json.dumps(result, indent=1) + "\n",
        CARD: "\n".join(_card_lines(artifact, result)),
    }
    for name, text in files.items():
        with OutputFile(str(directory / name)) as output, output.writing():
            output.stream.write(text.encode())
    main = _main(result)
    if main and main["curve"]["recall"]:
        draw(directory, main)


def _main(result: dict[str, Any]) -> dict[str, Any] | None:
    worlds = result["worlds"]
    return next((of for of in worlds if any(name.startswith(MAIN_WORLD) for name in of["worlds"])), None)


def _card_lines(artifact: Artifact, result: dict[str, Any]) -> Iterator[str]:
    manifest = artifact.manifest
    used = set(artifact.trees.feature.tolist()) - {LEAF}
    yield f"# The model `{manifest.name}`\n"
    yield "*Written by `spamsensor evaluate`. The model that comes with the program is rebuilt by `make model`, bit for"
    yield "bit with the same versions.*\n"
    yield f"{len(artifact.trees.roots)} boosted trees over {len(used)} of {len(manifest.features)} features, monotone"
    yield "in each, beside the hand-written index and the hard rules (docs/detection.md). Seed "
    yield (
        f"{manifest.seed}; "
        + ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
        + ".\n"
    )
    yield "| | world | seed | devices | days |\n|---|---|---|---|---|"
    for what, worlds in (("learned from", manifest.training_data), ("measured on", result["data"])):
        for world in worlds:
            days = "cold captures" if world["cold"] else f"{world['days']:g}"
            yield f"| {what} | {world['world']} | {world['seed']} | {world['devices']} | {days} |"
    if manifest.labelled is not None:
        of = manifest.labelled
        yield f"| learned from | real devices, as labelled | - | {of.benign} benign, {of.infected} infected | - |"
    yield "\n| budget, false alarms a device-year | evidence of the model | of the index | harmless device-weeks |"
    yield "|---|---|---|---|"
    for threshold in manifest.thresholds:
        yield (
            f"| {threshold.budget:g} | {threshold.evidence:.2f} | {threshold.index_evidence:.2f} | "
            f"{threshold.device_weeks} |"
        )
    yield "\nWhoever sets a smaller budget is served by the last row.\n"
    if manifest.start is not None:
        start = manifest.start
        yield "In the first six hours of watching, and so in short captures, other thresholds hold: those that a"
        yield f"harmless device reaches in one of {start.one_in} cold captures at most, by {start.captures} of them."
        yield f"Evidence of the model {start.evidence:.2f}, of the index {start.index_evidence:.2f}.\n"
    main, left_out = _main(result), result["left_out"]
    if main:
        yield from _targets(main, left_out)
    if left_out:
        yield from _left_out(left_out)
    for measured in result["worlds"]:
        yield from _world(measured)
        if measured["curve"]["recall"] and measured is main:
            yield f"![Recall against false alarms]({RECALL})\n\n![Time to detect]({DELAY})\n"
    unseen = [name for k, name in enumerate(manifest.features) if k not in used]
    yield _LIMITS.format(unseen=", ".join(f"`{name}`" for name in unseen) or "none")


def _targets(measured: dict[str, Any], left_out: dict[str, Any] | None) -> Iterator[str]:
    yield f"## Targets, at a budget of {measured['at'][0]['budget']:g}\n"
    yield "| quantity | wanted | measured | attained |\n|---|---|---|---|"
    for target in targets(measured, left_out):
        attained = {True: "yes", False: "**no**", None: "-"}[target.is_attained]
        yield f"| {target.quantity} | {target.wanted} | {target.measured} | {attained} |"
    yield ""


def _left_out(left_out: dict[str, Any]) -> Iterator[str]:
    yield f"## Families that it had never seen, at a budget of {left_out['budget']:g}\n"
    yield "Each row is another model, fitted without that family; the thresholds are those of the whole one.\n"
    yield "| family | devices | recall | messages | minutes | false alarms |\n|---|---|---|---|---|---|"
    for family, found in left_out["families"].items():
        yield f"| `{family}` | {_found(found)} | {_rate(found['false_alarms'])} |"
    yield ""


def _world(measured: dict[str, Any]) -> Iterator[str]:
    first = measured["at"][0]
    yield f"## {', '.join(measured['worlds'])}\n"
    yield "| budget | evidence of the model | of the index | false alarms | recall, 50 and more a day | 1 to 60 a day |"
    yield "|---|---|---|---|---|---|"
    for at in sorted(measured["at"], key=itemgetter("promised")):
        yield (
            f"| {at['promised']:g} | {at['threshold']:.2f} | {at['index_threshold']:.2f} | "
            f"{_rate(at['false_alarms'])} | {shown(at['much']['recall'])} | {shown(at['little']['recall'])} |"
        )
    yield f"\nAt a budget of {first['budget']:g}:\n"
    yield "| family | devices | recall | messages | minutes |\n|---|---|---|---|---|"
    for family, found in first["families"].items():
        yield f"| `{family}` | {_found(found)} |"
    yield "\nMessages and minutes: medians over all devices of the family, from the first spam to the alert.\n"
    yield "| seen under | devices | recall | messages | minutes |\n|---|---|---|---|---|"
    for name, found in (("none of these", first["clean"]), *_all(first["circumstances"])):
        yield f"| {name} | {_found(found)} |"
    alarms = first["false_alarms"]
    start = first["start"]
    yield f"\n{_rate(alarms)}: {alarms['devices']} harmless devices in {alarms['device_years']:g} device-years, after"
    yield "the first six hours of watching. In these, a harmless device is accused at"
    yield f"{start['with_false_alarm']} of {start['sites']} sites.\n"
    yield "| harmless kind | device-years | accused | a device-year |\n|---|---|---|---|"
    for kind, of in alarms["by_kind"].items():
        yield f"| `{kind}` | {of['device_years']:.2f} | {of['devices']} | {shown(of['per_device_year'])} |"
    yield "\n| detector | false alarms | recall | recall with as few false alarms | cold: with a false alarm | found |"
    yield "|---|---|---|---|---|---|"
    for name, of in measured["detectors"].items():
        cold = of["cold"]
        yield (
            f"| {name} | {_rate(of['false_alarms'])} | {shown(of['recall'])} | {shown(of['recall_at_as_few'])} | "
            f"{cold['with_false_alarm']} of {cold['captures']} | {cold['found']} of {cold['infected']} |"
        )
    yield ""


def _all(circumstances: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, found in circumstances.items():
        yield name, found["all"]


def _found(found: dict[str, Any]) -> str:
    """Return four cells: devices, recall, and the median delays."""
    recall = "-" if found["recall"] is None else f"{found['recall']:.2f}"
    return f"{found['devices']} | {recall} | {shown(found['median_messages'])} | {shown(found['median_minutes'])}"


def _rate(rate: dict[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{shown(rate['per_device_year'])} a device-year ({shown(low)} to {shown(high)} with 95 %)"
