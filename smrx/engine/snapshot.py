"""Save a state as bytes and restore it: a header, the used part of every table, the heap and the kept state hashes.

Indexes are not stored: a restore rebuilds them from the records. Everything else is checked before a snapshot is
accepted: first lengths and checksums, then every link and sum (checks/invariants.py), then the content hash, computed
again. Called by engine.py.
"""

from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine import index_build
from smrx.engine.checks import invariants
from smrx.engine.checks.full_hash import maintained
from smrx.engine.checks.record_columns import StateColumns
from smrx.engine.engine_error import SnapshotError
from smrx.engine.state import (
    BOOKS,
    DTYPES,
    INSTRUMENTS,
    ORDERS,
    RING_SIZE,
    TABLES,
    State,
    allocate,
)

MAGIC: Final = b"SMRXSNAP"
FORMAT: Final = 2

HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("format", "<u4"),
        ("unused", "<u4"),
        ("layout", "<u8"),  # xxh3 of the description of all records
        ("sequence", "<u8"),
        ("state_hash", "<u8"),
        ("content_hash", "<u8"),  # with the counters
        ("body_bytes", "<u8"),
        ("body_hash", "<u8"),
        ("header_hash", "<u8"),  # of the bytes before it
    ]
)
_HASHED: Final = HEADER.itemsize - 8
#: More records than any machine has memory for; a larger length is rejected before anything is allocated.
_MAX_RECORDS: Final = 1 << 31
#: Arrays of a state that are not stored: a restore rebuilds them.
NOT_STORED: Final = (*(name for name in State._fields if name.endswith("_index")), "scratch")
LAYOUT: Final = xxhash.xxh3_64_intdigest(repr([(name, DTYPES[name].descr) for name in State._fields]).encode())


def kept_hashes(sequence: int) -> int:
    """Return how many state hashes a state keeps: that of the empty state counts, the ring is the limit."""
    return min(sequence + 1, RING_SIZE)


def _ring_positions(sequence: int) -> NDArray[np.int64]:
    """Return the ring positions of the kept hashes, from the oldest to the newest."""
    return np.arange(sequence + 1 - kept_hashes(sequence), sequence + 1) & (RING_SIZE - 1)


def pieces(state: State) -> list[bytes | memoryview]:
    """Return a snapshot in parts, most of them views of the state itself: no second copy in memory."""
    sequence = int(state.core["command_sequence"][0])
    tops = state.pools["top"]
    rows: list[Any] = [state.core, state.pools, state.books[: BOOKS * int(tops[INSTRUMENTS])]]
    rows += [getattr(state, table.name)[: int(top)] for table, top in zip(TABLES, tops, strict=True)]
    rows.append(state.heap[: int(state.core["expiring"][0]) + 1])
    rows.append(state.ring[_ring_positions(sequence)])
    body = [memoryview(part.view(np.uint8)) for part in rows]
    body_hash = xxhash.xxh3_64()
    for part in body:
        body_hash.update(part)
    header = np.zeros(1, HEADER)
    header["magic"] = MAGIC
    header["format"] = FORMAT
    header["layout"] = LAYOUT
    header["sequence"] = sequence
    header["state_hash"] = state.core["state_hash"][0]
    header["content_hash"] = maintained(state)
    header["body_bytes"] = sum(len(part) for part in body)
    header["body_hash"] = body_hash.intdigest()
    header["header_hash"] = xxhash.xxh3_64_intdigest(header.tobytes()[:_HASHED])
    return [header.tobytes(), *body]


def load(data: bytes | memoryview) -> State:
    """Return the state of a snapshot; SnapshotError if the bytes are anything else."""
    header, body = _checked_parts(data)
    state, tables = _restored_tables(body)
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


def _checked_parts(data: bytes | memoryview) -> tuple[Any, memoryview]:
    """Return header and body of a snapshot after checking their checksums."""
    if len(data) < HEADER.itemsize:
        raise SnapshotError(f"The snapshot has {len(data)} bytes; its header alone has {HEADER.itemsize}.")
    header = np.frombuffer(data, HEADER, count=1)[0]
    if bytes(header["magic"]) != MAGIC:
        raise SnapshotError(f"The file is not a snapshot: it begins with {bytes(data[:8])!r}, not with {MAGIC!r}.")
    if int(header["format"]) != FORMAT:
        raise SnapshotError(f"The snapshot has format {int(header['format'])}; this program reads format {FORMAT}.")
    if int(header["header_hash"]) != xxhash.xxh3_64_intdigest(data[:_HASHED]):
        raise SnapshotError("The snapshot's header is damaged (checksum mismatch).")
    if int(header["layout"]) != LAYOUT:
        raise SnapshotError("The snapshot was written by a version of smrx with another record layout.")
    body = memoryview(data)[HEADER.itemsize :]
    if len(body) != int(header["body_bytes"]):
        raise SnapshotError(f"The snapshot's body has {len(body)} bytes; its header gives {int(header['body_bytes'])}.")
    if xxhash.xxh3_64_intdigest(body) != int(header["body_hash"]):
        raise SnapshotError("The snapshot's body is damaged (checksum mismatch).")
    return header, body


def _restored_tables(body: memoryview) -> tuple[State, StateColumns]:
    """Return a state with the records of a body and rebuilt indexes, and the tables used to check its links."""
    fixed = DTYPES["core"].itemsize + DTYPES["pools"].itemsize * len(TABLES)
    if len(body) < fixed:
        raise SnapshotError("The snapshot's body ends before its tables.")
    core = np.frombuffer(body, DTYPES["core"], count=1)
    pools = np.frombuffer(body, DTYPES["pools"], count=len(TABLES), offset=DTYPES["core"].itemsize)
    tops = [int(top) for top in pools["top"]]
    sequence = int(core["command_sequence"][0])
    waiting = int(core["expiring"][0])
    lengths = {"books": BOOKS * tops[INSTRUMENTS]} | {table.name: top for table, top in zip(TABLES, tops, strict=True)}
    lengths |= {"heap": waiting + 1, "ring": kept_hashes(sequence)}
    expected = fixed + sum(length * DTYPES[name].itemsize for name, length in lengths.items())
    possible = min(tops) >= 1 and max(tops) <= _MAX_RECORDS and waiting < tops[ORDERS] and sequence < 1 << 62
    if not possible or len(body) != expected:
        raise SnapshotError("The lengths of the snapshot's tables do not match its body.")

    # Space for as many again, so that a restored engine does not grow at once.
    state = allocate({table.name: max(2 * top, 64) for table, top in zip(TABLES, tops, strict=True)})
    state.core[:] = core
    state.pools[:] = pools
    offset = fixed
    for name, length in lengths.items():
        size = length * DTYPES[name].itemsize
        # As bytes: NumPy copies records field by field, forty times slower.
        rows = np.frombuffer(body, np.uint8, size, offset)
        offset += size
        if name == "ring":
            state.ring[_ring_positions(sequence)] = rows.view(DTYPES["ring"])
        else:
            getattr(state, name).view(np.uint8)[:size] = rows
    tables = StateColumns(state)
    invalid = invariants.invalid_links(tables)
    if invalid:
        raise SnapshotError(f"The snapshot's state is inconsistent: {invalid[0]}.")
    for number, table in enumerate(TABLES):
        index_build.fill(state, number, tables[table.name])
    return state, tables
