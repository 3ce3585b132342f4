"""Check that outcomes answer the commands that were sent, as far as an outcome tells: its kind, and the id it names.

Owns which kinds of outcome a kind of command can have. A difference means that another client used the session, or that
the exchange is at fault; either way the outcome says nothing about the command. Used by ClientSession. No I/O.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus

_ORDER: Final = (CommandKind.PLACE, CommandKind.REPLACE)
_CANCELS: Final = (*_ORDER, CommandKind.CANCEL)

#: The commands after which an outcome can have this kind. A kind that is not here can follow every command.
_COMMANDS_OF: Final[Mapping[EventKind, tuple[CommandKind, ...]]] = {
    EventKind.NEW: (CommandKind.PLACE,),
    EventKind.TRIGGERED: _ORDER,
    EventKind.PARTIALLY_FILLED: _ORDER,
    EventKind.FILLED: _ORDER,
    EventKind.EXPIRED: _ORDER,
    EventKind.REPLACED: _ORDER,
    EventKind.CANCELLED: _CANCELS,
    EventKind.DEPOSITED: (CommandKind.DEPOSIT,),
    EventKind.WITHDRAWN: (CommandKind.WITHDRAW,),
    EventKind.ACCOUNT_OPENED: (CommandKind.OPEN_ACCOUNT,),
    EventKind.ACCOUNT_SUSPENDED: (CommandKind.SUSPEND_ACCOUNT,),
    EventKind.ACCOUNT_RESUMED: (CommandKind.RESUME_ACCOUNT,),
    EventKind.SESSION_CLOSED: (CommandKind.CLOSE_SESSION,),
    EventKind.ASSET_ADDED: (CommandKind.ADD_ASSET,),
    EventKind.INSTRUMENT_ADDED: (CommandKind.ADD_INSTRUMENT,),
    EventKind.MASS_CANCELLED: (CommandKind.MASS_CANCEL,),
    EventKind.STATUS_SET: (CommandKind.SET_STATUS,),
    EventKind.LIMITS_SET: (CommandKind.SET_LIMITS,),
    EventKind.KILLED: (CommandKind.KILL,),
    EventKind.REVIVED: (CommandKind.REVIVE,),
    EventKind.RULES_SET: (CommandKind.SET_RULES,),
    EventKind.RETENTION_SET: (CommandKind.SET_RETENTION,),
    EventKind.CAPACITY_SET: (CommandKind.SET_CAPACITY,),
    EventKind.CREDENTIAL_ADDED: (CommandKind.ADD_CREDENTIAL,),
    EventKind.CREDENTIAL_SET: (CommandKind.SET_CREDENTIAL,),
    EventKind.CREDENTIAL_REVOKED: (CommandKind.REVOKE_CREDENTIAL,),
}
#: Kinds of a command and of an outcome that go together.
_FITS: Final = np.ones((256, 256), np.bool_)
for _event, _commands in _COMMANDS_OF.items():
    _FITS[:, _event] = False
    _FITS[list(_commands), _event] = True
#: Commands that name in `order_id` what their outcome must name: an order, or a transfer.
_NAMES_ID: Final = np.isin(
    np.arange(256), (CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.DEPOSIT, CommandKind.WITHDRAW)
)


def fits(kind: int, order: int, event: int, named: int) -> bool:
    """Return whether an outcome with this kind and order id can be that of a command; see first_mismatch()."""
    return bool(_FITS[kind, event]) and (not order or named == order or not _NAMES_ID[kind])


def first_mismatch(commands: NDArray[np.void], outcomes: NDArray[np.void]) -> int | None:
    """Return the index of the first outcome that cannot be that of the command at the same index, or None."""
    accepted = outcomes["status"] == OutcomeStatus.ACCEPTED
    wrong = ~_FITS[commands["kind"], outcomes["event_kind"]]
    named = commands["order_id"]
    wrong |= _NAMES_ID[commands["kind"]] & (named != 0) & (outcomes["order_id"] != named)
    wrong &= accepted
    return int(wrong.argmax()) if wrong.any() else None


def describe(command: np.void, outcome: np.void) -> str:
    """Return what was sent and what was answered."""
    sent, answered = int(command["kind"]), int(outcome["event_kind"])
    kinds, events = set(map(int, CommandKind)), set(map(int, EventKind))
    kind = CommandKind(sent).name if sent in kinds else f"kind {sent}"
    event = EventKind(answered).name if answered in events else f"kind {answered}"
    return f"{kind} of {int(command['order_id'])} was answered with {event} of {int(outcome['order_id'])}"
