"""Answers, silent sessions and old transfers: what the state keeps, and that it is no more than stated."""

from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine
from smrx.engine.kernels.retention import MAX_SESSIONS_ENDED, MAX_TRANSFERS_FORGOTTEN
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason, SessionFlags, Side
from smrx.wire.records import MAX_ANSWERS
from tests.commands import apply, command, deposit, join, open_session, place
from tests.engine.small_market import SECOND, SmallMarket, events_of

TICK = command(CommandKind.TICK)
DAY = 86_400


def retain(market: SmallMarket, silence: int = DAY, age: int = 7 * DAY, transfers: int = 1_000_000) -> None:
    sent = command(
        CommandKind.SET_RETENTION, market.sender(0), session_silence_s=silence, transfer_age_s=age, transfers=transfers
    )
    market.send(sent)


def expired(market: SmallMarket, seconds: float, commands: Any = TICK) -> list[int]:
    """Return the sessions that a command at a time ends."""
    events = apply(market.engine, commands, round(seconds * SECOND)).events
    found: list[int] = events["session_id"][events["kind"] == EventKind.SESSION_EXPIRED].tolist()
    return found


@pytest.mark.parametrize("answers", [1, 2, 3, 256, 1000])
def test_last_answers_are_repeated_and_older_ones_are_not(answers: int) -> None:
    market = SmallMarket()
    market.send(open_session(50, 1, 0, answers))
    kept = 1 << (answers - 1).bit_length()
    asked = [place((50, number), 1, Side.BUY, 1 + number % 3 - 1, 90) for number in range(1, kept + 6)]
    first = [apply(market.engine, one, 1).outcomes.tobytes() for one in asked]
    before = (market.engine.sequence, market.engine.state_hash, market.engine.content_hash())
    for machine in (market.engine, Engine.restore(market.engine.snapshot())):
        again = apply(machine, join(asked), 1)
        assert len(again.events) == 0
        assert again.outcomes["status"][:5].tolist() == [OutcomeStatus.DUPLICATE] * 5
        assert again.outcomes["order_id"][:5].tolist() == [kept + 5] * 5
        assert again.outcomes[5:].tobytes() == b"".join(first[5:])
        assert (machine.sequence, machine.state_hash, machine.content_hash()) == before
    market.check_state()


def test_sessions_with_the_most_answers_make_the_state_grow() -> None:
    """The array of answers grows between two commands of one call, and every record of it stays in use."""
    market = SmallMarket()
    lengths = (MAX_ANSWERS, 1, 0, 70_000, MAX_ANSWERS, 3)
    opened = join([open_session(100 + at, 1, 0, length) for at, length in enumerate(lengths)])
    assert market.send(opened).outcomes["status"].tolist() == [OutcomeStatus.ACCEPTED] * len(lengths)
    rows = market.engine.inspect.sessions()
    assert rows["answers"][rows["session_id"] >= 100].tolist() == [MAX_ANSWERS, 1, 256, MAX_ANSWERS, MAX_ANSWERS, 4]
    market.check_state()
    # A session that ends leaves its run to the next one that wants as many.
    used = int(market.engine._state.core["answers_top"][0])
    assert len(expired(market, DAY + 1)) == len(lengths) + 4
    market.send(open_session(1, 0), (DAY + 2) * SECOND)
    market.send(join([open_session(200 + at, 1, 0, length) for at, length in enumerate(lengths)]), (DAY + 2) * SECOND)
    assert int(market.engine._state.core["answers_top"][0]) == used
    market.check_state()


