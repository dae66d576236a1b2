"""The rules of the house, read from the source: who imports whom, reads packet bytes, looks at a clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sensor

PACKAGE = Path(sensor.__file__).parent
SOURCES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

#: Higher layers import lower ones, and modules of one layer each other.
LAYERS = (
    (
        "config",
        "errors",
        "hashing",
        "jit",
        "metrics",
        "native",
        "notation",
        "notify",
        "outputs",
        "privileges",
        "quickload",
        "tables",
        "__init__",
    ),
    ("capture",),
    ("decode",),
    ("events", "records"),
    ("devices",),
    ("model",),
    ("alerts",),
    ("pipeline", "state", "console", "dump", "mirror", "reload", "replay", "upkeep"),
    ("report", "simulate"),
    ("training",),
    ("cli", "__main__"),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

BYTE_READERS = (
    "decode/wire.py",
    "native.py",  # what wire.find_byte is made of
    "capture/",
    "dump.py",  # prints a whole frame in hex
)
CLOCK_READERS = (
    *("cli.py", "metrics.py", "notify.py", "upkeep.py", "capture/follow.py", "capture/live.py"),
    *("capture/ring.py", "capture/sniffer.py"),
    *("alerts/queued.py", "alerts/syslog.py", "state/keeper.py"),
)
CLOCKS = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "localtime", "gmtime", "clock_gettime"),
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def part_of(source: str) -> str:
    """The name that ``LAYERS`` knows a file of the package by."""
    return source.partition("/")[0].removesuffix(".py")


def wrong_imports(source: str, code: str) -> list[str]:
    """Imports of a higher layer; those that only a type checker sees count as well."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            part = rest[0] if rest and rest[0] in RANKS else "__init__"
            if package == "sensor" and RANKS[part] > RANKS[part_of(source)]:
                wrong.append(f"{source}:{node.lineno} imports {name}")
    return wrong


def byte_names(code: ast.AST) -> set[str]:
    """``data``, and whatever name ``data`` is bound to."""
    names = {"data"}
    for node in ast.walk(code):
        if isinstance(node, ast.Assign) and is_bytes(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def is_bytes(node: ast.AST, names: set[str]) -> bool:
    """Tell whether an expression is packet bytes: one of ``names``, or the ``data`` of something."""
    return (isinstance(node, ast.Name) and node.id in names) or (
        isinstance(node, ast.Attribute) and node.attr == "data"
    )


def byte_reads(source: str, code: str) -> list[str]:
    """Subscripts of packet bytes, to read or to write."""
    tree = ast.parse(code)
    names = byte_names(tree)
    return [
        f"{source}:{node.lineno} subscripts packet bytes"
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and is_bytes(node.value, names)
    ]


def clock_reads(source: str, code: str) -> list[str]:
    """Uses of a wall clock, called or handed on, and imports of one."""
    reads = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            owner_name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            found = node.attr in CLOCKS.get(owner_name, ())
        elif isinstance(node, ast.ImportFrom):
            found = node.module == "time" and any(alias.name in CLOCKS["time"] for alias in node.names)
        else:
            continue
        if found:
            reads.append(f"{source}:{node.lineno} reads a clock")
    return reads


def code_of(source: str) -> str:
    return (PACKAGE / source).read_text(encoding="utf-8")


def test_the_package_is_all_there():
    assert {"decode/wire.py", "decode/packets.py", "capture/frames.py", "jit.py"} <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_layers(source):
    assert part_of(source) in RANKS, f"{source} has no layer yet: name it in LAYERS"
    assert wrong_imports(source, code_of(source)) == []


@pytest.mark.parametrize("source", [name for name in SOURCES if not name.startswith(BYTE_READERS)])
def test_only_wire_reads_packet_bytes(source):
    assert byte_reads(source, code_of(source)) == []


@pytest.mark.parametrize("source", [name for name in SOURCES if not name.startswith(CLOCK_READERS)])
def test_time_is_packet_time(source):
    assert clock_reads(source, code_of(source)) == []


# --- the checks themselves ---


@pytest.mark.parametrize(
    ("source", "code", "allowed"),
    [
        ("decode/ip.py", "from sensor.capture.frames import LinkType", True),
        ("decode/ip.py", "from sensor.decode.wire import has", True),
        ("decode/ip.py", "from sensor.events.types import Verb", False),
        ("decode/ip.py", "from sensor import events", False),
        ("decode/ip.py", "import sensor.events.types", False),
        ("decode/ip.py", "def f():\n    from sensor.pipeline import run", False),
        ("decode/ip.py", "if TYPE_CHECKING:\n    from sensor.cli import main", False),
        ("decode/ip.py", "from sensor import __version__", True),
        ("errors.py", "from sensor.jit import inner", True),
        ("jit.py", "from sensor.decode import wire", False),
        ("cli.py", "from sensor.alerts import record", True),
        ("decode/ip.py", "from events import nothing_of_ours", True),
    ],
)
def test_wrong_imports_are_found(source, code, allowed):
    assert (wrong_imports(source, code) == []) == allowed


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("read_u8(data, 3, 4)", True),
        ("text[3]", True),
        ("metadata[3]", True),
        ("data[3]", False),
        ("batch.data[3:4]", False),
        ("data[3] = 1", False),
        ("content = batch.data\ncontent[3]", False),
    ],
)
def test_byte_reads_are_found(code, allowed):
    assert (byte_reads("x.py", code) == []) == allowed


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import time\ntime.sleep(1)", True),
        ("datetime.fromtimestamp(0, UTC)", True),
        ("frame.time", True),
        ("import time\ntime.time()", False),
        ("import time\nclock = time.monotonic_ns", False),
        ("from time import perf_counter", False),
        ("datetime.now(UTC)", False),
        ("datetime.datetime.now()", False),
        ("datetime.date.today()", False),
    ],
)
def test_clock_reads_are_found(code, allowed):
    assert (clock_reads("x.py", code) == []) == allowed
