"""The sensor on a mirror port: a switch with a mirror, in network namespaces that the tests make."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from receivers import Certificates
from reference_syslog import parse
from test_artifact import MODEL

from sensor.model.artifact import Artifact, write_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "sensor"]
FLOOD = ROOT / "pcaps" / "flood-camera.pcap"
FLOOD_PACKETS = 4016
SPAN = "span"

_SETUP = """
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link add br0 type bridge
for port in camera world; do
  ip link add $port type veth peer name sw-$port
  ip link set sw-$port master br0
  ip link set $port up
  ip link set sw-$port up
done
ip link set br0 up
ip link add mirror type veth peer name span
ip link set mirror up
ip link set span up
for port in sw-camera sw-world; do
  tc qdisc add dev $port clsact
  tc filter add dev $port ingress protocol all u32 match u32 0 0 action mirred egress mirror dev mirror
done
"""


_MIRROR_WORLD = """
tc filter add dev sw-world ingress protocol all u32 match u32 0 0 action mirred egress mirror dev mirror
"""


class Net:
    """A namespace with a switch: what ``camera`` and ``world`` send is mirrored to ``span``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *command: object) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command: object) -> str:
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, capture: Path, pps: int = 4000) -> None:
        self.run("tcpreplay", "-q", "-i", "camera", f"--pps={pps}", capture)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    name = f"spamsensor-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        assert not os.environ.get("CI"), f"these tests must run in CI: {made.stderr}"
        pytest.skip("needs root and network namespaces")
    try:
        net = Net(name)
        net.run("sh", "-ec", _SETUP)
        yield net
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


