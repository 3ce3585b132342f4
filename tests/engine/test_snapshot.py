"""Snapshots: a restore gives the same state, and rejects every other input."""

from collections.abc import Callable

import numpy as np
import pytest
import xxhash

from smrx.engine import Engine, SnapshotError
from smrx.engine.migrations import LAYOUT_VERSION
from smrx.engine.snapshot import FORMAT, HEADER, LAYOUT, packed, unpacked
from smrx.wire.codes import Side
from smrx.wire.records import COMMAND
from tests.commands import apply, place
from tests.engine.small_market import busy_market, same_bytes


def resealed(data: bytes) -> bytes:
    """Return a snapshot with new checksums for its contents, as an attacker would make them."""
    header = np.frombuffer(data[: HEADER.itemsize], HEADER).copy()
    body = data[HEADER.itemsize :]
    header["body_bytes"] = len(body)
    header["body_hash"] = xxhash.xxh3_64_intdigest(body)
    header["header_hash"] = xxhash.xxh3_64_intdigest(header.tobytes()[: HEADER.itemsize - 8])
    return header.tobytes() + body


def with_header(data: bytes, **fields: int | bytes) -> bytes:
    """Return a snapshot with other header fields and correct checksums."""
    header = np.frombuffer(data[: HEADER.itemsize], HEADER).copy()
    for name, value in fields.items():
        header[name] = value
    return resealed(header.tobytes() + data[HEADER.itemsize :])


def with_record(data: bytes, table: str, slot: int, field: str, value: int) -> bytes:
    """Return a snapshot with one field of one record changed and correct checksums."""
    header, arrays = unpacked(data, LAYOUT)
    # Not copy(): it leaves the padding of records undefined.
    rows = np.frombuffer(bytearray(arrays[table].tobytes()), arrays[table].dtype)
    rows[field][slot] = value
    return b"".join(packed(arrays | {table: rows}, int(header["content_hash"]), LAYOUT))


def open_slot(data: bytes) -> int:
    """Return the slot of an open order."""
    return int(np.flatnonzero(unpacked(data, LAYOUT)[1]["orders"]["live"])[0])


def test_restored_engine_is_identical() -> None:
    market = busy_market()
    data = market.engine.snapshot()
    again = Engine.restore(data)
    assert again.snapshot() == data
    assert again.check_invariants() == []
    for name in ("sequence", "event_sequence", "match_sequence", "time_ns", "state_hash", "trade_count"):
        assert getattr(again, name) == getattr(market.engine, name)
    assert again.inspect.orders().tobytes() == market.engine.inspect.orders().tobytes()
    assert again.inspect.depth(1, 99) == market.engine.inspect.depth(1, 99)
    assert [again.hash_at(n) for n in range(99)] == [market.engine.hash_at(n) for n in range(99)]
    for price in range(80, 130, 3):
        commands = place(market.sender(1), 1, Side.BUY, 9, price)
        assert same_bytes(apply(again, commands, 9), apply(market.engine, commands, 9))
    assert again.content_hash() == again.recompute_content_hash()


def test_empty_engine_can_be_saved() -> None:
    data = Engine().snapshot()
    assert Engine.restore(data).snapshot() == data


def test_full_hash_ring_is_restored() -> None:
    engine = Engine()
    engine.apply(np.zeros(70_000, COMMAND), 1)
    again = Engine.restore(engine.snapshot())
    oldest = engine.sequence - 65_535
    assert again.hash_at(oldest) == engine.hash_at(oldest) != 0
    assert again.hash_at(oldest - 1) is None


def test_unused_table_space_is_not_saved() -> None:
    """Engines with different capacities and the same records have the same snapshot."""
    small, large = Engine(orders=1), Engine(orders=10_000)
    assert small.snapshot() == large.snapshot()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "its header alone has"),
    "truncated header": (lambda data: data[: HEADER.itemsize - 1], "its header alone has"),
    "wrong magic": (lambda data: b"PK" + data[2:], "is not a snapshot"),
    "wrong format": (lambda data: with_header(data, format=FORMAT + 1), f"has format {FORMAT + 1}"),
    "bit flip in the header": (lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:], "header is damaged"),
    "layout of a newer version": (
        lambda data: with_header(data, layout=LAYOUT_VERSION + 1),
        f"state layout {LAYOUT_VERSION + 1}; this version of smrx reads layouts up to {LAYOUT_VERSION}",
    ),
    "layout before the first": (lambda data: with_header(data, layout=0), "state layout 0"),
    "no schema": (lambda data: with_header(data, schema_bytes=0), "schema cannot be used"),
    "schema longer than the body": (lambda data: with_header(data, schema_bytes=1 << 31), "schema cannot be used"),
    "truncated body": (lambda data: data[:-1], "its header gives"),
    "trailing bytes": (lambda data: data + b"\0", "its header gives"),
    "bit flip in the body": (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "body is damaged"),
    "no body": (lambda data: resealed(data[: HEADER.itemsize]), "schema cannot be used"),
    "no arrays": (lambda data: resealed(data[: HEADER.itemsize + len(LAYOUT.encoded)]), "ends before its tables"),
    "short body": (lambda data: resealed(data[:-8]), "lengths"),
    "wrong sequence": (lambda data: with_header(data, sequence=1), "header does not match"),
    "wrong state hash": (lambda data: with_header(data, state_hash=1), "header does not match"),
    "wrong content hash": (lambda data: with_header(data, content_hash=1), "content hash"),
    "wrong newest hash": (lambda data: resealed(data[:-8] + bytes(8)), "newest state hash"),
    "link outside the table": (
        lambda data: with_record(data, "orders", open_slot(data), "next", 1 << 31),
        "link is invalid",
    ),
    "link to slot 0": (lambda data: with_record(data, "orders", open_slot(data), "level", 0), "link is invalid"),
    "book number outside the table": (
        lambda data: with_record(data, "levels", 1, "book", 1 << 20),
        "book number is invalid",
    ),
    "tree reference outside the table": (lambda data: with_record(data, "nodes", 1, "one", 1 << 20), "is inconsistent"),
    "circular free list": (lambda data: with_record(data, "orders", 1, "next", 1), "is inconsistent"),
    "unfunded balance": (
        lambda data: with_record(data, "balances", 1, "available", 1 << 50),
        "the balances add up to",
    ),
    "wrong symbol": (lambda data: with_record(data, "assets", 1, "symbol_0", 66), "asset 1: the stored hash"),
    "wrong record hash": (lambda data: with_record(data, "assets", 1, "hash", 66), "asset 1: the stored hash"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_invalid_snapshot_is_rejected_in_one_sentence(name: str) -> None:
    data = busy_market().engine.snapshot()
    damage, expected = DAMAGE[name]
    damaged = damage(data)
    assert damaged != data
    with pytest.raises(SnapshotError, match=expected) as caught:
        Engine.restore(damaged)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text


def test_resealing_changes_nothing() -> None:
    data = busy_market().engine.snapshot()
    assert resealed(data) == data


def test_truncation_and_bit_flips_are_rejected() -> None:
    data = busy_market().engine.snapshot()
    for at in range(0, len(data), 97):
        with pytest.raises(SnapshotError):
            Engine.restore(data[:at])
        with pytest.raises(SnapshotError):
            Engine.restore(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
