from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sensor.alerts.formats import TEXT_WIDTH, alert_json, alert_schema, alert_text
from sensor.alerts.record import Alert, Completeness, Counts, Device, FlowExample, Reason, SensorInfo
from sensor.alerts.sinks import FileSink, StreamSink
from sensor.devices.roles import Role
from sensor.errors import ConfigError, SensorError
from sensor.notation import eve_time

CAMERA_TEXT = """\
ALERT  2026-11-23 14:50:22 UTC  critical, 97% sure
  device    "cam-garage", camera, Hikvision, 44:19:b6:0a:0b:0c, 192.168.1.23,
            fe80::4619:b6ff:fe0a:b0c, VLAN 20; known as appliance
  does      sends mail straight to the world's mail servers
            Opened 31 mail connections to 24 destinations in 12 s and looked up 40 MX records by
            itself.
  since     2026-11-23 14:50:10 UTC, 12 s before this was decided
  why       31 mail connections within a minute; this device usually has none
            40 MX look-ups of its own
  do next   Cut the device off from TCP port 25, then reset it and update its firmware.
  so far    31 mail connections to 24 destinations, 40 MX look-ups, 29 messages tried, 3 accepted,
            61 recipients, 5 put off (4xx), 21 refused (5xx), 0 failed logins
  such as   2026-11-23 14:50:10 UTC 192.168.1.23:40123 -> 203.0.113.5:25 (mx.example.net): rejected
            2026-11-23 14:50:11 UTC [fe80::4619:b6ff:fe0a:b0c]:40124 -> [2001:db8::25]:25: no banner
  view      watched for 1 h, DNS seen, 100% of the mail in clear text, 25% of the connections with
            gaps
  alert id  5f0c9a1e22b7d431 (rule:flood, model index-1)"""

# Any alert, also with the most hostile names.

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
counts = st.integers(0, 2**53)
shares = st.floats(0, 1)
times = st.integers(-(2**63), 2**63 - 1).map(eve_time)
alerts = st.builds(
    Alert,
    timestamp=times,
    event_type=st.sampled_from(["alert", "review"]),
    alert_id=st.text("0123456789abcdef", min_size=1),
    state=st.sampled_from(["started", "updated", "ended"]),
    device=st.builds(
        Device,
        key=names,
        key_kind=st.sampled_from(["mac", "address"]),
        mac=st.none() | names,
        vendor=st.none() | names,
        ips=st.lists(st.ip_addresses().map(str), max_size=9).map(tuple),
        hostname=st.none() | names,
        vlan=st.none() | st.integers(0, 4095),
        role=names,
        type=st.none() | names,
    ),
    severity=st.sampled_from(["low", "medium", "high", "critical"]),
    confidence=shares,
    cause=st.sampled_from(
        [
            "direct-to-mx-spam",
            "mail-proxy",
            "submission-abuse",
            "blocked-spam",
            "open-relay",
            "unusual-mail",
        ]
    ),
    channel=names,
    summary=names,
    advice=names,
    reasons=st.lists(
        st.builds(
            Reason,
            feature=names,
            value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            usual=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            unit=names,
            text=names,
        ),
        max_size=7,
    ).map(tuple),
    counts=st.builds(Counts, **dict.fromkeys(Counts.__struct_fields__, counts)),
    onset=times,
    first_seen=times,
    last_seen=times,
    flows=st.lists(
        st.builds(
            FlowExample,
            timestamp=times,
            community_id=names,
            proto=names,
            src_ip=st.ip_addresses().map(str),
            src_port=st.integers(0, 65535),
            dest_ip=st.ip_addresses().map(str),
            dest_port=st.integers(0, 65535),
            fate=names,
            dest_name=st.none() | names,
        ),
        max_size=3,
    ).map(tuple),
    completeness=st.builds(
        Completeness,
        dns_seen=st.booleans(),
        dns_answers_share=st.none() | shares,
        cleartext_share=st.none() | shares,
        one_sided_share=st.none() | shares,
        gap_share=st.none() | shares,
        observed_s=st.floats(0, 1e10),
    ),
    sensor=st.builds(SensorInfo, name=names, version=names, model=names),
)

VALIDATOR = Draft202012Validator(alert_schema())


@given(alerts)
def test_json_is_one_line_that_satisfies_the_schema_and_reads_back(alert: Alert) -> None:
    line = alert_json(alert)
    assert b"\n" not in line
    VALIDATOR.validate(json.loads(line))
    assert msgspec.json.decode(line, type=Alert) == alert


@given(alerts)
def test_text_is_short_lines_of_printable_ascii(alert: Alert) -> None:
    for line in alert_text(alert).split("\n"):
        assert line.isascii()
        assert line.isprintable()
        assert 0 < len(line) <= TEXT_WIDTH


