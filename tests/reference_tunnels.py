"""Slow, obvious decoders of whatever wraps a frame or packet; what sensor/decode/peel.py must compute.

Each takes what is known so far (``reference.Inside``), and leaves in its place what the header announces.
"""

from __future__ import annotations

import struct

from sensor.decode.layers import Layer
from sensor.decode.status import FrameStatus
from tests import reference as r
from tests.reference import Inside, Region, Stopped

MAX_LABELS, MAX_ROUTE_ENTRIES, MAX_GTP_EXTENSIONS, MAX_TZSP_TAGS, MAX_NFLOG_ATTRIBUTES = 16, 8, 8, 32, 32


def tunnel_of_ports(src: int, dst: int) -> Layer:
    answering = {2152: Layer.GTP_U, 3544: Layer.TEREDO, 1701: Layer.L2TP, 5247: Layer.CAPWAP}
    sent_to = {
        4789: Layer.VXLAN,
        8472: Layer.VXLAN,
        4790: Layer.VXLAN,
        6081: Layer.GENEVE,
        37008: Layer.TZSP,
        4754: Layer.GRE_IN_UDP,
    }
    for port in (dst, src):
        if port in answering:
            return answering[port]
        if port == dst and port in sent_to:
            return sent_to[port]
    raise Stopped(FrameStatus.OTHER)


def by_version(first: int, otherwise: FrameStatus) -> Layer:
    if first >> 4 not in (4, 6):
        raise Stopped(otherwise)
    return Layer.IPV4 if first >> 4 == 4 else Layer.IPV6


def ethertype_follows(inside: Inside, ethertype: int, rest: Region) -> None:
    found = r.decode_ether(ethertype, rest, {})
    inside.layer, inside.region = found.layer, found.region
    inside.columns |= found.columns


def ethernet(inside: Inside) -> None:
    header = inside.region.head(14)
    inside.columns["dst_mac"] = int.from_bytes(header[:6], "big")
    inside.columns["src_mac"] = int.from_bytes(header[6:12], "big")
    ethertype_follows(inside, int.from_bytes(header[12:], "big"), inside.region.after(14))


def looks_like_ethernet(look: bytes) -> bool:
    """Whether ``look``, which may be short, begins an Ethernet frame."""
    if len(look) < 14:
        return False
    ethertype, first = int.from_bytes(look[12:14], "big"), look[14] if len(look) > 14 else -1
    if ethertype in (0x8847, 0x8100, 0x88A8):
        return True
    return (ethertype, first >> 4) in ((0x0800, 4), (0x86DD, 6)) or (ethertype, first) in (
        (0x0806, 0),
        (0x8864, 0x11),
    )


def look(region: Region, n: int) -> bytes:
    """The next ``n`` bytes, or as many as the packet has; to guess from fewer is no good."""
    n = min(n, region.wire_len)
    return region.announced(n)


# --- shims ---


def mpls(inside: Inside) -> None:
    inside.forget_stations()
    for _ in range(MAX_LABELS):
        entry = int.from_bytes(inside.region.head(4), "big")
        inside.region = inside.region.after(4)
        if entry >> 8 & 1:
            label_payload(inside, entry >> 12)
            return
    raise Stopped(FrameStatus.TOO_DEEP)


def label_payload(inside: Inside, label: int) -> None:
    if label in (0, 2):
        inside.layer = Layer.IPV4 if label == 0 else Layer.IPV6
        return
    first = inside.region.head(1)[0]
    if first >> 4 == 6 or 0x45 <= first <= 0x4F:
        inside.layer = Layer.IPV6 if first >> 4 == 6 else Layer.IPV4
        return
    look(inside.region, 20)
    if first >> 4 == 0 and looks_like_ethernet(inside.region.captured[4:]):
        inside.layer, inside.region = Layer.ETHERNET, inside.region.after(4)
    elif looks_like_ethernet(inside.region.captured):
        inside.layer = Layer.ETHERNET
    else:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)


def vntag(inside: Inside) -> None:
    (ethertype,) = struct.unpack(">4xH", inside.region.head(6))
    ethertype_follows(inside, ethertype, inside.region.after(6))


def etag(inside: Inside) -> None:
    (ethertype,) = struct.unpack(">6xH", inside.region.head(8))
    ethertype_follows(inside, ethertype, inside.region.after(8))


