"""An order book with sorted lists of prices and a dict of orders at each price; cancels remove orders at once."""

from bisect import bisect_left, insort

from smrx.bench.peers.peer_calls import Calls
from smrx.bench.peers.python_peer import PlainPeer


class Book:
    """A book with price-time priority. The best price is the last of its list, so that removing it is cheap."""

    def __init__(self) -> None:
        #: Asks under False with negated prices, bids under True: the best price is the greatest.
        self.keys: dict[bool, list[int]] = {False: [], True: []}
        self.queues: dict[bool, dict[int, dict[int, int]]] = {False: {}, True: {}}
        self.where: dict[int, tuple[bool, int]] = {}

    def place(self, buy: bool, price: int, lots: int, number: int) -> list[tuple[int, int, int, int]]:
        """Match an order and add the remainder to the book; return its fills as (maker, taker, price, lots)."""
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


class Peer(PlainPeer):
    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, Book())
