"""One node of a cluster of one, turned by hand in this process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from smrx.config import Config, Timing
from smrx.local import LocalCluster
from smrx.node import compiled_entry
from smrx.node.reactor import Node, PortInUseError
from smrx.node.stage_times import Stage
from smrx.wire import frames
from smrx.wire.codes import OutcomeStatus, SessionFlags, Side, TimeInForce
from smrx.wire.command_list import CommandList, join
from smrx.wire.frames import FrameKind
from smrx.wire.records import OUTCOME
from tests import commands
from tests.node.order_client import TRANSPORTS, OrderClient, connected

DEADLINE_SECONDS = 20.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return LocalCluster(tmp_path, nodes=1, timing=Timing(disconnect_ms=400)).config


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    # Else the first order would wait for the compiler.
    compiled_entry.warm_up()
    node = Node(config, 1)
    turn_until(node, lambda: node.replica.is_leader)
    yield node
    node.close()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def orders(transport: str, config: Config) -> Iterator[OrderClient]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = connected(transport, context, config.node(1))
    yield socket
    socket.close()
    context.destroy(linger=0)


def turn_until(node: Node, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met before the deadline"
        node.turn()


def answer(node: Node, orders: OrderClient, *parts: CommandList) -> frames.Frame:
    orders.send(frames.encode_commands(join(parts)))
    while True:
        turn_until(node, lambda: bool(orders.poll(0)))
        frame = frames.decode(orders.recv())
        if frame.kind is not FrameKind.PONG:
            return frame


def opened_account(account: int) -> CommandList:
    return join([commands.open_session(5, 0), commands.open_account((5, 1), account)])


def test_cluster_of_one_serves(node: Node, orders: OrderClient) -> None:
    frame = answer(node, orders, opened_account(3))
    assert frame.kind is FrameKind.OUTCOMES
    assert frames.records(frame)["status"].tolist() == [OutcomeStatus.ACCEPTED] * 2


def test_data_directory_is_free_before_zeromq_ends(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ waits for its threads; the lock does not wait for ZeroMQ."""
    closed: list[str] = []
    node = Node(config, 1)
    for part, name in ((node.meta, "close"), (node.storage, "close"), (node._context, "destroy")):
        ends = getattr(part, name)
        monkeypatch.setattr(
            part, name, lambda *_, ends=ends, part=part, **__: (closed.append(type(part).__name__), ends())
        )
    node.close()
    assert closed == ["NodeStorage", "MetaStore", "Context"]


def test_repeated_frame_gets_the_first_outcomes(node: Node, orders: OrderClient) -> None:
    rows = opened_account(3)
    first = frames.records(answer(node, orders, rows)).copy()
    again = frames.records(answer(node, orders, rows))
    assert again[1] == first[1]
    # Opening the session again resumes it; the outcome carries its last request.
    assert (again["status"][0], again["order_id"][0]) == (OutcomeStatus.DUPLICATE, 1)
    assert again.dtype == OUTCOME


def test_memory_damaged_at_rest_fences_the_node(node: Node, orders: OrderClient) -> None:
    money = commands.add_asset((5, 2), 1, "X"), commands.deposit((5, 3), 3, 1, 1000, 9)
    frame = answer(node, orders, opened_account(3), *money)
    assert frames.records(frame)["status"].tolist() == [OutcomeStatus.ACCEPTED] * 4
    assert node.fenced is None
    assert node.state.engine.corrupt_balance(3, 1, 1)
    turn_until(node, lambda: node.fenced is not None)
    assert node.fenced is not None
    assert "memory damaged" in node.fenced
    frame = answer(node, orders, commands.open_account((5, 4), 4))
    assert frame.kind is FrameKind.ERROR
    assert frames.error_body(frame).code == frames.ErrorCode.FENCED


def test_scrub_of_correct_memory_does_not_fence(node: Node, orders: OrderClient) -> None:
    answer(node, orders, opened_account(3))
    end = time.monotonic() + 0.5
    turn_until(node, lambda: time.monotonic() > end)
    assert node.fenced is None


def market() -> CommandList:
    """Return the commands after which account 3 can buy instrument 1."""
    assets = [commands.add_asset((5, 1 + asset), asset, symbol) for asset, symbol in ((1, "B"), (2, "Q"))]
    listed = commands.add_instrument((5, 4), 1, "I", base_asset=1, quote_asset=2)
    return join([*assets, listed, commands.deposit((5, 5), 3, 2, 1000, 9)])


def buy(request: int, session: int = 5, expiry_ns: int = 0, client_order_id: str = "") -> CommandList:
    tif = TimeInForce.GTD if expiry_ns else TimeInForce.GTC
    return commands.place(
        (session, request), 3, Side.BUY, 1, 10, tif=tif, expiry_ns=expiry_ns, client_order_id=client_order_id
    )


def assert_accepted(node: Node, orders: OrderClient, *parts: CommandList) -> None:
    outcomes = frames.records(answer(node, orders, *parts))
    assert outcomes["reason"].tolist() == [0] * len(outcomes)


