"""How devices send spam: one function for each family of SCIENCE.md 2.2, and one of 2.1.

A family lives beside the device's own life, from the infection on. Ranges are the 5 and 95 % values of 2.2, whose
marks they carry; what 2.2 leaves open is marked M. What an attacker may do besides is in ``Craft``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.simulate.beside import other_use
from sensor.simulate.life import CACHE_S, DAY_S, HOUR_S, MINUTE_S, Dns, Life, Rhythm, share, span
from sensor.simulate.sessions import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sensor.simulate.life import Range, Times
    from sensor.simulate.sessions import Ints

    Family = Callable[[Life, "Craft"], None]

#: Bots open a connection and ask again for what they asked a minute ago: their own resolvers keep little [M].
_BOT_CACHE_S = 60.0


@dataclass(frozen=True)
class Craft:
    """What an attacker does to be seen less; drawn for each infected device."""

    looks_up: bool  # makes the look-ups that a proxied mail would not have
    uses_tls: bool
    is_clean: bool  # a clean list of recipients: a quarter of the refusals
    copies_relay: bool  # sends through the device's own relay where the family submits
    ramp_s: float  # grows to its full rate over this time; 0 at once
    per_hour: float  # a rate limiter's cap, 0 none

    def pace(self, life: Life, t: Times) -> Times:
        """Thin out a campaign by ramp and cap."""
        t = np.sort(t)
        if self.ramp_s > 0:
            t = t[life.rng.random(len(t)) < np.clip((t - life.begin_s) / self.ramp_s, 0.02, 1.0)]
        if self.per_hour > 0 and len(t):
            hour = t // HOUR_S
            nth = np.arange(len(t)) - np.searchsorted(hour, hour, side="left")
            t = t[nth < self.per_hour]
        return t

    def dns(self, otherwise: Dns) -> Dns:
        """Return which look-ups stand behind a proxied connection."""
        return Dns.EXCHANGE if self.looks_up and otherwise == Dns.NONE else otherwise


def _spam_sizes(life: Life, n: int) -> Ints:
    """Templates repeat: sizes of one campaign scatter little."""
    typical = (
        span(300, 1_500, "M") if life.chance(0.2) else span(1_800, 9_000, "M")
    )  # a line and a link, or a page
    return life.sizes(n, life.draw("bytes", typical), 0.1)


def _operators(life: Life, n: int) -> tuple[Ints, NDArray[np.float64]]:
    """Choose freemail operators as spam's recipients have them [V: scitepress 95910]."""
    weights = life.internet.domain_weight[: life.internet.n_freemail]
    n = min(n, life.internet.n_freemail)
    chosen = life.rng.choice(life.internet.n_freemail, size=n, replace=False, p=weights / weights.sum())
    return chosen, weights[chosen]


def _submission(life: Life, tls: Range) -> tuple[int, float]:
    """Choose a port for submission, and how much of it is encrypted: on 465 all [V: RFC 8314]."""
    if life.chance(0.5):
        return 465, 1.0
    return 587, life.draw("tls", tls)


def _campaign(life: Life, per_day: float, on_hours: float, period_days: float) -> Times:
    """Return the times of a rate that is on for some hours every so many days."""
    # Whoever was infected before we watch is in the middle of it.
    is_old = life.begin_s == life.host.start_s
    first = life.begin_s + life.rng.uniform(-on_hours * HOUR_S if is_old else 0, 0 if is_old else 6 * HOUR_S)
    starts = np.arange(first, life.finish_s, period_days * DAY_S)
    n = life.rng.poisson(per_day, len(starts))
    t = np.repeat(starts, n) + life.rng.uniform(0, on_hours * HOUR_S, int(n.sum()))
    return life.within(np.sort(t))


def _dialect(life: Life, *, remote: bool) -> NDArray[np.int64]:
    """Return the EHLO names that a campaign uses: an address, a word, and of a remote mailer several hosts' [M]."""
    odd = [
        b"[192.0.2.%d]" % life.rng.integers(1, 255),
        b"localhost",
        b"user-pc",
        b"WIN-%X" % int(life.rng.integers(1 << 30)),
    ]
    hosts = [
        b"mail%d.host%d.example" % tuple(life.rng.integers(1, 500, 2))
        for _ in range(int(life.rng.integers(1, 5)))
    ]
    names = hosts if remote and life.chance(0.6) else [odd[int(life.rng.integers(0, len(odd)))]]
    return np.array([life.name(name) for name in names], dtype=np.int64)


