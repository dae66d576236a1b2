"""Flows: TCP's order restored whatever the network did to it, every connection reported once, every table bounded."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.status import Eviction, Weird
from sensor.events.flows import LINGER_NS, MAX_AHEAD_BYTES, TLS_MESSAGE_BYTES
from sensor.events.tables import MAX_HELD_BYTES, MAX_HELD_PER_SIDE, Total
from sensor.events.types import MAX_EVENTS_PER_FRAME, MAX_TEXT_PER_FRAME, EventFlag, EventKind, Fate
from sensor.jit import JIT_DISABLED
from tests import builders as b
from tests.conversation import (
    START_NS,
    Ends,
    Event,
    Frame,
    Segment,
    Tracked,
    Tracker,
    Turn,
    client,
    closing,
    cut_segment,
    explain,
    handshake,
    join,
    place,
    say,
    server,
    whole,
)
from tests.dialogues import dialogues, soups
from tests.reference_smtp import Command, Message, Reply

EXAMPLES = 30 if JIT_DISABLED else 250
SECOND_NS = 10**9
GREETING = server(b"220 mx.example.net")
SHORT = [GREETING, client(b"QUIT"), server(b"221 bye")]
MAILED = [
    GREETING,
    client(b"EHLO client.example.org"),
    server(b"250 ok"),
    client(b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>", b"DATA"),
    server(b"250 a", b"250 b", b"354 c"),
    client(b"Subject: x", b"", b"y" * 300, b"."),
    server(b"250 queued"),
    client(b"QUIT"),
    server(b"221 bye"),
]
SYN = handshake()[0]
RST = b.RST | b.ACK


@cache
def tracker() -> Tracker:
    return Tracker()


@cache
def tiny() -> Tracker:
    return Tracker(16, 2, 2)


def track(segments: list[Segment], **kwargs: object) -> Tracked:
    return tracker().run(place(segments, **kwargs))  # type: ignore[arg-type]


def is_clean(tracked: Tracked, made_by: Tracker) -> bool:
    """Tell whether all buffers were given back."""
    return (tracked.line_free, tracked.held_free) == (made_by.n_lines, made_by.n_held)


CONVERSATIONS = st.one_of(dialogues(may_encrypt=False), soups())


@st.composite
def cut_up(draw: st.DrawFn, turns: list[Turn], max_cuts: int = 4) -> list[Segment]:
    """A conversation in segments of which none is larger than those of an Ethernet."""
    pieces = []
    for segment in whole(turns):
        n = len(segment.payload)
        places = draw(st.sets(st.integers(1, max(n, 1)), max_size=max_cuts))
        pieces += cut_segment(segment, places | set(range(1400, n, 1400)))
    return pieces


# --- what networks and mirror ports do ---


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(CONVERSATIONS, st.data())
def test_repetitions_make_no_difference(turns, data):
    """Segments again, later, and segments that begin with bytes that were sent before."""
    pieces = data.draw(cut_up(turns))
    streams = {
        side: b"".join(turn.data for turn in turns if turn.is_client == side) for side in (True, False)
    }
    sent = []
    for number, piece in enumerate(pieces):
        overlap = data.draw(st.integers(0, 9))
        if piece.payload and overlap:
            at = max(piece.at - overlap, 0)
            sent.append(replace(piece, at=at, payload=streams[piece.is_client][at : piece.end]))
        else:
            sent.append(piece)
        if number > 2 and data.draw(st.integers(0, 2)) == 0:
            again = pieces[data.draw(st.integers(max(number - 6, 3), number))]
            sent.append(replace(again, turn=piece.turn))
    tracked = track(sent)
    assert tracked.events == track(pieces).events, explain(turns)
    assert tracked.weirds[Weird.TCP_GAP] == 0
    assert is_clean(tracked, tracker())


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(CONVERSATIONS, st.data())
def test_both_copies_of_a_mirrored_port_count_once(turns, data):
    pieces = data.draw(cut_up(turns))
    frames = place(pieces)
    doubled = [frame for frame in frames for _ in range(2)]
    assert tracker().run(doubled).events == tracker().run(frames).events


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(CONVERSATIONS, st.data())
def test_disorder_makes_no_difference(turns, data):
    """Segments of one turn in any order, as far as they can be held."""
    pieces = data.draw(cut_up(turns))
    order = []
    for turn in range(-1, len(turns) + 1):
        spoken = [piece for piece in pieces if piece.turn == turn]
        order += data.draw(st.permutations(spoken)) if 0 <= turn < len(turns) else spoken
    tracked = track(order)
    expected = track(pieces)
    assert tracked.events == expected.events, explain(turns)
    assert tracked.weirds[Weird.TCP_GAP] == 0
    assert (tracked.weirds[Weird.TCP_OUT_OF_ORDER] > 0) == (order != pieces)
    assert is_clean(tracked, tracker())


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(CONVERSATIONS, st.data())
def test_disorder_with_repetitions_makes_no_difference(turns, data):
    pieces = data.draw(cut_up(turns))
    streams = {
        side: b"".join(turn.data for turn in turns if turn.is_client == side) for side in (True, False)
    }
    order = []
    for turn in range(-1, len(turns) + 1):
        spoken = [piece for piece in pieces if piece.turn == turn]
        if 0 <= turn < len(turns):
            again = data.draw(st.lists(st.sampled_from(spoken), max_size=3))
            spoken = [
                replace(piece, at=at, payload=streams[piece.is_client][at : piece.end])
                for piece in data.draw(st.permutations(spoken + again))
                for at in [max(piece.at - data.draw(st.integers(0, 9)), 0)]
            ]
        order += spoken
    tracked = track(order)
    assert tracked.events == track(pieces).events, explain(turns)
    assert tracked.weirds[Weird.TCP_GAP] == 0
    assert is_clean(tracked, tracker())


def test_what_was_not_in_order_is_counted():
    def weirds(*spoken: tuple[int, bytes]) -> Counter[Weird]:
        segments = [Segment(True, at, payload, 20, 1) for at, payload in spoken]
        return track([*handshake(), *say([GREETING]), *segments]).weirds

    assert weirds((0, b"NOOP\r\n"), (6, b"QUIT\r\n")) == {}
    assert weirds((0, b"NOOP\r\n"), (0, b"NOOP\r\n")) == {Weird.TCP_RETRANSMISSION: 1}
    assert weirds((0, b"NOOP\r\n"), (2, b"OP\r\n")) == {Weird.TCP_RETRANSMISSION: 1}
    assert weirds((0, b"NOOP\r\n"), (0, b"NOOP\r\nQUIT\r\n")) == {Weird.TCP_OVERLAP: 1}
    assert weirds((6, b"QUIT\r\n"), (0, b"NOOP\r\n")) == {Weird.TCP_OUT_OF_ORDER: 1}
    assert weirds((6, b"QUIT\r\n"), (6, b"QUIT\r\n"), (0, b"NOOP\r\n")) == {
        Weird.TCP_OUT_OF_ORDER: 1,
        Weird.TCP_RETRANSMISSION: 1,
    }
    assert weirds((6, b"QU"), (6, b"QUIT\r\n"), (0, b"NOOP\r\n")) == {Weird.TCP_OUT_OF_ORDER: 2}


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(CONVERSATIONS, st.data())
def test_sequence_numbers_wrap_around(turns, data):
    pieces = data.draw(cut_up(turns))
    early = [replace(piece) for piece in pieces]
    turn = data.draw(st.integers(0, len(turns)))
    spoken = [number for number, piece in enumerate(pieces) if piece.turn == turn]
    if turn < len(turns) and len(spoken) > 1:
        early[spoken[0]], early[spoken[-1]] = early[spoken[-1]], early[spoken[0]]
    expected = track(pieces)
    for before in (1, 2, 3, data.draw(st.integers(0, 200)), 2**31, 2**31 + data.draw(st.integers(-200, 200))):
        ends = Ends(orig_isn=2**32 - 1 - before, resp_isn=(2**31 - before) & 0xFFFFFFFF)
        tracked = track(early, ends=ends)
        assert tracked.events == expected.events, explain(turns)
        assert tracked.weirds[Weird.TCP_GAP] == 0


def test_a_long_stream_passes_the_whole_sequence_space():
    """Content of 5 GB, of which only some is captured: the end mark is found behind two wraps."""
    n, step = 40, 1 << 27
    say_data = say([GREETING, client(b"DATA"), server(b"354 go")])
    content = [Segment(True, 6 + i * step, b"x" * 100, 28 + i, 3 + i) for i in range(n)]
    acks = [Segment(False, 28, b"", 6 + i * step + 100, 3 + i) for i in range(n)]
    end = Segment(True, 6 + (n - 1) * step + 100, b"\r\n.\r\n", 28, 50)
    answer = Segment(False, 28, b"250 ok\r\n", 6 + (n - 1) * step + 105, 51)
    spoken = [segment for pair in zip(content, acks, strict=True) for segment in pair]
    tracked = track(
        [*handshake(), *say_data, *(replace(s, acked=28) if s.is_client else s for s in spoken), end, answer]
    )
    assert tracked.smtp[-2:] == [Reply(250, "DATA"), Message(250, 0, n * 100 + 5)]
    assert tracked.weirds[Weird.TCP_GAP] == n - 1


@pytest.mark.kernel
@settings(max_examples=EXAMPLES // 3)
@given(st.lists(CONVERSATIONS, min_size=2, max_size=4), st.data())
def test_flows_do_not_influence_each_other(conversations, data):
    frames, alone = [], []
    for number, turns in enumerate(conversations):
        ends = data.draw(
            st.sampled_from(
                [
                    Ends(orig_port=40000 + number),
                    Ends(orig=f"192.0.2.{number + 1}"),
                    Ends(resp=f"198.51.100.{number + 1}"),
                    Ends(orig=b.SRC6, resp=f"2001:db8::{number}", orig_port=9),
                    Ends(resp_port=(25, 465, 587, 2525)[number]),
                ]
            )
        )
        ends = replace(
            ends, orig_isn=data.draw(st.integers(0, 2**32 - 1)), orig_port=ends.orig_port + 10 * number
        )
        own = place(data.draw(cut_up(turns)), ends, START_NS + data.draw(st.integers(0, 3_000_000)))
        frames += own
        alone.append(tracker().run(own).events)
    frames.sort(key=lambda frame: frame.ts_ns)
    together = tracker().run(frames)

    def by_flow(events: list[Event]) -> Counter[tuple[Event, ...]]:
        flows: dict[int, list[Event]] = {}
        for event in events:
            flows.setdefault(event.flow_id, []).append(event._replace(flow_id=0))
        return Counter(tuple(flow) for flow in flows.values())

    assert by_flow(together.events) == sum((by_flow(events) for events in alone), Counter())
    assert is_clean(together, tracker())


# --- gaps ---


def test_an_early_segment_is_read_when_the_receiver_has_acknowledged_it():
    turns = [
        GREETING,
        client(b"NOOP", b"MAIL FROM:<a@b>", b"DATA"),
        server(b"250 a", b"250 b", b"354 c"),
        client(b"x", b"."),
    ]
    segments = whole(turns)
    pieces = [piece for s in segments for piece in (cut_segment(s, [6, 23]) if s.turn == 1 else [s])]
    tracked = track([piece for piece in pieces if piece.payload != b"MAIL FROM:<a@b>\r\n"])
    assert tracked.smtp[:3] == [Reply(220), Command("NOOP"), Reply(250, "NOOP")]
    assert tracked.weirds[Weird.TCP_GAP] == 1
    assert tracked.weirds[Weird.TCP_OUT_OF_ORDER] == 1
    assert tracked.smtp[-1] == Message(0, 0, 6)
    (close,) = tracked.closes
    assert close.flags & EventFlag.GAP
    assert close.orig_bytes == sum(len(turn.data) for turn in turns if turn.is_client) - 17


def test_what_the_receiver_has_acknowledged_is_not_waited_for():
    segments = [
        *handshake(),
        *say([GREETING]),
        Segment(False, 20, b"250 ok\r\n", 6, 2),
        Segment(True, 6, b"QUIT\r\n", 28, 3),
    ]
    tracked = track([*segments, Segment(False, 28, b"221 bye\r\n", 6, 4)])
    assert tracked.weirds == {Weird.TCP_GAP: 1}
    assert tracked.smtp == [Reply(220), Reply(250), Reply(221)]


def test_what_is_held_when_a_flow_ends_is_read():
    segments = [
        *handshake(),
        *say([GREETING]),
        Segment(True, 6, b"QUIT\r\n", 20, 1),
        Segment(True, 12, b"", 20, 2, flags=RST),
    ]
    tracked = track(segments)
    assert [event.kind for event in tracked.events][-1] == EventKind.CONN_CLOSE
    assert tracked.weirds[Weird.TCP_GAP] == 1
    assert tracked.closes[0].orig_bytes == 6
    assert is_clean(tracked, tracker())


@pytest.mark.parametrize("payload_len", [MAX_HELD_BYTES, MAX_HELD_BYTES + 1])
def test_only_so_large_a_segment_is_held(payload_len):
    early = Segment(True, 6, b"x" * (payload_len - 2) + b"\r\n", 20, 1)
    tracked = track([*handshake(), *say([GREETING]), early, Segment(True, 0, b"NOOP\r\n", 20, 1)])
    is_held = payload_len <= MAX_HELD_BYTES
    assert tracked.weirds[Weird.TCP_HELD_SEGMENTS_FULL] == (not is_held)
    assert tracked.weirds[Weird.TCP_GAP] == (not is_held)
    commands = [said.verb for said in tracked.smtp if isinstance(said, Command)]
    assert commands == (["NOOP", "OTHER"] if is_held else [])


@pytest.mark.parametrize("n", [MAX_HELD_PER_SIDE, MAX_HELD_PER_SIDE + 1])
def test_only_so_many_segments_are_held(n):
    early = [Segment(True, 6 * (i + 1), b"NOOP\r\n", 20, 1) for i in range(n)]
    tracked = track([*handshake(), *say([GREETING]), *early[::-1], Segment(True, 0, b"HELP\r\n", 20, 1)])
    is_full = n > MAX_HELD_PER_SIDE
    assert tracked.weirds[Weird.TCP_HELD_SEGMENTS_FULL] == is_full
    assert tracked.weirds[Weird.TCP_GAP] == is_full
    if not is_full:
        assert tracked.smtp[1:] == [Command("HELP"), *[Command("NOOP")] * n]
    assert is_clean(tracked, tracker())


@pytest.mark.parametrize("ahead", [MAX_AHEAD_BYTES, MAX_AHEAD_BYTES + 1])
def test_a_segment_far_ahead_is_not_waited_for(ahead):
    tracked = track(
        [
            *handshake(),
            *say([GREETING]),
            Segment(True, ahead, b"NOOP\r\n", 20, 1),
            Segment(False, 20, b"", 0, 2),
        ]
    )
    assert tracked.weirds[Weird.TCP_OUT_OF_ORDER] == (ahead <= MAX_AHEAD_BYTES)


def test_keep_alives_and_empty_segments_say_nothing():
    segments = whole(SHORT)
    probes = [Segment(True, -1, b"\0", 20, 0), Segment(True, -1, b"", 20, 0), Segment(False, 19, b"\n", 0, 0)]
    tracked = track([*segments[:4], *probes, *segments[4:]])
    assert tracked.events == track(segments).events


# --- how connections end ---

REFUSED = Segment(False, -1, b"", 0, 0, flags=RST)
#: Records of TLS 1.2: the ClientHello; the key exchange and what ends the handshake; EHLO and QUIT.
HELLO = Turn(True, b"\x16\x03\x01\0\x05hello")
KEYS = b"\x16\x03\x03\0\x04keys\x14\x03\x03\0\x01\x01\x16\x03\x03\0\x03fin"
GREETED = b"\x17\x03\x03\0\x04EHLO\x17\x03\x03\0\x04QUIT"
CLEAR_TLS = [
    GREETING,
    client(b"STARTTLS"),
    server(b"220 go"),
    Turn(True, b"\x16\x03\x01hello"),
    Turn(False, b"\x16\x03\x03hello"),
]
REJECTED = [
    GREETING,
    client(b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>"),
    server(b"250 a", b"550 b"),
    client(b"QUIT"),
    server(b"221 c"),
]


def from_client(turns: list[Turn]) -> list[Segment]:
    return [segment for segment in whole(turns) if segment.is_client]


def from_server(turns: list[Turn]) -> list[Segment]:
    return [segment for segment in whole(turns) if not segment.is_client]


FATES = [
    ("a SYN", [SYN], Fate.UNANSWERED, EventFlag.NO_RESP, 0),
    ("SYNs", [SYN, replace(SYN, turn=3), replace(SYN, turn=9)], Fate.UNANSWERED, EventFlag.NO_RESP, 0),
    (
        "a SYN, and a RST: of an answer",
        [SYN, replace(SYN, at=0, flags=b.RST)],
        Fate.UNKNOWN,
        EventFlag.NO_RESP,
        0,
    ),
    ("a RST in answer", [SYN, REFUSED], Fate.REFUSED, 0, 0),
    ("a RST in answer to the second SYN", [SYN, replace(SYN, turn=3), REFUSED], Fate.REFUSED, 0, 0),
    ("a RST after the handshake", [*handshake(), replace(REFUSED, at=0)], Fate.NO_BANNER, 0, 0),
    ("a handshake", handshake(), Fate.NO_BANNER, 0, 0),
    ("a handshake and its end", whole([]), Fate.NO_BANNER, 0, 0),
    ("a banner", whole([GREETING]), Fate.BANNER_ONLY, 0, 0),
    ("a refusing banner", whole([server(b"554 5.7.1 no")]), Fate.BANNER_ONLY, 0, 0),
    ("no mail", whole(SHORT), Fate.NO_MESSAGE, 0, 0),
    ("nobody accepted", whole(REJECTED), Fate.REJECTED, 0, 0),
    ("a message refused", whole([*MAILED[:6], server(b"550 spam")]), Fate.REJECTED, 0, 0),
    ("a message without an answer", whole(MAILED[:6]), Fate.REJECTED, 0, 0),
    ("a message", whole(MAILED), Fate.ACCEPTED, 0, 1),
    ("a message, by its server", from_server(MAILED), Fate.ACCEPTED, EventFlag.NO_ORIG, 1),
    ("a message, by its client", from_client(MAILED), Fate.UNKNOWN, EventFlag.NO_RESP, 0),
    ("TLS", whole(CLEAR_TLS), Fate.TLS, EventFlag.TLS | EventFlag.INFERRED, 0),
    (
        "TLS and a greeting",
        whole([*CLEAR_TLS[:-2], HELLO, CLEAR_TLS[-1], Turn(True, KEYS + GREETED)]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED | EventFlag.TLS_IDLE, 0),
    ),
    (
        "TLS and a greeting, by its server",
        from_server([*CLEAR_TLS[:-2], HELLO, CLEAR_TLS[-1], Turn(True, KEYS + GREETED)]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED | EventFlag.NO_ORIG, 0),
    ),
    (
        "TLS and a login",
        whole([*CLEAR_TLS[:-2], HELLO, CLEAR_TLS[-1], Turn(True, KEYS + GREETED + GREETED)]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED, 0),
    ),
    (
        "TLS and what is none",
        whole([*CLEAR_TLS[:-2], Turn(True, b"\x16\x03\x01\0\0"), CLEAR_TLS[-1], Turn(True, b"QUIT\r\n")]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED, 0),
    ),
    (
        "TLS and too little for a message",
        whole([*CLEAR_TLS, Turn(True, b"x" * (TLS_MESSAGE_BYTES - 1))]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED, 0),
    ),
    (
        "TLS and enough for a message",
        whole([*CLEAR_TLS, Turn(True, b"x" * TLS_MESSAGE_BYTES)]),
        *(Fate.TLS, EventFlag.TLS | EventFlag.INFERRED, 1),
    ),
    ("a message and TLS", whole([*MAILED[:-2], *CLEAR_TLS[1:]]), Fate.ACCEPTED, EventFlag.TLS, 1),
    ("midstream", whole(SHORT)[3:], Fate.UNKNOWN, EventFlag.MIDSTREAM, 0),
    ("midstream with a message", whole(MAILED)[3:], Fate.ACCEPTED, EventFlag.MIDSTREAM, 1),
]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("segments", "fate", "flags", "count"), [row[1:] for row in FATES], ids=[row[0] for row in FATES]
)
def test_fates(segments, fate, flags, count):
    tracked = track(segments)
    (close,) = tracked.closes
    assert (Fate(close.code), EventFlag(close.flags), close.count) == (fate, EventFlag(flags), count)
    assert close.syns == sum(segment.flags == b.SYN for segment in segments)
    assert tracked.totals[Total.MAIL_SYNS] == close.syns
    assert [
        event.kind for event in tracked.events if event.kind in (EventKind.CONN_OPEN, EventKind.CONN_CLOSE)
    ] == [1, 2]
    assert tracked.events[0].kind == EventKind.CONN_OPEN
    assert tracked.events[-1] == close
    assert (close.orig_port, close.resp_port) == (40000, 25)
    assert (close.orig_mac, close.resp_mac) == (b.SRC_MAC, b.DST_MAC)


def test_every_fate_has_a_case():
    assert {row[2] for row in FATES} == set(Fate)


def test_a_close_tells_sizes_and_time():
    tracked = track(whole(MAILED))
    (close,) = tracked.closes
    assert close.orig_bytes == sum(len(turn.data) for turn in MAILED if turn.is_client)
    assert close.resp_bytes == sum(len(turn.data) for turn in MAILED if not turn.is_client)
    assert close.duration_ns == (len(MAILED) + 1) * 1_000_000
    assert close.ts_ns == START_NS + (len(MAILED) + 1) * 1_000_000


@pytest.mark.parametrize("flags", [RST, b.RST])
@pytest.mark.parametrize("by_client", [True, False])
def test_a_reset_ends_a_connection_at_once_and_for_good(flags, by_client):
    segments = whole(MAILED)
    at = 9
    reset = replace(segments[at], is_client=by_client, payload=b"", flags=flags)
    tracked = track([*segments[:at], reset, *segments[at:]])
    assert tracked.events == track([*segments[:at], reset]).events
    assert tracked.events[-1].kind == EventKind.CONN_CLOSE


@pytest.mark.parametrize("order", ["client first", "server first", "with data"])
def test_fins_end_a_connection(order):
    fins = closing(SHORT)
    if order == "server first":
        fins = [replace(fins[1], acked=fins[0].at), replace(fins[0], acked=fins[1].at + 1)]
    segments = [*handshake(), *say(SHORT), *fins]
    if order == "with data":
        segments = [*handshake(), *say(SHORT[:1]), replace(say(SHORT)[1], flags=b.FIN | b.ACK)]
        segments.append(replace(say(SHORT)[2], flags=b.FIN | b.ACK, acked=7))
    last = Segment(True, fins[0].at + 1, b"", 31, 4)
    tracked = track([*segments, last, replace(SYN, turn=50)])
    first, second = tracked.closes
    assert first.ts_ns == START_NS + (segments[-1].turn + 1) * 1_000_000
    assert tracked.smtp == [Reply(220), Command("QUIT"), Reply(221, "QUIT")]
    assert Fate(second.code) == Fate.UNANSWERED


def test_data_that_a_fin_has_overtaken_is_read():
    """The capture shows both FINs before the last line of each side."""
    segments = whole(MAILED)
    quit_, bye, *fins = segments[-4:]
    early = [replace(fin, acked=0) for fin in fins]
    tracked = track([*segments[:-4], *early, quit_, bye])
    assert tracked.smtp == track(segments).smtp
    assert tracked.events[-1].kind == EventKind.CONN_CLOSE
    assert is_clean(tracked, tracker())


def test_late_segments_are_not_a_new_connection():
    segments = whole(MAILED)
    late = [replace(segment, turn=30) for segment in segments[3:]]
    tracked = track([*segments, *late])
    assert tracked.events == track(segments).events


# --- ports used again ---


def test_a_syn_sent_again_is_the_same_connection():
    segments = whole(SHORT)
    tracked = track([SYN, *segments])
    assert [event._replace(syns=0) for event in tracked.events] == [
        event._replace(syns=0) for event in track(segments).events
    ]
    assert tracked.closes[0].syns == 2


@pytest.mark.parametrize("n_before", [1, 3, 5, len(whole(SHORT))])
def test_a_syn_with_another_number_is_another_connection(n_before):
    segments = whole(SHORT)
    frames = place(segments[:n_before]) + place(segments, Ends(orig_isn=900_000), START_NS + SECOND_NS)
    tracked = tracker().run(frames)
    assert [close.flow_id for close in tracked.closes] == [0, 1]
    assert tracked.smtp[-3:] == [Reply(220), Command("QUIT"), Reply(221, "QUIT")]
    assert Fate(tracked.closes[-1].code) == Fate.NO_MESSAGE


def test_a_closed_connections_ports_can_be_used_with_the_same_number():
    segments = whole(SHORT)
    tracked = tracker().run(place(segments) + place(segments, start_ns=START_NS + SECOND_NS))
    assert len(tracked.closes) == 2
    assert tracked.smtp == [Reply(220), Command("QUIT"), Reply(221, "QUIT")] * 2


def test_a_connection_in_the_other_direction_is_another_one():
    """Two mail servers, both sides on port 25."""
    there = Ends(orig_port=25)
    back = Ends(orig=there.resp, resp=there.orig, orig_port=25, orig_isn=5, resp_isn=6)
    tracked = tracker().run(place(whole(SHORT), there) + place(whole(SHORT), back, START_NS + SECOND_NS))
    assert [close.orig_lo for close in tracked.closes] == [
        tracked.closes[1].resp_lo,
        tracked.closes[0].resp_lo,
    ]


# --- one side only, and no beginning ---


def test_the_port_tells_the_direction_where_no_syn_does():
    for turns in (SHORT, SHORT[1:]):
        tracked = track([*say(turns)])
        assert {(event.orig_port, event.resp_port) for event in tracked.events} == {(40000, 25)}
    assert track(handshake()[1:2]).closes[0].resp_port == 25
    assert track([*from_server(SHORT)]).closes[0].resp_port == 25


@pytest.mark.parametrize(
    "segment", [Segment(True, 0, b"", 0, 0), Segment(False, 5, b"", 0, 0, flags=b.FIN | b.ACK), REFUSED]
)
def test_the_tail_of_an_unknown_connection_is_none(segment):
    assert track([segment]).events == []


# --- time ---


def at_s(segments: list[Segment], second: float, ends: Ends | None = None) -> list[Frame]:
    frames = place(segments, ends or Ends())
    return [frame._replace(ts_ns=START_NS + int(second * SECOND_NS)) for frame in frames]


OTHER = Ends(orig="192.0.2.77")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("segments", "silent_s"),
    [([SYN], 90), (handshake(), 600), ([*handshake(), *say(MAILED[:5])], 600), (say(SHORT[:1]), 600)],
)
def test_a_silent_connection_is_closed_by_packet_time(segments, silent_s):
    for later, is_closed in ((silent_s - 1, False), (silent_s + 30, True)):
        frames = (
            at_s(segments, 0)
            + at_s([SYN], later, OTHER)
            + at_s([SYN], later + 10, replace(OTHER, orig_port=9))
        )
        tracked = tracker().run(frames)
        first = next(close for close in tracked.closes if close.flow_id == 0)
        closes_in_time = [
            close for close in tracked.closes if close.ts_ns < START_NS + (later + 10) * SECOND_NS
        ]
        assert (first in closes_in_time) == is_closed
        assert first.duration_ns == 0
        assert len(tracked.closes) == 3
        assert is_clean(tracked, tracker())


def test_every_packet_gives_a_connection_new_time():
    frames = [*at_s(handshake(), 0)]
    for number in range(4):
        frames += at_s([Segment(True, 6 * number, b"NOOP\r\n", 0, 0)], 500 * (number + 1))
        frames += at_s([SYN], 500 * (number + 1) + 50, replace(OTHER, orig_port=number + 1))
    tracked = tracker().run(frames)
    (close,) = [close for close in tracked.closes if close.flow_id == 0]
    assert close.duration_ns == 2000 * SECOND_NS


def test_a_closed_connections_row_lingers_and_then_is_free():
    tail = Segment(True, 6, b"NOOP\r\n", 31, 0)
    linger_s = LINGER_NS // SECOND_NS
    for later, is_new in ((linger_s - 1, False), (linger_s + 20, True)):
        frames = at_s(whole(SHORT), 0) + at_s([SYN], later - 0.5, OTHER) + at_s([tail], later)
        assert (len(tracker().run(frames).of(EventKind.CONN_OPEN)) == 3) == is_new


def test_time_that_goes_backwards_is_counted_and_does_not_count():
    segments = whole(MAILED)
    frames = [
        frame._replace(ts_ns=START_NS - number * SECOND_NS) for number, frame in enumerate(place(segments))
    ]
    tracked = tracker().run(frames)
    assert tracked.weirds[Weird.TIMESTAMP_BACKWARDS] == len(frames) - 1
    assert {event.ts_ns for event in tracked.events} == {START_NS}
    assert tracked.smtp == track(segments).smtp


# --- draining and batches ---


@cache
def drained_often(n_packets: int) -> Tracker:
    return Tracker(n_packets=n_packets)


@cache
def drained_rarely() -> Tracker:
    return Tracker(n_packets=512, n_events=16 * MAX_EVENTS_PER_FRAME, n_text=16 * MAX_TEXT_PER_FRAME)


@pytest.mark.kernel
@pytest.mark.invariant
@settings(max_examples=EXAMPLES // 2)
@given(st.lists(CONVERSATIONS, min_size=1, max_size=3), st.sampled_from([1, 2, 7]), st.data())
def test_where_batches_and_columns_end_makes_no_difference(conversations, n_packets, data):
    frames = []
    for number, turns in enumerate(conversations):
        start_ns = START_NS + data.draw(st.sampled_from([0, 1, 700])) * SECOND_NS
        frames += place(data.draw(cut_up(turns)), Ends(orig_port=1000 + number), start_ns)
    disorder = data.draw(st.sets(st.integers(0, len(frames) - 1), max_size=3))
    for number in disorder:
        frames[number] = frames[number]._replace(ts_ns=frames[number].ts_ns - 5 * SECOND_NS)
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=20))
    assert drained_often(n_packets).run(frames, batch_sizes=sizes)[:-1] == drained_rarely().run(frames)[:-1]


# --- small tables ---


@pytest.mark.kernel
@pytest.mark.invariant
@settings(max_examples=EXAMPLES // 3)
@given(
    st.integers(17, 40), st.randoms(use_true_random=False), st.lists(CONVERSATIONS, min_size=1, max_size=2)
)
def test_too_small_tables_are_counted_and_nothing_is_lost_of_them(n_flows, chance, conversations):
    """More connections than rows, all at once, with broken lines and early segments everywhere."""
    queues = []
    for number in range(n_flows):
        segments = whole(conversations[number % len(conversations)] + SHORT)
        pieces = [
            piece for s in segments for piece in cut_segment(s, [chance.randint(1, 9), chance.randint(1, 60)])
        ]
        for _ in range(4):
            i = chance.randrange(3, len(pieces) - 1)
            pieces[i], pieces[i + 1] = pieces[i + 1], pieces[i]
        queues.append(
            [frame._replace(ts_ns=START_NS) for frame in place(pieces, Ends(orig_port=2000 + number))]
        )
    frames = []
    while queues:
        queue = chance.choice(queues)
        frames.append(queue.pop(0))
        if not queue:
            queues.remove(queue)
    tracked = tiny().run(frames)
    assert is_clean(tracked, tiny())
    opens = tracked.of(EventKind.CONN_OPEN)
    assert tracked.totals[Total.SMTP_FLOWS] == len(opens) >= n_flows
    assert [event.flow_id for event in opens] == list(range(len(opens)))
    assert Counter(close.flow_id for close in tracked.closes) == Counter(range(len(opens)))
    assert tracked.totals[Total.MAIL_SYNS] == n_flows
    ended: set[int] = set()
    for event in tracked.events:
        assert event.flow_id not in ended
        if event.kind == EventKind.CONN_CLOSE:
            ended.add(event.flow_id)


def test_the_longest_silent_connection_makes_room():
    frames = [
        frame for number in range(17) for frame in at_s(handshake(), number / 8, Ends(orig_port=100 + number))
    ]
    tracked = tiny().run(frames)
    assert tracked.evictions == {Eviction.FLOW: 1}
    assert tracked.closes[0].orig_port == 100
    assert len(tracked.closes) == 17


def test_reported_connections_make_room_first():
    frames = [
        frame for number in range(16) for frame in at_s(handshake(), number / 8, Ends(orig_port=100 + number))
    ]
    frames += at_s([replace(SYN, at=0, flags=b.RST)], 2.1, Ends(orig_port=109)) + at_s(
        [SYN], 2.2, Ends(orig_port=999)
    )
    tracked = tiny().run(frames)
    assert tracked.evictions == {}
    assert len(tracked.closes) == 17


@pytest.mark.invariant
def test_segments_of_any_content_and_order_never_raise():
    """Wild sequence numbers, flags and cuts, on few ports, so that everything meets everything."""
    chance = random.Random(20261123)
    for made_by in (tiny(), tracker()):
        for _ in range(3 if JIT_DISABLED else 40):
            frames = []
            for _ in range(200):
                payload = chance.choice(
                    [b"", b"DATA\r\n", b"220 x\r\n", b"\x16\x03\x01", chance.randbytes(40), b"x" * 3000]
                )
                segment = Segment(
                    chance.random() < 0.5,
                    chance.choice([-1, 0, 6, 12, 100, 2**31, 2**32 - 5, chance.randrange(3000)]),
                    payload,
                    chance.choice([-1, 0, 6, 100, 2**31, chance.randrange(3000)]),
                    0,
                    chance.choice(
                        [b.SYN, b.SYN | b.ACK, b.ACK, b.ACK, b.ACK, b.ACK, b.FIN | b.ACK, b.RST, 0, 0xFF]
                    ),
                    chance.choice([None, None, chance.randint(0, len(payload))]),
                )
                ends = Ends(
                    orig_port=chance.choice([25, 9, 10, *range(20, 45)]),
                    resp_port=chance.choice([25, 25, 53]),
                )
                ts_ns = START_NS + chance.choice([0, 1, 20, 700, 10**6]) * SECOND_NS
                frames += [frame._replace(ts_ns=ts_ns) for frame in place([segment], ends)]
            tracked = made_by.run(frames)
            assert is_clean(tracked, made_by)
            opened = [event.flow_id for event in tracked.of(EventKind.CONN_OPEN)]
            assert sorted(opened) == sorted(close.flow_id for close in tracked.closes)


# --- DNS over TCP ---

DNS_ENDS = Ends(resp_port=53)


@cache  # dnspython shuffles the records of a set each time
def dns_messages() -> list[Turn]:
    query = dns.message.make_query("mx.example.org", "MX", id=7)
    response = dns.message.make_response(query)
    response.answer.append(
        dns.rrset.from_text("mx.example.org.", 300, "IN", "MX", "10 a.example.org.", "20 b.example.org.")
    )
    address = dns.message.make_query("a.example.org", "A", id=8)
    answer = dns.message.make_response(address)
    answer.answer.append(dns.rrset.from_text("a.example.org.", 60, "IN", "A", "192.0.2.9"))
    return [
        Turn(True, query.to_wire()),
        Turn(False, response.to_wire()),
        Turn(True, address.to_wire()),
        Turn(False, answer.to_wire()),
    ]


def framed(messages: list[Turn]) -> list[Turn]:
    return [Turn(turn.is_client, len(turn.data).to_bytes(2, "big") + turn.data) for turn in messages]


def dns_facts(tracked: Tracked) -> list[tuple[int | bytes, ...]]:
    return [
        (e.kind, e.code, e.enhanced, e.count, e.ttl_s, e.aux_hi, e.aux_lo, e.text, e.orig_lo, e.resp_lo)
        for e in tracked.events
    ]


def dns_by_datagrams() -> list[tuple[int | bytes, ...]]:
    frames = []
    for number, (is_client, data) in enumerate(dns_messages()):
        ports, addresses = ((40000, 53), (b.SRC4, b.DST4)) if is_client else ((53, 40000), (b.DST4, b.SRC4))
        datagram = b.udp(data, src_port=ports[0], dst_port=ports[1])
        frame = b.ether(b.IPV4, b.ipv4(b.UDP, datagram, src=addresses[0], dst=addresses[1]))
        frames.append(Frame(frame, len(frame), START_NS + number))
    return dns_facts(tracker().run(frames))


def test_dns_says_over_tcp_what_it_says_over_udp():
    facts = dns_by_datagrams()
    assert [EventKind(int(fact[0])).name for fact in facts] == [
        *("DNS_QUERY", "DNS_RESPONSE", "DNS_ANSWER", "DNS_ANSWER"),
        *("DNS_QUERY", "DNS_RESPONSE", "DNS_ANSWER"),
    ]
    tracked = track(whole(framed(dns_messages())), ends=DNS_ENDS)
    assert dns_facts(tracked) == facts
    assert all(event.flags & EventFlag.TCP for event in tracked.events)


def test_dns_messages_may_be_cut_anywhere():
    facts = dns_by_datagrams()
    segments = whole(framed(dns_messages()))
    for i, segment in enumerate(segments):
        for cut in range(1, len(segment.payload)):
            pieces = segments[:i] + cut_segment(segment, [cut]) + segments[i + 1 :]
            assert dns_facts(track(pieces, ends=DNS_ENDS)) == facts, (i, cut)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_dns_messages_may_be_pipelined_cut_repeated_and_in_disorder(data):
    messages = framed(dns_messages())
    turns = [
        Turn(True, messages[0].data + messages[2].data),
        Turn(False, messages[1].data + messages[3].data),
    ]
    expected = track(whole(turns), ends=DNS_ENDS)
    pieces = data.draw(cut_up(turns, max_cuts=8))
    order = []
    for turn in range(-1, 3):
        spoken = [piece for piece in pieces if piece.turn == turn]
        order += data.draw(st.permutations(spoken)) if turn in (0, 1) else spoken
        order += data.draw(st.lists(st.sampled_from(spoken), max_size=2)) if turn in (0, 1) else []
    tracked = track(order, ends=DNS_ENDS)
    assert tracked.events == expected.events
    assert sorted(dns_facts(tracked)) == sorted(dns_by_datagrams())
    assert is_clean(tracked, tracker())


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["lost", "cut"])
def test_dns_behind_missing_bytes_is_not_guessed_at(how):
    messages = framed(dns_messages())
    turns = [messages[0], messages[1], messages[2], messages[3]]
    segments = whole(turns)
    at = next(i for i, segment in enumerate(segments) if segment.turn == 1)
    pieces = cut_segment(segments[at], [20, 40])
    if how == "lost":
        pieces = [pieces[0], pieces[2]]
    else:
        pieces[1] = replace(pieces[1], captured=5)
    tracked = track([*segments[:at], *pieces, *segments[at + 1 :]], ends=DNS_ENDS)
    assert [event.kind for event in tracked.events] == [EventKind.DNS_QUERY, EventKind.DNS_QUERY]
    assert is_clean(tracked, tracker())


def test_an_empty_or_broken_dns_message_does_not_stop_the_stream():
    (query, *_) = framed(dns_messages())
    for rubbish in (b"\0\0", b"\0\1x", b"\0\x0c" + b"\xff" * 12):
        for cut in range(len(rubbish) + 3):
            turns = [Turn(True, rubbish + query.data)]
            pieces = join(*(cut_segment(segment, [cut]) for segment in whole(turns)))
            tracked = track(pieces, ends=DNS_ENDS)
            assert [event.text for event in tracked.events] == [b"mx.example.org"], (rubbish, cut)
            assert tracked.weirds[Weird.DNS_MALFORMED] + tracked.weirds[Weird.DNS_TRUNCATED] == 1
