"""Peeled layers, one rule at a time; test_packets.py holds the kernel to the reference on whatever is generated."""

from __future__ import annotations

from collections import Counter

import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.contrib.nsh import NSH
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding, TZSPTagRawRSSIByte
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.l2tp import L2TP
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from sensor.capture.frames import LinkType
from sensor.decode.layers import NETWORK_LAYERS, Layer, session_text
from sensor.decode.peel import MAX_LAYERS
from sensor.decode.shims import MAX_MPLS_LABELS
from sensor.decode.status import FrameStatus
from tests import builders as b
from tests import builders_tunnels as bt
from tests import reference
from tests.captures import CAPTURES, read_pcap
from tests.test_packets import decode_one, needs_captures, packet_of, payload_of, status_of

MAIL = b.ipv4(b.TCP, b.tcp(b"QUIT\r\n"))
MAIL6 = b.ipv6(b.TCP, b.tcp(b"QUIT\r\n"))
ETHER_MACS = (b.SRC_MAC, b.DST_MAC)
INNER_MACS = (bt.INNER_SRC_MAC, bt.INNER_DST_MAC)
NO_MACS = (-1, -1)

#: Stations, VLAN and session of the packet in each stack.
EXPECTED = {
    "mpls": (NO_MACS, -1, None),
    "mpls explicit null": (NO_MACS, -1, None),
    "mpls pseudo-wire": (INNER_MACS, -1, None),
    "mpls pseudo-wire with control word": (INNER_MACS, -1, None),
    "pppoe": (ETHER_MACS, -1, "pppoe 4660"),
    "pppoe in qinq": (ETHER_MACS, 7, "pppoe 4660"),
    "vntag": (ETHER_MACS, 21, None),
    "etag": (ETHER_MACS, 22, None),
    "pbb": (INNER_MACS, -1, "pbb 1193046"),
    "fabricpath": (INNER_MACS, -1, None),
    "nsh": (NO_MACS, -1, None),
    "nsh with a frame": (INNER_MACS, -1, None),
    "ipv4 in ipv4": (NO_MACS, -1, None),
    "ipv4 in ipv6": (NO_MACS, -1, None),
    "gre": (NO_MACS, -1, None),
    "gre with all fields": (NO_MACS, -1, "gre 7"),
    "nvgre": (INNER_MACS, -1, f"gre {0x123400}"),
    "gre with ppp (pptp)": (NO_MACS, -1, "gre 77"),
    "gre in udp": (NO_MACS, -1, "gre 1"),
    "gre of aruba with 802.11": (ETHER_MACS, -1, None),
    "erspan i": (INNER_MACS, -1, None),
    "erspan ii": (INNER_MACS, 31, "erspan_ii 5"),
    "erspan iii": (INNER_MACS, 32, "erspan_iii 5"),
    "erspan iii with sub-header": (INNER_MACS, -1, "erspan_iii 5"),
    "erspan iii with a packet": (NO_MACS, -1, "erspan_iii 5"),
    "etherip": (INNER_MACS, -1, None),
    "l2tpv3": (INNER_MACS, -1, "l2tpv3 9"),
    "vxlan": (INNER_MACS, -1, f"vxlan {0xABCDEF}"),
    "vxlan-gpe": (NO_MACS, -1, f"vxlan {0xABCDEF}"),
    "geneve": (INNER_MACS, -1, f"geneve {0xBEEF}"),
    "geneve with options": (NO_MACS, -1, f"geneve {0xBEEF}"),
    "gtp-u": (NO_MACS, -1, f"gtp_u {0xF0000001}"),
    "gtp-u with extensions": (NO_MACS, -1, f"gtp_u {0xF0000001}"),
    "teredo": (NO_MACS, -1, None),
    "teredo with authentication and origin": (NO_MACS, -1, None),
    "l2tpv2": (NO_MACS, -1, f"l2tp {3 << 16 | 4}"),
    "l2tpv3 in udp": (INNER_MACS, -1, "l2tpv3 9"),
    "capwap 802.3": (INNER_MACS, -1, None),
    "capwap 802.11": (ETHER_MACS, -1, None),
    "tzsp": (INNER_MACS, -1, None),
    "tzsp 802.11": (ETHER_MACS, -1, None),
    "ppp": (NO_MACS, -1, None),
    "ppp hdlc": (NO_MACS, -1, None),
    "ppp ether": (NO_MACS, -1, "pppoe 4660"),
    "cisco hdlc": (NO_MACS, -1, None),
    "802.11": (ETHER_MACS, -1, None),
    "802.11 qos": (ETHER_MACS, -1, None),
    "802.11 a-msdu": (ETHER_MACS, -1, None),
    "radiotap": (ETHER_MACS, -1, None),
    "radiotap in a cooked header": (ETHER_MACS, -1, None),
    "nflog": (NO_MACS, -1, None),
}


