"""apply: the one entry point of the state machine. Commands in, events, outcomes and hashes out.

A command is handled in two steps. `check` finds why it is refused and changes nothing; only when the events buffer
surely holds what it may cause, `perform` changes the state. So a call can stop between any two commands, for a full
buffer or a full table, and go on after the caller made room, with the same results.
"""

from typing import Any, Final

import numpy as np

from .codes import CommandKind, EventKind, OutcomeStatus, Reason
from .digest import chain, refresh_session
from .emit import begin, refused
from .index import NO_EXTRA, find
from .jit import NIL, U0, U1, Array, Record, Tables, inlined, kernel, merged
from .ledger import check_transfer, transfer
from .matching import check_place, events_of_place, expire_unfillable, place
from .orders import cancel, check_mass_cancel, check_named_order, check_replace, mass_cancel, replace
from .refusals import malformed, wrong_account, wrong_sender
from .registry import (
    add_asset,
    add_instrument,
    check_asset,
    check_instrument,
    close_session,
    open_account,
    open_session,
)
from .state import (
    ACCOUNTS,
    ASSETS,
    BALANCES,
    INSTRUMENTS,
    LEVELS,
    NODES,
    ORDERS,
    SESSIONS,
    TRANSFERS,
)

#: Every command but PLACE and MASS_CANCEL causes one event; a PLACE that meets nobody causes two.
ORDINARY_EVENTS: Final = 2


@inlined
def left(pool: Record, length: Any) -> Any:
    """Records that a table of this length can still take."""
    return length - 1 - np.int64(pool.live)


@kernel
def commands_that_fit(state: Tables) -> Any:
    """How many commands no table can be too small for. One adds at most a record a table, and two balances."""
    pools = state.pools
    fit = left(pools[SESSIONS], len(state.sessions))
    fit = min(fit, left(pools[ACCOUNTS], len(state.accounts)))
    fit = min(fit, left(pools[ASSETS], len(state.assets)))
    fit = min(fit, left(pools[INSTRUMENTS], len(state.instruments)))
    fit = min(fit, left(pools[LEVELS], len(state.levels)))
    fit = min(fit, left(pools[NODES], len(state.nodes)))
    fit = min(fit, left(pools[ORDERS], len(state.orders)))
    fit = min(fit, left(pools[TRANSFERS], len(state.transfers)))
    return min(fit, left(pools[BALANCES], len(state.balances)) >> 1)


@inlined
def is_duplicate(state: Tables, command: Record) -> Any:
    """Whether a request was answered before, or asks to open what is open already."""
    turn = state.turn[0]
    if turn.session == NIL:
        return False
    session = state.sessions[turn.session]
    if command.kind == CommandKind.OPEN_SESSION:
        return session.account_id == command.account
    return command.request_id <= session.last_request_id


@inlined
def check(state: Tables, command: Record) -> Any:
    """The first reason to refuse a command, or NONE. Notes in the turn what it found."""
    reason = malformed(command)
    if reason == Reason.NONE:
        reason = wrong_sender(state, command)
    if reason == Reason.NONE:
        reason = wrong_account(state, command)
    if reason != Reason.NONE:
        return reason
    kind = command.kind
    if kind == CommandKind.PLACE:
        return check_place(state, command)
    if kind == CommandKind.CANCEL:
        return check_named_order(state, command)
    if kind == CommandKind.REPLACE:
        return check_replace(state, command)
    if kind == CommandKind.MASS_CANCEL:
        return check_mass_cancel(state, command)
    if kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        return check_transfer(state, command)
    if kind == CommandKind.ADD_ASSET:
        return check_asset(state, command)
    if kind == CommandKind.ADD_INSTRUMENT:
        return check_instrument(state, command)
    return Reason.NONE


