"""`smrx cluster add`, `remove` and `transfer`: change members and the leader. Parses, calls, prints."""

import time
from collections.abc import Callable

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.cluster_status import query_cluster
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask, open_admin_client
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import NodeStatus

_POLL_SECONDS = 0.01


@click.command()
@click.argument("node_id", type=int, metavar="NODE")
@options.timeout_option(60.0, "Seconds to wait until the node votes.")
@options.cluster_option
@options.json_option
def add(node_id: int, timeout: float, as_json: bool) -> None:
    """Add a node to the running cluster.

    Before this, add the node to the cluster file (with its public key, if members have keys) and start it on its
    machine with `smrx node --id NODE`. The node first receives the state and the log as a learner, while orders flow,
    and then gets a vote. Copy the new cluster file to the other machines too; their nodes read it at their next start.

    \b
    Example:
      smrx cluster add 4
    """
    config = options.config()
    node = config.node(node_id)
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        leader = _leader(ask, config)
        if node_id in leader.voters:
            _print_members(as_json, leader, f"node {node_id} is already a member")
            return
        if node_id not in leader.learners:
            _change(ask, leader.node_id, admin.AddMember(node=node), timeout)
        what = f"node {node_id} did not become a voter"
        found = _await(ask, config, timeout, what, lambda status: node_id in status.voters)
    _print_members(as_json, found, f"node {node_id} is now a voting member")


@click.command()
@click.argument("node_id", type=int, metavar="NODE")
@options.timeout_option(10.0, "Seconds to wait until the change is committed.")
@options.cluster_option
@options.json_option
def remove(node_id: int, timeout: float, as_json: bool) -> None:
    """Remove a node from the cluster. If it is running, it exits.

    If the node is the leader, leadership is transferred first. To replace a dead node, remove it and add a new one,
    with the same id or another. The last node cannot be removed.

    \b
    Example:
      smrx cluster remove 2
    """
    config = options.config()
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        leader = _leader(ask, config)
        if node_id not in (*leader.voters, *leader.learners):
            _print_members(as_json, leader, f"node {node_id} is not a member")
            return
        if leader.node_id == node_id:
            successor = _transfer(ask, node_id, None)
            what = f"node {successor} did not become leader"
            leader = _await(ask, config, timeout, what, lambda status: status.node_id == successor)
        log_index = _change(ask, leader.node_id, admin.RemoveMember(node_id=node_id), timeout)

        def done(status: NodeStatus) -> bool:
            return status.commit_index >= log_index and node_id not in (*status.voters, *status.learners)

        found = _await(
            ask, config, timeout, "the removal was not committed by a majority of the remaining members", done
        )
    _print_members(as_json, found, f"node {node_id} is removed")


@click.command()
@click.argument("successor", type=int, required=False, metavar="[NODE]")
@options.timeout_option(5.0, "Seconds to wait for the new leader.")
@options.cluster_option
@options.json_option
def transfer(successor: int | None, timeout: float, as_json: bool) -> None:
    """Transfer leadership to NODE, or to the node that has most of the log.

    The leader accepts no new commands until its successor has the whole log and is elected, which takes a few
    milliseconds. Clients find the new leader and resend unanswered requests; no request fails. A leader that is stopped
    with SIGTERM transfers its leadership in the same way. Prints the time until the new leader was observed. `smrx
    bench failover --transfers` measures the time during which clients get no answer.

    \b
    Example:
      smrx cluster transfer
      smrx cluster transfer 2
    """
    config = options.config()
    if successor is not None:
        config.node(successor)
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        before = _leader(ask, config).node_id
        took_ms = 0.0
        if before != successor:
            asked = time.perf_counter()
            successor = _transfer(ask, before, successor)
            _await(
                ask,
                config,
                timeout,
                f"node {successor} did not become leader",
                lambda status: status.node_id == successor,
            )
            took_ms = round(1000 * (time.perf_counter() - asked), 1)
    if as_json:
        output.print_json({"from": before, "to": successor, "seen_after_ms": took_ms})
    elif before == successor:
        click.echo(f"node {successor} is already the leader")
    else:
        click.echo(f"leadership transferred from node {before} to node {successor}, observed after {took_ms} ms")


def _leader(ask: Ask, config: Config) -> NodeStatus:
    """Return the status of the leader; raises CliError if there is none."""
    seen = query_cluster(ask, [node.id for node in config.nodes])
    status = next((node.status for node in seen.nodes if node.node_id == seen.leader), None)
    if status is None:
        raise CliError(Exit.UNAVAILABLE, "the cluster has no leader; see `smrx cluster status`")
    return status


def _await(
    ask: Ask, config: Config, timeout: float, failure: str, condition: Callable[[NodeStatus], bool]
) -> NodeStatus:
    """Return the status of the leader once it meets the condition, across changes of leaders.

    Raises CliError with the text `failure` at the timeout.
    """
    deadline = time.monotonic() + timeout
    while True:
        for node in config.nodes:
            status = ask(node.id, admin.Status())
            if isinstance(status, NodeStatus) and status.role == "leader" and condition(status):
                return status
        if time.monotonic() > deadline:
            raise CliError(Exit.UNAVAILABLE, f"{failure} within {timeout:g} s; see `smrx cluster status` and the logs")
        time.sleep(_POLL_SECONDS)


def _change(ask: Ask, leader: int, request: admin.AddMember | admin.RemoveMember, timeout: float) -> int:
    """Ask the leader for a change of members, again while an earlier one is not committed; return its log index.

    Raises CliError if the leader refuses, does not answer, or still waits for the earlier change at the timeout.
    """
    deadline = time.monotonic() + timeout
    while True:
        reply = ask(leader, request)
        is_pending = isinstance(reply, admin.AdminError) and reply.code == admin.AdminErrorCode.UNAVAILABLE
        if not is_pending or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    answer = _answered(leader, reply)
    assert isinstance(answer, admin.MembersReply)
    return answer.log_index


def _ask(ask: Ask, node_id: int, request: admin.AnyRequest) -> admin.AnyReply:
    """Return the answer of a node; raises CliError if it refuses or does not answer."""
    return _answered(node_id, ask(node_id, request))


def _answered(node_id: int, reply: admin.AnyReply | None) -> admin.AnyReply:
    if reply is None or isinstance(reply, admin.AdminError):
        problem = "no answer" if reply is None else reply.message
        raise CliError(Exit.UNAVAILABLE, f"node {node_id}: {problem}")
    return reply


def _transfer(ask: Ask, leader: int, successor: int | None) -> int:
    """Ask the leader to transfer its leadership; return the successor. Raises CliError."""
    reply = _ask(ask, leader, admin.TransferLeadership(successor=successor))
    assert isinstance(reply, admin.TransferLeadershipReply)
    return reply.successor


def _print_members(as_json: bool, leader: NodeStatus, result: str) -> None:
    if as_json:
        output.print_json({"leader": leader.node_id, "voters": leader.voters, "learners": leader.learners})
        return
    members = [*map(str, leader.voters), *(f"{node} (learner)" for node in leader.learners)]
    click.echo(f"{result}; members: {', '.join(members)}")
