"""Buffers and tables that are too small: they grow in the middle of any command, and the results stay the same."""

from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine, EngineError, engine
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OrderFlags,
    OrderType,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import EVENT
from tests.commands import Commands, apply, command, join, open_session, place
from tests.engine.small_market import SECOND, SmallMarket, same_bytes

_TABLES = ("orders", "levels", "accounts", "balances", "sessions", "instruments", "assets", "transfers")
TINY = dict.fromkeys(_TABLES, 1)


def tape(market: SmallMarket) -> list[tuple[Commands, int]]:
    """Return batches in which single commands expire, trigger, cancel and sweep many orders at once."""
    limit = {"order_type": OrderType.STOP_LIMIT, "tif": TimeInForce.GTC}
    asks = [
        place(market.sender(2), 2, Side.SELL, 2, 1_000 + at, display_lots=1, client_order_id=f"iceberg {at}")
        for at in range(40)
    ]
    stops = [
        place(market.sender(1), 1, Side.BUY, 3, 1_001 + at, stop_ticks=1_000 + at, **limit)  # type: ignore[arg-type]
        for at in range(40)
    ]  # fmt: skip
    bare = [
        place(market.sender(1), 1, Side.SELL, 1, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=900 - at)
        for at in range(20)
    ]
    timed = [
        place(market.sender(2), 2, Side.BUY, 1, 800 + at % 5, tif=TimeInForce.GTD, expiry_seconds=5 + at % 3)
        for at in range(60)
    ]
    own = [place(market.sender(3), 3, Side.SELL, 1, 990) for _ in range(30)]
    first = place(market.sender(3), 3, Side.BUY, 3, 1_000, stp=Stp.CANCEL_OLDEST)
    fall = place(market.sender(3), 3, Side.SELL, 2_000, order_type=OrderType.MARKET, tif=TimeInForce.IOC, stp=0)
    session = open_session(70, 0, 1)
    watched = [place((70, at), 1 + at % 3, Side.SELL, 1, 5_000 + at) for at in range(1, 30)]
    budget = place(
        market.sender(3), 3, Side.BUY, 9_000, order_type=OrderType.MARKET, tif=TimeInForce.IOC,
        flags=OrderFlags.QUOTE_BUDGET,
    )  # fmt: skip
    closing = command(CommandKind.SET_STATUS, market.sender(0), instrument=1, status=4)
    return [
        (join([*asks, *stops, *bare, *timed, *own]), SECOND),
        (join([first, session, *watched]), 2 * SECOND),
        (join([fall]), 6 * SECOND),
        (join([budget, command(CommandKind.DISCONNECT, (70, 0))]), 6 * SECOND),
        (join([place(market.sender(2), 2, Side.SELL, 5, 9_000), closing]), 9 * SECOND),
    ]


def apply_tape(**sizes: int) -> tuple[SmallMarket, list[Any]]:
    """Apply the tape to a new market."""
    market = SmallMarket(**sizes)
    return market, [apply(market.engine, commands, time_ns) for commands, time_ns in tape(market)]


