"""Make the labelled captures of this directory: a LAN and its mail world in Linux network namespaces.

    sudo python pcaps/lab.py --out DIR [SCENARIO...]

Every machine is a namespace that runs real software: Postfix, unbound, dnsmasq, udhcpc, msmtp, swaks. Each
scenario lives in PID, mount and network namespaces of its own, so nothing can reach the real network, nothing
is left behind, and whatever was started ends with the scenario, however it ends. README.md says what the
captures show.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import internet
from machines import HOME, LabError, Machine, add_switch, await_success, boot, plug
from scenarios import (
    GATEWAY,
    GATEWAY_MAC,
    INNER_LAN,
    INNER_ROUTER,
    INNER_ROUTER_MAC,
    ISP,
    LAN,
    MAIL,
    OFFICE_DOMAIN,
    OFFICE_MX,
    SCENARIOS,
    Guilt,
    Scenario,
    Step,
)
from services import (
    MailServer,
    await_address,
    make_certificate,
    start_avahi,
    start_dhcp_client,
    start_dhcp_relay,
    start_gateway_dnsmasq,
    start_ipv6_door,
    start_keepalived,
    start_lldpd,
    start_postfix,
    start_unbound,
    start_web_server,
)

#: Command: the Debian package that brings it.
TOOLS = {
    "avahi-daemon": "avahi-daemon",
    "busybox": "busybox",
    "curl": "curl",
    "dhclient": "isc-dhcp-client",
    "dnsmasq": "dnsmasq-base",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "keepalived": "keepalived",
    "lldpd": "lldpd",
    "minidlnad": "minidlna",
    "msmtp": "msmtp",
    "nc": "netcat-openbsd",
    "nmbd": "samba",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "postfix": "postfix",
    "saslpasswd2": "sasl2-bin",
    "setpriv": "util-linux",
    "socat": "socat",
    "swaks": "swaks",
    "tcpdump": "tcpdump",
    "udhcpc": "udhcpc",
    "unbound": "unbound",
    "unshare": "util-linux",
}
LABEL_COLUMNS = (
    "capture",
    "device_mac",
    "device_ip",
    "device_name",
    "label",
    "family",
    "cause",
    "what",
    "first_ts",
)
#: What --logs leaves out: queues, pipes, sockets, message texts, the key.
NOT_LOGS = ("spool", "avahi-run", "msg.sock", "*.socket", "*.pipe", "stdin-*", "tls.key")
INNER_ROUTER_ADDRESS = f"{LAN}40"
#: The one that a virtual router has besides, and the interface with its MAC address.
VIRTUAL_ADDRESS, VIRTUAL_INTERFACE = f"{LAN}2", "vrrp.51"
MAX_CAPTURE_BYTES = 1_500_000


def main() -> int:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where captures and labels.tsv go"
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep the configuration and logs of all machines here"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default all: {', '.join(names)}")
    options = parser.parse_args()
    if unknown := [name for name in options.scenarios if name not in names]:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(names)}")
    chosen = [scenario for scenario in SCENARIOS if scenario.name in (options.scenarios or names)]
    try:
        check_requirements()
        for directory in filter(None, (options.out, options.logs)):
            if directory.resolve().is_relative_to("/run"):
                raise LabError(f"{directory}: the lab hides /run, choose another directory")
            directory.mkdir(parents=True, exist_ok=True)
        for scenario in chosen:
            if options.inside:
                make_capture(scenario, options.out, options.logs)
            else:
                run_apart(scenario, options.out, options.logs)
    except (LabError, subprocess.SubprocessError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_requirements() -> None:
    if os.geteuid() != 0:
        raise LabError("must run as root: it creates network namespaces and captures packets (try: sudo)")
    if missing := sorted(tool for tool in TOOLS if shutil.which(tool) is None):
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        raise LabError(f"not found: {', '.join(missing)}; on Debian: apt-get install {packages}")


def run_apart(scenario: Scenario, out: Path, logs: Path | None) -> None:
    """Run one scenario in namespaces that end with the child process, and the child with us."""
    shield = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--uts", "--ipc"]
    shield += ["--fork", "--kill-child", "--mount-proc", "--"]
    inside = [sys.executable, __file__, "--inside", "--out", str(out), scenario.name]
    child = subprocess.Popen([*shield, *inside, *(["--logs", str(logs)] if logs else [])])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if child.wait():
            raise LabError(f"{scenario.name}: failed")
    finally:
        child.kill()
        child.wait()


def make_capture(scenario: Scenario, out: Path, logs: Path | None) -> None:
    """Build the scenario's world, play it, and store the capture and its labels."""
    # All files of the lab go to a tmpfs that hides the host's /run and goes away with this namespace.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run"], check=True)
    HOME.mkdir()
    if (resolver_file := Path("/etc/resolv.conf").resolve()).is_relative_to("/run"):
        resolver_file.parent.mkdir(parents=True, exist_ok=True)  # a link into the /run that is hidden now
        resolver_file.touch()
    make_certificate()
    try:
        capture, start = record(scenario)
    finally:
        if logs:
            shutil.copytree(
                HOME, logs / scenario.name, ignore=shutil.ignore_patterns(*NOT_LOGS), dirs_exist_ok=True
            )
    rows = label_rows(scenario, capture, start)
    store(capture, out / f"{scenario.name}.pcap")
    update_labels(out / "labels.tsv", scenario, rows)
    digest = hashlib.sha256(capture.read_bytes()).hexdigest()
    say(scenario, f"{out / scenario.name}.pcap, {capture.stat().st_size} bytes, sha256 {digest}")


