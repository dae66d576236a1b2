"""What harmless devices do, hard negatives first: one function for each kind (SCIENCE.md section 3).

Each draws the device's parameters from ranges, with their source beside them, and then lives them. Marks: V read in
the named document, M from memory, D arithmetic, as in SCIENCE.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.simulate.beside import asked_for
from sensor.simulate.life import CACHE_S, DAY_S, HOUR_S, Dns, Life, Rhythm, share, span
from sensor.simulate.sessions import Outcome, What

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sensor.simulate.life import Times
    from sensor.simulate.sessions import Ints

    Kind = Callable[[Life], None]

_SUBMISSION_PORTS = (587, 465, 587)
# M: mail programs greet with the computer's name or its address as a literal, devices with their model's name or the
# address; a mail server's name is configured. The words that infected devices say are among these, too.
_PC_NAMES = (
    b"localhost",
    b"user-pc",
    b"DESKTOP-4F2K9",
    b"WIN-7C1A",
    b"smtpclient.apple",
    b"localhost.localdomain",
)
_DEVICE_NAMES = (b"IPCamera", b"localhost", b"printer", b"NPI3C4D5E", b"nas", b"localhost.localdomain")


def _own_relay(life: Life) -> int:
    """Choose the server that a device hands its mail to; most sites have one provider among few."""
    providers = life.internet.providers
    life.relay = int(providers[min(int(life.rng.zipf(1.4)) - 1, len(providers) - 1)])
    return life.relay


def _port(life: Life) -> int:
    return int(life.rng.choice(_SUBMISSION_PORTS))


def _greet(life: Life, odd: float, words: Sequence[bytes]) -> None:
    """Choose the EHLO name: with the chance ``odd`` one of ``words`` or the device's address, else its host name."""
    if not life.chance(odd):
        life.call_itself()
    elif life.chance(0.5):
        life.call_itself(b"[192.168.%d.%d]" % tuple(life.rng.integers(1, 255, 2)))
    else:
        life.call_itself(words[int(life.rng.integers(0, len(words)))])


def _bytes(life: Life, usual: float) -> float:
    """Draw the typical size of a device's mails: some only ever send a few lines of text."""
    return life.draw("text_bytes", span(250, 1500, "M")) if life.chance(0.25) else usual


def _hand_over(life: Life, t: Times, *, port: int, tls: float, body: float, goes_wrong: float = 0.01) -> None:
    """Hand mail to the relay at times ``t``: with TLS, with the chance ``tls``, and a login; or in clear."""
    n = len(t)
    life.usual_per_day = n * DAY_S / max(life.finish_s - life.begin_s, HOUR_S)
    fates = life.dialogues(
        n,
        unanswered=goes_wrong / 3,
        deferred=goes_wrong / 3,
        refused=goes_wrong / 3,
        tls=float(life.chance(tls)),
        login=port != 25,
    )
    # M: some have the relay's address typed in, and small resolvers ask once, at the start, and keep the answer.
    dns = Dns.NONE if life.chance(0.07) else Dns.ADDRESS
    cache_s = 30 * DAY_S if life.chance(0.15) else CACHE_S
    life.send(
        t, life.relay, port=port, dns=dns, cache_s=cache_s, body=life.sizes(n, _bytes(life, body)), **fates
    )


def silent(life: Life) -> None:
    """TVs, bulbs, plugs, phones and all the rest that never mail."""
    del life


# Hard negatives.


def new_small_server(life: Life) -> None:
    """Be a new Linux host that delivers straight to the world, without mail of its own coming in. Looks like F5."""
    per_day = life.draw("mails_per_day", span(1, 100, "M, SCIENCE 3"))
    pool, weights = life.circle(
        life.whole("domains", span(1, 60, "M, SCIENCE 3")), life.draw("freemail", share(0.2, 0.7, "M"))
    )
    life.call_itself(
        None if life.chance(0.3) else b"server%d.example" % life.host.number
    )  # M: odd EHLO names are common
    life.usual_per_day = per_day
    _direct(
        life, life.arrivals(per_day, Rhythm.HOME), pool, weights, refused=(0.0, 0.12), deferred=(0.02, 0.2)
    )


