"""Add accounts, assets and instruments. Called by apply.py."""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import AMOUNT_LIMIT
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, insert
from smrx.engine.kernels.jit import (
    NIL,
    U32,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_asset, find_instrument
from smrx.engine.kernels.pool import take_slot
from smrx.engine.kernels.state_hash import refresh_account, refresh_asset, refresh_instrument
from smrx.engine.state import ACCOUNTS, ASSETS, INSTRUMENTS
from smrx.wire.codes import AccountStatus, EventKind, InstrumentStatus, Reason

MAX_DECIMALS: Final = 18


@kernel
def add_account(state: Tables, account_id: Any) -> None:
    """Add an account record."""
    slot = take_slot(state.pools[ACCOUNTS], state.accounts)
    account = state.accounts[slot]
    account.account_id = account_id
    account.status = AccountStatus.ACTIVE
    account.hash = 0
    account.max_open_notional = 0
    account.max_order_notional = 0
    account.max_order_quantity = 0
    account.max_open_orders = 0
    account.first = 0
    account.last = 0
    account.orders = 0
    insert(state.account_index, np.uint64(account_id), NO_EXTRA, slot)
    refresh_account(state.core[0], account)


@inlined
def open_account(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked OPEN_ACCOUNT."""
    add_account(state, command.account)
    begin_event(state.core[0], state.turn[0], command, events, EventKind.ACCOUNT_OPENED).account = command.account
    outcome.event_kind = EventKind.ACCOUNT_OPENED


@inlined
def check_asset(state: Tables, command: Record) -> Any:
    """Return why an ADD_ASSET is rejected, or NONE."""
    if command.instrument == 0:
        return Reason.INVALID_ID
    if find_asset(state, command.instrument) != NIL:
        return Reason.ASSET_EXISTS
    if command.quantity_lots < 0 or command.quantity_lots > MAX_DECIMALS:
        return Reason.INVALID_QUANTITY
    if command.price_ticks < 0 or command.price_ticks >= AMOUNT_LIMIT:
        return Reason.INVALID_AMOUNT
    return Reason.NONE


@kernel
def add_asset(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked ADD_ASSET."""
    core = state.core[0]
    slot = take_slot(state.pools[ASSETS], state.assets)
    asset = state.assets[slot]
    asset.symbol = command.client_order_id
    asset.supply = 0
    asset.cap = command.price_ticks
    asset.hash = 0
    asset.asset_id = command.instrument
    asset.decimals = np.uint32(command.quantity_lots)
    insert(state.asset_index, np.uint64(command.instrument), NO_EXTRA, slot)
    refresh_asset(core, asset)
    event = begin_event(core, state.turn[0], command, events, EventKind.ASSET_ADDED)
    event.instrument = command.instrument
    event.client_order_id = command.client_order_id
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots
    outcome.event_kind = EventKind.ASSET_ADDED


# ADD_INSTRUMENT has its own names for the bytes of a command (records.INSTRUMENT_COMMAND). Kernels see the names of
# COMMAND, so four of its fields are assembled here.


@inlined
def scale_units(command: Record) -> Any:
    """Bytes 4..7."""
    return np.uint32(
        np.uint32(command.stp)
        | (np.uint32(command.flags) << np.uint32(8))
        | (np.uint32(command.reserved) << np.uint32(16))
    )


@inlined
def lot_units(command: Record) -> Any:
    """Bytes 24..27."""
    return command.account


@inlined
def base_asset(command: Record) -> Any:
    """Bytes 40..43."""
    return np.uint32(command.order_id & np.uint64(0xFFFF_FFFF))


@inlined
def quote_asset(command: Record) -> Any:
    """Bytes 44..47."""
    return np.uint32(command.order_id >> U32)


@inlined
def reaches_limit(first: Any, second: Any, third: Any) -> Any:
    """Whether a product of three numbers >= 1 reaches AMOUNT_LIMIT, without overflow."""
    if first > (AMOUNT_LIMIT - 1) // second:
        return True
    return first * second > (AMOUNT_LIMIT - 1) // third


@kernel
def check_instrument(state: Tables, command: Record) -> Any:
    """Return why an ADD_INSTRUMENT is rejected, or NONE."""
    if command.instrument == 0:
        return Reason.INVALID_ID
    if find_instrument(state, command.instrument) != NIL:
        return Reason.INSTRUMENT_EXISTS
    base = base_asset(command)
    quote = quote_asset(command)
    if find_asset(state, base) == NIL:
        return Reason.UNKNOWN_ASSET
    if find_asset(state, quote) == NIL:
        return Reason.UNKNOWN_ASSET
    lot = np.int64(lot_units(command))
    scale = np.int64(scale_units(command))
    if base == quote or lot < 1 or scale < 1 or command.price_ticks < 1 or command.quantity_lots < 1:
        return Reason.INVALID_INSTRUMENT
    if reaches_limit(command.price_ticks, command.quantity_lots, scale):
        return Reason.INVALID_INSTRUMENT
    if reaches_limit(command.quantity_lots, lot, np.int64(1)):
        return Reason.INVALID_INSTRUMENT
    return Reason.NONE


@kernel
def add_instrument(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked ADD_INSTRUMENT."""
    core = state.core[0]
    slot = take_slot(state.pools[INSTRUMENTS], state.instruments)
    instrument = state.instruments[slot]
    instrument.symbol = command.client_order_id
    instrument.max_price = command.price_ticks
    instrument.max_quantity = command.quantity_lots
    instrument.min_price = 0
    instrument.min_quantity = 0
    instrument.min_notional = 0
    instrument.max_notional = 0
    instrument.taker_fee = 0
    instrument.maker_fee = 0
    instrument.band_bp = 0
    instrument.last_price = 0
    instrument.fee_balance = 0
    instrument.hash = 0
    instrument.instrument_id = command.instrument
    instrument.base_id = base_asset(command)
    instrument.quote_id = quote_asset(command)
    instrument.lot_units = lot_units(command)
    instrument.scale_units = scale_units(command)
    instrument.status = InstrumentStatus.TRADING
    insert(state.instrument_index, np.uint64(command.instrument), NO_EXTRA, slot)
    refresh_instrument(core, instrument)
    event = begin_event(core, state.turn[0], command, events, EventKind.INSTRUMENT_ADDED)
    event.instrument = command.instrument
    event.client_order_id = command.client_order_id
    event.account = instrument.lot_units
    event.counter_account = instrument.scale_units
    event.order_id = np.uint64(instrument.base_id)
    event.counter_order_id = np.uint64(instrument.quote_id)
    event.price_ticks = command.price_ticks
    event.quantity_lots = command.quantity_lots
    outcome.event_kind = EventKind.INSTRUMENT_ADDED
