"""Link-layer headers: what the frame carries, where that begins, and which stations it went between."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sensor.capture.frames import LinkType
from sensor.decode.status import UNDECIDED, FrameStatus
from sensor.decode.wire import has, read_mac, read_u8, read_u16, read_u32, read_u32_le
from sensor.jit import inlined

if TYPE_CHECKING:
    from sensor.decode.wire import Bytes

#: QinQ needs two tags; switches that mirror into a VLAN of their own, and labs, stack a few more.
MAX_VLAN_TAGS = 8


class EtherType(IntEnum):
    """EtherTypes that are decoded (IANA registry "IEEE 802 Numbers")."""

    IPV4 = 0x0800
    ARP = 0x0806
    VLAN = 0x8100  # IEEE 802.1Q C-tag
    IPV6 = 0x86DD
    QINQ = 0x88A8  # IEEE 802.1ad S-tag
    QINQ_OLD = 0x9100  # the S-tag before 802.1ad gave it a number


# EtherTypes that wrap a further frame or packet.
_ENCAPSULATIONS = (
    0x22EB,  # ERSPAN type III
    0x22F3,  # TRILL
    0x6558,  # transparent Ethernet bridging
    0x8847,  # MPLS
    0x8848,  # MPLS, upstream-assigned label
    0x8864,  # PPPoE session
    0x880B,  # PPP
    0x88BE,  # ERSPAN type II
    0x88E5,  # MACsec
    0x88E7,  # IEEE 802.1ah I-tag
    0x8903,  # Cisco FabricPath
    0x8909,  # Cisco MetaData
    0x8926,  # Cisco VN-Tag
    0x892F,  # HSR
    0x893F,  # IEEE 802.1BR E-tag
    0x894F,  # NSH
    0x9200,  # further numbers of the old S-tag
    0x9300,
)

_NO_ETHERTYPE = 0xFFFF  # reserved (RFC 1701 section 7), so it stands for "carries no EtherType"
_MAX_LENGTH_FIELD = 1500  # IEEE 802.3 clause 3.2.6: up to here the field is a length, and LLC follows
_MIN_ETHERTYPE = 0x0600

_LLC_SNAP = 0xAAAA  # destination and source SAP
_SNAP_RFC1042 = 0x03000000  # unnumbered information, organisation code 0: an EtherType follows
_SNAP_BRIDGE_TUNNEL = 0x030000F8  # IEEE 802.1H

_AF_INET = 2
_AF_INET6 = (10, 24, 28, 30)  # Linux, NetBSD and OpenBSD, FreeBSD, macOS
_LOOPBACK_BYTES = 4
_ETHERNET_BYTES, _SLL_BYTES, _SLL2_BYTES = 14, 16, 20
_SLL_PROTOCOL_LLC = 4
_ARPHRD_ETHER, _ARPHRD_FRAD, _ARPHRD_RADIOTAP, _ARPHRD_NETLINK = 1, 770, 803, 824


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
def raw_ethertype(data: Bytes, pos: int, end: int, link_type: int) -> int:
    """Return the EtherType that a bare IP packet lacks: -1 no byte there, ``_NO_ETHERTYPE`` not IP."""
    if link_type == LinkType.IPV4:
        return EtherType.IPV4
    if link_type == LinkType.IPV6:
        return EtherType.IPV6
    version = read_u8(data, pos, end) >> 4
    if version == 4:
        return EtherType.IPV4
    if version == 6:
        return EtherType.IPV6
    return _NO_ETHERTYPE if version >= 0 else -1


@inlined
def ethertype_status(ethertype: int) -> int:
    """Return UNDECIDED for what is decoded further (IPv4, IPv6, ARP), else the frame's status."""
    if ethertype in (EtherType.IPV4, EtherType.IPV6, EtherType.ARP):
        return UNDECIDED
    if ethertype == -1:
        return FrameStatus.TRUNCATED
    if ethertype in _ENCAPSULATIONS or is_vlan_tag(ethertype):  # a tag inside SNAP
        return FrameStatus.UNKNOWN_TUNNEL
    return FrameStatus.NOT_IP


@inlined
def decode_ether(data: Bytes, pos: int, end: int, ethertype: int) -> tuple[int, int, int, int]:
    """Decode what may follow an EtherType field: tags, then a payload or LLC. Returns as ``decode_link``."""
    ethertype, pos, vlan = skip_vlan_tags(data, pos, end, ethertype)
    if is_vlan_tag(ethertype):
        return FrameStatus.TOO_DEEP, ethertype, pos, vlan
    if 0 <= ethertype <= _MAX_LENGTH_FIELD:
        ethertype = read_snap_ethertype(data, pos, end)
        pos += 8
    return ethertype_status(ethertype), ethertype, pos, vlan


@inlined
def decode_raw(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Decode a frame that is an IP packet (LINKTYPE_RAW, _IPV4, _IPV6). Returns as ``decode_link``."""
    ethertype = raw_ethertype(data, start, end, link_type)
    if ethertype == _NO_ETHERTYPE:
        return FrameStatus.MALFORMED, ethertype, start, -1
    return ethertype_status(ethertype), ethertype, start, -1


@inlined
def decode_cooked(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Decode a Linux cooked header, version 1 or 2 (LINKTYPE_LINUX_SLL, _SLL2). Returns as ``decode_link``.

    Behind the header of a frame relay or radiotap interface comes a frame of its own kind.
    """
    if link_type == LinkType.LINUX_SLL:
        hardware, protocol = read_u16(data, start + 2, end), read_u16(data, start + 14, end)
        length = _SLL_BYTES
    else:
        hardware, protocol = read_u16(data, start + 8, end), read_u16(data, start, end)
        length = _SLL2_BYTES
    if not has(start, end, length):
        return FrameStatus.TRUNCATED, -1, start, -1
    if hardware in (_ARPHRD_FRAD, _ARPHRD_RADIOTAP):
        return FrameStatus.UNKNOWN_LINK_TYPE, -1, start, -1
    return decode_ether(data, start + length, end, cooked_ethertype(protocol, hardware))


@inlined
def decode_loopback(data: Bytes, start: int, end: int) -> tuple[int, int, int, int]:
    """Decode a loopback header (LINKTYPE_NULL, LINKTYPE_LOOP): an address family. Returns as ``decode_link``.

    Families are small numbers, so the byte order shows; AF_INET6 differs between systems.
    """
    family = read_u32(data, start, end)
    if family < 0:
        return FrameStatus.TRUNCATED, -1, start, -1
    if family > 0xFFFF:
        family = read_u32_le(data, start, end)
    if family == _AF_INET:
        return UNDECIDED, EtherType.IPV4, start + _LOOPBACK_BYTES, -1
    if family in _AF_INET6:
        return UNDECIDED, EtherType.IPV6, start + _LOOPBACK_BYTES, -1
    return FrameStatus.NOT_IP, -1, start, -1


@inlined
def decode_link(data: Bytes, start: int, end: int, link_type: int) -> tuple[int, int, int, int]:
    """Find the network header of the frame ``data[start:end]``: (status, EtherType, its position, VLAN id).

    Status is UNDECIDED for IPv4, IPv6 and ARP, the only EtherTypes then returned; anything else is the
    frame's FrameStatus, and the other values mean nothing. VLAN id: see ``skip_vlan_tags``.
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
    return FrameStatus.UNKNOWN_LINK_TYPE, -1, start, -1


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