@pytest.mark.parametrize("name", bt.STACKS)
def test_what_is_inside(name):
    link_type, frame = bt.STACKS[name](MAIL)
    packet = packet_of(frame, link_type=link_type)
    assert payload_of(frame, link_type=link_type) == b"QUIT\r\n"
    assert (packet.src_port, packet.dst_port) == (40000, 25)
    found = (packet.src_mac, packet.dst_mac), packet.vlan, session_text(packet.session)
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", bt.STACKS)
def test_each_byte_that_is_missing_is_told(name):
    """Cut anywhere, a healthy stack is TRUNCATED until all of the TCP header is there."""
    link_type, frame = bt.STACKS[name](MAIL)
    header_end = packet_of(frame, link_type=link_type).payload_start
    for n in range(len(frame)):
        cut = decode_one(frame[:n], wire_len=len(frame), link_type=link_type)
        assert cut.status == (FrameStatus.TRUNCATED if n < header_end else FrameStatus.MAIL), n
        assert cut == reference.decode(frame[:n], wire_len=len(frame), link_type=link_type)


@pytest.mark.parametrize("name", bt.STACKS)
def test_neighbours_do_not_matter(name):
    link_type, frame = bt.STACKS[name](MAIL)
    for n in (len(frame), len(frame) // 2, 20):
        views = [
            decode_one(frame[:n], wire_len=len(frame), link_type=link_type, gap=gap)
            for gap in (b"", bytes(64), b"\xff" * 64, bytes(range(64)))
        ]
        assert views.count(views[0]) == len(views)


def layers_of(frame: bytes, link_type: int = LinkType.ETHERNET) -> set[Layer]:
    return set(decode_one(frame, link_type=link_type).peeled)


def test_every_layer_has_a_stack():
    peeled = layers_of(bt.over_ip(41, MAIL6))
    for wrap in bt.STACKS.values():
        link_type, frame = wrap(MAIL)
        peeled |= layers_of(frame, link_type)
    assert peeled == set(Layer) - {Layer.NONE, *NETWORK_LAYERS}
    assert set(EXPECTED) == set(bt.STACKS)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize(("proto", "packet"), [(4, MAIL), (41, MAIL6)])
def test_ip_in_ip_in_all_four_mixes(outer, proto, packet):
    frame = bt.over_ip(proto, packet, outer)
    assert payload_of(frame) == b"QUIT\r\n"
    assert (packet_of(frame).src_mac, packet_of(frame).vlan) == (-1, -1)


def test_the_tunnel_s_vlan_is_not_the_packet_s():
    outer = b.ipv4(b.UDP, b.udp(bt.vxlan(bt.inner_frame(MAIL)), dst_port=4789))
    assert packet_of(b.ether(b.VLAN, b.tagged(b.IPV4, outer, 100))).vlan == -1
    tagged = b.ether(b.VLAN, b.tagged(b.IPV4, MAIL, 9))
    outer = b.ipv4(b.UDP, b.udp(bt.vxlan(tagged), dst_port=4789))
    assert packet_of(b.ether(b.VLAN, b.tagged(b.IPV4, outer, 100))).vlan == 9
    in_erspan = bt.erspan_ii(tagged, vlan=31)
    assert packet_of(bt.over_ip(47, bt.gre(bt.ERSPAN, in_erspan, sequence=0))).vlan == 9


def test_the_innermost_session_is_kept():
    in_vxlan = bt.over_udp(4789, bt.vxlan(bt.inner_frame(MAIL), vni=42))
    frame = bt.over_ip(47, bt.gre(bt.ERSPAN, bt.erspan_ii(in_vxlan, session=7), sequence=0))
    assert session_text(packet_of(frame).session) == "vxlan 42"


@pytest.mark.parametrize("port", [4789, 8472, 4790, 6081, 2152, 3544, 1701, 5247, 37008, 4754])
class TestPorts:
    """A tunnel's port makes no tunnel by itself."""

    def test_dns_stays_dns(self, port):
        for ports in ({"src_port": 53, "dst_port": port}, {"src_port": port, "dst_port": 53}):
            message = b"\x08\0\0\0\0\0\x01\0" + bytes(40)
            assert status_of(b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(message, **ports)))) == FrameStatus.DNS

    def test_dhcp_stays_dhcp(self, port):
        assert status_of(bt.over_udp(port, bytes(40), src_port=67)) == FrameStatus.LAN

    @pytest.mark.parametrize("payload", [b"", b"\x17", b"\xff" * 60, b"GET / HTTP/1.1\r\n"])
    def test_what_makes_no_sense_is_no_tunnel(self, port, payload):
        assert status_of(bt.over_udp(port, payload)) == FrameStatus.OTHER

    def test_tcp_is_no_tunnel(self, port):
        segment = b.tcp(bt.vxlan(bt.inner_frame(MAIL)), dst_port=port)
        assert status_of(bt.over_ip(b.TCP, segment)) == FrameStatus.OTHER


