"""bourse: an order book in Rust with a Python interface (github.com/zombie-einstein/bourse)."""

from smrx.bench.peers.peer_calls import Calls, Fills, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer


class Peer(PythonPeer):
    """The book numbers orders from 0 and keeps a list of its trades."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        module, self.version = import_peer("bourse.core", "bourse")
        self.book = module.OrderBook(0, 1)
        set_time, place_order, cancel_order = self.book.set_time, self.book.place_order, self.book.cancel_order

        def place(now: int, buy: bool, lots: int, price: int) -> None:
            # Its queues are sorted by time, so each order needs its own time.
            set_time(now)
            place_order(buy, lots, 0, price)

        for cancel, buy, price, lots, number in calls.tolist():
            self.calls.append((cancel_order, (number - 1,)) if cancel else (place, (number, buy, lots, price)))

    def fills(self) -> Fills:
        return as_fills(
            [(maker + 1, taker + 1, price, lots) for _, _, price, lots, taker, maker in self.book.get_trades()]
        )
