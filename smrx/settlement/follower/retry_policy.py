"""How long a sink that fails is borne with, and what is done meanwhile: the feed is read on.

Says aloud that a sink fails and that it works again; ends when the run is to end or patience has. What the nodes
publish meanwhile is kept as far as the quorum's bound allows, and asked for again beyond that, so nothing is lost while
the nodes still hold it. Called by `smrx settle run`, around each sink.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from smrx.feed.sequencer import RETAINED_EVENTS
from smrx.settlement.follower.alarms import AlarmCode, Alarms
from smrx.sinks.contract import Sink
from smrx.sinks.retrying import Recovery, RetryingSink, Trouble

#: How often a pause is interrupted to see whether the run is to end.
_SLICE_SECONDS: Final = 0.05


class Listener(Protocol):
    """Whoever follows the feed: a Settlement."""

    @property
    def behind(self) -> int:
        """Events that are known and not settled."""

    def listen(self, seconds: float) -> None:
        """Read the feed for so long, settling nothing."""


class Patience:
    """Makes sinks try again until the run is to end or `seconds` have passed without success."""

    def __init__(self, seconds: float, stop: Callable[[], bool], alarms: Alarms) -> None:
        """Before `begun` is set there is none: what cannot be opened at the start is the operator's to see at once."""
        self.begun = False
        self.listener: Listener | None = None  #: reads the feed meanwhile; without one a pause is only slept through
        self._seconds, self._stop, self._alarms = seconds, stop, alarms
        self._since: float | None = None

    def around(self, sink: Sink) -> Sink:
        """The sink, made patient."""
        return RetryingSink(sink, wait=self._wait, on_trouble=self._trouble, on_recovery=self._recovery)

    def _trouble(self, found: Trouble) -> None:
        if not self.begun or found.attempt > 1:
            return
        said = f"{found.sink}: {found.error}; trying again for up to {self._seconds:g} s"
        if self.listener is not None:
            said += (
                f"; nothing is settled meanwhile, the feed is read up to {RETAINED_EVENTS:,} events ahead, and what "
                "comes after those is asked for again"
            )
        self._alarms.say(AlarmCode.SINK_FAILED, said)

    def _recovery(self, found: Recovery) -> None:
        self._since = None
        said = f"{found.sink}: works again after {found.seconds:.1f} s"
        if self.listener is not None:
            said += f"; {self.listener.behind:,} events wait to be settled"
        self._alarms.say(AlarmCode.SINK_RECOVERED, said)

    def _wait(self, seconds: float) -> bool:
        """Pause; True to give up."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        until = min(now + seconds, self._since + self._seconds)
        pause = time.sleep if self.listener is None else self.listener.listen
        while self.begun and not self._stop() and (now := time.monotonic()) < until:
            pause(min(_SLICE_SECONDS, until - now))
        return not self.begun or self._stop() or now >= self._since + self._seconds
