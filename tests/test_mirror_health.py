"""A mirror that carries nothing, or one direction only, by made-up totals."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.capture.frames import FrameBatch
from sensor.capture.merge import open_captures
from sensor.config import Config, Network
from sensor.mirror import MIN_HEARD, PATIENCE_S, MirrorHealth
from sensor.pipeline import Pipeline

PCAPS = Path(__file__).parents[1] / "pcaps"

QUIET: dict[str, Any] = {
    "packets": 0,
    "outside_connections": 0,
    "outside_answers": 0,
    "elsewhere_connections": 0,
    "smtp_commands": 0,
    "smtp_replies": 0,
    "dns_queries": 0,
    "dns_responses": 0,
    "interfaces": {"eth1": "up"},
}
PAIRS = {
    "mail_answers": ("outside_connections", "outside_answers"),
    "mail_commands": ("smtp_replies", "smtp_commands"),
    "home_mail": ("elsewhere_connections", "outside_connections"),
    "dns_responses": ("dns_queries", "dns_responses"),
    "dns_queries": ("dns_responses", "dns_queries"),
}


class Mirror:
    """Totals that grow, looked at each second."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.totals = dict(QUIET)
        self.health = MirrorHealth(self.now_s)
        self.said: list[str] = []

    def run(self, seconds: int, each_s: int = 1, **grow: int) -> list[str]:
        """Let time go on, in which totals grow by ``grow`` each ``each_s`` seconds; return what is said."""
        said: list[str] = []
        for second in range(seconds):
            if second % each_s == 0:
                for name, n in grow.items():
                    self.totals[name] += n
            said += self.health.look(self.now_s, self.totals)
            self.now_s += 1
        self.said += said
        return said

    def look(self, now_s: float, totals: dict[str, Any]) -> None:
        """Look at the totals of a run."""
        self.totals |= totals
        self.said += self.health.look(now_s, self.totals)

    @property
    def missing(self) -> set[str]:
        return {kind for kind, is_missing in self.health.faults().items() if is_missing}


def test_silence_is_said_once_and_its_end_too() -> None:
    mirror = Mirror()
    assert mirror.run(60) == []
    assert mirror.run(600) == ["no packet on eth1 for 60 s: is the mirror configured?"]
    assert mirror.missing == {"packets"}
    assert mirror.run(100, packets=1) == ["packets come again"]
    assert mirror.missing == set()
    assert mirror.run(59) == []
    assert len(mirror.run(60)) == 1


def test_silence_of_an_interface_that_is_down_is_not_said_twice() -> None:
    mirror = Mirror()
    mirror.totals["interfaces"] = {"eth1": "down", "eth2": "gone"}
    assert mirror.run(600) == []
    mirror.totals["interfaces"] = {"eth1": "up", "eth2": "up", "eth\x1b3": "no carrier"}
    assert mirror.run(59) == []
    assert mirror.run(60) == ["no packet on eth1 or eth2 for 60 s: is the mirror configured?"]


@pytest.mark.parametrize(("kind", "pair"), PAIRS.items())
def test_one_direction_is_noticed_within_a_minute_or_so(kind: str, pair: tuple[str, str]) -> None:
    heard, missed = pair
    mirror = Mirror()
    assert mirror.run(60, packets=1, **{heard: 1}) == []
    (line,) = mirror.run(600, packets=1, **{heard: 1})
    assert ("is the mirror one-way" if kind != "home_mail" else "(--home-net)?") in line
    assert mirror.missing == {kind}
    said = mirror.run(1, packets=1, **{heard: 1, missed: 1})
    (again,) = said
    assert "again" in again
    assert mirror.missing == set()


