"""Make tapes for benchmarks: commands that fill a book, and the commands to measure on it.

A generated tape is applied to an engine piece by piece while it is made, so that cancels name open orders and the book
keeps its size. All of that happens before any clock starts. Called by the benchmarks of this package.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.bench import public_tape
from smrx.engine import Engine
from smrx.tape import convert, lobster, tape_file
from smrx.tape.engine_session import EngineSession
from smrx.wire.client_order_ids import pack_numbers
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import ASSET_COMMAND, COMMAND, DETAILS, INSTRUMENT_DETAILS, TRANSFER_COMMAND, pack_symbol

Commands = NDArray[Any]

VENUE: Final = 1_000_000
INSTRUMENT: Final = 1
MAKERS: Final = 32
TAKERS: Final = 8
ACCOUNTS: Final = MAKERS + TAKERS
MAX_ADD_LOTS: Final = 10
FUNDS: Final = 1 << 56
_MAX_DETAILS: Final = (1 << 16) - 1


class Shape(NamedTuple):
    """The composition of a tape: the shares of cancels and takers; the remaining commands are adds."""

    cancels: float
    takes: float
    #: Makers that a taker fills on average, so that the book keeps its size.
    makers: float
    open_orders: int
    middle_ticks: int
    #: Largest distance of an add from the middle; adds are near the middle if `near`, else evenly distributed.
    reach_ticks: int
    near: bool = True
    #: Commands made at a time; cancels name orders that were open when the piece began.
    piece: int = 1_000

    @property
    def description(self) -> str:
        adds = 1 - self.cancels - self.takes
        return (
            f"{adds:.0%} adds, {self.cancels:.0%} cancels, {self.takes:.0%} takers that fill {self.makers:.0f} makers "
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
PUBLIC: Final = "public"
TAPES: Final = (*SHAPES, REAL, PUBLIC)


class Flow(NamedTuple):
    """A tape for an empty engine, with session and request ids: the commands before the measured ones, and those."""

    description: str
    before: CommandList
    measured: CommandList


def market(accounts: int = ACCOUNTS, instruments: int = 1) -> CommandList:
    """Return the commands that list assets and instruments, open and fund accounts, and open a session for each."""
    rows = np.zeros(3 + instruments + 4 * accounts, COMMAND)
    # The session of an account has the account's number; the venue's session must have another.
    venue = max(VENUE, accounts + 1)
    rows["session_id"] = venue
    rows[0]["kind"] = CommandKind.OPEN_SESSION
    assets = rows[1:3].view(ASSET_COMMAND)
    assets["kind"] = CommandKind.ADD_ASSET
    assets["asset"], assets["symbol"] = [1, 2], [pack_symbol("BASE"), pack_symbol("QUOTE")]
    adds = rows[3 : 3 + instruments]
    adds["kind"] = CommandKind.ADD_INSTRUMENT
    adds["instrument"] = np.arange(INSTRUMENT, INSTRUMENT + instruments)
    # A list has at most 65,535 details; of more instruments, several have the same.
    listed = np.zeros(min(instruments, _MAX_DETAILS), INSTRUMENT_DETAILS)
    adds["details"] = 1 + np.arange(instruments) % len(listed)
    listed["symbol"] = [pack_symbol(f"B{at}" if at else "BENCH") for at in range(len(listed))]
    listed["base_asset"], listed["quote_asset"] = 1, 2
    listed["lot_units"] = listed["scale_units"] = 1
    listed["max_price_ticks"] = listed["max_quantity_lots"] = 1 << 30
    names = np.arange(1, accounts + 1)
    opened, base, quote, sessions = (rows[3 + instruments + accounts * part :][:accounts] for part in range(4))
    opened["kind"] = CommandKind.OPEN_ACCOUNT
    # The supply of an asset must stay below 2^62.
    funds = min(FUNDS, ((1 << 62) - 1) // accounts)
    for asset, part in ((1, base), (2, quote)):
        deposits = part.view(TRANSFER_COMMAND)
        deposits["kind"] = CommandKind.DEPOSIT
        deposits["asset"] = asset
        deposits["transfer_id"] = asset * venue + names
        deposits["amount"] = funds
    sessions["kind"] = CommandKind.OPEN_SESSION
    sessions["session_id"] = names
    for part in (opened, base, quote, sessions):
        part["account"] = names
    requests = rows["kind"] != CommandKind.OPEN_SESSION
    rows["request_id"][requests] = np.arange(1, np.count_nonzero(requests) + 1)
    return CommandList(rows, listed.view(DETAILS))


class Numbering:
    """Gives commands the session of their account, and the session's next request ids."""

    def __init__(self, accounts: int = ACCOUNTS) -> None:
        self.last_request = np.zeros(accounts + 1, dtype=np.uint64)

    def number(self, rows: Commands) -> None:
        rows["session_id"] = rows["account"]
        order = np.argsort(rows["account"], kind="stable")
        accounts = rows["account"][order]
        first = np.searchsorted(accounts, accounts)
        rows["request_id"][order] = self.last_request[accounts] + (np.arange(len(rows)) - first + 1).astype(np.uint64)
        self.last_request += np.bincount(accounts, minlength=len(self.last_request)).astype(np.uint64)


