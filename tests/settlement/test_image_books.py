"""State images taken from an engine in the middle of a market, and the books that start from them."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.engine import Engine
from smrx.follower.follow_errors import Violation
from smrx.node.state_images import HELD_SECONDS, StateImages, capture_image
from smrx.settlement.image_books import books_of, rows_of
from smrx.settlement.ledger import Ledger
from smrx.sinks.rows import DEFINITION_ROW, Catalogue, extract
from smrx.wire import state_image
from smrx.wire.codes import EventKind, OrderType
from smrx.wire.frames import FrameError
from smrx.wire.records import EVENT
from smrx.wire.state_image import StateImage
from tests.commands import apply
from tests.property.flow import seeded_tape

Events = NDArray[np.void]


@cache
def market() -> tuple[list[bytes], list[bytes]]:
    """Return, for each batch of a market with every kind of order, the state image before it, and its events."""
    engine = Engine()
    states, events = [], []
    for batch in seeded_tape(3, 1500).batches:
        states.append(capture_image(engine).data)
        events.append(apply(engine, batch.commands, batch.time_ns).events.tobytes())
    return states, events


def batches(first: int = 0) -> Events:
    return np.frombuffer(b"".join(market()[1][first:]), EVENT)


def middle() -> StateImage:
    return state_image.decode(market()[0][-30])


def test_books_from_any_image_end_like_those_from_event_1() -> None:
    whole = Ledger()
    whole.post(batches())
    states, _ = market()
    kinds = set()
    for at, state in list(enumerate(states))[1:]:
        found = state_image.decode(state)
        kinds |= set(found.tables["orders"]["order_type"].tolist())
        books = books_of(found)
        assert books.sequence == found.position.event_sequence
        books.post(batches(at))
        books.check_sums()
        assert books.balances_digest() == whole.balances_digest()
        assert books.order_leaves() == whole.order_leaves()
        assert (books.trades, books.supply()) == (whole.trades, whole.supply())
    assert {OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT} <= kinds


def test_image_round_trips_and_equal_states_have_equal_bytes() -> None:
    data = market()[0][-30]
    assert state_image.encode(state_image.decode(data)) == data
    for damaged in (b"", data[:-1], data[:1] + b"\x09" + data[2:]):
        with pytest.raises(FrameError, match="state image"):
            state_image.decode(damaged)


def test_definitions_of_an_image_are_those_of_the_events() -> None:
    """With every rule and the whole symbol; of rules and instruments the last definition counts."""
    state = middle()
    events = batches()
    known = extract(events[events["sequence"] <= state.position.event_sequence], Catalogue()).definitions
    columns = list(DEFINITION_ROW.names or ())[3:]
    last = {(int(row["kind"]), int(row["id"])): row[columns].tolist() for row in known}
    found = {(int(row["kind"]), int(row["id"])): row[columns].tolist() for row in rows_of(state).definitions}
    # Rules that were all taken back are none in the state.
    assert found == {key: row for key, row in last.items() if key in found or any(row[3:])}
    assert any(kind == EventKind.RULES_SET for kind, _ in found)


def test_image_has_the_texts_and_terms_of_open_orders() -> None:
    orders = np.concatenate([state_image.decode(state).tables["orders"] for state in market()[0][1:]])
    lengths = np.char.str_len(orders["client_order_id"])
    assert lengths.max() > 8
    assert ((lengths > 0) & (lengths <= 8)).any()
    for column in ("stop_price_ticks", "display_lots", "expiry_ns"):
        assert orders[column].any(), column


def _more(table: str, column: str, by: int = 1) -> Callable[[StateImage], None]:
    def damage(state: StateImage) -> None:
        rows = state.tables[table].copy()
        rows[column][len(rows) // 2] += by
        state.tables[table] = rows

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_more("balances", "available"), "expected accounts to own"),
        (_more("balances", "held"), "by the rules its open orders hold 1 less than its balance has as held"),
        (_more("assets", "supply"), "expected accounts to own"),
        (_more("orders", "quantity_lots"), "by the rules its open orders hold"),
        (_more("orders", "instrument", 99), "orders refer to the instrument"),
        (_more("accounts", "account"), "refer to the account|with the same id"),
    ],
)
def test_contradictory_image_is_refused(damage: Callable[[StateImage], None], message: str) -> None:
    state = middle()
    damage(state)
    with pytest.raises(Violation, match=message):
        books_of(state)


def test_first_difference_is_named() -> None:
    state, other = middle(), middle()
    assert state_image.difference(state, other) == ""
    _more("balances", "available")(other)
    row = state.tables["balances"][len(state.tables["balances"]) // 2]
    found = state_image.difference(other, state)
    assert found == (
        f"balances, account {row['account']}, asset {row['asset']}: available {row['available'] + 1}, expected "
        f"available {row['available']}"
    )
    other.tables["balances"] = state.tables["balances"][1:]
    assert ": none, expected account " in state_image.difference(other, state)


def test_image_is_kept_at_the_first_entry_after_a_command() -> None:
    tape, engine, state_images = seeded_tape(3, 1500).batches, Engine(), StateImages()
    apply(engine, tape[0].commands, tape[0].time_ns)
    at = engine.sequence + 1
    assert state_images.request(at, engine, 0.0) is None
    assert state_images.next_sequence == at
    apply(engine, tape[1].commands, tape[1].time_ns)
    state_images.capture(engine)
    expected = capture_image(engine)
    apply(engine, tape[2].commands, tape[2].time_ns)
    held = state_images.request(at, engine, 1.0)
    assert held is not None
    assert (held.position, held.data) == (expected.position, expected.data)
    # A place that is past is no longer available; the current one is, at once.
    assert state_images.request(at - 1, engine, 1.0) is None
    now = state_images.request(engine.sequence, engine, 1.0)
    assert now is not None
    assert now.position.command_sequence == engine.sequence
    # Without further requests the image is dropped; the next request finds none.
    assert state_images.request(engine.sequence + 9, engine, 2.0 + HELD_SECONDS) is None
    assert state_images.get(at, 2.0 + HELD_SECONDS) is None
    # Another state replaces this one: the requested place may have been passed.
    state_images.restart()
    state_images.capture(engine)
    assert state_images.get(engine.sequence + 9, 3.0) is None
