"""The view of a node that its admin service needs: the parts it reads and the few requests it passes on.

A Protocol, so that the admin service does not import the reactor, which owns it.
"""

from typing import Protocol

from smrx.config import Config, NodeConfig
from smrx.consensus import MetaStore, Replica
from smrx.node.admission import Admission
from smrx.node.connection_guard import ConnectionGuard
from smrx.node.node_storage import NodeStorage
from smrx.node.replicated_state import ReplicatedState
from smrx.node.stage_times import StageTimes


class NodeView(Protocol):
    """A node as its admin service sees it."""

    config: Config
    #: This node's own entry of the cluster file.
    me: NodeConfig
    #: When the process started, on time.monotonic().
    started: float
    admission: Admission
    meta: MetaStore
    storage: NodeStorage
    state: ReplicatedState
    replica: Replica
    connections: ConnectionGuard
    stages: StageTimes

    @property
    def unread_answers(self) -> tuple[int, int, int]:
        """The bytes of answers to orders that wait, as their clients do not read; the most so far; answers dropped."""

    @property
    def fenced(self) -> str | None:
        """Why this node may not serve, or None."""

    def upgrade_rules(self) -> tuple[int, int]:
        """Append the switch to the next version of the rules; see Turn.upgrade_rules()."""

    def stop(self) -> None:
        """End after the current turn."""
