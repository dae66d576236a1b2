"""One packet in detail, or one line for each: what decoding makes of a capture, for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.capture.frames import LinkType
from sensor.capture.linktypes import link_type_text
from sensor.decode.ip import IpProtocol
from sensor.decode.layers import N_LAYERS, Layer, session_text
from sensor.decode.link import EtherType
from sensor.decode.packets import PACKET_DTYPE, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES, N_WEIRDS, FrameStatus, Weird
from sensor.decode.watch import new_watch
from sensor.notation import address_text, endpoint_text, eve_time, mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from sensor.capture.frames import FrameBatch

_HEX_COLUMNS: Final = 16
_PROTOCOLS: Final[dict[int, str]] = {
    IpProtocol.TCP: "TCP",
    IpProtocol.UDP: "UDP",
    IpProtocol.ICMPV6: "ICMPv6",
    EtherType.ARP: "ARP",
    EtherType.LLDP: "LLDP",
    EtherType.CDP: "CDP",
}
_TCP_FLAGS: Final = "FSRPAUEC"  # FIN is bit 0 (RFC 9293 section 3.1)


class _Decoded:
    """What decoding made of one frame: its status, its weirds, and its columns if it is of interest."""

    def __init__(self, batch: FrameBatch, row: int, ports: NDArray[Any]) -> None:
        packets = np.zeros(1, PACKET_DTYPE)
        statuses = np.zeros(N_FRAME_STATUSES, np.int64)
        peeled = np.zeros(N_LAYERS, np.int64)
        weirds = np.zeros(N_WEIRDS, np.int64)
        n_packets, _ = decode_batch(
            batch.data, batch.frames[row : row + 1], 0, ports, new_watch(), packets, statuses, peeled, weirds
        )
        self.frame = batch.frames[row]
        self.status = FrameStatus(int(statuses.argmax()))
        self.peeled = [Layer(int(number)).name.lower() for number in np.flatnonzero(peeled)]
        self.weirds = [Weird(int(number)).name.lower() for number in np.flatnonzero(weirds)]
        self.packet = packets[0] if n_packets else None


def packet_lines(batches: Iterable[FrameBatch], mail_ports: Iterable[int]) -> Iterator[str]:
    """Yield one line per frame: number (from 1), time, wire length, status, and what was decoded of it."""
    ports = port_classes(mail_ports)
    number = 0
    for batch in batches:
        for row in range(len(batch.frames)):
            number += 1
            yield _summary(number, _Decoded(batch, row, ports))


def packet_detail(batches: Iterable[FrameBatch], number: int, mail_ports: Iterable[int]) -> list[str]:
    """Return the columns and the bytes of frame ``number`` (from 1); an empty list if there are fewer."""
    first = 1
    for batch in batches:
        if number < first + len(batch.frames):
            decoded = _Decoded(batch, number - first, port_classes(mail_ports))
            frame = decoded.frame
            raw = batch.data[frame["offset"] :][: frame["captured_len"]].tobytes()
            return [*_columns(number, decoded), "", *hex_lines(raw)]
        first += len(batch.frames)
    return []


def _summary(number: int, decoded: _Decoded) -> str:
    frame, packet = decoded.frame, decoded.packet
    status = decoded.status.name.lower()
    line = f"{number:>8}  {eve_time(int(frame['ts_ns']))}  {frame['wire_len']:>6}  {status:<9}"
    if packet is not None:
        line += (
            f"  {_protocol_name(packet)} {_endpoint(packet, 'src')} > {_endpoint(packet, 'dst')}"
            f" {packet['payload_len']} bytes"
        )
    if decoded.weirds:
        line += f"  [{', '.join(decoded.weirds)}]"
    return line.rstrip()


def _protocol_name(packet: Any) -> str:
    protocol = int(packet["proto"])
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")


def _endpoint(packet: Any, side: str) -> str:
    address = address_text(int(packet[f"{side}_hi"]), int(packet[f"{side}_lo"]))
    port = int(packet[f"{side}_port"])
    return endpoint_text(address, port) if port else address


def _columns(number: int, decoded: _Decoded) -> list[str]:
    frame, packet = decoded.frame, decoded.packet
    link_type = int(frame["link_type"])
    link_text = link_type_text(link_type) + ("" if link_type in frozenset(LinkType) else ", not decoded")
    rows = [
        ("packet", str(number)),
        ("time", f"{eve_time(int(frame['ts_ns']))} ({frame['ts_ns']} ns)"),
        ("captured", f"{frame['captured_len']} of {frame['wire_len']} bytes"),
        ("link type", link_text),
        ("status", decoded.status.name.lower()),
        ("peeled", ", ".join(decoded.peeled) or "nothing"),
        ("weirds", ", ".join(decoded.weirds) or "none"),
    ]
    if packet is not None:
        flags = int(packet["tcp_flags"])
        rows += [
            ("MAC", f"{mac_text(int(packet['src_mac']))} > {mac_text(int(packet['dst_mac']))}"),
            ("VLAN", str(packet["vlan"]) if packet["vlan"] >= 0 else "none"),
            ("session", session_text(int(packet["session"])) or "none"),
            ("protocol", _protocol_name(packet)),
            ("source", _endpoint(packet, "src")),
            ("destination", _endpoint(packet, "dst")),
            ("TCP flags", "".join(n for bit, n in enumerate(_TCP_FLAGS) if flags >> bit & 1) or "none"),
            ("sequence", f"{packet['seq']}, acknowledges {packet['ack']}"),
            ("payload", _payload_text(frame, packet)),
        ]
    return [f"{label:<12}{text}" for label, text in rows]


def _payload_text(frame: Any, packet: Any) -> str:
    start, end = packet["payload_start"] - frame["offset"], packet["payload_end"] - frame["offset"]
    return f"{packet['payload_len']} bytes on the wire, bytes {start} to {end} of the frame captured"


def hex_lines(raw: bytes) -> list[str]:
    """Write bytes as hex and ASCII, 16 a line, like ``hexdump -C`` and as safe for a terminal."""
    lines = []
    for at in range(0, len(raw), _HEX_COLUMNS):
        part = raw[at : at + _HEX_COLUMNS]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{at:06x}  {part.hex(' '):<{3 * _HEX_COLUMNS - 1}}  {shown}")
    return lines
