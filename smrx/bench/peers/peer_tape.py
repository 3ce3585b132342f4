"""Make one tape for all order books, as commands of the engine and as calls that every peer supports.

It has limit orders of one instrument and cancels of open orders only. Orders are numbered from 1 as they are placed. A
taker has exactly the lots that were filled when the tape was made, so nothing remains of it and no peer needs
"immediate or cancel".
"""

from typing import NamedTuple

import numpy as np

from smrx.bench import tapes
from smrx.bench.peers.peer_calls import CALL, Calls
from smrx.engine import Engine
from smrx.wire.codes import CommandKind, OutcomeStatus, Side
from smrx.wire.command_list import CommandList


class PeerTape(NamedTuple):
    """The calls, the same as commands of the engine, and how many of both only fill the book."""

    calls: Calls
    setup: CommandList
    commands: tapes.Commands
    filling: int
    description: str


def make_peer_tape(tape: str, commands: int, seed: int) -> PeerTape:
    """Return the part of a generated tape that every peer supports: accepted commands, takers with filled lots."""
    flow = tapes.generated(tape, commands, seed)
    filling = tapes.SHAPES[tape].open_orders
    before = flow.before.records
    setup = flow.before._replace(records=before[: len(before) - filling])
    engine = Engine()
    engine.apply(setup.records, 1, setup.details)
    rows = np.concatenate([before[len(before) - filling :], flow.measured.records])
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
    # An order id is the sequence of the command that placed it, so removing refused commands changes the ids.
    sequences = _sequence_after(setup) + 1 + np.flatnonzero(placed)
    rows["order_id"][~placed] = sequences[calls["number"][~placed] - 1]
    tapes.Numbering().number(rows)
    return PeerTape(calls, setup, rows, filling, flow.description)


def _sequence_after(setup: CommandList) -> int:
    """Return the sequence of the last command of a setup."""
    engine = Engine()
    engine.apply(setup.records, 1, setup.details)
    return engine.sequence
