"""Simulate the meta store: term, vote, membership and incarnation on a disk that loses unsynced changes in a crash."""

from typing import NamedTuple

from smrx.consensus import MetaStore


class _Values(NamedTuple):
    """The content of a meta store."""

    term: int
    vote: int | None
    joined: bool
    membership: tuple[int, bytes]
    initialized: bool = False


class SimulatedMeta(MetaStore):
    """The meta store of one node directory; it outlives the node's processes."""

    def __init__(self, first_incarnation: int = 0) -> None:
        """Create the store of a node that never ran. Incarnations are numbered after `first_incarnation`."""
        self._durable = _Values(0, None, False, (0, b""))
        self._current = self._durable
        self._incarnation = first_incarnation

    def begin(self) -> None:
        """Start the next incarnation with what is durable."""
        self._incarnation += 1
        self._current = self._durable

    @property
    def incarnation(self) -> int:
        return self._incarnation

    @property
    def term(self) -> int:
        return self._current.term

    @property
    def vote(self) -> int | None:
        return self._current.vote

    @property
    def joined(self) -> bool:
        return self._current.joined

    def set_term(self, term: int, vote: int | None) -> None:
        self._current = self._current._replace(term=term, vote=vote)

    def set_joined(self) -> None:
        self._current = self._current._replace(joined=True)

    @property
    def initialized(self) -> bool:
        return self._current.initialized

    def set_initialized(self) -> None:
        self._current = self._current._replace(initialized=True)

    def exceed_incarnation(self, incarnation: int) -> None:
        self._incarnation = max(self._incarnation, incarnation + 1)

    @property
    def membership(self) -> tuple[int, bytes]:
        return self._current.membership

    def set_membership(self, membership: tuple[int, bytes]) -> None:
        self._current = self._current._replace(membership=membership)

    def sync(self) -> None:
        self._durable = self._current

    def close(self) -> None:
        pass
