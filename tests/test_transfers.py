"""What passes between two addresses in a slot, and who speaks first, against their definitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.decode.status import Eviction, FrameStatus
from sensor.events.tables import N_PAIRS
from sensor.events.transfers import MEMORY_NS, SILENCE_NS, SLOT_NS
from sensor.events.types import EventKind
from tests import builders as b
from tests.conversation import START_NS, Frame, Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conversation import Event

pytestmark = pytest.mark.kernel

HOME = "192.0.2.1"
PEERS = ("198.51.100.7", "203.0.113.9")
MAIL_SERVER = "203.0.113.25"
MAIL, PEER = FrameStatus.MAIL, FrameStatus.PEER


@dataclass(frozen=True)
class Said:
    """One packet: from the device at home or to it; ``to`` is the other end."""

    at_ns: int
    to: str
    is_sent: bool
    n_bytes: int
    flags: int = b.ACK

    def frame(self, number: int) -> Frame:
        """``number``: the packet's IP identification: two packets that say the same are no copies."""
        port = 25 if self.to == MAIL_SERVER else 443
        ports = (40000, port) if self.is_sent else (port, 40000)
        ends = (HOME, self.to) if self.is_sent else (self.to, HOME)
        packet = b.tcp(b"x" * self.n_bytes, src_port=ports[0], dst_port=ports[1], flags=self.flags)
        data = b.ether(b.IPV4, b.ipv4(b.TCP, packet, src=ends[0], dst=ends[1], identification=number))
        return Frame(data, len(data), START_NS + self.at_ns)


