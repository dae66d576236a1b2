"""Webhooks: an HTTP server on the loopback interface that answers what a test wants."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from receivers import Certificates, wait_until

from sensor.alerts import webhook as webhook_module
from sensor.alerts.destinations import prepare_transports
from sensor.alerts.queued import QueuedSink, Timing
from sensor.alerts.record import Alert
from sensor.config import Output, Webhook, WebhookUrl
from sensor.errors import ConfigError, SensorError

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

QUICK = Timing(idle_s=0.01, first_pause_s=0.005, longest_pause_s=0.02)
SECRET = b"correct horse battery staple"


class Server:
    """Answers POST requests with ``answers``, one after the other, and the last one from then on."""

    def __init__(self, *answers: int, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.answers = list(answers) or [204]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.n_connections = 0
        self.keeps = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def setup(self) -> None:
                server.n_connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append((self.path, dict(self.headers), body))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                if answer != 204:
                    self.send_header("Content-Length", "5")
                self.end_headers()
                if answer != 204:
                    self.wfile.write(b"hello")
                self.close_connection = not server.keeps

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass  # a client that has gone

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, place = super().get_request()
                if context is not None:
                    with contextlib.suppress(OSError):
                        connection = context.wrap_socket(connection, server_side=True)
                return connection, place

        self._http = Quiet(("127.0.0.1", port), Handler)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alerts(self) -> list[Alert]:
        return [msgspec.json.decode(body, type=Alert) for _, _, body in self.requests]


class Opened:
    """A sink that posts to a server on this machine, and its news."""

    def __init__(self, port: int, scheme: str = "http", capacity: int = 100, **options: Any) -> None:
        url = WebhookUrl(f"{scheme}://127.0.0.1:{port}/hooks/T0?x=1")
        (transport,) = prepare_transports(Output(webhook=(Webhook(url=url, **options),)))
        self.news: list[str] = []
        self.sink = QueuedSink(transport, capacity, self.news.append, timing=QUICK)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def numbered(number: int, **changes: Any) -> Alert:
    return make_alert(summary=str(number), **changes)


def test_alerts_are_posted_and_signed(secret_file: Path) -> None:
    with Server() as server:
        opened = Opened(server.port, secret_file=str(secret_file))
        opened.sink.emit(CAMERA_ALERT)
        opened.sink.emit(make_alert(state="ended"))
        opened.sink.close()
        (path, headers, body), (_, second, _) = server.requests
    assert path == "/hooks/T0?x=1"
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("spamsensor/")
    assert (headers["Spamsensor-Event"], second["Spamsensor-Event"]) == ("alert/started", "alert/ended")
    assert headers["Spamsensor-Delivery"] == hashlib.sha256(body).hexdigest()[:32]
    assert headers["Spamsensor-Delivery"] != second["Spamsensor-Delivery"]
    assert "Spamsensor-Repeated" not in headers
    assert headers["Spamsensor-Signature"] == "sha256=" + hmac.digest(SECRET, body, "sha256").hex()
    assert server.alerts[0] == CAMERA_ALERT
    assert server.n_connections == 1
    assert opened.news == []


def test_the_signature_is_hmac_sha256() -> None:
    # RFC 4231 section 4.3: test case 2.
    assert webhook_module.signature(b"Jefe", b"what do ya want for nothing?") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@pytest.mark.parametrize("answer", [500, 502, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(answer: int) -> None:
    with Server(answer, answer, answer, 200) as server:
        opened = Opened(server.port)
        opened.sink.emit(numbered(1, event_type="review"))
        opened.sink.emit(numbered(2, event_type="review"))
        opened.sink.close()
        assert [alert.summary for alert in server.alerts] == ["1", "1", "1", "1", "2"]
        assert len({headers["Spamsensor-Delivery"] for _, headers, _ in server.requests}) == 2
        assert all("Spamsensor-Signature" not in headers for _, headers, _ in server.requests)
    assert opened.sink.stats()[1:] == (2, 0, 0, 1, True)
    assert opened.news[0].startswith(f"webhook http://127.0.0.1:{server.port}: answered {answer} ")


@pytest.mark.parametrize("answer", [301, 307, 400, 401, 404, 413])
def test_a_refusal_is_final(answer: int) -> None:
    with Server(answer, 200) as server:
        opened = Opened(server.port)
        opened.sink.emit(numbered(1))
        opened.sink.emit(numbered(2))
        with pytest.raises(SensorError, match=rf": 1 alert lost: answered {answer} ") as caught:
            opened.sink.close()
        assert [alert.summary for alert in server.alerts] == ["1", "2"]
        assert {path for path, _, _ in server.requests} == {"/hooks/T0?x=1"}
    for line in (*opened.news, str(caught.value), opened.sink.stats().name):
        assert "T0" not in line, "the path may be a secret"


def test_an_alert_that_the_server_always_stumbles_over_holds_up_nothing() -> None:
    with Server(*[500] * webhook_module.MAX_ATTEMPTS, 200) as server:
        opened = Opened(server.port)
        opened.sink.emit(numbered(1, event_type="review"))
        opened.sink.emit(numbered(2, event_type="review"))
        wait_until(lambda: opened.sink.stats().queued == 0)
        with pytest.raises(SensorError, match=r": 1 alert lost: answered 500 Internal Server Error$"):
            opened.sink.close()
        assert [alert.summary for alert in server.alerts] == ["1"] * webhook_module.MAX_ATTEMPTS + ["2"]


def test_a_server_dies_and_comes_back() -> None:
    server = Server()
    opened = Opened(server.port, capacity=5)
    opened.sink.emit(numbered(1, alert_id="a"))
    wait_until(lambda: opened.sink.stats().sent == 1)
    server.keeps = False
    opened.sink.emit(numbered(2, alert_id="b"))
    wait_until(lambda: opened.sink.stats().sent == 2)
    server.stop()
    for number in range(3, 13):
        opened.sink.emit(numbered(number, alert_id=f"c{number}"))
    wait_until(lambda: opened.news)
    wait_until(lambda: opened.sink.stats()[2:4] == (5, 5))
    with Server(port=server.port) as server:
        with pytest.raises(SensorError, match=r": 5 alerts lost: Connection refused$"):
            opened.sink.close()
        assert [alert.summary for alert in server.alerts] == list(map(str, range(1, 13)))
        again = [headers.get("Spamsensor-Repeated") for _, headers, _ in server.requests]
        assert again == ["true"] * 7 + [None] * 5


def test_a_connection_that_the_server_closed_is_no_failure() -> None:
    with Server() as server:
        server.keeps = False
        opened = Opened(server.port)
        for number in range(5):
            opened.sink.emit(numbered(number))
            wait_until(lambda n=number: opened.sink.stats().sent == n + 1)
        opened.sink.close()
        assert len(server.alerts) == server.n_connections == 5
    assert opened.news == []


def read_request(connection: socket.socket) -> bytes:
    """Return the body of a request."""
    with connection.makefile("rb") as stream:
        head = iter(stream.readline, b"\r\n")
        (length,) = (int(line.split(b":")[1]) for line in head if line.startswith(b"Content-Length:"))
        return stream.read(length)


def test_a_connection_that_is_closed_while_we_post_is_made_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = Opened(server.getsockname()[1])
        opened.sink.emit(numbered(1))
        kept, _ = server.accept()
        with kept:
            read_request(kept)
            kept.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            opened.sink.emit(numbered(2))
            posted = read_request(kept)
        again, _ = server.accept()
        with again:
            assert read_request(again) == posted
            again.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            opened.sink.close()
    assert opened.sink.stats().sent == 2
    assert opened.news == []


@pytest.mark.parametrize(
    "answer", [b"", b"220 mail.example.com\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200]
)
def test_what_is_no_http_is_a_failure(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = Opened(server.getsockname()[1])
        opened.sink.emit(CAMERA_ALERT)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: opened.news)
        opened.sink.begin_close(0.0)
        with pytest.raises(SensorError, match=r": 1 alert lost: "):
            opened.sink.close()
    assert "; up to 100 alerts wait" in opened.news[0]
    assert opened.news[0].isprintable()


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = WebhookUrl(f"http://127.0.0.1:{server.getsockname()[1]}/")
        transport = webhook_module.WebhookTransport(url, None, None, timeout_s=0.05)
        news: list[str] = []
        sink = QueuedSink(transport, 10, news.append, timing=QUICK)
        for number in range(1000):
            sink.emit(numbered(number))
        wait_until(lambda: news)
        assert ": timed out; " in news[0]
        assert sink.stats().lost >= 980
        sink.begin_close(0.0)
        with pytest.raises(SensorError, match=r": 1,000 alerts lost: timed out$"):
            sink.close()


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = Opened(server.getsockname()[1])
        opened.sink.emit(CAMERA_ALERT)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + bytes(1 << 16))
            wait_until(lambda: opened.sink.stats().sent == 1)
        opened.sink.close()


def test_a_good_certificate(certificates: Certificates) -> None:
    with Server(context=certificates.server_context(demands_client=True)) as server:
        opened = Opened(
            server.port,
            "https",
            ca_file=str(certificates.ca_file),
            certificate_file=str(certificates.client_file),
            key_file=str(certificates.client_key_file),
        )
        opened.sink.emit(CAMERA_ALERT)
        opened.sink.close()
        assert server.alerts == [CAMERA_ALERT]


@pytest.mark.parametrize("kind", ["other name", "expired", "other authority"])
def test_a_wrong_certificate_gets_nothing(certificates: Certificates, kind: str) -> None:
    with Server(context=certificates.server_context(kind)) as server:
        opened = Opened(server.port, "https", ca_file=str(certificates.ca_file))
        opened.sink.emit(CAMERA_ALERT)
        wait_until(lambda: opened.news)
        opened.sink.begin_close(0.0)
        with pytest.raises(SensorError, match=r": 1 alert lost: its certificate is refused: "):
            opened.sink.close()
        assert server.requests == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "expected a secret of 16 to 4096 bytes"),
        (b"x" * 15 + b"\r\n", "expected a secret of 16 to 4096 bytes"),
        (b"x" * 5000, "expected a secret of 16 to 4096 bytes"),
    ],
)
def test_a_secret_that_is_none_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Opened(1, secret_file=str(path))
    assert str(caught.value) == f'output.webhook[0].secret_file = "{path}": {reason}'
