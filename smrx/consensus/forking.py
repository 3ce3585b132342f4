"""Fork a child without some of the memory.

A fork copies an entry for every page of the process, and each page that the parent writes to afterwards. Memory that is
excluded costs neither: it does not exist in the child, and a child that touches it ends with SIGSEGV. Where the system
does not support it (only Linux does) the child has everything. Called by the snapshot store and by child_file.py.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

from numpy.typing import NDArray

from smrx.consensus import large_pages
from smrx.consensus.memory_advice import PAGE_BYTES, madvise

#: Excluding an array takes two requests, some 20 us: as much as copying the entries of this size.
_WORTH_BYTES: Final = 1 << 20
_LARGE_BYTES: Final = 16 << 20


def fork(excluded: Iterable[NDArray[Any]] = ()) -> int:
    """Fork like os.fork, a child without the pages that belong entirely to these arrays; raises OSError.

    On return the parent is unchanged: children of any other fork have all of its memory.
    """
    with _excluded(excluded):
        return os.fork()


@contextlib.contextmanager
def _excluded(arrays: Iterable[NDArray[Any]]) -> Iterator[None]:
    request = madvise()
    if request is None or not hasattr(mmap, "MADV_DONTFORK"):
        yield
        return
    spans = [span for array in arrays for span in _whole_pages(array)]
    parent = os.getpid()
    try:
        for start, size in spans:
            request(start, size, mmap.MADV_DONTFORK)
        yield
    finally:
        if os.getpid() == parent:
            for start, size in spans:
                request(start, size, mmap.MADV_DOFORK)


def _whole_pages(array: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield (address, bytes) of the pages that hold only this array; nothing if it is small.

    Of a large array whole large pages: one that is excluded in part is split.
    """
    if array.nbytes >= _WORTH_BYTES and array.flags.c_contiguous:
        size = PAGE_BYTES if array.nbytes < _LARGE_BYTES else large_pages.PAGE_BYTES
        first = -(-array.ctypes.data // size) * size
        end = (array.ctypes.data + array.nbytes) // size * size
        yield first, end - first


def memory_file() -> int:
    """Create an unnamed file, in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("smrx")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def close_all_but(*kept: int | None) -> None:
    """Close the inherited descriptors except these; standard error stays open for faults of the interpreter."""
    first = 3
    for descriptor in sorted(number for number in kept if number is not None):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
