"""Whether a run of real processes held what it must: the simulator's checker, told afterwards what everybody said.

The nodes' words come from the taps of every life of every node (tap.py), the clients' from their histories (trader.py).
The log is put together first, entry by entry, each held against what every node made of it; then the answers, each
against the log. Pure: streams in, figures out; raises Violation.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.torture.field import Life
from cluster.torture.streams import Record, Stream
from cluster.torture.tap import Said, told_of_entry
from cluster.torture.trader import Told
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.sim.checker import Checker, Violation
from smrx.wire.records import COMMAND_SIZE, OUTCOME

_RING: Final = 1 << 16
_NO_EVENTS: Final = np.empty(0, np.void)


class Judged(NamedTuple):
    """What was judged."""

    #: Commands and entries of the log; requests sent, answered, and of unknown fate; of these, how many were applied.
    commands: int
    entries: int
    asked: int
    answered: int
    unknown: int
    unknown_applied: int
    terms_led: int
    lives: int
    #: The longest time in which no client was answered anything.
    longest_silence_s: float


class _Entry(NamedTuple):
    node_id: int
    term: int
    sequence: int
    state_hash: int
    entry: bytes
    outcomes: bytes


def judge(lives: Sequence[Life], histories: Sequence[Stream]) -> tuple[Checker, Judged]:
    """Hold everything that was said against everything that must hold; raises Violation."""
    checker = Checker(lambda: ReplicatedState(_RING, _RING))
    client_words = sorted(
        (record for stream in histories for record in stream.records()), key=lambda record: record.first
    )
    asked = _tell_asked(checker, client_words)
    log: dict[int, list[_Entry]] = defaultdict(list)
    restored: list[tuple[int, int, int]] = []
    runs: list[tuple[int, list[int]]] = []
    terms = 0
    for life in lives:
        run: list[int] = []
        runs.append((life.node_id, run))
        for record in life.stream.records():
            if record.kind == Said.APPLIED:
                log[record.first].append(_entry(life.node_id, record))
                run.append(record.first)
            elif record.kind == Said.RESTORED:
                restored.append((life.node_id, record.first, record.second))
                run = []
                runs.append((life.node_id, run))
            elif record.kind == Said.LEADS:
                checker.leader_seen(life.node_id, record.first)
                terms += 1
    _tell_log(checker, log)
    _check_runs(runs, log)
    for node_id, sequence, state_hash in restored:
        checker.state_restored(node_id, (sequence, state_hash))
    for record in client_words:
        if record.kind == Told.ANSWERED:
            checker.outcomes_received(record.second, np.frombuffer(record.body, OUTCOME))
    unknown_applied = sum(1 for request in asked - _answered(client_words) if checker.has_applied(*request))
    return checker, Judged(
        commands=checker.commands,
        entries=len(log),
        asked=len(asked),
        answered=checker.answered,
        unknown=len(asked) - checker.answered,
        unknown_applied=unknown_applied,
        terms_led=terms,
        lives=len(lives),
        longest_silence_s=_longest_silence_s(client_words),
    )


def _tell_asked(checker: Checker, words: Iterable[Record]) -> set[tuple[int, int]]:
    """Tell the checker every request, with the last command that anybody knew to be applied when it was sent."""
    asked: set[tuple[int, int]] = set()
    floor = 0
    for record in words:
        if record.kind == Told.ASKED:
            for at in range(len(record.body) // COMMAND_SIZE):
                request = record.third + at
                asked.add((record.second, request))
                command = record.body[COMMAND_SIZE * at : COMMAND_SIZE * (at + 1)]
                checker.request_sent(record.second, request, command, floor)
        elif record.kind == Told.ANSWERED:
            floor = max(floor, int(np.frombuffer(record.body, OUTCOME)["sequence"].max()))
    return asked


def _longest_silence_s(words: Iterable[Record]) -> float:
    times = [record.first for record in words if record.kind == Told.ANSWERED]
    return max((after - before for before, after in pairwise(times)), default=0) / 1e9


def _answered(words: Iterable[Record]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for record in words:
        if record.kind == Told.ANSWERED:
            requests = np.frombuffer(record.body, OUTCOME)["request_id"].tolist()
            found.update((record.second, request) for request in requests)
    return found


def _entry(node_id: int, record: Record) -> _Entry:
    state_hash, entry, outcomes = told_of_entry(record.body)
    return _Entry(node_id, record.second, record.third, state_hash, entry, outcomes)


def _tell_log(checker: Checker, log: dict[int, list[_Entry]]) -> None:
    """Tell the checker what every node applied, in the order of the log and not of time."""
    for index in sorted(log):
        for found in log[index]:
            checker.before_apply(found.node_id, index, found.term, found.entry)
            outcomes: NDArray[np.void] = np.frombuffer(found.outcomes, OUTCOME)
            checker.after_apply(
                found.node_id,
                Applied(index, found.term, outcomes, _NO_EVENTS, found.sequence, found.state_hash, repeats=False),
            )


def _check_runs(runs: Iterable[tuple[int, list[int]]], log: dict[int, list[_Entry]]) -> None:
    """Between two states it took over, a node leaves out nothing that another applied."""
    known = sorted(log)
    place = {index: at for at, index in enumerate(known)}
    for node_id, run in runs:
        for before, after in pairwise(run):
            if after <= before:
                raise Violation(f"in order: node {node_id} applied log entry {after} after {before}")
            if place[after] != place[before] + 1:
                raise Violation(
                    f"log agreement: node {node_id} went from log entry {before} to {after} and left out "
                    f"{known[place[before] + 1]}, which another node applied"
                )
