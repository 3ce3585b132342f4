"""Icebergs: what the book shows, where the next part queues, and what hidden lots count for."""

from typing import Any

import pytest

from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.commands import add_instrument, command, place
from tests.engine.small_market import BASE, QUOTE, SmallMarket, events_of, fills, last_outcome, order_id


def iceberg_and_plain_ask() -> tuple[SmallMarket, int, int]:
    """Return a market with asks at 100: 10 lots of account 1 that show 3, and 4 of account 2; and their ids."""
    market = SmallMarket()
    return market, order_id(market.sell(1, 10, 100, display_lots=3)), order_id(market.sell(2, 4, 100))


def test_book_shows_only_displayed_lots() -> None:
    market, _, _ = iceberg_and_plain_ask()
    assert market.depth()[1] == [(100, 7, 2)]
    row = market.engine.inspect.orders(1)[0]
    assert [int(row[name]) for name in ("display_lots", "shown_lots", "leaves_lots")] == [3, 3, 10]
    assert market.balance_change(1, BASE) == (0, 10)
    market.buy(3, 2, 100)
    assert market.engine.inspect.orders(1)["shown_lots"].tolist() == [1]
    assert market.depth()[1] == [(100, 5, 2)]
    market.check_state()


def test_next_part_queues_at_the_back() -> None:
    market, iceberg, other = iceberg_and_plain_ask()
    result = market.buy(3, 12, 100)
    # 3 shown lots, then the other's 4, then 3 and 2 more.
    assert fills(result) == [(iceberg, 100, 3), (other, 100, 4), (iceberg, 100, 3), (iceberg, 100, 2)]
    refresh = [event for event in result.events if event["kind"] == 2 and event["order_id"] == iceberg]
    row = market.engine.inspect.orders(1)[0]
    assert int(row["priority"]) == int(refresh[1]["sequence"])
    assert [int(row[name]) for name in ("shown_lots", "leaves_lots")] == [1, 2]
    assert last_outcome(market.buy(3, 2, 100)) == ("FILLED", "NONE", 2, 0)
    assert market.depth() == ([], [])
    market.check_state()


def test_last_part_is_the_remainder() -> None:
    market, iceberg, _ = iceberg_and_plain_ask()
    market.buy(3, 7, 100)
    market.buy(3, 6, 100)
    assert market.depth()[1] == [(100, 1, 1)]
    assert events_of(market.buy(3, 1, 100))[2] == ("FILLED", iceberg)
    market.check_state()


def test_iceberg_taker_trades_its_full_size_then_rests_hidden() -> None:
    market = SmallMarket()
    market.sell(2, 6, 100)
    result = market.buy(1, 20, 100, display_lots=5)
    assert last_outcome(result) == ("PARTIALLY_FILLED", "NONE", 6, 14)
    assert market.depth() == ([(100, 5, 1)], [])
    market.check_state()


def test_reduction_takes_hidden_lots_first() -> None:
    market, iceberg, other = iceberg_and_plain_ask()
    market.replace(1, iceberg, 4, 100)
    assert market.depth()[1] == [(100, 7, 2)]
    market.buy(3, 2, 100)
    assert market.rejected(market.replace_command(1, iceberg, 3, 100)) == Reason.INVALID_DISPLAY
    # DECREMENT may leave less than the display; the remainder is shown.
    market.buy(1, 1, 100, stp=Stp.DECREMENT)
    assert market.engine.inspect.orders(1)["shown_lots"].tolist() == [1]
    assert market.engine.inspect.orders(1)["leaves_lots"].tolist() == [1]
    assert fills(market.buy(3, 5, 100)) == [(iceberg, 100, 1), (other, 100, 4)]
    market.check_state()


def test_replaced_iceberg_shows_its_display_again() -> None:
    market, iceberg, _ = iceberg_and_plain_ask()
    market.buy(3, 2, 100)
    market.replace(1, iceberg, 12, 101)
    assert market.depth()[1] == [(100, 4, 1), (101, 3, 1)]
    market.check_state()


