"""Check what a credential may do, and add, change and revoke credentials. All of it needs version 2 of the rules.

A credential is a public key with permissions for some accounts: one, those of a firm, or all. A session belongs to the
credential whose number is in the upper half of its id. Without a credential, number 0, it acts for its own account, and
those of account 0 for all. A session that was opened with version 1 of the rules is one of number 0, whatever its id;
when a credential of the id's number is added, the session is *foreign*: no client may use it any more.

A node lets a connection use the sessions of its own credential only. The engine decides what a credential may do, at
the same place of the log on every node. Called by command_checks.py, sessions.py and apply.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.command_traits import (
    ADMINISTER,
    GATEWAY,
    LEADER,
    NAMES_ACCOUNT,
    PERMISSIONS,
    TRADE,
    VENUE_ONLY,
    has_trait,
)
from smrx.engine.kernels.emit import begin_event
from smrx.engine.kernels.hash_index import NO_EXTRA, insert
from smrx.engine.kernels.jit import NIL, U0, U32, Array, Record, Tables, inlined, kernel, view_as
from smrx.engine.kernels.layouts import CREDENTIAL_DETAILS_WORDS, CREDENTIAL_EVENT_WORDS, CREDENTIAL_NETWORKS_WORDS
from smrx.engine.kernels.lookup import details_of, find_account, find_credential, find_key_form
from smrx.engine.kernels.pool import append_slot
from smrx.engine.kernels.rules_version import has_credentials
from smrx.engine.kernels.state_hash import refresh_credential
from smrx.engine.kernels.xxh3 import hash4
from smrx.engine.state import CREDENTIALS
from smrx.wire.codes import ALL_PERMISSIONS, CommandKind, EventKind, Reason, Scope
from smrx.wire.records import ADDRESS_SIZE, CREDENTIAL_COMMAND

_ALL: Final = int(ALL_PERMISSIONS)
_ADDRESS_BITS: Final = 8 * ADDRESS_SIZE
_BYTE: Final = np.uint64(0xFF)


@inlined
def number_of(session_id: Any) -> Any:
    """Return the number of the credential that a session id names, a u64; 0 for none."""
    return session_id >> U32


@kernel
def is_foreign(state: Tables, session: Record) -> Any:
    """Whether a session of version 1 of the rules has an id that belongs to a credential by now."""
    number = number_of(session.session_id)
    if number == U0 or session.credential != NIL or not has_credentials(state.core[0]):
        return False
    return find_credential(state, number) != NIL


@kernel
def causing_credential(state: Tables, command: Record) -> Any:
    """Return the number of the credential that causes the events of a command, a u64; the session id names one."""
    if not has_credentials(state.core[0]) or has_trait(command.kind, LEADER):
        return U0
    if command.kind == CommandKind.OPEN_SESSION:
        number = number_of(command.session_id)
        return number if find_credential(state, number) != NIL else U0
    return np.uint64(state.sessions[state.turn[0].session].credential_id)


@inlined
def has_permission(credential: Record, wanted: Any) -> Any:
    """Whether a credential has one of some permissions."""
    return (np.int64(credential.permissions) & wanted) != 0


@inlined
def check_usable(core: Record, credential: Record) -> Any:
    """Return CREDENTIAL_REVOKED, CREDENTIAL_EXPIRED or NONE."""
    if credential.revoked != 0:
        return Reason.CREDENTIAL_REVOKED
    if credential.expires_ns != 0 and credential.expires_ns <= core.time_ns:
        return Reason.CREDENTIAL_EXPIRED
    return Reason.NONE


@kernel
def acts_for(state: Tables, credential: Record, account_id: Any) -> Any:
    """Whether an account is in the scope of a credential."""
    if credential.scope == Scope.ALL:
        return True
    if credential.scope == Scope.ACCOUNT:
        return credential.subject == account_id
    slot = find_account(state, account_id)
    return slot != NIL and state.accounts[slot].firm == credential.subject


@kernel
def check_opener(state: Tables, command: Record) -> Any:
    """Return why a credential may not open the session of an OPEN_SESSION, or NONE."""
    number = number_of(command.session_id)
    if number == U0 or not has_credentials(state.core[0]):
        return Reason.NONE
    slot = find_credential(state, number)
    if slot == NIL:
        return Reason.UNKNOWN_CREDENTIAL
    credential = state.credentials[slot]
    reason = check_usable(state.core[0], credential)
    if reason == Reason.NONE and not acts_for(state, credential, command.account):
        return Reason.NOT_AUTHORISED
    return reason


@kernel
def check_permission(state: Tables, command: Record) -> Any:
    """Return why the credential of the session may not send a command, or NONE. Records the session's own account."""
    turn = state.turn[0]
    session = state.sessions[turn.session]
    credential = state.credentials[session.credential]
    kind = command.kind
    reason = check_usable(state.core[0], credential)
    if reason != Reason.NONE or kind == CommandKind.CLOSE_SESSION:
        return reason
    if kind == CommandKind.REVOKE_CREDENTIAL:
        return check_revoker(state, credential, view_as(command, CREDENTIAL_COMMAND).number)
    if not has_permission(credential, PERMISSIONS[kind]):
        return Reason.NOT_AUTHORISED
    if has_trait(kind, VENUE_ONLY) and credential.scope != Scope.ALL:
        return Reason.NOT_AUTHORISED
    if has_trait(kind, NAMES_ACCOUNT):
        # The session's own account was in the scope when it was opened, and no account changes its firm.
        if session.account_id == command.account:
            turn.account = session.account
        elif not acts_for(state, credential, command.account):
            return Reason.NOT_AUTHORISED
    return Reason.NONE


