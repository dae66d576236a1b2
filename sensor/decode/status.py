"""What became of each frame, and the oddities counted along the way."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sensor.jit import inlined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FrameStatus(IntEnum):
    """Exactly one of these is counted for every frame: their sum is the number of frames."""

    MAIL = 0  # TCP to or from a mail port, or a fragment-free part of it
    DNS = 1  # UDP or TCP port 53
    LAN = 2  # who is who: ARP, DHCP and what else devices say of themselves
    OTHER = 3  # decoded down to its transport and of no interest
    NOT_IP = 4  # a link-layer protocol that carries no IP and is not ARP
    TRUNCATED = 5  # the capture holds too little of the frame to tell
    MALFORMED = 6  # header fields contradict each other
    FRAGMENT = 7  # a later fragment: it has no transport header
    UNKNOWN_LINK_TYPE = 8
    UNKNOWN_TUNNEL = 9  # an encapsulation that is not decoded, or encrypted
    TOO_DEEP = 10  # more nested headers than the named bounds allow
    PEER = 11  # TCP or UDP of an address that has mailed lately, and neither mail nor DNS


N_FRAME_STATUSES = len(FrameStatus)

#: What a header's decoder answers in place of a FrameStatus when the next header decides.
UNDECIDED = -1


class Weird(IntEnum):
    """Oddities, counted and never fatal; the word and the idea are Zeek's."""

    TCP_RETRANSMISSION = 0  # a segment whose bytes were all seen before
    TCP_OUT_OF_ORDER = 1  # a segment that came early and was held back
    TCP_GAP = 2  # bytes that the capture never saw: the dialogue resynchronises
    TCP_HELD_SEGMENTS_FULL = 3  # no room to hold an early segment: treated as a gap
    SNAPLEN_CUT_PAYLOAD = 4  # a segment whose end the snap length cut off: treated as a gap
    SMTP_LINE_TOO_LONG = 5  # more than MAX_LINE_BYTES without an end of line
    SMTP_LINE_BUFFERS_FULL = 6  # no room for a line that continues in the next segment
    SMTP_NOT_SMTP = 7  # a mail port that speaks something else
    SMTP_REPLY_MALFORMED = 8
    SMTP_BARE_LF = 9  # a line that ended in LF without CR
    DNS_MALFORMED = 10
    DNS_POINTER_LOOP = 11  # a compression pointer that does not point strictly backwards
    DNS_TRUNCATED = 12  # the message ends before its counts say so
    ARP_MALFORMED = 13
    DHCP_MALFORMED = 14
    TIMESTAMP_BACKWARDS = 15
    IP_CHECKSUM_IMPOSSIBLE_LENGTH = 16  # a total length smaller than the headers
    FLOW_MIDSTREAM = 17  # a flow whose beginning was not captured
    TCP_OVERLAP = 18  # a segment that repeats some bytes and brings new ones
    EVENT_LIMIT = 19  # more events from one frame than MAX_EVENTS_PER_FRAME: the rest was passed over
    PACKET_DUPLICATE = 20  # a packet that the mirror showed twice: passed over
    FLOW_ONE_SIDED = 21  # a mail connection of which only one direction was captured
    CAPTURE_PAUSE = 22  # packet time leapt forward by more than PAUSE_NS (events/flows.py)
    LAN_MALFORMED = 23  # mDNS, SSDP, NetBIOS, LLDP, CDP, ND or DHCPv6 whose fields contradict each other


N_WEIRDS = len(Weird)


@inlined
def status_of_lack(pos: int, n: int, wire_end: int, weirds: NDArray[np.int64]) -> int:
    """Tell why ``n`` bytes are not there: MALFORMED if the packet's length has no room, else TRUNCATED."""
    if n > wire_end - pos:
        weirds[Weird.IP_CHECKSUM_IMPOSSIBLE_LENGTH] += 1
        return FrameStatus.MALFORMED
    return FrameStatus.TRUNCATED


class Eviction(IntEnum):
    """A table was full: the oldest row of the neighbourhood made room, and is counted here."""

    FLOW = 0
    DNS_ANSWER = 1
    DEVICE = 2
    PEER = 3


N_EVICTIONS = len(Eviction)
