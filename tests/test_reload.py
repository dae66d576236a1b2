"""What a configuration that is read anew changes, and what it does not: the settings, the tables, the thresholds."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from device_events import (
    CAMERA,
    CAMERA_MAC,
    OUTSIDE,
    PRINTER,
    PRINTER_MAC,
    SERVER,
    SERVER_MAC,
    START_NS,
    EventLog,
    row_of,
    rows_of,
)
from hypothesis import given
from hypothesis import strategies as st
from test_artifact import MODEL

from sensor.config import Config, ExceptionRule, Instant, Mac, Network, settings
from sensor.devices.table import SECOND_NS, DeviceTables
from sensor.events.types import EventKind
from sensor.model.artifact import Artifact
from sensor.model.evidence import alarm_threshold
from sensor.pipeline import Pipeline
from sensor.reload import LIVE, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sensor.alerts.record import Alert

pytestmark = pytest.mark.kernel

SERVERS = (Network(SERVER), Mac("3c:d9:2b:00:00:01"))
DEVICES = ((CAMERA, CAMERA_MAC), (PRINTER, PRINTER_MAC), (SERVER, SERVER_MAC))


def changed(config: Config, **values: Any) -> Config:
    return msgspec.structs.replace(config, **values)


def with_budget(config: Config, budget: float) -> Config:
    return changed(config, budget=changed_budget(config, budget))


def changed_budget(config: Config, budget: float) -> Any:
    return msgspec.structs.replace(config.budget, false_alarms_per_device_year=budget)


def test_live_settings_are_taken_and_others_wait() -> None:
    running = Config()
    tables = msgspec.structs.replace(running.tables, devices=1024)
    output = msgspec.structs.replace(running.output, queue=5)
    read = changed(
        with_budget(running, 1.0), mail_servers=SERVERS, tables=tables, mail_ports=(25,), output=output
    )
    merged, new, waiting = merge(running, read)
    assert new == ["mail_servers", "budget.false_alarms_per_device_year"]
    assert waiting == ["mail_ports", "tables.devices", "output.queue"]
    assert merged == changed(with_budget(running, 1.0), mail_servers=SERVERS)
    assert merge(merged, read) == (merged, [], waiting)
    assert merge(running, running) == (running, [], [])


def test_the_page_says_of_each_setting_whether_it_waits() -> None:
    page = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
    said = page.partition("## Reloading")[2].partition("\n## ")[0]
    for name in {setting.key.partition(".")[0].partition("[")[0] for setting in settings()}:
        assert f"`{name}`" in said, name
    assert all(f"`{name}`" in said.partition("next start")[0] for name in LIVE)


class Run:
    """A pipeline that is fed with made events. Its device table is looked at from outside."""

    def __init__(self, config: Config, artifact: Artifact | None = None) -> None:
        self.alerts: list[Alert] = []
        self.pipeline = Pipeline(config, on_alert=self.alerts.append, artifact=artifact)

    @property
    def tables(self) -> DeviceTables:
        return self.pipeline._devices

    def thresholds(self) -> list[float]:
        return [channel.threshold for channel in self.pipeline._channels]

    def see(self, log: EventLog) -> None:
        self.pipeline.observe(*log.arrays())

    def known_servers(self) -> set[int]:
        devices = self.tables.devices
        return {int(devices[row]["mac"]) for row in rows_of(self.tables) if devices[row]["is_known_server"]}


def arps(at_s: float = 0.0, devices: Sequence[tuple[str, int]] = DEVICES) -> EventLog:
    log = EventLog()
    for address, mac in devices:
        log.add(EventKind.ARP, at_s, orig=address, mac=mac)
    return log


def small(**values: Any) -> Config:
    return changed(Config(), tables=msgspec.structs.replace(Config().tables, devices=256), **values)


def test_mail_servers_are_named_anew_also_where_they_were_seen_before() -> None:
    run = Run(small(mail_servers=(Network(CAMERA),)))
    run.see(arps())
    assert run.known_servers() == {CAMERA_MAC}
    run.pipeline.reconfigure(small(mail_servers=SERVERS), None)
    assert run.known_servers() == {PRINTER_MAC, SERVER_MAC}
    run.see(arps(1.0))
    assert run.known_servers() == {PRINTER_MAC, SERVER_MAC}
    run.pipeline.reconfigure(small(), None)
    assert run.known_servers() == set()


NAMES = st.sampled_from(
    [Network(CAMERA), Network("192.168.1.0/28"), Network("2001:db8::/32"), Network("::/0")]
)
HOSTS = st.sampled_from([CAMERA, PRINTER, SERVER, "192.168.1.7", "fe80::7"])


@given(
    st.lists(st.one_of(NAMES, st.integers(1, 4).map(lambda n: Mac(f"02:00:00:00:00:0{n}"))), max_size=4),
    st.lists(st.tuples(HOSTS, st.integers(0x020000000001, 0x020000000005)), max_size=8),
)
def test_marking_equals_what_a_start_with_these_names_would_mark(
    names: list[Any], devices: list[tuple[str, int]]
) -> None:
    before, after = Run(small()), Run(small(mail_servers=tuple(names)))
    for run in (before, after):
        run.see(arps(devices=devices))
    expected = after.known_servers()
    before.pipeline.reconfigure(small(mail_servers=tuple(names)), None)
    assert before.known_servers() == expected


def test_home_networks_and_exceptions_hold_from_then_on() -> None:
    run = Run(small())
    log = EventLog()
    log.connect(0.0)
    run.see(log)
    until = Instant(date(2100, 1, 1))
    rule = ExceptionRule(device=Mac("44:19:b6:0a:0b:0c"), reason="known", expires=until)
    run.pipeline.reconfigure(small(exceptions=(rule,)), None)
    log = EventLog()
    log.connect(1.0)
    log.add(EventKind.ARP, 2.0, orig="192.0.2.9", mac=0x020000000009)
    run.see(log)
    assert run.pipeline.stats()["excepted_connections"] == 1
    assert run.pipeline.stats()["devices"] == 1
    assert run.pipeline.stats()["outside_connections"] == 2
    run.pipeline.reconfigure(small(home_nets=(Network("192.0.2.0/24"),)), None)
    log = EventLog()
    log.add(EventKind.ARP, 3.0, orig="192.0.2.9", mac=0x020000000009)
    log.add(EventKind.ARP, 3.0, orig="192.168.1.99", mac=0x02000000000A)
    run.see(log)
    assert run.pipeline.stats()["devices"] == 2
    assert row_of(run.tables, 0x020000000009) >= 0


def test_whoever_was_outside_before_is_no_router() -> None:
    run = Run(small(home_nets=(Network("10.0.0.0/8"),)))
    for second in range(2):
        log = EventLog()
        log.connect(second)
        run.see(log)
        if second == 0:
            assert rows_of(run.tables) == []
            run.pipeline.reconfigure(small(), None)
    assert row_of(run.tables, CAMERA_MAC) >= 0
    assert run.pipeline.device_table()["device"] == ["44:19:b6:0a:0b:0c"]


def test_a_budget_moves_the_thresholds_and_evidence_stays() -> None:
    run = Run(small(), MODEL)
    for channel in run.pipeline._channels:
        channel.evidence.evidence[3] = 4.0
    run.pipeline.reconfigure(with_budget(small(), 5.0), MODEL)
    assert run.thresholds() == list(MODEL.thresholds(5.0))
    assert [float(channel.evidence.evidence[3]) for channel in run.pipeline._channels] == [4.0, 4.0]


def test_another_model_starts_without_evidence_and_is_named() -> None:
    run = Run(small())
    run.pipeline._channels[0].evidence.evidence[3] = 4.0
    assert run.pipeline.stats()["model"] == "monotone-index-1"
    run.pipeline.reconfigure(small(), MODEL)
    assert run.pipeline.stats()["model"] == "monotone-index-1 + stump"
    assert [float(channel.evidence.evidence[3]) for channel in run.pipeline._channels] == [4.0, 0.0]
    run.pipeline._channels[1].evidence.evidence[3] = 9.0
    calibrated = msgspec.structs.replace(MODEL.manifest, thresholds=MODEL.manifest.thresholds[:1])
    run.pipeline.reconfigure(small(), Artifact(calibrated, MODEL.trees))
    assert float(run.pipeline._channels[1].evidence.evidence[3]) == 9.0  # the same trees
    fitted_anew = msgspec.structs.replace(MODEL.manifest, arrays_sha256="of others")
    run.pipeline.reconfigure(small(), Artifact(fitted_anew, MODEL.trees))
    assert float(run.pipeline._channels[1].evidence.evidence[3]) == 0.0
    run.pipeline.reconfigure(small(), None)
    assert run.thresholds() == [alarm_threshold(0.05)]


def flood(config: Config, at: int | None) -> list[Alert]:
    """The alerts of a camera's flood, with a reload of the same configuration after ``at`` events."""
    log = EventLog()
    for k in range(60):
        resp = f"203.0.113.{k}"
        log.query(k * 0.5, b"example.com")
        log.connect(k * 0.5 + 0.1, resp)
        log.close(k * 0.5 + 0.4, resp)
    run = Run(config)
    events, text = log.arrays()
    cut = len(events) if at is None else at
    run.pipeline.observe(events[:cut], text)
    run.pipeline.reconfigure(config, None)
    run.pipeline.observe(events[cut:], text)
    run.pipeline.finish()
    assert START_NS > 60 * SECOND_NS
    return run.alerts


