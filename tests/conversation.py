"""TCP conversations for the flow tests: turns of bytes, cut into segments, laid out as frames, tracked by the kernels.

A turn is what one side says before the other answers. All that belongs to a turn carries one timestamp, so however a
conversation is cut, repeated or put in disorder, its events can be compared to the last column.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor.decode.layers import N_LAYERS
from sensor.decode.packets import PACKET_DTYPE, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES, Eviction, Weird
from sensor.decode.watch import new_watch
from sensor.events.flows import end_run, has_open_flows, track_packets
from sensor.events.tables import FlowState, Total, new_event_tables
from sensor.events.types import (
    EVENT_DTYPE,
    MAX_EVENTS_PER_FRAME,
    MAX_TEXT_PER_FRAME,
    ROWS,
    TEXT,
    EventFlag,
    EventKind,
    Verb,
    new_event_columns,
)
from sensor.native import arrays_of
from tests import builders as b
from tests import reference_smtp as reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sensor.capture.frames import FrameBatch

MAIL_PORTS = (25, 465, 587, 2525)
START_NS = 1_700_000_000 * 10**9
TURN_NS = 1_000_000
SEQ_MASK = 0xFFFFFFFF


class Turn(NamedTuple):
    is_client: bool
    data: bytes


def client(*lines: bytes) -> Turn:
    return Turn(True, b"".join(line + b"\r\n" for line in lines))


def server(*lines: bytes) -> Turn:
    return Turn(False, b"".join(line + b"\r\n" for line in lines))


@dataclass(frozen=True)
class Segment:
    """One segment of a conversation; places count from a side's first byte, so a SYN is at -1."""

    is_client: bool
    at: int
    payload: bytes
    acked: int  # bytes of the other side; -1 none, not even its SYN
    turn: int
    flags: int = b.ACK
    captured: int | None = None  # bytes of the payload that the snap length left, None all

    @property
    def end(self) -> int:
        return self.at + len(self.payload)

    def part(self, first: int, last: int) -> Segment:
        return replace(self, at=self.at + first, payload=self.payload[first:last])


@dataclass(frozen=True)
class Ends:
    """The two ends of a connection and their initial sequence numbers."""

    orig: str = b.SRC4
    resp: str = b.DST4
    orig_port: int = 40000
    resp_port: int = 25
    orig_isn: int = 1000
    resp_isn: int = 77000

    def frame(self, segment: Segment, number: int = 1) -> bytes:
        """``number``: the packet's IP identification, by which a copy differs from a retransmission."""
        if segment.is_client:
            ports, addresses = (self.orig_port, self.resp_port), (self.orig, self.resp)
            isn, other_isn, macs = self.orig_isn, self.resp_isn, (b.SRC_MAC, b.DST_MAC)
        else:
            ports, addresses = (self.resp_port, self.orig_port), (self.resp, self.orig)
            isn, other_isn, macs = self.resp_isn, self.orig_isn, (b.DST_MAC, b.SRC_MAC)
        is_acking = segment.flags & b.ACK
        packet = b.tcp(
            segment.payload,
            src_port=ports[0],
            dst_port=ports[1],
            seq=(isn + 1 + segment.at) & SEQ_MASK,
            ack=(other_isn + 1 + segment.acked) & SEQ_MASK if is_acking else 0,
            flags=segment.flags,
        )
        if ":" in self.orig:
            return b.ether(
                b.IPV6, b.ipv6(b.TCP, packet, src=addresses[0], dst=addresses[1]), src=macs[0], dst=macs[1]
            )
        return b.ether(
            b.IPV4,
            b.ipv4(b.TCP, packet, src=addresses[0], dst=addresses[1], identification=number),
            src=macs[0],
            dst=macs[1],
        )


ENDS = Ends()


class Frame(NamedTuple):
    data: bytes
    wire_len: int
    ts_ns: int


