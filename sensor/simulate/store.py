"""A world on disk: sessions by site, labels, and a manifest that says how it came about.

What is kept are the sessions, in columns: a fifteenth of the events that follow from them, which ``emit``
makes again whenever they are read. So data that was written before the decoder learned to say more says it,
too. docs/simulation.md describes the files.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import zipfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sensor import __version__
from sensor.errors import ConfigError, DataError
from sensor.notation import eve_time, visible
from sensor.outputs import OutputFile
from sensor.simulate.render import render, write_pcap
from sensor.simulate.sessions import ENDPOINT_DTYPE, SESSION_DTYPE, Scene, View
from sensor.simulate.site import Resident, Site, make_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sensor.simulate.world import Plan

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.tsv"
LABEL_COLUMNS: Final = (
    *(
        "site",
        "device",
        "keys",
        "kind",
        "family",
        "first_seen",
        "infected_from",
        "infected_until",
        "first_spam",
    ),
    *("spam_mails", "mails_per_day", "parameters"),
)
#: Packets take a thousand times the room of sessions: of a world, the beginnings of some sites are rendered.
PCAP_EVERY_SITES: Final = 8
PCAP_SESSIONS: Final = 20_000
_NONE = "-"


@dataclass(frozen=True)
class WorldData:
    """A world that was read: what the manifest says, and where its sites are."""

    directory: Path
    manifest: dict[str, Any]
    _labels: dict[int, tuple[Resident, ...]]

    def sites(self) -> Iterator[Site]:
        """Yield the sites; DataError if one cannot be read or is not the one that was written."""
        for position in range(len(self.manifest["sites"])):
            yield self.site(position)

    def site(self, position: int) -> Site:
        """Return the site at a position of the manifest; see ``sites``."""
        entry = self.manifest["sites"][position]
        return _read_site(self.directory, entry, self._labels.get(entry["site"], ()))


# Writing.


def write_world(
    plan: Plan, directory: Path, *, with_pcap: bool = False, n_processes: int = 1
) -> dict[str, Any]:
    """Make a world's sites and write them; return the manifest. ConfigError if the directory is not empty.

    What is written does not depend on ``n_processes``.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(f"{visible(str(directory))}: is not empty: name a new directory")
    except OSError as error:
        raise ConfigError(f"{visible(str(directory))}: cannot be written: {error.strerror}") from None
    tasks = [
        (plan, number, kind, n, directory, with_pcap) for number, (kind, n) in enumerate(plan.site_sizes())
    ]
    with ExitStack() as stack:
        if n_processes > 1:
            context = multiprocessing.get_context("spawn")  # kernels and fork do not go together
            pool = stack.enter_context(ProcessPoolExecutor(n_processes, mp_context=context))
            written = list(pool.map(_write_site, tasks))
        else:
            written = [_write_site(task) for task in tasks]
    labels = [row for _, rows in written for row in rows]
    _write_labels(directory / LABELS, labels)
    manifest = {
        "format": FORMAT,
        "world": plan.world.name,
        "seed": plan.seed,
        "devices": plan.n_devices,
        "days": None if plan.is_cold else plan.days,
        "cold": plan.is_cold,
        "versions": {"spamsensor": __version__, "numpy": np.__version__},
        "parameters": asdict(plan.world),
        "labels_sha256": _digest(directory / LABELS),
        "sites": [entry for entry, _ in written],
    }
    with OutputFile(str(directory / MANIFEST)) as output, output.writing():
        output.stream.write(json.dumps(manifest, indent=1).encode() + b"\n")
    return manifest


def _write_site(task: tuple[Plan, int, str, int, Path, bool]) -> tuple[dict[str, Any], list[list[str]]]:
    """Make and write one site; return its entry of the manifest and its rows of the labels."""
    plan, number, kind, n_devices, directory, with_pcap = task
    site = make_site(plan, number, kind, n_devices)
    name = f"site-{number:05d}"
    scene = site.scene
    arrays: dict[str, NDArray[Any]] = {
        "text": scene.text,
        "text_start": scene.text_start,
        "text_len": scene.text_len,
        **{f"endpoint.{column}": scene.endpoints[column] for column in ENDPOINT_DTYPE.names or ()},
        **{f"session.{column}": site.sessions[column] for column in SESSION_DTYPE.names or ()},
    }
    path = directory / f"{name}.npz"
    with OutputFile(str(path)) as output, output.writing():
        np.savez_compressed(output.stream, allow_pickle=False, **arrays)
    entry = {
        "site": number,
        "type": site.kind,
        "file": path.name,
        "sha256": _digest(path),
        "devices": n_devices,
        "sessions": len(site.sessions),
        "home_nets": list(site.home_nets),
        "vlan": scene.vlan,
        "view": site.view.name.lower(),
        "dns_blind": site.is_blind,
        "loss": site.loss,
        "start_ns": site.start_ns,
        "end_ns": site.end_ns,
        "pcap": None,
        "pcap_sessions": 0,
    }
    if with_pcap and (plan.is_cold or number % PCAP_EVERY_SITES == 0):
        part = site.sessions[:PCAP_SESSIONS]
        with OutputFile(str(directory / f"{name}.pcap")) as output, output.writing():
            write_pcap(output.stream, render(part, scene))
        entry["pcap"], entry["pcap_sessions"] = f"{name}.pcap", len(part)
    return entry, [_label_row(number, resident) for resident in site.residents]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _time(ts_ns: int) -> str:
    return eve_time(ts_ns) if ts_ns > 0 else _NONE


