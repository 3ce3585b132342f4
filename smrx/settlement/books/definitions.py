"""Post the events that define accounts, assets, instruments and their rules. Compiled."""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel, view_as
from smrx.follower.record_table import find, place
from smrx.settlement.books.event_rows import ASSET_ADDED, INSTRUMENT_ADDED, RULES_SET
from smrx.settlement.books.money import MAX_AMOUNT, MILLION, fee_of, set_numbers, signed
from smrx.settlement.books.posting_faults import Fault

# Plain integers, as kernels take them.
UNKNOWN_INSTRUMENT: Final = int(Fault.UNKNOWN_INSTRUMENT)
UNKNOWN_ASSET: Final = int(Fault.UNKNOWN_ASSET)
ACCOUNT_EXISTS: Final = int(Fault.ACCOUNT_EXISTS)
ASSET_EXISTS: Final = int(Fault.ASSET_EXISTS)
INSTRUMENT_EXISTS: Final = int(Fault.INSTRUMENT_EXISTS)
INSTRUMENT_RULES: Final = int(Fault.INSTRUMENT_RULES)
FEES_WITH_ORDERS: Final = int(Fault.FEES_WITH_ORDERS)
FEE_RATES: Final = int(Fault.FEE_RATES)


@kernel
def open_account(tables: Any, row: Any) -> Any:
    """Post ACCOUNT_OPENED."""
    key = row.account + 1
    if find(tables.accounts, key) >= 0:
        return ACCOUNT_EXISTS
    tables.accounts[place(tables.accounts, key)].key = key
    tables.core[0].accounts += 1
    return 0


@kernel
def add_asset(tables: Any, row: Any, numbers: Any) -> Any:
    """Post ASSET_ADDED."""
    added = view_as(row, ASSET_ADDED)
    key = signed(added.asset)
    if key == 0:
        set_numbers(numbers, key, 0, 0, 0)
        return UNKNOWN_ASSET
    if find(tables.assets, key) >= 0:
        return ASSET_EXISTS
    asset = tables.assets[place(tables.assets, key)]
    asset.key = key
    asset.symbol_0, asset.symbol_1 = added.symbol_0, added.symbol_1
    asset.decimals = added.decimals
    asset.supply = 0
    asset.cap = added.supply_cap if added.supply_cap > 0 else MAX_AMOUNT
    tables.core[0].assets += 1
    return 0


@kernel
def add_instrument(tables: Any, row: Any, numbers: Any) -> Any:
    """Post INSTRUMENT_ADDED; the worth of its largest order must not exceed MAX_AMOUNT."""
    added = view_as(row, INSTRUMENT_ADDED)
    key, base, quote = signed(added.instrument), signed(added.base_asset), signed(added.quote_asset)
    if find(tables.instruments, key) >= 0:
        return INSTRUMENT_EXISTS
    for asset in (base, quote):
        if find(tables.assets, asset) < 0:
            set_numbers(numbers, asset, 0, 0, 0)
            return UNKNOWN_ASSET
    lot_units, scale_units = signed(added.lot_units), signed(added.scale_units)
    price, quantity = added.max_price_ticks, added.max_quantity_lots
    if key == 0 or lot_units < 1 or scale_units < 1 or price < 1 or quantity < 1:
        return INSTRUMENT_RULES
    if price > MAX_AMOUNT // quantity // scale_units or quantity > MAX_AMOUNT // lot_units:
        return INSTRUMENT_RULES
    instrument = tables.instruments[place(tables.instruments, key)]
    instrument.key = key
    instrument.symbol_0, instrument.symbol_1 = added.symbol_0, added.symbol_1
    instrument.symbol_2 = added.symbol_2
    instrument.base = base
    instrument.quote = quote
    instrument.lot_units = lot_units
    instrument.scale_units = scale_units
    instrument.max_price = price
    instrument.max_quantity = quantity
    instrument.taker_fee = 0
    instrument.maker_fee = 0
    instrument.open_orders = 0
    tables.core[0].instruments += 1
    return 0


@kernel
def set_rules(tables: Any, row: Any, numbers: Any) -> Any:
    """Post RULES_SET: the fee rates from here on; refused while an order is open, which holds by the old ones."""
    at = find(tables.instruments, signed(row.instrument))
    if at < 0:
        return UNKNOWN_INSTRUMENT
    instrument = tables.instruments[at]
    rules = view_as(row, RULES_SET)
    taker_fee, maker_fee = signed(rules.taker_fee), signed(rules.maker_fee)
    if taker_fee > MILLION or maker_fee > taker_fee or maker_fee < -taker_fee:
        set_numbers(numbers, maker_fee, taker_fee, 0, 0)
        return FEE_RATES
    if taker_fee != instrument.taker_fee or maker_fee != instrument.maker_fee:
        if instrument.open_orders != 0:
            set_numbers(numbers, instrument.open_orders, 0, 0, 0)
            return FEES_WITH_ORDERS
        worth = instrument.max_price * instrument.scale_units
        if worth + fee_of(worth, taker_fee) > MAX_AMOUNT // instrument.max_quantity:
            return INSTRUMENT_RULES
        instrument.taker_fee, instrument.maker_fee = taker_fee, maker_fee
    return 0