class Watch:
    """A running sensor. ``wait_for`` reads its status lines."""

    def __init__(
        self,
        net: Net,
        directory: Path,
        *arguments: object,
        as_user: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._out, self._err = directory / "out", directory / "err"
        command = net.command(*as_user, *PROGRAM, "watch", "-i", SPAN, *arguments)
        env = os.environ | (environment or {})
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=env)

    @property
    def errors(self) -> str:
        return self._err.read_text()

    @property
    def output(self) -> str:
        return self._out.read_text()

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.errors:
            assert time.monotonic() < end, f"not said: {text}\n{self.errors}"
            assert self.process.poll() is None, self.errors
            time.sleep(0.05)

    def wait_for_records(self, n: int, timeout_s: float = 120) -> None:
        end = time.monotonic() + timeout_s
        while self.output.count("\n") < n:
            assert time.monotonic() < end, f"{n} records not written\n{self.errors}"
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def watching(
    net: Net,
    directory: Path,
    *arguments: object,
    as_user: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> Iterator[Watch]:
    watch = Watch(net, directory, *arguments, as_user=as_user, environment=environment)
    try:
        watch.wait_for("listening on span")
        yield watch
    finally:
        watch.process.kill()
        watch.process.wait()


@contextlib.contextmanager
def recording(net: Net, path: Path) -> Iterator[None]:
    command = net.command(
        *("tcpdump", "-Z", "root", "-U", "--immediate-mode", "-B", "65536", "--time-stamp-precision=nano"),
        *("-i", SPAN, "-w", path),
    )
    tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tcpdump.stderr is not None
        assert "listening on" in tcpdump.stderr.readline()
        yield
        size = -1
        while size != (size := path.stat().st_size):  # until it has caught up
            time.sleep(0.3)
    finally:
        tcpdump.kill()
        tcpdump.communicate()


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory in which the sensor, as nobody, can write."""
    # pytest's own directories are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def replayed(path: Path) -> str:
    command = [*PROGRAM, "replay", "--no-progress", "--format", "json", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT).stdout


def test_live_alerts_are_those_of_a_replay(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    recorded, stats = tmp_path / "recorded.pcap", shared_directory / "stats.json"
    devices = shared_directory / "devices.csv"
    arguments = ("--format", "json", "--stats", stats, "--devices", devices, "--status-every", "0.5")
    with recording(net, recorded), watching(net, tmp_path, *arguments) as watch:
        net.send(FLOOD)
        watch.wait_for(" packets so far, 0 dropped by the kernel")
        watch.wait_for_records(1)  # alerts do not wait for the end
        assert watch.end() == 0
    assert watch.output == replayed(recorded)
    records = [json.loads(line) for line in watch.output.splitlines()]
    assert {r["device"]["mac"] for r in records if r["event_type"] == "alert"} == {"44:19:b6:5d:20:15"}
    totals = json.loads(stats.read_text())
    assert totals["packets"] == totals["kernel_packets"]
    assert totals["kernel_drops"] == totals["ring_freezes"] == 0
    assert totals["filter_state"] == "all"
    assert "44:19:b6:5d:20:15" in devices.read_text()
    assert stats.stat().st_uid != 0


def test_without_the_ring_scapy_captures(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    config, stats = tmp_path / "sniffed.toml", shared_directory / "stats.json"
    config.write_text('[capture]\nmethod = "scapy"\n')
    with watching(net, tmp_path, "--config", config, "--format", "json", "--stats", stats) as watch:
        assert "capturing through scapy: far slower" in watch.errors
        net.send(FLOOD, pps=400)
        watch.wait_for_records(1)
        assert len(unprivileged_threads(watch)) > 1
        net.run("ip", "link", "set", "span", "down")
        watch.wait_for("span gives no packets any more")
        net.run("ip", "link", "set", "span", "up")
        assert watch.end() == 0
    records = [json.loads(line) for line in watch.output.splitlines()]
    assert {r["device"]["mac"] for r in records if r["event_type"] == "alert"} == {"44:19:b6:5d:20:15"}
    totals = json.loads(stats.read_text())
    assert totals["packets"] == totals["kernel_packets"] > 4000
    assert totals["kernel_drops"] == 0
    for arguments, why in {
        ("-i", "eth77"): "there is no interface eth77; there are: ",
        ("-i", SPAN, "--filter", "mail"): "--filter mail needs the packet ring of Linux",
    }.items():
        status, line = refusal(net, *arguments, "--config", config)
        assert (status, why in line) == (2, True)


def test_vlan_tags_are_put_back(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    arp = (
        b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x07\x0a\x00\x00\x07"
        + bytes(6)
        + b"\x0a\x00\x00\x01"
    )
    frame = bytes.fromhex("ffffffffffff020000000007") + b"\x81\x00\x00\x2a" + arp + bytes(18)
    send = f"import socket; s = socket.socket(17, 3); s.bind(('camera', 0)); s.send(bytes.fromhex('{frame.hex()}'))"
    events = shared_directory / "events.jsonl"
    with watching(net, tmp_path, "--events", events) as watch:
        net.run(sys.executable, "-c", send)
        time.sleep(0.5)
        assert watch.end(signal.SIGINT) == 0
    (event,) = [json.loads(line) for line in events.read_text().splitlines()]
    assert (event["event_type"], event["vlan"], event["src_ip"]) == ("arp", 42, "10.0.0.7")


def unprivileged_threads(watch: Watch) -> list[str]:
    """The names of the sensor's threads, none of which may anything."""
    names = []
    for task in Path(f"/proc/{watch.process.pid}/task").iterdir():
        status = dict(
            line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
        )
        assert "0" not in status["Uid"].split()
        assert "0" not in status["Gid"].split()
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0
        names.append(status["Name"])
    return names


def test_privileges_are_dropped(net: Net, tmp_path: Path) -> None:
    with watching(net, tmp_path) as watch:
        assert unprivileged_threads(watch)


def test_alerts_go_to_all_sinks_without_privileges(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    # Only root can read what lies in tmp_path.
    certificates = Certificates(tmp_path)
    (tmp_path / "secret").write_text("sixteen or more of them")
    archive, stats = shared_directory / "alerts.jsonl", shared_directory / "stats.json"
    config = tmp_path / "site.toml"
    config.write_text(f"""
[output]
file = "{archive}"
[[output.syslog]]
to = "unix:{shared_directory}/log"
[[output.syslog]]
to = "tls://127.0.0.1"
ca_file = "{certificates.ca_file}"
certificate_file = "{certificates.client_file}"
key_file = "{certificates.client_key_file}"
[[output.webhook]]
url = "http://127.0.0.1:8080/hooks/T0"
secret_file = "{tmp_path}/secret"
""")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.settimeout(20)
        log.bind(str(shared_directory / "log"))
        (shared_directory / "log").chmod(0o777)
        arguments = ("--format", "json", "--config", config, "--stats", stats, "--status-every", "0.5")
        with watching(net, tmp_path, *arguments) as watch:
            # There is no network in the namespace: nobody is reached over TCP, and nothing waits for that.
            watch.wait_for("syslog tls://127.0.0.1:6514: Network is unreachable; up to 1,024 alerts wait")
            assert len(unprivileged_threads(watch)) == 4
            net.send(FLOOD)
            raws = [log.recv(65536)]
            while b" alert/started " not in raws[-1]:  # a review may come first
                raws.append(log.recv(65536))
            n = len(raws)
            watch.wait_for(
                f"syslog tls://127.0.0.1:6514 is not there, {n} alert{'s'[: n - 1]} waiting, 0 lost"
            )
            archive.rename(shared_directory / "alerts.jsonl.1")
            watch.process.send_signal(signal.SIGHUP)
            while not archive.exists():
                time.sleep(0.01)
            assert watch.end() == 1
    alert = json.loads(watch.output.splitlines()[-1])
    assert ("device", alert["device"]["key"]) in parse(raws[-1]).data["spamsensor@32473"]
    assert (shared_directory / "alerts.jsonl.1").read_text() == watch.output
    lost = f"webhook http://127.0.0.1:8080: {n} alert{'s'[: n - 1]} lost: Network is unreachable"
    assert lost in watch.errors
    taken = [(sink["sent"], sink["lost"]) for sink in json.loads(stats.read_text())["sinks"]]
    assert taken == [(n, 0)] * 3 + [(0, n)] * 2


def test_an_interface_may_go_and_come_back(net: Net, tmp_path: Path) -> None:
    with watching(net, tmp_path, "--format", "json") as watch:
        net.run("ip", "link", "set", SPAN, "down")
        watch.wait_for("span is down")
        net.run("ip", "link", "set", SPAN, "up")
        watch.wait_for("span is up again")
        net.send(FLOOD)
        end = time.monotonic() + 10
        while '"alert"' not in watch.output:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert watch.end() == 0


def test_a_vanished_interface_is_taken_up_again(net: Net, tmp_path: Path) -> None:
    net.run(
        "sh", "-ec", "ip link add tap0 type veth peer name tap1; ip link set tap0 up; ip link set tap1 up"
    )
    with watching(net, tmp_path, "-i", "tap1", "--format", "json") as watch:
        net.run("ip", "link", "del", "tap1")
        watch.wait_for("tap1 has vanished")
        net.run(
            "sh", "-ec", "ip link add tap0 type veth peer name tap1; ip link set tap0 up; ip link set tap1 up"
        )
        watch.wait_for("tap1 is back")
        net.run("tcpreplay", "-q", "-i", "tap0", "--pps=4000", FLOOD)
        end = time.monotonic() + 10
        while '"alert"' not in watch.output:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert watch.end() == 0
    net.run("ip", "link", "del", "tap0")


def test_what_the_kernel_drops_is_counted_and_filtered(
    net: Net, tmp_path: Path, shared_directory: Path
) -> None:
    config, stats = shared_directory / "small.toml", shared_directory / "stats.json"
    config.write_text("[capture]\nring_mib = 2\nblock_timeout_ms = 10\n")
    arguments = ("--config", config, "--stats", stats)
    with watching(net, tmp_path, *arguments) as watch:
        watch.process.send_signal(signal.SIGSTOP)
        net.run("tcpreplay", "-q", "-i", "camera", "--topspeed", "--loop=8", FLOOD)
        watch.process.send_signal(signal.SIGCONT)
        watch.wait_for("the kernel dropped")
        watch.wait_for("only mail, DNS, identity traffic and tunnels are captured")
        assert watch.end() == 0
    totals = json.loads(stats.read_text())
    assert totals["kernel_drops"] > 0
    assert totals["kernel_packets"] == totals["packets"] + totals["kernel_drops"]
    assert totals["filter_state"] == "mail"


def scrape(net: Net, address: str) -> dict[tuple[str, str], float]:
    """All samples by name and the value of their one label, or "", as Prometheus' own parser reads them."""
    fetch = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=10).read().decode())"
    text = net.run(sys.executable, "-c", fetch, f"http://{address}/metrics")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped_until(net: Net, address: str, name: str, label: str, at_least: float) -> dict[Any, float]:
    end = time.monotonic() + 20
    while (found := scrape(net, address))[name, label] < at_least:
        assert time.monotonic() < end, (name, found)
        time.sleep(0.2)
    return found


