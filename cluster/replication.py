"""Run the replication divergence test on real processes: `python -m cluster replication` (scripts/test_replication.sh).

Four checks, each printed as one line with PASS or FAIL: (a) nodes end with identical logs, state hashes and trade
counts, with no journal on disk; (b) no file of the data directories grows with orders; (c) a node whose memory is
damaged on purpose is reported, with the first diverging command, within a second of the next command, and the others
go on; (d) a leader killed during the order flow is replaced within three seconds, no acknowledged order is lost and
none is applied twice.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from cluster import corruptible_node
from cluster.cluster_checks import (
    FAILURES,
    CheckFailed,
    changed_files,
    equal_logs,
    file_contents,
    read_events,
)
from cluster.corruptible_node import corrupt
from cluster.order_flow import OrderFlow
from smrx import compiling
from smrx.cli.cluster_status import Agreement, NodeReport, query_cluster
from smrx.client import Client
from smrx.client.admin_client import Ask, open_admin_client
from smrx.local import LocalCluster
from smrx.tape.generate import generate
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import USD_ASSET, setup_failure
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.records import COMMAND, TRANSFER_COMMAND

#: The most time from the kill of a leader to the next leader.
FAILOVER_SECONDS = 3.0
#: The most time from the outcome of the next command until every node names the damaged one.
DETECTION_SECONDS = 1.0
_SEED = 2
#: Attempts to send orders without an election in between: on a loaded machine one may start at any time.
_MAX_TRIES = 4
#: The least duration of the order flow in which the leader is killed.
_KILL_FLOW_SECONDS = 3.0


class ReplicationTest:
    """A running cluster with a market, and the tape that is sent to it."""

    def __init__(self, cluster: LocalCluster, tape: Tape, ask: Ask) -> None:
        self.cluster = cluster
        self.tape = tape
        self.ask = ask
        self.config = cluster.config
        self.flows: list[OrderFlow] = []
        self.node_ids = [node.id for node in cluster.config.nodes]
        with Client(self.config, account=0) as client:
            failure = setup_failure(tape.setup, client.submit(*tape.setup))
        if failure is not None:
            raise CheckFailed(failure)

    def send(self, start: float, end: float, *, seconds: float | None = None) -> OrderFlow:
        """Start to send a share of the tape, as fast as it is answered or evenly over `seconds`."""
        count = len(self.tape.commands)
        commands = self.tape.flow.part(int(start * count), int(end * count))
        flow = OrderFlow(self.config, commands, rate=None if seconds is None else len(commands.records) / seconds)
        flow.start()
        self.flows.append(flow)
        return flow

    def end(self) -> None:
        """Stop every order flow, before the nodes stop."""
        for flow in self.flows:
            flow.end()

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and hash of the files in all data directories."""
        return file_contents(Path(self.config.data_dir))

    def terms(self) -> set[int]:
        """Return the terms of all nodes; they change with every election."""
        return {status.term for status in self.cluster.statuses().values()}


def identical_logs(test: ReplicationTest) -> str:
    """(a) Every node has the same log, state hash and trade count."""
    modes = {status.durability for status in test.cluster.statuses().values()}
    if modes != {"memory"}:
        raise CheckFailed(f"expected nodes with durability memory, found {modes}")
    record = test.send(0.0, 0.4).finish(120)
    reply = equal_logs(test.ask, test.node_ids)
    if reply.sequence < record.last_sequence:
        raise CheckFailed(f"expected all nodes to reach command {record.last_sequence}, found {reply.sequence}")
    if reply.trades == 0:
        raise CheckFailed("there were no trades, so nothing was checked")
    return (
        f"{len(test.node_ids)} nodes agree after {len(record):,} commands, no journal on disk: log index "
        f"{reply.applied_index:,}, log digest {reply.log_digest:016x}, state hash {reply.state_hash:016x}, "
        f"{reply.trades:,} trades"
    )


def no_growth(test: ReplicationTest) -> str:
    """(b) No byte of the data directories changes with orders."""
    for i in range(_MAX_TRIES):
        terms, before = test.terms(), test.files()
        record = test.send(0.4 + 0.2 * i / _MAX_TRIES, 0.4 + 0.2 * (i + 1) / _MAX_TRIES).finish(120)
        equal_logs(test.ask, test.node_ids)
        after = test.files()
        # An election writes term and vote. Only without one does a changed file mean that orders wrote it.
        if len(terms) == 1 and test.terms() == terms:
            break
    else:
        raise CheckFailed(f"there was an election in each of {_MAX_TRIES} attempts")
    found = changed_files(before, after)
    if found:
        raise CheckFailed("; ".join(found))
    return (
        f"the {len(after)} files of the data directories ({sum(size for size, _ in after.values()):,} bytes) are "
        f"unchanged after {len(record):,} commands"
    )


def damaged_memory(test: ReplicationTest) -> str:
    """(c) The damaged node and the first diverging command are reported in time, and the others go on."""
    victim = next(node_id for node_id in test.node_ids if node_id != test.cluster.wait_leader())
    try:
        first, took = _damage(test, victim)
        record = test.send(0.6, 0.8).finish(120)
        equal_logs(test.ask, [node_id for node_id in test.node_ids if node_id != victim])
    finally:
        test.cluster.kill(victim)
        test.cluster.start_node(victim)
    equal_logs(test.ask, test.node_ids, 60)
    return (
        f"node {victim} fenced itself, and every node reports it as DIVERGED at command {first}, {took * 1000:.0f} ms "
        f"after the outcome of that command; the others applied {len(record):,} more commands; after a restart, node "
        f"{victim} agrees again"
    )


