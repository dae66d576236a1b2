from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from alert_examples import CAMERA_ALERT, make_alert
from click.testing import CliRunner, Result
from fake_run import FakeRun
from receivers import TcpReceiver, wait_until

from sensor import __version__
from sensor.alerts.formats import alert_json, alert_schema, alert_text
from sensor.alerts.sinks import SinkStats
from sensor.cli import Signals, main
from sensor.console import status_line
from sensor.devices.kinds import load_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "sensor"]
COMMANDS = ["replay", "watch", "devices", "alerts", "decode", "simulate", "check", "schema"]

SUMMARY = (
    "spamsensor: read 6 packets from 2026-11-23 14:50:10 UTC on, 3 min 12 s: 0.0 MB in X s, X packets/s\n"
    "spamsensor: saw 1 device, 31 mail connections, 40 MX look-ups: 1 alert, 0 for review\n"
)


def run_cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="spamsensor")


def without_clock(text: str) -> str:
    return re.sub(r"in [\d.]+ s, [\d,]+ packets/s", "in X s, X packets/s", text)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    monkeypatch.setattr("sensor.cli._must_compile", lambda: False)

    def install(**behaviour: Any) -> FakeRun:
        run = FakeRun(**behaviour)
        for name, module in run.install().items():
            monkeypatch.setitem(sys.modules, name, module)
        return run

    return install


# Signals.


def test_a_hangup_is_taken_once_and_only_where_it_means_something() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Signals():
        assert signal.getsignal(signal.SIGHUP) is before
    with Signals(with_hangup=True) as signals:
        assert not signals.take_hangup()
        signal.raise_signal(signal.SIGHUP)
        assert signals.take_hangup()
        assert not signals.take_hangup()
    assert signal.getsignal(signal.SIGHUP) is before


# Help.


def test_help_needs_no_heavy_import() -> None:
    for command in ([], *([name] for name in COMMANDS)):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "sensor", *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        heavy = {"numpy", "numba", "pyarrow", "rich", "msgspec", "scapy", "pandas"}
        assert imported.isdisjoint(heavy), (command, imported & heavy)


def child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_is_instant() -> None:
    """By the processor's time: what it takes beside is other programs'."""
    for command in ([], *([name] for name in COMMANDS)):
        times = []
        for _ in range(3):
            before = child_seconds()
            subprocess.run([*PROGRAM, *command, "--help"], capture_output=True, check=True, cwd=ROOT)
            times.append(child_seconds() - before)
        assert min(times) < 0.3, command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_says_every_default(name: str) -> None:
    result = run_cli(name, "--help")
    assert result.exit_code == 0
    assert f"\n    spamsensor {name}" in result.stdout
    for option in main.commands[name].params:
        if isinstance(option, click.Option):
            assert option.help is not None
            assert "[default: " in option.help, option.name


def test_no_command_is_a_usage_error_with_help() -> None:
    result = run_cli()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: spamsensor ")


def test_version() -> None:
    assert run_cli("--version").stdout == f"spamsensor {__version__}\n"


# Usage errors: one line, status 2, nothing done.


