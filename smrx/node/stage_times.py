"""Measure how the time of a node's loop divides into the stages of its turns.

A clock is read at the end of each stage, some ten times a turn: little enough to be left on. The state hash is a part
of applying, and the journal's sync of sending. Read by the admin service and the metrics; `smrx bench load` divides the
differences by the orders.
"""

import time
from enum import StrEnum


class Stage(StrEnum):
    """What the loop does, in the order of a turn."""

    WAIT = "wait"  #: until something arrives or is due
    REPLICATE = "replicate"  #: messages of members
    DECODE = "decode"  #: receive, check and count the frames of clients
    APPEND = "append"  #: make log entries and messages for members
    SEND = "send"  #: give messages to members' links, with a journal also sync it
    APPLY = "apply"  #: commit and apply entries, compute state hashes
    ANSWER = "answer"  #: write and send the answers to clients, and the acknowledgements to the leader
    PUBLISH = "publish"  #: send events to subscribers
    OTHER = "other"  #: admin requests, timers, periodic work


class StageTimes:
    """The nanoseconds of each stage so far, and the turns."""

    def __init__(self) -> None:
        self.ns: dict[Stage, int] = dict.fromkeys(Stage, 0)
        self.turns = 0
        self._since = time.perf_counter_ns()

    def end(self, stage: Stage) -> None:
        """Count the time since the stage before for this one."""
        now = time.perf_counter_ns()
        self.ns[stage] += now - self._since
        self._since = now
