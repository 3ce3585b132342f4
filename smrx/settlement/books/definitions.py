"""Post the events that define accounts, assets, instruments and their rules. Compiled."""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel
from smrx.settlement.books.book_tables import find, place
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
    key = signed(row.instrument)
    if key == 0:
        set_numbers(numbers, key, 0, 0, 0)
        return UNKNOWN_ASSET
    if find(tables.assets, key) >= 0:
        return ASSET_EXISTS
    asset = tables.assets[place(tables.assets, key)]
    asset.key = key
    asset.symbol = row.client_order_id
    asset.decimals = row.quantity_lots
    asset.supply = 0
    asset.cap = row.price_ticks if row.price_ticks > 0 else MAX_AMOUNT
    tables.core[0].assets += 1
    return 0


@kernel
def add_instrument(tables: Any, row: Any, numbers: Any) -> Any:
    """Post INSTRUMENT_ADDED; the worth of its largest order must not exceed MAX_AMOUNT."""
    key = signed(row.instrument)
    if find(tables.instruments, key) >= 0:
        return INSTRUMENT_EXISTS
    for asset in (row.order_id, row.counter_order_id):
        if find(tables.assets, asset) < 0:
            set_numbers(numbers, asset, 0, 0, 0)
            return UNKNOWN_ASSET
    lot_units, scale_units = signed(row.account), signed(row.counter_account)
    if key == 0 or lot_units < 1 or scale_units < 1 or row.price_ticks < 1 or row.quantity_lots < 1:
        return INSTRUMENT_RULES
    if row.price_ticks > MAX_AMOUNT // row.quantity_lots // scale_units or row.quantity_lots > MAX_AMOUNT // lot_units:
        return INSTRUMENT_RULES
    instrument = tables.instruments[place(tables.instruments, key)]
    instrument.key = key
    instrument.symbol = row.client_order_id
    instrument.base = row.order_id
    instrument.quote = row.counter_order_id
    instrument.lot_units = lot_units
    instrument.scale_units = scale_units
    instrument.max_price = row.price_ticks
    instrument.max_quantity = row.quantity_lots
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
    taker_fee, maker_fee = signed(row.account), signed(row.counter_account)
    if maker_fee >= 1 << 31:
        maker_fee -= 1 << 32
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
