"""Positions: an account's exposure in an instrument, compared with hand-computed numbers and with the oracle."""

from typing import Any

import pytest

from smrx.engine import Engine
from smrx.engine.exposure import Position
from tests import commands as make
from tests.engine.small_market import BASE, FUNDS, MAX_PRICE, QUOTE, SmallMarket
from tests.oracle import Oracle
from tests.property import comparison
from tests.property.flow import build_tape, seeded_steps
from tests.transcripts.language import Script

THIRD = 3


@pytest.mark.parametrize("machine", [Engine, Oracle])
def test_position_has_balances_and_open_orders(machine: Any) -> None:
    """Lots of two units, ticks of three: a partly filled sell, an iceberg, a stop with and one without a limit."""
    script = Script(machine())
    for line in (
        "session venue", "asset USD", "asset BTC", "instrument BTC/USD lot 2 scale 3",
        "account alice", "session alice", "deposit alice 5000 USD", "deposit alice 100 BTC",
        "account bob", "session bob", "deposit bob 3000 USD", "account carol",
        "place alice sell 10 BTC/USD @ 100", "place bob buy 4 BTC/USD @ 100",
        "place alice sell 5 BTC/USD @ 110 show 1", "place alice buy 2 BTC/USD @ 90",
        "place alice buy 3 BTC/USD @ 120 stop-limit 115", "place alice sell 7 BTC/USD stop 80",
    ):  # fmt: skip
        assert "REJECTED" not in "".join(script.run(line)), line
    rows = [tuple(row) for account in (1, 2, 3) for row in script.machine.inspect.positions(account)]
    # Alice sold 4 lots of 2 for 4 x 100 x 3; she holds 6 + 5 + 7 lots, and 2 x 90 x 3 + 3 x 120 x 3.
    alice = (1, 1, 92 - 36, 36, 6200 - 1620, 1620, 2, 2 + 3, 1620, 3, 6 + 5 + 7, 6 * 300 + 5 * 330)
    bob = (2, 1, 8, 0, 1800, 0, 0, 0, 0, 0, 0, 0)
    assert rows == [alice, bob]


def test_account_without_base_has_a_position_while_its_order_is_open() -> None:
    market = SmallMarket(traders=1)
    market.send(make.open_account(market.sender(0), 2))
    market.send(make.open_session(12, 2))
    market.send(make.deposit(market.sender(0), 2, QUOTE, 1_000, 99))
    inspect = market.engine.inspect
    assert inspect.positions(2) == []
    order = int(market.buy(2, 3, 100).outcomes["order_id"][0])
    assert inspect.positions(2) == [Position(2, 1, 0, 0, 700, 300, 1, 3, 300, 0, 0, 0)]
    market.cancel(2, order)
    assert inspect.positions(2) == []
    assert inspect.positions(77) == []


def test_positions_are_sorted_by_instrument_and_share_balances() -> None:
    market = SmallMarket(traders=1)
    market.send(make.add_asset(market.sender(0), THIRD, "OTHER"))
    for number, quote in ((9, THIRD), (4, THIRD)):
        market.send(
            make.add_instrument(
                market.sender(0), number, f"B/{number}", base_asset=BASE, quote_asset=quote,
                max_price_ticks=1_000, max_quantity_lots=10,
            )
        )  # fmt: skip
    market.sell(1, 5, 7, instrument=9)
    rows = market.engine.inspect.positions(1)
    assert [row.instrument for row in rows] == [1, 4, 9]
    assert {(row.base_available, row.base_held) for row in rows} == {(FUNDS - 5, 5)}
    assert [row.quote_available for row in rows] == [FUNDS, 0, 0]
    assert [(row.sell_orders, row.sell_lots, row.sell_notional) for row in rows] == [(0, 0, 0), (0, 0, 0), (1, 5, 35)]


def test_notional_beyond_64_bits_is_exact() -> None:
    market = SmallMarket(traders=1)
    for _ in range(20):
        market.sell(1, (1 << 11) - 1, MAX_PRICE)
    [row] = market.engine.inspect.positions(1)
    assert row.sell_notional == 20 * ((1 << 11) - 1) * MAX_PRICE > 1 << 64


def test_positions_equal_the_oracles() -> None:
    """After a random tape with every kind of command, for every account."""
    tape = build_tape(seeded_steps(5, 600))
    oracle, engine = Oracle(), Engine()
    for machine in (oracle, engine):
        comparison.run(machine, tape)
    accounts = oracle.inspect.accounts()["account"].tolist()
    owned = [
        [tuple(row) for account in accounts for row in machine.inspect.positions(account)]
        for machine in (oracle, engine)
    ]
    assert owned[0] == owned[1]
    assert sum(row[6] + row[9] for row in owned[0]) == len(oracle.inspect.orders()) > 0


def test_comparison_finds_a_wrong_position(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = build_tape(seeded_steps(5, 200))
    oracle, engine = Oracle(), Engine()
    for machine in (oracle, engine):
        comparison.run(machine, tape)
    assert comparison.state_differences(oracle, engine) == []
    known = type(engine.inspect).positions
    monkeypatch.setattr(
        type(engine.inspect),
        "positions",
        lambda inspect, account: [row._replace(buy_lots=row.buy_lots + 1) for row in known(inspect, account)],
    )
    found = comparison.state_differences(oracle, engine)
    assert found
    assert all(line.startswith("positions of ") for line in found)
