"""Describe arrays of records as bytes that a later version can read, and convert records by the names of their fields.

A schema names each array and each of its fields with type, place and default. It is written into what is stored beside
the records, so that a reader needs no table of what each version wrote. Owns the encoding, its limits and the rule by
which records of one schema become records of another:

- a field that only the reader knows gets its default;
- a field that only the writer knows is dropped if every record holds its default: it says nothing. Otherwise the
  records are refused: what they say would be lost;
- a field of another type, or a field that has to be dropped with its content, needs a declared conversion.

No I/O. Decodes bytes of any origin without running code. Used by the engine's snapshots, state images and the parts of
a node's snapshot.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: One field, as it is stored. `itemsize` is that of the record; `length` is 0, or the length of an array of this type.
ROW: Final = np.dtype(
    [
        ("records", "S32"),
        ("field", "S32"),
        ("kind", "S8"),
        ("length", "<u4"),
        ("offset", "<u4"),
        ("itemsize", "<u4"),
        ("unused", "<u4"),
        ("default", "<i8"),
    ]
)
#: The first bytes of a file of records of one type.
FILE_HEAD: Final = np.dtype([("magic", "S8"), ("format", "<u4"), ("schema_bytes", "<u4")])
FILE_MAGIC: Final = b"SMRXRECS"
FILE_FORMAT: Final = 1
#: No version needs more: a schema of today has 150 fields, the longest record 192 bytes.
MAX_FIELDS: Final = 4096
MAX_ITEMSIZE: Final = 1 << 16
MAX_HEAD_BYTES: Final = FILE_HEAD.itemsize + MAX_FIELDS * ROW.itemsize

_NUMBERS: Final = frozenset({"|u1", "|i1", *(f"<{sign}{size}" for sign in "ui" for size in (2, 4, 8))})
#: Records converted at once, so that they stay in the cache.
_BLOCK: Final = 1 << 12


class SchemaError(ValueError):
    """A schema is invalid, or its records cannot be converted; the message has no full stop."""


class Field(NamedTuple):
    """One field of a record; `name` is empty for an array of plain numbers."""

    name: str
    kind: str
    length: int
    offset: int
    default: int = 0

    @property
    def type_text(self) -> str:
        """The type as text, for messages."""
        return f"{self.kind}[{self.length}]" if self.length else self.kind


class Records(NamedTuple):
    """The records of one array."""

    name: str
    itemsize: int
    fields: tuple[Field, ...]

    @property
    def dtype(self) -> Any:
        """The type of these records for NumPy."""
        kinds: list[Any] = [(field.kind, (field.length,)) if field.length else field.kind for field in self.fields]
        if not self.fields[0].name:
            return np.dtype(kinds[0])
        return np.dtype(
            {
                "names": [field.name for field in self.fields],
                "formats": kinds,
                "offsets": [field.offset for field in self.fields],
                "itemsize": self.itemsize,
            }
        )


Schema = tuple[Records, ...]


def describe(name: str, dtype: Any, defaults: dict[str, int] | None = None) -> Records:
    """Return the description of a record type; `defaults` are those that are not 0. Raises SchemaError."""
    if dtype.names is None:
        records = Records(name, dtype.itemsize, (Field("", dtype.str, 0, 0),))
    else:
        fields = []
        for field in dtype.names:
            kind, offset = dtype.fields[field][:2]
            base, shape = kind.subdtype or (kind, ())
            if len(shape) > 1:
                raise SchemaError(f"{name}.{field}: expected at most one dimension, found {len(shape)}")
            default = (defaults or {}).get(field, 0)
            fields.append(Field(field, base.str, shape[0] if shape else 0, offset, default))
        records = Records(name, dtype.itemsize, tuple(fields))
    _check(records)
    return records


def encode(schema: Schema) -> bytes:
    """Return the bytes of a schema; equal schemas have equal bytes."""
    rows = np.zeros(sum(len(records.fields) for records in schema), ROW)
    place = 0
    for records in schema:
        for field in records.fields:
            rows[place] = (
                *(records.name.encode(), field.name.encode(), field.kind.encode()),
                *(field.length, field.offset, records.itemsize, 0, field.default),
            )
            place += 1
    return rows.tobytes()


def decode(data: bytes | memoryview) -> Schema:
    """Return the schema of bytes that encode() may have written; raises SchemaError for any other bytes."""
    if len(data) % ROW.itemsize or not 0 < len(data) <= MAX_FIELDS * ROW.itemsize:
        raise SchemaError(f"expected 1 to {MAX_FIELDS} fields of {ROW.itemsize} bytes, found {len(data)} bytes")
    found: dict[str, Records] = {}
    previous = ""
    for row in np.frombuffer(data, ROW):
        name, field_name, kind = (_text(row[column]) for column in ("records", "field", "kind"))
        field = Field(field_name, kind, int(row["length"]), int(row["offset"]), int(row["default"]))
        itemsize = int(row["itemsize"])
        if name not in found:
            found[name] = Records(name, itemsize, (field,))
        elif name == previous and itemsize == found[name].itemsize:
            found[name] = Records(name, itemsize, (*found[name].fields, field))
        else:
            raise SchemaError(f"{name}: its fields are not together, or give different sizes of the record")
        previous = name
    schema = tuple(found.values())
    for records in schema:
        _check(records)
    if encode(schema) != bytes(data):
        raise SchemaError("a field has bytes that no version writes")
    return schema


def convert(rows: NDArray[Any], found: Records, wanted: Records, *, first: int = 0) -> NDArray[Any]:
    """Return records as `wanted` describes them, in memory of their own whose padding is 0.

    Records before `first` are placeholders, which get no defaults. Raises SchemaError; see the module's rule.
    """
    known = {field.name: field for field in wanted.fields}
    for field in found.fields:
        own = known.get(field.name)
        if own is None:
            refuse_content(rows[first:], found.name, field)
        elif (own.kind, own.length) != (field.kind, field.length):
            raise SchemaError(
                f"{found.name}.{field.name} has type {field.type_text}, this version of smrx has {own.type_text}"
            )
    shared = [field.name for field in found.fields if field.name in known]
    result = np.zeros(len(rows), wanted.dtype)
    for start in range(0, len(rows), _BLOCK):
        source, target = rows[start : start + _BLOCK], result[start : start + _BLOCK]
        for name in shared:
            if name:
                target[name] = source[name]
            else:
                target[:] = source
    for field in wanted.fields:
        if field.default and field.name not in shared:
            result[field.name][first:] = field.default
    return result


def encode_tables(tables: Mapping[str, NDArray[Any]]) -> tuple[bytes, list[bytes]]:
    """Return the schema of some tables, and the bytes of each, in their order."""
    schema = encode(tuple(describe(name, rows.dtype) for name, rows in tables.items()))
    return schema, [rows.tobytes() for rows in tables.values()]


def decode_tables(schema: bytes, tables: Sequence[bytes], wanted: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the tables of encode_tables() of this or another version with the record types of `wanted`.

    A table that only the reader knows is empty. Raises SchemaError; also for a table that only the writer knows, unless
    it is empty.
    """
    described = decode(schema)
    if len(tables) != len(described):
        raise SchemaError(f"expected {len(described)} tables, as in the schema, found {len(tables)}")
    found = {records.name: data for records, data in zip(described, tables, strict=True)}
    for name, data in found.items():
        if name not in wanted and data:
            raise SchemaError(f"{name} is not known to this version of smrx, and has records")
    return {
        name: records_of(found[name], described, name, dtype) if name in found else np.zeros(0, dtype)
        for name, dtype in wanted.items()
    }


