"""Write to and read from a ring of bytes in shared memory, in compiled code: one writer, one reader, no lock.

A ring has a power of two of bytes. Two cursors count the bytes ever written and ever read; each is written by one side
only and lies on cache lines of its own, so the sides do not take lines from each other except to hand over bytes. A
side keeps its own cursor, and the newest one of the other side that it needed, in private memory: it reads the shared
cursor of the other only when the private copy says full or empty. Never blocks. Called by ring_end.py and the
benchmark of rings.

Trust: the other side may write anything anywhere into the memory, at any time. So nothing that decides where this side
reads or writes is taken from there but the other's cursor, which is read once and has to be at most one ring away; if
it is not, the ring is broken for good. A side never reads its own cursor back. Bytes are copied out before anything
looks at them.

Memory order: the writer copies bytes, then stores its cursor with release order; the reader loads that cursor with
acquire order before it copies them. So the bytes are there once the cursor says so. The reader copies bytes out, then
stores its cursor with release order; the writer loads it with acquire order before it overwrites them. On x86-64 these
are plain loads and stores, which the processor keeps in this order, and the compiler does, too; on ARM they are LDAR
and STLR. Sleeping needs more: a side sets a flag and then looks at the cursor, the other stores the cursor and then
looks at the flag. Each could see the old value of the other, and the sleeper would not be woken. So both put a
sequentially consistent fence in between (MFENCE or a locked instruction on x86-64, DMB ISH on ARM): then at least one
of them sees the new value.
"""

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from smrx.engine.kernels.jit import INTERPRETED, Array, entry_point, fingerprint, kernel

#: Numba is typed in parts, and differently from version to version: as Any it is the same in all.
_types: Any = types
_intrinsic: Any = intrinsic
_int32, _intp, _uintp = _types.int32, _types.intp, _types.uintp
_copy: Any = _types.ExternalFunction("memmove", _uintp(_uintp, _uintp, _uintp))
_write: Any = _types.ExternalFunction("write", _intp(_int32, _uintp, _uintp))

#: Bytes between two fields of the shared header: two cache lines, because processors fetch lines in pairs.
_LINES: Final = 128
# Fields of the header.
WRITTEN: Final = 0 * _LINES  #: bytes ever written; stored by the writer
READ: Final = 1 * _LINES  #: bytes ever read; stored by the reader
READER_SLEEPS: Final = 2 * _LINES  #: 1: the writer has to ring the reader's bell once it has written
WRITER_SLEEPS: Final = 3 * _LINES  #: 1: the reader has to ring the writer's bell once it has read
HEADER_BYTES: Final = 4 * _LINES

# Words of a side's private memory.
HEADER: Final = 0  #: address of the shared header
DATA: Final = 1  #: address of the bytes
CAPACITY: Final = 2
OWN: Final = 3  #: this side's cursor
OTHER: Final = 4  #: the other side's cursor when it was last needed
BROKEN: Final = 5  #: 1 once the other side's cursor was impossible
BELL: Final = 6  #: descriptor of the other side's bell, an eventfd
ONE: Final = 7  #: the word that rings a bell
WORDS: Final = 8

#: Result of write() and read() for a broken ring.
IS_BROKEN: Final = -1