def test_frames_with_details_of_one_turn_keep_their_own(node: Node, config: Config, transport: str) -> None:
    """Ten clients send orders with long ids at once; the entries that hold several of them keep them apart."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [connected(transport, context, config.node(1)) for _ in range(10)]
    names = [f"an-order-of-client-{number}" for number in range(len(sockets))]
    try:
        assert_accepted(node, sockets[0], opened_account(3), market())
        for session, socket in enumerate(sockets, 100):
            assert_accepted(node, socket, commands.open_session(session, 3))
        entries = node.replica.last_index
        for number, socket in enumerate(sockets):
            order = buy(1, 100 + number, client_order_id=names[number] if number % 3 else "")
            socket.send(frames.encode_commands(join([order, commands.cancel((100 + number, 2), 3, 1)])))
        turn_until(node, lambda: all(socket.poll(0) for socket in sockets))
        assert node.replica.last_index - entries < len(sockets), "no entry holds several frames"
        found = node.state.engine.inspect.orders()
        expected = [name.encode() if number % 3 else b"" for number, name in enumerate(names)]
        named = dict(zip(found["order_id"].tolist(), found["client_order_id"].tolist(), strict=True))
        # Which client came first is up to the kernel.
        answered = [frames.records(frames.decode(socket.recv()))["order_id"][0] for socket in sockets]
        assert [named[int(order)] for order in answered] == expected
    finally:
        for socket in sockets:
            socket.close()
        context.destroy(linger=0)


def test_order_expires_without_other_commands(node: Node, orders: OrderClient) -> None:
    # Not a whole second.
    expires = time.time_ns() + 2_123_456_789
    assert_accepted(node, orders, opened_account(3), market(), buy(6, expiry_ns=expires), buy(7))
    applied = node.state.engine.sequence
    assert node.state.next_expiry_ns == expires
    assert node._poll_timeout(time.monotonic()) <= 2.2
    turn_until(node, lambda: node.state.next_expiry_ns != expires)
    assert time.time_ns() >= expires
    assert node.state.engine.inspect.counts()["orders"] == 1, "the order without an expiry stays"
    # One TICK was submitted and nothing else.
    turn_until(node, lambda: time.time_ns() >= expires + 200_000_000)
    assert node.state.engine.sequence == applied + 1


def test_order_expires_by_the_stamp_and_not_by_the_clock(
    node: Node, orders: OrderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader whose clock is ahead must not log one TICK after the other, none of which advances the time."""
    stamps = [time.time_ns()]
    monkeypatch.setattr(node.replica, "stamp_ns", lambda: stamps[0])
    expires = time.time_ns() + 10**9
    assert_accepted(node, orders, opened_account(3), market(), buy(6, expiry_ns=expires))
    applied = node.state.engine.sequence
    turn_until(node, lambda: time.time_ns() >= expires + 2 * 10**8)
    assert node.state.engine.sequence == applied
    stamps[0] = expires
    turn_until(node, lambda: node.state.next_expiry_ns != expires)
    assert node.state.engine.sequence == applied + 1
    assert node.admin.status().time_ns == expires


def test_status_says_how_the_time_of_the_loop_divides(node: Node) -> None:
    before = node.admin.status()
    node.turn()
    after = node.admin.status()
    assert after.turns == before.turns + 1
    assert list(after.stage_ns) == [stage.value for stage in Stage]
    assert {stage for stage, spent in after.stage_ns.items() if spent > before.stage_ns[stage]} >= {
        "wait",
        "send",
        "apply",
    }


def test_status_of_a_cluster_of_one_compares_its_clock_with_itself(node: Node) -> None:
    status = node.admin.status()
    assert (status.clock_offset_s, status.clock_fault) == (0.0, None)


def test_silent_session_loses_its_orders_and_a_pinging_one_keeps_them(node: Node, orders: OrderClient) -> None:
    opening = join([commands.open_session(session, 3, SessionFlags.CANCEL_ON_DISCONNECT) for session in (11, 12)])
    timeout_s = node.config.timing.disconnect_ms / 1000
    started = time.monotonic()
    assert_accepted(node, orders, opened_account(3), market(), buy(6), opening, buy(1, 11), buy(1, 12))

    def only_session_12_has_orders() -> bool:
        orders.send(frames.encode(FrameKind.PING, aux=12))
        return set(node.state.engine.inspect.orders()["session_id"].tolist()) == {0, 12}

    turn_until(node, only_session_12_has_orders)
    assert time.monotonic() - started >= timeout_s
    assert node.state.engine.inspect.counts()["orders"] == 2
    # The session stays open.
    sequence = node.state.engine.sequence
    assert_accepted(node, orders, buy(2, 11))
    assert node.state.engine.sequence == sequence + 1


def test_taken_port_is_named_and_the_directory_is_released(node: Node, config: Config, tmp_path: Path) -> None:
    other = LocalCluster(tmp_path / "other", nodes=1).config
    taken = Config(cluster=other.cluster, nodes=config.nodes, data_dir=other.data_dir)
    for _ in range(2):
        with pytest.raises(PortInUseError, match=str(config.node(1).port)):
            Node(taken, 1)
