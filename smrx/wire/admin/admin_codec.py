"""Encode and decode admin messages: 8 bytes of request id, then one tagged msgpack struct."""

from typing import Any, Final, TypeVar

import msgspec

from smrx.wire.admin.admin_replies import AnyReply
from smrx.wire.admin.admin_requests import AnyRequest
from smrx.wire.frames import ErrorCode, FrameError

#: A request is a few small fields.
MAX_REQUEST_BYTES: Final = 4096
#: More than MAX_ROWS rows of the widest kind need.
MAX_REPLY_BYTES: Final = 8 << 20

_ID_SIZE: Final = 8

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final[msgspec.msgpack.Decoder[AnyRequest]] = msgspec.msgpack.Decoder(AnyRequest)
_replies: Final[msgspec.msgpack.Decoder[AnyReply]] = msgspec.msgpack.Decoder(AnyReply)

M = TypeVar("M")


def encode_request(request: AnyRequest, request_id: int) -> bytes:
    """Return the encoded request."""
    return request_id.to_bytes(_ID_SIZE, "little") + _encoder.encode(request)


def decode_request(data: bytes) -> tuple[int, AnyRequest]:
    """Return (request id, request). Raises FrameError; request_id() still returns the id of such a message."""
    return _decode(data, _requests, MAX_REQUEST_BYTES)


def encode_reply(reply: AnyReply, request_id: int) -> bytes:
    """Return the encoded reply to the request with this id."""
    return request_id.to_bytes(_ID_SIZE, "little") + _encoder.encode(reply)


def decode_reply(data: bytes) -> tuple[int, AnyReply]:
    """Return (request id, reply). Raises FrameError."""
    return _decode(data, _replies, MAX_REPLY_BYTES)


def request_id(data: bytes) -> int:
    """Return the request id of a message, even of a malformed one; 0 if it is too short to have one."""
    return int.from_bytes(data[:_ID_SIZE], "little") if len(data) >= _ID_SIZE else 0


def _decode(data: bytes, decoder: "msgspec.msgpack.Decoder[M]", limit: int) -> tuple[int, M]:
    if not _ID_SIZE < len(data) <= limit:
        raise FrameError(
            ErrorCode.MALFORMED_FRAME, f"admin message: expected {_ID_SIZE + 1} to {limit} bytes, found {len(data)}"
        )
    try:
        message: Any = decoder.decode(memoryview(data)[_ID_SIZE:])
    except (ValueError, RecursionError) as error:
        # Besides msgspec's own errors: UnicodeDecodeError for a str, RecursionError for nesting in skipped fields.
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"admin message: {error}") from None
    return request_id(data), message
