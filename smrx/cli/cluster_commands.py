"""`smrx cluster`: the whole cluster of a configuration. Parses, calls, prints."""

import time
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from smrx.cli import discard_data, node_processes, options, output, progress
from smrx.cli import member_commands as members
from smrx.cli.cli_errors import CliError
from smrx.cli.cluster_status import Agreement, ClusterStatus, NodeReport, query_cluster
from smrx.cli.exit_codes import Exit
from smrx.cli.keygen_command import keygen
from smrx.client.admin_client import open_admin_client
from smrx.config import Config

_COLOURS = {
    Agreement.AGREE: "green",
    Agreement.BEHIND: "yellow",
    Agreement.NOT_COMPARED: "yellow",
    Agreement.DIVERGED: "bold red",
    Agreement.UNREACHABLE: "red",
}
_COLUMNS = ("NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "SEQUENCE", "STATE HASH", "AGREEMENT", "LAG")
_POLL_SECONDS = 0.1


@click.group()
def cluster() -> None:
    """Start, stop and inspect the whole cluster.

    \b
    Example:
      smrx cluster up
    """


for _command in (keygen, members.add, members.remove, members.transfer):
    cluster.add_command(_command)


@cluster.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a leader.",
)
@click.option(
    "--new",
    "begin_anew",
    is_flag=True,
    help="Begin a new, empty exchange: give up all orders, balances and trades, and remove the journals, snapshots, "
    "terms and votes of every node on this machine. No node may be running. Names what is given up, and asks first.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="With --new: do not ask. Needed without a terminal where there are journals or snapshots.",
)
@options.config_option
@options.json_option
def up(timeout: float, begin_anew: bool, yes: bool, as_json: bool) -> None:
    """Start every node of the configuration on this machine and wait for a leader.

    The nodes go on without this terminal. Each writes its log to DATA_DIR/node-N.log. Nodes that run already are left
    alone. Nodes that held state before and find nobody who still has it do not begin anew by themselves: --new does
    that, and what they had cannot be brought back. `smrx snapshot backup` keeps a copy of a running cluster.

    \b
    Example:
      smrx cluster up
      smrx cluster up --new
      smrx cluster up --new --yes
    """
    config, path = options.config(), options.config_path()
    if begin_anew:
        _forget(config, yes)
    # Here and not in the nodes, which would all do it at once.
    progress.compile_engine()
    started = [
        node_processes.start_node(config, path, n.id)
        for n in config.nodes
        if node_processes.running_process(config, n.id) is None
    ]
    try:
        seen = _await_leader(config, started, time.monotonic() + timeout)
    except BaseException:
        node_processes.stop_nodes(config, [process.node_id for process in started])
        raise
    if not as_json:
        what = f"started {len(started)} of {len(config.nodes)} nodes" if started else "all nodes were running already"
        click.echo(f"cluster {config.cluster!r}: {what}, node {seen.leader} leads; logs in {Path(config.data_dir)}/")
    _print(config, seen, as_json)


@cluster.command()
@options.config_option
def down() -> None:
    """Stop the nodes that `smrx cluster up` started.

    With durability in memory, what the exchange held goes with the last majority of its nodes.

    \b
    Example:
      smrx cluster down
    """
    config = options.config()
    stopped = node_processes.stop_nodes(config, [node.id for node in config.nodes])
    if not stopped:
        click.echo("no node that `smrx cluster up` started is running")
        return
    click.echo(f"stopped node {', '.join(map(str, stopped))}")
    if len(stopped) * 2 > len(config.nodes):
        click.echo("what the exchange held in memory is gone; `smrx cluster up --new` begins an empty one")


@cluster.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds a node has to answer.",
)
@options.config_option
@options.json_option
def status(timeout: float, as_json: bool) -> None:
    """Show every node, and whether their states agree.

    The state hashes of all nodes are compared at the sequence the leader has applied: AGREE at N; BEHIND where a node
    has not got there; DIVERGED at N, the first command after which its state differs; UNREACHABLE. Exits with 6 if a
    node has diverged, with 3 if there is no leader.

    \b
    Example:
      smrx cluster status
      smrx cluster status --json
    """
    config = options.config()
    with open_admin_client(config, timeout) as ask:
        seen = query_cluster(ask, [node.id for node in config.nodes])
    _print(config, seen, as_json)
    if seen.diverged:
        output.exit_with(Exit.DIVERGED)
    if seen.leader is None:
        output.exit_with(Exit.UNAVAILABLE)


