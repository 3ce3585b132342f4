"""Run a node that records what it applies: `python -m cluster.torture.applied_entries_pipe DESCRIPTOR ADDRESS ...`.

The rest of the arguments are those of `smrx`. The node is the one that users run; two of its classes write records to
the pipe DESCRIPTOR, and its clients are given ADDRESS for order entry, which is that of their proxy. An entry is
recorded before any reply to it can leave, so the records hold every outcome a client received, however the node dies.
"""

import os
import sys
from enum import IntEnum
from typing import Any

import msgspec

from cluster.torture.record_pipe import RecordWriter
from smrx import cli
from smrx.config import NodeConfig
from smrx.node import reactor
from smrx.node.reactor import Node
from smrx.node.replicated_state import ReplicatedState


class NodeRecordKind(IntEnum):
    """The kinds of records of a node."""

    #: first: log index; second: term; third: command sequence; body: state hash u64, size of the entry u64, the entry,
    #: its outcomes.
    APPLIED = 1
    #: first: command sequence; second: state hash.
    RESTORED = 2
    #: first: term.
    LEADS = 3


def decode_applied(body: bytes) -> tuple[int, bytes, bytes]:
    """Return state hash, entry and outcomes from the body of an APPLIED record."""
    state_hash, size = (int.from_bytes(body[at : at + 8], "little") for at in (0, 8))
    return state_hash, body[16 : 16 + size], body[16 + size :]


def install_pipe(arguments: list[str]) -> list[str]:
    """Make every node created in this process from now on record what it does; return the arguments of `smrx`."""
    descriptor, address, *rest = arguments
    os.set_inheritable(int(descriptor), False)
    writer = RecordWriter(int(descriptor))

    class RecordedState(ReplicatedState):
        def apply(self, log_index: int, term: int, entry: bytes) -> None:
            super().apply(log_index, term, entry)
            applied = self._applied[-1]
            body = applied.state_hash.to_bytes(8, "little") + len(entry).to_bytes(8, "little")
            body += entry + applied.outcomes.tobytes()
            writer.write(NodeRecordKind.APPLIED, log_index, term, applied.sequence, body)

        def restore(self, data: bytes | memoryview) -> None:
            super().restore(data)
            writer.write(NodeRecordKind.RESTORED, *self.position())

    class RecordedNode(Node):
        _recorded_term: int | None = None

        def turn(self) -> None:
            super().turn()
            term = self.replica.term if self.replica.is_leader else None
            if term != self._recorded_term:
                self._recorded_term = term
                if term is not None:
                    writer.write(NodeRecordKind.LEADS, term)

        def _node_of(self, node_id: int) -> NodeConfig | None:
            node = super()._node_of(node_id)
            if node is None or node_id != self.me.id:
                return node
            return msgspec.structs.replace(node, orders_tcp_port=int(address.rpartition(":")[2]))

    names: Any = reactor
    names.ReplicatedState, names.Node = RecordedState, RecordedNode
    return rest


def main() -> None:
    """Install the pipe whose descriptor was inherited and run `smrx`."""
    cli.main(install_pipe(sys.argv[1:]))


if __name__ == "__main__":
    main()
