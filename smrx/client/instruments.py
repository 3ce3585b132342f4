"""Cache assets and instruments, and convert between decimals and the exchange's integers.

Ids and scales never change, so cached ones stay valid; unknown symbols are looked up again. Status and rules do change,
so operations that need them reload them first.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import isqrt
from typing import Final

import msgspec

from smrx.client import decimals
from smrx.client.client_errors import InvalidValue
from smrx.client.decimals import Number
from smrx.wire.admin import AssetRow, InstrumentRow

#: The exchange rejects an instrument whose products and sums can reach this.
_MONEY_LIMIT: Final = 1 << 62
_U32: Final = (1 << 32) - 1
#: Columns of InstrumentRow that have another name in Instrument.
_RENAMED: Final = {"instrument", "base_asset", "quote_asset"}


class Asset(msgspec.Struct, frozen=True):
    """An asset. Amounts are in minimal units of 10^-decimals; `supply_cap` is 0 if the supply is not limited."""

    id: int
    symbol: str
    decimals: int
    supply: int = 0
    supply_cap: int = 0

    def units(self, amount: Number, what: str = "amount") -> int:
        """Return an amount in minimal units. Raises InvalidValue."""
        return decimals.to_steps(amount, decimals.unit(self.decimals), f"{self.symbol} {what}", "minimal unit")

    def text(self, units: int) -> str:
        """Return minimal units as a decimal."""
        return decimals.from_steps(units, decimals.unit(self.decimals))


class Instrument(msgspec.Struct, frozen=True):
    """An instrument: `base` traded for `quote`, in lots, at prices in ticks.

    Status, rules (0 = none) and last price (0 = no trade yet) are as of the last lookup.
    """

    id: int
    symbol: str
    base: Asset
    quote: Asset
    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int
    status: int
    last_price_ticks: int = 0
    maker_fee: int = 0
    taker_fee: int = 0
    band_bp: int = 0
    collar_bp: int = 0
    collar_reference: int = 0
    rule_flags: int = 0
    min_price_ticks: int = 0
    min_quantity_lots: int = 0
    min_notional: int = 0
    max_notional: int = 0

    @property
    def tick(self) -> Fraction:
        """The price increment, in quote per base."""
        return Fraction(*self._tick)

    @property
    def lot(self) -> Fraction:
        """The quantity increment, in base."""
        return Fraction(*self._lot)

    @property
    def _tick(self) -> tuple[int, int]:
        return self.scale_units * 10**self.base.decimals, self.lot_units * 10**self.quote.decimals

    @property
    def _lot(self) -> tuple[int, int]:
        return self.lot_units, 10**self.base.decimals

    def price_ticks(self, price: Number, what: str = "price") -> int:
        """Return a price in ticks. Raises InvalidValue."""
        ticks = decimals.steps_or_none(price, *self._tick)
        return decimals.to_steps(price, self.tick, f"{self.symbol} {what}", "tick") if ticks is None else ticks

    def quantity_lots(self, quantity: Number, what: str = "quantity") -> int:
        """Return a quantity in lots. Raises InvalidValue."""
        lots = decimals.steps_or_none(quantity, *self._lot)
        return decimals.to_steps(quantity, self.lot, f"{self.symbol} {what}", "lot") if lots is None else lots

    def price_text(self, price_ticks: int) -> str:
        """Return ticks as a decimal."""
        return decimals.text_of_steps(price_ticks, *self._tick)

    def quantity_text(self, quantity_lots: int) -> str:
        """Return lots as a decimal."""
        return decimals.text_of_steps(quantity_lots, *self._lot)


class Scales(msgspec.Struct, frozen=True):
    """The integers that define a new instrument."""

    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int


def scales(
    base: Asset, quote: Asset, tick: Number, lot: Number, max_price: Number | None, max_quantity: Number | None
) -> Scales:
    """Return the scales for a tick and a lot. Raises InvalidValue if they are not multiples of the minimal units.

    A maximum that is None becomes the largest value that the exchange accepts, rounded down to a power of ten.
    """
    lot_size, tick_size = decimals.exact(lot, "lot"), decimals.exact(tick, "tick")
    lot_units = _whole(
        lot_size * 10**base.decimals,
        f"lot: expected a multiple of the minimal unit of {base.symbol}, "
        f"{decimals.to_text(decimals.unit(base.decimals))}, found {lot}",
    )
    notional = tick_size * lot_size
    scale_units = _whole(
        notional * 10**quote.decimals,
        f"tick: one tick times one lot must be a multiple of the minimal unit of {quote.symbol}, "
        f"{decimals.to_text(decimals.unit(quote.decimals))}, found {tick} x {lot} = {decimals.to_text(notional)}",
    )
    lots = None if max_quantity is None else decimals.to_steps(max_quantity, lot_size, "max_quantity", "lot")
    ticks = None if max_price is None else decimals.to_steps(max_price, tick_size, "max_price", "tick")
    budget = (_MONEY_LIMIT - 1) // scale_units
    if lots is None:
        lots = _round_number(min(budget // ticks if ticks else isqrt(budget), (_MONEY_LIMIT - 1) // lot_units))
    if ticks is None:
        ticks = _round_number(budget // lots if lots else 0)
    if not lots or not ticks or ticks * lots * scale_units >= _MONEY_LIMIT or lots * lot_units >= _MONEY_LIMIT:
        raise InvalidValue(
            "max_price, max_quantity: the largest notional and quantity must stay below 2^62 minimal units, "
            f"found {ticks * lots * scale_units} {quote.symbol} and {lots * lot_units} {base.symbol}"
        )
    return Scales(lot_units, scale_units, ticks, lots)


def _whole(units: Fraction, message: str) -> int:
    if units.denominator != 1 or not 1 <= units.numerator <= _U32:
        raise InvalidValue(message)
    return units.numerator


def _round_number(value: int) -> int:
    return int("1" + "0" * (len(str(value)) - 1)) if value else 0


class MarketCache:
    """The known assets and instruments, by symbol and by id."""

    def __init__(self) -> None:
        self._assets: dict[int, Asset] = {}
        self._instruments: dict[int, Instrument] = {}
        self._assets_by_symbol: dict[str, Asset] = {}
        self._instruments_by_symbol: dict[str, Instrument] = {}

    def add_rows(self, assets: Iterable[AssetRow], instruments: Iterable[InstrumentRow]) -> None:
        """Add the rows of a reply. If a symbol occurs twice, the lower id is used."""
        for row in sorted(assets, key=lambda row: row.asset):
            asset = Asset(row.asset, row.symbol, row.decimals, row.supply, row.cap)
            self._assets[asset.id] = asset
            if self._assets_by_symbol.get(asset.symbol, asset).id == asset.id:
                self._assets_by_symbol[asset.symbol] = asset
        for line in sorted(instruments, key=lambda line: line.instrument):
            if line.base_asset not in self._assets or line.quote_asset not in self._assets:
                continue  # The two replies differ in time; the next lookup finds its assets.
            known = {name: value for name, value in msgspec.structs.asdict(line).items() if name not in _RENAMED}
            instrument = Instrument(
                id=line.instrument,
                base=self._assets[line.base_asset],
                quote=self._assets[line.quote_asset],
                **known,
            )
            self._instruments[instrument.id] = instrument
            if self._instruments_by_symbol.get(instrument.symbol, instrument).id == instrument.id:
                self._instruments_by_symbol[instrument.symbol] = instrument

    def asset(self, name: str | int) -> Asset | None:
        """Return an asset by symbol or id, or None if it is unknown."""
        return self._assets.get(name) if isinstance(name, int) else self._assets_by_symbol.get(name)

    def instrument(self, name: str | int) -> Instrument | None:
        """Return an instrument by symbol or id, or None if it is unknown."""
        return self._instruments.get(name) if isinstance(name, int) else self._instruments_by_symbol.get(name)

    @property
    def assets(self) -> list[Asset]:
        """All known assets, by id."""
        return [self._assets[key] for key in sorted(self._assets)]

    @property
    def instruments(self) -> list[Instrument]:
        """All known instruments, by id."""
        return [self._instruments[key] for key in sorted(self._instruments)]
