"""Check the events that belong to the one before them: CLIENT_ORDER_ID, then ORDER_TERMS. Compiled.

NEW, REJECTED and an EXPIRED without a NEW say how many follow. They follow at once, in this order, each at most once,
and name the same order. Their content is not checked: it moves no money.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.book_tables import LEADER_PLACE
from smrx.settlement.books.money import set_numbers, signed
from smrx.settlement.books.posting_faults import Fault
from smrx.wire.codes import EventKind

_CLIENT_ORDER_ID: Final = int(EventKind.CLIENT_ORDER_ID)
_MOST: Final = 2

# Plain integers, as kernels take them.
FOLLOWING_COUNT: Final = int(Fault.FOLLOWING_COUNT)
FOLLOWING_ORDER: Final = int(Fault.FOLLOWING_ORDER)
FOLLOWING_DIFFERS: Final = int(Fault.FOLLOWING_DIFFERS)


@kernel
def expect_following(tables: Any, row: Any, numbers: Any) -> Any:
    """Record how many events must follow this one."""
    if row.following > _MOST:
        set_numbers(numbers, _MOST, 0, 0, 0)
        return FOLLOWING_COUNT
    tables.core[0].following = row.following
    tables.last[LEADER_PLACE] = row
    return 0


@kernel
def follow(tables: Any, row: Any, numbers: Any) -> Any:
    """Post CLIENT_ORDER_ID or ORDER_TERMS, of which one is expected."""
    core, leader = tables.core[0], tables.last[LEADER_PLACE]
    # The id is the first, the terms are the last.
    if core.following != (leader.following if row.kind == _CLIENT_ORDER_ID else 1):
        set_numbers(numbers, leader.sequence, core.following, 0, 0)
        return FOLLOWING_ORDER
    if (
        row.order_id != leader.order_id
        or row.account != leader.account
        or row.instrument != leader.instrument
        or row.command_sequence != leader.command_sequence
    ):
        set_numbers(numbers, leader.order_id, signed(leader.account), signed(leader.instrument), leader.sequence)
        return FOLLOWING_DIFFERS
    core.following -= 1
    return 0
