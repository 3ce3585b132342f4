"""Base classes of the adapters for peers that are called from Python."""

import platform
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from smrx.bench.peers.peer_calls import Calls, Fills, PeerUnavailable, as_fills

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def import_peer(module: str, distribution: str) -> tuple[Any, str]:
    """Return a peer's module and version; raises PeerUnavailable if it is not installed or cannot be imported."""
    try:
        number = version(distribution)
    except PackageNotFoundError:
        raise PeerUnavailable(f'{distribution} is not installed; install it with pip install "smrx[peers]"') from None
    try:
        return import_module(module), number
    except Exception as error:  # noqa: BLE001  # Foreign packages raise anything when they are imported.
        raise PeerUnavailable(
            f"{distribution} {number} cannot be imported here: {type(error).__name__}: {error}"
        ) from None


class PythonPeer:
    """A list of function calls with their arguments, made before the clock starts, and the results."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.results: list[Any] = []

    def play(self, first: int, last: int) -> None:
        self.results += [function(*arguments) for function, arguments in self.calls[first:last]]


class PlainBook(Protocol):
    """An order book of this package in plain Python."""

    def place(self, buy: bool, price: int, lots: int, number: int, /) -> list[tuple[int, int, int, int]] | None:
        """Match an order and add the remainder to the book; return its fills as (maker, taker, price, lots)."""

    def cancel(self, number: int, /) -> None:
        """Cancel an open order."""


class PlainPeer(PythonPeer):
    """The adapter of a PlainBook."""

    def __init__(self, calls: Calls, book: PlainBook) -> None:
        super().__init__()
        self.version = f"Python {platform.python_version()}"
        for cancel, buy, price, lots, number in calls.tolist():
            self.calls.append((book.cancel, (number,)) if cancel else (book.place, (buy, price, lots, number)))

    def fills(self) -> Fills:
        return as_fills([fill for fills in self.results if fills for fill in fills])
