"""Tapes for benchmarks: what fills a book, and the commands to measure on it.

A tape is written by letting an engine apply it piece by piece, so that cancels name orders that are open and the book
stays as large as it was. All of that happens before any clock starts. Called by the benchmarks of this package.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine import Engine
from smrx.tape import convert, lobster, tape_file
from smrx.tape.engine_session import LocalSession
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[Any]

VENUE: Final = 1_000_000
INSTRUMENT: Final = 1
MAKERS: Final = 32
TAKERS: Final = 8
ACCOUNTS: Final = MAKERS + TAKERS
MAX_ADD_LOTS: Final = 10
FUNDS: Final = 1 << 56


class Shape(NamedTuple):
    """What a tape is made of. Shares of cancels and takes; the rest are adds."""

    cancels: float
    takes: float
    #: Makers that a take meets, on average: as many as adds outnumber cancels.
    makers: float
    open_orders: int
    middle_ticks: int
    #: Adds lie within so many ticks of the middle: near it most of them, or everywhere alike.
    reach_ticks: int
    near: bool = True
    #: Commands written at a time, with cancels of orders that were open when the piece began.
    piece: int = 1_000

    @property
    def description(self) -> str:
        adds = 1 - self.cancels - self.takes
        return (
            f"{adds:.0%} adds, {self.cancels:.0%} cancels, {self.takes:.0%} orders that take {self.makers:.0f} makers "
            f"each, {self.open_orders:,} open orders"
        )


SHAPES: Final = {
    "mixed": Shape(cancels=0.3, takes=0.1, makers=3, open_orders=4_000, middle_ticks=10_000, reach_ticks=200),
    "cancel-heavy": Shape(cancels=0.47, takes=0.02, makers=2, open_orders=4_000, middle_ticks=10_000, reach_ticks=200),
    "deep-book": Shape(
        cancels=0.3, takes=0.1, makers=3, open_orders=200_000, middle_ticks=1_000_000, reach_ticks=100_000, near=False,
        piece=20_000,
    ),
    "sweep-heavy": Shape(cancels=0.06, takes=0.04, makers=21, open_orders=4_000, middle_ticks=10_000, reach_ticks=200),
}  # fmt: skip
REAL: Final = "real"
TAPES: Final = (*SHAPES, REAL)


class Flow(NamedTuple):
    """A tape, numbered and ready for an empty engine."""

    description: str
    before: Commands
    measured: Commands


def market(accounts: int = ACCOUNTS, instruments: int = 1) -> Commands:
    """The commands that make assets, instruments, accounts with money, and a session for each account."""
    rows = np.zeros(3 + instruments + 4 * accounts, COMMAND)
    # Sessions of accounts are named like these: the venue's is another one, however many there are.
    venue = max(VENUE, accounts + 1)
    rows["session_id"] = venue
    rows[0]["kind"] = CommandKind.OPEN_SESSION
    for row, symbol in ((rows[1], "BASE"), (rows[2], "QUOTE")):
        row["kind"] = CommandKind.ADD_ASSET
        row["client_order_id"] = pack_symbol(symbol)
    rows[1]["instrument"], rows[2]["instrument"] = 1, 2
    listed = rows[3 : 3 + instruments].view(INSTRUMENT_COMMAND)
    listed["kind"] = CommandKind.ADD_INSTRUMENT
    listed["instrument"] = np.arange(INSTRUMENT, INSTRUMENT + instruments)
    listed["symbol"] = [pack_symbol(f"B{at}" if at else "BENCH") for at in range(instruments)]
    listed["base_asset"], listed["quote_asset"] = 1, 2
    listed["lot_units"] = listed["scale_units"] = 1
    listed["max_price_ticks"] = listed["max_quantity_lots"] = 1 << 30
    names = np.arange(1, accounts + 1)
    opened, base, quote, sessions = (rows[3 + instruments + accounts * part :][:accounts] for part in range(4))
    opened["kind"] = CommandKind.OPEN_ACCOUNT
    # The whole supply of an asset stays below 2^62, however many accounts share it.
    funds = min(FUNDS, ((1 << 62) - 1) // accounts)
    for asset, deposits in ((1, base), (2, quote)):
        deposits["kind"] = CommandKind.DEPOSIT
        deposits["instrument"] = asset
        deposits["order_id"] = asset * venue + names
        deposits["quantity_lots"] = funds
    sessions["kind"] = CommandKind.OPEN_SESSION
    sessions["session_id"] = names
    for part in (opened, base, quote, sessions):
        part["account"] = names
    requests = rows["kind"] != CommandKind.OPEN_SESSION
    rows["request_id"][requests] = np.arange(1, np.count_nonzero(requests) + 1)
    return rows


class Numbering:
    """Gives commands the session of their account, and its next request ids."""

    def __init__(self, accounts: int = ACCOUNTS) -> None:
        self.last_request = np.zeros(accounts + 1, dtype=np.uint64)

    def number(self, rows: Commands) -> None:
        rows["session_id"] = rows["account"]
        order = np.argsort(rows["account"], kind="stable")
        accounts = rows["account"][order]
        first = np.searchsorted(accounts, accounts)
        rows["request_id"][order] = self.last_request[accounts] + (np.arange(len(rows)) - first + 1).astype(np.uint64)
        self.last_request += np.bincount(accounts, minlength=len(self.last_request)).astype(np.uint64)


class Writer:
    """Writes a tape, a piece at a time, against an engine that shows which orders are open."""

    def __init__(self, seed: int, shape: Shape = SHAPES["mixed"]) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = shape
        self.engine = Engine()
        self.numbering = Numbering()

    def piece(self, count: int, *, adds_only: bool = False) -> Commands:
        """The next commands, already applied to the writer's engine."""
        shape = self.shape
        rows = np.zeros(count, COMMAND)
        draw = self.random.random(count)
        is_open = self.engine.inspect.orders()
        first_take = 1 - shape.takes
        cancels = np.flatnonzero((draw >= first_take - shape.cancels) & (draw < first_take))[: len(is_open)]
        takes = np.flatnonzero(draw >= first_take)
        if adds_only:
            cancels = takes = takes[:0]
        self.adds(rows)
        self.cancels(rows, cancels, is_open)
        self.takes(rows, takes, len(is_open))
        self.numbering.number(rows)
        # A client names its orders by a number of its own, most simply that of the request.
        placed = rows["kind"] == CommandKind.PLACE
        rows["client_order_id"][placed] = rows["request_id"][placed]
        self.engine.apply(rows, 1)
        return rows

    def adds(self, rows: Commands) -> None:
        """Limit orders on both sides of the middle."""
        count = len(rows)
        reach = self.shape.reach_ticks
        if self.shape.near:
            away = 1 + np.minimum(self.random.geometric(0.03, count), reach)
        else:
            away = self.random.integers(1, reach + 1, count)
        buys = self.random.random(count) < 0.5
        rows["kind"] = CommandKind.PLACE
        rows["side"] = np.where(buys, Side.BUY, Side.SELL)
        rows["order_type"] = OrderType.LIMIT
        rows["tif"] = TimeInForce.GTC
        rows["stp"] = Stp.CANCEL_NEWEST
        rows["account"] = self.random.integers(1, MAKERS + 1, count)
        rows["instrument"] = INSTRUMENT
        rows["price_ticks"] = self.shape.middle_ticks + np.where(buys, -away, away)
        rows["quantity_lots"] = self.random.integers(1, MAX_ADD_LOTS + 1, count)

    def cancels(self, rows: Commands, places: NDArray[Any], is_open: Commands) -> None:
        """Cancels by order id, of orders that were open when the piece began: some are filled meanwhile."""
        chosen = is_open[self.random.choice(len(is_open), len(places), replace=False)] if len(places) else is_open[:0]
        rows[places] = np.zeros(1, COMMAND)
        rows["kind"][places] = CommandKind.CANCEL
        rows["account"][places] = chosen["account"]
        rows["order_id"][places] = chosen["order_id"]

    def takes(self, rows: Commands, places: NDArray[Any], open_orders: int) -> None:
        """Orders that take, of a size that brings the book back to the shape's open orders."""
        shape = self.shape
        makers = shape.makers * open_orders / shape.open_orders
        most = max(1, round(2 * makers * (MAX_ADD_LOTS + 1) / 2))
        buys = rows["side"][places] == Side.BUY
        limit = 2 * shape.reach_ticks
        rows["tif"][places] = TimeInForce.IOC
        rows["account"][places] = self.random.integers(MAKERS + 1, ACCOUNTS + 1, len(places))
        rows["price_ticks"][places] = np.where(buys, shape.middle_ticks + limit, shape.middle_ticks - limit)
        rows["quantity_lots"][places] = self.random.integers(1, most + 1, len(places))


