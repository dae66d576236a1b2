"""What a packet says of its sender in words: a name, a model, a service.

Decoders of identity traffic (decode/lan.py and its neighbours) add facts, in the order in which they read them.
Texts from the network are made harmless here: what is not printable ASCII becomes a question mark.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.decode.wire import read_u8
from sensor.jit import i64, inner
from sensor.native import by_pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes


class FactKind(IntEnum):
    """What a text is."""

    NONE = 0
    HOST_NAME = 1  # the name that a device gives itself
    VENDOR_CLASS = 2  # DHCP option 60, DHCPv6 option 16
    PARAMETERS = 3  # the options that a DHCP client asks for, in its order: "1,3,6,15"
    CLIENT_ID = 4  # DHCP option 61 or DHCPv6 DUID, in hexadecimal digits
    SERVICE = 5  # what it offers: "_ipp._tcp" (DNS-SD), "urn:schemas-upnp-org:device:MediaRenderer:1" (UPnP)
    MODEL = 6  # what it says it is: "HP LaserJet 400"
    SYSTEM = 7  # its software: "Linux/3.10 UPnP/1.0 IpCam/2.1"
    CAPABILITIES = 8  # LLDP or CDP, in lower case: "bridge,router"
    USER_AGENT = 9  # of plain HTTP


class FactSource(IntEnum):
    """Where a device said it."""

    NONE = 0
    DHCP = 1
    DHCPV6 = 2
    MDNS = 3
    SSDP = 4
    NETBIOS = 5
    LLDP = 6
    CDP = 7
    HTTP = 8


FACT_DTYPE = np.dtype([("kind", np.int32), ("start", np.int32), ("length", np.int32)])

#: Facts of one packet; what comes beyond is passed over.
MAX_FACTS = 24
#: Bytes of one text; what is longer is cut.
MAX_FACT_BYTES = 128
N_ROWS, N_BYTES = range(2)

_QUESTION_MARK, _SPACE, _TILDE = 0x3F, 0x20, 0x7E


@by_pointer
class Facts(NamedTuple):
    """The facts of one packet; row i is ``text[start : start + length]``."""

    rows: NDArray[Any]  # FACT_DTYPE[MAX_FACTS]
    text: NDArray[np.uint8]  # u8[MAX_FACTS * MAX_FACT_BYTES]
    used: NDArray[np.int64]  # i8[2]: rows, and bytes of text


def new_facts() -> Facts:
    """Return room for the facts of one packet."""
    return Facts(
        rows=np.zeros(MAX_FACTS, dtype=FACT_DTYPE),
        text=np.zeros(MAX_FACTS * MAX_FACT_BYTES, dtype=np.uint8),
        used=np.zeros(2, dtype=np.int64),
    )


@inner
def clear_facts(facts: Facts) -> None:
    """Forget the facts of the packet before."""
    facts.used[N_ROWS] = 0
    facts.used[N_BYTES] = 0


@inner
def open_fact(facts: Facts, kind: int) -> None:
    """Begin a fact with an empty text; ``close_fact`` ends it. Between them nothing else is opened."""
    row = facts.used[N_ROWS]
    if row < MAX_FACTS:
        facts.rows[row]["kind"] = kind
        facts.rows[row]["start"] = facts.used[N_BYTES]
        facts.rows[row]["length"] = 0


@inner
def put_byte(facts: Facts, byte: int) -> None:
    """Append a byte to the open fact, made printable."""
    row = facts.used[N_ROWS]
    if row >= MAX_FACTS:
        return
    fact = facts.rows[row]
    length = i64(fact["length"])
    if length < MAX_FACT_BYTES:
        facts.text[fact["start"] + length] = byte if _SPACE <= byte <= _TILDE else _QUESTION_MARK
        fact["length"] = length + 1


@inner
def put_bytes(facts: Facts, data: Bytes, start: int, end: int) -> None:
    """Append ``data[start:end]`` to the open fact."""
    for i in range(start, min(end, start + MAX_FACT_BYTES)):
        put_byte(facts, read_u8(data, i, end))


@inner
def put_number(facts: Facts, number: int) -> None:
    """Append a number that is not negative to the open fact, in decimal digits."""
    power = i64(1)
    while number // power >= 10:
        power *= 10
    while power > 0:
        put_byte(facts, 0x30 + (number // power) % 10)
        power //= 10


@inner
def put_hex(facts: Facts, data: Bytes, start: int, end: int) -> None:
    """Append ``data[start:end]`` to the open fact, in hexadecimal digits."""
    for i in range(start, min(end, start + MAX_FACT_BYTES // 2)):
        byte = read_u8(data, i, end)
        for digit in (byte >> 4, byte & 0x0F):
            put_byte(facts, digit + (0x30 if digit < 10 else 0x57))


@inner
def close_fact(facts: Facts) -> None:
    """Keep the open fact, without spaces at its end; an empty one is dropped."""
    row = facts.used[N_ROWS]
    if row >= MAX_FACTS:
        return
    fact = facts.rows[row]
    start, length = i64(fact["start"]), i64(fact["length"])
    while length > 0 and facts.text[start + length - 1] == _SPACE:
        length -= 1
    fact["length"] = length
    if length > 0:
        facts.used[N_ROWS] = row + 1
        facts.used[N_BYTES] = start + length


@inner
def add_fact(facts: Facts, kind: int, data: Bytes, start: int, end: int) -> None:
    """Add the text ``data[start:end]``, as far as it goes before a NUL byte."""
    open_fact(facts, kind)
    for i in range(start, min(end, start + MAX_FACT_BYTES)):
        byte = read_u8(data, i, end)
        if byte <= 0:
            break
        put_byte(facts, byte)
    close_fact(facts)
