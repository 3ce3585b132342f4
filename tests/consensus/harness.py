"""Run a cluster of replicas in one process, with a simulated clock, a faulty network and nodes that crash.

One seed, one run, always the same. Everything but the sockets and the disk is the real thing; messages travel as bytes.
The harness checks as it goes: no two nodes ever apply different entries at one index, no entry is applied twice, no
term has two leaders; and at the end that nothing acknowledged is missing and that the cluster moves on.
"""

import contextlib
import heapq
import random
from collections.abc import Callable, Iterator

import msgspec
import pysyncobj.syncobj
import xxhash

from smrx.config import NodeConfig, Timing
from smrx.consensus import MemoryJournal, PeerTransport, Replica, ReplicaSettings, membership, messages
from smrx.consensus.messages import Body, Envelope, RulesVersions
from smrx.consensus.recovery import MetaStore
from smrx.wire import batches

CLUSTER = "harness"
_WALL_NS = 1_700_000_000_000_000_000
TIMING = Timing(heartbeat_ms=50, election_min_ms=600, election_max_ms=1200, leader_fallback_ms=450)


#: The membership in every snapshot of a cluster of three.
GENESIS = (1, membership.encode(membership.of(NodeConfig(id=node, port=node) for node in (1, 2, 3))))


class Violation(AssertionError):
    """An invariant that must hold under every fault is violated."""


#: Type and version of a log entry with commands.
ENTRY_HEAD = bytes((messages.REGULAR, batches.VERSION))


def entry(number: int, size: int = 32) -> bytes:
    """Return a log entry that contains its number."""
    return ENTRY_HEAD + number.to_bytes(8, "little").ljust(size - 2, b"\xee")


def number_of(command: bytes) -> int:
    """Return the number of an entry()."""
    return int.from_bytes(command[2:10], "little")


class Clock:
    """Simulated time. It advances a little at every call, as the library's loops expect of a clock."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        self.time += 1e-9
        return self.time


@contextlib.contextmanager
def simulated(seed: int) -> Iterator[Clock]:
    """Replace the library's clock and random generator within the block."""
    module = pysyncobj.syncobj
    saved = module.monotonicTime, module.random
    clock = Clock()
    module.monotonicTime, module.random = clock, random.Random(seed)
    try:
        yield clock
    finally:
        module.monotonicTime, module.random = saved


class Machine:
    """A state machine with a counter, a hash chain, and the numbers of all applied commands."""

    def __init__(self) -> None:
        self.sequence = 0
        self.hashes = [0]
        self.numbers: list[int] = []
        #: The versions of the rules.
        self.versions = RulesVersions(1, 1, 1)
        #: Added to the next hash, as if memory were damaged.
        self.corruption = 0
        self.on_apply: Callable[[int, int, bytes], None] = lambda index, term, command: None

    def apply(self, log_index: int, term: int, command: bytes) -> None:
        self.on_apply(log_index, term, command)
        self.sequence += 1
        self.numbers.append(number_of(command))
        chain = (self.hashes[-1] + self.corruption) % (1 << 64)
        self.hashes.append(xxhash.xxh3_64_intdigest(chain.to_bytes(8, "little") + command))
        self.corruption = 0

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self.sequence, self.hashes, self.numbers))

    def restore(self, data: bytes | memoryview) -> None:
        try:
            self.sequence, self.hashes, self.numbers = msgspec.msgpack.decode(
                data, type=tuple[int, list[int], list[int]]
            )
        except msgspec.MsgspecError as error:
            raise ValueError(f"no snapshot: {error}") from error

    def position(self) -> tuple[int, int]:
        return self.sequence, self.hashes[-1]

    def hash_at(self, sequence: int) -> int | None:
        return self.hashes[sequence] if 0 <= sequence <= self.sequence else None

    def hashes_between(self, first: int, last: int) -> list[int] | None:
        return self.hashes[first : last + 1] if 0 <= first <= last <= self.sequence else None

    def rules(self) -> RulesVersions:
        return self.versions


