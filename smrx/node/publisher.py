"""Publish the events of one node to its subscribers, as far as their credit goes.

Owns the events socket (a ROUTER) and the table of subscribers. A subscriber that is up to date gets the frames of a new
log entry, encoded once for all. One that is behind is read from the ring, within a budget of bytes a turn and a rate
for each subscriber and for all. Nothing is sent beyond the credit of a subscriber, and nothing is queued for it beyond
a few frames: a slow one falls behind in the ring, and out of it, and is told so. The table is bounded, and a subscriber
that is silent is forgotten. Heartbeats let a subscriber tell silence from loss, and let settlement compare books.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.feed import subscription
from smrx.feed.retransmission import MAX_ANSWER_EVENTS, decode_request
from smrx.feed.subscription import Own, Subscription, decode_subscription
from smrx.node.account_events import MOST_FOLLOWING, account_events, accounts_of
from smrx.node.account_sets import AccountSet, FirmReader, ListedAccounts, OwnAccounts
from smrx.node.event_ring import EventRing, claim_at, entry_frames
from smrx.node.feed_peer import FeedPeer
from smrx.node.pace import Pace
from smrx.node.principal import EVERYTHING, NOT_ADMITTED, Principal, Sender
from smrx.node.replicated_state import Applied
from smrx.node.turn_budget import TimeShare
from smrx.wire import frames, tcp_address
from smrx.wire.codes import Permission, Scope
from smrx.wire.frames import Claim, ErrorBody, ErrorCode, FeedPosition, Frame, FrameError, FrameKind
from smrx.wire.record_words import concatenate_records
from smrx.wire.records import EVENT
from smrx.wire.tcp_keepalive import close_unread_connections

#: The time between heartbeats, within which a subscriber notices that the newest events were lost.
HEARTBEAT_SECONDS: Final = 0.5
#: Events in a frame of this node: 256 KiB. With half as many a receiver needs 25 ns more for an event.
FRAME_EVENTS: Final = 2048
#: Frames queued for one subscriber. With FRAME_EVENTS it bounds the memory that a subscriber costs (2 MiB), whatever
#: credit it claims to have. What does not fit in the queue is read from the ring, many small entries in one frame.
_SEND_HIGH_WATER_MARK: Final = 8
#: Requests queued for this node by one connection.
_RECEIVE_HIGH_WATER_MARK: Final = 16
#: Requests answered in a turn at most, and the time after which no further one is read: the loop also serves orders.
_REQUESTS_PER_TURN: Final = 64
_REQUEST_SECONDS_PER_TURN: Final = 0.0003
#: The part of the time that goes by for requests, after a burst.
_REQUEST_SHARE: Final = 0.1
_REQUEST_BURST_SECONDS: Final = 0.02
#: What a turn may work for private streams when events are new, and for all that are behind; and the part of the time
#: that goes by for the latter. A private stream that has to wait is behind, and gets the events of many turns at once.
_UPDATE_SECONDS_PER_TURN: Final = 0.0005
_RING_SECONDS_PER_TURN: Final = 0.0005
_RING_SHARE: Final = 0.25
#: Bytes read from the ring in a turn, and in a second, for all subscribers that are behind.
_BYTES_PER_TURN: Final = 512 << 10
_BYTES_PER_SECOND: Final = 192 << 20
#: Events of the ring that are examined at once for the accounts of a subscriber.
_EXAMINED_EVENTS: Final = 4096
#: What one frame counts in the budgets at least: a small one takes about as much time as so many bytes.
_PIECE_BYTES: Final = 32 << 10
#: Of the subscribers: how many may be of one credential, and how many private streams, so that neither keeps out those
#: that follow every event, such as settlement. Keys of the cluster file are not counted.
_SHARE_OF_CREDENTIAL: Final = 8
_PRIVATE_SHARE: Final = (3, 4)
#: Returns who a sender is, now; None if it may not be served any more.
PrincipalOf = Callable[[Sender], Principal | None]
#: Sets the options of a client port's socket before it binds; see Admission.prepare().
Prepare = Callable[["zmq.Socket[bytes]", int], None]


class Publisher:
    """Publishes the events of applied entries, in order, and answers requests for lost ones."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: str,
        *,
        principal_of: PrincipalOf | None = None,
        prepare: Prepare | None = None,
        firm_reader: FirmReader = lambda firm, start, most: (np.empty(0, np.uint32), start),
        max_subscribers: int = 64,
        bytes_per_second: float = _BYTES_PER_SECOND,
        queued_frames: int = _SEND_HIGH_WATER_MARK,
        frame_events: int = FRAME_EVENTS,
    ) -> None:
        """Bind the events socket. Raises zmq.ZMQError.

        prepare(socket, largest message) sets the options of a client port, keys included.
        principal_of(sender) says who a connection is now, None for one that may not be served any more; without it
        every connection may do everything. firm_reader: finds the accounts of a firm.
        Up to `queued_frames` of at most `frame_events` events are queued for one subscriber.
        """
        self.socket = context.socket(zmq.ROUTER)
        # A frame that cannot be queued is an error here, not silence; so is a subscriber that is gone.
        self.socket.router_mandatory = 1
        self.socket.sndhwm = queued_frames
        self.socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
        self.socket.linger = 0
        self.socket.maxmsgsize = subscription.MAX_REQUEST_BYTES
        if prepare is not None:
            prepare(self.socket, subscription.MAX_REQUEST_BYTES)
        close_unread_connections(self.socket)
        tcp_address.bind(self.socket, address)
        self._principal_of = principal_of
        self._max_subscribers = max_subscribers
        self._own_accounts = OwnAccounts(firm_reader)
        self._frame_events = frame_events
        self._peers: dict[bytes, FeedPeer] = {}
        #: Those that are to be sent something from the ring, the next one to serve first. Every other subscriber has
        #: all events published so far.
        self._behind: dict[bytes, FeedPeer] = {}
        self._pace = Pace(bytes_per_second, _BYTES_PER_TURN)
        #: Those that wait for the state at the end of the stream.
        self._state_due: dict[bytes, FeedPeer] = {}
        self._share = TimeShare(_REQUEST_SHARE, _REQUEST_BURST_SECONDS, time.monotonic())
        self._ring_share = TimeShare(_RING_SHARE, _REQUEST_BURST_SECONDS, time.monotonic())
        self._next_heartbeat = self._next_state = 0.0
        self._catch_up_at: float | None = None

    @property
    def subscribers(self) -> int:
        """The number of subscribers."""
        return len(self._peers)

    @property
    def has_work(self) -> bool:
        """Whether a subscriber waits for events of the ring, or for the state."""
        return bool(self._behind or self._state_due)

    @property
    def next_deadline(self) -> float:
        """When heartbeat() or catch_up() is due, on the clock given to them."""
        due = self._next_heartbeat if self._catch_up_at is None else min(self._next_heartbeat, self._catch_up_at)
        return min(due, self._share.opens_at) if self._share.is_closed else due

    def has_time(self, now: float) -> bool:
        """Whether requests may be received: their share of the time is not used up."""
        return self._share.is_open(now)

    # Requests.

    def receive(self, newest: int, now: float, fenced: str | None = None) -> bool:
        """Process the requests that have arrived; return whether more may be waiting.

        newest: the newest event of the ring. fenced: why this node may not serve, or None.
        """
        started = time.thread_time()
        has_more = self._receive(newest, now, fenced)
        self._share.charge(time.thread_time() - started)
        return has_more and not self._share.is_closed

    def _receive(self, newest: int, now: float, fenced: str | None) -> bool:
        for _ in range(_REQUESTS_PER_TURN):
            try:
                identity, *parts = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return False
            try:
                if len(parts) != 1:
                    raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected 1 part, found {len(parts)}")
                if fenced is not None:
                    raise FrameError(ErrorCode.FENCED, fenced)
                request = frames.decode(parts[0].bytes)
                self._process(self._sender(identity.bytes, parts[0]), request, newest, now)
            except FrameError as error:
                self._send_error(identity.bytes, error.code, str(error))
            if time.monotonic() - now > _REQUEST_SECONDS_PER_TURN:
                break
        return True

    def _process(self, sender: Sender, frame: Frame, newest: int, now: float) -> None:
        """Process one request. Raises FrameError for one that is refused."""
        identity = sender.route
        peer = self._peers.get(identity)
        if frame.kind in (FrameKind.SUBSCRIBE, FrameKind.SUBSCRIBE_OWN):
            request = decode_subscription(frame)
            principal = self._principal(sender)
            if principal is None:
                raise FrameError(ErrorCode.FORBIDDEN, NOT_ADMITTED)
            accounts = self._authorised(request, principal)
            self._check_room(peer, principal, is_private=accounts is not None)
            if peer is None:
                peer = self._add(sender, principal.credential, now)
            peer.subscribe(request, accounts, newest)
            self._behind[identity] = peer
            self._send_position(peer, newest)
            if peer.accounts is None:
                self._state_due[identity] = peer
        elif peer is None:
            raise FrameError(ErrorCode.NOT_SUBSCRIBED, f"{frame.kind.name}: send SUBSCRIBE first")
        elif frame.kind is FrameKind.CREDIT:
            peer.add_credit(frame.aux)
        elif peer.accounts is not None:
            raise FrameError(
                ErrorCode.FORBIDDEN, f"{frame.kind.name}: only for a subscription to every event; send SUBSCRIBE again"
            )
        else:
            first, last = decode_request(frame)
            last = min(last or newest, first + MAX_ANSWER_EVENTS - 1)
            if frame.kind is FrameKind.ATTEST:
                peer.attest = (first, last)
            else:
                peer.retransmit = (first, last)
            self._behind[identity] = peer
        peer.heard_at = now

    def _sender(self, route: bytes, message: zmq.Frame) -> Sender:
        """Return who sent a message; on a node without keys only its connection is known."""
        return Sender(route, "", "") if self._principal_of is None else Sender.of(route, message)

    def _principal(self, sender: Sender) -> Principal | None:
        return EVERYTHING if self._principal_of is None else self._principal_of(sender)

    def _authorised(self, request: Subscription, principal: Principal) -> AccountSet | None:
        """Return the accounts of a subscription, None for every event; raise FrameError if it is not allowed."""
        if request.accounts is None:
            if not principal.may(Permission.FOLLOW):
                raise FrameError(
                    ErrorCode.FORBIDDEN, "all events: the key needs the permission FOLLOW for all accounts"
                )
            return None
        if isinstance(request.accounts, Own):
            if Permission.READ not in principal.permissions:
                raise FrameError(ErrorCode.FORBIDDEN, "own accounts: the key needs the permission READ")
            return self._own_accounts.of(principal)
        may_read = Permission.READ in principal.permissions
        # A check of a thousand accounts takes a millisecond.
        for account in request.accounts if not may_read or principal.scope is not Scope.ALL else ():
            if not may_read or not principal.acts_for(account):
                raise FrameError(ErrorCode.FORBIDDEN, f"account {account}: the key needs the permission READ for it")
        return ListedAccounts(request.accounts)

    def _may_stay(self, peer: FeedPeer) -> bool:
        """Return whether a subscriber may still be served, and has the permission of its subscription."""
        principal = self._principal(peer.sender)
        needed = Permission.FOLLOW if peer.accounts is None else Permission.READ
        return principal is not None and needed in principal.permissions

    def _add(self, sender: Sender, credential: int, now: float) -> FeedPeer:
        peer = self._peers[sender.route] = FeedPeer(sender, credential, now)
        return peer

    def _check_room(self, peer: FeedPeer | None, principal: Principal, *, is_private: bool) -> None:
        """Raise FrameError if there is no room for a subscriber, or for one of its kind; `peer`: as it is so far."""
        most = self._max_subscribers
        others = [other for other in self._peers.values() if other is not peer]
        if len(others) >= most:
            raise FrameError(ErrorCode.LIMITED, f"{most} subscribers are the limit of this node; try another node")
        if not principal.credential:
            return
        own = max(1, most // _SHARE_OF_CREDENTIAL)
        if peer is None and sum(other.credential == principal.credential for other in others) >= own:
            raise FrameError(
                ErrorCode.LIMITED,
                f"a credential may have {own} subscriptions at this node; end one, or try another node",
            )
        private = max(1, most * _PRIVATE_SHARE[0] // _PRIVATE_SHARE[1])
        if is_private and sum(other.accounts is not None for other in others) >= private:
            raise FrameError(
                ErrorCode.LIMITED, f"{private} private streams are the limit of this node; try another node"
            )

    def end_all(self, code: ErrorCode, reason: str) -> None:
        """End every subscription, and tell the subscribers why."""
        for peer in list(self._peers.values()):
            self._end(peer, code, reason)

    # Live events.

    def publish(self, applied: Iterable[Applied]) -> None:
        """Send the events of applied entries to those that have all before them."""
        entries = [entry for entry in applied if len(entry.events)] if self._peers else []
        if not entries:
            return
        first = int(entries[0].events["sequence"][0])
        live = []
        for peer in self._peers.values():
            if peer.next == first:
                live.append(peer)
            else:
                self._fall_behind(peer)
        everything = [peer for peer in live if peer.accounts is None]
        for entry in entries if everything else ():
            for frame in entry_frames(entry.events, Claim(entry.sequence, entry.state_hash), self._frame_events):
                first += (len(frame) - frames.HEADER_SIZE) // EVENT.itemsize
                everything = [peer for peer in everything if self._send_live(peer, frame, first)]
        own = [peer for peer in live if peer.accounts is not None]
        if own:
            self._publish_updates(concatenate_records([entry.events for entry in entries]), own)

    def _send_live(self, peer: FeedPeer, frame: bytes, following: int) -> bool:
        """Send a frame with the next events, up to the one before `following`; return whether that was possible."""
        if not self._send_counted(peer, frame):
            self._fall_behind(peer)
            return False
        peer.skip_to(following)
        return True

    def _publish_updates(self, events: NDArray[np.void], live: list[FeedPeer]) -> None:
        """Send events to those with accounts that they concern."""
        concerned, following = accounts_of(events), int(events["sequence"][-1]) + 1
        started = time.thread_time()
        for peer in live:
            assert peer.accounts is not None
            if time.thread_time() - started > _UPDATE_SECONDS_PER_TURN or not peer.accounts.advance():
                self._fall_behind(peer)
            elif not peer.accounts.holds(concerned).any():
                peer.next = following
            elif not self._send_updates(peer, events):
                self._fall_behind(peer)

    def _fall_behind(self, peer: FeedPeer) -> None:
        if peer.identity in self._peers:
            self._behind[peer.identity] = peer

    # Events of the ring.

    def catch_up(self, ring: Callable[[], EventRing], hash_at: Callable[[int], int | None], now: float) -> None:
        """Send events of the ring to those that are behind, in turn, within the budgets.

        ring() returns the ring, up to date. hash_at(command) returns the state hash after a command, None if unknown.
        """
        self._catch_up_at = None
        if not self._behind:
            return
        started, clock = time.thread_time(), time.monotonic()
        # Forward of the clock that is given, by as much as the share of the time is away.
        opens_at = now if self._ring_share.is_open(clock) else now + self._ring_share.opens_at - clock
        events, budget, allowed_at = ring(), _BYTES_PER_TURN, self._pace.allowed_at(now)
        due: list[float] = []
        waiting = deque(self._behind.values())
        while waiting:
            peer = waiting.popleft()
            if not peer.has_work(events.oldest, events.newest):
                if peer.next == events.newest + 1 and not peer.is_asking:
                    self._behind.pop(peer.identity, None)
                continue
            ready_at = max(allowed_at, peer.ready_at(now), opens_at)
            if ready_at > now or budget <= 0 or time.thread_time() - started > _RING_SECONDS_PER_TURN:
                due.append(ready_at)
                continue
            # To the end of the table: the others are served before it is served again, now or in the next turn.
            del self._behind[peer.identity]
            self._behind[peer.identity] = peer
            size = max(self._serve(peer, events, hash_at), _PIECE_BYTES)
            budget -= size
            peer.pace.spend(size, now)
            self._pace.spend(size, now)
            allowed_at = self._pace.allowed_at(now)
            if peer.identity in self._peers:
                waiting.append(peer)
        self._catch_up_at = min(due, default=None)
        self._ring_share.charge(time.thread_time() - started)

    def _serve(self, peer: FeedPeer, ring: EventRing, hash_at: Callable[[int], int | None]) -> int:
        """Send one frame to a subscriber that is behind; return the bytes read from the ring."""
        if peer.attest is not None:
            return self._attest(peer, peer.attest, ring, hash_at)
        if peer.retransmit is not None:
            first, last = peer.retransmit
            last = min(last, ring.newest)
            if not ring.oldest <= first <= last:
                if self._send_held(peer, ring):
                    peer.retransmit = None
                return 0
            following, size = self._send_range(peer, first, last, ring, hash_at)
            peer.retransmit = (following, last) if following <= last else None
            return size
        if peer.next < ring.oldest:
            if self._send_held(peer, ring):
                peer.skip_to(ring.newest + 1)
            return 0
        if peer.accounts is None:
            following, size = self._send_range(peer, peer.next, ring.newest, ring, hash_at)
            peer.skip_to(following)
            return size
        if not peer.accounts.advance():
            return _PIECE_BYTES
        first = max(ring.oldest, peer.next - MOST_FOLLOWING)
        events = ring.range(first, min(ring.newest, peer.next + _EXAMINED_EVENTS - 1))
        assert events is not None
        self._send_updates(peer, events)
        return events.nbytes

    def _send_range(
        self, peer: FeedPeer, first: int, last: int, ring: EventRing, hash_at: Callable[[int], int | None]
    ) -> tuple[int, int]:
        """Send events from `first` on in one frame, as many as the credit allows; return the next event and bytes."""
        last = min(last, first + min(self._frame_events, peer.affordable) - 1)
        events = ring.range(first, last)
        assert events is not None
        is_sent = self._send_counted(peer, frames.encode_events(events, *claim_at(ring, last, hash_at)))
        return last + 1 if is_sent else first, events.nbytes

    def _send_updates(self, peer: FeedPeer, events: NDArray[np.void]) -> bool:
        """Send those of events from peer.next on that concern its accounts; return whether all of them are covered."""
        assert peer.accounts is not None
        last = int(events["sequence"][-1])
        found = account_events(events, peer.accounts, peer.next)
        room = min(self._frame_events, peer.affordable)
        is_whole = len(found) <= room
        if not is_whole:
            if not room:
                return False
            last = int(found["sequence"][room]) - 1
            found = found[:room]
        if not len(found):
            peer.next = last + 1
        elif self._send_counted(peer, frames.encode_updates(found, peer.uncovered, last)):
            peer.skip_to(last + 1)
        else:
            return False
        return is_whole

    def _attest(
        self, peer: FeedPeer, asked: tuple[int, int], ring: EventRing, hash_at: Callable[[int], int | None]
    ) -> int:
        """Send the digest of events; return the bytes read."""
        first, last = asked[0], min(asked[1], ring.newest)
        if not ring.oldest <= first <= last:
            if self._send_held(peer, ring):
                peer.attest = None
            return 0
        claim = claim_at(ring, last, hash_at)
        if self._send(peer, frames.encode_attestation(first, ring.views(first, last), claim)):
            peer.attest = None
        return (last - first + 1) * EVENT.itemsize

    def _send_held(self, peer: FeedPeer, ring: EventRing) -> bool:
        return self._send(peer, frames.encode(FrameKind.UNAVAILABLE, correlation=ring.oldest, aux=ring.newest))

    # Heartbeats.

    def heartbeat(self, position: Callable[[], FeedPosition] | None, newest: int, now: float) -> None:
        """Send every subscriber its position if that is due, and forget those that are silent.

        A subscriber that has every event gets the state there too, one that is behind as soon as it has. position()
        returns the next event, the state hash and the balance digest; without it only positions are sent. newest is
        the newest event.
        """
        if now < self._next_state:
            position = None
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_SECONDS
            for peer in list(self._peers.values()):
                self._heartbeat(peer, newest, now, has_state=position is not None)
        if self._state_due and position is not None:
            self._send_state(position, newest, now)

    def _heartbeat(self, peer: FeedPeer, newest: int, now: float, *, has_state: bool) -> None:
        if now - peer.heard_at > subscription.SILENCE_S:
            self._end(peer, ErrorCode.NOT_SUBSCRIBED, "this subscriber was silent for too long")
        elif not self._may_stay(peer):
            self._end(peer, ErrorCode.FORBIDDEN, "the key of this subscriber is not valid any more, or restricted")
        elif peer.accounts is not None and peer.next > peer.uncovered:
            if self._send(peer, frames.encode(FrameKind.UPDATES, correlation=peer.uncovered, aux=peer.next - 1)):
                peer.skip_to(peer.next)
        else:
            if peer.accounts is None:
                self._state_due[peer.identity] = peer
            if peer.next != newest + 1:
                self._fall_behind(peer)
            if peer.accounts is not None or peer.next != newest + 1 or not has_state:
                self._send_position(peer, newest)

    def _send_state(self, position: Callable[[], FeedPosition], newest: int, now: float) -> None:
        """Send the state after the newest event to those of the subscribers that wait for it and have that event."""
        current = [peer for peer in self._state_due.values() if peer.next == newest + 1]
        if not current:
            return
        started = time.perf_counter()
        frame = frames.encode_heartbeat(position())
        # The digest of all balances may take long; spend at most a hundredth of the loop's time on it.
        self._next_state = now + 100 * (time.perf_counter() - started)
        for peer in current:
            if self._send(peer, frame):
                del self._state_due[peer.identity]

    def _send_position(self, peer: FeedPeer, newest: int) -> None:
        self._send(peer, frames.encode(FrameKind.HEARTBEAT, correlation=peer.uncovered, aux=newest))

    # Sending.

    def _send_counted(self, peer: FeedPeer, frame: bytes) -> bool:
        """Send a frame that takes credit; return whether there was enough, and room in the queue."""
        if len(frame) > peer.credit or not self._send(peer, frame):
            return False
        peer.credit -= len(frame)
        return True

    def _send(self, peer: FeedPeer, frame: bytes) -> bool:
        """Send a frame; return whether there was room in the queue. Forget the subscriber if it is gone."""
        try:
            self.socket.send_multipart((peer.identity, frame), zmq.DONTWAIT)
        except zmq.Again:
            peer.back_off(time.monotonic())
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(peer.identity)
            return False
        peer.failures = 0
        return True

    def _send_error(self, identity: bytes, code: ErrorCode, message: str) -> None:
        with contextlib.suppress(zmq.ZMQError):
            body = ErrorBody(int(code), message)
            self.socket.send_multipart((identity, frames.encode_body(FrameKind.ERROR, body)), zmq.DONTWAIT)

    def _end(self, peer: FeedPeer, code: ErrorCode, reason: str) -> None:
        self._send_error(peer.identity, code, reason)
        self._forget(peer.identity)

    def _forget(self, identity: bytes) -> None:
        self._peers.pop(identity, None)
        self._behind.pop(identity, None)
        self._state_due.pop(identity, None)
