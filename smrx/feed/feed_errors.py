"""Errors after which the feed cannot be followed any further. Each message names the events and the nodes."""

import numpy as np

from smrx.wire.records import EVENT


class FeedError(Exception):
    """The feed cannot be followed any further."""


class GapUnfillable(FeedError):
    """Events are missing and no node can send them."""

    def __init__(self, first: int, last: int, answers: dict[int, str]) -> None:
        self.first, self.last, self.answers = first, last, answers
        nodes = "; ".join(f"node {node}: {answer}" for node, answer in answers.items()) or "no node to ask"
        super().__init__(f"events {first} to {last} are missing and no node can send them: {nodes}")


class FeedConflict(FeedError):
    """Two copies of one event differ."""

    def __init__(self, sequence: int, node: int, first_node: int, copy: np.void, first_copy: np.void) -> None:
        self.sequence, self.node, self.first_node = sequence, node, first_node
        names = EVENT.names or ()
        self.field = next((name for name in names if copy[name] != first_copy[name]), "none")
        values = (int(copy[self.field]), int(first_copy[self.field])) if self.field in names else (0, 0)
        super().__init__(
            f"event {sequence}: node {node} sent {self.field} {values[0]}, node {first_node} sent {values[1]}"
        )


class Disagreement(FeedError):
    """The nodes contradict each other and no majority agrees, or the majority contradicts what was settled before."""
