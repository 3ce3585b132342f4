"""The demo's display in a pipe and on a terminal."""

import io

import pytest
from rich.console import Console

from cluster.board import Board, NodeRow, Numbers

NUMBERS = Numbers((NodeRow(1, "leader", 3, 1200, 0xABC), NodeRow(2, "killed")), 1000, 4000, 512.4, 77, 70)


def test_in_a_pipe_it_is_plain_lines() -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=80)) as board:
        board.say("node 1 leads")
        board.show(NUMBERS)
        board.show(NUMBERS)
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("s] node 1 leads")
    assert lines[1].endswith(
        "acknowledged 1,000 of 4,000, 512 a second; 77 trades, 70 settled; node 1 leader at 1,200, node 2 killed"
    )
    assert len(lines) == 2, "numbers come every other second, not each time"
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 140])
def test_on_a_terminal_it_shows_nodes_and_what_happened(width: int) -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=width, force_terminal=True)) as board:
        board.say("SIGKILL for node 2")
        board.show(NUMBERS)
    for part in ("leader", "killed", "0000000000000abc", "SIGKILL for node 2"):
        assert part in out.getvalue()
