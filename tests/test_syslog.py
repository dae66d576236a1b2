"""Syslog: messages against a parser written from the RFC, and receivers of all kinds on the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from hypothesis import given
from hypothesis import strategies as st
from receivers import Certificates, TcpReceiver, unframed, wait_until
from reference_syslog import Message, parse

from sensor.alerts import syslog as syslog_module
from sensor.alerts.connection import load_context
from sensor.alerts.destinations import prepare_transports
from sensor.alerts.formats import alert_json, alert_line
from sensor.alerts.queued import QueuedSink, Timing, Transport
from sensor.alerts.record import Alert
from sensor.alerts.syslog import (
    FACILITIES,
    DatagramTransport,
    MessageForm,
    StreamTransport,
    _host_name,
    cut_message,
    message_parts,
)
from sensor.config import Output, Syslog, SyslogAddress
from sensor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Timing(idle_s=0.01, first_pause_s=0.005, longest_pause_s=0.02)


def encoded_line(alert: Alert) -> bytes:
    return alert_line(alert).encode()


TEXT = MessageForm(FACILITIES["local0"], 32473, encoded_line, "sensor1.example.com", "4711")
JSON = TEXT._replace(encode=alert_json)


def parsed(alert: Alert, form: MessageForm = TEXT, *, is_repeated: bool = False) -> Message:
    return parse(b" ".join(message_parts(alert, form, is_repeated=is_repeated)))


def named(hostname: str | None, **changes: Any) -> Alert:
    return make_alert(device=msgspec.structs.replace(CAMERA_ALERT.device, hostname=hostname, **changes))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


# Messages.


def test_an_alert_as_a_message() -> None:
    head, body = message_parts(CAMERA_ALERT, TEXT)
    assert head.decode() == (
        "<130>1 2026-11-23T14:50:22.123456Z sensor1.example.com spamsensor 4711 alert/started "
        '[spamsensor@32473 alert_id="5f0c9a1e22b7d431" severity="critical" confidence="0.97" '
        'cause="direct-to-mx-spam" channel="rule:flood" device="44:19:b6:0a:0b:0c" ip="192.168.1.23" '
        'ip="fe80::4619:b6ff:fe0a:b0c" hostname="cam-garage" vlan="20" role="appliance" '
        'onset="2026-11-23T14:50:10.000000+0000" connections="31" destinations="24"]'
    )
    assert body.decode() == (
        'ALERT, critical, 97% sure: "cam-garage", camera, Hikvision, 44:19:b6:0a:0b:0c, 192.168.1.23, '
        "fe80::4619:b6ff:fe0a:b0c, VLAN 20; known as appliance; sends mail straight to the world's mail servers. "
        "Opened 31 mail connections to 24 destinations in 12 s and looked up 40 MX records by itself. Cut the "
        "device off from TCP port 25, then reset it and update its firmware."
    )


@given(
    st.text(),
    st.one_of(st.none(), st.text()),
    st.lists(st.ip_addresses(v=6).map(str), max_size=20),
    st.one_of(st.none(), st.integers(0, 4095)),
    st.sampled_from([TEXT, JSON]),
    st.booleans(),
)
def test_any_alert_is_a_message_and_says_what_the_alert_says(
    hostile: str, hostname: str | None, ips: list[str], vlan: int | None, form: MessageForm, again: bool
) -> None:
    alert = msgspec.structs.replace(named(hostname, ips=tuple(ips), vlan=vlan), summary=hostile)
    try:
        alert_json(alert)
    except UnicodeEncodeError:  # half a surrogate pair, which no output of ours can have
        return
    head, body = message_parts(alert, form, is_repeated=again)
    assert head.decode("ascii").isprintable(), "no name can break a line or turn text around"
    message = parse(head + b" " + body)
    assert list(message.data) == ["spamsensor@32473"]
    said = message.data["spamsensor@32473"]
    assert [value for name, value in said if name == "ip"] == ips[:3]
    assert ("vlan", str(vlan)) in said or vlan is None
    names = [value for name, value in said if name == "hostname"]
    if hostname is None:
        assert names == []
    elif hostname.isascii() and hostname.isprintable():
        assert names == [hostname[:64]]
    assert (("repeated", "true") in said) == again
    assert message.content == body
    if form is JSON:
        assert msgspec.json.decode(body, type=Alert) == alert
    else:
        assert body.decode("ascii").isprintable()


@pytest.mark.parametrize("name", ['a"b', "a]b", "a\\b", 'x"] [other@1 y="z', "\\", "] <0>1 - - - - - -"])
def test_a_name_cannot_end_the_structured_data(name: str) -> None:
    assert ("hostname", name) in parsed(named(name)).data["spamsensor@32473"]


@given(st.text(st.sampled_from('"\\]a\x00\u202e\U0001f600'), max_size=300), st.integers(1024, 4096))
def test_datagrams_are_cut_and_the_structured_data_is_not(name: str, max_bytes: int) -> None:
    ips = ("2001:db8:1111:2222:3333:4444:5555:6666",) * 10
    alert = named(name, ips=ips, key=f"{ips[0]}@4095", role="smarthost of the others")
    form = TEXT._replace(host_name="x" * 64, process_id="4194304", enterprise=2**32 - 1)
    head, body = message_parts(alert, form, is_repeated=True)
    raw = cut_message(head, body * 10, max_bytes)
    assert len(raw) <= max_bytes
    assert raw.startswith(head + b" ")
    assert (body * 10).startswith(parse(raw).content or b"")


def test_a_cut_leaves_no_half_character() -> None:
    body = "aé€😀".encode() * 3
    for size in range(5, 5 + len(body) + 2):
        cut = cut_message(b"head", body, size)
        assert size - 4 < len(cut) <= size
        assert cut[5:].decode() == body.decode()[: len(cut[5:].decode())]


@pytest.mark.parametrize(
    ("severity", "state", "expected"),
    [
        ("critical", "started", 2),
        ("high", "updated", 3),
        ("medium", "started", 4),
        ("low", "started", 5),
        ("critical", "ended", 5),
    ],
)
def test_severities(severity: str, state: str, expected: int) -> None:
    for code in FACILITIES.values():
        message = parsed(make_alert(severity=severity, state=state), TEXT._replace(facility=code))
        assert (message.facility, message.severity) == (code, expected)
        assert message.message_id == f"alert/{state}"


def test_a_host_name_that_is_none_is_left_out() -> None:
    assert [_host_name(name) for name in ("sensor1", "", "two words", "büro", "x\n")] == ["sensor1", *"----"]
    assert parsed(CAMERA_ALERT, TEXT._replace(host_name="-")).host_name == "-"


# Receivers.


def sink_to(transport: Transport, news: list[str] | None = None, capacity: int = 100) -> QueuedSink:
    news = [] if news is None else news
    return QueuedSink(transport, capacity, news.append, timing=QUICK)


def summarised(number: int, **changes: Any) -> Alert:
    return make_alert(summary=f"No. {number}.", **changes)


def numbers(messages: list[bytes]) -> list[int]:
    return [int(raw.partition(b"No. ")[2].partition(b".")[0]) for raw in messages]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_datagrams(family: int, tmp_path: Path) -> None:
    receiver, address = open_datagrams(family, tmp_path)
    with receiver:
        sink = sink_to(DatagramTransport(address, JSON, 2048))
        for number in range(3):
            sink.emit(summarised(number))
        received = [receiver.recv(65536) for _ in range(3)]
        sink.close()
    for raw in received:
        assert parse(raw).data["spamsensor@32473"]
    assert numbers(received) == [0, 1, 2]


def open_datagrams(family: int, directory: Path, port: int = 0) -> tuple[socket.socket, SyslogAddress]:
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.settimeout(10)
    if family == socket.AF_UNIX:
        receiver.bind(str(directory / "log"))
        return receiver, SyslogAddress(f"unix:{directory / 'log'}")
    receiver.bind(("127.0.0.1", port))
    return receiver, SyslogAddress(f"udp://127.0.0.1:{receiver.getsockname()[1]}")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_receiver_of_datagrams_dies_and_comes_back(family: int, tmp_path: Path) -> None:
    receiver, address = open_datagrams(family, tmp_path)
    news: list[str] = []
    sink = sink_to(DatagramTransport(address, TEXT, 2048), news)
    sink.emit(summarised(1, alert_id="a"))
    assert numbers([receiver.recv(65536)]) == [1]
    receiver.close()
    (tmp_path / "log").unlink(missing_ok=True)
    sink.emit(summarised(2, alert_id="b"))
    wait_until(lambda: news)
    receiver, _ = open_datagrams(family, tmp_path, address.port)
    with receiver:
        received = {1: b"", 2: b""}
        while not all(received.values()):
            raw = receiver.recv(65536)
            received[numbers([raw])[0]] = raw
        wait_until(lambda: sink.stats().is_up)
        sink.close()
    assert b'repeated="true"' in received[1]
    assert sink.stats().lost == 0
    assert news[0].startswith(f"syslog {address}: ")


def test_datagrams_go_to_the_address_at_which_somebody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, dead = open_datagrams(socket.AF_INET, tmp_path)
    nobody.close()
    receiver, address = open_datagrams(socket.AF_INET, tmp_path)
    found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", a.port)) for a in (dead, address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with receiver:
        sink = sink_to(DatagramTransport(SyslogAddress("udp://loghost"), TEXT, 2048))
        sink.emit(summarised(1))
        assert numbers([receiver.recv(65536)]) == [1]
        sink.close()


def test_names_are_looked_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, old = open_datagrams(socket.AF_INET, tmp_path)
    after, new = open_datagrams(socket.AF_INET, tmp_path)
    places = iter([old.port, new.port])
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", next(places)))],
    )
    transport = DatagramTransport(SyslogAddress("udp://loghost"), TEXT, 2048)
    with before, after:
        transport.connect()
        transport.send(summarised(1), is_repeated=False)
        monkeypatch.setattr(syslog_module, "_RESOLVED_S", -1.0)
        transport.send(summarised(2), is_repeated=False)
        assert numbers([before.recv(65536), after.recv(65536)]) == [1, 2]
        transport.disconnect(is_failed=False)


def test_a_local_socket_that_is_full_holds_up_nobody(tmp_path: Path) -> None:
    receiver, address = open_datagrams(socket.AF_UNIX, tmp_path)
    with receiver:
        sink = sink_to(DatagramTransport(address, TEXT, 2048), capacity=10)
        for number in range(5000):
            sink.emit(summarised(number))
        stats = sink.stats()
        assert stats.sent + stats.lost + stats.queued == 5000
        sink.begin_close(0.0)
        with pytest.raises(Exception, match="alerts lost"):
            sink.close()


def tls_config(certificates: Certificates, port: int, *, with_client: bool = False) -> Syslog:
    return Syslog(
        to=SyslogAddress(f"tls://127.0.0.1:{port}"),
        ca_file=str(certificates.ca_file),
        certificate_file=str(certificates.client_file) if with_client else None,
        key_file=str(certificates.client_key_file) if with_client else None,
    )


def tls_transport(certificates: Certificates, port: int, *, with_client: bool = False) -> StreamTransport:
    config = tls_config(certificates, port, with_client=with_client)
    return StreamTransport(config.to, TEXT, load_context(config, "output.syslog[0]"))


@pytest.fixture(params=["tcp", "tls"])
def stream(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[tuple[TcpReceiver, StreamTransport]]:
    is_tls = request.param == "tls"
    with TcpReceiver(certificates.server_context() if is_tls else None) as receiver:
        address = SyslogAddress(f"tcp://127.0.0.1:{receiver.port}")
        yield (
            receiver,
            tls_transport(certificates, receiver.port)
            if is_tls
            else StreamTransport(address, TEXT, context=None),
        )


def test_streams(stream: tuple[TcpReceiver, StreamTransport]) -> None:
    receiver, transport = stream
    sink = sink_to(transport)
    for number in range(100):
        sink.emit(summarised(number))
    sink.close()
    wait_until(lambda: len(receiver.messages()) == 100)
    assert numbers(receiver.messages()) == list(range(100))
    assert all(parse(raw) for raw in receiver.messages())
    (stream_bytes,) = receiver.received
    assert unframed(bytes(stream_bytes))[1] == b""


def test_a_receiver_dies_and_comes_back(stream: tuple[TcpReceiver, StreamTransport]) -> None:
    receiver, transport = stream
    news: list[str] = []
    sink = sink_to(transport, news, capacity=5)
    sink.emit(summarised(1, alert_id="a"))
    sink.emit(summarised(2, alert_id="b"))
    sink.emit(summarised(3, alert_id="b", state="ended"))
    wait_until(lambda: len(receiver.messages()) == 3)
    receiver.stop()
    wait_until(lambda: not sink.stats().is_up)
    for number in range(4, 14):
        sink.emit(summarised(number, alert_id=f"c{number}"))
    assert (sink.stats().queued, sink.stats().lost) == (5, 5)
    receiver.start()
    wait_until(lambda: sink.stats().queued == 0)
    wait_until(lambda: len(receiver.messages()) == 3 + 6 + 5)
    again = receiver.messages()[3:]
    assert numbers(again) == [1, *range(4, 14)]
    assert [b'repeated="true"' in raw for raw in again] == [True] * 6 + [False] * 5
    with pytest.raises(Exception, match=r": 5 alerts lost: "):
        sink.close()
    assert "said again" in news[1]
    assert sink.stats().reconnects == 1


def test_a_receiver_that_never_reads_is_given_up() -> None:
    with TcpReceiver(reads=False) as receiver:
        news: list[str] = []
        address = SyslogAddress(f"tcp://127.0.0.1:{receiver.port}")
        padded = TEXT._replace(encode=lambda alert: encoded_line(alert) + b"x" * 500_000)
        sink = sink_to(StreamTransport(address, padded, context=None, timeout_s=0.05), news, capacity=10)
        for number in range(1000):
            sink.emit(summarised(number))
        wait_until(lambda: news)
        assert news[0].startswith(f"syslog {address}: timed out; ")
        assert sink.stats().lost > 900
        sink.begin_close(0.05)
        with pytest.raises(Exception, match="alerts lost"):
            sink.close()


# TLS.


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            "other name",
            "its certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
        ("expired", "its certificate is refused: certificate has expired"),
        ("other authority", "its certificate is refused: unable to get local issuer certificate"),
    ],
)
def test_a_wrong_certificate_gets_nothing(certificates: Certificates, kind: str, reason: str) -> None:
    with TcpReceiver(certificates.server_context(kind)) as receiver:
        news: list[str] = []
        sink = sink_to(tls_transport(certificates, receiver.port), news)
        sink.emit(CAMERA_ALERT)
        wait_until(lambda: news)
        sink.begin_close(0.0)
        with pytest.raises(Exception, match=r": 1 alert lost: its certificate is refused"):
            sink.close()
        assert receiver.messages() == []
    assert news[0].startswith(f"syslog tls://127.0.0.1:{receiver.port}: {reason}")


def test_a_receiver_without_tls_gets_nothing(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        news: list[str] = []
        sink = sink_to(tls_transport(certificates, server.getsockname()[1]), news)
        sink.emit(CAMERA_ALERT)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 no TLS here\r\n")
            wait_until(lambda: news)
        sink.begin_close(0.0)
        with pytest.raises(Exception, match=r": 1 alert lost: TLS: "):
            sink.close()


def test_a_client_certificate_is_shown(certificates: Certificates) -> None:
    with TcpReceiver(certificates.server_context(demands_client=True)) as receiver:
        sink = sink_to(tls_transport(certificates, receiver.port, with_client=True))
        sink.emit(summarised(1))
        sink.close()
        wait_until(lambda: numbers(receiver.messages()) == [1])


def test_without_a_client_certificate_nothing_is_sent_where_one_is_demanded(
    certificates: Certificates,
) -> None:
    with TcpReceiver(certificates.server_context(demands_client=True)) as receiver:
        news: list[str] = []
        sink = sink_to(tls_transport(certificates, receiver.port), news)
        sink.emit(CAMERA_ALERT)
        wait_until(lambda: news)
        assert "certificate required" in news[0]
        assert sink.stats().sent == 0
        sink.begin_close(0.0)
        with pytest.raises(Exception, match=r": 1 alert lost: "):
            sink.close()


def test_keys_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.pem"
    subprocess.run(
        [
            "openssl",
            "pkey",
            "-aes128",
            "-passout",
            "pass:x",
            "-in",
            certificates.client_key_file,
            "-out",
            encrypted,
        ],
        check=True,
        capture_output=True,
    )
    none, junk = str(tmp_path / "none.pem"), tmp_path / "junk.pem"
    junk.write_text("no PEM")
    good, key = str(certificates.client_file), str(certificates.client_key_file)
    cases: list[tuple[dict[str, str], str]] = [
        ({"ca_file": none}, f'ca_file = "{none}": No such file or directory'),
        ({"ca_file": str(junk)}, f'ca_file = "{junk}": expected certificates in PEM form'),
        ({"certificate_file": none}, f'certificate_file = "{none}": No such file or directory'),
        (
            {"certificate_file": good},
            f'certificate_file = "{good}": expected a certificate and its key in PEM',
        ),
        ({"certificate_file": good, "key_file": none}, f'key_file = "{none}": No such file or directory'),
        ({"certificate_file": good, "key_file": str(encrypted)}, f'key_file = "{encrypted}": expected '),
        ({"certificate_file": none, "key_file": key}, f'certificate_file = "{none}": No such file'),
    ]
    for files, message in cases:
        output = Output(syslog=(Syslog(to=SyslogAddress("tls://loghost"), **files),))
        with pytest.raises(ConfigError) as caught:
            prepare_transports(output)
        assert str(caught.value).startswith(f"output.syslog[0].{message}")


def test_certificates_and_names_are_checked(certificates: Certificates) -> None:
    context = load_context(tls_config(certificates, 6514), "output.syslog[0]")
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# A real receiver.

_RSYSLOG = """
module(load="imudp")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name"
       PermittedPeer=["sensor.example.com"])
