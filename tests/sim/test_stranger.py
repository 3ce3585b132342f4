"""What a stranger says, and what becomes of it at the door and behind it."""

import random
from collections import Counter

import pytest

from smrx.consensus import MemoryJournal, messages
from smrx.consensus.messages import Hello
from smrx.consensus.transport import Header
from smrx.sim.stranger import Ear, lie
from smrx.sim.transport import SimulatedTransport, key_of
from tests.sim import broken

EAR = Ear(incarnation=1, term=3, last_index=9, last_term=3, claimed=2, claimed_incarnation=1, claimed_key=key_of(2))
STATE = 77


class Node:
    """A host of a transport that hears members 2 and 3, and of which nothing is wanted."""

    id = 1

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def transmit(self, peer: int, frame: bytes) -> None:
        raise AssertionError("nothing is sent here")


def listening(kind: type[SimulatedTransport]) -> tuple[SimulatedTransport, list[messages.Envelope]]:
    """A transport of node 1, and what gets through it."""
    transport = kind(Node(), [2, 3], 1)
    transport.attach(
        header=lambda: Header(3, 0, 0, STATE),
        persist=lambda: None,
        clock=lambda: 0.0,
        hello_seconds=1.0,
        silence_seconds=1.0,
    )
    heard: list[messages.Envelope] = []
    transport.setOnMessageReceivedCallback(lambda node, envelope: heard.append(envelope))
    return transport, heard


def lies(number: int) -> list[tuple[str, bytes]]:
    chance = random.Random(1)
    return [lie(chance, EAR, [b"\x93\x01\x02"]) for _ in range(number)]


def test_nothing_that_a_stranger_says_is_believed() -> None:
    transport, heard = listening(SimulatedTransport)
    let_in = Counter(transport.knock(key, frame) for key, frame in lies(300))
    assert heard == []
    # Some are held up at the door; of the others it is known why they were dropped.
    assert let_in[False] > 100
    assert set(transport.dropped) == {"of another cluster", "not from a member", "undecodable"}
    assert sum(transport.dropped.values()) == let_in[True] > 50


@pytest.mark.parametrize("kind", [broken.LetsAnybodyIn, broken.BelievesEveryEnvelope])
def test_without_one_of_the_two_checks_the_lies_get_through(kind: type[SimulatedTransport]) -> None:
    transport, heard = listening(kind)
    for key, frame in lies(300):
        transport.knock(key, frame)
    assert len({type(envelope.body) for envelope in heard}) == 5


def test_members_come_in_as_long_as_they_are_members() -> None:
    transport, heard = listening(SimulatedTransport)
    frame = messages.encode(
        messages.Envelope(messages.PROTOCOL, messages.cluster_number("simulation"), 3, 1, 1, 3, 0, 0, STATE, Hello())
    )
    assert transport.knock(key_of(3), frame)
    assert len(heard) == 1
    transport.part(3)
    transport.flush()
    assert not transport.knock(key_of(3), frame)
