"""Check every event against the ones before it, and post it to the books. Compiled, exact integers.

Checks of the stream: sequences and match ids have no gaps, commands follow one another, time does not go back, kinds
are valid, a trade is followed by the fills of its maker and its taker. Checks of the content: see Fault. A fault leaves
the books inside an event; they must not be used after it.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.definitions import add_asset, add_instrument, open_account, set_rules
from smrx.settlement.books.money import set_numbers, transfer
from smrx.settlement.books.open_orders import end, new, replace, trigger
from smrx.settlement.books.posting_faults import Fault
from smrx.settlement.books.trades import fill, trade
from smrx.wire.codes import EventKind

_NEW: Final = int(EventKind.NEW)
_PARTIALLY_FILLED: Final = int(EventKind.PARTIALLY_FILLED)
_FILLED: Final = int(EventKind.FILLED)
_CANCELLED: Final = int(EventKind.CANCELLED)
_REPLACED: Final = int(EventKind.REPLACED)
_EXPIRED: Final = int(EventKind.EXPIRED)
_TRADE: Final = int(EventKind.TRADE)
_DEPOSITED: Final = int(EventKind.DEPOSITED)
_WITHDRAWN: Final = int(EventKind.WITHDRAWN)
_ACCOUNT_OPENED: Final = int(EventKind.ACCOUNT_OPENED)
_ASSET_ADDED: Final = int(EventKind.ASSET_ADDED)
_INSTRUMENT_ADDED: Final = int(EventKind.INSTRUMENT_ADDED)
_RULES_SET: Final = int(EventKind.RULES_SET)
_TRIGGERED: Final = int(EventKind.TRIGGERED)
_LAST_KIND: Final = int(max(EventKind))

# Plain integers, as kernels take them.
SEQUENCE: Final = int(Fault.SEQUENCE)
COMMAND: Final = int(Fault.COMMAND)
TIME_WITHIN: Final = int(Fault.TIME_WITHIN)
TIME_BACK: Final = int(Fault.TIME_BACK)
KIND: Final = int(Fault.KIND)
FILLS_MISSING: Final = int(Fault.FILLS_MISSING)
FILL_ALONE: Final = int(Fault.FILL_ALONE)


@kernel
def in_stream(tables: Any, row: Any, numbers: Any) -> Any:
    """Check that an event follows the one before it, and advance to it."""
    core = tables.core[0]
    if row.sequence != core.sequence + 1:
        return SEQUENCE
    step = row.command_sequence - core.command
    if (step != 0 or core.sequence == 0) and step != 1:
        set_numbers(numbers, core.command, core.command + 1, 0, 0)
        return COMMAND
    if row.time_ns != core.time_ns and core.sequence != 0:
        set_numbers(numbers, core.time_ns, 0, 0, 0)
        if step == 0:
            return TIME_WITHIN
        if row.time_ns < core.time_ns:
            return TIME_BACK
    if row.kind < _NEW or row.kind > _LAST_KIND:
        return KIND
    is_fill = row.kind == _PARTIALLY_FILLED or row.kind == _FILLED
    if is_fill != (core.due != 0):
        return FILL_ALONE if is_fill else FILLS_MISSING
    core.sequence = row.sequence
    core.command = row.command_sequence
    core.time_ns = row.time_ns
    return 0


@kernel
def post_one(tables: Any, row: Any, numbers: Any) -> Any:
    """Post one event; return the fault, or 0."""
    fault = in_stream(tables, row, numbers)
    if fault != 0:
        return fault
    kind = row.kind
    if kind == _TRADE:
        return trade(tables, row, numbers)
    if kind == _PARTIALLY_FILLED or kind == _FILLED:  # noqa: SIM109
        return fill(tables, row, numbers)
    if kind == _NEW:
        return new(tables, row, numbers)
    if kind == _CANCELLED or kind == _EXPIRED:  # noqa: SIM109
        return end(tables, row, numbers)
    if kind == _REPLACED:
        return replace(tables, row, numbers)
    if kind == _TRIGGERED:
        return trigger(tables, row, numbers)
    if kind == _DEPOSITED or kind == _WITHDRAWN:  # noqa: SIM109
        return transfer(tables, row, numbers)
    if kind == _ACCOUNT_OPENED:
        return open_account(tables, row)
    if kind == _ASSET_ADDED:
        return add_asset(tables, row, numbers)
    if kind == _INSTRUMENT_ADDED:
        return add_instrument(tables, row, numbers)
    if kind == _RULES_SET:
        return set_rules(tables, row, numbers)
    return 0
