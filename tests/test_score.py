from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.devices.features import FEATURES, N_FEATURES, Feature, Needs
from sensor.devices.roles import Role, infer_roles
from sensor.model.score import (
    ACCEPTED_SELDOM,
    APPLIANCE_MANY,
    APPLIANCE_OPERATORS,
    APPLIANCE_UNRESOLVED,
    BIAS,
    FLOOD_BURST,
    FLOOD_DESTINATIONS,
    FLOOD_IDLE,
    FLOOD_LASTS_S,
    FLOOD_UNANSWERED,
    LISTED_OPERATORS,
    LISTED_REPLIES,
    MX_DESTINATIONS,
    MX_PER_HOUR,
    PROXY_CONNECTIONS,
    PROXY_OPERATORS,
    PROXY_SYMMETRY,
    REFUSED_OFTEN,
    SPRAY_FAILURES,
    SPRAY_OPERATORS,
    UNLIKE_REFUSED,
    UNLIKE_TIMES,
    MonotoneIndex,
)

pytestmark = pytest.mark.kernel

MODEL = MonotoneIndex()
F = Feature

#: Features that are NaN where what they need was not seen.
CAN_BE_UNKNOWN = {
    feature
    for feature in Feature
    if FEATURES[feature].unit == "share" or FEATURES[feature].needs is not Needs.FLOWS
} - {F.ACTIVE_DAYS_14}
DIRECTED = [feature for feature in Feature if FEATURES[feature].direction]
SEEDS = st.integers(0, 2**32 - 1)
N_ROWS = 200


def some_values(rng: np.random.Generator, feature: Feature, n: int = N_ROWS) -> np.ndarray:
    """Known values of a feature, f8[n]: small and large ones, ends of the range among them."""
    unit = FEATURES[feature].unit
    if unit == "share":
        found = np.clip(rng.uniform(-0.3, 1.3, n), 0.0, 1.0)
        return found * 2 - 1 if feature is F.REJECT_VERSUS_USUAL else found
    if unit == "yes/no":
        return rng.integers(0, 2, n).astype(float)
    if feature is F.ACTIVE_DAYS_14:
        return rng.integers(0, 15, n).astype(float)
    numbers = np.floor(2.0 ** rng.uniform(-1, 17, n))
    return numbers + rng.uniform(0, 1, n) if unit in ("times", "days") or feature is F.BURST else numbers


def some_rows(seed: int, known: Feature | None = None) -> tuple[np.ndarray, np.random.Generator]:
    """Features of devices, f8[N_ROWS, N_FEATURES]: much that is zero, much that is not known but ``known``."""
    rng = np.random.default_rng(seed)
    rows = np.stack([some_values(rng, feature) for feature in Feature], axis=1)
    rows[rng.random(rows.shape) < 0.3] = 0.0
    for feature in CAN_BE_UNKNOWN - {known}:
        rows[rng.random(N_ROWS) < 0.3, feature] = np.nan
    return rows, rng


