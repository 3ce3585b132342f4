"""The event feed of one node: EVENTS after commit, heartbeats, retransmission and vouching from the ring.

A heartbeat tells silence from loss (the next event), and lets whoever keeps books compare: the state hash after the
last command and a digest of all balances, at an exact place in the feed. Owns the PUB and the retransmission socket. A
slow or silent subscriber never slows the loop: PUB drops for it, it sees the gap by sequence, and asks for the range.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

import zmq

from smrx.feed.retransmission import MAX_REQUEST_BYTES
from smrx.node.event_ring import EventRing, answer_request, entry_frames
from smrx.node.replicated_state import Applied
from smrx.wire import frames
from smrx.wire.frames import Claim, FeedPosition, FrameError
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

#: A node says twice a second where it stands, so that loss at the feed's tail is seen within that time.
HEARTBEAT_SECONDS: Final = 0.5
#: Frames of up to 1 MiB that wait for one subscriber before the feed drops for it.
_SEND_HIGH_WATER_MARK: Final = 512
#: Frames of answers that wait for one subscriber: four of the longest answers. What asks and does not read gets no more
#: memory than that; what is dropped is asked for again.
_ANSWER_HIGH_WATER_MARK: Final = 16
#: Retransmission requests answered in one turn: a greedy subscriber shares the loop with the orders.
_REQUESTS_PER_TURN: Final = 4


class Publisher:
    """Publishes what was applied, in order, and answers requests for what was lost."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", events_address: str, retransmit_address: str) -> None:
        self._feed = context.socket(zmq.PUB)
        self._feed.set_hwm(_SEND_HIGH_WATER_MARK)
        self._feed.linger = 0
        enable_tcp_keepalive(self._feed)
        self._feed.bind(events_address)
        self.requests = context.socket(zmq.ROUTER)
        self.requests.linger = 0
        self.requests.sndhwm = _ANSWER_HIGH_WATER_MARK
        self.requests.maxmsgsize = MAX_REQUEST_BYTES
        enable_tcp_keepalive(self.requests)
        self.requests.bind(retransmit_address)
        self._next_heartbeat = 0.0

    def publish(self, applied: Iterable[Applied]) -> None:
        """Send the events of applied entries; the last frame of an entry carries its sequence and state hash."""
        for entry in applied:
            for frame in entry_frames(entry.events, Claim(entry.sequence, entry.state_hash)):
                self._feed.send(frame)

    def heartbeat(self, position: Callable[[], FeedPosition], now: float) -> None:
        """Say where this node stands, busy or not: which event comes next, its state, its balances."""
        if now < self._next_heartbeat:
            return
        started = time.perf_counter()
        self._feed.send(frames.encode_heartbeat(position()))
        # A million balances take some 50 ms to digest: never more than a hundredth of the loop's time goes there.
        self._next_heartbeat = now + max(HEARTBEAT_SECONDS, 100 * (time.perf_counter() - started))

    @property
    def next_deadline(self) -> float:
        """When heartbeat() has something to do, on the clock given to it."""
        return self._next_heartbeat

    def answer_requests(self, ring: EventRing | None, hash_at: Callable[[int], int | None]) -> bool:
        """Answer requests that have arrived, or drop them where there is no ring; True if more may be waiting.

        hash_at: the state hash after a command, None where it is no longer known."""
        for _ in range(_REQUESTS_PER_TURN):
            try:
                parts = self.requests.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            if ring is None:
                continue
            try:
                if len(parts) != 2:
                    raise FrameError(frames.ErrorCode.MALFORMED_FRAME, f"expected 1 part, found {len(parts) - 1}")
                replies = answer_request(ring, frames.decode(parts[1]), hash_at)
            except FrameError:
                continue
            for reply in replies:
                try:
                    self.requests.send_multipart([parts[0], reply], zmq.DONTWAIT)
                except zmq.Again:
                    break  # It reads too slowly; it asks again for the rest.
        return True
