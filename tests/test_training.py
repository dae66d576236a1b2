"""From worlds to a model and its measure, small: whole runs of the commands, and what the parts promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensor.cli import main
from sensor.devices.features import FEATURES, N_FEATURES, Feature, schema_digest
from sensor.errors import DataError, StateError
from sensor.model.artifact import (
    ARRAYS,
    FORMAT,
    MANIFEST,
    Artifact,
    Manifest,
    Threshold,
    read_artifact,
)
from sensor.model.boosted import BoostedTrees
from sensor.model.calibrate import WEEKS_PER_YEAR
from sensor.model.channel import START_NS
from sensor.model.score import Model, Verdicts
from sensor.notation import eve_time
from sensor.pipeline import Pipeline
from sensor.simulate.emit import Templates, emit
from sensor.simulate.store import open_world, write_world
from sensor.simulate.world import WORLDS, Plan
from sensor.state.database import open_for_sensor
from sensor.state.files import DATABASE
from sensor.state.weeks import DAY_NS, Peaks
from sensor.training import fit
from sensor.training.detectors import OURS, Detector, Judged, elsewhere, novelty, ours
from sensor.training.evaluate import evaluate, hear
from sensor.training.fit import (
    ONE_IN,
    SPARE,
    calibrate,
    calibrate_start,
    evidence_path,
    fit_trees,
    train,
)
from sensor.training.labels import read_labels
from sensor.training.left_out import leave_out_each
from sensor.training.targets import targets
from sensor.training.traces import CIRCUMSTANCES, DeviceTrace, collect

WEEK_NS = 7 * 86400 * 10**9


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fit.PARAMETERS, "max_iter", 10)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("worlds") / "realistic"
    write_world(Plan(WORLDS["realistic"], 5, 120, 3.5), directory)
    return directory


@pytest.fixture(scope="module")
def traces(world: Path) -> list[DeviceTrace]:
    return collect([world])


def made(n: int, family: str = "", **changes: object) -> DeviceTrace:
    """A device of a week with ``n`` steps, an hour apart."""
    trace = DeviceTrace(
        world="made 1",
        is_cold=False,
        site=0,
        kind="camera",
        family=family,
        start_ns=0,
        end_ns=WEEK_NS,
        watched_from_ns=-START_NS,
        circumstances=frozenset(),
        spam_per_day=0.0,
        spam_ns=np.zeros(1 if family else 0, dtype=np.int64),
        serials=np.zeros(n, dtype=np.int64),
        ts_ns=np.arange(n) * 3600 * 10**9,
        features=np.zeros((n, N_FEATURES)),
    )
    return replace(trace, **changes)


class Constant:
    """A model that thinks the same of everybody."""

    name, term_features, rules = "constant", (), ()

    def __init__(self, logit: float) -> None:
        self._logit = logit

    def judge(self, features: np.ndarray) -> Verdicts:
        n = len(features)
        return Verdicts(np.full(n, self._logit), np.full(n, -1), np.zeros(n, dtype=np.int64))


def test_traces_have_each_device_once_and_steps_in_order(world, traces):
    residents = [resident for site in open_world(world).sites() for resident in site.residents]
    assert len(traces) == len(residents) == 120
    assert {t.family for t in traces} > {""}
    assert any(len(t.ts_ns) for t in traces)
    for trace in traces:
        assert (np.diff(trace.ts_ns) >= 0).all()
        assert trace.features.shape == (len(trace.ts_ns), N_FEATURES)
        assert (trace.family == "") == (len(trace.spam_ns) == 0) or not len(trace.spam_ns)


def test_a_threshold_is_reached_by_no_more_than_its_budget_allows():
    weeks = [(made(5), Constant(1.1 + 0.01 * n)) for n in range(200)]
    found = {t.budget: t for t in calibrate(weeks)}
    assert set(found) == {1.0, 0.5}  # 0.2 needs 260 weeks
    peaks = np.array([evidence_path(trace, model.judge(trace.features)).max() for trace, model in weeks])
    assert (np.diff(peaks) > 0).all()
    for budget, threshold in found.items():
        allowed = int((len(weeks) + 1) * budget / WEEKS_PER_YEAR)
        assert (
            peaks >= threshold.evidence
        ).sum() == allowed - 1  # the next one may be the last that is allowed
        assert threshold.device_weeks == len(weeks)


def test_infected_and_cold_devices_are_no_benign_weeks():
    weeks = [(made(1), Constant(0.0))] * 60
    others = [(made(50, family="proxym"), Constant(9.0)), (made(50, is_cold=True), Constant(9.0))]
    assert calibrate(weeks + others) == calibrate(weeks)


def test_a_capture_in_so_many_is_accused_at_the_start_at_most():
    captures = [(made(3, is_cold=True, site=n), Constant(4.0 + 0.001 * n)) for n in range(2 * ONE_IN)]
    captures += [
        (made(3, is_cold=True, site=n), Constant(1.0)) for n in range(2 * ONE_IN)
    ]  # quieter ones beside them
    threshold = calibrate_start(captures)
    assert threshold is not None
    assert (threshold.captures, threshold.one_in) == (2 * ONE_IN, ONE_IN)
    peaks = np.array([evidence_path(t, model.judge(t.features)).max() for t, model in captures])
    assert (peaks >= threshold.evidence).sum() == 1  # of two that would be allowed
    assert calibrate_start(captures[: ONE_IN - 2]) is None


def test_at_the_start_thresholds_are_as_high_as_they_can_be_at_hardly_a_loss():
    captures: list[tuple[DeviceTrace, Model]] = [
        (made(3, is_cold=True, site=n), Constant(1.1)) for n in range(ONE_IN)
    ]
    captures += [(made(8, family="proxym", is_cold=True), Constant(3.0 + 0.01 * n)) for n in range(200)]
    threshold = calibrate_start(captures)
    assert threshold is not None
    peaks = np.array([evidence_path(t, m.judge(t.features)).max() for t, m in captures if t.family])
    n_lost = (peaks < threshold.evidence).sum()
    assert n_lost <= SPARE * len(peaks)
    assert (peaks < threshold.evidence + 1).sum() > SPARE * len(peaks)  # no higher one


def test_too_few_weeks_promise_nothing():
    with pytest.raises(DataError, match="too few, or too much like spam"):
        calibrate([(made(1), Constant(0.0))] * 20)


@pytest.mark.parametrize("family", ["", "proxym"])
def test_one_class_cannot_be_learned_from(family):
    with pytest.raises(DataError, match="one class only"):
        fit_trees([made(5, family)] * 10, 1)


def test_trees_rise_with_what_is_suspicious(traces):
    model = BoostedTrees("made", fit_trees(traces, 1))
    rows = np.concatenate([t.features for t in traces])[::7]
    rng = np.random.default_rng(0)
    before = model.judge(rows)
    shares = np.array([model.explain(row) for row in rows])
    np.testing.assert_allclose(model.trees.expected + shares.sum(axis=1), before.logit, rtol=0, atol=1e-9)
    for k, info in enumerate(FEATURES):
        if info.direction:
            more = rows.copy()
            more[:, k] += info.direction * rng.exponential(scale=np.abs(rows[:, k]) + 1)
            assert (model.judge(more).logit >= before.logit - 1e-9).all(), info.name


def test_the_measure_is_what_the_pipeline_says(world, traces):
    """Alerts of the real pipeline, with the model, are at the steps at which the evaluation has them."""
    artifact = train(traces, "made", 1, [])
    budget = 0.0
    found, accused = set(), set()
    for site in open_world(world).sites():
        config = site.config
        alerts: list = []
        pipeline = Pipeline(config, on_alert=alerts.append, artifact=artifact)
        for events in emit(site.sessions, site.scene, Templates()):
            pipeline.observe(events, site.scene.text)
        pipeline.finish()
        keys = {key: r for r in site.residents for key in r.keys}
        for alert in alerts:
            if alert.event_type == "alert" and alert.state == "started" and alert.device.key in keys:
                resident = keys[alert.device.key]
                at_ns = int(np.datetime64(alert.timestamp[:-5], "us").astype(np.int64)) * 1000
                if resident.family:
                    found.add((site.number, resident.number))
                elif at_ns - pipeline.started_ns >= START_NS:
                    accused.add((site.number, resident.number))
        budget = config.budget.false_alarms_per_device_year
    [result] = evaluate(traces, artifact, [budget])["at"]
    assert len(found) == sum(round(f["devices"] * f["recall"]) for f in result["families"].values()) > 0
    assert len(accused) == result["false_alarms"]["devices"]


def test_a_device_is_found_at_the_first_step_after_its_first_spam_that_reaches_the_setting():
    score = np.array([9.0, 0.0, 3.0, 5.0, 4.0])
    infected = made(5, "proxym", spam_ns=np.array([1, 2, 3]) * 3600 * 10**9, spam_per_day=70.0)
    heard = hear(Detector("made", lambda _: score, 3.0), Judged(infected, Constant(0.0)))
    assert (heard.step, heard.most) == (2, 5.0)
    assert (heard.messages, heard.minutes) == (2.0, 60.0)
    assert heard.sends_much
    assert not heard.sends_little
    never = hear(Detector("made", lambda _: score, 6.0), Judged(infected, Constant(0.0)))
    assert not never.is_accused
    assert never.messages == never.minutes == np.inf


def test_with_as_few_false_alarms_everybody_is_measured_alike():
    """A detector that thinks what ours does, on another scale, has ours' recall where it accuses as few."""
    harmless = [made(5, features=np.full((5, N_FEATURES), 0.1 * n)) for n in range(20)]
    infected = [made(5, "proxym", features=np.full((5, N_FEATURES), 0.5 + 0.1 * n)) for n in range(20)]
    traces = harmless + infected
    artifact = train_small(traces)
    own = ours(artifact, 1.0)
    same = Detector("the same", lambda judged: 7 * own.score(judged), 1e9)
    result = evaluate(traces, artifact, [1.0], [same])["detectors"]
    assert result["the same"]["recall"] == 0.0
    assert result["the same"]["recall_at_as_few"] == result[OURS]["recall_at_as_few"] > 0.0


