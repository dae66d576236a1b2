"""Features of the device table against their definitions (reference_features.py)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from device_events import (
    CAMERA,
    CAMERA_MAC,
    GATEWAY_MAC,
    OUTSIDE,
    OUTSIDE_RESOLVER,
    PRINTER,
    PRINTER_MAC,
    RESOLVER,
    START_NS,
    EventLog,
    features_of,
    new_tables,
    observe,
    row_of,
)
from hypothesis import given
from hypothesis import strategies as st
from reference_features import ReferenceDevice

from sensor.decode.status import FrameStatus
from sensor.devices.features import FEATURES, N_FEATURES, Feature, Needs, compute_features
from sensor.devices.table import DAY_NS, N_DESTINATIONS, RECENT_SLOT_NS, SECOND_NS, SLOT_NS
from sensor.events.types import EventFlag, Fate, QType, Verb

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.kernel

DAY_S = 86400.0
HOSTS = [f"203.0.{number}.{number % 3 + 1}" for number in range(10)]
NAMES = [b"mx.example.com", b"mx2.example.com", b"a.mx.example.net", b"mail.firm.co.uk", b"mx.provider.de"]


PEERS = ["198.18.0.1", "198.18.0.2", PRINTER]
SYNS = [0, 100, 101, 102, 104, 106, 108]


def add(log: EventLog, at_s: float, what: int, host: int, detail: int) -> None:
    """Add one event of the camera's; ``what`` picks its kind, ``detail`` what is particular."""
    resp = HOSTS[host]
    if what <= 3:
        log.connect(at_s, resp=resp, port=(25, 25, 587, 465)[what], aux_lo=SYNS[detail % len(SYNS)])
    elif what == 4:
        code, verb = (
            (220, Verb.NONE),
            (550, Verb.RCPT),
            (250, Verb.MAIL),
            (451, Verb.RCPT),
            (354, Verb.DATA),
            (554, Verb.NONE),
            (250, Verb.EHLO),
            (535, Verb.AUTH),
            (235, Verb.AUTH),
        )[detail % 9]
        if verb is Verb.AUTH:
            log.connect(at_s, resp=resp, port=587)
        flags = int(EventFlag.BLOCKLISTED) * (detail % 2) | int(EventFlag.GAP) * (detail % 4 == 0)
        enhanced = (0, 2_001_005, 5_001_001)[detail % 3]
        log.reply(at_s, code, verb, resp=resp, flags=flags, count=1 + detail % 2, enhanced=enhanced)
    elif what == 5:
        fate = Fate(detail % len(Fate))
        flags = int(EventFlag.TLS) if fate is Fate.TLS or detail > 20 else 0
        flags |= int(EventFlag.NO_ORIG) * (detail > 25) | int(EventFlag.TLS_IDLE) * (detail % 5 == 0)
        sizes = {"resp_bytes": detail % 4, "orig_bytes": 1000 + 20 * detail, "aux_lo": detail % 6}
        log.close(at_s, resp=resp, fate=fate, flags=flags, count=detail % 3, enhanced=detail % 2, **sizes)
    elif what == 6:
        if detail % 2:
            log.mail(at_s, resp=resp)
        else:
            log.message(at_s, (250, 550, 0)[detail % 3], resp=resp, orig_bytes=17 * detail)
    elif what == 7:
        name = (b"cam.example.com", b"[192.168.1.23]", b"localhost", b"x.example", b"y.example", b"")[
            detail % 6
        ]
        log.greet(at_s, name, resp=resp)
    elif what == 8:
        flags = int(EventFlag.DNSBL) * (detail % 5 == 0)
        server = RESOLVER if detail % 2 else OUTSIDE_RESOLVER
        log.query(at_s, qtype=(QType.MX, QType.A, QType.TXT)[detail % 3], resp=server, flags=flags)
        if detail % 6:
            log.respond(at_s, resp=server, flags=int(EventFlag.GAP) * (detail % 7 == 0))
    elif what == 9:
        log.answer(at_s, NAMES[detail % len(NAMES)], resp, ttl_s=detail * 400)
    elif what == 11:
        log.transfer(at_s, resp, 100 * detail, 50 * host, FrameStatus.MAIL)
    elif what == 12:
        peer = PEERS[host % len(PEERS)]
        if detail % 4:
            log.transfer(at_s, peer, 50 * host, 90 * detail, FrameStatus.PEER)
        else:
            ends: dict[str, Any] = {"orig": peer, "mac": GATEWAY_MAC, "resp_mac": CAMERA_MAC}
            log.transfer(at_s, CAMERA, 110 * detail, 60 * host, FrameStatus.PEER, **ends)
    elif what == 13:
        ends = {"orig": CAMERA, "resp": PEERS[0]} if detail % 2 else {"orig": PEERS[0], "resp": CAMERA}
        log.call(at_s, **ends, fingerprint=SYNS[detail % len(SYNS)])
    else:
        other = OUTSIDE if detail % 2 else PRINTER
        mac = -1 if detail % 2 else PRINTER_MAC
        who: dict[str, Any] = {"orig": other, "mac": mac, "resp": CAMERA, "resp_mac": CAMERA_MAC}
        if detail % 3:
            log.connect(at_s, **who)
        else:
            log.message(at_s, 250, **who)


