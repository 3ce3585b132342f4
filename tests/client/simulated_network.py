"""Three nodes, one log and a hostile network around one ClientSession, driven by a script of small integers.

Everything a client may meet: elections, leaders that do not know they are none, requests and answers that are lost,
late, repeated or overtaken, push-back, broken connections whose bytes still arrive. What it keeps true is what Raft
keeps true: one log, and an answer only after the command was applied.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from smrx.client.session import ClientSession
from smrx.client.session_states import DropConnection, State
from smrx.wire import frames
from smrx.wire.codes import CommandKind
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND
from tests.client.fake_exchange import FakeExchange

NODES = (1, 2, 3)
SESSION = 77
ACCOUNT = 7

SessionMaker = Callable[[Sequence[str]], ClientSession]


def address(node: int) -> str:
    return f"tcp://node:{node}"


def orders(count: int, first: int, malformed: int = 0) -> NDArray[np.void]:
    """Commands that can be told apart, every `malformed`th of a kind that does not exist."""
    commands = np.zeros(count, COMMAND)
    commands["kind"] = CommandKind.PLACE
    commands["account"] = ACCOUNT
    commands["client_order_id"] = np.arange(first, first + count)
    if malformed:
        commands["kind"][::malformed] = 200
    return commands


class Node:
    """One node as the client sees it. `term` is the last in which it believes to lead, 0 if it does not."""

    def __init__(self) -> None:
        self.inbox: deque[bytes] = deque()
        self.ghosts: deque[bytes] = deque()
        self.outbox: deque[bytes] = deque()
        self.leads_term = 0
        self.accepted: deque[tuple[int, NDArray[np.void]]] = deque()


class Network:
    """The world; `step(n)` lets one thing happen."""

    def __init__(self, session: ClientSession, remembers: bool = True) -> None:
        self.now = 100.0
        self.session = session
        self.exchange = FakeExchange((ACCOUNT,), remembers)
        self.nodes = {node: Node() for node in NODES}
        self.leader: int | None = None
        self.term = 0
        self.submitted: list[bytes] = []
        self.outcomes: list[bytes] = []
        session.start(self.now)
        self.carry()

    # What may happen

    def step(self, choice: int) -> None:
        """One event, chosen by a number."""
        events = (
            *(self.flow,) * 10, *(self.submit,) * 8, *(self.deliver,) * 8, *(self.commit,) * 5, *(self.answer,) * 5,
            *(self.wait,) * 3, *(self.overload,) * 2, self.elect,
            self.elect, self.depose_silently, self.depose_loudly, self.lose_requests, self.lose_answers, self.repeat,
            self.disconnect, self.haunt, self.wait_long,
        )  # fmt: skip
        events[choice % len(events)](choice // len(events))
        self.carry()

    def submit(self, choice: int) -> None:
        count = min(1 + choice % 5, self.session.free_slots)
        if not count or self.session.state in (State.FAILED, State.CLOSED):
            return
        commands = orders(count, len(self.submitted) + 1, malformed=(0, 0, 1, 2)[choice % 4])
        first = self.session.submit(commands, self.now)
        assert first == len(self.submitted) + 1, "request ids must go on without a hole"
        commands["session_id"] = SESSION
        commands["request_id"] = np.arange(first, first + count)
        self.submitted += [commands[i : i + 1].tobytes() for i in range(count)]

    def flow(self, choice: int) -> None:
        """A good moment: a few messages go all the way."""
        for _ in range(1 + choice % 12):
            for event in (self.deliver, self.commit, self.answer):
                event(choice)
                self.carry()
        self._pass(0.02)

    def deliver(self, choice: int) -> None:
        """A node takes one message."""
        node_id = self._pick(choice, lambda node: bool(node.inbox))
        if node_id is not None:
            self._take(node_id, self.nodes[node_id].inbox.popleft())

    def haunt(self, choice: int) -> None:
        """A message of a connection that is long gone arrives."""
        node_id = self._pick(choice, lambda node: bool(node.ghosts))
        if node_id is not None:
            self._take(node_id, self.nodes[node_id].ghosts.popleft())

    def _take(self, node_id: int, data: bytes) -> None:
        node = self.nodes[node_id]
        frame = frames.decode(data)
        if frame.kind is FrameKind.PING:
            node.outbox.append(frames.encode_body(FrameKind.PONG, self._hint(node_id), frame.correlation))
        elif node.leads_term:
            node.accepted.append((frame.correlation, frames.records(frame).copy()))
        else:
            node.outbox.append(frames.encode_body(FrameKind.NOT_LEADER, self._hint(node_id), frame.correlation))

    def overload(self, choice: int) -> None:
        """A leader refuses a frame, and may take the next."""
        node_id = self._pick(choice, lambda node: bool(node.inbox) and node.leads_term > 0)
        if node_id is None:
            return
        frame = frames.decode(self.nodes[node_id].inbox.popleft())
        body = ErrorBody(int(ErrorCode.OVERLOADED), "later")
        self.nodes[node_id].outbox.append(frames.encode_body(FrameKind.ERROR, body, frame.correlation))

    def commit(self, choice: int) -> None:
        """The leader's oldest entry is committed and applied; now it may be answered."""
        if self.leader is None or not self.nodes[self.leader].accepted:
            return
        correlation, commands = self.nodes[self.leader].accepted.popleft()
        outcomes = self.exchange.apply(commands)
        self.nodes[self.leader].outbox.append(frames.encode_outcomes(outcomes, correlation))

    def answer(self, choice: int) -> None:
        """The client takes one message."""
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
        """A node becomes leader; of what the last one accepted, a prefix is in its log and gets committed first."""
        old = self.leader
        self.term += 1
        self.leader = NODES[choice % len(NODES)]
        if old is not None:
            inherited = choice // len(NODES) % (1 + len(self.nodes[old].accepted))
            for _ in range(inherited):
                self.exchange.apply(self.nodes[old].accepted.popleft()[1])
        self.nodes[self.leader].accepted.clear()
        self.nodes[self.leader].leads_term = self.term

    def depose_silently(self, choice: int) -> None:
        """The leader is cut off and does not know it: it takes requests that are never committed."""
        self.leader = None

    def depose_loudly(self, choice: int) -> None:
        """Every leader of old learns that it is none, and tells those who wait."""
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
        """The connection breaks: answers are lost, requests may still arrive by the old one."""
        node = self.nodes[NODES[choice % 3]]
        node.ghosts += node.inbox
        node.inbox.clear()
        node.outbox.clear()
        self.session.disconnected(address(NODES[choice % 3]), self.now)

    # The world

    def _hint(self, node_id: int) -> LeaderHint:
        if self.nodes[node_id].leads_term:
            return LeaderHint(node_id, address(node_id), node_id, self.nodes[node_id].leads_term)
        leader = self.leader
        return LeaderHint(leader, None if leader is None else address(leader), node_id, self.term)

    def _pick(self, choice: int, able: Callable[[Node], bool]) -> int | None:
        found = [node_id for node_id, node in self.nodes.items() if able(node)]
        return found[choice % len(found)] if found else None

    def carry(self) -> None:
        """Do what the session asks for and keep what it found out."""
        for action in self.session.take_actions():
            node = self.nodes[int(action.address.rsplit(":", 1)[1])]
            if isinstance(action, DropConnection):
                # Closing a socket does not call back the bytes that left.
                node.ghosts += node.inbox
                node.inbox.clear()
                node.outbox.clear()
            else:
                node.inbox.append(action.data)
        for outcomes in self.session.take_outcomes():
            self.outcomes += [outcomes[i : i + 1].tobytes() for i in range(len(outcomes))]

    def heal(self, turns: int = 4000) -> None:
        """From now on nothing goes wrong; run until everything is answered."""
        self.elect(2)
        self.depose_loudly(0)
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
                    self.carry()
            if not busy:
                deadline = self.session.deadline
                assert deadline is not None, "nothing under way and nothing to wait for, but not everything is answered"
                self._pass(max(0.0, deadline - self.now))
                self.carry()
        raise AssertionError(f"not answered in {turns} turns of a healthy network: {self.session.describe()}")

    def check(self) -> None:
        """Every request was applied exactly once, in order, and was answered with its own first outcome."""
        assert self.session.failure is None, self.session.failure
        applied = [body for session, _, body in self.exchange.ledger if session == SESSION]
        assert applied == self.submitted
        assert len(self.outcomes) == len(self.submitted)
        for request, told in enumerate(self.outcomes, 1):
            if np.frombuffer(told, frames.OUTCOME)["sequence"][0]:
                assert told == self.exchange.first_outcomes[SESSION, request]

    def close(self) -> None:
        """End the session; then whatever was still under way anywhere arrives, and must change nothing."""
        self.session.close(self.now)
        self.carry()
        for node_id in NODES:
            for _ in range(40):
                self.flow(11)
            node = self.nodes[node_id]
            node.inbox += node.ghosts
            node.ghosts.clear()
            self.elect(NODES.index(node_id))
        for _ in range(40):
            self.flow(11)
        applied = [np.frombuffer(body, COMMAND) for session, _, body in self.exchange.ledger if session == SESSION]
        orders_applied = [command.tobytes() for command in applied if command["kind"][0] != CommandKind.CLOSE_SESSION]
        assert orders_applied == self.submitted, "a late copy was applied again after the session was closed"
        assert self.session.state is State.CLOSED


def run(make: SessionMaker, script: Sequence[int], remembers: bool = True) -> Network:
    """Drive a session through a script, heal, and check."""
    network = Network(make([address(node) for node in NODES[:2]]), remembers)
    for choice in script:
        network.step(choice)
    network.heal()
    network.check()
    network.close()
    return network
