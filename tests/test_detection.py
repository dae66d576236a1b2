"""Behaviours, made of packets, through the whole pipeline: which alert, how soon, and which never do."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import communityid
import jsonschema
import pytest

from sensor.alerts.formats import alert_json, alert_schema
from sensor.capture.frames import LinkType
from sensor.config import Config, ExceptionRule, HostName, Instant, Mac, Network
from sensor.devices.features import FEATURES, Needs
from tests.worlds import (
    CAMERA,
    CAMERA6,
    DAY,
    GATEWAY,
    HOUR,
    LAPTOP,
    MAIL_HOST,
    MINUTE,
    MX,
    PRINTER,
    SCANNER,
    START_NS,
    WEB_HOST,
    A,
    Fate,
    Host,
    Record,
    World,
    outside4,
    outside6,
    run_world,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sensor.alerts.record import Alert
    from tests.worlds import Run

MAX_FLOOD_CONNECTIONS = 30
MAX_FLOOD_TIME = timedelta(seconds=15)
START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_NS // 1000)


def seconds(eve_time: str) -> float:
    """Seconds of a world at a record's time."""
    return (datetime.fromisoformat(eve_time) - START).total_seconds()


def verdicts(outcome: Run) -> set[tuple[str, str]]:
    return {(alert.event_type, alert.device.key) for alert in outcome.alerts}


# Floods.


@dataclass(frozen=True)
class Flood:
    """About ``rate`` mail connections a second from ``begin`` on, to one of ``servers`` at a time."""

    rate: float = 1.0
    fates: tuple[Fate, ...] = (Fate.ACCEPTED,)
    port: int = 25
    has_dns: bool = True
    servers: tuple[str, ...] = tuple(outside4(n) for n in range(12))
    lasts: float = 40.0
    begin: float = 20.0
    helo: bytes = b"host.example"

    def add_to(self, world: World, host: Host, seed: int = 1) -> float:
        """Return the time of its first packet."""
        rng = random.Random(seed)
        for i in range(round(self.lasts * self.rate)):
            t = self.begin + i / self.rate + rng.uniform(0, 0.2 / self.rate)
            server = self.servers[i % len(self.servers)]
            if self.has_dns and self.port == 25:
                world.resolve_mx(t, host, f"domain-{i % len(self.servers)}.example", server)
            elif self.has_dns:
                world.resolve(t, host, f"smtp.domain-{i % len(self.servers)}.example", server)
            if i == 0:
                first = t
            fate = self.fates[i % len(self.fates)]
            world.mail(t + 0.05, host, server, port=self.port, fate=fate, helo=self.helo)
        return first


def office(*, link_type: int = LinkType.ETHERNET, vlan: int | None = None) -> World:
    """A site on an ordinary minute: devices come up, and look things up that are no mail."""
    world = World(link_type=link_type, vlan=vlan)
    for n, host in enumerate((GATEWAY, CAMERA, PRINTER, LAPTOP)):
        world.join(host, 0.1 * n)
    for n in range(10):
        world.lookup(2.0 * n, LAPTOP, b"www%d.example" % n, A, [Record(A, "203.0.113.80")])
    return world


FLOODS = {
    "accepted": Flood(),
    "rejected": Flood(fates=(Fate.REJECTED,)),
    "banned": Flood(fates=(Fate.BANNED,)),
    "deferred": Flood(fates=(Fate.DEFERRED,)),
    "refused": Flood(fates=(Fate.REFUSED,)),
    "unanswered": Flood(fates=(Fate.UNANSWERED,)),
    "of all kinds": Flood(fates=tuple(Fate)),
    "accepted, without DNS": Flood(has_dns=False),
    "rejected, without DNS": Flood(fates=(Fate.REJECTED,), has_dns=False),
    "refused, without DNS": Flood(fates=(Fate.REFUSED,), has_dns=False),
    "unanswered, without DNS": Flood(fates=(Fate.UNANSWERED,), has_dns=False),
    "port 587, TLS": Flood(port=587, fates=(Fate.TLS,)),
    "port 587, logins fail": Flood(port=587, fates=(Fate.LOGIN_FAILED,)),
    "port 587, unanswered, without DNS": Flood(port=587, fates=(Fate.UNANSWERED,), has_dns=False),
    "port 465": Flood(port=465, fates=(Fate.TLS,)),
    "port 465, logins fail, without DNS": Flood(port=465, fates=(Fate.LOGIN_FAILED,), has_dns=False),
    "ten servers": Flood(servers=tuple(outside4(n) for n in range(10))),
    "a new server each time": Flood(servers=tuple(outside4(n) for n in range(200))),
}
RATES = {"1/s": 1.0, "5/s": 5.0}