def pbb(inside: Inside) -> None:
    (service,) = struct.unpack(">I", inside.region.head(4))
    inside.forget_stations()
    inside.note_session(Layer.PBB, service & 0xFFFFFF)
    inside.layer, inside.region = Layer.ETHERNET, inside.region.after(4)


def fabricpath(inside: Inside) -> None:
    inside.region.head(2)
    inside.forget_stations()
    inside.layer, inside.region = Layer.ETHERNET, inside.region.after(2)


NEXT_PROTOCOLS = {1: Layer.IPV4, 2: Layer.IPV6, 3: Layer.ETHERNET, 4: Layer.NSH, 5: Layer.MPLS}


def nsh(inside: Inside) -> None:
    version, length, following = struct.unpack(">BBxB4x", inside.region.head(8))
    length = (length & 0x3F) * 4
    if version >> 6 or length < 8:
        raise Stopped(FrameStatus.MALFORMED)
    inside.region.head(length)
    if following not in NEXT_PROTOCOLS:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    inside.forget_stations()
    inside.layer, inside.region = NEXT_PROTOCOLS[following], inside.region.after(length)


# --- point to point ---


def ppp(inside: Inside) -> None:
    if inside.region.captured[:1] == b"\xff" and inside.region.head(2) == b"\xff\x03":
        inside.region = inside.region.after(2)
    first = inside.region.head(1)[0]
    if first in (0x0F, 0x8F):
        inside.layer = Layer.CHDLC
        return
    n = 1 if first % 2 else 2
    number = int.from_bytes(inside.region.head(n), "big")
    known = {0x21: Layer.IPV4, 0x57: Layer.IPV6, 0x281: Layer.MPLS}
    if number not in known:
        wrapped = number in (0x2D, 0x2F, 0x31, 0x3D, 0x53, 0xFB, 0xFD)
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL if wrapped else FrameStatus.NOT_IP)
    inside.layer, inside.region = known[number], inside.region.after(n)


def pppoe(inside: Inside) -> None:
    version_type, code, session, _ = struct.unpack(">BBHH", inside.region.head(6))
    if version_type != 0x11:
        raise Stopped(FrameStatus.MALFORMED)
    if code != 0:
        raise Stopped(FrameStatus.NOT_IP)
    inside.note_session(Layer.PPPOE, session)
    inside.layer, inside.region = Layer.PPP, inside.region.after(6)


def chdlc(inside: Inside) -> None:
    (ethertype,) = struct.unpack(">2xH", inside.region.head(4))
    inside.layer, inside.region = r.layer_of(ethertype), inside.region.after(4)


def nflog(inside: Inside) -> None:
    family = inside.region.head(4)[0]
    if family not in (2, 10):
        raise Stopped(FrameStatus.NOT_IP)
    inside.region = inside.region.after(4)
    for _ in range(MAX_NFLOG_ATTRIBUTES):
        header = inside.region.head(4)
        length, kind = struct.unpack("<HH", header)
        if kind > 255:
            length, kind = struct.unpack(">HH", header)
        if length < 4:
            raise Stopped(FrameStatus.MALFORMED)
        if kind == 9:
            inside.layer = Layer.IPV4 if family == 2 else Layer.IPV6
            inside.region = inside.region.after(4)
            return
        inside.region = inside.region.after(length + -length % 4)
    raise Stopped(FrameStatus.TOO_DEEP)


# --- radio ---


def radiotap(inside: Inside) -> None:
    version, length, present = struct.unpack("<BxHI", inside.region.head(8))
    if version != 0 or length < 8:
        raise Stopped(FrameStatus.MALFORMED)
    header = inside.region.head(length)
    inside.region = inside.region.after(length)
    wifi(inside, padded=bool(radiotap_flags(header, present) & 0x20))


def radiotap_flags(header: bytes, present: int) -> int:
    if not present & 2:
        return 0
    words = [int.from_bytes(header[at : at + 4], "little") for at in range(4, len(header) - 3, 4)][:8]
    n = 0
    while n < len(words) and words[n] >> 31:
        n += 1
    # a word that is cut off, or one too many, ends the list as well
    at = 4 + 4 * min(n + 1, 8)
    if present & 1:
        at = (at + 7) // 8 * 8 + 8
    return header[at] if at < len(header) else 0


