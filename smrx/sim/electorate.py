"""Who has a vote, as far as the committed log says: what the promises and the end of a run are held against.

Owns the chain of the memberships that were committed, learned from whichever node knew it first. A node that forgot who
belongs to the cluster is judged by this chain and not by what it believes. Changes are of one voter at a time, so an
entry may be committed by a majority of the membership at its place or of the next one. Raises Violation where two nodes
have committed different members at one entry.
"""

from collections.abc import Iterable
from typing import Final

from smrx.consensus import MemoryJournal, membership
from smrx.consensus.membership import Membership
from smrx.sim.checker import Violation

#: Here stands what a cluster file says, and no entry.
_GENESIS: Final = 1


class Electorate:
    """The members of the moment, and of every moment before."""

    def __init__(self, first: Membership) -> None:
        """`first` is what the first nodes' cluster file says."""
        self._chain: list[tuple[int, int, Membership]] = [(_GENESIS, 0, first)]

    @property
    def newest(self) -> Membership:
        """The last one that is known to be committed."""
        return self._chain[-1][2]

    @property
    def changes(self) -> int:
        """Changes committed so far."""
        return len(self._chain) - 1

    def learn(self, node: int, journal: MemoryJournal, committed: int) -> list[int]:
        """A node knows its log to be committed up to an entry; return where it had memberships nobody knew of."""
        found = []
        for index, entry in journal.memberships:
            if _GENESIS < index <= committed and self._is_new(node, index, entry):
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
                f"one membership: node {node} has {_text(membership.decode(entry))} as committed at entry {index}, "
                f"where others have {'none' if known is None else _text(known)}"
            )
        return False

    def at(self, index: int) -> Membership:
        """The one in force at a committed entry, by what is known to be committed."""
        *_, (_, _, members) = (known for known in self._chain if known[0] <= index)
        return members

    def deciding(self, journal: MemoryJournal, index: int) -> list[Membership]:
        """Those of which a majority may commit an entry of a log: in force at its place, and the next one."""
        *_, (last, _, members) = (known for known in self._chain if known[0] <= index)
        later = [known[2] for known in self._chain if known[0] > index][:1]
        if not later:
            # Not committed yet: the one that the log in hand has.
            later = [membership.decode(entry) for at, entry in journal.memberships if at > max(index, last)][:1]
        return [members, *later]

    def electing(self, journal: MemoryJournal, term: int) -> Membership:
        """The one of which a majority elects the node with this log in a term: what it and the chain had before."""
        at, _, members = [known for known in self._chain if known[1] < term][-1]
        for index, entry in journal.memberships:
            if index > at and (journal.term_at(index) or 0) < term:
                at, members = index, membership.decode(entry)
        return members

    def possible(self, journals: Iterable[MemoryJournal]) -> list[Membership]:
        """The newest one, and what some log has after it: any of these may have to find a majority."""
        last = self._chain[-1][0]
        newer = {entry for journal in journals for index, entry in journal.memberships if index > last}
        return [self.newest, *map(membership.decode, sorted(newer))]


def majority(members: Membership) -> int:
    """How many of the voters are one."""
    return len(members.voters) // 2 + 1


def _text(members: Membership) -> str:
    learners = members.ids - members.voters
    return f"voters {sorted(members.voters)}" + (f", learners {sorted(learners)}" if learners else "")