def train_small(traces: list[DeviceTrace]) -> Artifact:
    """An artifact without calibration: the traces are too few for it."""
    thresholds = [Threshold(budget=1.0, evidence=1.0, index_evidence=5.0, device_weeks=1)]
    manifest = Manifest(
        format=FORMAT,
        name="small",
        features=[info.name for info in FEATURES],
        schema_sha256="",
        arrays_sha256="",
        versions={},
        seed=1,
        training_data=[],
        parameters={},
        thresholds=thresholds,
        start=None,
    )
    return Artifact(manifest, fit_trees(traces, 1))


def test_the_detectors_of_others_say_what_their_rules_say(traces):
    steps = [trace for trace in traces if len(trace.ts_ns)]
    f = np.concatenate([trace.features for trace in steps])
    scores = {
        detector.name: (
            np.concatenate([detector.score(Judged(t, Constant(0.0))) for t in steps]),
            detector.setting,
        )
        for detector in [*elsewhere(traces), *novelty(traces, 1)]
    }
    assert {len(score) for score, _ in scores.values()} == {len(f)}
    score, setting = scores["score of flows (NEMEA)"]
    loud = (
        (f[:, Feature.SMTP25_1H] >= 82)
        & (f[:, Feature.DESTINATIONS_24H] > 10)
        & (f[:, Feature.INBOUND_24H] == 0)
    )
    assert (score[loud] >= setting).all()  # ln 82 > 2 ln 9
    quiet = (f[:, Feature.SMTP25_1H] < 80) & (f[:, Feature.DESTINATIONS_24H] <= 10)
    assert not (score[quiet] >= setting).any()
    score, setting = scores["MX look-up or 15 connections (BotFlex)"]
    assert ((score >= setting) == ((f[:, Feature.MX_1H] >= 1) | (f[:, Feature.SMTP25_1H] >= 15))).all()
    score, setting = scores["times the others' mean (Flowmon)"]
    assert np.isnan(setting)
    assert (score[f[:, Feature.SMTP25_1H] + f[:, Feature.SUBMISSION_1H] < 10] == 0).mean() > 0.5
    assert np.isfinite(score).all()


