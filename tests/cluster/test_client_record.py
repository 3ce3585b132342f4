"""The comparison of a client's record with the events: a correct record passes, each kind of error is found."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.client_record import ClientRecord
from smrx.wire.codes import EventKind, OutcomeStatus, Side
from smrx.wire.command_list import CommandList
from tests import commands as make
from tests.oracle import Oracle

Records = NDArray[np.void]
SESSION = 77


class Exchange:
    """A run of one session on the oracle: orders that trade, and some that are refused."""

    def __init__(self) -> None:
        oracle = Oracle()
        setup = make.join(
            [
                make.open_session(1, 0),
                make.add_asset((1, 1), 1, "BTC"),
                make.add_asset((1, 2), 2, "USD"),
                make.add_instrument((1, 3), 1, "BTC-USD", base_asset=1, quote_asset=2),
                make.open_account((1, 4), 7),
                make.open_account((1, 5), 8),
                make.deposit((1, 6), 7, 1, 1000, 1),
                make.deposit((1, 7), 8, 2, 100_000, 2),
                make.open_session(SESSION, 0),
            ]
        )
        before = make.apply(oracle, setup, 1)
        assert np.all(before.outcomes["status"] == OutcomeStatus.ACCEPTED)
        self.commands = make.join([self._order(i) for i in range(1, 41)])
        result = make.apply(oracle, self.commands, 2)
        assert set(result.outcomes["status"]) == {OutcomeStatus.ACCEPTED, OutcomeStatus.REJECTED}
        self.outcomes = result.outcomes
        self.events = np.concatenate([before.events, result.events])

    @staticmethod
    def _order(request: int) -> CommandList:
        side, account = ((Side.SELL, 7), (Side.BUY, 8))[request % 2]
        price = 100 + request % 3 if request % 10 else 0  # 0 is refused
        return make.place(
            (SESSION, request),
            account,
            side,
            1 + request % 4,
            price,
            client_order_id=f"{request}-of-us" * (1 + request % 3),
        )

    def check(self, events: Records | None = None) -> list[str]:
        record = ClientRecord()
        record.add(make.part(self.commands, 0, 15), self.outcomes[:15])
        record.add(make.part(self.commands, 15), self.outcomes[15:])
        return record.check(self.events if events is None else events)

    def event_of(self, request: int) -> int:
        return int(np.flatnonzero((self.events["session_id"] == SESSION) & (self.events["request_id"] == request))[0])


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def test_correct_record_passes(exchange: Exchange) -> None:
    assert exchange.check() == []
    assert np.any(exchange.events["kind"] == EventKind.TRADE)


def test_duplicate_without_first_outcome_must_be_applied_once(exchange: Exchange) -> None:
    exchange.outcomes["status"][3], exchange.outcomes["sequence"][3] = OutcomeStatus.DUPLICATE, 0
    assert exchange.check() == []
    gone = exchange.events[~((exchange.events["session_id"] == SESSION) & (exchange.events["request_id"] == 4))]
    assert any("not applied" in finding for finding in exchange.check(gone))


def test_lost_request_is_found(exchange: Exchange) -> None:
    ours = (exchange.events["session_id"] == SESSION) & (exchange.events["request_id"] == 12)
    assert "request 12 was answered but not applied" in exchange.check(exchange.events[~ours])


def test_request_applied_twice_is_found(exchange: Exchange) -> None:
    again = exchange.events[exchange.event_of(5)].copy()
    again["command_sequence"] += 1000
    assert "request 5 was applied more than once" in exchange.check(np.append(exchange.events, again))


def test_request_that_was_not_sent_is_found(exchange: Exchange) -> None:
    record = ClientRecord()
    kept = exchange.commands._replace(records=np.delete(exchange.commands.records, 20))
    record.add(kept, np.delete(exchange.outcomes, 20))
    assert record.check(exchange.events) == ["request 21 was applied but is not in the record"]


@pytest.mark.parametrize("field", ["sequence", "first_event", "event_count"])
def test_outcome_with_another_position_is_found(exchange: Exchange, field: str) -> None:
    exchange.outcomes[field][8] += 1
    assert any(finding.startswith("request 9 was answered with another") for finding in exchange.check())


def test_changed_order_is_found(exchange: Exchange) -> None:
    exchange.events["price_ticks"][exchange.event_of(6)] += 1
    assert "request 6 was applied with other fields or another result than answered" in exchange.check()


def test_refused_order_answered_as_accepted_is_found(exchange: Exchange) -> None:
    exchange.outcomes["status"][9] = OutcomeStatus.ACCEPTED
    assert "request 10 was applied with other fields or another result than answered" in exchange.check()


def test_requests_applied_out_of_order_are_found(exchange: Exchange) -> None:
    swapped = exchange.events.copy()
    first, second = ((swapped["session_id"] == SESSION) & (swapped["request_id"] == request) for request in (2, 3))
    swapped["command_sequence"][first], swapped["command_sequence"][second] = (
        exchange.events["command_sequence"][second][0],
        exchange.events["command_sequence"][first][0],
    )
    assert "request 3 was applied before one that was sent earlier" in exchange.check(swapped)


def test_empty_record_fails() -> None:
    assert ClientRecord().check(np.empty(0, Exchange().events.dtype))
