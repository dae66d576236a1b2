"""Sessions: what simulated devices do on the wire, one row each.

The common ground of both levels: kinds and families write sessions, ``emit.py`` turns them into events,
``render.py`` into packets. A session is one mail connection, one look-up, one time that a device says who it
is, or one exchange of other bytes. Its *shape* is all that decides which events there are; everything else in
it is a number or a name in them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


class What(IntEnum):
    """What a session is."""

    MAIL = 0  # orig connects to resp's mail port
    LOOKUP = 1  # orig asks resp for the address of ``name`` and is told that of ``aux``
    LOOKUP_MX = 2  # ... for the mail exchange of ``name`` and is told ``other``
    LOOKUP_NOTHING = 3  # ... for an address, and there is none (NXDOMAIN)
    LOOKUP_LISTED = 4  # ... of a name in a DNS block list, and it is not listed (RFC 5782)
    HELLO = 5  # orig claims its address (ARP) and renews its lease (DHCP); ``name``: its host name
    TRAFFIC = 6  # anything else: orig says ``body`` bytes, and resp answers with ``extra``


class Outcome(IntEnum):
    """How a mail connection goes."""

    ACCEPTED = (
        0  # a transaction: ``rejected`` recipients are refused, then ``accepted`` taken; none taken: no DATA
    )
    UNANSWERED = 1  # 1 + ``rejected`` SYNs
    REFUSED = 2  # RST in answer to the SYN
    BANNED = 3  # 554 in place of a greeting
    GREETED = 4  # EHLO and QUIT
    LOGIN_FAILED = 5
    DEFERRED = 6  # 450 to the recipient
    CONTENT_REFUSED = 7  # 554 to the content
    TLS_MESSAGE = 8  # STARTTLS, or TLS from the first byte; large enough for a message
    TLS_EMPTY = 9  # ... and not


class View(IntEnum):
    """Which packets of a session the sensor gets."""

    BOTH = 0
    ORIG = 1
    RESP = 2


class Shape(NamedTuple):
    """All that decides which events a session gives."""

    what: int
    outcome: int = 0
    accepted: int = 0  # recipients, at most MAX_RECIPIENTS
    rejected: int = 0
    login: int = 0  # 1: AUTH succeeds before the transaction
    listed: int = 0  # 1: refusals name a block list
    implicit_tls: int = 0  # 1: no STARTTLS
    is_v6: int = 0  # of a look-up: AAAA
    view: int = 0
    lost: int = 0  # the turn of which the capture missed the first packet, counted from 1; 0 none


MAX_RECIPIENTS = 63
#: What a client sends under TLS after its ClientHello and before the first command: its key exchange.
TLS_KEY_BYTES = 126
_BITS = (3, 4, 6, 6, 1, 1, 1, 1, 2, 9)
_SHIFTS = tuple(sum(_BITS[:i]) for i in range(len(_BITS)))


def pack_shapes(**fields: Any) -> Any:
    """Return shapes as numbers, i8[n]; ``fields``: a number or i8[n] for each field of Shape that is not 0."""
    packed: Any = np.int64(0)
    for name, shift in zip(Shape._fields, _SHIFTS, strict=True):
        if name in fields:
            packed = packed | (np.asarray(fields[name], dtype=np.int64) << shift)
    return packed


def unpack_shape(number: int) -> Shape:
    """Return the shape of a number."""
    return Shape(*(number >> shift & ((1 << bits) - 1) for shift, bits in zip(_SHIFTS, _BITS, strict=True)))


def outcomes_of(shapes: Ints) -> Ints:
    """Return the outcome of each shape, i8[n]."""
    return shapes >> _SHIFTS[1] & ((1 << _BITS[1]) - 1)


def views_of(shapes: Ints) -> Ints:
    """Return the View of each shape, i8[n]."""
    return shapes >> _SHIFTS[8] & ((1 << _BITS[8]) - 1)


SESSION_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),  # packet time of the first packet, in whole microseconds
        ("shape", np.int64),  # pack_shapes
        ("orig", np.int32),  # row of the endpoints
        ("resp", np.int32),
        ("aux", np.int32),  # the address that a look-up tells; -1 none
        ("source", np.int32),  # whose bytes a proxied dialogue carries: the controller; -1 none
        ("name", np.int32),  # text: EHLO name, qname, host name; -1 none
        ("sender", np.int32),  # text: domain of the reverse-path
        ("other", np.int32),  # text: domain of the forward-paths, exchange of an MX answer
        ("body", np.int32),  # bytes of the content, or that the client sends under TLS
        ("extra", np.int32),  # of proxied mail: bytes that the way to the controller adds to each turn
        ("half_rtt_ns", np.int32),  # from one turn to the next
        ("orig_port", np.int32),
        ("resp_port", np.int32),
        ("device", np.int32),  # whose life this belongs to (labels)
        ("is_spam", np.int32),  # 1: a family did it (labels)
    ]
)

#: One end of a session: a device under one address, or a server outside.
ENDPOINT_DTYPE = np.dtype(
    [
        ("hi", np.int64),
        ("lo", np.int64),
        ("mac", np.int64),  # the device's, or its gateway's
        ("name", np.int32),  # text: a server's host name, -1 none
        ("ttl", np.int32),  # as the sensor sees it
        ("stack", np.int32),  # row of STACKS in render.py
        ("is_home", np.int32),
    ]
)


class Scene(NamedTuple):
    """What the sessions of a site refer to."""

    endpoints: NDArray[Any]  # ENDPOINT_DTYPE[n]
    text: NDArray[np.uint8]  # u8[m]: all names, one after the other
    text_start: Ints  # i8[k]
    text_len: Ints  # i8[k]
    vlan: int  # of every frame, -1 untagged

    def word(self, number: int) -> bytes:
        """Return a text, b"" for -1."""
        if number < 0:
            return b""
        start = int(self.text_start[number])
        return self.text[start : start + int(self.text_len[number])].tobytes()


def make_scene(endpoints: NDArray[Any], words: list[bytes], vlan: int) -> Scene:
    """Return a scene of endpoints and words."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    text = np.frombuffer(b"".join(words) + b"\0", dtype=np.uint8).copy()
    return Scene(endpoints, text, np.cumsum(lengths) - lengths, lengths, vlan)
