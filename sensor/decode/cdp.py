"""Cisco Discovery Protocol, versions 1 and 2: name, model, software and role of a neighbour.

Sans-io. Cisco has published the format as "Cisco Discovery Protocol Packet Format"; Wireshark's packet-cdp.c
knows the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import add_first_line, count_broken
from sensor.decode.facts import FactKind, add_fact
from sensor.decode.lan import LanStatus
from sensor.decode.lldp import CAPABILITIES, add_capabilities
from sensor.decode.wire import has, read_u8, read_u16, read_u32
from sensor.jit import inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

#: TLVs looked at in one frame; switches send some 25.
MAX_CDP_TLVS = 128

_OK = int(LanStatus.OK)
_UNSUPPORTED = int(LanStatus.UNSUPPORTED)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_HOST_NAME, _MODEL, _SYSTEM = int(FactKind.HOST_NAME), int(FactKind.MODEL), int(FactKind.SYSTEM)

_HEADER_BYTES = 4  # version, time to live, checksum
_TLV_HEADER_BYTES = 4
_PADDING, _DEVICE_ID, _TLV_CAPABILITIES, _SOFTWARE_VERSION, _PLATFORM = 0, 1, 4, 5, 6
_CAPABILITIES_BYTES = 4

# Bits of the capabilities TLV: transparent bridge, source-route bridge and switch are all bridges.
_ROUTER, _BRIDGES, _HOST, _REPEATER, _PHONE = 0x01, 0x0E, 0x10, 0x40, 0x80
_IS_REPEATER = 1 << CAPABILITIES.index("repeater")
_IS_BRIDGE = 1 << CAPABILITIES.index("bridge")
_IS_ROUTER = 1 << CAPABILITIES.index("router")
_IS_TELEPHONE = 1 << CAPABILITIES.index("telephone")
_IS_STATION = 1 << CAPABILITIES.index("station-only")


@inner
def decode_cdp(data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]) -> int:
    """Add the facts of one message; return its LanStatus. Of a TLV that comes twice the first is taken.

    HOST_NAME: Device ID. MODEL: Platform. SYSTEM: the first line of Software Version. CAPABILITIES, in the words
    of LLDP.

    data: u8[n_bytes], in; the message, behind LLC and SNAP, is ``data[start:end]``, zeros behind it allowed.
    facts: in/out. weirds: i64[N_WEIRDS], LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_message(data, start, end, facts), weirds)


@inner
def _decode_message(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Walk the TLVs; their length counts their header, too."""
    if not has(start, end, _HEADER_BYTES):
        return _TRUNCATED
    if read_u8(data, start, end) not in (1, 2):
        return _UNSUPPORTED
    pos = start + _HEADER_BYTES
    seen = 0
    for _ in range(MAX_CDP_TLVS):
        kind = read_u16(data, pos, end)
        if pos == end or kind == _PADDING:
            return _OK
        size = read_u16(data, pos + 2, end)
        if size < 0:
            return _TRUNCATED
        if size < _TLV_HEADER_BYTES:
            return _MALFORMED
        if not has(pos, end, size):
            return _TRUNCATED
        if kind == _TLV_CAPABILITIES and size != _TLV_HEADER_BYTES + _CAPABILITIES_BYTES:
            return _MALFORMED
        if kind <= _PLATFORM:
            if seen & (1 << kind) == 0:
                _add_tlv(data, pos + _TLV_HEADER_BYTES, pos + size, kind, facts)
            seen |= 1 << kind
        pos += size
    return _OK


@inner
def _add_tlv(data: Bytes, pos: int, end: int, kind: int, facts: Facts) -> None:
    """Add the value of a TLV, if it tells something of the sender."""
    if kind == _DEVICE_ID:
        add_fact(facts, _HOST_NAME, data, pos, end)
    elif kind == _TLV_CAPABILITIES:
        add_capabilities(facts, _lldp_bits(read_u32(data, pos, end)))
    elif kind == _SOFTWARE_VERSION:
        add_first_line(facts, _SYSTEM, data, pos, end)
    elif kind == _PLATFORM:
        add_fact(facts, _MODEL, data, pos, end)


@inner
def _lldp_bits(bits: int) -> int:
    """Return capabilities as the bits that LLDP has for them; some of Cisco's have none."""
    found = 0
    if bits & _REPEATER:
        found |= _IS_REPEATER
    if bits & _BRIDGES:
        found |= _IS_BRIDGE
    if bits & _ROUTER:
        found |= _IS_ROUTER
    if bits & _PHONE:
        found |= _IS_TELEPHONE
    if bits & _HOST:
        found |= _IS_STATION
    return found
