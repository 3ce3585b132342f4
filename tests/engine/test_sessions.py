"""Sessions: whose orders end with whose connection, and which commands take a request."""

from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Reason,
    SessionFlags,
    Side,
    TimeInForce,
)
from tests.commands import command, disconnect, open_session, place
from tests.engine.desk import BASE, Desk, ended, order_id, told

CANCELS = SessionFlags.CANCEL_ON_DISCONNECT


def watched_desk() -> tuple[Desk, list[int]]:
    """Session 20 of account 1 asks for cancels; orders of 20, of 11, a stop of 20 and an order of 20."""
    desk = Desk()
    desk.send(open_session(20, 1, CANCELS))
    asked = [place((20, number), 1, Side.SELL, 5, 100 + number) for number in (1, 2)]
    stop = place((20, 3), 1, Side.SELL, 5, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=50)
    ids = [order_id(desk.send(asked[0])), order_id(desk.sell(1, 5, 99))]
    return desk, [*ids, order_id(desk.send(asked[1])), order_id(desk.send(stop))]


def test_a_disconnect_cancels_what_the_session_placed_oldest_first() -> None:
    desk, (first, other, second, stop) = watched_desk()
    result = desk.send(disconnect(20))
    assert told(result) == [
        ("CANCELLED", first),
        ("CANCELLED", second),
        ("CANCELLED", stop),
        ("SESSION_DISCONNECTED", 0),
    ]
    assert result.events["reason"][:3].tolist() == [Reason.DISCONNECTED] * 3
    assert [int(result.events[-1][name]) for name in ("account", "quantity_lots")] == [1, 3]
    assert ended(result) == ("SESSION_DISCONNECTED", "NONE", 3, 0)
    assert desk.open_ids() == [other]
    assert desk.money(1, BASE) == (0, 5)
    # The session goes on, with the request that is due.
    again = order_id(desk.send(place((20, 4), 1, Side.SELL, 5, 100)))
    assert told(desk.send(disconnect(20)))[0] == ("CANCELLED", again)
    desk.check()


def test_closing_cancels_too_and_forgets_the_session() -> None:
    desk, ids = watched_desk()
    result = desk.send(command(CommandKind.CLOSE_SESSION, (20, 4)))
    assert [name for name, _ in told(result)] == ["CANCELLED"] * 3 + ["SESSION_CLOSED"]
    assert ended(result) == ("SESSION_CLOSED", "NONE", 3, 0)
    assert desk.open_ids() == ids[1:2]
    assert desk.refused(disconnect(20)) == Reason.UNKNOWN_SESSION
    desk.check()


def test_a_session_that_did_not_ask_keeps_its_orders() -> None:
    desk = Desk()
    order = order_id(desk.sell(1, 5, 100))
    assert told(desk.send(disconnect(11))) == [("SESSION_DISCONNECTED", 0)]
    desk.send(command(CommandKind.CLOSE_SESSION, desk.sender(1)))
    assert desk.open_ids() == [order]
    assert desk.engine.inspect.orders()["session_id"].tolist() == [0]
    desk.check()


def test_the_venues_session_may_have_orders_of_many_accounts() -> None:
    desk = Desk()
    desk.send(open_session(30, 0, CANCELS))
    ids = [order_id(desk.send(place((30, at), 1 + at % 3, Side.SELL, 1, 100 + at % 7))) for at in range(1, 60)]
    # Slots are given back and taken again: their order is not that of the ids.
    for at in (3, 40, 20, 7):
        desk.cancel(1 + (at + 1) % 3, ids[at])
    left = [one for at, one in enumerate(ids) if at not in (3, 40, 20, 7)]
    left += [order_id(desk.send(place((30, at), 1, Side.SELL, 1, 100))) for at in range(60, 64)]
    assert told(desk.send(disconnect(30)))[:-1] == [("CANCELLED", one) for one in left]
    desk.check()


def test_what_is_filled_or_cancelled_is_no_longer_counted() -> None:
    desk, (first, _, second, stop) = watched_desk()
    desk.buy(2, 10, 101)
    desk.cancel(1, stop)
    result = desk.send(disconnect(20))
    assert told(result)[:-1] == [("CANCELLED", second)]
    assert first not in desk.open_ids()
    desk.check()


def test_a_replaced_order_still_belongs_to_the_session_that_placed_it() -> None:
    desk, (first, *_) = watched_desk()
    desk.replace(1, first, 9, 140)
    assert told(desk.send(disconnect(20)))[0] == ("CANCELLED", first)


def test_a_disconnect_takes_no_request_and_is_never_a_duplicate() -> None:
    desk, _ = watched_desk()
    before = desk.engine.inspect.sessions()["last_request_id"].tolist()
    for _ in range(2):
        desk.send(disconnect(20))
    assert desk.engine.inspect.sessions()["last_request_id"].tolist() == before
    for fields in ({"request_id": 4}, {"account": 1}, {"flags": 1}):
        wrong = disconnect(20)
        for name, value in fields.items():
            wrong[name] = value
        assert desk.refused(wrong) == Reason.RESERVED_NOT_ZERO
    assert desk.refused(disconnect(99)) == Reason.UNKNOWN_SESSION
    assert desk.engine.inspect.sessions()["last_request_id"].tolist() == before


def test_opening_with_flags() -> None:
    desk = Desk()
    assert desk.refused(open_session(40, 1, 2)) == Reason.INVALID_FLAGS
    result = desk.send(open_session(40, 1, CANCELS))
    assert int(result.events["flags"][0]) == CANCELS
    rows = desk.engine.inspect.sessions()
    assert rows[rows["session_id"] == 40]["flags"].tolist() == [CANCELS]
    again = desk.engine.apply(open_session(40, 1), 1)
    assert again.outcomes["status"].tolist() == [OutcomeStatus.DUPLICATE]


def test_a_malformed_opening_takes_no_request_of_the_session_it_names() -> None:
    desk = Desk()
    before = desk.engine.inspect.sessions()["last_request_id"].tolist()
    foreign = open_session(11, 2)
    foreign["request_id"] = 1
    assert desk.refused(foreign) == Reason.RESERVED_NOT_ZERO
    assert desk.engine.inspect.sessions()["last_request_id"].tolist() == before
    desk.buy(1, 1, 1)
