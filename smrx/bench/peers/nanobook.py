"""nanobook: a matching engine in Rust with a Python interface (github.com/BoringQuantSystems/nanobook)."""

from smrx.bench.peers.called import Called, installed
from smrx.bench.peers.calls import Calls, Fills, as_fills


class Peer(Called):
    """Orders are numbered by the exchange, from 1; it keeps its own list of trades."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = installed("nanobook", "nanobook")
        self.exchange = module.Exchange()
        place, cancel_order = self.exchange.submit_limit, self.exchange.cancel
        for cancel, buy, price, lots, number in calls.tolist():
            side = "buy" if buy else "sell"
            self.calls.append((cancel_order, (number,)) if cancel else (place, (side, price, lots)))

    def fills(self) -> Fills:
        return as_fills(
            [
                (trade.passive_order_id, trade.aggressor_order_id, trade.price, trade.quantity)
                for trade in self.exchange.trades()
            ]
        )
