"""A whole market brought in line with what is written down: compared first, then changed step by step.

Applying the same twice changes nothing the second time. Whatever the file says that cannot be counted is refused
before anything is sent; what the exchange refuses later is told as a difference, and the rest goes on.
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
from smrx.client.market_file import AccountPlan, AssetPlan, DepositPlan, InstrumentPlan, MarketPlan
from smrx.client.results import CommandResult, MarketChange, TransferResult
from smrx.client.venue_operations import VenueOperations, limit_counts, rule_counts, supply_cap
from smrx.wire import admin
from smrx.wire.codes import AccountStatus, CommandKind, InstrumentStatus, Reason

_SAME, _CHANGED, _DIFFERS = "unchanged", "changed", "differs"
_WOULD_CHANGE = "would change"


class _Task(NamedTuple):
    """One thing to see to: already so, impossible, or done by a verb."""

    what: str
    detail: str
    state: str = _CHANGED
    do: Callable[[], Steps[CommandResult]] | None = None


class MarketSetup(VenueOperations):
    """The verb that sets a whole market up."""

    def apply_market(self, market: MarketPlan, *, dry_run: bool = False) -> Steps[list[MarketChange]]:
        """Bring the exchange in line with a market read by smrx.client.market_file; say what was done to each thing.

        Raises InvalidValue, with nothing changed, for what cannot be counted in the units there are.
        """
        yield from self._load()
        rows = yield from self._pages(admin.Accounts(), admin.AccountsReply)
        transfers: dict[int, admin.TransferRow] = {}
        for account in market.accounts:
            if account.deposits:
                made = yield from self._pages(admin.Transfers(account=account.id), admin.TransfersReply)
                transfers |= {row.transfer_id: row for row in made}
        tasks = list(_Plan(self, market, {row.account: row for row in rows}, transfers).tasks())
        found = []
        for task in tasks:
            found.append((yield from self._see_to(task, dry_run)))
        return found

    def _see_to(self, task: _Task, dry_run: bool) -> Steps[MarketChange]:
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
                    raise  # Nothing of the file is this account's to change.
                state, detail = _DIFFERS, str(refused)
        return MarketChange(what=task.what, state=state, detail=detail)


class _Plan:
    """The comparison of a market as written with the exchange as it is."""

    def __init__(
        self,
        verbs: MarketSetup,
        wanted: MarketPlan,
        accounts: Mapping[int, admin.AccountRow],
        transfers: Mapping[int, admin.TransferRow],
    ) -> None:
        self._verbs = verbs
        self._wanted = wanted
        self._accounts = accounts
        self._transfers = transfers
        #: As they are, and as they will be where they are not there yet.
        self._assets = {asset.symbol: asset for asset in reversed(verbs.market.assets)}
        self._instruments = {instrument.symbol: instrument for instrument in reversed(verbs.market.instruments)}

    def tasks(self) -> Iterator[_Task]:
        """Yield everything there is to see to, in the order in which it can be done."""
        for asset in self._wanted.assets:
            yield from self._asset(asset)
        for instrument in self._wanted.instruments:
            yield from self._instrument(instrument)
        for account in self._wanted.accounts:
            yield from self._account(account)

    def _asset(self, plan: AssetPlan) -> Iterator[_Task]:
        what, known = f"asset {plan.symbol}", self._assets.get(plan.symbol)
        if known is None:
            self._assets[plan.symbol] = Asset(0, plan.symbol, plan.decimals)
            supply_cap(self._assets[plan.symbol], plan.max_supply)
            add = partial(self._verbs.add_asset, plan.symbol, plan.decimals, max_supply=plan.max_supply)
            yield _Task(what, f"added with {plan.decimals} decimals", do=add)
            return
        found: dict[str, tuple[object, object]] = {"decimals": (plan.decimals, known.decimals)}
        if plan.max_supply is not None:
            found["max_supply"] = (_count(lambda: supply_cap(known, plan.max_supply)), known.supply_cap)
        yield _compared(what, found, f"{known.decimals} decimals")

    def _instrument(self, plan: InstrumentPlan) -> Iterator[_Task]:
        what, known = f"instrument {plan.symbol}", self._instruments.get(plan.symbol)
        if known is None:
            known = self._imagined(plan)
            self._instruments[plan.symbol] = known
            add = partial(
                self._verbs.add_instrument,
                *(plan.symbol, plan.base, plan.quote, plan.tick, plan.lot, plan.max_price, plan.max_quantity),
            )
            yield _Task(what, f"added, tick {plan.tick}, lot {plan.lot}", do=add)
        else:
            yield _compared(what, _scales(plan, known), f"tick {plan.tick}, lot {plan.lot}")
        yield from self._rules(plan, known)
        if plan.status is not None:
            now = InstrumentStatus(known.status).name
            do = None if now == plan.status else partial(self._verbs.set_status, plan.symbol, plan.status)
            yield _change(f"status of {plan.symbol}", {"status": (now, plan.status)}, do)

    def _rules(self, plan: InstrumentPlan, known: Instrument) -> Iterator[_Task]:
        named = {name: value for name, value in msgspec.structs.asdict(plan.rules).items() if value is not None}
        if not named:
            return
        every = msgspec.structs.asdict(plan.rules)
        wanted = rule_counts(known, **every)
        before, after = result_builders.instrument_rules(known), result_builders.rules(known, wanted)
        pairs = {name: (before[name], after[name]) for name in named}
        do = None if before == after else partial(self._verbs.set_rules, plan.symbol, **every)
        yield _change(f"rules of {plan.symbol}", pairs, do)

    def _imagined(self, plan: InstrumentPlan) -> Instrument:
        base, quote = self._known(plan.base, plan.symbol), self._known(plan.quote, plan.symbol)
        scales = market.scales(base, quote, plan.tick, plan.lot, plan.max_price, plan.max_quantity)
        return Instrument(
            id=0,
            symbol=plan.symbol,
            base=base,
            quote=quote,
            status=InstrumentStatus.TRADING,
            **msgspec.structs.asdict(scales),
        )

    def _known(self, asset: str, whose: str) -> Asset:
        if asset not in self._assets:
            raise InvalidValue(f"{whose}: expected an asset of the file or of the exchange, found {asset}")
        return self._assets[asset]

    def _account(self, plan: AccountPlan) -> Iterator[_Task]:
        row = self._accounts.get(plan.id)
        if row is None:
            row = admin.AccountRow(account=plan.id, status=AccountStatus.ACTIVE)
            yield _Task(f"account {plan.id}", "opened", do=partial(self._verbs.open_account, plan.id))
        else:
            yield _Task(f"account {plan.id}", "open", _SAME)
        yield from self._limits(plan, row)
        for deposit in plan.deposits:
            yield self._deposit(plan.id, deposit)
        if plan.status is not None:
            now = AccountStatus(row.status).name
            verb = self._verbs.suspend_account if plan.status == "SUSPENDED" else self._verbs.resume_account
            do = None if now == plan.status else partial(verb, plan.id)
            yield _change(f"status of account {plan.id}", {"status": (now, plan.status)}, do)

    def _deposit(self, account: int, plan: DepositPlan) -> _Task:
        what, asset = f"deposit {plan.transfer_id}", self._known(plan.asset, f"account {account}")
        detail = f"{plan.amount} {plan.asset} to account {account}"
        units, made = asset.units(plan.amount), self._transfers.get(plan.transfer_id)
        if made is None:
            do = partial(self._verbs.deposit, account, plan.asset, plan.amount, plan.transfer_id)
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
                raise InvalidValue(f"account {plan.id}: expected a known instrument, found {limits.symbol}")
        wanted = limit_counts(row, asset, instrument, *counts)
        pairs = {
            name: (_limit(name, getattr(row, name), asset, instrument), _limit(name, count, asset, instrument))
            for name, count in wanted.items()
        }
        same = all(before == after for before, after in pairs.values())
        do = None if same else partial(self._verbs.set_limits, plan.id, **msgspec.structs.asdict(limits))
        yield _change(f"limits of account {plan.id}", pairs, do)


def _limit(name: str, count: int, asset: Asset | None, instrument: Instrument | None) -> str | None:
    """A limit as the file would say it; None where there is none."""
    if not count:
        return None
    if name.endswith("notional") and asset is not None:
        return f"{asset.text(count)} {asset.symbol}"
    if name.endswith("quantity") and instrument is not None:
        return instrument.quantity_text(count)
    return str(count)


def _scales(plan: InstrumentPlan, known: Instrument) -> dict[str, tuple[object, object]]:
    """What can never change once an instrument exists: (as written, as it is)."""
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
    """A value in the units there are; why not, where it cannot be counted in them."""
    try:
        return read()
    except InvalidValue as error:
        return str(error)


def _compared(what: str, pairs: Mapping[str, tuple[object, object]], detail: str) -> _Task:
    """A task about something that cannot be changed: `pairs` are (as written, as it is)."""
    differing = [f"{name}: the file says {a}, the exchange {b}" for name, (a, b) in pairs.items() if a != b]
    return _Task(what, "; ".join(differing), _DIFFERS) if differing else _Task(what, detail, _SAME)


def _change(
    what: str, pairs: Mapping[str, tuple[object, object]], do: Callable[[], Steps[CommandResult]] | None
) -> _Task:
    """A task about something that can be changed: `pairs` are (as it is, as it will be)."""
    if do is None:
        kept = ", ".join(f"{name} {_shown(after)}" for name, (_, after) in pairs.items())
        return _Task(what, kept, _SAME)
    detail = ", ".join(f"{n} {_shown(a)} -> {_shown(b)}" for n, (a, b) in pairs.items() if a != b)
    return _Task(what, detail, do=do)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
