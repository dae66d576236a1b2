"""Configuration: typed, with its defaults here; a TOML file holds overrides only.

A file is validated once, at the start. Whatever is wrong becomes one line that names the file, the key, the
value and what is allowed. Settings describe themselves (``settings``), so that messages and
docs/configuration.md cannot drift apart from the types.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_type_hints
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from sensor.errors import ConfigError
from sensor.notation import endpoint_text, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: A configuration larger than this is no configuration (a device, or the wrong file).
MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_QUOTED_VALUE: Final = 60
#: Of DNS, of protocols of the LAN, and of tunnels: see decode/packets.py.
_TAKEN_PORTS: Final = frozenset(
    {53}
    | {67, 68, 137, 138, 546, 547, 1900, 5353}
    | {1701, 2152, 3544, 4754, 4789, 4790, 5247, 6081, 8472, 37008}
)

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAC = re.compile(
    r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}"
)
_LABEL = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)  # RFC 1123 section 2.1, and the underscores in use
_NETWORK_EXAMPLES: Final = "an address or network such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"


# What a setting can name. A place that takes several kinds of name is a base class of those kinds.


class MailServerName:
    """What can stand in ``mail_servers``: a Network or a Mac."""

    __slots__ = ()


class DeviceName:
    """What can stand in an exception's ``device``: a Network, a Mac or a HostName."""

    __slots__ = ()


class DestinationName:
    """What can stand in an exception's ``destination``: a Network or a HostName."""

    __slots__ = ()


class _Value:
    """A parsed value: equal, hashable and shown by its normal form."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == self._text

    def __hash__(self) -> int:
        return hash((type(self), self._text))


class Network(_Value, MailServerName, DeviceName, DestinationName):
    """An address range; one address is a range of its own. ``cidr``: the range, IPv4-mapped IPv6 as IPv4."""

    __slots__ = ("cidr",)

    def __init__(self, text: str) -> None:
        """Parse ``address`` or ``address/prefix_length``; ValueError says what is allowed."""
        try:
            cidr: IPNetwork = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(f"expected {_NETWORK_EXAMPLES}") from None
        if getattr(cidr.network_address, "scope_id", None):
            raise ValueError("expected an address without a zone")
        address, _, prefix = text.strip().partition("/")
        if prefix and ipaddress.ip_address(address) != cidr.network_address:
            raise ValueError(f"expected the network's first address: {cidr}")
        if isinstance(cidr, ipaddress.IPv6Network):
            mapped = cidr.network_address.ipv4_mapped
            if mapped is not None and cidr.prefixlen >= 96:
                cidr = ipaddress.IPv4Network((mapped, cidr.prefixlen - 96))
        single = cidr.num_addresses == 1
        super().__init__(str(cidr.network_address) if single else str(cidr))
        self.cidr: Final = cidr


class Mac(_Value, MailServerName, DeviceName):
    """A MAC address. ``number``: its 48 bits as an integer, as in the event columns."""

    __slots__ = ("number",)

    def __init__(self, text: str) -> None:
        """Parse ``44:19:b6:0a:0b:0c``, ``44-19-B6-0A-0B-0C`` or ``4419.b60a.0b0c``; ValueError otherwise."""
        lowered = text.strip().lower()
        if not _MAC.fullmatch(lowered):
            raise ValueError("expected a MAC address such as 44:19:b6:0a:0b:0c")
        octets = bytes.fromhex(re.sub("[:.-]", "", lowered))
        if octets[0] & 1:
            raise ValueError("expected the MAC address of one device, not a group address")
        super().__init__(octets.hex(":"))
        self.number: Final = int.from_bytes(octets, "big")


class HostName(_Value, DeviceName, DestinationName):
    """A device's host name, or a domain with everything below it; in lower case, without a final dot."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        """Parse letters, digits, ``-`` and ``_`` in labels of up to 63; ValueError says what is allowed."""
        name = text.strip().lower().removesuffix(".")
        if name.startswith("*."):
            raise ValueError(f"expected {name[2:]}, which stands for everything below it too")
        if not name.isascii():
            raise ValueError("expected an internationalised name in its xn-- form")
        labels = name.split(".")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
            raise ValueError("expected a name of letters, digits, '-' and '_' in labels of up to 63")
        super().__init__(name)


