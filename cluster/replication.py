"""The replication divergence test, on real processes: python -m cluster.replication (scripts/test_replication.sh).

Four claims, each PASS or FAIL in one line: (a) nodes end with identical logs, state hashes and trade counts, with no
journal on disk; (b) no file of the data directory grows with orders; (c) a node whose memory is damaged on purpose is
named, with the first diverging command, within a second of the next command, and the others go on; (d) a leader killed
in the middle of the flow is replaced within three seconds, no acknowledged order lost, none doubled.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from cluster.cluster_checks import (
    FAILURES,
    NotProved,
    changed,
    contents,
    equal_logs,
    read_events,
)
from cluster.flow import Flow
from smrx import compiling
from smrx.cli.cluster_status import Agreement, NodeReport, query_cluster
from smrx.client import Client
from smrx.client.admin_client import Ask, open_admin_client
from smrx.local import LocalCluster
from smrx.tape.generate import generate
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import USD_ASSET, setup_failure
from smrx.wire.admin import Corrupt, CorruptReply
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.records import COMMAND

#: A new leader must be there by then.
FAILOVER_SECONDS = 3.0
#: A damaged node must be named by then, counted from the answer to the next command.
DETECTION_SECONDS = 1.0
_SEED = 2
#: A machine under load may hold an election at any time.
_QUIET_TRIES = 4
#: The flow of the killed leader lasts at least this long, so that the kill is in its middle.
_KILL_FLOW_SECONDS = 3.0


class Stage:
    """A running cluster with a market on it, and the tape that plays there."""

    def __init__(self, cluster: LocalCluster, tape: Tape, ask: Ask) -> None:
        self.cluster = cluster
        self.tape = tape
        self.ask = ask
        self.config = cluster.config
        self.flows: list[Flow] = []
        self.node_ids = [node.id for node in cluster.config.nodes]
        with Client(self.config, account=0) as client:
            failure = setup_failure(tape.setup, client.submit(tape.setup))
        if failure is not None:
            raise NotProved(failure)

    def play(self, start: float, end: float, *, seconds: float | None = None) -> Flow:
        """Start to send a share of the tape, as fast as it is answered or evenly over a time."""
        count = len(self.tape.commands)
        commands = self.tape.commands[int(start * count) : int(end * count)]
        flow = Flow(self.config, commands, rate=None if seconds is None else len(commands) / seconds)
        flow.start()
        self.flows.append(flow)
        return flow

    def end(self) -> None:
        """Let no flow outlive the nodes it speaks to."""
        for flow in self.flows:
            flow.end()

    def files(self) -> dict[str, tuple[int, int]]:
        """What is in the files of all data directories."""
        return contents(Path(self.config.data_dir))

    def terms(self) -> set[int]:
        """The terms of all nodes; another set later means that there was an election."""
        return {status.term for status in self.cluster.statuses().values()}


def identical_logs(stage: Stage) -> str:
    """(a) The same log, state hash and trade count on every node."""
    modes = {status.durability for status in stage.cluster.statuses().values()}
    if modes != {"memory"}:
        raise NotProved(f"expected nodes without a journal on disk, found durability {modes}")
    record = stage.play(0.0, 0.4).finish(120)
    reply = equal_logs(stage.ask, stage.node_ids)
    if reply.sequence < record.last_sequence:
        raise NotProved(f"expected all nodes at command {record.last_sequence}, found {reply.sequence}")
    if reply.trades == 0:
        raise NotProved("expected trades, found none: nothing was proved")
    return (
        f"{len(stage.node_ids)} nodes agree after {len(record):,} commands, journal off: log index "
        f"{reply.applied_index:,}, log digest {reply.log_digest:016x}, state hash {reply.state_hash:016x}, "
        f"{reply.trades:,} trades"
    )


def no_growth(stage: Stage) -> str:
    """(b) Not one byte of a data directory changes with orders."""
    for i in range(_QUIET_TRIES):
        terms, before = stage.terms(), stage.files()
        record = stage.play(0.4 + 0.2 * i / _QUIET_TRIES, 0.4 + 0.2 * (i + 1) / _QUIET_TRIES).finish(120)
        equal_logs(stage.ask, stage.node_ids)
        after = stage.files()
        # An election writes term and vote, orders or not: what orders write is seen where there was none.
        if len(terms) == 1 and stage.terms() == terms:
            break
    else:
        raise NotProved(f"expected orders without an election, found one in each of {_QUIET_TRIES} tries")
    found = changed(before, after)
    if found:
        raise NotProved("; ".join(found))
    return (
        f"{len(record):,} commands later the {len(after)} files of the data directories, "
        f"{sum(size for size, _ in after.values()):,} bytes, are byte for byte what they were"
    )


def damaged_memory(stage: Stage) -> str:
    """(c) The damaged node and the first diverging command are named in time, and the others go on."""
    victim = next(node_id for node_id in stage.node_ids if node_id != stage.cluster.wait_leader())
    try:
        first, took = _damage(stage, victim)
        record = stage.play(0.6, 0.8).finish(120)
        equal_logs(stage.ask, [node_id for node_id in stage.node_ids if node_id != victim])
    finally:
        stage.cluster.kill(victim)
        stage.cluster.start_node(victim)
    equal_logs(stage.ask, stage.node_ids, 60)
    return (
        f"node {victim} fenced itself, and every node names it DIVERGED at {first}, {took * 1000:.0f} ms after the "
        f"answer to that command; the others went on with {len(record):,} commands; restarted, it agrees again"
    )


def _damage(stage: Stage, victim: int) -> tuple[int, float]:
    """Damage a balance and touch it; return the command that did, and how long it took until all had named it."""
    account = stage.tape.accounts[0]
    with Client(stage.config, account=0) as client:
        client.connect()  # So that the next command of all is the one that meets the damage.
        reply = stage.ask(victim, Corrupt(account=account, asset=USD_ASSET, delta=1))
        if not isinstance(reply, CorruptReply) or not reply.done:
            raise NotProved(f"expected node {victim} to damage its memory as asked, found {reply}")
        outcome = client.submit(_deposit(account))[0]
        answered = time.monotonic()
    if outcome["status"] != OutcomeStatus.ACCEPTED:
        raise NotProved(f"expected the deposit to be accepted, found {outcome}")
    first = int(outcome["sequence"])
    while True:
        seen = query_cluster(stage.ask, stage.node_ids).nodes
        took = time.monotonic() - answered
        if took > DETECTION_SECONDS:
            found = {node.node_id: (node.agreement_text, node.status and node.status.diverged) for node in seen}
            raise NotProved(
                f"expected node {victim} named with command {first} within {DETECTION_SECONDS:g} s, found {found}"
            )
        if named(seen, victim, first):
            return first, took


def named(seen: Sequence[NodeReport], victim: int, first: int) -> bool:
    """Whether the hashes, the node itself and every other node name the damaged node and the command it was met by."""
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


def killed_leader(stage: Stage) -> str:
    """(d) SIGKILL for the leader in the middle of the flow; the client's own record must hold."""
    flow = stage.play(0.8, 1.0, seconds=_KILL_FLOW_SECONDS)
    flow.wait_for(len(flow.commands) // 3, 120)
    leader = stage.cluster.wait_leader()
    stage.cluster.kill(leader)
    killed = time.monotonic()
    before = flow.acknowledged
    successor = stage.cluster.wait_leader(FAILOVER_SECONDS, other_than=leader)
    took = time.monotonic() - killed
    record = flow.finish(120)
    if before == len(record):
        raise NotProved("the flow had ended before the leader was killed")
    survivors = [node_id for node_id in stage.node_ids if node_id != leader]
    state = equal_logs(stage.ask, survivors)
    findings = record.check(read_events(stage.config, survivors, state.event_sequence))
    if findings:
        raise NotProved("; ".join(findings))
    stage.cluster.start_node(leader)
    equal_logs(stage.ask, stage.node_ids, 60)
    return (
        f"leader {leader} killed, node {successor} leads after {took:.2f} s (longest silence for the client "
        f"{flow.longest_silence:.2f} s); {before:,} commands acknowledged before and "
        f"{len(record) - before:,} after, each applied exactly once, in order; "
        f"node {leader} is back and agrees"
    )


CLAIMS: dict[str, Callable[[Stage], str]] = {
    "a": identical_logs,
    "b": no_growth,
    "c": damaged_memory,
    "d": killed_leader,
}


@click.command()
@click.option("--commands", default=100_000, show_default=True, help="Commands of the tape, shared by the four claims.")
@click.option("--only", type=click.Choice(list(CLAIMS)), multiple=True, help="Test these claims only.")
@click.option("--seed", default=_SEED, show_default=True, help="Seed of the tape.")
def main(commands: int, only: tuple[str, ...], seed: int) -> None:
    """Run the replication divergence test; exit with 1 if a claim fails."""
    click.echo(f"replication test: 3 nodes, {commands:,} commands, seed {seed}")
    compiling.compile_engine(click.echo)
    with (
        tempfile.TemporaryDirectory(prefix="smrx-replication-") as folder,
        LocalCluster(folder, node_options=("--allow-corruption",)) as cluster,
        open_admin_client(cluster.config, 1.0) as ask,
    ):
        cluster.wait_leader()
        stage = Stage(cluster, generate(commands, seed), ask)
        chosen = [claim for name, claim in CLAIMS.items() if not only or name in only]
        try:
            failed = [_name(claim) for claim in chosen if not _holds(claim, stage)]
        finally:
            stage.end()
    click.echo(f"FAIL: {', '.join(failed)}" if failed else "PASS")
    sys.exit(1 if failed else 0)


def _holds(claim: Callable[[Stage], str], stage: Stage) -> bool:
    """Test one claim and say how it went."""
    try:
        click.echo(f"PASS {_name(claim)} {claim(stage)}")
    except FAILURES as error:
        click.echo(f"FAIL {claim.__doc__} {error}")
        return False
    return True


def _name(claim: Callable[[Stage], str]) -> str:
    return (claim.__doc__ or "").split()[0]


def _deposit(account: int) -> np.ndarray:
    """The command that touches the damaged balance next."""
    command = np.zeros(1, COMMAND)
    command["kind"], command["account"], command["instrument"] = CommandKind.DEPOSIT, account, USD_ASSET
    command["order_id"], command["quantity_lots"] = 1, 1
    return command


if __name__ == "__main__":
    main()
