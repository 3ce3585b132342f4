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
from smrx.wire.records import EVENT, pack_symbol, unpack_symbol

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
    for i, event in enumerate(events):
        if choose.random() < 0.5:
            command += 1
            time_ns += choose.choice((0, 1, HOUR_NS // 7, HOUR_NS))
        event["command_sequence"], event["time_ns"] = command, time_ns
        what = choose.random()
        if i < 2 or what < 0.02:
            event["kind"], event["instrument"] = EventKind.ASSET_ADDED, i + 1
            event["client_order_id"] = pack_symbol(f"A{i + 1}")
            event["quantity_lots"], event["price_ticks"] = choose.randrange(19), choose.choice((0, MOST))
        elif i < 4 or what < 0.04:
            instruments += 1
            # Two instruments may have one symbol, and a symbol may be any eight bytes.
            symbol = choose.choice((b"A1-A2", b'"A,B"', b"A\r\nB", b"", b"\xff\x00A"))
            event["kind"], event["instrument"] = EventKind.INSTRUMENT_ADDED, 1000 - instruments
            event["client_order_id"] = int.from_bytes(symbol, "little")
            event["order_id"], event["counter_order_id"] = 1, 2
            event["account"], event["counter_account"] = choose.choice((1, 7, (1 << 32) - 1)), choose.choice((1, 3))
            event["price_ticks"], event["quantity_lots"] = 1 << 30, 1 << 29
        elif what < 0.06:
            event["kind"], event["instrument"] = EventKind.RULES_SET, 1000 - choose.randint(1, instruments)
            event["account"] = 1_000_000
            event["counter_account"] = choose.choice((0, 250, (1 << 32) - 1_000_000))
            event["cum_lots"], event["client_order_id"], event["order_id"] = 10_000, MOST, MOST
            event["price_ticks"], event["quantity_lots"] = MOST, MOST
        elif what < 0.5:
            match_id += 1
            event["kind"], event["match_id"] = EventKind.TRADE, match_id
            event["side"] = choose.choice((Side.BUY, Side.SELL))
            event["instrument"] = 1000 - choose.randint(1, instruments)
            event["account"], event["counter_account"] = (choose.choice((1, 2, 3, (1 << 32) - 1)) for _ in range(2))
            event["order_id"], event["counter_order_id"] = command, choose.randint(0, command)
            event["price_ticks"], event["quantity_lots"] = choose.choice(((1 << 30, 1 << 29), (1, 1), (99, 12)))
            event["cum_lots"], event["leaves_lots"] = choose.choice(((0, 0), (5, -5), (MOST, -MOST)))
        elif what < 0.7:
            event["kind"] = choose.choice((EventKind.DEPOSITED, EventKind.WITHDRAWN))
            event["account"], event["instrument"] = choose.choice((1, 2, 3)), choose.choice((1, 2))
            event["order_id"] = choose.choice((1, (1 << 64) - 1))
            event["quantity_lots"], event["cum_lots"] = choose.choice((1, 5000, MOST)), choose.choice((0, MOST))
        else:
            event["kind"] = choose.choice((EventKind.NEW, EventKind.FILLED, EventKind.CANCELLED, EventKind.TICKED))
            event["match_id"], event["order_id"] = match_id, command
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
        e = dict(zip(EVENT.names or (), event.tolist(), strict=True))
        head = (e["sequence"], e["command_sequence"], e["time_ns"])
        if e["kind"] == EventKind.TRADE:
            notional = e["price_ticks"] * e["quantity_lots"] * scales[e["instrument"]]
            content.trades.append(
                (
                    e["match_id"], *head, e["price_ticks"], e["quantity_lots"], notional, e["order_id"], e["cum_lots"],
                    e["counter_order_id"], e["leaves_lots"], e["instrument"], e["account"], e["counter_account"],
                    e["side"],
                )
            )  # fmt: skip
        elif e["kind"] in (EventKind.DEPOSITED, EventKind.WITHDRAWN):
            content.movements.append(
                (*head, e["order_id"], e["quantity_lots"], e["cum_lots"], e["account"], e["instrument"], e["kind"])
            )
        elif e["kind"] == EventKind.ASSET_ADDED:
            own = [shown(e["client_order_id"]), e["quantity_lots"], e["price_ticks"], *[0] * 13]
            content.definitions.append((*head, e["kind"], e["instrument"], *own))
        elif e["kind"] == EventKind.INSTRUMENT_ADDED:
            scales[e["instrument"]] = e["counter_account"]
            own = [
                shown(e["client_order_id"]), 0, 0, e["order_id"], e["counter_order_id"], e["account"],
                e["counter_account"], e["price_ticks"], e["quantity_lots"], *[0] * 7,
            ]  # fmt: skip
            content.definitions.append((*head, e["kind"], e["instrument"], *own))
        elif e["kind"] == EventKind.RULES_SET:
            maker = e["counter_account"]
            own = [
                *[shown(0)] * 1, *[0] * 8, e["account"], maker - (1 << 32) if maker >> 31 else maker, e["cum_lots"],
                e["client_order_id"], e["order_id"], e["price_ticks"], e["quantity_lots"],
            ]  # fmt: skip
            content.definitions.append((*head, e["kind"], e["instrument"], *own))
    return content


def shown(symbol: int) -> str:
    """Return a symbol as it is shown: an invisible character is a question mark."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in unpack_symbol(symbol))
