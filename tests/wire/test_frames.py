"""Frames round-trip, and a decoder returns a frame or raises FrameError for any bytes."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import frames
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE, EVENT, OUTCOME
from tests.wire.mutation import mutated

HINT = LeaderHint(2, "tcp://127.0.0.1:1", 1, 5, "tcp://127.0.0.1:2")


def command_list(count: int, details: int = 0) -> CommandList:
    """Return commands of random bytes, of which the first `details` have details."""
    random = np.random.default_rng(count)
    records = np.frombuffer(random.bytes(COMMAND_SIZE * count), COMMAND).copy()
    records["details"] = 0
    records["details"][:details] = np.arange(1, details + 1)
    return CommandList(records, np.frombuffer(random.bytes(DETAILS_SIZE * details), DETAILS))


frame_bytes = st.one_of(
    st.integers(0, 5).map(lambda n: frames.encode_commands(command_list(n, n // 2), 7)),
    st.integers(0, 5).map(lambda n: frames.encode_outcomes(np.ones(n, OUTCOME), 7)),
    st.integers(0, 5).map(lambda n: frames.encode_events(np.ones(n, EVENT), 7, 9)),
    st.sampled_from(FrameKind).map(lambda kind: frames.encode(kind)),
    st.just(frames.encode_body(FrameKind.NOT_LEADER, HINT, 3)),
    st.just(frames.encode_body(FrameKind.ERROR, ErrorBody(4, "expected less"), 3)),
)


def read_fully(data: bytes) -> Frame:
    """Decode a frame and its body."""
    frame = frames.decode(data)
    if frame.kind in (FrameKind.COMMANDS, FrameKind.OUTCOMES, FrameKind.EVENTS):
        assert len(frames.records(frame)) == frame.count
        if frame.kind is FrameKind.COMMANDS:
            assert len(frames.command_list(frame).details) == frame.details
    elif frame.kind in (FrameKind.NOT_LEADER, FrameKind.PONG):
        frames.leader_hint(frame)
    elif frame.kind is FrameKind.ERROR:
        frames.error_body(frame)
    return frame


@given(mutated(frame_bytes) | st.binary(max_size=300))
def test_any_bytes_decode_to_a_frame_or_raise_frame_error(data: bytes) -> None:
    try:
        frame = read_fully(data)
    except FrameError:
        return
    assert frames.encode(frame.kind, frame.body, frame.count, frame.correlation, frame.aux, frame.details) == data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\x81\xa1x" + b"\x91" * 5000,
        msgspec.msgpack.encode(HINT).replace(b"127", b"\xff27"),
        msgspec.msgpack.encode(HINT) + b"\x00",
        msgspec.msgpack.encode({"leader_id": "one", "order_address": None, "node_id": 1, "term": 1}),
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_malformed_body_raises_frame_error(body: bytes) -> None:
    for kind in (FrameKind.NOT_LEADER, FrameKind.ERROR):
        with pytest.raises(FrameError, match=f"{kind.name} body: "):
            read_fully(frames.encode(kind, body))


@pytest.mark.parametrize("kind", FrameKind)
def test_frame_round_trips(kind: FrameKind) -> None:
    frame = frames.decode(frames.encode(kind, correlation=(1 << 64) - 1, aux=5))
    assert (frame.kind, frame.count, frame.correlation, frame.aux) == (kind, 0, (1 << 64) - 1, 5)


@pytest.mark.parametrize("details", [0, 1, 9])
def test_records_round_trip(details: int) -> None:
    commands = command_list(9, details)
    frame = frames.decode(frames.encode_commands(commands, 4))
    assert frames.records(frame).tobytes() == commands.records.tobytes()
    found = frames.command_list(frame)
    assert [part.tobytes() for part in found] == [part.tobytes() for part in commands]
    assert frames.leader_hint(frames.decode(frames.encode_body(FrameKind.PONG, HINT))) == HINT


def test_too_many_records_are_rejected_by_encoder_and_decoder() -> None:
    too_many = np.zeros(frames.MAX_COMMANDS + 1, COMMAND)
    with pytest.raises(ValueError, match="COMMANDS: expected at most 4096 commands, found 4097"):
        frames.encode_commands(CommandList(too_many))
    too_many_details = CommandList(too_many[:1], np.zeros(frames.MAX_COMMANDS + 1, DETAILS))
    with pytest.raises(ValueError, match="COMMANDS: expected at most 4096 details, found 4097"):
        frames.encode_commands(too_many_details)
    with pytest.raises(FrameError, match="COMMANDS: expected at most 4096 records, found 4097"):
        frames.decode(frames.encode(FrameKind.COMMANDS, count=1, details=4097))
    with pytest.raises(FrameError, match="COMMANDS: expected at most 4096 records") as caught:
        frames.decode(frames.encode(FrameKind.COMMANDS, too_many.tobytes(), len(too_many)))
    assert caught.value.code is ErrorCode.TOO_MANY_COMMANDS
    with pytest.raises(ValueError, match="EVENTS: expected at most 8192 records"):
        frames.encode_events(np.zeros(frames.MAX_EVENTS + 1, EVENT), 0, 0)


def test_unsupported_version_is_reported() -> None:
    data = bytearray(frames.encode(FrameKind.PING))
    data[4] = 9
    with pytest.raises(FrameError, match="expected protocol version 2, found 9") as caught:
        frames.decode(bytes(data))
    assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION


def test_command_that_names_details_of_no_one_is_refused() -> None:
    records, details = command_list(3, 2)
    records["details"][2] = 3
    frame = frames.decode(frames.encode_commands(CommandList(records, details)))
    with pytest.raises(FrameError, match="a command names details 3; the frame has 2") as caught:
        frames.command_list(frame)
    assert caught.value.code is ErrorCode.MALFORMED_FRAME


def test_only_frames_of_commands_have_details() -> None:
    with pytest.raises(FrameError, match="reserved header bytes"):
        frames.decode(frames.encode(FrameKind.PING, details=1))
