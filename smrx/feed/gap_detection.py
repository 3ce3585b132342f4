"""Notice missing events, and decide which node to ask for them and when.

An event is missing when a node has announced it, or a later one, and it has not arrived. Rules:

- The first gap is asked for at one node; after the request timeout, at the next node.
- A gap that every node reports as no longer held, or that makes no progress for the gap timeout, is GapUnfillable.
- Time is an argument: seconds of any monotonic clock. No sockets, no threads.

Called by the sequencer.
"""

from collections.abc import Sequence
from typing import Final

from smrx.feed.event_window import EventWindow
from smrx.feed.feed_errors import GapUnfillable
from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request

#: When a request counts as lost. An answer of 4 MiB takes some 10 ms on loopback, and the node may be busy.
REQUEST_TIMEOUT_S: Final = 0.5
#: An election takes 1.2 s and a restarted node some seconds more; after this long without progress no node will answer.
GAP_TIMEOUT_S: Final = 15.0
#: How soon another node is asked after one that is not connected.
_RETRY_S: Final = 0.02


class _Gap:
    """The first gap of the stream: since when it is open, which nodes were asked, what they answered."""

    def __init__(self, now: float, at_start: bool) -> None:
        self.at_start = at_start  #: the events before the consumer joined: expected, and no loss
        self.progress_at = now
        self.asked: dict[int, int] = {}
        self.answers: dict[int, str] = {}
        self.unable: set[int] = set()  #: nodes that no longer hold the first missing event
        self.request: Request | None = None
        self.ask_at = now


class GapDetection:
    """Compares the newest event announced with the next one to deliver."""

    def __init__(
        self, window: EventWindow, nodes: Sequence[int], request_timeout_s: float, gap_timeout_s: float
    ) -> None:
        """Watch a window; `nodes` are those that may be asked."""
        self.newest = window.expected - 1  #: the newest event that any node has announced
        self.gaps = 0  #: found after the stream was joined
        self.gaps_healed = 0
        self.requests_made = 0
        self._window = window
        self._nodes = list(nodes)
        self._request_timeout_s = request_timeout_s
        self._gap_timeout_s = gap_timeout_s
        self._gap: _Gap | None = None
        self._joined = False
        self._turn = 0

    @property
    def in_gap(self) -> bool:
        """Whether an event is known to exist that has not been delivered."""
        return self.newest >= self._window.expected

    def update(self, node: int, newest: int, now: float, progress: bool = False) -> None:
        """Record that a node has announced events up to `newest`; open, advance or close the gap.

        progress: whether events were delivered since the last call.
        """
        self.newest = max(self.newest, newest)
        gap = self._gap
        if not self.in_gap or self._window.at_limit:
            if gap is not None and not gap.at_start:
                self.gaps_healed += 1
            self._gap = None
            self._joined = True
        elif gap is None:
            self._gap = _Gap(now, at_start=not self._joined)
            self.gaps += self._joined
            # The node that revealed the gap is asked first: it has what comes after.
            self._turn = self._nodes.index(node) if node in self._nodes else self._turn
        elif progress:
            gap.progress_at = now
            self._advance(gap, now)

    def restart(self, now: float) -> None:
        """Forget the gap after the window was rewound; everything announced from there on is missing."""
        self._gap = _Gap(now, at_start=not self._joined) if self.in_gap else None

    def unavailable(self, node: int, oldest: int, newest: int, now: float) -> None:
        """Record a node's answer that it holds events oldest..newest only."""
        gap = self._gap
        if gap is None or node not in self._nodes:
            return
        gap.answers[node] = "holds no events" if newest < oldest else f"holds {oldest} to {newest}"
        is_behind = oldest <= self._window.expected
        if is_behind:
            # It has not applied the events yet and may have them soon.
            gap.unable.discard(node)
        else:
            gap.unable.add(node)
        if gap.request is not None and gap.request.node == node:
            gap.request, gap.ask_at = None, now + (_RETRY_S if is_behind else 0.0)

    def exclude(self, node: int) -> None:
        """Never ask this node again."""
        if node in self._nodes:
            self._nodes.remove(node)
            self._turn = 0

    def requests(self, now: float) -> list[Request]:
        """Return the requests to send now; raises GapUnfillable when no node can fill the gap."""
        gap = self._gap
        if gap is None:
            return []
        if self._window.at_limit:
            gap.progress_at = now
            return []
        is_unfillable = gap.unable.issuperset(self._nodes) or now - gap.progress_at >= self._gap_timeout_s
        if not is_unfillable and now < gap.ask_at:
            return []
        first, last = self._window.expected, self._window.gap_end(self.newest)
        if is_unfillable:
            raise GapUnfillable(first, last, self._answers(gap))
        node = self._next_node(gap)
        request = Request(node, first, min(last, first + MAX_ANSWER_EVENTS - 1))
        gap.request, gap.ask_at = request, now + self._request_timeout_s
        gap.asked[node] = gap.asked.get(node, 0) + 1
        self.requests_made += 1
        return [request]

    def mark_unsent(self, request: Request, now: float) -> None:
        """Record that a request could not be sent because its node is not connected."""
        if self._gap is not None and self._gap.request == request:
            self._gap.answers[request.node] = "not connected"
            self._gap.request, self._gap.ask_at = None, now + _RETRY_S

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count `seconds` in which nothing was received: answers may have come meanwhile."""
        if self._gap is not None:
            self._gap.progress_at += seconds

    def deadline(self) -> float | None:
        """Return when requests() has something to do; None while nothing is missing."""
        if self._gap is None or self._window.at_limit:
            return None
        return min(self._gap.ask_at, self._gap.progress_at + self._gap_timeout_s)

    def _advance(self, gap: _Gap, now: float) -> None:
        """Extend the request's deadline after part of its answer came; ask for the rest once all of it is there."""
        request = gap.request
        # A node without the first missing event before may well hold the one that is first now.
        gap.unable.clear()
        if request is not None and self._window.expected <= min(request.last, self._window.gap_end(self.newest)):
            gap.ask_at = now + self._request_timeout_s
        else:
            # A node that answers is asked again.
            self._turn = self._nodes.index(request.node) if request is not None else self._turn
            gap.request, gap.ask_at = None, now

    def _next_node(self, gap: _Gap) -> int:
        """Return the next node in turn; one that cannot help only if no other is left."""
        count = len(self._nodes)
        order = [self._nodes[(self._turn + i) % count] for i in range(count)]
        node = next((node for node in order if node not in gap.unable), order[0])
        self._turn = (self._nodes.index(node) + 1) % count
        return node

    def _answers(self, gap: _Gap) -> dict[int, str]:
        """Return what each node answered, for the error message."""
        found: dict[int, str] = {}
        for node in self._nodes:
            times = gap.asked.get(node, 0)
            found[node] = gap.answers.get(node, f"asked {times} times, no answer" if times else "not asked")
        return found
