"""Allocate the engine's arrays so that a large one grows without being copied.

A small array is copied when it grows. A larger one gets address space for many more records than it has, once: the
system gives memory for a page of it when the page is written first, so the space costs nothing, and growth returns a
longer view of it. Owns nothing. Called by state.py and index_growth.py.
"""

import ctypes
import mmap
from functools import cache
from itertools import cycle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CACHE_LINE: Final = 64

#: An array of more records than this gets address space. Copying so many takes a tenth of a millisecond.
SMALL_RECORDS: Final = 4096
#: The records that there is address space for at least: more than MAX_CAPACITY. A larger array gets twice its size, and
#: is copied once; only version 1 of the rules allows that.
RESERVED_RECORDS: Final = 1 << 24

#: Cache lines between the start of a page and that of an array.
_COLOURS: Final = cycle(range(0, 64, 5))
#: From this size on NumPy requests large pages for an array.
_LARGE_BYTES: Final = 1 << 22
#: Of <sys/mman.h>: memory that is counted when it is written. The module mmap does not name it.
_MAP_NORESERVE: Final = 0x4000 if hasattr(mmap, "MADV_HUGEPAGE") else 0
#: <sys/mman.h> of Linux and of most others.
_MADV_DONTNEED: Final = 4
#: The largest page size of the systems that smrx runs on.
_PAGE_BYTES: Final = 1 << 16


def aligned_zeros(length: int, dtype: Any, reserve: int = 0) -> NDArray[Any]:
    """Return an array of zeros that begins at a cache line, with address space for `reserve` records if it can."""
    size = length * dtype.itemsize
    raw = _reserved(reserve * dtype.itemsize + mmap.PAGESIZE, size + mmap.PAGESIZE) if reserve > length else None
    if raw is None:
        # The system gives no address space that it may be unable to back; then the array is copied when it grows.
        raw = np.zeros(size + CACHE_LINE, np.uint8)
        start = -raw.ctypes.data % CACHE_LINE
    else:
        # Arrays that all began at the start of a page would compete for one set of the processor's cache.
        start = next(_COLOURS) * CACHE_LINE
    return raw[start : start + size].view(dtype)


def _reserved(room: int, size: int) -> NDArray[Any] | None:
    """Return address space, of which the first bytes will be used; None if there is none.

    Large pages are requested for these, as NumPy does for an array of their size. In the rest each page is provided
    by itself: providing a large one takes a tenth of a millisecond, and several if the machine has to find the memory
    first. large_pages.py of the node joins the pages that are used.
    """
    try:
        space = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, OverflowError):
        return None
    if size >= _LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        space.madvise(mmap.MADV_HUGEPAGE, 0, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    return np.frombuffer(space, np.uint8)


def reserve_for(length: int, records: int = 0) -> int:
    """Return how many records to have address space for in an array of a length; `records` at least if it is large."""
    return 0 if length <= SMALL_RECORDS + 1 else max(RESERVED_RECORDS + 1, records + 1, 2 * length)


def growing_zeros(length: int, dtype: Any, records: int = 0) -> NDArray[Any]:
    """Return an array of zeros for a table of this length, with room for `records` if it is large."""
    return aligned_zeros(length, dtype, reserve_for(length, records))


def room_of(array: NDArray[Any]) -> int:
    """Return the length up to which an array can be extended without a copy."""
    raw = array.base
    if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8:
        return len(array)
    return int(raw.nbytes - (array.ctypes.data - raw.ctypes.data)) // array.itemsize


def with_room(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of an array and of the space that it can be extended into."""
    raw = array.base
    if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8:
        return array.view(np.uint8)
    return raw[array.ctypes.data - raw.ctypes.data :]


def extended(old: NDArray[Any], length: int, dtype: Any, records: int = 0) -> NDArray[Any]:
    """Return an array with empty records at its end: the same memory if there is room in it, otherwise a copy.

    `records`: see growing_zeros.
    """
    if length <= room_of(old):
        raw: Any = old.base
        start = old.ctypes.data - raw.ctypes.data
        longer: NDArray[Any] = raw[start : start + length * dtype.itemsize].view(dtype)
        return longer
    array = growing_zeros(length, dtype, records)
    # As bytes: NumPy copies records field by field, forty times slower.
    array.view(np.uint8)[: old.nbytes] = old.view(np.uint8)
    return array


@cache
def _madvise() -> Any:
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


def release(array: NDArray[Any], first: int, last: int) -> None:
    """Return the memory of the elements first..last-1 to the system: their contents are lost."""
    request = _madvise()
    start = -(-(array.ctypes.data + first * array.itemsize) // _PAGE_BYTES) * _PAGE_BYTES
    end = (array.ctypes.data + last * array.itemsize) // _PAGE_BYTES * _PAGE_BYTES
    if request is not None and start < end:
        request(start, end - start, _MADV_DONTNEED)
