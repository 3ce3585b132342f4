"""Call madvise(2), which neither os nor ctypes has by name."""

import ctypes
import functools
import os
from collections.abc import Callable
from typing import cast

#: (address, bytes, advice) -> 0, or -1 if the system refuses.
Advise = Callable[[int, int, int], int]

#: Page sizes differ between systems; the callers support this one only.
PAGE_BYTES = 4 << 10


@functools.cache
def madvise() -> Advise | None:
    """Return the system's madvise; None if there is none, or if pages have another size."""
    if os.sysconf("SC_PAGE_SIZE") != PAGE_BYTES:
        return None
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return cast(Advise, found)
