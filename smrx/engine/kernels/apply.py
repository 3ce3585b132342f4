"""Apply commands: commands in; events, outcomes and state hashes out.

A command is handled in these steps:

1. GTD orders that are due expire, one by one and a bounded number (expiry.py). Then silent sessions end and old
   transfer ids are forgotten, a few for each command (retention.py).
2. `check_command` finds the reason to reject the command; it changes nothing.
3. `perform_command` changes the state, or `reject` writes the REJECTED event.
4. Stop orders that the trades of the command reached are triggered, one by one (triggering.py).
5. The outcome of a request becomes part of its session's answers (answers.py).

Before each step the kernel makes sure that the events buffer holds what the step may cause and that no table is too
small for it. So a call can stop between any two commands or steps; the caller makes space and calls again, with the
same results. `turn.stage` records how far an unfinished command is, and engine.py carries its events so far into the
next buffer. Called through compiled.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.activity import restart_silence
from smrx.engine.kernels.answers import (
    answers_missing,
    content_of,
    is_kept,
    is_repetition,
    keep_answer,
    repeat_answer,
    run_for,
)
from smrx.engine.kernels.balances import check_transfer, transfer
from smrx.engine.kernels.cancelling import cancel, cancels_left, check_mass_cancel, check_named_order, mass_cancel
from smrx.engine.kernels.capacity import check_capacity, check_space, set_capacity
from smrx.engine.kernels.command_checks import check_account, check_form, check_sender, is_unnumbered
from smrx.engine.kernels.credential_rules import (
    causing_credential,
    change_credential,
    check_credential,
    is_foreign,
    number_of,
)
from smrx.engine.kernels.emit import begin_event, emit_following, emit_rejected
from smrx.engine.kernels.expiry import expire_due_orders, expiries_left
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
    view_as,
)
from smrx.engine.kernels.lookahead import look_ahead, look_at_first
from smrx.engine.kernels.lookup import find_session
from smrx.engine.kernels.numba_tables import part_of
from smrx.engine.kernels.placing import check_place, max_events_of_place, place
from smrx.engine.kernels.pool import slots_left
from smrx.engine.kernels.registry import add_asset, add_instrument, check_asset, check_instrument, open_account
from smrx.engine.kernels.replacing import check_replace, max_events_of_replace, replace
from smrx.engine.kernels.retention import check_retention, end_what_is_over, set_retention
from smrx.engine.kernels.rules_version import has_credentials, set_version
from smrx.engine.kernels.sessions import end_session, open_session
from smrx.engine.kernels.state_hash import refresh_session, update_state_hash
from smrx.engine.kernels.triggering import trigger_elected_stops
from smrx.engine.kernels.venue_controls import (
    check_known_instrument,
    check_limits,
    check_rules,
    count_open_orders,
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
    CREDENTIALS,
    INSTRUMENTS,
    LEVELS,
    NODES,
    ORDER_DETAILS_TABLE,
    ORDERS,
    SESSIONS,
    TRANSFERS,
)
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from smrx.wire.records import EVENT, SESSION_COMMAND

#: Stages of a command (turn.stage): not started; expiries may be done; performed or rejected, stops may be left.
NOT_STARTED: Final = np.uint32(0)
STARTED: Final = np.uint32(1)
PERFORMED: Final = np.uint32(2)
EVENT_WORDS: Final = EVENT.itemsize // 8
#: The events of a command that `max_events` has no larger bound for.
DEFAULT_EVENTS: Final = 1


@kernel
def commands_that_fit(state: Tables) -> Any:
    """Return how many commands fit into all tables. A command adds at most one record a table, and two balances."""
    pools = state.pools
    fit = slots_left(pools[SESSIONS], len(state.sessions))
    fit = min(fit, slots_left(pools[ACCOUNTS], len(state.accounts)))
    fit = min(fit, slots_left(pools[ASSETS], len(state.assets)))
    fit = min(fit, slots_left(pools[INSTRUMENTS], len(state.instruments)))
    fit = min(fit, slots_left(pools[LEVELS], len(state.levels)))
    fit = min(fit, slots_left(pools[NODES], len(state.nodes)))
    fit = min(fit, slots_left(pools[ORDERS], len(state.orders)))
    fit = min(fit, slots_left(pools[ORDER_DETAILS_TABLE], len(state.order_details)))
    fit = min(fit, slots_left(pools[TRANSFERS], len(state.transfers)))
    fit = min(fit, slots_left(pools[CREDENTIALS], len(state.credentials)))
    return min(fit, slots_left(pools[BALANCES], len(state.balances)) >> 1)


@inlined
def is_duplicate(state: Tables, command: Record) -> Any:
    """Whether a request was answered before, or opens a session that the same account has open already."""
    turn = state.turn[0]
    if turn.session == NIL:
        return False
    session = state.sessions[turn.session]
    if is_unnumbered(command.kind):
        if command.kind != CommandKind.OPEN_SESSION or session.account_id != command.account or session.closed != 0:
            return False
        return not is_foreign(state, session)
    return command.request_id <= session.last_request_id


@inlined
def check_command(state: Tables, command: Record) -> Any:
    """Return the first reason to reject a command, or NONE. Records in `turn` what it finds."""
    reason = check_form(state, command)
    if reason == Reason.NONE:
        reason = check_sender(state, command)
    if reason == Reason.NONE:
        reason = check_account(state, command)
    if reason == Reason.NONE:
        reason = check_kind(state, command)
    return reason if reason != Reason.NONE else check_space(state, command)


@inlined
def check_kind(state: Tables, command: Record) -> Any:
    """Make the checks of the command's kind."""
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
    if kind == CommandKind.SET_RETENTION:
        return check_retention(state.core[0], command)
    if kind == CommandKind.SET_CAPACITY:
        return check_capacity(command)
    if kind >= CommandKind.ADD_CREDENTIAL:
        return check_credential(state, command)
    return Reason.NONE


