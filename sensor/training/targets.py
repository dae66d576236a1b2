"""What we want to reach (issue tracker: "A detector whose promise is measured"), and whether the measure shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sensor.training.traces import BEHIND_NAT, IPV6_ONLY, LOSS, NO_DNS, ONE_SIDED

if TYPE_CHECKING:
    from collections.abc import Iterator

RECALL_MUCH: Final = 0.99
RECALL_LITTLE: Final = 0.92
LEFT_OUT_MUCH: Final = 0.97
LEFT_OUT_LITTLE: Final = 0.80
MESSAGES: Final = {
    "direct_to_mx": 30,
    "freemail_proxy": 30,
    "proxym": 12,
    "credential_spray": 12,
    "residential_proxy": 12,
}
MINUTES_MUCH: Final = 20
PER_DEVICE_YEAR: Final = 0.05
DEVICE_YEARS: Final = 300
COLD_RECALL: Final = 0.95
COLD_CAPTURES: Final = 200
RECALL_NO_DNS: Final = 0.85
SHARE_OF_CLEAN: Final = 0.8


class Target(NamedTuple):
    """One row: what, how much is wanted, what was measured, and whether it is enough (None: not measured)."""

    quantity: str
    wanted: str
    measured: str
    is_attained: bool | None


def targets(measured: dict[str, Any], left_out: dict[str, Any] | None) -> Iterator[Target]:
    """Yield the targets.

    ``measured``: of realistic worlds, as ``evaluate`` returns it; ``left_out``: as ``leave_out_each`` does.
    """
    first = measured["at"][0]
    yield _at_least("recall, 50 and more mails a day", RECALL_MUCH, first["much"])
    yield _at_least("recall within a week, 1 to 60 a day", RECALL_LITTLE, first["little"])
    for name, wanted in (("much", LEFT_OUT_MUCH), ("little", LEFT_OUT_LITTLE)):
        what = "50 and more" if name == "much" else "1 to 60"
        found = left_out["overall"][name] if left_out else {"devices": 0, "recall": None}
        yield _at_least(f"recall, {what} a day, family not learned from", wanted, found)
    for family, most in MESSAGES.items():
        median = first["families"].get(family, {}).get("median_messages")
        yield _at_most(f"median messages, {family}", most, median)
    yield _at_most("median minutes, 50 and more a day", MINUTES_MUCH, first["much"]["median_minutes"])
    alarms = first["false_alarms"]
    years = alarms["device_years"]
    yield Target(
        f"false alarms a device-year, on {DEVICE_YEARS} or more",
        f"<= {PER_DEVICE_YEAR:g}",
        f"{shown(alarms['per_device_year'])} on {years:g}",
        years >= DEVICE_YEARS and alarms["per_device_year"] <= PER_DEVICE_YEAR,
    )
    for at in measured["at"]:
        low, high = at["false_alarms"]["interval"]
        yield Target(
            f"promised {at['promised']:g}: measured with 95 %",
            f"{at['promised']:g}",
            f"{shown(low)} to {shown(high)}",
            None if low is None else low <= at["promised"] <= high,
        )
    cold = first["cold"]
    if cold["captures"]:
        recall = cold["found"] / cold["infected"] if cold["infected"] else None
        yield _at_least(
            "recall in cold captures, 30 and more mails in it",
            COLD_RECALL,
            {"devices": cold["infected"], "recall": recall},
        )
        allowed = cold["captures"] / COLD_CAPTURES
        yield Target(
            "cold captures with a false alarm",
            f"<= 1 of {COLD_CAPTURES}",
            f"{cold['with_false_alarm']} of {cold['captures']}",
            cold["with_false_alarm"] <= allowed,
        )
    yield _at_least(
        "recall without DNS, 50 and more a day", RECALL_NO_DNS, first["circumstances"][NO_DNS]["much"]
    )
    clean = first["clean"]["recall"] or 0.0
    for name in (LOSS, ONE_SIDED, IPV6_ONLY, BEHIND_NAT):
        yield _at_least(f"recall, {name}", SHARE_OF_CLEAN * clean, first["circumstances"][name]["all"])


def _at_least(quantity: str, wanted: float, found: dict[str, Any]) -> Target:
    recall = found["recall"]
    if recall is None:
        return Target(quantity, f">= {wanted:.2f}", "-", None)
    return Target(quantity, f">= {wanted:.2f}", f"{recall:.3f} of {found['devices']}", recall >= wanted)


def _at_most(quantity: str, wanted: float, value: float | None) -> Target:
    """Compare a median, which is None where half of the devices are never found."""
    return Target(quantity, f"<= {wanted:g}", shown(value), value is not None and value <= wanted)


def shown(value: float | None) -> str:
    """Return a number for a table."""
    return "-" if value is None else f"{value:.3g}"