def _forget(config: Config, yes: bool) -> None:
    """Remove what the nodes have of earlier lives, once that is agreed to.

    Raises CliError if it is not, or if a node is running, however it was started.
    """
    with open_admin_client(config, 0.3) as ask:
        alive = [
            str(node.node_id)
            for node in query_cluster(ask, [n.id for n in config.nodes]).nodes
            if node.status is not None
        ]
    if alive:
        raise CliError(Exit.RESOURCE, f"node {', '.join(alive)} is running; stop it before a new exchange begins")
    discard_data.agree_to(config, discard_data.found(config), yes)
    node_processes.remove_node_data(config)


def _await_leader(config: Config, started: list[node_processes.ProcessFile], deadline: float) -> ClusterStatus:
    """The cluster as soon as it has a leader and every node answers; raises CliError when a node ends or time is up."""
    node_ids = [node.id for node in config.nodes]
    with open_admin_client(config, 1.0) as ask:
        while True:
            seen = query_cluster(ask, node_ids)
            if seen.leader is not None and all(node.status is not None for node in seen.nodes):
                return seen
            for process in started:
                code = node_processes.exit_code(process)
                if code is not None:
                    words = node_processes.log_tail(config, process.node_id, 1)
                    meaning = Exit(code) if code in set(Exit) - {Exit.OK} else Exit.INTERNAL
                    raise CliError(meaning, f"node {process.node_id} ended with {code}: {words}")
            if all(node.status is not None and node.status.role == "learner" for node in seen.nodes):
                raise CliError(
                    Exit.UNAVAILABLE,
                    f"every node of cluster {config.cluster!r} held state before and none has it still; "
                    "`smrx cluster up --new` begins an empty exchange and gives up what they held",
                )
            if time.monotonic() > deadline:
                silent = [str(node.node_id) for node in seen.nodes if node.status is None]
                what = f"node {', '.join(silent)} does not answer" if silent else "no node leads"
                logs = node_processes.log_path(config, node_ids[0]).parent
                raise CliError(Exit.UNAVAILABLE, f"{what}; see the logs in {logs}/")
            time.sleep(_POLL_SECONDS)


def _print(config: Config, seen: ClusterStatus, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "cluster": config.cluster,
                "leader": seen.leader,
                "compared_at": seen.compared_at,
                "diverged": seen.diverged,
                "nodes": [_as_json(node, seen.members) for node in seen.nodes],
            }
        )
        return
    output.print_table(_COLUMNS, map(_row, seen.nodes), empty="no nodes")
    for node in seen.nodes:
        if seen.members is not None and node.node_id not in seen.members:
            members = ", ".join(map(str, sorted(seen.members)))
            click.echo(
                f"node {node.node_id}: no member (the members are {members}): it was removed, or not added yet; stop "
                f"it, or see `smrx cluster add {node.node_id}`"
            )
            continue
        if node.status is None:
            continue
        found = [f"node {other} diverged at command {first}" for other, first in node.status.diverged.items()]
        for what in (node.status.fenced, node.status.waiting, *found):
            if what:
                click.echo(f"node {node.node_id}: {what}")
    if seen.leader is None:
        click.echo("no node leads")


def _row(seen: NodeReport) -> list[object]:
    verdict = Text(seen.verdict, _COLOURS[seen.agreement])
    status = seen.status
    if status is None:
        return [seen.node_id, *[output.NOTHING] * 6, verdict, output.NOTHING]
    return [
        *(seen.node_id, status.role, status.term, status.commit_index, status.applied_index, status.sequence),
        *(output.hex_hash(status.state_hash), verdict, seen.lag),
    ]


def _as_json(seen: NodeReport, members: frozenset[int] | None) -> dict[str, Any]:
    """One node as a program reads it; a hash as text, because JSON numbers lose its low bits in many readers."""
    told: dict[str, Any] = {
        "node_id": seen.node_id,
        "reachable": seen.status is not None,
        "member": None if members is None else seen.node_id in members,
        "agreement": str(seen.agreement),
        "agreement_sequence": seen.at,
        "verdict": seen.verdict,
        "lag": seen.lag,
    }
    status = seen.status
    if status is None:
        return told
    return told | {
        "role": status.role,
        "term": status.term,
        "leader_id": status.leader_id,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "last_log_index": status.last_log_index,
        "sequence": status.sequence,
        "event_sequence": status.event_sequence,
        "trades": status.trades,
        "orders_open": status.orders_open,
        "accounts": status.accounts,
        "state_hash": output.hex_hash(status.state_hash),
        "fenced": status.fenced,
        "waiting": status.waiting,
        "first_divergent_sequence": status.first_divergent_sequence,
        "diverged": status.diverged,
        "uptime_s": status.uptime_s,
        "rss_bytes": status.rss_bytes,
        "cpu_seconds": status.cpu_seconds,
        "durability": status.durability,
        "version": status.version,
        "incarnation": status.incarnation,
        "voters": status.voters,
        "learners": status.learners,
    }
