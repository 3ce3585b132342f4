"""`smrx cluster`: start, stop and inspect all nodes of a configuration. Parses, calls, prints.

member_commands.py and keygen_command.py hold its other commands.
"""

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
from smrx.cli.upgrade_command import upgrade
from smrx.client.admin_client import open_admin_client
from smrx.config import Config
from smrx.wire.admin import RulesStatus

_COLOURS = {
    Agreement.AGREE: "green",
    Agreement.BEHIND: "yellow",
    Agreement.NOT_COMPARED: "yellow",
    Agreement.DIVERGED: "bold red",
    Agreement.UNREACHABLE: "red",
}
_COLUMNS = (
    "NODE",
    "ROLE",
    "TERM",
    "COMMIT INDEX",
    "APPLIED INDEX",
    "SEQUENCE",
    "STATE HASH",
    "AGREEMENT",
    "LAG",
    "RULES",
)
_POLL_SECONDS = 0.1


@click.group()
def cluster() -> None:
    """Start, stop and inspect the cluster, change its members.

    \b
    Example:
      smrx cluster up
    """


for _command in (keygen, members.add, members.remove, members.transfer, upgrade):
    cluster.add_command(_command)


@cluster.command()
@options.timeout_option(60.0, "Seconds to wait for a leader.")
@click.option(
    "--new",
    "discard",
    is_flag=True,
    help="Start a new, empty exchange: discard all orders, balances and trades, and remove the journals, snapshots, "
    "terms and votes of every node on this machine. No node may be running. Lists what is discarded and asks first.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="With --new: do not ask. Required without a terminal if there are journals or snapshots.",
)
@options.cluster_option
@options.json_option
def up(timeout: float, discard: bool, yes: bool, as_json: bool) -> None:
    """Start all nodes of the configuration on this machine and wait for a leader.

    The nodes run in the background and write their logs to DATA_DIR/node-N.log. Nodes that are already running are not
    touched. If all nodes lost the state they held before, they do not start an empty exchange by themselves; --new does
    that. Discarded data cannot be recovered; `smrx snapshot backup` makes a copy of a running cluster.

    \b
    Example:
      smrx cluster up
      smrx cluster up --new
      smrx cluster up --new --yes
    """
    config, path = options.config(), options.config_path()
    if discard:
        _discard(config, yes)
    # Compile here, or all nodes would wait for the one that compiles first.
    progress.compile_engine(config.data_dir)
    started = [
        node_processes.start_node(config, path, n.id)
        for n in config.nodes
        if node_processes.running_process(config, n.id) is None
    ]
    try:
        seen = _await_leader(config, started, timeout)
    except BaseException:
        node_processes.stop_nodes(config, [process.node_id for process in started])
        raise
    if not as_json:
        what = f"started {len(started)} of {len(config.nodes)} nodes" if started else "all nodes are already running"
        click.echo(f"cluster {config.cluster!r}: {what}, node {seen.leader} leads; logs in {Path(config.data_dir)}/")
    _print(config, seen, as_json)


@cluster.command()
@options.config_option
def down() -> None:
    """Stop the nodes that `smrx cluster up` started.

    With durability = "disk" the exchange continues with `smrx cluster up`: everything acknowledged is in the journals
    and snapshots of its nodes. With durability = "memory" it loses all its data once a majority of its nodes is
    stopped.

    \b
    Example:
      smrx cluster down
    """
    config = options.config()
    durability = _durability(config)
    stopped = node_processes.stop_nodes(config, [node.id for node in config.nodes])
    if not stopped:
        click.echo("no node started by `smrx cluster up` is running")
        return
    click.echo(f"stopped {output.node_list(stopped)}")
    if durability == "disk":
        click.echo(
            f"the exchange is in the journals and snapshots in {Path(config.data_dir)}/; `smrx cluster up` continues it"
        )
    elif len(stopped) * 2 > len(config.nodes):
        click.echo(f"the data of the exchange in memory is lost; {_how_to_begin(config)}")


@cluster.command()
@options.timeout_option(1.0, "Seconds to wait for the answer of a node.")
@options.cluster_option
@options.json_option
def status(timeout: float, as_json: bool) -> None:
    """Show all nodes, and whether their states agree.

    Compares the state hashes of all nodes at N, the last command the leader applied. AGREE at N: the state is that of
    the majority. BEHIND: the node has not applied N yet. DIVERGED at M: its state differs from command M on. NOT
    COMPARED: too few nodes answer. UNREACHABLE: the node does not answer. LAG counts the commands up to N that a node
    has not applied. RULES is the version of the rules in force on the node, and the newest that its program has if that
    is another. Lines below the table name nodes that wait or are fenced, and those whose clock differs too much from
    those of the majority. Exits with 6 if a node has diverged, with 3 if there is no leader.

    \b
    Example:
      smrx cluster status
      smrx cluster status --json
    """
    config = options.config()
    with open_admin_client(config, timeout, options.key_path()) as ask:
        seen = query_cluster(ask, [node.id for node in config.nodes])
    _print(config, seen, as_json)
    if seen.diverged:
        output.exit_with(Exit.DIVERGED)
    if seen.leader is None:
        output.exit_with(Exit.UNAVAILABLE)


def _durability(config: Config) -> str:
    """Return "disk" if any running node writes a journal, whatever the configuration says now."""
    with open_admin_client(config, 0.3) as ask:
        seen = query_cluster(ask, [node.id for node in config.nodes])
    found = {node.status.durability for node in seen.nodes if node.status is not None} or {config.durability}
    return "disk" if "disk" in found else "memory"


