"""Record the committed memberships of a run: who had a vote at each entry of the log.

Owns the chain of committed memberships, learned from whichever node committed each first. The wire invariants and the
checks at the end of a run use this chain and not the membership that a node holds, which may be wrong. A change adds
or removes one voter, so a majority of the membership at an entry, or of the next one, may commit the entry. Raises
Violation where two nodes commit different memberships at one entry.
"""

from collections.abc import Iterable
from typing import Final

from smrx.consensus import MemoryJournal, membership
from smrx.consensus.membership import Membership
from smrx.sim.checker import Violation

#: The log index of the membership of the cluster file, which is no entry.
_GENESIS: Final = 1


class MembershipHistory:
    """The committed memberships, oldest first."""

    def __init__(self, initial: Membership) -> None:
        """`initial` is the membership of the cluster file of the initial nodes."""
        self._chain: list[tuple[int, int, Membership]] = [(_GENESIS, 0, initial)]
        #: (index, entry) of committed memberships that agree with the chain: most logs have the same ones at each turn.
        self._compared: set[tuple[int, bytes]] = set()

    @property
    def newest(self) -> Membership:
        """The last committed membership."""
        return self._chain[-1][2]

    @property
    def changes(self) -> int:
        """The number of committed changes."""
        return len(self._chain) - 1

    def add_committed(self, node: int, journal: MemoryJournal, committed: int) -> list[int]:
        """Record the memberships of a log that is committed up to an entry; return the indexes of the new ones."""
        found: list[int] = []
        if journal.membership[0] <= _GENESIS:
            return found
        for index, entry in journal.memberships:
            if not _GENESIS < index <= committed or (index, entry) in self._compared:
                continue
            self._compared.add((index, entry))
            if self._is_new(node, index, entry):
                term = journal.term_at(index)
                known = journal.term_at(journal.first_index) if term is None else term
                self._chain.append((index, known or 0, membership.decode(entry)))
                found.append(index)
        return found

    def _is_new(self, node: int, index: int, entry: bytes) -> bool:
        if index > self._chain[-1][0]:
            return True
        known = next((members for at, _, members in self._chain if at == index), None)
        if known is None or membership.encode(known) != entry:
            raise Violation(
                f"membership agreement: node {node} committed {_text(membership.decode(entry))} at entry {index}, "
                f"other nodes {'no membership' if known is None else _text(known)}"
            )
        return False

    def at(self, index: int) -> Membership:
        """Return the committed membership in force at an entry."""
        *_, (_, _, members) = (known for known in self._chain if known[0] <= index)
        return members

    def deciding(self, journal: MemoryJournal, index: int) -> list[Membership]:
        """Return the memberships of which a majority may commit an entry of a log: that of its place, and the next."""
        *_, (last, _, members) = (known for known in self._chain if known[0] <= index)
        later = [known[2] for known in self._chain if known[0] > index][:1]
        if not later:
            # The next one is not committed yet: take it from this log.
            later = [membership.decode(entry) for at, entry in journal.memberships if at > max(index, last)][:1]
        return [members, *later]

    def electing(self, journal: MemoryJournal, term: int) -> Membership:
        """Return the membership that elects the node with this log in a term: the last one of an earlier term."""
        at, _, members = [known for known in self._chain if known[1] < term][-1]
        for index, entry in journal.memberships:
            if index > at and (journal.term_at(index) or 0) < term:
                at, members = index, membership.decode(entry)
        return members

    def possible(self, journals: Iterable[MemoryJournal]) -> list[Membership]:
        """Return the newest membership and every later one of these logs: each may be the one in force."""
        last = self._chain[-1][0]
        newer = {entry for journal in journals for index, entry in journal.memberships if index > last}
        return [self.newest, *map(membership.decode, sorted(newer))]


def majority(members: Membership) -> int:
    """Return how many voters are a majority."""
    return len(members.voters) // 2 + 1


def _text(members: Membership) -> str:
    learners = members.ids - members.voters
    return f"voters {sorted(members.voters)}" + (f", learners {sorted(learners)}" if learners else "")
