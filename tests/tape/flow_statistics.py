"""Measure the statistics of calibration.py on a tape and on a recording in the same way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smrx.tape.lobster import Kind, Recording
from smrx.tape.tape_book import BookSide, Order
from smrx.tape.tape_file import Tape
from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import CommandKind, Side, TimeInForce


@dataclass
class FlowStatistics:
    """Shares of visible messages (new to execution) and of new orders (the other shares), and the spread in ticks."""

    new: float
    partial_cancel: float
    delete: float
    execution: float
    round_lots: float
    hundreds: float
    at_best_or_better: float
    buying: float
    spread_quartiles: tuple[float, float, float]


def of_recording(recording: Recording) -> FlowStatistics:
    """Measure a recording with an orderbook."""
    assert recording.books is not None
    messages, books = recording.messages, recording.books
    kinds = messages["kind"]
    visible = int((kinds <= Kind.EXECUTION).sum())
    arrivals = np.flatnonzero(kinds == Kind.NEW)
    arrivals = arrivals[arrivals > 0]
    new, before = messages[arrivals], books[arrivals - 1]
    buying = new["direction"] == 1
    behind = np.where(buying, before[:, 2] - new["price"], new["price"] - before[:, 0])
    shares = [float((kinds == kind).sum() / visible) for kind in range(1, 5)]
    spread = (books[:, 0] - books[:, 2]) // 100
    return FlowStatistics(
        *shares, *_sizes(new["size"]), float((behind <= 0).mean()), float(buying.mean()), _quartiles(spread)
    )


def of_tape(tape: Tape) -> FlowStatistics:
    """Measure a tape by applying it to a BookSide of each side."""
    sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
    orders: dict[str, Order] = {}
    sizes, behind, buys, spreads = [], [], [], []
    counts = dict.fromkeys(("new", "reduce", "cancel", "trade"), 0)
    for command in tape.commands:
        kind, name = int(command["kind"]), short_id_text(int(command["client_order_id"])) or ""
        price, quantity = int(command["price_ticks"]), int(command["quantity_lots"])
        if kind == CommandKind.CANCEL:
            order = orders.pop(name)
            sides[order.side].remove(order)
            counts["cancel"] += 1
        elif kind == CommandKind.REPLACE:
            orders[name].leaves -= orders[name].quantity - quantity
            orders[name].quantity = quantity
            counts["reduce"] += 1
        elif command["tif"] == TimeInForce.IOC:
            counts["trade"] += _take(sides, orders, Side(int(command["side"])), price, quantity)
        else:
            side = Side(int(command["side"]))
            assert not sides[_other(side)].crossed_by(price), "a resting order of the tape crosses the book"
            best = sides[side].best()
            if best is not None:
                behind.append(best - price if side == Side.BUY else price - best)
            sizes.append(quantity)
            buys.append(side == Side.BUY)
            orders[name] = Order(side, price, quantity, len(orders) + 1, name)
            sides[side].add(orders[name])
            counts["new"] += 1
        bid, ask = sides[Side.BUY].best(), sides[Side.SELL].best()
        if bid is not None and ask is not None:
            spreads.append(ask - bid)
    assert counts["trade"] == tape.trades
    visible = sum(counts.values())
    shares = [counts[kind] / visible for kind in ("new", "reduce", "cancel", "trade")]
    placed = float((np.array(behind) <= 0).mean())
    return FlowStatistics(
        *shares, *_sizes(np.array(sizes)), placed, float(np.mean(buys)), _quartiles(np.array(spreads))
    )


def _take(sides: dict[Side, BookSide], orders: dict[str, Order], side: Side, price: int, quantity: int) -> int:
    """Fill a taker completely; return the number of trades. Takers of a tape never exceed the book."""
    book, trades = sides[_other(side)], 0
    while quantity:
        best = book.best()
        assert best is not None
        assert best in book.crossed_by(price)
        maker = book.queue(best)[0]
        filled = min(quantity, maker.leaves)
        quantity -= filled
        trades += 1
        book.fill(maker, filled)
        if not maker.leaves:
            del orders[maker.client_order_id]
    return trades


def _other(side: Side) -> Side:
    return Side.SELL if side == Side.BUY else Side.BUY


def _sizes(sizes: NDArray[np.int64]) -> tuple[float, float]:
    return float((sizes % 100 == 0).mean()), float((sizes == 100).mean())


def _quartiles(values: NDArray[np.int64]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)
