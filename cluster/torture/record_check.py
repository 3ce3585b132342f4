"""Check the records of a run with the checker of the simulator.

The records of the nodes come from every incarnation of every node (applied_entries_pipe.py), those of the clients from
workload_client.py. The log is rebuilt first, entry by entry, and each entry compared with what every node made of it;
then the outcomes are compared with the log. Pure; raises Violation.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.torture.applied_entries_pipe import NodeRecordKind, decode_applied
from cluster.torture.cluster_under_test import NodeIncarnation
from cluster.torture.record_pipe import Record, RecordStream
from cluster.torture.workload_client import ClientRecordKind, decode_requests
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.sim.checker import Checker, Violation
from smrx.wire.records import OUTCOME

_RING: Final = 1 << 16
_NO_EVENTS: Final = np.empty(0, np.void)


class HistoryFigures(NamedTuple):
    """The figures of a history that was checked."""

    #: Of the log.
    commands: int
    entries: int
    #: Of the clients; how many unanswered requests were applied.
    requests: int
    answered: int
    unanswered: int
    unanswered_applied: int
    terms_led: int
    incarnations: int
    #: The longest time in which no client received an outcome.
    longest_gap_s: float


class _Entry(NamedTuple):
    node_id: int
    term: int
    sequence: int
    state_hash: int
    entry: bytes
    outcomes: bytes


def check_history(
    incarnations: Sequence[NodeIncarnation], histories: Sequence[RecordStream]
) -> tuple[Checker, HistoryFigures]:
    """Check the records of nodes and clients; return the checker and the figures. Raises Violation."""
    checker = Checker(lambda: ReplicatedState(_RING))
    client_records = sorted(
        (record for stream in histories for record in stream.records()), key=lambda record: record.first
    )
    requests = _add_requests(checker, client_records)
    log: dict[int, list[_Entry]] = defaultdict(list)
    restored: list[tuple[int, int, int]] = []
    runs: list[tuple[int, list[int]]] = []
    terms = 0
    for incarnation in incarnations:
        run: list[int] = []
        runs.append((incarnation.node_id, run))
        for record in incarnation.stream.records():
            if record.kind == NodeRecordKind.APPLIED:
                log[record.first].append(_entry(incarnation.node_id, record))
                run.append(record.first)
            elif record.kind == NodeRecordKind.RESTORED:
                restored.append((incarnation.node_id, record.first, record.second))
                run = []
                runs.append((incarnation.node_id, run))
            elif record.kind == NodeRecordKind.LEADS:
                checker.leader_seen(incarnation.node_id, record.first)
                terms += 1
    _add_log(checker, log)
    _check_runs(runs, log)
    for node_id, sequence, state_hash in restored:
        checker.state_restored(node_id, (sequence, state_hash))
    for record in client_records:
        if record.kind == ClientRecordKind.OUTCOMES:
            checker.outcomes_received(record.second, np.frombuffer(record.body, OUTCOME))
    unanswered_applied = sum(1 for request in requests - _answered(client_records) if checker.has_applied(*request))
    return checker, HistoryFigures(
        commands=checker.commands,
        entries=len(log),
        requests=len(requests),
        answered=checker.answered,
        unanswered=len(requests) - checker.answered,
        unanswered_applied=unanswered_applied,
        terms_led=terms,
        incarnations=len(incarnations),
        longest_gap_s=_longest_gap_s(client_records),
    )


def _add_requests(checker: Checker, records: Iterable[Record]) -> set[tuple[int, int]]:
    """Give the checker every request, with the last command a client knew to be applied when it was sent."""
    requests: set[tuple[int, int]] = set()
    floor = 0
    for record in records:
        if record.kind == ClientRecordKind.REQUESTS:
            for request, command in enumerate(decode_requests(record.body).pieces(), record.third):
                requests.add((record.second, request))
                checker.request_sent(record.second, request, command, floor)
        elif record.kind == ClientRecordKind.OUTCOMES:
            floor = max(floor, int(np.frombuffer(record.body, OUTCOME)["sequence"].max()))
    return requests


def _longest_gap_s(records: Iterable[Record]) -> float:
    times = [record.first for record in records if record.kind == ClientRecordKind.OUTCOMES]
    return max((after - before for before, after in pairwise(times)), default=0) / 1e9


def _answered(records: Iterable[Record]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for record in records:
        if record.kind == ClientRecordKind.OUTCOMES:
            requests = np.frombuffer(record.body, OUTCOME)["request_id"].tolist()
            found.update((record.second, request) for request in requests)
    return found


def _entry(node_id: int, record: Record) -> _Entry:
    state_hash, entry, outcomes = decode_applied(record.body)
    return _Entry(node_id, record.second, record.third, state_hash, entry, outcomes)


def _add_log(checker: Checker, log: dict[int, list[_Entry]]) -> None:
    """Give the checker what every node applied, in the order of the log, not of time."""
    for index in sorted(log):
        for found in log[index]:
            checker.before_apply(found.node_id, index, found.term, found.entry)
            outcomes: NDArray[np.void] = np.frombuffer(found.outcomes, OUTCOME)
            checker.after_apply(
                found.node_id,
                Applied(index, found.term, outcomes, _NO_EVENTS, found.sequence, found.state_hash),
            )


def _check_runs(runs: Iterable[tuple[int, list[int]]], log: dict[int, list[_Entry]]) -> None:
    """Check that a node skips no entry that another applied, except by restoring a state."""
    known = sorted(log)
    place = {index: at for at, index in enumerate(known)}
    for node_id, run in runs:
        for before, after in pairwise(run):
            if after <= before:
                raise Violation(f"in order: node {node_id} applied log entry {after} after {before}")
            if place[after] != place[before] + 1:
                raise Violation(
                    f"log agreement: node {node_id} went from log entry {before} to {after} and skipped "
                    f"{known[place[before] + 1]}, which another node applied"
                )
