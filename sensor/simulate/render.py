"""From sessions to packets: complete frames, with checksums, in the order of time.

A session is a list of turns: what one side sends before the other answers, half a round trip after the turn
before. All segments of a turn carry one time. Content is filler; what is not read by the sensor is as in a
healthy packet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType
from sensor.simulate.sessions import TLS_KEY_BYTES, Outcome, Scene, Shape, View, What, unpack_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from numpy.typing import NDArray

    from sensor.simulate.sessions import Ints

_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_TCP, _UDP = 6, 17
_IPV4, _ARP, _VLAN, _IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
_A, _MX, _AAAA, _IN = 1, 15, 28, 1
_NXDOMAIN = 3
_IPV4_MAPPED = 0xFFFF
_U64 = (1 << 64) - 1
_S = 1_000_000_000

DNS_TTL_S = 300
#: Content per segment: an Ethernet MTU less the headers of TCP and IPv6, with room for TCP options.
SEGMENT_BYTES = 1400
#: A SOCKS5 request with a host name (RFC 1928 section 4), and the ports of the connection that it comes by.
CONNECT_BYTES = 30
CONTROLLER_PORTS = (45001, 1080)
#: Records of TLS 1.2 with a header, a nonce and a tag (RFC 5288): with EHLO and a name, and with QUIT.
_EHLO_BYTES, _QUIT_BYTES = 56, 35
#: The largest TLS record (RFC 8446 section 5.1).
_RECORD_BYTES = 16384
#: SYNs are sent again after 1 s, doubled each time (RFC 6298 section 2).
_SYN_WAITS_NS = tuple(_S << i for i in range(6))
#: Options and window of a SYN by operating system, as p0f's signatures describe the common ones [M].
STACKS = (
    (bytes.fromhex("020405b40402080a0000000000000000") + bytes.fromhex("01030307"), 64240),  # Linux
    (bytes.fromhex("020405b40103030801010402"), 64240),  # Windows
    (bytes.fromhex("020405b4"), 5840),  # small embedded stacks
    (
        bytes.fromhex("020405b4010303060101080a0000000000000000") + bytes.fromhex("04020000"),
        65535,
    ),  # macOS, iOS
)
_NO_MAC = 0


class Turn(NamedTuple):
    """What one side sends at once; ``wait_ns``: beyond half a round trip after the turn before."""

    is_orig: bool
    payload: bytes
    flags: int = _ACK
    wait_ns: int = 0


class Words(NamedTuple):
    """What a session says that its shape leaves open."""

    name: bytes
    sender: bytes
    other: bytes
    server: bytes
    body: int


class Frame(NamedTuple):
    """A frame and its time."""

    ts_ns: int
    data: bytes


# What is said.


def mail_turns(shape: Shape, words: Words) -> list[Turn]:
    """Return the turns of a mail connection."""
    outcome = shape.outcome
    if outcome == Outcome.UNANSWERED:
        waits = (0, *_SYN_WAITS_NS)[: 1 + shape.rejected]
        return [Turn(True, b"", _SYN, wait) for wait in waits]
    turns = [Turn(True, b"", _SYN)]
    if outcome == Outcome.REFUSED:
        return [*turns, Turn(False, b"", _RST | _ACK)]
    turns += [Turn(False, b"", _SYN | _ACK), Turn(True, b"")]
    if shape.implicit_tls:
        turns += _tls_turns(shape.outcome, words.body)
    else:
        turns += _dialogue_turns(shape, words)
    return [*turns, Turn(True, b"", _FIN | _ACK), Turn(False, b"", _FIN | _ACK), Turn(True, b"")]


def _ask(command: bytes, reply: bytes) -> list[Turn]:
    return [Turn(True, command + b"\r\n", _ACK | _PSH), Turn(False, reply + b"\r\n", _ACK | _PSH)]


def _dialogue_turns(shape: Shape, words: Words) -> list[Turn]:
    quit_turns = _ask(b"QUIT", b"221 2.0.0 bye")
    if shape.outcome == Outcome.BANNED:
        refusal = (
            b" 5.7.1 blocked using zen.spamhaus.org" if shape.listed else b" no SMTP service for you here"
        )
        return [Turn(False, b"554 " + words.server + refusal + b"\r\n", _ACK | _PSH), *quit_turns]
    turns = [Turn(False, b"220 " + words.server + b" ESMTP\r\n", _ACK | _PSH)]
    hello = b"250-" + words.server + b"\r\n250-SIZE 35882577\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN"
    turns += _ask(b"EHLO " + words.name, hello)
    if shape.outcome in (Outcome.TLS_MESSAGE, Outcome.TLS_EMPTY):
        return [*turns, *_ask(b"STARTTLS", b"220 2.0.0 go ahead"), *_tls_turns(shape.outcome, words.body)]
    if shape.outcome == Outcome.LOGIN_FAILED:
        turns += _ask(b"AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=", b"535 5.7.8 authentication failed")
    elif shape.outcome != Outcome.GREETED:
        if shape.login:
            turns += _ask(b"AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=", b"235 2.7.0 welcome")
        turns += _transaction_turns(shape, words)
    return [*turns, *quit_turns]


def _transaction_turns(shape: Shape, words: Words) -> list[Turn]:
    turns = _ask(b"MAIL FROM:<sender@" + words.sender + b">", b"250 2.1.0 ok")
    refusal = b"554 5.7.1 blocked using zen.spamhaus.org" if shape.listed else b"550 5.1.1 no such user"
    rcpt = b"RCPT TO:<recipient@" + words.other + b">"
    if shape.outcome == Outcome.DEFERRED:
        return turns + _ask(rcpt, b"450 4.2.0 greylisted, try again later")
    for _ in range(shape.rejected):
        turns += _ask(rcpt, refusal)
    for _ in range(shape.accepted):
        turns += _ask(rcpt, b"250 2.1.5 ok")
    if shape.accepted:
        is_refused = shape.outcome == Outcome.CONTENT_REFUSED
        verdict = b"554 5.7.1 message looks like spam" if is_refused else b"250 2.0.0 queued"
        turns += _ask(b"DATA", b"354 go on")
        line = b"x" * 74 + b"\r\n"
        content = (line * (words.body // len(line) + 1))[: words.body] + b"\r\n.\r\n"
        turns += [Turn(True, content, _ACK | _PSH), Turn(False, verdict + b"\r\n", _ACK | _PSH)]
    return turns


def _tls_turns(outcome: int, body: int) -> list[Turn]:
    """TLS 1.2 (RFC 5246): a handshake, then ``body`` bytes of records from the client, of which most are one flight."""
    turns = [
        Turn(True, _record(22, 512)),
        Turn(False, _record(22, 2900)),
        Turn(True, _record(22, TLS_KEY_BYTES)),
        Turn(False, _record(22, 51)),
    ]
    flight = b""
    if outcome == Outcome.TLS_EMPTY:
        login = max(body - _EHLO_BYTES - _QUIT_BYTES, 6)
        flight = _record(23, _EHLO_BYTES) + _record(23, login) + _record(23, _QUIT_BYTES)
    while len(flight) < body:
        flight += _record(23, max(min(_RECORD_BYTES, body - len(flight)), 6))
    return [*turns, Turn(True, flight[:body]), Turn(False, _record(23, 60))]


def _record(kind: int, size: int) -> bytes:
    """Return a TLS record of ``size`` bytes with its header of five."""
    return struct.pack(">BHH", kind, 0x0303, size - 5) + bytes(size - 5)


def _wire_name(name: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in name.split(b".") if label) + b"\0"


def _dns_messages(shape: Shape, words: Words, address: bytes, number: int) -> tuple[bytes, bytes]:
    """Return a query and its response (RFC 1035 section 4.1)."""
    qtype = _MX if shape.what == What.LOOKUP_MX else _AAAA if shape.is_v6 else _A
    question = _wire_name(words.name) + struct.pack(">HH", qtype, _IN)
    query = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question
    if shape.what in (What.LOOKUP_NOTHING, What.LOOKUP_LISTED):
        return query, struct.pack(">HHHHHH", number, 0x8180 | _NXDOMAIN, 1, 0, 0, 0) + question
    data = struct.pack(">H", 10) + _wire_name(words.other) if qtype == _MX else address
    owner = b"\xc0\x0c"  # the name of the question (section 4.1.4)
    record = owner + struct.pack(">HHIH", qtype, _IN, DNS_TTL_S, len(data)) + data
    return query, struct.pack(">HHHHHH", number, 0x8180, 1, 1, 0, 0) + question + record


def _dhcp_message(kind: int, mac: bytes, address: bytes, host_name: bytes) -> bytes:
    """Return a DHCPREQUEST (3) or DHCPACK (5) (RFC 2131 figure 1; RFC 2132 options 53 and 12)."""
    is_ack = kind == 5
    yours = address if is_ack else bytes(4)
    fixed = struct.pack(">BBBBIHH", 2 if is_ack else 1, 1, 6, 0, 7, 0, 0)
    fixed += (bytes(4) if is_ack else address) + yours + bytes(8) + mac.ljust(16, b"\0") + bytes(192)
    options = b"\x63\x82\x53\x63\x35\x01" + bytes([kind])
    if not is_ack:
        options += bytes([12, len(host_name)]) + host_name
    return fixed + options + b"\xff"


# How it looks on the wire.


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071): 2**16 is 1 modulo 2**16 - 1."""
    total = int.from_bytes(data + b"\0" * (len(data) & 1), "big") % 0xFFFF
    return ~total & 0xFFFF if total or not any(data) else 0


