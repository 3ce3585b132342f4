"""Feeds a tape through a cluster: the setup, then the flow in pipelined pieces, and the count of what came back.

Knows a cluster only as something that takes commands and gives outcomes. Called by `smrx replay`, the demo and tests.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import ListedAsset, ListedInstrument, mismatch, setup_failure
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.frames import MAX_COMMANDS

Records = NDArray[np.void]

#: Commands handed to the client at once: eight full frames under way, and progress that moves.
_PIECE: Final = 8 * MAX_COMMANDS
#: Pieces a second where a rate is kept: short enough to look even, long enough to be frames of many commands.
_PIECES_PER_SECOND: Final = 20


class Cluster(Protocol):
    """What a tape is fed to; smrx.Client of the operator is one."""

    def submit(self, commands: Records, /) -> Records:
        """Send commands in order; return their outcomes, one each."""
        ...

    def assets(self) -> Sequence[ListedAsset]: ...

    def instruments(self) -> Sequence[ListedInstrument]: ...


class SetupRefused(Exception):
    """The cluster cannot take the tape's market; the message says which part was refused and why."""


class Summary(msgspec.Struct, kw_only=True):
    """What the cluster answered."""

    tape: str
    commands: int
    seconds: float
    commands_per_second: int
    acknowledged: int
    refused: int
    #: Acknowledged as repeated, after a leader was lost, without the first answer: applied, outcome not known here.
    unknown: int
    trades: int
    #: The first refusal, if any.
    first_refusal: str | None = None


class Played(NamedTuple):
    """The summary and the answers it was made from."""

    summary: Summary
    setup: Records
    outcomes: Records


def play(
    cluster: Cluster,
    tape: Tape,
    *,
    rate: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> Played:
    """Send a tape and wait for every answer; `rate` bounds commands a second, `progress` gets the number answered.

    Raises SetupRefused before any order is sent, and before anything is if the tape's ids stand for something else.
    """
    occupied = mismatch(tape.setup, cluster.assets(), cluster.instruments())
    if occupied:
        raise SetupRefused(occupied)
    setup = cluster.submit(tape.setup)
    refused = setup_failure(tape.setup, setup)
    if refused:
        raise SetupRefused(refused)
    started = time.perf_counter()
    answers = []
    done = 0
    for piece in _pieces(tape.commands, rate, started):
        answers.append(cluster.submit(piece))
        done += len(piece)
        if progress is not None:
            progress(done)
    seconds = time.perf_counter() - started
    outcomes = np.concatenate(answers) if answers else setup[:0]
    return Played(_summary(tape, outcomes, seconds), setup, outcomes)


def trades_of(commands: Records, outcomes: Records) -> int:
    """Trades that commands caused: an order's events are NEW, three for each trade, and perhaps the end of the rest."""
    placed = (commands["kind"] == CommandKind.PLACE) & (outcomes["status"] == OutcomeStatus.ACCEPTED)
    return int(((outcomes["event_count"][placed].astype(np.int64) - 1) // 3).sum())


def _pieces(commands: Records, rate: float | None, started: float) -> Iterator[Records]:
    """Cut commands for sending; with a rate, wait until each piece is due."""
    size = _PIECE if rate is None else max(1, min(_PIECE, int(rate / _PIECES_PER_SECOND)))
    for first in range(0, len(commands), size):
        if rate is not None:
            time.sleep(max(0.0, started + first / rate - time.perf_counter()))
        yield commands[first : first + size]


def _summary(tape: Tape, outcomes: Records, seconds: float) -> Summary:
    status = outcomes["status"]
    refused = np.flatnonzero(status == OutcomeStatus.REJECTED)
    first_refusal = None
    if len(refused):
        reason = Reason(int(outcomes[refused[0]]["reason"])).name
        kind = CommandKind(int(tape.commands[refused[0]]["kind"])).name
        first_refusal = f"command {int(refused[0])} ({kind}): {reason}"
    return Summary(
        tape=tape.name,
        commands=len(outcomes),
        seconds=seconds,
        commands_per_second=round(len(outcomes) / seconds) if seconds > 0 else 0,
        acknowledged=int((status == OutcomeStatus.ACCEPTED).sum()),
        refused=len(refused),
        unknown=int((status == OutcomeStatus.DUPLICATE).sum()),
        trades=trades_of(tape.commands, outcomes),
        first_refusal=first_refusal,
    )
