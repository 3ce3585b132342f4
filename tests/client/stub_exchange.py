"""The exchange behind the stub cluster: the session rules, and enough of the rest to test the SDK's operations."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.wire import admin
from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OutcomeStatus,
    Reason,
    Side,
)
from smrx.wire.records import COMMAND_LAYOUTS, COMMAND_SIZE, DETAILS_LAYOUTS
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

    def _apply_one(self, piece: bytes) -> NDArray[np.void]:
        before = len(self.ledger)
        outcome = super()._apply_one(piece)
        if len(self.ledger) > before and outcome["status"][0] == OutcomeStatus.ACCEPTED:
            self._execute(fields_of(piece), outcome)
            self.first_outcomes[int(outcome["session_id"][0]), int(outcome["request_id"][0])] = outcome.tobytes()
        return outcome

    def _execute(self, command: dict[str, Any], outcome: NDArray[np.void]) -> None:
        kind, account = command["kind"], command.get("account", 0)
        amount, key = command.get("quantity_lots", 0), command.get("order_id", 0)
        match kind:
            case CommandKind.OPEN_ACCOUNT:
                if account in self.accounts:
                    reject(outcome, Reason.ACCOUNT_EXISTS)
                self.accounts.add(account)
            case CommandKind.ADD_ASSET:
                asset = command["asset"]
                if asset in self.assets:
                    reject(outcome, Reason.ASSET_EXISTS)
                    return
                self.assets[asset] = admin.AssetRow(
                    asset=asset,
                    symbol=command["symbol"],
                    decimals=command["decimals"],
                    supply=0,
                    cap=command["supply_cap"],
                )
            case CommandKind.SUSPEND_ACCOUNT | CommandKind.RESUME_ACCOUNT:
                status = AccountStatus.SUSPENDED if kind == CommandKind.SUSPEND_ACCOUNT else AccountStatus.ACTIVE
                self.account_rows[account] = with_fields(self.account_row(account), status=int(status))
            case CommandKind.SET_LIMITS:
                self.account_rows[account] = with_fields(self.account_row(account), **command)
            case CommandKind.SET_RULES:
                of = command["instrument"]
                self.instruments[of] = with_fields(self.instruments[of], **command)
            case CommandKind.SET_STATUS:
                of, new = command["instrument"], command["status"]
                self.instruments[of] = with_fields(self.instruments[of], status=new)
                if new == InstrumentStatus.CLOSED:
                    outcome["cum_lots"] = self._cancel_all(lambda order: order.instrument == of)
            case CommandKind.KILL | CommandKind.REVIVE:
                self.killed = kind == CommandKind.KILL
            case CommandKind.ADD_INSTRUMENT:
                names = (
                    "instrument", "symbol", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks",
                    "max_quantity_lots",
                )  # fmt: skip
                row = admin.InstrumentRow(status=1, **{name: command[name] for name in names})
                self.instruments[row.instrument] = row
            case CommandKind.DEPOSIT | CommandKind.WITHDRAW:
                at, amount, key = (account, command["asset"]), command["amount"], command["transfer_id"]
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
                    "price_ticks", "quantity_lots", "stop_price_ticks", "display_lots", "expiry_ns",
                )  # fmt: skip
                self.orders[order_id] = admin.OrderRow(
                    order_id=order_id,
                    cum_lots=0,
                    leaves_lots=amount,
                    shown_lots=min(command.get("display_lots", 0), amount),
                    **{name: command[name] for name in copied if name in command},
                )
                outcome["leaves_lots"] = amount
            case CommandKind.CANCEL | CommandKind.REPLACE:
                wanted = command["client_order_id"]
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
                        order, price_ticks=command["price_ticks"], quantity_lots=amount, leaves_lots=amount
                    )
                    outcome["event_kind"], outcome["leaves_lots"] = EventKind.REPLACED, amount
            case CommandKind.MASS_CANCEL:
                instrument, side = command["instrument"], command["side"]
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

    def sent(self) -> dict[str, Any]:
        """Return the fields of the last command that consumed a request id, as fields_of() does.

        CLOSE_SESSION does not count.
        """
        for _, _, piece in reversed(self.ledger):
            if piece[0] != CommandKind.CLOSE_SESSION:
                return fields_of(piece)
        raise AssertionError("nothing was sent")


def fields_of(piece: bytes) -> dict[str, Any]:
    """Return the fields of a command and, if it has some, of its details, by the names of its kind; text as str.

    The client order id is text, wherever it stands.
    """
    kind = CommandKind(piece[0])
    found = _values(np.frombuffer(piece, COMMAND_LAYOUTS[kind], 1)[0])
    if found.pop("details"):
        details = _values(np.frombuffer(piece, DETAILS_LAYOUTS[kind], 1, COMMAND_SIZE)[0])
        if details.get("client_order_id") == "":
            del details["client_order_id"]
        found |= details
    if isinstance(found.get("client_order_id"), int):
        found["client_order_id"] = short_id_text(found["client_order_id"])
    return found


def _values(record: np.void) -> dict[str, Any]:
    values = {name: record[name].item() for name in record.dtype.names or ()}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def with_fields(row: Any, **fields: Any) -> Any:
    """Return a copy of the row with those of the fields that it has."""
    return msgspec.structs.replace(row, **{name: fields[name] for name in row.__struct_fields__ if name in fields})