def _damage(test: ReplicationTest, victim: int) -> tuple[int, float]:
    """Damage a balance and deposit to it; return the command and the seconds until every node names the victim."""
    account = test.tape.accounts[0]
    with Client(test.config, account=0) as client:
        client.connect()  # The next command of the cluster must be the deposit.
        if not corrupt(test.config, victim, account, USD_ASSET, 1):
            raise CheckFailed(f"node {victim} has no balance of account {account} to damage")
        outcome = client.submit(_deposit(account))[0]
        answered = time.monotonic()
    if outcome["status"] != OutcomeStatus.ACCEPTED:
        raise CheckFailed(f"the deposit was not accepted: {outcome}")
    first = int(outcome["sequence"])
    while True:
        seen = query_cluster(test.ask, test.node_ids).nodes
        took = time.monotonic() - answered
        if took > DETECTION_SECONDS:
            found = {node.node_id: (node.agreement_text, node.status and node.status.diverged) for node in seen}
            raise CheckFailed(
                f"node {victim} was not reported at command {first} within {DETECTION_SECONDS:g} s: {found}"
            )
        if is_reported(seen, victim, first):
            return first, took


def is_reported(seen: Sequence[NodeReport], victim: int, first: int) -> bool:
    """Return whether hashes, the damaged node itself and every other node report it as diverged at this command."""
    for node in seen:
        status = node.status
        if status is None:
            return False
        if node.node_id != victim:
            if status.diverged != {victim: first} or status.fenced is not None:
                return False
        elif (
            node.agreement is not Agreement.DIVERGED
            or node.agreement_sequence != first
            or status.fenced is None
            or (status.agreement.state, status.agreement.sequence) != (Agreement.DIVERGED, first)
        ):
            return False
    return True


def killed_leader(test: ReplicationTest) -> str:
    """(d) The leader is killed during the flow; every acknowledged command is applied once."""
    flow = test.send(0.8, 1.0, seconds=_KILL_FLOW_SECONDS)
    flow.wait_for(len(flow.commands) // 3, 120)
    leader = test.cluster.wait_leader()
    test.cluster.kill(leader)
    killed = time.monotonic()
    before = flow.acknowledged
    successor = test.cluster.wait_leader(FAILOVER_SECONDS, other_than=leader)
    took = time.monotonic() - killed
    record = flow.finish(120)
    if before == len(record):
        raise CheckFailed("the order flow ended before the leader was killed")
    survivors = [node_id for node_id in test.node_ids if node_id != leader]
    state = equal_logs(test.ask, survivors)
    findings = record.check(read_events(test.config, survivors, state.event_sequence))
    if findings:
        raise CheckFailed("; ".join(findings))
    test.cluster.start_node(leader)
    equal_logs(test.ask, test.node_ids, 60)
    return (
        f"killed leader {leader}; node {successor} leads after {took:.2f} s (longest time without an outcome "
        f"{flow.longest_gap_s:.2f} s); {before:,} commands acknowledged before and {len(record) - before:,} after, "
        f"each applied exactly once, in order; node {leader} restarted and agrees"
    )


CHECKS: dict[str, Callable[[ReplicationTest], str]] = {
    "a": identical_logs,
    "b": no_growth,
    "c": damaged_memory,
    "d": killed_leader,
}


@click.command()
@click.option("--commands", default=100_000, show_default=True, help="Commands of the tape, shared by the four checks.")
@click.option("--only", type=click.Choice(list(CHECKS)), multiple=True, help="Run only these checks.")
@click.option("--seed", default=_SEED, show_default=True, help="Seed of the tape.")
def main(commands: int, only: tuple[str, ...], seed: int) -> None:
    """Run the replication divergence test; exit code 1 if a check fails."""
    click.echo(f"replication test: 3 nodes, {commands:,} commands, seed {seed}")
    compiling.compile_engine(click.echo)
    with (
        tempfile.TemporaryDirectory(prefix="smrx-replication-") as folder,
        LocalCluster(folder, program=corruptible_node.PROGRAM) as cluster,
        open_admin_client(cluster.config, 1.0) as ask,
    ):
        cluster.wait_leader()
        test = ReplicationTest(cluster, generate(commands, seed), ask)
        chosen = [check for name, check in CHECKS.items() if not only or name in only]
        try:
            failed = [_name(check) for check in chosen if not _passes(check, test)]
        finally:
            test.end()
    click.echo(f"FAIL: {', '.join(failed)}" if failed else "PASS")
    sys.exit(1 if failed else 0)


def _passes(check: Callable[[ReplicationTest], str], test: ReplicationTest) -> bool:
    """Run one check and print the result."""
    try:
        click.echo(f"PASS {_name(check)} {check(test)}")
    except FAILURES as error:
        click.echo(f"FAIL {check.__doc__} {error}")
        return False
    return True


def _name(check: Callable[[ReplicationTest], str]) -> str:
    return (check.__doc__ or "").split()[0]


def _deposit(account: int) -> np.ndarray:
    """Return a deposit to the damaged balance."""
    command = np.zeros(1, TRANSFER_COMMAND)
    command["kind"], command["account"], command["asset"] = CommandKind.DEPOSIT, account, USD_ASSET
    command["transfer_id"], command["amount"] = 1, 1
    return command.view(COMMAND)


if __name__ == "__main__":
    main()
