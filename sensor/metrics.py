"""Metrics for Prometheus: the totals of a live run in its text format, and the small HTTP server that hands them out.

The run publishes its totals each second or so; the server's one thread turns the latest into text when it is asked,
and never looks at a table that kernels write. It serves one client after the other, each for CLIENT_S seconds and
MAX_REQUEST_BYTES at most, and knows no more of HTTP than that takes.

Text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sensor
from sensor.errors import ConfigError
from sensor.notation import endpoint_text, printable, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Time for one client, from its connection to its last byte.
CLIENT_S: Final = 2.0
MAX_REQUEST_BYTES: Final = 8192
#: A run that has not published for so long hangs.
HUNG_S: Final = 30.0
_BACKLOG: Final = 16

Labels = tuple[tuple[str, str], ...]
_NONE: Final[Labels] = ()


class Snapshot(NamedTuple):
    """What a run publishes. ``totals``: the keys of ``--stats`` of a live run, never changed after.

    Times are of ``time.monotonic``, in seconds; ``last_packet_s``: None before the first.
    """

    totals: Mapping[str, Any]
    faults: Mapping[str, bool]  # of the mirror
    reloads: Mapping[str, int]  # by result
    published_s: float
    started_s: float
    last_packet_s: float | None


class Family(NamedTuple):
    """A metric with its samples: labels and value."""

    name: str
    kind: str  # "counter" or "gauge"
    help: str
    samples: Iterable[tuple[Labels, float]]


def _one(name: str, kind: str, text: str, value: float) -> Family:
    return Family(name, kind, text, [(_NONE, value)])


def _by(name: str, kind: str, text: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, kind, text, [(((label, key),), value) for key, value in values.items()])


def families(snapshot: Snapshot, now_s: float) -> Iterator[Family]:
    """Yield all metrics, as of ``now_s`` by ``time.monotonic``."""
    versions = (("version", sensor.__version__), ("python", platform.python_version()))
    yield Family("spamsensor_build_info", "gauge", "The program's version.", [(versions, 1)])
    model = (("model", snapshot.totals["model"]),)
    yield Family("spamsensor_model_info", "gauge", "What judges.", [(model, 1)])
    yield _one("spamsensor_uptime_seconds", "gauge", "Time since capture began.", now_s - snapshot.started_s)
    yield from _of_capture(snapshot, now_s)
    yield from _of_decoding(snapshot.totals)
    yield from _of_judging(snapshot.totals)
    yield _by("spamsensor_config_reloads_total", "counter", "Reloads by SIGHUP.", "result", snapshot.reloads)
    yield from _of_sinks(snapshot.totals["sinks"])
    yield from _of_process(snapshot.totals)


def _of_capture(snapshot: Snapshot, now_s: float) -> Iterator[Family]:
    totals = snapshot.totals
    for name, key, text in (
        ("packets_received", "packets", "Packets that were read from the ring."),
        ("bytes_received", "bytes", "Bytes of these on the wire."),
        ("capture_packets", "kernel_packets", "Packets that passed the kernel's filter."),
        ("capture_dropped", "kernel_drops", "Of these, packets that found no room in the ring."),
        ("capture_ring_freezes", "ring_freezes", "Times that the ring was full."),
        ("capture_filter_switches", "filter_switches", "Changes between everything and mail only."),
    ):
        yield _one(f"spamsensor_{name}_total", "counter", text, totals[key])
    yield _one(
        "spamsensor_capture_ring_use_ratio", "gauge", "Share of the ring that waits.", totals["ring_use"]
    )
    yield _one(
        "spamsensor_capture_mail_only",
        "gauge",
        "1: only mail, DNS, identity traffic and tunnels are captured.",
        totals["filter_state"] == "mail",
    )
    is_up = {name: state == "up" for name, state in totals["interfaces"].items()}
    yield _by("spamsensor_interface_up", "gauge", "1: packets can come.", "interface", is_up)
    if snapshot.last_packet_s is not None:
        age_s = max(0.0, now_s - snapshot.last_packet_s)
        yield _one("spamsensor_last_packet_age_seconds", "gauge", "Time since the last packet.", age_s)
    yield _by("spamsensor_mirror_fault", "gauge", "1: missing on the mirror.", "missing", snapshot.faults)


def _of_decoding(totals: Mapping[str, Any]) -> Iterator[Family]:
    yield _by("spamsensor_frames_total", "counter", "What became of each frame.", "status", totals["frames"])
    yield _by("spamsensor_weirds_total", "counter", "Oddities of protocols.", "kind", totals["weirds"])
    for name, key, text in (
        ("mail_connections", "smtp_flows", "Mail connections."),
        ("dns_queries", "dns_queries", "DNS queries."),
        ("dns_responses", "dns_responses", "DNS responses."),
        ("mx_queries", "mx_queries", "Queries for mail exchanges."),
    ):
        yield _one(f"spamsensor_{name}_total", "counter", text, totals[key])
    used = {name: table["used"] for name, table in totals["tables"].items()}
    rows = {name: table["rows"] for name, table in totals["tables"].items()}
    yield _by("spamsensor_table_used_rows", "gauge", "Rows in use.", "table", used)
    yield _by("spamsensor_table_rows", "gauge", "Rows that there are.", "table", rows)
    yield _by(
        "spamsensor_evictions_total",
        "counter",
        "Rows that made room in a full table.",
        "table",
        {f"{name}s": n for name, n in totals["evictions"].items()},
    )


def _of_judging(totals: Mapping[str, Any]) -> Iterator[Family]:
    yield _one("spamsensor_devices", "gauge", "Devices that are watched.", totals["devices"])
    yield _one("spamsensor_alerts_total", "counter", "Alerts that have started.", totals["alerts"])
    yield _one("spamsensor_reviews_total", "counter", "Devices put up for review.", totals["reviews"])
    yield _by("spamsensor_open_alerts", "gauge", "Alerts that are open.", "severity", totals["open_alerts"])
    if (age_s := totals.get("checkpoint_age_seconds")) is not None:  # only where state is kept
        yield _one("spamsensor_checkpoint_age_seconds", "gauge", "Time since the last checkpoint.", age_s)


def _of_sinks(sinks: Iterable[Mapping[str, Any]]) -> Iterator[Family]:
    named: dict[str, Mapping[str, Any]] = {}
    for sink in sinks:
        name, n = sink["name"], 2
        while name in named:  # two receivers on one server
            name, n = f"{sink['name']} #{n}", n + 1
        named[name] = sink
    for metric, kind, key, text in (
        ("sink_sent_total", "counter", "sent", "Alerts that the receiver took."),
        ("sink_lost_total", "counter", "lost", "Alerts that were lost for good."),
        ("sink_queued", "gauge", "queued", "Alerts that wait."),
        ("sink_reconnects_total", "counter", "reconnects", "Times that the receiver came back."),
        ("sink_up", "gauge", "is_up", "1: it was there when last tried."),
    ):
        values = {name: sink[key] for name, sink in named.items()}
        yield _by(f"spamsensor_{metric}", kind, text, "sink", values)


def _of_process(totals: Mapping[str, Any]) -> Iterator[Family]:
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    yield _one("process_cpu_seconds_total", "counter", "User and system time.", cpu.ru_utime + cpu.ru_stime)
    if (resident := _resident_bytes()) is not None:
        yield _one("process_resident_memory_bytes", "gauge", "Memory in use.", resident)
    yield _one(
        "spamsensor_peak_memory_bytes", "gauge", "The most memory in use so far.", totals["peak_rss_bytes"]
    )


def _resident_bytes() -> int | None:
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 256).split()[1]) * resource.getpagesize()
        finally:
            os.close(fd)
    return None


def render(all_families: Iterable[Family]) -> bytes:
    """Write metrics in the text format."""
    lines = []
    for family in all_families:
        lines.append(f"# HELP {family.name} {family.help}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(
                f"{family.name}{{{inside}}} {_number(value)}" if labels else f"{family.name} {_number(value)}"
            )
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(round(value, 6)) if isinstance(value, float) else str(int(value))


def parse_address(text: str) -> tuple[str, int]:
    """Parse ``127.0.0.1:9477`` or ``[::1]:9477``; ConfigError says what is allowed."""
    host, _, port = text.rpartition(":")
    try:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (":" in bare) != (bare != host) or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError
        return str(ipaddress.ip_address(bare)), int(port)
    except ValueError:
        expected = "expected an address and a port, such as 127.0.0.1:9477 or [::1]:9477"
        raise ConfigError(f"--metrics {visible(text)}: {expected}") from None


class MetricsServer:
    """Listens on ``address`` from the start, and answers in a thread from ``start`` on: GET /metrics and /-/healthy.

    ConfigError if the address cannot be had.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener: Final = socket.create_server(address, family=family, backlog=_BACKLOG)
        except OSError as reason:
            why = os.strerror(reason.errno or 0)  # Python's own text repeats the address
            raise ConfigError(f"--metrics {endpoint_text(*address)}: {why}") from None
        self._snapshot: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._is_closing = False

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{endpoint_text(host, port)}/metrics"

    def publish(self, snapshot: Snapshot) -> None:
        """Make this what is handed out."""
        self._snapshot = snapshot

    def start(self) -> None:
        """Answer from now on: in a thread that has the capabilities of this moment."""
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; a client that is being served gets its answer."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread is not None:
            self._thread.join(2 * CLIENT_S)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except ConnectionError:
                continue  # it has gone before we came
            except OSError:
                if self._is_closing:
                    return
                time.sleep(0.1)  # no descriptors left, or such: not our fault, and it may pass
                continue
            with client, contextlib.suppress(OSError):
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        end_s = time.monotonic() + CLIENT_S
        request = _read_request(client, end_s)
        if request is not None:
            _send_all(client, self._response(request), end_s)
            client.shutdown(socket.SHUT_WR)

    def _response(self, request: bytes) -> bytes:
        """Return the answer to a request, of which only the first line counts (RFC 9112 section 3)."""
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"expected HTTP/1.1\n")
        path = target.partition(b"?")[0]
        if path not in (b"/metrics", b"/-/healthy"):
            return _response("404 Not Found", b"there are /metrics and /-/healthy\n")
        if method != b"GET":
            return _response("405 Method Not Allowed", b"expected GET\n", "Allow: GET\r\n")
        snapshot, now_s = self._snapshot, time.monotonic()
        if snapshot is None or (path == b"/-/healthy" and now_s - snapshot.published_s > HUNG_S):
            return _response("503 Service Unavailable", b"not ready, or hung\n")
        if path == b"/-/healthy":
            return _response("200 OK", b"healthy\n")
        return _response("200 OK", render(families(snapshot, now_s)))


def _read_request(client: socket.socket, end_s: float) -> bytes | None:
    """Read up to the end of the header; None if that does not come in time, or not within the bound."""
    request = b""
    while b"\r\n\r\n" not in request:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or len(request) >= MAX_REQUEST_BYTES:
            return None
        client.settimeout(left_s)
        more = client.recv(MAX_REQUEST_BYTES - len(request))
        if not more:
            return None
        request += more
    return request


def _send_all(client: socket.socket, content: bytes, end_s: float) -> None:
    client.settimeout(max(end_s - time.monotonic(), 0.001))
    client.sendall(content)  # the time-out is for all of it


def _response(status: str, body: bytes, fields: str = "") -> bytes:
    header = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
        f"{fields}Connection: close\r\n\r\n"
    )
    return header.encode("ascii") + body
