"""Put the frames of several nodes into one stream of events without gaps or repetition.

Rules:

- An event is delivered once, in sequence, exactly as a node sent it. The first copy wins.
- A later copy is compared with the first as long as that is retained; a difference is FeedConflict.
- The consumer may set a limit: nothing beyond it is delivered, and what arrives is held like events after a gap.
- Missing events are noticed and asked for (gap_detection.py); events after a gap are held in a window of fixed size
  (event_window.py), and what does not fit is dropped and asked for later.
- Time is an argument: seconds of any monotonic clock. No sockets, no threads.

Called by the subscriber. Published events and those asked for again are treated alike.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.feed.event_window import EventWindow
from smrx.feed.gap_detection import GAP_TIMEOUT_S, REQUEST_TIMEOUT_S, GapDetection
from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.record_words import record_words

#: Events held after a gap: twice the longest answer, so that an answer and what came meanwhile both fit.
AHEAD_EVENTS: Final = 2 * MAX_ANSWER_EVENTS
#: Events retained after delivery, so that late copies can be compared with them.
RETAINED_EVENTS: Final = 1 << 17


class FeedStats(msgspec.Struct):
    """Counts of events unless said otherwise."""

    delivered: int = 0
    duplicates: int = 0
    beyond_window: int = 0  #: dropped because they came too far ahead
    frames: int = 0
    gaps: int = 0  #: gaps found after the stream was joined
    gaps_healed: int = 0
    requests: int = 0


class Sequencer:
    """Follows one stream of events that several nodes publish."""

    def __init__(
        self,
        nodes: Sequence[int],
        *,
        first: int = 1,
        ahead: int = AHEAD_EVENTS,
        retained: int = RETAINED_EVENTS,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        gap_timeout_s: float = GAP_TIMEOUT_S,
    ) -> None:
        """Deliver event `first` first; `nodes` are those that may be asked for missing events."""
        self._window = EventWindow(first, ahead, retained)
        self._gaps = GapDetection(self._window, nodes, request_timeout_s, gap_timeout_s)
        self._frames = 0
        self._held = 0

    @property
    def stats(self) -> FeedStats:
        """The counts so far."""
        window, gaps = self._window, self._gaps
        return FeedStats(
            window.delivered, window.duplicates, window.beyond_window, self._frames, gaps.gaps, gaps.gaps_healed,
            gaps.requests_made,
        )  # fmt: skip

    @property
    def expected(self) -> int:
        """The sequence of the next event to deliver."""
        return self._window.expected

    @property
    def known(self) -> int:
        """The newest sequence that any node has announced."""
        return max(self._gaps.newest, self._held)

    @property
    def horizon(self) -> int:
        """The last event that is held if it arrives now; a later one is dropped, and asked for when it fits."""
        return self._window.last

    @property
    def in_gap(self) -> bool:
        """Whether an event is known to exist that has not been delivered."""
        return self._gaps.in_gap

    def take(self) -> NDArray[np.void]:
        """Return the events delivered since the last call, in order; the caller owns them."""
        return self._window.take()

    def receive(self, node: int, frame: Frame, now: float) -> tuple[int, int] | None:
        """Process one EVENTS, HEARTBEAT or UNAVAILABLE frame of a node.

        Returns the first and last of its events that were stored or compared; None if there are none. Raises FrameError
        for a frame that has no place on a feed or contradicts itself (nothing of it is stored), FeedConflict when an
        event differs from its first copy.
        """
        stored: tuple[int, int] | None = None
        if frame.kind is FrameKind.EVENTS:
            stored = self._receive_events(node, frame, now)
        elif frame.kind is FrameKind.HEARTBEAT:
            self._gaps.update(node, frame.correlation - 1, now)
            if not len(frame.body):
                # The node has more events than it has sent.
                self._held = max(self._held, frame.aux)
        elif frame.kind is FrameKind.UNAVAILABLE:
            self._gaps.unavailable(node, frame.correlation, frame.aux, now)
        else:
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a frame of the feed, found {frame.kind.name}")
        self._frames += 1
        return stored

    def set_limit(self, last: int, now: float) -> None:
        """Deliver events up to `last`, those held back so far included."""
        self._window.limit = last
        if self.in_gap:
            self._gaps.update(0, 0, now, progress=self._window.deliver() > 0)

    def exclude(self, node: int) -> None:
        """Never ask this node again."""
        self._gaps.exclude(node)

    def rewind(self, first: int, now: float) -> None:
        """Drop event `first` and everything after it, delivered or not, and ask for it again."""
        self._window.rewind(first)
        self._gaps.restart(now)

    def requests(self, now: float) -> list[Request]:
        """Return the requests to send now; raises GapUnfillable when no node can fill a gap."""
        return self._gaps.requests(now)

    def mark_unsent(self, request: Request, now: float) -> None:
        """Record that a request could not be sent because its node is not connected."""
        self._gaps.mark_unsent(request, now)

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count `seconds` in which nothing was received: answers may have come meanwhile."""
        self._gaps.extend_deadlines(seconds)

    def deadline(self) -> float | None:
        """Return when requests() has something to do; None while nothing is missing."""
        return self._gaps.deadline()

    def _receive_events(self, node: int, frame: Frame, now: float) -> tuple[int, int] | None:
        events = frames.records(frame)
        if not len(events):
            return None
        first = int(events["sequence"][0])
        last = first + len(events) - 1
        if first < 1 or not np.array_equal(events["sequence"], np.arange(first, last + 1, dtype=np.uint64)):
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected events in sequence from {first}, found others")
        stored = self._window.store(node, record_words(events), first)
        self._gaps.update(node, last, now, progress=self._window.deliver() > 0)
        return stored
