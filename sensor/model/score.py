"""Features in, verdicts with reasons out: the hand-written monotone index and the hard rules.

The index is a sum of terms, each of which can only rise with what is suspicious and only fall with what is
not; so whoever behaves worse in one way and alike in all others never scores lower, and the terms of a score
are its explanation, exactly. Its weights are set by hand from docs/detection.md, not fitted: they are the
floor beneath the trained model, which will stand beside it behind the same interface (``Model``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from sensor.devices.features import N_FEATURES, Feature
from sensor.devices.roles import Role, infer_role
from sensor.jit import inner, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a model says of n devices.

    ``logit``: f8[n], log-odds of a compromised device as far as the index goes; ``rules``: i8[n], the index of
    the hard rule that holds in ``Model.rules``, -1 none; ``roles``: i8[n], Role.
    """

    logit: Floats
    rules: NDArray[np.int64]
    roles: NDArray[np.int64]

    @classmethod
    def empty(cls, n: int) -> Verdicts:
        """Return room for n, without a rule."""
        return cls(np.empty(n), np.full(n, -1, dtype=np.int64), np.empty(n, dtype=np.int64))

    def of(self, chosen: NDArray[np.bool_]) -> Verdicts:
        """Return those of some devices."""
        return Verdicts(self.logit[chosen], self.rules[chosen], self.roles[chosen])


class Model(Protocol):
    """What the pipeline asks of a model."""

    name: str
    term_features: tuple[Feature, ...]
    rules: tuple[str, ...]

    def judge(self, features: Floats) -> Verdicts:
        """Judge ``features``, f8[n, N_FEATURES]."""
        ...

    def explain(self, features: Floats) -> Floats:
        """Return what each term, named by ``term_features``, adds to the score of ``features``, f8[N_FEATURES]."""
        ...


#: Connections, fading over 15 s, to many servers within a minute: about one a second and more ...
FLOOD_BURST: Final = 7.0
FLOOD_DESTINATIONS: Final = 10
#: ... of which something is wanted: who only greets so many servers watches whether they are up, and has hung up
#: within seconds.
FLOOD_IDLE: Final = 0.5
FLOOD_LASTS_S: Final = 2.0
#: Some of those that are watched may be down.
FLOOD_UNANSWERED: Final = 0.2
#: The rule with no false alarm in the benign population of the toy study, and all direct-to-MX bots
#: (docs/detection.md).
MX_PER_HOUR: Final = 20
SPRAY_OPERATORS: Final = 3
SPRAY_FAILURES: Final = 10
#: Fewer operators refuse any home server whose address is a dynamic one.
LISTED_REPLIES: Final = 10
LISTED_OPERATORS: Final = 5
#: ... and such a sender delivers to several servers, and is refused often or accepted seldom: else it is a mail server.
MX_DESTINATIONS: Final = 4
REFUSED_OFTEN: Final = 0.15
ACCEPTED_SELDOM: Final = 0.5
#: Who passes on, byte by byte, what one peer outside says to mail servers of several operators is that peer's proxy.
PROXY_SYMMETRY: Final = 0.5
PROXY_CONNECTIONS: Final = 5
PROXY_OPERATORS: Final = 3
#: A mail server that the configuration names mails so many times as much as on a usual day, and is refused so much more
#: of it: somebody else's list. No model knows named servers, since none of the simulated sites names any.
UNLIKE_TIMES: Final = 3.0
UNLIKE_REFUSED: Final = 0.25
#: A thing with one mail server in its settings, a camera or a television set, mails to several operators: with logins,
#: or to port 25 of servers that it mostly never looked up, or to many in any case. Where look-ups are not seen,
#: addresses of one operator may pass for several.
APPLIANCE_OPERATORS: Final = 3
APPLIANCE_UNRESOLVED: Final = 0.5
APPLIANCE_MANY: Final = 6
#: Every list has addresses that are gone: refusals up to this share say nothing.
USUAL_REFUSALS: Final = 0.05
#: What is not known to be looked up excuses only by half.
UNSEEN_LOOKUPS: Final = 0.5
#: Log-odds before any evidence.
BIAS: Final = -3.0

