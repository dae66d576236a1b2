"""The cache of compiled kernels: whose it must be, and when another one is used."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import sensor.jit

PACKAGE = Path(sensor.jit.__file__).parent
ROOT = Path(__file__).parents[1]
MODULE = "sensor.devices.activity"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's sources, to be edited."""
    copy = tmp_path / "sensor"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SENSOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load_jit(package: Path = PACKAGE) -> ModuleType:
    """jit.py as a new process would load it; nothing but its cache directory is asked of it."""
    spec = importlib.util.spec_from_file_location("jit_under_test", package / "jit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def directory_of(package: Path = PACKAGE, module: str = MODULE) -> Path:
    found = load_jit(package)._prepare_cache(module)
    assert isinstance(found, Path)
    return found


def refusal(jit: ModuleType) -> str:
    """The one warning with which caching is off, however often it is asked for."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [jit._prepare_cache(MODULE) for _ in range(3)] == [None] * 3
    (warning,) = caught
    assert warning.category is RuntimeWarning
    return str(warning.message)


def test_the_directory_is_ours_alone(base: Path) -> None:
    previous = os.umask(0)
    try:
        directory = directory_of()
    finally:
        os.umask(previous)
    for path in (base, directory):
        status = path.lstat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == os.geteuid()
    assert directory.parent == base


def test_the_same_sources_have_the_same_directory(base: Path) -> None:
    assert directory_of() == directory_of()
    assert len(list(base.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
@pytest.mark.parametrize("which", ["base", "directory"])
def test_a_directory_that_others_write_to_is_not_used(base: Path, mode: int, which: str) -> None:
    directory = directory_of()
    (base if which == "base" else directory).chmod(mode)
    assert "can be written by others" in refusal(load_jit())


def test_a_directory_that_others_read_is_used(base: Path) -> None:
    base.mkdir(mode=0o755)
    assert directory_of().parent == base


def test_somebody_elses_directory_is_not_used(base: Path) -> None:
    base.mkdir()
    jit = load_jit()
    jit.os = SimpleNamespace(**vars(os) | {"geteuid": lambda: os.geteuid() + 1})  # type: ignore[attr-defined]
    assert "is not a directory of ours" in refusal(jit)


def test_a_link_is_not_followed(base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    base.symlink_to(tmp_path / "elsewhere")
    assert "is not a directory of ours" in refusal(load_jit())


def test_a_file_in_its_place_is_no_error(base: Path) -> None:
    base.write_text("")
    assert str(base) in refusal(load_jit())


def test_the_first_of_systemds_directories_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENSOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    assert directory_of().parent == tmp_path / "one"


def test_without_a_word_it_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENSOR_CACHE_DIR", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert directory_of().parent == tmp_path / "spamsensor"


# --- when another directory is used ---------------------------------------------------------------------------


@pytest.mark.usefixtures("base")
def test_the_same_sources_elsewhere_or_written_anew_have_another_directory(package: Path) -> None:
    """Numba would compile them again: what lies there already is of no use, and the user is to be told."""
    elsewhere = directory_of(package)
    assert elsewhere != directory_of()
    os.utime(package / "decode" / "wire.py", ns=(1, 1))
    assert directory_of(package) != elsewhere


@pytest.mark.usefixtures("base")
def test_bounds_checks_have_a_directory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSOR_BOUNDSCHECK", "1")
    checked = directory_of()
    monkeypatch.setenv("SENSOR_BOUNDSCHECK", "0")
    assert directory_of() != checked


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("edited", "is_other"),
    [
        ("jit.py", True),
        ("hashing.py", True),
        ("native.py", True),
        ("quickload.py", True),
        ("capture/frames.py", True),
        ("decode/wire.py", True),  # a helper of a lower layer
        ("events/types.py", True),
        ("devices/identity.py", True),  # a helper of the same layer
        ("model/score.py", False),  # a higher layer
        ("cli.py", False),
    ],
)
def test_an_edited_helper_has_another_directory(package: Path, edited: str, is_other: bool) -> None:
    before = directory_of(package)
    with (package / edited).open("a") as source:
        source.write("\n# edited\n")
    assert (directory_of(package) != before) == is_other


@pytest.mark.usefixtures("base")
def test_a_new_helper_has_another_directory(package: Path) -> None:
    before = directory_of(package)
    (package / "devices" / "new.py").write_text("")
    assert directory_of(package) != before


def test_every_import_of_a_kernel_is_in_its_digest() -> None:
    """What a module with kernels imports of the package, and what that imports, is part of its digest."""
    checked = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        if "\n@kernel\n" in path.read_text() and path.parent != PACKAGE:
            module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            sources = set(load_jit()._sources(module))
            assert kernel_imports(path) <= sources, module
            checked += 1
    assert checked >= 4


def kernel_imports(path: Path) -> set[Path]:
    """Files of the package that define an @inner (or the like) that ``path`` uses, and those that they use."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        source = todo.pop()
        for line in source.read_text().splitlines():
            if line.startswith("from sensor."):
                imported = PACKAGE.parent / (line.split()[1].replace(".", "/") + ".py")
                compiles = any(
                    f"\n@{name}\n" in imported.read_text()
                    for name in ("inner", "inlined", "spliced", "unchecked")
                )
                if compiles and imported not in found:
                    found.add(imported)
                    todo.append(imported)
    return found


# --- in a process of its own ----------------------------------------------------------------------------------


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "0"} | environment,
        timeout=900,
    )


