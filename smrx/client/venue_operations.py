"""What the venue does: accounts, assets, instruments, rules, limits, money in and out, and the kill switch.

All of it as account 0, but for withdrawals. A setting that is not named stays as it is; 0 takes it away.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.client import instruments, rates, result_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.command_builders import (
    StatusLike,
    amount_or_none,
    command,
    lots_or_none,
    named,
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

#: Ids of assets and instruments are the next free ones; another client may take one first.
_ID_RACES: Final = 8
_MAX_SUPPLY: Final = (1 << 62) - 1


class VenueOperations(OperationBase):
    """The verbs of whoever runs the market."""

    def open_account(self, account: int) -> Steps[AccountResult]:
        """Open an account."""
        return self._on_account(CommandKind.OPEN_ACCOUNT, account, AccountStatus.ACTIVE, "account")

    def suspend_account(self, account: int) -> Steps[AccountResult]:
        """Let an account cancel and nothing else; its open orders stay. Again changes nothing."""
        return self._on_account(CommandKind.SUSPEND_ACCOUNT, account, AccountStatus.SUSPENDED, "suspension of account")

    def resume_account(self, account: int) -> Steps[AccountResult]:
        """End an account's suspension. Again changes nothing."""
        return self._on_account(CommandKind.RESUME_ACCOUNT, account, AccountStatus.ACTIVE, "resumption of account")

    def _on_account(self, kind: CommandKind, account: int, status: AccountStatus, what: str) -> Steps[AccountResult]:
        outcome = yield from self._submit(command(kind, account=u32(account, "account")), f"{what} {account}")
        return AccountResult(**result_builders.base(outcome), account=account, status=status.name)

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
        """Limit what an account may have open and place at once; a limit that is not named stays, 0 takes it away.

        Notionals are decimals of `asset`, or minimal units where none is named; the quantity is a decimal in the lots
        of the instrument `symbol`, or lots. The exchange counts each in the units of whatever is traded.
        """
        row = yield from self._account_row(account)
        units = None if asset is None else (yield from self._asset(asset))
        lots = None if symbol is None else (yield from self._instrument(symbol))
        limits = limit_counts(row, units, lots, open_orders, open_notional, order_notional, order_quantity)
        wanted = command(CommandKind.SET_LIMITS, LIMITS_COMMAND, account=account, **limits)
        outcome = yield from self._submit(wanted, f"limits of account {account}")
        return LimitsResult(**(result_builders.base(outcome) | limits), account=account)

    def add_asset(self, symbol: str, decimals: int, *, max_supply: Number | None = None) -> Steps[AssetResult]:
        """Add something to own, counted in units of 10^-decimals; `max_supply`: the most that may exist of it."""
        packed = symbol_id(symbol)
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 18:
            raise InvalidValue(f"decimals: expected 0 to 18, found {decimals!r}")
        cap = supply_cap(Asset(0, symbol, decimals), max_supply)
        for _ in range(_ID_RACES):
            yield from self._load()
            if self.market.asset(symbol) is not None:
                raise InvalidValue(f"asset: expected a new symbol, found {symbol}, which exists")
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
        return AssetResult(**result_builders.base(outcome), asset=asset, symbol=symbol)

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
        """Add something to trade: base for quote, prices in ticks, quantities in lots."""
        packed = symbol_id(symbol)
        for _ in range(_ID_RACES):
            yield from self._load()
            if self.market.instrument(symbol) is not None:
                raise InvalidValue(f"instrument: expected a new symbol, found {symbol}, which exists")
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
        return InstrumentResult(**result_builders.base(outcome), instrument=instrument, symbol=symbol)

    def set_status(self, symbol: str, status: StatusLike) -> Steps[StatusResult]:
        """Set an instrument TRADING, HALTED, CANCEL_ONLY or CLOSED; closing cancels every open order in it."""
        wanted = named(status, InstrumentStatus, "status")
        instrument = yield from self._instrument(symbol)
        outcome = yield from self._submit(
            command(CommandKind.SET_STATUS, instrument=instrument.id, side=wanted), f"status {wanted.name} of {symbol}"
        )
        cancelled = int(outcome["cum_lots"][0])
        return StatusResult(**result_builders.base(outcome), symbol=symbol, status=wanted.name, cancelled=cancelled)

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
        """Set an instrument's fees, price band and minimums; a rule that is not named stays, 0 takes it away.

        Fees and band are rates such as "0.05%" or "5bps"; a negative maker fee is a rebate.
        """
        yield from self._load()  # What is known of its rules may be old.
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
        return RulesResult(**(result_builders.base(outcome) | result_builders.rules(of, rules)), symbol=symbol)

    def kill(self) -> Steps[KillSwitchResult]:
        """Refuse every new and replaced order of everybody from now on; cancels pass. Again changes nothing."""
        return self._switch(CommandKind.KILL, True)

    def revive(self) -> Steps[KillSwitchResult]:
        """Turn the kill switch off. Again changes nothing."""
        return self._switch(CommandKind.REVIVE, False)

    def _switch(self, kind: CommandKind, killed: bool) -> Steps[KillSwitchResult]:
        outcome = yield from self._submit(command(kind), "kill switch")
        return KillSwitchResult(**result_builders.base(outcome), killed=killed)

    def deposit(self, account: int, asset: str, amount: Number, transfer_id: int) -> Steps[TransferResult]:
        """Credit an account. The same transfer id again changes nothing."""
        return self._transfer(CommandKind.DEPOSIT, account, asset, amount, transfer_id)

    def withdraw(self, account: int, asset: str, amount: Number, transfer_id: int) -> Steps[TransferResult]:
        """Debit an account. The same transfer id again changes nothing."""
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
        done_before = outcome["reason"][0] == Reason.TRANSFER_ALREADY_DONE
        if not done_before:
            result_builders.check(outcome, f"{kind.name.lower()} {transfer_id} of {amount} {asset}")
        base = result_builders.base(outcome)
        if done_before or base["duplicate"]:
            return TransferResult(**base, transfer_id=transfer_id, already_done=bool(done_before))
        available = int(outcome["cum_lots"][0])
        return TransferResult(**base, transfer_id=transfer_id, available_units=available, available=of.text(available))


