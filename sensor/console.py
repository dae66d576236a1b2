"""What a person at a terminal sees beside the alerts: the progress bar, the summary, and hints."""

# ruff: noqa: PLC0415 - rich is imported only for a terminal

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from sensor.notation import counted, day_and_second, duration_text, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sensor.config import Config

_MB: Final = 1e6
_WIDEST: Final = 400
_UNDECODED: Final = ("unknown_link_type", "unknown_tunnel", "too_deep", "malformed", "truncated")


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, bytes_read: int, n_packets: int) -> None:
        """Show a new position: in the input, in bytes, and in packets so far."""

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Clear the line while something else is written to the terminal."""

    def close(self) -> None:
        """Take the bar away."""


class NoProgress:
    """Shows nothing: standard error is no terminal, or nobody wants it."""

    def update(self, bytes_read: int, n_packets: int) -> None:
        """Show nothing."""

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Clear nothing."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Take nothing away."""


class ProgressBar:
    """A bar on standard error with the share done, the rate and the time left; only a rate for endless input.

    ``bytes_total``: size of the input, None if unknown.
    """

    def __init__(self, bytes_total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("replay"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=bytes_total, rate="")
        self._bar.start()

    def update(self, bytes_read: int, n_packets: int) -> None:
        """Show a new position and the mean rates so far."""
        task = self._bar.tasks[self._task]
        elapsed = task.elapsed or 0.0
        if elapsed:
            rate = f"{bytes_read / _MB / elapsed:,.0f} MB/s {n_packets / elapsed:,.0f} packets/s"
            self._bar.update(self._task, completed=bytes_read, rate=rate)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Clear the line while something else is written to the terminal."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output: as wide as the terminal, or else as it needs; cells are plain text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDEST)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=place == 0)  # what is copied stays in one piece
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def summary_lines(stats: Mapping[str, Any], n_alerts: int, n_reviews: int) -> list[str]:
    """Say what a run was. ``stats``: the keys of ``--stats``; then the devices alerted on and reviewed."""
    span = ""
    if stats["packets"]:
        first, last = stats["first_ts"], stats["last_ts"]
        seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
        span = f" from {day_and_second(first)} on, {duration_text(seconds)}"
    size, seconds, rate = stats["bytes"] / _MB, stats["wall_seconds"], stats["packets_per_second"]
    seen = [
        counted(stats["devices"], "device"),
        counted(stats["smtp_flows"], "mail connection"),
        counted(stats["mx_queries"], "MX look-up"),
    ]
    return [
        f"read {stats['packets']:,} packets{span}: {size:,.1f} MB in {seconds:.1f} s, {rate:,.0f} packets/s",
        f"saw {', '.join(seen)}: {counted(n_alerts, 'alert')}, {n_reviews:,} for review",
    ]


def status_line(stats: Mapping[str, Any]) -> str:
    """Say how a live capture goes. ``stats``: the keys of ``--stats``."""
    parts = [
        f"{stats['packets']:,} packets so far",
        f"{stats['kernel_drops']:,} dropped by the kernel",
        counted(stats["devices"], "device"),
        counted(stats["smtp_flows"], "mail connection"),
        f"{counted(stats['alerts'], 'alert')}, {stats['reviews']:,} for review",
    ]
    parts += [f"{visible(name)} is {state}" for name, state in stats["interfaces"].items() if state != "up"]
    for sink in stats["sinks"]:
        if not sink["is_up"] or sink["lost"]:
            away = "" if sink["is_up"] else f" is not there, {counted(sink['queued'], 'alert')} waiting"
            parts.append(f"{sink['name']}{away}, {sink['lost']:,} lost")
    return ", ".join(parts)


def hint_lines(stats: Mapping[str, Any], config: Config) -> list[str]:
    """Say what looks like a capture or a setting that hides what matters."""
    hints = []
    if stats["packets"] == 0:
        return ["no packets at all: nothing was judged"]
    nets = ", ".join(map(str, config.home_nets))
    elsewhere, sender = stats["elsewhere_connections"], stats["elsewhere_sender"]
    if elsewhere * 2 > stats["smtp_flows"]:
        whose = f", most are of {sender}" if sender else ""
        hints.append(
            f"{elsewhere:,} of {counted(stats['smtp_flows'], 'mail connection')} have no end in a home network "
            f"({nets}), and nobody is judged for them{whose}: name the networks of this site with --home-net"
        )
    elif stats["devices"] == 0:
        hints.append(
            f"no packet from a home network ({nets}): are the addresses public? name them with --home-net"
        )
    if stats["smtp_flows"] and not stats["dns_queries"]:
        hints.append(
            "no DNS seen: look-ups tell most about a sender; does the mirror show the way to the resolver?"
        )
    if bool(stats["smtp_commands"]) != bool(stats["smtp_replies"]):
        seen = "clients" if stats["smtp_commands"] else "servers"
        hints.append(f"only the mail {seen} were seen, not their peers: mirror both directions")
    undecoded = sum(stats["frames"].get(status, 0) for status in _UNDECODED)
    if undecoded * 2 > stats["packets"]:
        hints.append(f"{undecoded:,} packets could not be decoded: frames in --stats says why")
    return hints
