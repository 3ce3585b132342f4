"""`view_as` gives the same bytes other names, compiled and interpreted."""

from typing import Any

import numpy as np
import pytest
from numba import TypingError, njit

from smrx.engine.kernels import layouts
from smrx.engine.kernels.jit import INTERPRETED, _view_as_interpreted, view_as
from smrx.engine.kernels.numba_tables import (
    InterpretedTable,
    interpreted,
    table_of,
)
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE, LIMITS_COMMAND, TRANSFER_COMMAND


def read(commands: Any, slot: Any) -> Any:
    limits = view_as(table_of(commands)[slot], LIMITS_COMMAND)
    return limits.account, limits.max_open_orders, limits.max_open_notional


def write(commands: Any, slot: Any, amount: Any) -> None:
    view_as(table_of(commands)[slot], TRANSFER_COMMAND).amount = amount


def choose(commands: Any, second: Any) -> Any:
    """A record and a view of another one on two paths have one type."""
    tables = table_of(commands)
    chosen = view_as(tables[1], COMMAND) if second else tables[0]
    return chosen.account


def wrong_size(commands: Any) -> Any:
    return view_as(table_of(commands)[0], DETAILS).display_lots


def commands() -> Any:
    records = np.zeros(3, COMMAND)
    records["account"] = [5, 6, 7]
    records["instrument"] = (1 << 32) - 1
    records["order_id"] = (1 << 64) - 9
    return records


def test_compiled_view_reads_and_writes_the_same_bytes() -> None:
    records = commands()
    assert njit(read)(records, 1) == (6, (1 << 32) - 1, -9)
    njit(write)(records, 2, -3)
    assert records["quantity_lots"].tolist() == [0, 0, -3]
    assert njit(choose)(records, True) == 6
    assert njit(choose)(records, False) == 5


def test_interpreted_view_reads_and_writes_the_same_bytes() -> None:
    records = commands()
    table = interpreted(records)
    assert isinstance(table, InterpretedTable)
    limits = _view_as_interpreted(table[1], LIMITS_COMMAND)
    assert [int(limits.account), int(limits.max_open_orders), int(limits.max_open_notional)] == [6, (1 << 32) - 1, -9]
    _view_as_interpreted(table[2], TRANSFER_COMMAND).amount = -3
    assert records["quantity_lots"].tolist() == [0, 0, -3]
    # A view of a view.
    again = _view_as_interpreted(_view_as_interpreted(table[0], TRANSFER_COMMAND), COMMAND)
    assert int(again.account) == 5


@pytest.mark.skipif(INTERPRETED, reason="NumPy finds it")
def test_layout_of_another_size_does_not_compile() -> None:
    with pytest.raises(TypingError, match="expected a layout of the size"):
        njit(wrong_size)(commands())


def test_interpreted_layout_of_another_size_raises() -> None:
    with pytest.raises(ValueError, match="size"):
        _view_as_interpreted(interpreted(commands())[0], DETAILS)


def unused(bits: Any, kind: int, size: int) -> set[int]:
    """Return the bytes that a kind must not set."""
    row = bits.view(np.uint8).reshape(-1, size)[kind]
    assert set(row.tolist()) <= {0, 0xFF}
    return set(np.flatnonzero(row).tolist())


def test_unused_bits_of_some_kinds() -> None:
    """The bytes of a few kinds, written down; the differential tests compare all of them with the oracle."""
    every = set(range(COMMAND_SIZE))
    sender = {0, 6, 7, *range(8, 24)}
    assert unused(layouts.COMMAND_UNUSED, CommandKind.PLACE, COMMAND_SIZE) == set(range(40, 48))
    assert unused(layouts.COMMAND_UNUSED, CommandKind.KILL, COMMAND_SIZE) == every - sender
    assert unused(layouts.COMMAND_UNUSED, CommandKind.TICK, COMMAND_SIZE) == every - {0, 6, 7}
    disconnect = {0, 6, 7, *range(8, 16)}
    credential = set(range(112, 116))
    assert unused(layouts.COMMAND_UNUSED, CommandKind.DISCONNECT, COMMAND_SIZE) == every - disconnect
    assert unused(layouts.COMMAND_UNUSED, 0, COMMAND_SIZE) == every
    assert unused(layouts.DETAILS_UNUSED, CommandKind.PLACE, DETAILS_SIZE) == set(range(88, 128)) - credential
    assert unused(layouts.DETAILS_UNUSED, CommandKind.CANCEL, DETAILS_SIZE) == set(range(64, 128)) - credential
    assert unused(layouts.DETAILS_UNUSED, CommandKind.ADD_INSTRUMENT, DETAILS_SIZE) == set(range(56, 128))
    assert unused(layouts.DETAILS_UNUSED, CommandKind.TICK, DETAILS_SIZE) == set(range(128))
    assert len(layouts.COMMAND_UNUSED) == 8 * layouts.KINDS == 8 * (max(CommandKind) + 1)