def check_flood(outcome: Run, first: float, key: str) -> Alert:
    """The flood is named, alone, and in time."""
    assert {k for kind, k in verdicts(outcome) if kind == "alert"} == {key}
    alert = outcome.started()[key]
    late = timedelta(seconds=seconds(alert.timestamp) - first)
    assert (alert.counts.smtp_connections, late) <= (MAX_FLOOD_CONNECTIONS, timedelta.max)
    assert late <= MAX_FLOOD_TIME
    return alert


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_alerts_in_time(flood: Flood, rate: float) -> None:
    world = office()
    faster = Flood(**{**flood.__dict__, "rate": rate})
    first = faster.add_to(world, CAMERA)
    alert = check_flood(run_world(world), first, CAMERA.key)
    assert alert.device.hostname == CAMERA.name
    assert alert.device.ips == (CAMERA.ip,)
    assert alert.completeness.dns_seen is flood.has_dns


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("has_dns", [True, False], ids=["DNS", "without DNS"])
@pytest.mark.parametrize("fate", [Fate.ACCEPTED, Fate.REFUSED, Fate.UNANSWERED])
def test_a_flood_over_ipv6_alerts_in_time(fate: Fate, has_dns: bool, rate: float) -> None:
    world = office()
    servers = tuple(outside6(n) for n in range(12))
    first = Flood(rate=rate, fates=(fate,), has_dns=has_dns, servers=servers).add_to(world, CAMERA6)
    alert = check_flood(run_world(world), first, CAMERA.key)
    assert CAMERA6.ip in alert.device.ips
    assert {flow.dest_ip for flow in alert.flows} <= {str(ip_address(server)) for server in servers}


@pytest.mark.kernel
@pytest.mark.invariant
def test_a_flood_in_a_vlan_names_the_vlan() -> None:
    world = office(vlan=30)
    first = Flood().add_to(world, CAMERA)
    assert check_flood(run_world(world), first, CAMERA.key).device.vlan == 30


@pytest.mark.kernel
@pytest.mark.invariant
def test_a_flood_without_mac_addresses_is_known_by_its_ip_address() -> None:
    world = office(link_type=LinkType.RAW)
    first = Flood().add_to(world, CAMERA)
    alert = check_flood(run_world(world), first, CAMERA.ip)
    assert (alert.device.key_kind, alert.device.mac, alert.device.vendor) == ("address", None, None)


def test_a_flood_by_a_device_that_has_mailed_quietly_for_a_week() -> None:
    world = office()
    for n in range(7 * 24):
        world.resolve(n * HOUR, CAMERA, "smtp.provider.example", outside4(300))
        world.mail(n * HOUR + 1, CAMERA, outside4(300), port=587, fate=Fate.TLS)
    first = Flood(begin=7 * DAY).add_to(world, CAMERA)
    alert = check_flood_in_the_past(run_world(world), first)
    assert seconds(alert.onset) >= 7 * DAY - HOUR


def check_flood_in_the_past(outcome: Run, first: float) -> Alert:
    assert verdicts(outcome) <= {("alert", CAMERA.key), ("review", CAMERA.key)}
    alert = outcome.started()[CAMERA.key]
    assert 0 <= seconds(alert.timestamp) - first <= MAX_FLOOD_TIME.total_seconds()
    return alert


def test_two_floods_are_two_alerts() -> None:
    world = office()
    Flood().add_to(world, CAMERA)
    Flood(fates=(Fate.REFUSED,), begin=25.0).add_to(world, PRINTER)
    assert set(run_world(world).started()) == {CAMERA.key, PRINTER.key}


# What never alerts, nor is for review.


def two_lookups_and_a_greeting(world: World) -> None:
    for n in range(2):
        world.resolve_mx(20.0 + n, CAMERA, f"domain-{n}.example", outside4(n))
    world.mail(23.0, CAMERA, outside4(0), fate=Fate.GREETED)


def burst_to_a_smarthost(world: World) -> None:
    world.resolve(20.0, CAMERA, "smtp.provider.example", outside4(300))
    for n in range(30):
        world.mail(21.0 + n, CAMERA, outside4(300), port=587, login=True)


