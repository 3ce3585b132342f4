"""The exchange behind the stub cluster: the session rules, and enough of the rest to test the SDK's operations."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.wire import admin
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderType,
    OutcomeStatus,
    Reason,
    Side,
)
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, LIMITS_COMMAND, RULES_COMMAND, unpack_symbol
from tests.client.fake_exchange import FakeExchange, reject


class StubExchange(FakeExchange):
    """A fake exchange with assets, instruments, balances and resting orders that never match."""

    def __init__(self) -> None:
        super().__init__((0, 1, 2))
        self.account_rows: dict[int, admin.AccountRow] = {}
        self.killed = False
        self.assets: dict[int, admin.AssetRow] = {}
        self.instruments: dict[int, admin.InstrumentRow] = {}
        self.orders: dict[int, admin.OrderRow] = {}
        self.balances: dict[tuple[int, int], int] = {}
        self.transfers: dict[int, admin.TransferRow] = {}

    def position_row(self, account: int, number: int) -> admin.PositionRow:
        """Return an account's position in an instrument; this exchange holds no balances for orders."""
        listed = self.instruments[number]
        own = [row for row in self.orders.values() if (row.account, row.instrument) == (account, number)]
        buys, sells = ([row for row in own if row.side == side] for side in (1, 2))
        notionals = [sum(r.price_ticks * r.leaves_lots * listed.scale_units for r in rows) for rows in (buys, sells)]
        return admin.PositionRow(
            account=account,
            instrument=number,
            base_available=self.balances.get((account, listed.base_asset), 0),
            base_held=0,
            quote_available=self.balances.get((account, listed.quote_asset), 0),
            quote_held=0,
            buy_orders=len(buys),
            buy_lots=str(sum(row.leaves_lots for row in buys)),
            buy_notional=str(notionals[0]),
            sell_orders=len(sells),
            sell_lots=str(sum(row.leaves_lots for row in sells)),
            sell_notional=str(notionals[1]),
        )

    def _apply_one(self, command: NDArray[np.void]) -> NDArray[np.void]:
        before = len(self.ledger)
        outcome = super()._apply_one(command)
        if len(self.ledger) > before and outcome["status"][0] == OutcomeStatus.ACCEPTED:
            self._execute(command[0], outcome)
            self.first_outcomes[int(command["session_id"][0]), int(command["request_id"][0])] = outcome.tobytes()
        return outcome

    def _execute(self, command: np.void, outcome: NDArray[np.void]) -> None:
        kind, account = int(command["kind"]), int(command["account"])
        amount, key = int(command["quantity_lots"]), int(command["order_id"])
        match kind:
            case CommandKind.OPEN_ACCOUNT:
                if account in self.accounts:
                    reject(outcome, Reason.ACCOUNT_EXISTS)
                self.accounts.add(account)
            case CommandKind.ADD_ASSET:
                asset = int(command["instrument"])
                if asset in self.assets:
                    reject(outcome, Reason.ASSET_EXISTS)
                    return
                self.assets[asset] = admin.AssetRow(
                    asset=asset,
                    symbol=unpack_symbol(command["client_order_id"]),
                    decimals=amount,
                    supply=0,
                    cap=int(command["price_ticks"]),
                )
            case CommandKind.SUSPEND_ACCOUNT | CommandKind.RESUME_ACCOUNT:
                status = AccountStatus.SUSPENDED if kind == CommandKind.SUSPEND_ACCOUNT else AccountStatus.ACTIVE
                self.account_rows[account] = with_fields(self.account_row(account), status=int(status))
            case CommandKind.SET_LIMITS:
                limits = fields_of(command, LIMITS_COMMAND)
                self.account_rows[account] = with_fields(self.account_row(account), **limits)
            case CommandKind.SET_RULES:
                rules = fields_of(command, RULES_COMMAND)
                of = rules["instrument"]
                self.instruments[of] = with_fields(self.instruments[of], **rules)
            case CommandKind.SET_STATUS:
                of, new = int(command["instrument"]), int(command["side"])
                self.instruments[of] = with_fields(self.instruments[of], status=new)
                if new == InstrumentStatus.CLOSED:
                    outcome["cum_lots"] = self._cancel_all(lambda order: order.instrument == of)
            case CommandKind.KILL | CommandKind.REVIVE:
                self.killed = kind == CommandKind.KILL
            case CommandKind.ADD_INSTRUMENT:
                added = np.frombuffer(command.tobytes(), INSTRUMENT_COMMAND)[0]
                names = (
                    "instrument", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks",
                    "max_quantity_lots",
                )  # fmt: skip
                row = admin.InstrumentRow(
                    symbol=unpack_symbol(added["symbol"]), status=1, **{name: int(added[name]) for name in names}
                )
                self.instruments[row.instrument] = row
            case CommandKind.DEPOSIT | CommandKind.WITHDRAW:
                at = account, int(command["instrument"])
                change = amount if kind == CommandKind.DEPOSIT else -amount
                if key in self.transfers:
                    reject(outcome, Reason.TRANSFER_ALREADY_DONE)
                elif self.balances.get(at, 0) + change < 0:
                    reject(outcome, Reason.INSUFFICIENT_FUNDS)
                else:
                    self.transfers[key] = admin.TransferRow(
                        transfer_id=key, account=account, asset=at[1], kind=kind, amount=amount
                    )
                    self.balances[at] = self.balances.get(at, 0) + change
                    outcome["cum_lots"], outcome["order_id"] = self.balances[at], key
            case CommandKind.PLACE | CommandKind.REPLACE if self.killed:
                reject(outcome, Reason.KILLED)
            case CommandKind.PLACE:
                order_id = int(outcome["sequence"][0])
                copied = (
                    "client_order_id", "account", "instrument", "side", "order_type", "tif", "stp", "flags",
                    "price_ticks", "quantity_lots",
                )  # fmt: skip
                display = key & 0xFFFF_FFFF if command["order_type"] == OrderType.LIMIT else 0
                self.orders[order_id] = admin.OrderRow(
                    order_id=order_id,
                    cum_lots=0,
                    leaves_lots=amount,
                    extra=key,
                    shown_lots=min(display, amount),
                    **{name: int(command[name]) for name in copied},
                )
                outcome["leaves_lots"] = amount
            case CommandKind.CANCEL | CommandKind.REPLACE:
                wanted = int(command["client_order_id"])
                found = [
                    o for o in self.orders.values() if o.order_id == key or (wanted and o.client_order_id == wanted)
                ]
                if not found:
                    reject(outcome, Reason.UNKNOWN_ORDER)
                    return
                order = self.orders.pop(found[0].order_id)
                outcome["order_id"], outcome["event_kind"] = order.order_id, EventKind.CANCELLED
                if kind == CommandKind.REPLACE:
                    self.orders[order.order_id] = msgspec.structs.replace(
                        order, price_ticks=int(command["price_ticks"]), quantity_lots=amount, leaves_lots=amount
                    )
                    outcome["event_kind"], outcome["leaves_lots"] = EventKind.REPLACED, amount
            case CommandKind.MASS_CANCEL:
                instrument, side = int(command["instrument"]), int(command["side"])
                outcome["event_kind"] = EventKind.MASS_CANCELLED
                outcome["cum_lots"] = self._cancel_all(
                    lambda order: (
                        order.account == account
                        and instrument in (0, order.instrument)
                        and side in (Side.ANY, order.side)
                    )
                )

    def _cancel_all(self, wanted: Callable[[admin.OrderRow], bool]) -> int:
        cancelled = [order.order_id for order in self.orders.values() if wanted(order)]
        for order_id in cancelled:
            del self.orders[order_id]
        return len(cancelled)

    def levels(self, instrument: int, side: Side) -> tuple[admin.LevelRow, ...]:
        """Return one side of a book, best price first."""
        found: dict[int, list[int]] = {}
        for order in self.orders.values():
            if (order.instrument, order.side) == (instrument, side) and order.price_ticks:
                found.setdefault(order.price_ticks, []).append(order.leaves_lots)
        return tuple(
            admin.LevelRow(price_ticks=price, quantity_lots=sum(found[price]), orders=len(found[price]))
            for price in sorted(found, reverse=side is Side.BUY)
        )

    def account_row(self, account: int) -> admin.AccountRow:
        """Return an account as the admin service reports it."""
        return self.account_rows.get(account) or admin.AccountRow(account=account, status=int(AccountStatus.ACTIVE))

    def sent(self, layout: np.dtype[np.void] = COMMAND) -> dict[str, int]:
        """Return the fields, named as in `layout`, of the last command that consumed a request id.

        CLOSE_SESSION does not count.
        """
        for _, _, body in reversed(self.ledger):
            if body[0] != CommandKind.CLOSE_SESSION:
                return fields_of(np.frombuffer(body, COMMAND)[0], layout)
        raise AssertionError("nothing was sent")


def fields_of(command: np.void, layout: np.dtype[np.void]) -> dict[str, int]:
    """Return a command's fields by the names of another layout of the same bytes."""
    row = np.frombuffer(command.tobytes(), layout)[0]
    return {name: int(row[name]) for name in layout.names or ()}


def with_fields(row: Any, **fields: int) -> Any:
    """Return a copy of the row with those of the fields that it has."""
    return msgspec.structs.replace(row, **{name: fields[name] for name in row.__struct_fields__ if name in fields})
