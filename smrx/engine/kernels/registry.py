"""Add accounts, assets and instruments. Called by apply.py."""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import AMOUNT_LIMIT
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, insert
from smrx.engine.kernels.jit import (
    NIL,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
    view_as,
)
from smrx.engine.kernels.layouts import (
    ASSET_COMMAND_WORDS,
    ASSET_EVENT_WORDS,
    INSTRUMENT_DETAILS_WORDS,
    INSTRUMENT_EVENT_WORDS,
)
from smrx.engine.kernels.lookup import details_of, find_asset, find_instrument
from smrx.engine.kernels.pool import append_slot, take_slot
from smrx.engine.kernels.state_hash import refresh_account, refresh_asset, refresh_instrument
from smrx.engine.state import ACCOUNTS, ASSETS, INSTRUMENTS
from smrx.wire.codes import AccountStatus, EventKind, InstrumentStatus, Reason
from smrx.wire.records import ACCOUNT_COMMAND, ACCOUNT_EVENT

MAX_DECIMALS: Final = 18


@kernel
def add_account(state: Tables, account_id: Any, firm: Any) -> None:
    """Add an account record."""
    slot = append_slot(state.pools[ACCOUNTS], state.accounts)
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
    account.firm = firm
    insert(state.account_index, np.uint64(account_id), NO_EXTRA, slot)
    refresh_account(state.core[0], account)


@inlined
def open_account(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked OPEN_ACCOUNT."""
    firm = view_as(command, ACCOUNT_COMMAND).firm
    add_account(state, command.account, firm)
    event = begin_event(state.core[0], state.turn[0], command, events, EventKind.ACCOUNT_OPENED)
    event.account = command.account
    view_as(event, ACCOUNT_EVENT).firm = firm
    outcome.event_kind = EventKind.ACCOUNT_OPENED


@inlined
def check_asset(state: Tables, command: Record) -> Any:
    """Return why an ADD_ASSET is rejected, or NONE."""
    added = view_as(command, ASSET_COMMAND_WORDS)
    if added.asset == 0:
        return Reason.INVALID_ID
    if find_asset(state, added.asset) != NIL:
        return Reason.ASSET_EXISTS
    if added.decimals > MAX_DECIMALS:
        return Reason.INVALID_QUANTITY
    if added.supply_cap < 0 or added.supply_cap >= AMOUNT_LIMIT:
        return Reason.INVALID_AMOUNT
    return Reason.NONE


@kernel
def add_asset(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked ADD_ASSET."""
    core = state.core[0]
    added = view_as(command, ASSET_COMMAND_WORDS)
    slot = take_slot(state.pools[ASSETS], state.assets)
    asset = state.assets[slot]
    asset.symbol_0 = added.symbol_0
    asset.symbol_1 = added.symbol_1
    asset.supply = 0
    asset.cap = added.supply_cap
    asset.hash = 0
    asset.asset_id = added.asset
    asset.decimals = np.uint32(added.decimals)
    insert(state.asset_index, np.uint64(added.asset), NO_EXTRA, slot)
    refresh_asset(core, asset)
    event = view_as(begin_event(core, state.turn[0], command, events, EventKind.ASSET_ADDED), ASSET_EVENT_WORDS)
    event.asset = added.asset
    event.symbol_0 = added.symbol_0
    event.symbol_1 = added.symbol_1
    event.supply_cap = added.supply_cap
    event.decimals = added.decimals
    outcome.event_kind = EventKind.ASSET_ADDED


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
    added = view_as(details_of(state, command), INSTRUMENT_DETAILS_WORDS)
    if find_asset(state, added.base_asset) == NIL:
        return Reason.UNKNOWN_ASSET
    if find_asset(state, added.quote_asset) == NIL:
        return Reason.UNKNOWN_ASSET
    lot = np.int64(added.lot_units)
    scale = np.int64(added.scale_units)
    if added.base_asset == added.quote_asset or lot < 1 or scale < 1:
        return Reason.INVALID_INSTRUMENT
    if added.max_price_ticks < 1 or added.max_quantity_lots < 1:
        return Reason.INVALID_INSTRUMENT
    if reaches_limit(added.max_price_ticks, added.max_quantity_lots, scale):
        return Reason.INVALID_INSTRUMENT
    if reaches_limit(added.max_quantity_lots, lot, np.int64(1)):
        return Reason.INVALID_INSTRUMENT
    return Reason.NONE


@kernel
def add_instrument(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked ADD_INSTRUMENT."""
    core = state.core[0]
    added = view_as(details_of(state, command), INSTRUMENT_DETAILS_WORDS)
    slot = take_slot(state.pools[INSTRUMENTS], state.instruments)
    instrument = state.instruments[slot]
    instrument.symbol_0 = added.symbol_0
    instrument.symbol_1 = added.symbol_1
    instrument.symbol_2 = added.symbol_2
    instrument.max_price = added.max_price_ticks
    instrument.max_quantity = added.max_quantity_lots
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
    instrument.base_id = added.base_asset
    instrument.quote_id = added.quote_asset
    instrument.lot_units = added.lot_units
    instrument.scale_units = added.scale_units
    instrument.status = InstrumentStatus.TRADING
    insert(state.instrument_index, np.uint64(command.instrument), NO_EXTRA, slot)
    refresh_instrument(core, instrument)
    event = view_as(
        begin_event(core, state.turn[0], command, events, EventKind.INSTRUMENT_ADDED), INSTRUMENT_EVENT_WORDS
    )
    event.instrument = command.instrument
    event.symbol_0 = added.symbol_0
    event.symbol_1 = added.symbol_1
    event.symbol_2 = added.symbol_2
    event.base_asset = added.base_asset
    event.quote_asset = added.quote_asset
    event.lot_units = added.lot_units
    event.scale_units = added.scale_units
    event.max_price_ticks = added.max_price_ticks
    event.max_quantity_lots = added.max_quantity_lots
    outcome.event_kind = EventKind.INSTRUMENT_ADDED
