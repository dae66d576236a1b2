"""The stages joined: frames in, alerts out. The one module that knows all of them.

Time is packet time. Where the work is cut into batches makes no difference to any output: events are made
packet by packet, and verdicts fall due by packet time and by evidence alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from sensor.alerts.lifecycle import Lifecycle
from sensor.capture.bpf import KeptPorts
from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType
from sensor.decode.layers import N_LAYERS, Layer
from sensor.decode.packets import PACKET_DTYPE, PortClass, decode_batch, port_classes
from sensor.decode.status import N_FRAME_STATUSES, Eviction, FrameStatus, Weird
from sensor.decode.watch import new_watch
from sensor.devices.activity import (
    DUE_NOTHING,
    DUE_VERDICTS,
    has_new_evidence,
    make_all_due,
    note_judged,
    observe_events,
    observe_time,
)
from sensor.devices.features import FEATURES, N_FEATURES, Feature, compute_features, schema_digest
from sensor.devices.roles import Role, infer_roles
from sensor.devices.saved import MEANINGS, load_devices, save_devices, table_sizes
from sensor.devices.site import describe_site, mark_known_servers
from sensor.devices.table import KEY_FREE, NEVER_NS, RECENT_SLOT_NS, Count, DeviceTables, new_device_tables
from sensor.devices.view import addresses, guess, key_kind, key_text, look_at_kinds, total, vendor_of
from sensor.events.flows import end_run, has_open_flows, pass_time, track_packets
from sensor.events.tables import NO_DEADLINE, EventTables, Total, new_event_tables
from sensor.events.types import EVENT_DTYPE, ROWS, TEXT, EventColumns, new_event_columns
from sensor.model.channel import START_NS, Channel
from sensor.model.evidence import EvidenceTable, alarm_threshold
from sensor.model.score import MonotoneIndex
from sensor.native import arrays_of
from sensor.notation import address_text, eve_time, mac_text
from sensor.state.checkpoint import EVIDENCE, Snapshot
from sensor.state.weeks import Peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from numpy.typing import NDArray

    from sensor.alerts.record import Alert
    from sensor.config import Config, ExceptionRule
    from sensor.model.artifact import Artifact

    Columns = dict[str, list[Any]]

#: Rows of packet columns that are filled before events are made from them: small enough to stay in the cache.
PACKET_ROWS = 2048
#: Devices judged in one go.
JUDGED_ROWS = 1024


class Steps(NamedTuple):
    """Devices that have just made a step of evidence: what training sees of a run.

    ``keys``: their keys; ``serials``: i8[n], one for each device of the run; ``features``: f8[n, N_FEATURES];
    ``now_ns``: packet time.
    """

    keys: list[str]
    serials: NDArray[np.int64]
    features: NDArray[np.float64]
    now_ns: int


class Pipeline:
    """One run over packets. ``feed`` it batches in order (or ``observe`` their events), then ``finish``.

    ``on_alert`` gets each alert record; ``on_events`` the event columns (EVENT_DTYPE[n], u8 text), borrowed
    for the call; ``on_window`` columns of features, a row for each device that mailed in a window of five
    minutes; ``on_step`` every step of evidence: nobody is accused then, so that all are judged alike to the end.
    ``artifact``: the trained model that judges beside the index.
    """

    def __init__(
        self,
        config: Config,
        *,
        on_alert: Callable[[Alert], None],
        on_events: Callable[[NDArray[Any], NDArray[np.uint8]], None] | None = None,
        on_window: Callable[[Columns], None] | None = None,
        on_step: Callable[[Steps], None] | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        self._config = config
        self._accepted: tuple[ExceptionRule, ...] = ()
        self._on_step = on_step
        self._on_events = on_events
        self._on_window = on_window
        self._port_class = port_classes(config.mail_ports)
        self._watch = new_watch()
        self._packets = np.zeros(PACKET_ROWS, dtype=PACKET_DTYPE)
        self._event_tables = _event_tables(config)
        self._columns = new_event_columns()
        self._devices = _device_tables(config)
        self._frame_counts = np.zeros(N_FRAME_STATUSES, dtype=np.int64)
        self._peeled = np.zeros(N_LAYERS, dtype=np.int64)
        self._n_bytes = 0
        self._first_ns = NEVER_NS
        self._last_ns = -1
        self.started_ns = (
            NEVER_NS  # packet time of the first event; of a run that goes on from another, long ago
        )

        self._channels = _open_channels(config, artifact)
        self._models = _model_ids(self._channels, artifact)
        self._lifecycle = Lifecycle(self._devices, self._channels, on_alert)
        self._features = np.zeros((JUDGED_ROWS, N_FEATURES))
        self._window_end_ns = NEVER_NS
        self._n_devices = 0
        self._counted_at: tuple[int, int] | None = None

    def reconfigure(self, config: Config, artifact: Artifact | None) -> None:
        """Go on with what ``config`` says of the site and of the budget, and with another model, from now on.

        Settings that tables were made from have to be those of before (sensor/reload.py). Evidence so far counts on,
        but for that of another model, which measures with another scale.
        """
        self._describe_site(config)
        mark_known_servers(self._devices)
        if config.home_nets != self._config.home_nets:
            self._devices.routers[:] = 0  # who sent packets of outside addresses: outside is elsewhere now
            self._counted_at = None
        self._config = config
        index, *trained = self._channels
        new_index, *new_trained = _open_channels(config, artifact)
        before, self._models = self._models, _model_ids((new_index, *new_trained), artifact)
        if self._models == before and trained:
            new_trained = [new_trained[0]._replace(evidence=trained[0].evidence)]
        self._channels = (new_index._replace(evidence=index.evidence), *new_trained)
        self._lifecycle.reconfigure(self._devices, self._channels)

    def feed(self, batch: FrameBatch) -> None:
        """Take a batch of frames."""
        frames = batch.frames
        if len(frames) == 0:
            return
        self._n_bytes += int(frames["wire_len"].sum())
        self._first_ns = min(self._first_ns, int(frames["ts_ns"].min()))
        self._last_ns = max(self._last_ns, int(frames["ts_ns"].max()))
        next_frame = 0
        while next_frame < len(frames):
            n, next_frame = decode_batch(
                batch.data,
                frames,
                next_frame,
                self._port_class,
                self._watch,
                self._packets,
                self._frame_counts,
                self._peeled,
                self._event_tables.weirds,
            )
            self._track(batch.data, n)

    def advance(self, now_ns: int) -> None:
        """Let packet time go on to ``now_ns`` where no packet came before it; what is due is done.

        For live capture: a replay has no clock but its packets.
        """
        if self._last_ns < 0 and self._devices.clock[0]["now_ns"] < 0:
            return
        while not pass_time(now_ns, self._event_tables, self._columns):
            self._drain()
        self._drain()
        while not observe_time(now_ns, self._devices):
            self._do_what_is_due()

    def finish(self) -> None:
        """End the run: report the flows that are open still, and judge what is left to judge."""
        end_run(self._event_tables)
        nothing = np.zeros(1, dtype=np.uint8)
        while has_open_flows(self._event_tables):
            track_packets(nothing, self._packets, 0, 0, self._port_class, self._event_tables, self._columns)
            self._drain()
        make_all_due(self._devices)
        self._judge()
        self._end_window()

    def _track(self, data: NDArray[np.uint8], n_packets: int) -> None:
        first = 0
        while first < n_packets:
            first = track_packets(
                data, self._packets, first, n_packets, self._port_class, self._event_tables, self._columns
            )
            self._drain()

    def _drain(self) -> None:
        """Hand the events on and empty the columns."""
        columns = self._columns
        n = int(columns.used[ROWS])
        if n == 0:
            return
        self.observe(columns.events[:n], columns.text)
        columns.used[ROWS] = 0
        columns.used[TEXT] = 0

    def observe(self, events: NDArray[Any], text: NDArray[np.uint8]) -> None:
        """Take events, EVENT_DTYPE[n] in the order of time, and their text, u8: from the decoder, or in its stead."""
        if self._on_events is not None:
            self._on_events(events, text)
        first, n = 0, len(events)
        if self.started_ns == NEVER_NS and n > 0:
            self.started_ns = int(events[0]["ts_ns"])
        while first < n:
            first = observe_events(events, first, n, text, self._devices)
            self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        """Judge, or end windows and alerts, as the device table's clock says."""
        due = self._devices.clock[0]["is_due"]
        if due == DUE_VERDICTS:
            self._judge()
        if due != DUE_NOTHING:
            self._end_what_is_over()

    def _judge(self) -> None:
        """Judge the devices with news."""
        t = self._devices
        clock = t.clock[0]
        now_ns = int(clock["now_ns"])
        n_dirty = int(clock["n_dirty"])
        for first in range(0, n_dirty, JUDGED_ROWS):
            self._judge_rows(t.dirty[first : min(first + JUDGED_ROWS, n_dirty)], now_ns)
        clock["n_dirty"] = 0

    def _end_what_is_over(self) -> None:
        """End windows and alerts whose time has come, and say when to be woken for the next one."""
        clock = self._devices.clock[0]
        now_ns = int(clock["now_ns"])
        clock["is_due"] = DUE_NOTHING
        self._lifecycle.end_quiet(now_ns)
        if now_ns >= self._window_end_ns:
            self._end_window()
        if self._on_window is not None and clock["n_window"] > 0:
            self._window_end_ns = (now_ns // RECENT_SLOT_NS + 1) * RECENT_SLOT_NS
        clock["wake_ns"] = min(self._lifecycle.next_end_ns, self._window_end_ns)

    def _judge_rows(self, rows: NDArray[np.int64], now_ns: int) -> None:
        t = self._devices
        features = self._features[: len(rows)]
        self._fill_features(rows, now_ns, features)
        serials = t.devices["serial"][rows]
        index, *others = self._channels
        verdict = index.model.judge(features)
        # A hard rule makes a step at once, of all channels: they step together.
        stepped = index.evidence.step(rows, serials, verdict, has_new_evidence(t.devices, rows), now_ns)
        t.devices["is_dirty"][rows] = 0
        if not stepped.all():
            if not stepped.any():
                return
            rows, serials, features, verdict = (
                rows[stepped],
                serials[stepped],
                features[stepped],
                verdict.of(stepped),
            )
        verdicts = [verdict]
        for channel in others:
            verdicts.append(channel.model.judge(features))
            channel.evidence.step(rows, serials, verdicts[-1], np.ones(len(rows), dtype=np.bool_), now_ns)
        note_judged(t.devices, rows, now_ns)
        if self._on_step is not None:
            self._on_step(self._steps(rows, features, now_ns))
            return
        is_start = now_ns - self.started_ns < START_NS
        self._lifecycle.take(rows, features, verdicts, now_ns, is_start=is_start)

    def _fill_features(self, rows: NDArray[np.int64], now_ns: int, out: NDArray[np.float64]) -> None:
        """Fill ``out``, f8[n, N_FEATURES], with the features of the devices in ``rows``, i8[n]."""
        look_at_kinds(self._devices, rows)
        compute_features(self._devices, rows, len(rows), now_ns, out)

    def _steps(self, rows: NDArray[np.int64], features: NDArray[np.float64], now_ns: int) -> Steps:
        t = self._devices
        return Steps([key_text(t, int(row)) for row in rows], t.devices["serial"][rows], features, now_ns)

    def _end_window(self) -> None:
        """Report the features of all devices that mailed in the window that is over."""
        t = self._devices
        clock = t.clock[0]
        n = int(clock["n_window"])
        clock["n_window"] = 0
        self._window_end_ns = NEVER_NS
        if n == 0:
            return
        rows = t.window[:n].copy()
        t.devices["in_window"][rows] = 0
        if self._on_window is None:
            return
        end_ns = int(clock["now_ns"])
        features = np.zeros((n, N_FEATURES))
        self._fill_features(rows, end_ns, features)
        roles = np.empty(n, dtype=np.int64)
        infer_roles(features, roles)
        columns: Columns = {
            "timestamp": [eve_time(end_ns)] * n,
            "device": [key_text(t, int(row)) for row in rows],
            "role": [_role_label(role) for role in roles],
            **self._against(rows, end_ns),
        }
        for feature in Feature:
            columns[FEATURES[feature].name] = features[:, feature].tolist()
        self._on_window(columns)

    def snapshot(self) -> Snapshot:
        """Return what was learned so far, but for the connections that are open: between batches."""
        arrays = save_devices(self._devices)
        arrays["watch"] = self._watch.copy()
        arrays["flow_ids"] = self._event_tables.state["next_flow_id"].copy()
        arrays["window_end_ns"] = np.array([self._window_end_ns], dtype=np.int64)
        arrays["reviewed"] = self._lifecycle.reviewed()
        for channel in self._channels:
            name = f"{EVIDENCE}{channel.name}"
            arrays[f"{name}.rows"], arrays[f"{name}.values"] = channel.evidence.save()
        return Snapshot(
            arrays=arrays,
            sizes=table_sizes(self._devices),
            meanings=MEANINGS,
            models=self._models,
            cases=self._lifecycle.open_cases(),
            now_ns=int(self._devices.clock[0]["now_ns"]),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what another run has learned, before the first packet.

        Packets before the snapshot's time count as of then. ValueError if its arrays do not fit together; then
        this pipeline is of no use.
        """
        arrays = snapshot.arrays
        load_devices(self._devices, arrays)
        self._watch[:] = arrays["watch"]
        self._event_tables.state["next_flow_id"] = arrays["flow_ids"]
        for channel in self._channels:
            name = f"{EVIDENCE}{channel.name}"
            if f"{name}.rows" in arrays:
                channel.evidence.load(arrays[f"{name}.rows"], arrays[f"{name}.values"])
        self._lifecycle.resume(snapshot.cases, arrays["reviewed"])
        self.started_ns = -START_NS
        if self._on_window is not None:
            self._window_end_ns = int(arrays["window_end_ns"][0])
        self._counted_at = None
        clock = self._devices.clock[0]
        clock["wake_ns"] = min(int(clock["wake_ns"]), self._lifecycle.next_end_ns)

    def accept(self, rules: Sequence[ExceptionRule]) -> None:
        """Take exceptions beside those of the configuration, from now on, in the place of those taken before."""
        self._accepted = tuple(rules)
        self._describe_site(self._config)
        self._lifecycle.reconfigure(self._devices, self._channels)

    def _describe_site(self, config: Config) -> None:
        """Put what a configuration says of the site into the tuple that kernels are called with."""
        site = describe_site(
            msgspec.structs.replace(config, exceptions=(*config.exceptions, *self._accepted))
        )
        self._devices = self._devices._replace(**site._asdict())

    def close_alerts(self, alert_ids: Container[str]) -> None:
        """End open alerts because the operator says so."""
        self._lifecycle.close(alert_ids, int(self._devices.clock[0]["now_ns"]))

    def device_rows(self) -> NDArray[np.int64]:
        """Return the rows of the device table that are in use, in the order in which the devices were seen first."""
        t = self._devices
        rows = np.flatnonzero(t.devices["key_kind"] != KEY_FREE)
        return rows[np.argsort(t.devices["serial"][rows], kind="stable")]

    def device_table(self, rows: NDArray[np.int64] | None = None) -> Columns:
        """Return the devices, or those in ``rows``, as columns: one row for each, in the order of device_rows."""
        t = self._devices
        if rows is None:
            rows = self.device_rows()
        features = np.zeros((len(rows), N_FEATURES))
        now_ns = int(t.clock[0]["now_ns"])
        self._fill_features(rows, now_ns, features)
        roles = np.empty(len(rows), dtype=np.int64)
        infer_roles(features, roles)
        guesses = [guess(t, int(row)) for row in rows]
        columns: Columns = {
            "device": [key_text(t, int(row)) for row in rows],
            "key_kind": [key_kind(t, int(row)) for row in rows],
            "mac": [mac_text(int(t.devices["mac"][row])) for row in rows],
            "vendor": [vendor_of(int(t.devices["mac"][row])) for row in rows],
            "hostname": [who.name for who in guesses],
            "type": [who.kind for who in guesses],
            "type_evidence": ["; ".join(who.evidence) or None for who in guesses],
            "model": [who.model for who in guesses],
            "ips": [" ".join(addresses(t, int(row))) for row in rows],
            "role": [_role_label(role) for role in roles],
            "first_seen": [eve_time(int(t.devices["first_ns"][row])) for row in rows],
            "last_seen": [eve_time(int(t.devices["last_ns"][row])) for row in rows],
            **self._against(rows, now_ns),
        }
        for name, what in _DEVICE_TOTALS.items():
            columns[name] = [total(t, int(row), *what) for row in rows]
        columns["destinations_24h"] = [round(float(value)) for value in features[:, Feature.DESTINATIONS_24H]]
        operators = features[:, Feature.OPERATORS25_24H] + features[:, Feature.SUBMISSION_OPERATORS_24H]
        columns["operators_24h"] = [round(float(value)) for value in operators]
        return columns

    def _against(self, rows: NDArray[np.int64], now_ns: int) -> Columns:
        """Return the evidence against the devices in ``rows``, i8[n], of the channel that comes nearest to accusing."""
        is_start = now_ns - self.started_ns < START_NS
        thresholds = np.array([channel.accuses_at(is_start=is_start) for channel in self._channels])
        evidence = np.stack([channel.evidence.evidence[rows] for channel in self._channels])
        nearest = (evidence / thresholds[:, None]).argmax(axis=0)
        return {
            "evidence": np.round(evidence[nearest, np.arange(len(rows))], 4).tolist(),
            "threshold": np.round(thresholds[nearest], 4).tolist(),
        }

    def take_peaks(self, rows: NDArray[np.int64]) -> Peaks:
        """Return the most evidence against the devices in ``rows`` since they were asked for last.

        It tells something of a week if there is a trained model, which alone has thresholds that a site may calibrate,
        and not while watching has just begun, since other thresholds hold then.
        """
        t = self._devices
        serials = t.devices["serial"][rows]
        index, *trained = (channel.evidence.take_peaks(rows, serials) for channel in self._channels)
        now_ns = int(t.clock[0]["now_ns"])
        of_model = trained[0] if trained else np.zeros(len(rows))
        is_telling = bool(trained) and now_ns - self.started_ns >= START_NS
        features = np.zeros((len(rows), N_FEATURES))
        self._fill_features(rows, now_ns, features)
        return Peaks(
            now_ns=now_ns,
            model_id=self._models[self._channels[-1].name] if is_telling else None,
            devices=[key_text(t, int(row)) for row in rows],
            of_index=index.tolist(),
            of_model=of_model.tolist(),
            features=[
                of.tobytes() if is_suspect else None
                for of, is_suspect in zip(features, np.maximum(index, of_model) > 0, strict=True)
            ],
            schema=schema_digest(),
        )

    def _count_devices(self) -> int:
        """Return how many rows of the device table are in use; it is looked through only where that may have changed.

        A new device takes the next serial, and rows are freed where a MAC address turns out to be a router's, or one
        more of a device that is known.
        """
        t = self._devices
        freed = int(t.routers["is_sure"].sum()) + int(np.count_nonzero(t.aliases["mac"]))
        state = int(t.clock[0]["next_serial"]), freed
        if state != self._counted_at:
            self._n_devices = int(np.count_nonzero(t.devices["key_kind"] != KEY_FREE))
            self._counted_at = state
        return self._n_devices

    def _table_use(self, n_devices: int) -> dict[str, dict[str, int]]:
        """Return how many rows of each table are in use: of those that are cheap to count."""
        tables, state = self._event_tables, self._event_tables.state[0]
        uses = {
            "flows": (int((tables.deadline_ns != NO_DEADLINE).sum()), len(tables.flows)),
            "devices": (n_devices, len(self._devices.devices)),
            "line_buffers": (len(tables.line_stack) - int(state["line_free"]), len(tables.line_stack)),
            "held_segments": (len(tables.held_stack) - int(state["held_free"]), len(tables.held_stack)),
        }
        return {name: {"used": used, "rows": rows} for name, (used, rows) in uses.items()}

    def stats(self) -> dict[str, Any]:
        """Return the totals of the run so far; fast enough to be called each second."""
        tables, t = self._event_tables, self._devices
        has_packets = self._last_ns >= 0 or self._first_ns < NEVER_NS
        evictions = tables.evictions + t.evictions
        n_devices = self._count_devices()
        return {
            "packets": int(self._frame_counts.sum()),
            "bytes": self._n_bytes,
            "first_ts": eve_time(self._first_ns) if has_packets else None,
            "last_ts": eve_time(self._last_ns) if has_packets else None,
            "smtp_flows": int(tables.totals[Total.SMTP_FLOWS]),
            "smtp_commands": int(tables.totals[Total.SMTP_COMMANDS]),
            "smtp_replies": int(tables.totals[Total.SMTP_REPLIES]),
            "mail_syns": int(tables.totals[Total.MAIL_SYNS]),
            "dns_queries": int(tables.totals[Total.DNS_QUERIES]),
            "dns_responses": int(tables.totals[Total.DNS_RESPONSES]),
            "mx_queries": int(tables.totals[Total.MX_QUERIES]),
            "devices": n_devices,
            "alerts": self._lifecycle.n_alerts,
            "reviews": self._lifecycle.n_reviews,
            "excepted_connections": int(t.clock[0]["excepted"]),
            "outside_connections": int(t.clock[0]["called"]),
            "outside_answers": int(t.clock[0]["answered"]),
            "elsewhere_connections": int(t.clock[0]["elsewhere"]),
            "elsewhere_sender": _stranger(t),
            "model": self._lifecycle.model,
            "open_alerts": self._lifecycle.open_by_severity(),
            "tables": self._table_use(n_devices),
            "frames": {status.name.lower(): int(self._frame_counts[status]) for status in FrameStatus},
            "peeled": {
                layer.name.lower(): int(self._peeled[layer]) for layer in Layer if self._peeled[layer]
            },
            "weirds": {
                weird.name.lower(): int(tables.weirds[weird]) for weird in Weird if tables.weirds[weird]
            },
            "evictions": {kind.name.lower(): int(evictions[kind]) for kind in Eviction},
        }


_DEVICE_TOTALS: dict[str, tuple[Count, ...]] = {
    "smtp25_connections": (Count.SMTP25,),
    "submission_connections": (Count.SUBMISSION,),
    "local_connections": (Count.LOCAL,),
    "inbound_connections": (Count.INBOUND, Count.INBOUND_LOCAL),
    "messages_attempted": (Count.MESSAGES, Count.INFERRED),
    "messages_accepted": (Count.ACCEPTED,),
    "recipients": (Count.RECIPIENTS,),
    "rejected_4xx": (Count.REJECTED_4XX,),
    "rejected_5xx": (Count.REJECTED_5XX,),
    "auth_failures": (Count.AUTH_FAILED,),
    "blocklisted_replies": (Count.BLOCKLISTED,),
    "mx_queries": (Count.MX,),
    "dns_queries": (Count.DNS,),
}


def _stranger(t: DeviceTables) -> str | None:
    """Return who makes most of the mail connections that have no end at home, None if nobody stands out."""
    clock = t.clock[0]
    if clock["stranger_lead"] == 0:
        return None
    return address_text(int(clock["stranger_hi"]), int(clock["stranger_lo"]))


def _role_label(role: Any) -> str:
    return Role(int(role)).label


def _open_channels(config: Config, artifact: Artifact | None) -> tuple[Channel, ...]:
    """Return the index and the rules, and the trained model if there is one."""
    n, budget = config.tables.devices, config.budget.false_alarms_per_device_year
    if artifact is None:
        factory = alarm_threshold(budget)
        return (Channel("index", MonotoneIndex(), EvidenceTable(n), factory, factory),)
    (of_index, of_model), (start_index, start_model) = (
        artifact.thresholds(budget),
        artifact.start_thresholds(budget),
    )
    index = Channel("index", MonotoneIndex(), EvidenceTable(n), of_index, start_index)
    return index, Channel("model", artifact.model, EvidenceTable(n), of_model, start_model)


def _model_ids(channels: Sequence[Channel], artifact: Artifact | None) -> dict[str, str]:
    """Tell by channel whose evidence it has."""
    ids = {channel.name: channel.model.name for channel in channels}
    if artifact is not None:
        ids[channels[-1].name] = model_id(artifact)
    return ids


def model_id(artifact: Artifact) -> str:
    """Return what tells a model's evidence from others': fitted anew under its old name it is another one."""
    return f"{artifact.manifest.name} {artifact.manifest.arrays_sha256}"


def _event_tables(config: Config) -> EventTables:
    return new_event_tables(
        config.tables.flows,
        config.tables.line_buffers,
        config.tables.held_segments,
        config.timeouts.attempt_s,
        config.timeouts.idle_s,
    )


def _device_tables(config: Config) -> DeviceTables:
    return new_device_tables(config.tables.devices, config.tables.dns_answers, describe_site(config))


def kept_ports(config: Config) -> KeptPorts:
    """Return the ports of mail, DNS, identity and tunnels: what capture keeps where there is no room for all."""
    classes = port_classes(config.mail_ports)
    tcp = np.isin(classes, (PortClass.MAIL, PortClass.DNS))
    udp = np.isin(classes, (PortClass.DNS, PortClass.LAN, PortClass.TUNNEL))
    return KeptPorts(*(frozenset(np.flatnonzero(kept).tolist()) for kept in (tcp, udp)))


def warm_up(config: Config, artifact: Artifact | None = None) -> None:
    """Run every kernel once, so that none is compiled or loaded while packets wait."""
    pipeline = Pipeline(config, on_alert=lambda _: None, artifact=artifact)
    frames = np.zeros(1, dtype=FRAME_DTYPE)
    frames["link_type"] = LinkType.ETHERNET
    pipeline.feed(FrameBatch(np.zeros(1, dtype=np.uint8), frames))
    nothing = np.zeros(0, dtype=np.int64)
    pipeline.advance(1)
    pipeline.observe(np.zeros(1, dtype=EVENT_DTYPE), np.zeros(1, dtype=np.uint8))
    pipeline._judge_rows(nothing, 0)
    for channel in pipeline._channels:
        channel.model.explain(np.zeros(N_FEATURES))
    pipeline.finish()
    pipeline.device_table()


def memory_plan(config: Config) -> dict[str, int]:
    """Return the most that each group of tables can take, in bytes; memory is touched, and so used, row by row."""
    events, devices, columns = _event_tables(config), _device_tables(config), new_event_columns()
    answers = devices.answers.nbytes + devices.answer_names.nbytes
    return {
        "flows": _nbytes(events) - events.lines.nbytes - events.held_bytes.nbytes,
        "line_buffers": events.lines.nbytes,
        "held_segments": events.held_bytes.nbytes,
        "devices": _nbytes(devices) - answers,
        "dns_answers": answers,
        "event_columns": _nbytes(columns),
    }


def _nbytes(tables: EventTables | DeviceTables | EventColumns) -> int:
    return sum(array.nbytes for array in arrays_of(tables))
