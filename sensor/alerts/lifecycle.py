"""The life of an alert: started, updated, ended; one open alert per device, and a review list beside it.

An alert starts when the evidence against a device crosses a threshold (model/channel.py). It is updated when it
gets worse, or goes on: at most once an hour. It ends after a day without new evidence. What reaches a share of
the threshold is for review: said once per device.
"""

from __future__ import annotations

import hashlib
import math
import struct
from base64 import b64encode
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

import sensor
from sensor.alerts.explain import advise, find_cause, find_reasons, summarise
from sensor.alerts.record import Alert, Completeness, Counts, Device, FlowExample, SensorInfo
from sensor.devices.features import Feature
from sensor.devices.roles import Role
from sensor.devices.table import DAY_NS, NEVER_NS, SECOND_NS, Count, DeviceTables
from sensor.devices.view import addresses, flow_examples, guess, key_kind, key_text, share_of, vendor_of
from sensor.events.types import Fate
from sensor.model.channel import Channel, weigh
from sensor.model.evidence import REVIEW_SHARE
from sensor.notation import address_bytes, address_text, eve_time, mac_text

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from numpy.typing import NDArray

    from sensor.alerts.record import EventType, Severity, State
    from sensor.model.score import Verdicts

QUIET_NS: Final = DAY_NS
UPDATE_NS: Final = 3600 * SECOND_NS
#: Mail connections in an hour from which on a case is high, and critical.
HIGH_PER_HOUR: Final = 60
CRITICAL_PER_HOUR: Final = 1000
#: So many attempts without a word from any server: something on the way stops them.
BLOCKED_ATTEMPTS: Final = 5
#: A rule that holds where the index sees nothing is believed to this degree.
RULE_ALONE_CONFIDENCE: Final = 0.85
#: Nothing is certain.
MOST_CONFIDENCE: Final = 0.99
_TCP: Final = 6
_SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")


@dataclass(slots=True)
class Case:
    """An open alert: about the device ``serial`` in ``row`` of the device table."""

    row: int
    serial: int
    first: Alert
    last: Alert
    last_ns: int  # of the last record
    evidence_ns: int  # of the last evidence
    connections: int  # at the last record


class _Said(NamedTuple):
    """What a channel says of one device: row ``i`` of its verdicts, and its evidence over its threshold."""

    channel: Channel
    verdicts: Verdicts
    i: int
    ratio: float


