"""Answers and views as the text of the transcripts: names for numbers, and every field that a scenario turns on.

Pure; reads arrays of the engine's or the oracle's shapes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.codes import CommandKind, EventKind, OrderFlags, OrderType, OutcomeStatus, Reason, Side, TimeInForce
from smrx.engine.records import unpack_symbol

Level = tuple[int, int, int]


class Names(NamedTuple):
    """What a transcript calls its accounts, assets and instruments."""

    accounts: dict[str, int]
    assets: dict[str, int]
    instruments: dict[str, int]

    def account(self, number: Any) -> str:
        return _name(self.accounts, int(number))

    def asset(self, number: Any) -> str:
        return _name(self.assets, int(number))

    def instrument(self, number: Any) -> str:
        return _name(self.instruments, int(number))


def _name(table: dict[str, int], number: int) -> str:
    return next((name for name, known in table.items() if known == number), f"?{number}")


def answer(outcome: np.void, events: NDArray[np.void], names: Names) -> list[str]:
    """The events of one command, then its outcome."""
    return [*(event(record, names) for record in events), _outcome(outcome)]


def _outcome(outcome: np.void) -> str:
    status = OutcomeStatus(int(outcome["status"]))
    if status is OutcomeStatus.DUPLICATE:
        return f"= DUPLICATE, last request {outcome['order_id']}"
    if status is OutcomeStatus.REJECTED:
        return f"= REJECTED {Reason(int(outcome['reason'])).name}"
    parts = [f"= {status.name} {EventKind(int(outcome['event_kind'])).name}"]
    if outcome["reason"]:
        parts.append(Reason(int(outcome["reason"])).name)
    parts += [f"{label} {outcome[name]}" for name, label in _OUTCOME_NUMBERS if outcome[name]]
    return " ".join(parts)


_OUTCOME_NUMBERS = (("order_id", "id"), ("cum_lots", "cum"), ("leaves_lots", "leaves"))


def event(record: np.void, names: Names) -> str:
    """One event as a line."""
    kind = EventKind(int(record["kind"]))
    return f"{kind.name} {_EVENT_TEXT[kind](record, names)}"


def _order(record: np.void, names: Names) -> str:
    """Which order, and what it asked for."""
    parts = [f"#{record['order_id']}", names.account(record["account"]), _side(record), str(record["quantity_lots"])]
    parts.append(names.instrument(record["instrument"]))
    is_market = record["order_type"] == OrderType.MARKET
    parts += ["market"] if is_market else ["@", str(record["price_ticks"])]
    parts.append(TimeInForce(int(record["tif"])).name.lower())
    if record["flags"] & OrderFlags.POST_ONLY:
        parts.append("post-only")
    if record["client_order_id"]:
        parts.append(f"id {record['client_order_id']}")
    return " ".join(parts)


def _working(record: np.void, names: Names) -> str:
    return f"{_order(record, names)} | cum {record['cum_lots']} leaves {record['leaves_lots']}"


def _ended(record: np.void, names: Names) -> str:
    reason = Reason(int(record["reason"])).name
    return f"{_order(record, names)} | {reason} cum {record['cum_lots']} leaves {record['leaves_lots']}"


def _fill(record: np.void, names: Names) -> str:
    return (
        f"#{record['order_id']} {names.account(record['account'])} {_side(record)} {record['quantity_lots']} "
        f"{names.instrument(record['instrument'])} @ {record['price_ticks']} "
        f"| match {record['match_id']} cum {record['cum_lots']} leaves {record['leaves_lots']}"
    )


def _trade(record: np.void, names: Names) -> str:
    verb = "buys" if record["side"] == Side.BUY else "sells"
    other = "from" if record["side"] == Side.BUY else "to"
    return (
        f"{names.account(record['account'])} #{record['order_id']} {verb} {record['quantity_lots']} "
        f"{names.instrument(record['instrument'])} @ {record['price_ticks']} {other} "
        f"{names.account(record['counter_account'])} #{record['counter_order_id']} | match {record['match_id']}"
    )


def _rejected(record: np.void, names: Names) -> str:
    kind = int(record["command_kind"])
    what = CommandKind(kind).name if kind in set(CommandKind) else f"kind {kind}"
    return f"{what} | {Reason(int(record['reason'])).name}"


def _transfer(record: np.void, names: Names) -> str:
    return (
        f"{names.account(record['account'])} {record['quantity_lots']} {names.asset(record['instrument'])} "
        f"| transfer {record['order_id']} available {record['cum_lots']}"
    )


def _account(record: np.void, names: Names) -> str:
    return names.account(record["account"])


def _session(record: np.void, names: Names) -> str:
    return f"{record['session_id']} of {names.account(record['account'])}"


def _asset(record: np.void, names: Names) -> str:
    return f"{unpack_symbol(record['client_order_id'])} decimals {record['quantity_lots']}"


def _instrument(record: np.void, names: Names) -> str:
    return (
        f"{unpack_symbol(record['client_order_id'])} lot {record['account']} scale {record['counter_account']} "
        f"base {names.asset(record['order_id'])} quote {names.asset(record['counter_order_id'])} "
        f"max-price {record['price_ticks']} max-quantity {record['quantity_lots']}"
    )


def _mass_cancelled(record: np.void, names: Names) -> str:
    what = names.instrument(record["instrument"]) if record["instrument"] else "all instruments"
    return f"{names.account(record['account'])} {_side(record)} {what} | {record['quantity_lots']} orders"


def _side(record: np.void) -> str:
    return Side(int(record["side"])).name.lower()


_EVENT_TEXT = {
    EventKind.NEW: _working,
    EventKind.REPLACED: _working,
    EventKind.PARTIALLY_FILLED: _fill,
    EventKind.FILLED: _fill,
    EventKind.CANCELLED: _ended,
    EventKind.EXPIRED: _ended,
    EventKind.REJECTED: _rejected,
    EventKind.TRADE: _trade,
    EventKind.DEPOSITED: _transfer,
    EventKind.WITHDRAWN: _transfer,
    EventKind.ACCOUNT_OPENED: _account,
    EventKind.SESSION_OPENED: _session,
    EventKind.SESSION_CLOSED: _session,
    EventKind.ASSET_ADDED: _asset,
    EventKind.INSTRUMENT_ADDED: _instrument,
    EventKind.MASS_CANCELLED: _mass_cancelled,
}


def book(bids: list[Level], asks: list[Level]) -> list[str]:
    """Price levels, the dearest first, with lots and number of orders."""
    rows = [("sell", *level) for level in reversed(asks)] + [("buy", *level) for level in bids]
    return table(("side", "price", "lots", "orders"), rows)


def orders(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("order", "account", "side", "instrument", "price", "quantity", "cum", "leaves", "id"),
        [
            (
                *(f"#{row['order_id']}", names.account(row["account"]), Side(int(row["side"])).name.lower()),
                *(names.instrument(row["instrument"]), row["price_ticks"], row["quantity_lots"]),
                *(row["cum_lots"], row["leaves_lots"], row["client_order_id"]),
            )
            for row in rows
        ],
    )


def balances(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("account", "asset", "available", "held"),
        [
            (names.account(row["account"]), names.asset(row["asset"]), row["available"], row["held"])
            for row in sorted(rows, key=lambda row: (int(row["account"]), int(row["asset"])))
        ],
    )


def sessions(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("session", "account", "last request"),
        [
            (row["session_id"], names.account(row["account"]), row["last_request_id"])
            for row in sorted(rows, key=lambda row: int(row["session_id"]))
        ],
    )


def table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Aligned columns under their heads; `(none)` for no rows."""
    if not rows:
        return ["(none)"]
    cells = [heads, *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells]
