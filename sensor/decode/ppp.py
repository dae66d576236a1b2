"""Point-to-point framing: PPP, PPPoE and Cisco HDLC.

Each function peels one header at ``pos`` and returns (status, Layer, its position); see decode/peel.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.layers import Layer
from sensor.decode.link import ethertype_layer
from sensor.decode.shims import note_session
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_u8, read_u16
from sensor.jit import spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

_ADDRESS_CONTROL = 0xFF03  # RFC 1662 section 3.1; often left out
_HDLC_ADDRESSES = (0x0F, 0x8F)  # Cisco HDLC: unicast, broadcast

# Protocol numbers (IANA "PPP DLL Protocol Numbers").
_IPV4, _IPV6, _MPLS = 0x0021, 0x0057, 0x0281
_WRAPPED = (
    0x002D,  # Van Jacobson compressed TCP/IP
    0x002F,
    0x003D,  # multilink
    0x00FB,  # compressed in a bundle
    0x00FD,  # compressed or encrypted
    0x0031,  # bridged frames
    0x0053,  # encrypted
)

_PPPOE_BYTES = 6
_PPPOE_VERSION_TYPE, _PPPOE_SESSION_CODE = 0x11, 0


@spliced
def peel_ppp(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a PPP header (RFC 1661 section 2, RFC 1662): an address and control field or none, one or two bytes.

    A protocol number is odd at its end, so an odd first byte is all of it. LINKTYPE_PPP_HDLC files
    hold Cisco HDLC as well, whose address fields are no PPP protocols.
    """
    if read_u8(data, pos, end) == _ADDRESS_CONTROL >> 8:
        if not has(pos, end, 2):
            return status_of_lack(pos, 2, wire_end, weirds), Layer.NONE, pos
        if read_u16(data, pos, end) == _ADDRESS_CONTROL:
            pos += 2
    first = read_u8(data, pos, end)
    if first == -1:
        return status_of_lack(pos, 1, wire_end, weirds), Layer.NONE, pos
    if first in _HDLC_ADDRESSES:
        return UNDECIDED, Layer.CHDLC, pos
    n = 1 if first & 1 else 2
    if not has(pos, end, n):
        return status_of_lack(pos, n, wire_end, weirds), Layer.NONE, pos
    number = first if n == 1 else read_u16(data, pos, end)
    pos += n
    if number == _IPV4:
        return UNDECIDED, Layer.IPV4, pos
    if number == _IPV6:
        return UNDECIDED, Layer.IPV6, pos
    if number == _MPLS:
        return UNDECIDED, Layer.MPLS, pos
    return (FrameStatus.UNKNOWN_TUNNEL if number in _WRAPPED else FrameStatus.NOT_IP), Layer.NONE, pos


@spliced
def peel_pppoe(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel the header of a PPPoE session (RFC 2516 section 4); the stations stay, they are subscriber and provider."""
    if not has(pos, end, _PPPOE_BYTES):
        return status_of_lack(pos, _PPPOE_BYTES, wire_end, weirds), Layer.NONE, pos
    if read_u8(data, pos, end) != _PPPOE_VERSION_TYPE:
        return FrameStatus.MALFORMED, Layer.NONE, pos
    if read_u8(data, pos + 1, end) != _PPPOE_SESSION_CODE:
        return FrameStatus.NOT_IP, Layer.NONE, pos
    note_session(packet, Layer.PPPOE, read_u16(data, pos + 2, end))
    return UNDECIDED, Layer.PPP, pos + _PPPOE_BYTES


@spliced
def peel_chdlc(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel a Cisco HDLC header (LINKTYPE_C_HDLC): address, control, EtherType."""
    if not has(pos, end, 4):
        return status_of_lack(pos, 4, wire_end, weirds), Layer.NONE, pos
    status, layer = ethertype_layer(read_u16(data, pos + 2, end))
    return status, layer, pos + 4
