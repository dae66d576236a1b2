"""Sites: who lives there, who is infected, and what the sensor sees of it.

A site is made from (world, seed, its number) alone, so sites can be made in any order and in any process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.config import Config, Network
from sensor.events.flows import TLS_MESSAGE_BYTES
from sensor.notation import address_text, mac_text
from sensor.simulate.benign import BOT_LIKE, KINDS, MIXES, SENDERS
from sensor.simulate.beside import live_beside
from sensor.simulate.families import FAMILIES, Craft
from sensor.simulate.internet import Internet, make_internet
from sensor.simulate.life import DAY_S, HOUR_S, Host, Life
from sensor.simulate.render import SEGMENT_BYTES, n_turns
from sensor.simulate.sessions import (
    ENDPOINT_DTYPE,
    SESSION_DTYPE,
    Outcome,
    Scene,
    View,
    What,
    make_scene,
    outcomes_of,
    pack_shapes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sensor.simulate.world import Plan


#: The first Monday of 2027, 00:00 UTC, and how far sites lie apart: dates say nothing about a device.
_START_S: Final = 1_799_020_800
_MAX_START_DAYS: Final = 200
_COLD_S: Final = (600.0, 6 * HOUR_S)
_LEASE_S: Final = (8 * HOUR_S, 24 * HOUR_S)
#: Home networks by type of site: the first one, from one to the next, and the prefix length.
_HOME_NETS: Final = {
    "home": (0xC0A80000, 1 << 8, 24),  # 192.168.0.0/24
    "office": (0x0A000000, 1 << 16, 22),  # 10.0.0.0/22
    "isp": (0x64400000, 1 << 10, 22),  # 100.64.0.0/22 (RFC 6598)
}
_V4 = 0xFFFF << 32
_V6_HOME = 0xFD00 << 48
_STRANGER_TTLS = (64, 128, 255)
_WITH_MESSAGE = (Outcome.ACCEPTED, Outcome.CONTENT_REFUSED, Outcome.TLS_MESSAGE)


@dataclass(frozen=True)
class Resident:
    """A device's label."""

    number: int
    keys: tuple[str, ...]  # under which the sensor knows it: its MAC, or its addresses
    kind: str
    family: str  # "" benign
    first_seen_ns: int
    infected_from_ns: int  # 0 benign
    infected_until_ns: int
    first_spam_ns: int  # 0 none
    n_spam: int
    params: dict[str, float]

    @property
    def mails_per_day(self) -> float:
        """Spam attempts per day of the infection."""
        days = (self.infected_until_ns - self.infected_from_ns) / (DAY_S * 1e9)
        return self.n_spam / days if days > 0 else 0.0


@dataclass(frozen=True)
class Site:
    """A site's sessions and labels."""

    number: int
    kind: str
    home_nets: tuple[str, ...]
    view: View
    is_blind: bool
    loss: float
    start_ns: int
    end_ns: int
    scene: Scene
    sessions: NDArray[Any]  # SESSION_DTYPE[n], in the order of time
    residents: tuple[Resident, ...]

    @property
    def config(self) -> Config:
        """The configuration of the site's sensor."""
        return site_config(self.home_nets)


def site_config(home_nets: tuple[str, ...]) -> Config:
    """Return the configuration of a site's sensor: its networks, all else as shipped."""
    return Config(home_nets=tuple(map(Network, home_nets)))


@lru_cache(maxsize=2)
def _internet(seed: int) -> Internet:
    return make_internet(seed)


def make_sites(plan: Plan) -> Iterator[Site]:
    """Yield all sites."""
    for number, (kind, n) in enumerate(plan.site_sizes()):
        yield make_site(plan, number, kind, n)


def make_site(plan: Plan, number: int, kind: str, n_devices: int) -> Site:
    """Return one site; depends on its arguments alone."""
    return _SiteMaker(plan, number, kind, n_devices).make()