def _label_row(site: int, resident: Resident) -> list[str]:
    return [
        str(site),
        str(resident.number),
        " ".join(resident.keys),
        resident.kind,
        resident.family or _NONE,
        *(_time(ts_ns) for ts_ns in (resident.first_seen_ns, resident.infected_from_ns)),
        *(_time(ts_ns) for ts_ns in (resident.infected_until_ns, resident.first_spam_ns)),
        str(resident.n_spam),
        f"{resident.mails_per_day:.3f}",
        json.dumps({name: float(f"{value:.6g}") for name, value in resident.params.items()}),
    ]


def _write_labels(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(LABEL_COLUMNS)
    writer.writerows(rows)
    with OutputFile(str(path)) as output, output.writing():
        output.stream.write(text.getvalue().encode())


# Reading.


def open_world(directory: Path) -> WorldData:
    """Read a world's manifest and labels; DataError if they are missing, damaged or of another format."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        rows = (directory / LABELS).read_text("utf-8").splitlines()
    except OSError as error:
        raise _damaged(Path(error.filename or directory), error.strerror or "cannot be read") from None
    except ValueError as error:
        raise _damaged(directory / MANIFEST, str(error)) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(directory / MANIFEST, f"expected format {FORMAT}")
    if manifest.get("labels_sha256") != _digest(directory / LABELS):
        raise _damaged(directory / LABELS, "is not the file that was written: its digest differs")
    labels: dict[int, list[Resident]] = {}
    for row in csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE):
        labels.setdefault(int(row["site"]), []).append(_resident(row))
    return WorldData(directory, manifest, {site: tuple(residents) for site, residents in labels.items()})


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{visible(str(path))}: {reason}")


def _resident(row: dict[str, str]) -> Resident:
    return Resident(
        number=int(row["device"]),
        keys=tuple(row["keys"].split(" ")),
        kind=row["kind"],
        family="" if row["family"] == _NONE else row["family"],
        first_seen_ns=_ns(row["first_seen"]),
        infected_from_ns=_ns(row["infected_from"]),
        infected_until_ns=_ns(row["infected_until"]),
        first_spam_ns=_ns(row["first_spam"]),
        n_spam=int(row["spam_mails"]),
        params=json.loads(row["parameters"]),
    )


def _ns(text: str) -> int:
    """Return the time that ``_time`` wrote; all are whole microseconds."""
    return (
        0 if text == _NONE else int(np.datetime64(text.removesuffix("+0000"), "us").astype(np.int64)) * 1000
    )


def _read_site(directory: Path, entry: dict[str, Any], residents: tuple[Resident, ...]) -> Site:
    path = directory / str(entry["file"])
    try:
        if _digest(path) != entry["sha256"]:
            raise _damaged(path, "is not the file that was written: its digest differs")
        with np.load(path, allow_pickle=False) as arrays:
            sessions = _columns(arrays, "session", SESSION_DTYPE)
            endpoints = _columns(arrays, "endpoint", ENDPOINT_DTYPE)
            scene = Scene(
                endpoints, arrays["text"], arrays["text_start"], arrays["text_len"], int(entry["vlan"])
            )
    except OSError as error:
        raise _damaged(path, error.strerror or "cannot be read") from None
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, f"is no site of this format: {error}") from None
    return Site(
        number=int(entry["site"]),
        kind=str(entry["type"]),
        home_nets=tuple(entry["home_nets"]),
        view=View[str(entry["view"]).upper()],
        is_blind=bool(entry["dns_blind"]),
        loss=float(entry["loss"]),
        start_ns=int(entry["start_ns"]),
        end_ns=int(entry["end_ns"]),
        scene=scene,
        sessions=sessions,
        residents=residents,
    )


def _columns(arrays: Any, prefix: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    names = dtype.names or ()
    columns = [arrays[f"{prefix}.{name}"] for name in names]
    whole = np.zeros(len(columns[0]), dtype=dtype)
    for name, column in zip(names, columns, strict=True):
        whole[name] = column
    return whole