module(load="imptcp")
module(load="imuxsock" SysSock.Use="off")
global(workDirectory="{directory}" maxMessageSize="64k" DefaultNetstreamDriverCAFile="{ca_file}"
       DefaultNetstreamDriverCertFile="{directory}/server.pem"
       DefaultNetstreamDriverKeyFile="{directory}/server-key.pem")
template(name="taken" type="list") {{
  property(name="pri") constant(value="\\t") property(name="timereported" dateFormat="rfc3339") constant(value="\\t")
  property(name="hostname") constant(value="\\t") property(name="app-name") constant(value="\\t")
  property(name="procid") constant(value="\\t") property(name="msgid") constant(value="\\t")
  property(name="structured-data") constant(value="\\t") property(name="msg") constant(value="\\n")
}}
ruleset(name="udp") {{ action(type="omfile" file="{directory}/udp" template="taken") }}
ruleset(name="tcp") {{ action(type="omfile" file="{directory}/tcp" template="taken") }}
ruleset(name="tls") {{ action(type="omfile" file="{directory}/tls" template="taken") }}
ruleset(name="unix") {{ action(type="omfile" file="{directory}/unix" template="taken") }}
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="udp")
input(type="imptcp" address="127.0.0.1" port="{tcp}" ruleset="tcp")
input(type="imtcp" address="127.0.0.1" port="{tls}" ruleset="tls")
input(type="imuxsock" socket="{directory}/log" useSpecialParser="off" ignoreTimestamp="off"
      useSysTimestamp="off" ruleset="unix")
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def rsyslog(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[tuple[Path, dict[str, str]]]:
    program = shutil.which("rsyslogd") or shutil.which("/usr/sbin/rsyslogd")
    if program is None:
        assert not os.environ.get("CI"), "this test must run in CI: apt-get install rsyslog rsyslog-gnutls"
        pytest.skip("needs rsyslogd")
    directory = tmp_path_factory.mktemp("rsyslog")
    server = certificates.servers["good"]
    server.private_key_pem.write_to_path(directory / "server-key.pem")
    server.cert_chain_pems[0].write_to_path(directory / "server.pem")
    ports = {"udp": free_port(socket.SOCK_DGRAM)}
    ports |= {name: free_port(socket.SOCK_STREAM) for name in ("tcp", "tls")}
    config = directory / "rsyslog.conf"
    config.write_text(_RSYSLOG.format(directory=directory, ca_file=certificates.ca_file, **ports))
    with (directory / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [program, "-n", "-f", config, "-i", directory / "pid"], stdout=errors, stderr=errors
        )
    try:
        wait_until(lambda: is_listening(ports["tls"]) and is_listening(ports["tcp"]))
        wait_until((directory / "log").exists)
        yield (
            directory,
            {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
            | {"unix": f"unix:{directory / 'log'}"},
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls", "unix"])
def test_rsyslog_reads_what_we_write(
    rsyslog: tuple[Path, dict[str, str]], certificates: Certificates, kind: str
) -> None:
    directory, addresses = rsyslog
    client = certificates if kind == "tls" else None
    to = SyslogAddress(addresses[kind])
    syslog = Syslog(
        to=to,
        max_bytes=8192,
        format="json",
        facility="local3",
        ca_file=client and str(client.ca_file),
        certificate_file=client and str(client.client_file),
        key_file=client and str(client.client_key_file),
    )
    (transport,) = prepare_transports(Output(syslog=(syslog,)))
    alerts = [
        CAMERA_ALERT,
        named('x"] [other@1 y="z'),
        named("a\\x0ab \\ c]"),
        make_alert(state="ended", summary="It is over."),
    ]
    sink = sink_to(transport)
    for alert in alerts:
        sink.emit(alert)
    sink.close()
    taken = directory / kind
    wait_until(lambda: taken.exists() and taken.read_bytes().count(b"\n") == len(alerts))
    form = MessageForm.of_this_process("local3", 32473, alert_json)
    for line, alert in zip(taken.read_text().splitlines(), alerts, strict=True):
        head, body = message_parts(alert, form)
        ours = parse(head + b" " + body)
        pri, timestamp, host_name, app_name, process_id, message_id, data, content = line.split("\t", 7)
        assert int(pri) == ours.facility * 8 + ours.severity
        assert timestamp.replace("+00:00", "Z") == ours.timestamp
        assert [host_name, app_name, process_id, message_id] == [
            ours.host_name,
            ours.app_name,
            ours.process_id,
            ours.message_id,
        ]
        assert data.encode() == head[head.index(b"[") :]
        assert msgspec.json.decode(content, type=Alert) == alert
