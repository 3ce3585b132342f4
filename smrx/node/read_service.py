"""Answer the reads of the admin protocol from the state of this node, each in time that follows the size of its answer.

One reply has at most `PAGE_BYTES` of rows. A listing that does not fit is written by a forked child and then read page
by page (views.py), so that all pages are of one moment. Owns the check that a state is as new as its reader asks.
Changes nothing, sends nothing. Called by the admin service, which has checked who asks.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from zmq.utils import z85

from smrx.engine.exposure import Position
from smrx.engine.inspect import DTYPES, Page
from smrx.node.node_view import NodeView
from smrx.node.views import MAX_VIEWS, Refused, Views, Waiting
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode
from smrx.wire.networks import unpack_networks
from smrx.wire.records import NETWORKS

#: Rows of a reply: packing and sending more would keep the loop longer than its budget for reads.
PAGE_BYTES: Final = 128 << 10
#: Open orders of an account whose positions are summed up on the loop.
_POSITION_ORDERS: Final = 2048
#: Records of a table that is read as a whole on the loop.
_SMALL_TABLE: Final = 2048
#: Rows of a reply to a program that does not read packed rows, at 3 us each.
_STRUCTS: Final = 64

_REPLIES: Final[dict[type, Any]] = {
    admin.Orders: (admin.OrdersReply, admin.OrderRow),
    admin.Balances: (admin.BalancesReply, admin.BalanceRow),
    admin.Positions: (admin.PositionsReply, admin.PositionRow),
    admin.Transfers: (admin.TransfersReply, admin.TransferRow),
    admin.Accounts: (admin.AccountsReply, admin.AccountRow),
    admin.Assets: (admin.AssetsReply, admin.AssetRow),
    admin.Instruments: (admin.InstrumentsReply, admin.InstrumentRow),
    admin.Credentials: (admin.CredentialsReply, admin.CredentialRow),
}


class ReadService:
    """The reads of one node."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self._views = Views(pages=node.storage.snapshots.pages)
        #: By owner, of programs that name no views: the listing, its view, and whether a page of it was read.
        self._unnamed: dict[bytes, tuple[admin.PageRequest, str, bool]] = {}

    def at(self, *, linearizable: bool = False) -> dict[str, Any]:
        """Return what every reply says about the node and its state."""
        replica = self._node.replica
        age = 0.0 if linearizable else replica.state_age_seconds()
        return {
            "node_id": self._node.me.id,
            "sequence": self._node.state.engine.sequence,
            "role": replica.role,
            "age_ms": None if age == float("inf") else round(1000 * age, 3),
        }

    def error(self, code: AdminErrorCode, message: str) -> AdminError:
        """Return an error of this node."""
        return AdminError(**self.at(), code=code, message=message, leader_id=self._node.replica.leader_id)

    def refusal(self, request: admin.ReadRequest) -> AdminError | None:
        """Return why this node cannot answer a read at its level, whatever the state; None if it can."""
        node = self._node
        if node.fenced is not None:
            return self.error(AdminErrorCode.FENCED, f"{node.fenced}; ask another node")
        if request.level != "any" and not node.replica.is_leader:
            leader = node.replica.leader_id
            where = "no leader is known; ask again" if leader is None else f"ask node {leader}"
            return self.error(
                AdminErrorCode.NOT_LEADER, f"node {node.me.id} does not lead: {where}, or read at level any"
            )
        return None

    def staleness(self, request: admin.ReadRequest) -> AdminError | None:
        """Return why the state is not as new as a read asks, None if it is."""
        node_id, sequence = self._node.me.id, self._node.state.engine.sequence
        if sequence < request.min_sequence:
            return self.error(
                AdminErrorCode.UNAVAILABLE,
                f"node {node_id} is at command {sequence}, and the read asks for {request.min_sequence} or later; ask "
                "the leader, or ask again",
            )
        if request.level == "linearizable" or request.max_age_ms is None:
            return None
        age_ms = 1000 * self._node.replica.state_age_seconds()
        if age_ms <= request.max_age_ms:
            return None
        return self.error(
            AdminErrorCode.UNAVAILABLE,
            f"the state of node {node_id} may be {age_ms:.0f} ms old, and the read asks for at most "
            f"{request.max_age_ms:g} ms; ask another node, or read at level linearizable",
        )

    def answer(self, request: admin.ReadRequest, owner: bytes) -> admin.AnyReply:
        """Return the reply to a read that may be answered; `owner` is who may read on in a view."""
        if isinstance(request, admin.Depth):
            return self._depth(request)
        assert isinstance(request, admin.PageRequest)
        size = PAGE_BYTES // _dtype_of(request).itemsize if request.packed else _STRUCTS
        limit = min(request.limit, size)
        if request.view:
            return self._page_of_view(request, owner, request.view, limit)
        page = self._first_page(request, limit) if not request.offset else None
        if page is not None and (not page.more or len(page.rows) == request.limit):
            # All rows, or as many as the reader wants.
            return self._reply(request, page)
        return self._open_view(request, owner) if request.packed else self._page_without_name(request, owner, limit)

    def poll(self) -> None:
        """Notice the ends of children, and close the views that are no longer read. Call it in every turn."""
        if len(self._views):
            self._views.poll()

    def close(self) -> None:
        """Close the views."""
        self._views.close()

    def _reply(
        self, request: admin.PageRequest, page: Page, *, sequence: int | None = None, view: str = ""
    ) -> admin.AnyReply:
        at = self.at(linearizable=request.level == "linearizable")
        if sequence is not None:
            at["sequence"] = sequence
        reply_type, row_type = _REPLIES[type(request)]
        if request.packed:
            columns, data = admin.pack(page.rows)
            reply: admin.AnyReply = reply_type(**at, columns=columns, data=data, more=page.more, view=view)
        else:
            reply = reply_type(**at, rows=admin.rows(page.rows, row_type), more=page.more)
        return reply

    # Listings that do not fit one page.

    def _open_view(self, request: admin.PageRequest, owner: bytes) -> admin.AnyReply:
        """Begin to write a listing; the reply names it and has no rows yet."""
        opened = self._opened(request, owner)
        if isinstance(opened, Refused):
            return self.error(AdminErrorCode.UNAVAILABLE, opened.reason)
        return self._reply(request, Page(np.zeros(0, _dtype_of(request)), more=True), view=opened)

    def _page_of_view(self, request: admin.PageRequest, owner: bytes, view: str, limit: int) -> admin.AnyReply:
        # Who asks was checked for this kind of listing: a credential that lost READ must not read on as for assets.
        found = self._views.read(owner, view, request.offset, limit, _dtype_of(request))
        if isinstance(found, Refused):
            return self.error(AdminErrorCode.UNAVAILABLE, found.reason)
        if isinstance(found, Waiting):
            return self._reply(request, Page(np.zeros(0, _dtype_of(request)), more=True), view=view)
        return self._reply(request, Page(found.rows, found.more), sequence=found.sequence, view=view)

    def _page_without_name(self, request: admin.PageRequest, owner: bytes, limit: int) -> admin.AnyReply:
        """Return a page to a program that knows no views: of its connection's last view, if that is of this listing."""
        listing = msgspec.structs.replace(request, offset=0, limit=1, min_sequence=0, max_age_ms=None)
        known, view, is_read = self._unnamed.get(owner, (None, "", False))
        if known != listing or (is_read and not request.offset):
            opened = self._opened(request, owner)
            if isinstance(opened, Refused):
                return self.error(AdminErrorCode.UNAVAILABLE, opened.reason)
            self._unnamed = dict([*self._unnamed.items()][-MAX_VIEWS:]) | {owner: (listing, opened, False)}
            view = opened
        found = self._views.read(owner, view, request.offset, limit)
        if isinstance(found, Waiting):
            return self.error(AdminErrorCode.UNAVAILABLE, "the listing is being taken; ask again in a moment")
        if isinstance(found, Refused):
            self._unnamed.pop(owner, None)
            return self.error(AdminErrorCode.UNAVAILABLE, found.reason)
        self._unnamed[owner] = (listing, view, True)
        return self._reply(request, Page(found.rows, found.more), sequence=found.sequence)

    def _opened(self, request: admin.PageRequest, owner: bytes) -> str | Refused:
        inspect = self._node.state.engine.inspect
        table = type(request).__name__.lower()
        if isinstance(request, admin.Positions):
            account = request.account
            excluded: Sequence[NDArray[Any]] = ()

            def rows() -> Iterable[NDArray[Any]]:
                yield positions_table(inspect.positions(account))
        elif isinstance(request, admin.Credentials):
            excluded = ()

            def rows() -> Iterable[NDArray[Any]]:
                yield credentials_table(inspect.credentials())
        else:
            wanted = getattr(request, "account", None)
            instrument = getattr(request, "instrument", None)
            excluded = self._node.state.arrays_outside_listings(table)

            def rows() -> Iterable[NDArray[Any]]:
                yield from inspect.listing(table, account=wanted, instrument=instrument)

        return self._views.open(owner, _dtype_of(request), rows, excluded, self._node.state.engine.sequence)

    def _depth(self, request: admin.Depth) -> admin.AnyReply:
        inspect = self._node.state.engine.inspect
        wanted = request.instrument
        found = inspect.instrument_named(wanted) if isinstance(wanted, str) else inspect.instrument(wanted)
        if not len(found):
            return self.error(AdminErrorCode.UNKNOWN_INSTRUMENT, f"unknown instrument {wanted!r}")
        instrument, symbol = int(found["instrument"][0]), found["symbol"][0].decode("ascii", "replace")
        bids, asks = inspect.depth(instrument, request.levels)
        return admin.DepthReply(
            **self.at(linearizable=request.level == "linearizable"),
            instrument=instrument,
            symbol=symbol,
            bids=_levels(bids),
            asks=_levels(asks),
        )

    def _first_page(self, request: admin.PageRequest, limit: int) -> Page | None:
        """Return the first rows of a listing, in time that follows their number; None if they are not found so."""
        inspect = self._node.state.engine.inspect
        page: Page | None = None
        match request:
            case admin.Orders() if request.order_id is not None or request.client_order_id is not None:
                page = Page(self._one_order(request), more=False)
            case admin.Orders(account=int(account)):
                page = inspect.orders_of(account, limit=limit, instrument=request.instrument)
            case admin.Orders() | admin.Balances(account=None) | admin.Assets() | admin.Instruments():
                instrument = request.instrument if isinstance(request, admin.Orders) else None
                table = type(request).__name__.lower()
                rows = inspect.small_listing(table, most=_SMALL_TABLE, instrument=instrument)
                page = None if rows is None else Page(rows, more=False)
            case admin.Balances(account=int(account)):
                page = Page(inspect.balances_of(account), more=False)
            case admin.Positions(account=account):
                if inspect.open_order_count(account) <= _POSITION_ORDERS:
                    page = Page(positions_table(inspect.positions(account)), more=False)
            case admin.Transfers():
                newest_first = inspect.transfers_of(request.account, limit=limit)
                if not newest_first.more:
                    page = Page(np.sort(newest_first.rows, order="transfer_id"), more=False)
            case admin.Accounts(account=int(account)):
                page = Page(inspect.account(account), more=False)
            case admin.Accounts():
                opened_first = inspect.accounts_from(limit=limit)
                if opened_first is not None and not opened_first.more:
                    page = Page(np.sort(opened_first.rows, order="account"), opened_first.more)
            case admin.Credentials():
                if inspect.counts()["credentials"] <= limit:
                    page = Page(credentials_table(inspect.credentials()), more=False)
        return None if page is None or len(page.rows) > limit else page

    def _one_order(self, request: admin.Orders) -> NDArray[Any]:
        """Return the open order with one of its two ids, if it is of the account and the instrument."""
        inspect = self._node.state.engine.inspect
        if request.order_id is not None:
            found = inspect.order(request.order_id)
        elif request.account is not None and request.client_order_id is not None:
            found = inspect.client_order(request.account, request.client_order_id)
        else:
            # A client order id is unique within its account.
            found = inspect.order(0)
        for name, wanted in (("account", request.account), ("instrument", request.instrument)):
            if wanted is not None:
                found = found[found[name] == wanted]
        if request.client_order_id is not None:
            found = found[found["client_order_id"] == request.client_order_id.encode("ascii")]
        return found


