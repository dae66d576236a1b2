"""What an alert calls that which a device does."""

from __future__ import annotations

import numpy as np
import pytest

from sensor.alerts.explain import find_cause
from sensor.devices.features import N_FEATURES, Feature
from sensor.devices.roles import Role

DIRECT = {Feature.SMTP25_24H: 20.0, Feature.OPERATORS25_24H: 8.0}
SUBMITTED = {Feature.SUBMISSION_24H: 20.0}
SPRAYED = {Feature.AUTH_FAILED_24H: 18.0, Feature.AUTH_FAILED_OPERATORS: 6.0}
UNSEEN = (Feature.UNRESOLVED_SHARE, Feature.MX_24H, Feature.RELAY_SYMMETRY, Feature.AUTH_FAILED_24H)


def cause(values: dict[Feature, float], role: Role = Role.DIRECT_SENDER, **what: bool) -> str:
    features = np.zeros(N_FEATURES)
    for feature, value in values.items():
        features[feature] = value
    flags = {"is_known_server": False, "is_blocked": False} | what
    return find_cause(features.tolist(), role, **flags)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (DIRECT, "direct-to-mx-spam"),
        (DIRECT | {Feature.MX_24H: 20.0}, "direct-to-mx-spam"),
        (DIRECT | {Feature.UNRESOLVED_SHARE: 0.9}, "mail-proxy"),
        (DIRECT | {Feature.UNRESOLVED_SHARE: 0.9, Feature.MX_24H: 1.0}, "mail-proxy"),
        (DIRECT | {Feature.RELAY_SYMMETRY: 0.7}, "mail-proxy"),
        (DIRECT | dict.fromkeys(UNSEEN, np.nan), "direct-to-mx-spam"),
        (DIRECT | {Feature.NO_ANSWER_SHARE: 0.9}, "blocked-spam"),
        (DIRECT | SPRAYED, "submission-abuse"),
        (DIRECT | {Feature.AUTH_FAILED_24H: 18.0, Feature.AUTH_FAILED_OPERATORS: 1.0}, "direct-to-mx-spam"),
        (SUBMITTED, "submission-abuse"),
        (SUBMITTED | {Feature.RELAY_SYMMETRY: 0.7}, "mail-proxy"),
        (SUBMITTED | dict.fromkeys(UNSEEN, np.nan), "submission-abuse"),
    ],
)
def test_the_cause_follows_from_what_was_seen(values: dict[Feature, float], expected: str) -> None:
    assert cause(values) == expected


def test_servers_have_causes_of_their_own() -> None:
    relayed = DIRECT | {Feature.INBOUND_24H: 9.0}
    assert cause(relayed, Role.MAIL_SERVER) == "open-relay"
    assert cause(relayed | {Feature.INBOUND_LOCAL_24H: 9.0}, Role.MAIL_SERVER) == "direct-to-mx-spam"
    assert cause(relayed, Role.MAIL_SERVER, is_known_server=True) == "unusual-mail"
    assert cause(DIRECT, is_blocked=True) == "blocked-spam"
