from __future__ import annotations

import contextlib
import ipaddress
import re
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.config import (
    MAX_CONFIG_BYTES,
    Config,
    HostName,
    Instant,
    Mac,
    Network,
    SyslogAddress,
    WebhookUrl,
    describe,
    load_config,
    settings,
    table_types,
    toml_value,
)
from sensor.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NO_NETWORK = "expected an address or network such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
RULE = '[[exceptions]]\nreason = "the old scanner"\nexpires = 2027-06-30\n'
#: What a table of a list must have.
OTHERS = {
    "exceptions[]": RULE.partition("\n")[2],
    "output.syslog[]": 'to = "tls://loghost"\n',
    "output.webhook[]": 'url = "https://hooks.example.com/"\n',
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "site.toml"


def load(path: Path, text: str | bytes) -> Config:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def error_of(path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, text)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# What can be said about any file.


@given(st.binary(max_size=300))
def test_any_bytes_load_or_are_one_line(config_file: Path, raw: bytes) -> None:
    message = ""
    try:
        load(config_file, raw)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()


toml_scalars = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["true", "false", "2027-01-01", "10:00:00", "2027-01-01T00:00:00+02:00", "{}", "[]", "[[1]]"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=80).map(toml_value),
)


@given(st.sampled_from([s.key for s in settings()]), st.sampled_from(["{}", "[{}]"]), toml_scalars)
def test_a_wrong_value_is_named_with_its_key(config_file: Path, key: str, form: str, scalar: str) -> None:
    table, _, leaf = key.rpartition(".")
    header = f"[[{table[:-2]}]]\n" if table.endswith("[]") else f"[{table}]\n" if table else ""
    others = OTHERS.get(table, "")
    others = "".join(f"{line}\n" for line in others.splitlines() if not line.startswith(f"{leaf} "))
    message = ""
    try:
        load(config_file, f"{header}{leaf} = {form.format(scalar)}\n{others}")
    except ConfigError as error:
        message = str(error).removeprefix(f"{config_file}: ")
    assert message.isprintable()
    places = [key.replace("[]", "[0]"), table.replace("[]", "[0]")]
    assert message == "" or any(
        re.match(rf"{re.escape(place)}(\[\d+\])?( = .*)?: expected ", message) for place in places
    )


@given(st.text(max_size=30))
def test_an_unknown_key_is_named(config_file: Path, key: str) -> None:
    known = {name.removesuffix("[]") for name in (*table_types(), *(s.key for s in settings()))}
    if key in known or "\r" in key or not key.isprintable():
        return
    assert error_of(config_file, f"{toml_value(key)} = 1\n").startswith(f"{key} is no setting: ")


def test_the_documented_defaults_are_the_defaults(config_file: Path) -> None:
    tables: dict[str, list[str]] = {}
    for setting in settings():
        table, _, leaf = setting.key.rpartition(".")
        if setting.default is not None and not table.endswith("[]"):
            tables.setdefault(table, []).append(f"{leaf} = {setting.default}")
    text = "\n".join([*tables.pop(""), *(f"[{t}]\n" + "\n".join(lines) for t, lines in tables.items())])
    assert load(config_file, text) == load(config_file, "") == load_config() == Config()


def test_every_setting_is_described() -> None:
    for setting in settings():
        assert setting.description.endswith("."), setting.key
        assert setting.allowed, setting.key


# Values.


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_normalise(address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int) -> None:
    prefix = min(prefix, address.max_prefixlen)
    cidr = ipaddress.ip_network((address, prefix), strict=False)
    network = Network(str(cidr))
    assert Network(str(network)) == network
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is None:
        assert network.cidr == cidr
    if address != cidr.network_address:
        with pytest.raises(ValueError, match="expected the network's first address"):
            Network(f"{address}/{prefix}")


