"""Strategies for SMTP dialogues: what clients and servers really say, and what nobody should."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.conversation import Turn

DOMAINS = st.sampled_from([b"example.org", b"mx1.Example.NET", b"[192.0.2.7]", b"[IPv6:2001:db8::7]", b"x"])
LOCAL_PARTS = st.sampled_from(
    [b"joe", b"j.o.e+tag", b'"joe doe"', b'"a@b"', rb'"a\"b@c"', b'">"', b"@relay.example,@r2.example:joe"]
)
LINE_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r\r\n"])
CODES = st.sampled_from([250, 250, 250, 220, 221, 235, 354, 334, 421, 450, 451, 501, 503, 535, 550, 554])
REPLY_TEXTS = st.sampled_from(
    [
        b"ok",
        b"2.1.5 Ok",
        b"5.7.1 Service unavailable; client host blocked using zen.SpamHaus.org",
        b"4.7.0 poor reputation",
        b"5.7.1",
        b"3.0.0 no class",
        b"2.1.5x",
        b"5.1234.1 no code",
        b"",
        b"mail from:<joe@secret.example>",
    ]
)


@st.composite
def in_any_case(draw: st.DrawFn, word: bytes) -> bytes:
    how = draw(st.sampled_from([bytes.upper, bytes.upper, bytes.lower, bytes.swapcase, bytes.title]))
    return how(word)


@st.composite
def paths(draw: st.DrawFn) -> bytes:
    path = draw(LOCAL_PARTS) + b"@" + draw(DOMAINS)
    shape = draw(
        st.sampled_from(
            [b"<%s>", b"<%s>", b"<%s> SIZE=10 AUTH=joe@secret.example", b"%s", b" <%s>", b"<>", b""]
        )
    )
    return shape % path if b"%s" in shape else shape


@st.composite
def plain_commands(draw: st.DrawFn) -> bytes:
    """A line that is one command, and neither DATA, BDAT, AUTH nor STARTTLS."""
    kind = draw(st.integers(0, 9))
    if kind < 3:
        return draw(in_any_case(b"mail")) + b" FROM:" + draw(paths())
    if kind < 6:
        return draw(in_any_case(b"rcpt")) + b" TO:" + draw(paths())
    if kind < 8:
        return draw(in_any_case(draw(st.sampled_from([b"helo", b"ehlo", b"lhlo"])))) + b" " + draw(DOMAINS)
    word = draw(
        st.sampled_from(
            [
                b"rset",
                b"noop",
                b"quit",
                b"vrfy joe",
                b"help",
                b"xclient NAME=joe",
                b"send FROM:<a@b>",
                b"hellow",
            ]
        )
    )
    return draw(in_any_case(word))


ODD_LINES = st.one_of(
    st.sampled_from(
        [b"", b" ", b" QUIT", b"\0", b"QU\0IT", b"EHLO\tx y", b"RCPT TO:<joe@a\0b>", b"MAILX", b"."]
    ),
    st.builds(lambda n: b"EHLO " + b"x" * n, st.integers(240, 1100)),
    st.builds(lambda n: b"MAIL FROM:<" + b"y" * n + b"@example.org>", st.integers(980, 1100)),
    st.binary(max_size=30).map(lambda line: b"X" + line.replace(b"\n", b"").rstrip(b"\r")),
)

CONTENT_LINES = st.sampled_from(
    [
        b"Subject: hello",
        b"",
        b"..",
        b"...",
        b". ",
        b".x",
        b" .",
        b"MAIL FROM:<joe@secret.example>",
        b"EHLO secret.example",
        b"QUIT",
        b"250 ok",
        b"\x16\x03\x01",
    ]
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Content in wire format, with its end mark; only bare LF may stand for CRLF."""
    lines = draw(st.lists(st.tuples(CONTENT_LINES, LINE_ENDS), max_size=4))
    body = b"".join(line + end for line, end in lines)
    return body + b"." + draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))


@st.composite
def replies(draw: st.DrawFn, code: int) -> bytes:
    """One reply, of one line or several."""
    head = str(code).encode()
    lines = [head + b"-" + draw(REPLY_TEXTS) for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3])))]
    lines.append(draw(st.sampled_from([head, head + b" " + draw(REPLY_TEXTS)])))
    return b"".join(line + draw(LINE_ENDS) for line in lines)


@st.composite
def groups(draw: st.DrawFn) -> list[Turn]:
    """Some commands in one go, and the replies to them in one go or one by one (RFC 2920)."""
    lines = draw(st.lists(st.one_of(plain_commands(), plain_commands(), ODD_LINES), min_size=1, max_size=4))
    asked = b"".join(line + draw(LINE_ENDS) for line in lines)
    n_answers = sum(1 for line in lines if line.strip(b" \t"))
    answers = [
        draw(replies(draw(CODES.filter(lambda code: code not in (354, 334))))) for _ in range(n_answers)
    ]
    if draw(st.booleans()):
        return [Turn(True, asked), Turn(False, b"".join(answers))]
    return [Turn(True, asked), *(Turn(False, answer) for answer in answers)]


