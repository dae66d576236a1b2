"""The command line: the only file that knows exit codes and signals.

Heavy imports (numba, NumPy, pyarrow, rich) happen inside the commands, so that help and wrong options answer
at once.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

import click

from sensor import __version__
from sensor.errors import CaptureError, ConfigError, ModelError, SensorError
from sensor.notation import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from sensor.alerts.destinations import Sinks
    from sensor.alerts.queued import Transport
    from sensor.alerts.record import Alert
    from sensor.capture.follow import FollowRun
    from sensor.capture.frames import FrameBatch
    from sensor.capture.live import FilterMode, LiveCapture
    from sensor.capture.merge import CaptureRun
    from sensor.capture.sniffer import SnifferCapture
    from sensor.config import Config
    from sensor.console import Progress
    from sensor.model.artifact import Artifact
    from sensor.pipeline import Pipeline
    from sensor.state.database import KeptAlert
    from sensor.state.keeper import Keeper
    from sensor.upkeep import Upkeep

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
_EXIT_SIGNAL: Final = 128  # plus the signal's number, as shells report it

_STANDARD_STREAM: Final = "-"
_FOLLOW_STATS_S: Final = 10.0  # between two states of --stats with --follow
_WATCH_STATS_S: Final = 60.0  # and of watch
_FOLLOW_ALERTS_S: Final = 1.0  # between two looks of alerts --follow
_LABEL_NS: Final = 90 * 86_400 * 1_000_000_000  # how long a label holds
# Tables are large and used sparsely: with the huge pages that NumPy asks for, they take 50 MiB more. It reads this
# when it is imported.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
_KERNEL_MODULES: Final = (
    "sensor.decode.packets",
    "sensor.events.flows",
    "sensor.devices.activity",
    "sensor.model.channel",
    "sensor.model.evidence",
    "sensor.model.score",
)  # those of a trained model compile in seconds, when there is one
_COMPILING: Final = "compiling for this machine, which takes two minutes or so the first time"


class Interrupted(BaseException):
    """A signal asks the program to end; not an Exception, so that nothing takes it for an error."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number: Final = signal_number


class ReaderGone(Exception):  # noqa: N818 - no error: whoever read our output has seen enough
    """Standard output is a pipe that nobody reads any more."""


def say(message: str) -> None:
    """Write one line to standard error."""
    click.echo(f"spamsensor: {visible(message)}", err=True)


class Program(click.Group):
    """The group of commands: every error becomes one line on standard error and an exit status."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; see ``click.Command.main``."""
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        sys.exit(_exit_status(run))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see ``click.Group.invoke``."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None  # before click makes it a failure


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(str(message))


def _exit_status(run: Callable[[], Any]) -> int:
    """Run a command, and say in one line what went wrong, or is odd."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(run() or EXIT_OK)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        say(
            error.format_message().removesuffix(".")
            + (f" ({command} --help lists what there is)" if command else "")
        )
        return error.exit_code
    except ConfigError as error:
        say(str(error))
        return EXIT_USAGE
    except SensorError as error:
        say(str(error))
        return EXIT_FAILURE
    except ReaderGone:
        _forget_standard_output()
        return _EXIT_SIGNAL + signal.SIGPIPE
    except OSError as error:
        say(f"{error.filename or 'standard output'}: {error.strerror}")
        _forget_standard_output()
        return EXIT_FAILURE
    except Interrupted as interruption:
        say(f"ended at once by {signal.Signals(interruption.signal_number).name}")
        return _EXIT_SIGNAL + interruption.signal_number
    except (KeyboardInterrupt, click.Abort):
        return _EXIT_SIGNAL + signal.SIGINT


def _forget_standard_output() -> None:
    """Send what is still buffered nowhere: the interpreter would fail on it again when it exits."""
    with contextlib.suppress(OSError, ValueError):  # no descriptor: nothing that could fail
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class Signals:
    """Turns SIGINT and SIGTERM into the end of the input, so that what was read is still judged and written.

    ``received``: the signal's number, or None. Before the first packet, and the second time, a signal raises
    Interrupted at once. ``with_hangup``: SIGHUP asks for files to be opened anew, which is ``take_hangup``.
    """

    _HANDLED: Final = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, with_hangup: bool = False) -> None:
        self.received: int | None = None
        self._with_hangup = with_hangup
        self._has_hung_up = False
        self._is_busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        if self._with_hangup:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # While waiting for input nothing is half done; packets at hand are worked on to their end.
        must_raise = not self._is_busy or self.received is not None
        self.received = number
        if must_raise:
            raise Interrupted(number)

    def _handle_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._has_hung_up = True

    def take_hangup(self) -> bool:
        """Tell whether SIGHUP came since the last time."""
        has_hung_up, self._has_hung_up = self._has_hung_up, False
        return has_hung_up

    def after_received(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        """Yield batches until there are no more: whoever makes them looks at ``received`` and comes to an end."""
        self._is_busy = True
        yield from batches

    def until_received(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        """Yield batches until there are no more or a signal came."""
        iterator = iter(batches)
        try:
            while self.received is None and (batch := next(iterator, None)) is not None:
                self._is_busy = True
                yield batch
                self._is_busy = False
        except Interrupted:
            if self._is_busy:  # the second one
                raise
        self._is_busy = True


def _examples(*lines: str) -> str:
    """Return the end of a help text, whose lines click must not join."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


_config_option = click.option(
    "-c",
    "--config",
    "config_path",
    metavar="FILE",
    help="TOML file with what differs from the defaults; docs/configuration.md lists the keys.  "
    "[default: none]",
)
_home_net_option = click.option(
    "--home-net",
    "home_nets",
    metavar="CIDR",
    multiple=True,
    help="A network whose devices are watched; repeat it for several. Replaces home_nets of the "
    "configuration.  [default: the private and link-local networks]",
)

_model_option = click.option(
    "--model",
    "model_path",
    metavar="DIR",
    help="A trained model, as written by train.  [default: the model that comes with this program]",
)
_state_option = click.option(
    "--state",
    "state_path",
    metavar="DIR",
    help="The directory that a sensor was given with watch --state.  [default: none; it must be given]",
)