class _End(NamedTuple):
    address: bytes  # 4 or 16 octets
    mac: bytes
    ttl: int
    stack: int


def _end_of(row: Any) -> _End:
    hi, lo = int(row["hi"]) & _U64, int(row["lo"]) & _U64
    packed = (lo & 0xFFFFFFFF).to_bytes(4, "big") if hi == 0 else (hi << 64 | lo).to_bytes(16, "big")
    return _End(packed, max(int(row["mac"]), _NO_MAC).to_bytes(6, "big"), int(row["ttl"]), int(row["stack"]))


def _ether(src: bytes, dst: bytes, ethertype: int, payload: bytes, vlan: int) -> bytes:
    tag = b"" if vlan < 0 else struct.pack(">HH", _VLAN, vlan)
    return dst + src + tag + struct.pack(">H", ethertype) + payload


def _ip_frame(src: _End, dst: _End, proto: int, segment: bytes, checksum_at: int, vlan: int) -> bytes:
    """Return a frame with a TCP segment or UDP datagram, whose checksum belongs at ``checksum_at``."""
    pseudo = src.address + dst.address + struct.pack(">II", len(segment), proto)
    checksum = _checksum(pseudo + segment) or (0xFFFF if proto == _UDP else 0)
    segment = segment[:checksum_at] + struct.pack(">H", checksum) + segment[checksum_at + 2 :]
    if len(src.address) == 16:
        header = struct.pack(">IHBB", 6 << 28, len(segment), proto, src.ttl) + src.address + dst.address
        return _ether(src.mac, dst.mac, _IPV6, header + segment, vlan)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, src.ttl, proto, 0)
    header += src.address + dst.address
    header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
    return _ether(src.mac, dst.mac, _IPV4, header + segment, vlan)


