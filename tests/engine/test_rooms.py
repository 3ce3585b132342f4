"""Room never shows: one command of any number of steps, with buffers and tables that are always too small."""

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
from tests.commands import Commands, command, join, open_session, place
from tests.engine.desk import SECOND, Desk, same

_TABLES = ("orders", "levels", "accounts", "balances", "sessions", "instruments", "assets", "transfers")
TINY = dict.fromkeys(_TABLES, 1)


def tape(desk: Desk) -> list[tuple[Commands, int]]:
    """Batches in which single commands expire, trigger, cancel and sweep many orders at once."""
    limit = {"order_type": OrderType.STOP_LIMIT, "tif": TimeInForce.GTC}
    asks = [place(desk.sender(2), 2, Side.SELL, 2, 1_000 + at, display_lots=1) for at in range(40)]
    stops = [
        place(desk.sender(1), 1, Side.BUY, 3, 1_001 + at, stop_ticks=1_000 + at, **limit)  # type: ignore[arg-type]
        for at in range(40)
    ]  # fmt: skip
    bare = [
        place(desk.sender(1), 1, Side.SELL, 1, order_type=OrderType.STOP, tif=TimeInForce.IOC, stop_ticks=900 - at)
        for at in range(20)
    ]
    timed = [
        place(desk.sender(2), 2, Side.BUY, 1, 800 + at % 5, tif=TimeInForce.GTD, expiry_seconds=5 + at % 3)
        for at in range(60)
    ]
    own = [place(desk.sender(3), 3, Side.SELL, 1, 990) for _ in range(30)]
    first = place(desk.sender(3), 3, Side.BUY, 3, 1_000, stp=Stp.CANCEL_OLDEST)
    fall = place(desk.sender(3), 3, Side.SELL, 2_000, order_type=OrderType.MARKET, tif=TimeInForce.IOC, stp=0)
    session = open_session(70, 0, 1)
    watched = [place((70, at), 1 + at % 3, Side.SELL, 1, 5_000 + at) for at in range(1, 30)]
    budget = place(
        desk.sender(3), 3, Side.BUY, 9_000, order_type=OrderType.MARKET, tif=TimeInForce.IOC,
        flags=OrderFlags.QUOTE_BUDGET,
    )  # fmt: skip
    closing = command(CommandKind.SET_STATUS, desk.sender(0), instrument=1, side=4)
    return [
        (join([*asks, *stops, *bare, *timed, *own]), SECOND),
        (join([first, session, *watched]), 2 * SECOND),
        (join([fall]), 6 * SECOND),
        (join([budget, command(CommandKind.DISCONNECT, (70, 0))]), 6 * SECOND),
        (join([place(desk.sender(2), 2, Side.SELL, 5, 9_000), closing]), 9 * SECOND),
    ]


def played(**sizes: int) -> tuple[Desk, list[Any]]:
    desk = Desk(**sizes)
    return desk, [desk.engine.apply(commands, time_ns) for commands, time_ns in tape(desk)]


