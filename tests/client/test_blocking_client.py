"""The blocking client over real sockets, against a stub cluster that injects faults."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from smrx.client import Client, InvalidValue, ProtocolError, Refused, Unavailable
from smrx.client.node_sockets import NodeSockets
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.records import COMMAND, OUTCOME
from tests.client.conftest import shorten_timeout
from tests.client.stub_cluster import StubCluster


@pytest.fixture(params=["tcp", "zmq"])
def stub(request: pytest.FixtureRequest) -> Iterator[StubCluster]:
    with StubCluster(transport=request.param) as cluster:
        yield cluster


def orders(count: int, first: int = 1) -> np.ndarray:
    commands = np.zeros(count, COMMAND)
    commands["kind"] = CommandKind.PLACE
    commands["account"], commands["quantity_lots"] = 1, 1
    commands["client_order_id"] = np.arange(first, first + count)
    return commands


def trader(stub: StubCluster, **options: float) -> Client:
    return Client(stub.orders_addresses, account=1, **options)  # type: ignore[arg-type]  # test options


def test_one_address_is_enough_to_find_the_leader(stub: StubCluster) -> None:
    stub.elect(3)
    with Client(stub.orders_addresses[0], account=1) as client:
        found = client.submit(orders(10))
        assert client.leader == stub.orders_addresses[2]
    assert found.dtype == OUTCOME
    assert found["request_id"].tolist() == list(range(1, 11))
    assert (found["status"] == OutcomeStatus.ACCEPTED).all()
    assert stub.applied() == list(range(1, 11))


def test_bulk_larger_than_the_window_is_sent_in_order(stub: StubCluster) -> None:
    with trader(stub, window=100, frame_commands=7) as client:
        commands = orders(5000)
        found = client.submit(commands)
        assert client.submit(orders(3, 5001))["request_id"].tolist() == [5001, 5002, 5003]
    assert (found["request_id"] == np.arange(1, 5001)).all()
    assert stub.applied() == list(range(1, 5004))
    assert not commands["request_id"].any(), "the caller's array is not changed"


def test_submit_nowait_fills_the_window_and_poll_returns_outcomes_in_order(stub: StubCluster) -> None:
    with trader(stub, window=100, frame_commands=10) as client:
        commands, sent, came = orders(1000), 0, np.zeros(0, OUTCOME)
        while len(came) < 1000:
            sent += client.submit_nowait(commands[sent:])
            came = np.concatenate([came, client.poll(60.0)])
            assert sent - len(came) <= 100
        assert client.unanswered == 0
        assert len(client.poll(0.0)) == 0
    assert came["request_id"].tolist() == list(range(1, 1001))


def test_submit_between_submit_nowait_and_poll_returns_its_own_outcomes(stub: StubCluster) -> None:
    with trader(stub) as client:
        assert client.submit_nowait(orders(3)) == 3
        assert client.submit(orders(2, 4))["request_id"].tolist() == [4, 5]
        assert client.poll(60.0)["request_id"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("fault", ["drop_answers", "drop_requests", "overload", "repeat_answers", "garbage_answers"])
def test_leader_fault_neither_loses_nor_repeats_an_order(stub: StubCluster, fault: str) -> None:
    with trader(stub, frame_commands=10) as client:
        client.submit(orders(10))
        for first in range(11, 101, 30):
            with stub.lock:
                setattr(stub.faults, fault, 2)
            found = client.submit(orders(30, first))
            assert (found["request_id"] == np.arange(first, first + 30)).all()
            assert (found["sequence"] > 0).all(), "the outcome of the first application, not a bare duplicate"
    assert stub.applied() == list(range(1, 101))


def test_late_replies_of_a_lost_leader_are_accepted_once(stub: StubCluster) -> None:
    with trader(stub, frame_commands=10) as client:
        client.submit(orders(10))
        with stub.lock:
            stub.faults.hold_answers = True
        assert client.submit_nowait(orders(50, 11)) == 50
        _until(lambda: len(stub.applied()) == 60)
        with stub.lock:
            stub.faults.silent = {1}
        stub.elect(2)
        stub.release()
        came = np.zeros(0, OUTCOME)
        while len(came) < 50:
            came = np.concatenate([came, client.poll(60.0)])
        assert client.submit(orders(5, 61))["request_id"].tolist() == list(range(61, 66))
        assert client.leader == stub.orders_addresses[1]
    assert came["request_id"].tolist() == list(range(11, 61))
    assert stub.applied() == list(range(1, 66))


def test_leader_changes_during_a_stream_of_orders(stub: StubCluster) -> None:
    stop = threading.Event()

    def nemesis() -> None:
        leaders = (2, None, 3, 1, None, 2, 1, 3)
        for turn in range(40):
            if stop.wait(0.03):
                break
            with stub.lock:
                stub.faults.drop_answers, stub.faults.drop_requests = turn % 3, turn % 2
            stub.elect(leaders[turn % len(leaders)])
        stub.elect(2)

    thread = threading.Thread(target=nemesis)
    thread.start()
    try:
        with trader(stub, window=64, frame_commands=8) as client:
            found = client.submit(orders(600))
            stop.set()
            thread.join()
            found = np.concatenate([found, client.submit(orders(600, 601))])
    finally:
        stop.set()
        thread.join()
    assert (found["request_id"] == np.arange(1, 1201)).all()
    assert stub.applied() == list(range(1, 1201))


def test_unavailable_reports_the_nodes_tried_and_the_unknown_requests(stub: StubCluster) -> None:
    message = r"within 0\.3 s .*unknown whether requests 4 to 5 of session \d+ were applied"
    with trader(stub) as client:
        client.submit(orders(3))
        shorten_timeout(client, 0.3)
        with stub.lock:
            stub.faults.drop_answers = 1
        stub.faults.silent = {1, 2, 3}
        with pytest.raises(Unavailable, match=message) as caught:
            client.submit(orders(2, 4))
        assert caught.value.requests == range(4, 6)


def test_requests_of_an_ended_session_are_not_sent_again(stub: StubCluster) -> None:
    with trader(stub) as client:
        client.submit(orders(3))
        shorten_timeout(client, 0.3)
        stub.elect(None)
        with pytest.raises(Unavailable, match="knows no leader"):
            client.submit(orders(2, 4))
        shorten_timeout(client, 60)
        stub.elect(3)
        found = client.submit(orders(1, 100))
        assert found["request_id"].tolist() == [1], "a new session"
    assert stub.applied() == [1, 2, 3, 100]


def test_unreachable_cluster_is_unavailable_and_nothing_was_sent() -> None:
    with StubCluster(1) as gone:
        address = gone.orders_addresses[0]
    with Client(address, account=1, timeout=0.2) as client, pytest.raises(Unavailable, match="nothing was sent"):
        client.submit(orders(1))


def test_poll_raises_once_why_outcomes_will_not_arrive(stub: StubCluster) -> None:
    with trader(stub) as client:
        client.connect()
        shorten_timeout(client, 0.2)
        stub.faults.silent = {1, 2, 3}
        client.submit_nowait(orders(2))
        with pytest.raises(Unavailable):
            client.poll(60.0)
        assert len(client.poll(0.0)) == 0


def test_session_for_an_unknown_account_is_refused(stub: StubCluster) -> None:
    with Client(stub.orders_addresses, account=99) as client:
        for _ in range(2):
            with pytest.raises(Refused, match="UNKNOWN_ACCOUNT") as caught:
                client.submit(orders(1))
            assert caught.value.reason is Reason.UNKNOWN_ACCOUNT


def test_lost_session_is_a_protocol_error_and_the_next_call_works(stub: StubCluster) -> None:
    with trader(stub) as client:
        client.submit(orders(1))
        with stub.lock:
            stub.exchange.sessions.clear()
        with pytest.raises(ProtocolError, match="no longer has session"):
            client.submit(orders(1, 2))
        assert client.submit(orders(1, 3))["status"].tolist() == [OutcomeStatus.ACCEPTED]


def test_leaving_the_with_block_closes_the_session_at_the_exchange(stub: StubCluster) -> None:
    with trader(stub) as client:
        client.submit(orders(1))
    assert stub.exchange.closed == set(stub.exchange.sessions)
    with pytest.raises(InvalidValue, match="was closed"):
        client.submit(orders(1))
    client.close()


def test_leaving_the_with_block_by_an_exception_does_not_wait(
    stub: StubCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = trader(stub)
    client.submit(orders(1))
    stub.faults.silent = {1, 2, 3}

    def fail(*_: object) -> None:
        raise AssertionError("close() waited for a node")

    monkeypatch.setattr(NodeSockets, "wait", fail)
    with pytest.raises(RuntimeError, match="of the test"), client:
        raise RuntimeError("of the test")
    assert len(stub.exchange.sessions) == 1
    assert not stub.exchange.closed
    with pytest.raises(InvalidValue, match="was closed"):
        client.connect()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal; the process that starts the tests may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_call_and_the_next_call_opens_a_new_session(stub: StubCluster) -> None:
    with trader(stub) as client:
        client.submit(orders(1))
        with stub.lock:
            stub.faults.drop_answers = 1
            stub.faults.silent = {2, 3}
        interrupt = threading.Thread(target=_interrupt_when, args=(lambda: stub.applied() == [1, 2],))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            client.submit(orders(1, 2))
        interrupt.join()
        assert client.submit(orders(1, 3))["request_id"].tolist() == [1]
    assert stub.applied() == [1, 2, 3]


@pytest.mark.parametrize("cluster", [[], ["not an address"], [7], "localhost:7111"])
def test_invalid_address_is_an_invalid_value(cluster: object) -> None:
    with pytest.raises(InvalidValue, match="expected a Config or addresses"):
        Client(cluster)  # type: ignore[arg-type]  # the error under test


def test_address_that_cannot_be_connected_is_reported() -> None:
    with Client("tcp://nowhere", timeout=0.1) as client, pytest.raises(Unavailable, match="cannot connect"):
        client.connect()


@pytest.mark.parametrize("commands", [np.zeros(3, np.uint8), np.zeros((2, 2), COMMAND), [1, 2]])
def test_submit_rejects_arrays_of_other_records(stub: StubCluster, commands: object) -> None:
    with trader(stub) as client, pytest.raises(InvalidValue, match="COMMAND records"):
        client.submit(commands)  # type: ignore[arg-type]  # the error under test


def test_client_starts_no_thread(stub: StubCluster) -> None:
    before = threading.active_count()
    with trader(stub) as client:
        client.submit(orders(1))
        assert threading.active_count() == before


def _interrupt_when(condition: object) -> None:
    _until(condition)
    os.kill(os.getpid(), signal.SIGINT)


def _until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached"
        threading.Event().wait(0.005)
