"""Give an example of every record and frame of the protocol: docs/protocol.md shows their bytes, tests compare them."""

from typing import Any, Final

import numpy as np

from smrx.feed.subscription import Own, Subscription, credit_frame
from smrx.wire import frames, records
from smrx.wire.balance_digest import Digest
from smrx.wire.command_list import CommandList
from smrx.wire.frames import Claim, ErrorBody, ErrorCode, FeedPosition, FrameKind, LeaderHint
from smrx.wire.networks import pack_networks

Layout = np.dtype[Any]


def example(layout: Layout, **values: int | bytes) -> tuple[str, str]:
    """Return the values of a record as text, and its bytes in hex."""
    row = np.zeros(1, layout)
    for name, value in values.items():
        row[name] = value
    return ", ".join(f"{name} {_shown(layout[name], value)}" for name, value in values.items()), row.tobytes().hex()


def _shown(form: Layout, value: int | bytes) -> str:
    """Return a value as text: bytes that are no text in hex."""
    if isinstance(value, bytes):
        return value.hex() if form.kind == "V" else repr(value.decode())
    return str(value)


_KEY: Final = bytes(range(1, 33))
_NETWORKS, _PREFIXES = pack_networks(["10.1.0.0/16", "2001:db8::/32"])

#: An example of every layout: name, layout, values.
EXAMPLES: Final[tuple[tuple[str, Layout, dict[str, int | bytes]], ...]] = (
    (
        "COMMAND, a PLACE", records.COMMAND,
        {
            "kind": 1, "side": 1, "order_type": 1, "tif": 1, "stp": 1, "session_id": 7, "request_id": 3,
            "account": 1001, "instrument": 1, "client_order_id": int.from_bytes(b"my-order", "little"),
            "price_ticks": 6500000,
            "quantity_lots": 25,
        },
    ),
    (
        "COMMAND, a CANCEL by a long client order id", records.COMMAND,
        {"kind": 2, "details": 1, "session_id": 7, "request_id": 4, "account": 1001},
    ),
    (
        "ORDER_DETAILS", records.ORDER_DETAILS,
        {
            "client_order_id": b"x-4f9a6c1e2b7d4c0f9d1e", "stop_price_ticks": 6490000,
            "expiry_ns": 1_800_000_000_123_456_789,
        },
    ),
    (
        "TRANSFER_COMMAND, a DEPOSIT", records.TRANSFER_COMMAND,
        {
            "kind": 5, "session_id": 7, "request_id": 5, "account": 1001, "asset": 2, "transfer_id": 77,
            "amount": 1_000_000,
        },
    ),
    (
        "SESSION_COMMAND, an OPEN_SESSION", records.SESSION_COMMAND,
        {"kind": 10, "flags": 1, "session_id": 7, "account": 1001, "answers": 1024},
    ),
    (
        "ASSET_COMMAND, an ADD_ASSET", records.ASSET_COMMAND,
        {"kind": 12, "decimals": 8, "session_id": 1, "request_id": 1, "asset": 1, "symbol": b"BTC"},
    ),
    (
        "STATUS_COMMAND, a SET_STATUS", records.STATUS_COMMAND,
        {"kind": 14, "status": 2, "session_id": 1, "request_id": 9, "instrument": 1},
    ),
    (
        "LIMITS_COMMAND, a SET_LIMITS", records.LIMITS_COMMAND,
        {
            "kind": 15, "session_id": 1, "request_id": 8, "account": 1001, "max_open_orders": 200,
            "max_order_quantity": 5000,
        },
    ),
    (
        "RETENTION_COMMAND, a SET_RETENTION", records.RETENTION_COMMAND,
        {
            "kind": 22, "session_id": 1, "request_id": 10, "session_silence_s": 86400, "transfer_age_s": 604800,
            "transfers": 1_000_000,
        },
    ),
    (
        "CAPACITY_COMMAND, a SET_CAPACITY", records.CAPACITY_COMMAND,
        {
            "kind": 26, "session_id": 1, "request_id": 13, "accounts": 100_000, "orders": 1_000_000,
            "balances": 200_000, "sessions": 20_000, "answers": 20_000_000, "instruments": 1_000, "assets": 500,
            "credentials": 50_000,
        },
    ),
    (
        "ACCOUNT_COMMAND, an OPEN_ACCOUNT", records.ACCOUNT_COMMAND,
        {"kind": 7, "session_id": 1, "request_id": 11, "account": 1001, "firm": 12},
    ),
    (
        "CREDENTIAL_COMMAND, an ADD_CREDENTIAL", records.CREDENTIAL_COMMAND,
        {"kind": 23, "details": 1, "session_id": 1, "request_id": 12, "number": 501},
    ),
    ("VERSION_COMMAND, a SET_VERSION", records.VERSION_COMMAND, {"kind": 21, "version": 2}),
    (
        "INSTRUMENT_DETAILS", records.INSTRUMENT_DETAILS,
        {
            "symbol": b"BTC-USDT", "base_asset": 1, "quote_asset": 2, "lot_units": 1000, "scale_units": 10,
            "max_price_ticks": 100_000_000, "max_quantity_lots": 10_000_000,
        },
    ),
    (
        "RULES_DETAILS", records.RULES_DETAILS,
        {"min_notional": 5_000_000, "taker_fee": 1000, "maker_fee": -100, "band_bp": 1000, "collar_bp": 200},
    ),
    (
        "CREDENTIAL_DETAILS", records.CREDENTIAL_DETAILS,
        {
            "key": _KEY, "networks": _NETWORKS, "prefixes": _PREFIXES, "permissions": 3,
            "expires_ns": 1_800_000_000_000_000_000, "subject": 1001, "scope": 1,
        },
    ),
    (
        "EVENT, a NEW", records.EVENT,
        {
            "sequence": 40, "command_sequence": 12, "time_ns": 1_790_000_000_000_000_000, "kind": 1, "side": 1,
            "order_type": 1, "tif": 1, "stp": 1, "session_id": 7, "request_id": 3, "order_id": 12, "instrument": 1,
            "account": 1001, "client_order_id": int.from_bytes(b"my-order", "little"), "price_ticks": 6500000,
            "quantity_lots": 25, "leaves_lots": 25, "credential": 501,
        },
    ),
    (
        "TRADE_EVENT", records.TRADE_EVENT,
        {
            "sequence": 41, "command_sequence": 12, "kind": 8, "side": 1, "order_id": 12, "instrument": 1,
            "account": 1001, "price_ticks": 6499000, "quantity_lots": 10, "taker_fee": 64990, "maker_fee": -6499,
            "match_id": 5, "counter_order_id": 9, "counter_account": 1002,
        },
    ),
    (
        "CLIENT_ORDER_ID_EVENT", records.CLIENT_ORDER_ID_EVENT,
        {
            "sequence": 43, "command_sequence": 13, "kind": 28, "order_id": 13, "instrument": 1, "account": 1001,
            "client_order_id": b"x-4f9a6c1e2b7d4c0f9d1e",
        },
    ),
    (
        "ORDER_TERMS_EVENT", records.ORDER_TERMS_EVENT,
        {
            "sequence": 44, "command_sequence": 13, "kind": 29, "order_id": 13, "instrument": 1, "account": 1001,
            "stop_price_ticks": 6490000, "expiry_ns": 1_800_000_000_123_456_789,
        },
    ),
    (
        "TRANSFER_EVENT", records.TRANSFER_EVENT,
        {
            "sequence": 45, "command_sequence": 14, "kind": 9, "transfer_id": 77, "asset": 2, "account": 1001,
            "amount": 1_000_000, "available_after": 3_000_000,
        },
    ),
    (
        "SESSION_EVENT", records.SESSION_EVENT,
        {"sequence": 3, "command_sequence": 3, "kind": 14, "session_id": 7, "account": 1001, "answers": 1024},
    ),
    (
        "CANCELS_EVENT", records.CANCELS_EVENT,
        {"sequence": 60, "command_sequence": 20, "kind": 18, "side": 0, "account": 1001, "cancelled": 12},
    ),
    (
        "ASSET_EVENT", records.ASSET_EVENT,
        {"sequence": 1, "command_sequence": 1, "kind": 16, "asset": 1, "symbol": b"BTC", "decimals": 8},
    ),
    (
        "INSTRUMENT_EVENT", records.INSTRUMENT_EVENT,
        {
            "sequence": 2, "command_sequence": 2, "kind": 17, "instrument": 1, "symbol": b"BTC-USDT", "base_asset": 1,
            "quote_asset": 2, "lot_units": 1000, "scale_units": 10, "max_price_ticks": 100_000_000,
            "max_quantity_lots": 10_000_000,
        },
    ),
    (
        "STATUS_EVENT", records.STATUS_EVENT,
        {"sequence": 70, "command_sequence": 30, "kind": 19, "status": 2, "instrument": 1},
    ),
    (
        "LIMITS_EVENT", records.LIMITS_EVENT,
        {"sequence": 71, "command_sequence": 31, "kind": 20, "account": 1001, "max_open_orders": 200},
    ),
    (
        "RULES_EVENT", records.RULES_EVENT,
        {"sequence": 72, "command_sequence": 32, "kind": 24, "instrument": 1, "taker_fee": 1000, "maker_fee": -100},
    ),
    (
        "RETENTION_EVENT", records.RETENTION_EVENT,
        {
            "sequence": 73, "command_sequence": 33, "kind": 31, "session_silence_s": 86400, "transfer_age_s": 604800,
            "transfers": 1_000_000,
        },
    ),
    (
        "CAPACITY_EVENT", records.CAPACITY_EVENT,
        {
            "sequence": 78, "command_sequence": 37, "kind": 36, "accounts": 100_000, "orders": 1_000_000,
            "balances": 200_000, "sessions": 20_000, "answers": 20_000_000, "instruments": 1_000, "assets": 500,
            "credentials": 50_000,
        },
    ),
    (
        "ACCOUNT_EVENT", records.ACCOUNT_EVENT,
        {"sequence": 75, "command_sequence": 35, "kind": 11, "account": 1001, "firm": 12},
    ),
    (
        "CREDENTIAL_EVENT, a CREDENTIAL_ADDED", records.CREDENTIAL_EVENT,
        {
            "sequence": 76, "command_sequence": 36, "kind": 32, "number": 501, "account": 1001, "key": _KEY,
            "permissions": 3, "scope": 1, "expires_ns": 1_800_000_000_000_000_000, "subject": 1001, "following": 1,
        },
    ),
    (
        "CREDENTIAL_NETWORKS_EVENT", records.CREDENTIAL_NETWORKS_EVENT,
        {
            "sequence": 77, "command_sequence": 36, "kind": 35, "number": 501, "prefixes": _PREFIXES,
            "networks": _NETWORKS,
        },
    ),
    (
        "VERSION_EVENT", records.VERSION_EVENT,
        {"sequence": 74, "command_sequence": 34, "kind": 27, "version": 2},
    ),
    (
        "OUTCOME", records.OUTCOME,
        {
            "status": 1, "event_kind": 1, "event_count": 1, "session_id": 7, "request_id": 3, "sequence": 12,
            "order_id": 12, "first_event": 40, "leaves_lots": 25,
        },
    ),
)  # fmt: skip


