"""Write event streams by hand, by the rules of fees, stops, budgets and self-trades."""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import EventKind, OrderFlags, OrderType, Reason, Side
from smrx.wire.records import EVENT, EVENT_LAYOUTS, pack_symbol

MAKER, TAKER, VENUE = 1, 2, 0
BASE, QUOTE = 1, 2
FUNDS = 1_000_000


def fee(notional: int, rate: int) -> int:
    """Return ceil(notional x rate / 10^6)."""
    return -((-notional * rate) // 1_000_000)


class Script:
    """Writes events; each call is a command of its own unless `same` is set."""

    def __init__(self, taker_fee: int = 0, maker_fee: int = 0, scale: int = 3, lot: int = 10) -> None:
        self.rows: list[NDArray[np.void]] = []
        self.command = 0
        self.matches = 0
        self.taker_fee, self.maker_fee, self.scale = taker_fee, maker_fee, scale
        self.add(EventKind.ASSET_ADDED, asset=BASE, symbol=pack_symbol("BTC"), decimals=8)
        self.add(EventKind.ASSET_ADDED, asset=QUOTE, symbol=pack_symbol("USD"), decimals=2)
        self.add(
            EventKind.INSTRUMENT_ADDED, instrument=1, symbol=pack_symbol("BTC-USD"), lot_units=lot, scale_units=scale,
            base_asset=BASE, quote_asset=QUOTE, max_price_ticks=1 << 20, max_quantity_lots=1 << 20,
        )  # fmt: skip
        for account in (MAKER, TAKER):
            self.add(EventKind.ACCOUNT_OPENED, account=account)
            for asset in (BASE, QUOTE):
                self.add(EventKind.DEPOSITED, account=account, asset=asset, amount=FUNDS, available_after=FUNDS)
        if taker_fee or maker_fee:
            self.rules(taker_fee, maker_fee)

    def add(self, kind: EventKind, *, same: bool = False, **fields: int | bytes) -> int:
        """Write an event of the next command, or of the same; return the command's sequence.

        The fields are those of the layout of its kind.
        """
        self.command += not same
        row = np.zeros(1, EVENT_LAYOUTS[kind])
        row["kind"], row["sequence"], row["command_sequence"] = kind, len(self.rows) + 1, self.command
        row["time_ns"] = self.command
        for name, value in fields.items():
            row[name] = value
        self.rows.append(row.view(EVENT))
        return self.command

    def rules(self, taker_fee: int, maker_fee: int) -> None:
        """Set the fee rates."""
        self.add(EventKind.RULES_SET, instrument=1, taker_fee=taker_fee, maker_fee=maker_fee)

    def place(
        self,
        account: int,
        side: Side,
        lots: int,
        price: int = 0,
        kind: OrderType = OrderType.LIMIT,
        budget: bool = False,
        following: int = 0,
    ) -> int:
        """Write a NEW; return the order's id."""
        order = self.command + 1
        self.add(
            EventKind.NEW, account=account, side=side, instrument=1, order_id=order, order_type=kind,
            price_ticks=price, quantity_lots=lots, leaves_lots=0 if budget else lots, following=following,
            flags=OrderFlags.QUOTE_BUDGET if budget else 0,
        )  # fmt: skip
        return order

    def follow(self, kind: EventKind, order: int, account: int = MAKER, instrument: int = 1) -> None:
        """Write CLIENT_ORDER_ID or ORDER_TERMS of an order."""
        text = {"client_order_id": b"more than 8"} if kind == EventKind.CLIENT_ORDER_ID else {"expiry_ns": 1 << 62}
        self.add(kind, same=True, order_id=order, account=account, instrument=instrument, **text)

    def trade(
        self,
        taker: tuple[int, int],
        maker: tuple[int, int],
        side: Side,
        lots: int,
        price: int,
        *,
        cum: tuple[int, int],
        leaves: tuple[int, int],
        taker_done: bool | None = None,
        wrong: dict[str, int] | None = None,
    ) -> None:
        """Write a trade of (account, order) pairs and its two fills; cum and leaves are (taker's, maker's) after it."""
        self.matches += 1
        notional = lots * price * self.scale
        common = {"instrument": 1, "price_ticks": price, "quantity_lots": lots, "match_id": self.matches}
        fees = {"taker_fee": fee(notional, self.taker_fee), "maker_fee": fee(notional, self.maker_fee)} | (wrong or {})
        self.add(
            EventKind.TRADE, same=True, side=side, account=taker[0], order_id=taker[1], counter_account=maker[0],
            counter_order_id=maker[1], **common, **fees,
        )  # fmt: skip
        done = leaves[0] == 0 if taker_done is None else taker_done
        for (account, order), own, at, finished in (
            (maker, Side(3 - side), 1, leaves[1] == 0),
            (taker, side, 0, done),
        ):
            kind = EventKind.FILLED if finished else EventKind.PARTIALLY_FILLED
            self.add(
                kind, same=True, side=own, account=account, order_id=order, **common, cum_lots=cum[at],
                leaves_lots=leaves[at],
            )  # fmt: skip

    def end(
        self,
        account: int,
        order: int,
        side: Side,
        quantity: int,
        cum: int,
        price: int = 0,
        kind: EventKind = EventKind.EXPIRED,
        reason: Reason = Reason.NO_LIQUIDITY,
        same: bool = True,
    ) -> None:
        """Write the end of an order."""
        self.add(
            kind, same=same, account=account, order_id=order, side=side, instrument=1, price_ticks=price,
            quantity_lots=quantity, cum_lots=cum, reason=reason,
        )  # fmt: skip

    @property
    def events(self) -> NDArray[np.void]:
        """Return everything written."""
        return np.concatenate(self.rows)
