"""A node that is broken on purpose: `python -m tests.cluster.torture.broken_node HOW ...`, else as torture's tap."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.torture.tap import give_a_voice
from smrx import cli
from smrx.consensus import Replica
from smrx.node import reactor
from smrx.node.replicated_state import ReplicatedState
from smrx.wire.codes import EventKind
from tests.sim import broken


def answers_before_commit() -> None:
    """A frame is answered as soon as it is taken."""
    names: Any = reactor
    names.OrderEntry = broken.AnswersBeforeCommit


def votes_without_memory() -> None:
    """A node that lost its log votes and counts as if it had it."""
    names: Any = Replica
    names._starts_as_learner = lambda self, meta, journal: False


def publish_otherwise(change: Callable[[NDArray[np.void]], None]) -> None:
    """What the node made of each entry is right; `change` is done to the events it tells of."""
    names: Any = reactor
    machine: type[ReplicatedState] = names.ReplicatedState

    class Publishes(machine):  # type: ignore[misc, valid-type]
        def apply(self, log_index: int, term: int, entry: bytes) -> None:
            super().apply(log_index, term, entry)
            change(self._applied[-1].events)

    names.ReplicatedState = Publishes


def publishes_another_time() -> None:
    """Everything is published a nanosecond later than it came about, by all nodes alike."""

    def later(events: NDArray[np.void]) -> None:
        events["time_ns"] += 1

    publish_otherwise(later)


def publishes_another_fee() -> None:
    """Every taker is told a fee of one unit more, by all nodes alike."""

    def dearer(events: NDArray[np.void]) -> None:
        events["cum_lots"] += (events["kind"] == EventKind.TRADE).astype(np.int64)

    publish_otherwise(dearer)


WAYS: dict[str, Callable[[], None]] = {
    "answers-before-commit": answers_before_commit,
    "votes-without-memory": votes_without_memory,
    "publishes-another-time": publishes_another_time,
    "publishes-another-fee": publishes_another_fee,
}


def main() -> None:
    """Be a node, but for one thing."""
    how, *arguments = sys.argv[1:]
    rest = give_a_voice(arguments)
    WAYS[how]()
    cli.main(rest)


if __name__ == "__main__":
    main()
