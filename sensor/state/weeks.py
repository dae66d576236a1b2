"""What devices were like: the most evidence that there was against each in a week, and its features at its worst."""

from __future__ import annotations

from typing import Final, NamedTuple

DAY_NS: Final = 86_400 * 1_000_000_000
WEEK_NS: Final = 7 * DAY_NS
#: Minutes for which a device must have been known for a week to count: half of it.
MIN_MINUTES: Final = 7 * 24 * 60 // 2


class Peaks(NamedTuple):
    """The most evidence against some devices within a minute that ends at ``now_ns``, packet time.

    ``model_id``: whose evidence it is, None if it tells nothing of a week; ``devices``: their keys; ``of_index``,
    ``of_model``: of each; ``features``: as they are now, f8[N_FEATURES] as bytes, None where nothing speaks against it;
    ``schema``: digest of what features mean.
    """

    now_ns: int
    model_id: str | None
    devices: list[str]
    of_index: list[float]
    of_model: list[float]
    features: list[bytes | None]
    schema: str


class Example(NamedTuple):
    """A labelled device as it was at its worst in a day; ``features``: f8[N_FEATURES] as bytes."""

    device: str
    day: int
    verdict: str
    evidence: float
    features: bytes


class DeviceWeek(NamedTuple):
    """A device in one week, as the database has it.

    ``label``: what the operator says of the device, None nothing; ``is_accused``: an alert on it was open in the week.
    """

    device: str
    week: int
    minutes: int
    of_index: float
    of_model: float
    label: str | None
    is_accused: bool

    @property
    def is_whole(self) -> bool:
        """Whether the device was known for most of the week."""
        return self.minutes >= MIN_MINUTES

    @property
    def is_harmless(self) -> bool:
        """Whether the week shows what a harmless device is like, as far as anybody knows."""
        return self.label == "benign" or (self.label is None and not self.is_accused)
