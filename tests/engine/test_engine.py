"""Engine.apply and its buffers: any input bytes, buffer size, table size or price."""

import random
from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine, EngineError
from smrx.engine import engine as engine_module
from smrx.engine.engine import SMALL_BATCH_COMMANDS
from smrx.engine.state import BOOKS, LEVELS, NODES
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    OutcomeStatus,
    Reason,
    Side,
    TimeInForce,
)
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, EVENT, OUTCOME
from tests.commands import apply, command, join, place
from tests.engine.small_market import FUNDS, QUOTE, SmallMarket, busy_market, same_bytes


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_never_raise(seed: int) -> None:
    """Random bytes, some with a known kind and session: each command causes one event, and the state stays valid."""
    market = busy_market()
    source = random.Random(seed)
    noise = np.frombuffer(source.randbytes(3_000 * COMMAND.itemsize), COMMAND).copy()
    noise["kind"][::3] = [source.choice(list(CommandKind)) for _ in noise[::3]]
    noise["session_id"][1::3] = source.choice([1, 11, 12])
    before = market.engine.sequence
    result = market.engine.apply(noise, -(1 << 63))
    assert (result.outcomes["status"] != OutcomeStatus.ACCEPTED).all()
    applied = int(np.count_nonzero(result.outcomes["status"] == OutcomeStatus.REJECTED))
    assert market.engine.sequence == before + applied == before + len(result.events)
    assert (result.events["kind"] == EventKind.REJECTED).all()
    assert market.engine.time_ns == 1
    assert market.engine.check_invariants() == []
    assert market.engine.content_hash() == market.engine.recompute_content_hash()


def test_every_field_of_a_result_is_written() -> None:
    """The buffers are uninitialised memory, so an unwritten field would differ."""
    first, second = busy_market(), busy_market()
    dirt = [np.full(1 << 20, 0xEE, np.uint8) for _ in range(8)]
    del dirt
    commands = place(first.sender(1), 1, Side.BUY, 5, 111)
    assert same_bytes(apply(first.engine, commands, 7), apply(second.engine, commands, 7))


def test_empty_batch_changes_nothing() -> None:
    market = busy_market()
    before = (market.engine.state_hash, market.engine.sequence)
    result = market.engine.apply(np.zeros(0, COMMAND), 1 << 40)
    assert [len(part) for part in result] == [0, 0, 0]
    assert (market.engine.state_hash, market.engine.sequence) == before
    assert [part.dtype for part in result] == [OUTCOME, EVENT, np.uint64]


def test_commands_may_be_read_only_or_strided() -> None:
    commands = np.zeros(6, COMMAND)
    read_only = np.frombuffer(commands.tobytes(), COMMAND)
    expected = Engine().apply(commands, 1)
    assert same_bytes(Engine().apply(read_only, 1), expected)
    assert same_bytes(Engine().apply(np.zeros(12, COMMAND)[::2], 1), expected)
    assert commands.flags.writeable


@pytest.mark.parametrize("commands", [np.zeros(3, np.uint64), np.zeros((2, 2), COMMAND), np.zeros((), COMMAND)])
def test_array_that_is_not_commands_raises(commands: Any) -> None:
    with pytest.raises(EngineError, match="expected one dimension of COMMAND"):
        Engine().apply(commands, 1)


def test_initial_size_below_one_raises() -> None:
    with pytest.raises(EngineError, match="orders: expected an initial size of 1 or more, found 0"):
        Engine(orders=0)


def sweep(**sizes: int) -> tuple[SmallMarket, Any]:
    """Apply one batch with many small asks of two accounts, an order that takes them, and a mass cancel."""
    market = SmallMarket(**sizes)
    asks = [place(market.sender(1 + at % 2), 1 + at % 2, Side.SELL, 1, 100 + at % 7) for at in range(150)]
    take = place(market.sender(3), 3, Side.BUY, 148, 200, tif=TimeInForce.IOC)
    rest = command(CommandKind.MASS_CANCEL, market.sender(1), account=1)
    return market, market.send(join([*asks, take, rest]))


