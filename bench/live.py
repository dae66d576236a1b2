"""Send a capture through a mirror port as fast as this machine can, and see who keeps up.

    sudo python bench/live.py                           # the captures of bench/generate.py, ten million packets each
    sudo python bench/live.py --packets 500000 --captures mix
    sudo python bench/live.py --pps 300000              # at a rate, not at top speed

A pair of veth interfaces in a network namespace of its own: tcpreplay sends on one core, the contestant captures on
another, one after the other. ``sent/s`` is what tcpreplay managed; ``ns/packet`` is the contestant's CPU time while
packets came, user and system, over the packets that it got; lost is what the kernel dropped, as the contestant says.
The sensor runs with ``--filter all``, so that nothing but speed keeps its ring from filling up. ``growth`` is its
resident memory at the end over that after the first tenth; the others' peak is given. Run on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).parent))

from run import capture, is_there

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROOT = HERE.parent
FEED, SPAN = "feed", "span"
READY_S = 180
TICKS = os.sysconf("SC_CLK_TCK")
#: What the issue asks of the sensor: CPU time per packet, resident memory, and how flat that is.
MAX_NS, MAX_MIB, MAX_GROWTH = 200, 300, 1.05

_NFSTREAM = (
    f"from nfstream import NFStreamer; print('ready', flush=True);"
    f"print(sum(f.bidirectional_packets for f in NFStreamer(source='{SPAN}', n_meters=1)))"
)


@dataclass(frozen=True)
class Contestant:
    """A command that captures; ``ready``: what it says on standard error or output when it does."""

    name: str
    command: Callable[[Path], list[str]]  # a file for statistics
    needs: str
    ready: str
    counts: Callable[[str, Path], tuple[int | None, int | None]]  # its output: packets that it got, and lost


def _of_sensor(_: str, stats: Path) -> tuple[int | None, int | None]:
    totals = json.loads(stats.read_text())
    return totals["packets"], totals["kernel_drops"]


def _of_tcpdump(output: str, _: Path) -> tuple[int | None, int | None]:
    got, lost = (re.search(rf"(\d+) packets? {word}", output) for word in ("captured", "dropped by kernel"))
    return (int(got[1]) if got else None), (int(lost[1]) if lost else None)


CONTESTANTS = (
    Contestant(
        "ours",
        lambda stats: [
            *(sys.executable, "-m", "sensor", "watch", "-i", SPAN, "--filter", "all", "--format", "json"),
            *("--stats", str(stats), "--user", "root", "--status-every", "0"),
        ],
        "sensor",
        "listening on",
        _of_sensor,
    ),
    Contestant(
        "tcpdump-copy",
        lambda _: ["tcpdump", "-Z", "root", "-B", "65536", "-i", SPAN, "-w", "/dev/null"],
        "tcpdump",
        "listening on",
        _of_tcpdump,
    ),
    Contestant(
        "nfstream", lambda _: [sys.executable, "-c", _NFSTREAM], "nfstream", "ready", lambda *_: (None, None)
    ),
)


@dataclass
class Result:
    """What was measured of one contestant on one capture."""

    name: str
    sent: int = 0
    sent_per_s: float = 0.0
    got: int | None = None
    lost: int | None = None
    cpu_ns: float = 0.0
    peak_mib: float = 0.0
    growth: float = 0.0
    error: str = ""


class Namespace:
    """A network namespace with a pair of interfaces; a context manager."""

    def __init__(self) -> None:
        self._name = f"spamsensor-bench-{os.getpid()}"

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self._name], check=True)
        for command in (
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
            f"ip link add {FEED} type veth peer name {SPAN}",
            f"ip link set {FEED} up",
            f"ip link set {SPAN} up",
        ):
            subprocess.run(self.command(*command.split()), check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self._name], check=True)

    def command(self, *command: str) -> list[str]:
        """Return a command that runs in it."""
        return ["ip", "netns", "exec", self._name, *command]


def family(pid: int) -> list[int]:
    """Return a process and its descendants, as far as they are there."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").glob("*"):
            pids += map(int, (task / "children").read_text().split())
    return pids


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far, user and system."""
    total = 0.0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:13])) / TICKS
    return total


def memory_mib(pid: int, what: str) -> float:
    """Return VmRSS or VmHWM of a process and its descendants; what they share counts several times."""
    total = 0.0
    for member in family(pid):
        found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{member}/status").read_text())
        total += int(found[1]) / 1024 if found else 0.0
    return total


def measure(
    net: Namespace, contestant: Contestant, path: Path, loops: int, pps: int | None, cores: list[int]
) -> Result:
    """Let one contestant capture what tcpreplay sends."""
    result = Result(contestant.name)
    if not is_there(contestant.needs):
        result.error = "unavailable"
        return result
    with tempfile.TemporaryDirectory() as directory:
        output, stats = Path(directory, "output"), Path(directory, "stats.json")
        with output.open("wb") as stream:
            process = subprocess.Popen(
                net.command("taskset", "-c", str(cores[-1]), *contestant.command(stats)),
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
            )
        try:
            wait_until(lambda: contestant.ready in output.read_text(errors="replace"), process)
            time.sleep(1)  # what it still does to start is not to count
            before_s = cpu_s(process.pid)
            speed = ["--topspeed"] if pps is None else [f"--pps={pps}"]
            feed = ["taskset", "-c", str(cores[0]), "tcpreplay", "-q", "-K", "-i", FEED, *speed]
            first = max(loops // 10, 1)
            result.sent, _ = send(net, [*feed, f"--loop={first}", str(path)])
            early_mib = memory_mib(process.pid, "VmRSS")
            n_sent, result.sent_per_s = send(net, [*feed, f"--loop={max(loops - first, 1)}", str(path)])
            result.sent += n_sent
            time.sleep(1)  # what waits in the ring is to be read: no contestant says when it is
            result.cpu_ns = (cpu_s(process.pid) - before_s) * 1e9
            result.growth = memory_mib(process.pid, "VmRSS") / max(early_mib, 1)
            result.peak_mib = memory_mib(process.pid, "VmHWM")
            process.send_signal(signal.SIGINT)
            process.wait(60)
            result.got, result.lost = contestant.counts(output.read_text(errors="replace"), stats)
        except (OSError, ValueError, subprocess.SubprocessError, TimeoutError) as error:
            last = output.read_text(errors="replace").strip().splitlines()[-1:]
            result.error = f"failed, {error} {' '.join(last)}"
        finally:
            process.kill()
            process.wait()
    return result


def send(net: Namespace, command: list[str]) -> tuple[int, float]:
    """Send; return how many packets, and how many a second."""
    done = subprocess.run(net.command(*command), capture_output=True, text=True, check=True)
    found = re.search(r"Actual: (\d+) packets .* sent in ([\d.]+) seconds", done.stdout)
    if not found:
        raise ValueError(f"tcpreplay said {done.stdout!r}")
    return int(found[1]), int(found[1]) / max(float(found[2]), 1e-9)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_S
    while not is_so():
        if process.poll() is not None or time.monotonic() > end:
            raise TimeoutError("it did not begin to capture:")
        time.sleep(0.05)


def table(title: str, results: list[Result]) -> str:
    heads = ("sent", "sent/s", "got", "lost", "ns/packet", "peak MiB", "growth")
    lines = [title, f"  {'':14}" + "".join(f"{head:>12}" for head in heads)]
    for r in results:
        if r.error:
            lines.append(f"  {r.name:14}  {r.error}")
            continue
        per_packet = r.cpu_ns / (r.got or r.sent)
        cells = (
            f"{r.sent:,}",
            f"{r.sent_per_s:,.0f}",
            *("-" if n is None else f"{n:,}" for n in (r.got, r.lost)),
        )
        cells += (f"{per_packet:,.0f}", f"{r.peak_mib:,.0f}", f"{r.growth:.2f}")
        lines.append(f"  {r.name:14}" + "".join(f"{cell:>12}" for cell in cells))
        if r.name == CONTESTANTS[0].name:
            checks = {
                "nothing lost": r.lost == 0 and r.got == r.sent,
                f"at most {MAX_NS} ns/packet": per_packet <= MAX_NS,
                f"under {MAX_MIB} MiB": r.peak_mib < MAX_MIB,
                f"growth at most {MAX_GROWTH}": r.growth <= MAX_GROWTH,
            }
            lines.append(
                f"  {'':14}  " + ", ".join(f"{'yes' if so else 'NO'}: {what}" for what, so in checks.items())
            )
    return "\n".join(lines)


def main() -> None:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captures", default="dense,mix", metavar="LIST", help="of: %(default)s")
    parser.add_argument(
        "--packets", type=int, default=10_000_000, metavar="N", help="to send, at least (default %(default)s)"
    )
    parser.add_argument(
        "--pps", type=int, metavar="N", help="packets a second (default: as many as can be sent)"
    )
    parser.add_argument(
        "--peers",
        default="tcpdump-copy,nfstream",
        metavar="LIST",
        help="of: %(default)s; none for ours alone",
    )
    parser.add_argument("--size", type=float, default=1.0, metavar="X", help="of the captures (default 1)")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("tcpreplay") is None:
        parser.exit(2, "bench/live.py needs root, for a network namespace, and tcpreplay\n")
    cores = sorted(os.sched_getaffinity(0))
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [c for c in CONTESTANTS if c is CONTESTANTS[0] or c.name in arguments.peers.split(",")]
    print(f"cores: tcpreplay on {cores[0]}, the contestant on {cores[-1]}")
    with Namespace() as net:
        for name in arguments.captures.split(","):
            path, truth = capture(name, directory, arguments.size)
            loops = -(-arguments.packets // truth["packets"])
            results: list[Any] = [measure(net, c, path, loops, arguments.pps, cores) for c in wanted]
            print(table(f"\n{name}: {truth['packets']:,} packets, {loops} times", results), flush=True)


if __name__ == "__main__":
    main()
