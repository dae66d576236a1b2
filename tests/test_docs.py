from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from alert_examples import CAMERA_ALERT
from test_jsonl import one_event

from sensor import tables
from sensor.alerts.formats import alert_line, alert_text
from sensor.alerts.syslog import FACILITIES, MessageForm, message_parts
from sensor.alerts.webhook import (
    DELIVERY_HEADER,
    EVENT_HEADER,
    MAX_ATTEMPTS,
    REPEATED_HEADER,
    SIGNATURE_HEADER,
    signature,
)
from sensor.cli import main
from sensor.config import load_config, settings
from sensor.devices.features import FEATURES
from sensor.devices.roles import Role
from sensor.devices.table import DAY_NS
from sensor.events.types import EventFlag, EventKind, Fate
from sensor.model.evidence import (
    CAP,
    HALF_LIFE_NS,
    MEMORY_NS,
    MIN_THRESHOLD,
    MOST_AGAINST,
    MOST_FOR,
    MOST_RISE,
    RULE_EVIDENCE,
    SLACK,
    THRESHOLD_AT_ONE,
)
from sensor.model.score import BIAS, MonotoneIndex

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
DETECTION = (DOCS / "detection.md").read_text()
OUTPUTS = (DOCS / "outputs.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "commands.md").read_text()
    for name, command in main.commands.items():
        section = page.partition(f"## spamsensor {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert re.search(rf"^ +.*{re.escape(option)}\b", section, re.MULTILINE), (name, option)


def test_every_setting_is_documented() -> None:
    page = (DOCS / "configuration.md").read_text()
    for setting in settings():
        assert f"**`{setting.key.replace('[]', '')}`**" in page


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    (tmp_path / "site.toml").write_text(example)
    assert len(load_config(tmp_path / "site.toml").exceptions) == 1


def test_the_example_alert_is_what_is_printed() -> None:
    assert f"```text\n{alert_text(CAMERA_ALERT)}\n```" in OUTPUTS


def test_the_example_syslog_message_is_what_is_sent() -> None:
    form = MessageForm(
        FACILITIES["local0"], 32473, lambda a: alert_line(a).encode(), "sensor1.example.com", "4711"
    )
    message = b" ".join(message_parts(CAMERA_ALERT, form))
    assert f"```text\n{message.decode()}\n```" in OUTPUTS
    for name in re.findall(rb' (\w+)="', message_parts(CAMERA_ALERT, form, is_repeated=True)[0]):
        assert f"`{name.decode()}" in OUTPUTS, name


def test_the_example_of_a_webhook_verifies_what_is_signed() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", OUTPUTS, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "outputs.md", "exec"), names)  # noqa: S102 - our own
    assert names["is_genuine"](b"secret", b"{}", signature(b"secret", b"{}"))
    assert not names["is_genuine"](b"secret", b"{ }", signature(b"secret", b"{}"))
    for header in (SIGNATURE_HEADER, EVENT_HEADER, DELIVERY_HEADER, REPEATED_HEADER):
        assert f"| `{header}` |" in OUTPUTS
    assert f"{MAX_ATTEMPTS} attempts" in OUTPUTS


def test_every_event_key_is_documented() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", OUTPUTS, re.MULTILINE))
    assert list(rows) == [kind.name.lower() for kind in EventKind]
    common = set(one_event(EventKind.CONN_OPEN)) - {"flags", "syn_fingerprint"}
    for key in common:
        assert f"`{key}`" in OUTPUTS
    for kind in EventKind:
        own = {key for code in (1, 15) for key in one_event(kind, code=code % 9)} - common
        assert own == set(re.findall(r"`(\w+)`", rows[kind.name.lower()])), kind


def test_every_fate_and_flag_is_documented() -> None:
    for word in (*Fate, *EventFlag):
        assert f"`{str(word.name).lower()}`" in OUTPUTS


def test_every_table_format_is_documented() -> None:
    for ending in tables.ENDINGS:
        assert f"`{ending}`" in OUTPUTS


def test_every_term_and_role_and_rule_is_documented() -> None:
    score = DETECTION.partition("## The score")[2].partition("\n## ")[0]
    terms = re.findall(r"^\| `(\w+)` \|", score, re.MULTILINE)
    assert terms == [FEATURES[feature].name for feature in MonotoneIndex.term_features]
    roles = DETECTION.partition("## Roles")[2].partition("\n## ")[0]
    assert {role.label for role in Role} <= set(re.findall(r"^\| ([\w ]+) \|", roles, re.MULTILINE))
    rules = DETECTION.partition("## Hard rules")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", rules, re.MULTILINE) == list(MonotoneIndex.rules)


#: What is left of the evidence at the step before.
BEFORE = f"evidence before * 0.5 ** (pause / {HALF_LIFE_NS / DAY_NS:g} d)"


def test_the_threshold_is_the_documented_one() -> None:
    assert f"`{THRESHOLD_AT_ONE:g} - ln(B)`, at least {MIN_THRESHOLD:g}" in DETECTION
    assert f"said = clip(score - {SLACK:g}, -{MOST_AGAINST:g}, +{MOST_FOR:g})" in DETECTION
    assert f"evidence = min(max(carried + said, 0), {BEFORE} + {MOST_RISE:g}, {CAP:g})" in DETECTION
    assert f"memory = {MEMORY_NS / 3600e9:g} h" in DETECTION
    assert f"makes it at least {RULE_EVIDENCE:g}" in DETECTION
    assert f"It starts at {BIAS:g}" in DETECTION


def test_documents_that_the_sources_name_are_there() -> None:
    root = DOCS.parent
    for source in (root / "sensor").rglob("*.py"):
        for name in re.findall(r"docs/[\w.]+\.(?:md|json)", source.read_text()):
            assert (root / name).exists(), (source, name)


def test_links_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (DOCS / target).exists(), (page.name, target)
