"""What features mean: all events of a device kept in lists, each feature computed from its definition.

Slow, unbounded, and without a table: the specification of sensor/devices/features.py. It follows one
device: every event row that is handed to it is that device's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network
from itertools import pairwise
from typing import Any

from publicsuffixlist import PublicSuffixList

from sensor.decode.status import FrameStatus
from sensor.decode.watch import WATCH_NS
from sensor.devices.features import Feature
from sensor.events.types import EventFlag, EventKind, Fate, QType, Verb

S = 10**9
MINUTE, HOUR, DAY = 60 * S, 3600 * S, 86400 * S
SLOT, RECENT_SLOT = 2 * HOUR, 300 * S
HOME = [ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")]
NAN = math.nan
SUFFIXES = PublicSuffixList()
REFUSING_VERBS = (Verb.MAIL, Verb.DATA, Verb.BDAT)


def address_of(event: Any, end: str) -> Any:
    hi, lo = int(event[f"{end}_hi"]), int(event[f"{end}_lo"])
    address = IPv6Address((hi % (1 << 64)) << 64 | lo % (1 << 64))
    return address.ipv4_mapped or address


def is_home(address: Any) -> bool:
    return any(address.version == net.version and address in net for net in HOME)


def share(part: float, whole: float, shrink: float) -> float:
    return part / (whole + shrink) if whole else NAN


def moving_average(values: list[float], weight: float = 0.2) -> float:
    average = values[0] if values else NAN
    for value in values[1:]:
        average += weight * (value - average)
    return average


@dataclass
class Connection:
    ts: int
    destination: tuple[Any, int]
    operator: Any


@dataclass
class Peer:
    """What a device exchanges with an outside address beside mail, since it is remembered."""

    first_slot: int
    last: int
    bytes: dict[int, list[int]] = field(default_factory=dict)  # slot -> bytes received, sent


@dataclass
class ReferenceDevice:
    """One device's whole history."""

    first: int = -1
    now: int = -1
    connections: list[Connection] = field(default_factory=list)
    things: list[tuple[int, str]] = field(default_factory=list)  # (time, what)
    told: dict[Any, tuple[int, str]] = field(default_factory=dict)  # address -> (until when, name)
    auth_failures: list[tuple[int, Any]] = field(default_factory=list)  # (time, operator)
    deferred: dict[Any, int] = field(default_factory=dict)
    retried: int = 0
    not_retried: int = 0
    names: set[bytes] = field(default_factory=set)
    sizes: list[int] = field(default_factory=list)
    dialects: set[int] = field(default_factory=set)
    servers: dict[tuple[Any, int], int] = field(
        default_factory=dict
    )  # -> the thirty days in which it was met last
    mail_bytes: dict[int, list[int]] = field(default_factory=dict)  # slot -> bytes sent, received
    peers: dict[Any, Peer] = field(default_factory=dict)
    called: int = -(1 << 62)
    syns: dict[str, list[int]] = field(default_factory=lambda: {"mail": [], "other": []})

    def take(self, event: Any, text: bytes) -> None:
        """Take one row of EVENT_DTYPE and its text."""
        self.now = ts = max(self.now, int(event["ts_ns"]))
        kind, code = EventKind(int(event["kind"])), int(event["code"])
        if self.first < 0 and kind in (EventKind.TRANSFER, EventKind.PEER_CALL):
            return  # nobody becomes a device by these
        self.first = ts if self.first < 0 else self.first
        orig, resp = address_of(event, "orig"), address_of(event, "resp")
        if kind is EventKind.DNS_QUERY:
            self._note(ts, "dns")
            self._note(ts, "dns outside", not is_home(resp))
            self._note(ts, "dnsbl", bool(event["flags"] & EventFlag.DNSBL))
            self._note(ts, "mx", code == QType.MX)
        elif kind is EventKind.DNS_RESPONSE:
            self._note(ts, "dns answered", not event["flags"] & EventFlag.GAP)
        elif kind is EventKind.DNS_ANSWER:
            self.told[address_of(event, "aux")] = (ts + (int(event["ttl_s"]) + 3600) * S, text.decode())
        elif kind is EventKind.PEER_CALL or (kind is EventKind.TRANSFER and code == FrameStatus.PEER):
            self._meet(ts, event, kind, orig, resp)
        elif is_home(resp):
            self._serve(ts, kind, event, "inbound local" if is_home(orig) else "inbound")
        elif kind is EventKind.CONN_OPEN:
            self._connect(ts, resp, int(event["resp_port"]))
            self._note_syn("mail", event)
        elif kind is EventKind.TRANSFER and self.connections:
            counted = self.mail_bytes.setdefault(int(event["aux_lo"]), [0, 0])
            counted[0] += int(event["orig_bytes"])
            counted[1] += int(event["resp_bytes"])
        elif kind is EventKind.CONN_CLOSE:
            self._close(ts, event)
        elif kind is EventKind.SMTP_REPLY:
            self._reply(ts, event, resp)
        elif kind is EventKind.SMTP_COMMAND:
            self._note(ts, "message", code == Verb.MAIL)
            if code in (Verb.HELO, Verb.EHLO, Verb.LHLO) and text:
                self.names.add(text)
        elif kind is EventKind.SMTP_MESSAGE:
            self._note(ts, "accepted", 200 <= code < 300)
            self._note(ts, "unseen", code == 0)
            self.sizes += [int(event["orig_bytes"])] * bool(event["orig_bytes"])

    def _note(self, ts: int, what: str, n: int = 1) -> None:
        self.things += [(ts, what)] * int(n)

    def _serve(self, ts: int, kind: EventKind, event: Any, what: str) -> None:
        code = int(event["code"])
        self._note(ts, what, kind is EventKind.CONN_OPEN)
        self._note(ts, "served", kind is EventKind.SMTP_MESSAGE and 200 <= code < 300)
        if kind is EventKind.CONN_CLOSE and code == Fate.TLS:
            self._note(ts, "served", event["count"])

    def _note_syn(self, of: str, event: Any) -> None:
        if event["aux_lo"] and event["aux_lo"] not in self.syns[of]:
            self.syns[of].append(int(event["aux_lo"]))

    def _meet(self, ts: int, event: Any, kind: EventKind, orig: Any, resp: Any) -> None:
        """Something else than mail, once the device has mailed; not within the site."""
        if not self.connections or is_home(orig) == is_home(resp):
            return
        if kind is EventKind.PEER_CALL and is_home(orig):
            self._note_syn("other", event)
        elif kind is EventKind.PEER_CALL:
            self.called = ts
        else:
            sent, received = int(event["orig_bytes"]), int(event["resp_bytes"])
            other = resp
            if is_home(resp):
                sent, received, other = received, sent, orig
            peer = self.peers.setdefault(other, Peer(int(event["aux_lo"]), ts))
            peer.last = ts
            counted = peer.bytes.setdefault(int(event["aux_lo"]), [0, 0])
            counted[0] += received
            counted[1] += sent

    def _relay_symmetry(self, now: int) -> float:
        """Per peer and direction: what agrees with the mail in its slots, over what either side carried."""
        found = []
        for peer in self.peers.values():
            if now - peer.last > DAY:
                continue
            slots = [s for s, mail in self.mail_bytes.items() if s >= peer.first_slot and any(mail)]
            shares = []
            for way in (0, 1):
                pairs = [(self.mail_bytes[s][way], peer.bytes.get(s, [0, 0])[way]) for s in slots]
                shares.append(sum(map(min, pairs)) / max(sum(map(max, pairs)), 1))
            found.append(min(shares) * len(slots) / (len(slots) + 2))
        return max(found, default=NAN)

    def _foreign_syn(self) -> float:
        """Whether a fingerprint of mail is none of the others', of those of the same version of IP (the last bit)."""
        if len(self.syns["other"]) >= 4:
            return NAN
        versions = {fingerprint & 1 for fingerprint in self.syns["other"]}
        told = [f not in self.syns["other"] for f in self.syns["mail"][:4] if f & 1 in versions]
        return float(any(told)) if told else NAN

    def _connect(self, ts: int, resp: Any, port: int) -> None:
        self._note(ts, "smtp25" if port == 25 else "submission")
        days = sorted({c.ts // DAY for c in self.connections} - {ts // DAY})
        if len(days) >= 3:
            hours = {c.ts % DAY // HOUR for c in self.connections if c.ts // DAY in days}
            self._note(ts, "timed")
            self._note(ts, "odd hour", ts % DAY // HOUR not in hours)
        if self.connections and ts - self.connections[-1].ts < WATCH_NS:
            self._note(ts, "callable")
            self._note(ts, "called", ts - self.called <= 2 * S)
        era = ts // (30 * DAY)
        is_new = era - self.servers.get((resp, port), -2) > 1
        self._note(ts, "new 25" if port == 25 else "new submission", is_new)
        self.servers[resp, port] = era
        is_known = self._is_known(ts, resp)
        asked, answered = (sum(1 for _, what in self.things if what == w) for w in ("dns", "dns answered"))
        if answered > 0 and answered >= 0.8 * asked:
            self._note(ts, "resolvable")
            self._note(ts, "unresolved", not is_known)
        self.connections.append(Connection(ts, (resp, port), self._operator(ts, resp)))
        for address, since in list(self.deferred.items()):
            if address == resp and ts - since > 30 * S:
                self.retried += 1
                del self.deferred[address]
            elif ts - since > HOUR:
                self.not_retried += 1
                del self.deferred[address]

    def _is_known(self, ts: int, address: Any) -> bool:
        return address in self.told and self.told[address][0] >= ts

    def _operator(self, ts: int, address: Any) -> Any:
        """Whose server it is: by the name under which the device knows it, else by its network."""
        if self._is_known(ts, address):
            return organisation(self.told[address][1])
        return ip_network((int(address), 24 if address.version == 4 else 48), strict=False)

    def _close(self, ts: int, event: Any) -> None:
        fate, is_tls = Fate(int(event["code"])), bool(event["flags"] & EventFlag.TLS)
        self._note(ts, "closed")
        self.dialects |= {int(event["aux_lo"])} - {0}
        self._note(ts, "no answer", fate in (Fate.UNANSWERED, Fate.REFUSED))
        self._note(ts, "tls", is_tls)
        self._note(ts, "clear", not is_tls and bool(event["orig_bytes"] or event["resp_bytes"]))
        if is_tls and fate is Fate.TLS:
            self.sizes += [int(event["orig_bytes"])] * bool(event["count"])
            self._note(ts, "inferred", int(event["count"]))
            is_idle = bool(event["flags"] & EventFlag.TLS_IDLE) and event["count"] == 0
            self._note(ts, "idle", is_idle)
            is_empty = event["count"] == 0 and not event["flags"] & EventFlag.NO_ORIG
            self._note(ts, "tls empty", is_empty and not is_idle)
        self._note(ts, "unseen", int(event["enhanced"]))
        is_whole = not event["flags"] & (
            EventFlag.NO_RESP | EventFlag.NO_ORIG | EventFlag.GAP | EventFlag.MIDSTREAM
        )
        self._note(ts, "idle", is_whole and fate in (Fate.NO_BANNER, Fate.BANNER_ONLY, Fate.NO_MESSAGE))

    def _reply(self, ts: int, event: Any, resp: Any) -> None:
        code, verb = int(event["code"]), int(event["verb"])
        self._note(ts, "blocklisted", bool(event["flags"] & EventFlag.BLOCKLISTED))
        if verb == Verb.AUTH and code in (535, 454, 534, 538):
            self._note(ts, "auth failed")
            self.auth_failures.append((ts, self._operator(ts, resp)))
        self._note(ts, "answered")
        self._note(ts, "not idle", code >= 400 or (verb == Verb.AUTH and code == 235))
        if verb != Verb.NONE:
            decides = verb == Verb.RCPT or (code >= 400 and verb in REFUSING_VERBS)
        elif event["count"] == 1 and not event["flags"] & (EventFlag.GAP | EventFlag.MIDSTREAM):
            decides = code >= 400
        else:
            decides = event["enhanced"] == 2_001_005 or (code >= 400 and event["enhanced"] > 0)
        if decides:
            self._note(ts, "reply")
            self._note(ts, "5xx", code >= 500)
            self._note(ts, "4xx", 400 <= code < 500)
            if 400 <= code < 500:
                self.deferred.setdefault(resp, ts)

    def _last_day(self, destination: tuple[Any, int]) -> int:
        """The day of the latest connection to a server."""
        return max(c.ts // DAY for c in self.connections if c.destination == destination)

    # --- features ---

    def _in_slots(self, what: str, now: int, slot: int) -> int:
        """How often something happened in the current slot and the eleven before it."""
        return sum(1 for ts, w in self.things if w == what and ts // slot > now // slot - 12)

    def features(self, now: int) -> dict[Feature, float]:
        """Every feature at a time that no event is later than."""

        def day(what: str) -> int:
            return self._in_slots(what, now, SLOT)

        def hour(what: str) -> int:
            return self._in_slots(what, now, RECENT_SLOT)

        recent = [c for c in self.connections if now - c.ts <= DAY]
        servers = {c.destination for c in recent}
        # Servers met within 24 hours, by their connections on the last day of these and on the one before.
        counts = [
            sum(1 for c in self.connections if c.destination == s and self._last_day(s) - c.ts // DAY <= 1)
            for s in servers
        ]
        failing = {operator for ts, operator in self.auth_failures if now - ts <= DAY}
        operators25 = {c.operator for c in recent if c.destination[1] == 25}
        submission_operators = {c.operator for c in recent if c.destination[1] != 25}
        outbound = day("smtp25") + day("submission")
        refused = share(day("5xx"), day("reply"), 3)
        usual_day, usual_reject = self._usual(now)
        can_read = bool(day("answered") or day("message") or self.names)
        has_dns = any(what == "dns" for _, what in self.things)

        idle = max(day("idle") - day("not idle"), 0)

        def if_read(value: float) -> float:
            return value if can_read else NAN

        def if_dns(value: float) -> float:
            return value if has_dns else NAN

        mail_days = {c.ts // DAY for c in self.connections}
        return {
            Feature.SMTP25_1H: hour("smtp25"),
            Feature.SMTP25_24H: day("smtp25"),
            Feature.SUBMISSION_1H: hour("submission"),
            Feature.SUBMISSION_24H: day("submission"),
            Feature.BURST: sum(math.exp((c.ts - now) / (15 * S)) for c in self.connections),
            Feature.BURST_LASTED: self._burst_lasted(now),
            Feature.DESTINATIONS_24H: len(servers),
            Feature.DESTINATIONS_1M: len({c.destination for c in recent if now - c.ts <= MINUTE}),
            Feature.SUBMISSION_OPERATORS_24H: len(submission_operators),
            Feature.OPERATORS25_24H: len(operators25),
            Feature.ONE_DESTINATION_SHARE: share(max(counts, default=0), sum(counts), 0),
            Feature.UNRESOLVED_SHARE: share(day("unresolved"), day("resolvable"), 2),
            Feature.REJECT_SHARE: refused,
            Feature.NO_RETRY_SHARE: share(self.not_retried, self.retried + self.not_retried, 3),
            Feature.BLOCKLISTED_24H: if_read(day("blocklisted")),
            Feature.NO_ANSWER_SHARE: share(day("no answer"), max(outbound, day("closed")), 2),
            Feature.MX_1H: if_dns(hour("mx")),
            Feature.MX_24H: if_dns(day("mx")),
            Feature.DNSBL_24H: if_dns(day("dnsbl")),
            Feature.DNS_OUTSIDE_SHARE: share(day("dns outside"), day("dns"), 5),
            Feature.AUTH_FAILED_24H: if_read(day("auth failed")),
            Feature.AUTH_FAILED_OPERATORS: if_read(len(failing)),
            Feature.ACCEPTED_SHARE: share(
                day("accepted") + 0.8 * day("inferred"),
                max(
                    max(day("message") - day("unseen"), 0) + day("inferred") + day("tls empty") - day("4xx"),
                    day("accepted") + day("inferred"),
                )
                + self.not_retried,
                3,
            ),
            Feature.TLS_EMPTY_SHARE: share(day("tls empty"), day("tls"), 3),
            Feature.HELO_NAMES: if_read(min(len(self.names), 4)),
            Feature.HELO_ODD: if_read(
                float(any(name.startswith(b"[") or b"." not in name for name in self.names))
            ),
            Feature.INBOUND_24H: day("inbound"),
            Feature.INBOUND_MESSAGES: day("served"),
            Feature.INBOUND_LOCAL_24H: day("inbound local"),
            Feature.SILENT_DAYS: (self.connections[0].ts - self.first) / DAY if self.connections else NAN,
            Feature.ACTIVE_DAYS_14: sum(1 for d in mail_days if now // DAY - d < 14),
            Feature.VERSUS_USUAL: (outbound + 10) / (usual_day + 10),
            Feature.REJECT_VERSUS_USUAL: refused - usual_reject,
            Feature.KNOWN_SERVER: 0,
            Feature.APPLIANCE: 0,
            Feature.MESSAGES_24H: if_read(day("message") + day("inferred")),
            Feature.RELAY_SYMMETRY: self._relay_symmetry(now),
            Feature.CALLED_SHARE: share(day("called"), day("callable"), 2),
            Feature.FOREIGN_SYN: self._foreign_syn(),
            Feature.SIZE_MEAN: mean(self.sizes[-16:]),
            Feature.SIZE_SPREAD: deviation(self.sizes[-16:]) / mean(self.sizes[-16:]),
            Feature.SAME_SIZE_SHARE: self._same_size_share(),
            Feature.PAUSE_SPREAD: deviation(self._log_pauses()[-16:]),
            Feature.ODD_HOUR_SHARE: share(day("odd hour"), day("timed"), 2),
            Feature.TLS_SHARE: share(day("tls"), day("tls") + day("clear"), 2),
            Feature.DIALECTS: if_read(min(len(self.dialects), 4)),
            Feature.NEW_25_SHARE: share(day("new 25"), day("smtp25"), 2),
            Feature.NEW_SUBMISSION_SHARE: share(day("new submission"), day("submission"), 2),
            Feature.IDLE_SHARE: share(idle, day("closed"), 2)
            if idle
            else if_read(share(0, day("closed"), 2)),
            Feature.HELO_CLASSES: if_read(len({form_of(name) for name in self.names})),
        }

    def _burst_lasted(self, now: int) -> float:
        """How long ago the fading number of connections was below one last."""
        left, since, before = 0.0, 0, 0
        for c in self.connections:
            left *= math.exp((before - c.ts) / (15 * S))
            since = c.ts if left < 1 else since
            left, before = left + 1, c.ts
        return (now - since) / S if left * math.exp((before - now) / (15 * S)) >= 1 else 0.0

    def _same_size_share(self) -> float:
        last = [size // 32 for size in self.sizes[-16:]]
        return (max(map(last.count, last)) - 1) / (len(last) - 1 + 2) if len(last) > 1 else NAN

    def _log_pauses(self) -> list[float]:
        pauses = [(b.ts - a.ts) // 1_000_000 for a, b in pairwise(self.connections)]
        return [math.log(1 + min(pause, 2**31 - 1)) for pause in pauses]

    def _usual(self, now: int) -> tuple[float, float]:
        """What a day with mail is like: connections, share of refusals; NaN before the third one is over."""
        starts = sorted({c.ts // DAY for c in self.connections} - {now // DAY})
        if len(starts) < 3:
            return NAN, NAN
        # Replies on a day without connections go with those of the next day that has some.
        sizes, shares = [], []
        for before, day in pairwise([-1, *starts]):
            sizes.append(float(sum(1 for c in self.connections if c.ts // DAY == day)))
            kinds = [what for ts, what in self.things if before < ts // DAY <= day]
            if "reply" in kinds:
                shares.append(kinds.count("5xx") / kinds.count("reply"))
        return moving_average(sizes), moving_average(shares)


def organisation(name: str) -> str:
    """The registrable domain; a public suffix itself stays whole."""
    return SUFFIXES.privatesuffix(name) or name


def form_of(name: bytes) -> str:
    return "literal" if name.startswith(b"[") else "domain" if b"." in name else "bare"


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else NAN


def deviation(values: list[float]) -> float:
    """The standard deviation of a population, known from two on."""
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values])) if len(values) > 1 else NAN