@merged
def perform(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Do what a checked command asks."""
    kind = command.kind
    if kind == CommandKind.PLACE:
        place(state, command, outcome, events)
    elif kind == CommandKind.CANCEL:
        cancel(state, command, outcome, events)
    elif kind == CommandKind.REPLACE:
        replace(state, command, outcome, events)
    elif kind == CommandKind.MASS_CANCEL:
        mass_cancel(state, command, outcome, events)
    elif kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        transfer(state, command, outcome, events)
    elif kind == CommandKind.OPEN_ACCOUNT:
        open_account(state, command, outcome, events)
    elif kind == CommandKind.OPEN_SESSION:
        open_session(state, command, outcome, events)
    elif kind == CommandKind.CLOSE_SESSION:
        close_session(state, command, outcome, events)
    elif kind == CommandKind.ADD_ASSET:
        add_asset(state, command, outcome, events)
    else:
        add_instrument(state, command, outcome, events)


@inlined
def worst_case(state: Tables, command: Record, reason: Any, space: Any) -> Any:
    """The most events a command can cause."""
    if reason == Reason.NONE:
        if command.kind == CommandKind.PLACE:
            return events_of_place(state, command, space)
        if command.kind == CommandKind.MASS_CANCEL:
            return 1 + np.int64(state.accounts[state.turn[0].account].orders)
    return np.int64(ORDINARY_EVENTS)


@inlined
def consume_request(state: Tables, command: Record) -> None:
    """Count the request of a session, if it is the one that was due."""
    turn = state.turn[0]
    if turn.session != NIL:
        session = state.sessions[turn.session]
        if command.request_id == session.last_request_id + U1:
            session.last_request_id = command.request_id
            refresh_session(state.core[0], session)


@inlined
def begin_outcome(outcome: Record, command: Record, status: Any, sequence: Any) -> None:
    outcome.status = status
    outcome.event_kind = 0
    outcome.reason = 0
    outcome.event_count = 0
    outcome.session_id = command.session_id
    outcome.request_id = command.request_id
    outcome.sequence = sequence
    outcome.order_id = U0
    outcome.first_event = U0
    outcome.cum_lots = 0
    outcome.leaves_lots = 0


@inlined
def answer_duplicate(state: Tables, command: Record, outcome: Record) -> None:
    begin_outcome(outcome, command, OutcomeStatus.DUPLICATE, U0)
    outcome.order_id = state.sessions[state.turn[0].session].last_request_id


@inlined
def refuse(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """The one event and the outcome of a command that changes nothing."""
    outcome.status = OutcomeStatus.REJECTED
    outcome.event_kind = EventKind.REJECTED
    outcome.reason = reason
    refused(begin(state.core[0], state.turn[0], command, events, EventKind.REJECTED), command, reason)


@merged
def step(state: Tables, command: Record, time_ns: Any, outcome: Record, events: Array) -> Any:
    """Handle one command. False, with nothing changed, if the events buffer may be too small for it."""
    core = state.core[0]
    turn = state.turn[0]
    turn.session = find(state.session_index, command.session_id, NO_EXTRA)
    if is_duplicate(state, command):
        answer_duplicate(state, command, outcome)
        return True
    reason = check(state, command)
    space = len(events) - turn.written
    turn.needed = worst_case(state, command, reason, space)
    if turn.needed > space:
        return False

    core.command_sequence += U1
    core.time_ns = max(core.time_ns, time_ns)
    consume_request(state, command)
    begin_outcome(outcome, command, OutcomeStatus.ACCEPTED, core.command_sequence)
    outcome.first_event = core.event_sequence + U1
    first = turn.written
    if reason == Reason.NONE:
        perform(state, command, outcome, events)
    elif reason == Reason.FOK_UNFILLABLE:
        expire_unfillable(state, command, outcome, events)
    else:
        refuse(state, command, outcome, events, reason)
    outcome.event_count = np.uint32(turn.written - first)
    return True


@merged
def apply(
    state: Tables, commands: Array, done: Any, time_ns: Any, outcomes: Array, events: Array, words: Array, hashes: Array
) -> Any:
    """Apply commands from number `done` on; return how many are done now.

    It is fewer than all when the next one may need more than a table has left (turn.needed is 0) or more events than
    the buffer has left (turn.needed of them). `words` is the events buffer as words. Events are written from the
    buffer's beginning on, turn.written of them.
    """
    core = state.core[0]
    turn = state.turn[0]
    turn.written = 0
    fit = np.int64(0)
    while done < len(commands):
        if fit == 0:
            fit = commands_that_fit(state)
            if fit <= 0:
                turn.needed = 0
                break
        first = turn.written
        if not step(state, commands[done], time_ns, outcomes[done], events):
            break
        if turn.written != first:
            chain(core, state.ring, words, first, turn.written - first)
        hashes[done] = core.state_hash
        fit -= 1
        done += 1
    return done
