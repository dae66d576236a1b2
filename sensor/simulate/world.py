"""Worlds: how widely devices differ, how much goes wrong, how well attackers hide; and how large a population is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True)
class World:
    """What a world is like; shares are of devices unless they say of sites."""

    name: str
    spread: float  # how far parameters scatter: 1 as in their ranges
    ugliness: float  # factor of what goes wrong for the benign
    infected: float = 0.1  # far above the 1/1000 of a real network: recall needs devices to count
    onboarding: float = 0.15  # appear while we watch [SCIENCE 6]
    leaving: float = 0.03
    churn: float = 0.03  # of lease renewals that bring another address [M]
    ipv6: float = 0.1  # [SCIENCE 2.2]
    blind_sites: float = 0.08  # no DNS passes the mirror [SCIENCE 2.2]
    blind: float = 0.05  # DNS over HTTPS [M]
    outside_resolver: float = 0.12  # [M]
    one_sided_sites: float = 0.03  # [M]
    lossy_sites: float = 0.1  # [M]
    max_loss: float = 0.01
    with_history: float = 0.2  # of the infected mail anyhow [SCIENCE 2.2]
    ramps: float = 0.3  # [SCIENCE 2.2]
    ramp_days: tuple[float, float] = (3.0, 3.0)
    limited: float = 0.2  # [SCIENCE 2.2]
    looks_up: float = 0.0  # what attackers do to be seen less: Craft
    uses_tls: float = 0.2
    is_clean: float = 0.1
    copies_relay: float = 0.0
    background_per_day: float = 30.0  # other look-ups; thinned: real devices make thousands


WORLDS: Final = {
    "tame": World(
        "tame", spread=0.5, ugliness=0.5, blind_sites=0.0, blind=0.0, one_sided_sites=0.0, lossy_sites=0.0
    ),
    "realistic": World("realistic", spread=1.0, ugliness=1.0),
    "hostile": World(
        "hostile",
        spread=1.3,
        ugliness=2.0,
        onboarding=0.25,
        churn=0.1,
        blind=0.1,
        one_sided_sites=0.06,
        lossy_sites=0.3,
        max_loss=0.02,
        ramps=0.6,
        ramp_days=(2.0, 6.0),
        limited=0.4,
        looks_up=0.5,
        uses_tls=0.6,
        is_clean=0.5,
        copies_relay=0.5,
    ),
}

#: Devices of a site by its type, and how common the types are [M].
_SITE_TYPES: Final = {"home": (8, 25, 0.45), "office": (20, 60, 0.4), "isp": (40, 100, 0.15)}
_COLD_SITE: Final = (4, 30)


@dataclass(frozen=True)
class Plan:
    """A whole population: what is made from it depends on nothing else."""

    world: World
    seed: int
    n_devices: int
    days: float
    is_cold: bool = False

    def site_sizes(self) -> list[tuple[str, int]]:
        """Return the type and the number of devices of each site."""
        rng = np.random.default_rng([self.seed, 2, self.is_cold])
        names = list(_SITE_TYPES)
        chances = np.array([_SITE_TYPES[name][2] for name in names])
        sites: list[tuple[str, int]] = []
        left = self.n_devices
        while left > 0:
            kind = names[int(rng.choice(len(names), p=chances))]
            low, high = _COLD_SITE if self.is_cold else _SITE_TYPES[kind][:2]
            n = min(int(rng.integers(low, high + 1)), left)
            sites.append((kind, n))
            left -= n
        return sites
