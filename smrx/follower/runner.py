"""Run a projection: receive the feed, attest it, post it, write it. One thread; the caller owns the loop and signals.

Called by `smrx settle run`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Generic

import numpy as np
from numpy.typing import NDArray

from smrx import client_keys
from smrx.config import Config
from smrx.feed.anchor import Anchor
from smrx.feed.feed_errors import Disagreement, FeedConflict, FeedError, GapUnfillable
from smrx.feed.quorum import Quorum
from smrx.feed.sequencer import Sequencer
from smrx.feed.subscriber import Endpoint, Subscriber
from smrx.follower.alarms import AlarmCode, Alarms
from smrx.follower.follow_errors import FollowError, NotConnected, Unattested, Violation
from smrx.follower.interfaces import P, PositionCheck
from smrx.follower.settler import CHECKPOINT_INTERVAL_S, Settler
from smrx.sinks.sink_errors import SinkError, SinkFault, SinkMismatch

#: How long one turn waits for events, and so how late a signal or a deadline may be noticed.
_TURN_S: Final = 0.1
#: Nodes apply the same commands within milliseconds; one that restarts needs a second or two.
UNATTESTED_TIMEOUT_S: Final = 5.0

#: Alarms for the errors that end a run.
_ALARM_CODES: Final[dict[type[Exception], AlarmCode]] = {
    GapUnfillable: AlarmCode.GAP,
    FeedConflict: AlarmCode.COPIES_DIFFER,
    Disagreement: AlarmCode.DISAGREEMENT,
    Violation: AlarmCode.VIOLATION,
    Unattested: AlarmCode.UNATTESTED,
    SinkError: AlarmCode.SINK_FAILED,
    SinkMismatch: AlarmCode.SINK_MISMATCH,
}
_DISSENT_CODES: Final = {"state_hash": AlarmCode.STATES_DIFFER, "history": AlarmCode.OTHER_HISTORY}


def quorum_for(config: Config, node_ids: Sequence[int], first: int = 1, anchor: Anchor | None = None) -> Quorum:
    """Return a quorum of these nodes among all members. Raises ValueError if they are no majority."""
    return Quorum(Sequencer(node_ids, first=first), node_ids, len(config.nodes), anchor=anchor)


class Runner(Generic[P]):
    """Connects a subscriber to a settler."""

    def __init__(
        self,
        config: Config,
        settler: Settler[P],
        position_check: PositionCheck,
        alarms: Alarms,
        *,
        node_ids: Sequence[int] | None = None,
        key: str | None = None,
    ) -> None:
        """Follow the nodes from where `settler`, which is open, stands. Raises ValueError if they are no majority.

        `key`: a key file, for a cluster whose nodes have keys. Raises KeysError.
        """
        nodes = config.nodes if node_ids is None else [config.node(node_id) for node_id in node_ids]
        self.settler = settler
        self.position_check = position_check
        self.alarms = alarms
        self._first = settler.projection.sequence
        self.quorum = quorum_for(config, [node.id for node in nodes], self._first + 1, settler.anchor)
        self.subscriber = Subscriber(
            [Endpoint(node.id, node.events_address) for node in nodes],
            quorum=self.quorum,
            keys=client_keys.of_client(config, key),
        )
        self._started = self._last_event_at = self._attested_at = self._settled_at = time.monotonic()
        self._unattested_reported = False
        self._on_turn: Callable[[], None] | None = None
        self._rate = 0.0
        self._rate_from = (self._started, self._first)

    def close(self) -> None:
        """Close every socket."""
        self.subscriber.close()

    @property
    def sequence(self) -> int:
        """The last event posted."""
        return self.settler.projection.sequence

    @property
    def behind(self) -> int:
        """The number of events that a node has announced and that are not posted."""
        return max(0, self.subscriber.sequencer.known - self.sequence)

    def turn(self, timeout: float = _TURN_S, until_sequence: int | None = None) -> int:
        """Post the events released within `timeout` seconds, up to the command of `until_sequence`; return how many.

        Raises FeedError (a gap that cannot be filled, nodes that disagree) and FollowError.
        """
        if self.settler.has_uncommitted:
            timeout = min(timeout, CHECKPOINT_INTERVAL_S)
        try:
            events = self.subscriber.poll(timeout)
        finally:
            self._report_dissents()
        self._record_positions()
        if until_sequence is not None and len(events) > (wanted := max(0, until_sequence - self.sequence)):
            # Up to the end of its command: whole commands are released, and checkpoints lie between commands.
            commands = events["command_sequence"]
            events = events[: int(np.searchsorted(commands, commands[wanted - 1], side="right")) if wanted else 0]
        now = time.monotonic()
        if len(events):
            self._last_event_at = now
        self._watch_attestation(now, len(events))
        self._settle(events)
        settled_at = time.monotonic()
        if len(events):
            self._settled_at = settled_at
        # Time spent in the sinks is no silence of the nodes.
        duration = settled_at - now
        self._last_event_at += duration
        self._attested_at += duration
        self.alarms.reap_hooks()
        return len(events)

    def listen(self, seconds: float) -> None:
        """Receive the feed for so long while a sink is retried; nothing is posted. Raises FeedError."""
        try:
            self.subscriber.listen(seconds)
        finally:
            self._report_dissents()
        self._record_positions()
        self.alarms.reap_hooks()
        if self._on_turn is not None:
            self._on_turn()

    def run(
        self,
        *,
        stop: Callable[[], bool],
        until_sequence: int | None = None,
        idle_seconds: float | None = None,
        connect_seconds: float = 10.0,
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        """Turn until stop() is true, event `until_sequence` is posted, or no event came for `idle_seconds`.

        Every other end is an exception and an alarm: FeedError, FollowError (NotConnected when no node is heard
        within `connect_seconds`, Unattested when the run is to end and events wait for a majority). When it returns,
        everything is committed and the sums of the projection are checked.
        """
        try:
            self._run(stop, until_sequence, idle_seconds, connect_seconds, on_turn)
        except (FeedError, FollowError, SinkFault) as error:
            code = _ALARM_CODES.get(type(error))
            if code is not None:
                self.alarms.report(code, str(error), sequence=getattr(error, "sequence", None))
            raise

    def silence_s(self) -> float:
        """Return the seconds since any node was heard."""
        return time.monotonic() - max(self.subscriber.stats.heard_at.values(), default=self._started)

    def rate(self) -> float:
        """Return the events posted a second, over about the last second."""
        now, (since, before) = time.monotonic(), self._rate_from
        if now - since >= 1.0:
            self._rate = (self.sequence - before) / (now - since)
            self._rate_from = (now, self.sequence)
        return self._rate

    def elapsed_s(self) -> float:
        """Return the seconds since the run was created."""
        return time.monotonic() - self._started

    def average_rate(self) -> float:
        """Return the events posted a second by this run, up to the last one it posted."""
        busy = self._settled_at - self._started
        return (self.sequence - self._first) / busy if busy else 0.0

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
                    raise NotConnected(self._not_connected_text(connect_seconds))
                continue
            quiet_s = now - self._last_event_at
            if idle_seconds is not None and quiet_s >= idle_seconds and not self.subscriber.sequencer.in_gap:
                if self.quorum.unverified:
                    if now - self._attested_at < max(idle_seconds, UNATTESTED_TIMEOUT_S):
                        continue
                    raise Unattested(self._unattested_text())
                break
        self.settler.projection.check_end()
        self.settler.check_sums()
        self.settler.commit(self.quorum.hash_after)

    def _record_positions(self) -> None:
        for node, position in self.quorum.positions:
            self.position_check.add(node, position)
        self.quorum.positions.clear()

    def _settle(self, events: NDArray[np.void]) -> None:
        """Post the events, and stop wherever the projection is to be compared."""
        while len(events):
            count = self._count_to_stop(events)
            self.settler.settle(events[:count], self.quorum.hash_after)
            events = events[count:]
            self._check_positions()
        self._check_positions()
        self.settler.commit_if_due(self.quorum.hash_after)

    def _check_positions(self) -> None:
        self.position_check.check()
        self.settler.is_paused = self.position_check.is_investigating

    def _count_to_stop(self, events: NDArray[np.void]) -> int:
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        count = len(events)
        for stop in self.position_check.stop_events(last)[:1]:
            count = min(count, max(1, stop - first + 1))
        for command in self.position_check.stop_commands():
            at = int(np.searchsorted(events["command_sequence"], np.uint64(command), side="right"))
            if at > 0:
                count = min(count, at)
        return count

    def _report_dissents(self) -> None:
        for dissent in self.quorum.dissents:
            code = _DISSENT_CODES.get(dissent.field, AlarmCode.COPIES_DIFFER)
            self.alarms.report(code, dissent.message, sequence=dissent.sequence, node=dissent.node, field=dissent.field)
        self.quorum.dissents.clear()

    def _watch_attestation(self, now: float, released: int) -> None:
        """Raise an alarm, once, when events wait too long for a majority."""
        if released or not self.quorum.unverified:
            self._attested_at = now
            self._unattested_reported = False
        elif now - self._attested_at >= UNATTESTED_TIMEOUT_S and not self._unattested_reported:
            self._unattested_reported = True
            self.alarms.report(AlarmCode.UNATTESTED, self._unattested_text(), sequence=self.quorum.released + 1)

    def _not_connected_text(self, seconds: float) -> str:
        refusals = self.subscriber.refusals
        if refusals:
            return "; ".join(f"node {node} refuses: {refusal}" for node, refusal in sorted(refusals.items()))
        addresses = ", ".join(endpoint.events_address for endpoint in self.subscriber.endpoints)
        return (
            f"no node sent anything at {addresses} within {seconds:g} s; start the cluster, or name its configuration "
            "with --config"
        )

    def _unattested_text(self) -> str:
        first = self.quorum.released + 1
        last = self.quorum.released + self.quorum.unverified
        heard = ", ".join(map(str, sorted(self.subscriber.stats.heard_at))) or "none"
        return (
            f"events {first} to {last} have arrived and are not attested: {self.quorum.majority} nodes must publish "
            f"the same, nodes heard: {heard}"
        )
