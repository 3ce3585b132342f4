"""A simple order book for converting and generating tapes: the orders at each price, oldest first.

It keeps price-time priority but never matches. It is independent of the engine's book, so that the checks of tapes
compare two implementations.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from smrx.wire.codes import Side


class Order:
    """One resting order, and its ids in the tape and in the commands."""

    __slots__ = ("client_order_id", "leaves", "moved_ahead", "place_command", "price", "quantity", "side", "tape_id")

    def __init__(self, side: Side, price: int, quantity: int, tape_id: int, client_order_id: str) -> None:
        self.side = side
        self.price = price
        self.quantity = quantity
        self.leaves = quantity
        #: The recording's id of the order; 0 for anonymous quantity.
        self.tape_id = tape_id
        self.client_order_id = client_order_id
        #: Index of the command that placed it.
        self.place_command = -1
        #: Whether it was moved ahead of anonymous quantity, because a later execution hit it first.
        self.moved_ahead = False


class BookSide:
    """The orders of one side, by price."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._sign = -1 if side == Side.BUY else 1
        #: Prices, best first, with the sign that makes better smaller.
        self._keys: list[int] = []
        self._queues: dict[int, list[Order]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def best(self) -> int | None:
        """Return the best price, or None if the side is empty."""
        return self._keys[0] * self._sign if self._keys else None

    def queue(self, price: int) -> list[Order]:
        """Return the orders at a price, oldest first. The caller must not change the list."""
        return self._queues.get(price, [])

    def prices(self) -> list[int]:
        """Return all prices, best first."""
        return [key * self._sign for key in self._keys]

    def beyond(self, levels: int) -> list[int]:
        """Return the prices after the best `levels` prices."""
        return [key * self._sign for key in self._keys[levels:]]

    def better_than(self, price: int) -> list[int]:
        """Return the prices that are strictly better than `price`, best first."""
        return [key * self._sign for key in self._keys[: bisect_left(self._keys, price * self._sign)]]

    def crossed_by(self, price: int) -> list[int]:
        """Return the prices that an order of the other side at `price` would trade with, best first."""
        return [key * self._sign for key in self._keys[: bisect_right(self._keys, price * self._sign)]]

    def add(self, order: Order) -> None:
        """Add an order at the end of the queue of its price."""
        queue = self._queues.get(order.price)
        if queue is None:
            insort(self._keys, order.price * self._sign)
            self._queues[order.price] = [order]
        else:
            queue.append(order)

    def remove(self, order: Order) -> None:
        """Remove an order, and its level if it is empty."""
        queue = self._queues[order.price]
        queue.remove(order)
        if not queue:
            del self._queues[order.price]
            del self._keys[bisect_left(self._keys, order.price * self._sign)]

    def fill(self, order: Order, quantity: int) -> None:
        """Reduce an order by `quantity`; remove it if nothing remains."""
        order.leaves -= quantity
        if order.leaves == 0:
            self.remove(order)

    def levels(self) -> Iterator[tuple[int, int]]:
        """Yield (price, lots) of every level, best first."""
        for key in self._keys:
            price = key * self._sign
            yield price, sum(order.leaves for order in self._queues[price])
