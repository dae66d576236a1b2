"""Syslog: RFC 5424 messages with structured data, over UDP, TCP, TLS and a local socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from sensor.alerts.connection import TIMEOUT_S, hang_up, open_tcp, raise_if_gone
from sensor.notation import printable, visible

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from sensor.alerts.record import Alert
    from sensor.config import SyslogAddress

APP_NAME: Final = "spamsensor"
_NIL: Final = "-"  # RFC 5424 section 6: NILVALUE
_MAX_HOST_NAME: Final = 255
#: RFC 5424 section 6.2.1.
FACILITIES: Final = {
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "authpriv": 10,
    **{f"local{n}": 16 + n for n in range(8)},
}
_SEVERITIES: Final = {"critical": 2, "high": 3, "medium": 4, "low": 5}
_NOTICE: Final = 5
_MAX_ADDRESSES: Final = 3
_MAX_NAME: Final = 64  # of a device, which chooses it: RFC 1035 has labels of up to 63

#: How long an address that was resolved is used for datagrams: no error tells that the receiver has moved.
_RESOLVED_S: Final = 300.0
#: Some close a connection right after they took it: a proxy without its server; in TLS 1.3 also whoever
#: misses a client certificate.
_SETTLE_S: Final = 0.2


class MessageForm(NamedTuple):
    """What all messages to a receiver share. ``enterprise``: a Private Enterprise Number."""

    facility: int
    enterprise: int
    encode: Callable[[Alert], bytes]
    host_name: str
    process_id: str

    @classmethod
    def of_this_process(cls, facility: str, enterprise: int, encode: Callable[[Alert], bytes]) -> MessageForm:
        """Fill in who we are."""
        return cls(
            FACILITIES[facility], enterprise, encode, _host_name(socket.gethostname()), str(os.getpid())
        )


def _host_name(name: str) -> str:
    is_allowed = name.isascii() and name.isprintable() and " " not in name
    return name[:_MAX_HOST_NAME] if name and is_allowed else _NIL


def message_parts(alert: Alert, form: MessageForm, *, is_repeated: bool = False) -> tuple[bytes, bytes]:
    """Encode an alert as (header with structured data, MSG), which a space joins (RFC 5424 section 6).

    MSG has no byte order mark: it is ASCII or JSON, which is UTF-8 anyway, and receivers stumble over one.
    """
    severity = min(_SEVERITIES[alert.severity], 7)
    if alert.state == "ended":
        severity = max(severity, _NOTICE)
    # EVE's form has an offset without a colon; it is always UTC.
    timestamp = f"{alert.timestamp[:-5]}Z"
    message_id = f"{alert.event_type}/{alert.state}"
    data = "".join(
        f' {name}="{_escape(value)}"' for name, value in _parameters(alert, is_repeated=is_repeated)
    )
    head = (
        f"<{form.facility * 8 + severity}>1 {timestamp} {form.host_name} {APP_NAME} {form.process_id} {message_id} "
        f"[{APP_NAME}@{form.enterprise}{data}]"
    )
    return head.encode("ascii"), form.encode(alert)


def _parameters(alert: Alert, *, is_repeated: bool) -> Iterator[tuple[str, str]]:
    device = alert.device
    yield "alert_id", alert.alert_id
    yield "severity", alert.severity
    yield "confidence", f"{alert.confidence:.2f}"
    yield "cause", alert.cause
    yield "channel", alert.channel
    yield "device", device.key
    for address in device.ips[:_MAX_ADDRESSES]:
        yield "ip", address
    if device.hostname is not None:
        yield "hostname", device.hostname[:_MAX_NAME]
    if device.vlan is not None:
        yield "vlan", str(device.vlan)
    yield "role", device.role
    yield "onset", alert.onset
    yield "connections", str(alert.counts.smtp_connections)
    yield "destinations", str(alert.counts.destinations)
    if is_repeated:
        yield "repeated", "true"


def _escape(text: str) -> str:
    r"""Write a PARAM-VALUE: printable ASCII, with ``"``, ``\`` and ``]`` escaped (RFC 5424 section 6.3.3)."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def cut_message(head: bytes, body: bytes, max_bytes: int) -> bytes:
    """Join a message of at most ``max_bytes``; MSG is cut for it, between two characters, the rest never."""
    if len(head) + 1 + len(body) > max_bytes:
        body = body[: max(0, max_bytes - len(head) - 1)].decode("utf-8", "ignore").encode()
    return head + b" " + body