def wifi(inside: Inside, *, padded: bool = False) -> None:
    control, flags = inside.region.head(2)
    if control & 3:
        control, flags = flags, control
    if control & 3:
        raise Stopped(FrameStatus.MALFORMED)
    if control >> 2 & 3 != 2 or control & 0x40:
        raise Stopped(FrameStatus.NOT_IP)
    if flags & 0x40:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    ds, qos = flags & 3, bool(control & 0x80)
    length = (30 if ds == 3 else 24) + (2 if qos else 0)
    qos_at = length - 2
    if qos and flags & 0x80:
        length += 4
    if padded:
        length += -length % 4
    header = inside.region.head(length)
    if header[22] & 0x0F:
        raise Stopped(FrameStatus.FRAGMENT)
    destination, source = {0: (4, 10), 1: (16, 10), 2: (4, 16), 3: (16, 24)}[ds]
    inside.columns["dst_mac"] = int.from_bytes(header[destination : destination + 6], "big")
    inside.columns["src_mac"] = int.from_bytes(header[source : source + 6], "big")
    inside.region = inside.region.after(length)
    if qos and header[qos_at] & 0x80:
        inside.layer = Layer.AMSDU
        return
    ethertype, inside.region = r.decode_llc(inside.region)
    inside.layer = r.layer_of(ethertype)


# --- over IP ---


def gre(inside: Inside) -> None:
    flags, ethertype = struct.unpack(">HH", inside.region.head(4))
    version = flags & 7
    if version == 1 and ethertype == 0x880B:
        pptp(inside, flags)
        return
    if version != 0:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    has_checksum, has_route, has_key, has_sequence = (
        bool(flags & bit) for bit in (0x8000, 0x4000, 0x2000, 0x1000)
    )
    length = 4 + 4 * (has_checksum or has_route) + 4 * has_key + 4 * has_sequence
    header = inside.region.head(length)
    if has_key:
        at = 8 if has_checksum or has_route else 4
        inside.note_session(Layer.GRE, int.from_bytes(header[at : at + 4], "big"))
    inside.region = inside.region.after(length)
    if has_route:
        skip_route(inside)
    if ethertype == 0x88BE:
        inside.layer = Layer.ERSPAN_II if has_sequence else Layer.ERSPAN_I
    elif ethertype == 0x22EB:
        inside.layer = Layer.ERSPAN_III
    elif ethertype >> 8 == 0x82:
        inside.layer = Layer.WIFI
    else:
        inside.layer = r.layer_of(ethertype)


def skip_route(inside: Inside) -> None:
    for _ in range(MAX_ROUTE_ENTRIES):
        family, _, length = struct.unpack(">HBB", inside.region.head(4))
        inside.region = inside.region.after(4)
        if (family, length) == (0, 0):
            return
        inside.region.head(length)
        inside.region = inside.region.after(length)
    raise Stopped(FrameStatus.TOO_DEEP)


def pptp(inside: Inside, flags: int) -> None:
    length = 8 + 4 * bool(flags & 0x1000) + 4 * bool(flags & 0x80)
    header = inside.region.head(length)
    if not flags & 0x1000:
        raise Stopped(FrameStatus.OTHER)
    inside.note_session(Layer.GRE, int.from_bytes(header[6:8], "big"))
    inside.layer, inside.region = Layer.PPP, inside.region.after(length)


def note_mirror(inside: Inside, layer: Layer, header: bytes) -> None:
    vlan, session = struct.unpack(">HH", header[:4])
    inside.columns["vlan"] = vlan & 0xFFF or -1
    inside.note_session(layer, session & 0x3FF)


def erspan_ii(inside: Inside) -> None:
    header = inside.region.head(8)
    if header[0] >> 4 != 1:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    note_mirror(inside, Layer.ERSPAN_II, header)
    inside.layer, inside.region = Layer.ETHERNET, inside.region.after(8)


