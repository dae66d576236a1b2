"""Copies of packets, as mirrors show them, change nothing but their counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.decode.status import Weird
from sensor.events.duplicates import WINDOW_NS
from tests import builders as b
from tests.conversation import Frame, Tracked, Tracker, client, place, server, whole

MAILED = [
    server(b"220 mx.example.net"),
    client(b"EHLO camera.example"),
    server(b"250 mx.example.net"),
    client(b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>"),
    server(b"250 2.1.0 ok", b"550 5.1.1 nobody"),
    client(b"QUIT"),
    server(b"221 bye"),
]
FRAMES = place(whole(MAILED))
# Between other stations, in a VLAN, its time to live one less.
ROUTED_MACS, VLAN = bytes.fromhex("020000000009020000000008"), 7


def routed(frame: Frame) -> Frame:
    data = bytearray(frame.data)
    data[22] -= 1
    tagged = ROUTED_MACS + b"\x81\x00" + VLAN.to_bytes(2, "big") + bytes(data[12:])
    return frame._replace(data=tagged, wire_len=frame.wire_len + 4)


def run(frames: list[Frame]) -> Tracked:
    return Tracker().run(sorted(frames, key=lambda frame: frame.ts_ns))


ALONE = run(FRAMES)


@pytest.mark.kernel
@given(
    st.lists(
        st.tuples(st.integers(0, len(FRAMES) - 1), st.integers(0, WINDOW_NS), st.booleans()),
        max_size=30,
        unique_by=lambda copy: copy[0],
    )
)
def test_copies_within_the_window_are_passed_over(copies: list[tuple[int, int, bool]]) -> None:
    frames = list(FRAMES)
    for i, delay_ns, is_routed in copies:
        copy = routed(FRAMES[i]) if is_routed else FRAMES[i]
        frames.append(copy._replace(ts_ns=copy.ts_ns + delay_ns))
    found = run(frames)
    assert found.events == ALONE.events
    assert found.totals == ALONE.totals
    assert found.weirds - ALONE.weirds == ({Weird.PACKET_DUPLICATE: len(copies)} if copies else {})


@pytest.mark.kernel
def test_the_same_packet_later_is_a_retransmission() -> None:
    late = FRAMES[4]._replace(ts_ns=FRAMES[4].ts_ns + WINDOW_NS + 1)
    found = run([*FRAMES, late])
    assert found.weirds[Weird.PACKET_DUPLICATE] == 0
    assert [event.code for event in found.events] == [event.code for event in ALONE.events]


@pytest.mark.kernel
@pytest.mark.parametrize("field", ["identification", "seq", "port", "length"])
def test_a_packet_that_differs_is_none(field: str) -> None:
    def packet(other: bool) -> bytes:
        segment = b.tcp(
            b"x" * (2 if other and field == "length" else 1),
            dst_port=25,
            src_port=40001 if other and field == "port" else 40000,
            seq=8 if other and field == "seq" else 7,
            flags=b.SYN,
        )
        number = 5 if other and field == "identification" else 4
        return b.ether(b.IPV4, b.ipv4(b.TCP, segment, identification=number))

    frames = [Frame(packet(other), len(packet(other)), FRAMES[0].ts_ns) for other in (False, True)]
    assert run(frames).weirds[Weird.PACKET_DUPLICATE] == 0
    assert run([frames[0]] * 2).weirds[Weird.PACKET_DUPLICATE] == 1