def web_cron_host(life: Life) -> None:
    """Be a web server with a contact form, or cron's reports, through its own MTA direct to the exchange."""
    per_day = life.draw("mails_per_day", span(1, 40, "M, SCIENCE 3"))
    pool, weights = life.circle(
        life.whole("domains", span(1, 20, "M, SCIENCE 3")), life.draw("freemail", share(0.1, 0.6, "M"))
    )
    life.call_itself(b"localhost" if life.chance(0.25) else None)  # M: default of many MTAs
    life.usual_per_day = per_day
    reports = life.daily(float(life.rng.integers(0, 7)), per_day=int(life.rng.integers(1, 4)))
    t = np.sort(np.concatenate([life.arrivals(per_day, Rhythm.HOME), reports]))
    _direct(life, t, pool, weights, refused=(0.0, 0.1), deferred=(0.0, 0.15), web=0.6)


def mailing_list(life: Life) -> None:
    """Be a list host: a weekly blast to hundreds of domains within the hour; bounces come back."""
    blast = life.whole("blast_mails", span(200, 2000, "M, SCIENCE 3"))
    n_domains = life.whole("blast_domains", span(100, 1000, "M, SCIENCE 3"))
    pool, weights = life.circle(n_domains, life.draw("freemail", share(0.2, 0.5, "M")))
    _greet(life, 0.05, _PC_NAMES)
    life.usual_per_day = blast / 7
    starts = np.arange(life.rng.uniform(-7 * DAY_S, 0), life.finish_s, 7 * DAY_S)
    t = life.bursts(starts, np.full(len(starts), blast), gap_s=HOUR_S / blast)
    _direct(life, t, pool, weights, refused=(0.02, 0.08), deferred=(0.02, 0.1))
    posts = life.arrivals(life.draw("posts_per_day", span(1, 30, "M")), Rhythm.OFFICE)
    _direct(life, posts, pool, weights, refused=(0.02, 0.08), deferred=(0.02, 0.1))
    returned = t[life.rng.random(len(t)) < 0.05]
    bounces = life.within(returned + life.rng.uniform(5, 600, len(returned)))
    _take_in(life, np.sort(np.concatenate([bounces, life.arrivals(20)])))


def direct_send_printer(life: Life) -> None:
    """Be an office printer that delivers to its tenant's exchange on port 25, without a login ("direct send")."""
    _greet(life, 0.4, _DEVICE_NAMES)
    domain = int(life.rng.integers(life.internet.n_freemail, 400))
    t = life.arrivals(life.draw("scans_per_day", span(3, 60, "M, SCIENCE 3")), Rhythm.OFFICE)
    fates = life.dialogues(
        len(t),
        refused=life.ugly("refused", share(0, 0.06, "M")),
        deferred=life.ugly("deferred", share(0, 0.05, "M")),
        tls=life.draw("tls", share(0, 1, "M")),
    )
    dns = Dns.EXCHANGE if life.chance(0.3) else Dns.ADDRESS  # M: the exchange's name is typed in
    life.usual_per_day = len(t) / max((life.finish_s - life.begin_s) / DAY_S, 1)
    life.deliver(t, np.full(len(t), domain), dns, body=life.sizes(len(t), 200_000), **fates)


def retry_loop(life: Life) -> None:
    """Be a device whose one server does not answer, since port 25 is blocked: it tries each minute for hours."""
    _own_relay(life)
    _greet(life, 0.4, _DEVICE_NAMES)
    starts = life.arrivals(life.draw("loops_per_day", span(0.2, 3, "M")))
    hours = life.draw("hours", span(0.5, 10, "M, SCIENCE 3"))
    each = life.rng.poisson(hours * 60, len(starts))
    t = life.bursts(starts, each, gap_s=life.draw("gap_s", span(40, 120, "M, SCIENCE 3")))
    servers = life.relay + life.rng.integers(
        0, 1 + life.chance(0.2), len(t)
    )  # one address behind the name, or two
    life.send(t, servers, outcome=Outcome.UNANSWERED, rejected=int(life.rng.integers(1, 5)))


