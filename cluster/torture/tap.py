"""A node that says what it applies: `python -m cluster.torture.tap DESCRIPTOR ADDRESS ...` is `smrx ...` with a voice.

The node is the one users run; two of its classes speak into the pipe DESCRIPTOR, and its clients are told ADDRESS for
order entry, where their proxy is. What it applied is said before any answer to it can leave, so nothing a client was
told is missing from what was said, however the node dies.
"""

import os
import sys
from enum import IntEnum
from typing import Any

from cluster.torture.streams import Speaker
from smrx import cli
from smrx.node import reactor
from smrx.node.reactor import Node
from smrx.node.replicated_state import ReplicatedState


class Said(IntEnum):
    """The kinds of records."""

    #: first: log index; second: term; third: command sequence; body: state hash u64, size of the entry u64, the entry,
    #: its outcomes.
    APPLIED = 1
    #: first: command sequence; second: state hash.
    RESTORED = 2
    #: first: term.
    LEADS = 3


def told_of_entry(body: bytes) -> tuple[int, bytes, bytes]:
    """The state hash after it, the entry and its outcomes: the body of APPLIED."""
    state_hash, size = (int.from_bytes(body[at : at + 8], "little") for at in (0, 8))
    return state_hash, body[16 : 16 + size], body[16 + size :]


def give_a_voice(arguments: list[str]) -> list[str]:
    """Let every node made from now on in this process say what it does; return the arguments of `smrx`."""
    descriptor, address, *rest = arguments
    os.set_inheritable(int(descriptor), False)
    speaker = Speaker(int(descriptor))

    class TappedMachine(ReplicatedState):
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

        def _order_address(self, node_id: int) -> str | None:
            return address if node_id == self.me.id else super()._order_address(node_id)

    names: Any = reactor
    names.ReplicatedState, names.Node = TappedMachine, TappedNode
    return rest


def main() -> None:
    """Speak into the descriptor that was inherited, and be `smrx`."""
    cli.main(give_a_voice(sys.argv[1:]))


if __name__ == "__main__":
    main()
