"""A state as bytes and back: a header, then the used part of every table, the heap, and the kept hashes.

Indexes are not in it: they are made again from the records. Everything else is checked before anything is accepted:
lengths and checksums first, then every link and sum (invariants.py), then the digest, computed anew. Called by
engine.py.
"""

from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine import index_build
from smrx.engine.checks import invariants
from smrx.engine.checks.full_hash import incremental
from smrx.engine.checks.record_columns import View
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
        ("digest", "<u8"),  # content digest with the counters
        ("body_bytes", "<u8"),
        ("body_hash", "<u8"),
        ("header_hash", "<u8"),  # of the bytes before it
    ]
)
_HASHED: Final = HEADER.itemsize - 8
#: More records than any machine has memory for; a length is refused before anything of that size is allocated.
_MOST: Final = 1 << 31
#: Arrays of a state that `pieces` does not touch.
LEFT_OUT: Final = (*(name for name in State._fields if name.endswith("_index")), "scratch")
LAYOUT: Final = xxhash.xxh3_64_intdigest(repr([(name, DTYPES[name].descr) for name in State._fields]).encode())


def kept_hashes(sequence: int) -> int:
    """How many hashes a state keeps: that of the empty state counts, the ring is the limit."""
    return min(sequence + 1, RING_SIZE)


def _ring_positions(sequence: int) -> NDArray[np.int64]:
    """Where the kept hashes stand, from the oldest to the newest."""
    return np.arange(sequence + 1 - kept_hashes(sequence), sequence + 1) & (RING_SIZE - 1)


def save(state: State) -> bytes:
    """The state as bytes. The same state gives the same bytes, and restored it gives them again."""
    return b"".join(pieces(state))


def pieces(state: State) -> list[bytes | memoryview]:
    """The bytes of `save` one after the other, most of them views of the state itself: no second copy in memory."""
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
    header["digest"] = incremental(state)
    header["body_bytes"] = sum(len(part) for part in body)
    header["body_hash"] = body_hash.intdigest()
    header["header_hash"] = xxhash.xxh3_64_intdigest(header.tobytes()[:_HASHED])
    return [header.tobytes(), *body]


def load(data: bytes | memoryview) -> State:
    """The state that bytes of `save` stand for; SnapshotError if they are anything else."""
    header, body = _opened(data)
    state, view = _filled(body)
    core = state.core[0]
    if int(core["command_sequence"]) != int(header["sequence"]) or core["state_hash"] != header["state_hash"]:
        raise SnapshotError("The snapshot's header is not that of its state.")
    faults = invariants.contradictions(view)
    if faults:
        raise SnapshotError(f"The snapshot's state contradicts itself: {faults[0]}.")
    if incremental(state) != int(header["digest"]):
        raise SnapshotError("The snapshot's records do not have the digest that its header names.")
    newest = state.ring[int(header["sequence"]) & (RING_SIZE - 1)]
    if newest != header["state_hash"]:
        raise SnapshotError("The newest hash that the snapshot keeps is not its state hash.")
    return state


def _opened(data: bytes | memoryview) -> tuple[Any, memoryview]:
    """Header and body of a snapshot, both as they were written."""
    if len(data) < HEADER.itemsize:
        raise SnapshotError(f"A snapshot has at least {HEADER.itemsize} bytes, these are {len(data)}.")
    header = np.frombuffer(data, HEADER, count=1)[0]
    if bytes(header["magic"]) != MAGIC:
        raise SnapshotError(f"A snapshot begins with {MAGIC!r}, this with {bytes(data[:8])!r}.")
    if int(header["format"]) != FORMAT:
        raise SnapshotError(f"This program reads snapshots of format {FORMAT}, this one is {int(header['format'])}.")
    if int(header["header_hash"]) != xxhash.xxh3_64_intdigest(data[:_HASHED]):
        raise SnapshotError("The snapshot's header is damaged: its checksum is wrong.")
    if int(header["layout"]) != LAYOUT:
        raise SnapshotError("The snapshot's records are laid out otherwise than this program's.")
    body = memoryview(data)[HEADER.itemsize :]
    if len(body) != int(header["body_bytes"]):
        raise SnapshotError(f"The snapshot names {int(header['body_bytes'])} bytes and has {len(body)}.")
    if xxhash.xxh3_64_intdigest(body) != int(header["body_hash"]):
        raise SnapshotError("The snapshot's body is damaged: its checksum is wrong.")
    return header, body


def _filled(body: memoryview) -> tuple[State, View]:
    """A state with the records of a body, and indexes made of them; and the columns that its links were checked in."""
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
    possible = min(tops) >= 1 and max(tops) <= _MOST and waiting < tops[ORDERS] and sequence < 1 << 62
    if not possible or len(body) != expected:
        raise SnapshotError("The snapshot's tables do not have the lengths that it names.")

    # Room for as many again, so that a restored engine does not begin by growing.
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
    view = View(state)
    astray = invariants.astray(view)
    if astray:
        raise SnapshotError(f"The snapshot's state contradicts itself: {astray[0]}.")
    for number, table in enumerate(TABLES):
        index_build.fill(state, number, view[table.name])
    return state, view