@st.composite
def data_transfers(draw: st.DrawFn) -> list[Turn]:
    """DATA, taken or refused, and its content, which may come ahead of the reply."""
    asked, content = draw(in_any_case(b"data")) + draw(LINE_ENDS), draw(contents())
    outcome = draw(replies(draw(st.sampled_from([250, 250, 451, 550]))))
    following = draw(st.sampled_from([b"", b"", b"NOOP\r\n"]))
    answer = draw(replies(250)) if following else b""
    if draw(st.integers(0, 3)) == 0:
        refusal = draw(replies(draw(st.sampled_from([451, 503, 554]))))
        late = [Turn(True, content), Turn(False, refusal)] if draw(st.booleans()) else []
        return [Turn(True, asked), Turn(False, refusal), *late]
    go_ahead = draw(replies(354))
    if draw(st.booleans()):
        return [
            Turn(True, asked),
            Turn(False, go_ahead),
            Turn(True, content + following),
            Turn(False, outcome + answer),
        ]
    return [Turn(True, asked + content + following), Turn(False, go_ahead + outcome + answer)]


@st.composite
def chunk_transfers(draw: st.DrawFn) -> list[Turn]:
    """BDATs with their chunks, pipelined or one by one, some of them malformed (RFC 3030)."""
    turns: list[Turn] = []
    n = draw(st.integers(1, 3))
    for i in range(n):
        chunk = draw(st.one_of(contents(), st.binary(max_size=50)))
        last = b" last" if i == n - 1 else b""
        sent = b"BDAT %d%s\r\n%s" % (len(chunk), last, chunk)
        bad = draw(
            st.sampled_from([b""] * 5 + [b"BDAT\r\n", b"BDAT -1 LAST\r\n", b"BDAT 5 X\r\n", b"BDAT 9x\r\n"])
        )
        turns += [
            Turn(True, sent + bad),
            Turn(False, draw(replies(250)) + (draw(replies(501)) if bad else b"")),
        ]
    if draw(st.booleans()):
        sides = {
            side: b"".join(turn.data for turn in turns if turn.is_client == side) for side in (True, False)
        }
        return [Turn(True, sides[True]), Turn(False, sides[False])]
    return turns


@st.composite
def logins(draw: st.DrawFn) -> list[Turn]:
    secret = draw(st.sampled_from([b"c2VjcmV0", b"*", b"", b"=", b"bWFpbDpx"]))
    end = draw(LINE_ENDS)
    if draw(st.booleans()):
        return [Turn(True, b"AUTH PLAIN " + secret + end), Turn(False, draw(replies(draw(CODES))))]
    turns = [Turn(True, draw(in_any_case(b"auth login")) + end)]
    for _ in range(draw(st.integers(0, 2))):
        turns += [Turn(False, b"334 VXNlcm5hbWU6\r\n"), Turn(True, secret + end)]
    return [*turns, Turn(False, draw(replies(draw(st.sampled_from([235, 535, 501])))))]


STEPS = st.one_of(groups(), groups(), data_transfers(), chunk_transfers(), logins())


@st.composite
def encrypted_ends(draw: st.DrawFn) -> list[Turn]:
    record = st.binary(max_size=60).map(lambda body: b"\x16\x03\x01" + body)
    return [
        Turn(True, b"STARTTLS\r\n"),
        Turn(False, b"220 go\r\n"),
        Turn(True, draw(record)),
        Turn(False, draw(record)),
        Turn(True, draw(st.binary(max_size=60)) + b"\nMAIL FROM:<joe@secret.example>\r\n"),
        Turn(False, draw(st.binary(max_size=60)) + b"\r\n250 ok\r\n"),
    ]


@st.composite
def dialogues(draw: st.DrawFn, max_steps: int = 6, *, may_encrypt: bool = True) -> list[Turn]:
    """A dialogue from its greeting on."""
    greeting = draw(st.sampled_from([220, 220, 220, 554, 421]))
    turns = [Turn(False, draw(replies(greeting)))]
    for step in draw(st.lists(STEPS, max_size=max_steps)):
        turns += step
    if may_encrypt and draw(st.integers(0, 5)) == 0:
        turns += draw(encrypted_ends())
    return [turn for turn in turns if turn.data]


_FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *(
                b"DATA\r\n",
                b"BDAT 7 LAST\r\n",
                b"BDAT 3\r\n",
                b"AUTH LOGIN\r\n",
                b"STARTTLS\r\n",
                b"RSET\r\n",
            ),
            *(
                b"MAIL FROM:<a@b>\r\n",
                b"RCPT TO:<c@d>\r\n",
                b"EHLO x\r\n",
                b"QUIT\r\n",
                b"abcdefg\r\n",
                b"\r\n",
            ),
            *(b".\r\n", b".\n", b"\n", b"\r", b".", b"..\r\n", b"QU", b"IT\r\n", b"X" * 600),
            *(b"220 a\r\n", b"220-a\r\n", b"250 2.1.0 b\r\n", b"250-b\r\n", b"354 c\r\n", b"354 d\r\n"),
            *(
                b"334 e\r\n",
                b"235 f\r\n",
                b"503 g\r\n",
                b"550 5.7.1 rbl. h\r\n",
                b"25",
                b"0 i\r\n",
                b"ijk\r\n",
            ),
        ]
    ),
    st.binary(max_size=6),
)


@st.composite
def soups(draw: st.DrawFn) -> list[Turn]:
    """Anything, said by anybody at any time: only that both sides belong to one connection is sure."""
    turns = draw(
        st.lists(
            st.builds(Turn, st.booleans(), st.lists(_FRAGMENTS, min_size=1, max_size=3).map(b"".join)),
            max_size=20,
        )
    )
    return [turn for turn in turns if turn.data]
