"""Take events that the nodes no longer hold from the log of one node, if a majority attests the end of that log.

A state hash is a chain over every command's events and state. A replay of a log that ends with the hash that a majority
of the nodes has after the same command has made the events that those nodes published. So the end is attested first,
and nothing is settled before; then the events are posted, checked and stored as always, and the feed is followed from
there on. Reading the log and running the engine is the caller's part (the CLI connects the two).

Called by `smrx settle run --from-log`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Generic

import numpy as np
from numpy.typing import NDArray

from smrx.config import Config
from smrx.feed.anchor import Anchor
from smrx.feed.feed_errors import Disagreement
from smrx.follower.follow_errors import NotConnected, Unattested
from smrx.follower.interfaces import AskNode, P
from smrx.follower.settler import Settler
from smrx.wire import frames
from smrx.wire.admin import HashAt, HashReply
from smrx.wire.frames import Claim
from smrx.wire.record_words import concatenate_records

#: A node that starts answers within a second or two.
_ASK_AGAIN_S: Final = 0.1
#: Events settled in one go; checkpoints are made as they are due.
_BATCH_EVENTS: Final = 1 << 15


class LogFill(Generic[P]):
    """One log that is settled: call attest(), check_start(), add() for each entry, and finish(), in this order."""

    def __init__(self, config: Config, settler: Settler[P], log: str) -> None:
        """Bring `settler`, which is open, to the end of a log; `log` names it in messages."""
        self._settler = settler
        self._log = log
        self._members = len(config.nodes)
        self._majority = self._members // 2 + 1
        self._waiting: list[NDArray[np.void]] = []
        self._last: NDArray[np.void] | None = None
        self._hashes: dict[int, int] = {}

    def attest(
        self, end: Claim, nodes: Sequence[int], ask: AskNode, seconds: float, stop: Callable[[], bool]
    ) -> list[int]:
        """Return the nodes that have the log's state hash after its last command: a majority of all members.

        Raises Disagreement if no majority can have it, Unattested if none is found in `seconds`, NotConnected if no
        node answers.
        """
        deadline = time.monotonic() + seconds
        while True:
            replies = {node: reply for node in nodes if isinstance(reply := ask(node, HashAt(at=end[0])), HashReply)}
            equal = sorted(node for node, reply in replies.items() if reply.state_hash == end.state_hash)
            if len(equal) >= self._majority:
                return equal
            others = {node: reply.state_hash for node, reply in replies.items() if node not in equal}
            different = {node: state_hash for node, state_hash in others.items() if state_hash is not None}
            if len(nodes) - len(different) < self._majority:
                hashes = ", ".join(f"node {node} {state_hash:016x}" for node, state_hash in sorted(different.items()))
                raise Disagreement(
                    f"{self._log}: ends with state {end.state_hash:016x} after command {end.command_sequence}, the "
                    f"nodes have another state there: {hashes}"
                )
            if stop() or time.monotonic() >= deadline:
                break
            time.sleep(_ASK_AGAIN_S)
        if not replies:
            raise NotConnected(f"no node answers to attest the end of the {self._log}; start the cluster")
        raise Unattested(
            f"{self._log}: {self._majority} of {self._members} nodes must attest its end, command "
            f"{end.command_sequence}, and {len(equal)} did; nodes drop the hashes of old commands: use the log of a "
            "node that stopped later"
        )

    def check_start(self, state_hash: int) -> None:
        """Check that the log has the settled state: `state_hash` is its hash after the last command settled."""
        committed = self._settler.committed
        if committed is not None and committed.state_hash not in (0, state_hash):
            raise Disagreement(
                f"{self._log}: has state {state_hash:016x} after command {committed.command_sequence}, settled was "
                f"{committed.state_hash:016x}: it is another history"
            )

    def add(self, events: NDArray[np.void], command_sequence: int, state_hash: int) -> None:
        """Settle the events of one entry, its last command, and the state hash after it. Raises FollowError."""
        self._waiting.append(events)
        self._hashes[command_sequence] = state_hash
        if sum(map(len, self._waiting)) >= _BATCH_EVENTS:
            self._settle()

    def finish(self) -> None:
        """Commit everything added; the feed is followed from there on. Raises FollowError."""
        self._settle()
        self._settler.commit(self._hash_after)
        if self._last is not None:
            command = self._settler.projection.command_sequence
            claim = Claim(command, self._hash_after(command))
            self._settler.anchor = Anchor(self._settler.projection.sequence, frames.records_digest(self._last), claim)

    def _settle(self) -> None:
        if not self._waiting:
            return
        events = concatenate_records(self._waiting)
        self._waiting = []
        self._last = events[-1:]
        self._settler.settle(events, self._hash_after)
        command = self._settler.projection.command_sequence
        self._hashes = {command: self._hash_after(command)}

    def _hash_after(self, command_sequence: int) -> int:
        return self._hashes.get(command_sequence, 0)