def refused_client(life: Life) -> None:
    """Be a device whose one server takes no mail of it: a wrong password, no relaying, a full mailbox. Looks like F2.

    [M: what support forums of cameras, printers and NAS are full of.]
    """
    _own_relay(life)
    _greet(life, 0.6, _DEVICE_NAMES)
    port = 25 if life.chance(0.4) else _port(life)
    t = life.arrivals(life.draw("mails_per_day", span(1, 60, "M")))
    if life.chance(0.5):  # it tries again, and again
        t = _stuck(life, t)
    # It went well once, or never did.
    since_s = life.begin_s if life.chance(0.5) else life.rng.uniform(life.begin_s, life.finish_s)
    well = t < since_s
    _hand_over(life, t[well], port=port, tls=0.5, body=30_000)
    _not_taken(life, t[~well], life.relay, port, life.draw("not_taken", share(0.7, 1, "M")))


def _stuck(life: Life, t: Times) -> Times:
    """Return the times at which mails are tried until somebody gives up."""
    tries = life.rng.geometric(1 / life.whole("tries", span(3, 60, "M")), len(t))
    return life.bursts(t, np.minimum(tries, 300), gap_s=life.draw("again_s", span(30, 1800, "M")))


def _not_taken(life: Life, t: Times, server: int, port: int, portion: float) -> None:
    """Try to hand over mail of which a server does not take a ``portion``, always for the same reason."""
    trouble = str(life.rng.choice(["refused", "login_failed", "deferred", "banned", "unanswered"]))
    tls = 1.0 if port == 465 else float(life.chance(0.5)) * (port != 25)
    drawn: dict[str, Any] = {trouble: portion}
    fates = life.dialogues(len(t), listed=float(life.chance(0.2)), tls=tls, login=port != 25, **drawn)
    dns = Dns.NONE if life.chance(0.2) else Dns.ADDRESS
    life.send(t, server, port=port, dns=dns, body=life.sizes(len(t), _bytes(life, 20_000)), **fates)


def mail_server(life: Life) -> None:
    """Be an office's own mail server: mail in and out, exchanges looked up, deferred mail tried again."""
    per_day = life.draw("mails_per_day", span(50, 1500, "M, SCIENCE 3"))
    pool, weights = life.circle(
        life.whole("domains", span(30, 600, "M, SCIENCE 3")), life.draw("freemail", share(0.2, 0.5, "M"))
    )
    life.call_itself(b"mail.office%d.example" % life.host.number)
    life.usual_per_day = per_day
    _direct(
        life, life.arrivals(per_day, Rhythm.OFFICE), pool, weights, refused=(0.01, 0.07), deferred=(0.05, 0.1)
    )
    _take_in(
        life, life.arrivals(per_day * life.draw("in_per_out", span(2, 3, "M, SCIENCE 3")), Rhythm.OFFICE)
    )


def new_mail_server(life: Life) -> None:
    """Be a mail server that is set up while we watch: tests first, then real mail in both directions."""
    life.begin_s = life.rng.uniform(life.begin_s, life.begin_s + 0.7 * (life.finish_s - life.begin_s))
    per_day = life.draw("mails_per_day", span(5, 150, "M"))
    pool, weights = life.circle(
        life.whole("domains", span(5, 80, "M")), life.draw("freemail", share(0.3, 0.7, "M"))
    )
    life.call_itself(b"mx.new%d.example" % life.host.number)
    life.usual_per_day = per_day
    t = life.arrivals(per_day, Rhythm.HOME)
    _direct(life, t, pool, weights, refused=(0.02, 0.2), deferred=(0.05, 0.25))
    _take_in(life, life.arrivals(per_day * 1.5, Rhythm.HOME))


def web_shop(life: Life) -> None:
    """Be a shop's host: order mails straight to the customers' exchanges, mostly freemail; a sale makes a peak."""
    per_day = life.draw("orders_per_day", span(10, 400, "M"))
    pool, weights = life.circle(
        life.whole("domains", span(20, 300, "M")), life.draw("freemail", share(0.5, 0.85, "M"))
    )
    life.call_itself(b"shop%d.example" % life.host.number)
    life.usual_per_day = per_day
    t = life.arrivals(per_day, Rhythm.HOME)
    sales = life.arrivals(life.draw("sales_per_day", span(0.05, 0.3, "M")), Rhythm.OFFICE)
    if len(sales):
        t = np.sort(np.concatenate([t, life.bursts(sales, life.rng.poisson(per_day, len(sales)), gap_s=10)]))
    _direct(life, t, pool, weights, refused=(0.01, 0.06), deferred=(0.02, 0.1), web=0.8)