def limit_counts(
    now: admin.AccountRow,
    asset: Asset | None,
    instrument: Instrument | None,
    open_orders: int | None,
    open_notional: Number | None,
    order_notional: Number | None,
    order_quantity: Number | None,
) -> dict[str, int]:
    """Return limits by the names of LIMITS_COMMAND; those that are None as they are now. Raises InvalidValue."""
    return {
        "max_open_orders": now.max_open_orders if open_orders is None else u32(open_orders, "open orders"),
        "max_open_notional": amount_or_none(open_notional, now.max_open_notional, asset, "open notional"),
        "max_order_notional": amount_or_none(order_notional, now.max_order_notional, asset, "order notional"),
        "max_order_quantity": lots_or_none(order_quantity, now.max_order_quantity, instrument, "order quantity"),
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
    """Return rules by the names of RULES_COMMAND; those that are None as they are now. Raises InvalidValue."""
    return {
        "maker_fee": of.maker_fee if maker_fee is None else rates.fee(maker_fee, "maker fee"),
        "taker_fee": of.taker_fee if taker_fee is None else _taker_fee(taker_fee),
        "band_bp": of.band_bp if band is None else rates.band(band, "band"),
        "min_price_ticks": _ticks_or_none(min_price, of),
        "min_quantity_lots": lots_or_none(min_quantity, of.min_quantity_lots, of, "minimum quantity"),
        "min_notional": amount_or_none(min_notional, of.min_notional, of.quote, "minimum notional"),
        "max_notional": amount_or_none(max_notional, of.max_notional, of.quote, "maximum notional"),
    }


def _taker_fee(value: Rate) -> int:
    fee = rates.fee(value, "taker fee")
    if fee < 0:
        raise InvalidValue(f"taker fee: expected 0% to 100%, found {value}")
    return fee


def _ticks_or_none(value: Number | None, of: Instrument) -> int:
    if value is None:
        return of.min_price_ticks
    return 0 if is_zero(value) else of.price_ticks(value, "minimum price")


def supply_cap(of: Asset, most: Number | None) -> int:
    """Return the most that may exist in minimal units, 0 = no cap of its own; raises InvalidValue."""
    if most is None or is_zero(most):
        return 0
    cap = of.units(most, "maximum supply")
    if cap > _MAX_SUPPLY:
        raise InvalidValue(f"{of.symbol} maximum supply: expected at most {of.text(_MAX_SUPPLY)}, found {most}")
    return cap
