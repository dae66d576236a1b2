"""The unit of deploy/ under a systemd of its own: started, fed, reloaded, killed, hung, stopped, and with receivers.

    make systemd

boots a container over the files of this machine (an overlay in memory, so that nothing of it is changed), with a
network of its own in which one end of a cable plays the mirror port. Needs root, overlayfs, systemd-nspawn
(Debian: systemd-container) and tcpreplay; takes four to six minutes, of which compiling is half. It is not part of
``make test``: few containers that tests run in may boot another one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT: Final = Path(__file__).parent.parent
CAPTURE: Final = PROJECT / "pcaps" / "flood-camera.pcap"
INFECTED: Final = "front-door-camera"
UNIT: Final = "spamsensor.service"
DROP_INS: Final = f"etc/systemd/system/{UNIT}.d"
#: As the unit says: the first start compiles.
START_S: Final = 900
RESTART_S: Final = 90
#: The drop-in and, of the receivers that it names, the one that is played here: it shows what it gets.
RECEIVERS: Final = "receivers.conf"
RECEIVER: Final = "192.0.2.10"
RECEIVE: Final = f"""\
import socket
with socket.create_server(("{RECEIVER}", 601)) as server:
    connection, _ = server.accept()
    print(connection.recv(65536), flush=True)
"""
SITE: Final = f"""\
[[output.syslog]]
to = "tcp://{RECEIVER}:601"

[[output.webhook]]
url = "http://{RECEIVER}/nobody-is-there"
secret_file = "/run/credentials/{UNIT}/webhook-secret"
"""
#: What a start needs of the project, and no more: an environment of its own is made of it.
PARTS: Final = ("pyproject.toml", "README.md", "LICENSE", "sensor", "models")


def run(*command: str | Path, timeout_s: float = 600) -> str:
    """Return what a command says; CalledProcessError."""
    done = subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True, timeout=timeout_s
    )
    return done.stdout


@contextlib.contextmanager
def overlay() -> Iterator[Path]:
    """Yield a root directory that shows this machine's files, and keeps changes to itself."""
    with tempfile.TemporaryDirectory(prefix="systemd-trial-") as name:
        memory = Path(name)
        run("mount", "-t", "tmpfs", "tmpfs", memory)
        try:
            upper, work, root = (memory / part for part in ("upper", "work", "root"))
            for directory in (upper, work, root):
                directory.mkdir()
            options = f"lowerdir=/,upperdir={upper},workdir={work}"
            run("mount", "-t", "overlay", "overlay", "-o", options, root)
            try:
                yield root
            finally:
                run("umount", root)
        finally:
            run("umount", memory)


