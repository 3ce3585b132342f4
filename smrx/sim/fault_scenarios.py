"""What goes wrong beside the storm: strangers, a lack of memory, and coincidences that are arranged.

Owns when these happen, by a chance of its own: a run without them is the run it would be if there were none. A
coincidence is what chance alone would not bring together in any number of runs worth waiting for; every step of it is
something that may happen. Decides nothing about right and wrong.
"""

import contextlib
import random
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import NotLeader
from smrx.sim.member import Member
from smrx.sim.network import Network
from smrx.sim.operator import Operator
from smrx.sim.profile import MISHAPS, Profile
from smrx.sim.simulated_transport import key_of
from smrx.sim.timeline import Timeline
from smrx.sim.unknown_peer import Ear, lie
from smrx.sim.versions import NEXT, PRESENT
from smrx.sim.world import World

#: Mean time between two of them.
_SECONDS: Final = 0.3
#: A stranger who got a connection says a few things.
_LIES: Final = 5
#: Between two looks at whether a coincidence may go on: less than a message takes.
_LOOK_SECONDS: Final = 0.001
#: Entries that only a minority gets, and then those that have their places.
_BARRIERS: Final = 12
#: In a cluster that is smaller it cannot come to it.
_NODES: Final = {"late acknowledgements": 5, "hasty changes": 4, "two newcomers": 5}
#: For what an election brings, and for what comes of it.
_PATIENCE_SECONDS: Final = 3.0
_LEASE_SECONDS: Final = 1.5

_Steps = Generator[None, None, None]


