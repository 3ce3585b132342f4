"""One tape for all order books: as commands of our engine, and as calls that every peer understands.

Only what every order book knows is in it: limit orders of one instrument, and cancels of orders that are open. Orders
are numbered from 1 as they are placed. An order that takes has the lots that it found when the tape was written, so
nothing is ever left of it and no peer needs to know "immediate or cancel".
"""

from typing import NamedTuple

import numpy as np

from smrx.bench import tapes
from smrx.bench.peers.calls import CALL, Calls
from smrx.engine import Engine
from smrx.wire.codes import CommandKind, OutcomeStatus, Side


class Script(NamedTuple):
    """The calls, the same as commands of our engine, and how many of both only fill the book."""

    calls: Calls
    setup: tapes.Commands
    commands: tapes.Commands
    filling: int
    description: str


def script(tape: str, commands: int, seed: int) -> Script:
    """The part of a generated tape that every peer understands: what was accepted, takes with the lots they found."""
    flow = tapes.generated(tape, commands, seed)
    filling = tapes.SHAPES[tape].open_orders
    setup = flow.before[: len(flow.before) - filling]
    engine = Engine()
    engine.apply(setup, 1)
    rows = np.concatenate([flow.before[len(setup) :], flow.measured])
    outcomes = engine.apply(rows, 1).outcomes
    placed = rows["kind"] == CommandKind.PLACE
    lots = np.where(placed, outcomes["cum_lots"] + outcomes["leaves_lots"], 1)
    kept = (outcomes["status"] == OutcomeStatus.ACCEPTED) & (lots > 0)
    rows, outcomes, placed, lots = rows[kept], outcomes[kept], placed[kept], lots[kept]

    calls = np.zeros(len(rows), CALL)
    calls["cancel"] = ~placed
    calls["buy"] = rows["side"] == Side.BUY
    calls["price"] = rows["price_ticks"]
    calls["lots"][placed] = lots[placed]
    # order_id of the outcome is that of the order placed or cancelled; ids rise as orders are placed.
    ids = outcomes["order_id"][placed]
    calls["number"] = np.searchsorted(ids, outcomes["order_id"]) + 1

    rows["quantity_lots"][placed] = lots[placed]
    # Without the commands that were refused, orders get other ids: the sequence of the command that places them.
    sequences = engine_sequence(setup) + 1 + np.flatnonzero(placed)
    rows["order_id"][~placed] = sequences[calls["number"][~placed] - 1]
    tapes.Numbering().number(rows)
    return Script(calls, setup, rows, filling, flow.description)


def engine_sequence(setup: tapes.Commands) -> int:
    """The sequence of the last command of a setup."""
    engine = Engine()
    engine.apply(setup, 1)
    return engine.sequence
