"""What the commands of `smrx bench` share: options, error handling, and the table of figures."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from smrx.cli import output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit

tape_option = click.option(
    "--tape",
    type=click.Choice(["mixed", "cancel-heavy", "deep-book", "sweep-heavy"]),
    default="mixed",
    show_default=True,
    help="The order flow.",
)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the tape.")
batch_option = click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="Commands per call of the engine.",
)
repeats_option = click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Number of runs; the fastest one counts.",
)
durability_option = click.option(
    "--durability",
    type=click.Choice(["memory", "disk"]),
    default="memory",
    show_default=True,
    help="Durability of the nodes.",
)
dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    help="Directory for the files of the run; the temporary directory of the system if not given.",
)


@contextmanager
def errors_as_usage() -> Iterator[None]:
    """Turn an invalid argument or tape into a usage error."""
    from smrx.tape.tape_error import TapeError

    try:
        yield
    except (ValueError, TapeError) as error:
        raise CliError(Exit.USAGE, str(error)) from None


def write_picture(path: str, text: str) -> None:
    """Write a chart; raises CliError if the file cannot be written."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: cannot write the chart: {error.strerror}") from None


def print_figures(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(figures)
        return
    output.print_table(("FIGURE", "VALUE"), _flat(figures), empty="no figures")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            whole = isinstance(value, int) or (isinstance(value, float) and value >= 1000)
            yield f"{prefix}{name}", f"{value:,.0f}" if whole and not isinstance(value, bool) else str(value)
