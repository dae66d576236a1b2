"""Where alert records go: a stream, or a file that is appended to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TextIO

from sensor.alerts.formats import alert_json
from sensor.errors import ConfigError, SensorError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sensor.alerts.record import Alert


class SinkStats(NamedTuple):
    """What became of the alerts of one sink.

    ``sent``: taken by the receiver, as far as its protocol tells; ``lost``: for good; ``queued``: waiting;
    ``reconnects``: how often the receiver has come back; ``is_up``: whether it was there when last tried.
    """

    name: str
    sent: int
    lost: int
    queued: int = 0
    reconnects: int = 0
    is_up: bool = True


class Sink(Protocol):
    """Takes alerts, one by one, in the order of their decision."""

    def emit(self, alert: Alert) -> None:
        """Pass one alert on."""

    def stats(self) -> SinkStats:
        """Return what became of the alerts so far."""

    def close(self) -> None:
        """Release what the sink holds; SensorError, in one line, if alerts were lost on the way."""


class StreamSink:
    """Writes alerts to a text stream, one after the other, each at once.

    An error of the stream passes through: whoever reads standard output decides how long the run goes on.
    """

    def __init__(self, stream: TextIO, encode: Callable[[Alert], str]) -> None:
        self._stream = stream
        self._encode = encode
        self._n_sent = 0

    def emit(self, alert: Alert) -> None:
        """Write one alert and a line's end, and flush."""
        self._stream.write(f"{self._encode(alert)}\n")
        self._stream.flush()
        self._n_sent += 1

    def stats(self) -> SinkStats:
        """Return what became of the alerts so far."""
        return SinkStats("stdout", self._n_sent, 0)

    def close(self) -> None:
        """Leave the stream open: it was open before."""


def _json_line(alert: Alert) -> bytes:
    return alert_json(alert) + b"\n"


class FileSink:
    """Appends alerts to a file, each with one write, so that they stay whole; ``encode`` includes the line's end.

    An alert that cannot be written is lost, counted and reported at the end; the run goes on. ConfigError if
    the file cannot be opened.
    """

    def __init__(self, path: Path, encode: Callable[[Alert], bytes] = _json_line) -> None:
        self._path = path
        self._encode = encode
        self._n_sent = 0
        self._n_lost = 0
        self._reason: str | None = None
        try:
            self._fd = self._open()
        except OSError as error:
            raise ConfigError(f"{self._name}: cannot append alerts: {error.strerror}") from None

    @property
    def _name(self) -> str:
        return visible(str(self._path))

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def emit(self, alert: Alert) -> None:
        """Append one alert."""
        content = self._encode(alert)
        try:
            written = os.write(self._fd, content)
        except OSError as error:
            self._n_lost += 1
            self._reason = error.strerror
            return
        if written < len(content):
            self._n_lost += 1
            self._reason = "written in part only"
        else:
            self._n_sent += 1

    def reopen(self) -> None:
        """Open the file of that name, after the one we write to was moved away.

        SensorError if it cannot be opened; then we go on with the one that we have.
        """
        try:
            fd = self._open()
        except OSError as error:
            raise SensorError(
                f"{self._name}: cannot be opened anew: {error.strerror}; alerts go where they went before"
            ) from None
        os.close(self._fd)
        self._fd = fd

    def stats(self) -> SinkStats:
        """Return what became of the alerts so far."""
        return SinkStats(f"file {self._name}", self._n_sent, self._n_lost)

    def close(self) -> None:
        """Close the file; SensorError names how many alerts were lost, and why."""
        os.close(self._fd)
        if self._n_lost:
            raise SensorError(f"{self._name}: {self._n_lost} alerts could not be appended: {self._reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
