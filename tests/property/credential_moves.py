"""Steps of the random flow about credentials: they are added, changed and revoked, and sessions of them are opened.

With version 1 of the rules the same steps give commands of unknown kinds.
"""

from typing import Any

from smrx.wire.codes import Permission, Scope
from tests.commands import NANOSECONDS, Commands, open_session
from tests.oracle import Oracle
from tests.property.choices import ACCOUNTS, Choices, pick_account, sender
from tests.raw_credentials import add_credential, network, revoke_credential, set_credential

P = Permission
#: Mostly useful together; the last ones do not exist.
PERMISSIONS = (
    *(P.TRADE, P.TRADE | P.GATEWAY, P.TRADE | P.WITHDRAW, P.RISK, P.ADMINISTER, P.READ, P.TRADE | P.RISK),
    *(P.TRADE | P.GATEWAY | P.WITHDRAW, P.ADMINISTER | P.TRADE, P.GATEWAY, P.FOLLOW, 0x7F, 0, 0x80),
)
#: Scopes with the subjects from which one is picked; the last ones are invalid.
SCOPES: tuple[tuple[int, tuple[int, ...]], ...] = (
    *((Scope.ACCOUNT, ACCOUNTS), (Scope.FIRM, (5, 6)), (Scope.ALL, (0,)), (Scope.ACCOUNT, (0, 1, 3))),
    *((Scope.ACCOUNT, (77,)), (Scope.FIRM, (0,)), (Scope.ALL, (1,)), (0, (0,)), (4, (0,))),
)
NETWORKS = (
    *((), (network("192.0.2.0/24"),), (network("2001:db8::/32"), network("0.0.0.0/0")), ((bytes(16), 128),)),
    # Too long a prefix, bits beyond it, an address without a prefix; the second place alone.
    *(((bytes(16), 129),), ((b"\xff" * 16, 127),), ((b"\x01" * 16, 0),), ((bytes(16), 0), network("10.1.0.0/16"))),
)
#: With version 1 of the rules: numbers of which the tape adds some credentials when it switches.
LATER_NUMBERS = tuple(range(21, 45))
KEYS = tuple(bytes([at]) * 32 for at in range(3))


def credential_change(choices: Choices, oracle: Oracle) -> Commands:
    """Return a command about a credential, or open a session of one."""
    how = choices.byte()
    if how < 110:
        return new_session(choices, oracle)
    if how < 180:
        return new_credential(choices, oracle)
    number = known_number(choices, oracle)
    if how < 225:
        terms = {name: value for name, value in pick_terms(choices, oracle).items() if name not in ("scope", "subject")}
        return set_credential(sender(choices, oracle, 0), number, **terms)
    return revoke(choices, oracle, number)


def revoke(choices: Choices, oracle: Oracle, number: int) -> Commands:
    """Return a REVOKE_CREDENTIAL: by the venue, by another credential, or by the credential itself."""
    own = [session_id for session_id in oracle.state.sessions if session_id >> 32]
    itself = [session_id for session_id in own if session_id >> 32 == number]
    how = choices.byte()
    if how < 90 or not own:
        return revoke_credential(sender(choices, oracle, 0), number)
    picked = (itself if itself and how < 150 else own)[how % len(itself if itself and how < 150 else own)]
    return revoke_credential((picked, oracle.state.sessions[picked].last_request_id + 1), number)


def known_number(choices: Choices, oracle: Oracle) -> int:
    """Choose the number of a credential; seldom one that is not known, or 0."""
    known, pick = tuple(oracle.state.credentials) or LATER_NUMBERS, choices.byte()
    return known[pick % len(known)] if pick < 240 else pick - 240


def new_session(choices: Choices, oracle: Oracle) -> Commands:
    """Open a session of a credential, mostly for an account that it may act for."""
    state, number = oracle.state, known_number(choices, oracle)
    account, known = pick_account(choices), state.credentials.get(number)
    able = [one for one in state.accounts if known and known.covers(one, state.accounts)]
    if choices.byte() < 200 and able:
        account = able[account % len(able)]
    return open_session(number << 32 | choices.below(4), account, choices.below(2), choices.of((0, 2, 4)))


def new_credential(choices: Choices, oracle: Oracle) -> Commands:
    known = oracle.state.credentials
    number = max(known, default=50) + 1 if choices.byte() < 220 else known_number(choices, oracle)
    terms = pick_terms(choices, oracle)
    pick = choices.byte()
    if pick >= 240:
        terms["key"] = KEYS[pick % len(KEYS)]
    elif pick >= 220 and known:
        terms["key"] = list(known.values())[pick % len(known)].key
    return add_credential(sender(choices, oracle, 0), number, **terms)


def pick_terms(choices: Choices, oracle: Oracle) -> dict[str, Any]:
    """Choose permissions, scope, subject, expiry and networks, mostly valid ones."""
    pick, where, when = choices.byte(), choices.byte(), choices.byte()
    valid = PERMISSIONS[:-2] if pick < 250 else PERMISSIONS[-2:]
    scope, subjects = SCOPES[where % 4] if where < 236 else SCOPES[4 + where % 5]
    expires_ns = 0
    if when >= 250:
        expires_ns = -1
    elif when >= 128:
        # Mostly within a few seconds; one in sixteen just now, or a nanosecond before or after.
        expires_ns = max(1, oracle.time_ns + (when % 16) * NANOSECONDS + when % 3 - 1)
    at = choices.byte()
    networks = NETWORKS[at % 4] if at < 230 else NETWORKS[4 + at % 4]
    return {
        "permissions": valid[pick % len(valid)], "scope": scope, "subject": subjects[where % len(subjects)],
        "expires_ns": expires_ns, "networks": networks,
    }  # fmt: skip
