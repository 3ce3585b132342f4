"""Carry the frames of the upstream link over TCP: a connection to each node, watched by the loop of the gateway.

Owns the connections. Never looks into a frame. Called by gateway_process.py.
"""

from collections.abc import Iterable
from typing import Final

from smrx.client.node_links import LINK_ERRORS, NodeLinks
from smrx.client.session_states import Action, DropConnection
from smrx.client_keys import ClientKeys
from smrx.gateway.upstream import Upstream
from smrx.links.poller import Poller
from smrx.wire import frames

REFUSED: Final = "refuses the key of this gateway"


class UpstreamLinks:
    """The connections of one upstream link, by the order entry addresses of the nodes."""

    def __init__(self, upstream: Upstream, poller: Poller, keys: ClientKeys | None, cluster: int) -> None:
        """`cluster`: see greeting.cluster_number()."""
        self._upstream = upstream
        self._links = NodeLinks(frames.MAX_FRAME_BYTES, keys, cluster, poller)

    def receive(self, now: float) -> None:
        """Hand on what has arrived, and connect to nodes that are not connected; call after the poller has run."""
        self._links.tick(now)
        self._links.receive(
            lambda address, data: self._upstream.receive(address, data, now),
            lambda address: self._upstream.disconnected(address, now),
            lambda address: self._upstream.search.set_status(address, REFUSED),
        )

    def perform(self, actions: Iterable[Action]) -> None:
        """Carry out what the upstream link asks for."""
        for action in actions:
            if isinstance(action, DropConnection):
                self._links.drop(action.address)
                continue
            try:
                self._links.to(action.address).send(action.data, only_if_idle=action.ping)
            except LINK_ERRORS as error:
                self._upstream.search.set_status(action.address, f"cannot connect: {error}")

    @property
    def next_deadline(self) -> float:
        """When receive() has something to do, unless something arrives before."""
        return self._links.next_deadline

    def close(self) -> None:
        """Close all connections; what is queued is lost."""
        self._links.drop_all()
