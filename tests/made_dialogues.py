"""Captures of many made SMTP dialogues at a time, their TCP as untidy as a mirror port delivers it.

Segments come cut anywhere, out of order, twice and late; SYNs are repeated; sequence numbers wrap; the flows
are interleaved. What tshark is known to get wrong is left out: content shares no segment with commands, and
no reply or group of pipelined commands is cut between its lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.builders import ACK, FIN, IPV4, PSH, SYN, TCP, ether, ipv4, tcp
from tests.builders_capture import Frame, pcap

if TYPE_CHECKING:
    import random

_CONTENT = (
    b"From: a\r\n\r\nQUIT\r\n..\r\nRSET\r\n.x\r\n.\r\n"  # with lines that look like commands and end marks
)


@dataclass(frozen=True)
class Turn:
    """What one side says before the other answers."""

    by_client: bool
    payload: bytes
    may_be_cut: bool = True


def make_capture(rng: random.Random, n_flows: int) -> bytes:
    """Return a pcap file of ``n_flows`` interleaved dialogues."""
    flows = [_segments(rng, row) for row in range(n_flows)]
    frames = []
    while flows:
        flow = rng.choice(flows)
        data = flow.pop(0)
        frames.append(Frame(1_700_000_000_000_000_000 + len(frames) * 1_000_000, data, len(data)))
        if not flow:
            flows.remove(flow)
    return pcap(frames)


def _dialogue(rng: random.Random) -> list[Turn]:
    turns = [_server(b"220 mx.example ready")]
    for greeting in rng.choice(
        [[b"EHLO a.example"], [b"helo a"], [b"Ehlo [192.0.2.1]", b"RSET"], [b"NOOP", b"HELO b"]]
    ):
        turns += [
            _client(greeting),
            rng.choice([_server(b"250 ok"), _server(b"250-mx.example", b"250 SIZE")]),
        ]
    if rng.random() < 0.2:
        turns += [_client(b"STARTTLS"), _server(b"454 4.7.0 not now")]
    if rng.random() < 0.2:
        turns += [_client(b"AUTH PLAIN AGEAYg=="), _server(rng.choice([b"235 ok", b"535 5.7.8 no"]))]
    if rng.random() < 0.2:
        turns += [_client(b"AUTH LOGIN"), _server(b"334 VXNlcm5hbWU6"), _client(b"dXNlcg==")]
        turns += [
            _server(b"334 UGFzc3dvcmQ6"),
            _client(b"cGFzcw=="),
            _server(rng.choice([b"235 ok", b"535 no"])),
        ]
    for _ in range(rng.randrange(3)):
        turns += _message(rng)
    if rng.random() < 0.8:
        turns += [_client(b"QUIT"), _server(b"221 bye")]
    return turns


def _message(rng: random.Random) -> list[Turn]:
    envelope = [
        b"MAIL FROM:<a@b.example>",
        *(b"RCPT TO:<%d@c.example>" % i for i in range(rng.randrange(1, 4))),
    ]
    turns = []
    if rng.random() < 0.5:
        turns += [_client(*envelope), _server(*[b"250 ok"] * len(envelope))]
    else:
        for command in envelope:
            turns += [
                _client(command),
                _server(rng.choice([b"250 2.1.0 ok", b"450 4.2.1 later", b"550 5.1.1 no"])),
            ]
    turns += [
        _client(b"DATA"),
        _server(b"354 go on"),
        Turn(by_client=True, payload=_CONTENT, may_be_cut=False),
    ]
    return [*turns, _server(rng.choice([b"250 2.0.0 queued", b"554 5.7.1 no"]))]


def _client(*lines: bytes) -> Turn:
    return Turn(True, b"".join(line + b"\r\n" for line in lines), len(lines) == 1)


def _server(*lines: bytes) -> Turn:
    return Turn(False, b"".join(line + b"\r\n" for line in lines), len(lines) == 1)


def _segments(rng: random.Random, row: int) -> list[bytes]:
    ends = ("192.0.2.1", 20000 + row), ("198.51.100.2", rng.choice([25, 465, 587, 2525]))
    next_seq = [rng.choice([1000, 2**32 - 20]), rng.choice([5000, 2**32 - 30])]

    def segment(sender: int, flags: int, payload: bytes = b"", number: int = 1) -> bytes:
        (src, src_port), (dst, dst_port) = ends[sender], ends[1 - sender]
        seq, ack = next_seq[sender], next_seq[1 - sender] if flags & ACK else 0
        next_seq[sender] = (seq + len(payload) + (flags & (SYN | FIN) != 0)) % 2**32
        header = tcp(payload, src_port=src_port, dst_port=dst_port, seq=seq, ack=ack, flags=flags)
        return ether(IPV4, ipv4(TCP, header, src=src, dst=dst, identification=number))

    isn = next_seq[0]
    frames = []
    for number in range(rng.choice([1, 1, 3])):  # tries of one connection, not copies of one packet
        next_seq[0] = isn
        frames.append(segment(0, SYN, number=number))
    frames += [segment(1, SYN | ACK), segment(0, ACK)]
    for turn in _dialogue(rng):
        sender = 0 if turn.by_client else 1
        burst = [segment(sender, PSH | ACK, piece) for piece in _pieces(rng, turn)]
        if rng.random() < 0.3:
            rng.shuffle(burst)
        if rng.random() < 0.3:
            burst = [frame for frame in burst for _ in range(2)]
        if rng.random() < 0.2:
            burst.append(rng.choice(burst))
        frames += [*burst, segment(1 - sender, ACK)]
    if rng.random() < 0.7:
        frames += [segment(0, FIN | ACK), segment(1, FIN | ACK), segment(0, ACK)]
    return frames


def _pieces(rng: random.Random, turn: Turn) -> list[bytes]:
    n_cuts = min(rng.choice([0, 0, 1, 3, 8]), len(turn.payload) - 1) if turn.may_be_cut else 0
    cuts = sorted(rng.sample(range(1, len(turn.payload)), n_cuts))
    return [
        turn.payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(turn.payload)], strict=True)
    ]
