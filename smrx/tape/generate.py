"""Generates order flow from a seed, with the mix and the price placement of a real share's day (calibration.py).

Every order rests, then is cancelled after a drawn number of messages, unless taking orders hit it first: the share of
deletions follows from that, and the book stays as deep as arrivals and lifetimes make it. All draws are integers from
the bits of PCG64, whose stream numpy promises to keep (NEP 19): the same seed gives the same bytes, on every machine.
"""

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import accumulate
from typing import Final

import numpy as np

from smrx.tape import calibration
from smrx.tape.calibration import Range
from smrx.tape.command_buffer import CommandList
from smrx.tape.tape_book import BookSide, Order
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import DEFAULT_MARKET_ID, market_for
from smrx.wire.codes import Side

#: Accounts whose orders rest, and accounts that take; apart, so that self-trade prevention never cuts an order short.
MAKERS: Final = 16
TAKERS: Final = 4
#: A round lot; partial cancellations take whole ones in the recording, too.
_ROUND_LOT: Final = 100
#: Half the median spread: where the first orders of an empty side go, seen from the reference price.
_HALF_SPREAD: Final = 6
#: Takers push the price back with all their weight when it is a tenth away: no tape runs into a price of 0.
_LEASH: Final = calibration.REFERENCE_PRICE_TICKS // 10
_MAX_COMMANDS: Final = 100_000_000
_WEIGHTS: Final = 10_000
_OPPOSITE: Final = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


class Draws:
    """Integers from a seed."""

    _CHUNK: Final = 1 << 14

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._left: list[int] = []

    def below(self, bound: int) -> int:
        """An integer from 0 to bound - 1."""
        if not self._left:
            self._left = self._bits.random_raw(self._CHUNK).tolist()
        return self._left.pop() * bound >> 64

    def one_in(self, weight: int) -> bool:
        """True `weight` times in 10,000."""
        return self.below(_WEIGHTS) < weight


