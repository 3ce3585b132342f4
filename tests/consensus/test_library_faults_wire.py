"""Library faults 4, 5, 12, 14, 17, 18 and 19: what an entry is, how it is sent, and a failure to apply it."""

import pickle
import zlib
from pathlib import Path

import msgspec
import pysyncobj.pickle
import pytest

from smrx.config import Timing
from smrx.consensus import ConsensusError, Replica, messages
from smrx.consensus.messages import AppendEntries
from smrx.consensus.raft_library import RaftLibrary
from smrx.consensus.snapshot_sender import SnapshotSender
from smrx.consensus.snapshots import Snapshot
from tests.consensus import stock
from tests.consensus.harness import (
    CLUSTER,
    ENTRY_HEAD,
    GENESIS,
    TIMING,
    Clock,
    Cluster,
    Machine,
    MemoryTransport,
    Violation,
    entry,
)


class Poisoned(Machine):
    """A state machine with a bug: command 3 raises after it has done its work."""

    attempts = 0

    def apply(self, log_index: int, term: int, command: bytes) -> None:
        super().apply(log_index, term, command)
        if self.sequence == 3:
            type(self).attempts += 1
            raise RuntimeError("a bug")


@pytest.mark.parametrize(("replica_class", "attempts"), [(Replica, 1), (stock.AppliesAgainAfterFailure, 5)])
def test_row_4_command_that_raises_is_applied_once_and_stops_the_node(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, replica_class: type[Replica], attempts: int
) -> None:
    monkeypatch.setattr(Poisoned, "attempts", 0)
    cluster = Cluster(clock, nodes=1, machine_class=Poisoned, replica_class=replica_class)
    member = cluster.members[1]
    member.turn()
    for _ in range(3):
        cluster.submit(member)
    for _ in range(5):
        with pytest.raises(ConsensusError):
            member.replica.tick()
        # The library's step has no memory of the failure.
        if replica_class is not Replica:
            member.replica.applier.failure = None
            member.machine.sequence = 2
    assert Poisoned.attempts == attempts


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


class Unpickles(MemoryTransport):
    """Row 5: unpickles a message before its sender is checked."""

    def receive(self, frame: bytes) -> None:
        pysyncobj.pickle.loads(frame)


