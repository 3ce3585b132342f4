"""A light book beside a tape: which orders rest at which price, oldest first.

It knows whose turn is next, which is what turning a tape into commands needs; it never matches. The engine's book is
another one: that the two agree is what verification shows.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from smrx.wire.codes import Side


class Order:
    """One resting order and how the command stream names it."""

    __slots__ = ("client_order_id", "guessed", "leaves", "place_command", "price", "quantity", "side", "tape_id")

    def __init__(self, side: Side, price: int, quantity: int, tape_id: int, client_order_id: int) -> None:
        self.side = side
        self.price = price
        self.quantity = quantity
        self.leaves = quantity
        #: The tape's own number of it; 0 where the tape never said (anonymous).
        self.tape_id = tape_id
        self.client_order_id = client_order_id
        #: Index of the command that placed it.
        self.place_command = -1
        #: Whether its place in the queue was corrected from what the tape said later.
        self.guessed = False


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
        """The best price, or None on an empty side."""
        return self._keys[0] * self._sign if self._keys else None

    def queue(self, price: int) -> list[Order]:
        """Orders at a price, oldest first; not to be changed by the caller."""
        return self._queues.get(price, [])

    def prices(self) -> list[int]:
        """Prices, best first."""
        return [key * self._sign for key in self._keys]

    def beyond(self, levels: int) -> list[int]:
        """Prices past the best `levels` of them."""
        return [key * self._sign for key in self._keys[levels:]]

    def better_than(self, price: int) -> list[int]:
        """Prices strictly better than `price`, best first."""
        return [key * self._sign for key in self._keys[: bisect_left(self._keys, price * self._sign)]]

    def crossed_by(self, price: int) -> list[int]:
        """Prices that an order of the other side at `price` would trade with, best first."""
        return [key * self._sign for key in self._keys[: bisect_right(self._keys, price * self._sign)]]

    def add(self, order: Order) -> None:
        """Put an order behind the others of its price."""
        queue = self._queues.get(order.price)
        if queue is None:
            insort(self._keys, order.price * self._sign)
            self._queues[order.price] = [order]
        else:
            queue.append(order)

    def remove(self, order: Order) -> None:
        """Take an order out, and its level with the last one."""
        queue = self._queues[order.price]
        queue.remove(order)
        if not queue:
            del self._queues[order.price]
            del self._keys[bisect_left(self._keys, order.price * self._sign)]

    def fill(self, order: Order, quantity: int) -> None:
        """Take lots off an order, and the order with its last one."""
        order.leaves -= quantity
        if order.leaves == 0:
            self.remove(order)

    def levels(self) -> Iterator[tuple[int, int]]:
        """(price, lots) of every level, best first."""
        for key in self._keys:
            price = key * self._sign
            yield price, sum(order.leaves for order in self._queues[price])
