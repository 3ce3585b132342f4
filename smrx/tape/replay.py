"""Send a tape to a cluster: the setup, then the flow in pieces; count the outcomes.

A cluster is anything that takes commands and returns outcomes. Called by `smrx replay` and tests.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import ListedAsset, ListedInstrument, find_id_conflict, setup_failure
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.command_list import CommandList
from smrx.wire.frames import MAX_COMMANDS
from smrx.wire.records import ORDER_DETAILS

Records = NDArray[np.void]

#: Commands that are passed to the client at once: eight full frames in flight, and frequent progress.
_PIECE: Final = 8 * MAX_COMMANDS
_TERMS: Final = ("stop_price_ticks", "display_lots", "expiry_ns")
#: Pieces per second at a fixed rate: an even load, but frames of many commands.
_PIECES_PER_SECOND: Final = 20


class Cluster(Protocol):
    """The target of a replay, such as the operator's smrx.Client."""

    def submit(self, commands: Records, details: Records, /) -> Records:
        """Send commands in order; return their outcomes, one each. `details` may be more than those they name."""
        ...

    def assets(self) -> Sequence[ListedAsset]: ...

    def instruments(self) -> Sequence[ListedInstrument]: ...


class SetupRefused(Exception):
    """The cluster refused the tape's market; the message has the command and the reason."""


class Summary(msgspec.Struct, kw_only=True):
    """The counts of the outcomes."""

    tape: str
    commands: int
    seconds: float
    commands_per_second: int
    acknowledged: int
    refused: int
    #: Acknowledged as DUPLICATE after a change of leader: applied, but the outcome was lost.
    unknown: int
    trades: int
    #: The first refusal, if any.
    first_refusal: str | None = None


class ReplayResult(NamedTuple):
    """The summary of a replay and all outcomes."""

    summary: Summary
    setup: Records
    outcomes: Records


def play(
    cluster: Cluster,
    tape: Tape,
    *,
    rate: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> ReplayResult:
    """Send a tape and wait for all outcomes; `rate` limits commands per second, `progress` gets the number answered.

    Raises SetupRefused before any order is sent. Nothing is sent if the tape's ids are in use for another market.
    """
    conflict = find_id_conflict(tape.setup, cluster.assets(), cluster.instruments())
    if conflict:
        raise SetupRefused(conflict)
    setup = cluster.submit(*tape.setup)
    refused = setup_failure(tape.setup, setup)
    if refused:
        raise SetupRefused(refused)
    started = time.perf_counter()
    answers = []
    done = 0
    for piece in _pieces(tape.commands, rate, started):
        answers.append(cluster.submit(piece, tape.flow.details))
        done += len(piece)
        if progress is not None:
            progress(done)
    seconds = time.perf_counter() - started
    outcomes = np.concatenate(answers) if answers else setup[:0]
    return ReplayResult(_summary(tape, outcomes, seconds), setup, outcomes)


def count_trades(flow: CommandList, outcomes: Records) -> int:
    """Return the trades of commands.

    An order has the event NEW, one each for a long client order id and for terms, three per trade, and at most one at
    its end.
    """
    commands, details = flow
    placed = (commands["kind"] == CommandKind.PLACE) & (outcomes["status"] == OutcomeStatus.ACCEPTED)
    events = outcomes["event_count"][placed].astype(np.int64)
    named = np.flatnonzero(commands["details"][placed])
    if len(named):
        terms = details.view(ORDER_DETAILS)[commands["details"][placed][named].astype(np.int64) - 1]
        events[named] -= terms["client_order_id"] != b""
        events[named] -= np.any([terms[name] != 0 for name in _TERMS], axis=0)
    return int(((events - 1) // 3).sum())


def _pieces(commands: Records, rate: float | None, started: float) -> Iterator[Records]:
    """Divide commands for sending; with a rate, wait until each piece is due."""
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
        trades=count_trades(tape.flow, outcomes),
        first_refusal=first_refusal,
    )
