"""Run a node with a planted bug: `python -m tests.cluster.torture.broken_node BUG DESCRIPTOR ADDRESS ...`.

The other arguments are those of cluster.torture.applied_entries_pipe.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.torture.applied_entries_pipe import install_pipe
from smrx import cli
from smrx.consensus import Replica
from smrx.engine import Engine
from smrx.wire.codes import EventKind


def votes_without_state() -> None:
    """A node that lost its log votes as if it still had it."""
    names: Any = Replica
    names._starts_as_learner = lambda self, meta, journal: False


def _publish_changed(change: Callable[[NDArray[np.void]], None]) -> None:
    """Apply `change` to the events of every entry; the state stays correct.

    The engine's result is changed, so that events published at once and those retransmitted later are the same.
    """
    names: Any = Engine
    apply = Engine.apply

    def apply_and_change(engine: Engine, *batch: Any) -> Any:
        result = apply(engine, *batch)
        change(result.events)
        return result

    names.apply = apply_and_change


def publishes_another_time() -> None:
    """All nodes publish every event with a time one nanosecond later."""

    def later(events: NDArray[np.void]) -> None:
        events["time_ns"] += 1

    _publish_changed(later)


def publishes_another_fee() -> None:
    """All nodes publish a fee of one unit more for every taker."""

    def add_fee(events: NDArray[np.void]) -> None:
        events["cum_lots"] += (events["kind"] == EventKind.TRADE).astype(np.int64)

    _publish_changed(add_fee)


BUGS: dict[str, Callable[[], None]] = {
    "votes-without-state": votes_without_state,
    "publishes-another-time": publishes_another_time,
    "publishes-another-fee": publishes_another_fee,
}


def main() -> None:
    """Run the node."""
    bug, *arguments = sys.argv[1:]
    rest = install_pipe(arguments)
    BUGS[bug]()
    cli.main(rest)


if __name__ == "__main__":
    main()
