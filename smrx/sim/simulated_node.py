"""Simulate a node: the directory that survives its processes, the start of each, and what an operator does to it.

Owns the disk and the meta store, and so what a crash leaves behind (in memory mode the meta store alone). Creates the
components of each process from them. Never decides whether the node is right: the checker does.
"""

import random
from typing import Final

from smrx.config import Timing
from smrx.consensus import ReplicaSettings
from smrx.consensus.context import UnknownRules
from smrx.consensus.disk_journal import JournalError, decode_entry, entry_key
from smrx.consensus.storage import StorageFull
from smrx.sim.checked_state_machine import CheckedStateMachine
from smrx.sim.checker import Checker, Violation
from smrx.sim.clock_invariants import ClockInvariants
from smrx.sim.network import Network
from smrx.sim.node_components import NodeComponents
from smrx.sim.profile import Profile
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_disk import Disk, SimulatedSnapshots, open_journal, restore_state
from smrx.sim.simulated_meta import SimulatedMeta
from smrx.sim.simulated_process import OutOfMemory, Process
from smrx.sim.simulated_transport import CLUSTER
from smrx.sim.trace import Trace
from smrx.sim.versions import NEXT_VERSION, Versions
from smrx.sim.wire_invariants import WireInvariants

#: The bound of pending commands in runs with gateways.
_GATEWAY_PENDING: Final = 4096


