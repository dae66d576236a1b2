"""The features of a device: what the model sees of it, and nothing else.

docs/detection.md lists them. Unknown is NaN, never zero: a site whose DNS does not pass the mirror, a dialogue
under TLS, a device without a past. A share of few things is shrunk towards zero, n / (n + k), so that one
refusal of one mail is no "100 %".
"""

from __future__ import annotations

import hashlib
import math
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor.devices.activity import BURST_S, USUAL_DAYS, HeloKind, advance_slots
from sensor.devices.relay import relay_symmetry
from sensor.devices.table import (
    DAY_NS,
    HLL_REGISTERS,
    N_COUNTS,
    N_DESTINATIONS,
    N_DIALECTS,
    N_FINGERPRINTS,
    N_HELO,
    N_OPERATORS,
    N_PAUSES,
    N_RECENT,
    N_SIZES,
    RECENT_SLOTS,
    SECOND_NS,
    SLOTS,
    Count,
    DeviceTables,
    Recent,
)
from sensor.jit import i64, inner, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Needs(IntEnum):
    """What must be visible for a feature to be known."""

    FLOWS = 0
    CLEARTEXT = 1
    DNS = 2
    PAST = 3
    PEERS = 4


class FeatureInfo(NamedTuple):
    """What a feature is. ``direction``: +1 more is more suspicious, -1 less, 0 neither."""

    name: str
    unit: str
    needs: Needs
    direction: int
    meaning: str


class Feature(IntEnum):
    """Columns of the feature matrix."""

    SMTP25_1H = 0
    SMTP25_24H = 1
    SUBMISSION_1H = 2
    SUBMISSION_24H = 3
    BURST = 4
    DESTINATIONS_24H = 5
    DESTINATIONS_1M = 6
    SUBMISSION_OPERATORS_24H = 7
    OPERATORS25_24H = 8
    ONE_DESTINATION_SHARE = 9
    UNRESOLVED_SHARE = 10
    REJECT_SHARE = 11
    NO_RETRY_SHARE = 12
    BLOCKLISTED_24H = 13
    NO_ANSWER_SHARE = 14
    MX_1H = 15
    MX_24H = 16
    DNSBL_24H = 17
    DNS_OUTSIDE_SHARE = 18
    AUTH_FAILED_24H = 19
    AUTH_FAILED_OPERATORS = 20
    ACCEPTED_SHARE = 21
    TLS_EMPTY_SHARE = 22
    HELO_NAMES = 23
    HELO_ODD = 24
    INBOUND_24H = 25
    INBOUND_MESSAGES = 26
    INBOUND_LOCAL_24H = 27
    SILENT_DAYS = 28
    ACTIVE_DAYS_14 = 29
    VERSUS_USUAL = 30
    REJECT_VERSUS_USUAL = 31
    KNOWN_SERVER = 32
    MESSAGES_24H = 33
    RELAY_SYMMETRY = 34
    CALLED_SHARE = 35
    FOREIGN_SYN = 36
    SIZE_MEAN = 37
    SIZE_SPREAD = 38
    SAME_SIZE_SHARE = 39
    PAUSE_SPREAD = 40
    ODD_HOUR_SHARE = 41
    TLS_SHARE = 42
    HELO_CLASSES = 43
    DIALECTS = 44
    NEW_25_SHARE = 45
    NEW_SUBMISSION_SHARE = 46
    IDLE_SHARE = 47
    BURST_LASTED = 48
    APPLIANCE = 49


N_FEATURES = len(Feature)

