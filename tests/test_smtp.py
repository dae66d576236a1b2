"""SMTP lines: what each command and each reply line says, seen through the events of a dialogue that holds it."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensor.decode.smtp import BLOCKLIST_WORDS, MAX_DOMAIN_BYTES, MAX_LINE_BYTES
from sensor.decode.status import Weird
from sensor.events.types import Verb
from sensor.jit import JIT_DISABLED
from tests import reference_smtp as reference
from tests.conversation import Tracked, Tracker, Turn, client, cut_segment, join, place, server, whole
from tests.reference_smtp import Command, Message, Reply

EXAMPLES = 30 if JIT_DISABLED else 500
GREETING = server(b"220 mx.example.net")

pytestmark = pytest.mark.kernel


@cache
def tracker() -> Tracker:
    return Tracker()


def track(*turns: Turn) -> Tracked:
    return tracker().run(place(whole(turns)))


def command(line: bytes) -> Command | None:
    """The one command that a client's line is."""
    commands = track(GREETING, Turn(True, line + b"\r\n")).smtp[1:]
    assert len(commands) <= 1
    return commands[0] if commands else None


def reply(*lines: bytes) -> Reply | None:
    """The one reply that a server's lines are."""
    replies = track(GREETING, client(b"NOOP"), server(*lines)).smtp[2:]
    assert len(replies) <= 1
    return replies[0] if replies else None


# --- verbs ---


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in (Verb.NONE, Verb.OTHER)])
def test_every_verb_is_known_in_any_case(verb):
    assert verb.name in reference.VERBS
    for word in (verb.name.upper(), verb.name.lower(), verb.name.capitalize(), verb.name.swapcase()):
        got = command(word.encode())
        assert got is not None
        assert got.verb == verb.name


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        (b"QUIT ", "QUIT"),
        (b"QUIT\t", "QUIT"),
        (b"QUIT\r", "QUIT"),
        (b"QUITX", "OTHER"),
        (b"QUI", "OTHER"),
        (b"QU\0IT", "OTHER"),
        (b"\xff\xfe", "OTHER"),
        (b"STARTTLSX", "OTHER"),
        (b"x" * 2000, "OTHER"),
        (b"QUIT " + b"x" * 2000, "QUIT"),
    ],
)
def test_the_first_word_is_the_verb(line, verb):
    assert command(line) == Command(verb)


@pytest.mark.parametrize("line", [b"", b" ", b"\t", b"\r", b" QUIT"])
def test_a_line_that_begins_blank_is_no_command(line):
    assert command(line) is None


# --- domains ---


@pytest.mark.parametrize(
    ("argument", "domain"),
    [
        (b"FROM:<joe@example.org>", b"example.org"),
        (b"FROM:<joe@Example.ORG> SIZE=100", b"Example.ORG"),
        (b"FROM:<>", b""),
        (b"FROM:<> AUTH=joe@secret.example", b""),
        (b"", b""),
        (b"FROM:", b""),
        (b"FROM:<joe>", b""),
        (b"TO:<postmaster>", b""),
        # without brackets, with blanks
        (b"FROM:joe@example.org", b"example.org"),
        (b"FROM: joe@example.org SIZE=100", b"example.org"),
        (b"FROM: <joe@example.org>", b"example.org"),
        (b"FROM:<joe doe@example.org>", b"example.org"),
        (b"FROM:<joe@example.org", b"example.org"),
        # quoted local parts
        (b'FROM:<"joe doe"@example.org>', b"example.org"),
        (b'FROM:<"a@b"@example.org>', b"example.org"),
        (b'FROM:<">"@example.org>', b"example.org"),
        (rb'FROM:<"a\"b@c"@example.org>', b"example.org"),
        (rb'FROM:<"a\\"@example.org>', b"example.org"),
        (rb'FROM:<"a\\\"@b"@example.org>', b"example.org"),
        (b'FROM:<"joe@example.org>', b""),
        (rb'FROM:<"joe\"@example.org>', b""),
        (b'FROM:<"joe\\', b""),
        # source routes (RFC 5321 section 4.1.2, obsolete)
        (b"FROM:<@a.example,@b.example:joe@example.org>", b"example.org"),
        (b"FROM:<@a.example:joe>", b"a.example"),
        (b"FROM:<@a.example:joe", b"a.example"),
        (b"FROM:<@a.example,joe>", b"a.example"),
        # address literals
        (b"FROM:<joe@[192.0.2.1]>", b"[192.0.2.1]"),
        (b"FROM:<joe@[IPv6:2001:db8::1]>", b"[IPv6:2001:db8::1]"),
        (b"FROM:<@[IPv6:2001:db8::1]:joe@example.org>", b"example.org"),
        (b"FROM:<@[IPv6:2001:db8::1]:joe", b"[IPv6:2001:db8::1]"),
        # more than a domain can be
        (b"FROM:<joe@" + b"x" * 300 + b">", b"x" * MAX_DOMAIN_BYTES),
        (b"FROM:<" + b"y" * 990 + b"@example.org>", b"example.org"),
        (b"FROM:<" + b"y" * 2000 + b"@example.org>", b""),
        # as bytes
        (b"FROM:<joe@\xc3\xa4.example>", b"\xc3\xa4.example"),
        (b"FROM:<joe@a\0b>", b"a\0b"),
    ],
)
def test_of_a_path_the_domain_is_reported(argument, domain):
    assert command(b"MAIL " + argument) == Command("MAIL", domain)
    assert command(b"RCPT " + argument) == Command("RCPT", domain)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.sampled_from(b'<>@":,[] \\\tab.'), max_size=25).map(bytes))
