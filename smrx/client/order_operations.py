"""The operations of traders: place, replace, reduce and cancel orders."""

from typing import Final

from smrx.client import result_builders
from smrx.client.client_errors import InvalidValue, Refused
from smrx.client.command_builders import (
    ClientOrderId,
    SideLike,
    StpLike,
    TifLike,
    client_id_fields,
    client_id_text,
    command,
    enum_member,
    named_order,
    order_key,
)
from smrx.client.command_builders import side as side_code
from smrx.client.decimals import Number
from smrx.client.expiry_time import ExpiryTime, nanoseconds
from smrx.client.instruments import Instrument
from smrx.client.io_steps import Steps
from smrx.client.operation_base import OperationBase
from smrx.client.results import MassCancelResult, OrderResult
from smrx.wire import admin
from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)

_MAX_BUDGET: Final = (1 << 62) - 1
_MAX_DISPLAY: Final = 1 << 62


class OrderOperations(OperationBase):
    """Operations on orders."""

    def place(
        self,
        symbol: str,
        side: SideLike,
        quantity: Number | None = None,
        *,
        price: Number | None = None,
        stop: Number | None = None,
        tif: TifLike | None = None,
        display: Number | None = None,
        expires: ExpiryTime | None = None,
        budget: Number | None = None,
        stp: StpLike = Stp.CANCEL_NEWEST,
        post_only: bool = False,
        client_order_id: ClientOrderId | None = None,
        account: int | None = None,
    ) -> Steps[OrderResult]:
        """Place an order of any type. Raises Refused.

        With `price` it is a limit order, with `stop` a stop order that triggers when the last trade reaches that price,
        without both a market order. An order with a price may `display` only part of its quantity (an iceberg order).
        It, and a stop order, may have a time at which it `expires`. A market buy order may have a `budget` in the quote
        asset, fees included, instead of a quantity. The default `tif` is GTC with a price, GTD with `expires`,
        otherwise IOC. `client_order_id` is the caller's own id: 1 to 64 printable ASCII characters, or a number.
        """
        instrument = yield from self._instrument(symbol)
        order_type = _TYPES[stop is not None, price is not None]
        flags = OrderFlags.POST_ONLY if post_only else OrderFlags.NONE
        if budget is None and quantity is not None:
            lots = instrument.quantity_lots(quantity)
        elif budget is not None and quantity is None:
            flags |= OrderFlags.QUOTE_BUDGET
            lots = _budget_units(budget, instrument)
        else:
            raise InvalidValue(f"expected either quantity or budget, found {'neither' if budget is None else 'both'}")
        word, long_text = client_id_fields(client_id_text(client_order_id))
        placed = command(
            CommandKind.PLACE,
            {"client_order_id": long_text, **_terms(instrument, order_type, stop, display, expires)},
            side=side_code(side),
            order_type=order_type,
            tif=_tif(tif, order_type, expires),
            stp=enum_member(stp, Stp, "stp"),
            flags=flags,
            account=self._own(account),
            instrument=instrument.id,
            client_order_id=word,
            price_ticks=0 if price is None else instrument.price_ticks(price),
            quantity_lots=lots,
        )
        description = f"{quantity} {symbol}" if budget is None else f"{symbol} worth {budget} {instrument.quote.symbol}"
        outcome = yield from self._submit(placed, f"order for {description}")
        return result_builders.order_result(outcome, instrument)

    def place_limit(
        self,
        symbol: str,
        side: SideLike,
        price: Number,
        quantity: Number,
        *,
        tif: TifLike | None = None,
        display: Number | None = None,
        expires: ExpiryTime | None = None,
        stp: StpLike = Stp.CANCEL_NEWEST,
        post_only: bool = False,
        client_order_id: ClientOrderId | None = None,
        account: int | None = None,
    ) -> Steps[OrderResult]:
        """Place a limit order, GTC by default. Raises Refused."""
        return self.place(
            symbol,
            side,
            quantity,
            price=price,
            tif=tif,
            display=display,
            expires=expires,
            stp=stp,
            post_only=post_only,
            client_order_id=client_order_id,
            account=account,
        )

    def place_market(
        self,
        symbol: str,
        side: SideLike,
        quantity: Number | None = None,
        *,
        budget: Number | None = None,
        stp: StpLike = Stp.CANCEL_NEWEST,
        client_order_id: ClientOrderId | None = None,
        account: int | None = None,
    ) -> Steps[OrderResult]:
        """Place a market order for a quantity, or for as much as a budget buys. Raises Refused."""
        return self.place(
            symbol, side, quantity, budget=budget, stp=stp, client_order_id=client_order_id, account=account
        )

    def cancel(
        self, order_id: int | None = None, *, client_order_id: ClientOrderId | None = None, account: int | None = None
    ) -> Steps[OrderResult]:
        """Cancel an order by either id. Raises Refused."""
        wanted = named_order(CommandKind.CANCEL, order_id, client_order_id, account=self._own(account))
        outcome = yield from self._submit(wanted, f"cancel of order {order_id or client_order_id}")
        return result_builders.order_result(outcome, None)

    def replace(
        self,
        symbol: str,
        price: Number | None,
        quantity: Number,
        *,
        order_id: int | None = None,
        client_order_id: ClientOrderId | None = None,
        account: int | None = None,
    ) -> Steps[OrderResult]:
        """Give an order a new price and total quantity. Raises Refused; the order is then unchanged.

        Only a smaller quantity at the same price keeps the queue position. A pending stop order has no price (None);
        its stop price does not change.
        """
        instrument = yield from self._instrument(symbol)
        wanted = named_order(
            CommandKind.REPLACE,
            order_id,
            client_order_id,
            account=self._own(account),
            price_ticks=0 if price is None else instrument.price_ticks(price),
            quantity_lots=instrument.quantity_lots(quantity),
        )
        outcome = yield from self._submit(wanted, f"replacement of order {order_id or client_order_id}")
        return result_builders.order_result(outcome, instrument)

    def reduce(
        self,
        quantity: Number,
        *,
        order_id: int | None = None,
        client_order_id: ClientOrderId | None = None,
        account: int | None = None,
    ) -> Steps[OrderResult]:
        """Reduce the total quantity of an order; it keeps its queue position."""
        row = yield from self._open_order(order_id, client_order_id, account, "reduction")
        instrument = self._known_instrument(row.instrument)
        # A replacement with the same quantity would lose the queue position.
        if instrument.quantity_lots(quantity) >= row.quantity_lots:
            now = instrument.quantity_text(row.quantity_lots)
            raise InvalidValue(f"quantity: expected less than {now}, that of order {row.order_id}, found {quantity}")
        price = instrument.price_text(row.price_ticks) if row.price_ticks else None
        return (
            yield from self.replace(
                instrument.symbol, price, quantity, order_id=order_id, client_order_id=client_order_id, account=account
            )
        )

    def mass_cancel(
        self, symbol: str | None = None, side: SideLike | None = None, *, account: int | None = None
    ) -> Steps[MassCancelResult]:
        """Cancel all open orders of an account, optionally of one instrument and one side only.

        The exchange cancels MAX_CANCELS orders for each request, so this may send several.
        """
        instrument = 0
        if symbol is not None:
            instrument = (yield from self._instrument(symbol)).id
        wanted = command(
            CommandKind.MASS_CANCEL,
            account=self._own(account),
            instrument=instrument,
            side=Side.ANY if side is None else side_code(side),
        )
        outcome, cancelled = yield from self._repeated(wanted, "mass cancel")
        return MassCancelResult(**result_builders.common_fields(outcome), cancelled=cancelled)

    def _open_order(
        self, order_id: int | None, client_order_id: ClientOrderId | None, account: int | None, what: str
    ) -> Steps[admin.OrderRow]:
        number, text = order_key(order_id, client_order_id)
        request = admin.Orders(account=self._own(account), order_id=number or None, client_order_id=text or None)
        rows = yield from self._pages(request, admin.OrdersReply)
        if not rows:
            raise Refused(f"{what} of order {order_id or client_order_id}", Reason.UNKNOWN_ORDER)
        row = rows[0]
        if self.market.instrument(row.instrument) is None:
            yield from self._load()
        return row


