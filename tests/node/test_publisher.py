"""The publisher over real sockets: credit, catching up, slow and absent subscribers, refusals, private streams."""

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from smrx.feed import subscription
from smrx.feed.retransmission import MAX_ANSWER_EVENTS, Request
from smrx.feed.subscription import MAX_CREDIT, Own, Subscription, credit_frame
from smrx.node import publisher as publishing
from smrx.node.account_sets import OwnAccounts
from smrx.node.event_ring import EventRing
from smrx.node.principal import Principal, Sender
from smrx.node.publisher import FRAME_EVENTS, PrincipalOf, Publisher
from smrx.node.replicated_state import Applied
from smrx.wire import frames
from smrx.wire.balance_digest import Digest
from smrx.wire.codes import EventKind, Permission, Scope
from smrx.wire.frames import Claim, ErrorCode, FeedPosition, Frame, FrameKind
from smrx.wire.records import EVENT, OUTCOME, TRADE_EVENT
from tests.feed.streams import numbered

TIMEOUT_S = 30.0


class Market:
    """A publisher with a ring, driven by the test in the place of a node's loop."""

    def __init__(self, ring: int = 1 << 16, max_subscribers: int = 64, principal_of: PrincipalOf | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ring = EventRing(ring)
        self.publisher = Publisher(
            self.context, "tcp://127.0.0.1:*", max_subscribers=max_subscribers, principal_of=principal_of
        )
        self.address = str(self.publisher.socket.get_string(zmq.LAST_ENDPOINT))
        self.fenced: str | None = None
        self.now = time.monotonic()

    def publish(self, events: NDArray[np.void]) -> None:
        """Publish one log entry."""
        self.ring.append(events)
        command = int(events["command_sequence"][-1])
        self.publisher.publish([Applied(1, 1, np.empty(0, OUTCOME), events, command, 1000 + command)])

    def turn(self) -> None:
        """Run the publisher's part of a node's turn."""
        self.now = max(self.now, time.monotonic())
        self.publisher.receive(self.ring.newest, self.now, self.fenced)
        self.publisher.catch_up(lambda: self.ring, lambda command: 1000 + command, self.now)
        position = FeedPosition(self.ring.newest + 1, Claim(self.ring.newest, 5), Digest(1, 2))
        self.publisher.heartbeat(lambda: position, self.ring.newest, self.now)

    def turn_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline
            self.turn()

    def reader(self) -> "Reader":
        return Reader(self)


class Reader:
    """A subscriber of one node, driven by the test."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.socket = market.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(market.address)
        self.frames: list[Frame] = []

    def subscribe(
        self, first: int = 1, credit: int = MAX_CREDIT, accounts: frozenset[int] | Own | None = None
    ) -> "Reader":
        """Subscribe, and return once the node has answered."""
        self.socket.send(Subscription(first, credit, accounts).frame())
        self.wait_for(lambda: self.frames)
        return self

    def read(self) -> None:
        """Read what has arrived."""
        while self.socket.poll(0):
            self.frames.append(frames.decode(self.socket.recv()))

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Let the node turn and read until a condition holds."""

        def holds() -> object:
            self.read()
            return condition()

        self.market.turn_until(holds)

    def of(self, kind: FrameKind) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind is kind]

    def events(self) -> NDArray[np.void]:
        parts = [frames.records(frame) for frame in self.frames if frame.kind in (FrameKind.EVENTS, FrameKind.UPDATES)]
        return np.concatenate([np.empty(0, EVENT), *parts])

    @property
    def last(self) -> int:
        """The last event received, 0 before the first."""
        for frame in reversed(self.frames):
            if frame.kind in (FrameKind.EVENTS, FrameKind.UPDATES) and frame.count:
                return int(frames.records(frame)["sequence"][-1])
        return 0

    def error(self) -> tuple[int, str]:
        """Return the code and the text of the next ERROR."""
        self.wait_for(lambda: self.of(FrameKind.ERROR))
        body = frames.error_body(self.of(FrameKind.ERROR)[-1])
        return body.code, body.message


