"""Encode and decode the binary frames of order entry and of the event feed.

Rules:

- A frame is one ZeroMQ message part: a 32-byte header, then `count` fixed-size records or a msgpack body.
- Decoders check every length and count. They raise FrameError for malformed bytes and nothing else.
- No sockets, no clock, no state. Little-endian throughout.

Header (32 bytes): magic "SMRX", version u8, kind u8, reserved u16, count u32, details u32, correlation u64, aux u64.
A COMMANDS frame has `count` commands and then `details` details (records.py); elsewhere `details` is 0.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.balance_digest import Digest
from smrx.wire.command_list import NO_DETAILS, CommandList
from smrx.wire.records import COMMAND, DETAILS, EVENT, OUTCOME

MAGIC: Final = 0x58524D53
VERSION: Final = 2
HEADER_SIZE: Final = 32

#: Commands in a COMMANDS frame: 256 KiB of records, with their details 768 KiB, so one frame fits a 1 MiB Raft entry.
MAX_COMMANDS: Final = 4096
#: Events in an EVENTS frame: 1 MiB of records.
MAX_EVENTS: Final = 8192
#: Accounts in a SUBSCRIBE frame: 4 KiB.
MAX_ACCOUNTS: Final = 1024
#: Sessions in a PING frame: 32 KiB.
MAX_SESSIONS: Final = 4096
#: Size limit of one message; ZeroMQ closes the connection of a peer that sends a larger one.
MAX_FRAME_BYTES: Final = HEADER_SIZE + MAX_EVENTS * EVENT.itemsize + 4096

_POSITION: Final = Struct("<QQQ")
_CLAIM: Final = Struct("<QQ")


class FrameKind(IntEnum):
    """The kinds of frames, with the meaning of `correlation` and `aux`; both are 0 where not mentioned."""

    # Order entry: client to node.
    COMMANDS = 1  #: `count` commands; correlation chosen by the client and echoed
    PING = 5  #: aux = a session to keep alive, 0 if none; body `count` further such sessions

    # Order entry: node to client.
    OUTCOMES = 2  #: `count` outcomes, in the order of the commands; correlation of the COMMANDS frame
    NOT_LEADER = 3  #: body LeaderHint; the commands of the echoed frame may or may not be applied later
    ERROR = 4  #: body ErrorBody; nothing of the frame was applied
    PONG = 6  #: body LeaderHint

    # Event feed: node to subscriber. ERROR too: a request was refused, or the subscription has ended.
    EVENTS = 10  #: `count` events; correlation = sequence of the last command, aux = state hash after it
    HEARTBEAT = 11  #: correlation = next event; body FeedPosition, aux = state hash; or empty, aux = newest event held
    UNAVAILABLE = 13  #: correlation = oldest event sequence held, aux = newest held
    ATTESTATION = 15  #: body Claim; `count` events from correlation on, aux = xxh3 of their records
    UPDATES = 18  #: those `count` events from correlation to aux that concern the accounts of the subscription

    # Event feed: subscriber to node.
    RETRANSMIT = 12  #: correlation = first event sequence wanted, aux = last wanted (0 = newest)
    ATTEST = 14  #: asks for an ATTESTATION; correlation = first event sequence, aux = last
    SUBSCRIBE = 16  #: body `count` accounts (0 = everything); correlation = first event (0 = the next), aux = credit
    SUBSCRIBE_OWN = 19  #: as SUBSCRIBE, for all accounts that the sender's credential acts for
    CREDIT = 17  #: aux = further bytes of EVENTS or UPDATES frames that the node may send; keeps the subscription


class ErrorCode(IntEnum):
    MALFORMED_FRAME = 1
    TOO_MANY_COMMANDS = 2
    UNSUPPORTED_VERSION = 3
    OVERLOADED = 4
    FENCED = 5
    FORBIDDEN = 6
    LIMITED = 7
    NOT_SUBSCRIBED = 8


class LeaderHint(msgspec.Struct, frozen=True):
    """The current leader, as known to the answering node."""

    leader_id: int | None
    order_address: str | None
    node_id: int
    term: int
    #: The admin address of the answering node.
    admin_address: str | None = None
    #: Silence after which a session with cancel-on-disconnect counts as disconnected.
    disconnect_ms: int | None = None
    #: In a PONG: the number of the credential under whose key the client is connected, 0 for none. It is the upper half
    #: of the ids of the client's sessions.
    credential: int | None = None
    #: The leader's order entry over TCP (smrx://); `order_address` is ZeroMQ's.
    order_tcp_address: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error: an ErrorCode and one sentence for people. Fields that are None are not sent."""

    code: int
    message: str
    #: LIMITED because of a rate: the session or the account that is over it, and the milliseconds until the frame
    #: would pass. The other commands of the frame were refused for no fault of theirs.
    session: int | None = None
    account: int | None = None
    wait_ms: int | None = None


class FrameError(ValueError):
    """The peer sent bytes that are not a valid frame of this protocol."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Claim(NamedTuple):
    """A node's state hash after a command; command 0 means that the node makes no claim."""

    command_sequence: int
    state_hash: int


