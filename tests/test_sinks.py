"""The queue before a receiver, and all the sinks of a run together."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from hypothesis import given, settings
from hypothesis import strategies as st
from receivers import TcpReceiver, wait_until

from sensor.alerts import queued as queued_module
from sensor.alerts.destinations import Sinks, Stdout, prepare_transports
from sensor.alerts.formats import alert_json, alert_text
from sensor.alerts.queued import QueuedSink, RefusedError, Timing
from sensor.alerts.record import Alert
from sensor.alerts.sinks import FileSink
from sensor.config import Output, Syslog, SyslogAddress
from sensor.errors import SensorError

if TYPE_CHECKING:
    from pathlib import Path

    from sensor.alerts.record import State

QUICK = Timing(idle_s=0.005, first_pause_s=0.001, longest_pause_s=0.004)


class FakeTransport:
    """A receiver that is there or not, takes or refuses, or holds on until it is told to go on."""

    name = "syslog tcp://loghost:514"

    def __init__(self, *, is_up: bool = True) -> None:
        self.is_up = is_up
        self.refuses: set[str] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_sending = threading.Event()
        self.got: list[tuple[Alert, bool]] = []
        self.n_failures = 0
        self.has_hung_up = False

    def _try(self) -> None:
        if not self.is_up:
            self.n_failures += 1
            raise ConnectionRefusedError(111, "Connection refused")

    def connect(self) -> None:
        self._try()

    def check(self) -> None:
        self._try()

    def send(self, alert: Alert, *, is_repeated: bool) -> None:
        self.is_sending.set()
        self.may_go_on.wait()
        self._try()
        if alert.summary in self.refuses:
            raise RefusedError("answered 400 Bad Request")
        self.got.append((alert, is_repeated))

    def disconnect(self, *, is_failed: bool) -> None:
        self.has_hung_up = not is_failed

    @property
    def summaries(self) -> list[str]:
        return [alert.summary for alert, _ in self.got]


class Opened:
    """A sink before a FakeTransport, and its news."""

    def __init__(self, transport: FakeTransport, capacity: int = 1000, *, may_wait: bool = False) -> None:
        self.news: list[str] = []
        self.sink = QueuedSink(transport, capacity, self.news.append, may_wait=may_wait, timing=QUICK)


def numbered(number: int, state: State = "updated", alert_id: str = "a") -> Alert:
    return make_alert(alert_id=alert_id, state=state, summary=str(number))


# What holds for any course of events.

actions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["started", "updated", "ended"])),
        st.sampled_from(["goes", "comes", "settles"]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(actions, st.sampled_from([1, 2, 3, 1000]))
def test_the_receiver_gets_to_know_what_is_open(course: list[tuple[str, State] | str], capacity: int) -> None:
    transport = FakeTransport()
    sink = Opened(transport, capacity).sink
    still_open: dict[str, str] = {}
    for number, action in enumerate(course):
        if isinstance(action, tuple):
            alert_id, state = action
            still_open.pop(alert_id, None)
            if state != "ended":
                still_open[alert_id] = str(number)
            sink.emit(numbered(number, state, alert_id))
        elif action == "settles":
            wait_until(lambda: not transport.is_up or sink.stats().queued == 0)
        else:
            transport.is_up = action == "comes"
            n_failures = transport.n_failures
            wait_until(lambda n=n_failures: transport.is_up or transport.n_failures > n)
    transport.is_up = True
    wait_until(lambda: sink.stats().is_up and sink.stats().queued == 0)
    stats = sink.stats()
    assert stats.sent + stats.lost == sum(isinstance(action, tuple) for action in course)
    first_time = [alert.summary for alert, is_repeated in transport.got if not is_repeated]
    assert len(first_time) == stats.sent
    assert first_time == sorted(first_time, key=int)
    assert capacity < 1000 or stats.lost == 0
    if stats.lost:
        with pytest.raises(SensorError):
            sink.close()
    else:
        sink.close()
    last: dict[str, str] = {}
    for alert, _ in transport.got:
        assert int(last.get(alert.alert_id, -1)) <= int(alert.summary), "news do not go backwards"
        last[alert.alert_id] = alert.summary
    assert {alert_id: last.get(alert_id) for alert_id in still_open} == still_open


# Examples.


def test_a_receiver_that_hangs_blocks_nobody_and_the_oldest_are_lost() -> None:
    transport = FakeTransport()
    transport.may_go_on.clear()
    sink = Opened(transport, capacity=10).sink
    sink.emit(numbered(0))
    assert transport.is_sending.wait(10)
    for number in range(1, 5001):
        sink.emit(numbered(number))
    assert sink.stats() == (transport.name, 0, 4990, 11, 0, True)
    transport.may_go_on.set()
    wait_until(lambda: sink.stats().queued == 0)
    assert transport.summaries == ["0", *map(str, range(4991, 5001))]  # the latest of them is the open alert
    with pytest.raises(SensorError, match=r"^syslog tcp://loghost:514: 4,990 alerts lost: "):
        sink.close()


def test_open_alerts_are_said_again_after_a_failure_that_nobody_noticed() -> None:
    transport = FakeTransport()
    opened = Opened(transport)
    sink = opened.sink
    sink.emit(numbered(1, "started", "a"))
    sink.emit(numbered(2, "started", "b"))
    sink.emit(numbered(3, "ended", "b"))
    sink.emit(make_alert(event_type="review", alert_id="r", summary="4"))
    wait_until(lambda: sink.stats().sent == 4)
    transport.is_up = False
    wait_until(lambda: not sink.stats().is_up)
    transport.is_up = True
    wait_until(lambda: sink.stats().is_up)
    assert [(a.summary, again) for a, again in transport.got[4:]] == [("1", True)]
    assert sink.stats() == (transport.name, 4, 0, 0, 1, True)
    sink.close()
    assert opened.news == [
        "syslog tcp://loghost:514: Connection refused; up to 1,000 alerts wait until it is back",
        "syslog tcp://loghost:514: back after 0 s, 1 open alert said again",
    ]


def test_remembered_alerts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_module, "MAX_OPEN", 3)
    transport = FakeTransport()
    sink = Opened(transport).sink
    for number in range(5):
        sink.emit(numbered(number, "started", f"device {number}"))
    wait_until(lambda: sink.stats().sent == 5)
    transport.is_up = False
    wait_until(lambda: not sink.stats().is_up)
    transport.is_up = True
    wait_until(lambda: sink.stats().is_up)
    assert transport.summaries[5:] == ["2", "3", "4"]
    sink.close()


def test_what_is_refused_is_lost_and_holds_up_nothing() -> None:
    transport = FakeTransport()
    transport.refuses = {"1", "2"}
    opened = Opened(transport)
    for number in range(4):
        opened.sink.emit(numbered(number))
    wait_until(lambda: opened.sink.stats().queued == 0)
    assert transport.summaries == ["0", "3"]
    with pytest.raises(SensorError, match=r": 2 alerts lost: answered 400 Bad Request$"):
        opened.sink.close()
    assert opened.news == ["syslog tcp://loghost:514: an alert was refused: answered 400 Bad Request"]


def test_closing_delivers_what_waits() -> None:
    transport = FakeTransport()
    transport.may_go_on.clear()
    sink = Opened(transport).sink
    for number in range(50):
        sink.emit(numbered(number))
    sink.begin_close(10.0)
    transport.may_go_on.set()
    sink.close()
    assert transport.summaries == list(map(str, range(50)))
    assert transport.has_hung_up


def test_closing_gives_up_at_its_deadline() -> None:
    transport = FakeTransport()
    transport.may_go_on.clear()
    sink = Opened(transport).sink
    sink.emit(numbered(1))
    sink.emit(numbered(2))
    sink.begin_close(0.01)
    with pytest.raises(SensorError, match=r": 2 alerts lost: not delivered in time$"):
        sink.close()
    assert sink.stats()[1:4] == (0, 2, 0)
    transport.may_go_on.set()


def test_closing_tries_a_receiver_that_is_not_there_once_more() -> None:
    transport = FakeTransport(is_up=False)
    slow = Timing(idle_s=0.005, first_pause_s=60.0, longest_pause_s=60.0)
    news: list[str] = []
    sink = QueuedSink(transport, 10, news.append, timing=slow)
    sink.emit(numbered(1, "started"))
    wait_until(lambda: news)
    transport.is_up = True
    sink.close()
    assert transport.summaries == ["1"]


def test_a_replay_waits_for_a_receiver_that_is_slow() -> None:
    transport = FakeTransport()
    sink = Opened(transport, capacity=1, may_wait=True).sink
    for number in range(200):
        sink.emit(numbered(number))
    sink.close()
    assert transport.summaries == list(map(str, range(200)))


def test_a_replay_does_not_wait_for_a_receiver_that_is_not_there() -> None:
    transport = FakeTransport(is_up=False)
    sink = Opened(transport, capacity=1, may_wait=True).sink
    for number in range(200):
        sink.emit(numbered(number))
    assert sink.stats().lost == 199
    sink.begin_close(0.0)
    with pytest.raises(SensorError, match=r": 200 alerts lost: Connection refused$"):
        sink.close()


# Files.


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "alerts.txt"
    with FileSink(path, lambda alert: f"{alert.summary}\n".encode()) as sink:
        sink.emit(numbered(1))
        path.rename(tmp_path / "alerts.txt.1")
        sink.emit(numbered(2))
        sink.reopen()
        sink.emit(numbered(3))
        assert sink.stats() == (f"file {path}", 3, 0, 0, 0, True)
    assert (tmp_path / "alerts.txt.1").read_text() == "1\n2\n"
    assert path.read_text() == "3\n"


def test_a_file_that_cannot_be_opened_anew_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with FileSink(path) as sink:
        path.rename(tmp_path / "alerts.jsonl.1")
        path.mkdir()
        with pytest.raises(SensorError, match=r"cannot be opened anew: Is a directory; alerts go where"):
            sink.reopen()
        sink.emit(CAMERA_ALERT)
    assert (tmp_path / "alerts.jsonl.1").read_bytes() == alert_json(CAMERA_ALERT) + b"\n"


# All together.


@pytest.mark.parametrize("is_up", [True, False])
def test_a_reminder_is_said_once_and_marked(is_up: bool) -> None:
    transport = FakeTransport(is_up=is_up)
    sink = Opened(transport, capacity=1).sink
    for number in range(3):  # more than may wait
        sink.remind(numbered(number, alert_id=str(number)))
    wait_until(lambda: transport.n_failures > 0 or len(transport.got) == 3)
    transport.is_up = True
    wait_until(lambda: len(transport.got) == 3)
    sink.close()
    assert [(alert.summary, is_repeated) for alert, is_repeated in transport.got] == [
        *(("0", True), ("1", True), ("2", True))
    ]
    assert sink.stats().lost == 0


def test_each_sink_has_its_form(tmp_path: Path) -> None:
    path = tmp_path / "alerts.txt"
    stream = io.StringIO()
    with TcpReceiver() as receiver:
        to = SyslogAddress(f"tcp://127.0.0.1:{receiver.port}")
        output = Output(file=str(path), file_format="text", syslog=(Syslog(to=to, format="json"),))
        sinks = Sinks(
            Stdout(stream, "json", has_colour=False), output, prepare_transports(output), may_wait=True
        )
        sinks.emit(CAMERA_ALERT)
        assert sinks.reopen() == []
        assert sinks.close() == []
        assert sinks.close() == []
        wait_until(receiver.messages)
    assert path.read_text() == f"{alert_text(CAMERA_ALERT)}\n\n"
    assert msgspec.json.decode(stream.getvalue(), type=Alert) == CAMERA_ALERT
    (message,) = receiver.messages()
    assert message.endswith(b"] " + alert_json(CAMERA_ALERT))
    assert [(s["name"], s["sent"], s["lost"]) for s in sinks.stats()] == [
        ("stdout", 1, 0),
        (f"file {path}", 1, 0),
        (f"syslog {to}", 1, 0),
    ]
    assert sinks.news() == []


def test_problems_of_all_sinks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with TcpReceiver() as receiver:
        port = receiver.port
    output = Output(file="/dev/full", syslog=(Syslog(to=SyslogAddress(f"tcp://127.0.0.1:{port}")),))
    stdout = Stdout(io.StringIO(), "text", has_colour=False)
    sinks = Sinks(stdout, output, prepare_transports(output), may_wait=False)
    sinks.emit(CAMERA_ALERT)
    monkeypatch.setattr("sensor.alerts.destinations.FLUSH_S", 0.2)
    assert [str(problem) for problem in sinks.close()] == [
        "/dev/full: 1 alerts could not be appended: No space left on device",
        f"syslog tcp://127.0.0.1:{port}: 1 alert lost: Connection refused",
    ]
    assert len(sinks.news()) == 1
    assert sinks.news() == []
