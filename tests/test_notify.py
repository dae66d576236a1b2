"""What systemd is told, by a socket that stands for its own."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from sensor.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Manager:
    """The other end: a socket of a path, or an abstract one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def told(self) -> list[list[str]]:
        """Everything that was told, a list of lines for each message."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536, socket.MSG_DONTWAIT).decode().split("\n"))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(
        str(tmp_path / "notify") if request.param == "path" else f"@spamsensor-test-{os.getpid()}"
    )
    yield manager
    manager.close()


def notifier_of(manager: Manager, **more: str) -> Notifier:
    return Notifier.of_environment({"NOTIFY_SOCKET": manager.address, **more})


def test_each_state_is_told(manager: Manager) -> None:
    notifier = notifier_of(manager)
    notifier.ready("listening on eth1")
    notifier.status("3 packets\nREADY=0 \x1b[2J")
    before_us = time.monotonic_ns() // 1000
    with notifier.reloading():
        pass
    with pytest.raises(RuntimeError), notifier.reloading():  # a refusal is over, too
        raise RuntimeError
    notifier.stopping()
    notifier.close()
    notifier.stopping()
    ready, status, reloading, again, *rest = manager.told()
    assert ready == ["READY=1", "STATUS=listening on eth1"]
    assert status == ["STATUS=3 packets\\x0aREADY=0 \\x1b[2J"]
    assert reloading[0] == "RELOADING=1"
    name, _, monotonic_us = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(monotonic_us) <= time.monotonic_ns() // 1000
    assert again == ["READY=1"]
    assert [lines[0] for lines in rest] == ["RELOADING=1", "READY=1", "STOPPING=1"]


def test_the_watchdog_is_told_in_time(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("sensor.notify.time.monotonic", lambda: now_s)
    notifier = notifier_of(manager, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
    told_s = []
    for tick in range(100):
        now_s = 100.0 + tick * 0.25
        notifier.alive()
        told_s += [now_s for message in manager.told() if message == ["WATCHDOG=1"]]
    notifier.close()
    assert told_s == [100.0 + k * 1.5 for k in range(17)]  # half of the time, however often the loop turns


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "often"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}],
)
def test_no_watchdog_is_told_nothing(manager: Manager, environment: dict[str, str]) -> None:
    notifier = notifier_of(manager, **environment)
    for _ in range(3):
        notifier.alive()
    notifier.close()
    assert manager.told() == []


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_to_tell_is_no_error(address: str | None) -> None:
    notifier = Notifier(address, 1.0)
    notifier.ready("")
    notifier.alive()
    notifier.close()


def test_a_manager_that_does_not_read_holds_nothing_up(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.notify._SEND_S", 0.001)
    notifier = notifier_of(manager)
    for _ in range(1200):  # more than a socket's queue holds
        notifier.status("x")
    notifier.close()
    assert 0 < len(manager.told()) < 1200
