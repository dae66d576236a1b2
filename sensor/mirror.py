"""A mirror that carries nothing, or one direction only: noticed by what a run counts, and said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sensor.notation import counted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long nothing may come, or nothing of one direction.
PATIENCE_S: Final = 60.0
#: How much of the other direction there has to be meanwhile: a few questions without an answer say nothing.
MIN_HEARD: Final = 5


@dataclass(slots=True)
class _Direction:
    """One direction of a conversation, missed while the other is heard. ``kind``: a name for metrics.

    Counts are totals. A watch begins with the first word after which nothing of this direction came, and is over
    after PATIENCE_S: so the usual pause of an hour in which one dead server is asked twice is no one-way mirror.
    """

    kind: str
    heard: str  # key of the totals: the other direction
    missed: str  # ... and this one
    noun: str  # what is heard
    complaint: str
    question: str = "is the mirror one-way?"
    again: str = "the mirror shows both directions again"
    is_missing: bool = False
    _since_s: float | None = None
    _n_heard: int = 0
    _n_missed: int = 0

    def look(self, now_s: float, totals: Mapping[str, Any]) -> str | None:
        n_heard, n_missed = totals[self.heard], totals[self.missed]
        if n_missed > self._n_missed:
            was_missing, self.is_missing = self.is_missing, False
            self._n_heard, self._n_missed, self._since_s = n_heard, n_missed, None
            return self.again if was_missing else None
        if self._since_s is None:
            if n_heard > self._n_heard:
                self._since_s = now_s
            return None
        if now_s - self._since_s < PATIENCE_S:
            return None
        n_new = n_heard - self._n_heard
        self._n_heard, self._since_s = n_heard, None
        if n_new < MIN_HEARD or self.is_missing:
            return None
        self.is_missing = True
        return f"{self.complaint} in {PATIENCE_S:.0f} s, of {counted(n_new, self.noun)}: {self.question}"


def _directions() -> tuple[_Direction, ...]:
    return (
        _Direction(
            "mail_answers",
            "outside_connections",
            "outside_answers",
            "mail connection",
            "no answer seen from outside",
            "is the mirror one-way, or mail blocked?",
        ),
        _Direction(
            "mail_commands", "smtp_replies", "smtp_commands", "reply", "no mail client seen, only servers,"
        ),
        _Direction(
            "home_mail",
            "elsewhere_connections",
            "outside_connections",
            "mail connection of others",
            "no mail of a home network",
            "are these the networks of this site, or is one missing (--home-net)?",
            "mail of home networks comes again",
        ),
        _Direction("dns_responses", "dns_queries", "dns_responses", "look-up", "no DNS response seen"),
        _Direction("dns_queries", "dns_responses", "dns_queries", "response", "no DNS query seen"),
    )


class MirrorHealth:
    """Looks at the totals of a run, each second or so, and says what the mirror lacks; by a clock that is given."""

    def __init__(self, now_s: float) -> None:
        self._directions: Final = _directions()
        self._n_packets = 0
        self._quiet_since_s = now_s
        self._is_silent = False

    def look(self, now_s: float, totals: Mapping[str, Any]) -> list[str]:
        """Return what has changed, a line each. ``totals``: the keys of ``--stats``."""
        news = [line for direction in self._directions if (line := direction.look(now_s, totals))]
        if (line := self._look_for_packets(now_s, totals)) is not None:
            news.append(line)
        return news

    def faults(self) -> dict[str, bool]:
        """Return what is missing now, by kind."""
        return {"packets": self._is_silent} | {d.kind: d.is_missing for d in self._directions}

    def _look_for_packets(self, now_s: float, totals: Mapping[str, Any]) -> str | None:
        n_packets = totals["packets"]
        names = [name for name, state in totals["interfaces"].items() if state == "up"]
        if n_packets > self._n_packets:
            was_silent, self._is_silent = self._is_silent, False
            self._n_packets, self._quiet_since_s = n_packets, now_s
            return "packets come again" if was_silent else None
        if not names:  # which is said already: nothing can come
            self._quiet_since_s = now_s
            return None
        if self._is_silent or now_s - self._quiet_since_s < PATIENCE_S:
            return None
        self._is_silent = True
        where = " or ".join(map(visible, names))
        return f"no packet on {where} for {PATIENCE_S:.0f} s: is the mirror configured?"