_MAIL_SERVER, _NEW_MAIL_SERVER = int(Role.MAIL_SERVER), int(Role.NEW_MAIL_SERVER)
RULES: Final = ("flood", "mx-lookups", "login-spray", "blocklisted", "proxy", "unlike-itself", "appliance")
_FLOOD, _MX_LOOKUPS, _LOGIN_SPRAY, _BLOCKLISTED, _PROXY, _UNLIKE_ITSELF, _APPLIANCE = range(len(RULES))
#: The feature behind each term of the index, by which it is explained, in the order of ``fill_terms``.
TERM_FEATURES: Final = (
    Feature.OPERATORS25_24H,
    Feature.SUBMISSION_24H,
    Feature.UNRESOLVED_SHARE,
    Feature.REJECT_SHARE,
    Feature.BLOCKLISTED_24H,
    Feature.NO_ANSWER_SHARE,
    Feature.MX_1H,
    Feature.AUTH_FAILED_24H,
    Feature.TLS_EMPTY_SHARE,
    Feature.HELO_NAMES,
    Feature.HELO_ODD,
    Feature.SMTP25_1H,
    Feature.NO_RETRY_SHARE,
    Feature.SILENT_DAYS,
    Feature.ACCEPTED_SHARE,
    Feature.ONE_DESTINATION_SHARE,
    Feature.INBOUND_MESSAGES,
    Feature.VERSUS_USUAL,
    Feature.REJECT_VERSUS_USUAL,
    Feature.RELAY_SYMMETRY,
)


@inner
def known(x: float) -> float:
    """Return a feature with 0 where it is not known: a term that says nothing either way."""
    return 0.0 if math.isnan(x) else x


@inner
def clip(x: float, low: float, high: float) -> float:
    """Return ``x`` within ``[low, high]``."""
    return min(max(x, low), high)


@inner
def log2_1p(x: float) -> float:
    """Return ``log2(1 + x)`` for x > 0, else 0."""
    return math.log2(1.0 + x) if x > 0.0 else 0.0


@inner
def log2_above_1(x: float) -> float:
    """Return ``log2(x)`` for x > 1, else 0."""
    return math.log2(x) if x > 1.0 else 0.0


