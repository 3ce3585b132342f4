"""Switch to the next version of the rules, and say which versions this program can apply.

A version of the rules is everything that decides what a command does to the state. A kernel whose rule differs between
two versions asks `core.rules_version`, never which program runs: every node applies the same version to the same
command. The switch is SET_VERSION, a command of the log; the new rules apply from the next command on. This file does
not decide when to switch: the leader logs the command when an operator asks for it and every member has the version
(smrx/consensus/rules_agreement.py). Called by apply.py and command_checks.py; engine.py reads the range.

To change a rule: raise NEWEST_RULES, keep the old rule beside the new one, and drop a version by raising OLDEST_RULES
only when no log or snapshot that must be read was written under it.
"""

from typing import Any, Final

from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.jit import Array, Record, Tables, inlined, kernel
from smrx.wire.codes import EventKind, Reason

#: The versions of the rules that this program can apply, both included.
OLDEST_RULES: Final = 1
NEWEST_RULES: Final = 2

#: The version with credentials, the content of requests, firms, and symbols that hold a letter.
CREDENTIAL_RULES: Final = 2
#: The version with capacities, and with at most MAX_CANCELS orders cancelled by one command.
BOUNDED_RULES: Final = 2


@inlined
def has_credentials(core: Record) -> Any:
    """Whether the rules in force have credentials."""
    return core.rules_version >= CREDENTIAL_RULES


@inlined
def has_bounds(core: Record) -> Any:
    """Whether the rules in force have capacities and bounds of what one command cancels."""
    return core.rules_version >= BOUNDED_RULES


@inlined
def check_version(core: Record, command: Record) -> Any:
    """Return INVALID_VERSION unless a SET_VERSION names the version after the present one, or NONE.

    NEWEST_RULES does not matter here: all nodes must give the same answer. A node that switches to a version it cannot
    apply stops before anything leaves it (Engine.apply).
    """
    return Reason.NONE if command.quantity_lots == core.rules_version + 1 else Reason.INVALID_VERSION


@kernel
def set_version(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked SET_VERSION."""
    core = state.core[0]
    core.rules_version += 1
    begin_event(core, state.turn[0], command, events, EventKind.VERSION_SET).quantity_lots = command.quantity_lots
    outcome.event_kind = EventKind.VERSION_SET
