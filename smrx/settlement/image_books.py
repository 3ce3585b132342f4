"""Convert a state image to a ledger, and to the rows that sinks store of it.

Each balance is an opening entry, so per asset accounts own the supply as always. The image is checked by itself first:
what each order holds by the rules must add up to what the balances hold, and what accounts own to the supply. Raises
Violation at the event of the image. No sockets, no files.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.follower.follow_errors import Violation
from smrx.settlement.books.book_tables import (
    ACCOUNT,
    ASSET,
    ASSET_TEXT,
    BALANCE,
    CORE,
    INSTRUMENT,
    INSTRUMENT_TEXT,
    ORDER,
)
from smrx.settlement.books.money import MAX_AMOUNT, MILLION
from smrx.settlement.ledger import Ledger
from smrx.sinks.rows import (
    DEFINITION_FIELDS,
    DEFINITION_ROW,
    MOVEMENT_ROW,
    OPENING,
    TRADE_ROW,
    Rows,
    Tables,
)
from smrx.wire.codes import EventKind, OrderFlags, OrderType, Side
from smrx.wire.state_image import StateImage

#: Columns of an instrument that its rules set.
_RULES: Final = DEFINITION_FIELDS[EventKind.RULES_SET]


def books_of(image: StateImage) -> Ledger:
    """Return the books of a state image. Raises Violation if it contradicts itself."""
    place, tables = image.position, image.tables
    _check_references(image)
    instruments = _instruments(tables["instruments"], tables["orders"])
    orders = _orders(tables["orders"], instruments)
    records = {
        "orders": orders,
        "balances": _balances(tables["balances"]),
        "accounts": _filled(ACCOUNT, key=tables["accounts"]["account"].astype(np.int64) + 1),
        "assets": _assets(tables["assets"]).view(ASSET),
        "instruments": instruments.view(INSTRUMENT),
    }
    core = np.zeros(1, CORE)
    core["sequence"], core["command"] = place.event_sequence, place.command_sequence
    core["time_ns"], core["trades"] = place.time_ns, place.match_id
    for name, rows in records.items():
        if len(np.unique(rows["key"])) != len(rows):
            raise Violation(place.event_sequence, f"state image: {name} with the same id")
        core[name] = len(rows)
    _check_holds(image, orders)
    ledger = Ledger.of(core, records)
    ledger.check_sums()
    return ledger


def rows_of(image: StateImage) -> Tables:
    """Return the rows that sinks store of a state image: every definition, and a movement for each balance."""
    tables = image.tables
    definitions = np.zeros(len(tables["assets"]), DEFINITION_ROW)
    definitions["kind"], definitions["id"] = int(EventKind.ASSET_ADDED), tables["assets"]["asset"]
    for column, field in (("symbol", "symbol"), ("decimals", "decimals"), ("supply_cap", "cap")):
        definitions[column] = tables["assets"][field]
    known = tables["instruments"]
    listed = np.zeros(len(known), DEFINITION_ROW)
    listed["kind"], listed["id"] = int(EventKind.INSTRUMENT_ADDED), known["instrument"]
    for column in DEFINITION_FIELDS[EventKind.INSTRUMENT_ADDED]:
        listed[column] = known[column]
    ruled = known[np.any([known[column] != 0 for column in _RULES], axis=0)]
    rules = np.zeros(len(ruled), DEFINITION_ROW)
    rules["kind"], rules["id"] = int(EventKind.RULES_SET), ruled["instrument"]
    for column in _RULES:
        rules[column] = ruled[column]
    balances = tables["balances"]
    balances = balances[(balances["available"] | balances["held"]) != 0]
    movements = np.zeros(len(balances), MOVEMENT_ROW)
    movements["kind"] = OPENING
    movements["amount"] = balances["available"] + balances["held"]
    movements["available_after"] = balances["available"]
    movements["account"], movements["asset"] = balances["account"], balances["asset"]
    made = Tables(np.empty(0, TRADE_ROW), movements, np.concatenate([definitions, listed, rules]))
    for rows in (made.movements, made.definitions):
        rows["event_sequence"] = image.position.event_sequence
        rows["command_sequence"], rows["time_ns"] = image.position.command_sequence, image.position.time_ns
    return made


def _filled(dtype: "np.dtype[Any]", **columns: Any) -> Rows:
    rows = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, values in columns.items():
        rows[name] = values
    return rows


def _assets(found: Rows) -> Rows:
    return _filled(
        ASSET_TEXT, key=found["asset"], symbol=found["symbol"],
        decimals=found["decimals"], supply=found["supply"], cap=np.where(found["cap"] > 0, found["cap"], MAX_AMOUNT),
    )  # fmt: skip


def _balances(found: Rows) -> Rows:
    owners = _owners(found["account"], found["asset"])
    return _filled(BALANCE, key=owners.view(np.int64), total=found["available"] + found["held"], held=found["held"])


def _instruments(found: Rows, orders: Rows) -> Rows:
    made = _filled(
        INSTRUMENT_TEXT, key=found["instrument"], symbol=found["symbol"], base=found["base_asset"],
        quote=found["quote_asset"], lot_units=found["lot_units"], scale_units=found["scale_units"],
        max_price=found["max_price_ticks"], max_quantity=found["max_quantity_lots"], taker_fee=found["taker_fee"],
        maker_fee=found["maker_fee"],
    )  # fmt: skip
    for row in made:
        row["open_orders"] = np.count_nonzero(orders["instrument"] == row["key"])
    return made


def _orders(found: Rows, instruments: Rows) -> Rows:
    by_budget = (found["flags"] & int(OrderFlags.QUOTE_BUDGET)) != 0
    # A pending stop with a budget has no lots: its quantity is money.
    made = _filled(
        ORDER, key=found["order_id"], price=found["price_ticks"],
        leaves=np.where(by_budget, 0, found["quantity_lots"] - found["cum_lots"]), cum=found["cum_lots"],
        budget=np.where(by_budget, found["quantity_lots"], 0), account=found["account"],
        instrument=found["instrument"], side=found["side"], type=found["order_type"], by_budget=by_budget,
    )  # fmt: skip
    unpriced = (made["type"] == int(OrderType.MARKET)) | (made["type"] == int(OrderType.STOP))
    for instrument in instruments:
        own = made["instrument"] == instrument["key"]
        worth = made["price"][own] * instrument["scale_units"]
        whole, rest = np.divmod(worth, MILLION)
        rate = int(instrument["taker_fee"])
        buys = np.where(unpriced[own], 0, worth + whole * rate - (-(rest * rate)) // MILLION)
        made["per_lot"][own] = np.where(made["side"][own] == int(Side.SELL), instrument["lot_units"], buys)
    return made


def _check_references(image: StateImage) -> None:
    """Check that every reference resolves, and that every open order has lots left."""
    tables, at = image.tables, image.position.event_sequence
    for table, column, target, key in (
        ("balances", "account", "accounts", "account"),
        ("balances", "asset", "assets", "asset"),
        ("instruments", "base_asset", "assets", "asset"),
        ("instruments", "quote_asset", "assets", "asset"),
        ("orders", "account", "accounts", "account"),
        ("orders", "instrument", "instruments", "instrument"),
    ):
        unknown = np.setdiff1d(tables[table][column], tables[target][key])
        if len(unknown):
            raise Violation(at, f"state image: {table} refer to the {column} {unknown[0]}, which is missing")
    done = tables["orders"]["quantity_lots"] <= tables["orders"]["cum_lots"]
    if done.any():
        raise Violation(at, f"state image: order {tables['orders']['order_id'][done][0]} has nothing left")
    balances = tables["balances"]
    below = (balances["available"] < 0) | (balances["held"] < 0)
    if below.any():
        row = balances[below][0]
        raise Violation(at, f"state image: account {row['account']}, asset {row['asset']} has a negative balance")


def _check_holds(image: StateImage, orders: Rows) -> None:
    """Check that orders hold by the rules what the balances have as held."""
    known, balances = image.tables["instruments"], image.tables["balances"]
    known = known[np.argsort(known["instrument"])]
    listed = known[np.searchsorted(known["instrument"], orders["instrument"])]
    assets = np.where(orders["side"] == int(Side.BUY), listed["quote_asset"], listed["base_asset"])
    owners = np.concatenate([_owners(balances["account"], balances["asset"]), _owners(orders["account"], assets)])
    amounts = np.concatenate([-balances["held"], orders["per_lot"] * orders["leaves"]])
    distinct, places = np.unique(owners, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, places, amounts)
    for owner, excess in zip(distinct[sums != 0].tolist(), sums[sums != 0].tolist(), strict=True):
        raise Violation(
            image.position.event_sequence,
            f"state image: account {owner >> 32}, asset {owner & 0xFFFF_FFFF}: by the rules its open orders hold "
            f"{abs(excess)} {'more' if excess > 0 else 'less'} than its balance has as held",
        )


def _owners(accounts: NDArray[Any], assets: NDArray[Any]) -> NDArray[np.uint64]:
    return (accounts.astype(np.uint64) << np.uint64(32)) | assets.astype(np.uint64)