def test_ipv4_mapped_networks_are_ipv4() -> None:
    assert Network("::ffff:10.0.0.0/104") == Network("10.0.0.0/8")
    assert str(Network("::ffff:10.0.0.1")) == "10.0.0.1"


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "300.1.1.1", "10.0.0.0/8/8", "fe80::1%eth0", "mail", "1"]
)
def test_no_networks(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Network(text)


@given(st.integers(0, 2**48 - 1).filter(lambda number: not number >> 40 & 1))
def test_macs_are_read_in_three_notations(number: int) -> None:
    digits = f"{number:012x}"
    pairs = re.findall("..", digits)
    for text in (":".join(pairs), "-".join(pairs).upper(), ".".join(re.findall("....", digits))):
        assert Mac(text).number == number
        assert str(Mac(text)) == ":".join(pairs)


def test_a_group_address_is_no_device() -> None:
    with pytest.raises(ValueError, match="not a group address"):
        Mac("01:00:5e:00:00:01")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("*.example.com", "expected example.com, which stands for everything below it too"),
        ("büro", "expected an internationalised name in its xn-- form"),
        ("two words", "expected a name of letters"),
        ("a..b", "expected a name of letters"),
        ("x" * 64, "expected a name of letters"),
        ("", "expected a name of letters"),
    ],
)
def test_no_host_names(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        HostName(text)


def test_an_instant_is_utc_unless_it_says_otherwise(config_file: Path) -> None:
    def expires(text: str) -> Instant:
        rule = f'[[exceptions]]\ndevice = "cam"\nreason = "test"\nexpires = {text}\n'
        return load(config_file, rule).exceptions[0].expires

    def ns(moment: datetime) -> int:
        return int(moment.timestamp()) * 1_000_000_000

    assert expires("2027-06-30").ns == ns(datetime(2027, 7, 1, tzinfo=UTC))  # the whole day
    assert expires("2027-06-30T12:00:00").ns == ns(datetime(2027, 6, 30, 12, tzinfo=UTC))
    assert expires("2027-06-30T12:00:00+02:00").ns == ns(datetime(2027, 6, 30, 10, tzinfo=UTC))


def test_exceptions_name_devices_and_destinations_in_several_ways(config_file: Path) -> None:
    text = "".join(
        f'{RULE}device = "{device}"\ndestination = "{destination}"\n'
        for device, destination in [
            ("44-19-B6-0A-0B-0C", "Example.COM."),
            ("10.1.2.3", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::/32"),
            ("cam-garage", "smtp"),
        ]
    )
    rules = load(config_file, text).exceptions
    assert [rule.device for rule in rules] == [
        Mac("44:19:b6:0a:0b:0c"),
        Network("10.1.2.3"),
        Network("2001:db8::1"),
        HostName("cam-garage"),
    ]
    assert [str(rule.destination) for rule in rules] == [
        "example.com",
        "192.0.2.0/24",
        "2001:db8::/32",
        "smtp",
    ]


@pytest.mark.parametrize(
    ("text", "normal", "host", "port"),
    [
        ("udp://loghost", "udp://loghost:514", "loghost", 514),
        ("tcp://192.0.2.7:601/", "tcp://192.0.2.7:601", "192.0.2.7", 601),
        ("TLS://LogHost.example.com", "tls://loghost.example.com:6514", "loghost.example.com", 6514),
        ("tls://[2001:DB8::7]", "tls://[2001:db8::7]:6514", "2001:db8::7", 6514),
        ("unix:/dev/log", "unix:/dev/log", "", 0),
        ("unix:///dev/log", "unix:/dev/log", "", 0),
    ],
)
def test_syslog_addresses(text: str, normal: str, host: str, port: int) -> None:
    address = SyslogAddress(text)
    assert (str(address), address.host, address.port) == (normal, host, port)
    assert str(SyslogAddress(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "loghost", "loghost:514", "http://loghost", "udp://", "udp://loghost:0", "udp://loghost:99999"),
        *(
            "udp://log host",
            "udp://lög",
            "udp://u:p@loghost",
            "udp://loghost/path",
            "udp://loghost?a",
            "tls://[::1",
        ),
        *("tls://[fe80::1%25eth0]", "tls://300.1.1.1", "tcp://-x", "unix:dev/log", "unix://host/dev/log"),
        *("unix:/" + "x" * 107, "tls://log\thost", "tls://log#x"),
    ],
)
def test_no_syslog_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        SyslogAddress(text)


def test_webhook_addresses() -> None:
    url = WebhookUrl("HTTPS://Hooks.example.com/T0/secret?x=1")
    assert (url.host, url.port, url.target) == ("hooks.example.com", 443, "/T0/secret?x=1")
    assert url.origin == "https://hooks.example.com:443"
    assert (WebhookUrl("http://[::1]:8080").port, WebhookUrl("http://[::1]:8080").target) == (8080, "/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://x/",
        "https://",
        "https:///x",
        "https://u@x/",
        "https://x/ y",
        "https://x/#y",
        "http://x:y/",
        "x/\r\ny",
    ],
)
def test_no_webhook_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected an address such as https://"):
        WebhookUrl(text)


@given(st.text())
def test_any_text_is_an_address_or_is_not(text: str) -> None:
    for prefix, kind in product(("", "udp://", "https://"), (SyslogAddress, WebhookUrl)):
        with contextlib.suppress(ValueError):
            assert str(kind(prefix + text)).isascii()


