"""Settlement as it runs: feed in, attested, verified, settled. One thread; the caller owns the loop and the signals.

Called by `smrx settle run`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.config import Config
from smrx.feed.anchor import Anchor
from smrx.feed.feed_errors import Disagreement, FeedConflict, FeedError, GapUnfillable
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.feed.subscriber import Endpoint, Subscriber
from smrx.settlement.balance_comparison import Ask, Comparison
from smrx.settlement.follower.alarms import AlarmCode, Alarms
from smrx.settlement.follower.settler import CHECKPOINT_SECONDS, Settling
from smrx.settlement.settlement_errors import NotConnected, SettlementError, Unattested, Violation
from smrx.sinks.contract import Origin
from smrx.sinks.sink_errors import SinkError, SinkFault, SinkMismatch

#: How long one turn waits for events: the longest a signal or a deadline waits to be noticed.
_TURN_SECONDS: Final = 0.1
#: Nodes apply the same within milliseconds; one that restarts needs a second or two.
UNATTESTED_SECONDS: Final = 5.0

#: Alarms for what ends a run.
_CODES: Final[dict[type[Exception], AlarmCode]] = {
    GapUnfillable: AlarmCode.GAP,
    FeedConflict: AlarmCode.COPIES_DIFFER,
    Disagreement: AlarmCode.DISAGREEMENT,
    Violation: AlarmCode.VIOLATION,
    Unattested: AlarmCode.UNATTESTED,
    SinkError: AlarmCode.SINK_FAILED,
    SinkMismatch: AlarmCode.SINK_MISMATCH,
}
_DISSENTS: Final = {"state_hash": AlarmCode.STATES_DIFFER, "history": AlarmCode.OTHER_HISTORY}


class Summary(msgspec.Struct, kw_only=True):
    """What a run has proved. Sequences and counts are of events unless said otherwise."""

    origin: Origin | None  #: where the books begin; None for event 1
    sequence: int  #: every event up to this one is verified, from the first or the one after the origin on
    command_sequence: int
    state_hash: str  #: in hex, after the last command a majority attested
    trades: int  #: settled: match ids up to this one, from 1 or the one after the origin's on
    trades_written: int  #: by this run
    committed: int  #: the last event of the last checkpoint
    checkpoints: int
    attested_by: list[int]
    unverified: int  #: received, and not attested by a majority
    excluded: list[int]  #: nodes that contradicted a majority
    known_sequence: int  #: the newest event any node spoke of
    gaps: int
    gaps_healed: int
    retransmitted: int
    duplicates: int  #: events that came again, the copies of other nodes among them
    duplicate_frames: int  #: frames that the same node had published before
    reordered_frames: int  #: frames that came after later ones of the same node
    garbage_frames: int
    balances_compared: int  #: digests of nodes that were those of the books
    alarms: int
    accounts: int
    open_orders: int
    supply: dict[str, int]  #: per asset: what all accounts own = deposits less withdrawals, in minimal units
    seconds: float
    events_per_second: float  #: until the last one was settled
    out: list[str]


def quorum_for(config: Config, node_ids: Sequence[int], first: int = 1, anchor: Anchor | None = None) -> Quorum:
    """A quorum of these nodes among all members. Raises ValueError if they can be no majority."""
    return Quorum(Sequencer(node_ids, first=first), node_ids, len(config.nodes), anchor=anchor)


class Settlement:
    """Subscriber, books and sinks, in a row."""

    def __init__(
        self,
        config: Config,
        settling: Settling,
        alarms: Alarms,
        *,
        node_ids: Sequence[int] | None = None,
        ask: Ask | None = None,
    ) -> None:
        """Follow the nodes from where `settling`, which is open, stands. Raises ValueError if they are no majority."""
        nodes = config.nodes if node_ids is None else [config.node(node_id) for node_id in node_ids]
        self.settling = settling
        self.alarms = alarms
        self._from = settling.ledger.sequence
        self.quorum = quorum_for(config, [node.id for node in nodes], self._from + 1, settling.anchor)
        self.subscriber = Subscriber(
            [Endpoint(node.id, node.events_address, node.retransmit_address) for node in nodes], quorum=self.quorum
        )
        self.comparison = Comparison(settling.ledger, len(config.nodes), alarms, ask)
        self._started = self._last_event_at = self._attested_at = time.monotonic()
        self._unattested_said = False
        self._settled_at = self._started
        self._on_turn: Callable[[], None] | None = None
        self._rate = 0.0
        self._rate_from = (self._started, self._from)

    def close(self) -> None:
        """Close every socket."""
        self.subscriber.close()

    @property
    def sequence(self) -> int:
        """The last event posted."""
        return self.settling.ledger.sequence

    def turn(self, timeout: float = _TURN_SECONDS, until_sequence: int | None = None) -> int:
        """Take in what is released within `timeout` seconds, up to the command of `until_sequence`; count events.

        Raises FeedError (a gap that cannot be filled, nodes that disagree) and SettlementError.
        """
        if self.settling.uncommitted:
            timeout = min(timeout, CHECKPOINT_SECONDS)
        try:
            events = self.subscriber.poll(timeout)
        finally:
            self._tell_dissents()
        self._note_positions()
        if until_sequence is not None and len(events) > (wanted := max(0, until_sequence - self.sequence)):
            # To the end of its command: what is released is whole commands, and so are checkpoints.
            commands = events["command_sequence"]
            events = events[: int(np.searchsorted(commands, commands[wanted - 1], side="right")) if wanted else 0]
        now = time.monotonic()
        if len(events):
            self._last_event_at = now
        self._watch_attestation(now, len(events))
        self._settle(events)
        # However long a sink kept everybody waiting: nobody was silent for that.
        settled_at = time.monotonic()
        if len(events):
            self._settled_at = settled_at
        stood = settled_at - now
        self._last_event_at += stood
        self._attested_at += stood
        self.alarms.tend()
        return len(events)

    def listen(self, seconds: float) -> None:
        """Go on reading the feed for so long while a sink is waited for; nothing is settled. Raises FeedError."""
        try:
            self.subscriber.listen(seconds)
        finally:
            self._tell_dissents()
        self._note_positions()
        self.alarms.tend()
        if self._on_turn is not None:
            self._on_turn()

    @property
    def behind(self) -> int:
        """Events that a node has spoken of and that are not settled."""
        return max(0, self.subscriber.sequencer.known - self.sequence)

    def _note_positions(self) -> None:
        for node, position in self.quorum.positions:
            self.comparison.add(node, position)
        self.quorum.positions.clear()

    def _settle(self, events: NDArray[np.void]) -> None:
        """Post the events, standing still wherever the books are to be compared."""
        while len(events):
            count = self._until_stop(events)
            self.settling.take(events[:count], self.quorum.hash_after)
            events = events[count:]
            self._compare()
        self._compare()
        self.settling.commit_if_due(self.quorum.hash_after)

    def _compare(self) -> None:
        self.comparison.check()
        self.settling.paused = self.comparison.naming

    def _until_stop(self, events: NDArray[np.void]) -> int:
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        count = len(events)
        for stop in self.comparison.stops(last)[:1]:
            count = min(count, max(1, stop - first + 1))
        for command in self.comparison.stop_commands():
            at = int(np.searchsorted(events["command_sequence"], np.uint64(command), side="right"))
            if at > 0:
                count = min(count, at)
        return count

    def run(
        self,
        *,
        stop: Callable[[], bool],
        until_sequence: int | None = None,
        idle_seconds: float | None = None,
        connect_seconds: float = 10.0,
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        """Turn until stop() says so, event `until_sequence` is settled, or nothing came for `idle_seconds`.

        Whatever ends it otherwise is raised, and an alarm: FeedError, SettlementError (NotConnected when no node is
        heard within `connect_seconds`, Unattested when it is to end and events wait for a majority). When it returns
        everything is committed and the sums of the books are checked.
        """
        try:
            self._run(stop, until_sequence, idle_seconds, connect_seconds, on_turn)
        except (FeedError, SettlementError, SinkFault) as error:
            code = _CODES.get(type(error))
            if code is not None:
                self.alarms.say(code, str(error), sequence=getattr(error, "sequence", None))
            raise

    def _run(
        self,
        stop: Callable[[], bool],
        until_sequence: int | None,
        idle_seconds: float | None,
        connect_seconds: float,
        on_turn: Callable[[], None] | None,
    ) -> None:
        self._on_turn = on_turn
        while not stop() and (until_sequence is None or self.sequence < until_sequence):
            self.turn(until_sequence=until_sequence)
            if on_turn is not None:
                on_turn()
            now = time.monotonic()
            if not self.subscriber.stats.heard_at:
                if now - self._started > connect_seconds:
                    where = ", ".join(endpoint.events_address for endpoint in self.subscriber.endpoints)
                    raise NotConnected(
                        f"expected a node's feed at {where}, heard none for {connect_seconds:g} s; start the cluster, "
                        "or name its configuration with --config"
                    )
                continue
            quiet = now - self._last_event_at
            if idle_seconds is not None and quiet >= idle_seconds and not self.subscriber.sequencer.in_gap:
                if self.quorum.unverified:
                    if now - self._attested_at < max(idle_seconds, UNATTESTED_SECONDS):
                        continue
                    raise Unattested(self._unattested())
                break
        self.settling.ledger.check_end()
        self.settling.check_sums()
        self.settling.commit(self.quorum.hash_after)

    def silence(self) -> float:
        """Seconds since any node was heard."""
        return time.monotonic() - max(self.subscriber.stats.heard_at.values(), default=self._started)

    def rate(self) -> float:
        """Events settled a second, over about the last second."""
        now, (since, before) = time.monotonic(), self._rate_from
        if now - since >= 1.0:
            self._rate = (self.sequence - before) / (now - since)
            self._rate_from = (now, self.sequence)
        return self._rate

    def gauges(self) -> dict[str, float]:
        """The numbers of settlement_metrics.py."""
        feed = self.subscriber.feed_stats
        return {
            "sequence": self.settling.committed.event_sequence if self.settling.committed else 0,
            "known_sequence": self.subscriber.sequencer.known,
            "unverified_events": self.quorum.unverified,
            "trades": self.settling.ledger.trades,
            "events_per_second": self._rate,
            "gaps": feed.gaps,
            "gaps_healed": feed.gaps_healed,
            "reordered_frames": self.subscriber.arrivals.reordered,
            "duplicate_frames": self.subscriber.arrivals.duplicate,
            "attesting_nodes": len(self.quorum.attested_by),
            "balances_compared": self.comparison.compared,
        }

    def summary(self, out: list[str]) -> Summary:
        """What was proved so far."""
        settling, feed, ledger = self.settling, self.subscriber.feed_stats, self.settling.ledger
        seconds = time.monotonic() - self._started
        busy = self._settled_at - self._started
        return Summary(
            origin=settling.origin,
            sequence=ledger.sequence,
            command_sequence=ledger.command_sequence,
            state_hash=f"{self.quorum.attested.state_hash:016x}",
            trades=ledger.trades,
            trades_written=ledger.trades - settling.trades_before,
            committed=settling.committed.event_sequence if settling.committed else 0,
            checkpoints=settling.checkpoints,
            attested_by=self.quorum.attested_by,
            unverified=self.quorum.unverified,
            excluded=self.quorum.excluded,
            known_sequence=self.subscriber.sequencer.known,
            gaps=feed.gaps,
            gaps_healed=feed.gaps_healed,
            retransmitted=self.subscriber.stats.retransmitted,
            duplicates=feed.duplicates,
            duplicate_frames=self.subscriber.arrivals.duplicate,
            reordered_frames=self.subscriber.arrivals.reordered,
            garbage_frames=self.subscriber.stats.garbage,
            balances_compared=self.comparison.compared,
            alarms=self.alarms.count,
            accounts=ledger.accounts,
            open_orders=ledger.open_orders,
            supply=ledger.supply(),
            seconds=round(seconds, 3),
            events_per_second=round((ledger.sequence - self._from) / busy, 1) if busy else 0.0,
            out=out,
        )

    def _tell_dissents(self) -> None:
        for dissent in self.quorum.dissents:
            code = _DISSENTS.get(dissent.field, AlarmCode.COPIES_DIFFER)
            self.alarms.say(code, dissent.message, sequence=dissent.sequence, node=dissent.node, field=dissent.field)
        self.quorum.dissents.clear()

    def _watch_attestation(self, now: float, released: int) -> None:
        """Say aloud, once, that events wait too long for a majority."""
        if released or not self.quorum.unverified:
            self._attested_at = now
            self._unattested_said = False
        elif now - self._attested_at >= UNATTESTED_SECONDS and not self._unattested_said:
            self._unattested_said = True
            self.alarms.say(AlarmCode.UNATTESTED, self._unattested(), sequence=self.quorum.released + 1)

    def _unattested(self) -> str:
        first = self.quorum.released + 1
        last = self.quorum.released + self.quorum.unverified
        heard = sorted(self.subscriber.stats.heard_at)
        return (
            f"events {first} to {last} are here and not attested: expected {self.quorum.majority} nodes that published "
            f"the same, heard nodes {', '.join(map(str, heard)) or 'none'}"
        )
