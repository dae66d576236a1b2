"""What simulating and judging cost, by itself: no packets, one core.

    python bench/scoring.py                     # 1,000 simulated device-weeks, and 10,000 active devices in one go

A world is simulated, and its events go through the pipeline with the model that comes with the program. Then
10,000 of the steps that its devices made, drawn at random, are judged at once: features in, evidence out, of
index, rules and model. Beside it, computing the features of as many devices from the tables, each of which
mailed a little. CPU seconds, medians of the repetitions. How good the verdicts are, `spamsensor evaluate` says.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fleet import mail_connections

from sensor.config import Config, Tables
from sensor.devices.activity import observe_events
from sensor.devices.features import N_FEATURES, compute_features
from sensor.devices.site import describe_site
from sensor.devices.table import new_device_tables
from sensor.model.artifact import default_directory, read_artifact
from sensor.model.evidence import EvidenceTable
from sensor.model.score import MonotoneIndex
from sensor.pipeline import Pipeline, Steps, warm_up
from sensor.simulate.emit import Templates, emit
from sensor.simulate.store import open_world, write_world
from sensor.simulate.world import WORLDS, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.model.artifact import Artifact

#: Issue targets, in CPU seconds.
WORLD_TARGET_S = 60.0
TICK_TARGET_S = 0.1
START_NS = 1_795_478_400 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000, help="simulated, for a week")
    parser.add_argument("--active", type=int, default=10_000, help="judged at once")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    artifact = read_artifact(default_directory())
    warm_up(Config(), artifact)
    features = score_world(arguments.devices, arguments.seed, artifact)
    score_at_once(features, arguments.active, arguments.repeat, arguments.seed, artifact)


def score_world(n_devices: int, seed: int, artifact: Artifact) -> Any:
    """Simulate and score a week of a world; return the features of all steps that its devices made."""
    steps: list[Any] = []

    def keep(made: Steps) -> None:
        steps.append(made.features.copy())

    with tempfile.TemporaryDirectory() as name:
        spent = {"simulating": 0.0, "events": 0.0, "judging": 0.0}
        templates = Templates()
        began = time.process_time()
        write_world(Plan(WORLDS["realistic"], seed, n_devices, 7.0), Path(name) / "world")
        spent["simulating"] = time.process_time() - began
        n_events = 0
        for site in open_world(Path(name) / "world").sites():
            pipeline = Pipeline(site.config, on_alert=lambda _: None, on_step=keep, artifact=artifact)
            began = time.process_time()
            for events in emit(site.sessions, site.scene, templates):
                made = time.process_time()
                pipeline.observe(events, site.scene.text)
                spent["events"] += made - began
                began = time.process_time()
                spent["judging"] += began - made
                n_events += len(events)
            pipeline.finish()
            spent["judging"] += time.process_time() - began
    total = sum(spent.values())
    print(
        f"{n_devices:,} simulated device-weeks, {n_events:,} events, {sum(map(len, steps)):,} steps of evidence"
    )
    print("  " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in spent.items()))
    print(f"  together {total:.1f} s CPU; target {WORLD_TARGET_S:g} s for 1,000")
    return np.concatenate(steps)


def score_at_once(of_world: Any, n: int, repeat: int, seed: int, artifact: Artifact) -> None:
    """Judge n devices at once."""
    features = np.random.default_rng(seed).choice(of_world, n)
    models = (MonotoneIndex(), artifact.model)
    rows, serials = np.arange(n), np.arange(n)
    tables = [EvidenceTable(n), EvidenceTable(n)]

    def judge() -> None:
        for model, table in zip(models, tables, strict=True):
            table.step(rows, serials, model.judge(features), np.ones(n, dtype=np.bool_), START_NS)

    config = Config(tables=Tables(devices=1 << (2 * n - 1).bit_length()))
    devices = active_devices(config, n)
    found, out = np.flatnonzero(devices.devices["mail_first_ns"] >= 0), np.empty((n, N_FEATURES))
    judged = median(judge, repeat)
    computed = median(lambda: compute_features(devices, found, n, START_NS + 60 * 10**9, out), repeat)
    print(f"{n:,} active devices at once, medians of {repeat}")
    print(f"  features {computed * 1e3:.1f} ms, index, rules, model and evidence {judged * 1e3:.1f} ms")
    print(f"  together {(computed + judged) * 1e3:.1f} ms CPU; target {TICK_TARGET_S * 1e3:g} ms for 10,000")


def active_devices(config: Config, n: int) -> Any:
    """The device table after n devices have each mailed to four servers."""
    devices = new_device_tables(config.tables.devices, config.tables.dns_answers, describe_site(config))
    events = mail_connections(np.repeat(np.arange(n), 4), START_NS)
    first = 0
    while first < len(events):
        first = observe_events(events, first, len(events), np.zeros(1, dtype=np.uint8), devices)
    return devices


def median(run: Callable[[], None], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
