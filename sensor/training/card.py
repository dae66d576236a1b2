"""The card of a model: what it is, what it learned from, what it was measured to be worth, what it cannot see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sensor.model.trees import LEAF
from sensor.outputs import OutputFile
from sensor.training.evaluate import report_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.model.artifact import Artifact

EVALUATION: Final = "evaluation.json"
CARD: Final = "MODEL_CARD.md"

_LIMITS: Final = """\
## What it cannot see, and what these numbers are not

- All of it is simulation. Which devices there are, how they mail and how attackers hide are assumptions, many
  without a published source (docs/simulation.md). On a real network the rates will differ; none was measured there.
- A tenth of the simulated devices is infected. Precision on a real network follows from the rates above.
- The budget is one for the whole fleet, calibrated on whole device-weeks of all kinds together: no single role has
  enough of them. Kinds with a high rate in the tables spend most of it.
- The families of the tables were in the training data, with other seeds: none was held out as a whole, so how well an
  unknown family is found was not measured.
- The hard rules accuse whatever the budget is: a part of it is theirs.
- In the hostile world harmless devices fail twice as often and attackers hide: a stress test, for which no budget is
  promised. It was learned from, and left out of the calibration.
- Cold captures are not device-weeks: no budget is promised for them; they are counted apart.
- There is no novelty detector. Features that no tree asks for, since they have no direction, or no simulated event
  shows them, or they told nothing more: {unseen}.
"""


def write_card(directory: Path, artifact: Artifact, result: dict[str, Any]) -> None:
    """Write evaluation.json and MODEL_CARD.md; equal results give equal files."""
    files = {
        EVALUATION: json.dumps(result, indent=1) + "\n",
        CARD: "\n".join(_card_lines(artifact, result)),
    }
    for name, text in files.items():
        with OutputFile(str(directory / name)) as output, output.writing():
            output.stream.write(text.encode())


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
    yield "\n| budget, false alarms a device-year | evidence of the model | of the index | harmless device-weeks |"
    yield "|---|---|---|---|"
    for threshold in manifest.thresholds:
        yield (
            f"| {threshold.budget:g} | {threshold.evidence:.2f} | {threshold.index_evidence:.2f} | "
            f"{threshold.device_weeks} |"
        )
    yield "\nSmaller budgets were not attainable with these data; whoever sets one is served by the last row.\n"
    for measured in result["at"]:
        yield f"## {', '.join(measured['worlds'])}: at a budget of {measured['budget']:g}\n"
        yield from report_lines(measured)
        yield ""
    unseen = [name for k, name in enumerate(manifest.features) if k not in used]
    yield _LIMITS.format(unseen=", ".join(f"`{name}`" for name in unseen) or "none")
