"""Compare the sensor with its peers on the two captures of bench/generate.py, and with its own targets.

    make bench                                  # all captures and peers, five repetitions
    python bench/run.py --quick                 # a tenth of the captures, once: does everything run?
    python bench/run.py --repeat 9 --peers tcpdump-copy,tcpdump-filter

How it is measured. Every contestant is a process of its own, pinned to the same one core, output thrown
away, the files in the page cache: each runs once unmeasured (which also compiles and caches our kernels;
that first run is reported apart). Then the repetitions are interleaved, A B C A B C, and medians are taken,
so that a disturbance hits all alike. "Whole" is the wall time of the process. "Steady" is that minus
"start", the median wall time of the same command on a capture of one packet. Peers that are too slow for
the whole capture read its first packets only; their whole time is then start + steady time per packet x all
packets, and their line carries a ~. CPU seconds and peak memory come from wait4(2): memory is the largest
of a contestant's processes, mapped files included, and no figure can be below this program's own (about 20
MiB).

"Growth" replays a capture that is ten times as long, of new flows, and compares the peak of our memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROOT = HERE.parent
MAIL_AND_DNS = "port 53 or tcp port 25 or tcp port 465 or tcp port 587 or tcp port 2525"
TSHARK_FIELDS = (
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "smtp.req.command",
    "smtp.response.code",
    "dns.qry.name",
)
TIMEOUT_S = 900
MAX_PEAK_MIB = 300
MAX_GROWTH = 1.10
BUSY = 1.15
# The sensor counts these by its own rules; the generator knows them.
TRUTH = ("packets", "smtp_flows", "smtp_commands", "smtp_replies", "dns_queries", "mx_queries")


@dataclass(frozen=True)
class Contestant:
    """A command that reads a capture; ``needs`` is its program or module, ``first`` limits the packets."""

    name: str
    command: Callable[[str, str], list[str]]  # capture, a file for statistics (ours)
    needs: str
    first: int | None = None


def ours(path: str, stats: str) -> list[str]:
    options = ["--no-progress", "--format", "json", "--stats", stats]
    return [sys.executable, "-m", "sensor", "replay", path, *options]


def tshark(path: str, _: str) -> list[str]:
    fields = [word for name in TSHARK_FIELDS for word in ("-e", name)]
    return ["tshark", "-n", "-r", path, "-T", "fields", *fields]


def library(name: str) -> Callable[[str, str], list[str]]:
    return lambda path, _: [sys.executable, str(HERE / "peers.py"), name, path]


OURS = Contestant("ours", ours, "sensor")
PEERS = (
    Contestant("tcpdump-copy", lambda path, _: ["tcpdump", "-r", path, "-w", "/dev/null"], "tcpdump"),
    Contestant(
        "tcpdump-filter", lambda path, _: ["tcpdump", "-r", path, "-w", "/dev/null", MAIL_AND_DNS], "tcpdump"
    ),
    Contestant("ndpiReader", lambda path, _: ["ndpiReader", "-q", "-i", path], "ndpiReader"),
    Contestant("nfstream", library("nfstream"), "nfstream", first=500_000),
    Contestant("tshark", tshark, "tshark", first=200_000),
    Contestant("scapy", library("scapy"), "scapy", first=20_000),
)


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall clock and CPU, and its peak of memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass
class Result:
    """What was measured of one contestant on one capture."""

    name: str
    packets: int  # of the capture that it read: the whole or its first part
    total: int  # packets of the whole capture
    first_run_s: float = 0.0
    whole: list[Run] = field(default_factory=list)
    start: list[Run] = field(default_factory=list)
    error: str = ""
    notes: list[str] = field(default_factory=list)

    def median(self, what: str, runs: str = "whole") -> float:
        return float(statistics.median(getattr(run, what) for run in getattr(self, runs)))

    @property
    def steady_ns(self) -> float:
        """Nanoseconds per packet without the start of the process."""
        return (self.median("wall_s") - self.median("wall_s", "start")) * 1e9 / self.packets

    @property
    def whole_s(self) -> float:
        """Seconds for the whole capture, extrapolated if only the first part was read."""
        if self.packets == self.total:
            return self.median("wall_s")
        return self.median("wall_s", "start") + self.steady_ns * self.total / 1e9

    @property
    def cpu_s(self) -> float:
        """CPU seconds for the whole capture, extrapolated like the wall time."""
        start, whole = self.median("cpu_s", "start"), self.median("cpu_s")
        return start + (whole - start) * self.total / self.packets

    @property
    def whole_ns(self) -> float:
        return self.whole_s * 1e9 / self.total

    @property
    def peak_mib(self) -> float:
        return max(run.peak_bytes for run in self.whole) / 2**20


class CommandFailedError(Exception):
    """A contestant ended with an error; the text says how."""


def measure(command: list[str]) -> Run:
    """Run a command to its end. Raise CommandFailedError if that end is not a good one."""
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        watchdog.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "no message"
            raise CommandFailedError(f"exit status {process.returncode}: {last}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def progress(text: str) -> None:
    """Show what runs now, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def is_there(needs: str) -> bool:
    return shutil.which(needs) is not None or importlib.util.find_spec(needs) is not None