@pytest.fixture
def market() -> Iterator[Market]:
    market = Market()
    yield market
    market.context.destroy(linger=0)


def test_live_events_arrive_with_their_claims(market: Market) -> None:
    reader = market.reader().subscribe()
    for first in (1, 4, 7):
        market.publish(numbered(first, first + 2))
    reader.wait_for(lambda: reader.last == 9)
    assert reader.events().tobytes() == numbered(1, 9).tobytes()
    claims = [frames.claim(frame) for frame in reader.of(FrameKind.EVENTS)]
    assert claims == [(3, 1003), (6, 1006), (9, 1009)]


def test_subscription_from_a_sequence_continues_live(market: Market) -> None:
    market.publish(numbered(1, 5000))
    reader = market.reader().subscribe(101)
    market.publish(numbered(5001, 5003))
    reader.wait_for(lambda: reader.last == 5003)
    assert reader.events().tobytes() == numbered(101, 5003).tobytes()
    assert max(frame.count for frame in reader.of(FrameKind.EVENTS)) == FRAME_EVENTS


def test_subscription_to_the_next_event_gets_no_older_one(market: Market) -> None:
    market.publish(numbered(1, 100))
    reader = market.reader().subscribe(0)
    assert (reader.frames[0].kind, reader.frames[0].correlation, reader.frames[0].aux) == (
        FrameKind.HEARTBEAT,
        101,
        100,
    )
    market.publish(numbered(101, 102))
    reader.wait_for(lambda: reader.last == 102)
    assert reader.events().tobytes() == numbered(101, 102).tobytes()


def test_subscription_ahead_of_the_node_waits(market: Market) -> None:
    """A node that restarts applies its log again; the subscriber has these events."""
    reader = market.reader().subscribe(6)
    for first in (1, 4, 7):
        market.publish(numbered(first, first + 2))
        market.turn()
    reader.wait_for(lambda: reader.last == 9)
    assert reader.events().tobytes() == numbered(6, 9).tobytes()


def test_nothing_is_sent_beyond_the_credit(market: Market) -> None:
    market.publish(numbered(1, 3000))
    credit = frames.HEADER_SIZE + 100 * EVENT.itemsize
    reader = market.reader().subscribe(1, credit)
    reader.wait_for(lambda: reader.last == 100)
    market.publish(numbered(3001, 3002))
    for _ in range(20):
        market.turn()
        reader.read()
    assert reader.last == 100
    reader.socket.send(credit_frame(credit))
    reader.wait_for(lambda: reader.last == 200)
    # No more than the credit of the subscription is counted.
    reader.socket.send(credit_frame(1 << 62))
    reader.wait_for(lambda: reader.last == 300)
    for _ in range(20):
        market.turn()
        reader.read()
    assert reader.last == 300
    assert reader.events().tobytes() == numbered(1, 300).tobytes()


def test_reader_that_falls_out_of_the_ring_is_told(market: Market) -> None:
    small = Market(ring=50)
    reader = small.reader().subscribe(1, frames.HEADER_SIZE + 10 * EVENT.itemsize)
    small.publish(numbered(1, 40))
    reader.wait_for(lambda: reader.last == 10)
    small.publish(numbered(41, 80))
    small.publish(numbered(81, 120))
    reader.wait_for(lambda: reader.of(FrameKind.UNAVAILABLE))
    (frame,) = reader.of(FrameKind.UNAVAILABLE)
    assert (frame.correlation, frame.aux) == (71, 120)
    reader.socket.send(credit_frame(1 << 20))
    small.turn_until(lambda: not small.publisher._behind)
    small.publish(numbered(121, 122))
    reader.wait_for(lambda: reader.last == 122)
    assert reader.events()["sequence"].tolist() == [*range(1, 11), 121, 122]
    small.context.destroy(linger=0)


