"""Read a capture with a Python library, as its documentation says.

    python bench/peers.py nfstream|scapy FILE

A process of its own for each, so that bench/run.py measures libraries and programs alike.
"""

from __future__ import annotations

import sys


def nfstream(path: str) -> int:
    """Return how many packets nfstream put into flows (one meter; it recognises applications by default)."""
    from nfstream import NFStreamer  # noqa: PLC0415

    return sum(flow.bidirectional_packets for flow in NFStreamer(source=path, n_meters=1))


def scapy(path: str) -> int:
    """Return how many packets scapy dissected."""
    from scapy.layers.l2 import Ether  # noqa: PLC0415
    from scapy.utils import RawPcapReader  # noqa: PLC0415

    count = 0
    with RawPcapReader(path) as reader:
        for data, _ in reader:
            Ether(data)
            count += 1
    return count


if __name__ == "__main__":
    print({"nfstream": nfstream, "scapy": scapy}[sys.argv[1]](sys.argv[2]))
