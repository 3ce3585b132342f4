"""Frames, log entries and admin messages: whatever the bytes, a decoder answers or raises FrameError."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import admin, batches, frames
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, COMMAND_SIZE, EVENT, OUTCOME

HINT = LeaderHint(2, "tcp://127.0.0.1:1", 1, 5, "tcp://127.0.0.1:2")

frame_bytes = st.one_of(
    st.integers(0, 5).map(lambda n: frames.encode_commands(np.ones(n, COMMAND), 7)),
    st.integers(0, 5).map(lambda n: frames.encode_outcomes(np.ones(n, OUTCOME), 7)),
    st.integers(0, 5).map(lambda n: frames.encode_events(np.ones(n, EVENT), 7, 9)),
    st.sampled_from(FrameKind).map(lambda kind: frames.encode(kind)),
    st.just(frames.encode_body(FrameKind.NOT_LEADER, HINT, 3)),
    st.just(frames.encode_body(FrameKind.ERROR, ErrorBody(4, "expected less"), 3)),
)

ROW = admin.BalanceRow(account=1, asset=2, available=3, held=4)
STATUS = admin.NodeStatus(
    node_id=1,
    sequence=2,
    cluster="c",
    role="leader",
    term=1,
    leader_id=1,
    commit_index=1,
    applied_index=1,
    last_log_index=1,
    event_sequence=1,
    trades=0,
    state_hash=(1 << 64) - 1,
    agreement=admin.AgreementStatus(state="AGREE", sequence=2),
    peers=(admin.PeerStatus(node_id=2, connected=True, silent_s=0.5),),
)
POSITION = admin.PositionRow(
    account=7, instrument=1, base_available=5, base_held=2, quote_available=0, quote_held=9,
    buy_orders=1, buy_lots="3", buy_notional="9", sell_orders=2, sell_lots="2", sell_notional=str(1 << 70),
)  # fmt: skip
REQUESTS: tuple[Any, ...] = (
    admin.Status(),
    admin.HashAt(at=3),
    admin.LogDigest(),
    admin.Depth(instrument="BTC-USD", levels=3),
    admin.Depth(instrument=4),
    admin.Orders(account=1, instrument=2, offset=5, limit=6),
    admin.Balances(),
    admin.Positions(account=7, offset=1),
    admin.Accounts(),
    admin.Assets(),
    admin.Instruments(),
    admin.Barrier(),
    admin.Snapshot(),
    admin.Corrupt(account=1, asset=2, delta=-3),
    admin.Shutdown(),
)
REPLIES: tuple[Any, ...] = (
    STATUS,
    admin.AdminError(node_id=1, sequence=2, code=3, message="expected", leader_id=None),
    admin.HashReply(node_id=1, sequence=2, at=3, state_hash=None),
    admin.BalancesReply(node_id=1, sequence=2, rows=(ROW, ROW), more=True),
    admin.PositionsReply(node_id=1, sequence=2, rows=(POSITION,)),
    admin.DepthReply(node_id=1, sequence=2, instrument=1, symbol="A", bids=(), asks=()),
)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Good bytes, then cut, lengthened, or changed in a few places."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=70))


def read_fully(data: bytes) -> Frame:
    """Decode a frame and all that is in it."""
    frame = frames.decode(data)
    if frame.kind in (FrameKind.COMMANDS, FrameKind.OUTCOMES, FrameKind.EVENTS):
        assert len(frames.records(frame)) == frame.count
    elif frame.kind in (FrameKind.NOT_LEADER, FrameKind.PONG):
        frames.leader_hint(frame)
    elif frame.kind is FrameKind.ERROR:
        frames.error_body(frame)
    return frame


@given(mutated(frame_bytes) | st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    try:
        frame = read_fully(data)
    except FrameError:
        return
    assert frames.encode(frame.kind, frame.body, frame.count, frame.correlation, frame.aux) == data


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
def test_a_body_that_is_none_is_a_frame_error(body: bytes) -> None:
    for kind in (FrameKind.NOT_LEADER, FrameKind.ERROR):
        with pytest.raises(FrameError, match=f"{kind.name} body: "):
            read_fully(frames.encode(kind, body))


@pytest.mark.parametrize("kind", FrameKind)
def test_a_frame_comes_back_as_it_was(kind: FrameKind) -> None:
    frame = frames.decode(frames.encode(kind, correlation=(1 << 64) - 1, aux=5))
    assert (frame.kind, frame.count, frame.correlation, frame.aux) == (kind, 0, (1 << 64) - 1, 5)


def test_records_come_back_as_they_were() -> None:
    commands = np.frombuffer(np.random.default_rng(1).bytes(COMMAND_SIZE * 9), COMMAND)
    frame = frames.decode(frames.encode_commands(commands, 4))
    assert frames.records(frame).tobytes() == commands.tobytes()
    assert frames.leader_hint(frames.decode(frames.encode_body(FrameKind.PONG, HINT))) == HINT


def test_too_many_records_are_refused_on_both_sides() -> None:
    too_many = np.zeros(frames.MAX_COMMANDS + 1, COMMAND)
    with pytest.raises(ValueError, match="at most 4096 commands"):
        frames.encode_commands(too_many)
    with pytest.raises(FrameError, match="at most 4096 records") as caught:
        frames.decode(frames.encode(FrameKind.COMMANDS, too_many.tobytes(), len(too_many)))
    assert caught.value.code is ErrorCode.TOO_MANY_COMMANDS
    with pytest.raises(ValueError, match="at most 8192 events"):
        frames.encode_events(np.zeros(frames.MAX_EVENTS + 1, EVENT), 0, 0)


def test_another_version_is_named() -> None:
    data = bytearray(frames.encode(FrameKind.PING))
    data[4] = 9
    with pytest.raises(FrameError, match="expected protocol version 1, found 9") as caught:
        frames.decode(bytes(data))
    assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION


# Log entries


@given(st.integers(0, 20), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, (1 << 64) - 1))
def test_an_entry_comes_back_as_it_was(count: int, time_ns: int, word: int) -> None:
    commands = np.frombuffer(np.random.default_rng(count).bytes(COMMAND_SIZE * count), COMMAND)
    whole = batches.encode(commands.tobytes(), time_ns, word, word ^ 1)
    parts = [memoryview(commands[i : i + 3].tobytes()) for i in range(0, count, 3)]
    assert batches.encode(parts, time_ns, word, word ^ 1) == whole
    assert whole[0] == 0, "PySyncObj reads the first byte as the type of the entry"
    batch = batches.decode(whole)
    assert (batch.time_ns, batch.sequence, batch.state_hash) == (time_ns, word, word ^ 1)
    assert batch.commands.tobytes() == commands.tobytes()


@given(mutated(st.integers(0, 4).map(lambda n: batches.encode(bytes(64 * n), 1, 2, 3))) | st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_a_frame_error(data: bytes) -> None:
    try:
        batch = batches.decode(data)
    except FrameError:
        return
    assert batches.encode(batch.commands.tobytes(), *batch[:3]) == data


def test_an_entry_stays_below_a_mebibyte() -> None:
    most = (batches.MAX_ENTRY_BYTES - batches.HEADER_SIZE) // COMMAND_SIZE
    assert most >= frames.MAX_COMMANDS
    assert len(batches.encode(bytes(COMMAND_SIZE * most), 0, 0, 0)) <= batches.MAX_ENTRY_BYTES < 1 << 20
    with pytest.raises(ValueError, match="at most"):
        batches.encode(bytes(COMMAND_SIZE * (most + 1)), 0, 0, 0)
    with pytest.raises(ValueError, match="whole commands"):
        batches.encode(bytes(63), 0, 0, 0)
    too_long = batches.encode(b"", 0, 0, 0)[:4] + (most + 1).to_bytes(4, "little") + bytes(24 + 64 * (most + 1))
    with pytest.raises(FrameError, match="at most"):
        batches.decode(too_long)


# Admin messages


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_comes_back_as_it_was(request_: Any) -> None:
    assert admin.decode_request(admin.encode_request(request_, 1 << 63)) == (1 << 63, request_)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_a_reply_comes_back_as_it_was(reply: Any) -> None:
    assert admin.decode_reply(admin.encode_reply(reply, 5)) == (5, reply)


@given(
    mutated(st.sampled_from(REQUESTS).map(lambda request: admin.encode_request(request, 9))) | st.binary(max_size=300)
)
def test_any_bytes_are_a_request_or_a_frame_error(data: bytes) -> None:
    try:
        request_id, _ = admin.decode_request(data)
    except FrameError:
        request_id = admin.request_id(data)
    assert request_id == (int.from_bytes(data[:8], "little") if len(data) >= 8 else 0)


@given(mutated(st.sampled_from(REPLIES).map(lambda reply: admin.encode_reply(reply, 9))) | st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_a_frame_error(data: bytes) -> None:
    try:
        request_id, reply = admin.decode_reply(data)
    except FrameError:
        return
    # As bytes: a float that is not a number does not equal itself.
    again = admin.encode_reply(reply, request_id)
    assert admin.encode_reply(admin.decode_reply(again)[1], request_id) == again


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Depth", "instrument": "TOO-LONG-A-SYMBOL"},
        {"type": "Depth", "instrument": 1, "levels": 0},
        {"type": "Depth", "instrument": 1, "levels": admin.MAX_LEVELS + 1},
        {"type": "Orders", "limit": admin.MAX_ROWS + 1},
        {"type": "Orders", "offset": -1},
        {"type": "Orders", "account": 1 << 32},
        {"type": "HashAt", "at": -1},
        {"type": "HashAt"},
        {"type": "Corrupt", "account": 1, "asset": 1, "delta": "1"},
        {"type": "Explode"},
        {"instrument": 1},
        [],
    ],
)
def test_a_request_out_of_bounds_is_a_frame_error(fields: Any) -> None:
    with pytest.raises(FrameError, match="admin message: "):
        admin.decode_request(bytes(8) + msgspec.msgpack.encode(fields))


def test_a_message_that_is_too_long_is_not_decoded() -> None:
    with pytest.raises(FrameError, match="expected 9 to 4096 bytes, found 4097"):
        admin.decode_request(bytes(4097))


def test_unknown_fields_are_skipped() -> None:
    data = msgspec.msgpack.encode({"type": "HashAt", "at": 3, "new_in_version_9": [1, {"a": 2}]})
    assert admin.decode_request(bytes(8) + data) == (0, admin.HashAt(at=3))


def test_the_largest_reply_fits() -> None:
    widest = admin.OrderRow(**dict.fromkeys(admin.OrderRow.__struct_fields__, (1 << 63) - 1))
    reply = admin.OrdersReply(node_id=1, sequence=1, rows=(widest,) * admin.MAX_ROWS)
    assert len(admin.encode_reply(reply, 1)) <= admin.MAX_REPLY_BYTES