def test_each_family_is_judged_by_a_model_that_never_saw_it(traces, monkeypatch):
    seen: list[set[str]] = []

    def note(traces, seed):
        seen.append({trace.family for trace in traces})
        return fit_trees(traces, seed)

    monkeypatch.setattr("sensor.training.left_out.fit_trees", note)
    families = {trace.family for trace in traces if trace.family}
    result = leave_out_each(traces, traces, train_small(traces), 1.0)
    assert len(families) > 3
    assert [families - of for of in seen] == [{family} for family in sorted(families)]
    assert set(result["families"]) == families
    known = evaluate(traces, train_small(traces), [1.0])
    assert all(target.measured for target in targets(known, result))
    assert set(known["at"][0]["circumstances"]) == set(CIRCUMSTANCES)


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments], standalone_mode=False)


def test_the_commands_write_the_same_twice_and_refuse_what_is_no_world(world, tmp_path):
    for out in ("one", "other"):
        run("train", "--data", world, "--out", tmp_path / out)
    manifests = [json.loads((tmp_path / out / MANIFEST).read_bytes()) for out in ("one", "other")]
    assert manifests[0] | {"name": ""} == manifests[1] | {"name": ""}
    assert (tmp_path / "one" / ARRAYS).read_bytes() == (tmp_path / "other" / ARRAYS).read_bytes()
    assert read_artifact(tmp_path / "one").attained(0.001) == manifests[0]["thresholds"][-1]["budget"]
    run("evaluate", "--data", world, "--model", tmp_path / "one", "--out", tmp_path / "quality")
    names = {"evaluation.json", "MODEL_CARD.md", "recall.svg", "delay.svg"}
    assert {path.name for path in (tmp_path / "quality").iterdir()} == names
    before = {name: (tmp_path / "quality" / name).read_bytes() for name in names}
    run("evaluate", "--data", world, "--model", tmp_path / "one", "--out", tmp_path / "quality")
    assert before == {name: (tmp_path / "quality" / name).read_bytes() for name in names}
    with pytest.raises(DataError, match=r"one[/\\]"):
        run("train", "--data", tmp_path / "one", "--out", tmp_path / "third")


