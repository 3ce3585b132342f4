"""Convert a LOBSTER recording to commands, and list the executions that the engine must reproduce.

A new order becomes a PLACE, a partial cancellation a REPLACE with a smaller quantity, a deletion a CANCEL, and an
execution an IOC order of the other side. The recording has only the best levels. So the book starts with anonymous
orders for the first recorded row; after each message the levels beyond the recorded number are evicted, and levels that
come into view are adopted from the recorded row as anonymous orders. Without an orderbook file this is not possible:
messages about unknown orders are skipped, and orders that must be gone (they would cross the book, or be hit before a
recorded execution) are cancelled as stale.

The result depends on the recording alone. A message that contradicts earlier ones is reported as a conflict.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.command_buffer import CommandBuffer
from smrx.tape.lobster import NO_LEVEL, Kind, Recording
from smrx.tape.tape_book import BookSide, Order
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import DEFAULT_MARKET_ID, TapeMarket, make_market
from smrx.wire.codes import Side
from smrx.wire.command_list import CommandList

#: The client order id of an order is its number in the recording: in decimal, or after this letter in base 36, so that
#: it has at most eight characters.
_BASE_36: Final = "X"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: The client order ids of anonymous orders are this letter and a number.
_ANONYMOUS: Final = "A"
#: The tick is a cent on US markets for prices from a dollar (Regulation NMS, rule 612); LOBSTER counts 1/100 cent.
_CENT: Final = 100
_OPPOSITE: Final = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


class Maker(IntEnum):
    """What is known about the resting order of an execution."""

    #: Its id is known and it is the oldest order of its level.
    KNOWN = 1
    #: Its id is not known: it is part of the anonymous quantity, which is the oldest of its level.
    ANONYMOUS = 2
    #: Its id is known, and only anonymous quantity of unknown age is ahead of it.
    UNDECIDABLE = 3
    #: A known older order is ahead of it: the recording violates time priority.
    EXCEPTION = 4
    #: It was never seen (only without an orderbook file); no command is sent.
    UNKNOWN = 5


class Execution(NamedTuple):
    """One recorded execution of a visible order."""

    row: int
    maker: Maker
    #: The recording's id of the order.
    tape_id: int
    price_ticks: int
    size: int
    #: Index of the IOC order that must cause it; -1 if none is sent (EXCEPTION, UNKNOWN).
    command: int
    #: Index of the command that placed the order that must be hit; -1 as above.
    maker_command: int


class Counts(msgspec.Struct):
    """Numbers of messages by their interpretation, and of levels and orders that were completed or removed."""

    messages: int = 0
    placed: int = 0
    reduced: int = 0
    cancelled: int = 0
    executions: int = 0
    #: Hidden executions, cross trades and halts, which do not change the visible book; and the first message, whose
    #: effect is in the initial book.
    skipped: int = 0
    #: Messages of each kind that does not change the visible book.
    hidden: int = 0
    cross_trades: int = 0
    halts: int = 0
    #: Messages about orders never seen; only without an orderbook file.
    unknown: int = 0
    adoptions: int = 0
    evictions: int = 0
    #: Orders cancelled because they must be gone; only without an orderbook file.
    stale: int = 0


class ReplayPlan(NamedTuple):
    """The commands of a recording, and what the engine must do with them."""

    name: str
    market: TapeMarket
    commands: CommandList
    #: The commands of row r are first[r] to first[r + 1]; those of row 0 make the initial book.
    first: NDArray[np.int64]
    #: Time of each message in nanoseconds after midnight, rounded down.
    times_ns: NDArray[np.int64]
    executions: list[Execution]
    counts: Counts
    #: (row, contradiction to earlier messages).
    conflicts: list[tuple[int, str]]
    #: Ticks and lots of every row (ask price, ask lots, bid price, bid lots, ...), 0 for a missing level; or None.
    books: NDArray[np.int64] | None
    #: Line of each message in its file, as in Recording.
    lines: NDArray[np.int64] | None = None

    def line(self, row: int) -> int:
        """Return the line in the message file, counted from 1."""
        return row + 1 if self.lines is None else int(self.lines[row])

    def tape(self) -> Tape:
        """Return the commands as a tape."""
        trades = sum(execution.command >= 0 for execution in self.executions)
        return Tape(self.name, self.market.setup(), self.commands, trades)

    @property
    def exceptions(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.maker == Maker.EXCEPTION]


class _Conflict(Exception):
    """A message contradicts earlier ones."""


def convert(recording: Recording, market_id: int = DEFAULT_MARKET_ID, symbol: str | None = None) -> ReplayPlan:
    """Return the plan of a recording; `symbol` replaces the ticker in the file name. Raises TapeError."""
    messages = recording.messages
    visible = messages["price"][messages["kind"] <= Kind.EXECUTION]
    tick_units = 1 if np.any(visible % _CENT) else _CENT
    market = make_market(symbol or recording.ticker, market_id, tick_units)
    books = None if recording.books is None else _in_ticks(recording.books, tick_units)
    return _Converter(market, books).run(recording)


def _in_ticks(books: NDArray[np.int64], tick_units: int) -> NDArray[np.int64]:
    found = books.copy()
    prices, sizes = found[:, 0::2], found[:, 1::2]
    none = np.abs(prices) >= NO_LEVEL
    # A level between ticks cannot exist in this market: -1 differs from every level of the engine, so it is reported.
    prices[:] = np.where(none, 0, np.where(prices % tick_units, -1, prices // tick_units))
    sizes[none] = 0
    return found


class _Converter:
    """The state of a conversion: the book of the recording, and the commands so far."""

    def __init__(self, market: TapeMarket, books: NDArray[np.int64] | None) -> None:
        self.market = market
        self.maker_account, self.taker_account = market.account_ids
        self.books = books
        self.levels = 0 if books is None else books.shape[1] // 4
        self.out = CommandBuffer(market.instrument)
        self.sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
        self.known: dict[int, Order] = {}
        self.anonymous = 0
        self.executions: list[Execution] = []
        self.counts = Counts()
        self.conflicts: list[tuple[int, str]] = []
        self.row = 0

    def run(self, recording: Recording) -> ReplayPlan:
        messages = recording.messages
        self.counts.messages = len(messages)
        for name, kind in (
            ("hidden", Kind.HIDDEN_EXECUTION), ("cross_trades", Kind.CROSS_TRADE), ("halts", Kind.HALT),
        ):  # fmt: skip
            setattr(self.counts, name, int((messages["kind"] == kind).sum()))
        first = np.zeros(len(messages) + 1, dtype=np.int64)
        rows = None if self.books is None else self.books.tolist()
        for row, (_, kind, tape_id, size, price, direction) in enumerate(messages.tolist()):
            self.row = row
            if rows is not None and row == 0:
                # Row 0 is the book after the first message, so the initial book has its effect.
                self.counts.skipped += 1
            else:
                self._message(kind, tape_id, size, price // self.market.tick_units, direction)
            if rows is not None:
                self._match_levels(rows[row])
            first[row + 1] = len(self.out)
        if rows is not None:
            # The levels of the initial book are not counted as adoptions.
            self.counts.adoptions -= sum(1 for price in rows[0][0::2] if price > 0)
        return ReplayPlan(
            name=recording.name,
            market=self.market,
            commands=self.out.commands(),
            first=first,
            times_ns=messages["time_ps"] // 1000,
            executions=self.executions,
            counts=self.counts,
            conflicts=self.conflicts,
            books=self.books,
            lines=recording.lines,
        )

    # Messages.

    def _message(self, kind: int, tape_id: int, size: int, price: int, direction: int) -> None:
        if kind > Kind.EXECUTION:
            self.counts.skipped += 1
            return
        side = Side.BUY if direction == 1 else Side.SELL
        try:
            if kind == Kind.NEW:
                self._new(side, price, size, tape_id)
            elif kind == Kind.EXECUTION:
                self._execution(side, price, size, tape_id)
            else:
                self._reduction(side, price, size, tape_id)
        except _Conflict as conflict:
            self.conflicts.append((self.row, str(conflict)))

    def _new(self, side: Side, price: int, size: int, tape_id: int) -> None:
        if tape_id in self.known:
            raise _Conflict(f"a new order with the id {tape_id} of an open order")
        other = self.sides[_OPPOSITE[side]]
        for crossed in other.crossed_by(price):
            if self.books is not None:
                raise _Conflict(f"a new order at {price} that crosses the book (best opposite price {crossed})")
            self._drop_stale(list(other.queue(crossed)))
        self._place(Order(side, price, size, tape_id, _id_text(tape_id)))
        self.counts.placed += 1

    def _reduction(self, side: Side, price: int, size: int, tape_id: int) -> None:
        """Remove `size` lots of the named order (message types 2 and 3)."""
        order = self._named(side, price, size, tape_id)
        if order is None:
            self.counts.unknown += 1
            return
        if order.leaves == size:
            self.counts.cancelled += 1
        else:
            self.counts.reduced += 1
        self._reduce(order, size)

    def _execution(self, side: Side, price: int, size: int, tape_id: int) -> None:
        self.counts.executions += 1
        order = self._named(side, price, size, tape_id)
        if order is None:
            self.counts.unknown += 1
            self.executions.append(Execution(self.row, Maker.UNKNOWN, tape_id, price, size, -1, -1))
            return
        book = self.sides[side]
        for better in book.better_than(price):
            if self.books is not None:
                raise _Conflict(f"an execution at {price} instead of the best price {better}")
            self._drop_stale(list(book.queue(better)))
        maker = self._priority(book, order)
        if maker == Maker.EXCEPTION:
            # The engine would hit the older order. The named order is reduced without a trade instead.
            self._reduce(order, size)
            self.executions.append(Execution(self.row, maker, tape_id, price, size, -1, -1))
            return
        taker_side = _OPPOSITE[side]
        command = self.out.take(self.taker_account, taker_side, price, size)
        self.executions.append(Execution(self.row, maker, tape_id, price, size, command, order.place_command))
        book.fill(order, size)
        if order.leaves == 0:
            self.known.pop(order.tape_id, None)

    def _priority(self, book: BookSide, order: Order) -> Maker:
        """Return what is known about the order's queue position; move it ahead of anonymous quantity of unknown age."""
        queue = book.queue(order.price)
        place = queue.index(order)
        ahead = queue[:place]
        if self.books is None:
            # Older orders of this level were removed while the level was out of view.
            self._drop_stale(ahead)
            return Maker.KNOWN
        if not ahead:
            if order.moved_ahead:
                return Maker.UNDECIDABLE
            return Maker.KNOWN if order.tape_id else Maker.ANONYMOUS
        if any(other.tape_id for other in ahead):
            return Maker.EXCEPTION
        # The queue position of anonymous quantity is assumed, and the execution shows that it is behind this order. An
        # order cannot be moved within a queue, so all other orders of the level are cancelled and placed again.
        for other in ahead + queue[place + 1 :]:
            self._cancel(other)
            other.quantity = other.leaves
            self._place(other)
        order.moved_ahead = True
        return Maker.UNDECIDABLE

    def _named(self, side: Side, price: int, size: int, tape_id: int) -> Order | None:
        """Return the order a message names, or the anonymous order of its level; None if the order is unknown."""
        order = self.known.get(tape_id)
        if order is None:
            anonymous = [other for other in self.sides[side].queue(price) if not other.tape_id]
            if not anonymous:
                if self.books is None:
                    return None
                raise _Conflict(f"order {tape_id} of {size} at {price}, where the book has no anonymous quantity")
            order = anonymous[0]
        elif (order.side, order.price) != (side, price):
            raise _Conflict(
                f"order {tape_id}: placed as {order.side.name} at {order.price}, but named as {side.name} at {price}"
            )
        if order.leaves < size:
            raise _Conflict(f"order {tape_id}: {size} lots, but only {order.leaves} are open")
        return order

    # Recorded rows.

    def _match_levels(self, row: list[int]) -> None:
        """Evict the levels beyond the recorded number, and adopt those that are missing."""
        for side, first in ((Side.SELL, 0), (Side.BUY, 2)):
            book = self.sides[side]
            if len(book) > self.levels:
                for price in book.beyond(self.levels):
                    self.counts.evictions += 1
                    for order in list(book.queue(price)):
                        self._cancel(order)
            elif len(book) < self.levels:
                self._adopt(side, row[first::4], row[first + 1 :: 4])

    def _adopt(self, side: Side, prices: list[int], sizes: list[int]) -> None:
        book = self.sides[side]
        other = self.sides[_OPPOSITE[side]]
        missing = len(book)
        for price, size in zip(prices[missing:], sizes[missing:], strict=True):
            if price == 0:
                continue
            if price < 0 or size <= 0 or book.queue(price) or other.crossed_by(price):
                self.conflicts.append(
                    (self.row, f"a recorded {side.name} level of {size} at {price} does not fit into the book")
                )
                continue
            self._place_anonymous(side, price, size)
            self.counts.adoptions += 1

    # Orders.

    def _place(self, order: Order) -> None:
        self.out.place(self.maker_account, order)
        self.sides[order.side].add(order)
        if order.tape_id:
            self.known[order.tape_id] = order

    def _place_anonymous(self, side: Side, price: int, size: int) -> None:
        self.anonymous += 1
        self._place(Order(side, price, size, 0, f"{_ANONYMOUS}{self.anonymous}"))

    def _reduce(self, order: Order, size: int) -> None:
        if order.leaves == size:
            self._cancel(order)
            return
        order.quantity -= size
        order.leaves -= size
        self.out.reduce(self.maker_account, order)

    def _cancel(self, order: Order) -> None:
        self.out.cancel(self.maker_account, order)
        self.sides[order.side].remove(order)
        self.known.pop(order.tape_id, None)

    def _drop_stale(self, orders: list[Order]) -> None:
        for order in orders:
            self.counts.stale += 1
            self._cancel(order)


def _id_text(tape_id: int) -> str:
    if tape_id < 10**8:
        return str(tape_id)
    digits = ""
    while tape_id:
        tape_id, digit = divmod(tape_id, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return _BASE_36 + digits
