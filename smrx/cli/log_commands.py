"""`smrx log`: the past of a stopped node. Parses, calls smrx/node/history, prints."""

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec
import numpy as np

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason

_id_option = click.option("--node", "node_id", type=int, required=True, metavar="N", help="Whose journal.")
_from_option = click.option(
    "--from", "first", type=click.IntRange(min=1), default=1, show_default=True, metavar="A", help="The first one."
)
_to_option = click.option(
    "--to", "last", type=click.IntRange(min=1), metavar="B", help="The last one; all if not given."
)
_limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")


@click.group()
def log() -> None:
    """Read what a stopped node's journal remembers.

    Nodes keep a journal with durability on disk. A node that runs is not looked at: stop it first.

    \b
    Example:
      smrx log verify --node 1
    """


@log.command("dump")
@_id_option
@_from_option
@_to_option
@_limit_option
@options.config_option
def dump_log(node_id: int, first: int, last: int | None, limit: int | None) -> None:
    """Print commands A to B as lines of JSON: the command, its number and place in the log, and its outcome.

    \b
    Example:
      smrx log dump --node 1 --from 1000 --to 1010
    """
    from smrx.node.log_reader import ReplayedCommand, open_node_log, replay_commands

    _compile()
    left = _Left(limit)

    def show(found: ReplayedCommand) -> bool:
        _print_line(
            {
                "sequence": found.sequence,
                "log_index": found.log_index,
                "term": found.term,
                "time_ns": found.time_ns,
                "command": _named(found.command, kind=CommandKind),
                "outcome": _named(found.outcome, status=OutcomeStatus, event_kind=EventKind, reason=Reason),
            }
        )
        return left.more()

    with open_node_log(options.config(), node_id) as history:
        replay_commands(history, first, last, show)
        _warn_of_uncommitted(history.uncommitted)


@log.command("replay")
@_id_option
@_from_option
@_to_option
@_limit_option
@options.config_option
def replay_log(node_id: int, first: int, last: int | None, limit: int | None) -> None:
    """Print trades A to B, by match id, as lines of JSON: the engine makes them once more from the commands.

    \b
    Example:
      smrx log replay --node 1 --from 1 --to 20
    """
    from smrx.node.log_reader import ReplayedTrade, open_node_log, replay_trades

    _compile()
    left = _Left(limit)

    def show(found: ReplayedTrade) -> bool:
        _print_line({"log_index": found.log_index} | _named(found.event, kind=EventKind))
        return left.more()

    with open_node_log(options.config(), node_id) as history:
        replay_trades(history, first, last, show)
        _warn_of_uncommitted(history.uncommitted)


@log.command("verify")
@_id_option
@options.config_option
@options.json_option
def verify_log(node_id: int, as_json: bool) -> None:
    """Check every entry and snapshot of a node, apply the whole log again, and print where it ends.

    Each later snapshot must be the state that the log leads to. Exits with 6 if one is not.

    \b
    Example:
      smrx log verify --node 1 --json
    """
    from smrx.node.log_reader import open_node_log, verify_log

    _compile()
    with open_node_log(options.config(), node_id) as history:
        found = verify_log(history)
    if found.faults:
        raise CliError(Exit.DIVERGED, found.faults[0])
    told = msgspec.to_builtins(found) | {"state_hash": output.hex_hash(found.state_hash)}
    del told["faults"]
    if as_json:
        output.print_json(told)
        return
    click.echo(
        f"node {node_id}: log entries {found.first_index} to {found.last_index} are whole, and {found.snapshots} "
        f"snapshots with them; applied up to command {found.sequence}: state hash {output.hex_hash(found.state_hash)}, "
        f"{found.trades} trades"
    )
    _warn_of_uncommitted(found.uncommitted)


class _Left:
    """How many more lines are wanted."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    def more(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left > 0


def _compile() -> None:
    progress.compile_engine()


def _print_line(value: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _named(record: np.void, **names: Callable[[int], Any]) -> dict[str, Any]:
    """A record as a dictionary, codes by their names."""
    fields = record.dtype.names or ()
    values = dict(zip(fields, record.tolist(), strict=True))
    for field, enumeration in names.items():
        try:
            values[field] = enumeration(values[field]).name
        except ValueError:
            continue
    return values


def _warn_of_uncommitted(entries: int) -> None:
    if entries:
        click.echo(
            f"{entries} entries more are in the journal; whether a majority has them, this node did not learn before "
            "it stopped",
            err=True,
        )
