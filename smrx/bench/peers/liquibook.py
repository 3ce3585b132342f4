"""liquibook through its Python package: a C++ order book wrapped by SWIG (pypi.org/project/liquibook)."""

from typing import Any

from smrx.bench.peers.peer_calls import Calls, Fills, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer


class Peer(PythonPeer):
    """Orders are objects, made before the clock starts; a listener in Python receives the fills."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = import_peer("liquibook", "liquibook")
        found: list[tuple[int, int, int, int]] = []
        self._found = found

        class Listener(module.OrderListener):  # type: ignore[misc, name-defined]  # a class of a foreign package
            def on_fill(self, taker: Any, maker: Any, lots: int, price: int) -> None:
                found.append((maker.order_id_, taker.order_id_, price, lots))

            def on_accept(self, order: Any) -> None:
                """Ignore it."""

            on_cancel = on_trigger_stop = on_accept

            def on_reject(self, order: Any, reason: str) -> None:
                """Ignore it: the comparison finds the missing fills."""

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
