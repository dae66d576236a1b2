from __future__ import annotations

import ssl
import struct
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.decode.tls import MAX_EXTENSIONS, MAX_SERVER_NAME_BYTES, find_server_name
from tests.announced import NEIGHBOURS, damaged
from tests.captures import CAPTURES
from tests.payloads import tcp_payloads

pytestmark = pytest.mark.kernel

NAME_BYTES = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def server_name(segment: bytes, before: bytes = b"", after: bytes = b"") -> bytes | None:
    """Find the name between two neighbours."""
    data = np.frombuffer(before + segment + after, dtype=np.uint8).copy()
    start, end = find_server_name(data, len(before), len(before) + len(segment))
    if (start, end) == (-1, -1):
        return None
    assert len(before) <= start < end <= len(before) + len(segment)
    return data[start:end].tobytes()


# The reference: a reader that knows how much of a part is here, and how long the part says that it is.


class MissingError(Exception):
    pass


class Part:
    def __init__(self, here: bytes, size: int) -> None:
        self.here, self.size, self.pos = here[:size], size, 0

    def bytes(self, n: int) -> bytes:
        self.pos += n
        if self.pos > min(len(self.here), self.size):
            raise MissingError
        return self.here[self.pos - n : self.pos]

    def number(self, n: int) -> int:
        return int.from_bytes(self.bytes(n), "big")

    def part(self, n: int) -> Part:
        """A part whose length takes ``n`` bytes; it must fit into this one, but need not all be here."""
        size = self.number(n)
        if size > self.size - self.pos:
            raise MissingError
        inside = Part(self.here[self.pos :], size)
        self.pos += size
        return inside


def read_name(segment: bytes) -> bytes:
    record = Part(segment, len(segment))
    kind, major, _, size = record.number(1), record.number(1), record.number(1), record.number(2)
    message = Part(record.here[5:], size)
    if (kind, major, message.number(1)) != (22, 3, 1):
        raise MissingError
    size = message.number(3)
    hello = Part(message.here[4:], size)
    hello.bytes(34)
    if len(hello.bytes(hello.number(1))) > 32:
        raise MissingError
    hello.bytes(hello.number(2))
    hello.bytes(hello.number(1))
    extensions = hello.part(2)
    for _ in range(MAX_EXTENSIONS):
        kind, extension = extensions.number(2), extensions.part(2)
        if kind == 0:
            names = extension.part(2)
            kind, name = names.number(1), names.part(2)
            content = name.bytes(name.size)
            if kind == 0 and 0 < len(content) <= MAX_SERVER_NAME_BYTES and set(content) <= NAME_BYTES:
                return content
            break
    raise MissingError


def reference(segment: bytes) -> bytes | None:
    try:
        return read_name(segment)
    except MissingError:
        return None


def agrees(segment: bytes) -> bytes | None:
    expected = reference(segment)
    for before, after in NEIGHBOURS:
        assert server_name(segment, before, after) == expected
    return expected


# Hellos: OpenSSL's, and made ones.


@cache
def openssl_hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def vector(content: bytes, n: int, error: int = 0) -> bytes:
    return max(len(content) + error, 0).to_bytes(n, "big") + content


def extension(kind: int, content: bytes, error: int = 0) -> bytes:
    return struct.pack("!H", kind) + vector(content, 2, error)


def hello(
    extensions: bytes, session_id: bytes = b"", errors: tuple[int, int, int] = (0, 0, 0), cut: int = 0
) -> bytes:
    in_record, in_message, in_extensions = errors
    body = b"\3\3" + bytes(32) + vector(session_id, 1) + vector(b"\x13\1", 2) + vector(b"\0", 1)
    message = b"\1" + vector(body + vector(extensions, 2, in_extensions), 3, in_message)
    return (b"\x16\3\1" + vector(message, 2, in_record))[: -cut or None]


