"""The operations on credentials: add, change, revoke and list the public keys that may use the exchange.

Only for sessions that may administer the exchange, except that each credential may revoke itself.
"""

from collections.abc import Iterable

from zmq.utils import z85

from smrx.client import result_builders
from smrx.client.client_errors import InvalidValue
from smrx.client.command_builders import command, u32
from smrx.client.expiry_time import ExpiryTime, nanoseconds
from smrx.client.expiry_time import text as time_text
from smrx.client.io_steps import Steps
from smrx.client.operation_base import OperationBase
from smrx.client.read_levels import Level
from smrx.client.results import CredentialResult, CredentialState
from smrx.key_files import is_key
from smrx.wire import admin
from smrx.wire.codes import ALL_PERMISSIONS, CommandKind, Permission, Scope
from smrx.wire.networks import pack_networks

#: A permission, its name, or several of them.
Permissions = Permission | str | Iterable[str]


class CredentialOperations(OperationBase):
    """Operations on credentials."""

    def add_credential(
        self,
        number: int,
        key: str,
        permissions: Permissions,
        *,
        account: int | None = None,
        firm: int | None = None,
        networks: Iterable[str] = (),
        expires: ExpiryTime | None = None,
    ) -> Steps[CredentialResult]:
        """Let the holder of a public key (40 characters of Z85) use the exchange, for an account, a firm, or all.

        `permissions`: READ, TRADE, WITHDRAW, ADMINISTER, RISK, GATEWAY, FOLLOW. `networks`: at most four from which it
        may connect, such as "10.1.0.0/16"; without any, from everywhere. A number and a key are never used again.
        """
        if not is_key(key):
            raise InvalidValue(f"key: expected a public key, 40 characters of Z85, found {key!r}")
        if account is not None and firm is not None:
            raise InvalidValue("expected an account or a firm, found both")
        scope, subject = Scope.ALL, 0
        if account is not None:
            scope, subject = Scope.ACCOUNT, u32(account, "account")
        elif firm is not None:
            scope, subject = Scope.FIRM, u32(firm, "firm")
        details = _details(permissions, networks, expires)
        details |= {"key": z85.decode(key), "scope": scope, "subject": subject}
        wanted = command(CommandKind.ADD_CREDENTIAL, details, number=u32(number, "number"))
        outcome = yield from self._submit(wanted, f"credential {number}")
        return CredentialResult(**result_builders.common_fields(outcome), number=number)

    def set_credential(
        self,
        number: int,
        permissions: Permissions,
        *,
        networks: Iterable[str] = (),
        expires: ExpiryTime | None = None,
    ) -> Steps[CredentialResult]:
        """Replace the permissions, networks and expiry of a credential."""
        details = _details(permissions, networks, expires)
        wanted = command(CommandKind.SET_CREDENTIAL, details, number=u32(number, "number"))
        outcome = yield from self._submit(wanted, f"credential {number}")
        return CredentialResult(**result_builders.common_fields(outcome), number=number)

    def revoke_credential(self, number: int) -> Steps[CredentialResult]:
        """Revoke a credential for ever: its sessions and its connections are refused from the next command on."""
        wanted = command(CommandKind.REVOKE_CREDENTIAL, number=u32(number, "number"))
        outcome = yield from self._submit(wanted, f"revocation of credential {number}")
        return CredentialResult(**result_builders.common_fields(outcome), number=number)

    def credentials(self, *, level: Level = "linearizable") -> Steps[list[CredentialState]]:
        """Return all credentials by number, with those that are revoked or have expired."""
        rows = yield from self._pages(admin.Credentials(), admin.CredentialsReply, level)
        return [
            CredentialState(
                number=row.number,
                key=row.key,
                permissions=tuple(permission_names(Permission(row.permissions & ALL_PERMISSIONS))),
                scope=Scope(row.scope).name,
                subject=row.subject,
                networks=tuple(row.networks.split()),
                expires=time_text(row.expires_ns) if row.expires_ns else None,
                revoked=bool(row.revoked),
            )
            for row in rows
        ]


def permission_names(permissions: Permission) -> list[str]:
    """Return the names of permissions."""
    return [str(permission.name) for permission in Permission if permission and permission in permissions]


def _details(permissions: Permissions, networks: Iterable[str], expires: ExpiryTime | None) -> dict[str, int | bytes]:
    try:
        places, prefixes = pack_networks(networks)
    except ValueError as error:
        raise InvalidValue(str(error)) from None
    return {
        "permissions": int(_permissions(permissions)),
        "networks": places,
        "prefixes": prefixes,
        "expires_ns": 0 if expires is None else nanoseconds(expires),
    }


def _permissions(wanted: Permissions) -> Permission:
    if isinstance(wanted, Permission):
        return wanted
    found = Permission.NONE
    for name in [wanted] if isinstance(wanted, str) else wanted:
        try:
            found |= Permission[name.upper()]
        except KeyError:
            known = ", ".join(permission_names(ALL_PERMISSIONS))
            raise InvalidValue(f"permissions: expected some of {known}, found {name!r}") from None
    return found
