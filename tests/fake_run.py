"""A capture source and a pipeline that do what a test wants: the command line is tested without packets."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from alert_examples import CAMERA_ALERT

from sensor.capture.capfile import CaptureCounts
from sensor.capture.frames import FRAME_DTYPE, FrameBatch
from sensor.errors import CaptureError
from sensor.events.types import EVENT_DTYPE, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sensor.alerts.record import Alert


@dataclass
class FakeRun:
    """What a run does: one alert per batch, as long as there are any; a problem; windows."""

    n_batches: int = 2
    frames_per_batch: int = 3
    alerts: list[Alert] = field(default_factory=lambda: [CAMERA_ALERT])
    problems: list[str] = field(default_factory=list)
    windows: list[dict[str, list[Any]]] = field(default_factory=list)
    before_batch: Callable[[int], None] = lambda _: None
    on_feed: Callable[[int], None] = lambda _: None
    stats: dict[str, Any] = field(default_factory=dict)
    # What was asked of it.
    paths: tuple[str, ...] = ()
    config: Any = None
    artifact: Any = None
    is_finished: bool = False
    is_closed: bool = False

    def install(self) -> dict[str, types.ModuleType]:
        """Return modules to be put in the place of the real ones."""
        merge = types.ModuleType("sensor.capture.merge")
        merge.open_captures = self._open  # type: ignore[attr-defined]
        pipeline = types.ModuleType("sensor.pipeline")
        pipeline.Pipeline = self._pipeline  # type: ignore[attr-defined]
        pipeline.memory_plan = lambda _: {"flows": 3 << 20, "devices": 5 << 20}  # type: ignore[attr-defined]
        return {"sensor.capture.merge": merge, "sensor.pipeline": pipeline}

    def _open(self, paths: tuple[str, ...], *, on_problem: Callable[[CaptureError], None]) -> _FakeCaptures:
        self.paths = tuple(paths)
        return _FakeCaptures(self, on_problem)

    def _pipeline(self, config: Any, **callbacks: Any) -> _FakePipeline:
        self.config = config
        return _FakePipeline(self, **callbacks)


class _FakeCaptures:
    bytes_total = 600

    def __init__(self, run: FakeRun, on_problem: Callable[[CaptureError], None]) -> None:
        self.bytes_read = 0
        self.counts = CaptureCounts()
        self._run = run
        self._on_problem = on_problem

    def __iter__(self) -> Iterator[FrameBatch]:
        for problem in self._run.problems:
            self._on_problem(CaptureError(problem))
        for number in range(self._run.n_batches):
            self._run.before_batch(number)
            self.bytes_read += 300
            yield FrameBatch(np.zeros(60, np.uint8), np.zeros(self._run.frames_per_batch, FRAME_DTYPE))

    def close(self) -> None:
        self._run.is_closed = True


class _FakePipeline:
    def __init__(
        self,
        run: FakeRun,
        *,
        on_alert: Callable[[Alert], None],
        on_events: Callable[[Any, Any], None] | None,
        on_window: Callable[[dict[str, list[Any]]], None] | None,
        artifact: Any = None,
    ) -> None:
        self._run = run
        run.artifact = artifact
        self._on_alert = on_alert
        self._on_events = on_events
        self._on_window = on_window
        self._n_batches = 0
        self._packets = 0

    def feed(self, batch: FrameBatch) -> None:
        self._packets += len(batch.frames)
        for alert in self._run.alerts[self._n_batches : self._n_batches + 1]:
            self._on_alert(alert)
        for window in self._run.windows[self._n_batches : self._n_batches + 1]:
            if self._on_window is not None:
                self._on_window(window)
        if self._on_events is not None:
            events = np.zeros(1, EVENT_DTYPE)
            events["kind"] = EventKind.ARP
            self._on_events(events, np.zeros(0, np.uint8))
        self._n_batches += 1
        self._run.on_feed(self._n_batches)

    def finish(self) -> None:
        self._run.is_finished = True

    def device_table(self) -> dict[str, list[Any]]:
        return {"key": ["44:19:b6:0a:0b:0c"], "ips": [["192.168.1.23"]], "index": [0.5]}

    def stats(self) -> dict[str, Any]:
        totals = {
            "packets": self._packets,
            "bytes": 100 * self._packets,
            "first_ts": "2026-11-23T14:50:10.000000+0000",
            "last_ts": "2026-11-23T14:53:22.000000+0000",
            "smtp_flows": 31,
            "elsewhere_connections": 0,
            "elsewhere_sender": None,
            "smtp_commands": 90,
            "smtp_replies": 120,
            "dns_queries": 40,
            "mx_queries": 40,
            "devices": 1,
            "alerts": 1,
            "weirds": {"tcp_gap": 2},
            "evictions": {},
            "frames": {"mail": self._packets},
            "mail_syns": 31,
        }
        return totals | self._run.stats


def install_for_good(run: FakeRun) -> None:
    """Replace the real modules in a process of its own."""
    sys.modules.update(run.install())
