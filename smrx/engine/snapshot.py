"""Save a state as bytes and restore it: a header, a schema, the used part of every table, the heap, the kept hashes.

The schema describes every array that follows (record_schema.py), so that a version reads what the version before wrote:
arrays that this version describes in the same way are copied as bytes, others are converted field by field
(migrations.py). Indexes are not stored: a restore rebuilds them from the records. Everything else is checked before a
snapshot is accepted: first lengths and checksums, then every link and sum (checks/invariants.py), then the content
hash, computed again. Called by engine.py.

    header   HEADER
    schema   of the arrays: core, pools, the tables that pools counts in its order, then the others
    lengths  the number of records of each array, u64
    arrays   their records, one array after the other
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine import index_build
from smrx.engine.checks import invariants
from smrx.engine.checks.full_hash import balance_sums, maintained
from smrx.engine.checks.record_columns import StateColumns
from smrx.engine.checks.retention_invariants import kept_answers
from smrx.engine.engine_error import SnapshotError
from smrx.engine.migrations import DEFAULTS, LAYOUT_VERSION, MIGRATIONS, Arrays, Migration
from smrx.engine.state import (
    BOOKS,
    DTYPES,
    FIRST_RULES,
    RING_SIZE,
    RUN_LENGTHS,
    TABLES,
    State,
    allocate,
)
from smrx.wire.record_schema import Records, Schema, SchemaError, convert, decode, describe, encode, refuse_content

MAGIC: Final = b"SMRXSNAP"
#: Of the header and of the order of what follows. A change of the records is no change of the format.
FORMAT: Final = 3

HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("format", "<u4"),
        ("layout", "<u4"),  # the layout version of migrations.py
        ("schema_bytes", "<u4"),
        ("rules", "<u4"),  # the version of the rules in force; 0 is the first
        ("sequence", "<u8"),
        ("state_hash", "<u8"),
        ("content_hash", "<u8"),  # with the counters
        ("body_bytes", "<u8"),  # of all that follows the header
        ("body_hash", "<u8"),
        ("header_hash", "<u8"),  # of the bytes before it
    ]
)
_HASHED: Final = HEADER.itemsize - 8
_LENGTH: Final = np.dtype("<u8")
#: More records than any machine has memory for; a larger length is rejected before anything is allocated.
_MAX_RECORDS: Final = 1 << 31
#: Records grow by less than this from one version to the next; a restore allocates no more for hostile bytes.
_MAX_GROWTH: Final = 16
#: Arrays of a state that are not stored: a restore rebuilds them, or they have no meaning between calls.
NOT_STORED: Final = (
    *(name for name in State._fields if name.endswith("_index")),
    "transfer_links",
    "last_transfers",
    "session_links",
    "session_lists",
    "turn",
)
_TABLE_NAMES: Final = tuple(table.name for table in TABLES)
#: The stored arrays in their order.
STORED: Final = (
    "core",
    "pools",
    *_TABLE_NAMES,
    *(name for name in State._fields if name not in {"core", "pools", *_TABLE_NAMES, *NOT_STORED}),
)


class Layout(NamedTuple):
    """The arrays of one version, and what this version makes of those of earlier ones."""

    version: int
    schema: Schema
    encoded: bytes
    #: The arrays that pools counts, in its order.
    tables: tuple[str, ...]
    migrations: Mapping[int, Migration]


def layout_of(
    dtypes: Mapping[str, Any],
    *,
    tables: tuple[str, ...] = _TABLE_NAMES,
    version: int = LAYOUT_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
    defaults: Mapping[str, int] = DEFAULTS,
) -> Layout:
    """Return the layout with these records, in the order of `dtypes`."""
    schema = tuple(
        describe(
            name,
            dtype,
            {
                place.removeprefix(f"{name}."): value
                for place, value in defaults.items()
                if place.startswith(f"{name}.")
            },
        )
        for name, dtype in dtypes.items()
    )
    return Layout(version, schema, encode(schema), tables, migrations)


LAYOUT: Final = layout_of({name: DTYPES[name] for name in STORED})


def kept_hashes(sequence: int) -> int:
    """Return how many state hashes a state keeps: that of the empty state counts, the ring is the limit."""
    return min(sequence + 1, RING_SIZE)


def _ring_positions(sequence: int) -> NDArray[np.int64]:
    """Return the ring positions of the kept hashes, from the oldest to the newest."""
    return np.arange(sequence + 1 - kept_hashes(sequence), sequence + 1) & (RING_SIZE - 1)


def _lengths(core: Any, pools: Any, tables: tuple[str, ...] = _TABLE_NAMES) -> dict[str, int]:
    """Return how many records of each array a state with these counters stores."""
    tops = dict(zip(tables, pools["top"].tolist(), strict=True))
    return {
        "core": 1,
        "pools": len(tables),
        **tops,
        "books": BOOKS * tops["instruments"],
        "answers": int(core["answers_top"][0]),
        "runs": RUN_LENGTHS,
        "heap": int(core["expiring"][0]) + 1,
        "ring": kept_hashes(int(core["command_sequence"][0])),
    }


def stored_arrays(state: State) -> Arrays:
    """Return the stored part of a state's arrays, as views; only the kept hashes are copied."""
    lengths = _lengths(state.core, state.pools)
    arrays = {name: getattr(state, name)[: lengths[name]] for name in STORED}
    arrays["ring"] = state.ring[_ring_positions(int(state.core["command_sequence"][0]))]
    return arrays


