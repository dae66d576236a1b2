"""What the readers of pcap and pcapng share: bounds, integers in the file's byte order, frames, damage.

Both formats are chains: each record says where the next one begins. Where a record is impossible, the chain
is lost; it is found again by searching, byte by byte, for what only a record looks like. Each byte is looked
at once, so that the time a damaged file takes grows with its size alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sensor.jit import i64, inner

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from sensor.capture.bytesource import ByteSource

    Bytes = NDArray[np.uint8]

#: Longest frame: what tcpdump and Wireshark allow on networks, four times the largest IP packet. A length
#: beyond it is a damaged record; to follow it would lead into the middle of other records.
MAX_FRAME_BYTES: Final = 256 << 10
#: Latest time that is told apart (year 2116): it leaves room to add to any timestamp without overflow.
MAX_TS_NS: Final = (1 << 62) - 1

NS_PER_S: Final = 1_000_000_000


class IndexStatus(IntEnum):
    """Why an index kernel stopped."""

    FULL = 0  # no row is left
    NEED_BYTES = 1  # the next record is not there, or not there completely
    SECTION = 2  # a section header, complete or not
    INTERFACE = 3  # a complete interface description
    FRAME_TOO_LONG = 4  # the captured length is beyond MAX_FRAME_BYTES
    BLOCK_LENGTH = 5  # a block's length is below 12, no multiple of 4, or beyond MAX_BLOCK_BYTES
    BLOCK_TRAILER = 6  # a block's two lengths differ
    BLOCK_TOO_SHORT = 7  # a block is whole, but too short for its type
    FRAME_BEYOND_BLOCK = 8  # the captured length is larger than the block
    NO_INTERFACE = 9  # a frame of an interface that was not described, or not in a way that can be read


#: What is wrong with the record where a kernel stopped; the other statuses are no damage.
DAMAGE: Final = {
    IndexStatus.FRAME_TOO_LONG: f"a frame of more than {MAX_FRAME_BYTES} bytes: the record is damaged",
    IndexStatus.BLOCK_LENGTH: "a block of impossible length",
    IndexStatus.BLOCK_TRAILER: "the length of a block and its repetition at its end differ",
    IndexStatus.BLOCK_TOO_SHORT: "a block of impossible length",
    IndexStatus.FRAME_BEYOND_BLOCK: "a frame longer than the block that holds it",
    IndexStatus.NO_INTERFACE: "a frame of an interface that is not described before it",
}


class Indexed(NamedTuple):
    """What a format made of the unread bytes.

    ``n_rows`` frames were indexed and passed over. If there are none: the record at hand is damaged, which
    ``damage`` says in words; else ``n_needed`` bytes must be there to go on.
    """

    n_rows: int
    n_needed: int
    damage: str = ""


class Format(Protocol):
    """Has read a format's header, and has a kernel index its records.

    ``link_types``: those of the frames indexed so far, and perhaps of others.
    """

    @property
    def link_types(self) -> Collection[int]:
        """See the class."""

    def index(self, source: ByteSource, frames: NDArray[Any]) -> Indexed:
        """Index unread bytes into ``frames``, FRAME_DTYPE[n], and pass over them."""

    def leave_damage(self, source: ByteSource) -> None:
        """Pass over what cannot be the beginning of the next record: at least one byte."""

    def search(self, source: ByteSource, *, is_end: bool) -> tuple[bool, int]:
        """Search the unread bytes for a record, and pass over what is none.

        Returns (whether one begins there now, bytes that must be there to tell if not). ``is_end``: nothing
        follows the unread bytes.
        """


# --- reading integers ---------------------------------------------------------------------------------------
# The discipline of decode/wire.py, a layer above: the caller's own end, -1 for "not there", int64 throughout.


@inner
def read_u32(data: Bytes, pos: int, end: int, big_endian: bool) -> int:
    """Read 32 bits in the file's byte order, or -1."""
    if pos < 0 or end - pos < 4:
        return i64(-1)
    a, b = i64(data[pos]), i64(data[pos + 1])
    c, d = i64(data[pos + 2]), i64(data[pos + 3])
    if big_endian:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@inner
def read_u16(data: Bytes, pos: int, end: int, big_endian: bool) -> int:
    """Read 16 bits in the file's byte order, or -1."""
    if pos < 0 or end - pos < 2:
        return i64(-1)
    a, b = i64(data[pos]), i64(data[pos + 1])
    if big_endian:
        return (a << 8) | b
    return (b << 8) | a


@inner
def put_frame(frame: Any, offset: int, ts_ns: int, captured_len: int, wire_len: int, link_type: int) -> None:
    """Fill a row of FRAME_DTYPE. A wire length below the captured one (some write 0) is lifted to it."""
    frame["offset"] = offset
    frame["ts_ns"] = ts_ns
    frame["captured_len"] = captured_len
    frame["wire_len"] = min(max(wire_len, captured_len), 0x7FFFFFFF)
    frame["link_type"] = link_type
    frame["reserved"] = 0
