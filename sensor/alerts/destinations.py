"""All the sinks of a run: prepared while there are privileges to read keys with, opened once these are gone."""

# ruff: noqa: PLC0415 - TLS and HTTP are imported only where the configuration asks for them

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sensor.alerts.formats import alert_json, alert_line, alert_text
from sensor.alerts.queued import FLUSH_S, QueuedSink
from sensor.alerts.sinks import FileSink, StreamSink
from sensor.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TextIO

    from sensor.alerts.queued import Transport
    from sensor.alerts.record import Alert
    from sensor.alerts.sinks import Sink
    from sensor.config import Output, Syslog

_MAX_NEWS: Final = 64


def prepare_transports(output: Output) -> list[Transport]:
    """Read all secrets, keys and certificates that the receivers need; ConfigError names the setting.

    Nothing is connected or looked up yet.
    """
    transports: list[Transport] = []
    if output.syslog:
        transports += [_syslog(syslog, f"output.syslog[{row}]") for row, syslog in enumerate(output.syslog)]
    if output.webhook:
        from sensor.alerts.connection import load_context
        from sensor.alerts.webhook import WebhookTransport, read_secret

        for row, hook in enumerate(output.webhook):
            key = f"output.webhook[{row}]"
            secret = None if hook.secret_file is None else read_secret(hook.secret_file, f"{key}.secret_file")
            context = load_context(hook, key) if hook.url.scheme == "https" else None
            transports.append(WebhookTransport(hook.url, secret, context, hook.timeout_s))
    if transports:
        import encodings.idna  # noqa: F401 - what looking names up imports; the thread may not be allowed to read it
    return transports


def _syslog(syslog: Syslog, key: str) -> Transport:
    from sensor.alerts.connection import load_context
    from sensor.alerts.syslog import DatagramTransport, MessageForm, StreamTransport

    encode = alert_json if syslog.format == "json" else _encoded_line
    form = MessageForm.of_this_process(syslog.facility, syslog.enterprise, encode)
    if syslog.to.scheme in ("udp", "unix"):
        return DatagramTransport(syslog.to, form, syslog.max_bytes)
    return StreamTransport(syslog.to, form, load_context(syslog, key) if syslog.to.scheme == "tls" else None)


class Stdout(NamedTuple):
    """Standard output, and the form of the alerts there."""

    stream: TextIO
    form: Literal["text", "json"]
    has_colour: bool


class Sinks:
    """Standard output, the file and all receivers. ConfigError if the file cannot be opened.

    Starts the receivers' threads: privileges have to be dropped before. ``may_wait``: see QueuedSink.
    """

    def __init__(
        self, stdout: Stdout, output: Output, transports: list[Transport], *, may_wait: bool
    ) -> None:
        self._news: deque[str] = deque(maxlen=_MAX_NEWS)
        self._files: list[FileSink] = []
        if output.file is not None:
            path = Path(output.file)
            self._files.append(
                FileSink(path, _encoded_text) if output.file_format == "text" else FileSink(path)
            )
        self._queued = [
            QueuedSink(transport, output.queue, self._news.append, may_wait=may_wait)
            for transport in transports
        ]
        self._stdout = _stdout_sink(stdout)
        self._all: list[Sink] = [self._stdout, *self._files, *self._queued]
        self._is_closed = False

    def emit(self, alert: Alert) -> None:
        """Pass an alert to all sinks."""
        for sink in self._all:
            sink.emit(alert)

    def remind(self, alert: Alert) -> None:
        """Say an alert again that was open when the sensor ended: to all but the file, which has it."""
        self._stdout.emit(alert)
        for queued in self._queued:
            queued.remind(alert)

    def reopen(self) -> list[SensorError]:
        """Open files anew after their rotation; return what went wrong."""
        return _problems_of([file.reopen for file in self._files])

    def news(self) -> list[str]:
        """Return what is to be said of receivers that went or came back, once."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def stats(self) -> list[dict[str, str | int | bool]]:
        """Return what became of the alerts, by sink; see SinkStats."""
        return [sink.stats()._asdict() for sink in self._all]

    def close(self, *, is_hurried: bool = False) -> list[SensorError]:
        """Deliver what waits, in ``FLUSH_S`` seconds for all together, or not; return what was lost, once."""
        if self._is_closed:
            return []
        self._is_closed = True
        for queued in self._queued:
            queued.begin_close(0.0 if is_hurried else FLUSH_S)
        return _problems_of([sink.close for sink in self._all])


def _problems_of(calls: list[Callable[[], None]]) -> list[SensorError]:
    problems = []
    for call in calls:
        try:
            call()
        except SensorError as problem:
            problems.append(problem)
    return problems


def _stdout_sink(stdout: Stdout) -> StreamSink:
    if stdout.form == "json":
        return StreamSink(stdout.stream, lambda alert: alert_json(alert).decode())
    return StreamSink(stdout.stream, lambda alert: f"{alert_text(alert, colour=stdout.has_colour)}\n")


def _encoded_text(alert: Alert) -> bytes:
    return f"{alert_text(alert)}\n\n".encode()


def _encoded_line(alert: Alert) -> bytes:
    return alert_line(alert).encode()
