"""Replicate a log: the same commands in the same order on every node, by PySyncObj (Raft) with its faults corrected.

Used by the node, which owns the loop; uses wire/ for the shape of a log entry. Does not interpret commands.
"""

from smrx.consensus.agreement import Agreement
from smrx.consensus.context import ConsensusError, NotLeader, ReplicaSettings, StateMachine
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.recovery import MetaError, MetaStore
from smrx.consensus.replica import Replica
from smrx.consensus.transport import PeerTransport
from smrx.consensus.transport_tcp import TcpTransport

__all__ = [
    "Agreement",
    "ConsensusError",
    "MemoryJournal",
    "MetaError",
    "MetaStore",
    "NotLeader",
    "PeerTransport",
    "Replica",
    "ReplicaSettings",
    "StateMachine",
    "TcpTransport",
]
