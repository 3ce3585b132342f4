"""Begin to load what the next commands of a batch will use, while the present one is applied.

The tables are larger than the processor's caches, and a command reads records at random places: a cell of an index, the
record that it names, the records that this one is linked to. Each is known only when the one before is loaded, so a
command is looked at several times, with a step done each time:

- `CELLS` commands ahead, the cells where the searches for its session, its order and its client order id begin;
- `RECORDS` commands ahead, the records that these cells name;
- `LINKS` commands ahead, the records that these are linked to;
- one command ahead, what a PLACE writes in records of other orders.

Changes nothing and decides nothing: a slot read here may be that of another record, or out of date, and then only time
is lost. Called by apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.answers import answer_of
from smrx.engine.kernels.hash_index import NO_EXTRA, key_hash
from smrx.engine.kernels.jit import LOW32, Array, Record, Tables, inlined, kernel, prefetch
from smrx.engine.kernels.numba_tables import prefetch_element
from smrx.engine.kernels.state_hash import pack_pair
from smrx.engine.state import BOOKS, ORDERS
from smrx.wire.codes import CommandKind

#: How many commands ahead each step is done. About 100 ns pass from one command to the next; memory takes as long.
CELLS: Final = 6
RECORDS: Final = 4
LINKS: Final = 2


@inlined
def first_cell(cells: Array, key: Any, extra: Any) -> Any:
    """Return the number of the cell where the search for a key begins. Seven of eight searches end there."""
    return key_hash(key, extra) & np.uint64(len(cells) - 1)


@inlined
def prefetch_cell(cells: Array, key: Any, extra: Any) -> None:
    """Begin to load the cell where the search for a key begins."""
    prefetch_element(cells, first_cell(cells, key, extra))


@inlined
def likely_slot(cells: Array, key: Any, extra: Any) -> Any:
    """Return the slot in that cell."""
    return np.uint32(cells[first_cell(cells, key, extra)] & LOW32)


@inlined
def prefetch_order(order: Record) -> None:
    """Begin to load an order."""
    prefetch(order, 0)
    prefetch(order, 1)


@inlined
def likely_order(state: Tables, command: Record) -> Any:
    """Return the order that a CANCEL or REPLACE names."""
    return state.orders[likely_slot(state.order_index, command.order_id, NO_EXTRA)]


@inlined
def likely_session(state: Tables, command: Record) -> Any:
    """Return the session of a command."""
    return state.sessions[likely_slot(state.session_index, command.session_id, NO_EXTRA)]


@inlined
def likely_instrument(state: Tables, command: Record) -> Any:
    """Return the slot of the instrument of a PLACE."""
    return likely_slot(state.instrument_index, np.uint64(command.instrument), NO_EXTRA)


@inlined
def likely_level(state: Tables, command: Record, instrument: Any) -> Any:
    """Return the slot of the level that a PLACE may rest at."""
    number = np.uint32(BOOKS * np.int64(instrument) + np.int64(command.side) - 1)
    return likely_slot(state.level_index, np.uint64(command.price_ticks), number)


@inlined
def prefetch_cells(state: Tables, command: Record, sequence: Any) -> None:
    """Begin to load the cells for the ids in a command that will have a sequence."""
    prefetch_cell(state.session_index, command.session_id, NO_EXTRA)
    if command.kind == CommandKind.PLACE:
        prefetch_cell(state.order_index, sequence, NO_EXTRA)
        prefetch_cell(state.client_index, command.client_order_id, command.account)
    elif command.kind == CommandKind.CANCEL or command.kind == CommandKind.REPLACE:
        prefetch_cell(state.order_index, command.order_id, NO_EXTRA)


@inlined
def prefetch_records(state: Tables, command: Record) -> None:
    """Begin to load the session and the order that a command names, and the cell for the level of a PLACE."""
    session = likely_session(state, command)
    prefetch(session, 0)
    prefetch(session, 1)
    if command.kind == CommandKind.PLACE:
        instrument = likely_instrument(state, command)
        number = np.uint32(BOOKS * np.int64(instrument) + np.int64(command.side) - 1)
        prefetch_cell(state.level_index, np.uint64(command.price_ticks), number)
        prefetch_cell(state.balance_index, pack_pair(command.account, state.instruments[instrument].base_id), NO_EXTRA)
        prefetch_cell(state.balance_index, pack_pair(command.account, state.instruments[instrument].quote_id), NO_EXTRA)
    elif command.kind == CommandKind.CANCEL or command.kind == CommandKind.REPLACE:
        prefetch_order(likely_order(state, command))


@inlined
def prefetch_links(state: Tables, command: Record) -> None:
    """Begin to load what a command will change beside its order: answer, account, level, neighbours, balances."""
    session = likely_session(state, command)
    prefetch(answer_of(state, session, command.request_id), 0)
    prefetch(state.accounts[session.account], 0)
    if command.kind == CommandKind.PLACE:
        instrument = likely_instrument(state, command)
        prefetch(state.levels[likely_level(state, command, instrument)], 0)
        index = state.balance_index
        base = pack_pair(command.account, state.instruments[instrument].base_id)
        quote = pack_pair(command.account, state.instruments[instrument].quote_id)
        prefetch(state.balances[likely_slot(index, base, NO_EXTRA)], 0)
        prefetch(state.balances[likely_slot(index, quote, NO_EXTRA)], 0)
    elif command.kind == CommandKind.CANCEL or command.kind == CommandKind.REPLACE:
        order = likely_order(state, command)
        orders = state.orders
        prefetch(state.levels[order.level], 0)
        # The links are in the second line of an order.
        prefetch(orders[order.before], 1)
        prefetch(orders[order.next], 1)
        prefetch(orders[order.older], 1)
        prefetch(orders[order.newer], 1)
        prefetch(state.balances[order.gives], 0)
        prefetch(state.balances[order.takes], 0)
        prefetch_cell(state.client_index, order.client_order_id, order.account_id)


@inlined
def prefetch_others(state: Tables, command: Record) -> None:
    """Begin to load the order that a PLACE will be linked behind, and the record that it will get."""
    if command.kind == CommandKind.PLACE:
        orders = state.orders
        level = state.levels[likely_level(state, command, likely_instrument(state, command))]
        prefetch(orders[level.last], 1)
        prefetch(orders[state.accounts[likely_session(state, command).account].last], 1)
        # The first free slot is that of the present command, if it takes one.
        prefetch_order(orders[orders[state.pools[ORDERS].free].next])


@kernel
def look_ahead(state: Tables, commands: Array, done: Any) -> None:
    """Do the steps that are due when so many commands of a batch are done."""
    left = len(commands) - done
    if left > CELLS:
        prefetch_cells(state, commands[done + CELLS], state.core[0].command_sequence + np.uint64(CELLS + 1))
    if left > RECORDS:
        prefetch_records(state, commands[done + RECORDS])
    if left > LINKS:
        prefetch_links(state, commands[done + LINKS])
    if left > 1:
        prefetch_others(state, commands[done + 1])
