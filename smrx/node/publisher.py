"""Publish the events of one node and answer requests for lost ones.

Sends EVENTS after commit, heartbeats, and the answers to retransmission and claim requests. A heartbeat lets a
subscriber tell silence from loss (it names the next event) and lets settlement compare books: it carries the state hash
after the last command and a digest of all balances. Owns the PUB and the retransmission socket. A slow subscriber never
slows the loop: PUB drops frames for it, and it requests the missing sequences.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

import zmq

from smrx.feed.retransmission import MAX_REQUEST_BYTES
from smrx.node.connection_guard import HANDSHAKE_MS
from smrx.node.event_ring import EventRing, answer_request, entry_frames
from smrx.node.replicated_state import Applied
from smrx.wire import frames, tcp_address
from smrx.wire.frames import Claim, FeedPosition, FrameError
from smrx.wire.tcp_keepalive import enable_tcp_keepalive

#: The time between heartbeats, within which a subscriber notices that the newest events were lost.
HEARTBEAT_SECONDS: Final = 0.5
#: Frames of up to 1 MiB that are queued for one subscriber before PUB drops frames for it.
_SEND_HIGH_WATER_MARK: Final = 512
#: Frames of answers that are queued for one subscriber: four of the longest answers. It bounds the memory taken by a
#: subscriber that requests and does not read; it requests again what is dropped.
_ANSWER_HIGH_WATER_MARK: Final = 16
#: Retransmission requests answered in one turn: few, because the loop also serves orders.
_REQUESTS_PER_TURN: Final = 4


class Publisher:
    """Publishes the events of applied entries, in order, and answers requests for lost ones."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", events_address: str, retransmit_address: str) -> None:
        self._feed = context.socket(zmq.PUB)
        self._feed.set_hwm(_SEND_HIGH_WATER_MARK)
        self._feed.linger = 0
        enable_tcp_keepalive(self._feed)
        tcp_address.bind(self._feed, events_address)
        self.requests = context.socket(zmq.ROUTER)
        self.requests.linger = 0
        self.requests.sndhwm = _ANSWER_HIGH_WATER_MARK
        self.requests.maxmsgsize = MAX_REQUEST_BYTES
        self.requests.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        enable_tcp_keepalive(self.requests)
        tcp_address.bind(self.requests, retransmit_address)
        self._next_heartbeat = 0.0

    def publish(self, applied: Iterable[Applied]) -> None:
        """Send the events of applied entries; the last frame of an entry carries its sequence and state hash."""
        for entry in applied:
            for frame in entry_frames(entry.events, Claim(entry.sequence, entry.state_hash)):
                self._feed.send(frame)

    def heartbeat(self, position: Callable[[], FeedPosition], now: float) -> None:
        """Send a heartbeat if it is due: the next event, the state hash and the balance digest."""
        if now < self._next_heartbeat:
            return
        started = time.perf_counter()
        self._feed.send(frames.encode_heartbeat(position()))
        # The digest of a million balances takes about 50 ms; spend at most a hundredth of the loop's time on it.
        self._next_heartbeat = now + max(HEARTBEAT_SECONDS, 100 * (time.perf_counter() - started))

    @property
    def next_deadline(self) -> float:
        """When the next heartbeat is due, on the clock given to heartbeat()."""
        return self._next_heartbeat

    def answer_requests(self, ring: EventRing | None, hash_at: Callable[[int], int | None]) -> bool:
        """Answer the requests that have arrived; return whether more may be waiting.

        Without a ring, drop them. `hash_at` returns the state hash after a command, None if it is no longer kept.
        """
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
                    break  # The subscriber reads too slowly; it requests the rest again.
        return True
