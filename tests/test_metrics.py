"""Metrics: the text, read by Prometheus' own parser, and the server, against clients of all kinds."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from test_mirror_health import QUIET

import sensor
from sensor.config import Config
from sensor.errors import ConfigError
from sensor.metrics import (
    CLIENT_S,
    CONTENT_TYPE,
    HUNG_S,
    MAX_REQUEST_BYTES,
    Family,
    MetricsServer,
    Snapshot,
    families,
    parse_address,
    render,
)
from sensor.mirror import MirrorHealth
from sensor.notify import Notifier
from sensor.pipeline import Pipeline
from sensor.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Iterator

SINK = {"sent": 3, "lost": 1, "queued": 2, "reconnects": 0, "is_up": False}
LIVE: dict[str, Any] = {
    "kernel_packets": 9,
    "kernel_drops": 1,
    "ring_freezes": 0,
    "ring_use": 0.25,
    "filter_state": "mail",
    "filter_switches": 1,
    "interfaces": {"eth1": "up", "eth2": "gone"},
    "peak_rss_bytes": 1 << 20,
    "sinks": [{"name": "stdout", **SINK}, {"name": "webhook a", **SINK}, {"name": "webhook a", **SINK}],
}
SMALL = Config()
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def totals() -> dict[str, Any]:
    """What a run counts, before its first packet."""
    return {**Pipeline(SMALL, on_alert=lambda _: None).stats(), **LIVE}


def snapshot_of(totals: dict[str, Any], **more: Any) -> Snapshot:
    now_s = time.monotonic()
    usual = {"faults": MirrorHealth(0.0).faults(), "reloads": {"ok": 1, "refused": 0}, "published_s": now_s}
    return Snapshot(**{"totals": totals, "started_s": now_s - 60, "last_packet_s": None, **usual, **more})


def parsed(text: str) -> dict[Sample, float]:
    """All samples, as Prometheus understands them; a sample may not come twice."""
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def scraped(snapshot: Snapshot) -> dict[Sample, float]:
    return parsed(render(families(snapshot, snapshot.published_s + 1)).decode())


# --- the text ---


def test_what_is_published_is_what_prometheus_reads(totals: dict[str, Any]) -> None:
    totals = totals | {"weirds": {"tcp_gap": 7}, "open_alerts": {"high": 2}}
    found = scraped(snapshot_of(totals, last_packet_s=time.monotonic() - 4))
    assert found["spamsensor_capture_dropped_total", ()] == 1
    assert found["spamsensor_capture_ring_use_ratio", ()] == 0.25
    assert found["spamsensor_capture_mail_only", ()] == 1
    assert found["spamsensor_weirds_total", (("kind", "tcp_gap"),)] == 7
    assert found["spamsensor_open_alerts", (("severity", "high"),)] == 2
    assert found["spamsensor_interface_up", (("interface", "eth2"),)] == 0
    assert found["spamsensor_table_rows", (("table", "flows"),)] == SMALL.tables.flows
    assert found["spamsensor_evictions_total", (("table", "flows"),)] == 0
    assert found["spamsensor_last_packet_age_seconds", ()] == pytest.approx(5, abs=0.5)
    assert found["spamsensor_uptime_seconds", ()] == pytest.approx(61, abs=0.5)
    assert found["spamsensor_model_info", (("model", totals["model"]),)] == 1
    assert found["spamsensor_config_reloads_total", (("result", "ok"),)] == 1
    assert found["spamsensor_mirror_fault", (("missing", "mail_answers"),)] == 0
    assert found["process_resident_memory_bytes", ()] > 1 << 20
    assert found["process_cpu_seconds_total", ()] > 0
    (build,) = [dict(labels) for name, labels in found if name == "spamsensor_build_info"]
    assert build["version"] == sensor.__version__
    sinks = [labels[0][1] for name, labels in found if name == "spamsensor_sink_up"]
    assert sinks == ["stdout", "webhook a", "webhook a #2"]


def test_what_there_is_not_is_absent(totals: dict[str, Any]) -> None:
    found = scraped(snapshot_of(totals))
    assert ("spamsensor_last_packet_age_seconds", ()) not in found
    assert ("spamsensor_checkpoint_age_seconds", ()) not in found
    found = scraped(snapshot_of(totals | {"checkpoint_age_seconds": 12.5}))
    assert found["spamsensor_checkpoint_age_seconds", ()] == 12.5


def test_every_metric_is_documented_and_named_as_prometheus_wants(totals: dict[str, Any]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
    table = page.partition("## Metrics")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"`((?:spamsensor|process)_\w+)(?:\{([\w,]+)\})?`", table))
    named = set()
    snapshot = snapshot_of(totals | {"checkpoint_age_seconds": 1}, last_packet_s=0.0)
    for family in families(snapshot, time.monotonic()):
        named.add(family.name)
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        for labels, _ in family.samples:
            assert documented[family.name] == ",".join(key for key, _ in labels), family.name
    assert named == set(documented)


@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_any_label_and_number_is_read_back(label: str, number: float) -> None:
    text = render([Family("a_total", "counter", "What.", [((("name", label),), number)])]).decode()
    assert text.isascii()
    ((name, labels), value), *rest = parsed(text).items()
    assert (name, rest) == ("a_total", [])
    assert value == pytest.approx(number, abs=1e-6)
    if label.isascii() and label.isprintable():
        assert labels == (("name", label),)


def test_a_publication_is_cheap(totals: dict[str, Any]) -> None:
    pipeline = Pipeline(SMALL, on_alert=lambda _: None)
    took_s = []
    for _ in range(20):
        started_s = time.perf_counter()
        pipeline.stats()
        took_s.append(time.perf_counter() - started_s)
    assert min(took_s) < 0.001
    assert set(pipeline.stats()) <= set(totals)


# --- the address ---


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9477", ("127.0.0.1", 9477)),
        ("[::1]:0", ("::1", 0)),
        ("[0::1]:65535", ("::1", 65535)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104 - whoever asks for it
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "9477",
        ":9477",
        "localhost:9477",
        "::1:9477",
        "[127.0.0.1]:1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\u0663",
        "127.0.0.1:+1",
        "[::1]9477",
        "[::1]",
        "1.2.3:4",
        "[::1%lo]x:1",
        "a\x1b:1",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address and a port, such as") as error:
        parse_address(text)
    assert str(error.value).isprintable()


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^--metrics 127.0.0.1:{port}: Address already in use$"):
            MetricsServer(("127.0.0.1", port))


# --- the server ---


@contextlib.contextmanager
def serving(snapshot: Snapshot | None, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    server = MetricsServer((host, 0))
    if snapshot is not None:
        server.publish(snapshot)
    server.start()
    try:
        yield server._listener.getsockname()[:2]
    finally:
        started_s = time.monotonic()
        server.close()
        assert time.monotonic() - started_s < 2 * CLIENT_S
        assert "metrics" not in {thread.name for thread in threading.enumerate()}


def answer_to(address: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as client:
        with contextlib.suppress(OSError):
            client.sendall(request)
        content = b""
        with contextlib.suppress(ConnectionResetError):  # it answered before it had read all
            while more := client.recv(65536):
                content += more
    return content


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_scrape(totals: dict[str, Any], host: str) -> None:
    with serving(snapshot_of(totals), host) as address:
        for _ in range(3):
            connection = http.client.HTTPConnection(*address, timeout=10)
            connection.request("GET", "/metrics?x=1")
            response = connection.getresponse()
            assert (response.status, response.headers["Content-Type"]) == (200, CONTENT_TYPE)
            assert parsed(response.read().decode())["spamsensor_devices", ()] == 0
            connection.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /-/healthy HTTP/1.1", 200),
        (b"GET /metrics HTTP/1.0", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /../etc/passwd HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"HEAD /metrics HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"GET /metrics HTTP/2", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"", 400),
    ],
)
def test_what_is_asked_for_otherwise(totals: dict[str, Any], request_line: bytes, status: int) -> None:
    with serving(snapshot_of(totals)) as address:
        content = answer_to(address, request_line + b"\r\nHost: x\r\n\r\n")
    assert int(content.split(b" ")[1]) == status
    head, _, body = content.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_run_that_hangs_or_has_not_begun_is_not_healthy(totals: dict[str, Any]) -> None:
    request = b"GET /-/healthy HTTP/1.1\r\n\r\n"
    with serving(None) as address:
        assert b" 503 " in answer_to(address, request)
        assert b" 503 " in answer_to(address, b"GET /metrics HTTP/1.1\r\n\r\n")
    old = snapshot_of(totals, published_s=time.monotonic() - HUNG_S - 1)
    with serving(old) as address:
        assert b" 503 " in answer_to(address, request)
        assert b" 200 " in answer_to(address, b"GET /metrics HTTP/1.1\r\n\r\n")


def test_hostile_clients_hold_nobody_up_for_long(
    totals: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.metrics.CLIENT_S", 0.3)
    with serving(snapshot_of(totals)) as address, contextlib.ExitStack() as stack:
        assert answer_to(address, b"x" * (MAX_REQUEST_BYTES + 100)) == b""
        for _ in range(3):  # that say nothing
            stack.enter_context(socket.create_connection(address))
        slow = stack.enter_context(socket.create_connection(address))
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    slow.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        gone = socket.create_connection(address)
        gone.close()
        started_s = time.monotonic()
        assert b" 200 " in answer_to(address, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert time.monotonic() - started_s < 4 * 0.3 + 2
        stop.set()
        dripping.join()


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer_of_http(request_bytes: bytes) -> None:
    server = MetricsServer(("127.0.0.1", 0))
    try:
        assert server._response(request_bytes).startswith(b"HTTP/1.1 ")
    finally:
        server.close()


# --- upkeep ---


def test_a_run_publishes_each_second_and_says_what_the_mirror_lacks(
    totals: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("sensor.upkeep.time.monotonic", lambda: now_s)
    server = MetricsServer(("127.0.0.1", 0))
    said: list[str] = []
    n_asked = 0

    def current() -> dict[str, Any]:
        nonlocal n_asked
        n_asked += 1
        return totals | QUIET

    upkeep = Upkeep("listening on eth1", Notifier(), server, said.append)
    upkeep.begin()
    for _ in range(280):
        upkeep.turn(0, current)
        now_s += 0.25
    with upkeep.reloading():
        pass
    with contextlib.suppress(ConfigError), upkeep.reloading():
        raise ConfigError("bad")
    upkeep.turn(0, current)
    assert n_asked == 71
    assert said == ["no packet on eth1 for 60 s: is the mirror configured?"]
    assert server._snapshot is not None
    assert server._snapshot.faults["packets"]
    assert server._snapshot.reloads == {"ok": 1, "refused": 1}
    assert server._snapshot.last_packet_s is None
    upkeep.turn(5, current)
    now_s += 1
    upkeep.turn(0, current)
    assert server._snapshot.last_packet_s == now_s - 1
    upkeep.end()
    monkeypatch.undo()
    upkeep.close()
