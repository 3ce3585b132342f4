"""The oracle's `inspect`: the same queries as the engine's, in the same shapes. Changes nothing."""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import Side
from tests.oracle.state import State

ORDERS = np.dtype(
    [
        ("order_id", "<u8"),
        ("client_order_id", "S64"),
        ("account", "<u4"),
        ("instrument", "<u4"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("tif", "u1"),
        ("stp", "u1"),
        ("flags", "u1"),
        ("price_ticks", "<i8"),
        ("quantity_lots", "<i8"),
        ("cum_lots", "<i8"),
        ("leaves_lots", "<i8"),
        ("shown_lots", "<i8"),
        ("stop_price_ticks", "<i8"),
        ("display_lots", "<i8"),
        ("expiry_ns", "<i8"),
        ("session_id", "<u8"),
        ("priority", "<u8"),
        ("credential", "<u4"),
    ]
)
BALANCES = np.dtype([("account", "<u4"), ("asset", "<u4"), ("available", "<i8"), ("held", "<i8")])
ACCOUNTS = np.dtype(
    [
        ("account", "<u4"),
        ("status", "u1"),
        ("max_open_orders", "<u4"),
        ("max_open_notional", "<i8"),
        ("max_order_notional", "<i8"),
        ("max_order_quantity", "<i8"),
        ("firm", "<u4"),
    ]
)
CREDENTIALS = np.dtype(
    [
        ("number", "<u4"),
        ("key", "V32"),
        ("networks", "V64"),
        ("prefixes", "<u4"),
        ("permissions", "<u4"),
        ("expires_ns", "<i8"),
        ("subject", "<u4"),
        ("scope", "u1"),
        ("revoked", "u1"),
    ]
)
ASSETS = np.dtype([("asset", "<u4"), ("symbol", "S16"), ("decimals", "u1"), ("cap", "<i8"), ("supply", "<i8")])
INSTRUMENTS = np.dtype(
    [
        ("instrument", "<u4"),
        ("symbol", "S24"),
        ("base_asset", "<u4"),
        ("quote_asset", "<u4"),
        ("lot_units", "<u4"),
        ("scale_units", "<u4"),
        ("max_price_ticks", "<i8"),
        ("max_quantity_lots", "<i8"),
        ("status", "u1"),
        ("last_price_ticks", "<i8"),
        ("band_bp", "<u2"),
        ("taker_fee", "<u4"),
        ("maker_fee", "<i4"),
        ("min_price_ticks", "<i8"),
        ("min_quantity_lots", "<i8"),
        ("min_notional", "<i8"),
        ("max_notional", "<i8"),
        ("collar_bp", "<u2"),
        ("collar_reference", "u1"),
        ("rule_flags", "u1"),
    ]
)
SESSIONS = np.dtype(
    [
        ("session_id", "<u8"),
        ("account", "<u4"),
        ("flags", "u1"),
        ("closed", "u1"),
        ("last_request_id", "<u8"),
        ("answers", "<u4"),
        ("last_active_ns", "<i8"),
        ("credential", "<u4"),
    ]
)

Levels = list[tuple[int, int, int]]


class Inspect:
    def __init__(self, state: State) -> None:
        self.state = state

    def depth(self, instrument: int, levels: int) -> tuple[Levels, Levels]:
        """(price, lots, orders) of the best bids and the best asks; empty for an unknown instrument."""
        book = self.state.books.get(instrument)
        if book is None:
            return [], []
        return book.depth(Side.BUY, levels), book.depth(Side.SELL, levels)

    @property
    def killed(self) -> bool:
        return self.state.killed

    def orders(self, account: int | None = None, instrument: int | None = None) -> NDArray[np.void]:
        """Open orders by id, stop orders that wait among them."""
        rows = [
            (
                *(order.order_id, order.client_order_id, order.account, order.instrument),
                *(order.side, order.order_type, order.tif, order.stp, order.flags),
                *(order.price, order.quantity, order.cum, order.leaves, order.shown),
                *(*order.terms[:3], order.session_id, order.priority, order.terms.credential),
            )
            for _, order in sorted(self.state.orders.items())
            if account in (None, order.account) and instrument in (None, order.instrument)
        ]
        return np.array(rows, dtype=ORDERS)

    def balances(self, account: int | None = None) -> NDArray[np.void]:
        """Balances by account, then asset."""
        rows = [
            (balance.account, balance.asset, balance.available, balance.held)
            for _, balance in sorted(self.state.balances.items())
            if account in (None, balance.account)
        ]
        return np.array(rows, dtype=BALANCES)

    def positions(self, account: int) -> list[tuple[int, ...]]:
        """Return the account's positions where it owns some of the base or has an open order.

        A row is (account, instrument, base available and held, quote available and held, then orders, lots and notional
        of the open buys and of the open sells).
        """
        found = []
        for number, listed in sorted(self.state.instruments.items()):
            money = [
                (balance.available, balance.held) if balance else (0, 0)
                for balance in (
                    self.state.balances.get((account, asset)) for asset in (listed.base_asset, listed.quote_asset)
                )
            ]
            own = [
                order for order in self.state.orders.values() if (order.account, order.instrument) == (account, number)
            ]
            if not own and money[0] == (0, 0):
                continue
            row = [account, number, *money[0], *money[1]]
            for side in (Side.BUY, Side.SELL):
                orders = [order for order in own if order.side is side]
                row += [len(orders), sum(order.leaves for order in orders)]
                row.append(sum(listed.notional(order.price, order.leaves) for order in orders))
            found.append(tuple(row))
        return found

    def accounts(self) -> NDArray[np.void]:
        rows = [
            (account.account, account.status, *account.limits, account.firm)
            for _, account in sorted(self.state.accounts.items())
        ]
        return np.array(rows, dtype=ACCOUNTS)

    def credentials(self) -> NDArray[np.void]:
        """Credentials by number, those that are revoked among them."""
        rows = [
            (
                *(number, known.key, b"".join(network.address for network in known.networks)),
                *(known.prefixes, known.permissions, known.expires_ns),
                *(known.subject, known.scope, known.revoked),
            )
            for number, known in sorted(self.state.credentials.items())
        ]
        return np.array(rows, dtype=CREDENTIALS)

    def assets(self) -> NDArray[np.void]:
        rows = [
            (asset.asset, asset.symbol, asset.decimals, asset.cap, asset.supply)
            for _, asset in sorted(self.state.assets.items())
        ]
        return np.array(rows, dtype=ASSETS)

    def instruments(self) -> NDArray[np.void]:
        rows = [
            (
                *(listed.instrument, listed.symbol, listed.base_asset, listed.quote_asset),
                *(listed.lot_units, listed.scale_units, listed.max_price, listed.max_quantity, listed.status),
                *(listed.last_price or 0, *listed.rules),
            )
            for _, listed in sorted(self.state.instruments.items())
        ]
        return np.array(rows, dtype=INSTRUMENTS)

    def sessions(self) -> NDArray[np.void]:
        rows = [
            (
                *(session.session_id, session.account, session.flags, session.closed),
                *(session.last_request_id, session.window, session.last_active_ns, session.credential),
            )
            for _, session in sorted(self.state.sessions.items())
        ]
        return np.array(rows, dtype=SESSIONS)
