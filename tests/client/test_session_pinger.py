"""Sessions that end with their process: how they are opened, who hears of them, and when that ends."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from smrx.client import AsyncClient, Client
from smrx.wire.codes import CommandKind, SessionFlags
from tests.client.stub_cluster import Stub

DEADLINE_S = 10.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.005)


def session_of(stub: Stub) -> int:
    with stub.lock:
        [session] = stub.venue.sessions
        return session


def pings(stub: Stub, node: int, session: int) -> int:
    with stub.lock:
        return stub.kept_alive[node, session]


def keepers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "smrx-keepalive"]


def test_every_node_hears_of_the_session_while_its_owner_is_busy_elsewhere(stub: Stub) -> None:
    stub.disconnect_ms = 100
    with Client(stub.config, account=1, cancel_on_disconnect=True) as client:
        client.connect()
        session = session_of(stub)
        # The thread of the client does nothing here that could send.
        wait_for(lambda: all(pings(stub, node, session) >= 5 for node in (1, 2, 3)))
        assert keepers() == ["smrx-keepalive"]
    assert keepers() == []
    assert stub.venue.ledger[-1][2][0] == CommandKind.CLOSE_SESSION


def test_nodes_that_only_the_nodes_name_hear_of_it_too(stub: Stub) -> None:
    stub.disconnect_ms = 100
    stub.elect(2)
    with Client(stub.orders_addresses[0], account=1, cancel_on_disconnect=True) as client:
        client.connect()
        session = session_of(stub)
        wait_for(lambda: pings(stub, 2, session) >= 3)


def test_the_asyncio_client_keeps_its_session_alive_while_the_loop_is_blocked(stub: Stub) -> None:
    stub.disconnect_ms = 100

    async def run() -> None:
        async with AsyncClient(stub.config, account=1, cancel_on_disconnect=True) as client:
            await client.connect()
            session = session_of(stub)
            wait_for(lambda: pings(stub, 1, session) >= 5)

    asyncio.run(run())
    assert keepers() == []


@pytest.mark.parametrize(("asked", "flags"), [(True, SessionFlags.CANCEL_ON_DISCONNECT), (False, SessionFlags.NONE)])
def test_only_who_asks_for_it_opens_such_a_session(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, asked: bool, flags: SessionFlags
) -> None:
    opened = []
    apply = stub.venue.apply
    monkeypatch.setattr(stub.venue, "apply", lambda commands: opened.extend(commands.copy()) or apply(commands))
    with Client(stub.config, account=1, cancel_on_disconnect=asked) as client:
        client.connect()
        assert len(keepers()) == asked
    assert (opened[0]["kind"], opened[0]["flags"]) == (CommandKind.OPEN_SESSION, flags)


def test_a_session_that_was_given_up_is_not_kept_alive(stub: Stub) -> None:
    stub.disconnect_ms = 100
    with Client(stub.config, account=1, cancel_on_disconnect=True, timeout=0.3) as client:
        client.connect()
        given_up = session_of(stub)
        wait_for(lambda: pings(stub, 1, given_up) >= 1)
        client._core.abandon(time.monotonic())
        with stub.lock:
            del stub.venue.sessions[given_up]
        client.connect()
        fresh = session_of(stub)
        wait_for(lambda: pings(stub, 1, fresh) >= 1)
        before = pings(stub, 1, given_up)
        wait_for(lambda: pings(stub, 1, fresh) >= 8)
        assert pings(stub, 1, given_up) == before
