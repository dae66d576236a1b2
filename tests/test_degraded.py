"""The captures of the lab, degraded as mirror ports do it: same verdicts where what they rest on is left."""

from __future__ import annotations

from functools import cache

import pytest

from tests.degraded import BEGIN, DEGRADATIONS, END, PAGE, Outcome, judge, table_row

ROWS = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
#: Much of what a verdict rests on is not there, the words of replies first: the page says what is left.
PARTIAL = {
    "only what goes out",
    "only what comes in",
    "cut to 128 bytes",
    "cut to 96 bytes",
    "cut to 64 bytes",
}
#: What shows all packets, in whatever way: as many connections, commands, replies and look-ups as without.
COMPLETE = {
    "every frame twice",
    "before and behind the gateway",
    "checksums left to hardware",
    "segments joined by offload",
    "clock set back, ten times",
    "time stamps astray by 5 ms",
}
COUNTS = ("smtp_flows", "mail_syns", "smtp_commands", "smtp_replies", "dns_queries", "mx_queries", "devices")


@cache
def outcome_of(name: str) -> Outcome:
    return judge(name)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_nobody_is_accused_wrongly_and_the_page_says_what_is_found(name: str) -> None:
    outcome = outcome_of(name)
    assert outcome.wrongly_named == 0
    assert table_row(name, outcome) in ROWS, "run `make docs`"


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name not in PARTIAL])
def test_the_same_devices_are_named_for_the_same_cause(name: str) -> None:
    outcome = outcome_of(name)
    assert (outcome.named, outcome.named_otherwise) == (outcome.infected, 0)


@pytest.mark.parametrize("name", sorted(COMPLETE))
def test_what_is_shown_in_another_way_counts_the_same(name: str) -> None:
    expected, found = outcome_of("nothing").totals, outcome_of(name).totals
    # Where time does not go on, a phone that comes back under another MAC address is not known to have been away.
    compared = [key for key in COUNTS if key != "devices" or "clock" not in name]
    assert {key: found[key] for key in compared} == {key: expected[key] for key in compared}


def test_every_oddity_of_a_mirror_is_counted() -> None:
    assert outcome_of("every frame twice").weirds["packet_duplicate"] > 10_000
    assert outcome_of("only what goes out").weirds["flow_one_sided"] > 400
    assert outcome_of("six hours without a frame").weirds["capture_pause"] == 9
    assert outcome_of("cut to 96 bytes").weirds["snaplen_cut_payload"] > 1000
    assert outcome_of("nothing").weirds.keys() == {"timestamp_backwards"}


def test_the_page_has_a_row_for_each() -> None:
    assert [row.split("|")[1].strip() for row in ROWS if row.startswith("|")][2:] == list(DEGRADATIONS)
