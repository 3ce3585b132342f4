"""The oracle's order book of one instrument: for each side, a queue of resting orders at each price.

Owns the queues; uses no balances, accounts or events.
"""

from collections import deque
from collections.abc import Iterator

from smrx.wire.codes import OrderType, Side, Stp
from tests.oracle.records import Order

OPPOSITE = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


class Book:
    """The book of one instrument."""

    def __init__(self) -> None:
        self.queues: dict[Side, dict[int, deque[Order]]] = {Side.BUY: {}, Side.SELL: {}}

    def prices(self, side: Side) -> list[int]:
        """Prices with resting orders, the best first: the highest bid, the lowest ask."""
        return sorted(self.queues[side], reverse=side is Side.BUY)

    def best_price(self, side: Side) -> int | None:
        prices = self.prices(side)
        return prices[0] if prices else None

    def in_priority(self, side: Side) -> Iterator[Order]:
        """Yield resting orders, best price first, the oldest first at a price."""
        for price in self.prices(side):
            yield from self.queues[side][price]

    def first(self, side: Side) -> Order | None:
        return next(self.in_priority(side), None)

    def add(self, order: Order) -> None:
        """Put an order at the back of the queue of its price; an iceberg shows its first part."""
        order.shown = min(order.display, order.leaves)
        self.queues[order.side].setdefault(order.price, deque()).append(order)

    def remove(self, order: Order) -> None:
        order.shown = 0
        queue = self.queues[order.side][order.price]
        queue.remove(order)
        if not queue:
            del self.queues[order.side][order.price]

    def refresh(self, order: Order) -> None:
        """Show the next part of an iceberg whose shown lots are gone, at the back of its queue."""
        self.remove(order)
        self.add(order)

    def depth(self, side: Side, levels: int) -> list[tuple[int, int, int]]:
        """Return (price, lots, orders) of the best levels; hidden lots are not counted."""
        return [
            (price, sum(order.visible for order in queue), len(queue))
            for price in self.prices(side)[:levels]
            for queue in (self.queues[side][price],)
        ]

    def would_take(self, order: Order) -> bool:
        """Whether any part of a limit order would trade at once."""
        best = self.best_price(OPPOSITE[order.side])
        return best is not None and crosses(order, best)

    def lots_for(self, taker: Order) -> int:
        """Return how many lots a taker would trade, ignoring its funds: a rehearsal of matching."""
        found = 0
        for price in self.prices(OPPOSITE[taker.side]):
            if not crosses(taker, price):
                break
            # Each maker with its shown and remaining lots; a refreshed part goes to the back, as in the book.
            queue = deque((maker, maker.visible, maker.leaves) for maker in self.queues[OPPOSITE[taker.side]][price])
            while queue and found < taker.leaves:
                maker, shown, leaves = queue.popleft()
                if maker.account == taker.account and taker.stp is not Stp.NONE:
                    if taker.stp is Stp.CANCEL_OLDEST:
                        continue
                    return found
                found += shown
                if leaves > shown:
                    queue.append((maker, min(maker.display, leaves - shown), leaves - shown))
        return found


def crosses(taker: Order, price: int) -> bool:
    """Whether an order may trade at the price."""
    limit = taker.worst_price if taker.order_type is OrderType.MARKET else taker.price
    if limit is None:
        return True
    return price <= limit if taker.side is Side.BUY else price >= limit