class Instant(_Value):
    """A moment. ``ns``: nanoseconds since the Unix epoch."""

    __slots__ = ("ns",)

    def __init__(self, value: date) -> None:
        """Take a TOML date-time, in UTC unless it has an offset, or a date, which lasts to its end in UTC."""
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        else:
            try:
                moment = datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
            except OverflowError:
                raise ValueError("expected a date before 9999-12-31") from None
        self.ns: Final = (moment - _UNIX_EPOCH) // timedelta(microseconds=1) * 1000
        super().__init__(value.isoformat())


_SYSLOG_FORMS: Final = (
    "expected an address such as udp://loghost, tcp://192.0.2.7:601, tls://loghost or unix:/dev/log"
)
_SYSLOG_PORTS: Final = {"udp": 514, "tcp": 514, "tls": 6514}  # RFC 5426, usage, RFC 5425
_MAX_SOCKET_PATH: Final = 107  # unix(7): sun_path, and the zero that ends it


class SyslogAddress(_Value):
    """Where a syslog receiver listens: ``scheme`` with ``host`` and ``port``, or ``unix`` with ``path``."""

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, text: str) -> None:
        """Parse ``udp://host:port``, ``tcp://``, ``tls://`` or ``unix:/path``; ValueError says what is allowed."""
        parts = _split_url(text, _SYSLOG_FORMS)
        self.scheme: Final = parts.scheme
        self.path: Final = parts.path
        self.host: Final = parts.hostname or ""
        if parts.query or parts.fragment:
            raise ValueError(_SYSLOG_FORMS)
        if parts.scheme == "unix":
            if parts.netloc or not parts.path.startswith("/"):
                raise ValueError(_SYSLOG_FORMS)
            if len(parts.path) > _MAX_SOCKET_PATH:
                raise ValueError(f"expected a path of a socket, of at most {_MAX_SOCKET_PATH} bytes")
            self.port = 0
            super().__init__(f"unix:{parts.path}")
            return
        if parts.scheme not in _SYSLOG_PORTS or parts.path not in ("", "/"):
            raise ValueError(_SYSLOG_FORMS)
        _check_host(self.host, _SYSLOG_FORMS)
        self.port = parts.port or _SYSLOG_PORTS[parts.scheme]
        super().__init__(f"{self.scheme}://{endpoint_text(self.host, self.port)}")


_WEBHOOK_FORMS: Final = "expected an address such as https://hooks.example.com/spam"
_WEBHOOK_PORTS: Final = {"http": 80, "https": 443}


class WebhookUrl(_Value):
    """Where alerts are posted to. ``target``: path and query, as they are requested."""

    __slots__ = ("host", "port", "scheme", "target")

    def __init__(self, text: str) -> None:
        """Parse ``https://host:port/path?query`` or ``http://``; ValueError says what is allowed."""
        parts = _split_url(text, _WEBHOOK_FORMS)
        if parts.scheme not in _WEBHOOK_PORTS or parts.fragment:
            raise ValueError(_WEBHOOK_FORMS)
        self.scheme: Final = parts.scheme
        self.host: Final = parts.hostname or ""
        _check_host(self.host, _WEBHOOK_FORMS)
        self.port: Final = parts.port or _WEBHOOK_PORTS[parts.scheme]
        self.target: Final = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        super().__init__(f"{self.origin}{self.target}")

    @property
    def origin(self) -> str:
        """The address without its path, which may hold a secret."""
        return f"{self.scheme}://{endpoint_text(self.host, self.port)}"


