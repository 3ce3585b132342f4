"""Check that nothing is acknowledged to a credential without the right, and nothing is refused for a right that it has.

Owns the credentials of a run as the log has them, by a rule of its own. Follows the first application of each command
in the order of the log, as the checker reports it, and the frames that nodes receive and put into their logs. Raises
Violation.
"""

from typing import Final, NamedTuple

import numpy as np

from smrx.sim.checker import Violation
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus, Permission, Reason, Scope
from smrx.wire.frames import FrameError, FrameKind
from smrx.wire.records import (
    COMMAND,
    COMMAND_SIZE,
    CREDENTIAL_COMMAND,
    CREDENTIAL_DETAILS,
    CREDENTIAL_SHIFT,
)

#: The commands of traders; the others of a run are the venue's, or need no permission.
_TRADING: Final = (CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.MASS_CANCEL)
_LACKS_RIGHT: Final = (Reason.UNKNOWN_CREDENTIAL, Reason.CREDENTIAL_REVOKED, Reason.NOT_AUTHORISED)


class _Credential(NamedTuple):
    permissions: int
    scope: int
    subject: int
    is_revoked: bool = False

    def acts_for(self, account: int) -> bool:
        return self.scope == Scope.ALL or (self.scope == Scope.ACCOUNT and self.subject == account)


class CredentialChecks:
    """The credentials of one run."""

    def __init__(self) -> None:
        self._known: dict[int, _Credential] = {}
        #: Frames that name a session of another credential than their sender's.
        self._foreign: set[bytes] = set()
        #: Commands that were refused for lack of a right, and frames that named sessions of others.
        self.refused = 0

    def first_applied(self, index: int, piece: bytes, status: int, reason: int) -> None:
        """Check a command that an entry of the log applied for the first time; `piece` is one of a CommandList."""
        command = np.frombuffer(piece, COMMAND, 1)[0]
        number = int(command["session_id"]) >> CREDENTIAL_SHIFT
        if number:
            has_right = self._has_right(number, piece, command)
            who = f"credential {number} with command {int(command['kind'])} for account {int(command['account'])}"
            if status == OutcomeStatus.ACCEPTED and not has_right:
                raise Violation(f"rights: entry {index} accepts what {who} has no right to")
            if status == OutcomeStatus.REJECTED and reason in _LACKS_RIGHT:
                if has_right:
                    raise Violation(f"rights: entry {index} refuses what {who} has a right to: reason {reason}")
                self.refused += 1
        if status == OutcomeStatus.ACCEPTED:
            self._follow(piece, int(command["kind"]))

    def frame_received(self, delivery: bytes, credential: int, frame: bytes) -> None:
        """Record a frame that arrives at a node from a sender with a credential, 0 for none."""
        try:
            found = frames.decode(frame)
        except FrameError:
            return
        if found.kind is FrameKind.COMMANDS:
            sessions = np.frombuffer(found.body, COMMAND, found.count)["session_id"]
            if (sessions >> np.uint64(CREDENTIAL_SHIFT) != credential).any():
                self._foreign.add(delivery)

    def frame_submitted(self, delivery: bytes) -> None:
        """Check a frame that a node puts into its log."""
        if delivery in self._foreign:
            raise Violation("own sessions only: a node put a frame into its log that names a session of another client")

    def _has_right(self, number: int, piece: bytes, command: np.void) -> bool:
        credential = self._known.get(number)
        if credential is None or credential.is_revoked:
            return False
        kind, account = int(command["kind"]), int(command["account"])
        if kind == CommandKind.OPEN_SESSION:
            return credential.acts_for(account)
        if kind == CommandKind.CLOSE_SESSION:
            return True
        if kind not in _TRADING:
            # Of no kind that exists: rejected before rights are looked at.
            return False
        return bool(credential.permissions & Permission.TRADE) and credential.acts_for(account)

    def _follow(self, piece: bytes, kind: int) -> None:
        """Follow an accepted change of a credential."""
        if kind not in (CommandKind.ADD_CREDENTIAL, CommandKind.REVOKE_CREDENTIAL):
            return
        number = int(np.frombuffer(piece, CREDENTIAL_COMMAND, 1)["number"][0])
        if kind == CommandKind.REVOKE_CREDENTIAL:
            self._known[number] = self._known[number]._replace(is_revoked=True)
        else:
            details = np.frombuffer(piece, CREDENTIAL_DETAILS, 1, COMMAND_SIZE)[0]
            permissions, scope, subject = (int(details[name]) for name in ("permissions", "scope", "subject"))
            self._known[number] = _Credential(permissions, scope, subject)