@pytest.mark.parametrize("at", [0, 1, 50, 100, 179])
def test_a_reload_of_the_same_changes_nothing(at: int) -> None:
    alerts = flood(small(), None)
    assert [alert.state for alert in alerts if alert.event_type == "alert"][:1] == ["started"]
    assert flood(small(), at) == alerts


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["look", "arp", "send", "home", "elsewhere"]),
            st.sampled_from([CAMERA, PRINTER, "10.0.0.1", "192.0.2.1", "192.0.2.2"]),
            st.integers(0x020000000001, 0x020000000004),
        ),
        max_size=20,
    )
)
def test_the_number_of_devices_is_that_of_rows_in_use(steps: list[tuple[str, str, int]]) -> None:
    """Whenever it is asked for: devices come, turn out to be routers, and home is elsewhere."""
    run = Run(small())
    for second, (what, address, mac) in enumerate(steps):
        log = EventLog()
        if what == "arp":
            log.add(EventKind.ARP, second, orig=address, mac=mac)
        elif what == "send":
            log.connect(second, orig=address, mac=mac)
        elif what == "look":
            assert run.pipeline.stats()["devices"] == len(rows_of(run.tables))
        else:
            net = Network("192.168.0.0/16" if what == "home" else "192.0.2.0/24")
            run.pipeline.reconfigure(small(home_nets=(net,)), None)
        run.see(log)
    assert run.pipeline.stats()["devices"] == len(rows_of(run.tables))


def test_use_of_tables_and_open_alerts_are_counted() -> None:
    run = Run(small())
    assert run.pipeline.stats()["tables"]["devices"] == {"used": 0, "rows": 256}
    assert run.pipeline.stats()["open_alerts"] == {"medium": 0, "high": 0, "critical": 0}
    log = EventLog()
    for k in range(60):
        log.connect(k * 0.5, f"203.0.113.{k}")
        log.close(k * 0.5 + 0.4, f"203.0.113.{k}")
    run.see(log)
    run.pipeline.finish()
    stats = run.pipeline.stats()
    assert stats["tables"]["devices"] == {"used": 1, "rows": 256}
    assert sum(stats["open_alerts"].values()) == stats["alerts"] == 1
    assert stats["outside_answers"] == 60
    assert OUTSIDE.startswith("203.0.113.")
