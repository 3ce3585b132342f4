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

from smrx.node.event_ring import EventRing, answer_request
from smrx.settlement.ledger import Ledger
from smrx.wire import frames
from smrx.wire.frames import Claim, FeedPosition, FrameError, FrameKind
from smrx.wire.records import EVENT

NODES: Final = 2
#: Interval of frames, about that of a busy node.
FRAME_SECONDS: Final = 0.001
_HEARTBEAT_SECONDS: Final = 0.5
#: Any number: there is no state, and all nodes claim the same.
STATE_HASH: Final = 1


class FeedNodes:
    """The feed sockets of nodes that publish the same events."""

    def __init__(self, events: NDArray[np.void], held: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._events = events
        self._next = self._held = held
        books = Ledger()
        books.post(events[:held])
        self._balances = books.balances_digest()
        self._ring = EventRing(len(events))
        self._ring.append(events[:held])
        self._feeds = [self._bound(zmq.PUB) for _ in range(NODES)]
        self._routers = [self._bound(zmq.ROUTER) for _ in range(NODES)]
        self._heartbeat_at = 0.0

    def _bound(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.set_hwm(0 if kind == zmq.ROUTER else 4096)
        socket.bind("tcp://127.0.0.1:*")
        return socket

    def ports(self) -> list[tuple[int, int]]:
        """Return the (events, retransmission) ports of each node."""
        pairs = zip(self._feeds, self._routers, strict=True)
        return [(_port(feed), _port(router)) for feed, router in pairs]

    def serve(self, seconds: float) -> None:
        """Send heartbeats that are due, and answer requests for `seconds`."""
        now = time.monotonic()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + _HEARTBEAT_SECONDS
            heartbeat = frames.encode(FrameKind.HEARTBEAT, correlation=self._next + 1)
            if self._next == self._held:
                command = int(self._events["command_sequence"][self._next - 1])
                heartbeat = frames.encode_heartbeat(
                    FeedPosition(self._next + 1, Claim(command, STATE_HASH), self._balances)
                )
            for feed in self._feeds:
                feed.send(heartbeat)
        for router in self._routers:
            while router.poll(max(0, int(seconds * 1000))):
                seconds = 0.0
                identity, request = router.recv_multipart()
                try:
                    replies = answer_request(self._ring, frames.decode(request), lambda command: STATE_HASH)
                except FrameError:
                    continue
                for reply in replies:
                    router.send_multipart([identity, reply])

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
            frame = frames.encode_events(part, int(part["command_sequence"][-1]), STATE_HASH)
            for feed in self._feeds:
                feed.send(frame)
            self._next = end


def _port(socket: "zmq.Socket[bytes]") -> int:
    return int(str(socket.get_string(zmq.LAST_ENDPOINT)).rsplit(":", 1)[1])


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
