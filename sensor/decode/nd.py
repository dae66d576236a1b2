"""IPv6 neighbour discovery (RFC 4861): which device has which address, and which is a router. Sans-io."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sensor.decode.announce import count_broken
from sensor.decode.lan import LanStatus, device_mac
from sensor.decode.wire import has, read_address_half, read_mac, read_u8, read_u16
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: An address that is not claimed is 0, a MAC address -1.
ND_DTYPE = np.dtype(
    [
        ("status", np.int64),  # LanStatus
        ("type", np.int64),  # of the ICMPv6 message, -1 if it was not reached
        ("address_hi", np.int64),  # the address that its sender has
        ("address_lo", np.int64),
        ("mac", np.int64),  # ... under this MAC address, if the message says so
        ("is_router", np.int64),
    ]
)

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = range(133, 137)
#: Options walked over in one message: more than fit into an Ethernet frame.
MAX_OPTIONS = 256

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_TARGET = 8


@inner
def decode_nd(
    data: Bytes, start: int, end: int, src_hi: int, src_lo: int, nd: NDArray[Any], weirds: NDArray[np.int64]
) -> int:
    """Decode one message of types 133 to 136 (RFC 4861 section 4) and return its LanStatus.

    A solicitation from the unspecified address asks whether its target is free (RFC 4862 section 5.4): whoever asks
    is about to have it, and claims it here.

    data: u8[n_bytes], in; the ICMPv6 message is ``data[start:end]``; ``src_hi``, ``src_lo``: who sent it. nd:
    ND_DTYPE[1], out. weirds: i64[N_WEIRDS], LAN_MALFORMED counted up if truncated or malformed.
    """
    row = nd[0]
    status = _decode_nd(data, start, end, src_hi, src_lo, row)
    row["status"] = status
    return count_broken(status, weirds)


@inner
def _decode_nd(data: Bytes, start: int, end: int, src_hi: int, src_lo: int, row: Any) -> int:
    kind = read_u8(data, start, end)
    row["type"] = kind
    row["address_hi"] = 0
    row["address_lo"] = 0
    row["mac"] = -1
    row["is_router"] = 0
    if not has(start, end, _TARGET):
        return _TRUNCATED
    wanted, options = _SOURCE_LINK_LAYER, start + _TARGET
    if kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        options += 16
    elif kind == ROUTER_ADVERTISEMENT:
        options += 8
    elif kind != ROUTER_SOLICITATION:
        return _UNSUPPORTED
    if options > end:
        return _TRUNCATED
    if kind == NEIGHBOUR_ADVERTISEMENT:
        wanted = _TARGET_LINK_LAYER
        row["address_hi"] = read_address_half(data, start + _TARGET, end)
        row["address_lo"] = read_address_half(data, start + _TARGET + 8, end)
    elif kind == NEIGHBOUR_SOLICITATION and src_hi == 0 and src_lo == 0:
        row["address_hi"] = read_address_half(data, start + _TARGET, end)
        row["address_lo"] = read_address_half(data, start + _TARGET + 8, end)
    else:
        row["address_hi"] = src_hi
        row["address_lo"] = src_lo
        # A lifetime of zero says that it is no default router (RFC 4861 section 4.2): many a thing of the house.
        row["is_router"] = 1 if kind == ROUTER_ADVERTISEMENT and read_u16(data, start + 6, end) > 0 else 0
    return _find_link_layer(data, options, end, wanted, row)


@inner
def _find_link_layer(data: Bytes, pos: int, end: int, wanted: int, row: Any) -> int:
    """Take the MAC address of a link-layer address option (RFC 4861 section 4.6.1); return a LanStatus."""
    for _ in range(MAX_OPTIONS):
        if pos >= end:
            return _OK
        size = i64(read_u8(data, pos + 1, end)) * 8
        if size == 0:
            return _MALFORMED  # RFC 4861 section 4.6: to be discarded
        if size < 0 or not has(pos, end, size):
            return _TRUNCATED
        if read_u8(data, pos, end) == wanted and size == 8:
            mac = device_mac(read_mac(data, pos + 2, end))
            if mac < 0:
                return _MALFORMED
            row["mac"] = mac
        pos += size
    return _MALFORMED