STEPS = st.tuples(st.integers(0, 13), st.integers(0, len(HOSTS) - 1), st.integers(0, 29))


@st.composite
def histories(draw: st.DrawFn, longest_s: float) -> tuple[EventLog, float]:
    """Events of one device, and when they end; pauses from none to ``longest_s``."""
    pauses = st.one_of(st.just(0.0), st.floats(0, 40), st.floats(0, 4000), st.floats(0, longest_s))
    log = EventLog()
    at_s = draw(st.floats(0, DAY_S))
    log.query(at_s)  # it is known from here on: transfers and calls alone make nobody a device
    for pause_s, (what, host, detail) in draw(st.lists(st.tuples(pauses, STEPS), min_size=1, max_size=50)):
        at_s += round(pause_s, 6)
        add(log, at_s, what, host, detail)
    return log, at_s


def compare(log: EventLog, after_s: float = 0.0) -> None:
    tables = new_tables()
    observe(tables, log)
    reference = ReferenceDevice()
    events, text = log.arrays()
    for event in events:
        start = int(event["text_start"])
        reference.take(event, text[start : start + int(event["text_len"])].tobytes())
    now_ns = reference.now + round(after_s * SECOND_NS)
    found = features_of(tables, row_of(tables), now_ns)
    for feature, expected in reference.features(now_ns).items():
        assert found[feature] == pytest.approx(expected, rel=1e-12, nan_ok=True), feature.name


@given(histories(longest_s=600.0), st.floats(0, 3 * 3600))
def test_features_of_hours_are_what_they_are_defined_to_be(history, after_s):
    log, _ = history
    compare(log, after_s)


@given(histories(longest_s=2.2 * DAY_S), st.floats(0, 3 * DAY_S))
def test_features_of_days_are_what_they_are_defined_to_be(history, after_s):
    log, _ = history
    compare(log, after_s)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=40))
def test_a_burst_fades(pauses):
    log = EventLog()
    for at_s in np.cumsum(pauses):
        log.connect(float(at_s))
    compare(log)


@given(st.lists(st.integers(0, 9), max_size=30))
def test_operators_at_which_logins_fail_are_counted(hosts):
    log = EventLog()
    for i, host in enumerate(hosts):
        log.connect(i, resp=HOSTS[host], port=587)
        log.reply(i, 535, Verb.AUTH, resp=HOSTS[host])
    log.connect(50, resp=OUTSIDE, port=587)  # where none fails
    compare(log)


def test_a_burst_is_over_when_it_is_over():
    log = EventLog()
    for i in range(10):
        log.connect(i / 10)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.BURST] > 9
    compare(log, 3600.0)


def test_the_busiest_servers_share_is_of_two_days():
    log = EventLog()
    for i in range(100):
        log.connect(i, port=587)
    for day in (1, 2):
        log.connect(day * DAY_S, port=587)
    for i in range(9):
        log.connect(2 * DAY_S + 3600 + i, resp=HOSTS[i])
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.ONE_DESTINATION_SHARE] == 2 / 11
    compare(log)


def test_failed_logins_are_of_a_day():
    log = EventLog()
    log.connect(0, port=587)
    log.reply(1, 535, Verb.AUTH)
    log.connect(DAY_S + 2, port=587)
    log.reply(DAY_S + 2, 235, Verb.AUTH)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.AUTH_FAILED_OPERATORS] == 0


@pytest.mark.parametrize("second", [(OUTSIDE, 465), ("203.0.113.6", 587), ("2001:db8::25", 587)])
def test_failed_logins_at_one_provider_are_at_one_operator(second):
    log = EventLog()
    log.query(0)
    log.respond(0)
    for address, port in ((OUTSIDE, 587), second):
        log.answer(0, b"smtp.example.com", address)
        log.connect(0, resp=address, port=port)
    for address in {OUTSIDE, second[0]}:
        log.reply(1, 535, Verb.AUTH, resp=address)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.AUTH_FAILED_OPERATORS] == 1


