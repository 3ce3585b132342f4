"""`smrx settle`: the group, and `smrx settle run`, which follows the feed. Parses, runs, prints.

`smrx settle verify` and `smrx settle report` are in settle_stored_commands.py.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.cli.settle_shared import (
    EXIT_CODES,
    StopRequest,
    compile_books,
    compile_history,
    config_with_history,
    config_with_out,
    errors_as_cli_errors,
    follow_options,
    out_option,
    parse_node_ids,
    stop_on_signals,
)
from smrx.cli.settle_stored_commands import report, verify
from smrx.config import Config, ConfigError
from smrx.sinks.sink_errors import SinkFault

if TYPE_CHECKING:
    from rich.text import Text

    from smrx.client.admin_client import Ask
    from smrx.follower.alarms import Alarms
    from smrx.settlement.settlement_run import LedgerRunner, LedgerSettler, Summary

#: Nodes publish at least twice per second; after this time they count as silent.
_SILENT_SECONDS: Final = 2.0
#: Timeout of a query for balances.
_ASK_SECONDS: Final = 1.0


@click.group()
def settle() -> None:
    """Verify the event feed and settle trades outside the cluster.

    \b
    Example:
      smrx settle run --out settled --idle 5
      smrx settle verify --out settled
      smrx settle report --out settled
    """


@settle.command()
@out_option
@click.option(
    "--join",
    is_flag=True,
    help="If nothing is settled yet, start with the present state of the cluster, attested by a majority of the nodes, "
    "instead of with event 1.",
)
@click.option(
    "--from-log",
    "log_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="First settle the events that the log in this data directory of a stopped node leads to, if a majority of the "
    "nodes attests the end of the log. For events that no node holds any more.",
)
@click.option(
    "--history",
    metavar="DIR",
    help="Also store the history of every order in this directory; `smrx history` reads it. It begins with event 1.",
)
@follow_options
@click.option(
    "--sink-timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to retry a failing sink before the run stops.",
)
@options.cluster_option
@options.json_option
def run(
    out: str | None,
    join: bool,
    log_dir: Path | None,
    history: str | None,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    sink_timeout: float,
    as_json: bool,
) -> None:
    """Verify that no event is missing, keep the books, and store every trade once.

    Continues after the last settled event and runs until it is stopped. SIGTERM, SIGINT and SIGHUP stop it cleanly, and
    stderr names the one that did; under nohup it ignores SIGHUP.

    Settles only events that a majority of the nodes has published identically, and requests missing events from
    the nodes. If the nodes no longer hold event 1, --join starts with their present state; the books then record the
    event they start after and the nodes that attested it. --from-log reads missing events from the journal of a
    stopped node.

    Exit codes: 3 if no node answers, 5 for a gap that no node can fill, 6 if nodes, events or a log contradict each
    other, 8 if balances differ, 9 for a sink, 10 if events, a state image or a log have no majority.

    \b
    Example:
      smrx settle run --out settled --idle 5
    """
    from smrx.client.admin_client import open_admin_client
    from smrx.follower.alarms import Alarms
    from smrx.follower.retry_policy import RetryPolicy
    from smrx.history.history_store import HistoryStore
    from smrx.settlement.settlement_metrics import Metrics
    from smrx.settlement.settlement_run import gauges, make_settler, summarize
    from smrx.sinks import make_sinks

    if join and log_dir is not None:
        raise click.UsageError("--join and --from-log cannot be combined")
    config = config_with_history(config_with_out(options.config(), out), history)
    compile_books()
    if config.settlement.history is not None:
        compile_history()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        metrics = Metrics(lambda: gauges(runner) if runner else {})
        runner: LedgerRunner | None = None
        alarms = Alarms(config.cluster, config.settlement.hook, metrics.alarm)
        stack.callback(alarms.close)
        policy = RetryPolicy(sink_timeout, stop, alarms)
        with errors_as_cli_errors():
            sinks = make_sinks(config)
            if config.settlement.history_path is not None:
                sinks.append(HistoryStore(config.settlement.history_path))
        settler = make_settler(config.cluster, config.settlement.directory, sinks, policy.wrap)
        stack.callback(settler.close)
        with errors_as_cli_errors():
            settler.open()
        policy.is_enabled = True
        ask = stack.enter_context(open_admin_client(config, _ASK_SECONDS, options.key_path()))
        if join and not settler.has_checkpoint:
            with errors_as_cli_errors():
                _join(config, settler, alarms, parse_node_ids(nodes), ask, connect_timeout, stop)
        if log_dir is not None:
            _fill(config, settler, log_dir, parse_node_ids(nodes), ask, connect_timeout, stop)
        runner = _make_runner(config, settler, alarms, parse_node_ids(nodes), ask)
        policy.reader = runner
        stack.callback(runner.close)
        if config.settlement.metrics_port is not None:
            metrics.serve(config.settlement.metrics_port)
            stack.callback(metrics.close)
        failure = _follow(runner, stop, until_sequence, idle, connect_timeout)
        _finish(summarize(runner, [sink.name for sink in sinks]), failure, as_json)


def _join(
    config: Config,
    settler: "LedgerSettler",
    alarms: "Alarms",
    nodes: list[int] | None,
    ask: "Ask",
    seconds: float,
    stop: StopRequest,
) -> None:
    """Start the books with the present state of the cluster."""
    from smrx.follower.image_join import ImageJoin

    settler.check_empty()
    join = ImageJoin(config, nodes or [node.id for node in config.nodes], ask, alarms)
    settler.join(*join.take(seconds, stop))
    click.echo(str(settler.origin), err=True)


def _fill(
    config: Config,
    settler: "LedgerSettler",
    directory: Path,
    nodes: list[int] | None,
    ask: "Ask",
    seconds: float,
    stop: StopRequest,
) -> None:
    """Replay the log of a node after the last settled event, and settle its events."""
    from smrx.follower.log_fill import LogFill
    from smrx.node.log_reader import open_log, replay_events
    from smrx.node.replicated_state import Applied
    from smrx.wire.frames import Claim

    progress.compile_engine()
    with open_log(directory.expanduser(), config.cluster) as history, errors_as_cli_errors():
        log = f"log of node {history.node_id} in {directory}"
        first, command = settler.projection.sequence + 1, settler.projection.command_sequence
        end = history.replay(lambda applied, entry: None).engine
        if end.event_sequence < first:
            click.echo(f"the {log} ends with event {end.event_sequence:,}, which is already settled", err=True)
            return
        fill = LogFill(config, settler, log)
        by = fill.attest(
            Claim(end.sequence, end.state_hash), nodes or [node.id for node in config.nodes], ask, seconds, stop
        )
        if command:
            fill.check_start(history.state_after(command).position()[1])

        def take(applied: Applied) -> bool:
            fill.add(applied.events, applied.sequence, applied.state_hash)
            return not stop()

        replay_events(history, first, take)
        fill.finish()
        click.echo(
            f"settled events {first:,} to {settler.projection.sequence:,} from the {log}; its end is "
            f"attested by {output.node_list(by)}",
            err=True,
        )


def _make_runner(
    config: Config, settler: "LedgerSettler", alarms: "Alarms", nodes: list[int] | None, ask: "Ask"
) -> "LedgerRunner":
    from smrx.settlement.settlement_run import make_runner

    try:
        return make_runner(config, settler, alarms, node_ids=nodes, ask=ask, key=options.key_path())
    except ValueError as error:
        raise ConfigError(f"--nodes: {error}") from None


def _follow(
    runner: "LedgerRunner", stop: StopRequest, until_sequence: int | None, idle: float | None, connect_timeout: float
) -> Exception | None:
    """Follow the feed until the run stops; return the error that stopped it, or None."""
    from smrx.feed.feed_errors import FeedError
    from smrx.follower.follow_errors import FollowError

    try:
        with _live_line(runner) as on_turn:
            runner.run(
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_timeout,
                on_turn=on_turn,
            )
    except (FeedError, FollowError, SinkFault) as error:
        return error
    return None


@contextmanager
def _live_line(runner: "LedgerRunner") -> Iterator[Callable[[], None] | None]:
    """Show a status line on a terminal. Yield the function that updates it, or None without a terminal."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as shown:
        yield lambda: shown.update(status_line(runner))


