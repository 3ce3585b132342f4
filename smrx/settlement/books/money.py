"""Change balances: postings, holds, fees, deposits and withdrawals. Compiled, exact integers.

A fee is ceil(notional x rate / 10^6), so always in the venue's favour. An account owns at least what it holds, and
holds at least 0.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel, view_as
from smrx.follower.record_table import find, place
from smrx.settlement.books.event_rows import TRANSFER
from smrx.settlement.books.posting_faults import Fault
from smrx.wire.codes import EventKind, Side

_WITHDRAWN: Final = int(EventKind.WITHDRAWN)
_BUY: Final = int(Side.BUY)

#: The largest amount: sums of two such amounts do not overflow.
MAX_AMOUNT: Final = (1 << 62) - 1
MILLION: Final = 1_000_000

# Plain integers, as kernels take them.
UNKNOWN_ACCOUNT: Final = int(Fault.UNKNOWN_ACCOUNT)
UNKNOWN_ASSET: Final = int(Fault.UNKNOWN_ASSET)
AMOUNT: Final = int(Fault.AMOUNT)
AVAILABLE: Final = int(Fault.AVAILABLE)
HELD: Final = int(Fault.HELD)
SUPPLY: Final = int(Fault.SUPPLY)


@kernel
def set_numbers(numbers: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Record the numbers of a fault."""
    numbers[0], numbers[1], numbers[2], numbers[3] = a, b, c, d


@kernel
def signed(value: Any) -> Any:
    """Return a field of less than a word as a signed word."""
    return value + 0


@kernel
def fee_of(notional: Any, rate: Any) -> Any:
    """Return ceil(notional x rate / 10^6), without a product beyond 62 bits."""
    whole = notional // MILLION
    return whole * rate - (-((notional - whole * MILLION) * rate)) // MILLION


@kernel
def balance(tables: Any, account: Any, asset: Any, sequence: Any) -> Any:
    """Return the place of a balance, which is created if it is missing, and mark it as touched."""
    key = (account << 32) | asset
    at = find(tables.balances, key)
    if at < 0:
        at = place(tables.balances, key)
        tables.balances[at].key = key
        tables.balances[at].total = 0
        tables.balances[at].held = 0
        tables.balances[at].touched = 0
        tables.core[0].balances += 1
    if tables.balances[at].touched == 0:
        tables.balances[at].touched = sequence
    return at


@kernel
def move(tables: Any, source: Any, target: Any, asset: Any, amount: Any, sequence: Any) -> None:
    """Move money between two accounts; whether the source could afford it is checked when its hold changes."""
    tables.balances[balance(tables, source, asset, sequence)].total -= amount
    tables.balances[balance(tables, target, asset, sequence)].total += amount


@kernel
def hold(tables: Any, order: Any, change: Any, sequence: Any, numbers: Any) -> Any:
    """Change the hold of an order's account; what the account owns must cover it."""
    instrument = tables.instruments[find(tables.instruments, signed(order.instrument))]
    asset = instrument.quote if order.side == _BUY else instrument.base
    at = balance(tables, signed(order.account), asset, sequence)
    held = tables.balances[at].held + change
    tables.balances[at].held = held
    total = tables.balances[at].total
    if held < 0 or held > total:
        set_numbers(numbers, signed(order.account), asset, total, held)
        return HELD
    return 0


@kernel
def transfer(tables: Any, row: Any, numbers: Any) -> Any:
    """Post DEPOSITED or WITHDRAWN."""
    moved = view_as(row, TRANSFER)
    asset_id, account = signed(moved.asset), signed(moved.account)
    listed = find(tables.assets, asset_id)
    if listed < 0:
        set_numbers(numbers, asset_id, 0, 0, 0)
        return UNKNOWN_ASSET
    if find(tables.accounts, account + 1) < 0:
        return UNKNOWN_ACCOUNT
    amount = moved.amount
    if amount < 1 or amount > MAX_AMOUNT:
        return AMOUNT
    if row.kind == _WITHDRAWN:
        amount = -amount
    asset = tables.assets[listed]
    asset.supply += amount
    if asset.supply > asset.cap:
        set_numbers(numbers, asset.supply, asset.cap, asset_id, 0)
        return SUPPLY
    at = balance(tables, account, asset_id, row.sequence)
    tables.balances[at].total += amount
    available = tables.balances[at].total - tables.balances[at].held
    if available != moved.available_after or available < 0:
        set_numbers(numbers, available, asset_id, 0, 0)
        return AVAILABLE
    return 0
