"""Link-layer headers: what the frame carries, where that begins, and which stations it went between."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from sensor.capture.frames import LinkType
from sensor.decode.layers import Layer
from sensor.decode.status import UNDECIDED, FrameStatus, status_of_lack
from sensor.decode.wire import has, read_mac, read_u8, read_u16, read_u16_le, read_u32, read_u32_le
from sensor.jit import inlined, inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: QinQ needs two tags; switches that mirror into a VLAN of their own, and labs, stack a few more.
MAX_VLAN_TAGS = 8
#: The kernel knows about twenty kinds of NFLOG attribute (NFULA_*); the packet comes last.
MAX_NFLOG_ATTRIBUTES = 32


class EtherType(IntEnum):
    """EtherTypes that are decoded (IANA registry "IEEE 802 Numbers")."""

    IPV4 = 0x0800
    ARP = 0x0806
    ERSPAN_III = 0x22EB
    ETHERNET = 0x6558  # transparent Ethernet bridging (RFC 1701), a frame inside
    VLAN = 0x8100  # IEEE 802.1Q C-tag
    IPV6 = 0x86DD
    PPP = 0x880B
    MPLS = 0x8847
    MPLS_UPSTREAM = 0x8848  # RFC 5332: the label was assigned upstream
    PPPOE = 0x8864  # a session; discovery has a number of its own
    QINQ = 0x88A8  # IEEE 802.1ad S-tag
    ERSPAN = 0x88BE  # types I and II, which GRE alone tells apart
    PBB = 0x88E7  # IEEE 802.1ah I-tag
    FABRICPATH = 0x8903
    VNTAG = 0x8926
    ETAG = 0x893F  # IEEE 802.1BR
    NSH = 0x894F
    LLDP = 0x88CC  # IEEE 802.1AB
    QINQ_OLD = 0x9100  # the S-tag before 802.1ad gave it a number
    CDP = 0x12000  # no EtherType, so beyond their range: protocol 0x2000 of Cisco's in SNAP


# EtherTypes that wrap a further frame or packet, and are not decoded.
_ENCAPSULATIONS = (
    0x22EB,  # ERSPAN type III, outside of GRE
    0x22F3,  # TRILL
    0x88BE,  # ERSPAN type II, outside of GRE
    0x88E5,  # MACsec
    0x8909,  # Cisco MetaData
    0x892F,  # HSR
    0x9200,  # further numbers of the old S-tag
    0x9300,
)

_NO_ETHERTYPE = 0xFFFF  # reserved (RFC 1701 section 7), so it stands for "carries no EtherType"
_MAX_LENGTH_FIELD = 1500  # IEEE 802.3 clause 3.2.6: up to here the field is a length, and LLC follows
_MIN_ETHERTYPE = 0x0600

_LLC_SNAP = 0xAAAA  # destination and source SAP
_SNAP_RFC1042 = 0x03000000  # unnumbered information, organisation code 0: an EtherType follows
_SNAP_BRIDGE_TUNNEL = 0x030000F8  # IEEE 802.1H
_SNAP_CISCO = 0x0300000C
_CISCO_CDP = 0x2000

_AF_INET = 2
_AF_INET6 = (10, 24, 28, 30)  # Linux, NetBSD and OpenBSD, FreeBSD, macOS
_LOOPBACK_BYTES = 4
_ETHERNET_BYTES, _SLL_BYTES, _SLL2_BYTES = 14, 16, 20
_SLL_PROTOCOL_LLC = 4
_ARPHRD_ETHER, _ARPHRD_FRAD, _ARPHRD_WIFI, _ARPHRD_RADIOTAP, _ARPHRD_NETLINK = 1, 770, 801, 803, 824

_NFLOG_BYTES, _NFLOG_ATTRIBUTE_BYTES = 4, 4
_NFULA_PAYLOAD = 9
_LINUX_AF_INET6 = 10


@inlined
def is_vlan_tag(ethertype: int) -> bool:
    """Tell whether a VLAN tag follows (IEEE 802.1Q clause 9.5, and the number that QinQ had before)."""
    return ethertype in (EtherType.VLAN, EtherType.QINQ, EtherType.QINQ_OLD)


@inlined
def skip_vlan_tags(data: Bytes, pos: int, end: int, ethertype: int) -> tuple[int, int, int]:
    """Return the EtherType behind all VLAN tags (-1: cut off), the position behind that, and the VLAN id.

    The id is that of the innermost tag, -1 without any. The null id of a priority tag (IEEE 802.1Q table 9-2)
    names no VLAN, so such a tag leaves it as it was.
    """
    vlan = -1
    for _ in range(MAX_VLAN_TAGS):
        if not is_vlan_tag(ethertype):
            break
        vlan_id = read_u16(data, pos, end) & 0x0FFF
        ethertype = read_u16(data, pos + 2, end)
        pos += 4
        if vlan_id > 0:
            vlan = vlan_id
    return ethertype, pos, vlan


@inlined
def read_snap_ethertype(data: Bytes, pos: int, end: int) -> int:
    """Return the EtherType in an LLC/SNAP header (RFC 1042): -1 cut off, ``_NO_ETHERTYPE`` other LLC."""
    saps = read_u16(data, pos, end)
    if saps not in (-1, _LLC_SNAP):
        return _NO_ETHERTYPE
    organisation = read_u32(data, pos + 2, end)
    if organisation == _SNAP_CISCO and read_u16(data, pos + 6, end) == _CISCO_CDP:
        return EtherType.CDP
    if organisation not in (-1, _SNAP_RFC1042, _SNAP_BRIDGE_TUNNEL):
        return _NO_ETHERTYPE
    return read_u16(data, pos + 6, end)


@inlined
def cooked_ethertype(protocol: int, hardware: int) -> int:
    """Return what a Linux cooked header's protocol field says, given its ARPHRD type (LINKTYPE_LINUX_SLL).

    Below 0x0600 only "an LLC header follows" means anything here; a netlink message has protocols of its own.
    """
    if protocol == -1:
        return -1
    if hardware == _ARPHRD_NETLINK or (protocol < _MIN_ETHERTYPE and protocol != _SLL_PROTOCOL_LLC):
        return _NO_ETHERTYPE
    return protocol


@inlined
def ethertype_layer(ethertype: int) -> tuple[int, int]:
    """Return (UNDECIDED, the Layer that an EtherType announces), or (the frame's FrameStatus, nothing)."""
    if ethertype == EtherType.IPV4:
        return UNDECIDED, Layer.IPV4
    if ethertype == EtherType.IPV6:
        return UNDECIDED, Layer.IPV6
    if ethertype == EtherType.ARP:
        return UNDECIDED, Layer.ARP
    if ethertype == -1:
        return FrameStatus.TRUNCATED, Layer.NONE
    if ethertype in (EtherType.MPLS, EtherType.MPLS_UPSTREAM):
        return UNDECIDED, Layer.MPLS
    if ethertype == EtherType.PPPOE:
        return UNDECIDED, Layer.PPPOE
    if ethertype == EtherType.VNTAG:
        return UNDECIDED, Layer.VNTAG
    if ethertype == EtherType.ETAG:
        return UNDECIDED, Layer.ETAG
    if ethertype == EtherType.PBB:
        return UNDECIDED, Layer.PBB
    if ethertype == EtherType.NSH:
        return UNDECIDED, Layer.NSH
    if ethertype == EtherType.FABRICPATH:
        return UNDECIDED, Layer.FABRICPATH
    if ethertype == EtherType.PPP:
        return UNDECIDED, Layer.PPP
    if ethertype == EtherType.LLDP:
        return UNDECIDED, Layer.LLDP
    if ethertype == EtherType.CDP:
        return UNDECIDED, Layer.CDP
    if ethertype == EtherType.ETHERNET:
        return UNDECIDED, Layer.ETHERNET
    if ethertype in _ENCAPSULATIONS or is_vlan_tag(ethertype):  # a tag inside SNAP
        return FrameStatus.UNKNOWN_TUNNEL, Layer.NONE
    return FrameStatus.NOT_IP, Layer.NONE


@inlined
def decode_ether(data: Bytes, pos: int, end: int, ethertype: int) -> tuple[int, int, int, int]:
    """Decode what may follow an EtherType field: tags, then a payload or LLC. Returns as ``decode_link``."""
    ethertype, pos, vlan = skip_vlan_tags(data, pos, end, ethertype)
    if is_vlan_tag(ethertype):
        return FrameStatus.TOO_DEEP, Layer.NONE, pos, vlan
    if 0 <= ethertype <= _MAX_LENGTH_FIELD:
        ethertype = read_snap_ethertype(data, pos, end)
        pos += 8
    status, layer = ethertype_layer(ethertype)
    return status, layer, pos, vlan


@inlined
def version_layer(first: int) -> int:
    """Return the Layer of an IP packet by the version in its first byte; NONE if it has neither."""
    if first >> 4 == 4:
        return Layer.IPV4
    return Layer.IPV6 if first >> 4 == 6 else Layer.NONE


@inlined
def decode_raw(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Decode a frame that is an IP packet (LINKTYPE_RAW, _IPV4, _IPV6). Returns as ``decode_link``."""
    if link_type == LinkType.IPV4:
        return UNDECIDED, Layer.IPV4, start, -1
    if link_type == LinkType.IPV6:
        return UNDECIDED, Layer.IPV6, start, -1
    first = read_u8(data, start, end)
    if first == -1:
        return FrameStatus.TRUNCATED, Layer.NONE, start, -1
    layer = version_layer(first)
    return (UNDECIDED if layer != Layer.NONE else FrameStatus.MALFORMED), layer, start, -1


@inlined
def decode_cooked(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Decode a Linux cooked header, version 1 or 2 (LINKTYPE_LINUX_SLL, _SLL2). Returns as ``decode_link``.

    Behind the header of a frame relay or radio interface comes a frame of its own kind.
    """
    if link_type == LinkType.LINUX_SLL:
        hardware, protocol = read_u16(data, start + 2, end), read_u16(data, start + 14, end)
        length = _SLL_BYTES
    else:
        hardware, protocol = read_u16(data, start + 8, end), read_u16(data, start, end)
        length = _SLL2_BYTES
    if not has(start, end, length):
        return FrameStatus.TRUNCATED, Layer.NONE, start, -1
    if hardware == _ARPHRD_FRAD:
        return FrameStatus.UNKNOWN_LINK_TYPE, Layer.NONE, start, -1
    if hardware == _ARPHRD_RADIOTAP:
        return UNDECIDED, Layer.RADIOTAP, start + length, -1
    if hardware == _ARPHRD_WIFI:
        return UNDECIDED, Layer.WIFI, start + length, -1
    return decode_ether(data, start + length, end, cooked_ethertype(protocol, hardware))


@inlined
def decode_loopback(data: Bytes, start: int, end: int) -> tuple[int, int, int, int]:
    """Decode a loopback header (LINKTYPE_NULL, LINKTYPE_LOOP): an address family. Returns as ``decode_link``.

    Families are small numbers, so the byte order shows; AF_INET6 differs between systems.
    """
    family = read_u32(data, start, end)
    if family < 0:
        return FrameStatus.TRUNCATED, Layer.NONE, start, -1
    if family > 0xFFFF:
        family = read_u32_le(data, start, end)
    if family == _AF_INET:
        return UNDECIDED, Layer.IPV4, start + _LOOPBACK_BYTES, -1
    if family in _AF_INET6:
        return UNDECIDED, Layer.IPV6, start + _LOOPBACK_BYTES, -1
    return FrameStatus.NOT_IP, Layer.NONE, start, -1


@inlined
def decode_link(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Find what the frame ``data[start:end]`` carries: (status, Layer, its position, VLAN id).

    Status is UNDECIDED if the layer is to be decoded; anything else is the frame's FrameStatus, and the other
    values mean nothing. VLAN id: see ``skip_vlan_tags``. The rarer link types are layers themselves.
    """
    if link_type == LinkType.ETHERNET:
        ethertype = read_u16(data, start + 12, end)
        return decode_ether(data, start + _ETHERNET_BYTES, end, ethertype)
    if link_type in (LinkType.LINUX_SLL, LinkType.LINUX_SLL2):
        return decode_cooked(data, start, end, link_type)
    if link_type in (LinkType.RAW, LinkType.RAW_BSD, LinkType.RAW_OPENBSD, LinkType.IPV4, LinkType.IPV6):
        return decode_raw(data, start, end, link_type)
    if link_type in (LinkType.NULL, LinkType.LOOP):
        return decode_loopback(data, start, end)
    if link_type in (LinkType.PPP, LinkType.PPP_HDLC):
        return UNDECIDED, Layer.PPP, start, -1
    if link_type == LinkType.PPP_ETHER:
        return UNDECIDED, Layer.PPPOE, start, -1
    if link_type == LinkType.C_HDLC:
        return UNDECIDED, Layer.CHDLC, start, -1
    if link_type == LinkType.IEEE802_11:
        return UNDECIDED, Layer.WIFI, start, -1
    if link_type == LinkType.IEEE802_11_RADIOTAP:
        return UNDECIDED, Layer.RADIOTAP, start, -1
    if link_type == LinkType.NFLOG:
        return UNDECIDED, Layer.NFLOG, start, -1
    return FrameStatus.UNKNOWN_LINK_TYPE, Layer.NONE, start, -1


@inlined
def read_stations(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int]:
    """Return the source and destination MAC address of a frame that ``decode_link`` accepted; -1 not known.

    A cooked header has the sender's address alone, whichever way the packet went. It is a MAC address if it
    is 6 bytes long and of an Ethernet interface: loopback shows six zeros under a type of its own.
    """
    if link_type == LinkType.ETHERNET:
        return read_mac(data, start + 6, end), read_mac(data, start, end)
    if link_type == LinkType.LINUX_SLL:
        hardware, length, address = read_u16(data, start + 2, end), read_u16(data, start + 4, end), start + 6
    elif link_type == LinkType.LINUX_SLL2:
        hardware, length, address = read_u16(data, start + 8, end), read_u8(data, start + 11, end), start + 12
    else:
        return -1, -1
    if hardware == _ARPHRD_ETHER and length == 6:
        return read_mac(data, address, end), -1
    return -1, -1


@spliced
def peel_ethernet(
    data: Bytes, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel the Ethernet header of a frame inside: its stations and its VLAN are the packet's (decode/peel.py)."""
    if not has(pos, end, _ETHERNET_BYTES):
        return status_of_lack(pos, _ETHERNET_BYTES, wire_end, weirds), Layer.NONE, pos
    packet["dst_mac"] = read_mac(data, pos, end)
    packet["src_mac"] = read_mac(data, pos + 6, end)
    return peel_ethertype(data, pos + _ETHERNET_BYTES, end, read_u16(data, pos + 12, end), packet)


@inner
def peel_ethertype(data: Bytes, pos: int, end: int, ethertype: int, packet: Any) -> tuple[int, int, int]:
    """Go on behind an EtherType field: ``decode_ether`` for a frame inside."""
    status, layer, pos, vlan = decode_ether(data, pos, end, ethertype)
    if vlan >= 0:
        packet["vlan"] = vlan
    return status, layer, pos


@inlined
def looks_like_ethernet(data: Bytes, pos: int, end: int) -> bool:
    """Tell whether a frame begins here whose EtherType and first byte of payload fit, for what does not say so."""
    ethertype, first = read_u16(data, pos + 12, end), read_u8(data, pos + 14, end)
    if ethertype == EtherType.IPV4:
        return first >> 4 == 4
    if ethertype == EtherType.IPV6:
        return first >> 4 == 6
    if ethertype == EtherType.ARP:
        return first == 0  # hardware type 1, Ethernet
    if ethertype == EtherType.PPPOE:
        return first == 0x11
    return ethertype in (EtherType.MPLS, EtherType.VLAN, EtherType.QINQ)


@spliced
def peel_nflog(
    data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel the header of LINKTYPE_NFLOG: an address family, then attributes, one of which is the packet.

    Their length and type are in the byte order of the machine that captured, which the small types show.
    """
    if not has(pos, end, _NFLOG_BYTES):
        return status_of_lack(pos, _NFLOG_BYTES, wire_end, weirds), Layer.NONE, pos
    family = read_u8(data, pos, end)
    if family not in (_AF_INET, _LINUX_AF_INET6):
        return FrameStatus.NOT_IP, Layer.NONE, pos
    pos += _NFLOG_BYTES
    for _ in range(MAX_NFLOG_ATTRIBUTES):
        if not has(pos, end, _NFLOG_ATTRIBUTE_BYTES):
            return status_of_lack(pos, _NFLOG_ATTRIBUTE_BYTES, wire_end, weirds), Layer.NONE, pos
        length, kind = read_u16_le(data, pos, end), read_u16_le(data, pos + 2, end)
        if kind > 0xFF:
            length, kind = read_u16(data, pos, end), read_u16(data, pos + 2, end)
        if length < _NFLOG_ATTRIBUTE_BYTES:
            return FrameStatus.MALFORMED, Layer.NONE, pos
        if kind == _NFULA_PAYLOAD:
            layer = Layer.IPV4 if family == _AF_INET else Layer.IPV6
            return UNDECIDED, layer, pos + _NFLOG_ATTRIBUTE_BYTES
        pos += (length + 3) & ~3
    return FrameStatus.TOO_DEEP, Layer.NONE, pos