def test_operators_on_port_25_are_of_a_day():
    log = EventLog()
    log.connect(0, port=25)
    log.connect(DAY_S - 1, port=587)
    tables = new_tables()
    observe(tables, log)
    now_ns = START_NS + round((2 * DAY_S - 2) * SECOND_NS)
    assert features_of(tables, row_of(tables), now_ns)[Feature.OPERATORS25_24H] == 0


def test_mail_under_tls_is_taken_for_accepted_to_most_of_it():
    log = EventLog()
    log.connect(0)
    log.close(1, fate=Fate.TLS, flags=int(EventFlag.TLS), count=97)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.ACCEPTED_SHARE] == pytest.approx(0.8 * 0.97)


# --- windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "slot_ns", "window_ns"),
    [(Feature.SMTP25_24H, SLOT_NS, DAY_NS), (Feature.SMTP25_1H, RECENT_SLOT_NS, 12 * RECENT_SLOT_NS)],
)
@pytest.mark.parametrize("offset_share", [0.0, 0.5, 0.999])
def test_windows_slide_by_slots(feature, slot_ns, window_ns, offset_share):
    """What happened counts for the window's length, less at most one slot."""
    offset_ns = int(offset_share * slot_ns)
    log = EventLog()
    log.connect(offset_ns / SECOND_NS)
    tables = new_tables()
    observe(tables, log)
    row = row_of(tables)
    assert features_of(tables, row, START_NS + window_ns - 1)[feature] == 1
    assert features_of(tables, row, START_NS + window_ns)[feature] == 0


@pytest.mark.parametrize(
    ("feature", "every_s"),
    [(Feature.SMTP25_1H, RECENT_SLOT_NS // SECOND_NS), (Feature.SMTP25_24H, SLOT_NS // SECOND_NS)],
)
def test_one_thing_in_each_slot_is_twelve_in_all(feature, every_s):
    for n in (1, 12, 13, 30):
        log = EventLog()
        for i in range(n):
            log.connect(float(i * every_s))
        tables = new_tables()
        observe(tables, log)
        assert features_of(tables, row_of(tables))[feature] == min(n, 12)


@pytest.mark.parametrize(("after_ns", "n"), [(60 * SECOND_NS, 1), (60 * SECOND_NS + 1, 0)])
def test_the_last_minute_is_sixty_seconds(after_ns, n):
    log = EventLog()
    log.connect(0)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables), START_NS + after_ns)[Feature.DESTINATIONS_1M] == n


@pytest.mark.parametrize(
    ("next_s", "next_resp", "share"),
    [
        (30, OUTSIDE, np.nan),  # too soon to be a retry
        (31, OUTSIDE, 0.0),
        (7200, OUTSIDE, 0.0),  # late, but a retry
        (3600, HOSTS[0], np.nan),  # it may come still
        (3601, HOSTS[0], 1 / 4),
    ],
)
def test_deferred_mail_is_tried_again_or_not(next_s, next_resp, share):
    log = EventLog()
    log.connect(0)
    log.reply(0, 450)
    log.connect(next_s, resp=next_resp)
    tables = new_tables()
    observe(tables, log)
    np.testing.assert_equal(features_of(tables, row_of(tables))[Feature.NO_RETRY_SHARE], share)


# --- distinct destinations ----------------------------------------------------------------------------------


def destinations(numbers: list[int], every_s: float = 0.01) -> tuple[Any, int]:
    log = EventLog()
    for i, number in enumerate(numbers):
        log.connect(i * every_s, resp=f"198.18.{number >> 8 & 255}.{number & 255}")
    tables = new_tables()
    observe(tables, log)
    return tables, row_of(tables)


@given(st.lists(st.integers(0, N_DESTINATIONS - 1), min_size=1, max_size=100))
def test_few_destinations_are_counted_exactly(numbers):
    tables, row = destinations(numbers)
    assert features_of(tables, row)[Feature.DESTINATIONS_24H] == len(set(numbers))
    assert features_of(tables, row)[Feature.DESTINATIONS_1M] == len(set(numbers))