@pytest.mark.parametrize(
    ("payload", "port", "status"),
    [
        (bt.l2tp(b"", control=True), bt.L2TP_PORT, FrameStatus.OTHER),
        (bt.gtp_u(MAIL, kind=1), bt.GTP_PORT, FrameStatus.OTHER),  # an echo request
        (bt.gtp_u(MAIL, version=2), bt.GTP_PORT, FrameStatus.OTHER),
        (bt.capwap(bt.inner_frame(MAIL), fragment=True), bt.CAPWAP_PORT, FrameStatus.FRAGMENT),
        (bt.capwap(b"", keep_alive=True), bt.CAPWAP_PORT, FrameStatus.OTHER),
        (bt.capwap(b"", preamble=1), bt.CAPWAP_PORT, FrameStatus.UNKNOWN_TUNNEL),  # DTLS
        (bt.capwap(bt.wifi(b.IPV4, MAIL, swapped=True), native=True), bt.CAPWAP_PORT, FrameStatus.MAIL),
        (
            bt.capwap(bt.wifi(b.IPV4, MAIL, protected=True), native=True),
            bt.CAPWAP_PORT,
            FrameStatus.UNKNOWN_TUNNEL,
        ),
        (bt.tzsp(b"", kind=4), bt.TZSP_PORT, FrameStatus.OTHER),  # keep-alive
        (bt.tzsp(bt.inner_frame(MAIL), tags=b""), bt.TZSP_PORT, FrameStatus.MAIL),
        (bt.tzsp(bt.inner_frame(MAIL), tags=bytes(40)), bt.TZSP_PORT, FrameStatus.TOO_DEEP),
        (bt.vxlan(MAIL, flags=0x0D, next_protocol=1), bt.VXLAN_GPE_PORT, FrameStatus.OTHER),  # OAM
        (bt.vxlan(bt.nsh(1, MAIL), flags=0x0C, next_protocol=4), bt.VXLAN_GPE_PORT, FrameStatus.MAIL),
        (bt.teredo(b.ipv6(59, b"")), bt.TEREDO_PORT, FrameStatus.OTHER),  # a bubble
        (bt.gtp_u(MAIL, extensions=[1] * 9), bt.GTP_PORT, FrameStatus.TOO_DEEP),
    ],
)
def test_datagrams_of_a_tunnel(payload, port, status):
    assert status_of(bt.over_udp(port, payload)) == status


