"""Small networks as packets: devices at home behind a gateway, DNS, and mail servers outside.

A ``World`` collects frames; times are seconds since ``START_NS``. ``run`` sends them through the pipeline.
Addresses outside are from RFC 5737 and RFC 3849, names from RFC 2606; those at home are private.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.capture.frames import FrameBatch, LinkType
from sensor.config import Config
from sensor.events.jsonl import event_lines
from sensor.pipeline import Pipeline
from tests import builders as build
from tests.builders import ACK, FIN, PSH, RST, SYN, TCP, UDP
from tests.builders_capture import Frame, pcap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sensor.alerts.record import Alert
    from sensor.model.artifact import Artifact

SECOND_NS = 10**9
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
#: 10:00 UTC: a day of the site's life ends 14 hours into a world.
START_NS = (20_780 * 86400 + 10 * 3600) * SECOND_NS

A, MX, TXT, AAAA = 1, 15, 16, 28
NXDOMAIN = 3
#: What a record of TLS adds to what it carries (RFC 8446 section 5.2: header, type, tag).
WRAPPING_BYTES = 22


@dataclass(frozen=True)
class Host:
    mac: int
    ip: str
    name: str = ""

    @property
    def key(self) -> str:
        return self.mac.to_bytes(6, "big").hex(":")


GATEWAY = Host(0x4C5E0C7A0101, "192.168.1.1", "gateway")
CAMERA = Host(0x4419B65D2015, "192.168.1.21", "door-camera")
PRINTER = Host(0x3CD92B813316, "192.168.1.22", "printer")
LAPTOP = Host(0xF8B156C25518, "192.168.1.24", "laptop")
MAIL_HOST = Host(0x0025904A100A, "192.168.1.10", "mail")
WEB_HOST = Host(0x0025904A100B, "192.168.1.11", "www")
SCANNER = Host(0x0025904A100C, "192.168.1.12", "scanner")
CAMERA6 = Host(CAMERA.mac, "fd00:1::21", CAMERA.name)
GATEWAY6 = Host(GATEWAY.mac, "fd00:1::1", GATEWAY.name)
HOSTS = (GATEWAY, CAMERA, PRINTER, LAPTOP, MAIL_HOST, WEB_HOST, SCANNER, CAMERA6, GATEWAY6)


def outside4(n: int) -> str:
    """The n-th of 762 addresses, spread over the three documentation networks."""
    return f"{('192.0.2', '198.51.100', '203.0.113')[n % 3]}.{1 + n // 3}"


def outside6(n: int) -> str:
    """An address in the n-th /48 of the documentation network."""
    return f"2001:db8:{n:x}::25"


class Fate(Enum):
    """How a mail server treats a connection."""

    ACCEPTED = auto()
    REJECTED = auto()  # 550 to the recipient
    DEFERRED = auto()  # 450 to the recipient
    BANNED = auto()  # 554 in place of a greeting
    GREETED = auto()  # EHLO, QUIT and no mail
    REFUSED = auto()  # RST in answer to the SYN
    UNANSWERED = auto()
    TLS = auto()  # STARTTLS, or TLS from the first byte on port 465; then a message
    LOGIN_FAILED = auto()  # in clear


class Record(NamedTuple):
    """A resource record. ``data``: an address, or the name of an exchange."""

    kind: int
    data: str
    owner: bytes | None = None  # None: the name that was asked for
    ttl_s: int = 3600


def wire_name(name: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in name.split(b".") if label) + b"\0"


def _record_bytes(record: Record, asked: bytes) -> bytes:
    if record.kind == MX:
        data = struct.pack(">H", 10) + wire_name(record.data.encode("latin-1"))
    else:
        data = ip_address(record.data).packed
    owner = wire_name(asked if record.owner is None else record.owner)
    return owner + struct.pack(">HHIH", record.kind, 1, record.ttl_s, len(data)) + data


def dns_message(
    number: int, name: bytes, qtype: int, answers: Sequence[Record] | None = None, *, rcode: int = 0
) -> bytes:
    """A query, or with ``answers`` a response (RFC 1035 section 4.1)."""
    flags = 0x0100 if answers is None else 0x8180 | rcode
    header = struct.pack(">HHHHHH", number & 0xFFFF, flags, 1, len(answers or ()), 0, 0)
    question = wire_name(name) + struct.pack(">HH", qtype, 1)
    return header + question + b"".join(_record_bytes(record, name) for record in answers or ())


def dhcp_request(mac: int, ip: str, host_name: bytes) -> bytes:
    """A DHCPREQUEST of a client that has an address (RFC 2131, RFC 2132 option 12)."""
    fixed = struct.pack(">BBBBIHH", 1, 1, 6, 0, 7, 0, 0) + ip_address(ip).packed + bytes(12)
    hardware = mac.to_bytes(6, "big").ljust(16, b"\0") + bytes(192)
    return (
        fixed
        + hardware
        + bytes.fromhex("63825363")
        + b"\x35\x01\x03"
        + bytes([12, len(host_name)])
        + host_name
        + b"\xff"
    )


@dataclass
class World:
    """Frames in the making. ``vlan``: put on each frame; a raw ``link_type`` has no MAC addresses at all."""

    link_type: int = LinkType.ETHERNET
    vlan: int | None = None
    rtt: float = 0.02
    frames: list[Frame] = field(default_factory=list)
    _macs: dict[str, int] = field(default_factory=lambda: {host.ip: host.mac for host in HOSTS})
    _next_port: int = 40000
    _next_id: int = 1
    _next_packet: int = 0

    def add(self, t: float, frame: bytes) -> None:
        """Add a finished frame at ``t``, cut to microseconds, which every capture format can keep."""
        ts_ns = START_NS + round(t * 1e6) * 1000
        self.frames.append(Frame(ts_ns, frame, len(frame), self.link_type))

    def join(self, host: Host, t: float = 0.0, *, host_name: bytes | None = None) -> None:
        """Let a device come up: ARP and DHCP."""
        self._macs[host.ip] = host.mac
        if self.link_type == LinkType.ETHERNET and ":" not in host.ip:
            self._ether(t, build.ARP, build.arp(src=host.mac, src_ip=host.ip, dst_ip=GATEWAY.ip), host.mac, 0)
            name = host.name.encode() if host_name is None else host_name
            message = build.udp(dhcp_request(host.mac, host.ip, name), src_port=68, dst_port=67)
            self.packet(t + 0.001, host.ip, GATEWAY.ip, UDP, message)

    def packet(self, t: float, src: str, dst: str, proto: int, payload: bytes) -> None:
        """Add an IP packet; what is not at home comes and goes by the gateway's MAC."""
        self._next_packet += 1
        if ":" in src:
            ip = build.ipv6(proto, payload, src=src, dst=dst)
        else:
            ip = build.ipv4(proto, payload, src=src, dst=dst, identification=self._next_packet)
        if self.link_type != LinkType.ETHERNET:
            self.add(t, ip)
            return
        ethertype = build.IPV6 if ":" in src else build.IPV4
        self._ether(t, ethertype, ip, self._mac(src), self._mac(dst))

    def _mac(self, ip: str) -> int:
        return self._macs.get(ip, GATEWAY.mac)

    def _ether(self, t: float, ethertype: int, payload: bytes, src: int, dst: int) -> None:
        if self.vlan is not None:
            ethertype, payload = build.VLAN, build.tagged(ethertype, payload, self.vlan)
        self.add(t, build.ether(ethertype, payload, src=src, dst=dst))

    def lookup(
        self,
        t: float,
        host: Host,
        name: bytes,
        qtype: int,
        answers: Sequence[Record] = (),
        *,
        resolver: str | None = None,
        rcode: int = 0,
    ) -> None:
        """Ask a resolver, the gateway unless named, and get its answer."""
        if resolver is None:
            resolver = GATEWAY6.ip if ":" in host.ip else GATEWAY.ip
        self._next_id += 1
        port = 30000 + self._next_id % 10000
        query = build.udp(dns_message(self._next_id, name, qtype), src_port=port)
        answer = dns_message(self._next_id, name, qtype, answers, rcode=rcode)
        self.packet(t, host.ip, resolver, UDP, query)
        self.packet(t + 0.004, resolver, host.ip, UDP, build.udp(answer, src_port=53, dst_port=port))

    def resolve(self, t: float, host: Host, name: str, server: str) -> None:
        """Look up the address of a host."""
        kind = AAAA if ":" in server else A
        self.lookup(t, host, name.encode(), kind, [Record(kind, server)])

    def resolve_mx(self, t: float, host: Host, domain: str, server: str) -> None:
        """Look up where a domain's mail goes, and the address of that host."""
        self.lookup(t, host, domain.encode(), MX, [Record(MX, f"mx.{domain}")])
        self.resolve(t + 0.01, host, f"mx.{domain}", server)

    def mail(
        self,
        t: float,
        host: Host,
        server: str,
        *,
        port: int = 25,
        fate: Fate = Fate.ACCEPTED,
        helo: bytes = b"host.example",
        recipients: int = 1,
        body_bytes: int = 600,
        login: bool = False,
        controller: str | None = None,
    ) -> None:
        """Let a client, at home or outside, connect to a mail server; for ``controller`` if it is a proxy."""
        self._next_port = 40000 + (self._next_port - 40000 + 1) % 20000
        stream = _Stream(self, t, host.ip, server, self._next_port, port, controller)
        if fate == Fate.UNANSWERED:
            for delay in (0.0, 1.0, 3.0, 7.0):
                stream.client(flags=SYN, at=t + delay)
            return
        stream.client(flags=SYN)
        if fate == Fate.REFUSED:
            stream.server(flags=RST | ACK)
            return
        stream.server(flags=SYN | ACK)
        stream.client()
        if port == 465:
            stream.tls(body_bytes if fate == Fate.TLS else 0)
        else:
            _speak(stream, fate, helo, recipients, body_bytes, login=login)
        stream.client(flags=FIN | ACK)
        stream.server(flags=FIN | ACK)
        stream.client()

    def say(self, t: float, src: str, dst: str, n_bytes: int, *, flags: int = ACK) -> None:
        """Send bytes over an HTTPS connection whose server is outside, in segments of an ordinary size."""
        ports = (443, 50000) if src not in self._macs else (50000, 443)
        for at in range(0, max(n_bytes, 1), 1400):
            payload = bytes(min(1400, n_bytes - at))
            segment = build.tcp(payload, src_port=ports[0], dst_port=ports[1], flags=flags)
            self.packet(t, src, dst, TCP, segment)

    def in_order(self) -> list[Frame]:
        """All frames by time."""
        return sorted(self.frames, key=lambda frame: frame.ts_ns)

    def write(self, path: Path) -> Path:
        path.write_bytes(pcap(self.in_order()))
        return path