def install(root: Path) -> None:
    """Do what deploy/spamsensor.service asks for, with an interpreter that its user can read."""
    source = root / "source"
    for part in PARTS:
        of = PROJECT / part
        if of.is_dir():
            shutil.copytree(of, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(of, source)
    # Of a sensor that this machine has, nothing is to be seen.
    for of in ("opt", "etc", "var/lib", "var/cache"):
        shutil.rmtree(root / of / "spamsensor", ignore_errors=True)
    shutil.rmtree(root / DROP_INS, ignore_errors=True)
    run("chroot", root, "/usr/bin/python3", "-m", "venv", "/opt/spamsensor")
    run("chroot", root, "/opt/spamsensor/bin/pip", "install", "-q", "/source")
    with contextlib.suppress(subprocess.CalledProcessError):  # there is one
        run("useradd", "--root", root, "--system", "--shell", "/usr/sbin/nologin", "spamsensor")
    shutil.copy(PROJECT / "deploy" / UNIT, root / "etc/systemd/system")
    shutil.copy(CAPTURE, root / "feed.pcap")
    settings = root / "etc/spamsensor"
    settings.mkdir()
    (settings / "site.toml").write_text(SITE)
    for name in ("client-key.pem", "webhook-secret"):
        (settings / name).write_text("correct horse battery staple\n")
        (settings / name).chmod(0o600)
    shutil.copy(PROJECT / "deploy" / RECEIVERS, root)
    (root / "receive.py").write_text(RECEIVE)


class Container:
    """A booted systemd; ``do`` runs a command inside."""

    def __init__(self, root: Path) -> None:
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--directory", str(root), "--boot", "--register=no", "--keep-unit"),
                # Up to where services would start: this machine's own are none of its business.
                *("--private-network", "--console=pipe", "systemd.unit=basic.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._init = ""

    def boot(self) -> None:
        """Wait until it is up, and lay the cable."""

        def is_up() -> bool:
            if self._nspawn.poll() is not None:
                raise SystemExit("systemd-nspawn ended: may this machine boot a container?")
            with contextlib.suppress(subprocess.CalledProcessError):
                self._init = run("pgrep", "-P", str(self._nspawn.pid)).split()[0]
                return self.do("systemctl", "list-units", "--state=active", "basic.target") != ""
            return False

        wait(is_up, 60)
        self.do("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "feed")
        for name in ("eth1", "feed"):
            self.do("ip", "link", "set", name, "up")

    def do(self, *command: str, timeout_s: float = 600) -> str:
        """Return what a command says that runs inside."""
        return run("nsenter", "-t", self._init, "-a", *command, timeout_s=timeout_s)

    def journal(self, unit: str = UNIT) -> str:
        """Return what a unit has said."""
        return self.do("journalctl", "-u", unit, "-o", "cat", "--no-pager")

    def close(self) -> None:
        """Let it power off."""
        self._nspawn.terminate()
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()


def wait(is_so: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something; SystemExit when it takes too long."""
    end = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {timeout_s:g} s")
        time.sleep(0.5)  # each look starts processes in the container, beside what is waited for


def step(name: str) -> None:
    """Say what is next."""
    sys.stdout.write(f"{name}\n")
    sys.stdout.flush()


def trial(container: Container) -> None:
    """Go through a unit's life."""

    def said(what: str, times: int = 1) -> Callable[[], bool]:
        return lambda: container.journal().count(what) >= times

    step("booting")
    container.boot()
    step("starting: it is ready when it listens, and has no capability left")
    container.do("systemctl", "start", UNIT, timeout_s=START_S)
    pid = container.do("systemctl", "show", "--property=MainPID", "--value", UNIT).strip()
    status = dict(
        line.split(":\t") for line in container.do("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status
    assert status["NoNewPrivs"] == "1", status
    assert status["Uid"].split()[0] != "0", status
    step("a capture passes: the camera is named")
    container.do("tcpreplay", "-q", "--topspeed", "-i", "feed", "/feed.pcap")
    wait(said(f'"hostname":"{INFECTED}"'), 30)
    step("its group reads the state")
    command = ("/opt/spamsensor/bin/spamsensor", "alerts", "--state", "/var/lib/spamsensor")
    assert INFECTED in container.do("runuser", "-u", "spamsensor", "--", *command)
    step("reloading")
    container.do("systemctl", "reload", UNIT)
    step("killing: it comes back with its alert")
    container.do("systemctl", "kill", "--signal=SIGKILL", UNIT)
    wait(said("resumed from a checkpoint", 1), RESTART_S)
    assert "1 open alert" in container.journal()
    step("hanging: the watchdog starts it anew")
    container.do("systemctl", "kill", "--signal=SIGSTOP", UNIT)
    wait(said("resumed from a checkpoint", 2), RESTART_S)
    step("stopping")
    container.do("systemctl", "stop", UNIT)
    result = container.do("systemctl", "show", "--property=Result", "--value", UNIT).strip()
    assert result == "success", result
    assert "ended by SIGTERM" in container.journal()
    step("with receivers: the open alert is said to one of them, and a secret is read that only root may")
    container.do("ip", "address", "add", f"{RECEIVER}/32", "dev", "lo")
    container.do("systemd-run", "--quiet", "--unit=receiver", "/usr/bin/python3", "/receive.py")
    container.do("mkdir", f"/{DROP_INS}")
    container.do("cp", f"/{RECEIVERS}", f"/{DROP_INS}")
    container.do("systemctl", "daemon-reload")
    container.do("systemctl", "start", UNIT, timeout_s=START_S)
    wait(lambda: INFECTED in container.journal("receiver"), 30)
    container.do("systemctl", "stop", UNIT)


def main() -> None:
    """Install, boot, try; the journal of a trial that fails is written out."""
    if os.geteuid() != 0:
        raise SystemExit("only root may boot a container: make systemd")
    for tool in ("systemd-nspawn", "tcpreplay", "nsenter"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed")
    with overlay() as root:
        step("installing")
        install(root)
        container = Container(root)
        try:
            trial(container)
        except BaseException:
            with contextlib.suppress(Exception):
                sys.stderr.write(container.journal())
            raise
        finally:
            container.close()
    step("ok")


if __name__ == "__main__":
    main()
