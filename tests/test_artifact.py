from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trees import STUMP

from sensor.devices.features import FEATURES, schema_digest
from sensor.errors import ModelError
from sensor.model.artifact import (
    ARRAYS,
    FORMAT,
    MANIFEST,
    Artifact,
    Manifest,
    StartThreshold,
    Threshold,
    read_artifact,
    write_artifact,
)

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLDS = [
    Threshold(budget=b, evidence=e, index_evidence=e / 2, device_weeks=600)
    for b, e in ((1.0, 3.0), (0.2, 9.0), (0.1, 12.0))
]
MODEL = Artifact(
    Manifest(
        format=FORMAT,
        name="stump",
        features=[info.name for info in FEATURES],
        schema_sha256=schema_digest(),
        arrays_sha256="",
        versions={},
        seed=1,
        training_data=[],
        parameters={},
        thresholds=THRESHOLDS,
        start=StartThreshold(one_in=200, evidence=5.0, index_evidence=4.0, captures=400),
    ),
    STUMP,
)


def test_a_model_is_read_as_it_was_written(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        written = write_artifact(tmp_path / name, MODEL)
        read = read_artifact(tmp_path / name)
        assert read.manifest == written.manifest
        for ours, theirs in zip(read.trees, STUMP, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    for file in (ARRAYS, MANIFEST):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_artifact(directory, MODEL)
    return directory


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_same(written, tmp_path_factory, data):
    """Bits flipped or the end cut off: never another exception, and arrays never differ."""
    directory = tmp_path_factory.mktemp("damaged")
    name = data.draw(st.sampled_from([ARRAYS, MANIFEST]))
    content = bytearray((written / name).read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for file in (ARRAYS, MANIFEST):
        (directory / file).write_bytes((written / file).read_bytes() if file != name else bytes(content))
    try:
        found = read_artifact(directory)
    except ModelError:
        return
    assert name == MANIFEST  # a letter of a name, or a digit, can be another one
    np.testing.assert_array_equal(found.trees.value, STUMP.value)


def refused(directory: Path, **changes: object) -> str:
    """Write a model whose manifest says something else, and return why it is refused."""
    write_artifact(directory, MODEL)
    manifest = json.loads((directory / MANIFEST).read_bytes()) | changes
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError) as error:
        read_artifact(directory)
    return str(error.value)


NAMES = [info.name for info in FEATURES]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 1}, "is of format 1"),
        (
            {"start": {"one_in": 200, "evidence": -1.0, "index_evidence": 4.0, "captures": 400}},
            "is no manifest",
        ),
        ({"start": {"one_in": 200, "evidence": 1e999, "index_evidence": 4.0, "captures": 400}}, "manifest"),
        ({"features": NAMES[1:]}, "other features: 0 unknown, 1 missing"),
        ({"features": [*NAMES[1:], "moon_phase"]}, "1 unknown, 1 missing"),
        ({"features": [*NAMES[1:], NAMES[0]]}, "another order or meaning"),
        ({"schema_sha256": "0" * 64}, "another order or meaning"),
        ({"arrays_sha256": "0" * 64}, "its digest differs"),
        ({"thresholds": []}, "is no manifest"),
        ({"thresholds": [{"budget": 1.0, "evidence": float("nan"), "device_weeks": 5}]}, "is no manifest"),
        ({"thresholds": [{"budget": 1.0, "evidence": None, "device_weeks": 5}]}, "is no manifest"),
        ({"thresholds": [{"budget": 0.0, "evidence": 3.0, "device_weeks": 5}]}, "is no manifest"),
        ({"thresholds": [{"budget": 1.0, "evidence": 1e999, "device_weeks": 5}]}, "manifest"),
        ({"surprise": 1}, "is no manifest"),
        ({"name": 5}, "is no manifest"),
    ],
)
def test_another_manifest_is_refused(tmp_path, changes, reason):
    assert reason in refused(tmp_path, **changes)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_artifact(tmp_path)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("kind", ["objects", "another array", "one missing", "no archive"])
def test_other_arrays_are_refused_though_the_digest_is_theirs(tmp_path, kind):
    arrays = dict(STUMP._asdict())
    if kind == "objects":
        arrays["value"] = np.array([Trap()], dtype=object)
    elif kind == "another array":
        arrays["more"] = np.zeros(3)
    elif kind == "one missing":
        del arrays["value"]
    write_artifact(tmp_path, MODEL)
    if kind == "no archive":
        (tmp_path / ARRAYS).write_bytes(b"\x80\x04]\x94.")
    else:
        np.savez(tmp_path / ARRAYS, allow_pickle=True, **arrays)
    digest = hashlib.sha256((tmp_path / ARRAYS).read_bytes()).hexdigest()
    manifest = json.loads((tmp_path / MANIFEST).read_bytes()) | {"arrays_sha256": digest}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        read_artifact(tmp_path)


@pytest.mark.parametrize(
    ("budget", "evidence", "attained"),
    [
        (10.0, 3.0, 1.0),
        (1.0, 3.0, 1.0),
        (0.99, 9.0, 0.2),
        (0.2, 9.0, 0.2),
        (0.15, 12.0, 0.1),
        (0.01, 12.0, 0.1),
    ],
)
def test_a_budget_gets_the_next_stricter_threshold_or_the_strictest(budget, evidence, attained):
    assert (MODEL.thresholds(budget), MODEL.attained(budget)) == ((evidence / 2, evidence), attained)


@pytest.mark.parametrize(("budget", "start"), [(1.0, (1.5, 3.0)), (0.2, (4.0, 5.0)), (0.01, (4.0, 5.0))])
def test_thresholds_for_the_start_are_never_the_higher_ones(budget, start):
    assert MODEL.start_thresholds(budget) == start


def test_a_model_may_have_none_for_the_start():
    without = Artifact(msgspec.structs.replace(MODEL.manifest, start=None), STUMP)
    assert without.start_thresholds(0.2) == without.thresholds(0.2)
