"""The device table: who is there, and what each device's mail looks like over the last day.

A device is found by its key: its MAC address or, behind a router, its IP address and VLAN. Rows are found by
hashing into a neighbourhood of MAX_PROBES rows; when all are taken, the device that was not seen for longest
makes room (Eviction.DEVICE), those without mail first. Counters slide over a day in SLOTS slots of two hours,
and over an hour in RECENT_SLOTS slots of five minutes.

A row that never mails never touches the larger part of its memory.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sensor.decode.status import N_EVICTIONS
from sensor.native import by_pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECOND_NS = 1_000_000_000
SLOTS = 12
SLOT_NS = 2 * 3600 * SECOND_NS
RECENT_SLOTS = 12
RECENT_SLOT_NS = 300 * SECOND_NS
DAY_NS = 24 * 3600 * SECOND_NS

MAX_PROBES = 16
#: Destinations of a device that are remembered one by one; beyond, HyperLogLog estimates (Flajolet 2007).
N_DESTINATIONS = 32
HLL_REGISTERS = 64  # standard error 1.04 / sqrt(64) = 13 % (per slot; slots are merged by maximum)
N_OPERATORS = 16
N_ADDRESSES = 8
#: IPv4 addresses that a host has at once; with more, it carries the traffic of others.
N_HOST_ADDRESSES = 4
#: What a device says of itself in words.
N_HINTS = 16
MAX_HINT_BYTES = 64
N_FLOW_EXAMPLES = 3
N_HELO = 4
N_RETRIES = 16
MAX_NAME_BYTES = 64

#: Outside ends of a device's other traffic that are compared with its mail.
N_PEERS = 8
#: Columns of ``relay``: bytes of mail to servers and from them; then for each peer, from it and to it.
MAIL_OUT, MAIL_IN, PEER_IN, PEER_OUT = range(4)
#: TCP fingerprints of a device's SYNs that are told apart.
N_FINGERPRINTS = 4

#: The latest sizes of messages, and pauses between connections, that are remembered.
N_SIZES = 16
N_PAUSES = 16

#: Bits of each of two Bloom filters (Bloom 1970) of the servers met in thirty days, and in the thirty before.
BLOOM_BITS = 2048
BLOOM_HASHES = 4  # 100 servers: one new server in 1,100 is taken for known
ERA_NS = 30 * DAY_NS
N_DIALECTS = 4

KEY_FREE, KEY_MAC, KEY_ADDRESS = 0, 1, 2


class Count(IntEnum):
    """What is counted for each device: over the last day, and in total."""

    SMTP25 = 0  # connections to port 25 outside
    SUBMISSION = 1  # connections to the other mail ports outside
    LOCAL = 2  # connections to mail servers inside
    INBOUND = 3  # connections from outside to the device's own mail ports
    INBOUND_LOCAL = 4  # ... from inside
    INBOUND_GREETED = 5  # ... on which the device answered as a mail server
    INBOUND_MESSAGES = 6  # ... messages that it accepted, or seems to have under TLS
    CLOSED = 7  # outbound connections that ended (the denominator of what follows)
    UNANSWERED = 8
    REFUSED = 9
    IDLE = 10  # ... that were captured whole and answered, and asked for nothing, in the clear or under TLS
    TLS = 11
    CLEARTEXT = 12
    ONE_SIDED = 13
    GAPS = 14
    MESSAGES = 15  # mail transactions that were read (MAIL)
    ACCEPTED = 16  # messages that were accepted
    RECIPIENTS = 17
    REPLIES = (
        18  # replies that decide: to RCPT, and refusals at any other place (the denominator of rejections)
    )
    REJECTED_4XX = 19
    REJECTED_5XX = 20
    BLOCKLISTED = 21
    AUTH_OK = 22
    AUTH_FAILED = 23
    RESOLVABLE = 24  # outbound connections at which the device's DNS was visible
    UNRESOLVED = 25  # ... and the address was in none of its answers
    DNS = 26  # queries
    DNS_OUTSIDE = 27  # ... to resolvers outside that are not the site's
    MX = 28
    DNSBL = 29
    TLS_EMPTY = 30  # encrypted connections too small for a message
    INFERRED = 31  # messages inferred from the size of an encrypted connection
    ANSWERED = 32  # replies of any kind
    DNS_ANSWERED = 33  # responses to the device's queries that were captured whole
    UNSEEN = 34  # mail transactions whose outcome was not captured
    CALLABLE = 35  # outbound connections at which the device's other traffic was watched
    CALLED = 36  # ... and somebody outside had spoken to it just before
    TIMED = 37  # outbound connections at which the device's usual hours were known
    ODD_HOUR = 38  # ... and this was none of them
    NEW_25 = 39  # connections to servers that it had not met for thirty days or more, on port 25
    NEW_SUBMISSION = 40  # ... on the other ports
    REFUSALS = 41  # replies of 400 and more to anything, greetings included


N_COUNTS = len(Count)
#: More of a kind in two hours is as good as this: no feature tells the difference.
MAX_COUNT = 65535


class Recent(IntEnum):
    """What is counted over the last hour too."""

    SMTP25 = 0
    SUBMISSION = 1
    MX = 2
    UNANSWERED = 3


N_RECENT = len(Recent)

DEVICE_DTYPE = np.dtype(
    [
        ("key_hi", np.int64),  # MAC, or the address's upper half
        ("key_lo", np.int64),
        ("mac", np.int64),  # the one that it has now, -1 not known
        ("serial", np.int64),  # number of the device in this run; a row that is used again gets a new one
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("mail_first_ns", np.int64),  # -1: has sent no mail
        ("mail_last_ns", np.int64),
        ("slot", np.int64),  # the absolute number of the current slot
        ("recent_slot", np.int64),
        ("active_days", np.int64),  # bit d: mailed d days ago
        ("active_day", np.int64),
        ("burst", np.float64),  # connections, fading with BURST_S
        ("burst_ns", np.int64),
        ("burst_since_ns", np.int64),  # since when there has always been one left
        ("step_bucket", np.int64),  # the five minutes in which it was judged last
        ("connections", np.int64),  # outbound mail connections in total
        ("evidence", np.int64),  # all that counts as new evidence, in total
        ("evidence_at_step", np.int64),
        ("usual_day", np.float64),  # connections of a usual day, NaN before the first whole one
        ("usual_reject", np.float64),
        ("day_connections", np.int64),
        ("day_replies", np.int64),
        ("day_rejected", np.int64),
        ("called_ns", np.int64),  # when somebody outside spoke to it last, unasked; -1 never
        ("relay_slot", np.int64),  # the absolute number of the slot that ``relay`` is of
        ("key_kind", np.int32),
        ("key_vlan", np.int32),  # part of an address key, -1 for a MAC
        ("vlan", np.int32),  # the tag seen last, -1 none
        ("has_mail", np.int32),
        ("is_dirty", np.int32),
        ("in_window", np.int32),
        ("is_accused", np.int32),  # 1: an alert is open, so that nothing about it is urgent any more
        ("has_aliases", np.int32),  # 1: is met under other MAC addresses than its key, too
        ("is_known_server", np.int32),
        ("is_appliance", np.int32),  # 1: says that it is a thing with one mail server in its settings
        ("is_kind_known", np.int32),  # 0: has said more of itself since that was looked at
        ("is_resolver", np.int32),  # answers DNS queries of others
        ("helo_kinds", np.int32),  # bits of HeloKind
        ("host_name_len", np.int32),
        ("destinations_lost", np.int32),  # 1: more than fit were there, use HyperLogLog
        ("n_examples", np.int32),
        ("usual_days", np.int32),
        ("era", np.int32),  # the absolute number of the thirty days that the first Bloom filter is of
        ("day_hours", np.int32),  # bit h: mailed in hour h of the current day (UTC)
        ("usual_hours", np.int32),  # ... of a finished one
        ("n_sizes", np.int32),  # in total
        ("n_pauses", np.int32),
    ]
)

DESTINATION_DTYPE = np.dtype(
    [
        ("hi", np.int64),
        ("lo", np.int64),
        ("last_ns", np.int64),  # 0: free
        ("port", np.int32),
        ("day", np.int32),  # the absolute day that ``count`` is of
        ("count", np.int32),
        ("count_before", np.int32),  # of the day before
    ]
)
OPERATOR_DTYPE = np.dtype(
    [
        ("operator", np.int64),
        ("last_25_ns", np.int64),  # the last connection to its port 25, 0 none
        ("last_submission_ns", np.int64),  # ... to another mail port
        ("last_auth_failed_ns", np.int64),  # the last login that failed there
    ]
)
#: A fact of events/types.py: FactKind, 0 free; FactSource; bytes of text.
HINT_DTYPE = np.dtype([("what", np.int16), ("source", np.int16), ("length", np.int32)])
ADDRESS_DTYPE = np.dtype([("hi", np.int64), ("lo", np.int64), ("last_ns", np.int64)])
FLOW_EXAMPLE_DTYPE = np.dtype(
    [
        ("flow_id", np.int64),
        ("ts_ns", np.int64),
        ("orig_hi", np.int64),
        ("orig_lo", np.int64),
        ("resp_hi", np.int64),
        ("resp_lo", np.int64),
        ("orig_port", np.int32),
        ("resp_port", np.int32),
        ("fate", np.int32),
        ("name_len", np.int32),
    ]
)
#: Byte counts over the slots with mail: what agrees, and what either side carried; of mail sent, and of replies.
PEER_DTYPE = np.dtype(
    [
        ("hi", np.int64),
        ("lo", np.int64),
        ("last_ns", np.int64),  # 0: free
        ("same_out", np.int64),
        ("all_out", np.int64),
        ("same_in", np.int64),
        ("all_in", np.int64),
        ("n_slots", np.int64),  # with mail in them, since it was met
    ]
)
RETRY_DTYPE = np.dtype([("hi", np.int64), ("lo", np.int64), ("since_ns", np.int64)])

#: Which device was told which address, and under which name.
ANSWER_DTYPE = np.dtype(
    [
        (
            "serial",
            np.int64,
        ),  # of the device; SITE_SERIAL: told to a resolver of the site, so to anyone; -1 free
        ("hi", np.int64),
        ("lo", np.int64),
        ("expires_ns", np.int64),
        ("operator", np.int64),
        ("name_len", np.int64),
    ]
)
SITE_SERIAL = 0
#: The name under which a server itself goes, by its greeting or its certificate's name: nobody was told by DNS.
SERVER_SERIAL = 1 << 62

#: Which MAC address said that it has which address.
NEIGHBOUR_DTYPE = np.dtype(
    [
        ("hi", np.int64),
        ("lo", np.int64),
        ("mac", np.int64),  # 0 free
        ("lease_mac", np.int64),  # the client to which a DHCP server gave it last, 0 none
        ("last_ns", np.int64),
        ("vlan", np.int32),
        ("is_on_link", np.int32),  # 1: said by neighbour discovery or DHCPv6, which no router passes on
    ]
)
#: Senders of packets from addresses outside.
ROUTER_DTYPE = np.dtype(
    [
        ("mac", np.int64),  # 0 free
        ("network", np.int64),  # upper half of the IPv6 address outside that it sent for last, 0 none
        ("n_networks", np.int64),
        ("is_sure", np.int64),
    ]
)
#: What a DHCP client is told from others by, and the MAC address that it had last, -1 if it is not one client's alone.
IDENTITY_DTYPE = np.dtype([("identity", np.int64), ("mac", np.int64)])
#: Whose a flow is, where its frames do not tell: the row, and which device had it then.
FLOW_OWNER_DTYPE = np.dtype([("flow", np.int64), ("serial", np.int64), ("row", np.int64)])
#: A MAC address that software drew, and the first one that its device had.
ALIAS_DTYPE = np.dtype([("mac", np.int64), ("first_mac", np.int64)])

CLOCK_DTYPE = np.dtype(
    [
        ("now_ns", np.int64),
        ("next_tick_ns", np.int64),
        ("next_serial", np.int64),
        ("n_dirty", np.int64),
        ("home_seen", np.int64),  # events with an end in the home networks
        ("is_due", np.int64),  # what the caller has to do before it goes on: DUE_* of activity.py
        ("wake_ns", np.int64),  # packet time at which the caller wants to be called in any case
        ("n_window", np.int64),
        ("excepted", np.int64),  # mail connections that an exception covers
        ("called", np.int64),  # mail connections to servers outside
        ("answered", np.int64),  # events in which somebody outside answered: what a one-way mirror lacks
        ("elsewhere", np.int64),  # mail connections of which no end is at home
        (
            "stranger_hi",
            np.int64,
        ),  # who makes most of these, if anybody makes more than half (Boyer and Moore 1981)
        ("stranger_lo", np.int64),
        ("stranger_lead", np.int64),
    ]
)

#: An exception: whose mail to where is accepted, until when. Addresses are networks, as home_nets.
EXCEPTION_DTYPE = np.dtype(
    [
        ("expires_ns", np.int64),
        ("device_mac", np.int64),  # -1: any
        ("has_device_net", np.int64),
        ("has_destination_net", np.int64),
        ("device_name_len", np.int64),  # 0: any
        ("domain_len", np.int64),  # 0: any
    ]
)


@by_pointer
class DeviceTables(NamedTuple):
    """State of the device kernels; n = number of rows, a power of two."""

    devices: NDArray[Any]  # DEVICE_DTYPE[n]
    addresses: NDArray[Any]  # ADDRESS_DTYPE[n, N_ADDRESSES]
    host_names: NDArray[np.uint8]  # u8[n, MAX_NAME_BYTES]: by DHCP
    hints: NDArray[Any]  # HINT_DTYPE[n, N_HINTS]
    hint_texts: NDArray[np.uint8]  # u8[n, N_HINTS, MAX_HINT_BYTES]
    counts: NDArray[np.uint16]  # u2[n, SLOTS, N_COUNTS], up to MAX_COUNT
    totals: NDArray[np.int64]  # i8[n, N_COUNTS]
    recent: NDArray[np.int32]  # i4[n, RECENT_SLOTS, N_RECENT]
    destinations: NDArray[Any]  # DESTINATION_DTYPE[n, N_DESTINATIONS]
    registers: NDArray[np.uint8]  # u8[n, SLOTS, HLL_REGISTERS]
    operators: NDArray[Any]  # OPERATOR_DTYPE[n, N_OPERATORS]
    helo: NDArray[np.int64]  # i8[n, N_HELO]: hashes of EHLO names, 0 free
    retries: NDArray[Any]  # RETRY_DTYPE[n, N_RETRIES]
    retry_counts: NDArray[np.int64]  # i8[n, 2]: deferred mail that was tried again; that was not
    peers: NDArray[Any]  # PEER_DTYPE[n, N_PEERS]
    relay: NDArray[np.int32]  # i4[n, 2 + 2 * N_PEERS]: bytes in the latest slot, see MAIL_OUT
    fingerprints: NDArray[np.int32]  # i4[n, 2, N_FINGERPRINTS]: of SYNs that are no mail; of mail; 0 free
    sizes: NDArray[np.int32]  # i4[n, N_SIZES]: bytes of the latest messages, a ring
    pauses: NDArray[np.int32]  # i4[n, N_PAUSES]: ms between the latest connections, a ring
    blooms: NDArray[np.uint8]  # u8[n, 2, BLOOM_BITS / 8]: the place of an era is its number modulo 2
    dialects: NDArray[np.int32]  # i4[n, N_DIALECTS]: orders of commands, 0 free
    examples: NDArray[Any]  # FLOW_EXAMPLE_DTYPE[n, N_FLOW_EXAMPLES]
    example_names: NDArray[np.uint8]  # u8[n, N_FLOW_EXAMPLES, MAX_NAME_BYTES]
    answers: NDArray[Any]  # ANSWER_DTYPE[m]
    answer_names: NDArray[np.uint8]  # u8[m, MAX_NAME_BYTES]
    routers: NDArray[Any]  # ROUTER_DTYPE[N_ROUTERS]
    neighbours: NDArray[Any]  # NEIGHBOUR_DTYPE[2 * n]
    identities: NDArray[Any]  # IDENTITY_DTYPE[N_IDENTITIES]
    aliases: NDArray[Any]  # ALIAS_DTYPE[N_IDENTITIES]
    flow_owners: NDArray[Any]  # FLOW_OWNER_DTYPE[2 * n]
    home_nets: NDArray[np.int64]  # i8[k, 4]: network and mask, two halves each
    known_servers: NDArray[np.int64]  # i8[k, 4], as home_nets
    known_server_macs: NDArray[np.int64]  # i8[k]
    resolvers: NDArray[np.int64]  # i8[k, 4]
    exceptions: NDArray[Any]  # EXCEPTION_DTYPE[k]
    exception_nets: NDArray[np.int64]  # i8[2 * k, 4]: row 2 * e the device's, 2 * e + 1 the destination's
    exception_names: NDArray[
        np.uint8
    ]  # u8[2 * k, MAX_DOMAIN_BYTES]: host name of the device, domain of the destination
    suffix_rules: NDArray[np.int64]  # i8[k], sorted: the Public Suffix List, see suffixes.py
    dirty: NDArray[np.int64]  # i8[n]: rows with news since the last tick
    window: NDArray[np.int64]  # i8[n]: rows with mail in the current window
    day: NDArray[np.int64]  # i8[N_COUNTS]: scratch for the sums over a day
    hour: NDArray[np.int64]  # i8[N_RECENT]: ... and over an hour
    clock: NDArray[Any]  # CLOCK_DTYPE[1]
    evictions: NDArray[np.int64]  # i8[N_EVICTIONS]


N_ROUTERS = 256
N_IDENTITIES = 4096
MAX_DOMAIN_BYTES = 255
NEVER_NS = np.iinfo(np.int64).max


class Site(NamedTuple):
    """What the configuration says of the site, and a list of the world, as arrays; see DeviceTables."""

    home_nets: NDArray[np.int64]
    known_servers: NDArray[np.int64]
    known_server_macs: NDArray[np.int64]
    resolvers: NDArray[np.int64]
    exceptions: NDArray[Any]
    exception_nets: NDArray[np.int64]
    exception_names: NDArray[np.uint8]
    suffix_rules: NDArray[np.int64]


def new_device_tables(n_devices: int, n_answers: int, site: Site) -> DeviceTables:
    """Allocate the tables; both sizes must be powers of two. Rows cost memory when they are first used."""
    clock = np.zeros(1, dtype=CLOCK_DTYPE)
    clock["now_ns"] = -1
    clock["next_tick_ns"] = -1
    clock["wake_ns"] = NEVER_NS
    clock["next_serial"] = SITE_SERIAL + 1
    answers = np.zeros(n_answers, dtype=ANSWER_DTYPE)
    answers["serial"] = -1
    return DeviceTables(
        devices=np.zeros(n_devices, dtype=DEVICE_DTYPE),
        addresses=np.zeros((n_devices, N_ADDRESSES), dtype=ADDRESS_DTYPE),
        host_names=np.zeros((n_devices, MAX_NAME_BYTES), dtype=np.uint8),
        hints=np.zeros((n_devices, N_HINTS), dtype=HINT_DTYPE),
        hint_texts=np.zeros((n_devices, N_HINTS, MAX_HINT_BYTES), dtype=np.uint8),
        counts=np.zeros((n_devices, SLOTS, N_COUNTS), dtype=np.uint16),
        totals=np.zeros((n_devices, N_COUNTS), dtype=np.int64),
        recent=np.zeros((n_devices, RECENT_SLOTS, N_RECENT), dtype=np.int32),
        destinations=np.zeros((n_devices, N_DESTINATIONS), dtype=DESTINATION_DTYPE),
        registers=np.zeros((n_devices, SLOTS, HLL_REGISTERS), dtype=np.uint8),
        operators=np.zeros((n_devices, N_OPERATORS), dtype=OPERATOR_DTYPE),
        helo=np.zeros((n_devices, N_HELO), dtype=np.int64),
        retries=np.zeros((n_devices, N_RETRIES), dtype=RETRY_DTYPE),
        retry_counts=np.zeros((n_devices, 2), dtype=np.int64),
        peers=np.zeros((n_devices, N_PEERS), dtype=PEER_DTYPE),
        relay=np.zeros((n_devices, 2 + 2 * N_PEERS), dtype=np.int32),
        fingerprints=np.zeros((n_devices, 2, N_FINGERPRINTS), dtype=np.int32),
        sizes=np.zeros((n_devices, N_SIZES), dtype=np.int32),
        pauses=np.zeros((n_devices, N_PAUSES), dtype=np.int32),
        blooms=np.zeros((n_devices, 2, BLOOM_BITS // 8), dtype=np.uint8),
        dialects=np.zeros((n_devices, N_DIALECTS), dtype=np.int32),
        examples=np.zeros((n_devices, N_FLOW_EXAMPLES), dtype=FLOW_EXAMPLE_DTYPE),
        example_names=np.zeros((n_devices, N_FLOW_EXAMPLES, MAX_NAME_BYTES), dtype=np.uint8),
        answers=answers,
        answer_names=np.zeros((n_answers, MAX_NAME_BYTES), dtype=np.uint8),
        routers=np.zeros(N_ROUTERS, dtype=ROUTER_DTYPE),
        neighbours=np.zeros(2 * n_devices, dtype=NEIGHBOUR_DTYPE),
        identities=np.zeros(N_IDENTITIES, dtype=IDENTITY_DTYPE),
        aliases=np.zeros(N_IDENTITIES, dtype=ALIAS_DTYPE),
        flow_owners=np.zeros(2 * n_devices, dtype=FLOW_OWNER_DTYPE),
        **site._asdict(),
        dirty=np.zeros(n_devices, dtype=np.int64),
        window=np.zeros(n_devices, dtype=np.int64),
        day=np.zeros(N_COUNTS, dtype=np.int64),
        hour=np.zeros(N_RECENT, dtype=np.int64),
        clock=clock,
        evictions=np.zeros(N_EVICTIONS, dtype=np.int64),
    )