def test_sessions_end_by_last_activity_a_few_for_each_command() -> None:
    market = SmallMarket()
    retain(market, silence=10)
    count = MAX_SESSIONS_ENDED + 5
    for at in range(count):
        market.send(open_session(500 + at, 1), (1 + at // 4) * SECOND)
    # The first to be opened is active again, and so the last to end.
    apply(market.engine, place((500, 1), 1, Side.BUY, 0, 1), 7 * SECOND)
    assert market.engine.next_expiry_ns is not None
    order = [*range(501, 500 + count), 500]
    # The sessions of the market have been silent longest: the venue's, then those of the accounts.
    first = expired(market, 100)
    assert len(first) == MAX_SESSIONS_ENDED
    assert first[-MAX_SESSIONS_ENDED + 4 :] == order[: MAX_SESSIONS_ENDED - 4]
    restored = Engine.restore(market.engine.snapshot())
    rest = expired(market, 100)
    assert rest == order[MAX_SESSIONS_ENDED - 4 :]
    assert apply(restored, TICK, 100 * SECOND).events["session_id"].tolist()[:-1] == rest
    assert restored.state_hash == market.engine.state_hash
    assert len(market.engine.inspect.sessions()) == 0
    market.check_state()


def test_session_with_open_orders_of_its_own_waits_for_another_silence() -> None:
    market = SmallMarket()
    market.send(open_session(60, 1, SessionFlags.CANCEL_ON_DISCONNECT))
    market.send(place((60, 1), 1, Side.SELL, 1, 500))
    assert 60 not in expired(market, DAY + 1)
    market.send(command(CommandKind.DISCONNECT, (60, 0)), (DAY + 2) * SECOND)
    assert expired(market, 2 * DAY) == []
    assert expired(market, 2 * DAY + 1) == [60]
    market.check_state()


def test_a_request_that_comes_first_keeps_its_session() -> None:
    market = SmallMarket()
    late = place(market.sender(1), 1, Side.BUY, 1, 90)
    assert sorted(expired(market, DAY + 5, late)) == [1, 12, 13]
    assert market.engine.inspect.sessions()["session_id"].tolist() == [11]
    market.check_state()


def test_transfers_are_forgotten_by_number_and_age() -> None:
    market = SmallMarket()
    before = market.engine.inspect.counts()["transfers"]
    retain(market, transfers=before + 2)
    for number in range(4):
        market.send(deposit(market.sender(0), 1, 1, 5, 900 + number), (10 + number) * SECOND)
    assert market.engine.inspect.counts()["transfers"] == before + 2
    assert market.rejected(deposit(market.sender(0), 1, 1, 5, 903)) == Reason.TRANSFER_ALREADY_DONE
    market.check_state()
    retain(market, age=3)
    assert events_of(market.send(TICK, 15 * SECOND))[-1] == ("TICKED", 0)
    assert market.engine.inspect.transfers(1)["transfer_id"].tolist() == [903]
    market.check_state()


def test_few_transfers_are_forgotten_for_each_command() -> None:
    market = SmallMarket()
    more = join([deposit(market.sender(0), 1, 1, 1, 10_000 + number) for number in range(40)])
    market.send(more)
    held = market.engine.inspect.counts()["transfers"]
    retain(market, transfers=1)
    for left in (held - MAX_TRANSFERS_FORGOTTEN, held - 2 * MAX_TRANSFERS_FORGOTTEN):
        market.send(TICK)
        assert market.engine.inspect.counts()["transfers"] == left
    market.check_state()


def soak(rounds: int) -> list[tuple[int, ...]]:
    """Open, use and abandon sessions without end; return the lengths of what the state keeps after each round."""
    market = SmallMarket()
    retain(market, silence=60, age=60, transfers=500)
    now = 1
    sizes: list[tuple[int, ...]] = []
    for number in range(rounds):
        first = 1_000 * (number + 1)
        opened = [open_session(first + at, 1 + at % 3, at % 2, (0, 16, 256)[at % 3]) for at in range(12)]
        placed = [
            place((first + at, 1 + request), 1 + at % 3, (Side.BUY, Side.SELL)[request % 2], 1, 100 + request % 7)
            for at in range(12)
            for request in range(20)
        ]
        closed = [command(CommandKind.DISCONNECT, (first + at, 0)) for at in range(12)]
        closed += [command(CommandKind.CLOSE_SESSION, (first + at, 21)) for at in range(0, 12, 2)]
        moved = [deposit(market.sender(0), 1 + at % 3, 1, 1, first + at) for at in range(30)]
        cancelled = [command(CommandKind.MASS_CANCEL, market.sender(0), account=account) for account in (1, 2, 3)]
        apply(market.engine, join([*opened, *placed, *closed, *moved, *cancelled]), now)
        now += 10 * SECOND
        counts = market.engine.inspect.counts()
        arrays = market.engine._state
        lengths = (len(arrays.sessions), len(arrays.answers), len(arrays.transfers), len(arrays.orders))
        sizes.append((counts["sessions"], counts["transfers"], counts["orders"], *lengths))
    market.check_state()
    return sizes


def test_state_stays_bounded_under_endless_sessions_transfers_and_orders() -> None:
    sizes = np.array(soak(60), np.int64)
    # Once what is kept for 60 seconds is there, nothing grows.
    early, late = sizes[20:40], sizes[40:]
    assert (late.max(axis=0) <= early.max(axis=0)).all()
    assert sizes[:, 0].max() <= 4 + 12 * 8
    assert sizes[:, 1].max() <= 500


def test_soak_notices_a_state_that_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ends every count grows: the same bounds fail."""
    monkeypatch.setattr("tests.engine.kernels.test_retention.retain", lambda *_, **__: None)
    sizes = np.array(soak(45), np.int64)
    # Sessions and transfers, and the arrays of sessions, answers and transfers.
    grown = sizes[40:].max(axis=0) > sizes[10:20].max(axis=0)
    assert grown[[0, 1, 3, 4, 5]].all()
