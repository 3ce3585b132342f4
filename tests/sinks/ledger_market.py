"""A market of three trades whose figures are all computed by hand.

BTC has 8 decimals, USD 2. One lot of BTC-USD is 0.01 BTC and one tick is 1 USD for a BTC, so a tick times a lot is one
cent. The taker pays 0.1 percent of the notional, the maker gets half of that.

day  what                                      account 1                   account 2                   venue
1    1 deposits 10,000.00 USD                  10,000.00 USD
1    2 deposits 1 BTC                                                      1.00 BTC
1    1 takes 10 lots from 2 at 30,000          -3,000.00 -3.00 +0.10 BTC   +3,000.00 +1.50 -0.10 BTC   +1.50
2    2 sells 20 lots to 1, who waits at 31,000 -6,200.00 +3.10 +0.20 BTC   +6,200.00 -6.20 -0.20 BTC   +3.10
2    2 withdraws 195.30 USD                                                -195.30
3    1 takes a lot of its own at 30,000        -0.30 +0.15                                             +0.15
     in the end                                799.95 USD, 0.30 BTC        9,000.00 USD, 0.70 BTC      4.75 USD
"""

from typing import Any

import numpy as np

from smrx.wire.codes import EventKind, Side
from smrx.wire.records import EVENT, EVENT_LAYOUTS, pack_symbol
from tests.sinks.stream import Events

#: 2026-01-01T00:00:00Z and the days after it.
DAY_1_NS = 1_767_225_600_000_000_000
DAY_NS = 86_400_000_000_000
CENT = 1
BTC_CENT = 1_000_000  # 0.01 BTC


def hand_market() -> Events:
    rows: list[dict[str, Any]] = [
        {"kind": EventKind.ASSET_ADDED, "asset": 1, "symbol": pack_symbol("BTC"), "decimals": 8},
        {"kind": EventKind.ASSET_ADDED, "asset": 2, "symbol": pack_symbol("USD"), "decimals": 2},
        {"kind": EventKind.ASSET_ADDED, "asset": 3, "symbol": pack_symbol("ETH"), "decimals": 18},
        _instrument(10, "BTC-USD", 1, BTC_CENT),
        _instrument(11, "ETH-USD", 3, 1),
        {"kind": EventKind.DEPOSITED, "account": 1, "asset": 2, "amount": 1_000_000, "transfer_id": 501},
        {"kind": EventKind.DEPOSITED, "account": 2, "asset": 1, "amount": 100 * BTC_CENT, "transfer_id": 502},
        {"kind": EventKind.DEPOSITED, "account": 2, "asset": 3, "amount": 1, "transfer_id": 503},
        _trade(1, Side.BUY, 30_000, 10, taker=1, maker=2, fees=(300, -150)),
        {"day": 2} | _trade(2, Side.SELL, 31_000, 20, taker=2, maker=1, fees=(620, -310)),
        {"kind": EventKind.WITHDRAWN, "account": 2, "asset": 2, "amount": 19_530, "transfer_id": 504},
        {"day": 3} | _trade(3, Side.BUY, 30_000, 1, taker=1, maker=1, fees=(30, -15)),
    ]
    events = np.zeros(len(rows), EVENT)
    day = 1
    for i, row in enumerate(rows):
        day = row.pop("day", day)
        events[i]["sequence"] = events[i]["command_sequence"] = i + 1
        events[i]["time_ns"] = DAY_1_NS + (day - 1) * DAY_NS + i
        own = events[i : i + 1].view(EVENT_LAYOUTS[EventKind(row["kind"])])
        for name, value in row.items():
            own[name] = value
    return events


def _instrument(identity: int, symbol: str, base: int, lot_units: int) -> dict[str, Any]:
    return {
        "kind": EventKind.INSTRUMENT_ADDED, "instrument": identity, "symbol": pack_symbol(symbol),
        "base_asset": base, "quote_asset": 2, "lot_units": lot_units, "scale_units": 1,
    }  # fmt: skip


def _trade(
    match_id: int, side: Side, price: int, lots: int, *, taker: int, maker: int, fees: tuple[int, int]
) -> dict[str, Any]:
    return {
        "kind": EventKind.TRADE, "match_id": match_id, "side": side, "instrument": 10, "price_ticks": price,
        "quantity_lots": lots, "account": taker, "counter_account": maker, "taker_fee": fees[0], "maker_fee": fees[1],
        "order_id": 100 + match_id, "counter_order_id": 200 + match_id,
    }  # fmt: skip
