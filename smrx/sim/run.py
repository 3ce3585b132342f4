"""One seed in, one verdict out: a cluster, clients and a storm of faults; then everything is repaired and must recover.

A run has four parts: the venue sets its market up, the storm, the recovery (a majority must make progress within five
election timeouts), and the end, when every client has its answers and every node the same state. A cluster in memory
mode that lost a majority's memory cannot recover, must not pretend to, and has to say what it waits for.

Who belongs to the cluster may change during the storm: a majority is then one of the voters of the moment, and the end
asks for the members of the moment only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smrx.config import NodeConfig
from smrx.consensus import NotLeader, membership
from smrx.sim import workload
from smrx.sim.checker import Checker, Violation
from smrx.sim.client import Client
from smrx.sim.electorate import Electorate, majority
from smrx.sim.fault_scenarios import Mishaps
from smrx.sim.faults import Storm
from smrx.sim.member import Member
from smrx.sim.network import Network
from smrx.sim.operator import Operator
from smrx.sim.parts import REAL, Parts
from smrx.sim.profile import Profile, draw
from smrx.sim.promises import Promises
from smrx.sim.simulated_process import FIRST_CLIENT
from smrx.sim.timeline import Timeline
from smrx.sim.versions import Versions, several
from smrx.sim.world import World, chance, simulated

#: A majority that is connected makes progress within so many of the longest election timeouts.
PROGRESS_TIMEOUTS: Final = 5
#: Clients wait longer between tries the longer nothing answers (4 s), and are owed a few tries.
_ANSWER_SECONDS: Final = 30.0
_EQUAL_SECONDS: Final = 10.0
_SETUP_SECONDS: Final = 6.0
_BARRIER_SECONDS: Final = 0.05
#: A part of a long log goes with each turn, and a turn comes with each heartbeat.
_SHORT_SECONDS: Final = 1.0
#: Election timeouts in which nothing happens but snapshots.
_REST_TIMEOUTS: Final = 2

_WAITING_FOR_STATE: Final = "waiting for a majority that holds state"


@dataclass(frozen=True)
class Verdict:
    """What became of one seed."""

    seed: int
    #: What does not hold; None if all does.
    failure: str | None
    #: Commands applied, answers given, faults done, simulated seconds.
    commands: int
    answers: int
    faults: int
    #: Changes of members that were committed.
    changes: int
    seconds: float
    #: A majority lost its memory, so the cluster stands still and says so.
    stands_still: bool
    digest: str
    timeline: Timeline
    profile: Profile

    @property
    def command(self) -> str:
        """What repeats this run."""
        return f"smrx sim {self.seed}"


def simulate(seed: int, parts: Parts = REAL, focus: Callable[[Profile], Profile] = lambda drawn: drawn) -> Verdict:
    """Run one seed; what goes wrong is in the verdict, never raised. `focus` may change what the seed draws."""
    profile = focus(draw(seed))
    with simulated(seed) as world, several(parts.formats()) as versions:
        run = _Run(seed, profile, parts, world, versions)
        failure = None
        try:
            run.go()
        except Violation as violation:
            failure = str(violation)
        except Exception as error:  # noqa: BLE001 (a bug anywhere in the run is a verdict, too)
            failure = f"an exception where none may be: {error!r}"
        if failure is not None:
            run.timeline.note("VIOLATION: {}", failure)
        return Verdict(
            seed,
            failure,
            run.checker.commands,
            run.checker.answered,
            run.storm.counted + run.mishaps.counted,
            run.electorate.changes,
            world.seconds,
            run.stands_still,
            run.timeline.digest(),
            run.timeline,
            profile,
        )


class _Run:
    """The parts of one run and the order in which they play."""

    def __init__(self, seed: int, profile: Profile, parts: Parts, world: World, versions: Versions) -> None:
        self.stands_still = False
        self.timeline = Timeline(world)
        self.checker = Checker(lambda: parts.machine(profile.event_ring, profile.outcome_ring))
        self._profile = profile
        self._world = world
        self._timing = parts.timing or profile.timing
        first, most = list(range(1, profile.nodes + 1)), profile.nodes + profile.spares
        self._network = Network(world, chance("network", seed), most, profile.delay)
        self.electorate = Electorate(membership.of(NodeConfig(id=node, port=node) for node in first))
        promises = Promises(self.electorate, profile.timing.election_min_ms / 1000, self.checker)
        self._members = [
            (parts.member or Member)(
                node,
                first,
                world=world,
                versions=versions,
                network=self._network,
                checker=self.checker,
                promises=promises,
                timeline=self.timeline,
                parts=parts,
                profile=profile,
                timing=self._timing,
                chance=chance(f"disk {node}", seed),
            )
            for node in range(1, most + 1)
        ]
        for member in self._members:
            member.in_service = member.id in first
        self._operator = Operator(
            world=world,
            members=self._members,
            electorate=self.electorate,
            timeline=self.timeline,
            profile=profile,
            chance=chance("operator", seed),
        )
        self._clients = [
            Client(
                FIRST_CLIENT + account,
                account,
                world=world,
                network=self._network,
                checker=self.checker,
                timeline=self.timeline,
                profile=profile,
                chance=chance(f"client {account}", seed),
                file=lambda: self._operator.file,
            )
            for account in range(profile.traders + 1)
        ]
        self._chance = chance("orders", seed)
        self.storm = Storm(
            world=world,
            network=self._network,
            members=self._members,
            operator=self._operator,
            clients=self._clients,
            timeline=self.timeline,
            profile=profile,
            chance=chance("faults", seed),
        )
        self.mishaps = Mishaps(
            world=world,
            network=self._network,
            members=self._members,
            operator=self._operator,
            timeline=self.timeline,
            profile=profile,
            chance=chance("mishap", seed),
        )
        self._barrier: tuple[Member, int, int] | None = None

    def go(self) -> None:
        """Play the run; raises Violation."""
        for member in self._members:
            if member.in_service:
                member.start()
        venue, *traders = self._clients
        venue.open()
        venue.ask(workload.setup([trader.account for trader in traders]))
        if not self._profile.early:
            self._world.run_until(self._world.now + _SETUP_SECONDS, lambda: not venue.unanswered)
        self.storm.begin()
        self.mishaps.begin()
        self._trade()
        self._world.run_until(self._world.now + self._profile.storm_seconds)
        self.mishaps.end()
        self.storm.end()
        self.timeline.note("the storm is over")
        if not self._recover():
            return
        self._answer()
        self._close()
        self._compare()
        self._settle()
        if self._profile.state_bytes and self._profile.durable:
            self._rest()

    def _trade(self) -> None:
        """The next request of some trader, for as long as the run lasts."""
        venue, *traders = self._clients
        # Accounts exist once the venue has made them.
        if self.storm.active and not venue.unanswered:
            trader = self._chance.choice(traders)
            if trader.session is None:
                trader.open()
            trader.trade()
        if self.storm.active or venue.unanswered:
            self._world.after(self._chance.expovariate(1 / self._profile.order_seconds), self._trade)

    def _recover(self) -> bool:
        """Wait for progress; False if a majority lost its memory, and with it the right to go on."""
        seconds = PROGRESS_TIMEOUTS * self._timing.election_max_ms / 1000
        held = self._majorities_hold_their_logs()
        self._try_barrier()
        if self._world.run_until(self._world.now + seconds, self._barrier_applied):
            return True
        led = any(member.up and member.replica.is_leader for member in self._members)
        if held or led or self._profile.durable:
            raise Violation(f"progress: no command went through within {seconds} s of repair; {self._describe()}")
        waiting = [member.id for member in self._members if member.up and member.replica.waiting == _WAITING_FOR_STATE]
        if not waiting:
            raise Violation(f"honesty: a majority lost its memory, and no node says so; {self._describe()}")
        self.stands_still = True
        self.timeline.note("a majority lost its memory: nodes {} say that they wait", waiting)
        return False

    def _majorities_hold_their_logs(self) -> bool:
        """Whether a leader can be elected, whichever of the memberships that some log has turns out to be in force."""
        holding = {member.id for member in self._members if member.up and member.replica.holds_log}
        journals = [member.journal for member in self._members if member.in_service]
        return all(len(holding & members.voters) >= majority(members) for members in self.electorate.possible(journals))

    def _try_barrier(self) -> None:
        """Put an empty entry into the log of whoever leads, again for each new leader."""
        for member in self._members:
            if member.up and member.replica.is_leader:
                known = self._barrier
                if known is not None and (known[0], known[2]) == (member, member.replica.term):
                    continue
                member.at_work()
                try:
                    index, term = member.submit_entry([])
                except NotLeader:
                    continue
                member.wake(self._world.now)
                self._barrier = (member, index, term)
        if not self._barrier_applied():
            self._world.after(_BARRIER_SECONDS, self._try_barrier)

    def _barrier_applied(self) -> bool:
        if self._barrier is None:
            return False
        _, index, term = self._barrier
        return self.checker.last_index >= index and self.checker.term_at(index) == term

    def _answer(self) -> None:
        """Every client gets an answer to everything."""
        if not self._world.run_until(
            self._world.now + _ANSWER_SECONDS, lambda: not any(client.unanswered for client in self._clients)
        ):
            waiting = "; ".join(client.describe() for client in self._clients if client.unanswered)
            raise Violation(f"answers: not given within {_ANSWER_SECONDS} s of recovery: {waiting}; {self._describe()}")

    def _close(self) -> None:
        for client in self._clients:
            if client.session is not None:
                client.close()

    def _compare(self) -> None:
        """Every node comes to the same state, and holds state again."""

        def equal() -> bool:
            # A barrier moves the log and not the state: both have to be equal.
            members = self._current()
            reached = {(member.state.position(), member.state.log_digest) for member in members}
            known = {member.replica.membership for member in members}
            return len(reached) == len(known) == 1 and all(member.holds_state for member in members)

        if not self._world.run_until(self._world.now + _EQUAL_SECONDS, equal):
            raise Violation(f"one state: not reached by all nodes within {_EQUAL_SECONDS} s; {self._describe()}")
        members = self._current()
        for member in members:
            self.checker.check_hashes(member.id, member.state)
        self.checker.check_machines((member.id, member.state) for member in members)
        if not self._profile.durable:
            self._check_lengths()

    def _check_lengths(self) -> None:
        """Nobody lacks anything, so nobody keeps a log in memory longer than it may be."""
        most = self._profile.compaction_entries

        def short() -> bool:
            return all(member.replica.applied_index - member.journal.first_index < most for member in self._current())

        if not short() and not self._world.run_until(self._world.now + _SHORT_SECONDS, short):
            lengths = {member.id: len(member.journal) for member in self._current()}
            raise Violation(f"a bounded log: nodes keep so many entries for nobody, where {most} are enough: {lengths}")

    def _settle(self) -> None:
        """Nobody is owed anything: what a node took it answers or gives back, whoever still listens."""

        def debts() -> list[tuple[int, int]]:
            return [(member.id, member.owes) for member in self._members if member.up and member.owes]

        if debts() and not self._world.run_until(self._world.now + _ANSWER_SECONDS, lambda: not debts()):
            node, commands = debts()[0]
            raise Violation(
                f"answers: node {node} took {commands} commands of clients, and has neither answered nor given them "
                f"back {_ANSWER_SECONDS} s after the last one"
            )

    def _rest(self) -> None:
        """Whoever leads takes a snapshot, and nothing else happens: it goes on leading."""

        def leaders() -> list[tuple[int, int]]:
            return [(node.id, node.replica.term) for node in self._current() if node.up and node.replica.is_leader]

        before = leaders()
        for member in self._current():
            if member.replica.is_leader:
                member.replica.compact()
        self._world.run_until(self._world.now + _REST_TIMEOUTS * self._timing.election_max_ms / 1000)
        after = leaders()
        if before and after != before:
            raise Violation(
                f"no election for a snapshot: {_leaders(before)} before one was taken there, and {_leaders(after)} "
                "after it, though nothing else happened"
            )

    def _current(self) -> list[Member]:
        """The members of the moment."""
        return [member for member in self._members if member.id in self.electorate.newest.ids]

    def _describe(self) -> str:
        return "; ".join(
            f"node {member.id}: {member.replica.role} term {member.replica.term} last {member.replica.last_index} "
            f"commit {member.replica.commit_index} waiting {member.replica.waiting!r}"
            for member in self._members
            if member.up
        )


def _leaders(leading: list[tuple[int, int]]) -> str:
    return " and ".join(f"node {node} led term {term}" for node, term in leading) or "nobody led"
