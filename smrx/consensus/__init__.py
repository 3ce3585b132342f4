"""The same commands in the same order on every node: PySyncObj (Raft) with its faults kept out.

Used by the node, which owns the loop; uses wire/ for the shape of a log entry. Knows nothing of orders.
"""

from smrx.consensus.agreement import Agreement
from smrx.consensus.core import ConsensusError, StateMachine
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.leading import NotLeader
from smrx.consensus.recovery import MetaError, MetaStore
from smrx.consensus.replica import Replica
from smrx.consensus.transport import PeerTransport
from smrx.consensus.transport_zmq import ZmqTransport

__all__ = [
    "Agreement",
    "ConsensusError",
    "MemoryJournal",
    "MetaError",
    "MetaStore",
    "NotLeader",
    "PeerTransport",
    "Replica",
    "StateMachine",
    "ZmqTransport",
]
