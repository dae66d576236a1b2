"""Machines and cables of the lab: each machine has its own network, mount and host-name namespace.

Everything here expects to run inside the private PID, mount and network namespaces that ``lab.py`` opens:
what is started dies with them, files live on a tmpfs that goes with them, and there is no route to the real
network.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOME = Path("/run/lab")
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
#: Segmentation and checksums that are left to a network card would be captured unfinished.
OFFLOADS = ("tx", "sg", "tso", "gso", "gro")


class LabError(Exception):
    """The lab cannot be built or a capture is not what its scenario promises."""


@dataclass(eq=False)
class Machine:
    """One computer of the lab, kept alive by an idle process that holds its namespaces."""

    name: str
    holder: subprocess.Popen[bytes]
    home: Path

    def command(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "--net", "--mount", "--uts", "--", *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a command to its end; returns its standard output, LabError if it fails."""
        done = subprocess.run(self.command(*argv), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise LabError(f"{self.name}: {' '.join(argv)}: exit status {done.returncode}: {said}")
        return done.stdout

    def start(self, *argv: str, stdin: str | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command and leave it running; output goes to ``log``, by default one file per machine."""
        with (log or self.home / "output.log").open("ab") as out:
            argv_here = self.command(*argv)
            return subprocess.Popen(argv_here, stdin=_spool(stdin), stdout=out, stderr=subprocess.STDOUT)

    def bind(self, source: Path, target: str) -> None:
        """Show ``source`` at ``target`` on this machine only."""
        self.run("mount", "--bind", str(source), target)

    def sysctl(self, key: str, value: str) -> None:
        self.run("sh", "-c", f"echo {value} > /proc/sys/{key.replace('.', '/')}")


def await_success(name: str, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait for the end of a command that ``start`` began; LabError if it fails."""
    if status := process.wait(timeout_s):
        raise LabError(f"{name}: exit status {status}; run again with --logs DIR to see why")


def _spool(text: str | None) -> IO[bytes] | int:
    if text is None:
        return subprocess.DEVNULL
    path = HOME / f"stdin-{time.monotonic_ns()}"
    path.write_text(text)
    return path.open("rb")


def boot(name: str) -> Machine:
    """Create a machine with its own host name, resolver file and an interface list that holds only ``lo``."""
    home = HOME / name
    home.mkdir(parents=True)
    holder = subprocess.Popen(["unshare", "--net", "--mount", "--uts", "sleep", "infinity"])
    machine = Machine(name, holder, home)
    _await_namespaces(holder.pid)
    machine.run("hostname", name)
    machine.run("ip", "link", "set", "lo", "up")
    for file, text in {
        "resolv.conf": "",
        "hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
        "nsswitch.conf": NSSWITCH,
    }.items():
        (home / file).write_text(text)
        machine.bind(home / file, f"/etc/{file}")
    return machine


def _await_namespaces(pid: int) -> None:
    """Wait until the holder has left our namespaces: nsenter would else run the command in ours."""
    for _ in range(500):
        if all(
            Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
            for kind in ("net", "mnt", "uts")
        ):
            return
        time.sleep(0.01)
    raise LabError(f"process {pid} did not get namespaces of its own")


def add_switch(machine: Machine, switch: str, addresses: tuple[str, ...]) -> None:
    """Give ``machine`` a bridge that others can be plugged into, with addresses of its own on it."""
    machine.run("ip", "link", "add", switch, "type", "bridge")
    _configure(machine, switch, addresses)


def plug(
    machine: Machine, owner: Machine, switch: str, *, mac: str = "", addresses: tuple[str, ...] = ()
) -> None:
    """Run a cable from the machine's eth0 to a port of the owner's switch."""
    port = machine.name[:15]
    owner.run(
        "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(machine.holder.pid)
    )
    if mac:
        machine.run("ip", "link", "set", "eth0", "address", mac)
    _configure(machine, "eth0", addresses)
    _configure(owner, port, ())
    owner.run("ip", "link", "set", port, "master", switch)


def _configure(machine: Machine, interface: str, addresses: tuple[str, ...]) -> None:
    machine.run("ethtool", "-K", interface, *(word for name in OFFLOADS for word in (name, "off")))
    for address in addresses:
        machine.run("ip", "address", "add", address, "dev", interface)
    machine.run("ip", "link", "set", interface, "up")
