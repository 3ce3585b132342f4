"""The books, kept from events alone: orders, what they hold, and what every account owns. Exact integers.

Rules:

- A trade moves base and quote between two accounts and fees to the venue (account 0); nothing is made or lost. Per
  asset the sum over all accounts equals deposits less withdrawals.
- No account owns less than it holds for its orders, and none holds less than nothing.
- A fill belongs to an open order, at a price its limit allows; a maker trades at its own price.
- No sockets, no files, no clock. Whoever feeds it has checked sequences and the shape of trades (the verifier).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import EventKind, OrderType, Reason, Side
from smrx.engine.records import unpack_symbol
from smrx.settlement.errors import Violation

#: The venue's own account: it exists from the beginning and takes the fees.
VENUE_ACCOUNT: Final = 0

_BUY: Final = int(Side.BUY)
_LIMIT: Final = int(OrderType.LIMIT)


class Instrument(NamedTuple):
    """What is needed to turn ticks and lots into money."""

    symbol: str
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int


class SettledTrade(NamedTuple):
    """One verified trade, as the sinks write it. Money in minimal units of the quote asset."""

    match_id: int
    event_sequence: int
    command_sequence: int
    time_ns: int
    instrument: str
    price_ticks: int
    quantity_lots: int
    notional: int
    taker_side: str
    taker_order_id: int
    taker_account: int
    taker_fee: int
    maker_order_id: int
    maker_account: int
    maker_fee: int


class Balance(NamedTuple):
    """What an account owns of an asset, and how much of it its open orders hold."""

    account: int
    asset: int
    total: int
    held: int

    @property
    def available(self) -> int:
        """What it may withdraw."""
        return self.total - self.held


class _Open:
    """An open order: who, what, how much is left, and what each lot of it holds."""

    __slots__ = ("account", "cum", "hold_key", "hold_per_lot", "instrument", "leaves", "price", "side")

    def __init__(self, event: "_Row", hold_key: int, hold_per_lot: int) -> None:
        self.account = event.account
        self.instrument = event.instrument
        self.side = event.side
        self.price = event.price_ticks
        self.leaves = event.quantity_lots
        self.cum = 0
        self.hold_key = hold_key
        self.hold_per_lot = hold_per_lot


class _Row(NamedTuple):
    """The columns of an event the books need, as Python integers."""

    sequence: int
    kind: int
    command_sequence: int
    time_ns: int
    side: int
    order_type: int
    reason: int
    instrument: int
    account: int
    counter_account: int
    order_id: int
    counter_order_id: int
    match_id: int
    client_order_id: int
    price_ticks: int
    quantity_lots: int
    cum_lots: int
    leaves_lots: int


def _key(account: int, asset: int) -> int:
    return account << 32 | asset


class Books:
    """What the events say everybody has. Raises Violation at the first event that cannot be."""

    def __init__(self) -> None:
        self.assets: dict[int, str] = {}
        self.instruments: dict[int, Instrument] = {}
        self.accounts: set[int] = {VENUE_ACCOUNT}
        self.supply: dict[int, int] = {}
        self.orders: dict[int, _Open] = {}
        self._total: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._handlers: dict[int, Callable[[_Row], None]] = {
            EventKind.NEW: self._new,
            EventKind.PARTIALLY_FILLED: self._fill,
            EventKind.FILLED: self._fill,
            EventKind.CANCELLED: self._end,
            EventKind.EXPIRED: self._end,
            EventKind.REPLACED: self._replace,
            EventKind.TRADE: self._trade,
            EventKind.DEPOSITED: self._transfer,
            EventKind.WITHDRAWN: self._transfer,
            EventKind.ACCOUNT_OPENED: self._open_account,
            EventKind.ASSET_ADDED: self._add_asset,
            EventKind.INSTRUMENT_ADDED: self._add_instrument,
        }
        self._settled: list[SettledTrade] = []

    def post(self, events: NDArray[np.void]) -> list[SettledTrade]:
        """Post events in order; return the trades among them."""
        rows = map(_Row._make, zip(*(events[name].tolist() for name in _Row._fields), strict=True))
        handlers = self._handlers
        for row in rows:
            handler = handlers.get(row.kind)
            if handler is not None:
                handler(row)
        settled, self._settled = self._settled, []
        return settled

    def balances(self) -> list[Balance]:
        """Every balance there has been, by account and asset."""
        return [
            Balance(key >> 32, key & 0xFFFF_FFFF, total, self._held.get(key, 0))
            for key, total in sorted(self._total.items())
        ]

    @property
    def balance_count(self) -> int:
        """How many balances there are."""
        return len(self._total)

    def check_sums(self, sequence: int) -> None:
        """Check that per asset all accounts together own deposits less withdrawals; `sequence` names the last event."""
        sums = dict.fromkeys(self.supply, 0)
        for key, total in self._total.items():
            sums[key & 0xFFFF_FFFF] += total
        for asset, found in sums.items():
            if found != self.supply[asset]:
                raise Violation(
                    sequence,
                    f"asset {self.assets[asset]}: expected accounts to own {self.supply[asset]} in all (deposits less "
                    f"withdrawals), found {found}",
                )

    def _require(self, row: _Row, condition: bool, message: str) -> None:
        if not condition:
            raise Violation(row.sequence, message)

    def _known_instrument(self, row: _Row) -> Instrument:
        instrument = self.instruments.get(row.instrument)
        if instrument is None:
            raise Violation(row.sequence, f"expected a known instrument, found {row.instrument}")
        return instrument

    def _order(self, row: _Row) -> _Open:
        """The open order an event is about, if the event says the same of it as the books."""
        order = self.orders.get(row.order_id)
        if order is None:
            raise Violation(row.sequence, f"expected an open order, found order {row.order_id}, which is not open")
        if (order.account, order.instrument, order.side) != (row.account, row.instrument, row.side):
            raise Violation(
                row.sequence,
                f"order {row.order_id}: expected account {order.account}, instrument {order.instrument}, side "
                f"{order.side}, found {row.account}, {row.instrument}, {row.side}",
            )
        return order

    def _new(self, row: _Row) -> None:
        instrument = self._known_instrument(row)
        limit = row.order_type == _LIMIT
        if row.order_id in self.orders:
            raise Violation(row.sequence, f"order {row.order_id} is open already")
        if row.account not in self.accounts:
            raise Violation(row.sequence, f"expected a known account, found {row.account}")
        if not 1 <= row.quantity_lots == row.leaves_lots <= instrument.max_quantity_lots:
            raise Violation(
                row.sequence,
                f"order {row.order_id}: expected 1 to {instrument.max_quantity_lots} lots, all of them open, "
                f"found {row.quantity_lots} with {row.leaves_lots} open",
            )
        if not (1 <= row.price_ticks <= instrument.max_price_ticks if limit else row.price_ticks == 0):
            raise Violation(row.sequence, f"order {row.order_id}: {row.price_ticks} ticks is no price for it")
        if row.side == _BUY:
            key = _key(row.account, instrument.quote_asset)
            per_lot = row.price_ticks * instrument.scale_units
        else:
            key = _key(row.account, instrument.base_asset)
            per_lot = instrument.lot_units
        self.orders[row.order_id] = _Open(row, key, per_lot)
        self._hold(row, key, per_lot * row.quantity_lots)

    def _hold(self, row: _Row, key: int, change: int) -> None:
        """Change what is held of a balance; what is owned must cover it."""
        held = self._held.get(key, 0) + change
        self._held[key] = held
        total = self._total.get(key, 0)
        if not 0 <= held <= total:
            raise Violation(
                row.sequence,
                f"account {key >> 32}, asset {self.assets[key & 0xFFFF_FFFF]}: expected what orders hold to be between "
                f"0 and what is owned ({total}), found {held}",
            )

    def _trade(self, row: _Row) -> None:
        instrument = self._known_instrument(row)
        taker, maker = self.orders.get(row.order_id), self.orders.get(row.counter_order_id)
        if taker is None or maker is None:
            gone = row.order_id if taker is None else row.counter_order_id
            raise Violation(row.sequence, f"trade {row.match_id}: order {gone} is not open")
        price, quantity = row.price_ticks, row.quantity_lots
        self._check_trade(row, taker, maker)
        notional = price * quantity * instrument.scale_units
        base = quantity * instrument.lot_units
        buyer, seller = (row.account, row.counter_account) if row.side == _BUY else (row.counter_account, row.account)
        quote_asset, base_asset = instrument.quote_asset, instrument.base_asset
        self._move(_key(buyer, quote_asset), _key(seller, quote_asset), notional)
        self._move(_key(seller, base_asset), _key(buyer, base_asset), base)
        if row.cum_lots:
            self._move(_key(row.account, quote_asset), _key(VENUE_ACCOUNT, quote_asset), row.cum_lots)
        if row.leaves_lots:
            self._move(_key(row.counter_account, quote_asset), _key(VENUE_ACCOUNT, quote_asset), row.leaves_lots)
        self._settled.append(
            SettledTrade(
                row.match_id,
                row.sequence,
                row.command_sequence,
                row.time_ns,
                instrument.symbol,
                price,
                quantity,
                notional,
                "BUY" if row.side == _BUY else "SELL",
                row.order_id,
                row.account,
                row.cum_lots,
                row.counter_order_id,
                row.counter_account,
                row.leaves_lots,
            )
        )

    def _check_trade(self, row: _Row, taker: _Open, maker: _Open) -> None:
        """Check a trade against what its two orders allow."""
        price, quantity = row.price_ticks, row.quantity_lots
        if not 1 <= quantity <= min(taker.leaves, maker.leaves):
            raise Violation(
                row.sequence,
                f"trade {row.match_id}: expected 1 to {min(taker.leaves, maker.leaves)} lots, which both orders have "
                f"left, found {quantity}",
            )
        if price != maker.price or price < 1:
            raise Violation(
                row.sequence, f"trade {row.match_id}: expected the maker's price, {maker.price} ticks, found {price}"
            )
        if taker.price and (price > taker.price if taker.side == _BUY else price < taker.price):
            raise Violation(
                row.sequence, f"trade {row.match_id}: {price} ticks is beyond the taker's limit, {taker.price}"
            )
        if taker.side == maker.side:
            raise Violation(row.sequence, f"trade {row.match_id}: both orders are on the same side")

    def _move(self, source: int, target: int, amount: int) -> None:
        """Move money between two balances; whether the source could afford it is checked when its hold changes."""
        total = self._total
        total[source] = total.get(source, 0) - amount
        total[target] = total.get(target, 0) + amount

    def _fill(self, row: _Row) -> None:
        order = self._order(row)
        order.cum += row.quantity_lots
        order.leaves -= row.quantity_lots
        if (order.cum, order.leaves) != (row.cum_lots, row.leaves_lots) or order.leaves < 0:
            raise Violation(
                row.sequence,
                f"order {row.order_id}: expected {order.cum} lots filled and {order.leaves} left, found "
                f"{row.cum_lots} and {row.leaves_lots}",
            )
        self._hold(row, order.hold_key, -order.hold_per_lot * row.quantity_lots)
        if not order.leaves:
            del self.orders[row.order_id]

    def _end(self, row: _Row) -> None:
        if row.reason == Reason.FOK_UNFILLABLE and row.order_id == row.command_sequence:
            # It ended before it began: no NEW, no hold.
            self._require(row, row.cum_lots == 0 and row.order_id not in self.orders, "an unfillable order was filled")
            return
        order = self._order(row)
        self._check_order(row, order, order.price, order.cum + order.leaves, 0)
        self._hold(row, order.hold_key, -order.hold_per_lot * order.leaves)
        del self.orders[row.order_id]

    def _replace(self, row: _Row) -> None:
        order = self._order(row)
        instrument = self.instruments[order.instrument]
        self._check_order(row, order, row.price_ticks, row.quantity_lots, row.quantity_lots - order.cum)
        self._require(
            row, row.leaves_lots >= 1 and 1 <= row.price_ticks <= instrument.max_price_ticks, "no order is left"
        )
        before = order.hold_per_lot * order.leaves
        order.price, order.leaves = row.price_ticks, row.leaves_lots
        if order.side == _BUY:
            order.hold_per_lot = order.price * instrument.scale_units
        self._hold(row, order.hold_key, order.hold_per_lot * order.leaves - before)

    def _check_order(self, row: _Row, order: _Open, price: int, quantity: int, leaves: int) -> None:
        """Check that an event repeats the order as it is known."""
        expected = (price, quantity, order.cum, leaves)
        found = (row.price_ticks, row.quantity_lots, row.cum_lots, row.leaves_lots)
        if expected != found:
            raise Violation(
                row.sequence,
                f"order {row.order_id}: expected price, quantity, cum and leaves {expected}, found {found}",
            )

    def _transfer(self, row: _Row) -> None:
        asset, amount = row.instrument, row.quantity_lots
        self._require(row, asset in self.assets, f"expected a known asset, found {asset}")
        self._require(row, row.account in self.accounts, f"expected a known account, found {row.account}")
        self._require(row, amount >= 1, f"expected an amount of at least 1, found {amount}")
        if row.kind == EventKind.WITHDRAWN:
            amount = -amount
        key = _key(row.account, asset)
        self.supply[asset] += amount
        self._total[key] = self._total.get(key, 0) + amount
        available = self._total[key] - self._held.get(key, 0)
        self._require(
            row,
            available == row.cum_lots >= 0,
            f"account {row.account}, asset {self.assets[asset]}: expected {available} available after the transfer, "
            f"found {row.cum_lots}",
        )

    def _open_account(self, row: _Row) -> None:
        self._require(row, row.account not in self.accounts, f"account {row.account} exists already")
        self.accounts.add(row.account)

    def _add_asset(self, row: _Row) -> None:
        self._require(row, row.instrument not in self.assets, f"asset {row.instrument} exists already")
        self.assets[row.instrument] = unpack_symbol(row.client_order_id)
        self.supply[row.instrument] = 0

    def _add_instrument(self, row: _Row) -> None:
        self._require(row, row.instrument not in self.instruments, f"instrument {row.instrument} exists already")
        for asset in (row.order_id, row.counter_order_id):
            self._require(row, asset in self.assets, f"expected a known asset, found {asset}")
        self.instruments[row.instrument] = Instrument(
            unpack_symbol(row.client_order_id),
            row.order_id,
            row.counter_order_id,
            row.account,
            row.counter_account,
            row.price_ticks,
            row.quantity_lots,
        )
