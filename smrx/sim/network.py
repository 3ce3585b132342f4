"""Simulate the network: first in, first out connections, and the faults between their ends.

Owns the messages in flight. A message arrives after the earlier ones of its connection or not at all. When a connection
breaks, its messages are lost or arrive late, interleaved with those of the next connection: TCP allows this, and no
more. Copies of messages and overtaking across connections follow from it. Nodes and clients are numbers here.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import structs

from smrx.consensus import messages
from smrx.consensus.messages import SnapshotChunk
from smrx.sim.checker import Violation
from smrx.sim.scheduler import Scheduler

#: The ends of gateways and of their clients are numbered from here on.
FIRST_GATEWAY: Final = 300
#: Bounds of the time until a broken connection is back (a node's sockets reconnect after 50 to 500 ms).
_RECONNECT_SECONDS: Final = (0.05, 0.4)
#: Mean delay of the copy of a message.
_COPY_SECONDS: Final = 0.2
_ELECTION_COPIES: Final = 0.5
#: Recent messages that replay_old_frames() chooses from, and how many it replays.
_RECENT: Final = 1500
_REPLAYED: Final = 40
#: Limit of the messages of one run; the busiest of the first runs sent some 5,000.
_MAX_MESSAGES: Final = 30_000

#: (source, target)
LinkId = tuple[int, int]


class _Link:
    """One direction between two ends."""

    __slots__ = ("connection", "held", "last_arrival", "lost", "open_at")

    def __init__(self) -> None:
        self.connection = 0
        #: The frames that hold() keeps back; None if it holds none.
        self.held: list[bytes] | None = None
        #: Connections whose messages in flight are lost.
        self.lost: set[int] = set()
        self.last_arrival = 0.0
        self.open_at = 0.0


class Network:
    """Carries frames between numbered ends."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, nodes: int, delay: tuple[float, float]) -> None:
        """Create a network whose ends 1 to `nodes` are nodes, and the others clients."""
        self.delay = delay
        #: The probability that a message breaks its connection.
        self.loss = 0.0
        #: The probability that a message between nodes arrives a second time. Messages of clients do not: no connection
        #: repeats them, and a copy of the first frame of a session that has ended would open the session again.
        self.repeats = 0.0
        #: Links that deliver nothing.
        self.cuts: set[LinkId] = set()
        #: Snapshot chunks still to be corrupted: a fault in the sender's memory, which TCP does not detect.
        self.corrupt_chunks = 0
        #: By end: the number of the credential whose key it has proven; ends of no credential are not here.
        self.credentials: dict[int, int] = {}
        self.sent = 0
        #: The most recent messages between nodes.
        self._recent: deque[tuple[int, int, bytes]] = deque(maxlen=_RECENT)
        self._nodes = nodes
        self._scheduler = scheduler
        self._rng = rng
        self._links: dict[LinkId, _Link] = {}
        self._receivers: dict[int, Callable[[int, bytes], None]] = {}
        self._on_break: dict[int, Callable[[int], None]] = {}

    def attach(
        self, end: int, receive: Callable[[int, bytes], None], broke: Callable[[int], None] | None = None
    ) -> None:
        """Deliver the frames for `end` by calling receive(source, frame), and call broke(other) for each break."""
        self._receivers[end] = receive
        if broke is not None:
            self._on_break[end] = broke

    def send(self, source: int, target: int, frame: bytes, *, is_election: bool = False) -> None:
        """Send a frame; it may be lost. Messages of an election are rare, so they are repeated more often."""
        self.sent += 1
        if self.sent > _MAX_MESSAGES:
            raise Violation(
                f"message flood: more than {_MAX_MESSAGES} messages in {self._scheduler.elapsed_seconds:.1f} s of a run"
            )
        link = self._link(source, target)
        now = self._scheduler.clock.time
        rng = self._rng
        if now < link.open_at or (source, target) in self.cuts:
            return
        if link.held is not None:
            link.held.append(frame)
            return
        if self.loss and rng.random() < self.loss:
            self.break_link(source, target, lose=True)
            return
        if self.corrupt_chunks:
            frame = self._corrupted(frame)
        low, high = self.delay
        link.last_arrival = arrival = max(now + low + (high - low) * rng.random(), link.last_arrival)
        self._scheduler.call_at(arrival, self._arrive, source, target, link, link.connection, frame)
        if source > self._nodes or target > self._nodes:
            return
        self._recent.append((source, target, frame))
        if self.repeats and rng.random() < (_ELECTION_COPIES if is_election else self.repeats):
            copy_arrival = arrival + rng.expovariate(1 / _COPY_SECONDS)
            self._scheduler.call_at(copy_arrival, self._arrive, source, target, link, link.connection, frame)

    def recent_frames_to(self, target: int) -> list[bytes]:
        """Return the most recent frames that other nodes sent to a node."""
        return [frame for _, receiver, frame in self._recent if receiver == target]

    def replay_old_frames(self) -> None:
        """Deliver copies of some recent messages between nodes at once, as a box on the way may do."""
        recent = list(self._recent)
        for source, target, frame in self._rng.sample(recent, min(_REPLAYED, len(recent))):
            if (source, target) not in self.cuts:
                self._receivers[target](source, frame)

    def cut(self, sources: Iterable[int], targets: Iterable[int]) -> set[LinkId]:
        """Stop delivery from each source to each target; return the links that were not cut before."""
        targets = list(targets)
        added = {(source, target) for source in sources for target in targets if source != target} - self.cuts
        self.cuts |= added
        return added

    def break_link(self, source: int, target: int, *, lose: bool) -> None:
        """End a connection. Its messages in flight are lost, or arrive beside those of the next connection."""
        link = self._link(source, target)
        if lose:
            link.lost.add(link.connection)
        link.connection += 1
        link.last_arrival = 0.0
        link.open_at = self._scheduler.clock.time + self._rng.uniform(*_RECONNECT_SECONDS)
        for end, other in ((source, target), (target, source)):
            if end in self._on_break:
                self._on_break[end](other)

    def break_gateway_links(self, node: int) -> None:
        """End the connections between a node and gateways, as the end of its process does."""
        for source, target in list(self._links):
            if node in (source, target) and max(source, target) >= FIRST_GATEWAY:
                self.break_link(source, target, lose=True)

    def reopen(self, source: int, target: int) -> None:
        """Connect two ends again at once, in both directions."""
        for pair in ((source, target), (target, source)):
            self._link(*pair).open_at = 0.0

    def stall(self, source: int, target: int, seconds: float) -> None:
        """Delay all messages sent from now on for some seconds, in order."""
        link = self._link(source, target)
        link.last_arrival = max(link.last_arrival, self._scheduler.clock.time + seconds)

    def hold(self, source: int, target: int) -> None:
        """Keep all messages sent from now on back until release()."""
        self._link(source, target).held = []

    def release(self, source: int, target: int) -> Callable[[], None] | None:
        """Start a new connection; return a function that delivers what the old one held, None if it held nothing."""
        link = self._link(source, target)
        frames, link.held = link.held, None
        connection = link.connection
        link.connection += 1
        link.last_arrival = 0.0

        def deliver() -> None:
            for frame in frames or ():
                self._arrive(source, target, link, connection, frame)

        return deliver if frames else None

    def heal(self) -> None:
        """Remove every cut."""
        self.cuts.clear()

    def repair(self, delay: tuple[float, float]) -> None:
        """End all faults; messages in flight still arrive."""
        self.heal()
        self.delay = delay
        self.loss = self.repeats = 0.0
        self.corrupt_chunks = 0
        for (source, target), link in self._links.items():
            link.open_at = 0.0
            link.held = None
            # A late message of nodes and of clients of theirs is harmless, and must not delay what follows the repair.
            # The links of gateways are streams: a frame that overtook another one would be no fault of a gateway.
            if max(source, target) < FIRST_GATEWAY:
                link.last_arrival = 0.0

    def _link(self, source: int, target: int) -> _Link:
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = _Link()
        return link

    def _arrive(self, source: int, target: int, link: _Link, connection: int, frame: bytes) -> None:
        receive = self._receivers.get(target)
        if receive is not None and connection not in link.lost and (source, target) not in self.cuts:
            receive(source, frame)

    def _corrupted(self, frame: bytes) -> bytes:
        """Return the frame with one bit of its snapshot chunk flipped; any other frame unchanged."""
        envelope = messages.decode(frame)
        if isinstance(envelope, str) or not isinstance(envelope.body, SnapshotChunk) or not envelope.body.data:
            return frame
        self.corrupt_chunks -= 1
        data = bytearray(envelope.body.data)
        data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        body = structs.replace(envelope.body, data=bytes(data))
        return messages.encode(structs.replace(envelope, body=body))