def _split_url(text: str, forms: str) -> SplitResult:
    # urlsplit drops some control characters, where an error is better.
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(forms)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # the port, or brackets
        raise ValueError(forms) from None
    if parts.username is not None or port == 0:
        raise ValueError(forms)
    return parts


def _check_host(host: str, forms: str) -> None:
    try:
        if "%" in host:  # a zone: an interface's name, which means nothing to a receiver
            raise ValueError
        if ":" in host or host.rpartition(".")[2].isdigit():
            ipaddress.ip_address(host)
        else:
            HostName(host)
    except ValueError:
        raise ValueError(forms) from None


def _parse_mail_server(text: str) -> MailServerName:
    return Mac(text) if _MAC.fullmatch(text.strip().lower()) else Network(text)


def _parse_destination(text: str) -> DestinationName:
    looks_numeric = ":" in text or "/" in text or text.strip().rpartition(".")[2].isdigit()
    return Network(text) if looks_numeric else HostName(text)


def _parse_device(text: str) -> DeviceName:
    if _MAC.fullmatch(text.strip().lower()):
        return Mac(text)
    parsed = _parse_destination(text)
    assert isinstance(parsed, Network | HostName)  # noqa: S101 - for the type checker: both are device names too
    return parsed


def _decode_value(kind: type, value: Any) -> Any:
    """Turn a TOML value into one of the classes above (msgspec's ``dec_hook``)."""
    if kind is Instant:
        if not isinstance(value, date):
            raise ValueError("expected a date such as 2027-06-30, without quotes")
        return Instant(value)
    if not isinstance(value, str):
        raise ValueError("expected a text in quotes")
    parsers = {
        Network: Network,
        MailServerName: _parse_mail_server,
        DeviceName: _parse_device,
        DestinationName: _parse_destination,
        SyslogAddress: SyslogAddress,
        WebhookUrl: WebhookUrl,
    }
    return parsers[kind](value)


# The settings.

_POWER_OF_TWO: Final = {"power_of_two": True}


def _rows(low: int, high: int, description: str) -> Meta:
    return Meta(ge=low, le=high, description=description, extra=_POWER_OF_TWO)


class Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many rows the fixed tables have. Memory is set here and does not grow with the traffic."""

    flows: Annotated[
        int, _rows(256, 1 << 22, "Mail and DNS-over-TCP connections that can be open at the same time.")
    ] = 32768
    devices: Annotated[int, _rows(256, 1 << 20, "Devices that are watched.")] = 16384
    dns_answers: Annotated[
        int,
        _rows(256, 1 << 22, "DNS answers that are remembered: which device was told which address."),
    ] = 65536
    line_buffers: Annotated[
        int, _rows(64, 1 << 18, "SMTP lines that can wait for their next segment at the same time.")
    ] = 4096
    held_segments: Annotated[
        int, _rows(64, 1 << 16, "TCP segments that came early and can be held at the same time.")
    ] = 1024


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many false alarms are affordable; the alarm threshold follows from it."""

    false_alarms_per_device_year: Annotated[
        float,
        Meta(
            ge=0.001,
            le=10.0,
            description="False alarms that one watched device may cause in a year. Lower means fewer false "
            "alarms and later, or missed, detections.",
        ),
    ] = 0.05


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a connection counts as over, in seconds of packet time."""

    attempt_s: Annotated[
        int, Meta(ge=1, le=3600, description="Seconds after which a connection attempt counts as unanswered.")
    ] = 90
    idle_s: Annotated[
        int,
        Meta(
            ge=10, le=86400, description="Seconds without a packet after which a connection counts as ended."
        ),
    ] = 600


def _path(description: str) -> Meta:
    return Meta(min_length=1, max_length=4096, description=description)


_CaFile = Annotated[
    str,
    _path(
        "PEM file with the certificates that the receiver's has to follow from; not set: those of the system. The "
        "receiver's name is always checked."
    ),
]
_CertificateFile = Annotated[str, _path("PEM file with our certificate, for a receiver that demands one.")]
_KeyFile = Annotated[
    str,
    _path("PEM file with our certificate's key, not encrypted; not set: it is in `certificate_file`."),
]


class Syslog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Syslog receivers (RFC 5424), each with a table of its own. See [outputs.md](outputs.md#syslog)."""

    to: Annotated[
        SyslogAddress,
        Meta(
            description="Where to: `udp://host:port`, `tcp://` with octet counting, `tls://`, or a local socket, "
            "`unix:/dev/log`. Without a port: 514, for TLS 6514."
        ),
    ]
    format: Annotated[
        Literal["text", "json"],
        Meta(description="Form of the message after the structured data: one line of text, or one of JSON."),
    ] = "text"
    facility: Annotated[
        Literal[
            "user",
            "mail",
            "daemon",
            "auth",
            "authpriv",
            "local0",
            "local1",
            "local2",
            "local3",
            "local4",
            "local5",
            "local6",
            "local7",
        ],
        Meta(description="Under which the receiver files it."),
    ] = "local0"
    enterprise: Annotated[
        int,
        Meta(
            ge=1,
            le=2**32 - 1,
            description="Your Private Enterprise Number, for the name of the structured data, `spamsensor@N`. "
            "The default is the number that RFC 5612 reserves for documentation.",
        ),
    ] = 32473
    max_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=65507,
            description="Datagrams, of `udp://` and `unix:`, are cut to this; the structured data stays whole. JSON "
            "needs 4096 or more, and a receiver that takes as much.",
        ),
    ] = 2048
    ca_file: _CaFile | None = None
    certificate_file: _CertificateFile | None = None
    key_file: _KeyFile | None = None


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """HTTP servers to which each alert is posted as JSON. See [outputs.md](outputs.md#webhooks)."""

    url: Annotated[
        WebhookUrl,
        Meta(description="Where to: `https://host/path`, or `http://`. Redirections are not followed."),
    ]
    secret_file: (
        Annotated[
            str,
            _path(
                "A file with the secret that signs each alert, 16 to 4096 bytes; a line's end does not count."
            ),
        ]
        | None
    ) = None
    timeout_s: Annotated[
        int, Meta(ge=1, le=120, description="Seconds after which a server that says nothing is given up.")
    ] = 10
    ca_file: _CaFile | None = None
    certificate_file: _CertificateFile | None = None
    key_file: _KeyFile | None = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where alerts go, and how they look: always to standard output, and to all that is named here."""

    format: Annotated[
        Literal["text", "json"],
        Meta(description="Form of the alerts on standard output. `--format` on the command line wins."),
    ] = "text"
    file: (
        Annotated[
            str,
            _path("A file to which every alert is appended too. SIGHUP reopens it, after it was rotated."),
        ]
        | None
    ) = None
    file_format: Annotated[
        Literal["text", "json"],
        Meta(description="Form of the alerts in `output.file`: json is one object a line."),
    ] = "json"
    queue: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="Alerts that can wait for each syslog receiver and webhook; then the oldest is lost.",
        ),
    ] = 1024
    syslog: Annotated[tuple[Syslog, ...], Meta(max_length=16)] = ()
    webhook: Annotated[tuple[Webhook, ...], Meta(max_length=16)] = ()


class Capture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How `spamsensor watch` captures."""

    method: Annotated[
        Literal["auto", "ring", "scapy"],
        Meta(
            description="Linux's packet ring, or scapy's sniffer, which is slower and has no filter; "
            "auto takes the ring where the system has one."
        ),
    ] = "auto"
    ring_mib: Annotated[
        int,
        Meta(
            ge=2, le=4096, description="MiB of memory in which the kernel leaves packets until they are read."
        ),
    ] = 64
    block_timeout_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Milliseconds after which the kernel hands packets over, however few there are.",
        ),
    ] = 100
    snaplen: Annotated[
        int,
        Meta(ge=64, le=262144, description="Bytes kept of each packet; mail wants them all."),
    ] = 262144
    hardware_timestamps: Annotated[
        bool,
        Meta(
            description="Take the network card's time stamps where it makes them and its clock is within a second of "
            "the system's."
        ),
    ] = True
    ignore_outgoing: Annotated[
        bool,
        Meta(
            description="Leave out what this machine sends through the interface; a mirror port sends nothing."
        ),
    ] = False


class ExceptionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mail that is known and accepted, for a while: by a device, to a destination, or by one to the other.

    At least one of `device` and `destination` is needed; with both, only that pair is excepted. Packet
    time decides whether an exception has expired.
    """

    device: Annotated[
        DeviceName | None,
        Meta(description="MAC address, IP address or network, or host name of the device."),
    ] = None
    destination: Annotated[
        DestinationName | None,
        Meta(description="IP address or network, or domain name with everything below it."),
    ] = None
    reason: Annotated[
        str,
        Meta(
            min_length=1, max_length=1000, pattern=r"\S", description="Why, for whoever reads it in a year."
        ),
    ]
    expires: Annotated[
        Instant,
        Meta(description="The last day, or the last moment, on which it holds. UTC unless it has an offset."),
    ]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set. ``load_config`` makes and validates it; ``Config()`` holds the defaults."""

    home_nets: Annotated[
        tuple[Network, ...],
        Meta(
            min_length=1,
            max_length=1024,
            description="Networks of the site: devices with an address in one of them are watched. "
            "`--home-net` on the command line replaces the list.",
        ),
    ] = (
        Network("10.0.0.0/8"),
        Network("100.64.0.0/10"),  # RFC 6598: between a provider and its customers
        Network("172.16.0.0/12"),
        Network("192.168.0.0/16"),
        Network("169.254.0.0/16"),
        Network("fc00::/7"),
        Network("fe80::/10"),
    )
    mail_servers: Annotated[
        tuple[MailServerName, ...],
        Meta(
            max_length=1024,
            description="The site's own mail servers. They are judged against their own past instead of "
            "against what other devices do; they are not exempt.",
        ),
    ] = ()
    resolvers: Annotated[
        tuple[Network, ...],
        Meta(
            max_length=1024,
            description="The site's DNS resolvers. None named: whoever inside `home_nets` is asked.",
        ),
    ] = ()
    mail_ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65535)], ...],
        Meta(min_length=1, max_length=16, description="TCP ports on which mail is spoken."),
    ] = (25, 465, 587, 2525)
    tables: Tables = Tables()
    budget: Budget = Budget()
    timeouts: Timeouts = Timeouts()
    output: Output = Output()
    capture: Capture = Capture()
    exceptions: Annotated[tuple[ExceptionRule, ...], Meta(max_length=4096)] = ()


# The settings, described.


class Setting(msgspec.Struct, frozen=True):
    """One key of the file. ``default`` is TOML; None: the key is required or simply not set."""

    key: str  # dotted, "exceptions[].reason" in a list of tables
    allowed: str
    description: str
    default: str | None
    is_required: bool


_FORMS: Final[dict[Any, str]] = {
    Network: "an address or network",
    MailServerName: "an address, network or MAC address",
    DeviceName: "a MAC address, address, network or host name",
    DestinationName: "an address, network or domain name",
    Instant: "a date or date-time",
    SyslogAddress: "an address such as tls://loghost:6514",
    WebhookUrl: "an http:// or https:// address",
    str: "a text",
}


