"""`smrx settle verify` and `smrx settle report`: read what was settled. Parses and prints; smrx/settlement reads.

Settlement shares no code with the inside of a node. Where the log of a node is the source, this module connects them.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError, explain
from smrx.cli.exit_codes import Exit
from smrx.cli.settle_shared import (
    compile_books,
    config_with_out,
    errors_as_cli_errors,
    follow_options,
    out_option,
    parse_node_ids,
    stop_on_signals,
)
from smrx.config import Config

if TYPE_CHECKING:
    from smrx.node.log_reader import LogReader
    from smrx.settlement.readers import Reader
    from smrx.settlement.report import Report
    from smrx.settlement.reverify import Verified
    from smrx.sinks.rows import Catalogue

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Time(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic only in click's newest stubs
    """A day or a time in UTC as nanoseconds since 1970. With `end`, a day means the end of that day."""

    name = "time"

    def __init__(self, *, end: bool = False) -> None:
        self._end = end

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"expected a time such as 2026-01-31 or 2026-01-31T12:00, found {text!r}", param, ctx)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        if self._end and len(text) == len("2026-01-31"):
            found += timedelta(days=1)
        return (found - _EPOCH) // timedelta(microseconds=1) * 1000


@click.command()
@out_option
@click.option(
    "--from-nodes",
    is_flag=True,
    help="Compute the books from the events of the nodes instead of the rows of the sinks.",
)
@click.option(
    "--log",
    "log_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare with the log in this data directory of a node; the node must not be running.",
)
@click.option(
    "--first-trade",
    type=click.IntRange(min=1),
    metavar="M",
    help="With --log: compare trades from this match id on, if the log no longer holds the first ones.",
)
@follow_options
@options.config_option
@options.json_option
def verify(
    out: str | None,
    from_nodes: bool,
    log_dir: Path | None,
    first_trade: int | None,
    until_sequence: int | None,
    idle: float | None,
    nodes: str | None,
    connect_timeout: float,
    as_json: bool,
) -> None:
    """Compute the books again and compare them with the stored ones.

    Reads all trades and movements of each sink and checks that match ids have no gap, that notional and fees follow the
    rules of the instrument, and that the totals equal the books of the checkpoint. With --from-nodes, reads all events
    up to the checkpoint from the nodes instead and compares every stored trade with them. With --log, replays the
    commands in the journal of a node, compares every stored trade, movement and definition, and compares the books with
    the balances and open orders of the replayed state; no cluster is needed. Exit codes: 6 for rows that contradict
    each other, 8 if balances differ, 9 for a sink, 12 for the first trade that is missing, stored twice or different.

    \b
    Examples:
      smrx settle verify --out settled
      smrx settle verify --out settled --log smrx-data/node-1
    """
    if log_dir is not None and from_nodes:
        raise click.UsageError("--log and --from-nodes cannot be combined")
    if first_trade is not None and log_dir is None:
        raise click.UsageError("--first-trade needs --log")
    config = config_with_out(options.config(), out)
    compile_books()
    with _errors_as_json(as_json), errors_as_cli_errors():
        if log_dir is not None:
            found = _from_log(config, log_dir, first_trade)
        elif from_nodes:
            found = _from_nodes(config, parse_node_ids(nodes), until_sequence, idle, connect_timeout)
        else:
            from smrx.settlement.reverify import from_sinks

            found = from_sinks(config)
    if as_json:
        output.print_json(msgspec.to_builtins(found) | {"error": None, "exit_code": int(Exit.OK)})
        return
    for line in found.lines():
        click.echo(line)


@contextmanager
def _errors_as_json(as_json: bool) -> Iterator[None]:
    """With --json, print an error on standard output too, as `smrx settle run` does."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        if as_json:
            code, message = explain(error)
            output.print_json({"error": message, "exit_code": int(code)})
        raise


