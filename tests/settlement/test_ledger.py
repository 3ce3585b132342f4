"""The ledger accepts every true stream, has the engine's balances, and refuses a false stream."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.follower.follow_errors import FollowError, Violation
from smrx.settlement.ledger import Ledger
from smrx.wire import balance_digest
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS, TRADE_EVENT
from tests.commands import apply
from tests.oracle.oracle import Oracle
from tests.property.flow import seeded_tape
from tests.settlement.market import market_events, oracle

Events = NDArray[np.void]


ORDER_KINDS = [
    EventKind.NEW,
    EventKind.PARTIALLY_FILLED,
    EventKind.FILLED,
    EventKind.CANCELLED,
    EventKind.REPLACED,
    EventKind.EXPIRED,
    EventKind.TRADE,
    EventKind.CLIENT_ORDER_ID,
    EventKind.ORDER_TERMS,
]


def index_of(events: Events, kind: EventKind, nth: int = 0) -> int:
    return int(np.flatnonzero(events["kind"] == kind)[nth])


def posted(events: Events) -> Ledger:
    ledger = Ledger()
    ledger.post(events)
    return ledger


def verify(events: Events) -> Ledger:
    ledger = posted(events)
    ledger.check_sums()
    ledger.check_end()
    return ledger


def test_books_equal_the_engines_balances() -> None:
    machine, _ = oracle()
    ledger = verify(market_events())
    assert ledger.sequence == machine.event_sequence
    assert ledger.command_sequence == machine.sequence
    assert ledger.trades == machine.match_sequence > 100
    books = [(b.account, b.asset, b.available, b.held) for b in ledger.balances()]
    assert books == machine.inspect.balances().tolist()
    orders = machine.inspect.orders()
    assert ledger.order_leaves() == dict(zip(orders["order_id"].tolist(), orders["leaves_lots"].tolist(), strict=True))
    assert (ledger.open_orders, ledger.accounts) == (len(orders), 5)


def test_balances_digest_equals_the_nodes() -> None:
    rows = oracle()[0].inspect.balances()
    owners = (rows["account"].astype(np.uint64) << np.uint64(32)) | rows["asset"]
    node = balance_digest.digest(owners[::-1], rows["available"][::-1], rows["held"][::-1])
    assert verify(market_events()).balances_digest() == node
    assert node.balances == len(rows)


@pytest.mark.parametrize("column", ["available", "held"])
def test_balances_digest_depends_on_every_unit(column: str) -> None:
    rows = oracle()[0].inspect.balances()
    owners = (rows["account"].astype(np.uint64) << np.uint64(32)) | rows["asset"]
    before = balance_digest.digest(owners, rows["available"], rows["held"])
    rows[column][3] += 1
    assert balance_digest.digest(owners, rows["available"], rows["held"]) != before


def test_market_contains_every_kind_of_event() -> None:
    """Otherwise the tests here prove little."""
    assert set(ORDER_KINDS) < set(market_events()["kind"].tolist())


@given(st.sets(st.integers(1, 1500), max_size=40))
def test_result_does_not_depend_on_batches(cuts: set[int]) -> None:
    events = market_events()[:1500]
    parts = Ledger()
    for part in np.split(events, sorted(cuts)):
        parts.post(part)
    whole = posted(events)
    assert parts.balances() == whole.balances()
    assert parts.order_leaves() == whole.order_leaves()
    assert (parts.sequence, parts.trades) == (whole.sequence, whole.trades)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loaded_books_continue_like_the_saved_ones(share: float) -> None:
    events = market_events()
    commands = events["command_sequence"]
    at = int(np.searchsorted(commands, commands[int(share * (len(events) - 1))]))
    first = posted(events[:at])
    second = Ledger.load(first.save())
    assert second.save() == first.save()
    for ledger in (first, second):
        ledger.post(events[at:])
    assert second.save() == first.save()
    assert second.balances() == posted(events).balances()


def test_damaged_books_are_refused() -> None:
    data = bytearray(posted(market_events()).save())
    data[len(data) // 2] ^= 1
    with pytest.raises(FollowError, match="the saved bytes are damaged"):
        Ledger.load(bytes(data))


def test_books_inside_a_trade_are_not_saved() -> None:
    events = market_events()
    ledger = posted(events[: index_of(events, EventKind.TRADE) + 2])
    with pytest.raises(FollowError, match="a trade waits for its fills"):
        ledger.save()
    with pytest.raises(Violation, match="without the fills of maker and taker, and nothing after it"):
        ledger.check_end()


def test_first_event_that_touched_a_balance_is_recorded() -> None:
    events = market_events()
    ledger = Ledger()
    at = index_of(events, EventKind.DEPOSITED, 20)
    ledger.post(events[:at])
    ledger.mark_equal()
    account, asset = (int(events.view(EVENT_LAYOUTS[EventKind.DEPOSITED])[name][at]) for name in ("account", "asset"))
    assert ledger.first_touched(account, asset) == 0
    ledger.post(events[at : at + 1])
    assert ledger.first_touched(account, asset) == at + 1


def _lose(kind: EventKind) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        return np.delete(events, index_of(events, kind, 20))

    return change


def _lose_and_renumber(kind: EventKind) -> Callable[[Events], Events]:
    """Remove an event, and its command if it has no other, and renumber so that no gap shows."""

    def change(events: Events) -> Events:
        events = np.delete(events, index_of(events, kind, 20))
        events["sequence"] = np.arange(1, len(events) + 1)
        commands = np.unique(events["command_sequence"])
        of_orders = np.isin(events["kind"], ORDER_KINDS)
        every = np.ones(len(events), np.bool_)
        for column, rows in (("command_sequence", every), ("order_id", of_orders), ("counter_order_id", of_orders)):
            known = rows & np.isin(events[column], commands)
            events[column][known] = np.searchsorted(commands, events[column][known]) + 1
        return events

    return change


def _add(kind: EventKind, column: str, by: int, offset: int = 0, nth: int = 20) -> Callable[[Events], Events]:
    """Change a column of the event `offset` after the nth of a kind."""

    def change(events: Events) -> Events:
        row = index_of(events, kind, nth) + offset
        own = events.view(EVENT_LAYOUTS[EventKind(int(events["kind"][row]))])
        own[column][row] = int(own[column][row]) + by
        return events

    return change


def _everywhere(column: str, by: int) -> Callable[[Events], Events]:
    """Change a trade and both its fills alike, so that they agree with one another."""

    def change(events: Events) -> Events:
        row = index_of(events, EventKind.TRADE, 20)
        for i in range(row, row + 3):
            events[column][i] = int(events[column][i]) + by
        return events

    return change


def _swap_fills(events: Events) -> Events:
    row = index_of(events, EventKind.TRADE, 20)
    sequences = events["sequence"].copy()
    events[[row + 1, row + 2]] = events[[row + 2, row + 1]]
    events["sequence"] = sequences
    return events


def _twice(events: Events) -> Events:
    row = index_of(events, EventKind.TRADE, 20)
    events = np.insert(events, row, events[row])
    events["sequence"] = np.arange(1, len(events) + 1)
    return events


def _other_side(events: Events) -> Events:
    row = index_of(events, EventKind.TRADE, 20)
    events["side"][row] = 3 - events["side"][row]
    return events


def _other_maker(events: Events) -> Events:
    """Trade and fill agree on another account than the one that placed the order."""
    row = index_of(events, EventKind.TRADE, 20)
    trades = events.view(TRADE_EVENT)
    other = 1 + int(trades["counter_account"][row]) % 4
    trades["counter_account"][row] = events["account"][row + 1] = other
    return events


def _skip_match(events: Events) -> Events:
    row = index_of(events, EventKind.TRADE, 20)
    events["match_id"][row:] += (events["match_id"][row:] > 0).astype(np.uint64)
    return events


def _skip_command(events: Events) -> Events:
    commands = events["command_sequence"]
    commands[commands > 500] += np.uint64(1)
    return events


def _time_back(events: Events) -> Events:
    commands = events["command_sequence"]
    row = int(np.flatnonzero(commands[1:] != commands[:-1])[500]) + 1
    events["time_ns"][row:] -= 10**15
    return events


BUGS: list[tuple[str, Callable[[Events], Events], str]] = [
    ("a lost event", _lose(EventKind.NEW), "expected the next event sequence, found"),
    ("a lost trade", _lose_and_renumber(EventKind.TRADE), "a fill without a trade"),
    (
        "a lost fill",
        _lose_and_renumber(EventKind.FILLED),
        "without the fills of maker and taker|a fill without a trade|the maker's fill has order_id",
    ),
    ("a lost deposit", _lose_and_renumber(EventKind.DEPOSITED), "available after the transfer|what orders hold"),
    ("a lost order", _lose_and_renumber(EventKind.NEW), "not open"),
    (
        "a lost cancel",
        _lose_and_renumber(EventKind.CANCELLED),
        "what orders hold|available after",
    ),
    ("a trade sent twice", _twice, "without the fills of maker and taker"),
    (
        "a wrong quantity",
        _add(EventKind.TRADE, "quantity_lots", 1),
        "the maker's fill has quantity_lots|both orders have left",
    ),
    ("a quantity of nothing", _everywhere("quantity_lots", -1000), "which both orders have left"),
    ("a quantity that neither order had", _everywhere("quantity_lots", 1000), "which both orders have left"),
    ("a wrong price", _add(EventKind.TRADE, "price_ticks", 1), "expected the maker's price"),
    ("a price the maker never asked", _everywhere("price_ticks", 1), "expected the maker's price"),
    ("a missing match id", _skip_match, "expected match id 21, found 22"),
    ("a match id used twice", _everywhere("match_id", -1), "expected match id 21, found 20"),
    ("a wrong maker fill", _add(EventKind.TRADE, "order_id", 1, offset=1), "the maker's fill has order_id"),
    ("a wrong maker account", _add(EventKind.TRADE, "account", 1, offset=1), "the maker's fill has account"),
    ("another maker", _other_maker, "is not open, or differs from the trade"),
    ("a wrong taker fill", _add(EventKind.TRADE, "account", 1, offset=2), "the taker's fill has account"),
    ("a wrong match id of a fill", _add(EventKind.TRADE, "match_id", 1, offset=2), "the taker's fill has match_id"),
    ("fills in the wrong order", _swap_fills, "the maker's fill has"),
    ("a wrong side", _other_side, "is not open, or differs from the trade"),
    ("a wrong rest", _add(EventKind.TRADE, "leaves_lots", 5, offset=1), "lots filled and"),
    ("a wrong sum", _add(EventKind.TRADE, "cum_lots", 1, offset=1), "lots filled and"),
    ("a wrong fee", _add(EventKind.TRADE, "taker_fee", 10**9), "expected a taker's fee of 0"),
    ("a forged deposit", _add(EventKind.DEPOSITED, "amount", 1), "available after the transfer"),
    ("a forged balance", _add(EventKind.DEPOSITED, "available_after", 1), "available after the transfer"),
    ("a forged withdrawal", _add(EventKind.WITHDRAWN, "amount", -1), "available after the transfer"),
    ("a forged order", _add(EventKind.NEW, "quantity_lots", 1), "lots, all of them open"),
    ("an unfunded order", _add(EventKind.NEW, "price_ticks", 900_000), "what orders hold"),
    ("an unknown account's order", _add(EventKind.NEW, "account", 90), "expected a known account"),
    ("an unknown instrument", _add(EventKind.NEW, "instrument", 90), "expected a known instrument"),
    (
        "a wrong rest of a dead order",
        _add(EventKind.CANCELLED, "cum_lots", 1),
        "expected price .* and leaves",
    ),
    ("a wrong change", _add(EventKind.REPLACED, "leaves_lots", 1), "expected price .* and leaves"),
    ("a missing command", _skip_command, "expected command"),
    ("time that goes back", _time_back, "time went back"),
    ("time that passes within a command", _add(EventKind.TRADE, "time_ns", 1, offset=2), "within a command"),
    ("an unknown kind", _add(EventKind.REJECTED, "kind", 90), "expected a known kind, found 96"),
    ("a lost client order id", _lose_and_renumber(EventKind.CLIENT_ORDER_ID), "more events must belong to it"),
    ("lost order terms", _lose_and_renumber(EventKind.ORDER_TERMS), "more events must belong to it"),
    ("an id of another order", _add(EventKind.CLIENT_ORDER_ID, "order_id", 1), "expected order .* found"),
    ("terms of another account", _add(EventKind.ORDER_TERMS, "account", 1), "expected order .* found"),
    ("terms of another instrument", _add(EventKind.ORDER_TERMS, "instrument", 1), "expected order .* found"),
    ("events that do not follow", _add(EventKind.NEW, "following", 2), "must belong to it|expected at most|to come"),
    ("an account opened twice", _add(EventKind.ACCOUNT_OPENED, "account", -1, nth=1), "account 1 exists already"),
    ("an asset added twice", _add(EventKind.ASSET_ADDED, "asset", -1, nth=1), "asset 1 exists already"),
    ("an instrument of nothing", _add(EventKind.INSTRUMENT_ADDED, "base_asset", 9, nth=0), "expected a known asset"),
]


@pytest.mark.parametrize(("bug", "message"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
@pytest.mark.parametrize("batch", [97, 10**6])
def test_false_stream_is_refused(bug: Callable[[Events], Events], message: str, batch: int) -> None:
    events = bug(market_events())
    ledger = Ledger()
    with pytest.raises(Violation, match=message):
        feed(ledger, events, batch)


def feed(ledger: Ledger, events: Events, batch: int) -> None:
    for start in range(0, len(events), batch):
        ledger.post(events[start : start + batch])
    ledger.check_sums()


def test_violation_names_the_event() -> None:
    events = market_events()
    row = index_of(events, EventKind.DEPOSITED, 20)
    events.view(EVENT_LAYOUTS[EventKind.DEPOSITED])["available_after"][row] += 1
    with pytest.raises(Violation, match=f"^event {row + 1}: account") as caught:
        verify(events)
    assert caught.value.sequence == row + 1


def test_corrupted_balance_fails_the_sums() -> None:
    ledger = verify(market_events())
    table = ledger._tables.balances
    table["total"][np.flatnonzero(table["key"])[0]] += 1
    with pytest.raises(Violation, match=r"asset (BTC|USD): expected accounts to own \d+ in all .*, found \d+"):
        ledger.check_sums()


@given(st.data())
def test_arbitrary_events_raise_only_violation(data: st.DataObject) -> None:
    """Whatever the records contain, only Violation is ever raised."""
    events = market_events()[:400]
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, len(events) - 1))
        column = data.draw(st.sampled_from(events.dtype.names or ()))
        value = np.frombuffer(data.draw(st.binary(min_size=8, max_size=8)), np.uint64)
        events[column][row] = value.view(np.uint8)[: events.dtype[column].itemsize].view(events.dtype[column])[0]
    try:
        verify(events)
    except Violation as found:
        violation = found
    else:
        return
    assert 1 <= violation.sequence <= 401


@pytest.mark.parametrize("seed", range(4))
def test_books_equal_the_exchange_for_random_commands(seed: int) -> None:
    """The flow that compares engine and oracle has every kind of event; the books must be equal after it."""
    machine = Oracle()
    parts = [apply(machine, batch.commands, batch.time_ns).events for batch in seeded_tape(seed, 1500).batches]
    ledger = verify(np.concatenate(parts))
    found = {(b.account, b.asset): (b.available, b.held) for b in ledger.balances() if b.total or b.held}
    expected = {
        (account, asset): (available, held)
        for account, asset, available, held in machine.inspect.balances().tolist()
        if available or held
    }
    assert found == expected
    orders = machine.inspect.orders()
    assert ledger.order_leaves() == dict(zip(orders["order_id"].tolist(), orders["leaves_lots"].tolist(), strict=True))
    assert ledger.trades == machine.match_sequence