def record(scenario: Scenario) -> tuple[Path, float]:
    """Build the machines and play the scenario; returns the capture and the Unix time of second 0."""
    say(scenario, "starting the outside")
    machines = build_outside(scenario)
    gateway = build_gateway(scenario, machines["backbone"])
    capture = HOME / "capture.pcap"
    tcpdump = start_capture(gateway, capture)
    say(scenario, f"starting {len(scenario.devices)} devices")
    machines |= {"gateway": gateway} | build_devices(scenario, gateway)
    say(scenario, f"capturing for {scenario.seconds:.0f} s")
    start = play(scenario, machines)
    tcpdump.send_signal(signal.SIGINT)
    tcpdump.wait(timeout=30)
    check_capture(gateway, capture)
    return capture, start


def say(scenario: Scenario, text: str) -> None:
    print(f"{scenario.name}: {text}", file=sys.stderr, flush=True)


def build_outside(scenario: Scenario) -> dict[str, Machine]:
    """The backbone with the resolver, a web server, the mail operators and the spammer's machine."""
    backbone = boot("backbone")
    add_switch(backbone, "wan0", internet.BACKBONE)
    backbone.sysctl("net.ipv4.ip_forward", "1")
    for network in (LAN, INNER_LAN):
        backbone.run("ip", "route", "add", f"{network}0/24", "via", internet.GATEWAY_OUTSIDE)
    machines = {"backbone": backbone}
    for name, addresses in {
        "resolver": (internet.RESOLVER,),
        "web": (internet.WEB,),
        "proxy-controller": (internet.PROXY_CONTROLLER,),
        **{operator.name: tuple(operator.mx.values()) for operator in internet.OPERATORS},
    }.items():
        machines[name] = add_outside_host(backbone, name, addresses)
    office_mx = (OFFICE_DOMAIN, OFFICE_MX, MAIL.address)
    start_unbound(
        machines["resolver"], internet.dns_records(office_mx, scenario.block_listed), internet.RESOLVER
    )
    start_web_server(machines["web"], internet.WEB)
    start_mail_servers(
        {machines[operator.name]: internet.mail_server(operator) for operator in internet.OPERATORS}
    )
    if scenario.has_ipv6:
        add_ipv6(backbone, machines[ISP.name])
    return machines


def add_ipv6(backbone: Machine, isp: Machine) -> None:
    """Give the backbone a way for IPv6, and the provider's mail server an address."""
    backbone.sysctl("net.ipv6.conf.all.forwarding", "1")
    for address in (internet.BACKBONE_V6, internet.ISP_ROUTER_V6):
        backbone.run("ip", "address", "add", f"{address}/64", "dev", "wan0", "nodad")
    backbone.run("ip", "-6", "route", "add", f"{internet.LAN_V6}:/64", "via", internet.GATEWAY_V6)
    isp.run("ip", "address", "add", f"{internet.ISP_V6}/64", "dev", "eth0", "nodad")
    isp.run("ip", "-6", "route", "add", "default", "via", internet.ISP_ROUTER_V6)
    start_ipv6_door(isp, internet.ISP_V6, ISP.submission_address)


def start_mail_servers(servers: dict[Machine, MailServer]) -> None:
    starting = {machine.name: start_postfix(machine, server) for machine, server in servers.items()}
    for name, command in starting.items():
        await_success(f"{name}: postfix start", command, timeout_s=60)


