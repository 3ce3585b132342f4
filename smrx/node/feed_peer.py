"""Keep what a node knows of one subscriber: how far it has got, its credit, and what it asked for.

Its memory is small and constant. No sockets, no clock. Called by the publisher, which sends.
"""

from typing import Final

from smrx.feed.subscription import MAX_CREDIT, Subscription
from smrx.node.account_sets import AccountSet
from smrx.node.pace import Pace
from smrx.node.principal import Sender
from smrx.wire.frames import HEADER_SIZE
from smrx.wire.records import EVENT

#: Bytes a second that one subscriber gets from the ring: a million events, more than settlement verifies on one core.
PEER_RATE: Final = 128 << 20
_PEER_BURST: Final = 1 << 20
#: When a subscriber whose queue was full is tried again, for the first time and later.
_RETRY_SECONDS: Final = 0.001
_MAX_RETRY_SECONDS: Final = 0.1


class FeedPeer:
    """A subscriber, as the node sees it."""

    def __init__(self, sender: Sender, credential: int, now: float) -> None:
        self.identity = sender.route
        #: The number of its credential, 0 without one.
        self.credential = credential
        #: How its connection is known; on a node without keys by its routing id only.
        self.sender = sender
        self.heard_at = now
        #: How many times in a row its queue was full, and when it is tried again.
        self.failures = 0
        self._retry_at = 0.0
        self.pace = Pace(PEER_RATE, _PEER_BURST)
        #: The accounts of a private stream, None for every event.
        self.accounts: AccountSet | None = None
        #: The next event of its stream that it is sent, or that is examined for its accounts.
        self.next = 0
        #: The first event that no frame sent to it covers; with accounts it may be before `next`.
        self.uncovered = 0
        self.credit = self._window = 0
        #: Ranges that it asked for again, and of which it asked for a digest; None if none is waiting.
        self.retransmit: tuple[int, int] | None = None
        self.attest: tuple[int, int] | None = None

    def subscribe(self, subscription: Subscription, accounts: AccountSet | None, newest: int) -> None:
        """Start its stream, again if it has one, with credit; forget what it asked for before."""
        self.next = self.uncovered = subscription.first or newest + 1
        self.credit = self._window = subscription.credit
        self.accounts = accounts
        self.retransmit = self.attest = None

    def add_credit(self, size: int) -> None:
        """Let the node send `size` further bytes, up to the credit of the subscription."""
        self.credit = min(self.credit + min(size, MAX_CREDIT), self._window)

    @property
    def affordable(self) -> int:
        """How many events fit its credit in one frame."""
        return max(0, (self.credit - HEADER_SIZE) // EVENT.itemsize)

    @property
    def is_asking(self) -> bool:
        """Whether it asked for something besides its stream."""
        return self.retransmit is not None or self.attest is not None

    def has_work(self, oldest: int, newest: int) -> bool:
        """Whether it can be sent something from a ring that holds events oldest..newest, or an answer."""
        if self.attest is not None:
            return True
        wanted = self.next if self.retransmit is None else self.retransmit[0]
        is_answer = self.retransmit is not None and not oldest <= wanted <= newest
        return is_answer or wanted < oldest or (wanted <= newest and self.affordable > 0)

    def ready_at(self, now: float) -> float:
        """Return when it may be sent something from the ring."""
        return max(self._retry_at, self.pace.allowed_at(now))

    def back_off(self, now: float) -> None:
        """Wait before it is tried again, longer each time: its queue is full."""
        self.failures += 1
        self._retry_at = now + min(_MAX_RETRY_SECONDS, _RETRY_SECONDS * 2 ** min(self.failures - 1, 10))

    def skip_to(self, following: int) -> None:
        """Continue its stream at event `following`."""
        self.next = self.uncovered = following
