"""Begin to load what the next commands of a batch will use, while the present one is applied.

The tables are larger than the processor's caches, and a command reads records at random places: a cell of an index, the
record that it names, the records that this one is linked to. Each is known only when the one before is loaded, so a
command is looked at several times, with a step done each time:

- `CELLS` commands ahead, the cells where the searches for its session, its order, its level and its balances begin;
- `RECORDS` commands ahead, the records that these cells name;
- `LINKS` commands ahead, the records that these are linked to;
- one command ahead, what is known only then: the last order of the account, and the record that a PLACE will get.

What a step finds is kept for the next one, in a ring of AHEAD records. A step does the same for every kind of command:
which kind comes next is not predictable, and a wrong guess of the processor costs more than loads that are not needed.
A field that a kind does not have is 0, and what is found for it is a record that is often used.

Changes nothing and decides nothing: a slot read here may be that of another record, or out of date, and then only time
is lost. Called by apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.answers import answer_of
from smrx.engine.kernels.hash_index import NO_EXTRA, key_hash
from smrx.engine.kernels.jit import LOW32, NIL, U0, Array, Record, Tables, either, inlined, kernel, prefetch
from smrx.engine.kernels.layouts import AHEAD_RECORDS
from smrx.engine.kernels.numba_tables import prefetch_element
from smrx.engine.kernels.state_hash import pack_pair
from smrx.engine.state import BOOKS, ORDERS
from smrx.wire.codes import CommandKind

#: So many balances, and their index, stay in the cache.
FEW: Final = 4096
#: How many commands ahead each step is done. About 100 ns pass from one command to the next; memory takes as long.
CELLS: Final = 6
RECORDS: Final = 4
LINKS: Final = 2

_MASK: Final = AHEAD_RECORDS - 1


@inlined
def load_cell(cells: Array, key: Any, extra: Any) -> Any:
    """Begin to load the cell where the search for a key begins; return its number. Most searches end there."""
    cell = np.uint32(key_hash(key, extra) & np.uint64(len(cells) - 1))
    prefetch_element(cells, cell)
    return cell


@inlined
def slot_in(cells: Array, cell: Any) -> Any:
    """Return the slot in a cell."""
    return np.uint32(cells[cell] & LOW32)


@inlined
def prefetch_order(order: Record) -> None:
    """Begin to load an order."""
    prefetch(order, 0)
    prefetch(order, 1)


@inlined
def load_cells(state: Tables, command: Record, ahead: Record, sequence: Any) -> None:
    """Begin to load the cells for a command that will have a sequence, which is the id of the order of a PLACE."""
    is_place = command.kind == CommandKind.PLACE
    ahead.session_cell = load_cell(state.session_index, command.session_id, NO_EXTRA)
    ahead.order_cell = load_cell(
        state.order_index, command.order_id | (sequence & (U0 - np.uint64(is_place))), NO_EXTRA
    )
    ahead.client_cell = load_cell(state.client_index, command.client_order_id, command.account)
    # Few instruments are used often, and then their records are at hand.
    cells = state.instrument_index
    slot = slot_in(cells, np.uint32(key_hash(np.uint64(command.instrument), NO_EXTRA) & np.uint64(len(cells) - 1)))
    instrument = state.instruments[slot]
    number = np.uint32(BOOKS * np.int64(slot) + np.int64(command.side) - 1)
    ahead.level_cell = load_cell(state.level_index, np.uint64(command.price_ticks), number)
    if len(state.balances) > FEW:
        ahead.base_cell = load_cell(state.balance_index, pack_pair(command.account, instrument.base_id), NO_EXTRA)
        ahead.quote_cell = load_cell(state.balance_index, pack_pair(command.account, instrument.quote_id), NO_EXTRA)


@inlined
def load_records(state: Tables, ahead: Record) -> None:
    """Begin to load the session, the order, the level and the balances that these cells name."""
    ahead.session = slot_in(state.session_index, ahead.session_cell)
    order = slot_in(state.order_index, ahead.order_cell)
    order = either(order != NIL, order, slot_in(state.client_index, ahead.client_cell))
    ahead.order = order
    ahead.level = slot_in(state.level_index, ahead.level_cell)
    session = state.sessions[ahead.session]
    prefetch(session, 0)
    prefetch(session, 1)
    prefetch_order(state.orders[order])
    prefetch(state.levels[ahead.level], 0)
    if len(state.balances) > FEW:
        prefetch(state.balances[slot_in(state.balance_index, ahead.base_cell)], 0)
        prefetch(state.balances[slot_in(state.balance_index, ahead.quote_cell)], 0)


@inlined
def load_links(state: Tables, command: Record, ahead: Record) -> None:
    """Begin to load what a command will change beside its order: answer, account, level, neighbours, balances."""
    session = state.sessions[ahead.session]
    prefetch(answer_of(state, session, command.request_id), 0)
    prefetch(state.accounts[session.account], 0)
    orders = state.orders
    # The links are in the second line of an order.
    prefetch(orders[state.levels[ahead.level].last], 1)
    order = orders[ahead.order]
    prefetch(state.levels[order.level], 0)
    prefetch(orders[order.before], 1)
    prefetch(orders[order.next], 1)
    prefetch(orders[order.older], 1)
    prefetch(orders[order.newer], 1)
    if len(state.balances) > FEW:
        prefetch(state.balances[order.gives], 0)
        prefetch(state.balances[order.takes], 0)
    load_cell(state.client_index, order.client_order_id, order.account_id)


@inlined
def load_others(state: Tables, ahead: Record) -> None:
    """Begin to load the order that a PLACE will be linked behind, and the record that it will get."""
    orders = state.orders
    prefetch(orders[state.accounts[state.sessions[ahead.session].account].last], 1)
    # The first free slot is that of the present command, if it takes one.
    prefetch_order(orders[orders[state.pools[ORDERS].free].next])


@inlined
def ahead_of(state: Tables, at: Any) -> Any:
    """Return what was found for a command of the batch."""
    return state.ahead[at & _MASK]


@kernel
def look_ahead(state: Tables, commands: Array, done: Any) -> None:
    """Do the steps that are due when so many commands of a batch are done."""
    left = len(commands) - done
    if left > CELLS:
        at = done + CELLS
        sequence = state.core[0].command_sequence + np.uint64(CELLS + 1)
        load_cells(state, commands[at], ahead_of(state, at), sequence)
    if left > RECORDS:
        load_records(state, ahead_of(state, done + RECORDS))
    if left > LINKS:
        load_links(state, commands[done + LINKS], ahead_of(state, done + LINKS))
    if left > 1:
        load_others(state, ahead_of(state, done + 1))


@kernel
def look_at_first(state: Tables, commands: Array, done: Any) -> None:
    """Do the steps for the first commands of a call that look_ahead would have done before."""
    left = len(commands) - done
    for place in range(min(CELLS, left)):
        sequence = state.core[0].command_sequence + np.uint64(place + 1)
        load_cells(state, commands[done + place], ahead_of(state, done + place), sequence)
    for place in range(min(RECORDS, left)):
        load_records(state, ahead_of(state, done + place))
    for place in range(min(LINKS, left)):
        load_links(state, commands[done + place], ahead_of(state, done + place))