@example(b'FROM:<"')
@example(b'"\\')
def test_a_path_of_any_bytes_has_the_domain_that_the_reference_finds(argument):
    line = b"MAIL F" + argument
    assert command(line) == Command("MAIL", reference.path_domain(b"F" + argument))


@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
@pytest.mark.parametrize(
    ("argument", "domain"),
    [
        (b" client.example.org", b"client.example.org"),
        (b"  client.example.org ", b"client.example.org"),
        (b"\tclient.example.org\tx", b"client.example.org"),
        (b" [192.0.2.1]", b"[192.0.2.1]"),
        (b" two words", b"two"),
        (b"", b""),
        (b" ", b""),
        (b" " + b"x" * 300, b"x" * MAX_DOMAIN_BYTES),
    ],
)
def test_of_a_greeting_the_name_is_reported(verb, argument, domain):
    assert command(verb.encode() + argument) == Command(verb, domain)


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"AUTH PLAIN c2VjcmV0",
            b"VRFY secret",
            b"EXPN secret",
            b"XCLIENT NAME=secret LOGIN=secret",
            b"NOOP secret",
        ),
        *(
            b"SEND FROM:<a@secret>",
            b"ETRN secret",
            b"BURL imap://secret",
            b"secret@secret.example",
            b"DATA secret",
        ),
    ],
)
def test_no_other_argument_is_reported(line):
    got = command(line)
    assert got is not None
    assert got.domain == b""


# --- BDAT ---


@pytest.mark.parametrize(
    ("argument", "size", "is_last"),
    [
        (b"12", 12, False),
        (b"12 LAST", 12, True),
        (b"12 last ", 12, True),
        (b"12 ", 12, False),
        (b"0 LAST", 0, True),
        (b"0", 0, False),
        (b"0012 LAST", 12, True),
        # what servers refuse brings no chunk
        *(
            (bad, 0, False)
            for bad in (b"", b"-1", b"-1 LAST", b"x", b"12x", b"12 X", b"12 LASTX", b"12 LAS", b"LAST")
        ),
        *(
            (bad, 0, False)
            for bad in (b"12LAST", b"+12", b"1 2", b"12  LAST", b"99999999999999999999999 LAST", b"9" * 13)
        ),
    ],
)
def test_bdat_announces_a_chunk(argument, size, is_last):
    assert reference.chunk_of(argument) == (size, is_last)
    chunk = b"RSET\r\nEHLO x\r\n"[:size]
    tracked = track(
        GREETING,
        Turn(True, b"BDAT " + argument + b"\r\n" + chunk + b"NOOP\r\n"),
        server(b"250 ok", b"250 ok"),
    )
    message = [Message(250, 0, size)] if is_last else []
    assert tracked.smtp == [
        Reply(220),
        Command("BDAT"),
        Command("NOOP"),
        Reply(250, "BDAT"),
        *message,
        Reply(250, "NOOP"),
        *([Message(0, 0, size)] if size and not is_last else []),
    ]


def test_a_chunk_of_a_terabyte_is_waited_for():
    tracked = track(GREETING, Turn(True, b"BDAT 999999999999 LAST\r\nQUIT\r\nQUIT\r\n"), server(b"250 ok"))
    assert tracked.smtp[1:] == [Command("BDAT"), Reply(250, "BDAT"), Message(250, 0, 999999999999)]


# --- replies ---


@pytest.mark.parametrize("code", [100, 199, 200, 220, 250, 421, 554, 599])
def test_a_reply_has_a_code(code):
    assert reply(b"%d text" % code) == Reply(code, "NOOP")
    assert reply(b"%d" % code) == Reply(code, "NOOP")
    assert reply(b"%d " % code) == Reply(code, "NOOP")
    assert reply(b"%d\ttext" % code) == Reply(code, "NOOP")
    assert reply(b"%d-one" % code, b"%d-two" % code, b"%d three" % code) == Reply(code, "NOOP")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"25",
        b"2500 x",
        b"099 x",
        b"600 x",
        b"999 x",
        b"25x x",
        b" 250 x",
        b"250x",
        b"ok",
        b"-50 x",
        b"250.x",
    ],
)
def test_other_lines_are_no_replies(line):
    assert reply(line) is None
    tracked = track(GREETING, client(b"NOOP"), server(line, b"250 ok"))
    assert tracked.smtp[2:] == [Reply(250, "NOOP")]
    assert tracked.weirds[Weird.SMTP_REPLY_MALFORMED] == 1


