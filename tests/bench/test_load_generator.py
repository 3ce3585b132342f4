"""The load generator against a node that this test plays: what it sends, accepts as an answer and counts."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import zmq

from smrx.bench import load_flow, load_generator, load_histogram
from smrx.bench.bench_error import BenchError
from smrx.bench.load_generator import Measured, Shape
from smrx.bench.load_protocols import Zmtp
from smrx.engine import Engine
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import OUTCOME

#: Ends when everything is sent and answered, long before the time is over.
UNTIL_DONE = Shape(in_flight=3, seconds=60, warm_up_s=0.0)


class Sent(NamedTuple):
    """One frame that a node received, with its place among those of its connection."""

    number: int
    frame: frames.Frame
    identity: bytes


#: Returns what the node sends when it has received a frame, to whom.
Answer = Callable[[Sent], list[tuple[bytes, bytes]]]


def outcomes_of(sent: Sent, **changed: int) -> bytes:
    """Return the outcomes that accept all commands of a frame."""
    commands = frames.records(sent.frame)
    outcomes = np.zeros(len(commands), OUTCOME)
    outcomes["status"] = OutcomeStatus.ACCEPTED
    for name in ("session_id", "request_id"):
        outcomes[name] = commands[name]
    for name, value in changed.items():
        outcomes[name] += value
    return frames.encode_outcomes(outcomes, sent.frame.correlation)


def accept(sent: Sent) -> list[tuple[bytes, bytes]]:
    return [(sent.identity, outcomes_of(sent))]


class StubNode:
    """A node that answers as it is told, in a thread. Frame 0 of a connection opens its session."""

    def __init__(self, answer: Answer) -> None:
        self.received: dict[bytes, list[np.ndarray[Any, Any]]] = {}
        self._answer = answer
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._socket.poll(10):
                identity, data = self._socket.recv_multipart()
                frame = frames.decode(data)
                received = self.received.setdefault(identity, [])
                sent = Sent(len(received), frame, identity)
                received.append(frames.records(frame).copy())
                for reply in self._answer(sent) if sent.number else accept(sent):
                    self._socket.send_multipart(reply)

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()
        self._context.term()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], StubNode]]:
    # The generator holds the interpreter for a slice, which the thread of the node needs, too.
    monkeypatch.setattr(load_generator, "_SLICE_NS", 500_000)
    started = []

    def start(answer: Answer) -> StubNode:
        started.append(StubNode(answer))
        return started[-1]

    yield start
    for found in started:
        found.close()


def offer(node: StubNode, shape: Shape = UNTIL_DONE, mix: str = "steady", repeats: int = 1) -> Measured:
    """Send the piece of a mix a number of times over each of two connections."""
    load = load_flow.of_mix(mix, 2)
    load = load._replace(flow=load.flow._replace(repeats=np.full(2, repeats)))
    return load_generator.measure(load, shape, lambda: node.address, Zmtp())


@pytest.mark.parametrize("frame_commands", [1, 10])
def test_every_request_is_sent_once_and_counted(node: Callable[[Answer], StubNode], frame_commands: int) -> None:
    stub = node(accept)
    measured = offer(stub, UNTIL_DONE._replace(frame_commands=frame_commands))
    assert len(stub.received) == 2
    for received in stub.received.values():
        rows = np.concatenate(received)
        assert rows["kind"][0] == CommandKind.OPEN_SESSION
        assert len(set(rows["session_id"].tolist())) == len(set(rows["account"].tolist())) == 1
        assert rows["request_id"].tolist() == list(range(len(rows)))
        assert {len(frame) for frame in received[1:]} == {frame_commands}
        assert len(rows) - len(received[0]) == 500
    assert int(measured.answered.sum()) == measured.acknowledged == 1_000
    assert 0 < load_histogram.at_share(measured.latency, 0.5) <= load_histogram.at_share(measured.latency, 1.0)  # type: ignore[operator]
    assert (measured.rejected, measured.unsent, measured.reconnects) == (0, 0, 0)


def test_rejections_are_counted(node: Callable[[Answer], StubNode]) -> None:
    rejection = int(OutcomeStatus.REJECTED) - int(OutcomeStatus.ACCEPTED)
    measured = offer(node(lambda sent: [(sent.identity, outcomes_of(sent, status=rejection))]))
    assert measured.rejected == int(measured.answered.sum()) > 0


@pytest.mark.parametrize("changed", ["session_id", "request_id"])
def test_answer_to_something_else_ends_the_run(node: Callable[[Answer], StubNode], changed: str) -> None:
    with pytest.raises(BenchError, match="not that to the first order"):
        offer(node(lambda sent: [(sent.identity, outcomes_of(sent, **{changed: 1}))]))


def test_refused_frame_ends_the_run(node: Callable[[Answer], StubNode]) -> None:
    def refuse(sent: Sent) -> list[tuple[bytes, bytes]]:
        return [(sent.identity, frames.encode_body(FrameKind.ERROR, ErrorBody(ErrorCode.OVERLOADED, "too much"), 0))]

    with pytest.raises(BenchError, match="refused a frame: too much"):
        offer(node(refuse))


def test_answer_that_comes_twice_ends_the_run(node: Callable[[Answer], StubNode]) -> None:
    with pytest.raises(BenchError, match="not that to the first order"):
        offer(node(lambda sent: accept(sent) * 2))


@pytest.mark.parametrize("fault", ["redirect", "drop"])
def test_unanswered_requests_are_sent_again(node: Callable[[Answer], StubNode], fault: str) -> None:
    """After NOT_LEADER, or a gap in the answers, all connections are new and begin with what is unanswered."""
    hit: list[bytes] = []

    def answer(sent: Sent) -> list[tuple[bytes, bytes]]:
        if hit or sent.number < 5:
            return accept(sent)
        hit.append(sent.identity)
        redirect = frames.encode_body(FrameKind.NOT_LEADER, LeaderHint(2, None, 1, 1), sent.frame.correlation)
        return [(sent.identity, redirect)] if fault == "redirect" else []

    stub = node(answer)
    measured = offer(stub)
    assert measured.reconnects == 1
    assert len(stub.received) == 4
    requests: dict[int, list[int]] = {}
    for received in stub.received.values():
        rows = np.concatenate(received)
        requests.setdefault(int(rows["session_id"][0]), []).extend(rows["request_id"].tolist())
    for found in requests.values():
        assert sorted(set(found)) == list(range(500 + 4 + 1))
    assert int(measured.answered.sum()) == 1_000


def test_open_loop_counts_the_wait_of_orders_that_could_not_be_sent(node: Callable[[Answer], StubNode]) -> None:
    """A node that does not answer is seen in the latencies, though few orders were sent."""
    held: list[Sent] = []
    is_over = threading.Event()
    shape = Shape(in_flight=2, rate=2_000, seconds=0.5, warm_up_s=0.0)

    def hold(sent: Sent) -> list[tuple[bytes, bytes]]:
        held.append(sent)
        if len(held) < 2 * shape.in_flight:
            return []
        is_over.wait(60)
        return [reply for one in held for reply in accept(one)]

    stub = node(hold)
    load = load_flow.of_mix("steady", 2)
    measured = load_generator.measure(
        load, shape, lambda: stub.address, Zmtp(), on_slice=lambda seconds: is_over.set() if seconds >= 0.5 else None
    )
    assert measured.unsent == 1_000 - 2 * shape.in_flight
    assert int(measured.latency.sum()) == 1_000
    assert load_histogram.at_share(measured.latency, 0.5) > 200_000_000  # type: ignore[operator]


def test_late_generator_is_reported() -> None:
    def with_lag(nanoseconds: int, cpu_s: float = 0.1) -> Measured:
        latency, lag, nothing = (load_histogram.new_counts() for _ in range(3))
        load_histogram.add(latency, np.full(100, 1_000_000))
        load_histogram.add(lag, np.full(100, nanoseconds))
        return Measured(100, 1.0, 0, latency, lag, nothing, nothing, nothing, cpu_s, 0, 0, None)

    assert load_generator._limit(with_lag(100_000), is_open=True) is None
    assert "late" in (load_generator._limit(with_lag(2_000_000), is_open=True) or "")
    assert load_generator._limit(with_lag(0, 0.5), is_open=False) is None
    assert "95% of a core" in (load_generator._limit(with_lag(0, 0.95), is_open=False) or "")


@pytest.mark.parametrize("mix", list(load_flow.MIXES))
def test_flow_is_accepted_and_leaves_a_small_book(mix: str, node: Callable[[Answer], StubNode]) -> None:
    """What the generator sends is accepted by an engine: cancels name open orders, and orders do not pile up."""
    stub = node(accept)
    offer(stub, UNTIL_DONE._replace(frame_commands=100), mix=mix, repeats=3)
    engine = Engine()
    load = load_flow.of_mix(mix, 2)
    opening = np.zeros(1, load.market.records.dtype)
    opening["kind"], opening["session_id"] = CommandKind.OPEN_SESSION, 99
    engine.apply(opening, 1)
    market = load.market.records.copy()
    market["session_id"], market["request_id"] = 99, np.arange(1, len(market) + 1)
    assert (engine.apply(market, 1, load.market.details).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    for commands in zip(*stub.received.values(), strict=True):
        for rows in commands:
            assert (engine.apply(rows, 1).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    # Each connection leaves the deep orders of its last block.
    assert len(engine.inspect.orders()) == (2 * 3 if mix == "steady" else 0)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_percentiles_are_close_to_the_exact_ones(share: float) -> None:
    values = np.random.default_rng(5).lognormal(12, 3, 10_000).astype(np.int64)
    counts = load_histogram.new_counts()
    load_histogram.add(counts, values)
    exact = np.sort(values)[max(0, int(np.ceil(share * len(values))) - 1)]
    assert load_histogram.at_share(counts, share) == pytest.approx(exact, rel=0.009, abs=1)
    assert load_histogram.at_share(load_histogram.new_counts(), share) is None
