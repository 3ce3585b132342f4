"""A node that says what it applies: `python -m cluster.tap DESCRIPTOR ...` is `smrx ...`, with a pipe to its judge.

The node is the one users run; two of its classes are given a voice. What it applied is said before any answer to it can
leave, so nothing a client was told is missing from what was said, however the node dies.
"""

import os
import sys
from enum import IntEnum
from typing import Any

from cluster.streams import Speaker
from smrx import cli
from smrx.node import reactor
from smrx.node.machine import ExchangeMachine
from smrx.node.reactor import Node


class Said(IntEnum):
    """The kinds of records."""

    #: first: log index; second: term; third: command sequence; body: state hash u64, size of the entry u64, the entry,
    #: its outcomes.
    APPLIED = 1
    #: first: command sequence; second: state hash.
    RESTORED = 2
    #: first: term.
    LEADS = 3


def give_a_voice(speaker: Speaker) -> None:
    """Let every node made from now on in this process say what it does."""

    class TappedMachine(ExchangeMachine):
        def apply(self, log_index: int, term: int, entry: bytes) -> None:
            super().apply(log_index, term, entry)
            applied = self._applied[-1]
            body = applied.state_hash.to_bytes(8, "little") + len(entry).to_bytes(8, "little")
            body += entry + applied.outcomes.tobytes()
            speaker.say(Said.APPLIED, log_index, term, applied.sequence, body)

        def restore(self, data: bytes | memoryview) -> None:
            super().restore(data)
            speaker.say(Said.RESTORED, *self.position())

    class TappedNode(Node):
        _said_term: int | None = None

        def turn(self) -> None:
            super().turn()
            term = self.replica.term if self.replica.is_leader else None
            if term != self._said_term:
                self._said_term = term
                if term is not None:
                    speaker.say(Said.LEADS, term)

    names: Any = reactor
    names.ExchangeMachine, names.Node = TappedMachine, TappedNode


def main() -> None:
    """Speak into the descriptor that was inherited, and be `smrx`."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    give_a_voice(Speaker(descriptor))
    sys.argv = ["smrx", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()
