"""Sessions with cancel-on-disconnect: how they are opened, and how long they are pinged."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from smrx.client import AsyncClient, Client
from smrx.wire.codes import CommandKind, SessionFlags
from tests.client.stub_cluster import StubCluster

DEADLINE_S = 60.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached"
        time.sleep(0.005)


def session_of(stub: StubCluster) -> int:
    with stub.lock:
        [session] = stub.exchange.sessions
        return session


def pings(stub: StubCluster, node: int, session: int) -> int:
    with stub.lock:
        return stub.session_pings[node, session]


def pinger_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "smrx-session-pinger"]


def test_every_node_is_pinged_while_the_client_is_idle(stub: StubCluster) -> None:
    stub.disconnect_ms = 100
    with Client(stub.config, account=1, cancel_on_disconnect=True) as client:
        client.connect()
        session = session_of(stub)
        # The client's own thread sends nothing here.
        wait_for(lambda: all(pings(stub, node, session) >= 5 for node in (1, 2, 3)))
        assert pinger_threads() == ["smrx-session-pinger"]
    assert pinger_threads() == []
    assert stub.exchange.ledger[-1][2][0] == CommandKind.CLOSE_SESSION


def test_reported_nodes_are_pinged_too(stub: StubCluster) -> None:
    stub.disconnect_ms = 100
    stub.elect(2)
    with Client(stub.orders_addresses[0], account=1, cancel_on_disconnect=True) as client:
        client.connect()
        session = session_of(stub)
        wait_for(lambda: pings(stub, 2, session) >= 3)


def test_asyncio_client_pings_while_the_event_loop_is_blocked(stub: StubCluster) -> None:
    stub.disconnect_ms = 100

    async def run() -> None:
        async with AsyncClient(stub.config, account=1, cancel_on_disconnect=True) as client:
            await client.connect()
            session = session_of(stub)
            wait_for(lambda: pings(stub, 1, session) >= 5)

    asyncio.run(run())
    assert pinger_threads() == []


@pytest.mark.parametrize(("cancel", "flags"), [(True, SessionFlags.CANCEL_ON_DISCONNECT), (False, SessionFlags.NONE)])
def test_cancel_on_disconnect_is_optional(
    stub: StubCluster, monkeypatch: pytest.MonkeyPatch, cancel: bool, flags: SessionFlags
) -> None:
    opened = []
    apply = stub.exchange.apply
    monkeypatch.setattr(stub.exchange, "apply", lambda commands: opened.extend(commands.records) or apply(commands))
    with Client(stub.config, account=1, cancel_on_disconnect=cancel) as client:
        client.connect()
        assert len(pinger_threads()) == cancel
    assert (opened[0]["kind"], opened[0]["flags"]) == (CommandKind.OPEN_SESSION, flags)


def test_client_that_is_dropped_without_close_is_not_pinged_any_more(stub: StubCluster) -> None:
    stub.disconnect_ms = 100
    client = Client(stub.config, account=1, cancel_on_disconnect=True)
    client.connect()
    session = session_of(stub)
    wait_for(lambda: pings(stub, 1, session) >= 2)
    assert pinger_threads() == ["smrx-session-pinger"]
    del client
    wait_for(lambda: pinger_threads() == [])


def test_asyncio_client_that_is_dropped_without_close_is_not_pinged_any_more(stub: StubCluster) -> None:
    stub.disconnect_ms = 100

    async def run() -> None:
        client = AsyncClient(stub.config, account=1, cancel_on_disconnect=True)
        await client.connect()
        session = session_of(stub)
        wait_for(lambda: pings(stub, 1, session) >= 2)
        dropped = weakref.ref(client)
        del client
        assert dropped() is None, "the event loop keeps the client alive"
        wait_for(lambda: pinger_threads() == [])

    asyncio.run(run())


def test_ended_session_is_not_pinged(stub: StubCluster) -> None:
    stub.disconnect_ms = 100
    with Client(stub.config, account=1, cancel_on_disconnect=True) as client:
        client.connect()
        ended = session_of(stub)
        wait_for(lambda: pings(stub, 1, ended) >= 1)
        client._core.abort(time.monotonic())
        with stub.lock:
            del stub.exchange.sessions[ended]
        client.connect()
        fresh = session_of(stub)
        wait_for(lambda: pings(stub, 1, fresh) >= 1)
        before = pings(stub, 1, ended)
        wait_for(lambda: pings(stub, 1, fresh) >= 8)
        assert pings(stub, 1, ended) == before
