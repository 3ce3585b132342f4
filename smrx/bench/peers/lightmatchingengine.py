"""lightmatchingengine: a matching engine in plain Python (github.com/gavincyi/LightMatchingEngine)."""

from smrx.bench.peers.peer_calls import Calls, Fills, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer

_INSTRUMENT = "BENCH"


class Peer(PythonPeer):
    """The engine numbers orders from 1. It returns a trade for each side of a match."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = import_peer("lightmatchingengine.lightmatchingengine", "lightmatchingengine")
        engine = module.LightMatchingEngine()
        for cancel, buy, price, lots, number in calls.tolist():
            side = module.Side.BUY if buy else module.Side.SELL
            self.calls.append(
                (engine.cancel_order, (number, _INSTRUMENT))
                if cancel
                else (engine.add_order, (_INSTRUMENT, price, lots, side))
            )

    def fills(self) -> Fills:
        return as_fills(
            [
                (trade.order_id, order.order_id, trade.trade_price, trade.trade_qty)
                for order, trades in (found for found in self.results if isinstance(found, tuple))
                for trade in trades
                if trade.order_id != order.order_id
            ]
        )