def _unwrap(annotation: Any) -> tuple[Any, Meta]:
    """Split an annotation into its bare type and its Meta, seeing through ``| None``."""
    meta = Meta()
    arguments = get_args(annotation)
    if type(None) in arguments:
        annotation = next(argument for argument in arguments if argument is not type(None))
    if hasattr(annotation, "__metadata__"):
        meta = annotation.__metadata__[0]
        annotation = annotation.__origin__
    arguments = get_args(annotation)
    if type(None) in arguments:
        annotation = next(argument for argument in arguments if argument is not type(None))
    return annotation, meta


def _allowed(kind: Any, meta: Meta) -> str:
    if getattr(kind, "__origin__", None) is tuple:
        element, element_meta = _unwrap(get_args(kind)[0])
        return (
            f"a list of {meta.min_length or 0} to {meta.max_length}, each {_allowed(element, element_meta)}"
        )
    if getattr(kind, "__origin__", None) is Literal:
        *others, last = (f'"{choice}"' for choice in get_args(kind))
        return f"{', '.join(others)} or {last}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        number = "a whole number" if kind is int else "a number"
        number = "a power of two" if (meta.extra or {}).get("power_of_two") else number
        return f"{number} from {meta.ge} to {meta.le}"
    text = _FORMS[kind]
    return f"{text} of {meta.min_length} to {meta.max_length} characters" if meta.max_length else text