def _tunnel(life: Life, t: Times) -> dict[str, Any]:
    """Choose by whom proxied mails come, as arguments of ``send``: a few controllers, bare or encrypted [M].

    Half of them have the device carry other things beside.
    """
    controllers = life.rng.choice(life.internet.controllers, int(life.rng.integers(1, 5)), replace=False)
    if life.chance(0.5):
        other_use(life, t, controllers, life.draw("other_use", share(0, 0.8, "M")))
    record = 22 if life.chance(0.5) else 0  # V: RFC 8446: what a record of TLS 1.3 adds
    return {"source": life.rng.choice(controllers, len(t)), "extra": record}


def _spam(
    life: Life,
    craft: Craft,
    t: Times,
    domains: Ints,
    *,
    dns: Dns,
    refused: float,
    deferred: float = 0.03,
    banned: float = 0.03,
    unanswered: float = 0.02,
    remote: bool = True,
    resolver: int | None = None,
) -> None:
    """Deliver spam to the exchanges of ``domains`` on port 25."""
    n = len(t)
    factor = 0.25 if craft.is_clean else 1.0
    fates = life.dialogues(
        n,
        refused=refused * factor,
        deferred=deferred * factor,
        banned=banned * factor,
        content_refused=0.05 * factor,
        unanswered=unanswered,
        listed=life.draw(
            "listed", share(0.1, 0.6, "V: utcc.utoronto.ca 2011: block lists are a third of refusals")
        ),
        tls=life.draw("tls", share(0.6, 1.0, "M"))
        if craft.uses_tls
        else life.draw("tls", share(0.0, 0.3, "M")),
        recipients=int(life.rng.integers(1, 6)),
    )
    names = _dialect(life, remote=remote)
    life.deliver(
        t,
        domains,
        dns,
        body=_spam_sizes(life, n),
        helo=life.rng.choice(names, n),
        sender=life.internet.domain_word[life.rng.integers(0, len(life.internet.domain_word), n)],
        cache_s=_BOT_CACHE_S,
        resolver=resolver,
        **(_tunnel(life, t) if remote else {}),
        **fates,
    )


def thingbot(life: Life, craft: Craft) -> None:
    """F1: one to ten mails a day, in bursts of minutes, to freemail."""
    per_day = life.draw("mails_per_day", span(1, 10, "V: Proofpoint 2014"))
    bursts = life.arrivals(float(life.rng.integers(2, 4)))
    t = life.bursts(
        bursts, life.rng.poisson(per_day / 2.5, len(bursts)), gap_s=5 * MINUTE_S / max(per_day, 2)
    )
    pool, weights = _operators(life, int(life.rng.integers(1, 7)))
    t = craft.pace(life, t)
    dns = Dns.ADDRESS if life.chance(0.5) else craft.dns(Dns.NONE)
    _spam(
        life,
        craft,
        t,
        life.pick_domains(len(t), pool, weights),
        dns=dns,
        refused=life.draw("refused", share(0.2, 0.4, "V: 2.2")),
        remote=False,
    )


