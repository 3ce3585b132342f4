"""Admin messages round-trip, and a decoder returns a message or raises FrameError for any bytes."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import admin
from smrx.wire.frames import FrameError
from smrx.wire.state_image import StreamPosition
from tests.wire.mutation import mutated

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
    admin.Orders(account=1, instrument=2, offset=5, limit=6, order_id=(1 << 64) - 1, client_order_id="~" * 64),
    admin.Balances(),
    admin.Positions(account=7, offset=1),
    admin.Accounts(),
    admin.Assets(),
    admin.Instruments(),
    admin.Credentials(),
    admin.TakeStateImage(at=9),
    admin.ReadStateImage(at=9, offset=5),
    admin.Depth(instrument=4, level="any", min_sequence=7, max_age_ms=0.5),
    admin.Orders(packed=True, view="a view", level="leader"),
    admin.Snapshot(),
    admin.Shutdown(),
)
REPLIES: tuple[Any, ...] = (
    STATUS,
    admin.AdminError(node_id=1, sequence=2, code=3, message="expected", leader_id=None),
    admin.HashReply(node_id=1, sequence=2, at=3, state_hash=None),
    admin.BalancesReply(node_id=1, sequence=2, rows=(ROW, ROW), more=True),
    admin.PositionsReply(node_id=1, sequence=2, rows=(POSITION,)),
    admin.StateImageReply(node_id=1, sequence=2, at=9, position=StreamPosition(1, 2, 3, 4, 5), size=7, digest="ab"),
    admin.StateImagePart(node_id=1, sequence=2, at=9, data=b"ab", more=True),
    admin.OrdersReply(node_id=1, sequence=2, role="leader", age_ms=0.0, columns=(("order_id", "<u8"),), data=bytes(8)),
    admin.OrdersReply(node_id=1, sequence=2, role="follower", age_ms=None, more=True, view="a view"),
    admin.DepthReply(node_id=1, sequence=2, instrument=1, symbol="A", bids=(), asks=()),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_request_round_trips(request_: Any) -> None:
    assert admin.decode_request(admin.encode_request(request_, 1 << 63)) == (1 << 63, request_)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_reply_round_trips(reply: Any) -> None:
    assert admin.decode_reply(admin.encode_reply(reply, 5)) == (5, reply)


@given(
    mutated(st.sampled_from(REQUESTS).map(lambda request: admin.encode_request(request, 9))) | st.binary(max_size=300)
)
def test_any_bytes_decode_to_a_request_or_raise_frame_error(data: bytes) -> None:
    try:
        request_id, _ = admin.decode_request(data)
    except FrameError:
        request_id = admin.request_id(data)
    assert request_id == (int.from_bytes(data[:8], "little") if len(data) >= 8 else 0)


@given(mutated(st.sampled_from(REPLIES).map(lambda reply: admin.encode_reply(reply, 9))) | st.binary(max_size=300))
def test_any_bytes_decode_to_a_reply_or_raise_frame_error(data: bytes) -> None:
    try:
        request_id, reply = admin.decode_reply(data)
    except FrameError:
        return
    # Compared as bytes, because NaN does not equal itself.
    again = admin.encode_reply(reply, request_id)
    assert admin.encode_reply(admin.decode_reply(again)[1], request_id) == again


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Depth", "instrument": "A-SYMBOL-OF-25-CHARACTERS"},
        {"type": "Orders", "client_order_id": ""},
        {"type": "Orders", "client_order_id": "x" * 65},
        {"type": "Orders", "client_order_id": "caf\u00e9"},
        {"type": "Orders", "client_order_id": "two\nlines"},
        {"type": "Depth", "instrument": 1, "levels": 0},
        {"type": "Depth", "instrument": 1, "levels": admin.MAX_LEVELS + 1},
        {"type": "Orders", "limit": admin.MAX_ROWS + 1},
        {"type": "Orders", "offset": -1},
        {"type": "Orders", "account": 1 << 32},
        {"type": "Depth", "instrument": 1, "level": "newest"},
        {"type": "Depth", "instrument": 1, "min_sequence": -1},
        {"type": "Depth", "instrument": 1, "max_age_ms": -0.5},
        {"type": "HashAt", "at": -1},
        {"type": "HashAt"},
        {"type": "Explode"},
        {"instrument": 1},
        [],
    ],
)
def test_request_out_of_bounds_raises_frame_error(fields: Any) -> None:
    with pytest.raises(FrameError, match="admin message: "):
        admin.decode_request(bytes(8) + msgspec.msgpack.encode(fields))


def test_message_above_the_size_limit_is_rejected() -> None:
    with pytest.raises(FrameError, match="expected 9 to 4096 bytes, found 4097"):
        admin.decode_request(bytes(4097))


def test_unknown_fields_are_skipped() -> None:
    data = msgspec.msgpack.encode({"type": "HashAt", "at": 3, "new_in_version_9": [1, {"a": 2}]})
    assert admin.decode_request(bytes(8) + data) == (0, admin.HashAt(at=3))


def test_largest_reply_is_below_the_size_limit() -> None:
    fields = dict.fromkeys(admin.OrderRow.__struct_fields__, (1 << 63) - 1)
    widest = admin.OrderRow(**(fields | {"client_order_id": "x" * 64}))
    reply = admin.OrdersReply(node_id=1, sequence=1, rows=(widest,) * admin.MAX_ROWS)
    assert len(admin.encode_reply(reply, 1)) <= admin.MAX_REPLY_BYTES


def test_request_without_a_level_is_linearizable() -> None:
    """A program that knows no levels gets the newest state, or an error that it takes for temporary."""
    data = bytes(8) + msgspec.msgpack.encode({"type": "Depth", "instrument": 1})
    assert admin.decode_request(data)[1] == admin.Depth(instrument=1, level="linearizable")


def test_packed_rows_are_the_rows() -> None:
    dtype = [("account", "<u4"), ("asset", "<u4"), ("available", "<i8"), ("held", "<i8"), ("added_later", "u1")]
    records = np.array([(1, 2, 3, 4, 9), (1, 3, -(1 << 62), 0, 9)], np.dtype(dtype))
    columns, data = admin.pack(records)
    reply = admin.BalancesReply(node_id=1, sequence=2, columns=columns, data=data)
    _, received = admin.decode_reply(admin.encode_reply(reply, 1))
    assert isinstance(received, admin.BalancesReply)
    assert admin.rows_of(received) == (ROW, admin.BalanceRow(account=1, asset=3, available=-(1 << 62), held=0))
    assert admin.rows_of(admin.BalancesReply(node_id=1, sequence=2, rows=(ROW,))) == (ROW,)
    assert admin.rows_of(admin.BalancesReply(node_id=1, sequence=2)) == ()


@pytest.mark.parametrize(
    ("columns", "data"),
    [
        ((("account", "O"),), bytes(8)),
        ((("account", "<u4"), ("account", "<u4")), bytes(8)),
        ((("account", "<u4"),), bytes(3)),
        ((("account", "<u4"),), bytes(4)),
        ((("", ""),), b""),
        (tuple((f"c{n}", "|u1") for n in range(65)), bytes(65)),
    ],
)
def test_packed_rows_that_are_none_raise_frame_error(columns: Any, data: bytes) -> None:
    with pytest.raises(FrameError, match="page: "):
        admin.rows_of(admin.BalancesReply(node_id=1, sequence=2, columns=columns, data=data))
