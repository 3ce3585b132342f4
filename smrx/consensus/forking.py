"""A fork for a child that does not need all of the memory.

A fork lists every page of the process, and each one that the parent writes to afterwards is copied. Memory that is left
out costs neither: to the child it does not exist, and one that touches it all the same ends with SIGSEGV. Where the
system knows no such request (it is Linux's) the child has everything. Called by the snapshot store.
"""

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from numpy.typing import NDArray

from smrx.consensus.memory_advice import PAGE_BYTES, madvise

#: Two requests an array cost some 20 us, as much as listing this.
_WORTH_BYTES: Final = 1 << 20


def fork(left_out: Iterable[NDArray[Any]] = ()) -> int:
    """As os.fork, for a child without the pages that lie wholly in these arrays; raises OSError.

    For the parent nothing is changed when this returns: the children of any other fork have all of its memory.
    """
    with _left_out(left_out):
        return os.fork()


@contextlib.contextmanager
def _left_out(arrays: Iterable[NDArray[Any]]) -> Iterator[None]:
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
    """Yield (address, bytes) of the pages that hold nothing but this array; nothing where it is not worth it."""
    if array.nbytes >= _WORTH_BYTES and array.flags.c_contiguous:
        first = -(-array.ctypes.data // PAGE_BYTES) * PAGE_BYTES
        end = (array.ctypes.data + array.nbytes) // PAGE_BYTES * PAGE_BYTES
        yield first, end - first