class SimulatedNode(Process):
    """One node, member of the cluster or not: what survives a crash, and the running process."""

    meta: SimulatedMeta

    def __init__(
        self,
        node_id: int,
        cluster_file: list[int],
        *,
        scheduler: Scheduler,
        versions: Versions,
        network: Network,
        checker: Checker,
        wire: WireInvariants,
        clocks: ClockInvariants,
        trace: Trace,
        components: NodeComponents,
        profile: Profile,
        timing: Timing,
        rng: random.Random,
    ) -> None:
        """`cluster_file` is the ids in the node's cluster file, its own included."""
        super().__init__(
            node_id,
            scheduler=scheduler,
            versions=versions,
            network=network,
            checker=checker,
            wire=wire,
            clocks=clocks,
            trace=trace,
        )
        self.cluster_file = cluster_file
        #: Whether the process runs, or restarts after a crash.
        self.in_service = False
        #: False while an operator keeps a crashed process from restarting.
        self.may_restart = True
        self.disk = Disk(rng)
        self._directories = 0
        self.meta = components.meta(self._directory_time(is_later=True))
        #: Whether the process runs out of memory once, before or after it applies the next entry.
        self.memory_fault_before = self.memory_fault_after = False
        self._components = components
        self._profile = profile
        self._timing = timing
        self._rng = rng
        wire.add_node(node_id, self._is_durable)

    def start(self) -> bool:
        """Start a process with what is durable; return False if it stops at once."""
        self._begin()
        self.had_next_version |= self.version == NEXT_VERSION
        self.memory_fault_before = self.memory_fault_after = False
        #: Whether the disk may be damaged, until the node has found out and holds state again.
        self._repairing = self.disk.may_be_damaged
        self.disk.tears_next_sync = False
        self.meta.begin()
        self.select()
        self._trace.note("node {} starts, process {}, term {}", self.id, self.process_number, self.meta.term)
        try:
            self._open()
        except StorageFull:
            self._trace.note("node {} does not start: its disk is full", self.id)
            return False
        except UnknownRules as error:
            self._lacks_rules(error)
            return self.start()
        self.up = True
        self.wake(self._scheduler.now)
        return True

    def _open(self) -> None:
        profile, components = self._profile, self._components
        new_state = components.state_of(self.version)
        self.state = new_state(profile.event_ring)
        snapshots: SimulatedSnapshots | None = None
        if profile.durable:
            snapshots = SimulatedSnapshots(self.disk, self._take_snapshot, self._rng, self.step)
            try:
                self._restore()
            except JournalError as error:
                if not self.disk.may_be_damaged:
                    raise Violation(f"node {self.id} refuses an undamaged disk: {error}") from error
                self._trace.note("node {} refuses its disk and is rebuilt: {}", self.id, str(error))
                self.disk.wipe()
                self._wire.lost_memory(self.id)
                self.state = new_state(profile.event_ring)
                snapshots = SimulatedSnapshots(self.disk, self._take_snapshot, self._rng, self.step)
                self._restore()
        else:
            self.journal = components.journal()
            self._wire.lost_memory(self.id)
        # One frame of a gateway holds commands of all its clients, which a small bound would never have room for.
        pending = _GATEWAY_PENDING if profile.gateways else profile.pending_commands
        self.order_entry = components.order_entry(self.id, pending, has_keys=profile.credentials)
        peers = [node_id for node_id in self.cluster_file if node_id != self.id]
        self.transport = components.transport(self, peers, self.meta.incarnation)
        self._wire.started(self.id)
        self.replica = components.replica(
            self.id,
            peers,
            machine=self._checked_state(),
            transport=self.transport,
            meta=self.meta,
            journal=self.journal,
            settings=ReplicaSettings(
                timing=self._timing,
                compaction_entries=profile.compaction_entries,
                snapshot_commands=profile.snapshot_commands,
                batch_bytes=profile.batch_bytes,
                chunk_bytes=profile.chunk_bytes,
            ),
            snapshots=snapshots if components.keeps_snapshots else None,
            wall_ns=self.wall_ns,
        )

    def _is_durable(self, index: int, term: int) -> bool:
        """Return whether a log entry survives a crash, as far as the mode requires."""
        if not self._profile.durable or self.disk.may_be_damaged or index <= self.journal.first_index:
            return True
        record = self.disk.records.get(entry_key(index))
        entry = None if record is None else decode_entry(record, index)
        return entry is not None and entry[2] == term

    def _restore(self) -> None:
        self.journal = open_journal(self.disk, self._components.disk_journal, self.meta, CLUSTER, self.id, self.step)
        restore_state(self.disk, self.journal, self.meta, self._checked_state())
        for entry in self.state.take_applied():
            self._checker.after_apply(self.id, entry)

    def _checked_state(self) -> CheckedStateMachine:
        return CheckedStateMachine(
            self.state, self.id, self.journal, self._checker, self._wire, self._take_snapshot, self._fail_for_memory
        )

    def _take_snapshot(self) -> bytes:
        """Return the state for a snapshot; a large one blocks the loop."""
        self.pause(self._components.snapshot_seconds(self._profile.state_bytes))
        return self.state.snapshot()

    def _fail_for_memory(self, *, applied: bool) -> None:
        """Raise OutOfMemory if a memory fault is due here."""
        if self.memory_fault_after if applied else self.memory_fault_before:
            self.memory_fault_before = self.memory_fault_after = False
            raise OutOfMemory

    def stop(self) -> None:
        """End the process; it is not restarted."""
        self.in_service = False
        self.crash()

    def _directory_time(self, *, is_later: bool) -> int:
        """Return the creation time of a new directory: later than all before, or, as clocks may be wrong, earlier."""
        self._directories += 1
        return self._directories * (10_000 if is_later else 100)

    def lose_directory(self) -> None:
        """Remove the directory of a stopped process, although other nodes depend on its content."""
        self.disk = Disk(self._rng)
        self.disk.may_be_damaged = True
        self.meta = self._components.meta(self._directory_time(is_later=self._rng.random() < 0.8))
        self._wire.lost_memory(self.id)
        self._trace.note("node {} loses its directory", self.id)

    def wipe(self) -> None:
        """Remove the directory of a stopped process: the next one is a new node with a reused id."""
        self.disk = Disk(self._rng)
        self.meta = self._components.meta(self._directory_time(is_later=self._rng.random() < 0.8))
        self._wire.replaced(self.id)
        self.had_next_version = False
        self._trace.note("node {} is wiped", self.id)

    @property
    def is_leader(self) -> bool:
        """Whether the process runs and leads in its own view."""
        return self.up and self.replica.is_leader

    @property
    def holds_state(self) -> bool:
        """Whether other nodes may depend on its log."""
        return self.up and self.replica.role != "learner"

    @property
    def may_lack_memory(self) -> bool:
        """Whether it has lost entries it acknowledged, or will have when it restarts."""
        if self._profile.durable or self.disk.may_be_damaged:
            return self.disk.may_be_damaged
        may_crash = (
            self.steps_to_crash is not None
            or self.crashes_at_election
            or self.memory_fault_before
            or self.memory_fault_after
        )
        return not self.up or not self.replica.holds_log or may_crash

    def _report(self) -> None:
        if self._repairing and self.replica.role != "learner" and self.meta.initialized:
            self._repairing = self.disk.may_be_damaged = False
        super()._report()
