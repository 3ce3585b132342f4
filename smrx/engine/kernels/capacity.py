"""Set how many records of each kind the exchange has at most, and refuse what would add one more.

The capacities are part of the state, so every node refuses the same commands, whatever memory it has. A command is
checked for space after everything else; what has a place already keeps it, also if SET_CAPACITY sets a lower number
than there are. Version 1 of the rules has no capacities. Called by apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.answers import run_for
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.jit import NIL, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.lookup import find_balance
from smrx.engine.kernels.order_checks import may_rest
from smrx.engine.kernels.rules_version import has_bounds
from smrx.engine.kernels.state_hash import capacity_hash
from smrx.engine.state import ACCOUNTS, ASSETS, BALANCES, CREDENTIALS, INSTRUMENTS, ORDERS, SESSIONS
from smrx.wire.codes import CommandKind, EventKind, Reason, Side
from smrx.wire.records import CAPACITY_COMMAND, CAPACITY_EVENT, MAX_CAPACITY, MAX_KEPT_ANSWERS, SESSION_COMMAND

MOST: Final = np.uint32(MAX_CAPACITY)
MOST_ANSWERS: Final = np.uint32(MAX_KEPT_ANSWERS)


@inlined
def is_capacity(value: Any) -> Any:
    """Whether a number of records is from 1 to MAX_CAPACITY."""
    return value != 0 and value <= MOST


@kernel
def check_capacity(command: Record) -> Any:
    """Return INVALID_LIMIT if a SET_CAPACITY has a number out of range, else NONE."""
    asked = view_as(command, CAPACITY_COMMAND)
    valid = asked.answers != 0 and asked.answers <= MOST_ANSWERS
    valid = valid and is_capacity(asked.accounts) and is_capacity(asked.orders) and is_capacity(asked.balances)
    valid = valid and is_capacity(asked.sessions) and is_capacity(asked.instruments)
    valid = valid and is_capacity(asked.assets) and is_capacity(asked.credentials)
    return Reason.NONE if valid else Reason.INVALID_LIMIT


@kernel
def set_capacity(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_CAPACITY."""
    core = state.core[0]
    asked = view_as(command, CAPACITY_COMMAND)
    if core.hashing != 0:
        core.digest -= capacity_hash(core)
    core.max_accounts = asked.accounts
    core.max_orders = asked.orders
    core.max_balances = asked.balances
    core.max_sessions = asked.sessions
    core.max_answers = asked.answers
    core.max_instruments = asked.instruments
    core.max_assets = asked.assets
    core.max_credentials = asked.credentials
    if core.hashing != 0:
        core.digest += capacity_hash(core)
    event = view_as(begin_event(core, state.turn[0], command, events, EventKind.CAPACITY_SET), CAPACITY_EVENT)
    event.accounts = asked.accounts
    event.orders = asked.orders
    event.balances = asked.balances
    event.sessions = asked.sessions
    event.answers = asked.answers
    event.instruments = asked.instruments
    event.assets = asked.assets
    event.credentials = asked.credentials
    outcome.event_kind = EventKind.CAPACITY_SET


@kernel
def lacks_balances(state: Tables, command: Record, left: Any) -> Any:
    """Whether a PLACE needs more new balances than there is space for."""
    turn = state.turn[0]
    if state.core[0].ledger == 0:
        return False
    instrument = state.instruments[turn.instrument]
    takes = instrument.base_id if command.side == Side.BUY else instrument.quote_id
    needed = 1 if turn.balance == NIL else 0
    if find_balance(state, command.account, takes) == NIL:
        needed += 1
    # Fewer than none are left if there were more when the capacity was set.
    return needed != 0 and needed > left


@kernel
def has_no_space(state: Tables, command: Record) -> Any:
    """Whether a checked command that is about no order would add a record beyond a capacity."""
    core = state.core[0]
    turn = state.turn[0]
    pools = state.pools
    kind = command.kind
    if kind == CommandKind.DEPOSIT:
        return turn.balance == NIL and pools[BALANCES].live >= core.max_balances
    if kind == CommandKind.OPEN_SESSION:
        if turn.session != NIL:
            return False
        kept = np.int64(core.kept_answers) + (np.int64(1) << run_for(view_as(command, SESSION_COMMAND).answers))
        return pools[SESSIONS].live >= core.max_sessions or kept > np.int64(core.max_answers)
    if kind == CommandKind.OPEN_ACCOUNT:
        return pools[ACCOUNTS].live >= core.max_accounts
    if kind == CommandKind.ADD_ASSET:
        return pools[ASSETS].live >= core.max_assets
    if kind == CommandKind.ADD_INSTRUMENT:
        return pools[INSTRUMENTS].live >= core.max_instruments
    return kind == CommandKind.ADD_CREDENTIAL and pools[CREDENTIALS].live >= core.max_credentials


@inlined
def check_space(state: Tables, command: Record) -> Any:
    """Return CAPACITY_REACHED if a command that passed all other checks would add a record beyond a capacity, or NONE.

    An order that does not rest needs no place among the open orders. The venue's balances for fees need none either.
    """
    core = state.core[0]
    kind = command.kind
    full = False
    if not has_bounds(core):
        return Reason.NONE
    if kind == CommandKind.PLACE:
        left = np.int64(core.max_balances) - np.int64(state.pools[BALANCES].live)
        if state.pools[ORDERS].live >= core.max_orders:
            full = may_rest(command.order_type, command.tif)
        if left < 2:
            full = full or lacks_balances(state, command, left)
    elif kind > CommandKind.MASS_CANCEL:
        full = has_no_space(state, command)
        if full and kind == CommandKind.ADD_CREDENTIAL:
            # The networks of a refused credential are in no event.
            state.turn[0].following = np.uint32(0)
    return Reason.CAPACITY_REACHED if full else Reason.NONE
