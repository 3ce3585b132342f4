"""A node that is broken on purpose: `python -m tests.cluster.broken_node HOW ...`, else as cluster.tap."""

import sys
from collections.abc import Callable
from typing import Any

from cluster.tap import give_a_voice
from smrx import cli
from smrx.consensus import core
from smrx.node import reactor
from tests.sim import broken


def answers_before_commit() -> None:
    """A frame is answered as soon as it is taken."""
    names: Any = reactor
    names.Gateway = broken.AnswersBeforeCommit


def votes_without_memory() -> None:
    """A node that lost its log votes and counts as if it had it."""
    names: Any = core.Core
    names._starts_as_learner = lambda self, meta, journal: False


WAYS: dict[str, Callable[[], None]] = {
    "answers-before-commit": answers_before_commit,
    "votes-without-memory": votes_without_memory,
}


def main() -> None:
    """Be a node, but for one thing."""
    how, *arguments = sys.argv[1:]
    rest = give_a_voice(arguments)
    WAYS[how]()
    cli.main(rest)


if __name__ == "__main__":
    main()
