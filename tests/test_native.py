"""What is written in LLVM's instructions, against plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensor.jit import JIT_DISABLED, i64, inner, kernel
from sensor.native import BLOCK, by_pointer, first_in_block, prefetch

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.kernel

ROW_DTYPE = np.dtype([("total", np.int64), ("calls", np.int32)])


@by_pointer
class Ledger(NamedTuple):
    entries: NDArray[np.int64]  # i8[n, 3]
    rows: NDArray[Any]  # ROW_DTYPE[n]
    limit: NDArray[np.int64]  # i8[1]


@inner
def add_up(ledger: Ledger, row: int) -> None:
    ledger.rows[row]["calls"] += 1
    for k in range(ledger.entries.shape[1]):
        prefetch(ledger.rows, row + 1)  # past the end, too: nothing comes of it
        ledger.rows[row]["total"] += min(ledger.entries[row, k], ledger.limit[0])


@kernel
def add_all_up(ledger: Ledger) -> int:
    for row in range(ledger.rows.size):
        add_up(ledger, row)
    return i64(ledger.entries.size)


@kernel
def first_of(data: NDArray[np.uint8], pos: int, value: int) -> int:
    return i64(first_in_block(data, pos, value))


def test_kernels_see_and_change_the_arrays_of_a_tuple() -> None:
    for n in (1, 5):
        entries = np.arange(3 * n).reshape(n, 3)
        ledger = Ledger(entries, np.zeros(n, dtype=ROW_DTYPE), np.array([7]))
        for _ in range(2):
            assert add_all_up(ledger) == entries.size
        assert ledger.rows["total"].tolist() == (2 * np.minimum(entries, 7).sum(axis=1)).tolist()
        assert set(ledger.rows["calls"]) == {2}


@pytest.mark.skipif(JIT_DISABLED, reason="plain Python has no signatures")
def test_an_array_of_another_type_is_another_signature() -> None:
    rows, limit = np.zeros(2, dtype=ROW_DTYPE), np.array([7])
    narrow = Ledger(np.ones((2, 3), dtype=np.int32), rows, limit)  # type: ignore[arg-type]
    wide = Ledger(np.ones((2, 3), dtype=np.int64), rows, limit)
    for ledger in (wide, narrow, wide):
        add_all_up(ledger)
    assert rows["total"].tolist() == [9, 9]


@given(st.binary(min_size=BLOCK, max_size=3 * BLOCK), st.data())
@example(bytes(BLOCK), None)
@example(bytes(BLOCK - 1) + b"\xff", None)
def test_first_in_block_is_find(content: bytes, data: st.DataObject | None) -> None:
    pos = data.draw(st.integers(0, len(content) - BLOCK)) if data else 0
    value = data.draw(st.one_of(st.sampled_from(content), st.integers(0, 255))) if data else 255
    found = content[pos : pos + BLOCK].find(value)
    assert first_of(np.frombuffer(content, dtype=np.uint8).copy(), pos, value) == (
        found if found >= 0 else BLOCK
    )
