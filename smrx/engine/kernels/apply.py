"""apply: the one entry point of the state machine. Commands in, events, outcomes and hashes out.

A command is handled in steps: the GTD orders whose time has come end, one by one; `check` finds why the command is
refused and changes nothing, else `perform` changes the state; the stops that this reached have their turns, one by one.
Before each step it is sure that the events buffer holds what it may cause and that no table is too small for it. So a
call can stop between any two commands or steps, and go on after the caller made room, with the same results. A command
that waits in the middle is known by its stage, and its events so far are carried into the next buffer (engine.py).
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.balances import check_transfer, transfer
from smrx.engine.kernels.command_checks import malformed, needs_no_request, wrong_account, wrong_sender
from smrx.engine.kernels.emit import begin, refused
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    U1,
    Array,
    Record,
    Tables,
    inlined,
    kernel,
    merged,
)
from smrx.engine.kernels.lookup import find_session
from smrx.engine.kernels.orders import cancel, check_mass_cancel, check_named_order, expire_due, mass_cancel
from smrx.engine.kernels.placing import check_place, events_of_place, place, trigger_elected
from smrx.engine.kernels.pool import left
from smrx.engine.kernels.registry import add_asset, add_instrument, check_asset, check_instrument, open_account
from smrx.engine.kernels.replacing import check_replace, events_of_replace, replace
from smrx.engine.kernels.sessions import leave_session, open_session
from smrx.engine.kernels.state_hash import chain, refresh_session
from smrx.engine.kernels.venue import (
    check_known_instrument,
    check_limits,
    check_rules,
    orders_of,
    set_account_status,
    set_kill_switch,
    set_limits,
    set_rules,
    set_status,
)
from smrx.engine.state import (
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
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason

#: Stages of a command: not begun; before its own step; after it.
FRESH: Final = np.uint32(0)
BEGUN: Final = np.uint32(1)
DONE: Final = np.uint32(2)
#: A command causes one event, if it is none of those that worst_case knows.
ORDINARY_EVENTS: Final = 1


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
    if needs_no_request(command.kind):
        return command.kind == CommandKind.OPEN_SESSION and session.account_id == command.account
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
    if kind == CommandKind.SET_STATUS:
        return check_known_instrument(state, command)
    if kind == CommandKind.SET_LIMITS:
        return check_limits(command)
    if kind == CommandKind.SET_RULES:
        return check_rules(state, command)
    return Reason.NONE


@merged
def perform(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """Do what a checked command asks; `reason` is NONE, or FOK_UNFILLABLE of a PLACE."""
    kind = command.kind
    if kind == CommandKind.PLACE:
        place(state, command, outcome, events, reason)
    elif kind == CommandKind.CANCEL:
        cancel(state, command, outcome, events)
    elif kind == CommandKind.REPLACE:
        replace(state, command, outcome, events)
    elif kind == CommandKind.MASS_CANCEL:
        mass_cancel(state, command, outcome, events)
    elif kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        transfer(state, command, outcome, events)
    else:
        administer(state, command, outcome, events)


@kernel
def administer(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Do what a checked command asks that is neither about orders nor about money."""
    kind = command.kind
    if kind == CommandKind.OPEN_ACCOUNT:
        open_account(state, command, outcome, events)
    elif kind == CommandKind.SUSPEND_ACCOUNT or kind == CommandKind.RESUME_ACCOUNT:
        set_account_status(state, command, outcome, events)
    elif kind == CommandKind.OPEN_SESSION:
        open_session(state, command, outcome, events)
    elif kind == CommandKind.CLOSE_SESSION:
        leave_session(state, command, outcome, events, EventKind.SESSION_CLOSED)
    elif kind == CommandKind.DISCONNECT:
        leave_session(state, command, outcome, events, EventKind.SESSION_DISCONNECTED)
    elif kind == CommandKind.ADD_ASSET:
        add_asset(state, command, outcome, events)
    elif kind == CommandKind.ADD_INSTRUMENT:
        add_instrument(state, command, outcome, events)
    elif kind == CommandKind.SET_STATUS:
        set_status(state, command, outcome, events)
    elif kind == CommandKind.SET_LIMITS:
        set_limits(state, command, outcome, events)
    elif kind == CommandKind.SET_RULES:
        set_rules(state, command, outcome, events)
    elif kind == CommandKind.TICK:
        begin(state.core[0], state.turn[0], command, events, EventKind.TICKED)
        outcome.event_kind = EventKind.TICKED
    else:
        set_kill_switch(state, command, outcome, events)


