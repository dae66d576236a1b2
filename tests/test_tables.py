from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import tables
from sensor.errors import ConfigError
from sensor.outputs import OutputError, OutputFile, is_special
from sensor.tables import table_format, table_writer

if TYPE_CHECKING:
    from pathlib import Path

Columns = dict[str, list[Any]]

# A table, written in several calls: columns of one type each, any value of which may be unknown.
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    "count": st.integers(-(2**63), 2**63 - 1),
    "share": st.floats(allow_infinity=False),
    "flag": st.booleans(),
    "ips": st.lists(st.ip_addresses().map(str), max_size=3),
}
parts = st.lists(
    st.lists(st.fixed_dictionaries({name: st.none() | values for name, values in TYPES.items()}), max_size=5),
    max_size=4,
)


def as_columns(rows: list[dict[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in TYPES}


def written(table_format: str, calls: list[Columns]) -> bytes:
    stream = io.BytesIO()
    writer = table_writer(stream, table_format)
    for columns in calls:
        writer.write(columns)
    writer.finish()
    return stream.getvalue()


def known(value: Any) -> Any:
    """NaN is unknown."""
    return None if isinstance(value, float) and math.isnan(value) else value


@given(parts)
def test_json_lines_read_back(calls: list[list[dict[str, Any]]]) -> None:
    lines = written("jsonl", [as_columns(rows) for rows in calls]).splitlines()
    expected = [{name: known(value) for name, value in row.items()} for rows in calls for row in rows]
    assert [json.loads(line) for line in lines] == expected


@given(parts, st.integers(1, 6))
def test_parquet_reads_back_whatever_the_row_groups(
    calls: list[list[dict[str, Any]]], group_rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_ROWS", group_rows)
        raw = written("parquet", [as_columns(rows) for rows in calls])
    expected = [{name: known(value) for name, value in row.items()} for rows in calls for row in rows]
    table = pq.read_table(io.BytesIO(raw))
    assert table.to_pylist() == expected
    if calls:
        assert table.column_names == list(TYPES)


@given(parts)
def test_csv_is_printable_ascii_with_a_row_each(calls: list[list[dict[str, Any]]]) -> None:
    text = written("csv", [as_columns(rows) for rows in calls]).decode("ascii")
    assert text.replace("\n", "").isprintable()
    read = list(csv.reader(io.StringIO(text)))
    if calls:
        assert read.pop(0) == list(TYPES)
    rows = [row for rows in calls for row in rows]
    assert len(read) == len(rows)
    for fields, row in zip(read, rows, strict=True):
        _, count, share, flag, ips = fields
        assert count == ("" if row["count"] is None else str(row["count"]))
        assert (float(share) if share else None) == known(row["share"])
        assert flag == {None: "", True: "true", False: "false"}[row["flag"]]
        assert ips == ("" if row["ips"] is None else " ".join(row["ips"]))


def test_csv_text_is_no_formula_and_no_escape_sequence() -> None:
    text = ['=HYPERLINK("http://example.com")', "+1", "@SUM(A1)", "-x", "\x1b[2Jcam", "caf\xe9", 'a"b,c']
    assert written("csv", [{"hostname": text, "n": [-1] * 7}]).decode().splitlines() == [
        "hostname,n",
        '"\'=HYPERLINK(""http://example.com"")",-1',
        "'+1,-1",
        "'@SUM(A1),-1",
        "'-x,-1",
        "\\x1b[2Jcam,-1",
        "caf\\xe9,-1",
        '"a""b,c",-1',
    ]


def test_parquet_types_follow_from_later_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 1)
    raw = written("parquet", [{"a": [None], "b": [1]}, {"a": [math.nan], "b": [2]}, {"a": ["x"], "b": [0.5]}])
    table = pq.read_table(io.BytesIO(raw))
    assert [str(field.type) for field in table.schema] == ["string", "double"]
    assert table.to_pylist() == [{"a": None, "b": 1.0}, {"a": None, "b": 2.0}, {"a": "x", "b": 0.5}]


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_a_table_without_rows(name: str) -> None:
    raw = written(name, [{"a": [], "b": []}])
    assert raw == b"a,b\n" if name == "csv" else True
    if name == "parquet":
        assert pq.read_table(io.BytesIO(raw)).column_names == ["a", "b"]
    written(name, [])


def test_formats_by_ending() -> None:
    assert [table_format(f"x.{ending}") for ending in ("csv", "CSV", "jsonl", "ndjson", "parquet")] == [
        "csv",
        "csv",
        "jsonl",
        "jsonl",
        "parquet",
    ]
    assert table_format("-") == "csv"
    assert table_format("/dev/stdout", "jsonl") == "jsonl"
    with pytest.raises(
        ConfigError, match=r"^x\.txt: a table's name ends in \.csv, \.jsonl, \.ndjson, \.parquet$"
    ):
        table_format("x.txt")


# Output files.


def test_a_file_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with OutputFile(str(path)) as output:
        output.stream.write(b"new")
        output.stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    def fail(output: OutputFile) -> None:
        output.stream.write(b"half")
        raise KeyError

    with pytest.raises(KeyError), OutputFile(str(tmp_path / "out.csv")) as output:
        fail(output)
    assert list(tmp_path.iterdir()) == []


def test_an_output_as_it_comes_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    output = OutputFile(str(path), as_it_comes=True)
    assert path.exists()
    output.discard()
    assert path.exists()


def test_permissions_follow_the_umask_and_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    before = os.umask(0o027)
    try:
        with OutputFile(str(tmp_path / "link.csv")) as output:
            output.stream.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_bytes() == b"x"
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "reason"), [("", "Is a directory"), ("no/such/x.csv", "No such file or directory")]
)
def test_unwritable_paths_show_at_once(tmp_path: Path, name: str, reason: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        OutputFile(path)
    assert str(caught.value) == f"{path}: cannot be written: {reason}"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line() -> None:
    output = OutputFile("/dev/full")
    output.stream.write(b"x")
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"):
        output.commit()


def test_a_broken_pipe_stays_one() -> None:
    output = OutputFile("/dev/null")
    with pytest.raises(BrokenPipeError), output.writing():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    output.discard()


def test_pipes_are_written_directly(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    assert is_special(str(fifo))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with OutputFile(str(fifo)) as output:
        output.stream.write(b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    assert not is_special(str(tmp_path))
    assert not is_special(str(tmp_path / "none"))


def test_standard_output_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for text in (b"a\n", b"b\n"):
        with OutputFile("-") as output:
            output.stream.write(text)
    assert capfdbinary.readouterr().out == b"a\nb\n"
