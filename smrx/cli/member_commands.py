"""`smrx cluster add`, `remove` and `transfer`: who belongs to the cluster, and who leads it. Parses, calls, prints."""

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


def _timeout(seconds: float, what: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    kind = click.FloatRange(min=0, min_open=True)
    return click.option(
        "--timeout", type=kind, default=seconds, show_default=True, help=f"Seconds to wait until {what}."
    )


@click.command()
@click.argument("node_id", type=int, metavar="NODE")
@_timeout(60.0, "it has the log and its vote")
@options.config_option
@options.json_option
def add(node_id: int, timeout: float, as_json: bool) -> None:
    """Make a node a member of the running cluster.

    Write the node into the cluster file (with its public key, if the links have keys), start it there with `smrx node
    --id NODE`, and run this. It gets the state and the log first, while orders flow, and its vote after that. Give the
    new cluster file to the other machines, too: their nodes read it when they start the next time.

    \b
    Example:
      smrx cluster add 4
    """
    config = options.config()
    node = config.node(node_id)
    with open_admin_client(config, 1.0) as ask:
        leader = _leader(ask, config)
        if node_id in leader.voters:
            _say(as_json, leader, f"node {node_id} is a member already")
            return
        if node_id not in leader.learners:
            _ask(ask, leader.node_id, admin.AddMember(node=node))
        what = f"node {node_id} to get its vote: is it running, and does it know the others?"
        found = _await(ask, config, timeout, what, lambda status: node_id in status.voters)
    _say(as_json, found, f"node {node_id} is a member with a vote")


@click.command()
@click.argument("node_id", type=int, metavar="NODE")
@_timeout(10.0, "the others have agreed")
@options.config_option
@options.json_option
def remove(node_id: int, timeout: float, as_json: bool) -> None:
    """Make a node no member of the cluster any more; a node that runs ends by itself.

    A leader lets another node lead first. A dead node is replaced by removing it and adding one, under its own number
    or another. The last node stays.

    \b
    Example:
      smrx cluster remove 2
    """
    config = options.config()
    with open_admin_client(config, 1.0) as ask:
        leader = _leader(ask, config)
        if node_id not in (*leader.voters, *leader.learners):
            _say(as_json, leader, f"node {node_id} is no member")
            return
        if leader.node_id == node_id:
            successor = _hand_over(ask, node_id, None)
            what = f"node {successor} to lead"
            leader = _await(ask, config, timeout, what, lambda status: status.node_id == successor)
        reply = _ask(ask, leader.node_id, admin.RemoveMember(node_id=node_id))
        assert isinstance(reply, admin.MembersReply)

        def done(status: NodeStatus) -> bool:
            return status.commit_index >= reply.log_index and node_id not in (*status.voters, *status.learners)

        found = _await(ask, config, timeout, "a majority of those that stay to agree", done)
    _say(as_json, found, f"node {node_id} is no member any more")


@click.command()
@click.argument("successor", type=int, required=False, metavar="[NODE]")
@_timeout(5.0, "the other leads")
@options.config_option
@options.json_option
def transfer(successor: int | None, timeout: float, as_json: bool) -> None:
    """Let another node lead: NODE, or the one that has most of the log.

    The leader takes no new commands until its successor has everything and was elected, a few milliseconds; clients
    find the new leader and send again what was not answered. No request fails. A node that is stopped in the ordinary
    way does the same by itself. Prints after how many milliseconds the other was seen to lead; what clients notice is
    measured by `smrx bench failover --transfers`.

    \b
    Example:
      smrx cluster transfer
      smrx cluster transfer 2
    """
    config = options.config()
    if successor is not None:
        config.node(successor)
    with open_admin_client(config, 1.0) as ask:
        before = _leader(ask, config).node_id
        took_ms = 0.0
        if before != successor:
            asked = time.perf_counter()
            successor = _hand_over(ask, before, successor)
            _await(ask, config, timeout, f"node {successor} to lead", lambda status: status.node_id == successor)
            took_ms = round(1000 * (time.perf_counter() - asked), 1)
    if as_json:
        output.print_json({"from": before, "to": successor, "seen_after_ms": took_ms})
    elif before == successor:
        click.echo(f"node {successor} leads already")
    else:
        click.echo(f"node {successor} leads, after node {before}; seen {took_ms} ms after it was asked for")


def _leader(ask: Ask, config: Config) -> NodeStatus:
    """What the leader says of itself; raises CliError if there is none."""
    seen = query_cluster(ask, [node.id for node in config.nodes])
    status = next((node.status for node in seen.nodes if node.node_id == seen.leader), None)
    if status is None:
        raise CliError(Exit.UNAVAILABLE, "no node leads; see smrx cluster status")
    return status


def _await(ask: Ask, config: Config, timeout: float, what: str, condition: Callable[[NodeStatus], bool]) -> NodeStatus:
    """The leader's status once it fits; raises CliError when time is up. A change of leaders is waited through."""
    deadline = time.monotonic() + timeout
    while True:
        for node in config.nodes:
            status = ask(node.id, admin.Status())
            if isinstance(status, NodeStatus) and status.role == "leader" and condition(status):
                return status
        if time.monotonic() > deadline:
            raise CliError(Exit.UNAVAILABLE, f"waited {timeout:g} s for {what}; see smrx cluster status")
        time.sleep(_POLL_SECONDS)


def _ask(ask: Ask, node_id: int, request: admin.AnyRequest) -> admin.AnyReply:
    """A leader's answer; raises CliError where it refuses or is silent."""
    reply = ask(node_id, request)
    if reply is None or isinstance(reply, admin.AdminError):
        said = "no answer" if reply is None else reply.message
        raise CliError(Exit.UNAVAILABLE, f"node {node_id}: {said}")
    return reply


def _hand_over(ask: Ask, leader: int, successor: int | None) -> int:
    """Ask the leader to let another node lead; returns which. Raises CliError."""
    reply = _ask(ask, leader, admin.TransferLeadership(successor=successor))
    assert isinstance(reply, admin.TransferLeadershipReply)
    return reply.successor


def _say(as_json: bool, leader: NodeStatus, what: str) -> None:
    if as_json:
        output.print_json({"leader": leader.node_id, "voters": leader.voters, "learners": leader.learners})
        return
    members = [*map(str, leader.voters), *(f"{node} (learns)" for node in leader.learners)]
    click.echo(f"{what}; members: {', '.join(members)}")