def toml_value(value: Any) -> str:
    """Write a setting's value as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value) if isinstance(value, _Value) else value, ensure_ascii=False)


def table_types() -> dict[str, type[msgspec.Struct]]:
    """Return the struct of each table of the file; "" is the top level, "name[]" a list of tables."""
    return {"": Config, **dict(_tables_in(Config, ""))}


def _tables_in(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    for name, annotation in get_type_hints(struct, include_extras=True).items():
        kind, _ = _unwrap(annotation)
        element = get_args(kind)[0] if getattr(kind, "__origin__", None) is tuple else None
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield f"{prefix}{name}", kind
            yield from _tables_in(kind, f"{prefix}{name}.")
        elif isinstance(element, type) and issubclass(element, msgspec.Struct):
            yield f"{prefix}{name}[]", element


def settings(table: str | None = None) -> Iterator[Setting]:
    """Yield every setting, or those of one table as ``table_types`` names it."""
    tables = table_types()
    for name, struct in tables.items():
        if table is not None and name != table:
            continue
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            key = f"{name}.{field.name}" if name else field.name
            if key in tables or f"{key}[]" in tables:
                continue
            kind, meta = _unwrap(hints[field.name])
            default = None if field.required or field.default is None else toml_value(field.default)
            yield Setting(key, _allowed(kind, meta), meta.description or "", default, field.required)


def describe(config: Config, now_ns: int) -> list[tuple[str, str]]:
    """Say what each setting means for this site: (what, in words), in the order of the file.

    ``now_ns``: nanoseconds since the Unix epoch, for the exceptions' expiry.
    """
    budget = config.budget.false_alarms_per_device_year
    lines = [
        ("home networks", f"{_listed(config.home_nets)}: devices inside are watched"),
        (
            "mail servers",
            f"{_listed(config.mail_servers)}: judged against their own past, not exempt"
            if config.mail_servers
            else "none named: a mail server has to earn its role, and is on the review list meanwhile",
        ),
        (
            "resolvers",
            f"{_listed(config.resolvers)}: DNS asked elsewhere counts as a detour"
            if config.resolvers
            else "none named: DNS asked outside the home networks counts as a detour",
        ),
        ("mail ports", f"TCP {_listed(config.mail_ports)}"),
        (
            "budget",
            f"aims at {budget:g} false alarms per device and year; a factory setting, not measured at this site",
        ),
        ("attempts", f"unanswered after {config.timeouts.attempt_s} s"),
        ("connections", f"over after {config.timeouts.idle_s} s without a packet"),
        ("alerts", f"{config.output.format} on standard output"),
    ]
    if config.output.file is not None:
        form = "one JSON object a line" if config.output.file_format == "json" else "as text"
        lines.append(("", f"and appended to {visible(config.output.file)}, {form}"))
    for syslog in config.output.syslog:
        said = f"and to syslog at {syslog.to}, as {syslog.format}, facility {syslog.facility}"
        lines.append(("", f"{said}{_describe_tls(syslog, is_tls=syslog.to.scheme == 'tls')}"))
    for webhook in config.output.webhook:
        signed = "signed" if webhook.secret_file else "not signed: anybody could post there in our name"
        said = f"and posted to {webhook.url.origin}, as json, {signed}"
        lines.append(("", f"{said}{_describe_tls(webhook, is_tls=webhook.url.scheme == 'https')}"))
    if config.output.syslog or config.output.webhook:
        lines.append(("", f"up to {config.output.queue} wait for each receiver that is not there"))
    for rule in config.exceptions:
        parties = [f"device {rule.device}"] if rule.device else []
        parties += [f"destination {rule.destination}"] if rule.destination else []
        when = "EXPIRED, without effect:" if rule.expires.ns <= now_ns else "until"
        lines.append(("exception", f"{', '.join(parties)}: {when} {rule.expires}: {visible(rule.reason)}"))
    return lines


def _describe_tls(tls: Syslog | Webhook, *, is_tls: bool) -> str:
    if not is_tls:
        return ""
    authorities = "the system's authorities" if tls.ca_file is None else visible(tls.ca_file)
    ours = "" if tls.certificate_file is None else f", our certificate {visible(tls.certificate_file)}"
    return f"; its certificate is checked against {authorities}{ours}"


def _listed(values: Sequence[object], most: int = 8) -> str:
    rest = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + rest


# Reading.


def load_config(path: str | Path | None = None, *, home_nets: Sequence[str] = ()) -> Config:
    """Read and validate a configuration file; without one, the defaults.

    ``home_nets``: networks of the command line, which replace those of the file. ConfigError is one line.
    """
    config = Config() if path is None else _load_file(Path(path))
    if home_nets:
        config = msgspec.structs.replace(config, home_nets=tuple(map(_parse_option, home_nets)))
    return config


def _parse_option(text: str) -> Network:
    try:
        return Network(text)
    except ValueError as reason:
        raise ConfigError(f"--home-net {_quoted(text)}: {reason}") from None


def _load_file(path: Path) -> Config:
    name = visible(str(path))
    raw = _read_toml(path, name)
    try:
        config = msgspec.convert(raw, Config, dec_hook=_decode_value)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_explain(error, raw)}") from None
    for key, reason in _contradictions(config):
        raise ConfigError(f"{name}: {_found(raw, key)}: {reason}")
    return config


def _read_toml(path: Path, name: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_CONFIG_BYTES} bytes, so no configuration")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start}: not UTF-8, which TOML demands") from None
    except RecursionError:
        raise ConfigError(f"{name}: not TOML that can be read: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and numbers that are too long
        raise ConfigError(f"{name}: not TOML: {visible(str(error))}") from None


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what the types cannot say: (key, what is expected)."""
    for setting in settings("tables"):
        rows: int = getattr(config.tables, setting.key.partition(".")[2])
        if rows & (rows - 1):
            below = 1 << (rows.bit_length() - 1)
            yield setting.key, f"expected {setting.allowed}, such as {below} or {2 * below}"
    if taken := sorted(_TAKEN_PORTS.intersection(config.mail_ports)):
        yield (
            "mail_ports",
            f"expected mail ports: {taken[0]} belongs to DNS, a protocol of the LAN or a tunnel",
        )
    if len(set(config.mail_ports)) < len(config.mail_ports):
        yield "mail_ports", "expected each port once"
    attempt_s, idle_s = config.timeouts.attempt_s, config.timeouts.idle_s
    if idle_s < attempt_s:
        yield (
            "timeouts",
            f"expected idle_s, which is {idle_s}, to be at least attempt_s, which is {attempt_s}",
        )
    for row, syslog in enumerate(config.output.syslog):
        yield from _tls_contradictions(f"output.syslog[{row}]", syslog, syslog.to.scheme, "tls")
    for row, webhook in enumerate(config.output.webhook):
        yield from _tls_contradictions(f"output.webhook[{row}]", webhook, webhook.url.scheme, "https")
    for row, exception in enumerate(config.exceptions):
        if exception.device is None and exception.destination is None:
            yield f"exceptions[{row}]", "expected a device, a destination or both"


