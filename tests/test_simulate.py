"""The two levels of the simulation agree, labels say what happened, and nothing but behaviour tells classes apart."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from sensor.cli import main
from sensor.devices.features import FEATURES, N_FEATURES, Feature, compute_features
from sensor.devices.table import KEY_FREE
from sensor.devices.view import key_text
from sensor.errors import ConfigError, DataError
from sensor.events.types import EVENT_DTYPE, EventFlag, EventKind, Fate
from sensor.pipeline import Pipeline
from sensor.simulate.benign import KINDS, MIXES
from sensor.simulate.emit import Templates, emit
from sensor.simulate.families import FAMILIES
from sensor.simulate.life import DAY_S
from sensor.simulate.render import frame_batch, render, write_pcap
from sensor.simulate.sessions import Outcome, Shape, View, What, pack_shapes, unpack_shape
from sensor.simulate.site import Site, make_site, make_sites
from sensor.simulate.store import open_world, write_world
from sensor.simulate.world import WORLDS, Plan, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SECOND_NS = 1_000_000_000
#: A connection that nothing ends is reported when the flow table is swept: within a round of it, give or take.
SWEEP_NS = 8 * SECOND_NS


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates()


def replace_world(world: World, **changes: Any) -> World:
    return World(**{**world.__dict__, **changes})


def a_site(kind: str, n: int, *, seed: int = 5, days: float = 1.0, **changes: Any) -> Site:
    world = replace_world(WORLDS["realistic"], infected=0.5, **changes)
    return make_site(Plan(world, seed, n, days), 0, kind, n)


def first_sessions(site: Site, n: int) -> NDArray[Any]:
    """The first sessions of each device, so that all kinds and families of a site are among few sessions."""
    rank = np.zeros(len(site.sessions), dtype=np.int64)
    for device in np.unique(site.sessions["device"]):
        for spam in (0, 1):
            of = (site.sessions["device"] == device) & (site.sessions["is_spam"] == spam)
            rank[of] = np.arange(int(of.sum()))
    return site.sessions[rank < n].copy()


def watch(site: Site) -> tuple[Pipeline, list[NDArray[Any]], list[bytes]]:
    """A pipeline, and the lists that fill with its events and their text."""
    rows: list[NDArray[Any]] = []
    said: list[bytes] = []

    def on_events(events: NDArray[Any], text: NDArray[np.uint8]) -> None:
        rows.append(events.copy())
        said.extend(
            text[start : start + length].tobytes()
            for start, length in zip(events["text_start"], events["text_len"], strict=True)
        )

    return Pipeline(site.config, on_alert=lambda _: None, on_events=on_events), rows, said


def from_packets(site: Site, sessions: NDArray[Any]) -> tuple[Pipeline, NDArray[Any], list[bytes]]:
    pipeline, rows, said = watch(site)
    pipeline.feed(frame_batch(render(sessions, site.scene)))
    pipeline.finish()
    return pipeline, np.concatenate(rows), said


def from_events(
    site: Site, sessions: NDArray[Any], templates: Templates, **options: Any
) -> tuple[Pipeline, NDArray[Any], list[bytes]]:
    pipeline, rows, said = watch(site)
    for events in emit(sessions, site.scene, templates, **options):
        pipeline.observe(events, site.scene.text)
    pipeline.finish()
    return pipeline, np.concatenate(rows), said


def features_of(pipeline: Pipeline, now_ns: int) -> dict[str, NDArray[np.float64]]:
    """All features of all devices at one time, by key."""
    t = pipeline._devices
    rows = np.flatnonzero(t.devices["key_kind"] != KEY_FREE)
    features = np.zeros((len(rows), N_FEATURES))
    compute_features(t, rows, len(rows), now_ns, features)
    return {key_text(t, int(row)): features[i] for i, row in enumerate(rows)}


def content_of(events: NDArray[Any], said: list[bytes], *, is_lossy: bool) -> Counter[tuple[Any, ...]]:
    """Events without their numbers in a run, and those that a time-out brings without their time.

    Where packets are lost (``is_lossy``), FINs are among them, and the end of any connection may be a time-out.

    Without what events alone do not have: the fingerprint of SYNs.
    """
    names = [n for n in EVENT_DTYPE.names or () if n not in ("flow_id", "text_start", "text_len")]
    counted: Counter[tuple[Any, ...]] = Counter()
    for event, text in zip(events[names], said, strict=True):
        values = dict(zip(names, event.item(), strict=True))
        if values["kind"] == EventKind.TRANSFER:
            # Reported when the next slot's first packet comes; and who spoke first is the first end.
            values["ts_ns"] = -1
            ends = [
                tuple(values[f"{end}_{what}"] for what in ("hi", "lo", "mac", "bytes"))
                for end in ("orig", "resp")
            ]
            counted[("transfer", values["code"], values["aux_lo"], *sorted(ends))] += 1
            continue
        if values["kind"] == EventKind.CONN_OPEN:
            values["aux_lo"] = 0
        if values["kind"] == EventKind.PEER_CALL:  # nobody asks for its ports
            values["orig_port"] = values["resp_port"] = 0
        # Held back behind a lost packet, or open until nothing came any more.
        is_timeout = values["flags"] & (EventFlag.GAP | EventFlag.NO_RESP | EventFlag.NO_ORIG) or (
            values["kind"] == EventKind.CONN_CLOSE and (is_lossy or values["code"] == Fate.UNANSWERED)
        )
        if values["kind"] == EventKind.SMTP_MESSAGE and values["code"] == 0:
            is_timeout = True
        if is_timeout:
            values["ts_ns"] = -1
        counted[(*values.values(), text)] += 1
    return counted


#: Told by packets alone.
FROM_PACKETS_ONLY = (Feature.FOREIGN_SYN,)
#: Which mails were the last hangs on when connections end; a time-out is noticed within seconds, give or take.
OF_THE_LAST = (Feature.SIZE_MEAN, Feature.SIZE_SPREAD, Feature.SAME_SIZE_SHARE)
SITES = {
    "office": {"kind": "office", "n": 60},
    "isp": {"kind": "isp", "n": 50},
    "blind": {"kind": "home", "n": 25, "blind_sites": 1.0},
    "ipv6": {"kind": "home", "n": 30, "ipv6": 1.0},
    "lossy": {"kind": "office", "n": 40, "lossy_sites": 1.0, "max_loss": 0.05},
    "one-sided": {"kind": "office", "n": 40, "one_sided_sites": 1.0, "seed": 6},
    "the other side": {"kind": "office", "n": 40, "one_sided_sites": 1.0, "seed": 7},
}


@pytest.mark.parametrize("name", SITES)
def test_packets_and_events_agree(name: str, templates: Templates) -> None:
    """The same sessions give the same events and all features, as packets through the decoder or at once."""
    site = a_site(**SITES[name])  # type: ignore[arg-type]
    sessions = first_sessions(site, 25)
    sessions["body"] = np.minimum(sessions["body"], 20_000)  # large attachments only cost time
    by_packets, packet_rows, packet_text = from_packets(site, sessions)
    by_events, event_rows, event_text = from_events(site, sessions, templates)
    expected = content_of(packet_rows, packet_text, is_lossy=site.loss > 0)
    made = content_of(event_rows, event_text, is_lossy=site.loss > 0)
    assert made - expected == Counter()
    assert expected - made == Counter()
    # At a time by which all is over, and before the first of it leaves the windows.
    now_ns = int(max(packet_rows["ts_ns"].max(), event_rows["ts_ns"].max())) + SWEEP_NS
    expected_features, features = features_of(by_packets, now_ns), features_of(by_events, now_ns)
    assert features.keys() == expected_features.keys()
    n_mailing = 0
    has_time_outs = site.loss > 0 or site.view != View.BOTH
    for key, values in features.items():
        n_mailing += bool(values[Feature.SMTP25_24H] + values[Feature.SUBMISSION_24H] > 0)
        for at in Feature:
            feature = FEATURES[at]
            if at in FROM_PACKETS_ONLY or (at in OF_THE_LAST and has_time_outs):
                continue
            assert values[at] == pytest.approx(expected_features[key][at], nan_ok=True, abs=1e-6), (
                key,
                feature.name,
            )
    assert n_mailing > 5


@pytest.mark.oracle
def test_tshark_finds_nothing_wrong_with_the_packets(tmp_path: Path) -> None:
    site = a_site("office", 40, ipv6=0.4)
    sessions = first_sessions(site, 10)
    sessions["body"] = np.minimum(sessions["body"], 20_000)
    path = tmp_path / "site.pcap"
    with path.open("wb") as stream:
        n = write_pcap(stream, render(sessions, site.scene))
    checked = [f"-o{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp")]
    wrong = "_ws.malformed or _ws.expert.severity >= 8388608 or ip.checksum.status == 0 or tcp.checksum.status == 0"
    command = ["tshark", "-r", str(path), *checked, "-Tfields", "-eframe.number"]
    whole = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(whole) == n > 1000
    shown = subprocess.run(
        [*command, "-Y", f"{wrong} or udp.checksum.status == 0"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == []


def test_seeds_of_the_one_sided_sites_show_either_side() -> None:
    views = {a_site(**SITES[name]).view for name in ("one-sided", "the other side")}  # type: ignore[arg-type]
    assert views == {View.ORIG, View.RESP}


def test_events_do_not_depend_on_chunks(templates: Templates) -> None:
    site = a_site("office", 40)
    sessions = site.sessions[:4000]
    whole = np.concatenate(list(emit(sessions, site.scene, templates, chunk=1 << 30)))
    assert (np.diff(whole["ts_ns"]) >= 0).all()
    for chunk in (1, 17, 1000):
        parts = np.concatenate(list(emit(sessions[:600], site.scene, templates, chunk=chunk)))
        expected = np.concatenate(list(emit(sessions[:600], site.scene, templates, chunk=1 << 30)))
        assert parts.tobytes() == expected.tobytes()


def test_shapes_survive_packing() -> None:
    shape = Shape(What.LOOKUP_MX, Outcome.TLS_EMPTY, 63, 62, 1, 0, 1, 1, View.RESP, 300)
    assert unpack_shape(int(pack_shapes(**shape._asdict()))) == shape


# Determinism.


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    plan = Plan(WORLDS["hostile"], 3, 60, 0.5)
    write_world(plan, tmp_path / "one", with_pcap=False)
    write_world(plan, tmp_path / "two", n_processes=2)
    write_world(Plan(WORLDS["hostile"], 4, 60, 0.5), tmp_path / "other")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_a_site_does_not_depend_on_the_others() -> None:
    plan = Plan(WORLDS["realistic"], 2, 200, 0.5)
    sites = list(make_sites(plan))
    kind, n = plan.site_sizes()[-1]
    again = make_site(plan, len(sites) - 1, kind, n)
    assert again.sessions.tobytes() == sites[-1].sessions.tobytes()
    assert again.residents == sites[-1].residents


# Labels.


def test_labels_say_what_the_sessions_do() -> None:
    families = set()
    for name in ("tame", "realistic", "hostile"):
        for site in make_sites(Plan(replace_world(WORLDS[name], infected=0.4), 8, 150, 0.5)):
            assert (np.diff(site.sessions["ts_ns"]) >= 0).all()
            assert len(site.residents) == len({resident.number for resident in site.residents})
            for resident in site.residents:
                mine = site.sessions[site.sessions["device"] == resident.number]
                spam = mine[mine["is_spam"] == 1]
                assert resident.kind in KINDS
                if not resident.family:
                    assert len(spam) == 0
                    assert resident.infected_from_ns == resident.first_spam_ns == resident.n_spam == 0
                    continue
                families.add(resident.family)
                assert resident.family in FAMILIES
                if len(spam):
                    assert resident.infected_from_ns - SECOND_NS <= spam["ts_ns"].min()
                    assert spam["ts_ns"].max() <= resident.infected_until_ns
                assert (resident.n_spam > 0) == (resident.first_spam_ns > 0)
    assert families == set(FAMILIES)


#: Spam attempts a day of each family, SCIENCE.md 2.2; of F3 over its waves, of F8 over a laptop's to a list's.
PER_DAY = {
    "thingbot": (1, 10),
    "proxym": (200 * 0.6, 800),
    "freemail_proxy": (50 / 3, 4_000),
    "residential_proxy": (5, 60),
    "direct_to_mx": (300, 25_000),
    "credential_spray": (40, 600),
    "ultra_low": (1, 5),
    "hijacked_sender": (3 * 3, 10 * 1_500),
    "blocked_bot": (100, 10_000),
    "open_relay": (4_000, 40_000),
    "stolen_accounts": (3, 60),
}


def test_families_send_what_is_known_of_them() -> None:
    changes = {"infected": 1.0, "ramps": 0.0, "limited": 0.0, "onboarding": 0.0, "leaving": 0.0}
    world = replace_world(WORLDS["realistic"], **changes)
    rates: dict[str, list[float]] = {name: [] for name in FAMILIES}
    for site in make_sites(Plan(world, 9, 100, 2.0)):
        for resident in site.residents:
            rates[resident.family].append(resident.mails_per_day)
    assert PER_DAY.keys() == rates.keys()
    for name, (low, high) in PER_DAY.items():
        assert low <= np.median(rates[name]) <= high, name
        # The ranges are 5 to 95 %, and few devices scatter.
        assert max(rates[name]) <= 5 * high, name


def test_every_kind_lives_somewhere() -> None:
    assert {kind for mix in MIXES.values() for kind in mix} == set(KINDS)


def test_the_sensor_finds_the_labelled_devices(templates: Templates) -> None:
    """The keys of labels.tsv are those that the sensor gives its devices."""
    for kind in ("home", "office", "isp"):
        site = a_site(kind, 25, days=0.3)
        pipeline, _, _ = from_events(site, site.sessions, templates)
        known = set(pipeline.device_table()["device"])
        for resident in site.residents:
            if resident.first_seen_ns:
                assert known & set(resident.keys), (kind, resident)


def test_a_world_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(WORLDS["realistic"], 3, 60, 0.5)
    write_world(plan, tmp_path / "data", with_pcap=True)
    data = open_world(tmp_path / "data")
    assert (data.manifest["world"], data.manifest["seed"]) == ("realistic", 3)
    for site, expected in zip(data.sites(), make_sites(plan), strict=True):
        assert site.sessions.tobytes() == expected.sessions.tobytes()
        assert site.scene.text.tobytes() == expected.scene.text.tobytes()
        assert site.home_nets == expected.home_nets
        for resident, other in zip(site.residents, expected.residents, strict=True):
            assert resident.keys == other.keys
            assert (resident.family, resident.first_spam_ns) == (other.family, other.first_spam_ns)
            assert resident.infected_from_ns == other.infected_from_ns


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("manifest.json", lambda _: b"{"),
        ("manifest.json", lambda raw: raw.replace(b'"format": 2', b'"format": 1')),
        ("labels.tsv", lambda raw: raw.replace(b"silent", b"camera")),
        ("labels.tsv", None),
        ("site-00000.npz", lambda raw: raw[:-1]),
        ("site-00000.npz", None),
    ],
)
def test_damaged_data_is_one_clear_error(tmp_path: Path, name: str, change: Any) -> None:
    write_world(Plan(WORLDS["tame"], 3, 8, 0.2), tmp_path / "data")
    path = tmp_path / "data" / name
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=name):
        list(open_world(tmp_path / "data").sites())


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_world(Plan(WORLDS["tame"], 3, 8, 0.2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# Cold captures.


def test_cold_captures_are_short_and_have_a_sender_in_them() -> None:
    sites = list(make_sites(Plan(WORLDS["realistic"], 4, 300, 7.0, is_cold=True)))
    assert len(sites) > 10
    for site in sites:
        length_s = (site.end_ns - site.start_ns) / SECOND_NS
        assert 600 <= length_s <= 6 * 3600
        assert {resident.kind for resident in site.residents} & {
            *("mail_server", "web_shop", "new_small_server", "mailing_list", "web_cron_host")
        } or any(resident.family for resident in site.residents)
        assert not (site.sessions["shape"] & 7 == What.HELLO).any()


# Nothing but behaviour.


def appearances(site: Site) -> Iterator[tuple[list[float], bool]]:
    """What a device looks like apart from what it does, and whether it is infected."""
    for resident in site.residents:
        is_hello = site.sessions["shape"] & 7 == What.HELLO
        mine = site.sessions[(site.sessions["device"] == resident.number) & ~is_hello]
        if len(mine) == 0:
            continue
        end = site.scene.endpoints[mine["orig"][0]]
        word = site.scene.word(int(mine["name"][0]))
        first_s = int(mine["ts_ns"][0]) // SECOND_NS
        yield (
            [
                float(end["lo"] & 0xFF),
                float(end["lo"] >> 8 & 0xFF),
                float(end["hi"] != 0),
                float(end["mac"] >> 24),
                float(end["mac"] & 0xFFFF),
                float(end["ttl"]),
                float(end["stack"]),
                float(mine["orig_port"][0]),
                float(resident.number),
                float(site.scene.vlan),
                float(first_s % DAY_S),
                float(first_s // DAY_S % 7),
                float(first_s),
                float(len(word)),
                float(sum(word) % 97),
            ],
            bool(resident.family),
        )


def test_nothing_but_behaviour_separates_the_classes() -> None:
    """A classifier that sees only addresses, names, ports, TTLs and dates does no better than chance."""
    world = replace_world(WORLDS["realistic"], infected=0.4)
    rows = [row for site in make_sites(Plan(world, 11, 1600, 0.1)) for row in appearances(site)]
    seen = np.array([row for row, _ in rows])
    is_infected = np.array([infected for _, infected in rows])
    half = len(rows) // 2  # by site: the two halves share none but one
    model = RandomForestClassifier(100, min_samples_leaf=5, random_state=0)
    model.fit(seen[:half], is_infected[:half])
    score = roc_auc_score(is_infected[half:], model.predict_proba(seen[half:])[:, 1])
    assert 0.45 <= score <= 0.55


# The command.


def test_the_command_writes_a_world(tmp_path: Path) -> None:
    out = tmp_path / "data"
    options = [
        "--world",
        "tame",
        "--devices",
        "20",
        "--days",
        "0.2",
        "--seed",
        "2",
        "--out",
        str(out),
        "--pcap",
    ]
    done = CliRunner().invoke(main, ["simulate", *options])
    assert done.exit_code == 0, done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["devices"] == 20
    assert sum(site["devices"] for site in manifest["sites"]) == 20
    assert (out / manifest["sites"][0]["pcap"]).stat().st_size > 24
    assert (out / "labels.tsv").read_text().count("\n") == 21


@pytest.mark.parametrize("options", [[], ["--out", "x", "--cold", "--days", "3"]])
def test_wrong_options_are_said(options: list[str]) -> None:
    done = CliRunner().invoke(main, ["simulate", *options])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 2