def _label_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add what a label says."""
    for decorate in reversed(
        (
            click.argument("verdict", type=click.Choice(["benign", "infected"])),
            _state_option,
            click.option(
                "--reason",
                metavar="TEXT",
                default="",
                help="Why, for whoever reads it in a year.  [default: none]",
            ),
            click.option(
                "--expires",
                metavar="DATE",
                help="The last day, or the last moment, on which it holds: 2027-06-30, or with a time; UTC unless "
                "it has an offset.  [default: in 90 days]",
            ),
        )
    ):
        command = decorate(command)
    return command


_data_option = click.option(
    "--data",
    "data",
    metavar="DIR",
    multiple=True,
    help="A simulated world, as written by simulate; repeat it for several.  [default: none; it must be given]",
)
_jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    default=1,
    help="Processes to work with; the files do not depend on it.  [default: 1]",
)


def _run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of every run over packets: what RunOptions holds."""
    options = (
        _config_option,
        _home_net_option,
        click.option(
            "--format",
            "alert_format",
            type=click.Choice(["text", "json"]),
            help="Form of the alerts on standard output: text for people, json for programs, one object a line.  "
            "[default: output.format of the configuration, which is text]",
        ),
        click.option(
            "--devices", metavar="FILE", help="Write a table with one row per device.  [default: none]"
        ),
        click.option(
            "--features",
            metavar="FILE",
            help="Write a table with one row per device and window: what the judgement rests on.  [default: none]",
        ),
        click.option(
            "--events",
            metavar="FILE",
            help="Write what decoding saw as JSON Lines: SMTP, DNS, connections, who is who.  [default: none]",
        ),
        click.option("--stats", metavar="FILE", help="Write the totals of the run as JSON.  [default: none]"),
        _model_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    cls=Program,
    invoke_without_command=True,
    epilog=_examples("spamsensor replay monday.pcap"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> int | None:
    """Name the devices of a network that send spam, from captures or live on a mirror port.

    Exit status: 0 ran to the end, alerts or not; 1 something could not be read or written, the rest was done;
    2 usage or configuration error; 128 + N ended by signal N.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return EXIT_USAGE
    return None


@main.command(
    epilog=_examples(
        "spamsensor replay monday.pcap",
        "spamsensor replay --format json --exit-code 3 --home-net 192.0.2.0/24 captures/",
        "tcpdump -i eth1 -w - 'port 25 or port 53 or arp' | spamsensor replay --devices devices.csv -",
        "spamsensor replay --follow /var/captures/",
    )
)
@click.argument("captures", nargs=-1, metavar="CAPTURE...")
@_run_options
@click.option(
    "--exit-code",
    "alert_status",
    type=click.IntRange(1, 255),
    metavar="N",
    help="End with status N, 1 to 255, if there was at least one alert; reviews do not count.  "
    "[default: alerts do not change the status]",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Go on as the captures grow and rotate, until SIGINT or SIGTERM.  [default: end with the captures]",
)
@click.option(
    "--no-progress",
    is_flag=True,
    help="Show no progress bar.  [default: a bar if standard error is a terminal]",
)
def replay(
    *,
    captures: tuple[str, ...],
    alert_status: int | None,
    follow: bool,
    no_progress: bool,
    **options: Any,
) -> int:
    """Read captures, judge the devices in them, and print alerts.

    CAPTURE is a pcap or pcapng file, as it is or in gzip, zstd, xz or bzip2, a directory, a quoted pattern, or
    '-' for standard input. Several are merged by time, so a rotated capture is one run.

    With --follow, captures that are still being written are read on as tcpdump -w writes them, in one file or
    in a directory or pattern of files (-C, -G, -W). Packets are judged as soon as they are in the file. --stats
    is written anew every ten seconds; a signal ends the run, with status 0.

    Tables are CSV, JSON Lines or Parquet by the ending of FILE: .csv, .jsonl or .ndjson, .parquet. FILE '-'
    is standard output, where tables are CSV, or JSON Lines beside --format json. Files take their names when
    they are complete; --events is written as it comes.
    """
    if not captures:
        raise ConfigError("no capture given: name files, directories or patterns, or '-' for standard input")
    if follow and _STANDARD_STREAM in captures:
        raise ConfigError("standard input is read as it comes, without --follow")
    run = _Run(_RunOptions(**options), captures)
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals(with_hangup=follow))
        inputs = stack.enter_context(contextlib.closing(_open_inputs(captures, run, signals, follow=follow)))
        source = _Source(
            inputs,
            signals.after_received(inputs) if follow else signals.until_received(inputs),
            stats=lambda: {"captures": inputs.counts.as_stats()},
            stats_every_s=_FOLLOW_STATS_S if follow else None,
            take_hangup=signals.take_hangup,
        )
        run.progress = _open_progress(stack, inputs.bytes_total, wanted=not no_progress)
        totals = run.judge(source, stack)
    run.report_end(totals, signals.received)
    return run.exit_status(None if follow else signals.received, alert_status)


def _open_inputs(
    captures: Sequence[str], run: _Run, signals: Signals, *, follow: bool
) -> CaptureRun | FollowRun:
    if not follow:
        from sensor.capture.merge import open_captures

        return open_captures(captures, on_problem=run.report_problem)
    from sensor.capture.follow import follow_captures

    return follow_captures(
        captures, on_problem=run.report_problem, is_ended=lambda: signals.received is not None
    )


@main.command(
    epilog=_examples(
        "sudo spamsensor watch -i eth1",
        "spamsensor watch -i eth1 -i eth2 --format json --stats /run/spamsensor/stats.json",
    )
)
@click.option(
    "-i",
    "--interface",
    "interfaces",
    metavar="NAME",
    multiple=True,
    help="An Ethernet interface to listen on; repeat it for several, such as the two ports of a tap.  "
    "[default: none; one must be given]",
)
@_run_options
@click.option(
    "--duration",
    type=click.FloatRange(0.1, 1e9),
    metavar="S",
    help="End after S seconds.  [default: go on until SIGINT or SIGTERM]",
)
@click.option(
    "--filter",
    "filter_mode",
    type=click.Choice(["all", "mail", "auto"]),
    default="auto",
    help="What the kernel hands over: everything; only mail, DNS, identity traffic and tunnels; or everything "
    "for as long as it drops nothing.  [default: auto]",
)
@click.option(
    "--status-every",
    "status_s",
    type=click.FloatRange(0, 1e6),
    metavar="S",
    default=60,
    help="Say every S seconds on standard error how it goes; 0: never.  [default: 60]",
)
@click.option(
    "--metrics",
    "metrics_address",
    metavar="ADDRESS:PORT",
    help="Answer http://ADDRESS:PORT/metrics in the format of Prometheus, such as 127.0.0.1:9477. Whoever reaches "
    "it may read it.  [default: nobody is answered]",
)
@click.option(
    "--user",
    metavar="NAME",
    default="nobody",
    help="Whom to become once the socket is open, if started by root. All files are written as that user.  "
    "[default: nobody]",
)
@click.option(
    "--state",
    "state_path",
    metavar="DIR",
    help="Keep what was learned in DIR, and go on from there after a restart; devices and alerts read it.  "
    "[default: none: a restart forgets everything]",
)
def watch(
    *,
    interfaces: tuple[str, ...],
    duration: float | None,
    filter_mode: FilterMode,
    status_s: float,
    metrics_address: str | None,
    user: str,
    state_path: str | None,
    **options: Any,
) -> int:
    """Listen on mirror ports, judge the devices behind them, and print alerts as they are decided.

    Interfaces are put into promiscuous mode; nothing else of them is changed, and no packet is ever sent. It takes
    the capability CAP_NET_RAW, which is given up when the socket is open. An interface that goes down or
    vanishes is waited for. SIGINT and SIGTERM end the run, with status 0: what was captured is judged and
    written.

    Where no packets come, time goes on by the clock. --stats is written anew every minute. SIGHUP reads the
    configuration and the model anew, and keeps those of before if they are bad.

    --state DIR is made if it is not there, for the user of --user. Each minute, at each alert and at the end, what
    was learned is written to it; the next run with it goes on, and says open alerts again.
    """
    # Set before NumPy is imported: its library would start threads, which would keep their capabilities.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    import time

    from sensor.metrics import MetricsServer, parse_address
    from sensor.notify import Notifier
    from sensor.privileges import drop_privileges, find_user

    if not interfaces:
        raise ConfigError("no interface given: name one with -i")
    account = find_user(user)
    where = None if metrics_address is None else parse_address(metrics_address)
    run = _Run(_RunOptions(**options), ())
    if state_path is not None:
        from sensor.state.files import make_directory

        make_directory(Path(state_path), account)

    from sensor.upkeep import Upkeep

    # Compiling may take minutes, in which a rotation of logs must not end the program.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run.warm_up()
    run.import_all()
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals(with_hangup=True))
        end_s = time.monotonic() + (float("inf") if duration is None else duration)
        capture = _open_interfaces(
            interfaces,
            run.config,
            filter_mode=filter_mode,
            is_ended=lambda: signals.received is not None or time.monotonic() >= end_s,
        )
        stack.enter_context(contextlib.closing(capture))
        server = None if where is None else MetricsServer(where)
        greeting = f"listening on {', '.join(interfaces)}"
        upkeep = Upkeep(greeting, Notifier.of_environment(), server, say)
        stack.enter_context(contextlib.closing(upkeep))
        drop_privileges(account)
        run.check_reloadable()
        if state_path is not None:
            run.keep_state(Path(state_path), stack)
        source = _Source(
            capture,
            signals.after_received(capture),
            stats=capture.stats,
            stats_every_s=_WATCH_STATS_S,
            status_every_s=status_s or None,
            settled_ns=capture.settled_ns,
            take_hangup=signals.take_hangup,
            upkeep=upkeep,
        )
        if server is not None:
            say(f"metrics are at {server.url}")
        say(greeting)
        totals = run.judge(source, stack)
    run.report_end(totals, signals.received)
    return run.exit_status(None, None)


def _open_interfaces(
    names: Sequence[str], config: Config, *, filter_mode: FilterMode, is_ended: Callable[[], bool]
) -> LiveCapture | SnifferCapture:
    """Open interfaces with the method that is configured, or that the system has."""
    method = config.capture.method
    if method == "scapy" or (method == "auto" and not hasattr(socket, "AF_PACKET")):
        from sensor.capture.sniffer import SnifferCapture

        if filter_mode == "mail":
            raise ConfigError("--filter mail needs the packet ring of Linux: scapy captures everything")
        sniffer = SnifferCapture(names, config.capture, on_status=say, is_ended=is_ended)
        say("capturing through scapy: far slower than the packet ring of Linux, and without its filter")
        return sniffer
    from sensor.capture.live import LiveCapture
    from sensor.pipeline import kept_ports

    return LiveCapture(
        names,
        config.capture,
        filter_mode=filter_mode,
        ports=kept_ports(config),
        on_status=say,
        is_ended=is_ended,
    )


def _load_config(path: str | None, home_nets: Sequence[str]) -> Config:
    from sensor.config import load_config

    return load_config(path, home_nets=home_nets)


def _open_model(path: str | None) -> Artifact | None:
    """Read a model, or the one that comes with the program; None if there is none."""
    from sensor.model.artifact import default_directory, read_artifact

    directory = default_directory() if path is None else Path(path)
    return None if directory is None else read_artifact(directory)


def _prepare_transports(config: Config, path: str | None) -> list[Transport]:
    """Read what the receivers of the configuration need, which the user that we become may not be allowed to."""
    from sensor.alerts.destinations import prepare_transports

    try:
        return prepare_transports(config.output)
    except ConfigError as reason:
        raise ConfigError(f"{path}: {reason}") from None


def _check_outputs(captures: Iterable[str], outputs: Iterable[str | None]) -> None:
    """Raise ConfigError if two outputs, or an output and an input, are the same file."""
    taken = {os.path.realpath(path) for path in captures if path != _STANDARD_STREAM}
    for path in outputs:
        if path is None:
            continue
        key = path if path == _STANDARD_STREAM else os.path.realpath(path)
        if key in taken and key != os.devnull:
            raise ConfigError(f"{path}: named twice, as an output and as something else")
        taken.add(key)


def _must_compile() -> bool:
    """Tell whether the run has to compile its kernels first."""
    from sensor.jit import is_compiled

    return not all(is_compiled(module) for module in _KERNEL_MODULES)


@functools.cache
def _leave_alone_what_lasts() -> None:
    """Keep the garbage collector from looking through modules and kernels, which last to the end; once a process.

    It did so again and again, and at the exit: a sixth of a second, of a program that takes less than one to start.
    """
    gc.freeze()


def _open_progress(stack: contextlib.ExitStack, bytes_total: int | None, *, wanted: bool) -> Progress:
    from sensor.console import NoProgress, ProgressBar

    if not wanted or not sys.stderr.isatty():
        return NoProgress()
    bar = ProgressBar(bytes_total)
    stack.callback(bar.close)
    return bar


def _with_cost(totals: Mapping[str, Any], wall_s: float, cpu_s: float) -> dict[str, Any]:
    """Add what the run took to its totals."""
    return {
        **totals,
        "wall_seconds": round(wall_s, 6),
        "cpu_seconds": round(cpu_s, 6),
        "packets_per_second": round(totals["packets"] / wall_s, 1) if wall_s > 0 else 0.0,
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _peak_rss_bytes() -> int:
    """Return the most memory that this process had; ru_maxrss may be that of the process that started it."""
    import resource
    from pathlib import Path

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, kw_only=True)
class _RunOptions:
    """The values of _run_options."""

    config_path: str | None
    home_nets: tuple[str, ...]
    alert_format: Literal["text", "json"] | None
    devices: str | None
    features: str | None
    events: str | None
    stats: str | None
    model_path: str | None


@dataclass(frozen=True)
class _Source:
    """Where a run's packets come from: ``batches``, those of ``inputs`` up to their end or a signal.

    ``stats``: what --stats says of it, and each how many seconds that and a status line are written; None: at
    the end only, and never. ``settled_ns``: the time up to which, after an empty batch, everything has come;
    None: no clock says that. ``take_hangup``: see Signals. ``upkeep``: of a live run, whose settings SIGHUP reads anew.
    """

    inputs: CaptureRun | FollowRun | LiveCapture | SnifferCapture
    batches: Iterator[FrameBatch]
    stats: Callable[[], dict[str, Any]]
    stats_every_s: float | None
    take_hangup: Callable[[], bool]
    status_every_s: float | None = None
    settled_ns: Callable[[], int] | None = None
    upkeep: Upkeep | None = None


class _Timer:
    """Says each ``every_s`` seconds that it is time; never, if that is None."""

    def __init__(self, every_s: float | None) -> None:
        import time

        self._clock = time.monotonic
        self._every_s = float("inf") if every_s is None else every_s
        self._next_s = self._clock() + self._every_s

    def is_due(self) -> bool:
        """Tell whether it is time, once each time."""
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + self._every_s
        return True


class _Run:
    """A run over packets, and what it says: alerts on standard output, all else on standard error.

    ``captures``: the files that are read, which no output may be. Raises ConfigError.
    """

    def __init__(self, options: _RunOptions, captures: Sequence[str]) -> None:
        if sys.stdout is None:
            raise ConfigError(
                "standard output is closed, and alerts go there: redirect it to /dev/null instead"
            )
        self.config = _load_config(options.config_path, options.home_nets)
        self._artifact = _open_model(options.model_path)
        self._transports: Final = _prepare_transports(self.config, options.config_path)
        _check_outputs(captures, [options.devices, options.features, options.events, options.stats])
        self._must_compile: Final = _must_compile()
        if self._must_compile:
            say(_COMPILING)

        from sensor.console import NoProgress

        self.progress: Progress = NoProgress()
        self._options = options
        self._alert_format: Literal["text", "json"] = options.alert_format or self.config.output.format
        self._sinks: Sinks | None = None
        self._keeper: Keeper | None = None
        self._has_problem = False
        self._n_started = {"alert": 0, "review": 0}
        self._has_alert = False

    def warm_up(self) -> None:
        """Compile or load all that is run on packets."""
        from sensor.pipeline import warm_up

        warm_up(self.config, self._artifact)

    def check_reloadable(self) -> None:
        """Say which files SIGHUP will not be able to read, as the user that we are now."""
        from sensor.model.artifact import MANIFEST

        model = self._options.model_path
        paths = (self._options.config_path, None if model is None else str(Path(model, MANIFEST)))
        for path in paths:
            if path is not None and not os.access(path, os.R_OK):
                say(f"{path}: cannot be read without our privileges: SIGHUP will change nothing (see --user)")

    def import_all(self) -> None:
        """Import what the run will need: another user may not be allowed to read the modules."""
        import sensor.alerts.destinations
        import sensor.replay
        import sensor.state.keeper  # noqa: F401 - only to have it in memory

        tables = (self._options.devices, self._options.features)
        if any(path is not None and path.endswith(".parquet") for path in tables):
            import pyarrow.parquet  # noqa: F401 - likewise
        _peak_rss_bytes()  # imports, and a codec

    def keep_state(self, directory: Path, stack: contextlib.ExitStack) -> None:
        """Keep the state of the run in a directory, and go on from what is there. ConfigError, StateError."""
        from sensor.state.keeper import Keeper

        self._keeper = Keeper(directory, on_news=say, on_problem=self.report_problem)
        stack.callback(self._keeper.close)

    def judge(self, source: _Source, stack: contextlib.ExitStack) -> dict[str, Any]:
        """Judge all packets and write all outputs, of which ``stack`` takes care; return the totals."""
        import time

        from sensor.pipeline import Pipeline
        from sensor.replay import ReplayFiles

        options = self._options
        files = ReplayFiles(stack, "jsonl" if self._alert_format == "json" else "csv")
        on_window = None if options.features is None else files.open_table(options.features)
        on_events = None if options.events is None else files.open_events(options.events)
        write_devices = None if options.devices is None else files.open_table(options.devices)
        open_stats = files.open_json if source.stats_every_s is None else files.open_rewritten_json
        write_stats = None if options.stats is None else open_stats(options.stats)
        sinks = self._open_sinks(stack, may_wait=source.stats_every_s is None)
        if self._must_compile:
            self.warm_up()  # else the time for it would count as time for reading
        started = time.monotonic(), time.process_time()
        pipeline = self._begin(
            lambda: Pipeline(
                self.config,
                on_alert=self.emit,
                on_events=on_events,
                on_window=on_window,
                artifact=self._artifact,
            )
        )

        def current_totals() -> dict[str, Any]:
            state = {} if self._keeper is None else self._keeper.stats()
            totals = {**pipeline.stats(), **source.stats(), **state, "sinks": sinks.stats()}
            return _with_cost(totals, time.monotonic() - started[0], time.process_time() - started[1])

        _leave_alone_what_lasts()
        n_packets = 0
        stats_timer, status_timer = _Timer(source.stats_every_s), _Timer(source.status_every_s)
        if source.upkeep is not None:
            source.upkeep.begin()
        for batch in source.batches:
            pipeline.feed(batch)
            n_packets += len(batch.frames)
            self.progress.update(source.inputs.bytes_read, n_packets)
            if len(batch.frames) == 0:  # there is nothing more for now
                files.flush()
                if source.settled_ns is not None:
                    pipeline.advance(source.settled_ns())
            has_hung_up = source.take_hangup()
            self._look_after(sinks, has_hung_up=has_hung_up)
            if source.upkeep is not None:
                if has_hung_up:
                    self._reload(pipeline, source.upkeep)
                source.upkeep.turn(len(batch.frames), current_totals)
            if stats_timer.is_due() and write_stats is not None:
                write_stats(current_totals())
            if status_timer.is_due():
                self._say_status(current_totals())
            if self._keeper is not None:
                self._keeper.look_after(pipeline)
        if source.upkeep is not None:
            source.upkeep.end()
        pipeline.finish()
        if self._keeper is not None:
            self._keeper.finish(pipeline)
        self.progress.close()
        self._close(sinks)
        totals = current_totals()
        if write_devices is not None:
            write_devices(pipeline.device_table())
        if write_stats is not None:
            write_stats(totals)
        return totals

    def _reload(self, pipeline: Pipeline, upkeep: Upkeep) -> None:
        """Read configuration and model anew; if either is bad, both stay as they are."""
        from sensor.reload import merge

        try:
            with upkeep.reloading():
                read = _load_config(self._options.config_path, self._options.home_nets)
                artifact, before = _open_model(self._options.model_path), self._artifact
                config, changed, waiting = merge(self.config, read)
                if artifact is not None and before is not None and artifact.manifest == before.manifest:
                    artifact = before
                if artifact is not before:
                    changed.append("the model")
                pipeline.reconfigure(config, artifact)
        except SensorError as reason:
            say(f"reload: {reason}; everything stays as it was")
            return
        self.config, self._artifact = config, artifact
        say(f"reload: changed: {', '.join(changed) or 'nothing'}")
        if waiting:
            say(f"reload: takes effect at the next start: {', '.join(waiting)}")

    def _begin(self, new_pipeline: Callable[[], Pipeline]) -> Pipeline:
        """Return a new pipeline; or one that goes on from the run before, whose open alerts are said again."""
        if self._keeper is None:
            return new_pipeline()
        assert self._sinks is not None  # noqa: S101 - for the type checker
        pipeline, open_alerts = self._keeper.resume(new_pipeline)
        for alert in open_alerts:
            self._sinks.remind(alert)
        self._keeper.look_after(pipeline)
        return pipeline

    def _say_status(self, totals: Mapping[str, Any]) -> None:
        from sensor.console import status_line

        with self.progress.paused():
            say(status_line(totals))

    def _open_sinks(self, stack: contextlib.ExitStack, *, may_wait: bool) -> Sinks:
        from sensor.alerts.destinations import Sinks, Stdout

        stdout = Stdout(sys.stdout, self._alert_format, _wants_colour())
        sinks = self._sinks = Sinks(stdout, self.config.output, self._transports, may_wait=may_wait)

        def close(kind: type[BaseException] | None, *_: object) -> None:
            self._close(sinks, is_hurried=kind is not None and issubclass(kind, Interrupted))

        stack.push(close)
        return sinks

    def _look_after(self, sinks: Sinks, *, has_hung_up: bool) -> None:
        if has_hung_up:
            for problem in sinks.reopen():
                self.report_problem(problem)
        for line in sinks.news():
            with self.progress.paused():
                say(line)

    def _close(self, sinks: Sinks, *, is_hurried: bool = False) -> None:
        problems = sinks.close(is_hurried=is_hurried)
        self._look_after(sinks, has_hung_up=False)
        for problem in problems:
            self.report_problem(problem)

    def emit(self, alert: Alert) -> None:
        """Pass an alert to all sinks."""
        assert self._sinks is not None  # noqa: S101 - for the type checker: open before the first packet
        self._has_alert = self._has_alert or alert.event_type == "alert"
        self._n_started[alert.event_type] += alert.state == "started"
        with self.progress.paused():
            self._sinks.emit(alert)
        if self._keeper is not None:
            self._keeper.take(alert)

    def report_problem(self, problem: SensorError | str) -> None:
        """Say what could not be read or written; the rest of the run goes on."""
        self._has_problem = True
        with self.progress.paused():
            say(str(problem))

    def report_end(self, totals: Mapping[str, Any], received: int | None) -> None:
        """Say how the run ended; a summary and hints only beside text, which is for people."""
        from sensor.console import hint_lines, summary_lines

        if received is not None:
            name = signal.Signals(received).name
            say(f"ended by {name} after {totals['packets']:,} packets: what was read is judged")
        if self._alert_format == "text":
            for line in summary_lines(totals, self._n_started["alert"], self._n_started["review"]):
                say(line)
            for line in hint_lines(totals, self.config):
                say(f"hint: {line}")

    def exit_status(self, received: int | None, alert_status: int | None) -> int:
        """Return the exit status: a signal, then alerts if asked for, then problems."""
        if received is not None:
            return _EXIT_SIGNAL + received
        if alert_status is not None and self._has_alert:
            return alert_status
        return EXIT_FAILURE if self._has_problem else EXIT_OK


def _wants_colour() -> bool:
    """Colour for a terminal, unless NO_COLOR (no-color.org) or a dumb terminal says otherwise."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_list_format_option = click.option(
    "--format",
    "list_format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text: a table for people; json: for programs, one object a line.  [default: text]",
)


@main.command(epilog=_examples("spamsensor devices --state /var/lib/spamsensor"))
@_state_option
@_list_format_option
def devices(*, state_path: str | None, list_format: str) -> int:
    """List the devices that a sensor with --state knows.

    While the sensor runs, or after, the one seen last first. Each is as it was within the last minute or two. Devices
    that were not seen for more than a year are forgotten.
    """
    path = _database_of(state_path)

    from sensor.console import show_table
    from sensor.state.database import open_for_command
    from sensor.state.listing import DEVICE_COLUMNS, device_json, device_rows

    with open_for_command(path) as database:
        found = database.devices()
    if not found:
        say("no devices yet: they are written each minute, and when the sensor ends")
    elif list_format == "text":
        show_table(DEVICE_COLUMNS, device_rows(found))
    for device in found if list_format == "json" else ():
        click.echo(device_json(device))
    return EXIT_OK


@main.group(
    invoke_without_command=True,
    epilog=_examples(
        "spamsensor alerts --state /var/lib/spamsensor",
        "spamsensor alerts close 5f0c9a1e22b7d431 --state /var/lib/spamsensor",
        "spamsensor alerts label 5f0c9a1e22b7d431 benign --reason 'the new scanner' --state /var/lib/spamsensor",
    ),
)
@_state_option
@click.option(
    "--follow",
    is_flag=True,
    help="Go on with alerts as they start, change and end, until SIGINT.  [default: end with those there are]",
)
@click.option(
    "--all",
    "has_all",
    is_flag=True,
    help="Alerts that ended, were closed or got lost, and reviews, too.  [default: open alerts]",
)
@_list_format_option
@click.pass_context
def alerts(
    context: click.Context, *, state_path: str | None, follow: bool, has_all: bool, list_format: str
) -> int | None:
    """List the alerts of a sensor with --state.

    While the sensor runs, or after. An alert is lost if the sensor was killed before the alert was in the checkpoint,
    too, or the checkpoint cannot be used: no sensor goes on with it, and if the device goes on, that is a new alert.
    """
    if context.invoked_subcommand is not None:
        return None
    path = _database_of(state_path)

    from sensor.console import show_table
    from sensor.state.database import open_for_command
    from sensor.state.listing import ALERT_COLUMNS, alert_rows

    with open_for_command(path) as database:
        found = database.alerts()
        listed = [kept for kept in found if has_all or kept.is_open]
        if list_format == "text" and not follow:
            if listed:
                show_table(ALERT_COLUMNS, alert_rows(listed))
            else:
                say("no alerts" if has_all else "no open alerts; --all shows those that are over")
            return EXIT_OK
        _print_alerts(listed, list_format)
        while follow:
            import time

            time.sleep(_FOLLOW_ALERTS_S)
            last = max((kept.revision for kept in found), default=0)
            changed = database.alerts(after=last)
            _print_alerts(
                [kept for kept in changed if has_all or kept.alert.event_type == "alert"], list_format
            )
            found = changed or found
    return EXIT_OK


def _print_alerts(found: Iterable[KeptAlert], list_format: str) -> None:
    from sensor.state.listing import alert_json, changed_text

    for kept in found:
        click.echo(alert_json(kept) if list_format == "json" else changed_text(kept))


@alerts.command(epilog=_examples("spamsensor alerts close 5f0c9a1e22b7d431 --state /var/lib/spamsensor"))
@click.argument("alert_id", metavar="ID")
@_state_option
def close(*, alert_id: str, state_path: str | None) -> int:
    """Say that an alert is dealt with: it is not listed any more.

    A sensor that runs ends it within a minute, and needs new evidence to accuse the device again.
    """
    import time

    path = _database_of(state_path)

    from sensor.state.database import open_for_command

    with open_for_command(path, may_write=True) as database:
        database.close_alert(alert_id, _operator(), time.time_ns())
    say(f"{alert_id}: closed")
    return EXIT_OK


@alerts.command(
    "label",
    epilog=_examples(
        "spamsensor alerts label 5f0c9a1e22b7d431 benign --reason 'sends the newsletter' --expires 2027-06-30 "
        "--state /var/lib/spamsensor"
    ),
)
@click.argument("alert_id", metavar="ID")
@_label_options
def label_alert(*, alert_id: str, **options: Any) -> int:
    """Say what the device of an alert is. The latest label of a device counts, until it expires.

    benign: a sensor that runs with DIR takes it as an exception within a minute: none of the device's mail is
    evidence. A device that is known as an address in a VLAN is labelled only, since exceptions know no VLANs. infected:
    is shown, and takes a benign label back.
    """
    return _label(lambda database, *said: database.add_label(alert_id, *said), **options)


@main.command(
    "label",
    epilog=_examples(
        "spamsensor label 00:1b:a9:12:34:56 benign --reason 'the new scanner' --state /var/lib/spamsensor",
        "spamsensor label 192.168.1.23 infected --state /var/lib/spamsensor",
    ),
)
@click.argument("device")
@_label_options
def label_device(*, device: str, **options: Any) -> int:
    """Say what a device is, by its key or one of its addresses as `spamsensor devices` lists them.

    As `alerts label`, for a device without an alert.
    """
    return _label(lambda database, *said: database.label_device(device, *said), **options)


def _label(
    add: Callable[..., str],
    *,
    verdict: Literal["benign", "infected"],
    state_path: str | None,
    reason: str,
    expires: str | None,
) -> int:
    """Label a device with what ``add`` of the database does, which returns its key."""
    import time

    path = _database_of(state_path)
    now_ns = time.time_ns()
    expires_ns = _moment_of(expires, now_ns)

    from sensor.notation import day_and_second, eve_time
    from sensor.state.database import open_for_command

    with open_for_command(path, may_write=True) as database:
        device = add(database, verdict, reason, _operator(), now_ns, expires_ns)
    is_silent = verdict == "benign" and "@" in device
    effect = ", without effect on verdicts: it is known by an address in a VLAN" if is_silent else ""
    say(f"{device}: labelled {verdict} until {day_and_second(eve_time(expires_ns))}{effect}")
    return EXIT_OK


def _database_of(state_path: str | None) -> Path:
    parent = click.get_current_context().parent
    if state_path is None and parent is not None:
        state_path = parent.params.get("state_path")  # alerts --state DIR close ID
    if state_path is None:
        raise ConfigError("no directory given: name the one of watch with --state")

    from sensor.state.files import DATABASE

    return Path(state_path) / DATABASE


def _operator() -> str:
    """Return the name of whoever runs this, also through sudo."""
    import pwd

    with contextlib.suppress(KeyError):
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return f"user {os.getuid()}"


def _moment_of(text: str | None, now_ns: int) -> int:
    """Return when a label expires, in nanoseconds since the Unix epoch; ConfigError for what is no time to come."""
    if text is None:
        return now_ns + _LABEL_NS
    from datetime import date, datetime

    from sensor.config import Instant

    try:
        try:
            moment = Instant(date.fromisoformat(text))
        except ValueError:
            moment = Instant(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--expires {visible(text)}: expected a date or date-time such as 2027-06-30"
        ) from None
    if moment.ns <= now_ns:
        raise ConfigError(f"--expires {visible(text)}: is over")
    return min(moment.ns, (1 << 63) - 1)


@main.command(
    epilog=_examples("spamsensor decode monday.pcap | less", "spamsensor decode monday.pcap --packet 17")
)
@click.argument("capture", metavar="CAPTURE", required=False)
@_config_option
@click.option(
    "--packet",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show the columns and the bytes of packet N, counted from 1.  [default: one line per packet]",
)
def decode(capture: str | None, config_path: str | None, number: int | None) -> int:
    """Show what decoding makes of the packets of a capture, for debugging.

    Without --packet: number, time, length and status of each packet, and the addresses of mail, DNS, ARP and
    DHCP. With it, the bytes are shown as they are: content and passwords, too.
    """
    if capture is None:
        raise ConfigError("no capture given: name one file, or '-' for standard input")
    config = _load_config(config_path, ())

    from sensor.capture.merge import open_captures
    from sensor.dump import packet_detail, packet_lines

    if _must_compile():
        say(_COMPILING)

    problems: list[str] = []

    def on_problem(problem: CaptureError | str) -> None:
        problems.append(str(problem))
        say(str(problem))

    with contextlib.closing(open_captures([capture], on_problem=on_problem)) as batches:
        if number is None:
            lines: Iterable[str] = packet_lines(batches, config.mail_ports)
        else:
            lines = packet_detail(batches, number, config.mail_ports)
            if not lines:
                _no_such_packet(capture, number)
        for line in lines:
            click.echo(line)
    return EXIT_FAILURE if problems else EXIT_OK


def _no_such_packet(capture: str, number: int) -> NoReturn:
    raise CaptureError(f"{capture}: there is no packet {number}")


@main.command(
    epilog=_examples(
        "spamsensor simulate --world realistic --devices 500 --days 7 --seed 1 --out data/realistic-1",
        "spamsensor simulate --world hostile --cold --devices 2000 --seed 1 --pcap --out data/cold-1",
    )
)
@click.option(
    "--world",
    "world_name",
    type=click.Choice(["tame", "realistic", "hostile"]),
    default="realistic",
    help="How widely devices differ, how much goes wrong for harmless ones, and how well attackers hide.  "
    "[default: realistic]",
)
@click.option(
    "--devices",
    "n_devices",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    default=1000,
    help="Devices, over as many sites as they fill.  [default: 1000]",
)
@click.option(
    "--days",
    type=click.FloatRange(0.1, 400),
    metavar="D",
    help="Days that each site is watched.  [default: 7]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    metavar="S",
    default=1,
    help="The same seed gives the same files, bit for bit.  [default: 1]",
)
@click.option(
    "--out", metavar="DIR", help="A new or empty directory to write to.  [default: none; it must be given]"
)
@click.option(
    "--cold",
    is_flag=True,
    help="Short captures without a past, of 10 minutes to 6 hours.  [default: whole days]",
)
@click.option(
    "--pcap",
    is_flag=True,
    help="Render packets, too: of cold captures, or of the beginning of every 8th site.  [default: sessions only]",
)
@_jobs_option
def simulate(
    *,
    world_name: str,
    n_devices: int,
    days: float | None,
    seed: int,
    out: str | None,
    cold: bool,
    pcap: bool,
    jobs: int,
) -> int:
    """Make up a labelled population of devices, benign and infected, to train and test on.

    DIR gets labels.tsv, manifest.json and a file of sessions for each site; docs/simulation.md describes the
    worlds and the files.
    """
    if out is None:
        raise ConfigError("no directory given: name a new or empty one with --out")
    if cold and days is not None:
        raise ConfigError("--days and --cold exclude each other: cold captures last 10 minutes to 6 hours")

    from sensor.notation import counted
    from sensor.simulate.store import write_world
    from sensor.simulate.world import WORLDS, Plan

    plan = Plan(WORLDS[world_name], seed, n_devices, 7.0 if days is None else days, cold)
    manifest = write_world(plan, Path(out), with_pcap=pcap, n_processes=jobs)
    n_sessions = sum(site["sessions"] for site in manifest["sites"])
    parts = [(n_devices, "device"), (len(manifest["sites"]), "site"), (n_sessions, "session")]
    say(f"{', '.join(counted(n, what) for n, what in parts)} in {out}")
    return EXIT_OK


@main.command(
    epilog=_examples("spamsensor train --data data/realistic-1 --data data/cold-1 --out models/site")
)
@_data_option
@click.option(
    "--out", metavar="DIR", help="A new or empty directory to write to.  [default: none; it must be given]"
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    metavar="S",
    default=1,
    help="The same data, seed and versions give the same files, bit for bit.  [default: 1]",
)
@click.option(
    "--state",
    "state_paths",
    metavar="DIR",
    multiple=True,
    help="Learn besides from the devices that operators have labelled, in the directory of watch --state; may be given "
    "several times.",
)
@_jobs_option
def train(
    *, data: tuple[str, ...], out: str | None, seed: int, state_paths: tuple[str, ...], jobs: int
) -> int:
    """Fit a model to simulated worlds, and calibrate its threshold on sites that it has not seen.

    DIR gets model.npz and manifest.json. A labelled device weighs as much as 20 simulated ones; the thresholds are
    those of simulated devices, until spamsensor calibrate. Needs the extra: pip install 'spamsensor[train]'.
    """
    if out is None or not data:
        raise ConfigError("no data or no directory to write to: name them with --data and --out")
    _require_training()

    from sensor.model.artifact import write_artifact
    from sensor.notation import counted
    from sensor.training.fit import train as fit
    from sensor.training.labels import read_labels
    from sensor.training.traces import collect, describe_data

    directory, worlds = Path(out), [Path(path) for path in data]
    labels = read_labels([_database_of(path) for path in state_paths]) if state_paths else None
    if labels is not None:
        of = labels[1]
        say(f"{counted(of.benign, 'device')} labelled benign, {of.infected} infected, to learn from")
    _make_directory(directory)
    artifact = fit(
        collect(worlds, n_processes=jobs),
        directory.name,
        seed,
        describe_data(worlds),
        labels=labels,
        n_threads=jobs,
    )
    artifact = write_artifact(directory, artifact)
    thresholds = ", ".join(f"{t.evidence:.1f} for {t.budget:g}" for t in artifact.manifest.thresholds)
    say(f"{len(artifact.trees.roots)} trees in {out}; evidence by budget: {thresholds}")
    return EXIT_OK


@main.command(
    epilog=_examples("spamsensor calibrate --state /var/lib/spamsensor --out /etc/spamsensor/model")
)
@_state_option
@_model_option
@click.option(
    "--out", metavar="DIR", help="A new or empty directory to write to.  [default: none; it must be given]"
)
def calibrate(*, state_path: str | None, model_path: str | None, out: str | None) -> int:
    """Fit the thresholds of a model to a site, by the weeks that a sensor with --state has watched.

    Of each device, each week that is over counts with the most evidence that there was against it. Left out are weeks
    in which an alert on the device was open, unless it is labelled benign, and devices that are labelled infected. If
    watch used another model than the one that comes along, name it; of a calibrated one, that it was made from. What is
    written is a model for watch --model.
    """
    path = _database_of(state_path)
    if out is None:
        raise ConfigError("no directory to write to: name one with --out")
    artifact = _open_model(model_path)
    if artifact is None:
        raise ConfigError("there is no model: name one with --model")

    import numpy as np

    from sensor.console import show_table
    from sensor.model.artifact import write_artifact
    from sensor.model.calibrate import calibrate as fit
    from sensor.notation import counted, eve_time
    from sensor.pipeline import model_id
    from sensor.state.database import open_for_command
    from sensor.state.weeks import WEEK_NS

    with open_for_command(path) as database:
        weeks = [week for week in database.weeks(model_id(artifact)) if week.is_whole]
    harmless = [week for week in weeks if week.is_harmless]
    n_devices = len({week.device for week in harmless})
    say(f"{counted(len(harmless), 'harmless device-week')} of {counted(n_devices, 'device')}")
    if len(harmless) < len(weeks):
        left_out = counted(len(weeks) - len(harmless), "device-week")
        say(f"left out: {left_out} with an open alert, or of an infected device")
    peaks = np.array([(week.of_index, week.of_model) for week in harmless]).reshape(-1, 2)
    until = eve_time((max((week.week for week in harmless), default=0) + 1) * WEEK_NS)
    may_lower = not any(week.is_accused and week.label is None for week in weeks)
    calibrated, found = fit(artifact, peaks, until, may_lower=may_lower)
    directory = Path(out)
    _make_directory(directory)
    write_artifact(directory, calibrated)
    show_table(
        ("false alarms a device-year", "device-weeks over it", "allowed", "threshold"),
        [
            (
                f"{of.budget:g}",
                str(of.n_over),
                str(of.n_allowed) if of.factor is not None else "too few weeks",
                f"x {of.factor:.2f}" if of.factor is not None else "as it came, or as above",
            )
            for of in found
        ],
    )
    say(f"a model for watch --model in {out}")
    return EXIT_OK


@main.command(
    epilog=_examples("spamsensor evaluate --data data/realistic-2 --model models/site --out build/quality")
)
@_data_option
@_model_option
@_config_option
@click.option(
    "--learned-from",
    metavar="DIR",
    multiple=True,
    help="A world that the model learned from; may be given several times. Then families are left out of the training "
    "in turn, to measure how well an unknown one is found, and novelty detectors stand beside.",
)
@click.option("--out", metavar="DIR", help="A directory to write to.  [default: none; it must be given]")
@_jobs_option
def evaluate(
    *,
    data: tuple[str, ...],
    model_path: str | None,
    config_path: str | None,
    learned_from: tuple[str, ...],
    out: str | None,
    jobs: int,
) -> int:
    """Measure a model on simulated worlds: recall and delay by family, false alarms by kind.

    DIR gets evaluation.json, MODEL_CARD.md and its pictures. Worlds with the seeds of the training say nothing: take
    others.
    """
    if out is None or not data:
        raise ConfigError("no data or no directory to write to: name them with --data and --out")
    _require_training()
    artifact = _open_model(model_path)
    if artifact is None:
        raise ConfigError("no model came with this program: name one with --model")
    asked = _load_config(config_path, ()).budget.false_alarms_per_device_year

    from sensor.training.card import write_card
    from sensor.training.detectors import novelty
    from sensor.training.evaluate import evaluate as measure
    from sensor.training.left_out import leave_out_each
    from sensor.training.traces import collect, describe_data

    worlds = [Path(path) for path in data]
    directory = Path(out)
    _make_directory(directory, must_be_empty=False)
    known = collect([Path(path) for path in learned_from], n_processes=jobs)
    traces = collect(worlds, n_processes=jobs)
    attained = artifact.attained(asked)
    budgets = [asked, *sorted(t.budget for t in artifact.manifest.thresholds if t.budget != attained)]
    novel = novelty(known, artifact.manifest.seed) if known else []
    kinds = sorted({trace.world.split()[0] for trace in traces}, reverse=True)
    result = {
        "data": describe_data(worlds),
        "worlds": [
            measure([trace for trace in traces if trace.world.startswith(kind)], artifact, budgets, novel)
            for kind in kinds
        ],
        "left_out": leave_out_each(
            known, [trace for trace in traces if trace.world.startswith(kinds[0])], artifact, asked, jobs
        )
        if known
        else None,
    }
    write_card(directory, artifact, result)
    say(f"written to {out}: evaluation.json, MODEL_CARD.md")
    return EXIT_OK


def _require_training() -> None:
    from importlib.util import find_spec

    for module, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if find_spec(module) is None:
            raise ModelError(f"{package} is not installed: pip install 'spamsensor[train]'")


def _make_directory(directory: Path, *, must_be_empty: bool = True) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if must_be_empty and any(directory.iterdir()):
            raise ConfigError(f"{directory}: is not empty: name a new directory")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror}") from None


