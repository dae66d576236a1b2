"""FrameBatch: what every capture source hands over, a byte array and one row per frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LinkType(IntEnum):
    """Link-layer types that can be decoded, by their LINKTYPE_ number (IANA registry of PCAP link types)."""

    NULL = 0  # BSD loopback, the address family in the byte order of the machine that captured
    ETHERNET = 1
    PPP = 9
    RAW_BSD = 12  # DLT_RAW of FreeBSD and Linux, found in files although LINKTYPE_RAW is 101
    RAW_OPENBSD = 14  # DLT_RAW of OpenBSD
    PPP_HDLC = 50
    PPP_ETHER = 51
    RAW = 101
    C_HDLC = 104
    IEEE802_11 = 105
    LOOP = 108  # OpenBSD loopback, the address family in network order
    LINUX_SLL = 113
    IEEE802_11_RADIOTAP = 127
    IPV4 = 228
    IPV6 = 229
    NFLOG = 239
    LINUX_SLL2 = 276


#: One row per frame. ``offset``: start of the frame in ``FrameBatch.data``; ``ts_ns``: nanoseconds since the
#: Unix epoch; ``captured_len`` <= ``wire_len`` (bytes; snaplen cuts the first); ``link_type``: LINKTYPE_
#: number.
FRAME_DTYPE = np.dtype(
    [
        ("offset", np.int64),
        ("ts_ns", np.int64),
        ("captured_len", np.int32),
        ("wire_len", np.int32),
        ("link_type", np.int32),
        ("reserved", np.int32),
    ]
)


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames in capture order; the arrays are borrowed until the next batch is asked for.

    ``data``: u8[n_bytes], writable and C-contiguous (numba compiles a kernel anew for a read-only array);
    ``frames``: FRAME_DTYPE[n_frames].
    """

    data: NDArray[np.uint8]
    frames: NDArray[Any]
