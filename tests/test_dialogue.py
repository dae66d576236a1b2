"""SMTP dialogues: however they are cut, the kernels read what the reference reads, and keep no secret."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.status import Weird
from sensor.events.types import EventFlag, EventKind
from sensor.jit import JIT_DISABLED
from tests import reference_smtp as reference
from tests.conversation import (
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
    read_dialogue,
    say,
    server,
    whole,
)
from tests.dialogues import dialogues, soups
from tests.reference_smtp import Command, Message, Reply

#: Plain Python is a few hundred times slower.
EXAMPLES = 60 if JIT_DISABLED else 400
GREETING = server(b"220 mx.example.net")


@cache
def tracker() -> Tracker:
    return Tracker()


def track(*turns: Turn) -> Tracked:
    return tracker().run(place(whole(turns)))


# --- the spec ---


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(dialogues())
def test_the_kernel_reads_what_the_reference_reads(turns):
    assert tracker().run(place(whole(turns))).smtp == read_dialogue(turns), explain(turns)


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(soups())
def test_it_does_so_whatever_is_said(turns):
    assert tracker().run(place(whole(turns))).smtp == read_dialogue(turns), explain(turns)


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(dialogues())
def test_it_does_so_without_the_servers_side(turns):
    said = [turn for turn in turns if turn.is_client]
    dialogue = reference.Dialogue(sees_server=False)
    for turn in said:
        dialogue.client(turn.data)
    dialogue.close()
    segments = [segment for segment in whole(said) if segment.is_client]
    assert tracker().run(place(segments)).smtp == dialogue.events, explain(said)


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(dialogues())
def test_it_does_so_without_the_clients_side(turns):
    said = [turn for turn in turns if not turn.is_client]
    segments = [segment for segment in whole(said) if not segment.is_client]
    assert tracker().run(place(segments)).smtp == read_dialogue(said), explain(said)


# --- segments ---

#: One dialogue with everything in it.
EVERYTHING = [
    server(b"220-mx.example.net", b"220 ESMTP"),
    client(b"EHLO client.example.org"),
    server(b"250-mx.example.net", b"250-PIPELINING", b"250 CHUNKING"),
    client(b"AUTH LOGIN"),
    server(b"334 VXNlcm5hbWU6"),
    client(b"am9l"),
    server(b"334 UGFzc3dvcmQ6"),
    client(b"c2VjcmV0"),
    server(b"235 2.7.0 ok"),
    client(
        b'MAIL FROM:<"a\\"b@c"@example.org>', b"RCPT TO:<x@example.net>", b"RCPT TO:<y@example.com>", b"DATA"
    ),
    server(b"250 2.1.0 ok", b"250 2.1.5 ok", b"550 5.7.1 blocked using dnsbl", b"354 go"),
    client(b"Subject: x", b"", b"..dot", b"MAIL FROM:<z@secret.example>", b".", b"RSET"),
    server(b"250 2.0.0 queued", b"250 ok"),
    Turn(
        True,
        b"mail from:<a@example.org>\r\nrcpt to:<b@example.net>\nBDAT 6\r\nab\r\n.\r\nBDAT 2 LAST\r\n\r\nNOOP\r\r\n",
    ),
    server(b"250 a", b"250 b", b"250 c", b"450-4.7.0 d", b"450 e", b"250 f"),
    client(b"STARTTLS"),
    server(b"220 go"),
    Turn(True, b"\x16\x03\x01\x00\x05hello\nQUIT\r\n"),
    Turn(False, b"\x16\x03\x03\x00\x05hello\n250 x\r\n"),
    Turn(True, b"\x17\x03\x03\nMAIL FROM:<a@secret.example>\r\n"),
]


def test_the_great_dialogue_as_read_by_hand():
    tracked = track(*EVERYTHING)
    assert tracked.smtp == [
        Reply(220),
        Command("EHLO", b"client.example.org"),
        Reply(250, "EHLO"),
        Command("AUTH"),
        *(Reply(334, "AUTH"), Reply(334, "AUTH"), Reply(235, "AUTH", (2, 7, 0))),
        *(Command("MAIL", b"example.org"), Command("RCPT", b"example.net"), Command("RCPT", b"example.com")),
        Command("DATA"),
        *(
            Reply(250, "MAIL", (2, 1, 0)),
            Reply(250, "RCPT", (2, 1, 5)),
            Reply(550, "RCPT", (5, 7, 1), names_blocklist=True),
        ),
        Reply(354, "DATA"),
        Command("RSET"),
        Reply(250, "DATA", (2, 0, 0)),
        Message(250, recipients=1, size=54),
        Reply(250, "RSET"),
        *(
            Command("MAIL", b"example.org"),
            Command("RCPT", b"example.net"),
            Command("BDAT"),
            Command("BDAT"),
            Command("NOOP"),
        ),
        *(Reply(250, "MAIL"), Reply(250, "RCPT"), Reply(250, "BDAT"), Reply(450, "BDAT", (4, 7, 0))),
        Message(450, recipients=1, size=8),
        Reply(250, "NOOP"),
        *(Command("STARTTLS"), Reply(220, "STARTTLS")),
    ]
    (close,) = tracked.closes
    assert close.flags & EventFlag.TLS
    assert close.flags & EventFlag.AUTHENTICATED


@pytest.mark.kernel
def test_byte_by_byte():
    segments = whole(EVERYTHING)
    bytewise = join(*(cut_segment(segment, range(len(segment.payload))) for segment in segments))
    assert tracker().run(place(bytewise)).smtp == tracker().run(place(segments)).smtp


def test_cut_at_every_position():
    segments = whole(EVERYTHING)
    expected = tracker().run(place(segments)).smtp
    for i, segment in enumerate(segments):
        for cut in range(1, len(segment.payload)):
            pieces = segments[:i] + cut_segment(segment, [cut]) + segments[i + 1 :]
            assert tracker().run(place(pieces)).smtp == expected, (segment, cut)


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(st.one_of(dialogues(), soups()), st.data())
def test_where_segments_end_makes_no_difference(turns, data):
    segments = whole(turns)
    pieces = join(
        *(
            cut_segment(segment, data.draw(st.sets(st.integers(1, max(len(segment.payload), 1)), max_size=6)))
            for segment in segments
        )
    )
    assert tracker().run(place(pieces)).smtp == tracker().run(place(segments)).smtp, explain(turns)


# --- what was hard to get right, from real captures ---

DIALOGUES = {
    "a refused DATA brings no content": (
        [
            client(b"DATA"),
            server(b"503 no"),
            client(b"Hello, Alice", b".", b"QUIT"),
            server(b"500 x", b"500 x", b"221 x"),
        ],
        [
            *(Command("DATA"), Reply(503, "DATA"), Command("OTHER"), Command("OTHER"), Command("QUIT")),
            *(Reply(500, "OTHER"), Reply(500, "OTHER"), Reply(221, "QUIT")),
        ],
    ),
    "content ahead of a refusal is no message": (
        [client(b"DATA", b"x", b".", b"QUIT"), server(b"503 no"), server(b"221 x")],
        [Command("DATA"), Command("QUIT"), Reply(503, "DATA"), Reply(221, "QUIT")],
    ),
    "content that has begun ahead of a refusal": (
        [client(b"DATA", b"x"), server(b"503 no"), client(b"QUIT")],
        [Command("DATA"), Reply(503, "DATA"), Command("QUIT")],
    ),
    "the first of many replies belongs to the first command": (
        [
            client(b"HELO", b"MAIL", b"RCPT", b"DATA"),
            client(b"test"),
            server(b"501 a", b"250 b", b"250 c", b"354 d"),
            client(b"..", b"."),
        ],
        [
            *(Command(verb) for verb in ("HELO", "MAIL", "RCPT", "DATA")),
            *(Reply(501, "HELO"), Reply(250, "MAIL"), Reply(250, "RCPT"), Reply(354, "DATA")),
            Message(0, 1, 13),
        ],
    ),
    "the whole dialogue in one segment before its replies": (
        [
            client(b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"x", b".", b"QUIT"),
            server(b"250 a", b"250 b", b"354 c", b"250 d", b"221 e"),
        ],
        [
            *(Command("MAIL", b"b"), Command("RCPT", b"d"), Command("DATA"), Command("QUIT")),
            *(
                Reply(250, "MAIL"),
                Reply(250, "RCPT"),
                Reply(354, "DATA"),
                Reply(250, "DATA"),
                Message(250, 1, 6),
            ),
            Reply(221, "QUIT"),
        ],
    ),
    "RSET takes recipients back when it is answered": (
        [
            client(
                b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"RSET", b"MAIL FROM:<a@b>", b"RCPT TO:<e@f>", b"DATA"
            ),
            server(b"250 a", b"250 b", b"250 c", b"250 d", b"250 e", b"354 f"),
            client(b"."),
            server(b"250 g"),
        ],
        [
            *(
                Command("MAIL", b"b"),
                Command("RCPT", b"d"),
                Command("RSET"),
                Command("MAIL", b"b"),
                Command("RCPT", b"f"),
            ),
            *(
                Command("DATA"),
                Reply(250, "MAIL"),
                Reply(250, "RCPT"),
                Reply(250, "RSET"),
                Reply(250, "MAIL"),
            ),
            *(Reply(250, "RCPT"), Reply(354, "DATA"), Reply(250, "DATA"), Message(250, 1, 3)),
        ],
    ),
    "a refused BDAT brings no chunk": (
        [client(b"BDAT 5 X", b"FROM", b"RCPT", b"DATA"), server(b"501 a", b"250 b", b"250 c", b"354 d")],
        [
            *(Command(verb) for verb in ("BDAT", "OTHER", "RCPT", "DATA")),
            *(Reply(501, "BDAT"), Reply(250, "OTHER"), Reply(250, "RCPT"), Reply(354, "DATA")),
        ],
    ),
    "a credential is no command": (
        [
            client(b"AUTH LOGIN"),
            server(b"334 x"),
            client(b"am9l"),
            server(b"334 x"),
            client(b"*"),
            server(b"501 x"),
            client(b"am9l"),
        ],
        [Command("AUTH"), Reply(334, "AUTH"), Reply(334, "AUTH"), Reply(501, "AUTH"), Command("OTHER")],
    ),
    "a verb ends AUTH": (
        [client(b"AUTH LOGIN"), server(b"334 x"), client(b"QUIT")],
        [Command("AUTH"), Reply(334, "AUTH"), Command("QUIT")],
    ),
    "STARTTLS refused": (
        [client(b"STARTTLS"), server(b"454 no"), client(b"QUIT")],
        [Command("STARTTLS"), Reply(454, "STARTTLS"), Command("QUIT")],
    ),
    "STARTTLS, and then clear text": (
        [client(b"STARTTLS"), server(b"220 go"), client(b"EHLO x"), server(b"250 y")],
        [Command("STARTTLS"), Reply(220, "STARTTLS"), Command("EHLO", b"x"), Reply(250, "EHLO")],
    ),
    "a reply that nobody asked for": ([server(b"421 bye")], [Reply(421)]),
    "a malformed line within a reply": (
        [client(b"EHLO x"), server(b"250-a", b"what?", b"250 b"), client(b"QUIT"), server(b"221 c")],
        [Command("EHLO", b"x"), Reply(250, "EHLO"), Command("QUIT"), Reply(221, "QUIT")],
    ),
    "a message whose answer never came": (
        [client(b"DATA"), server(b"354 go"), client(b"x", b".")],
        [Command("DATA"), Reply(354, "DATA"), Message(0, 0, 6)],
    ),
    "a message whose end never came": (
        [client(b"DATA"), server(b"354 go"), client(b"x")],
        [Command("DATA"), Reply(354, "DATA"), Message(0, 0, 3)],
    ),
    "more commands than can wait for a reply": (
        [client(*[b"NOOP"] * 70), Turn(False, b"250 x\r\n" * 70)],
        [*[Command("NOOP")] * 70, *[Reply(250, "NOOP")] * 64, *[Reply(250)] * 6],
    ),
}
DIALOGUES["the next transaction ahead of the message's reply"] = (
    [
        client(b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>"),
        server(b"250 a", b"250 b"),
        Turn(True, b"BDAT 2 LAST\r\nxyMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nRCPT TO:<i@j>\r\n"),
        server(b"250 c", b"250 d", b"250 e", b"250 f"),
        Turn(True, b"BDAT 3 LAST\r\nxyzQUIT\r\n"),
        server(b"250 g", b"221 h"),
    ],
    [
        *(Command("MAIL", b"b"), Command("RCPT", b"d"), Reply(250, "MAIL"), Reply(250, "RCPT")),
        *(Command("BDAT"), Command("MAIL", b"f"), Command("RCPT", b"h"), Command("RCPT", b"j")),
        *(Reply(250, "BDAT"), Message(250, 1, 2), Reply(250, "MAIL"), Reply(250, "RCPT"), Reply(250, "RCPT")),
        *(Command("BDAT"), Command("QUIT"), Reply(250, "BDAT"), Message(250, 2, 3), Reply(221, "QUIT")),
    ],
)


@pytest.mark.kernel
@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues_from_real_captures(name):
    turns, expected = DIALOGUES[name]
    turns = [GREETING, *turns]
    assert read_dialogue(turns) == [Reply(220), *expected]
    assert track(*turns).smtp == [Reply(220), *expected]


def test_what_is_no_smtp_is_not_read():
    tracked = track(Turn(False, b"SSH-2.0-x\r\n"), client(b"MAIL FROM:<a@b>"), server(b"250 x"))
    assert tracked.smtp == []
    assert tracked.weirds[Weird.SMTP_NOT_SMTP] == 1


def test_a_greeting_of_odd_lines_is_smtp_all_the_same():
    tracked = track(server(b"220-a", b"welcome", b"220 b"), client(b"QUIT"))
    assert tracked.smtp == [Reply(220), Command("QUIT")]
    assert tracked.weirds[Weird.SMTP_REPLY_MALFORMED] == 1


def test_tls_from_the_first_byte():
    tracked = track(Turn(True, b"\x16\x03\x01\nMAIL FROM:<a@b>\r\n"), Turn(False, b"\x16\x03\x03\n250 x\r\n"))
    assert tracked.smtp == []
    assert tracked.closes[0].flags & EventFlag.TLS


# --- missing bytes ---


@st.composite
def lossy(draw: st.DrawFn) -> tuple[list[Turn], list[Segment], set[int]]:
    """A dialogue cut into segments, and which of them the capture missed."""
    turns = [GREETING, *draw(st.one_of(dialogues(may_encrypt=False), soups()))]
    spoken = []
    for segment in say(turns):
        spoken += cut_segment(
            segment, draw(st.sets(st.integers(1, max(len(segment.payload), 1)), max_size=3))
        )
    seen = [number for number, segment in enumerate(spoken) if segment.turn > 0]
    lost = draw(st.sets(st.sampled_from(seen), max_size=3)) if seen else set()
    return turns, spoken, lost


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(lossy())
def test_a_dialogue_with_gaps_is_read_as_the_reference_reads_it(case):
    """A gap shows when the side's next bytes come: at the latest when the other side acknowledges them.

    In content, nothing else changes; a chunk goes on if it is longer than the gap; commands are read again from the
    server's next reply on. A server's gap makes nobody know what later replies answer.
    """
    turns, spoken, lost = case
    dialogue = reference.Dialogue()
    gap = {True: 0, False: 0}
    for number, segment in enumerate(spoken):
        side = segment.is_client
        if number in lost:
            gap[side] += len(segment.payload)
            continue
        if gap[side] and side:
            dialogue.lose_client(gap[side])
        elif gap[side]:
            dialogue.lose_server(segment.payload)
        gap[side] = 0
        (dialogue.client if side else dialogue.server)(segment.payload)
    dialogue.close()
    seen = [segment for number, segment in enumerate(spoken) if number not in lost]
    tracked = tracker().run(place([*handshake(), *seen, *closing(turns)]))
    assert tracked.smtp == dialogue.events, (explain(turns), lost)
    n_gaps = sum(
        number - 1 in lost
        for number in range(1, len(spoken))
        if number not in lost and spoken[number - 1].is_client == spoken[number].is_client
    )
    assert tracked.weirds[Weird.TCP_GAP] >= n_gaps
    assert (tracked.line_free, tracked.held_free) == (tracker().n_lines, tracker().n_held)


def drop(turns: list[Turn], first: int, last: int) -> Tracked:
    """Track a dialogue in which the bytes ``first:last`` of the client's are missing."""
    segments = []
    for segment in whole(turns):
        if not segment.is_client or segment.end <= first or segment.at >= last:
            segments.append(segment)
            continue
        pieces = cut_segment(segment, [first - segment.at, last - segment.at])
        segments += [piece for piece in pieces if piece.end <= first or piece.at >= last]
    return tracker().run(place(segments))


