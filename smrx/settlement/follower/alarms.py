"""Alarms: what somebody has to know at once, as events with codes: in the log, in the metrics, on a hook command.

The hook is run once an alarm, without a shell, with the code as its last argument and the alarm as one line of JSON on
its standard input. It is never waited for: one that hangs is ended, and where too many hang alarms are only logged.
"""

import contextlib
import logging
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

log = logging.getLogger("smrx.settlement")

#: Hooks running at once, and how long each may.
_MAX_HOOKS: Final = 16
_HOOK_SECONDS: Final = 10.0
#: Alarms kept for the summary; a flood of them is counted, not remembered.
_REMEMBERED: Final = 100


class AlarmCode(StrEnum):
    """What is wrong. Stable: scripts and dashboards know them."""

    GAP = "GAP"  #: events are missing and nobody has them
    COPIES_DIFFER = "COPIES_DIFFER"  #: two nodes sent different copies of an event
    STATES_DIFFER = "STATES_DIFFER"  #: a node's state hash is not the majority's
    OTHER_HISTORY = "OTHER_HISTORY"  #: a node's past is not the one settled
    DISAGREEMENT = "DISAGREEMENT"  #: no majority of nodes tells one story
    UNATTESTED = "UNATTESTED"  #: events wait for a majority longer than they should
    VIOLATION = "VIOLATION"  #: an event breaks the rules of the exchange
    BALANCES_DIFFER = "BALANCES_DIFFER"  #: the books and a node differ
    SINK_FAILED = "SINK_FAILED"  #: a sink cannot write; nothing passes it
    SINK_RECOVERED = "SINK_RECOVERED"  #: it can again
    SINK_MISMATCH = "SINK_MISMATCH"  #: a sink holds something else than was settled


class Alarm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alarm. `sequence` is an event's, a command's for STATES_DIFFER."""

    code: AlarmCode
    message: str
    time_ns: int
    cluster: str
    sequence: int | None = None
    node: int | None = None
    field: str | None = None
    account: int | None = None
    asset: int | None = None


class Alarms:
    """Raises alarms, each through every channel."""

    def __init__(self, cluster: str, hook: str | None = None, on_alarm: Callable[[Alarm], None] | None = None) -> None:
        """`hook` is a command line; `on_alarm` is called as well (metrics)."""
        self.count = 0
        self.last: deque[Alarm] = deque(maxlen=_REMEMBERED)
        self._cluster = cluster
        self._hook = shlex.split(hook) if hook else None
        self._on_alarm = on_alarm
        self._running: list[tuple[float, subprocess.Popen[bytes]]] = []

    def say(
        self,
        code: AlarmCode,
        message: str,
        *,
        sequence: int | None = None,
        node: int | None = None,
        field: str | None = None,
        account: int | None = None,
        asset: int | None = None,
    ) -> Alarm:
        """Raise one alarm."""
        alarm = Alarm(
            code=code,
            message=message,
            time_ns=time.time_ns(),
            cluster=self._cluster,
            sequence=sequence,
            node=node,
            field=field,
            account=account,
            asset=asset,
        )
        self.count += 1
        self.last.append(alarm)
        level = logging.INFO if code is AlarmCode.SINK_RECOVERED else logging.ERROR
        log.log(level, "alarm %s: %s", code.value, message)
        if self._on_alarm is not None:
            self._on_alarm(alarm)
        self._run_hook(alarm)
        return alarm

    def tend(self) -> None:
        """Take note of hooks that ended, and end those that do not."""
        now = time.monotonic()
        for started, process in list(self._running):
            if process.poll() is None and now - started > _HOOK_SECONDS:
                process.kill()
                process.wait()
                log.warning("the alarm hook did not end within %g s and was ended", _HOOK_SECONDS)
            if process.returncode is not None:
                self._running.remove((started, process))
                if process.returncode > 0:
                    log.warning("the alarm hook ended with %d", process.returncode)

    def close(self) -> None:
        """Give hooks that still run a moment, then end them."""
        give_up = time.monotonic() + 2.0
        for _, process in self._running:
            try:
                process.wait(max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _run_hook(self, alarm: Alarm) -> None:
        if self._hook is None:
            return
        self.tend()
        if len(self._running) >= _MAX_HOOKS:
            log.warning("%d alarm hooks run already; this alarm is only logged", _MAX_HOOKS)
            return
        try:
            process = subprocess.Popen(
                [*self._hook, alarm.code.value],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            log.warning("the alarm hook %s cannot be run: %s", self._hook[0], error.strerror)
            return
        # A line of JSON fits into the pipe; a hook that does not read it is its own affair.
        with contextlib.suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(alarm) + b"\n")
                process.stdin.close()
        self._running.append((time.monotonic(), process))
