"""Make the benchmark's captures: ``dense`` (mail and its DNS, nothing else) and ``mix`` (an office network).

    python bench/generate.py dense build/bench/dense.pcap
    python bench/generate.py mix build/bench/mix.pcap --scale 10

The same arguments give the same bytes. Beside the capture a ``.json`` says what is in it, which is what a
reader of the capture must find. Addresses inside are 10.0.0.0/8, outside 198.18.0.0/15 (RFC 2544); names end
in ``example`` (RFC 2606).

How it works: plain Python writes the dialogues, as payloads in one long pool; NumPy gives every packet its
time and sequence numbers; one compiled function writes headers, payload and checksums in the order of time.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10
TCP, UDP = 6, 17
OPAQUE, TLS, QUIC = 0, 1, 2  # how the first bytes of a random payload are dressed
# Kinds of flows that are neither mail nor DNS: name, share, protocol, server's port (0: any), dress.
KINDS = (
    ("tls", 0.60, TCP, 443, TLS),
    ("quic", 0.25, UDP, 443, QUIC),
    ("http", 0.08, TCP, 80, OPAQUE),
    ("other", 0.07, UDP, 0, OPAQUE),
)

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
SYN_OPTIONS = np.frombuffer(
    bytes.fromhex("020405b4 0402 01 030307 0101"), np.uint8
)  # MSS, SACK, window scale
MSS = 1460
SLAB_PACKETS = 200_000
START_NS = 1_700_000_000 * 10**9
DNS_TURN_NS, WEB_TURN_NS, MAIL_TURN_NS = 10_000_000, 15_000_000, 300_000_000  # mean time to an answer

FLOW = np.dtype(
    [
        ("protocol", "u1"),
        ("client", "u4"),
        ("server", "u4"),
        ("client_port", "u2"),
        ("server_port", "u2"),
        ("start_ns", "i8"),
        ("turn_ns", "i8"),  # mean time until the other side answers
    ]
)
PACKET = np.dtype(
    [
        ("flow", "i4"),
        ("from_server", "?"),
        ("flags", "u1"),
        ("at", "i8"),  # of the payload, in the pool
        ("length", "i4"),
        ("dress", "u1"),
        ("ts_ns", "i8"),
        ("seq", "u4"),
        ("ack", "u4"),
    ]
)

LOCAL_NET = 10 << 24
RESOLVERS = (LOCAL_NET + 53, LOCAL_NET + 54)
MX_NET = (198 << 24) + (18 << 16)
WEB_NET = (198 << 24) + (19 << 16)


@dataclass(frozen=True)
class Plan:
    """The size of one capture, before ``--size`` and ``--scale``."""

    span_s: float
    devices: int
    mx_hosts: int
    dialogues: int
    lookups: int = 0  # plain DNS look-ups
    web_flows: int = 0
    web_packets: int = 0


PLANS = {
    "dense": Plan(span_s=600, devices=500, mx_hosts=2_000, dialogues=70_000),
    "mix": Plan(
        span_s=300,
        devices=2_000,
        mx_hosts=400,
        dialogues=880,
        lookups=4_360,
        web_flows=20_000,
        web_packets=1_680_000,
    ),
}


@dataclass
class Script:
    """Flows that Python wrote, packet by packet, and what a reader must find in them."""

    flows: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    flow: array[int] = field(default_factory=lambda: array("i"))
    from_server: array[int] = field(default_factory=lambda: array("b"))
    flags: array[int] = field(default_factory=lambda: array("B"))
    payloads: list[bytes] = field(default_factory=list)
    truth: Counter[str] = field(default_factory=Counter)

    def packet(self, from_server: int, payload: bytes = b"", flags: int = ACK) -> None:
        self.flow.append(len(self.flows) - 1)
        self.from_server.append(from_server)
        self.flags.append(flags | (PSH if payload else 0))
        self.payloads.append(payload)

    def packets(self) -> Array:
        """Return the packets; ``at`` counts from the first byte of the joined payloads."""
        rows = np.zeros(len(self.flow), PACKET)
        rows["flow"] = self.flow
        rows["from_server"] = np.asarray(self.from_server)
        rows["flags"] = self.flags
        rows["length"] = np.fromiter(map(len, self.payloads), np.int32, len(self.payloads))
        rows["at"] = np.cumsum(rows["length"], dtype=np.int64) - rows["length"]
        return rows


# --- the dialogues -------------------------------------------------------------------------------------

WORDS = ("invoice", "meeting", "camera", "report", "motion", "printer", "toner", "order", "update", "ticket")
BANNERS = ("ESMTP Postfix", "ESMTP Exim 4.96", "ESMTP ready", "Microsoft ESMTP MAIL Service ready", "ESMTP")
EXTENSIONS = (
    ("PIPELINING", "SIZE 52428800", "ETRN", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "CHUNKING"),
    ("SIZE 36700160", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "BINARYMIME", "CHUNKING"),
    ("SIZE 157286400", "8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING", "SMTPUTF8"),
    ("PIPELINING", "8BITMIME"),
)


def body_text(rng: random.Random) -> str:
    """Return a few hundred kilobytes of lines, none of which begins with a dot."""
    return "".join(" ".join(rng.choices(WORDS, k=9)) + "\r\n" for _ in range(5_000))


def dns_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def look_up(script: Script, qname: str, qtype: str, answer: str | int, query_id: int) -> None:
    """Write one query over UDP and its answer: a mail exchanger's name, or an address."""
    question = dns_name(qname) + struct.pack(">HH", 15 if qtype == "MX" else 1, 1)
    rdata = struct.pack(">I", answer) if isinstance(answer, int) else b"\0\x0a" + dns_name(answer)
    record = b"\xc0\x0c" + question[-4:] + struct.pack(">IH", 3_600, len(rdata)) + rdata
    script.packet(0, struct.pack(">6H", query_id, 0x0100, 1, 0, 0, 0) + question, flags=0)
    script.packet(1, struct.pack(">6H", query_id, 0x8180, 1, 1, 0, 0) + question + record, flags=0)
    script.truth["dns_queries"] += 1
    script.truth["mx_queries"] += qtype == "MX"


