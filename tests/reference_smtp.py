"""A slow, obvious reader of one SMTP dialogue: what events/dialogue.py must compute.

It takes the two sides' bytes one at a time, so how they were cut into segments cannot matter. It keeps nothing but
what it says: verbs, domains, codes, counts. Nothing is shared with sensor.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

VERBS = [
    *("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP"),
    *("STARTTLS", "AUTH", "XCLIENT", "XFORWARD", "ETRN", "TURN", "SEND", "SOML", "SAML", "LHLO", "BURL"),
]
BLOCKLIST_WORDS = [
    *(b"spamhaus", b"spamcop", b"barracudacentral", b"sorbs.net", b"uceprotect", b"abuseat.org", b"psbl."),
    *(b"mailspike", b"senderscore", b"spamrats", b"dnsbl", b"rbl.", b"blacklist", b"blocklist"),
    *(
        b"block list",
        b"black list",
        b"blocked using",
        b"poor reputation",
        b"bad reputation",
        b"low reputation",
    ),
]
MAX_LINE = 1024
MAX_DOMAIN = 255
MAX_PENDING = 64
LF = b"\n"
TLS_STARTS = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake; version 3.x


@dataclass(frozen=True)
class Command:
    verb: str
    domain: bytes = b""


@dataclass(frozen=True)
class Reply:
    code: int
    verb: str = "NONE"  # of the command that it answers
    enhanced: tuple[int, int, int] | None = None
    names_blocklist: bool = False


@dataclass(frozen=True)
class Message:
    code: int  # the server's answer, 0 if none was seen
    recipients: int
    size: int  # bytes on the wire, the end mark included


Event = Command | Reply | Message


@dataclass(frozen=True)
class Pending:
    """What waits for a reply; ``ends_message`` if that reply is the answer to a message."""

    verb: str
    ends_message: bool = False


NOTHING = Pending("NONE")


def verb_of(line: bytes) -> str:
    """The first word; NONE of an empty line and of one that begins with a blank."""
    word = re.split(rb"[ \t]", line, maxsplit=1)[0]
    if not word:
        return "NONE"
    name = word.upper().decode("latin-1")
    return name if name in VERBS else "OTHER"


def argument_of(line: bytes) -> bytes:
    return re.sub(rb"^[^ \t]*[ \t]*", b"", line)


def greeting_domain(argument: bytes) -> bytes:
    return re.split(rb"[ \t]", argument, maxsplit=1)[0][:MAX_DOMAIN]


def path_domain(argument: bytes) -> bytes:
    """What follows the last @ of a path, up to what cannot be part of a domain; nothing if a quote stays open."""
    domain, is_ended, in_literal = b"", True, False
    tokens = re.findall(rb'"(?:\\.|[^"\\])*"|.', argument, flags=re.DOTALL)  # a quoted string is one
    for token, following in zip(tokens, [*tokens[1:], b""], strict=False):
        if token == b'"':
            return b""
        if token == b">":
            break
        if token == b"@":
            domain, is_ended, in_literal = b"", False, following == b"["
            continue
        if is_ended:
            continue
        if token == b" ":
            break
        if token == b"]":
            in_literal = False
        if token in (b":", b",") and not in_literal:
            is_ended = True  # a source route: the local part follows
        else:
            domain += token
    return domain[:MAX_DOMAIN]


def chunk_of(argument: bytes) -> tuple[int, bool]:
    """Size and "is it the last" of a BDAT; one that is not well formed brings no chunk."""
    found = re.fullmatch(rb"(\d{1,12})( LAST)? *", argument, flags=re.IGNORECASE)
    return (int(found[1]), found[2] is not None) if found else (0, False)


def reply_of(line: bytes) -> tuple[int, bool] | None:
    """Code and "more lines follow"; None if it is no reply line."""
    found = re.match(rb"([1-5]\d\d)(?:([ \t-])|$)", line, flags=re.DOTALL)
    if not found or (found[2] is None and len(line) > 3):
        return None
    return int(found[1]), found[2] == b"-"


def enhanced_of(line: bytes) -> tuple[int, int, int] | None:
    found = re.match(rb"\d\d\d.([245])\.(\d{1,3})\.(\d{1,3})(?: |\Z)", line, flags=re.DOTALL)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def has_blocklist_word(line: bytes) -> bool:
    return any(word in line[4:].lower() for word in BLOCKLIST_WORDS)


class Dialogue:
    """Reads both sides in the order in which they were captured and gathers ``events``.

    Client modes: "commands"; "data pending", DATA without its reply; "data"; "chunk"; "auth"; "resync", bytes are
    missing and the next reply is waited for; "tls"; "opaque", no SMTP. Server modes: "replies", "tls", "opaque".
    """

    def __init__(self, *, sees_server: bool = True) -> None:
        self.events: list[Event] = []
        self.sees_server = sees_server
        self.client_mode = "commands"
        self.server_mode = "replies"
        self._client_line = bytearray()
        self._server_line = bytearray()
        self._content_line = bytearray()
        self._skips_server_line = False
        self._chunk_left = 0
        self._pending: deque[Pending] = deque(maxlen=MAX_PENDING)
        self._size = 0  # of the content under way
        self._sent: int | None = None  # size of the content that waits for its reply
        self._accepted = 0  # recipients
        self._asked = 0
        self._enhanced: tuple[int, int, int] | None = None
        self._names_blocklist = False
        self._has_server_bytes = False
        self._has_reply_line = False
        self._has_replied = False

    # --- the client's side ---

    def client(self, data: bytes) -> None:
        for i in range(len(data)):
            self._client_byte(data[i : i + 1])

    def _client_byte(self, byte: bytes) -> None:
        if self.client_mode in ("data pending", "data"):
            self._content_byte(byte)
        elif self.client_mode == "chunk":
            self._chunk_left -= 1
            if self._chunk_left == 0:
                self.client_mode = "commands"
        elif self.client_mode in ("commands", "auth", "resync"):
            self._client_line += byte
            if self._client_line[:2] in TLS_STARTS:
                self.client_mode = "tls"
            if byte == LF:
                line = bytes(self._client_line[:-1])[:MAX_LINE].rstrip(b"\r")
                self._client_line.clear()
                self._line(line)

    def _content_byte(self, byte: bytes) -> None:
        self.client_mode = "data"
        self._size += 1
        self._content_line += byte
        if byte != LF:
            return
        if self._content_line in (b".\r\n", b".\n"):
            self.client_mode = "commands"
            self._end_content()
            if not self.sees_server:
                self._end_message(0)
                self._pending.clear()
        self._content_line.clear()

    def _line(self, line: bytes) -> None:
        verb = verb_of(line)
        if self.client_mode == "resync":
            if self._has_server_bytes or verb in ("NONE", "OTHER"):
                return
            self.client_mode = "commands"
        if self.client_mode == "auth":
            if verb in ("NONE", "OTHER"):
                return  # a credential
            self.client_mode = "commands"
        if verb == "NONE":
            return
        domain = b""
        pending = Pending(verb)
        if verb in ("HELO", "EHLO", "LHLO"):
            domain = greeting_domain(argument_of(line))
        elif verb in ("MAIL", "RCPT"):
            domain = path_domain(argument_of(line))
        elif verb == "DATA":
            self.client_mode = "data pending"
            self._content_line.clear()
            self._size = 0
        elif verb == "BDAT":
            pending = self._chunk(line)
        elif verb == "AUTH":
            self.client_mode = "auth"
        if verb in ("MAIL", "RSET"):
            self._asked = self._size = 0
        elif verb == "RCPT":
            self._asked += 1
        if len(self._pending) < MAX_PENDING:
            self._pending.append(pending)
        self.events.append(Command(verb, domain))

    def _chunk(self, line: bytes) -> Pending:
        self._chunk_left, is_last = chunk_of(argument_of(line))
        if self._chunk_left:
            self.client_mode = "chunk"
        self._size += self._chunk_left
        if is_last:
            self._end_content()
        return Pending("BDAT", ends_message=is_last)

    def _end_content(self) -> None:
        self._sent, self._size = self._size, 0

    # --- the server's side ---

    def server(self, data: bytes) -> None:
        self._has_server_bytes |= len(data) > 0
        for i in range(len(data)):
            self._server_byte(data[i : i + 1])

    def _server_byte(self, byte: bytes) -> None:
        if self.server_mode != "replies":
            return
        self._server_line += byte
        if not self._skips_server_line and self._server_line[:2] in TLS_STARTS:
            self.server_mode = "tls"
        if byte == LF:
            line = bytes(self._server_line[:-1])[:MAX_LINE].rstrip(b"\r")
            self._server_line.clear()
            if not self._skips_server_line:
                self._reply_line(line)
            self._skips_server_line = False

    def _reply_line(self, line: bytes) -> None:
        reply = reply_of(line)
        if reply is None:
            if self.client_mode == "tls":
                self.server_mode = "tls"
            elif not self._has_reply_line:
                self.server_mode = self.client_mode = "opaque"
            return
        self._has_reply_line = True
        code, is_continued = reply
        self._enhanced = self._enhanced or enhanced_of(line)
        self._names_blocklist |= code >= 400 and has_blocklist_word(line)
        if not is_continued:
            self._reply(code)

    def _reply(self, code: int) -> None:
        answered = self._pending.popleft() if self._pending else NOTHING
        if answered == NOTHING and code != 354 and self.client_mode == "data" and self._has_replied:
            answered = Pending("DATA", ends_message=True)  # the replies before it were not captured
        self._has_replied = True
        self.events.append(Reply(code, answered.verb, self._enhanced, self._names_blocklist))
        self._enhanced, self._names_blocklist = None, False
        if self.client_mode == "resync":
            self._set_mode("commands")  # the server has read all that was missed
            self._pending.clear()
            answered = NOTHING
        if code == 354:
            self._go_ahead(answered)
        elif code == 334:
            if answered.verb in ("AUTH", "NONE"):
                self._pending.appendleft(Pending("AUTH"))
                self._set_mode("auth")
        else:
            self._take_outcome(code, answered)

    def _go_ahead(self, answered: Pending) -> None:
        """354: content follows. What came ahead of it has moved the mode on already."""
        answers_data = answered == Pending("DATA")
        if not answers_data and answered != NOTHING:
            self._pending.clear()  # only DATA is answered so: replies were missed
        if not answers_data and self.client_mode in ("commands", "data pending"):
            self._set_mode("data")
            self._content_line.clear()
        elif self.client_mode == "data pending":
            self._set_mode("data")
        self._pending.appendleft(Pending("DATA", ends_message=True))

    def _take_outcome(self, code: int, answered: Pending) -> None:
        is_success = 200 <= code < 300
        if answered.ends_message:
            self._end_message(code)
            if answered.verb == "DATA" and self.client_mode == "data":
                self._set_mode("commands")
        elif answered.verb == "DATA":
            if is_success:  # its 354 was not captured
                self._end_message(code)
            else:
                self._sent, self._size = None, 0
            if self.client_mode in ("data pending", "data"):
                self._set_mode("commands")
        elif answered.verb == "RCPT":
            self._accepted += is_success
        elif answered.verb in ("MAIL", "RSET", "HELO", "EHLO", "LHLO") and is_success:
            self._accepted = 0
        elif answered.verb == "AUTH" and self.client_mode == "auth":
            self._set_mode("commands")

    def _set_mode(self, mode: str) -> None:
        """Change the client's mode by a reply: a line that was begun under the old one is none."""
        if self.client_mode != mode:
            self._client_line.clear()
        self.client_mode = mode

    def _end_message(self, code: int) -> None:
        if self._sent is None:
            self._end_content()  # its end was not captured
        assert self._sent is not None
        recipients = self._accepted if self.sees_server else self._asked
        self.events.append(Message(code, recipients, self._sent))
        self._sent = None
        self._accepted = 0

    # --- what the capture missed ---

    def lose_client(self, n: int) -> None:
        """``n`` bytes of the client's are missing: content goes on, all else waits for the next reply."""
        self._client_line.clear()
        if self.client_mode == "data":
            self._size += n
        if self.client_mode in ("data pending", "data"):
            self._content_line[:] = b"?"
        elif self.client_mode == "chunk" and n <= self._chunk_left:
            self._chunk_left -= n
            if self._chunk_left == 0:
                self.client_mode = "commands"
        elif self.client_mode in ("commands", "auth", "chunk"):
            self.client_mode = "resync"

    def lose_server(self, following: bytes) -> None:
        """Some of the server's bytes before ``following`` are missing: nobody knows what later replies answer."""
        if self.server_mode == "replies":
            self._pending.clear()
            self._server_line.clear()
            self._enhanced, self._names_blocklist = None, False
            self._skips_server_line = reply_of(following[:4]) is None
            if following[:2] in TLS_STARTS:
                self.server_mode = "tls"

    def close(self) -> None:
        """The connection is over: a message that has no answer yet will not get one."""
        if self._sent is not None or self._size:
            self._end_message(0)
