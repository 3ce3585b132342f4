"""Peers with a deliberate fault each, which the comparison must not give a speed. Run in processes of their own."""

import os
import threading
from typing import Any

from smrx.bench.peers import heap
from smrx.bench.peers.calls import Calls, Fills


class Newest(heap.Peer):
    """Serves the newest order of a price first: price priority without time priority."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        book = _NewestFirst()
        self.calls = [(getattr(book, function.__name__), arguments) for function, arguments in self.calls]


class _NewestFirst(heap.Book):
    def place(self, buy: bool, price: int, lots: int, number: int) -> Any:
        fills = super().place(buy, price, lots, number)
        if price in self.queues[buy]:
            self.queues[buy][price].rotate(1)
        return fills

    def cancel(self, number: int) -> None:
        """Other orders are filled than should be: those are not there to cancel."""
        if number in self.open:
            super().cancel(number)


class Silent(heap.Peer):
    """Trades, and loses the last fill."""

    def fills(self) -> Fills:
        return super().fills()[:-1]


class Raising(heap.Peer):
    def play(self, first: int, last: int) -> None:
        raise RuntimeError("no such order")


class Dying(heap.Peer):
    def play(self, first: int, last: int) -> None:
        os._exit(3)


class Hanging(heap.Peer):
    def play(self, first: int, last: int) -> None:
        threading.Event().wait()


FAULTS = {one.__name__.lower(): one for one in (Newest, Silent, Raising, Dying, Hanging)}
Peer = FAULTS[os.environ.get("SMRX_TEST_FAULT", "silent")]
