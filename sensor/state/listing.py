"""What the commands show of the database: rows of a table for people, JSON for programs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from sensor.alerts.formats import alert_text
from sensor.notation import day_and_second, eve_time, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sensor.state.database import KeptAlert, KeptDevice, Label

DEVICE_COLUMNS = (
    "device",
    "addresses",
    "name",
    "type",
    "vendor",
    "role",
    "mail",
    "evidence",
    "last seen",
    "label",
)
ALERT_COLUMNS = ("alert id", "state", "since", "device", "name", "type", "severity", "cause", "label")
_SOME_ADDRESSES = 2


def device_rows(devices: Iterable[KeptDevice]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of DEVICE_COLUMNS, printable ASCII."""
    for device in devices:
        known: Mapping[str, Any] = defaultdict(
            lambda: None, device.record
        )  # of an older version, some are not there
        addresses = str(known["ips"] or "").split()
        more = f" and {len(addresses) - _SOME_ADDRESSES} more" if len(addresses) > _SOME_ADDRESSES else ""
        yield _cells(
            known["device"],
            " ".join(addresses[:_SOME_ADDRESSES]) + more,
            *(known["hostname"], known["type"], known["vendor"], known["role"]),
            (known["smtp25_connections"] or 0) + (known["submission_connections"] or 0),
            f"{known['evidence'] or 0.0:.1f}",
            day_and_second(known["last_seen"] or ""),
            _label_text(device.label),
        )


def alert_rows(alerts: Iterable[KeptAlert]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of ALERT_COLUMNS, printable ASCII."""
    for kept in alerts:
        alert, device = kept.alert, kept.alert.device
        state = "review" if alert.event_type == "review" else "closed" if kept.closed else kept.state
        yield _cells(
            *(alert.alert_id, state, day_and_second(kept.first_time), device.key),
            *(device.hostname, device.type, alert.severity, alert.cause, _label_text(kept.label)),
        )


def _cells(*values: Any) -> tuple[str, ...]:
    return tuple("" if value is None else printable(str(value)) for value in values)


def _label_text(label: Label | None) -> str:
    if label is None:
        return ""
    return (
        f"{label.verdict} until {eve_time(label.expires_ns)[:10]}"
        if label.verdict == "benign"
        else label.verdict
    )


def device_json(device: KeptDevice) -> bytes:
    """Encode a device: the columns of --devices, and ``label``."""
    return msgspec.json.encode({**device.record, "label": _label_record(device.label)})


def alert_json(kept: KeptAlert) -> bytes:
    """Encode an alert: its latest record as ``alert``, and what else is known of it."""
    closed = None if kept.closed is None else dict(zip(("time", "by"), kept.closed, strict=True))
    return msgspec.json.encode(
        {
            "alert_id": kept.alert.alert_id,
            "state": kept.state,
            "is_open": kept.is_open,
            "first_time": kept.first_time,
            "last_time": kept.last_time,
            "closed": closed,
            "label": _label_record(kept.label),
            "alert": kept.alert,
        }
    )


def _label_record(label: Label | None) -> dict[str, str] | None:
    if label is None:
        return None
    return {
        "verdict": label.verdict,
        "reason": label.reason,
        "by": label.said_by,
        "time": label.said_time,
        "expires": eve_time(label.expires_ns),
    }


def changed_text(kept: KeptAlert) -> str:
    """Write an alert that has changed for a person: as watch says it, and what the operator said of it."""
    lines = [alert_text(kept.alert)]
    if kept.state == "lost":
        lines.append("  lost      the sensor that said so ended, and none goes on with it")
    if kept.closed is not None:
        lines.append(printable(f"  closed    {day_and_second(kept.closed[0])} by {kept.closed[1]}"))
    if kept.label is not None:
        said = kept.label
        lines.append(printable(f"  label     {_label_text(said)}, by {said.said_by}: {said.reason}"))
    return "\n".join([*lines, ""])
