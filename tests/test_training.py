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
from sensor.devices.features import FEATURES, N_FEATURES
from sensor.errors import DataError
from sensor.model.artifact import ARRAYS, MANIFEST, read_artifact
from sensor.model.score import Verdicts
from sensor.pipeline import Pipeline
from sensor.simulate.emit import Templates, emit
from sensor.simulate.store import open_world, write_world
from sensor.simulate.world import WORLDS, Plan
from sensor.training import fit
from sensor.training.evaluate import OURS, evaluate
from sensor.training.fit import WEEKS_PER_YEAR, calibrate, fit_trees, train
from sensor.training.traces import DeviceTrace, collect

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
        return Verdicts(
            np.full(n, self._logit), np.zeros((n, 0)), np.full(n, -1), np.zeros(n, dtype=np.int64)
        )


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
    steps = np.arange(200) + 1
    weeks = [(made(int(n)), Constant(1.1)) for n in steps]  # each step adds a tenth, and fades a little
    found = {t.budget: t for t in calibrate(weeks)}
    assert set(found) == {1.0, 0.5}  # 0.2 needs 260 weeks
    peaks = []
    for trace, _ in weeks:
        evidence = 0.0
        for _ in trace.ts_ns:
            evidence = evidence * 0.5 ** (1 / 72) * (evidence > 0) + 0.1
        peaks.append(evidence)
    for budget, threshold in found.items():
        allowed = (len(weeks) + 1) * budget / WEEKS_PER_YEAR
        assert (np.array(peaks) >= threshold.evidence).sum() <= allowed
        assert threshold.device_weeks == len(weeks)


def test_infected_and_cold_devices_are_no_benign_weeks():
    weeks = [(made(1), Constant(0.0))] * 60
    others = [(made(50, family="proxym"), Constant(9.0)), (made(50, is_cold=True), Constant(9.0))]
    assert calibrate(weeks + others) == calibrate(weeks)


def test_too_few_weeks_promise_nothing():
    with pytest.raises(DataError, match="too few, or too much like spam"):
        calibrate([(made(1), Constant(0.0))] * 20)


@pytest.mark.parametrize("family", ["", "proxym"])
def test_one_class_cannot_be_learned_from(family):
    with pytest.raises(DataError, match="one class only"):
        fit_trees([made(5, family)] * 10, 1)


def test_trees_rise_with_what_is_suspicious(traces):
    from sensor.model.boosted import BoostedTrees  # noqa: PLC0415

    model = BoostedTrees("made", fit_trees(traces, 1))
    rows = np.concatenate([t.features for t in traces])[::7]
    rng = np.random.default_rng(0)
    before = model.judge(rows)
    np.testing.assert_allclose(
        model.trees.expected + before.terms.sum(axis=1), before.logit, rtol=0, atol=1e-9
    )
    for k, info in enumerate(FEATURES):
        if info.direction:
            more = rows.copy()
            more[:, k] += info.direction * rng.exponential(scale=np.abs(rows[:, k]) + 1)
            assert (model.judge(more).logit >= before.logit - 1e-9).all(), info.name


def test_the_measure_is_what_the_pipeline_says(world, traces):
    """Alerts of the real pipeline, with the model, are at the steps at which the evaluation has them."""
    artifact = train(traces, "made", 1, [])
    budget = 0.0
    started: dict[tuple[int, str], str] = {}
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
                started.setdefault((site.number, str(keys[alert.device.key].number)), alert.timestamp)
        budget = config.budget.false_alarms_per_device_year
    result = evaluate(traces, artifact, budget)
    ours = result["detectors"][OURS]
    n_found = sum(round(f["devices"] * f["recall"]) for f in ours["families"].values())
    assert n_found + ours["false_alarms"]["devices"] == len(started)
    assert n_found > 0


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
    assert {path.name for path in (tmp_path / "quality").iterdir()} == {"evaluation.json", "MODEL_CARD.md"}
    with pytest.raises(DataError, match=r"one[/\\]"):
        run("train", "--data", tmp_path / "one", "--out", tmp_path / "third")


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