@dataclass
class Expected:
    """The definition: all packets in a list, each slot looked at by itself."""

    said: Sequence[Said]
    transfers: set[tuple[int, FrameStatus, str, int, int]] = field(default_factory=set)
    calls: list[tuple[int, bool, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        first_mail = min((s.at_ns for s in self.said if s.to == MAIL_SERVER and s.is_sent), default=1 << 62)
        seen = [s for s in self.said if s.to == MAIL_SERVER or s.at_ns > first_mail]
        others = [s for s in seen if s.to != MAIL_SERVER and (s.n_bytes or s.flags == b.SYN)]
        for slot in {(START_NS + s.at_ns) // SLOT_NS for s in seen}:
            for to in {s.to for s in seen}:
                here = [s for s in seen if s.to == to and (START_NS + s.at_ns) // SLOT_NS == slot]
                if to == MAIL_SERVER:
                    here = [s for s in here if any(o.at_ns < s.at_ns for o in others)]
                sent = sum(s.n_bytes for s in here if s.is_sent)
                received = sum(s.n_bytes for s in here if not s.is_sent)
                if sent or received:
                    self.transfers.add((slot, MAIL if to == MAIL_SERVER else PEER, to, sent, received))
        for s in others:
            before = [o.at_ns for o in others if o.to == s.to and o.n_bytes and o.at_ns < s.at_ns]
            if s.flags == b.SYN:
                self.calls.append((s.at_ns, s.is_sent, s.to))
            if s.n_bytes and before and s.at_ns - max(before) >= SILENCE_NS:
                self.calls.append((s.at_ns, s.is_sent, s.to))


PACKETS = st.lists(
    st.tuples(
        st.sampled_from([1, 10**6, 10**9, SLOT_NS, SILENCE_NS - 1, SILENCE_NS]),
        st.sampled_from([*PEERS, MAIL_SERVER]),
        st.booleans(),
        st.sampled_from([0, 1, 100, 1400]),
        st.sampled_from([b.ACK, b.ACK, b.SYN]),
    ),
    max_size=40,
)


def text(hi: int, lo: int) -> str:
    assert hi == 0
    return ".".join(str(lo >> shift & 255) for shift in (24, 16, 8, 0))


def transfers_of(events: Sequence[Event]) -> list[tuple[int, FrameStatus, str, int, int]]:
    found = []
    for event in events:
        if event.kind == EventKind.TRANSFER:
            orig, resp = text(event.orig_hi, event.orig_lo), text(event.resp_hi, event.resp_lo)
            numbers = (event.orig_bytes, event.resp_bytes)
            to, (sent, received) = (resp, numbers) if orig == HOME else (orig, numbers[::-1])
            found.append((event.aux_lo, FrameStatus(event.code), to, sent, received))
    return found


def calls_of(events: Sequence[Event]) -> list[tuple[int, bool, str]]:
    return [
        (
            event.ts_ns - START_NS,
            (orig := text(event.orig_hi, event.orig_lo)) == HOME,
            text(event.resp_hi, event.resp_lo) if orig == HOME else orig,
        )
        for event in events
        if event.kind == EventKind.PEER_CALL
    ]


TRACKER = Tracker()


@given(packets=PACKETS, cut=st.integers(0, 40))
def test_transfers_and_calls_are_what_they_are_defined_to_be(packets, cut):
    at_ns, said = 0, []
    for pause_ns, to, is_sent, n_bytes, flags in packets:
        at_ns += pause_ns
        said.append(Said(at_ns, to, is_sent, n_bytes, flags))
    found = TRACKER.run([s.frame(n) for n, s in enumerate(said)], batch_sizes=[min(cut, len(said))])
    expected = Expected(said)
    transfers = transfers_of(found.events)
    assert len(transfers) == len(set(transfers))
    assert set(transfers) == expected.transfers
    assert calls_of(found.events) == expected.calls


def test_a_slot_is_reported_when_the_next_one_begins():
    said = [Said(n * SLOT_NS, to, True, 10) for n in range(3) for to in (MAIL_SERVER, PEERS[0])]
    events = TRACKER.run([s.frame(n) for n, s in enumerate(said)]).events
    for event in events:
        if event.kind == EventKind.TRANSFER:
            assert event.ts_ns // SLOT_NS - event.aux_lo in (0, 1)
    assert len(transfers_of(events)) == 5  # of the first mail there was nothing to compare with


def test_mail_is_reported_before_what_it_is_compared_with():
    said = [Said(n, to, True, 10) for n, to in enumerate([MAIL_SERVER, *PEERS, MAIL_SERVER])]
    found = transfers_of(TRACKER.run([s.frame(n) for n, s in enumerate(said)]).events)
    assert [status for _, status, *_ in found] == [MAIL, PEER, PEER]


def test_without_other_traffic_for_a_day_mail_is_not_measured():
    said = [Said(0, MAIL_SERVER, True, 10), Said(1, PEERS[0], True, 10)]
    said += [Said(MEMORY_NS, MAIL_SERVER, True, 10), Said(MEMORY_NS + 1, MAIL_SERVER, True, 10)]
    found = transfers_of(TRACKER.run([s.frame(n) for n, s in enumerate(said)]).events)
    assert [(status, sent) for _, status, _, sent, _ in found] == [(PEER, 10), (MAIL, 10)]


def test_more_pairs_than_fit_are_reported_and_counted():
    said = [Said(0, MAIL_SERVER, True, 10)]
    peers = [f"198.18.{n >> 8}.{n & 255}" for n in range(2 * N_PAIRS)]
    said += [Said(1 + n, peer, True, 7) for n, peer in enumerate(peers)]
    tracked = TRACKER.run([s.frame(n) for n, s in enumerate(said)])
    found = transfers_of(tracked.events)
    assert {to for _, _, to, _, _ in found} == set(peers)
    assert sum(sent for *_, sent, _ in found) == 7 * len(peers)
    assert tracked.evictions[Eviction.PEER] >= N_PAIRS


def test_who_never_mailed_is_not_looked_at():
    said = [Said(n * SLOT_NS, PEERS[0], n % 2 == 0, 100) for n in range(10)]
    assert TRACKER.run([s.frame(n) for n, s in enumerate(said)]).events == []
