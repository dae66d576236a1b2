"""What an alert says: the cause, the reasons in words, and what to do next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from sensor.alerts.record import Cause, Counts, Reason
from sensor.devices.features import FEATURES, Feature
from sensor.devices.roles import Role
from sensor.model.score import SPRAY_OPERATORS
from sensor.notation import counted, duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_REASONS = 5
#: What adds less to the score than this is no reason.
MIN_CONTRIBUTION = 0.2


#: A device whose mail follows another peer to this degree passes it on.
RELAYED = 0.4
#: What mails to servers of which it never looked up more than this share, passes on what others looked up.
UNRESOLVED = 0.5


class _Wording(NamedTuple):
    text: str  # with {value}
    usual: float | None  # of a device that is no mail server


_WORDINGS: dict[Feature, _Wording] = {
    Feature.OPERATORS25_24H: _Wording(
        "delivers straight to {value} mail operators; most devices have one relay", 0.0
    ),
    Feature.SUBMISSION_24H: _Wording(
        "{value} connections a day to several mail providers' submission servers", None
    ),
    Feature.UNRESOLVED_SHARE: _Wording("{value} of its mail goes to addresses that it never looked up", 0.0),
    Feature.REJECT_SHARE: _Wording("{value} of the servers' replies refuse its mail for good", 0.02),
    Feature.BLOCKLISTED_24H: _Wording("replies that say its address is on a block list: {value}", 0.0),
    Feature.NO_ANSWER_SHARE: _Wording("{value} of its attempts get no answer", 0.0),
    Feature.MX_1H: _Wording("{value} look-ups of other domains' mail servers within the hour", 0.0),
    Feature.AUTH_FAILED_24H: _Wording("{value} failed logins, at several operators", 0.0),
    Feature.TLS_EMPTY_SHARE: _Wording(
        "{value} of its encrypted sessions are too small for a mail, as of login attempts", 0.0
    ),
    Feature.HELO_NAMES: _Wording("it gave itself {value} different names", 1.0),
    Feature.HELO_ODD: _Wording("it greets servers as an address or a bare word, not by a host name", 0.0),
    Feature.SMTP25_1H: _Wording("{value} connections to port 25 within the hour", 0.0),
    Feature.NO_RETRY_SHARE: _Wording("{value} of its deferred mails were never tried again", 0.0),
    Feature.SILENT_DAYS: _Wording("it sent its first mail after {value} days without any", None),
    Feature.VERSUS_USUAL: _Wording("{value} times the connections of its usual day", 1.0),
    Feature.REJECT_VERSUS_USUAL: _Wording("{value} more of its mail is refused than usual", 0.0),
    Feature.RELAY_SYMMETRY: _Wording(
        "what it mails agrees to {value} with what one other peer sends it at the same time", 0.0
    ),
    Feature.DESTINATIONS_1M: _Wording("{value} mail servers within a minute", 0.0),
    Feature.AUTH_FAILED_OPERATORS: _Wording("failed logins at {value} mail operators", 0.0),
    Feature.SMTP25_24H: _Wording("{value} connections to port 25 within the day", 0.0),
    Feature.SUBMISSION_1H: _Wording("{value} connections to submission servers within the hour", None),
    Feature.BURST: _Wording("{value} mail connections within seconds", 0.0),
    Feature.DESTINATIONS_24H: _Wording("{value} mail servers within the day", None),
    Feature.SUBMISSION_OPERATORS_24H: _Wording("submits mail to {value} mail providers", None),
    Feature.ONE_DESTINATION_SHARE: _Wording(
        "its busiest mail server gets only {value} of its connections", None
    ),
    Feature.MX_24H: _Wording("{value} look-ups of other domains' mail servers within the day", 0.0),
    Feature.DNSBL_24H: _Wording("{value} look-ups in DNS block lists", 0.0),
    Feature.DNS_OUTSIDE_SHARE: _Wording("{value} of its look-ups go past the site's resolvers", None),
    Feature.ACCEPTED_SHARE: _Wording("{value} of its mail is accepted", None),
    Feature.INBOUND_24H: _Wording("{value} mail connections from outside to it within the day", None),
    Feature.INBOUND_MESSAGES: _Wording("{value} messages taken in as a server within the day", None),
    Feature.INBOUND_LOCAL_24H: _Wording("{value} mail connections from inside to it within the day", None),
    Feature.ACTIVE_DAYS_14: _Wording("it mailed on {value} of the last 14 days", None),
    Feature.MESSAGES_24H: _Wording("{value} mails attempted within the day", None),
    Feature.CALLED_SHARE: _Wording(
        "{value} of its mail connections follow somebody outside who spoke to it first", None
    ),
    Feature.FOREIGN_SYN: _Wording("its mail comes from another TCP stack than its other traffic", None),
    Feature.SIZE_MEAN: _Wording("its mails have {value} bytes on average", None),
    Feature.SIZE_SPREAD: _Wording("the sizes of its mails scatter by {value} of their mean", None),
    Feature.SAME_SIZE_SHARE: _Wording("{value} of its mails have the same size", None),
    Feature.PAUSE_SPREAD: _Wording(
        "the pauses between its connections scatter by {value}, in logarithms", None
    ),
    Feature.ODD_HOUR_SHARE: _Wording("{value} of its mail at hours at which it never mailed before", None),
    Feature.TLS_SHARE: _Wording("{value} of its connections with mail are encrypted", None),
    Feature.HELO_CLASSES: _Wording("{value} forms of the names that it gives itself", None),
    Feature.DIALECTS: _Wording("it speaks SMTP in {value} different ways", None),
    Feature.NEW_25_SHARE: _Wording("{value} of its connections to port 25 go to servers new to it", None),
    Feature.NEW_SUBMISSION_SHARE: _Wording("{value} of its submissions go to servers new to it", None),
    Feature.APPLIANCE: _Wording("a thing of its type has one mail server in its settings", None),
    Feature.IDLE_SHARE: _Wording("{value} of its connections are hung up without asking for anything", None),
}
_RULE_FEATURES: dict[str, tuple[Feature, ...]] = {
    "flood": (Feature.DESTINATIONS_1M, Feature.SMTP25_1H),
    "mx-lookups": (Feature.MX_1H,),
    "login-spray": (Feature.AUTH_FAILED_OPERATORS, Feature.AUTH_FAILED_24H),
    "blocklisted": (Feature.BLOCKLISTED_24H,),
    "proxy": (Feature.RELAY_SYMMETRY,),
    "unlike-itself": (Feature.VERSUS_USUAL, Feature.REJECT_VERSUS_USUAL),
    "appliance": (Feature.APPLIANCE, Feature.SUBMISSION_OPERATORS_24H, Feature.OPERATORS25_24H),
}

_ADVICE: dict[Cause, str] = {
    "direct-to-mx-spam": "Block its outbound port 25, take it off the network, and reset or replace its firmware.",
    "mail-proxy": "Block its outbound ports 25, 465 and 587; look for a proxy app or opened ports, then reset it.",
    "submission-abuse": "Block its outbound ports 465 and 587; reset it, and change mail passwords stored on it.",
    "blocked-spam": "The block works; keep it. The device is compromised all the same: take it off and reset it.",
    "open-relay": "Close the relay: accept mail from outside for your own domains only; check its accounts.",
    "unusual-mail": "Check its queue and accounts for a stolen login or a script; slow its mail down meanwhile.",
}

_REVIEW_ADVICE = (
    "Is it meant to send mail? If so, name it in mail_servers or add an exception; if not, watch it."
)


def find_cause(features: Sequence[float], role: Role, *, is_known_server: bool, is_blocked: bool) -> Cause:
    """Return what the device is doing, for its N_FEATURES features; ``is_blocked``: no server has answered."""
    f = features
    if is_blocked or f[Feature.NO_ANSWER_SHARE] > 0.8:
        return "blocked-spam"
    if f[Feature.RELAY_SYMMETRY] > RELAYED:
        return "mail-proxy"
    tries_logins = (
        f[Feature.AUTH_FAILED_OPERATORS] >= SPRAY_OPERATORS
        and f[Feature.AUTH_FAILED_24H] > (f[Feature.SMTP25_24H] + f[Feature.SUBMISSION_24H]) / 2
    )
    if tries_logins or f[Feature.SUBMISSION_24H] > f[Feature.SMTP25_24H]:
        return "submission-abuse"
    if is_known_server:
        return "unusual-mail"
    if (
        role in (Role.MAIL_SERVER, Role.NEW_MAIL_SERVER)
        and f[Feature.INBOUND_24H] > f[Feature.INBOUND_LOCAL_24H]
    ):
        return "open-relay"
    # Whose DNS is not seen at all may have looked up all of them.
    return "mail-proxy" if f[Feature.UNRESOLVED_SHARE] > UNRESOLVED else "direct-to-mx-spam"


def summarise(counts: Counts, seconds: float) -> str:
    """Return what the device did in ``seconds`` since its first mail, in one sentence."""
    done = [
        f"{counted(counts.smtp_connections, 'mail connection')} to {counted(counts.destinations, 'server')}"
    ]
    if counts.mx_queries:
        done.append(f"{counted(counts.mx_queries, 'MX look-up')} of its own")
    if counts.rejected_5xx:
        done.append(f"{counted(counts.rejected_5xx, 'refusal')}")
    if counts.auth_failures:
        done.append(f"{counted(counts.auth_failures, 'failed login')}")
    return f"{', '.join(done)} in {duration_text(seconds)}."


def advise(cause: Cause, *, is_review: bool) -> str:
    """Return what to do next."""
    return _REVIEW_ADVICE if is_review else _ADVICE[cause]


def find_reasons(
    features: Sequence[float],
    terms: Sequence[float],
    term_features: Sequence[Feature],
    rule: str | None,
) -> tuple[Reason, ...]:
    """Return the reasons for a verdict, most telling first: a rule's features, then the terms by what they added.

    What is not known is no reason, though a model may have learned from that, too.
    """
    # Of a rule's alternatives, the one that does not hold tells nothing.
    chosen = [feature for feature in _RULE_FEATURES.get(rule or "", ()) if features[feature] != 0]
    telling = [i for i, term in enumerate(terms) if term >= MIN_CONTRIBUTION]
    for feature in (term_features[i] for i in sorted(telling, key=lambda i: -terms[i])):
        if feature in _WORDINGS and feature not in chosen and not math.isnan(features[feature]):
            chosen.append(feature)
    return tuple(_reason(feature, features[feature]) for feature in chosen[:MAX_REASONS])


def _reason(feature: Feature, value: float) -> Reason:
    info, wording = FEATURES[feature], _WORDINGS[feature]
    if math.isnan(value):
        shown = "an unknown share"
    elif info.unit == "share":
        shown = f"{value:.0%}"
    else:
        shown = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
    return Reason(
        feature=info.name,
        value=None if math.isnan(value) else round(value, 4),
        usual=wording.usual,
        unit=info.unit,
        text=wording.text.format(value=shown),
    )
