"""Release the events that a majority of the cluster's nodes has published alike. Sans I/O.

Rules:

- An event is released once a majority of all members (not of those that are heard) has sent the same copy of it, or the
  digest of a range that contains it, and a majority has claimed the same (command sequence, state hash) at its command
  or a later one. The state hash is a chain over every command's events and state, so an agreed hash attests everything
  before it.
- Whole commands are released, in sequence, once. Up to `pending` events are held until then; beyond that the sequencer
  delivers no more, and drops what does not fit, to ask for it later.
- A node whose copy or claim differs is reported as a Dissent and excluded for good. If so many differ that the copies
  held cannot become the majority's, the node that sent them first is excluded instead, and everything not released is
  fetched again. If no majority is left, or can be, that is Disagreement.
- A node that is silent does not count, and counts again when it sends something.
- Time is an argument: seconds of any monotonic clock. No sockets.

Called by the subscriber, which passes every frame and sends the requests.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.feed.anchor import Anchor, AnchorCheck
from smrx.feed.claims import Claims
from smrx.feed.coverage import DIGEST_AGAIN_S, Coverage
from smrx.feed.feed_errors import Disagreement, FeedConflict
from smrx.feed.pending import Pending
from smrx.feed.retransmission import Request
from smrx.feed.sequencer import RETAINED_EVENTS, Sequencer
from smrx.wire import frames
from smrx.wire.frames import Claim, FeedPosition, Frame, FrameKind
from smrx.wire.records import EVENT

#: A node that has restarted publishes its log from event 1 on: a second or two for a million events.
OLD_FEED_TIMEOUT_S: Final = 5.0


class Dissent(NamedTuple):
    """A node contradicted others; for an alarm."""

    node: int
    sequence: int  #: the event, or the command where state hashes differ
    field: str
    message: str


class Quorum:
    """Decides which events a majority of `members` has published."""

    def __init__(
        self,
        sequencer: Sequencer,
        nodes: Sequence[int],
        members: int,
        *,
        anchor: Anchor | None = None,
        pending: int = RETAINED_EVENTS,
        old_feed_timeout_s: float = OLD_FEED_TIMEOUT_S,
    ) -> None:
        """Listen to `nodes` of a cluster of `members`. Raises ValueError if the nodes are no majority."""
        self.majority = members // 2 + 1
        if len(nodes) < self.majority:
            raise ValueError(
                f"expected at least {self.majority} of {members} nodes to listen to, which is a majority, found "
                f"{len(nodes)}"
            )
        self.sequencer = sequencer
        self.dissents: list[Dissent] = []
        self.positions: list[tuple[int, FeedPosition]] = []
        self._anchor = AnchorCheck(anchor, old_feed_timeout_s)
        self._pending = Pending(sequencer.expected - 1)
        self._pending_limit = pending
        self._nodes = {node: Coverage(covered=self.released) for node in nodes}
        self._dissenting: dict[int, int] = {}  #: node -> the event, not released yet, that it contradicts
        self._excluded: set[int] = set()
        self._claims = Claims(self.majority, self._counts)
        sequencer.set_limit(self.released + pending, 0.0)

    @property
    def attested(self) -> Claim:
        """The latest state that a majority has claimed."""
        return self._claims.attested

    @property
    def released(self) -> int:
        """The last event that was released."""
        return self._pending.released

    @property
    def unverified(self) -> int:
        """The number of events that are held, and not attested by a majority."""
        return len(self._pending)

    @property
    def attested_by(self) -> list[int]:
        """The nodes that claimed the last attested state, or a later one."""
        attested = self.attested.command_sequence
        return [n for n, coverage in self._nodes.items() if coverage.command >= attested > 0 and self._counts(n)]

    @property
    def excluded(self) -> list[int]:
        """The nodes that contradicted a majority."""
        return sorted(self._excluded | self._dissenting.keys())

    def hash_after(self, command_sequence: int) -> int:
        """Return the state hash that a majority claimed after exactly this command; 0 if it is unknown."""
        return self._claims.hash_after(command_sequence)

    def receive(self, node: int, frame: Frame, now: float) -> None:
        """Process one frame of a node. Raises FrameError as the sequencer does, Disagreement."""
        coverage = self._nodes[node]
        if not self._counts(node):
            return
        coverage.is_heard = True
        if frame.kind is FrameKind.ATTESTATION:
            self._receive_digest(node, coverage, frame, now)
            return
        if frame.kind is FrameKind.UNAVAILABLE:
            coverage.note_held(frame.correlation, frame.aux, now)
            self._anchor.note_oldest(node, frame.correlation)
        stored: tuple[int, int] | None = None
        conflict: FeedConflict | None = None
        try:
            stored = self.sequencer.receive(node, frame, now)
        except FeedConflict as found:
            conflict = found
        if frame.kind is FrameKind.EVENTS and frame.count:
            self._receive_copies(node, coverage, frame, stored, now)
            if conflict is not None:
                self._resolve_conflict(conflict, now)
        elif frame.kind is FrameKind.HEARTBEAT:
            coverage.newest = frame.correlation - 1
            position = frames.position(frame)
            if position is not None:
                self._note_end(coverage.newest)
                self._add_claim(node, coverage, position.claim)
                self.positions.append((node, position))

    def take(self, now: float) -> NDArray[np.void]:
        """Return the events released since the last call, in sequence. Raises Disagreement."""
        events = self.sequencer.take()
        if len(events):
            self._pending.append(events)
        newest = {n: coverage.newest for n, coverage in self._nodes.items() if coverage.is_heard and self._counts(n)}
        self._anchor.watch_for_old_feed(newest, len(self._nodes) - self.majority, now)
        last = self._last_releasable()
        if last <= self.released:
            return np.empty(0, EVENT)
        released = self._pending.pop(last)
        for coverage in self._nodes.values():
            coverage.advance(last)
        for node, sequence in list(self._dissenting.items()):
            if sequence <= last:
                self._exclude(node)
        self.sequencer.set_limit(last + self._pending_limit, now)
        return released

    def requests(self, now: float) -> list[Request]:
        """Return the requests for digests, or copies, to send now."""
        return [
            request
            for node, coverage in self._nodes.items()
            if self._counts(node) and (request := self._request(node, coverage, now)) is not None
        ]

    def deadline(self) -> float | None:
        """Return when requests() has something to do, None if nothing is expected."""
        waiting = [c.ask_at for n, c in self._nodes.items() if self._counts(n) and self._needs_request(n, c)]
        return min(waiting, default=None)

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count `seconds` in which nothing was received; see Sequencer."""
        self.sequencer.extend_deadlines(seconds)
        self._anchor.extend_deadlines(seconds)

    def _counts(self, node: int) -> bool:
        return node not in self._excluded and node not in self._dissenting

    def _receive_copies(
        self, node: int, coverage: Coverage, frame: Frame, stored: tuple[int, int] | None, now: float
    ) -> None:
        events = frames.records(frame)
        last = int(events["sequence"][-1])
        coverage.newest = max(coverage.newest, last)
        claim = frames.claim(frame)
        if claim.command_sequence == int(events["command_sequence"][-1]):
            self._note_end(last)
        self._add_claim(node, coverage, claim)
        if stored is not None:
            coverage.add_copies(*stored, now)

    def _receive_digest(self, node: int, coverage: Coverage, frame: Frame, now: float) -> None:
        first, last = frame.correlation, frame.correlation + frame.count - 1
        coverage.ask_at = now
        coverage.newest = max(coverage.newest, last)
        if self._anchor.is_answer(node, first, last):
            difference = self._anchor.check_answer(node, frame.aux, frames.claim(frame))
            if difference is not None:
                self._exclude_other_history(node, difference)
            return
        self._add_claim(node, coverage, frames.claim(frame))
        covered = coverage.covered
        is_next = self.released < first <= covered + 1 and covered < last <= self._pending.last
        if not self._counts(node) or not is_next:
            return
        if frames.records_digest(*self._pending.between(first, last)) == frame.aux:
            coverage.advance(last)
        else:
            # Only its copies show which event differs.
            coverage.differing = (first, last)

    def _note_end(self, sequence: int) -> None:
        """Record that an event is the last of its command, unless it is dropped: another copy will show it again."""
        if self.released < sequence <= self.sequencer.horizon:
            self._pending.note_end(sequence)

    def _add_claim(self, node: int, coverage: Coverage, claim: Claim) -> None:
        if not claim.command_sequence:
            return
        coverage.command = max(coverage.command, claim.command_sequence)
        difference = self._anchor.check_claim(node, claim)
        if difference is not None:
            self._exclude_other_history(node, difference)
        for differs in self._claims.add(node, claim):
            message = (
                f"after command {differs.command_sequence} node {differs.node} has state hash {differs.found:016x}, a "
                f"majority has {differs.agreed:016x}"
            )
            self.dissents.append(Dissent(differs.node, differs.command_sequence, "state_hash", message))
            self._exclude(differs.node)
        split = self._claims.without_majority(claim.command_sequence, self._counted())
        if split is not None:
            claimed = ", ".join(f"node {n}: {state_hash:016x}" for n, state_hash in sorted(split.items()))
            raise Disagreement(
                f"after command {claim.command_sequence} no majority of nodes has the same state hash: {claimed}"
            )

    def _counted(self) -> int:
        """Return how many nodes are listened to and have not contradicted."""
        return sum(map(self._counts, self._nodes))

    def _exclude(self, node: int) -> None:
        self._dissenting.pop(node, None)
        self._excluded.add(node)
        self.sequencer.exclude(node)
        left = len(self._nodes) - len(self._excluded)
        if left < self.majority:
            why = f" ({self.dissents[-1].message})" if self.dissents else ""
            raise Disagreement(
                f"{left} of the nodes listened to are left, {self.majority} are a majority: nodes "
                f"{', '.join(map(str, sorted(self._excluded)))} contradict the others{why}"
            )

    def _exclude_other_history(self, node: int, difference: str) -> None:
        message = f"node {node} has another history than the one settled so far: {difference}"
        self.dissents.append(Dissent(node, self.released, "history", message))
        self._exclude(node)

    def _resolve_conflict(self, conflict: FeedConflict, now: float) -> None:
        """Decide which of two nodes whose copies differ is wrong; a third one decides where there is one."""
        node, source = conflict.node, conflict.first_node
        if source in self._excluded:
            # A copy that an excluded node left behind proves nothing against this one.
            self._fetch_again(now)
            return
        self.dissents.append(Dissent(node, conflict.sequence, conflict.field, str(conflict)))
        if conflict.sequence <= self.released:
            self._exclude(node)
            return
        self._dissenting[node] = conflict.sequence
        if self._counted() >= self.majority:
            return
        # Those that are left cannot be a majority: the copy held is not the majority's.
        self._dissenting.clear()
        if len(self._nodes) - len(self._excluded) - 1 < self.majority:
            raise Disagreement(f"{conflict}; no other node is listened to that could show which of them is right")
        message = f"{conflict}; the others contradict node {source}, which is excluded"
        self.dissents.append(Dissent(source, conflict.sequence, conflict.field, message))
        self._exclude(source)
        self._fetch_again(now)

    def _fetch_again(self, now: float) -> None:
        """Drop every event that is not released, and ask for it again."""
        self._pending.clear()
        for coverage in self._nodes.values():
            coverage.reset(self.released)
        self.sequencer.rewind(self.released + 1, now)

    def _last_releasable(self) -> int:
        """Return the last event that may be released."""
        counted = [(n, coverage) for n, coverage in self._nodes.items() if self._counts(n)]
        if not self._pending or sum(self._anchor.is_confirmed(n) for n, _ in counted) < self.majority:
            return self.released
        covered = sorted((coverage.covered for _, coverage in counted), reverse=True)
        last = min(covered[self.majority - 1], self._pending.last)
        if last <= self.released:
            return self.released
        return self._pending.whole_commands(last, self.attested.command_sequence)

    def _needs_request(self, node: int, coverage: Coverage) -> bool:
        if not coverage.is_heard:
            return False
        return not self._anchor.is_confirmed(node) or coverage.needs_request(self._pending.last)

    def _request(self, node: int, coverage: Coverage, now: float) -> Request | None:
        if now < coverage.ask_at or not self._needs_request(node, coverage):
            return None
        coverage.ask_at = now + DIGEST_AGAIN_S
        return self._anchor.request(node) or coverage.request(node, self._pending.last)
