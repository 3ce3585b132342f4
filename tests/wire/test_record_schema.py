"""Schemas of records: they describe every type that records have, and refuse all other bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import record_schema
from smrx.wire.record_schema import MAX_FIELDS, ROW, Field, Records, SchemaError, convert, decode, describe, encode

RATE = np.dtype({"names": ["id", "rate"], "formats": ["<u8", "<i4"], "offsets": [0, 8], "itemsize": 16})
NAMED = np.dtype([("id", "<u8"), ("name", "S16"), ("words", "<u8", (4,)), ("flag", "u1")])
SCHEMA = (describe("rates", RATE, {"rate": -1}), describe("named", NAMED), describe("ring", np.dtype("<u8")))


def encoded(rows: list[tuple[Any, ...]]) -> bytes:
    return np.array(rows, ROW).tobytes()


def test_schema_round_trip() -> None:
    assert decode(encode(SCHEMA)) == SCHEMA
    assert [records.dtype for records in SCHEMA] == [RATE, NAMED, np.dtype("<u8")]
    assert SCHEMA[0].fields[1] == Field("rate", "<i4", 0, 8, -1)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.dtype([("price", "<f8")]), "expected a type"),
        (np.dtype([("price", ">u8")]), "expected a type"),
        (np.dtype([("thing", "O")]), "expected a type"),
        (np.dtype([("Price", "<u8")]), "expected the name of a field"),
        (np.dtype([("words", "<u8", (2, 2))]), "at most one dimension"),
        (np.dtype([("inner", [("a", "<u8")])]), "expected a type"),
    ],
)
def test_type_that_no_record_has_is_refused(dtype: Any, expected: str) -> None:
    with pytest.raises(SchemaError, match=expected):
        describe("orders", dtype)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "found 0 bytes"),
    "half a field": (encode(SCHEMA)[:-1], "fields of"),
    "too many fields": (bytes(ROW.itemsize * (MAX_FIELDS + 1)), "1 to 4096 fields"),
    "zeros": (bytes(ROW.itemsize), "name of an array"),
    "float": (encoded([("a", "x", "<f8", 0, 0, 8, 0, 0)]), "expected a type"),
    "object": (encoded([("a", "x", "|O", 0, 0, 8, 0, 0)]), "expected a type"),
    "code for a type": (encoded([("a", "x", "i8,i8", 0, 0, 8, 0, 0)]), "expected a type"),
    "text of no length": (encoded([("a", "x", "|S0", 0, 0, 8, 0, 0)]), "expected a type"),
    "text with a zero before its length": (encoded([("a", "x", "|S08", 0, 0, 8, 0, 0)]), "expected a type"),
    "huge text": (encoded([("a", "x", "|S99999", 0, 0, 8, 0, 0)]), "expected a type"),
    "name of two words": (encoded([("a b", "x", "<u8", 0, 0, 8, 0, 0)]), "name of an array"),
    "name that is not ASCII": (encoded([(b"\xc3\xa9", "x", "<u8", 0, 0, 8, 0, 0)]), "expected a name"),
    "field twice": (encoded([("a", "x", "<u8", 0, 0, 16, 0, 0), ("a", "x", "<u8", 0, 8, 16, 0, 0)]), "occurs twice"),
    "array twice": (
        encoded([(name, "x", "<u8", 0, 0, 8, 0, 0) for name in "aba"]),
        "are not together",
    ),
    "two sizes": (encoded([("a", "x", "<u8", 0, 0, 16, 0, 0), ("a", "y", "<u8", 0, 8, 17, 0, 0)]), "different sizes"),
    "overlap": (encoded([("a", "x", "<u8", 0, 0, 16, 0, 0), ("a", "y", "<u8", 0, 7, 16, 0, 0)]), "overlaps"),
    "behind the record": (encoded([("a", "x", "<u8", 0, 1, 8, 0, 0)]), "end after its record"),
    "huge record": (encoded([("a", "x", "<u8", 0, 0, 1 << 31, 0, 0)]), "a record of 1 to"),
    "empty record": (encoded([("a", "x", "<u8", 0, 0, 0, 0, 0)]), "a record of 1 to"),
    "huge array": (encoded([("a", "x", "<u8", (1 << 32) - 1, 0, 8, 0, 0)]), "too long"),
    "default that does not fit": (encoded([("a", "x", "|u1", 0, 0, 8, 0, 256)]), "does not fit"),
    "negative default": (encoded([("a", "x", "<u8", 0, 0, 8, 0, -1)]), "does not fit"),
    "default of a text": (encoded([("a", "x", "|S8", 0, 0, 8, 0, 1)]), "expected a type"),
    "number that is shorter than its record": (encoded([("a", "", "<u8", 0, 0, 16, 0, 0)]), "its number has"),
    "number beside a field": (
        encoded([("a", "", "<u8", 0, 0, 16, 0, 0), ("a", "y", "<u8", 0, 8, 16, 0, 0)]),
        "name of a field",
    ),
    "bytes that are not used": (encoded([("a", "x", "<u8", 0, 0, 8, 1, 0)]), "no version writes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schema_is_refused(name: str) -> None:
    data, expected = HOSTILE[name]
    with pytest.raises(SchemaError, match=expected):
        decode(data)


@given(st.data())
def test_mutated_schema_is_refused_or_described(data: st.DataObject) -> None:
    """Whatever bytes decode accepts, NumPy can make records of them, and they are the bytes of that schema."""
    raw = bytearray(encode(SCHEMA))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        schema = decode(bytes(raw))
    except SchemaError:
        return
    assert encode(schema) == bytes(raw)
    for records in schema:
        assert records.dtype.itemsize == records.itemsize


def described(name: str, *fields: Any, **defaults: int) -> Records:
    return describe(name, np.dtype(list(fields)), defaults)


def test_equal_records_get_clean_padding() -> None:
    rows = np.frombuffer(b"\1" * 48, RATE)
    result = convert(rows, SCHEMA[0], SCHEMA[0])
    assert result.tolist() == rows.tolist()
    assert result.tobytes()[-4:] == bytes(4)


def test_added_field_gets_its_default_behind_the_placeholder() -> None:
    rows = np.array([(0,), (5,), (6,)], [("id", "<u8")])
    found = described("rates", ("id", "<u8"))
    assert convert(rows, found, SCHEMA[0], first=1).tolist() == [(0, 0), (5, -1), (6, -1)]
    assert convert(rows, found, SCHEMA[0]).tolist() == [(0, -1), (5, -1), (6, -1)]
    added = described("rates", ("new", "S4"), ("id", "<u8"))
    assert convert(rows, found, added).tolist() == [(b"", 0), (b"", 5), (b"", 6)]


def test_more_records_than_one_block_are_converted() -> None:
    rows = np.arange(10_000, dtype="<u8").view([("id", "<u8")])
    result = convert(rows, described("rates", ("id", "<u8")), SCHEMA[0])
    assert (result["id"] == rows["id"]).all()


@pytest.mark.parametrize(
    ("field", "empty", "used"),
    [
        (("extra", "<u4"), 0, 9),
        (("extra", "S8"), b"", b"x"),
        (("extra", "<u8", (2,)), (0, 0), (0, 1)),
    ],
)
def test_unknown_field_is_dropped_only_if_no_record_uses_it(field: Any, empty: Any, used: Any) -> None:
    found, wanted = described("rates", ("id", "<u8"), field), described("rates", ("id", "<u8"))
    assert convert(np.array([(4, empty)], found.dtype), found, wanted).tolist() == [(4,)]
    with pytest.raises(SchemaError, match=r"rates\.extra is not known to this version of smrx, and record 1 uses it"):
        convert(np.array([(4, empty), (5, used)], found.dtype), found, wanted)


def test_unknown_field_at_the_default_that_its_writer_declares_is_dropped() -> None:
    found, wanted = described("rates", ("id", "<u8"), ("rate", "<i4"), rate=-1), described("rates", ("id", "<u8"))
    rows = np.array([(0, 0), (4, -1)], found.dtype)
    assert convert(rows, found, wanted, first=1).tolist() == [(0,), (4,)]
    with pytest.raises(SchemaError, match="record 0 uses it"):
        convert(rows, found, wanted)


@pytest.mark.parametrize("kind", ["<u4", "<i8", "S8"])
def test_other_type_is_refused(kind: str) -> None:
    found = described("rates", ("id", kind))
    with pytest.raises(SchemaError, match=r"rates\.id has type .*, this version of smrx has <u8"):
        convert(np.zeros(1, found.dtype), found, described("rates", ("id", "<u8")))


def test_number_becomes_no_record() -> None:
    found = record_schema.describe("ring", np.dtype("<u4"))
    assert convert(np.zeros(2, "<u4"), found, described("ring", ("id", "<u8"))).tolist() == [(0,), (0,)]
    with pytest.raises(SchemaError, match="ring is not known"):
        convert(np.ones(2, "<u4"), found, described("ring", ("id", "<u8")))
