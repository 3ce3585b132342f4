"""Peers with one deliberate fault each, which the comparison must find. Each runs in its own process."""

import os
import threading
from typing import Any

from smrx.bench.peers import heap_book
from smrx.bench.peers.peer_calls import Calls, Fills


class Newest(heap_book.Peer):
    """Fills the newest order of a price first: price priority without time priority."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        book = _NewestFirst()
        self.calls = [(getattr(book, function.__name__), arguments) for function, arguments in self.calls]


class _NewestFirst(heap_book.Book):
    def place(self, buy: bool, price: int, lots: int, number: int) -> Any:
        fills = super().place(buy, price, lots, number)
        if price in self.queues[buy]:
            self.queues[buy][price].rotate(1)
        return fills

    def cancel(self, number: int) -> None:
        """Cancel an order if it is open: with wrong fills it may not be."""
        if number in self.open:
            super().cancel(number)


class Silent(heap_book.Peer):
    """Loses the last fill."""

    def fills(self) -> Fills:
        return super().fills()[:-1]


class Raising(heap_book.Peer):
    def play(self, first: int, last: int) -> None:
        raise RuntimeError("no such order")


class Dying(heap_book.Peer):
    def play(self, first: int, last: int) -> None:
        os._exit(3)


class Hanging(heap_book.Peer):
    def play(self, first: int, last: int) -> None:
        threading.Event().wait()


FAULTS = {one.__name__.lower(): one for one in (Newest, Silent, Raising, Dying, Hanging)}
Peer = FAULTS[os.environ.get("SMRX_TEST_FAULT", "silent")]
