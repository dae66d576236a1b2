"""Alert records for the tests of what is done with them."""

from __future__ import annotations

from typing import Any

import msgspec

from sensor.alerts.record import Alert, Completeness, Counts, Device, FlowExample, Reason, SensorInfo

CAMERA_ALERT = Alert(
    timestamp="2026-11-23T14:50:22.123456+0000",
    event_type="alert",
    alert_id="5f0c9a1e22b7d431",
    state="started",
    device=Device(
        key="44:19:b6:0a:0b:0c",
        key_kind="mac",
        mac="44:19:b6:0a:0b:0c",
        vendor="Hikvision",
        ips=("192.168.1.23", "fe80::4619:b6ff:fe0a:b0c"),
        hostname="cam-garage",
        vlan=20,
        role="appliance",
        type="camera",
        type_evidence=("made by Hangzhou Hikvision Digital Technology",),
        model="DS-2CD2042WD-I",
    ),
    severity="critical",
    confidence=0.97,
    cause="direct-to-mx-spam",
    channel="rule:flood",
    summary="Opened 31 mail connections to 24 destinations in 12 s and looked up 40 MX records by itself.",
    advice="Cut the device off from TCP port 25, then reset it and update its firmware.",
    reasons=(
        Reason(
            feature="smtp25_conn_1m",
            value=31.0,
            usual=0.0,
            unit="connections",
            text="31 mail connections within a minute; this device usually has none",
        ),
        Reason(
            feature="mx_query_1h", value=40.0, usual=None, unit="queries", text="40 MX look-ups of its own"
        ),
    ),
    counts=Counts(
        smtp_connections=31,
        destinations=24,
        mx_queries=40,
        messages_attempted=29,
        messages_accepted=3,
        recipients=61,
        rejected_4xx=5,
        rejected_5xx=21,
        auth_failures=0,
    ),
    onset="2026-11-23T14:50:10.000000+0000",
    first_seen="2026-11-23T14:50:10.000000+0000",
    last_seen="2026-11-23T14:50:22.123456+0000",
    flows=(
        FlowExample(
            timestamp="2026-11-23T14:50:10.000000+0000",
            community_id="1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0=",
            proto="TCP",
            src_ip="192.168.1.23",
            src_port=40123,
            dest_ip="203.0.113.5",
            dest_port=25,
            fate="rejected",
            dest_name="mx.example.net",
        ),
        FlowExample(
            timestamp="2026-11-23T14:50:11.500000+0000",
            community_id="1:hO+sN4H+MG5MY/8hIrXPqc4ZQz1=",
            proto="TCP",
            src_ip="fe80::4619:b6ff:fe0a:b0c",
            src_port=40124,
            dest_ip="2001:db8::25",
            dest_port=25,
            fate="no_banner",
            dest_name=None,
        ),
    ),
    completeness=Completeness(
        dns_seen=True,
        dns_answers_share=1.0,
        cleartext_share=1.0,
        one_sided_share=0.0,
        gap_share=0.25,
        observed_s=3612.0,
    ),
    sensor=SensorInfo(name="spamsensor", version="0.1.0", model="index-1"),
)


def make_alert(**changes: Any) -> Alert:
    """Return the camera's alert with other values."""
    return msgspec.structs.replace(CAMERA_ALERT, **changes)
