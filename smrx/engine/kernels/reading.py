"""Read the state: find records by their ids, walk lists, sum hashes. Changes nothing.

Entry points apart from `apply`, so that a change here compiles in seconds. Each takes the addresses of a state (see
compiled.py) and writes slots to an array of the caller, in time that follows the number of slots. Called by inspect.py.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import INTERPRETED, NIL, U0, Array, Tables, entry_point, fingerprint, kernel
from smrx.engine.kernels.lookup import (
    find_account,
    find_asset,
    find_balance,
    find_client_order,
    find_credential,
    find_instrument,
    find_key_form,
    find_order,
    find_session,
    find_transfer,
)
from smrx.engine.kernels.numba_tables import InterpretedState, state_of, table_of
from smrx.engine.kernels.state_hash import BALANCE_TAG, balance_hash, pack_pair
from smrx.engine.kernels.xxh3 import hash4
from smrx.engine.state import ASSETS, State
from smrx.wire.command_list import NO_DETAILS

#: Every module whose source is compiled into these entry points.
MODULES: Final = (
    "smrx.wire.codes",
    "smrx.wire.records",
    "smrx.engine.state",
    *(
        f"{__package__}.{name}"
        for name in (
            "jit", "xxh3", "layouts", "numba_tables", "hash_index", "order_details", "lookup", "state_hash", "reading",
        )
    ),
)  # fmt: skip

#: What find_record finds; a key is one or two numbers.
ORDER_BY_ID: Final = 0
ORDER_BY_CLIENT_ID: Final = 1  # the 64-bit form and the account
BALANCE: Final = 2  # account and asset
ACCOUNT: Final = 3
ASSET: Final = 4
INSTRUMENT: Final = 5
SESSION: Final = 6
TRANSFER: Final = 7
CREDENTIAL: Final = 8
KEY: Final = 9  # the xxh3 of a credential's key

#: Any instrument, for walk_orders.
ANY: Final = -1


@kernel
def find_by_key(state: Tables, what: Any, key: Any, other: Any) -> Any:
    """Return the slot of the record of a kind with a key; 0 if there is none."""
    if what == ORDER_BY_ID:
        return find_order(state, key)
    if what == ORDER_BY_CLIENT_ID:
        return find_client_order(state, key, np.uint32(other))
    if what == BALANCE:
        return find_balance(state, np.uint32(key), np.uint32(other))
    if what == ACCOUNT:
        return find_account(state, np.uint32(key))
    if what == ASSET:
        return find_asset(state, np.uint32(key))
    if what == INSTRUMENT:
        return find_instrument(state, np.uint32(key))
    if what == SESSION:
        return find_session(state, key)
    if what == TRANSFER:
        return find_transfer(state, key)
    if what == CREDENTIAL:
        return find_credential(state, key)
    if what == KEY:
        return find_key_form(state, key)
    return NIL


@kernel
def walk_account_orders(state: Tables, slot: Any, instrument: Any, steps: Any, found: Array) -> Any:
    """Write the orders of an account's list from a slot on, those of an instrument or of all, to `found`.

    Looks at so many orders at most. Returns how many were found, and the first order not looked at; 0 at the end.
    """
    count = 0
    while slot != NIL and steps > 0 and count < len(found):
        order = state.orders[slot]
        if instrument == ANY or np.int64(order.instrument_id) == instrument:
            found[count] = slot
            count += 1
        slot = order.newer
        steps -= 1
    return count, slot


@kernel
def walk_account_transfers(state: Tables, slot: Any, account_id: Any, newest: Any, found: Array) -> Any:
    """Write an account's transfers to `found`, from a slot to older ones; return how many, and the next; 0 at the end.

    All are of commands before `newest`. A link may lead to a slot that was freed, and used again, since: then all older
    ones of the account are gone too.
    """
    count = 0
    newest = np.uint64(newest)
    while slot != NIL:
        transfer = state.transfers[slot]
        if transfer.live == 0 or transfer.account_id != account_id or transfer.sequence >= newest:
            return count, NIL
        if count == len(found):
            return count, slot
        found[count] = slot
        count += 1
        newest = transfer.sequence
        slot = state.transfer_links[slot]
    return count, NIL


@kernel
def collect_balances(state: Tables, account_id: Any, found: Array) -> Any:
    """Write the balances of an account to `found`, in the order in which the assets were added; return how many.

    One search for each asset. Balances that were reserved for an order and never paid into are left out.
    """
    count = 0
    for asset in range(1, np.int64(state.pools[ASSETS].top)):
        if state.assets[asset].live != 0:
            slot = find_balance(state, account_id, state.assets[asset].asset_id)
            if slot != NIL and state.balances[slot].live != 0 and count < len(found):
                found[count] = slot
                count += 1
    return count


@kernel
def collect_levels(state: Tables, book: Any, found: Array) -> Any:
    """Write the best levels of a book to `found`; return how many."""
    count = 0
    slot = state.books[book].best
    while slot != NIL and count < len(found):
        found[count] = slot
        count += 1
        slot = state.levels[slot].worse
    return count


@kernel
def sum_damage(state: Tables, first: Any, last: Any) -> Any:
    """Compare the balances in slots first..last-1 with their stored hashes.

    Returns what their differences change of the number of balances that are not zero, and of the sum of their hashes:
    0 and 0 unless memory is damaged.
    """
    count = np.int64(0)
    total = U0
    for slot in range(first, last):
        balance = state.balances[slot]
        if balance.live != 0:
            new = balance_hash(balance)
            if new != balance.hash:
                if (balance.available | balance.held) != 0:
                    count += 1
                    total += new
                if balance.hash != hash4(BALANCE_TAG, pack_pair(balance.account_id, balance.asset_id), U0, U0):
                    count -= 1
                    total -= balance.hash
    return count, total


def _compiled(source: int) -> tuple[Any, ...]:
    """Return the entry points. Their code depends on `source`, see compiled.py."""
    version = np.uint64(source)

    def find_at(table: Array, what: int, key: int, other: int) -> Any:
        if version == np.uint64(len(table)):  # never true, as in compiled.py
            return NIL
        return find_by_key(state_of(table), what, key, other)

    def orders_at(table: Array, slot: int, instrument: int, steps: int, found: Array) -> Any:
        if version == np.uint64(len(table)):
            return 0, NIL
        return walk_account_orders(state_of(table), np.uint32(slot), instrument, steps, table_of(found))

    def transfers_at(table: Array, slot: int, account_id: int, newest: int, found: Array) -> Any:
        if version == np.uint64(len(table)):
            return 0, NIL
        owner = np.uint32(account_id)
        return walk_account_transfers(state_of(table), np.uint32(slot), owner, np.uint64(newest), table_of(found))

    def balances_at(table: Array, account_id: int, found: Array) -> Any:
        if version == np.uint64(len(table)):
            return 0
        return collect_balances(state_of(table), np.uint32(account_id), table_of(found))

    def levels_at(table: Array, book: int, found: Array) -> Any:
        if version == np.uint64(len(table)):
            return 0
        return collect_levels(state_of(table), book, table_of(found))

    def damage_at(table: Array, first: int, last: int) -> Any:
        if version == np.uint64(len(table)):
            return 0, U0
        return sum_damage(state_of(table), first, last)

    return tuple(entry_point(each) for each in (find_at, orders_at, transfers_at, balances_at, levels_at, damage_at))


_find_at, _orders_at, _transfers_at, _balances_at, _levels_at, _damage_at = _compiled(fingerprint(*MODULES))


class Reader:
    """The entry points for one state."""

    def __init__(self, state: State, table: NDArray[np.uint64]) -> None:
        """`table`: the addresses of the state, see compiled.addresses."""
        self._state = state
        self._table = table

    def _run(self, compiled: Any, interpreted: Any, *arguments: Any) -> Any:
        if not INTERPRETED:
            return compiled(self._table, *arguments)
        with np.errstate(over="ignore"):
            return interpreted(InterpretedState(self._state, NO_DETAILS), *arguments)

    def find(self, what: int, key: int, other: int = 0) -> int:
        """Return the slot of the record of a kind with a key, 0 if there is none."""
        return int(self._run(_find_at, find_by_key, what, np.uint64(key), np.uint64(other)))

    def orders(self, slot: int, instrument: int, steps: int, found: NDArray[np.uint32]) -> tuple[int, int]:
        """See walk_account_orders."""
        count, following = self._run(_orders_at, walk_account_orders, slot, instrument, steps, found)
        return int(count), int(following)

    def transfers(self, slot: int, account: int, newest: int, found: NDArray[np.uint32]) -> tuple[int, int]:
        """See walk_account_transfers."""
        count, following = self._run(_transfers_at, walk_account_transfers, slot, account, newest, found)
        return int(count), int(following)

    def balances(self, account: int, found: NDArray[np.uint32]) -> int:
        """See collect_balances."""
        return int(self._run(_balances_at, collect_balances, account, found))

    def levels(self, book: int, found: NDArray[np.uint32]) -> int:
        """See collect_levels."""
        return int(self._run(_levels_at, collect_levels, book, found))

    def damage(self, first: int, last: int) -> tuple[int, int]:
        """See sum_damage."""
        count, total = self._run(_damage_at, sum_damage, first, last)
        return int(count), int(total)
