"""Add up what accounts bought and sold of each instrument, from trades alone: exact, in minimal units.

Called by the report, batch by batch, in the order of the trades.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.settlement.sums import sums
from smrx.sinks.rows import Instrument, Rows
from smrx.wire.codes import Side


class Position:
    """One instrument of one account: opening + bought - sold = closing in base units; money in quote units.

    All but the opening is of the period. A negative position was sold without being bought here: the account had
    deposited it.
    """

    __slots__ = ("bought", "fees", "opening", "paid", "received", "sold")

    def __init__(self) -> None:
        self.opening = self.bought = self.sold = self.paid = self.received = self.fees = 0

    @property
    def closing(self) -> int:
        """Bought less sold, up to the end of the period."""
        return self.opening + self.bought - self.sold


#: The fields of a position that a side's lots and notional are added to.
_FIELDS: Final = {Side.BUY: ("bought", "paid"), Side.SELL: ("sold", "received")}


class Positions:
    """The positions of one account, or of all accounts."""

    def __init__(self, account: int | None, begin_ns: int) -> None:
        """Collect those of `account`, None for all accounts, for a period that starts at `begin_ns`."""
        self.found: dict[tuple[int, int], Position] = {}
        self._account = account
        self._begin_ns = begin_ns

    def add(self, instrument: Instrument, rows: Rows) -> None:
        """Add trades of an instrument; an account that traded with itself both bought and sold."""
        now = rows["time_ns"] >= self._begin_ns
        for role, other in (("taker", Side.SELL), ("maker", Side.BUY)):
            # The taker's side is that of the trade, the maker's the other one.
            buys = rows["taker_side"] != other
            for side, chosen in ((Side.BUY, buys), (Side.SELL, ~buys)):
                base, quote = _FIELDS[side]
                before, during = rows[chosen & ~now], rows[chosen & now]
                sign = instrument.lot_units if side is Side.BUY else -instrument.lot_units
                self._add(instrument, before[f"{role}_account"], before["quantity_lots"], "opening", sign)
                accounts = during[f"{role}_account"]
                self._add(instrument, accounts, during["quantity_lots"], base, instrument.lot_units)
                self._add(instrument, accounts, during["notional"], quote, 1)
                self._add(instrument, accounts, during[f"{role}_fee"], "fees", 1)

    def _add(
        self, instrument: Instrument, accounts: NDArray[np.uint32], amounts: NDArray[np.int64], field: str, factor: int
    ) -> None:
        for account, total in sums(accounts.astype(np.uint64), amounts):
            if self._account in (None, account):
                position = self.found.setdefault((account, instrument.id), Position())
                setattr(position, field, getattr(position, field) + factor * total)
