"""The outside world: mail operators, domains and their exchanges, resolvers, web servers, proxies' controllers.

Addresses are from RFC 2544 (198.18.0.0/15) and RFC 3849, names below ``.example`` (RFC 2606). Operators of size
have blocks of their own, /24 and /48 as in the detector's eyes; a small domain's exchange stands anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from sensor.simulate.sessions import ENDPOINT_DTYPE

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from sensor.simulate.sessions import Ints

#: Share of the world's recipients: Gmail, Hotmail, Yahoo, AOL, T-Online, Comcast, web.de, GMX [V: scitepress 95910].
FREEMAIL_WEIGHTS: Final = (2.52, 1.18, 1.17, 0.63, 0.19, 0.13, 0.13, 0.12)
N_HOSTERS: Final = 25
N_DOMAINS: Final = 3000
#: Domains whose mail a hoster takes [M].
HOSTED_SHARE: Final = 0.6
N_PROVIDERS: Final = 360
N_PUBLIC_RESOLVERS: Final = 4
N_CONTROLLERS: Final = 300
N_WEB_SERVERS: Final = 400
_FREEMAIL_SERVERS = (8, 40)  # per operator: SCIENCE 2.2, F3: 20-150 addresses at 3-6 operators
_SERVERS_PER_BLOCK = 8
_FIRST_ADDRESS = 0xFFFF << 32 | 0xC6120000
_N_BLOCKS = 512
_V6 = 0x20010DB8 << 32


@dataclass(frozen=True)
class Internet:
    """Servers and who runs them. Endpoint of server s: s by IPv4, ``n_servers + s`` by IPv6."""

    endpoints: NDArray[Any]  # ENDPOINT_DTYPE[2 * n_servers]
    words: list[bytes]
    half_rtt_ns: Ints  # i8[n_servers]
    domain_word: Ints  # i8[n_domains]: its name; the freemail operators come first
    domain_first: Ints  # i8[n_domains]: its exchanges are servers ``first``, ``first + 1``, ...
    domain_count: Ints
    domain_weight: NDArray[np.float64]  # how much of the world's mail goes there
    providers: Ints  # i8[n]: submission servers
    resolvers: Ints  # public resolvers
    controllers: Ints
    web_servers: Ints  # what ordinary look-ups are about

    @property
    def n_servers(self) -> int:
        """How many servers there are."""
        return len(self.half_rtt_ns)

    @property
    def n_freemail(self) -> int:
        """How many of the domains are freemail operators."""
        return len(FREEMAIL_WEIGHTS)

    def exchange_of(self, domains: Ints, epoch: Ints) -> Ints:
        """Return the server that takes a domain's mail at a time: of several, another one in each epoch."""
        spread = (domains * 7919 + epoch * 104_729) % self.domain_count[domains]
        return self.domain_first[domains] + spread


class _Builder:
    """Servers in the making."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.words: list[bytes] = []
        self.blocks: list[int] = []
        self.hosts: list[int] = []
        self.names: list[int] = []
        self._free = iter(rng.permutation(_N_BLOCKS).tolist())
        self._stray: list[int] = [next(self._free) for _ in range(200)]

    def word(self, text: str) -> int:
        self.words.append(text.encode())
        return len(self.words) - 1

    def operator(self, name: str, n: int) -> int:
        """Add an operator's servers in its own blocks; return the first."""
        first = len(self.blocks)
        for k in range(n):
            if k % _SERVERS_PER_BLOCK == 0:
                block = next(self._free)
            self.blocks.append(block)
            self.hosts.append(10 + int(self.rng.integers(0, 24)) * 10 + k % _SERVERS_PER_BLOCK)
            self.names.append(self.word(f"mx{k}.{name}") if name else -1)
        return first

    def stray(self, name: str) -> int:
        """Add one server among those of others; return it."""
        self.blocks.append(int(self.rng.choice(self._stray)))
        self.hosts.append(int(self.rng.integers(1, 255)))
        self.names.append(self.word(name) if name else -1)
        return len(self.blocks) - 1


def make_internet(seed: int) -> Internet:
    """Return the world outside of a seed."""
    rng = np.random.default_rng([seed, 1])
    make = _Builder(rng)
    word, first, count, weight = [], [], [], []
    for k, share in enumerate(FREEMAIL_WEIGHTS):
        n = int(rng.integers(*_FREEMAIL_SERVERS))
        word.append(make.word(f"freemail{k}.example"))
        first.append(make.operator(f"freemail{k}.example", n))
        count.append(n)
        weight.append(share)
    hosters = [
        (make.operator(f"hosting{k}.example", n), n) for k, n in enumerate(rng.integers(4, 16, N_HOSTERS))
    ]
    popularity = 1.0 / np.arange(1, N_DOMAINS + 1)  # Zipf: SCIENCE 3
    for k in range(N_DOMAINS):
        word.append(make.word(f"domain{k}.example"))
        if rng.random() < HOSTED_SHARE:
            at, n = hosters[min(int(rng.zipf(1.5)) - 1, N_HOSTERS - 1)]
            pair = min(2, int(n))
            first.append(at + int(rng.integers(0, int(n) - pair + 1)))
            count.append(pair)
        else:
            first.append(make.stray(f"mail.domain{k}.example"))
            count.append(1)
        weight.append(float(popularity[k]))
    providers = [make.stray(f"smtp.provider{k}.example") for k in range(N_PROVIDERS)]
    resolvers = [make.stray(f"dns{k}.resolver.example") for k in range(N_PUBLIC_RESOLVERS)]
    controllers = [make.stray("") for _ in range(N_CONTROLLERS)]
    web_servers = [make.stray("") for _ in range(N_WEB_SERVERS)]

    n = len(make.blocks)
    blocks, hosts = np.array(make.blocks), np.array(make.hosts)
    endpoints = np.zeros(2 * n, dtype=ENDPOINT_DTYPE)
    endpoints["lo"][:n] = _FIRST_ADDRESS + blocks * 256 + hosts
    endpoints["hi"][n:] = _V6 | (blocks + 1) << 16
    endpoints["lo"][n:] = hosts
    endpoints["name"] = np.tile(make.names, 2)
    endpoints["ttl"] = np.tile(rng.integers(40, 60, n), 2)
    half_rtt_us = np.exp(rng.normal(np.log(20_000), 0.6, n)).astype(np.int64)  # 40 ms median round trip [M]
    weights = np.array(weight)
    freemail = slice(0, len(FREEMAIL_WEIGHTS))
    weights[freemail] /= weights[freemail].sum()
    weights[len(FREEMAIL_WEIGHTS) :] /= weights[len(FREEMAIL_WEIGHTS) :].sum()
    return Internet(
        endpoints=endpoints,
        words=make.words,
        half_rtt_ns=half_rtt_us * 1000,
        domain_word=np.array(word),
        domain_first=np.array(first),
        domain_count=np.array(count),
        domain_weight=weights,
        providers=np.array(providers),
        resolvers=np.array(resolvers),
        controllers=np.array(controllers),
        web_servers=np.array(web_servers),
    )
