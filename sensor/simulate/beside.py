"""What devices exchange beside mail: the same for all, whoever they are, and more where a web page asks for mail.

The sensor looks at it only around mail (decode/watch.py), so it is drawn around mail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor.simulate.life import DAY_S, HOUR_S, span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sensor.simulate.life import Life, Times
    from sensor.simulate.sessions import Ints

#: Exchanges of one device in a day at most: more tell nothing more.
MOST_A_DAY: Final = 200
#: ... and so many times it is called.
MOST_CALLS_A_DAY: Final = 1_000
#: How long before a connection is "just before" (devices/activity.py).
CALLED_WITHIN_S: Final = 2.0
#: More bytes than a mail is like are as good as this many.
MOST_BYTES: Final = 50_000


def live_beside(life: Life) -> None:
    """Exchange bytes with a few servers around the device's mail, as every device does."""
    mail = life.mails_at()
    if not len(mail):
        return
    days = max(life.finish_s - life.begin_s, HOUR_S) / DAY_S
    peers = life.rng.choice(life.internet.web_servers, int(life.rng.integers(1, 7)))
    _visit(life, mail, peers, int(MOST_A_DAY * days) + 10)
    _be_called(life, mail, peers, int(MOST_CALLS_A_DAY * days) + 10)


def _visit(life: Life, mail: Times, peers: Ints, most: int) -> None:
    """Fetch pages, upload, chat, and answer what others ask."""
    rng = life.rng
    per_mail = life.draw("exchanges_per_mail", span(0.02, 3, "M"))
    n = min(int(rng.poisson(per_mail * len(mail))), most)
    # M: some go with the mail, as a camera's picture to its cloud; most have nothing to do with it.
    with_mail = rng.random(n) < rng.uniform(0, 0.5)
    t = rng.choice(mail, n) + np.where(with_mail, rng.uniform(-2, 6, n), rng.exponential(300, n))
    # Pages, uploads, messages, and what others ask it: most devices nothing of the last.
    weights = rng.dirichlet(np.ones(4)) * (1, 1, 1, life.chance(0.4))
    sort = rng.choice(4, n, p=weights / weights.sum())
    small, large = _bytes(life, n, 80, 2_000), _bytes(life, n, 400, 60_000)
    body = np.where(sort == 1, large, small)
    answer = np.where((sort == 0) | (sort == 3), large, _bytes(life, n, 80, 2_000))
    called = (sort == 3) | ((sort == 2) & (rng.random(n) < 0.5))
    is_present = (t >= life.begin_s) & (t < life.finish_s)
    life.exchange(
        t[is_present],
        rng.choice(peers, n)[is_present],
        body[is_present],
        answer[is_present],
        called=called[is_present],
    )


def _be_called(life: Life, mail: Times, peers: Ints, most: int) -> None:
    """Get word from servers that it keeps connections to, or from strangers, ever so often, and so just before mail."""
    rng = life.rng
    per_s = life.draw(
        "calls_per_s", span(0.002, 1, "M: one heartbeat an hour to many open pages, or a household's")
    )
    before = mail[rng.random(len(mail)) < 1 - np.exp(-CALLED_WITHIN_S * per_s)]
    if len(before) > most:
        before = rng.choice(before, most, replace=False)
    n = len(before)
    t = np.maximum(before - rng.uniform(0, CALLED_WITHIN_S, n), life.begin_s)
    life.exchange(t, rng.choice(peers, n), _bytes(life, n, 40, 1_500), _bytes(life, n, 1, 500), called=True)


def asked_for(life: Life, t: Times, sizes: Ints, portion: float) -> None:
    """Let a ``portion`` of mails of ``sizes`` be asked for by web pages just before: forms, orders, webmail.

    What is sent in is about as much as the mail [M], so that one direction looks like a proxy's.
    """
    chosen = life.rng.random(len(t)) < portion
    n = int(chosen.sum())
    asked_s = np.maximum(t[chosen] - life.rng.uniform(0.05, 1.5, n), life.begin_s)
    body = np.clip(sizes[chosen] * life.rng.uniform(0.1, 1.3, n), 200, MOST_BYTES).astype(np.int64)
    visitors = life.rng.choice(life.internet.web_servers, n)
    life.exchange(asked_s, visitors, body, _bytes(life, n, 500, 30_000), called=True)


def other_use(life: Life, t: Times, controllers: NDArray[Any], portion: float) -> None:
    """Let a proxy carry other things than mail beside a ``portion`` of its mails, by the same controllers."""
    at = t[life.rng.random(len(t)) < portion]
    where = life.rng.choice(controllers, len(at))
    at = np.clip(at + life.rng.uniform(-4, 4, len(at)), life.begin_s, np.nextafter(life.finish_s, 0))
    n = len(at)
    life.exchange(
        at,
        where,
        _bytes(life, n, 100, 3_000),
        _bytes(life, n, 300, 60_000),
        called=True,
    )


def _bytes(life: Life, n: int, low: float, high: float) -> Ints:
    """Draw numbers of bytes, evenly in their logarithm [M]."""
    drawn: Ints = np.exp(life.rng.uniform(np.log(low), np.log(min(high, MOST_BYTES)), n)).astype(np.int64)
    return drawn