def _how_to_begin(config: Config) -> str:
    """Say how an exchange whose nodes lost their state begins again; never advise to remove journals or snapshots."""
    durable = [data.description for data in discard_data.find_durable(config)]
    if not durable:
        return "`smrx cluster up --new` starts an empty exchange"
    return (
        "journals or snapshots of an earlier start are still there, and nothing was removed: "
        f'{"; ".join(durable)}. Start the nodes with durability = "disk" to continue from them'
    )


def _discard(config: Config, yes: bool) -> None:
    """Remove the data of the nodes after confirmation.

    Raises CliError without confirmation, or if a node is running, however it was started.
    """
    with open_admin_client(config, 0.3, options.key_path()) as ask:
        running = [
            str(node.node_id)
            for node in query_cluster(ask, [n.id for n in config.nodes]).nodes
            if node.status is not None
        ]
    if running:
        raise CliError(
            Exit.RESOURCE, f"running: {output.node_list(running)}; stop all nodes before starting a new exchange"
        )
    discard_data.confirm(config, discard_data.find(config), yes)
    node_processes.remove_node_data(config)


def _await_leader(config: Config, started: list[node_processes.ProcessFile], timeout: float) -> ClusterStatus:
    """Return the status once there is a leader and all nodes answer.

    Raises CliError if a node exits, or at the timeout.
    """
    node_ids = [node.id for node in config.nodes]
    deadline = time.monotonic() + timeout
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        while True:
            seen = query_cluster(ask, node_ids)
            if seen.leader is not None and all(node.status is not None for node in seen.nodes):
                return seen
            for process in started:
                code = node_processes.exit_code(process)
                if code is not None:
                    last_line = node_processes.log_tail(config, process.node_id, 1)
                    exit_code = Exit(code) if code in set(Exit) - {Exit.OK} else Exit.INTERNAL
                    raise CliError(exit_code, f"node {process.node_id} exited with code {code}: {last_line}")
            if all(node.status is not None and node.status.role == "learner" for node in seen.nodes):
                raise CliError(
                    Exit.UNAVAILABLE,
                    f"the nodes of cluster {config.cluster!r} held state before, and all of them have lost it; "
                    f"{_how_to_begin(config)}",
                )
            if time.monotonic() > deadline:
                silent = [str(node.node_id) for node in seen.nodes if node.status is None]
                what = f"no answer from {output.node_list(silent)}" if silent else "the cluster has no leader"
                logs = node_processes.log_path(config, node_ids[0]).parent
                raise CliError(Exit.UNAVAILABLE, f"{what} after {timeout:g} s; see the logs in {logs}/")
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
                f"node {node.node_id}: not a member (members: {members}); stop it, or add it with "
                f"`smrx cluster add {node.node_id}`"
            )
            continue
        if node.status is None:
            continue
        diverged = [f"node {other} diverged at command {first}" for other, first in node.status.diverged.items()]
        refused = [
            f"node {peer.node_id} cannot use the snapshots of this node, the leader: {peer.refused_snapshot}"
            for peer in node.status.peers
            if peer.refused_snapshot is not None
        ]
        for note in (node.status.fenced, node.status.waiting, node.status.clock_fault, *diverged, *refused):
            if note:
                click.echo(f"node {node.node_id}: {note}")
    if seen.leader is None:
        click.echo("the cluster has no leader")


def _row(seen: NodeReport) -> list[object]:
    agreement = Text(seen.agreement_text, _COLOURS[seen.agreement])
    status = seen.status
    if status is None:
        return [seen.node_id, *[output.NOTHING] * 6, agreement, output.NOTHING, output.NOTHING]
    return [
        *(seen.node_id, status.role, status.term, status.commit_index, status.applied_index, status.sequence),
        *(output.hex_hash(status.state_hash), agreement, seen.lag, _rules_text(status.rules)),
    ]


def _rules_text(rules: RulesStatus | None) -> str:
    """Return the version in force, and the newest that the program has if it is another."""
    if rules is None:
        return "1"
    return str(rules.in_force) if rules.newest == rules.in_force else f"{rules.in_force} (has {rules.newest})"


def _rules_json(rules: RulesStatus | None) -> dict[str, int]:
    rules = rules or RulesStatus(oldest=1, newest=1, in_force=1)
    return {"in_force": rules.in_force, "oldest": rules.oldest, "newest": rules.newest}


def _as_json(seen: NodeReport, members: frozenset[int] | None) -> dict[str, Any]:
    """Return one node for JSON output. Hashes are text: many JSON readers lose the low bits of large numbers."""
    summary: dict[str, Any] = {
        "node_id": seen.node_id,
        "reachable": seen.status is not None,
        "member": None if members is None else seen.node_id in members,
        "agreement": str(seen.agreement),
        "agreement_sequence": seen.agreement_sequence,
        "agreement_text": seen.agreement_text,
        "lag": seen.lag,
    }
    status = seen.status
    if status is None:
        return summary
    return summary | {
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
        "refused_snapshots": {
            peer.node_id: peer.refused_snapshot for peer in status.peers if peer.refused_snapshot is not None
        },
        "time_ns": status.time_ns,
        "clock_offset_s": status.clock_offset_s,
        "clock_fault": status.clock_fault,
        "uptime_s": status.uptime_s,
        "rss_bytes": status.rss_bytes,
        "cpu_seconds": status.cpu_seconds,
        "durability": status.durability,
        "version": status.version,
        "incarnation": status.incarnation,
        "voters": status.voters,
        "learners": status.learners,
        "rules": _rules_json(status.rules),
    }
