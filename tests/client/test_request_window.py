"""The ring of unanswered requests keeps each command's details at its own place, also where it wraps."""

import numpy as np
import pytest

from smrx.client.request_window import RequestWindow
from smrx.wire.records import COMMAND, DETAILS


@pytest.mark.parametrize("named", [(0,), (3,), (0, 3), (1, 2)])
@pytest.mark.parametrize("before", range(4))
def test_details_follow_their_commands_across_the_end_of_the_ring(before: int, named: tuple[int, ...]) -> None:
    window = RequestWindow(1, 4)
    window.add(np.zeros(before, COMMAND))
    window.take(before)
    window.accept(before)
    commands, details = np.zeros(4, COMMAND), np.zeros(len(named), DETAILS)
    commands["details"][list(named)] = np.arange(1, len(named) + 1)
    details["display_lots"] = [10 + at for at in named]
    window.add(commands, details)
    sent: list[int] = []
    while window.sent < window.last:
        rows, theirs = window.take(4)
        sent += [int(theirs["display_lots"][number - 1]) if number else 0 for number in rows["details"].tolist()]
    assert sent == [10 + at if at in named else 0 for at in range(4)]