def test_metrics_are_scraped_while_it_runs(net: Net, tmp_path: Path) -> None:
    net.run("ip", "link", "set", "lo", "up")
    address = "127.0.0.1:80"  # taken before privileges are dropped
    with watching(net, tmp_path, "--metrics", address) as watch:
        watch.wait_for(f"metrics are at http://{address}/metrics")
        net.send(FLOOD)
        scraped_until(net, address, "spamsensor_alerts_total", "", 1)
        found = scraped_until(net, address, "spamsensor_packets_received_total", "", FLOOD_PACKETS)
        assert len(unprivileged_threads(watch)) == 2
        assert (
            found["spamsensor_packets_received_total", ""]
            == found["spamsensor_capture_packets_total", ""]
            > 0
        )
        assert found["spamsensor_capture_dropped_total", ""] == 0
        assert found["spamsensor_sink_sent_total", "stdout"] >= 1
        assert found["spamsensor_interface_up", SPAN] == 1
        assert found["spamsensor_last_packet_age_seconds", ""] < 20
        assert found["spamsensor_table_used_rows", "devices"] >= 1
        assert sum(n for (name, _), n in found.items() if name == "spamsensor_open_alerts") == 1
        assert sum(n for (name, _), n in found.items() if name == "spamsensor_frames_total") > 0
        assert watch.end() == 0
    net.run("ip", "link", "set", "lo", "down")


