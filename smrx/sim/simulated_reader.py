"""Simulate a client that reads: it asks nodes that may lead, or may have been deposed, for the state that they hold.

Owns when it reads and whom it asks. Reports every read and every answer to the checker, which knows how new an answer
has to be.
"""

import random
import struct
from typing import Final

from smrx.sim.checker import Checker
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.trace import Trace

#: Starts the frames of reads: no frame of a session does.
READ: Final = b"READ"
#: A request: READ and the number of the read. An answer has the sequence and the state hash after them.
REQUEST: Final = struct.Struct("<4sQ")
ANSWER: Final = struct.Struct("<4sQQQ")


class SimulatedReader:
    """Sends reads to nodes at random."""

    def __init__(
        self, end: int, *, scheduler: Scheduler, network: Network, checker: Checker, trace: Trace, rng: random.Random
    ) -> None:
        """`end` is the reader's end of the network."""
        self.answered = 0
        self._end = end
        self._scheduler = scheduler
        self._network = network
        self._checker = checker
        self._trace = trace
        self._rng = rng
        #: The number of the last read; no other reader has it.
        self._last = end << 32
        network.attach(end, self._receive)

    def read(self, nodes: list[int]) -> None:
        """Ask one of these nodes, or all of them."""
        targets = nodes if self._rng.random() < 0.5 else [self._rng.choice(nodes)]
        for node in targets:
            self._last += 1
            self._checker.read_requested(self._last)
            self._trace.note("reader {} sends read {} to node {}", self._end, self._last, node)
            self._network.send(self._end, node, REQUEST.pack(READ, self._last))

    def _receive(self, source: int, frame: bytes) -> None:
        _, number, sequence, state_hash = ANSWER.unpack(frame)
        self.answered += 1
        self._trace.note("reader {} is answered read {} by node {} at command {}", self._end, number, source, sequence)
        self._checker.read_answered(source, number, (sequence, state_hash))
