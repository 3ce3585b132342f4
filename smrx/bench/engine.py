"""How many commands a second the engine applies on one core: no sockets, no consensus.

The commands are made before the clock starts, by letting an engine apply them once while the tape is written, so that
cancels name orders that are open and the book stays at a few thousand orders. Called by the command line.
"""

import platform
import statistics
import time
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from smrx.engine import Engine, compiled_before
from smrx.engine.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.engine.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[Any]

TAPES: Final = {"mixed": "60 % adds, 30 % cancels, 10 % orders that take"}
VENUE: Final = 1_000_000
INSTRUMENT: Final = 1
MAKERS: Final = 32
TAKERS: Final = 8
ACCOUNTS: Final = MAKERS + TAKERS
MIDDLE_TICKS: Final = 10_000
#: Adds lie within so many ticks of the middle, most of them near it.
REACH_TICKS: Final = 200
OPEN_ORDERS: Final = 4_000
MAX_ADD_LOTS: Final = 10
FUNDS: Final = 1 << 56
PIECE: Final = 1_000
SINGLES: Final = 2_000


def market() -> Commands:
    """The commands that make assets, an instrument, accounts with money, and a session for each account."""
    rows = np.zeros(4 + 4 * ACCOUNTS, COMMAND)
    rows["session_id"] = VENUE
    rows[0]["kind"] = CommandKind.OPEN_SESSION
    for row, symbol in ((rows[1], "BASE"), (rows[2], "QUOTE")):
        row["kind"] = CommandKind.ADD_ASSET
        row["client_order_id"] = pack_symbol(symbol)
    rows[1]["instrument"], rows[2]["instrument"] = 1, 2
    listed = rows[3:4].view(INSTRUMENT_COMMAND)
    listed["kind"] = CommandKind.ADD_INSTRUMENT
    listed["instrument"] = INSTRUMENT
    listed["symbol"] = pack_symbol("BENCH")
    listed["base_asset"], listed["quote_asset"] = 1, 2
    listed["lot_units"] = listed["scale_units"] = 1
    listed["max_price_ticks"] = listed["max_quantity_lots"] = 1 << 30
    accounts = np.arange(1, ACCOUNTS + 1)
    opened, base, quote, sessions = (rows[4 + ACCOUNTS * part :][:ACCOUNTS] for part in range(4))
    opened["kind"] = CommandKind.OPEN_ACCOUNT
    for asset, deposits in ((1, base), (2, quote)):
        deposits["kind"] = CommandKind.DEPOSIT
        deposits["instrument"] = asset
        deposits["order_id"] = asset * VENUE + accounts
        deposits["quantity_lots"] = FUNDS
    sessions["kind"] = CommandKind.OPEN_SESSION
    sessions["session_id"] = accounts
    for part in (opened, base, quote, sessions):
        part["account"] = accounts
    requests = rows["kind"] != CommandKind.OPEN_SESSION
    rows["request_id"][requests] = np.arange(1, np.count_nonzero(requests) + 1)
    return rows