def _udp_frame(src: _End, dst: _End, ports: tuple[int, int], payload: bytes, vlan: int) -> bytes:
    datagram = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    return _ip_frame(src, dst, _UDP, datagram, 6, vlan)


def _tcp_frame(
    src: _End, dst: _End, ports: tuple[int, int], seq: int, ack: int, flags: int, payload: bytes, vlan: int
) -> bytes:
    options, window = STACKS[src.stack] if flags & _SYN else (b"", 501)
    header = struct.pack(
        ">HHIIBBHHH",
        *ports,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF if flags & _ACK else 0,
        (20 + len(options)) // 4 << 4,
        flags,
        window,
        0,
        0,
    )
    return _ip_frame(src, dst, _TCP, header + options + payload, 16, vlan)


def _is_seen(shape: Shape, is_orig: bool) -> bool:
    return shape.view == View.BOTH or (shape.view == View.ORIG) == is_orig


def _tcp_frames(
    turns: list[Turn],
    shape: Shape,
    ends: tuple[_End, _End],
    ports: tuple[int, int],
    at: tuple[int, int],
    vlan: int,
) -> Iterator[Frame]:
    """Yield the segments of a connection that the sensor gets; ``at``: its first packet, and half a round trip."""
    ts_ns, half_rtt_ns = at
    isn = ports[0] * 2654435761 & 0xFFFFFFFF
    sent = [isn, isn ^ 0x5A5A5A5A]
    for number, turn in enumerate(turns, start=1):
        if number > 1:
            ts_ns += half_rtt_ns + turn.wait_ns
        me, you = (0, 1) if turn.is_orig else (1, 0)
        if turn.flags & _SYN:
            sent[me] = isn if turn.is_orig else isn ^ 0x5A5A5A5A
        for first in range(0, max(len(turn.payload), 1), SEGMENT_BYTES):
            payload = turn.payload[first : first + SEGMENT_BYTES]
            if _is_seen(shape, turn.is_orig) and (number != shape.lost or first > 0):
                pair = ports if turn.is_orig else ports[::-1]
                yield Frame(
                    ts_ns,
                    _tcp_frame(ends[me], ends[you], pair, sent[me], sent[you], turn.flags, payload, vlan),
                )
            sent[me] += len(payload) + bool(turn.flags & (_SYN | _FIN))