@pytest.mark.parametrize(("transport_class", "explodes"), [(MemoryTransport, False), (Unpickles, True)])
def test_row_5_bytes_from_the_network_are_never_executed(
    clock: Clock, tmp_path: Path, transport_class: type[MemoryTransport], explodes: bool
) -> None:
    network = Cluster(clock).network
    transport = transport_class(network, cluster=CLUSTER, node_id=1, peers=[2], incarnation=1)
    transport.receive(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists() is explodes
    assert transport.dropped["undecodable"] == (not explodes)


def test_row_5_nothing_is_pickled_or_unpickled(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("pickle")

    for name in ("loads", "dumps", "load", "dump"):
        monkeypatch.setattr(pysyncobj.pickle, name, forbidden)
    cluster = Cluster(clock, compaction_entries=8)
    leader = cluster.elect()
    follower = next(node for node in cluster.ids if node != leader.id)
    cluster.crash(follower)
    cluster.commit(30)
    cluster.restart(follower)
    cluster.commit()
    cluster.check_end()


@pytest.mark.parametrize("first", [b"\x02", b"\x03", b"\x04", b"\xff", b""])
def test_row_5_pickled_entries_are_absurd(clock: Clock, first: bytes) -> None:
    cluster = Cluster(clock)
    bomb = first + b"(dp0\n." if first else b""
    cluster.deliver(1, 2, AppendEntries(1, 0, 1, 2, 0, False, [(bomb, 2, 1)]), term=1)
    assert cluster.members[2].transport.dropped == {"absurd": 1}
    assert cluster.members[2].replica.last_index == 1


class NeverReady(SnapshotSender):
    """A snapshot that never becomes ready."""

    def snapshot_for_peers(self) -> Snapshot | None:
        return None


class FloodsNeverReady(stock.FloodingSender, NeverReady):
    """The same, with the library's loop."""


def bare_heartbeats(clock: Clock, sender_class: type[SnapshotSender], timing: Timing = TIMING) -> int:
    """Let a node need a snapshot that is not ready, and tick the leader for a second; return the empty frames sent."""
    cluster = Cluster(clock, compaction_entries=8, timing=timing)
    leader = cluster.elect()
    follower = next(node for node in cluster.ids if node != leader.id)
    cluster.crash(follower)
    cluster.commit(30)
    leader.replica.leader.snapshots.__class__ = sender_class
    cluster.restart(follower)
    cluster.run_until(lambda: cluster.members[follower].replica.role == "learner" and cluster.members[follower].up)
    cluster.run(0.2)
    cluster.network.keep_sent = True
    for _ in range(2000):
        clock.time += 0.0005
        leader.turn()
        leader.transport.receive(hello_of(cluster, next(n for n in cluster.ids if n not in (leader.id, follower))))
    assert leader.replica.is_leader or sender_class is FloodsNeverReady
    bodies = [messages.decode(frame).body for _, target, frame in cluster.network.sent if target == follower]
    return sum(isinstance(body, AppendEntries) and body.prev_index is None for body in bodies)


def hello_of(cluster: Cluster, node: int) -> bytes:
    """Return a hello, so that the leader keeps leading while nothing is delivered."""
    leader = cluster.leader()
    assert leader is not None
    member = cluster.members[node]
    body = messages.AppendReply(member.replica.last_index + 1, False, False, 0)
    return messages.encode(
        messages.Envelope(
            messages.PROTOCOL,
            messages.cluster_number(CLUSTER),
            node,
            member.meta.incarnation,
            leader.meta.incarnation,
            leader.replica.term,
            0,
            *member.machine.position(),
            cluster.wall_ns(node),
            0,
            body,
        )
    )


def test_row_12_one_empty_frame_each_period_until_a_snapshot_is_ready(clock: Clock) -> None:
    assert 1 <= bare_heartbeats(clock, NeverReady) <= 21


def test_row_12_uncorrected_sends_thousands(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(clock), "__call__", lambda self: setattr(self, "time", self.time + 1e-4) or self.time)
    # Each flood takes a part of a second.
    patient = Timing(heartbeat_ms=50, election_min_ms=2000, election_max_ms=3000, leader_fallback_ms=1900)
    assert bare_heartbeats(clock, FloodsNeverReady, patient) > 2000


def test_row_14_largest_entry_is_sent_whole(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.elect()
    cluster.network.keep_sent = True
    cluster.commit(size=messages.MAX_ENTRY_BYTES)
    cluster.settle()
    largest = max(len(frame) for _, _, frame in cluster.network.sent)
    assert messages.MAX_ENTRY_BYTES < largest <= messages.MAX_MESSAGE_BYTES


def submit_too_large(clock: Clock, replica_class: type[Replica]) -> None:
    cluster = Cluster(clock, replica_class=replica_class)
    leader = cluster.elect()
    cluster.settle()
    last = leader.replica.last_index
    try:
        cluster.submit(leader, size=messages.MAX_ENTRY_BYTES + 1)
    except ValueError:
        assert leader.replica.last_index == last
        raise
    cluster.settle()
    cluster.run_until(lambda: leader.replica.commit_index > last, 5, "the commit of a large entry")


def test_row_14_larger_entry_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="expected an entry of at most"):
        submit_too_large(clock, Replica)


def test_row_14_uncorrected_large_entry_blocks_the_log(clock: Clock) -> None:
    with pytest.raises(Violation, match="the commit of a large entry"):
        submit_too_large(clock, stock.IgnoresVersions)


@pytest.mark.parametrize(("replica_class", "applies"), [(Replica, False), (stock.IgnoresVersions, True)])
def test_row_17_entry_of_another_version_is_not_applied(
    clock: Clock, replica_class: type[Replica], applies: bool
) -> None:
    cluster = Cluster(clock, nodes=1, replica_class=replica_class)
    member = cluster.members[1]
    member.turn()
    later = bytes((ENTRY_HEAD[0], ENTRY_HEAD[1] + 1)) + entry(1)[2:]
    fault = f"expected entry version {ENTRY_HEAD[1]}, found {later[1]}"
    if applies:
        member.replica.submit(later)
        member.replica.tick()
    else:
        with pytest.raises(ValueError, match=fault):
            member.replica.submit(later)
        member.replica._journal.add(later, member.replica.last_index + 1, member.replica.term)
        with pytest.raises(ConsensusError, match=fault):
            member.replica.tick()
    assert member.machine.numbers == ([1] if applies else [])


def test_row_17_there_are_no_replicated_methods() -> None:
    assert not [name for name in dir(RaftLibrary) if getattr(getattr(RaftLibrary, name), "replicated", False)]


@pytest.mark.parametrize(("replica_class", "raw"), [(Replica, True), (stock.Pickles, False)])
def test_row_18_log_holds_the_submitted_bytes(clock: Clock, replica_class: type[Replica], raw: bool) -> None:
    cluster = Cluster(clock, nodes=1, replica_class=replica_class)
    member = cluster.members[1]
    member.turn()
    command = ENTRY_HEAD + bytes(range(128, 256)) * 100
    index = member.replica.submit(command)
    kept = member.replica._journal.between(index, index)[0][0]
    assert (kept is command) is raw
    assert (len(kept) > 1.4 * len(command)) is not raw


class Compresses(MemoryTransport):
    """Row 19: zlib on every message."""

    def _transmit(self, peer: int, frame: bytes) -> bool:
        return super()._transmit(peer, zlib.decompress(zlib.compress(frame)))


@pytest.mark.parametrize("transport_class", [MemoryTransport, Compresses])
def test_row_19_messages_are_not_compressed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, transport_class: type[MemoryTransport]
) -> None:
    calls = []
    compress = zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda data, *rest: calls.append(len(data)) or compress(data, *rest))
    cluster = Cluster(clock)
    for member in cluster.members.values():
        member.transport.__class__ = transport_class
    cluster.elect()
    cluster.commit(5, size=65_536)
    cluster.settle()
    assert bool(calls) is (transport_class is Compresses)