def place(segments: Iterable[Segment], ends: Ends = ENDS, start_ns: int = START_NS) -> list[Frame]:
    """Make frames of segments."""
    frames = []
    for number, segment in enumerate(segments):
        frame = ends.frame(segment, number)
        cut = 0 if segment.captured is None else len(segment.payload) - segment.captured
        frames.append(Frame(frame[: len(frame) - cut], len(frame), start_ns + (segment.turn + 1) * TURN_NS))
    return frames


def handshake() -> list[Segment]:
    return [
        Segment(True, -1, b"", -1, -1, flags=b.SYN),
        Segment(False, -1, b"", 0, -1, flags=b.SYN | b.ACK),
        Segment(True, 0, b"", 0, -1),
    ]


def say(turns: Sequence[Turn]) -> list[Segment]:
    """One segment per turn; each acknowledges all that was said before it."""
    said = {True: 0, False: 0}
    segments = []
    for number, turn in enumerate(turns):
        segments.append(
            Segment(turn.is_client, said[turn.is_client], turn.data, said[not turn.is_client], number)
        )
        said[turn.is_client] += len(turn.data)
    return segments


def closing(turns: Sequence[Turn], *, flags: int = b.FIN | b.ACK) -> list[Segment]:
    """FINs from both sides, the client's first."""
    said = {side: sum(len(turn.data) for turn in turns if turn.is_client == side) for side in (True, False)}
    n = len(turns)
    return [
        Segment(True, said[True], b"", said[False], n, flags=flags),
        Segment(False, said[False], b"", said[True] + 1, n, flags=flags),
    ]


def whole(turns: Sequence[Turn]) -> list[Segment]:
    """A connection from SYN to FIN."""
    return [*handshake(), *say(turns), *closing(turns)]


def cut_segment(segment: Segment, places: Iterable[int]) -> list[Segment]:
    """Cut one segment before each of these bytes of its payload."""
    n = len(segment.payload)
    bounds = [0, *sorted({place for place in places if 0 < place < n}), n]
    return [segment.part(first, last) for first, last in itertools.pairwise(bounds)]


def join(*parts: Iterable[Segment]) -> list[Segment]:
    return [segment for part in parts for segment in part]


# --- the kernels ---

_NAMES = tuple(name for name in EVENT_DTYPE.names if name not in ("text_start", "text_len"))
Event = NamedTuple("Event", [*((name, int) for name in _NAMES), ("text", bytes)])