def relayed_turns(turns: list[Turn], extra: int) -> list[Turn]:
    """Return what a proxied dialogue is between the device, the originator here, and the controller.

    The controller says where to connect to (RFC 1928 section 4); then the same bytes pass, and ``extra`` in each turn.
    """
    request = Turn(False, bytes(CONNECT_BYTES + extra), _ACK | _PSH)
    relayed = [
        Turn(
            not turn.is_orig, turn.payload + bytes(extra) if turn.payload else b"", _ACK | _PSH, turn.wait_ns
        )
        for turn in turns
    ]
    # While the SYN goes out nothing comes from the controller but the request.
    return [request, *relayed[1:]]


def _midstream_frames(
    turns: list[Turn],
    shape: Shape,
    ends: tuple[_End, _End],
    ports: tuple[int, int],
    at: tuple[int, int],
    vlan: int,
) -> Iterator[Frame]:
    """Yield the segments of a connection that is open already, and stays so."""
    ts_ns, half_rtt_ns = at
    # Numbers go on, or what two sessions say alike within a moment would be taken for copies of one packet.
    sent = [ts_ns // 1000 & 0x7FFFFFFF] * 2
    for number, turn in enumerate(turns):
        if number > 0:
            ts_ns += half_rtt_ns + turn.wait_ns
        me, you = (0, 1) if turn.is_orig else (1, 0)
        pair = ports if me == 0 else ports[::-1]
        for first in range(0, len(turn.payload), SEGMENT_BYTES):
            payload = turn.payload[first : first + SEGMENT_BYTES]
            if _is_seen(shape, turn.is_orig) and (number + 1 != shape.lost or first > 0):
                yield Frame(
                    ts_ns,
                    _tcp_frame(ends[me], ends[you], pair, sent[me], sent[you], _ACK | _PSH, payload, vlan),
                )
            sent[me] += len(payload)


def render_session(session: Any, scene: Scene) -> list[Frame]:
    """Return the frames of one session, a SESSION_DTYPE record, that the sensor gets, in the order of time."""
    shape = unpack_shape(int(session["shape"]))
    ends = scene.endpoints
    orig, resp = _end_of(ends[session["orig"]]), _end_of(ends[session["resp"]])
    words = Words(
        name=scene.word(int(session["name"])),
        sender=scene.word(int(session["sender"])),
        other=scene.word(int(session["other"])),
        server=scene.word(int(ends[session["resp"]]["name"])),
        body=int(session["body"]),
    )
    at = int(session["ts_ns"]), int(session["half_rtt_ns"])
    ports = int(session["orig_port"]), int(session["resp_port"])
    if shape.what == What.MAIL:
        turns = mail_turns(shape, words)
        frames = list(_tcp_frames(turns, shape, (orig, resp), ports, at, scene.vlan))
        if session["source"] >= 0:
            controller = _end_of(ends[session["source"]])
            there = relayed_turns(turns, int(session["extra"]))
            way = shape._replace(lost=0)
            relayed = list(
                _midstream_frames(there, way, (orig, controller), CONTROLLER_PORTS, at, scene.vlan)
            )
            frames = sorted(relayed + frames, key=lambda frame: frame.ts_ns)
        return frames
    if shape.what == What.TRAFFIC:
        said = traffic_turns(words.body, int(session["extra"]))
        return list(_midstream_frames(said, shape, (orig, resp), ports, at, scene.vlan))
    if shape.what == What.HELLO:
        return _hello_frames(shape, orig, resp, words.name, at, scene.vlan)
    address = b"" if session["aux"] < 0 else _end_of(ends[session["aux"]]).address
    query, response = _dns_messages(shape, words, address, ports[0])
    frames = []
    if _is_seen(shape, True) and shape.lost != 1:
        frames.append(Frame(at[0], _udp_frame(orig, resp, ports, query, scene.vlan)))
    if _is_seen(shape, False) and shape.lost != 2:
        frames.append(Frame(at[0] + at[1], _udp_frame(resp, orig, ports[::-1], response, scene.vlan)))
    return frames


def traffic_turns(body: int, answer: int) -> list[Turn]:
    """Return the turns of other traffic than mail."""
    return [Turn(True, bytes(body), _ACK | _PSH), Turn(False, bytes(answer), _ACK | _PSH)]


def _hello_frames(
    shape: Shape, device: _End, server: _End, host_name: bytes, at: tuple[int, int], vlan: int
) -> list[Frame]:
    """Return an ARP announcement (RFC 5227) and a renewed lease."""
    broadcast = b"\xff" * 6
    claim = struct.pack(">HHBBH", 1, _IPV4, 6, 4, 1) + device.mac + device.address + bytes(6) + device.address
    request = _dhcp_message(3, device.mac, device.address, host_name)
    ack = _dhcp_message(5, device.mac, device.address, b"")
    turns = (
        (True, _ether(device.mac, broadcast, _ARP, claim, vlan)),
        (True, _udp_frame(device, server, (68, 67), request, vlan)),
        (False, _udp_frame(server, device, (67, 68), ack, vlan)),
    )
    return [
        Frame(at[0] + number * at[1], data)
        for number, (is_orig, data) in enumerate(turns)
        if _is_seen(shape, is_orig) and number + 1 != shape.lost
    ]


def turns_of(shape: Shape) -> int:
    """Return how many turns sessions of a shape have."""
    if shape.what == What.MAIL:
        return len(mail_turns(shape, Words(b"", b"", b"", b"", 0)))
    return 3 if shape.what == What.HELLO else 2


def n_turns(shapes: Ints) -> Ints:
    """Return how many turns the sessions of each shape have, i8[n]."""
    unique, inverse = np.unique(shapes, return_inverse=True)
    counts = [turns_of(unpack_shape(number)) for number in unique.tolist()]
    return np.array(counts, dtype=np.int64)[inverse]


def render(sessions: NDArray[Any], scene: Scene) -> Iterator[Frame]:
    """Yield the frames of ``sessions``, SESSION_DTYPE[n] in the order of time, in the order of time.

    Frames of the same time are in the order of their sessions. Only sessions that overlap are held.
    """
    waiting: list[Frame] = []
    for session in sessions:
        begin_ns = int(session["ts_ns"])
        if waiting and waiting[0].ts_ns < begin_ns:
            ready = [frame for frame in waiting if frame.ts_ns < begin_ns]
            waiting = waiting[len(ready) :]
            yield from ready
        waiting = sorted(waiting + render_session(session, scene), key=lambda frame: frame.ts_ns)
    yield from waiting


def frame_batch(frames: Iterable[Frame]) -> FrameBatch:
    """Lay frames out as a capture source would."""
    listed = list(frames)
    rows = np.zeros(len(listed), dtype=FRAME_DTYPE)
    lengths = np.array([len(frame.data) for frame in listed], dtype=np.int64)
    rows["offset"] = np.cumsum(lengths) - lengths
    rows["captured_len"] = rows["wire_len"] = lengths
    rows["ts_ns"] = [frame.ts_ns for frame in listed]
    rows["link_type"] = LinkType.ETHERNET
    return FrameBatch(
        np.frombuffer(bytearray(b"".join(frame.data for frame in listed)), dtype=np.uint8), rows
    )


def write_pcap(stream: IO[bytes], frames: Iterable[Frame]) -> int:
    """Write a classic pcap file with microseconds and return its number of packets."""
    stream.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, LinkType.ETHERNET))
    n = 0
    for frame in frames:
        n += 1
        seconds, rest_ns = divmod(frame.ts_ns, _S)
        stream.write(
            struct.pack("<IIII", seconds, rest_ns // 1000, len(frame.data), len(frame.data)) + frame.data
        )
    return n