class Meta(MetaStore):
    """A meta store on a modelled disk: what was not synced is lost in a crash."""

    def __init__(self) -> None:
        self._durable: tuple[int, int | None, bool, tuple[int, bytes], bool] = (0, None, False, (0, b""), False)
        self.start()

    def start(self) -> None:
        """Start the next incarnation with what is durable."""
        self._incarnation = getattr(self, "_incarnation", 0) + 1
        self._now = self._durable

    incarnation = property(lambda self: self._incarnation)  # type: ignore[assignment]
    term = property(lambda self: self._now[0])  # type: ignore[assignment]
    vote = property(lambda self: self._now[1])  # type: ignore[assignment]
    joined = property(lambda self: self._now[2])  # type: ignore[assignment]

    membership = property(lambda self: self._now[3])  # type: ignore[assignment]

    def set_term(self, term: int, vote: int | None) -> None:
        self._now = (term, vote, *self._now[2:])

    def set_joined(self) -> None:
        self._now = (*self._now[:2], True, *self._now[3:])

    def set_membership(self, membership: tuple[int, bytes]) -> None:
        self._now = (*self._now[:3], membership, self._now[4])

    initialized = property(lambda self: self._now[4])  # type: ignore[assignment]

    def set_initialized(self) -> None:
        self._now = (*self._now[:4], True)

    def exceed_incarnation(self, life: int) -> None:
        self._incarnation = max(self._incarnation, life + 1)

    def sync(self) -> None:
        self._durable = self._now

    def close(self) -> None:
        pass


class MemoryTransport(PeerTransport):
    """Passes frames to the simulated network."""

    def __init__(self, network: "Network", **options: object) -> None:
        super().__init__(**options)
        self._network = network

    def _transmit(self, peer: int, frame: bytes) -> bool:
        return self._network.send(self.node_id, peer, frame)

    def _answer(self, node: int, route: bytes, frame: bytes) -> None:
        self._network.send(self.node_id, node, frame)


