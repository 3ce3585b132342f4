"""The private stream of the clients on a cluster of real processes: what happens to accounts, and nothing else."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smrx import AsyncClient, Client
from smrx.client import InvalidValue, Unavailable, market_file
from smrx.client.results import Update
from smrx.config import Limits
from smrx.local import LocalCluster

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/private-stream.md"
DEMO = ROOT / "configs/markets/demo.toml"

MakeCluster = Callable[..., LocalCluster]


def trade(cluster: LocalCluster) -> None:
    """Apply the demo market; account 8 rests an order, account 7 takes it in two trades."""
    with Client(cluster.config) as venue:
        venue.apply_market(market_file.load(DEMO))
    with Client(cluster.config, account=8) as maker, Client(cluster.config, account=7) as taker:
        maker.place_limit("BTC-USD", "sell", "50000.00", "0.3", client_order_id="resting order of account 8")
        for quantity in ("0.1", "0.2"):
            taker.place_limit("BTC-USD", "buy", "50000.00", quantity)
        maker.place_limit("BTC-USD", "sell", "50100.00", "0.1")
        maker.mass_cancel()


def kinds(updates: list[Update]) -> list[str]:
    return [update.kind for update in updates]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalCluster(tmp_path_factory.mktemp("updates")) as cluster:
        cluster.wait_leader()
        trade(cluster)
        yield cluster


def test_updates_of_an_account(cluster: LocalCluster) -> None:
    with Client(cluster.config, account=8) as client:
        found = list(client.updates(from_sequence=1, idle=3.0))
    assert {update.account for update in found} == {8}
    orders = [update for update in found if update.symbol == "BTC-USD"]
    assert kinds(orders) == [
        "NEW", "TRADE", "PARTIALLY_FILLED", "TRADE", "FILLED", "NEW", "CANCELLED",
    ]  # fmt: skip
    trades = [update for update in orders if update.kind == "TRADE"]
    assert [(t.side, t.price, t.quantity_lots, t.maker) for t in trades] == [
        ("SELL", "50000.00", 1000, True), ("SELL", "50000.00", 2000, True),
    ]  # fmt: skip
    assert all(t.order_id == orders[0].order_id and t.fee is not None for t in trades)
    text = next(update for update in found if update.kind == "CLIENT_ORDER_ID")
    assert (text.client_order_id, text.order_id) == ("resting order of account 8", orders[0].order_id)
    assert "DEPOSITED" in kinds(found)
    assert [update.sequence for update in found] == sorted({update.sequence for update in found})


def test_stream_continues_after_a_sequence_and_covers_two_accounts(cluster: LocalCluster) -> None:
    with Client(cluster.config, account=8) as client:
        own = list(client.updates(from_sequence=1, idle=3.0))
        middle = own[len(own) // 2].sequence
        assert list(client.updates(from_sequence=middle, idle=3.0)) == own[len(own) // 2 :]
        both = list(client.updates(from_sequence=1, accounts=[7, 8], idle=3.0))
    assert [update for update in both if update.account == 8] == own
    # Both sides of a trade are updates of their own.
    sides = [(update.account, update.maker) for update in both if update.kind == "TRADE"]
    assert sides == [(7, False), (8, True)] * 2


def test_async_client_yields_the_same(cluster: LocalCluster) -> None:
    async def collect() -> list[Update]:
        async with AsyncClient(cluster.config, account=7) as client:
            return [update async for update in client.updates(from_sequence=1, idle=3.0)]

    with Client(cluster.config, account=7) as client:
        assert asyncio.run(collect()) == list(client.updates(from_sequence=1, idle=3.0))


def test_stream_from_now_on_shows_fills_of_resting_orders(cluster: LocalCluster) -> None:
    found: list[Update] = []

    async def collect(client: AsyncClient) -> None:
        async for update in client.updates(idle=20.0):
            found.append(update)
            if update.kind == "FILLED":
                return

    async def run() -> int:
        async with AsyncClient(cluster.config, account=8) as maker, AsyncClient(cluster.config, account=7) as taker:
            before = (await maker.status()).event_sequence
            task = asyncio.create_task(collect(maker))
            while not task.done():
                await maker.place_limit("BTC-USD", "sell", "50000.00", "0.01")
                await taker.place_limit("BTC-USD", "buy", "50000.00", "0.01")
                await asyncio.wait([task], timeout=0.1)
            await task
            return before

    before = asyncio.run(run())
    assert found[0].sequence > before
    assert kinds(found)[-2:] == ["TRADE", "FILLED"]


def test_example_of_the_documentation_runs(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(cluster.config_path.parent)
    exec(compile(example, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(re.fullmatch(r"BUY 0\.\d+ BTC-USD at 50000\.00 as taker, fee \d+\.\d+", line) for line in lines)


def test_wrong_arguments_are_refused(cluster: LocalCluster) -> None:
    with Client(cluster.config, account=8) as client:
        for arguments in ({"accounts": []}, {"accounts": [-1]}, {"from_sequence": 0}, {"idle": 0.0}):
            with pytest.raises(InvalidValue):
                client.updates(**arguments)  # type: ignore[arg-type]
    with Client(cluster.config.nodes[0].orders_address) as client, pytest.raises(InvalidValue, match="Config"):
        client.updates()


def test_stream_survives_the_death_of_a_node_and_ends_with_events_that_are_gone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(limits=Limits(event_ring=200))
    trade(cluster)
    with Client(cluster.config, account=8) as maker:
        cluster.kill(cluster.wait_leader())
        assert "FILLED" in kinds(list(maker.updates(from_sequence=1, idle=3.0)))
        for _ in range(120):
            maker.place_limit("BTC-USD", "sell", "50100.00", "0.1")
            maker.mass_cancel()
        with pytest.raises(Unavailable, match="events 1 to"):
            list(maker.updates(from_sequence=1, idle=3.0))
