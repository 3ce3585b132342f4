"""Generate order flow from a seed, with the mix and the price placement of a real day (calibration.py).

Every order rests and is cancelled after a random number of messages unless takers fill it first. The share of
deletions and the depth of the book follow from the arrivals and lifetimes. All random numbers are integers made of the
bits of PCG64, whose stream numpy guarantees (NEP 19), so the same seed gives the same bytes on every machine.
"""

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import accumulate
from typing import Final

import numpy as np

from smrx.tape import calibration
from smrx.tape.calibration import Range
from smrx.tape.command_buffer import CommandBuffer
from smrx.tape.tape_book import BookSide, Order
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import DEFAULT_MARKET_ID, make_market
from smrx.wire.codes import Side

#: Accounts of makers and of takers. They are separate, so that self-trade prevention never cancels an order.
MAKERS: Final = 16
TAKERS: Final = 4
#: Partial cancellations remove a round lot, as most do in the recording.
_ROUND_LOT: Final = 100
#: Half the median spread: the distance of the first order of an empty side from the reference price.
_HALF_SPREAD_TICKS: Final = 6
#: At this distance from the reference price all takers push the price back, so that it never reaches 0.
_MAX_DRIFT_TICKS: Final = calibration.REFERENCE_PRICE_TICKS // 10
_MAX_COMMANDS: Final = 100_000_000
_WEIGHTS: Final = 10_000
_OPPOSITE: Final = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


class RandomIntegers:
    """Random integers from a seed."""

    _CHUNK: Final = 1 << 14

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._left: list[int] = []

    def below(self, bound: int) -> int:
        """Return an integer from 0 to bound - 1."""
        if not self._left:
            self._left = self._bits.random_raw(self._CHUNK).tolist()
        return self._left.pop() * bound >> 64

    def chance(self, weight: int) -> bool:
        """Return True with a probability of `weight` in 10,000."""
        return self.below(_WEIGHTS) < weight


