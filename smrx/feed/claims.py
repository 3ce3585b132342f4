"""Count which nodes claim which state hash after which command. Sans I/O. Called by the quorum.

A claim is (command sequence, state hash). Claims of one command are counted against each other; claims of different
commands cannot be compared.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from smrx.wire.frames import Claim

#: Claims retained. Nodes make one a log entry; one that is further behind than this is not compared.
_RETAINED: Final = 1 << 16


class Differs(NamedTuple):
    """A node's claim is not the majority's."""

    node: int
    command_sequence: int
    found: int
    agreed: int


class Claims:
    """The claims of the nodes that count."""

    def __init__(self, majority: int, counts: Callable[[int], bool]) -> None:
        """counts(node): whether the node's claims are still counted."""
        self.attested = Claim(0, 0)  #: the latest that a majority has made
        self._majority = majority
        self._counts = counts
        self._open: dict[int, dict[int, int]] = {}
        self._agreed: dict[int, int] = {}

    def add(self, node: int, claim: Claim) -> list[Differs]:
        """Count a claim; return the nodes that are found to differ from a majority by it."""
        command, state_hash = claim
        agreed = self._agreed.get(command)
        if agreed is not None:
            return [] if agreed == state_hash else [Differs(node, command, state_hash, agreed)]
        if command <= 0 or command < self.attested.command_sequence - _RETAINED:
            return []
        claims = self._open.setdefault(command, {})
        claims[node] = state_hash
        votes = self._votes(claims)
        best = max(votes, key=lambda found: votes[found], default=0)
        if votes.get(best, 0) < self._majority:
            self._trim(self._open)
            return []
        self._agreed[command] = best
        self._trim(self._agreed)
        if command > self.attested.command_sequence:
            self.attested = Claim(command, best)
        del self._open[command]
        return [Differs(n, command, found, best) for n, found in claims.items() if found != best and self._counts(n)]

    def without_majority(self, command: int, counted: int) -> dict[int, int] | None:
        """Return the claims of a command if no state hash can reach a majority of the `counted` nodes, else None."""
        claims = self._open.get(command, {})
        votes = self._votes(claims)
        best = max(votes.values(), default=0)
        return dict(claims) if len(votes) > 1 and best + counted - sum(votes.values()) < self._majority else None

    def hash_after(self, command_sequence: int) -> int:
        """Return the state hash that a majority claimed after exactly this command; 0 if it is unknown."""
        return self._agreed.get(command_sequence, 0)

    def _votes(self, claims: dict[int, int]) -> dict[int, int]:
        counted = [found for node, found in claims.items() if self._counts(node)]
        return {found: counted.count(found) for found in counted}

    @staticmethod
    def _trim(table: "dict[int, dict[int, int]] | dict[int, int]") -> None:
        if len(table) > _RETAINED:
            del table[next(iter(table))]
