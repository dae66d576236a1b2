"""FrameRun: what every source of frames is, files, growing files and interfaces alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sensor.capture.frames import FrameBatch


class FrameRun:
    """Iterated over once for its FrameBatches; a context manager that closes it.

    ``batches``: makes them. A source extends ``close`` by what it holds itself.
    """

    def __init__(self, batches: Generator[FrameBatch, None, None]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[FrameBatch]:
        return self

    def __next__(self) -> FrameBatch:
        return next(self._batches)

    def close(self) -> None:
        """End the run, before its end if need be."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
