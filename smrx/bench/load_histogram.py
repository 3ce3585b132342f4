"""Count durations in buckets whose width is below 0.8 % of their value, and read percentiles from the counts.

The compiled load generator counts with bucket_of(); everything else reads with Percentiles. Pure.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import inlined

#: Buckets for each power of two.
_FINE_BITS: Final = 7
_FINE: Final = 1 << _FINE_BITS
#: Up to 2^40 ns, which is 18 minutes; longer durations are counted as that.
_MAX_BITS: Final = 40
_LARGEST: Final = (1 << _MAX_BITS) - 1
BUCKETS: Final = (_MAX_BITS - _FINE_BITS + 1) * _FINE
#: What reports name: name -> share of the durations that are not longer.
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def new_counts() -> NDArray[np.int64]:
    """Return the counts of no duration."""
    return np.zeros(BUCKETS, np.int64)


@inlined
def bucket_of(nanoseconds: Any) -> Any:
    """Return the bucket of a duration."""
    value = min(max(nanoseconds, 0), _LARGEST)
    shift = 0
    while value >> shift >= 2 * _FINE:
        shift += 1
    return shift * _FINE + (value >> shift)


def add(counts: NDArray[np.int64], nanoseconds: NDArray[np.int64]) -> None:
    """Count durations."""
    values = np.clip(nanoseconds, 0, _LARGEST)
    # The exponent of a float is the number of bits of the integer.
    shifts = np.maximum(np.frexp(values.astype(np.float64))[1] - (_FINE_BITS + 1), 0)
    np.add.at(counts, shifts * _FINE + (values >> shifts), 1)


def _largest_in(bucket: int) -> int:
    """Return the longest duration in a bucket, in nanoseconds."""
    if bucket < 2 * _FINE:
        return bucket
    shift = bucket // _FINE - 1
    return ((bucket - shift * _FINE + 1) << shift) - 1


def at_share(counts: NDArray[np.int64], share: float) -> int | None:
    """Return the duration in nanoseconds that `share` of all are not longer than; None if there are none."""
    total = int(counts.sum())
    if not total:
        return None
    wanted = min(total, max(1, int(np.ceil(share * total))))
    return _largest_in(int(np.searchsorted(np.cumsum(counts), wanted)))


def in_microseconds(counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Return p50, p90, p99, p999 and max in microseconds."""
    found = {name: at_share(counts, share) for name, share in (*PERCENTILES.items(), ("max", 1.0))}
    return {name: None if value is None else round(value / 1000, 1) for name, value in found.items()}
