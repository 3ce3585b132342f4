"""What the commands of `smrx settle` share: options, the place of the data, signals and exit codes."""

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
    "--out",
    help="Store trades in this .csv file, or in settled_trades.csv in this directory, instead of the configured sinks.",
)


def follow_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the commands that follow the feed."""
    for option in (
        click.option("--until-sequence", type=click.IntRange(min=1), help="Stop when this event is verified."),
        click.option(
            "--idle", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds without an event."
        ),
        click.option(
            "--nodes", help="Ids of the nodes to follow, such as 1,3; they must be a majority. All nodes if not given."
        ),
        click.option(
            "--connect-timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=10.0,
            show_default=True,
            help="Seconds to wait for the first message of a node.",
        ),
    ):
        command = option(command)
    return command


def compile_books() -> None:
    """Compile the books if this machine has not done so yet, and report that on standard error."""
    from smrx.settlement.books import compiled_books

    _compile(compiled_books.compiled_before(), compiled_books.warm_up, "books")


def compile_history() -> None:
    """Compile the projection of order history if this machine has not done so yet, and report that."""
    from smrx.history import order_kernels

    _compile(order_kernels.compiled_before(), order_kernels.warm_up, "order history")


def _compile(is_compiled: bool, warm_up: Callable[[], None], what: str) -> None:
    if not is_compiled:
        click.echo(f"compiling the {what} (once on this machine, about ten seconds)", err=True)
    warm_up()


def config_with_out(config: Config, out: str | None) -> Config:
    """Return the configuration; with --out, its only sink is a CSV file with the checkpoint beside it."""
    if out is None:
        return config
    path = Path(out).expanduser().absolute()
    single = path.suffix.lower() == ".csv" and not path.is_dir()
    directory = path.with_name(f"{path.stem}-settlement") if single else path / "settlement"
    sinks = (SinkConfig(kind="csv", path=str(path)),)
    settlement = msgspec.structs.replace(config.settlement, directory=str(directory), sinks=sinks)
    return msgspec.structs.replace(config, settlement=settlement)


def config_with_history(config: Config, history: str | None) -> Config:
    """Return the configuration; with --history, order history is stored in that directory."""
    if history is None:
        return config
    settlement = msgspec.structs.replace(config.settlement, history=str(Path(history).expanduser().absolute()))
    return msgspec.structs.replace(config, settlement=settlement)


@contextmanager
def errors_as_cli_errors() -> Iterator[None]:
    """Turn the errors of settlement into CliError with their exit codes."""
    from smrx.feed.feed_errors import FeedError
    from smrx.follower.follow_errors import FollowError

    try:
        yield
    except (FeedError, FollowError, SinkFault) as error:
        raise CliError(EXIT_CODES[type(error).__name__], str(error)) from error


class StopRequest:
    """Whether a signal asked the run to stop."""

    def __init__(self) -> None:
        self.is_set = False
        self.signal_name = ""

    def __call__(self) -> bool:
        return self.is_set

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT, SIGTERM or SIGHUP."""
        self.is_set, self.signal_name = True, signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Stop the run cleanly on SIGINT, SIGTERM and SIGHUP while the context is open; name the signal on stderr.

    Under nohup SIGHUP is ignored, and stays so.
    """
    stop = StopRequest()
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, stop.handle_signal) for number in numbers}
    try:
        yield stop
    finally:
        if stop.is_set:
            click.echo(f"stopped on {stop.signal_name}", err=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def parse_node_ids(text: str | None) -> list[int] | None:
    """Return the node ids in a text such as "1,3", or None for None."""
    if text is None:
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected node ids such as 1,3, found {text!r}", param_hint="--nodes") from None
