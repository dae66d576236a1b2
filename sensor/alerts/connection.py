"""What syslog and webhooks share: TLS as the configuration asks for it, and sockets that tell when they are dead."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final, NoReturn

from sensor.errors import ConfigError
from sensor.notation import visible

if TYPE_CHECKING:
    from sensor.config import Syslog, Webhook

#: Time for a receiver to take a connection, or bytes, before it counts as gone.
TIMEOUT_S: Final = 10.0
_HANG_UP_S: Final = 1.0
_READ_BYTES: Final = 4096
_MAX_READS: Final = 16

#: A machine that vanished is noticed within a minute, sending (RFC 5482) or idle (RFC 1122 section 4.2.3.6).
_TCP_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_USER_TIMEOUT", 30_000),  # milliseconds
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
)


def open_tcp(host: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to one of the host's addresses; OSError."""
    connection = socket.create_connection((host, port), timeout_s)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS:
        with contextlib.suppress(AttributeError, OSError):  # a system without it
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def raise_if_gone(connection: socket.socket) -> None:
    """Raise OSError if the other side has closed the connection, or an error is pending; never waits.

    What it says is read and forgotten, so that closing does not reset the connection (RFC 2525 section 2.17). An
    empty datagram is no end.
    """
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    try:
        for _ in range(_MAX_READS):
            if not connection.recv(_READ_BYTES) and connection.type == socket.SOCK_STREAM:
                raise ConnectionResetError("closed by the receiver")
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass  # nothing to read
    finally:
        connection.settimeout(timeout_s)


def hang_up(connection: socket.socket) -> None:
    """Close a stream so that the other side gets all that was sent, and waits no longer than a second for that."""
    with contextlib.suppress(OSError):
        connection.settimeout(_HANG_UP_S)
        if isinstance(connection, ssl.SSLSocket):
            connection = connection.unwrap()  # close_notify: RFC 5425 section 4.4
        connection.shutdown(socket.SHUT_WR)
        for _ in range(_MAX_READS):
            if not connection.recv(_READ_BYTES):
                break
    connection.close()


def load_context(tls: Syslog | Webhook, key: str) -> ssl.SSLContext:
    """Read certificates and keys; ConfigError names the setting, in the table ``key``.

    Certificate and name of the receiver are checked; TLS 1.2 or later.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(tls.ca_file)
        except OSError as error:
            raise _wrong(f"{key}.ca_file", tls.ca_file, error, "certificates") from None
    if tls.certificate_file is not None:
        try:
            context.load_cert_chain(tls.certificate_file, tls.key_file, _no_password)
        except OSError as error:
            wrong = _unreadable(tls.certificate_file)
            if wrong is not None or tls.key_file is None:
                raise _wrong(
                    f"{key}.certificate_file",
                    tls.certificate_file,
                    wrong or error,
                    "a certificate and its key",
                ) from None
            raise _wrong(
                f"{key}.key_file", tls.key_file, _unreadable(tls.key_file) or error, "the certificate's key"
            ) from None
    return context


def _no_password() -> NoReturn:
    raise ssl.SSLError("encrypted")  # better than a question on a terminal that nobody sees


def _unreadable(path: str) -> OSError | None:
    try:
        with open(path, "rb"):  # noqa: PTH123 - only to see whether it can be
            return None
    except OSError as error:
        return error


def _wrong(key: str, path: str, error: OSError, what: str) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        return ConfigError(f'{key} = "{visible(path)}": expected {what} in PEM form, not encrypted')
    return ConfigError(f'{key} = "{visible(path)}": {error.strerror}')
