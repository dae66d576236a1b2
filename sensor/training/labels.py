"""What operators have said of their devices, to learn from beside simulated ones."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from sensor.devices.features import N_FEATURES, schema_digest
from sensor.errors import StateError
from sensor.model.artifact import Labelled
from sensor.state.database import open_for_command
from sensor.state.weeks import DAY_NS
from sensor.training.fit import MAX_STEPS
from sensor.training.traces import DeviceTrace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sensor.state.weeks import Example

#: Of an infected device, the days with so much of the evidence of its worst: before, it was harmless or idle.
WORST_SHARE: Final = 0.5
#: A real device weighs as many simulated ones.
COUNTS_AS: Final = 20.0
#: What the family of an infected one is called, and the kind of all.
LABELLED: Final = "labelled"


def read_labels(databases: Sequence[Path]) -> tuple[list[DeviceTrace], Labelled]:
    """Return the labelled devices of sensors' databases, a step for each day, and what they are.

    StateError for a database that cannot be read, or features that are none.
    """
    traces = []
    digest = hashlib.sha256()
    for number, path in enumerate(databases):
        of_device: dict[str, list[Example]] = defaultdict(list)
        with open_for_command(path) as database:
            for example in database.examples(schema_digest()):
                if len(example.features) != 8 * N_FEATURES:
                    raise StateError(f"{path}: a day of {example.device} has no {N_FEATURES} features")
                of_device[example.device].append(example)
        for device, days in sorted(of_device.items()):
            trace = _trace(number, days)
            digest.update(f"{device} {trace.family}\n".encode())
            digest.update(trace.features.tobytes())
            traces.append(trace)
    n_infected = sum(bool(trace.family) for trace in traces)
    return traces, Labelled(benign=len(traces) - n_infected, infected=n_infected, sha256=digest.hexdigest())


def _trace(number: int, days: list[Example]) -> DeviceTrace:
    is_infected = days[0].verdict == "infected"
    if is_infected:
        worst = max(day.evidence for day in days)
        days = [day for day in days if day.evidence >= WORST_SHARE * worst]
    # Trees make no leaf of a few rows: each device has as many as a simulated one.
    days = [day for day in days for _ in range(-(-MAX_STEPS // len(days)))]
    ts_ns = np.array([day.day * DAY_NS for day in days], dtype=np.int64)
    return DeviceTrace(
        world=LABELLED,
        is_cold=False,
        site=number,
        kind=LABELLED,
        family=LABELLED if is_infected else "",
        start_ns=int(ts_ns[0]),
        end_ns=int(ts_ns[-1]) + DAY_NS,
        watched_from_ns=int(ts_ns[0]),
        circumstances=frozenset(),
        spam_per_day=0.0,
        spam_ns=ts_ns[:1] if is_infected else ts_ns[:0],
        serials=np.zeros(len(days), dtype=np.int64),
        ts_ns=ts_ns,
        features=np.stack([np.frombuffer(day.features, dtype="<f8") for day in days]),
        counts_as=COUNTS_AS,
    )
