"""LOBSTER files of an invented share, for tests without real recordings.

A small random market is recorded as LOBSTER does: messages outside the first five levels are missing, the book has
orders from before the first message, and sometimes a newer order is hit before an older one. The market counts what the
files contain.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

LEVELS = 5
TICKER = "SYNTH"
_NAME = f"{TICKER}_2020-01-02_34200000_57600000"
_NO_LEVEL = 9_999_999_999
_CENT = 100


@dataclass
class Truth:
    """The contents of the files, counted while they were written."""

    messages: int = 0
    executions: int = 0
    hidden: int = 0
    #: Rows of executions that hit a newer order while an older one of the same price was visible.
    exceptions: list[int] = field(default_factory=list)


@dataclass
class Files:
    messages: Path
    orderbook: Path
    truth: Truth


def write(folder: Path, messages: int = 1500, seed: int = 1) -> Files:
    """Write a message and an orderbook file into a folder."""
    market = _Market(random.Random(seed))
    market.run(messages)
    files = Files(folder / f"{_NAME}_message_5.csv", folder / f"{_NAME}_orderbook_5.csv", market.truth)
    files.messages.write_text("".join(market.message_lines), encoding="ascii")
    files.orderbook.write_text("".join(market.book_lines), encoding="ascii")
    return files


class _Market:
    """The complete book, of which the files show five levels."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.truth = Truth()
        self.message_lines: list[str] = []
        self.book_lines: list[str] = []
        #: direction -> price -> [[order id, size], ...], oldest first.
        self.book: dict[int, dict[int, list[list[int]]]] = {1: {}, -1: {}}
        #: Orders whose arrival was recorded, until their level is no longer visible.
        self.recorded: set[int] = set()
        self.next_id = 1000
        self.trend = 1
        self.picoseconds = 34_200 * 10**12 + 123_456_789_012
        for direction in (1, -1):
            for behind in range(12):
                for _ in range(random.randint(1, 3)):
                    self.add(direction, 50_000 - direction * (3 + behind))

    def run(self, messages: int) -> None:
        # The first message changes nothing: the first row of the book is the state after it.
        self.record(5, 0, 10, 50_000, -1)
        self.truth.hidden += 1
        while self.truth.messages < messages:
            self.step()

    def step(self) -> None:
        draw = self.random.random()
        # One side is more active for a while.
        direction = self.random.choice((1, -1, self.trend))
        if self.random.random() < 0.01:
            self.trend = -self.trend
        if draw < 0.4:
            best = self.prices(direction)[0]
            opposite = self.prices(-direction)[0]
            price = best - direction * self.random.randint(-1, 12)
            if (opposite - price) * direction > 0:
                self.change(1, self.add(direction, price), direction, price)
        elif draw < 0.9:
            # Mostly near the best price, so that levels enter and leave the visible five.
            price = self.prices(direction)[int(8 * self.random.random() ** 2)]
            order = self.random.choice(self.book[direction][price])
            size = order[1] if draw < 0.85 else self.random.randint(1, order[1])
            self.remove(direction, price, order, size)
            self.change(2 if order[1] else 3, [order[0], size], direction, price)
        elif draw < 0.98:
            self.execute(direction)
        else:
            self.record(5, 0, self.random.randint(1, 100), 50_000, direction)
            self.truth.hidden += 1
        for side in (1, -1):
            while len(self.book[side]) < 8:
                worst = self.prices(side)[-1] if self.book[side] else 50_000 - side * 3
                self.add(side, worst - side * self.random.randint(1, 3))

    def execute(self, direction: int) -> None:
        price = self.prices(direction)[0]
        queue = self.book[direction][price]
        order = queue[0]
        recorded = [other for other in queue if other[0] in self.recorded]
        if len(recorded) > 1 and recorded[0] is queue[0] and self.random.random() < 0.05:
            order = recorded[1]
            self.truth.exceptions.append(self.truth.messages)
        size = self.random.randint(1, order[1])
        self.remove(direction, price, order, size)
        self.truth.executions += 1
        self.change(4, [order[0], size], direction, price)

    def add(self, direction: int, price: int) -> list[int]:
        self.next_id += self.random.randint(1, 50)
        order = [self.next_id, self.random.choice((100, 100, 200, 17, 5, 300))]
        self.book[direction].setdefault(price, []).append(order)
        return order

    def remove(self, direction: int, price: int, order: list[int], size: int) -> None:
        order[1] -= size
        if order[1] == 0:
            self.book[direction][price].remove(order)
            if not self.book[direction][price]:
                del self.book[direction][price]

    def prices(self, direction: int) -> list[int]:
        return sorted(self.book[direction], reverse=direction == 1)

    def change(self, kind: int, order: list[int], direction: int, price: int) -> None:
        """Record a change if it is visible: within the best five levels before or after it."""
        prices = self.prices(direction)
        is_visible = len([other for other in prices if (other - price) * direction > 0]) < LEVELS
        if not is_visible:
            return
        if kind == 1:
            self.recorded.add(order[0])
        self.record(kind, order[0], order[1], price, direction)

    def record(self, kind: int, order_id: int, size: int, price: int, direction: int) -> None:
        self.picoseconds += self.random.choice((0, 1, 999, 10**6, 10**9))
        seconds, rest = divmod(self.picoseconds, 10**12)
        fraction = f"{rest:012}".rstrip("0")
        time = f"{seconds}.{fraction}" if fraction else str(seconds)
        self.message_lines.append(f"{time},{kind},{order_id},{size},{price * _CENT},{direction}\n")
        self.book_lines.append(self.row())
        self.truth.messages += 1
        for side in (1, -1):
            for gone in self.prices(side)[LEVELS:]:
                self.recorded -= {order[0] for order in self.book[side][gone]}

    def row(self) -> str:
        asks, bids = self.prices(-1), self.prices(1)
        columns = []
        for level in range(LEVELS):
            for side, prices, none in ((-1, asks, _NO_LEVEL), (1, bids, -_NO_LEVEL)):
                if level < len(prices):
                    lots = sum(size for _, size in self.book[side][prices[level]])
                    columns += [prices[level] * _CENT, lots]
                else:
                    columns += [none, 0]
        return ",".join(map(str, columns)) + "\n"