# Messages, exactly.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flows = 3", "flows is no setting: did you mean tables.flows?"),
        ("home_net = []", "home_net is no setting: did you mean home_nets?"),
        ("[table]\nflows = 3", "table is no setting: did you mean tables?"),
        ("[tables]\nflowz = 1", "tables.flowz is no setting: did you mean tables.flows?"),
        (
            "[timeouts]\nzzz = 1",
            "timeouts.zzz is no setting: expected one of timeouts.attempt_s, timeouts.idle_s",
        ),
        (
            "[tables]\nflows = 5000",
            "tables.flows = 5000: expected a power of two from 256 to 4194304, such as 4096 or 8192",
        ),
        ("[tables]\nflows = 5", "tables.flows = 5: expected a power of two from 256 to 4194304"),
        ('[tables]\nflows = "x"', 'tables.flows = "x": expected a power of two from 256 to 4194304'),
        ("tables = 3", "tables = 3: expected a table, [tables]"),
        ("exceptions = 3", "exceptions = 3: expected a list of tables, [[exceptions]]"),
        ("exceptions = [3]", "exceptions[0] = 3: expected a table, [[exceptions]]"),
        ("[[exceptions]]", "exceptions[0].reason is missing: expected a text of 1 to 1000 characters"),
        ('[[exceptions]]\nreason = "x"', "exceptions[0].expires is missing: expected a date or date-time"),
        (
            '[[exceptions]]\nreason = " "\nexpires = 2027-01-01',
            'exceptions[0].reason = " ": expected a text of 1 to 1000 characters',
        ),
        (RULE, "exceptions[0]: expected a device, a destination or both"),
        (
            RULE.replace("2027-06-30", '"2027-06-30"'),
            'exceptions[0].expires = "2027-06-30": expected a date such as 2027-06-30, without quotes',
        ),
        (
            RULE.replace("2027-06-30", "9999-12-31"),
            "exceptions[0].expires = 9999-12-31: expected a date before 9999-12-31",
        ),
        ("home_nets = []", "home_nets = []: expected a list of 1 to 1024, each an address or network"),
        (
            'home_nets = ["10.0.0.0/8", "10.0.0.0/33"]',
            f'home_nets[1] = "10.0.0.0/33": {NO_NETWORK}',
        ),
        (
            'home_nets = ["192.168.1.5/24"]',
            'home_nets[0] = "192.168.1.5/24": expected the network\'s first address: 192.168.1.0/24',
        ),
        ("resolvers = [8]", "resolvers[0] = 8: expected a text in quotes"),
        ("mail_ports = [25, 25]", "mail_ports = [25, 25]: expected each port once"),
        (
            "mail_ports = [25, 53]",
            "mail_ports = [25, 53]: expected mail ports: 53 belongs to DNS, a protocol of the LAN or a tunnel",
        ),
        ("mail_ports = [0]", "mail_ports[0] = 0: expected a whole number from 1 to 65535"),
        ("mail_ports = [true]", "mail_ports[0] = true: expected a whole number from 1 to 65535"),
        (
            "[timeouts]\nidle_s = 50",
            "timeouts: expected idle_s, which is 50, to be at least attempt_s, which is 90",
        ),
        (
            "[timeouts]\nattempt_s = 700",
            "timeouts: expected idle_s, which is 600, to be at least attempt_s, which is 700",
        ),
        (
            "[budget]\nfalse_alarms_per_device_year = nan",
            "budget.false_alarms_per_device_year = nan: expected a number from 0.001 to 10.0",
        ),
        ('[output]\nformat = "xml"', 'output.format = "xml": expected "text" or "json"'),
        ("[output]\nsyslog = 3", "output.syslog = 3: expected a list of tables, [[output.syslog]]"),
        (
            "[[output.syslog]]",
            "output.syslog[0].to is missing: expected an address such as tls://loghost:6514",
        ),
        (
            '[[output.syslog]]\nurl = "udp://x"',
            "output.syslog[0].url is no setting: did you mean output.webhook[].url?",
        ),
        ("[[output.webhooks]]", "output.webhooks is no setting: did you mean output.webhook[]?"),
        (
            '[[output.syslog]]\nto = "udp://x"\nca_file = "ca.pem"',
            'output.syslog[0].ca_file = "ca.pem": expected only with tls://, not with udp:',
        ),
        (
            '[[output.webhook]]\nurl = "https://x/"\nkey_file = "key.pem"',
            'output.webhook[0].key_file = "key.pem": expected a certificate_file beside it',
        ),
        ("a =", "not TOML: Invalid value (at end of document)"),
        ("a = 1\nb = 2026-02-30", "not TOML: Invalid date or datetime (at line 2, column 5)"),
        (b"a = 1 # \xff", "byte 8: not UTF-8, which TOML demands"),
        ("a = " + "[" * 20_000, "not TOML that can be read: nested too deeply"),
        (b"#" * (MAX_CONFIG_BYTES + 1), f"larger than {MAX_CONFIG_BYTES} bytes, so no configuration"),
    ],
)
def test_messages(config_file: Path, text: str | bytes, message: str) -> None:
    assert error_of(config_file, text) == message


