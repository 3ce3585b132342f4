"""The checker compares repeated requests from version 2 of the rules on, and follows sessions that end by silence."""

from collections.abc import Callable
from typing import Any

import pytest

from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.sim.checker import Checker, Violation
from smrx.wire import batches
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, Side
from tests import commands

SESSION = 77
SECOND_NS = 1_000_000_000
SWITCH = commands.command(CommandKind.SET_VERSION, version=2)


class Log:
    """A checker and its log: each entry is one command at a time in seconds."""

    def __init__(self, new_state: Callable[[], ReplicatedState]) -> None:
        self.checker = Checker(new_state)
        self.index = 1

    def add(self, sent: commands.Commands, seconds: int = 0) -> None:
        self.index += 1
        entry = batches.encode(sent.records.tobytes(), seconds * SECOND_NS, 0, 0, sent.details.tobytes())
        self.checker.before_apply(1, self.index, 1, entry)

    def request(self, number: int, price: int, seconds: int = 0, *, again: bool = False) -> None:
        """Add an order, which its client sent unless it is the repetition of another one."""
        order = commands.place((SESSION, number), 0, Side.BUY, 1, price, client_order_id="an order of no instrument")
        if not again:
            self.checker.request_sent(SESSION, number, order.pieces()[0])
        self.add(order, seconds)

    def open(self, seconds: int = 0) -> None:
        self.add(commands.open_session(SESSION, 0, answers=16), seconds)


class AnswersOtherRequests(ReplicatedState):
    """Gives the first answer to a repetition with other content."""

    def take_applied(self) -> list[Applied]:
        found = super().take_applied()
        for entry in found:
            if entry.outcomes["reason"][0] == Reason.REQUEST_MISMATCH:
                entry.outcomes[:] = self.first_answer
            else:
                self.first_answer = entry.outcomes
        return found

    first_answer: Any = None


class RefusesTheSameRequest(ReplicatedState):
    """Refuses a repetition of the same request."""

    def take_applied(self) -> list[Applied]:
        found = super().take_applied()
        for entry in found:
            if entry.log_index == 5:
                entry.outcomes["status"], entry.outcomes["reason"] = OutcomeStatus.REJECTED, Reason.REQUEST_MISMATCH
                entry.outcomes["sequence"] = 0
        return found


def repeat(new_state: Callable[[], ReplicatedState], price: int) -> None:
    log = Log(new_state)
    log.add(SWITCH)
    log.open()
    log.request(1, 10)
    log.request(1, price, again=True)


@pytest.mark.parametrize("price", [10, 11])
def test_repeats_pass(price: int) -> None:
    repeat(lambda: ReplicatedState(64), price)


@pytest.mark.parametrize(
    ("state", "price", "message"),
    [
        (AnswersOtherRequests, 11, "same request.*another command, and not refused"),
        (RefusesTheSameRequest, 10, "same request.*the same command, and refused"),
    ],
)
def test_wrong_answer_to_a_repeat_is_found(state: type[ReplicatedState], price: int, message: str) -> None:
    with pytest.raises(Violation, match=message):
        repeat(lambda: state(64), price)


def test_first_rules_compare_nothing() -> None:
    """Neither before the switch nor, for requests from before it, after it."""
    log = Log(lambda: ReplicatedState(64))
    log.open()
    log.request(1, 10)
    log.request(1, 11, again=True)
    log.add(SWITCH)
    log.request(1, 12, again=True)
    log.request(2, 10)
    log.request(2, 11, again=True)


def silence(new_state: Callable[[], ReplicatedState]) -> None:
    """Let a session end by silence, and open another one with the same id."""
    log = Log(new_state)
    log.open()
    log.request(1, 10)
    log.add(commands.command(CommandKind.TICK), 86_399)
    log.add(commands.command(CommandKind.TICK), 86_400)
    log.open(86_401)
    log.request(1, 12, 86_402)


def test_session_that_ended_by_silence_begins_anew() -> None:
    silence(lambda: ReplicatedState(64))


class HidesTheEnd(ReplicatedState):
    """Reports no end of a session, as an exchange that forgets requests by itself."""

    def take_applied(self) -> list[Applied]:
        return [entry._replace(events=entry.events[:0]) for entry in super().take_applied()]


class EndsAfterAnotherRequest(ReplicatedState):
    """Reports another last request of a session that ends, as an exchange that lost some."""

    def take_applied(self) -> list[Applied]:
        found = super().take_applied()
        for entry in found:
            entry.events["request_id"] += 1
        return found


@pytest.mark.parametrize(
    ("state", "message"),
    [(HidesTheEnd, "exactly once"), (EndsAfterAnotherRequest, "after request 2; its last .* is 1")],
)
def test_wrong_end_of_a_session_is_found(state: type[ReplicatedState], message: str) -> None:
    with pytest.raises(Violation, match=message):
        silence(lambda: state(64))
