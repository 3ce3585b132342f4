"""Choose the node that answers a query, and judge its reply. Yields I/O steps; owns no socket.

The leader is asked first; only it answers a linearizable read, after it has confirmed that it leads. A read at level
any is first asked of the other nodes. No reply is accepted that is older than what this client has seen, in an outcome
or in another reply: its reads never go backwards.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from smrx.client.client_errors import InvalidValue, ProtocolError, Unavailable
from smrx.client.io_steps import Connect, Query, Sleep, Steps
from smrx.client.session import ClientSession
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode, AnyReply, AnyRequest, NodeStatus

#: Longest wait for one node, as part of the whole timeout.
_NODE_TIMEOUT_S: Final = 1.0
#: Pause before all nodes are asked again.
_RETRY_S: Final = 0.01

#: Errors that may not occur at another node, or at the same node later.
_TEMPORARY: Final = {
    AdminErrorCode.NOT_LEADER,
    AdminErrorCode.LOST_LEADERSHIP,
    AdminErrorCode.FENCED,
    AdminErrorCode.UNAVAILABLE,
}

R = TypeVar("R", bound=admin.Reply)


class AdminDirectory:
    """The admin addresses of the nodes, and which of them is the leader's."""

    def __init__(self, config: Config | None) -> None:
        self._by_node = {node.id: node.admin_address for node in config.nodes} if config else {}
        self._by_orders = {
            address: node.admin_address
            for node in (config.nodes if config else ())
            for address in (node.orders_address, node.orders_tcp_address)
        }
        self._leader: str | None = None
        self._silent: set[str] = set()

    def update_from(self, session: ClientSession | None) -> None:
        """Copy the addresses and the leader that the session has found."""
        if session is None:
            return
        for orders, address in session.search.admin_addresses.items():
            self._by_orders.setdefault(orders, address)
        if session.leader is not None:
            self._leader = self._by_orders.get(session.leader)

    def set_leader(self, node_id: int | None) -> None:
        """Record which node leads; None if unknown."""
        self._leader = None if node_id is None else self._by_node.get(node_id)

    def set_answered(self, address: str, answered: bool) -> None:
        """Record whether a node replied; one that did not is asked last until it does."""
        if answered:
            self._silent.discard(address)
        else:
            self._silent.add(address)

    def node(self, node_id: int) -> str | None:
        """Return the admin address of a node of the configuration, or None."""
        return self._by_node.get(node_id)

    @property
    def is_leader_known(self) -> bool:
        """Whether the leader's admin address is known."""
        return self._leader is not None

    @property
    def addresses(self) -> list[str]:
        """Every known admin address: the leader's first, those that did not reply last."""
        return self._sorted(leader_first=True)

    @property
    def followers_first(self) -> list[str]:
        """Every known admin address: the leader's after the others, those that did not reply last."""
        return self._sorted(leader_first=False)

    def _sorted(self, *, leader_first: bool) -> list[str]:
        every = dict.fromkeys((*self._by_node.values(), *self._by_orders.values()))
        return sorted(every, key=lambda address: (address in self._silent, (address != self._leader) is leader_first))


