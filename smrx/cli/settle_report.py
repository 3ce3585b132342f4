"""`smrx settle report`: what was settled, for people and accountants. Parses and prints; the work is in settlement."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smrx.cli import options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure

if TYPE_CHECKING:
    from smrx.settlement.readers import Reader
    from smrx.settlement.report import Report
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
    with _telling(), closing(_open(sink, path)) as source:
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
def _telling() -> Iterator[None]:
    """Give the errors of sinks their exit codes."""
    from smrx.sinks.sink_errors import SinkError, SinkMismatch

    try:
        yield
    except (SinkError, SinkMismatch) as error:
        raise Failure(Exit.SINK, str(error)) from error


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
