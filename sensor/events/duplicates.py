"""Packets that a mirror shows twice: where both ports of their way, or both sides of a router, are mirrored.

A packet is a copy if one with the same addresses, ports, IP identification, length and TCP numbers was seen
within WINDOW_NS. Neither stations nor VLAN nor time to live count, which routing changes. A retransmission
has a new IP identification, or comes later than that (RFC 6298 section 2.4: a second; Linux: 200 ms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.wire import read_u16
from sensor.hashing import mix
from sensor.jit import i64, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: How far apart two copies may be captured: queues of a switch, and a router between them.
WINDOW_NS = 50_000_000
#: Packets remembered, each in the one place that its hash says (a power of two): what two mirror ports delay
#: against each other is far less.
N_RECENT = 4096
_MASK = 0x7FFFFFFF


@spliced
def hash_packet(packet: Any, data: Bytes) -> int:
    """Hash what the copies of a packet have in common to 62 bits; of a datagram its first two bytes (DNS: ID), too."""
    head = read_u16(data, packet["payload_start"], packet["payload_end"]) if packet["seq"] == 0 else i64(0)
    src = i64(packet["src_lo"]) ^ i64(packet["src_hi"])
    dst = i64(packet["dst_lo"]) ^ i64(packet["dst_hi"])
    first = mix((src & _MASK) ^ (i64(packet["src_port"]) << 15))
    first = mix(first ^ ((src >> 31) & _MASK) ^ (dst & _MASK))
    first = mix(first ^ ((dst >> 31) & _MASK) ^ (i64(packet["dst_port"]) << 15))
    second = mix((i64(packet["seq"]) ^ (i64(packet["ip_id"]) << 15)) & _MASK)
    second = mix((second ^ i64(packet["ack"]) ^ (i64(packet["tcp_flags"]) << 20)) & _MASK)
    second = mix((second ^ i64(packet["payload_len"]) ^ (head << 15)) & _MASK)
    return (first << 31) | (second ^ first)


@spliced
def is_duplicate(
    hashes: NDArray[np.int64], times_ns: NDArray[np.int64], packet: Any, data: Bytes, ts_ns: int
) -> bool:
    """Tell whether a packet was seen before, and remember it. ``hashes``, ``times_ns``: i8[N_RECENT], in/out."""
    hashed = hash_packet(packet, data)
    place = hashed & (N_RECENT - 1)
    is_copy = hashes[place] == hashed and ts_ns - times_ns[place] <= WINDOW_NS
    hashes[place] = hashed
    times_ns[place] = ts_ns
    return bool(is_copy)
