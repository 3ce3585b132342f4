"""Apply a market file to an exchange: compare first, then change what differs, item by item.

Applying a file twice changes nothing the second time. An invalid value is an error before anything is sent. A command
that the exchange rejects is reported as a difference, and the other items are still applied.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from smrx.client import decimals, result_builders
from smrx.client import instruments as market
from smrx.client.client_errors import InvalidValue, Refused
from smrx.client.instruments import Asset, Instrument
from smrx.client.io_steps import Steps
from smrx.client.market_file import (
    AccountPlan,
    AssetPlan,
    CapacityPlan,
    DepositPlan,
    InstrumentPlan,
    MarketPlan,
)
from smrx.client.results import CommandResult, MarketChange, TransferResult
from smrx.client.venue_operations import VenueOperations, limit_counts, rule_counts, supply_cap
from smrx.wire import admin
from smrx.wire.codes import AccountStatus, CommandKind, InstrumentStatus, Reason

_SAME, _CHANGED, _DIFFERS = "unchanged", "changed", "differs"
_WOULD_CHANGE = "would change"


class _Task(NamedTuple):
    """One item of the file: nothing to do, impossible to change, or changed by the operation `do`."""

    what: str
    detail: str
    state: str = _CHANGED
    do: Callable[[], Steps[CommandResult]] | None = None


class MarketSetup(VenueOperations):
    """The operation that applies a market file."""

    def apply_market(self, market: MarketPlan, *, dry_run: bool = False) -> Steps[list[MarketChange]]:
        """Apply a market read by smrx.client.market_file; return what was done about each item.

        Raises InvalidValue, with nothing changed, for a value that is invalid at this exchange.
        """
        yield from self._load()
        rows = yield from self._pages(admin.Accounts(), admin.AccountsReply)
        transfers: dict[int, admin.TransferRow] = {}
        for account in market.accounts:
            if account.deposits:
                made = yield from self._pages(admin.Transfers(account=account.id), admin.TransfersReply)
                transfers |= {row.transfer_id: row for row in made}
        capacity: dict[str, int] = {}
        if market.capacity != CapacityPlan():
            capacity = (yield from self._router.ask(admin.Status(), admin.NodeStatus)).capacity
        tasks = list(_Plan(self, market, capacity, {row.account: row for row in rows}, transfers).tasks())
        found = []
        for task in tasks:
            found.append((yield from self._execute(task, dry_run)))
        return found

    def _execute(self, task: _Task, dry_run: bool) -> Steps[MarketChange]:
        state, detail = task.state, task.detail
        if task.do is not None and dry_run:
            state = _WOULD_CHANGE
        elif task.do is not None:
            try:
                answer = yield from task.do()
                if isinstance(answer, TransferResult) and answer.already_done:
                    state = _SAME
            except Refused as refused:
                if refused.reason is Reason.NOT_AUTHORISED:
                    raise  # This account may change nothing.
                state, detail = _DIFFERS, str(refused)
        return MarketChange(what=task.what, state=state, detail=detail)


class _Plan:
    """Compares a market file with the exchange."""

    def __init__(
        self,
        operations: MarketSetup,
        wanted: MarketPlan,
        capacity: Mapping[str, int],
        accounts: Mapping[int, admin.AccountRow],
        transfers: Mapping[int, admin.TransferRow],
    ) -> None:
        self._operations = operations
        self._wanted = wanted
        self._capacity = capacity
        self._accounts = accounts
        self._transfers = transfers
        #: Those of the exchange, and those that the file adds.
        self._assets = {asset.symbol: asset for asset in reversed(operations.market.assets)}
        self._instruments = {instrument.symbol: instrument for instrument in reversed(operations.market.instruments)}

    def tasks(self) -> Iterator[_Task]:
        """Yield the items in the order in which they can be applied."""
        yield from self._capacities(self._wanted.capacity)
        for asset in self._wanted.assets:
            yield from self._asset(asset)
        for instrument in self._wanted.instruments:
            yield from self._instrument(instrument)
        for account in self._wanted.accounts:
            yield from self._account(account)

    def _capacities(self, plan: CapacityPlan) -> Iterator[_Task]:
        wanted = {name: value for name, value in msgspec.structs.asdict(plan).items() if value is not None}
        if wanted:
            pairs = {name: (self._capacity.get(name), value) for name, value in wanted.items()}
            do = partial(self._operations.set_capacity, **{**self._capacity, **wanted})
            yield _change("capacity", pairs, None if all(a == b for a, b in pairs.values()) else do)

    def _asset(self, plan: AssetPlan) -> Iterator[_Task]:
        what, known = f"asset {plan.symbol}", self._assets.get(plan.symbol)
        if known is None:
            self._assets[plan.symbol] = Asset(0, plan.symbol, plan.decimals)
            supply_cap(self._assets[plan.symbol], plan.max_supply)
            add = partial(self._operations.add_asset, plan.symbol, plan.decimals, max_supply=plan.max_supply)
            yield _Task(what, f"added with {plan.decimals} decimals", do=add)
            return
        found: dict[str, tuple[object, object]] = {"decimals": (plan.decimals, known.decimals)}
        if plan.max_supply is not None:
            found["max_supply"] = (_count(lambda: supply_cap(known, plan.max_supply)), known.supply_cap)
        yield _compared(what, found, f"{known.decimals} decimals")

    def _instrument(self, plan: InstrumentPlan) -> Iterator[_Task]:
        what, known = f"instrument {plan.symbol}", self._instruments.get(plan.symbol)
        if known is None:
            known = self._new_instrument(plan)
            self._instruments[plan.symbol] = known
            add = partial(
                self._operations.add_instrument,
                *(plan.symbol, plan.base, plan.quote, plan.tick, plan.lot, plan.max_price, plan.max_quantity),
            )
            yield _Task(what, f"added, tick {plan.tick}, lot {plan.lot}", do=add)
        else:
            yield _compared(what, _scales(plan, known), f"tick {plan.tick}, lot {plan.lot}")
        yield from self._rules(plan, known)
        if plan.status is not None:
            now = InstrumentStatus(known.status).name
            do = None if now == plan.status else partial(self._operations.set_status, plan.symbol, plan.status)
            yield _change(f"status of {plan.symbol}", {"status": (now, plan.status)}, do)

    def _rules(self, plan: InstrumentPlan, known: Instrument) -> Iterator[_Task]:
        named = {name: value for name, value in msgspec.structs.asdict(plan.rules).items() if value is not None}
        if not named:
            return
        rules = msgspec.structs.asdict(plan.rules)
        wanted = rule_counts(known, **rules)
        before, after = result_builders.instrument_rules(known), result_builders.rules(known, wanted)
        pairs = {name: (before[name], after[name]) for name in named}
        do = None if before == after else partial(self._operations.set_rules, plan.symbol, **rules)
        yield _change(f"rules of {plan.symbol}", pairs, do)

    def _new_instrument(self, plan: InstrumentPlan) -> Instrument:
        base, quote = (self._known(asset, f"instrument {plan.symbol}") for asset in (plan.base, plan.quote))
        scales = market.scales(base, quote, plan.tick, plan.lot, plan.max_price, plan.max_quantity)
        return Instrument(
            id=0,
            symbol=plan.symbol,
            base=base,
            quote=quote,
            status=InstrumentStatus.TRADING,
            **msgspec.structs.asdict(scales),
        )

    def _known(self, asset: str, owner: str) -> Asset:
        if asset not in self._assets:
            raise InvalidValue(f"{owner}: asset {asset} is neither in the file nor at the exchange")
        return self._assets[asset]

    def _account(self, plan: AccountPlan) -> Iterator[_Task]:
        row = self._accounts.get(plan.id)
        if row is None:
            row = admin.AccountRow(account=plan.id, status=AccountStatus.ACTIVE)
            yield _Task(f"account {plan.id}", "opened", do=partial(self._operations.open_account, plan.id))
        else:
            yield _Task(f"account {plan.id}", "open", _SAME)
        yield from self._limits(plan, row)
        for deposit in plan.deposits:
            yield self._deposit(plan.id, deposit)
        if plan.status is not None:
            now = AccountStatus(row.status).name
            change = self._operations.suspend_account if plan.status == "SUSPENDED" else self._operations.resume_account
            do = None if now == plan.status else partial(change, plan.id)
            yield _change(f"status of account {plan.id}", {"status": (now, plan.status)}, do)

    def _deposit(self, account: int, plan: DepositPlan) -> _Task:
        what, asset = f"deposit {plan.transfer_id}", self._known(plan.asset, f"account {account}")
        detail = f"{plan.amount} {plan.asset} to account {account}"
        units, made = asset.units(plan.amount), self._transfers.get(plan.transfer_id)
        if made is None:
            do = partial(self._operations.deposit, account, plan.asset, plan.amount, plan.transfer_id)
            return _Task(what, detail, do=do)
        if (made.asset, made.kind, made.amount) == (asset.id, CommandKind.DEPOSIT, units):
            return _Task(what, detail, _SAME)
        return _Task(what, f"another transfer of account {account} has this transfer id", _DIFFERS)

    def _limits(self, plan: AccountPlan, row: admin.AccountRow) -> Iterator[_Task]:
        limits = plan.limits
        counts = (limits.open_orders, limits.open_notional, limits.order_notional, limits.order_quantity)
        if all(count is None for count in counts):
            return
        asset = None if limits.asset is None else self._known(limits.asset, f"account {plan.id}")
        instrument = None
        if limits.symbol is not None:
            instrument = self._instruments.get(limits.symbol)
            if instrument is None:
                raise InvalidValue(
                    f"account {plan.id}: instrument {limits.symbol} is neither in the file nor at the exchange"
                )
        wanted = limit_counts(row, asset, instrument, *counts)
        pairs = {
            name: (_limit(name, getattr(row, name), asset, instrument), _limit(name, count, asset, instrument))
            for name, count in wanted.items()
        }
        same = all(before == after for before, after in pairs.values())
        do = None if same else partial(self._operations.set_limits, plan.id, **msgspec.structs.asdict(limits))
        yield _change(f"limits of account {plan.id}", pairs, do)


def _limit(name: str, count: int, asset: Asset | None, instrument: Instrument | None) -> str | None:
    """Return a limit as the file states it; None if there is none."""
    if not count:
        return None
    if name.endswith("notional") and asset is not None:
        return f"{asset.text(count)} {asset.symbol}"
    if name.endswith("quantity") and instrument is not None:
        return instrument.quantity_text(count)
    return str(count)


def _scales(plan: InstrumentPlan, known: Instrument) -> dict[str, tuple[object, object]]:
    """Return what cannot change after an instrument was added: (in the file, at the exchange)."""
    found: dict[str, tuple[object, object]] = {
        "base": (plan.base, known.base.symbol),
        "quote": (plan.quote, known.quote.symbol),
        "tick": (decimals.to_text(decimals.exact(plan.tick, "tick")), decimals.to_text(known.tick)),
        "lot": (decimals.to_text(decimals.exact(plan.lot, "lot")), decimals.to_text(known.lot)),
    }
    if plan.max_price is not None:
        most = plan.max_price
        found["max_price"] = (_count(lambda: known.price_ticks(most)), known.max_price_ticks)
    if plan.max_quantity is not None:
        largest = plan.max_quantity
        found["max_quantity"] = (_count(lambda: known.quantity_lots(largest)), known.max_quantity_lots)
    return found


def _count(read: Callable[[], int]) -> int | str:
    """Return the integer that `read` returns, or the message of its InvalidValue."""
    try:
        return read()
    except InvalidValue as error:
        return str(error)


def _compared(what: str, pairs: Mapping[str, tuple[object, object]], detail: str) -> _Task:
    """Return a task for something that cannot be changed; `pairs` are (in the file, at the exchange)."""
    differing = [f"{name}: {a} in the file, {b} at the exchange" for name, (a, b) in pairs.items() if a != b]
    return _Task(what, "; ".join(differing), _DIFFERS) if differing else _Task(what, detail, _SAME)


def _change(
    what: str, pairs: Mapping[str, tuple[object, object]], do: Callable[[], Steps[CommandResult]] | None
) -> _Task:
    """Return a task for something that can be changed; `pairs` are (current, new)."""
    if do is None:
        kept = ", ".join(f"{name} {_shown(after)}" for name, (_, after) in pairs.items())
        return _Task(what, kept, _SAME)
    detail = ", ".join(f"{n} {_shown(a)} -> {_shown(b)}" for n, (a, b) in pairs.items() if a != b)
    return _Task(what, detail, do=do)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
