"""How the detector does on a simulated world, and what simulating and scoring cost.

    python bench/simulated.py data/realistic-1

For each family: how many of its devices raised an alert after their infection, and how many minutes and mail
attempts after the first one (medians; a device that was missed counts as infinite). For each benign kind: devices
with an alert, and how many that is in a device-year. Captures of a cold world are counted one by one.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sensor.pipeline import Pipeline
from sensor.simulate.emit import Templates, emit
from sensor.simulate.sessions import What
from sensor.simulate.store import open_world

YEAR_NS = 365 * 86400 * 10**9
#: A cold capture counts for recall if its infected device attempts this many mails in it.
COLD_MAILS = 30


class Found(NamedTuple):
    is_found: bool
    minutes: float
    mails: float


def alert_ns(alert: Any) -> int:
    return int(np.datetime64(alert.timestamp.removesuffix("+0000"), "us").astype(np.int64)) * 1000


def spam_times(site: Any, resident: Any) -> Any:
    """When a device attempted spam, i8[n]."""
    of = (site.sessions["device"] == resident.number) & (site.sessions["is_spam"] == 1)
    mails = site.sessions[of & (site.sessions["shape"] & 7 == What.MAIL)]
    return mails["ts_ns"][site.scene.endpoints["is_home"][mails["orig"]] == 1]


def judge(site: Any, alerts: list[Any], families: Any, kinds: Any, *, is_cold: bool) -> None:
    """Note what the alerts of a site are worth: ``families`` Found, ``kinds`` [device-years, devices with alerts]."""
    by_key = defaultdict(list)
    for alert in alerts:
        if alert.event_type == "alert" and alert.state == "started":
            by_key[alert.device.key].append(alert_ns(alert))
    for resident in site.residents:
        times = sorted(ns for key in resident.keys for ns in by_key.get(key, ()))
        if not resident.family:
            kinds[resident.kind][0] += (site.end_ns - site.start_ns) / YEAR_NS
            kinds[resident.kind][1] += bool(times)
            continue
        spam = spam_times(site, resident)
        if len(spam) == 0 or (is_cold and len(spam) < COLD_MAILS):
            continue
        after = [ns for ns in times if ns >= spam[0]]
        if after:
            n = int((spam <= after[0]).sum())
            families[resident.family].append(Found(True, (after[0] - spam[0]) / 60e9, n))
        else:
            families[resident.family].append(Found(False, np.inf, np.inf))


def main() -> None:
    data = open_world(Path(sys.argv[1]))
    templates = Templates()
    families: Any = defaultdict(list)
    kinds: Any = defaultdict(lambda: [0.0, 0])
    spent = {"emit": 0.0, "score": 0.0}
    n_events = n_device_weeks = n_false_captures = n_captures = 0
    for site in data.sites():
        alerts: list[Any] = []
        pipeline = Pipeline(site.config, on_alert=alerts.append)
        begun = time.process_time()
        for events in emit(site.sessions, site.scene, templates):
            made = time.process_time()
            pipeline.observe(events, site.scene.text)
            scored = time.process_time()
            spent["emit"] += made - begun
            spent["score"] += scored - made
            n_events += len(events)
            begun = scored
        pipeline.finish()
        before = sum(n for _, n in kinds.values())
        judge(site, alerts, families, kinds, is_cold=data.manifest["cold"])
        n_captures += 1
        n_false_captures += sum(n for _, n in kinds.values()) > before
        n_device_weeks += len(site.residents) * (site.end_ns - site.start_ns) / (YEAR_NS * 7 / 365)

    print(f"{'family':20} {'devices':>8} {'recall':>7} {'minutes':>8} {'mails':>6}")
    for name in sorted(families):
        found = families[name]
        medians = [np.median([getattr(f, what) for f in found]) for what in ("minutes", "mails")]
        recall = np.mean([f.is_found for f in found])
        print(f"{name:20} {len(found):8} {recall:7.2f} {medians[0]:8.1f} {medians[1]:6.0f}")
    print(f"\n{'benign kind':22} {'device-years':>12} {'alerted':>8} {'per device-year':>16}")
    for name, (years, n) in sorted(kinds.items()):
        print(f"{name:22} {years:12.2f} {n:8} {n / years:16.2f}")
    years, n = (sum(column) for column in zip(*kinds.values(), strict=True))
    print(f"{'all':22} {years:12.2f} {n:8} {n / years:16.2f}")
    print(f"\n{n_captures} sites, {n_false_captures} of them with a false alarm")
    print(
        f"{n_device_weeks:.0f} device-weeks, {n_events:,} events; CPU seconds: "
        + ", ".join(f"{what} {seconds:.1f}" for what, seconds in spent.items())
    )


if __name__ == "__main__":
    main()