class FeedPosition(NamedTuple):
    """The position that a node's heartbeat reports: every event before `next_event` is published."""

    next_event: int
    claim: Claim
    balances: Digest


class Frame(msgspec.Struct, frozen=True):
    """A decoded header and the bytes after it."""

    kind: FrameKind
    count: int
    correlation: int
    aux: int
    body: memoryview
    details: int = 0


def encode(
    kind: FrameKind,
    body: bytes | memoryview = b"",
    count: int = 0,
    correlation: int = 0,
    aux: int = 0,
    details: int = 0,
) -> bytes:
    """Return one frame."""
    head = (
        MAGIC.to_bytes(4, "little")
        + bytes((VERSION, kind, 0, 0))
        + count.to_bytes(4, "little")
        + details.to_bytes(4, "little")
        + correlation.to_bytes(8, "little")
        + aux.to_bytes(8, "little")
    )
    return b"".join((head, body))


def encode_commands(commands: CommandList, correlation: int = 0) -> bytes:
    """Return a COMMANDS frame. Raises ValueError for more than MAX_COMMANDS commands or details."""
    records, details = commands
    for name, count in (("commands", len(records)), ("details", len(details))):
        if count > MAX_COMMANDS:
            raise ValueError(f"COMMANDS: expected at most {MAX_COMMANDS} {name}, found {count}")
    body = records.tobytes() + details.tobytes() if len(details) else records.tobytes()
    return encode(FrameKind.COMMANDS, body, len(records), correlation, details=len(details))


def encode_outcomes(outcomes: NDArray[np.void], correlation: int) -> bytes:
    """Return an OUTCOMES frame."""
    return encode(FrameKind.OUTCOMES, outcomes.tobytes(), len(outcomes), correlation)


def encode_session_ping(sessions: NDArray[np.uint64], correlation: int = 0) -> bytes:
    """Return a PING frame that keeps sessions alive. Raises ValueError for more than MAX_SESSIONS."""
    if len(sessions) > MAX_SESSIONS:
        raise ValueError(f"PING: expected at most {MAX_SESSIONS} sessions, found {len(sessions)}")
    return encode(FrameKind.PING, sessions.astype("<u8").tobytes(), len(sessions), correlation)


def pinged_sessions(frame: Frame) -> list[int]:
    """Return the sessions that a PING frame keeps alive."""
    found: list[int] = np.frombuffer(frame.body, "<u8", frame.count).tolist()
    return [frame.aux, *found] if frame.aux else found


def encode_events(events: NDArray[np.void], command_sequence: int, state_hash: int) -> bytes:
    """Return an EVENTS frame. Raises ValueError for more than MAX_EVENTS events."""
    if len(events) > MAX_EVENTS:
        raise ValueError(f"EVENTS: expected at most {MAX_EVENTS} records, found {len(events)}")
    return encode(FrameKind.EVENTS, events.tobytes(), len(events), command_sequence, state_hash)


def encode_updates(events: NDArray[np.void], first: int, last: int) -> bytes:
    """Return an UPDATES frame: those of events first..last that concern the accounts of a subscription.

    Raises ValueError for more than MAX_EVENTS events.
    """
    if len(events) > MAX_EVENTS:
        raise ValueError(f"UPDATES: expected at most {MAX_EVENTS} records, found {len(events)}")
    return encode(FrameKind.UPDATES, events.tobytes(), len(events), first, last)


def encode_heartbeat(position: FeedPosition) -> bytes:
    """Return a HEARTBEAT frame."""
    command, state_hash = position.claim
    body = _POSITION.pack(command, position.balances.balances, position.balances.value)
    return encode(FrameKind.HEARTBEAT, body, correlation=position.next_event, aux=state_hash)


def encode_attestation(first: int, parts: Sequence[NDArray[np.void]], claim: Claim) -> bytes:
    """Return an ATTESTATION frame for consecutive events, in parts, of which `first` is the first."""
    count = sum(map(len, parts))
    return encode(FrameKind.ATTESTATION, _CLAIM.pack(*claim), count, first, records_digest(*parts))


def records_digest(*parts: NDArray[np.void]) -> int:
    """Return the xxh3 of the concatenated records, as an ATTESTATION frame carries it."""
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(np.ascontiguousarray(part).view(np.uint8).data)
    return state.intdigest()


def encode_body(kind: FrameKind, body: LeaderHint | ErrorBody, correlation: int = 0) -> bytes:
    """Return a frame whose body is msgpack."""
    return encode(kind, msgspec.msgpack.encode(body), 0, correlation)


