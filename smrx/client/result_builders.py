"""Build the results of operations from outcome records and admin rows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.client import expiry_time, rates
from smrx.client.client_errors import ProtocolError, Refused
from smrx.client.instruments import Instrument
from smrx.client.reasons import reason_text
from smrx.client.results import STATES, AccountState, Level, OpenOrder, OrderResult, Position
from smrx.wire import admin
from smrx.wire.codes import (
    AccountStatus,
    CollarReference,
    OrderFlags,
    OrderType,
    OutcomeStatus,
    Reason,
    Side,
    Stp,
    TimeInForce,
)

_REASONS: Final = frozenset(int(reason) for reason in Reason)
#: Looked up once: the members of an enumeration are found slowly.
_REJECTED: Final = int(OutcomeStatus.REJECTED)
_DUPLICATE: Final = int(OutcomeStatus.DUPLICATE)
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT)


def check(outcome: NDArray[np.void], what: str) -> None:
    """Raise Refused if the command was rejected; `what` describes it in the message."""
    if outcome.item(0)[0] == _REJECTED:
        code = int(outcome["reason"][0])
        if code not in _REASONS:
            raise ProtocolError(f"{what} was refused for reason {code}, unknown to this version")
        raise Refused(what, Reason(code), outcome)


def common_fields(outcome: NDArray[np.void]) -> dict[str, Any]:
    """Return the fields that every result has."""
    return {
        "request_id": int(outcome["request_id"][0]),
        "sequence": int(outcome["sequence"][0]),
        "duplicate": bool(outcome["status"][0] == OutcomeStatus.DUPLICATE),
    }


def order_result(outcome: NDArray[np.void], instrument: Instrument | None) -> OrderResult:
    """Return the result of a command for one order."""
    status, event_kind, reason, _, _, request, sequence, order, _, cum, leaves = outcome.item(0)
    if status == _DUPLICATE:
        return OrderResult(
            request_id=request,
            sequence=sequence,
            duplicate=True,
            order_id=0,
            state="Unknown",
            reason=None,
            cum_lots=0,
            leaves_lots=0,
        )
    return OrderResult(
        request_id=request,
        sequence=sequence,
        order_id=order,
        state=STATES.get(event_kind, f"Kind{event_kind}"),
        reason=_reason_text(reason),
        cum_lots=cum,
        leaves_lots=leaves,
        filled=instrument.quantity_text(cum) if instrument else None,
        remaining=instrument.quantity_text(leaves) if instrument else None,
        reason_text=reason_text(reason) if reason else None,
    )


def levels(rows: Sequence[admin.LevelRow], instrument: Instrument) -> tuple[Level, ...]:
    """Return one side of a book."""
    return tuple(
        Level(
            price=instrument.price_text(row.price_ticks),
            quantity=instrument.quantity_text(row.quantity_lots),
            orders=row.orders,
            price_ticks=row.price_ticks,
            quantity_lots=row.quantity_lots,
        )
        for row in rows
    )


def position(row: admin.PositionRow, instrument: Instrument) -> Position:
    """Return an account's position in an instrument."""
    base, quote = instrument.base, instrument.quote
    buy_lots, sell_lots = int(row.buy_lots), int(row.sell_lots)
    buy_notional, sell_notional = int(row.buy_notional), int(row.sell_notional)
    return Position(
        account=row.account,
        symbol=instrument.symbol,
        base=base.symbol,
        quote=quote.symbol,
        base_available=base.text(row.base_available),
        base_held=base.text(row.base_held),
        base_total=base.text(row.base_available + row.base_held),
        quote_available=quote.text(row.quote_available),
        quote_held=quote.text(row.quote_held),
        quote_total=quote.text(row.quote_available + row.quote_held),
        buy_orders=row.buy_orders,
        buy_quantity=instrument.quantity_text(buy_lots),
        buy_notional=quote.text(buy_notional),
        sell_orders=row.sell_orders,
        sell_quantity=instrument.quantity_text(sell_lots),
        sell_notional=quote.text(sell_notional),
        base_available_units=row.base_available,
        base_held_units=row.base_held,
        quote_available_units=row.quote_available,
        quote_held_units=row.quote_held,
        buy_lots=buy_lots,
        buy_notional_units=buy_notional,
        sell_lots=sell_lots,
        sell_notional_units=sell_notional,
    )


def open_order(row: admin.OrderRow, instrument: Instrument) -> OpenOrder:
    """Return an open order."""
    pending = row.order_type in _STOPS
    shown = 0 if pending else row.shown_lots if row.display_lots else row.leaves_lots
    return OpenOrder(
        order_id=row.order_id,
        client_order_id=row.client_order_id,
        account=row.account,
        symbol=instrument.symbol,
        side=Side(row.side).name,
        order_type=OrderType(row.order_type).name,
        tif=TimeInForce(row.tif).name,
        stp=Stp(row.stp).name,
        post_only=bool(row.flags & OrderFlags.POST_ONLY),
        price=instrument.price_text(row.price_ticks) if row.price_ticks else None,
        stop=instrument.price_text(row.stop_price_ticks) if row.stop_price_ticks else None,
        quantity=instrument.quantity_text(row.quantity_lots),
        filled=instrument.quantity_text(row.cum_lots),
        remaining=instrument.quantity_text(row.leaves_lots),
        shown=instrument.quantity_text(shown),
        hidden=instrument.quantity_text(row.leaves_lots - shown),
        expires=expiry_time.text(row.expiry_ns) if row.expiry_ns else None,
        session=row.session_id or None,
        price_ticks=row.price_ticks,
        quantity_lots=row.quantity_lots,
        cum_lots=row.cum_lots,
        leaves_lots=row.leaves_lots,
    )


def account_state(row: admin.AccountRow) -> AccountState:
    """Return the state of an account."""
    return AccountState(**{**msgspec.structs.asdict(row), "status": AccountStatus(row.status).name})


def rules(instrument: Instrument, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return rules, named as in RULES_DETAILS, as RulesResult has them; None means no such rule."""
    band, price, lots = counts["band_bp"], counts["min_price_ticks"], counts["min_quantity_lots"]
    collar, reference = counts["collar_bp"], counts["collar_reference"]
    least, most = counts["min_notional"], counts["max_notional"]
    return {
        "maker_fee": rates.fee_text(counts["maker_fee"]),
        "taker_fee": rates.fee_text(counts["taker_fee"]),
        "band": rates.band_text(band) if band else None,
        "collar": rates.band_text(collar) if collar else None,
        "collar_reference": CollarReference(reference).name,
        "min_price": instrument.price_text(price) if price else None,
        "min_quantity": instrument.quantity_text(lots) if lots else None,
        "min_notional": instrument.quote.text(least) if least else None,
        "max_notional": instrument.quote.text(most) if most else None,
        "notional_of_market": bool(counts["rule_flags"]),
    }


def instrument_rules(instrument: Instrument) -> dict[str, Any]:
    """Return the cached rules of an instrument; otherwise like rules()."""
    return rules(instrument, msgspec.structs.asdict(instrument))


def _reason_text(code: int) -> str | None:
    if not code:
        return None
    return Reason(code).name if code in _REASONS else f"Reason{code}"
