"""Keep the reads that wait for the confirmation of the leader, and those that may be answered, in turn for each peer.

Owns the order in which reads are answered: of each peer in the order of its requests, and one of each peer in turn, so
that a peer with many waits for itself. The numbers of waiting reads of a peer and in all are bounded. Sends nothing and
reads no state. Called by the admin service and by the simulated process.
"""

from collections import deque
from collections.abc import Callable, Container, Hashable
from typing import Generic, NamedTuple, TypeVar

from smrx.consensus.read_index import ReadState, ReadTicket

P = TypeVar("P", bound=Hashable)
R = TypeVar("R")


class Answerable(NamedTuple, Generic[P, R]):
    """A read that may be answered, or whose leadership was lost."""

    peer: P
    read: R
    is_lost: bool


class PendingReads(Generic[P, R]):
    """The reads of all peers that are not answered yet."""

    def __init__(self, *, of_peer: int, in_all: int) -> None:
        """Set the bounds of reads of one peer and of all peers."""
        self._of_peer = of_peer
        self._in_all = in_all
        #: Oldest first: their tickets become ready in this order.
        self._waiting: deque[tuple[ReadTicket, P, R]] = deque()
        self._answerable: dict[P, deque[Answerable[P, R]]] = {}
        self._counts: dict[P, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether no read of any peer can be added."""
        return self._size >= self._in_all

    def has_space(self, peer: P) -> bool:
        """Return whether a read of this peer can be added."""
        return self._size < self._in_all and self._counts.get(peer, 0) < self._of_peer

    def has_answerable(self, blocked: Container[P] = ()) -> bool:
        """Return whether take() returns a read."""
        return any(peer not in blocked for peer in self._answerable)

    def add(self, peer: P, read: R, ticket: ReadTicket | None) -> None:
        """Add a read that waits for its ticket; without one, it may be answered at once."""
        self._counts[peer] = self._counts.get(peer, 0) + 1
        self._size += 1
        if ticket is None:
            self._answer(peer, read, is_lost=False)
        else:
            self._waiting.append((ticket, peer, read))

    def release(self, state_of: Callable[[ReadTicket], ReadState]) -> None:
        """Let the reads be answered whose tickets no longer wait."""
        while self._waiting:
            ticket, peer, read = self._waiting[0]
            state = state_of(ticket)
            if state is ReadState.WAITING:
                return
            self._waiting.popleft()
            self._answer(peer, read, is_lost=state is ReadState.LOST)

    def _answer(self, peer: P, read: R, *, is_lost: bool) -> None:
        self._answerable.setdefault(peer, deque()).append(Answerable(peer, read, is_lost))

    def take(self, blocked: Container[P] = ()) -> Answerable[P, R] | None:
        """Remove and return the next read to answer, none of a blocked peer; None if there is none."""
        peer = next((peer for peer in self._answerable if peer not in blocked), None)
        if peer is None:
            return None
        queue = self._answerable.pop(peer)
        taken = queue.popleft()
        if queue:
            # Behind the others.
            self._answerable[peer] = queue
        self._removed(peer, 1)
        return taken

    def drop(self, peer: P) -> int:
        """Drop the reads of a peer that is gone; return how many."""
        dropped = len(self._answerable.pop(peer, ()))
        kept = deque(waiting for waiting in self._waiting if waiting[1] != peer)
        dropped += len(self._waiting) - len(kept)
        self._waiting = kept
        if dropped:
            self._removed(peer, dropped)
        return dropped

    def _removed(self, peer: P, count: int) -> None:
        self._size -= count
        self._counts[peer] -= count
        if not self._counts[peer]:
            del self._counts[peer]