SEE_HELP = " (spamsensor replay --help lists what there is)"
NO_NETWORK = "expected an address or network such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "no capture given: name files, directories or patterns, or '-' for standard input"),
        (["decode"], "no capture given: name one file, or '-' for standard input"),
        (["bogus"], "No such command 'bogus' (spamsensor --help lists what there is)"),
        (["--bogus"], "No such option '--bogus' (spamsensor --help lists what there is)"),
        (["replay", "--bogus"], "No such option '--bogus' (spamsensor replay --help lists what there is)"),
        (
            ["replay", "--format", "xml", "x.pcap"],
            f"Invalid value for '--format': 'xml' is not one of 'text', 'json'{SEE_HELP}",
        ),
        (
            ["replay", "--exit-code", "0", "x.pcap"],
            f"Invalid value for '--exit-code': 0 is not in the range 1<=x<=255{SEE_HELP}",
        ),
        (
            ["replay", "--home-net", "300.0.0.0/8", "x.pcap"],
            f'--home-net "300.0.0.0/8": {NO_NETWORK}',
        ),
        (["replay", "-c", "none.toml", "x.pcap"], "none.toml: No such file or directory"),
        (
            ["replay", "--devices", "d.txt", "x.pcap"],
            "d.txt: a table's name ends in .csv, .jsonl, .ndjson, .parquet",
        ),
        (
            ["replay", "--stats", "no/such/s.json", "x.pcap"],
            "no/such/s.json: cannot be written: No such file or directory",
        ),
        (
            ["replay", "--devices", "a.csv", "--features", "./a.csv", "x.pcap"],
            "./a.csv: named twice, as an output and as something else",
        ),
        (
            ["replay", "--events", "x.pcap", "x.pcap"],
            "x.pcap: named twice, as an output and as something else",
        ),
        (["check", "-c", "none.toml"], "none.toml: No such file or directory"),
    ],
)
def test_usage_errors(
    arguments: list[str],
    message: str,
    fake: Callable[..., FakeRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fake()
    monkeypatch.chdir(tmp_path)
    result = run_cli(*arguments)
    assert result.stderr == f"spamsensor: {message}\n"
    assert result.stdout == ""
    assert result.exit_code == 2
    assert not run.is_finished
    assert list(tmp_path.iterdir()) == []


# Replay.


def test_replay_prints_alerts_and_a_summary(fake: Callable[..., FakeRun]) -> None:
    run = fake()
    result = run_cli("replay", "--home-net", "192.0.2.0/24", "a.pcap", "b.pcap")
    assert result.stdout == f"{alert_text(CAMERA_ALERT)}\n\n"
    assert without_clock(result.stderr) == SUMMARY
    assert result.exit_code == 0
    assert run.paths == ("a.pcap", "b.pcap")
    assert [str(net) for net in run.config.home_nets] == ["192.0.2.0/24"]
    assert run.is_finished
    assert run.is_closed


def test_replay_json_is_one_line_per_alert_and_nothing_else(fake: Callable[..., FakeRun]) -> None:
    alerts = [CAMERA_ALERT, make_alert(state="ended")]
    fake(alerts=alerts)
    result = run_cli("replay", "--format", "json", "a.pcap")
    assert result.stdout == "".join(f"{alert_json(alert).decode()}\n" for alert in alerts)
    assert result.stderr == ""


def test_the_configuration_decides_format_and_file(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake()
    archive = tmp_path / "alerts.jsonl"
    config = tmp_path / "site.toml"
    config.write_text(f'[output]\nformat = "json"\nfile = "{archive}"\n')
    line = f"{alert_json(CAMERA_ALERT).decode()}\n"
    assert run_cli("replay", "-c", str(config), "a.pcap").stdout == line
    assert archive.read_text() == line
    assert run_cli("replay", "-c", str(config), "--format", "text", "a.pcap").stdout.startswith("ALERT  ")
    assert archive.read_text() == 2 * line


def test_alerts_go_to_receivers(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake()
    config, stats = tmp_path / "site.toml", tmp_path / "stats.json"
    with TcpReceiver() as receiver:
        address = f"tcp://127.0.0.1:{receiver.port}"
        config.write_text(f'[[output.syslog]]\nto = "{address}"\nformat = "json"\n')
        result = run_cli("replay", "-c", str(config), "--stats", str(stats), "a.pcap")
        assert (result.exit_code, without_clock(result.stderr)) == (0, SUMMARY)
        wait_until(receiver.messages)
    assert receiver.messages()[0].endswith(b"] " + alert_json(CAMERA_ALERT))
    taken = {"sent": 1, "lost": 0, "queued": 0, "reconnects": 0, "is_up": True}
    assert json.loads(stats.read_text())["sinks"] == [
        {"name": "stdout"} | taken,
        {"name": f"syslog {address}"} | taken,
    ]


def test_a_receiver_that_is_not_there_is_an_operational_error(
    fake: Callable[..., FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    monkeypatch.setattr("sensor.alerts.destinations.FLUSH_S", 0.1)
    config = tmp_path / "site.toml"
    config.write_text(f'[[output.syslog]]\nto = "unix:{tmp_path}/log"\n')
    result = run_cli("replay", "-c", str(config), "a.pcap")
    name = f"spamsensor: syslog unix:{tmp_path}/log: "
    assert f"{name}No such file or directory; up to 1,024 alerts wait until it is back\n" in result.stderr
    assert f"{name}1 alert lost: No such file or directory\n" in result.stderr
    assert result.stdout.startswith("ALERT  ")
    assert result.exit_code == 1


def test_a_status_line_names_receivers_in_trouble() -> None:
    stats = {"packets": 9, "kernel_drops": 0, "devices": 1, "smtp_flows": 2, "alerts": 1, "reviews": 0}
    sinks = [
        SinkStats("stdout", 5, 0),
        SinkStats("webhook a", 4, 1),
        SinkStats("syslog b", 3, 0, 2, 0, False),
    ]
    line = status_line({**stats, "interfaces": {}, "sinks": [sink._asdict() for sink in sinks]})
    assert line.endswith(", 0 for review, webhook a, 1 lost, syslog b is not there, 2 alerts waiting, 0 lost")


def test_replay_writes_its_files(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake(windows=[{"key": ["a"], "x": [1.0]}, {"key": ["a"], "x": [2.0]}])
    names = {
        option: tmp_path / name
        for option, name in {
            "--devices": "devices.csv",
            "--features": "features.jsonl",
            "--events": "events.jsonl",
            "--stats": "stats.json",
        }.items()
    }
    arguments = [text for option, path in names.items() for text in (option, str(path))]
    result = run_cli("replay", "--format", "json", *arguments, "a.pcap")
    assert (result.exit_code, result.stderr) == (0, "")
    assert names["--devices"].read_text() == "key,ips,index\n44:19:b6:0a:0b:0c,192.168.1.23,0.5\n"
    assert names["--features"].read_text() == '{"key":"a","x":1.0}\n{"key":"a","x":2.0}\n'
    events = [json.loads(line) for line in names["--events"].read_text().splitlines()]
    assert [event["event_type"] for event in events] == ["arp", "arp"]
    stats = json.loads(names["--stats"].read_text())
    assert stats["packets"] == 6
    assert stats["weirds"] == {"tcp_gap": 2}
    assert stats["peak_rss_bytes"] > 1 << 20
    assert stats["packets_per_second"] == pytest.approx(6 / stats["wall_seconds"], rel=0.05)
    assert 0 <= stats["cpu_seconds"] < 60
    assert len(list(tmp_path.iterdir())) == 4


def test_tables_on_standard_output_follow_the_format(fake: Callable[..., FakeRun]) -> None:
    fake(alerts=[])
    assert run_cli("replay", "--devices", "-", "a.pcap").stdout.startswith("key,ips,index\n")
    result = run_cli("replay", "--format", "json", "--devices", "-", "a.pcap")
    assert json.loads(result.stdout)["key"] == "44:19:b6:0a:0b:0c"


@pytest.mark.parametrize(
    ("behaviour", "options", "status"),
    [
        ({}, [], 0),
        ({}, ["--exit-code", "3"], 3),
        ({"alerts": []}, ["--exit-code", "3"], 0),
        ({"alerts": [make_alert(event_type="review")]}, ["--exit-code", "3"], 0),
        ({"problems": ["x.pcap: byte 24: cut"]}, [], 1),
        ({"problems": ["x.pcap: byte 24: cut"]}, ["--exit-code", "3"], 3),
        ({"problems": ["x.pcap: byte 24: cut"], "alerts": []}, ["--exit-code", "3"], 1),
    ],
)
def test_exit_status(
    fake: Callable[..., FakeRun], behaviour: dict[str, Any], options: list[str], status: int
) -> None:
    fake(**behaviour)
    assert run_cli("replay", *options, "x.pcap").exit_code == status


def test_a_problem_is_one_line_and_the_rest_is_judged(fake: Callable[..., FakeRun]) -> None:
    run = fake(problems=["bad\x1b[2J.pcap: byte 24: cut"])
    result = run_cli("replay", "--format", "json", "x.pcap")
    assert result.stderr == "spamsensor: bad\\x1b[2J.pcap: byte 24: cut\n"
    assert result.stdout.startswith('{"timestamp"')
    assert run.is_finished


def test_a_lost_alert_is_an_operational_error(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake()
    config = tmp_path / "site.toml"
    config.write_text('[output]\nfile = "/dev/full"\n')
    devices = tmp_path / "devices.csv"
    result = run_cli("replay", "-c", str(config), "--devices", str(devices), "x.pcap")
    reason = "spamsensor: /dev/full: 1 alerts could not be appended: No space left on device\n"
    assert reason in result.stderr
    assert result.exit_code == 1
    assert devices.exists()


def test_a_failed_output_is_one_line(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake()
    devices = tmp_path / "devices.csv"
    result = run_cli("replay", "--stats", "/dev/full", "--devices", str(devices), "x.pcap")
    assert "spamsensor: /dev/full: cannot be written: No space left on device\n" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("stats", "hint"),
    [
        ({"packets": 0}, "no packets at all: nothing was judged"),
        ({"devices": 0}, "no packet from a home network (10.0.0.0/8, 100.64.0.0/10,"),
        (
            {"elsewhere_connections": 16, "elsewhere_sender": "192.0.2.7"},
            "16 of 31 mail connections have no end in a home network (10.0.0.0/8, 100.64.0.0/10,",
        ),
        ({"elsewhere_connections": 15}, None),
        ({"dns_queries": 0}, "no DNS seen: "),
        ({"smtp_replies": 0}, "only the mail clients were seen, not their peers"),
        ({"smtp_commands": 0}, "only the mail servers were seen, not their peers"),
        ({"frames": {"unknown_link_type": 5}}, "5 packets could not be decoded"),
        ({}, None),
    ],
)
def test_hints(fake: Callable[..., FakeRun], stats: dict[str, Any], hint: str | None) -> None:
    fake(stats=stats)
    hints = [line for line in run_cli("replay", "x.pcap").stderr.splitlines() if " hint: " in line]
    if hint is None:
        assert hints == []
    else:
        (line,) = hints
        assert line.startswith(f"spamsensor: hint: {hint}")


# Signals, pipes and terminals need a process of their own.

DRIVER = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from alert_examples import CAMERA_ALERT
from fake_run import FakeRun, install_for_good
import sensor.cli
sensor.cli._must_compile = lambda: False
{behaviour}
install_for_good(run)
sensor.cli.main(prog_name="spamsensor")
"""


def start(behaviour: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    code = DRIVER.format(tests=str(ROOT / "tests"), root=str(ROOT), behaviour=textwrap.dedent(behaviour))
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, **(defaults | options))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["before_batch", "on_feed"])
def test_a_signal_ends_the_input_and_what_was_read_is_written(
    number: int, where: str, tmp_path: Path
) -> None:
    devices = tmp_path / "devices.csv"
    behaviour = f"""
    def wait(n):
        if n == 2:
            print("here", flush=True)
            time.sleep(30 if {where!r} == "before_batch" else 0.5)
    run = FakeRun(n_batches=1000, alerts=[], {where}=wait)
    """
    process = start(behaviour, "replay", "--devices", str(devices), "x.pcap")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    name = signal.Signals(number).name
    assert errors.startswith(f"spamsensor: ended by {name} after 6 packets: what was read is judged\n")
    assert process.returncode == 128 + number
    assert devices.read_text().startswith("key,")


def test_a_second_signal_ends_at_once_and_leaves_no_half_files(tmp_path: Path) -> None:
    behaviour = """
    import os, signal
    def wait(n):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    run = FakeRun(alerts=[], on_feed=wait)
    """
    process = start(behaviour, "replay", "--devices", str(tmp_path / "devices.csv"), "x.pcap")
    _, errors = process.communicate(timeout=20)
    assert errors == "spamsensor: ended at once by SIGTERM\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    behaviour = "run = FakeRun(n_batches=100_000, alerts=[CAMERA_ALERT] * 100_000)"
    with start(behaviour, "replay", "--devices", str(tmp_path / "devices.csv"), "x.pcap") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("ALERT  ")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = start("run = FakeRun()", "replay", "x.pcap", stdout=full)
        _, errors = process.communicate(timeout=20)
    assert errors == "spamsensor: standard output: No space left on device\n"
    assert process.returncode == 1


def on_terminal(behaviour: str, *arguments: str, **environment: str) -> str:
    """Run with standard output and error on a pseudo-terminal; return all that it showed."""
    leader, follower = os.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
    process = start(
        behaviour, *arguments, stdout=follower, stderr=follower, env=clean | {"TERM": "xterm"} | environment
    )
    os.close(follower)
    shown = b"".join(_chunks(leader))
    os.close(leader)
    assert process.wait(timeout=20) == 0
    return shown.decode()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # Linux: the other side is closed
            return
        if not chunk:
            return
        yield chunk


SLOW = "run = FakeRun(before_batch=lambda n: time.sleep(0.4))"


def test_a_terminal_gets_colour_and_a_bar() -> None:
    shown = on_terminal(SLOW, "replay", "x.pcap")
    assert "\x1b[1;31mALERT  " in shown
    assert "MB/s" in shown
    assert "packets/s" in shown
    shown = on_terminal(SLOW, "replay", "--no-progress", "x.pcap")
    assert "MB/s" not in shown


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_it_is_not_wanted(environment: dict[str, str]) -> None:
    shown = on_terminal("run = FakeRun()", "replay", "--no-progress", "x.pcap", **environment)
    assert shown.startswith("ALERT  ")
    assert "\x1b" not in shown


# The other commands.


def test_schema() -> None:
    result = run_cli("schema", "alert")
    assert json.loads(result.stdout) == alert_schema()
    assert run_cli("schema", "event").exit_code == 2


def test_check_says_what_the_configuration_means(
    fake: Callable[..., FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    monkeypatch.setattr("sensor.model.artifact.default_directory", lambda: None)
    config = tmp_path / "site.toml"
    config.write_text('home_nets = ["192.0.2.0/24"]\nresolvers = ["192.0.2.53"]\n')
    result = run_cli("check", "--config", str(config))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == (
        f"configuration  {config}\n"
        "home networks  192.0.2.0/24: devices inside are watched\n"
        "mail servers   none named: a mail server has to earn its role, and is on the review list meanwhile\n"
        "resolvers      192.0.2.53: DNS asked elsewhere counts as a detour\n"
        "mail ports     TCP 25, 465, 587, 2525\n"
        "budget         aims at 0.05 false alarms per device and year; a factory setting, not measured at this site\n"
        "attempts       unanswered after 90 s\n"
        "connections    over after 600 s without a packet\n"
        "alerts         text on standard output\n"
        "model          none: the index and the rules alone\n"
        f"registries     vendors by netaddr {version('netaddr')}, mail operators by publicsuffixlist "
        f"{version('publicsuffixlist')}, kinds of devices by {len(load_rules())} rules\n"
        "memory         8.0 MiB for tables, allocated at the start, as follows\n"
        "                    5.0 MiB  devices\n"
        "                    3.0 MiB  flows\n"
        "missing        nothing\n"
    )


def test_check_reads_keys_and_secrets(fake: Callable[..., FakeRun], tmp_path: Path) -> None:
    fake()
    config = tmp_path / "site.toml"
    config.write_text('[[output.syslog]]\nto = "tls://loghost"\nca_file = "/nowhere/ca.pem"\n')
    for command in (["check"], ["replay", "x.pcap"]):
        result = run_cli(*command, "--config", str(config))
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr == (
            f'spamsensor: {config}: output.syslog[0].ca_file = "/nowhere/ca.pem": No such file or directory\n'
        )


def test_check_names_what_is_missing(fake: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    monkeypatch.setattr("sensor.cli._must_compile", lambda: True)
    result = run_cli("check")
    assert result.stdout.endswith(
        "missing        compiled kernels: the next run compiles them, which takes two minutes or so\n"
    )
    assert result.exit_code == 0


def test_the_time_for_compiling_is_none_for_reading(
    fake: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(alerts=[])
    monkeypatch.setattr("sensor.cli._must_compile", lambda: True)
    # Stands for the compiling: a time that can be told from what else the run takes, whatever that is.
    monkeypatch.setattr("sensor.cli._Run.warm_up", lambda _: time.sleep(0.5))
    begun = time.monotonic()
    result = run_cli("replay", "x.pcap", "--stats", "-", "--format", "json")
    assert "compiling for this machine" in result.stderr
    read_s = json.loads(result.stdout)["wall_seconds"]
    assert read_s < time.monotonic() - begun - 0.5


def test_a_warning_is_one_line(fake: Callable[..., FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> bool:
        warnings.simplefilter("always")
        warnings.warn("kernels are compiled anew at each start: no room", RuntimeWarning, stacklevel=1)
        return False

    fake(alerts=[])
    monkeypatch.setattr("sensor.cli._must_compile", warn)
    result = run_cli("replay", "--format", "json", "x.pcap")
    assert result.stderr == "spamsensor: kernels are compiled anew at each start: no room\n"
    result = run_cli("check")
    assert result.stdout.endswith("missing        kernels are compiled anew at each start: no room\n")
