"""The simulated network: connections that are first in, first out, and everything that goes wrong between them.

Owns what is under way. A message arrives in order behind the earlier ones of its connection or not at all; when a
connection breaks, what it still carries is lost or comes late, beside what its successor carries. That is all that
TCP allows, and with it repeats and overtaking across connections. Nodes and clients are numbers here.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs

from smrx.consensus import messages
from smrx.consensus.messages import SnapshotChunk
from smrx.sim.checker import Violation
from smrx.sim.world import World

#: How long a broken connection stays away (the node's sockets come back after 50 to 500 ms).
_RECONNECT_SECONDS: Final = (0.05, 0.4)
#: A message that comes again comes this much later on average.
_REPEAT_SECONDS: Final = 0.2
_DEAR_REPEATS: Final = 0.5
#: An echo brings back some of so many messages.
_PAST: Final = 1500
_ECHOES: Final = 40
#: Messages of one run; the busiest of the first runs sent some 5,000.
_MOST: Final = 30_000


class _Link:
    """One direction between two ends."""

    __slots__ = ("connection", "held", "last_arrival", "lost", "open_at")

    def __init__(self) -> None:
        self.connection = 0
        #: What the connection carries and does not deliver, if it delivers nothing.
        self.held: list[bytes] | None = None
        self.lost: set[int] = set()
        self.last_arrival = 0.0
        self.open_at = 0.0


class Network:
    """Carries frames between numbered ends."""

    def __init__(self, world: World, chance: random.Random, nodes: int, delay: tuple[float, float]) -> None:
        self.delay = delay
        #: The chance for each message that its connection breaks.
        self.loss = 0.0
        #: The chance for each message between nodes that it comes again. A client's cannot: no connection of a client
        #: repeats anything, and a copy of its first frame that outlives its session would open it again.
        self.repeats = 0.0
        #: Directed pairs between which nothing passes.
        self.cuts: set[tuple[int, int]] = set()
        #: Snapshot chunks that will arrive with a wrong byte: a fault of the sender's memory that TCP does not see.
        self.damages = 0
        self.sent = 0
        #: The last messages between nodes: any of them may come again.
        self._past: deque[tuple[int, int, bytes]] = deque(maxlen=_PAST)
        self._nodes = nodes
        self._world = world
        self._chance = chance
        self._links: dict[tuple[int, int], _Link] = {}
        self._receivers: dict[int, Callable[[int, bytes], None]] = {}

    def join(self, end: int, receive: Callable[[int, bytes], None]) -> None:
        """Deliver frames for `end` by calling receive(source, frame)."""
        self._receivers[end] = receive

    def send(self, source: int, target: int, frame: bytes, *, dear: bool = False) -> None:
        """Send one frame; it may never arrive. A `dear` one is rare and matters: it is repeated more often."""
        self.sent += 1
        if self.sent > _MOST:
            raise Violation(f"flood: more than {_MOST} messages in {self._world.seconds:.1f} s of one run")
        link = self._link(source, target)
        now = self._world.clock.time
        chance = self._chance
        if now < link.open_at or (source, target) in self.cuts:
            return
        if link.held is not None:
            link.held.append(frame)
            return
        if self.loss and chance.random() < self.loss:
            self.break_link(source, target, lose=True)
            return
        if self.damages:
            frame = self._damaged(frame)
        low, high = self.delay
        link.last_arrival = arrival = max(now + low + (high - low) * chance.random(), link.last_arrival)
        self._world.at(arrival, self._arrive, source, target, link, link.connection, frame)
        if source > self._nodes or target > self._nodes:
            return
        self._past.append((source, target, frame))
        if self.repeats and chance.random() < (_DEAR_REPEATS if dear else self.repeats):
            late = arrival + chance.expovariate(1 / _REPEAT_SECONDS)
            self._world.at(late, self._arrive, source, target, link, link.connection, frame)

    def heard_by(self, target: int) -> list[bytes]:
        """What was last sent to a node by others."""
        return [frame for _, receiver, frame in self._past if receiver == target]

    def echo(self) -> None:
        """Let old messages between nodes arrive once more: copies that some box on the way has kept."""
        past = list(self._past)
        for source, target, frame in self._chance.sample(past, min(_ECHOES, len(past))):
            if (source, target) not in self.cuts:
                self._receivers[target](source, frame)

    def break_link(self, source: int, target: int, *, lose: bool) -> None:
        """End the connection: what is under way is lost, or comes late while the next one carries news already."""
        link = self._link(source, target)
        if lose:
            link.lost.add(link.connection)
        link.connection += 1
        link.last_arrival = 0.0
        link.open_at = self._world.clock.time + self._chance.uniform(*_RECONNECT_SECONDS)

    def reopen(self, source: int, target: int) -> None:
        """Let both directions between two ends work again at once."""
        for pair in ((source, target), (target, source)):
            self._link(*pair).open_at = 0.0

    def stall(self, source: int, target: int, seconds: float) -> None:
        """Let everything sent from now on wait, in order, for a while."""
        link = self._link(source, target)
        link.last_arrival = max(link.last_arrival, self._world.clock.time + seconds)

    def hold(self, source: int, target: int) -> None:
        """Let everything sent from now on wait until somebody lets go of it."""
        self._link(source, target).held = []

    def let_go(self, source: int, target: int) -> Callable[[], None] | None:
        """Begin a new connection; return what lets arrive what the old one holds, None if it holds nothing."""
        link = self._link(source, target)
        frames, link.held = link.held, None
        connection = link.connection
        link.connection += 1
        link.last_arrival = 0.0

        def arrive() -> None:
            for frame in frames or ():
                self._arrive(source, target, link, connection, frame)

        return arrive if frames else None

    def heal(self) -> None:
        """Remove every cut."""
        self.cuts.clear()

    def calm(self, delay: tuple[float, float]) -> None:
        """Nothing goes wrong from now on; what is under way still arrives."""
        self.heal()
        self.delay = delay
        self.loss = self.repeats = 0.0
        self.damages = 0
        for link in self._links.values():
            link.open_at = link.last_arrival = 0.0
            link.held = None

    def _link(self, source: int, target: int) -> _Link:
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = _Link()
        return link

    def _arrive(self, source: int, target: int, link: _Link, connection: int, frame: bytes) -> None:
        receive = self._receivers.get(target)
        if receive is not None and connection not in link.lost and (source, target) not in self.cuts:
            receive(source, frame)

    def _damaged(self, frame: bytes) -> bytes:
        envelope = messages.decode(frame)
        if isinstance(envelope, str) or not isinstance(envelope.body, SnapshotChunk) or not envelope.body.data:
            return frame
        self.damages -= 1
        data = bytearray(envelope.body.data)
        data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        body = structs.replace(envelope.body, data=bytes(data))
        return messages.encode(structs.replace(envelope, body=body))