def test_the_manager_is_told(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    path = shared_directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        path.chmod(0o777)
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        with watching(net, tmp_path, environment=environment) as watch:
            assert manager.recv(4096) == f"READY=1\nSTATUS=listening on {SPAN}".encode()
            times_s = []
            for _ in range(5):
                assert manager.recv(4096) == b"WATCHDOG=1"
                times_s.append(time.monotonic())
            assert max(after - before for before, after in pairwise(times_s)) < 1.0
            watch.process.send_signal(signal.SIGHUP)
            while not (message := manager.recv(4096)).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
                assert message == b"WATCHDOG=1"
            assert manager.recv(4096) == b"READY=1"
            watch.process.send_signal(signal.SIGSTOP)  # a loop that hangs is silent
            manager.settimeout(1.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    manager.recv(4096)
            watch.process.send_signal(signal.SIGCONT)
            assert watch.end() == 0
            manager.settimeout(5)
            while manager.recv(4096) != b"STOPPING=1":
                pass


def test_a_configuration_is_read_anew_if_it_is_good(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    config = shared_directory / "site.toml"
    config.write_text('home_nets = ["10.99.0.0/16"]\n')
    with watching(net, tmp_path, "--config", config, "--status-every", "0.5", "--format", "json") as watch:
        net.send(FLOOD)
        watch.wait_for(" packets so far, 0 dropped by the kernel, 0 devices")
        config.write_text("home_nets = 5\n")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for(f"reload: {config}: home_nets = 5: expected a list of 1 to 1024")
        watch.wait_for("; everything stays as it was")
        config.write_text("[tables]\ndevices = 1024\n")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for("reload: changed: home_nets\n")
        watch.wait_for("reload: takes effect at the next start: tables.devices\n")
        net.send(FLOOD)
        end = time.monotonic() + 10
        while '"alert"' not in watch.output:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert '"key":"44:19:b6:5d:20:15"' in watch.output
        config.unlink()
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for(f"reload: {config}: No such file or directory; everything stays as it was")
        assert watch.end() == 0


def test_a_model_is_read_anew_if_it_is_good(net: Net, tmp_path: Path, shared_directory: Path) -> None:
    write_artifact(shared_directory, MODEL)
    arguments = ("--model", shared_directory, "--stats", shared_directory / "stats.json")
    with watching(net, tmp_path, *arguments) as watch:
        (shared_directory / "model.npz").write_bytes(b"PK")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for(
            "model.npz: is not the file that the manifest names: its digest differs; everything stays"
        )
        manifest = msgspec.structs.replace(MODEL.manifest, name="other")
        write_artifact(shared_directory, Artifact(manifest, MODEL.trees))
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for("reload: changed: the model\n")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for("reload: changed: nothing\n")
        assert watch.end() == 0
    assert json.loads((shared_directory / "stats.json").read_text())["model"] == "monotone-index-1 + other"


def test_a_configuration_that_cannot_be_read_anew_is_said(net: Net, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text("")
    config.chmod(0o600)
    with watching(net, tmp_path, "--config", config) as watch:
        assert f"{config}: cannot be read without our privileges: SIGHUP will change nothing" in watch.errors
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for(f"reload: {config}: Permission denied; everything stays as it was")
        assert watch.end() == 0


def test_a_mirror_that_lacks_a_direction_or_everything_is_noticed(net: Net, tmp_path: Path) -> None:
    """What one port of the switch receives is not mirrored: all that comes from outside."""
    halves = {"camera": tmp_path / "camera.pcap", "world": tmp_path / "world.pcap"}
    for port, half in halves.items():
        test = f"{'' if port == 'camera' else 'not '}ether src 44:19:b6:5d:20:15"
        subprocess.run(["tcpdump", "-r", FLOOD, "-w", half, test], check=True, capture_output=True)

    def send() -> None:
        for port, half in halves.items():
            net.run("tcpreplay", "-q", "-i", port, "--pps=4000", half)

    net.run("tc", "filter", "del", "dev", "sw-world", "ingress")
    try:
        with watching(net, tmp_path) as watch:
            send()
            watch.wait_for("no answer seen from outside in 60 s, of ", timeout_s=70)
            watch.wait_for("no DNS response seen in 60 s, of ", timeout_s=5)
            watch.wait_for(f"no packet on {SPAN} for 60 s: is the mirror configured?", timeout_s=10)
            net.run("sh", "-ec", _MIRROR_WORLD)
            send()
            watch.wait_for("packets come again")
            watch.wait_for("the mirror shows both directions again")
            assert watch.end() == 0
    finally:
        net.run("sh", "-c", f"tc filter del dev sw-world ingress; {_MIRROR_WORLD}")
    assert watch.errors.count("is the mirror one-way") == 2


def test_a_run_can_be_limited(net: Net, tmp_path: Path) -> None:
    with watching(net, tmp_path, "--duration", "0.5") as watch:
        assert watch.process.wait(10) == 0


def refusal(net: Net, *arguments: object, as_user: tuple[str, ...] = ()) -> tuple[int, str]:
    command = net.command(*as_user, *PROGRAM, "watch", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


def test_an_unknown_interface_is_refused(net: Net) -> None:
    status, line = refusal(net, "-i", "eth77")
    assert status == 2
    assert line.startswith("spamsensor: there is no interface eth77; there are: lo, ")
    assert SPAN in line


def test_without_the_capability_it_is_named(net: Net) -> None:
    status, line = refusal(
        net, "-i", SPAN, as_user=("capsh", "--drop=cap_net_raw", "--", "-c", 'exec "$0" "$@"')
    )
    assert status == 1
    assert "CAP_NET_RAW" in line


def test_an_unknown_user_is_refused(net: Net) -> None:
    status, line = refusal(net, "-i", SPAN, "--user", "nobody-of-that-name")
    assert (status, "no such user" in line) == (2, True)


def test_a_port_for_metrics_that_is_taken_is_refused(net: Net, tmp_path: Path) -> None:
    with watching(net, tmp_path, "--metrics", "127.0.0.1:9477"):
        status, line = refusal(net, "-i", SPAN, "--metrics", "127.0.0.1:9477")
    assert (status, line) == (2, "spamsensor: --metrics 127.0.0.1:9477: Address already in use")
    status, line = refusal(net, "-i", SPAN, "--metrics", "localhost")
    assert (status, "expected an address and a port" in line) == (2, True)
