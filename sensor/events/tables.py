"""The fixed tables that event kernels keep between packets: flows, early segments, broken lines.

All memory is allocated here, once; its size follows from the configuration and nothing grows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.decode.dhcpv6 import DHCPV6_DTYPE
from sensor.decode.dns import DNS_MESSAGE_DTYPE, DNS_RECORD_DTYPE, MAX_NAMES_BYTES, MAX_RECORDS
from sensor.decode.facts import Facts, new_facts
from sensor.decode.lan import ARP_DTYPE, DHCP_DTYPE
from sensor.decode.nd import ND_DTYPE
from sensor.decode.packets import PACKET_DTYPE
from sensor.decode.smtp import MAX_LINE_BYTES
from sensor.decode.status import N_EVICTIONS, N_WEIRDS
from sensor.events.duplicates import N_RECENT
from sensor.events.transfers import MEMORY_NS
from sensor.native import by_pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: An early segment is held back up to this size: an Ethernet MTU with room for tunnels. Larger ones (offload
#: super-frames) are rarely out of order, and count as a gap when they are.
MAX_HELD_BYTES = 2048
#: Early segments that one side of a flow may hold.
MAX_HELD_PER_SIDE = 32
#: Commands that a client may pipeline ahead of the replies; beyond it, replies are no longer matched with
#: commands.
MAX_PENDING = 64
NO_DEADLINE = np.iinfo(np.int64).max


class FlowState(IntEnum):
    """Life of a row of the flow table."""

    FREE = 0
    ATTEMPT = 1  # SYN seen, nothing back
    OPEN = 2
    CLOSED = 3  # reported; lingers so that late segments do not look like a new flow


class Total(IntEnum):
    """Run totals that kernels count."""

    MAIL_SYNS = 0
    SMTP_FLOWS = 1
    SMTP_COMMANDS = 2
    SMTP_REPLIES = 3
    DNS_QUERIES = 4
    MX_QUERIES = 5
    DNS_RESPONSES = 6


N_TOTALS = len(Total)

FLOW_DTYPE = np.dtype(
    [
        ("flow_id", np.int64),
        ("orig_hi", np.int64),
        ("orig_lo", np.int64),
        ("resp_hi", np.int64),
        ("resp_lo", np.int64),
        ("orig_mac", np.int64),
        ("resp_mac", np.int64),
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("syn_seq", np.int64),
        ("bdat_left", np.int64),
        ("message_bytes", np.int64),  # of the content that is being read
        ("message_size", np.int64),  # of the content that waits for the server's answer
        ("tls_orig_bytes", np.int64),
        ("tls_resp_bytes", np.int64),
        ("tls_left", np.int32),  # of the client's record at hand (events/tls_records.py)
        ("tls_handshakes", np.int32),  # its records of each kind
        ("tls_records", np.int32),
        ("tls_asks", np.int32),  # 1: it asks for something under TLS, or may do
        ("session", np.int64),
        ("orig_port", np.int32),
        ("resp_port", np.int32),
        ("vlan", np.int32),
        ("state", np.int32),  # FlowState
        ("service", np.int32),  # FrameStatus.MAIL or DNS
        ("flags", np.int32),  # EventFlag
        ("syns", np.int32),
        ("syn_ack", np.int32),
        ("refused", np.int32),
        # the SMTP dialogue (events/dialogue.py)
        ("client_mode", np.int32),
        ("server_mode", np.int32),
        ("eod_state", np.int32),
        ("cut_verb", np.int32),  # 1: the last command's verb or size may have been cut
        ("pending_head", np.int32),
        ("pending_count", np.int32),
        ("reply_flags", np.int32),
        ("reply_enhanced", np.int32),
        ("reply_lines", np.int32),
        ("reply_code", np.int32),  # of the lines so far of a reply that goes on
        (
            "has_cut_commands",
            np.int32,
        ),  # 1: DATA may be in what was not captured of the client's last commands
        ("commands", np.int32),
        ("replies", np.int32),
        ("transactions", np.int32),
        ("rcpt_commands", np.int32),
        ("rcpt_accepted", np.int32),
        ("messages", np.int32),
        ("messages_accepted", np.int32),
        ("message_open", np.int32),
        ("dialect", np.int32),  # hash of the commands up to the first MAIL, 0 none
    ]
)

#: One direction of a flow: row 2*f is the originator of flow f, row 2*f + 1 the responder.
SIDE_DTYPE = np.dtype(
    [
        ("next_seq", np.int64),  # the sequence number expected next, -1 not known
        ("acked", np.int64),  # the highest acknowledgement that the other side sent, -1 none
        ("payload_bytes", np.int64),
        ("packets", np.int64),
        ("message_seen", np.int64),  # DNS over TCP: bytes of the current message seen so far
        ("line_slot", np.int32),  # a broken line's buffer, NO_SLOT or SKIP_LINE
        ("line_len", np.int32),
        ("held_head", np.int32),  # first early segment, -1 none
        ("held_count", np.int32),
        ("fin", np.int32),  # 1: a FIN was seen
        ("reserved", np.int32),
        ("fin_seq", np.int64),  # the sequence number that it has
    ]
)

HELD_DTYPE = np.dtype([("seq", np.int64), ("length", np.int32), ("next", np.int32)])

#: Two addresses and what passes between them in a slot (events/transfers.py).
PAIR_DTYPE = np.dtype(
    [
        ("orig_hi", np.int64),
        ("orig_lo", np.int64),
        ("resp_hi", np.int64),
        ("resp_lo", np.int64),
        ("orig_mac", np.int64),
        ("resp_mac", np.int64),
        ("orig_bytes", np.int64),  # in the current slot
        ("resp_bytes", np.int64),
        ("spoke_ns", np.int64),  # when one of them sent bytes last, -1 free
        ("vlan", np.int32),
        ("service", np.int32),  # FrameStatus.MAIL or PEER
    ]
)
N_PAIRS = 2048

STATE_DTYPE = np.dtype(
    [
        ("now_ns", np.int64),  # packet time: the largest timestamp so far, -1 before the first packet
        ("sweep_row", np.int64),
        ("sweep_left", np.int64),  # rows that are due to be swept
        ("is_over", np.int64),  # 1: the run ends, nothing lingers
        ("next_flow_id", np.int64),
        ("line_free", np.int64),  # how many line buffers are free
        ("held_free", np.int64),
        ("slot", np.int64),  # the absolute number of the current slot of transfers
        ("n_pairs", np.int64),  # pairs that carried bytes in it
        ("peer_ns", np.int64),  # the last packet of somebody who mails that was no mail
        ("attempt_ns", np.int64),  # time-outs
        ("idle_ns", np.int64),
    ]
)


@by_pointer
class EventTables(NamedTuple):
    """State of the event kernels; see the dtypes above."""

    flows: NDArray[Any]  # FLOW_DTYPE[n], n a power of two
    sides: NDArray[Any]  # SIDE_DTYPE[2 * n]
    deadline_ns: NDArray[np.int64]  # i8[n]: packet time at which a row is due, NO_DEADLINE if it is free
    pending: NDArray[np.uint8]  # u8[n, MAX_PENDING]: ring of verbs that wait for their reply
    lines: NDArray[np.uint8]  # u8[slots * MAX_LINE_BYTES]
    line_stack: NDArray[np.int32]  # i4[slots]: free slots, state["line_free"] of them
    held: NDArray[Any]  # HELD_DTYPE[m]
    held_bytes: NDArray[np.uint8]  # u8[m * MAX_HELD_BYTES]
    held_stack: NDArray[np.int32]  # i4[m]: free rows of held
    duplicate_hashes: NDArray[np.int64]  # i8[N_RECENT], and when each was seen (events/duplicates.py)
    duplicate_ns: NDArray[np.int64]  # i8[N_RECENT]
    no_packet: NDArray[Any]  # PACKET_DTYPE[1]: stands for the packet where there is none
    pairs: NDArray[Any]  # PAIR_DTYPE[N_PAIRS]
    pairs_in_slot: NDArray[np.int32]  # i4[N_PAIRS]: rows of pairs with bytes, state["n_pairs"] of them
    state: NDArray[Any]  # STATE_DTYPE[1]
    totals: NDArray[np.int64]  # i8[N_TOTALS]
    weirds: NDArray[np.int64]  # i8[N_WEIRDS]
    evictions: NDArray[np.int64]  # i8[N_EVICTIONS]
    dns_message: NDArray[
        Any
    ]  # DNS_MESSAGE_DTYPE[1], and its records and names: decoded anew for each message
    dns_records: NDArray[Any]  # DNS_RECORD_DTYPE[MAX_RECORDS]
    dns_names: NDArray[np.uint8]  # u8[MAX_NAMES_BYTES]
    arp: NDArray[Any]  # ARP_DTYPE[1]
    dhcp: NDArray[Any]  # DHCP_DTYPE[1]
    nd: NDArray[Any]  # ND_DTYPE[1]
    dhcpv6: NDArray[Any]  # DHCPV6_DTYPE[1]
    facts: Facts


def new_event_tables(
    n_flows: int, n_line_buffers: int, n_held_segments: int, attempt_s: float, idle_s: float
) -> EventTables:
    """Allocate the tables; ``n_flows`` must be a power of two, the time-outs are in seconds of packet time."""
    state = np.zeros(1, dtype=STATE_DTYPE)
    state["now_ns"] = -1
    state["slot"] = -1
    state["peer_ns"] = -MEMORY_NS
    pairs = np.zeros(N_PAIRS, dtype=PAIR_DTYPE)
    pairs["spoke_ns"] = -1
    state["line_free"] = n_line_buffers
    state["held_free"] = n_held_segments
    state["attempt_ns"] = int(attempt_s * 1e9)
    state["idle_ns"] = int(idle_s * 1e9)
    return EventTables(
        flows=np.zeros(n_flows, dtype=FLOW_DTYPE),
        sides=np.zeros(2 * n_flows, dtype=SIDE_DTYPE),
        deadline_ns=np.full(n_flows, NO_DEADLINE, dtype=np.int64),
        pending=np.zeros((n_flows, MAX_PENDING), dtype=np.uint8),
        lines=np.zeros(n_line_buffers * MAX_LINE_BYTES, dtype=np.uint8),
        line_stack=np.arange(n_line_buffers, dtype=np.int32)[::-1].copy(),
        held=np.zeros(n_held_segments, dtype=HELD_DTYPE),
        held_bytes=np.zeros(n_held_segments * MAX_HELD_BYTES, dtype=np.uint8),
        held_stack=np.arange(n_held_segments, dtype=np.int32)[::-1].copy(),
        duplicate_hashes=np.full(N_RECENT, -1, dtype=np.int64),
        duplicate_ns=np.zeros(N_RECENT, dtype=np.int64),
        no_packet=np.zeros(1, dtype=PACKET_DTYPE),
        pairs=pairs,
        pairs_in_slot=np.zeros(N_PAIRS, dtype=np.int32),
        state=state,
        totals=np.zeros(N_TOTALS, dtype=np.int64),
        weirds=np.zeros(N_WEIRDS, dtype=np.int64),
        evictions=np.zeros(N_EVICTIONS, dtype=np.int64),
        dns_message=np.zeros(1, dtype=DNS_MESSAGE_DTYPE),
        dns_records=np.zeros(MAX_RECORDS, dtype=DNS_RECORD_DTYPE),
        dns_names=np.zeros(MAX_NAMES_BYTES, dtype=np.uint8),
        arp=np.zeros(1, dtype=ARP_DTYPE),
        dhcp=np.zeros(1, dtype=DHCP_DTYPE),
        nd=np.zeros(1, dtype=ND_DTYPE),
        dhcpv6=np.zeros(1, dtype=DHCPV6_DTYPE),
        facts=new_facts(),
    )
