"""Names of link types, for those that are not decoded: who reads "195" does not know what was mirrored.

``linktypes.tsv`` holds the names of tcpdump.org/linktypes.html as libpcap 1.10.3 (2023-01-12) has them: the
``LINKTYPE_`` constants of its pcap-common.c, without that prefix. sensor/capture/frames.py names those that
are decoded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def _names() -> dict[int, str]:
    _, *rows = Path(__file__).with_name("linktypes.tsv").read_text("ascii").splitlines()
    return {int(number): name for number, _, name in (row.partition("\t") for row in rows)}


def link_type_text(link_type: int) -> str:
    """Return the name and the number of a link type: ``IEEE802_15_4_WITHFCS (195)``, ``unassigned (9999)``."""
    return f"{_names().get(link_type, 'unassigned')} ({link_type})"
