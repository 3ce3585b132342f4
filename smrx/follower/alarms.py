"""Raise alarms: conditions an operator must act on, with a code each, in the log, the metrics and a hook command.

The hook is run once an alarm, without a shell, with the code as its last argument and the alarm as one line of JSON on
its standard input. The run never waits for it: a hook that hangs is killed, and while too many hang alarms are only
logged.
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

#: Hooks that run at once, and how long each may run.
_MAX_HOOKS: Final = 16
_HOOK_TIMEOUT_S: Final = 10.0
#: Alarms kept; further ones are counted only.
_KEPT: Final = 100


class AlarmCode(StrEnum):
    """What is wrong. Stable: scripts and dashboards depend on the codes."""

    GAP = "GAP"  #: events are missing and no node has them
    COPIES_DIFFER = "COPIES_DIFFER"  #: two nodes sent different copies of an event
    STATES_DIFFER = "STATES_DIFFER"  #: a node's state hash is not the majority's
    OTHER_HISTORY = "OTHER_HISTORY"  #: a node's history is not the one settled
    DISAGREEMENT = "DISAGREEMENT"  #: no majority of nodes agrees
    UNATTESTED = "UNATTESTED"  #: events wait for a majority longer than they should
    VIOLATION = "VIOLATION"  #: an event breaks the rules of the exchange
    BALANCES_DIFFER = "BALANCES_DIFFER"  #: a node's balances are not those of the books
    SINK_FAILED = "SINK_FAILED"  #: a sink cannot write; nothing is settled meanwhile
    SINK_RECOVERED = "SINK_RECOVERED"  #: the sink works again
    SINK_MISMATCH = "SINK_MISMATCH"  #: a sink holds other data than was settled


class Alarm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alarm. `sequence` is that of an event, or of a command for STATES_DIFFER."""

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
    """Sends each alarm to every channel."""

    def __init__(self, cluster: str, hook: str | None = None, on_alarm: Callable[[Alarm], None] | None = None) -> None:
        """hook: a command line. on_alarm: called for each alarm (metrics)."""
        self.count = 0
        self.last: deque[Alarm] = deque(maxlen=_KEPT)
        self._cluster = cluster
        self._hook = shlex.split(hook) if hook else None
        self._on_alarm = on_alarm
        self._running: list[tuple[float, subprocess.Popen[bytes]]] = []

    def report(
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
        """Send one alarm and return it."""
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

    def reap_hooks(self) -> None:
        """Collect hooks that have ended, and kill those that run for too long."""
        now = time.monotonic()
        for started, process in list(self._running):
            if process.poll() is None and now - started > _HOOK_TIMEOUT_S:
                process.kill()
                process.wait()
                log.warning("the alarm hook did not end within %g s and was killed", _HOOK_TIMEOUT_S)
            if process.returncode is not None:
                self._running.remove((started, process))
                if process.returncode > 0:
                    log.warning("the alarm hook exited with status %d", process.returncode)

    def close(self) -> None:
        """Give running hooks two seconds, then kill them."""
        deadline = time.monotonic() + 2.0
        for _, process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _run_hook(self, alarm: Alarm) -> None:
        if self._hook is None:
            return
        self.reap_hooks()
        if len(self._running) >= _MAX_HOOKS:
            log.warning("%d alarm hooks are running; this alarm is only logged", _MAX_HOOKS)
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
        # A line of JSON fits into the pipe, so this does not block on a hook that does not read it.
        with contextlib.suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(alarm) + b"\n")
                process.stdin.close()
        self._running.append((time.monotonic(), process))