def test_long_values_are_cut(config_file: Path) -> None:
    message = error_of(config_file, f'resolvers = ["{"x" * 500}"]')
    assert len(message) < 200
    assert message.startswith('resolvers[0] = "xxx')


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'none.toml'}: No such file or directory")):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: Is a directory")):
        load_config(tmp_path)


def test_home_nets_of_the_command_line_replace_those_of_the_file(config_file: Path) -> None:
    config_file.write_text('home_nets = ["10.0.0.0/8"]\nmail_ports = [25]\n')
    config = load_config(config_file, home_nets=["192.0.2.0/24"])
    assert config.home_nets == (Network("192.0.2.0/24"),)
    assert config.mail_ports == (25,)
    with pytest.raises(ConfigError, match=r'^--home-net "192.0.2.0/99": expected an address or network'):
        load_config(None, home_nets=["192.0.2.0/99"])


def test_describe_says_what_each_setting_means(config_file: Path) -> None:
    text = 'home_nets = ["192.0.2.0/24"]\nmail_servers = ["192.0.2.25"]\nresolvers = ["192.0.2.53"]\n'
    text += '[output]\nfile = "alerts.jsonl"\n'
    text += RULE + 'device = "scanner"\ndestination = "example.com"\n'
    config = load(config_file, text)
    expiry = config.exceptions[0].expires.ns
    assert describe(config, expiry - 1) == [
        ("home networks", "192.0.2.0/24: devices inside are watched"),
        ("mail servers", "192.0.2.25: judged against their own past, not exempt"),
        ("resolvers", "192.0.2.53: DNS asked elsewhere counts as a detour"),
        ("mail ports", "TCP 25, 465, 587, 2525"),
        (
            "budget",
            "aims at 0.05 false alarms per device and year; a factory setting, not measured at this site",
        ),
        ("attempts", "unanswered after 90 s"),
        ("connections", "over after 600 s without a packet"),
        ("alerts", "text on standard output"),
        ("", "and appended to alerts.jsonl, one JSON object a line"),
        (
            "exception",
            "device scanner, destination example.com: until 2027-06-30: the old scanner",
        ),
    ]
    assert "EXPIRED, without effect: 2027-06-30" in describe(config, expiry)[-1][1]


def test_describe_says_where_alerts_go(config_file: Path) -> None:
    text = '[output]\nfile = "alerts.txt"\nfile_format = "text"\n'
    text += '[[output.syslog]]\nto = "tls://loghost"\nca_file = "ca.pem"\ncertificate_file = "me.pem"\n'
    text += '[[output.syslog]]\nto = "unix:/dev/log"\nformat = "json"\nfacility = "daemon"\n'
    text += '[[output.webhook]]\nurl = "https://hooks.example.com/T0/secret"\nsecret_file = "key"\n'
    text += '[[output.webhook]]\nurl = "http://hooks.example.com/"\n'
    said = describe(load(config_file, text), 0)
    checked = "its certificate is checked against"
    assert said[said.index(("alerts", "text on standard output")) + 1 :] == [
        ("", "and appended to alerts.txt, as text"),
        (
            "",
            f"and to syslog at tls://loghost:6514, as text, facility local0; {checked} ca.pem, our certificate me.pem",
        ),
        ("", "and to syslog at unix:/dev/log, as json, facility daemon"),
        (
            "",
            f"and posted to https://hooks.example.com:443, as json, signed; {checked} the system's authorities",
        ),
        (
            "",
            "and posted to http://hooks.example.com:80, as json, not signed: anybody could post there in our name",
        ),
        ("", "up to 1024 wait for each receiver that is not there"),
    ]


def test_describe_cuts_long_lists() -> None:
    nets = tuple(Network(f"10.{n}.0.0/16") for n in range(10))
    (_, text), *_ = describe(msgspec.structs.replace(Config(), home_nets=nets), 0)
    assert text.endswith("10.7.0.0/16 and 2 more: devices inside are watched")
