"""A stub cluster, and both clients behind one way of calling a verb."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smrx.client import AsyncClient, Client
from tests.client.stub_cluster import Stub

#: Runs a verb of a client of the stub's venue (account 0) or of a trader: call(who, verb, *arguments).
Call = Callable[..., Any]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as cluster:
        yield cluster


@pytest.fixture(params=["blocking", "asyncio"])
def call(stub: Stub, request: pytest.FixtureRequest) -> Call:
    def blocking(who: int, verb: str, *arguments: object, **named: object) -> Any:
        with Client(stub.config, account=who) as client:
            return getattr(client, verb)(*arguments, **named)

    def on_a_loop(who: int, verb: str, *arguments: object, **named: object) -> Any:
        async def run() -> Any:
            async with AsyncClient(stub.config, account=who) as client:
                return await getattr(client, verb)(*arguments, **named)

        return asyncio.run(run())

    return blocking if request.param == "blocking" else on_a_loop


@pytest.fixture
def market(call: Call) -> Call:
    """A venue with BTC-USD: tick 0.01, lot 0.0001."""
    call(0, "add_asset", "BTC", 8)
    call(0, "add_asset", "USD", 6)
    call(0, "add_instrument", "BTC-USD", "BTC", "USD", "0.01", "0.0001", "100000", "1000")
    return call


@pytest.fixture
def trader(stub: Stub) -> Iterator[Client]:
    """One client of account 1 in the same market, for what the two clients share."""
    with Client(stub.config, account=0) as venue:
        venue.add_asset("BTC", 8)
        venue.add_asset("USD", 6)
        venue.add_instrument("BTC-USD", "BTC", "USD", "0.01", "0.0001", "100000", "1000")
    with Client(stub.config, account=1) as client:
        yield client