class Tracked(NamedTuple):
    """What the kernels made of a run."""

    events: list[Event]
    weirds: Counter[Weird]
    evictions: Counter[Eviction]
    totals: dict[Total, int]
    line_free: int
    held_free: int
    arena: bytes  # all that was ever written into the text arena

    def of(self, *kinds: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    @property
    def smtp(self) -> list[reference.Event]:
        return [said for event in self.events if (said := smtp_event(event)) is not None]

    @property
    def closes(self) -> list[Event]:
        return self.of(EventKind.CONN_CLOSE)


def smtp_event(event: Event) -> reference.Event | None:
    """An event in the reference's terms."""
    if event.kind == EventKind.SMTP_COMMAND:
        return reference.Command(Verb(event.code).name, event.text)
    if event.kind == EventKind.SMTP_REPLY:
        klass, rest = divmod(event.enhanced, 1_000_000)
        enhanced = (klass, *divmod(rest, 1000)) if event.enhanced else None
        return reference.Reply(
            event.code, Verb(event.verb).name, enhanced, bool(event.flags & EventFlag.BLOCKLISTED)
        )
    if event.kind == EventKind.SMTP_MESSAGE:
        return reference.Message(event.code, event.count, event.orig_bytes)
    return None


class Tracker:
    """The event kernels with tables of a fixed size, which each run finds as good as new.

    Rows that are free hold rubbish: nothing may be read of them.
    """

    def __init__(
        self,
        n_flows: int = 64,
        n_lines: int = 32,
        n_held: int = 256,
        *,
        n_packets: int = 512,
        n_events: int = MAX_EVENTS_PER_FRAME,
        n_text: int = MAX_TEXT_PER_FRAME,
    ) -> None:
        self.tables = new_event_tables(n_flows, n_lines, n_held, 90, 600)
        for rubbish in ("flows", "sides", "pending", "lines", "held", "held_bytes"):
            array = getattr(self.tables, rubbish)
            array.view(np.uint8)[...] = 0x4D
        self.tables.flows["state"] = FlowState.FREE
        self._new = [array.copy() for array in arrays_of(self.tables)]
        self.n_lines, self.n_held = n_lines, n_held
        self._port_class = port_classes(MAIL_PORTS)
        self._watch = new_watch()
        self._packets = np.zeros(n_packets, dtype=PACKET_DTYPE)
        self._out = new_event_columns(n_events, n_text)
        self._status_counts = np.zeros(N_FRAME_STATUSES, dtype=np.int64)
        self._peeled = np.zeros(N_LAYERS, dtype=np.int64)

    def run(self, frames: Sequence[Frame], *, batch_sizes: Sequence[int] = ()) -> Tracked:
        """Track frames in batches of these sizes, and the rest in one; drain whenever the kernel asks for it."""
        for array, new in zip(arrays_of(self.tables), self._new, strict=True):
            np.copyto(array, new)
        np.copyto(self._watch, new_watch())
        self._out.text[:] = 0
        self._out.used[:] = 0
        self._events: list[Event] = []
        self._arena = bytearray()
        first = 0
        for size in [*batch_sizes, len(frames)]:
            self._feed(frames[first : first + size])
            first += size
        end_run(self.tables)
        while has_open_flows(self.tables):
            track_packets(
                np.zeros(1, np.uint8), self._packets, 0, 0, self._port_class, self.tables, self._out
            )
            self._drain()
        state = self.tables.state[0]
        return Tracked(
            self._events,
            Counter({weird: int(self.tables.weirds[weird]) for weird in Weird if self.tables.weirds[weird]}),
            Counter(
                {kind: int(self.tables.evictions[kind]) for kind in Eviction if self.tables.evictions[kind]}
            ),
            {total: int(self.tables.totals[total]) for total in Total},
            int(state["line_free"]),
            int(state["held_free"]),
            bytes(self._arena) + bytes(self._out.text),
        )

    def _feed(self, frames: Sequence[Frame]) -> None:
        batch = b.batch(
            [frame.data for frame in frames],
            wire_lens=[frame.wire_len for frame in frames],
            ts_ns=[frame.ts_ns for frame in frames],
            gap=b"\x4d",
        )
        next_frame = 0
        while next_frame < len(frames):
            n, next_frame = self._decode(batch, next_frame)
            first = 0
            while first < n:
                first = track_packets(
                    batch.data, self._packets, first, n, self._port_class, self.tables, self._out
                )
                self._drain()

    def _decode(self, batch: FrameBatch, first: int) -> tuple[int, int]:
        return decode_batch(
            batch.data,
            batch.frames,
            first,
            self._port_class,
            self._watch,
            self._packets,
            self._status_counts,
            self._peeled,
            self.tables.weirds,
        )

    def _drain(self) -> None:
        out = self._out
        for row in out.events[: out.used[ROWS]]:
            text = bytes(out.text[row["text_start"] : row["text_start"] + row["text_len"]])
            self._events.append(Event(*(int(row[name]) for name in _NAMES), text))
        self._arena += bytes(out.text[: out.used[TEXT]])
        out.events[: out.used[ROWS]].view(np.uint8)[...] = 0x4D
        out.used[ROWS] = out.used[TEXT] = 0


def read_dialogue(turns: Iterable[Turn]) -> list[reference.Event]:
    """What the reference reads in a whole connection."""
    dialogue = reference.Dialogue()
    for turn in turns:
        (dialogue.client if turn.is_client else dialogue.server)(turn.data)
    dialogue.close()
    return dialogue.events


def explain(turns: Sequence[Turn]) -> str:
    """A conversation for a failed test's message."""
    return "\n".join(f"{'C' if turn.is_client else 'S'}: {turn.data!r}" for turn in turns)
