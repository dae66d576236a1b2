"""What keeping state costs: how long capture is held up, and what the checkpoint takes on the disk.

    python bench/state.py [DEVICES ...]

All devices have mailed and every tenth is accused: the worst that there is, since one that never mails takes a
fifth of the bytes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fleet import mail_connections

from sensor.config import Config, Tables
from sensor.pipeline import Pipeline, warm_up
from sensor.state.checkpoint import decode
from sensor.state.files import CHECKPOINT, DATABASE
from sensor.state.keeper import Keeper

SPAM_CONNECTIONS = 30


def events_of(n_devices: int, start_ns: int) -> Any:
    """Every device opens a mail connection, and every tenth floods."""
    counts = np.where(np.arange(n_devices) % 10 == 0, SPAM_CONNECTIONS, 1)
    device = np.repeat(np.arange(n_devices), counts)
    return mail_connections(device, start_ns + np.arange(len(device)) * 1_000_000)


def measure(n_devices: int) -> None:
    config = Config(tables=Tables(devices=max(1 << (2 * n_devices - 1).bit_length(), 256)))
    with tempfile.TemporaryDirectory() as name:
        keeper = Keeper(Path(name), on_news=print, on_problem=print)
        alerts = []
        pipeline, _ = keeper.resume(lambda: Pipeline(config, on_alert=alerts.append))
        pipeline.observe(events_of(n_devices, time.time_ns()), np.zeros(1, dtype=np.uint8))
        began = time.perf_counter()
        for alert in alerts:
            keeper.take(alert)
        take_s = (time.perf_counter() - began) / max(len(alerts), 1)

        def turn() -> float:
            before = time.perf_counter()
            keeper.look_after(pipeline)
            return time.perf_counter() - before

        turns = []
        for minute in range(3):
            keeper._next_s = 0.0
            first = turn()
            turns.append(first)
            while keeper._rows is not None or keeper._has_work:
                turns.append(turn())
                time.sleep(0.001)  # what a batch takes
            print(f"{n_devices:,} devices, minute {minute}: the turn with the snapshot {first * 1e3:.1f} ms")
        began = time.perf_counter()
        keeper.finish(pipeline)
        end_s = time.perf_counter() - began
        content = (Path(name) / CHECKPOINT).read_bytes()
        began = time.perf_counter()
        fresh = Pipeline(config, on_alert=alerts.append)
        fresh.restore(decode(content, fresh.snapshot()))
        load_s = time.perf_counter() - began
        print(
            f"{n_devices:,} devices, {len(alerts):,} alerts and reviews: longest turn {max(turns) * 1e3:.1f} ms of "
            f"{len(turns)}, an alert {take_s * 1e6:.0f} us, the end {end_s:.2f} s, loading {load_s:.2f} s; "
            f"checkpoint {len(content) / 1e6:.1f} MB, database {(Path(name) / DATABASE).stat().st_size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    warm_up(Config())
    for n in [int(argument) for argument in sys.argv[1:]] or [1000]:
        measure(n)
