"""Turns a LOBSTER recording into commands, and says what the engine must answer.

A new order is placed, a partial cancellation shrinks it, a deletion cancels it, an execution is an IOC of the other
side. The file is silent about what lies outside its levels, so the book starts with the recorded first row as anonymous
orders, is cut to the recorded number of levels after each message, and where a side then has fewer the missing levels
are adopted from the recorded row, anonymous too. Without an orderbook file none of that can be done: unknown orders are
left out, and orders that the flow proves gone (they would cross the book, or be hit before a recorded execution) are
cancelled as stale.

The result is a function of the recording alone. What contradicts it is noted as a conflict, not guessed away.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.command_buffer import CommandList
from smrx.tape.lobster import NO_LEVEL, Kind, Recording
from smrx.tape.tape_book import BookSide, Order
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import DEFAULT_MARKET_ID, Market, market_for
from smrx.wire.codes import Side

#: Orders the tape does not name get client order ids from here; the tape's own ids are far below.
_ANONYMOUS_IDS: Final = 1 << 63
#: A price of a cent or more moves in cents on US markets (Regulation NMS, rule 612); LOBSTER counts 1/100 of them.
_CENT: Final = 100
_OPPOSITE: Final = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}

Commands = NDArray[np.void]


class Maker(IntEnum):
    """What the recording says about the order that an execution hit."""

    #: Its id is known and it is the oldest of its level.
    KNOWN = 1
    #: The tape does not know its id: it is part of the anonymous quantity, which is the oldest of its level.
    ANONYMOUS = 2
    #: Its id is known, and only anonymous quantity of unknown age stood before it.
    UNDECIDABLE = 3
    #: A known older order stood before it: history broke time priority here.
    EXCEPTION = 4
    #: Without an orderbook file: nothing is known about it, and no command is sent.
    UNKNOWN = 5


class Execution(NamedTuple):
    """One recorded execution of a visible order."""

    row: int
    maker: Maker
    #: The order it names, by the tape's number.
    tape_id: int
    price_ticks: int
    size: int
    #: Index of the IOC that must cause it; -1 where no trade is sent (EXCEPTION, UNKNOWN).
    command: int
    #: Index of the command that placed the order it must hit; -1 as above.
    maker_command: int


class Counts(msgspec.Struct):
    """How the messages were understood."""

    messages: int = 0
    placed: int = 0
    reduced: int = 0
    cancelled: int = 0
    executions: int = 0
    #: Hidden executions, cross trades and halts, which do not touch the visible book; and the message before the seed.
    skipped: int = 0
    #: Messages about orders never seen, left out where there is no orderbook file to place them.
    unknown: int = 0
    adoptions: int = 0
    evictions: int = 0
    #: Orders cancelled because the flow proves them gone; only without an orderbook file.
    stale: int = 0


class Plan(NamedTuple):
    """Everything about one replay that can be known before it."""

    name: str
    market: Market
    commands: Commands
    #: Commands of row r are first[r] to first[r + 1]; row 0's are the seed.
    first: NDArray[np.int64]
    #: Time of each message, nanoseconds after midnight (whole ones; the rest of a picosecond time is cut).
    times_ns: NDArray[np.int64]
    executions: list[Execution]
    counts: Counts
    #: (row, what contradicts the recording's own past).
    conflicts: list[tuple[int, str]]
    #: Ticks and lots of every row (ask price, ask lots, bid price, bid lots, ...), 0 where there is no level; or None.
    books: NDArray[np.int64] | None

    def tape(self) -> Tape:
        """The plan's commands as a tape, to be sent."""
        trades = sum(execution.command >= 0 for execution in self.executions)
        return Tape(self.name, self.market.setup(), self.commands, trades)

    @property
    def exceptions(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.maker == Maker.EXCEPTION]


class Conflict(Exception):
    """A message that cannot follow the ones before it."""


def convert(recording: Recording, market_id: int = DEFAULT_MARKET_ID, symbol: str | None = None) -> Plan:
    """Return the commands of a recording and what must come of them; `symbol` replaces the file name's ticker."""
    messages = recording.messages
    visible = messages["price"][messages["kind"] <= Kind.EXECUTION]
    tick_units = 1 if np.any(visible % _CENT) else _CENT
    market = market_for(symbol or recording.ticker, market_id, tick_units)
    books = None if recording.books is None else _in_ticks(recording.books, tick_units)
    return _Converter(market, books).run(recording)