def _from_nodes(
    config: Config, nodes: list[int] | None, until_sequence: int | None, idle: float | None, connect_seconds: float
) -> "Verified":
    from smrx.feed.feed_errors import GapUnfillable
    from smrx.settlement.reverify import from_nodes

    try:
        with stop_on_signals() as stop:
            return from_nodes(
                config,
                node_ids=nodes,
                stop=stop,
                until_sequence=until_sequence,
                idle_seconds=idle,
                connect_seconds=connect_seconds,
            )
    except GapUnfillable as error:
        raise CliError(Exit.GAP, f"{error}; use --log to compare with the journal of a stopped node instead") from None


def _from_log(config: Config, directory: Path, first_trade: int | None) -> "Verified":
    from smrx.node.log_reader import AfterLogEnd, BeforeLogStart, open_log

    progress.compile_engine()
    with open_log(directory.expanduser(), config.cluster) as history:
        try:
            return compare_with_log(config, history, f"log of node {history.node_id} in {directory}", first_trade)
        except BeforeLogStart as error:
            raise CliError(
                Exit.USAGE, f"{directory}: {error}; compare the rest with --first-trade {error.match_id + 1}"
            ) from None
        except AfterLogEnd as error:
            raise CliError(
                Exit.LOG, f"{directory}: {error}, but more is settled; use the log of a node that is further ahead"
            ) from None


def compare_with_log(config: Config, history: "LogReader", log: str, first_trade: int | None = None) -> "Verified":
    """Replay a log and compare its trades and events with the stored ones.

    `log` names the log in messages. Raises what LogAudit does, and LogReadError of a log that does not reach so far.
    """
    from smrx.node.log_reader import replay_events, replay_trades
    from smrx.node.state_images import capture_image
    from smrx.settlement.log_audit import LogAudit
    from smrx.wire import state_image

    with closing(LogAudit(config, log, first_trade)) as audit:
        if first_trade is not None and first_trade > audit.last_trade:
            raise click.UsageError(
                f"--first-trade: trade {first_trade} is not settled; the last one is {audit.last_trade}"
            )
        for command, state_hash in audit.attested.items():
            state = capture_image(history.state_after(command, state_hash).engine)
            audit.take_state(command, state_image.decode(state.data))
        if audit.first_trade <= audit.last_trade:
            replay_trades(history, audit.first_trade, audit.last_trade, lambda trade: audit.take_trade(trade.event))
        replay_events(history, audit.first_event, lambda applied: audit.take_events(applied.events))
        return audit.finish()