class DatagramTransport:
    """One datagram a message: UDP (RFC 5426) or a local socket. What is sent may get lost without a sign."""

    def __init__(self, address: SyslogAddress, form: MessageForm, max_bytes: int) -> None:
        self.name = f"syslog {visible(str(address))}"
        self._address = address
        self._form = form
        self._max_bytes = max_bytes
        self._socket: socket.socket | None = None
        self._resolved_s = 0.0
        self._n_failures = 0

    def connect(self) -> None:
        """Resolve the name, and prepare a socket."""
        self._resolved_s = time.monotonic()
        self._socket = self._open()

    def _open(self) -> socket.socket:
        if self._address.scheme == "unix":
            return _connected(socket.AF_UNIX, self._address.path)
        found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_DGRAM)
        # Whether somebody listens at the first one shows only when it is sent to; then it is the next one's turn.
        first = self._n_failures % len(found)
        *others, last = found[first:] + found[:first]
        for family, _, _, _, place in others:
            with contextlib.suppress(OSError):  # no way there by IPv6, for instance
                return _connected(family, place)
        return _connected(last[0], last[4])

    def check(self) -> None:
        """Raise what the network said of datagrams sent before: that nobody takes them."""
        assert self._socket is not None  # noqa: S101 - for the type checker: connected before
        raise_if_gone(self._socket)

    def send(self, alert: Alert, *, is_repeated: bool) -> None:
        """Send one datagram."""
        assert self._socket is not None  # noqa: S101 - likewise
        if time.monotonic() - self._resolved_s > _RESOLVED_S:
            self.disconnect(is_failed=False)
            self.connect()
        head, body = message_parts(alert, self._form, is_repeated=is_repeated)
        self._socket.send(cut_message(head, body, self._max_bytes))
        self.check()

    def disconnect(self, *, is_failed: bool) -> None:
        """Close the socket."""
        self._n_failures += is_failed
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(family: int, place: str | tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket:
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    try:
        datagrams.settimeout(TIMEOUT_S)
        datagrams.connect(place)
    except OSError:
        datagrams.close()
        raise
    return datagrams


class StreamTransport:
    """Messages with their length before them (RFC 6587 section 3.4.1, RFC 5425 section 4.3) over TCP or TLS.

    There are no receipts: what is sent just before a connection breaks may be lost without a sign.
    """

    def __init__(
        self,
        address: SyslogAddress,
        form: MessageForm,
        context: ssl.SSLContext | None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.name = f"syslog {visible(str(address))}"
        self._address = address
        self._form = form
        self._context = context
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect, with TLS if there is a context, and see that the receiver stays."""
        connection = open_tcp(self._address.host, self._address.port, self._timeout_s)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_hostname=self._address.host)
            select.select([connection], [], [], _SETTLE_S)
            raise_if_gone(connection)
        except OSError:
            connection.close()
            raise
        self._socket = connection

    def check(self) -> None:
        """Raise if the receiver has closed the connection."""
        assert self._socket is not None  # noqa: S101 - for the type checker: connected before
        raise_if_gone(self._socket)

    def send(self, alert: Alert, *, is_repeated: bool) -> None:
        """Send one message."""
        assert self._socket is not None  # noqa: S101 - likewise
        self.check()
        message = b" ".join(message_parts(alert, self._form, is_repeated=is_repeated))
        self._socket.sendall(b"%d %b" % (len(message), message))

    def disconnect(self, *, is_failed: bool) -> None:
        """Close the connection."""
        if self._socket is None:
            return
        if is_failed:
            self._socket.close()
        else:
            hang_up(self._socket)
        self._socket = None
