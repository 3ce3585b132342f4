"""The oracle: apply commands slowly and plainly; return outcomes, events and hashes.

The compiled engine must agree with it byte for byte.
"""

from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, EVENT, OUTCOME
from tests.oracle import command_checks
from tests.oracle.inspect import Inspect
from tests.oracle.invariants import violations
from tests.oracle.messages import Command, Event, Outcome
from tests.oracle.orders import Orders
from tests.oracle.records import Session, hash_words
from tests.oracle.reporting import MALFORMED, OF_ORDERS
from tests.oracle.venue import Venue

NEWEST_RULES = 2
#: Kinds without a request id.
UNNUMBERED = (CommandKind.OPEN_SESSION, CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION)


class Result(NamedTuple):
    """The same three arrays that the engine returns."""

    outcomes: NDArray[np.void]
    events: NDArray[np.void]
    hashes: NDArray[np.uint64]


class Oracle(Orders, Venue):
    """The exchange's state machine in plain Python, with the engine's interface."""

    def __init__(self, rules: int = NEWEST_RULES) -> None:
        super().__init__()
        self.state.rules_version = rules

    # The engine's properties.

    @property
    def sequence(self) -> int:
        return self.state.sequence

    @property
    def event_sequence(self) -> int:
        return self.state.event_sequence

    @property
    def match_sequence(self) -> int:
        return self.state.match_sequence

    @property
    def trade_count(self) -> int:
        return self.state.match_sequence

    @property
    def time_ns(self) -> int:
        return self.state.time_ns

    @property
    def state_hash(self) -> int:
        return self.state.hash

    @property
    def rules_version(self) -> int:
        return self.state.rules_version

    @property
    def inspect(self) -> Inspect:
        return Inspect(self.state)

    def content_hash(self) -> int:
        return self.state.content_hash()

    def recompute_content_hash(self) -> int:
        return self.state.content_hash()

    def check_invariants(self) -> list[str]:
        return violations(self.state)

    def apply(self, commands: NDArray[np.void], time_ns: int, details: NDArray[np.void] = NO_DETAILS) -> Result:
        """Apply commands in order at a time stamp; they name their details by number from 1."""
        outcomes: list[Outcome] = []
        events: list[Event] = []
        hashes: list[int] = []
        all_details = details.tobytes()
        for record in np.asarray(commands, dtype=COMMAND).reshape(-1):
            number = int(record["details"])
            own = all_details[(number - 1) * 128 : number * 128] if 1 <= number <= len(details) else None
            outcome, caused = self.apply_one(Command(record.tobytes(), own), time_ns)
            outcomes.append(outcome)
            events.extend(caused)
            hashes.append(self.state.hash)
        return Result(
            np.array(outcomes, dtype=OUTCOME),
            np.frombuffer(b"".join(event.data for event in events), dtype=EVENT),
            np.array(hashes, dtype=np.uint64),
        )

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        state = self.state
        self.command, self.events = command, []
        self.credential = 0
        if self.is_duplicate(command):
            return self.first_answer(state.sessions[command.session_id]), []
        state.sequence += 1
        self.before_ns = state.time_ns
        state.time_ns = max(state.time_ns, stamp)
        asker = self.active_session()
        self.expire_orders()
        self.end_silent_sessions()
        self.forget_transfers()
        reason = self.rejection_reason(command)
        self.credential = self.who(reason)
        content = command.content if state.knows_credentials else 0
        if asker:
            asker.last_request_id = command.request_id
        outcome = self.reject(reason) if reason else self.perform()
        if asker:
            asker.keep(outcome, content)
        self.chain_hash()
        return outcome, self.events

    def rejection_reason(self, command: Command) -> Reason:
        return command_checks.rejection_reason(self.state, command)

    def first_answer(self, session: Session) -> Outcome:
        """Return the first answer to a repeated request, if it is kept and the request has the same content."""
        command = self.command
        repeated = Outcome(
            OutcomeStatus.DUPLICATE,
            session_id=command.session_id,
            request_id=command.request_id,
            order_id=session.last_request_id,
        )
        if command.kind in UNNUMBERED or command.request_id not in session.answers:
            return repeated
        if self.is_other_request(session):
            return repeated._replace(status=OutcomeStatus.REJECTED, reason=Reason.REQUEST_MISMATCH)
        return Outcome(*session.answers[command.request_id])

    def is_other_request(self, session: Session) -> bool:
        """Whether a repeated request has another content than the first one with its id."""
        first = session.contents[self.command.request_id]
        return self.state.knows_credentials and first not in (0, self.command.content)

    def who(self, reason: Reason) -> int:
        """Return the credential behind the command: the person behind it, once that is checked, or the session's."""
        command = self.command
        if command.kind in (CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION):
            return 0
        if command.kind == CommandKind.OPEN_SESSION:
            return command.credential if command.credential in self.state.credentials else 0
        named = command.person if command.kind in OF_ORDERS and reason not in MALFORMED else 0
        if named and command_checks.session(self.state, command) is Reason.NONE:
            return named
        return self.state.credential_of_session(command)

    def is_duplicate(self, command: Command) -> bool:
        session = self.state.sessions.get(command.session_id)
        if session is None or command.kind in (CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION):
            return False
        if command.kind == CommandKind.OPEN_SESSION:
            own = session.account == command.account and not session.closed
            return own and not self.state.is_foreign(session)
        return command.request_id <= session.last_request_id

    def active_session(self) -> Session | None:
        """Return the session whose next request the command is; its silence begins again."""
        command, state = self.command, self.state
        session = state.sessions.get(command.session_id)
        if session is None or session.closed or command.kind in UNNUMBERED:
            return None
        if command.request_id != session.last_request_id + 1:
            return None
        if session.last_active_ns != state.time_ns:
            state.begin_silence(session)
        return session

    def perform(self) -> Outcome:
        return {
            CommandKind.PLACE: self.place,
            CommandKind.CANCEL: self.cancel,
            CommandKind.REPLACE: self.replace,
            CommandKind.MASS_CANCEL: self.mass_cancel,
            CommandKind.DEPOSIT: self.deposit,
            CommandKind.WITHDRAW: self.withdraw,
            CommandKind.OPEN_ACCOUNT: self.open_account,
            CommandKind.SUSPEND_ACCOUNT: self.suspend_account,
            CommandKind.RESUME_ACCOUNT: self.resume_account,
            CommandKind.OPEN_SESSION: self.open_session,
            CommandKind.CLOSE_SESSION: self.close_session,
            CommandKind.ADD_ASSET: self.add_asset,
            CommandKind.ADD_INSTRUMENT: self.add_instrument,
            CommandKind.SET_STATUS: self.set_status,
            CommandKind.SET_LIMITS: self.set_limits,
            CommandKind.KILL: self.kill,
            CommandKind.REVIVE: self.revive,
            CommandKind.TICK: self.tick,
            CommandKind.SET_RULES: self.set_rules,
            CommandKind.DISCONNECT: self.disconnect,
            CommandKind.SET_VERSION: self.set_version,
            CommandKind.SET_RETENTION: self.set_retention,
            CommandKind.SET_CAPACITY: self.set_capacity,
            CommandKind.ADD_CREDENTIAL: self.add_credential,
            CommandKind.SET_CREDENTIAL: self.set_credential,
            CommandKind.REVOKE_CREDENTIAL: self.revoke_credential,
        }[CommandKind(self.command.kind)]()

    def chain_hash(self) -> None:
        state = self.state
        events = xxhash.xxh3_64_intdigest(b"".join(event.data for event in self.events))
        state.hash = hash_words((state.hash, state.content_hash(), events))
