"""Encoders of the alert record: text for people, JSON for machines, and the JSON Schema of the latter."""

from __future__ import annotations

import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sensor.alerts.record import Alert
from sensor.notation import counted, day_and_second, duration_text, endpoint_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.alerts.record import Completeness, Counts, Device, EventType, FlowExample, State

#: Columns of the text form.
TEXT_WIDTH: Final = 100
_LABEL_WIDTH: Final = 10
_MAX_ADDRESSES: Final = 4
_MAX_REASONS: Final = 5

_HEADINGS: Final[dict[tuple[EventType, State], str]] = {
    ("alert", "started"): "ALERT",
    ("alert", "updated"): "ALERT, still going on",
    ("alert", "ended"): "ALERT ENDED",
    ("review", "started"): "REVIEW, worth a look, no alarm",
    ("review", "updated"): "REVIEW, still worth a look, no alarm",
    ("review", "ended"): "REVIEW ENDED, no alarm",
}
_CAUSES: Final = {
    "direct-to-mx-spam": "sends mail straight to the world's mail servers",
    "mail-proxy": "passes on somebody else's mail",
    "submission-abuse": "tries logins at mail providers",
    "blocked-spam": "tries to send mail and gets nowhere",
    "open-relay": "relays mail for strangers",
    "unusual-mail": "sends mail as it never did before",
}

# SGR parameters (ECMA-48 section 8.3.117) for the heading.
_RED: Final = "1;31"
_YELLOW: Final = "1;33"
_GREEN: Final = "1;32"
_CYAN: Final = "1;36"

_encoder = msgspec.json.Encoder()

_NO_ROLE: Final = "unknown"  # Role.UNKNOWN's label, without the kernels that come with it


def alert_json(alert: Alert) -> bytes:
    """Encode an alert as one JSON object on one line, without the line's end."""
    return _encoder.encode(alert)


def alert_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what ``alert_json`` writes."""
    (root,), components = msgspec.json.schema_components([Alert], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:spamsensor:schema:alert:1",
        "title": "spamsensor alert",
        **root,
        "$defs": components,
    }


def alert_text(alert: Alert, *, colour: bool = False) -> str:
    """Encode an alert for a person: a heading and a few labelled lines of at most ``TEXT_WIDTH`` columns.

    Printable ASCII but for the line ends and, with ``colour``, the escape sequences of the heading.
    """
    heading = (
        f"{_HEADINGS[alert.event_type, alert.state]}  "
        f"{day_and_second(alert.timestamp)}  {alert.severity}, {alert.confidence:.0%} sure"
    )
    lines = [f"\x1b[{_heading_colour(alert)}m{heading}\x1b[0m" if colour else heading]
    for label, text in _body(alert):
        lines += _wrapped(label, text)
    return "\n".join(lines)


def alert_line(alert: Alert) -> str:
    """Encode an alert for a person on one line of printable ASCII: which device, what it does, what to do."""
    heading = f"{_HEADINGS[alert.event_type, alert.state]}, {alert.severity}, {alert.confidence:.0%} sure"
    does = f"{_CAUSES[alert.cause]}. {alert.summary} {alert.advice}"
    return printable(f"{heading}: {_device_text(alert.device)}; {does}")


def _heading_colour(alert: Alert) -> str:
    if alert.state == "ended":
        return _GREEN
    if alert.event_type == "review":
        return _CYAN
    return _RED if alert.severity in ("high", "critical") else _YELLOW


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        TEXT_WIDTH,
        initial_indent=f"  {label:<{_LABEL_WIDTH}}",
        subsequent_indent=" " * (_LABEL_WIDTH + 2),
        break_on_hyphens=False,
    )


def _body(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield (label, text): which device, what it does, since when, why, what to do; then what to look up."""
    yield "device", _device_text(alert.device)
    yield "does", _CAUSES[alert.cause]
    yield "", alert.summary
    yield "since", _since_text(alert)
    for row, reason in enumerate(alert.reasons[:_MAX_REASONS]):
        yield "" if row else "why", reason.text
    yield "do next", alert.advice
    yield "so far", _counts_text(alert.counts)
    for row, flow in enumerate(alert.flows):
        yield "" if row else "such as", _flow_text(flow)
    yield "view", _completeness_text(alert.completeness)
    yield "alert id", f"{alert.alert_id} ({alert.channel}, model {alert.sensor.model})"


def _device_text(device: Device) -> str:
    names = [
        device.hostname and f'"{device.hostname}"',
        device.type,
        device.vendor,
        device.mac if device.mac is not None else device.key,
    ]
    addresses = list(device.ips[:_MAX_ADDRESSES])
    if len(device.ips) > _MAX_ADDRESSES:
        addresses.append(f"{len(device.ips) - _MAX_ADDRESSES} more addresses")
    place = [] if device.vlan is None else [f"VLAN {device.vlan}"]
    parts = [name for name in names if name] + [a for a in addresses if a != device.key] + place
    known = "" if device.role == _NO_ROLE else f"; known as {device.role}"
    return ", ".join(parts) + known


def _since_text(alert: Alert) -> str:
    elapsed = (_moment(alert.timestamp) - _moment(alert.onset)).total_seconds()
    since = f"{day_and_second(alert.onset)}, {duration_text(elapsed)} before this was decided"
    if alert.state == "ended":
        since += f"; last seen {day_and_second(alert.last_seen)}"
    return since


def _counts_text(counts: Counts) -> str:
    connections = counted(counts.smtp_connections, "mail connection")
    parts = [
        f"{connections} to {counted(counts.destinations, 'destination')}",
        counted(counts.mx_queries, "MX look-up"),
        f"{counted(counts.messages_attempted, 'message')} tried",
        f"{counts.messages_accepted} accepted",
        counted(counts.recipients, "recipient"),
        f"{counts.rejected_4xx} put off (4xx)",
        f"{counts.rejected_5xx} refused (5xx)",
        counted(counts.auth_failures, "failed login"),
    ]
    return ", ".join(parts)


def _flow_text(flow: FlowExample) -> str:
    name = f" ({flow.dest_name})" if flow.dest_name else ""
    return (
        f"{day_and_second(flow.timestamp)} {endpoint_text(flow.src_ip, flow.src_port)} -> "
        f"{endpoint_text(flow.dest_ip, flow.dest_port)}{name}: {flow.fate.replace('_', ' ')}"
    )


#: What is left out of the text: a query or two without an answer is usual.
WHOLE_SHARE: Final = 0.95


def _completeness_text(view: Completeness) -> str:
    parts = [f"watched for {duration_text(view.observed_s)}"]
    parts.append("DNS seen" if view.dns_seen else "DNS NOT seen")
    if view.dns_answers_share is not None and view.dns_answers_share < WHOLE_SHARE:
        parts.append(f"{view.dns_answers_share:.0%} of the DNS answers")
    if view.cleartext_share is not None:
        parts.append(f"{view.cleartext_share:.0%} of the mail in clear text")
    if view.one_sided_share:
        parts.append(f"{view.one_sided_share:.0%} of the connections seen from one side only")
    if view.gap_share:
        parts.append(f"{view.gap_share:.0%} of the connections with gaps")
    return ", ".join(parts)


def _moment(eve_time: str) -> datetime:
    return datetime.fromisoformat(eve_time)
