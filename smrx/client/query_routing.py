"""Asking a cluster: which node, in which order, and what to do with the answer. Yields steps; owns no socket.

A query is answered from the state of one node. The leader is asked first, because it has applied everything that was
acknowledged; another node's answer is taken if the leader is silent, but never one from before the last command whose
outcome this client has seen.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from smrx.client.client_errors import InvalidValue, ProtocolError, Unavailable
from smrx.client.io_steps import Connect, Query, Sleep, Steps
from smrx.client.session import ClientSession
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode, AnyReply, AnyRequest, NodeStatus

#: One node's share of the whole patience.
_NODE_S: Final = 1.0
_AGAIN_S: Final = 0.01

#: Errors that another node, or the same a moment later, may not have.
_PASSING: Final = {
    AdminErrorCode.NOT_LEADER,
    AdminErrorCode.LOST_LEADERSHIP,
    AdminErrorCode.FENCED,
    AdminErrorCode.UNAVAILABLE,
}

R = TypeVar("R", bound=admin.Reply)


class AdminDirectory:
    """Where nodes answer queries, and which of them led when last heard."""

    def __init__(self, config: Config | None) -> None:
        self._by_node = {node.id: node.admin_address for node in config.nodes} if config else {}
        self._by_orders = {node.orders_address: node.admin_address for node in config.nodes} if config else {}
        self._leader: str | None = None
        self._silent: set[str] = set()

    def learn(self, session: ClientSession | None) -> None:
        """Take over what the session has learnt."""
        if session is None:
            return
        for orders, address in session.search.admin_addresses.items():
            self._by_orders.setdefault(orders, address)
        if session.leader is not None:
            self._leader = self._by_orders.get(session.leader)

    def believe(self, node_id: int | None) -> None:
        """Remember which node leads; None where nobody knows."""
        self._leader = None if node_id is None else self._by_node.get(node_id)

    def heard(self, address: str, answered: bool) -> None:
        """Remember whether a node answered: one that did not is asked last until it does."""
        if answered:
            self._silent.discard(address)
        else:
            self._silent.add(address)

    def node(self, node_id: int) -> str | None:
        """Where a node answers, if it is in the configuration."""
        return self._by_node.get(node_id)

    @property
    def leader_known(self) -> bool:
        """Whether addresses() begins with the leader."""
        return self._leader is not None

    @property
    def addresses(self) -> list[str]:
        """Every admin address known, the leader's first, but silent ones last."""
        every = dict.fromkeys((*self._by_node.values(), *self._by_orders.values()))
        return sorted(every, key=lambda address: (address in self._silent, address != self._leader))


class QueryRouter:
    """The asking side of one client. `seen` is the last command sequence whose outcome it has seen."""

    def __init__(self, directory: AdminDirectory, session: Callable[[], ClientSession | None], timeout: float) -> None:
        self._directory = directory
        self._session = session
        self._timeout = timeout
        self.seen = 0

    def ask(self, request: AnyRequest, reply_type: type[R]) -> Steps[R]:
        """Return the first good answer of any node; raises Unavailable, or what the answer means."""
        deadline = time.monotonic() + self._timeout
        self._directory.learn(self._session())
        if not self._directory.addresses:
            # Only order addresses are known: the nodes say there where they answer queries.
            yield Connect()
            self._directory.learn(self._session())
        if not self._directory.addresses:
            raise Unavailable("no address to ask: the nodes do not say where they answer queries; give a configuration")
        if not self._directory.leader_known:
            yield from self._find_leader(deadline)
        said: dict[str, str] = {}
        while True:
            for address in self._directory.addresses:
                reply: AnyReply | None = yield Query(address, request, self._share(deadline))
                self._directory.heard(address, reply is not None)
                verdict = self._judge(reply, reply_type)
                if not isinstance(verdict, str):
                    return verdict
                said[address] = verdict
            if time.monotonic() >= deadline:
                tried = "; ".join(f"{address}: {text}" for address, text in said.items())
                raise Unavailable(f"no node answered {type(request).__name__} within {self._timeout:g} s ({tried})")
            yield Sleep(_AGAIN_S)
            yield from self._find_leader(deadline)

    def ask_node(self, node_id: int, request: AnyRequest, reply_type: type[R]) -> Steps[R]:
        """Return one node's answer; raises Unavailable."""
        address = self._directory.node(node_id)
        if address is None:
            raise InvalidValue(f"node: expected the id of a node in the configuration, found {node_id}")
        reply: AnyReply | None = yield Query(address, request, self._timeout)
        if isinstance(reply, reply_type):
            return reply
        if isinstance(reply, AdminError):
            raise ProtocolError(f"node {node_id} refuses {type(request).__name__}: {reply.message}")
        raise Unavailable(f"node {node_id} at {address} gave no answer within {self._timeout:g} s")

    def _find_leader(self, deadline: float) -> Steps[None]:
        for address in self._directory.addresses:
            reply: AnyReply | None = yield Query(address, admin.Status(), self._share(deadline))
            self._directory.heard(address, reply is not None)
            if isinstance(reply, NodeStatus) and reply.leader_id is not None and reply.fenced is None:
                self._directory.believe(reply.leader_id)
                return

    def _share(self, deadline: float) -> float:
        return max(_AGAIN_S, min(_NODE_S, deadline - time.monotonic()))

    def _judge(self, reply: AnyReply | None, reply_type: type[R]) -> R | str:
        if reply is None:
            return "no answer"
        if isinstance(reply, AdminError):
            if reply.code == AdminErrorCode.UNKNOWN_INSTRUMENT:
                raise InvalidValue(reply.message)
            if reply.code not in _PASSING:
                raise ProtocolError(f"node {reply.node_id} refuses: {reply.message}")
            return reply.message
        if not isinstance(reply, reply_type):
            raise ProtocolError(f"expected {reply_type.__name__}, found {type(reply).__name__}")
        if reply.sequence < self.seen:
            return f"is {self.seen - reply.sequence} commands behind what this client has seen"
        return reply
