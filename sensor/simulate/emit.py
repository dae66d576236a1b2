"""From sessions to events, as the decoder would emit them, without packets.

The decoder itself says what they are. Of each shape one session is rendered to packets, decoded, and kept as a
template; all sessions of the shape are stamped out from it. What differs between them is linear: a byte count
or a time is so much plus so much for each byte of content, each letter of a name, each nanosecond of round
trip. The slopes are measured: the session is decoded once more for each parameter, a little larger. So
whatever the decoder learns to say, events here say it too, and a new column needs no line in this module.

What depends on more than that, as a column for the options of a device's SYN would, has to become part of the
shape; the test that compares with packets says so.

What passes beside mail, and how its bytes add up, is no session's own: transfers.py makes these events.

Two things are not measured. A connection that nothing ends is reported when its time-out is noticed, which the
sweep of the flow table does within some seconds (SWEEP_LAG_NS, on average). And in the flow table of a
template no other flow makes room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.config import Timeouts
from sensor.decode.layers import N_LAYERS
from sensor.decode.packets import PACKET_DTYPE, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES
from sensor.decode.watch import new_watch
from sensor.events.flows import SWEEP_SLICES, end_run, has_open_flows, track_packets
from sensor.events.tables import FlowState, new_event_tables
from sensor.events.types import MAX_EVENTS_PER_FRAME, MAX_TEXT_PER_FRAME, ROWS, EventKind, new_event_columns
from sensor.simulate.render import frame_batch, render_session
from sensor.simulate.sessions import ENDPOINT_DTYPE, SESSION_DTYPE, Outcome, What, make_scene, unpack_shape
from sensor.simulate.transfers import find_transfers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sensor.simulate.sessions import Ints, Scene, Shape

#: Sessions whose events are made in one go: few enough that these stay in the cache.
CHUNK_SESSIONS = 2048
#: How long after its time-out a connection is reported: one slice of the flow table is swept per second.
SWEEP_LAG_NS = SWEEP_SLICES // 2 * 1_000_000_000

#: Columns that depend on a session's numbers, and what they depend on.
_LINEAR = ("ts_ns", "duration_ns", "orig_bytes", "resp_bytes")
_PARAMS = ("half_rtt_ns", "body", "name", "sender", "other", "server")
_ENDS = ("orig", "resp", "aux")
_TEXTS = ("name", "sender", "other", "server")
_MAIL_PORTS = (25, 465, 587, 2525)
_BASE_HALF_RTT_NS = 10_000_000
_BASE_BODY = 3000
_BASE_TLS_EMPTY_BODY = 300
_DELTA = 8
_ORIG_PORT, _RESP_PORT, _DNS_PORT = 40_001, 25, 53
_WORDS = {
    "name": b"name.example",
    "sender": b"sender.example",
    "other": b"other.example",
    "server": b"server.example",
}


class Templates:
    """The events of each shape, decoded once and kept: ``find`` says where."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._port_class = port_classes(_MAIL_PORTS)
        self._out = new_event_columns(2 * MAX_EVENTS_PER_FRAME, 2 * MAX_TEXT_PER_FRAME)
        self._known: dict[int, int] = {}
        self._parts: list[_Template] = []
        self._stacked: _Stacked | None = None

    def find(self, shapes: Ints) -> tuple[Ints, _Stacked]:
        """Return the number of the template of each shape, i8[n], and all templates."""
        unique, inverse = np.unique(shapes, return_inverse=True)
        for number in unique.tolist():
            if number not in self._known:
                self._known[number] = len(self._parts)
                self._parts.append(self._measure(number))
                self._stacked = None
        if self._stacked is None:
            self._stacked = _stack(self._parts)
        return np.array([self._known[n] for n in unique.tolist()], dtype=np.int64)[inverse], self._stacked

    def _measure(self, number: int) -> _Template:
        rows, said = self._decode(number, None)
        base = _describe(rows, said, unpack_shape(number))
        slopes = np.zeros((len(rows), len(_LINEAR), len(_PARAMS)), dtype=np.int64)
        for p, param in enumerate(_PARAMS):
            probe, _ = self._decode(number, param)
            if len(probe) != len(rows):
                raise AssertionError(f"{unpack_shape(number)}: {param} changes which events there are")
            for c, column in enumerate(_LINEAR):
                change = probe[column] - rows[column]
                if (change % _DELTA).any():
                    raise AssertionError(f"{unpack_shape(number)}: {column} is not linear in {param}")
                slopes[:, c, p] = change // _DELTA
        at_base = np.array(
            [_BASE_HALF_RTT_NS, _base_body(number), *map(len, _words_of(unpack_shape(number)).values())],
            dtype=np.int64,
        )
        constant = np.stack([rows[column] for column in _LINEAR], axis=1) - slopes @ at_base
        if slopes[:, 0, 1:].any():
            raise AssertionError(f"{unpack_shape(number)}: times depend on sizes")
        return _Template(*base, constant, slopes, (slopes[:, 1:] != 0).any(axis=(1, 2)))

    def _decode(self, number: int, longer: str | None) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Decode a session of a shape into events and their text; ``longer``: the parameter that is _DELTA more."""
        shape = unpack_shape(number)
        words = _words_of(shape)
        if longer in words:
            words[longer] = b"x" * _DELTA + words[longer]
        session = np.zeros(1, dtype=SESSION_DTYPE)[0]
        session["shape"] = number
        session["orig"], session["resp"], session["aux"], session["source"] = 0, 1, 2, -1
        session["name"], session["sender"], session["other"] = 0, 1, 2
        session["body"] = _base_body(number) + (_DELTA if longer == "body" else 0)
        session["half_rtt_ns"] = _BASE_HALF_RTT_NS + (_DELTA if longer == "half_rtt_ns" else 0)
        session["orig_port"] = _ORIG_PORT
        session["resp_port"] = _RESP_PORT if shape.what == What.MAIL else _DNS_PORT
        scene = make_scene(_probe_ends(is_v6=bool(shape.is_v6)), list(words.values()), -1)
        return self._track(frame_batch(render_session(session, scene)))

    def _track(self, batch: Any) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Run the decoder over the frames of one session, and let time pass."""
        tables = new_event_tables(256, 16, 64, self._timeouts.attempt_s, self._timeouts.idle_s)
        packets = np.zeros(max(len(batch.frames), 1), dtype=PACKET_DTYPE)
        statuses = np.zeros(N_FRAME_STATUSES, dtype=np.int64)
        out = self._out
        out.used[:] = 0
        peeled = np.zeros(N_LAYERS, dtype=np.int64)
        n, _ = decode_batch(
            batch.data,
            batch.frames,
            0,
            self._port_class,
            new_watch(),
            packets,
            statuses,
            peeled,
            tables.weirds,
        )
        track_packets(batch.data, packets, 0, n, self._port_class, tables, out)
        n_before = int(out.used[ROWS])
        attempts = bool((tables.flows["state"] == FlowState.ATTEMPT).any())
        end_run(tables)
        while has_open_flows(tables):
            track_packets(batch.data, packets, 0, 0, self._port_class, tables, out)
        rows = out.events[: int(out.used[ROWS])].copy()
        # A fingerprint is the device's and not the shape's: it is left unknown.
        rows["aux_lo"][rows["kind"] == EventKind.CONN_OPEN] = 0
        timeout_s = self._timeouts.attempt_s if attempts else self._timeouts.idle_s
        rows["ts_ns"][n_before:] += timeout_s * 1_000_000_000 + SWEEP_LAG_NS
        return rows, out.text


