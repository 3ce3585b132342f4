"""Events that the nodes no longer hold, from the log of one of them: settled if a majority stands behind its end.

A state hash is a chain over every command's events and state. Whoever does the commands of a log once more, and ends
with the hash that a majority of the nodes has after the same command, has made the events those nodes published. So the
end is attested first, and nothing is settled before; then the events are posted, checked by the rules as ever, and
stored, and the feed goes on from there. The log and the engine are not looked at from here (see verify in cli).

Called by `smrx settle run --from-log`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.config import Config
from smrx.feed.anchor import Anchor
from smrx.feed.feed_errors import Disagreement
from smrx.settlement.balance_comparison import Ask
from smrx.settlement.follower.settler import Settling
from smrx.settlement.settlement_errors import NotConnected, Unattested
from smrx.wire import frames
from smrx.wire.admin import HashAt, HashReply
from smrx.wire.frames import Claim
from smrx.wire.record_words import concatenate_records

#: A node that starts answers within a second or two.
_AGAIN_SECONDS: Final = 0.1
#: Events settled in one go; checkpoints are made as they are due.
_BATCH_EVENTS: Final = 1 << 15


class Filling:
    """One log that brings the books further: attest(), begin_after(), take() for each entry, finish(), in turn."""

    def __init__(self, config: Config, settling: Settling, log: str) -> None:
        """Bring `settling`, which is open, to the end of a log; `log` names it."""
        self._settling = settling
        self._log = log
        self._members = len(config.nodes)
        self._majority = self._members // 2 + 1
        self._waiting: list[NDArray[np.void]] = []
        self._last: NDArray[np.void] | None = None
        self._hashes: dict[int, int] = {}

    def attest(self, end: Claim, nodes: Sequence[int], ask: Ask, seconds: float, stop: Callable[[], bool]) -> list[int]:
        """Return the nodes that have the state hash of the log after its last command: a majority of all members.

        Raises Disagreement if a majority can have no such hash, Unattested if none is found in `seconds`, NotConnected
        if no node answers.
        """
        give_up = time.monotonic() + seconds
        while True:
            said = {node: reply for node in nodes if isinstance(reply := ask(node, HashAt(at=end[0])), HashReply)}
            alike = sorted(node for node, reply in said.items() if reply.state_hash == end.state_hash)
            if len(alike) >= self._majority:
                return alike
            others = {node: reply.state_hash for node, reply in said.items() if node not in alike}
            differ = {node: state_hash for node, state_hash in others.items() if state_hash is not None}
            if len(nodes) - len(differ) < self._majority:
                told = ", ".join(f"node {node} {state_hash:016x}" for node, state_hash in sorted(differ.items()))
                raise Disagreement(
                    f"{self._log}: ends with state {end.state_hash:016x} after command {end.command_sequence}, the "
                    f"nodes have another one there: {told}"
                )
            if stop() or time.monotonic() >= give_up:
                break
            time.sleep(_AGAIN_SECONDS)
        if not said:
            raise NotConnected(
                f"expected nodes to attest the end of the {self._log}, found that none answers; start the cluster"
            )
        raise Unattested(
            f"{self._log}: expected {self._majority} of {self._members} nodes to attest its end, command "
            f"{end.command_sequence}, found {len(alike)}; of a log that ended long ago nodes no longer know the hash: "
            "use that of a node that stopped later"
        )

    def begin_after(self, state_hash: int) -> None:
        """Check that the log had come by the state that is settled: its hash after the last command of the books."""
        committed = self._settling.committed
        if committed is not None and committed.state_hash not in (0, state_hash):
            raise Disagreement(
                f"{self._log}: has state {state_hash:016x} after command {committed.command_sequence}, settled was "
                f"{committed.state_hash:016x}: it is another history"
            )

    def take(self, events: NDArray[np.void], command_sequence: int, state_hash: int) -> None:
        """Settle the events of one entry, which ends with a command and leaves a state. Raises SettlementError."""
        self._waiting.append(events)
        self._hashes[command_sequence] = state_hash
        if sum(map(len, self._waiting)) >= _BATCH_EVENTS:
            self._settle()

    def finish(self) -> None:
        """Make everything taken durable; the feed is followed from there on. Raises SettlementError."""
        self._settle()
        self._settling.commit(self._hash_after)
        if self._last is not None:
            command = self._settling.ledger.command_sequence
            claim = Claim(command, self._hash_after(command))
            self._settling.anchor = Anchor(self._settling.ledger.sequence, frames.records_digest(self._last), claim)

    def _settle(self) -> None:
        if not self._waiting:
            return
        events = concatenate_records(self._waiting)
        self._waiting = []
        self._last = events[-1:]
        self._settling.take(events, self._hash_after)
        command = self._settling.ledger.command_sequence
        self._hashes = {command: self._hash_after(command)}

    def _hash_after(self, command_sequence: int) -> int:
        return self._hashes.get(command_sequence, 0)
