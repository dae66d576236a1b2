"""The files that a replay writes beside its alerts: tables, events and totals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sensor.events.jsonl import event_lines
from sensor.outputs import OutputFile, RewrittenFile
from sensor.tables import table_format, table_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    import numpy as np
    from numpy.typing import NDArray


class ReplayFiles:
    """Opens the files of one replay: each ``open_`` takes a path and returns the function that writes there.

    ConfigError for a path that cannot be written. ``stack``, on its way out, completes the files; or, on an
    exception, discards them. ``unnamed_format``: the tables' format where a path does not tell it.
    """

    def __init__(self, stack: ExitStack, unnamed_format: str) -> None:
        self._stack = stack
        self._unnamed_format = unnamed_format
        self._growing: list[OutputFile] = []

    def flush(self) -> None:
        """Let the files that are written as it comes be read up to here."""
        for output in self._growing:
            with output.writing():
                output.stream.flush()

    def open_table(self, path: str) -> Callable[[Mapping[str, Sequence[Any]]], None]:
        """Return what adds rows, given as columns."""
        name = table_format(path, otherwise=self._unnamed_format)
        output = self._stack.enter_context(OutputFile(path))
        writer = table_writer(output.stream, name)

        def finish(kind: type[BaseException] | None, *_: object) -> None:
            if kind is None:
                with output.writing():
                    writer.finish()

        self._stack.push(finish)

        def write(columns: Mapping[str, Sequence[Any]]) -> None:
            with output.writing():
                writer.write(columns)

        return write

    def open_events(self, path: str) -> Callable[[NDArray[Any], NDArray[np.uint8]], None]:
        """Return what adds events; the file grows as they come."""
        output = self._stack.enter_context(OutputFile(path, as_it_comes=True))
        self._growing.append(output)

        def write(events: NDArray[Any], text: NDArray[np.uint8]) -> None:
            with output.writing():
                output.stream.write(event_lines(events, text))

        return write

    def open_json(self, path: str) -> Callable[[Mapping[str, Any]], None]:
        """Return what writes one JSON object."""
        output = self._stack.enter_context(OutputFile(path))

        def write(content: Mapping[str, Any]) -> None:
            with output.writing():
                output.stream.write(json.dumps(content, indent=2).encode() + b"\n")

        return write

    def open_rewritten_json(self, path: str) -> Callable[[Mapping[str, Any]], None]:
        """Return what writes one JSON object in the place of the one before: see RewrittenFile."""
        rewritten = self._stack.enter_context(RewrittenFile(path))

        def write(content: Mapping[str, Any]) -> None:
            rewritten.write(json.dumps(content, indent=2).encode() + b"\n")

        return write