def erspan_iii(inside: Inside) -> None:
    header = inside.region.head(12)
    if header[0] >> 4 != 2:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    length = 20 if header[11] & 1 else 12
    inside.region.head(length)
    note_mirror(inside, Layer.ERSPAN_III, header)
    inside.region = inside.region.after(length)
    frame_type = header[10] >> 2 & 0x1F
    if frame_type == 0:
        inside.layer = Layer.ETHERNET
    elif frame_type == 2:
        inside.layer = by_version(inside.region.head(1)[0], FrameStatus.MALFORMED)
    else:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)


def etherip(inside: Inside) -> None:
    inside.region.head(2)
    inside.layer, inside.region = Layer.ETHERNET, inside.region.after(2)


def ipv4_in_ip(inside: Inside) -> None:
    inside.layer = Layer.IPV4


def ipv6_in_ip(inside: Inside) -> None:
    inside.layer = Layer.IPV6


# --- over UDP ---


def vxlan(inside: Inside) -> None:
    flags, following, vni, last = struct.unpack(">B2xB3sB", inside.region.datagram_head(8))
    if not flags & 8 or flags & 0x30 or last:
        raise Stopped(FrameStatus.OTHER)
    layer = Layer.ETHERNET
    if flags & 4:
        if following not in NEXT_PROTOCOLS or flags & 1:
            raise Stopped(FrameStatus.OTHER)
        layer = NEXT_PROTOCOLS[following]
    inside.note_session(Layer.VXLAN, int.from_bytes(vni, "big"))
    inside.layer, inside.region = layer, inside.region.after(8)


def geneve(inside: Inside) -> None:
    first, second, ethertype, vni, last = struct.unpack(">BBH3sB", inside.region.datagram_head(8))
    if first >> 6 or second & 0x3F or last:
        raise Stopped(FrameStatus.OTHER)
    length = 8 + 4 * (first & 0x3F)
    inside.region.datagram_head(length)
    if ethertype not in r.ETHERTYPES:
        raise Stopped(FrameStatus.OTHER)
    inside.note_session(Layer.GENEVE, int.from_bytes(vni, "big"))
    inside.layer, inside.region = r.ETHERTYPES[ethertype], inside.region.after(length)


def gtp_u(inside: Inside) -> None:
    flags, kind, _, teid = struct.unpack(">BBHI", inside.region.datagram_head(8))
    if flags >> 4 != 3 or kind != 255:
        raise Stopped(FrameStatus.OTHER)
    inside.note_session(Layer.GTP_U, teid)
    inside.region = inside.region.after(8)
    following = 0
    if flags & 7:
        optional = inside.region.datagram_head(4)
        following = optional[3] if flags & 4 else 0
        inside.region = inside.region.after(4)
    n = 0
    while following:
        if n == MAX_GTP_EXTENSIONS:
            raise Stopped(FrameStatus.TOO_DEEP)
        length = 4 * inside.region.datagram_head(1)[0]
        if length == 0:
            raise Stopped(FrameStatus.OTHER)
        following = inside.region.datagram_head(length)[-1]
        inside.region = inside.region.after(length)
        n += 1
    inside.layer = by_version(inside.region.datagram_head(1)[0], FrameStatus.OTHER)


def teredo(inside: Inside) -> None:
    if inside.region.datagram_head(2) == b"\x00\x01":
        _, id_len, value_len = struct.unpack(">HBB", inside.region.datagram_head(4))
        inside.region.datagram_head(13 + id_len + value_len)
        inside.region = inside.region.after(13 + id_len + value_len)
    if inside.region.datagram_head(2) == b"\x00\x00":
        inside.region.datagram_head(8)
        inside.region = inside.region.after(8)
    header = inside.region.datagram_head(40)
    fits = 40 + int.from_bytes(header[4:6], "big") <= inside.region.wire_len
    if header[0] >> 4 != 6 or not fits:
        raise Stopped(FrameStatus.OTHER)
    inside.layer = Layer.IPV6


def l2tp(inside: Inside) -> None:
    (flags,) = struct.unpack(">H", inside.region.datagram_head(2))
    if flags & 0x8000:
        raise Stopped(FrameStatus.OTHER)
    if flags & 0x0F == 3 and not flags & 0x7FF0:
        inside.region = inside.region.after(4)
        l2tpv3(inside)
        return
    if flags & 0x0F != 2 or flags & 0x34F0:
        raise Stopped(FrameStatus.OTHER)
    ids = 4 if flags & 0x4000 else 2
    length = ids + 4 + 4 * bool(flags & 0x0800)
    if flags & 0x0200:
        length += 2 + int.from_bytes(inside.region.datagram_head(length + 2)[-2:], "big")
    header = inside.region.datagram_head(length)
    inside.note_session(Layer.L2TP, int.from_bytes(header[ids : ids + 4], "big"))
    inside.layer, inside.region = Layer.PPP, inside.region.after(length)