def burst_to_a_smarthost_on_port_25(world: World) -> None:
    for n in range(30):
        world.mail(21.0 + n, CAMERA, outside4(300), fate=Fate.ACCEPTED)


def retries_against_a_blocked_server(world: World) -> None:
    for n in range(6 * 60):
        world.resolve(20.0 + n * MINUTE, CAMERA, "smtp.provider.example", outside4(300))
        world.mail(20.1 + n * MINUTE, CAMERA, outside4(300), fate=Fate.UNANSWERED)


def retries_with_a_wrong_password(world: World) -> None:
    for n in range(6 * 12):
        world.mail(20.0 + n * 5 * MINUTE, CAMERA, outside4(300), port=587, fate=Fate.LOGIN_FAILED)


def scans_to_mail(world: World) -> None:
    world.join(MAIL_HOST)
    for n in range(40):
        world.mail(30.0 + n * 3 * MINUTE, PRINTER, MAIL_HOST.ip, helo=b"printer", body_bytes=40_000)
    for n in range(20):
        world.mail(5 * HOUR + n * MINUTE, PRINTER, outside4(300), helo=b"printer", port=587, login=True)


def a_person_with_three_providers(world: World) -> None:
    rng = random.Random(7)
    for n in range(60):
        k = n % 3
        t = 60.0 + n * 8 * MINUTE + rng.uniform(0, 120)
        world.resolve(t, LAPTOP, f"smtp.provider-{k}.example", outside4(300 + k))
        world.mail(t + 0.1, LAPTOP, outside4(300 + k), port=(587, 465, 587)[k], fate=Fate.TLS)


def a_sweep_of_the_site(world: World) -> None:
    world.join(SCANNER)
    for n in range(2, 250):
        fate = Fate.GREETED if n == 10 else Fate.REFUSED if n % 3 else Fate.UNANSWERED
        world.mail(20.0 + n / 20, SCANNER, f"192.168.1.{n}", fate=fate)


QUIET = (
    two_lookups_and_a_greeting,
    burst_to_a_smarthost,
    burst_to_a_smarthost_on_port_25,
    retries_against_a_blocked_server,
    retries_with_a_wrong_password,
    scans_to_mail,
    a_person_with_three_providers,
    a_sweep_of_the_site,
)


@pytest.mark.parametrize("behave", QUIET, ids=lambda behave: behave.__name__)
def test_benign_behaviour_is_silent(behave: object) -> None:
    world = office()
    behave(world)
    outcome = run_world(world)
    assert outcome.stats["smtp_flows"] > 0
    assert verdicts(outcome) == set()


def test_a_new_contact_form_does_not_alert() -> None:
    world = office()
    world.join(WEB_HOST)
    for n in range(20):
        t = 30.0 + n * 6 * MINUTE
        world.resolve_mx(t, WEB_HOST, f"domain-{n % 10}.example", outside4(n % 10))
        world.mail(t + 0.1, WEB_HOST, outside4(n % 10), helo=b"www.site.example")
    assert verdicts(run_world(world)) <= {("review", WEB_HOST.key)}


# Proxies, and what looks like one.

CONTROLLER = outside4(700)


def proxied_mails(world: World, n_mails: int, **what: object) -> None:
    """Let the camera pass on mails, one each minute."""
    for n in range(n_mails):
        world.mail(30.0 + n * MINUTE, CAMERA, outside4(n % 6), controller=CONTROLLER, **what)


def blind() -> World:
    """A site whose DNS is not seen."""
    world = World()
    for n, host in enumerate((GATEWAY, CAMERA, LAPTOP)):
        world.join(host, 0.1 * n)
    return world


@pytest.mark.parametrize("port", [25, 587])
def test_a_proxy_is_named_though_all_is_encrypted_and_no_look_up_is_seen(port: int) -> None:
    world = blind()
    proxied_mails(world, 60, port=port, fate=Fate.TLS, body_bytes=3000)
    outcome = run_world(world)
    alert = outcome.started()[CAMERA.key]
    assert alert.cause == "mail-proxy"
    assert alert.channel == "rule:proxy"
    assert "relay_symmetry" in {reason.feature for reason in alert.reasons}
    assert alert.counts.smtp_connections <= 6