class QueryRouter:
    """Sends the queries of one client. `last_sequence`: the highest sequence among outcomes and replies it received."""

    def __init__(self, directory: AdminDirectory, session: Callable[[], ClientSession | None], timeout: float) -> None:
        self._directory = directory
        self._session = session
        self._timeout = timeout
        self.last_sequence = 0

    def ask(self, request: AnyRequest, reply_type: type[R]) -> Steps[R]:
        """Return the first acceptable reply of any node. Raises Unavailable, InvalidValue or ProtocolError."""
        reply, _ = yield from self.ask_where(request, reply_type)
        return reply

    def ask_where(self, request: AnyRequest, reply_type: type[R]) -> Steps[tuple[R, str]]:
        """Return the first acceptable reply, and the address that it came from. Raises as ask()."""
        deadline = time.monotonic() + self._timeout
        self._directory.update_from(self._session())
        if not self._directory.addresses:
            # Only order entry addresses are known; the nodes report their admin addresses there.
            yield Connect()
            self._directory.update_from(self._session())
        if not self._directory.addresses:
            raise Unavailable("no admin address is known: the nodes do not report theirs; pass a Config instead")
        if not self._directory.is_leader_known:
            yield from self._find_leader(deadline)
        problems: dict[str, str] = {}
        while True:
            any_node = isinstance(request, admin.ReadRequest) and request.level == "any"
            for address in self._directory.followers_first if any_node else self._directory.addresses:
                reply: AnyReply | None = yield Query(address, self._bounded(request), self._node_timeout(deadline))
                self._directory.set_answered(address, reply is not None)
                result = self._check(request, reply, reply_type)
                if not isinstance(result, str):
                    return result, address
                problems[address] = result
            if time.monotonic() >= deadline:
                tried = "; ".join(f"{address}: {text}" for address, text in problems.items())
                raise Unavailable(f"no node answered {type(request).__name__} within {self._timeout:g} s ({tried})")
            yield Sleep(_RETRY_S)
            yield from self._find_leader(deadline)

    def ask_again(self, address: str, request: AnyRequest, reply_type: type[R]) -> Steps[R | None]:
        """Return the next page of a listing from the node at an address, None if it has none. Raises as ask().

        The listing is of an earlier moment than what this client may have seen since.
        """
        reply: AnyReply | None = yield Query(address, request, min(_NODE_TIMEOUT_S, self._timeout))
        result = self._check(request, reply, reply_type, is_continued=True)
        return None if isinstance(result, str) else result

    def _bounded(self, request: AnyRequest) -> AnyRequest:
        """Return a read with the sequence that this client has seen as its lower bound."""
        if isinstance(request, admin.ReadRequest) and request.min_sequence < self.last_sequence:
            return msgspec.structs.replace(request, min_sequence=self.last_sequence)
        return request

    def ask_node(self, node_id: int, request: AnyRequest, reply_type: type[R]) -> Steps[R]:
        """Return one node's reply. Raises Unavailable, InvalidValue or ProtocolError."""
        address = self._directory.node(node_id)
        if address is None:
            raise InvalidValue(f"node: expected the id of a node in the configuration, found {node_id}")
        reply: AnyReply | None = yield Query(address, request, self._timeout)
        if isinstance(reply, reply_type):
            return reply
        if isinstance(reply, AdminError):
            raise ProtocolError(f"node {node_id} did not answer {type(request).__name__}: {reply.message}")
        raise Unavailable(f"node {node_id} at {address} did not answer within {self._timeout:g} s")

    def _find_leader(self, deadline: float) -> Steps[None]:
        for address in self._directory.addresses:
            reply: AnyReply | None = yield Query(address, admin.Status(), self._node_timeout(deadline))
            self._directory.set_answered(address, reply is not None)
            if isinstance(reply, NodeStatus) and reply.leader_id is not None and reply.fenced is None:
                self._directory.set_leader(reply.leader_id)
                return

    def _node_timeout(self, deadline: float) -> float:
        return max(_RETRY_S, min(_NODE_TIMEOUT_S, deadline - time.monotonic()))

    def _check(
        self, request: AnyRequest, reply: AnyReply | None, reply_type: type[R], *, is_continued: bool = False
    ) -> R | str:
        """Return the reply if it is acceptable, otherwise why another node must be asked."""
        if reply is None:
            return "no answer"
        if isinstance(reply, AdminError):
            if reply.code == AdminErrorCode.UNKNOWN_INSTRUMENT:
                raise InvalidValue(reply.message)
            if reply.code not in _TEMPORARY:
                raise ProtocolError(f"node {reply.node_id} did not answer: {reply.message}")
            return reply.message
        if not isinstance(reply, reply_type):
            raise ProtocolError(f"expected {reply_type.__name__} as the reply, found {type(reply).__name__}")
        if is_continued or not isinstance(request, admin.ReadRequest):
            # A later page of a listing; or the status of a node, which is no read of the exchange.
            return reply
        if not reply.role and (request.level != "any" or request.max_age_ms is not None):
            return (
                f"node {reply.node_id} runs an earlier version of smrx, which does not confirm how new its state is; "
                "upgrade the nodes, or read at level any"
            )
        if reply.sequence < self.last_sequence:
            return f"{self.last_sequence - reply.sequence} commands behind what this client has seen"
        self.last_sequence = reply.sequence
        return reply