FEATURES: tuple[FeatureInfo, ...] = (
    FeatureInfo(
        "smtp25_conn_1h", "connections/h", Needs.FLOWS, +1, "connections to port 25 outside, last hour"
    ),
    FeatureInfo(
        "smtp25_conn_24h", "connections/day", Needs.FLOWS, +1, "connections to port 25 outside, last day"
    ),
    FeatureInfo(
        "submission_conn_1h", "connections/h", Needs.FLOWS, +1, "connections to submission ports, last hour"
    ),
    FeatureInfo(
        "submission_conn_24h", "connections/day", Needs.FLOWS, +1, "connections to submission ports, last day"
    ),
    FeatureInfo("conn_burst", "connections", Needs.FLOWS, +1, "mail connections, fading over 15 s"),
    FeatureInfo("dst_distinct_24h", "servers", Needs.FLOWS, +1, "mail servers contacted, last day"),
    FeatureInfo("dst_distinct_1m", "servers", Needs.FLOWS, +1, "mail servers contacted, last minute"),
    FeatureInfo(
        "submission_operators_distinct_24h",
        "operators",
        Needs.FLOWS,
        +1,
        "mail operators contacted on submission ports, last day",
    ),
    FeatureInfo(
        "operators25_distinct_24h",
        "operators",
        Needs.FLOWS,
        +1,
        "mail operators contacted on port 25, last day",
    ),
    FeatureInfo("one_dst_share_24h", "share", Needs.FLOWS, -1, "share of the busiest mail server"),
    FeatureInfo(
        "nodns_share_24h", "share", Needs.DNS, +1, "connections to addresses that the device never looked up"
    ),
    FeatureInfo("reject_share_24h", "share", Needs.CLEARTEXT, +1, "replies that refuse for good (5yz)"),
    FeatureInfo(
        "tempfail_noretry_share", "share", Needs.CLEARTEXT, +1, "deferred mail that was never tried again"
    ),
    FeatureInfo("blocklisted_24h", "replies", Needs.CLEARTEXT, +1, "replies that name a block list"),
    FeatureInfo("noanswer_share_24h", "share", Needs.FLOWS, +1, "attempts without an answer, or refused"),
    FeatureInfo("mx_query_1h", "queries/h", Needs.DNS, +1, "look-ups of mail exchanges, last hour"),
    FeatureInfo("mx_query_24h", "queries/day", Needs.DNS, +1, "look-ups of mail exchanges, last day"),
    FeatureInfo("dnsbl_query_24h", "queries/day", Needs.DNS, +1, "look-ups in DNS block lists"),
    FeatureInfo("ext_resolver_share", "share", Needs.DNS, +1, "queries past the site's resolvers"),
    FeatureInfo("auth_failed_24h", "logins/day", Needs.CLEARTEXT, +1, "failed logins"),
    FeatureInfo(
        "auth_failed_operators", "operators", Needs.CLEARTEXT, +1, "mail operators at which logins failed"
    ),
    FeatureInfo(
        "accepted_share_24h", "share", Needs.FLOWS, -1, "messages that were accepted, or seem so under TLS"
    ),
    FeatureInfo(
        "tls_empty_share_24h", "share", Needs.FLOWS, +1, "encrypted connections too small for a message"
    ),
    FeatureInfo("helo_distinct", "names", Needs.CLEARTEXT, +1, "names that the device gives itself"),
    FeatureInfo(
        "helo_odd", "yes/no", Needs.CLEARTEXT, +1, "greets as an address or a word, not as a host name"
    ),
    FeatureInfo("inbound25_24h", "connections/day", Needs.FLOWS, -1, "mail connections from outside"),
    FeatureInfo(
        "inbound_messages", "messages/day", Needs.FLOWS, -1, "messages that the device accepted as a server"
    ),
    FeatureInfo("inbound_local_24h", "connections/day", Needs.FLOWS, -1, "mail connections from inside"),
    FeatureInfo("silent_days", "days", Needs.PAST, +1, "days watched before its first mail"),
    FeatureInfo("active_days_14", "days", Needs.PAST, -1, "days with mail, of the last 14"),
    FeatureInfo(
        "conn_vs_usual", "times", Needs.PAST, +1, "connections of the last day over those of a usual day"
    ),
    FeatureInfo("reject_vs_usual", "share", Needs.PAST, +1, "refusals above the usual share"),
    FeatureInfo("known_server", "yes/no", Needs.FLOWS, 0, "configured as a mail server"),
    FeatureInfo("messages_24h", "messages/day", Needs.CLEARTEXT, +1, "messages attempted"),
    FeatureInfo(
        "relay_symmetry",
        "share",
        Needs.PEERS,
        +1,
        "how closely its mail follows, both ways, the bytes of one other peer",
    ),
    FeatureInfo(
        "called_share_24h",
        "share",
        Needs.PEERS,
        +1,
        "mail connections within 2 s of somebody outside speaking to it, unasked",
    ),
    FeatureInfo(
        "synfp_vs_device", "yes/no", Needs.PEERS, +1, "its mail comes from another TCP stack than the rest"
    ),
    FeatureInfo("size_mean", "bytes", Needs.PAST, 0, "mean size of its last 16 messages"),
    FeatureInfo(
        "size_cv",
        "ratio",
        Needs.PAST,
        0,
        "standard deviation of the sizes of its last 16 messages over their mean",
    ),
    FeatureInfo(
        "dup_size_share",
        "share",
        Needs.PAST,
        +1,
        "of its last 16 messages, those of the most frequent size, less one",
    ),
    FeatureInfo(
        "gap_cv",
        "ratio",
        Needs.PAST,
        0,
        "standard deviation of the logarithms of its last 16 pauses between connections",
    ),
    FeatureInfo(
        "night_share_24h",
        "share",
        Needs.PAST,
        0,
        "connections in hours of the day in which it never mailed before",
    ),
    FeatureInfo("tls_used_share_24h", "share", Needs.FLOWS, 0, "connections with mail that are encrypted"),
    FeatureInfo(
        "helo_classes",
        "forms",
        Needs.CLEARTEXT,
        +1,
        "forms of the names it gives itself: host name, address, bare word",
    ),
    FeatureInfo(
        "dialect_distinct",
        "dialects",
        Needs.CLEARTEXT,
        +1,
        "orders of commands before the first mail of a connection",
    ),
    FeatureInfo(
        "dst25_new_share_24h",
        "share",
        Needs.FLOWS,
        +1,
        "connections to port 25 of servers that are new to the device",
    ),
    FeatureInfo(
        "new_server_share_24h",
        "share",
        Needs.FLOWS,
        +1,
        "connections to submission servers that are new to the device",
    ),
    FeatureInfo(
        "idle_share_24h",
        "share",
        Needs.CLEARTEXT,
        -1,
        "connections that were answered, and hung up without mail, login or a refusal",
    ),
    FeatureInfo("burst_lasted", "s", Needs.FLOWS, 0, "since when `conn_burst` has not fallen below one"),
    FeatureInfo(
        "appliance",
        "yes/no",
        Needs.FLOWS,
        0,
        "says that it is a thing that has one mail server in its settings, as a camera or a printer",
    ),
)