def test_a_proxy_for_five_mails_a_day_is_named_within_the_day() -> None:
    world = blind()
    for n in range(5):
        t = 30.0 + n * 4 * HOUR
        world.mail(
            t, CAMERA, outside4(n % 4), controller=CONTROLLER, fate=Fate.TLS, body_bytes=3000, port=587
        )
    assert run_world(world).started()[CAMERA.key].channel == "rule:proxy"


def test_the_same_mails_without_a_controller_are_no_proxys() -> None:
    world = blind()
    for n in range(60):
        world.mail(30.0 + n * 60, CAMERA, outside4(n % 6), fate=Fate.TLS, body_bytes=3000)
        world.say(30.0 + n * 60, CAMERA.ip, outside4(701), 400)
        world.say(30.1 + n * 60, outside4(701), CAMERA.ip, 20_000)
    assert CAMERA.key not in run_world(world).started()


def form_mails(world: World) -> None:
    """A visitor posts a form, gets a page, and the web server mails it at once."""
    for n in range(40):
        t, visitor = 30.0 + n * 3 * MINUTE, outside4(600 + n % 7)
        world.say(t, visitor, WEB_HOST.ip, 1800)
        world.say(t + 0.1, WEB_HOST.ip, visitor, 30_000)
        world.resolve_mx(t + 0.2, WEB_HOST, f"domain-{n % 3}.example", outside4(n % 3))
        world.mail(t + 0.3, WEB_HOST, outside4(n % 3), helo=b"www.site.example", body_bytes=1500)


def backup_while_mailing(world: World) -> None:
    """A device sends reports by its smarthost while its backup runs."""
    for n in range(30):
        world.say(25.0 + n, WEB_HOST.ip, outside4(702), 60_000)
        world.resolve(25.0 + n, WEB_HOST, "smtp.provider.example", outside4(300))
        world.mail(25.1 + n, WEB_HOST, outside4(300), port=587, login=True)


def fetches_and_forwards(world: World) -> None:
    """A host fetches mail at one provider and hands it to another at once, in clear and of the same size."""
    for n in range(40):
        t = 30.0 + n * 5 * MINUTE
        world.resolve(t, WEB_HOST, "smtp.provider.example", outside4(300))
        world.say(t, WEB_HOST.ip, outside4(703), 300)
        world.say(t + 0.1, outside4(703), WEB_HOST.ip, 1500)
        world.mail(t + 0.3, WEB_HOST, outside4(300), port=587, login=True, body_bytes=1200)


@pytest.mark.parametrize("behave", [form_mails, backup_while_mailing, fetches_and_forwards])
def test_what_looks_like_a_proxy_does_not_alert(behave: Callable[[World], None]) -> None:
    world = office()
    world.join(WEB_HOST)
    behave(world)
    assert verdicts(run_world(world)) <= {("review", WEB_HOST.key)}


# Mail servers.

N_DOMAINS = 100


def mail_server_day(
    world: World, day: int, rng: random.Random, *, sent: int, refused_share: float = 0.05, taken: int = 60
) -> None:
    """A mail server's working day, 08:00 to 18:00 UTC: mail from outside, and to 100 domains."""
    morning = day * DAY - 2 * HOUR if day else 0.0
    for _ in range(taken):
        peer = Host(0, outside4(400 + rng.randrange(200)))
        world.mail(morning + rng.uniform(0, 10 * HOUR), peer, MAIL_HOST.ip, recipients=rng.randrange(1, 4))
    for _ in range(sent):
        t = morning + rng.uniform(60, 9 * HOUR)
        n = min(int(rng.paretovariate(0.8)), N_DOMAINS) - 1
        server = outside4(n)
        world.resolve_mx(t, MAIL_HOST, f"domain-{n}.example", server)
        draw = rng.random()
        fate = (
            Fate.REJECTED
            if draw < refused_share
            else Fate.DEFERRED
            if draw < refused_share + 0.05
            else Fate.ACCEPTED
        )
        world.mail(t + 0.1, MAIL_HOST, server, fate=fate, helo=b"mail.site.example")
        if fate == Fate.DEFERRED:
            world.mail(t + 5 * MINUTE, MAIL_HOST, server, helo=b"mail.site.example")


