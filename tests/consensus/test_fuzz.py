"""The transport and the replica handle any bytes from the network without an exception."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smrx.config import NodeConfig
from smrx.consensus import messages
from smrx.consensus.membership import Member
from smrx.consensus.messages import Body
from tests.consensus.harness import GENESIS, Clock, Cluster, entry, simulated

BODIES: list[Body] = [
    messages.Hello(),
    messages.AppendEntries(3, 1, 2, 6, 0, False, [(entry(1), 4, 1), (messages.NO_OP, 5, 1), (entry(2), 6, 2)]),
    messages.AppendReply(4, False, True, 0),
    messages.AppendReply(2, True, False, 0),
    messages.RequestVote(9, 1),
    messages.Vote(2),
    messages.PreVote(1, 9, 1),
    messages.PreVoteReply(1),
    messages.SnapshotChunk(8, 1, 30, bytes(16), 0, bytes(10), 9, 9, 0, *GENESIS),
    messages.SnapshotReply(3, 10, False),
    messages.HashRequest([0, 1, 5]),
    messages.HashReply([(1, 5), (2, None)]),
    messages.MembershipHint([Member(NodeConfig(id=1, port=1), True), Member(NodeConfig(id=2, port=2), True, 3)]),
    messages.NotAMember(7),
]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)


def frame_of(cluster: Cluster, body: Body, term: int) -> bytes:
    return messages.encode(
        messages.Envelope(messages.PROTOCOL, messages.cluster_number("harness"), 2, 1, 1, term, 0, 1, 77, 0, 0, body)
    )


def prepared(clock: Clock, leads: bool) -> Cluster:
    """Node 1 with a short log, as a follower of node 2 or as the leader."""
    cluster = Cluster(clock)
    if leads:
        cluster.deliver(2, 1, messages.Hello(), term=0)
        member = cluster.members[1]
        cluster.run_until(lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        while leader is not member:
            cluster.crash(leader.id)
            cluster.run_until(lambda old=leader: cluster.leader() not in (None, old))
            cluster.restart(leader.id)
            cluster.commit()
            leader = cluster.leader()
            assert leader is not None
    entries = [(entry(number), number, 1) for number in range(2, 5)]
    cluster.deliver(2, 1, messages.AppendEntries(1, 0, 2, 4, 0, False, entries), term=1)
    return cluster


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_dropped(frame: bytes) -> None:
    with simulated(1) as clock:
        member = Cluster(clock).members[1]
        member.transport.receive(frame)
        assert member.transport.dropped.total() == 1


@settings(max_examples=300)
@given(
    bodies=st.lists(
        st.tuples(
            st.sampled_from(BODIES),
            st.integers(1, 3),
            st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
        ),
        min_size=1,
        max_size=6,
    ),
    leads=st.booleans(),
)
def test_damaged_frames_of_a_member_do_not_raise(
    bodies: list[tuple[Body, int, list[tuple[int, int]]]], leads: bool
) -> None:
    with simulated(1) as clock:
        cluster = prepared(clock, leads)
        member = cluster.members[1]
        # What a false commit index applies is not the question here.
        member.machine.on_apply = lambda index, term, command: None
        for body, term, damage in bodies:
            frame = bytearray(frame_of(cluster, body, term))
            for position, value in damage:
                frame[position % len(frame)] = value
            member.transport.receive(bytes(frame))
            member.turn()