class TapeMaker:
    """Makes a tape piece by piece, with an engine that applies it and shows which orders are open."""

    def __init__(self, seed: int, shape: Shape = SHAPES["mixed"]) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = shape
        self.engine = Engine()
        self.numbering = Numbering()

    def piece(self, count: int, *, adds_only: bool = False) -> Commands:
        """Return the next commands, already applied to this object's engine."""
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
        # Client order ids must be unique per account; request ids are.
        placed = rows["kind"] == CommandKind.PLACE
        rows["client_order_id"][placed] = pack_numbers(rows["request_id"][placed])
        self.engine.apply(rows, 1)
        return rows

    def adds(self, rows: Commands) -> None:
        """Fill rows with limit orders on both sides of the middle."""
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
        """Turn rows into cancels by order id. Some of the orders are filled before the cancel and are rejected."""
        chosen = is_open[self.random.choice(len(is_open), len(places), replace=False)] if len(places) else is_open[:0]
        rows[places] = np.zeros(1, COMMAND)
        rows["kind"][places] = CommandKind.CANCEL
        rows["account"][places] = chosen["account"]
        rows["order_id"][places] = chosen["order_id"]

    def takes(self, rows: Commands, places: NDArray[Any], open_orders: int) -> None:
        """Turn rows into takers, sized to bring the book back to the shape's number of open orders."""
        shape = self.shape
        makers = shape.makers * open_orders / shape.open_orders
        max_lots = max(1, round(2 * makers * (MAX_ADD_LOTS + 1) / 2))
        buys = rows["side"][places] == Side.BUY
        limit = 2 * shape.reach_ticks
        rows["tif"][places] = TimeInForce.IOC
        rows["account"][places] = self.random.integers(MAKERS + 1, ACCOUNTS + 1, len(places))
        rows["price_ticks"][places] = np.where(buys, shape.middle_ticks + limit, shape.middle_ticks - limit)
        rows["quantity_lots"][places] = self.random.integers(1, max_lots + 1, len(places))


def generated(name: str, commands: int, seed: int) -> Flow:
    """Return a tape of one of the SHAPES."""
    shape = SHAPES[name]
    maker = TapeMaker(seed, shape)
    setup = market()
    maker.engine.apply(setup.records, 1, setup.details)
    fill = maker.piece(shape.open_orders, adds_only=True)
    pieces = [maker.piece(min(shape.piece, commands - at)) for at in range(0, commands, shape.piece)]
    return Flow(shape.description, join([setup, CommandList(fill)]), CommandList(np.concatenate(pieces)))


def read_tape(paths: Sequence[str]) -> tape_file.Tape:
    """Return the tape in a LOBSTER message file with or without its orderbook file, or in a tape file of smrx.

    Raises TapeError.
    """
    if len(paths) == 1 and _is_smrx_tape(paths[0]):
        return tape_file.read(paths[0])
    return convert.convert(lobster.read(paths[0], paths[1] if len(paths) > 1 else None)).tape()


def recorded(paths: Sequence[str], commands: int | None = None) -> Flow:
    """Return a recorded tape: a LOBSTER message file with or without its orderbook file, or a tape file of smrx.

    The setup of its market comes before the measured commands. Raises TapeError.
    """
    tape = read_tape(paths).first(commands)
    session = EngineSession(Engine())
    setup = tape.setup._replace(records=session.numbered(tape.setup.records))
    # EngineSession opened its session itself; here the command that does so is a part of the setup.
    first = np.zeros(1, COMMAND)
    first["kind"], first["session_id"] = CommandKind.OPEN_SESSION, setup.records["session_id"][0]
    measured = tape.flow._replace(records=session.numbered(tape.commands))
    return Flow(f"recorded order flow, {tape.name}", join([CommandList(first), setup]), measured)


def public(path: str, commands: int | None = None) -> Flow:
    """Return a workload of the public benchmark (public_tape.py), or its first commands. Raises TapeError."""
    messages = public_tape.read_messages(path)[:commands]
    before = market()
    rows = public_tape.commands_of(messages, ACCOUNTS, INSTRUMENT)
    Numbering().number(rows)
    public_tape.add_filled_lots(messages, rows, before)
    return Flow(f"public benchmark, {Path(path).stem}", before, CommandList(rows))


def public_reports(path: str) -> str:
    """Return the hash of the reports of a whole workload, see public_tape.report_hash."""
    flow = public(path)
    return public_tape.report_hash(public_tape.read_messages(path), flow.measured.records, flow.before)


def _is_smrx_tape(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(tape_file.MAGIC)) == tape_file.MAGIC
    except OSError:
        return False


def flow(name: str, commands: int, seed: int, paths: Sequence[str] = ()) -> Flow:
    """Return the tape called `name`; `paths` are the files of the tapes "real" and "public".

    Raises ValueError and TapeError.
    """
    if name not in TAPES:
        raise ValueError(f"tape: expected one of {', '.join(TAPES)}, found {name!r}")
    if name == PUBLIC:
        if len(paths) != 1:
            raise ValueError(f"files: expected one with --tape public, found {len(paths)}")
        return public(paths[0], commands)
    if (name == REAL) != bool(paths):
        raise ValueError(
            f"files: expected one or two with --tape real and none otherwise, found {len(paths)} with --tape {name}"
        )
    if len(paths) > 2:
        raise ValueError(f"files: expected a message file and optionally its orderbook file, found {len(paths)} files")
    return recorded(paths, commands) if name == REAL else generated(name, commands, seed)
