"""Fixtures: a stub cluster, and both clients behind one way to call an operation."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smrx.client import AsyncClient, Client
from tests.client.stub_cluster import StubCluster

#: Runs an operation in a client of an account: call(account, operation, *arguments).
Call = Callable[..., Any]


def shorten_timeout(client: Client | AsyncClient, seconds: float) -> None:
    """Let the following calls time out soon; a client made with a short timeout may time out on a loaded machine."""
    client._core.timeout = client._core.router._timeout = seconds


@pytest.fixture
def stub() -> Iterator[StubCluster]:
    with StubCluster() as cluster:
        yield cluster


@pytest.fixture(params=["blocking", "asyncio"])
def call(stub: StubCluster, request: pytest.FixtureRequest) -> Call:
    def blocking(account: int, operation: str, /, *arguments: object, **named: object) -> Any:
        with Client(stub.config, account=account) as client:
            return getattr(client, operation)(*arguments, **named)

    def asynchronous(account: int, operation: str, /, *arguments: object, **named: object) -> Any:
        async def run() -> Any:
            async with AsyncClient(stub.config, account=account) as client:
                return await getattr(client, operation)(*arguments, **named)

        return asyncio.run(run())

    return blocking if request.param == "blocking" else asynchronous


@pytest.fixture
def market(call: Call) -> Call:
    """An exchange with BTC-USD: tick 0.01, lot 0.0001."""
    call(0, "add_asset", "BTC", 8)
    call(0, "add_asset", "USD", 6)
    call(0, "add_instrument", "BTC-USD", "BTC", "USD", "0.01", "0.0001", "100000", "1000")
    return call


@pytest.fixture
def trader(stub: StubCluster) -> Iterator[Client]:
    """A blocking client of account 1 in the same market."""
    with Client(stub.config, account=0) as venue:
        venue.add_asset("BTC", 8)
        venue.add_asset("USD", 6)
        venue.add_instrument("BTC-USD", "BTC", "USD", "0.01", "0.0001", "100000", "1000")
    with Client(stub.config, account=1) as client:
        yield client
