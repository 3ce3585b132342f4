"""Define the requests of the admin protocol and their size limits."""

from typing import Annotated, Final, Literal

import msgspec

from smrx.config import NodeConfig
from smrx.wire.records import CLIENT_ORDER_ID_SIZE, INSTRUMENT_SYMBOL_SIZE

#: Rows in one reply.
MAX_ROWS: Final = 10_000
#: Price levels of one side of a book in one reply.
MAX_LEVELS: Final = 1000

Rows = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
Levels = Annotated[int, msgspec.Meta(ge=1, le=MAX_LEVELS)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
#: Ids as the engine stores them.
U32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=INSTRUMENT_SYMBOL_SIZE)]
#: Printable ASCII characters; see wire/client_order_ids.py.
ClientOrderId = Annotated[str, msgspec.Meta(min_length=1, max_length=CLIENT_ORDER_ID_SIZE, pattern="^[ -~]*$")]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base class of all requests; the class name is the message tag."""


class ChangingRequest(Request, frozen=True, kw_only=True):
    """Base class of requests that change the cluster or stop a node.

    On a node with keys the sender needs ADMINISTER; on one without, `token` is that of the node's file admin.token.
    """

    token: str | None = None


#: How new the state has to be that answers a read: see ReadRequest.
ReadLevel = Literal["linearizable", "leader", "any"]


class ReadRequest(Request, frozen=True, kw_only=True):
    """Base class of requests that read the state, and how new the state has to be.

    linearizable: with every command that any client had an answer to when the request arrived; the leader confirms that
    it leads. leader: as the leader has it, which may have been deposed. any: as the node has it. The state is at least
    that after command `min_sequence`, and, except with linearizable, at most `max_age_ms` old. A node that cannot
    answer so says why: NOT_LEADER, LOST_LEADERSHIP or UNAVAILABLE. A fenced node answers FENCED.
    """

    level: ReadLevel = "linearizable"
    min_sequence: Natural = 0
    max_age_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None


class PageRequest(ReadRequest, frozen=True, kw_only=True):
    """Base class of requests for rows: at most `limit` rows after the first `offset`, ordered by id.

    packed: the reply has the rows as records, see PageReply. view: of a listing that an earlier reply has named.
    """

    offset: Natural = 0
    limit: Rows = MAX_ROWS
    packed: bool = False
    view: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Status(Request, frozen=True, kw_only=True):
    """Get the status of the node. Reply: NodeStatus."""


class HashAt(Request, frozen=True, kw_only=True):
    """Get the state hash after command `at`. Reply: HashReply."""

    at: Natural


class LogDigest(Request, frozen=True, kw_only=True):
    """Get the values that are equal on two nodes which applied the same log. Reply: LogDigestReply."""


class Depth(ReadRequest, frozen=True, kw_only=True):
    """Get the best levels of an instrument's book, by id or symbol. Reply: DepthReply."""

    instrument: U32 | Symbol
    levels: Levels = 10


class Orders(PageRequest, frozen=True, kw_only=True):
    """Get open orders, optionally of one account or instrument, or with one of their two ids. Reply: OrdersReply."""

    account: U32 | None = None
    instrument: U32 | None = None
    order_id: Natural | None = None
    client_order_id: ClientOrderId | None = None


class Balances(PageRequest, frozen=True, kw_only=True):
    """Get balances, optionally of one account only. Reply: BalancesReply."""

    account: U32 | None = None


class Positions(PageRequest, frozen=True, kw_only=True):
    """Get an account's position in each instrument. Reply: PositionsReply."""

    account: U32


class Transfers(PageRequest, frozen=True, kw_only=True):
    """Get the deposits and withdrawals of an account. Reply: TransfersReply."""

    account: U32


class Accounts(PageRequest, frozen=True, kw_only=True):
    """Get all accounts, or one. Reply: AccountsReply."""

    account: U32 | None = None


class Assets(PageRequest, frozen=True, kw_only=True):
    """Get all assets. Reply: AssetsReply."""


class Instruments(PageRequest, frozen=True, kw_only=True):
    """Get all instruments. Reply: InstrumentsReply."""


class Credentials(PageRequest, frozen=True, kw_only=True):
    """Get all credentials. Reply: CredentialsReply."""


class TakeStateImage(Request, frozen=True, kw_only=True):
    """Take a state image (smrx.wire.state_image) right after the first log entry that applies command `at`.

    The node replies at once with StateImageReply; the client repeats the request until the reply has a position.
    """

    at: Natural


class ReadStateImage(Request, frozen=True, kw_only=True):
    """Get part of the state image taken for `at`, from byte `offset` on. Reply: StateImagePart, or UNAVAILABLE."""

    at: Natural
    offset: Natural = 0


class TakeState(Request, frozen=True, kw_only=True):
    """Hold a snapshot of the whole state from which the log can be read. Reply: StateReply.

    The node uses the snapshot that it has, if its log continues it and it is not older than a log entry, or starts to
    take one, as for a new member; repeat the request until the reply has a log index.
    """

    not_before: Natural = 0


class ReadState(Request, frozen=True, kw_only=True):
    """Get part of the held snapshot, from byte `offset` on. Reply: StatePart, or UNAVAILABLE."""

    log_index: Natural
    offset: Natural = 0


class ReadLog(Request, frozen=True, kw_only=True):
    """Get applied log entries after one, and the state hashes after commands from `first_hash` on.

    Reply: LogPart, or UNAVAILABLE if the node no longer has the entries.
    """

    after: Natural
    first_hash: Natural


class Snapshot(ChangingRequest, frozen=True, kw_only=True):
    """Start a snapshot and compact the log.

    The node replies at once with SnapshotReply; NodeStatus shows when the snapshot is complete.
    """


class AddMember(ChangingRequest, frozen=True, kw_only=True):
    """Add a node as a learner; it becomes a voter once it has the log. Leader only. Reply: MembersReply."""

    node: NodeConfig


class RemoveMember(ChangingRequest, frozen=True, kw_only=True):
    """Remove a member other than the leader. Leader only. Reply: MembersReply."""

    node_id: int


class UpgradeRules(ChangingRequest, frozen=True, kw_only=True):
    """Switch to the next version of the rules, if every member has it. Leader only. Reply: UpgradeRulesReply."""


class TransferLeadership(ChangingRequest, frozen=True, kw_only=True):
    """Transfer leadership to `successor`, or to the member with the longest log. Leader only.

    The node replies with TransferLeadershipReply before the transfer is done; NodeStatus shows the new leader.
    """

    successor: int | None = None


class Shutdown(ChangingRequest, frozen=True, kw_only=True):
    """Stop the node at the end of this turn. Reply: ShutdownReply."""


AnyPage = Orders | Balances | Positions | Transfers | Accounts | Assets | Instruments | Credentials
AnyRead = Depth | AnyPage
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
    | Credentials
    | TakeStateImage
    | ReadStateImage
    | TakeState
    | ReadState
    | ReadLog
    | Snapshot
    | TransferLeadership
    | UpgradeRules
    | AddMember
    | RemoveMember
    | Shutdown
)