@cache
def schema_digest() -> str:
    """Return a digest of what the features are, in their order: names, units, directions."""
    text = "\n".join(f"{info.name} {info.unit} {info.direction}" for info in FEATURES)
    return hashlib.sha256(text.encode()).hexdigest()


#: Sizes that differ by less are one template's: names and numbers in it vary.
SIZE_STEP = 32
#: An encrypted connection that is large enough for a message was accepted more often than not.
INFERRED_WEIGHT = 0.8

_C = Count
_LITERAL_OR_BARE = int(HeloKind.LITERAL | HeloKind.BARE)
_SMTP25, _SUBMISSION, _INBOUND, _INBOUND_LOCAL = (
    int(_C.SMTP25),
    int(_C.SUBMISSION),
    int(_C.INBOUND),
    int(_C.INBOUND_LOCAL),
)
_INBOUND_MESSAGES, _CLOSED, _UNANSWERED, _REFUSED = (
    int(_C.INBOUND_MESSAGES),
    int(_C.CLOSED),
    int(_C.UNANSWERED),
    int(_C.REFUSED),
)
_TLS, _MESSAGES, _ACCEPTED, _REPLIES = int(_C.TLS), int(_C.MESSAGES), int(_C.ACCEPTED), int(_C.REPLIES)
_REJECTED_4XX = int(_C.REJECTED_4XX)
_REJECTED_5XX, _BLOCKLISTED, _AUTH_FAILED = int(_C.REJECTED_5XX), int(_C.BLOCKLISTED), int(_C.AUTH_FAILED)
_RESOLVABLE, _UNRESOLVED, _DNS = int(_C.RESOLVABLE), int(_C.UNRESOLVED), int(_C.DNS)
_DNS_OUTSIDE, _MX, _DNSBL, _TLS_EMPTY = int(_C.DNS_OUTSIDE), int(_C.MX), int(_C.DNSBL), int(_C.TLS_EMPTY)
_INFERRED, _ANSWERED, _UNSEEN = int(_C.INFERRED), int(_C.ANSWERED), int(_C.UNSEEN)
_CALLABLE, _CALLED = int(_C.CALLABLE), int(_C.CALLED)
_NEW_25, _NEW_SUBMISSION = int(_C.NEW_25), int(_C.NEW_SUBMISSION)
_IDLE, _REFUSALS, _AUTH_OK = int(_C.IDLE), int(_C.REFUSALS), int(_C.AUTH_OK)
_TIMED, _ODD_HOUR, _CLEARTEXT = int(_C.TIMED), int(_C.ODD_HOUR), int(_C.CLEARTEXT)
_R_SMTP25, _R_SUBMISSION, _R_MX = int(Recent.SMTP25), int(Recent.SUBMISSION), int(Recent.MX)