class Mishaps:
    """The mishaps of one run. begin() and end() are the two ends of them."""

    def __init__(
        self,
        *,
        world: World,
        network: Network,
        members: Sequence[Member],
        operator: Operator,
        timeline: Timeline,
        profile: Profile,
        chance: random.Random,
    ) -> None:
        #: Mishaps so far.
        self.counted = 0
        self._active = False
        self._world = world
        self._network = network
        self._members = members
        self._operator = operator
        self._timeline = timeline
        self._profile = profile
        self._chance = chance
        does: dict[str, Callable[[], None]] = {
            "stranger": self._stranger,
            "out of memory": self._out_of_memory,
            "upgrade": self._upgrade,
            "late acknowledgements": partial(self._arrange, self._late_acknowledgements),
            "hasty changes": partial(self._arrange, self._hasty_changes),
            "two newcomers": partial(self._arrange, self._two_newcomers),
        }
        nodes = profile.nodes + profile.spares
        possible = [name for name in MISHAPS if name in profile.faults and nodes >= _NODES.get(name, 1)]
        self._choices = [(name, does[name]) for name in possible if name in does]
        self._arranged: _Steps | None = None

    def begin(self) -> None:
        """Let them happen from now on."""
        self._active = True
        self._next()

    def end(self) -> None:
        """Nothing more happens."""
        self._active = False
        if self._arranged is not None:
            self._arranged.close()
        upgraded = any(member.version != PRESENT for member in self._members)
        for member in self._members:
            member.short_before = member.short_after = False
            if upgraded and member.in_service and member.version == PRESENT:
                # What was begun is done: from now on all are of one version.
                member.version = NEXT
                member.crash()

    def _next(self) -> None:
        if self._choices:
            self._world.after(self._chance.expovariate(1 / _SECONDS), self._happen)

    def _happen(self) -> None:
        if self._active:
            name, action = self._chance.choice(self._choices)
            self.counted += 1
            self._timeline.note("fault: {}", name)
            action()
            self._next()

    def _stranger(self) -> None:
        """Somebody who is no member reaches a node's port and claims to be one."""
        nodes = [member for member in self._members if member.up]
        members = [member for member in self._members if member.in_service]
        if not nodes:
            return
        ear = self._chance.choice(nodes)
        others = [member for member in members if member is not ear]
        claimed = self._chance.choice(others) if others else ear
        heard = self._network.heard_by(ear.id)
        journal = ear.journal
        lies = Ear(
            ear.meta.incarnation,
            ear.replica.term,
            journal.last_index,
            journal.last_term,
            claimed.id,
            claimed.meta.incarnation,
            key_of(claimed.id),
        )
        for _ in range(_LIES):
            ear.knock(*lie(self._chance, lies, heard))

    def _out_of_memory(self) -> None:
        """A node's machine cannot finish the next entry it applies, or has finished it and can say nothing of it."""
        nodes = [member for member in self._members if member.up and member.fuse is None]
        if nodes and (self._profile.durable or self._operator.to_lose > 0):
            member = self._chance.choice(nodes)
            if self._chance.random() < 0.5:
                member.short_before = True
            else:
                member.short_after = True

    def _upgrade(self) -> None:
        """A node stops, and starts again as the next version of the program, in disk mode: with what it had."""
        nodes = [member for member in self._members if member.up and member.version == PRESENT]
        if nodes and self._profile.durable:
            member = self._chance.choice(nodes)
            member.version = NEXT
            member.crash()

    # Coincidences.

    def _arrange(self, steps: Callable[[], _Steps]) -> None:
        if self._arranged is None:
            self._arranged = steps()
            self._go_on()

    def _go_on(self) -> None:
        steps = self._arranged
        if steps is None or not self._active:
            return
        try:
            next(steps)
        except StopIteration:
            self._arranged = None
        else:
            self._world.after(_LOOK_SECONDS, self._go_on)

    def _wait(self, condition: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> Generator[None, None, bool]:
        """Go on once something is so; return whether it came about."""
        end = self._world.now + seconds
        while not condition():
            if self._world.now > end:
                return False
            yield
        return True

    def _late_acknowledgements(self) -> _Steps:
        """What a node acknowledged to a leader arrives when that one leads again, and has another log by then.

        The leader and the node are cut off with entries that nobody else gets; what the node says stays under way.
        Another leads meanwhile, and makes the first one lead again. It has entries for the same places, and one node
        that hears it, when the old words arrive on the connection that everybody took for closed.
        """
        first = self._operator.leader
        members = self._voters()
        if first is None or first not in members or len(members) < 5:
            return
        mate, witness, *rest = self._chance.sample(
            [member for member in members if member is not first], len(members) - 1
        )
        self._network.hold(mate.id, first.id)
        cut = self._part([first, mate], [witness, *rest])
        self._barriers(first)
        elected = yield from self._wait(lambda: self._operator.leader not in (first, None) and not self._leads(first))
        words = self._network.let_go(mate.id, first.id)
        self._network.cuts -= cut
        if not elected or not words:
            return

        def leads_again() -> bool:
            leader = self._operator.leader
            if leader is not None and leader is not first and not leader.replica.is_transferring:
                with contextlib.suppress(NotLeader, ValueError):
                    leader.replica.transfer_leadership(first.id)
                    leader.wake(self._world.now)
            return leader is first

        if not (yield from self._wait(leads_again)):
            return
        # The way from that node is open, though it has nothing to say.
        cut = self._part([first], [mate, *rest])
        self._network.cuts.discard((mate.id, first.id))
        self._barriers(first)
        self._timeline.note("what node {} said to node {} long ago arrives", mate.id, first.id)
        words()
        yield from self._wait(lambda: not self._leads(first), _LEASE_SECONDS)
        self._network.cuts -= cut

    def _hasty_changes(self) -> _Steps:
        """Two leaders begin a change that the other does not hear of, the second as soon as it leads.

        With four voters: the first, cut off, is asked to remove one. The second, elected by the other three, is asked
        to remove the first while one that elected it hears nothing of it. That one then hears the first alone.
        """
        first = self._operator.leader
        members = self._voters()
        if first is None or first not in members or len(members) != 4:
            return
        others = [member for member in members if member is not first]
        may_leave = self._operator.may_leave
        gone = next((member for member in self._chance.sample(others, 3) if may_leave(member, first)), None)
        if gone is None:
            return
        cut = self._part([first], others)
        self._operator.ask(first, partial(first.replica.remove_member, gone.id))
        yield from self._wait(lambda: any(map(self._leads, others)))
        self._network.cuts -= cut
        second = self._operator.leader
        if second not in others or not self._leads(second):
            return
        deaf = next(member for member in others if member not in (second, gone))
        staying = [member for member in others if member is not deaf]
        cut = self._part([first, deaf], staying)
        self._operator.ask(second, partial(second.replica.remove_member, first.id))
        yield from self._wait(lambda: self._leads(first))
        yield from self._wait(lambda: not self._leads(first), _LEASE_SECONDS)
        self._network.cuts -= cut
        self._operator.read_members()

    def _two_newcomers(self) -> _Steps:
        """A leader of three that is cut off is asked to take two new nodes, which hear it alone.

        With both it would be a majority of five, and the other two are one of three.
        """
        first = self._operator.leader
        members, new = self._voters(), self._operator.newcomers()[:2]
        if first is None or first not in members or len(members) != 3 or len(new) < 2:
            return
        others = [member for member in members if member is not first]
        for member in new:
            self._operator.start(member)
        cut = self._part([first, *new], others)
        for member in new:
            node = NodeConfig(id=member.id, port=member.id)
            self._operator.ask(first, partial(first.replica.add_member, node))
        yield from self._wait(lambda: any(map(self._leads, others)))
        yield from self._wait(lambda: not self._leads(first), _LEASE_SECONDS)
        self._network.cuts -= cut
        self._operator.read_members()

    def _voters(self) -> list[Member]:
        """Who has a vote, if all of them run."""
        voters = [member for member in self._members if member.id in self._operator.voters]
        return voters if all(member.up for member in voters) else []

    def _leads(self, member: Member) -> bool:
        return member.up and member.replica.is_leader

    def _part(self, some: Sequence[Member], others: Sequence[Member]) -> set[tuple[int, int]]:
        pairs = {(one.id, other.id) for one in some for other in others}
        cut = (pairs | {(other, one) for one, other in pairs}) - self._network.cuts
        self._network.cuts |= cut
        self._timeline.note("nothing passes between {} and {}", [m.id for m in some], [m.id for m in others])
        return cut

    def _barriers(self, member: Member) -> None:
        """Somebody wants to know several times whether a node leads."""
        with contextlib.suppress(NotLeader):
            for _ in range(_BARRIERS):
                member.call(lambda: member.submit_entry([])[0])
