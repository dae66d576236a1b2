"""Headers that wrap a frame or packet, built byte by byte from the RFC that each function names.

``STACKS`` holds one healthy way to wrap an IPv4 packet for each layer that is peeled, for tests and the benchmark:
a function from the packet to (link type, frame).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sensor.capture.frames import LinkType
from tests import builders as b

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MPLS, PPPOE, PPP, TRANSPARENT, ERSPAN, ERSPAN_III = 0x8847, 0x8864, 0x880B, 0x6558, 0x88BE, 0x22EB
VNTAG, ETAG, PBB, FABRICPATH, NSH = 0x8926, 0x893F, 0x88E7, 0x8903, 0x894F
PPP_IPV4, PPP_IPV6 = 0x0021, 0x0057
VXLAN_PORT, VXLAN_LINUX_PORT, VXLAN_GPE_PORT, GENEVE_PORT, GTP_PORT, TEREDO_PORT = (
    4789,
    8472,
    4790,
    6081,
    2152,
    3544,
)
L2TP_PORT, CAPWAP_PORT, TZSP_PORT, GRE_PORT = 1701, 5247, 37008, 4754


# --- in front of the network header ---


def mpls(payload: bytes, *labels: int, bottom: bool = True) -> bytes:
    """RFC 3032; the last label is the bottom of the stack."""
    entries = [label << 12 | (bottom and n == len(labels) - 1) << 8 | 64 for n, label in enumerate(labels)]
    return struct.pack(f">{len(entries)}I", *entries) + payload


def control_word(payload: bytes, first: int = 0) -> bytes:
    """RFC 4448 section 4.6."""
    return struct.pack(">I", first << 28) + payload


def pppoe(payload: bytes, *, session: int = 0x1234, version: int = 0x11, code: int = 0) -> bytes:
    """RFC 2516; ``payload`` is a PPP frame without address and control."""
    return struct.pack(">BBHH", version, code, session, len(payload) & 0xFFFF) + payload


def ppp(protocol: int, payload: bytes, *, hdlc: bool = True, short: bool = False) -> bytes:
    """RFC 1661, 1662; ``short``: the protocol in one byte."""
    return (b"\xff\x03" if hdlc else b"") + protocol.to_bytes(1 if short else 2, "big") + payload


def chdlc(ethertype: int, payload: bytes, *, address: int = 0x0F) -> bytes:
    return struct.pack(">BBH", address, 0, ethertype) + payload


def vntag(ethertype: int, payload: bytes) -> bytes:
    return struct.pack(">IH", 0x00010002, ethertype) + payload


def etag(ethertype: int, payload: bytes) -> bytes:
    return struct.pack(">HIH", 0xE000, 0x10002000, ethertype) + payload


def pbb(frame: bytes, *, service: int = 0x123456) -> bytes:
    """What follows the EtherType of an IEEE 802.1ah I-tag."""
    return struct.pack(">I", service) + frame


def nsh(next_protocol: int, payload: bytes, *, words: int = 6, version: int = 0) -> bytes:
    """RFC 8300; six words are metadata type 1."""
    head = struct.pack(">HBBI", version << 14 | 63 << 6 | words, 1, next_protocol, 0x00002AFF)
    return head + bytes(max(words - 2, 0) * 4) + payload


# --- radio, and what the kernel logs ---


def wifi(
    ethertype: int,
    payload: bytes,
    *,
    to_ds: bool = False,
    from_ds: bool = True,
    qos: bool = False,
    order: bool = False,
    protected: bool = False,
    kind: int = 2,
    subtype: int = 0,
    fragment: int = 0,
    pad: bool = False,
    amsdu: Sequence[bytes] = (),
    swapped: bool = False,
) -> bytes:
    """An IEEE 802.11 data frame from SRC_MAC to DST_MAC; ``amsdu``: Ethernet frames with a length, as its payload."""
    control = (kind << 2 | subtype << 4 | qos << 7) | (
        to_ds | from_ds << 1 | protected << 6 | order << 7
    ) << 8
    src, dst, other = b.mac_bytes(b.SRC_MAC), b.mac_bytes(b.DST_MAC), b"\x06" + bytes(5)
    addresses = {
        (False, False): dst + src + other,
        (False, True): dst + other + src,
        (True, False): other + src + dst,
        (True, True): other + other + dst,
    }[to_ds, from_ds]
    header = (
        struct.pack(">H" if swapped else "<H", control) + b"\0\0" + addresses + struct.pack("<H", fragment)
    )
    if to_ds and from_ds:
        header += src
    if qos:
        header += struct.pack("<H", 0x80 if amsdu else 0) + (bytes(4) if order else b"")
    if pad:
        header += bytes(-len(header) % 4)
    if amsdu:
        return header + b"".join(frame + bytes(-len(frame) % 4) for frame in amsdu)
    return header + b.snap(ethertype, payload)


def radiotap(
    frame: bytes, *, tsft: bool = True, flags: int | None = 0, words: int = 1, version: int = 0
) -> bytes:
    present = [tsft | (flags is not None) << 1] + [0] * (words - 1)
    present = [word | (n < words - 1) << 31 for n, word in enumerate(present)]
    fields = bytes((-(4 + 4 * words) % 8 if tsft else 0) + 8 * tsft)
    if flags is not None:
        fields += bytes([flags])
    length = 4 + 4 * words + len(fields)
    return struct.pack(f"<BBH{words}I", version, 0, length, *present) + fields + frame


def nflog(
    packet: bytes, *, family: int = 2, order: str = "<", others: int = 2, length: int | None = None
) -> bytes:
    """``others``: attributes in front of the payload, 5 bytes each."""
    head = struct.pack(">BBH", family, 0, 0)
    attribute = struct.pack(order + "HH", 5, 10) + b"\0" + bytes(3)
    size = len(packet) + 4 if length is None else length
    return head + attribute * others + struct.pack(order + "HH", size, 9) + packet


# --- over IP ---


def gre(
    ethertype: int,
    payload: bytes,
    *,
    checksum: bool = False,
    key: int | None = None,
    sequence: int | None = None,
    route: bytes | None = None,
    version: int = 0,
) -> bytes:
    """RFC 2784, 2890, 1701; ``route``: source route entries, of which the last is empty."""
    has_key, has_sequence = key is not None, sequence is not None
    flags = checksum << 15 | (route is not None) << 14 | has_key << 13 | has_sequence << 12 | version
    header = struct.pack(">HH", flags, ethertype)
    if checksum or route is not None:
        header += bytes(4)
    if key is not None:
        header += struct.pack(">I", key)
    if sequence is not None:
        header += struct.pack(">I", sequence)
    return header + (route or b"") + payload


def route_entry(length: int, family: int = 0x0800) -> bytes:
    return struct.pack(">HBB", family, 0, length) + bytes(length)


def pptp(payload: bytes, *, call: int = 77, sequence: bool = True, acknowledged: bool = True) -> bytes:
    """RFC 2637: GRE version 1; ``payload`` is a PPP frame."""
    flags = 0x2001 | sequence << 12 | acknowledged << 7
    header = struct.pack(">HHHH", flags, PPP, len(payload) & 0xFFFF, call)
    return header + bytes(4 * sequence + 4 * acknowledged) + payload


def erspan_ii(frame: bytes, *, vlan: int = 0, session: int = 5, version: int = 1) -> bytes:
    """draft-foschiano-erspan-03; goes into GRE with a sequence number."""
    return struct.pack(">HHI", version << 12 | vlan, session, 0) + frame


def erspan_iii(
    frame: bytes,
    *,
    vlan: int = 0,
    session: int = 5,
    version: int = 2,
    frame_type: int = 0,
    subheader: bool = False,
) -> bytes:
    header = struct.pack(">HHIHH", version << 12 | vlan, session, 0, 0, frame_type << 10 | subheader)
    return header + bytes(8 * subheader) + frame


def etherip(frame: bytes) -> bytes:
    return b"\x30\x00" + frame


def l2tpv3(frame: bytes, *, session: int = 9, gap: int = 4) -> bytes:
    """RFC 3931 over IP; ``gap``: bytes of cookie and sublayer."""
    return struct.pack(">I", session) + b"\xc0" * gap + frame


# --- over UDP: the datagram's payload ---


def vxlan(
    payload: bytes, *, vni: int = 0xABCDEF, flags: int = 0x08, next_protocol: int = 0, last: int = 0
) -> bytes:
    """RFC 7348; with flag 0x04 (P), draft-ietf-nvo3-vxlan-gpe."""
    return struct.pack(">BHB", flags, 0, next_protocol) + vni.to_bytes(3, "big") + bytes([last]) + payload


def geneve(
    ethertype: int, payload: bytes, *, vni: int = 0x00BEEF, words: int = 0, version: int = 0, last: int = 0
) -> bytes:
    """RFC 8926; ``words``: of options."""
    head = struct.pack(">BBH", version << 6 | words, 0, ethertype) + vni.to_bytes(3, "big") + bytes([last])
    return head + bytes(4 * words) + payload


def gtp_u(
    payload: bytes,
    *,
    teid: int = 0xF0000001,
    kind: int = 255,
    version: int = 1,
    sequence: bool = False,
    extensions: Sequence[int] = (),
) -> bytes:
    """3GPP TS 29.281; ``extensions``: the length of each extension header, in 4-byte words."""
    flags = version << 5 | 0x10 | bool(extensions) << 2 | sequence << 1
    optional = b""
    if sequence or extensions:
        optional = struct.pack(">HBB", 7, 0, 0x85 if extensions else 0)
        for n, words in enumerate(extensions):
            content = bytes([words]) + bytes(max(4 * words - 1, 0))
            following = 0x85 if n < len(extensions) - 1 else 0
            optional += content[:-1] + bytes([following]) if words else content
    length = (len(optional) + len(payload)) & 0xFFFF
    return struct.pack(">BBHI", flags, kind, length, teid) + optional + payload


def teredo(packet: bytes, *, authentication: int | None = None, origin: bool = False) -> bytes:
    """RFC 4380; ``authentication``: bytes of client id and of authentication value, each."""
    header = b""
    if authentication is not None:
        header += struct.pack(">HBB", 1, authentication, authentication) + bytes(2 * authentication + 9)
    if origin:
        header += b"\0\0" + bytes(6)
    return header + packet


def l2tp(
    payload: bytes,
    *,
    length: bool = False,
    sequence: bool = False,
    offset: int | None = None,
    control: bool = False,
    tunnel: int = 3,
    session: int = 4,
) -> bytes:
    """RFC 2661; ``payload`` is a PPP frame."""
    flags = control << 15 | length << 14 | sequence << 11 | (offset is not None) << 9 | 2
    header = struct.pack(">H", flags) + (b"\0\0" if length else b"") + struct.pack(">HH", tunnel, session)
    header += bytes(4 * sequence)
    if offset is not None:
        header += struct.pack(">H", offset) + bytes(offset)
    return header + payload


def l2tpv3_in_udp(frame: bytes, *, session: int = 9, gap: int = 0) -> bytes:
    return b"\x00\x03\0\0" + l2tpv3(frame, session=session, gap=gap)


def capwap(
    payload: bytes,
    *,
    words: int = 2,
    binding: int = 1,
    native: bool = False,
    fragment: bool = False,
    keep_alive: bool = False,
    preamble: int = 0,
) -> bytes:
    """RFC 5415 section 4.3; ``native``: a frame of the binding's kind, else of Ethernet."""
    bits = words << 19 | 1 << 14 | binding << 9 | native << 8 | fragment << 7 | keep_alive << 3
    return bytes([preamble]) + bits.to_bytes(3, "big") + bytes(4 * max(words - 1, 1)) + payload


