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
    """A day or a time in UTC as nanoseconds since 1970; as the end of a period a day is over when it ends."""

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
@click.option("--from-nodes", is_flag=True, help="Derive everything from the nodes' events instead of the sinks' rows.")
@click.option(
    "--log",
    "log_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare with what the log in this data directory of a node leads to; the node must not run.",
)
@click.option(
    "--first-trade",
    type=click.IntRange(min=1),
    metavar="M",
    help="With --log, compare trades from this match id on; a log that was cut no longer has the first ones.",
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
    """Derive the books from scratch, and compare them with what is stored.

    Reads every trade and movement of each sink: match ids without a gap, notional and fees by the instrument's rules,
    and what they add up to against the books of the checkpoint. With --from-nodes reads every event from the first on
    from the nodes instead, as far as the checkpoint, and compares every stored trade with it. With --log makes every
    trade, movement and definition once more from the commands in a node's journal, compares each stored one with it,
    and the books with the balances and open orders of that state; no cluster is needed. Exit codes: 12 for the first
    one that is missing, stored twice or different, 8 for balances that differ, 6 for rows that contradict each other,
    9 for a sink.

    \b
    Examples:
      smrx settle verify --out settled
      smrx settle verify --out settled --log smrx-data/node-1
    """
    if log_dir is not None and from_nodes:
        raise click.UsageError("--log and --from-nodes: expected one of them, found both")
    if first_trade is not None and log_dir is None:
        raise click.UsageError("--first-trade: expected --log with it, found none")
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
    """Say what failed on standard output too, as `smrx settle run` does, where JSON is asked for."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        if as_json:
            code, sentence = explain(error)
            output.print_json({"error": sentence, "exit_code": int(code)})
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
        raise CliError(
            Exit.GAP, f"{error}; --log compares with the journal of a node that was stopped instead"
        ) from None


def _from_log(config: Config, directory: Path, first_trade: int | None) -> "Verified":
    from smrx.node.log_reader import AfterLogEnd, BeforeLogStart, open_log

    progress.compile_engine()
    with open_log(directory.expanduser(), config.cluster) as history:
        try:
            return compare_with_log(config, history, f"log of node {history.node_id} in {directory}", first_trade)
        except BeforeLogStart as error:
            raise CliError(
                Exit.USAGE, f"{directory}: {error}; compare what is left of it with --first-trade {error.match_id + 1}"
            ) from None
        except AfterLogEnd as error:
            raise CliError(
                Exit.LOG, f"{directory}: {error}, and settlement went further; use the log of a node that did, too"
            ) from None


def compare_with_log(config: Config, history: "LogReader", log: str, first_trade: int | None = None) -> "Verified":
    """Let a log make every trade again, and settlement compare it with what it stored.

    `log` names it in what is said. Raises what LogAudit does, and LogReadError of a log that does not reach so far.
    """
    from smrx.node.log_reader import replay_events, replay_trades
    from smrx.node.state_images import image
    from smrx.settlement.log_audit import LogAudit
    from smrx.wire import state_image

    with closing(LogAudit(config, log, first_trade)) as audit:
        if first_trade is not None and first_trade > audit.last_trade:
            raise click.UsageError(
                f"--first-trade: expected a trade that is settled, at most {audit.last_trade}, found {first_trade}"
            )
        for command, state_hash in audit.attested.items():
            state = image(history.state_after(command, state_hash).engine)
            audit.take_state(command, state_image.decode(state.data))
        if audit.first_trade <= audit.last_trade:
            replay_trades(history, audit.first_trade, audit.last_trade, lambda trade: audit.take_trade(trade.event))
        replay_events(history, audit.first_event, lambda applied: audit.take_events(applied.events))
        return audit.finish()


@click.command()
@click.option(
    "--account", type=click.IntRange(0, (1 << 32) - 1), help="One account, with its statement; 0 is the venue."
)
@click.option("--instrument", help="One instrument, by symbol or id, and its two assets.")
@click.option(
    "--from", "begin_ns", type=_Time(), help="Begin at this time (UTC); what was before is the opening balance."
)
@click.option("--to", "end_ns", type=_Time(end=True), help="End before this time (UTC), or with this day.")
@click.option("--sink", type=click.Choice(["csv", "lmdb", "postgresql", "parquet"]), help="Read this one of the sinks.")
@click.option(
    "--path",
    "--out",
    "path",
    type=click.Path(path_type=Path),
    help="Read what was settled here (the --out of `smrx settle run`), instead of the configured sinks.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the statement, or without an account the balances, to this file.",
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
    """Print balances, positions, turnover and fees of what was settled, and the statement of an account.

    Reads a sink of the configuration, or --path; the cluster need not run, and may settle meanwhile. Exit code 9: there
    is nothing to read, or settled rows are missing or contradict each other.

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
        raise click.UsageError("--sink and --path: expected one of them, found both")
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
            raise click.UsageError("--from and --to: expected a period that begins before it ends")
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
    """Give the errors of sinks their exit codes."""
    from smrx.sinks.sink_errors import SinkError, SinkMismatch

    try:
        yield
    except (SinkError, SinkMismatch) as error:
        raise CliError(Exit.SINK, str(error)) from error


def _open(sink: str | None, path: Path | None) -> "Reader":
    from smrx.settlement.readers import open_best, open_path

    return open_best(options.config(), sink) if path is None else open_path(path.expanduser())


def _instrument(catalogue: "Catalogue", text: str | None) -> int | None:
    """The id of an instrument named by symbol or id."""
    if text is None:
        return None
    named = [i for i, found in catalogue.instruments.items() if found.symbol == text or str(i) == text]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(map(str, named))
        raise click.BadParameter(
            f"expected one instrument, {text!r} may be id {ids}; name an id", param_hint="--instrument"
        )
    known = ", ".join(found.symbol for found in catalogue.instruments.values()) or "none"
    raise click.BadParameter(f"expected one of {known}, found {text!r}", param_hint="--instrument")


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
        click.echo(f"begins    {checkpoint.origin}")
    _table("balances", BALANCE_COLUMNS[:-1], text.balances(), "nobody owns anything")
    _table("positions", POSITION_COLUMNS[:-1], text.positions(), "nobody traded")
    _table("turnover", TURNOVER_COLUMNS[:-1], text.turnover(), "there were no trades")
    if found.query.account is not None:
        columns = ("time", "event", "kind", "asset", "amount", "balance", "instrument", "reference")
        rows = [row | {"event": row["event_sequence"]} for row in text.statement()]
        _table(f"statement of account {found.query.account}", columns, rows, "nothing moved")


def _table(title: str, columns: Sequence[str], rows: Sequence[dict[str, str]], empty: str) -> None:
    click.echo(f"\n{title}")
    headings = [column.replace("_", " ") for column in columns]
    cells = [[row[column] or output.NOTHING for column in columns] for row in rows]
    output.print_table(headings, cells, empty=empty)
