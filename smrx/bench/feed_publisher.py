"""Publish events as two nodes do, without engine and consensus: the other process of the settlement benchmark.

Run as `python -m smrx.bench.feed_publisher EVENTS_FILE HELD`. It holds the first HELD events for retransmission, prints
the ports of its nodes as JSON, reads a rate in events per second from standard input, and publishes the other events at
that rate. Published events carry the time at which they are sent. Ends when standard input is closed.
"""

import json
import sys
import time
from typing import Final

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.node.event_ring import EventRing
from smrx.node.publisher import Publisher
from smrx.node.replicated_state import Applied
from smrx.settlement.ledger import Ledger
from smrx.wire import frames
from smrx.wire.frames import Claim, FeedPosition
from smrx.wire.records import EVENT, OUTCOME

NODES: Final = 2
#: Interval of frames, about that of a busy node.
FRAME_SECONDS: Final = 0.001
#: Any number: there is no state, and all nodes claim the same.
STATE_HASH: Final = 1


class FeedNodes:
    """The publishers of nodes that publish the same events."""

    def __init__(self, events: NDArray[np.void], held: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._events = events
        self._next = self._held = held
        books = Ledger()
        books.post(events[:held])
        self._balances = books.balances_digest()
        self._ring = EventRing(len(events))
        self._ring.append(events[:held])
        self._publishers = [Publisher(self._context, "tcp://127.0.0.1:*") for _ in range(NODES)]
        self._poller = zmq.Poller()
        for publisher in self._publishers:
            self._poller.register(publisher.socket, zmq.POLLIN)

    def ports(self) -> list[int]:
        """Return the events port of each node."""
        addresses = (str(publisher.socket.get_string(zmq.LAST_ENDPOINT)) for publisher in self._publishers)
        return [int(address.rsplit(":", 1)[1]) for address in addresses]

    def serve(self, seconds: float) -> None:
        """Answer requests, send what subscribers lack, and heartbeats; wait up to `seconds` for a request."""
        due = min(publisher.next_deadline for publisher in self._publishers) - time.monotonic()
        self._poller.poll(int(1000 * max(0.0, min(seconds, due))))
        now = time.monotonic()
        for publisher in self._publishers:
            publisher.receive(self._next, now)
            publisher.catch_up(lambda: self._ring, lambda _: STATE_HASH, now)
            # The digest is known only of the events held at first.
            publisher.heartbeat(self._position if self._next == self._held else None, self._next, now)

    def _position(self) -> FeedPosition:
        """Return the end of the events held at first."""
        command = int(self._events["command_sequence"][self._next - 1])
        return FeedPosition(self._next + 1, Claim(command, STATE_HASH), self._balances)

    def play(self, rate: float) -> None:
        """Publish the remaining events at `rate` events per second; each frame ends with a command's last event."""
        started, first = time.monotonic(), self._next
        commands = self._events["command_sequence"]
        while self._next < len(self._events):
            self.serve(0.0)
            due = min(len(self._events), first + int((time.monotonic() - started) * rate))
            if due - self._next < rate * FRAME_SECONDS and due < len(self._events):
                time.sleep(FRAME_SECONDS / 4)
                continue
            end = int(np.searchsorted(commands, commands[due - 1], side="right"))
            most = self._next + frames.MAX_EVENTS
            if end > most:
                # Behind schedule: end the frame at a command's last event, because its events have one time.
                end = int(np.searchsorted(commands, commands[most]))
            part = self._events[self._next : end]
            part["time_ns"] = time.time_ns()
            self._ring.append(part)
            entry = Applied(1, 1, np.empty(0, OUTCOME), part, int(part["command_sequence"][-1]), STATE_HASH)
            self._next = end
            for publisher in self._publishers:
                publisher.publish([entry])


def main(path: str, held: int) -> None:
    """Run the process that the module docstring describes."""
    events = np.fromfile(path, EVENT)
    nodes = FeedNodes(events, held)
    sys.stdout.write(json.dumps(nodes.ports()) + "\n")
    sys.stdout.flush()
    poller = zmq.Poller()
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while True:
        nodes.serve(0.001)
        if poller.poll(0):
            line = sys.stdin.readline()
            if not line:
                return
            nodes.play(float(line))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
