"""Ids of sessions, and outcomes that cannot be those of the requests."""

import numpy as np
import pytest

from smrx.client.outcome_checks import first_mismatch
from smrx.client.session import ClientSession
from smrx.client.session_states import Send, State
from smrx.wire import frames
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from smrx.wire.frames import FrameKind, LeaderHint
from smrx.wire.records import COMMAND, OUTCOME
from tests.client.simulated_network import ACCOUNT, orders

NODE = "tcp://a:1"
#: What the random source returns after the first id.
NEXT_IDS = [101, 102, 103]


class Client:
    """A session that is connected under credential 5."""

    def __init__(self, *, has_source: bool = True) -> None:
        self.now = 10.0
        self.ids = iter(NEXT_IDS)
        source = (lambda: next(self.ids)) if has_source else None
        self.session = ClientSession(100, ACCOUNT, [NODE], window=16, frame_commands=4, new_id=source)
        self.session.start(self.now)
        self.session.submit(orders(2, 1), self.now)
        hint = LeaderHint(1, None, 1, 1, credential=5)
        self.session.receive(NODE, frames.encode_body(FrameKind.PONG, hint, 1), self.now)

    def sent(self) -> np.ndarray:
        """Return the commands of the last frame sent."""
        *_, last = [frames.decode(action.data) for action in self.session.take_actions() if isinstance(action, Send)]
        return frames.records(last).copy()

    def answer(self, sent: np.ndarray, **fields: int) -> None:
        found = np.zeros(len(sent), OUTCOME)
        found["session_id"], found["request_id"] = sent["session_id"], sent["request_id"]
        found["status"], found["sequence"] = OutcomeStatus.ACCEPTED, 50 + sent["request_id"]
        for name, value in fields.items():
            found[name] = value
        data = frames.encode_outcomes(found, self.session.attempts << 32 | 1)
        self.session.receive(NODE, data, self.now)

    def tick(self) -> None:
        assert self.session.deadline is not None
        self.now = max(self.now, self.session.deadline)
        self.session.tick(self.now)


def test_upper_half_is_the_credential_that_the_leader_reports() -> None:
    client = Client()
    opening = client.sent()
    assert opening["session_id"].tolist() == [5 << 32 | 100]
    client.answer(opening)
    # Requests that were submitted before are those of the same session.
    assert client.sent()["session_id"].tolist() == [5 << 32 | 100] * 2
    assert client.session.is_open


@pytest.mark.parametrize(
    "fields",
    [
        {"status": OutcomeStatus.REJECTED, "reason": Reason.SESSION_IN_USE},
        {"status": OutcomeStatus.DUPLICATE, "order_id": 9},
        # A closed session of the account: it would go on after its last request.
        {"status": OutcomeStatus.ACCEPTED, "order_id": 9},
    ],
)
def test_another_id_is_chosen_if_a_session_had_the_first(fields: dict[str, int]) -> None:
    client = Client()
    for expected in (100, 101):
        opening = client.sent()
        assert opening["session_id"].tolist() == [5 << 32 | expected]
        client.answer(opening, **fields)
        assert client.session.state is State.BACKOFF
        client.tick()
    opening = client.sent()
    client.answer(opening)
    assert client.sent()["session_id"].tolist() == [5 << 32 | 102] * 2


def test_without_another_id_the_session_fails() -> None:
    client = Client(has_source=False)
    client.answer(client.sent(), status=OutcomeStatus.ACCEPTED, order_id=9)
    assert client.session.failure is not None
    assert "another client of account" in client.session.failure.message


def test_outcome_of_another_command_ends_the_session() -> None:
    """A thief's WITHDRAW was applied under the id of the client's PLACE."""
    client = Client()
    client.answer(client.sent())
    client.answer(client.sent(), event_kind=EventKind.WITHDRAWN, order_id=77)
    assert client.session.failure is not None
    assert "another client uses session" in client.session.failure.message
    assert "PLACE of 0 was answered with WITHDRAWN of 77" in client.session.failure.message
    assert client.session.take_outcomes() == []


def test_request_whose_id_was_used_for_another_ends_the_session() -> None:
    client = Client()
    client.answer(client.sent())
    client.answer(client.sent(), status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_MISMATCH, sequence=0)
    assert client.session.failure is not None
    assert "its request 1 was applied instead" in client.session.failure.message


@pytest.mark.parametrize(
    ("kind", "named", "event", "answered", "fits"),
    [
        (CommandKind.PLACE, 0, EventKind.NEW, 5, True),
        (CommandKind.PLACE, 0, EventKind.FILLED, 5, True),
        (CommandKind.PLACE, 0, EventKind.DEPOSITED, 5, False),
        (CommandKind.CANCEL, 5, EventKind.CANCELLED, 5, True),
        (CommandKind.CANCEL, 5, EventKind.CANCELLED, 6, False),
        (CommandKind.CANCEL, 0, EventKind.CANCELLED, 6, True),
        (CommandKind.CANCEL, 5, EventKind.NEW, 5, False),
        (CommandKind.DEPOSIT, 9, EventKind.DEPOSITED, 9, True),
        (CommandKind.DEPOSIT, 9, EventKind.DEPOSITED, 8, False),
        (CommandKind.WITHDRAW, 9, EventKind.DEPOSITED, 9, False),
        # Of a kind that this program does not know.
        (CommandKind.PLACE, 0, 250, 5, True),
    ],
)
def test_what_fits_a_command(kind: CommandKind, named: int, event: int, answered: int, fits: bool) -> None:
    sent, found = np.zeros(3, COMMAND), np.zeros(3, OUTCOME)
    found["status"] = OutcomeStatus.ACCEPTED
    sent["kind"][1], sent["order_id"][1] = kind, named
    found["event_kind"][1], found["order_id"][1] = event, answered
    assert first_mismatch(sent, found) == (None if fits else 1)
    # A rejected or a repeated command says nothing else.
    found["status"] = OutcomeStatus.REJECTED
    assert first_mismatch(sent, found) is None