# --- captures --------------------------------------------------------------------------------------------


def capture(name: str, directory: Path, size: float, scale: int = 1) -> tuple[Path, dict[str, Any]]:
    """Return a capture of bench/generate.py and its truth; make it unless this generator made it before."""
    path = directory / f"{name}-{size:g}x{scale}.pcap"
    described, generator = path.with_suffix(".json"), HERE / "generate.py"
    if not (path.exists() and described.exists() and path.stat().st_mtime > generator.stat().st_mtime):
        progress(f"making {path.name}")
        options = ["--size", str(size), "--scale", str(scale)]
        subprocess.run(
            [sys.executable, str(generator), name, str(path), *options], check=True, stdout=subprocess.DEVNULL
        )
    return path, json.loads(described.read_text())


def first_packets(path: Path, count: int) -> Path:
    """Return a capture of the first packets of another one (pcap, of this machine's byte order)."""
    part = path.with_name(f"{path.stem}-first{count}.pcap")
    if not (part.exists() and part.stat().st_mtime >= path.stat().st_mtime):
        with path.open("rb") as source, part.open("wb") as target:
            target.write(source.read(24))
            for _ in range(count):
                header = source.read(16)
                target.write(header + source.read(int.from_bytes(header[8:12], sys.byteorder)))
    return part


# --- one capture, all contestants ------------------------------------------------------------------------