_RECORDS: Final = {
    FrameKind.COMMANDS: COMMAND,
    FrameKind.OUTCOMES: OUTCOME,
    FrameKind.EVENTS: EVENT,
    FrameKind.UPDATES: EVENT,
}
_RECORD_SIZE: Final = {kind: layout.itemsize for kind, layout in _RECORDS.items()} | {
    FrameKind.SUBSCRIBE: 4,
    FrameKind.PING: 8,
    FrameKind.SUBSCRIBE_OWN: 4,
}
_MAX_COUNT: Final = {
    FrameKind.COMMANDS: MAX_COMMANDS,
    FrameKind.OUTCOMES: MAX_COMMANDS,
    FrameKind.EVENTS: MAX_EVENTS,
    FrameKind.UPDATES: MAX_EVENTS,
    FrameKind.SUBSCRIBE: MAX_ACCOUNTS,
    FrameKind.PING: MAX_SESSIONS,
    FrameKind.SUBSCRIBE_OWN: 0,
}
_KINDS: Final = {int(kind): kind for kind in FrameKind}


def decode(data: bytes | memoryview) -> Frame:
    """Return the frame in `data`, with its length checked against its count. Raises FrameError."""
    if len(data) < HEADER_SIZE:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected at least {HEADER_SIZE} bytes, found {len(data)}")
    view = memoryview(data)
    if bytes(view[:4]) != b"SMRX":
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected magic 'SMRX', found {bytes(view[:4])!r}")
    if view[4] != VERSION:
        raise FrameError(ErrorCode.UNSUPPORTED_VERSION, f"expected protocol version {VERSION}, found {view[4]}")
    kind = _KINDS.get(view[5])
    if kind is None:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"unknown frame kind {view[5]}")
    count = int.from_bytes(view[8:12], "little")
    details = int.from_bytes(view[12:16], "little")
    if view[6] or view[7] or (details and kind is not FrameKind.COMMANDS):
        raise FrameError(ErrorCode.MALFORMED_FRAME, "reserved header bytes are not 0")
    size = _RECORD_SIZE.get(kind)
    if size is not None:
        if max(count, details) > _MAX_COUNT[kind]:
            raise FrameError(
                ErrorCode.TOO_MANY_COMMANDS,
                f"{kind.name}: expected at most {_MAX_COUNT[kind]} records, found {max(count, details)}",
            )
        if len(view) - HEADER_SIZE != count * size + details * DETAILS.itemsize:
            expected = f"{count} records of {size} bytes" + (f" and {details} details" if details else "")
            raise FrameError(
                ErrorCode.MALFORMED_FRAME,
                f"expected {expected} after the header, found {len(view) - HEADER_SIZE} bytes",
            )
    return Frame(
        kind,
        count,
        int.from_bytes(view[16:24], "little"),
        int.from_bytes(view[24:32], "little"),
        view[HEADER_SIZE:],
        details,
    )


def records(frame: Frame) -> NDArray[np.void]:
    """Return the records of a COMMANDS, OUTCOMES, EVENTS or UPDATES frame, without copying them."""
    return np.frombuffer(frame.body, dtype=_RECORDS[frame.kind], count=frame.count)


def command_list(frame: Frame) -> CommandList:
    """Return the commands of a COMMANDS frame with their details, without copying them.

    Raises FrameError for a command that names details that the frame does not have.
    """
    commands = records(frame)
    details = NO_DETAILS
    if frame.details:
        details = np.frombuffer(frame.body, DETAILS, frame.details, frame.count * COMMAND.itemsize)
    if len(commands) and int(commands["details"].max()) > frame.details:
        most = int(commands["details"].max())
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"a command names details {most}; the frame has {frame.details}")
    return CommandList(commands, details)


def position(frame: Frame) -> FeedPosition | None:
    """Return the position in a HEARTBEAT, or None if it has no body. Raises FrameError."""
    if not len(frame.body):
        return None
    command, count, value = _unpacked(_POSITION, frame)
    return FeedPosition(frame.correlation, Claim(command, frame.aux), Digest(count, value))


def claim(frame: Frame) -> Claim:
    """Return the claim in an EVENTS or ATTESTATION frame. Raises FrameError."""
    if frame.kind is FrameKind.EVENTS:
        return Claim(frame.correlation, frame.aux)
    command, state_hash = _unpacked(_CLAIM, frame)
    return Claim(command, state_hash)


def _unpacked(layout: Struct, frame: Frame) -> tuple[int, ...]:
    if len(frame.body) != layout.size:
        raise FrameError(
            ErrorCode.MALFORMED_FRAME,
            f"{frame.kind.name}: expected a body of {layout.size} bytes, found {len(frame.body)}",
        )
    return layout.unpack(frame.body)


def leader_hint(frame: Frame) -> LeaderHint:
    """Return the body of a NOT_LEADER or PONG frame. Raises FrameError."""
    return _decode_body(frame, LeaderHint)


def error_body(frame: Frame) -> ErrorBody:
    """Return the body of an ERROR frame. Raises FrameError."""
    return _decode_body(frame, ErrorBody)


T = TypeVar("T")


def _decode_body(frame: Frame, schema: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(frame.body, type=schema)
    except (ValueError, RecursionError) as error:
        # Besides msgspec's own errors: UnicodeDecodeError for a str, RecursionError for nesting in skipped fields.
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"{frame.kind.name} body: {error}") from None