def pieces(state: State) -> list[bytes | memoryview]:
    """Return a snapshot in parts, most of them views of the state itself: no second copy in memory."""
    return packed(stored_arrays(state), maintained(state), LAYOUT)


def packed(arrays: Arrays, content_hash: int, layout: Layout) -> list[bytes | memoryview]:
    """Return the snapshot with these arrays, which are those of the layout."""
    rows = [arrays[records.name] for records in layout.schema]
    lengths = np.array([len(part) for part in rows], _LENGTH)
    views: list[Any] = [part.view(np.uint8) for part in rows]
    body: list[bytes | memoryview] = [layout.encoded, lengths.tobytes()]
    body += [memoryview(view) for view in views]
    body_hash = xxhash.xxh3_64()
    for part in body:
        body_hash.update(part)
    header = np.zeros(1, HEADER)
    header["magic"] = MAGIC
    header["format"] = FORMAT
    header["layout"] = layout.version
    header["schema_bytes"] = len(layout.encoded)
    header["rules"] = arrays["core"]["rules_version"][0]
    header["sequence"] = arrays["core"]["command_sequence"][0]
    header["state_hash"] = arrays["core"]["state_hash"][0]
    header["content_hash"] = content_hash
    header["body_bytes"] = sum(len(part) for part in body)
    header["body_hash"] = body_hash.intdigest()
    header["header_hash"] = xxhash.xxh3_64_intdigest(header.tobytes()[:_HASHED])
    return [header.tobytes(), *body]


def load(data: bytes | memoryview) -> State:
    """Return the state of a snapshot; SnapshotError if the bytes are anything else."""
    header, arrays = unpacked(data, LAYOUT)
    state, tables = _restored_tables(arrays)
    core = state.core[0]
    if int(core["command_sequence"]) != int(header["sequence"]) or core["state_hash"] != header["state_hash"]:
        raise SnapshotError("The snapshot's header does not match its state.")
    faults = invariants.inconsistencies(tables)
    if faults:
        raise SnapshotError(f"The snapshot's state is inconsistent: {faults[0]}.")
    if maintained(state) != int(header["content_hash"]):
        raise SnapshotError("The snapshot's records do not match the content hash in its header.")
    newest = state.ring[int(header["sequence"]) & (RING_SIZE - 1)]
    if newest != header["state_hash"]:
        raise SnapshotError("The newest state hash that the snapshot keeps is not the one in its header.")
    return state


def unpacked(data: bytes | memoryview, layout: Layout) -> tuple[Any, Arrays]:
    """Return the header of a snapshot and its arrays as the layout has them; SnapshotError if that is impossible.

    Checks checksums, the schema and lengths, not what the records say. Arrays that need no conversion are views.
    """
    header, body = _checked_parts(data)
    version = int(header["layout"])
    if not 1 <= version <= layout.version:
        raise SnapshotError(
            f"The snapshot has state layout {version}; this version of smrx reads layouts up to {layout.version}. A "
            "newer version wrote it."
        )
    size = int(header["schema_bytes"])
    try:
        if version == layout.version and body[:size] == layout.encoded:
            return header, _arrays(body, size, layout.schema)
        schema = decode(body[:size])
        return header, _migrated(_arrays(body, size, schema), schema, version, layout)
    except SchemaError as error:
        raise SnapshotError(f"The snapshot's schema cannot be used: {error}.") from None


