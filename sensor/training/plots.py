"""Pictures of a measure: recall against false alarms, and how long each family goes unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sensor.outputs import OutputFile
from sensor.training.evaluate import QUANTILES

if TYPE_CHECKING:
    from pathlib import Path

RECALL: Final = "recall.svg"
DELAY: Final = "delay.svg"
_OURS, _OTHERS, _PALE = "#0b5fa5", "#8a4b00", "#9ec3e6"
#: Minutes: below, an alert is at once; a week is the longest that is measured.
_AT_ONCE, _WEEK = 0.1, 7 * 24 * 60.0
_TICKS: Final = {
    0.1: "6 s",
    1: "1 min",
    10: "10 min",
    60: "1 h",
    360: "6 h",
    1440: "1 day",
    _WEEK: "1 week",
}


def draw(directory: Path, measured: dict[str, Any]) -> None:
    """Write the pictures of one kind of world; equal measures give equal files."""
    import matplotlib as mpl  # noqa: PLC0415 - only training has it

    mpl.use("svg")
    with mpl.rc_context({"svg.hashsalt": "spamsensor", "svg.fonttype": "none", "font.size": 9}):
        _draw_recall(directory / RECALL, measured)
        _draw_delay(directory / DELAY, measured)


def _draw_recall(path: Path, measured: dict[str, Any]) -> None:
    """Draw the curve of ours, its calibrated budgets on it, and each other detector at its own setting."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above, and after mpl.use

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    curve = measured["curve"]
    axes.plot(curve["false_alarms"], curve["recall"], color=_OURS, label="ours, any threshold")
    for at in measured["at"]:
        alarms = at["false_alarms"]["per_device_year"]
        found = sum(of["recall"] * of["devices"] for of in at["families"].values())
        devices = sum(of["devices"] for of in at["families"].values())
        if not alarms or not devices:
            continue
        axes.plot(alarms, found / devices, "o", color=_OURS)
        axes.annotate(
            f"budget {at['promised']:g}",
            (alarms, found / devices),
            xytext=(4, -12),
            textcoords="offset points",
            color=_OURS,
        )
    for name, of in list(measured["detectors"].items())[1:]:
        alarms = of["false_alarms"]["per_device_year"]
        if not alarms or of["recall"] is None:
            continue
        axes.plot(alarms, of["recall"], "x", color=_OTHERS)
        axes.annotate(
            name, (alarms, of["recall"]), xytext=(4, 4), textcoords="offset points", color=_OTHERS, fontsize=7
        )
    axes.set(
        xscale="log", xlabel="false alarms a device-year", ylabel="infected devices found", ylim=(0, 1.02)
    )
    axes.set_title(f"Recall and false alarms: {', '.join(measured['worlds'])}", loc="left", fontsize=10)
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def _draw_delay(path: Path, measured: dict[str, Any]) -> None:
    """Draw for each family when a tenth, a quarter, a half, ... of its devices are found; open where they never are."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above, and after mpl.use

    families = measured["at"][0]["families"]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(families) + 1.5), layout="constrained")
    for row, of in enumerate(families.values()):
        times = [2 * _WEEK if minutes is None else max(minutes, _AT_ONCE) for minutes in of["minutes"]]
        low, quarter, half, three_quarters, high = times
        axes.plot([low, high], [row, row], color=_PALE, linewidth=2, solid_capstyle="butt")
        axes.plot([quarter, three_quarters], [row, row], color=_PALE, linewidth=8, solid_capstyle="butt")
        if half <= _WEEK:
            axes.plot(half, row, "|", color=_OURS, markersize=14, markeredgewidth=2.5)
    axes.set_yticks(
        range(len(families)), [f"{name} ({of['recall']:.0%} found)" for name, of in families.items()]
    )
    axes.set_xscale("log")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()))
    axes.minorticks_off()
    axes.set_xlim(_AT_ONCE * 0.8, _WEEK * 1.1)
    axes.invert_yaxis()
    shares = ", ".join(f"{share:.0%}" for share in QUANTILES)
    axes.set_xlabel(f"from the first spam to the alert: {shares} of all devices of the family")
    axes.set_title(f"Time to detect at a budget of {measured['at'][0]['budget']:g}", loc="left", fontsize=10)
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.5)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above, and after mpl.use

    with OutputFile(str(path)) as output, output.writing():
        figure.savefig(output.stream, format="svg", metadata={"Date": None})
    plt.close(figure)
