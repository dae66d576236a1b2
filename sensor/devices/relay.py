"""Whether a device passes on what somebody else sends it.

What a proxy says to a mail server it was told a moment before by its controller, and what the server replies
goes back there. So over slots of a few seconds, as many bytes come from one peer as go out as mail, and as
many go to that peer as come back from mail servers, encrypted or not, whoever opened the connection. The
measure is the weighted Jaccard index of the two byte counts over all slots with mail: what agrees, slot by
slot, over what either side carried. A correlation would not do: it says "alike" of a stream a thousand times
as large.

It takes both directions. A mail server that fetches mail, or a web server with a contact form, is sent as much
as it mails, but hardly in the same seconds, and what it sends back is no server's replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sensor.devices.table import (
    DAY_NS,
    MAIL_IN,
    MAIL_OUT,
    N_PEERS,
    PEER_IN,
    PEER_OUT,
    DeviceTables,
)
from sensor.jit import i64, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Slots that the measure is shrunk by: that one exchange is like one mail proves nothing.
SHRINK_SLOTS = 2.0
_MAX_BYTES = (1 << 31) - 1


@inner
def agreement(slot: NDArray[np.int32], peer: int) -> tuple[int, int, int, int]:
    """Return what agrees and what either side carried in a slot: of mail sent, and of replies."""
    mail_out, mail_in = i64(slot[MAIL_OUT]), i64(slot[MAIL_IN])
    if mail_out + mail_in == 0:
        return i64(0), i64(0), i64(0), i64(0)
    peer_in, peer_out = i64(slot[PEER_IN + 2 * peer]), i64(slot[PEER_OUT + 2 * peer])
    return (
        min(mail_out, peer_in),
        max(mail_out, peer_in),
        min(mail_in, peer_out),
        max(mail_in, peer_out),
    )


@inner
def begin_slot(t: DeviceTables, row: int, slot: int) -> None:
    """Add the slot before to the sums of the peers, and clear it, if ``slot`` is a new one."""
    device = t.devices[row]
    if device["relay_slot"] == slot:
        return
    device["relay_slot"] = slot
    bytes_ = t.relay[row]
    for k in range(N_PEERS):
        peer = t.peers[row, k]
        if peer["last_ns"] != 0:
            same_out, all_out, same_in, all_in = agreement(bytes_, k)
            peer["same_out"] = peer["same_out"] + same_out
            peer["all_out"] = peer["all_out"] + all_out
            peer["same_in"] = peer["same_in"] + same_in
            peer["all_in"] = peer["all_in"] + all_in
            peer["n_slots"] = peer["n_slots"] + (1 if all_out + all_in > 0 else 0)
    for k in range(bytes_.size):
        bytes_[k] = 0


@inner
def find_peer(t: DeviceTables, row: int, hi: int, lo: int, ts_ns: int) -> int:
    """Return the place of a peer; the one that agrees least with the mail, then the one met longest ago, makes room."""
    worst = 0
    worst_same = i64(-1)
    for k in range(N_PEERS):
        peer = t.peers[row, k]
        is_free = peer["last_ns"] == 0
        if not is_free and peer["lo"] == lo and peer["hi"] == hi:
            peer["last_ns"] = ts_ns
            return k
        same = i64(-2) if is_free else i64(peer["same_out"]) + agreement(t.relay[row], k)[0]
        if ts_ns - peer["last_ns"] > DAY_NS:
            same = min(same, i64(-1))
        older = peer["last_ns"] < t.peers[row, worst]["last_ns"]
        if k == 0 or same < worst_same or (same == worst_same and older):
            worst = k
            worst_same = same
    peer = t.peers[row, worst]
    peer["hi"] = hi
    peer["lo"] = lo
    peer["last_ns"] = ts_ns
    peer["same_out"] = 0
    peer["all_out"] = 0
    peer["same_in"] = 0
    peer["all_in"] = 0
    peer["n_slots"] = 0
    t.relay[row, PEER_IN + 2 * worst] = 0
    t.relay[row, PEER_OUT + 2 * worst] = 0
    return worst


@inner
def add_bytes(t: DeviceTables, row: int, column: int, n: int) -> None:
    """Add to a column of the slot; what does not fit is as good as the largest number."""
    t.relay[row, column] = min(i64(t.relay[row, column]) + n, _MAX_BYTES)


@inner
def on_mail_transfer(t: DeviceTables, row: int, slot: int, sent: int, received: int) -> None:
    """Take the bytes that a device sent and received in a slot of a mail flow."""
    begin_slot(t, row, slot)
    add_bytes(t, row, MAIL_OUT, sent)
    add_bytes(t, row, MAIL_IN, received)


@inner
def on_peer_transfer(
    t: DeviceTables, row: int, slot: int, hi: int, lo: int, sent: int, received: int, ts_ns: int
) -> None:
    """Take the bytes that a device sent to a peer and received from it in a slot of a flow that is no mail."""
    begin_slot(t, row, slot)
    peer = find_peer(t, row, hi, lo, ts_ns)
    add_bytes(t, row, PEER_IN + 2 * peer, received)
    add_bytes(t, row, PEER_OUT + 2 * peer, sent)


@inner
def relay_symmetry(t: DeviceTables, row: int, now_ns: int) -> float:
    """Return how closely what a device sends as mail follows one peer, 0 to 1; NaN if it has no other traffic."""
    best = -1.0
    for k in range(N_PEERS):
        peer = t.peers[row, k]
        if peer["last_ns"] == 0 or now_ns - peer["last_ns"] > DAY_NS:
            continue
        same_out, all_out, same_in, all_in = agreement(t.relay[row], k)
        n_slots = i64(peer["n_slots"]) + (1 if all_out + all_in > 0 else 0)
        symmetry = min(
            (peer["same_out"] + same_out) / max(peer["all_out"] + all_out, 1),
            (peer["same_in"] + same_in) / max(peer["all_in"] + all_in, 1),
        )
        best = max(best, symmetry * n_slots / (n_slots + SHRINK_SLOTS))
    return best if best >= 0.0 else np.nan