@pytest.mark.parametrize(("per_command", "least", "few"), [(0, 1, 0), (0, 2, 0), (1, 3, 0), (4, 5, 0), (4, 64, 8)])
@pytest.mark.parametrize("sizes", [{}, TINY], ids=["roomy", "tiny"])
def test_no_buffer_and_no_table_shows(
    per_command: int, least: int, few: int, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = played()
    monkeypatch.setattr(engine, "EVENTS_PER_COMMAND", per_command)
    monkeypatch.setattr(engine, "MIN_BUFFER_EVENTS", least)
    monkeypatch.setattr(engine, "SMALL_BATCH_COMMANDS", few)
    desk, found = played(**sizes)
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    desk.check()
    assert desk.open_ids() == []


def test_a_cascade_is_handed_out_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long one gets a buffer of untouched memory, and the events of it are not copied out of that."""
    _, expected = played()
    untouched = 5_000
    for name, value in (
        ("LARGE_CASCADE_EVENTS", 16),
        ("LARGE_BUFFER_EVENTS", untouched),
        ("EVENTS_PER_COMMAND", 0),
        ("SMALL_BATCH_COMMANDS", 0),
    ):
        monkeypatch.setattr(engine, name, value)
    _, found = played()
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    rooms = [memoryview(result.events.base).nbytes // EVENT.itemsize for result in found]
    assert rooms[2] == untouched > engine.MIN_BUFFER_USE * len(found[2].events)
    assert rooms[4] < untouched


def test_the_tape_does_what_it_says() -> None:
    _, results = played()
    kinds = [np.bincount(result.events["kind"], minlength=30) for result in results]
    assert kinds[1][EventKind.TRIGGERED] == 40
    assert kinds[1][EventKind.CANCELLED] == 30
    assert kinds[2][EventKind.EXPIRED] > 40
    assert kinds[2][EventKind.TRIGGERED] == 20
    assert kinds[3][EventKind.SESSION_DISCONNECTED] == 1
    assert kinds[4][EventKind.CANCELLED] > 0
    # Each of the single commands: all its events in one run, and counted.
    for result in results:
        assert int(result.outcomes["event_count"].sum()) == len(result.events)
        sequences = np.repeat(result.outcomes["sequence"], result.outcomes["event_count"])
        assert sequences.tolist() == result.events["command_sequence"].tolist()


def test_one_command_a_call_is_the_same() -> None:
    whole, single = Desk(), Desk()
    for commands, time_ns in tape(whole):
        expected = whole.engine.apply(commands, time_ns)
        parts = [single.engine.apply(commands[at : at + 1], time_ns) for at in range(len(commands))]
        assert np.concatenate([part.hashes for part in parts]).tolist() == expected.hashes.tolist()
        assert b"".join(part.events.tobytes() for part in parts) == expected.events.tobytes()


def test_a_snapshot_between_any_two_commands_goes_on_the_same() -> None:
    desk = Desk()
    for commands, time_ns in tape(desk):
        again = Engine.restore(desk.engine.snapshot())
        assert again.check_invariants() == []
        assert same(again.apply(commands, time_ns), desk.engine.apply(commands, time_ns))
        assert again.snapshot() == desk.engine.snapshot()


def test_without_a_ledger_the_same_orders_match() -> None:
    """Nobody is short of money on the tape, so the fills are those of an engine with a ledger; and nobody pays."""
    desk, results = Desk(ledger=False), []
    before = desk.engine.inspect.balances().tobytes()
    desk.rules(taker_fee=1_000)
    with_ledger = Desk()
    with_ledger.rules(taker_fee=1_000)
    for (bare, time_ns), (full, _) in zip(tape(desk), tape(with_ledger), strict=True):
        results.append((desk.engine.apply(bare, time_ns), with_ledger.engine.apply(full, time_ns)))
    names = [name for name in EVENT.names or () if name not in ("cum_lots", "leaves_lots")]
    for bare_result, full_result in results[:3]:
        assert bare_result.events[names].tolist() == full_result.events[names].tolist()
    assert desk.engine.inspect.balances().tobytes() == before
    trades = np.concatenate([result.events[result.events["kind"] == EventKind.TRADE] for result, _ in results])
    assert len(trades)
    assert not trades["cum_lots"].any()
    assert desk.engine.check_invariants() == []
    with pytest.raises(EngineError, match="without a ledger"):
        desk.engine.snapshot()


def test_without_reports_the_same_trades_come_alone() -> None:
    """The trades, their numbers included, and the books are those of an engine that reports everything."""
    desk, reporting = Desk(reports=False), Desk()
    bare_events, full_events = [], []
    for (bare, time_ns), (full, _) in zip(tape(desk), tape(reporting), strict=True):
        bare_events.append(desk.engine.apply(bare, time_ns).events)
        full_events.append(reporting.engine.apply(full, time_ns).events)
    bare, full = np.concatenate(bare_events), np.concatenate(full_events)
    of_orders = {
        EventKind.NEW, EventKind.PARTIALLY_FILLED, EventKind.FILLED, EventKind.CANCELLED, EventKind.EXPIRED,
        EventKind.REPLACED, EventKind.TRIGGERED,
    }  # fmt: skip
    assert np.isin(full["kind"], list(of_orders)).any()
    assert (bare["kind"] == EventKind.TRADE).any()
    assert bare.tobytes() == full[~np.isin(full["kind"], list(of_orders))].tobytes()
    assert desk.engine.inspect.orders().tobytes() == reporting.engine.inspect.orders().tobytes()
    assert desk.engine.check_invariants() == []
    with pytest.raises(EngineError, match="without order reports"):
        desk.engine.snapshot()


def test_a_call_that_was_broken_off_in_a_command_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a command is nothing that anybody may see."""
    desk = Desk()
    batches = tape(desk)
    desk.engine.apply(*batches[0])

    def no_memory(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_continued_buffer", no_memory)
        with pytest.raises(MemoryError):
            desk.engine.apply(*batches[1])
    with pytest.raises(EngineError, match="in the middle of a command"):
        desk.engine.apply(*batches[1])