@pytest.mark.parametrize("n", [33, 64, 100, 300, 1000, 5000])
def test_many_destinations_are_estimated(n):
    """HyperLogLog with 64 registers: a standard error of 13 % (Flajolet et al. 2007); four of them here."""
    rng = np.random.default_rng(n)
    estimates = []
    for _ in range(1 if n > 1000 else 5):
        tables, row = destinations(rng.permutation(1 << 16)[:n].tolist(), every_s=1e-4)
        estimates.append(features_of(tables, row)[Feature.DESTINATIONS_24H] / n)
    assert all(abs(ratio - 1) < 4 * 0.13 for ratio in estimates), estimates
    assert abs(np.mean(estimates) - 1) < 4 * 0.13 / math.sqrt(len(estimates)), estimates


def test_an_estimate_never_says_less_than_what_is_known():
    tables, row = destinations(list(range(N_DESTINATIONS + 1)))
    assert features_of(tables, row)[Feature.DESTINATIONS_24H] >= N_DESTINATIONS


def test_estimated_destinations_leave_the_day_too():
    tables, row = destinations(list(range(500)))
    assert features_of(tables, row, START_NS + 23 * 3600 * SECOND_NS)[Feature.DESTINATIONS_24H] > 200
    assert features_of(tables, row, START_NS + DAY_NS + SECOND_NS * 10)[Feature.DESTINATIONS_24H] == 0


# --- what is unknown is NaN ---------------------------------------------------------------------------------


def known_features(log: EventLog) -> set[Feature]:
    tables = new_tables()
    observe(tables, log)
    found = features_of(tables, row_of(tables))
    return {feature for feature in Feature if not np.isnan(found[feature])}


SHARES = {feature for feature in Feature if FEATURES[feature].unit == "share"}


def test_of_nothing_there_is_no_share():
    log = EventLog()
    log.query(0)
    known = known_features(log) & SHARES
    assert known == {Feature.DNS_OUTSIDE_SHARE}


NEEDS_TEXT = {
    *(Feature.BLOCKLISTED_24H, Feature.AUTH_FAILED_24H, Feature.AUTH_FAILED_OPERATORS),
    *(Feature.HELO_NAMES, Feature.HELO_ODD, Feature.MESSAGES_24H, Feature.HELO_CLASSES, Feature.DIALECTS),
    Feature.IDLE_SHARE,
}
NEEDS_DNS = {
    *(Feature.UNRESOLVED_SHARE, Feature.MX_1H, Feature.MX_24H),
    *(Feature.DNSBL_24H, Feature.DNS_OUTSIDE_SHARE),
}


def test_what_was_not_seen_is_not_known():
    log = EventLog()
    log.connect(0)
    log.close(1, fate=Fate.TLS, flags=int(EventFlag.TLS), count=1)
    assert not known_features(log) & (NEEDS_TEXT | NEEDS_DNS)
    log.reply(2, 250)
    assert known_features(log) >= NEEDS_TEXT
    assert not known_features(log) & NEEDS_DNS
    log.query(3)
    log.connect(4)
    assert NEEDS_DNS - known_features(log) == {Feature.UNRESOLVED_SHARE}  # the mirror may be one-way
    log.respond(5)
    log.connect(6)
    assert known_features(log) >= NEEDS_TEXT | NEEDS_DNS


def test_what_needs_to_be_seen_is_said_in_the_list():
    needs = {need: {f for f in Feature if FEATURES[f].needs == need} for need in Needs}
    assert needs[Needs.CLEARTEXT] == NEEDS_TEXT | {Feature.REJECT_SHARE, Feature.NO_RETRY_SHARE}
    assert needs[Needs.DNS] == NEEDS_DNS


def test_a_new_device_has_no_past():
    log = EventLog()
    log.connect(0)
    known = known_features(log)
    assert not known & {Feature.VERSUS_USUAL, Feature.REJECT_VERSUS_USUAL}
    assert Feature.SILENT_DAYS in known


@pytest.mark.parametrize(("n_days", "is_known"), [(3, False), (4, True)])
def test_three_whole_days_with_mail_are_a_past(n_days, is_known):
    log = EventLog()
    for day in range(n_days):
        log.connect(day * DAY_S)
        log.reply(day * DAY_S, 250)
    known = known_features(log)
    assert {Feature.VERSUS_USUAL, Feature.REJECT_VERSUS_USUAL} <= known or not is_known
    assert (Feature.VERSUS_USUAL in known) == is_known


@pytest.mark.parametrize(("n", "part"), [(1, 1), (3, 2), (300, 150)])
def test_a_share_of_few_things_is_shrunk(n, part):
    log = EventLog()
    log.connect(0)
    for i in range(n):
        log.reply(1, 550 if i < part else 250)
    tables = new_tables()
    observe(tables, log)
    assert features_of(tables, row_of(tables))[Feature.REJECT_SHARE] == part / (n + 3)


