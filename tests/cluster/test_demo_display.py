"""The display of the demo, in a pipe and on a terminal."""

import io

import pytest
from rich.console import Console

from cluster.demo_display import DemoDisplay, DemoFigures, NodeRow

FIGURES = DemoFigures((NodeRow(1, "leader", 3, 1200, 0xABC), NodeRow(2, "killed")), 1000, 4000, 512.4, 77, 70)


def test_pipe_output_is_plain_lines() -> None:
    out = io.StringIO()
    with DemoDisplay(Console(file=out, width=80)) as display:
        display.log("node 1 leads")
        display.update(FIGURES)
        display.update(FIGURES)
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("s] node 1 leads")
    assert lines[1].endswith(
        "acknowledged 1,000 of 4,000 commands, 512/s; 77 trades, 70 settled; node 1 leader at 1,200, node 2 killed"
    )
    assert len(lines) == 2, "figures are printed every two seconds at most"
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 140])
def test_terminal_output_shows_nodes_and_events(width: int) -> None:
    out = io.StringIO()
    with DemoDisplay(Console(file=out, width=width, force_terminal=True)) as display:
        display.log("SIGKILL for node 2")
        display.update(FIGURES)
    for part in ("leader", "killed", "0000000000000abc", "SIGKILL for node 2"):
        assert part in out.getvalue()
