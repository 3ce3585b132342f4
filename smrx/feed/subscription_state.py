"""Keep one subscription alive: when to send SUBSCRIBE and CREDIT to one node, and what it refused.

A node forgets a subscription when it restarts or hears nothing for a while; it is then made again. Sans I/O: the owner
of the socket sends due() and reports what happened. Time is an argument: seconds of any monotonic clock.
"""

from collections.abc import Callable
from typing import Final

from smrx.client_keys import RETRY_SECONDS
from smrx.feed.subscription import CREDIT_STEP, KEEP_ALIVE_S, Subscription, credit_frame
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameKind

#: A node sends a heartbeat every half second. After so long a silence the subscription is made again.
_SILENCE_S: Final = 3.0
#: When SUBSCRIBE is tried again: if the node is not connected, and if it has refused.
_RECONNECT_S: Final = 0.02
_REFUSED_S: Final = 1.0
_UNSENT_UNTIL_RETRY: Final = round(RETRY_SECONDS / _RECONNECT_S)


class SubscriptionState:
    """One subscription at one node."""

    def __init__(self, wanted: Callable[[], Subscription]) -> None:
        """wanted(): what to subscribe to, asked each time."""
        self._wanted = wanted
        self.is_made = False  #: whether SUBSCRIBE was sent, and not refused since
        self.refusal: str | None = None  #: why the node last refused or ended the subscription; None while it sends
        self.refusal_code = 0
        self._ask_at = 0.0
        self._unsent = 0
        self._sent_at = self._heard_at = 0.0
        self._consumed = 0

    def due(self, now: float) -> bytes | None:
        """Return the frame to send now, if one is due; then call sent() or unsent()."""
        if self.is_made and now - self._heard_at > _SILENCE_S:
            self.is_made = False
        if not self.is_made:
            return self._wanted().frame() if now >= self._ask_at else None
        if self._consumed >= CREDIT_STEP or now - self._sent_at >= KEEP_ALIVE_S:
            return credit_frame(self._consumed)
        return None

    def sent(self, now: float) -> None:
        """Record that the frame returned by due() was sent."""
        if not self.is_made:
            self.is_made = True
            self._heard_at = now
        self._consumed = self._unsent = 0
        self._sent_at = now

    def unsent(self, now: float) -> int:
        """Record that a frame could not be sent, because the node is not connected.

        Return 0, or which attempt to connect again with keys is due.
        """
        self.is_made = False
        self._ask_at = now + _RECONNECT_S
        self._unsent += 1
        return 0 if self._unsent % _UNSENT_UNTIL_RETRY else self._unsent // _UNSENT_UNTIL_RETRY

    def again(self, now: float) -> None:
        """Subscribe again, to what is wanted now."""
        self.is_made = False
        self._ask_at = now

    def received(self, frame: Frame, size: int, now: float) -> None:
        """Record a frame of so many bytes that came from the node. Raises FrameError for an ERROR without its body."""
        self._heard_at = now
        if frame.kind is FrameKind.ERROR:
            body = frames.error_body(frame)
            self.is_made = False
            self.refusal, self.refusal_code = body.message, body.code
            self._ask_at = now if body.code == ErrorCode.NOT_SUBSCRIBED else now + _REFUSED_S
        else:
            self.refusal = None
            if frame.kind in (FrameKind.EVENTS, FrameKind.UPDATES) and frame.count:
                self._consumed += size

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count `seconds` in which nothing was received: frames may have come meanwhile."""
        self._heard_at += seconds

    def deadline(self) -> float:
        """Return when due() has something to send, if nothing arrives before."""
        if not self.is_made:
            return self._ask_at
        return min(self._sent_at + KEEP_ALIVE_S, self._heard_at + _SILENCE_S)