# --- the list of features -----------------------------------------------------------------------------------


def test_every_feature_is_described():
    assert len(FEATURES) == N_FEATURES == len({info.name for info in FEATURES})
    for info in FEATURES:
        assert info.direction in (-1, 0, 1)
        assert isinstance(info.needs, Needs)
        assert info.meaning
        assert info.unit


@given(histories(longest_s=DAY_S))
def test_shares_lie_between_nothing_and_all(history):
    log, _ = history
    tables = new_tables()
    observe(tables, log)
    found = features_of(tables, row_of(tables))[sorted(SHARES - {Feature.REJECT_VERSUS_USUAL})]
    assert ((found >= 0) & (found <= 1) | np.isnan(found)).all()


def test_rows_are_computed_in_the_order_asked_for():
    log = EventLog()
    for i in range(5):
        for _ in range(i + 1):
            log.connect(0, orig=f"192.168.1.{i + 2}", mac=CAMERA_MAC + i)
    tables = new_tables()
    observe(tables, log)
    rows = np.array([row_of(tables, CAMERA_MAC + i) for i in (4, 0, 2)], dtype=np.int64)
    out: NDArray[np.float64] = np.full((4, N_FEATURES), -7.0)
    compute_features(tables, rows, 3, int(tables.clock[0]["now_ns"]), out[:3])
    assert out[:3, Feature.SMTP25_24H].tolist() == [5, 1, 3]
    assert (out[3] == -7).all()


@given(histories(longest_s=DAY_S))
def test_asking_changes_nothing(history):
    log, _ = history
    tables = new_tables()
    observe(tables, log)
    row = row_of(tables)
    np.testing.assert_array_equal(features_of(tables, row), features_of(tables, row))


# --- what else passes -----------------------------------------------------------------------------------------


def relayed(*slots: tuple[int, int, int, int], peers: int = 1) -> float:
    """The symmetry after slots of (mail sent, replies, from the peer, to the peer), 5 s each."""
    log = EventLog()
    log.connect(0)
    for n, (mail_out, mail_in, peer_in, peer_out) in enumerate(slots):
        log.transfer(5.0 * n, OUTSIDE, mail_out, mail_in, FrameStatus.MAIL)
        for k in range(peers):
            share = (peer_out, peer_in) if k == 0 else (7, 7)
            log.transfer(5.0 * n, f"198.18.1.{k}", *share, FrameStatus.PEER)
    tables = new_tables()
    observe(tables, log)
    return float(features_of(tables, row_of(tables))[Feature.RELAY_SYMMETRY])


def test_a_proxy_sends_what_it_is_sent_and_returns_the_replies():
    assert relayed(*[(2000, 500, 2000, 500)] * 20) > 0.9
    assert relayed(*[(2000, 500, 2300, 900)] * 20) > 0.5  # wrapped in records of its own
    assert relayed((2000, 500, 2000, 500)) == pytest.approx(1 / 3)  # of one mail little can be said


@pytest.mark.parametrize(
    "slots",
    [
        [(2000, 500, 1500, 80_000)],  # a contact form: a short request, and a page back
        [(2000, 500, 2000, 20)],  # the same size one way only
        [(2000, 500, 900_000, 9_000)],  # a stream
        [(2000, 500, 9_000, 900_000)],  # a backup
        [(2000, 500, 0, 0), (0, 0, 2000, 500)],  # fetched first, mailed later
        [(2000, 500, 0, 0)],
    ],
)
def test_what_only_looks_like_a_proxy_has_little_symmetry(slots):
    assert relayed(*slots * 20) < 0.1


def test_one_peer_among_many_is_found_and_kept():
    assert relayed(*[(2000, 500, 2000, 500)] * 20, peers=6) > 0.9
    assert relayed(*[(2000, 500, 2000, 500)] * 40, peers=30) > 0.8


def test_slots_without_mail_count_for_nothing():
    slots = [(2000, 500, 2000, 500)] * 20
    assert relayed(*slots, *[(0, 0, 10**6, 10**6)] * 50) == relayed(*slots)


def test_where_nothing_but_mail_is_seen_the_rest_is_not_known():
    log = EventLog()
    for n in range(5):
        log.connect(n)
    known = known_features(log)
    assert not known & {Feature.RELAY_SYMMETRY, Feature.FOREIGN_SYN}
    assert Feature.CALLED_SHARE in known
