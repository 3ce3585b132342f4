"""Rebuild orders, books, balances, rules, limits and statuses from the events alone.

Settlement and order history depend on this being possible. The reader sees no command and no state. Beyond the events
it needs two rules: what an open order holds, which follows from the instrument, and how an iceberg shows its lots.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import (
    AccountStatus,
    EventKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Permission,
    Reason,
    Scope,
    Side,
)
from smrx.wire.records import EVENT_LAYOUTS

Fields = dict[str, Any]
#: Set in the 64-bit form of a client order id of more than 8 characters.
LONG_ID = 1 << 63
VENUE = 0


@dataclass
class ListedInstrument:
    """An instrument as announced, with its later changes."""

    symbol: bytes
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int
    status: int = InstrumentStatus.TRADING
    last_price_ticks: int = 0
    taker_fee: int = 0
    maker_fee: int = 0
    band_bp: int = 0
    min_price_ticks: int = 0
    min_quantity_lots: int = 0
    min_notional: int = 0
    max_notional: int = 0
    collar_bp: int = 0
    collar_reference: int = 0
    rule_flags: int = 0


@dataclass
class OpenOrder:
    """An open order: in a book, or a pending stop."""

    order_id: int
    client_order_id: bytes
    account: int
    instrument: int
    side: int
    order_type: int
    tif: int
    stp: int
    flags: int
    price_ticks: int
    quantity_lots: int
    session_id: int
    priority: int
    stop_price_ticks: int = 0
    display_lots: int = 0
    expiry_ns: int = 0
    #: The credential of the person behind it, whom a gateway named; 0 for none.
    credential: int = 0
    cum_lots: int = 0
    shown_lots: int = 0

    @property
    def leaves_lots(self) -> int:
        return 0 if self.flags & OrderFlags.QUOTE_BUDGET else self.quantity_lots - self.cum_lots

    @property
    def is_stop(self) -> bool:
        return self.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)

    def show(self) -> None:
        """Show an iceberg's next part; a pending stop order shows nothing."""
        self.shown_lots = 0 if self.is_stop else min(self.display_lots, self.leaves_lots)


@dataclass
class Funds:
    """A balance."""

    available: int = 0
    held: int = 0


@dataclass
class AccountRecord:
    """An account: its status, its limits in the order of the event's fields, and its firm."""

    status: int = AccountStatus.ACTIVE
    limits: tuple[int, int, int, int] = (0, 0, 0, 0)
    firm: int = 0


@dataclass
class CredentialRecord:
    """A credential: what it was added with, and what it has now."""

    key: bytes
    scope: int
    subject: int
    permissions: int
    expires_ns: int
    networks: bytes = bytes(64)
    prefixes: int = 0
    revoked: bool = False