class WeightedRanges:
    """A distribution of integers, given by weighted ranges."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = [(found.low, found.high - found.low + 1) for found in ranges]
        self._ends = list(accumulate(found.weight for found in ranges))

    def draw(self, random: RandomIntegers) -> int:
        low, width = self._ranges[bisect_right(self._ends, random.below(self._ends[-1]))]
        return low if width == 1 else low + random.below(width)


def generate(commands: int, seed: int, market_id: int = DEFAULT_MARKET_ID) -> Tape:
    """Return a tape of `commands` flow commands; raises TapeError for arguments out of range."""
    if not 1 <= commands <= _MAX_COMMANDS:
        raise TapeError(f"commands: expected 1 to {_MAX_COMMANDS}, found {commands}")
    if not 0 <= seed < 1 << 64:
        raise TapeError(f"seed: expected 0 to {(1 << 64) - 1}, found {seed}")
    market = make_market("AMZN", market_id, accounts=MAKERS + TAKERS)
    flow = _Flow(RandomIntegers(seed), market.account_ids, market.instrument)
    while len(flow.out) < commands:
        flow.step()
    return Tape(f"generated-{seed}-{commands}", market.setup(), flow.out.commands(), flow.trades, seed)


class _Flow:
    """The state of the generator: the book, scheduled deletions, and the commands so far."""

    def __init__(self, random: RandomIntegers, accounts: Sequence[int], instrument: int) -> None:
        self.random = random
        self.accounts = accounts
        self.out = CommandBuffer(instrument)
        self.sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
        self.orders = 0
        self.trades = 0
        #: (message number, order number, order): scheduled deletions, a heap.
        self.deletions: list[tuple[int, int, Order]] = []
        #: Orders of more than a round lot, the candidates of partial cancellations; closed ones are removed lazily.
        self.large: list[Order] = []
        self.sizes = WeightedRanges(calibration.SIZES)
        self.improvement = WeightedRanges(calibration.IMPROVEMENT)
        self.behind = WeightedRanges(calibration.BEHIND)
        self.lifetimes = WeightedRanges(calibration.LIFETIMES)
        self.improving_lifetimes = WeightedRanges(calibration.IMPROVING_LIFETIMES)
        self.far_lifetimes = WeightedRanges(calibration.FAR_LIFETIMES)
        self.sweeps = WeightedRanges(calibration.SWEEPS)

    def step(self) -> None:
        """Append one command."""
        while self.deletions and self.deletions[0][0] <= len(self.out):
            order = heappop(self.deletions)[2]
            if order.leaves:
                self._delete(order)
                return
        arrivals = calibration.NEW + calibration.PARTIAL_CANCEL + calibration.TAKERS
        drawn = self.random.below(arrivals)
        if drawn < calibration.TAKERS and self._take():
            return
        if drawn >= arrivals - calibration.PARTIAL_CANCEL and self._cancel_part():
            return
        self._new()

    def _new(self) -> None:
        side = Side.BUY if self.random.below(2) else Side.SELL
        size = self.sizes.draw(self.random)
        self.orders += 1
        best = self.sides[side].best()
        price = self._price(side, best)
        order = Order(side, price, size, self.orders, str(self.orders))
        self.out.place(self._maker(order), order)
        self.sides[side].add(order)
        heappush(self.deletions, (len(self.out) + self._lifetime(side, price, best), self.orders, order))
        if size > _ROUND_LOT:
            self.large.append(order)

    def _lifetime(self, side: Side, price: int, best: int | None) -> int:
        """Return after how many messages the order is deleted; `best` was the best price of its side before it."""
        behind = 0 if best is None else (best - price if side == Side.BUY else price - best)
        if behind < 0:
            return self.improving_lifetimes.draw(self.random)
        return (self.lifetimes if behind < calibration.FAR_BEHIND_TICKS else self.far_lifetimes).draw(self.random)

    def _price(self, side: Side, best: int | None) -> int:
        """Return the price of a new order: at a random distance from the best price of its side, never crossing."""
        towards = 1 if side == Side.BUY else -1
        opposite = self.sides[_OPPOSITE[side]].best()
        if best is None:
            if opposite is None:
                return calibration.REFERENCE_PRICE_TICKS - towards * _HALF_SPREAD_TICKS
            return opposite - towards * (2 * _HALF_SPREAD_TICKS + self.behind.draw(self.random))
        spread = _HALF_SPREAD_TICKS * 2 if opposite is None else (opposite - best) * towards
        if self.random.chance(_improving(spread)):
            return best + towards * min(self.improvement.draw(self.random), spread - 1)
        return best - towards * self.behind.draw(self.random)

    def _delete(self, order: Order) -> None:
        self.out.cancel(self._maker(order), order)
        self.sides[order.side].fill(order, order.leaves)

    def _cancel_part(self) -> bool:
        """Reduce a large order by a round lot; return False if there is none."""
        while self.large:
            place = self.random.below(len(self.large))
            order = self.large[place]
            if order.leaves > _ROUND_LOT:
                order.quantity -= _ROUND_LOT
                order.leaves -= _ROUND_LOT
                self.out.reduce(self._maker(order), order)
                return True
            self.large[place] = self.large[-1]
            self.large.pop()
        return False

    def _take(self) -> bool:
        """Append an IOC order against the first orders in priority; return False if the side is empty."""
        hit = self._side_to_hit()
        book = self.sides[hit]
        orders = self._first_orders(book, self.sweeps.draw(self.random))
        if not orders:
            return False
        last = orders[-1]
        part = last.leaves
        if part > 1 and self.random.chance(calibration.ENDING_IN_PART):
            part = 1 + self.random.below(part - 1)
        quantity = sum(order.leaves for order in orders[:-1]) + part
        taker = self.accounts[MAKERS + self.random.below(TAKERS)]
        self.out.take(taker, _OPPOSITE[hit], last.price, quantity)
        self.trades += len(orders)
        for order in orders[:-1]:
            book.fill(order, order.leaves)
        book.fill(last, part)
        return True

    def _side_to_hit(self) -> Side:
        """Return a random side; far from the reference price, more likely the one that brings the price back."""
        bid, ask = self.sides[Side.BUY].best(), self.sides[Side.SELL].best()
        if bid is None or ask is None:
            return Side.SELL if bid is None else Side.BUY
        away = (bid + ask) // 2 - calibration.REFERENCE_PRICE_TICKS
        return Side.BUY if self.random.below(2 * _MAX_DRIFT_TICKS) < _MAX_DRIFT_TICKS + away else Side.SELL

    @staticmethod
    def _first_orders(book: BookSide, wanted: int) -> list[Order]:
        """Return the first `wanted` orders in price-time priority, or as many as there are."""
        found: list[Order] = []
        for price in book.prices():
            found += book.queue(price)[: wanted - len(found)]
            if len(found) == wanted:
                break
        return found

    def _maker(self, order: Order) -> int:
        return self.accounts[order.tape_id % MAKERS]


def _improving(spread: int) -> int:
    """Return the weight of an improving order at a spread of 1 tick or more."""
    return next(found.weight for found in calibration.IMPROVING_BY_SPREAD if found.low <= spread <= found.high)
