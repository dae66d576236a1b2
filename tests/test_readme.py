"""What the README shows is what the program prints."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from sensor.cli import main

ROOT = Path(__file__).parents[1]


def test_the_example_is_real():
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```text\n(ALERT .*?)\n  \.\.\.\n```", readme, re.DOTALL)
    assert example is not None
    result = CliRunner().invoke(main, ["replay", str(ROOT / "pcaps" / "flood-camera.pcap"), "--no-progress"])
    assert example[1] in result.stdout


def test_it_begins_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("    make ")][:2] == ["demo", "test"]


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
