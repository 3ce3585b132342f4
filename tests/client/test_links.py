"""A link ends at once, whatever its connection does at that moment."""

import subprocess
import sys

from tests.client.closing import ORDERS

DEADLINE_S = 20.0


def closes(order: str, seconds: float) -> bool:
    """Whether a link whose connection breaks meanwhile is closed in time."""
    assert order in ORDERS
    command = [sys.executable, "-m", "tests.client.closing", order]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "closing\n"
        try:
            told, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    assert told == "closed\n"
    return process.returncode == 0


def test_a_link_is_closed_while_its_connection_breaks() -> None:
    assert closes("as-it-is", DEADLINE_S)


def test_in_the_other_order_it_waits_for_ever() -> None:
    """What the test above would see: ZeroMQ's thread reports to a reader that has gone."""
    assert not closes("the-other", 3.0)
