"""The fingerprint of a SYN: which TCP stack opened a connection, as far as its first packet tells.

The fields are p0f's (Zalewski 2000; Esquivel et al. 2009): the initial TTL, the window, the maximum segment
size, the window scale and the order of the options. A device has one stack; a second one that speaks from its
address is another machine behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.layers import Layer
from sensor.decode.wire import read_u8, read_u16
from sensor.hashing import mix
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

#: A header has 40 bytes of options at most (RFC 9293 section 3.1).
MAX_TCP_OPTIONS = 40
_END, _NO_OPERATION, _MSS, _WINDOW_SCALE = 0, 1, 2, 3  # IANA "TCP Option Kind Numbers"
_TCP_BYTES = 20


@inner
def initial_ttl(ttl: int) -> int:
    """Return the TTL that a packet was sent with: the next of the four that systems use."""
    if ttl <= 32:
        return 32
    if ttl <= 64:
        return 64
    return 128 if ttl <= 128 else 255


@inner
def syn_fingerprint(data: Bytes, network: int, segment: int, end: int, layer: int) -> int:
    """Return the fingerprint of the SYN whose IP header is at ``network`` and whose TCP header is at ``segment``.

    A number from 1 to 2**31 - 1, odd for IPv6; 0 if the snap length cut the options.
    """
    stop = segment + (read_u8(data, segment + 12, end) >> 4) * 4
    if stop > end:
        return i64(0)
    is_ipv6 = 0 if layer == Layer.IPV4 else 1
    ttl = read_u8(data, network + (7 if is_ipv6 else 8), end)
    value = mix(initial_ttl(ttl) << 16 | read_u16(data, segment + 14, end))
    pos = segment + _TCP_BYTES
    for _ in range(MAX_TCP_OPTIONS):
        if pos >= stop:
            break
        kind = read_u8(data, pos, stop)
        value = mix(value ^ (kind + 1))
        if kind == _END:
            break
        length = i64(1)
        if kind != _NO_OPERATION:
            length = max(read_u8(data, pos + 1, stop), 2)
        if kind == _MSS:
            value = mix(value ^ (read_u16(data, pos + 2, stop) & 0xFFFF))
        elif kind == _WINDOW_SCALE:
            value = mix(value ^ (read_u8(data, pos + 2, stop) & 0xFF))
        pos += length
    return max(value & 0x7FFFFFFE, 2) | is_ipv6