def _in_ticks(books: NDArray[np.int64], tick_units: int) -> NDArray[np.int64]:
    found = books.copy()
    prices, sizes = found[:, 0::2], found[:, 1::2]
    none = np.abs(prices) >= NO_LEVEL
    # A level off the tick grid cannot rest in this market: -1 equals no engine level, so the row is reported.
    prices[:] = np.where(none, 0, np.where(prices % tick_units, -1, prices // tick_units))
    sizes[none] = 0
    return found


class _Converter:
    """The book of the tape and the commands written so far."""

    def __init__(self, market: Market, books: NDArray[np.int64] | None) -> None:
        self.market = market
        self.maker_account, self.taker_account = market.account_ids
        self.books = books
        self.levels = 0 if books is None else books.shape[1] // 4
        self.out = CommandList(market.instrument)
        self.sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
        self.known: dict[int, Order] = {}
        self.anonymous = 0
        self.executions: list[Execution] = []
        self.counts = Counts()
        self.conflicts: list[tuple[int, str]] = []
        self.row = 0

    def run(self, recording: Recording) -> Plan:
        messages = recording.messages
        self.counts.messages = len(messages)
        first = np.zeros(len(messages) + 1, dtype=np.int64)
        rows = None if self.books is None else self.books.tolist()
        for row, (_, kind, tape_id, size, price, direction) in enumerate(messages.tolist()):
            self.row = row
            if rows is not None and row == 0:
                # Row 0 is the book after the first message, which is in the seed therefore.
                self.counts.skipped += 1
            else:
                self._message(kind, tape_id, size, price // self.market.tick_units, direction)
            if rows is not None:
                self._follow(rows[row])
            first[row + 1] = len(self.out)
        if rows is not None:
            # The seed is not an adoption: there was nothing to complete.
            self.counts.adoptions -= self._seed_levels(rows[0])
        return Plan(
            name=recording.name,
            market=self.market,
            commands=self.out.array(),
            first=first,
            times_ns=messages["time_ps"] // 1000,
            executions=self.executions,
            counts=self.counts,
            conflicts=self.conflicts,
            books=self.books,
        )

    @staticmethod
    def _seed_levels(row: list[int]) -> int:
        return sum(1 for price in row[0::2] if price > 0)

    # One message.

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
        except Conflict as conflict:
            self.conflicts.append((self.row, str(conflict)))

    def _new(self, side: Side, price: int, size: int, tape_id: int) -> None:
        if tape_id in self.known:
            raise Conflict(f"a new order with the id {tape_id} of one that is still open")
        other = self.sides[_OPPOSITE[side]]
        for crossed in other.crossed_by(price):
            if self.books is not None:
                raise Conflict(f"a new order at {price} that would cross the book (best opposite price {crossed})")
            self._drop_stale(list(other.queue(crossed)))
        self._place(Order(side, price, size, tape_id, tape_id))
        self.counts.placed += 1

    def _reduction(self, side: Side, price: int, size: int, tape_id: int) -> None:
        """Types 2 and 3: `size` lots of the named order go."""
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
                raise Conflict(f"an execution at {price}, expected at the best price {better}")
            self._drop_stale(list(book.queue(better)))
        maker = self._whose_turn(book, order)
        if maker == Maker.EXCEPTION:
            # The engine would rightly hit the older order. The lots go from the order history hit, without a trade.
            self._reduce(order, size)
            self.executions.append(Execution(self.row, maker, tape_id, price, size, -1, -1))
            return
        taker_side = _OPPOSITE[side]
        command = self.out.take(self.taker_account, taker_side, price, size)
        self.executions.append(Execution(self.row, maker, tape_id, price, size, command, order.place_command))
        book.fill(order, size)
        if order.leaves == 0:
            self.known.pop(order.tape_id, None)

    def _whose_turn(self, book: BookSide, order: Order) -> Maker:
        """Say what is known of the order's turn, and give it where only anonymous quantity of unknown age is ahead."""
        queue = book.queue(order.price)
        place = queue.index(order)
        ahead = queue[:place]
        if self.books is None:
            # Older orders of an executed order's level went while the level was out of view.
            self._drop_stale(ahead)
            return Maker.KNOWN
        if not ahead:
            if order.guessed:
                return Maker.UNDECIDABLE
            return Maker.KNOWN if order.tape_id else Maker.ANONYMOUS
        if any(other.tape_id for other in ahead):
            return Maker.EXCEPTION
        # Where the anonymous quantity stood was a guess, and history says: behind this order. Nothing can be put into
        # the middle of a queue, so all of them but this one are placed again, in the right order.
        for other in ahead + queue[place + 1 :]:
            self._cancel(other)
            other.quantity = other.leaves
            self._place(other)
        order.guessed = True
        return Maker.UNDECIDABLE

    def _named(self, side: Side, price: int, size: int, tape_id: int) -> Order | None:
        """The order a message names, or the anonymous one of its level; None where that cannot be known."""
        order = self.known.get(tape_id)
        if order is None:
            anonymous = [other for other in self.sides[side].queue(price) if not other.tape_id]
            if not anonymous:
                if self.books is None:
                    return None
                raise Conflict(f"order {tape_id} of {size} at {price}, where the book holds no unnamed quantity")
            order = anonymous[0]
        elif (order.side, order.price) != (side, price):
            raise Conflict(
                f"order {tape_id}: expected {order.side.name} at {order.price} as it was placed, "
                f"found {side.name} at {price}"
            )
        if order.leaves < size:
            raise Conflict(f"order {tape_id}: expected at most the {order.leaves} lots that are left, found {size}")
        return order

    # The recorded row.

    def _follow(self, row: list[int]) -> None:
        """Cut each side to the recorded levels and adopt those that it lacks."""
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
                    (self.row, f"a recorded {side.name} level of {size} at {price} cannot be adopted")
                )
                continue
            self._place_anonymous(side, price, size)
            self.counts.adoptions += 1

    # Single orders.

    def _place(self, order: Order) -> None:
        self.out.place(self.maker_account, order)
        self.sides[order.side].add(order)
        if order.tape_id:
            self.known[order.tape_id] = order

    def _place_anonymous(self, side: Side, price: int, size: int) -> None:
        self.anonymous += 1
        self._place(Order(side, price, size, 0, _ANONYMOUS_IDS | self.anonymous))

    def _reduce(self, order: Order, size: int) -> None:
        if order.leaves == size:
            self._cancel(order)
            return
        order.quantity -= size
        order.leaves -= size
        self.out.shrink(self.maker_account, order)

    def _cancel(self, order: Order) -> None:
        self.out.cancel(self.maker_account, order)
        self.sides[order.side].remove(order)
        self.known.pop(order.tape_id, None)

    def _drop_stale(self, orders: list[Order]) -> None:
        for order in orders:
            self.counts.stale += 1
            self._cancel(order)
