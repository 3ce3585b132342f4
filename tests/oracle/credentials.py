"""The oracle's credentials: what one is, what it may do, and the check of a command's credential.

Written from the text of the rules alone; applies with version 2 of the rules. Changes nothing. Called by
command_checks.py and venue.py.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from smrx.wire.codes import CommandKind, Permission, Reason, Scope
from tests.oracle.records import Account, Words

ALL_PERMISSIONS = 0x7F
ADDRESS_BITS = 128


class Network(NamedTuple):
    """An IPv6 network; a prefix of 0 is none."""

    address: bytes = bytes(16)
    prefix: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether the prefix is possible and no bit beyond it is set."""
        if self.prefix > ADDRESS_BITS:
            return False
        beyond = (1 << (ADDRESS_BITS - self.prefix)) - 1
        return int.from_bytes(self.address, "big") & beyond == 0


class Terms(NamedTuple):
    """What ADD_CREDENTIAL and SET_CREDENTIAL say, in the order of the record."""

    key: bytes
    networks: tuple[Network, ...]
    permissions: int
    expires_ns: int
    subject: int
    scope: int


def terms_of(details: bytes) -> Terms:
    """Return the terms in the details of a command."""
    key, *addresses = struct.unpack("<32s16s16s16s16s", details[:96])
    prefixes, (permissions, expires_ns, subject, scope) = details[96:100], struct.unpack("<IqIB", details[100:117])
    networks = tuple(Network(*network) for network in zip(addresses, prefixes, strict=True))
    return Terms(key, networks, permissions, expires_ns, subject, scope)


@dataclass
class Credential:
    number: int
    key: bytes
    permissions: int
    scope: int
    #: The account or the firm; 0 for all.
    subject: int
    #: 0 is never.
    expires_ns: int = 0
    networks: tuple[Network, ...] = field(default_factory=lambda: (Network(),) * 4)
    revoked: bool = False

    def standing(self, time_ns: int) -> Reason:
        """Return why it may do nothing at a time, or NONE."""
        if self.revoked:
            return Reason.CREDENTIAL_REVOKED
        return Reason.CREDENTIAL_EXPIRED if 0 < self.expires_ns <= time_ns else Reason.NONE

    def has_one_of(self, permissions: int) -> bool:
        return bool(self.permissions & permissions)

    def covers(self, number: int, accounts: Mapping[int, Account]) -> bool:
        """Whether an account is in the scope."""
        if self.scope == Scope.FIRM:
            return number in accounts and accounts[number].firm == self.subject
        return self.scope == Scope.ALL or self.subject == number

    @property
    def is_venues(self) -> bool:
        """Whether it may do what concerns every account."""
        return self.scope == Scope.ALL

    @property
    def has_networks(self) -> bool:
        return any(network.prefix for network in self.networks)

    @property
    def prefixes(self) -> int:
        """The lengths of the four prefixes, the first in the low byte."""
        return int.from_bytes(bytes(network.prefix for network in self.networks), "little")

    def covers_all_of(self, other: "Credential", accounts: Mapping[int, Account]) -> bool:
        """Whether it acts for all accounts that another one acts for."""
        of_an_account = other.scope == Scope.ACCOUNT and self.covers(other.subject, accounts)
        return self.is_venues or (self.scope, self.subject) == (other.scope, other.subject) or of_an_account

    def words(self) -> Words:
        head = 21 | self.scope << 8 | self.revoked << 16 | self.prefixes << 32
        what = self.number | self.permissions << 32
        return (head, what, self.subject, self.expires_ns, *struct.unpack("<4Q", self.key))

    def extra_words(self) -> Iterator[Words]:
        if self.has_networks:
            addresses = b"".join(network.address for network in self.networks)
            yield (23, self.number, *struct.unpack("<8Q", addresses))


P = Permission
#: A command about an account in the scope, and the permissions of which it needs one.
OF_AN_ACCOUNT: dict[int, int] = {
    CommandKind.PLACE: P.TRADE,
    CommandKind.REPLACE: P.TRADE,
    CommandKind.CANCEL: P.TRADE | P.RISK,
    CommandKind.MASS_CANCEL: P.TRADE | P.RISK,
    CommandKind.WITHDRAW: P.WITHDRAW,
}
#: A command that needs the scope ALL.
OF_THE_VENUE: dict[int, int] = {
    **dict.fromkeys((CommandKind.SUSPEND_ACCOUNT, CommandKind.RESUME_ACCOUNT, CommandKind.SET_LIMITS), P.RISK),
    **dict.fromkeys((CommandKind.SET_STATUS, CommandKind.KILL, CommandKind.REVIVE), P.RISK),
    **dict.fromkeys((CommandKind.OPEN_ACCOUNT, CommandKind.DEPOSIT, CommandKind.SET_RETENTION), P.ADMINISTER),
    **dict.fromkeys((CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT, CommandKind.SET_RULES), P.ADMINISTER),
    **dict.fromkeys((CommandKind.ADD_CREDENTIAL, CommandKind.SET_CREDENTIAL, CommandKind.SET_CAPACITY), P.ADMINISTER),
}


def may_send(own: Credential, kind: int, account: int, accounts: Mapping[int, Account]) -> bool:
    """Whether a credential may send a command of a kind, other than REVOKE_CREDENTIAL, about an account."""
    if kind == CommandKind.OPEN_SESSION:
        return own.covers(account, accounts)
    if kind in OF_AN_ACCOUNT:
        return own.has_one_of(OF_AN_ACCOUNT[kind]) and own.covers(account, accounts)
    if kind in OF_THE_VENUE:
        return own.has_one_of(OF_THE_VENUE[kind]) and own.is_venues
    # CLOSE_SESSION.
    return True


def revoker_reason(own: Credential, number: int, named: Credential | None, accounts: Mapping[int, Account]) -> Reason:
    """Return why a credential may not revoke another one, or NONE: itself, or one within its scope."""
    if own.number == number:
        return Reason.NONE
    if not own.has_one_of(P.ADMINISTER):
        return Reason.NOT_AUTHORISED
    if named is None:
        return Reason.UNKNOWN_CREDENTIAL
    return Reason.NONE if own.covers_all_of(named, accounts) else Reason.NOT_AUTHORISED


def terms_reason(terms: Terms, *, is_new: bool) -> Reason:
    """Return the first fault in the form of the terms of a credential, or NONE; SET_CREDENTIAL has no scope."""
    if terms.permissions == 0 or terms.permissions & ~ALL_PERMISSIONS:
        return Reason.INVALID_PERMISSIONS
    if is_new:
        has_subject = terms.subject != 0
        if terms.scope not in set(Scope) or (terms.scope == Scope.FIRM and not has_subject):
            return Reason.INVALID_SCOPE
        if terms.scope == Scope.ALL and has_subject:
            return Reason.INVALID_SCOPE
    return Reason.NONE if all(network.is_valid for network in terms.networks) else Reason.INVALID_NETWORK
