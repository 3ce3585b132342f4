"""Hold commands together with their details, and join and cut such lists.

A COMMAND names its details by number among the details of the same list, so records must not move from one list to
another without it. No sockets, no clock.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE

NO_DETAILS: Final[NDArray[np.void]] = np.zeros(0, DETAILS)
NO_DETAILS.setflags(write=False)


class CommandList(NamedTuple):
    """Commands (COMMAND) and the details (DETAILS) that they name."""

    records: NDArray[np.void]
    details: NDArray[np.void] = NO_DETAILS

    def part(self, first: int, last: int) -> "CommandList":
        """Return the commands from number `first` to before `last`, with their own details only.

        Raises ValueError if one of them names details that the list does not have.
        """
        return self.select(slice(first, last))

    def select(self, rows: "slice | NDArray[np.bool_]") -> "CommandList":
        """Return the commands in these rows, with their own details only; raises ValueError as part() does."""
        records = self.records[rows]
        if not len(self.details):
            return CommandList(records)
        numbers, places = np.unique(records["details"], return_inverse=True)
        _check_numbers(records, self.details)
        named = numbers[numbers > 0].astype(np.int64)
        if not len(named):
            return CommandList(records)
        records = records.copy()
        records["details"] = places + (numbers[0] != 0)
        return CommandList(records, self.details[named - 1])

    def pieces(self) -> list[bytes]:
        """Return each command with its details as bytes, which are the same in any list that holds the command.

        They are the command with 1 as the number of its details, or 0, and then the details. Raises ValueError if a
        command names details that the list does not have.
        """
        _check_numbers(self.records, self.details)
        numbers = self.records["details"].tolist()
        alone = self.records.copy()
        alone["details"] = alone["details"] > 0
        raw, details = alone.tobytes(), self.details.tobytes()
        return [
            raw[at * COMMAND_SIZE : (at + 1) * COMMAND_SIZE]
            + (details[(number - 1) * DETAILS_SIZE : number * DETAILS_SIZE] if number else b"")
            for at, number in enumerate(numbers)
        ]


def join(lists: Sequence[CommandList]) -> CommandList:
    """Return the commands of several lists as one list.

    Raises ValueError for more than 65,535 details, and if a command names details that its own list does not have: in
    the joined list it would get those of another.
    """
    if not lists:
        return CommandList(np.zeros(0, COMMAND))
    # As bytes: NumPy compares the fields of all records with each other before it joins them.
    if not any(len(part.details) for part in lists):
        data = bytearray().join([part.records.tobytes() for part in lists])
        return CommandList(np.frombuffer(data, COMMAND))
    shifted = []
    before = 0
    for part in lists:
        _check_numbers(part.records, part.details)
        records = part.records.copy()
        records["details"][records["details"] != 0] += np.uint16(before)
        before += len(part.details)
        if before > np.iinfo(np.uint16).max:
            raise ValueError(f"expected at most {np.iinfo(np.uint16).max} details in one list, found {before}")
        shifted.append(records)
    return CommandList(
        np.frombuffer(bytearray().join([records.tobytes() for records in shifted]), COMMAND),
        np.frombuffer(bytearray().join([part.details.tobytes() for part in lists]), DETAILS),
    )


def _check_numbers(records: NDArray[np.void], details: NDArray[np.void]) -> None:
    most = int(records["details"].max()) if len(records) else 0
    if most > len(details):
        raise ValueError(f"a command names details {most} of a list that has {len(details)}")
