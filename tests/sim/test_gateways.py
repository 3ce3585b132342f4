"""Gateways in simulated clusters: each order is applied once, and planted faults of their links are found."""

import re
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from msgspec import structs

from smrx.gateway.upstream import Upstream
from smrx.links.connection import Connection
from smrx.links.framing import ReceiveBuffer
from smrx.links.greeting import ServerGreeting
from smrx.sim import REAL, simulate
from smrx.sim.gateway_components import GatewayComponents
from smrx.sim.profile import Profile, draw


def with_gateways(drawn: Profile) -> Profile:
    return replace(drawn, gateways=2, gateway_clients=3, early=False, nodes=3, spares=0, read_seconds=0.0)


class LosesBlocks(Upstream):
    """What was under way when a leader was lost is not sent again."""

    def _rewind(self, blocks: Any) -> None:
        for block in list(blocks):
            del self._under_way[block.correlation]


class RewindsBehind(Upstream):
    """What was under way is sent again behind what has waited."""

    def _rewind(self, blocks: Any) -> None:
        for block in sorted(blocks, key=lambda block: -block.correlation):
            del self._under_way[block.correlation]
            self._waiting.append(block)


class AnswersByPlace(Upstream):
    """An answer is taken for that of the oldest frame under way, whatever it answers."""

    def _on_outcomes(self, frame: Any, now: float) -> None:
        oldest = next(iter(self._under_way.values()), None)
        if oldest is not None and oldest.commands == frame.count:
            frame = structs.replace(frame, correlation=oldest.correlation)
        super()._on_outcomes(frame, now)


class ContinuesStreams(Connection):
    """A new connection of a client goes on with the half frame that the one before had received."""

    _kept: ClassVar[dict[str, bytes]] = {}

    def close(self, reason: str) -> None:
        if self.reason is None and self.greeted:
            self._kept[self.peer_address] = bytes(self.received_bytes())
        super().close(reason)

    def receive(self) -> bool:
        if self.greeted and (kept := self._kept.pop(self.peer_address, b"")):
            self._received.space()[: len(kept)] = kept
            self._received.received(len(kept))
        return super().receive()


class EarlyFrames(ReceiveBuffer):
    """A frame counts as complete when most of it has arrived."""

    def frames(self, limit: int) -> list[memoryview]:
        found = super().frames(limit)
        held = self.held()
        if not found and len(held) > 50:
            self.consume(len(held))
            return [held[2:]]
        return found


class HandsOutHalfFrames(Connection):
    """A connection with a buffer that does not wait for the end of a frame."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received = EarlyFrames(options["framing"], options["max_frame_bytes"])


class BelievesEveryProof(ServerGreeting):
    """The proof of a key is not checked."""

    def _check_proof(self, proof: bytes) -> None:
        pass


#: Each with a pattern of the failure, and the first of the ten seeds within which it is found.
PLANTED_FAULTS = [
    (GatewayComponents(upstream=LosesBlocks), "answers: missing|answers of a gateway", 0),
    (GatewayComponents(upstream=RewindsBehind), "answers of a gateway|acknowledged, in the log", 0),
    (
        GatewayComponents(upstream=AnswersByPlace),
        "answers of a gateway|acknowledged, in the log|replayed outcomes",
        112,
    ),
    (GatewayComponents(connection=ContinuesStreams), "answers|packets|only sent commands", 22),
    (GatewayComponents(connection=HandsOutHalfFrames), "answers: missing|packets|exception", 0),
    (GatewayComponents(greeting=BelievesEveryProof), "keys", 0),
]
_REAL = {Upstream, Connection, ServerGreeting}


def broken_class(value: object) -> str:
    """Return the name of the class with a fault."""
    classes = {value.upstream, value.connection, value.greeting} if isinstance(value, GatewayComponents) else set()
    return "".join(found.__name__ for found in classes - _REAL)


@pytest.mark.parametrize(("components", "failure", "start"), PLANTED_FAULTS, ids=broken_class)
def test_planted_fault_of_a_gateway_is_found(components: GatewayComponents, failure: str, start: int) -> None:
    for seed in range(start, start + 10):
        result = simulate(seed, REAL.replace(gateway=components), with_gateways)
        if result.failure is not None:
            assert re.search(failure, result.failure), result.failure
            assert simulate(seed, focus=with_gateways).failure is None
            return
    raise AssertionError("expected a failure within ten seeds")


def test_orders_through_gateways_are_answered_under_every_fault() -> None:
    lines = ""
    for seed in range(6):
        result = simulate(seed, focus=with_gateways)
        assert result.failure is None, result.failure
        lines += "\n".join(result.trace.lines(None))
    for text in (
        "is killed",
        "fault: stop a gateway",
        "fault: cut a gateway off",
        "connects to gateway",
        "unknown client",
    ):
        assert text in lines, text


def test_some_seeds_draw_gateways() -> None:
    assert 20 < sum(draw(seed).gateways > 0 for seed in range(200)) < 60
