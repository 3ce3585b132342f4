"""Who changes the members of a simulated cluster: the steps of `smrx cluster add` and `remove`, taken again and again.

Owns the newest cluster file and the changes under way. Asks whoever leads, as the commands do, and begins anew when the
leader changes. Careful where the commands leave that to people: no change may leave a majority of nodes that lost what
they knew, and two of the first nodes stay, because clients know no others. Decides nothing about right and wrong.
"""

import contextlib
import random
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import NotLeader
from smrx.consensus.membership import MembershipError
from smrx.sim.electorate import Electorate
from smrx.sim.member import Member
from smrx.sim.profile import Profile
from smrx.sim.timeline import Timeline
from smrx.sim.world import World

_POLL_SECONDS: Final = 0.05
#: A change that takes longer is given up, wherever it stands.
_PATIENCE_SECONDS: Final = 6.0
#: Changes under way at once: two people who do not know of each other.
_MOST: Final = 2
#: Of the first nodes so many stay.
_STAY: Final = 2

_Steps = Generator[None, None, None]


class Operator:
    """The changes of one run."""

    def __init__(
        self,
        *,
        world: World,
        members: Sequence[Member],
        electorate: Electorate,
        timeline: Timeline,
        profile: Profile,
        chance: random.Random,
    ) -> None:
        #: Whom the newest cluster file names.
        self.file = {member.id for member in members if member.in_service}
        #: Changes done.
        self.done = 0
        self._world = world
        self._members = members
        self._electorate = electorate
        self._timeline = timeline
        self._profile = profile
        self._chance = chance
        #: The changes under way, by the node that they are about.
        self._busy: dict[int, _Steps] = {}

    @property
    def leader(self) -> Member | None:
        """The one that leads, in the newest term if several say so."""
        leaders = [member for member in self._members if member.up and member.replica.is_leader]
        return max(leaders, key=lambda member: member.replica.term, default=None)

    @property
    def to_lose(self) -> int:
        """How many more nodes may lose their memory."""
        return self._to_lose_without(None)

    def _to_lose_without(self, gone: int | None) -> int:
        journals = [member.journal for member in self._members if member.in_service]
        lost = {member.id for member in self._members if member.in_service and member.may_lack_memory}
        spare = []
        for members in self._electorate.possible(journals):
            voters = members.voters - {gone}
            # One that only learns may have its vote at any moment.
            spare.append((len(voters) - 1) // 2 - len(lost & (members.ids - {gone})))
        return min(spare)

    @property
    def voters(self) -> frozenset[int]:
        """Who has a vote, as far as is known to be committed."""
        return self._electorate.newest.voters

    def may_leave(self, *members: Member) -> bool:
        """Whether each of these, and all, can go: first nodes and memories enough stay, and no change waits."""
        gone = {member.id for member in members}
        return not self._busy and self._clients_know_some(gone) and all(self._to_lose_without(it) >= 0 for it in gone)

    def _clients_know_some(self, gone: set[int]) -> bool:
        """Whether enough first nodes stay, whichever of the memberships that some log has is in force."""
        first, stay = frozenset(range(1, self._profile.nodes + 1)), min(_STAY, self._profile.nodes)
        journals = [member.journal for member in self._members if member.in_service]
        return not gone & first or all(
            len(members.ids & first - gone) >= stay for members in self._electorate.possible(journals)
        )

    def read_members(self) -> None:
        """Write the cluster file anew, with those who are members, unless somebody is about to change them."""
        if not self._busy:
            self.file.clear()
            self.file |= self._ids()

    def newcomers(self) -> list[Member]:
        """Nodes that never ran, or left and are stopped, and that nobody has plans for."""
        return [member for member in self._members if not member.in_service and member.id not in self._busy]

    def start(self, member: Member) -> None:
        """Start a node that is to become a member."""
        member.file = sorted(self.file | {member.id})
        member.in_service = True
        if not member.start():
            member.on_crash()

    # The changes.

    def join(self) -> None:
        """A node that is no member, new or one that left, becomes one."""
        spares = [
            member
            for member in self._members
            if not (member.in_service and member.id in self._ids()) and member.id not in self._busy
        ]
        if spares:
            self._begin(self._chance.choice(spares), self._join)

    def leave(self) -> None:
        """A member becomes none; its process ends, or goes on."""
        first = [node for node in sorted(self.file) if node <= self._profile.nodes and node not in self._busy]
        stay = min(_STAY, self._profile.nodes)
        choices = [node for node in sorted(self.file) if node > self._profile.nodes or len(first) > stay]
        choices = [node for node in choices if node not in self._busy and node in self._ids()]
        if choices:
            self._begin(self._member(self._chance.choice(choices)), self._leave)

    def replace(self) -> None:
        """A node dies, and an empty one takes its place under its number."""
        candidates = [
            member
            for member in self._members
            if member.up and not member.replica.is_leader and member.id in self._ids() and member.id not in self._busy
        ]
        others = len([node for node in self.file if node <= self._profile.nodes and node not in self._busy])
        if self._profile.nodes == 1:
            candidates = [member for member in candidates if member.id > 1]
        elif others <= _STAY:
            candidates = [member for member in candidates if member.id > self._profile.nodes]
        if candidates and (self._profile.durable or self.to_lose > 0):
            member = self._chance.choice(candidates)
            self._begin(member, self._replace)

    def end(self) -> None:
        """Nothing more is begun or gone on with. A node that was on its way out or in is where it is."""
        for steps in self._busy.values():
            steps.close()
        self._busy.clear()

    def _begin(self, member: Member, steps: Callable[[Member], _Steps]) -> None:
        if len(self._busy) < _MOST:
            self._busy[member.id] = taken = steps(member)
            self._go_on(member, taken, self._world.now + _PATIENCE_SECONDS)

    def _go_on(self, member: Member, steps: _Steps, deadline: float) -> None:
        if self._busy.get(member.id) is not steps:
            return
        if self._world.now <= deadline:
            try:
                next(steps)
            except StopIteration:
                self.done += 1
            else:
                self._world.after(_POLL_SECONDS, self._go_on, member, steps, deadline)
                return
        self._timeline.note("the operator is done with node {}; the cluster file has {}", member.id, sorted(self.file))
        steps.close()
        del self._busy[member.id]

    def _join(self, member: Member) -> _Steps:
        if not member.up and self._chance.random() < 0.5:
            self._wipe(member)
        yield from self._add(member)

    def _add(self, member: Member) -> _Steps:
        self.file.add(member.id)
        if not member.up:
            self.start(member)
        while True:
            leader = self.leader
            if leader is not None:
                membership = leader.replica.membership
                if member.id in membership.voters and leader is self._settled_leader():
                    return
                if member.id not in membership.ids:
                    self.ask(leader, partial(leader.replica.add_member, NodeConfig(id=member.id, port=member.id)))
            yield

    def _wipe(self, member: Member) -> None:
        """A node of this number begins anew; what the old one said may still be under way."""
        member.wipe()

    def _leave(self, member: Member) -> _Steps:
        stops = self._chance.random() < 0.5
        yield from self._remove(member)
        if stops:
            self._timeline.note("node {} is stopped", member.id)
            member.stop()
        else:
            self._timeline.note("node {} goes on, though it is no member", member.id)

    def _replace(self, member: Member) -> _Steps:
        member.fuse = 1
        member.wake(self._world.now)
        member.starts_again = False
        try:
            while member.up:
                yield
            yield from self._remove(member)
            self._wipe(member)
        finally:
            member.starts_again = True
            if not member.up:
                member.on_crash()
        yield from self._add(member)

    def _remove(self, member: Member) -> _Steps:
        while True:
            leader = self._settled_leader()
            if leader is not None:
                if member.id not in leader.replica.membership.ids:
                    self.file.discard(member.id)
                    return
                if leader is member:
                    with contextlib.suppress(NotLeader, ValueError):
                        leader.hand_over()
                elif self._to_lose_without(member.id) >= 0 and self._clients_know_some({member.id}):
                    self.ask(leader, partial(leader.replica.remove_member, member.id))
            yield

    def ask(self, leader: Member, change: Callable[[], int]) -> None:
        """Ask a leader to change the members; it may say no."""
        with contextlib.suppress(NotLeader, MembershipError):
            leader.call(change)
            self._timeline.note("node {} is asked to change the members", leader.id)

    def _settled_leader(self) -> Member | None:
        """A leader whose members are committed, in its own term."""
        leader = self.leader
        if leader is None:
            return None
        replica, journal = leader.replica, leader.journal
        settled = journal.membership[0] <= replica.commit_index
        return leader if settled and journal.term_at(replica.commit_index) == replica.term else None

    def _ids(self) -> frozenset[int]:
        return self._electorate.newest.ids

    def _member(self, node: int) -> Member:
        return next(member for member in self._members if member.id == node)
