"""Events with numbers at the limits of their ranges, and the rows that a sink should hold of them.

The exchange would never send some of these; a sink does not judge events, it keeps them.
"""

import random
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.sinks import Checkpoint
from smrx.wire.codes import EventKind, Side
from smrx.wire.records import EVENT, EVENT_LAYOUTS, pack_symbol, unpack_symbol

CLUSTER = "test"
HOUR_NS = 3_600_000_000_000
START_NS = 1_700_000_000_000_000_000
MOST = (1 << 62) - 1

Events = NDArray[np.void]


class Content(NamedTuple):
    """The rows of a sink, as plain tuples."""

    trades: list[tuple[Any, ...]]
    movements: list[tuple[Any, ...]]
    definitions: list[tuple[Any, ...]]


@cache
def _bytes(count: int, seed: int) -> bytes:
    choose = random.Random(seed)
    events = np.zeros(count, EVENT)
    events["sequence"] = np.arange(1, count + 1)
    time_ns, command, match_id, instruments = START_NS, 0, 0, 0
    for i in range(count):
        if choose.random() < 0.5:
            command += 1
            time_ns += choose.choice((0, 1, HOUR_NS // 7, HOUR_NS))
        what = choose.random()
        fields: dict[str, Any]
        if i < 2 or what < 0.02:
            kind = EventKind.ASSET_ADDED
            fields = {"asset": i + 1, "symbol": pack_symbol(f"A{i + 1}"), "decimals": choose.randrange(19)}
            fields["supply_cap"] = choose.choice((0, MOST))
        elif i < 4 or what < 0.04:
            instruments += 1
            kind = EventKind.INSTRUMENT_ADDED
            fields = {
                "instrument": 1000 - instruments,
                # Two instruments may have one symbol, and a symbol may be any bytes.
                "symbol": choose.choice(
                    (b"A1-A2", b'"A,B"', b"A\r\nB", b"", b"\xff\x00A", b"TWENTY-FOUR/CHARACTERS.A")
                ),
                "base_asset": 1,
                "quote_asset": 2,
                "lot_units": choose.choice((1, 7, (1 << 32) - 1)),
                "scale_units": choose.choice((1, 3)),
                "max_price_ticks": 1 << 30,
                "max_quantity_lots": 1 << 29,
            }
        elif what < 0.06:
            kind = EventKind.RULES_SET
            fields = {"instrument": 1000 - choose.randint(1, instruments), "taker_fee": 1_000_000}
            fields["maker_fee"] = choose.choice((0, 250, -1_000_000))
            fields |= {"band_bp": 10_000, "collar_bp": choose.choice((0, 9_999)), "collar_reference": 1}
            fields |= {"rule_flags": choose.choice((0, 3)), "min_quantity_lots": MOST, "min_price_ticks": MOST}
            fields |= {"min_notional": MOST, "max_notional": MOST}
        elif what < 0.5:
            match_id += 1
            kind = EventKind.TRADE
            fields = {"match_id": match_id, "side": choose.choice((Side.BUY, Side.SELL))}
            fields["instrument"] = 1000 - choose.randint(1, instruments)
            fields["account"], fields["counter_account"] = (choose.choice((1, 2, 3, (1 << 32) - 1)) for _ in range(2))
            fields["order_id"], fields["counter_order_id"] = command, choose.randint(0, command)
            fields["price_ticks"], fields["quantity_lots"] = choose.choice(((1 << 30, 1 << 29), (1, 1), (99, 12)))
            fields["taker_fee"], fields["maker_fee"] = choose.choice(((0, 0), (5, -5), (MOST, -MOST)))
        elif what < 0.7:
            kind = choose.choice((EventKind.DEPOSITED, EventKind.WITHDRAWN))
            fields = {"account": choose.choice((1, 2, 3)), "asset": choose.choice((1, 2))}
            fields["transfer_id"] = choose.choice((1, (1 << 64) - 1))
            fields["amount"], fields["available_after"] = choose.choice((1, 5000, MOST)), choose.choice((0, MOST))
        elif what < 0.75:
            kind, fields = EventKind.CLIENT_ORDER_ID, {"order_id": command, "client_order_id": b"x" * 64}
        else:
            kind = choose.choice((EventKind.NEW, EventKind.FILLED, EventKind.CANCELLED, EventKind.TICKED))
            fields = {"match_id": match_id, "order_id": command}
        event = events[i : i + 1].view(EVENT_LAYOUTS[kind])
        event["kind"], event["command_sequence"], event["time_ns"] = kind, command, time_ns
        for name, value in fields.items():
            event[name] = value
    return events.tobytes()


def stream(count: int = 600, seed: int = 1) -> Events:
    """Return the first events of a cluster."""
    return np.frombuffer(_bytes(count, seed), EVENT)


def checkpoint(events: Events, sequence: int, cluster: str = CLUSTER) -> Checkpoint:
    """Return the checkpoint after an event."""
    before = events[:sequence]
    trades = int((before["kind"] == EventKind.TRADE).sum())
    return Checkpoint(
        cluster, sequence, int(before["command_sequence"][-1]), trades, (sequence * 0x9E3779B97F4A7C15) % (1 << 64)
    )


def expected(events: Events, sequence: int) -> Content:
    """Return what a sink should hold after an event, derived one event at a time."""
    content = Content([], [], [])
    scales: dict[int, int] = {}
    for event in events[:sequence]:
        kind = EventKind(int(event["kind"]))
        layout = EVENT_LAYOUTS[kind]
        own = np.frombuffer(event.tobytes(), layout)[0]
        e = dict(zip(layout.names or (), own.tolist(), strict=True))
        head = (e["sequence"], e["command_sequence"], e["time_ns"])
        if kind == EventKind.TRADE:
            notional = e["price_ticks"] * e["quantity_lots"] * scales[e["instrument"]]
            content.trades.append(
                (
                    e["match_id"], *head, e["price_ticks"], e["quantity_lots"], notional, e["order_id"], e["taker_fee"],
                    e["counter_order_id"], e["maker_fee"], e["instrument"], e["account"], e["counter_account"],
                    e["side"],
                )
            )  # fmt: skip
        elif kind in (EventKind.DEPOSITED, EventKind.WITHDRAWN):
            content.movements.append(
                (*head, e["transfer_id"], e["amount"], e["available_after"], e["account"], e["asset"], kind)
            )
        elif kind == EventKind.ASSET_ADDED:
            content.definitions.append(
                (*head, kind, e["asset"], shown(e["symbol"]), e["decimals"], e["supply_cap"], *[0] * 16)
            )
        elif kind == EventKind.INSTRUMENT_ADDED:
            scales[e["instrument"]] = e["scale_units"]
            values = [
                shown(e["symbol"]), 0, 0, e["base_asset"], e["quote_asset"], e["lot_units"], e["scale_units"],
                e["max_price_ticks"], e["max_quantity_lots"], *[0] * 10,
            ]  # fmt: skip
            content.definitions.append((*head, kind, e["instrument"], *values))
        elif kind == EventKind.RULES_SET:
            values = [
                "", *[0] * 8, e["taker_fee"], e["maker_fee"], e["band_bp"], e["min_price_ticks"], e["min_notional"],
                e["max_notional"], e["min_quantity_lots"], e["collar_bp"], e["collar_reference"], e["rule_flags"],
            ]  # fmt: skip
            content.definitions.append((*head, kind, e["instrument"], *values))
    return content


def shown(symbol: bytes) -> str:
    """Return a symbol as it is shown: an invisible character is a question mark."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in unpack_symbol(symbol))
