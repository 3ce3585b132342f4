"""Lists of commands keep each command with its own details, however they are cut and joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND, DETAILS, ORDER_DETAILS

#: For each command, the number of its details, 0 for none; details may be shared, and some may have no command.
lists = st.integers(0, 5).flatmap(
    lambda details: st.tuples(st.lists(st.integers(0, details), max_size=8), st.just(details))
)


def made(numbers: list[int], details: int, name: str = "") -> CommandList:
    """Return commands with these details; each has a price of its own and each details a text of their own."""
    records, named = np.zeros(len(numbers), COMMAND), np.zeros(details, ORDER_DETAILS)
    records["details"], records["price_ticks"] = numbers, np.arange(len(numbers))
    named["client_order_id"] = [f"{name}{number}".encode() for number in range(1, details + 1)]
    return CommandList(records, named.view(DETAILS))


def contents(found: CommandList) -> list[tuple[int, bytes]]:
    """Return the price of each command and the text of its details."""
    texts = [b"", *found.details.view(ORDER_DETAILS)["client_order_id"].tolist()]
    return [(int(record["price_ticks"]), texts[int(record["details"])]) for record in found.records]


@given(lists, st.integers(0, 8), st.integers(0, 8))
def test_part_has_its_commands_with_their_own_details_only(
    given_list: tuple[list[int], int], first: int, last: int
) -> None:
    whole = made(*given_list)
    part = whole.part(first, last)
    assert contents(part) == contents(whole)[first:last]
    assert set(part.records["details"].tolist()) - {0} == set(range(1, len(part.details) + 1)) or not len(whole.details)
    assert contents(whole) == contents(made(*given_list))


@given(st.lists(lists, max_size=4))
def test_joined_lists_have_the_commands_of_each_with_their_details(given_lists: list[tuple[list[int], int]]) -> None:
    parts = [made(*given_list, name=f"{at}/") for at, given_list in enumerate(given_lists)]
    assert contents(join(parts)) == [row for part in parts for row in contents(part)]
    assert len(join(parts).details) == sum(len(part.details) for part in parts)


@given(lists)
def test_pieces_depend_on_the_command_alone(given_list: tuple[list[int], int]) -> None:
    whole = made(*given_list)
    pieces = whole.pieces()
    assert pieces == [whole.part(at, at + 1).pieces()[0] for at in range(len(pieces))]
    assert pieces == join([made([1], 1), whole]).pieces()[1:]
    assert [len(piece) for piece in pieces] == [192 if number else 64 for number in given_list[0]]


def test_command_that_names_the_details_of_another_list_is_refused() -> None:
    wrong = made([1, 2], 1)
    for use in (lambda: join([wrong, made([1], 1)]), lambda: wrong.part(0, 2), wrong.pieces):
        with pytest.raises(ValueError, match="names details 2 of a list that has 1"):
            use()


def test_list_has_at_most_as_many_details_as_a_command_can_name() -> None:
    half = made([1], 1 << 15)
    with pytest.raises(ValueError, match="at most 65535 details"):
        join([half, half])
    found = join([half, CommandList(half.records, half.details[:-1])])
    assert contents(found) == [(0, b"1"), (0, b"1")]
