"""What of a configuration that was read anew can change while the sensor runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.config import Config

#: Settings that kernels and channels look up in arrays of their own; tables, ports and files were made from the rest.
LIVE: Final = ("home_nets", "mail_servers", "resolvers", "budget", "exceptions")


def merge(running: Config, read: Config) -> tuple[Config, list[str], list[str]]:
    """Return the configuration to go on with, what of it is new, and what has to wait for the next start.

    Settings are named as in the file: ``home_nets``, ``tables.devices``.
    """
    merged = msgspec.structs.replace(running, **{name: getattr(read, name) for name in LIVE})
    return merged, list(_differences(running, merged)), list(_differences(merged, read))


def _differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(one):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if isinstance(before, msgspec.Struct):
            yield from _differences(before, after, f"{prefix}{field.name}.")
        elif before != after:
            yield f"{prefix}{field.name}"
