"""Encode and decode the packets of the native protocol: SoupBinTCP 3.00, with records of smrx as data.

A packet is a big-endian u16 with the number of bytes that follow, one byte of type, and a payload. Data from a client
is one COMMAND, or one COMMAND and its details; an answer is one OUTCOME. Owns packet types, lengths, layouts and their
checks. Sans I/O. Decoders raise PacketError for malformed bytes and nothing else.

Used by the gateway and by clients of the native protocol. docs/gateway.md describes every packet byte by byte.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE, OUTCOME, OUTCOME_SIZE

#: The length and the type before each payload.
HEADER_SIZE: Final = 3
#: The length of a packet counts its type, too.
_TYPE_SIZE: Final = 1
#: Printable ASCII characters of a sentence in a notice or a debug packet.
MAX_TEXT: Final = 400

USERNAME_SIZE: Final = 6
PASSWORD_SIZE: Final = 10
SESSION_SIZE: Final = 10
SEQUENCE_SIZE: Final = 20
LOGIN_SIZE: Final = USERNAME_SIZE + PASSWORD_SIZE + SESSION_SIZE + SEQUENCE_SIZE


class PacketType(IntEnum):
    """The types of packets: one ASCII character."""

    DEBUG = ord("+")  #: text, ignored by the receiver
    # From the server.
    LOGIN_ACCEPTED = ord("A")
    LOGIN_REJECTED = ord("J")
    SEQUENCED = ord("S")  #: an OUTCOME
    SERVER_HEARTBEAT = ord("H")
    END_OF_SESSION = ord("Z")
    # From the client.
    LOGIN_REQUEST = ord("L")
    CLIENT_HEARTBEAT = ord("R")
    LOGOUT_REQUEST = ord("O")
    # From both. From the client a COMMAND; from the server a notice.
    UNSEQUENCED = ord("U")


class RejectReason(IntEnum):
    """Why a login is rejected: one ASCII character."""

    NOT_AUTHORISED = ord("A")
    NO_SESSION = ord("S")


class NoticeCode(IntEnum):
    """Why a command was not forwarded to the exchange; it is not applied, and its request id is not used up."""

    MALFORMED = 1  #: not a command of the protocol
    FORBIDDEN = 2  #: a command that this client may not send
    WRONG_SESSION = 3  #: not the session that the connection has opened
    LIMITED = 4  #: a limit of the gateway or of the exchange
    UNAVAILABLE = 5  #: the exchange refuses commands of this gateway


class PacketError(ValueError):
    """The peer sent bytes that are not a packet of this protocol."""


class Packet(NamedTuple):
    """A packet of any type."""

    kind: int
    payload: bytes


class Login(NamedTuple):
    """A login request. Names are without the blanks that pad them."""

    username: str = ""
    password: str = ""
    session: str = ""
    #: The first sequenced packet wanted; 0 for the next one.
    sequence: int = 0


class Notice(NamedTuple):
    """An unsequenced packet of the server: a command that was not forwarded, by its session and request, and why."""

    code: NoticeCode
    session_id: int
    request_id: int
    text: str


_NOTICE: Final = Struct("<HHIQQ")
_LENGTH: Final = Struct(">H")


def _packet(payload: "np.dtype[Any]") -> "np.dtype[Any]":
    fields = {"length": (">u2", 0), "kind": ("u1", 2), "payload": (f"V{payload.itemsize}", HEADER_SIZE)}
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": HEADER_SIZE + payload.itemsize,
        }
    )


#: The packets of a command without details and of an outcome, as fixed-size records.
COMMAND_PACKET: Final = _packet(COMMAND)
OUTCOME_PACKET: Final = _packet(OUTCOME)


def encode(kind: PacketType, payload: bytes = b"") -> bytes:
    """Return one packet. Raises ValueError for a payload that does not fit."""
    if len(payload) + _TYPE_SIZE > 0xFFFF:
        raise ValueError(f"expected a payload of at most {0xFFFF - _TYPE_SIZE} bytes, found {len(payload)}")
    return b"".join((_LENGTH.pack(len(payload) + _TYPE_SIZE), bytes((kind,)), payload))


def encode_commands(commands: NDArray[np.void], details: NDArray[np.void] = NO_DETAILS) -> bytes:
    """Return the packets of commands (COMMAND) and of the details that they name, one packet for each command."""
    numbers = commands["details"]
    if not numbers.any():
        packets = np.empty(len(commands), COMMAND_PACKET)
        packets["length"], packets["kind"] = COMMAND_SIZE + _TYPE_SIZE, PacketType.UNSEQUENCED
        packets["payload"] = np.ascontiguousarray(commands).view(f"V{COMMAND_SIZE}")
        return packets.tobytes()
    single = commands.copy()
    single["details"] = numbers > 0
    parts = []
    for command, number in zip(single, numbers.tolist(), strict=True):
        more = details[number - 1].tobytes() if number else b""
        parts.append(encode(PacketType.UNSEQUENCED, command.tobytes() + more))
    return b"".join(parts)


def encode_outcomes(outcomes: NDArray[np.void]) -> bytes:
    """Return the packets of outcomes (OUTCOME)."""
    packets = np.empty(len(outcomes), OUTCOME_PACKET)
    packets["length"], packets["kind"] = OUTCOME_SIZE + _TYPE_SIZE, PacketType.SEQUENCED
    packets["payload"] = np.ascontiguousarray(outcomes).view(f"V{OUTCOME_SIZE}")
    return packets.tobytes()


def encode_login(login: Login) -> bytes:
    """Return a login request. Raises ValueError for a field that does not fit."""
    fields = (
        _text(login.username, USERNAME_SIZE).ljust(USERNAME_SIZE),
        _text(login.password, PASSWORD_SIZE).ljust(PASSWORD_SIZE),
        _text(login.session, SESSION_SIZE).rjust(SESSION_SIZE),
        _text(str(login.sequence), SEQUENCE_SIZE).rjust(SEQUENCE_SIZE),
    )
    return encode(PacketType.LOGIN_REQUEST, b"".join(fields))


def encode_accepted(session: str, sequence: int) -> bytes:
    """Return the acceptance of a login: the name of the session, and the number of the next sequenced packet."""
    name = _text(session, SESSION_SIZE).rjust(SESSION_SIZE)
    return encode(PacketType.LOGIN_ACCEPTED, name + str(sequence).encode().rjust(SEQUENCE_SIZE))


def encode_rejected(reason: RejectReason) -> bytes:
    """Return the rejection of a login."""
    return encode(PacketType.LOGIN_REJECTED, bytes((reason,)))


def encode_notice(notice: Notice) -> bytes:
    """Return a notice; its text is cut to MAX_TEXT characters."""
    head = _NOTICE.pack(notice.code, 0, 0, notice.session_id, notice.request_id)
    return encode(PacketType.UNSEQUENCED, head + sentence(notice.text))


def sentence(text: str) -> bytes:
    """Return a text for people as at most MAX_TEXT bytes of ASCII."""
    return text.encode("ascii", "replace")[:MAX_TEXT]


def decode_login(payload: bytes) -> Login:
    """Return a login request. Raises PacketError."""
    if len(payload) != LOGIN_SIZE:
        raise PacketError(f"login request: expected {LOGIN_SIZE} bytes, found {len(payload)}")
    try:
        text = payload.decode("ascii")
    except UnicodeDecodeError:
        raise PacketError("login request: expected ASCII text") from None
    ends = (USERNAME_SIZE, USERNAME_SIZE + PASSWORD_SIZE, LOGIN_SIZE - SEQUENCE_SIZE)
    number = text[ends[2] :].strip(" \0")
    if number and not number.isdecimal():
        raise PacketError(f"login request: expected a sequence number in digits, found {number!r}")
    session = text[ends[1] : ends[2]].strip(" \0")
    return Login(text[: ends[0]].strip(" \0"), text[ends[0] : ends[1]].strip(" \0"), session, int(number or 0))


def decode_accepted(payload: bytes) -> tuple[str, int]:
    """Return the session and the number of its next sequenced packet from the acceptance of a login."""
    text = payload.decode("ascii", "replace")
    number = text[SESSION_SIZE:].strip()
    if len(payload) != SESSION_SIZE + SEQUENCE_SIZE or not number.isdecimal():
        raise PacketError(f"login accepted: expected {SESSION_SIZE + SEQUENCE_SIZE} bytes with a number at the end")
    return text[:SESSION_SIZE].strip(), int(number)


def decode_notice(payload: bytes) -> Notice:
    """Return a notice. Raises PacketError."""
    if len(payload) < _NOTICE.size:
        raise PacketError(f"notice: expected at least {_NOTICE.size} bytes, found {len(payload)}")
    code, _, _, session, request = _NOTICE.unpack_from(payload)
    known = {int(member): member for member in NoticeCode}
    if code not in known:
        raise PacketError(f"notice: unknown code {code}")
    return Notice(known[code], session, request, payload[_NOTICE.size :].decode("ascii", "replace"))


def decode_command(payload: bytes) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return the command of an unsequenced packet of a client, and its details if it has some. Raises PacketError."""
    if len(payload) not in (COMMAND_SIZE, COMMAND_SIZE + DETAILS_SIZE):
        sizes = f"{COMMAND_SIZE} bytes, or {COMMAND_SIZE + DETAILS_SIZE} with details"
        raise PacketError(f"command: expected {sizes}, found {len(payload)}")
    command = np.frombuffer(payload, COMMAND, 1)
    return command, np.frombuffer(payload, DETAILS, offset=COMMAND_SIZE) if len(payload) > COMMAND_SIZE else NO_DETAILS