class Writer:
    """Writes a tape, a piece at a time, against an engine that shows which orders are open."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.engine = Engine()
        self.last_request = np.zeros(ACCOUNTS + 1, dtype=np.uint64)

    def piece(self, count: int, *, adds_only: bool = False) -> Commands:
        """The next commands, already applied to the writer's engine."""
        rows = np.zeros(count, COMMAND)
        draw = self.random.random(count)
        is_open = self.engine.inspect.orders()
        cancels = np.flatnonzero((draw >= 0.6) & (draw < 0.9))[: len(is_open)]
        takes = np.flatnonzero(draw >= 0.9)
        if adds_only:
            cancels = takes = takes[:0]
        self.adds(rows)
        self.cancels(rows, cancels, is_open)
        self.takes(rows, takes, len(is_open))
        self.number(rows)
        # A client names its orders by a number of its own, most simply that of the request.
        placed = rows["kind"] == CommandKind.PLACE
        rows["client_order_id"][placed] = rows["request_id"][placed]
        self.engine.apply(rows, 1)
        return rows

    def adds(self, rows: Commands) -> None:
        """Limit orders on both sides of the middle."""
        count = len(rows)
        away = 1 + np.minimum(self.random.geometric(0.03, count), REACH_TICKS)
        buys = self.random.random(count) < 0.5
        rows["kind"] = CommandKind.PLACE
        rows["side"] = np.where(buys, Side.BUY, Side.SELL)
        rows["order_type"] = OrderType.LIMIT
        rows["tif"] = TimeInForce.GTC
        rows["stp"] = Stp.CANCEL_NEWEST
        rows["account"] = self.random.integers(1, MAKERS + 1, count)
        rows["instrument"] = INSTRUMENT
        rows["price_ticks"] = MIDDLE_TICKS + np.where(buys, -away, away)
        rows["quantity_lots"] = self.random.integers(1, MAX_ADD_LOTS + 1, count)

    def cancels(self, rows: Commands, places: NDArray[Any], is_open: Commands) -> None:
        """Cancels by order id, of orders that were open when the piece began: some are filled meanwhile."""
        chosen = is_open[self.random.choice(len(is_open), len(places), replace=False)] if len(places) else is_open[:0]
        rows[places] = np.zeros(1, COMMAND)
        rows["kind"][places] = CommandKind.CANCEL
        rows["account"][places] = chosen["account"]
        rows["order_id"][places] = chosen["order_id"]

    def takes(self, rows: Commands, places: NDArray[Any], open_orders: int) -> None:
        """Orders that take, of a size that brings the book back to OPEN_ORDERS."""
        makers = 3 * open_orders / OPEN_ORDERS
        most = max(1, round(2 * makers * (MAX_ADD_LOTS + 1) / 2))
        buys = rows["side"][places] == Side.BUY
        rows["tif"][places] = TimeInForce.IOC
        rows["account"][places] = self.random.integers(MAKERS + 1, ACCOUNTS + 1, len(places))
        rows["price_ticks"][places] = np.where(buys, MIDDLE_TICKS + 2 * REACH_TICKS, MIDDLE_TICKS - 2 * REACH_TICKS)
        rows["quantity_lots"][places] = self.random.integers(1, most + 1, len(places))

    def number(self, rows: Commands) -> None:
        """Each account's own session, and its next request ids."""
        rows["session_id"] = rows["account"]
        order = np.argsort(rows["account"], kind="stable")
        accounts = rows["account"][order]
        first = np.searchsorted(accounts, accounts)
        rows["request_id"][order] = self.last_request[accounts] + (np.arange(len(rows)) - first + 1).astype(np.uint64)
        self.last_request += np.bincount(accounts, minlength=ACCOUNTS + 1).astype(np.uint64)


def write_tape(commands: int, seed: int) -> tuple[Commands, Commands]:
    """What prepares the market and fills its book, and the commands to measure."""
    writer = Writer(seed)
    prepared = market()
    writer.engine.apply(prepared, 1)
    filling = writer.piece(OPEN_ORDERS, adds_only=True)
    pieces = [writer.piece(min(PIECE, commands - at)) for at in range(0, commands, PIECE)]
    return np.concatenate([prepared, filling]), np.concatenate(pieces)


def single_latency_us(engine: Engine, commands: Commands) -> float:
    """The median time of a batch of one."""
    times = []
    for at in range(len(commands)):
        begin = time.perf_counter_ns()
        engine.apply(commands[at : at + 1], 1)
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1_000


def run(commands: int = 2_000_000, tape: str = "mixed", seed: int = 1, batch: int = 1_000) -> dict[str, Any]:
    """Measure once; see the module's docstring."""
    if tape not in TAPES:
        raise ValueError(f"tape: expected one of {', '.join(TAPES)}, found {tape!r}")
    if commands < 1 or batch < 1:
        raise ValueError(f"commands and batch: expected 1 or more, found {commands} and {batch}")
    was_compiled = compiled_before()
    before, measured = write_tape(commands + SINGLES, seed)
    engine = Engine()
    engine.apply(before, 1)
    events = -engine.event_sequence
    trades = engine.trade_count
    begin = time.perf_counter()
    for at in range(0, commands, batch):
        engine.apply(measured[at : min(at + batch, commands)], 1)
    seconds = time.perf_counter() - begin
    state_hash = engine.state_hash
    events += engine.event_sequence
    trades = engine.trade_count - trades
    return {
        "commands": commands,
        "seconds": round(seconds, 6),
        "commands_per_second": round(commands / seconds),
        "ns_per_command": round(seconds / commands * 1e9, 1),
        "state_hash": f"{state_hash:016x}",
        "conditions": {
            "machine": f"{platform.machine()} {platform.system()}",
            "python": platform.python_version(),
            "numba": numba.__version__,
            "numpy": np.__version__,
            "tape": f"{tape}: {TAPES[tape]}",
            "seed": seed,
            "batch": batch,
            "cores": 1,
            "hash": "on",
            "ledger": "on",
            "events": "on",
            "events_per_command": round(events / commands, 3),
            "trades": trades,
            "open_orders": len(engine.inspect.orders()),
            "compiled_before": was_compiled,
            "batch_of_1_us": round(single_latency_us(engine, measured[commands:]), 2),
        },
    }
