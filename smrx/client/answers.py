"""Outcome records and admin rows as what people read: the results of the verbs. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.client.errors import ProtocolError, Refused
from smrx.client.market import Instrument
from smrx.client.results import STATES, Level, OpenOrder, OrderAnswer
from smrx.engine.codes import OutcomeStatus, Reason, Side
from smrx.wire import admin

_REASONS: Final = frozenset(int(reason) for reason in Reason)


def check(outcome: NDArray[np.void], what: str) -> None:
    """Raise Refused if the command was refused; `what` names it."""
    if outcome["status"][0] == OutcomeStatus.REJECTED:
        code = int(outcome["reason"][0])
        if code not in _REASONS:
            raise ProtocolError(f"{what} was refused for reason {code}, which this version does not know")
        raise Refused(what, Reason(code), outcome)


def base(outcome: NDArray[np.void]) -> dict[str, Any]:
    """The fields every answer has."""
    return {
        "request_id": int(outcome["request_id"][0]),
        "sequence": int(outcome["sequence"][0]),
        "duplicate": bool(outcome["status"][0] == OutcomeStatus.DUPLICATE),
    }


def order_answer(outcome: NDArray[np.void], instrument: Instrument | None) -> OrderAnswer:
    """The answer of a command about one order."""
    shared = base(outcome)
    if shared["duplicate"]:
        return OrderAnswer(**shared, order_id=0, state="Unknown", reason=None, cum_lots=0, leaves_lots=0)
    row = outcome[0]
    cum, leaves, reason = int(row["cum_lots"]), int(row["leaves_lots"]), int(row["reason"])
    return OrderAnswer(
        **shared,
        order_id=int(row["order_id"]),
        state=STATES.get(int(row["event_kind"]), f"Kind{int(row['event_kind'])}"),
        reason=_reason_text(reason),
        cum_lots=cum,
        leaves_lots=leaves,
        filled=instrument.quantity_text(cum) if instrument else None,
        remaining=instrument.quantity_text(leaves) if instrument else None,
    )


def levels(rows: Sequence[admin.LevelRow], instrument: Instrument) -> tuple[Level, ...]:
    """One side of a book."""
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


def open_order(row: admin.OrderRow, instrument: Instrument) -> OpenOrder:
    """One resting order."""
    return OpenOrder(
        order_id=row.order_id,
        client_order_id=row.client_order_id,
        account=row.account,
        symbol=instrument.symbol,
        side=Side(row.side).name,
        price=instrument.price_text(row.price_ticks),
        quantity=instrument.quantity_text(row.quantity_lots),
        filled=instrument.quantity_text(row.cum_lots),
        remaining=instrument.quantity_text(row.leaves_lots),
        price_ticks=row.price_ticks,
        quantity_lots=row.quantity_lots,
        cum_lots=row.cum_lots,
        leaves_lots=row.leaves_lots,
    )


def _reason_text(code: int) -> str | None:
    if not code:
        return None
    return Reason(code).name if code in _REASONS else f"Reason{code}"