def file_head(name: str, dtype: Any) -> bytes:
    """Return the first bytes of a file of records: its format and the schema of the records."""
    schema = encode((describe(name, dtype),))
    return np.array([(FILE_MAGIC, FILE_FORMAT, len(schema))], FILE_HEAD).tobytes() + schema


def read_file_head(data: bytes | memoryview, name: str) -> tuple[int, Records]:
    """Return where the records of a file begin, and their description.

    The first MAX_HEAD_BYTES of the file are enough. Raises SchemaError.
    """
    if len(data) < FILE_HEAD.itemsize:
        raise SchemaError(f"{name}: expected a file of records, found {len(data)} bytes")
    head = np.frombuffer(data, FILE_HEAD, 1)[0]
    if bytes(head["magic"]) != FILE_MAGIC:
        raise SchemaError(f"{name}: expected a file of records, found one that begins with {bytes(data[:8])!r}")
    if int(head["format"]) != FILE_FORMAT:
        raise SchemaError(f"{name}: expected format {FILE_FORMAT}, found {int(head['format'])}")
    start = FILE_HEAD.itemsize + int(head["schema_bytes"])
    found = decode(memoryview(data)[FILE_HEAD.itemsize : start])
    if len(found) != 1 or found[0].name != name:
        raise SchemaError(f"{name}: expected a file of these records, found one of {found[0].name}")
    return start, found[0]