@pytest.mark.parametrize(("per_command", "least", "few"), [(0, 1, 0), (0, 2, 0), (1, 3, 0), (4, 5, 0), (4, 64, 8)])
@pytest.mark.parametrize("sizes", [{}, TINY], ids=["large", "tiny"])
def test_buffer_and_table_sizes_do_not_change_results(
    per_command: int, least: int, few: int, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = apply_tape()
    monkeypatch.setattr(engine, "EVENTS_PER_COMMAND", per_command)
    monkeypatch.setattr(engine, "MIN_BUFFER_EVENTS", least)
    monkeypatch.setattr(engine, "SMALL_BATCH_COMMANDS", few)
    market, found = apply_tape(**sizes)
    assert all(same_bytes(a, b) for a, b in zip(expected, found, strict=True))
    market.check_state()
    assert market.open_ids() == []


def test_long_cascade_is_returned_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long cascade gets a buffer of untouched memory, and its events are not copied out of it."""
    _, expected = apply_tape()
    untouched = 5_000
    for name, value in (
        ("LARGE_CASCADE_EVENTS", 16),
        ("LARGE_BUFFER_EVENTS", untouched),
        ("EVENTS_PER_COMMAND", 0),
        ("SMALL_BATCH_COMMANDS", 0),
    ):
        monkeypatch.setattr(engine, name, value)
    _, found = apply_tape()
    assert all(same_bytes(a, b) for a, b in zip(expected, found, strict=True))
    capacities = [memoryview(result.events.base).nbytes // EVENT.itemsize for result in found]
    assert capacities[2] == untouched > engine.MIN_BUFFER_USE * len(found[2].events)
    assert capacities[4] < untouched


def test_tape_contains_the_intended_events() -> None:
    _, results = apply_tape()
    kinds = [np.bincount(result.events["kind"], minlength=30) for result in results]
    assert kinds[1][EventKind.TRIGGERED] == 40
    assert kinds[1][EventKind.CANCELLED] == 30
    assert kinds[2][EventKind.EXPIRED] > 40
    assert kinds[2][EventKind.TRIGGERED] == 20
    assert kinds[3][EventKind.SESSION_DISCONNECTED] == 1
    assert kinds[4][EventKind.CANCELLED] > 0
    # The events of each command are contiguous, and its outcome counts them.
    for result in results:
        assert int(result.outcomes["event_count"].sum()) == len(result.events)
        sequences = np.repeat(result.outcomes["sequence"], result.outcomes["event_count"])
        assert sequences.tolist() == result.events["command_sequence"].tolist()


def test_one_command_per_call_gives_the_same_results() -> None:
    whole, single = SmallMarket(), SmallMarket()
    for commands, time_ns in tape(whole):
        expected = apply(whole.engine, commands, time_ns)
        parts = [apply(single.engine, commands.part(at, at + 1), time_ns) for at in range(len(commands.records))]
        assert np.concatenate([part.hashes for part in parts]).tolist() == expected.hashes.tolist()
        assert b"".join(part.events.tobytes() for part in parts) == expected.events.tobytes()


def test_restored_engine_continues_identically() -> None:
    market = SmallMarket()
    for commands, time_ns in tape(market):
        again = Engine.restore(market.engine.snapshot())
        assert again.check_invariants() == []
        assert same_bytes(apply(again, commands, time_ns), apply(market.engine, commands, time_ns))
        assert again.snapshot() == market.engine.snapshot()


def test_same_orders_match_without_a_ledger() -> None:
    """No account is short of funds on the tape, so the fills equal those with a ledger, but no balance changes."""
    market, results = SmallMarket(ledger=False), []
    before = market.engine.inspect.balances().tobytes()
    market.set_rules(taker_fee=1_000)
    with_ledger = SmallMarket()
    with_ledger.set_rules(taker_fee=1_000)
    for (bare, time_ns), (full, _) in zip(tape(market), tape(with_ledger), strict=True):
        results.append((apply(market.engine, bare, time_ns), apply(with_ledger.engine, full, time_ns)))
    names = [name for name in EVENT.names or () if name not in ("cum_lots", "leaves_lots")]
    for bare_result, full_result in results[:3]:
        assert bare_result.events[names].tolist() == full_result.events[names].tolist()
    assert market.engine.inspect.balances().tobytes() == before
    trades = np.concatenate([result.events[result.events["kind"] == EventKind.TRADE] for result, _ in results])
    assert len(trades)
    assert not trades["cum_lots"].any()
    assert market.engine.check_invariants() == []
    with pytest.raises(EngineError, match="without a ledger"):
        market.engine.snapshot()


def test_only_the_same_trades_are_reported_without_reports() -> None:
    """The trades, their sequences and the books equal those of an engine that reports everything."""
    market, reporting = SmallMarket(reports=False), SmallMarket()
    bare_events, full_events = [], []
    for (bare, time_ns), (full, _) in zip(tape(market), tape(reporting), strict=True):
        bare_events.append(apply(market.engine, bare, time_ns).events)
        full_events.append(apply(reporting.engine, full, time_ns).events)
    bare, full = np.concatenate(bare_events), np.concatenate(full_events)
    of_orders = {
        EventKind.NEW, EventKind.PARTIALLY_FILLED, EventKind.FILLED, EventKind.CANCELLED, EventKind.EXPIRED,
        EventKind.REPLACED, EventKind.TRIGGERED, EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS,
    }  # fmt: skip
    assert np.isin(full["kind"], list(of_orders)).any()
    assert (bare["kind"] == EventKind.TRADE).any()
    assert bare.tobytes() == full[~np.isin(full["kind"], list(of_orders))].tobytes()
    assert market.engine.inspect.orders().tobytes() == reporting.engine.inspect.orders().tobytes()
    assert market.engine.check_invariants() == []
    with pytest.raises(EngineError, match="without order reports"):
        market.engine.snapshot()


def test_engine_refuses_commands_after_an_interrupted_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-applied command must not become visible."""
    market = SmallMarket()
    batches = tape(market)
    apply(market.engine, *batches[0])

    def no_memory(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_continued_buffer", no_memory)
        with pytest.raises(MemoryError):
            apply(market.engine, *batches[1])
    with pytest.raises(EngineError, match="in the middle of a command"):
        apply(market.engine, *batches[1])