class _SiteMaker:
    """One site in the making."""

    def __init__(self, plan: Plan, number: int, kind: str, n_devices: int) -> None:
        self.plan, self.world, self.number, self.kind, self.n = plan, plan.world, number, kind, n_devices
        self.rng = rng = np.random.default_rng([plan.seed, 3, number, plan.is_cold])
        self.internet = _internet(plan.seed)
        self.length_s = plan.days * DAY_S
        start_s = float(_START_S + int(rng.integers(0, _MAX_START_DAYS)) * DAY_S)
        if plan.is_cold:
            self.length_s = float(np.exp(rng.uniform(np.log(_COLD_S[0]), np.log(_COLD_S[1]))))
            start_s += int(rng.integers(0, 86400))
        zone_s = float(rng.integers(-11, 12)) * HOUR_S
        self.start_ns = int(start_s) * 1_000_000_000
        self.week_s = (start_s - _START_S + zone_s) % (7 * DAY_S)
        self.is_blind = bool(rng.random() < self.world.blind_sites)
        self.view = View.BOTH
        if rng.random() < self.world.one_sided_sites:
            self.view = (
                View.ORIG if rng.random() < 0.5 else View.RESP
            )  # of the devices: what they send, or get
        self.loss = (
            float(rng.uniform(0, self.world.max_loss)) if rng.random() < self.world.lossy_sites else 0.0
        )
        self.vlan = int(rng.integers(1, 4000)) if rng.random() < 0.3 else -1
        self.words: list[bytes] = []
        self.endpoints: list[tuple[int, int, int, int, int, int, int]] = []
        self.routed = kind == "isp"
        first, step, self.prefix = _HOME_NETS[kind]
        self.base_v4 = _V4 | (first + int(rng.integers(0, 60)) * step)
        self.free = iter(rng.permutation(np.arange(2, (1 << (32 - self.prefix)) - 1)).tolist())
        self.n_outside = len(self.internet.endpoints)
        self.gateway_mac = self._mac()

    def make(self) -> Site:
        internet = self.internet
        outside = internet.endpoints.copy()
        outside["mac"] = self.gateway_mac
        # The gateway resolves for its site.
        self.resolver = self._endpoint(0, self.base_v4 + 1, self.gateway_mac, -1, 64, 0)
        self.resolver6 = self._endpoint(_V6_HOME | self.number + 1, 1, self.gateway_mac, -1, 64, 0)
        hosts = [self._host(number) for number in range(self.n)]
        kinds = self._choose_kinds()
        families = self._choose_families(kinds)
        local = np.array([host.endpoints[0] for host in hosts], dtype=np.int64)
        lives: list[Life] = []
        windows: list[tuple[float, float]] = []
        for host, kind, family in zip(hosts, kinds, families, strict=True):
            life = Life(
                host=host,
                rng=np.random.default_rng([self.plan.seed, 4, self.number, host.number, self.plan.is_cold]),
                internet=internet,
                start_ns=self.start_ns,
                spread=self.world.spread,
                ugliness=self.world.ugliness,
                week_s=self.week_s,
                local=local[local != host.endpoints[0]],
                words=self.words,
            )
            windows.append(self._live(life, kind, family))
            lives.append(life)
        endpoints = np.concatenate([outside, np.array(self.endpoints, dtype=ENDPOINT_DTYPE)])
        sessions = np.concatenate([np.zeros(0, dtype=SESSION_DTYPE), *(life.sessions() for life in lives)])
        end_ns = self.start_ns + int(self.length_s * 1e9)
        sessions = sessions[(sessions["ts_ns"] >= self.start_ns) & (sessions["ts_ns"] < end_ns)]
        sessions = sessions[np.argsort(sessions["ts_ns"], kind="stable")]
        residents = tuple(
            self._label(life, kind, family, window, sessions, endpoints)
            for life, kind, family, window in zip(lives, kinds, families, windows, strict=True)
        )
        self._mirror(sessions, endpoints)
        sessions, scene = self._compact(sessions, endpoints)
        base = address_text(0, self.base_v4)
        return Site(
            number=self.number,
            kind=self.kind,
            home_nets=(f"{base}/{self.prefix}", f"{address_text(_signed(_V6_HOME | self.number + 1), 0)}/64"),
            view=self.view,
            is_blind=self.is_blind,
            loss=self.loss,
            start_ns=self.start_ns,
            end_ns=end_ns,
            scene=scene,
            sessions=sessions,
            residents=residents,
        )

    # Who is there.

    def _endpoint(self, hi: int, lo: int, mac: int, word: int, ttl: int, stack: int) -> int:
        self.endpoints.append((_signed(hi), lo, mac, word, ttl, stack, 1))
        return self.n_outside + len(self.endpoints) - 1

    def _mac(self) -> int:
        """Draw a MAC: of one of a few vendors' blocks, whatever the device is."""
        return _OUIS[int(self.rng.integers(0, len(_OUIS)))] << 24 | int(self.rng.integers(1, 1 << 24))

    def _host(self, number: int) -> Host:
        """Draw what a device is on its network, before anybody knows what it does."""
        rng, world = self.rng, self.world
        mac = self.gateway_mac if self.routed else self._mac()
        ttl, stack = int(rng.choice(_STRANGER_TTLS)), int(rng.integers(0, 4))
        start_s, end_s = 0.0, self.length_s
        if not self.plan.is_cold:
            if rng.random() < world.onboarding:
                start_s = rng.uniform(0, 0.9) * self.length_s
            if rng.random() < world.leaving:
                end_s = rng.uniform(start_s, self.length_s)
        lease_s = rng.uniform(*_LEASE_S)
        changes = [0.0]
        renewals = np.arange(start_s + lease_s, end_s, lease_s)
        changes += renewals[rng.random(len(renewals)) < world.churn].tolist()[:8]
        endpoints = [
            self._endpoint(0, self.base_v4 + self._free_host(), mac, -1, ttl, stack) for _ in changes
        ]
        endpoint6 = -1
        if rng.random() < world.ipv6:
            lo = int(rng.integers(1, 1 << 62))
            endpoint6 = self._endpoint(_V6_HOME | self.number + 1, lo, mac, -1, ttl, stack)
        self.words.append(b"%s-%d.lan" % (rng.choice(_HOST_WORDS), rng.integers(1, 1000)))
        is_outside = rng.random() < world.outside_resolver
        public = int(rng.choice(self.internet.resolvers))
        return Host(
            number=number,
            endpoint_from_s=np.array(changes),
            endpoints=np.array(endpoints, dtype=np.int64),
            endpoint6=endpoint6,
            word=-1 - len(self.words),
            start_s=start_s,
            end_s=end_s,
            resolver=public if is_outside else self.resolver,
            resolver6=public + self.internet.n_servers if is_outside else self.resolver6,
            is_blind=self.is_blind or bool(rng.random() < world.blind),
            access_ns=int(rng.integers(500, 15_000)) * 1000,
            port=int(rng.integers(0, 28_000)),
            renewals_s=renewals,
        )

    def _free_host(self) -> int:
        """Return a host number of the subnet; when all were given out, some of them again."""
        return next(self.free, int(self.rng.integers(2, (1 << (32 - self.prefix)) - 1)))

    def _choose_kinds(self) -> list[str]:
        mix = MIXES[self.kind]
        names = list(mix)
        shares = np.array([mix[name] for name in names])
        kinds: list[str] = self.rng.choice(names, self.n, p=shares / shares.sum()).tolist()
        if self.plan.is_cold:
            kinds[int(self.rng.integers(0, self.n))] = str(self.rng.choice(BOT_LIKE))
        return kinds

    def _choose_families(self, kinds: list[str]) -> list[str]:
        """Infect a share of the devices; all families are as common."""
        rng, world = self.rng, self.world
        families = [""] * self.n
        names = list(FAMILIES)
        for number in np.flatnonzero(rng.random(self.n) < world.infected).tolist():
            name = names[int(rng.integers(0, len(names)))]
            families[number] = name
            # The device's own life: it mails, or it does not.
            if name == "hijacked_sender":
                kinds[number] = str(rng.choice(SENDERS))
            elif rng.random() >= world.with_history:
                kinds[number] = "silent"
            elif kinds[number] == "silent":
                kinds[number] = str(rng.choice([kind for kind in MIXES[self.kind] if kind != "silent"]))
        return families

    def _live(self, life: Life, kind: str, family: str) -> tuple[float, float]:
        """Let a device live; return from when until when it is infected, nothing if it never is."""
        host, rng, world = life.host, life.rng, self.world
        life.begin_s, life.finish_s = host.start_s, host.end_s
        if not self.routed and not self.plan.is_cold:
            times = np.concatenate([[host.start_s], host.renewals_s])
            life.hello(times[times < host.end_s])
        background = life.arrivals(world.background_per_day * float(np.exp(rng.normal(0, 0.5))))
        at = np.maximum(background - 0.05, host.start_s)
        servers = rng.choice(self.internet.web_servers, len(at))
        told = servers + (self.internet.n_servers if host.endpoint6 >= 0 else 0)
        life.ask(at, life.name(b"www.site%d.example" % rng.integers(0, 5000)), aux=told)
        KINDS[kind](life)
        window = self._infect(life, family) if family else (0.0, 0.0)
        life.begin_s, life.finish_s, life.is_spam = host.start_s, host.end_s, False
        live_beside(life)
        return window

    def _infect(self, life: Life, family: str) -> tuple[float, float]:
        """Let a family live beside the device's own life; return from when until when."""
        host, rng = life.host, life.rng
        present_s = host.end_s - host.start_s
        begin_s = host.start_s + present_s * (
            rng.uniform(-0.5, 0.6) if self.plan.is_cold else rng.uniform(0.05, 0.7)
        )
        begin_s = max(begin_s, host.start_s)
        life.begin_s, life.finish_s = begin_s, host.end_s
        life.is_spam = True
        FAMILIES[family](life, self._craft(life))
        return begin_s, host.end_s

    def _craft(self, life: Life) -> Craft:
        rng, world = life.rng, self.world
        ramp_s = rng.uniform(*world.ramp_days) * DAY_S if rng.random() < world.ramps else 0.0
        return Craft(
            looks_up=life.chance(world.looks_up),
            uses_tls=life.chance(world.uses_tls),
            is_clean=life.chance(world.is_clean),
            copies_relay=life.chance(world.copies_relay),
            ramp_s=0.0 if self.plan.is_cold else float(ramp_s),
            per_hour=float(np.exp(rng.uniform(np.log(4), np.log(120))))
            if rng.random() < world.limited
            else 0.0,
        )

    # What the sensor sees.

    def _mirror(self, sessions: NDArray[Any], endpoints: NDArray[Any]) -> None:
        """Put into the shapes what of each session is captured: one direction, and no packet or all but one."""
        if self.view != View.BOTH:
            is_outgoing = endpoints["is_home"][sessions["orig"]] == 1
            sees_orig = is_outgoing == (self.view == View.ORIG)
            view = np.where(sees_orig, int(View.ORIG), int(View.RESP))
            sessions["shape"] |= pack_shapes(what=0, view=view)
        if self.loss > 0:
            rng = np.random.default_rng([self.plan.seed, 5, self.number, self.plan.is_cold])
            turns = n_turns(sessions["shape"])
            is_hit = rng.random(len(sessions)) < 1 - (1 - self.loss) ** turns
            # Shapes stand for messages of more than one packet: what is read of a smaller one hangs on its only one.
            is_small = sessions["body"] < SEGMENT_BYTES + TLS_MESSAGE_BYTES
            is_hit &= ~(is_small & np.isin(outcomes_of(sessions["shape"]), _WITH_MESSAGE))
            lost = np.where(is_hit, 1 + (rng.random(len(sessions)) * turns).astype(np.int64), 0)
            sessions["shape"] |= pack_shapes(what=0, lost=lost)

    def _compact(self, sessions: NDArray[Any], endpoints: NDArray[Any]) -> tuple[NDArray[Any], Scene]:
        """Keep the endpoints and words that sessions refer to, and number them anew."""
        refers = ("orig", "resp", "aux", "source")
        used = np.unique(np.concatenate([sessions[name] for name in refers]))
        used = used[used >= 0]
        place = np.full(len(endpoints), -1, dtype=np.int64)
        place[used] = np.arange(len(used))
        for name in refers:
            sessions[name] = np.where(sessions[name] >= 0, place[sessions[name]], -1)
        kept = endpoints[used]

        n_outside = len(self.internet.words)
        columns = [sessions["name"], sessions["sender"], sessions["other"], kept["name"]]
        whole = [np.where(column < -1, n_outside - 2 - column, column) for column in columns]
        words = np.unique(np.concatenate(whole))
        words = words[words >= 0]
        place = np.full(n_outside + len(self.words), -1, dtype=np.int64)
        place[words] = np.arange(len(words))
        renumbered = [np.where(column >= 0, place[column], -1) for column in whole]
        sessions["name"], sessions["sender"], sessions["other"], kept["name"] = renumbered
        all_words = self.internet.words + self.words
        return sessions, make_scene(kept, [all_words[word] for word in words.tolist()], self.vlan)

    def _label(
        self,
        life: Life,
        kind: str,
        family: str,
        window: tuple[float, float],
        sessions: NDArray[Any],
        endpoints: NDArray[Any],
    ) -> Resident:
        host = life.host
        mine = sessions[sessions["device"] == host.number]
        spam = mine[(mine["is_spam"] == 1) & (mine["shape"] & 7 == What.MAIL) & (mine["resp_port"] > 0)]
        spam = spam[endpoints["is_home"][spam["orig"]] == 1]
        ends = [*host.endpoints.tolist(), *([host.endpoint6] if host.endpoint6 >= 0 else [])]
        if self.routed:
            tag = "" if self.vlan < 0 else f"@{self.vlan}"
            keys = tuple(address_text(int(endpoints[e]["hi"]), int(endpoints[e]["lo"])) + tag for e in ends)
        else:
            keys = (mac_text(int(endpoints[ends[0]]["mac"])) or "",)
        is_infected = bool(family)
        return Resident(
            number=host.number,
            keys=keys,
            kind=kind,
            family=family,
            first_seen_ns=int(mine["ts_ns"][0]) if len(mine) else 0,
            infected_from_ns=self.start_ns + int(window[0] * 1e6) * 1000 if is_infected else 0,
            infected_until_ns=self.start_ns + int(window[1] * 1e6) * 1000 if is_infected else 0,
            first_spam_ns=int(spam["ts_ns"][0]) if len(spam) else 0,
            n_spam=len(spam),
            params=life.params,
        )


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


#: Blocks of vendors of cameras, printers, routers, phones and boards (IEEE registry), for any device alike.
_OUIS: Final = (
    0x4419B6,
    0x3CD92B,
    0x4C5E0C,
    0xF8B156,
    0x002590,
    0xB827EB,
    0xA4C138,
    0xD850E6,
    0x001132,
    0x9C8E99,
)
_HOST_WORDS: Final = np.array([b"device", b"host", b"unit", b"node", b"thing", b"client", b"box", b"machine"])