@pytest.mark.parametrize(("per_command", "least"), [(1, 2), (0, 2), (1, 3), (4, 64)])
def test_events_buffer_size_does_not_change_results(
    per_command: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = sweep()
    monkeypatch.setattr(engine_module, "EVENTS_PER_COMMAND", per_command)
    monkeypatch.setattr(engine_module, "MIN_BUFFER_EVENTS", least)
    market, found = sweep(orders=1, levels=1, accounts=1, balances=1, sessions=1, instruments=1, assets=1, transfers=1)
    assert same_bytes(found, expected)
    assert np.count_nonzero(found.events["kind"] == EventKind.TRADE) == 148
    assert market.engine.check_invariants() == []


def test_freed_slots_are_reused() -> None:
    """A small book needs no more memory however long it lives."""
    market = SmallMarket(orders=16, levels=16)
    sizes = [len(array) for array in market.engine._state]
    for step in range(300):
        market.buy(1, 5, 100 + step)
        market.sell(2, 4, 100 + step)
        market.send(command(CommandKind.MASS_CANCEL, market.sender(1), account=1))
    assert [len(array) for array in market.engine._state] == sizes
    assert market.engine.inspect.counts()["orders"] == 0


def depth_of_tree(engine: Engine, book: int) -> int:
    """Return the number of nodes on the longest path from the root of a price tree to a level."""
    levels, nodes = engine._state.levels, engine._state.nodes
    deepest = 0
    for level in levels[(levels["live"] != 0) & (levels["book"] == book)]:
        depth, parent = 0, int(level["parent"])
        while parent:
            depth, parent = depth + 1, int(nodes["parent"][parent])
        deepest = max(deepest, depth)
    return deepest


def price_sets() -> dict[str, list[int]]:
    source = random.Random(9)
    rising = list(range(1, 3_000))
    return {
        "rising": rising,
        "falling": rising[::-1],
        "random": source.sample(range(1, 1 << 45), 3_000),
        # The worst case: each price doubles the one before, and the tree is a list with one node for each bit.
        "powers of two": [1 << power for power in range(51)],
        "around powers of two": [(1 << power) + near for power in range(2, 50) for near in (-1, 0, 1)],
    }


@pytest.mark.parametrize("name", price_sets())
@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_levels_stay_sorted_in_a_shallow_tree(name: str, side: Side) -> None:
    """Any prices in any order, a third of them cancelled: the book is sorted, and no path in its tree is long."""
    market = SmallMarket()
    prices = price_sets()[name]
    if side == Side.BUY:
        # A bid holds price times lots, so the account needs that much.
        for transfer in range(900, 908):
            amount = 1 << 59 if transfer < 907 else 1 << 58
            market.send(
                command(
                    CommandKind.DEPOSIT, market.sender(0), account=1, instrument=QUOTE, order_id=transfer,
                    quantity_lots=amount - FUNDS,
                )
            )  # fmt: skip
    sent = market.send(join([place(market.sender(1), 1, side, 1 + at % 5, price) for at, price in enumerate(prices)]))
    ids = sent.outcomes["order_id"][::3].tolist()
    market.send(join([command(CommandKind.CANCEL, market.sender(1), account=1, order_id=one) for one in ids]))
    expected = sorted(((price, 1 + at % 5, 1) for at, price in enumerate(prices) if at % 3), reverse=side == Side.BUY)
    assert market.engine.inspect.depth(1, len(prices))[side - 1] == expected
    assert market.engine.check_invariants() == []
    limit = 2 * len(prices).bit_length() if name in ("rising", "falling", "random") else 62
    assert depth_of_tree(market.engine, BOOKS + side - 1) <= limit
    live = market.engine._state.pools["live"]
    assert live[NODES] == live[LEVELS] - 1


def test_last_65536_state_hashes_are_kept() -> None:
    market = SmallMarket()
    engine = market.engine
    noise = np.zeros(70_000, COMMAND)
    hashes = engine.apply(noise, 1).hashes
    newest = engine.sequence
    oldest = newest - 65_535
    assert engine.hash_at(newest) == engine.state_hash == int(hashes[-1])
    assert engine.hash_at(oldest) == int(hashes[len(hashes) - 65_536])
    assert engine.hash_at(oldest - 1) is None
    assert engine.hash_at(newest + 1) is None
    between = engine.hashes_between(newest - 9, newest)
    assert between is not None
    assert between.tolist() == hashes[-10:].tolist()
    assert engine.hashes_between(newest - 3, newest + 1) is None
    assert engine.hashes_between(oldest - 1, newest) is None
    assert engine.hashes_between(newest, newest - 1) is None
    assert Engine().hash_at(0) == 0


def test_engine_without_hashes_cannot_be_saved() -> None:
    engine = Engine(hash=False)
    engine.apply(np.zeros(3, COMMAND), 1)
    assert engine.state_hash == 0
    with pytest.raises(EngineError, match="without hashes"):
        engine.snapshot()


def test_unknown_kind_is_rejected_first() -> None:
    result = Engine().apply(np.zeros(2, COMMAND), 5)
    assert result.outcomes["reason"].tolist() == [Reason.UNKNOWN_KIND] * 2
    assert result.events["sequence"].tolist() == [1, 2]


def kept_by(part: Any) -> Any:
    """Return the memory that an array of a result keeps."""
    while getattr(part, "base", None) is not None:
        part = part.base
    return part


def test_small_result_does_not_keep_a_large_buffer() -> None:
    engine = Engine()
    results = [engine.apply(np.zeros(1, COMMAND), 1) for _ in range(2 * SMALL_BATCH_COMMANDS)]
    assert all(len(result.events) == 1 for result in results)
    for number in range(3):
        # Results of consecutive calls share an array, which is not larger than a small batch may fill.
        kept = {id(kept_by(result[number])): memoryview(kept_by(result[number])).nbytes for result in results}
        assert 1 < len(kept) <= 4
        assert max(kept.values()) <= 2 * engine.apply(np.zeros(1, COMMAND), 1)[number].itemsize * 160


@pytest.mark.parametrize("count", [1, 2, SMALL_BATCH_COMMANDS, SMALL_BATCH_COMMANDS + 1])
def test_results_do_not_change_with_later_calls(count: int) -> None:
    """Small batches share arrays, and each has a part of its own."""
    market = busy_market()
    result = market.engine.apply(np.zeros(count, COMMAND), 1)
    before = [part.tobytes() for part in result]
    assert result.events["sequence"].tolist() == list(
        range(market.engine.event_sequence - count + 1, market.engine.event_sequence + 1)
    )
    market.buy(3, 3, 110)
    market.engine.apply(np.ones(count, np.uint8).repeat(COMMAND.itemsize).view(COMMAND), 2)
    assert [part.tobytes() for part in result] == before
    for part in result:
        part[:] = np.zeros(1, part.dtype)


@pytest.mark.parametrize("count", [1, 2, SMALL_BATCH_COMMANDS, SMALL_BATCH_COMMANDS + 1])
def test_commands_with_gaps_between_them(count: int) -> None:
    """Each second record of an array, or a part of a larger record, is applied as a copy of it would be."""
    rows = np.zeros(2 * count, COMMAND)
    rows["kind"], rows["session_id"] = CommandKind.PLACE, np.arange(2 * count)
    wide = np.zeros(count, [("command", COMMAND), ("more", "u8")])
    wide["command"] = rows[::2]
    expected = busy_market().engine.apply(rows[::2].copy(), 1)
    assert expected.outcomes["session_id"].tolist() == list(range(0, 2 * count, 2))
    for commands in (rows[::2], wide["command"]):
        found = busy_market().engine.apply(commands, 1)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]


def test_small_batch_with_more_events_than_its_buffer_holds() -> None:
    """One order through 200 makers, alone and among others, gives the same events as one large call."""
    few, many = SmallMarket(), SmallMarket()
    for market in (few, many):
        market.send(join([place(market.sender(1), 1, Side.SELL, 1, 100) for _ in range(200)]))
    orders = [place(few.sender(account), account, Side.BUY, lots, 100) for account, lots in ((2, 1), (3, 199), (2, 3))]
    alone = few.send(join(orders))
    padded = apply(many.engine, join([*orders, CommandList(np.zeros(SMALL_BATCH_COMMANDS, COMMAND))]), 1)
    assert len(alone.events) == 3 * 200 + 3
    assert alone.events.tobytes() == padded.events[: len(alone.events)].tobytes()
    assert alone.outcomes.tobytes() == padded.outcomes[:3].tobytes()
    assert alone.hashes.tolist() == padded.hashes[:3].tolist()
