"""`smrx cluster upgrade`: switch a running cluster to the next version of the rules. Parses, calls, prints."""

import time

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.cluster_status import ClusterStatus, query_cluster
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask, open_admin_client
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import AdminErrorCode, NodeStatus

_POLL_SECONDS = 0.01


@click.command()
@options.timeout_option(10.0, "Seconds to wait until every member applies the new rules.")
@options.cluster_option
@options.json_option
def upgrade(timeout: float, as_json: bool) -> None:
    """Switch the cluster to the next version of the rules.

    Before this, replace the program of every node, one node after the other. Until the switch all nodes apply the old
    rules, and each can return to its old program; after it no program without the new version can be a member. The
    leader logs the switch once every member, learners included, has said that it has the version, and refuses it
    otherwise. Exits with 4 if a member lacks the version. `smrx cluster status` shows which versions each node has.

    \b
    Example:
      smrx cluster upgrade
    """
    config = options.config()
    node_ids = [node.id for node in config.nodes]
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        leader = _leader(query_cluster(ask, node_ids))
        newest = 1 if leader.rules is None else leader.rules.newest
        in_force = 1 if leader.rules is None else leader.rules.in_force
        if in_force == newest:
            _print(as_json, in_force, False, f"version {in_force} of the rules is in force, the newest of the leader")
            return
        reply = ask(leader.node_id, admin.UpgradeRules())
        if not isinstance(reply, admin.UpgradeRulesReply):
            raise _refused(leader.node_id, reply)
        _await(ask, config, reply.version, timeout)
    _print(as_json, reply.version, True, f"version {reply.version} of the rules is in force on every member")


def _leader(seen: ClusterStatus) -> NodeStatus:
    status = next((node.status for node in seen.nodes if node.node_id == seen.leader), None)
    if status is None:
        raise CliError(Exit.UNAVAILABLE, "the cluster has no leader; see `smrx cluster status`")
    return status


def _refused(leader: int, reply: admin.AnyReply | None) -> CliError:
    if isinstance(reply, admin.AdminError) and reply.code == AdminErrorCode.REFUSED:
        return CliError(Exit.REFUSED, reply.message)
    problem = reply.message if isinstance(reply, admin.AdminError) else "no answer"
    return CliError(Exit.UNAVAILABLE, f"node {leader}: {problem}")


def _await(ask: Ask, config: Config, version: int, timeout: float) -> None:
    """Return once every member applies a version; raises CliError at the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        seen = query_cluster(ask, [node.id for node in config.nodes])
        members = seen.members or frozenset()
        lacking = [
            node.node_id
            for node in seen.nodes
            if node.node_id in members
            and (node.status is None or node.status.rules is None or node.status.rules.in_force < version)
        ]
        if members and not lacking:
            return
        if time.monotonic() > deadline:
            who = output.node_list(lacking) if lacking else "a leader"
            raise CliError(
                Exit.UNAVAILABLE,
                f"the switch to version {version} of the rules is in the log; {who} did not report it within "
                f"{timeout:g} s; see `smrx cluster status`",
            )
        time.sleep(_POLL_SECONDS)


def _print(as_json: bool, in_force: int, switched: bool, text: str) -> None:
    if as_json:
        output.print_json({"in_force": in_force, "switched": switched})
    else:
        click.echo(text)
