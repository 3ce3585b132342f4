"""From the events alone a reader rebuilds every order, every book and every balance."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from smrx.engine import Engine
from smrx.engine.codes import EventKind
from tests.property.comparison import ALL_LEVELS, run
from tests.property.flow import STEPS, build_tape, seeded_steps
from tests.property.repeat import hex_command
from tests.reconstruct import Open, Reader


def rebuilt(reader: Reader) -> dict[str, Any]:
    """What the reader believes, in plain tuples."""
    names = ("order_id", "client_order_id", "account", "instrument", "side", "order_type", "tif", "flags")
    lots = ("price_ticks", "quantity_lots", "cum_lots", "leaves_lots")
    return {
        "orders": [_fields(order, (*names, *lots)) for _, order in sorted(reader.orders.items())],
        "balances": [(*key, money.available, money.held) for key, money in sorted(reader.balances.items())],
        "accounts": sorted(reader.accounts),
        "assets": [(asset, symbol, reader.supply(asset)) for asset, symbol in sorted(reader.assets.items())],
        "sessions": sorted(reader.sessions.items()),
        "books": {number: reader.depth(number) for number in sorted(reader.instruments)},
        "events": reader.sequence,
        "trades": reader.match_id,
    }


def _fields(order: Open, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(getattr(order, name) for name in names)


def actual(machine: Any) -> dict[str, Any]:
    """The same of the machine itself."""
    inspect = machine.inspect
    names = ["order_id", "client_order_id", "account", "instrument", "side", "order_type", "tif", "flags"]
    lots = ["price_ticks", "quantity_lots", "cum_lots", "leaves_lots"]
    instruments = sorted(int(number) for number in inspect.instruments()["instrument"])
    return {
        "orders": _rows(inspect.orders(), [*names, *lots]),
        "balances": sorted(_rows(inspect.balances(), ["account", "asset", "available", "held"])),
        "accounts": sorted(int(number) for number in inspect.accounts()["account"]),
        "assets": sorted(_rows(inspect.assets(), ["asset", "symbol", "supply"])),
        "sessions": sorted(_rows(inspect.sessions(), ["session_id", "account"])),
        "books": {number: _plain(inspect.depth(number, ALL_LEVELS)) for number in instruments},
        "events": machine.event_sequence,
        "trades": machine.trade_count,
    }


def _rows(table: np.ndarray[Any, Any], names: list[str]) -> list[tuple[int, ...]]:
    return [tuple(int(row[name]) for name in names) for row in table]


def _plain(depth: Any) -> Any:
    return tuple([tuple(int(number) for number in level) for level in side] for side in depth)


def run_and_rebuild(steps: list[bytes]) -> tuple[Engine, Reader, np.ndarray[Any, Any]]:
    machine, answers = run(Engine(), build_tape(steps))
    reader = Reader()
    reader.read(answers.events)
    return machine, reader, answers.events


@given(steps=STEPS)
def test_events_rebuild_the_state(steps: list[bytes]) -> None:
    engine, reader, _ = run_and_rebuild(steps)
    assert rebuilt(reader) == actual(engine), f"repeat: {hex_command(steps)}"


@pytest.mark.parametrize("seed", range(2))
def test_events_of_a_long_run_rebuild_the_state(seed: int) -> None:
    engine, reader, events = run_and_rebuild(seeded_steps(seed, 2_000))
    assert rebuilt(reader) == actual(engine)
    assert np.count_nonzero(events["kind"] == EventKind.TRADE) > 100
    assert len(reader.orders) > 10


@pytest.mark.parametrize("kind", [EventKind.TRADE, EventKind.CANCELLED, EventKind.NEW, EventKind.DEPOSITED])
def test_reader_notices_a_missing_event(kind: EventKind) -> None:
    """One event left out, its number closed up: the reader contradicts itself or the engine."""
    engine, _, events = run_and_rebuild(seeded_steps(3, 300))
    position = int(np.flatnonzero(events["kind"] == kind)[-1])
    short = np.delete(events, position)
    short["sequence"] = np.arange(1, len(short) + 1)
    reader = Reader()
    try:
        reader.read(short)
    except (AssertionError, KeyError):
        return
    assert rebuilt(reader) != actual(engine)