class Lifecycle:
    """Turns verdicts and evidence into alert records; ``on_alert`` gets each in the order of packet time.

    ``channels``: the index, and the trained model if there is one.
    """

    def __init__(
        self,
        tables: DeviceTables,
        channels: Sequence[Channel],
        on_alert: Callable[[Alert], None],
    ) -> None:
        self._tables = tables
        self._channels = channels
        self._on_alert = on_alert
        self._open: dict[int, Case] = {}  # by row
        self._reviewed: dict[int, int] = {}  # row -> serial of the device that was reviewed in it
        self._next_end_ns = NEVER_NS
        self.n_alerts = 0
        self.n_reviews = 0
        self._info = _describe_sensor(channels)

    def take(
        self,
        rows: NDArray[np.int64],
        features: NDArray[np.float64],
        verdicts: Sequence[Verdicts],
        now_ns: int,
        *,
        is_start: bool = False,
    ) -> None:
        """Take each channel's verdicts on ``rows``, i8[n], that have just made a step.

        ``is_start``: whether watching has just begun.
        """
        loudest, ratio = weigh(self._channels, rows, verdicts, is_start=is_start)
        serials = self._tables.devices["serial"][rows]
        for i in (ratio >= REVIEW_SHARE).nonzero()[0].tolist():
            row, serial = int(rows[i]), int(serials[i])
            case = self._open.get(row)
            if case is not None and case.serial != serial:
                # The device table was full: the row has another device now.
                del self._open[row]
                self._on_alert(_replaced(case.last, state="ended", timestamp=eve_time(now_ns)))
                case = None
            channel = int(loudest[i])
            said = _Said(self._channels[channel], verdicts[channel], i, float(ratio[i]))
            if ratio[i] >= 1.0:
                if case is None:
                    self._start(row, features[i], said, now_ns)
                else:
                    self._go_on(case, row, features[i], said, now_ns)
            elif case is None and self._reviewed.get(row) != serial:
                self._reviewed[row] = serial
                self.n_reviews += 1
                self._on_alert(self._record("review", "started", row, features[i], said, now_ns, None))

    def end_quiet(self, now_ns: int) -> None:
        """End the alerts of devices that have been quiet for long enough."""
        if now_ns < self._next_end_ns:
            return
        for case in list(self._open.values()):
            if now_ns - case.evidence_ns >= QUIET_NS:
                self._end(case, now_ns)
        self._note_next_end()

    def close(self, alert_ids: Container[str], now_ns: int) -> None:
        """End alerts because the operator says so; what goes on needs new evidence to be said again."""
        for case in list(self._open.values()):
            if case.last.alert_id in alert_ids:
                self._end(case, now_ns)
        self._note_next_end()

    def _end(self, case: Case, now_ns: int) -> None:
        del self._open[case.row]
        for channel in self._channels:
            channel.release(case.row)
        self._tables.devices[case.row]["is_accused"] = 0
        self._on_alert(_replaced(case.last, state="ended", timestamp=eve_time(now_ns)))

    def _note_next_end(self) -> None:
        self._next_end_ns = min(
            (case.evidence_ns + QUIET_NS for case in self._open.values()), default=NEVER_NS
        )

    @property
    def model(self) -> str:
        """The names of the models that judge."""
        return self._info.model

    def open_by_severity(self) -> dict[Severity, int]:
        """Return how many alerts are open, by the severity that was said last."""
        counts = dict.fromkeys(_SEVERITIES[1:], 0)
        for case in self._open.values():
            counts[case.last.severity] += 1
        return counts

    def reconfigure(self, tables: DeviceTables, channels: Sequence[Channel]) -> None:
        """Go on with other tables of the site, thresholds or models; open alerts stay open."""
        self._tables = tables
        self._channels = channels
        self._info = _describe_sensor(channels)

    @property
    def next_end_ns(self) -> int:
        """The packet time before which ``end_quiet`` has nothing to do."""
        return self._next_end_ns

    def open_cases(self) -> list[Case]:
        """Return copies of the open alerts, in the order in which they started."""
        return [replace(case) for case in self._open.values()]

    def reviewed(self) -> NDArray[np.int64]:
        """Return which devices were on the review list, i8[n, 2]: row, and serial of the device."""
        return np.array(list(self._reviewed.items()), dtype=np.int64).reshape(-1, 2)

    def resume(self, cases: Sequence[Case], reviewed: NDArray[np.int64]) -> None:
        """Go on with the ``open_cases`` and ``reviewed`` of another run, whose device table we have now.

        ValueError if a case is about a row that is not there.
        """
        if not all(0 <= case.row < self._tables.devices.size for case in cases):
            raise ValueError("alerts: rows that are not there")
        self._open = {case.row: replace(case) for case in cases}
        self._reviewed = dict(reviewed.tolist())
        self._note_next_end()

    def _start(self, row: int, features: NDArray[np.float64], said: _Said, now_ns: int) -> None:
        alert = self._record("alert", "started", row, features, said, now_ns, None)
        device = self._tables.devices[row]
        self._open[row] = Case(
            row=row,
            serial=int(device["serial"]),
            first=alert,
            last=alert,
            last_ns=now_ns,
            evidence_ns=now_ns,
            connections=int(device["connections"]),
        )
        device["is_accused"] = 1
        self._next_end_ns = min(self._next_end_ns, now_ns + QUIET_NS)
        self.n_alerts += 1
        self._on_alert(alert)

    def _go_on(self, case: Case, row: int, features: NDArray[np.float64], said: _Said, now_ns: int) -> None:
        case.evidence_ns = now_ns
        connections = int(self._tables.devices[row]["connections"])
        is_worse = _SEVERITIES.index(_severity(features, "alert")) > _SEVERITIES.index(case.last.severity)
        has_doubled = connections >= 2 * case.connections
        if is_worse or (has_doubled and now_ns - case.last_ns >= UPDATE_NS):
            case.last = self._record("alert", "updated", row, features, said, now_ns, case.first)
            case.last_ns = now_ns
            case.connections = connections
            self._on_alert(case.last)

    def _record(
        self,
        event_type: EventType,
        state: State,
        row: int,
        features: NDArray[np.float64],
        said: _Said,
        now_ns: int,
        first: Alert | None,
    ) -> Alert:
        t = self._tables
        device = t.devices[row]
        channel, verdicts, i = said.channel, said.verdicts, said.i
        role = Role(int(verdicts.roles[i]))
        rule_index = int(verdicts.rules[i])
        rule = channel.model.rules[rule_index] if rule_index >= 0 else None
        key = key_text(t, row)
        # Plain Python numbers from here on: reading an array's items one by one takes several times as long.
        known: list[float] = features.tolist()
        totals: list[int] = t.totals[row].tolist()
        attempts = totals[Count.SMTP25] + totals[Count.SUBMISSION]
        answers = totals[Count.ANSWERED] + totals[Count.TLS] + totals[Count.MESSAGES]
        cause = find_cause(
            known,
            role,
            is_known_server=bool(device["is_known_server"]),
            is_blocked=answers == 0 and attempts >= BLOCKED_ATTEMPTS,
        )
        onset_ns = int(channel.evidence.onset_ns[row])
        completeness = _completeness(totals, now_ns - int(device["first_ns"]))
        counts = _counts(totals, known)
        first_ns = int(device["mail_first_ns"] if device["mail_first_ns"] >= 0 else device["first_ns"])
        who = guess(t, row)
        return Alert(
            timestamp=eve_time(now_ns),
            event_type=event_type,
            alert_id=first.alert_id if first else _alert_id(key, event_type, now_ns),
            state=state,
            device=Device(
                key=key,
                key_kind=key_kind(t, row),
                mac=mac_text(int(device["mac"])),
                vendor=vendor_of(int(device["mac"])),
                ips=addresses(t, row),
                hostname=who.name,
                vlan=int(device["vlan"]) if device["vlan"] >= 0 else None,
                role=role.label,
                type=who.kind,
                type_evidence=who.evidence,
                model=who.model,
            ),
            severity=_severity(known, event_type),
            confidence=_confidence(said.ratio, float(verdicts.logit[i]), completeness),
            cause=cause,
            channel=f"rule:{rule}" if rule else channel.name,
            summary=summarise(counts, (now_ns - first_ns) / SECOND_NS),
            advice=advise(cause, is_review=event_type == "review"),
            reasons=find_reasons(
                known, channel.model.explain(features).tolist(), channel.model.term_features, rule
            ),
            counts=counts,
            onset=first.onset if first else eve_time(onset_ns),
            first_seen=eve_time(first_ns),
            last_seen=eve_time(int(device["last_ns"])),
            flows=self._flows(row),
            completeness=completeness,
            sensor=self._info,
        )

    def _flows(self, row: int) -> tuple[FlowExample, ...]:
        flows = []
        for example, name in flow_examples(self._tables, row):
            source = example["orig_hi"], example["orig_lo"]
            destination = example["resp_hi"], example["resp_lo"]
            ports = example["orig_port"], example["resp_port"]
            fate = example["fate"]
            flows.append(
                FlowExample(
                    timestamp=eve_time(example["ts_ns"]),
                    community_id=_community_id(source, destination, *ports),
                    proto="TCP",
                    src_ip=address_text(*source),
                    src_port=ports[0],
                    dest_ip=address_text(*destination),
                    dest_port=ports[1],
                    fate=Fate(fate).name.lower() if fate >= 0 else "open",
                    dest_name=name,
                )
            )
        return tuple(flows)


