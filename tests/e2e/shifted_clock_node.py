"""Run a node whose wall clock is shifted: `python -m tests.e2e.shifted_clock_node FILE [--unbounded] ARGUMENTS ...`.

FILE holds the seconds by which the clock is ahead. It is read at every use of the clock, so that a test can let the
clock jump. With --unbounded, the node stamps entries with its own clock, as if no other clock counted. The other
arguments are those of smrx.
"""

import sys
import time
from pathlib import Path
from typing import Any

from smrx import cli
from smrx.node import reactor


class ShiftedClockNode(reactor.Node):
    """A node that reads its clock with the shift in a file."""

    shift_file: Path

    def wall_ns(self) -> int:
        """Return the shifted clock."""
        return time.time_ns() + int(float(self.shift_file.read_text(encoding="ascii") or "0") * 1e9)


class UnboundedNode(ShiftedClockNode):
    """A node that leads with any clock and stamps entries with it."""

    def stamp_ns(self) -> int:
        """Return the node's own clock."""
        return self.wall_ns()


def main() -> None:
    """Run the node."""
    file, *arguments = sys.argv[1:]
    node: type[ShiftedClockNode] = ShiftedClockNode
    if arguments[0] == "--unbounded":
        node = UnboundedNode
        arguments = arguments[1:]
    node.shift_file = Path(file)
    names: Any = reactor
    names.Node = node
    cli.main(arguments)


if __name__ == "__main__":
    main()