def _load(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
    pointer = builder.inttoptr(values[0], ir.PointerType(ir.IntType(64)))
    return builder.load_atomic(pointer, "acquire", 8)


def _store(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
    pointer = builder.inttoptr(values[0], ir.PointerType(ir.IntType(64)))
    builder.store_atomic(values[1], pointer, "release", 8)
    return context.get_dummy_value()


def _fence(context: Any, builder: Any, _signature: Any, _values: Any) -> Any:
    builder.fence("seq_cst")
    return context.get_dummy_value()


@_intrinsic  # type: ignore[untyped-decorator]
def load_acquire(_: Any, address: Any) -> Any:
    """Load a word; what is read after it is read after it; an intrinsic."""
    return _types.int64(_types.int64), _load


@_intrinsic  # type: ignore[untyped-decorator]
def store_release(_: Any, address: Any, value: Any) -> Any:
    """Store a word; what was written before it is written before it; an intrinsic."""
    return _types.void(_types.int64, _types.int64), _store


@_intrinsic  # type: ignore[untyped-decorator]
def fence(_: Any) -> Any:
    """Let no store before it become visible after a load behind it; an intrinsic."""
    return _types.void(), _fence


@kernel
def write_bytes(side: Array, address: Any, size: Any) -> Any:
    """Write up to `size` bytes from an address; return how many there was room for, IS_BROKEN if the ring is broken."""
    if side[BROKEN] != 0:
        return IS_BROKEN
    own = side[OWN]
    room = side[CAPACITY] - (own - side[OTHER])
    if room < size:
        other = load_acquire(side[HEADER] + READ)
        if own - other < 0 or own - other > side[CAPACITY] or other < side[OTHER]:
            side[BROKEN] = 1
            return IS_BROKEN
        side[OTHER] = other
        room = side[CAPACITY] - (own - other)
    count = min(size, room)
    if count > 0:
        place = own & (side[CAPACITY] - 1)
        first = min(count, side[CAPACITY] - place)
        _copy(np.uint64(side[DATA] + place), np.uint64(address), np.uint64(first))
        if first < count:
            _copy(np.uint64(side[DATA]), np.uint64(address + first), np.uint64(count - first))
        side[OWN] = own + count
        store_release(side[HEADER] + WRITTEN, own + count)
    return count


@kernel
def read_bytes(side: Array, address: Any, room: Any) -> Any:
    """Read up to `room` bytes to an address; return how many there were, IS_BROKEN if the ring is broken."""
    if side[BROKEN] != 0:
        return IS_BROKEN
    own = side[OWN]
    waiting = side[OTHER] - own
    if waiting < room:
        other = load_acquire(side[HEADER] + WRITTEN)
        if other - own < 0 or other - own > side[CAPACITY] or other < side[OTHER]:
            side[BROKEN] = 1
            return IS_BROKEN
        side[OTHER] = other
        waiting = other - own
    count = min(room, waiting)
    if count > 0:
        place = own & (side[CAPACITY] - 1)
        first = min(count, side[CAPACITY] - place)
        _copy(np.uint64(address), np.uint64(side[DATA] + place), np.uint64(first))
        if first < count:
            _copy(np.uint64(address + first), np.uint64(side[DATA]), np.uint64(count - first))
        side[OWN] = own + count
        store_release(side[HEADER] + READ, own + count)
    return count


@kernel
def ring_bell(side: Array, flag: Any) -> Any:
    """Wake the other side if it set `flag` (READER_SLEEPS or WRITER_SLEEPS) of this ring; return whether it had."""
    fence()
    if load_acquire(side[HEADER] + flag) == 0:
        return False
    # Before the bell: a flag that is set after this belongs to the next sleep.
    store_release(side[HEADER] + flag, 0)
    side[ONE] = 1
    _write(np.int32(side[BELL]), np.uint64(np.int64(side.ctypes.data) + 8 * ONE), np.uint64(8))
    return True


@kernel
def may_sleep(side: Array, flag: Any, cursor: Any, expected: Any) -> Any:
    """Ask the other side to ring once its `cursor` (WRITTEN or READ) moves; return whether it still is as expected."""
    store_release(side[HEADER] + flag, 1)
    fence()
    if load_acquire(side[HEADER] + cursor) == expected:
        return True
    store_release(side[HEADER] + flag, 0)
    return False


def _compiled(source: int) -> tuple[Any, ...]:
    """Return the entry points, compiled again whenever this source changes (see jit.fingerprint)."""
    version = source

    def write(side: Array, data: Array, start: int, size: int) -> Any:
        if version == 0:  # never true: it makes the version a part of the compiled code
            return 0
        count = write_bytes(side, np.int64(data.ctypes.data) + start, size)
        if count > 0:
            ring_bell(side, READER_SLEEPS)
        return count

    def read(side: Array, data: Array, start: int, room: int) -> Any:
        if version == 0:
            return 0
        count = read_bytes(side, np.int64(data.ctypes.data) + start, room)
        if count > 0:
            ring_bell(side, WRITER_SLEEPS)
        return count

    def sleep_until_written(side: Array) -> Any:
        # Empty: what was written is what was read.
        return version != 0 and side[BROKEN] == 0 and may_sleep(side, READER_SLEEPS, WRITTEN, side[OWN])

    def sleep_until_read(side: Array) -> Any:
        # Full: what was read is one ring behind.
        return version != 0 and side[BROKEN] == 0 and may_sleep(side, WRITER_SLEEPS, READ, side[OWN] - side[CAPACITY])

    return tuple(map(entry_point, (write, read, sleep_until_written, sleep_until_read)))


#: write(side, data, start, size): write from an array of bytes and wake the reader; as write_bytes().
#: read(side, data, start, room): read into an array of bytes and wake the writer; as read_bytes().
#: sleep_until_written(side): whether the reader may sleep until its bell rings; False: there is something to read.
#: sleep_until_read(side): whether the writer may sleep until its bell rings; False: there is room.
write, read, sleep_until_written, sleep_until_read = _compiled(fingerprint(__name__, "smrx.engine.kernels.jit"))


def is_available() -> bool:
    """Return whether this process can use rings: only compiled code keeps the memory order."""
    return not INTERPRETED
