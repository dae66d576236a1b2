"""Thresholds of a site: kept budgets, weeks that do not count, and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_artifact import MODEL

from sensor.cli import main
from sensor.errors import ModelError
from sensor.model.artifact import Artifact, Threshold, read_artifact, write_artifact
from sensor.model.calibrate import LEAST_FACTOR, WEEKS_PER_YEAR, calibrate
from sensor.model.evidence import CAP, RULE_EVIDENCE
from sensor.notation import eve_time
from sensor.pipeline import model_id
from sensor.state.database import open_for_command, open_for_sensor
from sensor.state.files import DATABASE
from sensor.state.weeks import MIN_MINUTES, WEEK_NS, Peaks
from tests.alert_examples import make_alert

if TYPE_CHECKING:
    from pathlib import Path

    from sensor.alerts.record import Alert

WEEK = 2950


def with_thresholds(*budgets: float) -> Artifact:
    thresholds = [
        Threshold(budget=budget, evidence=4.0 + i, index_evidence=8.0 + i, device_weeks=10_000)
        for i, budget in enumerate(sorted(budgets, reverse=True))
    ]
    return Artifact(msgspec.structs.replace(MODEL.manifest, thresholds=thresholds), MODEL.trees)


@given(
    st.lists(st.tuples(st.floats(0, 29), st.floats(0, 50)), min_size=60, max_size=300),
    st.sets(st.sampled_from([1.0, 0.5, 0.2, 0.05]), min_size=1).map(lambda budgets: {1.0, *budgets}),
)
def test_no_more_weeks_are_accused_than_the_budget_allows(peaks, budgets):
    artifact = with_thresholds(*budgets)
    calibrated, found = calibrate(artifact, np.array(peaks), "then")
    thresholds = {t.budget: t for t in calibrated.manifest.thresholds}
    assert [of.budget for of in found] == sorted(budgets, reverse=True)
    before = {t.budget: t for t in artifact.manifest.thresholds}
    for of in found:
        threshold = thresholds[of.budget]
        n_over = sum(i >= threshold.index_evidence or m >= threshold.evidence for i, m in peaks)
        allowed = int((len(peaks) + 1) * of.budget / WEEKS_PER_YEAR)
        if of.factor is None:
            assert allowed == 0
            assert threshold.evidence >= before[of.budget].evidence
        else:
            assert of.n_allowed == allowed
            assert threshold.index_evidence == RULE_EVIDENCE or n_over <= allowed - 1
            assert of.factor >= LEAST_FACTOR
    ordered = [thresholds[budget].evidence for budget in sorted(budgets)]
    assert ordered == sorted(ordered, reverse=True)


def test_too_few_weeks_change_nothing():
    with pytest.raises(ModelError, match="20 harmless device-weeks are too few: the largest budget needs 52"):
        calibrate(with_thresholds(1.0, 0.5), np.zeros((20, 2)), "then")


def test_where_weeks_were_left_out_for_what_they_reached_nothing_is_lowered():
    artifact, quiet = with_thresholds(1.0), np.zeros((60, 2))
    (before,), ((lowered,), (kept,)) = (
        artifact.manifest.thresholds,
        (
            calibrate(artifact, quiet, "then", may_lower=may_lower)[0].manifest.thresholds
            for may_lower in (True, False)
        ),
    )
    assert lowered.evidence < before.evidence == pytest.approx(kept.evidence)


def test_a_model_that_no_threshold_would_keep_quiet_is_silent():
    calibrated, _ = calibrate(with_thresholds(1.0), np.full((60, 2), [0.0, CAP]), "then")
    assert calibrated.manifest.thresholds[0].evidence > CAP


def test_rules_stay_above_every_threshold():
    """What a rule accuses is an alert at any threshold, and no reason to raise one."""
    peaks = np.full((60, 2), [RULE_EVIDENCE, 0.0])
    calibrated, _ = calibrate(with_thresholds(1.0), peaks, "then")
    (threshold,) = calibrated.manifest.thresholds
    assert threshold.index_evidence <= RULE_EVIDENCE


@pytest.fixture
def shipped(tmp_path: Path) -> Artifact:
    """A model in tmp_path / "shipped"."""
    return write_artifact(make(tmp_path / "shipped"), with_thresholds(1.0, 0.5, 0.05))


@pytest.fixture
def state(tmp_path: Path, shipped: Artifact) -> Path:
    """A state directory with three weeks of 40 devices, of which two were accused and one is labelled."""
    directory = tmp_path / "state"
    directory.mkdir()
    keys = [f"02:00:00:00:00:{n:02x}" for n in range(40)]
    with open_for_sensor(directory / DATABASE) as database:
        for week in range(WEEK, WEEK + 3):
            noisy = [20.0 if n in (0, 1, 2) else 1.0 + 0.01 * n for n in range(40)]
            for minute in (1, MIN_MINUTES):
                at_ns = week * WEEK_NS + minute * 60 * 10**9
                nothing: list[Any] = [None] * 40
                peaks = Peaks(at_ns, model_id(shipped), keys, [0.0] * 40, noisy, nothing, "")
                database.write([], [], at_ns, [peaks])
        database._connection.execute("UPDATE weeks SET minutes = ?", (MIN_MINUTES,))
        accused = [an_alert_on(key, WEEK + 1) for key in keys[:2]]
        database.write(accused, [], (WEEK + 3) * WEEK_NS)
    with open_for_command(directory / DATABASE, may_write=True) as database:
        database.add_label(accused[1].alert_id, "benign", "the new scanner", "ann", 0, (WEEK + 9) * WEEK_NS)
    return directory


def an_alert_on(key: str, week: int) -> Alert:
    alert = make_alert(alert_id=key.replace(":", ""), timestamp=eve_time(week * WEEK_NS + 1), state="ended")
    return msgspec.structs.replace(alert, device=msgspec.structs.replace(alert.device, key=key))


def test_weeks_with_an_alert_do_not_count_unless_it_was_a_false_one(state: Path, shipped: Artifact) -> None:
    with open_for_command(state / DATABASE) as database:
        weeks = database.weeks(model_id(shipped))
        assert database.weeks("another") == []
    assert {week.week for week in weeks} == {WEEK, WEEK + 1}  # the last one goes on
    left_out = [week for week in weeks if not week.is_harmless]
    assert [(week.device[-2:], week.week) for week in left_out] == [("00", WEEK + 1)]
    assert {week.of_model for week in weeks if week.device.endswith(("00", "01", "02"))} == {20.0}


def test_the_command_writes_a_model_for_the_site(state: Path, shipped: Artifact, tmp_path: Path) -> None:
    arguments = ["calibrate", "--state", str(state), "--model", str(tmp_path / "shipped"), "--out"]
    done = CliRunner().invoke(main, [*arguments, str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    assert "79 harmless device-weeks of 40 devices" in done.stderr
    assert "left out: 1 device-week with an open alert" in done.stderr
    site = read_artifact(tmp_path / "site")
    assert model_id(site) == model_id(shipped)  # evidence so far counts on
    assert site.manifest.calibration is not None
    assert site.manifest.calibration.device_weeks == 79
    assert site.manifest.calibration.until == eve_time((WEEK + 2) * WEEK_NS)
    with pytest.raises(ModelError, match="calibrated already"):
        calibrate(site, np.zeros((60, 2)), "then")
    (one, *others) = site.manifest.thresholds
    assert one.evidence > 20.0  # five weeks reached that, and one may
    assert [t.evidence for t in others] == [5.0 * one.evidence / 4.0, 6.0 * one.evidence / 4.0]
    again = CliRunner().invoke(main, [*arguments, str(tmp_path / "site")])
    assert again.exit_code != 0
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--out", "somewhere"], "no directory given"),
        (["--state", "nowhere", "--out", "somewhere"], "does a sensor run with --state"),
        (["--state", "nowhere"], "no directory to write to"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["calibrate", *arguments])
    assert done.exit_code != 0
    assert why in done.stderr


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory
