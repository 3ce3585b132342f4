"""The plain reference: a dict of queues by price and a heap of prices, as one would write it in an afternoon."""

import heapq
import platform
from collections import deque

from smrx.bench.peers.called import Called
from smrx.bench.peers.calls import Calls, Fills, as_fills

#: number, price (negative in the bids' heap order), lots left; 0 lots is an order that was cancelled.
_Order = list[int]


class Book:
    """Price-time priority with nothing around it. Cancelled orders stay in their queue, empty, until they are met."""

    def __init__(self) -> None:
        self.queues: tuple[dict[int, deque[_Order]], dict[int, deque[_Order]]] = ({}, {})
        self.heaps: tuple[list[int], list[int]] = ([], [])
        self.open: dict[int, _Order] = {}

    def place(self, buy: bool, price: int, lots: int, number: int) -> list[tuple[int, int, int, int]] | None:
        """Match an order, let the rest stand; return its fills as (maker, taker, price, lots)."""
        fills = None
        queues, heap = self.queues[not buy], self.heaps[not buy]
        sign = 1 if buy else -1
        while lots and heap and heap[0] <= price * sign:
            best = heap[0] * sign
            queue = queues[best]
            while queue and lots:
                maker = queue[0]
                traded = min(lots, maker[1])
                if traded:
                    lots -= traded
                    maker[1] -= traded
                    if fills is None:
                        fills = []
                    fills.append((maker[0], number, best, traded))
                if not maker[1]:
                    queue.popleft()
                    self.open.pop(maker[0], None)
            if not queue:
                del queues[best]
                heapq.heappop(heap)
        if lots:
            own = self.queues[buy]
            order = [number, lots]
            if price in own:
                own[price].append(order)
            else:
                own[price] = deque([order])
                heapq.heappush(self.heaps[buy], -price * sign)
            self.open[number] = order
        return fills

    def cancel(self, number: int) -> None:
        self.open.pop(number)[1] = 0


class Peer(Called):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.version = f"Python {platform.python_version()}"
        book = Book()
        for cancel, buy, price, lots, number in calls.tolist():
            self.calls.append((book.cancel, (number,)) if cancel else (book.place, (buy, price, lots, number)))

    def fills(self) -> Fills:
        return as_fills([fill for found in self.results if found for fill in found])