@pytest.mark.parametrize("port", [bt.GTP_PORT, bt.TEREDO_PORT, bt.L2TP_PORT, bt.CAPWAP_PORT])
def test_some_answer_from_their_port(port):
    payload = {
        bt.GTP_PORT: bt.gtp_u(MAIL),
        bt.TEREDO_PORT: bt.teredo(MAIL6),
        bt.L2TP_PORT: bt.l2tp(bt.ppp(bt.PPP_IPV4, MAIL)),
        bt.CAPWAP_PORT: bt.capwap(bt.inner_frame(MAIL)),
    }[port]
    assert status_of(bt.over_udp(50001, payload, src_port=port)) == FrameStatus.MAIL


def test_layers_up_to_the_bound():
    packet, statuses = MAIL, []
    for _ in range(MAX_LAYERS):
        packet = b.ipv4(4, packet)
        statuses.append(status_of(b.ether(b.IPV4, packet)))
    deepest = MAX_LAYERS // 2  # two layers for each: what is in IP, and the IP header itself
    assert statuses == [FrameStatus.MAIL] * deepest + [FrameStatus.TOO_DEEP] * (MAX_LAYERS - deepest)


def test_labels_up_to_the_bound():
    frame = b.ether(bt.MPLS, bt.mpls(MAIL, *range(3, 3 + MAX_MPLS_LABELS)))
    assert status_of(frame) == FrameStatus.MAIL
    frame = b.ether(bt.MPLS, bt.mpls(MAIL, *range(3, 4 + MAX_MPLS_LABELS)))
    assert status_of(frame) == FrameStatus.TOO_DEEP


@pytest.mark.parametrize("first", [0x44, 0x02, 0x68])
def test_a_pseudo_wire_s_frame_may_begin_like_ip(first):
    """An address of 44:..., as a big maker of cameras has, is no IPv4; 60 to 6f cannot be told from IPv6."""
    frame = b.ether(b.IPV4, MAIL, dst=first << 40)
    status = status_of(b.ether(bt.MPLS, bt.mpls(frame, 100)))
    assert status == (FrameStatus.MAIL if first >> 4 != 6 else status)
    assert status_of(b.ether(bt.MPLS, bt.mpls(bt.control_word(frame), 100))) == FrameStatus.MAIL


def test_first_fragments_are_used_and_the_rest_counted():
    datagram = b.udp(bt.vxlan(bt.inner_frame(b.ipv4(b.TCP, b.tcp(bytes(1400))))), dst_port=4789)
    first = b.ether(b.IPV4, b.ipv4(b.UDP, datagram[:800], more_fragments=True))
    assert (packet_of(first).payload_len, len(payload_of(first))) == (1400, 800 - 8 - 8 - 14 - 40)
    rest = b.ether(b.IPV4, b.ipv4(b.UDP, datagram[800:], fragment_offset=100))
    assert status_of(rest) == FrameStatus.FRAGMENT
    rest6 = b.ether(b.IPV6, b.ipv6(b.IPV6_FRAG, b.fragment(b.UDP, datagram[800:], offset=100)))
    assert status_of(rest6) == FrameStatus.FRAGMENT


@pytest.mark.parametrize("size", [8_000, 40_000])
def test_frames_larger_than_any_mtu(size):
    inside = bt.inner_frame(b.ipv4(b.TCP, b.tcp(bytes(size)), total_len=0))
    frame = b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(bt.vxlan(inside), dst_port=4789), total_len=0))
    assert len(payload_of(frame)) == size
    assert packet_of(frame).payload_len == size


