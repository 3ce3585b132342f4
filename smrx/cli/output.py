"""Print tables for people and JSON for programs. Called by the command files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from smrx.cli import standard_streams
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from smrx.client.results import CommandResult

#: The text of a cell without a value.
NOTHING: Final = "-"
_NUMBER: Final = re.compile(r"-|-?[0-9,]+(\.[0-9]+)?%?")
#: Wide enough for every table: rich must not cut cells; a narrow terminal wraps the lines.
_WIDTH: Final = 1000


def print_json(value: Any) -> None:
    """Print a value (structs, dicts, lists) as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows below their headings, numbers aligned right; print `empty` if there is no row.

    A cell that is rich Text keeps its colours on a terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = [list(row) for row in rows]
    if not found:
        click.echo(empty)
        return
    console = Console(width=_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int) or _NUMBER.fullmatch(str(row[i])) for row in found)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in found:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def cells(row: Mapping[str, object]) -> list[object]:
    """Return the values of a row as cells of a table."""
    return [NOTHING if value is None else value for value in row.values()]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 order" or "2 orders"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def node_list(node_ids: Iterable[object]) -> str:
    """Return node ids for a sentence, such as "node 1" or "nodes 1, 2"."""
    ids = [str(node_id) for node_id in node_ids]
    return f"node{'' if len(ids) == 1 else 's'} {', '.join(ids)}"


def hex_hash(value: int) -> str:
    """Return a state hash as 16 hexadecimal digits."""
    return f"{value:016x}"


def exit_with(code: Exit) -> None:
    """End the command with an exit code, without a message."""
    click.get_current_context().exit(int(code))


def print_answer(answer: "CommandResult", text: str, as_json: bool) -> None:
    """Print the outcome of one command: `text` and its sequence number, or JSON."""
    ids = {name: getattr(answer, name, None) for name in ("order_id", "transfer_id", "request_id", "sequence")}
    standard_streams.record_ids(**{name: value for name, value in ids.items() if value is not None})
    if as_json:
        print_json(answer)
    elif answer.duplicate:
        click.echo(
            "the command was applied, but a change of leaders lost its outcome; list the orders or balances to see it"
        )
    else:
        click.echo(f"{text} (command {answer.sequence})")
