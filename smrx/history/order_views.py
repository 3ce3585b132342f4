"""Show orders of the history: symbols, decimals as text, times in RFC 3339. Called by the command line."""

from enum import IntEnum
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np

from smrx.client import decimals
from smrx.client.instruments import Asset, Instrument
from smrx.client.reasons import reason_text
from smrx.history.history_reader import HistoryReader
from smrx.history.order_status import OrderStatus
from smrx.sinks.rows import Catalogue, time_text
from smrx.wire.codes import EventKind, OrderFlags, OrderType, Reason, Side, TimeInForce

#: Decimal places of an average price beyond those of the tick.
_AVERAGE_PLACES: Final = 8
#: A filter that few orders pass costs no more than so many lookups a page.
MAX_LOOKED_AT: Final = 5_000
_NO_ASSET: Final = Asset(0, "", 0)


class OrderView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One order as it stood after an event. Decimals are text; money is in the quote asset."""

    order_id: int
    client_order_id: str
    account: int
    symbol: str
    status: str
    side: str
    order_type: str
    tif: str
    price: str | None
    quantity: str | None  #: None for an order by budget
    filled: str
    average_price: str | None  #: rounded; notional and filled are exact
    notional: str
    fees: str
    reason: str
    created: str
    updated: str
    event_sequence: int  #: of the last update
    cursor: int  #: the event of the first update; pages continue before it
    budget: str | None = None
    stop: str | None = None
    display: str | None = None
    expires: str | None = None


class Page(msgspec.Struct, kw_only=True):
    """Orders, and where the list continues."""

    orders: list[OrderView]
    next: int | None  #: the cursor for the next page; None if there is none


class UpdateView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of an order's life."""

    event_sequence: int
    time: str
    event: str
    status: str
    price: str | None
    quantity: str | None
    filled: str
    reason: str = ""
    fill: "FillView | None" = None


class FillView(msgspec.Struct, kw_only=True):
    """One fill of an order."""

    match_id: int
    order_id: int
    symbol: str
    side: str
    price: str
    quantity: str
    fee: str
    liquidity: str  #: maker or taker
    time: str
    event_sequence: int


