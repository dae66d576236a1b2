from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.model.channel import Channel, weigh
from sensor.model.evidence import REVIEW_SHARE, RULE_EVIDENCE, EvidenceTable
from sensor.model.score import MonotoneIndex, Verdicts

pytestmark = pytest.mark.kernel

INDEX_AT, MODEL_AT = 8.0, 20.0
INDEX, MODEL = 0, 1
START_SHARE = 0.25


def heard(index: float, model: float | None, rule: int = -1, *, is_start: bool = False) -> tuple[int, float]:
    """Who speaks loudest of one device with this much evidence, and how loud."""
    channels = []
    for name, evidence, threshold in (("index", index, INDEX_AT), ("model", model, MODEL_AT)):
        if evidence is not None:
            table = EvidenceTable(1)
            table.evidence[0] = evidence
            channels.append(Channel(name, MonotoneIndex(), table, threshold, START_SHARE * threshold))
    none = np.zeros(1)
    verdicts = Verdicts(none, np.array([rule]), np.zeros(1, dtype=np.int64))
    loudest, ratio = weigh(channels, np.array([0]), [verdicts] * len(channels), is_start=is_start)
    return int(loudest[0]), float(ratio[0])


def test_alone_the_index_accuses_at_its_threshold():
    assert heard(INDEX_AT, None) == (INDEX, 1.0)
    assert heard(INDEX_AT - 1, None)[1] < 1.0


def test_beside_each_other_whoever_is_louder_speaks():
    assert heard(0.0, MODEL_AT) == (MODEL, 1.0)
    assert heard(INDEX_AT, MODEL_AT / 2) == (INDEX, 1.0)
    assert heard(INDEX_AT, 2 * MODEL_AT) == (MODEL, 2.0)
    assert heard(INDEX_AT - 1, MODEL_AT - 1)[1] < 1.0
    assert heard(0.0, MODEL_AT * REVIEW_SHARE) == (MODEL, REVIEW_SHARE)


def test_when_watching_has_just_begun_other_thresholds_hold():
    assert heard(START_SHARE * INDEX_AT, 0.0, is_start=True) == (INDEX, 1.0)
    assert heard(0.0, START_SHARE * MODEL_AT, is_start=True) == (MODEL, 1.0)
    assert heard(START_SHARE * INDEX_AT, None, is_start=True) == (INDEX, 1.0)


def test_for_review_the_usual_thresholds_count_also_at_the_start():
    for share in (0.2, 0.24):
        assert heard(share * INDEX_AT, None, is_start=True)[1] == pytest.approx(share)
        assert heard(0.0, share * MODEL_AT, is_start=True)[1] == pytest.approx(share)


@pytest.mark.parametrize("model", [None, 0.0, 60.0])
def test_a_rule_accuses_whatever_the_model_thinks(model):
    channel, ratio = heard(RULE_EVIDENCE, model, rule=0)
    assert channel == INDEX
    assert ratio >= 1.0


@given(*[st.floats(0, 60)] * 4)
def test_more_evidence_is_never_quieter(index, more_index, model, more_model):
    low = heard(min(index, more_index), min(model, more_model))[1]
    assert heard(max(index, more_index), max(model, more_model))[1] >= low