@inlined
def worst_case(state: Tables, command: Record, reason: Any, space: Any) -> Any:
    """The most events the own step of a command can cause."""
    kind = command.kind
    if reason == Reason.NONE and kind != CommandKind.CANCEL:
        turn = state.turn[0]
        if kind == CommandKind.PLACE:
            return events_of_place(state, command, space)
        if kind == CommandKind.REPLACE:
            return events_of_replace(state, command, space)
        if kind == CommandKind.MASS_CANCEL:
            return 1 + np.int64(state.accounts[turn.account].orders)
        if kind == CommandKind.CLOSE_SESSION or kind == CommandKind.DISCONNECT:
            return 1 + np.int64(state.sessions[turn.session].orders)
        if kind == CommandKind.SET_STATUS:
            return 1 + orders_of(state, turn.instrument)
    return np.int64(ORDINARY_EVENTS)


@inlined
def consume_request(state: Tables, command: Record) -> None:
    """Count the request of a session, if it is the one that was due."""
    turn = state.turn[0]
    if turn.session != NIL and not needs_no_request(command.kind):
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
def begin_command(state: Tables, command: Record, time_ns: Any, outcome: Record) -> None:
    """Count a command that is applied, and its request; time goes on."""
    core = state.core[0]
    core.command_sequence += U1
    core.time_ns = max(core.time_ns, time_ns)
    consume_request(state, command)
    begin_outcome(outcome, command, OutcomeStatus.ACCEPTED, core.command_sequence)
    outcome.first_event = core.event_sequence + U1
    state.turn[0].stage = BEGUN


@merged
def own_step(state: Tables, command: Record, outcome: Record, events: Array) -> Any:
    """Check a command and do it, or refuse it. False, with nothing changed, if the events buffer may be too small."""
    turn = state.turn[0]
    reason = check(state, command)
    space = len(events) - turn.written
    turn.needed = worst_case(state, command, reason, space)
    if turn.needed > space:
        return False
    if reason == Reason.NONE or reason == Reason.FOK_UNFILLABLE:
        perform(state, command, outcome, events, reason)
    else:
        refuse(state, command, outcome, events, reason)
    turn.stage = DONE
    return True


@merged
def step(state: Tables, command: Record, time_ns: Any, outcome: Record, events: Array) -> Any:
    """Handle one command. False, to go on with it later, if the events buffer or a table may be too small for it."""
    core = state.core[0]
    turn = state.turn[0]
    if turn.stage == FRESH:
        turn.first = turn.written
        turn.session = find_session(state, command.session_id)
        if is_duplicate(state, command):
            answer_duplicate(state, command, outcome)
            return True
        begin_command(state, command, time_ns, outcome)
    if core.next_expiry <= core.time_ns and not expire_due(state, command, events):
        return False
    if turn.stage == BEGUN and not own_step(state, command, outcome, events):
        return False
    if turn.elected != NIL:
        # What their orders take of the tables is not counted.
        turn.fit = 1
        if not trigger_elected(state, command, events):
            return False
    outcome.event_count = np.uint32(turn.written - turn.first)
    turn.stage = FRESH
    return True


@merged
def apply(
    state: Tables, commands: Array, done: Any, time_ns: Any, outcomes: Array, events: Array, words: Array, hashes: Array
) -> Any:
    """Apply commands from number `done` on; return how many are done now.

    It is fewer than all when the next one may need more than a table has left (turn.needed is 0) or more events than
    the buffer has left (turn.needed of them). `words` is the events buffer as words. Events are written from the
    buffer's beginning on, turn.written of them. A command that is done in part has its events from turn.first on; for
    the next call they stand at the beginning of the buffer already, and `turn.written` counts them.
    """
    core = state.core[0]
    turn = state.turn[0]
    if turn.stage == FRESH:
        turn.written = 0
    turn.fit = 0
    while done < len(commands):
        if turn.fit == 0:
            turn.fit = commands_that_fit(state)
            if turn.fit <= 0:
                turn.fit = 0
                turn.needed = 0
                break
        if not step(state, commands[done], time_ns, outcomes[done], events):
            break
        if turn.written != turn.first:
            chain(core, state.ring, words, turn.first, turn.written - turn.first)
        hashes[done] = core.state_hash
        turn.fit -= 1
        done += 1
    return done
