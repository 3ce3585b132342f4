"""A reader of events: rebuilds every order, book and balance from the event stream and from nothing else.

What settlement and order history rely on. It sees no command and no state; the only rule it knows beyond the events is
what an open order holds, which follows from the instrument as announced.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import EventKind, OrderType, Side


@dataclass
class Listed:
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int


@dataclass
class Open:
    """An order that is alive."""

    order_id: int
    client_order_id: int
    account: int
    instrument: int
    side: int
    order_type: int
    tif: int
    flags: int
    price_ticks: int
    quantity_lots: int
    cum_lots: int = 0

    @property
    def leaves_lots(self) -> int:
        return self.quantity_lots - self.cum_lots


@dataclass
class Money:
    available: int = 0
    held: int = 0


@dataclass
class Reader:
    """Feed it events in order; ask it afterwards."""

    sequence: int = 0
    match_id: int = 0
    orders: dict[int, Open] = field(default_factory=dict)
    balances: dict[tuple[int, int], Money] = field(default_factory=dict)
    accounts: set[int] = field(default_factory=lambda: {0})
    assets: dict[int, int] = field(default_factory=dict)
    instruments: dict[int, Listed] = field(default_factory=dict)
    sessions: dict[int, int] = field(default_factory=dict)

    def read(self, events: NDArray[np.void]) -> None:
        """Take in events; raises AssertionError where they contradict each other."""
        for event in events:
            self.sequence += 1
            assert event["sequence"] == self.sequence, f"expected event {self.sequence}, found {event['sequence']}"
            handler = _HANDLERS.get(int(event["kind"]))
            if handler is not None:
                handler(self, {name: int(event[name]) for name in event.dtype.names or ()})

    def depth(self, instrument: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Bids and asks as (price, lots, orders), best first."""
        sides: dict[int, dict[int, tuple[int, int]]] = {Side.BUY: {}, Side.SELL: {}}
        for order in self.orders.values():
            if order.instrument == instrument:
                lots, count = sides[order.side].get(order.price_ticks, (0, 0))
                sides[order.side][order.price_ticks] = lots + order.leaves_lots, count + 1
        bids, asks = sorted(sides[Side.BUY].items(), reverse=True), sorted(sides[Side.SELL].items())
        return [(price, *level) for price, level in bids], [(price, *level) for price, level in asks]

    def supply(self, asset: int) -> int:
        return sum(money.available + money.held for key, money in self.balances.items() if key[1] == asset)

    def _money(self, account: int, asset: int) -> Money:
        return self.balances.setdefault((account, asset), Money())

    def _hold(self, order: Open, lots: int) -> None:
        """Move what so many lots of the order need out of reach; negative lots give it back."""
        listed = self.instruments[order.instrument]
        if order.side == Side.SELL:
            asset, amount = listed.base_asset, lots * listed.lot_units
        elif order.order_type == OrderType.LIMIT:
            asset, amount = listed.quote_asset, lots * order.price_ticks * listed.scale_units
        else:
            return
        money = self._money(order.account, asset)
        money.available -= amount
        money.held += amount

    def _new(self, event: dict[str, int]) -> None:
        fields = {name: event[name] for name in Open.__dataclass_fields__ if name != "cum_lots"}
        order = Open(**fields)
        assert order.order_id not in self.orders, f"order {order.order_id} is new twice"
        assert event["leaves_lots"] == order.quantity_lots
        self.orders[order.order_id] = order
        self._hold(order, order.quantity_lots)

    def _trade(self, event: dict[str, int]) -> None:
        self.match_id += 1
        assert event["match_id"] == self.match_id, f"expected match {self.match_id}, found {event['match_id']}"
        taker, maker = self.orders[event["order_id"]], self.orders[event["counter_order_id"]]
        assert (taker.account, maker.account) == (event["account"], event["counter_account"])
        assert (taker.side, taker.side + maker.side) == (event["side"], Side.BUY + Side.SELL)
        buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
        listed = self.instruments[event["instrument"]]
        lots = event["quantity_lots"]
        paid, bought = lots * event["price_ticks"] * listed.scale_units, lots * listed.lot_units
        # What the fill held comes free, and then changes hands.
        self._hold(buyer, -lots)
        self._hold(seller, -lots)
        self._money(buyer.account, listed.quote_asset).available -= paid
        self._money(seller.account, listed.quote_asset).available += paid
        self._money(seller.account, listed.base_asset).available -= bought
        self._money(buyer.account, listed.base_asset).available += bought
        taker.cum_lots += lots
        maker.cum_lots += lots

    def _fill(self, event: dict[str, int]) -> None:
        order = self.orders[event["order_id"]]
        assert event["match_id"] == self.match_id
        assert (order.cum_lots, order.leaves_lots) == (event["cum_lots"], event["leaves_lots"])
        if event["kind"] == EventKind.FILLED:
            assert order.leaves_lots == 0
            del self.orders[order.order_id]

    def _ended(self, event: dict[str, int]) -> None:
        # A fill-or-kill order that cannot fill ends before it is new.
        order = self.orders.pop(event["order_id"], None)
        if order is None:
            assert event["kind"] == EventKind.EXPIRED
            assert event["cum_lots"] == 0
            return
        assert (order.quantity_lots, order.cum_lots) == (event["quantity_lots"], event["cum_lots"])
        self._hold(order, -order.leaves_lots)

    def _replaced(self, event: dict[str, int]) -> None:
        order = self.orders[event["order_id"]]
        self._hold(order, event["quantity_lots"] - order.quantity_lots)
        order.quantity_lots = event["quantity_lots"]
        assert (order.cum_lots, order.leaves_lots) == (event["cum_lots"], event["leaves_lots"])

    def _deposited(self, event: dict[str, int]) -> None:
        self._transfer(event, event["quantity_lots"])

    def _withdrawn(self, event: dict[str, int]) -> None:
        self._transfer(event, -event["quantity_lots"])

    def _transfer(self, event: dict[str, int], amount: int) -> None:
        money = self._money(event["account"], event["instrument"])
        money.available += amount
        assert money.available == event["cum_lots"]

    def _account_opened(self, event: dict[str, int]) -> None:
        self.accounts.add(event["account"])

    def _session_opened(self, event: dict[str, int]) -> None:
        self.sessions[event["session_id"]] = event["account"]

    def _session_closed(self, event: dict[str, int]) -> None:
        assert self.sessions.pop(event["session_id"]) == event["account"]

    def _asset_added(self, event: dict[str, int]) -> None:
        self.assets[event["instrument"]] = event["client_order_id"]

    def _instrument_added(self, event: dict[str, int]) -> None:
        self.instruments[event["instrument"]] = Listed(
            event["order_id"], event["counter_order_id"], event["account"], event["counter_account"]
        )


_HANDLERS: dict[int, Any] = {
    EventKind.NEW: Reader._new,
    EventKind.TRADE: Reader._trade,
    EventKind.PARTIALLY_FILLED: Reader._fill,
    EventKind.FILLED: Reader._fill,
    EventKind.CANCELLED: Reader._ended,
    EventKind.EXPIRED: Reader._ended,
    EventKind.REPLACED: Reader._replaced,
    EventKind.DEPOSITED: Reader._deposited,
    EventKind.WITHDRAWN: Reader._withdrawn,
    EventKind.ACCOUNT_OPENED: Reader._account_opened,
    EventKind.SESSION_OPENED: Reader._session_opened,
    EventKind.SESSION_CLOSED: Reader._session_closed,
    EventKind.ASSET_ADDED: Reader._asset_added,
    EventKind.INSTRUMENT_ADDED: Reader._instrument_added,
}
