"""One node of a cluster of one, turned by hand in this process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from smrx.config import Config, Timing
from smrx.local import LocalCluster
from smrx.node.reactor import Node, PortInUseError
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus, SessionFlags, TimeInForce
from smrx.wire.frames import FrameKind
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, OUTCOME

DEADLINE_SECONDS = 20.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return LocalCluster(tmp_path, nodes=1, timing=Timing(disconnect_ms=400)).config


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    node = Node(config, 1)
    turn_until(node, lambda: node.replica.is_leader)
    yield node
    node.close()


@pytest.fixture
def orders(config: Config) -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(config.node(1).orders_address)
    yield socket
    context.destroy(linger=0)


def turn_until(node: Node, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met before the deadline"
        node.turn()


def answer(node: Node, orders: zmq.Socket[bytes], commands: np.ndarray) -> frames.Frame:
    orders.send(frames.encode_commands(commands))
    while True:
        turn_until(node, lambda: bool(orders.poll(0)))
        frame = frames.decode(orders.recv())
        if frame.kind is not FrameKind.PONG:
            return frame


def opened_account(account: int) -> np.ndarray:
    rows = np.zeros(2, COMMAND)
    rows["kind"] = [CommandKind.OPEN_SESSION, CommandKind.OPEN_ACCOUNT]
    rows["session_id"], rows["request_id"], rows["account"] = 5, [0, 1], [0, account]
    return rows


def test_cluster_of_one_serves(node: Node, orders: zmq.Socket[bytes]) -> None:
    frame = answer(node, orders, opened_account(3))
    assert frame.kind is FrameKind.OUTCOMES
    assert frames.records(frame)["status"].tolist() == [OutcomeStatus.ACCEPTED] * 2


def test_repeated_frame_gets_the_first_outcomes(node: Node, orders: zmq.Socket[bytes]) -> None:
    rows = opened_account(3)
    first = frames.records(answer(node, orders, rows)).copy()
    again = frames.records(answer(node, orders, rows))
    assert again[1] == first[1]
    # Opening the session again resumes it; the outcome carries its last request.
    assert (again["status"][0], again["order_id"][0]) == (OutcomeStatus.DUPLICATE, 1)
    assert again.dtype == OUTCOME


def test_memory_damaged_at_rest_fences_the_node(node: Node, orders: zmq.Socket[bytes]) -> None:
    rows = np.concatenate([opened_account(3), np.zeros(2, COMMAND)])
    rows["kind"][2:] = [CommandKind.ADD_ASSET, CommandKind.DEPOSIT]
    rows["session_id"], rows["request_id"][2:] = 5, [2, 3]
    rows["instrument"][2:], rows["client_order_id"][2] = 1, ord("X")
    rows["account"][3], rows["order_id"][3], rows["quantity_lots"][3] = 3, 9, 1000
    assert frames.records(answer(node, orders, rows))["status"].tolist() == [OutcomeStatus.ACCEPTED] * 4
    assert node.fenced is None
    assert node.state.engine.corrupt_balance(3, 1, 1)
    turn_until(node, lambda: node.fenced is not None)
    assert node.fenced is not None
    assert "memory damaged" in node.fenced
    frame = answer(node, orders, opened_account(4)[1:])
    assert frame.kind is FrameKind.ERROR
    assert frames.error_body(frame).code == frames.ErrorCode.FENCED


def test_scrub_of_correct_memory_does_not_fence(node: Node, orders: zmq.Socket[bytes]) -> None:
    answer(node, orders, opened_account(3))
    end = time.monotonic() + 0.5
    turn_until(node, lambda: time.monotonic() > end)
    assert node.fenced is None


def market() -> np.ndarray:
    """Return the commands after which account 3 can buy instrument 1."""
    rows = np.zeros(4, COMMAND)
    rows["kind"] = [*[CommandKind.ADD_ASSET] * 2, CommandKind.ADD_INSTRUMENT, CommandKind.DEPOSIT]
    rows["session_id"], rows["request_id"] = 5, [2, 3, 4, 5]
    rows["instrument"] = [1, 2, 1, 2]
    rows["client_order_id"] = [ord("B"), ord("Q"), ord("I"), 0]
    rows["account"][3], rows["order_id"][3], rows["quantity_lots"][3] = 3, 9, 1000
    listed = rows[2:3].view(INSTRUMENT_COMMAND)
    listed["base_asset"], listed["quote_asset"], listed["lot_units"], listed["scale_units"] = 1, 2, 1, 1
    listed["max_price_ticks"], listed["max_quantity_lots"] = 1000, 1000
    return rows


def buy(request: int, session: int = 5, expires: int = 0) -> np.ndarray:
    row = np.zeros(1, COMMAND)
    row["kind"], row["session_id"], row["request_id"], row["account"], row["instrument"] = 1, session, request, 3, 1
    row["side"], row["order_type"], row["tif"], row["stp"] = 1, 1, TimeInForce.GTD if expires else TimeInForce.GTC, 1
    row["price_ticks"], row["quantity_lots"], row["order_id"] = 10, 1, expires << 32
    return row


def assert_accepted(node: Node, orders: zmq.Socket[bytes], *parts: np.ndarray) -> None:
    outcomes = frames.records(answer(node, orders, np.concatenate(parts)))
    assert outcomes["reason"].tolist() == [0] * len(outcomes)


def test_order_expires_without_other_commands(node: Node, orders: zmq.Socket[bytes]) -> None:
    expires = int(time.time()) + 2
    assert_accepted(node, orders, opened_account(3), market(), buy(6, expires=expires), buy(7))
    applied = node.state.engine.sequence
    assert node.state.next_expiry_ns == expires * 10**9
    assert node._poll_timeout_ms(time.monotonic()) <= 2000
    turn_until(node, lambda: node.state.next_expiry_ns is None)
    assert time.time() >= expires
    assert node.state.engine.inspect.counts()["orders"] == 1, "the order without an expiry stays"
    # One TICK was submitted and nothing else.
    turn_until(node, lambda: time.time() >= expires + 0.2)
    assert node.state.engine.sequence == applied + 1


def test_order_expires_by_the_stamp_and_not_by_the_clock(
    node: Node, orders: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader whose clock is ahead must not log one TICK after the other, none of which advances the time."""
    stamps = [time.time_ns()]
    monkeypatch.setattr(node.replica, "stamp_ns", lambda: stamps[0])
    expires = int(time.time()) + 1
    assert_accepted(node, orders, opened_account(3), market(), buy(6, expires=expires))
    applied = node.state.engine.sequence
    turn_until(node, lambda: time.time() >= expires + 0.2)
    assert node.state.engine.sequence == applied
    stamps[0] = expires * 10**9
    turn_until(node, lambda: node.state.next_expiry_ns is None)
    assert node.state.engine.sequence == applied + 1
    assert node.admin.status().time_ns == expires * 10**9


def test_status_of_a_cluster_of_one_compares_its_clock_with_itself(node: Node) -> None:
    status = node.admin.status()
    assert (status.clock_offset_s, status.clock_fault) == (0.0, None)


def test_silent_session_loses_its_orders_and_a_pinging_one_keeps_them(node: Node, orders: zmq.Socket[bytes]) -> None:
    opening = np.zeros(2, COMMAND)
    opening["kind"], opening["session_id"], opening["account"] = CommandKind.OPEN_SESSION, [11, 12], 3
    opening["flags"] = SessionFlags.CANCEL_ON_DISCONNECT
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