def l2tpv3(inside: Inside) -> None:
    session = int.from_bytes(inside.region.datagram_head(4), "big")
    if session == 0:
        raise Stopped(FrameStatus.OTHER)
    inside.note_session(Layer.L2TPV3, session)
    inside.region = inside.region.after(4)
    look(inside.region, 28)
    for offset in (0, 4, 8, 12):
        if looks_like_ethernet(inside.region.captured[offset:]):
            inside.layer, inside.region = Layer.ETHERNET, inside.region.after(offset)
            return
    raise Stopped(FrameStatus.UNKNOWN_TUNNEL)


def capwap(inside: Inside) -> None:
    preamble = inside.region.datagram_head(1)[0]
    if preamble:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL if preamble == 1 else FrameStatus.OTHER)
    bits = int.from_bytes(inside.region.datagram_head(8)[:4], "big")
    length, binding = 4 * (bits >> 19), bits >> 9 & 0x1F
    if length < 8 or bits & 8:
        raise Stopped(FrameStatus.OTHER)
    if bits & 0x80:
        raise Stopped(FrameStatus.FRAGMENT)
    inside.region.datagram_head(length)
    is_native = bool(bits & 0x100)
    if is_native and binding != 1:
        raise Stopped(FrameStatus.UNKNOWN_TUNNEL)
    inside.layer = Layer.WIFI if is_native else Layer.ETHERNET
    inside.region = inside.region.after(length)


def tzsp(inside: Inside) -> None:
    version, kind, protocol = struct.unpack(">BBH", inside.region.datagram_head(4))
    if version != 1 or kind > 1 or protocol not in (1, 18):
        raise Stopped(FrameStatus.OTHER)
    inside.region = inside.region.after(4)
    for _ in range(MAX_TZSP_TAGS):
        tag = inside.region.datagram_head(1)[0]
        n = 1
        if tag > 1:
            n = 2 + inside.region.datagram_head(2)[1]
            inside.region.datagram_head(n)
        inside.region = inside.region.after(n)
        if tag == 1:
            inside.layer = Layer.ETHERNET if protocol == 1 else Layer.WIFI
            return
    raise Stopped(FrameStatus.TOO_DEEP)


def gre_in_udp(inside: Inside) -> None:
    (flags,) = struct.unpack(">H2x", inside.region.datagram_head(4))
    if flags & 0x4FFF:
        raise Stopped(FrameStatus.OTHER)
    inside.layer = Layer.GRE


PEEL = {
    Layer.ETHERNET: ethernet,
    Layer.MPLS: mpls,
    Layer.VNTAG: vntag,
    Layer.ETAG: etag,
    Layer.PBB: pbb,
    Layer.FABRICPATH: fabricpath,
    Layer.NSH: nsh,
    Layer.PPP: ppp,
    Layer.PPPOE: pppoe,
    Layer.CHDLC: chdlc,
    Layer.RADIOTAP: radiotap,
    Layer.WIFI: wifi,
    Layer.AMSDU: ethernet,
    Layer.NFLOG: nflog,
    Layer.IPV4_IN_IP: ipv4_in_ip,
    Layer.IPV6_IN_IP: ipv6_in_ip,
    Layer.GRE: gre,
    Layer.ERSPAN_I: ethernet,
    Layer.ERSPAN_II: erspan_ii,
    Layer.ERSPAN_III: erspan_iii,
    Layer.ETHERIP: etherip,
    Layer.L2TPV3: l2tpv3,
    Layer.VXLAN: vxlan,
    Layer.GENEVE: geneve,
    Layer.GTP_U: gtp_u,
    Layer.TEREDO: teredo,
    Layer.L2TP: l2tp,
    Layer.CAPWAP: capwap,
    Layer.TZSP: tzsp,
    Layer.GRE_IN_UDP: gre_in_udp,
}
