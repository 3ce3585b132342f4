"""Render answers and tables as the text of the transcripts: names for numbers, and every field that matters.

Pure; takes arrays of the engine or the oracle.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    OutcomeStatus,
    Permission,
    Reason,
    Scope,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.networks import unpack_networks
from smrx.wire.records import (
    CAPACITIES,
    DEFAULT_ANSWERS,
    EVENT_LAYOUTS,
    MAX_CAPACITY,
    MAX_KEPT_ANSWERS,
    unpack_symbol,
)

STP_WORDS = {"none": Stp.NONE, "newest": Stp.CANCEL_NEWEST, "oldest": Stp.CANCEL_OLDEST, "both": Stp.CANCEL_BOTH}
STP_WORDS["decrement"] = Stp.DECREMENT
STATUS_WORDS = {status.name.lower().replace("_", "-"): status for status in InstrumentStatus}

NANOSECONDS = 1_000_000_000

Level = tuple[int, int, int]


class Names(NamedTuple):
    """The names of a transcript's accounts, assets, instruments, credentials and firms."""

    accounts: dict[str, int]
    assets: dict[str, int]
    instruments: dict[str, int]
    credentials: dict[str, int]
    firms: dict[str, int]

    def credential(self, number: Any) -> str:
        return _name(self.credentials, int(number))

    def firm(self, number: Any) -> str:
        return _name(self.firms, int(number))

    def session(self, session_id: Any) -> str:
        """Return a session's id; behind the name of its credential, if it has one."""
        number, own = divmod(int(session_id), 1 << 32)
        return f"{self.credential(number)}/{own}" if number else str(own)

    def subject(self, scope: int, number: int) -> str:
        """Return for whom a credential acts."""
        if scope == Scope.ALL:
            return "all"
        return f"firm {self.firm(number)}" if scope == Scope.FIRM else self.account(number)

    def account(self, number: Any) -> str:
        return _name(self.accounts, int(number))

    def asset(self, number: Any) -> str:
        return _name(self.assets, int(number))

    def instrument(self, number: Any) -> str:
        return _name(self.instruments, int(number))


def _name(table: dict[str, int], number: int) -> str:
    return next((name for name, known in table.items() if known == number), f"?{number}")


def answer(outcome: np.void, events: NDArray[np.void], names: Names) -> list[str]:
    """Render the events of one command, then its outcome."""
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
    """Render an event as a line."""
    kind = EventKind(int(record["kind"]))
    own = np.frombuffer(record.tobytes(), EVENT_LAYOUTS[kind])[0]
    line = f"{kind.name} {_EVENT_TEXT[kind](own, names)}".rstrip()
    # That of ORDER_TERMS is the person whom the command names.
    who = int(own["credential"]) if "credential" in own.dtype.names and kind is not EventKind.ORDER_TERMS else 0
    return f"{line} [{names.credential(who)}]" if who else line


def _order(record: np.void, names: Names) -> str:
    """Render an order's id and terms."""
    parts = [f"#{record['order_id']}", names.account(record["account"]), _side(record), str(record["quantity_lots"])]
    parts.append(names.instrument(record["instrument"]))
    is_limit = record["order_type"] in (OrderType.LIMIT, OrderType.STOP_LIMIT)
    parts += ["@", str(record["price_ticks"])] if is_limit else ["market"]
    parts.append(_modes(record))
    if record["client_order_id"]:
        text = short_id_text(int(record["client_order_id"]))
        parts.append(f"id {quoted(text)}" if text is not None else f"id hash {record['client_order_id']:016x}")
    return " ".join(parts)