def status_line(runner: "LedgerRunner") -> "Text":
    """Return the state of the run in one line."""
    from rich.text import Text

    feed, sequencer, quorum = runner.subscriber.feed_stats, runner.subscriber.sequencer, runner.quorum
    lag = max(0, sequencer.known - runner.sequence)
    by = ",".join(map(str, quorum.attested_by)) or "no node"
    silence = runner.silence_s()
    parts = [
        f"settled {runner.sequence:,}",
        f"lag {lag:,}",
        f"{runner.settler.projection.trades:,} trades",
        f"{runner.rate():,.0f} events/s",
        f"gaps healed {feed.gaps_healed} of {feed.gaps}",
        f"attested by {by}",
    ]
    if runner.settler.origin is not None:
        parts.insert(1, f"starts after {runner.settler.origin.event_sequence:,}")
    if quorum.unverified:
        parts.append(f"unverified {quorum.unverified:,}")
    if runner.alarms.count:
        parts.append(f"alarms {runner.alarms.count}")
    if silence >= _SILENT_SECONDS:
        parts.append(f"no message for {silence:.0f} s")
    return Text(" · ".join(parts), no_wrap=True)


def _finish(summary: "Summary", failure: Exception | None, as_json: bool) -> None:
    """Print the summary; raises CliError with the error that stopped the run."""
    code = Exit.OK if failure is None else EXIT_CODES[type(failure).__name__]
    message = str(failure)
    if code is Exit.GAP:
        message += "; the journal of a stopped node may hold them: read it with --from-log"
    if code is Exit.GAP and not summary.sequence:
        message += ", or start with the present state with --join"
    if as_json:
        result = {"error": None if failure is None else message, "exit_code": int(code)}
        output.print_json(msgspec.to_builtins(summary) | result)
    elif code is not Exit.UNAVAILABLE:
        _print(summary, failure)
    if failure is not None:
        raise CliError(code, message) from failure


