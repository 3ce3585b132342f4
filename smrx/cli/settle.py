"""`smrx settle`: the verifier outside the cluster. Parses, runs, prints; the work is in smrx/settlement."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec

from smrx.cli import options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure
from smrx.cli.settle_report import report
from smrx.config import Config, ConfigError, SinkConfig

if TYPE_CHECKING:
    from rich.text import Text

    from smrx.client.asker import Ask
    from smrx.settlement.alarms import Alarms
    from smrx.settlement.runner import Settlement as Running
    from smrx.settlement.runner import Summary
    from smrx.settlement.settling import Settling
    from smrx.settlement.sinks.base import Sink

_EXITS = {
    "GapUnfillable": Exit.GAP,
    "FeedConflict": Exit.DIVERGED,
    "Disagreement": Exit.DIVERGED,
    "Violation": Exit.DIVERGED,
    "BalanceDifference": Exit.BALANCE,
    "Unattested": Exit.UNATTESTED,
    "SinkError": Exit.SINK,
    "SinkMismatch": Exit.SINK,
    "NotConnected": Exit.UNAVAILABLE,
}

#: Nodes say something twice a second.
_SILENT_SECONDS = 2.0
#: How often a pause is interrupted to see whether the run is to end.
_SLICE_SECONDS = 0.05
#: How long a node may take to say its balances.
_ASK_SECONDS = 1.0


@click.group()
def settle() -> None:
    """Verify the event feed and keep the books outside the cluster."""


def _follow_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that follows the feed."""
    for option in (
        click.option("--until-sequence", type=click.IntRange(min=1), help="End once this event is verified."),
        click.option(
            "--idle", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds without an event."
        ),
        click.option("--nodes", help="Node ids to listen to, such as 1,3: a majority; all of them by default."),
        click.option(
            "--connect-timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=10.0,
            show_default=True,
            help="Seconds to wait for the first sign of a node.",
        ),
    ):
        command = option(command)
    return command


@settle.command()
@click.option(
    "--out", help="A .csv file, or the directory of settled_trades.csv, in place of the configuration's sinks."
)
@click.option(
    "--join",
    is_flag=True,
    help="Where nothing is settled yet, begin now, with the state that a majority of the nodes gives alike, instead of "
    "with event 1.",
)
@_follow_options
@click.option(
    "--sink-patience",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds a sink that fails is tried again before the run ends.",
)
@options.config_option
@options.json_option
def run(
    out: str | None,
    join: bool,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    sink_patience: float,
    as_json: bool,
) -> None:
    """Prove that no event is missing, keep the books, and store every trade once.

    Goes on where the last run ended, settles only what a majority of the nodes has published alike, asks again for what
    was lost, and goes on until it is stopped. Where the nodes no longer hold event 1, --join begins with their state as
    it is: the books then say after which event they begin and which nodes attested it. Exit codes: 5 for a gap that no
    node can fill, 6 for nodes or events that contradict each other, 8 for balances that differ, 9 for a sink, 10 for
    events or an opening state without a majority, 3 if no node is heard.

    \b
    Example:
      smrx settle run --out settled --idle 5
    """
    from smrx.client.asker import asker
    from smrx.settlement.alarms import Alarms
    from smrx.settlement.metrics import Metrics
    from smrx.settlement.runner import Settlement as Running
    from smrx.settlement.settling import Settling
    from smrx.settlement.sinks import make_sinks

    config = _placed(options.config(), out)
    _compile()
    with ExitStack() as stack:
        stop = stack.enter_context(_stopping())
        metrics = Metrics(lambda: running.gauges() if running else {})
        running: Running | None = None
        alarms = Alarms(config.cluster, config.settlement.hook, metrics.alarm)
        stack.callback(alarms.close)
        patience = _Patience(stop, sink_patience, alarms)
        with _told_as_failure():
            sinks = make_sinks(config)
        settling = Settling(config.cluster, config.settlement.directory, sinks, patience.around)
        stack.callback(settling.close)
        with _told_as_failure():
            settling.open()
        patience.begun = True
        ask = stack.enter_context(asker(config, _ASK_SECONDS))
        if join and not settling.has_books:
            with _told_as_failure():
                _join(config, settling, alarms, _node_ids(nodes), ask, connect_timeout, stop)
        running = _running(config, settling, alarms, _node_ids(nodes), ask)
        stack.callback(running.close)
        if config.settlement.metrics_port is not None:
            metrics.serve(config.settlement.metrics_port)
            stack.callback(metrics.close)
        failure = _follow(running, stop, until_sequence, idle, connect_timeout)
        _finish(running.summary([sink.name for sink in sinks]), failure, as_json)


