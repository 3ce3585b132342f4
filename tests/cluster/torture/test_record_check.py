"""The check of a run's records accepts a correct run and finds each kind of error."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from cluster.torture.applied_entries_pipe import NodeRecordKind
from cluster.torture.cluster_under_test import NodeIncarnation
from cluster.torture.record_check import check_history
from cluster.torture.record_pipe import RecordStream, encode_record
from cluster.torture.workload_client import ClientRecordKind, decode_requests, encode_requests
from smrx.node.replicated_state import ReplicatedState
from smrx.sim import workload
from smrx.sim.checker import Violation
from smrx.wire import batches
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, OUTCOME

VENUE, ALICE, BOB = 11, 22, 33
ORDERS = 12


@dataclass
class Applied:
    """The record of one node about one log entry."""

    index: int
    term: int
    sequence: int
    state_hash: int
    entry: bytes
    outcomes: bytes


@dataclass
class Sent:
    """The record of a client about requests sent together and their outcomes; answered_at is None without outcomes."""

    at: int
    session: int
    first: int
    commands: bytes
    answered_at: int | None = None
    outcomes: bytes = b""


@dataclass
class Records:
    """The records of three nodes and three clients."""

    nodes: dict[int, list[Applied]] = field(default_factory=lambda: {1: [], 2: [], 3: []})
    asked: list[Sent] = field(default_factory=list)
    leads: list[tuple[int, int]] = field(default_factory=lambda: [(1, 1)])
    restored: list[tuple[int, int, int]] = field(default_factory=list)

    def incarnations(self) -> list[NodeIncarnation]:
        found = []
        for node_id, entries in self.nodes.items():
            stream = RecordStream()
            for leader, term in self.leads:
                if leader == node_id:
                    stream.data += encode_record(NodeRecordKind.LEADS, term)
            for entry_record in entries:
                head = entry_record.state_hash.to_bytes(8, "little") + len(entry_record.entry).to_bytes(8, "little")
                body = head + entry_record.entry + entry_record.outcomes
                stream.data += encode_record(
                    NodeRecordKind.APPLIED, entry_record.index, entry_record.term, entry_record.sequence, body
                )
            for restorer, sequence, state_hash in self.restored:
                if restorer == node_id:
                    stream.data += encode_record(NodeRecordKind.RESTORED, sequence, state_hash)
            found.append(NodeIncarnation(node_id, stream))
        return found

    def client_streams(self) -> list[RecordStream]:
        streams = {session: RecordStream() for session in (VENUE, ALICE, BOB)}
        for asked in self.asked:
            data = streams[asked.session].data
            data += encode_record(ClientRecordKind.REQUESTS, asked.at, asked.session, asked.first, asked.commands)
            if asked.answered_at is not None:
                data += encode_record(ClientRecordKind.OUTCOMES, asked.answered_at, asked.session, body=asked.outcomes)
        return list(streams.values())


class Exchange:
    """Makes the records of a correct run: applies commands to a real state, the same on all nodes."""

    def __init__(self) -> None:
        self.records = Records()
        self.now = 0
        self._state = ReplicatedState(1024)
        self._index = 1
        self._last = dict.fromkeys((VENUE, ALICE, BOB), 0)

    def open(self, session: int, account: int) -> None:
        command = np.zeros(1, COMMAND)
        command["kind"], command["session_id"], command["account"] = CommandKind.OPEN_SESSION, session, account
        self._apply(CommandList(command))

    def send(self, session: int, commands: CommandList, *, apply: bool = True, answer: bool = True) -> None:
        rows = commands.records.copy()
        first = self._last[session] + 1
        self._last[session] += len(rows)
        rows["session_id"], rows["request_id"] = session, np.arange(first, first + len(rows))
        sent = CommandList(rows, commands.details)
        self.now += 1
        asked = Sent(self.now, session, first, encode_requests(sent))
        self.records.asked.append(asked)
        if apply:
            outcomes = self._apply(sent)
            if answer:
                self.now += 1
                asked.answered_at, asked.outcomes = self.now, outcomes

    def _apply(self, commands: CommandList) -> bytes:
        self._index += 1
        details = commands.details.tobytes()
        entry = batches.encode(commands.records.tobytes(), 1_000 + self._index, *self._state.position(), details)
        self._state.apply(self._index, 1, entry)
        (applied,) = self._state.take_applied()
        outcomes: bytes = applied.outcomes.tobytes()
        for entries in self.records.nodes.values():
            entries.append(Applied(self._index, 1, applied.sequence, applied.state_hash, entry, outcomes))
        return outcomes


@pytest.fixture(scope="module")
def correct() -> Records:
    """Orders of two clients in turn; the last two are unanswered, one of them applied."""
    exchange = Exchange()
    exchange.open(VENUE, 0)
    exchange.send(VENUE, workload.setup([1, 2]))
    exchange.open(ALICE, 1)
    exchange.open(BOB, 2)
    chance = random.Random(3)
    for number in range(ORDERS):
        session, account = ((ALICE, 1), (BOB, 2))[number % 2]
        exchange.send(session, workload.orders(chance, account, 1))
    exchange.send(ALICE, workload.orders(chance, 1, 1), answer=False)
    exchange.send(BOB, workload.orders(chance, 2, 1), apply=False)
    return exchange.records


def copied(records: Records) -> Records:
    return Records(
        {node: [replace(entry_record) for entry_record in entries] for node, entries in records.nodes.items()},
        [replace(asked) for asked in records.asked],
        list(records.leads),
        list(records.restored),
    )


def test_correct_run_passes(correct: Records) -> None:
    records = copied(correct)
    # A killed node has recorded less than the others; a restarted one records some entries again.
    del records.nodes[3][-4:]
    incarnations = records.incarnations() + Records(nodes={3: records.nodes[1][5:]}, leads=[(3, 2)]).incarnations()
    checker, figures = check_history(incarnations, records.client_streams())
    setup = len(workload.setup([1, 2]).records)
    assert (figures.answered, figures.requests) == (setup + ORDERS, setup + ORDERS + 2)
    assert (figures.unanswered, figures.unanswered_applied) == (2, 1)
    assert (figures.terms_led, figures.incarnations, figures.entries) == (2, 4, len(records.nodes[1]))
    assert figures.longest_gap_s == 2e-9  # Between two outcomes there is always one request.
    last = records.nodes[1][-1]
    digest = ReplicatedState(1024)
    for entry_record in records.nodes[1]:
        digest.apply(entry_record.index, entry_record.term, entry_record.entry)
    # An entry without commands may follow.
    for index in (last.index, last.index + 1):
        checker.check_position(1, index, (last.sequence, last.state_hash), digest.log_digest)
    with pytest.raises(Violation, match=r"one state: after entry .* node 2 is at command"):
        checker.check_position(2, last.index, (last.sequence, last.state_hash ^ 1), digest.log_digest)
    with pytest.raises(Violation, match=r"one state: after entry .* node 2 is at command"):
        checker.check_position(2, last.index - 1, (last.sequence, last.state_hash), digest.log_digest)
    with pytest.raises(Violation, match="log agreement: the log digest of node 3"):
        checker.check_position(3, last.index, (last.sequence, last.state_hash), digest.log_digest ^ 1)


def lose_an_acknowledged_request(records: Records) -> None:
    # The last entry is unanswered; the one before it was answered.
    for entries in records.nodes.values():
        del entries[-2:]


def change_an_outcome(records: Records) -> None:
    outcomes = np.frombuffer(records.asked[5].outcomes, OUTCOME).copy()
    outcomes["cum_lots"] += 1
    records.asked[5].outcomes = outcomes.tobytes()


def change_the_sequence_of_an_outcome(records: Records) -> None:
    outcomes = np.frombuffer(records.asked[5].outcomes, OUTCOME).copy()
    outcomes["sequence"] += 1
    records.asked[5].outcomes = outcomes.tobytes()


def apply_a_later_request_first(records: Records) -> None:
    early, late = records.asked[3], records.asked[6]
    assert late.answered_at is not None
    early.at, early.answered_at = late.answered_at + 1, late.answered_at + 2


def skip_an_entry(records: Records) -> None:
    del records.nodes[2][6]


def apply_another_entry(records: Records) -> None:
    records.nodes[3][6].entry = records.nodes[3][7].entry


def apply_an_entry_of_another_term(records: Records) -> None:
    records.nodes[3][6].term = 2


def reach_another_state(records: Records) -> None:
    records.nodes[2][6].state_hash ^= 1


def reach_another_outcome(records: Records) -> None:
    records.nodes[2][6].outcomes = records.nodes[2][7].outcomes


def apply_an_entry_again(records: Records) -> None:
    entries = records.nodes[2]
    entries.append(replace(entries[6]))


def apply_a_request_twice(records: Records) -> None:
    """The state lost the session: a repeated request gets another sequence, the same on all nodes."""
    for entries in records.nodes.values():
        again, last = entries[6], entries[-1]
        outcomes = np.frombuffer(again.outcomes, OUTCOME).copy()
        outcomes["sequence"] = last.sequence + 1
        entries.append(Applied(last.index + 1, 1, last.sequence + 1, last.state_hash, again.entry, outcomes.tobytes()))


def invent_a_request(records: Records) -> None:
    del records.asked[5]


def change_a_request(records: Records) -> None:
    rows, details = decode_requests(records.asked[5].commands)
    rows = rows.copy()
    rows["quantity_lots"] += 1
    records.asked[5].commands = encode_requests(CommandList(rows, details))


def change_details_of_a_request(records: Records) -> None:
    asked = next(asked for asked in records.asked[1:] if len(decode_requests(asked.commands).details))
    rows, details = decode_requests(asked.commands)
    changed = bytearray(details.tobytes())
    changed[-1] ^= 1
    asked.commands = encode_requests(CommandList(rows, np.frombuffer(bytes(changed), DETAILS)))


def lead_one_term_twice(records: Records) -> None:
    records.leads.append((2, 1))


def restore_an_unknown_state(records: Records) -> None:
    records.restored.append((3, records.nodes[1][-1].sequence, 7))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lose_an_acknowledged_request, "acknowledged, in the log"),
        (change_an_outcome, "replayed outcomes"),
        (change_the_sequence_of_an_outcome, "replayed outcomes"),
        (apply_a_later_request_first, "real-time order"),
        (skip_an_entry, "log agreement: node 2 went from log entry .* and skipped"),
        (apply_another_entry, "log agreement: node 3"),
        (apply_an_entry_of_another_term, "log agreement: node 3"),
        (reach_another_state, "one state: .* node 2"),
        (reach_another_outcome, "one state: .* node 2"),
        (apply_an_entry_again, "in order: node 2"),
        (apply_a_request_twice, "one state"),
        (invent_a_request, "only sent commands"),
        (change_a_request, "only sent commands"),
        (change_details_of_a_request, "only sent commands"),
        (lead_one_term_twice, "one leader per term"),
        (restore_an_unknown_state, "one state: node 3 restored"),
    ],
)
def test_each_error_is_a_violation(correct: Records, tamper: Callable[[Records], None], message: str) -> None:
    records = copied(correct)
    tamper(records)
    with pytest.raises(Violation, match=message):
        check_history(records.incarnations(), records.client_streams())
