"""order-matching: a matching engine in plain Python (github.com/khrapovs/OrderBookMatchingEngine)."""

from datetime import datetime, timedelta
from typing import Any

from smrx.bench.peers.peer_calls import Calls, Fills, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer


class Peer(PythonPeer):
    """Orders are objects with a time, made before the clock starts; placing and matching are two calls."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = import_peer("order_matching.matching_engine", "order-matching")
        orders, _ = import_peer("order_matching.orders", "order-matching")
        order, _ = import_peer("order_matching.order", "order-matching")
        enums, _ = import_peer("order_matching.enums", "order-matching")
        log, _ = import_peer("loguru", "loguru")
        # Otherwise it logs several lines per call.
        log.logger.disable("order_matching")
        engine = module.MatchingEngine(seed=1)

        def place(placed: Any, at: datetime) -> Any:
            engine.place(placed)
            return engine.match(at)

        begin = datetime(2000, 1, 1)
        for at, (cancel, buy, price, lots, number) in enumerate(calls.tolist()):
            if cancel:
                self.calls.append((engine.cancel_order, (str(number),)))
                continue
            now = begin + timedelta(microseconds=at)
            limit = order.LimitOrder(
                side=enums.Side.BUY if buy else enums.Side.SELL,
                price=price,
                size=lots,
                timestamp=now,
                order_id=str(number),
                trader_id="bench",
            )
            self.calls.append((place, (orders.Orders([limit]), now)))

    def fills(self) -> Fills:
        return as_fills(
            [
                (int(trade.book_order_id), int(trade.incoming_order_id), int(trade.price), int(trade.size))
                for found in self.results
                if found is not None
                for trade in found.trades
            ]
        )
