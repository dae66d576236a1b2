"""Where alert records go: a stream, or a file that is appended to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from sensor.alerts.formats import alert_json
from sensor.errors import ConfigError, SensorError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sensor.alerts.record import Alert


class Sink(Protocol):
    """Takes alerts, one by one, in the order of their decision."""

    def emit(self, alert: Alert) -> None:
        """Pass one alert on."""

    def close(self) -> None:
        """Release what the sink holds; SensorError, in one line, if alerts were lost on the way."""


class StreamSink:
    """Writes alerts to a text stream, one after the other, each at once.

    An error of the stream passes through: whoever reads standard output decides how long the run goes on.
    """

    def __init__(self, stream: TextIO, encode: Callable[[Alert], str]) -> None:
        self._stream = stream
        self._encode = encode

    def emit(self, alert: Alert) -> None:
        """Write one alert and a line's end, and flush."""
        self._stream.write(f"{self._encode(alert)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the stream open: it was open before."""


class FileSink:
    """Appends alerts to a file, one JSON object a line, each with one write, so that lines stay whole.

    An alert that cannot be written is lost, counted and reported at the end; the run goes on. ConfigError if
    the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_lost = 0
        self._reason: str | None = None
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"{visible(str(path))}: cannot append alerts: {error.strerror}") from None

    def emit(self, alert: Alert) -> None:
        """Append one alert."""
        line = alert_json(alert) + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self._n_lost += 1
            self._reason = error.strerror
            return
        if written < len(line):
            self._n_lost += 1
            self._reason = "written in part only"

    def close(self) -> None:
        """Close the file; SensorError names how many alerts were lost, and why."""
        os.close(self._fd)
        if self._n_lost:
            name = visible(str(self._path))
            raise SensorError(f"{name}: {self._n_lost} alerts could not be appended: {self._reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
