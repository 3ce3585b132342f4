"""`smrx settle`: the verifier outside the cluster. Parses, runs, prints; the work is in smrx/settlement."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from smrx.cli import options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure
from smrx.cli.settle_report import report
from smrx.feed.sequencer import FeedConflict, FeedError, GapUnfillable
from smrx.feed.subscriber import Subscriber
from smrx.settlement.errors import SettlementError, SinkContradiction, SinkError, Violation
from smrx.settlement.runner import NotConnected, Settlement, Summary
from smrx.settlement.sink import CsvSink, csv_path

_EXITS: dict[type[Exception], Exit] = {
    GapUnfillable: Exit.GAP,
    FeedConflict: Exit.DIVERGED,
    Violation: Exit.DIVERGED,
    SinkContradiction: Exit.DIVERGED,
    SinkError: Exit.RESOURCE,
    NotConnected: Exit.UNAVAILABLE,
}

#: Nodes say something twice a second.
_SILENT_SECONDS = 2.0


@click.group()
def settle() -> None:
    """Verify the event feed and keep the books outside the cluster."""


@settle.command()
@click.option("--out", default=".", show_default=True, help="A .csv file, or the directory of settled_trades.csv.")
@click.option("--until-sequence", type=click.IntRange(min=1), help="End once this event is verified.")
@click.option("--idle", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds without an event.")
@click.option("--nodes", help="Node ids to listen to, such as 1,3; all of them by default.")
@click.option(
    "--connect-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the first sign of a node.",
)
@options.config_option
@options.json_option
def run(
    out: str,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    as_json: bool,
) -> None:
    """Prove that no event is missing, keep the books, and append trades to settled_trades.csv.

    Starts at the first event, asks the nodes again for what was lost, and goes on until it is stopped. Exit codes: 5
    for a gap that no node can fill, 6 for a feed, books or a file that contradict each other, 3 if no node is heard.

    \b
    Example:
      smrx settle run --out settled --idle 5
    """
    subscriber = Subscriber.from_config(options.config(), _node_ids(nodes))
    failure: Exception | None = None
    with subscriber, _stopping() as stop:
        try:
            with CsvSink(csv_path(out)) as sink:
                settlement = Settlement(subscriber, sink)
                try:
                    with _live(settlement) as on_turn:
                        settlement.run(
                            stop=stop,
                            until_sequence=until_sequence,
                            idle_seconds=idle,
                            connect_seconds=connect_timeout,
                            on_turn=on_turn,
                        )
                except (FeedError, SettlementError) as error:
                    failure = error
                summary = settlement.summary()
        except SettlementError as error:
            raise Failure(_EXITS[type(error)], str(error)) from error
    if as_json or not isinstance(failure, NotConnected):
        _print(summary, failure, as_json)
    if failure is not None:
        raise Failure(_EXITS[type(failure)], str(failure)) from failure


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
def _live(settlement: Settlement) -> Iterator[Callable[[], None] | None]:
    """A line that shows what is going on, on a terminal; nothing in a pipe. Yields what brings it up to date."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield lambda: live.update(_line(settlement))


def _line(settlement: Settlement) -> Text:
    """What is going on, in one line."""
    feed, sequencer = settlement.subscriber.feed_stats, settlement.subscriber.sequencer
    behind = f", behind by {sequencer.known - settlement.received:,}" if sequencer.in_gap else ""
    silence = settlement.silence()
    silent = f" · no node heard for {silence:.0f} s" if silence >= _SILENT_SECONDS else ""
    return Text(
        f"verified {settlement.verifier.sequence:,}{behind} · {settlement.verifier.trades:,} trades · "
        f"{settlement.rate():,.0f} events/s · gaps healed {feed.gaps_healed} of {feed.gaps}{silent}",
        no_wrap=True,
    )


def _print(summary: Summary, failure: Exception | None, as_json: bool) -> None:
    if as_json:
        code = Exit.OK if failure is None else _EXITS[type(failure)]
        told = {"error": None if failure is None else str(failure), "exit_code": int(code)}
        output.print_json(msgspec.to_builtins(summary) | told)
        return
    s = summary
    if s.sequence:
        click.echo(f"verified   events 1 to {s.sequence:,}, commands 1 to {s.command_sequence:,}, none missing")
    else:
        click.echo("verified   nothing: there were no events")
    click.echo(
        f"settled    {s.trades:,} trades: {s.trades_written:,} written, {s.trades_confirmed:,} found, to {s.out}"
    )
    if s.trades_unconfirmed:
        click.echo(f"           {s.trades_unconfirmed:,} more in the file are later than what was verified")
    if s.known_sequence > s.sequence:
        click.echo(f"not seen   events {s.sequence + 1:,} to {s.known_sequence:,}")
    click.echo(
        f"feed       {s.gaps_healed:,} of {s.gaps:,} gaps healed, {s.retransmitted:,} events retransmitted, "
        f"{s.duplicates:,} duplicates dropped, {s.garbage_frames:,} garbage frames ignored"
    )
    if failure is None:
        owned = ", ".join(f"{asset} {amount:,}" for asset, amount in s.supply.items()) or "nothing"
        click.echo(f"books      {s.accounts:,} accounts own deposits less withdrawals exactly: {owned} (minimal units)")
    click.echo(f"time       {s.seconds:,.1f} s, {s.events_per_second:,.0f} events/s")


settle.add_command(report)
