"""The other plain reference: prices in a sorted list, a queue by order number at each, cancels taken out at once."""

import platform
from bisect import bisect_left, insort

from smrx.bench.peers.called import Called
from smrx.bench.peers.calls import Calls, Fills, as_fills


class Book:
    """Price-time priority. Prices are kept with the best one last, so that taking it away costs nothing."""

    def __init__(self) -> None:
        #: asks under False with negated prices, bids under True: the best is the greatest.
        self.keys: dict[bool, list[int]] = {False: [], True: []}
        self.queues: dict[bool, dict[int, dict[int, int]]] = {False: {}, True: {}}
        self.where: dict[int, tuple[bool, int]] = {}

    def place(self, buy: bool, price: int, lots: int, number: int) -> list[tuple[int, int, int, int]]:
        """Match an order, let the rest stand; return its fills as (maker, taker, price, lots)."""
        fills: list[tuple[int, int, int, int]] = []
        keys, queues = self.keys[not buy], self.queues[not buy]
        limit = -price if buy else price
        while lots and keys and keys[-1] >= limit:
            best = keys[-1]
            queue = queues[best]
            for maker, left in list(queue.items()):
                traded = min(lots, left)
                fills.append((maker, number, abs(best), traded))
                lots -= traded
                if traded < left:
                    queue[maker] = left - traded
                else:
                    del queue[maker], self.where[maker]
                if not lots:
                    break
            if not queue:
                del queues[best]
                keys.pop()
        if lots:
            key = price if buy else -price
            own = self.queues[buy]
            if key not in own:
                own[key] = {}
                insort(self.keys[buy], key)
            own[key][number] = lots
            self.where[number] = (buy, key)
        return fills

    def cancel(self, number: int) -> None:
        buy, key = self.where.pop(number)
        queue = self.queues[buy][key]
        del queue[number]
        if not queue:
            del self.queues[buy][key]
            keys = self.keys[buy]
            del keys[bisect_left(keys, key)]


class Peer(Called):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.version = f"Python {platform.python_version()}"
        book = Book()
        for cancel, buy, price, lots, number in calls.tolist():
            self.calls.append((book.cancel, (number,)) if cancel else (book.place, (buy, price, lots, number)))

    def fills(self) -> Fills:
        return as_fills([fill for found in self.results if found for fill in found])