#: An account's position in an instrument. The sums may exceed 64 bits, so they are text.
_POSITION: Final = np.dtype(
    [
        ("account", "<u4"), ("instrument", "<u4"), ("base_available", "<i8"), ("base_held", "<i8"),
        ("quote_available", "<i8"), ("quote_held", "<i8"), ("buy_orders", "<i8"), ("buy_lots", "S40"),
        ("buy_notional", "S40"), ("sell_orders", "<i8"), ("sell_lots", "S40"), ("sell_notional", "S40"),
    ]
)  # fmt: skip


def positions_table(found: Sequence[Position]) -> NDArray[Any]:
    """Return positions as records."""
    table = np.zeros(len(found), _POSITION)
    for at, position in enumerate(found):
        for name, value in position._asdict().items():
            table[name][at] = str(value).encode() if name.endswith(("_lots", "_notional")) else value
    return table


#: A credential with its key and its networks as text.
_CREDENTIAL: Final = np.dtype(
    [
        ("number", "<u4"), ("key", "S40"), ("permissions", "<u4"), ("scope", "u1"), ("subject", "<u4"),
        ("expires_ns", "<i8"), ("revoked", "u1"), ("networks", "S192"),
    ]
)  # fmt: skip


def credentials_table(found: NDArray[Any]) -> NDArray[Any]:
    """Return credentials as records that a reply can have."""
    table = np.zeros(len(found), _CREDENTIAL)
    for name in ("number", "permissions", "scope", "subject", "expires_ns", "revoked"):
        table[name] = found[name]
    for at, row in enumerate(found):
        table["key"][at] = z85.encode(row["key"].tobytes())
        prefixes = int(row["prefixes"]).to_bytes(NETWORKS, "little")
        table["networks"][at] = " ".join(unpack_networks(row["networks"].tobytes(), prefixes)).encode("ascii")
    return table


def _dtype_of(request: admin.PageRequest) -> "np.dtype[Any]":
    """Return the type of a packed row."""
    if isinstance(request, admin.Credentials):
        return _CREDENTIAL
    return _POSITION if isinstance(request, admin.Positions) else DTYPES[type(request).__name__.lower()]


def _levels(levels: Iterable[tuple[int, int, int]]) -> tuple[admin.LevelRow, ...]:
    return tuple(admin.LevelRow(price_ticks=p, quantity_lots=q, orders=n) for p, q, n in levels)
