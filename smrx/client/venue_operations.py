"""The operations of the venue: accounts, assets, instruments, rules, limits, transfers, kill switch.

All require account 0, except withdrawals. A setting that is None is unchanged; 0 removes it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.client import instruments, rates, result_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.command_builders import (
    StatusLike,
    amount_or_current,
    command,
    enum_member,
    lots_or_current,
    u32,
    u64,
)
from smrx.client.command_builders import symbol as symbol_id
from smrx.client.decimals import Number, is_zero
from smrx.client.instruments import Asset, Instrument
from smrx.client.io_steps import Steps, Submit
from smrx.client.operation_base import OperationBase
from smrx.client.rates import Rate
from smrx.client.results import (
    AccountResult,
    AssetResult,
    InstrumentResult,
    KillSwitchResult,
    LimitsResult,
    RulesResult,
    StatusResult,
    TransferResult,
)
from smrx.wire import admin
from smrx.wire.codes import AccountStatus, CommandKind, InstrumentStatus, Reason
from smrx.wire.records import INSTRUMENT_COMMAND, LIMITS_COMMAND, RULES_COMMAND

#: How often to try the next free id of an asset or instrument; another client may take it first.
_ID_ATTEMPTS: Final = 8
_MAX_SUPPLY: Final = (1 << 62) - 1


class VenueOperations(OperationBase):
    """Operations of the venue."""

    def open_account(self, account: int) -> Steps[AccountResult]:
        """Open an account."""
        return self._on_account(CommandKind.OPEN_ACCOUNT, account, AccountStatus.ACTIVE, "account")

    def suspend_account(self, account: int) -> Steps[AccountResult]:
        """Suspend an account: it may only cancel; its open orders stay. No effect if it is suspended."""
        return self._on_account(CommandKind.SUSPEND_ACCOUNT, account, AccountStatus.SUSPENDED, "suspension of account")

    def resume_account(self, account: int) -> Steps[AccountResult]:
        """End an account's suspension. No effect if it is not suspended."""
        return self._on_account(CommandKind.RESUME_ACCOUNT, account, AccountStatus.ACTIVE, "resumption of account")

    def _on_account(self, kind: CommandKind, account: int, status: AccountStatus, what: str) -> Steps[AccountResult]:
        outcome = yield from self._submit(command(kind, account=u32(account, "account")), f"{what} {account}")
        return AccountResult(**result_builders.common_fields(outcome), account=account, status=status.name)

    def set_limits(
        self,
        account: int,
        *,
        open_orders: int | None = None,
        open_notional: Number | None = None,
        order_notional: Number | None = None,
        order_quantity: Number | None = None,
        asset: str | None = None,
        symbol: str | None = None,
    ) -> Steps[LimitsResult]:
        """Set an account's limits for open orders and for a single order. None keeps a limit, 0 removes it.

        Notionals are decimals of `asset`, or minimal units without it; the quantity is a decimal of the instrument
        `symbol`, or a number of lots. The exchange applies each limit in the units of the instrument traded.
        """
        row = yield from self._account_row(account)
        units = None if asset is None else (yield from self._asset(asset))
        lots = None if symbol is None else (yield from self._instrument(symbol))
        limits = limit_counts(row, units, lots, open_orders, open_notional, order_notional, order_quantity)
        wanted = command(CommandKind.SET_LIMITS, LIMITS_COMMAND, account=account, **limits)
        outcome = yield from self._submit(wanted, f"limits of account {account}")
        return LimitsResult(**(result_builders.common_fields(outcome) | limits), account=account)

    def add_asset(self, symbol: str, decimals: int, *, max_supply: Number | None = None) -> Steps[AssetResult]:
        """Add an asset with minimal units of 10^-decimals and, optionally, a maximum supply."""
        packed = symbol_id(symbol)
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 18:
            raise InvalidValue(f"decimals: expected 0 to 18, found {decimals!r}")
        cap = supply_cap(Asset(0, symbol, decimals), max_supply)
        for _ in range(_ID_ATTEMPTS):
            yield from self._load()
            if self.market.asset(symbol) is not None:
                raise InvalidValue(f"asset {symbol} exists already")
            asset = 1 + max((known.id for known in self.market.assets), default=0)
            wanted = command(
                CommandKind.ADD_ASSET,
                instrument=asset,
                client_order_id=packed,
                quantity_lots=decimals,
                price_ticks=cap,
            )
            outcome = yield Submit(wanted)
            if outcome["reason"][0] != Reason.ASSET_EXISTS:
                break
        result_builders.check(outcome, f"asset {symbol}")
        return AssetResult(**result_builders.common_fields(outcome), asset=asset, symbol=symbol)

    def add_instrument(
        self,
        symbol: str,
        base: str,
        quote: str,
        tick: Number = "0.01",
        lot: Number = "0.0001",
        max_price: Number | None = None,
        max_quantity: Number | None = None,
    ) -> Steps[InstrumentResult]:
        """Add an instrument: `base` traded for `quote`, prices in steps of `tick`, quantities of `lot`."""
        packed = symbol_id(symbol)
        for _ in range(_ID_ATTEMPTS):
            yield from self._load()
            if self.market.instrument(symbol) is not None:
                raise InvalidValue(f"instrument {symbol} exists already")
            base_asset, quote_asset = self._known_asset(base), self._known_asset(quote)
            scales = instruments.scales(base_asset, quote_asset, tick, lot, max_price, max_quantity)
            instrument = 1 + max((known.id for known in self.market.instruments), default=0)
            wanted = command(
                CommandKind.ADD_INSTRUMENT,
                INSTRUMENT_COMMAND,
                instrument=instrument,
                symbol=packed,
                base_asset=base_asset.id,
                quote_asset=quote_asset.id,
                lot_units=scales.lot_units,
                scale_units=scales.scale_units,
                max_price_ticks=scales.max_price_ticks,
                max_quantity_lots=scales.max_quantity_lots,
            )
            outcome = yield Submit(wanted)
            if outcome["reason"][0] != Reason.INSTRUMENT_EXISTS:
                break
        result_builders.check(outcome, f"instrument {symbol}")
        return InstrumentResult(**result_builders.common_fields(outcome), instrument=instrument, symbol=symbol)

    def set_status(self, symbol: str, status: StatusLike) -> Steps[StatusResult]:
        """Set an instrument's status: TRADING, HALTED, CANCEL_ONLY or CLOSED. CLOSED cancels its open orders."""
        wanted = enum_member(status, InstrumentStatus, "status")
        instrument = yield from self._instrument(symbol)
        outcome = yield from self._submit(
            command(CommandKind.SET_STATUS, instrument=instrument.id, side=wanted), f"status {wanted.name} of {symbol}"
        )
        cancelled = int(outcome["cum_lots"][0])
        return StatusResult(
            **result_builders.common_fields(outcome), symbol=symbol, status=wanted.name, cancelled=cancelled
        )

    def set_rules(
        self,
        symbol: str,
        *,
        maker_fee: Rate | None = None,
        taker_fee: Rate | None = None,
        band: Rate | None = None,
        min_price: Number | None = None,
        min_quantity: Number | None = None,
        min_notional: Number | None = None,
        max_notional: Number | None = None,
    ) -> Steps[RulesResult]:
        """Set an instrument's fees, price band and minimums. None keeps a rule, 0 removes it.

        Fees and band are rates such as "0.05%" or "5bps"; a negative maker fee is a rebate.
        """
        yield from self._load()  # The cached rules may be old.
        of = self._known_instrument(symbol)
        rules = rule_counts(
            of,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
            band=band,
            min_price=min_price,
            min_quantity=min_quantity,
            min_notional=min_notional,
            max_notional=max_notional,
        )
        wanted = command(CommandKind.SET_RULES, RULES_COMMAND, instrument=of.id, **rules)
        outcome = yield from self._submit(wanted, f"rules of {symbol}")
        return RulesResult(**(result_builders.common_fields(outcome) | result_builders.rules(of, rules)), symbol=symbol)

    def kill(self) -> Steps[KillSwitchResult]:
        """Turn the kill switch on: new and replaced orders of all accounts are rejected. No effect if it is on."""
        return self._switch(CommandKind.KILL, True)

    def revive(self) -> Steps[KillSwitchResult]:
        """Turn the kill switch off. No effect if it is off."""
        return self._switch(CommandKind.REVIVE, False)

    def _switch(self, kind: CommandKind, killed: bool) -> Steps[KillSwitchResult]:
        outcome = yield from self._submit(command(kind), "kill switch")
        return KillSwitchResult(**result_builders.common_fields(outcome), killed=killed)

    def deposit(self, account: int, asset: str, amount: Number, transfer_id: int) -> Steps[TransferResult]:
        """Credit an account. A repeated transfer id has no effect."""
        return self._transfer(CommandKind.DEPOSIT, account, asset, amount, transfer_id)

    def withdraw(self, account: int, asset: str, amount: Number, transfer_id: int) -> Steps[TransferResult]:
        """Debit an account. A repeated transfer id has no effect."""
        return self._transfer(CommandKind.WITHDRAW, account, asset, amount, transfer_id)

    def _transfer(
        self, kind: CommandKind, account: int, asset: str, amount: Number, transfer_id: int
    ) -> Steps[TransferResult]:
        of = yield from self._asset(asset)
        wanted = command(
            kind,
            account=u32(account, "account"),
            instrument=of.id,
            quantity_lots=of.units(amount),
            order_id=u64(transfer_id, "transfer_id"),
        )
        outcome: NDArray[np.void] = yield Submit(wanted)
        already_done = outcome["reason"][0] == Reason.TRANSFER_ALREADY_DONE
        if not already_done:
            result_builders.check(outcome, f"{kind.name.lower()} {transfer_id} of {amount} {asset}")
        fields = result_builders.common_fields(outcome)
        if already_done or fields["duplicate"]:
            return TransferResult(**fields, transfer_id=transfer_id, already_done=bool(already_done))
        available = int(outcome["cum_lots"][0])
        return TransferResult(
            **fields, transfer_id=transfer_id, available_units=available, available=of.text(available)
        )


