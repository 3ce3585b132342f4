"""Hand-made event streams for the feed's tests: well-formed, each event different from every other."""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT


def numbered(first: int, last: int, salt: int = 0) -> NDArray[np.void]:
    """Return events first..last; `salt` makes the same sequences carry other content."""
    events = np.zeros(max(0, last - first + 1), EVENT)
    sequences = np.arange(first, last + 1, dtype=np.uint64)
    events["sequence"] = sequences
    events["command_sequence"] = sequences
    events["time_ns"] = 1_700_000_000_000_000_000 + sequences.astype(np.int64)
    events["kind"] = EventKind.NEW
    events["price_ticks"] = 100 + sequences.astype(np.int64) % 7
    events["quantity_lots"] = 1 + salt
    return events
