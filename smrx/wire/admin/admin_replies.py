"""Define the replies of the admin protocol, its error codes included."""

from enum import IntEnum
from typing import Generic, TypeVar

import msgspec

from smrx.wire.admin.admin_rows import (
    AccountRow,
    AgreementStatus,
    AssetRow,
    BalanceRow,
    CredentialRow,
    InstrumentRow,
    LevelRow,
    OrderRow,
    PeerStatus,
    PositionRow,
    RulesStatus,
    TransferRow,
)
from smrx.wire.state_image import StreamPosition

Row = TypeVar("Row")


class AdminErrorCode(IntEnum):
    """Why the node did not answer a request."""

    MALFORMED = 1
    #: Only the leader answers this request; send it to AdminError.leader_id.
    NOT_LEADER = 2
    #: The node does not allow this request, or not to this sender.
    REFUSED = 3
    UNKNOWN_INSTRUMENT = 4
    #: The node lost the leadership before it could answer; ask again.
    LOST_LEADERSHIP = 5
    FENCED = 6
    #: Temporarily impossible, for example because a snapshot is in progress or the node is busy; ask again later.
    UNAVAILABLE = 7


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base class of all replies: the answering node, the last command that its state has applied, and how old that is.

    The class name is the message tag. `age_ms` is 0 for a linearizable read. Otherwise it is the time since the leader
    knew that it led, or since another node heard of a leader whose commits it has; None if there was none.
    """

    node_id: int
    sequence: int
    #: leader, follower, candidate or learner; empty from a program that does not say.
    role: str = ""
    age_ms: float | None = None


class AdminError(Reply, frozen=True, kw_only=True):
    """An error: `code` is an AdminErrorCode, `message` is one sentence for people."""

    code: int
    message: str
    leader_id: int | None = None


class NodeStatus(Reply, frozen=True, kw_only=True):
    """The status of a node, as `smrx cluster status` shows it."""

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
    #: Why the node is fenced, or None.
    fenced: str | None = None
    #: What the node waits for before it takes part in the cluster, or None.
    waiting: str | None = None
    first_divergent_sequence: int | None = None
    #: Nodes whose state differs from that of a majority including this node, and the first command after which it does.
    diverged: dict[int, int] = {}
    peers: tuple[PeerStatus, ...] = ()
    uptime_s: float = 0.0
    orders_open: int = 0
    accounts: int = 0
    #: How many records of each kind the state has, and at most may have (SET_CAPACITY).
    records: dict[str, int] = {}
    capacity: dict[str, int] = {}
    #: Whether the kill switch is on, so that new and replaced orders are rejected.
    killed: bool = False
    rss_bytes: int = 0
    cpu_seconds: float = 0.0
    version: str = ""
    durability: str = "memory"
    incarnation: int = 0
    #: Members that vote and members that only learn, by this node's log.
    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    #: The newest complete snapshot on the node's disk: its log entry and command, how long it paused the reactor, and
    #: how long it took. 0 without one.
    snapshot_index: int = 0
    snapshot_sequence: int = 0
    snapshot_pause_ms: float = 0.0
    snapshot_s: float = 0.0
    #: None from a program that has the first version of the rules only.
    rules: RulesStatus | None = None
    #: The time of the state, in nanoseconds since 1970.
    time_ns: int = 0
    #: How far the node's clock is ahead of the majority clock, None if no majority is heard; and what is wrong with the
    #: clock or with the time of the state, or None.
    clock_offset_s: float | None = None
    clock_fault: str | None = None
    #: The open connections of each port, and how many were cut off because the port had its most.
    connections: dict[str, int] = {}
    connections_refused: dict[str, int] = {}
    #: Bytes of answers that wait because their clients do not read, the most since the start, and how many answers were
    #: dropped for that.
    unread_answer_bytes: int = 0
    most_unread_answer_bytes: int = 0
    unread_answers_dropped: int = 0
    #: The turns of the node's loop, and the nanoseconds that it has spent in each stage (smrx/node/stage_times.py).
    turns: int = 0
    stage_ns: dict[str, int] = {}


class HashReply(Reply, frozen=True, kw_only=True):
    """The state hash after command `at`; None if the node no longer has it, or not yet."""

    at: int
    state_hash: int | None


class LogDigestReply(Reply, frozen=True, kw_only=True):
    """`log_digest` covers every applied log entry; it is equal on nodes that applied the same log."""

    applied_index: int
    log_digest: int
    state_hash: int
    event_sequence: int
    trades: int


class DepthReply(Reply, frozen=True, kw_only=True):
    """A book, best price first on both sides."""

    instrument: int
    symbol: str
    bids: tuple[LevelRow, ...]
    asks: tuple[LevelRow, ...]


class PageReply(Reply, Generic[Row], frozen=True, kw_only=True):
    """Base class of replies with rows. `more`: there are further rows; ask again with a higher offset.

    A packed reply has the rows as records without padding instead: `columns` names the fields and NumPy types, `data`
    has the bytes; packed_rows.py reads them. `view`: a longer listing is written; ask this node again with that name,
    and all pages are of one moment.
    """

    rows: tuple[Row, ...] = ()
    more: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    data: bytes = b""
    view: str = ""


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


class CredentialsReply(PageReply[CredentialRow], frozen=True, kw_only=True):
    pass


class StateImageReply(Reply, frozen=True, kw_only=True):
    """The state image held for `at`: its position, its size in bytes and its digest.

    Without a position the image is not taken yet. If `sequence` is above `at` it never will be, except while `pending`:
    then it is being encoded.
    """

    at: int
    position: StreamPosition | None = None
    size: int = 0
    digest: str = ""
    pending: bool = False


class StateImagePart(Reply, frozen=True, kw_only=True):
    """Bytes of the image from the requested offset on; `more`: there are further bytes."""

    at: int
    data: bytes
    more: bool = False


class StateReply(Reply, frozen=True, kw_only=True):
    """The held snapshot: the log entry it is after, and its size. `log_index` 0: it is not ready yet.

    Size 0 with a log index: the log is complete from there on, and the state before it is empty.
    """

    log_index: int = 0
    size: int = 0


class StatePart(Reply, frozen=True, kw_only=True):
    """Bytes of the held snapshot from the requested offset on; `more`: there are further bytes."""

    data: bytes
    more: bool = False


class LogPart(Reply, frozen=True, kw_only=True):
    """Applied entries that follow the requested one: (log index, term, entry), those without commands left out.

    `last` is the log index up to which there is nothing else; `more`: there are further entries. `hashes` are the state
    hashes after the commands from the requested one on, u64, as far as the node has them.
    """

    entries: tuple[tuple[int, int, bytes], ...]
    last: int
    more: bool = False
    hashes: bytes = b""


class SnapshotReply(Reply, frozen=True, kw_only=True):
    """The snapshot will cover the log up to this index or a later one."""

    log_index: int


class MembersReply(Reply, frozen=True, kw_only=True):
    """The log index of the membership change. NodeStatus shows when a majority has it."""

    log_index: int


class UpgradeRulesReply(Reply, frozen=True, kw_only=True):
    """The version, and the log index of the switch to it. NodeStatus shows when a node has applied it."""

    log_index: int
    version: int


class TransferLeadershipReply(Reply, frozen=True, kw_only=True):
    """The node chosen to lead."""

    successor: int


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
    | CredentialsReply
    | StateImageReply
    | StateImagePart
    | StateReply
    | StatePart
    | LogPart
    | SnapshotReply
    | TransferLeadershipReply
    | UpgradeRulesReply
    | MembersReply
    | ShutdownReply
)