class Table:
    """Draws from weighted ranges."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = [(found.low, found.high - found.low + 1) for found in ranges]
        self._ends = list(accumulate(found.weight for found in ranges))

    def draw(self, draws: Draws) -> int:
        low, width = self._ranges[bisect_right(self._ends, draws.below(self._ends[-1]))]
        return low if width == 1 else low + draws.below(width)


def generate(commands: int, seed: int, market_id: int = DEFAULT_MARKET_ID) -> Tape:
    """Return a tape of `commands` flow commands; raises TapeError for numbers that cannot be."""
    if not 1 <= commands <= _MAX_COMMANDS:
        raise TapeError(f"commands: expected 1 to {_MAX_COMMANDS}, found {commands}")
    if not 0 <= seed < 1 << 64:
        raise TapeError(f"seed: expected 0 to {(1 << 64) - 1}, found {seed}")
    market = market_for("AMZN", market_id, accounts=MAKERS + TAKERS)
    flow = _Flow(Draws(seed), market.account_ids, market.instrument)
    while len(flow.out) < commands:
        flow.step()
    return Tape(f"generated-{seed}-{commands}", market.setup(), flow.out.array(), flow.trades, seed)


class _Flow:
    """The book so far and what will happen to it."""

    def __init__(self, draws: Draws, accounts: Sequence[int], instrument: int) -> None:
        self.draws = draws
        self.accounts = accounts
        self.out = CommandList(instrument)
        self.sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
        self.orders = 0
        self.trades = 0
        #: (message number, order number, order): deletions to come, soonest first.
        self.deletions: list[tuple[int, int, Order]] = []
        #: Orders of more than a round lot, the candidates of partial cancellations; the ended ones go when met.
        self.large: list[Order] = []
        self.sizes = Table(calibration.SIZES)
        self.improvement = Table(calibration.IMPROVEMENT)
        self.behind = Table(calibration.BEHIND)
        self.lifetimes = Table(calibration.LIFETIMES)
        self.improving_lifetimes = Table(calibration.IMPROVING_LIFETIMES)
        self.far_lifetimes = Table(calibration.FAR_LIFETIMES)
        self.sweeps = Table(calibration.SWEEPS)

    def step(self) -> None:
        """Append one command."""
        while self.deletions and self.deletions[0][0] <= len(self.out):
            order = heappop(self.deletions)[2]
            if order.leaves:
                self._delete(order)
                return
        arrivals = calibration.NEW + calibration.PARTIAL_CANCEL + calibration.TAKING_ORDERS
        drawn = self.draws.below(arrivals)
        if drawn < calibration.TAKING_ORDERS and self._take():
            return
        if drawn >= arrivals - calibration.PARTIAL_CANCEL and self._cancel_part():
            return
        self._new()

    def _new(self) -> None:
        side = Side.BUY if self.draws.below(2) else Side.SELL
        size = self.sizes.draw(self.draws)
        self.orders += 1
        best = self.sides[side].best()
        price = self._price(side, best)
        order = Order(side, price, size, self.orders, self.orders)
        self.out.place(self._maker(order), order)
        self.sides[side].add(order)
        heappush(self.deletions, (len(self.out) + self._lifetime(side, price, best), self.orders, order))
        if size > _ROUND_LOT:
            self.large.append(order)

    def _lifetime(self, side: Side, price: int, best: int | None) -> int:
        """Messages until the order is deleted; `best` was the best price of its side before it."""
        behind = 0 if best is None else (best - price if side == Side.BUY else price - best)
        if behind < 0:
            return self.improving_lifetimes.draw(self.draws)
        return (self.lifetimes if behind < calibration.FAR_BEHIND_TICKS else self.far_lifetimes).draw(self.draws)

    def _price(self, side: Side, best: int | None) -> int:
        """Where a new order goes: by the recording's distances from the best price of its side, never crossing."""
        towards = 1 if side == Side.BUY else -1
        opposite = self.sides[_OPPOSITE[side]].best()
        if best is None:
            if opposite is None:
                return calibration.REFERENCE_PRICE_TICKS - towards * _HALF_SPREAD
            return opposite - towards * (2 * _HALF_SPREAD + self.behind.draw(self.draws))
        spread = _HALF_SPREAD * 2 if opposite is None else (opposite - best) * towards
        if self.draws.one_in(_improving(spread)):
            return best + towards * min(self.improvement.draw(self.draws), spread - 1)
        return best - towards * self.behind.draw(self.draws)

    def _delete(self, order: Order) -> None:
        self.out.cancel(self._maker(order), order)
        self.sides[order.side].fill(order, order.leaves)

    def _cancel_part(self) -> bool:
        """Shrink a large order by a round lot; False where none is left."""
        while self.large:
            place = self.draws.below(len(self.large))
            order = self.large[place]
            if order.leaves > _ROUND_LOT:
                order.quantity -= _ROUND_LOT
                order.leaves -= _ROUND_LOT
                self.out.shrink(self._maker(order), order)
                return True
            self.large[place] = self.large[-1]
            self.large.pop()
        return False

    def _take(self) -> bool:
        """One IOC against the oldest orders of the best levels; False where there is nothing to hit."""
        hit = self._side_hit()
        book = self.sides[hit]
        orders = self._in_turn(book, self.sweeps.draw(self.draws))
        if not orders:
            return False
        last = orders[-1]
        part = last.leaves
        if part > 1 and self.draws.one_in(calibration.ENDING_IN_PART):
            part = 1 + self.draws.below(part - 1)
        quantity = sum(order.leaves for order in orders[:-1]) + part
        taker = self.accounts[MAKERS + self.draws.below(TAKERS)]
        self.out.take(taker, _OPPOSITE[hit], last.price, quantity)
        self.trades += len(orders)
        for order in orders[:-1]:
            book.fill(order, order.leaves)
        book.fill(last, part)
        return True

    def _side_hit(self) -> Side:
        """Either side alike near the reference price, the one that brings the price back far from it."""
        bid, ask = self.sides[Side.BUY].best(), self.sides[Side.SELL].best()
        if bid is None or ask is None:
            return Side.SELL if bid is None else Side.BUY
        away = (bid + ask) // 2 - calibration.REFERENCE_PRICE_TICKS
        return Side.BUY if self.draws.below(2 * _LEASH) < _LEASH + away else Side.SELL

    @staticmethod
    def _in_turn(book: BookSide, wanted: int) -> list[Order]:
        """The next `wanted` orders in price-time priority, or as many as there are."""
        found: list[Order] = []
        for price in book.prices():
            found += book.queue(price)[: wanted - len(found)]
            if len(found) == wanted:
                break
        return found

    def _maker(self, order: Order) -> int:
        return self.accounts[order.client_order_id % MAKERS]


def _improving(spread: int) -> int:
    """The weight of an improving order at a spread of 1 tick or more."""
    return next(found.weight for found in calibration.IMPROVING_BY_SPREAD if found.low <= spread <= found.high)
