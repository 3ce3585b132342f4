"""Make the commands that the load generator sends: a piece that each connection repeats, or a tape.

In a repeated piece each connection trades for an account of its own; when it begins the piece again, its orders get new
client order ids. Orders of one account may trade with each other (self-trade prevention is off), so the book stays
small with any number of connections. A tape is sent once, for the accounts that it names; all commands of one order go
over one connection. Pure.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.bench import bench_market
from smrx.bench.steady_flow import MIDDLE_TICKS, PIECE_NUMBERS, SteadyBlocks, piece_characters
from smrx.tape.tape_file import Tape
from smrx.wire.client_order_ids import pack_numbers
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, COMMAND_SIZE

Commands = NDArray[Any]

_SEED: Final = 11
_BLOCKS: Final = 50
_LAG_BLOCKS: Final = 1
_PAIRS: Final = 500
#: The supply of an asset stays below this.
_MAX_SUPPLY: Final = 1 << 62
_MAX_FUNDS: Final = 1 << 56

#: What the mixes are made of.
MIXES: Final = {
    "steady": "60% add, 30% cancel, 10% marketable",
    "cancels": "50% add, 50% cancel of that order",
    "takers": "50% add, 50% marketable that fills that order",
}


class LoadFlow(NamedTuple):
    """The commands of all connections, as eight words each, and how their client order ids change.

    The id of a command is `ids` + `own` * P(piece) + `earlier` * P(piece - 1), with P of `pieces`. Connection c sends
    the `length[c]` commands from `start[c]` on, `repeats[c]` times.
    """

    words: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    own: NDArray[np.uint64]
    earlier: NDArray[np.uint64]
    pieces: NDArray[np.uint64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    repeats: NDArray[np.int64]


#: A connection repeats its piece until the run ends.
FOREVER: Final = 1 << 40


class Load(NamedTuple):
    """What the connections send."""

    flow: LoadFlow
    #: The commands that prepare the exchange, sent by the venue.
    market: CommandList
    #: What each connection sends for its account before the flow.
    before: Commands
    #: The account of each connection; 0 if the commands name accounts themselves.
    accounts: NDArray[np.uint32]
    description: str


def of_mix(mix: str, connections: int) -> Load:
    """Return the flow of one of the MIXES, the same for every connection."""
    if mix == "steady":
        blocks = SteadyBlocks(_BLOCKS, _SEED, _LAG_BLOCKS)
        rows, before = blocks.piece(0), blocks.before()
        ids, own, earlier = blocks.ids, blocks.own, blocks.earlier
    else:
        rows, before = _pairs(are_cancelled=mix == "cancels"), np.zeros(0, COMMAND)
        ids = rows["client_order_id"].copy()
        own = (ids > 0).astype(np.uint64)
        earlier = np.zeros_like(own)
    for commands in (rows, before):
        commands["stp"][commands["kind"] == CommandKind.PLACE] = Stp.NONE
    flow = LoadFlow(
        words=_words(rows),
        ids=ids,
        own=own,
        earlier=earlier,
        pieces=np.array([piece_characters(number) for number in range(PIECE_NUMBERS)], np.uint64),
        start=np.zeros(connections, np.int64),
        length=np.full(connections, len(rows), np.int64),
        repeats=np.full(connections, FOREVER // len(rows), np.int64),
    )
    # A connection of an earlier run may have left orders with the same ids.
    cancel = np.zeros(1, COMMAND)
    cancel["kind"] = CommandKind.MASS_CANCEL
    before = np.concatenate([cancel, before])
    market = bench_market.market_commands(connections, min(_MAX_FUNDS, (_MAX_SUPPLY - 1) // connections))
    return Load(flow, market, before, np.arange(1, connections + 1, dtype=np.uint32), MIXES[mix])


def of_tape(tape: Tape, connections: int) -> Load:
    """Return the commands of a tape, those of each order on one connection. Commands with details are left out."""
    rows = tape.commands[tape.commands["details"] == 0]
    # Commands without an id are those of takers: any connection may send them.
    _, order = np.unique(rows["client_order_id"], return_inverse=True)
    anonymous = rows["client_order_id"] == 0
    dealt_to = np.where(anonymous, np.arange(len(rows)), order) % connections
    rows = rows[np.argsort(dealt_to, kind="stable")]
    count = np.bincount(dealt_to, minlength=connections).astype(np.int64)
    unused = np.zeros(len(rows), np.uint64)
    flow = LoadFlow(
        words=_words(rows),
        ids=rows["client_order_id"].astype(np.uint64),
        own=unused,
        earlier=unused,
        pieces=np.zeros(1, np.uint64),
        start=np.cumsum(count) - count,
        length=np.maximum(count, 1),
        repeats=(count > 0).astype(np.int64),
    )
    left_out = len(tape.commands) - len(rows)
    description = f"{tape.name}, the commands of each order on one connection"
    if left_out:
        description += f", without {left_out:,} commands that have details"
    return Load(flow, tape.setup, np.zeros(0, COMMAND), np.zeros(connections, np.uint32), description)


def _words(rows: Commands) -> NDArray[np.uint64]:
    return np.frombuffer(rows.tobytes(), np.uint64).reshape(len(rows), COMMAND_SIZE // 8)


def _pairs(*, are_cancelled: bool) -> Commands:
    """Return pairs of an order and its cancel, or of an order and another that fills it."""
    rows = np.zeros((_PAIRS, 2), COMMAND)
    rows["kind"] = CommandKind.PLACE
    rows["side"][:, 0], rows["side"][:, 1] = Side.BUY, Side.SELL
    rows["order_type"], rows["tif"] = OrderType.LIMIT, TimeInForce.GTC
    rows["instrument"] = bench_market.INSTRUMENT
    rows["price_ticks"], rows["quantity_lots"] = MIDDLE_TICKS, 1
    numbers = np.frombuffer(pack_numbers(np.arange(_PAIRS, dtype=np.uint64)).tobytes(), np.uint32)[1::2]
    rows["client_order_id"][:, 0] = numbers
    if are_cancelled:
        rows[:, 1] = np.zeros(1, COMMAND)
        rows["kind"][:, 1] = CommandKind.CANCEL
        rows["client_order_id"][:, 1] = numbers
    else:
        rows["tif"][:, 1] = TimeInForce.IOC
    return rows.reshape(-1)
