"""Writers of capture files: plain struct, independent of the readers in sensor/capture."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sensor.capture.frames import FRAME_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sensor.capture.frames import FrameBatch


@dataclass(frozen=True)
class Frame:
    ts_ns: int
    data: bytes
    wire_len: int
    link_type: int = 1


def read_frames(batches: Iterable[FrameBatch]) -> list[Frame]:
    """Copy frames out of their batches, which are borrowed."""
    frames = []
    for batch in batches:
        assert batch.data.dtype == "u1"
        assert batch.data.flags.writeable
        assert batch.data.flags.c_contiguous
        assert batch.frames.dtype == FRAME_DTYPE
        assert len(batch.frames) > 0
        for row in batch.frames:
            start, length = int(row["offset"]), int(row["captured_len"])
            assert 0 <= start <= start + length <= batch.data.size
            data = batch.data[start : start + length].tobytes()
            frames.append(Frame(int(row["ts_ns"]), data, int(row["wire_len"]), int(row["link_type"])))
    return frames


# --- pcap ---------------------------------------------------------------------------------------------------


def pcap_header(
    layout: str = "<", *, nano: bool = False, link_field: int = 1, version: tuple[int, int] = (2, 4)
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    return struct.pack(f"{layout}IHHIIII", magic, *version, 0, 0, 262144, link_field)


def pcap_record(frame: Frame, layout: str = "<", *, nano: bool = False) -> bytes:
    seconds, rest_ns = divmod(frame.ts_ns, 10**9)
    fraction = rest_ns if nano else rest_ns // 1000
    return struct.pack(f"{layout}IIII", seconds, fraction, len(frame.data), frame.wire_len) + frame.data


def pcap(frames: Sequence[Frame], layout: str = "<", *, nano: bool = False) -> bytes:
    """One file, so one link type: that of the first frame."""
    link_type = frames[0].link_type if frames else 1
    records = (pcap_record(frame, layout, nano=nano) for frame in frames)
    return pcap_header(layout, nano=nano, link_field=link_type) + b"".join(records)


def as_pcap(frame: Frame, link_type: int, *, nano: bool) -> Frame:
    """What a pcap file can keep of a frame."""
    return replace(frame, link_type=link_type, ts_ns=frame.ts_ns if nano else frame.ts_ns // 1000 * 1000)


# --- pcapng -------------------------------------------------------------------------------------------------


def block(layout: str, block_type: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(f"{layout}II", block_type, length) + body + struct.pack(f"{layout}I", length)


def option(layout: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{layout}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(layout: str = "<", *, version: tuple[int, int] = (1, 0), options: bytes = b"") -> bytes:
    return block(layout, 0x0A0D0D0A, struct.pack(f"{layout}IHHq", 0x1A2B3C4D, *version, -1) + options)


def interface(
    layout: str = "<",
    *,
    link_type: int = 1,
    snaplen: int = 0,
    tsresol: int | None = None,
    tsoffset: int | None = None,
) -> bytes:
    options = option(layout, 2, b"eth0")
    if tsresol is not None:
        options += option(layout, 9, bytes([tsresol]))
    if tsoffset is not None:
        options += option(layout, 14, struct.pack(f"{layout}q", tsoffset))
    options += option(layout, 0, b"")
    return block(layout, 1, struct.pack(f"{layout}HHI", link_type, 0, snaplen) + options)


def enhanced_packet(
    layout: str, interface_id: int, units: int, data: bytes, wire_len: int, options: bytes = b""
) -> bytes:
    head = struct.pack(f"{layout}IIIII", interface_id, units >> 32, units & 0xFFFFFFFF, len(data), wire_len)
    return block(layout, 6, head + data + bytes(-len(data) % 4) + options)


def obsolete_packet(layout: str, interface_id: int, units: int, data: bytes, wire_len: int) -> bytes:
    head = struct.pack(
        f"{layout}HHIIII", interface_id, 7, units >> 32, units & 0xFFFFFFFF, len(data), wire_len
    )
    return block(layout, 2, head + data)


def simple_packet(layout: str, data: bytes, wire_len: int) -> bytes:
    return block(layout, 3, struct.pack(f"{layout}I", wire_len) + data)


def unknown_block(layout: str, n_bytes: int = 20) -> bytes:
    return block(layout, 0x0BAD, bytes(n_bytes))


# --- damage -------------------------------------------------------------------------------------------------


def modified_pcap(frames: Sequence[Frame], layout: str = "<", *, magic: int, extra: bytes) -> bytes:
    """A variant of pcap whose records have ``extra`` before the frame; microseconds."""
    header = struct.pack(f"{layout}IHHIIII", magic, 2, 4, 0, 0, 262144, 1)
    records = (pcap_record(frame, layout) for frame in frames)
    return header + b"".join(record[:16] + extra + record[16:] for record in records)
