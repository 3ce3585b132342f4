"""The admin protocol: what operators, the CLI and the SDK ask any node, and what it answers.

Rules:

- One message is 8 bytes of request id (little-endian, chosen by the asker, echoed), then one tagged msgpack struct.
- Unknown fields are skipped and missing ones take their default, so that versions can be mixed.
- Sizes are bounded both ways; a list that is cut says so (`more`) and the asker goes on from `offset`.
- Decoders raise FrameError (the peer's fault) and nothing else. No sockets, no clock, no state.

`sequence` in a reply is the last command the answering node had applied: an answer from any node is true as of it.
"""

from enum import IntEnum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from smrx.config import NodeConfig
from smrx.wire.frames import ErrorCode, FrameError
from smrx.wire.state_image import StreamPosition

#: A request is a few small fields.
MAX_REQUEST_BYTES: Final = 4096
#: MAX_ROWS rows of the widest kind stay below it.
MAX_REPLY_BYTES: Final = 8 << 20
#: Rows a reply may carry.
MAX_ROWS: Final = 10_000
#: Levels a side of a book in one reply.
MAX_LEVELS: Final = 1000

_ID_SIZE: Final = 8

Rows = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
Levels = Annotated[int, msgspec.Meta(ge=1, le=MAX_LEVELS)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
#: Identifiers and sequences as the engine holds them.
U32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=8)]


class AdminErrorCode(IntEnum):
    """Why a request was not answered."""

    MALFORMED = 1
    #: Only the leader can answer; ask the node in AdminError.leader_id.
    NOT_LEADER = 2
    #: Not allowed here (corruption without the flag it needs).
    REFUSED = 3
    UNKNOWN_INSTRUMENT = 4
    #: The node lost its leadership before it could answer; ask again.
    LOST_LEADERSHIP = 5
    FENCED = 6
    #: Cannot be done now (a snapshot that is under way); ask again later.
    UNAVAILABLE = 7


# Requests


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What may be asked."""


class PageRequest(Request, frozen=True, kw_only=True):
    """A request for rows: `limit` of them after the first `offset`, in the order of their ids."""

    offset: Natural = 0
    limit: Rows = MAX_ROWS


class Status(Request, frozen=True, kw_only=True):
    """How are you? Answered by NodeStatus."""


class HashAt(Request, frozen=True, kw_only=True):
    """The state hash after one command. Answered by HashReply."""

    at: Natural


class LogDigest(Request, frozen=True, kw_only=True):
    """What two nodes must agree on after the same commands. Answered by LogDigestReply."""


class Depth(Request, frozen=True, kw_only=True):
    """The book of an instrument, by id or symbol. Answered by DepthReply."""

    instrument: U32 | Symbol
    levels: Levels = 10


class Orders(PageRequest, frozen=True, kw_only=True):
    """Open orders, of one account and one instrument if named. Answered by OrdersReply."""

    account: U32 | None = None
    instrument: U32 | None = None


class Balances(PageRequest, frozen=True, kw_only=True):
    """Balances, of one account if named. Answered by BalancesReply."""

    account: U32 | None = None


class Positions(PageRequest, frozen=True, kw_only=True):
    """What an account has in each instrument. Answered by PositionsReply."""

    account: U32


class Transfers(PageRequest, frozen=True, kw_only=True):
    """Deposits and withdrawals of an account. Answered by TransfersReply."""

    account: U32


class Accounts(PageRequest, frozen=True, kw_only=True):
    """Every account, or the one that is named. Answered by AccountsReply."""

    account: U32 | None = None


class Assets(PageRequest, frozen=True, kw_only=True):
    """Answered by AssetsReply."""


class Instruments(PageRequest, frozen=True, kw_only=True):
    """Answered by InstrumentsReply."""


class TakeStateImage(Request, frozen=True, kw_only=True):
    """Hold a state image (see state_image.py) as of the first log entry that applies command `at`.

    Answered by StateImageReply, at once; ask again until it is held.
    """

    at: Natural


class ReadStateImage(Request, frozen=True, kw_only=True):
    """A part of the state image held for `at`, from a byte on. Answered by StateImagePart, or UNAVAILABLE."""

    at: Natural
    offset: Natural = 0


class Barrier(Request, frozen=True, kw_only=True):
    """Answer when everything submitted before is applied. Leader only; answered by BarrierReply."""


class Snapshot(Request, frozen=True, kw_only=True):
    """Take a snapshot and compact the log. Answered by SnapshotReply, at once; NodeStatus says when it is whole."""


class AddMember(Request, frozen=True, kw_only=True):
    """Make a node a member; it gets its vote once it has the log. Leader only; answered by MembersReply."""

    node: NodeConfig


class RemoveMember(Request, frozen=True, kw_only=True):
    """Make a node no member. Leader only, and never the leader itself; answered by MembersReply."""

    node_id: int


class TransferLeadership(Request, frozen=True, kw_only=True):
    """Let another member lead: the one named, or the one that has most of the log. Leader only.

    Answered by TransferLeadershipReply before it is done; the status tells who leads.
    """

    successor: int | None = None


class Corrupt(Request, frozen=True, kw_only=True):
    """Damage a balance in memory, for tests of agreement; refused unless the node was started for it.

    Answered by CorruptReply.
    """

    account: U32
    asset: U32
    delta: int


class Shutdown(Request, frozen=True, kw_only=True):
    """End after this turn. Answered by ShutdownReply."""


AnyPage = Orders | Balances | Positions | Transfers | Accounts | Assets | Instruments
AnyRequest = (
    Status
    | HashAt
    | LogDigest
    | Depth
    | Orders
    | Balances
    | Positions
    | Transfers
    | Accounts
    | Assets
    | Instruments
    | TakeStateImage
    | ReadStateImage
    | Barrier
    | Snapshot
    | TransferLeadership
    | AddMember
    | RemoveMember
    | Corrupt
    | Shutdown
)


# Rows


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One open order; codes as in smrx.wire.codes, `extra` as the extra word of a PLACE.

    `shown_lots`: of an iceberg, what the public book shows. `session_id`: the session that takes it along when it
    disconnects, 0 if none does.
    """

    order_id: int
    client_order_id: int
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
    extra: int = 0
    shown_lots: int = 0
    session_id: int = 0


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an account owns of an asset, in minimal units: free to use, and held by its open orders."""

    account: int
    asset: int
    available: int
    held: int


class PositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has in an instrument, as smrx.engine.exposure.Position says.

    Lots and notionals of all open orders may pass 64 bits: they are written as decimal digits.
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
    """A deposit or withdrawal (CommandKind) that was made, in minimal units."""

    transfer_id: int
    account: int
    asset: int
    kind: int
    amount: int


class LevelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One price of a book."""

    price_ticks: int
    quantity_lots: int
    orders: int


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account, its open orders and its limits (0 = none): amounts in quote units, the quantity in lots."""

    account: int
    status: int
    open_orders: int = 0
    max_open_orders: int = 0
    max_open_notional: int = 0
    max_order_notional: int = 0
    max_order_quantity: int = 0


class AssetRow(msgspec.Struct, frozen=True, kw_only=True):
    """`decimals` digits of `supply` stand behind the point; `cap` is the most that may exist, 0 = no cap."""

    asset: int
    symbol: str
    decimals: int
    supply: int
    cap: int = 0


class InstrumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """`lot_units` base units in a lot; one tick times one lot is worth `scale_units` quote units.

    Rules as in RULES_COMMAND, 0 = none; `last_price_ticks` is that of the last trade, 0 before the first.
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
    min_price_ticks: int = 0
    min_quantity_lots: int = 0
    min_notional: int = 0
    max_notional: int = 0


class AgreementStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a node's state compares with the majority's: AGREE, BEHIND, DIVERGED or NOT COMPARED, at which command."""

    state: str
    sequence: int = 0


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of another member."""

    node_id: int
    connected: bool
    #: Log entries the leader knows it to be short of; None where that is not known (the answering node does not lead).
    lag_entries: int | None = None
    sequence: int | None = None
    state_hash: int | None = None
    learner: bool = False
    #: Seconds since its last message; None if there was none.
    silent_s: float | None = None


# Replies

Row = TypeVar("Row")


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Who answers, and the last command applied there."""

    node_id: int
    sequence: int


class AdminError(Reply, frozen=True, kw_only=True):
    """Why there is no answer: one sentence for people, a code for programs."""

    code: int
    message: str
    leader_id: int | None = None


class NodeStatus(Reply, frozen=True, kw_only=True):
    """Everything `cluster status` shows of a node."""

    cluster: str
    role: str
    term: int
    leader_id: int | None
    commit_index: int
    applied_index: int
    last_log_index: int
    event_sequence: int
    trades: int
    state_hash: int
    agreement: AgreementStatus
    fenced: str | None = None
    waiting: str | None = None
    first_divergent_sequence: int | None = None
    #: Nodes whose state a majority with this one contradicts, and the first command after which it does.
    diverged: dict[int, int] = {}
    peers: tuple[PeerStatus, ...] = ()
    uptime_s: float = 0.0
    orders_open: int = 0
    accounts: int = 0
    #: Whether the kill switch is on: new and replaced orders are refused.
    killed: bool = False
    rss_bytes: int = 0
    cpu_seconds: float = 0.0
    version: str = ""
    durability: str = "memory"
    incarnation: int = 0
    #: Members with a vote and members that learn, as this node's log says.
    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    #: The newest snapshot on the node's disk that it knows to be whole: log entry and command; how long the loop stood
    #: still for it, and how long it took in all. 0 without one.
    snapshot_index: int = 0
    snapshot_sequence: int = 0
    snapshot_pause_ms: float = 0.0
    snapshot_s: float = 0.0


class HashReply(Reply, frozen=True, kw_only=True):
    """The hash after command `at`, None where it is no longer (or not yet) known."""

    at: int
    state_hash: int | None


class LogDigestReply(Reply, frozen=True, kw_only=True):
    """`log_digest` covers every applied log entry: equal on nodes with the same applied log."""

    applied_index: int
    log_digest: int
    state_hash: int
    event_sequence: int
    trades: int


class DepthReply(Reply, frozen=True, kw_only=True):
    """Best price first on both sides."""

    instrument: int
    symbol: str
    bids: tuple[LevelRow, ...]
    asks: tuple[LevelRow, ...]


class PageReply(Reply, Generic[Row], frozen=True, kw_only=True):
    """`more`: rows beyond these were not sent."""

    rows: tuple[Row, ...]
    more: bool = False


class OrdersReply(PageReply[OrderRow], frozen=True, kw_only=True):
    pass


class BalancesReply(PageReply[BalanceRow], frozen=True, kw_only=True):
    pass


class PositionsReply(PageReply[PositionRow], frozen=True, kw_only=True):
    pass


class TransfersReply(PageReply[TransferRow], frozen=True, kw_only=True):
    pass


class AccountsReply(PageReply[AccountRow], frozen=True, kw_only=True):
    pass


class AssetsReply(PageReply[AssetRow], frozen=True, kw_only=True):
    pass


class InstrumentsReply(PageReply[InstrumentRow], frozen=True, kw_only=True):
    pass


class StateImageReply(Reply, frozen=True, kw_only=True):
    """What is held for `at`: its place, its size in bytes and its digest. No place: not yet, or, where `sequence` is
    past `at`, never.
    """

    at: int
    position: StreamPosition | None = None
    size: int = 0
    digest: str = ""


class StateImagePart(Reply, frozen=True, kw_only=True):
    """Bytes of the image from the one asked for on; `more`: others follow these."""

    at: int
    data: bytes
    more: bool = False


class BarrierReply(Reply, frozen=True, kw_only=True):
    """The barrier stood at this place of the log."""

    log_index: int
    state_hash: int


class SnapshotReply(Reply, frozen=True, kw_only=True):
    """The snapshot will be of this log entry or a later one."""

    log_index: int


class MembersReply(Reply, frozen=True, kw_only=True):
    """The change stands in the log here; the status tells when it is in force on a majority."""

    log_index: int


class TransferLeadershipReply(Reply, frozen=True, kw_only=True):
    """Who is to lead."""

    successor: int


class CorruptReply(Reply, frozen=True, kw_only=True):
    """False where there is no such balance."""

    done: bool


class ShutdownReply(Reply, frozen=True, kw_only=True):
    pass


AnyReply = (
    AdminError
    | NodeStatus
    | HashReply
    | LogDigestReply
    | DepthReply
    | OrdersReply
    | BalancesReply
    | PositionsReply
    | TransfersReply
    | AccountsReply
    | AssetsReply
    | InstrumentsReply
    | StateImageReply
    | StateImagePart
    | BarrierReply
    | SnapshotReply
    | TransferLeadershipReply
    | MembersReply
    | CorruptReply
    | ShutdownReply
)

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final[msgspec.msgpack.Decoder[AnyRequest]] = msgspec.msgpack.Decoder(AnyRequest)
_replies: Final[msgspec.msgpack.Decoder[AnyReply]] = msgspec.msgpack.Decoder(AnyReply)


def encode_request(request: AnyRequest, request_id: int) -> bytes:
    """Return the message that asks `request`."""
    return request_id.to_bytes(_ID_SIZE, "little") + _encoder.encode(request)


def decode_request(data: bytes) -> tuple[int, AnyRequest]:
    """Return (request id, request); raises FrameError. The id of a message that fails: see request_id()."""
    return _decode(data, _requests, MAX_REQUEST_BYTES)


def encode_reply(reply: AnyReply, request_id: int) -> bytes:
    """Return the message that answers `request_id`."""
    return request_id.to_bytes(_ID_SIZE, "little") + _encoder.encode(reply)


def decode_reply(data: bytes) -> tuple[int, AnyReply]:
    """Return (request id, reply); raises FrameError."""
    return _decode(data, _replies, MAX_REPLY_BYTES)


def request_id(data: bytes) -> int:
    """Return the request id of any message, however bad the rest of it; 0 if it is too short to have one."""
    return int.from_bytes(data[:_ID_SIZE], "little") if len(data) >= _ID_SIZE else 0


M = TypeVar("M")


def _decode(data: bytes, decoder: "msgspec.msgpack.Decoder[M]", limit: int) -> tuple[int, M]:
    if not _ID_SIZE < len(data) <= limit:
        raise FrameError(
            ErrorCode.MALFORMED_FRAME, f"admin message: expected {_ID_SIZE + 1} to {limit} bytes, found {len(data)}"
        )
    try:
        message: Any = decoder.decode(memoryview(data)[_ID_SIZE:])
    except (ValueError, RecursionError) as error:
        # Beside msgspec's own errors: UnicodeDecodeError for a str, RecursionError for nesting in skipped fields.
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"admin message: {error}") from None
    return request_id(data), message
