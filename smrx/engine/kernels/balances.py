"""Balances, what orders hold of them, deposits and withdrawals.

Amounts are i64 minimal units; no sum of money can pass 2^62, because no asset's supply can. The notional of an
account's open orders can: it is stored as a number below 2^62 and a count of how often that was passed. Called by
apply.py, orders.py, matching.py, placing.py, replacing.py and triggering.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, insert
from smrx.engine.kernels.jit import (
    NIL,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_asset, find_balance, find_transfer
from smrx.engine.kernels.pool import take_slot
from smrx.engine.kernels.retention import append_transfer, forget_transfer
from smrx.engine.kernels.state_hash import (
    is_empty,
    pack_pair,
    refresh_asset,
    refresh_balance,
    refresh_moved_balance,
    refresh_transfer,
)
from smrx.engine.state import BALANCES, TRANSFERS
from smrx.wire.codes import CommandKind, EventKind, Reason

#: No amount, no supply and no product of an instrument's limits may reach this.
AMOUNT_LIMIT: Final = np.int64(1 << 62)


@kernel
def reserve_balance(state: Tables, account_id: Any, asset_id: Any) -> Any:
    """Return the slot of a balance; a new one is not live until something is paid into it."""
    slot = find_balance(state, account_id, asset_id)
    if slot == NIL:
        slot = take_slot(state.pools[BALANCES], state.balances)
        balance = state.balances[slot]
        balance.account_id = account_id
        balance.asset_id = asset_id
        balance.available = 0
        balance.held = 0
        balance.open = 0
        balance.open_wraps = 0
        balance.hash = 0
        balance.live = 0
        insert(state.balance_index, pack_pair(account_id, asset_id), NO_EXTRA, slot)
    return slot


@inlined
def credit(core: Record, balance: Record, amount: Any) -> None:
    """Pay into a balance, or out of it with a negative amount."""
    was_empty = is_empty(balance)
    balance.available += amount
    balance.live = 1
    refresh_balance(core, balance, was_empty)


@inlined
def release(core: Record, balance: Record, amount: Any) -> None:
    """Move held money back to available, or hold it with a negative amount."""
    if core.ledger != 0 and amount != 0:
        balance.available += amount
        balance.held -= amount
        refresh_moved_balance(core, balance)


@inlined
def add_open_notional(balance: Record, notional: Any) -> None:
    """Add the notional of an open order to the balance of its quote asset."""
    balance.open += notional
    if balance.open >= AMOUNT_LIMIT:
        balance.open -= AMOUNT_LIMIT
        balance.open_wraps = np.uint32(balance.open_wraps + 1)


@inlined
def subtract_open_notional(balance: Record, notional: Any) -> None:
    """Subtract notional that is no longer open."""
    balance.open -= notional
    if balance.open < 0:
        balance.open += AMOUNT_LIMIT
        balance.open_wraps = np.uint32(balance.open_wraps - 1)


@inlined
def exceeds_open_notional(balance: Record, less: Any, more: Any, limit: Any) -> Any:
    """Whether the open notional, less `less` and plus `more`, would be above a limit."""
    rest = balance.open - less
    wraps = np.int64(balance.open_wraps)
    if rest < 0:
        rest += AMOUNT_LIMIT
        wraps -= 1
    return wraps > 0 or rest + more > limit


@kernel
def check_transfer(state: Tables, command: Record) -> Any:
    """Return why a DEPOSIT or WITHDRAW is rejected, or NONE. Records asset and balance in `turn`."""
    turn = state.turn[0]
    turn.asset = find_asset(state, command.instrument)
    if turn.asset == NIL:
        return Reason.UNKNOWN_ASSET
    amount = command.quantity_lots
    if amount < 1 or amount >= AMOUNT_LIMIT:
        return Reason.INVALID_AMOUNT
    known = find_transfer(state, command.order_id)
    if known != NIL:
        transfer = state.transfers[known]
        same = (
            transfer.kind == command.kind
            and transfer.account_id == command.account
            and transfer.asset_id == command.instrument
            and transfer.amount == amount
        )
        return Reason.TRANSFER_ALREADY_DONE if same else Reason.TRANSFER_ID_REUSED
    turn.balance = find_balance(state, command.account, command.instrument)
    if command.kind == CommandKind.DEPOSIT:
        asset = state.assets[turn.asset]
        most = asset.cap if asset.cap != 0 else AMOUNT_LIMIT - 1
        return Reason.SUPPLY_EXCEEDED if asset.supply + amount > most else Reason.NONE
    if turn.balance == NIL or state.balances[turn.balance].available < amount:
        return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


@kernel
def transfer(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked DEPOSIT or WITHDRAW, and keep its id for a time, see retention.py."""
    core = state.core[0]
    turn = state.turn[0]
    depositing = command.kind == CommandKind.DEPOSIT
    amount = command.quantity_lots if depositing else -command.quantity_lots
    asset = state.assets[turn.asset]
    asset.supply += amount
    refresh_asset(core, asset)
    balance = state.balances[reserve_balance(state, command.account, command.instrument)]
    credit(core, balance, amount)
    if np.uint64(state.pools[TRANSFERS].live) >= core.transfers:
        forget_transfer(state)
    slot = take_slot(state.pools[TRANSFERS], state.transfers)
    done = state.transfers[slot]
    done.transfer_id = command.order_id
    done.amount = command.quantity_lots
    done.hash = 0
    done.account_id = command.account
    done.asset_id = command.instrument
    done.kind = np.uint32(command.kind)
    insert(state.transfer_index, command.order_id, NO_EXTRA, slot)
    append_transfer(state, slot)
    state.transfer_links[slot] = state.last_transfers[turn.account]
    state.last_transfers[turn.account] = slot
    refresh_transfer(core, done)
    kind = EventKind.DEPOSITED if depositing else EventKind.WITHDRAWN
    event = begin_event(core, turn, command, events, kind)
    event.account = command.account
    event.instrument = command.instrument
    event.order_id = command.order_id
    event.quantity_lots = command.quantity_lots
    event.cum_lots = balance.available
    outcome.event_kind = kind
    outcome.order_id = command.order_id
    outcome.cum_lots = balance.available
