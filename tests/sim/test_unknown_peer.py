"""Messages of unknown peers are refused by their key or dropped, and change nothing."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from smrx.config import NodeConfig
from smrx.consensus import MemoryJournal
from smrx.sim import REAL, simulate
from smrx.sim.profile import Profile
from smrx.sim.simulated_transport import SimulatedTransport, key_of
from tests.sim import broken

#: Of all transports of a run: connections by whether they were accepted, messages by why they were dropped, and
#: messages that reached the replica.
connections: Counter[bool] = Counter()
dropped: Counter[str] = Counter()
delivered: Counter[str] = Counter()


class CountingTransport(SimulatedTransport):
    """Counts what happens to the messages of unknown peers."""

    _is_unknown_peer = False

    def receive_with_key(self, key: str, frame: bytes) -> bool:
        before = self.dropped.copy()
        self._is_unknown_peer = True
        try:
            is_accepted = super().receive_with_key(key, frame)
        finally:
            self._is_unknown_peer = False
        connections[is_accepted] += 1
        dropped.update(self.dropped - before)
        return is_accepted

    def _onMessageReceived(self, node: Any, message: Any) -> None:
        if self._is_unknown_peer:
            delivered[type(message.body).__name__] += 1
        super()._onMessageReceived(node, message)


class AcceptsEveryKey(CountingTransport, broken.AcceptsEveryKey):
    """Accepts every connection."""


class AcceptsEveryEnvelope(CountingTransport, broken.AcceptsEveryEnvelope):
    """Checks no envelope."""


@pytest.fixture(autouse=True)
def reset_counters() -> None:
    for counter in (connections, dropped, delivered):
        counter.clear()


def unknown_peers(drawn: Profile) -> Profile:
    return replace(
        drawn, nodes=3, durable=True, early=False, faults=frozenset({"unknown peer"}), fault_phase_seconds=4.0
    )


def test_messages_of_unknown_peers_never_reach_the_replica() -> None:
    for seed in range(4):
        assert simulate(seed, REAL.replace(transport=CountingTransport), unknown_peers).failure is None
    assert min(connections.values()) > 50
    assert set(dropped) == {"of another cluster", "not from a member", "undecodable"}
    assert sum(dropped.values()) == connections[True]
    assert not delivered


@pytest.mark.parametrize("transport", [AcceptsEveryKey, AcceptsEveryEnvelope])
def test_forged_messages_reach_the_replica_without_either_check(transport: type[CountingTransport]) -> None:
    for seed in range(10):
        simulate(seed, REAL.replace(transport=transport), unknown_peers)
    assert {"Vote", "AppendReply", "AppendEntries", "RequestVote", "PreVoteReply"} <= set(delivered)


class Host:
    """The node of a transport that sends nothing."""

    id = 1

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def transmit(self, peer: int, frame: bytes) -> None:
        raise AssertionError("expected no message")


def test_key_is_accepted_while_its_node_is_a_peer() -> None:
    transport = SimulatedTransport(Host(), [2, 3], 1)
    transport._clock, transport._hello_interval_seconds = time.monotonic, 1.0
    assert not transport.receive_with_key(key_of(4), b"")
    assert transport.receive_with_key(key_of(3), b"")
    transport.add_peer(NodeConfig(id=4, port=4))
    assert transport.receive_with_key(key_of(4), b"")
    transport._disconnect(4)
    assert not transport.receive_with_key(key_of(4), b"")
    assert transport.dropped == {"undecodable": 2}
