"""tshark and the sensor count the same in each shared SMTP and DNS capture, and in made ones with untidy TCP.

Where they do not, differential_known.tsv says why; it was made with tshark 4.0 (Debian 12).
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.captures import CAPTURES
from tests.made_dialogues import make_capture
from tests.oracle import QUANTITIES, Difference, differences, our_counts, tshark_counts

PATHS = sorted(path for part in ("smtp", "dns") for path in (CAPTURES / part).glob("*"))
KNOWN_FILE = Path(__file__).with_name("differential_known.tsv")
HEADER = ["capture", "quantity", "ours", "tshark", "reason"]

pytestmark = pytest.mark.oracle


def _name(path: Path) -> str:
    return path.relative_to(CAPTURES).as_posix()


def _read_known() -> list[list[str]]:
    header, *rows = (line.split("\t") for line in KNOWN_FILE.read_text(encoding="utf-8").splitlines())
    assert header == HEADER
    return rows


@pytest.fixture(autouse=True)
def _tools() -> None:
    if os.environ.get("CI") == "true":
        return  # there, what is missing is an error
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    if not PATHS:
        pytest.skip(f"no captures in {CAPTURES}")


def test_captures_are_there() -> None:
    assert {path.parent.name for path in PATHS} == {"smtp", "dns"}


@pytest.mark.parametrize("path", PATHS, ids=_name)
def test_counts_are_those_of_tshark(path: Path) -> None:
    known = {
        Difference(quantity, ours, theirs)
        for capture, quantity, ours, theirs, _ in _read_known()
        if capture == _name(path)
    }
    found = set(differences(our_counts(path), tshark_counts(path)))
    assert not found - known, f"not in {KNOWN_FILE.name}; `python -m tests.oracle {path}` shows both sides"
    assert not known - found, f"no longer so: remove from {KNOWN_FILE.name}"


@pytest.mark.parametrize("seed", range(4))
def test_made_dialogues_count_as_for_tshark(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "made.pcap"
    path.write_bytes(make_capture(random.Random(seed), n_flows=150))
    ours = our_counts(path)
    assert ours.commands["DATA"] > 100
    assert differences(ours, tshark_counts(path)) == []


def test_known_differences_are_well_formed() -> None:
    rows = _read_known()
    for row in rows:
        assert len(row) == len(HEADER), row
        assert all(cell and cell == cell.strip() for cell in row), row
    assert {row[0] for row in rows} <= {_name(path) for path in PATHS}
    keys = [(row[0], QUANTITIES.index(row[1])) for row in rows]
    assert keys == sorted(set(keys)), "sorted by capture and quantity, one row for each"
