"""`smrx log`: read the journal of a stopped node. Parses, calls smrx/node/log_reader, prints."""

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.wire.record_names import named_command, named_event, named_outcome

if TYPE_CHECKING:
    pass

_id_option = click.option("--node", "node_id", type=int, required=True, metavar="N", help="Id of the node.")
_from_option = click.option(
    "--from", "first", type=click.IntRange(min=1), default=1, show_default=True, metavar="A", help="First one to print."
)
_to_option = click.option(
    "--to", "last", type=click.IntRange(min=1), metavar="B", help="Last one to print; to the end if not given."
)
_limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print at most N.")


@click.group()
def log() -> None:
    """Read the journal of a stopped node.

    Nodes keep a journal if durability = "disk". The node must not be running: stop it first.

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
    """Print commands A to B as lines of JSON: sequence, log index, command and outcome.

    \b
    Example:
      smrx log dump --node 1 --from 1000 --to 1010
    """
    from smrx.node.log_reader import ReplayedCommand, open_node_log, replay_commands

    progress.compile_engine()
    counter = _LineCounter(limit)

    def show(found: ReplayedCommand) -> bool:
        _print_line(
            {
                "sequence": found.sequence,
                "log_index": found.log_index,
                "term": found.term,
                "time_ns": found.time_ns,
                "command": named_command(found.command, found.details),
                "outcome": named_outcome(found.outcome),
            }
        )
        return counter.has_room()

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
    """Print trades A to B, by match id, as lines of JSON. The engine applies the commands again to make them.

    \b
    Example:
      smrx log replay --node 1 --from 1 --to 20
    """
    from smrx.node.log_reader import ReplayedTrade, open_node_log, replay_trades

    progress.compile_engine()
    counter = _LineCounter(limit)

    def show(found: ReplayedTrade) -> bool:
        _print_line({"log_index": found.log_index} | named_event(found.event))
        return counter.has_room()

    with open_node_log(options.config(), node_id) as history:
        replay_trades(history, first, last, show)
        _warn_of_uncommitted(history.uncommitted)


@log.command("verify")
@_id_option
@options.config_option
@options.json_option
def verify_log(node_id: int, as_json: bool) -> None:
    """Check all log entries and snapshots of a node, apply the log again, and print the resulting state.

    Each snapshot must equal the state that the log leads to. Exits with 6 if one does not.

    \b
    Example:
      smrx log verify --node 1 --json
    """
    from smrx.node.log_reader import open_node_log, verify_log

    progress.compile_engine()
    with open_node_log(options.config(), node_id) as history:
        found = verify_log(history)
    if found.faults:
        raise CliError(Exit.DIVERGED, found.faults[0])
    summary = msgspec.to_builtins(found) | {"state_hash": output.hex_hash(found.state_hash)}
    del summary["faults"]
    if as_json:
        output.print_json(summary)
        return
    click.echo(
        f"node {node_id}: log entries {found.first_index} to {found.last_index} and {found.snapshots} snapshots are "
        f"valid; applied up to command {found.sequence}: state hash {output.hex_hash(found.state_hash)}, "
        f"{found.trades} trades"
    )
    _warn_of_uncommitted(found.uncommitted)


class _LineCounter:
    """Count printed lines against a limit."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    def has_room(self) -> bool:
        """Count one line; return whether another one may be printed."""
        if self._left is None:
            return True
        self._left -= 1
        return self._left > 0


def _print_line(value: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _warn_of_uncommitted(entries: int) -> None:
    if entries:
        click.echo(
            f"the journal holds {entries} more entries; they are not shown, because it is unknown whether a majority "
            "has them",
            err=True,
        )