def add_outside_host(backbone: Machine, name: str, addresses: tuple[str, ...]) -> Machine:
    machine = boot(name)
    plug(machine, backbone, "wan0", addresses=tuple(f"{address}/24" for address in addresses))
    router = addresses[0].rpartition(".")[0] + ".1"
    machine.run("ip", "route", "add", "default", "via", router)
    (machine.home / "resolv.conf").write_text(f"nameserver {internet.RESOLVER}\n")
    return machine


def build_gateway(scenario: Scenario, backbone: Machine) -> Machine:
    """The home router: LAN switch, DHCP, DNS, and if the scenario wants it no port 25 to the outside."""
    gateway = boot("gateway")
    plug(gateway, backbone, "wan0", addresses=(f"{internet.GATEWAY_OUTSIDE}/30",))
    gateway.run("ip", "route", "add", "default", "via", "100.64.0.1")
    gateway.sysctl("net.ipv4.ip_forward", "1")
    add_switch(gateway, "br0", (f"{GATEWAY}/24",))
    gateway.run("ip", "link", "set", "br0", "address", GATEWAY_MAC)
    if scenario.blocks_port_25:
        gateway.run(
            "ip", "rule", "add", "iif", "br0", "ipproto", "tcp", "dport", "25", "blackhole", "pref", "100"
        )
    more = []
    if scenario.has_ipv6:
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1")
        gateway.run("ip", "address", "add", f"{internet.LAN_V6}:1/64", "dev", "br0", "nodad")
        gateway.run("ip", "address", "add", f"{internet.GATEWAY_V6}/64", "dev", "eth0", "nodad")
        gateway.run("ip", "-6", "route", "add", "default", "via", internet.BACKBONE_V6)
        more += ["--enable-ra", f"--dhcp-range={internet.LAN_V6}:100,{internet.LAN_V6}:1ff,slaac,64,10m"]
    if scenario.has_inner_router:
        router = VIRTUAL_ADDRESS if scenario.has_virtual_mac else INNER_ROUTER_ADDRESS
        gateway.run("ip", "route", "add", f"{INNER_LAN}0/24", "via", router)
        more += [f"--dhcp-range=set:inner,{INNER_LAN}100,{INNER_LAN}199,255.255.255.0,10m"]
        more += [f"--dhcp-option=tag:inner,option:router,{INNER_LAN}1"]
    leases = [(device.lease[0], device.address) for device in scenario.devices if not device.is_static]
    start_gateway_dnsmasq(gateway, LAN, internet.RESOLVER, leases, *more)
    return gateway


def build_inner_router(scenario: Scenario, gateway: Machine) -> Machine:
    """A router on the LAN with a network of its own behind it, whose DHCP it relays and whose addresses it leaves."""
    router = boot(INNER_ROUTER)
    plug(router, gateway, "br0", mac=INNER_ROUTER_MAC, addresses=(f"{INNER_ROUTER_ADDRESS}/24",))
    router.run("ip", "route", "add", "default", "via", GATEWAY)
    router.sysctl("net.ipv4.ip_forward", "1")
    add_switch(router, "br1", (f"{INNER_LAN}1/24",))
    start_dhcp_relay(router, f"{INNER_LAN}1", GATEWAY)
    start_lldpd(router, "Lab Router 3000")
    if scenario.has_virtual_mac:
        start_keepalived(router, VIRTUAL_ADDRESS)
        await_address(router, VIRTUAL_ADDRESS)
        router.run("ip", "route", "replace", "default", "via", GATEWAY, "dev", VIRTUAL_INTERFACE)
    return router


def build_devices(scenario: Scenario, gateway: Machine) -> dict[str, Machine]:
    machines = {}
    inner_router = build_inner_router(scenario, gateway) if scenario.has_inner_router else gateway
    for device in scenario.devices:
        machine = machines[device.name] = boot(device.name)
        if device.is_private:
            machine.sysctl("net.ipv6.conf.default.use_tempaddr", "2")
        if device.is_behind:
            plug(machine, inner_router, "br1", mac=device.mac)
        else:
            plug(machine, gateway, "br0", mac=device.mac)
        if device.is_static:
            set_address(machine, device.address)
        else:
            start_dhcp_client(machine, device.client_id)
    for device in scenario.devices:
        await_address(machines[device.name], device.address)
    start_mail_servers({machines[device.name]: device.server for device in scenario.devices if device.server})
    for device in scenario.devices:
        if device.announces:
            start_avahi(machines[device.name], device.announces)
        for start in device.starts:
            start(machines[device.name])
    return machines


