"""Check every event against the ones before it, and post it to the books. Compiled, exact integers.

Checks of the stream: sequences and match ids have no gaps, commands follow one another, time does not go back, every
kind is one of posting_table.py, a trade is followed by the fills of its maker and its taker, an order by the events
that belong to it. Checks of the content: see Fault. A fault leaves the books inside an event; they must not be used
after it.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.book_tables import LEADER_PLACE
from smrx.settlement.books.definitions import add_asset, add_instrument, open_account, set_rules
from smrx.settlement.books.following import expect_following, follow
from smrx.settlement.books.money import set_numbers, transfer
from smrx.settlement.books.open_orders import end, new, replace, trigger
from smrx.settlement.books.posting_faults import Fault
from smrx.settlement.books.posting_table import LAST_WITH_PLACE, Posting, posting_codes
from smrx.settlement.books.trades import fill, trade

_POSTING: Final = posting_codes()

# Plain integers, as kernels take them.
_REFUSED: Final = int(Posting.REFUSED)
_LAST_WITH_PLACE: Final = int(LAST_WITH_PLACE)
_REJECTED: Final = int(Posting.REJECTED)
_NEW: Final = int(Posting.NEW)
_TRADE: Final = int(Posting.TRADE)
_FILL: Final = int(Posting.FILL)
_END: Final = int(Posting.END)
_REPLACED: Final = int(Posting.REPLACED)
_TRIGGERED: Final = int(Posting.TRIGGERED)
_FOLLOWING: Final = int(Posting.FOLLOWING)
_TRANSFER: Final = int(Posting.TRANSFER)
_ACCOUNT_OPENED: Final = int(Posting.ACCOUNT_OPENED)
_ASSET_ADDED: Final = int(Posting.ASSET_ADDED)
_INSTRUMENT_ADDED: Final = int(Posting.INSTRUMENT_ADDED)
_RULES_SET: Final = int(Posting.RULES_SET)
_CREDENTIAL: Final = int(Posting.CREDENTIAL)
SEQUENCE: Final = int(Fault.SEQUENCE)
COMMAND: Final = int(Fault.COMMAND)
TIME_WITHIN: Final = int(Fault.TIME_WITHIN)
TIME_BACK: Final = int(Fault.TIME_BACK)
KIND: Final = int(Fault.KIND)
FILLS_MISSING: Final = int(Fault.FILLS_MISSING)
FILL_ALONE: Final = int(Fault.FILL_ALONE)
FOLLOWING_MISSING: Final = int(Fault.FOLLOWING_MISSING)
FOLLOWING_ALONE: Final = int(Fault.FOLLOWING_ALONE)


@kernel
def in_stream(tables: Any, row: Any, posting: Any, numbers: Any) -> Any:
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
    if posting <= _LAST_WITH_PLACE or core.due != 0 or core.following != 0:
        if posting == _REFUSED:
            return KIND
        if (posting == _FILL) != (core.due != 0):
            return FILL_ALONE if posting == _FILL else FILLS_MISSING
        if (posting == _FOLLOWING) != (core.following != 0):
            if posting == _FOLLOWING:
                return FOLLOWING_ALONE
            leader = tables.last[LEADER_PLACE]
            set_numbers(numbers, core.following, leader.sequence, leader.order_id, 0)
            return FOLLOWING_MISSING
    core.sequence = row.sequence
    core.command = row.command_sequence
    core.time_ns = row.time_ns
    return 0


@kernel
def post_one(tables: Any, row: Any, numbers: Any) -> Any:
    """Post one event; return the fault, or 0."""
    posting = _POSTING[row.kind]
    fault = in_stream(tables, row, posting, numbers)
    if fault != 0:
        return fault
    if posting == _TRADE:
        return trade(tables, row, numbers)
    if posting == _FILL:
        return fill(tables, row, numbers)
    if posting == _NEW:
        return new(tables, row, numbers)
    if posting == _END:
        return end(tables, row, numbers)
    if posting == _REPLACED:
        return replace(tables, row, numbers)
    if posting == _FOLLOWING:
        return follow(tables, row, numbers)
    if posting in (_REJECTED, _CREDENTIAL):
        return expect_following(tables, row, numbers) if row.following != 0 else 0
    if posting == _TRIGGERED:
        return trigger(tables, row, numbers)
    if posting == _TRANSFER:
        return transfer(tables, row, numbers)
    if posting == _ACCOUNT_OPENED:
        return open_account(tables, row)
    if posting == _ASSET_ADDED:
        return add_asset(tables, row, numbers)
    if posting == _INSTRUMENT_ADDED:
        return add_instrument(tables, row, numbers)
    if posting == _RULES_SET:
        return set_rules(tables, row, numbers)
    return 0
