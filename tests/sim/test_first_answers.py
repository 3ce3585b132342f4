"""The checker finds a repeat that does not get its first answer, as far as the exchange promised to keep it."""

from collections.abc import Callable

import pytest

from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.sim.checker import Checker, Violation
from smrx.wire import batches
from smrx.wire.codes import OutcomeStatus, Side
from tests import commands

SESSION = 77


class SaysDuplicate(ReplicatedState):
    """A repeat is answered without its outcome, as a node did that had not applied it itself."""

    def take_applied(self) -> list[Applied]:
        found = super().take_applied()
        for entry in found:
            if entry.log_index > 3:
                entry.outcomes["status"], entry.outcomes["sequence"] = OutcomeStatus.DUPLICATE, 0
        return found


class AnswersWithTheOrderOfAnother(ReplicatedState):
    """A repeat is answered with another order id."""

    def take_applied(self) -> list[Applied]:
        found = super().take_applied()
        for entry in found:
            if entry.log_index > 3:
                entry.outcomes["order_id"] += 1
        return found


def run(new_state: Callable[[], ReplicatedState]) -> None:
    """Check a log in which one request is applied, and applied once more."""
    checker = Checker(new_state)
    order = commands.place((SESSION, 1), 0, Side.BUY, 1, 10, client_order_id="an order of no instrument")
    checker.request_sent(SESSION, 1, order.pieces()[0])
    for index, sent in enumerate((commands.open_session(SESSION, 0, answers=16), order, order), 2):
        details = sent.details.tobytes()
        checker.before_apply(1, index, 1, batches.encode(sent.records.tobytes(), index, 0, 0, details))


def test_repeat_with_its_first_answer_passes() -> None:
    run(lambda: ReplicatedState(64))


@pytest.mark.parametrize(
    ("state", "message"), [(SaysDuplicate, "first answers"), (AnswersWithTheOrderOfAnother, "exactly once")]
)
def test_repeat_with_another_answer_is_found(state: type[ReplicatedState], message: str) -> None:
    with pytest.raises(Violation, match=message):
        run(lambda: state(64))