def _describe_sensor(channels: Sequence[Channel]) -> SensorInfo:
    models = " + ".join(channel.model.name for channel in channels)
    return SensorInfo(name="spamsensor", version=sensor.__version__, model=models)


def _confidence(ratio: float, logit: float, completeness: Completeness) -> float:
    """Grow from 0.8 at the threshold towards 1; less where part is not seen. A scale, not a measured rate.

    ``ratio``: of the evidence to the threshold.
    """
    confidence = min(1.0 - 0.2 * math.exp(1.0 - ratio), MOST_CONFIDENCE) if ratio >= 1.0 else 0.8 * ratio
    if logit < 0.0:
        confidence = min(confidence, RULE_ALONE_CONFIDENCE)
    if not completeness.dns_seen:
        confidence *= 0.95
    if (completeness.one_sided_share or 0.0) > 0.5:
        confidence *= 0.9
    return round(confidence, 2)


def _counts(totals: Sequence[int], features: Sequence[float]) -> Counts:
    return Counts(
        smtp_connections=totals[Count.SMTP25] + totals[Count.SUBMISSION],
        destinations=round(features[Feature.DESTINATIONS_24H]),
        mx_queries=totals[Count.MX],
        messages_attempted=max(totals[Count.MESSAGES] + totals[Count.INFERRED], totals[Count.ACCEPTED]),
        messages_accepted=totals[Count.ACCEPTED],
        recipients=totals[Count.RECIPIENTS],
        rejected_4xx=totals[Count.REJECTED_4XX],
        rejected_5xx=totals[Count.REJECTED_5XX],
        auth_failures=totals[Count.AUTH_FAILED],
    )


