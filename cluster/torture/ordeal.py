"""One ordeal of a cluster of real processes, and what became of it.

In order: nodes and a verifier start, the venue sets its market up, traders trade, the nemesis does what its plan says;
then everything is repaired. An order must be acknowledged within five election timeouts of that, every client must have
its answers, every node must come to the same state, everything must be settled; and everything that was said must
satisfy the checker of the simulator, and everything that was settled be what the log leads to.
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
from cluster.torture.bookkeeper import Bookkeeper, Settled
from cluster.torture.field import NODE, Crowd, Field
from cluster.torture.nemesis import Nemesis
from cluster.torture.plan import Durability, Fault, draw
from cluster.torture.streams import Listener, Speaker, Stream
from cluster.torture.trader import Historian
from cluster.torture.verdict import Judged, judge
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

#: Traders, and how long they wait for an answer before they give up: some soon, some never.
PATIENCE: Final = {1: 30.0, 2: 2.0, 3: 30.0, 4: 4.0}
#: The account of the order that must go through after the repair.
_PROBE: Final = 5
_ASK_SECONDS: Final = 0.3
_SETUP_SECONDS: Final = 60.0
_EQUAL_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 90.0
#: Some clusters in memory lose a majority in the end; and for so long nobody may lead then.
_LAST_ACT_EVERY: Final = 3
_STANDING_SECONDS: Final = 4.0
_WAITING_FOR_STATE: Final = "waiting for a majority that holds state"
#: A machine on which more processes want to run than it has cores is that much slower, up to here.
_SLOWEST: Final = 10.0


@dataclass
class Outcome:
    """What became of one ordeal."""

    seed: int
    nodes: int
    durability: Durability
    seconds: float
    #: What does not hold; None if all does.
    failure: str | None = None
    timeline: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    judged: Judged | None = None
    settled: Settled | None = None
    #: From the repair of everything to the first acknowledged order, and how long that might take.
    recovery_s: float | None = None
    allowed_s: float | None = None
    #: Where logs and data are, if they were kept.
    kept: Path | None = None

    @property
    def command(self) -> str:
        """What does the same again; what happens then is up to the machine."""
        return (
            f"python -m cluster torture --seed {self.seed} --durability {self.durability} --nodes {self.nodes} "
            f"--storm-seconds {self.seconds:g}"
        )


def endure(
    seed: int,
    *,
    nodes: int = 3,
    durability: Durability = "memory",
    seconds: float = 60.0,
    program: Sequence[str] = NODE,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run one ordeal; what does not hold is in the outcome. Its folder is kept if something does not.

    `program`: what a node's process runs; a test puts one that is broken there.
    """
    outcome = Outcome(seed, nodes, durability, seconds)
    folder = Path(tempfile.mkdtemp(prefix="smrx-torture-"))
    started = time.monotonic()

    def note(what: str) -> None:
        line = f"[{time.monotonic() - started:6.2f} s] {what}"
        outcome.timeline.append(line)
        say(line)

    try:
        _Ordeal(outcome, folder, program, note).go()
    except (Violation, *FAILURES) as failure:
        outcome.failure = str(failure)
    except Exception as error:  # noqa: BLE001 (a bug anywhere is a verdict, too, and its logs are wanted)
        outcome.failure = f"an exception where none may be: {error!r}"
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    if outcome.failure is None:
        shutil.rmtree(folder)
    else:
        outcome.kept = folder
        note(f"VIOLATION: {outcome.failure}")
        (folder / "timeline.txt").write_text("\n".join([outcome.command, *outcome.timeline]) + "\n", encoding="utf-8")
    return outcome


