"""Remove what the state keeps only for a time: sessions after a silence, transfer ids by age or number.

Both kinds form a list, oldest first. The transfers of an account form one more, newest first, through
`transfer_links`. No link is changed when a transfer is removed: a reader that follows one checks that it leads to an
older transfer of the account, see reading.py.

Before a command is checked, and after due orders have expired, at most MAX_SESSIONS_ENDED sessions and
MAX_TRANSFERS_FORGOTTEN transfers are looked at; the rest is left to the next commands.
`core.next_session_end` and `core.next_transfer_end` are lower bounds of when there is something to do, so that a
command that ends nothing costs two comparisons. Called by apply.py and balances.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.activity import restart_silence, unlink_session
from smrx.engine.kernels.answers import return_run
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, remove
from smrx.engine.kernels.jit import NIL, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.pool import return_slot
from smrx.engine.kernels.rules_version import has_bounds
from smrx.engine.kernels.state_hash import drop_hash, refresh_session, retention_hash
from smrx.engine.state import NEVER, SESSIONS, TRANSFERS
from smrx.wire.codes import EventKind, Reason
from smrx.wire.records import MAX_CAPACITY, RETENTION_COMMAND, RETENTION_EVENT

#: The most records that one command looks at.
MAX_SESSIONS_ENDED: Final = 16
MAX_TRANSFERS_FORGOTTEN: Final = 16

MOST_TRANSFERS: Final = np.uint64(MAX_CAPACITY)

NS: Final = np.int64(1_000_000_000)


@inlined
def end_of(since: Any, seconds: Any) -> Any:
    """Return the time so many seconds after another; NEVER if there is no such time."""
    period = np.int64(seconds) * NS
    return since + period if since <= NEVER - period else np.int64(NEVER)


@inlined
def is_over(core: Record, since: Any, seconds: Any) -> Any:
    """Whether so many seconds have passed."""
    return core.time_ns - since >= np.int64(seconds) * NS


@inlined
def expect_session_end(core: Record) -> None:
    """A session's silence began now."""
    core.next_session_end = min(core.next_session_end, end_of(core.time_ns, core.session_silence_s))


@kernel
def expire_session(state: Tables, command: Record, events: Array, slot: Any) -> None:
    """End a silent session: write the event, and remove the session with its answers."""
    core = state.core[0]
    session = state.sessions[slot]
    event = begin_event(core, state.turn[0], command, events, EventKind.SESSION_EXPIRED)
    event.session_id = session.session_id
    event.request_id = session.last_request_id
    event.account = session.account_id
    remove(state.session_index, session.session_id, NO_EXTRA, slot)
    drop_hash(core, session)
    unlink_session(state, slot)
    return_run(state, session)
    return_slot(state.pools[SESSIONS], state.sessions, slot)


@kernel
def end_silent_sessions(state: Tables, command: Record, events: Array) -> Any:
    """End silent sessions, oldest activity first. False if the events buffer is full: then it continues later.

    The silence of one with open orders of its own begins again.
    """
    core = state.core[0]
    turn = state.turn[0]
    while turn.ended < MAX_SESSIONS_ENDED:
        slot = core.oldest_session
        if slot == NIL:
            core.next_session_end = NEVER
            break
        session = state.sessions[slot]
        if not is_over(core, session.last_active_ns, core.session_silence_s):
            core.next_session_end = end_of(session.last_active_ns, core.session_silence_s)
            break
        if session.orders != 0:
            restart_silence(state, slot)
            refresh_session(core, session)
        elif turn.written == len(events):
            turn.needed = 1
            return False
        else:
            expire_session(state, command, events, slot)
        turn.ended = np.uint32(turn.ended + 1)
    return True


@inlined
def append_transfer(state: Tables, slot: Any) -> None:
    """Add a new transfer to the list."""
    core = state.core[0]
    transfer = state.transfers[slot]
    transfer.time_ns = core.time_ns
    transfer.sequence = core.command_sequence
    transfer.newer = np.uint32(0)
    if core.newest_transfer == NIL:
        core.oldest_transfer = slot
    else:
        state.transfers[core.newest_transfer].newer = slot
    core.newest_transfer = slot
    core.next_transfer_end = min(core.next_transfer_end, end_of(core.time_ns, core.transfer_age_s))


@kernel
def forget_transfer(state: Tables) -> None:
    """Remove the oldest transfer id."""
    core = state.core[0]
    slot = core.oldest_transfer
    transfer = state.transfers[slot]
    core.oldest_transfer = transfer.newer
    if transfer.newer == NIL:
        core.newest_transfer = np.uint32(0)
    remove(state.transfer_index, transfer.transfer_id, NO_EXTRA, slot)
    drop_hash(core, transfer)
    return_slot(state.pools[TRANSFERS], state.transfers, slot)


@kernel
def forget_transfers(state: Tables) -> None:
    """Remove the transfer ids that are too old or too many, oldest first."""
    core = state.core[0]
    turn = state.turn[0]
    while turn.forgotten < MAX_TRANSFERS_FORGOTTEN:
        slot = core.oldest_transfer
        if slot == NIL:
            core.next_transfer_end = NEVER
            break
        too_many = np.uint64(state.pools[TRANSFERS].live) > core.transfers
        since = state.transfers[slot].time_ns
        if not too_many and not is_over(core, since, core.transfer_age_s):
            core.next_transfer_end = end_of(since, core.transfer_age_s)
            break
        forget_transfer(state)
        turn.forgotten = np.uint32(turn.forgotten + 1)


@kernel
def end_what_is_over(state: Tables, command: Record, events: Array) -> Any:
    """End silent sessions and forget old transfers; see end_silent_sessions for the result."""
    core = state.core[0]
    if core.next_session_end <= core.time_ns and not end_silent_sessions(state, command, events):
        return False
    if core.next_transfer_end <= core.time_ns:
        forget_transfers(state)
    return True


@inlined
def check_retention(core: Record, command: Record) -> Any:
    """Return why SET_RETENTION is rejected, or NONE."""
    asked = view_as(command, RETENTION_COMMAND)
    valid = asked.session_silence_s != 0 and asked.transfer_age_s != 0 and asked.transfers != 0
    valid = valid and (asked.transfers <= MOST_TRANSFERS or not has_bounds(core))
    return Reason.NONE if valid else Reason.INVALID_LIMIT


@kernel
def set_retention(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_RETENTION. What is over by the new numbers ends with the next commands."""
    core = state.core[0]
    asked = view_as(command, RETENTION_COMMAND)
    if core.hashing != 0:
        core.digest -= retention_hash(core)
    core.session_silence_s = asked.session_silence_s
    core.transfer_age_s = asked.transfer_age_s
    core.transfers = asked.transfers
    if core.hashing != 0:
        core.digest += retention_hash(core)
    core.next_session_end = core.time_ns
    core.next_transfer_end = core.time_ns
    event = view_as(begin_event(core, state.turn[0], command, events, EventKind.RETENTION_SET), RETENTION_EVENT)
    event.session_silence_s = asked.session_silence_s
    event.transfer_age_s = asked.transfer_age_s
    event.transfers = asked.transfers
    outcome.event_kind = EventKind.RETENTION_SET
