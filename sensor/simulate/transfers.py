"""How many bytes pass between two addresses in slots of a few seconds, and who speaks first, at the level of events.

The decoder adds these up over all packets of two addresses (events/transfers.py), whatever sessions they belong to;
so they are in no template of one session, and are made here for a whole site, from the turns that ``render.py`` would
make packets of. It looks at other packets than mail only while an address has mailed lately (decode/watch.py): here
"lately" goes by the beginning and the end of its connections, which are seconds.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.decode.status import FrameStatus
from sensor.decode.watch import WATCH_NS
from sensor.events.transfers import MEMORY_NS, SILENCE_NS, SLOT_NS
from sensor.events.types import EVENT_DTYPE, EventKind
from sensor.simulate.render import (
    SEGMENT_BYTES,
    Turn,
    Words,
    mail_turns,
    relayed_turns,
    traffic_turns,
)
from sensor.simulate.sessions import View, What, unpack_shape, views_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.simulate.sessions import Ints, Scene

#: Sessions whose turns are laid out in one go.
CHUNK_SESSIONS: Final = 20_000
_MAIL, _PEER = int(FrameStatus.MAIL), int(FrameStatus.PEER)
_WHAT: Final = 7  # the part of a shape that says what a session is


class _Turns(NamedTuple):
    """The turns of sessions of one shape: who speaks, when but for half round trips, and how many bytes."""

    is_orig: NDArray[np.bool_]  # bool[k]
    wait_ns: Ints  # i8[k]: all waits up to the turn
    fixed: Ints  # i8[k]
    slopes: Ints  # i8[k, 6]: more for each letter of name, sender, other, server, each byte of body, of extra


class Transfers(NamedTuple):
    """TRANSFER and PEER_CALL events in the order of time; each column i8[n]."""

    ts_ns: Ints
    kind: Ints
    code: Ints  # whether mail or not
    slot: Ints
    orig: Ints  # endpoints
    resp: Ints
    orig_bytes: Ints
    resp_bytes: Ints
    first_ns: Ints  # the first packet of what is added up

    @classmethod
    def join(cls, parts: list[Transfers]) -> Transfers:
        """Join some, in the order that they are given in."""
        nothing = cls(*(np.zeros(0, dtype=np.int64) for _ in cls._fields))
        return cls(*(np.concatenate(columns) for columns in zip(nothing, *parts, strict=True)))

    def at(self, chosen: NDArray[Any] | slice) -> Transfers:
        """Return some of them."""
        return Transfers(*(column[chosen] for column in self))

    def rows(self, first: int, end: int, scene: Scene) -> NDArray[Any]:
        """Return some of them as events, EVENT_DTYPE[n]."""
        rows = np.zeros(end - first, dtype=EVENT_DTYPE)
        part = self.at(slice(first, end))
        rows["ts_ns"], rows["kind"], rows["code"], rows["aux_lo"] = (
            part.ts_ns,
            part.kind,
            part.code,
            part.slot,
        )
        for side, end_of in (("orig", part.orig), ("resp", part.resp)):
            for column in ("hi", "lo", "mac"):
                rows[f"{side}_{column}"] = scene.endpoints[column][end_of]
        rows["orig_bytes"], rows["resp_bytes"] = part.orig_bytes, part.resp_bytes
        rows["flow_id"] = rows["session"] = -1
        rows["vlan"] = scene.vlan
        return rows


def find_transfers(sessions: NDArray[Any], scene: Scene) -> Transfers:
    """Return what passes in ``sessions``, SESSION_DTYPE[n] in the order of time."""
    what = sessions["shape"] & _WHAT
    mail = sessions[what == What.MAIL]
    watch = _Watch(mail[views_of(mail["shape"]) != View.RESP], scene)
    beside = sessions[(what == What.TRAFFIC) | (sessions["source"] >= 0)]
    sums, calls, first_ns = [], _Calls(), [np.zeros(0, dtype=np.int64)]
    for first in range(0, len(beside), CHUNK_SESSIONS):
        spoken = _said_beside(beside[first : first + CHUNK_SESSIONS], scene, watch)
        sums.append(_add_up(spoken, _PEER))
        calls.note(spoken)
        first_ns.append(spoken.ts_ns[np.unique(spoken.session, return_index=True)[1]])
    sums += _mail_sums(mail, scene, np.sort(np.concatenate(first_ns)))
    whole = _summed(Transfers.join(sums))  # of a slot that two chunks share there are two
    # A slot is reported when the next packet is read.
    read_ns = np.sort(np.concatenate([sessions["ts_ns"][what != What.TRAFFIC], whole.first_ns]))
    place = np.searchsorted(read_ns, whole.ts_ns)
    is_last = place == len(read_ns)
    ts_ns = np.where(is_last, whole.ts_ns, read_ns[np.where(is_last, 0, place)])
    return _in_order(Transfers.join([whole._replace(ts_ns=ts_ns), *calls.found]))


def _mail_sums(mail: NDArray[Any], scene: Scene, beside_ns: Ints) -> list[Transfers]:
    """Add up mail, a chunk of sessions each, where there was something beside it, at ``beside_ns``, to compare with."""
    sums = []
    is_turned = _is_turned(mail)
    for first in range(0, len(mail), CHUNK_SESSIONS):
        said = _lay_out(mail[first : first + CHUNK_SESSIONS], scene, _mail_profile, has_losses=True)
        said = said.turned(is_turned[first + said.session])
        before = np.searchsorted(beside_ns, said.ts_ns, side="right") - 1
        is_compared = before >= 0
        is_compared[is_compared] = said.ts_ns[is_compared] - beside_ns[before[is_compared]] < MEMORY_NS
        sums.append(_add_up(said.where(is_compared), _MAIL))
    return sums


def _said_beside(sessions: NDArray[Any], scene: Scene, watch: _Watch) -> _Spoken:
    """Return what is said beside mail, and looked at: between proxies and controllers, and in other sessions."""
    is_mail = sessions["source"] >= 0
    proxied, traffic = sessions[is_mail], sessions[~is_mail]
    relayed = _lay_out(proxied, scene, _relayed_profile, has_losses=False)
    relayed = relayed._replace(
        resp=proxied["source"][relayed.session], session=np.flatnonzero(is_mail)[relayed.session]
    )
    other = _lay_out(traffic, scene, _traffic_profile, has_losses=True)
    other = other.turned(scene.endpoints["is_home"][other.orig] != 1)
    other = other._replace(session=np.flatnonzero(~is_mail)[other.session])
    spoken = _Spoken(*(np.concatenate(columns) for columns in zip(relayed, other, strict=True)))
    is_watched = watch.knows(spoken.orig, spoken.ts_ns) | watch.knows(spoken.resp, spoken.ts_ns)
    return spoken.where(is_watched)


def _is_turned(mail: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which mails go the other way than the first between their addresses, which decides on the ends, bool[n]."""
    near, far = np.minimum(mail["orig"], mail["resp"]), np.maximum(mail["orig"], mail["resp"])
    _, first, pair = np.unique(near.astype(np.int64) << 32 | far, return_index=True, return_inverse=True)
    turned: NDArray[np.bool_] = mail["orig"] != mail["orig"][first][pair]
    return turned