def less_and_more(seed: int, feature: Feature) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ in one feature alone: the less suspicious and the more suspicious ones."""
    rows, rng = some_rows(seed, known=feature)
    one, other = rows[:, feature], some_values(rng, feature)
    low, high = rows.copy(), rows.copy()
    low[:, feature], high[:, feature] = np.minimum(one, other), np.maximum(one, other)
    return (low, high) if FEATURES[feature].direction > 0 else (high, low)


@pytest.mark.parametrize("feature", DIRECTED, ids=lambda feature: feature.name)
@settings(max_examples=20)
@given(seed=SEEDS)
def test_more_of_what_is_suspicious_never_lowers_the_score(feature, seed):
    """One feature changes and all others stay; the role follows from them, as it does in a run."""
    less, more = less_and_more(seed, feature)
    change = MODEL.judge(more).logit - MODEL.judge(less).logit
    np.testing.assert_array_less(-1e-9, change)


@pytest.mark.parametrize("feature", DIRECTED, ids=lambda feature: feature.name)
@settings(max_examples=20)
@given(seed=SEEDS)
def test_more_of_what_is_suspicious_never_ends_a_rule(feature, seed):
    less, more = less_and_more(seed, feature)
    had, has = MODEL.judge(less).rules >= 0, MODEL.judge(more).rules >= 0
    assert (has | ~had).all()


def test_the_rows_of_these_tests_hold_rules_and_roles_of_all_kinds():
    verdicts = [MODEL.judge(some_rows(seed)[0]) for seed in range(20)]
    assert {-1, *range(len(MODEL.rules))} == set(np.concatenate([v.rules for v in verdicts]).tolist())
    assert set(Role) == set(np.concatenate([v.roles for v in verdicts]).tolist())


def explained(features: np.ndarray) -> np.ndarray:
    return np.array([MODEL.explain(row) for row in features])


@settings(max_examples=20)
@given(SEEDS)
def test_terms_explain_the_score_exactly(seed):
    features, _ = some_rows(seed)
    before = features.copy()
    verdicts, terms = MODEL.judge(features), explained(features)
    assert terms.shape == (N_ROWS, len(MODEL.term_features))
    assert verdicts.logit.shape == verdicts.rules.shape == verdicts.roles.shape == (N_ROWS,)
    np.testing.assert_allclose(terms.sum(axis=1) + BIAS, verdicts.logit, rtol=0, atol=1e-12)
    assert np.isfinite(terms).all()
    np.testing.assert_array_equal(features, before)


@settings(max_examples=20)
@given(SEEDS)
def test_a_device_is_judged_by_itself(seed):
    features, rng = some_rows(seed)
    order = rng.permutation(N_ROWS)
    one, other = MODEL.judge(features), MODEL.judge(np.ascontiguousarray(features[order]))
    for name in ("logit", "rules", "roles"):
        np.testing.assert_array_equal(getattr(one, name)[order], getattr(other, name))


def test_no_devices_are_no_verdicts():
    assert MODEL.judge(np.zeros((0, N_FEATURES))).logit.shape == (0,)


@settings(max_examples=20)
@given(SEEDS)
def test_a_term_has_the_sign_of_its_feature(seed):
    terms = explained(some_rows(seed)[0])
    for feature, column in zip(MODEL.term_features, terms.T, strict=True):
        assert (column * FEATURES[feature].direction >= 0).all(), feature.name


def test_each_term_has_a_feature_of_its_own():
    assert len(set(MODEL.term_features)) == len(MODEL.term_features)
    assert all(FEATURES[feature].direction for feature in MODEL.term_features)


def test_nothing_known_and_nothing_done_is_the_bias():
    row = np.array([np.nan if feature in CAN_BE_UNKNOWN else 0.0 for feature in Feature])
    verdicts = MODEL.judge(row[None])
    assert verdicts.logit[0] == BIAS
    assert verdicts.rules[0] == -1


@pytest.mark.parametrize("shape", [(N_FEATURES,), (2, N_FEATURES - 1), (2, N_FEATURES + 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=f"expected {N_FEATURES} features, not an array of shape"):
        MODEL.judge(np.zeros(shape))


# --- hard rules ---------------------------------------------------------------------------------------------

FLOOD = {
    F.BURST: FLOOD_BURST,
    F.DESTINATIONS_1M: FLOOD_DESTINATIONS,
    F.BURST_LASTED: FLOOD_LASTS_S,
    F.MESSAGES_24H: 1,
}
MX = {
    F.SMTP25_24H: 1,
    F.MX_1H: MX_PER_HOUR,
    F.DESTINATIONS_24H: MX_DESTINATIONS,
    F.ACCEPTED_SHARE: ACCEPTED_SELDOM - 0.01,
}
SPRAY = {F.AUTH_FAILED_OPERATORS: SPRAY_OPERATORS, F.AUTH_FAILED_24H: SPRAY_FAILURES}
LISTED = {
    F.BLOCKLISTED_24H: LISTED_REPLIES,
    F.OPERATORS25_24H: LISTED_OPERATORS,
    F.ACCEPTED_SHARE: ACCEPTED_SELDOM,
}
PROXY = {
    F.RELAY_SYMMETRY: PROXY_SYMMETRY,
    F.SUBMISSION_24H: PROXY_CONNECTIONS,
    F.SUBMISSION_OPERATORS_24H: PROXY_OPERATORS,
}
UNLIKE = {F.KNOWN_SERVER: 1, F.VERSUS_USUAL: UNLIKE_TIMES, F.REJECT_VERSUS_USUAL: UNLIKE_REFUSED}
APPLIANCE = {F.APPLIANCE: 1, F.SUBMISSION_OPERATORS_24H: APPLIANCE_OPERATORS}
SERVER = {F.KNOWN_SERVER: 1}


def rule_of(*parts: dict[Feature, float], **changes: float) -> str | None:
    row = np.zeros(N_FEATURES)
    for part in parts:
        for feature, value in part.items():
            row[feature] = value
    for name, value in changes.items():
        row[Feature[name]] = value
    index = int(MODEL.judge(row[None]).rules[0])
    return MODEL.rules[index] if index >= 0 else None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((FLOOD,), "flood"),
        ((MX,), "mx-lookups"),
        ((SPRAY,), "login-spray"),
        ((LISTED,), "blocklisted"),
        ((PROXY,), "proxy"),
        ((UNLIKE,), "unlike-itself"),
        ((APPLIANCE,), "appliance"),
    ],
)
def test_a_rule_holds_at_its_thresholds_and_not_below(parts, expected):
    assert rule_of(*parts) == expected
    for feature, value in parts[0].items():
        if feature is not F.ACCEPTED_SHARE:
            assert rule_of(*parts, **{feature.name: value - 1}) is None, feature.name


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((FLOOD, SERVER), None),
        ((MX, SERVER), None),
        ((SPRAY, SERVER), "login-spray"),
        ((PROXY, SERVER), None),
        ((PROXY, LISTED), "blocklisted"),
        ((APPLIANCE, SERVER), None),
        ((LISTED, SERVER), None),
        ((LISTED, SERVER, {F.REJECT_SHARE: REFUSED_OFTEN}), "blocklisted"),
        ((LISTED, SERVER, {F.ACCEPTED_SHARE: ACCEPTED_SELDOM - 0.01}), "blocklisted"),
        ((FLOOD, SPRAY, LISTED, MX), "flood"),
        ((SPRAY, LISTED, MX), "mx-lookups"),
        ((SPRAY, LISTED), "login-spray"),
    ],
)
def test_what_servers_do_anyway_is_no_rule_for_them_and_the_first_rule_names_it(parts, expected):
    assert rule_of(*parts) == expected


def test_mail_that_is_accepted_is_no_reason_to_count_look_ups():
    assert rule_of(MX, ACCEPTED_SHARE=ACCEPTED_SELDOM) is None
    assert rule_of(MX, ACCEPTED_SHARE=1, REJECT_SHARE=REFUSED_OFTEN) == "mx-lookups"
    assert rule_of(MX, DESTINATIONS_24H=MX_DESTINATIONS - 1) is None
    assert rule_of(MX, ACCEPTED_SHARE=np.nan) == "mx-lookups"
    assert rule_of(MX, SMTP25_24H=0) is None


def test_who_has_one_mail_server_in_its_settings_mails_to_no_others():
    on_25 = {F.APPLIANCE: 1, F.OPERATORS25_24H: APPLIANCE_OPERATORS, F.UNRESOLVED_SHARE: APPLIANCE_UNRESOLVED}
    assert rule_of(on_25) == "appliance"
    assert rule_of(on_25, UNRESOLVED_SHARE=APPLIANCE_UNRESOLVED - 0.01) is None
    assert rule_of(on_25, UNRESOLVED_SHARE=0, OPERATORS25_24H=APPLIANCE_MANY) == "appliance"
    assert (
        rule_of(APPLIANCE, UNRESOLVED_SHARE=np.nan) is None
    )  # one operator's addresses may pass for several
    assert rule_of(APPLIANCE, IDLE_SHARE=FLOOD_IDLE) is None


@pytest.mark.parametrize(
    "sign", [{F.NO_ANSWER_SHARE: FLOOD_UNANSWERED}, {F.REJECT_SHARE: 0.1}, {F.AUTH_FAILED_24H: 1}]
)
def test_a_flood_of_greetings_is_none_until_something_is_wanted(sign):
    greets = {**FLOOD, F.MESSAGES_24H: 0}
    assert rule_of(greets) is None
    assert rule_of(greets, sign) == "flood"
    assert rule_of(greets, sign, {F.IDLE_SHARE: FLOOD_IDLE}) is None
    assert rule_of({**FLOOD, F.MESSAGES_24H: np.nan}) == "flood"  # what cannot be read may be mail


# --- roles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values_", "expected"),
    [
        ({}, Role.UNKNOWN),
        ({F.OPERATORS25_24H: 1, F.SMTP25_24H: 5}, Role.UNKNOWN),
        ({F.OPERATORS25_24H: 2, F.SMTP25_24H: 5}, Role.DIRECT_SENDER),
        ({F.SUBMISSION_24H: 5, F.SUBMISSION_OPERATORS_24H: 3}, Role.MAIL_CLIENT),
        ({F.SUBMISSION_24H: 5, F.SUBMISSION_OPERATORS_24H: 4}, Role.UNKNOWN),
        ({F.SUBMISSION_24H: 5, F.SUBMISSION_OPERATORS_24H: 1, F.SMTP25_24H: 1}, Role.UNKNOWN),
        ({F.ONE_DESTINATION_SHARE: 0.9}, Role.SMARTHOST_CLIENT),
        ({F.ONE_DESTINATION_SHARE: 0.89}, Role.UNKNOWN),
        ({F.INBOUND_24H: 50}, Role.UNKNOWN),  # an open port alone earns nothing
        ({F.INBOUND_24H: 1, F.INBOUND_MESSAGES: 1}, Role.NEW_MAIL_SERVER),
        ({F.INBOUND_LOCAL_24H: 1, F.INBOUND_MESSAGES: 1, F.ACTIVE_DAYS_14: 2}, Role.NEW_MAIL_SERVER),
        ({F.INBOUND_24H: 1, F.INBOUND_MESSAGES: 1, F.ACTIVE_DAYS_14: 3}, Role.MAIL_SERVER),
        ({F.KNOWN_SERVER: 1}, Role.MAIL_SERVER),
    ],
)
def test_roles_are_earned(values_, expected):
    row = np.zeros(N_FEATURES)
    row[F.ONE_DESTINATION_SHARE] = np.nan
    for feature, value in values_.items():
        row[feature] = value
    roles = np.zeros(1, dtype=np.int64)
    infer_roles(row[None], roles)
    assert roles[0] == expected == MODEL.judge(row[None]).roles[0]


def test_roles_have_names():
    assert [role.label for role in Role][:3] == ["unknown", "mail server", "new mail server"]
