"""Connections of non-members and replayed messages of members are harmless."""

import contextlib
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx.consensus import messages
from smrx.consensus.messages import AppendReply, RequestVote, Vote
from smrx.links import greeting
from smrx.links.greeting import ClientGreeting, Terms
from tests.consensus.harness import Clock, Cluster, entry
from tests.consensus.sockets import CLUSTER, Mesh, Node, Outsider


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    mesh.close()


def introduced(mesh: Mesh, victim: Node) -> socket.socket:
    """Return a connection to the Raft port on which the greeting was made by hand."""
    connection = socket.create_connection(("127.0.0.1", int(victim.address.rsplit(":", 1)[1])))
    client = ClientGreeting(Terms(greeting.PEER, messages.cluster_number(CLUSTER)), None, None, lambda key: True)
    hello = client.first()
    connection.sendall(struct.pack("<I", len(hello)) + hello)
    connection.setblocking(False)
    heard = bytearray()

    def greeted() -> bool:
        with contextlib.suppress(BlockingIOError):
            heard.extend(connection.recv(4096))
        return len(heard) >= 4 + len(hello)

    mesh.run_until(greeted)
    client.receive(bytes(heard[4 : 4 + len(hello)]))
    assert client.done
    return connection


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_oversized_frame_closes_the_connection_before_allocation(mesh: Mesh) -> None:
    victim = mesh.elect()
    connection = introduced(mesh, victim)
    before = peak_mib()
    # The length of a frame; its content never comes.
    connection.sendall(struct.pack("<I", 1 << 30))
    mesh.run_until(lambda: hung_up(connection))
    connection.close()
    assert peak_mib() - before < 64
    mesh.commit(entry(1))


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff",  # an array that claims 2^32 - 1 elements
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\x91" * 100_000,  # arrays in arrays
        b"\x9a\x01" + b"\xdd\x00\xff\xff\xff" * 1000,
    ],
    ids=["array", "map", "bytes", "nested", "nested-claims"],
)
def test_small_frame_with_large_announced_size_allocates_nothing(mesh: Mesh, frame: bytes) -> None:
    victim = mesh.elect()
    before = peak_mib()
    outsider = Outsider(mesh, victim)
    outsider.send(frame)
    mesh.run_until(lambda: victim.transport.dropped["undecodable"] == 1)
    outsider.close()
    assert peak_mib() - before < 64
    mesh.commit(entry(1))


def bodies(cluster: Cluster, kind: type) -> list[tuple[int, bytes]]:
    """(receiver, frame) of every message of a kind that was sent."""
    found = []
    for _, target, frame in cluster.network.sent:
        envelope = messages.decode(frame)
        if not isinstance(envelope, str) and isinstance(envelope.body, kind):
            found.append((target, frame))
    return found


def replay(cluster: Cluster, recorded: list[tuple[int, bytes]]) -> None:
    for target, frame in recorded:
        cluster.members[target].transport.receive(frame)
    cluster.run(0.2)


@pytest.mark.parametrize("kind", [Vote, RequestVote, AppendReply])
def test_replayed_messages_of_an_earlier_term_change_nothing(clock: Clock, kind: type) -> None:
    cluster = Cluster(clock)
    cluster.network.keep_sent = True
    first = cluster.elect()
    cluster.commit(3)
    recorded = bodies(cluster, kind)
    assert recorded
    cluster.crash(first.id)
    cluster.run_until(lambda: cluster.leader() not in (None, first))
    second = cluster.elect()
    cluster.restart(first.id)
    cluster.commit(3)
    cluster.settle()
    term, commit = second.replica.term, second.replica.commit_index
    replay(cluster, recorded)
    assert cluster.leader() is second
    assert (second.replica.term, second.replica.commit_index) == (term, commit)
    cluster.commit(1)
    cluster.check_end()


def test_vote_for_an_earlier_incarnation_does_not_count(clock: Clock) -> None:
    cluster = Cluster(clock)
    cluster.network.keep_sent = True
    leader = cluster.elect()
    to_leader = [(target, frame) for target, frame in bodies(cluster, Vote) if target == leader.id]
    assert to_leader
    cluster.crash(leader.id)
    cluster.restart(leader.id)
    replay(cluster, to_leader)
    assert leader.transport.dropped["for an earlier incarnation of this node"] >= len(to_leader)
    assert not leader.replica.is_leader


def test_forged_vote_counts_once_and_for_its_term_only(clock: Clock) -> None:
    """Without keys any process that reaches the port can pose as a member; its messages must still be valid."""
    cluster = Cluster(clock, nodes=5)
    leader = cluster.elect()
    cluster.settle()
    follower = next(member for member in cluster.members.values() if member is not leader)
    for _ in range(10):
        cluster.deliver(leader.id, follower.id, Vote(follower.replica.term))
        cluster.deliver(leader.id, follower.id, Vote(follower.replica.term + 5))
    cluster.run(0.2)
    assert cluster.leader() is leader
    assert not follower.replica.is_leader
