"""The operations of the venue: accounts, assets, instruments, rules, limits, transfers, kill switch.

All require account 0, except withdrawals. A setting that is None is unchanged; 0 removes it.
"""

from typing import Final

import msgspec
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
from smrx.client.command_builders import symbol as symbol_bytes
from smrx.client.decimals import Number, is_zero
from smrx.client.instruments import Asset, Instrument
from smrx.client.io_steps import Steps, Submit
from smrx.client.operation_base import OperationBase
from smrx.client.rates import Rate
from smrx.client.results import (
    AccountResult,
    AssetResult,
    CapacityResult,
    InstrumentResult,
    KillSwitchResult,
    LimitsResult,
    RetentionResult,
    RulesResult,
    StatusResult,
    TransferResult,
)
from smrx.wire import admin
from smrx.wire.codes import AccountStatus, CollarReference, CommandKind, InstrumentStatus, Reason, RuleFlags
from smrx.wire.records import ASSET_SYMBOL_SIZE, INSTRUMENT_SYMBOL_SIZE, MAX_CAPACITY, MAX_KEPT_ANSWERS

#: How often to try the next free id of an asset or instrument; another client may take it first.
_ID_ATTEMPTS: Final = 8
_MAX_SUPPLY: Final = (1 << 62) - 1
_NOTIONAL_OF_MARKET: Final = RuleFlags.MIN_NOTIONAL_OF_MARKET | RuleFlags.MAX_NOTIONAL_OF_MARKET


CollarReferenceLike = CollarReference | str