def smtp_dialogue(script: Script, rng: random.Random, number: int, mx_name: str, body: str) -> None:
    """Write one TCP connection from SYN to the last ACK; one in eight has its recipients refused."""
    helo, domain = f"host-{rng.randrange(1 << 32):08x}.lan.example", mx_name.partition(".")[2]
    recipients = [f"u{rng.randrange(10**6)}@{domain}" for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    refused, pipelined = rng.random() < 1 / 8, rng.random() < 1 / 5
    extensions = (mx_name, *rng.choice(EXTENSIONS))

    def command(text: str) -> bytes:
        script.truth["smtp_commands"] += 1
        script.truth[f"verb {text[:4]}"] += 1
        return f"{text}\r\n".encode()

    def reply(*lines: str) -> bytes:
        script.truth["smtp_replies"] += 1
        script.truth[f"code {lines[0][:3]}"] += 1
        return "".join(f"{line}\r\n" for line in lines).encode()

    script.packet(0, flags=SYN)
    script.packet(1, flags=SYN | ACK)
    script.packet(0)
    script.packet(1, reply(f"220 {mx_name} {rng.choice(BANNERS)}"))
    script.packet(0)
    script.packet(0, command(f"EHLO {helo}"))
    script.packet(1)
    last = len(extensions) - 1
    script.packet(1, reply(*(f"250{' ' if i == last else '-'}{word}" for i, word in enumerate(extensions))))

    envelope = [command(f"MAIL FROM:<n{number}@{helo}>")] + [command(f"RCPT TO:<{to}>") for to in recipients]
    answers = [reply("250 2.1.0 Ok")]
    answers += [reply("550 5.1.1 User unknown" if refused else "250 2.1.5 Ok") for _ in recipients]
    if pipelined or not refused:
        envelope.append(command("DATA"))
        answers.append(
            reply("554 5.5.1 No valid recipients" if refused else "354 End with <CR><LF>.<CR><LF>")
        )
    if pipelined:
        script.packet(0, b"".join(envelope))
        script.packet(1)
        script.packet(1, b"".join(answers))
    else:
        for sent, answered in zip(envelope, answers, strict=True):
            script.packet(0, sent)
            script.packet(1, answered)
    if not refused:
        begin = body.index("\n", rng.randrange(len(body) // 2)) + 1
        end = body.index("\n", begin + min(int(rng.lognormvariate(7.7, 0.8)), 60_000)) + 1
        message = (
            f"From: <n{number}@{helo}>\r\nTo: <{recipients[0]}>\r\nMessage-ID: <{number}.{begin}@{helo}>\r\n"
            f"Subject: {rng.choice(WORDS)} {number}\r\n\r\n{body[begin:end]}.\r\n"
        ).encode()
        for i, at in enumerate(range(0, len(message), MSS)):
            script.packet(0, message[at : at + MSS])
            if i % 2:
                script.packet(1)
        script.packet(1, reply(f"250 2.0.0 Ok: queued as {rng.randrange(1 << 40):X}"))
        script.truth["messages_accepted"] += 1
    script.packet(0, command("QUIT"))
    script.packet(1, reply("221 2.0.0 Bye"))
    script.packet(0, flags=FIN | ACK)
    script.packet(1, flags=FIN | ACK)
    script.packet(0)
    script.truth["smtp_flows"] += 1


def write_mail(plan: Plan, rng: random.Random, repetition: int) -> Script:
    """Write each dialogue with its MX and address look-ups, and the look-ups of nobody's mail."""
    script, body = Script(), body_text(rng)
    next_port = [rng.randrange(60_000) for _ in range(plan.devices)]
    # A few devices do most of the sending, as in life, but the busiest only one part in forty.
    weights = [1 / (rank + 10) for rank in range(plan.devices)]
    senders = rng.choices(range(plan.devices), weights, k=plan.dialogues + plan.lookups)

    def flow(protocol: int, device: int, server: int, port: int, start_s: float) -> None:
        next_port[device] = (next_port[device] + 1) % 60_000
        times = int(start_s * 1e9), MAIL_TURN_NS if protocol == TCP else DNS_TURN_NS
        script.flows.append((protocol, address(device), server, 1_024 + next_port[device], port, *times))

    for number, device in enumerate(senders):
        start_s, resolver = rng.uniform(0, plan.span_s), RESOLVERS[device % 2]
        mx, serial = rng.randrange(plan.mx_hosts), repetition * plan.dialogues + number
        if number >= plan.dialogues:
            flow(UDP, device, resolver, 53, start_s)
            look_up(script, f"www{mx}.site{serial}.example", "A", WEB_NET + mx, rng.randrange(1 << 16))
            continue
        domain = f"{rng.choice(WORDS)}{rng.randrange(10**5)}.example"
        mx_name = f"mx{mx}.{domain}"
        flow(UDP, device, resolver, 53, start_s)
        look_up(script, domain, "MX", mx_name, rng.randrange(1 << 16))
        flow(UDP, device, resolver, 53, start_s + 0.3)
        look_up(script, mx_name, "A", MX_NET + mx, rng.randrange(1 << 16))
        flow(TCP, device, MX_NET + mx, 25, start_s + 0.6)
        smtp_dialogue(script, rng, serial, mx_name, body)
    return script


def address(device: int) -> int:
    return LOCAL_NET + (1 << 16) + (device // 250 << 8) + device % 250 + 2


# --- everything that is neither mail nor DNS -----------------------------------------------------------


def client_hello(rng: random.Random, name: str) -> bytes:
    """Return a TLS ClientHello (RFC 8446) that names a server: peers recognise it at once."""
    sni = name.encode()
    extensions = struct.pack(">HHHBH", 0, len(sni) + 5, len(sni) + 3, 0, len(sni)) + sni
    extensions += bytes.fromhex("002b0003020304 000a00040002001d 000d0004000204030010000500030268 32")
    extensions += struct.pack(">HHHHH", 51, 38, 36, 29, 32) + rng.randbytes(32)
    hello = (
        b"\x03\x03" + rng.randbytes(32) + b"\x20" + rng.randbytes(32) + bytes.fromhex("0006130113021303 0100")
    )
    hello += struct.pack(">H", len(extensions)) + extensions
    return struct.pack(">BHHBBH", 22, 0x0301, len(hello) + 4, 1, 0, len(hello)) + hello


def server_hello(rng: random.Random) -> bytes:
    extensions = bytes.fromhex("002b00020304") + struct.pack(">HHHH", 51, 36, 29, 32) + rng.randbytes(32)
    hello = b"\x03\x03" + rng.randbytes(32) + b"\x20" + rng.randbytes(32) + b"\x13\x01\0"
    hello += struct.pack(">H", len(extensions)) + extensions
    return struct.pack(">BHHBBH", 22, 0x0303, len(hello) + 4, 2, 0, len(hello)) + hello


def first_words(rng: random.Random, kind: str, number: int) -> tuple[bytes, bytes]:
    """Return the first payload of the client and of the server."""
    name = f"cdn{number % 700}.{rng.choice(WORDS)}{number % 3_000}.example"
    if kind == "tls":
        return client_hello(rng, name), server_hello(rng)
    if kind == "http":
        get = f"GET /{rng.choice(WORDS)}/{number} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: bench\r\n\r\n"
        return get.encode(), b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + rng.randbytes(600)
    if kind == "quic":
        initial = b"\xc3\0\0\0\x01\x08" + rng.randbytes(8) + b"\0\0\x44\x9e"
        return initial + rng.randbytes(1_182), initial + rng.randbytes(1_182)
    return rng.randbytes(180), rng.randbytes(180)


def write_web(plan: Plan, seed: list[int], rng: random.Random, pool_bytes: int) -> tuple[Array, Array, bytes]:
    """Return flows, packets and the first words that follow the random bytes in the pool.

    Each flow is a handshake (TCP), one payload of each side, random payload, and the end (TCP). Lengths of
    flows are heavy-tailed; most of the bytes go to the client in full segments.
    """
    draw = np.random.default_rng(seed)
    n = plan.web_flows
    names, shares, protocols, ports, dresses = (np.array(column) for column in zip(*KINDS, strict=True))
    kinds = draw.choice(len(KINDS), n, p=shares)
    is_tcp = protocols[kinds] == TCP
    flows = np.zeros(n, FLOW)
    flows["protocol"] = protocols[kinds]
    device = (plan.devices * draw.random(n) ** 2).astype(np.int64)
    flows["client"] = LOCAL_NET + (1 << 16) + (device // 250 << 8) + device % 250 + 2
    flows["server"] = WEB_NET + (65_000 * draw.random(n) ** 2).astype(np.int64)
    flows["client_port"] = draw.integers(32_768, 60_000, n)
    flows["server_port"] = np.where(ports[kinds] == 0, draw.integers(10_000, 60_000, n), ports[kinds])
    flows["start_ns"] = (draw.random(n) * plan.span_s * 1e9).astype(np.int64)
    flows["turn_ns"] = WEB_TURN_NS

    weight = draw.lognormal(0, 1.5, n)
    counts = 10 + (weight / weight.sum() * max(plan.web_packets - 10 * n, 0)).astype(np.int64)
    flow = np.repeat(np.arange(n), counts)
    place = np.arange(len(flow)) - np.repeat(np.cumsum(counts) - counts, counts)
    left = np.repeat(counts, counts) - 1 - place
    tcp = is_tcp[flow]

    packets = np.zeros(len(flow), PACKET)
    down = draw.random(len(flow)) < 0.522
    chance = draw.random(len(flow))
    full = np.where(tcp, MSS, 1_252)
    short = draw.integers(40, 1_250, len(flow))
    ack_only = np.where(tcp, 0, 36)
    # Who asked for one page over HTTP has nothing more to say.
    chance[(names[kinds[flow]] == "http") & ~down] = 0
    length = np.where(down, np.where(chance < 0.92, full, short), np.where(chance < 0.85, ack_only, short))
    at = draw.integers(0, pool_bytes - MSS, len(flow))
    dress = dresses[kinds][flow]
    flags = np.where(tcp, ACK, 0)

    words = [first_words(rng, kind, number) for number, kind in enumerate(names[kinds].tolist())]
    tail = b"".join(client + server for client, server in words)
    word_bytes = np.array([[len(client), len(server)] for client, server in words])
    word_at = pool_bytes + (np.cumsum(word_bytes) - word_bytes.ravel()).reshape(n, 2)
    for side in (0, 1):
        said = place == np.where(tcp, 3, 0) + side
        down[said], dress[said] = side, OPAQUE
        length[said], at[said] = word_bytes[flow[said], side], word_at[flow[said], side]
    begin = ((place, 0, 0, SYN), (place, 1, 1, SYN | ACK), (place, 2, 0, ACK))
    end = ((left, 2, 0, FIN | ACK), (left, 1, 1, FIN | ACK), (left, 0, 0, ACK))
    for position, value, side, bits in (*begin, *end):
        chosen = tcp & (position == value)
        down[chosen], length[chosen], flags[chosen] = side, 0, bits
    for name, column in (("flow", flow), ("from_server", down), ("flags", flags), ("at", at)):
        packets[name] = column
    packets["length"], packets["dress"] = length, dress
    return flows, packets, tail


# --- times, numbers, bytes -----------------------------------------------------------------------------


def schedule(flows: Array, packets: Array, draw: np.random.Generator) -> Array:
    """Give packets, sorted by flow, their times and TCP numbers; return them in the order of time."""
    flow, down = packets["flow"], packets["from_server"]
    is_first = np.diff(flow, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(flow)), 0))

    turn = (np.diff(down, prepend=False) != 0) & (packets["length"] > 0)
    noise = draw.random(len(flow))
    answer, burst = flows["turn_ns"][flow] * (0.4 + 1.2 * noise), 50_000 + 400_000 * noise
    gap = np.where(turn, answer, burst).astype(np.int64)
    gap[is_first] = 0
    elapsed = np.cumsum(gap)
    packets["ts_ns"] = flows["start_ns"][flow] + elapsed - elapsed[first]

    packets["flags"] |= np.where((packets["flags"] > 0) & (packets["length"] > 0), PSH, 0).astype(np.uint8)
    used = packets["length"] + np.where(packets["flags"] & (SYN | FIN), 1, 0)
    isn = draw.integers(0, 1 << 32, (2, len(flows)))
    sent = []
    for side in (0, 1):
        own = np.where(down == side, used, 0)
        before = np.cumsum(own) - own
        sent.append((isn[side][flow] + before - before[first]) & 0xFFFFFFFF)
    packets["seq"] = np.where(down, sent[1], sent[0])
    packets["ack"] = np.where(packets["flags"] & ACK, np.where(down, sent[0], sent[1]), 0)
    return packets[np.argsort(packets["ts_ns"], kind="stable")]


@numba.njit
def put(out: Array, at: int, value: int, n_bytes: int) -> None:
    for i in range(n_bytes):
        out[at + i] = (value >> (8 * (n_bytes - 1 - i))) & 0xFF


@numba.njit
def put_little(out: Array, at: int, value: int) -> None:
    for i in range(4):
        out[at + i] = (value >> (8 * i)) & 0xFF


@numba.njit
def add_words(out: Array, start: int, end: int, total: int) -> int:
    for i in range(start, end - 1, 2):
        total += (np.int64(out[i]) << 8) | np.int64(out[i + 1])
    return total + (np.int64(out[end - 1]) << 8 if (end - start) & 1 else 0)


@numba.njit
def checksum(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@numba.njit
def put_mac(out: Array, at: int, host: int) -> None:
    # All hosts outside have the gateway's address; those inside have one of their own, made from theirs.
    inside = host >> 24 == 10
    put(out, at, (0x0200 << 32) | (host if inside else 1), 6)


@numba.njit
def write_frames(packets: Array, flows: Array, pool: Array, syn_options: Array, out: Array) -> int:
    """Write packets as pcap records (Ethernet, IPv4, TCP or UDP) into ``out``; return how many bytes."""
    at = 0
    for k in range(len(packets)):
        p = packets[k]
        f = flows[p.flow]
        tcp = f.protocol == TCP
        n_options = len(syn_options) if tcp and p.flags & SYN else 0
        n_header = 20 + n_options if tcp else 8
        n_ip = 20 + n_header + p.length
        src, dst = np.int64(f.client), np.int64(f.server)
        src_port, dst_port = np.int64(f.client_port), np.int64(f.server_port)
        if p.from_server:
            src, dst, src_port, dst_port = dst, src, dst_port, src_port

        put_little(out, at, p.ts_ns // 1_000_000_000)
        put_little(out, at + 4, p.ts_ns % 1_000_000_000 // 1_000)
        put_little(out, at + 8, 14 + n_ip)
        put_little(out, at + 12, 14 + n_ip)
        put_mac(out, at + 16, dst)
        put_mac(out, at + 22, src)
        put(out, at + 28, 0x0800, 2)

        ip = at + 30
        put(out, ip, (0x4500 << 16) | n_ip, 4)
        put(out, ip + 4, ((k & 0xFFFF) << 16) | 0x4000, 4)
        put(out, ip + 8, (57 if p.from_server else 64) << 24 | np.int64(f.protocol) << 16, 4)
        put(out, ip + 12, src, 4)
        put(out, ip + 16, dst, 4)
        put(out, ip + 10, checksum(add_words(out, ip, ip + 20, 0)), 2)

        l4 = ip + 20
        body = l4 + n_header
        put(out, l4, src_port << 16 | dst_port, 4)
        if tcp:
            put(out, l4 + 4, np.int64(p.seq), 4)
            put(out, l4 + 8, np.int64(p.ack), 4)
            put(out, l4 + 12, (n_header // 4) << 12 | np.int64(p.flags), 2)
            put(out, l4 + 14, 502, 2)
            put(out, l4 + 16, 0, 4)
            out[l4 + 20 : body] = syn_options[:n_options]
        else:
            put(out, l4 + 4, (8 + p.length) << 16, 4)
        end = body + p.length
        out[body:end] = pool[p.at : p.at + p.length]
        if p.dress == TLS and p.length > 5:  # one application data record per segment (RFC 8446 section 5.1)
            put(out, body, 0x170303 << 16 | (p.length - 5), 5)
        elif p.dress == QUIC:  # short header (RFC 9000 section 17.3)
            out[body] = 0x40 | (out[body] & 0x1F)
        pseudo = add_words(out, ip + 12, ip + 20, np.int64(f.protocol) + n_header + p.length)
        put(out, l4 + (16 if tcp else 6), checksum(add_words(out, l4, end, pseudo)), 2)
        at = end
    return at


def build(name: str, plan: Plan, seed: int, repetition: int) -> tuple[Any, Any, Any, Counter[str]]:
    """Return packets in the order of time, flows, the pool of payload bytes, and the truth about them."""
    rng = random.Random(f"{name} {seed} {repetition}")
    numbers = [seed, repetition, len(name)]
    script = write_mail(plan, rng, repetition)
    mail = script.packets()
    pool_bytes, web_tail = 0, b""
    flows, packets = np.array(script.flows, FLOW), mail
    noise = b""
    if plan.web_flows:
        noise = rng.randbytes(1 << 24)
        pool_bytes = len(noise)
        web_flows, web_packets, web_tail = write_web(plan, numbers, rng, pool_bytes)
        mail["flow"] += len(web_flows)
        mail["at"] += pool_bytes + len(web_tail)
        flows, packets = np.concatenate((web_flows, flows)), np.concatenate((web_packets, mail))
    pool = np.frombuffer(noise + web_tail + b"".join(script.payloads), np.uint8)
    script.truth["mail_and_dns_packets"] = len(mail)
    script.truth["flows"] = len(flows)
    return schedule(flows, packets, np.random.default_rng(numbers)), flows, pool, script.truth


def generate(name: str, path: Path, seed: int = 1, size: float = 1.0, scale: int = 1) -> dict[str, Any]:
    """Write the capture and, beside it, the truth about it; return the truth."""
    full = PLANS[name]
    shrink = {k: int(getattr(full, k) * size) for k in ("dialogues", "lookups", "web_flows", "web_packets")}
    plan = Plan(span_s=full.span_s * size, devices=full.devices, mx_hosts=full.mx_hosts, **shrink)
    truth: Counter[str] = Counter()
    begin_ns = START_NS
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(PCAP_HEADER)
        for repetition in range(scale):
            packets, flows, pool, found = build(name, plan, seed, repetition)
            packets["ts_ns"] += begin_ns
            begin_ns = int(packets["ts_ns"][-1]) + 1_000_000
            truth += found
            truth["packets"] += len(packets)
            for i in range(0, len(packets), SLAB_PACKETS):
                slab = packets[i : i + SLAB_PACKETS]
                out = np.empty(int(slab["length"].sum()) + len(slab) * (16 + 14 + 20 + 32), np.uint8)
                n = write_frames(slab, flows, pool, SYN_OPTIONS, out)
                truth["wire_bytes"] += n - 16 * len(slab)
                file.write(out[:n].data)
    part.rename(path)
    described = {"capture": name, "seed": seed, "size": size, "scale": scale}
    described |= {"seconds": round((begin_ns - START_NS) / 1e9, 3), **dict(sorted(truth.items()))}
    path.with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")
    return described


def main() -> None:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=tuple(PLANS))
    parser.add_argument("path", type=Path, help="pcap to write; what is in it goes beside it, as .json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--size", type=float, default=1.0, help="part of the full capture, in time (default 1.0)"
    )
    parser.add_argument(
        "--scale", type=int, default=1, help="repeat this many times, with new flows (default 1)"
    )
    arguments = vars(parser.parse_args())
    print(json.dumps(generate(**arguments), indent=2))


if __name__ == "__main__":
    main()
