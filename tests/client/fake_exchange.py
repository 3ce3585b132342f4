"""A minimal exchange that implements the session rules exactly, and nothing else.

Orders only get a sequence and an id. `ledger` lists every command that consumed a request id, in order, as a piece of a
CommandList; tests compare it with what the client sent.
"""

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, OUTCOME

KINDS = {int(kind) for kind in CommandKind}
#: The kind of the outcome of an accepted command.
EVENTS = {
    CommandKind.PLACE: EventKind.NEW,
    CommandKind.CANCEL: EventKind.CANCELLED,
    CommandKind.REPLACE: EventKind.REPLACED,
    CommandKind.MASS_CANCEL: EventKind.MASS_CANCELLED,
    CommandKind.DEPOSIT: EventKind.DEPOSITED,
    CommandKind.WITHDRAW: EventKind.WITHDRAWN,
    CommandKind.OPEN_ACCOUNT: EventKind.ACCOUNT_OPENED,
    CommandKind.SUSPEND_ACCOUNT: EventKind.ACCOUNT_SUSPENDED,
    CommandKind.RESUME_ACCOUNT: EventKind.ACCOUNT_RESUMED,
    CommandKind.OPEN_SESSION: EventKind.SESSION_OPENED,
    CommandKind.CLOSE_SESSION: EventKind.SESSION_CLOSED,
    CommandKind.ADD_ASSET: EventKind.ASSET_ADDED,
    CommandKind.ADD_INSTRUMENT: EventKind.INSTRUMENT_ADDED,
    CommandKind.SET_STATUS: EventKind.STATUS_SET,
    CommandKind.SET_LIMITS: EventKind.LIMITS_SET,
    CommandKind.KILL: EventKind.KILLED,
    CommandKind.REVIVE: EventKind.REVIVED,
    CommandKind.TICK: EventKind.TICKED,
    CommandKind.SET_RULES: EventKind.RULES_SET,
    CommandKind.DISCONNECT: EventKind.SESSION_DISCONNECTED,
    CommandKind.SET_VERSION: EventKind.VERSION_SET,
    CommandKind.SET_RETENTION: EventKind.RETENTION_SET,
    CommandKind.SET_CAPACITY: EventKind.CAPACITY_SET,
    CommandKind.ADD_CREDENTIAL: EventKind.CREDENTIAL_ADDED,
    CommandKind.SET_CREDENTIAL: EventKind.CREDENTIAL_SET,
    CommandKind.REVOKE_CREDENTIAL: EventKind.CREDENTIAL_REVOKED,
}
#: Commands whose outcome names the order or the transfer that they name.
NAMED = (CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.DEPOSIT, CommandKind.WITHDRAW)


class FakeExchange:
    """Applies commands in order. With `stores_outcomes`, a duplicate is answered with its first outcome."""

    def __init__(self, accounts: tuple[int, ...] = (0, 1, 7), stores_outcomes: bool = True) -> None:
        self.accounts = set(accounts)
        self.sessions: dict[int, list[int]] = {}  # session id -> [account, last request id]
        self.closed: set[int] = set()
        self.sequence = 0
        self.ledger: list[tuple[int, int, bytes]] = []
        self.first_outcomes: dict[tuple[int, int], bytes] = {}
        self.stores_outcomes = stores_outcomes

    def apply(self, commands: CommandList) -> NDArray[np.void]:
        """Return the outcomes of the commands, in their order."""
        return np.concatenate([self._apply_one(piece) for piece in commands.pieces()])

    def _apply_one(self, piece: bytes) -> NDArray[np.void]:
        command = np.frombuffer(piece, COMMAND, 1)
        kind, session_id = int(command["kind"][0]), int(command["session_id"][0])
        request, account = int(command["request_id"][0]), int(command["account"][0])
        outcome = np.zeros(1, OUTCOME)
        outcome["session_id"], outcome["request_id"] = session_id, request
        session = self.sessions.get(session_id)
        is_open = session is not None and session_id not in self.closed
        repeated_open = kind == CommandKind.OPEN_SESSION and is_open and session is not None and session[0] == account
        repeated = kind != CommandKind.OPEN_SESSION and session is not None and request <= session[1]
        if session is not None and (repeated_open or repeated):
            known = self.first_outcomes.get((session_id, request))
            if repeated and self.stores_outcomes and known is not None:
                return np.frombuffer(known, OUTCOME).copy()
            outcome["status"], outcome["order_id"] = OutcomeStatus.DUPLICATE, session[1]
            return outcome
        self.sequence += 1
        reason = self._reason(kind, session, request, account)
        if session_id in self.closed and not reason:
            if kind == CommandKind.OPEN_SESSION:
                self.closed.discard(session_id)
            else:
                reason = Reason.SESSION_CLOSED
        outcome["sequence"] = self.sequence
        if reason:
            reject(outcome, reason)
        else:
            outcome["status"], outcome["event_kind"] = OutcomeStatus.ACCEPTED, EVENTS[CommandKind(kind)]
            named = command["order_id"][0] if kind in NAMED else 0
            outcome["order_id"] = self.sequence if kind == CommandKind.PLACE else named
        if kind == CommandKind.OPEN_SESSION and not reason:
            self.sessions.setdefault(session_id, [account, 0])
        elif session is not None and request == session[1] + 1 and reason != Reason.SESSION_CLOSED:
            session[1] = request
            self.ledger.append((session_id, request, piece))
            self.first_outcomes[session_id, request] = outcome.tobytes()
            if kind == CommandKind.CLOSE_SESSION and not reason:
                self.closed.add(session_id)
        return outcome

    def _reason(self, kind: int, session: list[int] | None, request: int, account: int) -> Reason:
        """Return why a command is rejected, or NONE."""
        if kind not in KINDS:
            return Reason.UNKNOWN_KIND
        if kind == CommandKind.OPEN_SESSION:
            if session is not None and session[0] != account:
                return Reason.SESSION_IN_USE
            return Reason.NONE if account in self.accounts else Reason.UNKNOWN_ACCOUNT
        if session is None:
            return Reason.UNKNOWN_SESSION
        if request > session[1] + 1:
            return Reason.REQUEST_GAP
        if kind == CommandKind.PLACE and account not in self.accounts:
            return Reason.UNKNOWN_ACCOUNT
        return Reason.NONE


def reject(outcome: NDArray[np.void], reason: Reason) -> None:
    """Turn an outcome into a rejection, as the engine fills it in."""
    outcome["status"], outcome["event_kind"], outcome["reason"] = OutcomeStatus.REJECTED, EventKind.REJECTED, reason
    outcome["order_id"] = outcome["cum_lots"] = outcome["leaves_lots"] = 0