def file_pieces(name: str, rows: NDArray[Any]) -> list[bytes | memoryview]:
    """Return the bytes of a file of records in pieces; the records are a view."""
    view: Any = np.ascontiguousarray(rows).view(np.uint8)
    return [file_head(name, rows.dtype), memoryview(view)]


def file_records(data: bytes | memoryview, name: str, dtype: Any) -> NDArray[Any]:
    """Return the records of file_pieces() of this or another version as records of `dtype`; raises SchemaError."""
    start, found = read_file_head(data, name)
    return records_of(memoryview(data)[start:], (found,), name, dtype)


def records_of(data: bytes | memoryview, schema: Schema, name: str, dtype: Any) -> NDArray[Any]:
    """Return bytes that the schema describes under this name as records of `dtype`; raises SchemaError."""
    found = next((records for records in schema if records.name == name), None)
    if found is None:
        raise SchemaError(f"{name}: the schema does not describe it")
    if len(data) % found.itemsize:
        raise SchemaError(f"{name}: expected records of {found.itemsize} bytes, found {len(data)} bytes")
    wanted = describe(name, dtype)
    if found == wanted:
        return np.frombuffer(data, dtype)
    return convert(np.frombuffer(data, found.dtype), found, wanted)


def refuse_content(rows: NDArray[Any], name: str, field: Field) -> None:
    """Raise SchemaError if a field that is about to be dropped is not at its default in every record."""
    column = rows[field.name] if field.name else rows
    empty = column == (b"" if field.kind.startswith("|S") else field.default)
    if field.length:
        empty = empty.all(axis=1)
    if not empty.all():
        what = f"{name}.{field.name}" if field.name else name
        raise SchemaError(f"{what} is not known to this version of smrx, and record {int(np.argmin(empty))} uses it")


def _check(records: Records) -> None:
    """Raise SchemaError unless this is a record that a version may have."""
    name = records.name
    if not _is_name(name):
        raise SchemaError(f"expected the name of an array, found {name!r}")
    if not 1 <= records.itemsize <= MAX_ITEMSIZE:
        raise SchemaError(f"{name}: expected a record of 1 to {MAX_ITEMSIZE} bytes, found {records.itemsize}")
    end = 0
    names = set()
    for field in records.fields:
        if not _is_name(field.name) and (field.name or len(records.fields) > 1):
            raise SchemaError(f"{name}: expected the name of a field, found {field.name!r}")
        if field.name in names:
            raise SchemaError(f"{name}.{field.name} occurs twice")
        names.add(field.name)
        size = _size_of(field.kind)
        if size is None or (field.default and (field.length or field.kind not in _NUMBERS)):
            raise SchemaError(f"{name}.{field.name}: expected a type that records have, found {field.type_text!r}")
        if field.offset < end or field.length > MAX_ITEMSIZE:
            raise SchemaError(f"{name}.{field.name}: overlaps the field before it, or is too long")
        if field.default and not 0 <= field.default + (1 << (8 * size - 1) if field.kind[1] == "i" else 0) < 1 << (
            8 * size
        ):
            raise SchemaError(f"{name}.{field.name}: its default {field.default} does not fit into {field.kind}")
        end = field.offset + size * max(field.length, 1)
    if end > records.itemsize or (not records.fields[0].name and records.fields[0][2:4] != (0, 0)):
        raise SchemaError(f"{name}: its fields end after its record")
    if not records.fields[0].name and end != records.itemsize:
        raise SchemaError(f"{name}: its number has {end} bytes, its record {records.itemsize}")


def _size_of(kind: str) -> int | None:
    """Return the bytes of a type, None if records have no such type."""
    if kind in _NUMBERS:
        return int(kind[2:])
    digits = kind[2:]
    if kind.startswith("|S") and digits.isascii() and digits.isdigit() and digits == str(int(digits)):
        return int(digits) if 1 <= int(digits) <= MAX_ITEMSIZE else None
    return None


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and text == text.lower()


def _text(value: Any) -> str:
    try:
        return bytes(value).decode("ascii")
    except UnicodeDecodeError:
        raise SchemaError(f"expected a name, found {bytes(value)!r}") from None
