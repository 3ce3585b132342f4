"""Decide how long a failing sink is retried, and receive the feed meanwhile.

Raises an alarm when a sink fails and another when it works again; ends when the run is to end or the timeout has
passed. What the nodes publish meanwhile is kept up to the quorum's bound, and asked for again beyond it, so nothing is
lost while the nodes still hold it. Called by `smrx settle run`, around each sink.
"""

import time
from collections.abc import Callable
from typing import Final

from smrx.feed.sequencer import RETAINED_EVENTS
from smrx.follower.alarms import AlarmCode, Alarms
from smrx.follower.interfaces import FeedReader
from smrx.sinks.contract import Sink
from smrx.sinks.retrying import RetryingSink, SinkFailure, SinkRecovery

#: How often a pause is interrupted to check whether the run is to end.
_SLICE_S: Final = 0.05


class RetryPolicy:
    """Retries sinks until the run is to end or `timeout_s` have passed without success."""

    def __init__(self, timeout_s: float, stop: Callable[[], bool], alarms: Alarms) -> None:
        """Do not retry before `is_enabled` is set: what fails at the start is reported to the operator at once."""
        self.is_enabled = False
        self.reader: FeedReader | None = None  #: receives the feed during a pause; without one the pause is a sleep
        self._timeout_s, self._stop, self._alarms = timeout_s, stop, alarms
        self._since: float | None = None

    def wrap(self, sink: Sink) -> Sink:
        """Return a sink that is retried by this policy."""
        return RetryingSink(sink, wait=self._wait, on_failure=self._on_failure, on_recovery=self._on_recovery)

    def _on_failure(self, failure: SinkFailure) -> None:
        if not self.is_enabled or failure.attempt > 1:
            return
        message = f"{failure.sink}: {failure.error}; retrying for up to {self._timeout_s:g} s"
        if self.reader is not None:
            message += (
                f"; nothing is settled meanwhile, the feed is read up to {RETAINED_EVENTS:,} events ahead, and later "
                "events are asked for again"
            )
        self._alarms.report(AlarmCode.SINK_FAILED, message)

    def _on_recovery(self, recovery: SinkRecovery) -> None:
        self._since = None
        message = f"{recovery.sink}: works again after {recovery.seconds:.1f} s"
        if self.reader is not None:
            message += f"; {self.reader.behind:,} events wait to be settled"
        self._alarms.report(AlarmCode.SINK_RECOVERED, message)

    def _wait(self, seconds: float) -> bool:
        """Pause for so long; return True to stop retrying."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        until = min(now + seconds, self._since + self._timeout_s)
        pause = time.sleep if self.reader is None else self.reader.listen
        while self.is_enabled and not self._stop() and (now := time.monotonic()) < until:
            pause(min(_SLICE_S, until - now))
        return not self.is_enabled or self._stop() or now >= self._since + self._timeout_s
