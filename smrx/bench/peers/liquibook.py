"""liquibook through its Python package: a C++ order book wrapped by SWIG (pypi.org/project/liquibook)."""

from typing import Any

from smrx.bench.peers.called import Called, installed
from smrx.bench.peers.calls import Calls, Fills, as_fills


class Peer(Called):
    """Orders are objects, made before the clock starts; fills come to a listener, in Python too."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = installed("liquibook", "liquibook")
        found: list[tuple[int, int, int, int]] = []
        self._found = found

        class Listener(module.OrderListener):  # type: ignore[misc, name-defined]  # a class of a foreign package
            def on_fill(self, taker: Any, maker: Any, lots: int, price: int) -> None:
                found.append((maker.order_id_, taker.order_id_, price, lots))

            def on_accept(self, order: Any) -> None:
                """Nothing is asked of it."""

            on_cancel = on_trigger_stop = on_accept

            def on_reject(self, order: Any, reason: str) -> None:
                """Nothing is asked of it: a missing fill tells."""

            on_cancel_reject = on_replace_reject = on_reject

        self._listener = Listener()
        book = module.liquibook_book_OrderBook()
        book.set_order_listener(self._listener)
        self._orders: list[Any] = [None]
        for cancel, buy, price, lots, number in calls.tolist():
            if cancel:
                self.calls.append((book.cancel, (self._orders[number],)))
            else:
                self._orders.append(module.SimpleOrder(buy, price, lots))
                self.calls.append((book.add, (self._orders[-1],)))

    def fills(self) -> Fills:
        numbers = {order.order_id_: number for number, order in enumerate(self._orders) if number}
        return as_fills([(numbers[maker], numbers[taker], price, lots) for maker, taker, price, lots in self._found])