class PacketReader:
    """Cut a stream of bytes into packets: for clients, and for tests. The gateway has a compiled splitter."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that are complete with these bytes. Raises PacketError for a length of 0."""
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= HEADER_SIZE:
                (length,) = _LENGTH.unpack_from(self._rest, at)
                if not length:
                    raise PacketError("expected a packet of at least one byte, found a length of 0")
                end = at + HEADER_SIZE - _TYPE_SIZE + length
                if end > len(self._rest):
                    return
                packet = Packet(self._rest[at + HEADER_SIZE - _TYPE_SIZE], self._rest[at + HEADER_SIZE : end])
                at = end
                yield packet
        finally:
            self._rest = self._rest[at:]


def outcomes_of(packets: list[Packet]) -> NDArray[np.void]:
    """Return the outcomes among packets of the server, in order. Raises PacketError."""
    payloads = [packet.payload for packet in packets if packet.kind == PacketType.SEQUENCED]
    if any(len(payload) != OUTCOME_SIZE for payload in payloads):
        raise PacketError(f"sequenced data: expected {OUTCOME_SIZE} bytes")
    return np.frombuffer(b"".join(payloads), OUTCOME)


def _text(value: str, size: int) -> bytes:
    data = value.encode("ascii", "replace")
    if len(data) > size:
        raise ValueError(f"expected at most {size} characters, found {value!r}")
    return data