def _completeness(totals: Sequence[int], observed_ns: int) -> Completeness:
    tls, cleartext, closed = totals[Count.TLS], totals[Count.CLEARTEXT], totals[Count.CLOSED]
    return Completeness(
        dns_seen=totals[Count.DNS] > 0,
        dns_answers_share=share_of(totals[Count.DNS_ANSWERED], totals[Count.DNS]),
        cleartext_share=share_of(cleartext, tls + cleartext),
        one_sided_share=share_of(totals[Count.ONE_SIDED], closed),
        gap_share=share_of(totals[Count.GAPS], closed),
        observed_s=round(observed_ns / SECOND_NS, 3),
    )


@lru_cache(maxsize=4096)
def _community_id(
    source: tuple[int, int], destination: tuple[int, int], source_port: int, destination_port: int
) -> str:
    """Return a TCP flow's Community ID (version 1, seed 0); the same examples stand in many records.

    Community ID Flow Hashing, https://github.com/corelight/community-id-spec. Its reference implementation,
    which the tests compare with, takes ten times as long: the larger half of a record's cost.
    """
    low, high = sorted(
        [(address_bytes(*source), source_port), (address_bytes(*destination), destination_port)]
    )
    content = struct.pack("!H", 0) + low[0] + high[0] + struct.pack("!BBHH", _TCP, 0, low[1], high[1])
    return f"1:{b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode('ascii')}"


def _severity(features: Sequence[float] | NDArray[np.float64], event_type: EventType) -> Severity:
    if event_type == "review":
        return "low"
    per_hour = features[Feature.SMTP25_1H] + features[Feature.SUBMISSION_1H]
    if per_hour >= CRITICAL_PER_HOUR:
        return "critical"
    return "high" if per_hour >= HIGH_PER_HOUR or features[Feature.BLOCKLISTED_24H] > 0 else "medium"


def _alert_id(key: str, event_type: str, now_ns: int) -> str:
    """Return an identifier that two replays of the same packets agree on."""
    return hashlib.sha256(f"{key}|{event_type}|{now_ns}".encode()).hexdigest()[:16]


def _replaced(alert: Alert, **changes: str) -> Alert:
    import msgspec  # noqa: PLC0415 - only when an alert ends

    return msgspec.structs.replace(alert, **changes)