def generated(name: str, commands: int, seed: int) -> Flow:
    """A tape of one of the SHAPES."""
    shape = SHAPES[name]
    writer = Writer(seed, shape)
    prepared = market()
    writer.engine.apply(prepared, 1)
    filling = writer.piece(shape.open_orders, adds_only=True)
    pieces = [writer.piece(min(shape.piece, commands - at)) for at in range(0, commands, shape.piece)]
    return Flow(shape.description, np.concatenate([prepared, filling]), np.concatenate(pieces))


def recorded(paths: Sequence[str], commands: int | None = None) -> Flow:
    """A tape that was recorded: a LOBSTER message file with or without its orderbook file, or a tape file of smrx.

    The market's setup is what comes before. Raises TapeError.
    """
    if len(paths) == 1 and _is_smrx(paths[0]):
        tape = tape_file.read(paths[0])
    else:
        tape = convert.convert(lobster.read(paths[0], paths[1] if len(paths) > 1 else None)).tape()
    tape = tape.first(commands)
    session = LocalSession(Engine())
    opening = session.numbered(tape.setup)
    # The session is opened by LocalSession itself, in its first command.
    first = np.zeros(1, COMMAND)
    first["kind"], first["session_id"] = CommandKind.OPEN_SESSION, opening["session_id"][0]
    return Flow(f"recorded order flow, {tape.name}", np.concatenate([first, opening]), session.numbered(tape.commands))


def _is_smrx(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(tape_file.MAGIC)) == tape_file.MAGIC
    except OSError:
        return False


def flow(name: str, commands: int, seed: int, paths: Sequence[str] = ()) -> Flow:
    """The tape of a name; `paths` are the files of the real one. ValueError in one sentence for what is none."""
    if name not in TAPES:
        raise ValueError(f"tape: expected one of {', '.join(TAPES)}, found {name!r}")
    if (name == REAL) != bool(paths):
        found = f"{len(paths)} with tape {name}"
        raise ValueError(f"files: expected one or two with --tape real and none otherwise, found {found}")
    if len(paths) > 2:
        raise ValueError(f"files: expected messages and perhaps their orderbook, found {len(paths)} files")
    return recorded(paths, commands) if name == REAL else generated(name, commands, seed)