def quoted(text: str) -> str:
    """Return a client order id as the language has it: in quotes if it has a character that could mislead."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", text) else f"'{text}'"


def _modes(record: np.void, stop_price: int = 0) -> str:
    """Render an order's type, time in force and flags in the words of the language; the default STP mode is omitted.

    A stop price that is given stands behind the type.
    """
    order_type, tif = OrderType(int(record["order_type"])), TimeInForce(int(record["tif"]))
    parts = [tif.name.lower()]
    if order_type in (OrderType.STOP, OrderType.STOP_LIMIT):
        parts.append(order_type.name.lower().replace("_", "-") + (f" {stop_price}" if stop_price else ""))
    parts += ["post-only"] if record["flags"] & OrderFlags.POST_ONLY else []
    parts += ["budget"] if record["flags"] & OrderFlags.QUOTE_BUDGET else []
    if record["stp"] != Stp.CANCEL_NEWEST:
        parts.append("stp " + next(word for word, mode in STP_WORDS.items() if mode == record["stp"]))
    return " ".join(parts)


def _terms(record: np.void) -> str:
    """Render display and expiry in the words of the language; the expiry in seconds, if it is whole ones."""
    until = _seconds(record["expiry_ns"]) if record["expiry_ns"] else ""
    words = (("show", record["display_lots"]), ("until", until))
    return " ".join(f"{word} {value}" for word, value in words if value)


def _follows(record: np.void, names: Names) -> str:
    """Render whose order an event is about that follows another one."""
    order = f"#{record['order_id']} " if record["order_id"] else ""
    return f"{order}{names.account(record['account'])}"


def _client_order_id(record: np.void, names: Names) -> str:
    return f"{_follows(record, names)} | {quoted(bytes(record['client_order_id']).decode('ascii'))}"


def _order_terms(record: np.void, names: Names) -> str:
    stop = f"stop {record['stop_price_ticks']}" if record["stop_price_ticks"] else ""
    person = f"person {names.credential(record['credential'])}" if record["credential"] else ""
    return f"{_follows(record, names)} | {' '.join(filter(None, (stop, _terms(record), person)))}"


def _order_open(record: np.void, names: Names) -> str:
    reason = f"{Reason(int(record['reason'])).name} " if record["reason"] else ""
    return f"{_order(record, names)} | {reason}cum {record['cum_lots']} leaves {record['leaves_lots']}"


def _order_ended(record: np.void, names: Names) -> str:
    reason = Reason(int(record["reason"])).name
    return f"{_order(record, names)} | {reason} cum {record['cum_lots']} leaves {record['leaves_lots']}"


def _fill(record: np.void, names: Names) -> str:
    return (
        f"#{record['order_id']} {names.account(record['account'])} {_side(record)} {record['quantity_lots']} "
        f"{names.instrument(record['instrument'])} @ {record['price_ticks']} "
        f"| match {record['match_id']} cum {record['cum_lots']} leaves {record['leaves_lots']}"
    )


def _trade(record: np.void, names: Names) -> str:
    fees = f" fees {record['taker_fee']} and {record['maker_fee']}" if record["taker_fee"] else ""
    verb = "buys" if record["side"] == Side.BUY else "sells"
    other = "from" if record["side"] == Side.BUY else "to"
    return (
        f"{names.account(record['account'])} #{record['order_id']} {verb} {record['quantity_lots']} "
        f"{names.instrument(record['instrument'])} @ {record['price_ticks']} {other} "
        f"{names.account(record['counter_account'])} #{record['counter_order_id']} | match {record['match_id']}{fees}"
    )


def _rejected(record: np.void, names: Names) -> str:
    kind = int(record["command_kind"])
    what = CommandKind(kind).name if kind in set(CommandKind) else f"kind {kind}"
    return f"{what} | {Reason(int(record['reason'])).name}"


def _transfer(record: np.void, names: Names) -> str:
    return (
        f"{names.account(record['account'])} {record['amount']} {names.asset(record['asset'])} "
        f"| transfer {record['transfer_id']} available {record['available_after']}"
    )


def _account(record: np.void, names: Names) -> str:
    return names.account(record["account"])


def _account_opened(record: np.void, names: Names) -> str:
    return _account(record, names) + (f" firm {names.firm(record['firm'])}" if record["firm"] else "")


def _credential(record: np.void, names: Names) -> str:
    whom = names.subject(int(record["scope"]), int(record["subject"]))
    until = f" until {_seconds(record['expires_ns'])}" if record["expires_ns"] else ""
    return f"{names.credential(record['number'])} for {whom} may {_permissions(record)}{until}"


def _permissions(record: np.void) -> str:
    return ",".join((flag.name or "").lower() for flag in Permission if record["permissions"] & flag)


def _credential_networks(record: np.void, names: Names) -> str:
    found = unpack_networks(record["networks"].item(), record["prefixes"].item())
    return f"{names.credential(record['number'])} | from {','.join(found)}"


def _seconds(time_ns: Any) -> str:
    """Return a time in the words of the language: in seconds, if it is whole ones."""
    seconds, rest = divmod(int(time_ns), NANOSECONDS)
    return f"{time_ns}ns" if rest else str(seconds)


def _session(record: np.void, names: Names) -> str:
    asked = " cancel-on-disconnect" if record["flags"] & SessionFlags.CANCEL_ON_DISCONNECT else ""
    answers = f" answers {record['answers']}" if record["answers"] != DEFAULT_ANSWERS else ""
    last = f" | last request {record['last_request_id']}" if record["last_request_id"] else ""
    return f"{names.session(record['session_id'])} of {names.account(record['account'])}{asked}{answers}{last}"


def _session_ended(record: np.void, names: Names) -> str:
    return f"{names.session(record['session_id'])} of {names.account(record['account'])}{_cancelled(record)}"


def _session_expired(record: np.void, names: Names) -> str:
    session = names.session(record["session_id"])
    return f"{session} of {names.account(record['account'])} | last request {record['request_id']}"


def _retention(record: np.void, names: Names) -> str:
    return f"silence {record['session_silence_s']} age {record['transfer_age_s']} transfers {record['transfers']}"


def _capacity(record: np.void, names: Names) -> str:
    most = {name: MAX_KEPT_ANSWERS if name == "answers" else MAX_CAPACITY for name in CAPACITIES}
    set_lower = [f"{name} {record[name]}" for name in CAPACITIES if record[name] != most[name]]
    return " ".join(set_lower) or "the largest"


def _cancelled(record: np.void) -> str:
    return f" | {record['cancelled']} orders" if record["cancelled"] else ""


def _asset(record: np.void, names: Names) -> str:
    cap = f" cap {record['supply_cap']}" if record["supply_cap"] else ""
    return f"{unpack_symbol(record['symbol'])} decimals {record['decimals']}{cap}"


def _limits(record: np.void, names: Names) -> str:
    words = (
        *(("orders", "max_open_orders"), ("quantity", "max_order_quantity")),
        *(("notional", "max_order_notional"), ("open-notional", "max_open_notional")),
    )
    return _set_words(names.account(record["account"]), [(word, int(record[name])) for word, name in words])


def _rules(record: np.void, names: Names) -> str:
    words = (
        *(("taker", "taker_fee"), ("maker", "maker_fee"), ("band", "band_bp")),
        *(("min-price", "min_price_ticks"), ("min-quantity", "min_quantity_lots")),
        *(("min-notional", "min_notional"), ("max-notional", "max_notional"), ("collar", "collar_bp")),
        *(("collar-from-last", "collar_reference"), ("market-bounds", "rule_flags")),
    )
    return _set_words(names.instrument(record["instrument"]), [(word, int(record[name])) for word, name in words])


def _set_words(whose: str, values: list[tuple[str, int]]) -> str:
    """Render the values that are not 0, in the words of the language."""
    return " ".join([whose, *(f"{word} {value}" for word, value in values if value)]) + (
        "" if any(value for _, value in values) else " none"
    )


def _status(record: np.void, names: Names) -> str:
    status = next(word for word, status in STATUS_WORDS.items() if status == record["status"])
    return f"{names.instrument(record['instrument'])} {status}{_cancelled(record)}"


def _version(record: np.void, names: Names) -> str:
    return str(record["version"])


def _no_fields(record: np.void, names: Names) -> str:
    return ""


def _instrument(record: np.void, names: Names) -> str:
    return (
        f"{unpack_symbol(record['symbol'])} lot {record['lot_units']} scale {record['scale_units']} "
        f"base {names.asset(record['base_asset'])} quote {names.asset(record['quote_asset'])} "
        f"max-price {record['max_price_ticks']} max-quantity {record['max_quantity_lots']}"
    )


def _mass_cancelled(record: np.void, names: Names) -> str:
    what = names.instrument(record["instrument"]) if record["instrument"] else "all instruments"
    return f"{names.account(record['account'])} {_side(record)} {what} | {record['cancelled']} orders"


def _side(record: np.void) -> str:
    return Side(int(record["side"])).name.lower()


_EVENT_TEXT = {
    EventKind.NEW: _order_open,
    EventKind.CLIENT_ORDER_ID: _client_order_id,
    EventKind.ORDER_TERMS: _order_terms,
    EventKind.REPLACED: _order_open,
    EventKind.TRIGGERED: _order_open,
    EventKind.PARTIALLY_FILLED: _fill,
    EventKind.FILLED: _fill,
    EventKind.CANCELLED: _order_ended,
    EventKind.EXPIRED: _order_ended,
    EventKind.REJECTED: _rejected,
    EventKind.TRADE: _trade,
    EventKind.DEPOSITED: _transfer,
    EventKind.WITHDRAWN: _transfer,
    EventKind.ACCOUNT_OPENED: _account_opened,
    EventKind.ACCOUNT_SUSPENDED: _account,
    EventKind.ACCOUNT_RESUMED: _account,
    EventKind.LIMITS_SET: _limits,
    EventKind.SESSION_OPENED: _session,
    EventKind.SESSION_DISCONNECTED: _session_ended,
    EventKind.SESSION_CLOSED: _session_ended,
    EventKind.SESSION_EXPIRED: _session_expired,
    EventKind.RETENTION_SET: _retention,
    EventKind.CAPACITY_SET: _capacity,
    EventKind.ASSET_ADDED: _asset,
    EventKind.INSTRUMENT_ADDED: _instrument,
    EventKind.MASS_CANCELLED: _mass_cancelled,
    EventKind.RULES_SET: _rules,
    EventKind.STATUS_SET: _status,
    EventKind.KILLED: _no_fields,
    EventKind.REVIVED: _no_fields,
    EventKind.TICKED: _no_fields,
    EventKind.VERSION_SET: _version,
    EventKind.CREDENTIAL_ADDED: _credential,
    EventKind.CREDENTIAL_SET: _credential,
    EventKind.CREDENTIAL_REVOKED: _credential,
    EventKind.CREDENTIAL_NETWORKS: _credential_networks,
}


def book(bids: list[Level], asks: list[Level]) -> list[str]:
    """Render price levels, the highest price first, with lots and number of orders."""
    rows = [("sell", *level) for level in reversed(asks)] + [("buy", *level) for level in bids]
    return table(("side", "price", "lots", "orders"), rows)


def orders(rows: NDArray[np.void], names: Names) -> list[str]:
    """Render open orders by id, pending stops included; `shown` is what the book shows of an iceberg."""
    return table(
        ("order", "account", "side", "instrument", "price", "quantity", "cum", "leaves", "shown", "id", "terms"),
        [
            (
                *(f"#{row['order_id']}", names.account(row["account"]), Side(int(row["side"])).name.lower()),
                *(names.instrument(row["instrument"]), row["price_ticks"] or "market", row["quantity_lots"]),
                *(row["cum_lots"], row["leaves_lots"], row["shown_lots"] or ""),
                quoted(row["client_order_id"].decode("ascii")) if row["client_order_id"] else "",
                " ".join(filter(None, (_modes(row, row["stop_price_ticks"]), _terms(row), _person(row, names)))),
            )
            for row in rows
        ],
    )


def _person(row: np.void, names: Names) -> str:
    return f"person {names.credential(row['credential'])}" if row["credential"] else ""


def credentials(rows: NDArray[np.void], names: Names) -> list[str]:
    """Render credentials by number; a revoked one has no expiry that counts."""
    return table(
        ("credential", "for", "may", "until", "from"),
        [
            (
                *(names.credential(row["number"]), names.subject(int(row["scope"]), int(row["subject"]))),
                _permissions(row),
                "revoked" if row["revoked"] else _seconds(row["expires_ns"]) if row["expires_ns"] else "",
                ",".join(unpack_networks(row["networks"].item(), int(row["prefixes"]).to_bytes(4, "little"))),
            )
            for row in rows
        ],
    )


def accounts(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("account", "status", "orders", "quantity", "notional", "open-notional"),
        [
            (
                *(names.account(row["account"]), AccountStatus(int(row["status"])).name.lower()),
                *(row["max_open_orders"], row["max_order_quantity"]),
                *(row["max_order_notional"], row["max_open_notional"]),
            )
            for row in sorted(rows, key=lambda row: int(row["account"]))
        ],
    )


def instruments(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("instrument", "status", "last price", "taker", "maker", "band"),
        [
            (
                *(names.instrument(row["instrument"]), InstrumentStatus(int(row["status"])).name.lower()),
                *(row["last_price_ticks"] or "", row["taker_fee"], row["maker_fee"], row["band_bp"]),
            )
            for row in sorted(rows, key=lambda row: int(row["instrument"]))
        ],
    )


def assets(rows: NDArray[np.void], names: Names) -> list[str]:
    return table(
        ("asset", "decimals", "supply", "cap"),
        [
            (names.asset(row["asset"]), row["decimals"], row["supply"], row["cap"] or "")
            for row in sorted(rows, key=lambda row: int(row["asset"]))
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
        ("session", "account", "last request", "answers", "flags"),
        [
            (
                *(names.session(row["session_id"]), names.account(row["account"])),
                *(row["last_request_id"], row["answers"]),
                " ".join(
                    word
                    for word, holds in (
                        ("cancel-on-disconnect", row["flags"] & SessionFlags.CANCEL_ON_DISCONNECT),
                        ("closed", row["closed"]),
                    )
                    if holds
                ),
            )
            for row in sorted(rows, key=lambda row: int(row["session_id"]))
        ],
    )


def table(headers: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Align columns under their headers; `(none)` if there are no rows."""
    if not rows:
        return ["(none)"]
    cells = [headers, *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells]
