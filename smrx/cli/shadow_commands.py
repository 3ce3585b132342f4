"""`smrx shadow`: apply a cluster's log with this program and compare. Parses, calls smrx/node, prints."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.cluster_status import query_cluster
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask, open_admin_client
from smrx.config import Config

if TYPE_CHECKING:
    from smrx.node.shadow import Difference, Shadow


@click.command()
@click.option("--node", "node_id", type=int, metavar="N", help="Follow this node; a follower if not given.")
@click.option(
    "--log",
    "directory",
    type=click.Path(path_type=Path),
    help="Instead, apply the log in the data directory of a stopped node, or in a copy of it.",
)
@click.option(
    "--rules",
    type=click.IntRange(min=1),
    metavar="V",
    help="Also apply version V of the rules, and compare every outcome and event with those of the rules in force.",
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Follow a node for so long.")
@click.option("--commands", type=click.IntRange(min=1), help="Follow a node until so many commands were compared.")
@options.cluster_option
@options.json_option
def shadow(
    node_id: int | None,
    directory: Path | None,
    rules: int | None,
    seconds: float | None,
    commands: int | None,
    as_json: bool,
) -> None:
    """Apply the log of a cluster with this program, and report the first command whose result differs.

    To try a new version before an upgrade, run this command of the new program beside the running cluster. It copies
    the state of a node, applies the same log entries and compares the state hash after every command. With --rules it
    also applies another version of the rules to the same commands, as if the cluster had switched to it, and compares
    outcomes and events. It sends no command and is no member; with keys it needs the permission FOLLOW.

    A difference is reported with the command, both results and the records that differ. Exits with 6 if there is one,
    with 3 if the node does not answer, with 14 if this program lacks the rules.

    \b
    Example:
      smrx shadow --seconds 60
      smrx shadow --rules 1 --commands 1000000 --json
      smrx shadow --log backup/node-1
    """
    config = options.config()
    progress.compile_engine()
    if directory is not None:
        if node_id is not None or seconds is not None or commands is not None:
            raise click.UsageError("--log takes neither --node nor --seconds nor --commands")
        found, difference = _replayed(config, directory, rules)
    else:
        found, difference = _followed(config, node_id, rules, seconds, commands)
    _print(found, difference, as_json)
    if difference is not None:
        output.exit_with(Exit.DIVERGED)


def _replayed(config: Config, directory: Path, rules: int | None) -> "tuple[Shadow, Difference | None]":
    from smrx.node.log_reader import open_log
    from smrx.node.shadow_source import replay

    with open_log(directory, config.cluster) as log:
        return replay(log, rules)


def _followed(
    config: Config, node_id: int | None, rules: int | None, seconds: float | None, commands: int | None
) -> "tuple[Shadow, Difference | None]":
    from smrx.node.shadow_source import RunningNode, SourceError

    with open_admin_client(config, 5.0, options.key_path()) as ask:
        chosen = _follower(config, ask) if node_id is None else config.node(node_id).id
        source = RunningNode(chosen, lambda request: ask(chosen, request))
        try:
            found = source.shadow(rules)
            return found, source.follow(found, _condition(found, seconds, commands))
        except SourceError as error:
            raise CliError(Exit.UNAVAILABLE, str(error)) from None


def _follower(config: Config, ask: Ask) -> int:
    """Return a follower, or the leader if there is no other node: what is asked of a follower delays no order."""
    seen = query_cluster(ask, [node.id for node in config.nodes])
    roles = {
        node.status.role: node.node_id for node in seen.nodes if node.status is not None and not node.status.fenced
    }
    chosen = roles.get("follower", roles.get("leader"))
    if chosen is None:
        raise CliError(Exit.UNAVAILABLE, "no node of the cluster holds its state; see `smrx cluster status`")
    return chosen


def _condition(found: "Shadow", seconds: float | None, commands: int | None) -> Callable[[], bool]:
    """Return whether to go on, as a function."""
    deadline = None if seconds is None else time.monotonic() + seconds
    first = found.compared

    def goes_on() -> bool:
        is_done = commands is not None and found.compared - first >= commands
        return not is_done and (deadline is None or time.monotonic() < deadline)

    return goes_on


def _print(found: "Shadow", difference: "Difference | None", as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "compared_until": found.compared,
                "skipped": found.skipped,
                "switched": found.has_switched,
                "difference": None if difference is None else msgspec.to_builtins(difference),
            }
        )
        return
    if difference is None:
        click.echo(f"no difference up to command {found.compared}")
        if found.skipped:
            click.echo(f"{found.skipped} commands were not compared: the node no longer had them when they were due")
        if found.has_switched:
            click.echo("the cluster itself switched to other rules; the comparison ends there")
        return
    equal = f"equal up to command {difference.equal_until}"
    click.echo(f"command {difference.sequence} (log entry {difference.log_index}) differs; {equal}")
    for name in ("command", "expected", "found"):
        click.echo(f"{name}: {msgspec.json.encode(getattr(difference, name)).decode()}")
    if difference.records_at is None:
        click.echo("the records of both states could not be compared")
        return
    click.echo(f"records that differ after command {difference.records_at} (expected, found):")
    for record in difference.records:
        fields = ", ".join(f"{name} {pair[0]} {pair[1]}" for name, pair in record.fields.items())
        click.echo(f"  {record.table} {' '.join(map(str, record.key))}: {fields}")