class VenueOperations(OperationBase):
    """Operations of the venue."""

    def open_account(self, account: int, *, firm: int = 0) -> Steps[AccountResult]:
        """Open an account, for good of a firm, 0 for none: credentials of the firm act for it."""
        fields = {"firm": u32(firm, "firm")}
        return self._on_account(CommandKind.OPEN_ACCOUNT, account, AccountStatus.ACTIVE, "account", **fields)

    def suspend_account(self, account: int) -> Steps[AccountResult]:
        """Suspend an account: it may only cancel; its open orders stay. No effect if it is suspended."""
        return self._on_account(CommandKind.SUSPEND_ACCOUNT, account, AccountStatus.SUSPENDED, "suspension of account")

    def resume_account(self, account: int) -> Steps[AccountResult]:
        """End an account's suspension. No effect if it is not suspended."""
        return self._on_account(CommandKind.RESUME_ACCOUNT, account, AccountStatus.ACTIVE, "resumption of account")

    def _on_account(
        self, kind: CommandKind, account: int, status: AccountStatus, what: str, **fields: int
    ) -> Steps[AccountResult]:
        outcome = yield from self._submit(command(kind, account=u32(account, "account"), **fields), f"{what} {account}")
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
        wanted = command(CommandKind.SET_LIMITS, account=account, **limits)
        outcome = yield from self._submit(wanted, f"limits of account {account}")
        return LimitsResult(**(result_builders.common_fields(outcome) | limits), account=account)

    def add_asset(self, symbol: str, decimals: int, *, max_supply: Number | None = None) -> Steps[AssetResult]:
        """Add an asset with minimal units of 10^-decimals and, optionally, a maximum supply."""
        packed = symbol_bytes(symbol, ASSET_SYMBOL_SIZE)
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 18:
            raise InvalidValue(f"decimals: expected 0 to 18, found {decimals!r}")
        cap = supply_cap(Asset(0, symbol, decimals), max_supply)
        for _ in range(_ID_ATTEMPTS):
            yield from self._load()
            if self.market.asset(symbol) is not None:
                raise InvalidValue(f"asset {symbol} exists already")
            asset = 1 + max((known.id for known in self.market.assets), default=0)
            wanted = command(CommandKind.ADD_ASSET, asset=asset, symbol=packed, decimals=decimals, supply_cap=cap)
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
        packed = symbol_bytes(symbol, INSTRUMENT_SYMBOL_SIZE)
        for _ in range(_ID_ATTEMPTS):
            yield from self._load()
            if self.market.instrument(symbol) is not None:
                raise InvalidValue(f"instrument {symbol} exists already")
            base_asset, quote_asset = self._known_asset(base), self._known_asset(quote)
            scales = instruments.scales(base_asset, quote_asset, tick, lot, max_price, max_quantity)
            instrument = 1 + max((known.id for known in self.market.instruments), default=0)
            details = {
                "symbol": packed,
                "base_asset": base_asset.id,
                "quote_asset": quote_asset.id,
                **msgspec.structs.asdict(scales),
            }
            wanted = command(CommandKind.ADD_INSTRUMENT, details, instrument=instrument)
            outcome = yield Submit(wanted)
            if outcome["reason"][0] != Reason.INSTRUMENT_EXISTS:
                break
        result_builders.check(outcome, f"instrument {symbol}")
        return InstrumentResult(**result_builders.common_fields(outcome), instrument=instrument, symbol=symbol)

    def set_status(self, symbol: str, status: StatusLike) -> Steps[StatusResult]:
        """Set an instrument's status: TRADING, HALTED, CANCEL_ONLY or CLOSED. CLOSED cancels its open orders.

        The exchange cancels MAX_CANCELS orders for each request, so this may send several.
        """
        wanted = enum_member(status, InstrumentStatus, "status")
        instrument = yield from self._instrument(symbol)
        asked = command(CommandKind.SET_STATUS, instrument=instrument.id, status=wanted)
        outcome, cancelled = yield from self._repeated(asked, f"status {wanted.name} of {symbol}")
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
        collar: Rate | None = None,
        collar_reference: CollarReferenceLike | None = None,
        min_price: Number | None = None,
        min_quantity: Number | None = None,
        min_notional: Number | None = None,
        max_notional: Number | None = None,
        notional_of_market: bool | None = None,
    ) -> Steps[RulesResult]:
        """Set an instrument's fees, price limits and bounds. None keeps a rule, 0 or False removes it.

        Fees, band and collar are rates such as "0.05%" or "5bps"; a negative maker fee is a rebate. The collar limits
        how far a market or triggered stop order may trade from `collar_reference`: BEST_PRICE, the best price of the
        other side at its entry, or LAST_TRADE. With `notional_of_market` the bounds of the notional hold for market
        orders, too, at the best price of the other side.
        """
        yield from self._load()  # The cached rules may be old.
        of = self._known_instrument(symbol)
        rules = rule_counts(
            of,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
            band=band,
            collar=collar,
            collar_reference=collar_reference,
            min_price=min_price,
            min_quantity=min_quantity,
            min_notional=min_notional,
            max_notional=max_notional,
            notional_of_market=notional_of_market,
        )
        # Details must be there, also if they remove every rule.
        wanted = command(CommandKind.SET_RULES, rules, instrument=of.id)
        outcome = yield from self._submit(wanted, f"rules of {symbol}")
        return RulesResult(**(result_builders.common_fields(outcome) | result_builders.rules(of, rules)), symbol=symbol)

    def set_retention(self, *, session_silence_s: int, transfer_age_s: int, transfers: int) -> Steps[RetentionResult]:
        """Set how long the exchange keeps what is over, in seconds, and how many transfer ids. All are 1 or more.

        A session without open orders of its own ends after `session_silence_s` without a request.
        """
        wanted = {
            "session_silence_s": u32(session_silence_s, "session silence"),
            "transfer_age_s": u32(transfer_age_s, "transfer age"),
            "transfers": u64(transfers, "transfers"),
        }
        for name, value in wanted.items():
            if not value:
                raise InvalidValue(f"{name}: expected 1 or more, found 0")
        outcome = yield from self._submit(command(CommandKind.SET_RETENTION, **wanted), "retention")
        return RetentionResult(**(result_builders.common_fields(outcome) | wanted))

    def set_capacity(
        self,
        *,
        accounts: int = MAX_CAPACITY,
        orders: int = MAX_CAPACITY,
        balances: int = MAX_CAPACITY,
        sessions: int = MAX_CAPACITY,
        answers: int = MAX_KEPT_ANSWERS,
        instruments: int = MAX_CAPACITY,
        assets: int = MAX_CAPACITY,
        credentials: int = MAX_CAPACITY,
    ) -> Steps[CapacityResult]:
        """Set how many records of each kind the exchange has at most; a command that would add more is rejected.

        `accounts` counts the venue's own, `balances` pairs of account and asset that had money or an order, `sessions`
        also closed ones, `answers` those that all sessions keep together. What is there already stays.
        """
        wanted = {
            "accounts": accounts,
            "orders": orders,
            "balances": balances,
            "sessions": sessions,
            "answers": answers,
            "instruments": instruments,
            "assets": assets,
            "credentials": credentials,
        }
        for name, value in wanted.items():
            most = MAX_KEPT_ANSWERS if name == "answers" else MAX_CAPACITY
            if not 1 <= value <= most:
                raise InvalidValue(f"{name}: expected 1 to {most}, found {value}")
        outcome = yield from self._submit(command(CommandKind.SET_CAPACITY, **wanted), "capacity")
        return CapacityResult(**(result_builders.common_fields(outcome) | wanted))

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
            asset=of.id,
            amount=of.units(amount),
            transfer_id=u64(transfer_id, "transfer_id"),
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
    collar: Rate | None,
    collar_reference: CollarReferenceLike | None,
    min_price: Number | None,
    min_quantity: Number | None,
    min_notional: Number | None,
    max_notional: Number | None,
    notional_of_market: bool | None,
) -> dict[str, int]:
    """Return rules, named as in RULES_DETAILS; None keeps the current one. Raises InvalidValue."""
    reference = of.collar_reference
    if collar_reference is not None:
        reference = enum_member(collar_reference, CollarReference, "collar reference")
    flags = of.rule_flags if notional_of_market is None else int(_NOTIONAL_OF_MARKET) * notional_of_market
    return {
        "maker_fee": of.maker_fee if maker_fee is None else rates.fee(maker_fee, "maker fee"),
        "taker_fee": of.taker_fee if taker_fee is None else _taker_fee(taker_fee),
        "band_bp": of.band_bp if band is None else rates.band(band, "band"),
        "collar_bp": of.collar_bp if collar is None else rates.band(collar, "collar"),
        "collar_reference": reference,
        "rule_flags": flags,
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
