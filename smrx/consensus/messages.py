"""The messages between members: a fixed schema, nothing that can carry code.

Owns the schema, the limits, and the rules that make a well-typed message absurd. No sockets, no clock, no state; every
function is total over untrusted bytes. Used by the transport (bytes) and the replica (meaning).

A message is one msgpack array, Envelope, around one body. Log entries travel as they lie in the log, raw bytes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import xxhash
from msgspec import Meta

from smrx.consensus.membership import Member, MembershipError, is_membership
from smrx.consensus.membership import decode as decode_membership
from smrx.wire.batches import MAX_ENTRY_BYTES, VERSION

#: Spoken by members of one cluster version; another number is dropped.
PROTOCOL: Final = 1

#: Entries of one AppendEntries stop once they pass this: a follower is never busy with one message for long.
MAX_BATCH_BYTES: Final = 1 << 20
MAX_BATCH_ENTRIES: Final = 4096
CHUNK_BYTES: Final = 256 << 10
MAX_SNAPSHOT_BYTES: Final = 16 << 30
MAX_HASHES: Final = 512
#: 255 members, each with host, ports and keys.
MAX_MEMBERSHIP_BYTES: Final = 256 << 10
#: A batch may be one byte short of MAX_BATCH_BYTES and take one more entry of the largest size; the rest is headers.
MAX_MESSAGE_BYTES: Final = MAX_BATCH_BYTES + MAX_ENTRY_BYTES + 64 * MAX_BATCH_ENTRIES

#: A term, index or life past these was never reached honestly (2^48 elections, 2^56 entries, 2^48 starts counted from
#: the time in seconds); it would only serve to end all of them at once.
Term = Annotated[int, Meta(ge=0, lt=1 << 48)]
Index = Annotated[int, Meta(ge=0, lt=1 << 56)]
Life = Annotated[int, Meta(ge=0, lt=1 << 48)]
Natural = Annotated[int, Meta(ge=0)]
Entry = tuple[bytes, Index, Term]

#: First byte of a log entry, as PySyncObj numbers them.
REGULAR: Final = 0
NO_OP: Final = b"\x01"

#: Envelope.flags
LEARNER: Final = 1
FENCED: Final = 2
#: It never held state.
NEW: Final = 4


class Hello(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=0):
    """Nothing but the envelope: I live, in this term, at this sequence."""


class AppendEntries(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=1):
    """Entries after prev_index; without prev_index a bare heartbeat to a node that waits for a snapshot."""

    prev_index: Index | None
    prev_term: Term
    commit_index: Index
    #: The leader's own last index: what a learner must reach.
    last_index: Index
    #: Counts the leader's restarts of this stream, so that a reset asked for twice is obeyed once.
    stream: Natural
    #: Only tells the commit index: no answer wanted if all is well.
    quiet: bool
    entries: Annotated[list[Entry], Meta(max_length=MAX_BATCH_ENTRIES)]


class AppendReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=2):
    """success: everything below next_index is as the leader has it. reset: send from next_index instead."""

    next_index: Index
    reset: bool
    success: bool
    stream: Natural


class RequestVote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=3):
    """A candidate's log, for the vote of the envelope's term."""

    last_index: Index
    last_term: Term


class Vote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=4):
    """Granted, for the term named (votes not granted are silence)."""

    term: Term


class PreVote(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=5):
    """Would you vote for me? Asked before the term is raised, so that a lost node disturbs nobody."""

    round: Natural
    last_index: Index
    last_term: Term


class PreVoteReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=6):
    """I would: I hear no leader, and your log is not behind mine."""

    round: Natural


class SnapshotChunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=7):
    """A piece of the state after log entry (index, of_term), `total` bytes with this xxh3-128."""

    index: Index
    of_term: Term
    total: Annotated[int, Meta(ge=0, le=MAX_SNAPSHOT_BYTES)]
    checksum: Annotated[bytes, Meta(min_length=16, max_length=16)]
    offset: Natural
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]
    commit_index: Index
    last_index: Index
    stream: Natural
    #: Who belongs to the cluster at that entry, and where the log says so.
    membership_index: Index
    membership: Annotated[bytes, Meta(max_length=MAX_MEMBERSHIP_BYTES)]


class SnapshotReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=8):
    """I have the first `offset` bytes of the snapshot at index; refused: they were no usable state."""

    index: Index
    offset: Natural
    refused: bool


class HashRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=9):
    """What is your state hash after each of these commands?"""

    sequences: Annotated[list[Natural], Meta(max_length=MAX_HASHES)]


class HashReply(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=10):
    """(sequence, hash) for each asked; None for one not yet reached or no longer kept."""

    hashes: Annotated[list[tuple[Natural, Natural | None]], Meta(max_length=MAX_HASHES)]


class Acquaint(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=12):
    """These are members, says a node to one that may not know: it may listen to them. Grants no rights."""

    members: Annotated[list[Member], Meta(max_length=255)]


class NoMember(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=13):
    """You are no member, says a node whose newest committed membership stands there. Nothing has to be believed."""

    membership_index: Index


class StandNow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=11):
    """You have everything I have: stand for election at once, and I will vote for you (Ongaro's thesis, 3.10)."""


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
    | StandNow
    | Acquaint
    | NoMember
)


class Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Who says it, in which life, in which term, and the state it has reached."""

    protocol: Annotated[int, Meta(ge=PROTOCOL, le=PROTOCOL)]
    cluster: Natural
    sender: Annotated[int, Meta(ge=1, le=255)]
    incarnation: Life
    #: The life of the receiver this is meant for. Where the sender does not know it yet, and only Hello and Acquaint
    #: may be said: 0, or a life by which an earlier node of that number was outlived.
    receiver_incarnation: Life
    term: Term
    flags: Annotated[int, Meta(ge=0, le=LEARNER | FENCED | NEW)]
    sequence: Natural
    state_hash: Natural
    body: Body


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


def cluster_number(name: str) -> int:
    """The number members of one cluster recognise each other by."""
    return xxhash.xxh3_64_intdigest(name.encode())


def decode(frame: bytes) -> Envelope | str:
    """Return the message, or why it is none: "undecodable" or "absurd"."""
    try:
        envelope = _decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "undecodable"
    return "absurd" if _absurd(envelope) else envelope


def entry_fault(entry: bytes) -> str | None:
    """Return what keeps these bytes from being a command of the log, or None."""
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
    """Whether an honest member could not have said this, whatever the fate of other messages."""
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
    """Return the body for a message PySyncObj wants sent; raises ValueError for one this project never lets it send."""
    kind = message["type"]
    if kind == "request_vote":
        return RequestVote(message["last_log_index"], message["last_log_term"])
    if kind == "response_vote":
        return Vote(message["term"])
    raise ValueError(f"expected a vote or its request from the library, found {kind!r}")
