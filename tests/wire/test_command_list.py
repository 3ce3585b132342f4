"""Joining and cutting lists of commands keeps every byte of commands and details, and which belongs to which."""

import numpy as np
import pytest

from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND, DETAILS, EVENT, OUTCOME


def one(number: int, with_details: bool) -> CommandList:
    """Return a command whose bytes, and those of its details, all have the same value."""
    records = np.frombuffer(bytes([number]) * COMMAND.itemsize, COMMAND).copy()
    records["details"] = int(with_details)
    details = np.frombuffer(bytes([number]) * DETAILS.itemsize, DETAILS)[: int(with_details)]
    return CommandList(records, details)


def details_of(commands: CommandList, at: int) -> bytes:
    number = int(commands.records["details"][at])
    return commands.details[number - 1].tobytes() if number else b""


SHAPES = [False, True, True, False, True, False]


def test_joined_and_cut_lists_keep_every_byte() -> None:
    joined = join([one(1 + at, shape) for at, shape in enumerate(SHAPES)])
    assert (len(joined.records), len(joined.details)) == (len(SHAPES), sum(SHAPES))
    for first in range(len(SHAPES)):
        for last in range(first, len(SHAPES) + 1):
            part = joined.part(first, last)
            assert len(part.details) == sum(SHAPES[first:last])
            for at in range(first, last):
                expected = bytes([1 + at]) * DETAILS.itemsize if SHAPES[at] else b""
                assert details_of(part, at - first) == expected
                assert part.records[at - first]["quantity_lots"] == joined.records[at]["quantity_lots"]


def test_nothing_is_joined_to_an_empty_list() -> None:
    assert [part.dtype for part in join([])] == [COMMAND, DETAILS]


def test_list_has_a_bound_of_details() -> None:
    many = CommandList(np.zeros(1, COMMAND), np.zeros(40_000, DETAILS))
    with pytest.raises(ValueError, match="at most 65535 details"):
        join([many, many])


@pytest.mark.parametrize("layout", [COMMAND, DETAILS, EVENT, OUTCOME], ids=["command", "details", "event", "outcome"])
def test_arrays_of_records_keep_every_byte(layout: np.dtype[np.void]) -> None:
    """NumPy drops bytes that no field names when it joins arrays, picks records or deletes some."""
    data = bytes(range(1, 129))[: layout.itemsize] * 3
    records = np.frombuffer(data, layout)
    assert np.concatenate([records, records]).tobytes() == data * 2
    assert records[[0, 1, 2]].tobytes() == data
    assert np.delete(records, 0).tobytes() == data[layout.itemsize :]
