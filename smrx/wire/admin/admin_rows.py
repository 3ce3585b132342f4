"""Define the rows that admin replies carry: one struct for each table of the state, and for a node's peers."""

import msgspec


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An open order; codes as in smrx.wire.codes.

    `client_order_id` is text, "" if there is none. The terms are 0 where the order has none: `stop_price_ticks` of a
    pending stop order, `display_lots` of an iceberg order and its part that the public book shows (`shown_lots`),
    `expiry_ns` of a GTD order, since 1970. `session_id`: the session whose disconnect cancels the order, or 0.
    """

    order_id: int
    client_order_id: str
    account: int
    instrument: int
    side: int
    order_type: int
    tif: int
    flags: int
    price_ticks: int
    quantity_lots: int
    cum_lots: int
    leaves_lots: int
    stp: int = 0
    stop_price_ticks: int = 0
    display_lots: int = 0
    expiry_ns: int = 0
    shown_lots: int = 0
    session_id: int = 0


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account's balance of an asset in minimal units: available, and held by open orders."""

    account: int
    asset: int
    available: int
    held: int


class PositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account's position in an instrument, as smrx.engine.exposure.Position.

    The sums over open orders may exceed 64 bits, so they are decimal strings.
    """

    account: int
    instrument: int
    base_available: int
    base_held: int
    quote_available: int
    quote_held: int
    buy_orders: int
    buy_lots: str
    buy_notional: str
    sell_orders: int
    sell_lots: str
    sell_notional: str


class TransferRow(msgspec.Struct, frozen=True, kw_only=True):
    """An applied deposit or withdrawal; `kind` is its CommandKind, `amount` is in minimal units."""

    transfer_id: int
    account: int
    asset: int
    kind: int
    amount: int


class LevelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One price level of a book."""

    price_ticks: int
    quantity_lots: int
    orders: int


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account with its limits; 0 means no limit. Notionals in minimal quote units, the quantity in lots."""

    account: int
    status: int
    open_orders: int = 0
    max_open_orders: int = 0
    max_open_notional: int = 0
    max_order_notional: int = 0
    max_order_quantity: int = 0


class AssetRow(msgspec.Struct, frozen=True, kw_only=True):
    """An asset. `supply` and `cap` are in units of 10^-decimals; `cap` is the maximum supply, 0 = none."""

    asset: int
    symbol: str
    decimals: int
    supply: int
    cap: int = 0


class CredentialRow(msgspec.Struct, frozen=True, kw_only=True):
    """A credential; codes as in smrx.wire.codes. `key` in Z85; `networks` as text, with spaces between."""

    number: int
    key: str
    permissions: int
    scope: int
    subject: int
    expires_ns: int
    revoked: int
    networks: str = ""


class InstrumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument and its rules, named as in RULES_DETAILS; 0 means no such rule.

    One lot is `lot_units` base units; one tick times one lot is `scale_units` quote units. `last_price_ticks` is the
    price of the last trade, 0 before the first.
    """

    instrument: int
    symbol: str
    base_asset: int
    quote_asset: int
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


class AgreementStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the node's state compares with the majority's: AGREE, BEHIND, DIVERGED or NOT COMPARED, at `sequence`."""

    state: str
    sequence: int = 0


class RulesStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of the rules that a node's program can apply, and the one in force there."""

    oldest: int
    newest: int
    in_force: int


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another member, as the answering node sees it."""

    node_id: int
    connected: bool
    #: Log entries the peer lacks; None unless the answering node leads.
    lag_entries: int | None = None
    sequence: int | None = None
    state_hash: int | None = None
    learner: bool = False
    #: Seconds since the peer's last message; None if there was none.
    silent_s: float | None = None
    #: Why the peer cannot use the snapshots of the answering node, the leader; None if it can, as far as is known.
    refused_snapshot: str | None = None
    #: How far the peer's clock is ahead of the majority clock; None if it is not known.
    clock_offset_s: float | None = None
