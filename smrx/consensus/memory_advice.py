"""What a process can tell the system of its own memory: madvise(2), which neither os nor ctypes has by name."""

import ctypes
import functools
import os
from collections.abc import Callable
from typing import cast

#: (address, bytes, advice) -> 0, or -1 where the system does not take the advice.
Advise = Callable[[int, int, int], int]

#: Page sizes differ between systems; what is advised here is thought through for this one.
PAGE_BYTES = 4 << 10


@functools.cache
def madvise() -> Advise | None:
    """The system's madvise; None where there is none, or where it speaks of pages of another size."""
    if os.sysconf("SC_PAGE_SIZE") != PAGE_BYTES:
        return None
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return cast(Advise, found)
