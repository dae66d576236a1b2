"""Event columns: what decoding saw, one row per event, in packet order.

An event's text (a host name, never a local part, never content) lies in the batch's text arena:
``text[text_start : text_start + text_len]``. ``orig`` opened the flow (the client), ``resp`` answered,
whichever side an event came from. Addresses are two int64 halves in network order, IPv4 as IPv4-mapped IPv6
(RFC 4291 section 2.5.5.2).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.native import by_pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EventKind(IntEnum):
    """What a row tells, and how it uses the shared columns."""

    CONN_OPEN = 1  # a mail connection's first packet; aux_lo=fingerprint of its SYN, 0 none
    CONN_CLOSE = (
        2  # its end: code=Fate; flags, orig_bytes, resp_bytes, duration_ns, syns; count=messages accepted;
        # enhanced=mail transactions whose outcome was not captured;
        # aux_lo=hash of the order of its commands up to the first MAIL, 0 if there was none
    )
    SMTP_COMMAND = 3  # code=Verb; text=domain of the argument (EHLO name; domain of a path)
    SMTP_REPLY = 4  # code=reply code; enhanced; verb=what it answers; count=its number; flags: BLOCKLISTED;
    # text=the name that a server greets with
    SMTP_MESSAGE = 5  # end of a message: code=reply code (0 none seen); count=recipients; orig_bytes=size
    DNS_QUERY = 6  # code=qtype; text=qname; resp=the resolver asked
    DNS_ANSWER = 7  # code=type of the record; aux=address; ttl_s; text=owner name (A, AAAA) or exchange (MX)
    DNS_RESPONSE = 8  # code=qtype; enhanced=rcode; count=answers; text=qname
    ARP = 9  # orig=(MAC, address) claimed by its sender; code=operation
    DHCP = 10  # orig=(MAC, address) leased; code=message type; text=host name; resp_mac=the relay, -1 none;
    # aux_lo=hash of the client's identifier, 0 none
    # Of mail, and of whatever else an address that mailed lately sends and receives (events/transfers.py):
    TRANSFER = (
        11  # bytes between two addresses in a slot: aux_lo=slot; orig_bytes, resp_bytes; code=FrameStatus
    )
    PEER_CALL = 12  # orig speaks first: a SYN (aux_lo=its fingerprint), or bytes after a silence (aux_lo=0)
    ND = 13  # IPv6 neighbour discovery: as ARP; code=ICMPv6 type; count=1: it is a router
    DHCPV6 = 14  # as DHCP, between client and server
    FACT = 15  # orig=who says it of itself; code=FactKind; enhanced=FactSource; text (decode/facts.py)
    TLS_HELLO = 16  # of a mail connection: text=the server's name that the client asks for (SNI)


class EventFlag(IntFlag):
    """Bits of an event's ``flags`` column."""

    TCP = 1  # DNS over TCP
    NO_RESP = 2  # not one packet of the responder was seen
    NO_ORIG = 4  # not one packet of the originator was seen
    MIDSTREAM = 8  # the beginning was not captured
    TLS = 16  # the dialogue went on, or began, encrypted
    INFERRED = 32  # an outcome judged from sizes, not read
    BLOCKLISTED = 64  # the reply names a block list
    GAP = 128  # bytes are missing from the capture
    AUTHENTICATED = 256  # AUTH succeeded
    DNSBL = 512  # the query asks a DNS block list
    TLS_IDLE = 1024  # a client that asked for no login and no mail under TLS, by its records


class Fate(IntEnum):
    """How a mail connection ended, from best known to least."""

    UNANSWERED = 0  # SYNs and nothing back
    REFUSED = 1  # RST in answer to the SYN
    NO_BANNER = 2  # connected, and the server said nothing
    BANNER_ONLY = 3  # the server greeted (or refused with its banner) and nothing else happened
    NO_MESSAGE = 4  # a dialogue without a mail transaction
    REJECTED = 5  # at least one transaction, none accepted
    ACCEPTED = 6  # at least one message accepted
    TLS = 7  # encrypted: the outcome is inferred (EventFlag.INFERRED)
    UNKNOWN = 8  # only parts were captured


class Verb(IntEnum):
    """SMTP commands (RFC 5321 section 4.1.1 and its extensions); OTHER is any other word."""

    NONE = 0
    HELO = 1
    EHLO = 2
    MAIL = 3
    RCPT = 4
    DATA = 5
    BDAT = 6
    RSET = 7
    NOOP = 8
    QUIT = 9
    VRFY = 10
    EXPN = 11
    HELP = 12
    STARTTLS = 13
    AUTH = 14
    XCLIENT = 15
    XFORWARD = 16
    ETRN = 17
    TURN = 18
    SEND = 19
    SOML = 20
    SAML = 21
    LHLO = 22
    BURL = 23
    OTHER = 24


class QType(IntEnum):
    """DNS record types that mean something here (IANA DNS parameters)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33


EVENT_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),
        ("flow_id", np.int64),  # number of the mail or DNS-over-TCP flow in this run, -1 for datagrams
        ("orig_hi", np.int64),
        ("orig_lo", np.int64),
        ("resp_hi", np.int64),
        ("resp_lo", np.int64),
        ("orig_mac", np.int64),  # -1 not known
        ("resp_mac", np.int64),
        ("aux_hi", np.int64),
        ("aux_lo", np.int64),
        ("orig_bytes", np.int64),
        ("resp_bytes", np.int64),
        ("session", np.int64),  # that of PACKET_DTYPE
        ("duration_ns", np.int64),
        ("text_start", np.int64),
        ("text_len", np.int32),
        ("kind", np.int32),
        ("code", np.int32),
        ("enhanced", np.int32),  # class * 1_000_000 + subject * 1_000 + detail (RFC 3463); 0 none
        ("verb", np.int32),
        ("flags", np.int32),
        ("count", np.int32),
        ("ttl_s", np.int32),
        ("orig_port", np.int32),
        ("resp_port", np.int32),
        ("vlan", np.int32),  # innermost VLAN id, -1 untagged
        ("syns", np.int32),  # SYNs that the originator sent for one connection
    ]
)

#: One frame adds at most this many events; a kernel stops before a frame when fewer rows are free.
MAX_EVENTS_PER_FRAME = 4096
#: ... and at most this many bytes of text.
MAX_TEXT_PER_FRAME = 65536


@by_pointer
class EventColumns(NamedTuple):
    """The preallocated output of event kernels."""

    events: NDArray[Any]  # EVENT_DTYPE[n + 1]; the last row takes what exceeds a frame's share
    text: NDArray[np.uint8]  # u8[n]
    used: NDArray[np.int64]  # i8[4]: rows used, bytes of text used, and this frame's limits of both


ROWS, TEXT, ROW_LIMIT, TEXT_LIMIT = range(4)


def new_event_columns(
    n_events: int = 4 * MAX_EVENTS_PER_FRAME, n_text: int = 8 * MAX_TEXT_PER_FRAME
) -> EventColumns:
    """Allocate event columns for ``n_events`` rows and ``n_text`` bytes of text."""
    return EventColumns(
        events=np.zeros(n_events + 1, dtype=EVENT_DTYPE),
        text=np.zeros(n_text, dtype=np.uint8),
        used=np.zeros(4, dtype=np.int64),
    )
