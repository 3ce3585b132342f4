"""Read and check a market file: capacity, assets, instruments with rules, accounts with limits and deposits, in TOML.

Every error names the file and the key. market_setup.py applies the market to an exchange.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from smrx import toml_file
from smrx.client import rates
from smrx.client.client_errors import InvalidValue
from smrx.client.command_builders import symbol
from smrx.client.decimals import exact, is_zero
from smrx.wire.records import ASSET_SYMBOL_SIZE, INSTRUMENT_SYMBOL_SIZE, MAX_CAPACITY, MAX_KEPT_ANSWERS

Decimals = Annotated[int, msgspec.Meta(ge=0, le=18)]
AccountId = Annotated[int, msgspec.Meta(ge=1, le=(1 << 32) - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Capacity = Annotated[int, msgspec.Meta(ge=1, le=MAX_CAPACITY)]
TransferId = Annotated[int, msgspec.Meta(ge=1)]
_ID_BITS: Final = 64
#: A decimal as text, or an integer. TOML's own decimals are binary fractions and therefore not exact.
Amount = str | int
InstrumentStatusName = Literal["TRADING", "HALTED", "CANCEL_ONLY", "CLOSED"]
AccountStatusName = Literal["ACTIVE", "SUSPENDED"]
CollarReferenceName = Literal["BEST_PRICE", "LAST_TRADE"]


class MarketFileError(InvalidValue):
    """The market file is invalid; the message is for its author."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class of the tables of the file. A key that is absent leaves the setting at the exchange unchanged."""


class CapacityPlan(_Table, frozen=True, kw_only=True):
    """[capacity]: how many records of each kind the exchange has at most, see SET_CAPACITY in docs/exchange.md."""

    accounts: Capacity | None = None
    orders: Capacity | None = None
    balances: Capacity | None = None
    sessions: Capacity | None = None
    answers: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEPT_ANSWERS)] | None = None
    instruments: Capacity | None = None
    assets: Capacity | None = None
    credentials: Capacity | None = None


class AssetPlan(_Table, frozen=True, kw_only=True):
    """[[assets]]"""

    symbol: str
    decimals: Decimals
    max_supply: Amount | None = None


class RulesPlan(_Table, frozen=True, kw_only=True):
    """[instruments.rules]: fees, band and collar as rates, prices and amounts as decimals; 0 = no such rule."""

    maker_fee: Amount | None = None
    taker_fee: Amount | None = None
    band: Amount | None = None
    collar: Amount | None = None
    collar_reference: CollarReferenceName | None = None
    min_price: Amount | None = None
    min_quantity: Amount | None = None
    min_notional: Amount | None = None
    max_notional: Amount | None = None
    notional_of_market: bool | None = None


class InstrumentPlan(_Table, frozen=True, kw_only=True):
    """[[instruments]]"""

    symbol: str
    base: str
    quote: str
    tick: Amount
    lot: Amount
    max_price: Amount | None = None
    max_quantity: Amount | None = None
    status: InstrumentStatusName | None = None
    rules: RulesPlan = RulesPlan()


class LimitsPlan(_Table, frozen=True, kw_only=True):
    """[accounts.limits]: notionals as decimals of `asset`, the quantity of the instrument `symbol`; 0 = no limit."""

    open_orders: Count | None = None
    open_notional: Amount | None = None
    order_notional: Amount | None = None
    order_quantity: Amount | None = None
    asset: str | None = None
    symbol: str | None = None


class DepositPlan(_Table, frozen=True, kw_only=True):
    """[[accounts.deposits]]: applied once for each transfer id, however often the file is applied."""

    transfer_id: TransferId
    asset: str
    amount: Amount


class AccountPlan(_Table, frozen=True, kw_only=True):
    """[[accounts]]"""

    id: AccountId
    status: AccountStatusName | None = None
    limits: LimitsPlan = LimitsPlan()
    deposits: tuple[DepositPlan, ...] = ()


class MarketPlan(_Table, frozen=True, kw_only=True):
    """The file."""

    capacity: CapacityPlan = CapacityPlan()
    assets: tuple[AssetPlan, ...] = ()
    instruments: tuple[InstrumentPlan, ...] = ()
    accounts: tuple[AccountPlan, ...] = ()


def load(path: str | Path) -> MarketPlan:
    """Return the market in a TOML file. Raises MarketFileError."""
    try:
        return check(toml_file.read(path, "the market file"), str(path))
    except toml_file.TomlFileError as error:
        raise MarketFileError(str(error)) from None


def parse(text: str, source: str) -> MarketPlan:
    """Return the market in a TOML text; `source` names it in errors. Raises MarketFileError."""
    try:
        return check(toml_file.parse(text, source, "the market file"), source)
    except toml_file.TomlFileError as error:
        raise MarketFileError(str(error)) from None


def check(raw: dict[str, Any], source: str) -> MarketPlan:
    """Return the market in a parsed file; `source` names it in errors. Raises MarketFileError."""
    try:
        found = msgspec.convert(raw, MarketPlan)
    except msgspec.ValidationError as error:
        raise MarketFileError(f"{source}: {_explain(str(error), raw)}") from None
    for where, problem in _problems(found):
        raise MarketFileError(f"{source}: {where}: {problem}")
    return found


