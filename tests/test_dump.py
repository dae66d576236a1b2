from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from builders import ARP, IPV4, IPV6, TCP, UDP, VLAN, arp, batch, ether, ipv4, ipv6, tagged, tcp, udp
from hypothesis import given
from hypothesis import strategies as st

from sensor.dump import hex_lines, packet_detail, packet_lines
from tests.builders_tunnels import over_udp, vxlan

if TYPE_CHECKING:
    from sensor.capture.frames import FrameBatch

MAIL_PORTS = (25, 587)
FRAMES = [
    ether(IPV4, ipv4(TCP, tcp(b"QUIT\r\n", src_port=40123, dst_port=25))),
    ether(VLAN, tagged(IPV6, ipv6(UDP, udp(b"?", src_port=40124, dst_port=53)), 20)),
    ether(ARP, arp()),
    ether(0x88E3, b"other"),
    b"\x00\x01",
]


def batches(sizes: list[int]) -> list[FrameBatch]:
    split, at = [], 0
    for size in sizes:
        split.append(batch(FRAMES[at : at + size]))
        at += size
    return split


@given(st.binary(max_size=200))
def test_the_hex_view_reads_back(raw: bytes) -> None:
    lines = hex_lines(raw)
    assert b"".join(bytes.fromhex(line[8:55]) for line in lines) == raw
    assert [int(line[:6], 16) for line in lines] == list(range(0, len(raw), 16))
    for line in lines:
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.parametrize("sizes", [[5], [1, 4], [2, 0, 3], [1, 1, 1, 1, 1]])
def test_one_line_per_frame_whatever_the_batches(sizes: list[int]) -> None:
    lines = [re.sub(r"\S+\+0000", "TIME", line) for line in packet_lines(batches(sizes), MAIL_PORTS)]
    assert [line.split()[:4] for line in lines] == [
        [str(number + 1), "TIME", str(len(frame)), status]
        for number, (frame, status) in enumerate(
            zip(FRAMES, ["mail", "dns", "lan", "not_ip", "truncated"], strict=True)
        )
    ]
    assert lines[0].endswith("mail       TCP 192.0.2.1:40123 > 198.51.100.2:25 6 bytes")
    assert lines[1].endswith("dns        UDP [2001:db8::1]:40124 > [2001:db8:ffff::2]:53 1 bytes")


@pytest.mark.parametrize("sizes", [[5], [1, 4], [2, 0, 3]])
def test_the_detail_of_one_packet(sizes: list[int]) -> None:
    detail = packet_detail(batches(sizes), 2, MAIL_PORTS)
    columns = {line[:12].strip(): line[12:] for line in detail[: detail.index("")]}
    assert columns["packet"] == "2"
    assert columns["status"] == "dns"
    assert columns["VLAN"] == "20"
    assert columns["link type"] == "ETHERNET (1)"
    assert columns["MAC"] == "02:00:00:00:00:01 > 02:00:00:00:00:02"
    assert columns["destination"] == "[2001:db8:ffff::2]:53"
    assert columns["payload"] == "1 bytes on the wire, bytes 66 to 67 of the frame captured"
    assert detail[detail.index("") + 1 :] == hex_lines(FRAMES[1])


def test_what_was_peeled_is_named() -> None:
    tunnelled = batch([over_udp(4789, vxlan(ether(IPV4, ipv4(TCP, tcp())), vni=42))])
    detail = packet_detail([tunnelled], 1, MAIL_PORTS)
    assert "peeled      ethernet, vxlan" in detail
    assert "session     vxlan 42" in detail
    plain = packet_detail(batches([5]), 2, MAIL_PORTS)
    assert {"peeled      nothing", "session     none"} <= set(plain)


def test_a_packet_that_is_not_decoded_has_its_bytes() -> None:
    detail = packet_detail(batches([5]), 4, MAIL_PORTS)
    assert "status      not_ip" in detail
    assert not any(line.startswith("source") for line in detail)
    assert detail[-1] == hex_lines(FRAMES[3])[-1]


def test_a_packet_that_is_not_there() -> None:
    assert packet_detail(batches([2, 3]), 6, MAIL_PORTS) == []
    assert packet_detail([], 1, MAIL_PORTS) == []


def test_an_unknown_link_type_is_named() -> None:
    unknown = batch(FRAMES[:1])
    unknown.frames["link_type"] = 147
    detail = packet_detail([unknown], 1, MAIL_PORTS)
    assert "link type   USER0 (147), not decoded" in detail
    assert "status      unknown_link_type" in detail
