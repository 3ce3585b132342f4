"""Record the requests and outcomes of a client and compare them with the published events.

An outcome is final: whatever happens to leaders, the stream of events must hold each request exactly as it was
answered, once, and in the order sent. Pure: arrays in, findings out.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.client_order_ids import id_form
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus
from smrx.wire.command_list import CommandList
from smrx.wire.records import ORDER_DETAILS

Records = NDArray[np.void]

#: The fields of a PLACE that its first event must repeat; so must it the 64-bit form of its client order id.
_PLACED = ("account", "instrument", "side", "price_ticks", "quantity_lots")


class ClientRecord:
    """Commands of one session and their outcomes, in the order they were sent."""

    def __init__(self) -> None:
        self._commands: list[Records] = []
        self._forms: list[NDArray[np.uint64]] = []
        self._outcomes: list[Records] = []

    def add(self, sent: CommandList, outcomes: Records) -> None:
        """Add commands and their outcomes."""
        commands = sent.records
        if len(commands) != len(outcomes):
            raise ValueError(f"expected {len(commands)} outcomes, one for each command, found {len(outcomes)}")
        self._commands.append(commands.copy())
        self._forms.append(_id_forms(sent))
        self._outcomes.append(outcomes.copy())

    def __len__(self) -> int:
        return sum(map(len, self._commands))

    @property
    def last_sequence(self) -> int:
        """The highest command sequence in the outcomes."""
        return max((int(outcomes["sequence"].max()) for outcomes in self._outcomes if len(outcomes)), default=0)

    @property
    def accepted(self) -> int:
        """The number of commands that were accepted."""
        return sum(int(np.count_nonzero(o["status"] == OutcomeStatus.ACCEPTED)) for o in self._outcomes)

    def check(self, events: Records) -> list[str]:
        """Compare the record with all events from the first on; return the differences."""
        if not len(self):
            return ["the record is empty, so nothing was checked"]
        commands, outcomes = np.concatenate(self._commands), np.concatenate(self._outcomes)
        forms = np.concatenate(self._forms)
        findings: list[str] = []
        sessions = np.unique(outcomes["session_id"])
        if len(sessions) != 1:
            return [f"expected outcomes of one session, found {len(sessions)}"]
        ours = events[events["session_id"] == sessions[0]]
        applied, at, counts = _applications(ours)
        findings += _duplicates(applied)
        findings += _unrecorded(applied["request_id"], outcomes["request_id"])
        place = np.searchsorted(applied["request_id"], outcomes["request_id"])
        found = place < len(applied)
        found[found] &= applied["request_id"][place[found]] == outcomes["request_id"][found]
        findings += _finding("was answered but not applied", outcomes["request_id"][~found])
        commands, outcomes, place = commands[found], outcomes[found], place[found]
        has_sequence = outcomes["sequence"] > 0
        for what, answered, in_events in (
            ("command sequence", outcomes["sequence"], applied["command_sequence"][place]),
            ("first event", outcomes["first_event"], applied["sequence"][place]),
            ("number of events", outcomes["event_count"], counts[place]),
        ):
            wrong = has_sequence & (answered != in_events)
            findings += _finding(
                f"was answered with another {what} than its events have", outcomes["request_id"][wrong]
            )
        steps = np.diff(applied["command_sequence"][place].astype(np.int64))
        findings += _finding("was applied before one that was sent earlier", outcomes["request_id"][1:][steps <= 0])
        findings += _content_differences(commands, forms[found], outcomes, ours[at[place]])
        return findings


def _applications(events: Records) -> tuple[Records, NDArray[np.int64], NDArray[np.int64]]:
    """Return the first event of each applied request in order of request ids, its index and its event count."""
    key = events[["request_id", "command_sequence"]]
    _, at, counts = np.unique(key, return_index=True, return_counts=True)
    # Opening a session is not a request of the session: its request id is 0.
    keep = events["request_id"][at] > 0
    return events[at[keep]], at[keep], counts[keep]


def _duplicates(applied: Records) -> list[str]:
    ids, counts = np.unique(applied["request_id"], return_counts=True)
    return _finding("was applied more than once", ids[counts > 1])


def _unrecorded(applied: NDArray[np.uint64], answered: NDArray[np.uint64]) -> list[str]:
    """Return the requests between the first and the last of the record that were applied but are not in it."""
    inside = applied[(applied >= answered.min()) & (applied <= answered.max())]
    return _finding("was applied but is not in the record", np.setdiff1d(inside, answered))


def _content_differences(
    commands: Records, forms: NDArray[np.uint64], outcomes: Records, first_events: Records
) -> list[str]:
    """Compare each order and its outcome with its first event."""
    placed = commands["kind"] == CommandKind.PLACE
    wrong = placed & (forms != first_events["client_order_id"])
    for field in _PLACED:
        wrong |= placed & (commands[field] != first_events[field])
    refused = first_events["kind"] == EventKind.REJECTED
    first = outcomes["status"] != OutcomeStatus.DUPLICATE
    wrong |= first & ((outcomes["status"] == OutcomeStatus.REJECTED) != refused)
    wrong |= first & refused & (outcomes["reason"] != first_events["reason"])
    return _finding("was applied with other fields or another result than answered", outcomes["request_id"][wrong])


def _id_forms(sent: CommandList) -> NDArray[np.uint64]:
    """Return the 64-bit form of the client order id of each PLACE."""
    forms: NDArray[np.uint64] = sent.records["client_order_id"].copy()
    placed = sent.records["kind"] == CommandKind.PLACE
    for at in np.flatnonzero(placed & (sent.records["details"] > 0)).tolist():
        text = bytes(sent.details.view(ORDER_DETAILS)["client_order_id"][int(sent.records["details"][at]) - 1])
        if text:
            forms[at] = id_form(text)
    return forms


def _finding(what: str, request_ids: NDArray[np.uint64]) -> list[str]:
    """Return one finding that names the first of these requests, or none."""
    if not len(request_ids):
        return []
    more = f" and {len(request_ids) - 1} more" if len(request_ids) > 1 else ""
    return [f"request {int(request_ids[0])}{more} {what}"]
