"""Receivers of alerts on the loopback interface, and the certificates that they show."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Self

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE_S = 60.0


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for a condition; the test fails if it does not come true."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.002)


class Certificates:
    """An authority, and certificates for 127.0.0.1: a good one, and all kinds of wrong ones. Made once."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self.servers = {
            "good": authority.issue_cert("127.0.0.1", "localhost"),
            "other name": authority.issue_cert("192.0.2.1", "loghost.example.com"),
            "expired": authority.issue_cert("127.0.0.1", not_after=past, not_before=past),
            "other authority": trustme.CA().issue_cert("127.0.0.1"),
        }
        self.client_file, self.client_key_file = directory / "client.pem", directory / "client-key.pem"
        client = authority.issue_cert("sensor.example.com")
        client.cert_chain_pems[0].write_to_path(self.client_file)
        client.private_key_pem.write_to_path(self.client_key_file)
        self._authority = authority

    def server_context(self, kind: str = "good", *, demands_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.servers[kind].configure_cert(context)
        if demands_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self._authority.configure_trust(context)
        return context


class TcpReceiver:
    """Takes connections one after the other, and notes what comes: ``received``, bytes of each connection.

    ``stop`` breaks the connection and frees the port; ``start`` takes the same port again.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, reads: bool = True) -> None:
        self._context = context
        self._reads = reads
        self.port = 0
        self.received: list[bytearray] = []
        self.start()

    def start(self) -> None:
        self._is_stopped = False
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self._listener.settimeout(0.02)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            while not self._is_stopped:
                with contextlib.suppress(
                    OSError
                ):  # nobody came; or TLS failed, which is what some tests want
                    connection, _ = self._listener.accept()
                    with connection:
                        self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.settimeout(1.0)
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            connection.settimeout(0.02)
            self.received.append(bytearray())
            while not self._is_stopped:
                if not self._reads:
                    time.sleep(0.005)
                    continue
                with contextlib.suppress(TimeoutError):
                    if not (chunk := connection.recv(65536)):
                        return
                    self.received[-1] += chunk

    def messages(self) -> list[bytes]:
        """The messages that have come as a whole, of all connections: RFC 6587 section 3.4.1."""
        return [message for stream in self.received for message in unframed(bytes(stream))[0]]

    def stop(self) -> None:
        self._is_stopped = True
        self._thread.join(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def unframed(stream: bytes) -> tuple[list[bytes], bytes]:
    """Split ``MSG-LEN SP SYSLOG-MSG ...`` into whole messages and the rest."""
    messages = []
    while (space := stream.find(b" ")) > 0:
        size = int(stream[:space])
        assert stream[:1] != b"0"
        if len(stream) < space + 1 + size:
            break
        messages.append(stream[space + 1 : space + 1 + size])
        stream = stream[space + 1 + size :]
    return messages, stream
