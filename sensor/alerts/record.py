"""The alert record: the one type behind every output format, and the source of the published JSON Schema.

Keys follow EVE (Suricata's JSON) where it has a word for the thing: ``event_type``, ``src_ip``, ``dest_ip``,
``community_id``. Times are ISO 8601 in EVE's form ("2026-11-23T14:50:22.123456+0000"), always UTC, always
packet time. Docstrings and descriptions below are the schema's.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

NonNegative = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
EveTime = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000$",
        examples=["2026-11-23T14:50:22.123456+0000"],
    ),
]

State = Literal["started", "updated", "ended"]
EventType = Literal["alert", "review"]
Severity = Literal["low", "medium", "high", "critical"]
#: What the device is doing, as far as its traffic tells.
Cause = Literal[
    "direct-to-mx-spam",  # delivers to many mail operators by itself
    "mail-proxy",  # many operators, no look-ups of its own: somebody else's mail passes through it
    "submission-abuse",  # submission servers, failing or changing logins
    "blocked-spam",  # only unanswered or refused attempts on port 25
    "open-relay",  # takes mail from outside and passes it on to outside
    "unusual-mail",  # mail that this device does not usually send
]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The device as the operator will look for it."""

    key: Annotated[
        str, Meta(description='The MAC address, or "address" or "address@vlan" of a device behind a router.')
    ]
    key_kind: Literal["mac", "address"]
    mac: str | None
    vendor: Annotated[str | None, Meta(description="Who the MAC address is registered to.")]
    ips: Annotated[tuple[str, ...], Meta(description="Addresses that the device uses, IPv4 and IPv6.")]
    hostname: Annotated[str | None, Meta(description="The name that the device gives itself; it may lie.")]
    vlan: int | None
    role: Annotated[str, Meta(description="What the device does with mail, as its traffic shows.")]
    type: Annotated[
        str | None, Meta(description="What kind of device it seems to be: camera, printer, nas, ...")
    ]
    type_evidence: Annotated[tuple[str, ...], Meta(description="Why that kind, in words.")]
    model: Annotated[str | None, Meta(description="The model that the device says it is; it may lie.")]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One feature that spoke."""

    feature: str
    value: float | None
    usual: Annotated[
        float | None, Meta(description="The device's own past, else what is usual for its role.")
    ]
    unit: str
    text: Annotated[str, Meta(description="The same in words.")]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since ``first_seen``."""

    smtp_connections: NonNegative
    destinations: NonNegative
    mx_queries: NonNegative
    messages_attempted: NonNegative
    messages_accepted: NonNegative
    recipients: NonNegative
    rejected_4xx: NonNegative
    rejected_5xx: NonNegative
    auth_failures: NonNegative


class FlowExample(msgspec.Struct, frozen=True, kw_only=True):
    """A connection to look up elsewhere."""

    timestamp: EveTime
    community_id: Annotated[str, Meta(description="Community ID version 1, seed 0.")]
    proto: str
    src_ip: str
    src_port: Port
    dest_ip: str
    dest_port: Port
    fate: Annotated[str, Meta(description="How the connection ended, as in the connection events.")]
    dest_name: Annotated[
        str | None, Meta(description="The name under which the device had resolved the address.")
    ]


class Completeness(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the device's traffic was visible: what was not seen may say otherwise."""

    dns_seen: Annotated[bool, Meta(description="False: look-ups that matter may have gone unseen.")]
    dns_answers_share: Annotated[
        Share | None, Meta(description="Queries of the device whose answer was captured, and whole.")
    ]
    cleartext_share: Annotated[Share | None, Meta(description="Of the mail connections.")]
    one_sided_share: Annotated[
        Share | None, Meta(description="Mail connections of which only one direction was seen.")
    ]
    gap_share: Annotated[
        Share | None, Meta(description="Mail connections with bytes missing, lost or cut off.")
    ]
    observed_s: Annotated[float, Meta(description="How long the device has been watched, in seconds.")]


class SensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who says so."""

    name: str
    version: str
    model: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict about one device ("alert"), or what is worth a look but no alarm ("review")."""

    timestamp: Annotated[EveTime, Meta(description="Packet time of the decision.")]
    event_type: EventType
    alert_id: Annotated[
        str, Meta(description="The same in all records, started to ended, about one device and cause.")
    ]
    state: State
    device: Device
    severity: Severity
    confidence: Share
    cause: Cause
    channel: Annotated[str, Meta(description='Which part spoke: "model", "index" or "rule:<name>".')]
    summary: Annotated[str, Meta(description="What the device does, in one sentence.")]
    advice: Annotated[str, Meta(description="What to do next.")]
    reasons: Annotated[tuple[Reason, ...], Meta(description="Most telling first.")]
    counts: Counts
    onset: Annotated[EveTime, Meta(description="When the behaviour began.")]
    first_seen: Annotated[EveTime, Meta(description="When mail of the device was first seen.")]
    last_seen: Annotated[EveTime, Meta(description="When mail of the device was last seen.")]
    flows: Annotated[tuple[FlowExample, ...], Meta(description="Up to three examples.")]
    completeness: Completeness
    sensor: SensorInfo