def limit_counts(
    current: admin.AccountRow,
    asset: Asset | None,
    instrument: Instrument | None,
    open_orders: int | None,
    open_notional: Number | None,
    order_notional: Number | None,
    order_quantity: Number | None,
) -> dict[str, int]:
    """Return limits, named as in LIMITS_COMMAND; None keeps the current one. Raises InvalidValue."""
    return {
        "max_open_orders": current.max_open_orders if open_orders is None else u32(open_orders, "open orders"),
        "max_open_notional": amount_or_current(open_notional, current.max_open_notional, asset, "open notional"),
        "max_order_notional": amount_or_current(order_notional, current.max_order_notional, asset, "order notional"),
        "max_order_quantity": lots_or_current(order_quantity, current.max_order_quantity, instrument, "order quantity"),
    }


def rule_counts(
    of: Instrument,
    *,
    maker_fee: Rate | None,
    taker_fee: Rate | None,
    band: Rate | None,
    min_price: Number | None,
    min_quantity: Number | None,
    min_notional: Number | None,
    max_notional: Number | None,
) -> dict[str, int]:
    """Return rules, named as in RULES_COMMAND; None keeps the current one. Raises InvalidValue."""
    return {
        "maker_fee": of.maker_fee if maker_fee is None else rates.fee(maker_fee, "maker fee"),
        "taker_fee": of.taker_fee if taker_fee is None else _taker_fee(taker_fee),
        "band_bp": of.band_bp if band is None else rates.band(band, "band"),
        "min_price_ticks": _ticks_or_current(min_price, of),
        "min_quantity_lots": lots_or_current(min_quantity, of.min_quantity_lots, of, "minimum quantity"),
        "min_notional": amount_or_current(min_notional, of.min_notional, of.quote, "minimum notional"),
        "max_notional": amount_or_current(max_notional, of.max_notional, of.quote, "maximum notional"),
    }


def _taker_fee(value: Rate) -> int:
    fee = rates.fee(value, "taker fee")
    if fee < 0:
        raise InvalidValue(f"taker fee: expected 0% to 100%, found {value}")
    return fee


def _ticks_or_current(value: Number | None, of: Instrument) -> int:
    if value is None:
        return of.min_price_ticks
    return 0 if is_zero(value) else of.price_ticks(value, "minimum price")


def supply_cap(asset: Asset, most: Number | None) -> int:
    """Return the maximum supply in minimal units, 0 = unlimited. Raises InvalidValue."""
    if most is None or is_zero(most):
        return 0
    cap = asset.units(most, "maximum supply")
    if cap > _MAX_SUPPLY:
        raise InvalidValue(f"{asset.symbol} maximum supply: expected at most {asset.text(_MAX_SUPPLY)}, found {most}")
    return cap