def test_jump_of_the_stream_is_told(market: Market) -> None:
    """A node that restores a snapshot continues its stream later."""
    reader = market.reader().subscribe()
    market.publish(numbered(1, 10))
    market.ring.restart(100)
    market.publish(numbered(100, 101))
    reader.wait_for(lambda: reader.of(FrameKind.UNAVAILABLE))
    assert reader.of(FrameKind.UNAVAILABLE)[0].correlation == 100
    market.publish(numbered(102, 103))
    reader.wait_for(lambda: reader.last == 103)


def test_range_is_retransmitted_out_of_the_same_credit(market: Market) -> None:
    market.publish(numbered(1, 20_000))
    credit = 2 << 20
    reader = market.reader().subscribe(0, credit)
    reader.socket.send(Request(1, 2, 5000).frame())
    reader.wait_for(lambda: reader.last == 5000)
    assert reader.events().tobytes() == numbered(2, 5000).tobytes()
    assert frames.claim(reader.of(FrameKind.EVENTS)[-1]) == (5000, 6000)
    market.publish(numbered(20_001, 20_002))
    reader.wait_for(lambda: reader.last == 20_002)
    # The credit is not enough for the rest of the range.
    reader.socket.send(frames.encode(FrameKind.RETRANSMIT, correlation=5001))
    reader.wait_for(lambda: len(reader.events()) > 16_000)
    for _ in range(20):
        market.turn()
        reader.read()
    assert 16_000 < len(reader.events()) < credit / EVENT.itemsize
    reader.socket.send(credit_frame(credit))
    reader.wait_for(lambda: reader.last == 20_002 and len(reader.events()) == 4999 + 2 + 15_002)


def test_answer_is_bounded() -> None:
    market = Market(ring=1 << 17)
    market.publish(numbered(1, MAX_ANSWER_EVENTS + 5000))
    reader = market.reader().subscribe(0)
    reader.socket.send(Request(1, 1, 1 << 40).frame())

    def is_whole() -> bool:
        reader.socket.send(credit_frame(MAX_CREDIT))
        return reader.last >= MAX_ANSWER_EVENTS

    reader.wait_for(is_whole)
    for _ in range(20):
        market.turn()
        reader.read()
    assert reader.events().tobytes() == numbered(1, MAX_ANSWER_EVENTS).tobytes()
    market.context.destroy(linger=0)


@pytest.mark.parametrize(("first", "last"), [(1, 3), (1, 0), (4, 4), (11, 11), (11, 0)])
@pytest.mark.parametrize("digest", [False, True])
def test_range_that_is_not_held_is_unavailable(first: int, last: int, digest: bool) -> None:
    market = Market(ring=6)
    market.publish(numbered(1, 10))
    reader = market.reader().subscribe(0)
    kind = FrameKind.ATTEST if digest else FrameKind.RETRANSMIT
    reader.socket.send(frames.encode(kind, correlation=first, aux=last))
    reader.wait_for(lambda: reader.of(FrameKind.UNAVAILABLE))
    frame = reader.of(FrameKind.UNAVAILABLE)[0]
    assert (frame.correlation, frame.aux) == (5, 10)
    market.context.destroy(linger=0)


def test_range_is_attested_by_digest_and_state(market: Market) -> None:
    events = numbered(1, 10)
    events["command_sequence"] = [1, 1, 2, 2, 3, 3, 3, 4, 4, 5]
    market.publish(events)
    reader = market.reader().subscribe(0, credit=0)
    for first, last, claimed in ((1, 10, 5), (1, 4, 2), (1, 6, 2), (3, 9, 4), (10, 0, 5), (1, 1, 0)):
        reader.frames.clear()
        reader.socket.send(frames.encode(FrameKind.ATTEST, correlation=first, aux=last))
        reader.wait_for(lambda: reader.of(FrameKind.ATTESTATION))
        frame = reader.of(FrameKind.ATTESTATION)[0]
        part = events[first - 1 : last or 10]
        assert (frame.correlation, frame.count) == (first, len(part))
        assert frame.aux == frames.records_digest(part) == frames.records_digest(part[:1], part[1:])
        assert frames.claim(frame) == ((claimed, 1000 + claimed) if claimed else (0, 0))


