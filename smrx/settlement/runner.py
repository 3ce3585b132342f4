"""Settlement as it runs: feed in, verified, settled trades out. One thread; the caller owns the loop and the signals.

Called by `smrx settle run`.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from smrx.feed.subscriber import Subscriber
from smrx.settlement.errors import SettlementError
from smrx.settlement.sink import CsvSink
from smrx.settlement.verifier import Verifier

#: How long one turn waits for events: the longest a signal or a deadline waits to be noticed.
_TURN_SECONDS: Final = 0.1


class NotConnected(SettlementError):
    """No node was heard."""


class Summary(msgspec.Struct, kw_only=True):
    """What a run has proved. Sequences and counts are of events unless said otherwise."""

    sequence: int  #: every event up to this one is verified
    command_sequence: int
    trades: int  #: settled: match ids 1 to this one
    trades_written: int
    trades_confirmed: int  #: found in the file, equal
    trades_unconfirmed: int  #: in the file, but past the last event verified
    known_sequence: int  #: the newest event any node spoke of
    gaps: int
    gaps_healed: int
    retransmitted: int
    duplicates: int
    garbage_frames: int
    accounts: int
    open_orders: int
    supply: dict[str, int]  #: per asset: what all accounts own = deposits less withdrawals, in minimal units
    seconds: float
    events_per_second: float
    out: str


class Settlement:
    """Subscriber, verifier and sink, in a row."""

    def __init__(self, subscriber: Subscriber, sink: CsvSink) -> None:
        self.subscriber = subscriber
        self.verifier = Verifier()
        self.sink = sink
        self._started = time.monotonic()
        self._last_event_at = self._started
        self._rate = 0.0
        self._rate_from = (self._started, 0)

    def turn(self, timeout: float = _TURN_SECONDS, until_sequence: int | None = None) -> int:
        """Take in what arrives within `timeout` seconds, as far as `until_sequence`; return how many events.

        Raises FeedError (a gap that cannot be filled, copies that differ) and SettlementError.
        """
        events = self.subscriber.poll(timeout)
        if until_sequence is not None:
            events = events[: max(0, until_sequence - self.received)]
        if len(events):
            self._last_event_at = time.monotonic()
            self.sink.write(self.verifier.apply(events))
        return len(events)

    @property
    def received(self) -> int:
        """The last event given to the verifier; fills of its last trade may be missing still."""
        return self.verifier.received

    def run(
        self,
        *,
        stop: Callable[[], bool],
        until_sequence: int | None = None,
        idle_seconds: float | None = None,
        connect_seconds: float = 10.0,
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        """Turn until stop() says so, event `until_sequence` is verified, or nothing came for `idle_seconds`.

        Raises NotConnected when no node is heard within `connect_seconds` of the start, and what turn() raises. After
        it returns the sums of the books and the rest of the file have been checked.
        """
        while not stop() and (until_sequence is None or self.received < until_sequence):
            self.turn(until_sequence=until_sequence)
            if on_turn is not None:
                on_turn()
            now = time.monotonic()
            if not self.subscriber.stats.heard_at:
                if now - self._started > connect_seconds:
                    where = ", ".join(endpoint.events_address for endpoint in self.subscriber.endpoints)
                    raise NotConnected(f"expected a node's feed at {where}, heard none for {connect_seconds:g} s")
                continue
            quiet = now - self._last_event_at
            if idle_seconds is not None and quiet >= idle_seconds and not self.subscriber.sequencer.in_gap:
                self.verifier.check_end()
                break
        self.verifier.check_sums()
        self.sink.check_rest(self.verifier.sequence)

    def silence(self) -> float:
        """Seconds since any node was heard."""
        return time.monotonic() - max(self.subscriber.stats.heard_at.values(), default=self._started)

    def rate(self) -> float:
        """Events verified a second, over about the last second."""
        now, (since, before) = time.monotonic(), self._rate_from
        if now - since >= 1.0:
            self._rate = (self.received - before) / (now - since)
            self._rate_from = (now, self.received)
        return self._rate

    def summary(self) -> Summary:
        """What was proved so far."""
        verifier, feed = self.verifier, self.subscriber.feed_stats
        books = verifier.books
        seconds = time.monotonic() - self._started
        return Summary(
            sequence=verifier.sequence,
            command_sequence=verifier.command_sequence,
            trades=verifier.trades,
            trades_written=self.sink.written,
            trades_confirmed=self.sink.confirmed,
            trades_unconfirmed=self.sink.unconfirmed,
            known_sequence=self.subscriber.sequencer.known,
            gaps=feed.gaps,
            gaps_healed=feed.gaps_healed,
            retransmitted=self.subscriber.stats.retransmitted,
            duplicates=feed.duplicates,
            garbage_frames=self.subscriber.stats.garbage,
            accounts=len(books.accounts),
            open_orders=len(books.orders),
            supply={books.assets[asset]: amount for asset, amount in sorted(books.supply.items())},
            seconds=round(seconds, 3),
            events_per_second=round(verifier.sequence / seconds, 1) if seconds else 0.0,
            out=str(self.sink.path),
        )