def rules_version(data: bytes | memoryview) -> int:
    """Return the version of the rules in force in a snapshot; SnapshotError if its header is not valid.

    To be asked first: a program that lacks these rules may be unable to read the records, and is to say which it lacks.
    """
    return max(FIRST_RULES, int(_checked_header(data)["rules"]))


def _checked_parts(data: bytes | memoryview) -> tuple[Any, memoryview]:
    """Return header and body of a snapshot after checking their checksums."""
    header = _checked_header(data)
    body = memoryview(data)[HEADER.itemsize :]
    if len(body) != int(header["body_bytes"]):
        raise SnapshotError(f"The snapshot's body has {len(body)} bytes; its header gives {int(header['body_bytes'])}.")
    if xxhash.xxh3_64_intdigest(body) != int(header["body_hash"]):
        raise SnapshotError("The snapshot's body is damaged (checksum mismatch).")
    return header, body


def _checked_header(data: bytes | memoryview) -> Any:
    if len(data) < HEADER.itemsize:
        raise SnapshotError(f"The snapshot has {len(data)} bytes; its header alone has {HEADER.itemsize}.")
    header = np.frombuffer(data, HEADER, count=1)[0]
    if bytes(header["magic"]) != MAGIC:
        raise SnapshotError(f"The file is not a snapshot: it begins with {bytes(data[:8])!r}, not with {MAGIC!r}.")
    if int(header["format"]) != FORMAT:
        raise SnapshotError(f"The snapshot has format {int(header['format'])}; this program reads format {FORMAT}.")
    if int(header["header_hash"]) != xxhash.xxh3_64_intdigest(data[:_HASHED]):
        raise SnapshotError("The snapshot's header is damaged (checksum mismatch).")
    return header


def _arrays(body: memoryview, start: int, schema: Schema) -> Arrays:
    """Return the arrays of a body, as views; `start` is where its schema ends."""
    offset = start + _LENGTH.itemsize * len(schema)
    if len(body) < offset:
        raise SnapshotError("The snapshot's body ends before its tables.")
    lengths = [int(length) for length in np.frombuffer(body, _LENGTH, len(schema), start)]
    sizes = [length * records.itemsize for length, records in zip(lengths, schema, strict=True)]
    if max(lengths) > _MAX_RECORDS or offset + sum(sizes) != len(body):
        raise SnapshotError("The lengths of the snapshot's tables do not match its body.")
    arrays: Arrays = {}
    for records, size in zip(schema, sizes, strict=True):
        # As bytes: NumPy copies records field by field, forty times slower.
        arrays[records.name] = np.frombuffer(body, np.uint8, size, offset).view(records.dtype)
        offset += size
    return arrays


def _migrated(arrays: Arrays, schema: Schema, version: int, layout: Layout) -> Arrays:
    """Return arrays as the layout has them; raises SchemaError."""
    found = {records.name: records for records in schema}
    stored, arrays = arrays, dict(arrays)
    tables = tuple(found)[2 : 2 + len(arrays["pools"])] if tuple(found)[:2] == ("core", "pools") else ()
    if not tables or len(tables) != len(arrays["pools"]):
        raise SchemaError("expected the arrays core, pools and those that pools counts")
    # A pool belongs to its table by name: tables come and go.
    pools = arrays.pop("pools")
    arrays |= {f"{name}.pool": pools[number : number + 1] for number, name in enumerate(tables)}
    for step in range(version, layout.version):
        if step not in layout.migrations:
            raise SchemaError(f"its layout is version {version}, which this version of smrx no longer reads")
        arrays = _changed(arrays, layout.migrations[step])

    wanted = {records.name: records for records in layout.schema}
    pool = {name.removesuffix(".pool"): arrays.pop(name) for name in tuple(arrays) if name.endswith(".pool")}
    arrays["pools"] = _pools(arrays, pool, found["pools"], wanted["pools"], layout)
    for name, rows in tuple(arrays.items()):
        first = int(name in tables)
        described = _described(name, rows, found.get(name))
        if name not in wanted:
            del arrays[name]
            for field in described.fields:
                refuse_content(rows[first:], name, field)
        elif described == wanted[name] and rows is stored.get(name):
            continue
        elif wanted[name].itemsize > _MAX_GROWTH * described.itemsize:
            raise SchemaError(f"{name}: expected records of about {wanted[name].itemsize} bytes")
        else:
            arrays[name] = convert(rows, described, wanted[name], first=first)
    if len(arrays.get("core", ())) != 1:
        raise SchemaError("expected one record core")
    lengths = _lengths(arrays["core"], arrays["pools"], layout.tables)
    for name, records in wanted.items():
        if name not in arrays:
            length = lengths.get(name, 1)
            # No array has more records than the largest table has books: hostile counters must not allocate memory.
            if length > BOOKS * max(map(len, arrays.values())):
                raise SchemaError(f"{name}: expected {length} records, found no such array")
            arrays[name] = np.zeros(length, records.dtype)
    return {name: arrays[name] for name in wanted}


