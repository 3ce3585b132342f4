"""The judge of a torture run: content with a run that went well, and not with one in which anything is wrong."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.torture.field import Life
from cluster.torture.streams import Stream, packed
from cluster.torture.tap import Said
from cluster.torture.trader import Told
from cluster.torture.verdict import judge
from smrx.node.replicated_state import ReplicatedState
from smrx.sim import workload
from smrx.sim.checker import Violation
from smrx.wire import batches
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND, OUTCOME

VENUE, ALICE, BOB = 11, 22, 33
ORDERS = 12


@dataclass
class Applied:
    """What a node says of one log entry."""

    index: int
    term: int
    sequence: int
    state_hash: int
    entry: bytes
    outcomes: bytes


@dataclass
class Asked:
    """What a client says of requests it sent together, and of their answers: None if none came."""

    at: int
    session: int
    first: int
    commands: bytes
    answered_at: int | None = None
    outcomes: bytes = b""


@dataclass
class Tale:
    """A run as it was told by three nodes and three clients."""

    nodes: dict[int, list[Applied]] = field(default_factory=lambda: {1: [], 2: [], 3: []})
    asked: list[Asked] = field(default_factory=list)
    leads: list[tuple[int, int]] = field(default_factory=lambda: [(1, 1)])
    restored: list[tuple[int, int, int]] = field(default_factory=list)

    def lives(self) -> list[Life]:
        found = []
        for node_id, words in self.nodes.items():
            stream = Stream()
            for leader, term in self.leads:
                if leader == node_id:
                    stream.data += packed(Said.LEADS, term)
            for word in words:
                head = word.state_hash.to_bytes(8, "little") + len(word.entry).to_bytes(8, "little")
                body = head + word.entry + word.outcomes
                stream.data += packed(Said.APPLIED, word.index, word.term, word.sequence, body)
            for restorer, sequence, state_hash in self.restored:
                if restorer == node_id:
                    stream.data += packed(Said.RESTORED, sequence, state_hash)
            found.append(Life(node_id, stream))
        return found

    def histories(self) -> list[Stream]:
        streams = {session: Stream() for session in (VENUE, ALICE, BOB)}
        for asked in self.asked:
            data = streams[asked.session].data
            data += packed(Told.ASKED, asked.at, asked.session, asked.first, asked.commands)
            if asked.answered_at is not None:
                data += packed(Told.ANSWERED, asked.answered_at, asked.session, body=asked.outcomes)
        return list(streams.values())


class Exchange:
    """Makes a tale: commands in, applied by a real machine, told alike by all nodes and answered truthfully."""

    def __init__(self) -> None:
        self.tale = Tale()
        self.now = 0
        self._machine = ReplicatedState(1024, 1024)
        self._index = 1
        self._last = dict.fromkeys((VENUE, ALICE, BOB), 0)

    def open(self, session: int, account: int) -> None:
        command = np.zeros(1, COMMAND)
        command["kind"], command["session_id"], command["account"] = CommandKind.OPEN_SESSION, session, account
        self._apply(command)

    def ask(self, session: int, commands: NDArray[np.void], *, apply: bool = True, answer: bool = True) -> None:
        sent = commands.copy()
        first = self._last[session] + 1
        self._last[session] += len(sent)
        sent["session_id"], sent["request_id"] = session, np.arange(first, first + len(sent))
        self.now += 1
        asked = Asked(self.now, session, first, sent.tobytes())
        self.tale.asked.append(asked)
        if apply:
            outcomes = self._apply(sent)
            if answer:
                self.now += 1
                asked.answered_at, asked.outcomes = self.now, outcomes

    def _apply(self, commands: NDArray[np.void]) -> bytes:
        self._index += 1
        entry = batches.encode(commands.tobytes(), 1_000 + self._index, *self._machine.position())
        self._machine.apply(self._index, 1, entry)
        (applied,) = self._machine.take_applied()
        outcomes: bytes = applied.outcomes.tobytes()
        for words in self.tale.nodes.values():
            words.append(Applied(self._index, 1, applied.sequence, applied.state_hash, entry, outcomes))
        return outcomes


@pytest.fixture(scope="module")
def told() -> Tale:
    """Orders of two clients, one after the other; at the end one unknown one that was applied and one that was not."""
    exchange = Exchange()
    exchange.open(VENUE, 0)
    exchange.ask(VENUE, workload.setup([1, 2]))
    exchange.open(ALICE, 1)
    exchange.open(BOB, 2)
    chance = random.Random(3)
    for number in range(ORDERS):
        session, account = ((ALICE, 1), (BOB, 2))[number % 2]
        exchange.ask(session, workload.orders(chance, account, 1))
    exchange.ask(ALICE, workload.orders(chance, 1, 1), answer=False)
    exchange.ask(BOB, workload.orders(chance, 2, 1), apply=False)
    return exchange.tale


def copied(tale: Tale) -> Tale:
    return Tale(
        {node: [replace(word) for word in words] for node, words in tale.nodes.items()},
        [replace(asked) for asked in tale.asked],
        list(tale.leads),
        list(tale.restored),
    )


def test_a_run_that_went_well_is_judged_well(told: Tale) -> None:
    tale = copied(told)
    # A node that was killed has said less than the others, and one that was started again says some of it anew.
    del tale.nodes[3][-4:]
    lives = tale.lives() + Tale(nodes={3: tale.nodes[1][5:]}, leads=[(3, 2)]).lives()
    checker, judged = judge(lives, tale.histories())
    setup = len(workload.setup([1, 2]))
    assert (judged.answered, judged.asked) == (setup + ORDERS, setup + ORDERS + 2)
    assert (judged.unknown, judged.unknown_applied) == (2, 1)
    assert (judged.terms_led, judged.lives, judged.entries) == (2, 4, len(tale.nodes[1]))
    assert judged.longest_silence_s == 2e-9  # Between two answers there is always one question.
    last = tale.nodes[1][-1]
    digest = ReplicatedState(1024, 1024)
    for word in tale.nodes[1]:
        digest.apply(word.index, word.term, word.entry)
    # An entry that only marks a term may follow.
    for index in (last.index, last.index + 1):
        checker.check_position(1, index, (last.sequence, last.state_hash), digest.log_digest)
    with pytest.raises(Violation, match=r"one state: after entry .* node 2 is at command"):
        checker.check_position(2, last.index, (last.sequence, last.state_hash ^ 1), digest.log_digest)
    with pytest.raises(Violation, match=r"one state: after entry .* node 2 is at command"):
        checker.check_position(2, last.index - 1, (last.sequence, last.state_hash), digest.log_digest)
    with pytest.raises(Violation, match="log agreement: the log digest of node 3"):
        checker.check_position(3, last.index, (last.sequence, last.state_hash), digest.log_digest ^ 1)


def lose_an_acknowledged_one(tale: Tale) -> None:
    # The last entry is the unknown one; the one before it was answered.
    for words in tale.nodes.values():
        del words[-2:]


def answer_otherwise(tale: Tale) -> None:
    outcomes = np.frombuffer(tale.asked[5].outcomes, OUTCOME).copy()
    outcomes["cum_lots"] += 1
    tale.asked[5].outcomes = outcomes.tobytes()


def answer_with_another_place(tale: Tale) -> None:
    outcomes = np.frombuffer(tale.asked[5].outcomes, OUTCOME).copy()
    outcomes["sequence"] += 1
    tale.asked[5].outcomes = outcomes.tobytes()


def let_a_later_request_come_first(tale: Tale) -> None:
    early, late = tale.asked[3], tale.asked[6]
    assert late.answered_at is not None
    early.at, early.answered_at = late.answered_at + 1, late.answered_at + 2


def leave_an_entry_out(tale: Tale) -> None:
    del tale.nodes[2][6]


def apply_another_entry(tale: Tale) -> None:
    tale.nodes[3][6].entry = tale.nodes[3][7].entry


def apply_an_entry_of_another_term(tale: Tale) -> None:
    tale.nodes[3][6].term = 2


def come_to_another_state(tale: Tale) -> None:
    tale.nodes[2][6].state_hash ^= 1


def come_to_another_outcome(tale: Tale) -> None:
    tale.nodes[2][6].outcomes = tale.nodes[2][7].outcomes


def apply_backwards(tale: Tale) -> None:
    words = tale.nodes[2]
    words.append(replace(words[6]))


def apply_a_request_twice(tale: Tale) -> None:
    """The machine forgot the session: a repeat is given another number, on all nodes alike."""
    for words in tale.nodes.values():
        again, last = words[6], words[-1]
        outcomes = np.frombuffer(again.outcomes, OUTCOME).copy()
        outcomes["sequence"] = last.sequence + 1
        words.append(Applied(last.index + 1, 1, last.sequence + 1, last.state_hash, again.entry, outcomes.tobytes()))


def invent_a_request(tale: Tale) -> None:
    del tale.asked[5]


def change_a_request(tale: Tale) -> None:
    commands = np.frombuffer(tale.asked[5].commands, COMMAND).copy()
    commands["quantity_lots"] += 1
    tale.asked[5].commands = commands.tobytes()


def lead_twice(tale: Tale) -> None:
    tale.leads.append((2, 1))


def take_over_a_state_of_its_own(tale: Tale) -> None:
    tale.restored.append((3, tale.nodes[1][-1].sequence, 7))


@pytest.mark.parametrize(
    ("doctor", "said"),
    [
        (lose_an_acknowledged_one, "acknowledged, in the log"),
        (answer_otherwise, "replayed outcomes"),
        (answer_with_another_place, "replayed outcomes"),
        (let_a_later_request_come_first, "real-time order"),
        (leave_an_entry_out, "log agreement: node 2 went from log entry .* and left out"),
        (apply_another_entry, "log agreement: node 3"),
        (apply_an_entry_of_another_term, "log agreement: node 3"),
        (come_to_another_state, "one state: .* node 2"),
        (come_to_another_outcome, "one state: .* node 2"),
        (apply_backwards, "in order: node 2"),
        (apply_a_request_twice, "one state"),
        (invent_a_request, "only sent commands"),
        (change_a_request, "only sent commands"),
        (lead_twice, "one leader per term"),
        (take_over_a_state_of_its_own, "one state: node 3 restored"),
    ],
)
def test_whatever_is_wrong_is_a_violation(told: Tale, doctor: Callable[[Tale], None], said: str) -> None:
    tale = copied(told)
    doctor(tale)
    with pytest.raises(Violation, match=said):
        judge(tale.lives(), tale.histories())