_MINUTE_NS = 60 * SECOND_NS


@inner
def estimate_destinations(t: DeviceTables, row: int) -> float:
    """Return HyperLogLog's estimate of the distinct destinations of the last day (Flajolet et al. 2007, figure 3)."""
    total = 0.0
    zeros = 0
    for k in range(HLL_REGISTERS):
        rank = 0
        for slot in range(SLOTS):
            rank = max(rank, i64(t.registers[row, slot, k]))
        total += 2.0**-rank
        if rank == 0:
            zeros += 1
    estimate = 0.709 * HLL_REGISTERS * HLL_REGISTERS / total
    if estimate <= 2.5 * HLL_REGISTERS and zeros > 0:
        estimate = HLL_REGISTERS * np.log(HLL_REGISTERS / zeros)
    return estimate


@inner
def has_foreign_syn(fingerprints: NDArray[np.int32]) -> float:
    """Return 1 if mail was opened with a fingerprint that the device shows nowhere else, 0 if not, NaN if unknown.

    ``fingerprints``: i4[2, N_FINGERPRINTS], of other SYNs and of mail. Those of IPv4 and of IPv6 (the last bit)
    differ by nature. Of a device that shows as many as are kept nothing can be told.
    """
    result = np.nan
    if fingerprints[0, N_FINGERPRINTS - 1] != 0:
        return result
    for i in range(N_FINGERPRINTS):
        of_mail = i64(fingerprints[1, i])
        is_comparable = False
        is_known = False
        for k in range(N_FINGERPRINTS):
            other = i64(fingerprints[0, k])
            if of_mail != 0 and other != 0 and (other ^ of_mail) & 1 == 0:
                is_comparable = True
                is_known = is_known or other == of_mail
        if is_comparable and not is_known:
            return 1.0
        if is_comparable:
            result = 0.0
    return result


@inner
def fill_sizes(sizes: NDArray[np.int32], n: int, f: NDArray[np.float64]) -> None:
    """Fill the features of the last ``n`` sizes of messages, i4[N_SIZES]; NaN for fewer than two."""
    f[Feature.SIZE_MEAN] = f[Feature.SIZE_SPREAD] = f[Feature.SAME_SIZE_SHARE] = np.nan
    if n == 0:
        return
    total = 0.0
    for i in range(n):
        total += sizes[i]
    mean = total / n
    f[Feature.SIZE_MEAN] = mean
    if n < 2:
        return
    squares = 0.0
    most = 0
    for i in range(n):
        squares += (sizes[i] - mean) ** 2
        same = 0
        for k in range(n):
            if i64(sizes[k]) // SIZE_STEP == i64(sizes[i]) // SIZE_STEP:
                same += 1
        most = max(most, same)
    f[Feature.SIZE_SPREAD] = math.sqrt(squares / n) / mean
    f[Feature.SAME_SIZE_SHARE] = (most - 1) / (n - 1 + 2.0)


@inner
def pause_spread(pauses: NDArray[np.int32], n: int) -> float:
    """Return the standard deviation of the logarithms of ``n`` pauses, i4[N_PAUSES] in ms; NaN for fewer than two."""
    if n < 2:
        return np.nan
    total = 0.0
    for i in range(n):
        total += math.log(1.0 + pauses[i])
    mean = total / n
    squares = 0.0
    for i in range(n):
        squares += (math.log(1.0 + pauses[i]) - mean) ** 2
    return math.sqrt(squares / n)


@inner
def share(part: float, whole: int, shrink: float) -> float:
    """Return ``part / (whole + shrink)``, NaN if there is nothing to take a share of."""
    if whole == 0:
        return np.nan
    return part / (whole + shrink)


@kernel
def compute_features(
    t: DeviceTables, rows: NDArray[np.int64], n_rows: int, now_ns: int, out: NDArray[np.float64]
) -> None:
    """Fill ``out[:n_rows]``, f8[n, N_FEATURES], with the features of the devices in ``rows[:n_rows]`` at ``now_ns``."""
    for i in range(n_rows):
        row = rows[i]
        advance_slots(t, row, now_ns)
        fill_features(t, row, now_ns, out[i])


