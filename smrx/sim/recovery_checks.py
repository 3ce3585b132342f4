"""Check that a cluster recovers once all faults are repaired, and that all its nodes end in the same state.

Called by run.py in this order: recover(), answer_clients(), answer_reads(), close_sessions(), compare_states(),
check_unanswered(), check_clocks(), check_rest(). Every check runs the scheduler until its condition holds or its
timeout expires, which is a Violation.
"""

import contextlib
from typing import Final

from smrx.consensus import NotLeader
from smrx.sim.checker import Violation
from smrx.sim.membership_history import majority
from smrx.sim.simulated_client import SimulatedClient
from smrx.sim.simulated_cluster import SimulatedCluster
from smrx.sim.simulated_gateway_client import SimulatedGatewayClient
from smrx.sim.simulated_node import SimulatedNode

#: A connected majority makes progress within so many of the longest election timeouts.
PROGRESS_TIMEOUTS: Final = 5
#: Clients wait longer between attempts the longer they get no answer (up to 4 s), and may need several attempts.
_ANSWER_SECONDS: Final = 30.0
_SAME_STATE_SECONDS: Final = 10.0
_BARRIER_SECONDS: Final = 0.05
_READ_SECONDS: Final = 0.2
#: Each turn removes a part of a long log, and every heartbeat causes a turn.
_SHORT_LOG_SECONDS: Final = 1.0
#: Election timeouts without any event but snapshots.
_REST_TIMEOUTS: Final = 2
#: A leader with a wrong clock notices it within a second, and tries to transfer every 5 s.
_CLOCK_SECONDS: Final = 15.0

_WAITING_FOR_STATE: Final = "waiting for a majority that holds state"


