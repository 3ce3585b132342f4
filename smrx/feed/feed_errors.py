"""Errors after which the feed cannot be followed any further. Each message names the events and the nodes."""

from typing import Any

import numpy as np

from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT, EVENT_LAYOUTS


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
        self.field, found, first = _difference(copy, first_copy)
        super().__init__(f"event {sequence}: node {node} sent {self.field} {found}, node {first_node} sent {first}")


def _difference(copy: np.void, first_copy: np.void) -> tuple[str, str, str]:
    """Return the first field that differs, in the names of the event's kind, and both values."""
    kind = int(copy["kind"])
    layouts = [EVENT]
    if kind == int(first_copy["kind"]) and kind in set(EventKind):
        # EVENT names every byte, a layout of its own need not.
        layouts = [EVENT_LAYOUTS[EventKind(kind)], EVENT]
    for layout in layouts:
        rows = [np.frombuffer(event.tobytes(), layout)[0] for event in (copy, first_copy)]
        for name in layout.names or ():
            if rows[0][name] != rows[1][name]:
                return name, _text(rows[0][name]), _text(rows[1][name])
    return "none", "0", "0"


def _text(value: Any) -> str:
    return ascii(value.decode("ascii", "replace")) if isinstance(value, bytes) else str(int(value))


class Disagreement(FeedError):
    """The nodes contradict each other and no majority agrees, or the majority contradicts what was settled before."""


class SubscriptionRefused(FeedError):
    """So many nodes refuse the subscription that no majority is left."""

    def __init__(self, refusals: dict[int, str]) -> None:
        self.refusals = refusals
        super().__init__("; ".join(f"node {node} refuses: {refusal}" for node, refusal in sorted(refusals.items())))
