"""Proves of a stream of events that nothing is missing and nothing contradicts itself, and posts it to the books.

Checked of every event: it follows the last by sequence; its command is the last one's or the next; time does not go
back, nor pass within a command; its kind is known. Of every trade: it has the next match id and is followed by the
fills of maker and taker that say the same. The rest is the books' (ledger.py). Whole batches at a time; no sockets, no
files, no clock. Raises Violation at the first thing that is wrong, and is of no use after that.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import EventKind, Side
from smrx.engine.records import EVENT
from smrx.settlement.errors import Violation
from smrx.settlement.ledger import Books, SettledTrade

_KNOWN_KIND: Final = np.zeros(256, np.bool_)
_KNOWN_KIND[[int(kind) for kind in EventKind]] = True
_NO_FILLS: Final = "a trade without the fills of maker and taker"
#: The sums over all balances are checked once in so many events a balance, so that it costs a fraction of an event.
_EVENTS_PER_SUM: Final = 10
_LEAST_EVENTS_PER_SUM: Final = 10_000


class Verifier:
    """Follows one stream from its first event on."""

    def __init__(self) -> None:
        self.books = Books()
        self.sequence = 0  #: the last event verified and posted
        self.command_sequence = 0  #: its command
        self.trades = 0  #: trades verified: match ids have no gaps
        self.received = 0  #: the last event taken in; a trade without its fills waits between the two
        self._command = 0
        self._time_ns = 0
        self._waiting = np.empty(0, EVENT)
        self._sums_checked_at = 0

    def apply(self, events: NDArray[np.void]) -> list[SettledTrade]:
        """Verify the events that follow the last ones; return the trades that are settled by them."""
        if not len(events):
            return []
        self._check_stream(events)
        if len(self._waiting):
            events = np.concatenate((self._waiting, events))
        complete = _complete(events)
        self._waiting = events[complete:]
        events = events[:complete]
        if not len(events):
            return []
        self._check_trades(events)
        settled = self.books.post(events)
        self.trades += len(settled)
        self.sequence = int(events["sequence"][-1])
        self.command_sequence = int(events["command_sequence"][-1])
        due = max(_LEAST_EVENTS_PER_SUM, _EVENTS_PER_SUM * self.books.balance_count)
        if self.sequence - self._sums_checked_at >= due:
            self.check_sums()
        return settled

    def check_sums(self) -> None:
        """Check, per asset, that all accounts together own deposits less withdrawals."""
        self.books.check_sums(self.sequence)
        self._sums_checked_at = self.sequence

    def check_end(self) -> None:
        """Check that the stream may end here: no trade waits for its fills."""
        if len(self._waiting):
            raise Violation(self.sequence + 1, f"found {_NO_FILLS}, and nothing after it")

    def _check_stream(self, events: NDArray[np.void]) -> None:
        first = self.received + 1
        expected = np.arange(first, first + len(events), dtype=np.uint64)
        at = _first(events["sequence"] != expected)
        if at is not None:
            found = int(events["sequence"][at])
            raise Violation(int(expected[at]), f"expected the next event sequence, found {found}")
        commands = events["command_sequence"]
        step = np.diff(commands, prepend=np.uint64(self._command))
        # Unsigned: a step back is a very large one. The first command is 1.
        at = _first(step > 1) if self._command or commands[0] else 0
        if at is not None:
            last = int(commands[at - 1]) if at else self._command
            raise Violation(int(expected[at]), f"expected command {last} or {last + 1}, found {int(commands[at])}")
        times = events["time_ns"]
        previous = np.concatenate((np.array([self._time_ns], np.int64), times[:-1]))
        at = _first((times != previous) & (step == 0))
        if at is not None:
            raise Violation(int(expected[at]), f"time went from {previous[at]} to {times[at]} within a command")
        at = _first(times < previous)
        if at is not None:
            raise Violation(int(expected[at]), f"time went back from {previous[at]} to {times[at]}")
        at = _first(~_KNOWN_KIND[events["kind"]])
        if at is not None:
            raise Violation(int(expected[at]), f"expected a known kind, found {int(events['kind'][at])}")
        self.received = first + len(events) - 1
        self._command = int(commands[-1])
        self._time_ns = int(times[-1])

    def _check_trades(self, events: NDArray[np.void]) -> None:
        kinds = events["kind"]
        trades_at = np.flatnonzero(kinds == EventKind.TRADE)
        self._check_fills_follow(events, trades_at)
        if not len(trades_at):
            return
        trades = events[trades_at]
        expected = np.arange(self.trades + 1, self.trades + 1 + len(trades), dtype=np.uint64)
        at = _first(trades["match_id"] != expected)
        if at is not None:
            raise Violation(
                int(trades["sequence"][at]),
                f"expected match id {int(expected[at])}, found {int(trades['match_id'][at])}",
            )
        sides = trades["side"]
        at = _first((sides != Side.BUY) & (sides != Side.SELL))
        if at is not None:
            raise Violation(int(trades["sequence"][at]), f"expected side BUY or SELL, found {int(sides[at])}")
        other_side = (Side.BUY + Side.SELL - sides).astype(np.uint8)
        _check_fills("maker", trades, events[trades_at + 1], "counter_order_id", "counter_account", other_side)
        _check_fills("taker", trades, events[trades_at + 2], "order_id", "account", sides)

    def _check_fills_follow(self, events: NDArray[np.void], trades_at: NDArray[np.int64]) -> None:
        """Check that the fills are the two events after each trade and no others."""
        kinds = events["kind"]
        # Two more than there are: the fills of a trade at the end may be wrongly missing altogether.
        due = np.zeros(len(events) + 2, np.bool_)
        due[trades_at + 1] = True
        due[trades_at + 2] = True
        is_fill = np.zeros(len(due), np.bool_)
        is_fill[: len(events)] = (kinds == EventKind.PARTIALLY_FILLED) | (kinds == EventKind.FILLED)
        at = _first(is_fill != due)
        if at is not None:
            what = "a fill without a trade" if is_fill[at] else _NO_FILLS
            raise Violation(int(events["sequence"][0]) + at, f"found {what}")


def _check_fills(
    party: str,
    trades: NDArray[np.void],
    fills: NDArray[np.void],
    order_column: str,
    account_column: str,
    sides: NDArray[np.uint8],
) -> None:
    """Check that each fill says of its party what the trade says."""
    for column, expected in (
        ("match_id", trades["match_id"]),
        ("command_sequence", trades["command_sequence"]),
        ("instrument", trades["instrument"]),
        ("price_ticks", trades["price_ticks"]),
        ("quantity_lots", trades["quantity_lots"]),
        ("order_id", trades[order_column]),
        ("account", trades[account_column]),
        ("side", sides),
        ("kind", np.where(fills["leaves_lots"] == 0, EventKind.FILLED, EventKind.PARTIALLY_FILLED)),
    ):
        at = _first(fills[column] != expected)
        if at is not None:
            raise Violation(
                int(fills["sequence"][at]),
                f"trade {int(trades['match_id'][at])}: the {party}'s fill has {column} {int(fills[column][at])}, "
                f"expected {int(expected[at])}",
            )


def _complete(events: NDArray[np.void]) -> int:
    """How many events from the start form whole trades: a trade and its two fills are not parted."""
    tail = np.flatnonzero(events["kind"][-2:] == EventKind.TRADE)
    return len(events) if not len(tail) else max(0, len(events) - 2) + int(tail[0])


def _first(wrong: NDArray[np.bool_]) -> int | None:
    """The index of the first True, or None."""
    return int(wrong.argmax()) if wrong.any() else None
