"""What of the device table outlives a run: the rows in use, taken out as arrays and put back into fresh tables.

Rows are found by hashing, so each goes back to its own place: into tables of the same sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sensor.decode.facts import FactKind, FactSource
from sensor.devices.site import mark_known_servers
from sensor.devices.table import KEY_FREE, Count, DeviceTables, Recent, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


class _Group(NamedTuple):
    """Arrays whose rows are in use together; the numbers of those are saved as ``rows.<name>``."""

    name: str
    fields: tuple[str, ...]
    is_used: Callable[[DeviceTables], NDArray[np.bool_]]


#: A device that never mailed leaves what is of SENDERS untouched (identity.reset_device).
_GROUPS: Final = (
    _Group(
        "devices",
        ("devices", "addresses", "host_names", "hints", "hint_texts"),
        lambda t: t.devices["key_kind"] != KEY_FREE,
    ),
    _Group(
        "senders",
        (
            *("counts", "totals", "recent", "destinations", "registers", "operators", "helo", "retries"),
            *("retry_counts", "peers", "relay", "fingerprints", "sizes", "pauses", "blooms", "dialects"),
            *("examples", "example_names"),
        ),
        lambda t: (t.devices["key_kind"] != KEY_FREE) & (t.devices["has_mail"] != 0),
    ),
    _Group("answers", ("answers", "answer_names"), lambda t: t.answers["serial"] >= 0),
    _Group("routers", ("routers",), lambda t: t.routers["mac"] != 0),
    _Group("neighbours", ("neighbours",), lambda t: t.neighbours["mac"] != 0),
    _Group("identities", ("identities",), lambda t: t.identities["identity"] != 0),
    _Group("aliases", ("aliases",), lambda t: t.aliases["mac"] != 0),
)
#: Lists of rows of devices, and how long each is, by the name in the clock.
_LISTS: Final = {"dirty": "n_dirty", "window": "n_window"}
#: The configuration's (but for home networks, which tell whether it is the same), what is of open connections, counters
#: of the run, and scratch.
NOT_SAVED: Final = (
    *(name for name in Site._fields if name != "home_nets"),
    *("flow_owners", "evictions", "day", "hour"),
)

#: What columns mean by their order, or values by their number: saved rows make sense only where this is the same.
MEANINGS: Final = tuple(
    f"{kind.__name__} {member.value} {member.name}"
    for kind in (Count, Recent, FactKind, FactSource)
    for member in kind
)


def saved_fields() -> list[str]:
    """Return the fields of DeviceTables that are saved."""
    return [*(field for group in _GROUPS for field in group.fields), *_LISTS, "clock", "home_nets"]


def table_sizes(t: DeviceTables) -> dict[str, int]:
    """Return the sizes of the tables that rows are hashed into."""
    return {group.name: len(getattr(t, group.fields[0])) for group in _GROUPS}


def save_devices(t: DeviceTables) -> Arrays:
    """Return copies of the rows in use, by the names of DeviceTables, and which rows they are; no other is touched."""
    arrays: Arrays = {}
    for group in _GROUPS:
        rows = np.flatnonzero(group.is_used(t))
        arrays[f"rows.{group.name}"] = rows
        for field in group.fields:
            arrays[field] = getattr(t, field)[rows]
    for field, length in _LISTS.items():
        arrays[field] = getattr(t, field)[: t.clock[0][length]].copy()
    arrays["clock"] = t.clock.copy()
    arrays["home_nets"] = t.home_nets.copy()
    return arrays


def load_devices(t: DeviceTables, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put rows back into fresh tables of the sizes that they were saved from.

    ``arrays``: as save_devices returns, with its types. ValueError if they do not fit together; then nothing
    was put back.
    """
    sizes = table_sizes(t)
    for group in _GROUPS:
        rows = arrays[f"rows.{group.name}"]
        _check_rows(rows, sizes[group.name], group.name)
        if any(len(arrays[field]) != len(rows) for field in group.fields):
            raise ValueError(f"{group.name}: not as many as rows")
    for field, length in _LISTS.items():
        _check_rows(np.sort(arrays[field]), sizes["devices"], field)
        if len(arrays["clock"]) != 1 or arrays["clock"][0][length] != len(arrays[field]):
            raise ValueError(f"{field}: not as long as the clock says")
    for group in _GROUPS:
        for field in group.fields:
            getattr(t, field)[arrays[f"rows.{group.name}"]] = arrays[field]
    for field in _LISTS:
        getattr(t, field)[: len(arrays[field])] = arrays[field]
    t.clock[:] = arrays["clock"]
    for total in (
        "excepted",
        "called",
        "answered",
        "elsewhere",
        "stranger_lead",
    ):  # of this run, as evictions
        t.clock[total] = 0
    t.devices["is_kind_known"] = 0  # by rules that may be others than before
    # The configuration may be another one than before.
    mark_known_servers(t)
    if not np.array_equal(arrays["home_nets"], t.home_nets):
        t.routers[:] = 0  # who sent packets of outside addresses: outside is elsewhere now


def _check_rows(rows: NDArray[np.int64], size: int, name: str) -> None:
    if len(rows) and not (rows[0] >= 0 and rows[-1] < size and (np.diff(rows) > 0).all()):
        raise ValueError(f"{name}: rows that are not there")