class _Stream:
    """One TCP connection; each segment takes half a round trip."""

    def __init__(
        self,
        world: World,
        t: float,
        orig: str,
        resp: str,
        orig_port: int,
        resp_port: int,
        controller: str | None = None,
    ) -> None:
        self._world = world
        self._controller = controller
        self._t = t
        self._ends = (orig, orig_port), (resp, resp_port)
        self._next = [1_000_000 + orig_port * 7919, 5_000_000 + orig_port * 104729]

    def client(self, payload: bytes = b"", *, flags: int = ACK, at: float | None = None) -> None:
        if at is not None:
            self._t = at
            self._next[0] = 1_000_000 + self._ends[0][1] * 7919
        self._send(0, payload, flags)

    def server(self, payload: bytes = b"", *, flags: int = ACK) -> None:
        self._send(1, payload, flags)

    @property
    def server_name(self) -> bytes:
        """Each server goes under a name of its own, and is an operator of its own."""
        return f"mx.host-{self._ends[1][0].replace('.', '-').replace(':', '-')}.example".encode()

    def ask(self, command: bytes, reply: bytes) -> None:
        self.client(command + b"\r\n")
        self.server(reply + b"\r\n")

    def tls(self, client_bytes: int) -> None:
        """Say what looks like TLS 1.2 (RFC 5246 section 6.2.1): a handshake, then application data."""
        self.client(tls_record(22, b"\x01" + bytes(300)))
        self.server(tls_record(22, b"\x02" + bytes(1200)))
        self.client(tls_record(22, bytes(100)))
        self.server(tls_record(22, bytes(50)))
        for size in (40, 60, 40, *(min(1300, client_bytes - at) for at in range(0, client_bytes, 1300))):
            self.client(tls_record(23, bytes(size)))
            self.server(tls_record(23, bytes(40)))

    def _send(self, side: int, payload: bytes, flags: int) -> None:
        (src, src_port), (dst, dst_port) = self._ends[side], self._ends[1 - side]
        segment = build.tcp(
            payload,
            src_port=src_port,
            dst_port=dst_port,
            seq=self._next[side] & 0xFFFFFFFF,
            ack=self._next[1 - side] & 0xFFFFFFFF,
            flags=flags | (PSH if payload else 0),
        )
        self._world.packet(self._t, src, dst, TCP, segment)
        if payload and self._controller is not None:
            # Over a connection that is open all along: what to say just before, the reply just after.
            ends = (self._controller, src) if side == 0 else (dst, self._controller)
            delay = -0.004 if side == 0 else 0.004
            self._world.say(self._t + delay, *ends, len(payload) + WRAPPING_BYTES)
        self._next[side] += len(payload) + (1 if flags & (SYN | FIN) else 0)
        self._t += self._world.rtt / 2