def _direct(
    life: Life,
    t: Times,
    pool: Ints,
    weights: NDArray[np.float64],
    *,
    refused: tuple[float, float],
    deferred: tuple[float, float],
    web: float = 0.2,
) -> None:
    """Deliver like an MTA: exchanges looked up, TLS where there is some, deferred mail tried again until it goes.

    ``web``: the chance that web pages, forms and orders and webmail, ask for some of it.
    """
    n = len(t)
    if n == 0:
        return
    domains = life.pick_domains(n, pool, weights)
    fates = life.dialogues(
        n,
        refused=life.ugly("refused", share(*refused, "M, SCIENCE 3")),
        deferred=life.ugly("deferred", share(*deferred, "M, SCIENCE 3")),
        unanswered=life.ugly("unanswered", share(0, 0.02, "M")),
        listed=life.ugly("listed", share(0, 0.03, "M"))
        if life.chance(0.2)
        else 0.0,  # M: some list lists anybody
        tls=life.draw("tls", share(0.1, 0.9, "M")),
        recipients=3,
    )
    body = life.sizes(n, _bytes(life, life.draw("bytes", span(3_000, 60_000, "M"))))
    life.deliver(t, domains, body=body, **fates)
    if life.chance(web):
        asked_for(life, t, body, life.draw("asked_for", share(0.1, 1, "M")))
    again, which = t, fates["outcome"] == Outcome.DEFERRED
    domains = domains[which]
    again = again[which]
    # V, postfix: first retry after 300 s (older: 1000 s), then doubled up to 4000 s.
    wait_s = life.draw("retry_s", span(300, 1000, "V: postfix docs"))
    for _ in range(4):
        again = again + wait_s * life.rng.uniform(1.0, 1.15, len(again))
        inside = again < life.finish_s
        again, domains = again[inside], domains[inside]
        order = np.argsort(again)
        again, domains = again[order], domains[order]
        retried = life.dialogues(len(again), deferred=0.2, tls=0.5)
        # Of an operator with many addresses, another one than before, as its DNS has it by then.
        life.deliver(again, domains, body=life.sizes(len(again), 8000), **retried)
        left = retried["outcome"] == Outcome.DEFERRED
        again, domains = again[left], domains[left]
        wait_s = min(2 * wait_s, 4000.0)


