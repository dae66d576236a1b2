"""A device's life in the making: what kinds and families say, and the sessions it becomes.

Times are seconds since the site's beginning, float64; a kind draws its parameters from ranges, each with its
source. Everything is vectorised over the device's sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.events.flows import TLS_MESSAGE_BYTES
from sensor.simulate.sessions import MAX_RECIPIENTS, SESSION_DTYPE, TLS_KEY_BYTES, Outcome, What, pack_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.simulate.internet import Internet
    from sensor.simulate.sessions import Ints

    Times = NDArray[np.float64]

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
#: A stub resolver keeps an address this long at most: less than the detector remembers an answer.
CACHE_S: Final = 1800.0
_LOOKUP_BEFORE_S = 0.4
_PORTS = (32768, 60999)  # Linux's ephemeral range


class Range(NamedTuple):
    """A parameter's range: its 5 and 95 % values in the realistic world, and where they come from.

    ``source``: a mark of SCIENCE.md (V read there, M from memory, D arithmetic) and what it rests on.
    """

    low: float
    high: float
    source: str
    is_log: bool = True


def span(low: float, high: float, source: str) -> Range:
    """Return a range of a rate, size or count: log-normal."""
    return Range(low, high, source)


def share(low: float, high: float, source: str) -> Range:
    """Return a range of a share: uniform."""
    return Range(low, high, source, is_log=False)


class Rhythm(IntEnum):
    """When in the week things happen; local time."""

    ALWAYS = 0
    OFFICE = 1
    HOME = 2
    NIGHT = 3  # nights and weekends


def _week(rhythm: Rhythm) -> NDArray[np.float64]:
    """Return the weights of the 168 hours of a week from Monday on; their mean is 1."""
    hour, day = np.tile(np.arange(24), 7), np.repeat(np.arange(7), 24)
    is_weekend = day >= 5
    if rhythm == Rhythm.OFFICE:
        weights = np.where((hour >= 8) & (hour < 18), 1.0, 0.03) * np.where(is_weekend, 0.08, 1.0)
    elif rhythm == Rhythm.HOME:
        weights = np.where(hour < 7, 0.08, np.where(hour < 17, 0.6, 1.4)) * np.where(is_weekend, 1.4, 1.0)
    elif rhythm == Rhythm.NIGHT:
        weights = np.where((hour < 6) | (hour >= 22) | is_weekend, 1.0, 0.05)
    else:
        weights = np.ones(168)
    mean: NDArray[np.float64] = weights / weights.mean()
    return mean


_WEEKS = {rhythm: _week(rhythm) for rhythm in Rhythm}


class Dns(IntEnum):
    """Which look-ups stand behind a connection."""

    NONE = 0  # somebody else looked it up
    ADDRESS = 1  # the server's address: a relay by its name
    EXCHANGE = 2  # the domain's exchange, and its address


@dataclass(frozen=True)
class Host:
    """What a device is on its network; drawn alike for all."""

    number: int  # in its site
    endpoint_from_s: Times  # f8[k]: when its k-th lease begins; the first at or before the site's beginning
    endpoints: Ints  # i8[k]
    endpoint6: int  # -1: no IPv6
    word: int  # its host name
    start_s: float  # when it is plugged in
    end_s: float
    resolver: int  # endpoint
    resolver6: int
    is_blind: bool  # its look-ups do not pass the mirror
    access_ns: int  # half a round trip to the edge of its network
    port: int  # its first ephemeral port
    renewals_s: Times  # when it renews its lease


@dataclass
class Life:
    """One device's sessions in the making. ``spread``: how far parameters scatter, 1 as in the ranges."""

    host: Host
    rng: np.random.Generator
    internet: Internet
    start_ns: int
    spread: float
    ugliness: float  # factor of what goes wrong for the benign
    week_s: float  # local time of the week at the site's beginning
    local: Ints  # i8[n]: endpoints of the site's other devices
    words: list[bytes]  # the site's, to add to
    params: dict[str, float] = field(default_factory=dict)  # what was drawn
    relay: int = -1  # the server that its own mail goes to
    helo: int = -1  # what it calls itself
    usual_per_day: float = 0.0
    has_mail: bool = False
    is_spam: bool = False
    begin_s: float = 0.0  # between which times things happen now
    finish_s: float = 0.0
    _parts: list[NDArray[Any]] = field(default_factory=list)
    _n_ports: int = 0

    # Parameters.

    def draw(self, name: str, within: Range) -> float:
        """Draw a parameter of this device."""
        if within.is_log:
            middle = 0.5 * (np.log(within.low) + np.log(within.high))
            sd = self.spread * (np.log(within.high) - np.log(within.low)) / (2 * 1.645)
            value = float(np.exp(middle + sd * np.clip(self.rng.normal(), -2.33, 2.33)))
        else:
            middle, half = 0.5 * (within.low + within.high), 0.5 * (within.high - within.low)
            value = float(np.clip(middle + self.spread * half * self.rng.uniform(-1, 1), 0.0, 1.0))
        self.params[name] = value
        return value

    def whole(self, name: str, within: Range) -> int:
        """Draw a count of at least one."""
        self.params[name] = float(max(round(self.draw(name, within)), 1))
        return int(self.params[name])

    def ugly(self, name: str, within: Range) -> float:
        """Draw a share of what goes wrong for a benign device."""
        value = min(self.draw(name, within) * self.ugliness, 0.95)
        self.params[name] = value
        return value

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random() < probability)

    # Times.

    def arrivals(self, per_day: float, rhythm: Rhythm = Rhythm.ALWAYS) -> Times:
        """Return the times of a Poisson process with a weekly rhythm."""
        days = (self.finish_s - self.begin_s) / DAY_S
        if days <= 0:
            return np.zeros(0)
        edges = np.arange(self.begin_s, self.finish_s, HOUR_S)
        ends = np.minimum(edges + HOUR_S, self.finish_s)
        hours = (((edges + self.week_s) // HOUR_S) % 168).astype(np.int64)
        expected = per_day / 24.0 * _WEEKS[rhythm][hours] * (ends - edges) / HOUR_S
        each = self.rng.poisson(expected)
        return np.sort(
            np.repeat(edges, each) + np.repeat(ends - edges, each) * self.rng.random(int(each.sum()))
        )

    def daily(self, hour: float, per_day: int = 1, jitter_s: float = 20.0) -> Times:
        """Return the times of what a timer does, ``per_day`` times a day from an hour (local time) on."""
        first = -(self.week_s % DAY_S) + hour * HOUR_S
        t = np.arange(first, self.finish_s, DAY_S / per_day)
        return self.within(t + self.rng.uniform(0, jitter_s, len(t)))

    def bursts(self, starts: Times, sizes: Ints, gap_s: float) -> Times:
        """Return the times of bursts that begin at ``starts``."""
        each = np.repeat(np.arange(len(starts)), sizes)
        nth = np.arange(len(each)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        gaps = gap_s * self.rng.uniform(0.6, 1.4, len(each))
        return np.sort(self.within(starts[each] + nth * gaps))

    def within(self, t: Times) -> Times:
        """Return the times at which things happen now."""
        return t[(t >= self.begin_s) & (t < self.finish_s)]

    # Names.

    def name(self, text: bytes) -> int:
        """Add a word of this device and return its number; negative, to tell it from the Internet's."""
        self.words.append(text)
        return -1 - len(self.words)

    def call_itself(self, text: bytes | None = None) -> int:
        """Choose its name in EHLO: its host name, or another."""
        self.helo = self.host.word if text is None else self.name(text)
        return self.helo

    # Sessions.

    def pick_domains(self, n: int, pool: Ints, weights: NDArray[np.float64]) -> Ints:
        """Choose the domains of ``n`` mails."""
        return pool[np.searchsorted(np.cumsum(weights) / weights.sum(), self.rng.random(n), side="right")]

    def circle(self, n_domains: int, freemail_share: float) -> tuple[Ints, NDArray[np.float64]]:
        """Choose the domains that a device writes to, and how much."""
        internet = self.internet
        others = np.arange(internet.n_freemail, len(internet.domain_word))
        n = min(n_domains, len(others))
        weights = internet.domain_weight[others]
        known = self.rng.choice(others, size=n, replace=False, p=weights / weights.sum())
        n_free = min(internet.n_freemail, max(n_domains // 3, 1))
        pool = np.concatenate([np.arange(n_free), known])
        zipf = 1.0 / np.arange(1, n + 1)
        free = internet.domain_weight[:n_free]
        both = np.concatenate([free / free.sum() * freemail_share, zipf / zipf.sum() * (1 - freemail_share)])
        return pool, both

    def deliver(self, t: Times, domains: Ints, dns: Dns = Dns.EXCHANGE, **dialogue: Any) -> None:
        """Send mail to the exchanges of ``domains``, i8[n]."""
        epoch = (t // CACHE_S).astype(np.int64) + self.host.number
        servers = self.internet.exchange_of(domains, epoch)
        dialogue.setdefault("other", self.internet.domain_word[domains])
        self.send(t, servers, dns=dns, domains=domains, **dialogue)

    def send(
        self,
        t: Times,
        servers: Any,
        *,
        port: Any = 25,
        dns: Dns = Dns.ADDRESS,
        outcome: Any = Outcome.ACCEPTED,
        accepted: Any = 1,
        rejected: Any = 0,
        login: Any = 0,
        listed: Any = 0,
        helo: Any = None,
        sender: Any = None,
        other: Any = None,
        body: Any = 4000,
        source: Any = -1,
        extra: Any = 0,
        domains: Ints | None = None,
        cache_s: float = CACHE_S,
        resolver: int | None = None,
    ) -> None:
        """Connect to mail servers outside at times ``t``, f8[n]; the rest are numbers or i8[n]."""
        n = len(t)
        if n == 0:
            return
        self.has_mail = True
        servers = np.broadcast_to(np.asarray(servers, dtype=np.int64), n)
        outcome, is_tls, octets = self._under_tls(outcome, body, n)
        port = np.broadcast_to(np.asarray(port), n)
        if dns != Dns.NONE:
            self._look_up(t, servers, domains if dns == Dns.EXCHANGE else None, cache_s, resolver)
        rows = self._rows(t, n)
        rows["shape"] = pack_shapes(
            what=What.MAIL,
            outcome=outcome,
            accepted=np.where(
                np.isin(outcome, (Outcome.ACCEPTED, Outcome.CONTENT_REFUSED)),
                np.minimum(accepted, MAX_RECIPIENTS),
                0,
            ),
            rejected=np.where(
                np.isin(outcome, (Outcome.ACCEPTED, Outcome.UNANSWERED)),
                np.minimum(rejected, MAX_RECIPIENTS),
                0,
            ),
            login=np.where(
                np.isin(outcome, (Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.CONTENT_REFUSED)), login, 0
            ),
            listed=np.where(np.isin(outcome, (Outcome.ACCEPTED, Outcome.BANNED)), listed, 0),
            implicit_tls=is_tls & (port == 465),
        )
        rows["resp"] = self._by_family(servers)
        rows["resp_port"] = port
        rows["name"] = self.helo if helo is None else helo
        rows["sender"] = self.host.word if sender is None else sender
        rows["other"] = self.internet.domain_word[0] if other is None else other
        rows["body"] = octets
        source = np.broadcast_to(np.asarray(source, dtype=np.int64), n)
        rows["source"] = np.where(source < 0, -1, self._by_family(source))
        rows["extra"] = extra
        rows["half_rtt_ns"] = self._half_rtt_ns(servers, n)
        self._parts.append(rows)

    def _under_tls(self, outcome: Any, body: Any, n: int) -> tuple[Ints, NDArray[np.bool_], Ints]:
        """Return outcomes, whether TLS hides them, and octets: of the message, or all that the client sends under TLS.

        There the commands count, too: a few hundred octets, which is all of a connection without a message. A message
        of a few lines makes no more than that, and passes for none.
        """
        outcome = np.broadcast_to(np.asarray(outcome), n)
        is_tls = (outcome == Outcome.TLS_MESSAGE) | (outcome == Outcome.TLS_EMPTY)
        drawn = np.broadcast_to(np.asarray(body, dtype=np.int64), n)
        login, transaction = self.rng.integers(120, 400, n), self.rng.integers(150, 300, n)
        octets = np.where(is_tls, login, drawn) + np.where(
            outcome == Outcome.TLS_MESSAGE, transaction + drawn, 0
        )
        told = np.where(octets + TLS_KEY_BYTES >= TLS_MESSAGE_BYTES, Outcome.TLS_MESSAGE, Outcome.TLS_EMPTY)
        return np.where(is_tls, told, outcome), is_tls, octets

    def receive(self, t: Times, servers: Ints, *, outcome: Any = Outcome.ACCEPTED, body: Any = 4000) -> None:
        """Take mail in from servers outside."""
        n = len(t)
        if n == 0:
            return
        rows = self._rows(t, n)
        outcome, _, octets = self._under_tls(outcome, body, n)
        rows["shape"] = pack_shapes(
            what=What.MAIL, outcome=outcome, accepted=np.where(outcome == Outcome.ACCEPTED, 1, 0)
        )
        rows["resp"] = rows["orig"]
        rows["orig"] = self._by_family(servers)
        rows["orig_port"] = self.rng.integers(*_PORTS, n)
        rows["resp_port"] = 25
        rows["name"] = self.internet.endpoints["name"][servers]
        rows["sender"] = rows["name"]
        rows["other"] = self.host.word
        rows["body"] = octets
        rows["half_rtt_ns"] = self._half_rtt_ns(servers, n)
        self._parts.append(rows)

    def exchange(self, t: Times, peers: Ints, body: Any, answer: Any, *, called: Any = False) -> None:
        """Exchange bytes with somebody outside, who speaks first where it has ``called``; numbers or [n]."""
        n = len(t)
        if n == 0:
            return
        rows = self._rows(t, n)
        rows["shape"] = pack_shapes(what=What.TRAFFIC)
        mine, theirs = rows["orig"].copy(), self._by_family(peers)
        rows["orig"], rows["resp"] = np.where(called, theirs, mine), np.where(called, mine, theirs)
        rows["body"], rows["extra"] = body, answer
        rows["resp_port"] = 443
        rows["half_rtt_ns"] = self._half_rtt_ns(peers, n)
        rows["is_spam"] = 0
        self._parts.append(rows)

    def mails_at(self) -> Times:
        """Return when it has connected to mail servers outside so far, f8[n], not in order."""
        parts = [
            rows["ts_ns"]
            for rows in self._parts
            if len(rows)
            and rows["shape"][0] & 7 == What.MAIL
            and rows["orig"][0] in (*self.host.endpoints, self.host.endpoint6)
        ]
        whole = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        t: Times = (whole - self.start_ns) / 1e9
        return t

    def probe_local(self, t: Times, outcome: Any) -> None:
        """Try the mail ports of the site's own devices."""
        n = len(t)
        if n == 0 or len(self.local) == 0:
            return
        rows = self._rows(t, n, local_v4=True)
        rows["shape"] = pack_shapes(what=What.MAIL, outcome=outcome)
        rows["resp"] = self.rng.choice(self.local, n)
        rows["resp_port"] = self.rng.choice([25, 465, 587], n)
        rows["name"] = self.host.word
        rows["half_rtt_ns"] = 300_000
        self._parts.append(rows)

    def ask(self, t: Times, words: Any, what: What = What.LOOKUP, *, aux: Any = -1, other: Any = -1) -> None:
        """Make look-ups of other things than mail servers."""
        if self.host.is_blind or len(t) == 0:
            return
        self._parts.append(self._lookups(t, words, what, aux, other, None))

    def hello(self, t: Times) -> None:
        """Announce its address and renew its lease."""
        rows = self._rows(t, len(t), local_v4=True)
        rows["shape"] = pack_shapes(what=What.HELLO)
        rows["resp"] = self.host.resolver
        rows["name"] = self.host.word
        rows["orig_port"], rows["resp_port"] = 68, 67
        rows["half_rtt_ns"] = 2_000_000
        self._parts.append(rows)

    def sessions(self) -> NDArray[Any]:
        """Return all sessions, SESSION_DTYPE[n], in the order of time."""
        whole = np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=SESSION_DTYPE)
        return whole[np.argsort(whole["ts_ns"], kind="stable")]

    def _rows(self, t: Times, n: int, *, local_v4: bool = False) -> NDArray[Any]:
        host = self.host
        rows = np.zeros(n, dtype=SESSION_DTYPE)
        rows["ts_ns"] = self.start_ns + np.round(t * 1e6).astype(np.int64) * 1000
        lease = np.searchsorted(host.endpoint_from_s, t, side="right") - 1
        by_v4 = host.endpoints[np.maximum(lease, 0)]
        rows["orig"] = by_v4 if local_v4 or host.endpoint6 < 0 else host.endpoint6
        rows["aux"] = rows["source"] = rows["name"] = rows["sender"] = rows["other"] = -1
        rows["orig_port"] = _PORTS[0] + (host.port + self._n_ports + np.arange(n)) % (_PORTS[1] - _PORTS[0])
        self._n_ports += n
        rows["device"] = host.number
        rows["is_spam"] = self.is_spam
        return rows

    def _by_family(self, servers: Any) -> Any:
        """Return the endpoints of servers that a device reaches: over IPv6 if it has it."""
        return servers + (self.internet.n_servers if self.host.endpoint6 >= 0 else 0)

    def _half_rtt_ns(self, servers: Ints, n: int) -> Ints:
        far = (self.internet.half_rtt_ns[servers] + self.host.access_ns) * self.rng.uniform(0.9, 1.3, n)
        half: Ints = np.minimum(far.astype(np.int64) // 1000 * 1000, 2_000_000_000)
        return half

    def _look_up(
        self, t: Times, servers: Ints, domains: Ints | None, cache_s: float, resolver: int | None
    ) -> None:
        """Look servers up shortly before ``t``, unless that was done lately, perhaps before anybody watched."""
        if self.host.is_blind:
            return
        since_s = self.rng.random() * cache_s  # how long ago the cache was empty
        bucket = (t + since_s) // max(cache_s, 1e-6)
        if self.host.start_s == 0.0:
            # It has been there before: the more it mails to a server, the likelier it had its address already.
            _, server, n_mails = np.unique(servers, return_inverse=True, return_counts=True)
            rate = n_mails / max(self.finish_s - self.begin_s, MINUTE_S)
            is_known = self.rng.random(len(rate)) < 1 - np.exp(-rate * since_s)
            is_asked = ~(is_known[server] & (bucket == 0))
            t, servers, bucket = t[is_asked], servers[is_asked], bucket[is_asked]
            domains = None if domains is None else domains[is_asked]
        key = servers.astype(np.float64) * 1e9 + bucket
        _, chosen = np.unique(key, return_index=True)
        at = np.maximum(t[chosen] - _LOOKUP_BEFORE_S, 0.0)
        names = self.internet.endpoints["name"][servers[chosen]]
        told = self._by_family(servers[chosen])
        self._parts.append(self._lookups(at + 0.15, names, What.LOOKUP, told, -1, resolver))
        if domains is not None:
            _, chosen = np.unique(domains.astype(np.float64) * 1e9 + bucket, return_index=True)
            at = np.maximum(t[chosen] - _LOOKUP_BEFORE_S, 0.0)
            asked = self.internet.domain_word[domains[chosen]]
            exchange = self.internet.endpoints["name"][servers[chosen]]
            self._parts.append(self._lookups(at, asked, What.LOOKUP_MX, -1, exchange, resolver))

    def _lookups(
        self, t: Times, words: Any, what: What, aux: Any, other: Any, resolver: int | None
    ) -> NDArray[Any]:
        n = len(t)
        is_v6 = self.host.endpoint6 >= 0
        rows = self._rows(t, n)
        rows["shape"] = pack_shapes(what=what, is_v6=int(is_v6 and what == What.LOOKUP))
        if resolver is not None:
            rows["resp"] = self._by_family(resolver)
        else:
            rows["resp"] = self.host.resolver6 if is_v6 else self.host.resolver
        rows["resp_port"] = 53
        rows["name"], rows["aux"], rows["other"] = words, aux, other
        rows["half_rtt_ns"] = self.rng.integers(1000, 20_000, n) * 1000
        return rows

    # Dialogues.

    def dialogues(
        self,
        n: int,
        *,
        refused: float = 0.0,
        deferred: float = 0.0,
        unanswered: float = 0.0,
        banned: float = 0.0,
        content_refused: float = 0.0,
        login_failed: float = 0.0,
        listed: float = 0.0,
        tls: float = 0.0,
        login: bool = False,
        recipients: int = 1,
        syns: int = 3,
    ) -> dict[str, Any]:
        """Draw how ``n`` connections go, as arguments of ``send``.

        All are shares of the connections but ``listed`` (of those that are refused) and ``tls`` (of those that
        get as far as a greeting). Each has 1 to ``recipients`` recipients; ``syns`` are sent again unanswered.
        """
        shares = np.array([unanswered, banned, login_failed, refused, deferred, content_refused])
        place = np.searchsorted(np.cumsum(shares), self.rng.random(n), side="right")
        outcomes = np.array(
            [
                *(Outcome.UNANSWERED, Outcome.BANNED, Outcome.LOGIN_FAILED, Outcome.ACCEPTED),
                *(Outcome.DEFERRED, Outcome.CONTENT_REFUSED, Outcome.ACCEPTED),
            ]
        )
        is_refused = place == 3
        in_tls = (self.rng.random(n) < tls) & (place >= 2)
        outcome = outcomes[place]
        outcome = np.where(in_tls, np.where(place >= 5, Outcome.TLS_MESSAGE, Outcome.TLS_EMPTY), outcome)
        each = self.rng.integers(1, recipients + 1, n) if recipients > 1 else np.ones(n, dtype=np.int64)
        return {
            "outcome": outcome,
            "accepted": np.where(is_refused, 0, each),
            "rejected": np.where(outcome == Outcome.UNANSWERED, syns, np.where(is_refused, each, 0)),
            "listed": (self.rng.random(n) < listed).astype(np.int64),
            "login": int(login),
        }

    def sizes(self, n: int, typical: float, scatter: float = 0.8) -> Ints:
        """Draw sizes of messages, in bytes."""
        drawn: Ints = np.clip(np.exp(self.rng.normal(np.log(typical), scatter, n)), 200, 3e7).astype(np.int64)
        return drawn
