"""Queries: by index and list they return what a scan of the whole table does; a scan copies only what is asked for."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.engine import Engine
from smrx.engine import engine as engine_module
from smrx.engine import inspect as inspect_module
from smrx.engine.checks import invariants
from smrx.engine.exposure import positions
from smrx.engine.inspect import Inspect, Page
from smrx.engine.state import TABLES
from smrx.wire import balance_digest
from smrx.wire.codes import CommandKind
from tests import commands as make
from tests.commands import apply
from tests.engine.small_market import QUOTE, SmallMarket
from tests.property.flow import seeded_tape

Rows = NDArray[Any]

COUNT, ACCOUNTS = 100_000, 1_000


def many_orders() -> Inspect:
    """Return the view of a state with orders of many accounts, freed slots among them."""
    state = Engine().inspect._state
    orders = np.zeros(COUNT, state.orders.dtype)
    orders["order_id"] = np.arange(COUNT)[::-1]
    orders["account_id"] = np.arange(COUNT) % ACCOUNTS
    orders["instrument_id"] = np.arange(COUNT) // ACCOUNTS % 2
    orders["live"] = np.arange(COUNT) < COUNT - ACCOUNTS
    pools = state.pools.copy()
    pools["top"][next(number for number, table in enumerate(TABLES) if table.name == "orders")] = COUNT
    return Inspect(state._replace(orders=orders, pools=pools))


def test_orders_of_an_account_are_chosen_before_they_are_copied() -> None:
    inspect = many_orders()
    tracemalloc.start()
    try:
        found = inspect.orders(7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == COUNT // ACCOUNTS - 1
    assert (np.diff(found["order_id"].astype(np.int64)) > 0).all()
    # A few bytes for each order to choose by; an order itself has 128.
    assert peak < COUNT * 16


def test_orders_are_chosen_by_account_and_instrument() -> None:
    inspect = many_orders()
    everything = inspect.orders()
    assert len(everything) == COUNT - ACCOUNTS
    for account, instrument in ((7, None), (None, 1), (7, 1), (ACCOUNTS, None)):
        wanted = np.ones(len(everything), np.bool_)
        if account is not None:
            wanted &= everything["account"] == account
        if instrument is not None:
            wanted &= everything["instrument"] == instrument
        assert inspect.orders(account, instrument).tobytes() == everything[wanted].tobytes()


def busy_engine() -> Engine:
    """Return an engine after a random flow, with freed slots, forgotten transfers and long client order ids."""
    engine = Engine()
    for batch in seeded_tape(3, 1_500).batches:
        apply(engine, batch.commands, batch.time_ns)
    return engine


@pytest.fixture(scope="module")
def busy() -> Engine:
    return busy_engine()


def transfers_behind(inspect: Inspect, owner: int, limit: int, before: int) -> Page:
    return inspect.transfers_of(owner, before=before, limit=limit)


def pages(query: Callable[[int], Page | None], column: str) -> Rows:
    """Return the rows of all pages of a listing, each asked for with the last row of the one before."""
    found, after = [], 0
    while True:
        page = query(after)
        assert page is not None
        found.append(page.rows)
        if not page.more:
            return np.concatenate(found)
        after = int(page.rows[column][-1])


def test_records_are_found_by_id(busy: Engine) -> None:
    inspect = busy.inspect
    for rows, query, keys in (
        (inspect.orders(), inspect.order, ["order_id"]),
        (inspect.balances(), inspect.balance, ["account", "asset"]),
        (inspect.accounts(), inspect.account, ["account"]),
        (inspect.assets(), inspect.asset, ["asset"]),
        (inspect.instruments(), inspect.instrument, ["instrument"]),
        (inspect.sessions(), inspect.session, ["session_id"]),
    ):
        assert len(rows)
        for row in rows:
            key = [int(row[name]) for name in keys]
            assert query(*key).tolist() == [row.tolist()]  # type: ignore[operator]
            assert len(query(*key[:-1], 0x7FFF_FFFF)) == 0  # type: ignore[operator]


def test_orders_are_found_by_client_order_id(busy: Engine) -> None:
    rows = busy.inspect.orders()
    named = rows[rows["client_order_id"] != b""]
    assert any(len(text) > 8 for text in named["client_order_id"].tolist())
    for row in named:
        text = row["client_order_id"].decode("ascii")
        assert busy.inspect.client_order(int(row["account"]), text).tolist() == [row.tolist()]
        assert len(busy.inspect.client_order(0x7FFF_FFFF, text)) == 0
    assert len(busy.inspect.client_order(1, "")) == len(busy.inspect.client_order(1, "x" * 65)) == 0


@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_pages_of_an_account_are_its_orders_oldest_first(busy: Engine, limit: int) -> None:
    inspect = busy.inspect
    for account in inspect.accounts()["account"].tolist():
        expected = inspect.orders(account)
        found = pages(lambda after, account=account: inspect.orders_of(account, after=after, limit=limit), "order_id")
        assert found.tobytes() == expected.tobytes()
        assert inspect.open_order_count(account) == len(expected)
        for instrument in inspect.instruments()["instrument"].tolist():
            page = inspect.orders_of(account, limit=1_000, instrument=instrument)
            assert page is not None
            assert not page.more
            assert page.rows.tobytes() == inspect.orders(account, instrument).tobytes()


def test_page_behind_an_order_that_is_not_open_any_more_is_none(busy: Engine) -> None:
    inspect = busy.inspect
    rows = inspect.orders()
    row = rows[-1]
    assert inspect.orders_of(int(row["account"]) + 1, after=int(row["order_id"]), limit=9) is None
    assert inspect.orders_of(int(row["account"]), after=int(row["order_id"]) + 1, limit=9) is None
    unknown = inspect.orders_of(0x7FFF_FFFF, limit=9)
    assert unknown is not None
    assert (len(unknown.rows), unknown.more) == (0, False)


def test_page_of_one_instrument_looks_at_a_bounded_number_of_orders(
    busy: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = busy.inspect
    account = max(inspect.accounts()["account"].tolist(), key=inspect.open_order_count)
    monkeypatch.setattr(inspect_module, "MAX_STEPS", 2)
    page = inspect.orders_of(account, limit=1, instrument=0x7FFF_FFFF)
    assert page is not None
    assert (len(page.rows), page.more) == (0, True)


def test_balances_and_positions_of_an_account(busy: Engine) -> None:
    inspect = busy.inspect
    for account in [*inspect.accounts()["account"].tolist(), 0x7FFF_FFFF]:
        assert inspect.balances_of(account).tobytes() == inspect.balances(account).tobytes()
        assert inspect.positions(account) == positions(
            account, *(inspect._live(name) for name in ("instruments",)), inspect._live("balances", account_id=account),
            inspect._live("orders", account_id=account),
        )  # fmt: skip


@pytest.mark.parametrize("restored", [False, True])
def test_transfers_of_an_account_are_listed_newest_first(restored: bool) -> None:
    """Three ids are kept: others are forgotten, and their slots are used again."""
    market = SmallMarket(traders=3)
    market.send(
        make.command(
            CommandKind.SET_RETENTION, market.sender(0), session_silence_s=9_999, transfer_age_s=9_999, transfers=3
        )
    )
    for number in range(12):
        # The venue's account, too.
        account = number % 3 if number < 9 else 1
        market.send(make.deposit(market.sender(0), account, QUOTE, 10, 900 + number))
        engine = Engine.restore(market.engine.snapshot()) if restored else market.engine
        assert invariants.violations(engine._state) == []
        inspect = engine.inspect
        for owner in (0, 1, 2, 3, 77):
            expected = inspect.transfers(owner)
            # Ids rise with time in this test.
            expected = expected[::-1]
            for limit in (1, 2, 10):
                found = pages(
                    partial(transfers_behind, inspect, owner, limit),
                    "transfer_id",
                )
                assert found.tolist() == expected.tolist()
        assert inspect.transfer(900 + number)["amount"].tolist() == [10]
        assert len(inspect.transfer(1)) == 0
        # Behind an id that is forgotten, or another account's, there is nothing.
        assert len(inspect.transfers_of(1, before=1, limit=5).rows) == 0
        assert len(inspect.transfers_of(3, before=900 + number, limit=5).rows) == 0


def test_accounts_are_listed_in_the_order_of_their_opening(busy: Engine) -> None:
    inspect = busy.inspect
    first = inspect.accounts_from(limit=2)
    assert first is not None
    assert first.rows["account"].tolist()[0] == 0
    found, after, more = [], None, True
    while more:
        page = inspect.accounts_from(after=after, limit=2)
        assert page is not None
        found += page.rows.tolist()
        after, more = int(page.rows["account"][-1]), page.more
    assert sorted(found) == sorted(inspect.accounts().tolist())
    assert inspect.accounts_from(after=0x7FFF_FFFF, limit=2) is None


def test_instrument_is_found_by_symbol(busy: Engine) -> None:
    for row in busy.inspect.instruments():
        assert busy.inspect.instrument_named(row["symbol"].decode()).tolist() == [row.tolist()]
    for unknown in ("", "NONE", "x" * 99, "é"):
        assert len(busy.inspect.instrument_named(unknown)) == 0


def test_counts_are_those_of_the_tables(busy: Engine) -> None:
    counts = busy.inspect.counts()
    for kind in ("orders", "accounts", "assets", "instruments", "sessions"):
        assert counts[kind] == len(getattr(busy.inspect, kind)())
    assert counts["balances"] >= len(busy.inspect.balances())


def test_listing_has_the_rows_of_the_whole_table_in_its_order(busy: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_module, "_BLOCK", 7)
    for table in ("orders", "balances", "accounts", "assets", "instruments", "sessions"):
        expected = getattr(busy.inspect, table)()
        assert np.concatenate(list(busy.inspect.listing(table))).tobytes() == expected.tobytes()
    account = int(busy.inspect.orders()["account"][0])
    assert (
        np.concatenate(list(busy.inspect.listing("orders", account=account, instrument=1))).tobytes()
        == busy.inspect.orders(account, 1).tobytes()
    )


def test_balance_digest_is_that_of_the_balances() -> None:
    engine = Engine()
    for batch in seeded_tape(5, 800).batches:
        apply(engine, batch.commands, batch.time_ns)
        rows = engine.inspect.balances()
        owners = (rows["account"].astype(np.uint64) << np.uint64(32)) | rows["asset"]
        expected = balance_digest.digest(owners, rows["available"], rows["held"])
        assert engine.balance_digest() == expected
    assert Engine.restore(engine.snapshot()).balance_digest() == expected
    assert expected.balances > 5


def test_damage_to_a_balance_shows_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CHECKED_BALANCES", 2)
    engine = busy_engine()
    before = engine.balance_digest()
    row = engine.inspect.balances()[-1]
    turns = len(engine._state.balances) // 2 + 1
    for delta in (1, -1, -int(row["available"])):
        assert engine.corrupt_balance(int(row["account"]), int(row["asset"]), delta)
        rows = engine.inspect.balances()
        owners = (rows["account"].astype(np.uint64) << np.uint64(32)) | rows["asset"]
        expected = balance_digest.digest(owners, rows["available"], rows["held"])
        assert expected in [engine.balance_digest() for _ in range(turns)]
    assert before != engine.balance_digest()