#: (has a stop price, has a limit price) -> order type.
_TYPES: Final = {
    (False, False): OrderType.MARKET,
    (False, True): OrderType.LIMIT,
    (True, False): OrderType.STOP,
    (True, True): OrderType.STOP_LIMIT,
}


def _tif(tif: TifLike | None, order_type: OrderType, expires: ExpiryTime | None) -> TimeInForce:
    if expires is not None and order_type is OrderType.MARKET:
        raise InvalidValue("a market order is executed at once and may not have an expiry time")
    priced = order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
    if tif is None:
        return TimeInForce.GTD if expires is not None else TimeInForce.GTC if priced else TimeInForce.IOC
    found = enum_member(tif, TimeInForce, "tif")
    if (found is TimeInForce.GTD) != (expires is not None):
        if expires is None:
            raise InvalidValue("tif GTD requires an expiry time")
        raise InvalidValue(f"an expiry time requires tif GTD, found {found.name}")
    return found


def _terms(
    instrument: Instrument,
    order_type: OrderType,
    stop: Number | None,
    display: Number | None,
    expires: ExpiryTime | None,
) -> dict[str, int | bytes]:
    """Return the terms of a PLACE, by their names in ORDER_DETAILS."""
    terms: dict[str, int | bytes] = {}
    if stop is not None:
        terms["stop_price_ticks"] = instrument.price_ticks(stop, "stop price")
    if display is not None:
        if order_type not in (OrderType.LIMIT, OrderType.STOP_LIMIT):
            raise InvalidValue(f"only orders with a price may have a display, found a {_type_name(order_type)}")
        lots = instrument.quantity_lots(display, "display quantity")
        if lots >= _MAX_DISPLAY:
            most = instrument.quantity_text(_MAX_DISPLAY - 1)
            raise InvalidValue(f"{instrument.symbol} display quantity: expected at most {most}, found {display}")
        terms["display_lots"] = lots
    if expires is not None:
        terms["expiry_ns"] = nanoseconds(expires)
    return terms


def _type_name(order_type: OrderType) -> str:
    return f"{order_type.name.lower().replace('_', '-')} order"


def _budget_units(budget: Number, instrument: Instrument) -> int:
    units = instrument.quote.units(budget, "budget")
    if units > _MAX_BUDGET:
        raise InvalidValue(f"budget: expected at most {instrument.quote.text(_MAX_BUDGET)}, found {budget}")
    return units