@main.command(epilog=_examples("spamsensor check", "spamsensor check --config site.toml"))
@_config_option
@_home_net_option
def check(config_path: str | None, home_nets: tuple[str, ...]) -> int:
    """Validate the configuration, and say what it means, the memory it takes, and what is missing."""
    import time

    config = _load_config(config_path, home_nets)
    _prepare_transports(config, config_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        must_compile = _must_compile()

    from sensor.config import describe
    from sensor.pipeline import memory_plan

    lines = [("configuration", config_path or "none: the defaults"), *describe(config, time.time_ns())]
    lines.append(("model", _describe_model(_open_model(None), config)))
    lines.append(("registries", _describe_registries()))
    plan = memory_plan(config)
    lines.append(("memory", f"{_mib(sum(plan.values()))} for tables, allocated at the start, as follows"))
    lines += [("", f"{_mib(size):>12}  {name}") for name, size in sorted(plan.items(), key=_by_size)]
    missing = [str(warning.message) for warning in caught]
    if must_compile and not missing:
        missing.append("compiled kernels: the next run compiles them, which takes two minutes or so")
    lines += [("missing" if row == 0 else "", text) for row, text in enumerate(missing or ["nothing"])]
    for label, text in lines:
        click.echo(f"{label:<15}{text}".rstrip())
    return EXIT_OK


def _describe_model(artifact: Artifact | None, config: Config) -> str:
    if artifact is None:
        return "none: the index and the rules alone"
    budget = config.budget.false_alarms_per_device_year
    attained = artifact.attained(budget)
    promise = f"calibrated for {attained:g} false alarms a device-year, in simulation"
    short = "" if attained <= budget else f"; the budget of {budget:g} is less than was calibrated"
    return f"{artifact.manifest.name}, {len(artifact.trees.roots)} trees, {promise}{short}"


def _describe_registries() -> str:
    """Say which versions of the data there are by which devices and mail operators are told."""
    from importlib.metadata import version

    from sensor.devices.kinds import load_rules

    vendors, suffixes = (f"{name} {version(name)}" for name in ("netaddr", "publicsuffixlist"))
    return (
        f"vendors by {vendors}, mail operators by {suffixes}, kinds of devices by {len(load_rules())} rules"
    )


def _by_size(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):,.1f} MiB"


@main.command(epilog=_examples("spamsensor schema alert > alert.schema.json"))
@click.argument("record", type=click.Choice(["alert"]))
def schema(record: str) -> int:  # noqa: ARG001 - one kind of record so far
    """Print the JSON Schema (draft 2020-12) of a record of --format json."""
    import json

    from sensor.alerts.formats import alert_schema

    click.echo(json.dumps(alert_schema(), indent=2))
    return EXIT_OK
