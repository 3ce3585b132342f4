"""The list of all sessions in order of their last activity, oldest first.

A session is active when it is opened and with each request that it uses. The engine's time is the same for all
commands of a log entry, so only the first of them moves the session. Called by apply.py, sessions.py and retention.py.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.jit import NIL, U1, Tables, inlined, kernel


@inlined
def unlink_session(state: Tables, slot: Any) -> None:
    """Remove a session from the list."""
    core = state.core[0]
    session = state.sessions[slot]
    if session.older == NIL:
        core.oldest_session = session.newer
    else:
        state.sessions[session.older].newer = session.newer
    if session.newer == NIL:
        core.newest_session = session.older
    else:
        state.sessions[session.newer].older = session.older


@inlined
def append_session(state: Tables, slot: Any) -> None:
    """Add a session at the end of the list: its silence begins now. The caller updates its hash."""
    core = state.core[0]
    session = state.sessions[slot]
    core.activity += U1
    session.activity = core.activity
    session.last_active_ns = core.time_ns
    session.older = core.newest_session
    session.newer = np.uint32(0)
    if core.newest_session == NIL:
        core.oldest_session = slot
    else:
        state.sessions[core.newest_session].newer = slot
    core.newest_session = slot


@kernel
def restart_silence(state: Tables, slot: Any) -> None:
    """Move a session to the end of the list. The caller updates its hash."""
    unlink_session(state, slot)
    append_session(state, slot)
