"""Files that somebody may take for a capture that we read: what they are, and what to do with them.

Sources: the magic numbers in Wireshark's wiretap and in the files' own specifications.
"""

from __future__ import annotations

import string
import struct
from typing import TYPE_CHECKING, Final

from sensor.errors import CaptureFormatError

if TYPE_CHECKING:
    from sensor.capture.bytesource import ByteSource

#: Enough of a file to tell a format that has no magic number.
FOREIGN_HEAD_BYTES: Final = 4 << 10


class NotACaptureError(CaptureFormatError):
    """The file begins like no capture format that we know, not even like one that we cannot read."""


_CONVERT: Final = "convert it with editcap -F pcap, which comes with Wireshark"
_ANEW: Final = "no program is known to convert it: capture with tcpdump -w"
_UNPACK: Final = "unpack it first"
_NO_PACKETS: Final = "it holds no packets: capture them with tcpdump -w"

#: What a file is by how it begins, and what to do.
_FORMATS: Final = {
    bytes.fromhex("4d3c2ba1"): ("modified pcap (Navtel)", _ANEW),
    bytes.fromhex("a12b3c4d"): ("modified pcap (Navtel)", _ANEW),
    bytes.fromhex("cd34b2a1"): ("modified pcap (Mesquita)", _ANEW),
    bytes.fromhex("a1b234cd"): ("modified pcap (Mesquita)", _ANEW),
    b"snoop\0\0\0": ("snoop", _CONVERT),
    b"btsnoop\0": ("btsnoop", _CONVERT),
    b"iptrace 1.0": ("AIX iptrace", _CONVERT),
    b"iptrace 2.0": ("AIX iptrace", _CONVERT),
    b"RTSS": ("Microsoft Network Monitor 1", _CONVERT),
    b"GMBU": ("Microsoft Network Monitor 2", _CONVERT),
    b"XCP\0": ("NetXray", _CONVERT),
    b"VL\0\0": ("NetXray", _CONVERT),
    b"TRSNIFF data": ("Sniffer", _CONVERT),
    b"\x05VNF": ("Visual Networks", _CONVERT),
    b"\x7fver": ("WildPackets tagged", _CONVERT),
    bytes.fromhex("42d2003412662288"): ("RADCOM", _CONVERT),
    bytes.fromhex("0000020012050010"): ("Tektronix K12", _CONVERT),
    bytes.fromhex("aaaaaaaa"): ("InfoVista 5View", _CONVERT),
    bytes.fromhex("5452006400"): ("HP-UX nettl", _CONVERT),
    bytes.fromhex("0110"): ("LANalyzer", _CONVERT),
    bytes.fromhex("0710"): ("LANalyzer", _CONVERT),
    b"\x0c\xa5": ("nfdump", _NO_PACKETS),
    b"LPKSHHRH": ("systemd journal", _NO_PACKETS),
    b"\x1f\x8b": ("gzip within another compression", _UNPACK),
    b"\xfd7zXZ\0": ("xz within another compression", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("zstd within another compression", _UNPACK),
    b"BZh": ("bzip2 within another compression", _UNPACK),
    bytes.fromhex("04224d18"): ("lz4", _UNPACK),
    b"\x1f\x9d": ("compress (.Z)", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", _UNPACK),
    b"PK\x03\x04": ("zip", _UNPACK),
}


def refusal(source: ByteSource) -> CaptureFormatError:
    """Return the error that says what a capture is, if it is none that we read, and what to do with it."""
    source.prefetch(FOREIGN_HEAD_BYTES)
    head = source.head(FOREIGN_HEAD_BYTES)
    if not head:
        return source.format_error("there is nothing in it")
    for magic, (name, advice) in _FORMATS.items():
        if head.startswith(magic) and (name != "LANalyzer" or _is_lanalyzer(head)):
            return source.format_error(f"{name} is not read: {advice}")
    if _is_erf(head):
        return source.format_error(f"ERF (Endace) is not read: {_CONVERT}")
    is_text = not head[:16].translate(None, string.printable.encode())
    what = "it is plain text" if is_text else f"it begins with {head[:16].hex()}"
    return NotACaptureError(str(source.format_error(f"neither pcap nor pcapng: {what}")))


def _is_lanalyzer(head: bytes) -> bool:
    """Tell whether a chain of records follows: a type of two bytes, a length of two, and that many bytes.

    Types lie between 0x1000 and 0x10ff; the first length is small.
    """
    if len(head) < 4:
        return False
    length = int.from_bytes(head[2:4], "little")
    return head[5 + length : 6 + length] == b"\x10"


_ERF_BYTES: Final = 16
_ERF_RECORDS: Final = 2
_ERF_LAST_TYPE: Final = 48


def _is_erf(head: bytes) -> bool:
    """Tell whether a chain of ERF records follows, which have no magic number (Endace, "ERF types").

    A record: time in units of 2**-32 s, type, flags, length with this header, counter, length on the wire.
    """
    pos = 0
    last_s = 0
    for _ in range(_ERF_RECORDS):
        if len(head) - pos < _ERF_BYTES:
            return False
        _, seconds, kind, _ = struct.unpack_from("<IIBB", head, pos)
        length, _, wire_len = struct.unpack_from(">HHH", head, pos + 10)
        if length < _ERF_BYTES or wire_len == 0 or not 1 <= kind & 0x7F <= _ERF_LAST_TYPE:
            return False
        if seconds < max(last_s, 1 << 29):  # 1987: before there was any
            return False
        last_s = seconds
        pos += length
    return True
