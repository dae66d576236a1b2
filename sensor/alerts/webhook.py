"""Webhooks: each alert as JSON in a POST request, signed with a shared secret."""

from __future__ import annotations

import hashlib
import hmac
import http.client
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sensor
from sensor.alerts.connection import open_tcp, raise_if_gone
from sensor.alerts.formats import alert_json
from sensor.alerts.queued import RefusedError
from sensor.errors import ConfigError
from sensor.notation import visible

if TYPE_CHECKING:
    import ssl

    from sensor.alerts.record import Alert
    from sensor.config import WebhookUrl

SIGNATURE_HEADER: Final = "Spamsensor-Signature"
EVENT_HEADER: Final = "Spamsensor-Event"
DELIVERY_HEADER: Final = "Spamsensor-Delivery"
REPEATED_HEADER: Final = "Spamsensor-Repeated"

_MIN_SECRET: Final = 16
_MAX_SECRET: Final = 4096
_MAX_ANSWER: Final = 1 << 16
#: Answers of a server that cannot now: ask again for as long as it takes. RFC 9110 section 15; RFC 6585 section 4.
_LATER: Final = frozenset({408, 425, 429, 502, 503, 504})
#: Other 5xx may be about this one alert, which must not hold up those behind it for ever.
MAX_ATTEMPTS: Final = 8


def signature(secret: bytes, body: bytes) -> str:
    """Return what the receiver has to compare ``SIGNATURE_HEADER`` with: HMAC-SHA256 (RFC 2104) of the body."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def read_secret(path: str, key: str) -> bytes:
    """Read a secret, without a line's end; ConfigError names the setting ``key``."""
    try:
        with Path(path).open("rb") as file:
            secret = file.read(_MAX_SECRET + 3).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise ConfigError(f'{key} = "{visible(path)}": {error.strerror}') from None
    if not _MIN_SECRET <= len(secret) <= _MAX_SECRET:
        raise ConfigError(
            f'{key} = "{visible(path)}": expected a secret of {_MIN_SECRET} to {_MAX_SECRET} bytes'
        )
    return secret


class WebhookTransport:
    """Posts alerts, one at a time, over a connection that is kept as long as the server keeps it.

    ``secret``: None leaves the signature out. Redirections are not followed, proxies not used.
    """

    def __init__(
        self, url: WebhookUrl, secret: bytes | None, context: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        self.name = f"webhook {url.origin}"
        self._url = url
        self._secret = secret
        self._connection = _Connection(url, context, timeout_s)
        self._delivery = ""
        self._n_attempts = 0

    def connect(self) -> None:
        """Do nothing: a connection is made when there is something to post."""

    def check(self) -> None:
        """Let go of a connection that the server has closed, as it may at any time."""
        if self._connection.sock is not None:
            try:
                raise_if_gone(self._connection.sock)
            except OSError:
                self._connection.close()

    def send(self, alert: Alert, *, is_repeated: bool) -> None:
        """Post one alert."""
        body = alert_json(alert)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"spamsensor/{sensor.__version__}",
            EVENT_HEADER: f"{alert.event_type}/{alert.state}",
            DELIVERY_HEADER: hashlib.sha256(body).hexdigest()[:32],
        }
        if is_repeated:
            headers[REPEATED_HEADER] = "true"
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, body)
        status = self._post(body, headers)
        if not 200 <= status < 300:
            self._reject(status, headers[DELIVERY_HEADER])

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        self.check()
        is_kept = self._connection.sock is not None
        try:
            return self._exchange(body, headers)
        except ConnectionError:
            self._connection.close()
            if not is_kept:
                raise
            # The server closed it just when we asked (RFC 9112 section 9.5). To post again is safe: a delivery has a
            # number, by which a receiver that did get it knows it.
            return self._exchange(body, headers)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> int:
        connection = self._connection
        try:
            connection.request("POST", self._url.target, body, headers)
            with connection.getresponse() as response:
                if len(response.read(_MAX_ANSWER)) == _MAX_ANSWER:
                    connection.close()  # rather than read all that there may be
                return response.status
        except http.client.RemoteDisconnected:
            raise ConnectionResetError("closed by the receiver without an answer") from None
        except http.client.HTTPException as error:
            connection.close()
            raise OSError(f"no answer of HTTP: {visible(str(error)) or type(error).__name__}") from None

    def _reject(self, status: int, delivery: str) -> None:
        """Raise what an answer other than success means."""
        answer = f"answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status in _LATER:
            raise OSError(answer)
        if delivery != self._delivery:
            self._delivery, self._n_attempts = delivery, 0
        self._n_attempts += 1
        if status < 500 or self._n_attempts >= MAX_ATTEMPTS:
            raise RefusedError(answer)
        raise OSError(answer)

    def disconnect(self, *, is_failed: bool) -> None:  # noqa: ARG002 - every answer has been read
        """Close the connection."""
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection with or without TLS, whose socket notices that the other side is dead."""

    def __init__(self, url: WebhookUrl, context: ssl.SSLContext | None, timeout_s: float) -> None:
        super().__init__(url.host, url.port, timeout=timeout_s)
        self.default_port = 443 if context is not None else 80  # which the Host header leaves out
        self._context = context
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect; called by ``request``."""
        connection = open_tcp(self.host, self.port, self._timeout_s)
        if self._context is not None:
            try:
                connection = self._context.wrap_socket(connection, server_hostname=self.host)
            except OSError:
                connection.close()
                raise
        self.sock = connection
