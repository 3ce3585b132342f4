"""One simulated node: what survives its processes, how each of them starts, and what an operator does to its directory.

Owns the disk and the meta store, and with them what a crash leaves of a life (in memory mode the meta store alone).
Makes of these what a process runs. Never decides whether what a node does is right: that is the checker's.
"""

import random

from smrx.config import Timing
from smrx.consensus import ReplicaSettings
from smrx.consensus.disk_journal import JournalError, decode_entry, entry_key
from smrx.consensus.storage import StorageFull
from smrx.sim.checker import Checker, Violation
from smrx.sim.network import Network
from smrx.sim.parts import Parts, SimulatedMeta
from smrx.sim.profile import Profile
from smrx.sim.promises import Promises
from smrx.sim.simulated_disk import Disk, SimulatedSnapshots, opened, restart
from smrx.sim.simulated_process import OutOfMemory, Process
from smrx.sim.simulated_transport import CLUSTER
from smrx.sim.timeline import Timeline
from smrx.sim.versions import Versions
from smrx.sim.watched import WatchedMachine
from smrx.sim.world import World


class Member(Process):
    """One node: what survives a crash, and what is running."""

    meta: SimulatedMeta

    def __init__(
        self,
        node_id: int,
        file: list[int],
        *,
        world: World,
        versions: Versions,
        network: Network,
        checker: Checker,
        promises: Promises,
        timeline: Timeline,
        parts: Parts,
        profile: Profile,
        timing: Timing,
        chance: random.Random,
    ) -> None:
        """`file` is whom its cluster file names, itself included."""
        super().__init__(
            node_id,
            world=world,
            versions=versions,
            network=network,
            checker=checker,
            promises=promises,
            timeline=timeline,
        )
        self.file = file
        #: Whether the process runs, or would if it had not died; and whether somebody starts it when it has.
        self.in_service = False
        self.starts_again = True
        self.disk = Disk(chance)
        self._births = 0
        self.meta = parts.meta(self._born(late=True))
        #: Whether its memory is short once, when its machine applies something: before or after that is done.
        self.short_before = self.short_after = False
        self._parts = parts
        self._profile = profile
        self._timing = timing
        self._chance = chance
        promises.writes(node_id, self._is_written)

    def start(self) -> bool:
        """Start the process, with what is durable and nothing else; False if it died, or refused, at the start."""
        self._begin()
        self.short_before = self.short_after = False
        #: Whether this life began with a disk that may be damaged: it is found out, and made good.
        self._mending = self.disk.spoiled
        self.disk.tears = False
        self.meta.begin()
        self.at_work()
        self._timeline.note("node {} starts, life {}, term {}", self.id, self.life, self.meta.term)
        try:
            self._open()
        except StorageFull:
            self._timeline.note("node {} finds its disk full", self.id)
            return False
        self.up = True
        self.wake(self._world.now)
        return True

    def _open(self) -> None:
        profile, parts = self._profile, self._parts
        self.state = parts.machine(profile.event_ring, profile.outcome_ring)
        snapshots: SimulatedSnapshots | None = None
        if profile.durable:
            snapshots = SimulatedSnapshots(self.disk, self._take_snapshot, self._chance, self.step)
            try:
                self._restart()
            except JournalError as error:
                if not self.disk.spoiled:
                    raise Violation(f"node {self.id} refuses a disk that nothing happened to: {error}") from error
                self._timeline.note("node {} refuses its disk and is rebuilt: {}", self.id, str(error))
                self.disk.wipe()
                self._promises.lost_memory(self.id)
                self.state = parts.machine(profile.event_ring, profile.outcome_ring)
                snapshots = SimulatedSnapshots(self.disk, self._take_snapshot, self._chance, self.step)
                self._restart()
        else:
            self.journal = parts.journal()
            self._promises.lost_memory(self.id)
        self.order_entry = parts.order_entry(self.id, profile.pending_commands)
        peers = [node for node in self.file if node != self.id]
        self.transport = parts.transport(self, peers, self.meta.incarnation)
        self._promises.started(self.id)
        self.replica = parts.replica(
            self.id,
            peers,
            machine=self._watched(),
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
            snapshots=snapshots if parts.keeps_snapshots else None,
        )

    def _is_written(self, index: int, term: int) -> bool:
        """Whether a log entry survives a crash, as far as this mode asks for it."""
        if not self._profile.durable or self.disk.spoiled or index <= self.journal.first_index:
            return True
        record = self.disk.records.get(entry_key(index))
        entry = None if record is None else decode_entry(record, index)
        return entry is not None and entry[2] == term

    def _restart(self) -> None:
        self.journal = opened(self.disk, self._parts.disk_journal, self.meta, CLUSTER, self.id, self.step)
        restart(self.disk, self.journal, self.meta, self._watched())
        for entry in self.state.take_applied():
            self._checker.applied(self.id, entry)

    def _watched(self) -> WatchedMachine:
        return WatchedMachine(
            self.state, self.id, self.journal, self._checker, self._promises, self._take_snapshot, self._run_short
        )

    def _take_snapshot(self) -> bytes:
        """What the replica gets to take a snapshot, for as long as a large state makes the loop stand still."""
        self.pause(self._parts.snapshot_seconds(self._profile.state_bytes))
        return self.state.snapshot()

    def _run_short(self, *, applied: bool) -> None:
        """Memory may be short here, once."""
        if self.short_after if applied else self.short_before:
            self.short_before = self.short_after = False
            raise OutOfMemory

    def stop(self) -> None:
        """End the process for good: nobody starts it again."""
        self.in_service = False
        self.crash()

    def _born(self, *, late: bool) -> int:
        """The time of birth of a new directory of this node, later than that of the one before, or earlier than all."""
        self._births += 1
        return self._births * (10_000 if late else 100)

    def lose_directory(self) -> None:
        """Remove everything a process that does not run has left, though others rely on it."""
        self.disk = Disk(self._chance)
        self.disk.spoiled = True
        self.meta = self._parts.meta(self._born(late=self._chance.random() < 0.8))
        self._promises.lost_memory(self.id)
        self._timeline.note("node {} has lost its directory", self.id)

    def wipe(self) -> None:
        """Remove everything a process that does not run has left: the next one is another node of this number."""
        self.disk = Disk(self._chance)
        # A machine's clock may be wrong, and nobody may rely on it.
        self.meta = self._parts.meta(self._born(late=self._chance.random() < 0.8))
        self._promises.replaced(self.id)
        self._timeline.note("node {} is wiped", self.id)

    @property
    def holds_state(self) -> bool:
        """Whether others may rely on what it has."""
        return self.up and self.replica.role != "learner"

    @property
    def may_lack_memory(self) -> bool:
        """Whether it has lost what it promised to keep, or will have when it starts again."""
        if self._profile.durable or self.disk.spoiled:
            return self.disk.spoiled
        may_die = self.fuse is not None or self.dies_at_election or self.short_before or self.short_after
        return not self.up or not self.replica.holds_log or may_die

    def _look(self) -> None:
        if self._mending and self.replica.role != "learner" and self.meta.initialized:
            self._mending = self.disk.spoiled = False
        super()._look()
