"""Simulate three nodes, one log and a faulty network around a ClientSession, driven by a script of small integers.

Includes elections, former leaders that still accept requests, messages that are lost, delayed, repeated or reordered,
OVERLOADED errors, and broken connections whose bytes still arrive. It keeps what Raft guarantees: one log, and a reply
only after the command was applied.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from smrx.client.session import ClientSession
from smrx.client.session_states import DropConnection, State
from smrx.wire import frames
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, DETAILS, ORDER_DETAILS
from tests.client.fake_exchange import FakeExchange

NODES = (1, 2, 3)
SESSION = 77
ACCOUNT = 7

SessionMaker = Callable[[Sequence[str]], ClientSession]


def address(node: int) -> str:
    return f"tcp://node:{node}"


def orders(count: int, first: int, malformed: int = 0) -> NDArray[np.void]:
    """Return distinguishable commands; every `malformed`th has an unknown kind."""
    commands = np.zeros(count, COMMAND)
    commands["kind"] = CommandKind.PLACE
    commands["account"] = ACCOUNT
    commands["client_order_id"] = np.arange(first, first + count)
    if malformed:
        commands["kind"][::malformed] = 200
    return commands


def with_long_ids(commands: NDArray[np.void], every: int) -> CommandList:
    """Return the commands with a longer client order id in the details of every `every`th; 0 for none."""
    if not every:
        return CommandList(commands)
    named = commands["client_order_id"][::every]
    details = np.zeros(len(named), ORDER_DETAILS)
    details["client_order_id"] = [f"client order {number}".encode() for number in named]
    commands["details"][::every] = np.arange(1, len(named) + 1)
    return CommandList(commands, details.view(DETAILS))


class Node:
    """One node. `leads_term` is the term in which it considers itself the leader, 0 if it does not."""

    def __init__(self) -> None:
        self.inbox: deque[bytes] = deque()
        self.stale_inbox: deque[bytes] = deque()
        self.outbox: deque[bytes] = deque()
        self.leads_term = 0
        self.accepted: deque[tuple[int, CommandList]] = deque()


class Network:
    """The simulation; step(n) executes one event."""

    def __init__(
        self,
        session: ClientSession,
        stores_outcomes: bool = True,
        exchange_class: type[FakeExchange] = FakeExchange,
    ) -> None:
        self.now = 100.0
        self.session = session
        self.exchange = exchange_class((ACCOUNT,), stores_outcomes)
        self.nodes = {node: Node() for node in NODES}
        self.leader: int | None = None
        self.term = 0
        self.submitted: list[bytes] = []
        self.outcomes: list[bytes] = []
        session.start(self.now)
        self.execute_actions()

    # Events

    def step(self, choice: int) -> None:
        """Execute the event that a number selects."""
        events = (
            *(self.flow,) * 10, *(self.submit,) * 8, *(self.deliver,) * 8, *(self.commit,) * 5, *(self.answer,) * 5,
            *(self.wait,) * 3, *(self.overload,) * 2, self.elect,
            self.elect, self.partition_leader, self.depose_former_leaders, self.lose_requests, self.lose_answers,
            self.repeat, self.disconnect, self.deliver_stale, self.wait_long,
        )  # fmt: skip
        events[choice % len(events)](choice // len(events))
        self.execute_actions()

    def submit(self, choice: int) -> None:
        count = min(1 + choice % 5, self.session.free_slots)
        if not count or self.session.state in (State.FAILED, State.CLOSED):
            return
        rows = orders(count, len(self.submitted) + 1, malformed=(0, 0, 1, 2)[choice % 4])
        commands, details = with_long_ids(rows, every=(0, 2, 0, 1, 3)[choice % 5])
        first = self.session.submit(commands, self.now, details)
        assert first == len(self.submitted) + 1, "request ids must be consecutive"
        commands["session_id"] = SESSION
        commands["request_id"] = np.arange(first, first + count)
        self.submitted += CommandList(commands, details).pieces()

    def flow(self, choice: int) -> None:
        """Deliver, commit and answer a few messages without faults."""
        for _ in range(1 + choice % 12):
            for event in (self.deliver, self.commit, self.answer):
                event(choice)
                self.execute_actions()
        self._pass(0.02)

    def deliver(self, choice: int) -> None:
        """A node receives one message."""
        node_id = self._pick(choice, lambda node: bool(node.inbox))
        if node_id is not None:
            self._take(node_id, self.nodes[node_id].inbox.popleft())

    def deliver_stale(self, choice: int) -> None:
        """A message of a closed connection arrives."""
        node_id = self._pick(choice, lambda node: bool(node.stale_inbox))
        if node_id is not None:
            self._take(node_id, self.nodes[node_id].stale_inbox.popleft())

    def _take(self, node_id: int, data: bytes) -> None:
        node = self.nodes[node_id]
        frame = frames.decode(data)
        if frame.kind is FrameKind.PING:
            node.outbox.append(frames.encode_body(FrameKind.PONG, self._hint(node_id), frame.correlation))
        elif node.leads_term:
            node.accepted.append((frame.correlation, frames.command_list(frame)))
        else:
            node.outbox.append(frames.encode_body(FrameKind.NOT_LEADER, self._hint(node_id), frame.correlation))

    def overload(self, choice: int) -> None:
        """A leader rejects a frame as OVERLOADED; it may accept the next."""
        node_id = self._pick(choice, lambda node: bool(node.inbox) and node.leads_term > 0)
        if node_id is None:
            return
        frame = frames.decode(self.nodes[node_id].inbox.popleft())
        body = ErrorBody(int(ErrorCode.OVERLOADED), "later")
        self.nodes[node_id].outbox.append(frames.encode_body(FrameKind.ERROR, body, frame.correlation))

    def commit(self, choice: int) -> None:
        """The leader's oldest entry is committed, applied and answered."""
        if self.leader is None or not self.nodes[self.leader].accepted:
            return
        correlation, commands = self.nodes[self.leader].accepted.popleft()
        outcomes = self.exchange.apply(commands)
        self.nodes[self.leader].outbox.append(frames.encode_outcomes(outcomes, correlation))

    def answer(self, choice: int) -> None:
        """The client receives one message."""
        node_id = self._pick(choice, lambda node: bool(node.outbox))
        if node_id is not None:
            self.session.receive(address(node_id), self.nodes[node_id].outbox.popleft(), self.now)

    def repeat(self, choice: int) -> None:
        node_id = self._pick(choice, lambda node: bool(node.outbox))
        if node_id is not None:
            self.session.receive(address(node_id), self.nodes[node_id].outbox[0], self.now)

    def wait(self, choice: int) -> None:
        self._pass(0.003 * (1 + choice % 20))

    def wait_long(self, choice: int) -> None:
        self._pass(0.5 * (1 + choice % 20))

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.session.tick(self.now)

    def elect(self, choice: int) -> None:
        """A node becomes leader; its log has a prefix of what the last leader accepted, which is committed first."""
        old = self.leader
        self.term += 1
        self.leader = NODES[choice % len(NODES)]
        if old is not None:
            inherited = choice // len(NODES) % (1 + len(self.nodes[old].accepted))
            for _ in range(inherited):
                self.exchange.apply(self.nodes[old].accepted.popleft()[1])
        self.nodes[self.leader].accepted.clear()
        self.nodes[self.leader].leads_term = self.term

    def partition_leader(self, choice: int) -> None:
        """The leader is partitioned: it accepts requests that are never committed."""
        self.leader = None

    def depose_former_leaders(self, choice: int) -> None:
        """Every former leader steps down and sends NOT_LEADER for the requests it accepted."""
        for node_id, node in self.nodes.items():
            if node.leads_term and node_id != self.leader:
                node.leads_term = 0
                for correlation, _ in node.accepted:
                    node.outbox.append(frames.encode_body(FrameKind.NOT_LEADER, self._hint(node_id), correlation))
                node.accepted.clear()

    def lose_requests(self, choice: int) -> None:
        self.nodes[NODES[choice % 3]].inbox.clear()

    def lose_answers(self, choice: int) -> None:
        self.nodes[NODES[choice % 3]].outbox.clear()

    def disconnect(self, choice: int) -> None:
        """A connection breaks: replies are lost, requests may still arrive through it."""
        node = self.nodes[NODES[choice % 3]]
        node.stale_inbox += node.inbox
        node.inbox.clear()
        node.outbox.clear()
        self.session.disconnected(address(NODES[choice % 3]), self.now)

    # Internals

    def _hint(self, node_id: int) -> LeaderHint:
        if self.nodes[node_id].leads_term:
            return LeaderHint(node_id, address(node_id), node_id, self.nodes[node_id].leads_term)
        leader = self.leader
        return LeaderHint(leader, None if leader is None else address(leader), node_id, self.term)

    def _pick(self, choice: int, able: Callable[[Node], bool]) -> int | None:
        found = [node_id for node_id, node in self.nodes.items() if able(node)]
        return found[choice % len(found)] if found else None

    def execute_actions(self) -> None:
        """Carry out the session's actions and store its outcomes."""
        for action in self.session.take_actions():
            node = self.nodes[int(action.address.rsplit(":", 1)[1])]
            if isinstance(action, DropConnection):
                # Closing a socket does not recall the bytes already sent.
                node.stale_inbox += node.inbox
                node.inbox.clear()
                node.outbox.clear()
            else:
                node.inbox.append(action.data)
        for outcomes in self.session.take_outcomes():
            self.outcomes += [outcomes[i : i + 1].tobytes() for i in range(len(outcomes))]

    def heal(self, turns: int = 4000) -> None:
        """Run without faults until everything is answered."""
        self.elect(2)
        self.depose_former_leaders(0)
        for _ in range(turns):
            if len(self.outcomes) == len(self.submitted) or self.session.state is State.FAILED:
                return
            busy = False
            for event, able in (
                (self.deliver, lambda: any(node.inbox for node in self.nodes.values())),
                (self.commit, lambda: bool(self.leader and self.nodes[self.leader].accepted)),
                (self.answer, lambda: any(node.outbox for node in self.nodes.values())),
            ):
                if able():
                    busy = True
                    event(0)
                    self.execute_actions()
            if not busy:
                deadline = self.session.deadline
                assert deadline is not None, "nothing is in transit or due, but requests are unanswered"
                self._pass(max(0.0, deadline - self.now))
                self.execute_actions()
        raise AssertionError(f"not answered in {turns} turns of a healthy network: {self.session.describe()}")

    def check(self) -> None:
        """Check that each request was applied exactly once, in order, and answered with its first outcome."""
        assert self.session.failure is None, self.session.failure
        applied = [body for session, _, body in self.exchange.ledger if session == SESSION]
        assert applied == self.submitted
        assert len(self.outcomes) == len(self.submitted)
        for request, outcome in enumerate(self.outcomes, 1):
            if np.frombuffer(outcome, frames.OUTCOME)["sequence"][0]:
                assert outcome == self.exchange.first_outcomes[SESSION, request]

    def close(self) -> None:
        """End the session; then deliver everything that is still in transit, which must change nothing."""
        self.session.close(self.now)
        self.execute_actions()
        for node_id in NODES:
            for _ in range(40):
                self.flow(11)
            node = self.nodes[node_id]
            node.inbox += node.stale_inbox
            node.stale_inbox.clear()
            self.elect(NODES.index(node_id))
        for _ in range(40):
            self.flow(11)
        applied = [piece for session, _, piece in self.exchange.ledger if session == SESSION]
        orders_applied = [piece for piece in applied if piece[0] != CommandKind.CLOSE_SESSION]
        assert orders_applied == self.submitted, "a late copy was applied again after the session was closed"
        assert self.session.state is State.CLOSED


def run(make: SessionMaker, script: Sequence[int], stores_outcomes: bool = True) -> Network:
    """Drive a session through a script, then without faults until all is answered; check."""
    network = Network(make([address(node) for node in NODES[:2]]), stores_outcomes)
    for choice in script:
        network.step(choice)
    network.heal()
    network.check()
    network.close()
    return network
