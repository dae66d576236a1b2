from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.decode.facts import (
    FACT_DTYPE,
    MAX_FACT_BYTES,
    MAX_FACTS,
    FactKind,
    add_fact,
    clear_facts,
    close_fact,
    new_facts,
    open_fact,
    put_number,
)
from tests.announced import told

pytestmark = pytest.mark.kernel


def harmless(raw: bytes) -> str:
    text = "".join(chr(b) if 0x20 <= b <= 0x7E else "?" for b in raw.split(b"\0")[0][:MAX_FACT_BYTES])
    return text.rstrip(" ")


@given(st.lists(st.binary(max_size=300), max_size=40), st.binary(max_size=5))
def test_facts_are_the_printable_beginning_of_each_text(texts, around):
    facts = new_facts()
    for raw in texts:
        data = np.frombuffer(around + raw + around + b"\0", dtype=np.uint8).copy()
        add_fact(facts, FactKind.MODEL, data, len(around), len(around) + len(raw))
    expected = [text for text in map(harmless, texts) if text][:MAX_FACTS]
    assert told(facts) == [(FactKind.MODEL, text) for text in expected]
    clear_facts(facts)
    assert told(facts) == []


@given(st.integers(0, 2**62))
def test_numbers_are_decimal(number):
    facts = new_facts()
    open_fact(facts, FactKind.PARAMETERS)
    put_number(facts, number)
    close_fact(facts)
    assert told(facts) == [(FactKind.PARAMETERS, str(number))]


def test_room_is_for_the_longest_texts():
    assert len(new_facts().text) == MAX_FACTS * MAX_FACT_BYTES
    assert FACT_DTYPE.names == ("kind", "start", "length")
