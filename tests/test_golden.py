"""What the sensor says of some captures, word for word: a change of it is one that somebody has looked at.

``golden/<capture>/`` holds events.jsonl, or events.json with counts and digests by kind where events are many,
windows.jsonl and alerts.jsonl. ``pytest tests/test_golden.py --update-golden`` writes them anew; read the diff
before it is committed. Floats are rounded: the last digits depend on the mathematical library.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sensor.alerts.formats import alert_json
from sensor.capture.merge import open_captures
from sensor.config import Config, Network
from tests.captures import CAPTURES
from tests.worlds import Run, run

if TYPE_CHECKING:
    from sensor.errors import CaptureError

GOLDEN = Path(__file__).with_name("golden")
PCAPS = Path(__file__).parents[1] / "pcaps"
SMTP, DNS = CAPTURES / "smtp", CAPTURES / "dns"
#: Longer event files are kept as a summary.
MAX_EVENTS_BYTES = 60_000
MAX_DIFF_LINES = 60
FLOAT_DIGITS = 6


class Case(NamedTuple):
    path: Path
    home: str | None = None  # the network of the client, where it is no private one


LAB = [Case(path) for path in sorted(PCAPS.glob("*.pcap"))]
#: Small enough to be read by interpreted kernels: so they are compared with the compiled ones.
SMALL = [
    Case(SMTP / "zeek__smtp.pcap"),  # two dialogues with long messages
    Case(SMTP / "zeek__rfc3030-bdat-multipart.pcap"),  # chunks in place of DATA
    Case(SMTP / "arkime__smtp-starttls.pcap"),  # encrypted from the middle on
    Case(SMTP / "zeek__smtp-one-side-only.pcap", "192.150.187.0/24"),  # only the client's packets
    Case(SMTP / "suricata-verify__smtp-errors__smtperr.pcap"),  # refusals
    Case(SMTP / "suricata-verify__smtp-pipelining__input.pcap"),  # commands that do not wait
    Case(DNS / "arkime__dns-mx.pcap"),
    Case(DNS / "arkime__dns-tcp.pcap"),
    Case(DNS / "zeek__dns-invalid-names.pcap", "192.0.2.0/24"),
]
CASES = [
    *(pytest.param(case, marks=pytest.mark.invariant, id=case.path.name) for case in LAB),
    *(
        pytest.param(case, marks=[pytest.mark.kernel, pytest.mark.invariant], id=case.path.name)
        for case in SMALL
    ),
]


def replay(case: Case) -> Run:
    problems: list[CaptureError] = []
    config = Config(home_nets=(Network(case.home),)) if case.home else Config()
    with open_captures([case.path], on_problem=problems.append) as frames:
        outcome = run(frames, config, with_events=True)
    assert problems == []
    return outcome


def rounded(value: Any) -> Any:
    """Make a value printable: NaN is null, and floats have no digits that depend on the machine."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.{FLOAT_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return value


def lines_of(objects: list[Any]) -> str:
    return "".join(json.dumps(rounded(part)) + "\n" for part in objects)


def summary_of(events: list[str]) -> str:
    """Counts and a digest for each kind, so that a difference says where to look."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for line in events:
        by_kind[json.loads(line)["event_type"]].append(line)
    summary = {
        kind: {"count": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}
        for kind, lines in sorted(by_kind.items())
    }
    return json.dumps(summary, indent=1) + "\n"


def golden_of(outcome: Run) -> dict[str, str]:
    """The contents of the golden files, by name."""
    events = outcome.events.decode()
    is_long = len(events) > MAX_EVENTS_BYTES
    return {
        "events.json" if is_long else "events.jsonl": summary_of(events.splitlines()) if is_long else events,
        "windows.jsonl": lines_of(outcome.windows),
        "alerts.jsonl": lines_of([json.loads(alert_json(alert)) for alert in outcome.alerts]),
    }


def difference(expected: str, found: str, name: str) -> str:
    """A unified diff, one key a line, of what fits on a screen."""
    before, after = (
        [part for line in text.splitlines() for part in json.dumps(json.loads(line), indent=1).splitlines()]
        if name.endswith("l")
        else text.splitlines()
        for text in (expected, found)
    )
    diff = list(difflib.unified_diff(before, after, f"golden {name}", "now", lineterm=""))
    rest = len(diff) - MAX_DIFF_LINES
    return "\n".join(diff[:MAX_DIFF_LINES] + ([f"... and {rest} lines more"] if rest > 0 else []))


@pytest.mark.parametrize("case", CASES)
def test_a_capture_gives_what_it_gave(case: Case, request: pytest.FixtureRequest) -> None:
    directory = GOLDEN / case.path.name
    found = golden_of(replay(case))
    if request.config.getoption("--update-golden"):
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.iterdir():
            stale.unlink()
        for name, text in found.items():
            (directory / name).write_text(text, encoding="ascii")
    expected = {path.name: path.read_text(encoding="ascii") for path in directory.glob("*")}
    assert set(found) == set(expected)
    for name, text in found.items():
        if text != expected[name]:
            pytest.fail(difference(expected[name], text, name) + "\n--update-golden accepts this")


def test_golden_files_are_of_these_captures_and_small() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {case.path.name for case in LAB + SMALL}
    assert max(path.stat().st_size for path in GOLDEN.glob("*/*")) < 200_000


def test_the_difference_is_shown_by_key() -> None:
    shown = difference('{"a": 1, "b": {"c": 2}}\n', '{"a": 1, "b": {"c": 3}}\n', "x.jsonl")
    assert '-  "c": 2' in shown
    assert '+  "c": 3' in shown
    assert '"a"' in shown