class OrderViews:
    """Reads orders from one view of the history."""

    def __init__(self, reader: HistoryReader) -> None:
        """Show what `reader` holds."""
        self._reader = reader
        self._instruments = _instruments(reader.catalogue())

    def orders(
        self,
        account: int,
        *,
        statuses: frozenset[OrderStatus] = frozenset(),
        symbol: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page:
        """Return orders of an account, newest first; of these statuses only if there are some.

        A page looks at MAX_LOOKED_AT orders at most, and then continues where it stopped.
        """
        found: list[OrderView] = []
        cursor = 0
        for looked_at, first in enumerate(row for page in self._reader.placed(account, before) for row in page):
            if len(found) == limit or looked_at == MAX_LOOKED_AT:
                return Page(orders=found, next=cursor)
            cursor = int(first["event_sequence"])
            if symbol is not None and self._instrument(first).symbol != symbol:
                continue
            last = self._reader.latest(int(first["order_id"])) if first["order_id"] else first
            if not statuses or int(last["status"]) in statuses:
                found.append(self.order(first, last))
        return Page(orders=found, next=None)

    def timeline(self, order_id: int) -> tuple[OrderView, list[UpdateView]] | None:
        """Return an order and its steps, or None if it is not known."""
        updates = self._reader.updates(order_id)
        if not len(updates):
            return None
        return self.order(updates[0], updates[-1]), [self._update(row) for row in updates]

    def by_client_order_id(self, account: int, text: str) -> list[int]:
        """Return the ids of the account's orders with this client order id, the oldest first."""
        return [int(row["order_id"]) for row in self._reader.by_client_order_id(account, text)]

    def fills(self, account: int, *, before: int | None = None, limit: int = 50) -> list[FillView]:
        """Return fills of an account, newest first."""
        rows = (row for page in self._reader.fills(account, before) for row in page)
        return [self._fill(row) for row in islice(rows, limit)]

    def order(self, first: np.void, last: np.void) -> OrderView:
        """Return an order by its first and its last update."""
        instrument = self._instrument(last)
        by_budget = bool(int(last["flags"]) & OrderFlags.QUOTE_BUDGET)
        filled, notional = int(last["filled_lots"]), int(last["notional"])
        terms: dict[str, int] = {}
        for row in self._reader.details(int(first["event_sequence"])):
            terms |= {name: int(row[name]) for name in ("stop_price_ticks", "display_lots", "expiry_ns") if row[name]}
        return OrderView(
            order_id=int(last["order_id"]),
            client_order_id=self._reader.text_of(first),
            account=int(last["account"]),
            symbol=instrument.symbol,
            status=OrderStatus(int(last["status"])).label,
            side=_name(Side, last["side"]),
            order_type=_name(OrderType, last["order_type"]),
            tif=_name(TimeInForce, last["tif"]),
            price=_price(instrument, last["price_ticks"]),
            quantity=None if by_budget else instrument.quantity_text(int(last["quantity_lots"])),
            filled=instrument.quantity_text(filled),
            average_price=_average(instrument, notional, filled),
            notional=_decimal(notional, instrument.quote.decimals),
            fees=_decimal(int(last["fees"]), instrument.quote.decimals),
            reason=_reason(last),
            created=time_text(int(last["created_ns"])),
            updated=time_text(int(last["time_ns"])),
            event_sequence=int(last["event_sequence"]),
            cursor=int(first["event_sequence"]),
            budget=_decimal(int(last["quantity_lots"]), instrument.quote.decimals) if by_budget else None,
            stop=instrument.price_text(terms["stop_price_ticks"]) if "stop_price_ticks" in terms else None,
            display=instrument.quantity_text(terms["display_lots"]) if "display_lots" in terms else None,
            expires=time_text(terms["expiry_ns"]) if "expiry_ns" in terms else None,
        )

    def _instrument(self, row: np.void) -> Instrument:
        """Return the instrument of an order; one that shows lots and ticks if a rejected order names none."""
        number = int(row["instrument"])
        found = self._instruments.get(number)
        return found if found is not None else Instrument(number, f"#{number}", _NO_ASSET, _NO_ASSET, 1, 1, 0, 0, 0)

    def _update(self, row: np.void) -> UpdateView:
        instrument = self._instrument(row)
        by_budget = bool(int(row["flags"]) & OrderFlags.QUOTE_BUDGET)
        return UpdateView(
            event_sequence=int(row["event_sequence"]),
            time=time_text(int(row["time_ns"])),
            event=EventKind(int(row["kind"])).name,
            status=OrderStatus(int(row["status"])).label,
            price=_price(instrument, row["price_ticks"]),
            quantity=None if by_budget else instrument.quantity_text(int(row["quantity_lots"])),
            filled=instrument.quantity_text(int(row["filled_lots"])),
            reason=_reason(row),
            fill=self._fill(row) if row["match_id"] else None,
        )

    def _fill(self, row: np.void) -> FillView:
        instrument = self._instrument(row)
        return FillView(
            match_id=int(row["match_id"]),
            order_id=int(row["order_id"]),
            symbol=instrument.symbol,
            side=_name(Side, row["side"]),
            price=instrument.price_text(int(row["last_price_ticks"])),
            quantity=instrument.quantity_text(int(row["last_lots"])),
            fee=_decimal(int(row["last_fee"]), instrument.quote.decimals),
            liquidity="maker" if row["is_maker"] else "taker",
            time=time_text(int(row["time_ns"])),
            event_sequence=int(row["event_sequence"]),
        )


def _instruments(known: Catalogue) -> dict[int, Instrument]:
    assets = {asset.id: Asset(asset.id, asset.symbol, asset.decimals) for asset in known.assets.values()}
    return {
        one.id: Instrument(
            one.id, one.symbol, assets[one.base_asset], assets[one.quote_asset], one.lot_units, one.scale_units, 0, 0, 0
        )
        for one in known.instruments.values()
    }


def _name(names: type[IntEnum], value: np.integer[Any]) -> str:
    """Return the name of a code in lower case; of a rejected order it may be any number."""
    member = names._value2member_map_.get(int(value))
    return str(int(value)) if member is None else member.name.lower()


def _price(instrument: Instrument, ticks: np.int64) -> str | None:
    return instrument.price_text(int(ticks)) if ticks else None


def _average(instrument: Instrument, notional: int, filled_lots: int) -> str | None:
    """Return the average price as a decimal, rounded half up."""
    if not filled_lots:
        return None
    places = instrument.quote.decimals + _AVERAGE_PLACES
    # notional / 10^quote decimals, by filled lots x lot units / 10^base decimals.
    above = notional * 10 ** (_AVERAGE_PLACES + instrument.base.decimals)
    below = filled_lots * instrument.lot_units
    text = _decimal((2 * above + below) // (2 * below), places)
    return text.rstrip("0").rstrip(".")


def _decimal(units: int, places: int) -> str:
    """Return units of 10^-places as a decimal."""
    return decimals.text_of_steps(units, 1, 10**places)


def _reason(row: np.void) -> str:
    """Return why an order ended or was rejected; "" for no reason."""
    code = int(row["reason"])
    return "" if code == Reason.NONE else reason_text(code)