@merged
def perform_command(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """Do what a checked command asks; `reason` is NONE, or FOK_UNFILLABLE for a PLACE."""
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
        perform_admin(state, command, outcome, events)


@kernel
def perform_admin(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Do what a checked command asks that is about neither orders nor transfers."""
    kind = command.kind
    if kind == CommandKind.OPEN_ACCOUNT:
        open_account(state, command, outcome, events)
    elif kind == CommandKind.SUSPEND_ACCOUNT or kind == CommandKind.RESUME_ACCOUNT:
        set_account_status(state, command, outcome, events)
    elif kind == CommandKind.OPEN_SESSION:
        open_session(state, command, outcome, events)
    elif kind == CommandKind.CLOSE_SESSION:
        end_session(state, command, outcome, events, EventKind.SESSION_CLOSED)
    elif kind == CommandKind.DISCONNECT:
        end_session(state, command, outcome, events, EventKind.SESSION_DISCONNECTED)
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
    elif kind == CommandKind.SET_RETENTION:
        set_retention(state, command, outcome, events)
    elif kind == CommandKind.TICK:
        begin_event(state.core[0], state.turn[0], command, events, EventKind.TICKED)
        outcome.event_kind = EventKind.TICKED
    elif kind == CommandKind.SET_VERSION:
        set_version(state, command, outcome, events)
    elif kind == CommandKind.SET_CAPACITY:
        set_capacity(state, command, outcome, events)
    elif kind >= CommandKind.ADD_CREDENTIAL:
        change_credential(state, command, outcome, events)
    else:
        set_kill_switch(state, command, outcome, events)


@inlined
def max_events(state: Tables, command: Record, reason: Any, space: Any) -> Any:
    """Return the most events that the command itself can cause, without expiries and triggered stops."""
    kind = command.kind
    if reason == Reason.NONE and kind != CommandKind.CANCEL:
        turn = state.turn[0]
        if kind == CommandKind.PLACE:
            following = np.int64(turn.following)
            return following + max_events_of_place(state, command, space - following)
        if kind == CommandKind.REPLACE:
            return max_events_of_replace(state, command, space)
        core = state.core[0]
        if kind == CommandKind.MASS_CANCEL:
            return 1 + cancels_left(core, state.accounts[turn.account].orders)
        if kind == CommandKind.CLOSE_SESSION or kind == CommandKind.DISCONNECT:
            return 1 + cancels_left(core, state.sessions[turn.session].orders)
        if kind == CommandKind.SET_STATUS:
            return 1 + cancels_left(core, count_open_orders(state, turn.instrument))
    return np.int64(DEFAULT_EVENTS) + np.int64(state.turn[0].following)


@inlined
def consume_request(state: Tables, command: Record) -> None:
    """Count the session's request if it is the next one that is due; keep_answer updates the session's hash."""
    turn = state.turn[0]
    turn.counted = 0
    if turn.session != NIL and not is_unnumbered(command.kind):
        session = state.sessions[turn.session]
        if command.request_id == session.last_request_id + U1 and session.closed == 0:
            turn.counted = 1
            turn.content = content_of(state, command) if has_credentials(state.core[0]) else U0
            session.last_request_id = command.request_id
            if session.last_active_ns != state.core[0].time_ns:
                restart_silence(state, turn.session)
                refresh_session(state.core[0], session)


@inlined
def init_outcome(outcome: Record, command: Record, status: Any, sequence: Any) -> None:
    """Set every field of an outcome."""
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
    """Fill the outcome of a duplicate: its first answer, or, if that is not kept, the session's last request id.

    Another request with the id of one whose answer is kept is rejected; it changes nothing, not even a sequence.
    """
    session = state.sessions[state.turn[0].session]
    if is_unnumbered(command.kind) or not is_kept(session, command.request_id):
        init_outcome(outcome, command, OutcomeStatus.DUPLICATE, U0)
        outcome.order_id = session.last_request_id
    elif is_repetition(state, session, command):
        repeat_answer(state, session, command.request_id, outcome)
    else:
        init_outcome(outcome, command, OutcomeStatus.REJECTED, U0)
        outcome.reason = Reason.REQUEST_MISMATCH
        outcome.order_id = session.last_request_id


@inlined
def reject(state: Tables, command: Record, outcome: Record, events: Array, reason: Any) -> None:
    """Write the event, with those that follow it, and the outcome of a command that changes nothing."""
    outcome.status = OutcomeStatus.REJECTED
    outcome.event_kind = EventKind.REJECTED
    outcome.reason = reason
    emit_rejected(state.core[0], state.turn[0], command, events, reason)
    emit_following(state, command, events, command.order_id)


@merged
def begin_command(state: Tables, command: Record, time_ns: Any, outcome: Record) -> None:
    """Count a command and its request, and advance the engine's time."""
    core = state.core[0]
    core.command_sequence += U1
    state.turn[0].expiries = expiries_left(core, command, time_ns)
    core.time_ns = max(core.time_ns, time_ns)
    consume_request(state, command)
    init_outcome(outcome, command, OutcomeStatus.ACCEPTED, core.command_sequence)
    outcome.first_event = core.event_sequence + U1
    turn = state.turn[0]
    turn.credential = U0
    turn.ended = 0
    turn.forgotten = 0
    turn.answers = 0
    turn.stage = STARTED


@merged
def check_and_perform(state: Tables, command: Record, outcome: Record, events: Array) -> Any:
    """Check a command and perform or reject it. False, with nothing changed, if the events buffer may be too small."""
    turn = state.turn[0]
    if number_of(command.session_id) != U0:
        turn.credential = causing_credential(state, command)
    reason = check_command(state, command)
    space = len(events) - turn.written
    turn.needed = max_events(state, command, reason, space)
    if turn.needed > space:
        return False
    if command.kind == CommandKind.OPEN_SESSION and reason == Reason.NONE and turn.session == NIL:
        turn.answers = answers_missing(state, run_for(view_as(command, SESSION_COMMAND).answers))
        if turn.answers != 0:
            turn.needed = 0
            return False
    if reason == Reason.NONE or reason == Reason.FOK_UNFILLABLE:
        perform_command(state, command, outcome, events, reason)
    else:
        reject(state, command, outcome, events, reason)
    turn.stage = PERFORMED
    return True


@merged
def apply_command(state: Tables, command: Record, time_ns: Any, outcome: Record, events: Array) -> Any:
    """Handle one command. False if the events buffer or a table may be too small: then it continues later."""
    core = state.core[0]
    turn = state.turn[0]
    if turn.stage == NOT_STARTED:
        turn.first = turn.written
        turn.session = find_session(state, command.session_id)
        if is_duplicate(state, command):
            answer_duplicate(state, command, outcome)
            return True
        begin_command(state, command, time_ns, outcome)
    if core.next_expiry <= core.time_ns and not expire_due_orders(state, command, events):
        return False
    if turn.stage == STARTED and min(core.next_session_end, core.next_transfer_end) <= core.time_ns:
        if not end_what_is_over(state, command, events):
            return False
        turn.session = find_session(state, command.session_id)
    if turn.stage == STARTED and not check_and_perform(state, command, outcome, events):
        return False
    if turn.elected != NIL:
        # The records that triggered orders add are not counted in turn.fit.
        turn.fit = 1
        if not trigger_elected_stops(state, command, events):
            return False
    outcome.event_count = np.uint32(turn.written - turn.first)
    if turn.counted != 0:
        keep_answer(state, outcome)
    turn.stage = NOT_STARTED
    return True


@merged
def apply(state: Tables, commands: Array, done: Any, time_ns: Any, first: Any, first_event: Any) -> Any:
    """Apply commands from number `done` on; return how many are done now.

    It is fewer than all when the next command may need more records than a table has left (then turn.needed is 0) or
    more events than the buffer has left (then it is turn.needed). Outcomes and state hashes are written from number
    `first` of their buffers on, events from number `first_event` on; turn.written counts these. The events of an
    unfinished command begin at turn.first; before the next call the caller moves them to the start of the new buffer
    and sets both fields.
    """
    core = state.core[0]
    turn = state.turn[0]
    count = len(commands)
    outcomes = part_of(state.outcomes, first, count)
    hashes = part_of(state.hashes, first, count)
    events = part_of(state.events, first_event, len(state.events) - first_event)
    words = part_of(state.words, first_event * EVENT_WORDS, len(events) * EVENT_WORDS)
    if turn.stage == NOT_STARTED:
        turn.written = 0
    turn.fit = 0
    if count - done > 1:
        look_at_first(state, commands, done)
    while done < count:
        if turn.fit == 0:
            turn.fit = commands_that_fit(state)
            if turn.fit <= 0:
                turn.fit = 0
                turn.needed = 0
                break
        look_ahead(state, commands, done)
        if not apply_command(state, commands[done], time_ns, outcomes[done], events):
            break
        if turn.written != turn.first:
            update_state_hash(core, state.ring, words, turn.first, turn.written - turn.first)
        hashes[done] = core.state_hash
        turn.fit -= 1
        done += 1
    return done
