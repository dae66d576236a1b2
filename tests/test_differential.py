"""tshark and the sensor see the same in every shared capture, and in made ones with untidy TCP.

Captures of SMTP and DNS are read whole by both sides, one run of tshark for each. Of all captures, tshark and
the reference decoder look at each frame by itself, one run for each part of the collection: innermost addresses
and ports, DNS queries, and how many frames a file holds.

Where they do not, differential_known.tsv says why; it was made with tshark 4.0 (Debian 12).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.captures import CAPTURES
from tests.made_dialogues import make_capture
from tests.oracle import (
    CONFIG,
    DNS_PORT,
    FRAME_QUANTITIES,
    QUANTITIES,
    Counts,
    Difference,
    differences,
    endpoint_difference,
    frames_in_files,
    our_counts,
    read_all,
    tshark_counts,
    tshark_frame_views,
)

PATHS = sorted(path for part in ("smtp", "dns") for path in (CAPTURES / part).glob("*"))
PARTS = ("smtp", "dns", "benign", "encapsulated", "formats", "malformed")
#: What is read from several frames together, and so by a run of tshark for each capture.
STATEFUL_PORTS = frozenset(f"tcp {port}" for port in (*CONFIG.mail_ports, DNS_PORT))
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
    known = {difference for difference in known if difference.quantity in QUANTITIES}
    found = set(differences(our_counts(path), tshark_counts(path)))
    assert not found - known, f"not in {KNOWN_FILE.name}; `python -m tests.oracle {path}` shows both sides"
    assert not known - found, f"no longer so: remove from {KNOWN_FILE.name}"


@pytest.mark.parametrize("part", PARTS)
def test_every_frame_is_as_tshark_sees_it(part: str, tmp_path: Path) -> None:
    paths = sorted((CAPTURES / part).glob("*"))
    captures = {path: read_all(path) for path in paths}
    n_in_file = frames_in_files(paths)
    views = tshark_frame_views(
        [frame for frames in captures.values() for frame in frames], tmp_path / "all.pcapng"
    )
    assert sum(view.ends != "-" for view in views) > len(views) / 4, "an oracle that is silent proves nothing"
    found: set[tuple[str, Difference]] = set()
    first = 0
    for path, frames in captures.items():
        own = views[first : first + len(frames)]
        first += len(frames)
        here = [endpoint_difference(frames, own)]
        if str(len(frames)) != n_in_file[path]:
            here.append(Difference("frames", str(len(frames)), n_in_file[path]))
        if path not in PATHS:
            ports = frozenset[str]().union(*(view.ports for view in own))
            if ports & STATEFUL_PORTS:
                here += differences(our_counts(path), tshark_counts(path))
            elif f"udp {DNS_PORT}" in ports:
                queries = Counter(view.query for view in own if view.query)
                here += differences(our_counts(path), Counts(queries=queries))
        found |= {(_name(path), difference) for difference in here if difference}
    quantities = FRAME_QUANTITIES if part in ("smtp", "dns") else (*FRAME_QUANTITIES, *QUANTITIES)
    known = {
        (capture, Difference(quantity, ours, theirs))
        for capture, quantity, ours, theirs, _ in _read_known()
        if capture.startswith(f"{part}/") and quantity in quantities
    }
    assert sorted(map(str, found - known)) == [], f"not in {KNOWN_FILE.name}"
    assert sorted(map(str, known - found)) == [], f"no longer so: remove from {KNOWN_FILE.name}"


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
    assert {row[0] for row in rows} <= {_name(path) for part in PARTS for path in (CAPTURES / part).glob("*")}
    keys = [(row[0], (*QUANTITIES, *FRAME_QUANTITIES).index(row[1])) for row in rows]
    assert keys == sorted(set(keys)), "sorted by capture and quantity, one row for each"