class _Decoded(NamedTuple):
    """The events of one session, and where their columns come from."""

    rows: NDArray[Any]  # EVENT_DTYPE[n]
    ends: Ints  # i8[n, 3]: of orig, resp, aux: 1 + the index in _ENDS, 0 as in the row
    macs: Ints  # i8[n, 2]: ... of orig_mac, resp_mac
    ports: Ints  # i8[n, 2]: 1 the session's orig_port, 2 its resp_port, 0 as in the row
    texts: Ints  # i8[n]: 1 + the index in _TEXTS, 0 none


class _Template(NamedTuple):
    """What _Decoded says, and how the linear columns depend on the parameters."""

    rows: NDArray[Any]
    ends: Ints
    macs: Ints
    ports: Ints
    texts: Ints
    constant: Ints  # i8[n, len(_LINEAR)]
    slopes: Ints  # i8[n, len(_LINEAR), len(_PARAMS)]; the time's depend on half_rtt_ns alone
    is_linear: NDArray[np.bool_]  # bool[n]: whether other columns than the time depend on anything


class _Stacked(NamedTuple):
    """All templates, one after the other."""

    starts: Ints  # i8[t]: where a template begins
    n_rows: Ints  # i8[t]: its events
    template: _Template


def _stack(parts: list[_Template]) -> _Stacked:
    count = np.array([len(part.rows) for part in parts], dtype=np.int64)
    whole = _Template(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return _Stacked(np.cumsum(count) - count, count, whole)


def _words_of(shape: Shape) -> dict[str, bytes]:
    """Return what a shape's template says; a look-up in a block list is known by its name."""
    return _WORDS | ({"name": b"2.0.0.127.zen.spamhaus.org"} if shape.what == What.LOOKUP_LISTED else {})


def _base_body(number: int) -> int:
    return _BASE_TLS_EMPTY_BODY if unpack_shape(number).outcome == Outcome.TLS_EMPTY else _BASE_BODY


def _probe_ends(*, is_v6: bool) -> NDArray[Any]:
    """Return an orig, a resp and an address to be told; no two share anything."""
    ends = np.zeros(3, dtype=ENDPOINT_DTYPE)
    ends["lo"] = np.array([1, 2, 3]) | (0xFFFF << 32 | 0xC0000200)  # 192.0.2.0/24
    ends["mac"] = np.array([0x020000000001, 0x020000000002, 0x020000000003])
    ends["name"] = 3
    ends["ttl"] = 64
    if is_v6:
        ends["hi"][2], ends["lo"][2] = 0x20010DB800000000, 3
    return ends


def _describe(rows: NDArray[Any], text: NDArray[np.uint8], shape: Shape) -> _Decoded:
    """Find out where the columns of decoded events come from."""
    n, words, probe_ends = len(rows), list(_words_of(shape).values()), _probe_ends(is_v6=bool(shape.is_v6))
    ends, macs = np.zeros((n, 3), dtype=np.int64), np.zeros((n, 2), dtype=np.int64)
    ports, texts = np.zeros((n, 2), dtype=np.int64), np.zeros(n, dtype=np.int64)
    for number in range(3):
        end = probe_ends[number]
        for k, column in enumerate(_ENDS):
            ends[(rows[f"{column}_hi"] == end["hi"]) & (rows[f"{column}_lo"] == end["lo"]), k] = number + 1
        for k, column in enumerate(("orig_mac", "resp_mac")):
            macs[rows[column] == end["mac"], k] = number + 1
    for k, column in enumerate(("orig_port", "resp_port")):
        ports[rows[column] == _ORIG_PORT, k] = 1
        ports[np.isin(rows[column], (_RESP_PORT, _DNS_PORT)), k] = 2
    for i, row in enumerate(rows):
        start = int(row["text_start"])
        said = text[start : start + int(row["text_len"])].tobytes()
        if said:
            texts[i] = 1 + words.index(said)
    return _Decoded(rows, ends, macs, ports, texts)


def emit(
    sessions: NDArray[Any], scene: Scene, templates: Templates, *, chunk: int = CHUNK_SESSIONS
) -> Iterator[NDArray[Any]]:
    """Yield the events, EVENT_DTYPE[n], of ``sessions``, SESSION_DTYPE[n] in the order of time, in the order of time.

    Their text is ``scene.text``. Events of the same time are in the order of their sessions, whatever ``chunk`` is.
    """
    facts = _facts_of(sessions, scene)
    transfers = find_transfers(sessions, scene)
    n_told = 0
    # What is known of events that are not due yet: time, session, and row of the templates.
    ts_ns, session, row = (np.zeros(0, dtype=np.int64) for _ in range(3))
    for first in range(0, len(sessions), chunk):
        end = min(first + chunk, len(sessions))
        numbers, (starts, n_rows, template) = templates.find(sessions["shape"][first:end])
        n_each = n_rows[numbers]
        before = np.cumsum(n_each) - n_each
        made = np.repeat(np.arange(first, end), n_each)
        made_row = np.arange(len(made)) + np.repeat(starts[numbers] - before, n_each)
        made_ns = template.constant[made_row, 0] + template.slopes[made_row, 0, 0] * facts.params[made, 0]
        ts_ns = np.concatenate([ts_ns, sessions["ts_ns"][made] + made_ns])
        session, row = np.concatenate([session, made]), np.concatenate([row, made_row])
        order = np.argsort(ts_ns, kind="stable")
        ts_ns, session, row = ts_ns[order], session[order], row[order]
        n_due = len(ts_ns)
        n_told_now = len(transfers.ts_ns)
        if end < len(sessions):
            n_due = int(np.searchsorted(ts_ns, sessions["ts_ns"][end], side="left"))
            n_told_now = int(np.searchsorted(transfers.ts_ns, sessions["ts_ns"][end], side="left"))
        events = _stamp(ts_ns[:n_due], session[:n_due], row[:n_due], facts, template, scene)
        if n_told_now > n_told:
            # Before what is at the same time: a slot is over, and a controller has called, when the mail begins.
            events = np.concatenate([transfers.rows(n_told, n_told_now, scene), events])
            events = events[np.argsort(events["ts_ns"], kind="stable")]
            n_told = n_told_now
        yield events
        ts_ns, session, row = ts_ns[n_due:], session[n_due:], row[n_due:]


class _Facts(NamedTuple):
    """What of sessions goes into events, by where it comes from; row 0 of each stands for nothing."""

    params: Ints  # i8[n, len(_PARAMS)]
    ends: Ints  # i8[1 + len(_ENDS), n]: rows of the endpoints
    ports: Ints  # i8[3, n]
    words: Ints  # i8[1 + len(_TEXTS), n]: texts, -1 none


def _facts_of(sessions: NDArray[Any], scene: Scene) -> _Facts:
    nothing = np.full(len(sessions), -1)
    server = scene.endpoints["name"][sessions["resp"]]
    words = np.stack([nothing, sessions["name"], sessions["sender"], sessions["other"], server])
    lengths = np.where(words[1:] >= 0, scene.text_len[words[1:]], 0)
    return _Facts(
        params=np.stack([sessions["half_rtt_ns"], sessions["body"], *lengths], axis=1).astype(np.int64),
        ends=np.stack([nothing, *(sessions[name] for name in _ENDS)]),
        ports=np.stack([nothing, sessions["orig_port"], sessions["resp_port"]]),
        words=words,
    )


def _stamp(
    ts_ns: Ints, session: Ints, row: Ints, facts: _Facts, template: _Template, scene: Scene
) -> NDArray[Any]:
    """Return events: the templates' rows, with what is the sessions' own."""
    events: NDArray[Any] = template.rows.take(row)
    events["ts_ns"] = ts_ns
    events["vlan"] = scene.vlan
    events["flow_id"] = np.where(events["flow_id"] >= 0, session, -1)
    (at,) = np.nonzero(template.is_linear[row])
    values = template.constant[row[at], 1:] + np.einsum(
        "ncp,np->nc", template.slopes[row[at], 1:], facts.params[session[at]]
    )
    for c, column in enumerate(_LINEAR[1:]):
        events[column][at] = values[:, c]

    for k, column in enumerate(_ENDS):
        at, end = _chosen(template.ends[row, k], facts.ends, session)
        events[f"{column}_hi"][at] = scene.endpoints["hi"][end]
        events[f"{column}_lo"][at] = scene.endpoints["lo"][end]
    for k, column in enumerate(_ENDS[:2]):
        at, end = _chosen(template.macs[row, k], facts.ends, session)
        events[f"{column}_mac"][at] = scene.endpoints["mac"][end]
        at, port = _chosen(template.ports[row, k], facts.ports, session)
        events[f"{column}_port"][at] = port
    at, word = _chosen(template.texts[row], facts.words, session)
    events["text_start"] = 0
    events["text_start"][at] = scene.text_start[word]
    events["text_len"][at] = np.where(word >= 0, scene.text_len[word], 0)
    return events


def _chosen(source: Ints, facts: Ints, session: Ints) -> tuple[Ints, Ints]:
    """Return which events have a fact of their session in a column, and the fact."""
    (at,) = np.nonzero(source)
    return at, facts[source[at], session[at]]
