"""Tables for other programs: CSV, JSON Lines or Parquet, by the ending of the file's name.

An unknown value (None or NaN) is an empty field in CSV and null elsewhere. Text comes from the network: in
CSV it is printable ASCII, and a text that a spreadsheet would take for a formula gets a leading apostrophe.
"""

# ruff: noqa: PLC0415 - pyarrow takes longer to import than a small capture to replay

from __future__ import annotations

import csv
import io
import math
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sensor.errors import ConfigError
from sensor.notation import printable, visible
from sensor.outputs import is_special

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Endings of file names, and the format that each stands for.
ENDINGS: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
#: Rows of a Parquet row group; also how many rows wait in memory.
ROW_GROUP_ROWS: Final = 65536
_FORMULA_STARTS: Final = ("=", "+", "-", "@")


class TableWriter(Protocol):
    """Takes the rows of one table, some at a time; every call brings the same columns in the same order."""

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows: one sequence of Python values per column, all of the same length."""

    def finish(self) -> None:
        """Write what is still held back. The file itself is the caller's."""


def table_format(path: str, otherwise: str = "csv") -> str:
    """Tell the format by the ending of a file's name; ConfigError names the endings that there are.

    Standard output, pipes and devices have no telling name: for them it is ``otherwise``.
    """
    ending = Path(path).suffix.lower()
    if ending in ENDINGS:
        return ENDINGS[ending]
    if path == "-" or is_special(path):
        return otherwise
    raise ConfigError(f"{visible(path)}: a table's name ends in {', '.join(ENDINGS)}")


def table_writer(stream: IO[bytes], table_format: str) -> TableWriter:
    """Return the writer of one of the formats of ``ENDINGS``."""
    writers: dict[str, type[CsvWriter | JsonLinesWriter | ParquetWriter]] = {
        "csv": CsvWriter,
        "jsonl": JsonLinesWriter,
        "parquet": ParquetWriter,
    }
    return writers[table_format](stream)


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterable[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


class CsvWriter:
    """RFC 4180 with LF as the line's end; a header first; lists are joined by spaces."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._names: list[str] | None = None

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows at once."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        if self._names is None:
            self._names = list(columns)
            lines.writerow(self._names)
        lines.writerows([_csv_field(value) for value in row] for row in _rows(columns))
        self._stream.write(text.getvalue().encode("ascii"))

    def finish(self) -> None:
        """Nothing is held back."""


def _csv_field(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ""
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


class JsonLinesWriter:
    """One JSON object a line, its keys in the order of the columns."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._encoder = msgspec.json.Encoder()

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows at once."""
        names = list(columns)
        rows = (dict(zip(names, row, strict=True)) for row in _rows(columns))
        self._stream.write(self._encoder.encode_lines(rows))

    def finish(self) -> None:
        """Nothing is held back."""


class ParquetWriter:
    """Parquet with Zstandard. Column types follow from the values, also where the first rows have none.

    What a column holds is known for certain only at the end, so row groups wait in a temporary file, each
    with the types that its own values have, and are brought to common types when the table is complete.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._held: dict[str, list[Any]] = {}
        self._spool: IO[bytes] | None = None
        self._schemas: list[Any] = []

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Hold rows, and spool them when there are enough for a row group."""
        if not self._held:
            self._held = {name: [] for name in columns}
        for name, values in columns.items():
            self._held[name].extend(values)
        if len(next(iter(self._held.values()), ())) >= ROW_GROUP_ROWS:
            self._spool_rows()

    def _row_group(self) -> Any:
        """Turn the held rows into an Arrow table, and forget them."""
        import pyarrow as pa

        arrays = [pa.array(values, from_pandas=True) for values in self._held.values()]
        table = pa.Table.from_arrays(arrays, names=list(self._held))
        self._held = {name: [] for name in self._held}
        self._schemas.append(table.schema)
        return table

    def _spool_rows(self) -> None:
        import pyarrow as pa

        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish, or with the writer
        table = self._row_group()
        with pa.ipc.new_stream(self._spool, table.schema) as writer:
            writer.write_table(table)

    def finish(self) -> None:
        """Write all rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        last = self._row_group()
        schema = pa.unify_schemas(self._schemas, promote_options="permissive")
        with pq.ParquetWriter(self._stream, schema, compression="zstd") as writer:
            if self._spool is not None:
                self._spool.seek(0)
                for _ in self._schemas[:-1]:
                    with pa.ipc.open_stream(self._spool) as reader:
                        writer.write_table(reader.read_all().cast(schema))
                self._spool.close()
            writer.write_table(last.cast(schema))