def test_mail_of_other_networks_is_noticed_and_whose_it_is() -> None:
    totals = {}
    for home_net in ("192.168.50.0/24", "10.0.0.0/8"):
        pipeline = Pipeline(Config(home_nets=(Network(home_net),)), on_alert=lambda _: None)
        with contextlib.closing(
            open_captures(
                [str(PCAPS / "flood-camera.pcap")], on_problem=lambda problem: pytest.fail(str(problem))
            )
        ) as batches:
            for batch in batches:
                pipeline.feed(batch)
        totals[home_net] = pipeline.stats()
    mine, other = totals.values()
    assert (mine["elsewhere_connections"], mine["elsewhere_sender"]) == (0, None)
    assert other["elsewhere_connections"] >= mine["outside_connections"] > 100
    assert other["elsewhere_sender"] == "192.168.50.21"  # the camera


def test_what_is_missing_from_outside_is_named() -> None:
    mirror = Mirror()
    mirror.run(70, packets=1, outside_connections=2)
    assert mirror.said == [
        "no answer seen from outside in 60 s, of 122 mail connections: is the mirror one-way, or mail blocked?"
    ]


def test_local_answers_do_not_hide_that_those_from_outside_are_missing() -> None:
    mirror = Mirror()
    mirror.run(
        70, packets=1, outside_connections=1, dns_queries=1, dns_responses=1, smtp_commands=1, smtp_replies=1
    )
    assert mirror.missing == {"mail_answers"}


@pytest.mark.parametrize("path", sorted(PCAPS.glob("*.pcap")), ids=lambda path: path.stem)
def test_captures_of_the_lab_lack_nothing(path: Path) -> None:
    """... but that nothing comes back where mail is blocked: what an answer is missing for cannot be told."""
    pipeline = Pipeline(Config(), on_alert=lambda _: None)
    mirror: Mirror | None = None
    with contextlib.closing(
        open_captures([str(path)], on_problem=lambda problem: pytest.fail(str(problem)))
    ) as batches:
        for batch in batches:
            for first in range(0, len(batch.frames), 16):
                frames = batch.frames[first : first + 16]
                pipeline.feed(FrameBatch(batch.data, frames))
                mirror = mirror or Mirror(frames[0]["ts_ns"] / 1e9)
                mirror.look(frames[-1]["ts_ns"] / 1e9, pipeline.stats())
    assert mirror is not None
    assert mirror.totals["outside_answers"] > 0
    may_ask = path.stem == "blocked-dvr"
    assert mirror.missing == set()
    assert [
        line for line in mirror.said if not (may_ask and ("mail blocked?" in line or "again" in line))
    ] == []


@pytest.mark.parametrize("heard", [heard for heard, _ in PAIRS.values()])
def test_a_dead_server_asked_now_and_then_is_no_one_way_mirror(heard: str) -> None:
    mirror = Mirror()
    assert mirror.run(7200, packets=1) == []
    assert mirror.run(7200, each_s=20, **{"packets": 1, heard: 1}) == []
    assert MIN_HEARD > 60 // 20


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_where_both_directions_come_nothing_is_said(steps: list[tuple[int, int, int]]) -> None:
    """Whatever the rates: as long as no stretch of PATIENCE_S lacks either direction."""
    mirror = Mirror()
    for seconds, n_heard, n_missed in steps:
        for _ in range(0, seconds, int(PATIENCE_S) - 1):
            mirror.run(1, packets=1, **{name: 1 + n_missed for _, name in PAIRS.values()})
            mirror.run(int(PATIENCE_S) - 2, packets=1, outside_connections=n_heard)
    assert mirror.said == []


@given(st.lists(st.tuples(st.integers(1, 90), *[st.integers(0, 2)] * (len(QUIET) - 1)), max_size=20))
def test_news_alternate(steps: list[tuple[int, ...]]) -> None:
    """However totals grow, each complaint is followed by its end before it comes again."""
    mirror = Mirror()
    names = [name for name in QUIET if name != "interfaces"]
    for seconds, *grow in steps:
        before = mirror.missing
        said = mirror.run(1, **dict(zip(names, grow, strict=True)))
        after = mirror.missing
        assert len(said) == len(before ^ after)
        for _ in range(seconds):
            before = mirror.missing
            assert len(mirror.run(1)) == len(before ^ mirror.missing)