@dataclass
class EventReader:
    """Reads the events of whole commands in order, and offers the rebuilt state."""

    sequence: int = 0
    match_id: int = 0
    command_sequence: int = 0
    killed: bool = False
    #: Of the first event; 2 knows credentials.
    rules_version: int = 1
    orders: dict[int, OpenOrder] = field(default_factory=dict)
    balances: dict[tuple[int, int], Funds] = field(default_factory=dict)
    accounts: dict[int, AccountRecord] = field(default_factory=lambda: {VENUE: AccountRecord()})
    #: Symbol, decimals and supply cap.
    assets: dict[int, tuple[bytes, int, int]] = field(default_factory=dict)
    instruments: dict[int, ListedInstrument] = field(default_factory=dict)
    #: Account, flags, whether it is closed, and the credential that it belongs to.
    sessions: dict[int, tuple[int, int, bool, int]] = field(default_factory=dict)
    credentials: dict[int, CredentialRecord] = field(default_factory=dict)
    #: The order that is being matched and is in no book yet.
    taker_order: OpenOrder | None = None
    #: The event that the next ones belong to, and how many of them are still to come.
    followed: Fields = field(default_factory=dict)
    to_follow: int = 0
    #: The orders whose fills must follow the last trade: the maker's, then the taker's.
    unfilled: list[int] = field(default_factory=list)

    def read(self, events: NDArray[np.void]) -> None:
        """Read events; raises AssertionError if they contradict each other."""
        for event in events:
            self.sequence += 1
            assert event["sequence"] == self.sequence, f"expected event {self.sequence}, found {event['sequence']}"
            if event["command_sequence"] != self.command_sequence:
                self._finish_matching()
                self.command_sequence = int(event["command_sequence"])
            kind = EventKind(int(event["kind"]))
            record = np.frombuffer(event.tobytes(), EVENT_LAYOUTS[kind])[0]
            fields = {name: record[name].item() for name in record.dtype.names or ()}
            self._check_following(kind, fields)
            self._check_who(kind, fields)
            handler = _HANDLERS.get(kind)
            if handler is not None:
                handler(self, fields)
        assert self.to_follow == 0, f"{self.to_follow} events are missing after {self.followed}"
        assert self.unfilled == [], f"fills of {self.unfilled} are missing"
        self._finish_matching()

    def depth(self, instrument: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return bids and asks as (price, shown lots, orders), best first."""
        sides: dict[int, dict[int, tuple[int, int]]] = {Side.BUY: {}, Side.SELL: {}}
        for order in self.orders.values():
            if order.instrument == instrument and not order.is_stop:
                lots, count = sides[order.side].get(order.price_ticks, (0, 0))
                shown = order.shown_lots if order.display_lots else order.leaves_lots
                sides[order.side][order.price_ticks] = lots + shown, count + 1
        bids, asks = sorted(sides[Side.BUY].items(), reverse=True), sorted(sides[Side.SELL].items())
        return [(price, *level) for price, level in bids], [(price, *level) for price, level in asks]

    def supply(self, asset: int) -> int:
        return sum(money.available + money.held for key, money in self.balances.items() if key[1] == asset)

    def _check_following(self, kind: EventKind, event: Fields) -> None:
        """Check that the events which belong to another one follow it, and nothing else does."""
        if kind in (EventKind.PARTIALLY_FILLED, EventKind.FILLED):
            assert self.unfilled[:1] == [event["order_id"]], f"a fill of {event['order_id']}, expected {self.unfilled}"
            del self.unfilled[0]
        else:
            assert self.unfilled == [], f"{kind.name} comes before the fills of {self.unfilled}"
        if kind in BELONGING:
            assert self.to_follow > 0, f"{kind.name} follows no event"
            self.to_follow -= 1
            for name in (*BELONGING[kind], "session_id", "request_id", "command_sequence"):
                assert event[name] == self.followed[name], f"{kind.name} has another {name} than the event before it"
        else:
            assert self.to_follow == 0, f"{kind.name} comes before what belongs to {self.followed}"
            self.followed, self.to_follow = event, event.get("following", 0)

    def _check_who(self, kind: EventKind, event: Fields) -> None:
        """Check who did it: the session's credential, or a person whom its gateway may name; 0 for what time causes."""
        who = 0 if kind is EventKind.ORDER_TERMS else event.get("credential", 0)
        if kind is EventKind.SESSION_EXPIRED or event.get("reason") == Reason.TIME_REACHED:
            assert who == 0, f"{kind.name} is caused by time, and has credential {who}"
        elif kind is not EventKind.REJECTED and "credential" in event and event["session_id"] in self.sessions:
            account, _, _, own = self.sessions[event["session_id"]]
            # The leader's node disconnects; the session itself is closed by its credential, with the same reason.
            by_node = kind is EventKind.SESSION_DISCONNECTED or event.get("reason") == Reason.DISCONNECTED
            if kind is not EventKind.ORDER_TERMS and who != own and not (by_node and who == 0):
                gateway = self.credentials[own].permissions & Permission.GATEWAY if own else account == VENUE
                assert gateway, f"credential {own} acts for {who}, and may not"
                person = self.credentials[who]
                assert person.permissions & Permission.TRADE, f"{who} is behind an order, and may not trade"
                assert not person.revoked, f"{who} is behind an order, and is revoked"

    # Balances.

    def _pay(self, account: int, asset: int, amount: int) -> None:
        """Add to the available balance; an amount of 0 creates no balance."""
        if amount:
            self.balances.setdefault((account, asset), Funds()).available += amount

    def _hold(self, order: OpenOrder, lots: int) -> None:
        """Hold what so many lots of the order need; negative lots release it."""
        listed = self.instruments[order.instrument]
        if order.side == Side.SELL:
            asset, amount = listed.base_asset, lots * listed.lot_units
        else:
            # Market and stop orders that buy have no price and hold nothing.
            one = order.price_ticks * listed.scale_units
            asset, amount = listed.quote_asset, lots * (one + -(-one * listed.taker_fee // 1_000_000))
        if amount:
            money = self.balances[order.account, asset]
            money.available -= amount
            money.held += amount

    # Orders.

    def _start_matching(self, order: OpenOrder, event: Fields) -> None:
        """Start matching an order: if it comes to rest, its priority is this event."""
        self._finish_matching()
        order.priority = event["sequence"]
        order.shown_lots = 0
        self.taker_order = order

    def _finish_matching(self) -> None:
        """Put the order that was matched last into its book, if it is still open."""
        if self.taker_order is not None and self.taker_order.order_id in self.orders:
            self.taker_order.show()
        self.taker_order = None

    def _new(self, event: Fields) -> None:
        _, flags, _, _ = self.sessions[event["session_id"]]
        form = event["client_order_id"]
        text = b"" if form & LONG_ID else form.to_bytes(8, "little").rstrip(b"\0")
        order = OpenOrder(
            *(event["order_id"], text, event["account"], event["instrument"], event["side"]),
            *(event["order_type"], event["tif"], event["stp"], event["flags"], event["price_ticks"]),
            *(event["quantity_lots"], event["session_id"] if flags else 0, 0),
        )
        assert order.order_id not in self.orders, f"order {order.order_id} is new twice"
        assert event["leaves_lots"] == order.leaves_lots
        self.orders[order.order_id] = order
        self._hold(order, order.leaves_lots)
        self._start_matching(order, event)

    def _client_order_id(self, event: Fields) -> None:
        """Learn a long id; that of a rejected command, or of an order that ended at once, is of no use."""
        assert self.followed["client_order_id"] & LONG_ID
        assert len(event["client_order_id"]) > 8
        if self.followed["kind"] == EventKind.NEW:
            self.orders[event["order_id"]].client_order_id = event["client_order_id"]

    def _order_terms(self, event: Fields) -> None:
        if self.followed["kind"] == EventKind.NEW:
            order = self.orders[event["order_id"]]
            order.stop_price_ticks, order.display_lots = event["stop_price_ticks"], event["display_lots"]
            order.expiry_ns, order.credential = event["expiry_ns"], event["credential"]

    def _triggered(self, event: Fields) -> None:
        order = self.orders[event["order_id"]]
        assert order.is_stop
        assert (event["price_ticks"], event["quantity_lots"], event["cum_lots"]) == (
            *(order.price_ticks, order.quantity_lots, order.cum_lots),
        )
        order.order_type, order.stop_price_ticks = event["order_type"], 0
        self._start_matching(order, event)

    def _trade(self, event: Fields) -> None:
        self.match_id += 1
        assert event["match_id"] == self.match_id, f"expected match {self.match_id}, found {event['match_id']}"
        taker, maker = self.orders[event["order_id"]], self.orders[event["counter_order_id"]]
        assert taker is self.taker_order
        self.unfilled = [maker.order_id, taker.order_id]
        assert (taker.account, maker.account) == (event["account"], event["counter_account"])
        assert (taker.side, taker.side + maker.side) == (event["side"], Side.BUY + Side.SELL)
        listed = self.instruments[event["instrument"]]
        lots, price = event["quantity_lots"], event["price_ticks"]
        taker_fee, maker_fee = event["taker_fee"], event["maker_fee"]
        listed.last_price_ticks = price
        for order, fee in ((taker, taker_fee), (maker, maker_fee)):
            # Release what the fill held, then transfer it.
            if not order.flags & OrderFlags.QUOTE_BUDGET:
                self._hold(order, -lots)
            sign = 1 if order.side == Side.BUY else -1
            self._pay(order.account, listed.quote_asset, -sign * lots * price * listed.scale_units - fee)
            self._pay(order.account, listed.base_asset, sign * lots * listed.lot_units)
            order.cum_lots += lots
        self._pay(VENUE, listed.quote_asset, taker_fee + maker_fee)

    def _fill(self, event: Fields) -> None:
        order = self.orders[event["order_id"]]
        assert event["match_id"] == self.match_id
        assert (order.cum_lots, order.leaves_lots) == (event["cum_lots"], event["leaves_lots"])
        if event["kind"] == EventKind.FILLED:
            assert order.leaves_lots == 0
            del self.orders[order.order_id]
        elif order is not self.taker_order and order.display_lots:
            order.shown_lots -= event["quantity_lots"]
            assert order.shown_lots >= 0
            if order.shown_lots == 0:
                order.show()
                order.priority = event["sequence"]

    def _ended(self, event: Fields) -> None:
        # An unfillable fill-or-kill order expires without a NEW event.
        order = self.orders.pop(event["order_id"], None)
        if order is None:
            assert event["kind"] == EventKind.EXPIRED
            assert (event["cum_lots"], event["reason"]) == (0, Reason.FOK_UNFILLABLE)
            return
        budget = order.flags & OrderFlags.QUOTE_BUDGET
        quantity = order.cum_lots if budget else order.quantity_lots
        assert (quantity, order.cum_lots) == (event["quantity_lots"], event["cum_lots"])
        self._hold(order, -order.leaves_lots)

    def _replaced(self, event: Fields) -> None:
        order = self.orders[event["order_id"]]
        price, quantity = event["price_ticks"], event["quantity_lots"]
        keeps_place = price == order.price_ticks and quantity < order.quantity_lots
        assert keeps_place or event["reason"] == Reason.NONE
        self._hold(order, -order.leaves_lots)
        order.price_ticks, order.quantity_lots = price, quantity
        self._hold(order, order.leaves_lots)
        assert (order.cum_lots, order.leaves_lots) == (event["cum_lots"], event["leaves_lots"])
        if keeps_place:
            order.shown_lots = min(order.shown_lots, order.leaves_lots)
        elif not order.is_stop:
            self._start_matching(order, event)

    # Transfers.

    def _deposited(self, event: Fields) -> None:
        self._transfer(event, event["amount"])

    def _withdrawn(self, event: Fields) -> None:
        self._transfer(event, -event["amount"])

    def _transfer(self, event: Fields, amount: int) -> None:
        self._pay(event["account"], event["asset"], amount)
        assert self.balances[event["account"], event["asset"]].available == event["available_after"]

    # Accounts and sessions.

    def _account_opened(self, event: Fields) -> None:
        self.accounts[event["account"]] = AccountRecord(firm=event["firm"])

    def _account_suspended(self, event: Fields) -> None:
        self.accounts[event["account"]].status = AccountStatus.SUSPENDED

    def _account_resumed(self, event: Fields) -> None:
        self.accounts[event["account"]].status = AccountStatus.ACTIVE

    def _limits_set(self, event: Fields) -> None:
        self.accounts[event["account"]].limits = (
            *(event["max_open_orders"], event["max_open_notional"]),
            *(event["max_order_notional"], event["max_order_quantity"]),
        )

    def _session_opened(self, event: Fields) -> None:
        known = self.sessions.get(event["session_id"])
        assert known is None or (known[0] == event["account"] and known[2]), "a session is opened twice"
        credential = event["credential"]
        assert credential in (0, event["session_id"] >> 32), "a session of another credential"
        self.sessions[event["session_id"]] = event["account"], event["flags"], False, credential

    def _session_closed(self, event: Fields) -> None:
        self._session_disconnected(event)
        account, flags, _, credential = self.sessions[event["session_id"]]
        self.sessions[event["session_id"]] = account, flags, True, credential

    def _session_expired(self, event: Fields) -> None:
        self._session_disconnected(event)
        del self.sessions[event["session_id"]]

    def _session_disconnected(self, event: Fields) -> None:
        assert self.sessions[event["session_id"]][0] == event["account"]
        left = [order.order_id for order in self.orders.values() if order.session_id == event["session_id"]]
        assert left == [], f"session {event['session_id']} ended, but its orders {left} are open"

    # Credentials. `credential` of an event is who did it, `number` which credential it is about.

    def _credential_added(self, event: Fields) -> None:
        assert event["number"] not in self.credentials, f"credential {event['number']} is added twice"
        assert all(known.key != event["key"] for known in self.credentials.values()), "a key is added twice"
        assert event["account"] == (event["subject"] if event["scope"] == Scope.ACCOUNT else 0)
        self.credentials[event["number"]] = CredentialRecord(
            *(event["key"], event["scope"], event["subject"], event["permissions"], event["expires_ns"]),
        )

    def _credential_set(self, event: Fields) -> None:
        known = self._same_credential(event)
        known.permissions, known.expires_ns = event["permissions"], event["expires_ns"]
        known.networks, known.prefixes = bytes(64), 0

    def _credential_revoked(self, event: Fields) -> None:
        known = self._same_credential(event)
        assert (known.permissions, known.expires_ns) == (event["permissions"], event["expires_ns"])
        known.revoked = True

    def _same_credential(self, event: Fields) -> CredentialRecord:
        known = self.credentials[event["number"]]
        assert not known.revoked, f"credential {event['number']} is changed after it was revoked"
        assert (known.key, known.scope, known.subject) == (event["key"], event["scope"], event["subject"])
        return known

    def _credential_networks(self, event: Fields) -> None:
        known = self.credentials[event["number"]]
        known.networks, known.prefixes = event["networks"], int.from_bytes(event["prefixes"], "little")

    # The venue.

    def _asset_added(self, event: Fields) -> None:
        self.assets[event["asset"]] = event["symbol"], event["decimals"], event["supply_cap"]

    def _instrument_added(self, event: Fields) -> None:
        self.instruments[event["instrument"]] = ListedInstrument(
            *(event["symbol"], event["base_asset"], event["quote_asset"], event["lot_units"]),
            *(event["scale_units"], event["max_price_ticks"], event["max_quantity_lots"]),
        )

    def _rules_set(self, event: Fields) -> None:
        listed = self.instruments[event["instrument"]]
        for name in RULES:
            setattr(listed, name, event[name])

    def _status_set(self, event: Fields) -> None:
        self.instruments[event["instrument"]].status = event["status"]

    def _version_set(self, event: Fields) -> None:
        self.rules_version = event["version"]

    def _killed(self, event: Fields) -> None:
        self.killed = event["kind"] == EventKind.KILLED


#: What an event that belongs to another one repeats of it.
BELONGING = {
    EventKind.CLIENT_ORDER_ID: ("order_id", "instrument", "account"),
    EventKind.ORDER_TERMS: ("order_id", "instrument", "account"),
    EventKind.CREDENTIAL_NETWORKS: ("number", "account"),
}

#: The rules of an instrument, as they are named in the event and here.
RULES = (
    *("taker_fee", "maker_fee", "band_bp", "min_price_ticks", "min_quantity_lots", "min_notional", "max_notional"),
    *("collar_bp", "collar_reference", "rule_flags"),
)

_HANDLERS: dict[int, Any] = {
    EventKind.NEW: EventReader._new,
    EventKind.CLIENT_ORDER_ID: EventReader._client_order_id,
    EventKind.ORDER_TERMS: EventReader._order_terms,
    EventKind.TRIGGERED: EventReader._triggered,
    EventKind.TRADE: EventReader._trade,
    EventKind.PARTIALLY_FILLED: EventReader._fill,
    EventKind.FILLED: EventReader._fill,
    EventKind.CANCELLED: EventReader._ended,
    EventKind.EXPIRED: EventReader._ended,
    EventKind.REPLACED: EventReader._replaced,
    EventKind.DEPOSITED: EventReader._deposited,
    EventKind.WITHDRAWN: EventReader._withdrawn,
    EventKind.ACCOUNT_OPENED: EventReader._account_opened,
    EventKind.ACCOUNT_SUSPENDED: EventReader._account_suspended,
    EventKind.ACCOUNT_RESUMED: EventReader._account_resumed,
    EventKind.LIMITS_SET: EventReader._limits_set,
    EventKind.SESSION_OPENED: EventReader._session_opened,
    EventKind.SESSION_CLOSED: EventReader._session_closed,
    EventKind.SESSION_DISCONNECTED: EventReader._session_disconnected,
    EventKind.SESSION_EXPIRED: EventReader._session_expired,
    EventKind.ASSET_ADDED: EventReader._asset_added,
    EventKind.INSTRUMENT_ADDED: EventReader._instrument_added,
    EventKind.RULES_SET: EventReader._rules_set,
    EventKind.STATUS_SET: EventReader._status_set,
    EventKind.KILLED: EventReader._killed,
    EventKind.VERSION_SET: EventReader._version_set,
    EventKind.REVIVED: EventReader._killed,
    EventKind.CREDENTIAL_ADDED: EventReader._credential_added,
    EventKind.CREDENTIAL_SET: EventReader._credential_set,
    EventKind.CREDENTIAL_REVOKED: EventReader._credential_revoked,
    EventKind.CREDENTIAL_NETWORKS: EventReader._credential_networks,
}