@settle.command()
@click.option(
    "--out", help="A .csv file, or the directory of settled_trades.csv, in place of the configuration's sinks."
)
@click.option("--from-nodes", is_flag=True, help="Derive everything from the nodes' events instead of the sinks' rows.")
@_follow_options
@options.config_option
@options.json_option
def verify(
    out: str | None,
    from_nodes: bool,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    as_json: bool,
) -> None:
    """Derive the books from scratch, and compare them with what is stored.

    Reads every trade and movement of each sink: match ids without a gap, notional and fees by the instrument's rules,
    and what they add up to against the books of the checkpoint. With --from-nodes reads every event from the first on
    from the nodes instead, as far as the checkpoint, and compares every stored trade with it.

    \b
    Example:
      smrx settle verify --out settled
    """
    from smrx.settlement import verify as verifying

    config = _placed(options.config(), out)
    _compile()
    with _stopping() as stop, _told_as_failure():
        if from_nodes:
            found = verifying.from_nodes(
                config,
                node_ids=_node_ids(nodes),
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_timeout,
            )
        else:
            found = verifying.from_sinks(config)
    if as_json:
        output.print_json(msgspec.to_builtins(found))
        return
    for line in found.lines():
        click.echo(line)


def _compile() -> None:
    """The first run on a machine compiles the books, before anything waits for them, and says so."""
    from smrx.settlement.books.entry import compiled_before, warm_up

    if not compiled_before():
        click.echo("compiling the books (once on this machine; some ten seconds)", err=True)
    warm_up()


def _join(
    config: Config,
    settling: "Settling",
    alarms: "Alarms",
    nodes: list[int] | None,
    ask: "Ask",
    seconds: float,
    stop: "_Stop",
) -> None:
    """Begin the books with the state of the cluster."""
    from smrx.settlement.joining import Joining

    settling.check_empty()
    joining = Joining(config, nodes or [node.id for node in config.nodes], ask, alarms)
    settling.join(*joining.take(seconds, stop))
    click.echo(str(settling.origin), err=True)


class _Patience:
    """Makes sinks try again, and says so, until the run is to end or patience has."""

    def __init__(self, stop: "_Stop", seconds: float, alarms: object) -> None:
        self.begun = False
        self._stop, self._seconds, self._alarms = stop, seconds, alarms
        self._since: float | None = None

    def around(self, sink: "Sink") -> "Sink":
        """The sink, made patient."""
        from smrx.settlement.alarms import AlarmCode, Alarms
        from smrx.settlement.sinks.retrying import Recovery, RetryingSink, Trouble

        alarms = self._alarms
        assert isinstance(alarms, Alarms)

        def trouble(found: Trouble) -> None:
            if self.begun and found.attempt == 1:
                alarms.say(AlarmCode.SINK_FAILED, f"{found.sink}: {found.error}; trying again")

        def recovery(found: Recovery) -> None:
            self._since = None
            alarms.say(AlarmCode.SINK_RECOVERED, f"{found.sink}: works again after {found.seconds:.1f} s")

        return RetryingSink(sink, wait=self._wait, on_trouble=trouble, on_recovery=recovery)

    def _wait(self, seconds: float) -> bool:
        """Pause; True to give up: what cannot be opened at the start is the operator's to see at once."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        until = min(now + seconds, self._since + self._seconds)
        while self.begun and not self._stop() and (now := time.monotonic()) < until:
            time.sleep(min(_SLICE_SECONDS, until - now))
        return not self.begun or self._stop() or now >= self._since + self._seconds


def _placed(config: Config, out: str | None) -> Config:
    """The configuration, with one CSV sink and a directory for the checkpoint where --out says so."""
    if out is None:
        return config
    path = Path(out).expanduser().absolute()
    single = path.suffix.lower() == ".csv" and not path.is_dir()
    directory = path.with_name(f"{path.stem}-settlement") if single else path / "settlement"
    sinks = (SinkConfig(kind="csv", path=str(path)),)
    settlement = msgspec.structs.replace(config.settlement, directory=str(directory), sinks=sinks)
    return msgspec.structs.replace(config, settlement=settlement)


def _running(config: Config, settling: object, alarms: object, nodes: list[int] | None, ask: object) -> "Running":
    from smrx.settlement.runner import Settlement as Running

    try:
        return Running(config, settling, alarms, node_ids=nodes, ask=ask)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"--nodes: {error}") from None


def _follow(
    running: "Running", stop: "_Stop", until_sequence: int | None, idle: float | None, connect_timeout: float
) -> Exception | None:
    """Run to the end; return what ended it, None if all is well."""
    from smrx.feed.sequencer import FeedError
    from smrx.settlement.errors import SettlementError

    try:
        with _live(running) as on_turn:
            running.run(
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_timeout,
                on_turn=on_turn,
            )
    except (FeedError, SettlementError) as error:
        return error
    return None


@contextmanager
def _told_as_failure() -> Iterator[None]:
    """Turn what ends settlement into one sentence and its exit code."""
    from smrx.feed.sequencer import FeedError
    from smrx.settlement.errors import SettlementError

    try:
        yield
    except (FeedError, SettlementError) as error:
        raise Failure(_EXITS[type(error).__name__], str(error)) from error


class _Stop:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Be the handler of a signal."""
        self.asked = True


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """SIGINT and SIGTERM end the run cleanly while this is open."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _node_ids(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected node ids such as 1,3, found {text!r}", param_hint="--nodes") from None


@contextmanager
def _live(running: "Running") -> Iterator[Callable[[], None] | None]:
    """A line that shows what is going on, on a terminal; nothing in a pipe. Yields what brings it up to date."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield lambda: live.update(_line(running))