def labelled_as(directory: Path, features: np.ndarray, verdict: str, device: str) -> None:
    """A sensor's state with one device, as bad as can be on as many days as there are rows of features."""
    directory.mkdir(exist_ok=True)
    with open_for_sensor(directory / DATABASE) as database:
        database.write([], [{"device": [device], "last_seen": [eve_time(DAY_NS)]}], 0)
        for day, row in enumerate(features):
            peaks = Peaks(day * DAY_NS, None, [device], [5.0], [0.0], [row.tobytes()], schema_digest())
            database.write([], [], 0, [peaks])
        database.label_device(device, verdict, "", "me", 0, expires_ns=1000 * DAY_NS)


def test_labels_are_learned_from(traces, world, tmp_path):
    spam = next(t for t in traces if t.family == "direct_to_mx" and len(t.ts_ns) > 20).features[-3:]
    calm = next(t for t in traces if not t.family and len(t.ts_ns) > 20).features[-3:]
    before = BoostedTrees("before", fit_trees(traces, 1))
    labelled_as(tmp_path / "one", spam, "benign", "aa:aa:aa:aa:aa:aa")
    labelled_as(tmp_path / "other", calm, "infected", "bb:bb:bb:bb:bb:bb")
    real, labelled = read_labels([tmp_path / "one" / DATABASE, tmp_path / "other" / DATABASE])
    assert (labelled.benign, labelled.infected) == (1, 1)
    after = BoostedTrees("after", fit_trees([*traces, *real], 1))
    assert (after.judge(spam).logit < before.judge(spam).logit - 0.5).all()
    assert (after.judge(calm).logit > before.judge(calm).logit + 0.5).all()

    state = ("--state", tmp_path / "one", "--state", tmp_path / "other")
    run("train", "--data", world, *state, "--out", tmp_path / "model")
    assert read_artifact(tmp_path / "model").manifest.labelled == labelled


def test_days_before_an_infection_are_not_learned_as_spam(tmp_path):
    labelled_as(tmp_path, np.ones((3, N_FEATURES)), "infected", "aa:aa:aa:aa:aa:aa")
    with open_for_sensor(tmp_path / DATABASE) as database:
        peaks = Peaks(
            5 * DAY_NS,
            None,
            ["aa:aa:aa:aa:aa:aa"],
            [1.0],
            [0.0],
            [np.zeros(N_FEATURES).tobytes()],
            schema_digest(),
        )
        database.write([], [], 0, [peaks])
    ((trace,), _) = read_labels([tmp_path / DATABASE])
    assert (trace.features == 1.0).all()
    assert len(trace.ts_ns) >= fit.MAX_STEPS
    with open_for_sensor(tmp_path / DATABASE) as database:
        database._connection.execute("UPDATE examples SET features = x'00'")
    with pytest.raises(StateError, match="features"):
        read_labels([tmp_path / DATABASE])


def test_the_run_path_needs_neither_scikit_learn_nor_pandas():
    code = (
        "import sys, sensor.cli; sensor.cli.main(['replay', 'pcaps/clean-office.pcap', '--no-progress'], "
        "standalone_mode=False); print(sorted({'sklearn', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"