def set_address(machine: Machine, address: str) -> None:
    """Do by hand what DHCP does."""
    router = address.rpartition(".")[0] + ".1"
    machine.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    machine.run("ip", "route", "add", "default", "via", router)
    (machine.home / "resolv.conf").write_text(f"search lan\nnameserver {GATEWAY}\n")


def start_capture(gateway: Machine, path: Path) -> subprocess.Popen[bytes]:
    """Capture on the LAN switch itself: it sees each frame once, in both directions."""
    log = gateway.home / "tcpdump.log"
    options = ("--immediate-mode", "-U", "-B", "8192", "-Z", "root")
    tcpdump = gateway.start("tcpdump", "-i", "br0", "-w", str(path), *options, log=log)
    for _ in range(100):
        if "listening on" in log.read_text():
            return tcpdump
        time.sleep(0.1)
    raise LabError(f"tcpdump does not start: {log.read_text().strip()}")


def play(scenario: Scenario, machines: dict[str, Machine]) -> float:
    """Start every step at its time; returns the Unix time of second 0."""
    start = time.time()
    running: list[tuple[Step, subprocess.Popen[bytes]]] = []
    for step in sorted(scenario.steps, key=lambda step: step.at):
        time.sleep(max(0.0, start + step.at - time.time()))
        running.append((step, machines[step.on].start(*step.argv, stdin=step.stdin)))
    time.sleep(max(0.0, start + scenario.seconds - time.time()))
    for step, process in running:
        if process.poll() and not step.may_fail:
            raise LabError(
                f"{step.on} at {step.at:.0f} s: {step.argv[0]}: exit status {process.returncode}; see --logs"
            )
    return start


def label_rows(scenario: Scenario, capture: Path, start: float) -> list[tuple[str, ...]]:
    gateway = (f"{scenario.name}.pcap", GATEWAY_MAC, GATEWAY, "gateway", "benign", "-", "-", "-", "-")
    rows: list[tuple[str, ...]] = [gateway]
    for device in scenario.devices:
        identity = (f"{scenario.name}.pcap", device.mac, device.last_address, device.name)
        guilt = scenario.guilt
        if guilt and guilt.device is device:
            first = first_sign(capture, guilt, start)
            rows.append((*identity, "infected", guilt.family, guilt.cause, guilt.what, first))
        else:
            rows.append((*identity, "benign", "-", "-", "-", "-"))
    return rows


def first_sign(capture: Path, guilt: Guilt, start: float) -> str:
    """Time of the first frame of the bad behaviour, UTC, in the form that alerts have."""
    device = guilt.device
    # What a router passes on has the router's MAC address.
    sender = f"src host {device.address}" if device.is_behind else f"ether src {device.mac}"
    expression = f"{sender} and {guilt.first_sign}"
    for line in tcpdump_lines(capture, expression, "-tt"):
        if float(line.split()[0]) >= start + guilt.since:
            seconds, micros = line.split()[0].split(".")
            return datetime.fromtimestamp(int(seconds), UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{micros}+0000")
    raise LabError(
        f"{capture.name}: no frame of {guilt.device.name} with {guilt.first_sign!r}: it did nothing"
    )


def tcpdump_lines(capture: Path, expression: str, *options: str) -> list[str]:
    argv = ["tcpdump", "-r", str(capture), "-nn", *options, expression]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def check_capture(gateway: Machine, capture: Path) -> None:
    log = (gateway.home / "tcpdump.log").read_text()
    if not re.search(r"^0 packets dropped by kernel", log, re.MULTILINE):
        raise LabError(f"tcpdump lost packets: {log.strip()}")
    if capture.stat().st_size > MAX_CAPTURE_BYTES:
        raise LabError(f"the capture has {capture.stat().st_size} bytes, more than {MAX_CAPTURE_BYTES}")


def store(capture: Path, target: Path) -> None:
    """Replace the target in one step: a run that fails leaves the old capture as it was."""
    partial = target.with_suffix(".partial")
    shutil.copyfile(capture, partial)
    partial.replace(target)


def update_labels(path: Path, scenario: Scenario, rows: list[tuple[str, ...]]) -> None:
    """Replace this capture's rows; rows of other captures stay, in the order of the scenarios."""
    old = path.read_text().splitlines()[1:] if path.exists() else []
    kept = [line for line in old if not line.startswith(f"{scenario.name}.pcap\t")]
    order = [f"{known.name}.pcap" for known in SCENARIOS]
    lines = kept + ["\t".join(row) for row in rows]
    lines.sort(key=lambda line: order.index(line.split("\t")[0]))
    path.write_text("\n".join(["\t".join(LABEL_COLUMNS), *lines]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
