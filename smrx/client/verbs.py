"""What a client can do, each thing once: names and decimals in, commands and requests out, answers in, results out.

Every verb is a generator of steps; the blocking and the asyncio client run it. Owns the market cache; no I/O, no clock.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.client import answers, market
from smrx.client.decimals import Number
from smrx.client.errors import InvalidValue, Refused
from smrx.client.market import Asset, Instrument, Market
from smrx.client.queries import Questions
from smrx.client.results import (
    AccountAnswer,
    AssetAnswer,
    Balance,
    Book,
    InstrumentAnswer,
    MassCancelAnswer,
    OpenOrder,
    OrderAnswer,
    TransferAnswer,
)
from smrx.client.steps import Steps, Submit
from smrx.engine.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from smrx.engine.records import COMMAND, INSTRUMENT_COMMAND
from smrx.wire import admin

#: Ids of assets and instruments are the next free ones; another client may take one first.
_ID_RACES: Final = 8

SideLike = Side | str
TifLike = TimeInForce | str

P = TypeVar("P", admin.OrderRow, admin.BalanceRow, admin.AccountRow, admin.AssetRow, admin.InstrumentRow)
E = TypeVar("E", Side, TimeInForce)


class Verbs:
    """The verbs of one client of one account."""

    def __init__(self, account: int, questions: Questions) -> None:
        self.account = account
        self.market = Market()
        self._questions = questions

    # Venue

    def open_account(self, account: int) -> Steps[AccountAnswer]:
        command = _command(CommandKind.OPEN_ACCOUNT, account=_u32(account, "account"))
        outcome = yield from self._submit(command, f"account {account}")
        return AccountAnswer(**answers.base(outcome), account=account)

    def add_asset(self, symbol: str, decimals: int) -> Steps[AssetAnswer]:
        packed = market.symbol(symbol)
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 18:
            raise InvalidValue(f"decimals: expected 0 to 18, found {decimals!r}")
        for _ in range(_ID_RACES):
            yield from self._load()
            if self.market.asset(symbol) is not None:
                raise InvalidValue(f"asset: expected a new symbol, found {symbol}, which exists")
            asset = 1 + max((known.id for known in self.market.assets), default=0)
            command = _command(CommandKind.ADD_ASSET, instrument=asset, client_order_id=packed, quantity_lots=decimals)
            outcome = yield Submit(command)
            if outcome["reason"][0] != Reason.ASSET_EXISTS:
                break
        answers.check(outcome, f"asset {symbol}")
        return AssetAnswer(**answers.base(outcome), asset=asset, symbol=symbol)

    def add_instrument(
        self,
        symbol: str,
        base: str,
        quote: str,
        tick: Number,
        lot: Number,
        max_price: Number | None,
        max_quantity: Number | None,
    ) -> Steps[InstrumentAnswer]:
        packed = market.symbol(symbol)
        for _ in range(_ID_RACES):
            yield from self._load()
            if self.market.instrument(symbol) is not None:
                raise InvalidValue(f"instrument: expected a new symbol, found {symbol}, which exists")
            base_asset, quote_asset = self._known_asset(base), self._known_asset(quote)
            scales = market.scales(base_asset, quote_asset, tick, lot, max_price, max_quantity)
            instrument = 1 + max((known.id for known in self.market.instruments), default=0)
            command = np.zeros(1, INSTRUMENT_COMMAND)
            command["kind"], command["instrument"], command["symbol"] = CommandKind.ADD_INSTRUMENT, instrument, packed
            command["base_asset"], command["quote_asset"] = base_asset.id, quote_asset.id
            command["lot_units"], command["scale_units"] = scales.lot_units, scales.scale_units
            command["max_price_ticks"] = scales.max_price_ticks
            command["max_quantity_lots"] = scales.max_quantity_lots
            outcome = yield Submit(command.view(COMMAND))
            if outcome["reason"][0] != Reason.INSTRUMENT_EXISTS:
                break
        answers.check(outcome, f"instrument {symbol}")
        return InstrumentAnswer(**answers.base(outcome), instrument=instrument, symbol=symbol)

    # Money

    def transfer(
        self, kind: CommandKind, account: int, asset: str, amount: Number, transfer_id: int
    ) -> Steps[TransferAnswer]:
        of = yield from self._asset(asset)
        command = _command(
            kind,
            account=_u32(account, "account"),
            instrument=of.id,
            quantity_lots=of.units(amount),
            order_id=_u64(transfer_id, "transfer_id"),
        )
        outcome = yield Submit(command)
        done_before = outcome["reason"][0] == Reason.TRANSFER_ALREADY_DONE
        if not done_before:
            answers.check(outcome, f"{kind.name.lower()} {transfer_id} of {amount} {asset}")
        base = answers.base(outcome)
        if done_before or base["duplicate"]:
            return TransferAnswer(**base, transfer_id=transfer_id, already_done=bool(done_before))
        available = int(outcome["cum_lots"][0])
        return TransferAnswer(**base, transfer_id=transfer_id, available_units=available, available=of.text(available))

    # Orders

    def place(
        self,
        symbol: str,
        side: SideLike,
        price: Number | None,
        quantity: Number,
        tif: TifLike,
        post_only: bool,
        client_order_id: int,
        account: int | None,
    ) -> Steps[OrderAnswer]:
        instrument = yield from self._instrument(symbol)
        command = _command(
            CommandKind.PLACE,
            side=_side(side),
            order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
            tif=_named(tif, TimeInForce, "tif"),
            stp=Stp.CANCEL_NEWEST,
            flags=OrderFlags.POST_ONLY if post_only else OrderFlags.NONE,
            account=self._own(account),
            instrument=instrument.id,
            client_order_id=_u64(client_order_id, "client_order_id"),
            price_ticks=0 if price is None else instrument.price_ticks(price),
            quantity_lots=instrument.quantity_lots(quantity),
        )
        outcome = yield from self._submit(command, f"order for {quantity} {symbol}")
        return answers.order_answer(outcome, instrument)

    def cancel(self, order_id: int | None, client_order_id: int | None, account: int | None) -> Steps[OrderAnswer]:
        command = _command(CommandKind.CANCEL, account=self._own(account), **_order_key(order_id, client_order_id))
        outcome = yield from self._submit(command, f"cancel of order {order_id or client_order_id}")
        return answers.order_answer(outcome, None)

    def replace(
        self,
        symbol: str,
        price: Number,
        quantity: Number,
        order_id: int | None,
        client_order_id: int | None,
        account: int | None,
    ) -> Steps[OrderAnswer]:
        instrument = yield from self._instrument(symbol)
        command = _command(
            CommandKind.REPLACE,
            account=self._own(account),
            price_ticks=instrument.price_ticks(price),
            quantity_lots=instrument.quantity_lots(quantity),
            **_order_key(order_id, client_order_id),
        )
        outcome = yield from self._submit(command, f"replacement of order {order_id or client_order_id}")
        return answers.order_answer(outcome, instrument)

    def reduce(
        self, quantity: Number, order_id: int | None, client_order_id: int | None, account: int | None
    ) -> Steps[OrderAnswer]:
        wanted = _order_key(order_id, client_order_id)
        rows = yield from self._pages(admin.Orders(account=self._own(account)), admin.OrdersReply)
        for row in rows:
            if row.order_id == wanted.get("order_id") or row.client_order_id == wanted.get("client_order_id"):
                break
        else:
            raise Refused(f"reduction of order {order_id or client_order_id}", Reason.UNKNOWN_ORDER)
        if self.market.instrument(row.instrument) is None:
            yield from self._load()
        instrument = self._known_instrument(row.instrument)
        price = instrument.price_text(row.price_ticks)
        return (yield from self.replace(instrument.symbol, price, quantity, order_id, client_order_id, account))

    def mass_cancel(self, symbol: str | None, side: SideLike | None, account: int | None) -> Steps[MassCancelAnswer]:
        instrument = 0
        if symbol is not None:
            instrument = (yield from self._instrument(symbol)).id
        command = _command(
            CommandKind.MASS_CANCEL,
            account=self._own(account),
            instrument=instrument,
            side=Side.ANY if side is None else _side(side),
        )
        outcome = yield from self._submit(command, "mass cancel")
        return MassCancelAnswer(**answers.base(outcome), cancelled=int(outcome["cum_lots"][0]))

    # Queries

    def balances(self, account: int | None, everyone: bool) -> Steps[list[Balance]]:
        request = admin.Balances(account=None if everyone else self._own(account))
        rows = yield from self._pages(request, admin.BalancesReply)
        if any(self.market.asset(row.asset) is None for row in rows):
            yield from self._load()
        found = []
        for row in rows:
            asset = self._known_asset(row.asset)
            found.append(
                Balance(
                    account=row.account,
                    asset=asset.symbol,
                    available=asset.text(row.available),
                    held=asset.text(row.held),
                    available_units=row.available,
                    held_units=row.held,
                )
            )
        return found

    def orders(self, symbol: str | None, account: int | None, everyone: bool) -> Steps[list[OpenOrder]]:
        instrument = None
        if symbol is not None:
            instrument = (yield from self._instrument(symbol)).id
        request = admin.Orders(account=None if everyone else self._own(account), instrument=instrument)
        rows = yield from self._pages(request, admin.OrdersReply)
        if any(self.market.instrument(row.instrument) is None for row in rows):
            yield from self._load()
        return [answers.open_order(row, self._known_instrument(row.instrument)) for row in rows]

    def depth(self, symbol: str, levels: int) -> Steps[Book]:
        if not 1 <= levels <= admin.MAX_LEVELS:
            raise InvalidValue(f"levels: expected 1 to {admin.MAX_LEVELS}, found {levels}")
        instrument = yield from self._instrument(symbol)
        request = admin.Depth(instrument=instrument.id, levels=levels)
        reply = yield from self._questions.ask(request, admin.DepthReply)
        return Book(
            symbol=symbol,
            sequence=reply.sequence,
            bids=answers.levels(reply.bids, instrument),
            asks=answers.levels(reply.asks, instrument),
        )

    def accounts(self) -> Steps[list[int]]:
        rows = yield from self._pages(admin.Accounts(), admin.AccountsReply)
        return [row.account for row in rows]

    def assets(self) -> Steps[list[Asset]]:
        yield from self._load()
        return self.market.assets

    def instruments(self) -> Steps[list[Instrument]]:
        yield from self._load()
        return self.market.instruments

    def barrier(self) -> Steps[admin.BarrierReply]:
        return (yield from self._questions.ask(admin.Barrier(), admin.BarrierReply))

    def status(self, node_id: int | None) -> Steps[admin.NodeStatus]:
        if node_id is None:
            return (yield from self._questions.ask(admin.Status(), admin.NodeStatus))
        return (yield from self._questions.ask_node(node_id, admin.Status(), admin.NodeStatus))

    # Shared

    def _own(self, account: int | None) -> int:
        return self.account if account is None else _u32(account, "account")

    def _submit(self, command: NDArray[np.void], what: str) -> Steps[NDArray[np.void]]:
        outcome: NDArray[np.void] = yield Submit(command)
        answers.check(outcome, what)
        return outcome

    def _asset(self, symbol: str) -> Steps[Asset]:
        if self.market.asset(symbol) is None:
            yield from self._load()
        return self._known_asset(symbol)

    def _instrument(self, symbol: str) -> Steps[Instrument]:
        if self.market.instrument(symbol) is None:
            yield from self._load()
        return self._known_instrument(symbol)

    def _known_asset(self, name: str | int) -> Asset:
        asset = self.market.asset(name)
        if asset is None:
            raise _unknown("asset", name, [known.symbol for known in self.market.assets])
        return asset

    def _known_instrument(self, name: str | int) -> Instrument:
        instrument = self.market.instrument(name)
        if instrument is None:
            raise _unknown("instrument", name, [known.symbol for known in self.market.instruments])
        return instrument

    def _load(self) -> Steps[None]:
        # Instruments first: whatever assets they are made of existed before them.
        instruments = yield from self._pages(admin.Instruments(), admin.InstrumentsReply)
        assets = yield from self._pages(admin.Assets(), admin.AssetsReply)
        self.market.learn(assets, instruments)

    def _pages(self, request: admin.AnyPage, reply_type: type[admin.PageReply[P]]) -> Steps[list[P]]:
        rows: list[P] = []
        more = True
        while more:
            reply = yield from self._questions.ask(msgspec.structs.replace(request, offset=len(rows)), reply_type)
            rows += reply.rows
            more = reply.more and bool(reply.rows)
        return rows


def _command(kind: CommandKind, **fields: int) -> NDArray[np.void]:
    command = np.zeros(1, COMMAND)
    command["kind"] = kind
    for name, value in fields.items():
        command[name] = value
    return command


def _u32(value: int, what: str) -> int:
    return _unsigned(value, what, 32)


def _u64(value: int, what: str) -> int:
    return _unsigned(value, what, 64)


def _unsigned(value: int, what: str, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise InvalidValue(f"{what}: expected an integer from 0 to 2^{bits} - 1, found {value!r}")
    return value


def _order_key(order_id: int | None, client_order_id: int | None) -> dict[str, int]:
    given = {"order_id": order_id, "client_order_id": client_order_id}
    key = {name: _u64(value, name) for name, value in given.items() if value}
    if len(key) != 1:
        raise InvalidValue(
            f"expected either order_id or client_order_id, found order_id {order_id}, client_order_id {client_order_id}"
        )
    return key


def _side(side: SideLike) -> Side:
    found = _named(side, Side, "side")
    if found is Side.ANY:
        raise InvalidValue("side: expected BUY or SELL, found ANY")
    return found


def _named(value: "E | str", kind: type[E], what: str) -> E:
    if isinstance(value, kind):
        return value
    names = {member.name: member for member in kind if member.name != "ANY"}
    found = names.get(value.upper()) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue(f"{what}: expected one of {', '.join(names)}, found {value!r}")
    return found


def _unknown(what: str, name: str | int, known: Sequence[str]) -> InvalidValue:
    listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return InvalidValue(f"{what}: expected one of {listed or 'none yet (none was added)'}, found {name}")
