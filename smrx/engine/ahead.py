"""What the next commands of a batch will read, fetched into the cache while this one is handled.

A book of any size is spread over more memory than a core keeps near, and a command waits for that memory several
times. Commands of a batch are known in advance: so their index cells are asked for first, then the orders and levels
that those name, then what stands beside them. Nothing is changed and nothing depends on it: an order that is named
here may be gone when its command comes. Called by machine.py alone.
"""

from typing import Any, Final

import numpy as np

from .codes import CommandKind
from .index import NO_EXTRA, find, home
from .jit import U0, Array, Record, Tables, inlined, kernel
from .tables import prefetch

#: Orders from which on it is worth its work: fewer stay in the cache by themselves (two megabytes of records).
WORTH: Final = 1 << 14
#: Commands ahead at which cells, records and their neighbours are asked for: measured; a cache miss lasts less than
#: one ordinary command, and twice as far makes no difference.
CELLS: Final = 6
RECORDS: Final = 4
NEIGHBOURS: Final = 2


@inlined
def named_order(state: Tables, command: Record) -> Any:
    """The slot of the order that a CANCEL or REPLACE names, or 0."""
    if command.order_id != U0:
        return find(state.order_index, command.order_id, NO_EXTRA)
    return find(state.client_index, command.client_order_id, command.account)


@inlined
def names_an_order(command: Record) -> Any:
    return command.kind == CommandKind.CANCEL or command.kind == CommandKind.REPLACE


@inlined
def fetch_cells(state: Tables, command: Record, sequence: Any) -> None:
    """The index cells of a command whose sequence will be about this one."""
    if command.client_order_id != U0:
        prefetch(state.client_index[home(state.client_index, command.client_order_id, command.account)])
    if command.kind == CommandKind.PLACE:
        # The cell of the order that it will make.
        prefetch(state.order_index[home(state.order_index, sequence, NO_EXTRA)])
    elif command.order_id != U0:
        prefetch(state.order_index[home(state.order_index, command.order_id, NO_EXTRA)])


@inlined
def fetch_records(state: Tables, command: Record) -> None:
    """The order that a command names."""
    if names_an_order(command):
        prefetch(state.orders[named_order(state, command)])


@inlined
def fetch_neighbours(state: Tables, command: Record) -> None:
    """What stands beside the order that a command names: its level, its place in both lists, its other cell."""
    if names_an_order(command):
        order = state.orders[named_order(state, command)]
        prefetch(state.levels[order.level])
        prefetch(state.orders[order.before])
        prefetch(state.orders[order.next])
        prefetch(state.orders[order.older])
        prefetch(state.orders[order.newer])
        prefetch(state.client_index[home(state.client_index, order.client_order_id, order.account_id)])


@inlined
def worth_it(state: Tables) -> Any:
    """Whether there are so many orders that looking ahead helps."""
    return len(state.orders) > WORTH


@kernel
def look_ahead(state: Tables, commands: Array, at: Any) -> None:
    """Fetch for the commands behind number `at`."""
    last = len(commands) - 1
    if at + CELLS <= last:
        fetch_cells(state, commands[at + CELLS], state.core[0].command_sequence + np.uint64(CELLS + 1))
    if at + RECORDS <= last:
        fetch_records(state, commands[at + RECORDS])
    if at + NEIGHBOURS <= last:
        fetch_neighbours(state, commands[at + NEIGHBOURS])
