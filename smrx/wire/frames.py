"""The binary frames of order entry and of the event feed: bytes in, records out, nothing else.

Rules:

- A frame is one ZeroMQ message part: a 32-byte header, then `count` fixed-size records or a msgpack body.
- Decoders never trust the bytes: they raise FrameError (the peer's fault) and touch nothing else.
- No sockets, no clock, no state. Little-endian throughout.

Header (32 bytes): magic "SMRX", version u8, kind u8, reserved u16, count u32, reserved u32, correlation u64, aux u64.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.balance_digest import Digest
from smrx.wire.records import COMMAND, EVENT, OUTCOME

MAGIC: Final = 0x58524D53
VERSION: Final = 1
HEADER_SIZE: Final = 32

#: Commands a COMMANDS frame may carry: 256 KiB of records, so one frame never fills a 1 MiB Raft entry alone.
MAX_COMMANDS: Final = 4096
#: Events an EVENTS frame may carry (1 MiB of records).
MAX_EVENTS: Final = 8192
#: What a socket accepts as one message; ZeroMQ drops the connection of a peer that sends more.
MAX_FRAME_BYTES: Final = HEADER_SIZE + MAX_EVENTS * EVENT.itemsize + 4096

_POSITION: Final = Struct("<QQQ")
_CLAIM: Final = Struct("<QQ")


class FrameKind(IntEnum):
    """correlation and aux by kind; 0 where not named."""

    COMMANDS = 1  #: client to node; count commands; correlation chosen by the client and echoed
    OUTCOMES = 2  #: node to client; count outcomes, in the order of the commands; correlation of the COMMANDS frame
    NOT_LEADER = 3  #: node to client; body LeaderHint; the commands of the frame echoed may or may not be applied later
    ERROR = 4  #: node to client; body ErrorBody; nothing of the frame was applied
    PING = 5  #: client to node; aux = a session that is to be heard of, 0 if none
    PONG = 6  #: node to client; body LeaderHint
    EVENTS = (
        10  #: node to subscriber; count events; correlation = sequence of the last command; aux = state hash after it
    )
    HEARTBEAT = (
        11  #: node to subscriber; correlation = next event sequence expected; aux = state hash now; body Position
    )
    RETRANSMIT = 12  #: subscriber to node; correlation = first event sequence wanted, aux = last wanted (0 = newest)
    UNAVAILABLE = 13  #: node to subscriber; correlation = oldest event sequence held, aux = newest held
    VOUCH = 14  #: subscriber to node; correlation = first event sequence, aux = last: what are these events to you?
    VOUCHED = 15  #: node to subscriber; count events from correlation on; aux = xxh3 of their records; body Claim


class ErrorCode(IntEnum):
    MALFORMED_FRAME = 1
    TOO_MANY_COMMANDS = 2
    UNSUPPORTED_VERSION = 3
    OVERLOADED = 4
    FENCED = 5
    FORBIDDEN = 6


class LeaderHint(msgspec.Struct, frozen=True):
    """Who leads, as far as the answering node knows."""

    leader_id: int | None
    order_address: str | None
    node_id: int
    term: int
    #: Where the answering node answers queries.
    admin_address: str | None = None
    #: How long a session that asked for cancel-on-disconnect may be silent.
    disconnect_ms: int | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """What was expected and what was found."""

    code: int
    message: str


class FrameError(ValueError):
    """The peer sent bytes that are not a frame of this protocol."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Claim(NamedTuple):
    """What a node says of its state after a command; command 0 where it says nothing."""

    command_sequence: int
    state_hash: int


class Position(NamedTuple):
    """Where a node stands when it says so in a heartbeat: everything before `next_event` is published."""

    next_event: int
    claim: Claim
    balances: Digest


class Frame(msgspec.Struct, frozen=True):
    """A decoded header and the bytes behind it."""

    kind: FrameKind
    count: int
    correlation: int
    aux: int
    body: memoryview


def encode(
    kind: FrameKind, body: bytes | memoryview = b"", count: int = 0, correlation: int = 0, aux: int = 0
) -> bytes:
    """Return one frame."""
    head = (
        MAGIC.to_bytes(4, "little")
        + bytes((VERSION, kind, 0, 0))
        + count.to_bytes(8, "little")
        + correlation.to_bytes(8, "little")
        + aux.to_bytes(8, "little")
    )
    return b"".join((head, body))


def encode_commands(commands: NDArray[np.void], correlation: int = 0) -> bytes:
    """Return a COMMANDS frame; raises ValueError beyond MAX_COMMANDS."""
    if len(commands) > MAX_COMMANDS:
        raise ValueError(f"expected at most {MAX_COMMANDS} commands in a frame, found {len(commands)}")
    return encode(FrameKind.COMMANDS, commands.tobytes(), len(commands), correlation)


