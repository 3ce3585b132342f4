"""lightmatchingengine: a matching engine in plain Python (github.com/gavincyi/LightMatchingEngine)."""

from smrx.bench.peers.called import Called, installed
from smrx.bench.peers.calls import Calls, Fills, as_fills

_INSTRUMENT = "BENCH"


class Peer(Called):
    """Orders are numbered by the engine, from 1. It tells both sides of a match: the taker first, for all makers."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = installed("lightmatchingengine.lightmatchingengine", "lightmatchingengine")
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