_AT: Final = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_GOT: Final = re.compile(r"(?:Expected (.*), got (.*)|Invalid enum value (.*))", re.DOTALL)
_BOUND: Final = re.compile(r"Expected (.*)", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")


def _explain(message: str, raw: Any) -> str:
    """Return msgspec's message in the form "key: expected ..., found ..."."""
    at = _AT.fullmatch(message)
    problem, key = (at[1], at[2]) if at else (message, "")
    missing, unknown, got = _MISSING.fullmatch(problem), _UNKNOWN.fullmatch(problem), _GOT.fullmatch(problem)
    if missing:
        return f"{_joined(key, missing[1])}: required key is missing"
    if unknown:
        known = ", ".join(_fields_at(key))
        return f"{_joined(key, unknown[1])}: unknown key; expected one of {known}"
    if got and got[1]:
        return f"{key}: expected {got[1].replace('`', '')}, found {got[2].replace('`', '')}"
    if got:
        names = InstrumentStatusName if key.startswith("instruments") else AccountStatusName
        names = CollarReferenceName if key.endswith("collar_reference") else names
        return f"{key}: expected one of {', '.join(get_args(names))}, found {got[3]}"
    bound = _BOUND.fullmatch(problem)
    if bound:
        return f"{key}: expected {bound[1].replace('`', '')}, found {_value_at(raw, key)}"
    return f"{key}: {problem}" if key else problem


def _value_at(raw: Any, key: str) -> Any:
    """Return the value at a key such as accounts[0].id."""
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", key):
        raw = raw[name] if name else raw[int(index)]
    return raw


def _joined(key: str, field: str) -> str:
    return f"{key}.{field}" if key else field


def _fields_at(key: str) -> tuple[str, ...]:
    """Return the keys that a table of the file may have."""
    tables: dict[str, type[_Table]] = {
        "capacity": CapacityPlan,
        "assets": AssetPlan,
        "instruments": InstrumentPlan,
        "instruments.rules": RulesPlan,
        "accounts": AccountPlan,
        "accounts.limits": LimitsPlan,
        "accounts.deposits": DepositPlan,
    }
    plain = re.sub(r"\[[^]]*\]", "", key)
    return tables.get(plain, MarketPlan).__struct_fields__


def _problems(market: MarketPlan) -> Iterable[tuple[str, str]]:
    """Yield (key, problem) for every invalid value and every conflict between values."""
    yield from _repeated("assets", "symbol", [asset.symbol for asset in market.assets])
    yield from _repeated("instruments", "symbol", [instrument.symbol for instrument in market.instruments])
    yield from _repeated("accounts", "id", [account.id for account in market.accounts])
    for i, asset in enumerate(market.assets):
        yield from _checked(f"assets[{i}]", asset, assets=("symbol",), amounts=("max_supply",))
    for i, instrument in enumerate(market.instruments):
        where = f"instruments[{i}]"
        yield from _checked(where, instrument, ("symbol",), ("max_price", "max_quantity"), assets=("base", "quote"))
        yield from _checked(where, instrument, positive=("tick", "lot"))
        yield from _rules(f"{where}.rules", instrument.rules)
    for i, account in enumerate(market.accounts):
        where, limits = f"accounts[{i}]", account.limits
        amounts = ("open_notional", "order_notional", "order_quantity")
        yield from _checked(f"{where}.limits", limits, ("symbol",), amounts, assets=("asset",))
        if limits.asset is None and (limits.open_notional is not None or limits.order_notional is not None):
            yield f"{where}.limits.asset", "required, as the asset in which the notionals are given"
        if limits.symbol is None and limits.order_quantity is not None:
            yield f"{where}.limits.symbol", "required, as the instrument in which the quantity is given"
        for j, deposit in enumerate(account.deposits):
            yield from _checked(f"{where}.deposits[{j}]", deposit, assets=("asset",), positive=("amount",))
            if deposit.transfer_id >> _ID_BITS:
                found = deposit.transfer_id
                yield f"{where}.deposits[{j}].transfer_id", f"expected 1 to 2^{_ID_BITS} - 1, found {found}"
    transfers = [deposit.transfer_id for account in market.accounts for deposit in account.deposits]
    yield from _repeated("accounts.deposits", "transfer_id", transfers)


def _repeated(table: str, key: str, values: list[Any]) -> Iterable[tuple[str, str]]:
    for i, value in enumerate(values):
        if value in values[:i]:
            yield f"{table}.{key}", f"{value} occurs twice"


def _checked(
    where: str,
    part: _Table,
    symbols: Iterable[str] = (),
    amounts: Iterable[str] = (),
    positive: Iterable[str] = (),
    assets: Iterable[str] = (),
) -> Iterable[tuple[str, str]]:
    """Check symbols of instruments and of assets, decimals that may be 0, and decimals that may not."""
    sizes = dict.fromkeys(symbols, INSTRUMENT_SYMBOL_SIZE) | dict.fromkeys(assets, ASSET_SYMBOL_SIZE)
    for name in (*sizes, *amounts, *positive):
        value = getattr(part, name)
        if value is None or (name in amounts and is_zero(value)):
            continue
        try:
            symbol(value, sizes[name]) if name in sizes else exact(value, name)
        except InvalidValue as error:
            yield f"{where}.{name}", str(error).split(": ", 1)[1]


def _rules(where: str, rules: RulesPlan) -> Iterable[tuple[str, str]]:
    yield from _checked(where, rules, amounts=("min_price", "min_quantity", "min_notional", "max_notional"))
    for name, read in (
        ("maker_fee", rates.fee),
        ("taker_fee", rates.fee),
        ("band", rates.band),
        ("collar", rates.band),
    ):
        value = getattr(rules, name)
        if value is None:
            continue
        try:
            read(value, name)
        except InvalidValue as error:
            yield f"{where}.{name}", str(error).split(": ", 1)[1]