def test_an_unnamed_mail_server_does_not_alert() -> None:
    world = office()
    world.join(MAIL_HOST)
    rng = random.Random(11)
    for day in range(4):
        mail_server_day(world, day, rng, sent=200)
    outcome = run_world(world)
    assert verdicts(outcome) == set()
    assert next(row["role"] for row in outcome.devices if row["device"] == MAIL_HOST.key) == "mail server"


def at_three_providers(host: Host, host_name: bytes | None = None) -> Run:
    """Let a device submit one mail in each of nine hours, by turns at three providers that it looks up."""
    world = office()
    world.join(host, 1.0, host_name=host_name)
    for i in range(9):
        world.resolve(i * HOUR + 60, host, f"smtp.provider-{i % 3}.example", outside4(300 * (i % 3)))
        world.mail(i * HOUR + 61, host, outside4(300 * (i % 3)), port=465, fate=Fate.TLS, body_bytes=5000)
    return run_world(world)


def test_a_camera_that_mails_at_three_providers_is_accused_and_a_laptop_is_not() -> None:
    outcome = at_three_providers(CAMERA)
    alert = outcome.started()[CAMERA.key]
    assert (alert.cause, alert.channel) == ("submission-abuse", "rule:appliance")
    assert {"appliance", "submission_operators_distinct_24h"} <= {reason.feature for reason in alert.reasons}
    assert verdicts(at_three_providers(LAPTOP)) == set()


def test_one_source_does_not_make_an_appliance() -> None:
    assert verdicts(at_three_providers(CAMERA, b"office-pc")) == set()  # its vendor makes other things, too
    assert verdicts(at_three_providers(LAPTOP, b"ipcam")) == set()


def named_server(days: Sequence[tuple[int, float]]) -> Run:
    """Run a mail server that the configuration names; a day is the mails it sends and the share refused."""
    world = office()
    world.join(MAIL_HOST)
    rng = random.Random(12)
    for day, (sent, refused_share) in enumerate(days):
        mail_server_day(world, day, rng, sent=sent, refused_share=refused_share)
    return run_world(world, Config(mail_servers=(Network(MAIL_HOST.ip),)))


def test_a_named_mail_server_is_quiet_on_usual_days() -> None:
    days = [(150, 0.05), (200, 0.05), (170, 0.08), (220, 0.03), (190, 0.05)]
    assert verdicts(named_server(days)) == set()


def test_a_named_mail_server_that_does_more_than_ever_is_accused() -> None:
    outcome = named_server([*[(150, 0.05)] * 4, (750, 0.4)])
    alert = outcome.started()[MAIL_HOST.key]
    assert (alert.cause, alert.channel) == ("unusual-mail", "rule:unlike-itself")
    assert seconds(alert.timestamp) > 4 * DAY - 2 * HOUR
    assert {"conn_vs_usual", "reject_vs_usual"} & {reason.feature for reason in alert.reasons}


def test_a_named_mail_server_may_send_more_when_nobody_minds() -> None:
    assert "alert" not in {kind for kind, _ in verdicts(named_server([*[(150, 0.03)] * 4, (300, 0.03)]))}


# Exceptions.

#: Two minutes into the flood of the tests below.
EXPIRY = (START + timedelta(seconds=140)).replace(tzinfo=None)
FOR_EVER = date(2099, 1, 1)
FIRST_SIX = ("192.0.2.0/29", "198.51.100.0/29")


def exception(**what: object) -> ExceptionRule:
    expires = what.pop("expires", FOR_EVER)
    return ExceptionRule(reason="known", expires=Instant(expires), **what)


SUPPRESSING = {
    "device by MAC": exception(device=Mac(CAMERA.key)),
    "device by address": exception(device=Network(CAMERA.ip)),
    "device by network": exception(device=Network("192.168.1.16/28")),
    "device by host name": exception(device=HostName(CAMERA.name)),
    "destination by network": exception(destination=Network("0.0.0.0/0")),
    "destination by domain": exception(destination=HostName("example")),
    "pair": exception(device=Mac(CAMERA.key), destination=HostName("example")),
}
OTHERS = {
    "another device": exception(device=Mac(PRINTER.key)),
    "another name": exception(device=HostName("door-camera-2")),
    "another network": exception(device=Network("192.168.2.0/24")),
    "another domain": exception(destination=HostName("ample")),
    "another destination": exception(destination=Network("192.0.2.200")),
    "pair with another device": exception(device=Mac(PRINTER.key), destination=Network("0.0.0.0/0")),
    "pair with another destination": exception(device=Mac(CAMERA.key), destination=Network("192.0.2.200")),
    "expired": exception(device=Mac(CAMERA.key), expires=START.replace(tzinfo=None)),
}


