"""Real captures for the tests: where they lie, and a reader that is too simple to be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import NamedTuple

CAPTURES = Path(__file__).parents[1].parent / "shared" / "captures"

_BYTE_ORDERS = {
    b"\xd4\xc3\xb2\xa1": "<",  # microseconds
    b"\x4d\x3c\xb2\xa1": "<",  # nanoseconds
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}


class RawFrame(NamedTuple):
    data: bytes
    wire_len: int
    link_type: int


def is_pcap(path: Path) -> bool:
    with _open(path) as file:
        return file.read(4) in _BYTE_ORDERS


def read_pcap(path: Path) -> list[RawFrame]:
    """Read a classic pcap file, gzipped or not, up to its first incomplete record."""
    with _open(path) as file:
        content = file.read()
    order = _BYTE_ORDERS[content[:4]]
    link_type = struct.unpack_from(order + "I", content, 20)[0] & 0xFFFF
    frames = []
    pos = 24
    while pos + 16 <= len(content):
        captured_len, wire_len = struct.unpack_from(order + "II", content, pos + 8)
        pos += 16
        if pos + captured_len > len(content):
            break
        frames.append(RawFrame(content[pos : pos + captured_len], wire_len, link_type))
        pos += captured_len
    return frames


def _open(path: Path):
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
