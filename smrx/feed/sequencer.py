"""Frames of several nodes in, one stream without holes out, and what to ask for where there is a hole. Sans I/O.

Rules:

- An event is given out once, in sequence, exactly as a node sent it. The first copy wins.
- A later copy is compared with the first as long as the first is remembered; a difference is FeedConflict.
- Whoever takes may set `until`: nothing beyond it is given out, and what arrives waits like what comes after a hole.
- What comes after a hole waits in a window of fixed size; beyond it events are dropped and asked for when their turn
  comes. Memory does not grow, whatever arrives.
- A hole is asked for once, at one node; at the deadline again, at the next node. A hole that every node says it no
  longer holds, or that nobody has filled for `give_up_seconds`, is GapUnfillable.
- Time is an argument (seconds, from any monotonic clock). Time in which nobody listened counts for nothing (excuse()).
  No sockets, no threads.

Called by the subscriber; frames from the feed and from retransmission are treated alike.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.record_words import concatenate_records, record_words
from smrx.wire.records import EVENT

#: Events that wait after a hole; twice the longest answer, so that an answer and what came meanwhile both fit.
AHEAD_EVENTS: Final = 2 * MAX_ANSWER_EVENTS
#: Events given out that are remembered, so that a late copy can be compared.
REMEMBERED_EVENTS: Final = 1 << 17
#: When a request counts as lost. An answer of 4 MiB takes some 10 ms on loopback and may wait for a busy node.
ASK_SECONDS: Final = 0.5
#: An election takes 1.2 s and a restarted node some seconds more; after this long without progress nobody will answer.
GIVE_UP_SECONDS: Final = 15.0
#: How soon another node is tried after one that is not connected.
_RETRY_SECONDS: Final = 0.02


class FeedError(Exception):
    """The feed cannot be followed any further; the message says what, where and who."""


class GapUnfillable(FeedError):
    """Events are missing and nobody has them."""

    def __init__(self, first: int, last: int, told: dict[int, str]) -> None:
        self.first, self.last, self.told = first, last, told
        who = "; ".join(f"node {node}: {answer}" for node, answer in told.items()) or "no node to ask"
        super().__init__(f"events {first} to {last} are missing and cannot be had: {who}")


class FeedConflict(FeedError):
    """Two copies of one event differ."""

    def __init__(self, sequence: int, node: int, first_node: int, copy: np.void, first_copy: np.void) -> None:
        self.sequence, self.node, self.first_node = sequence, node, first_node
        names = EVENT.names or ()
        self.field = next((name for name in names if copy[name] != first_copy[name]), "none")
        values = (int(copy[self.field]), int(first_copy[self.field])) if self.field in names else (0, 0)
        super().__init__(
            f"event {sequence}: node {node} sent {self.field} {values[0]}, node {first_node} sent {values[1]}"
        )


class FeedStats(msgspec.Struct):
    """What the sequencer has seen so far; counts of events unless said otherwise."""

    delivered: int = 0
    duplicates: int = 0
    beyond_window: int = 0
    frames: int = 0
    gaps: int = 0  #: holes found after the stream was joined
    gaps_healed: int = 0
    requests: int = 0


class _Hole:
    """The first hole of the stream: since when, whom we asked, what they said."""

    def __init__(self, first: int, now: float, joining: bool) -> None:
        self.first = first
        self.joining = joining
        self.progress_at = now
        self.asked: dict[int, int] = {}
        self.told: dict[int, str] = {}
        self.refused: set[int] = set()
        self.asking: Request | None = None
        self.ask_at = now


class Sequencer:
    """Follows one stream of events published by several nodes."""

    def __init__(
        self,
        nodes: Sequence[int],
        *,
        first: int = 1,
        ahead: int = AHEAD_EVENTS,
        remembered: int = REMEMBERED_EVENTS,
        ask_seconds: float = ASK_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        """Expect event `first`; `nodes` are those that may be asked."""
        if first < 1 or ahead < 1 or remembered < 0:
            raise ValueError(f"expected first and ahead of at least 1, found {first} and {ahead}")
        self.stats = FeedStats()
        #: The last event to give out for now, None for no limit; set by whoever takes.
        self.until: int | None = None
        self._nodes = list(nodes)
        self._expected = first
        self._start = first
        self._known = first - 1
        self._ahead = ahead
        self._remembered = remembered
        self._capacity = ahead + remembered
        self._store = np.empty((self._capacity, EVENT.itemsize // 8), np.uint64)
        self._present = np.zeros(self._capacity, np.bool_)
        self._source = np.zeros(self._capacity, np.int64)
        self._waiting = 0
        self._out: list[NDArray[np.void]] = []
        self._ask_seconds = ask_seconds
        self._give_up_seconds = give_up_seconds
        self._hole: _Hole | None = None
        self._joined = False
        self._turn = 0

    @property
    def expected(self) -> int:
        """The sequence that comes next."""
        return self._expected

    @property
    def known(self) -> int:
        """The newest sequence that any node has spoken of."""
        return self._known

    @property
    def horizon(self) -> int:
        """The last event that is kept if it comes now; what is beyond is dropped, and asked for when its turn comes."""
        return self._expected + self._ahead - 1

    @property
    def paused(self) -> bool:
        """Whether the next event would go beyond `until`: nothing more is given out or asked for."""
        return self.until is not None and self._expected > self.until

    @property
    def in_gap(self) -> bool:
        """Whether something is known to exist that has not arrived."""
        return self._known >= self._expected

    def take(self) -> NDArray[np.void]:
        """Return the events that have become contiguous since the last call, in order; the caller owns them."""
        out, self._out = self._out, []
        return concatenate_records(out) if out else np.empty(0, EVENT)

    def receive(self, node: int, frame: Frame, now: float) -> tuple[int, int] | None:
        """Take in one EVENTS, HEARTBEAT or UNAVAILABLE frame of a node.

        Returns the first and last of the events of it that are, or are now, what is held; None if there are none such.
        Raises FrameError for a frame that has no place on a feed or contradicts itself (nothing of it is kept),
        FeedConflict when an event differs from its first copy.
        """
        kept: tuple[int, int] | None = None
        if frame.kind is FrameKind.EVENTS:
            kept = self._receive_events(node, frame, now)
        elif frame.kind is FrameKind.HEARTBEAT:
            self._learn(node, frame.correlation - 1, now)
        elif frame.kind is FrameKind.UNAVAILABLE:
            self._receive_refusal(node, frame.correlation, frame.aux, now)
        else:
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a frame of the feed, found {frame.kind.name}")
        self.stats.frames += 1
        return kept

    def allow(self, until: int, now: float) -> None:
        """Give out events as far as `until`, and those that waited for that."""
        self.until = until
        if self._known >= self._expected:
            self._learn(0, 0, now, progress=self._deliver() > 0)

    def exclude(self, node: int) -> None:
        """Ask this node no more."""
        if node in self._nodes:
            self._nodes.remove(node)
            self._turn = 0

    def rewind(self, first: int, now: float) -> None:
        """Forget event `first` and everything after it, and ask for it again; what was given out is taken back."""
        self._start = self._expected = first
        self._present[:] = False
        self._waiting = 0
        self._out = []
        self._hole = None
        if self._known >= first:
            self._hole = _Hole(first, now, joining=not self._joined)

    def requests(self, now: float) -> list[Request]:
        """Return what is to be asked now; raises GapUnfillable when asking has no use any more."""
        hole = self._hole
        if hole is None:
            return []
        if self.paused:
            hole.progress_at = now
            return []
        if hole.refused.issuperset(self._nodes) or now - hole.progress_at >= self._give_up_seconds:
            raise GapUnfillable(self._expected, self._hole_end(), self._testimony(hole))
        if now < hole.ask_at:
            return []
        node = self._next_node(hole)
        request = Request(node, self._expected, min(self._hole_end(), self._expected + MAX_ANSWER_EVENTS - 1))
        hole.asking, hole.ask_at = request, now + self._ask_seconds
        hole.asked[node] = hole.asked.get(node, 0) + 1
        self.stats.requests += 1
        return [request]

    def excuse(self, seconds: float) -> None:
        """Be told that nobody listened for so long: what was not answered then may have been answered."""
        if self._hole is not None:
            self._hole.progress_at += seconds

    def unsent(self, request: Request, now: float) -> None:
        """Be told that a request could not be sent: its node is not connected."""
        if self._hole is not None and self._hole.asking == request:
            self._hole.told[request.node] = "not connected"
            self._hole.asking, self._hole.ask_at = None, now + _RETRY_SECONDS

    def deadline(self) -> float | None:
        """When requests() has something to do, or None while nothing is missing."""
        if self._hole is None or self.paused:
            return None
        return min(self._hole.ask_at, self._hole.progress_at + self._give_up_seconds)

    def _receive_events(self, node: int, frame: Frame, now: float) -> tuple[int, int] | None:
        events = frames.records(frame)
        if not len(events):
            return None
        first = int(events["sequence"][0])
        last = first + len(events) - 1
        if first < 1 or not np.array_equal(events["sequence"], np.arange(first, last + 1, dtype=np.uint64)):
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected events in sequence from {first}, found others")
        kept = self._keep(node, record_words(events), first, last)
        self._learn(node, last, now, progress=self._deliver() > 0)
        return kept

    def _keep(self, node: int, rows: NDArray[np.uint64], first: int, last: int) -> tuple[int, int] | None:
        """Put what is new of first..last into the window, and compare what is not; return the part that was done."""
        low = max(first, self._start, self._expected - self._remembered)
        high = min(last, self._expected + self._ahead - 1)
        self.stats.beyond_window += last - max(high, first - 1)
        self.stats.duplicates += max(0, min(low, last + 1) - first)
        position = low
        while position <= high:
            slot = position % self._capacity
            count = min(high - position + 1, self._capacity - slot)
            piece = rows[position - first : position - first + count]
            held = self._present[slot : slot + count]
            known = int(np.count_nonzero(held))
            if known:
                self._compare(node, piece, slot, position, held)
            if known < count:
                missing = ~held
                if not known:
                    self._store[slot : slot + count] = piece
                else:
                    self._store[slot : slot + count][missing] = piece[missing]
                self._source[slot : slot + count][missing] = node
                held[:] = True
                self._waiting += count - known
            self.stats.duplicates += known
            position += count
        return (low, high) if low <= high else None

    def _compare(self, node: int, piece: NDArray[np.uint64], slot: int, first: int, held: NDArray[np.bool_]) -> None:
        differs = self._store[slot : slot + len(piece)] != piece
        if differs.any() and (different := differs.any(axis=1) & held).any():
            at = int(different.argmax())
            source = int(self._source[slot + at])
            copy, held_copy = (rows[at].view(EVENT)[0] for rows in (piece, self._store[slot : slot + len(piece)]))
            raise FeedConflict(first + at, node, source, copy, held_copy)

    def _deliver(self) -> int:
        """Give out what follows the last event given out; return how many events."""
        total = 0
        while self._waiting:
            slot = self._expected % self._capacity
            span = self._present[slot : min(slot + self._waiting, self._capacity)]
            count = len(span) if span.all() else int(span.argmin())
            if self.until is not None:
                count = min(count, self.until - self._expected + 1)
            if count <= 0:
                break
            self._out.append(self._store[slot : slot + count].copy().view(EVENT).reshape(-1))
            self._forget(self._expected - self._remembered, count)
            self._expected += count
            self._waiting -= count
            total += count
        self.stats.delivered += total
        return total

    def _forget(self, first: int, count: int) -> None:
        """Free the slots of `count` remembered events from `first`; the window moves on over them."""
        slot = first % self._capacity
        head = min(count, self._capacity - slot)
        self._present[slot : slot + head] = False
        self._present[: count - head] = False

    def _learn(self, node: int, newest: int, now: float, progress: bool = False) -> None:
        """Take note that events up to `newest` exist; open, move on or close the hole."""
        self._known = max(self._known, newest)
        hole = self._hole
        if self._known < self._expected or self.paused:
            if hole is not None and not hole.joining:
                self.stats.gaps_healed += 1
            self._hole = None
            self._joined = True
        elif hole is None:
            self._hole = _Hole(self._expected, now, joining=not self._joined)
            self.stats.gaps += self._joined
            # Who revealed the hole is asked first: it has what comes after.
            self._turn = self._nodes.index(node) if node in self._nodes else self._turn
        elif progress:
            hole.progress_at = now
            self._move_on(hole, now)

    def _move_on(self, hole: _Hole, now: float) -> None:
        """Events came: wait longer for the rest of the answer, or ask for what follows it at once."""
        asking = hole.asking
        # Who no longer had the first of the missing may well have those that are missing now.
        hole.refused.clear()
        if asking is not None and self._expected <= min(asking.last, self._hole_end()):
            hole.ask_at = now + self._ask_seconds
        else:
            # The node that answers well is asked again.
            self._turn = self._nodes.index(asking.node) if asking is not None else self._turn
            hole.asking, hole.ask_at = None, now

    def _receive_refusal(self, node: int, oldest: int, newest: int, now: float) -> None:
        hole = self._hole
        if hole is None or node not in self._nodes:
            return
        hole.told[node] = "holds no events" if newest < oldest else f"holds {oldest} to {newest}"
        if oldest > self._expected:
            hole.refused.add(node)
        else:
            # It is behind, not past: it may have them soon.
            hole.refused.discard(node)
        if hole.asking is not None and hole.asking.node == node:
            behind = oldest <= self._expected
            hole.asking, hole.ask_at = None, now + (_RETRY_SECONDS if behind else 0.0)

    def _hole_end(self) -> int:
        """The last sequence of the first hole."""
        if not self._waiting:
            return self._known
        for start, stop in self._spans(self._expected, self._expected + self._ahead):
            held = self._present[start % self._capacity : start % self._capacity + stop - start]
            at = int(held.argmax())
            if held[at]:
                return start + at - 1
        return self._known

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Cut a range of sequences where it wraps in the store."""
        wrap = start + self._capacity - start % self._capacity
        return [(start, stop)] if stop <= wrap else [(start, wrap), (wrap, stop)]

    def _next_node(self, hole: _Hole) -> int:
        """The next node in turn, those that refused only when all others are gone."""
        count = len(self._nodes)
        order = [self._nodes[(self._turn + i) % count] for i in range(count)]
        node = next((node for node in order if node not in hole.refused), order[0])
        self._turn = (self._nodes.index(node) + 1) % count
        return node

    def _testimony(self, hole: _Hole) -> dict[int, str]:
        """What each node said when asked."""
        said: dict[int, str] = {}
        for node in self._nodes:
            times = hole.asked.get(node, 0)
            said[node] = hole.told.get(node, f"asked {times} times, no answer" if times else "not asked")
        return said