class Network:
    """First in, first out for each pair except repeats; delayed at random, lost at random or by a cut."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.clock = clock
        self.chance = chance
        self.delay = (0.0002, 0.002)
        self.loss = 0.0
        #: The probability that a message is delivered again much later.
        self.repeats = 0.0
        self.cut: set[tuple[int, int]] = set()
        self.sent: list[tuple[int, int, bytes]] = []
        self.keep_sent = False
        self._queue: list[tuple[float, int, int, int, bytes]] = []
        self._last: dict[tuple[int, int], float] = {}
        self._count = 0

    def send(self, source: int, target: int, frame: bytes) -> bool:
        if self.keep_sent:
            self.sent.append((source, target, frame))
        if (source, target) in self.cut or self.chance.random() < self.loss:
            return True
        arrival = self.clock.time + self.chance.uniform(*self.delay)
        arrival = max(arrival, self._last.get((source, target), 0.0))
        self._last[source, target] = arrival
        self._push(arrival, source, target, frame)
        if self.chance.random() < self.repeats:
            self._push(arrival + self.chance.expovariate(5), source, target, frame)
        return True

    def _push(self, arrival: float, source: int, target: int, frame: bytes) -> None:
        self._count += 1
        heapq.heappush(self._queue, (arrival, self._count, source, target, frame))

    def next_arrival(self) -> float:
        return self._queue[0][0] if self._queue else float("inf")

    def arrivals(self, until: float) -> Iterator[tuple[int, bytes]]:
        """Yield (target, frame) of what has arrived by now."""
        while self._queue and self._queue[0][0] <= until:
            _, _, source, target, frame = heapq.heappop(self._queue)
            if (source, target) not in self.cut:
                yield target, frame

    def isolate(self, node: int, others: Iterator[int] | list[int]) -> None:
        """Cut one node off from others, both ways."""
        self.cut |= {pair for other in others if other != node for pair in ((node, other), (other, node))}

    def heal(self) -> None:
        """Remove every cut."""
        self.cut = set()


class Member:
    """One node: what survives a crash, and what is running."""

    def __init__(self, cluster: "Cluster", node_id: int) -> None:
        self.id = node_id
        self.meta = Meta()
        self._cluster = cluster
        self.up = False
        self.start()

    def start(self) -> None:
        """Start the process, with an empty memory."""
        cluster = self._cluster
        peers = [node for node in cluster.ids if node != self.id and node not in cluster.unknown_to[self.id]]
        self.machine = cluster.machine_class()
        self.machine.on_apply = self._on_apply
        self.transport = MemoryTransport(
            cluster.network, cluster=CLUSTER, node_id=self.id, peers=peers, incarnation=self.meta.incarnation
        )
        self.replica = cluster.replica_class(
            self.id,
            peers,
            machine=self.machine,
            transport=self.transport,
            meta=self.meta,
            journal=MemoryJournal(),
            settings=cluster.settings(),
            wall_ns=lambda: cluster.wall_ns(self.id),
        )
        self.up = True

    def crash(self) -> None:
        """Lose everything but what was synced."""
        self.up = False
        self.meta.start()

    def turn(self) -> None:
        """What the reactor does once what has arrived is taken."""
        self.replica.tick()
        self.transport.flush()

    def _on_apply(self, index: int, term: int, command: bytes) -> None:
        self._cluster.applied(self, index, term, command)


class Cluster:
    """The members, their network, and the invariants."""

    def __init__(
        self,
        clock: Clock,
        seed: int = 0,
        nodes: int = 3,
        *,
        replica_class: type[Replica] = Replica,
        machine_class: type[Machine] = Machine,
        timing: Timing = TIMING,
        compaction_entries: int = 1000,
        chunk_bytes: int = 300,
        batch_bytes: int = 1 << 20,
    ) -> None:
        self.clock = clock
        self.chance = random.Random(seed)
        self.network = Network(clock, self.chance)
        self.replica_class = replica_class
        self.machine_class = machine_class
        self.timing = timing
        self.compaction_entries = compaction_entries
        self.chunk_bytes = chunk_bytes
        self.batch_bytes = batch_bytes
        self.ids = list(range(1, nodes + 1))
        #: By node: those its cluster file does not name.
        self.unknown_to: dict[int, set[int]] = {node: set() for node in self.ids}
        #: By index: the (term, command) that a node applied.
        self.log: dict[int, tuple[int, bytes]] = {}
        #: Commands that were acknowledged to a client.
        self.acknowledged: set[int] = set()
        #: By node: how far its clock is ahead.
        self.wall_offset_ns = dict.fromkeys(self.ids, 0)
        self._waiting: dict[tuple[int, int, int, int], int] = {}
        self._places: dict[int, int] = {}
        self._leaders: dict[int, int] = {}
        self._submitted = 0
        self.members = {node: self._member(node) for node in self.ids}

    def _member(self, node: int) -> Member:
        return Member(self, node)

    def wall_ns(self, node: int) -> int:
        """Return the nanoseconds since 1970 by a node's clock."""
        return _WALL_NS + int(self.clock.time * 1e9) + self.wall_offset_ns.get(node, 0)

    def settings(self) -> ReplicaSettings:
        """Return the settings of every replica."""
        return ReplicaSettings(
            timing=self.timing,
            compaction_entries=self.compaction_entries,
            batch_bytes=self.batch_bytes,
            chunk_bytes=self.chunk_bytes,
        )

    # Driving.

    def step(self, until: float) -> None:
        """Advance to the next event, at most to `until`, and let the nodes it concerns take a turn."""
        up = [member for member in self.members.values() if member.up]
        due = [(member.replica.next_deadline(), member) for member in up]
        event = min([self.network.next_arrival(), *(deadline for deadline, _ in due)])
        self.clock.time = max(self.clock.time, min(event, until))
        turning = {member.id for deadline, member in due if deadline <= self.clock.time}
        for target, frame in self.network.arrivals(self.clock.time):
            member = self.members.get(target)
            if member is not None and member.up:
                member.transport.receive(frame)
                turning.add(target)
        for node in sorted(turning):
            self.members[node].turn()
            self._check_leader(self.members[node])

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.step(end)

    def run_until(self, condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
        """Let time pass until a condition holds; raises Violation if it does not hold in time."""
        end = self.clock.time + seconds
        while not condition():
            if self.clock.time >= end:
                raise Violation(f"expected {what} within {seconds} s of simulated time; {self.describe()}")
            self.step(end)

    def leader(self) -> Member | None:
        """The leader of the highest term, if there is one."""
        leaders = [member for member in self.members.values() if member.up and member.replica.is_leader]
        return max(leaders, key=lambda member: member.replica.term, default=None)

    def bootstrap(self) -> None:
        """Wait until every node is bootstrapped."""
        self.run_until(
            lambda: all(member.meta.initialized for member in self.members.values()), what="a bootstrapped cluster"
        )

    def elect(self) -> Member:
        """Wait for a leader that can commit; return it."""
        self.run_until(lambda: self.leader() is not None, what="a leader")
        self.commit()
        leader = self.leader()
        assert leader is not None
        return leader

    def submit(self, member: Member, size: int = 32) -> int:
        """Submit a new command to a leader; return its number."""
        self._submitted += 1
        number = self._submitted
        replica = member.replica
        index = replica.submit(entry(number, size))
        self._waiting[member.id, member.meta.incarnation, index, replica.term] = number
        return number

    def commit(self, count: int = 1, seconds: float = 15.0, size: int = 32) -> None:
        """Commit commands through the current leader; if the leader is lost, send them again with new numbers."""
        for _ in range(count):
            end = self.clock.time + seconds
            done = False
            while not done:
                self.run_until(lambda: self.leader() is not None, end - self.clock.time, "a leader")
                leader = self.leader()
                assert leader is not None
                number = self.submit(leader, size)
                leader.turn()
                with contextlib.suppress(Violation):
                    self.run_until(lambda number=number: number in self.acknowledged, 1.0)
                done = number in self.acknowledged
                if self.clock.time >= end:
                    raise Violation(f"expected a commit within {seconds} s; {self.describe()}")

    def settle(self, seconds: float = 10.0) -> None:
        """Wait until every node that is up has applied the same, fully."""

        def equal() -> bool:
            positions = {member.machine.position() for member in self.members.values() if member.up}
            return len(positions) == 1

        self.run_until(equal, seconds, "equal positions")

    def settle_sequences(self, seconds: float = 10.0) -> None:
        """Wait until every node that is up has applied the same number of commands."""
        self.run_until(lambda: len({m.machine.sequence for m in self.members.values() if m.up}) == 1, seconds)

    def crash(self, node: int) -> None:
        """Kill a process."""
        self.members[node].crash()

    def join(self) -> Member:
        """Start a node that is no member; its cluster file names all nodes, those of the others do not name it."""
        node = max(self.ids) + 1
        for other in self.ids:
            self.unknown_to[other].add(node)
        self.ids.append(node)
        self.unknown_to[node] = set()
        self.members[node] = self._member(node)
        return self.members[node]

    def add(self, node: int) -> None:
        """Add a member and wait until it has its vote."""
        leader = self.elect()
        leader.replica.add_member(NodeConfig(id=node, port=node))
        self.run_until(lambda: node in self._members_of_leader(), what=f"node {node} with a vote")

    def remove(self, node: int) -> None:
        """Remove a member and wait until that is committed."""
        leader = self.elect()
        index = leader.replica.remove_member(node)
        self.run_until(lambda: leader.replica.commit_index >= index, what=f"a cluster without node {node}")

    def _members_of_leader(self) -> frozenset[int]:
        leader = self.leader()
        return frozenset() if leader is None else leader.replica.membership.voters

    def restart(self, node: int) -> None:
        """Start a killed process again."""
        self.members[node].start()

    def describe(self) -> str:
        """Return one line for each node."""
        return "; ".join(
            f"node {m.id}: "
            + (
                f"{m.replica.role} term {m.replica.term} last {m.replica.last_index} "
                f"commit {m.replica.commit_index} waiting {m.replica.waiting!r}"
                if m.up
                else "down"
            )
            for m in self.members.values()
        )

    def deliver(
        self,
        source: int,
        target: int,
        body: Body,
        term: int | None = None,
        flags: int = 0,
        incarnation: int | None = None,
    ) -> None:
        """Deliver a message to a node as if another had sent it, by default to its present incarnation."""
        member, sender = self.members[target], self.members[source]
        envelope = Envelope(
            messages.PROTOCOL,
            messages.cluster_number(CLUSTER),
            source,
            sender.meta.incarnation,
            member.meta.incarnation if incarnation is None else incarnation,
            member.replica.term if term is None else term,
            flags,
            0,
            0,
            self.wall_ns(source),
            0,
            body,
        )
        member.transport.receive(messages.encode(envelope))

    # Checking.

    def applied(self, member: Member, index: int, term: int, command: bytes) -> None:
        """Check an entry that a node applies."""
        first = self.log.setdefault(index, (term, command))
        if first != (term, command):
            raise Violation(
                f"node {member.id} applies command {number_of(command)} of term {term} at {index}, where another "
                f"node applied {number_of(first[1])} of term {first[0]}"
            )
        number = number_of(command)
        if self._places.setdefault(number, index) != index:
            raise Violation(f"command {number} applied at {self._places[number]} and again at {index}")
        acknowledged = self._waiting.pop((member.id, member.meta.incarnation, index, term), None)
        if acknowledged is not None:
            if acknowledged != number:
                raise Violation(f"command {acknowledged} acknowledged, but {number} applied at {index}")
            self.acknowledged.add(number)

    def check_end(self) -> None:
        """Check, after a full repair, that no acknowledged command is missing and all nodes are equal."""
        self.settle()
        for member in self.members.values():
            missing = self.acknowledged - set(member.machine.numbers)
            if missing:
                raise Violation(f"acknowledged commands {sorted(missing)[:5]} are not on node {member.id}")
            if len(set(member.machine.numbers)) != len(member.machine.numbers):
                raise Violation(f"a command is twice on node {member.id}")

    def _check_leader(self, member: Member) -> None:
        if member.replica.is_leader:
            term = member.replica.term
            if self._leaders.setdefault(term, member.id) != member.id:
                raise Violation(f"nodes {self._leaders[term]} and {member.id} both lead term {term}")
