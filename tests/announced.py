"""What the tests of decoders of announcements share: a run of one message, whatever lies around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from sensor.decode.facts import MAX_FACT_BYTES, N_ROWS, FactKind, new_facts
from sensor.decode.lan import LanStatus
from sensor.decode.status import N_WEIRDS, Weird

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sensor.decode.facts import Facts

Said = list[tuple[FactKind, str]]

BROKEN = {LanStatus.TRUNCATED, LanStatus.MALFORMED}
#: What lies before and behind a message in a batch: each must leave its facts alone.
NEIGHBOURS = [
    (b"", b""),
    (bytes(40), bytes(300)),
    (b"\xff" * 40, b"\xff" * 300),
    (b"A=\r\n" * 9, b"v: w\r\n" * 50),
]


def run(
    decode: Callable[..., int], message: bytes, before: bytes = b"", after: bytes = b""
) -> tuple[LanStatus, Said]:
    """Decode ``message`` between two neighbours."""
    facts, weirds = new_facts(), np.zeros(N_WEIRDS, dtype=np.int64)
    data = np.frombuffer(before + message + after, dtype=np.uint8).copy()
    status = LanStatus(decode(data, len(before), len(before) + len(message), facts, weirds))
    assert weirds[Weird.LAN_MALFORMED] == weirds.sum() == (status in BROKEN)
    return status, told(facts)


def told(facts: Facts) -> Said:
    """The facts as text."""
    return [
        (FactKind(int(row["kind"])), facts.text[row["start"] :][: row["length"]].tobytes().decode("ascii"))
        for row in facts.rows[: facts.used[N_ROWS]]
    ]


def run_anywhere(decode: Callable[..., int], message: bytes) -> tuple[LanStatus, Said]:
    """Decode ``message`` between several neighbours: the answer is the same."""
    first, *others = [run(decode, message, before, after) for before, after in NEIGHBOURS]
    assert all(other == first for other in others)
    return first


def printable(raw: bytes) -> str:
    """How a fact shows bytes."""
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in raw[:MAX_FACT_BYTES]).rstrip(" ")


def text(raw: bytes) -> str:
    """How a fact shows a text that a NUL byte may end."""
    return printable(raw[:MAX_FACT_BYTES].split(b"\0")[0])


@st.composite
def damaged(draw: Callable[[st.SearchStrategy], object], valid: st.SearchStrategy[bytes]) -> bytes:
    """Messages with up to four bytes that are others, and cut anywhere."""
    message = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 4))):
        if message:
            message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) if draw(st.booleans()) else bytes(message)


def check_cuts(decode: Callable[..., int], message: bytes, kinds: Sequence[FactKind]) -> None:
    """Cut a message at every byte: the facts before the cut are those of the whole message."""
    _, whole = run(decode, message)
    for cut in range(len(message)):
        _, part = run_anywhere(decode, message[:cut])
        assert part == whole[: len(part)]
        assert {kind for kind, _ in part} <= set(kinds)