def tzsp(
    frame: bytes, *, version: int = 1, kind: int = 0, protocol: int = 1, tags: bytes = b"\x00\x0a\x01\xd0"
) -> bytes:
    """Header, tagged fields (padding, and a signal strength), the end tag."""
    return struct.pack(">BBH", version, kind, protocol) + tags + b"\x01" + frame


def over_ip(proto: int, payload: bytes, version: int = 4) -> bytes:
    """An Ethernet frame with an IP packet of the tunnel's ends."""
    if version == 4:
        return b.ether(b.IPV4, b.ipv4(proto, payload, src="203.0.113.1", dst="203.0.113.2"))
    return b.ether(b.IPV6, b.ipv6(proto, payload, src="2001:db8:1::1", dst="2001:db8:1::2"))


def over_udp(port: int, payload: bytes, version: int = 4, src_port: int = 50000) -> bytes:
    return over_ip(b.UDP, b.udp(payload, src_port=src_port, dst_port=port), version)


def inner_frame(packet: bytes) -> bytes:
    """An Ethernet frame inside, whose stations differ from the outer ones."""
    return b.ether(b.IPV4, packet, src=INNER_SRC_MAC, dst=INNER_DST_MAC)


INNER_SRC_MAC, INNER_DST_MAC = 0x021111111111, 0x022222222222