def test_the_first_frame_of_an_aggregate_is_decoded():
    frames = [
        b.ether(len(packet) + 8, b.snap(b.IPV4, packet)) for packet in (MAIL, b.ipv4(b.TCP, b.tcp(b"RSET")))
    ]
    radio = bt.wifi(0, b"", qos=True, amsdu=frames)
    assert payload_of(radio, link_type=LinkType.IEEE802_11) == b"QUIT\r\n"


@pytest.mark.parametrize("order", "<>")
def test_nflog_of_either_byte_order_and_version(order):
    for packet, family in ((MAIL, 2), (MAIL6, 10)):
        frame = bt.nflog(packet, family=family, order=order, others=5)
        assert payload_of(frame, link_type=LinkType.NFLOG) == b"QUIT\r\n"
    assert status_of(bt.nflog(MAIL, family=7), LinkType.NFLOG) == FrameStatus.NOT_IP
    assert status_of(bt.nflog(MAIL, length=3, order=order), LinkType.NFLOG) == FrameStatus.MALFORMED


# --- built by scapy, which has read the specifications for itself ---

SCAPY_MAIL = (
    IP(src="192.0.2.1", dst="198.51.100.2") / TCP(sport=40000, dport=25, flags="PA") / Raw(b"QUIT\r\n")
)
SCAPY_INNER = Ether(src="02:11:11:11:11:11", dst="02:22:22:22:22:22") / SCAPY_MAIL
TUNNEL_IP = IP(src="203.0.113.1", dst="203.0.113.2")


def scapy_stacks() -> dict[str, tuple[Packet, str | None]]:
    """Stacks and what session they show. TZSP has no public capture, so these stand for it."""
    outer = Ether() / TUNNEL_IP
    udp = outer / UDP(sport=50000, dport=4789)
    return {
        "vxlan": (udp / VXLAN(flags=8, vni=7) / SCAPY_INNER, "vxlan 7"),
        "geneve": (
            outer
            / UDP(sport=50000, dport=6081)
            / GENEVE(proto=0x6558, vni=8, options=[GeneveOptions(data=b"abcd")])
            / SCAPY_INNER,
            "geneve 8",
        ),
        "gtp-u": (
            outer / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=9, seq=1, S=1, gtp_type=255) / SCAPY_MAIL,
            "gtp_u 9",
        ),
        "gre": (outer / GRE(key_present=1, key=5, seqnum_present=1, chksum_present=1) / SCAPY_MAIL, "gre 5"),
        "erspan ii": (
            outer / GRE(seqnum_present=1) / ERSPAN_II(session_id=4, vlan=3) / SCAPY_INNER,
            "erspan_ii 4",
        ),
        "erspan iii": (
            outer / GRE(seqnum_present=1) / ERSPAN_III(session_id=4, vlan=3) / SCAPY_INNER,
            "erspan_iii 4",
        ),
        "mpls": (Ether() / MPLS(label=100, s=0) / MPLS(label=200, s=1) / SCAPY_MAIL, None),
        "pppoe": (Ether() / PPPoE(sessionid=6) / PPP() / SCAPY_MAIL, "pppoe 6"),
        "l2tp": (
            outer
            / UDP(sport=1701, dport=1701)
            / L2TP(hdr=["length"], tunnel_id=1, session_id=2)
            / PPP()
            / SCAPY_MAIL,
            f"l2tp {1 << 16 | 2}",
        ),
        "tzsp": (
            outer
            / UDP(sport=50000, dport=37008)
            / TZSP()
            / TZSPTagRawRSSIByte()
            / TZSPTagPadding()
            / TZSPTagEnd()
            / SCAPY_INNER,
            None,
        ),
        "nsh": (Ether() / NSH() / SCAPY_MAIL, None),
        "qinq": (Ether(type=0x88A8) / Dot1Q(vlan=4, type=0x8100) / Dot1Q(vlan=3) / SCAPY_MAIL, None),
    }


