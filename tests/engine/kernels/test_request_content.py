"""A repeated request gets its first answer only if it is the same request; another one with its id is told so."""

from typing import Any

import numpy as np
import pytest

from smrx.engine import FIRST_RULES, Engine
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, Side
from smrx.wire.records import COMMAND, DETAILS
from tests.commands import Commands, apply, cancel, command, join, open_session, place
from tests.engine.small_market import SmallMarket

LONG = "an id of more than eight characters"


def sent(market: SmallMarket, commands: Commands) -> Any:
    """Return the outcome of the last command, which changes nothing but what it is for."""
    return apply(market.engine, commands, 1).outcomes[-1]


def requests() -> list[Commands]:
    """Return a request of some kinds, all of session 11 and with its first id."""
    sender = (11, 1)
    return [
        place(sender, 1, Side.BUY, 2, 10),
        place(sender, 1, Side.BUY, 2, 10, client_order_id="short"),
        place(sender, 1, Side.BUY, 2, 10, client_order_id=LONG),
        place(sender, 1, Side.BUY, 2, 10, client_order_id=LONG, display_lots=1),
        cancel(sender, 1, 77),
        cancel(sender, 1, client_order_id=LONG),
        command(CommandKind.WITHDRAW, sender, account=1, asset=1, amount=5, transfer_id=9),
        command(CommandKind.MASS_CANCEL, sender, account=1),
        command(CommandKind.KILL, sender),
        command(77, sender),
    ]


@pytest.mark.parametrize("number", range(len(requests())))
def test_same_request_gets_its_first_answer_and_any_other_byte_a_mismatch(number: int) -> None:
    market, request = SmallMarket(), requests()[number]
    first = sent(market, request)
    before = market.engine.snapshot()
    assert sent(market, request).tobytes() == first.tobytes()
    for other in [part for part in requests() if part.records.tobytes() != request.records.tobytes()]:
        outcome = sent(market, other)
        assert (outcome["status"], outcome["reason"]) == (OutcomeStatus.REJECTED, Reason.REQUEST_MISMATCH)
        assert [int(outcome[name]) for name in ("sequence", "event_kind", "event_count", "first_event")] == [0, 0, 0, 0]
        assert (outcome["session_id"], outcome["request_id"], outcome["order_id"]) == (11, 1, 1)
    for records, size in ((request.records, COMMAND.itemsize), (request.details, DETAILS.itemsize)):
        for at in range(size * len(records)):
            # Not those of the sender, nor of the number of the details.
            if records is request.records and (8 <= at < 24 or at in (6, 7)):
                continue
            changed = records.copy()
            changed.view(np.uint8)[at] ^= 1
            swapped = {"records": changed} if records is request.records else {"details": changed}
            if int(changed["kind" if records is request.records else "credential"][0]) in NOT_NUMBERED:
                continue
            outcome = sent(market, request._replace(**swapped))
            assert outcome["reason"] == Reason.REQUEST_MISMATCH, at
    assert market.engine.snapshot() == before


#: Kinds without a request id.
NOT_NUMBERED = {CommandKind.OPEN_SESSION, CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION}


def test_number_of_the_details_is_no_content() -> None:
    """A client that repeats a request puts it into another frame, a leader into another entry."""
    market = SmallMarket()
    request = place((11, 1), 1, Side.BUY, 2, 10, client_order_id=LONG)
    first = sent(market, request)
    again = sent(market, join([place((12, 1), 2, Side.BUY, 2, 10, client_order_id=f"{LONG} too"), request]))
    assert again.tobytes() == first.tobytes()
    # Without details, or with a number of none, it is another request.
    for number in (0, 9):
        other = request.records.copy()
        other["details"] = number
        assert sent(market, request._replace(records=other))["reason"] == Reason.REQUEST_MISMATCH


def test_content_is_as_long_kept_as_the_answer() -> None:
    market = SmallMarket()
    market.send(open_session(20, 1, answers=2))
    for number in (1, 2, 3):
        market.send(place((20, number), 1, Side.BUY, 1, 10))
    assert sent(market, place((20, 2), 1, Side.BUY, 2, 10))["reason"] == Reason.REQUEST_MISMATCH
    forgotten = sent(market, place((20, 1), 1, Side.BUY, 2, 10))
    assert (forgotten["status"], forgotten["order_id"]) == (OutcomeStatus.DUPLICATE, 3)


def test_content_survives_a_snapshot() -> None:
    market = SmallMarket()
    market.buy(1, 1, 10)
    restored = Engine.restore(market.engine.snapshot())
    assert apply(restored, place((11, 1), 1, Side.BUY, 1, 11), 1).outcomes[0]["reason"] == Reason.REQUEST_MISMATCH


def test_with_the_first_rules_nothing_is_compared() -> None:
    market = SmallMarket(rules=FIRST_RULES)
    first = sent(market, place((11, 1), 1, Side.BUY, 2, 10))
    assert sent(market, cancel((11, 1), 1, 5)).tobytes() == first.tobytes()
    market.send(command(CommandKind.SET_VERSION, version=2))
    # An answer of then has no content, and one of now has.
    assert sent(market, cancel((11, 1), 1, 5)).tobytes() == first.tobytes()
    market.send(place((11, 2), 1, Side.BUY, 2, 10))
    assert sent(market, cancel((11, 2), 1, 5))["reason"] == Reason.REQUEST_MISMATCH
    market.check_state()