@pytest.mark.parametrize("rule", SUPPRESSING.values(), ids=SUPPRESSING)
def test_an_exception_suppresses(rule: ExceptionRule) -> None:
    world = office()
    Flood().add_to(world, CAMERA)
    outcome = run_world(world, Config(exceptions=(rule,)))
    assert verdicts(outcome) == set()
    assert outcome.stats["excepted_connections"] == 40


@pytest.mark.parametrize("rule", OTHERS.values(), ids=OTHERS)
def test_an_exception_for_something_else_does_not_suppress(rule: ExceptionRule) -> None:
    world = office()
    first = Flood().add_to(world, CAMERA)
    check_flood(run_world(world, Config(exceptions=(rule,))), first, CAMERA.key)


@pytest.mark.parametrize("rule", SUPPRESSING.values(), ids=SUPPRESSING)
def test_an_exception_ends_in_packet_time(rule: ExceptionRule) -> None:
    world = office()
    Flood(lasts=200.0).add_to(world, CAMERA)
    outcome = run_world(
        world,
        Config(
            exceptions=(
                ExceptionRule(
                    device=rule.device, destination=rule.destination, reason="known", expires=Instant(EXPIRY)
                ),
            )
        ),
    )
    assert 140 < seconds(outcome.started()[CAMERA.key].timestamp) <= 140 + MAX_FLOOD_TIME.total_seconds()


def test_an_exception_for_a_destination_leaves_the_others() -> None:
    world = office()
    Flood(servers=tuple(outside4(n) for n in range(40))).add_to(world, CAMERA)
    outcome = run_world(world, Config(exceptions=(exception(destination=Network("192.0.2.0/24")),)))
    assert CAMERA.key in outcome.started()
    assert 0 < outcome.stats["excepted_connections"] < 40


# The life of an alert.


def life(*, then: float = 2 * DAY) -> list[Alert]:
    """A flood that grows for three hours and stops; a laptop's look-ups tell the time afterwards."""
    world = office()
    Flood(rate=0.5, lasts=1 * HOUR, has_dns=False, fates=(Fate.REFUSED,)).add_to(world, CAMERA)
    Flood(rate=2, lasts=2 * HOUR, has_dns=False, fates=(Fate.REFUSED,), begin=HOUR).add_to(world, CAMERA)
    for n in range(round(then / HOUR)):
        world.lookup(3 * HOUR + n * HOUR, LAPTOP, b"www.example", A, [Record(A, "203.0.113.80")])
    return [alert for alert in run_world(world).alerts if alert.event_type == "alert"]


def test_an_alert_starts_once_gets_worse_and_ends_after_a_quiet_day() -> None:
    alerts = life()
    assert alerts[0].state == "started"
    assert alerts[-1].state == "ended"
    updates = alerts[1:-1]
    assert updates
    assert {alert.state for alert in updates} == {"updated"}
    assert len({alert.alert_id for alert in alerts}) == 1
    assert len({alert.onset for alert in alerts}) == 1
    assert "critical" in {alert.severity for alert in updates}
    assert len(updates) <= 3 + 3  # as often as it is worse, and once an hour
    assert [alert.counts.smtp_connections for alert in alerts] == sorted(
        alert.counts.smtp_connections for alert in alerts
    )
    assert abs(seconds(alerts[-1].timestamp) - 3 * HOUR - DAY) <= 10 * MINUTE


def test_an_alert_stays_open_while_the_capture_does_not_show_a_quiet_day() -> None:
    assert [alert.state for alert in life(then=20 * HOUR)][-1] == "updated"


def test_an_alert_that_ended_can_start_again() -> None:
    world = office()
    for begin in (20.0, 3 * DAY):
        Flood(begin=begin).add_to(world, CAMERA)
    alerts = [alert for alert in run_world(world).alerts if alert.event_type == "alert"]
    assert [alert.state for alert in alerts if alert.state != "updated"] == ["started", "ended", "started"]
    assert len({alert.alert_id for alert in alerts}) == 2


def community_id(flow: object) -> str:
    """Return the Community ID by its reference implementation."""
    ends = flow.src_ip, flow.dest_ip, flow.src_port, flow.dest_port
    return communityid.CommunityID().calc(communityid.FlowTuple.make_tcp(*ends))


