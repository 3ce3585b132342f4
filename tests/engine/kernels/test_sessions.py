"""Sessions: which orders end with a session, and which commands use a request id."""

from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Reason,
    SessionFlags,
    Side,
    TimeInForce,
)
from tests.commands import apply, command, disconnect, open_session, place
from tests.engine.small_market import BASE, SmallMarket, events_of, in_own_layout, last_outcome, order_id

CANCELS = SessionFlags.CANCEL_ON_DISCONNECT


def watched_market() -> tuple[SmallMarket, list[int]]:
    """Return a market where session 20 of account 1 has cancel on disconnect, and order ids.

    The orders are those of session 20, 11, 20 and a stop of 20.
    """
    market = SmallMarket()
    market.send(open_session(20, 1, CANCELS))
    asked = [place((20, number), 1, Side.SELL, 5, 100 + number) for number in (1, 2)]
    stop = place((20, 3), 1, Side.SELL, 5, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=50)
    ids = [order_id(market.send(asked[0])), order_id(market.sell(1, 5, 99))]
    return market, [*ids, order_id(market.send(asked[1])), order_id(market.send(stop))]


def test_disconnect_cancels_the_sessions_orders_oldest_first() -> None:
    market, (first, other, second, stop) = watched_market()
    result = market.send(disconnect(20))
    assert events_of(result) == [
        ("CANCELLED", first),
        ("CANCELLED", second),
        ("CANCELLED", stop),
        ("SESSION_DISCONNECTED", 0),
    ]
    assert result.events["reason"][:3].tolist() == [Reason.DISCONNECTED] * 3
    assert [int(in_own_layout(result.events[-1])[name]) for name in ("account", "cancelled")] == [1, 3]
    assert last_outcome(result) == ("SESSION_DISCONNECTED", "NONE", 3, 0)
    assert market.open_ids() == [other]
    assert market.balance_change(1, BASE) == (0, 5)
    # The session stays open and continues with its next request id.
    again = order_id(market.send(place((20, 4), 1, Side.SELL, 5, 100)))
    assert events_of(market.send(disconnect(20)))[0] == ("CANCELLED", again)
    market.check_state()


def test_close_cancels_orders_and_keeps_the_session() -> None:
    market, ids = watched_market()
    result = market.send(command(CommandKind.CLOSE_SESSION, (20, 4)))
    assert [name for name, _ in events_of(result)] == ["CANCELLED"] * 3 + ["SESSION_CLOSED"]
    assert last_outcome(result) == ("SESSION_CLOSED", "NONE", 3, 0)
    assert market.open_ids() == ids[1:2]
    assert market.rejected(disconnect(20)) == Reason.SESSION_CLOSED
    assert market.rejected(place((20, 5), 1, Side.SELL, 5, 100)) == Reason.SESSION_CLOSED
    assert market.rejected(open_session(20, 2)) == Reason.SESSION_IN_USE
    market.check_state()
    # What was done stays done: the closing is answered again, and the session goes on after it.
    again = apply(market.engine, command(CommandKind.CLOSE_SESSION, (20, 4)), 1)
    assert (again.outcomes.tobytes(), len(again.events)) == (result.outcomes.tobytes(), 0)
    opened = market.send(open_session(20, 1))
    assert opened.outcomes["order_id"].tolist() == [4]
    assert order_id(market.send(place((20, 5), 1, Side.SELL, 5, 100))) > ids[-1]
    market.check_state()


def test_session_without_the_flag_keeps_its_orders() -> None:
    market = SmallMarket()
    order = order_id(market.sell(1, 5, 100))
    assert events_of(market.send(disconnect(11))) == [("SESSION_DISCONNECTED", 0)]
    market.send(command(CommandKind.CLOSE_SESSION, market.sender(1)))
    assert market.open_ids() == [order]
    assert market.engine.inspect.orders()["session_id"].tolist() == [0]
    market.check_state()


def test_venue_session_may_hold_orders_of_many_accounts() -> None:
    market = SmallMarket()
    market.send(open_session(30, 0, CANCELS))
    ids = [order_id(market.send(place((30, at), 1 + at % 3, Side.SELL, 1, 100 + at % 7))) for at in range(1, 60)]
    # Slots are freed and reused, so their sequence is not that of the ids.
    for at in (3, 40, 20, 7):
        market.cancel(1 + (at + 1) % 3, ids[at])
    left = [one for at, one in enumerate(ids) if at not in (3, 40, 20, 7)]
    left += [order_id(market.send(place((30, at), 1, Side.SELL, 1, 100))) for at in range(60, 64)]
    assert events_of(market.send(disconnect(30)))[:-1] == [("CANCELLED", one) for one in left]
    market.check_state()


def test_ended_orders_are_not_cancelled_again() -> None:
    market, (first, _, second, stop) = watched_market()
    market.buy(2, 10, 101)
    market.cancel(1, stop)
    result = market.send(disconnect(20))
    assert events_of(result)[:-1] == [("CANCELLED", second)]
    assert first not in market.open_ids()
    market.check_state()


def test_replaced_order_stays_with_its_session() -> None:
    market, (first, *_) = watched_market()
    market.replace(1, first, 9, 140)
    assert events_of(market.send(disconnect(20)))[0] == ("CANCELLED", first)


def test_disconnect_uses_no_request_id_and_is_never_a_duplicate() -> None:
    market, _ = watched_market()
    before = market.engine.inspect.sessions()["last_request_id"].tolist()
    for _ in range(2):
        market.send(disconnect(20))
    assert market.engine.inspect.sessions()["last_request_id"].tolist() == before
    for fields in ({"request_id": 4}, {"account": 1}, {"flags": 1}):
        wrong = disconnect(20)
        for name, value in fields.items():
            wrong.records[name] = value
        assert market.rejected(wrong) == Reason.RESERVED_NOT_ZERO
    assert market.rejected(disconnect(99)) == Reason.UNKNOWN_SESSION
    assert market.engine.inspect.sessions()["last_request_id"].tolist() == before


def test_open_session_flags() -> None:
    market = SmallMarket()
    assert market.rejected(open_session(40, 1, 2)) == Reason.INVALID_FLAGS
    result = market.send(open_session(40, 1, CANCELS))
    assert int(result.events["flags"][0]) == CANCELS
    rows = market.engine.inspect.sessions()
    assert rows[rows["session_id"] == 40]["flags"].tolist() == [CANCELS]
    again = apply(market.engine, open_session(40, 1), 1)
    assert again.outcomes["status"].tolist() == [OutcomeStatus.DUPLICATE]


def test_malformed_open_session_uses_no_request_id() -> None:
    market = SmallMarket()
    before = market.engine.inspect.sessions()["last_request_id"].tolist()
    foreign = open_session(11, 2)
    foreign.records["request_id"] = 1
    assert market.rejected(foreign) == Reason.RESERVED_NOT_ZERO
    assert market.engine.inspect.sessions()["last_request_id"].tolist() == before
    market.buy(1, 1, 1)