@kernel
def check_revoker(state: Tables, sender: Record, number: Any) -> Any:
    """Return why a credential may not revoke the one with a number, or NONE: itself, or as an administrator of it."""
    if sender.credential_id == number:
        return Reason.NONE
    if not has_permission(sender, ADMINISTER):
        return Reason.NOT_AUTHORISED
    slot = find_credential(state, number)
    if slot == NIL:
        return Reason.UNKNOWN_CREDENTIAL
    return Reason.NONE if reaches(state, sender, state.credentials[slot]) else Reason.NOT_AUTHORISED


@kernel
def reaches(state: Tables, sender: Record, target: Record) -> Any:
    """Whether a credential acts for all accounts that another one acts for."""
    if sender.scope == Scope.ALL or (sender.scope == target.scope and sender.subject == target.subject):
        return True
    return target.scope == Scope.ACCOUNT and acts_for(state, sender, target.subject)


@kernel
def check_person(state: Tables, command: Record) -> Any:
    """Return why a command may not name the person behind it, or NONE. Then the person causes its events."""
    turn = state.turn[0]
    session = state.sessions[turn.session]
    if session.credential != NIL:
        if not has_permission(state.credentials[session.credential], GATEWAY):
            return Reason.NOT_AUTHORISED
    elif session.account_id != 0:
        return Reason.NOT_AUTHORISED
    number = details_of(state, command).credential
    slot = find_credential(state, number)
    if slot == NIL:
        return Reason.UNKNOWN_CREDENTIAL
    person = state.credentials[slot]
    reason = check_usable(state.core[0], person)
    if reason != Reason.NONE:
        return reason
    if not has_permission(person, TRADE) or not acts_for(state, person, command.account):
        return Reason.NOT_AUTHORISED
    # A firm's gateway does not name the staff of the venue.
    if session.credential != NIL and not reaches(state, state.credentials[session.credential], person):
        return Reason.NOT_AUTHORISED
    turn.credential = np.uint64(number)
    return Reason.NONE


@kernel
def is_network(high: Any, low: Any, prefix: Any) -> Any:
    """Whether no bit behind the prefix of an address is set; `high` has its first eight bytes, the first lowest."""
    if prefix > _ADDRESS_BITS:
        return False
    for at in range(ADDRESS_SIZE):
        word = high if at < 8 else low
        byte = (word >> np.uint64(8 * (at & 7))) & _BYTE
        counted: Any = min(max(np.int64(prefix) - 8 * at, 0), 8)
        if (byte & (_BYTE >> np.uint64(counted))) != U0:
            return False
    return True


@kernel
def are_networks(details: Record) -> Any:
    """Whether the four networks of some details are valid."""
    prefixes = np.uint64(details.prefixes)
    return (
        is_network(details.networks_0, details.networks_1, prefixes & _BYTE)
        and is_network(details.networks_2, details.networks_3, (prefixes >> np.uint64(8)) & _BYTE)
        and is_network(details.networks_4, details.networks_5, (prefixes >> np.uint64(16)) & _BYTE)
        and is_network(details.networks_6, details.networks_7, (prefixes >> np.uint64(24)) & _BYTE)
    )


@kernel
def check_credential_form(state: Tables, command: Record) -> Any:
    """Check the form of ADD_CREDENTIAL, SET_CREDENTIAL and REVOKE_CREDENTIAL."""
    if view_as(command, CREDENTIAL_COMMAND).number == 0:
        return Reason.INVALID_ID
    if command.kind == CommandKind.REVOKE_CREDENTIAL:
        return Reason.NONE
    details = view_as(details_of(state, command), CREDENTIAL_DETAILS_WORDS)
    adding = command.kind == CommandKind.ADD_CREDENTIAL
    if adding and (details.key_0 | details.key_1 | details.key_2 | details.key_3) == U0:
        return Reason.INVALID_ID
    if details.permissions == 0 or details.permissions > _ALL:
        return Reason.INVALID_PERMISSIONS
    if adding:
        if details.scope < Scope.ACCOUNT or details.scope > Scope.ALL:
            return Reason.INVALID_SCOPE
        if (details.scope == Scope.FIRM and details.subject == 0) or (
            details.scope == Scope.ALL and details.subject != 0
        ):
            return Reason.INVALID_SCOPE
    return Reason.NONE if are_networks(details) else Reason.INVALID_NETWORK


