"""Compute balances, positions, turnover, fees and the statement of an account from settled rows. Exact integers.

- A balance is what an account owns, held by its orders or not. For every account and asset closing = opening + deposits
  - withdrawals + bought - sold - fees; the venue (account 0) receives the fees, which are its fees below zero.
- A period starts at `begin_ns` and ends before `end_ns`, by the engine's clock; what was before it is in the opening
  balance, and so is the state image that books may start from.
- An instrument limits the report to its two assets, with everything that moved them, so that balances still add up;
  turnover and positions are those of the instrument alone.

Reads a Reader (readers.py), writes nothing. Called by `smrx settle report`.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.settlement.positions import Position, Positions
from smrx.settlement.readers import Reader
from smrx.settlement.sums import sums, total_of
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import (
    OPENING,
    Asset,
    Catalogue,
    Instrument,
    Rows,
    of_account,
)
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind, Side

#: The venue's own account.
VENUE_ACCOUNT: Final = 0
_MOST_NS: Final = (1 << 63) - 1


class Query(NamedTuple):
    """The scope of a report; the defaults include everything."""

    account: int | None = None
    instrument: int | None = None
    begin_ns: int = 0
    end_ns: int = _MOST_NS


class Balance:
    """One asset of one account over the period, in minimal units."""

    __slots__ = ("bought", "deposits", "fees", "opening", "sold", "withdrawals")

    def __init__(self) -> None:
        self.opening = self.deposits = self.withdrawals = self.bought = self.sold = self.fees = 0

    @property
    def closing(self) -> int:
        """The balance at the end of the period."""
        return self.opening + self.deposits - self.withdrawals + self.bought - self.sold - self.fees


class Turnover:
    """One instrument over the period: its trades, or those of an account, each counted once. Money in quote units.

    For the venue's account it is that of all accounts, whose fees the venue receives.
    """

    __slots__ = ("base", "maker_fees", "quote", "taker_fees", "trades")

    def __init__(self) -> None:
        self.trades = self.base = self.quote = self.taker_fees = self.maker_fees = 0


class Entry(NamedTuple):
    """One line of a statement; the amount is what it adds to the balance."""

    event_sequence: int
    time_ns: int
    kind: str  #: DEPOSIT, WITHDRAWAL, BUY, SELL, FEE, FEE_INCOME
    asset: int
    amount: int
    instrument: int | None = None
    reference: int = 0  #: transfer id or match id


class Report(NamedTuple):
    """The figures, by id; `assets` and `instruments` give names and decimals."""

    query: Query
    checkpoint: Checkpoint | None
    assets: dict[int, Asset]
    instruments: dict[int, Instrument]
    balances: dict[tuple[int, int], Balance]  #: (account, asset), sorted
    positions: dict[tuple[int, int], Position]  #: (account, instrument), sorted
    turnover: dict[int, Turnover]  #: by instrument, sorted
    statement: list[Entry]  #: of the query's account, in the order of events; empty without one


def make_report(source: Reader, query: Query) -> Report:
    """Compute a report. Raises SinkMismatch if the rows contradict each other."""
    return _Sums(source, query).report()


class _Sums:
    """The figures while they are added up."""

    def __init__(self, source: Reader, query: Query) -> None:
        self.source = source
        self.query = query
        self.catalogue = Catalogue()
        self.catalogue.add(source.definitions())
        self.balances: dict[tuple[int, int], Balance] = {}
        self.turnover: dict[int, Turnover] = {}
        self.positions = Positions(query.account, query.begin_ns)
        self.entries: list[Entry] = []
        instruments = self.catalogue.instruments
        self.base = {i: found.base_asset for i, found in instruments.items()}
        self.assets = set(self.catalogue.assets)
        if query.instrument is not None:
            only = instruments[query.instrument]
            self.assets = {only.base_asset, only.quote_asset}

    def report(self) -> Report:
        for movements in self.source.movements():
            self._move(movements[np.isin(movements["asset"], list(self.assets))])
        # Every trade concerns the venue.
        account = self.query.account if self.query.account != VENUE_ACCOUNT else None
        for trades in self.source.trades(account):
            if len(trades):
                self._trade(trades)
                if int(trades["time_ns"][-1]) >= self.query.end_ns:
                    break
        for (owner, asset), balance in self.balances.items():
            for when, amount in (("an opening", balance.opening), ("a closing", balance.closing)):
                if amount < 0:
                    raise SinkMismatch(
                        f"account {owner}, asset {self.catalogue.assets[asset].symbol}: {when} balance of {amount} is "
                        "negative: settled rows are missing or were changed"
                    )
        return Report(
            self.query,
            self.source.checkpoint,
            self.catalogue.assets,
            self.catalogue.instruments,
            dict(sorted(self.balances.items())),
            dict(sorted(self.positions.found.items())),
            dict(sorted(self.turnover.items())),
            sorted(self.entries, key=lambda entry: entry.event_sequence),
        )

    def _move(self, rows: Rows) -> None:
        query = self.query
        rows = rows[rows["time_ns"] < query.end_ns]
        if query.account is not None:
            rows = rows[rows["account"] == query.account]
        begun = rows["kind"] == OPENING
        for row in rows[begun]:
            owner = int(row["account"]), int(row["asset"])
            self.balances.setdefault(owner, Balance()).opening += int(row["amount"])
        rows = rows[~begun]
        deposits = rows["kind"] == EventKind.DEPOSITED
        for which, field, sign in ((deposits, "deposits", 1), (~deposits, "withdrawals", -1)):
            moved = rows[which]
            self._add(moved["time_ns"], moved["account"], moved["asset"], moved["amount"], field, sign)
        if query.account is not None:
            for row in rows[rows["time_ns"] >= query.begin_ns]:
                deposit = int(row["kind"]) == EventKind.DEPOSITED
                kind, sign = ("DEPOSIT", 1) if deposit else ("WITHDRAWAL", -1)
                amount = sign * int(row["amount"])
                head = int(row["event_sequence"]), int(row["time_ns"])
                self.entries.append(Entry(*head, kind, int(row["asset"]), amount, reference=int(row["transfer_id"])))

    def _trade(self, rows: Rows) -> None:
        rows = rows[rows["time_ns"] < self.query.end_ns]
        for identity in np.unique(rows["instrument"]).tolist():
            instrument = self.catalogue.instruments.get(identity)
            if instrument is None:
                raise SinkMismatch(f"the definition of instrument {identity} is missing, and there are trades in it")
            if not self.assets.isdisjoint({instrument.base_asset, instrument.quote_asset}):
                self._trade_in(instrument, rows[rows["instrument"] == identity])

    def _trade_in(self, instrument: Instrument, rows: Rows) -> None:
        times = rows["time_ns"]
        taker_buys = rows["taker_side"] == Side.BUY
        buyers = np.where(taker_buys, rows["taker_account"], rows["maker_account"])
        sellers = np.where(taker_buys, rows["maker_account"], rows["taker_account"])
        venue = np.zeros(len(rows), np.uint32)
        base, quote = (np.full(len(rows), i, np.uint32) for i in (instrument.base_asset, instrument.quote_asset))
        lots, notional = rows["quantity_lots"] * instrument.lot_units, rows["notional"]
        for accounts, assets, amounts, field, sign in (
            (buyers, base, lots, "bought", 1),
            (buyers, quote, notional, "sold", -1),
            (sellers, base, lots, "sold", -1),
            (sellers, quote, notional, "bought", 1),
            (rows["taker_account"], quote, rows["taker_fee"], "fees", -1),
            (rows["maker_account"], quote, rows["maker_fee"], "fees", -1),
            (venue, quote, -rows["taker_fee"], "fees", -1),
            (venue, quote, -rows["maker_fee"], "fees", -1),
        ):
            self._add(times, accounts, assets, amounts, field, sign)
        if self.query.instrument in (None, instrument.id):
            self.positions.add(instrument, rows)
        now = rows[times >= self.query.begin_ns]
        account = self.query.account
        if account is not None:
            for row in now:
                self.entries += self._entries(instrument, row, account)
        if account not in (None, VENUE_ACCOUNT):
            now = of_account(now, account)
        if len(now) and self.query.instrument in (None, instrument.id):
            self._turn_over(instrument, now)

    def _turn_over(self, instrument: Instrument, rows: Rows) -> None:
        figures = self.turnover.setdefault(instrument.id, Turnover())
        figures.trades += len(rows)
        figures.base += total_of(rows["quantity_lots"]) * instrument.lot_units
        figures.quote += total_of(rows["notional"])
        for role in ("taker", "maker"):
            account = self.query.account
            is_total = account in (None, VENUE_ACCOUNT)
            paid = rows if is_total else rows[rows[f"{role}_account"] == account]
            fees = total_of(paid[f"{role}_fee"])
            setattr(figures, f"{role}_fees", getattr(figures, f"{role}_fees") + fees)

    def _entries(self, instrument: Instrument, row: np.void, account: int) -> Iterator[Entry]:
        """Yield the entries of a trade in the statement of an account."""
        head = int(row["event_sequence"]), int(row["time_ns"])
        tail = instrument.id, int(row["match_id"])
        base, quote = instrument.base_asset, instrument.quote_asset
        lots, notional = int(row["quantity_lots"]) * instrument.lot_units, int(row["notional"])
        for role, buys in (("taker", row["taker_side"] == Side.BUY), ("maker", row["taker_side"] != Side.BUY)):
            if int(row[f"{role}_account"]) == account:
                kind, sign = ("BUY", 1) if buys else ("SELL", -1)
                legs = [(kind, base, sign * lots), (kind, quote, -sign * notional)]
                if fee := int(row[f"{role}_fee"]):
                    legs.append(("FEE", quote, -fee))
                for name, asset, amount in legs:
                    if asset in self.assets:
                        yield Entry(*head, name, asset, amount, *tail)
        income = int(row["taker_fee"]) + int(row["maker_fee"])
        if account == VENUE_ACCOUNT and income and quote in self.assets:
            yield Entry(*head, "FEE_INCOME", quote, income, *tail)

    def _add(
        self,
        times: NDArray[np.int64],
        accounts: NDArray[np.uint32],
        assets: NDArray[np.uint32],
        amounts: NDArray[np.int64],
        field: str,
        sign: int,
    ) -> None:
        """Add amounts to a field of the balances, or, before the period, to their opening."""
        before = times < self.query.begin_ns
        for which, name, factor in ((before, "opening", sign), (~before, field, 1)):
            keys = accounts[which].astype(np.uint64) << np.uint64(32) | assets[which]
            for key, total in sums(keys, amounts[which]):
                account, asset = key >> 32, key & 0xFFFF_FFFF
                if asset not in self.assets or self.query.account not in (None, account):
                    continue
                # A fee of zero does not create a balance.
                if total or (account, asset) in self.balances:
                    balance = self.balances.setdefault((account, asset), Balance())
                    setattr(balance, name, getattr(balance, name) + factor * total)
