"""The projection against a plain Python one and against the oracle's open orders; forbidden transitions."""

import numpy as np
import pytest

from smrx.history.history_rows import ForbiddenTransition
from smrx.history.order_history import OrderHistory, orders_after
from smrx.history.order_status import LABELS, TRANSITIONS, OrderStatus
from smrx.sinks.rows import time_text, time_texts
from smrx.wire.client_order_ids import id_form
from smrx.wire.codes import EventKind
from tests.history.reference import lives
from tests.settlement.market import market_events, oracle

SEEDS = (1, 2, 3)
#: The kinds of events that are about an order.
ORDER_KINDS = {kind for kinds in TRANSITIONS.values() for kind in kinds}


@pytest.mark.parametrize("seed", SEEDS)
def test_updates_equal_those_of_the_reference(seed: int) -> None:
    events = market_events(seed=seed)
    history = OrderHistory()
    rows = history.take(events)
    expected = lives(events)
    for name in expected.updates.dtype.names or ():
        assert rows.updates[name].tolist() == expected.updates[name].tolist(), name
    assert history.orders()["key"].tolist() == sorted(expected.open_orders)
    assert not history.forbidden
    # The market reaches every status and every step between them that the engine can take.
    assert {OrderStatus(status) for status in rows.updates["status"].tolist()} == set(LABELS.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_open_orders_are_those_of_the_exchange(seed: int) -> None:
    machine, _ = oracle(seed=seed)
    exchange = np.sort(machine.inspect.orders(), order="order_id")
    history = OrderHistory()
    history.take(market_events(seed=seed))
    orders = history.orders()
    assert history.open_orders == len(exchange)
    for ours, theirs in (("key", "order_id"), ("filled_lots", "cum_lots"), ("account", "account"),
                         ("price_ticks", "price_ticks"), ("side", "side"), ("order_type", "order_type")):  # fmt: skip
        assert orders[ours].tolist() == exchange[theirs].tolist(), ours
    assert (orders["quantity_lots"] - orders["filled_lots"]).tolist() == exchange["leaves_lots"].tolist()


def test_result_does_not_depend_on_the_batches() -> None:
    events = market_events()
    whole, parts = OrderHistory(), OrderHistory()
    expected = whole.take(events)
    cuts = np.array_split(events, 97)
    pieces = [parts.take(piece) for piece in cuts if len(piece)]
    assert np.concatenate([rows.updates for rows in pieces]).tobytes() == expected.updates.tobytes()
    assert parts.orders().tobytes() == whole.orders().tobytes()


def test_updates_lead_from_earlier_open_orders_to_later_ones() -> None:
    events = market_events()
    early, late = OrderHistory(), OrderHistory()
    early.take(events[:2000])
    updates = late.take(events).updates
    since = updates[updates["event_sequence"] > events["sequence"][1999]]
    assert orders_after(early.orders(), since).tobytes() == late.orders().tobytes()


def test_long_ids_and_terms_belong_to_the_first_update() -> None:
    events = market_events()
    rows = OrderHistory().take(events)
    firsts = {int(row["event_sequence"]): row for row in rows.updates[rows.updates["is_first"] == 1]}
    assert {EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS} <= set(events["kind"].tolist())
    assert len(rows.details) > 100
    for detail in rows.details:
        first = firsts[int(detail["update_sequence"])]
        assert first["order_id"] == detail["order_id"]
        if detail["client_order_id"]:
            assert int(first["client_order_id"]) == id_form(detail["client_order_id"])
        else:
            assert detail["display_lots"] > 0


@pytest.mark.parametrize("status", [status for status in OrderStatus if status.is_open or not status])
@pytest.mark.parametrize("kind", sorted(ORDER_KINDS))
def test_forbidden_transition_changes_nothing_and_is_reported(status: OrderStatus, kind: EventKind) -> None:
    events = market_events()
    history = OrderHistory()
    updates = history.take(events).updates
    order_id, of_order = 999_999, None
    if status.is_open:
        rows = history.orders()
        of_order = rows[rows["status"] == status][0]
        order_id = int(of_order["key"])
    event = events[events["kind"] == EventKind.NEW][:1].copy()
    event["kind"], event["order_id"], event["sequence"] = kind, order_id, events["sequence"][-1] + 1
    event["command_kind"] = 1
    before = history.orders().tobytes()
    added = history.take(event).updates
    if kind in TRANSITIONS[status]:
        assert added["status"].tolist() == [TRANSITIONS[status][kind]]
        assert not history.forbidden
    else:
        assert not len(added)
        assert history.forbidden == [ForbiddenTransition(int(event["sequence"][0]), order_id, status, kind)]
        assert history.orders().tobytes() == before
    assert len(updates)


def test_order_that_is_over_has_no_further_event() -> None:
    for status in set(OrderStatus) - {OrderStatus.UNKNOWN}:
        assert bool(TRANSITIONS[status]) == status.is_open


def test_labels_are_the_names_outside() -> None:
    assert list(LABELS) == ["New", "PartiallyFilled", "Filled", "Cancelled", "Rejected", "Expired"]


def test_one_time_is_written_as_many_are() -> None:
    times = [0, 1, 999_999_999, 1_700_000_000_123_456_789, 9_223_372_036_854_775_807, -1]
    assert [time_text(time) for time in times] == time_texts(np.array(times, np.int64)).tolist()