@pytest.mark.parametrize("name", scapy_stacks())
def test_what_scapy_builds(name):
    stack, session = scapy_stacks()[name]
    frame = bytes(stack)
    packet = packet_of(frame)
    assert payload_of(frame) == b"QUIT\r\n"
    assert session_text(packet.session) == session
    if name.startswith(("erspan", "qinq")):
        assert packet.vlan == 3
    assert decode_one(frame) == reference.decode(frame)


# --- real captures: which layers are peeled in how many frames, and what becomes of those ---

REAL = {
    "arkime__80211http.pcap": (Layer.RADIOTAP,),
    "arkime__gre-erspan-vxlan.pcap": (Layer.GRE, Layer.ERSPAN_II, Layer.VXLAN),
    "arkime__nflog.pcap": (Layer.NFLOG,),
    "suricata-verify__decode-chdlc-01__hdlc-http_1tx.pcap": (Layer.CHDLC,),
    "suricata-verify__decode-dce__input.pcap": (Layer.FABRICPATH,),
    "suricata-verify__decode-erspan-typeI-02__input.pcap": (Layer.ERSPAN_I,),
    "suricata-verify__decode-etag-02__input.pcap": (Layer.ETAG,),
    "suricata-verify__decode-nsh-type1__input.pcap": (Layer.NSH,),
    "zeek__4in4.pcap": (Layer.IPV4_IN_IP,),
    "zeek__4in6.pcap": (Layer.IPV4_IN_IP,),
    "zeek__6in4.pcap": (Layer.IPV6_IN_IP,),
    "zeek__6in6.pcap": (Layer.IPV6_IN_IP,),
    "zeek__Teredo.pcap": (Layer.TEREDO,),
    "zeek__cisco-fabric-path.pcap": (Layer.FABRICPATH,),
    "zeek__erspanI.pcap": (Layer.ERSPAN_I,),
    "zeek__erspanII.pcap": (Layer.ERSPAN_II,),
    "zeek__erspanIII.pcap": (Layer.ERSPAN_III,),
    "zeek__geneve-many-options.pcap": (Layer.GENEVE,),
    "zeek__gre-aruba.pcap": (Layer.GRE, Layer.WIFI),
    "zeek__gre-over-udp-4754.pcap": (Layer.GRE_IN_UDP, Layer.GRE),
    "zeek__gre-pptp.pcap": (Layer.GRE, Layer.PPP),
    "zeek__gre-sample.pcap": (Layer.GRE,),
    "zeek__gtp_ext_header.pcap": (Layer.GTP_U,),
    "zeek__mixed-vlan-mpls.pcap": (Layer.MPLS,),
    "zeek__pbb.pcap": (Layer.PBB,),
    "zeek__pppoe-over-qinq.pcap": (Layer.PPPOE, Layer.PPP),
    "zeek__radiotap.pcap": (Layer.RADIOTAP,),
    "zeek__vntag.pcap": (Layer.VNTAG,),
    "zeek__vxlan-triple-v2.pcap": (Layer.VXLAN, Layer.ETHERNET),
}


@needs_captures
@pytest.mark.parametrize("name", REAL)
def test_real_captures(name):
    peeled: Counter[Layer] = Counter()
    reached = 0
    for frame in read_pcap(CAPTURES / "encapsulated" / name):
        decoded = decode_one(frame.data, wire_len=frame.wire_len, link_type=frame.link_type)
        peeled.update(decoded.peeled)
        reached += decoded.status in (FrameStatus.MAIL, FrameStatus.DNS, FrameStatus.LAN, FrameStatus.OTHER)
    assert set(REAL[name]) <= set(peeled)
    assert reached > 0