@inner
def fill_terms(f: Floats, is_server: bool, out: Floats) -> None:
    """Fill ``out``, f8[n_terms], with the terms of a device with the features ``f``, f8[N_FEATURES].

    Each term grows, or stays, with a feature that is suspicious and shrinks, or stays, with one that is not.
    """
    # How far the looks of a sender can be excused: its mail is accepted, nobody refuses it, it looks up where
    # it sends, and it is its own.
    accepted = known(f[Feature.ACCEPTED_SHARE])
    unresolved = known(f[Feature.UNRESOLVED_SHARE])
    refused = max(known(f[Feature.REJECT_SHARE]) - USUAL_REFUSALS, 0.0)
    looked_up = UNSEEN_LOOKUPS if math.isnan(f[Feature.UNRESOLVED_SHARE]) else 1.0 - unresolved
    relayed = known(f[Feature.RELAY_SYMMETRY])
    excuse = accepted * (1.0 - min(4.0 * refused, 1.0)) * looked_up * (1.0 - relayed)
    doubt = 1.0 - 0.8 * excuse
    # One destination is a relay, a retry loop or a misconfiguration; four are none of these.
    several = clip(log2_above_1(f[Feature.DESTINATIONS_24H]) / 2.0, 0.0, 1.0)
    some = max(several, 0.3)
    on_25 = 1.0 if f[Feature.SMTP25_24H] > 0 else 0.0
    operators_25 = f[Feature.OPERATORS25_24H]
    providers = f[Feature.SUBMISSION_OPERATORS_24H]
    per_hour = f[Feature.SMTP25_1H] + f[Feature.SUBMISSION_1H]
    busiest = known(f[Feature.ONE_DESTINATION_SHARE])
    # Where nothing is asked for, nothing is sent: to greet many servers is to watch whether they are up.
    wants = 1.0 - known(f[Feature.IDLE_SHARE])

    out[0] = wants * doubt * (0.7 * on_25 + min(0.8 * log2_above_1(operators_25), 3.2))
    out[1] = wants * min(0.8 * log2_above_1(providers - 1.0), 3.2)
    out[2] = 2.0 * unresolved * some
    out[3] = min(6.0 * refused, 3.0) * some
    out[4] = min(1.5 * log2_1p(known(f[Feature.BLOCKLISTED_24H])), 3.0)
    # A relay that is down has several addresses, too: what counts is several operators, and all the more if the device
    # never looked them up.
    unexplained = 1.0 if math.isnan(f[Feature.UNRESOLVED_SHARE]) else 0.4 + 0.6 * unresolved
    operators = clip(log2_above_1(max(operators_25, providers)) / 2.0, 0.0, 1.0)
    out[5] = 2.0 * known(f[Feature.NO_ANSWER_SHARE]) * operators * unexplained
    out[6] = doubt * clip(0.8 * log2_1p(known(f[Feature.MX_1H])) - 1.2, 0.0, 3.0)
    out[7] = min(1.2 * log2_1p(known(f[Feature.AUTH_FAILED_24H])), 4.0) * clip(
        known(f[Feature.AUTH_FAILED_OPERATORS]) - 1.0, 0.0, 1.0
    )
    out[8] = 1.5 * known(f[Feature.TLS_EMPTY_SHARE]) * clip((providers - 3.0) / 4.0, 0.0, 1.0)
    out[9] = 0.8 * clip(known(f[Feature.HELO_NAMES]) - 1.0, 0.0, 2.0) * on_25
    out[10] = 0.4 * known(f[Feature.HELO_ODD]) * on_25 * several
    out[11] = wants * doubt * min(0.4 * log2_1p(per_hour / 10.0), 1.0) * some
    out[12] = known(f[Feature.NO_RETRY_SHARE])
    out[13] = 1.5 if known(f[Feature.SILENT_DAYS]) >= 7.0 else 0.0
    out[14] = -0.5 * accepted
    out[15] = -2.5 * clip(2.0 * busiest - 1.0, 0.0, 1.0)
    out[16] = -3.0 if is_server else 0.0
    out[17] = min(1.5 * log2_above_1(known(f[Feature.VERSUS_USUAL]) / 3.0), 3.0)
    out[18] = clip(5.0 * (known(f[Feature.REJECT_VERSUS_USUAL]) - 0.1), 0.0, 3.0)
    out[19] = 4.0 * relayed * some


@inner
def wants_something(f: Floats) -> bool:
    """Tell whether a device has tried to mail, or to log in, as far as can be read: to greet is not yet that."""
    return bool(
        math.isnan(f[Feature.MESSAGES_24H])
        or f[Feature.MESSAGES_24H] > 0
        or known(f[Feature.AUTH_FAILED_24H]) > 0
        or known(f[Feature.REJECT_SHARE]) > 0
        or f[Feature.NO_ANSWER_SHARE] >= FLOOD_UNANSWERED
    )


