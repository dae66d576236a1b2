"""The model that comes along: what it promises, and that the lab and the floods of other tests hold with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sensor.capture.merge import open_captures
from sensor.model.artifact import default_directory, read_artifact
from tests.test_detection import RATES, Flood, check_flood, office
from tests.worlds import CAMERA, Fate, run, run_world

ROOT = Path(__file__).parents[1]
CAPTURES = sorted((ROOT / "pcaps").glob("*.pcap"))
DIRECTORY = ROOT / "models" / "default"
MODEL = read_artifact(DIRECTORY)
#: What `spamsensor evaluate` measured.
EVALUATION = json.loads((DIRECTORY / "evaluation.json").read_text())
REALISTIC = next(of for of in EVALUATION["worlds"] if of["worlds"][0].startswith("realistic"))


def test_it_is_the_one_that_is_used() -> None:
    assert default_directory() == DIRECTORY


def test_what_is_promised_lies_in_the_interval_of_what_was_measured() -> None:
    assert REALISTIC["at"][0]["promised"] <= 0.05
    n_inside = 0
    for at in REALISTIC["at"]:
        low, high = at["false_alarms"]["interval"]
        assert low <= at["promised"]  # fewer than promised break no promise
        n_inside += at["promised"] <= high
        assert at["false_alarms"]["device_years"] >= 300
    assert n_inside >= 3


def test_it_finds_more_than_its_parts_and_than_others_with_as_few_false_alarms() -> None:
    own, *others = REALISTIC["detectors"].values()
    assert all(own["recall_at_as_few"] >= other["recall_at_as_few"] - 0.01 for other in others)
    assert own["recall"] > REALISTIC["detectors"]["index and rules, no model"]["recall"] + 0.2


def test_its_card_has_the_figures_of_its_evaluation() -> None:
    card = (DIRECTORY / "MODEL_CARD.md").read_text()
    for threshold in MODEL.manifest.thresholds:
        evidence = f"{threshold.evidence:.2f} | {threshold.index_evidence:.2f}"
        assert f"| {threshold.budget:g} | {evidence} | {threshold.device_weeks} |" in card


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_exactly_the_infected_devices_of_the_lab_are_accused(capture: Path) -> None:
    with (ROOT / "pcaps" / "labels.tsv").open(encoding="utf-8", newline="") as file:
        labels = [row for row in csv.DictReader(file, delimiter="\t") if row["capture"] == capture.name]
    with open_captures([capture], on_problem=lambda problem: pytest.fail(str(problem))) as frames:
        started = run(frames, artifact=MODEL).started()
    assert {key: alert.cause for key, alert in started.items()} == {
        row["device_mac"]: row["cause"] for row in labels if row["label"] == "infected"
    }


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("has_dns", [True, False], ids=["DNS", "without DNS"])
@pytest.mark.parametrize("fate", [Fate.ACCEPTED, Fate.REFUSED, Fate.UNANSWERED])
def test_floods_alert_in_time(fate: Fate, has_dns: bool, rate: float) -> None:
    world = office()
    first = Flood(rate=rate, fates=(fate,), has_dns=has_dns).add_to(world, CAMERA)
    check_flood(run_world(world, artifact=MODEL), first, CAMERA.key)
