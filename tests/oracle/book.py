"""The oracle's order book of one instrument: for each side, a queue of resting orders at each price.

Owns who stands where; knows nothing of money, accounts or events.
"""

from collections import deque
from collections.abc import Iterator

from smrx.engine.codes import Side
from tests.oracle.records import Order

OPPOSITE = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


class Book:
    def __init__(self) -> None:
        self.queues: dict[Side, dict[int, deque[Order]]] = {Side.BUY: {}, Side.SELL: {}}

    def prices(self, side: Side) -> list[int]:
        """Prices with resting orders, the best first: the highest bid, the lowest ask."""
        return sorted(self.queues[side], reverse=side is Side.BUY)

    def best_price(self, side: Side) -> int | None:
        prices = self.prices(side)
        return prices[0] if prices else None

    def in_priority(self, side: Side) -> Iterator[Order]:
        """Resting orders, best price first, the oldest first at a price."""
        for price in self.prices(side):
            yield from self.queues[side][price]

    def first(self, side: Side) -> Order | None:
        return next(self.in_priority(side), None)

    def add(self, order: Order) -> None:
        """Join the back of the queue at the order's price."""
        self.queues[order.side].setdefault(order.price, deque()).append(order)

    def remove(self, order: Order) -> None:
        queue = self.queues[order.side][order.price]
        queue.remove(order)
        if not queue:
            del self.queues[order.side][order.price]

    def depth(self, side: Side, levels: int) -> list[tuple[int, int, int]]:
        """(price, lots, orders) of the best levels."""
        return [
            (price, sum(order.leaves for order in queue), len(queue))
            for price in self.prices(side)[:levels]
            for queue in (self.queues[side][price],)
        ]


def crosses(side: Side, limit: int, price: int) -> bool:
    """Whether an order of this side and limit may trade at the price."""
    return price <= limit if side is Side.BUY else price >= limit
