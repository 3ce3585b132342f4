"""Open and close sessions, and cancel the orders that end with their connection. Called by apply.py."""

from typing import Any

import numpy as np

from smrx.engine.kernels.activity import append_session, restart_silence
from smrx.engine.kernels.answers import run_for, take_run
from smrx.engine.kernels.cancelling import cancel_order, cancels_left
from smrx.engine.kernels.credential_rules import number_of
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, insert
from smrx.engine.kernels.jit import NIL, Array, Record, Tables, kernel, view_as
from smrx.engine.kernels.lookup import find_credential
from smrx.engine.kernels.pool import take_slot
from smrx.engine.kernels.retention import expect_session_end
from smrx.engine.kernels.rules_version import has_credentials
from smrx.engine.kernels.state_hash import refresh_session
from smrx.engine.state import SESSIONS
from smrx.wire.codes import EventKind, Reason
from smrx.wire.records import SESSION_COMMAND, SESSION_EVENT


@kernel
def open_session(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked OPEN_SESSION. A closed session opens again: it goes on after its last request, as it was."""
    core = state.core[0]
    turn = state.turn[0]
    slot = turn.session
    if slot == NIL:
        slot = take_slot(state.pools[SESSIONS], state.sessions)
        session = state.sessions[slot]
        session.session_id = command.session_id
        session.last_request_id = 0
        session.hash = 0
        session.chain = 0
        session.account_id = command.account
        session.account = turn.account
        session.orders = 0
        session.credential_id = np.uint32(number_of(command.session_id)) if has_credentials(core) else NIL
        session.credential = find_credential(state, session.credential_id) if session.credential_id != 0 else NIL
        state.session_lists[slot].first = NIL
        state.session_lists[slot].last = NIL
        take_run(state, session, run_for(view_as(command, SESSION_COMMAND).answers))
        insert(state.session_index, command.session_id, NO_EXTRA, slot)
        append_session(state, slot)
    else:
        session = state.sessions[slot]
        restart_silence(state, slot)
    expect_session_end(core)
    session.flags = command.flags
    session.closed = np.uint8(0)
    refresh_session(core, session)
    event = begin_event(core, turn, command, events, EventKind.SESSION_OPENED)
    event.account = command.account
    event.flags = command.flags
    opened = view_as(event, SESSION_EVENT)
    opened.answers = np.uint32(1 << np.int64(session.run))
    opened.last_request_id = session.last_request_id
    outcome.event_kind = EventKind.SESSION_OPENED
    outcome.order_id = session.last_request_id


@kernel
def cancel_session_orders(state: Tables, command: Record, events: Array) -> Any:
    """Cancel orders that end with the session in `turn`, oldest first, as many as a command may; return how many."""
    session = state.turn[0].session
    count = cancels_left(state.core[0], state.sessions[session].orders)
    slot = state.session_lists[session].first
    for _ in range(count):
        following = state.session_links[slot].newer
        cancel_order(state, command, events, slot, Reason.DISCONNECTED)
        slot = following
    return count


@kernel
def end_session(state: Tables, command: Record, outcome: Record, events: Array, kind: Any) -> None:
    """Perform CLOSE_SESSION or DISCONNECT: cancel what ends with the session.

    A session with more orders than one command cancels stays open: then CLOSE_SESSION does what DISCONNECT does, and
    the outcome says how many orders are left. A closed session stays, with its answers, until its silence ends it.
    """
    core = state.core[0]
    turn = state.turn[0]
    session = state.sessions[turn.session]
    cancelled = cancel_session_orders(state, command, events)
    if session.orders != 0:
        kind = EventKind.SESSION_DISCONNECTED
    event = begin_event(core, turn, command, events, kind)
    event.account = session.account_id
    event.quantity_lots = cancelled
    outcome.event_kind = kind
    outcome.cum_lots = cancelled
    outcome.leaves_lots = np.int64(session.orders)
    if kind == EventKind.SESSION_CLOSED:
        session.closed = np.uint8(1)
        refresh_session(core, session)
