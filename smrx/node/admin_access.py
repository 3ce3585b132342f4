"""Decide which requests of the admin port are answered: what each needs, and the token of a node without keys.

On a node with keys the sender is the principal of its connection (admission.py). A node without keys knows no senders:
requests that change or stop something then carry the token of a file that only the node's user can read, new at each
start; no address decides anything. Everything else is answered to any client. Called by the admin
service.
"""

import contextlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smrx.node.principal import NOT_ADMITTED, Principal
from smrx.wire import admin
from smrx.wire.codes import Permission

#: What a request needs for the exchange as a whole. Those that name an account need READ for it; the others are public.
NEEDS: Final[Mapping[type[admin.Request], Permission]] = {
    admin.Credentials: Permission.ADMINISTER,
    admin.TakeStateImage: Permission.FOLLOW,
    admin.ReadStateImage: Permission.FOLLOW,
    admin.TakeState: Permission.FOLLOW,
    admin.ReadState: Permission.FOLLOW,
    admin.ReadLog: Permission.FOLLOW,
    admin.Snapshot: Permission.ADMINISTER,
    admin.AddMember: Permission.ADMINISTER,
    admin.RemoveMember: Permission.ADMINISTER,
    admin.UpgradeRules: Permission.ADMINISTER,
    admin.TransferLeadership: Permission.ADMINISTER,
    admin.Shutdown: Permission.ADMINISTER,
}
_OF_AN_ACCOUNT: Final = (admin.Orders, admin.Balances, admin.Positions, admin.Transfers, admin.Accounts)


def refusal(request: admin.AnyRequest, principal: Principal | None, token: str | None) -> str | None:
    """Return why a sender may not send a request, in one sentence, or None.

    `principal`: None for a sender that may not be served. `token`: of a node without keys.
    """
    if principal is None:
        return NOT_ADMITTED
    name = type(request).__name__
    if isinstance(request, _OF_AN_ACCOUNT):
        account = request.account
        if principal.may(Permission.READ, account):
            return None
        whose = "all accounts" if account is None else f"account {account}"
        return f"{name} of {whose} needs the permission READ for {'them' if account is None else 'it'}"
    needed = NEEDS.get(type(request), Permission.NONE)
    # A gateway has to know whose keys its clients prove.
    of_gateway = isinstance(request, admin.Credentials) and principal.may(Permission.GATEWAY)
    if needed and not of_gateway and not principal.may(needed):
        return f"{name} needs the permission {needed.name} for all accounts"
    if token is not None and isinstance(request, admin.ChangingRequest):
        given = request.token or ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("ascii")):
            what = "a token of an earlier start, or none of this node" if given else "no token"
            return (
                f"{name} needs the token in admin.token of the node's data directory, found {what}; run the command as "
                "the user of the node, on its machine"
            )
    return None


def write_token(path: Path) -> str:
    """Write a new token to a file that only the node's user can read; return it."""
    token = secrets.token_urlsafe(32)
    # Not into an existing file, which may be open for others.
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token
