"""LLDP (IEEE 802.1AB-2016 section 8): name, software and role of what is at the other end of a cable.

Sans-io. Of LLDP-MED (ANSI/TIA-1057 section 10.2.6) the inventory's manufacturer and model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.decode.announce import add_first_line, count_broken, word_table
from sensor.decode.facts import FactKind, add_fact, close_fact, open_fact, put_byte, put_bytes
from sensor.decode.lan import LanStatus
from sensor.decode.wire import has, read_u8, read_u16, read_u24
from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.facts import Facts
    from sensor.decode.wire import Bytes

#: TLVs looked at in one frame; switches send some 20.
MAX_LLDP_TLVS = 128

#: What a device can be, in the order of the bits of the System Capabilities TLV (section 8.5.8.1).
CAPABILITIES = (
    "other",
    "repeater",
    "bridge",
    "wlan-access-point",
    "router",
    "telephone",
    "docsis-cable-device",
    "station-only",
)

_OK = int(LanStatus.OK)
_TRUNCATED = int(LanStatus.TRUNCATED)
_MALFORMED = int(LanStatus.MALFORMED)
_NONE, _HOST_NAME, _SYSTEM = int(FactKind.NONE), int(FactKind.HOST_NAME), int(FactKind.SYSTEM)
_MODEL, _CAPABILITIES = int(FactKind.MODEL), int(FactKind.CAPABILITIES)

_END, _SYSTEM_NAME, _SYSTEM_DESCRIPTION, _SYSTEM_CAPABILITIES, _ORGANIZATIONAL = 0, 5, 6, 7, 127
_CAPABILITIES_BYTES = 4
_OUI_MED = 0x0012BB
_MED_MANUFACTURER, _MED_MODEL = 9, 10
_MED_FIXED_BYTES = 4
_SPACE, _COMMA = 0x20, 0x2C
_WORDS = word_table(*CAPABILITIES)


@inner
def decode_lldp(data: Bytes, start: int, end: int, facts: Facts, weirds: NDArray[np.int64]) -> int:
    """Add the facts of one LLDPDU; return its LanStatus. Of a TLV that comes twice the first is taken.

    HOST_NAME: System Name. SYSTEM: the first line of System Description. CAPABILITIES: those that are enabled.
    MODEL: model of LLDP-MED, behind the manufacturer if that came before.

    data: u8[n_bytes], in; the LLDPDU, behind the EtherType, is ``data[start:end]``, padding allowed. facts:
    in/out. weirds: i64[N_WEIRDS], LAN_MALFORMED counted up if truncated or malformed.
    """
    return count_broken(_decode_tlvs(data, start, end, facts), weirds)


@inner
def _decode_tlvs(data: Bytes, start: int, end: int, facts: Facts) -> int:
    """Walk the TLVs (section 8.4): seven bits of type, nine of length."""
    pos = start
    seen = 0
    maker = maker_end = i64(0)
    for _ in range(MAX_LLDP_TLVS):
        if pos == end:
            return _OK  # the End TLV is not mandatory (section 8.5.1)
        header = read_u16(data, pos, end)
        kind, size = header >> 9, header & 0x1FF
        pos += 2
        if header < 0 or not has(pos, end, size):
            return _TRUNCATED
        if kind == _END:
            return _OK
        stop = pos + size
        if kind == _SYSTEM_CAPABILITIES and size != _CAPABILITIES_BYTES:
            return _MALFORMED
        if _is_med(data, pos, stop, kind, _MED_MANUFACTURER):
            maker, maker_end = pos + _MED_FIXED_BYTES, stop
        what = _fact_kind(data, pos, stop, kind)
        if what != _NONE and seen & (1 << what) == 0:
            seen |= 1 << what
            _add_tlv(data, pos, stop, what, maker, maker_end, facts)
        pos = stop
    return _OK


@inner
def _fact_kind(data: Bytes, pos: int, end: int, kind: int) -> int:
    """Return the FactKind that a TLV tells."""
    if kind == _SYSTEM_NAME:
        return _HOST_NAME
    if kind == _SYSTEM_DESCRIPTION:
        return _SYSTEM
    if kind == _SYSTEM_CAPABILITIES:
        return _CAPABILITIES
    return _MODEL if _is_med(data, pos, end, kind, _MED_MODEL) else _NONE


@inner
def _is_med(data: Bytes, pos: int, end: int, kind: int, subtype: int) -> bool:
    """Tell whether a TLV is that of LLDP-MED."""
    if kind != _ORGANIZATIONAL or read_u24(data, pos, end) != _OUI_MED:
        return False
    return read_u8(data, pos + 3, end) == subtype


@inner
def _add_tlv(data: Bytes, pos: int, end: int, what: int, maker: int, maker_end: int, facts: Facts) -> None:
    """Add the value of a TLV; ``data[maker:maker_end]`` is the manufacturer of a model."""
    if what == _HOST_NAME:
        add_fact(facts, _HOST_NAME, data, pos, end)
    elif what == _SYSTEM:
        add_first_line(facts, _SYSTEM, data, pos, end)
    elif what == _CAPABILITIES:
        add_capabilities(facts, read_u16(data, pos + 2, end))
    else:
        open_fact(facts, _MODEL)
        if maker < maker_end:
            put_bytes(facts, data, maker, maker_end)
            put_byte(facts, _SPACE)
        put_bytes(facts, data, pos + _MED_FIXED_BYTES, end)
        close_fact(facts)


@inner
def add_capabilities(facts: Facts, bits: int) -> None:
    """Add the words of CAPABILITIES whose bits are set, joined by commas."""
    open_fact(facts, _CAPABILITIES)
    is_first = True
    for row in range(_WORDS.shape[0]):
        if bits & (1 << row) == 0:
            continue
        if not is_first:
            put_byte(facts, _COMMA)
        is_first = False
        i = 0
        while _WORDS[row, i] != 0:  # each row ends in zero
            put_byte(facts, i64(_WORDS[row, i]))
            i += 1
    close_fact(facts)
