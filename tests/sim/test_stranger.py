"""What a stranger says, and what becomes of it at the door and behind it."""

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

#: Of all transports of a run: whether a knock was answered by opening, why what came in was dropped, what was believed.
opened: Counter[bool] = Counter()
dropped: Counter[str] = Counter()
believed: Counter[str] = Counter()


class Doorstep(SimulatedTransport):
    """Notes what becomes of those who knock."""

    _knocking = False

    def knock(self, key: str, frame: bytes) -> bool:
        before = self.dropped.copy()
        self._knocking = True
        try:
            let_in = super().knock(key, frame)
        finally:
            self._knocking = False
        opened[let_in] += 1
        dropped.update(self.dropped - before)
        return let_in

    def _onMessageReceived(self, node: Any, message: Any) -> None:
        if self._knocking:
            believed[type(message.body).__name__] += 1
        super()._onMessageReceived(node, message)


class LetsAnybodyIn(Doorstep, broken.LetsAnybodyIn):
    """The door is open."""


class BelievesEveryEnvelope(Doorstep, broken.BelievesEveryEnvelope):
    """Behind the door nobody is asked."""


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    for notes in (opened, dropped, believed):
        notes.clear()


def strangers(drawn: Profile) -> Profile:
    return replace(drawn, nodes=3, durable=True, early=False, faults=frozenset({"stranger"}), storm_seconds=4.0)


def test_nothing_that_a_stranger_says_is_believed() -> None:
    for seed in range(4):
        assert simulate(seed, REAL.but(transport=Doorstep), strangers).failure is None
    # Some are held up at the door; of the others it is known why they were dropped.
    assert min(opened.values()) > 50
    assert set(dropped) == {"of another cluster", "not from a member", "undecodable"}
    assert sum(dropped.values()) == opened[True]
    assert not believed


@pytest.mark.parametrize("kind", [LetsAnybodyIn, BelievesEveryEnvelope])
def test_without_one_of_the_two_checks_the_lies_get_through(kind: type[Doorstep]) -> None:
    for seed in range(10):
        simulate(seed, REAL.but(transport=kind), strangers)
    assert {"Vote", "AppendReply", "AppendEntries", "RequestVote", "PreVoteReply"} <= set(believed)


class Host:
    """The node of a transport that sends nothing."""

    id = 1

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def transmit(self, peer: int, frame: bytes) -> None:
        raise AssertionError("nothing is sent here")


def test_a_key_opens_as_long_as_its_holder_is_known() -> None:
    transport = SimulatedTransport(Host(), [2, 3], 1)
    transport._clock, transport._hello_interval_seconds = time.monotonic, 1.0
    assert not transport.knock(key_of(4), b"")
    assert transport.knock(key_of(3), b"")
    transport.add_peer(NodeConfig(id=4, port=4))
    assert transport.knock(key_of(4), b"")
    transport._disconnect(4)
    assert not transport.knock(key_of(4), b"")
    assert transport.dropped == {"undecodable": 2}