@inner
def fill_features(t: DeviceTables, row: int, now_ns: int, f: NDArray[np.float64]) -> None:
    """Fill one device's features into ``f``, f8[N_FEATURES]."""
    device = t.devices[row]
    day, hour = t.day, t.hour
    day[:] = 0
    for slot in range(SLOTS):
        for k in range(N_COUNTS):
            day[k] += i64(t.counts[row, slot, k])
    hour[:] = 0
    for slot in range(RECENT_SLOTS):
        for k in range(N_RECENT):
            hour[k] += t.recent[row, slot, k]

    in_day = 0
    in_minute = 0
    busiest = i64(0)
    connections = i64(0)
    for k in range(N_DESTINATIONS):
        destination = t.destinations[row, k]
        if destination["last_ns"] == 0 or now_ns - destination["last_ns"] > DAY_NS:
            continue
        in_day += 1
        recently = i64(destination["count"]) + i64(destination["count_before"])
        connections += recently
        busiest = max(busiest, recently)
        if now_ns - destination["last_ns"] <= _MINUTE_NS:
            in_minute += 1
    operators = 0
    operators_25 = 0
    failing = 0
    for k in range(N_OPERATORS):
        operator = t.operators[row, k]
        if operator["last_25_ns"] != 0 and now_ns - operator["last_25_ns"] <= DAY_NS:
            operators_25 += 1
        if operator["last_submission_ns"] != 0 and now_ns - operator["last_submission_ns"] <= DAY_NS:
            operators += 1
        if operator["last_auth_failed_ns"] != 0 and now_ns - operator["last_auth_failed_ns"] <= DAY_NS:
            failing += 1
    helo_names = 0
    for k in range(N_HELO):
        if t.helo[row, k] != 0:
            helo_names += 1

    outbound = day[_SMTP25] + day[_SUBMISSION]
    f[Feature.SMTP25_1H] = hour[_R_SMTP25]
    f[Feature.SMTP25_24H] = day[_SMTP25]
    f[Feature.SUBMISSION_1H] = hour[_R_SUBMISSION]
    f[Feature.SUBMISSION_24H] = day[_SUBMISSION]
    f[Feature.BURST] = device["burst"] * math.exp(-max(now_ns - device["burst_ns"], 0) / SECOND_NS / BURST_S)
    f[Feature.BURST_LASTED] = (
        max(now_ns - device["burst_since_ns"], 0) / SECOND_NS if f[Feature.BURST] >= 1.0 else 0.0
    )
    f[Feature.DESTINATIONS_24H] = (
        max(float(in_day), estimate_destinations(t, row)) if device["destinations_lost"] != 0 else in_day
    )
    f[Feature.DESTINATIONS_1M] = in_minute
    f[Feature.SUBMISSION_OPERATORS_24H] = operators
    f[Feature.OPERATORS25_24H] = operators_25
    f[Feature.ONE_DESTINATION_SHARE] = share(busiest, connections, 0.0)
    f[Feature.UNRESOLVED_SHARE] = share(day[_UNRESOLVED], day[_RESOLVABLE], 2.0)
    f[Feature.REJECT_SHARE] = share(day[_REJECTED_5XX], day[_REPLIES], 3.0)
    f[Feature.NO_RETRY_SHARE] = share(
        t.retry_counts[row, 1], t.retry_counts[row, 0] + t.retry_counts[row, 1], 3.0
    )
    has_text = day[_ANSWERED] > 0 or day[_MESSAGES] > 0 or helo_names > 0
    f[Feature.BLOCKLISTED_24H] = day[_BLOCKLISTED] if has_text else np.nan
    # What is still open counts as answered: at a flood's beginning nothing has timed out yet.
    f[Feature.NO_ANSWER_SHARE] = share(day[_UNANSWERED] + day[_REFUSED], max(outbound, day[_CLOSED]), 2.0)
    has_dns = t.totals[row, _DNS] > 0
    f[Feature.MX_1H] = hour[_R_MX] if has_dns else np.nan
    f[Feature.MX_24H] = day[_MX] if has_dns else np.nan
    f[Feature.DNSBL_24H] = day[_DNSBL] if has_dns else np.nan
    f[Feature.DNS_OUTSIDE_SHARE] = share(day[_DNS_OUTSIDE], day[_DNS], 5.0)
    f[Feature.AUTH_FAILED_24H] = day[_AUTH_FAILED] if has_text else np.nan
    f[Feature.AUTH_FAILED_OPERATORS] = failing if has_text else np.nan
    # Mail that was put off is no failure until it is given up.
    settled = max(day[_MESSAGES] - day[_UNSEEN], 0) + day[_INFERRED] + day[_TLS_EMPTY] - day[_REJECTED_4XX]
    sent = max(settled, day[_ACCEPTED] + day[_INFERRED]) + t.retry_counts[row, 1]
    f[Feature.ACCEPTED_SHARE] = share(day[_ACCEPTED] + INFERRED_WEIGHT * day[_INFERRED], sent, 3.0)
    f[Feature.TLS_EMPTY_SHARE] = share(day[_TLS_EMPTY], day[_TLS], 3.0)
    f[Feature.HELO_NAMES] = helo_names if has_text else np.nan
    f[Feature.HELO_ODD] = np.nan
    if has_text:
        f[Feature.HELO_ODD] = 1.0 if device["helo_kinds"] & _LITERAL_OR_BARE != 0 else 0.0
    f[Feature.INBOUND_24H] = day[_INBOUND]
    f[Feature.INBOUND_MESSAGES] = day[_INBOUND_MESSAGES]
    f[Feature.INBOUND_LOCAL_24H] = day[_INBOUND_LOCAL]
    f[Feature.SILENT_DAYS] = (
        (device["mail_first_ns"] - device["first_ns"]) / DAY_NS if device["mail_first_ns"] >= 0 else np.nan
    )
    days = device["active_days"]
    active = 0
    for _ in range(14):
        active += days & 1
        days >>= 1
    f[Feature.ACTIVE_DAYS_14] = active
    f[Feature.VERSUS_USUAL] = (
        (outbound + 10.0) / (device["usual_day"] + 10.0) if device["usual_days"] >= USUAL_DAYS else np.nan
    )
    rejected = share(day[_REJECTED_5XX], day[_REPLIES], 3.0)
    f[Feature.REJECT_VERSUS_USUAL] = (
        rejected - device["usual_reject"] if device["usual_days"] >= USUAL_DAYS else np.nan
    )
    f[Feature.KNOWN_SERVER] = device["is_known_server"]
    f[Feature.APPLIANCE] = device["is_appliance"]
    f[Feature.MESSAGES_24H] = day[_MESSAGES] + day[_INFERRED] if has_text else np.nan
    f[Feature.RELAY_SYMMETRY] = relay_symmetry(t, row, now_ns)
    f[Feature.CALLED_SHARE] = share(day[_CALLED], day[_CALLABLE], 2.0)
    f[Feature.FOREIGN_SYN] = has_foreign_syn(t.fingerprints[row])
    fill_sizes(t.sizes[row], min(i64(device["n_sizes"]), N_SIZES), f)
    f[Feature.PAUSE_SPREAD] = pause_spread(t.pauses[row], min(i64(device["n_pauses"]), N_PAUSES))
    f[Feature.ODD_HOUR_SHARE] = share(day[_ODD_HOUR], day[_TIMED], 2.0)
    f[Feature.TLS_SHARE] = share(day[_TLS], day[_TLS] + day[_CLEARTEXT], 2.0)
    kinds = i64(device["helo_kinds"])
    f[Feature.HELO_CLASSES] = (kinds & 1) + (kinds >> 1 & 1) + (kinds >> 2 & 1) if has_text else np.nan
    dialects = 0
    for k in range(N_DIALECTS):
        if t.dialects[row, k] != 0:
            dialects += 1
    f[Feature.DIALECTS] = dialects if has_text else np.nan
    f[Feature.NEW_25_SHARE] = share(day[_NEW_25], day[_SMTP25], 2.0)
    f[Feature.NEW_SUBMISSION_SHARE] = share(day[_NEW_SUBMISSION], day[_SUBMISSION], 2.0)
    # Whoever is refused, or tries logins, has not come for nothing: each takes one such connection away.
    idle = max(day[_IDLE] - day[_REFUSALS] - day[_AUTH_OK], 0)
    f[Feature.IDLE_SHARE] = share(idle, day[_CLOSED], 2.0) if has_text or idle > 0 else np.nan
