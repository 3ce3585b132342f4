"""Define the messages between members: a fixed schema that cannot carry code.

Owns the schema, the limits, and the rules by which a well-typed message is absurd. No sockets, no clock, no state;
every function accepts any bytes. Used by the transport (bytes) and the replica (meaning).

A message is one msgpack array, Envelope, around one body. Log entries are raw bytes, as in the log. Tags and the order
of fields are the protocol: do not change them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import xxhash
from msgspec import Meta

from smrx.consensus.majority_clock import LATEST_NS
from smrx.consensus.membership import Member, MembershipError, is_membership
from smrx.consensus.membership import decode as decode_membership
from smrx.wire.batches import MAX_ENTRY_BYTES, VERSION

#: The protocol version; a message of another one is dropped.
PROTOCOL: Final = 2

#: An AppendEntries is full once its entries pass this: no message keeps a follower busy for long.
MAX_BATCH_BYTES: Final = 1 << 20
MAX_BATCH_ENTRIES: Final = 4096
CHUNK_BYTES: Final = 256 << 10
MAX_SNAPSHOT_BYTES: Final = 16 << 30
MAX_HASHES: Final = 512
#: Characters of a reason for the operator.
MAX_REASON: Final = 500
#: Enough for 255 members, each with host, ports and keys.
MAX_MEMBERSHIP_BYTES: Final = 256 << 10
#: A batch may be one byte short of MAX_BATCH_BYTES and take one more entry of the largest size; the rest is headers.
MAX_MESSAGE_BYTES: Final = MAX_BATCH_BYTES + MAX_ENTRY_BYTES + 64 * MAX_BATCH_ENTRIES

#: No correct node reaches a term, index or incarnation past these (2^48 elections, 2^56 entries, 2^48 starts counted
#: from the time in seconds); accepting a forged one would exhaust the numbers.
Term = Annotated[int, Meta(ge=0, lt=1 << 48)]
Index = Annotated[int, Meta(ge=0, lt=1 << 56)]
Incarnation = Annotated[int, Meta(ge=0, lt=1 << 48)]
Natural = Annotated[int, Meta(ge=0)]
Entry = tuple[bytes, Index, Term]

#: First byte of a log entry, as PySyncObj numbers them.
REGULAR: Final = 0
NO_OP: Final = b"\x01"

#: Envelope.flags
LEARNER: Final = 1
FENCED: Final = 2
#: The node never held state.
NEW: Final = 4


class RulesVersions(NamedTuple):
    """The versions of the state machine's rules that a node can apply, and the one in force after its last entry."""

    oldest: Annotated[int, Meta(ge=1, lt=1 << 32)]
    newest: Annotated[int, Meta(ge=1, lt=1 << 32)]
    in_force: Annotated[int, Meta(ge=1, lt=1 << 32)]


class Hello(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=0):
    """Only the envelope: that the sender runs, its term, its sequence."""


class AppendEntries(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=1):
    """Entries after prev_index; without prev_index, a bare heartbeat to a node that waits for a snapshot."""

    prev_index: Index | None
    prev_term: Term
    commit_index: Index
    #: The leader's own last index, which a learner must reach.
    last_index: Index
    #: A number that grows with each restart of the stream, so that a repeated reset is obeyed once, and with each round
    #: by which the leader confirms its leadership; the reply echoes it (read_index.py).
    stream: Natural
    #: Only carries the commit index: no reply is wanted if it succeeds.
    quiet: bool
    entries: Annotated[list[Entry], Meta(max_length=MAX_BATCH_ENTRIES)]


class AppendReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=2):
    """success: the log below next_index equals the leader's. reset: send from next_index instead.

    stream: that of the message. An earlier program echoes it, too.
    """

    next_index: Index
    reset: bool
    success: bool
    stream: Natural


class RequestVote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=3):
    """A request for the vote of the envelope's term, with the end of the candidate's log."""

    last_index: Index
    last_term: Term


class Vote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=4):
    """A vote that is granted, and its term; a refusal is not sent."""

    term: Term


class PreVote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=5):
    """A request for a pre-vote, before the term is raised, so that an isolated node disturbs no leader."""

    round: Natural
    last_index: Index
    last_term: Term


class PreVoteReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=6):
    """A pre-vote that is granted: the sender has no leader, and the candidate's log is not behind its own."""

    round: Natural


class SnapshotChunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=7):
    """A part of the state after log entry (index, of_term), which has `total` bytes and this xxh3-128."""

    index: Index
    of_term: Term
    total: Annotated[int, Meta(ge=0, le=MAX_SNAPSHOT_BYTES)]
    checksum: Annotated[bytes, Meta(min_length=16, max_length=16)]
    offset: Natural
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]
    commit_index: Index
    last_index: Index
    stream: Natural
    #: The membership in force at that entry, and its own log index.
    membership_index: Index
    membership: Annotated[bytes, Meta(max_length=MAX_MEMBERSHIP_BYTES)]


class SnapshotReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=8):
    """The receiver has the first `offset` bytes of the snapshot at index; refused: they are no valid state."""

    index: Index
    offset: Natural
    refused: bool
    #: Why the receiver cannot use a snapshot that arrived intact; empty if it was damaged on its way.
    reason: Annotated[str, Meta(max_length=MAX_REASON)] = ""


class HashRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=9):
    """A request for the state hashes after these commands."""

    sequences: Annotated[list[Natural], Meta(max_length=MAX_HASHES)]


class HashReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=10):
    """(sequence, hash) for each one requested; None for one that is not reached yet or no longer kept."""

    hashes: Annotated[list[tuple[Natural, Natural | None]], Meta(max_length=MAX_HASHES)]


class MembershipHint(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=12):
    """The members by the sender's log, for a node that may not have it. A hint whom to connect to, no vote."""

    members: Annotated[list[Member], Meta(max_length=255)]


class NotAMember(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=13):
    """The receiver is no member by the sender's newest committed membership, at this log index. A hint only."""

    membership_index: Index


class TimeoutNow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=11):
    """The receiver has the leader's whole log and is to campaign at once (Ongaro's thesis, 3.10)."""


Body = (
    Hello
    | AppendEntries
    | AppendReply
    | RequestVote
    | Vote
    | PreVote
    | PreVoteReply
    | SnapshotChunk
    | SnapshotReply
    | HashRequest
    | HashReply
    | TimeoutNow
    | MembershipHint
    | NotAMember
)


class Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """The sender, its incarnation, its term, the state it has reached, and its clock."""

    protocol: Annotated[int, Meta(ge=PROTOCOL, le=PROTOCOL)]
    cluster: Natural
    sender: Annotated[int, Meta(ge=1, le=255)]
    incarnation: Incarnation
    #: The incarnation of the receiver, as far as the sender knows: 0, or one above that of a removed node of the
    #: receiver's id, if it has received nothing; then only Hello and MembershipHint are allowed.
    receiver_incarnation: Incarnation
    term: Term
    flags: Annotated[int, Meta(ge=0, le=LEARNER | FENCED | NEW)]
    sequence: Natural
    state_hash: Natural
    #: The sender's clock, in nanoseconds since 1970.
    clock_ns: Annotated[int, Meta(ge=0, le=LATEST_NS)]
    #: How many messages the sender has sent since its process started: a late one must not set a newer clock back.
    number: Natural
    body: Body
    #: None from a node that does not say it, which then counts as one without a newer version.
    rules: RulesVersions | None = None


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


def cluster_number(name: str) -> int:
    """Return the number that identifies a cluster in messages."""
    return xxhash.xxh3_64_intdigest(name.encode())


def decode(frame: bytes | memoryview) -> Envelope | str:
    """Return the message, or why it is invalid: "undecodable" or "absurd"."""
    try:
        envelope = _decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "undecodable"
    return "absurd" if _absurd(envelope) else envelope


def entry_fault(entry: bytes) -> str | None:
    """Return why these bytes are no valid log entry, None if they are."""
    if len(entry) > MAX_ENTRY_BYTES:
        return f"expected an entry of at most {MAX_ENTRY_BYTES} bytes, found {len(entry)}"
    if is_membership(entry):
        return _membership_fault(entry)
    if len(entry) < 2 or entry[0] != REGULAR:
        return f"expected an entry that starts with a 0 byte and a version byte, found {entry[:2]!r}"
    if entry[1] != VERSION:
        return f"expected entry version {VERSION}, found {entry[1]}"
    return None


def _membership_fault(entry: bytes) -> str | None:
    try:
        decode_membership(entry)
    except MembershipError as error:
        return str(error)
    return None


def _absurd(envelope: Envelope) -> bool:
    """Whether no correct member can send this, whichever other messages were lost or delayed."""
    body, term = envelope.body, envelope.term
    if isinstance(body, AppendEntries):
        return _absurd_append(body, term)
    if isinstance(body, SnapshotChunk):
        if not 1 <= body.membership_index <= body.index or _membership_fault(body.membership) is not None:
            return True
        return body.of_term > term or body.index < 1 or body.offset + len(body.data) > body.total
    if isinstance(body, RequestVote):
        return body.last_term >= term or body.last_index < 1
    if isinstance(body, PreVote):
        return body.last_term > term or body.last_index < 1
    if isinstance(body, Vote):
        return body.term > term
    return False


def _absurd_append(body: AppendEntries, term: int) -> bool:
    if body.prev_index is None:
        return bool(body.entries)
    index, entry_term = body.prev_index, body.prev_term
    if index < 1:
        return True
    for command, entry_index, next_term in body.entries:
        index += 1
        if entry_index != index or next_term < entry_term:
            return True
        if command != NO_OP and entry_fault(command) is not None:
            return True
        entry_term = next_term
    return entry_term > term or body.last_index < index or body.commit_index > body.last_index


def from_library(message: Mapping[str, Any]) -> Body:
    """Return the body for a message of PySyncObj; raises ValueError for one that this project replaces."""
    kind = message["type"]
    if kind == "request_vote":
        return RequestVote(message["last_log_index"], message["last_log_term"])
    if kind == "response_vote":
        return Vote(message["term"])
    raise ValueError(f"expected a vote or its request from the library, found {kind!r}")
