"""The ring's blocks, and the socket filters, which the kernel runs here on datagrams instead of packets."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
from typing import Self

import numpy as np
import pytest
from captures import CAPTURES, is_pcap, read_pcap
from hypothesis import given
from hypothesis import strategies as st

from sensor.capture.bpf import KeptPorts, filter_program
from sensor.capture.frames import FRAME_DTYPE
from sensor.capture.ring import index_block
from sensor.config import Config
from sensor.decode.ip import IpProtocol
from sensor.decode.layers import N_LAYERS
from sensor.decode.packets import PACKET_DTYPE, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES, FrameStatus, Weird
from sensor.decode.watch import new_watch
from sensor.pipeline import kept_ports

BLOCK = 8192
HEADROOM = 82
ETHERNET = 1
#: What the filter may not lose. PEER takes a device that has mailed; nothing else is what the filter is for.
WANTED = (FrameStatus.MAIL, FrameStatus.DNS, FrameStatus.LAN)

packets = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 10**9 - 1),
        st.binary(max_size=200),
        st.integers(0, 1000),
        st.one_of(st.none(), st.tuples(st.sampled_from([None, 0x8100, 0x88A8]), st.integers(0, 0xFFFF))),
        st.booleans(),
    ),
    max_size=12,
)


def block_of(rows) -> bytearray:
    """A block as the kernel would write it (linux/if_packet.h)."""
    block = bytearray(48)
    for number, (seconds, nanoseconds, frame, cut, tag, by_card) in enumerate(rows):
        is_last = number == len(rows) - 1
        size = -(-(HEADROOM + len(frame)) // 8) * 8
        status = 0 if tag is None else 0x10 | (0 if tag[0] is None else 0x40)
        status |= by_card << 31  # TP_STATUS_TS_RAW_HARDWARE
        tpid, tci = (0, 0) if tag is None else (tag[0] or 0, tag[1])
        header = struct.pack(
            "=IIIIIIHHIIHH8x",
            *(0 if is_last else size, seconds, nanoseconds, len(frame), len(frame) + cut, status),
            *(HEADROOM, HEADROOM + 14, 0, tci, tpid, 0),
        )
        block += (header.ljust(HEADROOM, b"\0") + frame).ljust(size, b"\0")
    struct.pack_into("=IIII", block, 0, 1, 0, 1, len(rows))
    struct.pack_into("=I", block, 16, 48)
    return block


def indexed(block: bytearray, now_ns: int) -> tuple[list[tuple[int, bytes, int]], int]:
    """The frames of a block, and how many of them a card has stamped with another time than ours."""
    data = np.frombuffer(bytearray(BLOCK) + block.ljust(BLOCK, b"\xff") + bytearray(BLOCK), np.uint8).copy()
    frames = np.zeros(BLOCK // 96, FRAME_DTYPE)
    n_untimely = np.zeros(1, np.int64)
    n = index_block(data, BLOCK, 2 * BLOCK, frames, now_ns, n_untimely)
    found = [
        (int(f["ts_ns"]), data[f["offset"] :][: f["captured_len"]].tobytes(), int(f["wire_len"]))
        for f in frames[:n]
    ]
    return found, int(n_untimely[0])


@pytest.mark.kernel
@given(packets, st.integers(0, 2**32 - 1))
def test_blocks_are_indexed_and_tags_put_back(rows, now_s) -> None:
    expected, n_untimely = [], 0
    for seconds, nanoseconds, frame, cut, tag, by_card in rows:
        wire_len = len(frame) + cut
        inserted = b""
        if tag is not None and len(frame) >= 12:
            inserted = struct.pack("!HH", tag[0] or 0x8100, tag[1])
        whole = frame[:12] + inserted + frame[12:]
        ts_ns = seconds * 10**9 + nanoseconds
        if by_card and not -10 * 10**9 <= ts_ns - now_s * 10**9 <= 10**9:
            ts_ns = now_s * 10**9
            n_untimely += 1
        expected.append((ts_ns, whole, wire_len + len(inserted)))
    assert indexed(block_of(rows), now_s * 10**9) == (expected, n_untimely)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("off_ns", "is_believed"),
    [(0, True), (-9 * 10**9, True), (37 * 10**9, False), (-1_700_000_000 * 10**9, False)],
)
def test_a_card_that_keeps_another_time_is_not_believed(off_ns, is_believed) -> None:
    now_ns = 1_800_000_000 * 10**9
    seconds, nanoseconds = divmod(now_ns + off_ns, 10**9)
    (((ts_ns, _, _),), n_untimely) = indexed(
        block_of([(seconds, nanoseconds, b"x" * 60, 0, None, True)]), now_ns
    )
    assert (ts_ns, n_untimely) == (now_ns + off_ns * is_believed, 0 if is_believed else 1)


@pytest.mark.kernel
@given(st.binary(max_size=BLOCK - 8).map(bytearray))
def test_no_block_leads_out_of_itself(block) -> None:
    data = np.frombuffer(bytearray(BLOCK) + block.ljust(BLOCK, b"\xff") + bytearray(BLOCK), np.uint8).copy()
    frames = np.zeros(BLOCK // 96, FRAME_DTYPE)
    n = index_block(data, BLOCK, 2 * BLOCK, frames, 0, np.zeros(1, np.int64))
    assert (frames["offset"][:n] >= BLOCK).all()
    assert (frames["offset"][:n] + frames["captured_len"][:n] <= 2 * BLOCK).all()


class KernelFilter:
    """The kernel, which runs a program on what is sent: the socket's family makes no difference to it."""

    def __init__(self, program) -> None:
        self._send, self._receive = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receive.setblocking(False)
        code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
        buffer = ctypes.create_string_buffer(code, len(code))
        self._receive.setsockopt(
            socket.SOL_SOCKET, 26, struct.pack("HP", len(program), ctypes.addressof(buffer))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._send.close()
        self._receive.close()

    def keeps(self, frame: bytes) -> bytes | None:
        self._send.send(frame)
        try:
            return self._receive.recv(1 << 18)
        except BlockingIOError:
            return None


def statuses(frames: list[bytes], classes) -> list[FrameStatus]:
    found = []
    for frame in frames:
        counts = np.zeros(N_FRAME_STATUSES, np.int64)
        rows = np.zeros(1, FRAME_DTYPE)
        rows["captured_len"] = rows["wire_len"] = len(frame)
        rows["link_type"] = ETHERNET
        packets = np.zeros(1, PACKET_DTYPE)
        decode_batch(
            np.frombuffer(bytearray(frame), np.uint8),
            *(rows, 0, classes, new_watch(), packets, counts),
            *(np.zeros(N_LAYERS, np.int64), np.zeros(len(Weird), np.int64)),
        )
        status = FrameStatus(int(counts.argmax()))
        # Who is who by a request to a web server is a luxury.
        is_request = status is FrameStatus.LAN and packets[0]["proto"] == IpProtocol.TCP
        found.append(FrameStatus.OTHER if is_request else status)
    return found


def test_the_mail_filter_keeps_all_that_is_evidence() -> None:
    """Frames of every capture: the kernel's answer beside that of the decoder, which sees through every tunnel."""
    config = Config()
    classes = port_classes(config.mail_ports)
    n_kept = n_lost = 0
    with KernelFilter(filter_program(None, kept_ports(config), 1 << 18)) as kernel:
        for path in sorted(CAPTURES.rglob("*.pcap*")):
            if not path.is_file() or not is_pcap(path):
                continue
            frames = [
                f.data for f in read_pcap(path)[:40] if f.link_type == ETHERNET and 0 < len(f.data) < 60_000
            ]
            for frame, status in zip(frames, statuses(frames, classes), strict=True):
                kept = kernel.keeps(frame)
                assert kept in (frame, None)
                assert kept == frame or status not in WANTED, (path.name, status, frame.hex())
                n_kept += kept is not None
                n_lost += kept is None
    assert n_kept > 1000
    assert n_lost > 1000


@pytest.mark.parametrize("n_tags", range(5))
def test_ports_are_seen_behind_tags(n_tags) -> None:
    def frame(source: int, destination: int, protocol: int, fragment: int = 0) -> bytes:
        tags = b"".join(
            random.choice([b"\x81\x00", b"\x88\xa8", b"\x91\x00"]) + b"\0\x05" for _ in range(n_tags)
        )
        header = struct.pack("!BBHHHBBH8x4x", 0x46, 0, 100, 0, fragment, 64, protocol, 0)
        return bytes(12) + tags + b"\x08\x00" + header + struct.pack("!HH", source, destination) + bytes(40)

    program = filter_program(None, KeptPorts(frozenset({25}), frozenset({53})), 50)
    with KernelFilter(program) as kernel:
        is_blind = n_tags > 3
        for protocol, port in ((6, 25), (17, 53)):
            assert kernel.keeps(frame(port, 9, protocol)) == frame(port, 9, protocol)[:50] or n_tags
            assert kernel.keeps(frame(9, port, protocol)) is not None
            assert (kernel.keeps(frame(9, 80, protocol)) is not None) == is_blind
            assert (kernel.keeps(frame(9, port, protocol, 1)) is not None) == is_blind
        assert (kernel.keeps(frame(25, 25, 17)) is not None) == is_blind
        assert kernel.keeps(frame(9, 9, 47)) is not None


def test_without_ports_everything_is_kept_and_cut() -> None:
    with KernelFilter(filter_program(None, None, 96)) as kernel:
        assert kernel.keeps(bytes(200)) == bytes(96)