STACKS: dict[str, Callable[[bytes], tuple[int, bytes]]] = {
    "mpls": lambda p: (1, b.ether(MPLS, mpls(p, 100, 200))),
    "mpls explicit null": lambda p: (1, b.ether(MPLS, mpls(p, 100, 0))),
    "mpls pseudo-wire": lambda p: (1, b.ether(MPLS, mpls(inner_frame(p), 100, 200))),
    "mpls pseudo-wire with control word": lambda p: (1, b.ether(MPLS, mpls(control_word(inner_frame(p)), 9))),
    "pppoe": lambda p: (1, b.ether(PPPOE, pppoe(ppp(PPP_IPV4, p, hdlc=False)))),
    "pppoe in qinq": lambda p: (
        1,
        b.ether(b.QINQ, b.tagged(b.VLAN, b.tagged(PPPOE, pppoe(ppp(PPP_IPV4, p, hdlc=False)), 7), 8)),
    ),
    "vntag": lambda p: (1, b.ether(VNTAG, vntag(b.VLAN, b.tagged(b.IPV4, p, 21)))),
    "etag": lambda p: (1, b.ether(ETAG, etag(b.VLAN, b.tagged(b.IPV4, p, 22)))),
    "pbb": lambda p: (1, b.ether(b.QINQ, b.tagged(PBB, pbb(inner_frame(p)), 5))),
    "fabricpath": lambda p: (1, b.ether(FABRICPATH, b"\x04\x40" + inner_frame(p))),
    "nsh": lambda p: (1, b.ether(NSH, nsh(1, p))),
    "nsh with a frame": lambda p: (1, b.ether(NSH, nsh(3, inner_frame(p), words=2))),
    "ipv4 in ipv4": lambda p: (1, over_ip(4, p)),
    "ipv4 in ipv6": lambda p: (1, over_ip(4, p, 6)),
    "gre": lambda p: (1, over_ip(47, gre(b.IPV4, p))),
    "gre with all fields": lambda p: (
        1,
        over_ip(
            47, gre(b.IPV4, p, checksum=True, key=7, sequence=8, route=route_entry(4) + route_entry(0, 0))
        ),
    ),
    "nvgre": lambda p: (1, over_ip(47, gre(TRANSPARENT, inner_frame(p), key=0x00123400))),
    "gre with ppp (pptp)": lambda p: (1, over_ip(47, pptp(ppp(PPP_IPV4, p)))),
    "gre in udp": lambda p: (1, over_udp(GRE_PORT, gre(b.IPV4, p, key=1))),
    "erspan i": lambda p: (1, over_ip(47, gre(ERSPAN, inner_frame(p)))),
    "erspan ii": lambda p: (1, over_ip(47, gre(ERSPAN, erspan_ii(inner_frame(p), vlan=31), sequence=1))),
    "erspan iii": lambda p: (
        1,
        over_ip(47, gre(ERSPAN_III, erspan_iii(inner_frame(p), vlan=32), sequence=1)),
    ),
    "erspan iii with sub-header": lambda p: (
        1,
        over_ip(47, gre(ERSPAN_III, erspan_iii(inner_frame(p), subheader=True), sequence=1)),
    ),
    "erspan iii with a packet": lambda p: (
        1,
        over_ip(47, gre(ERSPAN_III, erspan_iii(p, frame_type=2), sequence=1)),
    ),
    "gre of aruba with 802.11": lambda p: (1, over_ip(47, gre(0x8200, wifi(b.IPV4, p)))),
    "etherip": lambda p: (1, over_ip(97, etherip(inner_frame(p)))),
    "l2tpv3": lambda p: (1, over_ip(115, l2tpv3(inner_frame(p)))),
    "vxlan": lambda p: (1, over_udp(VXLAN_PORT, vxlan(inner_frame(p)))),
    "vxlan-gpe": lambda p: (1, over_udp(VXLAN_GPE_PORT, vxlan(p, flags=0x0C, next_protocol=1))),
    "geneve": lambda p: (1, over_udp(GENEVE_PORT, geneve(TRANSPARENT, inner_frame(p)))),
    "geneve with options": lambda p: (1, over_udp(GENEVE_PORT, geneve(b.IPV4, p, words=5))),
    "gtp-u": lambda p: (1, over_udp(GTP_PORT, gtp_u(p))),
    "gtp-u with extensions": lambda p: (1, over_udp(GTP_PORT, gtp_u(p, extensions=(1, 2)))),
    "teredo": lambda p: (1, over_udp(TEREDO_PORT, teredo(b.ipv6(4, p)))),
    "teredo with authentication and origin": lambda p: (
        1,
        over_udp(TEREDO_PORT, teredo(b.ipv6(4, p), authentication=3, origin=True)),
    ),
    "l2tpv2": lambda p: (1, over_udp(L2TP_PORT, l2tp(ppp(PPP_IPV4, p)))),
    "l2tpv3 in udp": lambda p: (1, over_udp(L2TP_PORT, l2tpv3_in_udp(inner_frame(p), gap=8))),
    "capwap 802.3": lambda p: (1, over_udp(CAPWAP_PORT, capwap(inner_frame(p)))),
    "capwap 802.11": lambda p: (1, over_udp(CAPWAP_PORT, capwap(wifi(b.IPV4, p), native=True))),
    "tzsp": lambda p: (1, over_udp(TZSP_PORT, tzsp(inner_frame(p)))),
    "tzsp 802.11": lambda p: (1, over_udp(TZSP_PORT, tzsp(wifi(b.IPV4, p), protocol=18))),
    "ppp": lambda p: (LinkType.PPP, ppp(PPP_IPV4, p)),
    "ppp hdlc": lambda p: (LinkType.PPP_HDLC, ppp(PPP_IPV4, p, hdlc=False, short=True)),
    "ppp ether": lambda p: (LinkType.PPP_ETHER, pppoe(ppp(PPP_IPV4, p, hdlc=False))),
    "cisco hdlc": lambda p: (LinkType.C_HDLC, chdlc(b.IPV4, p)),
    "802.11": lambda p: (LinkType.IEEE802_11, wifi(b.IPV4, p)),
    "802.11 qos": lambda p: (LinkType.IEEE802_11, wifi(b.IPV4, p, qos=True, to_ds=True, from_ds=False)),
    "802.11 a-msdu": lambda p: (
        LinkType.IEEE802_11,
        wifi(0, b"", qos=True, amsdu=[b.ether(8 + len(p), b.snap(b.IPV4, p))] * 2),
    ),
    "radiotap": lambda p: (LinkType.IEEE802_11_RADIOTAP, radiotap(wifi(b.IPV4, p))),
    "radiotap in a cooked header": lambda p: (
        LinkType.LINUX_SLL,
        b.sll(4, radiotap(wifi(b.IPV4, p)), hardware=803),
    ),
    "nflog": lambda p: (LinkType.NFLOG, nflog(p)),
}
