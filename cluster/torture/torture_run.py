"""Run one cluster of real processes under faults and check the result.

In order: nodes and a verifier start; the venue sets up its market; clients send orders while the nemesis injects the
faults of the plan; then everything is repaired. After the repair an order must be acknowledged within five election
timeouts, every client must receive its outcomes, every node must reach the same state and everything must be settled.
At last the records of nodes and clients must satisfy the checker of the simulator, and what was settled must equal what
the log leads to.
"""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster.cluster_checks import FAILURES, equal_logs
from cluster.torture.cluster_under_test import NODE, ClusterUnderTest, WorkloadClients
from cluster.torture.fault_plan import Durability, Fault, draw_plan
from cluster.torture.gateway_processes import GATEWAY, GatewayProcesses
from cluster.torture.nemesis import Nemesis
from cluster.torture.record_check import HistoryFigures, check_history
from cluster.torture.record_pipe import PipeReader, RecordStream, RecordWriter
from cluster.torture.verifier_process import SettlementResult, VerifierProcess
from cluster.torture.workload_client import RecordingClient
from smrx.client import Client
from smrx.client.admin_client import Ask, open_admin_client
from smrx.client.client_errors import ClientError
from smrx.config import Config
from smrx.consensus.snapshot_files import SnapshotError
from smrx.node.log_reader import open_node_log, verify_log
from smrx.sim import workload
from smrx.sim.checker import Checker, Violation
from smrx.sim.recovery_checks import PROGRESS_TIMEOUTS
from smrx.wire.admin import NodeStatus, Status

#: The accounts of the clients, and how long each waits for an result: some shorter than a fault, some longer.
CLIENT_TIMEOUTS_S: Final = {1: 30.0, 2: 2.0, 3: 30.0, 4: 4.0}
#: The account of the order that must be acknowledged after the repair.
_PROBE: Final = 5
_ASK_SECONDS: Final = 0.3
_SETUP_SECONDS: Final = 60.0
_EQUAL_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 90.0
#: One in so many runs in memory mode loses a majority at its end; and how long the cluster must not acknowledge then.
_LOSE_MAJORITY_EVERY: Final = 3
_BLOCKED_SECONDS: Final = 4.0
_WAITING_FOR_STATE: Final = "waiting for a majority that holds state"
#: The most by which the allowed time is extended on a machine with more running processes than cores.
_MAX_LOAD_FACTOR: Final = 10.0


@dataclass
class RunResult:
    """The result of one run."""

    seed: int
    nodes: int
    durability: Durability
    seconds: float
    #: The check that failed; None if all passed.
    failure: str | None = None
    timeline: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    history: HistoryFigures | None = None
    settlement: SettlementResult | None = None
    #: From the repair to the first acknowledged order, and how long that may take.
    recovery_s: float | None = None
    allowed_s: float | None = None
    #: The folder with logs and data, if the run failed.
    folder: Path | None = None

    @property
    def command(self) -> str:
        """The command that repeats the plan of this run; the course of the run may differ."""
        return (
            f"python -m cluster torture --seed {self.seed} --durability {self.durability} --nodes {self.nodes} "
            f"--fault-seconds {self.seconds:g}"
        )


