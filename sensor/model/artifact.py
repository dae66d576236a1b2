"""A model on disk: arrays in model.npz, all else in manifest.json. Reading one can never run code.

The manifest says what the arrays are for: the features in their order, thresholds by budget, the data and seeds
of the training. A model that is not exactly what this program expects is refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from sensor.devices.features import FEATURES, N_FEATURES, schema_digest
from sensor.errors import ModelError
from sensor.model.boosted import BoostedTrees
from sensor.model.trees import Trees, find_fault
from sensor.notation import visible
from sensor.outputs import OutputFile

FORMAT: Final = 2
ARRAYS: Final = "model.npz"
MANIFEST: Final = "manifest.json"
#: Far above any model that `train` writes (a few hundred kilobytes): what is larger is not read.
MAX_BYTES: Final = 16 << 20

Positive = Annotated[float, Meta(gt=0.0)]


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evidence that no more than ``budget`` harmless devices a device-year reach: measured on ``device_weeks``.

    ``evidence``: of the trained model; ``index_evidence``: of the index. The budget is of both together.
    """

    budget: Positive
    evidence: Positive
    index_evidence: Positive
    device_weeks: Annotated[int, Meta(ge=1)]


class StartThreshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evidence that a harmless device reaches in one of ``one_in`` captures at most: measured on ``captures``.

    For the first hours of watching (model/channel.py), as Threshold is for all that follows.
    """

    one_in: Annotated[int, Meta(ge=1)]
    evidence: Positive
    index_evidence: Positive
    captures: Annotated[int, Meta(ge=1)]


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What thresholds were calibrated on at a site: ``device_weeks`` of its harmless devices, until ``until``."""

    device_weeks: Annotated[int, Meta(ge=1)]
    until: str


class Labelled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many real devices were learned from, as operators have labelled them, and a digest of what they were like."""

    benign: Annotated[int, Meta(ge=0)]
    infected: Annotated[int, Meta(ge=0)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is. What it was measured to be worth lies beside it, in evaluation.json."""

    format: int
    name: Annotated[str, Meta(min_length=1, max_length=80)]
    features: list[str]
    schema_sha256: str
    arrays_sha256: str
    versions: dict[str, str]
    seed: int
    training_data: list[dict[str, Any]]
    parameters: dict[str, Any]
    thresholds: Annotated[list[Threshold], Meta(min_length=1)]
    start: StartThreshold | None
    calibration: Calibration | None = None
    labelled: Labelled | None = None


@dataclass(frozen=True)
class Artifact:
    """A model that was read, and checked."""

    manifest: Manifest
    trees: Trees

    @cached_property
    def model(self) -> BoostedTrees:
        """What judges."""
        return BoostedTrees(self.manifest.name, self.trees)

    def thresholds(self, budget: float) -> tuple[float, float]:
        """Return the evidence at which the index and the model accuse, for a budget of false alarms a device-year.

        Calibrated budgets are steps: the largest that is not above ``budget`` counts, or the smallest of all.
        """
        calibrated = self._calibrated(budget)
        return calibrated.index_evidence, calibrated.evidence

    def start_thresholds(self, budget: float) -> tuple[float, float]:
        """Return the same for the first hours of watching; never more than ``thresholds``."""
        index, model = self.thresholds(budget)
        start = self.manifest.start
        if start is None:
            return index, model
        return min(index, start.index_evidence), min(model, start.evidence)

    def attained(self, budget: float) -> float:
        """Return the budget that ``thresholds`` are for: less than what was calibrated cannot be promised."""
        return self._calibrated(budget).budget

    def _calibrated(self, budget: float) -> Threshold:
        return min(self.manifest.thresholds, key=lambda t: (t.budget > budget, abs(t.budget - budget)))


def default_directory() -> Path | None:
    """Return where the model that comes with this program lies, None if it came without one.

    In a checkout that is models/default beside the package; a wheel has it inside.
    """
    package = Path(__file__).parents[1]
    places = (package / "models" / "default", package.parent / "models" / "default")
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def write_artifact(directory: Path, artifact: Artifact) -> Artifact:
    """Write a model, and return it with the digest of its arrays; equal models give equal files."""
    arrays = _pack(artifact.trees)
    manifest = msgspec.structs.replace(artifact.manifest, arrays_sha256=hashlib.sha256(arrays).hexdigest())
    text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    for name, content in ((ARRAYS, arrays), (MANIFEST, text + b"\n")):
        with OutputFile(str(directory / name)) as output, output.writing():
            output.stream.write(content)
    return Artifact(manifest, artifact.trees)


def _pack(trees: Trees) -> bytes:
    """Return the arrays as a npz file; not deflated, since not every zlib packs alike."""
    stream = io.BytesIO()
    # Without allow_pickle=False, which older NumPys would store as an array: numbers are never pickled.
    np.savez(stream, **trees._asdict())
    return stream.getvalue()


def read_artifact(directory: Path) -> Artifact:
    """Read a model; ModelError if it is missing, damaged, or not made for this program's features."""
    text = _read(directory / MANIFEST)
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(directory / MANIFEST, f"is no manifest of a model: {error}") from None
    fault = _manifest_fault(manifest)
    if fault is not None:
        raise _refused(directory / MANIFEST, fault)
    arrays = _read(directory / ARRAYS)
    if hashlib.sha256(arrays).hexdigest() != manifest.arrays_sha256:
        raise _refused(directory / ARRAYS, "is not the file that the manifest names: its digest differs")
    return Artifact(manifest, _unpack(arrays, directory / ARRAYS))


def _manifest_fault(manifest: Manifest) -> str | None:
    if manifest.format != FORMAT:
        return f"is of format {manifest.format}, and this program reads {FORMAT}"
    names = [info.name for info in FEATURES]
    if manifest.features != names or manifest.schema_sha256 != schema_digest():
        odd = [name for name in manifest.features if name not in names]
        missing = [name for name in names if name not in manifest.features]
        return (
            "was made for other features: "
            + (
                f"{len(odd)} unknown, {len(missing)} missing"
                if odd or missing
                else "another order or meaning"
            )
            + "; train it anew with this version"
        )
    numbers = [n for t in manifest.thresholds for n in (t.evidence, t.index_evidence, t.budget)]
    if manifest.start is not None:
        numbers += [manifest.start.evidence, manifest.start.index_evidence]
    if not all(map(math.isfinite, numbers)):
        return "has a threshold that is not a number"
    return None


def _unpack(content: bytes, path: Path) -> Trees:
    try:
        # Sizes first: a file of zeros packs a thousand to one.
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            if sum(member.file_size for member in members.infolist()) > MAX_BYTES:
                raise _refused(path, f"holds more than {MAX_BYTES >> 20} MiB of arrays")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sorted(arrays.files) != sorted(Trees._fields):
                raise _refused(path, f"holds {len(arrays.files)} arrays that are not those of a model")
            trees = Trees(*(arrays[name] for name in Trees._fields))
    except (ValueError, KeyError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _refused(path, f"cannot be read: {error}") from None
    if not all(isinstance(array, np.ndarray) for array in trees):
        raise _refused(path, "holds something else than arrays")
    fault = find_fault(trees, N_FEATURES)
    if fault is not None:
        raise _refused(path, fault)
    return trees


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(path, error.strerror or "cannot be read") from None
    if len(content) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES >> 20} MiB")
    return content


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError(f"{visible(str(path))}: {visible(reason)}")