def test_before_the_servers_first_byte_a_broken_line_is_one_line():
    """Where only the client is seen, a known verb shows that commands go on; a verb within a line does not."""
    for line, expected in ((b"NOOP", [Command("NOOP"), Command("OTHER")]), (b"No, HELP", [])):
        pieces = cut_segment(Segment(True, 50, line + b"\r\nabc\r\n", 0, 1), [4])
        assert tracker().run(place([*handshake(), *pieces, *closing([])[:1]])).smtp == expected


CONTENT = [
    GREETING,
    client(b"EHLO a.example"),
    server(b"250 ok"),
    client(b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"),
    server(b"250 a", b"250 b", b"354 c"),
    client(
        b"EHLO secret.example",
        b"MAIL FROM:<joe@secret.example>",
        b"RCPT TO:<joe@secret.example>",
        b"x" * 40,
        b".",
    ),
    server(b"250 queued"),
    client(b"MAIL FROM:<e@f.example>"),
    server(b"250 ok"),
    client(b"QUIT"),
    server(b"221 bye"),
]


def test_after_any_gap_content_is_not_taken_for_commands_and_the_dialogue_goes_on():
    n = sum(len(turn.data) for turn in CONTENT if turn.is_client)
    for first in range(0, n, 3):
        for last in range(first + 1, n, 7):
            tracked = drop(CONTENT, first, last)
            domains = [said.domain for said in tracked.smtp if isinstance(said, Command)]
            assert b"secret.example" not in domains, (first, last)
            assert sum(isinstance(said, Reply) for said in tracked.smtp) == 8
            # The reply to what follows the gap is the latest place to find back.
            if last <= n - len(b"MAIL FROM:<e@f.example>\r\nQUIT\r\n"):
                assert tracked.smtp[-2:] == [Command("QUIT"), Reply(221, "QUIT")], (first, last)
            assert tracked.closes[0].flags & EventFlag.GAP


def test_a_gap_within_a_chunk_is_part_of_the_chunk():
    turns = [GREETING, Turn(True, b"BDAT 300 LAST\r\n" + b"MAIL FROM:<a@b>\r\n" * 20)[:2], server(b"250 ok")]
    turns[1] = Turn(True, b"BDAT 340 LAST\r\n" + b"MAIL FROM:<a@b>\r\n" * 20 + b"QUIT\r\n")
    expected = [Reply(220), Command("BDAT"), Command("QUIT"), Reply(250, "BDAT"), Message(250, 0, 340)]
    for last in range(20, 350, 7):
        assert drop(turns, 16, last).smtp == expected


def test_joined_within_content_nothing_is_a_command_before_the_next_reply():
    content = [Turn(True, b"Subject: x\r\n\r\nMAILing FROM:<joe@secret.example>\r\n.\r\n"), *CONTENT[6:]]
    tracked = tracker().run(place(say(content)))
    assert tracked.smtp == [
        *(Reply(250), Command("MAIL", b"f.example"), Reply(250, "MAIL"), Command("QUIT"), Reply(221, "QUIT")),
    ]
    assert tracked.weirds[Weird.FLOW_MIDSTREAM] == 1
    assert tracked.closes[0].flags & EventFlag.MIDSTREAM
    # The server's side being in view, not even what looks like a command is one.
    tracked = tracker().run(place([s for s in say(CONTENT) if s.turn >= 4]))
    assert b"secret.example" not in texts(tracked)
    assert tracked.smtp[-3:] == [Reply(250, "MAIL"), Command("QUIT"), Reply(221, "QUIT")]


# --- the snap length ---


@pytest.mark.kernel
@settings(max_examples=EXAMPLES)
@given(st.one_of(dialogues(), soups()), st.data())
def test_segments_may_be_cut_by_the_snap_length(turns, data):
    spoken = []
    for segment in whole(turns):
        for piece in cut_segment(
            segment, data.draw(st.sets(st.integers(1, max(len(segment.payload), 1)), max_size=2))
        ):
            captured = data.draw(st.one_of(st.none(), st.integers(0, len(piece.payload))))
            spoken.append(replace(piece, captured=captured))
    tracked = tracker().run(place(spoken))
    n_cut = sum(
        segment.captured is not None and segment.captured < len(segment.payload) for segment in spoken
    )
    assert tracked.weirds[Weird.SNAPLEN_CUT_PAYLOAD] == n_cut
    assert (tracked.line_free, tracked.held_free) == (tracker().n_lines, tracker().n_held)
    (close,) = tracked.closes
    for side, n_bytes in ((True, close.orig_bytes), (False, close.resp_bytes)):
        assert n_bytes == sum(len(turn.data) for turn in turns if turn.is_client == side)


def test_at_the_usual_snap_lengths_the_dialogue_can_be_followed():
    for snap in (8, 20, 40):
        segments = [replace(s, captured=min(len(s.payload), snap)) for s in whole(CONTENT)]
        replies = [said for said in tracker().run(place(segments)).smtp if isinstance(said, Reply | Message)]
        assert replies[:2] == [Reply(220), Reply(250, "EHLO")]
        assert replies[-2:] == [Reply(250, "MAIL"), Reply(221, "QUIT")]


# --- secrets ---

MARK = b"s3cr3t"


@st.composite
def secretive(draw: st.DrawFn) -> list[Turn]:
    """Dialogues with the mark wherever a client says something in confidence."""
    local = (
        draw(
            st.sampled_from(
                [
                    b"%s",
                    b'"%s"',
                    b'"a@%s"',
                    rb'"\"@%s"',
                    rb'"\\\"@%s>"',
                    b"a.%s",
                    b"@r.example:%s",
                    b'"%s x"',
                    b'"a"%s',
                ]
            )
        )
        % MARK
    )
    shape = draw(
        st.sampled_from(
            [b"<%s@ok.example>", b"%s@ok.example", b" <%s@ok.example> X=" + MARK, b"<%s>", b"<%s"]
        )
    )
    path = shape % local
    content = draw(
        st.lists(
            st.sampled_from(
                [
                    MARK,
                    b"EHLO " + MARK,
                    b"MAIL FROM:<a@%s>" % MARK,
                    b".." + MARK,
                    b"",
                    b"250 " + MARK,
                    b"QUIT",
                ]
            ),
            max_size=5,
        )
    )
    login = draw(
        st.sampled_from(
            [
                [client(b"AUTH PLAIN " + MARK), server(b"235 ok")],
                [
                    client(b"AUTH LOGIN"),
                    server(b"334 u"),
                    client(MARK),
                    server(b"334 p"),
                    client(MARK),
                    server(b"535 no"),
                ],
                [client(b"AUTH LOGIN " + MARK), server(b"334 p"), client(MARK), server(b"235 " + MARK)],
                [
                    client(b"VRFY " + MARK, b"XCLIENT LOGIN=" + MARK, b"EXPN " + MARK),
                    server(b"250 " + MARK, b"250 x", b"550 x"),
                ],
            ]
        )
    )
    body = b"".join(line + b"\r\n" for line in content)
    send = draw(
        st.sampled_from(
            [
                [client(b"DATA"), server(b"354 go"), Turn(True, body + b".\r\n"), server(b"250 ok")],
                [Turn(True, b"DATA\r\n" + body + b".\r\n"), server(b"354 go", b"250 ok")],
                [Turn(True, b"BDAT %d LAST\r\n" % len(body) + body), server(b"250 ok")],
            ]
        )
    )
    envelope = [
        client(b"MAIL FROM:" + path),
        server(b"250 " + MARK),
        client(b"RCPT TO:" + path),
        server(b"550 " + MARK),
    ]
    return [
        GREETING,
        client(b"EHLO ok.example"),
        server(b"250 ok"),
        *login,
        *envelope,
        *send,
        client(b"QUIT"),
        server(b"221 x"),
    ]


def texts(tracked: Tracked) -> bytes:
    return tracked.arena + b"".join(event.text for event in tracked.events)


@settings(max_examples=EXAMPLES)
@given(secretive(), st.data())
def test_no_secret_is_kept(turns, data):
    """Neither of a whole dialogue, nor of what is left of it when segments are cut, lost or in disorder."""
    pieces = join(
        *(
            cut_segment(segment, data.draw(st.sets(st.integers(1, max(len(segment.payload), 1)), max_size=3)))
            for segment in whole(turns)
        )
    )
    assert MARK not in texts(tracker().run(place(pieces)))
    seen = [piece for piece in pieces if piece.turn <= 0 or data.draw(st.integers(0, 9)) > 0]
    snapped = [
        replace(piece, captured=data.draw(st.integers(1, len(piece.payload))))
        if piece.payload and data.draw(st.integers(0, 5)) == 0
        else piece
        for piece in seen
    ]
    tracked = tracker().run(place(snapped))
    assert MARK not in texts(tracked), [event for event in tracked.events if MARK in event.text]


def test_a_reply_is_not_joined_to_half_a_line_whose_end_was_not_captured():
    segments = whole(
        [GREETING, client(b"DATA"), server(b"354 go"), client(b"EHLO " + MARK, b"."), server(b"250 ok")]
    )
    greeting, rest = cut_segment(segments[3], [8])
    tracked = tracker().run(place([*segments[:3], greeting, replace(rest, captured=0), *segments[4:]]))
    assert tracked.smtp[-3:] == [Reply(354, "DATA"), Reply(250, "DATA"), Message(250, 0, 16)]
    assert MARK not in texts(tracked)


def test_the_search_for_secrets_finds_what_is_there():
    assert MARK in texts(track(GREETING, client(b"EHLO " + MARK)))


# --- limits ---


@pytest.mark.invariant
def test_a_frame_has_its_share_of_events_and_no_more():
    n = 20_000
    tracked = track(GREETING, Turn(True, b"X\n" * n), client(b"QUIT"))
    commands = [said for said in tracked.smtp if isinstance(said, Command)]
    assert 4000 < len(commands) <= 4097
    assert commands[-1] == Command("QUIT")
    assert tracked.weirds[Weird.EVENT_LIMIT] == n - (len(commands) - 1)
    assert tracked.closes[0].orig_bytes == 2 * n + 6


def test_without_line_buffers_broken_lines_are_passed_over():
    few = Tracker(n_lines=0)
    segments = whole([GREETING, client(b"EHLO x", b"NOOP"), server(b"250 a", b"250 b")])
    pieces = join(*(cut_segment(segment, [3]) if segment.is_client else [segment] for segment in segments))
    tracked = few.run(place(pieces))
    assert tracked.smtp == [Reply(220), Command("NOOP"), Reply(250, "NOOP"), Reply(250)]
    assert tracked.weirds[Weird.SMTP_LINE_BUFFERS_FULL] == 1


# --- the order of commands ---


def dialect_of(*commands: bytes) -> int:
    turns = [server(b"220 mx.example")]
    for command in commands:
        turns += [client(command), server(b"250 ok")]
    (end,) = (event for event in track(*turns).events if event.kind == EventKind.CONN_CLOSE)
    return end.aux_lo


MAIL = b"MAIL FROM:<a@sender.example>"


def test_a_dialect_is_the_order_of_the_commands_before_the_first_mail():
    plain = dialect_of(b"EHLO a.example", MAIL)
    assert plain == dialect_of(
        b"ehlo b.example", MAIL, b"RCPT TO:<b@recipient.example>", b"RSET", MAIL, b"QUIT"
    )
    others = [
        dialect_of(b"HELO a.example", MAIL),
        dialect_of(b"EHLO a.example", b"RSET", MAIL),
        dialect_of(b"RSET", b"EHLO a.example", MAIL),
        dialect_of(b"EHLO a.example", b"EHLO a.example", MAIL),
        dialect_of(MAIL),
    ]
    assert len({plain, *others}) == 1 + len(others)


def test_without_mail_there_is_no_dialect():
    assert dialect_of(b"EHLO a.example", b"QUIT") == 0
