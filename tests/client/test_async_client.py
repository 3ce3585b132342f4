"""The asyncio client: concurrent calls, cancellation, one event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from smrx.client import AsyncClient, InvalidValue, Unavailable
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus
from tests.client.conftest import shorten_timeout
from tests.client.stub_cluster import StubCluster
from tests.client.test_blocking_client import orders


@pytest.fixture(params=["tcp", "zmq"])
def stub(request: pytest.FixtureRequest) -> Iterator[StubCluster]:
    with StubCluster(transport=request.param) as cluster:
        yield cluster


def run(stub: StubCluster, body: Callable[[AsyncClient], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            async with AsyncClient(stub.orders_addresses, account=1, **options) as client:  # type: ignore[arg-type]
                await body(client)
            assert len(asyncio.all_tasks()) == 1, "close() ends every task"

    asyncio.run(main(), debug=True)


def test_concurrent_calls_are_sent_in_the_order_of_the_calls(stub: StubCluster) -> None:
    async def body(client: AsyncClient) -> None:
        found = await asyncio.gather(*(client.submit(orders(3, 1 + 3 * i)) for i in range(100)))
        assert [outcomes["request_id"].tolist() for outcomes in found] == [
            [1 + 3 * i, 2 + 3 * i, 3 + 3 * i] for i in range(100)
        ]

    run(stub, body, window=64, frame_commands=8)
    assert stub.applied() == list(range(1, 301))


def test_calls_of_one_turn_of_the_event_loop_leave_in_one_frame(stub: StubCluster) -> None:
    """One of them is invalid and one is cancelled before anything is sent: neither affects the others."""

    async def body(client: AsyncClient) -> None:
        await client.connect()
        assert client.leader is not None
        node = client._order_socket(client.leader)
        sent: list[bytes] = []
        send = node.send
        object.__setattr__(node, "send", lambda data, **options: (sent.append(data), send(data, **options)))
        reserved = orders(1, 99)
        reserved["kind"] = CommandKind.TICK
        calls = [asyncio.create_task(client.submit(orders(1, number))) for number in range(1, 41)]
        wrong = asyncio.create_task(client.submit(reserved))
        await asyncio.sleep(0)
        calls[7].cancel()
        found = await asyncio.gather(*calls, wrong, return_exceptions=True)
        assert isinstance(found.pop(), InvalidValue)
        assert isinstance(found.pop(7), asyncio.CancelledError)
        requests = [int(outcomes["request_id"][0]) for outcomes in found if not isinstance(outcomes, BaseException)]
        assert requests == [*range(1, 8), *range(9, 41)]
        commands = [frame for frame in map(frames.decode, sent) if frame.kind is frames.FrameKind.COMMANDS]
        assert [frame.count for frame in commands] == [40]

    run(stub, body)
    assert stub.applied() == list(range(1, 41))


@pytest.mark.parametrize("fault", ["drop_answers", "drop_requests", "overload", "repeat_answers", "garbage_answers"])
def test_leader_fault_neither_loses_nor_repeats_an_order(stub: StubCluster, fault: str) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(orders(10))
        for first in range(11, 101, 30):
            with stub.lock:
                setattr(stub.faults, fault, 2)
            found = await client.submit(orders(30, first))
            assert (found["request_id"] == np.arange(first, first + 30)).all()
            assert (found["status"] == OutcomeStatus.ACCEPTED).all()

    run(stub, body, frame_commands=10)
    assert stub.applied() == list(range(1, 101))


def test_leader_changes_during_a_stream_of_orders(stub: StubCluster) -> None:
    async def body(client: AsyncClient) -> None:
        async def nemesis() -> None:
            for leader in (2, None, 3, None, 1, 2):
                await asyncio.sleep(0.03)
                with stub.lock:
                    stub.faults.drop_answers = 1
                stub.elect(leader)

        found, _ = await asyncio.gather(client.submit(orders(800)), nemesis())
        assert (found["request_id"] == np.arange(1, 801)).all()
        assert len(await client.submit(orders(10, 801))) == 10
        assert client.leader == stub.orders_addresses[1]

    run(stub, body, window=64, frame_commands=8)
    assert stub.applied() == list(range(1, 811))


def test_disconnect_starts_a_search_for_the_leader(stub: StubCluster) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(orders(1))
        before = client._core.session
        assert before is not None
        before.disconnected(stub.orders_addresses[0], asyncio.get_running_loop().time())
        stub.elect(2)
        assert len(await client.submit(orders(1, 2))) == 1

    run(stub, body)
    assert stub.applied() == [1, 2]


def test_cancelling_a_call_stops_the_wait_but_not_the_request(stub: StubCluster) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(orders(1))
        with stub.lock:
            stub.faults.hold_answers = True
        waiting = asyncio.create_task(client.submit(orders(2, 2)))
        while len(stub.applied()) < 3:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stub.release()
        assert (await client.submit(orders(1, 4)))["request_id"].tolist() == [4]
        assert client.unanswered == 0

    run(stub, body)
    assert stub.applied() == [1, 2, 3, 4]


def test_timeout_fails_every_waiting_call(stub: StubCluster) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(orders(1))
        shorten_timeout(client, 0.3)
        stub.faults.silent = {1, 2, 3}
        found = await asyncio.gather(*(client.submit(orders(1, 2 + i)) for i in range(3)), return_exceptions=True)
        assert [type(error) for error in found] == [Unavailable] * 3
        with pytest.raises(Unavailable):
            await client.connect()
        shorten_timeout(client, 60)
        stub.faults.silent = set()
        assert (await client.submit(orders(1, 9)))["request_id"].tolist() == [1]

    run(stub, body)
    assert stub.applied() == [1, 9]


def test_close_fails_waiting_calls(stub: StubCluster) -> None:
    async def main() -> None:
        client = AsyncClient(stub.orders_addresses, account=1)
        await client.connect()
        stub.faults.silent = {1, 2, 3}
        waiting = asyncio.create_task(client.submit(orders(1)))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Unavailable, match="interrupted"):
            await waiting
        with pytest.raises(InvalidValue, match="was closed"):
            await client.submit(orders(1))

    asyncio.run(asyncio.wait_for(main(), 30))


def test_address_that_cannot_be_connected_is_reported() -> None:
    async def main() -> None:
        async with AsyncClient("tcp://nowhere", timeout=0.1) as client:
            with pytest.raises(Unavailable, match="cannot connect"):
                await client.connect()

    asyncio.run(asyncio.wait_for(main(), 30))