@click.command()
@click.option(
    "--account", type=click.IntRange(0, (1 << 32) - 1), help="Only this account, with its statement; 0 is the venue."
)
@click.option("--instrument", help="Only this instrument (symbol or id) and its two assets.")
@click.option(
    "--from", "begin_ns", type=_Time(), help="Start of the period (UTC); earlier movements make the opening balance."
)
@click.option(
    "--to",
    "end_ns",
    type=_Time(end=True),
    help="End of the period (UTC): a time is exclusive, a date includes that day.",
)
@click.option("--sink", type=click.Choice(["csv", "lmdb", "postgresql", "parquet"]), help="Read this sink.")
@click.option(
    "--path",
    "--out",
    "path",
    type=click.Path(path_type=Path),
    help="Read this path (the --out of `smrx settle run`) instead of the configured sinks.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the statement (without --account: the balances) to this file.",
)
@options.config_option
@options.json_option
def report(
    account: int | None,
    instrument: str | None,
    begin_ns: int | None,
    end_ns: int | None,
    sink: str | None,
    path: Path | None,
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Print balances, positions, turnover and fees from settled trades, and the statement of an account.

    Reads a sink of the configuration, or --path. The cluster need not run, and may run and settle at the same time.
    Exits with 9 if there is nothing to read, or if settled rows are missing or contradict each other.

    \b
    Examples:
      smrx settle report
      smrx settle report --account 7 --from 2026-01-01 --to 2026-01-31 --csv statement.csv
    """
    from smrx.settlement.report import Query, make_report
    from smrx.settlement.report_text import as_json as to_json
    from smrx.settlement.report_text import write_csv
    from smrx.sinks.rows import Catalogue

    if sink is not None and path is not None:
        raise click.UsageError("--sink and --path cannot be combined")
    with _sink_errors_as_cli_errors(), closing(_open(sink, path)) as source:
        catalogue = Catalogue()
        catalogue.add(source.definitions())
        everything = Query()
        query = Query(
            account,
            _instrument(catalogue, instrument),
            everything.begin_ns if begin_ns is None else begin_ns,
            everything.end_ns if end_ns is None else end_ns,
        )
        if query.begin_ns >= query.end_ns:
            raise click.UsageError("--from must be before --to")
        found = make_report(source, query)
    if csv_file is not None:
        lines = write_csv(found, csv_file)
        if not as_json:
            click.echo(f"{lines:,} lines written to {csv_file}")
    if as_json:
        output.print_json(to_json(found))
    elif csv_file is None:
        _print(found)


@contextmanager
def _sink_errors_as_cli_errors() -> Iterator[None]:
    """Turn errors of sinks into CliError."""
    from smrx.sinks.sink_errors import SinkError, SinkMismatch

    try:
        yield
    except (SinkError, SinkMismatch) as error:
        raise CliError(Exit.SINK, str(error)) from error


def _open(sink: str | None, path: Path | None) -> "Reader":
    from smrx.settlement.readers import open_best, open_path

    return open_best(options.config(), sink) if path is None else open_path(path.expanduser())


def _instrument(catalogue: "Catalogue", text: str | None) -> int | None:
    """Return the id of an instrument given by symbol or id; None for None."""
    if text is None:
        return None
    named = [i for i, found in catalogue.instruments.items() if found.symbol == text or str(i) == text]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(map(str, named))
        raise click.BadParameter(
            f"{text!r} names several instruments; give one of the ids {ids}", param_hint="--instrument"
        )
    known = ", ".join(found.symbol for found in catalogue.instruments.values()) or "none"
    raise click.BadParameter(f"no settled instrument {text!r}; known: {known}", param_hint="--instrument")


def _print(found: "Report") -> None:
    from smrx.settlement.report_text import BALANCE_COLUMNS, POSITION_COLUMNS, TURNOVER_COLUMNS, Text, trades_settled

    text, checkpoint = Text(found), found.checkpoint
    if checkpoint is None:
        click.echo("nothing is settled yet")
        return
    first = 1 if checkpoint.origin is None else checkpoint.origin.event_sequence + 1
    settled = f"events {first:,} to {checkpoint.event_sequence:,}, {trades_settled(checkpoint):,} trades"
    click.echo(f"settled   cluster {checkpoint.cluster}, {settled}")
    if checkpoint.origin is not None:
        click.echo(f"start     {checkpoint.origin}")
    _table("balances", BALANCE_COLUMNS[:-1], text.balances(), "no balances")
    _table("positions", POSITION_COLUMNS[:-1], text.positions(), "no positions")
    _table("turnover", TURNOVER_COLUMNS[:-1], text.turnover(), "no trades")
    if found.query.account is not None:
        columns = ("time", "event", "kind", "asset", "amount", "balance", "instrument", "reference")
        rows = [row | {"event": row["event_sequence"]} for row in text.statement()]
        _table(f"statement of account {found.query.account}", columns, rows, "no movements")


def _table(title: str, columns: Sequence[str], rows: Sequence[dict[str, str]], empty: str) -> None:
    click.echo(f"\n{title}")
    headings = [column.replace("_", " ") for column in columns]
    cells = [[row[column] or output.NOTHING for column in columns] for row in rows]
    output.print_table(headings, cells, empty=empty)