class _Watch:
    """When addresses have mailed, which the decoder knows by their lower halves."""

    def __init__(self, mail: NDArray[Any], scene: Scene) -> None:
        self._begin_ns = int(mail["ts_ns"][0]) if len(mail) else 0
        self._half = np.unique(scene.endpoints["lo"], return_inverse=True)[1].astype(np.int64)
        of = mail[np.lexsort((mail["ts_ns"], self._half[mail["orig"]]))]
        self._of = self._half[of["orig"]]
        self._begins = self._key(self._of, of["ts_ns"])
        # Of each address the latest end so far: those of other addresses are lower or higher altogether.
        self._ends = np.maximum.accumulate(self._key(self._of, of["ts_ns"] + _lengths_ns(of)))

    def _key(self, half: Ints, ts_ns: Ints) -> Ints:
        """Return numbers in the order of address and time; microseconds, since nanoseconds would not fit."""
        key: Ints = (half << 43) + (ts_ns - self._begin_ns) // 1000
        return key

    def knows(self, end: Ints, ts_ns: Ints) -> NDArray[np.bool_]:
        """Tell which endpoints had mailed lately before a time, bool[n]."""
        if not len(self._begins):
            return np.zeros(len(end), dtype=np.bool_)
        half = self._half[end]
        key = self._key(half, ts_ns)
        before = np.searchsorted(self._begins, key, side="left") - 1
        seen: NDArray[np.bool_] = (
            (before >= 0) & (self._of[before] == half) & (key - self._ends[before] < WATCH_NS // 1000)
        )
        return seen


class _Spoken(NamedTuple):
    """Turns with bytes, as far as the sensor gets them, of sessions in the order of time; each column [n]."""

    session: Ints  # its number in what was laid out
    turn: Ints
    ts_ns: Ints
    orig: Ints
    resp: Ints
    is_orig: NDArray[np.bool_]
    n_bytes: Ints

    def where(self, chosen: NDArray[Any]) -> _Spoken:
        return _Spoken(*(column[chosen] for column in self))

    def turned(self, is_turned: NDArray[np.bool_]) -> _Spoken:
        """Return the same with the ends of some exchanged."""
        orig, resp = (
            np.where(is_turned, self.resp, self.orig),
            np.where(is_turned, self.orig, self.resp),
        )
        return self._replace(orig=orig, resp=resp, is_orig=self.is_orig ^ is_turned)


def _lay_out(sessions: NDArray[Any], scene: Scene, profile: Any, *, has_losses: bool) -> _Spoken:
    """Lay out the turns of sessions."""
    if not len(sessions):
        nothing = np.zeros(0, dtype=np.int64)
        return _Spoken(nothing, nothing, nothing, nothing, nothing, nothing.astype(np.bool_), nothing)
    shapes, of_shape = np.unique(sessions["shape"], return_inverse=True)
    turns = [profile(number) for number in shapes.tolist()]
    n_turns = np.array([len(of.fixed) for of in turns], dtype=np.int64)
    starts = np.cumsum(n_turns) - n_turns
    whole = _Turns(*(np.concatenate(columns) for columns in zip(*turns, strict=True)))
    n_each = n_turns[of_shape]
    session = np.repeat(np.arange(len(sessions)), n_each)
    turn = np.arange(len(session)) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    at = starts[of_shape][session] + turn
    numbers = np.stack(
        [
            *(
                np.where(word >= 0, scene.text_len[word], 0)
                for word in (
                    sessions["name"],
                    sessions["sender"],
                    sessions["other"],
                    scene.endpoints["name"][sessions["resp"]],
                )
            ),
            sessions["body"],
            sessions["extra"],
        ],
        axis=1,
    ).astype(np.int64)
    n_bytes = whole.fixed[at] + np.einsum("np,np->n", whole.slopes[at], numbers[session])
    is_orig = whole.is_orig[at]
    view = views_of(sessions["shape"])[session]
    is_seen = (view == View.BOTH) | ((view == View.ORIG) == is_orig)
    if has_losses:
        lost = np.array([unpack_shape(number).lost for number in shapes.tolist()])[of_shape][session]
        n_bytes = np.where(lost == turn + 1, np.maximum(n_bytes - SEGMENT_BYTES, 0), n_bytes)
    ts_ns = sessions["ts_ns"][session] + turn * sessions["half_rtt_ns"][session] + whole.wait_ns[at]
    spoken = _Spoken(
        session, turn, ts_ns, sessions["orig"][session], sessions["resp"][session], is_orig, n_bytes
    )
    return spoken.where(is_seen & (n_bytes > 0))


def _lengths_ns(mail: NDArray[Any]) -> Ints:
    """Return how long after its first packet each client sends its last, i8[n]."""
    shapes, of_shape = np.unique(mail["shape"], return_inverse=True)
    turns = [_mail_profile(number) for number in shapes.tolist()]
    last = [int(np.flatnonzero(of.is_orig)[-1]) for of in turns]
    wait_ns = np.array([of.wait_ns[k] for of, k in zip(turns, last, strict=True)], dtype=np.int64)
    lengths: Ints = np.array(last, dtype=np.int64)[of_shape] * mail["half_rtt_ns"] + wait_ns[of_shape]
    return lengths


def _add_up(spoken: _Spoken, service: int) -> Transfers:
    """Add up bytes by slot and addresses."""
    slot = spoken.ts_ns // SLOT_NS
    sent = np.where(spoken.is_orig, spoken.n_bytes, 0)
    return _summed(
        Transfers(
            ts_ns=(slot + 1) * SLOT_NS,
            kind=np.full(len(slot), int(EventKind.TRANSFER)),
            code=np.full(len(slot), service),
            slot=slot,
            orig=spoken.orig.astype(np.int64),
            resp=spoken.resp.astype(np.int64),
            orig_bytes=sent,
            resp_bytes=spoken.n_bytes - sent,
            first_ns=spoken.ts_ns,
        )
    )


def _summed(of: Transfers) -> Transfers:
    """Add up what is of the same slot, service and addresses."""
    of = of.at(np.lexsort((of.resp, of.orig, of.code, of.slot)))
    keys = np.stack([of.slot, of.code, of.orig, of.resp])
    is_first = np.ones(len(of.slot), dtype=np.bool_)
    is_first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    starts = np.flatnonzero(is_first)
    if not len(starts):
        return of
    return of.at(starts)._replace(
        orig_bytes=np.add.reduceat(of.orig_bytes, starts),
        resp_bytes=np.add.reduceat(of.resp_bytes, starts),
        first_ns=np.minimum.reduceat(of.first_ns, starts),
    )


class _Calls:
    """Who speaks first after two addresses have been silent; the first time that they are seen tells nothing."""

    def __init__(self) -> None:
        self.found: list[Transfers] = []
        self._spoke_ns: dict[tuple[int, int], int] = {}

    def note(self, spoken: _Spoken) -> None:
        """Take turns that are not before those noted already, but for sessions that overlap."""
        if not len(spoken.turn):
            return
        near, far = np.minimum(spoken.orig, spoken.resp), np.maximum(spoken.orig, spoken.resp)
        order = np.lexsort((spoken.turn, spoken.session, spoken.ts_ns, far, near))
        near, far, ts_ns = near[order], far[order], spoken.ts_ns[order]
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = (near[1:] != near[:-1]) | (far[1:] != far[:-1])
        silence_ns = np.diff(ts_ns, prepend=ts_ns[0])
        starts = np.flatnonzero(is_first)
        last_ns = ts_ns[np.append(starts[1:], len(ts_ns)) - 1]
        for k, until_ns in zip(starts.tolist(), last_ns.tolist(), strict=True):
            pair = int(near[k]), int(far[k])
            since_ns = self._spoke_ns.get(pair, int(ts_ns[k]))
            silence_ns[k] = int(ts_ns[k]) - since_ns
            self._spoke_ns[pair] = max(since_ns, until_ns)
        calls = spoken.where(order[silence_ns >= SILENCE_NS])
        caller = np.where(calls.is_orig, calls.orig, calls.resp).astype(np.int64)
        called = np.where(calls.is_orig, calls.resp, calls.orig).astype(np.int64)
        nothing = np.zeros(len(caller), dtype=np.int64)
        kind = np.full(len(caller), int(EventKind.PEER_CALL))
        at = calls.ts_ns
        self.found.append(Transfers(at, kind, nothing, nothing, caller, called, nothing, nothing, at))


def _in_order(of: Transfers) -> Transfers:
    """Return events in the order of time; of a slot, mail first, then by their first packet, as the decoder does."""
    return of.at(np.lexsort((of.first_ns, of.code != _MAIL, of.ts_ns)))


# The turns of a shape.


@cache
def _mail_profile(number: int) -> _Turns:
    shape = unpack_shape(number)
    return _measured(lambda words, _: mail_turns(shape, words))


@cache
def _relayed_profile(number: int) -> _Turns:
    shape = unpack_shape(number)
    return _measured(lambda words, extra: relayed_turns(mail_turns(shape, words), extra))


@cache
def _traffic_profile(_: int) -> _Turns:
    return _measured(lambda words, extra: traffic_turns(words.body, extra))


def _measured(make: Any) -> _Turns:
    """Measure turns: with a letter or byte of each thing, and with one more; what is empty has no turn."""
    least = Words(b"x", b"x", b"x", b"x", 1)
    said = (
        least._replace(name=b"xx"),
        least._replace(sender=b"xx"),
        least._replace(other=b"xx"),
        least._replace(server=b"xx"),
        least._replace(body=2),
    )
    base: list[Turn] = make(least, 1)
    more = [*(make(words, 1) for words in said), make(least, 2)]
    n_bytes = np.array([len(turn.payload) for turn in base], dtype=np.int64)
    slopes = np.stack([[len(turn.payload) for turn in turns] - n_bytes for turns in more], axis=1)
    # The wait before the first turn is none.
    waits = np.cumsum([0, *(turn.wait_ns for turn in base[1:])])
    return _Turns(np.array([turn.is_orig for turn in base]), waits, n_bytes - slopes.sum(axis=1), slopes)