def test_a_run_without_a_cache_warns_once(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    done = run("import sensor.pipeline", SENSOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stderr.count("kernels are compiled anew") == 1


LOADED = """
import sys
import numpy as np
from sensor.jit import inner, kernel

@inner
def twice(x):
    return 2 * x

@kernel
def add_up(numbers, n):
    total = 0
    for i in range(n):
        total += twice(numbers[i])
    return total, n

@kernel
def call_kernel(numbers):
    return add_up(numbers, 1)[0]

def outcome(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__} {error}"

numbers = np.arange(5)
print(add_up(numbers, 5), outcome(add_up, numbers, 6))
print(sum(add_up.stats.cache_hits.values()), "numba.np.linalg" in sys.modules)
print("Python calls it" in outcome(call_kernel, numbers))
"""


def test_a_loaded_kernel_does_what_the_compiled_one_did(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(LOADED)
    environment = {
        "SENSOR_CACHE_DIR": str(tmp_path / "cache"),
        "SENSOR_BOUNDSCHECK": "1",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    compiled, loaded = (run("import loaded", **environment).stdout.splitlines() for _ in range(2))
    assert compiled[0] == loaded[0] == "(20, 5) IndexError index is out of bounds"
    assert (compiled[1], loaded[1]) == ("0 True", "1 False")  # numba's own tables are for compiling
    assert compiled[2] == loaded[2] == "True"


SIGNATURES = """
import json, sys
import sensor.jit
kernels, decorate = {}, sensor.jit.kernel
def kernel(function):
    compiled = kernels[f"{function.__module__}.{function.__name__}"] = decorate(function)
    return compiled
sensor.jit.kernel = kernel
from sensor.capture.merge import open_captures
from sensor.config import Config
from sensor.pipeline import Pipeline
pipeline = Pipeline(Config(), on_alert=lambda _: None, on_events=lambda *_: None, on_window=lambda _: None)
captures = open_captures((sys.argv[1],), on_problem=print)
for batch in captures:
    pipeline.feed(batch)
pipeline.finish()
pipeline.device_table()
print(json.dumps({name: len(found.signatures) for name, found in kernels.items()}))
"""


def test_a_replay_compiles_each_kernel_for_one_signature() -> None:
    capture = ROOT / "pcaps" / "flood-camera.pcap"
    done = run(SIGNATURES.replace("sys.argv[1]", repr(str(capture))))
    signatures = json.loads(done.stdout.splitlines()[-1])
    # Those that only pcapng and several files need are not compiled at all.
    assert {n for name, n in signatures.items() if name.startswith("sensor.capture.")} <= {0, 1}
    others = {name: n for name, n in signatures.items() if not name.startswith("sensor.capture.")}
    # Nor are those that only live capture and a trained model need.
    unused = {
        "sensor.devices.activity.observe_time",
        "sensor.events.flows.pass_time",
        "sensor.model.evidence.walk_evidence",
    }
    unused |= {name for name in others if name.startswith("sensor.model.trees.")}
    assert {name for name, n in others.items() if n != 1} <= unused
    assert set(others.values()) <= {0, 1}
    assert "sensor.devices.activity.observe_events" in others