def proxym(life: Life, craft: Craft) -> None:
    """F2: submission with stolen logins that the controller hands out; templates filled in on the device."""
    per_day = life.draw("mails_per_day", span(200, 800, "V: bleepingcomputer 2017: 400"))
    days = life.arrivals(per_day)
    is_on = life.rng.random(400) < 0.6  # V: 2.2: on campaign days
    is_on[int(life.begin_s // DAY_S)] = True
    t = craft.pace(life, days[is_on[(days // DAY_S).astype(np.int64)]])
    servers = life.rng.choice(life.internet.providers, int(life.rng.integers(1, 9)), replace=False)
    if craft.copies_relay and life.relay >= 0:
        servers = np.array([life.relay])
    failed = life.draw("login_failed", share(0.1, 0.3, "V: 2.2")) * (0.25 if craft.is_clean else 1.0)
    port = int(life.rng.choice([25, 465, 587]))
    tls = 1.0 if port == 465 or craft.uses_tls else life.draw("tls", share(0.0, 0.7, "M"))
    n = len(t)
    fates = life.dialogues(n, login_failed=failed, refused=0.05, tls=tls, login=True, recipients=10)
    dns = Dns.ADDRESS if life.chance(0.5) or craft.looks_up else Dns.NONE  # V: 2.2: A look-up 50 %
    life.send(
        t,
        life.rng.choice(servers, n),
        port=port,
        dns=dns,
        body=_spam_sizes(life, n),
        helo=_dialect(life, remote=False)[0],
        cache_s=_BOT_CACHE_S,
        **fates,
    )


def freemail_proxy(life: Life, craft: Craft) -> None:
    """F3: a SOCKS or TCP proxy to the freemail operators' port 25; nobody here looks anything up."""
    per_day = life.draw("mails_per_day", span(50, 4_000, "V: 2.2"))
    hours = life.draw("on_hours", span(0.5, 12, "V: 2.2"))
    period = life.draw("period_days", span(1, 3, "V: securityweek 2018: a wave every 1-3 days"))
    t = craft.pace(life, _campaign(life, per_day, hours, period))
    pool, weights = _operators(life, int(life.rng.integers(3, 7)))
    refused = life.draw("refused", share(0.2, 0.5, "V: 2.2"))
    # Each connection to another of the operator's addresses: the remote mailer resolves for all of its proxies.
    domains = life.pick_domains(len(t), pool, weights)
    _spam(life, craft, t, domains, dns=craft.dns(Dns.NONE), refused=refused, banned=0.08)


def residential_proxy(life: Life, craft: Craft) -> None:
    """F4: an SDK in an app sells the line: a few mails a day among other traffic, in the user's hours."""
    per_day = life.draw("mails_per_day", span(5, 60, "V: 2.2"))
    t = craft.pace(life, life.arrivals(per_day, Rhythm.HOME))
    refused = life.draw("refused", share(0.1, 0.3, "V: 2.2"))
    if life.chance(0.3):  # submission with somebody's login, through the proxy
        n_servers = life.whole(
            "servers", span(1, 8, "V: 2.2: 1 to 4 operators; M: lists of logins have more")
        )
        servers = life.rng.choice(life.internet.providers, n_servers, replace=False)
        port, tls = _submission(life, share(0.5, 1, "M"))
        fates = life.dialogues(len(t), login_failed=refused, tls=tls, login=True)
        dns = Dns.ADDRESS if craft.looks_up else Dns.NONE
        life.send(
            t,
            life.rng.choice(servers, len(t)),
            port=port,
            dns=dns,
            body=_spam_sizes(life, len(t)),
            helo=_dialect(life, remote=True)[0],
            **_tunnel(life, t),
            **fates,
        )
        return
    pool, weights = _operators(life, int(life.rng.integers(1, 5)))
    _spam(life, craft, t, life.pick_domains(len(t), pool, weights), dns=craft.dns(Dns.NONE), refused=refused)


def direct_to_mx(life: Life, craft: Craft) -> None:
    """F5: the bot resolves thousands of domains' exchanges itself and delivers."""
    per_day = life.draw("mails_per_day", span(300, 25_000, "V: 2.2"))
    t = craft.pace(life, _campaign(life, per_day, life.draw("on_hours", span(2, 20, "M: hours a day")), 1.0))
    everyone = np.arange(len(life.internet.domain_word))
    weights = life.internet.domain_weight * life.rng.uniform(0.2, 1, len(everyone))
    domains = life.pick_domains(len(t), everyone, weights)
    # V: Neris asks root and foreign authoritative servers itself, past the site's resolver.
    resolver = int(life.rng.choice(life.internet.resolvers)) if life.chance(0.3) else None
    refused = life.draw("refused", share(0.3, 0.6, "V: 2.2"))
    _spam(
        life,
        craft,
        t,
        domains,
        dns=Dns.EXCHANGE,
        refused=refused,
        deferred=0.1,
        remote=False,
        resolver=resolver,
    )


def credential_spray(life: Life, craft: Craft) -> None:
    """F6: stolen credentials are tried at many submission servers, a few times each; short dialogues."""
    per_day = life.draw("logins_per_day", span(40, 600, "V: 2.2"))
    t = craft.pace(life, life.arrivals(per_day))
    n_servers = min(life.whole("servers", span(20, 300, "V: 2.2")), len(life.internet.providers))
    servers = life.rng.choice(life.internet.providers, n_servers, replace=False)
    failed = life.draw("login_failed", share(0.3, 0.6, "V: 2.2"))
    tls = life.draw("tls", share(0.6, 1.0, "M: mostly TLS"))
    n = len(t)
    fates = life.dialogues(n, login_failed=failed, tls=tls, login=True)
    # A login that works is noted, not used: EHLO, AUTH, QUIT.
    is_short = life.rng.random(n) < 0.8
    fates["outcome"] = np.where(
        is_short & (fates["outcome"] == Outcome.TLS_MESSAGE), Outcome.TLS_EMPTY, fates["outcome"]
    )
    dns = Dns.ADDRESS if life.chance(0.5) or craft.looks_up else Dns.NONE
    life.send(
        t,
        life.rng.choice(servers, n),
        port=int(life.rng.choice([465, 587])),
        dns=dns,
        helo=_dialect(life, remote=False)[0],
        cache_s=_BOT_CACHE_S,
        **fates,
    )


def stolen_accounts(life: Life, craft: Craft) -> None:
    """F11: mail with stolen accounts at many providers, low and slow, by the device itself.

    [V: 2.1: the SMTP-AUTH botnet of March 2025, half a million addresses; Emotet's small volumes.]
    """
    per_day = life.draw("mails_per_day", span(3, 60, "D: between F2 and F7"))
    t = craft.pace(life, life.arrivals(per_day, Rhythm.HOME if life.chance(0.5) else Rhythm.ALWAYS))
    n_servers = min(life.whole("servers", span(2, 40, "M")), len(life.internet.providers))
    servers = life.rng.choice(life.internet.providers, n_servers, replace=False)
    # M: accounts are closed, passwords changed, sooner or later.
    failed = life.draw("login_failed", share(0.05, 0.4, "M")) * (0.25 if craft.is_clean else 1.0)
    n = len(t)
    port, tls = _submission(life, share(0.7, 1, "M"))
    fates = life.dialogues(n, login_failed=failed, refused=0.03, tls=tls, login=True, recipients=3)
    dns = Dns.ADDRESS if life.chance(0.7) or craft.looks_up else Dns.NONE
    life.send(
        t,
        life.rng.choice(servers, n),
        port=port,
        dns=dns,
        body=_spam_sizes(life, n),
        helo=_dialect(life, remote=False)[0],
        cache_s=_BOT_CACHE_S,
        **fates,
    )


def ultra_low(life: Life, craft: Craft) -> None:
    """F7: one to five mails a day, to one to three operators, nothing looked up."""
    t = craft.pace(life, life.arrivals(life.draw("mails_per_day", span(1, 5, "V: 2.2"))))
    refused = 0.15  # V: 2.2
    if life.chance(0.4):
        servers = life.rng.choice(life.internet.providers, int(life.rng.integers(1, 4)), replace=False)
        port, tls = _submission(life, share(0.6, 1, "M"))
        fates = life.dialogues(len(t), login_failed=refused, tls=tls, login=True)
        dns = Dns.ADDRESS if craft.looks_up else Dns.NONE
        life.send(
            t,
            life.rng.choice(servers, len(t)),
            port=port,
            dns=dns,
            helo=_dialect(life, remote=True)[0],
            body=_spam_sizes(life, len(t)),
            **_tunnel(life, t),
            **fates,
        )
        return
    pool, weights = _operators(life, int(life.rng.integers(1, 4)))
    _spam(life, craft, t, life.pick_domains(len(t), pool, weights), dns=craft.dns(Dns.NONE), refused=refused)


def hijacked_sender(life: Life, craft: Craft) -> None:
    """F8: a device that mails anyhow sends three to ten times as much, by night, the way it always does."""
    per_day = max(life.usual_per_day, 3.0) * life.draw("times", span(3, 10, "V: 2.2"))
    t = craft.pace(life, life.arrivals(per_day, Rhythm.NIGHT))
    n = len(t)
    refused = min(0.03 * life.draw("refused_times", span(3, 10, "V: 2.2")), 0.6)
    if craft.is_clean:
        refused *= 0.25
    if life.relay >= 0:
        fates = life.dialogues(n, refused=refused, tls=float(life.chance(0.8)), login=True, recipients=4)
        life.send(t, life.relay, port=587, body=_spam_sizes(life, n), **fates)
        return
    fates = life.dialogues(
        n, refused=refused, deferred=0.05, content_refused=0.03, tls=0.5, listed=0.15, recipients=4
    )
    everyone = np.arange(len(life.internet.domain_word))
    domains = life.pick_domains(n, everyone, life.internet.domain_weight)
    life.deliver(t, domains, Dns.EXCHANGE, body=_spam_sizes(life, n), **fates)


def blocked_bot(life: Life, craft: Craft) -> None:
    """F9: as F3 or F5, but the network blocks port 25: nobody answers."""
    per_day = life.draw("attempts_per_day", span(100, 10_000, "V: 2.2"))
    t = craft.pace(life, _campaign(life, per_day, life.draw("on_hours", span(1, 20, "M")), 1.0))
    resolves = life.chance(0.5)
    if resolves:
        pool: Ints = np.arange(len(life.internet.domain_word))
        weights = life.internet.domain_weight
    else:
        pool, weights = _operators(life, int(life.rng.integers(3, 7)))
    domains = life.pick_domains(len(t), pool, weights)
    dns = Dns.EXCHANGE if resolves else craft.dns(Dns.NONE)
    unanswered = life.draw("unanswered", share(0.95, 1.0, "V: 2.2"))
    fates = life.dialogues(len(t), unanswered=unanswered, refused=0.02, syns=int(life.rng.integers(0, 5)))
    life.deliver(t, domains, dns, helo=_dialect(life, remote=not resolves)[0], cache_s=_BOT_CACHE_S, **fates)


def open_relay(life: Life, craft: Craft) -> None:
    """F10: strangers hand mail in on port 25 and the device delivers it, about one for one."""
    per_day = life.draw(
        "mails_per_day", span(4_000, 40_000, "V: 2.2: 20,000; ruberg.no: 300,000 in two weeks")
    )
    if life.helo == -1:
        life.call_itself()
    t = craft.pace(life, _campaign(life, per_day, life.draw("on_hours", span(6, 24, "M: days")), 1.0))
    strangers = life.rng.choice(life.internet.controllers, int(life.rng.integers(2, 12)), replace=False)
    life.receive(t, life.rng.choice(strangers, len(t)), body=_spam_sizes(life, len(t)))
    out = life.within(t + life.rng.uniform(1, 30, len(t)))
    out = np.sort(
        out[life.rng.random(len(out)) < life.draw("out_per_in", share(0.85, 1.0, "V: 2.2: about 1"))]
    )
    everyone = np.arange(len(life.internet.domain_word))
    domains = life.pick_domains(len(out), everyone, life.internet.domain_weight)
    fates = life.dialogues(
        len(out),
        refused=life.draw("refused", share(0.2, 0.5, "M: as F5")),
        deferred=0.08,
        listed=0.3,
        tls=0.3 if craft.uses_tls else 0.1,
        recipients=8,
    )
    life.deliver(out, domains, Dns.EXCHANGE, body=_spam_sizes(life, len(out)), cache_s=CACHE_S, **fates)


#: Families by name: those of SCIENCE.md 2.2, in its order, and one more of 2.1.
FAMILIES: Final[dict[str, Family]] = {
    family.__name__: family
    for family in (
        *(thingbot, proxym, freemail_proxy, residential_proxy, direct_to_mx, credential_spray, ultra_low),
        *(hijacked_sender, blocked_bot, open_relay, stolen_accounts),
    )
}
