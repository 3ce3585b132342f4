"""Check the events that belong to the one before them, such as ORDER_TERMS and CREDENTIAL_NETWORKS. Compiled.

NEW, REJECTED and an EXPIRED without a NEW say how many of CLIENT_ORDER_ID and ORDER_TERMS follow. They follow at once,
in this order, each at most once, and name the same order. After CREDENTIAL_ADDED and CREDENTIAL_SET, which say so,
CREDENTIAL_NETWORKS names the same credential. Their content is not checked: it moves no money.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.book_tables import LEADER_PLACE
from smrx.settlement.books.money import set_numbers, signed
from smrx.settlement.books.posting_faults import Fault
from smrx.wire.codes import EventKind

_CLIENT_ORDER_ID: Final = int(EventKind.CLIENT_ORDER_ID)
_CREDENTIAL_ADDED: Final = int(EventKind.CREDENTIAL_ADDED)
_CREDENTIAL_SET: Final = int(EventKind.CREDENTIAL_SET)
_CREDENTIAL_NETWORKS: Final = int(EventKind.CREDENTIAL_NETWORKS)
_MOST: Final = 2

# Plain integers, as kernels take them.
FOLLOWING_COUNT: Final = int(Fault.FOLLOWING_COUNT)
FOLLOWING_ORDER: Final = int(Fault.FOLLOWING_ORDER)
FOLLOWING_DIFFERS: Final = int(Fault.FOLLOWING_DIFFERS)
NETWORKS_COUNT: Final = int(Fault.NETWORKS_COUNT)
NETWORKS_ALONE: Final = int(Fault.NETWORKS_ALONE)
NETWORKS_DIFFER: Final = int(Fault.NETWORKS_DIFFER)


@kernel
def is_of_credential(kind: Any) -> Any:
    """Whether the networks of a credential may follow an event of this kind, and nothing else."""
    return kind in (_CREDENTIAL_ADDED, _CREDENTIAL_SET)


@kernel
def expect_following(tables: Any, row: Any, numbers: Any) -> Any:
    """Record how many events must follow this one."""
    if is_of_credential(row.kind) and row.following > 1:
        return NETWORKS_COUNT
    if row.following > _MOST:
        set_numbers(numbers, _MOST, 0, 0, 0)
        return FOLLOWING_COUNT
    tables.core[0].following = row.following
    tables.last[LEADER_PLACE] = row
    return 0


@kernel
def follow(tables: Any, row: Any, numbers: Any) -> Any:
    """Post CLIENT_ORDER_ID, ORDER_TERMS or CREDENTIAL_NETWORKS, of which one is expected."""
    core, leader = tables.core[0], tables.last[LEADER_PLACE]
    if is_of_credential(leader.kind) or row.kind == _CREDENTIAL_NETWORKS:
        return follow_credential(core, leader, row, numbers)
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


@kernel
def follow_credential(core: Any, leader: Any, row: Any, numbers: Any) -> Any:
    """Post CREDENTIAL_NETWORKS, the one event that follows a credential. `instrument` is the credential's number."""
    set_numbers(numbers, signed(leader.instrument), leader.sequence, 0, 0)
    if not is_of_credential(leader.kind) or row.kind != _CREDENTIAL_NETWORKS:
        return NETWORKS_ALONE
    if row.instrument != leader.instrument or row.command_sequence != leader.command_sequence:
        return NETWORKS_DIFFER
    core.following -= 1
    return 0