def test_heartbeat_has_the_position_of_the_reader(market: Market) -> None:
    market.publish(numbered(1, 100))
    current = market.reader().subscribe(0)
    behind = market.reader().subscribe(1, credit=frames.HEADER_SIZE + 10 * EVENT.itemsize)
    behind.wait_for(lambda: behind.last == 10)
    for reader in (current, behind):
        reader.frames.clear()
        market.now += publishing.HEARTBEAT_SECONDS
        reader.wait_for(lambda reader=reader: reader.of(FrameKind.HEARTBEAT))
    position = frames.position(current.of(FrameKind.HEARTBEAT)[0])
    assert position == FeedPosition(101, Claim(100, 5), Digest(1, 2))
    frame = behind.of(FrameKind.HEARTBEAT)[0]
    assert (frame.correlation, frame.aux, frames.position(frame)) == (11, 100, None)
    # It gets the state as soon as it has every event.

    def has_state() -> bool:
        behind.socket.send(credit_frame(MAX_CREDIT))
        return frames.position(behind.of(FrameKind.HEARTBEAT)[-1]) == position

    behind.wait_for(has_state)
    assert [frame.kind for frame in behind.frames[-2:]] == [FrameKind.EVENTS, FrameKind.HEARTBEAT]


def test_silent_reader_is_forgotten(market: Market) -> None:
    reader, other = market.reader().subscribe(), market.reader().subscribe()
    before = market.now
    market.now += subscription.SILENCE_S / 2
    other.socket.send(credit_frame(0))
    market.turn_until(lambda: any(peer.heard_at > before + 1 for peer in market.publisher._peers.values()))
    market.now += subscription.SILENCE_S / 2 + 1
    market.turn_until(lambda: market.publisher.subscribers == 1)
    code, message = reader.error()
    assert (code, "silent" in message) == (ErrorCode.NOT_SUBSCRIBED, True)
    reader.frames.clear()
    reader.socket.send(credit_frame(0))
    assert reader.error()[0] == ErrorCode.NOT_SUBSCRIBED
    reader.frames.clear()
    reader.subscribe()
    assert market.publisher.subscribers == 2


def test_reader_that_left_is_forgotten(market: Market) -> None:
    reader, other = market.reader().subscribe(), market.reader().subscribe()
    reader.socket.close(linger=0)
    market.publish(numbered(1, 3))

    # A heartbeat finds that it is gone. The clock is the real one, so that the other is not silent for too long.
    market.turn_until(lambda: market.publisher.subscribers == 1)
    other.wait_for(lambda: other.last == 3)


def test_more_subscribers_than_the_limit_are_refused() -> None:
    market = Market(max_subscribers=2)
    readers = [market.reader().subscribe() for _ in range(3)]
    code, message = readers[2].error()
    assert (code, message) == (ErrorCode.LIMITED, "2 subscribers are the limit of this node; try another node")
    # One that has a subscription may change it.
    readers[0].frames.clear()
    assert readers[0].subscribe().frames[0].kind is FrameKind.HEARTBEAT
    market.context.destroy(linger=0)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"hello",
        b"\1",
        Subscription(1).frame()[:-1],
        Subscription(1, 100, frozenset({1, 2})).frame()[:-1],
        frames.encode(FrameKind.SUBSCRIBE, np.array([7, 7], "<u4").tobytes(), 2, aux=100),
        frames.encode(FrameKind.PING),
        frames.encode_events(numbered(1, 2), 0, 0),
        frames.encode(FrameKind.RETRANSMIT, correlation=5, aux=4),
        frames.encode(FrameKind.ATTEST, aux=4),
    ],
)
def test_garbage_is_refused_and_changes_nothing(market: Market, request_: bytes) -> None:
    reader = market.reader().subscribe()
    reader.socket.send(request_)
    code, message = reader.error()
    assert (code, bool(message)) == (ErrorCode.MALFORMED_FRAME, True)
    market.publish(numbered(1, 3))
    reader.wait_for(lambda: reader.last == 3)


