"""TCP and UDP headers: is the header whole and consistent, and where is its payload.

Positions and the two ends are those of decode/ip.py.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

from sensor.decode.status import UNDECIDED, FrameStatus, Weird, status_of_lack
from sensor.decode.wire import has, read_u8, read_u16
from sensor.jit import inlined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

_TCP_BYTES, _UDP_BYTES = 20, 8
_MAX_UDP_LENGTH_FIELD = 0xFFFF


class TcpFlag(IntFlag):
    """Control bits (RFC 9293 section 3.1) as they stand in ``tcp_flags``."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@inlined
def decode_tcp(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Check a TCP header (RFC 9293 section 3.1): (status, payload position, payload bytes on the wire).

    Status is UNDECIDED if the header is there, of which the options need not be captured: a snap length of 64
    cuts those of a SYN. Else it is the frame's FrameStatus, and the other values mean nothing.
    """
    if not has(pos, end, _TCP_BYTES):
        return status_of_lack(pos, _TCP_BYTES, wire_end, weirds), pos, 0
    header_len = (read_u8(data, pos + 12, end) >> 4) * 4
    if header_len < _TCP_BYTES:
        return FrameStatus.MALFORMED, pos, 0
    if not has(pos, wire_end, header_len):
        return status_of_lack(pos, header_len, wire_end, weirds), pos, 0
    return UNDECIDED, pos + header_len, wire_end - pos - header_len


@inlined
def decode_udp(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Check a UDP header (RFC 768). Returns as ``decode_tcp``.

    A datagram that is longer than its packet is a first fragment, and the payload ends with the packet.
    Length 0 is right for a datagram too long for the field (RFC 2675 section 4), and impossible elsewhere.
    """
    if not has(pos, end, _UDP_BYTES):
        return status_of_lack(pos, _UDP_BYTES, wire_end, weirds), pos, 0
    length = read_u16(data, pos + 4, end)
    available = wire_end - pos
    if length == 0 and available > _MAX_UDP_LENGTH_FIELD:
        length = available
    if length < _UDP_BYTES:
        weirds[Weird.IP_CHECKSUM_IMPOSSIBLE_LENGTH] += 1
        return FrameStatus.MALFORMED, pos, 0
    return UNDECIDED, pos + _UDP_BYTES, min(length, available) - _UDP_BYTES
