"""What a majority of the cluster's nodes has published: the part of the stream that may be acted on. Sans I/O.

Rules:

- An event is released once a majority of all members (not of those that are heard) has sent the same copy of it, or
  vouched for it by the digest of a range it lies in, and a majority has claimed the same (command sequence, state hash)
  at its command or a later one. The state hash is a chain over every command's events and state, so one that is agreed
  on speaks for everything before it.
- Whole commands are released, in sequence, once. What is not released is held, up to `pending` events; beyond that the
  sequencer gives out no more, and what arrives is asked for again later.
- A node whose copy or claim differs is an alarm that names it. It counts no more. If so many differ that the copies
  held cannot become the majority's, the node they came from is left out and what is not released is fetched anew. If
  no majority is left, or can be, that is Disagreement.
- A node that is missing or silent counts for nothing, and counts again as soon as it speaks.
- Time is an argument. Time in which nobody listened counts for nothing (excuse()). No sockets.

Called by the subscriber, which gives it every frame and sends what it wants to ask.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.feed.claims import Claims
from smrx.feed.pending import Pending
from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request
from smrx.feed.sequencer import REMEMBERED_EVENTS, FeedConflict, FeedError, Sequencer
from smrx.wire import frames
from smrx.wire.frames import Claim, FeedPosition, Frame, FrameKind
from smrx.wire.records import EVENT

#: Nodes apply a command within milliseconds of one another: a copy that is not there by then is vouched for instead.
VOUCH_AFTER_SECONDS: Final = 0.02
#: When an unanswered request to vouch is made again.
VOUCH_AGAIN_SECONDS: Final = 0.5
#: A node that has started again publishes its log from the beginning: a second or two for a million events.
OLD_FEED_SECONDS: Final = 5.0


class Disagreement(FeedError):
    """The nodes tell different stories and no majority tells one, or the story is not the one settled before."""


class Anchor(NamedTuple):
    """Where an earlier run ended: the last event, its digest, and the state after its command (0: not known)."""

    event_sequence: int
    event_digest: int
    claim: Claim


class Dissent(NamedTuple):
    """A node contradicted others: for the alarm."""

    node: int
    sequence: int  #: the event, or the command where state hashes differ
    field: str
    message: str


class _Member(msgspec.Struct):
    """What is known of one node that is listened to."""

    covered: int  #: its copies of everything up to here are those held
    tail: tuple[int, int] | None = None  #: and of these, beyond a hole in its copies
    newest: int = 0  #: the newest event it spoke of; it may be less after a restart
    heard: bool = False
    command: int = 0  #: its newest claim
    ask_at: float = 0.0
    recopy: tuple[int, int] | None = None  #: events of which its digest is another one
    anchored: bool = False  #: it has confirmed where the earlier run ended, or can no longer tell
    blind_to: int = 0  #: it no longer holds what is before this event


class Quorum:
    """Decides, event by event, what a majority of `members` has published."""

    def __init__(
        self,
        sequencer: Sequencer,
        nodes: Sequence[int],
        members: int,
        *,
        anchor: Anchor | None = None,
        pending: int = REMEMBERED_EVENTS,
        old_feed_seconds: float = OLD_FEED_SECONDS,
    ) -> None:
        """Listen to `nodes` of a cluster of `members`. Raises ValueError if they can be no majority."""
        self.majority = members // 2 + 1
        if len(nodes) < self.majority:
            raise ValueError(
                f"expected at least {self.majority} of {members} nodes to listen to, which is a majority, found "
                f"{len(nodes)}"
            )
        self.sequencer = sequencer
        self.dissents: list[Dissent] = []
        self.positions: list[tuple[int, FeedPosition]] = []
        self._anchor = anchor
        self._old_feed_seconds = old_feed_seconds
        self._old_since: float | None = None
        self._pending = Pending(sequencer.expected - 1)
        self._pending_limit = pending
        self._nodes = {node: _Member(covered=self.released, anchored=anchor is None) for node in nodes}
        self._dissenting: dict[int, int] = {}
        self._excluded: set[int] = set()
        self._claims = Claims(self.majority, self._counts)
        sequencer.until = self.released + pending

    @property
    def attested(self) -> Claim:
        """The latest state a majority has claimed."""
        return self._claims.attested

    @property
    def released(self) -> int:
        """The last event that was released."""
        return self._pending.released

    @property
    def unverified(self) -> int:
        """Events that are here, and not attested by a majority."""
        return len(self._pending)

    @property
    def attested_by(self) -> list[int]:
        """The nodes that stand behind the last state a majority agreed on."""
        agreed = self.attested.command_sequence
        return [n for n, member in self._nodes.items() if member.command >= agreed > 0 and self._counts(n)]

    @property
    def excluded(self) -> list[int]:
        """The nodes that contradicted a majority."""
        return sorted(self._excluded | self._dissenting.keys())

    def hash_after(self, command_sequence: int) -> int:
        """The state hash a majority claimed after just this command; 0 if it is not known."""
        return self._claims.hash_after(command_sequence)

    def receive(self, node: int, frame: Frame, now: float) -> None:
        """Take in one frame of a node. Raises FrameError as the sequencer does, Disagreement."""
        member = self._nodes[node]
        if not self._counts(node):
            return
        member.heard = True
        if frame.kind is FrameKind.ATTESTATION:
            self._vouched(node, member, frame, now)
            return
        if frame.kind is FrameKind.UNAVAILABLE:
            self._cannot_vouch(member, frame.correlation, frame.aux, now)
        seen: tuple[int, int] | None = None
        conflict: FeedConflict | None = None
        try:
            seen = self.sequencer.receive(node, frame, now)
        except FeedConflict as found:
            conflict = found
        if frame.kind is FrameKind.EVENTS and frame.count:
            self._received(node, member, frame, seen, now)
            if conflict is not None:
                self._dissent(conflict, now)
        elif frame.kind is FrameKind.HEARTBEAT:
            member.newest = frame.correlation - 1
            position = frames.position(frame)
            if position is not None:
                self._note_end(member.newest)
                self._claim(node, member, position.claim)
                self.positions.append((node, position))

    def take(self, now: float) -> NDArray[np.void]:
        """Return the events released since the last call, in sequence. Raises Disagreement."""
        events = self.sequencer.take()
        if len(events):
            self._pending.append(events)
        self._watch_for_old_feed(now)
        last = self._releasable()
        released = self._pending.pop(last) if last > self.released else np.empty(0, EVENT)
        if len(released):
            for member in self._nodes.values():
                member.covered = max(member.covered, last)
                self._join_tail(member)
            for node, sequence in list(self._dissenting.items()):
                if sequence <= last:
                    self._exclude(node)
            self.sequencer.allow(last + self._pending_limit, now)
        return released

    def requests(self, now: float) -> list[Request]:
        """Return what is to be asked now."""
        return [
            request
            for node, member in self._nodes.items()
            if self._counts(node) and (request := self._request(node, member, now)) is not None
        ]

    def deadline(self) -> float | None:
        """When requests() has something to do, None if nothing is expected."""
        waiting = [m.ask_at for n, m in self._nodes.items() if self._counts(n) and self._has_to_ask(m)]
        return min(waiting, default=None)

    def excuse(self, seconds: float) -> None:
        """Be told that nobody listened for so long; see Sequencer."""
        self.sequencer.excuse(seconds)
        if self._old_since is not None:
            self._old_since += seconds

    def _counts(self, node: int) -> bool:
        return node not in self._excluded and node not in self._dissenting

    def _received(self, node: int, member: _Member, frame: Frame, seen: tuple[int, int] | None, now: float) -> None:
        events = frames.records(frame)
        last = int(events["sequence"][-1])
        member.newest = max(member.newest, last)
        claim = frames.claim(frame)
        if claim.command_sequence == int(events["command_sequence"][-1]):
            self._note_end(last)
        self._claim(node, member, claim)
        if seen is None:
            return
        first, last = seen
        tail = member.tail
        if first <= member.covered + 1:
            member.covered = max(member.covered, last)
            # It is talking: what is missing of it may be on its way.
            member.ask_at = max(member.ask_at, now + VOUCH_AFTER_SECONDS)
        elif tail is not None and tail[0] <= first <= tail[1] + 1:
            member.tail = (tail[0], max(tail[1], last))
        else:
            member.tail = seen
        self._join_tail(member)

    def _note_end(self, sequence: int) -> None:
        """Remember that an event is the last of its command; of one that is not kept its copy will tell again."""
        if self.released < sequence <= self.sequencer.horizon:
            self._pending.note_end(sequence)

    def _join_tail(self, member: _Member) -> None:
        if member.tail is not None and member.tail[0] <= member.covered + 1:
            member.covered = max(member.covered, member.tail[1])
            member.tail = None

    def _claim(self, node: int, member: _Member, claim: Claim) -> None:
        if not claim.command_sequence:
            return
        member.command = max(member.command, claim.command_sequence)
        self._check_anchor(node, member, claim)
        for differs in self._claims.add(node, claim):
            message = (
                f"after command {differs.command_sequence} node {differs.node} has state hash {differs.found:016x}, a "
                f"majority has {differs.agreed:016x}"
            )
            self.dissents.append(Dissent(differs.node, differs.command_sequence, "state_hash", message))
            self._exclude(differs.node)
        hopeless = self._claims.hopeless(claim.command_sequence, self._listened())
        if hopeless is not None:
            said = ", ".join(f"node {n}: {state_hash:016x}" for n, state_hash in sorted(hopeless.items()))
            raise Disagreement(
                f"after command {claim.command_sequence} no majority of nodes has the same state hash: {said}"
            )

    def _listened(self) -> int:
        """Nodes that are listened to and have not contradicted."""
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

    def _dissent(self, conflict: FeedConflict, now: float) -> None:
        """A copy differs from the one held: one of the two nodes is wrong, and a third one tells which."""
        node, source = conflict.node, conflict.first_node
        if source in self._excluded:
            # What was left behind by a node that counts no more proves nothing against this one.
            self._fetch_anew(now)
            return
        self.dissents.append(Dissent(node, conflict.sequence, conflict.field, str(conflict)))
        if conflict.sequence <= self.released:
            self._exclude(node)
            return
        self._dissenting[node] = conflict.sequence
        if self._listened() >= self.majority:
            return
        # Those that are left cannot be a majority: the copy held is not the majority's.
        self._dissenting.clear()
        if len(self._nodes) - len(self._excluded) - 1 < self.majority:
            raise Disagreement(f"{conflict}; no other node is listened to that could tell which of them is right")
        message = f"{conflict}; the others contradict node {source}, which is left out"
        self.dissents.append(Dissent(source, conflict.sequence, conflict.field, message))
        self._exclude(source)
        self._fetch_anew(now)

    def _fetch_anew(self, now: float) -> None:
        """Give up every copy that is not released."""
        self._pending.clear()
        for member in self._nodes.values():
            member.covered, member.tail, member.recopy = self.released, None, None
        self.sequencer.rewind(self.released + 1, now)

    def _vouched(self, node: int, member: _Member, frame: Frame, now: float) -> None:
        first, last = frame.correlation, frame.correlation + frame.count - 1
        member.ask_at = now
        member.newest = max(member.newest, last)
        anchor = self._anchor
        if anchor is not None and not member.anchored and (first, last) == (anchor.event_sequence,) * 2:
            if anchor.event_digest not in (0, frame.aux):
                self._another_history(node, f"event {first} is another one")
            self._check_anchor(node, member, frames.claim(frame))
            member.anchored = True
            return
        self._claim(node, member, frames.claim(frame))
        if not self._counts(node) or first > member.covered + 1 or last > self._pending.last or last <= member.covered:
            return
        if first > self.released and frames.records_digest(*self._pending.between(first, last)) == frame.aux:
            member.covered = last
            self._join_tail(member)
        elif first > self.released:
            # Which event, and what of it: its copies tell.
            member.recopy = (first, last)

    def _cannot_vouch(self, member: _Member, oldest: int, newest: int, now: float) -> None:
        member.newest = newest
        member.ask_at = now + VOUCH_AGAIN_SECONDS
        if oldest > member.covered + 1:
            member.blind_to = oldest
        if self._anchor is not None and oldest > self._anchor.event_sequence:
            member.anchored = True

    def _check_anchor(self, node: int, member: _Member, claim: Claim) -> None:
        anchor = self._anchor
        if anchor is None or claim.command_sequence != anchor.claim.command_sequence:
            return
        if anchor.claim.state_hash not in (0, claim.state_hash):
            self._another_history(
                node,
                f"after command {claim.command_sequence} its state hash is {claim.state_hash:016x}, settled was "
                f"{anchor.claim.state_hash:016x}",
            )
        member.anchored = True

    def _another_history(self, node: int, what: str) -> None:
        message = f"node {node} has another history than the one settled so far: {what}"
        self.dissents.append(Dissent(node, self.released, "history", message))
        self._exclude(node)

    def _watch_for_old_feed(self, now: float) -> None:
        """A feed that ends before what was settled is an old one, unless its nodes are just catching up."""
        anchor = self._anchor
        if anchor is None:
            return
        heard = {n: m.newest for n, m in self._nodes.items() if m.heard and self._counts(n)}
        behind = {n: newest for n, newest in heard.items() if newest < anchor.event_sequence}
        if len(heard) - len(behind) + (len(self._nodes) - len(heard)) >= self.majority or not behind:
            self._old_since = None
        elif self._old_since is None:
            self._old_since = now
        elif now - self._old_since >= self._old_feed_seconds:
            said = ", ".join(f"node {n} ends at event {newest}" for n, newest in sorted(behind.items()))
            raise Disagreement(
                f"expected a feed that goes on after event {anchor.event_sequence}, which is settled, found an older "
                f"one: {said}"
            )

    def _releasable(self) -> int:
        """The last event that may be released."""
        if not self._pending or sum(m.anchored for n, m in self._nodes.items() if self._counts(n)) < self.majority:
            return self.released
        covered = sorted((m.covered for n, m in self._nodes.items() if self._counts(n)), reverse=True)
        last = min(covered[self.majority - 1], self._pending.last)
        if last <= self.released:
            return self.released
        return self._pending.whole_commands(last, self.attested.command_sequence)

    def _has_to_ask(self, member: _Member) -> bool:
        if not member.heard:
            return False
        if not member.anchored:
            return True
        covered = member.covered
        known = max(member.newest, member.tail[1] if member.tail else 0)
        return covered < self._pending.last and known > covered and member.blind_to <= covered + 1

    def _request(self, node: int, member: _Member, now: float) -> Request | None:
        if now < member.ask_at or not self._has_to_ask(member):
            return None
        member.ask_at = now + VOUCH_AGAIN_SECONDS
        if not member.anchored and self._anchor is not None:
            return Request(node, self._anchor.event_sequence, self._anchor.event_sequence, digest=True)
        if member.recopy is not None:
            first, last = member.recopy
            member.recopy = None
            return Request(node, first, last)
        first, last = member.covered + 1, self._pending.last
        if member.tail is not None:
            last = min(last, member.tail[0] - 1)
        return Request(node, first, min(last, first + MAX_ANSWER_EVENTS - 1), digest=True)