def _take_in(life: Life, t: Times) -> None:
    """Take mail in, some of it spam that is refused; ask block lists about the senders, as many servers do."""
    n = len(t)
    if n == 0:
        return
    domains = life.pick_domains(n, np.arange(len(life.internet.domain_word)), life.internet.domain_weight)
    servers = life.internet.exchange_of(domains, (t // CACHE_S).astype(np.int64))
    bad = life.rng.random(n) < life.draw("refused_in", share(0.05, 0.5, "M"))
    in_tls = life.rng.random(n) < life.draw(
        "tls_in", share(0.2, 0.95, "M: most mail between servers is encrypted")
    )
    taken = np.where(in_tls, Outcome.TLS_MESSAGE, Outcome.ACCEPTED)
    life.receive(t, servers, outcome=np.where(bad, Outcome.BANNED, taken), body=life.sizes(n, 20_000))
    if life.chance(0.5):
        word = life.name(b"%d.2.0.192.zen.spamhaus.org" % life.rng.integers(1, 255))
        life.ask(np.maximum(t - 0.05, 0.0), word, What.LOOKUP_LISTED)


# The ordinary.


def camera(life: Life) -> None:
    """Be an IP camera or recorder: bursts of alarm mails to one server."""
    _own_relay(life)
    _greet(life, 0.6, _DEVICE_NAMES)
    port = 25 if life.chance(0.4) else _port(life)  # V: port 25 is the default in several manuals (SCIENCE 3)
    starts = life.arrivals(life.draw("alarms_per_day", span(0.1, 8, "M, SCIENCE 3: 0-60 mails")), Rhythm.HOME)
    sizes = (
        life.rng.poisson(
            life.draw("mails_per_alarm", span(1, 15, "V: Q-See, Panasonic: one a second for up to 30 s")),
            len(starts),
        )
        + 1
    )
    t = life.bursts(
        starts,
        np.minimum(sizes, 30),
        gap_s=life.draw("gap_s", span(1, 60, "V: interval 0-3600 s, Trivision")),
    )
    wrong = life.ugly("goes_wrong", share(0, 0.05, "M"))
    _hand_over(
        life,
        t,
        port=port,
        tls=0.0 if port == 25 else life.draw("tls", share(0, 1, "M")),
        body=120_000,
        goes_wrong=wrong,
    )


def printer(life: Life) -> None:
    """Scan to mail through the office's smarthost, and alerts to two addresses."""
    _own_relay(life)
    _greet(life, 0.4, _DEVICE_NAMES)
    port = 25 if life.chance(0.3) else _port(life)
    scans = life.arrivals(life.draw("scans_per_day", span(3, 60, "M, SCIENCE 3")), Rhythm.OFFICE)
    alerts = life.arrivals(life.draw("alerts_per_day", span(0.2, 3, "M, SCIENCE 3")), Rhythm.OFFICE)
    t = np.sort(np.concatenate([scans, alerts]))
    _hand_over(
        life,
        t,
        port=port,
        tls=life.draw("tls", share(0, 1, "M")) * (port != 25),
        body=300_000,
        goes_wrong=life.ugly("goes_wrong", share(0, 0.04, "M")),
    )


def appliance_reports(life: Life) -> None:
    """NAS, UPS, router: reports at a fixed hour."""
    _own_relay(life)
    _greet(life, 0.4, _DEVICE_NAMES)
    port = 25 if life.chance(0.2) else _port(life)
    t = life.daily(life.rng.uniform(0, 24), per_day=int(life.rng.integers(1, 4)))  # M, SCIENCE 3: 0-3
    _hand_over(
        life,
        t,
        port=port,
        tls=float(life.chance(0.7)) * (port != 25),
        body=6_000,
        goes_wrong=life.ugly("goes_wrong", share(0, 0.1, "M")),
    )


def backup_reports(life: Life) -> None:
    """Be a backup server: a report after each job, several a night, sometimes for several customers' addresses."""
    _own_relay(life)
    _greet(life, 0.4, _PC_NAMES)
    jobs = int(life.whole("jobs", span(2, 25, "M")))
    nights = life.daily(life.rng.uniform(0, 5), jitter_s=600)
    t = life.bursts(nights, np.full(len(nights), jobs), gap_s=life.draw("gap_s", span(5, 900, "M")))
    _hand_over(life, t, port=_port(life), tls=float(life.chance(0.8)), body=30_000)


def laptop(life: Life) -> None:
    """Be a person's mail program: one to three submission servers in the working day."""
    _person(
        life,
        life.draw("mails_per_day", span(5, 60, "M, SCIENCE 3")),
        Rhythm.OFFICE,
        int(life.rng.integers(1, 4)),
    )


def phone(life: Life) -> None:
    """Be a phone's mail program: one or two accounts, all day."""
    _person(life, life.draw("mails_per_day", span(1, 15, "M")), Rhythm.HOME, int(life.rng.integers(1, 3)))


def _person(life: Life, per_day: float, rhythm: Rhythm, accounts: int) -> None:
    _own_relay(life)
    _greet(life, 0.7, _PC_NAMES)
    t = life.arrivals(per_day, rhythm)
    n = len(t)
    life.usual_per_day = per_day
    others = life.rng.choice(life.internet.providers, accounts - 1)
    weights = np.array([1.0, *(0.4 / max(accounts - 1, 1) for _ in others)])
    servers = life.pick_domains(n, np.array([life.relay, *others]), weights)
    # M: a forgotten or changed password, tried again and again at one provider.
    wrong = life.ugly("login_failed", share(0, 0.03, "M"))
    fates = life.dialogues(
        n, login_failed=wrong, unanswered=0.005, tls=1.0 if life.chance(0.9) else 0.2, login=True
    )
    life.send(t, servers, port=_port(life), body=life.sizes(n, _bytes(life, 25_000), 1.5), **fates)
    if life.chance(
        0.08
    ):  # M: an account whose password was changed: what is in the outbox is tried until then
        stuck = _stuck(life, life.arrivals(life.draw("stuck_per_day", span(0.05, 0.5, "M"))))
        _not_taken(life, stuck, int(life.rng.choice([life.relay, *others])), _port(life), 1.0)


def monitoring(life: Life) -> None:
    """Be a monitoring server: a few mails a day, and a storm when something breaks."""
    _own_relay(life)
    _greet(life, 0.2, _PC_NAMES)
    port = 25 if life.chance(0.5) else _port(life)
    calm = life.arrivals(life.draw("mails_per_day", span(2, 15, "M, SCIENCE 3: 6")))
    outages = life.arrivals(life.draw("outages_per_day", span(0.05, 0.4, "M")))
    storm = life.whole("storm_mails", span(20, 300, "M, SCIENCE 3"))
    t = np.sort(
        np.concatenate([calm, life.bursts(outages, np.full(len(outages), storm), gap_s=5400 / storm)])
    )
    # The outage may take the way to the relay with it.
    _hand_over(
        life,
        t,
        port=port,
        tls=float(life.chance(0.5)) * (port != 25),
        body=4_000,
        goes_wrong=life.ugly("goes_wrong", share(0, 0.3, "M")),
    )


def mail_monitor(life: Life) -> None:
    """Be a monitor of mail servers: every few minutes it greets those on its list and hangs up, or reads certificates.

    Looks like F9's sweeps and F6's short dialogues.
    """
    _greet(life, 0.4, _DEVICE_NAMES)
    n = life.whole("watched", span(2, 60, "M: one's own, or the big ones of the world, too"))
    at_most = 3_000 / DAY_S
    period_s = max(life.draw("period_s", span(120, 3_600, "M: Nagios asks each 5 minutes")), n / at_most)
    gap_s = min(life.draw("gap_s", span(0.02, 5, "M: one after the other, or all at once")), period_s / n)
    everyone = np.arange(len(life.internet.domain_word))
    domains = life.pick_domains(n, everyone, life.internet.domain_weight)
    submits = life.rng.random(n) < life.draw("submission", share(0, 0.5, "M"))
    servers = np.where(
        submits,
        life.rng.choice(life.internet.providers, n),
        life.internet.exchange_of(domains, np.full(n, life.host.number)),
    )
    sweeps = np.arange(life.begin_s + life.rng.uniform(0, period_s), life.finish_s, period_s)
    t = (sweeps[:, None] + np.arange(n) * gap_s).ravel()
    known, server = t < life.finish_s, np.tile(servers, len(sweeps))
    t, server, submits = t[known], server[known], np.tile(submits, len(sweeps))[known]
    life.usual_per_day = len(t) * DAY_S / max(life.finish_s - life.begin_s, HOUR_S)
    # M: some read certificates, where there is TLS.
    is_tls = life.rng.random(len(t)) < (life.draw("tls", share(0.3, 1, "M")) if life.chance(0.15) else 0.0)
    is_down = life.rng.random(len(t)) < life.ugly("unanswered", share(0, 0.05, "M"))
    outcome = np.where(is_down, Outcome.UNANSWERED, np.where(is_tls, Outcome.TLS_EMPTY, Outcome.GREETED))
    life.send(
        t,
        server,
        port=np.where(submits, 587, 25),
        dns=Dns.NONE if life.chance(0.2) else Dns.ADDRESS,
        outcome=outcome,
        rejected=2 * is_down,
        helo=life.helo,
    )


def vulnerability_scanner(life: Life) -> None:
    """Be a scanner: a nightly sweep over the site's mail ports, among all others."""
    life.call_itself()
    nights = life.daily(life.rng.uniform(0, 6))[:: int(life.rng.integers(1, 4))]
    n = life.whole("targets", span(200, 10_000, "M, SCIENCE 3"))
    t = life.bursts(nights, np.full(len(nights), n), gap_s=life.draw("gap_s", span(0.005, 0.3, "M")))
    life.probe_local(t, life.rng.choice([Outcome.REFUSED, Outcome.UNANSWERED], len(t), p=[0.7, 0.3]))


def developer(life: Life) -> None:
    """Be a developer's machine: a program under test sends the same mail in a loop to a test provider."""
    _own_relay(life)
    _greet(life, 0.6, _PC_NAMES)
    runs = life.arrivals(life.draw("runs_per_day", span(0.3, 6, "M")), Rhythm.OFFICE)
    sizes = life.rng.poisson(life.draw("mails_per_run", span(2, 60, "M")), len(runs)) + 1
    t = life.bursts(runs, sizes, gap_s=life.draw("gap_s", span(0.5, 20, "M")))
    wrong = life.ugly("login_failed", share(0, 0.3, "M"))
    fates = life.dialogues(len(t), login_failed=wrong, refused=0.05, tls=float(life.chance(0.5)), login=True)
    life.send(t, life.relay, port=587, body=life.sizes(len(t), _bytes(life, 3_000)), **fates)
    _person_beside(life)


def saas_agent(life: Life) -> None:
    """Be a help-desk or CRM agent: submits for each of its tenants through that tenant's provider."""
    _greet(life, 0.3, _PC_NAMES)
    tenants = life.whole("tenants", span(2, 8, "M"))
    servers = life.rng.choice(life.internet.providers, tenants, replace=False)
    t = life.arrivals(life.draw("mails_per_day", span(10, 300, "M")), Rhythm.OFFICE)
    life.relay, life.usual_per_day = (
        int(servers[0]),
        len(t) * DAY_S / max(life.finish_s - life.begin_s, HOUR_S),
    )
    fates = life.dialogues(
        len(t), login_failed=life.ugly("login_failed", share(0, 0.04, "M")), tls=1.0, login=True
    )
    body = life.sizes(len(t), _bytes(life, 12_000))
    life.send(t, life.rng.choice(servers, len(t)), port=587, body=body, **fates)
    if life.chance(0.5):
        asked_for(life, t, body, life.draw("asked_for", share(0.1, 1, "M")))


def nat_home(life: Life) -> None:
    """Be a household behind its router, seen as one address: persons, and maybe a camera and a NAS."""
    for _ in range(int(life.rng.integers(1, 5))):
        (phone if life.chance(0.6) else laptop)(life)
    if life.chance(0.3):
        camera(life)
    if life.chance(0.2):
        appliance_reports(life)
    if life.chance(0.05):
        web_cron_host(life)


def _person_beside(life: Life) -> None:
    if life.chance(0.7):
        phone(life)


#: All kinds, and how common they are at each type of site; shares are M.
KINDS: Final[dict[str, Kind]] = {
    kind.__name__: kind
    for kind in (
        *(
            silent,
            new_small_server,
            web_cron_host,
            mailing_list,
            direct_send_printer,
            retry_loop,
            mail_server,
        ),
        refused_client,
        *(new_mail_server, web_shop, camera, printer, appliance_reports, backup_reports, laptop, phone),
        *(monitoring, mail_monitor, vulnerability_scanner, developer, saas_agent, nat_home),
    )
}
MIXES: Final[dict[str, dict[str, float]]] = {
    "home": {
        "silent": 0.5,
        "phone": 0.15,
        "laptop": 0.12,
        "camera": 0.07,
        "printer": 0.02,
        "appliance_reports": 0.06,
        "retry_loop": 0.01,
        "refused_client": 0.01,
        "developer": 0.02,
        "web_cron_host": 0.015,
        "mail_server": 0.005,
        "new_small_server": 0.015,
        "new_mail_server": 0.005,
        "monitoring": 0.01,
        "mail_monitor": 0.001,
    },
    "office": {
        "silent": 0.28,
        "laptop": 0.25,
        "phone": 0.08,
        "printer": 0.07,
        "direct_send_printer": 0.03,
        "camera": 0.05,
        "appliance_reports": 0.05,
        "backup_reports": 0.02,
        "mail_server": 0.025,
        "new_mail_server": 0.01,
        "new_small_server": 0.02,
        "web_cron_host": 0.025,
        "web_shop": 0.015,
        "mailing_list": 0.01,
        "monitoring": 0.015,
        "mail_monitor": 0.005,
        "vulnerability_scanner": 0.01,
        "developer": 0.02,
        "saas_agent": 0.015,
        "retry_loop": 0.015,
        "refused_client": 0.015,
    },
    "isp": {
        "silent": 0.55,
        "nat_home": 0.36,
        "mail_server": 0.02,
        "new_small_server": 0.015,
        "web_cron_host": 0.015,
        "mailing_list": 0.005,
        "web_shop": 0.01,
        "retry_loop": 0.015,
        "refused_client": 0.01,
        "new_mail_server": 0.01,
    },
}
#: Devices that look most like bots; a cold capture has at least one of these.
BOT_LIKE: Final = ("mail_server", "web_shop", "new_small_server", "mailing_list", "web_cron_host")
#: Devices that the family of hijacked senders hijacks.
SENDERS: Final = (
    "mail_server",
    "web_shop",
    "new_small_server",
    "mailing_list",
    "printer",
    "monitoring",
    "saas_agent",
    "laptop",
)