def tls_record(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, len(payload)) + payload


def _speak(
    stream: _Stream, fate: Fate, helo: bytes, recipients: int, body_bytes: int, *, login: bool
) -> None:
    if fate == Fate.BANNED:
        stream.server(b"554 5.7.1 go away\r\n")
        stream.ask(b"QUIT", b"221 bye")
        return
    stream.server(b"220 " + stream.server_name + b" ESMTP\r\n")
    stream.ask(b"EHLO " + helo, b"250-mx.example\r\n250-STARTTLS\r\n250 AUTH PLAIN")
    if fate == Fate.TLS:
        stream.ask(b"STARTTLS", b"220 2.0.0 go ahead")
        stream.tls(body_bytes + 600)
        return
    if fate == Fate.LOGIN_FAILED:
        stream.ask(b"AUTH PLAIN AHgAeA==", b"535 5.7.8 no")
    elif fate != Fate.GREETED:
        if login:
            stream.ask(b"AUTH PLAIN AHgAeA==", b"235 2.7.0 welcome")
        _send_message(stream, fate, recipients, body_bytes)
    stream.ask(b"QUIT", b"221 2.0.0 bye")


def _send_message(stream: _Stream, fate: Fate, recipients: int, body_bytes: int) -> None:
    stream.ask(b"MAIL FROM:<someone@sender.example>", b"250 2.1.0 ok")
    for i in range(recipients):
        reply = {Fate.REJECTED: b"550 5.1.1 nobody here", Fate.DEFERRED: b"450 4.2.0 try again later"}
        stream.ask(b"RCPT TO:<user%d@recipient.example>" % i, reply.get(fate, b"250 2.1.5 ok"))
    if fate == Fate.ACCEPTED:
        stream.ask(b"DATA", b"354 go on")
        body = b"Subject: hello\r\n\r\n" + b"x" * 70 + b"\r\n"
        stream.client((body * (1 + body_bytes // len(body)))[: max(body_bytes, 20)] + b"\r\n.\r\n")
        stream.server(b"250 2.0.0 queued\r\n")


# Running.


class Run(NamedTuple):
    """All that a run gives."""

    alerts: list[Alert]
    events: bytes
    windows: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    stats: dict[str, Any]

    def started(self, event_type: str = "alert") -> dict[str, Alert]:
        """The first records of their kind, by the device's key."""
        found: dict[str, Alert] = {}
        for alert in self.alerts:
            if alert.event_type == event_type and alert.state == "started":
                found.setdefault(alert.device.key, alert)
        return found


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def run(
    batches: Iterable[FrameBatch],
    config: Config | None = None,
    *,
    with_events: bool = False,
    artifact: Artifact | None = None,
) -> Run:
    """Send batches through a new pipeline; ``artifact``: the trained model that judges beside the index."""
    alerts: list[Alert] = []
    events: list[bytes] = []
    windows: list[dict[str, Any]] = []
    pipeline = Pipeline(
        config or Config(),
        on_alert=alerts.append,
        on_events=(lambda rows, text: events.append(event_lines(rows, text))) if with_events else None,
        on_window=lambda columns: windows.extend(rows_of(columns)),
        artifact=artifact,
    )
    for batch in batches:
        pipeline.feed(batch)
    pipeline.finish()
    return Run(alerts, b"".join(events), windows, rows_of(pipeline.device_table()), pipeline.stats())


def run_world(
    world: World,
    config: Config | None = None,
    *,
    with_events: bool = False,
    artifact: Artifact | None = None,
) -> Run:
    return run(batches(world.in_order()), config, with_events=with_events, artifact=artifact)


def batches(frames: Sequence[Frame], sizes: Iterable[int] | None = None) -> Iterator[FrameBatch]:
    """Yield frames in batches of ``sizes``, the rest in the last one.

    As with a real source, a batch is gone when the next is asked for: its bytes are overwritten.
    """
    begin = 0
    for size in [*(sizes or ()), len(frames)]:
        part = frames[begin : begin + size]
        begin += len(part)
        if part:
            batch = build.batch(
                [frame.data for frame in part],
                link_type=[frame.link_type for frame in part],
                wire_lens=[frame.wire_len for frame in part],
                ts_ns=[frame.ts_ns for frame in part],
            )
            yield batch
            batch.data[:] = 0xEE
            batch.frames.view(np.uint8)[:] = 0xEE
