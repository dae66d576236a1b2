"""The checkpoint: all that a run has learned, in one file of plain arrays. Reading one can never run code.

    8 bytes   MAGIC
    8 bytes   length of the manifest, 8 bytes length of the arrays, little-endian
              the manifest, JSON; the arrays, one after the other, as they lie in memory
    32 bytes  SHA-256 of all before

Types and shapes are not in the file but those of the tables that it is read for: a digest of them says whether
they are the same.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

import sensor
from sensor.alerts.lifecycle import Case  # noqa: TC001 - msgspec reads the annotation
from sensor.errors import StateError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAGIC: Final = b"\x89SPCKPT\n"
#: To be raised when what is saved changes its meaning without changing its type.
FORMAT: Final = 1
_LENGTHS: Final = struct.Struct("<QQ")
_HEAD_BYTES: Final = len(MAGIC) + _LENGTHS.size
_DIGEST_BYTES: Final = 32
_MAX_MANIFEST_BYTES: Final = 256 << 20  # 30,000 open alerts
#: Arrays of a channel of evidence: there may be other channels than before.
EVIDENCE: Final = "evidence."


class Snapshot(NamedTuple):
    """What a run has learned: copies of what is in use.

    ``arrays``: by name; ``sizes``: of the tables that rows are hashed into; ``meanings``: of columns and numbers;
    ``models``: by channel, whose evidence it is; ``cases``: the open alerts; ``now_ns``: packet time, -1 before
    the first packet.
    """

    arrays: dict[str, NDArray[Any]]
    sizes: dict[str, int]
    meanings: tuple[str, ...]
    models: dict[str, str]
    cases: list[Case]
    now_ns: int


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What tells whether the rest can be read."""

    format: int
    program: str
    schema: str


class _Manifest(_Head, frozen=True, kw_only=True):
    now_ns: int
    models: dict[str, str]
    arrays: dict[str, int]  # rows of each, in their order
    cases: list[Case]


def schema_digest(snapshot: Snapshot) -> str:
    """Return a digest of types, shapes, sizes and meanings; snapshots with the same one can stand for each other."""
    lines = [f"{name} {size}" for name, size in snapshot.sizes.items()]
    lines += [
        f"{name} {array.dtype.descr} {array.shape[1:]}"
        for name, array in snapshot.arrays.items()
        if name == _alike(name)
    ]
    return hashlib.sha256("\n".join([*lines, *snapshot.meanings]).encode()).hexdigest()


def most_bytes(like: Snapshot) -> int:
    """Return a size that no checkpoint of tables like these exceeds."""
    row_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in like.arrays.values())
    return row_bytes * max(*like.sizes.values(), *map(len, like.arrays.values())) + _MAX_MANIFEST_BYTES


def encode(snapshot: Snapshot) -> Iterator[Any]:
    """Yield the content of a checkpoint, as chunks of bytes."""
    manifest = msgspec.json.encode(
        _Manifest(
            format=FORMAT,
            program=sensor.__version__,
            schema=schema_digest(snapshot),
            now_ns=snapshot.now_ns,
            models=snapshot.models,
            arrays={name: len(array) for name, array in snapshot.arrays.items()},
            cases=snapshot.cases,
        )
    )
    lengths = _LENGTHS.pack(len(manifest), sum(array.nbytes for array in snapshot.arrays.values()))
    digest = hashlib.sha256()
    for chunk in (MAGIC, lengths, manifest, *map(_raw, snapshot.arrays.values())):
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def _raw(array: NDArray[Any]) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def decode(content: bytes, like: Snapshot) -> Snapshot:
    """Return the snapshot in ``content``; StateError says in words why there is none that could be put back.

    ``like``: a snapshot of what it is to be put back into. Evidence of other models than there is left out.
    """
    if not content.startswith(MAGIC) or len(content) < _HEAD_BYTES + _DIGEST_BYTES:
        raise StateError("is no checkpoint")
    manifest_length, arrays_length = _LENGTHS.unpack_from(content, len(MAGIC))
    if len(content) != _HEAD_BYTES + manifest_length + arrays_length + _DIGEST_BYTES:
        raise StateError("is not complete")
    whole = memoryview(content)
    if hashlib.sha256(whole[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise StateError("is damaged: its digest differs")
    arrays_start = _HEAD_BYTES + manifest_length
    manifest = _read_manifest(whole[_HEAD_BYTES:arrays_start], schema_digest(like))
    return Snapshot(
        arrays=_read_arrays(whole[arrays_start:-_DIGEST_BYTES], manifest, like),
        sizes=like.sizes,
        meanings=like.meanings,
        models=manifest.models,
        cases=manifest.cases,
        now_ns=manifest.now_ns,
    )


def _read_manifest(content: memoryview, schema: str) -> _Manifest:
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.format != FORMAT or head.schema != schema:
            raise StateError(
                f"was written by version {visible(head.program)} for tables of other sizes or kinds"
            )
        return msgspec.json.decode(content, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"has a manifest that cannot be read: {error}") from None


def _read_arrays(content: memoryview, manifest: _Manifest, like: Snapshot) -> dict[str, NDArray[Any]]:
    """Return the arrays, as they lie in ``content``; those of evidence only of models that we have."""
    arrays: dict[str, NDArray[Any]] = {}
    start = 0
    for name, n_rows in manifest.arrays.items():
        kind = like.arrays.get(_alike(name))
        if kind is None or n_rows < 0:
            raise StateError(f"has an array of a kind that is not known: {visible(name)}")
        shape = (n_rows, *kind.shape[1:])
        end = start + math.prod(shape) * kind.dtype.itemsize
        if end > len(content):
            raise StateError("has longer arrays than it says")
        if name in like.arrays and _is_of_same_model(name, manifest.models, like.models):
            arrays[name] = np.ndarray(shape, kind.dtype, content, start)
        start = end
    missing = [name for name in like.arrays if name not in arrays and not name.startswith(EVIDENCE)]
    if missing or start != len(content):
        raise StateError("has other arrays than it should")
    return arrays


def _alike(name: str) -> str:
    """Return the name of an array of the same kind that is there whatever the models are."""
    if not name.startswith(EVIDENCE):
        return name
    return f"{EVIDENCE}index.{'rows' if name.endswith('.rows') else 'values'}"


def _is_of_same_model(name: str, saved: dict[str, str], ours: dict[str, str]) -> bool:
    if not name.startswith(EVIDENCE):
        return True
    channel = name.removeprefix(EVIDENCE).rpartition(".")[0]
    return channel in ours and saved.get(channel) == ours[channel]
