"""Traces: every step of evidence of every device of a world, with its label, as the pipeline judges it.

A step does not depend on what was said before, so evidence, thresholds and alarms of any model follow from the
trace alone, without another run over the events.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.devices.features import N_FEATURES
from sensor.errors import DataError
from sensor.pipeline import Pipeline, Steps
from sensor.simulate.emit import Templates, emit
from sensor.simulate.sessions import View, What
from sensor.simulate.store import open_world

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sensor.simulate.site import Resident, Site

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

NO_DNS: Final = "its site's DNS does not pass the mirror"
LOSS: Final = "some packets are lost"
ONE_SIDED: Final = "one direction only"
IPV6_ONLY: Final = "mails over IPv6 only"
BEHIND_NAT: Final = "behind a router that translates addresses"
#: Under which detection is measured apart.
CIRCUMSTANCES: Final = (NO_DNS, LOSS, ONE_SIDED, IPV6_ONLY, BEHIND_NAT)


@dataclass(frozen=True, slots=True)
class DeviceTrace:
    """One device: its label, and its steps in the order of time.

    ``watched_from_ns``: when the sensor of its site saw something first;
    ``circumstances``: of CIRCUMSTANCES, under which it is seen; ``spam_per_day``: attempts in a day of its infection;
    ``spam_ns``: i8[n], when it attempted spam; ``serials``: i8[m], under which the sensor knew it (a device of an
    ISP has several addresses); ``ts_ns``: i8[m]; ``features``: f8[m, N_FEATURES].
    """

    world: str
    is_cold: bool
    site: int
    kind: str
    family: str
    start_ns: int
    end_ns: int
    watched_from_ns: int
    circumstances: frozenset[str]
    spam_per_day: float
    spam_ns: Ints
    serials: Ints
    ts_ns: Ints
    features: Floats
    counts_as: float = 1.0

    @property
    def years(self) -> float:
        """How long it was watched."""
        return (self.end_ns - self.start_ns) / (365 * 86400e9)


class _Task(NamedTuple):
    directory: Path
    position: int


def collect(directories: Sequence[Path], *, n_processes: int = 1) -> list[DeviceTrace]:
    """Return the traces of the devices of simulated worlds; DataError if a world cannot be read."""
    tasks = [
        _Task(directory, position)
        for directory in directories
        for position in range(len(open_world(directory).manifest["sites"]))
    ]
    if n_processes == 1:
        found = [_trace_site(task) for task in tasks]
    else:
        context = multiprocessing.get_context("spawn")  # kernels and fork do not go together
        with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
            found = list(pool.map(_trace_site, tasks))
    return [trace for traces in found for trace in traces]


@cache
def _templates() -> Templates:
    """Return the templates of events, which all sites share."""
    return Templates()


def describe_data(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what worlds are: how to make them again, and the digest of their labels."""
    keys = ("world", "seed", "devices", "days", "cold", "labels_sha256")
    return [{key: open_world(directory).manifest[key] for key in keys} for directory in directories]


def _trace_site(task: _Task) -> list[DeviceTrace]:
    world = open_world(task.directory)
    site = world.site(task.position)
    if not site.residents:
        raise DataError(f"{task.directory}: site {site.number} has no labels")
    of_key = {key: resident.number for resident in site.residents for key in resident.keys}
    seen: dict[int, list[tuple[int, int, Floats]]] = {resident.number: [] for resident in site.residents}

    def on_step(steps: Steps) -> None:
        for key, serial, features in zip(steps.keys, steps.serials.tolist(), steps.features, strict=True):
            number = of_key.get(key)
            if number is not None:  # else a router, or the site's resolver
                seen[number].append((serial, steps.now_ns, features.copy()))

    pipeline = Pipeline(site.config, on_alert=lambda _: None, on_step=on_step)
    for events in emit(site.sessions, site.scene, _templates()):
        pipeline.observe(events, site.scene.text)
    pipeline.finish()
    return [
        DeviceTrace(
            world=f"{world.manifest['world']} {world.manifest['seed']}",
            is_cold=bool(world.manifest["cold"]),
            site=site.number,
            kind=resident.kind,
            family=resident.family,
            start_ns=max(site.start_ns, resident.first_seen_ns),
            end_ns=site.end_ns,
            watched_from_ns=min(pipeline.started_ns, site.end_ns),
            circumstances=frozenset(_circumstances(site, resident)),
            spam_per_day=resident.mails_per_day,
            spam_ns=spam_times(site, resident),
            serials=np.array([step[0] for step in seen[resident.number]], dtype=np.int64),
            ts_ns=np.array([step[1] for step in seen[resident.number]], dtype=np.int64),
            features=np.array([step[2] for step in seen[resident.number]]).reshape(-1, N_FEATURES),
        )
        for resident in site.residents
    ]


def _circumstances(site: Site, resident: Resident) -> Iterator[str]:
    mail = site.sessions[site.sessions["device"] == resident.number]
    mail = mail[mail["shape"] & 7 == What.MAIL]
    if site.is_blind:
        yield NO_DNS
    if site.loss > 0:
        yield LOSS
    if site.view != View.BOTH:
        yield ONE_SIDED
    if len(mail) and (site.scene.endpoints["hi"][mail["orig"]] != 0).all():
        yield IPV6_ONLY
    if resident.kind == "nat_home":
        yield BEHIND_NAT


def spam_times(site: Site, resident: Resident) -> NDArray[Any]:
    """Return when a device attempted spam, i8[n]."""
    of = (site.sessions["device"] == resident.number) & (site.sessions["is_spam"] == 1)
    mails = site.sessions[of & (site.sessions["shape"] & 7 == What.MAIL)]
    times: NDArray[Any] = mails["ts_ns"][site.scene.endpoints["is_home"][mails["orig"]] == 1]
    return times