@pytest.mark.parametrize(("lots", "can_fill"), [(14, True), (15, False)])
def test_fill_or_kill_counts_hidden_lots(lots: int, can_fill: bool) -> None:
    market, _, _ = iceberg_and_plain_ask()
    result = market.buy(3, lots, 100, tif=TimeInForce.FOK)
    assert last_outcome(result)[0] == ("FILLED" if can_fill else "EXPIRED")
    market.check_state()


@pytest.mark.parametrize(("lots", "can_fill"), [(7, True), (8, False)])
def test_fill_or_kill_meets_its_own_order_before_the_refreshed_parts(lots: int, can_fill: bool) -> None:
    market, _, _ = iceberg_and_plain_ask()
    market.sell(3, 1, 100)
    result = market.buy(3, lots, 100, tif=TimeInForce.FOK)
    assert last_outcome(result)[0] == ("FILLED" if can_fill else "EXPIRED")
    market.check_state()


def test_display_bounds() -> None:
    market = SmallMarket()

    def rejected(lots: int, display: int, **more: Any) -> Reason:
        return market.rejected(place(market.sender(1), 1, Side.SELL, lots, 100, display_lots=display, **more))

    assert rejected(10, 10) == Reason.INVALID_DISPLAY
    # More than a thousand parts are rejected: they would make the number of events unbounded.
    assert rejected(2_001, 2) == Reason.INVALID_DISPLAY
    for display in (-1, -(1 << 63), (1 << 63) - 1):
        assert rejected(10, display) == Reason.INVALID_DISPLAY
    assert rejected(10, 9, tif=TimeInForce.IOC) == Reason.UNSUPPORTED_COMBINATION
    assert rejected(10, 9, tif=TimeInForce.FOK) == Reason.UNSUPPORTED_COMBINATION
    assert last_outcome(market.sell(1, 2_000, 100, display_lots=2, flags=OrderFlags.POST_ONLY))[0] == "NEW"
    assert last_outcome(market.sell(1, 10, 100, display_lots=9))[0] == "NEW"
    market.check_state()


def test_thousand_parts_in_one_sweep() -> None:
    """Two icebergs of a thousand parts and a taker that fills both: they alternate, one lot a trade."""
    market = SmallMarket()
    icebergs = [order_id(market.sell(account, 1_000, 100, display_lots=1)) for account in (1, 2)]
    result = market.buy(3, 2_000, 100)
    assert [fill[0] for fill in fills(result)] == icebergs * 1_000
    assert last_outcome(result) == ("FILLED", "NONE", 2_000, 0)
    market.check_state()


def test_cancel_releases_hidden_lots() -> None:
    market, _, other = iceberg_and_plain_ask()
    market.send(command(CommandKind.MASS_CANCEL, market.sender(1), account=1))
    assert market.balance_change(1, BASE) == (0, 0)
    assert market.open_ids() == [other]
    market.check_state()


def test_display_may_be_larger_than_32_bits() -> None:
    market = SmallMarket()
    market.send(
        add_instrument(
            market.sender(0), 2, "WIDE", base_asset=BASE, quote_asset=QUOTE, max_price_ticks=1,
            max_quantity_lots=1 << 39,
        )
    )  # fmt: skip
    market.sell(1, 1 << 39, 1, instrument=2, display_lots=1 << 38)
    assert market.engine.inspect.depth(2, 9)[1] == [(1, 1 << 38, 1)]
    market.buy(2, (1 << 38) + 5, 1, instrument=2)
    assert market.engine.inspect.orders(1)["shown_lots"].tolist() == [(1 << 38) - 5]
    market.check_state()


def test_stop_limit_order_hides_lots_once_it_rests() -> None:
    market = SmallMarket()
    stop = order_id(market.stop(1, Side.BUY, 10, 110, 105, display_lots=3))
    assert market.engine.inspect.stops(1, 9)[1] == [(110, 10, 1)]
    market.check_state()
    market.sell(2, 1, 110)
    market.buy(3, 1, 110)
    assert market.depth() == ([(105, 3, 1)], [])
    market.sell(2, 4, 105)
    row = market.engine.inspect.orders(1)[0]
    assert row[["order_id", "shown_lots", "leaves_lots"]].item() == (stop, 2, 6)
    market.check_state()
