"""Track which of the pending events one node has confirmed, by its own copies or by digests. Called by the quorum."""

from typing import Final

import msgspec

from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request

#: Nodes apply a command within milliseconds of one another: if a copy is not there by then, its digest is asked for.
DIGEST_AFTER_S: Final = 0.02
#: When an unanswered request is repeated.
DIGEST_AGAIN_S: Final = 0.5


class Coverage(msgspec.Struct):
    """What one node has confirmed so far."""

    covered: int  #: every event up to this one, as it is held here
    tail: tuple[int, int] | None = None  #: and these, after a gap in the node's own copies
    newest: int = 0  #: the newest event it has announced; it may go back after a restart
    command: int = 0  #: its newest claim
    is_heard: bool = False
    ask_at: float = 0.0
    differing: tuple[int, int] | None = None  #: events of which its digest differs: its copies are asked for
    oldest: int = 0  #: it no longer holds what is before this event

    def add_copies(self, first: int, last: int, now: float) -> None:
        """Record that the node sent events first..last as they are held here."""
        tail = self.tail
        if first <= self.covered + 1:
            self.covered = max(self.covered, last)
            # It is sending: its copies of what is missing may be on their way.
            self.ask_at = max(self.ask_at, now + DIGEST_AFTER_S)
        elif tail is not None and tail[0] <= first <= tail[1] + 1:
            self.tail = (tail[0], max(tail[1], last))
        else:
            self.tail = (first, last)
        self._join_tail()

    def advance(self, last: int) -> None:
        """Record that everything up to `last` is confirmed, by a digest or because it was released."""
        self.covered = max(self.covered, last)
        self._join_tail()

    def reset(self, released: int) -> None:
        """Drop what was confirmed beyond the last event released."""
        self.covered, self.tail, self.differing = released, None, None

    def note_held(self, oldest: int, newest: int, now: float) -> None:
        """Record that the node holds events oldest..newest only."""
        self.newest = newest
        self.ask_at = now + DIGEST_AGAIN_S
        if oldest > self.covered + 1:
            self.oldest = oldest

    def needs_request(self, last_pending: int) -> bool:
        """Whether the node has events, pending here, that it has not confirmed."""
        known = max(self.newest, self.tail[1] if self.tail else 0)
        return self.covered < last_pending and known > self.covered and self.oldest <= self.covered + 1

    def request(self, node: int, last_pending: int) -> Request:
        """Return the request for the next digest, or for copies of events whose digest differed."""
        if self.differing is not None:
            first, last = self.differing
            self.differing = None
            return Request(node, first, last)
        first, last = self.covered + 1, last_pending
        if self.tail is not None:
            last = min(last, self.tail[0] - 1)
        return Request(node, first, min(last, first + MAX_ANSWER_EVENTS - 1), digest=True)

    def _join_tail(self) -> None:
        if self.tail is not None and self.tail[0] <= self.covered + 1:
            self.covered = max(self.covered, self.tail[1])
            self.tail = None
