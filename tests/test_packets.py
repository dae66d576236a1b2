"""Header decoding: the kernel computes what tests/reference.py says, whatever and wherever the bytes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import asdict, replace
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.capture.frames import FrameBatch, LinkType
from sensor.decode.ip import MAX_IPV6_EXTENSIONS
from sensor.decode.layers import N_LAYERS, Layer
from sensor.decode.link import MAX_VLAN_TAGS
from sensor.decode.packets import N_PORTS, PACKET_DTYPE, PortClass, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES, N_WEIRDS, FrameStatus, Weird
from sensor.decode.udp_tunnels import TUNNEL_PORTS
from sensor.decode.watch import WATCH_NS, new_watch
from sensor.jit import JIT_DISABLED
from tests import builders as b
from tests import builders_tunnels as bt
from tests import reference
from tests.captures import CAPTURES, RawFrame, is_pcap, read_pcap

if TYPE_CHECKING:
    from pathlib import Path

PORT_CLASS = port_classes(reference.MAIL_PORTS)
ROW_STATUSES = (FrameStatus.MAIL, FrameStatus.DNS, FrameStatus.LAN, FrameStatus.PEER)
POSITIONS = ("payload_start", "payload_end")
IMPOSSIBLE = Weird.IP_CHECKSUM_IMPOSSIBLE_LENGTH


class Counted:
    """What the kernel made of a batch, drained in pieces of ``n_out`` rows."""

    def __init__(self, batch: FrameBatch, n_out: int | None = None) -> None:
        self.status_counts = np.zeros(N_FRAME_STATUSES, dtype=np.int64)
        self.peeled = np.zeros(N_LAYERS, dtype=np.int64)
        self.weirds = np.zeros(N_WEIRDS, dtype=np.int64)
        self.watch = new_watch()
        packets = np.zeros(n_out or len(batch.frames) + 1, dtype=PACKET_DTYPE)
        packets["frame"] = -7
        pieces, frame = [], 0
        while frame < len(batch.frames):
            n_packets, resume = decode_batch(
                batch.data,
                batch.frames,
                frame,
                PORT_CLASS,
                self.watch,
                packets,
                self.status_counts,
                self.peeled,
                self.weirds,
            )
            assert resume > frame
            assert self.status_counts.sum() == resume
            assert resume == len(batch.frames) or n_packets == len(packets)
            pieces.append(packets[:n_packets].copy())
            frame = resume
        self.packets = np.concatenate(pieces) if pieces else packets[:0]


def decode_one(
    frame: bytes, *, wire_len: int | None = None, link_type: int = LinkType.ETHERNET, gap: bytes = b""
) -> reference.Decoded:
    """Return the kernel's view of one frame in the reference's terms."""
    batch = b.batch(
        [frame], link_type=link_type, wire_lens=[len(frame) if wire_len is None else wire_len], gap=gap
    )
    counted = Counted(batch)
    (status,) = np.flatnonzero(counted.status_counts)
    assert counted.weirds.sum() == counted.weirds[IMPOSSIBLE]
    packet = None
    if len(counted.packets):
        row = {name: int(counted.packets[0][name]) for name in PACKET_DTYPE.names}
        assert (row.pop("frame"), row.pop("ts_ns")) == (0, batch.frames[0]["ts_ns"])
        for name in POSITIONS:
            row[name] -= len(gap)
        is_syn = row["proto"] == b.TCP and row["tcp_flags"] & (b.SYN | b.ACK) == b.SYN
        assert row.pop("fingerprint") == 0 or is_syn  # of a SYN whose options are cut off nothing can be told
        packet = reference.Packet(**row)
    peeled = tuple(layer for layer in Layer for _ in range(counted.peeled[layer]))
    return reference.Decoded(FrameStatus(status), packet, int(counted.weirds[IMPOSSIBLE]), peeled)


def status_of(frame: bytes, link_type: int = LinkType.ETHERNET) -> FrameStatus:
    return decode_one(frame, link_type=link_type).status


def packet_of(
    frame: bytes, *, wire_len: int | None = None, link_type: int = LinkType.ETHERNET
) -> reference.Packet:
    packet = decode_one(frame, wire_len=wire_len, link_type=link_type).packet
    assert packet is not None
    return packet


def payload_of(frame: bytes, **where: int) -> bytes:
    packet = packet_of(frame, **where)
    return frame[packet.payload_start : packet.payload_end]


def over_ip4(payload: bytes, **fields: int) -> bytes:
    return b.ether(b.IPV4, b.ipv4(b.TCP, payload, **fields))


def over_ip6(proto: int, payload: bytes, **fields: int) -> bytes:
    return b.ether(b.IPV6, b.ipv6(proto, payload, **fields))


# --- frames of every shape, right and wrong ---

PORTS = st.sampled_from(
    [25, 465, 587, 2525, 53, 67, 68, 547, 1900, 5353, 137, 80, 8080, 443, 0, 65535, 40000]
)
PAYLOADS = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"GET / HTTP/1.1\r\n", b"POST", b"HEAD /", b"PUT /", b"GET"])
)


def rarely(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """A value in one case of eight, else None: what a builder fills in right."""
    return st.integers(0, 7).flatmap(lambda dice: strategy if dice == 0 else st.none())


@st.composite
def transports(draw: st.DrawFn) -> tuple[int, bytes]:
    payload, src_port, dst_port = draw(PAYLOADS), draw(PORTS), draw(PORTS)
    kind = draw(st.sampled_from(["tcp", "tcp", "udp", "udp", "other"]))
    if kind == "tcp":
        segment = b.tcp(
            payload,
            src_port=src_port,
            dst_port=dst_port,
            seq=draw(st.integers(0, 2**32 - 1)),
            ack=draw(st.integers(0, 2**32 - 1)),
            flags=draw(st.integers(0, 255)),
            options=bytes(4 * draw(st.integers(0, 10))),
            data_offset=draw(rarely(st.integers(0, 15))),
        )
        return b.TCP, segment
    if kind == "udp":
        length = draw(rarely(st.integers(0, 60)))
        return b.UDP, b.udp(payload, src_port=src_port, dst_port=dst_port, length=length)
    if draw(st.integers(0, 2)) == 0:
        return b.ICMPV6, bytes([draw(st.integers(131, 138))]) + payload
    return draw(st.integers(0, 255)), payload


@st.composite
def ipv4_packets(draw: st.DrawFn) -> tuple[int, bytes]:
    proto, payload = draw(transports())
    packet = b.ipv4(
        proto,
        payload,
        options=bytes(4 * draw(st.integers(0, 10))),
        version=draw(rarely(st.integers(0, 15))) or 4,
        ihl=draw(rarely(st.integers(0, 15))),
        total_len=draw(rarely(st.integers(0, 120))),
        more_fragments=draw(st.booleans()),
        fragment_offset=draw(rarely(st.integers(0, 0x1FFF))) or 0,
    )
    return b.IPV4, packet


@st.composite
def ipv6_packets(draw: st.DrawFn) -> tuple[int, bytes]:
    proto, payload = draw(transports())
    for kind in draw(
        st.lists(st.sampled_from([0, 43, 44, 51, 60, 135, 139, 140]), max_size=MAX_IPV6_EXTENSIONS + 2)
    ):
        if kind == b.IPV6_FRAG:
            payload = b.fragment(proto, payload, offset=draw(rarely(st.integers(0, 0x1FFF))) or 0)
        elif kind == b.AH:
            payload = b.auth_header(proto, payload, words=draw(st.integers(0, 6)))
        else:
            payload = b.extension(proto, payload, units=draw(st.integers(0, 3)))
        proto = kind
    length = draw(rarely(st.integers(0, 160)))
    version = draw(rarely(st.integers(0, 15))) or 6
    return b.IPV6, b.ipv6(
        proto, payload, version=version, payload_len=length, hop_limit=draw(st.sampled_from([64, 255]))
    )


@st.composite
def tunnels(draw: st.DrawFn, ethertype: int, payload: bytes) -> tuple[int, bytes]:
    """Wrap a packet once: what goes behind another EtherType. Some fields are wrong in some cases."""
    flag, small = st.booleans(), st.integers(0, 3)
    frame = b.ether(
        ethertype, payload, src=bt.INNER_SRC_MAC, dst=draw(st.sampled_from([0x0A, 0x45, 0x61, 0])) << 40
    )
    if draw(flag):
        frame = b.ether(b.VLAN, b.tagged(ethertype, payload, draw(st.integers(0, 4095))))
    number = {b.IPV4: bt.PPP_IPV4, b.IPV6: bt.PPP_IPV6}.get(
        ethertype, draw(st.sampled_from([0x281, 0xC021, 0xFD]))
    )
    in_ppp = bt.ppp(number, payload, hdlc=draw(flag), short=number < 256 and draw(flag))
    next_protocol = {b.IPV4: 1, b.IPV6: 2, bt.NSH: 4, bt.MPLS: 5}.get(ethertype, 3)
    in_nsh = frame if next_protocol == 3 else payload
    next_protocol = draw(rarely(st.integers(0, 7))) or next_protocol
    wrong = draw(rarely(st.integers(0, 255)))
    kind = draw(st.sampled_from(["shim", "shim", "ip", "ip", "udp", "udp", "udp"]))
    if kind == "shim":
        labels = draw(st.lists(st.sampled_from([0, 2, 16, 2**20 - 1]), min_size=1, max_size=18))
        shims = [
            (bt.MPLS, bt.mpls(payload, *labels, bottom=draw(rarely(st.just(0))) is None)),
            (bt.MPLS, bt.mpls(frame, *labels)),
            (0x8848, bt.mpls(bt.control_word(frame, draw(rarely(st.integers(0, 15))) or 0), *labels)),
            (
                bt.PPPOE,
                bt.pppoe(in_ppp, version=0x11 if wrong is None else wrong, code=draw(rarely(small)) or 0),
            ),
            (bt.PPP, in_ppp),
            (bt.VNTAG, bt.vntag(ethertype, payload)),
            (bt.ETAG, bt.etag(ethertype, payload)),
            (bt.PBB, bt.pbb(frame)),
            (bt.FABRICPATH, b"\0\0" + frame),
            (bt.TRANSPARENT, frame),
            (
                bt.NSH,
                bt.nsh(
                    next_protocol, in_nsh, words=draw(st.integers(0, 8)), version=draw(rarely(small)) or 0
                ),
            ),
        ]
        return draw(st.sampled_from(shims))
    if kind == "ip":
        options = {
            "checksum": draw(flag),
            "key": draw(st.sampled_from([None, 0, 2**32 - 1])),
            "route": draw(
                rarely(st.sampled_from([bt.route_entry(0, 0), bt.route_entry(5), bt.route_entry(4) * 9]))
            ),
            "version": draw(rarely(st.integers(0, 7))) or 0,
        }
        erspan_iii = bt.erspan_iii(
            frame,
            vlan=draw(st.integers(0, 4095)),
            frame_type=draw(st.sampled_from([0, 0, 2, 3])),
            subheader=draw(flag),
            version=2 if wrong is None else wrong & 15,
        )
        erspan_ii = bt.erspan_ii(
            frame, vlan=draw(st.integers(0, 4095)), version=1 if wrong is None else wrong & 15
        )
        proto, payload = draw(
            st.sampled_from(
                [
                    (4 if ethertype == b.IPV4 else 41, payload),
                    (47, bt.gre(ethertype, payload, sequence=draw(st.sampled_from([None, 1])), **options)),
                    (47, bt.gre(bt.TRANSPARENT, frame, **options)),
                    (47, bt.gre(bt.ERSPAN, frame, **options)),
                    (47, bt.gre(bt.ERSPAN, erspan_ii, sequence=1, **options)),
                    (47, bt.gre(bt.ERSPAN_III, erspan_iii, sequence=1)),
                    (47, bt.pptp(in_ppp, sequence=draw(flag), acknowledged=draw(flag))),
                    (97, bt.etherip(frame)),
                    (115, bt.l2tpv3(frame, session=draw(st.integers(0, 2)), gap=draw(st.integers(0, 4)) * 4)),
                    (137, bt.mpls(payload, 16)),
                    (143, frame),
                    (145, bt.nsh(next_protocol, in_nsh)),
                ]
            )
        )
    else:
        radio = bt.wifi(
            ethertype,
            payload,
            to_ds=draw(flag),
            from_ds=draw(flag),
            qos=draw(flag),
            order=draw(flag),
            swapped=draw(flag),
            protected=draw(rarely(st.just(1))) is not None,
        )
        extensions = draw(st.lists(st.integers(0, 3), max_size=10))
        port, payload = draw(
            st.sampled_from(
                [
                    (bt.VXLAN_PORT, bt.vxlan(frame, flags=8 if wrong is None else wrong)),
                    (bt.VXLAN_LINUX_PORT, bt.vxlan(frame, last=draw(rarely(small)) or 0)),
                    (bt.VXLAN_GPE_PORT, bt.vxlan(in_nsh, flags=12, next_protocol=next_protocol)),
                    (
                        bt.GENEVE_PORT,
                        bt.geneve(
                            ethertype, payload, words=draw(st.integers(0, 9)), last=draw(rarely(small)) or 0
                        ),
                    ),
                    (bt.GENEVE_PORT, bt.geneve(bt.TRANSPARENT, frame, version=draw(rarely(small)) or 0)),
                    (
                        bt.GTP_PORT,
                        bt.gtp_u(payload, sequence=draw(flag), extensions=extensions, kind=wrong or 255),
                    ),
                    (
                        bt.TEREDO_PORT,
                        bt.teredo(
                            payload, authentication=draw(st.sampled_from([None, 0, 4])), origin=draw(flag)
                        ),
                    ),
                    (
                        bt.L2TP_PORT,
                        bt.l2tp(
                            in_ppp,
                            length=draw(flag),
                            sequence=draw(flag),
                            offset=draw(rarely(st.integers(0, 9))),
                            control=draw(rarely(st.just(1))) is not None,
                        ),
                    ),
                    (bt.L2TP_PORT, bt.l2tpv3_in_udp(frame, gap=draw(st.integers(0, 4)) * 4)),
                    (
                        bt.CAPWAP_PORT,
                        bt.capwap(
                            frame,
                            words=draw(st.integers(1, 5)),
                            fragment=draw(rarely(st.just(1))) is not None,
                            keep_alive=draw(rarely(st.just(1))) is not None,
                            preamble=wrong or 0,
                        ),
                    ),
                    (bt.CAPWAP_PORT, bt.capwap(radio, native=True, binding=draw(rarely(small)) or 1)),
                    (bt.TZSP_PORT, bt.tzsp(frame, kind=draw(rarely(small)) or 0)),
                    (
                        bt.TZSP_PORT,
                        bt.tzsp(radio, protocol=18, tags=b"\0\x05\x02ab" * draw(st.integers(0, 20))),
                    ),
                    (bt.GRE_PORT, bt.gre(ethertype, payload, key=3, checksum=draw(flag))),
                ]
            )
        )
        ports = [50000, port] if draw(st.integers(0, 3)) else [port, draw(PORTS)]
        length = draw(rarely(st.integers(0, 100)))
        proto, payload = b.UDP, b.udp(payload, src_port=ports[0], dst_port=ports[1], length=length)
    if draw(flag):
        return b.IPV4, b.ipv4(proto, payload, total_len=draw(rarely(st.integers(0, 120))))
    return b.IPV6, b.ipv6(proto, payload, payload_len=draw(rarely(st.integers(0, 120))))


@st.composite
def nested(draw: st.DrawFn) -> tuple[int, bytes]:
    """A packet in up to six tunnels, most often in none or one."""
    packet = draw(PACKETS)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2, 3, 6]))):
        packet = draw(tunnels(*packet))
    return packet


NETWORKS = st.deferred(nested)
PACKETS = st.one_of(
    ipv4_packets(),
    ipv6_packets(),
    st.just((b.ARP, b.arp())),
    st.tuples(
        st.sampled_from([0x8847, 0x8864, 0x88CC, 0x2000, 0x0600, 0x05DD, 1500, 4, 0xFFFF, 0x88E5]), PAYLOADS
    ),
)


@st.composite
def other_links(draw: st.DrawFn, link_type: int, ethertype: int, payload: bytes) -> bytes:
    """Put the header of a link type in front that is a layer as well."""
    flag = st.booleans()
    in_ppp = bt.ppp(
        {b.IPV6: bt.PPP_IPV6}.get(ethertype, bt.PPP_IPV4), payload, hdlc=draw(flag), short=draw(flag)
    )
    if link_type in (9, 50):
        return draw(st.sampled_from([in_ppp, bt.chdlc(ethertype, payload)]))
    if link_type == 51:
        return bt.pppoe(in_ppp)
    if link_type == 104:
        return bt.chdlc(ethertype, payload, address=0x8F)
    if link_type == 239:
        return bt.nflog(
            payload,
            family={b.IPV4: 2, b.IPV6: 10}.get(ethertype, 7),
            order=draw(st.sampled_from("<>")),
            others=draw(st.integers(0, 34)),
            length=draw(rarely(st.integers(0, 50))),
        )
    amsdu = [b.ether(8 + len(payload), b.snap(ethertype, payload))] * draw(st.sampled_from([0, 0, 1, 3]))
    is_qos, is_padded = bool(amsdu) or draw(flag), link_type == 127 and draw(flag)
    radio = bt.wifi(
        ethertype,
        payload,
        to_ds=draw(flag),
        from_ds=draw(flag),
        qos=is_qos,
        order=draw(flag),
        protected=draw(rarely(st.just(1))) is not None,
        kind=2 if draw(rarely(st.just(1))) is None else 0,
        subtype=draw(rarely(st.integers(0, 7))) or 0,
        fragment=draw(rarely(st.integers(0, 17))) or 0,
        pad=is_padded,
        amsdu=amsdu,
    )
    if link_type == 127:
        return bt.radiotap(
            radio,
            tsft=draw(flag),
            flags=0x20 if is_padded else draw(st.sampled_from([None, 0x10])),
            words=draw(st.integers(1, 10)),
            version=draw(rarely(st.integers(0, 1))) or 0,
        )
    return radio if link_type == 105 else payload


@st.composite
def link_frames(draw: st.DrawFn) -> RawFrame:
    ethertype, payload = draw(NETWORKS)
    link_type = draw(
        st.sampled_from([1, 1, 1, 1, 1, 113, 276, 12, 14, 101, 228, 229, 9, 50, 51, 104, 105, 127, 239, 195])
    )
    if link_type in (1, 113, 276):
        if draw(st.integers(0, 4)) == 0:
            organisation = draw(st.sampled_from([0, 0, 0xF8, 0x00000C]))
            payload = b.snap(ethertype, payload, organisation=organisation)
            ethertype = 4 if link_type != 1 else len(payload)
        for tag in draw(st.lists(st.sampled_from([b.VLAN, b.QINQ, b.QINQ_OLD]), max_size=MAX_VLAN_TAGS + 2)):
            payload = b.tagged(ethertype, payload, draw(st.sampled_from([0, 1, 42, 4095])), priority=5)
            ethertype = tag
        link = {1: b.ether, 113: b.sll, 276: b.sll2}[link_type]
        cooked = {
            "hardware": draw(st.sampled_from([1, 1, 1, 772, 824, 770])),
            "address_len": draw(st.sampled_from([6, 0])),
        }
        payload = link(ethertype, payload, **({} if link_type == 1 else cooked))
    else:
        payload = draw(other_links(link_type, ethertype, payload))
    payload += bytes(draw(st.sampled_from([0, 0, 6, 18])))  # padding
    captured = payload[: draw(rarely(st.integers(0, 120)))]
    return RawFrame(captured, len(payload), link_type)


def mutated(rng: random.Random, frame: RawFrame, other: RawFrame) -> RawFrame:
    """Flip, cut or splice a frame, mostly in its headers."""
    data = bytearray(frame.data)
    for _ in range(rng.randrange(1, 4)):
        how = rng.randrange(4)
        if how == 0 and data:
            data[rng.randrange(min(len(data), 80))] = rng.randrange(256)
        elif how == 1 and data:
            data[rng.randrange(min(len(data), 80))] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[rng.randrange(len(data) + 1) :]
        else:
            at = rng.randrange(min(len(data), 60) + 1)
            data[at:] = other.data[at:]
    wire_len = frame.wire_len if rng.random() < 0.5 else rng.randrange(100)
    return RawFrame(bytes(data), max(wire_len, len(data)), frame.link_type)


def assert_equals_reference(frames: list[RawFrame], gap: bytes = b"") -> Counter[FrameStatus]:
    """Decode all in one batch and each by the reference; return how many had which status."""
    batch = b.batch(
        [frame.data for frame in frames],
        link_type=[frame.link_type for frame in frames],
        wire_lens=[frame.wire_len for frame in frames],
        gap=gap,
    )
    counted = Counted(batch)
    watch = reference.Watch()
    expected = [
        reference.decode(
            frame.data, wire_len=frame.wire_len, link_type=frame.link_type, watch=watch, ts_ns=int(ts_ns)
        )
        for frame, ts_ns in zip(frames, batch.frames["ts_ns"], strict=True)
    ]
    prints: dict[object, int] = {None: 0}
    rows = {int(packet["frame"]): packet for packet in counted.packets}
    assert list(rows) == [row for row, decoded in enumerate(expected) if decoded.packet]
    for row, packet in rows.items():
        offset = int(batch.frames[row]["offset"])
        wanted = asdict(expected[row].packet) | {"frame": row, "ts_ns": int(batch.frames[row]["ts_ns"])}
        for name in POSITIONS:
            wanted[name] += offset
        got = {name: int(packet[name]) for name in PACKET_DTYPE.names}
        assert prints.setdefault(wanted.pop("syn"), got["fingerprint"]) == got.pop("fingerprint")
        assert got == wanted, frames[row].data.hex(" ")
    statuses = Counter(decoded.status for decoded in expected)
    assert len(set(prints.values())) == len(prints), "one fingerprint for two kinds of SYN"
    assert [statuses[status] for status in FrameStatus] == counted.status_counts.tolist()
    peeled = Counter(layer for decoded in expected for layer in decoded.peeled)
    assert [peeled[layer] for layer in Layer] == counted.peeled.tolist()
    assert sum(decoded.impossible_lengths for decoded in expected) == counted.weirds[IMPOSSIBLE]
    return statuses


def without_syn(decoded: reference.Decoded) -> reference.Decoded:
    """What there is to compare of one frame: what a fingerprint is made of shows in many."""
    return decoded if decoded.packet is None else replace(decoded, packet=replace(decoded.packet, syn=None))


@cache
def real_frames() -> tuple[RawFrame, ...]:
    """Up to 40 frames of every shared capture in the classic format."""
    frames = []
    for part in ("smtp", "dns", "benign", "encapsulated", "malformed", "formats"):
        for path in sorted((CAPTURES / part).iterdir()):
            if is_pcap(path):
                frames += [frame for frame in read_pcap(path)[:40] if len(frame.data) < 70_000]
    return tuple(
        frame._replace(wire_len=max(len(frame.data), min(frame.wire_len, 2**24))) for frame in frames
    )


needs_captures = pytest.mark.skipif(
    not CAPTURES.is_dir() and os.environ.get("CI") != "true", reason=f"no captures in {CAPTURES}"
)


@settings(max_examples=400)
@given(frame=link_frames())
def test_kernel_equals_reference_on_generated_frames(frame):
    expected = reference.decode(frame.data, wire_len=frame.wire_len, link_type=frame.link_type)
    assert decode_one(frame.data, wire_len=frame.wire_len, link_type=frame.link_type) == without_syn(expected)


@given(
    data=st.binary(max_size=120),
    link_type=st.sampled_from([*LinkType, 195]),
    more=st.integers(0, 2000),
)
def test_kernel_equals_reference_on_any_bytes(data, link_type, more):
    expected = reference.decode(data, wire_len=len(data) + more, link_type=link_type)
    assert decode_one(data, wire_len=len(data) + more, link_type=link_type) == without_syn(expected)


@needs_captures
def test_kernel_equals_reference_on_real_frames():
    statuses = assert_equals_reference(list(real_frames()))
    assert set(FrameStatus) - set(statuses) <= {FrameStatus.TOO_DEEP}, "the captures show every other status"


@needs_captures
@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_reference_on_mutated_real_frames(seed):
    rng = random.Random(seed)
    originals = real_frames()
    n = 2_000 if JIT_DISABLED else 30_000
    frames = [mutated(rng, rng.choice(originals), rng.choice(originals)) for _ in range(n)]
    statuses = assert_equals_reference(frames, gap=rng.randbytes(5))
    assert statuses[FrameStatus.MAIL] > n / 100
    assert statuses[FrameStatus.MALFORMED] > n / 1000


# --- where a frame lies, and where it is cut ---


@given(frame=link_frames(), noise=st.binary(min_size=64, max_size=64))
def test_neighbours_do_not_matter(frame, noise):
    views = [
        decode_one(frame.data, wire_len=frame.wire_len, link_type=frame.link_type, gap=gap)
        for gap in (b"", bytes(64), b"\xff" * 64, noise)
    ]
    assert views.count(views[0]) == len(views)


@given(frame=link_frames())
def test_a_cut_frame_is_truncated_or_tells_the_same(frame):
    whole = decode_one(frame.data, wire_len=frame.wire_len, link_type=frame.link_type)
    decided = False
    for n in range(len(frame.data) + 1):
        cut = decode_one(frame.data[:n], wire_len=frame.wire_len, link_type=frame.link_type)
        if cut.status == FrameStatus.TRUNCATED:
            assert not decided, n
            assert (cut.packet, cut.impossible_lengths) == (None, 0)
            assert Counter(cut.peeled) <= Counter(whole.peeled)
            continue
        decided = True
        expected = whole.packet and replace(
            whole.packet,
            payload_start=min(whole.packet.payload_start, n),
            payload_end=min(whole.packet.payload_end, n),
        )
        assert cut == replace(whole, packet=expected), n


@given(frames=st.lists(link_frames(), max_size=12), n_out=st.integers(1, 4), data=st.data())
def test_batches_may_end_anywhere(frames, n_out, data):
    contents, links = [frame.data for frame in frames], [frame.link_type for frame in frames]
    batch = b.batch(contents, link_type=links, wire_lens=[frame.wire_len for frame in frames])
    whole, drained = Counted(batch), Counted(batch, n_out)
    cut = data.draw(st.integers(0, len(frames)))
    parts = [Counted(FrameBatch(batch.data, rows)) for rows in (batch.frames[:cut], batch.frames[cut:])]
    parts[1].packets["frame"] += cut
    for other_packets, counts, weirds in (
        (drained.packets, drained.status_counts, drained.weirds),
        (
            np.concatenate([part.packets for part in parts]),
            sum(part.status_counts for part in parts),
            sum(part.weirds for part in parts),
        ),
    ):
        assert other_packets.tobytes() == whole.packets.tobytes()
        assert (counts == whole.status_counts).all()
        assert (weirds == whole.weirds).all()


def test_counters_go_on_and_an_empty_batch_changes_nothing():
    counts, weirds = np.full(N_FRAME_STATUSES, 5, dtype=np.int64), np.full(N_WEIRDS, 5, dtype=np.int64)
    peeled = np.full(N_LAYERS, 5, dtype=np.int64)
    packets = np.zeros(2, dtype=PACKET_DTYPE)
    empty = b.batch([])
    assert decode_batch(
        empty.data, empty.frames, 0, PORT_CLASS, new_watch(), packets, counts, peeled, weirds
    ) == (0, 0)
    one = b.batch([over_ip4(b.tcp())])
    assert decode_batch(
        one.data, one.frames, 0, PORT_CLASS, new_watch(), packets, counts, peeled, weirds
    ) == (1, 1)
    assert (peeled == 5).all()
    assert counts.sum() == 5 * N_FRAME_STATUSES + 1
    assert counts[FrameStatus.MAIL] == 6
    assert (weirds == 5).all()


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_one_specialisation():
    Counted(b.batch([over_ip4(b.tcp())]))
    assert len(decode_batch.signatures) == 1


# --- one case for each rule that a reader may want to look up ---


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (over_ip4(b.tcp(dst_port=25)), FrameStatus.MAIL),
        (over_ip4(b.tcp(src_port=587, dst_port=40000)), FrameStatus.MAIL),
        (over_ip4(b.tcp(src_port=53, dst_port=25)), FrameStatus.MAIL),
        (over_ip4(b.tcp(dst_port=53)), FrameStatus.DNS),
        (over_ip4(b.tcp(dst_port=67)), FrameStatus.OTHER),
        (over_ip4(b.tcp(dst_port=443)), FrameStatus.OTHER),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(dst_port=25))), FrameStatus.OTHER),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(dst_port=53))), FrameStatus.DNS),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(src_port=25, dst_port=53))), FrameStatus.DNS),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(src_port=68, dst_port=53))), FrameStatus.DNS),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(src_port=68, dst_port=67))), FrameStatus.LAN),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(dst_port=4789))), FrameStatus.OTHER),
        (b.ether(b.IPV4, b.ipv4(b.ICMP, bytes(8))), FrameStatus.OTHER),
        (b.ether(b.IPV4, b.ipv4(108, bytes(40))), FrameStatus.UNKNOWN_TUNNEL),
        (over_ip6(55, bytes(40)), FrameStatus.UNKNOWN_TUNNEL),
        (b.ether(0x88E5, bytes(60)), FrameStatus.UNKNOWN_TUNNEL),
        (b.ether(0x88BE, bytes(60)), FrameStatus.UNKNOWN_TUNNEL),
        (b.ether(0x88CC, bytes(60)), FrameStatus.LAN),  # LLDP
        (over_ip6(b.ICMPV6, b"\x87" + bytes(23), hop_limit=255), FrameStatus.LAN),  # neighbour discovery
        (over_ip6(b.ICMPV6, b"\x87" + bytes(23), hop_limit=254), FrameStatus.OTHER),  # not from this link
        (over_ip6(b.ICMPV6, b"\x80" + bytes(23), hop_limit=255), FrameStatus.OTHER),  # a ping
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(dst_port=5353))), FrameStatus.LAN),
        (over_ip4(b.tcp(b"GET / HTTP/1.1", dst_port=80)), FrameStatus.LAN),
        (over_ip4(b.tcp(b"GET / HTTP/1.1", dst_port=81)), FrameStatus.OTHER),
        (over_ip4(b.tcp(b"HTTP/1.1 200", src_port=80, dst_port=8080)), FrameStatus.OTHER),
        (b.ether(38, b"\x42\x42\x03" + bytes(43)), FrameStatus.NOT_IP),  # spanning tree
        (b.ether(b.ARP, b.arp()), FrameStatus.LAN),
        (over_ip4(b.tcp(), ihl=4), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(), version=6), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(), total_len=19), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(), total_len=39), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(data_offset=4)), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(data_offset=6)), FrameStatus.MALFORMED),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(length=7))), FrameStatus.MALFORMED),
        (b.ether(b.IPV4, b.ipv4(b.UDP, b.udp(length=0))), FrameStatus.MALFORMED),
        (over_ip6(b.TCP, b.tcp(), payload_len=19), FrameStatus.MALFORMED),
        (over_ip6(b.HOPOPT, b.extension(b.TCP, b""), payload_len=7), FrameStatus.MALFORMED),
        (over_ip4(b.tcp(), fragment_offset=1), FrameStatus.FRAGMENT),
        (over_ip4(b.tcp(), more_fragments=True), FrameStatus.MAIL),
        (over_ip6(b.IPV6_FRAG, b.fragment(b.TCP, b.tcp(), offset=1)), FrameStatus.FRAGMENT),
        (over_ip6(b.IPV6_FRAG, b.fragment(b.TCP, b.tcp())), FrameStatus.MAIL),
        (over_ip4(b.tcp())[:-1], FrameStatus.TRUNCATED),
        (over_ip4(b.tcp(options=bytes(12)))[:-1], FrameStatus.MAIL),
        (b"", FrameStatus.TRUNCATED),
    ],
)
def test_status(frame, status):
    assert status_of(frame) == status


@pytest.mark.parametrize("family", [b"\x02\0\0\0", b"\0\0\0\x02"])
@pytest.mark.parametrize("link_type", [LinkType.NULL, LinkType.LOOP])
def test_loopback_in_either_byte_order(link_type, family):
    assert status_of(family + b.ipv4(b.TCP, b.tcp()), link_type) == FrameStatus.MAIL
    assert status_of(family[:3], link_type) == FrameStatus.TRUNCATED


@pytest.mark.parametrize("family", [10, 24, 28, 30])
def test_loopback_knows_every_system_s_ipv6(family):
    frame = family.to_bytes(4, "little") + over_ip6(b.TCP, b.tcp())[14:]
    assert status_of(frame, LinkType.NULL) == FrameStatus.MAIL
    assert status_of(b"\x07\0\0\0" + frame[4:], LinkType.NULL) == FrameStatus.NOT_IP


@pytest.mark.parametrize("link_type", [195, 107, 249, -1])
def test_unknown_link_type(link_type):
    assert status_of(over_ip4(b.tcp()), link_type) == FrameStatus.UNKNOWN_LINK_TYPE


@pytest.mark.parametrize("tag", [b.VLAN, b.QINQ, b.QINQ_OLD])
def test_vlan_tags_up_to_the_bound(tag):
    ethertype, payload = b.IPV4, b.ipv4(b.TCP, b.tcp(b"NOOP"))
    for depth in range(MAX_VLAN_TAGS):
        payload, ethertype = b.tagged(ethertype, payload, 100 + depth), tag
        frame = b.ether(ethertype, payload)
        assert packet_of(frame).vlan == 100  # the innermost
        assert payload_of(frame) == b"NOOP"
    assert status_of(b.ether(tag, b.tagged(tag, payload, 7))) == FrameStatus.TOO_DEEP


def test_a_priority_tag_is_no_vlan():
    packet = b.ipv4(b.TCP, b.tcp())
    assert packet_of(b.ether(b.VLAN, b.tagged(b.IPV4, packet, 0, priority=6))).vlan == -1
    inner = b.tagged(b.IPV4, packet, 0, priority=6)
    assert packet_of(b.ether(b.QINQ, b.tagged(b.VLAN, inner, 12))).vlan == 12


def test_extension_headers_up_to_the_bound():
    proto, payload = b.TCP, b.tcp(b"NOOP")
    for depth in range(MAX_IPV6_EXTENSIONS):
        payload, proto = b.extension(proto, payload, units=depth), b.IPV6_OPTS
        assert payload_of(over_ip6(proto, payload)) == b"NOOP"
    assert status_of(over_ip6(b.IPV6_OPTS, b.extension(proto, payload))) == FrameStatus.TOO_DEEP


def test_columns_of_a_segment():
    frame = b.ether(
        b.IPV6,
        b.ipv6(
            b.TCP,
            b.tcp(
                b"hello", src_port=25, dst_port=4097, seq=2**32 - 1, ack=2**31, flags=0xFF, options=bytes(12)
            ),
            src="fe80::1",
            dst="ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
        ),
        src=2**48 - 1,
        dst=0,
    )
    assert packet_of(frame) == reference.Packet(
        status=FrameStatus.MAIL,
        proto=6,
        payload_start=14 + 40 + 32,
        payload_end=14 + 40 + 32 + 5,
        payload_len=5,
        src_hi=0xFE80000000000000 - 2**64,
        src_lo=1,
        dst_hi=-1,
        dst_lo=-2,
        src_mac=2**48 - 1,
        dst_mac=0,
        vlan=-1,
        src_port=25,
        dst_port=4097,
        seq=2**32 - 1,
        ack=2**31,
        tcp_flags=0xFF,
    )


def test_a_row_keeps_nothing_of_the_row_that_was_there_before():
    arp = b.ether(b.ARP, b.arp())
    udp = b.ether(b.IPV4, b.ipv4(b.UDP, b.udp()))
    packets = np.frombuffer(bytearray(b"\xff" * PACKET_DTYPE.itemsize * 2), dtype=PACKET_DTYPE)
    batch = b.batch([arp, udp])
    counts, weirds = np.zeros(N_FRAME_STATUSES, dtype=np.int64), np.zeros(N_WEIRDS, dtype=np.int64)
    peeled = np.zeros(N_LAYERS, dtype=np.int64)
    decode_batch(batch.data, batch.frames, 0, PORT_CLASS, new_watch(), packets, counts, peeled, weirds)
    assert packets.tobytes() == Counted(batch).packets.tobytes()
    for name in ("seq", "ack", "tcp_flags"):
        assert packets[name].tolist() == [0, 0]


def test_ipv4_addresses_are_mapped():
    packet = packet_of(over_ip4(b.tcp()))
    for half, address in ((packet.src_lo, b.SRC4), (packet.dst_lo, b.DST4)):
        assert half == int(ip_address(f"::ffff:{address}"))
    assert packet.src_hi == packet.dst_hi == 0


def test_arp_body():
    frame = b.ether(b.ARP, b.arp(), dst=2**48 - 1)
    packet = packet_of(frame)
    assert payload_of(frame) == b.arp()
    assert (packet.proto, packet.src_mac, packet.dst_mac) == (0x0806, b.SRC_MAC, 2**48 - 1)
    assert (packet.src_lo, packet.dst_lo, packet.src_port, packet.dst_port) == (0, 0, 0, 0)


@pytest.mark.parametrize("words", range(11))
def test_options_are_no_payload(words):
    options = bytes(4 * words)
    assert payload_of(over_ip4(b.tcp(b"NOOP"), options=options)) == b"NOOP"
    assert payload_of(over_ip4(b.tcp(b"NOOP", options=options))) == b"NOOP"


def test_padding_is_no_payload():
    frame = over_ip4(b.tcp(b"x")) + bytes(5)
    assert payload_of(frame) == b"x"
    assert packet_of(frame).payload_len == 1


def test_snap_length_cuts_what_was_captured_and_not_the_length():
    frame = over_ip4(b.tcp(b"0123456789"))
    packet = packet_of(frame[:-4], wire_len=len(frame))
    assert (packet.payload_end - packet.payload_start, packet.payload_len) == (6, 10)


@pytest.mark.parametrize(
    "frame",
    [over_ip4(b.tcp(b"0123456789"), total_len=0), over_ip6(b.TCP, b.tcp(b"0123456789"), payload_len=0)],
)
def test_length_zero_is_as_long_as_the_frame(frame):
    assert payload_of(frame) == b"0123456789"
    packet = packet_of(frame[:-4], wire_len=len(frame))
    assert (packet.payload_end - packet.payload_start, packet.payload_len) == (6, 10)


def test_udp_payload_is_the_shorter_of_both_lengths():
    inside = b.udp(b"0123456789", length=8 + 4)
    assert payload_of(b.ether(b.IPV4, b.ipv4(b.UDP, inside))) == b"0123"
    first_fragment = b.udp(b"0123456789", length=4000)
    frame = b.ether(b.IPV4, b.ipv4(b.UDP, first_fragment, more_fragments=True))
    assert payload_of(frame) == b"0123456789"
    assert packet_of(frame).payload_len == 10


def test_udp_jumbogram():
    frame = over_ip6(b.UDP, b.udp(bytes(70_000), length=0), payload_len=0)
    assert len(payload_of(frame)) == 70_000


@pytest.mark.parametrize("organisation", [0, 0xF8])
def test_snap_carries_an_ethertype(organisation):
    packet = b.snap(b.IPV4, b.ipv4(b.TCP, b.tcp(b"NOOP")), organisation=organisation)
    for length in (len(packet), 1500):
        assert payload_of(b.ether(length, packet)) == b"NOOP"
    assert status_of(b.ether(1501, packet)) == FrameStatus.NOT_IP  # neither a length nor an EtherType
    cisco = b.snap(0x2000, bytes(30), organisation=0x00000C)
    assert status_of(b.ether(len(cisco), cisco)) == FrameStatus.LAN  # CDP
    cisco = b.snap(0x2004, bytes(30), organisation=0x00000C)
    assert status_of(b.ether(len(cisco), cisco)) == FrameStatus.NOT_IP
    tagged = b.snap(b.VLAN, b.tagged(b.IPV4, b.ipv4(b.TCP, b.tcp()), 5))
    assert status_of(b.ether(len(tagged), tagged)) == FrameStatus.UNKNOWN_TUNNEL


@pytest.mark.parametrize(
    ("cooked", "link_type"), [(b.sll, LinkType.LINUX_SLL), (b.sll2, LinkType.LINUX_SLL2)]
)
def test_cooked_headers(cooked, link_type):
    packet = b.ipv4(b.TCP, b.tcp(b"NOOP"))
    for kind in range(5):
        decoded = packet_of(cooked(b.IPV4, packet, kind=kind), link_type=link_type)
        assert (decoded.src_mac, decoded.dst_mac) == (b.SRC_MAC, -1)
    assert packet_of(cooked(b.IPV4, packet, address_len=0), link_type=link_type).src_mac == -1
    assert packet_of(cooked(b.IPV4, packet, hardware=772, src=0), link_type=link_type).src_mac == -1
    assert packet_of(cooked(b.VLAN, b.tagged(b.IPV4, packet, 9)), link_type=link_type).vlan == 9
    assert payload_of(cooked(4, b.snap(b.IPV4, packet)), link_type=link_type) == b"NOOP"
    assert status_of(cooked(1, packet), link_type) == FrameStatus.NOT_IP
    assert status_of(cooked(b.IPV4, packet, hardware=824), link_type) == FrameStatus.NOT_IP
    assert status_of(cooked(b.IPV4, packet, hardware=770), link_type) == FrameStatus.UNKNOWN_LINK_TYPE


@pytest.mark.parametrize("link_type", [LinkType.RAW, LinkType.RAW_BSD, LinkType.RAW_OPENBSD])
def test_raw_links_go_by_the_version(link_type):
    for packet in (b.ipv4(b.TCP, b.tcp(b"NOOP")), b.ipv6(b.TCP, b.tcp(b"NOOP"))):
        assert payload_of(packet, link_type=link_type) == b"NOOP"
        assert packet_of(packet, link_type=link_type).src_mac == -1
    assert status_of(b"\x50" + bytes(60), link_type) == FrameStatus.MALFORMED


def test_raw_links_of_one_version():
    v4, v6 = b.ipv4(b.TCP, b.tcp()), b.ipv6(b.TCP, b.tcp())
    assert status_of(v4, LinkType.IPV4) == status_of(v6, LinkType.IPV6) == FrameStatus.MAIL
    assert status_of(v6, LinkType.IPV4) == status_of(v4, LinkType.IPV6) == FrameStatus.MALFORMED


def test_port_classes():
    table = port_classes([25, 2525])
    assert (table[list(TUNNEL_PORTS)] == PortClass.TUNNEL).all()
    table[list(TUNNEL_PORTS)] = PortClass.OTHER
    assert (table.dtype, table.shape) == (np.uint8, (N_PORTS,))
    named = {
        25: PortClass.MAIL,
        2525: PortClass.MAIL,
        53: PortClass.DNS,
        **dict.fromkeys(reference.LAN_PORTS, PortClass.LAN),
        **dict.fromkeys(reference.HTTP_PORTS, PortClass.HTTP),
    }
    assert {int(port): PortClass(table[port]) for port in np.flatnonzero(table)} == named


@pytest.mark.parametrize("port", [0, -1, 65536, 53, *reference.LAN_PORTS, *TUNNEL_PORTS])
def test_port_classes_refuse_what_cannot_be_a_mail_port(port):
    with pytest.raises(ValueError, match=f"port {port} cannot be a mail port"):
        port_classes([25, port])


# --- tshark's view ---


def tshark_endpoints(path: Path) -> dict[int, tuple[str, str, int, int]]:
    """Return (source, destination, their ports) of TCP and UDP frames, by frame number from 0.

    Not of frames with more than one IP header: tunnels and ICMP errors.
    """
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=a"]
    command += ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-e", "frame.number"]
    for end in ("src", "dst"):
        command += ["-e", f"ip.{end}", "-e", f"ipv6.{end}", "-e", f"tcp.{end}port", "-e", f"udp.{end}port"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    endpoints = {}
    for line in lines:
        number, *columns = line.split("\t")
        found = [value for value in columns if value]  # source address, port, destination address, port
        if len(found) == 4 and not any("," in value for value in found):
            endpoints[int(number) - 1] = (found[0], found[2], int(found[1]), int(found[3]))
    return endpoints


def our_endpoints(path: Path) -> dict[int, tuple[str, str, int, int]]:
    """Return the same from our columns; every port counts as DNS, so that every segment becomes a row."""
    frames = read_pcap(path)
    batch = b.batch(
        [frame.data for frame in frames],
        link_type=[frame.link_type for frame in frames],
        wire_lens=[frame.wire_len for frame in frames],
    )
    packets = np.zeros(len(frames) + 1, dtype=PACKET_DTYPE)
    counts, weirds = np.zeros(N_FRAME_STATUSES, dtype=np.int64), np.zeros(N_WEIRDS, dtype=np.int64)
    every_port = np.full(N_PORTS, PortClass.DNS, dtype=np.uint8)
    peeled = np.zeros(N_LAYERS, dtype=np.int64)
    n_packets, _ = decode_batch(
        batch.data, batch.frames, 0, every_port, new_watch(), packets, counts, peeled, weirds
    )
    return {
        int(row["frame"]): (
            address_text(row["src_hi"], row["src_lo"]),
            address_text(row["dst_hi"], row["dst_lo"]),
            int(row["src_port"]),
            int(row["dst_port"]),
        )
        for row in packets[:n_packets]
        if row["proto"] in (b.TCP, b.UDP)
    }


def address_text(hi: np.int64, lo: np.int64) -> str:
    address = ip_address(((int(hi) % 2**64) << 64 | int(lo) % 2**64).to_bytes(16, "big"))
    return str(address.ipv4_mapped or address)


#: Captures in which tshark finds no endpoints either, and why.
SILENT = {"zeek__proto255.pcap": "its one frame is of the reserved IP protocol 255"}
ORACLE_CAPTURES = [
    path
    for part in ("smtp", "dns")
    for path in sorted((CAPTURES / part).glob("*"))
    if is_pcap(path) and {frame.link_type for frame in read_pcap(path)} <= set(LinkType)
]


@needs_captures
@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("tshark") is None and os.environ.get("CI") != "true", reason="no tshark")
@pytest.mark.parametrize("path", ORACLE_CAPTURES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tshark_sees_the_same_endpoints(path):
    ours, theirs = our_endpoints(path), tshark_endpoints(path)
    assert theirs or path.name in SILENT, "an oracle that is silent proves nothing"
    differing = [n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)]
    assert [(n, ours.get(n), theirs.get(n)) for n in sorted(differing)] == []


# --- who has mailed, and what else they say ---

WATCHED_ENDS = st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.7", "203.0.113.9"])


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[int, bytes]:
    """How long after the one before, and a packet between a few addresses: mail, TCP or UDP."""
    src, dst = draw(WATCHED_ENDS), draw(WATCHED_ENDS)
    pause_ns = draw(st.sampled_from([0, 10**9, WATCH_NS - 1, WATCH_NS, 2 * WATCH_NS]))
    payload = bytes(draw(st.sampled_from([0, 0, 1, 40])))
    ports = draw(st.sampled_from([(40000, 25), (25, 40000), (40000, 443), (443, 40000), (1080, 40001)]))
    if draw(st.booleans()):
        flags = draw(st.sampled_from([b.SYN, b.SYN | b.ACK, b.ACK, b.FIN | b.ACK]))
        packet = b.tcp(payload, src_port=ports[0], dst_port=ports[1], flags=flags)
        return pause_ns, b.ether(b.IPV4, b.ipv4(b.TCP, packet, src=src, dst=dst))
    packet = b.udp(payload, src_port=ports[0], dst_port=ports[1])
    return pause_ns, b.ether(b.IPV4, b.ipv4(b.UDP, packet, src=src, dst=dst))


@given(packets=st.lists(exchanges(), max_size=30))
def test_packets_of_who_has_mailed_lately_are_rows(packets):
    times = np.cumsum([0, *(pause for pause, _ in packets)])[1:]
    batch = b.batch([frame for _, frame in packets], ts_ns=times.tolist())
    counted = Counted(batch, n_out=3)
    watch = reference.Watch()
    expected = [
        reference.decode(frame, watch=watch, ts_ns=int(ts)).status
        for (_, frame), ts in zip(packets, times, strict=True)
    ]
    found = np.array([FrameStatus.OTHER] * len(packets))
    found[counted.packets["frame"]] = counted.packets["status"]
    assert found.tolist() == expected


SYN_OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes(8) + b"\x01\x03\x03\x07"


def fingerprint_of(options: bytes = SYN_OPTIONS, ttl: int = 64, version: int = 4) -> int:
    packet = b.tcp(dst_port=25, flags=b.SYN, options=options)
    ip = bytearray(b.ipv4(b.TCP, packet) if version == 4 else b.ipv6(b.TCP, packet))
    ip[8 if version == 4 else 7] = ttl
    batch = b.batch([b.ether(b.IPV4 if version == 4 else b.IPV6, bytes(ip))])
    return int(Counted(batch).packets[0]["fingerprint"])


def test_a_stack_has_one_fingerprint_wherever_it_is():
    assert len({fingerprint_of(ttl=ttl) for ttl in (33, 52, 64)}) == 1
    later = SYN_OPTIONS.replace(bytes(8), bytes(range(8)))  # the time stamps
    assert fingerprint_of() == fingerprint_of(later)


def test_another_stack_has_another_fingerprint():
    others = {
        fingerprint_of(),
        fingerprint_of(ttl=128),
        fingerprint_of(version=6),
        fingerprint_of(SYN_OPTIONS.replace(b"\x05\xb4", b"\x05\xa0")),
        fingerprint_of(SYN_OPTIONS[4:] + SYN_OPTIONS[:4]),
        fingerprint_of(b""),
    }
    assert len(others) == 6


def test_the_last_bit_of_a_fingerprint_is_the_version_of_ip():
    assert (fingerprint_of() & 1, fingerprint_of(version=6) & 1) == (0, 1)
