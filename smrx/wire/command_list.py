"""Hold commands together with their details, and join and cut such lists.

A COMMAND names its details by number among the details of the same list, so records must not move from one list to
another without it. No sockets, no clock.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import COMMAND, DETAILS

NO_DETAILS: Final[NDArray[np.void]] = np.zeros(0, DETAILS)
NO_DETAILS.setflags(write=False)


class CommandList(NamedTuple):
    """Commands (COMMAND) and the details (DETAILS) that they name."""

    records: NDArray[np.void]
    details: NDArray[np.void] = NO_DETAILS

    def part(self, first: int, last: int) -> "CommandList":
        """Return the commands from number `first` to before `last`, with their own details only."""
        records = self.records[first:last]
        numbers = records["details"]
        used = np.flatnonzero(numbers)
        if not len(used):
            return CommandList(records)
        records = records.copy()
        records["details"][used] = np.arange(1, len(used) + 1)
        return CommandList(records, self.details[numbers[used].astype(np.int64) - 1])


def join(lists: Sequence[CommandList]) -> CommandList:
    """Return the commands of several lists as one list. Raises ValueError for more than 65,535 details."""
    if not lists:
        return CommandList(np.zeros(0, COMMAND))
    if not any(len(part.details) for part in lists):
        return CommandList(np.concatenate([part.records for part in lists]))
    shifted = []
    before = 0
    for part in lists:
        records = part.records.copy()
        records["details"][records["details"] != 0] += np.uint16(before)
        before += len(part.details)
        if before > np.iinfo(np.uint16).max:
            raise ValueError(f"expected at most {np.iinfo(np.uint16).max} details in one list, found {before}")
        shifted.append(records)
    return CommandList(np.concatenate(shifted), np.concatenate([part.details for part in lists]))
