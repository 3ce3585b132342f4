"""Where a shadow gets the log from: a running node, through its admin port, or the disk of a stopped one.

Owns the position in the log. A running node is only asked; what it is asked for is bounded (log_service.py). Called by
`smrx shadow`.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from smrx.node.log_reader import LogReader
from smrx.node.shadow import Difference, Shadow
from smrx.wire import admin, batches
from smrx.wire.admin import AdminErrorCode

#: Sends a request to the node; returns its reply, None if it does not answer.
Ask = Callable[[admin.AnyRequest], admin.AnyReply | None]

R = TypeVar("R", bound=admin.Reply)

_POLL_SECONDS: Final = 0.05
_STATE_SECONDS: Final = 120.0


class SourceError(Exception):
    """The node does not answer, or no longer has what is needed; the message is one sentence."""


class LogGone(SourceError):
    """The node has compacted the log past the shadow's position."""


class RunningNode:
    """The log of a running node."""

    def __init__(self, node_id: int, ask: Ask) -> None:
        self.node_id = node_id
        self._ask = ask

    def shadow(self, rules: int | None) -> Shadow:
        """Return a shadow that starts from a state of the node."""
        log_index, data = self._state(0)
        return Shadow(data, log_index, rules)

    def follow(self, shadow: Shadow, goes_on: Callable[[], bool]) -> Difference | None:
        """Apply and compare until there is a difference, the log changes its rules or `goes_on` is false."""
        while goes_on() and not shadow.has_switched:
            first_hash = shadow.sequence + 1
            try:
                part = self._part(shadow.log_index, first_hash)
            except LogGone:
                # This program applies less than the cluster, or was stopped.
                log_index, data = self._state(shadow.log_index + 1)
                shadow.resume(data, log_index)
                continue
            difference = shadow.apply(part.entries)
            hashes = np.frombuffer(part.hashes, np.uint64)
            wrong = shadow.check_hashes(first_hash, hashes)
            if wrong is not None:
                return self._located(shadow, *wrong)
            if difference is not None:
                return difference
            shadow.log_index = max(shadow.log_index, part.last)
            if not part.more:
                time.sleep(_POLL_SECONDS)
        return None

    def _located(self, shadow: Shadow, sequence: int, expected: int) -> Difference:
        """Return a difference of hashes with the records of both states, after the log entry of a new snapshot."""
        difference = shadow.hash_difference(sequence, expected)
        try:
            log_index, data = self._state(shadow.log_index)
            while shadow.log_index < log_index:
                part = self._part(shadow.log_index, shadow.sequence + 1)
                shadow.apply([entry for entry in part.entries if entry[0] <= log_index])
                shadow.log_index = max(shadow.log_index, min(part.last, log_index))
            if data is not None:
                shadow.compare_records(difference, data)
        except (SourceError, ValueError):
            # The command and its hashes are found; the node cannot give its state, or this program cannot read it.
            difference.records_at = None
        return difference

    def _state(self, not_before: int) -> tuple[int, bytes | None]:
        """Return a log index and the state after it; None for that of a new exchange."""
        deadline = time.monotonic() + _STATE_SECONDS
        while True:
            reply = self._asked(admin.TakeState(not_before=not_before), admin.StateReply)
            if reply.log_index:
                return reply.log_index, self._read(reply) if reply.size else None
            if time.monotonic() > deadline:
                raise SourceError(f"node {self.node_id} took no snapshot within {_STATE_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)

    def _read(self, held: admin.StateReply) -> bytes:
        data = bytearray()
        while True:
            part = self._asked(admin.ReadState(log_index=held.log_index, offset=len(data)), admin.StatePart)
            data += part.data
            if not part.more:
                return bytes(data)

    def _part(self, after: int, first_hash: int) -> admin.LogPart:
        return self._asked(admin.ReadLog(after=after, first_hash=first_hash), admin.LogPart)

    def _asked(self, request: admin.AnyRequest, kind: type[R]) -> R:
        reply = self._ask(request)
        if isinstance(reply, kind):
            return reply
        if isinstance(reply, admin.AdminError) and reply.code == AdminErrorCode.UNAVAILABLE:
            raise LogGone(f"node {self.node_id}: {reply.message}")
        problem = reply.message if isinstance(reply, admin.AdminError) else "no answer"
        raise SourceError(f"node {self.node_id}: {problem}")


def replay(log: LogReader, rules: int | None) -> tuple[Shadow, Difference | None]:
    """Apply the log of a stopped node from its oldest state on and compare it with the hashes that its entries carry.

    An entry carries the leader's hash after the last command that was applied when the entry was written.
    """
    start, data = log.oldest_state()
    shadow = Shadow(data, start, rules)
    first = shadow.sequence
    for entry, log_index, term in log.entries_after(start):
        batch = batches.decode(entry)
        if batch.sequence > first:
            wrong = shadow.check_hashes(batch.sequence, np.array([batch.state_hash], np.uint64))
            if wrong is not None:
                return shadow, shadow.hash_difference(*wrong)
        difference = shadow.apply([(log_index, term, entry)])
        if difference is not None or shadow.has_switched:
            return shadow, difference
    return shadow, None
