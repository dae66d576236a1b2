"""An AF_PACKET socket with a memory-mapped ring (TPACKET_V3): the kernel writes packets, we read them in place.

The ring consists of blocks. The kernel fills one after the other, hands each over when it is full or its time is
up, and drops packets, counted, when no block is free. The layouts are those of linux/if_packet.h, in the byte
order of the machine; Documentation/networking/packet_mmap.rst describes them.

One socket hears all interfaces and a socket filter picks those wanted (sensor/capture/bpf.py): the packets of a
tap's two ports come in one order, and an interface that vanished is taken up again without a capability.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType
from sensor.capture.records import NS_PER_S, put_frame, read_u16, read_u32
from sensor.errors import CaptureError
from sensor.jit import i64, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sensor.capture.bpf import Instruction

#: The kernel allocates a block in one piece; it must hold the longest packet.
BLOCK_BYTES: Final = 1 << 20

_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_RX_RING, _PACKET_STATISTICS = 1, 5, 6
_PACKET_VERSION, _PACKET_RESERVE, _PACKET_TIMESTAMP, _PACKET_IGNORE_OUTGOING = 10, 12, 17, 23
_PACKET_MR_PROMISC: Final = 1
_TPACKET_V3: Final = 2
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35  # asm-generic/socket.h

# struct tpacket_block_desc with its tpacket_hdr_v1.
_BLOCK_STATUS, _N_PACKETS, _FIRST_PACKET = 8, 12, 16
_STATUS_USER: Final = 1  # TP_STATUS_USER: the block is ours; 0 gives it back

# struct tpacket3_hdr.
_NEXT, _SEC, _NSEC, _CAPTURED_LEN, _WIRE_LEN, _STATUS, _MAC = 0, 4, 8, 12, 16, 20, 24
_VLAN_TCI, _VLAN_TPID = 32, 36
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_BY_HARDWARE: Final = 1 << 31  # TP_STATUS_TS_RAW_HARDWARE
_RAW_HARDWARE: Final = 1 << 6  # SOF_TIMESTAMPING_RAW_HARDWARE (linux/net_tstamp.h)
_TPID_8021Q: Final = 0x8100
_MACS_BYTES: Final = 12
_TAG_BYTES: Final = 4
#: The least a packet takes of a block: struct tpacket3_hdr, its sockaddr_ll, room for the link header.
_MIN_SLOT_BYTES: Final = 96
#: Of all frames: other interfaces are refused (sensor/capture/live.py).
_LINK_TYPE: Final = int(LinkType.ETHERNET)
_BIG_ENDIAN: Final = sys.byteorder == "big"
#: A network card's clock that is further ahead of ours keeps another time, TAI for one; or behind, by more than
#: packets wait for us: the time since its start.
MOST_AHEAD_NS: Final = 1 * NS_PER_S
MOST_BEHIND_NS: Final = 10 * NS_PER_S


@kernel
def index_block(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    frames: NDArray[Any],
    now_ns: int,
    n_untimely: NDArray[np.int64],
) -> int:
    """Index the packets of a block of the ring, and put back the VLAN tags that the kernel took out.

    ``data``: u8, in/out, the whole ring, of which the block is ``data[start:end]``; ``frames``: out,
    FRAME_DTYPE[n]. Returns the number of rows written. A tag goes where it was, behind the MAC addresses, which
    move into the room kept before each frame (PACKET_RESERVE). A header that leads out of the block ends it.
    ``n_untimely``: i8[1], in/out: packets whose time stamp is of a network card that keeps another time than
    ``now_ns``, ours, which stands in its place.
    """
    n_packets = min(read_u32(data, start + _N_PACKETS, end, _BIG_ENDIAN), i64(frames.size))
    pos = start + read_u32(data, start + _FIRST_PACKET, end, _BIG_ENDIAN)
    for row in range(n_packets):
        captured_len = read_u32(data, pos + _CAPTURED_LEN, end, _BIG_ENDIAN)
        wire_len = read_u32(data, pos + _WIRE_LEN, end, _BIG_ENDIAN)
        mac = read_u16(data, pos + _MAC, end, _BIG_ENDIAN)
        offset = pos + mac
        if mac < _TAG_BYTES or captured_len < 0 or captured_len > end - offset:
            return row
        status = read_u32(data, pos + _STATUS, end, _BIG_ENDIAN)
        if status & _VLAN_VALID and captured_len >= _MACS_BYTES:
            tci = read_u32(data, pos + _VLAN_TCI, end, _BIG_ENDIAN)
            tpid = read_u16(data, pos + _VLAN_TPID, end, _BIG_ENDIAN)
            if not status & _VLAN_TPID_VALID:
                tpid = i64(_TPID_8021Q)
            for i in range(offset, offset + _MACS_BYTES):
                data[i - _TAG_BYTES] = data[i]
            offset -= _TAG_BYTES
            data[offset + _MACS_BYTES] = tpid >> 8
            data[offset + _MACS_BYTES + 1] = tpid & 0xFF
            data[offset + _MACS_BYTES + 2] = (tci >> 8) & 0xFF
            data[offset + _MACS_BYTES + 3] = tci & 0xFF
            captured_len += _TAG_BYTES
            wire_len += _TAG_BYTES
        seconds = read_u32(data, pos + _SEC, end, _BIG_ENDIAN)
        ts_ns = seconds * NS_PER_S + read_u32(data, pos + _NSEC, end, _BIG_ENDIAN)
        if status & _BY_HARDWARE and not -MOST_BEHIND_NS <= ts_ns - now_ns <= MOST_AHEAD_NS:
            n_untimely[0] += 1
            ts_ns = i64(now_ns)
        put_frame(frames[row], offset, ts_ns, captured_len, wire_len, _LINK_TYPE)
        pos += read_u32(data, pos + _NEXT, end, _BIG_ENDIAN)
    return n_packets


class RingCounts(NamedTuple):
    """What the kernel counts: packets that passed the filter, those of them dropped, times the ring was full."""

    packets: int
    drops: int
    freezes: int


class Ring:
    """The socket and its ring of ``n_bytes``, rounded up to whole blocks. Nothing arrives before ``start``.

    ``block_timeout_ms``: after which the kernel hands over a block that is not full. Raises CaptureError.
    """

    def __init__(self, n_bytes: int, block_timeout_ms: int, *, ignore_outgoing: bool = False) -> None:
        n_blocks = max(2, -(-n_bytes // BLOCK_BYTES))
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except PermissionError:
            raise CaptureError(
                "capturing needs the capability CAP_NET_RAW: start it with sudo, by setpriv --ambient-caps, or as "
                "the systemd service (docs/operating.md)"
            ) from None
        except OSError as reason:
            raise CaptureError(f"no packet socket can be had: {reason.strerror}") from reason
        try:
            option = self._socket.setsockopt
            option(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            option(_SOL_PACKET, _PACKET_RESERVE, _TAG_BYTES)
            option(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # taken once, on arrival, for whoever listens
            if ignore_outgoing:
                option(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            frame_bytes = mmap.PAGESIZE  # of no meaning to TPACKET_V3, but checked
            request = (BLOCK_BYTES, n_blocks, frame_bytes, n_blocks * BLOCK_BYTES // frame_bytes)
            option(_SOL_PACKET, _PACKET_RX_RING, struct.pack("7I", *request, block_timeout_ms, 0, 0))
            memory = mmap.mmap(self._socket.fileno(), n_blocks * BLOCK_BYTES, mmap.MAP_SHARED)
        except OSError as reason:
            self._socket.close()
            size = f"{n_blocks * BLOCK_BYTES >> 20} MiB"
            raise CaptureError(f"the capture ring of {size} cannot be made: {reason.strerror}") from reason
        self._data = np.frombuffer(memory, np.uint8)
        self._status = self._data.view(np.uint32)[_BLOCK_STATUS // 4 :: BLOCK_BYTES // 4]
        self._frames = np.zeros(BLOCK_BYTES // _MIN_SLOT_BYTES, FRAME_DTYPE)
        self._n_untimely = np.zeros(1, np.int64)
        self._index(0)  # compiles it, before there are packets
        self._n_blocks = n_blocks
        self._next = 0
        self._counts = RingCounts(0, 0, 0)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLERR)

    @property
    def socket(self) -> socket.socket:
        """The socket, to ask about interfaces with."""
        return self._socket

    def attach(self, program: Sequence[Instruction]) -> None:
        """Have the kernel run a filter on each packet from now on."""
        code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
        buffer = ctypes.create_string_buffer(code, len(code))
        argument = struct.pack("HP", len(program), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)

    def start(self) -> None:
        """Let packets of all interfaces come that pass the filter."""
        # Python's bind demands the name of an interface.
        everywhere = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0)
        if ctypes.CDLL(None, use_errno=True).bind(self._socket.fileno(), everywhere, len(everywhere)) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CaptureError(f"the packet socket cannot be bound: {reason}")

    def use_hardware_time(self, *, is_used: bool) -> None:
        """Take the time stamps of a network card where it makes them, from now on, or the kernel's alone."""
        self._socket.setsockopt(_SOL_PACKET, _PACKET_TIMESTAMP, _RAW_HARDWARE if is_used else 0)

    @property
    def n_untimely(self) -> int:
        """How many packets had a time stamp of a network card that keeps another time."""
        return int(self._n_untimely[0])

    def listen_to_all(self, interface_index: int) -> None:
        """Have an interface hand over packets that are addressed to others: promiscuous mode, until we close."""
        request = struct.pack("iHH8x", interface_index, _PACKET_MR_PROMISC, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)

    def take(self, timeout_s: float) -> FrameBatch | None:
        """Wait for the next block; None if there is none in time. It is ours until ``give_back``."""
        # The system call also orders our reads after the kernel's writes, where the processor would not.
        self._poll.poll(timeout_s * 1000)
        if not self._status[self._next] & _STATUS_USER:
            return None
        n = self._index(self._next * BLOCK_BYTES)
        return FrameBatch(self._data, self._frames[:n])

    def _index(self, start: int) -> int:
        now_ns = time.time_ns()
        return int(
            index_block(self._data, start, start + BLOCK_BYTES, self._frames, now_ns, self._n_untimely)
        )

    def give_back(self) -> None:
        """Let the kernel fill the block that was taken last again."""
        self._status[self._next] = 0
        self._next = (self._next + 1) % self._n_blocks

    def use(self) -> float:
        """Return the share of the ring's blocks that wait for us, or are ours: from 0 to 1."""
        return float(np.count_nonzero(self._status & _STATUS_USER)) / self._n_blocks

    def counts(self) -> RingCounts:
        """Return what the kernel has counted since the start."""
        size = struct.calcsize("3I")
        new = struct.unpack("3I", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, size))
        self._counts = RingCounts(*(old + more for old, more in zip(self._counts, new, strict=True)))
        return self._counts

    def close(self) -> None:
        """End the capture; the memory goes when no batch is held any more."""
        self._socket.close()