def _changed(arrays: Arrays, migration: Migration) -> Arrays:
    """Return the arrays after one migration."""
    kept: Arrays = {}
    for name, rows in arrays.items():
        if name in migration.dropped or name.removesuffix(".pool") in migration.dropped:
            continue
        names = rows.dtype.names or ()
        fields = [field for field in names if f"{name}.{field}" not in migration.dropped]
        kept[name] = rows if len(fields) == len(names) else rows[fields]
    return kept if migration.change is None else migration.change(kept)


def _pools(arrays: Arrays, pool: Arrays, found: Records, wanted: Records, layout: Layout) -> NDArray[Any]:
    """Return the pools of the layout's tables; one that is new is empty: it has only the slot that means none."""
    pools = np.zeros(len(layout.tables), wanted.dtype)
    for number, name in enumerate(layout.tables):
        if (name in pool) != (name in arrays):
            raise SchemaError(f"{name}: expected a table and its pool")
        if name in pool:
            described = _described("pools", pool[name], found)
            pools[number : number + 1] = convert(pool[name], described, wanted)
        else:
            pools["top"][number] = 1
    return pools


def _described(name: str, rows: NDArray[Any], found: Records | None) -> Records:
    """Return the description of an array with the defaults that its snapshot declares."""
    defaults = {} if found is None else {field.name: field.default for field in found.fields}
    return describe(name, rows.dtype, defaults)


def _restored_tables(arrays: Arrays) -> tuple[State, StateColumns]:
    """Return a state with the records of arrays and rebuilt indexes, and the tables used to check its links."""
    core, pools = arrays["core"], arrays["pools"]
    if (len(core), len(pools)) != (1, len(TABLES)):
        raise SnapshotError("The lengths of the snapshot's tables do not match its body.")
    lengths = _lengths(core, pools)
    tops = [lengths[table.name] for table in TABLES]
    sequence = int(core["command_sequence"][0])
    possible = min(*tops, lengths["answers"]) >= 1 and lengths["heap"] <= lengths["orders"] and sequence < 1 << 62
    if not possible or any(len(rows) != lengths[name] for name, rows in arrays.items()):
        raise SnapshotError("The lengths of the snapshot's tables do not match its body.")

    # Space for as many again, so that a restored engine does not grow at once.
    capacities = {table.name: max(2 * top, 64) for table, top in zip(TABLES, tops, strict=True)}
    state = allocate(capacities, lengths["answers"])
    for name, rows in arrays.items():
        if name == "ring":
            state.ring[_ring_positions(sequence)] = rows
        else:
            getattr(state, name).view(np.uint8)[: rows.nbytes] = rows.view(np.uint8)
    state.core["kept_answers"] = kept_answers(state)
    tables = StateColumns(state)
    invalid = invariants.invalid_links(tables)
    if invalid:
        raise SnapshotError(f"The snapshot's state is inconsistent: {invalid[0]}.")
    for number, table in enumerate(TABLES):
        index_build.fill(state, number, tables[table.name])
    index_build.fill_transfer_lists(state)
    index_build.fill_session_lists(state, tables["orders"])
    for name, value in balance_sums(state).items():
        state.core[name] = value
    return state, tables