def test_requests_without_a_subscription_are_refused(market: Market) -> None:
    reader = market.reader()
    for request in (credit_frame(5), Request(1, 1, 5).frame(), Request(1, 1, 5, digest=True).frame()):
        reader.frames.clear()
        reader.socket.send(request)
        assert reader.error()[0] == ErrorCode.NOT_SUBSCRIBED
    assert market.publisher.subscribers == 0


def test_fenced_node_ends_and_refuses_subscriptions(market: Market) -> None:
    reader, late = market.reader().subscribe(), market.reader()
    market.fenced = "its state differs"
    market.publisher.end_all(ErrorCode.FENCED, market.fenced)
    assert reader.error() == (ErrorCode.FENCED, "its state differs")
    late.subscribe()
    assert late.error() == (ErrorCode.FENCED, "its state differs")
    assert market.publisher.subscribers == 0


def test_stalled_reader_does_not_stop_the_others(market: Market) -> None:
    """It claims to have consumed everything, and reads nothing: a few frames are queued for it, no more."""
    stalled = market.reader()
    stalled.socket.close(linger=0)
    stalled.socket = market.context.socket(zmq.DEALER)
    stalled.socket.rcvhwm = 1
    stalled.socket.connect(market.address)
    stalled.subscribe()
    reader = market.reader().subscribe()
    for first in range(1, 200_000, 1000):
        market.publish(numbered(first, first + 999))
        stalled.socket.send(credit_frame(MAX_CREDIT))
        reader.socket.send(credit_frame(MAX_CREDIT))
        reader.wait_for(lambda last=first + 999: reader.last == last)
    assert reader.events().tobytes() == numbered(1, 200_000).tobytes()
    # The ring holds 65,536 events; the rest were queued in the sockets of the system, or dropped.
    peer = market.publisher._peers[next(iter(market.publisher._behind))]
    assert peer.next < 200_000


def trades() -> NDArray[np.void]:
    """Return events of accounts 1 to 3: orders, and trades between them, with every other field set."""
    events = np.frombuffer(bytes(range(1, 129)) * 8, EVENT).copy()
    events["sequence"] = events["command_sequence"] = np.arange(1, 9)
    events["kind"] = [
        EventKind.NEW, EventKind.NEW, EventKind.TRADE, EventKind.FILLED, EventKind.FILLED, EventKind.TRADE,
        EventKind.CANCELLED, EventKind.SESSION_OPENED,
    ]  # fmt: skip
    events["account"] = [1, 2, 2, 2, 1, 3, 3, 3]
    events.view(TRADE_EVENT)["counter_account"][[2, 5]] = [1, 2]
    return events


def test_updates_concern_the_accounts_and_cover_all(market: Market) -> None:
    events = trades()
    early = market.reader().subscribe(1, accounts=frozenset({1, 9}))
    market.publish(events[:4])
    market.publish(events[4:])
    late = market.reader().subscribe(1, accounts=frozenset({1, 9}))
    for reader in (early, late):

        def is_covered(reader: Reader = reader) -> bool:
            market.now += publishing.HEARTBEAT_SECONDS / 100
            return any(frame.aux == 8 for frame in reader.of(FrameKind.UPDATES))

        reader.wait_for(is_covered)
        covered = [(frame.correlation, frame.aux) for frame in reader.of(FrameKind.UPDATES)]
        assert covered[0][0] == 1
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(covered))
        assert reader.events()["sequence"].tolist() == [1, 3, 5]
        assert not reader.of(FrameKind.EVENTS)
    assert early.events().tobytes() == late.events().tobytes()