@pytest.mark.parametrize(
    "body",
    [
        [1, 5, 1, 9, 9, 0, False, [[ENTRY_HEAD, 7, 1]]],  # a hole
        [1, 5, 2, 9, 9, 0, False, [[ENTRY_HEAD, 6, 1]]],  # a term that falls
        [1, 5, 1, 9, 9, 0, False, [[ENTRY_HEAD, 6, 9]]],  # a term above the sender's own
        [1, 5, 1, 10, 9, 0, False, []],  # more committed than there is
        [1, 0, 0, 9, 9, 0, False, []],  # before the beginning
        [1, None, 0, 9, 9, 0, False, [[ENTRY_HEAD, 6, 1]]],  # entries after nothing
        [1, 5, 1, 3, 3, 0, False, []],  # a last entry before the first
        [3, 5, 2],  # a candidate whose log is of the term it wants
        [4, 3],  # a vote for a term not reached
        [7, 5, 3, 10, bytes(16), 0, b"", 1, 1, 0, *GENESIS],  # a snapshot of a later term
        [7, 5, 1, 10, bytes(16), 8, b"123", 1, 1, 0, *GENESIS],  # more of a snapshot than there is
        [7, 5, 1, 10, bytes(16), 0, b"", 1, 1, 0, 6, GENESIS[1]],  # members of a later time than the snapshot
        [7, 5, 1, 10, bytes(16), 0, b"", 1, 1, 0, 1, b""],  # a snapshot without members
        [7, 5, 1, 10, bytes(16), 0, b"", 1, 1, 0, 1, b"\4\x92\1\x90"],  # members without a vote among them
        [1, 5, 1, 9, 9, 0, False, [[b"\4junk", 6, 1]]],  # members in no shape
    ],
)
def test_absurd_messages_are_counted_and_dropped(clock: Clock, body: list[object]) -> None:
    cluster = Cluster(clock)
    member = cluster.members[1]
    before = member.replica.term
    frame = [messages.PROTOCOL, messages.cluster_number(CLUSTER), 2, 1, 1, 2, 0, 0, 0, 0, 0, body]
    member.transport.receive(msgspec.msgpack.encode(frame))
    assert member.transport.dropped == {"absurd": 1}
    assert member.replica.term == before


@pytest.mark.parametrize(
    ("position", "value", "why"),
    [
        (0, messages.PROTOCOL + 1, "undecodable"),
        (1, 77, "of another cluster"),
        (2, 9, "not from a member"),
        (2, 0, "undecodable"),
        (3, 0, "from an earlier incarnation of the sender"),
        (4, 9, "for an earlier incarnation of this node"),
        (5, 1 << 50, "undecodable"),
        (5, -1, "undecodable"),
        (6, 77, "undecodable"),
        (7, "text", "undecodable"),
        (9, -1, "undecodable"),
        (9, 1 << 63, "undecodable"),
    ],
)
def test_foreign_envelopes_are_counted_and_dropped(clock: Clock, position: int, value: object, why: str) -> None:
    cluster = Cluster(clock)
    member = cluster.members[1]
    cluster.deliver(2, 1, messages.Hello())
    frame: list[object] = [messages.PROTOCOL, messages.cluster_number(CLUSTER), 2, 1, 1, 2, 0, 0, 0, 0, 0, [4, 1]]
    frame[position] = value
    member.transport.receive(msgspec.msgpack.encode(frame))
    assert member.transport.dropped == {why: 1}