@inlined
def key_form(details: Record) -> Any:
    """Return the xxh3 of a key."""
    return hash4(details.key_0, details.key_1, details.key_2, details.key_3)


@kernel
def check_credential(state: Tables, command: Record) -> Any:
    """Return why a command about a credential is rejected, or NONE. Counts the event that follows its own."""
    slot = find_credential(state, view_as(command, CREDENTIAL_COMMAND).number)
    details = view_as(details_of(state, command), CREDENTIAL_DETAILS_WORDS)
    if command.kind == CommandKind.ADD_CREDENTIAL:
        if details.scope == Scope.ACCOUNT and find_account(state, details.subject) == NIL:
            return Reason.UNKNOWN_ACCOUNT
        if slot != NIL:
            return Reason.CREDENTIAL_EXISTS
        if find_key_form(state, key_form(details)) != NIL:
            return Reason.KEY_IN_USE
    elif slot == NIL:
        return Reason.UNKNOWN_CREDENTIAL
    elif state.credentials[slot].revoked != 0:
        return Reason.CREDENTIAL_REVOKED
    if command.kind != CommandKind.REVOKE_CREDENTIAL:
        if details.expires_ns != 0 and details.expires_ns <= state.core[0].time_ns:
            return Reason.INVALID_EXPIRY
        state.turn[0].following = np.uint32(1 if details.prefixes != 0 else 0)
    return Reason.NONE


@kernel
def change_credential(state: Tables, command: Record, outcome: Record, events: Array) -> None:
    """Perform a checked ADD_CREDENTIAL, SET_CREDENTIAL or REVOKE_CREDENTIAL."""
    number = view_as(command, CREDENTIAL_COMMAND).number
    details = view_as(details_of(state, command), CREDENTIAL_DETAILS_WORDS)
    if command.kind == CommandKind.ADD_CREDENTIAL:
        slot = append_slot(state.pools[CREDENTIALS], state.credentials)
        credential = state.credentials[slot]
        credential.credential_id = number
        credential.subject = details.subject
        credential.scope = np.uint16(details.scope)
        credential.key_form = key_form(details)
        credential.key_0 = details.key_0
        credential.key_1 = details.key_1
        credential.key_2 = details.key_2
        credential.key_3 = details.key_3
        insert(state.credential_index, np.uint64(number), NO_EXTRA, slot)
        insert(state.key_index, credential.key_form, NO_EXTRA, slot)
        outcome.event_kind = EventKind.CREDENTIAL_ADDED
    else:
        slot = find_credential(state, number)
        credential = state.credentials[slot]
        outcome.event_kind = EventKind.CREDENTIAL_SET
    if command.kind == CommandKind.REVOKE_CREDENTIAL:
        credential.revoked = np.uint16(1)
        outcome.event_kind = EventKind.CREDENTIAL_REVOKED
    else:
        set_terms(credential, details)
    refresh_credential(state.core[0], credential)
    outcome.order_id = np.uint64(number)
    emit_credential(state, command, events, credential, outcome.event_kind)


@inlined
def set_terms(credential: Record, details: Record) -> None:
    """Copy what SET_CREDENTIAL may change."""
    credential.permissions = details.permissions
    credential.expires_ns = details.expires_ns
    credential.prefixes = details.prefixes
    credential.networks_0 = details.networks_0
    credential.networks_1 = details.networks_1
    credential.networks_2 = details.networks_2
    credential.networks_3 = details.networks_3
    credential.networks_4 = details.networks_4
    credential.networks_5 = details.networks_5
    credential.networks_6 = details.networks_6
    credential.networks_7 = details.networks_7


@kernel
def emit_credential(state: Tables, command: Record, events: Array, credential: Record, kind: Any) -> None:
    """Write the event of a change of a credential, and its networks, if turn.following says so."""
    core = state.core[0]
    turn = state.turn[0]
    account = credential.subject if credential.scope == Scope.ACCOUNT else np.uint32(0)
    event = view_as(begin_event(core, turn, command, events, kind), CREDENTIAL_EVENT_WORDS)
    event.number = credential.credential_id
    event.account = account
    event.key_0 = credential.key_0
    event.key_1 = credential.key_1
    event.key_2 = credential.key_2
    event.key_3 = credential.key_3
    event.permissions = credential.permissions
    event.scope = np.uint8(credential.scope)
    event.expires_ns = credential.expires_ns
    event.subject = credential.subject
    event.following = np.uint8(turn.following)
    if turn.following != 0:
        more = begin_event(core, turn, command, events, EventKind.CREDENTIAL_NETWORKS)
        networks = view_as(more, CREDENTIAL_NETWORKS_WORDS)
        networks.number = credential.credential_id
        networks.account = account
        networks.prefixes = credential.prefixes
        networks.networks_0 = credential.networks_0
        networks.networks_1 = credential.networks_1
        networks.networks_2 = credential.networks_2
        networks.networks_3 = credential.networks_3
        networks.networks_4 = credential.networks_4
        networks.networks_5 = credential.networks_5
        networks.networks_6 = credential.networks_6
        networks.networks_7 = credential.networks_7