class RecoveryChecks:
    """The checks at the end of one run."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._profile = cluster.profile
        self._election_seconds = cluster.timing.election_max_ms / 1000
        #: The last barrier submitted: (node, index, term).
        self._barrier: tuple[SimulatedNode, int, int] | None = None

    def recover(self) -> bool:
        """Wait for progress. Return False if a majority lost its state, so that the cluster may not continue."""
        cluster = self._cluster
        seconds = PROGRESS_TIMEOUTS * self._election_seconds
        majority_holds_log = self._majorities_hold_their_logs()
        self._submit_barrier()
        if self._scheduler.run_for(seconds, self._is_barrier_applied):
            return True
        has_leader = any(node.is_leader for node in cluster.nodes)
        if majority_holds_log or has_leader or self._profile.durable:
            raise Violation(f"progress: no command was applied within {seconds} s of repair; {cluster.describe()}")
        waiting = [node.id for node in cluster.running if node.replica.waiting == _WAITING_FOR_STATE]
        if not waiting:
            raise Violation(f"status: a majority lost its memory, and no node reports it; {cluster.describe()}")
        cluster.trace.note("a majority lost its memory: nodes {} report that they wait for one", waiting)
        return False

    def _majorities_hold_their_logs(self) -> bool:
        """Return whether a leader can be elected under each membership that may be in force."""
        holding = {node.id for node in self._cluster.running if node.replica.holds_log}
        journals = [node.journal for node in self._cluster.in_service]
        return all(
            len(holding & members.voters) >= majority(members) for members in self._cluster.history.possible(journals)
        )

    def _submit_barrier(self) -> None:
        """Submit an empty entry to the leader, again to each new leader, until one is applied."""
        for node in self._cluster.nodes:
            if node.is_leader:
                barrier = self._barrier
                if barrier is not None and (barrier[0], barrier[2]) == (node, node.replica.term):
                    continue
                node.select()
                try:
                    index, term = node.submit_entry([])
                except NotLeader:
                    continue
                node.wake(self._scheduler.now)
                self._barrier = (node, index, term)
        if not self._is_barrier_applied():
            self._scheduler.call_later(_BARRIER_SECONDS, self._submit_barrier)

    def _is_barrier_applied(self) -> bool:
        if self._barrier is None:
            return False
        _, index, term = self._barrier
        checker = self._cluster.checker
        return checker.last_index >= index and checker.term_at(index) == term

    def answer_clients(self) -> None:
        """Wait until every client has an answer to every request."""
        clients: list[SimulatedClient | SimulatedGatewayClient] = [*self._cluster.clients, *self._cluster.officers]
        clients += self._cluster.gateway_clients
        if not self._scheduler.run_for(_ANSWER_SECONDS, lambda: not any(client.unanswered for client in clients)):
            waiting = "; ".join(client.describe() for client in clients if client.unanswered)
            raise Violation(
                f"answers: missing {_ANSWER_SECONDS} s after recovery: {waiting}; {self._cluster.describe()}"
            )

    def answer_reads(self) -> None:
        """Check that a read is answered, by some node that leads."""
        cluster = self._cluster
        reader = cluster.readers[0]
        before = reader.answered

        def read() -> None:
            if reader.answered == before:
                reader.read([node.id for node in cluster.running])
                self._scheduler.call_later(_READ_SECONDS, read)

        read()
        if not self._scheduler.run_for(_ANSWER_SECONDS, lambda: reader.answered > before):
            raise Violation(f"answers: no read was answered within {_ANSWER_SECONDS} s; {cluster.describe()}")

    def close_sessions(self) -> None:
        """Close the session of every client."""
        for client in (*self._cluster.clients, *self._cluster.officers):
            if client.session is not None:
                client.close()

    def compare_states(self) -> None:
        """Wait until all members hold the same state, and compare it with the checker's."""
        cluster = self._cluster

        def is_same() -> bool:
            # A barrier changes the log and not the state: both have to be equal.
            members = cluster.members
            states = {(node.state.position(), node.state.log_digest) for node in members}
            memberships = {node.replica.membership for node in members}
            return len(states) == len(memberships) == 1 and all(node.holds_state for node in members)

        if not self._scheduler.run_for(_SAME_STATE_SECONDS, is_same):
            raise Violation(f"one state: not reached by all nodes within {_SAME_STATE_SECONDS} s; {cluster.describe()}")
        members = cluster.members
        for node in members:
            cluster.checker.check_hashes(node.id, node.state)
        cluster.checker.check_final_states((node.id, node.state) for node in members)
        if not self._profile.durable:
            self._check_log_lengths()

    def _check_log_lengths(self) -> None:
        """Check that no log in memory is longer than its limit: no follower needs the older entries."""
        limit = self._profile.compaction_entries

        def are_short() -> bool:
            return all(node.replica.applied_index - node.journal.first_index < limit for node in self._cluster.members)

        if not are_short() and not self._scheduler.run_for(_SHORT_LOG_SECONDS, are_short):
            lengths = {node.id: len(node.journal) for node in self._cluster.members}
            raise Violation(f"log length: nodes keep entries that no node needs; limit {limit}, kept {lengths}")

    def check_unanswered(self) -> None:
        """Wait until every node has answered or refused each command it accepted, even if the client is gone."""

        def unanswered() -> list[tuple[int, int]]:
            return [(node.id, node.unanswered_commands) for node in self._cluster.running if node.unanswered_commands]

        if unanswered() and not self._scheduler.run_for(_ANSWER_SECONDS, lambda: not unanswered()):
            node_id, commands = unanswered()[0]
            raise Violation(
                f"answers: node {node_id} accepted {commands} commands of clients and has neither answered nor refused "
                f"them {_ANSWER_SECONDS} s after the last one"
            )

    def check_clocks(self) -> None:
        """Check that time advances, and that a node with a right clock comes to lead, however wrong the others are."""
        cluster, clocks = self._cluster, self._cluster.clocks

        def leader() -> SimulatedNode | None:
            leaders = [node for node in cluster.nodes if node.is_leader]
            return leaders[0] if len(leaders) == 1 and not leaders[0].replica.is_transferring else None

        def leads_with_right_clock() -> bool:
            node = leader()
            return node is not None and clocks.is_right(node.id, node.replica.membership.voters)

        for condition in (leader, leads_with_right_clock):
            if not condition() and not self._scheduler.run_for(_CLOCK_SECONDS, condition):
                raise Violation(
                    f"right clocks lead: no node with a right clock leads {_CLOCK_SECONDS} s after recovery; "
                    f"{cluster.describe()}"
                )
            node = leader()
            assert node is not None
            node.select()
            with contextlib.suppress(NotLeader):
                node.submit_entry([])
                node.wake(self._scheduler.now)
                clocks.check_progress(node.id, node.last_stamp_ns, node.replica.membership.voters)

    def check_rest(self) -> None:
        """Check that a leader keeps its leadership while it takes a snapshot and nothing else happens."""

        def leaders() -> list[tuple[int, int]]:
            return [(node.id, node.replica.term) for node in self._cluster.members if node.is_leader]

        before = leaders()
        for node in self._cluster.members:
            if node.replica.is_leader:
                node.replica.compact()
        self._scheduler.run_for(_REST_TIMEOUTS * self._election_seconds)
        after = leaders()
        if before and after != before:
            raise Violation(
                f"no election for a snapshot: {_leaders_text(before)} before the leader took one, and "
                f"{_leaders_text(after)} after it, though nothing else happened"
            )


def _leaders_text(leaders: list[tuple[int, int]]) -> str:
    return " and ".join(f"node {node_id} led term {term}" for node_id, term in leaders) or "no node led"
