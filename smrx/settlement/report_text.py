"""Format a report as decimals and names: rows for tables, JSON and CSV. Amounts have the decimals of their asset.

Called by `smrx settle report`. The CSV is RFC 4180 with a header: one line for each entry of a statement, with its
opening and closing balances, or, without an account, one line for each balance.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from smrx.client.decimals import from_steps, unit
from smrx.settlement.display_names import unique_names
from smrx.settlement.report import Balance, Query, Report
from smrx.sinks.contract import Checkpoint
from smrx.sinks.rows import time_text

STATEMENT_COLUMNS: Final = (
    "time", "event_sequence", "kind", "asset", "amount", "balance", "instrument", "reference", "account", "asset_id",
    "instrument_id",
)  # fmt: skip
BALANCE_COLUMNS: Final = (
    "account", "asset", "opening", "deposits", "withdrawals", "bought", "sold", "fees", "closing", "asset_id",
)  # fmt: skip
POSITION_COLUMNS: Final = (
    "account", "instrument", "opening", "bought", "sold", "closing", "base_asset", "paid", "received", "fees",
    "quote_asset", "instrument_id",
)  # fmt: skip
TURNOVER_COLUMNS: Final = (
    "instrument", "trades", "volume", "base_asset", "turnover", "taker_fees", "maker_fees", "quote_asset",
    "instrument_id",
)  # fmt: skip

_AMOUNTS: Final = ("opening", "deposits", "withdrawals", "bought", "sold", "fees", "closing")


def trades_settled(checkpoint: Checkpoint | None) -> int:
    """Return how many trades are settled, whatever the first match id is."""
    if checkpoint is None:
        return 0
    return checkpoint.match_id - (checkpoint.origin.match_id if checkpoint.origin else 0)


class Text:
    """A report whose cells are text."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._assets = unique_names({known.id: known.symbol for known in report.assets.values()})
        self._instruments = unique_names({known.id: known.symbol for known in report.instruments.values()})

    def balances(self) -> list[dict[str, str]]:
        """Return one dict of BALANCE_COLUMNS for each account and asset."""
        return [
            {"account": str(account), "asset": self._asset(asset), **self._amounts(asset, balance)}
            | {"asset_id": str(asset)}
            for (account, asset), balance in self._report.balances.items()
        ]

    def positions(self) -> list[dict[str, str]]:
        """Return one dict of POSITION_COLUMNS for each account and instrument."""
        rows = []
        for (account, identity), figures in self._report.positions.items():
            instrument = self._report.instruments[identity]
            base, quote = instrument.base_asset, instrument.quote_asset
            lots = (figures.opening, figures.bought, figures.sold, figures.closing)
            cells = (
                str(account), self._instruments[identity], *(self.money(base, amount) for amount in lots),
                self._asset(base),
                *(self.money(quote, amount) for amount in (figures.paid, figures.received, figures.fees)),
                self._asset(quote), str(identity),
            )  # fmt: skip
            rows.append(dict(zip(POSITION_COLUMNS, cells, strict=True)))
        return rows

    def turnover(self) -> list[dict[str, str]]:
        """Return one dict of TURNOVER_COLUMNS for each instrument."""
        rows = []
        for identity, figures in self._report.turnover.items():
            instrument = self._report.instruments[identity]
            base, quote = instrument.base_asset, instrument.quote_asset
            cells = (
                self._instruments[identity], str(figures.trades), self.money(base, figures.base), self._asset(base),
                self.money(quote, figures.quote), self.money(quote, figures.taker_fees),
                self.money(quote, figures.maker_fees), self._asset(quote), str(identity),
            )  # fmt: skip
            rows.append(dict(zip(TURNOVER_COLUMNS, cells, strict=True)))
        return rows

    def statement(self) -> Iterator[dict[str, str]]:
        """Yield one dict of STATEMENT_COLUMNS for each opening balance, each entry, and each closing balance."""
        report = self._report
        account = report.query.account
        running = {asset: balance.opening for (_, asset), balance in report.balances.items()}
        for asset, amount in running.items():
            yield self._line(account, asset, "OPENING", balance=amount)
        for entry in report.statement:
            running[entry.asset] += entry.amount
            yield self._line(
                account, entry.asset, entry.kind, balance=running[entry.asset], amount=entry.amount,
                time=time_text(entry.time_ns), event_sequence=str(entry.event_sequence), reference=str(entry.reference),
                instrument=entry.instrument,
            )  # fmt: skip
        for asset, amount in running.items():
            yield self._line(account, asset, "CLOSING", balance=amount)

    def money(self, asset: int, amount: int) -> str:
        """Return an amount with the decimals of its asset."""
        return from_steps(amount, unit(self._report.assets[asset].decimals))

    def _asset(self, asset: int) -> str:
        return self._assets[asset]

    def _amounts(self, asset: int, balance: Balance) -> dict[str, str]:
        return {name: self.money(asset, getattr(balance, name)) for name in _AMOUNTS}

    def _line(
        self,
        account: int | None,
        asset: int,
        kind: str,
        *,
        balance: int,
        amount: int | None = None,
        time: str = "",
        event_sequence: str = "",
        reference: str = "",
        instrument: int | None = None,
    ) -> dict[str, str]:
        cells = (
            time, event_sequence, kind, self._asset(asset), "" if amount is None else self.money(asset, amount),
            self.money(asset, balance), "" if instrument is None else self._instruments[instrument],
            reference, str(account), str(asset), "" if instrument is None else str(instrument),
        )  # fmt: skip
        return dict(zip(STATEMENT_COLUMNS, cells, strict=True))


def as_json(report: Report) -> dict[str, Any]:
    """Return the whole report for JSON; amounts are decimals in strings, counts and ids are numbers."""
    text, checkpoint = Text(report), report.checkpoint
    content: dict[str, Any] = {
        "cluster": checkpoint.cluster if checkpoint else None,
        "event_sequence": checkpoint.event_sequence if checkpoint else 0,
        "trades_settled": trades_settled(checkpoint),
        "origin": msgspec.to_builtins(checkpoint.origin) if checkpoint else None,
        **_period(report.query),
        "balances": [_typed(row) for row in text.balances()],
        "positions": [_typed(row) for row in text.positions()],
        "turnover": [_typed(row) for row in text.turnover()],
    }
    if report.query.account is not None:
        content["statement"] = [_typed(row) for row in text.statement()]
    return content


def write_csv(report: Report, path: Path) -> int:
    """Write the statement, or without an account the balances, to a file; return how many lines it has."""
    text = Text(report)
    columns = BALANCE_COLUMNS if report.query.account is None else STATEMENT_COLUMNS
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in text.balances() if report.query.account is None else text.statement():
            writer.writerow(row)
            count += 1
    return count


def _period(query: Query) -> dict[str, str | None]:
    everything = Query()
    return {
        "from": time_text(query.begin_ns) if query.begin_ns != everything.begin_ns else None,
        "to": time_text(query.end_ns) if query.end_ns != everything.end_ns else None,
    }


_COUNTS: Final = {"account", "asset_id", "instrument_id", "event_sequence", "trades", "reference"}


def _typed(row: dict[str, str]) -> dict[str, str | int | None]:
    """Counts and ids as numbers, nothing as null."""
    return {key: None if not value else int(value) if key in _COUNTS else value for key, value in row.items()}
