"""orderbook: a limit order book in plain Python (pypi.org/project/OrderBook)."""

from smrx.bench.peers.called import Called, installed
from smrx.bench.peers.calls import Calls, Fills, as_fills

_SIDES = ("ask", "bid")


class Peer(Called):
    """Orders are dicts, numbered by the book from 1; a trade names both orders."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = installed("orderbook.orderbook", "orderbook")
        book = module.OrderBook(1)
        self._sides: list[str] = [""]
        for cancel, buy, price, lots, number in calls.tolist():
            if cancel:
                self.calls.append((book.cancel_order, (self._sides[number], number)))
                continue
            self._sides.append(_SIDES[buy])
            quote = {"type": "limit", "side": _SIDES[buy], "quantity": lots, "price": price, "trade_id": number}
            self.calls.append((book.process_order, (quote, False, False)))

    def fills(self) -> Fills:
        return as_fills(
            [
                (trade["party1"][0], trade["party2"][0], int(trade["price"]), int(trade["qty"]))
                for found in self.results
                if found is not None
                for trade in found[0]
            ]
        )
