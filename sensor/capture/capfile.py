"""One capture file: which format it is, its frames batch by batch, and what is wrong with it.

A kernel walks the records in the buffer and notes where each frame lies; frames are not copied. What occurs
once per file, section or interface is read in Python. A further format is one more entry in ``_FORMATS``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from sensor.capture.bytesource import BUFFER_BYTES, HEAD_BYTES, ByteSource
from sensor.capture.foreign import refusal
from sensor.capture.frames import FRAME_DTYPE, FrameBatch, LinkType
from sensor.capture.linktypes import link_type_text
from sensor.capture.pcap import PCAP_MAGICS, Pcap
from sensor.capture.pcapng import Pcapng
from sensor.errors import CaptureError, CaptureFormatError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sensor.capture.records import Format

#: Frames of one batch, at most.
MAX_BATCH_FRAMES: Final = 8192

_DECODED_LINK_TYPES: Final = frozenset(LinkType)
_FORMATS: Final[dict[bytes, Callable[[ByteSource], Format]]] = {
    **dict.fromkeys(PCAP_MAGICS, Pcap),
    bytes.fromhex("0a0d0d0a"): Pcapng,
}


def _format_of(source: ByteSource) -> Format:
    """Recognise the format by how the file begins, and read its header."""
    source.refill(HEAD_BYTES)
    open_format = _FORMATS.get(source.head(4))
    if open_format is None:
        raise refusal(source)
    return open_format(source)


class _Lost(NamedTuple):
    """The chain of records is lost: since which byte of the (unpacked) file, and the error that says why."""

    offset: int
    error: CaptureFormatError


@dataclass(slots=True)
class CaptureCounts:
    """What was wrong with captures, in numbers.

    ``damaged``: places where records were impossible; ``skipped_bytes``: what was passed over there;
    ``undecoded``: frames of each link type that is not decoded.
    """

    damaged: int = 0
    skipped_bytes: int = 0
    undecoded: Counter[int] = field(default_factory=Counter)

    def add(self, other: CaptureCounts) -> None:
        """Add the numbers of another capture."""
        self.damaged += other.damaged
        self.skipped_bytes += other.skipped_bytes
        self.undecoded += other.undecoded

    def as_stats(self) -> dict[str, Any]:
        """Return them as ``--stats`` shows them, link types by name."""
        undecoded = {link_type_text(number): n for number, n in sorted(self.undecoded.items())}
        return {
            "damaged": self.damaged,
            "skipped_bytes": self.skipped_bytes,
            "undecoded_link_types": undecoded,
        }


class CaptureReader:
    """One capture file, opened; iterate once for its FrameBatches, in the order of the file.

    ``path``: a file, or ``-`` for standard input. Raises CaptureError if it cannot be opened,
    CaptureFormatError if it is no capture that we read. Batches are borrowed until the next is asked for.

    Where a record is impossible, the next that is possible is searched for, and reading goes on there: the
    first time in a file, ``on_problem`` is told where and why; ``counts`` has them all. It is also told,
    once, of each link type that is not decoded. The iteration raises CaptureError, after all frames that could
    be had, where the file is cut off or cannot be read or unpacked.
    """

    def __init__(
        self,
        path: str,
        *,
        on_problem: Callable[[CaptureError], None],
        max_batch_frames: int = MAX_BATCH_FRAMES,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.counts = CaptureCounts()
        self._source = ByteSource(path, capture_name(path), buffer_bytes)
        self._on_problem = on_problem
        self._frames = np.zeros(max_batch_frames, FRAME_DTYPE)
        self._lost: _Lost | None = None
        try:
            self._format = _format_of(self._source)
        except BaseException:
            self._source.close()
            raise

    def __iter__(self) -> Iterator[FrameBatch]:
        while (batch := self.next_batch()) is not None:
            yield batch

    def next_batch(self, *, is_growing: bool = False) -> FrameBatch | None:
        """Return the next batch, None at the end of the file.

        ``is_growing``: what is missing may come yet, so that this is not the end but only so for now. Raises as
        the iteration does.
        """
        source = self._source
        while True:
            if self._lost is not None:
                is_back, n_needed = self._format.search(source, is_end=False)
                if is_back:
                    self._found(self._lost, is_end=False)
                    continue
            else:
                n_rows, n_needed, damage = self._format.index(source, self._frames)
                if n_rows > 0:
                    return self._handed_out(n_rows)
                if damage:
                    self._lose(damage)
                    continue
            if source.refill(n_needed):
                continue
            if is_growing or not self._goes_on(n_needed):
                return None

    def _handed_out(self, n_rows: int) -> FrameBatch:
        frames = self._frames[:n_rows]
        if not _DECODED_LINK_TYPES.issuperset(self._format.link_types):
            self._count_undecoded(frames["link_type"])
        return FrameBatch(self._source.data, frames)

    def _count_undecoded(self, link_types: NDArray[np.int32]) -> None:
        numbers, n_frames = np.unique(link_types, return_counts=True)
        for number, n in zip(numbers.tolist(), n_frames.tolist(), strict=True):
            if number in _DECODED_LINK_TYPES:
                continue
            if number not in self.counts.undecoded:
                what = (
                    f"frames of link type {link_type_text(number)}, which is not decoded: counted, not judged"
                )
                self._on_problem(CaptureError(f"{self._source.name}: {what}"))
            self.counts.undecoded[number] += n

    def _lose(self, damage: str) -> _Lost:
        """Leave the record at hand, which is impossible."""
        self._lost = _Lost(self._source.offset, self._source.format_error(damage))
        self._format.leave_damage(self._source)
        return self._lost

    def _found(self, lost: _Lost, *, is_end: bool) -> None:
        """Count the bytes that were passed over, and tell of the first of such places."""
        self._lost = None
        offset = self._source.offset
        if self.counts.damaged == 0:
            went_on = "nothing behind it can be read" if is_end else f"read on at byte {offset}"
            self._on_problem(CaptureFormatError(f"{lost.error}; {went_on}"))
        self.counts.damaged += 1
        self.counts.skipped_bytes += offset - lost.offset

    def _goes_on(self, n_needed: int) -> bool:
        """Tell, at the end of the file, whether records follow all the same.

        Either the file is cut off in the record at hand: raises CutOffError. Or that record's length is damaged,
        which shows by records in what is left.
        """
        source = self._source
        if self._lost is None and source.unread == 0:
            return False
        cut = None if self._lost is not None else source.cut_error(n_needed)
        lost = self._lost or self._lose("a record that claims more bytes than are left")
        is_back, _ = self._format.search(source, is_end=True)
        if cut is not None and not is_back:
            self._lost = None
            raise cut
        self._found(lost, is_end=not is_back)
        return is_back

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed."""
        return self._source.is_packed

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read, in bytes as they are stored."""
        return self._source.bytes_read

    def file_status(self) -> os.stat_result:
        """Return what the system knows of the file now."""
        return self._source.file_status()

    def first_bytes(self, n_bytes: int) -> bytes:
        """Return the file's first bytes, fewer if there are no more, as they are now."""
        return self._source.first_bytes(n_bytes)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def capture_name(path: str) -> str:
    """Return what messages call a capture: its path, made printable, or ``standard input``."""
    if path == "-":
        return "standard input"
    return path if path.isprintable() else ascii(path)