def encode_outcomes(outcomes: NDArray[np.void], correlation: int) -> bytes:
    """Return an OUTCOMES frame."""
    return encode(FrameKind.OUTCOMES, outcomes.tobytes(), len(outcomes), correlation)


def encode_events(events: NDArray[np.void], command_sequence: int, state_hash: int) -> bytes:
    """Return an EVENTS frame; raises ValueError beyond MAX_EVENTS."""
    if len(events) > MAX_EVENTS:
        raise ValueError(f"expected at most {MAX_EVENTS} events in a frame, found {len(events)}")
    return encode(FrameKind.EVENTS, events.tobytes(), len(events), command_sequence, state_hash)


def encode_heartbeat(position: Position) -> bytes:
    """Return a HEARTBEAT frame."""
    command, state_hash = position.claim
    body = _POSITION.pack(command, position.balances.balances, position.balances.value)
    return encode(FrameKind.HEARTBEAT, body, correlation=position.next_event, aux=state_hash)


def encode_vouched(events: NDArray[np.void], claim: Claim) -> bytes:
    """Return a VOUCHED frame for events in sequence, at least one."""
    first = int(events["sequence"][0])
    return encode(FrameKind.VOUCHED, _CLAIM.pack(*claim), len(events), first, records_digest(events))


def records_digest(*parts: NDArray[np.void]) -> int:
    """The xxh3 of records one after the other, as VOUCHED carries it."""
    whole = xxhash.xxh3_64()
    for part in parts:
        whole.update(np.ascontiguousarray(part).view(np.uint8).data)
    return whole.intdigest()


def encode_body(kind: FrameKind, body: LeaderHint | ErrorBody, correlation: int = 0) -> bytes:
    """Return a frame whose body is msgpack."""
    return encode(kind, msgspec.msgpack.encode(body), 0, correlation)


_RECORD_SIZE: Final = {
    FrameKind.COMMANDS: COMMAND.itemsize,
    FrameKind.OUTCOMES: OUTCOME.itemsize,
    FrameKind.EVENTS: EVENT.itemsize,
}
_MAX_COUNT: Final = {
    FrameKind.COMMANDS: MAX_COMMANDS,
    FrameKind.OUTCOMES: MAX_COMMANDS,
    FrameKind.EVENTS: MAX_EVENTS,
}
_KINDS: Final = {int(kind): kind for kind in FrameKind}


def decode(data: bytes | memoryview) -> Frame:
    """Return the frame in `data`, its length checked against its count; raises FrameError."""
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
    if view[6] or view[7] or any(view[12:16]):
        raise FrameError(ErrorCode.MALFORMED_FRAME, "expected reserved header bytes to be 0")
    count = int.from_bytes(view[8:12], "little")
    size = _RECORD_SIZE.get(kind)
    if size is not None:
        if count > _MAX_COUNT[kind]:
            raise FrameError(
                ErrorCode.TOO_MANY_COMMANDS, f"expected at most {_MAX_COUNT[kind]} records in a frame, found {count}"
            )
        if len(view) - HEADER_SIZE != count * size:
            raise FrameError(
                ErrorCode.MALFORMED_FRAME,
                f"expected {count} records of {size} bytes after the header, found {len(view) - HEADER_SIZE} bytes",
            )
    return Frame(
        kind,
        count,
        int.from_bytes(view[16:24], "little"),
        int.from_bytes(view[24:32], "little"),
        view[HEADER_SIZE:],
    )


def records(frame: Frame) -> NDArray[np.void]:
    """Return a COMMANDS, OUTCOMES or EVENTS frame's records, without a copy."""
    dtype = {FrameKind.COMMANDS: COMMAND, FrameKind.OUTCOMES: OUTCOME, FrameKind.EVENTS: EVENT}[frame.kind]
    return np.frombuffer(frame.body, dtype=dtype, count=frame.count)


def position(frame: Frame) -> Position | None:
    """Return what a HEARTBEAT says; None where it says only which event comes next; raises FrameError."""
    if not len(frame.body):
        return None
    command, count, value = _unpacked(_POSITION, frame)
    return Position(frame.correlation, Claim(command, frame.aux), Digest(count, value))


def claim(frame: Frame) -> Claim:
    """Return the claim in an EVENTS or VOUCHED frame; raises FrameError."""
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
    """Return the body of NOT_LEADER or PONG; raises FrameError."""
    return _decode_body(frame, LeaderHint)


def error_body(frame: Frame) -> ErrorBody:
    """Return the body of ERROR; raises FrameError."""
    return _decode_body(frame, ErrorBody)


T = TypeVar("T")


def _decode_body(frame: Frame, schema: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(frame.body, type=schema)
    except (ValueError, RecursionError) as error:
        # Beside msgspec's own errors: UnicodeDecodeError for a str, RecursionError for nesting in skipped fields.
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"{frame.kind.name} body: {error}") from None
