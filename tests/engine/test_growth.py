"""Tables and indexes that grow in steps: no table is copied, and every step leaves a state that is whole."""

from typing import Any

import numpy as np
import pytest

from smrx.engine import Engine, index_growth, memory, state
from smrx.engine.checks import invariants
from smrx.engine.index_growth import IndexGrowth
from smrx.engine.state import MOVED, SIZE
from tests.commands import apply
from tests.engine.test_buffer_growth import TINY
from tests.property.flow import seeded_tape


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every table address space, and let an index grow by a few slots in a call."""
    for module in (memory, state):
        monkeypatch.setattr(module, "SMALL_RECORDS", 0)
        monkeypatch.setattr(module, "RESERVED_RECORDS", 1 << 12)
    monkeypatch.setattr(index_growth, "_SLOTS", 3)
    monkeypatch.setattr(index_growth, "_SLOTS_PER_COMMAND", 0)
    monkeypatch.setattr(index_growth, "_CELLS", 16)


def batches() -> list[tuple[Any, int]]:
    return [(batch.commands, batch.time_ns) for batch in seeded_tape(3, 500).batches]


@pytest.mark.usefixtures("small_steps")
def test_growth_in_steps_changes_no_result_and_no_invariant() -> None:
    engine, expected = Engine(**TINY), Engine()
    places = {table.name: getattr(engine._state, table.name).ctypes.data for table in state.TABLES}
    growing: set[str] = set()
    for commands, time_ns in batches():
        found, wanted = apply(engine, commands, time_ns), apply(expected, commands, time_ns)
        assert found.outcomes.tobytes() == wanted.outcomes.tobytes()
        assert found.events.tobytes() == wanted.events.tobytes()
        assert found.hashes.tobytes() == wanted.hashes.tobytes()
        growing |= {growth.index for growth in engine._growing if growth._cells[MOVED]}
        assert invariants.violations(engine._state) == []
    assert {"order_index", "client_index", "balance_index", "level_index"} <= growing
    for table in state.TABLES:
        assert getattr(engine._state, table.name).ctypes.data == places[table.name], f"{table.name} was copied"
    assert engine.snapshot() == expected.snapshot()
    assert Engine.restore(engine.snapshot()).snapshot() == expected.snapshot()


@pytest.mark.usefixtures("small_steps")
def test_the_next_generation_holds_what_was_entered_until_it_is_used() -> None:
    engine = Engine(**TINY)
    for commands, time_ns in batches():
        apply(engine, commands, time_ns)
    cells = engine._state.order_index
    size = int(cells[SIZE])
    growth = IndexGrowth(engine._state, state.ORDERS, "order_index", 2 * size)
    partly = 0
    while growth.step(engine._state, 0):
        partly += int(1 < int(cells[MOVED]) < int(engine._state.pools["top"][state.ORDERS]))
        assert invariants.violations(engine._state) == []
    assert partly > 0
    assert (int(cells[SIZE]), int(cells[MOVED])) == (2 * size, 0)
    assert invariants.violations(engine._state) == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("fault", ["an entry is missing", "an entry stays", "a slot counts as entered"])
def test_fault_in_the_next_generation_is_found(fault: str) -> None:
    engine = Engine(**TINY)
    for commands, time_ns in batches():
        apply(engine, commands, time_ns)
    cells = engine._state.order_index
    size = 2 * int(cells[SIZE])
    growth = IndexGrowth(engine._state, state.ORDERS, "order_index", size)
    top = int(engine._state.pools["top"][state.ORDERS])
    while int(cells[MOVED]) < top // 2:
        assert growth.step(engine._state, 0)
    assert invariants.violations(engine._state) == []
    entered = size + int(np.flatnonzero(cells[size : 2 * size])[0])
    if fault == "an entry is missing":
        cells[entered] = 0
    elif fault == "an entry stays":
        free = size + int(np.flatnonzero(cells[size : 2 * size] == 0)[0])
        cells[free] = (cells[entered] & ~np.uint64(0xFFFF_FFFF)) | np.uint64(top + 1)
    else:
        cells[MOVED] = top
    assert any(found.startswith("order_index: ") for found in invariants.violations(engine._state))


def test_large_array_grows_in_place_and_is_released_in_parts() -> None:
    array = memory.growing_zeros(10_001, state.CELL)
    array[-1] = 7
    longer = memory.extended(array, 1_000_001, array.dtype)
    assert longer.ctypes.data == array.ctypes.data
    assert longer.ctypes.data % memory.CACHE_LINE == 0
    assert (int(longer[10_000]), int(longer[10_001:].any())) == (7, 0)
    longer[:] = 9
    memory.release(longer, 0, 500_000)
    assert (longer[500_000:] == 9).all()
    small = memory.growing_zeros(8, array.dtype)
    assert memory.extended(small, 99, array.dtype).ctypes.data != small.ctypes.data


def test_array_is_copied_if_there_is_no_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    array = memory.growing_zeros(10_001, state.CELL)
    array[5] = 6
    longer = memory.extended(array, 20_001, state.CELL)
    assert int(longer[5]) == 6
    assert longer.ctypes.data != array.ctypes.data
    cells = state.empty_index(10_000)
    assert len(state.in_use(cells)) == state.index_size(10_000)
