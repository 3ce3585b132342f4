"""Release the events of some accounts that a majority of the nodes has sent alike. Sans I/O.

Each node sends UPDATES frames: a range of sequences, and those of its events that concern the accounts. Rules:

- Up to an event that a majority of all members has covered, the events are released that a majority has sent alike.
- A node whose events differ is excluded for good. If no majority is left, or can be, that is Disagreement.
- A node that no longer holds what comes next, or skipped something, is asked again from the last event released.

Called by the account feed, which passes every frame.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.feed.feed_errors import Disagreement, GapUnfillable
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind
from smrx.wire.record_words import concatenate_records
from smrx.wire.records import EVENT

#: Events of one node that are held until a majority has sent them; beyond that its frames are not read.
HELD_EVENTS: Final = 1 << 16


class _Copies:
    """What one node has sent and is not released."""

    def __init__(self) -> None:
        self.covered: int | None = None  #: the last event that its frames cover; None before the first
        self.events = np.empty(0, EVENT)
        self.unavailable = ""  #: what it holds instead of the next event

    def upto(self, last: int) -> NDArray[np.void]:
        """Return its events up to `last`."""
        return self.events[: int(np.searchsorted(self.events["sequence"], np.uint64(last), side="right"))]


class AccountQuorum:
    """Decides which events of some accounts a majority of `members` has sent."""

    def __init__(self, nodes: Sequence[int], members: int, first: int | None = None) -> None:
        """Release events from `first` on; None: from the next event of the node of a majority that has the fewest.

        Raises ValueError if the nodes are no majority of the members.
        """
        self.majority = members // 2 + 1
        if len(nodes) < self.majority:
            raise ValueError(f"expected at least {self.majority} of {members} nodes, found {len(nodes)}")
        self.released: int | None = None if first is None else first - 1  #: the last event examined by a majority
        self.excluded: dict[int, str] = {}  #: why nodes do not count any more
        self._nodes = {node: _Copies() for node in nodes}
        self._next: dict[int, int] = {}

    def wanted(self, node: int) -> int:
        """Return the first event to subscribe to at a node; 0 for the next one."""
        if self.released is None:
            return 0
        covered = self._nodes[node].covered
        return max(self.released, covered or 0) + 1

    def is_full(self, node: int) -> bool:
        """Whether so many events of a node wait for others that no more are to be read."""
        return len(self._nodes[node].events) >= HELD_EVENTS

    def receive(self, node: int, frame: Frame) -> bool:
        """Process a frame of a node; return whether the subscription there must be made again, from wanted().

        Raises FrameError for a frame that has no place here or contradicts itself, GapUnfillable when so many nodes
        no longer hold the next event that no majority can send it.
        """
        copies = self._nodes[node]
        if node in self.excluded:
            return False
        if frame.kind is FrameKind.HEARTBEAT:
            self._note_next(node, frame.correlation)
            return False
        if frame.kind is FrameKind.UNAVAILABLE:
            return self._note_unavailable(copies, frame)
        if frame.kind is not FrameKind.UPDATES:
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected UPDATES, found {frame.kind.name}")
        first, last = frame.correlation, frame.aux
        events = frames.records(frame)
        sequences = events["sequence"]
        if not 1 <= first <= last or (
            len(events)
            and (sequences[0] < first or sequences[-1] > last or (np.diff(sequences.astype(np.int64)) <= 0).any())
        ):
            raise FrameError(ErrorCode.MALFORMED_FRAME, f"UPDATES: expected events of {first} to {last} in sequence")
        self._note_next(node, first)
        if self.released is None:
            return False
        covered = self.released if copies.covered is None else max(copies.covered, self.released)
        if first > covered + 1:
            return True
        copies.unavailable = ""
        if last > covered:
            new = events[int(np.searchsorted(sequences, np.uint64(covered), side="right")) :]
            if len(new):
                copies.events = concatenate_records([copies.events, new]) if len(copies.events) else new.copy()
            copies.covered = last
        return False

    def take(self) -> NDArray[np.void]:
        """Return the events released since the last call, in sequence. Raises Disagreement."""
        counted = {node: copies for node, copies in self._nodes.items() if node not in self.excluded}
        covered = sorted((copies.covered or 0 for copies in counted.values()), reverse=True)
        if self.released is None or len(covered) < self.majority or covered[self.majority - 1] <= self.released:
            return np.empty(0, EVENT)
        last = covered[self.majority - 1]
        sent: dict[bytes, list[int]] = {}
        for node, copies in counted.items():
            if (copies.covered or 0) >= last:
                sent.setdefault(copies.upto(last).tobytes(), []).append(node)
        agreed = max(sent, key=lambda found: len(sent[found]))
        if len(sent[agreed]) < self.majority:
            waiting = len(counted) - sum(map(len, sent.values()))
            if len(sent[agreed]) + waiting < self.majority:
                groups = ", ".join(str(nodes) for nodes in sorted(sent.values()))
                raise Disagreement(
                    f"events {self.released + 1} to {last}: no majority of nodes has sent the same: nodes {groups}"
                )
            return np.empty(0, EVENT)
        for found, nodes in sent.items():
            if found != agreed:
                self.excluded |= dict.fromkeys(nodes, f"events {self.released + 1} to {last} differ from a majority's")
        self._release(last)
        return np.frombuffer(agreed, EVENT)

    def _release(self, last: int) -> None:
        self.released = last
        for node, copies in self._nodes.items():
            copies.events = (
                copies.events[len(copies.upto(last)) :].copy() if node not in self.excluded else copies.events[:0]
            )

    def _note_next(self, node: int, following: int) -> None:
        """Record where the stream of a node begins; the stream begins when a majority has said so."""
        if self.released is not None:
            return
        self._next[node] = min(following, self._next.get(node, following))
        if len(self._next) >= self.majority:
            # Those that are ahead are asked again; a node that lies can only let it begin too early.
            self.released = min(self._next.values()) - 1

    def _note_unavailable(self, copies: _Copies, frame: Frame) -> bool:
        oldest, newest = frame.correlation, frame.aux
        if self.released is None or oldest <= max(self.released, copies.covered or 0) + 1:
            return True
        copies.unavailable = f"holds {oldest} to {newest}" if oldest <= newest else "holds no events"
        counted = {node: copies for node, copies in self._nodes.items() if node not in self.excluded}
        able = [node for node, copies in counted.items() if not copies.unavailable]
        if len(able) < self.majority:
            answers = {node: copies.unavailable for node, copies in counted.items() if copies.unavailable}
            raise GapUnfillable(self.released + 1, oldest - 1, answers)
        return True