def all_kinds_of_alerts() -> list[Alert]:
    found = life()
    for flood in (FLOODS["of all kinds"], FLOODS["port 465"], Flood(servers=tuple(map(outside6, range(12))))):
        host = CAMERA6 if ":" in flood.servers[0] else CAMERA
        for link_type in (LinkType.ETHERNET, LinkType.RAW):
            world = office(link_type=link_type)
            flood.add_to(world, host)
            found += run_world(world).alerts
    return found + run_world(banned_everywhere()).alerts


def banned_everywhere() -> World:
    """A camera that every server turns away, twenty times an hour: suspicious, and no more to the index alone."""
    world = office()
    for n in range(60):
        world.mail(30.0 + n * 3 * MINUTE, CAMERA, outside4(100 + 50 * (n % 6)), fate=Fate.BANNED)
    return world


def test_every_alert_is_as_the_schema_says() -> None:
    validator = jsonschema.Draft202012Validator(alert_schema())
    alerts = all_kinds_of_alerts()
    assert {alert.state for alert in alerts} == {"started", "updated", "ended"}
    assert {alert.event_type for alert in alerts} == {"alert", "review"}
    for alert in alerts:
        validator.validate(json.loads(alert_json(alert)))
        assert 1 <= len(alert.flows) <= 3
        for flow in alert.flows:
            assert flow.community_id == community_id(flow)


def test_reasons_are_numbers_with_words() -> None:
    for alert in all_kinds_of_alerts():
        assert 1 <= len(alert.reasons) <= 5
        assert len({reason.feature for reason in alert.reasons}) == len(alert.reasons)
        assert {reason.feature for reason in alert.reasons} <= {info.name for info in FEATURES}


# What cannot be seen.


def features_of(outcome: Run, key: str) -> dict[str, float]:
    (row,) = (row for row in outcome.windows[-1:] if row["device"] == key)
    return {info.name: row[info.name] for info in FEATURES}


def needing(need: Needs) -> set[str]:
    return {info.name for info in FEATURES if info.needs == need}


def unknown(features: dict[str, float]) -> set[str]:
    return {name for name, value in features.items() if math.isnan(value)}


def test_at_a_site_whose_dns_is_not_seen_what_needs_it_is_unknown() -> None:
    world = World()
    first = Flood(has_dns=False).add_to(world, CAMERA)
    outcome = run_world(world)
    assert check_flood(outcome, first, CAMERA.key).completeness.dns_seen is False
    assert unknown(features_of(outcome, CAMERA.key)) >= needing(Needs.DNS)


def test_what_needs_clear_text_is_unknown_without_it() -> None:
    world = office()
    Flood(fates=(Fate.UNANSWERED,)).add_to(world, CAMERA)
    assert unknown(features_of(run_world(world), CAMERA.key)) >= needing(Needs.CLEARTEXT)


def test_what_needs_a_past_is_unknown_at_first() -> None:
    world = office()
    Flood().add_to(world, CAMERA)
    of_the_past = {"conn_vs_usual", "reject_vs_usual"}
    assert unknown(features_of(run_world(world), CAMERA.key)) >= of_the_past


def test_flows_alone_are_never_unknown() -> None:
    world = World()
    Flood(has_dns=False, fates=(Fate.UNANSWERED,)).add_to(world, CAMERA)
    # A share of what never happened, of dialogues, of messages or of submissions, is unknown all the same.
    of_nothing = {"tls_empty_share_24h", "tls_used_share_24h", "accepted_share_24h", "new_server_share_24h"}
    always = needing(Needs.FLOWS) - of_nothing
    assert unknown(features_of(run_world(world), CAMERA.key)).isdisjoint(always)


@pytest.mark.kernel
@pytest.mark.invariant
def test_look_ups_are_counted_for_whoever_makes_them() -> None:
    world = office()
    for n in range(5):
        world.lookup(20.0 + n, LAPTOP, b"domain-%d.example" % n, MX, [Record(MX, f"mx.domain-{n}.example")])
    world.mail(26.0, CAMERA, outside4(300), port=587, login=True)
    outcome = run_world(world)
    counts = {row["device"]: row["mx_queries"] for row in outcome.devices}
    assert (counts[LAPTOP.key], counts[CAMERA.key]) == (5, 0)