def test_updates_of_many_accounts_are_cut_by_credit_and_frame(market: Market) -> None:
    events = numbered(1, 30_000)
    events["account"] = events["sequence"] % 3
    market.publish(events)
    reader = market.reader().subscribe(1, frames.HEADER_SIZE + 50 * EVENT.itemsize, frozenset({0, 1}))
    reader.wait_for(lambda: len(reader.events()) == 50)
    reader.frames.clear()
    reader.subscribe(1, MAX_CREDIT, frozenset({0, 1}))
    wanted = events[events["account"] < 2]

    def is_whole() -> bool:
        reader.socket.send(credit_frame(MAX_CREDIT))
        return reader.last == wanted["sequence"][-1]

    reader.wait_for(is_whole)
    assert max(frame.count for frame in reader.of(FrameKind.UPDATES)) == FRAME_EVENTS
    found = reader.events()
    assert found["sequence"].tolist() == wanted["sequence"].tolist()


def test_private_streams_for_which_a_turn_has_no_time_get_their_events_later(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [market.reader().subscribe(0, accounts=frozenset(range(1, 1025))) for _ in range(8)]
    market.turn_until(lambda: not market.publisher._behind)
    monkeypatch.setattr(publishing, "_UPDATE_SECONDS_PER_TURN", -1.0)
    for first in range(1, 400, 10):
        events = numbered(first, first + 9)
        events["account"] = 7
        market.publish(events)
    assert len(market.publisher._behind) == 8
    for reader in readers:
        reader.wait_for(lambda reader=reader: reader.last == 400)
        assert reader.events()["sequence"].tolist() == list(range(1, 401))
        assert len(reader.of(FrameKind.UPDATES)) < 40, "the events of many turns come in one frame"


def test_readers_that_are_behind_get_a_part_of_the_time(market: Market) -> None:
    market.publish(numbered(1, 30_000))
    reader = market.reader().subscribe()
    market.publisher._ring_share.charge(1000.0)
    # What was sent before may still arrive, so the node is asked what it has sent.
    before = [peer.next for peer in market.publisher._peers.values()]
    for _ in range(3):
        market.turn()
    assert [peer.next for peer in market.publisher._peers.values()] == before
    assert market.publisher.next_deadline > time.monotonic()
    market.publisher._ring_share.charge(-1000.0)
    reader.wait_for(lambda: reader.last == 30_000)


def test_private_subscriber_may_not_ask_for_ranges(market: Market) -> None:
    market.publish(numbered(1, 10))
    reader = market.reader().subscribe(1, accounts=frozenset({1}))
    reader.socket.send(Request(1, 1, 5).frame())
    assert reader.error()[0] == ErrorCode.FORBIDDEN


def use_users(market: Market, monkeypatch: pytest.MonkeyPatch, user_of: Callable[[bytes], str]) -> None:
    """Let the handshake of each connection have given it the user id that user_of(routing id) returns."""
    monkeypatch.setattr(market.publisher, "_sender", lambda route, message: Sender(route, user_of(route), "127.0.0.1"))


ALL = Principal(1, Permission.FOLLOW | Permission.READ, Scope.ALL, 0)
READER_OF_ALL = Principal(2, Permission.READ, Scope.ALL, 0)
OWNER = Principal(3, Permission.READ | Permission.TRADE, Scope.ACCOUNT, 7)
TRADER = Principal(4, Permission.TRADE, Scope.ACCOUNT, 7)


@pytest.mark.parametrize(
    ("principal", "accounts", "refusal"),
    [
        (ALL, None, ""),
        (ALL, {7, 8}, ""),
        (READER_OF_ALL, None, "FOLLOW"),
        (READER_OF_ALL, {7, 8}, ""),
        (OWNER, None, "FOLLOW"),
        (OWNER, {7}, ""),
        (OWNER, {7, 8}, "account 8"),
        (OWNER, {0}, "account 0"),
        (TRADER, {7}, "READ"),
        (None, None, "revoked"),
        (None, {7}, "revoked"),
    ],
)
def test_subscription_needs_permission_and_loses_it(
    principal: Principal | None, accounts: set[int] | None, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"key": principal}
    market = Market(principal_of=lambda sender: known[sender.user])
    use_users(market, monkeypatch, lambda route: "key")
    reader = market.reader().subscribe(1, accounts=None if accounts is None else frozenset(accounts))
    if not refusal:
        assert reader.frames[0].kind is FrameKind.HEARTBEAT
        # The key is revoked: the node ends the subscription by itself.
        known["key"] = None
        market.now += publishing.HEARTBEAT_SECONDS
    code, message = reader.error()
    assert code == ErrorCode.FORBIDDEN
    assert (refusal or "not valid any more") in message, message
    assert market.publisher.subscribers == 0
    market.context.destroy(linger=0)


def test_credential_does_not_take_the_places_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One credential has an eighth of the places; private streams leave a quarter to those who follow everything."""
    followers = Principal(9, Permission.FOLLOW | Permission.READ, Scope.ALL, 0)
    owners = [Principal(10 + at, Permission.READ, Scope.ACCOUNT, 7) for at in range(8)]
    users: dict[bytes, Principal] = {}
    ahead: list[Principal] = []
    market = Market(max_subscribers=8, principal_of=lambda sender: users[sender.route])

    def user_of(route: bytes) -> str:
        if route not in users:
            users[route] = ahead.pop(0)
        return ""

    use_users(market, monkeypatch, user_of)

    def answer(principal: Principal, accounts: frozenset[int] | Own | None) -> str:
        ahead.append(principal)
        reader = market.reader().subscribe(1, accounts=accounts)
        return "" if reader.frames[0].kind is FrameKind.HEARTBEAT else frames.error_body(reader.frames[0]).message

    assert answer(owners[0], frozenset({7})) == ""
    assert "a credential may have 1 subscriptions" in answer(owners[0], frozenset({7}))
    assert [answer(owner, Own.ACCOUNTS) for owner in owners[1:6]] == [""] * 5
    assert "6 private streams are the limit" in answer(owners[6], frozenset({7}))
    assert answer(followers, None) == ""
    # Keys of the cluster file, and nodes without keys, are bound by the number of places only.
    assert answer(Principal(0, Permission.FOLLOW, Scope.ALL, 0), None) == ""
    assert "8 subscribers are the limit" in answer(Principal(0, Permission.FOLLOW, Scope.ALL, 0), None)
    market.context.destroy(linger=0)


def test_own_accounts_of_a_firm_include_those_opened_later(monkeypatch: pytest.MonkeyPatch) -> None:
    firm: list[int] = [1]
    market = Market(principal_of=lambda sender: Principal(3, Permission.READ, Scope.FIRM, 5))
    monkeypatch.setattr(
        market.publisher, "_own_accounts",
        OwnAccounts(lambda number, start, most: (np.array(firm[start:], np.uint32), len(firm))),
    )  # fmt: skip
    use_users(market, monkeypatch, lambda route: "3")
    reader = market.reader().subscribe(1, accounts=Own.ACCOUNTS)
    events = trades()
    market.publish(events[:4])
    firm.append(3)
    market.publish(events[4:])
    late = market.reader().subscribe(1, accounts=Own.ACCOUNTS)
    for found in (reader, late):
        found.wait_for(lambda found=found: found.last == 8)  # type: ignore[misc]
    # Account 3 has no event before it was opened.
    assert reader.events()["sequence"].tolist() == [1, 3, 5, 6, 7, 8]
    assert reader.events().tobytes() == late.events().tobytes()
    market.context.destroy(linger=0)
