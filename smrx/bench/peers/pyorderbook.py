"""pyorderbook: a limit order book in plain Python (github.com/zkhorozianbc/pyorderbook)."""

from typing import Any

from smrx.bench.peers.peer_calls import Calls, Fills, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer


class Peer(PythonPeer):
    """Orders are objects, made before the clock starts."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = import_peer("pyorderbook", "pyorderbook")
        book = module.Book()
        self._orders: list[Any] = [None]
        for cancel, buy, price, lots, number in calls.tolist():
            if cancel:
                self.calls.append((book.cancel, (self._orders[number],)))
            else:
                order = (module.bid if buy else module.ask)("BENCH", price, lots)
                self._orders.append(order)
                self.calls.append((book.match, (order,)))

    def fills(self) -> Fills:
        numbers = {order.id: number for number, order in enumerate(self._orders) if number}
        return as_fills(
            [
                (
                    numbers[trade.standing_order_id],
                    numbers[trade.incoming_order_id],
                    int(trade.fill_price),
                    trade.fill_quantity,
                )
                for blotter in self.results
                if blotter is not None
                for trade in blotter.trades
            ]
        )
