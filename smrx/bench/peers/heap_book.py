"""The reference order book: a dict of queues by price and a heap of prices. Its fills are the expected ones."""

import heapq
from collections import deque

from smrx.bench.peers.peer_calls import Calls
from smrx.bench.peers.python_peer import PlainPeer

#: [number, lots left]; a cancelled order has 0 lots.
_Order = list[int]


class Book:
    """A book with price-time priority. Cancelled orders stay in their queue with 0 lots until matching reaches them."""

    def __init__(self) -> None:
        self.queues: tuple[dict[int, deque[_Order]], dict[int, deque[_Order]]] = ({}, {})
        self.heaps: tuple[list[int], list[int]] = ([], [])
        self.open: dict[int, _Order] = {}

    def place(self, buy: bool, price: int, lots: int, number: int) -> list[tuple[int, int, int, int]] | None:
        """Match an order and add the remainder to the book; return its fills as (maker, taker, price, lots)."""
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


class Peer(PlainPeer):
    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, Book())
