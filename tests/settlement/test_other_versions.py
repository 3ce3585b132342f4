"""Books and state images of another version: fields it does not know get defaults, nothing is lost without a word."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash

from smrx.follower.checkpoint_store import FILE_NAME, Saved
from smrx.follower.follow_errors import FollowError
from smrx.settlement.books.book_tables import CORE, TYPES
from smrx.settlement.ledger import Ledger
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import state_image
from smrx.wire.frames import FrameError
from smrx.wire.record_schema import decode_tables, encode_tables, file_pieces, file_records
from smrx.wire.records import STORED_EVENT
from tests.follower.test_settler import opened, settled
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import Events, expected_rows, rows
from tests.settlement.test_crash import check
from tests.settlement.test_image_books import middle


def with_added(records: Any, value: int = 0) -> Any:
    """Return records as a version with one field more has them."""
    names = records.dtype.names
    found = np.zeros(len(records), [("added", "<u4"), *((name, records.dtype[name]) for name in names)])
    for name in names:
        found[name] = records[name]
    found["added"][-1:] = value
    return found


def without(records: Any, name: str) -> Any:
    """Return records as a version without this field has them."""
    found = np.zeros(len(records), [(known, records.dtype[known]) for known in records.dtype.names if known != name])
    for known in found.dtype.names or ():
        found[known] = records[known]
    return found


def rewrite_journal(directory: Path, value: int = 0) -> None:
    """Put the journal of a version whose events have one field more in the place of the journal."""
    path = directory / "books" / "journal-0.bin"
    records = with_added(file_records(path.read_bytes(), "events", STORED_EVENT), value)
    path.write_bytes(b"".join(file_pieces("events", records)))
    checkpoint = directory / "books" / FILE_NAME
    saved = msgspec.json.decode(checkpoint.read_bytes(), type=Saved)
    saved = msgspec.structs.replace(
        saved,
        journal_bytes=records.nbytes,
        journal_digest=xxhash.xxh3_64_intdigest(records.tobytes()),
        event_digest=xxhash.xxh3_64_intdigest(records[-1:].tobytes()),
    )
    checkpoint.write_bytes(msgspec.json.encode(saved))


def half(events: Events) -> Events:
    """Return about half of the events, whole commands."""
    return events[: int(np.flatnonzero(np.diff(events["command_sequence"]))[len(events) // 4]) + 1]


def test_journal_of_another_version_is_read_and_replaced(tmp_path: Path) -> None:
    events = market_events()
    first = half(events)
    settled(tmp_path, first).close()
    digest = xxhash.xxh3_64_intdigest(first[-1:].tobytes())
    rewrite_journal(tmp_path)
    again = opened(tmp_path)
    # The nodes hold the event as this version does.
    assert again.anchor is not None
    assert again.anchor.event_digest == digest
    assert again.projection.sequence == len(first)
    again.close()

    settled(tmp_path, events).close()
    assert sorted(path.name for path in (tmp_path / "books").glob("*.bin")) == [
        f"books-{len(events)}.bin",
        f"journal-{len(events)}.bin",
    ]
    assert rows(tmp_path) == expected_rows(events)
    check(tmp_path, events)


def test_crash_before_the_journal_is_replaced_loses_nothing(tmp_path: Path) -> None:
    events = market_events()
    settled(tmp_path, half(events)).close()
    rewrite_journal(tmp_path)
    verifier = opened(tmp_path)
    # Written behind the older events, and not committed.
    verifier.settle(events[verifier.projection.sequence :][:50], lambda command: 7)
    verifier.close()
    settled(tmp_path, events).close()
    assert rows(tmp_path) == expected_rows(events)
    check(tmp_path, events)


def test_journal_that_says_more_than_this_version_knows_is_refused(tmp_path: Path) -> None:
    settled(tmp_path, market_events()).close()
    rewrite_journal(tmp_path, value=1)
    with pytest.raises(SinkMismatch, match=r"events\.added is not known to this version of smrx"):
        opened(tmp_path)


def test_journal_without_a_head_is_refused(tmp_path: Path) -> None:
    settled(tmp_path, market_events()).close()
    path = tmp_path / "books" / "journal-0.bin"
    path.write_bytes(b"PK" + path.read_bytes()[2:])
    with pytest.raises(SinkMismatch, match="expected a file of records, found one that begins with"):
        opened(tmp_path)


def test_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    settled(tmp_path, market_events()).close()
    path = tmp_path / "books" / FILE_NAME
    saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(saved, format=saved.format + 1)))
    with pytest.raises(SinkMismatch, match=f"expected format {saved.format}, found {saved.format + 1}"):
        opened(tmp_path)


def books_bytes(data: bytes, change: Any) -> bytes:
    """Return saved books with other tables, in the way another version writes them."""
    found, schema, records = msgspec.msgpack.decode(data[8:])
    tables = decode_tables(schema, records, {"core": CORE, **TYPES})
    raw = msgspec.msgpack.encode((found, *encode_tables(change(tables))))
    return xxhash.xxh3_64_digest(raw) + raw


def saved_books() -> bytes:
    ledger = Ledger()
    ledger.post(market_events())
    return ledger.save()


def test_books_of_another_version_are_read() -> None:
    data = saved_books()
    newer = books_bytes(data, lambda tables: {name: with_added(rows) for name, rows in tables.items()})
    assert newer != data
    assert Ledger.load(newer).save() == data
    older = books_bytes(data, lambda tables: tables | {"balances": without(tables["balances"], "touched")})
    assert Ledger.load(older).balances_digest() == Ledger.load(data).balances_digest()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tables: tables | {"orders": with_added(tables["orders"], 1)}, r"orders\.added is not known"),
        (lambda tables: tables | {"loans": np.ones(1, [("key", "<i8")])}, "loans is not known"),
    ],
)
def test_books_that_say_more_than_this_version_knows_are_refused(change: Any, expected: str) -> None:
    with pytest.raises(FollowError, match=expected):
        Ledger.load(books_bytes(saved_books(), change))


def test_books_of_another_format_are_refused() -> None:
    raw = msgspec.msgpack.encode((1, {"core": b""}))
    with pytest.raises(FollowError, match="books: "):
        Ledger.load(xxhash.xxh3_64_digest(raw) + raw)


def image_bytes(data: bytes, change: Any) -> bytes:
    """Return a state image with other tables, in the way another version encodes it."""
    found, position, killed, schema, tables = msgspec.msgpack.decode(data)
    known = decode_tables(schema, tables, state_image.TABLES)
    return msgspec.msgpack.encode((found, position, killed, *encode_tables(change(known))))


def test_image_of_another_version_is_read() -> None:
    data = state_image.encode(middle())
    newer = image_bytes(data, lambda tables: {name: with_added(rows) for name, rows in tables.items()})
    assert newer != data
    assert state_image.encode(state_image.decode(newer)) == data
    older = image_bytes(data, lambda tables: tables | {"sessions": without(tables["sessions"], "open_orders")})
    assert state_image.decode(older).tables["sessions"]["open_orders"].tolist() == [0] * len(
        middle().tables["sessions"]
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tables: tables | {"orders": with_added(tables["orders"], 1)}, r"orders\.added is not known"),
        (lambda tables: tables | {"loans": np.ones(1, [("loan", "<i8")])}, "loans is not known"),
    ],
)
def test_image_that_says_more_than_this_version_knows_is_refused(change: Any, expected: str) -> None:
    with pytest.raises(FrameError, match=expected):
        state_image.decode(image_bytes(state_image.encode(middle()), change))
