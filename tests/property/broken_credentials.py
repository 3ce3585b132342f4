"""Oracles with one deliberate bug each about credentials or the content of requests; as broken_oracles.py."""

from collections.abc import Mapping

from smrx.wire.codes import EventKind, Reason, Scope
from tests.oracle import Oracle
from tests.oracle.credentials import Credential
from tests.oracle.messages import Command, Event, Outcome
from tests.oracle.oracle import NEWEST_RULES
from tests.oracle.records import Account, Session
from tests.oracle.reporting import OF_ORDERS
from tests.oracle.state import State


class UnscopedCredential(Credential):
    def covers(self, number: int, accounts: Mapping[int, Account]) -> bool:
        return True


class ForgetsScope(Oracle):
    """Lets a credential act for every account."""

    make_credential = UnscopedCredential


class FirmOfTheSubjectCredential(Credential):
    def covers(self, number: int, accounts: Mapping[int, Account]) -> bool:
        return number == self.subject if self.scope == Scope.FIRM else super().covers(number, accounts)


class TakesFirmsForAccounts(Oracle):
    """Lets the credential of a firm act for the account that has the firm's number."""

    make_credential = FirmOfTheSubjectCredential


class LastingCredential(Credential):
    def standing(self, time_ns: int) -> Reason:
        return super().standing(0)


class ForgetsExpiry(Oracle):
    """Lets an expired credential act."""

    make_credential = LastingCredential


class LateCredential(Credential):
    def standing(self, time_ns: int) -> Reason:
        return super().standing(time_ns - 1)


class ExpiresCredentialsLate(Oracle):
    """Lets a credential act in the nanosecond of its expiry."""

    make_credential = LateCredential


class ForgivingCredential(Credential):
    def standing(self, time_ns: int) -> Reason:
        reason = super().standing(time_ns)
        return Reason.NONE if reason is Reason.CREDENTIAL_REVOKED else reason


class ForgetsRevocation(Oracle):
    """Lets a revoked credential act."""

    make_credential = ForgivingCredential


class PowerfulCredential(Credential):
    def has_one_of(self, permissions: int) -> bool:
        return True


class ForgetsPermissions(Oracle):
    """Lets a credential do everything within its scope."""

    make_credential = PowerfulCredential


class GlobalCredential(Credential):
    @property
    def is_venues(self) -> bool:
        return True


class LetsCustomersAdminister(Oracle):
    """Lets the administrator of an account administer the venue."""

    make_credential = GlobalCredential


class ForgetsThePerson(Oracle):
    """Writes the gateway into the events of an order in place of the person behind it."""

    def who(self, reason: Reason) -> int:
        return self.credential


class AcceptsAnyPerson(Oracle):
    """Does not check the person behind an order."""

    def rejection_reason(self, command: Command) -> Reason:
        details = command.details_data
        if command.kind in OF_ORDERS and details and self.state.knows_credentials:
            command = Command(command.data, details[:112] + bytes(4) + details[116:])
        return super().rejection_reason(command)


class AcceptsOtherContent(Oracle):
    """Gives the first answer to a repeated request, whatever it asks for."""

    def is_other_request(self, session: Session) -> bool:
        return False


class ComparesNoDetails(Oracle):
    """Leaves the details out of the content of a request."""

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        return super().apply_one(CommandWithoutDetails(command.data, command.details_data), stamp)


class CommandWithoutDetails(Command):
    @property
    def content(self) -> int:
        return Command(self.data).content


class UsesSequenceForMismatch(Oracle):
    """Counts a repeated request with other content as a command."""

    def first_answer(self, session: Session) -> Outcome:
        answer = super().first_answer(session)
        if answer.reason == Reason.REQUEST_MISMATCH:
            self.state.sequence += 1
        return answer


class WritesNoCredential(Oracle):
    """Does not say who did it."""

    def emit(self, kind: EventKind, **fields: int | bytes) -> int:
        self.credential = 0
        return super().emit(kind, **fields)


class KeepsOldNetworks(Oracle):
    """Does not replace the networks of a credential."""

    def set_credential(self) -> Outcome:
        known = self.state.credentials[self.command.number]
        networks = known.networks
        outcome = super().set_credential()
        known.networks = networks
        return outcome


class RemovesRevokedCredentials(Oracle):
    """Removes a revoked credential, so that its number and its key are free."""

    def revoke_credential(self) -> Outcome:
        outcome = super().revoke_credential()
        del self.state.credentials[self.command.number]
        return outcome


class ForgetsFirms(Oracle):
    """Opens accounts without their firm."""

    def open_account(self) -> Outcome:
        outcome = super().open_account()
        self.state.accounts[self.command.account].firm = 0
        return outcome


class TrustingState(State):
    def is_foreign(self, session: Session) -> bool:
        return False


class LetsForeignSessionsAct(Oracle):
    """Lets a session of version 1 of the rules act whose id belongs to a credential by now."""

    make_state = TrustingState


class NumberOfTheIdState(State):
    def credential_of_session(self, command: Command) -> int:
        return command.credential if self.knows_credentials else 0


class GivesOldSessionsACredential(Oracle):
    """Takes the upper half of an id for a credential, also of a session of version 1 of the rules."""

    make_state = NumberOfTheIdState


class ComparesOldContents(Oracle):
    """Compares a repeated request with one of version 1 of the rules, whose content was not kept."""

    def is_other_request(self, session: Session) -> bool:
        first = session.contents[self.command.request_id]
        return self.state.knows_credentials and first != self.command.content


class SwitchesEarly(Oracle):
    """Applies the new rules before the switch."""

    def __init__(self, rules: int = NEWEST_RULES) -> None:
        super().__init__(NEWEST_RULES)


BROKEN_SWITCHES: tuple[type[Oracle], ...] = (
    LetsForeignSessionsAct,
    GivesOldSessionsACredential,
    ComparesOldContents,
    SwitchesEarly,
)
BROKEN_CREDENTIALS: tuple[type[Oracle], ...] = (
    ForgetsScope,
    TakesFirmsForAccounts,
    ForgetsExpiry,
    ExpiresCredentialsLate,
    ForgetsRevocation,
    ForgetsPermissions,
    LetsCustomersAdminister,
    ForgetsThePerson,
    AcceptsAnyPerson,
    AcceptsOtherContent,
    ComparesNoDetails,
    UsesSequenceForMismatch,
    WritesNoCredential,
    KeepsOldNetworks,
    RemovesRevokedCredentials,
    ForgetsFirms,
)