@given(alerts)
def test_colour_changes_the_heading_only(alert: Alert) -> None:
    heading, _, rest = alert_text(alert, colour=True).partition("\n")
    plain_heading, _, plain_rest = alert_text(alert).partition("\n")
    assert rest == plain_rest
    start, end = heading.split(plain_heading)
    assert start in ("\x1b[1;31m", "\x1b[1;33m", "\x1b[1;32m", "\x1b[1;36m")
    assert end == "\x1b[0m"


def test_the_schema_is_valid_and_refuses_what_is_no_alert() -> None:
    Draft202012Validator.check_schema(alert_schema())
    good = json.loads(alert_json(CAMERA_ALERT))
    for change in (
        {"event_type": "alarm"},
        {"confidence": 1.5},
        {"timestamp": "2026-11-23T14:50:22Z"},
        {"counts": good["counts"] | {"recipients": -1}},
        {"flows": [good["flows"][0] | {"dest_port": 65536}]},
        {"device": {}},
    ):
        assert not VALIDATOR.is_valid(good | change), change
    for key in good:
        assert not VALIDATOR.is_valid({k: v for k, v in good.items() if k != key}), key


def test_the_schema_describes_itself() -> None:
    schema = alert_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "spamsensor alert"
    assert schema["$id"].startswith("urn:spamsensor:")


def test_text_of_the_camera() -> None:
    assert alert_text(CAMERA_ALERT) == CAMERA_TEXT


@pytest.mark.parametrize(
    ("event_type", "state", "heading"),
    [
        ("alert", "updated", "ALERT, still going on"),
        ("alert", "ended", "ALERT ENDED"),
        ("review", "started", "REVIEW, worth a look, no alarm"),
        ("review", "ended", "REVIEW ENDED, no alarm"),
    ],
)
def test_headings(event_type: str, state: str, heading: str) -> None:
    text = alert_text(make_alert(event_type=event_type, state=state))
    assert text.startswith(f"{heading}  2026-11-23 14:50:22 UTC  critical, 97% sure\n")
    assert ("; last seen 2026-11-23 14:50:22 UTC" in text) == (state == "ended")


def test_what_is_not_known_is_left_out() -> None:
    device = msgspec.structs.replace(
        CAMERA_ALERT.device,
        key="192.168.1.23@20",
        key_kind="address",
        mac=None,
        vendor=None,
        hostname=None,
        type=None,
        ips=("192.168.1.23",),
    )
    view = Completeness(
        dns_seen=False,
        dns_answers_share=None,
        cleartext_share=None,
        one_sided_share=0.5,
        gap_share=None,
        observed_s=9.0,
    )
    text = alert_text(make_alert(device=device, completeness=view, flows=(), reasons=()))
    assert "  device    192.168.1.23@20, 192.168.1.23, VLAN 20; known as appliance\n" in text
    assert (
        "  view      watched for 9 s, DNS NOT seen, 50% of the connections seen from one side only\n" in text
    )
    assert "None" not in text


def test_a_device_without_a_role_is_known_as_nothing():
    alert = make_alert()
    text = alert_text(
        msgspec.structs.replace(alert, device=msgspec.structs.replace(alert.device, role=Role.UNKNOWN.label))
    )
    assert "VLAN 20\n" in text
    assert "known as" not in text


def test_many_addresses_are_cut() -> None:
    ips = tuple(f"192.168.1.{n}" for n in range(7))
    text = alert_text(make_alert(device=msgspec.structs.replace(CAMERA_ALERT.device, ips=ips)))
    assert "192.168.1.3, 3 more addresses," in text
    assert "192.168.1.4" not in text


# Sinks.


def test_a_stream_gets_each_alert_at_once() -> None:
    class CountingStream(io.StringIO):
        n_flushes = 0

        def flush(self) -> None:
            self.n_flushes += 1

    stream = CountingStream()
    sink = StreamSink(stream, lambda alert: alert.alert_id)
    for _ in range(2):
        sink.emit(CAMERA_ALERT)
    sink.close()
    assert stream.getvalue() == f"{CAMERA_ALERT.alert_id}\n" * 2
    assert stream.n_flushes == 2
    assert not stream.closed


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    for state in ("started", "ended"):
        with FileSink(path) as sink:
            sink.emit(make_alert(state=state))
    lines = path.read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Alert).state for line in lines] == ["started", "ended"]
    assert path.stat().st_mode & 0o007 == 0


def test_lost_alerts_are_counted_and_reported() -> None:
    sink = FileSink(Path("/dev/full"))
    sink.emit(CAMERA_ALERT)
    sink.emit(CAMERA_ALERT)
    with pytest.raises(
        SensorError, match=r"^/dev/full: 2 alerts could not be appended: No space left on device$"
    ):
        sink.close()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot append alerts: Is a directory"):
        FileSink(tmp_path)
