"""Say who sends a message: a credential of the state, or an operator whose key the cluster file names.

Owns the types Sender and Principal. Never decides what a request needs: order entry, the admin service and the feed ask
Principal.may(). admission.py says which principal a connection has, now.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from smrx.wire.codes import ALL_PERMISSIONS, Permission, Scope

if TYPE_CHECKING:
    import zmq


#: Why a sender without a principal is refused.
NOT_ADMITTED: Final = (
    "the credential of this connection is revoked, has expired, or may not connect from this address, or the "
    "connection chose its own routing id"
)


class Sender(NamedTuple):
    """How a node with keys knows a connection: its routing id, the user id of its handshake, and its IP address."""

    route: bytes
    user: str
    address: str

    @classmethod
    def of(cls, route: bytes, received: "zmq.Frame") -> "Sender":
        """Return who sent a frame, as the handshake of its connection says."""
        return cls(route, str(received.get("User-Id")), str(received.get("Peer-Address")))


def _no_firm(account: int) -> int:
    return 0


class Principal(NamedTuple):
    """Who sends a message: the number of a credential, its permissions, and the accounts for which it acts."""

    #: 0 without a credential: a node without keys, or a key in the cluster file.
    credential: int
    permissions: Permission
    scope: Scope
    #: The account or the firm, by `scope`; 0 for all accounts.
    subject: int
    #: Returns the firm of an account, 0 for none.
    firm_of: Callable[[int], int] = _no_firm

    def may(self, permission: Permission, account: int | None = None) -> bool:
        """Return whether it has all of `permission` for an account; None is the exchange as a whole.

        The exchange as a whole needs a principal that acts for all accounts.
        """
        if self.permissions & permission != permission:
            return False
        return self.scope is Scope.ALL if account is None else self.acts_for(account)

    def acts_for(self, account: int) -> bool:
        """Return whether an account is one of those for which it acts."""
        if self.scope is Scope.ALL:
            return True
        if not self.subject:
            return False
        return self.subject == (account if self.scope is Scope.ACCOUNT else self.firm_of(account))


#: Of a node without keys, and of the keys in the cluster file.
EVERYTHING: Final = Principal(0, ALL_PERMISSIONS, Scope.ALL, 0)
