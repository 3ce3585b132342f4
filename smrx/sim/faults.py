"""What goes wrong, one function a fault, and when.

Owns the draw of the next fault and the guard that memory mode needs: short of a seed that asks for it, no more nodes
are without their memory at once than a minority. Changes nodes and network; decides nothing about right and wrong.
"""

import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from smrx.consensus import NotLeader
from smrx.sim.client import Client
from smrx.sim.member import Member
from smrx.sim.network import Network
from smrx.sim.operator import Operator
from smrx.sim.profile import CHANGES, FAULTS, LOSSES, Profile
from smrx.sim.timeline import Timeline
from smrx.sim.world import World

#: A node that was told to die does so within so many of its steps (messages taken, posted, synced).
_FUSE_STEPS: Final = 40
_WALL_SECONDS: Final = 3600.0


class Storm:
    """The faults of one run. begin() and end() are the two ends of it."""

    def __init__(
        self,
        *,
        world: World,
        network: Network,
        members: Sequence[Member],
        operator: Operator,
        clients: Sequence[Client],
        timeline: Timeline,
        profile: Profile,
        chance: random.Random,
    ) -> None:
        #: Faults done so far; whether more are to come.
        self.counted = 0
        self.active = False
        self._world = world
        self._network = network
        self._all = members
        self._operator = operator
        self._clients = clients
        self._timeline = timeline
        self._profile = profile
        self._chance = chance
        does: dict[str, Callable[[], None]] = {
            "isolate": self._isolate,
            "isolate the leader": self._isolate_leader,
            "strand the leader": self._strand_leader,
            "split": self._split,
            "bridge": self._bridge,
            "one way": self._one_way,
            "deafen": self._deafen,
            "echo": network.echo,
            "break": lambda: self._break(lose=True),
            "overtake": lambda: self._break(lose=False),
            "stall": self._stall,
            "crash": self._crash,
            "crash the leader": self._crash_leader,
            "crash the voter": self._crash_voter,
            "crash a majority": self._crash_majority,
            "pause": self._pause,
            "slow": self._slow,
            "jump": self._jump,
            "wall clock": self._wall,
            "rot": self._rot,
            "tear": self._tear,
            "full disk": self._full_disk,
            "hand over": self._hand_over,
            "join": operator.join,
            "leave": operator.leave,
            "replace": operator.replace,
            "lose a directory": self._lose_directory,
            "compact": self._compact,
            "damage": self._damage,
            "client breaks": self._client_breaks,
            "client quits": self._client_quits,
            "client is cut off": self._client_is_cut_off,
        }
        named = [name for name in (*FAULTS, *CHANGES, *LOSSES) if name in profile.faults]
        self._choices = [(name, does[name]) for name in named if name in does]
        if "drift" in profile.faults:
            for member in members:
                member.rate = chance.uniform(0.97, 1.03)
        for member in members:
            member.on_crash = partial(self._restart_later, member)

    def begin(self) -> None:
        """Let things go wrong from now on."""
        self.active = True
        profile, network = self._profile, self._network
        network.loss = profile.loss if "lose" in profile.faults else 0.0
        network.repeats = profile.repeats if "repeat" in profile.faults else 0.0
        self._next()

    def end(self) -> None:
        """Repair everything."""
        self.active = False
        self._operator.end()
        self._network.calm((0.0002, 0.002))
        for member in self._members:
            member.fuse = None
            member.dies_at_election = False
            member.pace = 0.0
            member.disk.full = False
            member.wake_up()
            if not member.up:
                member.start()

    def _next(self) -> None:
        if self._choices:
            self._world.after(self._chance.expovariate(1 / self._profile.fault_seconds), self._happen)

    def _happen(self) -> None:
        if not self.active:
            return
        # What was cut comes together again about as often as it is cut.
        if self._network.cuts and self._chance.random() < 0.35:
            self._network.heal()
            self._timeline.note("fault: every cut heals")
        else:
            name, action = self._chance.choice(self._choices)
            self.counted += 1
            self._timeline.note("fault: {}", name)
            action()
        self._next()

    # Who.

    @property
    def _members(self) -> list[Member]:
        """Every node that runs, or would if it had not died."""
        return [member for member in self._all if member.in_service]

    @property
    def _ids(self) -> list[int]:
        return [member.id for member in self._members]

    def _some_node(self) -> Member:
        return self._chance.choice(self._members)

    def _leader(self) -> Member:
        leaders = [member for member in self._members if member.up and member.replica.is_leader]
        return max(leaders, key=lambda member: member.replica.term) if leaders else self._some_node()

    # The network between nodes.

    def _cut(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self._network.cuts |= {(source, target) for source in sources for target in targets if source != target}
        self._timeline.note("nothing passes from {} to {}", list(sources), list(targets))

    def _part(self, some: Sequence[int], others: Sequence[int]) -> None:
        self._cut(some, others)
        self._cut(others, some)

    def _isolate(self) -> None:
        self._part([self._some_node().id], self._ids)

    def _isolate_leader(self) -> None:
        self._part([self._leader().id], self._ids)

    def _strand_leader(self) -> None:
        """The leader keeps a minority that takes its entries and cannot commit them."""
        leader = self._leader().id
        others = [node for node in self._ids if node != leader]
        kept = self._chance.sample(others, (len(self._ids) - 1) // 2 - 1) if len(self._ids) > 3 else []
        stranded = [leader, *kept]
        self._part(stranded, [node for node in self._ids if node not in stranded])

    def _split(self) -> None:
        ids = self._chance.sample(self._ids, len(self._ids))
        at = self._chance.randrange(1, len(ids)) if len(ids) > 1 else 0
        self._part(ids[:at], ids[at:])

    def _bridge(self) -> None:
        """Two halves that one node alone hears both of."""
        _, *rest = self._chance.sample(self._ids, len(self._ids))
        self._part(rest[: len(rest) // 2], rest[len(rest) // 2 :])

    def _one_way(self) -> None:
        self._cut([self._some_node().id], [self._some_node().id])

    def _deafen(self) -> None:
        """A node that is heard and hears nothing, or the other way round."""
        node = [self._some_node().id]
        if self._chance.random() < 0.5:
            self._cut(self._ids, node)
        else:
            self._cut(node, self._ids)

    def _break(self, *, lose: bool) -> None:
        source, target = self._some_node().id, self._some_node().id
        if source != target:
            self._network.break_link(source, target, lose=lose)
            if not lose:
                # The new connection is there at once: what it carries overtakes what the old one still does.
                self._network.reopen(source, target)

    def _stall(self) -> None:
        source, target = self._some_node().id, self._some_node().id
        self._network.stall(source, target, self._chance.expovariate(1 / 0.3))

    # The nodes.

    def _spare(self) -> int:
        """How many more nodes may lose their memory."""
        return self._operator.to_lose

    def _may_kill(self) -> bool:
        return self._profile.durable or self._spare() > 0

    def _kill(self, member: Member) -> None:
        if member.up and member.fuse is None:
            member.fuse = 1 + self._chance.randrange(self._chance.choice((1, 6, _FUSE_STEPS)))

    def _crash(self) -> None:
        if self._may_kill():
            self._kill(self._some_node())

    def _crash_leader(self) -> None:
        if self._may_kill():
            self._kill(self._leader())

    def _crash_voter(self) -> None:
        """A node dies as soon as it has given its vote, or asked for one."""
        member = self._some_node()
        if self._may_kill() and member.up:
            member.dies_at_election = True

    def _crash_majority(self) -> None:
        members = self._members
        for member in self._chance.sample(members, len(members) // 2 + 1):
            self._kill(member)

    def _restart_later(self, member: Member) -> None:
        """A process that died is started again, at once or after a while."""
        self._world.after(self._chance.choice((0.001, 0.05, 0.5, 1.5)), self._restart, member, member.life)

    def _restart(self, member: Member, life: int) -> None:
        waits = not member.up and member.in_service and member.starts_again
        if waits and member.life == life and not member.start():
            self._restart_later(member)

    def _rot(self) -> None:
        """A bit on a disk changes; the node finds out when it starts again."""
        member = self._some_node()
        if self._profile.durable and self._spare() > 0 and not member.disk.spoiled:
            member.disk.rot()
            self._kill(member)

    def _tear(self) -> None:
        """A disk does not keep its contract: of a sync that is cut short a part is there."""
        member = self._some_node()
        if self._profile.durable and self._spare() > 0 and not member.disk.spoiled:
            member.disk.tears = member.disk.spoiled = True
            self._kill(member)

    def _lose_directory(self) -> None:
        """A node dies, and its directory with it; it starts again with an empty one, and nobody is told."""
        member = self._some_node()
        if self._spare() > 0 and member.up and not member.disk.spoiled and member.fuse is None:
            member.crash()
            member.lose_directory()

    def _full_disk(self) -> None:
        member = self._some_node()
        member.disk.full = True
        self._world.after(self._chance.expovariate(1 / 0.8), self._make_room, member)

    def _make_room(self, member: Member) -> None:
        member.disk.full = False

    def _pause(self) -> None:
        self._some_node().pause(self._chance.choice((0.05, 0.3, 0.7, 2.0)))

    def _slow(self) -> None:
        self._some_node().pace = self._chance.choice((0.0, 0.005, 0.03, 0.15))

    def _jump(self) -> None:
        """A monotonic clock can only jump forward: a machine that slept."""
        member = self._some_node()
        member.offset += self._chance.choice((0.1, 0.5, 3.0))
        member.wake(self._world.now)

    def _wall(self) -> None:
        self._some_node().wall_offset_ns += int(self._chance.uniform(-_WALL_SECONDS, _WALL_SECONDS) * 1e9)

    def _compact(self) -> None:
        member = self._some_node()
        if member.up:
            member.replica.compact()

    def _hand_over(self) -> None:
        member = self._leader()
        if member.up:
            # A node that does not lead, or knows nobody who could, says so and changes nothing.
            with contextlib.suppress(NotLeader, ValueError):
                member.hand_over()

    def _damage(self) -> None:
        self._network.damages += 1

    # The clients.

    def _some_client(self) -> Client:
        return self._chance.choice(self._clients)

    def _client_breaks(self) -> None:
        client, node = self._some_client(), self._some_node().id
        lose = self._chance.random() < 0.5
        self._network.break_link(client.number, node, lose=lose)
        self._network.break_link(node, client.number, lose=True)
        if self._chance.random() < 0.7:
            client.disconnect(node)

    def _client_quits(self) -> None:
        client = self._some_client()
        if client.account and client.session is not None:
            client.open()

    def _client_is_cut_off(self) -> None:
        client, node = self._some_client().number, self._leader().id
        if self._chance.random() < 0.5:
            self._cut([client], [node])
        else:
            self._cut([node], [client])