def _print(s: "Summary", failure: Exception | None) -> None:
    if failure is not None:
        # Only a checkpoint proves something then: what came after it may hold the fault.
        click.echo(f"failed     verified and committed up to event {s.committed:,}; what follows is not verified")
    elif s.sequence:
        event, command = (s.origin.event_sequence, s.origin.command_sequence) if s.origin is not None else (0, 0)
        if s.sequence > event:
            what = f"events {event + 1:,} to {s.sequence:,}, commands {command + 1:,} to {s.command_sequence:,}"
            click.echo(f"verified   {what}, none missing")
        else:
            click.echo(f"verified   nothing yet: there were no events after {event:,}")
    else:
        click.echo("verified   nothing: there were no events")
    if s.origin is not None:
        click.echo(f"start      {s.origin}")
    trades = s.trades - (s.origin.match_id if s.origin is not None else 0)
    click.echo(
        f"settled    {output.count(trades, 'trade')}, {s.trades_written:,} of them in this run, to {', '.join(s.out)}"
    )
    by = output.node_list(s.attested_by) if s.attested_by else "no node"
    click.echo(f"attested   by {by}; balances compared with the books {s.balances_compared:,} times")
    if s.unverified:
        click.echo(f"unverified {s.unverified:,} events after {s.sequence:,}")
    if s.excluded:
        click.echo(f"excluded   {output.node_list(s.excluded)}, contradicting the others")
    if s.known_sequence > s.sequence:
        click.echo(f"missing    events {s.sequence + 1:,} to {s.known_sequence:,}")
    click.echo(
        f"feed       {s.gaps_healed:,} of {s.gaps:,} gaps healed, {s.retransmitted:,} events retransmitted, "
        f"{s.duplicates:,} duplicates dropped, {s.garbage_frames:,} garbage frames ignored"
    )
    click.echo(f"order      {s.reordered_frames:,} frames reordered, {s.duplicate_frames:,} duplicate frames dropped")
    if failure is None:
        totals = ", ".join(f"{asset} {amount:,}" for asset, amount in s.supply.items()) or "nothing"
        click.echo(
            f"books      {output.count(s.accounts, 'account')}, balances equal deposits minus withdrawals: {totals} "
            "(minimal units)"
        )
    click.echo(f"time       {s.seconds:,.1f} s, {s.events_per_second:,.0f} events/s")


settle.add_command(report)
settle.add_command(verify)
