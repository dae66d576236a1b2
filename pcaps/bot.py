"""A direct-to-MX mail bot for the lab: own MX look-ups, a dialect of its own, no retries.

It speaks to documentation addresses only (RFC 5737) and refuses all others: outside a lab it is of no use.

    bot.py --resolver 192.168.50.1 --seconds 90 --rate 2 --seed 7 alpha.example bravo.example ...
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

DOCUMENTATION = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
QTYPE_A, QTYPE_MX = 1, 15
#: A bought list: some mailboxes exist, more do not.
LOCAL_PARTS = ("info", "office", "anna", "sales", "admin", "joe77", "kim.old", "webmaster", "x1980", "test")
HEADER = "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: Re: order {number}\r\n"
MESSAGE = HEADER + "\r\nlab test body {number}\r\n.\r\n"


class RefusedError(Exception):
    """This dialogue ends here: the server said no, or we do."""


def encode_query(query_id: int, name: str, qtype: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", query_id, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!xHH", qtype, 1)


def decode_name(data: bytes, pos: int) -> tuple[str, int]:
    """The name at ``pos`` and the position behind it (RFC 1035 section 4.1.4)."""
    labels: list[str] = []
    while length := data[pos]:
        if length >= 0xC0:
            rest, _ = decode_name(data, struct.unpack_from("!H", data, pos)[0] & 0x3FFF)
            return ".".join([*labels, rest]), pos + 2
        labels.append(data[pos + 1 : pos + 1 + length].decode())
        pos += 1 + length
    return ".".join(labels), pos + 1


def look_up(resolver: str, name: str, qtype: int) -> list[str]:
    """Addresses (A) or host names in the answer's order (MX); empty if there are none or nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(encode_query(random.randrange(1 << 16), name, qtype), (resolver, 53))
        try:
            data = sock.recv(4096)
        except TimeoutError:
            return []
    answers = struct.unpack_from("!H", data, 6)[0]
    _, pos = decode_name(data, 12)
    pos += 4
    found = []
    for _ in range(answers):
        _, pos = decode_name(data, pos)
        rtype, _, _, length = struct.unpack_from("!HHIH", data, pos)
        pos += 10
        if rtype == qtype == QTYPE_A:
            found.append(socket.inet_ntoa(data[pos : pos + 4]))
        elif rtype == qtype == QTYPE_MX:
            found.append(decode_name(data, pos + 2)[0])
        pos += length
    return found


def helo_name(rng: random.Random, domain: str) -> str:
    return rng.choice(["localhost", "[10.0.0.138]", domain, "".join(rng.choices("abcdefghijklmnop", k=8))])


def say(stream: socket.SocketIO, line: str, expected: str) -> None:
    """Send a line unless it is empty, then read one whole reply."""
    if line:
        stream.write(line.encode())
    reply = stream.readline().decode("latin-1")
    while reply[3:4] == "-":
        reply = stream.readline().decode("latin-1")
    if not reply.startswith(expected):
        raise RefusedError(reply.strip())


def deliver(address: str, domain: str, rng: random.Random, timeout_s: float) -> None:
    if not any(ip_address(address) in network for network in DOCUMENTATION):
        raise RefusedError("not a documentation address: this bot stays in its lab")
    sender = f"{rng.choice(LOCAL_PARTS)}{rng.randrange(100)}@{rng.choice(('alpha', 'echo', 'kilo'))}.example"
    recipient = f"{rng.choice(LOCAL_PARTS)}@{domain}"
    with (
        socket.create_connection((address, 25), timeout_s) as sock,
        sock.makefile("rwb", buffering=0) as stream,
    ):
        say(stream, "", "220")
        say(stream, f"HELO {helo_name(rng, domain)}\r\n", "250")
        say(stream, f"MAIL FROM:<{sender}>\r\n", "250")
        say(stream, f"RCPT TO:<{recipient}>\r\n", "250")
        say(stream, "DATA\r\n", "354")
        say(stream, MESSAGE.format(sender=sender, recipient=recipient, number=rng.randrange(10**6)), "250")
        if rng.random() < 0.5:  # the other half just hangs up
            say(stream, "QUIT\r\n", "221")


def attack(resolver: str, domain: str, seed: int, timeout_s: float) -> None:
    """Look up and mail one domain once; whatever fails is forgotten."""
    rng = random.Random(seed)
    hosts = look_up(resolver, domain, QTYPE_MX)
    addresses = look_up(resolver, rng.choice(hosts), QTYPE_A) if hosts else []
    for address in addresses:
        try:
            deliver(address, domain, rng, timeout_s)
        except (RefusedError, OSError) as error:
            print(f"{domain} {address}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolver", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True, help="connections a second")
    parser.add_argument("--timeout", type=float, default=8.0, help="seconds to wait for an answer")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("domains", nargs="+")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    with ThreadPoolExecutor(16) as workers:
        while time.monotonic() < end:
            domain, seed = rng.choice(options.domains), rng.randrange(1 << 30)
            workers.submit(attack, options.resolver, domain, seed, options.timeout)
            time.sleep(rng.expovariate(options.rate))


if __name__ == "__main__":
    main()