def named(name: bytes, kind: int = 0, errors: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    in_name, in_list, in_extension = errors
    names = vector(bytes([kind]) + vector(name, 2, in_name), 2, in_list)
    return extension(0, names, in_extension)


error = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1, 5, -5])
three_errors = st.tuples(error, error, error)
names = st.one_of(
    st.sampled_from(
        [b"example.com", b"a", b"", b"xn--bcher-kva.example", b"a_b.example", b"a b", b"\xff", b"a\0"]
    ),
    st.sampled_from([b"x" * 255, b"x" * 256]),
)
parts = st.one_of(
    st.builds(named, names, st.sampled_from([0, 0, 0, 1]), three_errors),
    st.builds(extension, st.sampled_from([10, 43, 0x0A0A, 0xFE0D]), st.binary(max_size=20), error),
)
hellos = st.one_of(
    st.builds(
        hello,
        st.lists(parts, max_size=5).map(b"".join),
        st.sampled_from([b"", bytes(32), bytes(33)]),
        three_errors,
        st.sampled_from([0, 0, 1, 2, 9, 30]),
    ),
    st.integers(62, 65).map(lambda n: hello(extension(10, b"") * n + named(b"example.com"))),
    st.sampled_from(["mail.example.com", "b.example", None]).map(openssl_hello),
)


@given(
    st.one_of(hellos, damaged(hellos), st.binary(max_size=80).map(lambda raw: b"\x16\3\1\2\0\1\0\1\0" + raw))
)
@settings(max_examples=1200)
def test_hellos_are_read_as_the_reference_reads_them(segment: bytes) -> None:
    agrees(segment)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_the_reference_reads_them(segment: bytes) -> None:
    agrees(segment)


@pytest.mark.parametrize("name", ["mail.example.com", "a.example"])
def test_a_hello_of_openssl_tells_its_name_even_if_it_is_cut_behind(name: str) -> None:
    whole = openssl_hello(name)
    end = whole.index(name.encode()) + len(name)
    for cut in range(len(whole) + 1):
        assert agrees(whole[:cut]) == (name.encode() if cut >= end else None)
    assert agrees(openssl_hello(None)) is None


# Real captures, with what tshark shows of them.


@pytest.mark.parametrize(
    ("capture", "expected"),
    [
        ("benign/zeek__socks-with-ssl.pcap", {b"www.google.com"}),
        ("benign/arkime__socks-https-example.pcap", {b"www.example.com"}),
        ("dns/ndpi__dns_doh.pcap", {b"mozilla.cloudflare-dns.com"}),
        ("dns/ndpi__googledns_android10.pcap", {b"dns.google"}),
        ("dns/ndpi__simple-dnscrypt.pcap", {b"simplednscrypt.org"}),
        ("dns/ndpi__dns_dot.pcap", set()),
        ("malformed/ndpi__tls-esni-fuzzed.pcap", set()),
    ],
)
def test_captured_hellos_tell_the_names_that_tshark_shows(capture: str, expected: set[bytes]) -> None:
    found = {agrees(segment) for segment in tcp_payloads(CAPTURES / capture)}
    assert found - {None} == expected


# Single rules.


def test_lengths_that_contradict_each_other_are_refused() -> None:
    assert agrees(hello(named(b"example.com"))) == b"example.com"
    for errors in ((1, 0, 0), (0, 1, 0), (0, 0, -1)):
        assert agrees(hello(named(b"example.com", errors=errors))) is None
    assert agrees(hello(named(b"example.com"), errors=(0, 0, 1))) is None
    assert agrees(hello(named(b"example.com"), errors=(0, -1, 0))) is None


def test_a_hello_that_goes_on_in_the_next_record_is_read_as_far_as_it_is_here() -> None:
    whole = hello(named(b"example.com") + extension(10, bytes(50)))
    assert agrees(whole[:3] + struct.pack("!H", len(whole) - 5 - 40) + whole[5:]) == b"example.com"
