"""tshark's view of captures beside ours: SMTP commands and replies, DNS queries, SYNs to mail ports; and innermost
addresses and ports, and how many frames a file holds.

    python -m tests.oracle CAPTURE...

prints both and exits with 1 if they differ. test_differential.py compares them for every shared capture.

tshark is read through pyshark, in one pass over each file, and told everything that its user's preferences
could change: no name resolution, mail ports are SMTP, TCP streams are put together and in order. The TLS
dissector stays on, without keys: SMTP hands over to it after STARTTLS, and without it tshark reads ciphertext
as commands.

What tshark counts differently by design is put right here, where one rule does it:

- A command field holds four bytes ("STAR"): the verb is read from the command line. Verbs that
  sensor.events.types.Verb does not name are OTHER. An empty line is no command.
- SMTP is counted on mail ports only: tshark also finds it inside SOCKS.
- Headers that an ICMP error quotes are not packets.
- A DNS query is a message to or from port 53 (not mDNS, not LLMNR) with QR 0 and opcode 0 (QUERY; not NOTIFY,
  not UPDATE). It is counted once, by its first question.

The rest is listed, capture by capture, in differential_known.tsv.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyshark
from pyshark.capture.capture import TSharkCrashException

from sensor.capture.merge import open_captures
from sensor.config import Config
from sensor.events.types import EventKind, Verb
from sensor.notation import address_text
from sensor.pipeline import Pipeline
from tests import reference
from tests.builders_capture import enhanced_packet, interface, read_frames, section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pyshark.packet.layers.xml_layer import XmlLayer
    from pyshark.packet.packet import Packet

    from sensor.errors import CaptureError
    from tests.builders_capture import Frame

CONFIG = Config()
DNS_PORT = 53

_MAIL_PORTS = f"{{{', '.join(map(str, CONFIG.mail_ports))}}}"
_SMTP = f"smtp && tcp.port in {_MAIL_PORTS}"
_SYN = f"tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.dstport in {_MAIL_PORTS}"
_QUERY = (
    f"dns.flags.response == 0 && dns.flags.opcode == 0 && (udp.port == {DNS_PORT} || tcp.port == {DNS_PORT})"
)
DISPLAY_FILTER = f"(({_SMTP}) || ({_SYN}) || ({_QUERY})) && !icmp && !icmpv6"

PREFERENCES = {
    "tcp.desegment_tcp_streams": "TRUE",
    "tcp.reassemble_out_of_order": "TRUE",
    "tcp.analyze_sequence_numbers": "TRUE",  # without it, retransmissions are dissected again
    "ip.defragment": "TRUE",
    "ipv6.defragment": "TRUE",
    "smtp.desegment_lines": "TRUE",
    "smtp.decryption": "FALSE",  # leave AUTH lines as they are
    "dns.desegment_dns_messages": "TRUE",
    "tls.keylog_file": "",
}
DECODE_AS = {f"tcp.port=={port}": "smtp" for port in CONFIG.mail_ports}


@dataclass
class Counts:
    """What one side saw in a capture; by verb, by reply code, by query type as a number, and "SYN"."""

    commands: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    mail_syns: Counter[str] = field(default_factory=Counter)


#: What is compared, as the table of known differences names it: what both sides count in one capture ...
QUANTITIES = ("commands", "replies", "queries", "mail_syns")
#: ... and what they see of its frames.
FRAME_QUANTITIES = ("endpoints", "frames")


@dataclass(frozen=True)
class Difference:
    """One quantity on which the two sides disagree; only the names that differ, as "DATA=1 MAIL=0"."""

    quantity: str
    ours: str
    theirs: str


def differences(ours: Counts, theirs: Counts) -> list[Difference]:
    """Return what the two sides disagree on, in the order of QUANTITIES."""
    found = []
    for quantity in QUANTITIES:
        a: Counter[str] = getattr(ours, quantity)
        b: Counter[str] = getattr(theirs, quantity)
        names = sorted(name for name in a | b if a[name] != b[name])
        if names:
            a_side, b_side = (" ".join(f"{name}={side[name]}" for name in names) for side in (a, b))
            found.append(Difference(quantity, a_side, b_side))
    return found


def tshark_counts(path: Path) -> Counts:
    """Count what tshark sees in a capture. Raises TSharkCrashException if it cannot read the file at all."""
    counts = Counts()
    for packet in _packets(path):
        for layer in packet.layers:
            if layer.layer_name == "smtp":
                _count_smtp(layer, counts)
            elif layer.layer_name == "dns":
                _count_dns(layer, counts)
            elif layer.layer_name == "tcp" and _is_mail_syn(layer):
                counts.mail_syns["SYN"] += 1
    return counts


class _TsharkRun(pyshark.FileCapture):
    """A FileCapture that waits for tshark's exit status; pyshark's own kills tshark when its output ends."""

    async def _cleanup_subprocess(self, process: asyncio.subprocess.Process) -> None:
        self._running_processes.discard(process)
        if self._eof_reached:
            await process.wait()
        await super()._cleanup_subprocess(process)


def _packets(path: Path) -> Iterator[Packet]:
    seen = False
    # A loop of our own: pyshark would install a child watcher, which newer Pythons do not have.
    with asyncio.Runner() as runner:
        capture = _TsharkRun(
            path,
            keep_packets=False,
            eventloop=runner.get_loop(),
            decode_as=DECODE_AS,
            override_prefs=PREFERENCES,
            # The filter is not in display_filter: for that, pyshark asks for tshark's version each time.
            custom_parameters=["-n", "-Y", DISPLAY_FILTER, "-J", "tcp smtp dns"],
        )
        with capture:
            try:
                for packet in capture:
                    seen = True
                    yield packet
            except TSharkCrashException:
                # Damaged files end so, too: what precedes the damage counts, for tshark as for us.
                if not seen:
                    raise


def _values(layer: XmlLayer, name: str) -> list[str]:
    container = layer.get_field(name)
    return [] if container is None else [str(item.show) for item in container.all_fields]


def _is_set(layer: XmlLayer, flag: str) -> bool:
    return _values(layer, flag) in (["1"], ["True"])


def _count_smtp(layer: XmlLayer, counts: Counts) -> None:
    for line in _values(layer, "smtp.command_line"):
        words = line.split(maxsplit=1)
        if words:
            verb = words[0].upper()
            counts.commands[verb if verb in Verb.__members__ else Verb.OTHER.name] += 1
    counts.replies.update(_values(layer, "smtp.response.code"))


def _count_dns(layer: XmlLayer, counts: Counts) -> None:
    # Asked again: a segment that the display filter let through may hold other messages as well.
    if not _is_set(layer, "dns.flags.response") and _values(layer, "dns.flags.opcode") == ["0"]:
        counts.queries.update(_values(layer, "dns.qry.type")[:1])


def _is_mail_syn(layer: XmlLayer) -> bool:
    if not _is_set(layer, "tcp.flags.syn") or _is_set(layer, "tcp.flags.ack"):
        return False
    return int(layer.get_field("tcp.dstport")) in CONFIG.mail_ports


def our_counts(path: Path) -> Counts:
    """Count what the sensor sees in a capture, from its events. Raises CaptureError if it is unreadable."""
    counts = Counts()

    def count(events: NDArray[Any], _text: NDArray[np.uint8]) -> None:
        for kind, code in zip(events["kind"].tolist(), events["code"].tolist(), strict=True):
            if kind == EventKind.SMTP_COMMAND:
                counts.commands[Verb(code).name] += 1
            elif kind == EventKind.SMTP_REPLY:
                counts.replies[str(code)] += 1
            elif kind == EventKind.DNS_QUERY:
                counts.queries[str(code)] += 1

    problems: list[CaptureError] = []
    pipeline = Pipeline(CONFIG, on_alert=lambda _alert: None, on_events=count)
    with open_captures([path], on_problem=problems.append) as batches:
        for batch in batches:
            pipeline.feed(batch)
    pipeline.finish()
    stats = pipeline.stats()
    if stats["packets"] == 0 and problems:
        raise problems[0]
    counts.mail_syns["SYN"] = stats["mail_syns"]
    return counts


# --- frame by frame, many captures at once ---

_ENDPOINT_FIELDS = (
    *("frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst"),
    *("tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport"),
    *("dns.flags.response", "dns.flags.opcode", "dns.qry.type"),
)
# Each frame by itself: nothing is put together from several, so captures can share a run.
_FRAME_BY_FRAME = {
    "ip.defragment": "FALSE",
    "ipv6.defragment": "FALSE",
    "tcp.desegment_tcp_streams": "FALSE",
    "tcp.analyze_sequence_numbers": "FALSE",
}


@dataclass(frozen=True)
class FrameView:
    """What tshark sees in one frame: the innermost ends as text, and the DNS query of a datagram, if it is one."""

    ends: str
    query: str
    ports: frozenset[str]  # all that it saw, as "tcp 25"


def read_all(path: Path) -> list[Frame]:
    """Read a capture as the sensor does, up to where it is damaged."""
    with open_captures([path], on_problem=lambda _problem: None) as batches:
        return read_frames(batches)


def tshark_frame_views(frames: Sequence[Frame], scratch: Path) -> list[FrameView]:
    """Let tshark look at frames of any captures and link types in one run, by way of the pcapng file ``scratch``."""
    links: dict[int, int] = {}
    with scratch.open("wb") as file:
        file.write(section())
        for frame in frames:
            if frame.link_type not in links:
                links[frame.link_type] = len(links)
                file.write(interface(link_type=frame.link_type & 0xFFFF))
            number = links[frame.link_type]
            file.write(enhanced_packet("<", number, 0, frame.data, frame.wire_len & 0xFFFFFFFF))
    options = [word for name, value in _FRAME_BY_FRAME.items() for word in ("-o", f"{name}:{value}")]
    fields = [word for name in _ENDPOINT_FIELDS for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(scratch), "-T", "fields", "-E", "occurrence=a", *options, *fields]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]
    if len(lines) != len(frames):
        raise RuntimeError(f"tshark saw {len(lines)} of {len(frames)} frames")
    return [_frame_view(line) for line in lines]


def _frame_view(line: str) -> FrameView:
    protocols, *columns = line.split("\t")
    ip4, ip6, tcp, udp = ([column.split(",") for column in columns[at : at + 2]] for at in (0, 2, 4, 6))
    response, opcode, qtype = columns[8:]
    seen: Counter[str] = Counter()
    network = transport = None
    for protocol in protocols.split(":"):
        if protocol in ("icmp", "icmpv6"):
            break  # what an error quotes is no packet
        if protocol in ("ip", "ipv6"):
            network, transport = (ip4 if protocol == "ip" else ip6, seen[protocol]), None
        elif protocol in ("tcp", "udp"):
            transport = (tcp if protocol == "tcp" else udp, seen[protocol])
        seen[protocol] += 1
    ports = frozenset(
        f"{name} {port}" for name, sides in (("tcp", tcp), ("udp", udp)) for side in sides for port in side
    )
    is_error = not {"icmp", "icmpv6"}.isdisjoint(protocols.split(":"))
    is_query = response in ("0", "False") and opcode == "0" and f"udp {DNS_PORT}" in ports
    return FrameView(
        _ends_text(network, transport),
        qtype.split(",")[0] if is_query and qtype and not is_error else "",
        ports,
    )


def _ends_text(
    network: tuple[list[list[str]], int] | None, transport: tuple[list[list[str]], int] | None
) -> str:
    if network is None or transport is None:
        return "-"
    (sources, destinations), at = network
    (src_ports, dst_ports), port_at = transport
    if at >= len(sources) or port_at >= len(src_ports) or not sources[at] or not src_ports[port_at]:
        return "-"
    return f"{sources[at]} {src_ports[port_at]} > {destinations[at]} {dst_ports[port_at]}"


def our_ends(frame: Frame) -> str:
    """Write the innermost ends that tests/reference.py sees; test_packets.py holds the kernel to it."""
    ends = reference.innermost_ends(frame.data, wire_len=frame.wire_len, link_type=frame.link_type)
    if ends is None:
        return "-"
    source, destination = (
        address_text(ends.get(f"{end}_hi", 0), ends[f"{end}_lo"]) for end in ("src", "dst")
    )
    return f"{source} {ends['src_port']} > {destination} {ends['dst_port']}"


def endpoint_difference(frames: Sequence[Frame], views: Sequence[FrameView]) -> Difference | None:
    """Return how many frames of a capture differ, and both sides of the first (frame numbers are from 1)."""
    differing = [
        (number, ours, view.ends)
        for number, (frame, view) in enumerate(zip(frames, views, strict=True), 1)
        if (ours := our_ends(frame)) != view.ends
    ]
    if not differing:
        return None
    number, ours, theirs = differing[0]
    return Difference("endpoints", f"{len(differing)}: p{number} {ours}", theirs)


def frames_in_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Return how many frames Wireshark's reader finds in each file, up to where it is damaged; "-" if it cannot."""
    command = ["capinfos", "-c", "-T", "-r", "-M", *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {
        Path(name): count
        for count, name in re.findall(r'after reading (\d+) packets from "(.+)"', result.stderr)
    }
    found |= {Path(name): count for name, count in re.findall(r"^(.+)\t(\d+)$", result.stdout, re.MULTILINE)}
    return {path: found.get(path, "-") for path in paths}


def main(paths: list[str]) -> int:
    """Print both sides for each capture; return 1 if they differ anywhere."""
    status = 0
    for path in map(Path, paths):
        ours, theirs = our_counts(path), tshark_counts(path)
        print(path)
        for side, counts in (("ours", ours), ("tshark", theirs)):
            for quantity in QUANTITIES:
                print(f"  {side:6}  {quantity:9}  {_listed(getattr(counts, quantity))}")
        for found in differences(ours, theirs):
            status = 1
            print(f"  differ  {found.quantity:9}  ours {found.ours} | tshark {found.theirs}")
    return status


def _listed(counter: Counter[str]) -> str:
    return " ".join(f"{name}={counter[name]}" for name in sorted(+counter)) or "-"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