def _line(running: "Running") -> "Text":
    """What is going on, in one line."""
    from rich.text import Text

    feed, sequencer, quorum = running.subscriber.feed_stats, running.subscriber.sequencer, running.quorum
    lag = max(0, sequencer.known - running.sequence)
    by = ",".join(map(str, quorum.attested_by)) or "nobody"
    silence = running.silence()
    parts = [
        f"settled {running.sequence:,}",
        f"lag {lag:,}",
        f"{running.settling.ledger.trades:,} trades",
        f"{running.rate():,.0f} events/s",
        f"gaps healed {feed.gaps_healed} of {feed.gaps}",
        f"attested by {by}",
    ]
    if running.settling.origin is not None:
        parts.insert(1, f"begins after {running.settling.origin.event_sequence:,}")
    if quorum.unverified:
        parts.append(f"unverified {quorum.unverified:,}")
    if running.alarms.count:
        parts.append(f"alarms {running.alarms.count}")
    if silence >= _SILENT_SECONDS:
        parts.append(f"no node heard for {silence:.0f} s")
    return Text(" · ".join(parts), no_wrap=True)


def _finish(summary: "Summary", failure: Exception | None, as_json: bool) -> None:
    """Print what was proved, and fail if that was not all."""
    code = Exit.OK if failure is None else _EXITS[type(failure).__name__]
    message = str(failure)
    if code is Exit.GAP and not summary.sequence:
        message += "; to begin with the state of now instead of event 1, add --join"
    if as_json:
        told = {"error": None if failure is None else message, "exit_code": int(code)}
        output.print_json(msgspec.to_builtins(summary) | told)
    elif code is not Exit.UNAVAILABLE:
        _print(summary, failure)
    if failure is not None:
        raise Failure(code, message) from failure


def _print(s: "Summary", failure: Exception | None) -> None:
    if s.sequence:
        event, command = (s.origin.event_sequence, s.origin.command_sequence) if s.origin is not None else (0, 0)
        if s.sequence > event:
            what = f"events {event + 1:,} to {s.sequence:,}, commands {command + 1:,} to {s.command_sequence:,}"
            click.echo(f"verified   {what}, none missing")
        else:
            click.echo(f"verified   nothing yet: there were no events after {event:,}")
        if s.origin is not None:
            click.echo(f"begins     {s.origin}")
    else:
        click.echo("verified   nothing: there were no events")
    trades = s.trades - (s.origin.match_id if s.origin is not None else 0)
    click.echo(f"settled    {trades:,} trades, {s.trades_written:,} of them in this run, to {', '.join(s.out)}")
    by = f"nodes {', '.join(map(str, s.attested_by))}" if s.attested_by else "nobody"
    click.echo(f"attested   by {by}; {s.balances_compared:,} times their balances were those of the books")
    if s.unverified:
        click.echo(f"unverified {s.unverified:,} events after {s.sequence:,}")
    if s.excluded:
        click.echo(f"excluded   nodes {', '.join(map(str, s.excluded))}, which contradicted the others")
    if s.known_sequence > s.sequence:
        click.echo(f"not seen   events {s.sequence + 1:,} to {s.known_sequence:,}")
    click.echo(
        f"feed       {s.gaps_healed:,} of {s.gaps:,} gaps healed, {s.retransmitted:,} events retransmitted, "
        f"{s.duplicates:,} duplicates dropped, {s.garbage_frames:,} garbage frames ignored"
    )
    click.echo(
        f"order      {s.reordered_frames:,} frames out of order put in their place, {s.duplicate_frames:,} frames sent "
        "twice dropped"
    )
    if failure is None:
        owned = ", ".join(f"{asset} {amount:,}" for asset, amount in s.supply.items()) or "nothing"
        click.echo(f"books      {s.accounts:,} accounts own deposits less withdrawals exactly: {owned} (minimal units)")
    click.echo(f"time       {s.seconds:,.1f} s, {s.events_per_second:,.0f} events/s")


settle.add_command(report)