def run_torture(
    seed: int,
    *,
    nodes: int = 3,
    durability: Durability = "memory",
    seconds: float = 60.0,
    program: Sequence[str] = NODE,
    gateway_program: Sequence[str] = GATEWAY,
    report: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Run one cluster; what failed is in the result, and the folder of a failed run is kept.

    `program`, `gateway_program`: what a process of a node and of a gateway runs; a test passes a broken one.
    """
    result = RunResult(seed, nodes, durability, seconds)
    folder = Path(tempfile.mkdtemp(prefix="smrx-torture-"))
    started = time.monotonic()

    def note(text: str) -> None:
        line = f"[{time.monotonic() - started:6.2f} s] {text}"
        result.timeline.append(line)
        report(line)

    try:
        _Run(result, folder, program, gateway_program, note).execute()
    except (Violation, *FAILURES) as failure:
        result.failure = str(failure)
    except Exception as error:  # noqa: BLE001 (a bug anywhere fails the run, and its logs are needed)
        result.failure = f"unexpected exception: {error!r}"
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    if result.failure is None:
        shutil.rmtree(folder)
    else:
        result.folder = folder
        note(f"VIOLATION: {result.failure}")
        (folder / "timeline.txt").write_text("\n".join([result.command, *result.timeline]) + "\n", encoding="utf-8")
    return result


class _Run:
    """One run, step by step."""

    def __init__(
        self,
        result: RunResult,
        folder: Path,
        program: Sequence[str],
        gateway_program: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self._result = result
        self._gateway_program = gateway_program
        self._program = program
        self._folder = folder
        self._report = report

    def execute(self) -> None:
        result = self._result
        with PipeReader() as pipes:
            cluster = ClusterUnderTest(self._folder, result.nodes, result.durability, pipes, self._program)
            with cluster, open_admin_client(cluster.config, _ASK_SECONDS) as ask:
                cluster.wait_leader(_SETUP_SECONDS)
                self._report(f"{result.nodes} nodes, durability {result.durability}, node {cluster.leader()} leads")
                with VerifierProcess(cluster, self._report) as verifier:
                    client_streams = self._run_workload(cluster, pipes, verifier, ask)
                    ends = equal_logs(ask, cluster.node_ids, _EQUAL_SECONDS)
                    self._check_statuses(cluster, ask)
                    verifier.finish(ends.event_sequence)
                if result.durability == "memory" and result.seed % _LOSE_MAJORITY_EVERY == 0:
                    self._lose_majority(cluster, ask)
            for incarnation in cluster.incarnations:
                incarnation.stream.ended.wait(_ANSWER_SECONDS)
            for stream in client_streams:
                stream.ended.wait(_ANSWER_SECONDS)
            checker, result.history = check_history(cluster.incarnations, client_streams)
            for node in cluster.node_ids:
                checker.check_position(node, ends.applied_index, (ends.sequence, ends.state_hash), ends.log_digest)
            self._check_files(cluster, checker)
            result.settlement = verifier.audit(cluster.incarnations)

    def _run_workload(
        self, cluster: ClusterUnderTest, pipes: PipeReader, verifier: VerifierProcess, ask: Ask
    ) -> list[RecordStream]:
        result = self._result
        venue = _VenueClient(cluster, pipes)
        try:
            venue.set_up([*CLIENT_TIMEOUTS_S, _PROBE])
            with (
                GatewayProcesses(cluster, self._gateway_program) as gateways,
                WorkloadClients(cluster, pipes, list(CLIENT_TIMEOUTS_S)) as clients,
            ):
                for account, timeout_s in CLIENT_TIMEOUTS_S.items():
                    clients.start(account, result.seed * 100 + account, timeout_s)
                nemesis = Nemesis(cluster, clients, verifier, gateways, ask, self._report, result.seed)
                try:
                    nemesis.inject(draw_plan(result.seed, result.durability, result.seconds), result.seconds)
                    nemesis.repair()
                finally:
                    result.faults = {str(fault): count for fault, count in sorted(nemesis.done.items())}
                    result.skipped = nemesis.skipped
                self._recover(venue)
                self._wait_for_clients(clients, nemesis)
                return [*clients.streams, venue.stream]
        finally:
            venue.end()

    def _recover(self, venue: "_VenueClient") -> None:
        """Check that an order is acknowledged within five election timeouts, more on a loaded machine."""
        timing = venue.config.timing
        load_factor = min(_MAX_LOAD_FACTOR, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
        allowed_s = PROGRESS_TIMEOUTS * timing.election_max_ms / 1000 * load_factor
        started = time.monotonic()
        venue.order(_PROBE, allowed_s)
        self._result.recovery_s, self._result.allowed_s = time.monotonic() - started, allowed_s
        self._report(
            f"everything is repaired; an order was acknowledged after {self._result.recovery_s:.2f} s, within the "
            f"{allowed_s:.1f} s allowed ({PROGRESS_TIMEOUTS} election timeouts, times {load_factor:.1f} for the load)"
        )

    def _wait_for_clients(self, clients: WorkloadClients, nemesis: Nemesis) -> None:
        """Wait until every client has received its outcomes or timed out, and has ended."""
        clients.request_stop()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while waiting := clients.running():
            if time.monotonic() > deadline:
                raise Violation(
                    f"outcomes: clients {', '.join(map(str, waiting))} are still running {_ANSWER_SECONDS:g} s after "
                    "SIGTERM, with everything repaired"
                )
            nemesis.turn()
        failure = clients.failure()
        if failure is not None:
            raise Violation(f"outcomes: {failure}")
        self._report("every client has ended")

    def _check_statuses(self, cluster: ClusterUnderTest, ask: Ask) -> None:
        """Wait until every node is a leader or follower, and check that none reports a divergence."""
        deadline = time.monotonic() + _EQUAL_SECONDS
        while True:
            statuses = [ask(node, Status()) for node in cluster.node_ids]
            found = [status for status in statuses if isinstance(status, NodeStatus)]
            for status in found:
                if status.fenced is not None:
                    raise Violation(f"one state: node {status.node_id}: {status.fenced}")
                for other, command in status.diverged.items():
                    raise Violation(
                        f"one state: node {status.node_id} reports that node {other} diverged at command {command}"
                    )
            if len(found) == len(statuses) and all(status.role in ("leader", "follower") for status in found):
                return
            if time.monotonic() > deadline:
                roles = {status.node_id: (status.role, status.waiting) for status in found}
                raise Violation(f"one state: some nodes are neither leader nor follower: {roles}")
            time.sleep(0.05)

    def _check_files(self, cluster: ClusterUnderTest, checker: Checker) -> None:
        """Check the logs and the disks of the stopped nodes."""
        for node in cluster.node_ids:
            if "Traceback" in cluster.log_path(node).read_text(errors="replace"):
                raise Violation(f"node {node}: there is a traceback in {cluster.log_path(node)}")
            if cluster.config.durability == "disk":
                self._check_disk(cluster.config, node, checker)

    def _lose_majority(self, cluster: ClusterUnderTest, ask: Ask) -> None:
        """Restart more than a minority of nodes in memory mode at once, and check that the cluster stops.

        No node may lead or acknowledge anything any more, and a node must report why.
        """
        chance = random.Random(self._result.seed)
        victims = chance.sample(cluster.node_ids, len(cluster.node_ids) // 2 + 1)
        for node in victims:
            cluster.process(node).kill()
        for node in victims:
            cluster.process(node).wait()
            cluster.start_node(node)
        self._report(f"SIGKILL for nodes {', '.join(map(str, sorted(victims)))} at once: a majority has lost its state")

        def is_reported() -> bool:
            statuses = cluster.statuses()
            return len(statuses) == len(cluster.node_ids) and any(
                status.waiting == _WAITING_FOR_STATE for status in statuses.values()
            )

        cluster.wait_for(is_reported, _SETUP_SECONDS, f"a node to report that it is {_WAITING_FOR_STATE}")
        with Client(cluster.config, account=_PROBE, timeout=_BLOCKED_SECONDS) as client:
            try:
                client.submit(*workload.orders(chance, _PROBE, 1))
            except ClientError:
                pass
            else:
                raise Violation("a majority lost its state, but an order was acknowledged")
        leader = cluster.leader()
        if leader is not None:
            raise Violation(f"a majority lost its state, but node {leader} leads")
        self._report("no node leads, and the status says why")

    def _check_disk(self, config: Config, node: int, checker: Checker) -> None:
        """Check that the journal and the snapshots of a node lead to a state of the log."""
        try:
            with open_node_log(config, node) as log:
                verified = verify_log(log)
        except SnapshotError as error:
            # An old snapshot that was damaged by a fault and not read since.
            if Fault.DAMAGE_FILE not in self._result.faults:
                raise Violation(f"files: node {node}: {error}") from None
            self._report(f"node {node} still holds a damaged snapshot: {error}")
            return
        if verified.faults:
            raise Violation(f"one state: node {node}: {verified.faults[0]}")
        checker.state_restored(node, (verified.sequence, verified.state_hash))


class _VenueClient:
    """The client of the venue, recorded like the others."""

    def __init__(self, cluster: ClusterUnderTest, pipes: PipeReader) -> None:
        self.config = cluster.client_config
        with pipes.open() as (descriptor, self.stream):
            self._descriptor = os.dup(descriptor)
        self._client = Client(self.config, account=0, timeout=_SETUP_SECONDS)
        self._recording = RecordingClient(self._client, RecordWriter(self._descriptor))

    def set_up(self, accounts: list[int]) -> None:
        """Create assets, an instrument, and accounts with balances."""
        self._recording.send(workload.setup(accounts))
        self._recording.drain(_SETUP_SECONDS)

    def order(self, account: int, seconds: float) -> None:
        """Place an order from a new client; raises Violation if it is not acknowledged in time."""
        with Client(self.config, account=account, timeout=max(seconds, 0.1)) as client:
            recording = RecordingClient(client, RecordWriter(self._descriptor))
            try:
                recording.send(workload.orders(random.Random(0), account, 1))
                recording.drain(seconds)
                recording.close()
            except (ClientError, TimeoutError) as error:
                raise Violation(
                    f"progress: no order was acknowledged within {seconds:.1f} s of the repair: {error}"
                ) from None

    def end(self) -> None:
        """Close the client without closing its session."""
        self._client.close(graceful=False)
        os.close(self._descriptor)