def disagreements(stats: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    """Return where our counts differ from what the generator wrote."""
    return [f"{key}: {stats.get(key)} of {truth[key]}" for key in TRUTH if stats.get(key) != truth[key]]


def compete(path: Path, truth: dict[str, Any], contestants: list[Contestant], repeat: int) -> list[Result]:
    """Measure all contestants on one capture, interleaved; one that fails once is out."""
    total = truth["packets"]
    empty, stats = str(first_packets(path, 1)), path.with_name("stats.json")
    entries: list[tuple[Result, list[str], list[str]]] = []
    for contestant in contestants:
        packets = min(contestant.first or total, total)
        read = path if packets == total else first_packets(path, packets)
        result = Result(contestant.name, packets, total)
        start, whole = (contestant.command(str(file), str(stats)) for file in (empty, read))
        entries.append((result, start, whole))
        if not is_there(contestant.needs):
            result.error = "unavailable"

    for turn in range(repeat + 1):
        for result, start, whole in entries:
            if result.error:
                continue
            label = f"{turn}/{repeat}" if turn else "warm-up"
            progress(f"{path.stem}: {result.name} {label}")
            try:
                if turn:
                    result.start.append(measure(start))
                    result.whole.append(measure(whole))
                else:
                    result.first_run_s = measure(whole).wall_s
                    if result.name == OURS.name:
                        result.notes = disagreements(json.loads(stats.read_text()), truth)
            except (CommandFailedError, OSError, ValueError) as reason:
                result.error = f"failed, {reason}"
    progress("")
    return [result for result, _, _ in entries]


def table(title: str, results: list[Result]) -> list[str]:
    """Return the lines of one capture's table."""
    reference = next((r for r in results if r.name == OURS.name and not r.error), None)
    heads = ("ns/packet", "steady", "packets/s", "x ours", "steady", "wall s", "CPU s", "start s", "peak MiB")
    lines = [title, f"  {'':16}" + "".join(f"{head:>11}" for head in heads)]
    for r in results:
        if r.error:
            lines.append(f"  {r.name:16}  {r.error}")
            continue
        mark = "~" if r.packets != r.total else ""
        ratios = ["-", "-"]
        if reference:
            ratios = [f"{r.whole_ns / reference.whole_ns:.2f}", f"{r.steady_ns / reference.steady_ns:.2f}"]
        cells = [f"{mark}{r.whole_ns:,.0f}", f"{r.steady_ns:,.0f}", f"{1e9 / r.whole_ns:,.0f}", *ratios]
        cells += [f"{mark}{r.whole_s:.2f}", f"{mark}{r.cpu_s:.2f}", f"{r.median('wall_s', 'start'):.2f}"]
        cells.append(f"{r.peak_mib:.0f}")
        lines.append(f"  {r.name:16}" + "".join(f"{cell:>11}" for cell in cells))
    lines += [
        f"  ~ {r.name}: first {r.packets:,} packets" for r in results if r.packets != r.total and not r.error
    ]
    lines += [f"  ours disagrees with the generator: {note}" for r in results for note in r.notes]
    if reference:
        lines.append(f"  ours, very first run (with what it had to compile): {reference.first_run_s:.1f} s")
    quick = [r for r in results if not r.error and r.name.startswith((OURS.name, "tcpdump"))]
    if any(r.median("wall_s") > BUSY * r.median("cpu_s") for r in quick):
        lines.append("  the core was not ours alone: wall time is well above CPU time, compare CPU seconds")
    return [*lines, ""]


# --- targets ---------------------------------------------------------------------------------------------


def verdict(text: str, measured: float, limit: float, form: str = "{:.0f} ns") -> dict[str, Any]:
    shown = f"{form.format(measured)}, limit {form.format(limit)}"
    return {"target": text, "measured": measured, "limit": limit, "met": measured <= limit, "shown": shown}


def speed_verdicts(name: str, results: list[Result]) -> list[dict[str, Any]]:
    """Judge one capture: the two targets of speed, whole process and steady state, and the peak of memory."""
    by_name = {result.name: result for result in results if not result.error}
    if OURS.name not in by_name:
        return [{"target": f"{name}: ours runs", "met": False, "shown": "failed"}]
    mine = by_name[OURS.name]
    peer, factor = {"mix": ("tcpdump-filter", 1), "dense": ("tcpdump-copy", 2)}[name]
    verdicts = []
    if peer in by_name:
        for kind, what in (("steady state", "steady_ns"), ("whole process", "whole_ns")):
            limit = factor * getattr(by_name[peer], what)
            times = f"{factor} x " if factor > 1 else ""
            verdicts.append(verdict(f"{name}, {kind}: ours <= {times}{peer}", getattr(mine, what), limit))
    verdicts.append(verdict(f"{name}: peak memory", mine.peak_mib, MAX_PEAK_MIB, "{:.0f} MiB"))
    verdicts.append(verdict(f"{name}: counts unlike the generator's", len(mine.notes), 0, "{:.0f}"))
    return verdicts


def growth_verdict(
    name: str, directory: Path, size: float, scale: int, mine: Result, *, keep: bool
) -> dict[str, Any]:
    """Judge our peak of memory on a capture ``scale`` times as long, which is deleted afterwards."""
    text = f"{name}: peak memory, {scale} x the capture / the capture"
    path, truth = capture(name, directory, size, scale)
    stats = directory / "stats.json"
    try:
        run = measure(ours(str(path), str(stats)))
        notes = disagreements(json.loads(stats.read_text()), truth)
    except (CommandFailedError, OSError, ValueError) as reason:
        return {"target": text, "met": False, "shown": f"failed, {reason}"}
    finally:
        if not keep:
            path.unlink()
    judged = verdict(text, run.peak_bytes / 2**20 / mine.peak_mib, MAX_GROWTH, "{:.2f}")
    judged["shown"] += (
        f" ({run.peak_bytes / 2**20:.0f} MiB, {truth['packets']:,} packets in {run.wall_s:.1f} s)"
    )
    return judged | {"run": asdict(run), "disagreements": notes}


# --- the machine -----------------------------------------------------------------------------------------


def first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    except OSError:
        return "unavailable"
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unavailable"


def machine(core: int) -> dict[str, Any]:
    """Return what someone needs to know to compare figures of this machine with those of another."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "pinned_to": core,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("spamsensor", "numba", "numpy", "nfstream", "scapy")},
        "tcpdump": first_line(["tcpdump", "--version"]),
        "tshark": first_line(["tshark", "--version"]),
        "ndpiReader": first_line(["ndpiReader", "-h"]),
        "commit": first_line(["git", "describe", "--always", "--dirty"]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def parse_arguments() -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--quick", action="store_true", help="a tenth of each capture, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (default 5; 1 with --quick)")
    parser.add_argument(
        "--peers", default=",".join(names), metavar="LIST", help="of: %(default)s; '' for none"
    )
    parser.add_argument("--captures", default="dense,mix", metavar="LIST", help="of: %(default)s")
    parser.add_argument(
        "--growth", type=int, default=10, metavar="K", help="measure memory on K times the capture; 0: do not"
    )
    parser.add_argument("--core", type=int, metavar="C", help="core to pin everything to (default: the last)")
    parser.add_argument(
        "--dir", type=Path, default=ROOT / "build" / "bench", help="where the captures are kept"
    )
    parser.add_argument("--keep", action="store_true", help="keep the large captures of --growth (16 GB)")
    parser.add_argument(
        "--out", type=Path, help="where to write the figures, JSON (default: DIR/report.json)"
    )
    arguments = parser.parse_args()
    arguments.peers = [name for name in arguments.peers.split(",") if name]
    arguments.captures = arguments.captures.split(",")
    for given, known in ((arguments.peers, names), (arguments.captures, ["dense", "mix"])):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    arguments.repeat = arguments.repeat or (1 if arguments.quick else 5)
    arguments.core = max(os.sched_getaffinity(0)) if arguments.core is None else arguments.core
    return arguments


def main() -> None:
    arguments = parse_arguments()
    os.environ.pop("SENSOR_BOUNDSCHECK", None)  # bounds checks are on, as in production
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its byte code beside it
    os.sched_setaffinity(0, {arguments.core})  # every contestant inherits this
    contestants = [OURS, *(peer for peer in PEERS if peer.name in arguments.peers)]
    size = 0.1 if arguments.quick else 1.0
    report: dict[str, Any] = {"machine": machine(arguments.core), "captures": {}, "targets": []}
    about = report["machine"]
    print(f"{about['cpu']}, core {about['pinned_to']} of {about['cpus']}, Linux {about['kernel']}; ", end="")
    print(f"Python {about['python']}, numba {about['packages']['numba']}; median of {arguments.repeat}\n")
    for name in arguments.captures:
        path, truth = capture(name, arguments.dir, size)
        results = compete(path, truth, contestants, arguments.repeat)
        title = (
            f"{name}: {truth['packets']:,} packets, {truth['wire_bytes'] / truth['packets']:.0f} B on average"
        )
        print("\n".join(table(f"{title}, {truth['flows']:,} flows, {truth['smtp_flows']:,} mail", results)))
        report["captures"][name] = {"truth": truth, "results": [asdict(result) for result in results]}
        report["targets"] += speed_verdicts(name, results)
        if arguments.growth and not results[0].error:
            grown = growth_verdict(
                name, arguments.dir, size, arguments.growth, results[0], keep=arguments.keep
            )
            report["targets"].append(grown)
    print("targets")
    for target in report["targets"]:
        print(f"  {'met   ' if target['met'] else 'MISSED'}  {target['target']}: {target['shown']}")
    out = arguments.out or arguments.dir / "report.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{out}")


if __name__ == "__main__":
    main()