def frame_examples() -> dict[str, bytes]:
    """Return an example of every kind of frame, by its name."""
    first = {name: example(layout, **values)[1] for name, layout, values in EXAMPLES}

    def record(name: str, layout: Layout) -> Any:
        return np.frombuffer(bytes.fromhex(first[name]), layout)

    hint = LeaderHint(2, "tcp://127.0.0.1:7012", 1, 5, "tcp://127.0.0.1:7015", 10_000)
    commands = CommandList(
        record("COMMAND, a CANCEL by a long client order id", records.COMMAND),
        record("ORDER_DETAILS", records.ORDER_DETAILS),
    )
    event = record("EVENT, a NEW", records.EVENT)
    return {
        "PING": frames.encode(FrameKind.PING, correlation=9, aux=7),
        "PONG": frames.encode_body(FrameKind.PONG, hint, 9),
        "NOT_LEADER": frames.encode_body(FrameKind.NOT_LEADER, hint, 9),
        "COMMANDS": frames.encode_commands(commands, 10),
        "OUTCOMES": frames.encode_outcomes(record("OUTCOME", records.OUTCOME), 10),
        "ERROR": frames.encode_body(FrameKind.ERROR, ErrorBody(int(ErrorCode.OVERLOADED), "send it again later"), 10),
        "EVENTS": frames.encode_events(event, 12, 0x0123456789ABCDEF),
        "HEARTBEAT": frames.encode_heartbeat(
            FeedPosition(41, Claim(12, 0x0123456789ABCDEF), Digest(4, 0x1122334455667788))
        ),
        "UNAVAILABLE": frames.encode(FrameKind.UNAVAILABLE, correlation=30, aux=40),
        "ATTESTATION": frames.encode_attestation(int(event["sequence"][0]), [event], Claim(12, 0x0123456789ABCDEF)),
        "RETRANSMIT": frames.encode(FrameKind.RETRANSMIT, correlation=35, aux=40),
        "ATTEST": frames.encode(FrameKind.ATTEST, correlation=35, aux=40),
        "SUBSCRIBE": Subscription(35, 1 << 20, frozenset({3, 7})).frame(),
        "SUBSCRIBE_OWN": Subscription(35, 1 << 20, Own.ACCOUNTS).frame(),
        "CREDIT": credit_frame(65568),
        "UPDATES": frames.encode_updates(event, 35, 50),
    }
