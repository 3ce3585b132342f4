"""Find records by their ids: one search for each index of state.py. Each returns a slot, 0 if there is none."""

from typing import Any

import numpy as np

from smrx.engine.kernels.hash_index import NO_EXTRA, find
from smrx.engine.kernels.jit import NIL, U0, Record, Tables, inlined, view_as
from smrx.engine.kernels.layouts import ORDER_DETAILS_WORDS
from smrx.engine.kernels.order_details import same_text
from smrx.engine.kernels.state_hash import pack_pair


@inlined
def has_session_id(session: Record, key: Any, _: Any) -> Any:
    return session.session_id == key


@inlined
def find_session(state: Tables, session_id: Any) -> Any:
    return find(state.session_index, state.sessions, has_session_id, session_id, NO_EXTRA)


@inlined
def has_account_id(account: Record, key: Any, _: Any) -> Any:
    return np.uint64(account.account_id) == key


@inlined
def find_account(state: Tables, account_id: Any) -> Any:
    return find(state.account_index, state.accounts, has_account_id, np.uint64(account_id), NO_EXTRA)


@inlined
def has_credential_id(credential: Record, key: Any, _: Any) -> Any:
    return np.uint64(credential.credential_id) == key


@inlined
def find_credential(state: Tables, number: Any) -> Any:
    return find(state.credential_index, state.credentials, has_credential_id, np.uint64(number), NO_EXTRA)


@inlined
def has_key_form(credential: Record, key: Any, _: Any) -> Any:
    return credential.key_form == key


@inlined
def find_key_form(state: Tables, form: Any) -> Any:
    """Find a credential by the xxh3 of its key, which no other has."""
    return find(state.key_index, state.credentials, has_key_form, form, NO_EXTRA)


@inlined
def has_asset_id(asset: Record, key: Any, _: Any) -> Any:
    return np.uint64(asset.asset_id) == key


@inlined
def find_asset(state: Tables, asset_id: Any) -> Any:
    return find(state.asset_index, state.assets, has_asset_id, np.uint64(asset_id), NO_EXTRA)


@inlined
def has_instrument_id(instrument: Record, key: Any, _: Any) -> Any:
    return np.uint64(instrument.instrument_id) == key


@inlined
def find_instrument(state: Tables, instrument_id: Any) -> Any:
    return find(state.instrument_index, state.instruments, has_instrument_id, np.uint64(instrument_id), NO_EXTRA)


@inlined
def has_price(level: Record, key: Any, number: Any) -> Any:
    return np.uint64(level.price) == key and level.book == number


@inlined
def find_level(state: Tables, number: Any, price: Any) -> Any:
    """Find the level of a price in the book with a number."""
    return find(state.level_index, state.levels, has_price, np.uint64(price), np.uint32(number))


@inlined
def has_order_id(order: Record, key: Any, _: Any) -> Any:
    return order.order_id == key


@inlined
def find_order(state: Tables, order_id: Any) -> Any:
    return find(state.order_index, state.orders, has_order_id, order_id, NO_EXTRA)


@inlined
def has_client_order_id(order: Record, key: Any, account_id: Any) -> Any:
    return order.client_order_id == key and order.account_id == account_id


@inlined
def find_client_order(state: Tables, form: Any, account_id: Any) -> Any:
    """Find the open order of an account by the 64-bit form of its client order id, which no other of its orders has."""
    return find(state.client_index, state.orders, has_client_order_id, form, account_id)


@inlined
def details_of(state: Tables, command: Record) -> Any:
    """Return the details of a command, as those of an order; an empty record if it has none."""
    if command.details == 0:
        return view_as(state.order_details[0], ORDER_DETAILS_WORDS)
    return state.details[np.int64(command.details) - 1]


@inlined
def find_named_client_order(state: Tables, command: Record) -> Any:
    """Find the open order of the command's account by the command's client order id, of any length."""
    slot = find_client_order(state, state.turn[0].client_order_id, command.account)
    if slot == NIL or command.client_order_id != U0:
        return slot
    # Another long id may have the same form.
    is_same = same_text(state.order_details[state.orders[slot].details], details_of(state, command))
    return slot if is_same else NIL


@inlined
def has_pair(balance: Record, key: Any, _: Any) -> Any:
    return pack_pair(balance.account_id, balance.asset_id) == key


@inlined
def find_balance(state: Tables, account_id: Any, asset_id: Any) -> Any:
    return find(state.balance_index, state.balances, has_pair, pack_pair(account_id, asset_id), NO_EXTRA)


@inlined
def has_transfer_id(transfer: Record, key: Any, _: Any) -> Any:
    return transfer.transfer_id == key


@inlined
def find_transfer(state: Tables, transfer_id: Any) -> Any:
    return find(state.transfer_index, state.transfers, has_transfer_id, transfer_id, NO_EXTRA)