class _Ordeal:
    """The parts of one ordeal and the order in which they play."""

    def __init__(self, outcome: Outcome, folder: Path, program: Sequence[str], say: Callable[[str], None]) -> None:
        self._outcome = outcome
        self._program = program
        self._folder = folder
        self._say = say

    def go(self) -> None:
        outcome = self._outcome
        with Listener() as listener:
            field = Field(self._folder, outcome.nodes, outcome.durability, listener, self._program)
            with field, open_admin_client(field.config, _ASK_SECONDS) as ask:
                field.wait_leader(_SETUP_SECONDS)
                self._say(f"{outcome.nodes} nodes, durability {outcome.durability}, node {field.leader()} leads")
                with Bookkeeper(field, self._say) as bookkeeper:
                    histories = self._play(field, listener, bookkeeper, ask)
                    ends = equal_logs(ask, field.node_ids, _EQUAL_SECONDS)
                    self._check_statuses(field, ask)
                    bookkeeper.finish(ends.event_sequence)
                if outcome.durability == "memory" and outcome.seed % _LAST_ACT_EVERY == 0:
                    self._lose_majority(field, ask)
            for life in field.lives:
                life.stream.ended.wait(_ANSWER_SECONDS)
            for stream in histories:
                stream.ended.wait(_ANSWER_SECONDS)
            checker, outcome.judged = judge(field.lives, histories)
            for node in field.node_ids:
                checker.check_position(node, ends.applied_index, (ends.sequence, ends.state_hash), ends.log_digest)
            self._check_files(field, checker)
            outcome.settled = bookkeeper.audit(field.lives)

    def _play(self, field: Field, listener: Listener, bookkeeper: Bookkeeper, ask: Ask) -> list[Stream]:
        outcome = self._outcome
        venue = _Venue(field, listener)
        try:
            venue.set_up([*PATIENCE, _PROBE])
            with Crowd(field, listener, list(PATIENCE)) as crowd:
                for account, patience_s in PATIENCE.items():
                    crowd.start(account, outcome.seed * 100 + account, patience_s)
                nemesis = Nemesis(field, crowd, bookkeeper, ask, self._say, outcome.seed)
                try:
                    nemesis.storm(draw(outcome.seed, outcome.durability, outcome.seconds), outcome.seconds)
                    nemesis.heal()
                finally:
                    outcome.faults = {str(fault): count for fault, count in sorted(nemesis.done.items())}
                    outcome.skipped = nemesis.skipped
                self._recover(venue)
                self._answer(crowd, nemesis)
                return [*crowd.streams, venue.stream]
        finally:
            venue.end()

    def _recover(self, venue: "_Venue") -> None:
        """An order goes through within five election timeouts, of a machine with nothing else to do."""
        timing = venue.config.timing
        slower = min(_SLOWEST, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
        allowed_s = PROGRESS_TIMEOUTS * timing.election_max_ms / 1000 * slower
        started = time.monotonic()
        venue.order(_PROBE, allowed_s)
        self._outcome.recovery_s, self._outcome.allowed_s = time.monotonic() - started, allowed_s
        self._say(
            f"everything is repaired; an order was acknowledged after {self._outcome.recovery_s:.2f} s; "
            f"{allowed_s:.1f} s were allowed (5 election timeouts, on a machine {slower:.1f} times as slow as alone)"
        )

    def _answer(self, crowd: Crowd, nemesis: Nemesis) -> None:
        """Every client comes to an end: it has its answers, or gave up on them."""
        crowd.ask_to_end()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while waiting := crowd.running():
            if time.monotonic() > deadline:
                raise Violation(
                    f"answers: traders {', '.join(map(str, waiting))} have not ended {_ANSWER_SECONDS:g} s after they "
                    "were asked to, with everything repaired"
                )
            nemesis.turn()
        fault = crowd.fault()
        if fault is not None:
            raise Violation(f"answers: {fault}")
        self._say("every client has ended")

    def _check_statuses(self, field: Field, ask: Ask) -> None:
        """Every node is a member with everything, and doubts nobody."""
        deadline = time.monotonic() + _EQUAL_SECONDS
        while True:
            statuses = [ask(node, Status()) for node in field.node_ids]
            found = [status for status in statuses if isinstance(status, NodeStatus)]
            for status in found:
                if status.fenced is not None:
                    raise Violation(f"one state: node {status.node_id}: {status.fenced}")
                for other, command in status.diverged.items():
                    raise Violation(
                        f"one state: node {status.node_id} finds node {other} diverged at command {command}"
                    )
            if len(found) == len(statuses) and all(status.role in ("leader", "follower") for status in found):
                return
            if time.monotonic() > deadline:
                roles = {status.node_id: (status.role, status.waiting) for status in found}
                raise Violation(f"one state: not every node is a full member again: {roles}")
            time.sleep(0.05)

    def _check_files(self, field: Field, checker: Checker) -> None:
        """What stopped nodes said in their logs, and what their disks lead to."""
        for node in field.node_ids:
            if "Traceback" in field.log_path(node).read_text(errors="replace"):
                raise Violation(f"node {node}: a traceback in {field.log_path(node)}")
            if field.config.durability == "disk":
                self._check_disk(field.config, node, checker)

    def _lose_majority(self, field: Field, ask: Ask) -> None:
        """The last act of some clusters in memory: more than a minority forgets at once, and they have to stand still.

        Nobody may lead or acknowledge anything any more, and somebody has to say why.
        """
        chance = random.Random(self._outcome.seed)
        victims = chance.sample(field.node_ids, len(field.node_ids) // 2 + 1)
        for node in victims:
            field.process(node).kill()
        for node in victims:
            field.process(node).wait()
            field.start_node(node)
        self._say(f"SIGKILL for nodes {', '.join(map(str, sorted(victims)))} at once: a majority has lost its memory")

        def all_say_it() -> bool:
            statuses = field.statuses()
            return len(statuses) == len(field.node_ids) and any(
                status.waiting == _WAITING_FOR_STATE for status in statuses.values()
            )

        field.wait_for(all_say_it, _SETUP_SECONDS, f"a node that says it is {_WAITING_FOR_STATE}")
        with Client(field.config, account=_PROBE, timeout=_STANDING_SECONDS) as client:
            try:
                client.submit(workload.orders(chance, _PROBE, 1))
            except ClientError:
                pass
            else:
                raise Violation("a majority lost its memory, and an order was acknowledged all the same")
        leader = field.leader()
        if leader is not None:
            raise Violation(f"a majority lost its memory, and node {leader} leads all the same")
        self._say("they stand still and say so")

    def _check_disk(self, config: Config, node: int, checker: Checker) -> None:
        """What a disk leads to is a state of the log."""
        try:
            with open_node_log(config, node) as history:
                verified = verify_log(history)
        except SnapshotError as error:
            # An old one that was damaged on purpose, and was not needed since.
            if Fault.DAMAGE not in self._outcome.faults:
                raise Violation(f"files: node {node}: {error}") from None
            self._say(f"a damaged snapshot of node {node} is there still: {error}")
            return
        if verified.faults:
            raise Violation(f"one state: node {node}: {verified.faults[0]}")
        checker.state_restored(node, (verified.sequence, verified.state_hash))


class _Venue:
    """The venue's own client, with a history like any other."""

    def __init__(self, field: Field, listener: Listener) -> None:
        self.config = field.client_config
        with listener.open() as (descriptor, self.stream):
            self._descriptor = os.dup(descriptor)
        self._client = Client(self.config, account=0, timeout=_SETUP_SECONDS)
        self._historian = Historian(self._client, Speaker(self._descriptor))

    def set_up(self, accounts: list[int]) -> None:
        """Assets, a market, accounts with money."""
        self._historian.send(workload.setup(accounts))
        self._historian.drain(_SETUP_SECONDS)

    def order(self, account: int, seconds: float) -> None:
        """Place an order from a new client; raises Violation if it is not acknowledged in time."""
        with Client(self.config, account=account, timeout=max(seconds, 0.1)) as client:
            historian = Historian(client, Speaker(self._descriptor))
            try:
                historian.send(workload.orders(random.Random(0), account, 1))
                historian.drain(seconds)
                historian.close()
            except (ClientError, TimeoutError) as error:
                raise Violation(
                    f"progress: no order was acknowledged within {seconds:.1f} s of the repair of everything: {error}"
                ) from None

    def end(self) -> None:
        """Leave without a word."""
        self._client.close(graceful=False)
        os.close(self._descriptor)