def test_the_last_line_of_a_reply_decides():
    assert reply(b"250-a", b"550 b") == Reply(550, "NOOP")
    assert reply(b"250-a") is None


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        (b"2.0.0 ok", (2, 0, 0)),
        (b"4.7.1", (4, 7, 1)),
        (b"5.123.999 x", (5, 123, 999)),
        *(
            (bad, None)
            for bad in (
                b"",
                b"3.0.0 x",
                b"1.0.0 x",
                b"2.0 x",
                b"2.0.0x",
                b"2..0 x",
                b"2.1234.0 x",
                b"2.0.1234 x",
            )
        ),
        *(
            (bad, None)
            for bad in (b" 2.0.0 x", b"22.0.0 x", b"x 2.0.0", b"2.0.0.0 x", b"2,0,0 x", b"002.0.0.1")
        ),
    ],
)
def test_a_reply_may_have_an_enhanced_code(text, enhanced):
    assert reply(b"250 " + text) == Reply(250, "NOOP", enhanced)
    assert reply(b"250-" + text, b"250 5.6.7 x") == Reply(250, "NOOP", enhanced or (5, 6, 7))
    assert reply(b"250-" + text, b"250 x") == Reply(250, "NOOP", enhanced)


@pytest.mark.parametrize("word", [word.encode() for word in BLOCKLIST_WORDS])
def test_every_blocklist_word_is_found(word):
    assert word in reference.BLOCKLIST_WORDS
    for text in (b"see " + word, word + b" says no", b"x" + word.upper() + b"y", word[:1] + word):
        assert reply(b"554 " + text) == Reply(554, "NOOP", names_blocklist=True)
        assert reply(b"450-" + text, b"450 x") == Reply(450, "NOOP", names_blocklist=True)
        assert reply(b"250 " + text) == Reply(250, "NOOP")
    assert reply(b"554 " + word[:-1]) == Reply(
        554, "NOOP", names_blocklist=reference.has_blocklist_word(b"554 " + word[:-1])
    )


def test_both_know_the_same_words():
    assert {word.encode() for word in BLOCKLIST_WORDS} == set(reference.BLOCKLIST_WORDS)
    assert {verb.name for verb in Verb} == {*reference.VERBS, "NONE", "OTHER"}


# --- lines ---


@pytest.mark.parametrize("n", [MAX_LINE_BYTES - 2, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_a_line_is_looked_at_up_to_its_limit_however_it_comes(n):
    line = b"EHLO " + b"x " + b"y" * (n - 7)
    turns = [GREETING, client(line, b"MAIL FROM:<joe@example.org>"), server(b"250 a", b"250 b")]
    segments = whole(turns)
    expected = [
        Reply(220),
        Command("EHLO", b"x"),
        Command("MAIL", b"example.org"),
        Reply(250, "EHLO"),
        Reply(250, "MAIL"),
    ]
    for places in ([], [500], [n], [n + 1], range(0, n, 100)):
        cut = join(*(cut_segment(segment, places if segment.is_client else []) for segment in segments))
        tracked = tracker().run(place(cut))
        assert tracked.smtp == expected
        assert tracked.weirds[Weird.SMTP_LINE_TOO_LONG] == (n > MAX_LINE_BYTES)


# --- the end of the data ---

TRICKY = [
    b".\r\n",
    b"\r\n.\r\n",
    b"x\r\n.\r\n",
    b"..\r\n.\r\n",
    b".x\r\n.\r\n",
    b". \r\n.\r\n",
    b".\r.\r\n.\r\n",
    b".\r\r\n.\r\n",
    b"x.\r\n.\r\n",
    b"x\n.\n",
    b"x\r.\r\n\r\n.\r\n",
    b"\n\n.\n",
    b".\0\r\n.\r\n",
]


@pytest.mark.parametrize("content", TRICKY)
def test_the_end_mark_is_found_wherever_it_is_cut(content):
    turns = [
        GREETING,
        client(b"DATA"),
        server(b"354 go"),
        Turn(True, content + b"NOOP\r\n"),
        server(b"250 a", b"250 b"),
    ]
    expected = [
        *(Reply(220), Command("DATA"), Reply(354, "DATA"), Command("NOOP")),
        *(Reply(250, "DATA"), Message(250, 0, len(content)), Reply(250, "NOOP")),
    ]
    segments = whole(turns)
    at = next(i for i, segment in enumerate(segments) if segment.payload.startswith(content))
    for first in range(len(content) + 1):
        for second in range(first, len(content) + 1):
            cut = segments[:at] + cut_segment(segments[at], [first, second]) + segments[at + 1 :]
            assert tracker().run(place(cut)).smtp == expected
