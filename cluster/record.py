"""The client's own record: what it sent and what it was told, held against the events the exchange published.

An outcome that was given is a promise. Whatever happened to leaders in between, each request must stand in the stream
of events exactly as it was answered, once, and in the order it was sent. Pure: arrays in, findings out.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus

Records = NDArray[np.void]

#: What a PLACE said and its first event must repeat.
_PLACED = ("account", "instrument", "side", "client_order_id", "price_ticks", "quantity_lots")


class ClientRecord:
    """Commands of one session and their outcomes, in the order they were sent."""

    def __init__(self) -> None:
        self._commands: list[Records] = []
        self._outcomes: list[Records] = []

    def add(self, commands: Records, outcomes: Records) -> None:
        """Remember commands that were answered."""
        if len(commands) != len(outcomes):
            raise ValueError(f"expected an outcome for each of {len(commands)} commands, found {len(outcomes)}")
        self._commands.append(commands.copy())
        self._outcomes.append(outcomes.copy())

    def __len__(self) -> int:
        return sum(map(len, self._commands))

    @property
    def last_sequence(self) -> int:
        """The highest command sequence that was told."""
        return max((int(outcomes["sequence"].max()) for outcomes in self._outcomes if len(outcomes)), default=0)

    @property
    def accepted(self) -> int:
        """How many commands were accepted."""
        return sum(int(np.count_nonzero(o["status"] == OutcomeStatus.ACCEPTED)) for o in self._outcomes)

    def check(self, events: Records) -> list[str]:
        """Hold the record against all events from the first on; return what does not fit, empty if all does."""
        if not len(self):
            return ["the record is empty: nothing was proved"]
        commands, outcomes = np.concatenate(self._commands), np.concatenate(self._outcomes)
        findings: list[str] = []
        sessions = np.unique(outcomes["session_id"])
        if len(sessions) != 1:
            return [f"expected outcomes of one session, found {len(sessions)}"]
        ours = events[events["session_id"] == sessions[0]]
        applied, at, counts = _applications(ours)
        findings += _doubled(applied)
        findings += _unasked(applied["request_id"], outcomes["request_id"])
        place = np.searchsorted(applied["request_id"], outcomes["request_id"])
        found = place < len(applied)
        found[found] &= applied["request_id"][place[found]] == outcomes["request_id"][found]
        findings += _some("was answered, but never applied: lost", outcomes["request_id"][~found])
        commands, outcomes, place = commands[found], outcomes[found], place[found]
        told = outcomes["sequence"] > 0
        for what, said, is_so in (
            ("command sequence", outcomes["sequence"], applied["command_sequence"][place]),
            ("first event", outcomes["first_event"], applied["sequence"][place]),
            ("number of events", outcomes["event_count"], counts[place]),
        ):
            wrong = told & (said != is_so)
            findings += _some(
                f"was answered with another {what} than it was applied with", outcomes["request_id"][wrong]
            )
        steps = np.diff(applied["command_sequence"][place].astype(np.int64))
        findings += _some("was applied before one that was sent earlier", outcomes["request_id"][1:][steps <= 0])
        findings += _contents(commands, outcomes, ours[at[place]])
        return findings


def _applications(events: Records) -> tuple[Records, NDArray[np.int64], NDArray[np.int64]]:
    """The first event of each application of a request, by request id; where it stands; how many events it had."""
    key = events[["request_id", "command_sequence"]]
    _, at, counts = np.unique(key, return_index=True, return_counts=True)
    # Opening a session is not a request of it: its id is 0.
    keep = events["request_id"][at] > 0
    return events[at[keep]], at[keep], counts[keep]


def _doubled(applied: Records) -> list[str]:
    ids, counts = np.unique(applied["request_id"], return_counts=True)
    return _some("was applied more than once: doubled", ids[counts > 1])


def _unasked(applied: NDArray[np.uint64], answered: NDArray[np.uint64]) -> list[str]:
    """What was applied between the first and the last request of the record, but is not in it."""
    inside = applied[(applied >= answered.min()) & (applied <= answered.max())]
    return _some("was applied, but is not in the record", np.setdiff1d(inside, answered))


def _contents(commands: Records, outcomes: Records, first_events: Records) -> list[str]:
    """Hold what each order said against the first event it caused."""
    placed = commands["kind"] == CommandKind.PLACE
    wrong = np.zeros(len(commands), np.bool_)
    for field in _PLACED:
        wrong |= placed & (commands[field] != first_events[field])
    refused = first_events["kind"] == EventKind.REJECTED
    told = outcomes["status"] != OutcomeStatus.DUPLICATE
    wrong |= told & ((outcomes["status"] == OutcomeStatus.REJECTED) != refused)
    wrong |= told & refused & (outcomes["reason"] != first_events["reason"])
    return _some("was applied with another content or result than it was answered", outcomes["request_id"][wrong])


def _some(what: str, request_ids: NDArray[np.uint64]) -> list[str]:
    """One finding for any number of requests, the first of them named."""
    if not len(request_ids):
        return []
    more = f" and {len(request_ids) - 1} more" if len(request_ids) > 1 else ""
    return [f"request {int(request_ids[0])}{more} {what}"]