@inner
def find_rule(f: Floats, is_server: bool) -> int:
    """Return the hard rule that holds for a device, an index of RULES, or -1."""
    if (
        not is_server
        and f[Feature.BURST] >= FLOOD_BURST
        and f[Feature.DESTINATIONS_1M] >= FLOOD_DESTINATIONS
        and f[Feature.BURST_LASTED] >= FLOOD_LASTS_S
        and known(f[Feature.IDLE_SHARE]) < FLOOD_IDLE
        and wants_something(f)
    ):
        return _FLOOD
    is_unwelcome = (
        known(f[Feature.REJECT_SHARE]) >= REFUSED_OFTEN or known(f[Feature.ACCEPTED_SHARE]) < ACCEPTED_SELDOM
    )
    if (
        not is_server
        and is_unwelcome
        and f[Feature.SMTP25_24H] > 0
        and f[Feature.MX_1H] >= MX_PER_HOUR
        and f[Feature.DESTINATIONS_24H] >= MX_DESTINATIONS
    ):
        return _MX_LOOKUPS
    if f[Feature.AUTH_FAILED_OPERATORS] >= SPRAY_OPERATORS and f[Feature.AUTH_FAILED_24H] >= SPRAY_FAILURES:
        return _LOGIN_SPRAY
    # What is listed is the site's address: a mail server may be refused for what another device behind it did.
    if (
        (not is_server or is_unwelcome)
        and f[Feature.BLOCKLISTED_24H] >= LISTED_REPLIES
        and f[Feature.OPERATORS25_24H] >= LISTED_OPERATORS
    ):
        return _BLOCKLISTED
    # A mail server is handed mail by a peer and hands it on: that is its work.
    if (
        not is_server
        and f[Feature.RELAY_SYMMETRY] >= PROXY_SYMMETRY
        and f[Feature.SMTP25_24H] + f[Feature.SUBMISSION_24H] >= PROXY_CONNECTIONS
        and max(f[Feature.OPERATORS25_24H], f[Feature.SUBMISSION_OPERATORS_24H]) >= PROXY_OPERATORS
    ):
        return _PROXY
    if (
        f[Feature.KNOWN_SERVER] > 0
        and f[Feature.VERSUS_USUAL] >= UNLIKE_TIMES
        and f[Feature.REJECT_VERSUS_USUAL] >= UNLIKE_REFUSED
    ):
        return _UNLIKE_ITSELF
    at_several = max(
        f[Feature.SUBMISSION_OPERATORS_24H],
        f[Feature.OPERATORS25_24H] if f[Feature.UNRESOLVED_SHARE] >= APPLIANCE_UNRESOLVED else 0.0,
    )
    if (
        f[Feature.APPLIANCE] > 0
        and not is_server
        and known(f[Feature.IDLE_SHARE]) < FLOOD_IDLE
        and not math.isnan(f[Feature.UNRESOLVED_SHARE])
        and (at_several >= APPLIANCE_OPERATORS or f[Feature.OPERATORS25_24H] >= APPLIANCE_MANY)
    ):
        return _APPLIANCE
    return -1


@kernel
def judge_rows(
    features: Floats, terms: Floats, logit: Floats, rules: NDArray[np.int64], roles: NDArray[np.int64]
) -> None:
    """Judge ``features``, f8[n, N_FEATURES]: fill ``logit``, ``rules`` and ``roles``, i8[n].

    ``terms``, f8[n_terms], is room to work in; it ends up with those of the last row.
    """
    for i in range(logit.size):
        f = features[i]
        role = infer_role(f)
        is_server = role in (_MAIL_SERVER, _NEW_MAIL_SERVER)
        fill_terms(f, is_server, terms)
        total = BIAS
        for k in range(terms.size):
            total += terms[k]
        logit[i] = total
        rules[i] = find_rule(f, is_server)
        roles[i] = role


class MonotoneIndex:
    """The hand-written index and rules; see the module's docstring."""

    name = "monotone-index-1"
    term_features: tuple[Feature, ...] = TERM_FEATURES
    rules: tuple[str, ...] = RULES

    def judge(self, features: Floats) -> Verdicts:
        """Judge ``features``, f8[n, N_FEATURES]."""
        if features.ndim != 2 or features.shape[1] != N_FEATURES:
            raise ValueError(f"expected {N_FEATURES} features, not an array of shape {features.shape}")
        verdicts = Verdicts.empty(len(features))
        terms = np.empty(len(TERM_FEATURES))
        judge_rows(features, terms, verdicts.logit, verdicts.rules, verdicts.roles)
        return verdicts

    def explain(self, features: Floats) -> Floats:
        """Return what each term adds to the score of ``features``, f8[N_FEATURES]."""
        one, terms = Verdicts.empty(1), np.empty(len(TERM_FEATURES))
        judge_rows(features[None], terms, one.logit, one.rules, one.roles)
        return terms
