"""Follow the events of some accounts over ZeroMQ: one DEALER socket a node, one stream of attested events out.

Owns the sockets; the account quorum decides what is released. Blocking, or on an asyncio event loop. Called by the
clients, for `updates()`.
"""

import time
from collections.abc import Iterable
from typing import Final, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.client_keys import ClientKeys
from smrx.feed.account_quorum import AccountQuorum
from smrx.feed.feed_errors import SubscriptionRefused
from smrx.feed.subscriber import Endpoint
from smrx.feed.subscription import Own, Subscription
from smrx.feed.subscription_state import SubscriptionState
from smrx.wire import frames, tcp_address
from smrx.wire.frames import ErrorCode, FrameError, FrameKind

#: How soon a subscription is made again at a node that lacked the next event, or skipped some.
_AGAIN_S: Final = 0.5
#: Frames read from one socket in a row.
_FRAMES_IN_A_ROW: Final = 64
_RECEIVE_HIGH_WATER_MARK: Final = 256
#: Refusals that do not end by themselves.
_FINAL: Final = (ErrorCode.FORBIDDEN, ErrorCode.MALFORMED_FRAME)

P = TypeVar("P", bound=zmq.Poller)


class AccountFeed:
    """The attested events of some accounts. Call close()."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        members: int,
        accounts: frozenset[int] | Own,
        first: int | None = None,
        keys: ClientKeys | None = None,
    ) -> None:
        """Connect (in the background) to nodes of a cluster of `members`; events are released from `first` on.

        Without `first` from those that happen from now on. `keys`: of a client of nodes with keys.
        """
        self.accounts = accounts
        self.garbage = 0  #: messages that were no valid frames
        endpoints = list(endpoints)
        self.quorum = AccountQuorum([endpoint.node for endpoint in endpoints], members, first)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._keys = keys
        self._addresses = {endpoint.node: endpoint.events_address for endpoint in endpoints}
        self._sockets = {node: self._connect(address) for node, address in self._addresses.items()}
        self._subscriptions = {endpoint.node: self._subscription(endpoint.node) for endpoint in endpoints}
        self._polled_at = time.monotonic()

    def poll(self, timeout: float) -> NDArray[np.void]:
        """Return the next events, or none after `timeout` seconds.

        Raises FeedError (events that the nodes no longer hold, nodes that disagree, a refused subscription); only
        close() may follow.
        """
        deadline = time.monotonic() + timeout
        while True:
            events = self._read_all()
            if len(events) or time.monotonic() >= deadline:
                return events
            poller, wait_ms = self._prepare(zmq.Poller(), deadline)
            poller.poll(wait_ms)

    async def poll_async(self, timeout: float) -> NDArray[np.void]:
        """Do the same on an event loop."""
        # Imported here: the blocking client does without asyncio.
        from zmq.asyncio import Poller

        deadline = time.monotonic() + timeout
        while True:
            events = self._read_all()
            if len(events) or time.monotonic() >= deadline:
                return events
            poller, wait_ms = self._prepare(Poller(), deadline)
            await poller.poll(wait_ms)

    def close(self) -> None:
        """Close every socket at once."""
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._context.term()

    def _prepare(self, poller: P, deadline: float) -> tuple[P, int]:
        """Send what is due; return the poller with the sockets to wait for, and how long in milliseconds."""
        now = time.monotonic()
        due = [deadline]
        for node, subscription in self._subscriptions.items():
            frame = subscription.due(now)
            if frame is not None:
                try:
                    self._sockets[node].send(frame, zmq.DONTWAIT)
                    subscription.sent(now)
                except zmq.Again:
                    if (attempt := subscription.unsent(now)) and self._keys is not None:
                        self._keys.connect_again(self._sockets[node], self._addresses[node], attempt)
            due.append(subscription.deadline())
            if not self.quorum.is_full(node):
                poller.register(self._sockets[node], zmq.POLLIN)
        # Rounded up: to wake a fraction of a millisecond before the deadline would turn the loop hot.
        return poller, max(0, int((min(due) - now) * 1000) + 1)

    def _read_all(self) -> NDArray[np.void]:
        """Process what has arrived; return the events released by it."""
        now = time.monotonic()
        for node, subscription in self._subscriptions.items():
            # While the consumer was busy elsewhere, frames may have arrived that were not read yet.
            subscription.extend_deadlines(now - self._polled_at)
            self._read(node, subscription, now)
        self._polled_at = now
        return self.quorum.take()

    def _read(self, node: int, subscription: SubscriptionState, now: float) -> None:
        for _ in range(_FRAMES_IN_A_ROW):
            if self.quorum.is_full(node):
                return
            try:
                parts = self._sockets[node].recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                frame = frames.decode(b"".join(parts))
                subscription.received(frame, len(parts[0]), now)
                if frame.kind is FrameKind.ERROR:
                    self._check_refusals()
                elif self.quorum.receive(node, frame) and subscription.is_made:
                    subscription.again(now + _AGAIN_S)
            except FrameError:
                self.garbage += 1

    def _check_refusals(self) -> None:
        """Raise SubscriptionRefused if so many nodes refuse for good that no majority is left."""
        refused = {
            node: str(subscription.refusal)
            for node, subscription in self._subscriptions.items()
            if subscription.refusal is not None and subscription.refusal_code in _FINAL
        }
        if len(self._subscriptions) - len(refused) < self.quorum.majority:
            raise SubscriptionRefused(refused)

    def _subscription(self, node: int) -> SubscriptionState:
        return SubscriptionState(lambda: Subscription(self.quorum.wanted(node), accounts=self.accounts))

    def _connect(self, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
        socket.immediate = True
        socket.maxmsgsize = frames.MAX_FRAME_BYTES
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 1000
        if self._keys is not None:
            self._keys.secure(socket, address)
        tcp_address.connect(socket, address)
        return socket
