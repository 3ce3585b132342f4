"""What the commands of `smrx settle` share: options, where things are stored, the end of a run, exit codes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import click
import msgspec

from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.config import Config, SinkConfig
from smrx.sinks.sink_errors import SinkFault

EXIT_CODES: Final = {
    "GapUnfillable": Exit.GAP,
    "FeedConflict": Exit.DIVERGED,
    "Disagreement": Exit.DIVERGED,
    "Violation": Exit.DIVERGED,
    "BalanceDifference": Exit.BALANCE,
    "LogDifference": Exit.LOG,
    "Unattested": Exit.UNATTESTED,
    "SinkError": Exit.SINK,
    "SinkMismatch": Exit.SINK,
    "NotConnected": Exit.UNAVAILABLE,
}


out_option = click.option(
    "--out", help="A .csv file, or the directory of settled_trades.csv, in place of the configuration's sinks."
)


def follow_options(command: Callable[..., None]) -> Callable[..., None]:
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


def compile_books() -> None:
    """The first run on a machine compiles the books, before anything waits for them, and says so."""
    from smrx.settlement.books.compiled_books import compiled_before, warm_up

    if not compiled_before():
        click.echo("compiling the books (once on this machine; some ten seconds)", err=True)
    warm_up()


def config_with_out(config: Config, out: str | None) -> Config:
    """The configuration, with one CSV sink and a directory for the checkpoint where --out says so."""
    if out is None:
        return config
    path = Path(out).expanduser().absolute()
    single = path.suffix.lower() == ".csv" and not path.is_dir()
    directory = path.with_name(f"{path.stem}-settlement") if single else path / "settlement"
    sinks = (SinkConfig(kind="csv", path=str(path)),)
    settlement = msgspec.structs.replace(config.settlement, directory=str(directory), sinks=sinks)
    return msgspec.structs.replace(config, settlement=settlement)


@contextmanager
def errors_as_cli_errors() -> Iterator[None]:
    """Turn what ends settlement into one sentence and its exit code."""
    from smrx.feed.feed_errors import FeedError
    from smrx.settlement.settlement_errors import SettlementError

    try:
        yield
    except (FeedError, SettlementError, SinkFault) as error:
        raise CliError(EXIT_CODES[type(error).__name__], str(error)) from error


class StopRequest:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Be the handler of a signal."""
        self.asked = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM end the run cleanly while this is open."""
    stop = StopRequest()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse_node_ids(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected node ids such as 1,3, found {text!r}", param_hint="--nodes") from None