def _tls_contradictions(
    table: str, tls: Syslog | Webhook, scheme: str, tls_scheme: str
) -> Iterator[tuple[str, str]]:
    for key in ("ca_file", "certificate_file", "key_file"):
        if getattr(tls, key) is not None and scheme != tls_scheme:
            yield f"{table}.{key}", f"expected only with {tls_scheme}://, not with {scheme}:"
    if tls.key_file is not None and tls.certificate_file is None:
        yield f"{table}.key_file", "expected a certificate_file beside it"


_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING_KEY = re.compile(r"Object missing required field `(\w+)`")
_ERROR_PATH = re.compile(r" - at `\$([^`]*)`$")


def _explain(error: msgspec.ValidationError, raw: dict[str, Any]) -> str:
    """Rewrite msgspec's message: the key, the value found there, and what is allowed."""
    message = str(error)
    at = _ERROR_PATH.search(message)
    path = ""
    if at:
        message, path = message[: at.start()], at.group(1).removeprefix(".")
    table = re.sub(r"\[\d+\]", "[]", path)
    if unknown := _UNKNOWN_KEY.match(message):
        return _explain_unknown(path, table, unknown.group(1))
    if missing := _MISSING_KEY.match(message):
        key = missing.group(1)
        allowed = next(s.allowed for s in settings(table) if s.key == f"{table}.{key}")
        return f"{path}.{key} is missing: expected {allowed}"
    found = _found(raw, path)
    if error.__cause__ is not None:
        return f"{found}: {error.__cause__}"
    for setting in settings():
        if setting.key == table:
            return f"{found}: expected {setting.allowed}"
        if f"{setting.key}[]" == table:
            return f"{found}: expected {setting.allowed.partition('each ')[2]}"
    if f"{table}[]" in table_types():
        return f"{found}: expected a list of tables, [[{table}]]"
    if table in table_types():
        name = f"[{table[:-2]}]" if table.endswith("[]") else table
        return f"{found}: expected a table, [{name}]"
    return f"{found}: {visible(message)}"


def _explain_unknown(path: str, table: str, key: str) -> str:
    shown = visible(f"{path}.{key}" if path else key)
    siblings = [s.key for s in settings(table)]
    siblings += [name for name in table_types() if name and name.rpartition(".")[0] == table]
    leaves = {name.rpartition(".")[2].removesuffix("[]"): name for name in siblings}
    elsewhere = {s.key.rpartition(".")[2]: s.key for s in settings()}
    for known in (leaves, elsewhere):
        if near := difflib.get_close_matches(key, known, n=1):
            return f"{shown} is no setting: did you mean {known[near[0]]}?"
    return f"{shown} is no setting: expected one of {', '.join(siblings)}"


def _found(raw: dict[str, Any], path: str) -> str:
    """Show a key and the value found there, on one line of bearable length."""
    value: Any = raw
    for name, row in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        value = value[int(row)] if row else value.get(name)
    return path if isinstance(value, dict) else f"{path} = {_quoted(value)}"


def _quoted(value: Any) -> str:
    is_json = isinstance(value, bool | str | list)
    text = visible(json.dumps(value, default=str, ensure_ascii=False) if is_json else str(value))
    return text if len(text) <= _MAX_QUOTED_VALUE else f"{text[: _MAX_QUOTED_VALUE - 3]}..."
